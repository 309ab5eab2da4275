//! A counter of frames between the socket and `h2`.
//!
//! `h2` does not tell classes of frames apart, and Envoy's flood limits are by
//! class. [`Metered`] reads the nine bytes before each frame as they pass, and
//! ends the connection, without GOAWAY as Envoy does, when a limit is passed.

use std::collections::{HashMap, VecDeque};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::options::Options;
use crate::network::io::Io;

/// DATA frames below this size count as small, bytes.
const SMALL: usize = 256;
/// Streams whose end is remembered, for a NO_ERROR reset that follows it.
const REMEMBERED: usize = 256;
/// The client's preface.
const PREFACE: usize = 24;

/// Which flood limit a peer passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flood {
    /// Empty DATA, HEADERS or CONTINUATION in a row.
    EmptyFrames,
    /// PRIORITY.
    Priority,
    /// WINDOW_UPDATE.
    WindowUpdate,
    /// PING or SETTINGS whose answers wait.
    Control,
    /// Small DATA frames that nobody reads.
    UnreadFrames,
}

impl Flood {
    /// The name of Envoy's counter, after `http2.`; the last one is ours.
    pub const fn stat(self) -> &'static str {
        match self {
            Self::EmptyFrames => "inbound_empty_frames_flood",
            Self::Priority => "inbound_priority_frames_flood",
            Self::WindowUpdate => "inbound_window_update_frames_flood",
            Self::Control => "outbound_control_flood",
            Self::UnreadFrames => "inbound_unread_frames_flood",
        }
    }

    /// Envoy's response code details for the streams that it cuts.
    pub const fn details(self) -> &'static str {
        match self {
            Self::EmptyFrames => "http2.inbound_empty_frames_flood",
            Self::Priority => "http2.inbound_priority_frames_flood",
            Self::WindowUpdate => "http2.inbound_window_update_frames_flood",
            Self::Control => "http2.outbound_control_flood",
            Self::UnreadFrames => "http2.inbound_unread_frames_flood",
        }
    }
}

/// What was counted on a connection, for the stats of the codec (`http2.*`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// `rx_reset`
    pub rx_reset: u64,
    /// `tx_reset`
    pub tx_reset: u64,
    /// `goaway_sent`
    pub goaway_sent: u64,
    /// `header_list_size_too_large`: heads over the limits.
    pub header_list_size_too_large: u64,
    /// `dropped_headers_with_underscores`
    pub dropped_headers_with_underscores: u64,
    /// `requests_rejected_with_underscores_in_headers`
    pub requests_rejected_with_underscores: u64,
    /// Bytes read from the connection.
    pub bytes_read: u64,
    /// Bytes written to the connection.
    pub bytes_written: u64,
}

/// What the two halves of the scan and the streams share.
#[derive(Debug, Default)]
pub(super) struct Meter {
    /// Whether the peer sent GOAWAY.
    goaway: AtomicBool,
    data_sent: AtomicU64,
    answers_sent: AtomicU64,
    rx_reset: AtomicU64,
    tx_reset: AtomicU64,
    goaway_sent: AtomicU64,
    bytes_read: AtomicU64,
    bytes_written: AtomicU64,
    pub(super) heads_too_large: AtomicU64,
    pub(super) underscores_dropped: AtomicU64,
    pub(super) underscores_rejected: AtomicU64,
    unread: Mutex<Unread>,
    ended: Mutex<VecDeque<u32>>,
    flood: Mutex<Option<Flood>>,
}

impl Meter {
    pub(super) fn is_draining(&self) -> bool {
        self.goaway.load(Relaxed)
    }

    pub(super) fn flood(&self) -> Option<Flood> {
        *self.flood.lock()
    }

    pub(super) fn counters(&self) -> Counters {
        Counters {
            rx_reset: self.rx_reset.load(Relaxed),
            tx_reset: self.tx_reset.load(Relaxed),
            goaway_sent: self.goaway_sent.load(Relaxed),
            header_list_size_too_large: self.heads_too_large.load(Relaxed),
            dropped_headers_with_underscores: self.underscores_dropped.load(Relaxed),
            requests_rejected_with_underscores: self.underscores_rejected.load(Relaxed),
            bytes_read: self.bytes_read.load(Relaxed),
            bytes_written: self.bytes_written.load(Relaxed),
        }
    }

    /// A stream whose unread frames are to be counted.
    pub(super) fn open(&self, stream: u32) {
        let mut unread = self.unread.lock();
        let early = unread.early.remove(&stream).unwrap_or_default();
        unread.open.insert(stream, early);
        unread.last = unread.last.max(stream);
    }

    /// All streams that `h2` took are open by now: what came early for others
    /// was dropped by it.
    pub(super) fn forget_early(&self) {
        let mut unread = self.unread.lock();
        if !unread.early.is_empty() {
            let dropped: u32 = unread.early.drain().map(|(_, n)| n).sum();
            unread.total -= dropped;
        }
    }

    /// Streams that are open on our side.
    pub(super) fn streams(&self) -> usize {
        self.unread.lock().open.len()
    }

    /// A stream is gone, and its unread frames with it.
    pub(super) fn close(&self, stream: u32) {
        let mut unread = self.unread.lock();
        if let Some(n) = unread.open.remove(&stream) {
            unread.total -= n;
        }
    }

    /// A DATA frame of `len` bytes was read from its stream.
    pub(super) fn read(&self, stream: u32, len: usize) {
        if len >= SMALL {
            return;
        }
        let mut unread = self.unread.lock();
        if let Some(n) = unread.open.get_mut(&stream)
            && *n > 0
        {
            *n -= 1;
            unread.total -= 1;
        }
    }

    /// A small DATA frame came in; how many wait now on the connection.
    fn arrived(&self, stream: u32) -> u32 {
        let mut unread = self.unread.lock();
        if let Some(n) = unread.open.get_mut(&stream) {
            *n += 1;
        } else if stream > unread.last {
            *unread.early.entry(stream).or_default() += 1;
        } else {
            return 0;
        }
        unread.total += 1;
        unread.total
    }

    fn remember_end(&self, stream: u32) {
        let mut ended = self.ended.lock();
        if ended.len() == REMEMBERED {
            ended.pop_front();
        }
        ended.push_back(stream);
    }

    /// Whether the peer ended the stream before it reset it.
    pub(super) fn was_ended(&self, stream: u32) -> bool {
        self.ended.lock().contains(&stream)
    }
}

/// Small DATA frames that wait, by stream.
#[derive(Debug, Default)]
struct Unread {
    open: HashMap<u32, u32, ahash::RandomState>,
    /// Of streams that were not handed out yet.
    early: HashMap<u32, u32, ahash::RandomState>,
    /// The highest stream that was opened: frames of a lower one that is not
    /// open are dropped by `h2`.
    last: u32,
    total: u32,
}

/// A frame as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    len: usize,
    /// Bytes of padding with its length, of a padded DATA frame.
    padding: usize,
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const PADDED: u8 = 8;

/// Finds the frames in a stream of bytes that comes in pieces of any size.
#[derive(Debug)]
struct Scanner {
    /// The header of the frame, and the first byte of its payload.
    header: [u8; 10],
    have: usize,
    /// Bytes to pass over.
    skip: usize,
}

impl Scanner {
    fn new(skip: usize) -> Self {
        Self {
            header: [0; 10],
            have: 0,
            skip,
        }
    }

    /// Calls `on` for each frame whose beginning is in `bytes`.
    fn scan<E>(
        &mut self,
        mut bytes: &[u8],
        mut on: impl FnMut(Frame) -> Result<(), E>,
    ) -> Result<(), E> {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let n = self.skip.min(bytes.len());
                self.skip -= n;
                bytes = &bytes[n..];
                continue;
            }
            let n = self.wanted().min(bytes.len());
            self.header[self.have..self.have + n].copy_from_slice(&bytes[..n]);
            self.have += n;
            bytes = &bytes[n..];
            if self.wanted() == 0 {
                let frame = self.frame();
                self.skip = frame.len + 9 - self.have;
                self.have = 0;
                on(frame)?;
            }
        }
        Ok(())
    }

    /// Bytes that are still needed to know the frame.
    fn wanted(&self) -> usize {
        let padded = self.have >= 9
            && self.header[3] == DATA
            && self.header[4] & PADDED != 0
            && self.header[..3] != [0; 3];
        9 + usize::from(padded) - self.have
    }

    fn frame(&self) -> Frame {
        let h = &self.header;
        Frame {
            kind: h[3],
            flags: h[4],
            stream: u32::from_be_bytes([h[5] & 0x7f, h[6], h[7], h[8]]),
            len: usize::from(h[0]) << 16 | usize::from(h[1]) << 8 | usize::from(h[2]),
            padding: match self.have {
                10 => usize::from(h[9]) + 1,
                _ => 0,
            },
        }
    }
}

/// The counts of what comes in, and the limits.
#[derive(Debug)]
struct Inbound {
    limits: Limits,
    streams: u64,
    priorities: u64,
    window_updates: u64,
    empties: u32,
    questions: u64,
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    control: u64,
    empties: u32,
    priorities: u64,
    window_updates: u64,
    unread: u32,
}

impl Inbound {
    fn take(&mut self, frame: Frame, meter: &Meter) -> Result<(), Flood> {
        match frame.kind {
            DATA | HEADERS | CONTINUATION => self.payload(frame, meter)?,
            PRIORITY => {
                self.priorities += 1;
                if self.priorities > self.limits.priorities * (1 + self.streams) {
                    return Err(Flood::Priority);
                }
            }
            RST_STREAM => {
                meter.rx_reset.fetch_add(1, Relaxed);
            }
            SETTINGS | PING if frame.flags & ACK == 0 => {
                self.questions += 1;
                let waiting = self.questions - meter.answers_sent.load(Relaxed).min(self.questions);
                if waiting > self.limits.control {
                    return Err(Flood::Control);
                }
            }
            GOAWAY => meter.goaway.store(true, Relaxed),
            WINDOW_UPDATE => {
                self.window_updates += 1;
                let sent = meter.data_sent.load(Relaxed);
                let allowed = 5 + 2 * (self.streams + self.limits.window_updates * sent);
                if self.window_updates > allowed {
                    return Err(Flood::WindowUpdate);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn payload(&mut self, frame: Frame, meter: &Meter) -> Result<(), Flood> {
        let ends = frame.kind != CONTINUATION && frame.flags & END_STREAM != 0;
        if frame.kind == HEADERS {
            self.streams += 1;
        }
        if ends {
            meter.remember_end(frame.stream);
        }
        let len = frame.len.saturating_sub(frame.padding);
        if frame.kind == DATA
            && (1..SMALL).contains(&len)
            && meter.arrived(frame.stream) > self.limits.unread
        {
            return Err(Flood::UnreadFrames);
        }
        if len > 0 || ends {
            self.empties = 0;
            return Ok(());
        }
        self.empties += 1;
        match self.empties > self.limits.empties {
            true => Err(Flood::EmptyFrames),
            false => Ok(()),
        }
    }
}

/// Takes note of a frame that went out.
fn sent(frame: Frame, meter: &Meter) {
    let counter = match frame.kind {
        DATA => &meter.data_sent,
        RST_STREAM => &meter.tx_reset,
        GOAWAY => &meter.goaway_sent,
        SETTINGS | PING if frame.flags & ACK != 0 => &meter.answers_sent,
        _ => return,
    };
    counter.fetch_add(1, Relaxed);
}

/// An [`Io`] whose frames are counted.
#[derive(Debug)]
pub(super) struct Metered {
    io: Io,
    meter: Arc<Meter>,
    incoming: Scanner,
    outgoing: Scanner,
    inbound: Inbound,
}

impl Metered {
    /// The server's side reads the client's preface first, the client's side
    /// writes it.
    pub(super) fn new(io: Io, meter: Arc<Meter>, options: &Options, server: bool) -> Self {
        let preface = |here: bool| if here { PREFACE } else { 0 };
        Self {
            io,
            meter,
            incoming: Scanner::new(preface(server)),
            outgoing: Scanner::new(preface(!server)),
            inbound: Inbound {
                limits: Limits {
                    control: options.max_outbound_control_frames.into(),
                    empties: options.max_consecutive_inbound_frames_with_empty_payload,
                    priorities: options.max_inbound_priority_frames_per_stream.into(),
                    window_updates: options
                        .max_inbound_window_update_frames_per_data_frame_sent
                        .into(),
                    unread: options.max_unread_small_frames,
                },
                streams: 0,
                priorities: 0,
                window_updates: 0,
                empties: 0,
                questions: 0,
            },
        }
    }

    fn note_sent<'a>(&mut self, parts: impl Iterator<Item = &'a [u8]>, mut n: usize) {
        let meter = &self.meter;
        for part in parts {
            let part = &part[..part.len().min(n)];
            n -= part.len();
            let Ok(()) = self.outgoing.scan(part, |frame| {
                sent(frame, meter);
                Ok::<_, std::convert::Infallible>(())
            });
        }
    }
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.meter.flood().is_some() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
        this.meter.bytes_read.store(this.io.bytes_read(), Relaxed);
        let (inbound, meter) = (&mut this.inbound, &this.meter);
        let read = &buf.filled()[before..];
        match this.incoming.scan(read, |frame| inbound.take(frame, meter)) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(flood) => {
                *meter.flood.lock() = Some(flood);
                buf.set_filled(before);
                Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()))
            }
        }
    }
}

impl AsyncWrite for Metered {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let n = ready!(Pin::new(&mut self.io).poll_write(cx, buf))?;
        let written = self.io.bytes_written();
        self.meter.bytes_written.store(written, Relaxed);
        self.note_sent(std::iter::once(buf), n);
        Poll::Ready(Ok(n))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let n = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, bufs))?;
        let written = self.io.bytes_written();
        self.meter.bytes_written.store(written, Relaxed);
        self.note_sent(bufs.iter().map(|b| &**b), n);
        Poll::Ready(Ok(n))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
