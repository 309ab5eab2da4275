//! Opening a connection, and what runs as long as it is open.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use outrigger_types::{Protocol, ResetReason, TlsInfo};
use tokio::time::{Instant as TimerInstant, sleep_until};

use super::{ConnectionMeta, OpenH2, Pool, PooledH1, Speaks, millis_since, secure};
use crate::http::codec::{h1, h2};
use crate::http::codec_stats::CodecStats;
use crate::network::io::Io;
use crate::upstream::cluster::{ClusterInfo, WorkerCluster};
use crate::upstream::stats::{ClusterStats, Http2CodecStats};

/// Opens a connection for a pool and, for HTTP/2, drives it to its end.
pub(super) async fn run(pool: Arc<Pool>, cluster: Arc<WorkerCluster>, mut meta: ConnectionMeta) {
    let dialled = tokio::time::timeout(
        cluster.info.config.connect_timeout,
        secure::connect(&pool, &cluster),
    );
    match dialled.await {
        Ok(Ok(secure::Connected {
            mut io,
            remote,
            tls,
            peer,
        })) => {
            io.report_to(cluster.clone());
            cluster.stats.record(
                ClusterStats::upstream_cx_connect_ms,
                millis_since(meta.connect_start),
            );
            let protocol = match pool.speaks {
                Speaks::Agreed => Some(agreed(tls.as_deref())),
                known => known.protocol(),
            };
            meta.connected(io.local_address().ok(), remote, tls, protocol);
            meta.filter_state = peer;
            let meta = Arc::new(meta);
            match protocol {
                Some(Protocol::Http2) => drive_h2(&pool, &cluster, io, meta).await,
                None | Some(Protocol::Http10 | Protocol::Http11) => {
                    offer_h1(&pool, &cluster, io, meta);
                }
            }
        }
        Ok(Err(secure::Failure { reset, why })) => {
            meta.note_close(reset == ResetReason::ConnectionFailure);
            drop(meta);
            fail(&pool, &cluster, reset, &why);
        }
        Err(_elapsed) => {
            cluster.stats.inc(ClusterStats::upstream_cx_connect_timeout);
            meta.note_close(false);
            drop(meta);
            fail(&pool, &cluster, ResetReason::ConnectionTimeout, "");
        }
    }
}

/// The version that the handshake agreed on.
fn agreed(tls: Option<&TlsInfo>) -> Protocol {
    match tls.map(|tls| &*tls.alpn) {
        Some(b"h2") => Protocol::Http2,
        _ => Protocol::Http11,
    }
}

fn fail(pool: &Arc<Pool>, cluster: &WorkerCluster, reason: ResetReason, why: &str) {
    cluster.stats.inc(ClusterStats::upstream_cx_connect_fail);
    pool.host
        .stats
        .cx_connect_fail
        .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    pool.inner.lock().connecting -= 1;
    pool.fail_pending(cluster, reason, why);
}

fn offer_h1(pool: &Arc<Pool>, cluster: &Arc<WorkerCluster>, io: Io, meta: Arc<ConnectionMeta>) {
    let connection = h1::ClientConnection::new(io, cluster.info.h1_options());
    if let Some(life) = cluster.info.config.common_http.max_connection_duration {
        let ends = TimerInstant::from_std(meta.opened + life);
        let timer = tokio::spawn(end_life(Arc::downgrade(pool), Arc::downgrade(&meta), ends));
        meta.watch_life(timer.abort_handle());
    }
    pool.inner.lock().connecting -= 1;
    pool.store_idle(PooledH1 {
        connection: Box::new(connection),
        meta,
    });
    pool.serve_pending();
}

/// Takes an HTTP/1 connection out of use when its longest life is over: at once if it is
/// idle, else with its request.
async fn end_life(pool: Weak<Pool>, meta: Weak<ConnectionMeta>, ends: TimerInstant) {
    sleep_until(ends).await;
    if let (Some(pool), Some(meta)) = (pool.upgrade(), meta.upgrade()) {
        meta.expire();
        pool.close_idle(&meta);
    }
}

async fn drive_h2(
    pool: &Arc<Pool>,
    cluster: &Arc<WorkerCluster>,
    io: Io,
    meta: Arc<ConnectionMeta>,
) {
    let stats = CodecStats::from(cluster.http2_stats());
    let handshake = h2::ClientConnection::handshake(io, cluster.info.h2_options(), stats);
    let (mut driver, handle) = match handshake.await {
        Ok(parts) => parts,
        Err(error) => {
            meta.note_close(true);
            drop(meta);
            return fail(
                pool,
                cluster,
                ResetReason::ConnectionFailure,
                error.details(),
            );
        }
    };
    pool.offer_h2(handle, &meta);
    let mut limits = Limits::new(&cluster.info, &meta);
    loop {
        tokio::select! {
            end = &mut driver => {
                note_end(pool, cluster, &meta, &end, driver.is_draining());
                break;
            }
            () = limits.wait() => {
                if let Some(stat) = limits.check(&meta) {
                    cluster.stats.inc(stat);
                    pool.stop_using(&meta);
                }
            }
        }
    }
    pool.stop_using(&meta);
    pool.serve_pending();
}

/// Counts the end of an HTTP/2 connection. One that the peer's GOAWAY let run out, or
/// that broke the protocol, is closed from our side when its streams have ended, as in
/// Envoy.
fn note_end(
    pool: &Pool,
    cluster: &WorkerCluster,
    meta: &Arc<ConnectionMeta>,
    end: &Result<(), h2::ConnError>,
    draining: bool,
) {
    use h2::ConnError::{Fault, GoAway, KeepaliveTimeout, Lost, Protocol};
    if draining {
        cluster.stats.inc(ClusterStats::upstream_cx_close_notify);
    }
    match end {
        Err(Protocol { .. } | Fault(_)) => {
            cluster.stats.inc(ClusterStats::upstream_cx_protocol_error);
            meta.note_close_when_unused(false);
        }
        Err(GoAway { .. }) => meta.note_close_when_unused(false),
        Ok(()) if draining => meta.note_close_when_unused(false),
        Ok(()) => meta.note_close(pool.is_open(meta)),
        Err(Lost) => meta.note_close(true),
        Err(KeepaliveTimeout) => {
            cluster
                .http2_stats()
                .inc(Http2CodecStats::keepalive_timeout);
            meta.note_close(false);
        }
    }
}

impl Pool {
    /// Whether an HTTP/2 connection is still in use: then it was not this side
    /// that ended it.
    fn is_open(&self, meta: &Arc<ConnectionMeta>) -> bool {
        self.inner
            .lock()
            .open
            .iter()
            .any(|c| Arc::ptr_eq(&c.meta, meta))
    }

    /// Gives a new HTTP/2 connection to those who wait. A pool that drains keeps it for nobody
    /// else.
    fn offer_h2(self: &Arc<Self>, handle: h2::ClientHandle, meta: &Arc<ConnectionMeta>) {
        let draining = {
            let mut inner = self.inner.lock();
            inner.connecting -= 1;
            inner.agreed_h2 = true;
            inner.open.push(OpenH2 {
                handle,
                meta: meta.clone(),
            });
            inner.draining
        };
        self.serve_pending();
        if draining {
            self.stop_using(meta);
        }
    }

    /// Takes an HTTP/2 connection out of use. With its last handle gone the
    /// codec closes it once its streams have ended.
    fn stop_using(&self, meta: &Arc<ConnectionMeta>) {
        let gone = {
            let mut inner = self.inner.lock();
            let at = inner.open.iter().position(|c| Arc::ptr_eq(&c.meta, meta));
            at.map(|at| inner.open.swap_remove(at))
        };
        drop(gone);
    }
}

/// The idle timeout and the longest life of a connection, on one timer that is
/// not touched by requests.
struct Limits {
    idle: Option<Duration>,
    end: Option<Instant>,
    next: Option<Instant>,
}

impl Limits {
    fn new(info: &ClusterInfo, meta: &ConnectionMeta) -> Self {
        let common = &info.config.common_http;
        let end = common.max_connection_duration.map(|d| meta.opened + d);
        let mut limits = Self {
            idle: common.idle_timeout,
            end,
            next: None,
        };
        limits.arm(meta.opened);
        limits
    }

    fn arm(&mut self, idle_since: Instant) {
        let idle_end = self.idle.map(|t| idle_since + t);
        self.next = [idle_end, self.end].into_iter().flatten().min();
    }

    async fn wait(&self) {
        match self.next {
            Some(at) => sleep_until(TimerInstant::from_std(at)).await,
            None => std::future::pending().await,
        }
    }

    /// The stat of the limit that was reached, if one was; else waits on.
    fn check(&mut self, meta: &ConnectionMeta) -> Option<outrigger_stats::CounterId<ClusterStats>> {
        let now = Instant::now();
        if self.end.is_some_and(|end| end <= now) {
            self.end = None;
            self.idle = None;
            self.next = None;
            return Some(ClusterStats::upstream_cx_max_duration_reached);
        }
        match (self.idle, meta.idle_since()) {
            (Some(timeout), Some(since)) if since + timeout <= now => {
                self.next = None;
                Some(ClusterStats::upstream_cx_idle_timeout)
            }
            (_, since) => {
                self.arm(since.unwrap_or(now));
                None
            }
        }
    }
}
