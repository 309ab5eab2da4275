//! A downstream connection: which codec it speaks, its requests one after the
//! other or side by side, and its end.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use filter_api::LocalReply;
use outrigger_config::ir::CodecType;
use outrigger_types::{ConnectionInfo, Method, Protocol, RequestHead, ResponseFlag};
use tokio::io::AsyncReadExt;
use tokio_util::sync::CancellationToken;

use super::{Hcm, HcmStats, http2};
use crate::http::codec::{ServerStream, h1};
use crate::http::stream::{Incoming, Stream};
use crate::network::io::Io;
use crate::upstream::stats::Http1CodecStats;

/// How HTTP/2 begins, as far as Envoy looks.
const PREFACE: &[u8] = b"PRI * HTTP/2";

/// Serves a connection to its end. `drain` asks it to end when it can.
pub async fn serve(hcm: Arc<Hcm>, mut io: Io, info: Arc<ConnectionInfo>, drain: CancellationToken) {
    let counted = CountedConnection::new(&hcm);
    io.report_to(hcm.clone());
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
        Protocol::Http2 => http2::serve(hcm, io, info, drain).await,
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
pub(super) struct Ended {
    /// The peer ended it.
    pub(super) by_peer: bool,
    /// A request was cut.
    pub(super) active: bool,
    /// It was this side that cut the requests, whoever closed first then.
    pub(super) cut_here: bool,
}

impl Ended {
    /// With no request under way.
    fn idle(by_peer: bool) -> Self {
        Self {
            by_peer,
            ..Self::default()
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
    let mut leave_by = None;
    loop {
        let next = match next_head(hcm, &mut connection, opened, leave_by, &drain).await {
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
        if leave_by.is_none() && (drain.is_cancelled() || hcm.asks_to_leave()) {
            hcm.stats.inc(HcmStats::downstream_cx_drain_close);
            connection.announce_close();
            leave_by = Some(Instant::now() + hcm.config.drain_timeout);
        }
        if drain.is_cancelled() {
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
                cut_here: false,
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
    leave_by: Option<Instant>,
    drain: &CancellationToken,
) -> Next {
    let common = &hcm.config.common_http;
    let life = common.max_connection_duration.map(|d| opened + d);
    let idle = common.idle_timeout.map(|d| Instant::now() + d);
    let mut head_deadline = None;
    loop {
        let deadlines = [life, idle, head_deadline, leave_by];
        let deadline = deadlines.into_iter().flatten().min();
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
                if life.is_some_and(|d| d <= now) {
                    hcm.stats.inc(HcmStats::downstream_cx_max_duration_reached);
                } else if idle.is_some_and(|d| d <= now) {
                    hcm.stats.inc(HcmStats::downstream_cx_idle_timeout);
                }
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
pub(super) const FLUSH_TIME: Duration = Duration::from_secs(1);

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
        stats.inc(match self.end.by_peer {
            true => HcmStats::downstream_cx_destroy_remote,
            false => HcmStats::downstream_cx_destroy_local,
        });
        if self.end.active {
            stats.inc(HcmStats::downstream_cx_destroy_active_rq);
            stats.inc(match self.end.by_peer && !self.end.cut_here {
                true => HcmStats::downstream_cx_destroy_remote_active_rq,
                false => HcmStats::downstream_cx_destroy_local_active_rq,
            });
        }
        let millis = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        stats.record(HcmStats::downstream_cx_length_ms, millis);
    }
}
