//! Resources, static and from xDS, made into what the workers run.
//!
//! Everything here is on the main thread. A resource takes one way, wherever it
//! came from: bytes (unchanged ones stop here), conversion to the internal
//! configuration, the store of last good values, warming, and then the changes
//! for the workers, sent as one [`Update`] a push.
//!
//! A cluster by EDS is warm once its hosts are known, a listener once the routes
//! that it names are. What is warming serves nobody; what it replaces serves on.

mod addresses;
mod breakers;
mod clusters;
mod dns;
mod draining;
mod listeners;
mod names;
mod original_dst;
mod references;
mod routes;
mod secrets;
mod socket_matches;
mod stats;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use filter_api::{ConfigError, ExtensionRegistry, LocalNode, RuntimeSnapshot};
use outrigger_config::convert::{ConvertContext, Converted};
use outrigger_config::ir::BindConfig;
use outrigger_stats::{Slab, Store};
use tokio::sync::mpsc;

pub use addresses::check_addresses;
pub use clusters::ClusterEntry;
pub use dns::{Resolved, Resolver};
pub use listeners::{ListenerEntry, RouteUse};
pub use references::{KnownClusters, check_bootstrap, check_cluster, check_listener};
pub use routes::RouteEntry;
pub use secrets::{DynamicSecret, Secrets};

use crate::server::worker::{Change, Update, Worker};
use stats::{ClusterManagerStats, ListenerManagerStats};

/// Where a resource came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The bootstrap. xDS may not change it.
    Static,
    /// xDS.
    Dynamic,
}

/// A resource as it was received.
#[derive(Clone, Debug)]
pub struct Received {
    /// The serialised message.
    pub bytes: Bytes,
    /// The version that the control plane gave; empty for static ones.
    pub version: Arc<str>,
    /// When it was received.
    pub at: SystemTime,
}

impl Received {
    /// What was received now.
    pub fn now(bytes: Bytes, version: &str) -> Self {
        Self {
            bytes,
            version: version.into(),
            at: SystemTime::now(),
        }
    }
}

/// What became of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It is what there was.
    Unchanged,
    /// It is new or other, and serves or warms.
    Changed,
}

/// All resources, and the way to the workers.
pub struct Snapshot {
    store: Store,
    registry: Arc<dyn ExtensionRegistry>,
    reject_unknown: bool,
    node: Arc<LocalNode>,
    workers: Vec<mpsc::UnboundedSender<Update>>,
    pending: Vec<Change>,
    clusters: BTreeMap<Arc<str>, ClusterEntry>,
    /// A changed version of a cluster that is warming.
    warming_clusters: BTreeMap<Arc<str>, ClusterEntry>,
    listeners: BTreeMap<Arc<str>, ListenerEntry>,
    warming_listeners: BTreeMap<Arc<str>, ListenerEntry>,
    routes: BTreeMap<Arc<str>, RouteEntry>,
    /// EDS answers by service name, kept over updates of the cluster.
    assignments: BTreeMap<Arc<str>, clusters::Assignment>,
    secrets: Secrets,
    resolver: Resolver,
    /// Where upstream sockets are bound for clusters that do not say.
    upstream_bind: Option<BindConfig>,
    cluster_stats: Slab<ClusterManagerStats>,
    listener_stats: Slab<ListenerManagerStats>,
    workers_started: bool,
    ads: bool,
    /// The main thread's own clusters, for calls of the proxy itself.
    main: Option<Arc<Worker>>,
    main_clusters: BTreeSet<Arc<str>>,
    initialized: bool,
    draining: draining::Draining,
    runtime: Arc<RuntimeSnapshot>,
    /// When the next cluster is to be looked through for hosts that nobody uses.
    clean_up_at: Option<Instant>,
}

impl Snapshot {
    /// Nothing yet. `resolver` looks up DNS names for clusters that need it.
    pub fn new(
        store: &Store,
        registry: Arc<dyn ExtensionRegistry>,
        workers: Vec<mpsc::UnboundedSender<Update>>,
        resolver: Resolver,
        reject_unknown: bool,
    ) -> Self {
        Self {
            cluster_stats: store.scope("cluster_manager.").slab(),
            listener_stats: store.scope("listener_manager.").slab(),
            store: store.clone(),
            registry,
            reject_unknown,
            node: Arc::default(),
            workers,
            pending: Vec::new(),
            clusters: BTreeMap::new(),
            warming_clusters: BTreeMap::new(),
            listeners: BTreeMap::new(),
            warming_listeners: BTreeMap::new(),
            routes: BTreeMap::new(),
            assignments: BTreeMap::new(),
            secrets: Secrets::default(),
            resolver,
            upstream_bind: None,
            workers_started: false,
            ads: false,
            main: None,
            main_clusters: BTreeSet::new(),
            initialized: false,
            draining: Default::default(),
            runtime: Arc::default(),
            clean_up_at: None,
        }
    }

    /// Says who this proxy is, which filters may want to know. Nobody by default.
    pub fn set_node(&mut self, node: LocalNode) {
        self.node = Arc::new(node);
    }

    /// Says where upstream sockets are bound for clusters that do not say. Anywhere by default.
    pub fn set_upstream_bind(&mut self, bind: Option<BindConfig>) {
        self.upstream_bind = bind;
    }

    /// Gives the main thread clusters of its own, those named by [`use_on_main`](Self::use_on_main).
    pub fn serve_main(&mut self, worker: Arc<Worker>) {
        self.main = Some(worker);
    }

    /// Says whether the bootstrap has a stream of all types, which resources may then name as
    /// their source. Not so by default.
    pub fn set_ads(&mut self, configured: bool) {
        self.ads = configured;
    }

    /// The main thread calls a cluster from now on.
    pub fn use_on_main(&mut self, name: &Arc<str>) {
        if !self.main_clusters.insert(name.clone()) {
            return;
        }
        if let (Some(main), Some(entry)) = (&self.main, self.clusters.get(name)) {
            main.apply(&Change::Cluster(entry.info.clone(), entry.hosts.clone()));
        }
    }

    /// Sends what has changed since the last time to every worker.
    pub fn publish(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let update: Update = Arc::new(std::mem::take(&mut self.pending));
        if let Some(main) = &self.main {
            for change in update.iter().filter(|c| self.is_for_main(c)) {
                main.apply(change);
            }
            main.set_clusters_shown(self.clusters.len());
        }
        for worker in &self.workers {
            // A worker that is gone has nothing to serve.
            let _ = worker.send(update.clone());
        }
    }

    fn is_for_main(&self, change: &Change) -> bool {
        match change {
            Change::Cluster(info, _) => self.main_clusters.contains(info.name()),
            Change::RemoveCluster(name) | Change::Hosts(name, _) => {
                self.main_clusters.contains(name)
            }
            Change::Runtime(_) => true,
            _ => false,
        }
    }

    /// Notes that everything is there that the start waits for.
    pub fn note_initialized(&mut self) {
        self.initialized = true;
    }

    /// Whether everything is there that the start waits for.
    pub fn is_initialized(&self) -> bool {
        self.initialized
    }

    /// Gives the workers another runtime. What it says of clusters' hosts holds from the
    /// next update of them, as in Envoy.
    pub fn set_runtime(&mut self, runtime: Arc<RuntimeSnapshot>) {
        self.runtime = runtime.clone();
        self.pending.push(Change::Runtime(runtime));
    }

    fn convert<T>(
        &self,
        convert: impl FnOnce(&ConvertContext<'_>) -> Result<Converted<T>, ConfigError>,
    ) -> Result<T, ConfigError> {
        let cx = ConvertContext {
            registry: &*self.registry,
            store: self.store.clone(),
            node: self.node.clone(),
            reject_unknown_fields: self.reject_unknown,
        };
        let converted = convert(&cx)?;
        for (path, reason) in &converted.ignored {
            tracing::debug!(target: "config", path, reason, "field without effect on traffic");
        }
        for path in &converted.unknown {
            tracing::warn!(target: "config", path, "unknown field");
        }
        Ok(converted.value)
    }
}
