//! `h2`'s errors as ours.

use std::borrow::Cow;
use std::fmt;

use h2::Reason;
use outrigger_types::ResetReason;

use super::convert::OVER_THE_LIMITS;
use super::fault::Fault;
use super::meter::Meter;
use crate::http::codec::StreamError;

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnError {
    /// This side ended it.
    Fault(Fault),
    /// The peer broke the protocol.
    Protocol {
        /// The error code of HTTP/2.
        code: u32,
    },
    /// The peer sent GOAWAY with an error.
    GoAway {
        /// The error code of HTTP/2.
        code: u32,
    },
    /// A PING had no answer in time.
    KeepaliveTimeout,
    /// The connection was lost.
    Lost,
}

impl ConnError {
    pub(super) fn of(error: &h2::Error, meter: &Meter) -> Self {
        if let Some(fault) = meter.fault() {
            return Self::Fault(fault);
        }
        match error.reason() {
            Some(reason) if error.is_remote() => Self::GoAway {
                code: reason.into(),
            },
            Some(reason) => Self::Protocol {
                code: reason.into(),
            },
            None => Self::Lost,
        }
    }

    /// Envoy's details for the streams that it cuts.
    pub const fn details(&self) -> &'static str {
        match self {
            Self::Fault(fault) => fault.details_of(0),
            Self::Protocol { .. } => "http2.protocol_error",
            Self::GoAway { .. } => "http2.remote_goaway",
            Self::KeepaliveTimeout => "http2.ping_timeout",
            Self::Lost => "",
        }
    }
}

impl fmt::Display for ConnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost => f.write_str("connection lost"),
            Self::Protocol { code } | Self::GoAway { code } => {
                write!(f, "{} ({:?})", self.details(), Reason::from(*code))
            }
            Self::Fault(_) | Self::KeepaliveTimeout => f.write_str(self.details()),
        }
    }
}

impl std::error::Error for ConnError {}

/// What a stream is told. A GOAWAY of the peer reaches only the streams above
/// its last id: they were not worked on.
pub(super) fn stream_error(error: &h2::Error, stream: u32, meter: &Meter) -> StreamError {
    let code = error.reason().map(u32::from);
    if let Some(fault) = meter.fault() {
        return cut(fault, stream);
    }
    let (reason, details) = match error.reason() {
        Some(_) if error.is_go_away() && error.is_remote() => {
            (ResetReason::RemoteRefusedStreamReset, "")
        }
        Some(reason) if error.is_remote() => return remote_reset(reason),
        Some(_) if error.is_go_away() => (ResetReason::ProtocolError, "http2.protocol_error"),
        // Envoy's own word for it, though it was this side that reset.
        Some(_) if error.is_library() && meter.is_server() => {
            (ResetReason::ProtocolError, "http2.remote_reset")
        }
        Some(_) if error.is_library() => (
            ResetReason::ProtocolError,
            "http2.violation.of.messaging.rule",
        ),
        Some(_) => (ResetReason::LocalReset, ""),
        None if error.is_io() => (ResetReason::ConnectionTermination, ""),
        None => return StreamError::local("http2.out_of_place"),
    };
    StreamError {
        reason,
        details: Cow::Borrowed(details),
        code,
        remote: true,
    }
}

/// What a stream is told when this side ends its connection.
pub(super) fn cut(fault: Fault, stream: u32) -> StreamError {
    let local = matches!(fault, Fault::PrematureResets);
    StreamError {
        reason: match local {
            true => ResetReason::LocalReset,
            false => ResetReason::ProtocolError,
        },
        details: Cow::Borrowed(fault.details_of(stream)),
        code: None,
        remote: !local,
    }
}

/// A head or trailers over the limits, which reset the stream: Envoy takes that for a
/// reset by the peer.
pub(super) fn over_the_limits(details: &'static str) -> StreamError {
    StreamError {
        reason: ResetReason::RemoteReset,
        details: Cow::Borrowed(details),
        code: Some(OVER_THE_LIMITS.into()),
        remote: true,
    }
}

/// A RST_STREAM of the peer.
pub(super) fn remote_reset(reason: Reason) -> StreamError {
    StreamError {
        reason: match reason {
            Reason::REFUSED_STREAM => ResetReason::RemoteRefusedStreamReset,
            Reason::CONNECT_ERROR => ResetReason::ConnectError,
            Reason::PROTOCOL_ERROR => ResetReason::ProtocolError,
            _ => ResetReason::RemoteReset,
        },
        details: Cow::Borrowed("http2.remote_reset"),
        code: Some(reason.into()),
        remote: true,
    }
}

/// The code that our RST_STREAM carries.
pub(super) fn reset_code(reason: ResetReason) -> Reason {
    match reason {
        ResetReason::LocalRefusedStreamReset => Reason::REFUSED_STREAM,
        ResetReason::ConnectError => Reason::CONNECT_ERROR,
        ResetReason::ProtocolError => Reason::PROTOCOL_ERROR,
        _ => Reason::INTERNAL_ERROR,
    }
}
