//! The one stream API that everything above the codecs uses.
//!
//! Enum dispatch: a frame costs one branch and no allocation. All functions
//! that are called `poll_*` register the waker of the task that owns the
//! stream; one task owns a stream.

use std::task::{Context, Poll};

use bytes::Bytes;
use outrigger_types::{Buffer, Headers, ResetReason, ResponseHead};

use super::{StreamError, h1, h2};

/// A part of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyEvent {
    /// Bytes of the body.
    Data {
        /// Never empty unless `end_stream`.
        bytes: Bytes,
        /// Nothing follows.
        end_stream: bool,
    },
    /// The trailers: nothing follows.
    Trailers(Headers),
    /// Nothing follows.
    End,
}

/// What an upstream answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeadEvent {
    /// A 1xx other than 101; the final head follows.
    Informational(ResponseHead),
    /// The head of the response. 101 is one: raw bytes follow.
    Final {
        /// The head.
        head: ResponseHead,
        /// No body follows.
        end_stream: bool,
    },
}

/// Bytes that one exchange took of its connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByteCounts {
    /// Everything that came in, framing included.
    pub wire_received: u64,
    /// Everything that went out, framing included.
    pub wire_sent: u64,
    /// Of what came in, the fields of the heads.
    pub header_received: u64,
    /// Of what went out, the fields of the heads.
    pub header_sent: u64,
}

/// One request of a downstream, seen from the server's side.
#[derive(Debug)]
pub enum ServerStream {
    /// The connection itself: HTTP/1 has one request at a time.
    H1(Box<h1::ServerConnection>),
    /// One of many streams of a connection.
    H2(Box<h2::ServerStream>),
}

/// One attempt at an upstream, seen from the client's side.
#[derive(Debug)]
pub enum ClientStream {
    /// The connection itself: HTTP/1 has one request at a time.
    H1(Box<h1::ClientConnection>),
    /// One of many streams of a connection.
    H2(Box<h2::ClientStream>),
}

macro_rules! each {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self {
            Self::H1($stream) => $call,
            Self::H2($stream) => $call,
        }
    };
}

impl ServerStream {
    /// The next part of the request's body.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<BodyEvent, StreamError>> {
        each!(self, s => s.poll_recv(cx))
    }

    /// Gives back flow-control credit for `n` bytes of the body, once they went
    /// out on the other side.
    pub fn release(&mut self, n: usize) {
        match self {
            Self::H1(_) => {}
            Self::H2(s) => s.release(n),
        }
    }

    /// Sends a 1xx that is not 101.
    ///
    /// # Errors
    /// The stream is over, or the final head is sent already.
    pub fn send_informational(&mut self, head: ResponseHead) -> Result<(), StreamError> {
        each!(self, s => s.send_informational(head))
    }

    /// Sends the head of the response. After 101, and after 2xx to CONNECT, the
    /// data functions carry raw bytes.
    ///
    /// # Errors
    /// The stream is over, or a head is sent already.
    pub fn send_head(&mut self, head: ResponseHead, end_stream: bool) -> Result<(), StreamError> {
        each!(self, s => s.send_head(head, end_stream))
    }

    /// Sends what the window or the write buffer allows, and takes it out of
    /// `data`; with `end_stream` the stream is ended when `data` is empty.
    /// Returns the number of bytes taken.
    pub fn poll_send_data(
        &mut self,
        cx: &mut Context<'_>,
        data: &mut Buffer,
        end_stream: bool,
    ) -> Poll<Result<usize, StreamError>> {
        each!(self, s => s.poll_send_data(cx, data, end_stream))
    }

    /// Sends the trailers, which ends the response.
    ///
    /// # Errors
    /// The stream is over.
    pub fn send_trailers(&mut self, trailers: Headers) -> Result<(), StreamError> {
        each!(self, s => s.send_trailers(trailers))
    }

    /// Ready when the peer reset the stream or the connection is lost; to be
    /// polled while nothing else is.
    pub fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<StreamError> {
        each!(self, s => s.poll_reset(cx))
    }

    /// Pushes out what is buffered. On HTTP/2 the connection does that.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        match self {
            Self::H1(s) => s.poll_flush(cx),
            Self::H2(_) => Poll::Ready(Ok(())),
        }
    }

    /// Has the end of a tunnel be the end of its bytes alone, not that of a message: on
    /// HTTP/2 RST_STREAM with CONNECT_ERROR (RFC 9113, 8.5) after them; on HTTP/1 that of
    /// the connection, as it is.
    pub fn break_at_end(&mut self) {
        if let Self::H2(stream) = self {
            stream.break_at_end();
        }
    }

    /// Ends the stream: RST_STREAM with the code that Envoy uses, or the end of
    /// the connection.
    pub fn reset(&mut self, reason: ResetReason) {
        each!(self, s => s.reset(reason));
    }

    /// The bytes of the exchange so far; none on HTTP/2, where the library beneath tells
    /// nobody which frames it made of a message.
    pub fn byte_counts(&self) -> Option<ByteCounts> {
        match self {
            Self::H1(s) => Some(s.byte_counts()),
            Self::H2(_) => None,
        }
    }

    /// The HTTP/1 connection, for its next request.
    pub fn into_h1(self) -> Option<Box<h1::ServerConnection>> {
        match self {
            Self::H1(connection) => Some(connection),
            Self::H2(_) => None,
        }
    }
}

impl ClientStream {
    /// The next head that the upstream sent.
    pub fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<HeadEvent, StreamError>> {
        each!(self, s => s.poll_head(cx))
    }

    /// The next part of the response's body, after the final head.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<BodyEvent, StreamError>> {
        each!(self, s => s.poll_recv(cx))
    }

    /// Gives back flow-control credit for `n` bytes of the body, once they went
    /// out on the other side.
    pub fn release(&mut self, n: usize) {
        match self {
            Self::H1(_) => {}
            Self::H2(s) => s.release(n),
        }
    }

    /// Sends what the window or the write buffer allows, and takes it out of
    /// `data`; with `end_stream` the stream is ended when `data` is empty.
    /// Returns the number of bytes taken.
    pub fn poll_send_data(
        &mut self,
        cx: &mut Context<'_>,
        data: &mut Buffer,
        end_stream: bool,
    ) -> Poll<Result<usize, StreamError>> {
        each!(self, s => s.poll_send_data(cx, data, end_stream))
    }

    /// Sends the trailers, which ends the request.
    ///
    /// # Errors
    /// The stream is over.
    pub fn send_trailers(&mut self, trailers: Headers) -> Result<(), StreamError> {
        each!(self, s => s.send_trailers(trailers))
    }

    /// Ready when the peer reset the stream or the connection is lost; to be
    /// polled while nothing else is.
    pub fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<StreamError> {
        each!(self, s => s.poll_reset(cx))
    }

    /// Pushes out what is buffered. On HTTP/2 the connection does that.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        match self {
            Self::H1(s) => s.poll_flush(cx),
            Self::H2(_) => Poll::Ready(Ok(())),
        }
    }

    /// Ends the stream: RST_STREAM with the code that Envoy uses, or the end of
    /// the connection.
    pub fn reset(&mut self, reason: ResetReason) {
        each!(self, s => s.reset(reason));
    }

    /// The bytes of the exchange so far; none on HTTP/2, where the library beneath tells
    /// nobody which frames it made of a message.
    pub fn byte_counts(&self) -> Option<ByteCounts> {
        match self {
            Self::H1(s) => Some(s.byte_counts()),
            Self::H2(_) => None,
        }
    }

    /// The HTTP/1 connection, for its next request if
    /// [`is_reusable`](h1::ClientConnection::is_reusable).
    pub fn into_h1(self) -> Option<Box<h1::ClientConnection>> {
        match self {
            Self::H1(connection) => Some(connection),
            Self::H2(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moves_between_threads<T: Send>() {}

    #[test]
    fn streams_and_connections_are_send_and_small() {
        moves_between_threads::<ServerStream>();
        moves_between_threads::<ClientStream>();
        moves_between_threads::<h2::ServerConnection>();
        moves_between_threads::<h2::ClientDriver>();
        moves_between_threads::<h2::ClientHandle>();
        assert_eq!(size_of::<ServerStream>(), 16);
        assert_eq!(size_of::<ClientStream>(), 16);
        assert!(size_of::<BodyEvent>() <= 48);
    }
}
