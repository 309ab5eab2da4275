//! The upstream side: requests out, responses in.

use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use outrigger_types::{Buffer, Headers, RequestHead, ResetReason, ResponseHead, StatusCode};

use super::body::{Decoder, Framing};
use super::encode::{self, Outgoing};
use super::head::{Asked, ParsedResponse, parse_response};
use super::locate::Scan;
use super::options::Options;
use super::send::Sending;
use super::tally::Tally;
use super::wire::Wire;
use crate::http::codec::{BodyEvent, ByteCounts, HeadEvent, StreamError};
use crate::network::io::Io;

/// Bytes that are read ahead while only the end of the connection is looked for.
const READ_AHEAD: usize = 64 * 1024;

/// An upstream connection, and the request that it is at.
#[derive(Debug)]
pub struct ClientConnection {
    wire: Wire,
    options: Arc<Options>,
    scan: Scan,
    asked: Asked,
    sending: Sending,
    tally: Tally,
    /// None until the final head is in.
    body: Option<Decoder>,
    keep_alive: bool,
    failed: Option<StreamError>,
    /// Who waits for an upgrade to be accepted before it sends.
    upgrade_waker: Option<Waker>,
    /// It carries raw bytes from the first one on.
    tunnel: bool,
    /// Our direction of a tunnel is ended.
    shut: bool,
    /// The upstream said that it closes the connection.
    announced_close: bool,
}

impl ClientConnection {
    /// A connection that waits for its first request.
    pub fn new(io: Io, options: Arc<Options>) -> Self {
        Self {
            wire: Wire::new(io),
            scan: Scan::default(),
            asked: Asked::default(),
            sending: Sending::Done,
            tally: Tally::default(),
            body: Some(Decoder::new(Framing::None, &options)),
            keep_alive: true,
            failed: None,
            upgrade_waker: None,
            tunnel: false,
            shut: false,
            announced_close: false,
            options,
        }
    }

    /// Sends the head of a request. What follows a CONNECT or an upgrade
    /// (`protocol` is set) waits until the upstream accepted it.
    ///
    /// # Errors
    /// Another request is not over, or the target cannot be written.
    pub fn send_head(&mut self, head: RequestHead, end_stream: bool) -> Result<(), StreamError> {
        if !self.is_reusable() {
            return Err(StreamError::local("http1.request_out_of_place"));
        }
        let target = head.path.iter().chain(head.authority_bytes());
        if target.into_iter().any(|b| *b <= b' ' || *b == 0x7f) {
            return Err(StreamError::local("http1.invalid_url"));
        }
        self.asked = Asked::by(&head);
        self.body = None;
        self.tally = Tally::begin(self.wire.consumed(), &self.wire);
        let tail = self.wire.tail();
        let start = tail.len();
        let framing = encode::request(
            tail,
            &head,
            end_stream,
            self.options.send_fully_qualified_url,
            self.options.header_case,
        );
        self.tally.sent(&tail[start..]);
        self.sending = Sending::Body(framing);
        match end_stream {
            true => self.finish(None),
            false => Ok(()),
        }
    }

    /// Makes the connection a tunnel without a word to the upstream: the answer is a 200 at
    /// once, then raw bytes go both ways, and each direction ends by itself.
    ///
    /// # Errors
    /// A request is not over.
    pub fn open_tunnel(&mut self, end_stream: bool) -> Result<(), StreamError> {
        if !self.is_reusable() {
            return Err(StreamError::local("http1.request_out_of_place"));
        }
        self.asked = Asked {
            connect: true,
            ..Asked::default()
        };
        self.tunnel = true;
        self.tally = Tally::begin(self.wire.consumed(), &self.wire);
        self.body = None;
        self.sending = Sending::Body(Outgoing::Raw);
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
        self.keep_alive &= result.is_ok();
        result
    }

    fn fail<T>(&mut self, error: StreamError) -> Poll<Result<T, StreamError>> {
        self.keep_alive = false;
        self.failed = Some(error.clone());
        Poll::Ready(Err(error))
    }

    /// See [`ClientStream::poll_head`](crate::http::codec::ClientStream::poll_head).
    pub fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<HeadEvent, StreamError>> {
        if let Some(error) = &self.failed {
            return Poll::Ready(Err(error.clone()));
        }
        if self.body.is_some() {
            return Poll::Ready(Err(StreamError::local("http1.head_was_taken")));
        }
        if self.tunnel {
            let opened = ParsedResponse {
                head: ResponseHead::new(StatusCode::OK),
                framing: Framing::Raw,
                keep_alive: false,
                close: false,
                field_bytes: 0,
            };
            let head = self.take_head(opened);
            self.body = Some(Decoder::new(Framing::UntilClose, &self.options));
            return Poll::Ready(Ok(head));
        }
        loop {
            let input = &mut self.wire.input;
            match parse_response(input, &mut self.scan, self.asked, &self.options) {
                Ok(Some(response)) => return Poll::Ready(Ok(self.take_head(response))),
                Ok(None) => {}
                Err(error) => return self.fail(StreamError::protocol(error.details)),
            }
            match ready!(self.wire.poll_fill(cx)) {
                Ok(0) if !self.wire.input.is_empty() => {
                    return self.fail(StreamError::protocol("http1.codec_error"));
                }
                Ok(0) | Err(_) => return self.fail(StreamError::connection_termination()),
                Ok(_) => {}
            }
        }
    }

    fn take_head(&mut self, response: ParsedResponse) -> HeadEvent {
        let ParsedResponse {
            head,
            framing,
            keep_alive,
            close,
            field_bytes,
        } = response;
        self.tally.received(field_bytes);
        if is_interim(&head) {
            return HeadEvent::Informational(head);
        }
        self.keep_alive &= keep_alive;
        self.announced_close = close;
        if self.sending == Sending::Body(Outgoing::Raw) && framing != Framing::Raw {
            self.drop_upload();
        }
        if let Some(waker) = self.upgrade_waker.take() {
            waker.wake();
        }
        let body = Decoder::new(framing, &self.options);
        let end_stream = body.is_done();
        self.body = Some(body);
        HeadEvent::Final { head, end_stream }
    }

    /// Nobody reads the rest of the request: it is dropped.
    fn drop_upload(&mut self) {
        self.keep_alive = false;
        if let Sending::Body(_) = self.sending {
            self.sending = Sending::Body(Outgoing::Discard);
        }
    }

    /// See [`ClientStream::poll_recv`](crate::http::codec::ClientStream::poll_recv).
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<BodyEvent, StreamError>> {
        if let Some(error) = &self.failed {
            return Poll::Ready(Err(error.clone()));
        }
        loop {
            let Some(body) = &mut self.body else {
                return Poll::Ready(Err(StreamError::local("http1.head_is_to_come")));
            };
            match body.decode(&mut self.wire.input) {
                Ok(Some(event)) => {
                    self.tally.received_in(&event);
                    return Poll::Ready(Ok(event));
                }
                Ok(None) => {}
                Err(error) => return self.fail(StreamError::protocol(error.details)),
            }
            match ready!(self.wire.poll_fill(cx)) {
                Ok(0) if body.end_of_connection() => return Poll::Ready(Ok(BodyEvent::End)),
                Ok(0) if body.is_raw() => {
                    return self.fail(StreamError::connection_termination());
                }
                Ok(0) => return self.fail(StreamError::protocol("http1.codec_error")),
                Ok(_) => {}
                Err(_) => return self.fail(StreamError::connection_termination()),
            }
        }
    }

    /// See [`ClientStream::poll_send_data`](crate::http::codec::ClientStream::poll_send_data).
    /// What can no longer be written is dropped: the answer, or its absence, is
    /// what tells.
    pub fn poll_send_data(
        &mut self,
        cx: &mut Context<'_>,
        data: &mut Buffer,
        end_stream: bool,
    ) -> Poll<Result<usize, StreamError>> {
        if self.sending == Sending::Body(Outgoing::Raw) && self.body.is_none() {
            self.upgrade_waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let limit = self.options.write_buffer;
        if self.wire.waiting() >= limit
            && self.poll_flush(cx).is_pending()
            && self.wire.waiting() >= limit
        {
            return Poll::Pending;
        }
        let limit = match self.sending {
            Sending::Body(Outgoing::Discard) => usize::MAX,
            _ => limit,
        };
        let result = self.sending.data(&mut self.wire, data, end_stream, limit);
        self.keep_alive &= result.is_ok();
        Poll::Ready(result)
    }

    /// See [`ClientStream::send_trailers`](crate::http::codec::ClientStream::send_trailers).
    /// They are dropped unless enabled.
    ///
    /// # Errors
    /// The request is over, or shorter than it promised.
    pub fn send_trailers(&mut self, trailers: Headers) -> Result<(), StreamError> {
        self.finish(self.options.clone().enable_trailers.then_some(&trailers))
    }

    /// See [`ClientStream::poll_reset`](crate::http::codec::ClientStream::poll_reset).
    /// What was read ahead is still to be had from the other functions: while
    /// there is such, the end of the connection is not reported here.
    pub fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<StreamError> {
        if let Some(error) = &self.failed {
            return Poll::Ready(error.clone());
        }
        while self.wire.input.len() < READ_AHEAD {
            match ready!(self.wire.poll_fill(cx)) {
                Ok(n) if n > 0 => {}
                _ if self.wire.input.is_empty() && !self.ends_with_connection() => {
                    let error = StreamError::connection_termination();
                    self.keep_alive = false;
                    self.failed = Some(error.clone());
                    return Poll::Ready(error);
                }
                _ => return Poll::Pending,
            }
        }
        Poll::Pending
    }

    fn ends_with_connection(&mut self) -> bool {
        self.body
            .as_mut()
            .is_some_and(|body| body.end_of_connection())
    }

    /// Writes all that waits. An upstream that reads no more may have answered
    /// all the same, so that this is no error.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        let ends = self.tunnel && self.sending == Sending::Done && !self.shut;
        let done = match ends {
            true => ready!(self.wire.poll_shutdown(cx)),
            false => ready!(self.wire.poll_flush(cx)),
        };
        self.shut |= ends;
        if done.is_err() {
            self.wire.drop_output();
            self.drop_upload();
        }
        Poll::Ready(Ok(()))
    }

    /// Ends the stream: the connection is to be closed.
    pub fn reset(&mut self, reason: ResetReason) {
        self.keep_alive = false;
        self.failed = Some(StreamError {
            reason,
            ..StreamError::local("")
        });
    }

    /// What the request and its response took of the connection so far.
    pub fn byte_counts(&self) -> ByteCounts {
        self.tally.counts(&self.wire)
    }

    /// Whether request and response are over and another request may be sent.
    pub fn is_reusable(&self) -> bool {
        self.keep_alive
            && self.failed.is_none()
            && self.sending == Sending::Done
            && self.body.as_ref().is_some_and(Decoder::is_done)
            && self.wire.input.is_empty()
    }

    /// Whether request and response are over, even if no other may follow.
    pub fn is_complete(&self) -> bool {
        self.failed.is_none()
            && self.sending == Sending::Done
            && self.body.as_ref().is_some_and(Decoder::is_done)
    }

    /// Whether the upstream sent what it was not asked for.
    pub fn sent_unasked(&self) -> bool {
        !self.tunnel && !self.wire.input.is_empty()
    }

    /// Whether the upstream broke the protocol.
    pub fn is_protocol_error(&self) -> bool {
        let failed = self.failed.as_ref();
        failed.is_some_and(|error| error.reason == ResetReason::ProtocolError)
    }

    /// Whether it carries a CONNECT, or a tunnel.
    pub fn is_connect(&self) -> bool {
        self.asked.connect
    }

    /// Whether the response said that the connection is closed after it.
    pub fn announced_close(&self) -> bool {
        self.announced_close
    }

    /// Whether the upstream has closed its direction.
    pub fn is_ended_by_peer(&self) -> bool {
        self.wire.is_ended()
    }

    /// Ready when an idle connection is dead: closed, or the upstream sent what
    /// it was not asked for.
    pub fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // What is still to be written does not matter: a failure shows in the read.
        let _ = self.wire.poll_flush(cx);
        if self.wire.input.is_empty() {
            let _ = ready!(self.wire.poll_fill(cx));
        }
        self.keep_alive = false;
        Poll::Ready(())
    }

    /// Writes all that waits and ends our direction.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        let done = ready!(self.wire.poll_shutdown(cx));
        Poll::Ready(done.map_err(|_| StreamError::connection_termination()))
    }

    /// The connection beneath, with what was read ahead put back.
    pub fn into_io(self) -> Io {
        self.wire.into_io()
    }

    /// The connection beneath, for its addresses and counters.
    pub fn io(&self) -> &Io {
        self.wire.io()
    }
}

/// A head that another one follows.
fn is_interim(head: &ResponseHead) -> bool {
    head.status.is_informational() && head.status != StatusCode::SWITCHING_PROTOCOLS
}
