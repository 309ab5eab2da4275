//! A downstream connection of HTTP/1: its heads, its requests one after the other, and
//! what ends it.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use filter_api::LocalReply;
use outrigger_types::{
    ConnectionInfo, Method, Protocol, RequestHead, ResponseFlag, StatusCode, details,
};
use tokio_util::sync::CancellationToken;

use super::connection::{Ended, FLUSH_TIME, sleep_until};
use super::{Hcm, HcmStats};
use crate::http::codec::{ServerStream, h1};
use crate::http::stream::{Incoming, Stream};
use crate::network::io::Io;
use crate::upstream::stats::Http1CodecStats;

/// HTTP/1: one request at a time, as long as the connection may live.
pub(super) async fn serve(
    hcm: &Arc<Hcm>,
    io: Io,
    info: &Arc<ConnectionInfo>,
    drain: CancellationToken,
) -> Ended {
    let mut connection = Box::new(h1::ServerConnection::new(io, hcm.h1_options()));
    let longest = hcm.config.common_http.max_connection_duration;
    let mut session = Session {
        hcm,
        info,
        drain,
        life: longest.map(|d| Instant::now() + d),
        leave_by: None,
        served: 0,
    };
    loop {
        let next = session.next_head(&mut connection).await;
        let Next::Request(next) = next else {
            return session.end_without(connection, next).await;
        };
        match session.exchange(connection, next).await {
            Ok(over) => connection = over,
            Err(ended) => return ended,
        }
    }
}

/// A connection, with what its requests have in common.
struct Session<'a> {
    hcm: &'a Arc<Hcm>,
    info: &'a Arc<ConnectionInfo>,
    drain: CancellationToken,
    /// When it is too old.
    life: Option<Instant>,
    /// It asked the client to leave, and waits for it until then.
    leave_by: Option<Instant>,
    served: u32,
}

impl Session<'_> {
    async fn next_head(&mut self, connection: &mut h1::ServerConnection) -> Next {
        let (life, leave_by) = (&mut self.life, &mut self.leave_by);
        next_head(self.hcm, connection, life, leave_by, &self.drain).await
    }

    /// The end of the connection where no request came, or one that cannot be served.
    async fn end_without(&self, mut connection: Box<h1::ServerConnection>, next: Next) -> Ended {
        let (hcm, info) = (self.hcm, self.info);
        match next {
            Next::Request(_) => Ended::default(),
            Next::Refused(error) => Ended {
                malformed: Some(self.served == 0),
                ..Ended::idle(answer_error(hcm, info, connection, error).await)
            },
            Next::Unfinished(limit) => {
                Ended::idle(answer_unfinished(hcm, info, connection, limit).await)
            }
            Next::Gone { in_head } => {
                if in_head {
                    hcm.log_cut_head(info);
                }
                Ended {
                    by_peer: true,
                    active: in_head,
                    ..Ended::default()
                }
            }
            Next::TimeUp => Ended::idle(linger(hcm, &mut connection).await),
            Next::Drained => {
                // The peer need not wait for its next request to see it.
                let shut = poll_fn(|cx| connection.poll_shutdown(cx)).await;
                let by_peer = shut.is_err() || linger(hcm, &mut connection).await;
                Ended::idle(by_peer)
            }
        }
    }

    /// Counts a request, and decides whether it is the connection's last.
    fn begin(&mut self, connection: &mut h1::ServerConnection, next: &h1::NextRequest) {
        let hcm = self.hcm;
        let dropped = u64::from(next.dropped_underscores);
        let codec_stats = &hcm.worker.http1;
        codec_stats.add(Http1CodecStats::dropped_headers_with_underscores, dropped);
        self.served += 1;
        let max_requests = hcm.config.common_http.max_requests_per_connection;
        if max_requests.is_some_and(|max| self.served >= max) {
            hcm.stats.inc(HcmStats::downstream_cx_max_requests_reached);
            connection.set_close();
        }
        if self.leave_by.is_none() && (self.drain.is_cancelled() || hcm.asks_to_leave()) {
            hcm.stats.inc(HcmStats::downstream_cx_drain_close);
            connection.announce_close();
            self.leave();
        }
        if self.drain.is_cancelled() {
            connection.set_close();
        }
    }

    /// The client was asked to leave: its age ends the connection no more.
    fn leave(&mut self) {
        self.life = None;
        self.leave_by = Some(Instant::now() + self.hcm.config.drain_timeout);
    }

    /// Serves a request; the connection, ready for the next one, or how it ended.
    async fn exchange(
        &mut self,
        mut connection: Box<h1::ServerConnection>,
        next: h1::NextRequest,
    ) -> Result<Box<h1::ServerConnection>, Ended> {
        self.begin(&mut connection, &next);
        let incoming = Incoming {
            head: next.head,
            end_stream: next.end_stream,
            protocol: next.protocol,
            stream: ServerStream::H1(connection),
        };
        let mut stream = Box::new(Stream::new(self.hcm, self.info, incoming));
        if self.leave_by.is_some() {
            self.life = None;
        }
        if exchange(self.hcm, &mut stream, self.life).await {
            self.leave();
        }
        let active = stream.was_cut_by_peer();
        let late = stream.closes_connection();
        let Some(connection) = stream.into_downstream().into_h1() else {
            return Err(Ended::default());
        };
        if active {
            return Err(Ended {
                by_peer: true,
                active,
                ..Ended::default()
            });
        }
        self.go_on(connection, late).await
    }

    /// Writes the end of an answer; whether the connection may carry another.
    async fn go_on(
        &self,
        mut connection: Box<h1::ServerConnection>,
        late: bool,
    ) -> Result<Box<h1::ServerConnection>, Ended> {
        if late || !connection.is_between_requests() {
            return Err(Ended::idle(linger(self.hcm, &mut connection).await));
        }
        let closes = connection.should_close();
        match write_out(self.hcm, &mut connection, closes).await {
            Flushed::Done if closes => {
                // Both sides have said all: there is nothing to wait for. A peer that
                // is gone does not need the end of our side.
                let _ = poll_fn(|cx| connection.poll_shutdown(cx)).await;
                Err(Ended::default())
            }
            Flushed::Done => Ok(connection),
            Flushed::Lost => Err(Ended::idle(true)),
            Flushed::TimeUp => Err(Ended::idle(false)),
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
