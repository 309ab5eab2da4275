//! The downstream side: requests in, responses out, one after the other.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use outrigger_types::{Buffer, Headers, Protocol, RequestHead, ResetReason, ResponseHead, names};
use tokio::time::{Sleep, sleep};

use super::body::{Decoder, Framing};
use super::encode::{self, Outgoing, ResponseContext};
use super::head::{Asked, ParsedRequest, parse_request};
use super::locate::Scan;
use super::options::{H1Error, Options};
use super::send::Sending;
use super::tally::Tally;
use super::wire::Wire;
use crate::http::codec::{BodyEvent, ByteCounts, StreamError};
use crate::network::io::Io;

/// Bytes that are read ahead while only the end of the connection is looked for.
const READ_AHEAD: usize = 64 * 1024;
/// How often it is looked for the end of a connection of which nothing is read.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The next request of a connection.
#[derive(Debug, PartialEq, Eq)]
pub struct NextRequest {
    /// The head. `protocol` is set when the client asks for an upgrade.
    pub head: RequestHead,
    /// No body follows. Never of an upgrade or a CONNECT.
    pub end_stream: bool,
    /// Fields that were dropped for the underscore in their name.
    pub dropped_underscores: u32,
    /// HTTP/1.1 or HTTP/1.0.
    pub protocol: Protocol,
}

/// A downstream connection, and the request that it is at.
#[derive(Debug)]
pub struct ServerConnection {
    wire: Wire,
    options: Arc<Options>,
    scan: Scan,
    body: Decoder,
    sending: Sending,
    tally: Tally,
    asked: Asked,
    http_10: bool,
    raw: bool,
    close: bool,
    /// The responses say so, and the client is given time to follow.
    announced: bool,
    failed: Option<StreamError>,
    /// Bytes of the next head came.
    begun: bool,
    /// When to look whether the client is gone, while nothing is read.
    look: Option<Pin<Box<Sleep>>>,
}

impl ServerConnection {
    /// A connection that waits for its first request.
    pub fn new(io: Io, options: Arc<Options>) -> Self {
        Self {
            wire: Wire::new(io),
            scan: Scan::default(),
            body: Decoder::new(Framing::None, &options),
            sending: Sending::Done,
            tally: Tally::default(),
            asked: Asked::default(),
            http_10: false,
            raw: false,
            close: false,
            announced: false,
            failed: None,
            begun: false,
            look: None,
            options,
        }
    }

    /// The next request; none when the client ends the connection instead. If it does so
    /// in the middle of a head, the error says that it is gone.
    ///
    /// After an error that is no disconnection the error is to be answered with
    /// the functions that send, and the connection closed.
    pub fn poll_next_head(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<NextRequest>, H1Error>> {
        loop {
            let before = self.wire.consumed();
            self.begun |= !self.wire.input.is_empty();
            match parse_request(&mut self.wire.input, &mut self.scan, &self.options) {
                Ok(Some(request)) => {
                    self.tally = Tally::begin(before, &self.wire);
                    return Poll::Ready(Ok(Some(self.begin(request))));
                }
                Ok(None) => {}
                Err(error) => {
                    self.refuse();
                    return Poll::Ready(Err(error));
                }
            }
            if let Poll::Ready(Err(_)) = self.wire.poll_flush(cx) {
                return Poll::Ready(self.gone());
            }
            if !matches!(ready!(self.wire.poll_fill(cx)), Ok(n) if n > 0) {
                return Poll::Ready(self.gone());
            }
        }
    }

    fn gone(&self) -> Result<Option<NextRequest>, H1Error> {
        match self.begun {
            true => Err(H1Error::DISCONNECTED),
            false => Ok(None),
        }
    }

    fn begin(&mut self, request: ParsedRequest) -> NextRequest {
        let ParsedRequest {
            head,
            framing,
            protocol,
            keep_alive,
            dropped,
            field_bytes,
        } = request;
        self.begun = false;
        self.tally.received(field_bytes);
        self.asked = Asked::by(&head);
        self.http_10 = protocol == Protocol::Http10;
        self.raw = framing == Framing::Raw;
        self.close |= !keep_alive;
        self.body = Decoder::new(framing, &self.options);
        self.sending = Sending::Head;
        NextRequest {
            head,
            end_stream: self.body.is_done(),
            dropped_underscores: dropped,
            protocol,
        }
    }

    /// Makes ready to answer what could not be read, or did not come in time; the
    /// connection is to be closed after it.
    pub fn refuse(&mut self) {
        // All that came belongs to what is refused.
        self.tally = Tally::begin(self.wire.consumed(), &self.wire);
        self.wire.input.clear();
        self.close = true;
        self.asked = Asked::default();
        self.http_10 = false;
        self.raw = false;
        self.body = Decoder::new(Framing::None, &self.options);
        self.sending = Sending::Head;
    }

    /// See [`ServerStream::poll_recv`](crate::http::codec::ServerStream::poll_recv).
    /// A client that half-closes is gone, as in Envoy.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<BodyEvent, StreamError>> {
        if let Some(error) = &self.failed {
            return Poll::Ready(Err(error.clone()));
        }
        loop {
            match self.body.decode(&mut self.wire.input) {
                Ok(Some(event)) => {
                    self.tally.received_in(&event);
                    return Poll::Ready(Ok(event));
                }
                Ok(None) => {}
                Err(error) => {
                    return Poll::Ready(Err(self.fail(StreamError::protocol(error.details))));
                }
            }
            if !matches!(ready!(self.wire.poll_fill(cx)), Ok(n) if n > 0) {
                return Poll::Ready(Err(self.fail(StreamError::connection_termination())));
            }
        }
    }

    fn fail(&mut self, error: StreamError) -> StreamError {
        self.close = true;
        self.failed = Some(error.clone());
        error
    }

    /// See [`ServerStream::send_informational`](crate::http::codec::ServerStream::send_informational).
    /// HTTP/1.0 knows no such heads: nothing is sent.
    ///
    /// # Errors
    /// The final head is sent already.
    pub fn send_informational(&mut self, head: ResponseHead) -> Result<(), StreamError> {
        if self.sending != Sending::Head || !head.status.is_informational() {
            return Err(StreamError::local("http1.informational_out_of_place"));
        }
        if !self.http_10 {
            let context = ResponseContext {
                close: false,
                keep_alive: false,
                ..self.context()
            };
            let tail = self.wire.tail();
            let start = tail.len();
            encode::response(tail, &head, false, context);
            self.tally.sent(&tail[start..]);
        }
        Ok(())
    }

    fn context(&self) -> ResponseContext {
        ResponseContext {
            asked: self.asked,
            http_10: self.http_10,
            close: self.close || self.announced,
            keep_alive: self.http_10 && !self.close && !self.announced,
            case: self.options.header_case,
        }
    }

    /// See [`ServerStream::send_head`](crate::http::codec::ServerStream::send_head).
    /// A response that goes out before its request is in closes the connection,
    /// and says so, as in Envoy.
    ///
    /// # Errors
    /// A head is sent already, or the body that it promises is missing.
    pub fn send_head(&mut self, head: ResponseHead, end_stream: bool) -> Result<(), StreamError> {
        if self.sending != Sending::Head {
            return Err(StreamError::local("http1.head_out_of_place"));
        }
        let accepted = self.asked.is_tunnel(head.status);
        self.close |= !accepted && !self.body.is_done();
        self.close |= says_close(&head.headers);
        let context = self.context();
        let context = ResponseContext {
            close: context.close && !accepted,
            ..context
        };
        let tail = self.wire.tail();
        let start = tail.len();
        let framing = encode::response(tail, &head, end_stream, context);
        self.tally.sent(&tail[start..]);
        self.close |= matches!(framing, Outgoing::UntilClose | Outgoing::Raw);
        self.sending = Sending::Body(framing);
        match end_stream {
            true => self.finish(None),
            false => Ok(()),
        }
    }

    fn finish(&mut self, trailers: Option<&Headers>) -> Result<(), StreamError> {
        let case = self.options.header_case;
        let result = self
            .sending
            .end(&mut self.wire, trailers.map(|trailers| (trailers, case)));
        self.close |= result.is_err();
        result
    }

    /// See [`ServerStream::poll_send_data`](crate::http::codec::ServerStream::poll_send_data).
    pub fn poll_send_data(
        &mut self,
        cx: &mut Context<'_>,
        data: &mut Buffer,
        end_stream: bool,
    ) -> Poll<Result<usize, StreamError>> {
        let limit = self.options.write_buffer;
        if self.wire.waiting() >= limit {
            match self.poll_flush(cx) {
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if self.wire.waiting() >= limit => return Poll::Pending,
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
        }
        let result = self.sending.data(&mut self.wire, data, end_stream, limit);
        self.close |= result.is_err();
        Poll::Ready(result)
    }

    /// See [`ServerStream::send_trailers`](crate::http::codec::ServerStream::send_trailers).
    /// They are dropped unless enabled.
    ///
    /// # Errors
    /// The response is over, or shorter than it promised.
    pub fn send_trailers(&mut self, trailers: Headers) -> Result<(), StreamError> {
        self.finish(self.options.clone().enable_trailers.then_some(&trailers))
    }

    /// See [`ServerStream::poll_reset`](crate::http::codec::ServerStream::poll_reset).
    pub fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<StreamError> {
        if let Some(error) = &self.failed {
            return Poll::Ready(error.clone());
        }
        while self.wire.input.len() < READ_AHEAD {
            if !matches!(ready!(self.wire.poll_fill(cx)), Ok(n) if n > 0) {
                return Poll::Ready(self.fail(StreamError::connection_termination()));
            }
        }
        self.poll_hang_up(cx)
    }

    /// The end of a connection of which no more is read: it would come behind what waits
    /// to be read, so it is looked for at intervals.
    fn poll_hang_up(&mut self, cx: &mut Context<'_>) -> Poll<StreamError> {
        loop {
            let look = self.look.get_or_insert_with(|| Box::pin(sleep(LOOK_EVERY)));
            ready!(look.as_mut().poll(cx));
            self.look = None;
            if self.wire.io().has_hung_up() {
                return Poll::Ready(self.fail(StreamError::connection_termination()));
            }
        }
    }

    /// Writes all that waits.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        match ready!(self.wire.poll_flush(cx)) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(_) => Poll::Ready(Err(self.fail(StreamError::connection_termination()))),
        }
    }

    /// Ends the stream: the connection is to be closed. What waits to be
    /// written is still written by [`poll_shutdown`](Self::poll_shutdown).
    pub fn reset(&mut self, reason: ResetReason) {
        self.close = true;
        self.failed = Some(StreamError {
            reason,
            ..StreamError::local("")
        });
    }

    /// Whether a final head that is sent now says `connection: close` of itself.
    pub fn will_add_close(&self, head: &ResponseHead) -> bool {
        let accepted = self.asked.is_tunnel(head.status);
        !accepted
            && (self.close || !self.body.is_done())
            && !head.headers.contains(&names::CONNECTION)
    }

    /// Makes this request the last: the response says `connection: close`.
    pub fn set_close(&mut self) {
        self.close = true;
    }

    /// Makes the responses from now on say `connection: close`, and leaves it to the client to follow.
    pub fn announce_close(&mut self) {
        self.announced = true;
    }

    /// Whether the connection is to be closed after this request.
    pub fn should_close(&self) -> bool {
        self.close
    }

    /// Whether request and response are over, and the connection may be asked
    /// for the next request.
    pub fn is_between_requests(&self) -> bool {
        self.sending == Sending::Done && self.body.is_done() && self.failed.is_none()
    }

    /// Between requests, and no byte of another one is there.
    pub fn is_idle(&self) -> bool {
        self.is_between_requests() && self.wire.input.is_empty() && !self.begun
    }

    /// This connection for its next request; none if it is to be closed.
    pub fn into_next(self: Box<Self>) -> Option<Box<Self>> {
        (self.is_between_requests() && !self.close).then_some(self)
    }

    /// Writes all that waits and ends our direction.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        let done = ready!(self.wire.poll_shutdown(cx));
        Poll::Ready(done.map_err(|_| StreamError::connection_termination()))
    }

    /// Reads and drops what still comes; ready when the client is gone. For the
    /// time between the last byte and the close (`delayed_close_timeout`).
    pub fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            self.wire.input.clear();
            if !matches!(ready!(self.wire.poll_fill(cx)), Ok(n) if n > 0) {
                return Poll::Ready(());
            }
        }
    }

    /// What the request and its response took of the connection so far.
    pub fn byte_counts(&self) -> ByteCounts {
        self.tally.counts(&self.wire)
    }

    /// Bytes that wait to be written.
    pub fn unwritten(&self) -> usize {
        self.wire.waiting()
    }

    /// The connection beneath, for its addresses and counters.
    pub fn io(&self) -> &Io {
        self.wire.io()
    }

    /// The connection beneath, with what was read and not used put back.
    pub fn into_io(self) -> Io {
        self.wire.into_io()
    }
}

/// Whether a `connection` field names `close`.
fn says_close(headers: &Headers) -> bool {
    headers
        .get_all(&names::CONNECTION)
        .flat_map(|v| v.as_bytes().split(|b| *b == b','))
        .any(|token| token.trim_ascii().eq_ignore_ascii_case(b"close"))
}
