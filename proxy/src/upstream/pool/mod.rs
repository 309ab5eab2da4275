//! Connection pools: one for each host, priority and protocol, a worker.
//!
//! A pool hands out a stream at once if a connection has room. Otherwise the
//! request waits, counted by the pending breaker, and a connection is opened if
//! those that are being opened do not suffice. Envoy's rule holds: a pool that
//! has no connection may open one even when the connections breaker is open.

mod connect;
mod dial;
mod idle;
mod secure;
mod stream;

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Instant;

use outrigger_types::{Protocol, ResetReason};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::circuit_breaker::{BreakerGuard, CircuitBreaker, Kind};
use super::cluster::{Wanted, WorkerCluster};
use super::host::Host;
use super::stats::ClusterStats;
use crate::http::codec::{h1, h2};

pub(crate) use dial::socket_keepalive;
pub use stream::{ConnectionMeta, RawStream, UpstreamStream};

/// Why a pool could not give a stream.
#[derive(Clone, Debug)]
pub struct PoolFailure {
    /// Overflow, connection failure or timeout.
    pub reason: ResetReason,
    /// What the transport said, for the local reply and the access log.
    pub transport_failure: Option<Box<str>>,
    /// The host that failed.
    pub host: Arc<Host>,
    /// Whether the request had got as far as a connection, or the attempt to open one:
    /// then it is the host's. One that may not even wait is not.
    pub reached_host: bool,
}

/// A connection with room for a stream.
pub struct Attached {
    connection: AttachedConnection,
    requests: BreakerGuard,
    pool: Arc<Pool>,
}

enum AttachedConnection {
    H1(PooledH1),
    H2(H2Slot),
}

/// An HTTP/1 connection, or one of raw bytes, with what the pool knows of it.
struct PooledH1 {
    connection: Box<h1::ClientConnection>,
    meta: Arc<ConnectionMeta>,
}

/// A place among the streams of an HTTP/2 connection; freed on drop.
struct H2Slot {
    handle: h2::ClientHandle,
    meta: Arc<ConnectionMeta>,
    pool: Arc<Pool>,
}

/// The outcome of asking for a stream.
pub enum Acquire {
    /// At once.
    Ready(Box<Attached>),
    /// When a connection has room.
    Pending(PendingStream),
    /// Never.
    Failed(PoolFailure),
    /// Never: the breaker of pools is open.
    NoPool,
}

/// What the connections of a pool speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Speaks {
    /// Raw bytes: the tunnels of CONNECT, and TCP.
    #[default]
    Raw,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// What the TLS handshake agrees on; HTTP/1.1 where it agrees on nothing.
    Agreed,
}

impl Speaks {
    /// The version of HTTP, where it is known before there is a connection.
    fn protocol(self) -> Option<Protocol> {
        match self {
            Self::Raw | Self::Agreed => None,
            Self::Http1 => Some(Protocol::Http11),
            Self::Http2 => Some(Protocol::Http2),
        }
    }
}

/// Connections to one host.
pub struct Pool {
    cluster: Weak<WorkerCluster>,
    host: Arc<Host>,
    speaks: Speaks,
    /// The server that TLS sessions are made with; none for whom the context names.
    server_name: Option<Arc<str>>,
    /// What TLS offers, if not what the context says.
    alpn: Option<Arc<[Box<[u8]>]>>,
    breaker: Arc<CircuitBreaker>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    idle: Vec<idle::IdleH1>,
    /// Connections of HTTP/2 that take new streams.
    open: Vec<OpenH2>,
    /// Connections being opened, and the streams they will have room for.
    connecting: u32,
    /// HTTP/1 connections that carry a request.
    busy: u32,
    pending: VecDeque<PendingEntry>,
    next_id: u64,
    /// A handshake has agreed on HTTP/2.
    agreed_h2: bool,
    /// The host is gone: give nothing back to the pool.
    draining: bool,
    sweeper: idle::SweeperState,
}

struct OpenH2 {
    handle: h2::ClientHandle,
    meta: Arc<ConnectionMeta>,
}

struct PendingEntry {
    id: u64,
    reply: oneshot::Sender<Result<Box<Attached>, PoolFailure>>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool")
            .field("host", &self.host.address)
            .field("speaks", &self.speaks)
            .finish()
    }
}

impl Pool {
    /// An empty pool.
    pub fn new(cluster: &Arc<WorkerCluster>, host: Arc<Host>, wanted: Wanted<'_>) -> Arc<Self> {
        Arc::new(Self {
            cluster: Arc::downgrade(cluster),
            host,
            speaks: wanted.speaks,
            server_name: wanted.server_name.cloned(),
            alpn: wanted.alpn.cloned(),
            breaker: cluster.info.breaker(wanted.priority).clone(),
            inner: Mutex::default(),
        })
    }

    /// The host.
    pub fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// Asks for a stream.
    pub fn acquire(self: &Arc<Self>, cluster: &Arc<WorkerCluster>) -> Acquire {
        if let Some(connection) = self.take_ready() {
            return match self.breaker.try_acquire(Kind::Requests) {
                Some(requests) => Acquire::Ready(Box::new(Attached {
                    connection,
                    requests,
                    pool: self.clone(),
                })),
                None => {
                    self.put_back(connection);
                    self.overflow(cluster, Kind::Requests)
                }
            };
        }
        let Some(guard) = self.breaker.try_acquire(Kind::Pending) else {
            return self.overflow(cluster, Kind::Pending);
        };
        let (reply, receiver) = oneshot::channel();
        let id = {
            let mut inner = self.inner.lock();
            inner.next_id += 1;
            let id = inner.next_id;
            inner.pending.push_back(PendingEntry { id, reply });
            id
        };
        cluster.stats.inc(ClusterStats::upstream_rq_pending_total);
        cluster
            .stats
            .gauge_inc(ClusterStats::upstream_rq_pending_active);
        self.host.stats.rq_pending.fetch_add(1, Ordering::Relaxed);
        self.open_if_needed(cluster);
        Acquire::Pending(PendingStream {
            receiver,
            id,
            pool: self.clone(),
            cluster: cluster.clone(),
            _guard: guard,
        })
    }

    /// Closes what is idle and gives nothing back any more; streams under way
    /// end in their own time, and who waits still gets a connection.
    pub fn drain(&self) {
        let (idle, open) = {
            let mut inner = self.inner.lock();
            inner.draining = true;
            (
                std::mem::take(&mut inner.idle),
                std::mem::take(&mut inner.open),
            )
        };
        for connection in idle {
            connection.close_locally();
        }
        drop(open);
    }

    /// Whether it neither serves nor opens anything.
    pub(super) fn is_unused(&self) -> bool {
        let inner = self.inner.lock();
        inner.pending.is_empty()
            && inner.connecting + inner.busy == 0
            && inner.open.iter().all(|c| c.meta.active() == 0)
    }

    /// Whether it has no connection either.
    pub(super) fn is_empty(&self) -> bool {
        let inner = self.inner.lock();
        inner.pending.is_empty()
            && inner.connecting + inner.busy == 0
            && inner.open.is_empty()
            && inner.idle.is_empty()
    }

    /// Refuses what the breaker of pending or of active requests does not allow.
    fn overflow(&self, cluster: &WorkerCluster, kind: Kind) -> Acquire {
        let waits = kind == Kind::Pending;
        cluster.stats.inc(if waits {
            ClusterStats::upstream_rq_pending_overflow
        } else {
            ClusterStats::upstream_rq_active_overflow
        });
        Acquire::Failed(PoolFailure {
            reached_host: !waits,
            ..self.failure(ResetReason::Overflow, None)
        })
    }

    fn failure(&self, reason: ResetReason, transport_failure: Option<Box<str>>) -> PoolFailure {
        PoolFailure {
            reason,
            transport_failure,
            host: self.host.clone(),
            reached_host: true,
        }
    }

    /// A connection that has room now.
    fn take_ready(self: &Arc<Self>) -> Option<AttachedConnection> {
        let mut inner = self.inner.lock();
        if matches!(self.speaks, Speaks::Http2 | Speaks::Agreed) {
            if inner.open.iter().any(|c| c.handle.is_draining()) {
                inner.open.retain(|c| !c.handle.is_draining());
            }
            let has_room = |c: &OpenH2| c.meta.active() < c.limit();
            if let Some(at) = inner.open.iter().position(has_room) {
                let slot = self.slot(&mut inner, at);
                return Some(AttachedConnection::H2(slot));
            }
        }
        while let Some(idle) = inner.idle.pop() {
            if let Some(ready) = idle.check() {
                inner.busy += 1;
                return Some(AttachedConnection::H1(ready));
            }
        }
        None
    }

    /// Takes a place on the connection at `at`; one that has used up its
    /// requests takes no more.
    fn slot(self: &Arc<Self>, inner: &mut Inner, at: usize) -> H2Slot {
        let connection = &inner.open[at];
        connection.meta.begin_stream();
        let slot = H2Slot {
            handle: connection.handle.clone(),
            meta: connection.meta.clone(),
            pool: self.clone(),
        };
        if connection.meta.is_used_up() {
            inner.open.swap_remove(at);
        }
        slot
    }

    fn put_back(self: &Arc<Self>, connection: AttachedConnection) {
        match connection {
            AttachedConnection::H1(h1) => self.release_h1(h1),
            AttachedConnection::H2(slot) => drop(slot),
        }
    }

    /// Opens a connection if those being opened will not serve all who wait.
    fn open_if_needed(self: &Arc<Self>, cluster: &Arc<WorkerCluster>) {
        loop {
            let guard = {
                let mut inner = self.inner.lock();
                let many = match self.speaks {
                    Speaks::Http2 => true,
                    Speaks::Agreed => inner.agreed_h2,
                    Speaks::Raw | Speaks::Http1 => false,
                };
                let per_connection = match many {
                    true => cluster.info.streams_per_connection() as usize,
                    false => 1,
                };
                if inner.pending.len() <= inner.connecting as usize * per_connection {
                    return;
                }
                let guard = match self.allowed_connection() {
                    Some(guard) => guard,
                    None => {
                        cluster.stats.inc(ClusterStats::upstream_cx_overflow);
                        if inner.connecting + inner.busy > 0 || !inner.open.is_empty() {
                            return;
                        }
                        self.breaker.acquire(Kind::Connections)
                    }
                };
                inner.connecting += 1;
                guard
            };
            // It counts before it is begun, so that the next one sees it.
            let meta = ConnectionMeta::new(cluster, &self.host, self.speaks.protocol(), guard);
            tokio::spawn(connect::run(self.clone(), cluster.clone(), meta));
        }
    }

    /// A slot for one more connection, within what the host and the cluster allow.
    fn allowed_connection(&self) -> Option<BreakerGuard> {
        let to_host = self.host.stats.cx_active.load(Ordering::Relaxed);
        if to_host >= self.breaker.max_connections_per_host() {
            return None;
        }
        self.breaker.try_acquire(Kind::Connections)
    }

    /// Gives waiting requests the connections that have room, and opens more for those
    /// that are left.
    fn serve_pending(self: &Arc<Self>) {
        loop {
            if self.inner.lock().pending.is_empty() {
                return;
            }
            let Some(connection) = self.take_ready() else {
                if let Some(cluster) = self.cluster.upgrade() {
                    self.open_if_needed(&cluster);
                }
                return;
            };
            let Some(entry) = self.inner.lock().pending.pop_front() else {
                self.put_back(connection);
                return;
            };
            let outcome = match self.breaker.try_acquire(Kind::Requests) {
                Some(requests) => Ok(Box::new(Attached {
                    connection,
                    requests,
                    pool: self.clone(),
                })),
                None => {
                    self.put_back(connection);
                    if let Some(cluster) = self.cluster.upgrade() {
                        cluster.stats.inc(ClusterStats::upstream_rq_active_overflow);
                    }
                    Err(self.failure(ResetReason::Overflow, None))
                }
            };
            // A receiver that is gone drops the stream it would have got, which
            // gives the connection back.
            let _ = entry.reply.send(outcome);
        }
    }

    /// Fails everybody who waits, as Envoy does when a connection being opened
    /// fails.
    fn fail_pending(&self, cluster: &WorkerCluster, reason: ResetReason, why: &str) {
        let waiting = std::mem::take(&mut self.inner.lock().pending);
        for entry in waiting {
            cluster
                .stats
                .inc(ClusterStats::upstream_rq_pending_failure_eject);
            let _ = entry
                .reply
                .send(Err(self.failure(reason, Some(why.into()))));
        }
    }

    /// A request gave up waiting.
    fn cancel(&self, id: u64) {
        let mut inner = self.inner.lock();
        if let Some(at) = inner.pending.iter().position(|e| e.id == id) {
            inner.pending.remove(at);
        }
    }
}

impl OpenH2 {
    /// Streams that the peer and the configuration allow.
    fn limit(&self) -> u32 {
        {
            let peer = u32::try_from(self.handle.max_concurrent_streams()).unwrap_or(u32::MAX);
            self.meta.stream_limit().min(peer)
        }
    }
}

impl Drop for H2Slot {
    fn drop(&mut self) {
        self.meta.end_stream();
        if !self.pool.inner.lock().pending.is_empty() {
            self.pool.serve_pending();
        }
    }
}

impl Attached {
    /// The connection's facts.
    pub fn meta(&self) -> &Arc<ConnectionMeta> {
        match &self.connection {
            AttachedConnection::H1(h1) => &h1.meta,
            AttachedConnection::H2(slot) => &slot.meta,
        }
    }

    /// The host it leads to.
    pub fn host(&self) -> &Arc<Host> {
        &self.pool.host
    }
}

/// A request that waits for a connection. Dropping it gives up.
pub struct PendingStream {
    receiver: oneshot::Receiver<Result<Box<Attached>, PoolFailure>>,
    id: u64,
    pool: Arc<Pool>,
    cluster: Arc<WorkerCluster>,
    _guard: BreakerGuard,
}

impl PendingStream {
    /// Ready when there is a stream, or none can be had.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Box<Attached>, PoolFailure>> {
        Pin::new(&mut self.receiver).poll(cx).map(|outcome| {
            outcome.unwrap_or_else(|_| Err(self.pool.failure(ResetReason::ConnectionFailure, None)))
        })
    }

    /// The host that is being connected to.
    pub fn host(&self) -> &Arc<Host> {
        &self.pool.host
    }
}

impl Drop for PendingStream {
    fn drop(&mut self) {
        self.cluster
            .stats
            .gauge_dec(ClusterStats::upstream_rq_pending_active);
        self.pool
            .host
            .stats
            .rq_pending
            .fetch_sub(1, Ordering::Relaxed);
        self.pool.cancel(self.id);
    }
}

/// Time since `start` in whole milliseconds.
fn millis_since(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)
}
