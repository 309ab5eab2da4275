//! The HTTP connection manager (`HttpConnectionManager`).

use std::sync::Arc;
use std::time::Duration;

use filter_api::{
    CreateContext, HttpFilter, HttpFilterConfig, HttpFilterFactory, Interest, RouteFilterConfig,
    RuntimeFraction, WorkerContext,
};
use outrigger_types::{HeaderName, StatusCode};

use super::{
    AccessLogConfig, AccessLogFilter, CidrRange, CommonHttpOptions, ConfigSourceConfig, HeaderAdd,
    Http1Options, Http2Options, RouteTableConfig,
};
use crate::format::{Format, JsonFormat};

/// An HCM, validated, defaults filled in.
#[derive(Clone, Debug)]
pub struct HcmConfig {
    /// AUTO, HTTP1 or HTTP2.
    pub codec: CodecType,
    /// Without the final dot.
    pub stat_prefix: Arc<str>,
    /// Where routes come from.
    pub routes: RouteSource,
    /// The chain in order, the router last (which makes no filter, see
    /// [`RouterConfig`]).
    pub filters: Vec<HttpFilterEntry>,
    /// The router's own options.
    pub router: RouterConfig,
    /// Upgrades taken, `websocket` and others, by lower-case name.
    pub upgrades: Vec<UpgradeConfig>,
    /// Options common to versions.
    pub common_http: CommonHttpOptions,
    /// Options of HTTP/1.
    pub http1: Http1Options,
    /// Options of HTTP/2.
    pub http2: Http2Options,
    /// `server`; default `envoy`.
    pub server_name: Arc<str>,
    /// What to do with the upstream's `server`.
    pub server_header: ServerHeaderTransformation,
    /// Scheme to write in place of the request's.
    pub scheme_overwrite: Option<Arc<str>>,
    /// Size of a request's head, KiB. Default 60.
    pub max_request_headers_kb: u32,
    /// Longest pause between bytes of a stream; none for any. Default 5 min.
    pub stream_idle_timeout: Option<Duration>,
    /// Longest pause between bytes of a response that is whole and waits for a window; none
    /// for any. Default that of `stream_idle_timeout`.
    pub stream_flush_timeout: Option<Duration>,
    /// Longest time to receive a whole request; none for any.
    pub request_timeout: Option<Duration>,
    /// Longest time to receive a request's head; none for any.
    pub request_headers_timeout: Option<Duration>,
    /// Time between the two GOAWAYs of a drain. Default 5 s.
    pub drain_timeout: Duration,
    /// How long a connection that we close waits for the peer to read the last
    /// bytes; zero for not at all. Default 1 s.
    pub delayed_close_timeout: Duration,
    /// Access logs.
    pub access_logs: Vec<AccessLogConfig>,
    /// Trust the peer's address rather than XFF.
    pub use_remote_address: bool,
    /// Proxies in front whose XFF entries are trusted.
    pub xff_num_trusted_hops: u32,
    /// Do not add to XFF.
    pub skip_xff_append: bool,
    /// What is an internal address.
    pub internal_addresses: Vec<CidrRange>,
    /// Internal includes Unix sockets.
    pub internal_unix_sockets: bool,
    /// Write `user-agent` with the node's cluster where there is none, and
    /// `x-envoy-downstream-service-*` (`add_user_agent`).
    pub add_user_agent: bool,
    /// Value of `via`; empty for none.
    pub via: Arc<str>,
    /// Make `x-request-id`. Default true.
    pub generate_request_id: bool,
    /// Keep an external request's id.
    pub preserve_external_request_id: bool,
    /// Answer with the id too.
    pub always_set_request_id_in_response: bool,
    /// What becomes of XFCC.
    pub forward_client_cert: ForwardClientCert,
    /// What XFCC says of the client's certificate, beside its hash.
    pub client_cert_details: ClientCertDetails,
    /// Pass 100-continue on instead of answering it here.
    pub proxy_100_continue: bool,
    /// Normalise the path (RFC 3986).
    pub normalize_path: bool,
    /// Make `//` one `/`.
    pub merge_slashes: bool,
    /// What to do with `%2F` and `%5C`.
    pub escaped_slashes: EscapedSlashesAction,
    /// What to do with a port in `:authority`.
    pub strip_port: StripPort,
    /// Drop a final dot of the host.
    pub strip_trailing_host_dot: bool,
    /// Which requests are marked as traced; none where no tracing is configured.
    pub tracing: Option<TracingConfig>,
    /// Rewrites local replies.
    pub local_reply: LocalReplyConfig,
    /// Log when the stream begins too.
    pub flush_access_log_on_new_request: bool,
    /// Log a tunnel when it is there, too.
    pub flush_access_log_on_tunnel: bool,
    /// How often an open stream is logged; none for never.
    pub access_log_flush_interval: Option<Duration>,
    /// Append `x-forwarded-port`.
    pub append_x_forwarded_port: bool,
}

/// Which requests are marked as traced, in their `x-request-id` (`HttpConnectionManager.Tracing`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TracingConfig {
    /// Of those that a client asks for by `x-client-trace-id`. Default all.
    pub client: RuntimeFraction,
    /// Of all others. Default all.
    pub random: RuntimeFraction,
    /// Of those chosen so far. Default all.
    pub overall: RuntimeFraction,
}

/// `CodecType`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum CodecType {
    /// AUTO: by ALPN, else by the HTTP/2 preface.
    #[default]
    Auto,
    /// HTTP1
    Http1,
    /// HTTP2
    Http2,
}

/// Where routes come from.
#[derive(Clone, Debug)]
pub enum RouteSource {
    /// Given here.
    Inline(Arc<RouteTableConfig>),
    /// By RDS.
    Rds {
        /// Where from.
        source: ConfigSourceConfig,
        /// The name asked for.
        name: Arc<str>,
    },
}

/// One filter of the chain.
#[derive(Clone, Debug)]
pub struct HttpFilterEntry {
    /// The name that per-route overrides use.
    pub name: Arc<str>,
    /// Its validated configuration.
    pub config: Arc<dyn HttpFilterConfig>,
    /// Off unless a route turns it on.
    pub disabled: bool,
}

/// The router's options (`filters.http.router.v3.Router`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterConfig {
    /// Keep dynamic stats of status codes. Default true.
    pub dynamic_stats: bool,
    /// Do not write `x-envoy-*` to upstream and downstream.
    pub suppress_envoy_headers: bool,
    /// Trust `x-envoy-expected-rq-timeout-ms` of the request.
    pub respect_expected_rq_timeout: bool,
    /// `x-envoy-*` fields whose malformed value is answered 400 (flag `IH`).
    pub strict_check_headers: Vec<HeaderName>,
    /// Do not count a gRPC status that means failure among the cluster's
    /// response code stats.
    pub suppress_grpc_request_failure_code_stats: bool,
}

impl HttpFilterConfig for RouterConfig {
    fn factory(&self, _worker: &WorkerContext) -> Box<dyn HttpFilterFactory> {
        Box::new(RouterMarker)
    }

    fn is_terminal(&self) -> bool {
        true
    }
}

/// The router ends the chain, it is not on it: the stream itself hands what has
/// come through to it.
struct RouterMarker;

impl HttpFilterFactory for RouterMarker {
    fn interest(&self) -> Interest {
        Interest::NONE
    }

    fn create(
        &self,
        _route: Option<&RouteFilterConfig>,
        _cx: &CreateContext<'_>,
    ) -> Option<Box<dyn HttpFilter>> {
        None
    }
}

/// One upgrade.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpgradeConfig {
    /// Lower case.
    pub name: Box<str>,
    /// Whether it is on where no route says otherwise.
    pub enabled: bool,
}

/// `ServerHeaderTransformation`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ServerHeaderTransformation {
    /// OVERWRITE
    #[default]
    Overwrite,
    /// APPEND_IF_ABSENT
    AppendIfAbsent,
    /// PASS_THROUGH
    PassThrough,
}

/// `SetCurrentClientCertDetails`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientCertDetails {
    /// Its subject.
    pub subject: bool,
    /// The certificate, as PEM.
    pub cert: bool,
    /// The certificates that the client showed, as PEM.
    pub chain: bool,
    /// Its DNS names.
    pub dns: bool,
    /// Its URIs.
    pub uri: bool,
}

/// `ForwardClientCertDetails`. Only what has a meaning without client
/// certificates: with plain text, APPEND_FORWARD and FORWARD_ONLY sanitise too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ForwardClientCert {
    /// SANITIZE
    #[default]
    Sanitize,
    /// FORWARD_ONLY
    ForwardOnly,
    /// APPEND_FORWARD
    AppendForward,
    /// SANITIZE_SET
    SanitizeSet,
    /// ALWAYS_FORWARD_ONLY
    AlwaysForwardOnly,
}

/// `PathWithEscapedSlashesAction`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum EscapedSlashesAction {
    /// KEEP_UNCHANGED
    #[default]
    KeepUnchanged,
    /// REJECT_REQUEST
    RejectRequest,
    /// UNESCAPE_AND_REDIRECT
    UnescapeAndRedirect,
    /// UNESCAPE_AND_FORWARD
    UnescapeAndForward,
}

/// What to do with a port in `:authority`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum StripPort {
    /// Keep it.
    #[default]
    None,
    /// Drop the listener's own.
    Matching,
    /// Drop any.
    Any,
}

/// How local replies are rewritten (`LocalReplyConfig`).
#[derive(Clone, Debug, Default)]
pub struct LocalReplyConfig {
    /// The first mapper whose filter matches is used.
    pub mappers: Vec<LocalReplyMapper>,
    /// Format of the body where no mapper says otherwise.
    pub body_format: Option<BodyFormat>,
}

/// One rewriting rule.
#[derive(Clone, Debug)]
pub struct LocalReplyMapper {
    /// Which replies.
    pub filter: AccessLogFilter,
    /// The status to answer instead.
    pub status: Option<StatusCode>,
    /// The body before formatting.
    pub body: Option<Arc<[u8]>>,
    /// Format of the body.
    pub body_format: Option<BodyFormat>,
    /// Fields to add.
    pub headers_to_add: Vec<HeaderAdd>,
}

/// Format of a body (`SubstitutionFormatString`).
#[derive(Clone, Debug)]
pub struct BodyFormat {
    /// Text or JSON.
    pub content: BodyFormatContent,
    /// Content type, if not the default of the kind.
    pub content_type: Option<Arc<str>>,
}

/// Text or JSON.
#[derive(Clone, Debug)]
pub enum BodyFormatContent {
    /// Text.
    Text(Format),
    /// JSON.
    Json(JsonFormat),
}
