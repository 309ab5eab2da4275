//! The socket as `h2` sees it.
//!
//! `h2` does not tell classes of frames apart, and Envoy's flood limits are by
//! class; and what is malformed `h2` answers with a GOAWAY or a RST_STREAM, where
//! Envoy ends the connection. [`Metered`] reads the nine bytes before each frame as
//! they pass, both ways. When the peer passed a limit or broke a rule it keeps the
//! socket for a last word, and `h2` sees a connection that is lost.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::fault::{Fault, Flood};
use super::frames::{
    ACK, DATA, END_STREAM, Frame, GOAWAY, HEADER, HEADERS, PING, RST_STREAM, SETTINGS, Scanner,
};
use super::inbound::Inbound;
use super::meter::Meter;
use super::options::Options;
use crate::network::io::Io;
use crate::upstream::stats::Http2CodecStats;

/// The client's preface.
const PREFACE: usize = 24;
/// The stream id of a GOAWAY that only announces the end.
const NO_LAST_STREAM: u32 = 0x7fff_ffff;
/// Questions without answer from which on more is read to see how many there are.
const MANY_QUESTIONS: u64 = 64;
/// Most that is read ahead, bytes.
const AHEAD: usize = 64 * 1024;

/// An [`Io`] whose frames are counted.
#[derive(Debug)]
pub(super) struct Metered {
    /// None once a fault was found.
    io: Option<Io>,
    meter: Arc<Meter>,
    server: bool,
    incoming: Scanner,
    outgoing: Outgoing,
    inbound: Inbound,
    /// The time of what comes in is kept.
    listens: bool,
    /// Bytes that were read ahead and scanned.
    ahead: BytesMut,
    /// What is wrong with the frame after the bytes that were handed on.
    found: Option<Fault>,
    announced: bool,
}

/// Gives a frame without meaning a type that `h2` passes over: it ends a connection that
/// has had a hundred empty DATA frames in its life, however far apart, and Envoy's limit
/// is on those in a row. `passed` bytes of the frame end before `behind`; if its type was
/// in an earlier read, `h2` has it already.
fn hide(read: &mut [u8], behind: usize, passed: usize) {
    const UNKNOWN: u8 = 0xfa;
    const TYPE: usize = 3;
    let kind = (behind + TYPE).checked_sub(passed);
    if let Some(kind) = kind.and_then(|at| read.get_mut(at)) {
        *kind = UNKNOWN;
    }
}

/// The state of the way out.
#[derive(Debug)]
struct Outgoing {
    scanner: Scanner,
    /// Bytes of what `h2` wants to write that were scanned, and not written.
    scanned: usize,
    /// Heads and ends of messages among them.
    frames: u32,
    /// Of those, the bytes before a frame that is left out, and its size.
    left_out: Option<(usize, usize)>,
    /// Frames of our own that are to be written first.
    own: BytesMut,
    /// The peer was told that the connection will end.
    noticed: bool,
    /// What the gauges of waiting frames show of this connection: all, and those that
    /// answer the peer.
    shown: (i64, i64),
}

impl Metered {
    /// The server's side reads the client's preface first, the client's side
    /// writes it.
    pub(super) fn new(io: Io, meter: Arc<Meter>, options: &Options, server: bool) -> Self {
        let preface = |here: bool| if here { PREFACE } else { 0 };
        Self {
            io: Some(io),
            meter,
            server,
            incoming: Scanner::new(preface(server)),
            outgoing: Outgoing {
                scanner: Scanner::new(preface(!server)),
                scanned: 0,
                frames: 0,
                left_out: None,
                own: BytesMut::new(),
                noticed: false,
                shown: (0, 0),
            },
            inbound: Inbound::new(options, server),
            listens: options
                .keepalive
                .is_some_and(|keepalive| keepalive.idle_interval.is_some()),
            ahead: BytesMut::new(),
            found: None,
            announced: false,
        }
    }

    /// Ends the connection as far as `h2` is concerned.
    fn fail(&mut self, fault: Fault) {
        self.meter.set_fault(fault);
        if let Some(io) = self.io.take() {
            *self.meter.parting.lock() = Some(io);
        }
    }

    /// What comes of a read after a fault. `h2` is given the time to hand out the
    /// streams that came before it.
    fn poll_fault(&mut self, cx: &mut Context<'_>) -> Option<Poll<io::Result<()>>> {
        let fault = match (self.found, self.meter.fault()) {
            (_, Some(fault)) | (Some(fault), None) => fault,
            (None, None) => return None,
        };
        if self.io.is_some() && self.found.is_some() && !self.announced {
            self.announced = true;
            cx.waker().wake_by_ref();
            return Some(Poll::Pending);
        }
        self.fail(fault);
        Some(match fault {
            // It is `h2` that is asked how far it got.
            Fault::Malformed { .. } if self.server => Poll::Pending,
            _ => Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into())),
        })
    }

    /// Scans what was read; how much of it comes before a fault.
    fn scan(&mut self, read: &mut [u8]) -> usize {
        let mut behind = 0;
        loop {
            let mut rest = &read[behind..];
            let Some(frame) = self.incoming.next(&mut rest) else {
                return read.len();
            };
            behind = read.len() - rest.len();
            let passed = self.incoming.passed(frame);
            if let Err(fault) = self.inbound.take(frame, &self.meter) {
                self.found = Some(fault);
                return behind.saturating_sub(passed);
            }
            if frame.kind == DATA && frame.len == 0 && !frame.has(END_STREAM) {
                hide(read, behind, passed);
            }
        }
    }

    /// Reads on into memory while there are so many questions: whether there are too
    /// many is to be known before they are answered.
    fn read_ahead(&mut self, questions: u64, cx: &mut Context<'_>) {
        while self.found.is_none()
            && self.ahead.len() < AHEAD
            && self.inbound.unanswered(&self.meter) >= questions
        {
            let Some(io) = &mut self.io else { return };
            let mut chunk = [0; 4096];
            let mut buf = ReadBuf::new(&mut chunk);
            match Pin::new(io).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {
                    let clean = self.scan(buf.filled_mut());
                    self.ahead.extend_from_slice(&buf.filled()[..clean]);
                }
                // What it is will be seen again when it is read in turn.
                Poll::Ready(_) | Poll::Pending => return,
            }
        }
    }

    /// Writes a frame of our own, if there is one and it is its turn.
    fn poll_own(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let out = &mut self.outgoing;
        if out.own.is_empty() && out.scanned == 0 && out.scanner.is_between_frames() {
            if self.meter.notice.load(Relaxed) && !out.noticed {
                out.noticed = true;
                out.own.extend_from_slice(&goaway(NO_LAST_STREAM, 0));
            }
            while let Some((stream, code)) = self.meter.next_own_reset() {
                out.own.extend_from_slice(&reset(stream, code));
                self.meter.count(Http2CodecStats::tx_reset);
            }
        }
        while let (false, Some(io)) = (self.outgoing.own.is_empty(), &mut self.io) {
            let n = ready!(Pin::new(io).poll_write(cx, &self.outgoing.own))?;
            self.outgoing.own.advance(n);
        }
        Poll::Ready(Ok(()))
    }

    /// Scans what `h2` wants to write, as far as it was not yet.
    fn scan_out(&mut self, bufs: &[IoSlice<'_>]) {
        let mut before = 0;
        for buf in bufs {
            let from = self.outgoing.scanned.saturating_sub(before).min(buf.len());
            before += buf.len();
            let mut rest = &buf[from..];
            while self.outgoing.left_out.is_none() && !rest.is_empty() {
                let frame = self.outgoing.scanner.next(&mut rest);
                self.outgoing.scanned = before - rest.len();
                if let Some(frame) = frame {
                    self.sent(frame);
                }
            }
        }
    }

    /// Takes note of a frame that goes out.
    fn sent(&mut self, frame: Frame) {
        let meter = &self.meter;
        match frame.kind {
            HEADERS => self.outgoing.frames += 1,
            DATA => {
                meter.data_sent.fetch_add(1, Relaxed);
                self.outgoing.frames += u32::from(frame.has(END_STREAM));
                if frame.len == 0 && frame.has(END_STREAM) && meter.breaks(frame.stream) {
                    self.leave_out(frame);
                }
            }
            SETTINGS | PING if frame.has(ACK) => {
                meter.answers_sent.fetch_add(1, Relaxed);
            }
            RST_STREAM | GOAWAY if self.server => self.on_server_end(frame),
            RST_STREAM | GOAWAY => self.on_client_end(frame),
            _ => {}
        }
    }

    /// A RST_STREAM or GOAWAY of the client: a head or trailers that break a rule are the
    /// end of the connection, as in Envoy. A body that does not fit is that of its stream.
    fn on_client_end(&mut self, frame: Frame) {
        let (meter, stream) = (&self.meter, frame.stream);
        if frame.kind == GOAWAY {
            if frame.second == 1 && self.inbound.is_head(meter) {
                meter.count(Http2CodecStats::rx_messaging_error);
            }
        } else if frame.first == 1
            && self.inbound.is_head_of(stream)
            && !meter.was_reset_here(stream)
        {
            meter.end_for_message(stream);
        } else {
            meter.count(Http2CodecStats::tx_reset);
        }
    }

    /// A RST_STREAM or GOAWAY of the server: what `h2` makes of a malformed message is
    /// the end of the connection, as in Envoy.
    fn on_server_end(&mut self, frame: Frame) {
        if let Some(Fault::Malformed { stream, .. }) = self.meter.fault() {
            // It took up the stream: the fields are right, the message is not.
            if frame.kind == GOAWAY && frame.first >= stream {
                self.meter.note_malformed_message();
            }
            return;
        }
        let fault = match frame.kind {
            GOAWAY => self.fault_of_goaway(frame),
            _ if self.meter.is_breaking(frame.stream) => return self.leave_out(frame),
            _ if self.is_suspect(frame) => {
                self.meter.suspect(frame.stream);
                return self.leave_out(frame);
            }
            _ => self.fault_of_reset(frame),
        };
        match fault {
            Some(fault) => self.fail(fault),
            None if frame.kind == RST_STREAM => self.meter.count(Http2CodecStats::tx_reset),
            None if self.outgoing.noticed && frame.first == NO_LAST_STREAM => {
                self.leave_out(frame);
            }
            None => self.meter.count(Http2CodecStats::goaway_sent),
        }
    }

    /// A frame of `h2` that is not to be written.
    fn leave_out(&mut self, frame: Frame) {
        let passed = self.outgoing.scanner.passed(frame);
        let before = self.outgoing.scanned.saturating_sub(passed);
        self.outgoing.left_out = Some((before, frame.len + HEADER));
    }

    /// Whether it may be that `h2` refuses a head: or a body, if the stream is still to be
    /// handed out.
    fn is_suspect(&self, frame: Frame) -> bool {
        let (meter, stream) = (&self.meter, frame.stream);
        frame.first == 1 && !meter.was_reset_here(stream) && !meter.is_open(stream)
    }

    fn fault_of_goaway(&self, frame: Frame) -> Option<Fault> {
        match frame.second {
            0 => None,
            _ if self.meter.asked.load(Relaxed) => None,
            // A head far over the limit.
            11 => Some(Fault::GoAway { code: 9, text: "" }),
            _ => Some(self.fault_of_unread_head(frame.first)),
        }
    }

    /// A stream beyond the last one that `h2` took up has a head that it could not read.
    fn fault_of_unread_head(&self, last: u32) -> Fault {
        let stream = self.meter.last_stream.load(Relaxed);
        match stream > last && stream % 2 == 1 {
            true => Fault::Malformed {
                stream,
                by_field: true,
            },
            false => Fault::Broken,
        }
    }

    fn fault_of_reset(&self, frame: Frame) -> Option<Fault> {
        let (meter, stream) = (&self.meter, frame.stream);
        if !matches!(frame.first, 1 | 7) || meter.was_reset_here(stream) {
            return None;
        }
        match frame.first {
            // Over the limit of streams, which the peer knows or does not know yet.
            7 if self.inbound.is_acknowledged() => Some(Fault::Broken),
            7 => {
                meter.count(Http2CodecStats::stream_refused_errors);
                None
            }
            _ if meter.last_trailers.load(Relaxed) == stream => Some(Fault::Broken),
            // A body that does not fit its content-length.
            _ => None,
        }
    }

    /// What was written is behind us.
    fn advance(&mut self, n: usize) {
        let out = &mut self.outgoing;
        out.scanned = out.scanned.saturating_sub(n);
        if out.scanned == 0 && out.frames > 0 {
            self.meter.written(std::mem::take(&mut out.frames));
        }
        if let Some((before, _)) = &mut out.left_out {
            *before = before.saturating_sub(n);
        }
    }

    /// The bytes that may be written now of `total`; or those that are left out.
    fn allowed(&self, total: usize) -> Result<usize, usize> {
        match self.outgoing.left_out {
            Some((0, size)) => Err(size),
            Some((before, _)) => Ok(before.min(total)),
            None => Ok(total),
        }
    }

    fn poll_out(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let total = bufs.iter().map(|buf| buf.len()).sum();
        self.scan_out(bufs);
        if let Some(fault) = self.meter.fault() {
            self.fail(fault);
            // `h2` sees it when it reads.
            cx.waker().wake_by_ref();
            return Poll::Ready(Ok(total));
        }
        ready!(self.poll_own(cx))?;
        let allowed = match self.allowed(total) {
            Ok(allowed) => allowed,
            Err(size) => {
                self.outgoing.left_out = None;
                self.advance(size);
                return Poll::Ready(Ok(size));
            }
        };
        let Some(io) = &mut self.io else {
            return Poll::Ready(Ok(total));
        };
        let written = match (allowed == total, bufs) {
            (true, [one]) => Pin::new(io).poll_write(cx, one),
            (true, _) => Pin::new(io).poll_write_vectored(cx, bufs),
            (false, _) => {
                let first = bufs.iter().find(|buf| !buf.is_empty());
                let first = first.map_or(&[][..], |buf| &buf[..buf.len().min(allowed)]);
                Pin::new(io).poll_write(cx, first)
            }
        };
        if written.is_pending() {
            self.on_blocked(cx);
            return Poll::Pending;
        }
        let n = ready!(written)?;
        self.advance(n);
        Poll::Ready(Ok(n))
    }

    /// Brings the gauges of waiting frames up to date.
    fn show(&mut self, all: i64, answers: i64) {
        let before = std::mem::replace(&mut self.outgoing.shown, (all, answers));
        if before != (all, answers) {
            let meter = &self.meter;
            meter.gauge(Http2CodecStats::outbound_frames_active, all - before.0);
            meter.gauge(
                Http2CodecStats::outbound_control_frames_active,
                answers - before.1,
            );
        }
    }

    /// The peer does not read: what it goes on asking is still counted, for `h2` reads
    /// nothing more before its answers are written.
    fn on_blocked(&mut self, cx: &mut Context<'_>) {
        if !self.server {
            return;
        }
        let answers = i64::try_from(self.inbound.unanswered(&self.meter)).unwrap_or(i64::MAX);
        self.show(i64::from(self.meter.waiting()) + answers, answers);
        self.read_ahead(1, cx);
        if let Some(fault @ Fault::Flood(Flood::Control)) = self.found {
            self.fail(fault);
            cx.waker().wake_by_ref();
        }
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        self.show(0, 0);
    }
}

/// A GOAWAY without debug data.
pub(super) fn goaway(last: u32, code: u32) -> [u8; 17] {
    let mut frame = [0; 17];
    frame[2] = 8;
    frame[3] = GOAWAY;
    frame[9..13].copy_from_slice(&last.to_be_bytes());
    frame[13..].copy_from_slice(&code.to_be_bytes());
    frame
}

/// A RST_STREAM.
fn reset(stream: u32, code: u32) -> [u8; 13] {
    let mut frame = [0; 13];
    frame[2] = 4;
    frame[3] = RST_STREAM;
    frame[5..9].copy_from_slice(&stream.to_be_bytes());
    frame[9..].copy_from_slice(&code.to_be_bytes());
    frame
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.ahead.is_empty() {
            let n = this.ahead.len().min(buf.remaining());
            buf.put_slice(&this.ahead.split_to(n));
            return Poll::Ready(Ok(()));
        }
        if let Some(end) = this.poll_fault(cx) {
            return end;
        }
        let Some(io) = &mut this.io else {
            return Poll::Ready(Ok(()));
        };
        let before = buf.filled().len();
        ready!(Pin::new(&mut *io).poll_read(cx, buf))?;
        if this.listens {
            this.meter.hear();
        }
        let read = buf.filled().len() - before;
        let clean = this.scan(&mut buf.filled_mut()[before..]);
        if this.server && this.inbound.unanswered(&this.meter) >= MANY_QUESTIONS {
            this.read_ahead(MANY_QUESTIONS, cx);
        }
        if clean < read {
            buf.set_filled(before + clean);
        }
        match clean == 0 && read > 0 {
            true => this.poll_fault(cx).unwrap_or(Poll::Ready(Ok(()))),
            false => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for Metered {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_out(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_out(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.as_ref().is_some_and(Io::is_write_vectored)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_own(cx))?;
        if self.outgoing.scanned == 0 {
            self.meter.all_written();
            self.show(0, 0);
        }
        match &mut self.io {
            Some(io) => Pin::new(io).poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let server = self.server;
        let Some(io) = &mut self.io else {
            return Poll::Ready(Ok(()));
        };
        if !server {
            return Pin::new(io).poll_shutdown(cx);
        }
        // A close while the peer still sends would take from it what it has not read: it is
        // given the time to close first.
        let flushed = ready!(Pin::new(io).poll_flush(cx));
        *self.meter.parting.lock() = self.io.take();
        Poll::Ready(flushed)
    }
}
