//! A cluster: what all workers share, and what each worker has of its own.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use filter_api::RuntimeSnapshot;
use outrigger_config::ir::{ClusterConfig, RoutingPriority, UpstreamProtocolConfig};
use outrigger_stats::{Histogram, Scope, Slab, Store, Unit};
use outrigger_types::{Protocol, RequestHead, StreamInfo};
use parking_lot::Mutex;

use super::circuit_breaker::{BreakerGuard, CircuitBreaker, Kind};
use super::code_stats::{CodeStats, Kind as CodeKind, labels};
use super::host::Host;
use super::lb::{Choice, LbContext, LoadBalancer};
use super::original_dst::Destinations;
use super::pool::{Acquire, Pool, Speaks};
use super::priority_set::PrioritySet;
use super::stats::{BudgetStats, ClusterStats, Http1CodecStats, Http2CodecStats, SizeStats};
use crate::http::codec::{h1, h2};
use crate::http::codec_options;
use crate::network::exchange::Exchange;
use crate::network::io::ByteSink;
use crate::network::tls::{ContextNames, ContextStats, TlsStats};
use crate::network::transport_socket::UpstreamSockets;
use crate::router::matcher::without_port;

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
    /// The hosts that it makes itself, if it is of that kind.
    pub destinations: Option<Destinations>,
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
            destinations: Destinations::new(&config, &scope),
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

    /// Where a stream is for; only known of a cluster that makes its hosts itself.
    pub fn destination(
        &self,
        stream: &StreamInfo,
        request: Option<&RequestHead>,
    ) -> Option<SocketAddr> {
        self.destinations.as_ref()?.of(stream, request)
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

    /// What to speak for a request that came in `downstream`.
    pub fn speaks(&self, downstream: Protocol) -> Speaks {
        match self.config.protocol {
            UpstreamProtocolConfig::Http1 => Speaks::Http1,
            UpstreamProtocolConfig::Http2 => Speaks::Http2,
            UpstreamProtocolConfig::Auto => Speaks::Agreed,
            UpstreamProtocolConfig::Downstream => match downstream {
                Protocol::Http2 => Speaks::Http2,
                Protocol::Http10 | Protocol::Http11 => Speaks::Http1,
            },
        }
    }

    /// The server name that connections for a request ask for, if requests choose it: the
    /// host that the request is for, without its port.
    pub fn server_name(&self, request: &RequestHead) -> Option<Arc<str>> {
        let auto = self.config.auto_sni.as_ref()?;
        if !self.sockets.have_tls() {
            return None;
        }
        let header = auto.header.as_ref();
        let named = header.and_then(|header| request.headers.get_bytes(header));
        let host = without_port(named.unwrap_or(request.authority_bytes()));
        let host = host.strip_prefix(b"[").unwrap_or(host);
        let host = host.strip_suffix(b"]").unwrap_or(host);
        let host = std::str::from_utf8(host).ok().filter(|h| !h.is_empty())?;
        // An address is not asked for; it may have to be in the certificate all the same.
        let is_name = host.parse::<IpAddr>().is_err();
        (is_name || auto.validates).then(|| host.to_ascii_lowercase().into())
    }

    /// Whether a host's certificate must be for the name that the request chose.
    pub(super) fn validates_name(&self) -> bool {
        self.config
            .auto_sni
            .as_ref()
            .is_some_and(|auto| auto.validates)
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

/// What a connection must have for a request to use it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted<'a> {
    /// Whose circuit breakers count it.
    pub priority: RoutingPriority,
    /// What it speaks.
    pub speaks: Speaks,
    /// The server that its TLS session was made with; none for whom the context names.
    pub server_name: Option<&'a Arc<str>>,
    /// Protocols that TLS offers in place of those that the context names.
    pub alpn: Option<&'a Arc<[Box<[u8]>]>>,
}

/// What the connections of a pool have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct PoolKey {
    /// The host by identity, not by address: one that was replaced gets new pools.
    host: usize,
    priority: RoutingPriority,
    speaks: Speaks,
    server_name: Option<Arc<str>>,
    alpn: Option<Arc<[Box<[u8]>]>>,
}

/// The pools of a cluster.
#[derive(Debug, Default)]
struct Pools {
    by_key: HashMap<PoolKey, Pooled>,
    /// With so many of them those without a connection are dropped: requests choose the
    /// server names, and could make up any number.
    sweep_at: usize,
}

impl Pools {
    /// At most as many without a connection as there are with one, and some.
    fn sweep(&mut self) {
        const FEW: usize = 64;
        if self.by_key.len() >= self.sweep_at.max(FEW) {
            self.by_key
                .retain(|key, known| key.server_name.is_none() || !known.pool.is_empty());
            self.sweep_at = 2 * self.by_key.len();
        }
    }
}

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
    /// Kept only where the configuration asks for them.
    pub sizes: Option<Slab<SizeStats>>,
    /// Kept only where the configuration asks for them.
    pub budgets: Option<Slab<BudgetStats>>,
    codes: CodeStats,
    http1: OnceLock<Slab<Http1CodecStats>>,
    http2: OnceLock<Slab<Http2CodecStats>>,
    tls: OnceLock<Arc<TlsStats>>,
    contexts: OnceLock<Slab<ContextStats>>,
    exchange: OnceLock<Arc<Exchange>>,
    /// `upstream_rq_time`, which as in Envoy is not there before the first response.
    time: OnceLock<Histogram>,
    lb: Mutex<LoadBalancer>,
    pools: Mutex<Pools>,
}

/// Counts what its connections carry.
impl ByteSink for WorkerCluster {
    fn count_bytes(&self, read: u64, written: u64) {
        let stats = &self.stats;
        stats.add(ClusterStats::upstream_cx_rx_bytes_total, read);
        stats.add(ClusterStats::upstream_cx_tx_bytes_total, written);
    }

    fn count_unread(&self, change: i64) {
        self.stats
            .gauge_add(ClusterStats::upstream_cx_rx_bytes_buffered, change);
    }

    fn count_unwritten(&self, change: i64) {
        self.stats
            .gauge_add(ClusterStats::upstream_cx_tx_bytes_buffered, change);
    }
}

impl WorkerCluster {
    /// A cluster with its first hosts.
    pub fn new(info: Arc<ClusterInfo>, hosts: Arc<PrioritySet>, seed: u64) -> Arc<Self> {
        let config = &info.config;
        let lb = LoadBalancer::new(config.lb.clone(), config.lb_common.clone(), hosts, seed);
        Arc::new(Self {
            stats: info.scope.slab::<ClusterStats>(),
            sizes: config.tracked.sizes.then(|| info.scope.slab()),
            budgets: config.tracked.timeout_budgets.then(|| info.scope.slab()),
            codes: CodeStats::new(info.scope.clone(), "upstream_rq"),
            http1: OnceLock::new(),
            http2: OnceLock::new(),
            tls: OnceLock::new(),
            contexts: OnceLock::new(),
            exchange: OnceLock::new(),
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

    /// What the ends of its connections tell each other; made with the first of them.
    pub(super) fn exchange(&self) -> Option<&Arc<Exchange>> {
        let config = self.info.config.exchange.as_ref()?;
        let made = || Exchange::new(config, self.info.scope.store());
        Some(self.exchange.get_or_init(made))
    }

    /// What TLS contexts count, made when there is something to count.
    pub(super) fn context_stats(&self) -> &Slab<ContextStats> {
        let scope = || self.info.scope.scope("client_ssl_socket_factory.");
        self.contexts.get_or_init(|| scope().slab())
    }

    /// Counts the status of a response that goes downstream; `suppressed` only by origin.
    pub fn charge_code(&self, code: u16, internal: bool, suppressed: bool) {
        self.stats.inc(ClusterStats::upstream_rq_completed);
        self.codes
            .charge(code, CodeKind::of_origin(internal, suppressed));
    }

    /// Counts the status of a response of an upstream that calls itself canary.
    pub fn charge_canary_code(&self, code: u16) {
        self.codes.charge(code, CodeKind::Canary);
    }

    /// Counts the status of a response under another name, below the cluster's.
    pub fn charge_alt_code(&self, name: &str, code: u16, internal: bool, suppressed: bool) {
        let origin = if internal { "internal." } else { "external." };
        for (prefix, only_completed) in [("", suppressed), (origin, false)] {
            let codes = labels(code).into_iter().filter(|_| !only_completed);
            for what in codes.chain(["completed".to_owned()]) {
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
        } else if let Some(destinations) = &self.info.destinations {
            // Workers make hosts meanwhile, which are in nothing that is sent.
            destinations.hosts().iter().map(identity).collect()
        } else {
            hosts.hosts().map(identity).collect()
        };
        self.lb.lock().update(hosts, seed);
        let gone: Vec<Pooled> = {
            let mut pools = self.pools.lock();
            let gone = pools.by_key.extract_if(|key, _| !kept.contains(&key.host));
            gone.map(|(_, known)| known).collect()
        };
        for gone in gone {
            gone.pool.drain();
        }
    }

    /// Drains every pool: the cluster is gone.
    pub fn drain(&self) {
        let pools = std::mem::take(&mut *self.pools.lock());
        for gone in pools.by_key.into_values() {
            gone.pool.drain();
        }
    }

    /// Chooses a host.
    pub fn choose(&self, cx: &LbContext<'_>) -> Choice {
        let choice = match &self.info.destinations {
            Some(destinations) => Choice {
                host: cx.destination.and_then(|to| destinations.host(to)),
                panic: false,
            },
            None => self.lb.lock().choose(cx, &mut rand::random),
        };
        if choice.panic {
            self.stats.inc(ClusterStats::lb_healthy_panic);
        }
        if choice.host.is_none() {
            self.stats.inc(ClusterStats::upstream_cx_none_healthy);
        }
        choice
    }

    /// Asks for a stream to a host.
    pub fn acquire(self: &Arc<Self>, host: &Arc<Host>, wanted: Wanted<'_>) -> Acquire {
        match self.pool(host, wanted) {
            Some(pool) => pool.acquire(self),
            None => {
                self.stats.inc(ClusterStats::upstream_cx_pool_overflow);
                Acquire::NoPool
            }
        }
    }

    /// The pool of a host. With the breaker of pools open a new one takes the place of
    /// one that is not in use; none if all are.
    fn pool(self: &Arc<Self>, host: &Arc<Host>, wanted: Wanted<'_>) -> Option<Arc<Pool>> {
        let key = PoolKey {
            host: identity(host),
            priority: wanted.priority,
            speaks: wanted.speaks,
            server_name: wanted.server_name.cloned(),
            alpn: wanted.alpn.cloned(),
        };
        let mut pools = self.pools.lock();
        if let Some(known) = pools.by_key.get(&key) {
            return Some(known.pool.clone());
        }
        let breaker = self.info.breaker(key.priority);
        let of_priority = |(of, known): &(&PoolKey, &Pooled)| {
            of.priority == key.priority && known.pool.is_unused()
        };
        if breaker.is_open(Kind::Pools)
            && let Some((unused, _)) = pools.by_key.iter().find(of_priority)
            && let unused = unused.clone()
            && let Some(gone) = pools.by_key.remove(&unused)
        {
            gone.pool.drain();
        }
        let slot = breaker.try_acquire(Kind::Pools)?;
        let pool = Pool::new(self, host.clone(), wanted);
        let known = Pooled {
            pool: pool.clone(),
            _slot: slot,
        };
        if key.server_name.is_some() {
            pools.sweep();
        }
        pools.by_key.insert(key, known);
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
