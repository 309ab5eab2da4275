//! A downstream connection of HTTP/2: requests side by side, a task each.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use filter_api::Services as _;
use outrigger_types::{ConnectionInfo, Protocol};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::connection::{Ended, FLUSH_TIME};
use super::premature::PrematureResets;
use super::{Hcm, HcmStats};
use crate::http::codec::{ServerStream, h2};
use crate::http::codec_stats::CodecStats;
use crate::http::stream::{Incoming, Stream};
use crate::network::io::Io;

/// The time of a timer that nothing waits for.
const LATER: Duration = Duration::from_secs(3600);

/// Serves a connection to its end. `drain` asks it to end when it can.
pub(super) async fn serve(
    hcm: Arc<Hcm>,
    io: Io,
    info: Arc<ConnectionInfo>,
    drain: CancellationToken,
) -> Ended {
    Http2::new(hcm, io, info, drain).run().await
}

struct Http2 {
    hcm: Arc<Hcm>,
    info: Arc<ConnectionInfo>,
    connection: h2::ServerConnection,
    active: Arc<Active>,
    drain: Pin<Box<WaitForCancellationFutureOwned>>,
    draining: Draining,
    opened: Instant,
    served: u32,
    /// Resets by the peer that were seen before what is read now.
    resets: u64,
    refused: bool,
    timer: Pin<Box<tokio::time::Sleep>>,
}

/// How far the end of a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Draining {
    No,
    /// The peer was told; new streams are taken until then.
    Announced(Instant),
    /// No new streams are taken.
    Yes,
    /// Nothing is waited for but that the last words go out.
    Over,
    /// They did not.
    Stuck,
}

impl Draining {
    /// Whether new streams are refused.
    fn is_closed(self) -> bool {
        !matches!(self, Self::No | Self::Announced(_))
    }
}

/// Streams under way on a connection, and since when there is none.
#[derive(Debug)]
struct Active {
    streams: AtomicUsize,
    opened: Instant,
    /// Milliseconds from `opened` to the end of the last stream.
    idle_since: AtomicU64,
    resets: Mutex<PrematureResets>,
    too_many_resets: AtomicBool,
    /// Wakes the connection when there were too many resets.
    waker: Mutex<Option<Waker>>,
}

impl Active {
    fn begin(self: &Arc<Self>) -> ActiveGuard {
        self.streams.fetch_add(1, Ordering::Relaxed);
        ActiveGuard {
            active: self.clone(),
            end: None,
        }
    }

    fn count_end(&self, lived: Duration, answered: bool) {
        if self.resets.lock().end(lived, answered) {
            self.too_many_resets.store(true, Ordering::Relaxed);
            if let Some(waker) = self.waker.lock().take() {
                waker.wake();
            }
        }
    }

    fn is_busy(&self) -> bool {
        self.streams.load(Ordering::Relaxed) > 0
    }

    fn idle_since(&self) -> Option<Instant> {
        let since = Duration::from_millis(self.idle_since.load(Ordering::Relaxed));
        (!self.is_busy()).then(|| self.opened + since)
    }
}

/// A stream under way.
struct ActiveGuard {
    active: Arc<Active>,
    /// How long it lived, and whether it was answered.
    end: Option<(Duration, bool)>,
}

impl ActiveGuard {
    /// The stream is over.
    fn note(&mut self, lived: Duration, answered: bool) {
        self.end = Some((lived, answered));
    }
}

impl Drop for ActiveGuard {
    fn drop(&mut self) {
        let active = &self.active;
        let millis = u64::try_from(active.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        active.idle_since.store(millis, Ordering::Relaxed);
        active.streams.fetch_sub(1, Ordering::Relaxed);
        let (lived, answered) = self.end.unwrap_or((Duration::MAX, true));
        active.count_end(lived, answered);
    }
}

/// What ended a connection.
enum End {
    Peer,
    Local,
    /// This side ended it, and the peer does not take the last words.
    Stuck,
    Fault(h2::Fault),
    ProtocolError,
}

impl Http2 {
    fn new(hcm: Arc<Hcm>, io: Io, info: Arc<ConnectionInfo>, drain: CancellationToken) -> Self {
        let opened = Instant::now();
        let stats = CodecStats::from(hcm.worker.http2_stats());
        let mut this = Self {
            connection: h2::ServerConnection::new(io, hcm.h2_options(), stats),
            info,
            active: Arc::new(Active {
                streams: AtomicUsize::new(0),
                opened,
                idle_since: AtomicU64::new(0),
                resets: Mutex::new(PrematureResets::new(&hcm.worker.runtime())),
                too_many_resets: AtomicBool::new(false),
                waker: Mutex::new(None),
            }),
            hcm,
            drain: Box::pin(drain.cancelled_owned()),
            draining: Draining::No,
            opened,
            served: 0,
            resets: 0,
            refused: false,
            timer: Box::pin(tokio::time::sleep(LATER)),
        };
        this.arm(opened);
        this
    }

    async fn run(mut self) -> Ended {
        poll_fn(|cx| {
            *self.active.waker.lock() = Some(cx.waker().clone());
            Poll::Ready(())
        })
        .await;
        let end = poll_fn(|cx| self.poll(cx)).await;
        let active = self.active.is_busy() || self.refused;
        match end {
            End::Peer => Ended {
                by_peer: true,
                active,
                ..Ended::default()
            },
            End::Local => {
                let by_peer = match self.connection.take_parting() {
                    Some(parting) => part(&self.hcm, parting).await,
                    None => false,
                };
                Ended {
                    by_peer,
                    active,
                    ..Ended::default()
                }
            }
            End::Stuck => {
                let stats = &self.hcm.stats;
                stats.inc(HcmStats::downstream_cx_delayed_close_timeout);
                Ended {
                    by_peer: false,
                    active,
                    ..Ended::default()
                }
            }
            End::ProtocolError => {
                self.hcm.stats.inc(HcmStats::downstream_cx_protocol_error);
                Ended {
                    by_peer: false,
                    active,
                    cut_here: true,
                    malformed: Some(self.served == 0),
                }
            }
            End::Fault(fault) => {
                if !matches!(fault, h2::Fault::Flood(_)) {
                    self.hcm.stats.inc(HcmStats::downstream_cx_protocol_error);
                }
                let parting = self.connection.take_parting();
                let by_peer = match parting {
                    Some(parting) => part(&self.hcm, parting).await,
                    None => false,
                };
                Ended {
                    by_peer,
                    active,
                    cut_here: true,
                    malformed: Some(self.served == 0),
                }
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        if !self.draining.is_closed() && self.drain.as_mut().poll(cx).is_ready() {
            self.hcm.stats.inc(HcmStats::downstream_cx_drain_close);
            self.shut_down();
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            self.on_timer();
            if self.draining == Draining::Stuck {
                return Poll::Ready(End::Stuck);
            }
        }
        self.resets = self.connection.resets();
        loop {
            if self.active.too_many_resets.load(Ordering::Relaxed) {
                let stats = &self.hcm.stats;
                stats.inc(HcmStats::downstream_rq_too_many_premature_resets);
                self.connection.end_for_premature_resets();
                return Poll::Ready(End::Fault(h2::Fault::PrematureResets));
            }
            match self.connection.poll_accept(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => {
                    return Poll::Ready(match self.draining {
                        Draining::No => End::Peer,
                        Draining::Announced(_) => End::Peer,
                        Draining::Yes | Draining::Over | Draining::Stuck => End::Local,
                    });
                }
                Poll::Ready(Some(Err(error))) => {
                    return Poll::Ready(match error {
                        h2::ConnError::Fault(fault) => End::Fault(fault),
                        h2::ConnError::Protocol { .. } => End::ProtocolError,
                        h2::ConnError::KeepaliveTimeout => End::Local,
                        h2::ConnError::GoAway { .. } | h2::ConnError::Lost => End::Peer,
                    });
                }
                Poll::Ready(Some(Ok(h2::Next::Request(accepted)))) => self.accept(accepted),
                Poll::Ready(Some(Ok(h2::Next::Refused(refusal)))) => {
                    self.refused |= refusal.malformed;
                    self.hcm.log_refusal(&self.info, refusal);
                    self.active.count_end(Duration::ZERO, false);
                }
            }
        }
    }

    fn accept(&mut self, accepted: h2::Accepted) {
        self.served += 1;
        let max = self.hcm.config.common_http.max_requests_per_connection;
        if max.is_some_and(|max| self.served >= max) {
            // As in Envoy also those count that came before the client had heard.
            self.hcm
                .stats
                .inc(HcmStats::downstream_cx_max_requests_reached);
            self.announce();
        }
        if self.draining == Draining::No && self.hcm.asks_to_leave() {
            self.announce_for(HcmStats::downstream_cx_drain_close);
        }
        let mut guard = self.active.begin();
        let incoming = Incoming {
            head: accepted.head,
            end_stream: accepted.end_stream,
            protocol: Protocol::Http2,
            stream: ServerStream::H2(accepted.stream),
        };
        let mut stream = Box::new(Stream::new(&self.hcm, &self.info, incoming));
        // One that was reset by what came with it ends before the next one begins, so that
        // a storm of resets has no more requests waiting upstream than one.
        if self.connection.resets() != self.resets {
            let mut cx = Context::from_waker(Waker::noop());
            if stream.poll(&mut cx).is_ready() {
                return guard.note(stream.age(), stream.was_answered());
            }
        }
        tokio::spawn(async move {
            poll_fn(|cx| stream.poll(cx)).await;
            guard.note(stream.age(), stream.was_answered());
            // The guard goes last, even if a filter panics when it is dropped.
            drop(stream);
        });
    }

    /// The same, and counts why, unless the peer was told before.
    fn announce_for(&mut self, why: outrigger_stats::CounterId<HcmStats>) {
        if self.draining == Draining::No {
            self.hcm.stats.inc(why);
            self.announce();
        }
    }

    /// Tells the peer that the connection will end, and goes on for the drain timeout:
    /// what the peer sends until it has heard is served.
    fn announce(&mut self) {
        if self.draining == Draining::No {
            let end = Instant::now() + self.hcm.config.drain_timeout;
            self.draining = Draining::Announced(end);
            self.connection.announce_shutdown();
            self.timer.as_mut().reset(end.into());
        }
    }

    fn shut_down(&mut self) {
        self.draining = Draining::Yes;
        self.connection.graceful_shutdown();
        self.wait_for_end();
    }

    /// A peer that answers is gone before this time is up.
    fn wait_for_end(&mut self) {
        let patience = Some(self.hcm.config.delayed_close_timeout).filter(|d| !d.is_zero());
        let end = Instant::now() + patience.unwrap_or(FLUSH_TIME);
        self.timer.as_mut().reset(end.into());
    }

    /// Ends a connection that is to take no new streams and has no others, whatever its
    /// peer does.
    fn end_if_idle(&mut self) {
        if !self.active.is_busy() {
            self.draining = Draining::Over;
            self.connection.abrupt_shutdown(0);
        }
        self.wait_for_end();
    }

    fn on_timer(&mut self) {
        let now = Instant::now();
        match self.draining {
            Draining::No => {}
            Draining::Announced(end) if end <= now => return self.shut_down(),
            Draining::Announced(end) => return self.timer.as_mut().reset(end.into()),
            Draining::Yes => return self.end_if_idle(),
            Draining::Over | Draining::Stuck => return self.draining = Draining::Stuck,
        }
        let common = &self.hcm.config.common_http;
        let life = common.max_connection_duration;
        let idle = common.idle_timeout;
        if life.is_some_and(|d| self.opened + d <= now) {
            return self.announce_for(HcmStats::downstream_cx_max_duration_reached);
        }
        let idle_since = self.active.idle_since();
        if let (Some(timeout), Some(since)) = (idle, idle_since)
            && since + timeout <= now
        {
            return self.announce_for(HcmStats::downstream_cx_idle_timeout);
        }
        self.arm(idle_since.unwrap_or(now));
    }

    /// Sets the timer to the next limit.
    fn arm(&mut self, idle_since: Instant) {
        let common = &self.hcm.config.common_http;
        let idle = common.idle_timeout.map(|d| idle_since + d);
        let life = common.max_connection_duration.map(|d| self.opened + d);
        let next = [idle, life].into_iter().flatten().min();
        let next = next.unwrap_or_else(|| Instant::now() + LATER);
        self.timer.as_mut().reset(next.into());
    }
}

/// Says the last words, and leaves the peer the time of `delayed_close_timeout` to close
/// first. True if it did.
async fn part(hcm: &Hcm, parting: h2::Parting) -> bool {
    let h2::Parting { mut io, last_words } = parting;
    let timeout = hcm.config.delayed_close_timeout;
    let lingers = !timeout.is_zero();
    let close = async {
        if io.write_all(&last_words).await.is_err() {
            return true;
        }
        // On the heap, or every connection would have room for it in its task.
        let mut ignored = vec![0; 4096];
        if !lingers {
            return false;
        }
        loop {
            if matches!(io.read(&mut ignored).await, Ok(0) | Err(_)) {
                return true;
            }
        }
    };
    let limit = if lingers { timeout } else { FLUSH_TIME };
    let Ok(by_peer) = tokio::time::timeout(limit, close).await else {
        if lingers {
            hcm.stats.inc(HcmStats::downstream_cx_delayed_close_timeout);
        }
        return false;
    };
    by_peer
}
