//! The downstream side: a connection, and its streams.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::server::{Builder, Connection, Handshake, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::Request;
use outrigger_types::{Buffer, Headers, RequestHead, ResetReason, ResponseHead};

use super::convert::{OVER_THE_LIMITS, request_in, response_out};
use super::error::{ConnError, reset_code, stream_error};
use super::half::{Receiver, poll_send, reset_seen, send_trailers};
use super::keepalive::Keepalive;
use super::meter::{Counters, Meter, Metered};
use super::options::Options;
use crate::http::codec::{BodyEvent, StreamError, UnderscoresAction};
use crate::network::io::Io;

/// Streams reset by the peer before they were accepted: `h2`'s own guard
/// against rapid resets, above which it says ENHANCE_YOUR_CALM. Ours counts
/// premature resets over the connection's life, higher up.
const RESETS_BEFORE_ACCEPT: usize = 1024;

/// A downstream connection.
pub struct ServerConnection {
    state: State,
    keepalive: Option<Keepalive>,
    meter: Arc<Meter>,
    options: Arc<Options>,
}

enum State {
    Handshake {
        handshake: Box<Handshake<Metered, Bytes>>,
        drain: bool,
    },
    Open(Box<Connection<Metered, Bytes>>),
    Closed,
}

/// A request that came in.
#[derive(Debug)]
pub struct Accepted {
    /// Its head.
    pub head: RequestHead,
    /// Its stream.
    pub stream: ServerStream,
    /// No body follows.
    pub end_stream: bool,
}

impl std::fmt::Debug for ServerConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = match self.state {
            State::Handshake { .. } => "handshake",
            State::Open(_) => "open",
            State::Closed => "closed",
        };
        f.debug_struct("ServerConnection")
            .field("state", &state)
            .finish_non_exhaustive()
    }
}

impl ServerConnection {
    /// A connection that is yet to shake hands.
    pub fn new(io: Io, options: Arc<Options>) -> Self {
        let meter = Arc::new(Meter::default());
        let io = Metered::new(io, meter.clone(), &options, true);
        let mut builder = Builder::new();
        builder
            .header_table_size(options.hpack_table_size)
            .max_concurrent_streams(options.max_concurrent_streams)
            .initial_window_size(options.initial_stream_window_size)
            .initial_connection_window_size(options.initial_connection_window_size)
            .max_header_list_size(options.hard_header_list_size())
            .max_send_buffer_size(options.max_send_buffer_size)
            .max_pending_accept_reset_streams(RESETS_BEFORE_ACCEPT)
            .data_frame_budget(usize::MAX);
        if options.allow_connect {
            builder.enable_connect_protocol();
        }
        Self {
            state: State::Handshake {
                handshake: Box::new(builder.handshake(io)),
                drain: false,
            },
            keepalive: None,
            meter,
            options,
        }
    }

    /// The next request; none when the connection is over. Drives the
    /// connection: it is to be polled as long as there are streams.
    pub fn poll_accept(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Accepted, ConnError>>> {
        loop {
            match &mut self.state {
                State::Closed => return Poll::Ready(None),
                State::Handshake { handshake, drain } => {
                    let drain = *drain;
                    match ready!(Pin::new(&mut **handshake).poll(cx)) {
                        Ok(connection) => self.open(connection, drain),
                        Err(error) => return self.end(&error),
                    }
                }
                State::Open(connection) => {
                    let accepted = connection.poll_accept(cx);
                    match accepted {
                        Poll::Ready(Some(Ok((request, respond)))) => {
                            if let Some(accepted) = self.take(request, respond) {
                                return Poll::Ready(Some(Ok(accepted)));
                            }
                        }
                        Poll::Ready(Some(Err(error))) => return self.end(&error),
                        Poll::Ready(None) => {
                            self.state = State::Closed;
                            return Poll::Ready(None);
                        }
                        Poll::Pending => {
                            self.meter.forget_early();
                            ready!(self.poll_keepalive(cx));
                            self.state = State::Closed;
                            return Poll::Ready(Some(Err(ConnError::KeepaliveTimeout)));
                        }
                    }
                }
            }
        }
    }

    fn open(&mut self, mut connection: Connection<Metered, Bytes>, drain: bool) {
        self.keepalive = Keepalive::new(self.options.keepalive, connection.ping_pong());
        if drain {
            connection.graceful_shutdown();
        }
        self.state = State::Open(Box::new(connection));
    }

    fn poll_keepalive(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.keepalive {
            Some(keepalive) => keepalive.poll_timeout(cx),
            None => Poll::Pending,
        }
    }

    fn end<T>(&mut self, error: &h2::Error) -> Poll<Option<Result<T, ConnError>>> {
        self.state = State::Closed;
        Poll::Ready(Some(Err(ConnError::of(error, &self.meter))))
    }

    /// A request, unless its head is over the limits: then its stream is reset.
    fn take(
        &self,
        request: Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
    ) -> Option<Accepted> {
        let id = respond.stream_id().as_u32();
        let (mut head, body) = request_in(request);
        if !self.admit(&mut head) {
            respond.send_reset(OVER_THE_LIMITS);
            return None;
        }
        self.meter.open(id);
        let recv = Receiver::new(body, self.meter.clone());
        let end_stream = recv.is_end_stream();
        let stream = ServerStream {
            recv,
            respond,
            send: None,
            meter: self.meter.clone(),
        };
        Some(Accepted {
            head,
            stream,
            end_stream,
        })
    }

    fn admit(&self, head: &mut RequestHead) -> bool {
        let Options {
            max_headers_bytes,
            max_headers_count,
            underscores,
            ..
        } = *self.options;
        if head.byte_size() > max_headers_bytes || head.headers.len() > max_headers_count {
            self.meter.heads_too_large.fetch_add(1, Relaxed);
            return false;
        }
        if underscores == UnderscoresAction::Allow {
            return true;
        }
        let before = head.headers.len();
        head.headers.retain(|name, _| !name.as_str().contains('_'));
        let found = (before - head.headers.len()) as u64;
        if found > 0 && underscores == UnderscoresAction::RejectRequest {
            self.meter.underscores_rejected.fetch_add(1, Relaxed);
            return false;
        }
        self.meter.underscores_dropped.fetch_add(found, Relaxed);
        true
    }

    /// Takes no new streams and ends when the open ones are done: a GOAWAY with
    /// the highest id, and after a round trip one with the last.
    pub fn graceful_shutdown(&mut self) {
        match &mut self.state {
            State::Handshake { drain, .. } => *drain = true,
            State::Open(connection) => connection.graceful_shutdown(),
            State::Closed => {}
        }
    }

    /// Ends the connection with a GOAWAY of this error code; open streams are
    /// cut.
    pub fn abrupt_shutdown(&mut self, code: u32) {
        match &mut self.state {
            State::Handshake { .. } => self.state = State::Closed,
            State::Open(connection) => connection.abrupt_shutdown(Reason::from(code)),
            State::Closed => {}
        }
    }

    /// Ends the connection without a word.
    pub fn close(&mut self) {
        self.state = State::Closed;
    }

    /// Whether a stream is open.
    pub fn has_streams(&self) -> bool {
        match &self.state {
            State::Open(connection) => connection.has_streams(),
            State::Handshake { .. } | State::Closed => false,
        }
    }

    /// Streams that are held open: accepted, and not yet dropped.
    pub fn active_streams(&self) -> usize {
        self.meter.streams()
    }

    /// What was counted so far.
    pub fn counters(&self) -> Counters {
        self.meter.counters()
    }
}

/// One request of a downstream.
#[derive(Debug)]
pub struct ServerStream {
    recv: Receiver,
    respond: SendResponse<Bytes>,
    send: Option<SendStream<Bytes>>,
    meter: Arc<Meter>,
}

impl ServerStream {
    /// The id of the stream.
    pub fn id(&self) -> u32 {
        self.respond.stream_id().as_u32()
    }

    /// See [`ServerStream`](crate::http::codec::ServerStream::poll_recv).
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<BodyEvent, StreamError>> {
        self.recv.poll(cx)
    }

    /// See [`ServerStream`](crate::http::codec::ServerStream::release).
    pub fn release(&mut self, n: usize) {
        self.recv.release(n);
    }

    /// See [`ServerStream`](crate::http::codec::ServerStream::send_informational).
    ///
    /// # Errors
    /// The stream is over, or the head is no such.
    pub fn send_informational(&mut self, head: ResponseHead) -> Result<(), StreamError> {
        self.respond
            .send_informational(response_out(head))
            .map_err(|error| stream_error(&error, &self.meter))
    }

    /// See [`ServerStream`](crate::http::codec::ServerStream::send_head).
    ///
    /// # Errors
    /// The stream is over, or a head is sent already.
    pub fn send_head(&mut self, head: ResponseHead, end_stream: bool) -> Result<(), StreamError> {
        let send = self.respond.send_response(response_out(head), end_stream);
        self.send = Some(send.map_err(|error| stream_error(&error, &self.meter))?);
        Ok(())
    }

    /// See [`ServerStream`](crate::http::codec::ServerStream::poll_send_data).
    pub fn poll_send_data(
        &mut self,
        cx: &mut Context<'_>,
        data: &mut Buffer,
        end_stream: bool,
    ) -> Poll<Result<usize, StreamError>> {
        match &mut self.send {
            Some(send) => poll_send(send, cx, data, end_stream, &self.meter),
            None => Poll::Ready(Err(StreamError::local("http2.data_out_of_place"))),
        }
    }

    /// See [`ServerStream`](crate::http::codec::ServerStream::send_trailers).
    ///
    /// # Errors
    /// The stream is over.
    pub fn send_trailers(&mut self, trailers: Headers) -> Result<(), StreamError> {
        match &mut self.send {
            Some(send) => send_trailers(send, trailers, &self.meter),
            None => Err(StreamError::local("http2.end_out_of_place")),
        }
    }

    /// See [`ServerStream`](crate::http::codec::ServerStream::poll_reset).
    pub fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<StreamError> {
        let seen = match &mut self.send {
            Some(send) => ready!(send.poll_reset(cx)),
            None => ready!(self.respond.poll_reset(cx)),
        };
        Poll::Ready(reset_seen(seen, &self.meter))
    }

    /// See [`ServerStream`](crate::http::codec::ServerStream::reset).
    pub fn reset(&mut self, reason: ResetReason) {
        self.respond.send_reset(reset_code(reason));
    }
}
