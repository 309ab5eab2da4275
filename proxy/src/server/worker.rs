//! Workers: one OS thread each, with its own runtime, sockets and pools.
//!
//! Main posts an [`Update`] to each worker's channel; the worker applies it in
//! one synchronous step, so that a request sees one consistent configuration.

use std::collections::HashMap;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use filter_api::{CallError, CallFuture, CallResponse, ClusterFacts, RuntimeSnapshot, Services};
use outrigger_config::ir::UpstreamProtocolConfig;
use outrigger_stats::{Scope, Slab, Store};
use outrigger_types::{Buffer, Protocol, RequestHead, ResponseHead};
use parking_lot::{Mutex, RwLock};
use tokio::sync::mpsc;

use crate::access_log::AccessLogManager;
use crate::http::codec::{BodyEvent, HeadEvent};
use crate::http::conn_manager::Hcm;
use crate::http::conn_manager::request::Caller;
use crate::listener::worker::{Door, WorkerListener};
use crate::listener::{DrainPolicy, ListenerIndex, ListenerSockets, ListenerSpec};
use crate::router::matcher::{RouteMatch, RouteTable};
use crate::router::request_stats::{self, Counted, RequestCounters};
use crate::upstream::cluster::{ClusterInfo, Wanted, WorkerCluster};
use crate::upstream::lb::LbContext;
use crate::upstream::pool::{Acquire, UpstreamStream};
use crate::upstream::priority_set::PrioritySet;
use crate::upstream::stats::{Http1CodecStats, Http2CodecStats};

/// Most bytes of the answer to a filter's call.
const CALL_LIMIT: usize = 1 << 20;

/// What stats call the main thread.
const MAIN_THREAD: &str = "main_thread";

outrigger_stats::stat_set! {
    /// What calls of the proxy itself count on one thread (`http.async-client.`):
    /// Envoy's client has a router of its own.
    pub struct AsyncClientStats {
        counters {
            no_cluster,
            no_route,
            passthrough_internal_redirect_bad_location,
            passthrough_internal_redirect_no_route,
            passthrough_internal_redirect_predicate,
            passthrough_internal_redirect_too_many_redirects,
            passthrough_internal_redirect_unsafe_scheme,
            rq_direct_response,
            rq_overload_local_reply,
            rq_redirect,
            rq_reset_after_downstream_response_started,
            rq_total,
        }
    }
}

outrigger_stats::stat_set! {
    /// `thread_local_cluster_manager.<thread>.`
    pub struct ThreadClusterStats {
        gauges {
            /// Clusters that the thread has.
            clusters_inflated,
        }
    }
}

/// One change of the configuration.
#[derive(Clone)]
pub enum Change {
    /// A cluster was added, or changed so that it is another.
    Cluster(Arc<ClusterInfo>, Arc<PrioritySet>),
    /// A cluster is gone.
    RemoveCluster(Arc<str>),
    /// A cluster has other hosts.
    Hosts(Arc<str>, Arc<PrioritySet>),
    /// A route configuration was added or changed.
    Routes(Arc<str>, Arc<RouteTable>),
    /// A route configuration is gone.
    RemoveRoutes(Arc<str>),
    /// A listener was added, or takes the place of one whose connections drain.
    Listener(Arc<ListenerSpec>, Arc<ListenerSockets>),
    /// A listener has other filter chains.
    FilterChains(Arc<ListenerSpec>),
    /// A listener is gone; its connections drain.
    RemoveListener(Arc<str>),
    /// A listener asks its connections to end, by and by.
    DrainListener(Arc<str>),
    /// A listener ends its connections as soon as they are idle.
    EndListener(Arc<str>),
    /// A listener accepts no more.
    StopListener(Arc<str>),
    /// The runtime has other values.
    Runtime(Arc<RuntimeSnapshot>),
    /// The process fails its health check on purpose, or does so no more.
    HealthFailed(bool),
}

/// Changes that belong together.
pub type Update = Arc<Vec<Change>>;

/// What the bootstrap says to the streams of all workers.
#[derive(Clone, Debug, Default)]
pub struct OfBootstrap {
    /// Most downstream connections of the process; none for any number.
    pub max_connections: Option<u64>,
    /// Who calls, for those that ask.
    pub caller: Caller,
}

/// What the streams of one worker share.
pub struct Worker {
    /// Index, from 0.
    pub index: usize,
    /// Whether this is the main thread's own.
    main: bool,
    /// Where stats are registered.
    pub store: Store,
    /// Where access logs are written.
    pub access_logs: Arc<AccessLogManager>,
    /// How what was removed drains.
    pub drain: DrainPolicy,
    health_failed: AtomicBool,
    /// What the HTTP/1 codecs towards downstream count (`http1.`).
    pub http1: Slab<Http1CodecStats>,
    /// What the HTTP/2 codecs towards downstream count (`http2.`), once there is
    /// one.
    http2: OnceLock<Slab<Http2CodecStats>>,
    /// Who calls, for those that ask.
    pub caller: Caller,
    /// Most downstream connections of the process; none for any number.
    pub max_connections: Option<u64>,
    /// What calls of the proxy itself count (`http.async-client.`).
    async_client: Slab<AsyncClientStats>,
    cluster_stats: Slab<ThreadClusterStats>,
    clusters: RwLock<HashMap<Arc<str>, Arc<WorkerCluster>>>,
    routes: RwLock<HashMap<Arc<str>, Arc<RouteTable>>>,
    listeners: Mutex<HashMap<Arc<str>, WorkerListener>>,
    listener_index: ListenerIndex,
    /// What serves connections that drain: it still takes other routes.
    draining: Mutex<Vec<Weak<Hcm>>>,
    runtime: ArcSwap<RuntimeSnapshot>,
    /// Counters of virtual clusters and routes, by the name below which they are.
    request_counters: Mutex<HashMap<Arc<str>, Arc<RequestCounters>>>,
}

impl Worker {
    /// A worker without configuration.
    pub fn new(
        index: usize,
        store: Store,
        access_logs: Arc<AccessLogManager>,
        drain: DrainPolicy,
        bootstrap: OfBootstrap,
    ) -> Arc<Self> {
        let name = format!("worker_{index}");
        Self::make(index, &name, store, access_logs, drain, bootstrap)
    }

    /// The main thread's own, which has the index after that of the last worker: it
    /// makes the proxy's own calls, and serves the admin endpoint.
    pub fn for_main(
        index: usize,
        store: Store,
        access_logs: Arc<AccessLogManager>,
        drain: DrainPolicy,
    ) -> Arc<Self> {
        let bootstrap = OfBootstrap::default();
        Self::make(index, MAIN_THREAD, store, access_logs, drain, bootstrap)
    }

    fn make(
        index: usize,
        name: &str,
        store: Store,
        access_logs: Arc<AccessLogManager>,
        drain: DrainPolicy,
        bootstrap: OfBootstrap,
    ) -> Arc<Self> {
        let prefix = format!("thread_local_cluster_manager.{name}.");
        Arc::new(Self {
            index,
            main: name == MAIN_THREAD,
            async_client: store.scope("http.async-client.").slab(),
            cluster_stats: store.scope(&prefix).slab(),
            http1: store.scope("http1.").slab(),
            store,
            access_logs,
            drain,
            health_failed: AtomicBool::new(false),
            http2: OnceLock::new(),
            max_connections: bootstrap.max_connections,
            caller: bootstrap.caller,
            clusters: RwLock::default(),
            routes: RwLock::default(),
            listeners: Mutex::default(),
            listener_index: ListenerIndex::default(),
            draining: Mutex::default(),
            runtime: ArcSwap::default(),
            request_counters: Mutex::default(),
        })
    }

    /// Whether this is the main thread's own.
    pub fn is_main(&self) -> bool {
        self.main
    }

    /// What stats call this thread.
    pub fn name(&self) -> String {
        if self.main {
            MAIN_THREAD.to_owned()
        } else {
            format!("worker_{}", self.index)
        }
    }

    /// The cluster for a call of the proxy itself, which is counted.
    pub fn cluster_for_call(&self, name: &str) -> Option<Arc<WorkerCluster>> {
        let cluster = self.cluster(name);
        self.async_client.inc(match &cluster {
            Some(_) => AsyncClientStats::rq_total,
            None => AsyncClientStats::no_cluster,
        });
        cluster
    }

    /// Applies updates until the channel closes.
    pub async fn run(self: Arc<Self>, mut updates: mpsc::UnboundedReceiver<Update>) {
        while let Some(update) = updates.recv().await {
            for change in update.iter() {
                self.apply(change);
            }
            self.forget_request_counters();
        }
    }

    /// What the HTTP/2 codecs towards downstream count.
    pub fn http2_stats(&self) -> &Slab<Http2CodecStats> {
        self.http2.get_or_init(|| self.store.scope("http2.").slab())
    }

    /// Whether runtime lets the next retry be made (`upstream.use_retry`, a percentage).
    pub fn retries_enabled(&self) -> bool {
        let share = self.runtime.load().integer("upstream.use_retry", 100);
        share >= 100 || rand::random::<u64>() % 100 < share
    }

    /// Where a request is counted beside its cluster.
    pub fn request_counters(&self, matched: &RouteMatch, head: &RequestHead) -> Counted {
        let counters = |scope: &Arc<str>| {
            let mut known = self.request_counters.lock();
            let made = known
                .entry(scope.clone())
                .or_insert_with(|| Arc::new(RequestCounters::new(&self.store, scope)));
            made.clone()
        };
        request_stats::scopes(matched, head).map(counters).collect()
    }

    /// Drops the counters that no request is being counted in: those that routes still
    /// name are made again with the next one, and what they counted is kept.
    fn forget_request_counters(&self) {
        let mut known = self.request_counters.lock();
        known.retain(|_, counters| Arc::strong_count(counters) > 1);
    }

    /// A cluster by name.
    pub fn cluster(&self, name: &str) -> Option<Arc<WorkerCluster>> {
        self.clusters.read().get(name).cloned()
    }

    /// A route configuration that RDS sent.
    pub fn route_table(&self, name: &str) -> Option<Arc<RouteTable>> {
        self.routes.read().get(name).cloned()
    }

    /// The listener that redirected connections to an address are for.
    pub(crate) fn listener_at(&self, address: SocketAddr) -> Option<Door> {
        self.listener_index.find(address)
    }

    /// Whether the process fails its health check on purpose.
    pub fn health_failed(&self) -> bool {
        self.health_failed.load(Ordering::Relaxed)
    }

    /// Applies one change.
    pub fn apply(self: &Arc<Self>, change: &Change) {
        match change {
            Change::Cluster(info, hosts) => self.set_cluster(info, hosts),
            Change::RemoveCluster(name) => {
                let gone = self.clusters.write().remove(name);
                if let Some(gone) = gone {
                    gone.drain();
                }
                self.show_clusters(self.clusters.read().len());
            }
            Change::Hosts(name, hosts) => {
                if let Some(cluster) = self.cluster(name) {
                    cluster.update_hosts(hosts.clone(), rand::random());
                }
            }
            Change::Routes(name, table) => {
                self.routes.write().insert(name.clone(), table.clone());
                self.publish_routes(name, Some(table));
            }
            Change::RemoveRoutes(name) => {
                self.routes.write().remove(name);
                self.publish_routes(name, None);
            }
            Change::Listener(spec, sockets) => self.set_listener(spec, sockets),
            Change::FilterChains(spec) => {
                if let Some(listener) = self.listeners.lock().get(&spec.config.name) {
                    listener.update(self, spec);
                }
            }
            Change::RemoveListener(name) => {
                let gone = self.listeners.lock().remove(name);
                if let Some(gone) = gone {
                    self.listener_index.remove(&gone);
                    gone.remove(self);
                }
            }
            Change::DrainListener(name) => {
                if let Some(listener) = self.listeners.lock().get(name) {
                    listener.start_drain();
                }
            }
            Change::EndListener(name) => {
                if let Some(listener) = self.listeners.lock().get(name) {
                    listener.end_idle();
                }
            }
            Change::StopListener(name) => {
                if let Some(listener) = self.listeners.lock().get(name) {
                    listener.stop_accepting();
                }
            }
            Change::HealthFailed(failed) => self.health_failed.store(*failed, Ordering::Relaxed),
            Change::Runtime(runtime) => self.set_runtime(runtime),
        }
    }

    fn set_runtime(&self, runtime: &Arc<RuntimeSnapshot>) {
        self.runtime.store(runtime.clone());
        for cluster in self.clusters.read().values() {
            cluster.info.apply_runtime(runtime);
        }
    }

    fn set_cluster(&self, info: &Arc<ClusterInfo>, hosts: &Arc<PrioritySet>) {
        info.apply_runtime(&self.runtime.load());
        let cluster = WorkerCluster::new(info.clone(), hosts.clone(), rand::random());
        let old = self.clusters.write().insert(info.name().clone(), cluster);
        if let Some(old) = old {
            old.drain();
        }
        self.show_clusters(self.clusters.read().len());
    }

    /// Says how many clusters the thread has.
    fn show_clusters(&self, n: usize) {
        if !self.main {
            self.set_clusters_shown(n);
        }
    }

    /// Says how many clusters there are. Envoy's main thread has all of them, where ours
    /// has only those that it calls.
    pub fn set_clusters_shown(&self, n: usize) {
        let n = i64::try_from(n).unwrap_or(i64::MAX);
        self.cluster_stats
            .gauge_set(ThreadClusterStats::clusters_inflated, n);
    }

    fn publish_routes(&self, name: &str, table: Option<&Arc<RouteTable>>) {
        for listener in self.listeners.lock().values() {
            for hcm in listener.hcms() {
                if hcm.rds_name().is_some_and(|n| **n == *name) {
                    hcm.set_routes(table.cloned());
                }
            }
        }
        // Those that drain keep the last routes when nobody else needs them.
        if let Some(table) = table {
            for hcm in self.draining.lock().iter().filter_map(Weak::upgrade) {
                if hcm.rds_name().is_some_and(|n| **n == *name) {
                    hcm.set_routes(Some(table.clone()));
                }
            }
        }
    }

    /// Connections of an HTTP connection manager drain from now on.
    pub fn note_draining(&self, hcm: &Arc<Hcm>) {
        let mut draining = self.draining.lock();
        draining.retain(|known| known.strong_count() > 0);
        draining.push(Arc::downgrade(hcm));
    }

    fn set_listener(self: &Arc<Self>, spec: &Arc<ListenerSpec>, sockets: &Arc<ListenerSockets>) {
        let mut listeners = self.listeners.lock();
        let name = spec.config.name.clone();
        let new = match listeners.remove(&name) {
            Some(old) => {
                self.listener_index.remove(&old);
                old.replace(self, spec, sockets)
            }
            None => WorkerListener::start(self, spec, sockets),
        };
        self.listener_index.add(&new);
        listeners.insert(name, new);
    }
}

impl Services for Worker {
    fn call(&self, cluster: &str, head: RequestHead, body: Bytes, timeout: Duration) -> CallFuture {
        let cluster = self.cluster_for_call(cluster);
        Box::pin(async move {
            let call = call(cluster.ok_or(CallError::NoCluster)?, head, body);
            tokio::time::timeout(timeout, call)
                .await
                .unwrap_or(Err(CallError::Timeout))
        })
    }

    fn cluster_scope(&self, cluster: &str) -> Option<Scope> {
        self.cluster(cluster).map(|c| c.info.scope.clone())
    }

    fn cluster_facts(&self, cluster: &str, downstream: Protocol) -> Option<ClusterFacts> {
        let info = self.cluster(cluster)?.info.clone();
        let protocol = match info.config.protocol {
            UpstreamProtocolConfig::Http1 => Protocol::Http11,
            UpstreamProtocolConfig::Http2 | UpstreamProtocolConfig::Auto => Protocol::Http2,
            UpstreamProtocolConfig::Downstream => downstream,
        };
        Some(ClusterFacts {
            protocol,
            metadata: info.config.metadata.clone(),
        })
    }

    fn runtime(&self) -> Arc<RuntimeSnapshot> {
        self.runtime.load_full()
    }

    fn random(&self) -> u64 {
        rand::random()
    }
}

/// One request of a filter to a cluster.
async fn call(
    cluster: Arc<WorkerCluster>,
    head: RequestHead,
    body: Bytes,
) -> Result<CallResponse, CallError> {
    let host = cluster
        .choose(&LbContext::default())
        .host
        .ok_or(CallError::NoHost)?;
    let speaks = cluster.info.speaks(Protocol::Http11);
    let wanted = Wanted {
        speaks,
        ..Wanted::default()
    };
    let attached = match cluster.acquire(&host, wanted) {
        Acquire::Ready(attached) => attached,
        Acquire::Pending(mut pending) => poll_fn(|cx| pending.poll(cx))
            .await
            .map_err(|f| CallError::Reset(f.reason))?,
        Acquire::Failed(failure) => return Err(CallError::Reset(failure.reason)),
        Acquire::NoPool => return Err(CallError::NoHost),
    };
    let mut stream = attached
        .start(head, body.is_empty())
        .map_err(|e| CallError::Reset(e.reason))?;
    let mut rest = Buffer::from(body);
    while !rest.is_empty() {
        poll_fn(|cx| stream.stream().poll_send_data(cx, &mut rest, true))
            .await
            .map_err(|e| CallError::Reset(e.reason))?;
    }
    poll_fn(|cx| stream.stream().poll_flush(cx))
        .await
        .map_err(|e| CallError::Reset(e.reason))?;
    let (head, ended) = response_head(&mut stream).await?;
    let body = if ended {
        Bytes::new()
    } else {
        response_body(&mut stream).await?
    };
    Ok(CallResponse { head, body })
}

async fn response_head(stream: &mut UpstreamStream) -> Result<(ResponseHead, bool), CallError> {
    loop {
        match poll_fn(|cx| stream.stream().poll_head(cx))
            .await
            .map_err(|e| CallError::Reset(e.reason))?
        {
            HeadEvent::Informational(_) => {}
            HeadEvent::Final { head, end_stream } => return Ok((head, end_stream)),
        }
    }
}

async fn response_body(stream: &mut UpstreamStream) -> Result<Bytes, CallError> {
    let mut body = Buffer::new();
    loop {
        match poll_fn(|cx| stream.stream().poll_recv(cx))
            .await
            .map_err(|e| CallError::Reset(e.reason))?
        {
            BodyEvent::Data { bytes, end_stream } => {
                stream.stream().release(bytes.len());
                body.push(bytes);
                if body.len() > CALL_LIMIT {
                    return Err(CallError::TooLarge);
                }
                if end_stream {
                    return Ok(body.to_bytes());
                }
            }
            BodyEvent::Trailers(_) | BodyEvent::End => return Ok(body.to_bytes()),
        }
    }
}
