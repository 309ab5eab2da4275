//! A cluster: what all workers share, and what each worker has of its own.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use filter_api::RuntimeSnapshot;
use outrigger_config::ir::{ClusterConfig, RoutingPriority, UpstreamProtocolConfig};
use outrigger_stats::{Histogram, Scope, Slab, Store, Unit};
use outrigger_types::Protocol;
use parking_lot::Mutex;

use super::circuit_breaker::{BreakerGuard, CircuitBreaker, Kind};
use super::code_stats::{CodeStats, Kind as CodeKind, labels};
use super::host::Host;
use super::lb::{Choice, LbContext, LoadBalancer};
use super::pool::{Acquire, Pool};
use super::priority_set::PrioritySet;
use super::stats::{ClusterStats, Http1CodecStats, Http2CodecStats};
use crate::http::codec::{h1, h2};
use crate::http::codec_options;
use crate::network::tls::{ContextNames, ContextStats, TlsStats};
use crate::network::transport_socket::UpstreamSockets;

/// What is the same on all workers for one version of a cluster.
#[derive(Debug)]
pub struct ClusterInfo {
    /// The configuration.
    pub config: Arc<ClusterConfig>,
    /// What carries the connections to its hosts.
    pub sockets: UpstreamSockets,
    /// The stats of its TLS contexts.
    pub tls_names: Vec<ContextNames>,
    /// Its stats, `cluster.<name>.`
    pub scope: Scope,
    default_breaker: Arc<CircuitBreaker>,
    high_breaker: Arc<CircuitBreaker>,
    h1_options: Arc<h1::Options>,
    h2_options: Arc<h2::Options>,
    /// Percentage of requests that are refused for maintenance, from runtime.
    maintenance: AtomicU64,
}

impl ClusterInfo {
    /// The shared part of a configured cluster; its breakers begin empty.
    pub fn new(config: Arc<ClusterConfig>, sockets: UpstreamSockets, store: &Store) -> Arc<Self> {
        let name = config.alt_stat_name.as_ref().unwrap_or(&config.name);
        let scope = store.scope(&format!("cluster.{name}."));
        Arc::new(Self {
            tls_names: sockets.register(&scope),
            scope,
            default_breaker: Arc::new(CircuitBreaker::new(&config.breakers_default)),
            high_breaker: Arc::new(CircuitBreaker::new(&config.breakers_high)),
            h1_options: codec_options::h1_client(&config),
            h2_options: codec_options::h2_client(&config),
            maintenance: AtomicU64::new(0),
            sockets,
            config,
        })
    }

    /// Takes over what runtime says of the cluster: limits of its breakers, and
    /// `upstream.maintenance_mode.<cluster>`.
    pub fn apply_runtime(&self, runtime: &RuntimeSnapshot) {
        let name = self.name();
        for (priority, breaker) in [
            ("default", &self.default_breaker),
            ("high", &self.high_breaker),
        ] {
            breaker.apply_runtime(&format!("circuit_breakers.{name}.{priority}."), runtime);
        }
        let share = runtime.integer(&format!("upstream.maintenance_mode.{name}"), 0);
        self.maintenance.store(share, Ordering::Relaxed);
    }

    /// Whether the next request is refused for maintenance.
    fn in_maintenance(&self) -> bool {
        let share = self.maintenance.load(Ordering::Relaxed);
        share > 0 && rand::random::<u64>() % 100 < share
    }

    /// The cluster's name.
    pub fn name(&self) -> &Arc<str> {
        &self.config.name
    }

    /// The name that access logs and stats show.
    pub fn observability_name(&self) -> &Arc<str> {
        self.config
            .alt_stat_name
            .as_ref()
            .unwrap_or(&self.config.name)
    }

    /// The breakers of a priority.
    pub fn breaker(&self, priority: RoutingPriority) -> &Arc<CircuitBreaker> {
        match priority {
            RoutingPriority::Default => &self.default_breaker,
            RoutingPriority::High => &self.high_breaker,
        }
    }

    /// Streams that one connection may carry at a time, as configured.
    pub fn streams_per_connection(&self) -> u32 {
        self.config.http2.max_concurrent_streams
    }

    /// The protocol to speak for a request that came in `downstream`.
    pub fn protocol(&self, downstream: Protocol) -> Protocol {
        match self.config.protocol {
            UpstreamProtocolConfig::Http1 => Protocol::Http11,
            UpstreamProtocolConfig::Http2 => Protocol::Http2,
            UpstreamProtocolConfig::Downstream => match downstream {
                Protocol::Http2 => Protocol::Http2,
                Protocol::Http10 | Protocol::Http11 => Protocol::Http11,
            },
        }
    }

    /// Options of the HTTP/1 codec.
    pub fn h1_options(&self) -> Arc<h1::Options> {
        self.h1_options.clone()
    }

    /// Options of the HTTP/2 codec.
    pub fn h2_options(&self) -> Arc<h2::Options> {
        self.h2_options.clone()
    }
}

/// What maintenance and `drop_overloads` of the load assignment make of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overload {
    /// It goes on.
    Serve,
    /// The cluster is in maintenance.
    Maintenance,
    /// It is one of the share that is dropped.
    Drop,
    /// Every request is dropped.
    DropAll,
}

/// The host by identity, not by address: a host that was replaced gets new pools.
type PoolKey = (usize, RoutingPriority, Option<Protocol>);

/// A pool with its slot of the breaker.
#[derive(Debug)]
struct Pooled {
    pool: Arc<Pool>,
    _slot: BreakerGuard,
}

/// A cluster on one worker: its stats cells, its balancer and its pools.
#[derive(Debug)]
pub struct WorkerCluster {
    /// The shared part.
    pub info: Arc<ClusterInfo>,
    /// This worker's cells.
    pub stats: Slab<ClusterStats>,
    codes: CodeStats,
    http1: OnceLock<Slab<Http1CodecStats>>,
    http2: OnceLock<Slab<Http2CodecStats>>,
    tls: OnceLock<Arc<TlsStats>>,
    contexts: OnceLock<Slab<ContextStats>>,
    /// `upstream_rq_time`, which as in Envoy is not there before the first response.
    time: OnceLock<Histogram>,
    lb: Mutex<LoadBalancer>,
    pools: Mutex<HashMap<PoolKey, Pooled>>,
}

impl WorkerCluster {
    /// A cluster with its first hosts.
    pub fn new(info: Arc<ClusterInfo>, hosts: Arc<PrioritySet>, seed: u64) -> Arc<Self> {
        let config = &info.config;
        let lb = LoadBalancer::new(config.lb.clone(), config.lb_common.clone(), hosts, seed);
        Arc::new(Self {
            stats: info.scope.slab::<ClusterStats>(),
            codes: CodeStats::new(info.scope.clone(), "upstream_rq"),
            http1: OnceLock::new(),
            http2: OnceLock::new(),
            tls: OnceLock::new(),
            contexts: OnceLock::new(),
            time: OnceLock::new(),
            lb: Mutex::new(lb),
            pools: Mutex::default(),
            info,
        })
    }

    /// The hosts in use.
    pub fn hosts(&self) -> Arc<PrioritySet> {
        self.lb.lock().hosts().clone()
    }

    /// Counts what connections have read and written since the last time.
    pub(super) fn count_bytes(&self, read: u64, written: u64) {
        self.stats
            .add(ClusterStats::upstream_cx_rx_bytes_total, read);
        self.stats
            .add(ClusterStats::upstream_cx_tx_bytes_total, written);
    }

    /// The cells of the HTTP/1 codec, made with the first such connection.
    pub(super) fn http1_stats(&self) -> &Slab<Http1CodecStats> {
        self.http1
            .get_or_init(|| self.info.scope.scope("http1.").slab())
    }

    /// The cells of the HTTP/2 codec, made with the first such connection.
    pub(super) fn http2_stats(&self) -> &Slab<Http2CodecStats> {
        self.http2
            .get_or_init(|| self.info.scope.scope("http2.").slab())
    }

    /// What TLS handshakes count, made with the first of them.
    pub(super) fn tls_stats(&self) -> &Arc<TlsStats> {
        self.tls.get_or_init(|| TlsStats::new(&self.info.scope))
    }

    /// What TLS contexts count, made when there is something to count.
    pub(super) fn context_stats(&self) -> &Slab<ContextStats> {
        let scope = || self.info.scope.scope("client_ssl_socket_factory.");
        self.contexts.get_or_init(|| scope().slab())
    }

    /// Counts the status of a response that goes downstream.
    pub fn charge_code(&self, code: u16, internal: bool) {
        self.stats.inc(ClusterStats::upstream_rq_completed);
        self.codes.charge(code, CodeKind::of_origin(internal));
    }

    /// Counts the status of a response of an upstream that calls itself canary.
    pub fn charge_canary_code(&self, code: u16) {
        self.codes.charge(code, CodeKind::Canary);
    }

    /// Counts the status of a response under another name, below the cluster's.
    pub fn charge_alt_code(&self, name: &str, code: u16, internal: bool) {
        let origin = if internal { "internal." } else { "external." };
        for prefix in ["", origin] {
            for what in labels(code).into_iter().chain(["completed".to_owned()]) {
                let name = format!("{name}.{prefix}upstream_rq_{what}");
                self.info.scope.counter(&name).inc();
            }
        }
    }

    /// Counts the status of a response that is retried.
    pub fn charge_retry_code(&self, code: u16) {
        self.codes.charge(code, CodeKind::Retry);
    }

    /// Records the time from the end of the request to the end of the response.
    pub fn record_time(&self, time: Duration, internal: bool) {
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let scope = &self.info.scope;
        self.time
            .get_or_init(|| scope.histogram("upstream_rq_time", Unit::Milliseconds))
            .record(millis);
        self.codes.record_time(time, internal);
    }

    /// Takes over new hosts; pools of those that are gone are drained.
    pub fn update_hosts(&self, hosts: Arc<PrioritySet>, seed: u64) {
        let close_all = self
            .info
            .config
            .lb_common
            .close_connections_on_host_set_change;
        let kept: HashSet<usize> = if close_all {
            HashSet::new()
        } else {
            hosts.hosts().map(identity).collect()
        };
        self.lb.lock().update(hosts, seed);
        let gone: Vec<Pooled> = {
            let mut pools = self.pools.lock();
            let keys: Vec<PoolKey> = pools
                .keys()
                .filter(|(host, ..)| !kept.contains(host))
                .copied()
                .collect();
            keys.iter().filter_map(|key| pools.remove(key)).collect()
        };
        for gone in gone {
            gone.pool.drain();
        }
    }

    /// Drains every pool: the cluster is gone.
    pub fn drain(&self) {
        let pools = std::mem::take(&mut *self.pools.lock());
        for gone in pools.into_values() {
            gone.pool.drain();
        }
    }

    /// Chooses a host.
    pub fn choose(&self, cx: &LbContext<'_>) -> Choice {
        let choice = self.lb.lock().choose(cx, &mut rand::random);
        if choice.panic {
            self.stats.inc(ClusterStats::lb_healthy_panic);
        }
        if choice.host.is_none() {
            self.stats.inc(ClusterStats::upstream_cx_none_healthy);
        }
        choice
    }

    /// Asks for a stream to a host; without a protocol, for a connection of raw bytes.
    pub fn acquire(
        self: &Arc<Self>,
        host: &Arc<Host>,
        priority: RoutingPriority,
        protocol: Option<Protocol>,
    ) -> Acquire {
        match self.pool(host, priority, protocol) {
            Some(pool) => pool.acquire(self),
            None => {
                self.stats.inc(ClusterStats::upstream_cx_pool_overflow);
                Acquire::NoPool
            }
        }
    }

    /// The pool of a host. With the breaker of pools open a new one takes the place of
    /// one that is not in use; none if all are.
    fn pool(
        self: &Arc<Self>,
        host: &Arc<Host>,
        priority: RoutingPriority,
        protocol: Option<Protocol>,
    ) -> Option<Arc<Pool>> {
        let key = (identity(host), priority, protocol);
        let mut pools = self.pools.lock();
        if let Some(known) = pools.get(&key) {
            return Some(known.pool.clone());
        }
        let breaker = self.info.breaker(priority);
        if breaker.is_open(Kind::Pools)
            && let Some(unused) = pools
                .iter()
                .find(|((_, of, _), known)| *of == priority && known.pool.is_unused())
                .map(|(key, _)| *key)
            && let Some(gone) = pools.remove(&unused)
        {
            gone.pool.drain();
        }
        let slot = breaker.try_acquire(Kind::Pools)?;
        let pool = Pool::new(self, host.clone(), priority, protocol);
        let known = Pooled {
            pool: pool.clone(),
            _slot: slot,
        };
        pools.insert(key, known);
        Some(pool)
    }

    /// What to do with the next request: a share of them may have to be dropped.
    pub fn overload(&self) -> Overload {
        if self.info.in_maintenance() {
            return Overload::Maintenance;
        }
        let hosts = self.hosts();
        let drops = &hosts.drop_overloads;
        if drops.is_empty() {
            Overload::Serve
        } else if drops
            .iter()
            .any(|(_, share)| share.numerator >= share.denominator)
        {
            Overload::DropAll
        } else if drops.iter().any(|(_, share)| share.picks(rand::random())) {
            Overload::Drop
        } else {
            Overload::Serve
        }
    }
}

/// A host's address in memory; its pool keeps the host alive, so that it is not
/// used for another.
fn identity(host: &Arc<Host>) -> usize {
    Arc::as_ptr(host).addr()
}
