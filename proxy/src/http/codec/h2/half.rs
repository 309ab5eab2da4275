//! The receiving and the sending half of a stream, the same on both sides.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use outrigger_types::{Buffer, Headers};

use super::convert::{headers_in, headers_out};
use super::error::{cut, remote_reset, stream_error};
use super::meter::Meter;
use crate::http::codec::{BodyEvent, StreamError};
use crate::upstream::stats::Http2CodecStats;

/// Most bytes asked of the window at once.
const RESERVE: usize = 1 << 30;

/// What comes in.
#[derive(Debug)]
pub(super) struct Receiver {
    stream: RecvStream,
    id: u32,
    meter: Arc<Meter>,
    /// What breaks a rule ends the connection.
    strict: bool,
}

impl Receiver {
    pub(super) fn new(stream: RecvStream, meter: Arc<Meter>) -> Self {
        let id = stream.stream_id().as_u32();
        Self {
            stream,
            id,
            meter,
            strict: false,
        }
    }

    /// Makes what breaks a rule of messages the end of the connection.
    pub(super) fn strict(mut self) -> Self {
        self.strict = true;
        self
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<BodyEvent, StreamError>> {
        loop {
            let bytes = match ready!(self.stream.poll_data(cx)) {
                Some(Ok(bytes)) => bytes,
                Some(Err(error)) => return Poll::Ready(self.error(&error)),
                None => break,
            };
            if !bytes.is_empty() {
                self.meter.read(self.id, bytes.len());
            } else if !self.stream.is_end_stream() {
                continue;
            }
            return Poll::Ready(Ok(BodyEvent::Data {
                bytes,
                end_stream: self.stream.is_end_stream(),
            }));
        }
        Poll::Ready(match ready!(self.stream.poll_trailers(cx)) {
            Ok(Some(trailers)) => Ok(BodyEvent::Trailers(headers_in(trailers))),
            Ok(None) => Ok(BodyEvent::End),
            Err(error) => self.error(&error),
        })
    }

    /// A peer that ended its side and then resets with NO_ERROR only wants no
    /// more of ours: what came is whole.
    fn error(&self, error: &h2::Error) -> Result<BodyEvent, StreamError> {
        let harmless = error.is_remote()
            && error.is_reset()
            && error.reason() == Some(Reason::NO_ERROR)
            && self.meter.was_ended(self.id);
        if self.strict && error.is_library() && error.is_reset() {
            self.meter.end_for_message(self.id);
        }
        match harmless {
            true => Ok(BodyEvent::End),
            false => Err(stream_error(error, self.id, &self.meter)),
        }
    }

    pub(super) fn release(&mut self, n: usize) {
        let credit = self.stream.flow_control();
        let n = n.min(credit.used_capacity());
        // It refuses only more than is used.
        let _ = credit.release_capacity(n);
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.meter.close(self.id);
    }
}

/// What goes out.
#[derive(Debug)]
pub(super) struct Sender {
    stream: SendStream<Bytes>,
    meter: Arc<Meter>,
    /// Bytes that wait for a window, as the gauge has them.
    pending: i64,
}

impl Sender {
    pub(super) fn new(stream: SendStream<Bytes>, meter: Arc<Meter>) -> Self {
        Self {
            stream,
            meter,
            pending: 0,
        }
    }

    pub(super) fn id(&self) -> u32 {
        self.stream.stream_id().as_u32()
    }

    /// Sends what the window allows; see
    /// [`ServerStream::poll_send_data`](crate::http::codec::ServerStream::poll_send_data).
    pub(super) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        data: &mut Buffer,
        end_stream: bool,
    ) -> Poll<Result<usize, StreamError>> {
        let sent = self.poll_hand_over(cx, data, end_stream);
        self.show_pending(data.len());
        sent
    }

    fn poll_hand_over(
        &mut self,
        cx: &mut Context<'_>,
        data: &mut Buffer,
        end_stream: bool,
    ) -> Poll<Result<usize, StreamError>> {
        let mut sent = 0;
        if data.is_empty() {
            if end_stream {
                self.hand_over(Bytes::new(), true)?;
            }
            return Poll::Ready(Ok(0));
        }
        while !data.is_empty() {
            self.stream.reserve_capacity(data.len().min(RESERVE));
            let room = match self.stream.capacity() {
                0 => match self.stream.poll_capacity(cx) {
                    Poll::Ready(Some(Ok(0))) => continue,
                    Poll::Ready(Some(room)) => room.map_err(|error| self.failed(&error))?,
                    Poll::Ready(None) => return Poll::Ready(Err(self.why_closed(cx))),
                    Poll::Pending if sent == 0 => return Poll::Pending,
                    Poll::Pending => break,
                },
                room => room,
            };
            let Some(chunk) = data.pop_up_to(room) else {
                break;
            };
            sent += chunk.len();
            self.hand_over(chunk, end_stream && data.is_empty())?;
        }
        Poll::Ready(Ok(sent))
    }

    fn hand_over(&mut self, chunk: Bytes, last: bool) -> Result<(), StreamError> {
        let handed = self.stream.send_data(chunk, last);
        handed.map_err(|error| self.failed(&error))?;
        if last {
            self.meter.handed_over();
        }
        Ok(())
    }

    fn show_pending(&mut self, bytes: usize) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        if bytes != self.pending {
            let change = bytes - std::mem::replace(&mut self.pending, bytes);
            self.meter
                .gauge(Http2CodecStats::pending_send_bytes, change);
        }
    }

    pub(super) fn send_trailers(&mut self, trailers: Headers) -> Result<(), StreamError> {
        let sent = self.stream.send_trailers(headers_out(trailers));
        sent.map_err(|error| self.failed(&error))?;
        self.meter.handed_over();
        Ok(())
    }

    pub(super) fn send_reset(&mut self, reason: Reason) {
        self.stream.send_reset(reason);
    }

    pub(super) fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<StreamError> {
        let seen = ready!(self.stream.poll_reset(cx));
        Poll::Ready(reset_seen(seen, self.id(), &self.meter))
    }

    fn failed(&self, error: &h2::Error) -> StreamError {
        stream_error(error, self.id(), &self.meter)
    }

    /// The window of a closed stream does not say why it is closed.
    fn why_closed(&mut self, cx: &mut Context<'_>) -> StreamError {
        match self.poll_reset(cx) {
            Poll::Ready(error) => error,
            Poll::Pending => StreamError::local("http2.out_of_place"),
        }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.show_pending(0);
    }
}

/// What a poll for the peer's reset says.
pub(super) fn reset_seen(
    result: Result<Reason, h2::Error>,
    stream: u32,
    meter: &Meter,
) -> StreamError {
    match result {
        // What `h2` tells of the end of a connection that has a fault is not the peer's.
        Ok(reason) => match meter.fault() {
            Some(fault) => cut(fault, stream),
            None => remote_reset(reason),
        },
        Err(error) => stream_error(&error, stream, meter),
    }
}
