//! A downstream connection: which codec it speaks, its requests one after the
//! other or side by side, and its end.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use filter_api::LocalReply;
use outrigger_config::ir::CodecType;
use outrigger_types::{ConnectionInfo, Method, Protocol, RequestHead, ResponseFlag};
use tokio::io::AsyncReadExt;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::{Hcm, HcmStats};
use crate::http::codec::{ServerStream, h1, h2};
use crate::http::codec_stats::{Published, count_flood};
use crate::http::stream::{Incoming, Stream};
use crate::network::io::Io;
use crate::upstream::stats::Http1CodecStats;

/// How HTTP/2 begins, as far as Envoy looks.
const PREFACE: &[u8] = b"PRI * HTTP/2";

/// Serves a connection to its end. `drain` asks it to end when it can.
pub async fn serve(hcm: Arc<Hcm>, mut io: Io, info: Arc<ConnectionInfo>, drain: CancellationToken) {
    let counted = CountedConnection::new(&hcm);
    let protocol = match hcm.config.codec {
        CodecType::Http1 => Protocol::Http11,
        CodecType::Http2 => Protocol::Http2,
        CodecType::Auto => match detect(&mut io, hcm.config.common_http.idle_timeout).await {
            Ok(Some(protocol)) => protocol,
            Ok(None) => return counted.end(true),
            Err(timeout) => {
                if timeout {
                    hcm.stats.inc(HcmStats::downstream_cx_idle_timeout);
                }
                return counted.end(!timeout);
            }
        },
    };
    let counted = counted.speaks(protocol);
    let end = match protocol {
        Protocol::Http2 => Http2::new(hcm, io, info, drain).run().await,
        Protocol::Http10 | Protocol::Http11 => serve_h1(&hcm, io, &info, drain).await,
    };
    counted.end_of(end);
}

/// Tells HTTP/2 from HTTP/1 by the first bytes, which stay to be read. None when
/// the peer ended before it said anything; the error says whether time was up.
async fn detect(io: &mut Io, idle: Option<Duration>) -> Result<Option<Protocol>, bool> {
    let mut seen = BytesMut::with_capacity(4096);
    let read = async {
        loop {
            if io.read_buf(&mut seen).await? == 0 {
                return io::Result::Ok(None);
            }
            let common = seen.len().min(PREFACE.len());
            if seen[..common] != PREFACE[..common] {
                return Ok(Some(Protocol::Http11));
            }
            if common == PREFACE.len() {
                return Ok(Some(Protocol::Http2));
            }
        }
    };
    let found = match idle {
        Some(idle) => tokio::time::timeout(idle, read).await.map_err(|_| true)?,
        None => read.await,
    };
    let found = found.map_err(|_| false)?;
    io.rewind(seen.freeze());
    Ok(found)
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, Default)]
struct Ended {
    /// The peer ended it.
    by_peer: bool,
    /// A request was cut.
    active: bool,
}

impl Ended {
    /// With no request under way.
    fn idle(by_peer: bool) -> Self {
        Self {
            by_peer,
            active: false,
        }
    }
}

/// HTTP/1: one request at a time.
async fn serve_h1(
    hcm: &Arc<Hcm>,
    io: Io,
    info: &Arc<ConnectionInfo>,
    drain: CancellationToken,
) -> Ended {
    let mut connection = Box::new(h1::ServerConnection::new(io, hcm.h1_options()));
    let opened = Instant::now();
    let max_requests = hcm.config.common_http.max_requests_per_connection;
    let mut served = 0;
    loop {
        let next = match next_head(hcm, &mut connection, opened, &drain).await {
            Next::Request(next) => next,
            Next::Refused(error) => {
                return Ended::idle(answer_error(hcm, info, connection, error).await);
            }
            Next::HeaderTimeout => {
                return Ended::idle(answer_header_timeout(hcm, info, connection).await);
            }
            Next::Gone => return Ended::idle(true),
            Next::TimeUp => return Ended::idle(linger(hcm, &mut connection).await),
            Next::Drained => {
                // The peer need not wait for its next request to see it.
                let shut = poll_fn(|cx| connection.poll_shutdown(cx)).await;
                let by_peer = shut.is_err() || linger(hcm, &mut connection).await;
                return Ended::idle(by_peer);
            }
        };
        let dropped = u64::from(next.dropped_underscores);
        let codec_stats = &hcm.worker.http1;
        codec_stats.add(Http1CodecStats::dropped_headers_with_underscores, dropped);
        served += 1;
        if max_requests.is_some_and(|max| served >= max) {
            hcm.stats.inc(HcmStats::downstream_cx_max_requests_reached);
            connection.set_close();
        }
        if drain.is_cancelled() || hcm.is_draining() {
            hcm.stats.inc(HcmStats::downstream_cx_drain_close);
            connection.set_close();
        }
        let incoming = Incoming {
            head: next.head,
            end_stream: next.end_stream,
            protocol: next.protocol,
            stream: ServerStream::H1(connection),
        };
        let mut stream = Box::new(Stream::new(hcm, info, incoming));
        poll_fn(|cx| stream.poll(cx)).await;
        let active = stream.was_cut_by_peer();
        let late = stream.closes_connection();
        let Some(over) = stream.into_downstream().into_h1() else {
            return Ended::default();
        };
        connection = over;
        let lost = active || poll_fn(|cx| connection.poll_flush(cx)).await.is_err();
        if lost {
            return Ended {
                by_peer: true,
                active,
            };
        }
        if late || !connection.is_between_requests() {
            return Ended::idle(linger(hcm, &mut connection).await);
        }
        if connection.should_close() {
            // Both sides have said all: there is nothing to wait for. A peer that
            // is gone does not need the end of our side.
            let _ = poll_fn(|cx| connection.poll_shutdown(cx)).await;
            return Ended::default();
        }
    }
}

enum Next {
    Request(h1::NextRequest),
    Refused(h1::H1Error),
    HeaderTimeout,
    /// The peer ended the connection.
    Gone,
    /// It was idle, or open, for too long.
    TimeUp,
    /// It is asked to end.
    Drained,
}

/// Waits for the next request within the timeouts of the connection.
async fn next_head(
    hcm: &Hcm,
    connection: &mut h1::ServerConnection,
    opened: Instant,
    drain: &CancellationToken,
) -> Next {
    let common = &hcm.config.common_http;
    let life = common.max_connection_duration.map(|d| opened + d);
    let idle = common.idle_timeout.map(|d| Instant::now() + d);
    let mut head_deadline = None;
    loop {
        let deadline = [life, idle, head_deadline].into_iter().flatten().min();
        let is_idle = connection.is_idle();
        if !is_idle
            && head_deadline.is_none()
            && let Some(timeout) = hcm.config.request_headers_timeout
        {
            head_deadline = Some(Instant::now() + timeout);
            continue;
        }
        let next = poll_fn(|cx| {
            let before = connection.io().bytes_read();
            match connection.poll_next_head(cx) {
                Poll::Ready(next) => Poll::Ready(Some(next)),
                Poll::Pending
                    if connection.io().bytes_read() != before && head_deadline.is_none() =>
                {
                    Poll::Ready(None)
                }
                Poll::Pending => Poll::Pending,
            }
        });
        tokio::select! {
            biased;
            next = next => match next {
                None => {}
                Some(Ok(Some(next))) => return Next::Request(next),
                Some(Ok(None)) => return Next::Gone,
                Some(Err(error)) if error.disconnected => return Next::Gone,
                Some(Err(error)) => return Next::Refused(error),
            },
            () = sleep_until(deadline) => {
                let now = Instant::now();
                if head_deadline.is_some_and(|d| d <= now) {
                    return Next::HeaderTimeout;
                }
                hcm.stats.inc(if life.is_some_and(|d| d <= now) {
                    HcmStats::downstream_cx_max_duration_reached
                } else {
                    HcmStats::downstream_cx_idle_timeout
                });
                return Next::TimeUp;
            }
            () = drain.cancelled(), if is_idle && head_deadline.is_none() => {
                hcm.stats.inc(HcmStats::downstream_cx_drain_close);
                return Next::Drained;
            }
        }
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// Answers what could not be read as a request, through the filters and the
/// access log, and closes.
async fn answer_error(
    hcm: &Arc<Hcm>,
    info: &Arc<ConnectionInfo>,
    connection: Box<h1::ServerConnection>,
    error: h1::H1Error,
) -> bool {
    hcm.stats.inc(HcmStats::downstream_cx_protocol_error);
    if error.details == h1::UNEXPECTED_UNDERSCORE {
        let codec_stats = &hcm.worker.http1;
        codec_stats.inc(Http1CodecStats::requests_rejected_with_underscores_in_headers);
    }
    let reply = LocalReply::new(
        error.status,
        error.status.canonical_reason().unwrap_or(""),
        error.details,
    )
    .with_flag(ResponseFlag::DownstreamProtocolError);
    answer_and_close(hcm, info, connection, reply).await
}

async fn answer_header_timeout(
    hcm: &Arc<Hcm>,
    info: &Arc<ConnectionInfo>,
    mut connection: Box<h1::ServerConnection>,
) -> bool {
    hcm.stats.inc(HcmStats::downstream_rq_header_timeout);
    connection.refuse();
    let reply = LocalReply::new(
        outrigger_types::StatusCode::REQUEST_TIMEOUT,
        "request header timeout",
        outrigger_types::details::REQUEST_HEADER_TIMEOUT,
    );
    answer_and_close(hcm, info, connection, reply).await
}

async fn answer_and_close(
    hcm: &Arc<Hcm>,
    info: &Arc<ConnectionInfo>,
    connection: Box<h1::ServerConnection>,
    reply: LocalReply,
) -> bool {
    let incoming = Incoming {
        head: RequestHead::new(Method::GET, ""),
        end_stream: true,
        protocol: Protocol::Http11,
        stream: ServerStream::H1(connection),
    };
    let mut stream = Box::new(Stream::refused(hcm, info, incoming, reply));
    poll_fn(|cx| stream.poll(cx)).await;
    match stream.into_downstream().into_h1() {
        Some(mut connection) => linger(hcm, &mut connection).await,
        None => false,
    }
}

/// Writes what waits, then leaves the peer the time of `delayed_close_timeout` to
/// read it and to close first. True if it did.
async fn linger(hcm: &Hcm, connection: &mut h1::ServerConnection) -> bool {
    let timeout = hcm.config.delayed_close_timeout;
    if timeout.is_zero() {
        let flush = poll_fn(|cx| connection.poll_flush(cx));
        return matches!(tokio::time::timeout(FLUSH_TIME, flush).await, Ok(Err(_)));
    }
    let close = async {
        if poll_fn(|cx| connection.poll_flush(cx)).await.is_ok() {
            poll_fn(|cx| connection.poll_discard(cx)).await;
        }
    };
    let by_peer = tokio::time::timeout(timeout, close).await.is_ok();
    if !by_peer {
        hcm.stats.inc(HcmStats::downstream_cx_delayed_close_timeout);
    }
    by_peer
}

/// How long the last bytes may take where `delayed_close_timeout` is off.
const FLUSH_TIME: Duration = Duration::from_secs(1);

/// HTTP/2: requests side by side, a task each.
struct Http2 {
    hcm: Arc<Hcm>,
    info: Arc<ConnectionInfo>,
    connection: h2::ServerConnection,
    active: Arc<Active>,
    published: Published,
    drain: Pin<Box<WaitForCancellationFutureOwned>>,
    draining: bool,
    opened: Instant,
    served: u32,
    timer: Pin<Box<tokio::time::Sleep>>,
}

/// Streams under way on a connection, and since when there is none.
#[derive(Debug)]
struct Active {
    streams: AtomicUsize,
    opened: Instant,
    /// Milliseconds from `opened` to the end of the last stream.
    idle_since: AtomicU64,
}

impl Active {
    fn begin(self: &Arc<Self>) -> ActiveGuard {
        self.streams.fetch_add(1, Ordering::Relaxed);
        ActiveGuard(self.clone())
    }

    fn idle_since(&self) -> Option<Instant> {
        let idle = self.streams.load(Ordering::Relaxed) == 0;
        idle.then(|| self.opened + Duration::from_millis(self.idle_since.load(Ordering::Relaxed)))
    }
}

/// A stream under way.
struct ActiveGuard(Arc<Active>);

impl Drop for ActiveGuard {
    fn drop(&mut self) {
        let Active {
            streams,
            opened,
            idle_since,
        } = &*self.0;
        let millis = u64::try_from(opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        idle_since.store(millis, Ordering::Relaxed);
        streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What ended an HTTP/2 connection.
enum End {
    Peer,
    Local,
    ProtocolError,
}

impl Http2 {
    fn new(hcm: Arc<Hcm>, io: Io, info: Arc<ConnectionInfo>, drain: CancellationToken) -> Self {
        let opened = Instant::now();
        let mut this = Self {
            connection: h2::ServerConnection::new(io, hcm.h2_options()),
            hcm,
            info,
            active: Arc::new(Active {
                streams: AtomicUsize::new(0),
                opened,
                idle_since: AtomicU64::new(0),
            }),
            published: Published::default(),
            drain: Box::pin(drain.cancelled_owned()),
            draining: false,
            opened,
            served: 0,
            timer: Box::pin(tokio::time::sleep(Duration::from_secs(3600))),
        };
        this.arm(opened);
        this
    }

    async fn run(mut self) -> Ended {
        let end = poll_fn(|cx| {
            let polled = self.poll(cx);
            self.published
                .publish(self.connection.counters(), self.hcm.worker.http2_stats());
            polled
        })
        .await;
        if let End::ProtocolError = end {
            self.hcm.stats.inc(HcmStats::downstream_cx_protocol_error);
        }
        Ended {
            by_peer: matches!(end, End::Peer),
            active: self.active.streams.load(Ordering::Relaxed) > 0,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        if !self.draining && self.drain.as_mut().poll(cx).is_ready() {
            self.start_drain(HcmStats::downstream_cx_drain_close);
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            self.on_timer();
        }
        loop {
            match self.connection.poll_accept(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => {
                    return Poll::Ready(if self.draining { End::Local } else { End::Peer });
                }
                Poll::Ready(Some(Err(error))) => {
                    return Poll::Ready(match error {
                        h2::ConnError::Flood(flood) => {
                            count_flood(flood, self.hcm.worker.http2_stats());
                            End::ProtocolError
                        }
                        h2::ConnError::Protocol { .. } => End::ProtocolError,
                        h2::ConnError::KeepaliveTimeout => End::Local,
                        h2::ConnError::GoAway { .. } | h2::ConnError::Lost => End::Peer,
                    });
                }
                Poll::Ready(Some(Ok(accepted))) => self.accept(accepted),
            }
        }
    }

    fn accept(&mut self, accepted: h2::Accepted) {
        self.served += 1;
        let max = self.hcm.config.common_http.max_requests_per_connection;
        if max.is_some_and(|max| self.served == max) {
            self.start_drain(HcmStats::downstream_cx_max_requests_reached);
        }
        let guard = self.active.begin();
        let incoming = Incoming {
            head: accepted.head,
            end_stream: accepted.end_stream,
            protocol: Protocol::Http2,
            stream: ServerStream::H2(Box::new(accepted.stream)),
        };
        let mut stream = Box::new(Stream::new(&self.hcm, &self.info, incoming));
        tokio::spawn(async move {
            // Dropped last, even if a filter panics when it is dropped.
            let _guard = guard;
            poll_fn(|cx| stream.poll(cx)).await;
            drop(stream);
        });
    }

    fn start_drain(&mut self, why: outrigger_stats::CounterId<HcmStats>) {
        if !self.draining {
            self.draining = true;
            self.hcm.stats.inc(why);
            self.connection.graceful_shutdown();
        }
    }

    fn on_timer(&mut self) {
        let now = Instant::now();
        let hcm = self.hcm.clone();
        let common = &hcm.config.common_http;
        if common
            .max_connection_duration
            .is_some_and(|d| self.opened + d <= now)
        {
            self.start_drain(HcmStats::downstream_cx_max_duration_reached);
        }
        let idle_since = self.active.idle_since();
        if let (Some(timeout), Some(since)) = (common.idle_timeout, idle_since)
            && since + timeout <= now
        {
            self.start_drain(HcmStats::downstream_cx_idle_timeout);
        }
        self.arm(idle_since.unwrap_or(now));
    }

    /// Sets the timer to the next limit; once draining there is none.
    fn arm(&mut self, idle_since: Instant) {
        let common = &self.hcm.config.common_http;
        let idle = common.idle_timeout.map(|d| idle_since + d);
        let life = common.max_connection_duration.map(|d| self.opened + d);
        let next = [idle, life]
            .into_iter()
            .flatten()
            .min()
            .filter(|_| !self.draining);
        let next = next.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
        self.timer.as_mut().reset(next.into());
    }
}

/// Counts a connection while it lives.
struct CountedConnection {
    hcm: Arc<Hcm>,
    opened: Instant,
    protocol: Option<Protocol>,
    end: Ended,
}

impl CountedConnection {
    fn new(hcm: &Arc<Hcm>) -> Self {
        hcm.stats.inc(HcmStats::downstream_cx_total);
        hcm.stats.gauge_inc(HcmStats::downstream_cx_active);
        Self {
            hcm: hcm.clone(),
            opened: Instant::now(),
            protocol: None,
            end: Ended::default(),
        }
    }

    fn speaks(mut self, protocol: Protocol) -> Self {
        let (total, active) = Self::of(protocol);
        self.hcm.stats.inc(total);
        self.hcm.stats.gauge_inc(active);
        self.protocol = Some(protocol);
        self
    }

    fn of(
        protocol: Protocol,
    ) -> (
        outrigger_stats::CounterId<HcmStats>,
        outrigger_stats::GaugeId<HcmStats>,
    ) {
        match protocol {
            Protocol::Http2 => (
                HcmStats::downstream_cx_http2_total,
                HcmStats::downstream_cx_http2_active,
            ),
            Protocol::Http10 | Protocol::Http11 => (
                HcmStats::downstream_cx_http1_total,
                HcmStats::downstream_cx_http1_active,
            ),
        }
    }

    fn end(self, by_peer: bool) {
        self.end_of(Ended::idle(by_peer));
    }

    fn end_of(mut self, end: Ended) {
        self.end = end;
    }
}

impl Drop for CountedConnection {
    fn drop(&mut self) {
        let stats = &self.hcm.stats;
        stats.gauge_dec(HcmStats::downstream_cx_active);
        if let Some(protocol) = self.protocol {
            stats.gauge_dec(Self::of(protocol).1);
        }
        stats.inc(HcmStats::downstream_cx_destroy);
        let (destroyed, active) = match self.end.by_peer {
            true => (
                HcmStats::downstream_cx_destroy_remote,
                HcmStats::downstream_cx_destroy_remote_active_rq,
            ),
            false => (
                HcmStats::downstream_cx_destroy_local,
                HcmStats::downstream_cx_destroy_local_active_rq,
            ),
        };
        stats.inc(destroyed);
        if self.end.active {
            stats.inc(HcmStats::downstream_cx_destroy_active_rq);
            stats.inc(active);
        }
        let millis = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        stats.record(HcmStats::downstream_cx_length_ms, millis);
    }
}
