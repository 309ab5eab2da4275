//! The upstream side: a connection, the handle that opens streams on it, and
//! the streams.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::client::{Builder, Connection, ResponseFuture, SendRequest};
use http::StatusCode;
use outrigger_types::{Buffer, Headers, RequestHead, ResetReason, ResponseHead, names};

use super::convert::{OVER_THE_LIMITS, request_out, response_in};
use super::error::{ConnError, over_the_limits, reset_code, stream_error};
use super::half::{Receiver, Sender};
use super::keepalive::Keepalive;
use super::meter::Meter;
use super::metered::Metered;
use super::options::Options;
use crate::http::codec::{BodyEvent, HeadEvent, StreamError};
use crate::http::codec_stats::CodecStats;
use crate::network::io::Io;

/// Streams that may be opened before the peer's SETTINGS say how many.
const STREAMS_BEFORE_SETTINGS: usize = 100;

/// An upstream connection to be.
#[derive(Debug)]
pub struct ClientConnection;

impl ClientConnection {
    /// Shakes hands: the driver is to be polled until it ends, for nothing moves
    /// without it; the handle opens streams.
    ///
    /// # Errors
    /// The connection was lost.
    pub async fn handshake(
        io: Io,
        options: Arc<Options>,
        stats: CodecStats,
    ) -> Result<(ClientDriver, ClientHandle), ConnError> {
        let meter = Arc::new(Meter::new(stats, &options, false));
        let io = Metered::new(io, meter.clone(), &options, false);
        let handshake = Builder::new()
            .enable_push(false)
            .header_table_size(options.hpack_table_size)
            .max_concurrent_streams(options.max_concurrent_streams)
            .initial_max_send_streams(STREAMS_BEFORE_SETTINGS)
            .initial_window_size(options.initial_stream_window_size)
            .initial_connection_window_size(options.initial_connection_window_size)
            .max_header_list_size(options.hard_header_list_size())
            .max_send_buffer_size(options.max_send_buffer_size)
            .data_frame_budget(usize::MAX)
            .handshake(io);
        let (send, mut connection) = Box::pin(handshake)
            .await
            .map_err(|error| ConnError::of(&error, &meter))?;
        let driver = ClientDriver {
            keepalive: Keepalive::new(options.keepalive, connection.ping_pong(), meter.clone()),
            connection: Box::new(connection),
            meter: meter.clone(),
            known: false,
        };
        let handle = ClientHandle {
            send,
            meter,
            options,
        };
        Ok((driver, handle))
    }
}

/// Moves the frames of a connection. Dropped, it cuts the connection.
pub struct ClientDriver {
    connection: Box<Connection<Metered, Bytes>>,
    keepalive: Option<Keepalive>,
    meter: Arc<Meter>,
    /// The meter knows the task that polls this.
    known: bool,
}

impl std::fmt::Debug for ClientDriver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientDriver").finish_non_exhaustive()
    }
}

impl ClientDriver {
    /// Whether the peer sent GOAWAY.
    pub fn is_draining(&self) -> bool {
        self.meter.is_draining()
    }
}

impl Future for ClientDriver {
    type Output = Result<(), ConnError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if !std::mem::replace(&mut this.known, true) {
            this.meter.driven_by(cx.waker());
        }
        if let Poll::Ready(end) = Pin::new(&mut *this.connection).poll(cx) {
            let end = end.map_err(|error| ConnError::of(&error, &this.meter));
            return Poll::Ready(match this.meter.fault() {
                Some(fault) => Err(ConnError::Fault(fault)),
                None => end,
            });
        }
        if let Some(fault) = this.meter.fault() {
            return Poll::Ready(Err(ConnError::Fault(fault)));
        }
        match &mut this.keepalive {
            Some(keepalive) => {
                ready!(keepalive.poll_timeout(cx));
                Poll::Ready(Err(ConnError::KeepaliveTimeout))
            }
            None => Poll::Pending,
        }
    }
}

/// Opens streams on a connection. When all handles and streams are dropped the
/// connection ends.
#[derive(Clone, Debug)]
pub struct ClientHandle {
    send: SendRequest<Bytes>,
    meter: Arc<Meter>,
    options: Arc<Options>,
}

impl ClientHandle {
    /// Ready when another stream may be opened.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        if self.is_draining() {
            return Poll::Ready(Err(refused()));
        }
        let ready = ready!(self.send.poll_ready(cx));
        Poll::Ready(ready.map_err(|error| stream_error(&error, 0, &self.meter)))
    }

    /// Opens a stream.
    ///
    /// # Errors
    /// The connection is draining or gone, or the head cannot be sent.
    pub fn send_request(
        &mut self,
        head: RequestHead,
        end_stream: bool,
    ) -> Result<ClientStream, StreamError> {
        if self.is_draining() {
            return Err(refused());
        }
        if let Some(silence) = self.options.keepalive.and_then(|k| k.idle_interval) {
            self.meter.ping_after(silence);
        }
        let (response, send) = self
            .send
            .send_request(request_out(head)?, end_stream)
            .map_err(|error| stream_error(&error, 0, &self.meter))?;
        self.meter.handed_over();
        self.meter.open(response.stream_id().as_u32());
        Ok(ClientStream {
            response: Some(response),
            recv: None,
            bodiless: false,
            send: Sender::new(send, self.meter.clone()),
            meter: self.meter.clone(),
        })
    }

    /// Whether the peer sent GOAWAY: no more streams.
    pub fn is_draining(&self) -> bool {
        self.meter.is_draining()
    }

    /// Streams that the peer lets us have open.
    pub fn max_concurrent_streams(&self) -> usize {
        self.send.current_max_send_streams()
    }

    /// Streams that are held open.
    pub fn active_streams(&self) -> usize {
        self.meter.streams()
    }

    /// Whether the peer takes extended CONNECT.
    pub fn takes_extended_connect(&self) -> bool {
        self.send.is_extended_connect_protocol_enabled()
    }
}

/// A connection that takes no more streams.
fn refused() -> StreamError {
    StreamError {
        reason: ResetReason::RemoteRefusedStreamReset,
        remote: true,
        ..StreamError::local("")
    }
}

/// A message that breaks the rules.
fn broken_message() -> StreamError {
    StreamError {
        remote: true,
        ..StreamError::protocol("http2.violation.of.messaging.rule")
    }
}

/// One attempt at an upstream.
#[derive(Debug)]
pub struct ClientStream {
    /// Until the final head is in.
    response: Option<ResponseFuture>,
    recv: Option<Receiver>,
    /// The status of the response allows no body.
    bodiless: bool,
    send: Sender,
    meter: Arc<Meter>,
}

impl ClientStream {
    /// The id of the stream.
    pub fn id(&self) -> u32 {
        self.send.id()
    }

    /// See [`ClientStream`](crate::http::codec::ClientStream::poll_head).
    pub fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<HeadEvent, StreamError>> {
        let Some(response) = &mut self.response else {
            return Poll::Ready(Err(StreamError::local("http2.head_was_taken")));
        };
        if let Poll::Ready(Some(Ok(interim))) = response.poll_informational(cx) {
            let (head, ()) = response_in(interim);
            return Poll::Ready(self.admit(&head).map(|()| HeadEvent::Informational(head)));
        }
        let response = match ready!(Pin::new(response).poll(cx)) {
            Ok(response) => response,
            Err(error) => {
                if error.is_library() && error.is_reset() {
                    self.meter.end_for_message(self.id());
                }
                return Poll::Ready(Err(stream_error(&error, self.id(), &self.meter)));
            }
        };
        self.response = None;
        let (head, body) = response_in(response);
        let mut recv = Receiver::new(body, self.meter.clone());
        if !head.headers.contains(&names::CONTENT_LENGTH) {
            // Then it is not a body of another length that breaks a rule.
            recv = recv.strict();
        }
        let end_stream = recv.is_end_stream();
        self.recv = Some(recv);
        self.bodiless = matches!(
            head.status,
            StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
        );
        let admitted = self.admit(&head);
        Poll::Ready(admitted.map(|()| HeadEvent::Final { head, end_stream }))
    }

    /// Holds a head to the rules that `h2` does not know, and to the limits.
    fn admit(&mut self, head: &ResponseHead) -> Result<(), StreamError> {
        let impossible = match head.status {
            StatusCode::SWITCHING_PROTOCOLS => true,
            StatusCode::NO_CONTENT => {
                let length = head.headers.get_bytes(&names::CONTENT_LENGTH);
                length.is_some_and(|length| length != b"0")
            }
            _ => false,
        };
        if impossible {
            self.meter.end_for_message(self.id());
            return Err(broken_message());
        }
        let status = 1;
        let held = self
            .meter
            .hold(head.byte_size(), head.headers.len() + status);
        held.map_err(|details| self.refuse(details))
    }

    /// Resets the stream for a limit.
    fn refuse(&mut self, details: &'static str) -> StreamError {
        self.send.send_reset(OVER_THE_LIMITS);
        over_the_limits(details)
    }

    /// See [`ClientStream`](crate::http::codec::ClientStream::poll_recv).
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<BodyEvent, StreamError>> {
        let Some(recv) = &mut self.recv else {
            return Poll::Ready(Err(StreamError::local("http2.head_is_to_come")));
        };
        let event = ready!(recv.poll(cx))?;
        Poll::Ready(match &event {
            BodyEvent::Data { bytes, .. } if self.bodiless && !bytes.is_empty() => {
                self.reset(ResetReason::ProtocolError);
                Err(broken_message())
            }
            BodyEvent::Trailers(trailers) => {
                match self.meter.hold(trailers.byte_size(), trailers.len()) {
                    Ok(()) => Ok(event),
                    Err(details) => Err(self.refuse(details)),
                }
            }
            _ => Ok(event),
        })
    }

    /// See [`ClientStream`](crate::http::codec::ClientStream::release).
    pub fn release(&mut self, n: usize) {
        if let Some(recv) = &mut self.recv {
            recv.release(n);
        }
    }

    /// See [`ClientStream`](crate::http::codec::ClientStream::poll_send_data).
    pub fn poll_send_data(
        &mut self,
        cx: &mut Context<'_>,
        data: &mut Buffer,
        end_stream: bool,
    ) -> Poll<Result<usize, StreamError>> {
        self.send.poll_send(cx, data, end_stream)
    }

    /// See [`ClientStream`](crate::http::codec::ClientStream::send_trailers).
    ///
    /// # Errors
    /// The stream is over.
    pub fn send_trailers(&mut self, trailers: Headers) -> Result<(), StreamError> {
        self.send.send_trailers(trailers)
    }

    /// See [`ClientStream`](crate::http::codec::ClientStream::poll_reset).
    pub fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<StreamError> {
        self.send.poll_reset(cx)
    }

    /// See [`ClientStream`](crate::http::codec::ClientStream::reset).
    pub fn reset(&mut self, reason: ResetReason) {
        if reason == ResetReason::ProtocolError {
            self.meter.will_reset(self.id());
        }
        self.send.send_reset(reset_code(reason));
    }
}

impl Drop for ClientStream {
    fn drop(&mut self) {
        self.meter.close(self.id());
    }
}
