//! The downstream side: a connection, and its streams.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::server::{Builder, Connection, Handshake, SendResponse};
use h2::{Reason, RecvStream};
use http::header::{CONTENT_LENGTH, HOST};
use http::{Method, Request};
use outrigger_types::{Buffer, Headers, RequestHead, ResetReason, ResponseHead};

use super::convert::{OVER_THE_LIMITS, request_in, response_out};
use super::error::{ConnError, over_the_limits, reset_code, stream_error};
use super::fault::Fault;
use super::half::{Receiver, Sender, reset_seen};
use super::keepalive::Keepalive;
use super::meter::Meter;
use super::metered::{Metered, goaway};
use super::options::Options;
use crate::http::codec::{BodyEvent, StreamError, UnderscoresAction};
use crate::http::codec_stats::CodecStats;
use crate::network::io::Io;
use crate::upstream::stats::Http2CodecStats;

/// Streams reset by the peer before they were accepted: `h2`'s own guard
/// against rapid resets, above which it says ENHANCE_YOUR_CALM. Ours counts
/// premature resets over the connection's life, higher up.
const RESETS_BEFORE_ACCEPT: usize = 1024;
/// The longest value that Envoy's HPACK decoder takes, bytes.
const LONGEST_VALUE: usize = 65_536;

/// A downstream connection.
pub struct ServerConnection {
    state: State,
    keepalive: Option<Keepalive>,
    meter: Arc<Meter>,
    options: Arc<Options>,
    /// `h2` was asked how far it got with a malformed request.
    asked: bool,
    /// The request that ends the connection was named.
    told: bool,
    /// What is said of the end, after the request that caused it.
    end: Option<ConnError>,
}

/// What comes of a connection.
#[derive(Debug)]
pub enum Next {
    /// A request.
    Request(Accepted),
    /// A request that the codec refused: it has no stream any more.
    Refused(Refusal),
}

/// Why the codec refused a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Envoy's response code details.
    pub details: &'static str,
    /// It is malformed, and ends the connection; else its stream alone was reset.
    pub malformed: bool,
}

/// What is left of a connection that this side ends for what the peer did.
#[derive(Debug)]
pub struct Parting {
    /// The socket.
    pub io: Io,
    /// What is still to be said.
    pub last_words: Vec<u8>,
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
    pub stream: Box<ServerStream>,
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
    pub fn new(io: Io, options: Arc<Options>, stats: CodecStats) -> Self {
        let meter = Arc::new(Meter::new(stats, &options, true));
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
            asked: false,
            told: false,
            end: None,
        }
    }

    /// The next request; none when the connection is over. Drives the
    /// connection: it is to be polled as long as there are streams.
    pub fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Next, ConnError>>> {
        loop {
            match &mut self.state {
                State::Closed => return Poll::Ready(self.end.take().map(Err)),
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
                            let next = self.take(request, respond);
                            self.told |= matches!(
                                next,
                                Next::Refused(Refusal {
                                    malformed: true,
                                    ..
                                })
                            );
                            return Poll::Ready(Some(Ok(next)));
                        }
                        Poll::Ready(Some(Err(error))) => return self.end(&error),
                        Poll::Ready(None) => {
                            self.state = State::Closed;
                            return match self.meter.fault() {
                                Some(fault) => self.end_for(fault),
                                None => Poll::Ready(None),
                            };
                        }
                        Poll::Pending if self.meter.judge() || self.asks() => {}
                        Poll::Pending => {
                            self.meter.forget_early();
                            ready!(self.poll_keepalive(cx));
                            self.meter.count(Http2CodecStats::keepalive_timeout);
                            self.state = State::Closed;
                            return Poll::Ready(Some(Err(ConnError::KeepaliveTimeout)));
                        }
                    }
                }
            }
        }
    }

    fn open(&mut self, mut connection: Connection<Metered, Bytes>, drain: bool) {
        self.keepalive = Keepalive::new(
            self.options.keepalive,
            connection.ping_pong(),
            self.meter.clone(),
        );
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

    /// Whether `h2` is asked, now, how far it got with a malformed request: the last
    /// stream of its GOAWAY, which nobody else sees, says so.
    fn asks(&mut self) -> bool {
        let State::Open(connection) = &mut self.state else {
            return false;
        };
        let malformed = matches!(self.meter.fault(), Some(Fault::Malformed { .. }));
        if !malformed || std::mem::replace(&mut self.asked, true) {
            return false;
        }
        connection.abrupt_shutdown(Reason::PROTOCOL_ERROR);
        true
    }

    fn end(&mut self, error: &h2::Error) -> Poll<Option<Result<Next, ConnError>>> {
        self.state = State::Closed;
        match ConnError::of(error, &self.meter) {
            ConnError::Fault(fault) => self.end_for(fault),
            error => Poll::Ready(Some(Err(error))),
        }
    }

    /// Ends with what the peer did wrong; a request that was cut off while its head came
    /// is named first.
    fn end_for(&mut self, fault: Fault) -> Poll<Option<Result<Next, ConnError>>> {
        let error = ConnError::Fault(fault);
        let stream = match fault {
            Fault::Malformed { stream, .. } => {
                self.meter.count(Http2CodecStats::rx_messaging_error);
                (!self.told).then_some(stream)
            }
            _ => self.meter.unfinished_head(),
        };
        let Some(stream) = stream else {
            return Poll::Ready(Some(Err(error)));
        };
        self.end = Some(error);
        Poll::Ready(Some(Ok(Next::Refused(Refusal {
            details: fault.details_of(stream),
            malformed: true,
        }))))
    }

    /// The socket, if this side ended the connection: for what the peer did, or because it
    /// was asked to.
    pub fn take_parting(&mut self) -> Option<Parting> {
        let io = self.meter.parting.lock().take()?;
        let mut last_words = Vec::new();
        if let Some(Fault::GoAway { code, text }) = self.meter.fault() {
            let last = self.meter.last_stream.load(Relaxed);
            last_words.extend_from_slice(&goaway(last, code));
            last_words.extend_from_slice(text.as_bytes());
            // A debug text is far shorter than 256 bytes.
            last_words[2] += u8::try_from(text.len()).unwrap_or(0);
        }
        Some(Parting { io, last_words })
    }

    /// A request, unless its head is over the limits: then its stream is reset.
    fn take(&self, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) -> Next {
        let id = respond.stream_id().as_u32();
        let ambiguous = ambiguous(&request, id);
        let (mut head, body) = request_in(request);
        if let Some(fault) = ambiguous.or_else(|| unreadable(&head, id)) {
            self.meter.set_fault(fault);
            return Next::Refused(Refusal {
                details: fault.details_of(id),
                malformed: true,
            });
        }
        if let Err(details) = self.admit(&mut head) {
            respond.send_reset(OVER_THE_LIMITS);
            return Next::Refused(Refusal {
                details,
                malformed: false,
            });
        }
        self.meter.open(id);
        let recv = Receiver::new(body, self.meter.clone());
        let end_stream = recv.is_end_stream();
        let stream = Box::new(ServerStream {
            recv,
            respond,
            send: None,
            meter: self.meter.clone(),
            breaks: false,
        });
        Next::Request(Accepted {
            head,
            stream,
            end_stream,
        })
    }

    /// Holds the head to the limits.
    fn admit(&self, head: &mut RequestHead) -> Result<(), &'static str> {
        let underscores = self.options.underscores;
        let bytes = head.byte_size();
        if underscores == UnderscoresAction::Allow {
            return self.meter.hold(bytes, count_fields(head));
        }
        let before = head.headers.len();
        head.headers.retain(|name, _| !name.as_str().contains('_'));
        let found = (before - head.headers.len()) as u64;
        self.meter.hold(bytes, count_fields(head))?;
        if found > 0 && underscores == UnderscoresAction::RejectRequest {
            let rejected = Http2CodecStats::requests_rejected_with_underscores_in_headers;
            self.meter.count(rejected);
            return Err("http2.unexpected_underscore");
        }
        let dropped = Http2CodecStats::dropped_headers_with_underscores;
        self.meter.stats.add(dropped, found);
        Ok(())
    }

    /// Tells the peer, with a GOAWAY of the highest id, that the connection will end:
    /// [`Self::graceful_shutdown`] is to follow. Takes effect at the next poll.
    pub fn announce_shutdown(&mut self) {
        self.meter.notice.store(true, Relaxed);
    }

    /// Ends the connection at the next poll: its streams were reset too soon.
    pub fn end_for_premature_resets(&mut self) {
        self.meter.set_fault(Fault::PrematureResets);
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
            State::Open(connection) => {
                self.meter.asked.store(true, Relaxed);
                connection.abrupt_shutdown(Reason::from(code));
            }
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

    /// Streams that the peer has reset so far.
    pub fn resets(&self) -> u64 {
        self.meter.resets()
    }
}

/// What could be read in two ways by those behind, and Envoy's library refuses: a host or a
/// length said twice, user information in the authority, `*` for a path.
fn ambiguous<T>(request: &Request<T>, stream: u32) -> Option<Fault> {
    let twice = |name| request.headers().get_all(name).iter().nth(1).is_some();
    let authority = request.uri().authority();
    let has_user = authority.is_some_and(|authority| authority.as_str().contains('@'));
    let by_field = twice(HOST) || twice(CONTENT_LENGTH) || has_user;
    let asterisk = request.uri().path() == "*" && *request.method() != Method::OPTIONS;
    (by_field || asterisk).then_some(Fault::Malformed { stream, by_field })
}

/// What Envoy's library refuses in a head that `h2` takes.
fn unreadable(head: &RequestHead, stream: u32) -> Option<Fault> {
    if head.authority.is_none() {
        return Some(Fault::Malformed {
            stream,
            by_field: false,
        });
    }
    let too_long = head.byte_size() > LONGEST_VALUE
        && head
            .headers
            .iter()
            .any(|(_, value)| value.len() > LONGEST_VALUE);
    too_long.then_some(Fault::GoAway { code: 9, text: "" })
}

/// Fields as Envoy counts them, pseudo-header fields among them.
fn count_fields(head: &RequestHead) -> usize {
    let pseudo = [
        true,
        head.method != Method::CONNECT || head.protocol.is_some(),
        !head.path.is_empty(),
        head.authority.is_some(),
        head.protocol.is_some(),
    ];
    head.headers.len() + pseudo.into_iter().filter(|there| *there).count()
}

/// One request of a downstream.
#[derive(Debug)]
pub struct ServerStream {
    recv: Receiver,
    respond: SendResponse<Bytes>,
    send: Option<Sender>,
    meter: Arc<Meter>,
    /// See [`Self::break_at_end`].
    breaks: bool,
}

impl ServerStream {
    /// The id of the stream.
    pub fn id(&self) -> u32 {
        self.respond.stream_id().as_u32()
    }

    /// See [`ServerStream`](crate::http::codec::ServerStream::poll_recv).
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<BodyEvent, StreamError>> {
        let event = ready!(self.recv.poll(cx));
        if let Ok(BodyEvent::Trailers(trailers)) = &event {
            self.meter.count(Http2CodecStats::trailers);
            if let Err(details) = self.meter.hold(trailers.byte_size(), trailers.len()) {
                self.respond.send_reset(OVER_THE_LIMITS);
                return Poll::Ready(Err(over_the_limits(details)));
            }
        }
        Poll::Ready(event)
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
        let id = self.id();
        self.respond
            .send_informational(response_out(head))
            .map_err(|error| stream_error(&error, id, &self.meter))
    }

    /// See [`ServerStream`](crate::http::codec::ServerStream::send_head).
    ///
    /// # Errors
    /// The stream is over, or a head is sent already.
    pub fn send_head(&mut self, head: ResponseHead, end_stream: bool) -> Result<(), StreamError> {
        let send = self.respond.send_response(response_out(head), end_stream);
        let send = send.map_err(|error| stream_error(&error, self.id(), &self.meter))?;
        self.send = Some(Sender::new(send, self.meter.clone()));
        self.meter.handed_over();
        Ok(())
    }

    /// See [`ServerStream`](crate::http::codec::ServerStream::poll_send_data).
    pub fn poll_send_data(
        &mut self,
        cx: &mut Context<'_>,
        data: &mut Buffer,
        end_stream: bool,
    ) -> Poll<Result<usize, StreamError>> {
        let Some(send) = &mut self.send else {
            return Poll::Ready(Err(StreamError::local("http2.data_out_of_place")));
        };
        if !self.breaks || !end_stream || data.is_empty() {
            return send.poll_send(cx, data, end_stream);
        }
        // The end has a frame of its own, which is not written.
        let sent = ready!(send.poll_send(cx, data, false))?;
        if data.is_empty() {
            ready!(send.poll_send(cx, data, true))?;
        }
        Poll::Ready(Ok(sent))
    }

    /// See [`ServerStream`](crate::http::codec::ServerStream::send_trailers).
    ///
    /// # Errors
    /// The stream is over.
    pub fn send_trailers(&mut self, trailers: Headers) -> Result<(), StreamError> {
        match &mut self.send {
            Some(send) => send.send_trailers(trailers),
            None => Err(StreamError::local("http2.end_out_of_place")),
        }
    }

    /// See [`ServerStream`](crate::http::codec::ServerStream::poll_reset).
    pub fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<StreamError> {
        if let Some(send) = &mut self.send {
            return send.poll_reset(cx);
        }
        let seen = ready!(self.respond.poll_reset(cx));
        Poll::Ready(reset_seen(seen, self.id(), &self.meter))
    }

    /// Counts that the end of the response waited for a window for too long.
    pub fn count_flush_timeout(&self) {
        self.meter.count(Http2CodecStats::tx_flush_timeout);
    }

    /// See [`ServerStream`](crate::http::codec::ServerStream::break_at_end).
    pub fn break_at_end(&mut self) {
        self.breaks = true;
        self.meter.will_break(self.id());
    }

    /// See [`ServerStream`](crate::http::codec::ServerStream::reset).
    pub fn reset(&mut self, reason: ResetReason) {
        if self.breaks {
            return;
        }
        self.meter.will_reset(self.id());
        self.respond.send_reset(reset_code(reason));
    }
}
