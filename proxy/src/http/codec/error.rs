//! How a stream ends before its time, and what the codec says of it.

use std::borrow::Cow;
use std::fmt;

use outrigger_types::ResetReason;

/// Why a stream cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamError {
    /// Envoy's reason, from which status, flag and retry class follow.
    pub reason: ResetReason,
    /// Envoy's response code details, such as `http1.codec_error`; empty when
    /// the reason says all.
    pub details: Cow<'static, str>,
    /// The error code of HTTP/2 that was in the peer's RST_STREAM or GOAWAY, or
    /// that ours will carry.
    pub code: Option<u32>,
    /// Whether the peer ended it, rather than this side.
    pub remote: bool,
}

impl StreamError {
    /// The connection ended under the stream.
    pub const fn connection_termination() -> Self {
        Self {
            reason: ResetReason::ConnectionTermination,
            details: Cow::Borrowed(""),
            code: None,
            remote: true,
        }
    }

    /// The peer broke the protocol.
    pub const fn protocol(details: &'static str) -> Self {
        Self {
            reason: ResetReason::ProtocolError,
            details: Cow::Borrowed(details),
            code: None,
            remote: true,
        }
    }

    /// This side did what the stream's state does not allow.
    pub const fn local(details: &'static str) -> Self {
        Self {
            reason: ResetReason::LocalReset,
            details: Cow::Borrowed(details),
            code: None,
            remote: false,
        }
    }
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason.as_str())?;
        if !self.details.is_empty() {
            write!(f, " ({})", self.details)?;
        }
        Ok(())
    }
}

impl std::error::Error for StreamError {}
