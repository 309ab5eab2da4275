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
use outrigger_types::{
    ConnectionInfo, Method, Protocol, RequestHead, ResponseFlag, StatusCode, details,
};
use tokio::io::AsyncReadExt;
use tokio_util::sync::CancellationToken;

use super::{Hcm, HcmStats, http2};
use crate::http::codec::{ServerStream, h1};
use crate::http::stream::{Incoming, Stream};
use crate::listener::connection_log::Account;
use crate::listener::{Handshake, Lost};
use crate::network::io::{ByteSink, Io};
use crate::upstream::stats::Http1CodecStats;

/// How HTTP/2 begins, as far as Envoy looks.
const PREFACE: &[u8] = b"PRI * HTTP/2";

/// Serves a connection to its end, beginning with its TLS handshake if it has one. `drain` asks it
/// to end when it can; `account` is told what the log of the listener wants to know.
pub async fn serve(
    hcm: Arc<Hcm>,
    mut io: Io,
    info: Arc<ConnectionInfo>,
    handshake: Option<Handshake>,
    drain: CancellationToken,
    account: Option<Arc<Account>>,
) {
    let counted = CountedConnection::new(&hcm, handshake.is_some());
    if let Some(handshake) = handshake {
        // In a box, or connections in plain text would have room for it in their tasks.
        match Box::pin(handshake.run(io, &info)).await {
            Ok(secured) => io = secured,
            Err(lost) => return counted.end_of(Ended::idle(lost == Lost::Remote)),
        }
    }
    match &account {
        Some(account) => io.report_to(Arc::new(Accounted(hcm.clone(), account.clone()))),
        None => io.report_to(hcm.clone()),
    }
    let protocol = match hcm.config.codec {
        CodecType::Http1 => Protocol::Http11,
        CodecType::Http2 => Protocol::Http2,
        CodecType::Auto => match agreed(&info) {
            Some(protocol) => protocol,
            None => match detect_in_time(&hcm, &mut io, &drain).await {
                Ok(protocol) => protocol,
                Err(ended) => return counted.end_of(ended),
            },
        },
    };
    let counted = counted.speaks(protocol);
    if let Some(account) = &account {
        account.speaks(protocol);
    }
    let end = match protocol {
        Protocol::Http2 => http2::serve(hcm, io, info, drain).await,
        Protocol::Http10 | Protocol::Http11 => serve_h1(&hcm, io, &info, drain).await,
    };
    if let Some(account) = &account
        && let Some(at_once) = end.malformed
    {
        account.note_malformed(at_once);
    }
    counted.end_of(end);
}

/// Counts bytes with the HCM and for the log of the listener.
struct Accounted(Arc<Hcm>, Arc<Account>);

impl ByteSink for Accounted {
    fn count_bytes(&self, read: u64, written: u64) {
        self.0.count_bytes(read, written);
        self.1.count(read, written);
    }
}

/// The protocol that ALPN agreed on; what is not HTTP/2 is HTTP/1.
fn agreed(info: &ConnectionInfo) -> Option<Protocol> {
    match &*info.tls()?.alpn {
        b"" => None,
        b"h2" => Some(Protocol::Http2),
        _ => Some(Protocol::Http11),
    }
}

/// Waits for the first bytes, as long as the timeouts of a connection and a drain let it.
async fn detect_in_time(
    hcm: &Hcm,
    io: &mut Io,
    drain: &CancellationToken,
) -> Result<Protocol, Ended> {
    let common = &hcm.config.common_http;
    let now = Instant::now();
    let life = common.max_connection_duration.map(|d| now + d);
    let idle = common.idle_timeout.map(|d| now + d);
    let why = tokio::select! {
        biased;
        found = detect(io) => return found.ok().flatten().ok_or(Ended::idle(true)),
        () = sleep_until(idle) => HcmStats::downstream_cx_idle_timeout,
        () = sleep_until(life) => HcmStats::downstream_cx_max_duration_reached,
        () = drain.cancelled() => HcmStats::downstream_cx_drain_close,
    };
    hcm.stats.inc(why);
    Err(Ended::idle(false))
}

/// Tells HTTP/2 from HTTP/1 by the first bytes, which stay to be read. None when
/// the peer ended before it said anything.
async fn detect(io: &mut Io) -> io::Result<Option<Protocol>> {
    let mut seen = BytesMut::with_capacity(4096);
    let found = loop {
        if io.read_buf(&mut seen).await? == 0 {
            // What is less than a preface is the beginning of a head.
            break (!seen.is_empty()).then_some(Protocol::Http11);
        }
        let common = seen.len().min(PREFACE.len());
        if seen[..common] != PREFACE[..common] {
            break Some(Protocol::Http11);
        }
        if common == PREFACE.len() {
            break Some(Protocol::Http2);
        }
    };
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
    /// The peer broke the protocol: true if that was the first it said.
    pub(super) malformed: Option<bool>,
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
    let common = &hcm.config.common_http;
    let max_requests = common.max_requests_per_connection;
    let mut life = common.max_connection_duration.map(|d| Instant::now() + d);
    let mut served = 0;
    let mut leave_by = None;
    loop {
        let next = match next_head(hcm, &mut connection, &mut life, &mut leave_by, &drain).await {
            Next::Request(next) => next,
            Next::Refused(error) => {
                let by_peer = answer_error(hcm, info, connection, error).await;
                return Ended {
                    malformed: Some(served == 0),
                    ..Ended::idle(by_peer)
                };
            }
            Next::Unfinished(limit) => {
                return Ended::idle(answer_unfinished(hcm, info, connection, limit).await);
            }
            Next::Gone { in_head } => {
                if in_head {
                    hcm.log_cut_head(info);
                }
                return Ended {
                    by_peer: true,
                    active: in_head,
                    ..Ended::default()
                };
            }
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
        if leave_by.is_some() {
            life = None;
        }
        if exchange(hcm, &mut stream, life).await {
            life = None;
            leave_by = Some(Instant::now() + hcm.config.drain_timeout);
        }
        let active = stream.was_cut_by_peer();
        let late = stream.closes_connection();
        let Some(over) = stream.into_downstream().into_h1() else {
            return Ended::default();
        };
        connection = over;
        if active {
            return Ended {
                by_peer: true,
                active,
                ..Ended::default()
            };
        }
        if late || !connection.is_between_requests() {
            return Ended::idle(linger(hcm, &mut connection).await);
        }
        let closes = connection.should_close();
        match write_out(hcm, &mut connection, closes).await {
            Flushed::Done if closes => {
                // Both sides have said all: there is nothing to wait for. A peer that
                // is gone does not need the end of our side.
                let _ = poll_fn(|cx| connection.poll_shutdown(cx)).await;
                return Ended::default();
            }
            Flushed::Done => {}
            Flushed::Lost => return Ended::idle(true),
            Flushed::TimeUp => return Ended::idle(false),
        }
    }
}

/// Serves one request to its end. True if the connection grew too old meanwhile: then the
/// answer, unless it had begun, asks the client to leave.
async fn exchange(hcm: &Hcm, stream: &mut Stream, life: Option<Instant>) -> bool {
    if let Some(life) = life {
        tokio::select! {
            biased;
            () = poll_fn(|cx| stream.poll(cx)) => return false,
            () = tokio::time::sleep_until(life.into()) => {}
        }
        hcm.stats.inc(HcmStats::downstream_cx_max_duration_reached);
        stream.announce_close();
    }
    poll_fn(|cx| stream.poll(cx)).await;
    life.is_some()
}

enum Next {
    Request(h1::NextRequest),
    Refused(h1::H1Error),
    /// The head did not come to its end in time.
    Unfinished(HeadLimit),
    /// The peer ended the connection.
    Gone {
        /// In the middle of a head.
        in_head: bool,
    },
    /// It was idle, or open, for too long.
    TimeUp,
    /// It is asked to end.
    Drained,
}

/// What a head that has begun to come is held to. It makes the connection busy: neither
/// its idle timeout nor its age nor a drain ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HeadLimit {
    /// `request_headers_timeout`
    Headers,
    /// `request_timeout`
    Request,
    /// `stream_idle_timeout`
    Idle,
    /// `max_stream_duration`
    Duration,
}

impl HeadLimit {
    /// The limit that passes first for a head that begins now.
    fn first(hcm: &Hcm) -> Option<(Instant, Self)> {
        let config = &hcm.config;
        let limits = [
            (config.request_headers_timeout, Self::Headers),
            (config.request_timeout, Self::Request),
            (config.stream_idle_timeout, Self::Idle),
            (config.common_http.max_stream_duration, Self::Duration),
        ];
        let set = limits
            .into_iter()
            .filter_map(|(d, limit)| Some((d?, limit)));
        let (after, limit) = set.min_by_key(|(after, _)| *after)?;
        Some((Instant::now() + after, limit))
    }
}

/// Waits for the next request within the timeouts of the connection.
async fn next_head(
    hcm: &Hcm,
    connection: &mut h1::ServerConnection,
    life: &mut Option<Instant>,
    leave_by: &mut Option<Instant>,
    drain: &CancellationToken,
) -> Next {
    let idle = hcm
        .config
        .common_http
        .idle_timeout
        .map(|d| Instant::now() + d);
    let between = [*life, idle, *leave_by].into_iter().flatten().min();
    let mut begun = false;
    let mut limit = None;
    loop {
        if !begun && !connection.is_idle() {
            begun = true;
            limit = HeadLimit::first(hcm);
        }
        let in_head = [*life, limit.map(|(at, _)| at)].into_iter().flatten().min();
        let deadline = if begun { in_head } else { between };
        let next = poll_fn(|cx| {
            let before = connection.io().bytes_read();
            match connection.poll_next_head(cx) {
                Poll::Ready(next) => Poll::Ready(Some(next)),
                Poll::Pending if connection.io().bytes_read() != before && !begun => {
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
                Some(Ok(None)) => return Next::Gone { in_head: false },
                Some(Err(error)) if error.disconnected => return Next::Gone { in_head: true },
                Some(Err(error)) => return Next::Refused(error),
            },
            () = sleep_until(deadline) => {
                let now = Instant::now();
                let aged = life.is_some_and(|d| d <= now);
                if aged {
                    hcm.stats.inc(HcmStats::downstream_cx_max_duration_reached);
                }
                match limit {
                    Some((at, limit)) if begun && at <= now => return Next::Unfinished(limit),
                    _ if begun => {
                        *life = None;
                        *leave_by = Some(now + hcm.config.drain_timeout);
                        connection.announce_close();
                        continue;
                    }
                    _ => {}
                }
                if !aged && idle.is_some_and(|d| d <= now) {
                    hcm.stats.inc(HcmStats::downstream_cx_idle_timeout);
                }
                return Next::TimeUp;
            }
            () = drain.cancelled(), if !begun => {
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

async fn answer_unfinished(
    hcm: &Arc<Hcm>,
    info: &Arc<ConnectionInfo>,
    mut connection: Box<h1::ServerConnection>,
    limit: HeadLimit,
) -> bool {
    let (stat, body, details) = match limit {
        HeadLimit::Headers => (
            HcmStats::downstream_rq_header_timeout,
            "request header timeout",
            details::REQUEST_HEADER_TIMEOUT,
        ),
        HeadLimit::Request => (
            HcmStats::downstream_rq_timeout,
            "request timeout",
            details::REQUEST_OVERALL_TIMEOUT,
        ),
        HeadLimit::Idle => (
            HcmStats::downstream_rq_idle_timeout,
            "stream timeout",
            details::STREAM_IDLE_TIMEOUT,
        ),
        HeadLimit::Duration => (
            HcmStats::downstream_rq_max_duration_reached,
            "downstream duration timeout",
            details::MAX_DURATION_TIMEOUT,
        ),
    };
    hcm.stats.inc(stat);
    connection.refuse();
    let mut reply = LocalReply::new(StatusCode::REQUEST_TIMEOUT, body, details);
    if limit == HeadLimit::Idle {
        reply = reply.with_flag(ResponseFlag::StreamIdleTimeout);
    }
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

/// What became of bytes that were to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flushed {
    Done,
    /// The connection is gone.
    Lost,
    /// The peer took nothing for too long.
    TimeUp,
}

/// Writes what waits. A peer that takes nothing of it for as long as `patience` is not
/// waited for; one that takes it slowly is.
async fn flush(connection: &mut h1::ServerConnection, patience: Option<Duration>) -> Flushed {
    loop {
        let before = connection.unwritten();
        let step = poll_fn(|cx| match connection.poll_flush(cx) {
            Poll::Ready(Ok(())) => Poll::Ready(Some(Flushed::Done)),
            Poll::Ready(Err(_)) => Poll::Ready(Some(Flushed::Lost)),
            Poll::Pending if connection.unwritten() < before => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        });
        let step = match patience {
            // With nothing to write there is nothing to wait for.
            Some(patience) if before > 0 => match tokio::time::timeout(patience, step).await {
                Ok(step) => step,
                Err(_) => return Flushed::TimeUp,
            },
            _ => step.await,
        };
        if let Some(flushed) = step {
            return flushed;
        }
    }
}

/// Writes the rest of an answer: before the next request within the idle timeout, at the
/// end of the connection within `delayed_close_timeout`.
async fn write_out(hcm: &Hcm, connection: &mut h1::ServerConnection, closes: bool) -> Flushed {
    let config = &hcm.config;
    let (patience, stat) = if closes {
        let patience = Some(config.delayed_close_timeout).filter(|d| !d.is_zero());
        let stat = HcmStats::downstream_cx_delayed_close_timeout;
        (Some(patience.unwrap_or(FLUSH_TIME)), stat)
    } else {
        let stat = HcmStats::downstream_cx_idle_timeout;
        (config.common_http.idle_timeout, stat)
    };
    let flushed = flush(connection, patience).await;
    if flushed == Flushed::TimeUp {
        hcm.stats.inc(stat);
    }
    flushed
}

/// Writes what waits, then leaves the peer the time of `delayed_close_timeout` to
/// read it and to close first. True if it did.
async fn linger(hcm: &Hcm, connection: &mut h1::ServerConnection) -> bool {
    let timeout = hcm.config.delayed_close_timeout;
    if timeout.is_zero() {
        return flush(connection, Some(FLUSH_TIME)).await == Flushed::Lost;
    }
    let by_peer = match flush(connection, Some(timeout)).await {
        Flushed::Lost => true,
        Flushed::TimeUp => false,
        Flushed::Done => {
            let close = poll_fn(|cx| connection.poll_discard(cx));
            tokio::time::timeout(timeout, close).await.is_ok()
        }
    };
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
    tls: bool,
    protocol: Option<Protocol>,
    end: Ended,
}

impl CountedConnection {
    fn new(hcm: &Arc<Hcm>, tls: bool) -> Self {
        hcm.stats.inc(HcmStats::downstream_cx_total);
        if tls {
            hcm.stats.inc(HcmStats::downstream_cx_ssl_total);
            hcm.stats.gauge_inc(HcmStats::downstream_cx_ssl_active);
        }
        hcm.stats.gauge_inc(HcmStats::downstream_cx_active);
        Self {
            hcm: hcm.clone(),
            opened: Instant::now(),
            tls,
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

    fn end_of(mut self, end: Ended) {
        self.end = end;
    }
}

impl Drop for CountedConnection {
    fn drop(&mut self) {
        let stats = &self.hcm.stats;
        stats.gauge_dec(HcmStats::downstream_cx_active);
        if self.tls {
            stats.gauge_dec(HcmStats::downstream_cx_ssl_active);
        }
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
