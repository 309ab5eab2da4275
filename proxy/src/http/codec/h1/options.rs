//! What may be configured, and how a malformed request is answered.

use std::fmt;

use bytes::Bytes;
use outrigger_types::{Scheme, StatusCode};

use crate::http::codec::UnderscoresAction;

/// How the names of fields are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum HeaderCase {
    /// All lower case.
    #[default]
    Lower,
    /// `Proper-Case` (`proper_case_words`).
    Proper,
}

/// `Http1ProtocolOptions`, and the limits that stand elsewhere in Envoy's
/// configuration. [`Default`] is Envoy's default.
#[derive(Clone, Debug)]
pub struct Options {
    /// Take absolute URLs in requests. Default true.
    pub allow_absolute_url: bool,
    /// Take HTTP/1.0; otherwise 426. Default false.
    pub accept_http_10: bool,
    /// Host of an HTTP/1.0 request without one. Default none.
    pub default_host_for_http_10: Option<Bytes>,
    /// How names are written.
    pub header_case: HeaderCase,
    /// Pass trailers on, both ways; otherwise they are dropped. Default false.
    pub enable_trailers: bool,
    /// Take a message with Content-Length and chunked: Content-Length is
    /// dropped. Otherwise 400. Default false.
    pub allow_chunked_length: bool,
    /// Take methods that Envoy's parser has no name for. Default false.
    pub allow_custom_methods: bool,
    /// Do not read `Upgrade` in requests. Default false.
    pub ignore_upgrade: bool,
    /// Write absolute URLs in requests. Default false.
    pub send_fully_qualified_url: bool,
    /// Largest head, bytes. Default 60 KiB.
    pub max_headers_bytes: usize,
    /// Most fields of a head. Default 100.
    pub max_headers_count: usize,
    /// Names with underscores, in requests.
    pub underscores: UnderscoresAction,
    /// Scheme of requests that name none: what the transport is.
    pub scheme: Scheme,
    /// Bytes of a body that may wait to be written. Default 64 KiB.
    pub write_buffer: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            allow_absolute_url: true,
            accept_http_10: false,
            default_host_for_http_10: None,
            header_case: HeaderCase::Lower,
            enable_trailers: false,
            allow_chunked_length: false,
            allow_custom_methods: false,
            ignore_upgrade: false,
            send_fully_qualified_url: false,
            max_headers_bytes: 60 * 1024,
            max_headers_count: 100,
            underscores: UnderscoresAction::Allow,
            scheme: Scheme::Http,
            write_buffer: 64 * 1024,
        }
    }
}

/// The details of a request that is refused for an underscore in a field's name.
pub const UNEXPECTED_UNDERSCORE: &str = "http1.unexpected_underscore";

/// A request that is not passed on but answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct H1Error {
    /// The status of the answer. The flag is always Envoy's `DPE`.
    pub status: StatusCode,
    /// Envoy's response code details.
    pub details: &'static str,
    /// The connection was lost instead: there is nobody to answer.
    pub disconnected: bool,
}

impl H1Error {
    /// An answer of `status`.
    pub(super) const fn answer(status: StatusCode, details: &'static str) -> Self {
        Self {
            status,
            details,
            disconnected: false,
        }
    }

    /// The status that answers a request which a codec refuses with these details after
    /// its head: 431 for trailers beyond the limits, else 400.
    pub fn status_of(details: &str) -> StatusCode {
        match [Self::TOO_LARGE, Self::TOO_MANY]
            .iter()
            .find(|e| e.details == details)
        {
            Some(error) => error.status,
            None => StatusCode::BAD_REQUEST,
        }
    }

    /// 400 with the parser's own details.
    pub(super) const CODEC: Self = Self::answer(StatusCode::BAD_REQUEST, "http1.codec_error");
    /// 400: a byte that no field may hold.
    pub(super) const CHARACTERS: Self =
        Self::answer(StatusCode::BAD_REQUEST, "http1.invalid_characters");
    /// 400: a target that is none.
    pub(super) const URL: Self = Self::answer(StatusCode::BAD_REQUEST, "http1.invalid_url");
    /// 400: an absolute URL of another scheme.
    pub(super) const SCHEME: Self = Self::answer(StatusCode::BAD_REQUEST, "http1.invalid_scheme");
    /// 400: a Host that is none.
    pub(super) const AUTHORITY: Self =
        Self::answer(StatusCode::BAD_REQUEST, "http.invalid_authority");
    /// 400: two framings at once.
    pub(super) const TWO_LENGTHS: Self = Self::answer(
        StatusCode::BAD_REQUEST,
        "http1.content_length_and_chunked_not_allowed",
    );
    /// 400: a length where none may be.
    pub(super) const LENGTH: Self =
        Self::answer(StatusCode::BAD_REQUEST, "http1.content_length_not_allowed");
    /// 400: a body where none may be.
    pub(super) const BODY: Self = Self::answer(StatusCode::BAD_REQUEST, "http1.body_disallowed");
    /// 400: chunked where none may be.
    pub(super) const CHUNKED: Self = Self::answer(
        StatusCode::BAD_REQUEST,
        "http1.transfer_encoding_not_allowed",
    );
    /// 400: a name with an underscore.
    pub(super) const UNDERSCORE: Self =
        Self::answer(StatusCode::BAD_REQUEST, UNEXPECTED_UNDERSCORE);
    /// 400: `connection` names what it may not.
    pub(super) const CONNECTION: Self =
        Self::answer(StatusCode::BAD_REQUEST, "http1.connection_header_rejected");
    /// 501: a transfer coding other than chunked.
    pub(super) const TRANSFER_ENCODING: Self = Self::answer(
        StatusCode::NOT_IMPLEMENTED,
        "http1.invalid_transfer_encoding",
    );
    /// 426: a version other than 1.1.
    pub(super) const VERSION: Self = Self::answer(StatusCode::UPGRADE_REQUIRED, "low_version");
    /// 431: too many bytes.
    pub(super) const TOO_LARGE: Self = Self::answer(
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        "http1.headers_too_large",
    );
    /// 431: too many fields.
    pub(super) const TOO_MANY: Self = Self::answer(
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        "http1.too_many_headers",
    );
    /// The peer is gone.
    pub(super) const DISCONNECTED: Self = Self {
        status: StatusCode::BAD_REQUEST,
        details: "downstream_remote_disconnect",
        disconnected: true,
    };
}

impl fmt::Display for H1Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.status.as_u16(), self.details)
    }
}

impl std::error::Error for H1Error {}
