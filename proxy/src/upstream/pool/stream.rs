//! A stream of an upstream connection, and what is known of the connection.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use outrigger_types::{Address, Protocol, RequestHead, TlsInfo};
use tokio::task::AbortHandle;

use super::{Attached, AttachedConnection, H2Slot, Pool, PooledH1, millis_since};
use crate::http::codec::{ClientStream, StreamError};
use crate::network::exchange::PeerState;
use crate::network::io::Io;
use crate::upstream::circuit_breaker::BreakerGuard;
use crate::upstream::cluster::WorkerCluster;
use crate::upstream::host::Host;
use crate::upstream::stats::{ClusterStats, Http2CodecStats};

/// What is known of an upstream connection. Dropping the last reference counts
/// its end.
pub struct ConnectionMeta {
    /// Unique in the process.
    pub id: u64,
    /// Our end.
    pub local: Option<Address>,
    /// The peer's end.
    pub remote: Address,
    /// What its handshake agreed on; none in plain text.
    pub tls: Option<Arc<TlsInfo>>,
    /// What a network filter leaves with it; none if it has no such filter.
    pub filter_state: Option<PeerState>,
    /// What it speaks; none for raw bytes.
    pub protocol: Option<Protocol>,
    /// When it began to be made.
    pub connect_start: Instant,
    /// When it was made.
    pub opened: Instant,
    active: AtomicU32,
    served: AtomicU64,
    /// It was made, and not only tried.
    established: bool,
    idle_since: parking_lot::Mutex<Instant>,
    closed_by_peer: AtomicBool,
    closed_while_active: AtomicBool,
    /// Its longest life is over.
    expired: AtomicBool,
    /// The task that waits for that, of HTTP/1.
    life_timer: OnceLock<AbortHandle>,
    max_requests: u64,
    stream_limit: u32,
    host: Arc<Host>,
    cluster: Arc<WorkerCluster>,
    _connections: BreakerGuard,
}

impl ConnectionMeta {
    /// A connection that begins to be made. It counts from now on.
    pub(super) fn new(
        cluster: &Arc<WorkerCluster>,
        host: &Arc<Host>,
        protocol: Option<Protocol>,
        connections: BreakerGuard,
    ) -> Self {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        cluster.stats.inc(ClusterStats::upstream_cx_total);
        count_version(cluster, protocol);
        cluster.stats.gauge_inc(ClusterStats::upstream_cx_active);
        host.stats.cx_active.fetch_add(1, Ordering::Relaxed);
        host.stats.cx_total.fetch_add(1, Ordering::Relaxed);
        let max_requests = cluster.info.config.common_http.max_requests_per_connection;
        Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            local: None,
            remote: host.address.clone(),
            tls: None,
            filter_state: None,
            protocol,
            connect_start: Instant::now(),
            opened: Instant::now(),
            active: AtomicU32::new(0),
            served: AtomicU64::new(0),
            established: false,
            idle_since: parking_lot::Mutex::new(Instant::now()),
            closed_by_peer: AtomicBool::new(false),
            closed_while_active: AtomicBool::new(false),
            expired: AtomicBool::new(false),
            life_timer: OnceLock::new(),
            max_requests: max_requests.map_or(u64::MAX, u64::from),
            stream_limit: cluster.info.streams_per_connection(),
            host: host.clone(),
            cluster: cluster.clone(),
            _connections: connections,
        }
    }

    /// The connection is made, between these ends, and speaks this.
    pub(super) fn connected(
        &mut self,
        local: Option<Address>,
        remote: Address,
        tls: Option<Arc<TlsInfo>>,
        protocol: Option<Protocol>,
    ) {
        if self.protocol != protocol {
            self.protocol = protocol;
            count_version(&self.cluster, protocol);
            // As in Envoy it counts again once its version is known.
            self.cluster.stats.inc(ClusterStats::upstream_cx_total);
        }
        self.established = true;
        self.local = local;
        self.remote = remote;
        self.tls = tls;
        self.opened = Instant::now();
        *self.idle_since.get_mut() = self.opened;
    }

    /// Leaves it to a task to note the end of its longest life.
    pub(super) fn watch_life(&self, timer: AbortHandle) {
        let _ = self.life_timer.set(timer);
    }

    /// Its longest life is over: it takes no more requests.
    pub(super) fn expire(&self) {
        self.expired.store(true, Ordering::Relaxed);
        self.cluster
            .stats
            .inc(ClusterStats::upstream_cx_max_duration_reached);
    }

    /// The cluster.
    pub fn cluster(&self) -> &Arc<WorkerCluster> {
        &self.cluster
    }

    /// Streams under way.
    pub fn active(&self) -> u32 {
        self.active.load(Ordering::Relaxed)
    }

    /// Since when there is no stream.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        (self.active() == 0).then(|| *self.idle_since.lock())
    }

    pub(super) fn stream_limit(&self) -> u32 {
        self.stream_limit
    }

    pub(super) fn begin_stream(&self) {
        self.active.fetch_add(1, Ordering::Relaxed);
        let served = self.served.fetch_add(1, Ordering::Relaxed) + 1;
        if served == self.max_requests {
            self.cluster
                .stats
                .inc(ClusterStats::upstream_cx_max_requests);
        }
    }

    /// Counts how many requests it has carried, once it takes no more.
    fn record_requests(&self) {
        let served = self.served.load(Ordering::Relaxed);
        self.cluster
            .stats
            .record(ClusterStats::upstream_rq_per_cx, served);
    }

    pub(super) fn end_stream(&self) {
        *self.idle_since.lock() = Instant::now();
        self.active.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether it has carried as many requests as it may, or lived as long.
    pub(super) fn is_used_up(&self) -> bool {
        self.served.load(Ordering::Relaxed) >= self.max_requests
            || self.expired.load(Ordering::Relaxed)
    }

    /// Notes that its end cuts no request, whose streams were ended before it.
    pub(super) fn note_close_when_unused(&self, by_peer: bool) {
        self.closed_by_peer.store(by_peer, Ordering::Relaxed);
        self.closed_while_active.store(false, Ordering::Relaxed);
    }

    /// Notes who ended it, and whether a request was cut.
    pub(super) fn note_close(&self, by_peer: bool) {
        self.closed_by_peer.store(by_peer, Ordering::Relaxed);
        self.closed_while_active
            .store(self.active() > 0, Ordering::Relaxed);
    }
}

/// Counts a connection for the version of HTTP that it speaks. As in Envoy the names of
/// the codec's stats are there with its first connection, even if that is never made.
fn count_version(cluster: &WorkerCluster, protocol: Option<Protocol>) {
    match protocol {
        Some(Protocol::Http2) => {
            cluster.stats.inc(ClusterStats::upstream_cx_http2_total);
            cluster
                .http2_stats()
                .inc(Http2CodecStats::nghttp2_upstream_connections);
        }
        Some(_) => {
            cluster.stats.inc(ClusterStats::upstream_cx_http1_total);
            cluster.http1_stats();
        }
        None => {}
    }
}

impl Drop for ConnectionMeta {
    fn drop(&mut self) {
        let stats = &self.cluster.stats;
        let by_peer = *self.closed_by_peer.get_mut();
        let active = *self.closed_while_active.get_mut();
        if let Some(timer) = self.life_timer.get() {
            timer.abort();
        }
        if self.established {
            self.record_requests();
        }
        stats.gauge_dec(ClusterStats::upstream_cx_active);
        stats.inc(ClusterStats::upstream_cx_destroy);
        stats.record(
            ClusterStats::upstream_cx_length_ms,
            millis_since(self.opened),
        );
        stats.inc(if by_peer {
            ClusterStats::upstream_cx_destroy_remote
        } else {
            ClusterStats::upstream_cx_destroy_local
        });
        if active {
            stats.inc(ClusterStats::upstream_cx_destroy_with_active_rq);
            stats.inc(if by_peer {
                ClusterStats::upstream_cx_destroy_remote_with_active_rq
            } else {
                ClusterStats::upstream_cx_destroy_local_with_active_rq
            });
        }
        self.host.stats.cx_active.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One request on its way to a host. Dropping it ends the stream: a complete one
/// gives its connection back, another is reset.
pub struct UpstreamStream {
    /// The codec's stream; taken only on drop.
    stream: Option<ClientStream>,
    /// The connection's facts.
    pub meta: Arc<ConnectionMeta>,
    pool: Arc<Pool>,
    by_peer: bool,
    _slot: Option<H2Slot>,
    _active: ActiveRequest,
    _requests: BreakerGuard,
}

impl Attached {
    /// Sends the head of the request.
    ///
    /// # Errors
    /// If the connection ended meanwhile, or refuses the head.
    pub fn start(self, head: RequestHead, end_stream: bool) -> Result<UpstreamStream, StreamError> {
        let meta = self.meta().clone();
        let active = ActiveRequest::begin(&meta);
        let (stream, slot) = match self.connection {
            AttachedConnection::H1(mut h1) => {
                let begun = match meta.protocol {
                    Some(_) => h1.connection.send_head(head, end_stream),
                    None => h1.connection.open_tunnel(end_stream),
                };
                if let Err(error) = begun {
                    self.pool.lose_h1(h1, false);
                    return Err(error);
                }
                (ClientStream::H1(h1.connection), None)
            }
            AttachedConnection::H2(mut slot) => {
                let stream = slot.handle.send_request(head, end_stream)?;
                (ClientStream::H2(Box::new(stream)), Some(slot))
            }
        };
        Ok(UpstreamStream {
            stream: Some(stream),
            meta,
            pool: self.pool,
            by_peer: false,
            _slot: slot,
            _active: active,
            _requests: self.requests,
        })
    }
}

impl UpstreamStream {
    /// The codec's stream.
    pub fn stream(&mut self) -> &mut ClientStream {
        self.stream.as_mut().expect("taken only on drop")
    }

    /// Notes that the peer ended the connection, for its stats.
    pub fn note_closed_by_peer(&mut self) {
        self.by_peer = true;
    }

    /// The host.
    pub fn host(&self) -> &Arc<Host> {
        self.pool.host()
    }
}

impl Drop for UpstreamStream {
    fn drop(&mut self) {
        if let Some(ClientStream::H1(connection)) = self.stream.take() {
            let reusable = connection.is_reusable();
            let h1 = PooledH1 {
                connection,
                meta: self.meta.clone(),
            };
            if reusable {
                self.pool.release_h1(h1);
            } else {
                // A tunnel of which the peer ends its direction is still ours to close.
                let by_peer = match h1.connection.is_connect() {
                    true => h1.connection.is_complete(),
                    false => self.by_peer || h1.connection.is_ended_by_peer(),
                };
                self.pool.lose_h1(h1, by_peer);
            }
        }
    }
}

/// A connection of raw bytes that is taken out of its pool for good. Dropping it closes it.
pub struct RawStream {
    /// The connection.
    pub io: Io,
    /// Its facts.
    pub meta: Arc<ConnectionMeta>,
    pool: Arc<Pool>,
    by_peer: bool,
    _active: ActiveRequest,
    _requests: BreakerGuard,
}

impl Attached {
    /// The connection beneath, of a pool of raw bytes; none of another pool.
    pub fn into_raw(self) -> Option<RawStream> {
        let meta = self.meta().clone();
        let AttachedConnection::H1(h1) = self.connection else {
            return None;
        };
        if meta.protocol.is_some() {
            self.pool.release_h1(h1);
            return None;
        }
        let active = ActiveRequest::begin(&meta);
        Some(RawStream {
            io: h1.connection.into_io(),
            meta,
            pool: self.pool,
            by_peer: false,
            _active: active,
            _requests: self.requests,
        })
    }
}

impl RawStream {
    /// Notes that the peer ended the connection, for its stats.
    pub fn note_closed_by_peer(&mut self) {
        self.by_peer = true;
    }
}

impl Drop for RawStream {
    fn drop(&mut self) {
        self.pool.lose_raw(&self.meta, self.by_peer);
    }
}

/// Counts a request while it is with a host.
struct ActiveRequest {
    meta: Arc<ConnectionMeta>,
}

impl ActiveRequest {
    fn begin(meta: &Arc<ConnectionMeta>) -> Self {
        meta.cluster.stats.inc(ClusterStats::upstream_rq_total);
        meta.cluster
            .stats
            .gauge_inc(ClusterStats::upstream_rq_active);
        meta.host.stats.rq_total.fetch_add(1, Ordering::Relaxed);
        meta.host.stats.rq_active.fetch_add(1, Ordering::Relaxed);
        Self { meta: meta.clone() }
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.meta
            .cluster
            .stats
            .gauge_dec(ClusterStats::upstream_rq_active);
        self.meta
            .host
            .stats
            .rq_active
            .fetch_sub(1, Ordering::Relaxed);
    }
}
