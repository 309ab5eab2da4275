//! Why a stream was reset.

/// Why a stream ended before its time: Envoy's `StreamResetReason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResetReason {
    /// The connection failed before it was established.
    ConnectionFailure,
    /// The connection could not be tried: its socket has not the address or the options that
    /// it is to have.
    LocalConnectionFailure,
    /// The connect timeout passed.
    ConnectionTimeout,
    /// The connection ended while the stream was open.
    ConnectionTermination,
    /// We reset the stream.
    LocalReset,
    /// We refused the stream, and it was not worked on.
    LocalRefusedStreamReset,
    /// The peer reset the stream.
    RemoteReset,
    /// The peer refused the stream (REFUSED_STREAM, or a GOAWAY below its id):
    /// it was not worked on.
    RemoteRefusedStreamReset,
    /// A circuit breaker or a pool limit refused it.
    Overflow,
    /// The peer broke the protocol.
    ProtocolError,
    /// The peer's CONNECT was refused or closed.
    ConnectError,
    /// The overload manager ended it.
    OverloadManager,
    /// An HTTP/1 upstream closed in mid-stream, or answered too early.
    Http1PrematureUpstreamHalfClose,
}

impl ResetReason {
    /// The words of Envoy's local reply bodies and details.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ConnectionFailure => "remote connection failure",
            Self::LocalConnectionFailure => "local connection failure",
            Self::ConnectionTimeout => "connection timeout",
            Self::ConnectionTermination => "connection termination",
            Self::LocalReset => "local reset",
            Self::LocalRefusedStreamReset => "local refused stream",
            Self::RemoteReset => "remote reset",
            Self::RemoteRefusedStreamReset => "remote refused stream reset",
            Self::Overflow => "overflow",
            Self::ProtocolError => "protocol error",
            Self::ConnectError => "remote error with CONNECT request",
            Self::OverloadManager => "overload manager reset",
            Self::Http1PrematureUpstreamHalfClose => "HTTP/1 premature upstream half close",
        }
    }
}
