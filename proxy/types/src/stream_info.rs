//! What a stream knows about itself: read by access logs, formats and filters.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use crate::{Address, FilterState, FilterStateObject, Metadata, Protocol, ResponseFlags, TlsInfo};

/// `%RESPONSE_CODE_DETAILS%`: usually one of [`details`].
pub type Details = Cow<'static, str>;

/// Envoy's response code details used on this path.
pub mod details {
    macro_rules! details {
        ($($ident:ident = $text:literal;)*) => {
            $(#[doc = concat!("`", $text, "`")]
            pub const $ident: &str = $text;)*
        };
    }

    details! {
        VIA_UPSTREAM = "via_upstream";
        DIRECT_RESPONSE = "direct_response";
        ROUTE_NOT_FOUND = "route_not_found";
        CLUSTER_NOT_FOUND = "cluster_not_found";
        NO_HEALTHY_UPSTREAM = "no_healthy_upstream";
        RESPONSE_TIMEOUT = "response_timeout";
        UPSTREAM_PER_TRY_TIMEOUT = "upstream_per_try_timeout";
        UPSTREAM_PER_TRY_IDLE_TIMEOUT = "upstream_per_try_idle_timeout";
        UPSTREAM_MAX_STREAM_DURATION_REACHED = "upstream_max_stream_duration_reached";
        MAX_DURATION_TIMEOUT = "max_duration_timeout";
        STREAM_IDLE_TIMEOUT = "stream_idle_timeout";
        REQUEST_OVERALL_TIMEOUT = "request_overall_timeout";
        REQUEST_HEADER_TIMEOUT = "request_header_timeout";
        REQUEST_PAYLOAD_TOO_LARGE = "request_payload_too_large";
        REQUEST_PAYLOAD_EXCEEDED_RETRY_BUFFER_LIMIT = "request_payload_exceeded_retry_buffer_limit";
        RESPONSE_PAYLOAD_TOO_LARGE = "response_payload_too_large";
        REQUEST_HEADERS_FAILED_STRICT_CHECK = "request_headers_failed_strict_check";
        MISSING_HOST_HEADER = "missing_host_header";
        QUERY_MISSING_CONTENT_TYPE = "query_missing_content_type";
        MISSING_PATH = "missing_path_rejected";
        ADMIN_FILTER_RESPONSE = "admin_filter_response";
        ABSOLUTE_PATH_REJECTED = "absolute_path_rejected";
        PATH_NORMALIZATION_FAILED = "path_normalization_failed";
        LOW_VERSION = "low_version";
        UPGRADE_FAILED = "upgrade_failed";
        WEBSOCKET_HANDSHAKE_UNSUCCESSFUL = "websocket_handshake_unsuccessful";
        MAINTENANCE_MODE = "maintenance_mode";
        OVERLOAD = "overload";
        FAULT_FILTER_ABORT = "fault_filter_abort";
        DOWNSTREAM_REMOTE_DISCONNECT = "downstream_remote_disconnect";
        DOWNSTREAM_LOCAL_DISCONNECT = "downstream_local_disconnect";
        CODEC_ERROR = "codec_error";
        INTERNAL_REDIRECT = "internal_redirect";
        FILTER_CHAIN_NOT_FOUND = "filter_chain_not_found";
        CONNECTION_HEADER_REJECTED = "connection_header_rejected";
        DROP_OVERLOAD = "drop_overload";
        UNCONDITIONAL_DROP_OVERLOAD = "unconditional_drop_overload";
    }
}

/// What is fixed for all streams of a downstream connection.
#[derive(Debug)]
pub struct ConnectionInfo {
    /// `%CONNECTION_ID%`, unique in the process.
    pub id: u64,
    /// The address that accepted; the original destination if it was restored.
    pub local: Address,
    /// `local` before any filter changed it.
    pub direct_local: Address,
    /// Whether a listener filter restored `local`, even to what it was: only then is it where
    /// the client wanted to go, which clusters of type ORIGINAL_DST follow.
    pub local_restored: bool,
    /// The peer's address; a filter may have changed it.
    pub remote: Address,
    /// The peer's address as the socket gave it.
    pub direct_remote: Address,
    /// Server name that the client asked for (SNI), or empty.
    pub requested_server_name: Box<str>,
    /// What the TLS handshake agreed on; unset in plain text, and until it is over.
    pub tls: OnceLock<Arc<TlsInfo>>,
    /// Why the TLS handshake failed, if it did.
    pub transport_failure: OnceLock<Box<str>>,
    /// When the connection was accepted.
    pub start: Instant,
    /// `stat_prefix` address form of the listener.
    pub listener_name: Arc<str>,
    /// Name of the filter chain.
    pub filter_chain_name: Arc<str>,
    /// The listener's metadata, if it has any.
    pub listener_metadata: Option<Arc<Metadata>>,
    /// The filter chain's metadata, if it has any.
    pub filter_chain_metadata: Option<Arc<Metadata>>,
    /// What a network filter left with the connection; unset until one has.
    pub filter_state: OnceLock<FilterState>,
}

impl ConnectionInfo {
    /// What the TLS handshake agreed on, where there was one.
    pub fn tls(&self) -> Option<&TlsInfo> {
        self.tls.get().map(|tls| &**tls)
    }
}

/// Points in time, relative to [`StreamInfo::start`]; none until it happened.
#[derive(Clone, Copy, Debug, Default)]
pub struct StreamTimes {
    /// Last byte of the request received.
    pub last_downstream_rx: Option<Duration>,
    /// Whole head of the request received.
    pub downstream_rx_head: Option<Duration>,
    /// First byte of the request sent upstream.
    pub first_upstream_tx: Option<Duration>,
    /// Last byte of the request sent upstream.
    pub last_upstream_tx: Option<Duration>,
    /// First byte of the response received.
    pub first_upstream_rx: Option<Duration>,
    /// First byte of the response's body received.
    pub first_upstream_rx_body: Option<Duration>,
    /// Last byte of the response received.
    pub last_upstream_rx: Option<Duration>,
    /// First byte of the response sent downstream.
    pub first_downstream_tx: Option<Duration>,
    /// Last byte of the response sent downstream.
    pub last_downstream_tx: Option<Duration>,
}

/// What is known of the upstream side, of the last attempt.
#[derive(Clone, Debug, Default)]
pub struct UpstreamInfo {
    /// `%UPSTREAM_CLUSTER%`: the cluster's `alt_stat_name` if set, else its name.
    pub cluster: Option<Arc<str>>,
    /// `%UPSTREAM_CLUSTER_RAW%`: the cluster's name.
    pub cluster_raw: Option<Arc<str>>,
    /// Address of the chosen host.
    pub host: Option<Address>,
    /// Hostname of the chosen host.
    pub hostname: Option<Arc<str>>,
    /// Local address of the upstream connection.
    pub local: Option<Address>,
    /// Remote address of the upstream connection.
    pub remote: Option<Address>,
    /// What the TLS handshake of the upstream connection agreed on; none in plain text.
    pub tls: Option<Arc<TlsInfo>>,
    /// Id of the upstream connection.
    pub connection_id: Option<u64>,
    /// Protocol of the upstream stream.
    pub protocol: Option<Protocol>,
    /// `%UPSTREAM_TRANSPORT_FAILURE_REASON%`
    pub transport_failure: Option<Box<str>>,
    /// Hosts tried, in order.
    pub attempted: Vec<Address>,
    /// `%UPSTREAM_WIRE_BYTES_*%`: header bytes received.
    pub header_bytes_received: u64,
    /// Header bytes sent.
    pub header_bytes_sent: u64,
    /// Body bytes received from the upstream.
    pub body_bytes_received: u64,
    /// Body bytes sent to the upstream.
    pub body_bytes_sent: u64,
    /// `%UPSTREAM_WIRE_BYTES_RECEIVED%`: everything received for the stream,
    /// framing included.
    pub wire_bytes_received: u64,
    /// `%UPSTREAM_WIRE_BYTES_SENT%`: everything sent for the stream, framing
    /// included.
    pub wire_bytes_sent: u64,
    /// Names of the hosts tried, in order; beside `attempted`.
    pub attempted_hostnames: Vec<Arc<str>>,
    /// Ids of the connections that the attempts were sent on, in order.
    pub attempted_connection_ids: Vec<u64>,
    /// When the connection began to be made.
    pub connect_start: Option<Instant>,
    /// When the connection was made.
    pub connect_end: Option<Instant>,
    /// When its TLS handshake ended.
    pub handshake_end: Option<Instant>,
    /// When the attempt asked the pool for a connection.
    pub request_start: Option<Instant>,
    /// When the pool gave the stream a connection.
    pub pool_ready: Option<Instant>,
    /// The chosen host's metadata, if it has any.
    pub host_metadata: Option<Arc<Metadata>>,
    /// The cluster's metadata, if it has any.
    pub cluster_metadata: Option<Arc<Metadata>>,
    /// Zone of the chosen host's locality.
    pub zone: Option<Arc<str>>,
    /// What a network filter leaves with the upstream connection, possibly while the stream
    /// lasts; none if it has no such filter.
    pub filter_state: Option<Arc<OnceLock<FilterState>>>,
}

/// One stream's facts.
#[derive(Debug)]
pub struct StreamInfo {
    /// The connection it came on.
    pub connection: Arc<ConnectionInfo>,
    /// Downstream protocol, known once the head is read.
    pub protocol: Option<Protocol>,
    /// When the first byte of the head was seen.
    pub start: Instant,
    /// The same in wall-clock time.
    pub start_wall: SystemTime,
    /// See [`StreamTimes`].
    pub times: StreamTimes,
    /// Flags so far.
    pub flags: ResponseFlags,
    /// Status of the response, once there is one.
    pub response_code: Option<u16>,
    /// Why the response is what it is.
    pub response_code_details: Option<Details>,
    /// `%CONNECTION_TERMINATION_DETAILS%`
    pub connection_termination_details: Option<Details>,
    /// Body bytes received from downstream.
    pub bytes_received: u64,
    /// Body bytes sent downstream.
    pub bytes_sent: u64,
    /// Header bytes received from downstream.
    pub header_bytes_received: u64,
    /// Header bytes sent downstream.
    pub header_bytes_sent: u64,
    /// `%DOWNSTREAM_WIRE_BYTES_RECEIVED%`: everything received for the stream,
    /// framing included.
    pub wire_bytes_received: u64,
    /// `%DOWNSTREAM_WIRE_BYTES_SENT%`: everything sent for the stream, framing
    /// included.
    pub wire_bytes_sent: u64,
    /// Name of the route that was chosen.
    pub route_name: Arc<str>,
    /// Name of the virtual host that was chosen.
    pub virtual_host: Arc<str>,
    /// Name of the virtual cluster that the request fell into.
    pub virtual_cluster: Option<Arc<str>>,
    /// The route's metadata, if it has any.
    pub route_metadata: Option<Arc<Metadata>>,
    /// The virtual host's metadata, if it has any.
    pub virtual_host_metadata: Option<Arc<Metadata>>,
    /// Attempts made upstream: 1 for a request that was not retried.
    pub attempt_count: u32,
    /// `%ROUTE_RESOLUTION_COUNT%`: how often a route was looked for.
    pub route_resolutions: u32,
    /// `%ROUTE_RESOLUTION_TIME_US%`: how long that took.
    pub route_resolution_time: Duration,
    /// See [`UpstreamInfo`].
    pub upstream: UpstreamInfo,
    /// `x-request-id` at the time the request was let in.
    pub request_id: Option<Box<str>>,
    /// The client's address after the rules of `x-forwarded-for`; equals the
    /// connection's remote address unless a header changed it.
    pub downstream_remote: Address,
    /// Dynamic metadata that filters set; made on first use.
    pub metadata: Option<Box<Metadata>>,
    /// What filters left with the stream; made on first use.
    pub filter_state: Option<Box<FilterState>>,
    /// Protocols that TLS offers upstream in place of those that the cluster's context names.
    pub upstream_alpn: Option<Arc<[Box<[u8]>]>>,
    /// Whether the request came from an internal address, by the HCM's rules.
    pub internal_request: bool,
    /// Whether the request is gRPC.
    pub is_grpc: bool,
    /// Whether it is a health check that a filter answers or counts as one.
    pub health_check: bool,
    /// Whether the request is traced.
    pub traced: bool,
    /// `%TRACE_ID%`, if the request is traced.
    pub trace_id: Option<Box<str>>,
}

impl StreamInfo {
    /// A stream that begins now.
    pub fn new(connection: Arc<ConnectionInfo>, empty: Arc<str>) -> Self {
        let downstream_remote = connection.remote.clone();
        Self {
            connection,
            protocol: None,
            start: Instant::now(),
            start_wall: SystemTime::now(),
            times: StreamTimes::default(),
            flags: ResponseFlags::default(),
            response_code: None,
            response_code_details: None,
            connection_termination_details: None,
            bytes_received: 0,
            bytes_sent: 0,
            header_bytes_received: 0,
            header_bytes_sent: 0,
            wire_bytes_received: 0,
            wire_bytes_sent: 0,
            route_name: empty.clone(),
            virtual_host: empty,
            virtual_cluster: None,
            route_metadata: None,
            virtual_host_metadata: None,
            attempt_count: 0,
            route_resolutions: 0,
            route_resolution_time: Duration::ZERO,
            upstream: UpstreamInfo::default(),
            request_id: None,
            downstream_remote,
            metadata: None,
            filter_state: None,
            upstream_alpn: None,
            internal_request: false,
            is_grpc: false,
            health_check: false,
            traced: false,
            trace_id: None,
        }
    }

    /// Time since the stream began.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// The dynamic metadata, made if there is none yet.
    pub fn metadata_mut(&mut self) -> &mut Metadata {
        self.metadata.get_or_insert_default()
    }

    /// What a filter left under a key, with the stream or with its connection.
    pub fn filter_state_object(&self, key: &str) -> Option<&FilterStateObject> {
        let of_stream = self.filter_state.as_deref();
        let of_connection = || self.connection.filter_state.get()?.get(key);
        of_stream.and_then(|s| s.get(key)).or_else(of_connection)
    }

    /// The filter state, made if there is none yet.
    pub fn filter_state_mut(&mut self) -> &mut FilterState {
        self.filter_state.get_or_insert_default()
    }
}
