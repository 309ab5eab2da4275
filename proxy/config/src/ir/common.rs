//! Pieces that several resources share.

use std::sync::Arc;
use std::time::Duration;

use outrigger_types::HeaderKey;

use crate::format::Format;

/// Where a resource is subscribed to (`core.v3.ConfigSource`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigSourceConfig {
    /// The kind of source.
    pub source: ConfigSourceKind,
    /// How long to wait for the first answer; none waits for ever.
    pub initial_fetch_timeout: Option<Duration>,
}

/// The kind of a configuration source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigSourceKind {
    /// The bootstrap's ADS stream.
    Ads,
    /// A stream of its own.
    Api(Arc<ApiConfigSource>),
}

/// A gRPC stream to a control plane (`core.v3.ApiConfigSource`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiConfigSource {
    /// Delta or state-of-the-world.
    pub delta: bool,
    /// The cluster of `envoy_grpc`.
    pub cluster: Arc<str>,
    /// `:authority` of the calls, if it is not the cluster's name.
    pub authority: Option<Arc<str>>,
    /// Fields added to every call.
    pub initial_metadata: Vec<(Arc<str>, Arc<str>)>,
    /// Send the node only on the first message of a stream.
    pub set_node_on_first_message_only: bool,
    /// Back-off between connects.
    pub retry_back_off: BackOffConfig,
}

/// Exponential, fully jittered back-off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackOffConfig {
    /// First interval.
    pub base: Duration,
    /// Longest interval.
    pub max: Duration,
}

/// Routing priority; each has its own circuit breakers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum RoutingPriority {
    /// DEFAULT
    #[default]
    Default,
    /// HIGH
    High,
}

/// What to do with a field that is already there (`HeaderAppendAction`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendAction {
    /// Add beside it.
    AppendIfExistsOrAdd,
    /// Add only if it is absent.
    AddIfAbsent,
    /// Replace it, or add.
    OverwriteIfExistsOrAdd,
    /// Replace it only if it is there.
    OverwriteIfExists,
}

/// One field to add.
#[derive(Clone, Debug)]
pub struct HeaderAdd {
    /// Its name.
    pub key: HeaderKey,
    /// Its value, with `%operators%`.
    pub value: Format,
    /// What to do with one that is there.
    pub action: AppendAction,
    /// Add it even if the value is empty.
    pub keep_empty_value: bool,
}

/// Fields to remove and to add, in that order.
#[derive(Clone, Debug, Default)]
pub struct HeaderMutations {
    /// Names to remove.
    pub remove: Vec<HeaderKey>,
    /// Fields to add.
    pub add: Vec<HeaderAdd>,
}

impl HeaderMutations {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.add.is_empty()
    }
}

/// Limits and window sizes of HTTP/2 (`Http2ProtocolOptions`), defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http2Options {
    /// HPACK dynamic table, bytes. Default 4,096.
    pub hpack_table_size: u32,
    /// Streams that a peer may have open. Default 1,024.
    pub max_concurrent_streams: u32,
    /// Initial window of a stream, bytes. Default 16 MiB.
    pub initial_stream_window_size: u32,
    /// Initial window of a connection, bytes. Default 24 MiB.
    pub initial_connection_window_size: u32,
    /// Extended CONNECT.
    pub allow_connect: bool,
    /// Frames waiting to be written, of all kinds. Default 10,000.
    pub max_outbound_frames: u32,
    /// PING, SETTINGS and RST_STREAM waiting to be written. Default 1,000.
    pub max_outbound_control_frames: u32,
    /// Empty DATA, HEADERS and CONTINUATION in a row. Default 1.
    pub max_consecutive_inbound_frames_with_empty_payload: u32,
    /// PRIORITY frames a stream. Default 100.
    pub max_inbound_priority_frames_per_stream: u32,
    /// WINDOW_UPDATE frames a DATA frame sent. Default 10.
    pub max_inbound_window_update_frames_per_data_frame_sent: u32,
    /// PING keep-alive; none for no PINGs.
    pub keepalive: Option<KeepaliveConfig>,
}

/// PING keep-alive (`KeepaliveSettings`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepaliveConfig {
    /// Time between PINGs; none for only the idle ones.
    pub interval: Option<Duration>,
    /// Longest random addition to the interval. Default 15 % of it.
    pub interval_jitter: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Send one before a stream if the connection was idle for so long.
    pub connection_idle_interval: Option<Duration>,
}

/// How names of HTTP/1 fields are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum HeaderKeyFormat {
    /// All lower case.
    #[default]
    Lower,
    /// `Proper-Case`.
    ProperCase,
}

/// `Http1ProtocolOptions`, defaults filled in. Options that only concern one
/// side are without meaning on the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http1Options {
    /// Take absolute URLs in requests. Default true.
    pub allow_absolute_url: bool,
    /// Take HTTP/1.0.
    pub accept_http_10: bool,
    /// Host of an HTTP/1.0 request without one.
    pub default_host_for_http_10: Option<Arc<str>>,
    /// Write trailers and read them.
    pub enable_trailers: bool,
    /// Take a request with both Content-Length and chunked.
    pub allow_chunked_length: bool,
    /// How names are written.
    pub header_key_format: HeaderKeyFormat,
    /// A request that is answered 400 leaves its connection open, as long as it could be
    /// read to its end.
    pub override_stream_error_on_invalid_http_message: bool,
    /// Take methods that no RFC names.
    pub allow_custom_methods: bool,
    /// Send absolute URLs upstream.
    pub send_fully_qualified_url: bool,
}

/// What to do with fields whose name holds an underscore.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum UnderscoresAction {
    /// Pass them.
    #[default]
    Allow,
    /// 400, or a stream reset.
    RejectRequest,
    /// Drop the field.
    DropHeader,
}

/// `HttpProtocolOptions` (common to versions), defaults filled in per user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommonHttpOptions {
    /// Close a connection without streams after so long; none for never.
    /// Default 1 h.
    pub idle_timeout: Option<Duration>,
    /// End a connection after so long; none for never.
    pub max_connection_duration: Option<Duration>,
    /// Fields a message may have. Default 100.
    pub max_headers_count: u32,
    /// Size of all fields, KiB; none for the default of the place.
    pub max_response_headers_kb: Option<u32>,
    /// Longest life of a stream; none for any.
    pub max_stream_duration: Option<Duration>,
    /// See [`UnderscoresAction`].
    pub headers_with_underscores_action: UnderscoresAction,
    /// Requests a connection may carry; none for any number.
    pub max_requests_per_connection: Option<u32>,
}
