//! What operators read.

use outrigger_types::{Headers, RequestHead, ResponseHead, StreamInfo};

/// What made a log entry (`%ACCESS_LOG_TYPE%`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum AccessLogType {
    /// Not from an access log.
    #[default]
    NotSet,
    /// A connection was accepted by a TCP proxy.
    TcpConnectionStart,
    /// A TCP proxy's upstream connection was made.
    TcpUpstreamConnected,
    /// A connection of a TCP proxy goes on.
    TcpPeriodic,
    /// The end of a TCP connection.
    TcpConnectionEnd,
    /// The beginning of an HTTP stream.
    DownstreamStart,
    /// An HTTP stream goes on.
    DownstreamPeriodic,
    /// The end of an HTTP stream.
    DownstreamEnd,
    /// A tunnel of an HTTP stream is there.
    DownstreamTunnelSuccessfullyEstablished,
}

impl AccessLogType {
    /// As the operator prints it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotSet => "NotSet",
            Self::TcpConnectionStart => "TcpConnectionStart",
            Self::TcpUpstreamConnected => "TcpUpstreamConnected",
            Self::TcpPeriodic => "TcpPeriodic",
            Self::TcpConnectionEnd => "TcpConnectionEnd",
            Self::DownstreamStart => "DownstreamStart",
            Self::DownstreamPeriodic => "DownstreamPeriodic",
            Self::DownstreamEnd => "DownstreamEnd",
            Self::DownstreamTunnelSuccessfullyEstablished => {
                "DownstreamTunnelSuccessfullyEstablished"
            }
        }
    }
}

/// The stream that a format is evaluated for.
#[derive(Clone, Copy, Debug)]
pub struct FormatContext<'a> {
    /// What is known of the stream.
    pub info: &'a StreamInfo,
    /// The head of the request, if it was read.
    pub request: Option<&'a RequestHead>,
    /// The head of the response, if there is one.
    pub response: Option<&'a ResponseHead>,
    /// The response's trailers, if there are any.
    pub trailers: Option<&'a Headers>,
    /// `%LOCAL_REPLY_BODY%`; empty unless a local reply is being made.
    pub local_reply_body: &'a [u8],
    /// `%ACCESS_LOG_TYPE%`
    pub access_log_type: AccessLogType,
}

impl<'a> FormatContext<'a> {
    /// A context with nothing but the stream's facts.
    pub fn new(info: &'a StreamInfo) -> Self {
        Self {
            info,
            request: None,
            response: None,
            trailers: None,
            local_reply_body: b"",
            access_log_type: AccessLogType::NotSet,
        }
    }
}
