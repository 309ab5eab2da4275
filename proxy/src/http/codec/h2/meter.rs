//! What the two directions of a connection and its streams share: counts, the
//! streams that are open, and why the connection ends.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::task::Waker;
use std::time::Duration;

use outrigger_stats::{CounterId, GaugeId};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::fault::{Fault, Flood};
use super::options::Options;
use crate::http::codec_stats::CodecStats;
use crate::network::io::Io;
use crate::upstream::stats::Http2CodecStats;

/// DATA frames below this size count as small, bytes.
pub(super) const SMALL: usize = 256;
/// Codes of RST_STREAM.
const PROTOCOL_ERROR: u32 = 1;
const CONNECT_ERROR: u32 = 10;
/// Streams whose end is remembered, for a NO_ERROR reset that follows it.
const REMEMBERED: usize = 256;

/// See the module.
#[derive(Debug)]
pub(super) struct Meter {
    pub(super) stats: CodecStats,
    server: bool,
    /// Whether the peer sent GOAWAY.
    pub(super) goaway: AtomicBool,
    pub(super) data_sent: AtomicU64,
    /// Streams that the peer has reset.
    resets: AtomicU64,
    pub(super) answers_sent: AtomicU64,
    /// The highest stream that the peer opened.
    pub(super) last_stream: AtomicU32,
    /// The stream whose head is not ended by now; 0 for none.
    pub(super) head_under_way: AtomicU32,
    /// The stream whose trailers came last.
    pub(super) last_trailers: AtomicU32,
    /// A GOAWAY that announces the end is to be written.
    pub(super) notice: AtomicBool,
    /// Milliseconds from `opened` to the last byte that came in, where that is asked for.
    heard: AtomicU64,
    opened: Instant,
    /// A PING is to be sent now.
    ping: AtomicBool,
    /// This side asked for the GOAWAY that ends the connection.
    pub(super) asked: AtomicBool,
    /// Frames handed over that wait to be written, and the most of them.
    waiting: AtomicU32,
    most_waiting: u32,
    max_headers_bytes: usize,
    max_headers_count: usize,
    /// Wakes what drives the connection.
    driver: Mutex<Option<Waker>>,
    faulty: AtomicBool,
    /// There are suspects.
    to_judge: AtomicBool,
    /// There are resets of our own.
    to_reset: AtomicBool,
    /// There was a tunnel that ends with its bytes.
    to_break: AtomicBool,
    fault: Mutex<Option<Fault>>,
    /// The socket, once this side has found a fault.
    pub(super) parting: Mutex<Option<Io>>,
    unread: Mutex<Unread>,
    ended: Mutex<VecDeque<u32>>,
    /// Streams that `h2` wants to reset though they were not handed out.
    suspects: Mutex<Vec<u32>>,
    /// Streams that this side resets in place of `h2`, and with which code.
    own_resets: Mutex<Vec<(u32, u32)>>,
    /// Tunnels that end with their bytes.
    breaking: Mutex<VecDeque<u32>>,
    /// Streams that this side resets with a code that `h2` uses too.
    reset: Mutex<VecDeque<u32>>,
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
    /// The streams that were handed out last.
    handed: VecDeque<u32>,
}

impl Meter {
    pub(super) fn new(stats: CodecStats, options: &Options, server: bool) -> Self {
        if server {
            stats.inc(Http2CodecStats::nghttp2_downstream_connections);
        }
        // There from the first frames on.
        for gauge in [
            Http2CodecStats::outbound_frames_active,
            Http2CodecStats::outbound_control_frames_active,
            Http2CodecStats::pending_send_bytes,
        ] {
            stats.gauge(gauge, 0);
        }
        Self {
            stats,
            server,
            goaway: AtomicBool::default(),
            data_sent: AtomicU64::default(),
            resets: AtomicU64::default(),
            answers_sent: AtomicU64::default(),
            last_stream: AtomicU32::default(),
            head_under_way: AtomicU32::default(),
            last_trailers: AtomicU32::default(),
            notice: AtomicBool::default(),
            heard: AtomicU64::default(),
            opened: Instant::now(),
            ping: AtomicBool::default(),
            asked: AtomicBool::default(),
            waiting: AtomicU32::default(),
            most_waiting: options.max_outbound_frames,
            max_headers_bytes: options.max_headers_bytes,
            max_headers_count: options.max_headers_count,
            driver: Mutex::default(),
            faulty: AtomicBool::default(),
            fault: Mutex::default(),
            parting: Mutex::default(),
            unread: Mutex::default(),
            ended: Mutex::default(),
            reset: Mutex::default(),
            suspects: Mutex::default(),
            own_resets: Mutex::default(),
            breaking: Mutex::default(),
            to_judge: AtomicBool::default(),
            to_reset: AtomicBool::default(),
            to_break: AtomicBool::default(),
        }
    }

    /// Whether this side accepts streams.
    pub(super) fn is_server(&self) -> bool {
        self.server
    }

    pub(super) fn is_draining(&self) -> bool {
        self.goaway.load(Relaxed)
    }

    /// The peer reset a stream.
    pub(super) fn note_reset(&self) {
        self.count(Http2CodecStats::rx_reset);
        self.resets.fetch_add(1, Relaxed);
    }

    /// Streams that the peer has reset.
    pub(super) fn resets(&self) -> u64 {
        self.resets.load(Relaxed)
    }

    pub(super) fn count(&self, id: CounterId<Http2CodecStats>) {
        self.stats.inc(id);
    }

    pub(super) fn gauge(&self, id: GaugeId<Http2CodecStats>, change: i64) {
        self.stats.gauge(id, change);
    }

    /// Why this side ends the connection, if it does.
    pub(super) fn fault(&self) -> Option<Fault> {
        match self.faulty.load(Relaxed) {
            true => *self.fault.lock(),
            false => None,
        }
    }

    /// Ends the connection; the first reason counts.
    pub(super) fn set_fault(&self, fault: Fault) {
        if self.faulty.swap(true, Relaxed) {
            return;
        }
        *self.fault.lock() = Some(fault);
        if let Fault::Flood(flood) = fault {
            self.stats.count_flood(flood);
        }
    }

    /// Names the task that drives the connection, for [`Self::end_for_message`].
    pub(super) fn driven_by(&self, waker: &Waker) {
        *self.driver.lock() = Some(waker.clone());
    }

    /// The message of this stream breaks the rules, which ends the connection.
    pub(super) fn end_for_message(&self, stream: u32) {
        if self.fault().is_some() {
            return;
        }
        self.count(Http2CodecStats::rx_messaging_error);
        self.set_fault(Fault::Malformed {
            stream,
            by_field: false,
        });
        if let Some(driver) = self.driver.lock().as_ref() {
            driver.wake_by_ref();
        }
    }

    /// Holds a head or trailers to the limits.
    ///
    /// # Errors
    /// Envoy's details of the limit that is passed, which is counted.
    pub(super) fn hold(&self, bytes: usize, fields: usize) -> Result<(), &'static str> {
        if bytes > self.max_headers_bytes {
            self.count(Http2CodecStats::header_list_size_too_large);
            return Err("http2.header_list_size_too_large");
        }
        if fields > self.max_headers_count {
            self.count(Http2CodecStats::header_overflow);
            return Err("http2.too_many_headers");
        }
        Ok(())
    }

    /// `h2` wants to reset a stream that was not handed out.
    pub(super) fn suspect(&self, stream: u32) {
        self.to_judge.store(true, Relaxed);
        self.suspects.lock().push(stream);
    }

    /// With all streams handed out: a suspect that was among them had a body that does
    /// not fit, and is reset; another one had a malformed head, which is a fault. Whether
    /// there was a suspect.
    pub(super) fn judge(&self) -> bool {
        if !self.to_judge.swap(false, Relaxed) {
            return false;
        }
        for stream in self.suspects.lock().drain(..) {
            if self.was_opened(stream) {
                self.reset_by_own(stream, PROTOCOL_ERROR);
            } else {
                self.set_fault(Fault::Malformed {
                    stream,
                    by_field: true,
                });
            }
        }
        true
    }

    fn reset_by_own(&self, stream: u32, code: u32) {
        self.to_reset.store(true, Relaxed);
        self.own_resets.lock().push((stream, code));
    }

    /// This tunnel is to be reset once its bytes are written: `h2`, which would drop them,
    /// is told that it ends.
    pub(super) fn will_break(&self, stream: u32) {
        self.to_break.store(true, Relaxed);
        push_bounded(&mut self.breaking.lock(), stream);
    }

    /// Whether a message of `h2` that ends is such a tunnel, which is reset in its place.
    pub(super) fn breaks(&self, stream: u32) -> bool {
        let breaks = self.is_breaking(stream);
        if breaks {
            self.reset_by_own(stream, CONNECT_ERROR);
        }
        breaks
    }

    /// Whether this is such a tunnel.
    pub(super) fn is_breaking(&self, stream: u32) -> bool {
        self.to_break.load(Relaxed) && self.breaking.lock().contains(&stream)
    }

    /// The next stream that is to be reset, and with which code.
    pub(super) fn next_own_reset(&self) -> Option<(u32, u32)> {
        match self.to_reset.load(Relaxed) {
            true => {
                let next = self.own_resets.lock().pop();
                self.to_reset.store(next.is_some(), Relaxed);
                next
            }
            false => None,
        }
    }

    /// The malformed request was refused for what its fields say.
    pub(super) fn note_malformed_message(&self) {
        if let Some(Fault::Malformed { by_field, .. }) = &mut *self.fault.lock() {
            *by_field = false;
        }
    }

    /// The stream whose head was cut off.
    pub(super) fn unfinished_head(&self) -> Option<u32> {
        match self.head_under_way.load(Relaxed) {
            0 => None,
            stream => Some(stream),
        }
    }

    /// A head, or the frame that ends a stream, was handed over to be written; too many
    /// are a fault. The frames between are bounded by bytes.
    pub(super) fn handed_over(&self) {
        let waiting = self.waiting.load(Relaxed) + 1;
        self.waiting.store(waiting, Relaxed);
        if waiting > self.most_waiting {
            self.set_fault(Fault::Flood(Flood::Outbound));
        }
    }

    /// Frames handed over that wait to be written. Those of streams that were reset
    /// stay in the count until all is written.
    pub(super) fn waiting(&self) -> u32 {
        self.waiting.load(Relaxed)
    }

    /// Some of them were written.
    pub(super) fn written(&self, frames: u32) {
        let waiting = self.waiting.load(Relaxed);
        self.waiting.store(waiting.saturating_sub(frames), Relaxed);
    }

    pub(super) fn all_written(&self) {
        self.waiting.store(0, Relaxed);
    }

    /// Bytes came in.
    pub(super) fn hear(&self) {
        let millis = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.heard.store(millis, Relaxed);
    }

    /// Asks for a PING if nothing came in for this long.
    pub(super) fn ping_after(&self, silence: Duration) {
        let heard = Duration::from_millis(self.heard.load(Relaxed));
        if self.opened.elapsed().saturating_sub(heard) >= silence {
            self.ping.store(true, Relaxed);
        }
    }

    /// Whether a PING is to be sent now.
    pub(super) fn take_ping(&self) -> bool {
        self.ping.load(Relaxed) && self.ping.swap(false, Relaxed)
    }

    /// A stream whose unread frames are to be counted.
    pub(super) fn open(&self, stream: u32) {
        let mut unread = self.unread.lock();
        let early = unread.early.remove(&stream).unwrap_or_default();
        unread.open.insert(stream, early);
        unread.last = unread.last.max(stream);
        push_bounded(&mut unread.handed, stream);
        self.gauge(Http2CodecStats::streams_active, 1);
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

    /// Whether the stream was handed out, and is held.
    pub(super) fn is_open(&self, stream: u32) -> bool {
        self.unread.lock().open.contains_key(&stream)
    }

    /// Whether the stream was handed out, though it may be gone.
    fn was_opened(&self, stream: u32) -> bool {
        let unread = self.unread.lock();
        unread.open.contains_key(&stream) || unread.handed.contains(&stream)
    }

    /// A stream is gone, and its unread frames with it.
    pub(super) fn close(&self, stream: u32) {
        let mut unread = self.unread.lock();
        if let Some(n) = unread.open.remove(&stream) {
            unread.total -= n;
            self.gauge(Http2CodecStats::streams_active, -1);
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
    pub(super) fn arrived(&self, stream: u32) -> u32 {
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

    pub(super) fn remember_end(&self, stream: u32) {
        push_bounded(&mut self.ended.lock(), stream);
    }

    /// Whether the peer ended the stream before it reset it.
    pub(super) fn was_ended(&self, stream: u32) -> bool {
        self.ended.lock().contains(&stream)
    }

    /// This side is about to reset the stream.
    pub(super) fn will_reset(&self, stream: u32) {
        push_bounded(&mut self.reset.lock(), stream);
    }

    /// Whether this side, and not `h2`, reset the stream.
    pub(super) fn was_reset_here(&self, stream: u32) -> bool {
        self.reset.lock().contains(&stream)
    }
}

fn push_bounded(queue: &mut VecDeque<u32>, stream: u32) {
    if queue.len() == REMEMBERED {
        queue.pop_front();
    }
    queue.push_back(stream);
}
