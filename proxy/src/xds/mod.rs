//! xDS: what the bootstrap's `dynamic_resources` name, and what follows from it.
//!
//! [`Xds`] lives on the main thread. Its clients (package `xds-client`) run as tasks and send notices;
//! [`Xds::handle`] applies one to the [`Snapshot`], answers it, and brings subscriptions in line with what
//! the snapshot needs now: endpoints for its clusters, routes for its listeners.
//!
//! The start has Envoy's order: clusters that need no xDS, then CDS and all endpoints, then LDS and all
//! routes, and only then is the proxy ready. Each step ends with the answers or with their timeouts.

mod apply;
mod names;
mod node;
mod secrets;
mod stats;
mod subscriptions;
mod transport;
mod version;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use outrigger_config::ir::{
    ApiConfigSource, BootstrapConfig, ConfigSourceConfig, ConfigSourceKind,
};
use outrigger_stats::{Slab, StatSet, Store};
use tokio::sync::mpsc;
use xds_api::pb::envoy::config::core::v3::Node;
use xds_client::driver::{Client, Notice};
use xds_client::protocol::{Settings, WILDCARD};
use xds_client::types;

use crate::grpc_client::GrpcClient;
use crate::server::worker::Worker;
use crate::snapshot::Snapshot;
use names::{TypeUrls, Wanted};
use secrets::SecretSubscriptions;
use stats::{ControlPlaneStats, ReloadStats, SubscriptionStats};
pub(crate) use stats::{EndpointsStats, Outcome, note_accepted};
use subscriptions::RouteSubscriptions;
use transport::GrpcTransport;
pub(crate) use version::gauge as version_gauge;

/// Notices that may wait for the main thread.
const NOTICES: usize = 16;

/// A notice, and the source that it came from.
pub type SourceNotice = (usize, Notice);

/// How far the start has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum InitState {
    /// Clusters that need no xDS are being resolved.
    Primary,
    /// CDS, or the endpoints of clusters, are waited for.
    Clusters,
    /// LDS, or the routes of listeners, are waited for.
    Listeners,
    /// All is there that is waited for.
    Initialized,
}

/// All subscriptions of the process.
pub struct Xds {
    store: Store,
    node: Node,
    worker: Arc<Worker>,
    notices: mpsc::Sender<SourceNotice>,
    urls: TypeUrls,
    ads: Option<Arc<ApiConfigSource>>,
    cds: Option<ConfigSourceConfig>,
    lds: Option<ConfigSourceConfig>,
    /// The streams, by the number that marks their notices.
    sources: BTreeMap<usize, Source>,
    /// Their numbers, by what they are for.
    by_purpose: BTreeMap<Purpose, Vec<usize>>,
    next_source: usize,
    /// None without CDS.
    cds_stats: Option<Slab<ReloadStats>>,
    /// None without LDS.
    lds_stats: Option<Slab<SubscriptionStats>>,
    routes: RouteSubscriptions,
    secrets: SecretSubscriptions,
    /// Names whose first answer was late, which nobody waits for any more.
    given_up: BTreeSet<(Arc<str>, Arc<str>)>,
    state: InitState,
    cds_answered: bool,
    lds_answered: bool,
}

/// What a stream is for: none for all types, else one subscription. As in Envoy, a resource that names a
/// source of its own has a stream of its own.
type Purpose = Option<Wanted>;

/// One stream.
struct Source {
    purpose: Purpose,
    config: Arc<ApiConfigSource>,
    client: Client,
    subscribed: BTreeSet<Wanted>,
    stats: Slab<ControlPlaneStats>,
}

/// The stats of a subscription, if the bootstrap asks for it.
fn slab_of<S: StatSet>(wanted: bool, store: &Store, prefix: &str) -> Option<Slab<S>> {
    wanted.then(|| store.scope(prefix).slab())
}

impl Xds {
    /// The subscriptions that a bootstrap asks for, none of them begun, and the notices to pass to
    /// [`handle`](Self::handle). `worker` is the main thread's own.
    pub fn new(
        config: &BootstrapConfig,
        store: &Store,
        worker: Arc<Worker>,
    ) -> (Self, mpsc::Receiver<SourceNotice>) {
        let (notices, receiver) = mpsc::channel(NOTICES);
        let xds = Self {
            cds_stats: slab_of(config.cds.is_some(), store, "cluster_manager.cds."),
            lds_stats: slab_of(config.lds.is_some(), store, "listener_manager.lds."),
            store: store.clone(),
            node: node::node(&config.node),
            worker,
            notices,
            urls: TypeUrls::new(),
            ads: config.ads.clone(),
            cds_answered: config.cds.is_none(),
            lds_answered: config.lds.is_none(),
            cds: config.cds.clone(),
            lds: config.lds.clone(),
            sources: BTreeMap::new(),
            by_purpose: BTreeMap::new(),
            next_source: 0,
            routes: RouteSubscriptions::default(),
            secrets: SecretSubscriptions::default(),
            given_up: BTreeSet::new(),
            state: InitState::Primary,
        };
        (xds, receiver)
    }

    /// How far the start has come.
    pub fn state(&self) -> InitState {
        self.state
    }

    /// Whether the first answers are there, or their timeouts have passed: the proxy is `LIVE`.
    pub fn is_initialized(&self) -> bool {
        self.state == InitState::Initialized
    }

    /// Applies a notice. What changed is published.
    pub fn handle(&mut self, (source, notice): SourceNotice, snapshot: &mut Snapshot) {
        if !self.sources.contains_key(&source) {
            // The stream was given up while this was on its way.
            return;
        }
        match notice {
            Notice::Connected => self.note_connected(source, true),
            Notice::Disconnected { reason, types } => {
                tracing::warn!(
                    target: "config",
                    cluster = %self.sources[&source].config.cluster,
                    reason,
                    "gRPC config stream closed",
                );
                self.note_connected(source, false);
                for type_url in types {
                    self.note_failure(source, &type_url, snapshot);
                }
            }
            Notice::Identified(identifier) => {
                let stats = &self.sources[&source].stats;
                stats.set_text(ControlPlaneStats::identifier, &identifier);
            }
            Notice::Push(push) => {
                let rejected = self.apply(source, push, snapshot);
                snapshot.publish();
                // Endpoints of new clusters are asked for before the clusters are acknowledged.
                self.advance(snapshot);
                if let Some(source) = self.sources.get(&source) {
                    source.client.validated(rejected);
                }
                return;
            }
            Notice::FetchTimedOut { type_url, name } if *type_url == *types::SECRET => {
                self.secret_timed_out(source, &name, snapshot);
            }
            Notice::FetchTimedOut { type_url, name } => self.timed_out(&type_url, &name, snapshot),
            Notice::Expired { type_url, name } => self.remove(&type_url, &name, snapshot),
        }
        self.advance(snapshot);
    }

    /// Brings subscriptions in line with the snapshot, takes the start as far as it goes, and publishes.
    /// To be called after any change of the snapshot that did not come from here.
    pub fn advance(&mut self, snapshot: &mut Snapshot) {
        loop {
            self.reconcile(snapshot);
            let next = match self.state {
                InitState::Primary if snapshot.warming_without_xds() == 0 => InitState::Clusters,
                InitState::Clusters
                    if self.cds_answered && snapshot.warming_clusters().next().is_none() =>
                {
                    InitState::Listeners
                }
                InitState::Listeners
                    if self.lds_answered && snapshot.warming_listeners().next().is_none() =>
                {
                    InitState::Initialized
                }
                _ => break,
            };
            self.enter(next, snapshot);
        }
        snapshot.publish();
    }

    fn enter(&mut self, state: InitState, snapshot: &mut Snapshot) {
        self.state = state;
        match state {
            InitState::Primary => {}
            InitState::Clusters => {
                self.start_ads(snapshot);
                if let Some(config) = self.cds.clone() {
                    stats::note_some(self.cds_stats.as_ref(), Outcome::Started);
                    self.subscribe_all(types::CLUSTER, &config, snapshot);
                }
            }
            InitState::Listeners => {
                tracing::info!(target: "upstream", "cm init: all clusters initialized");
                if let Some(config) = self.lds.clone() {
                    stats::note_some(self.lds_stats.as_ref(), Outcome::Started);
                    self.subscribe_all(types::LISTENER, &config, snapshot);
                }
            }
            InitState::Initialized => {
                tracing::info!(target: "main", "all dependencies initialized");
                snapshot.note_initialized();
            }
        }
    }

    /// Begins the stream of all types. It is opened once there is something to ask for.
    fn start_ads(&mut self, snapshot: &mut Snapshot) {
        if self.ads.is_some() {
            let all = (self.urls.get(types::CLUSTER), WILDCARD.into());
            self.source(&all, &ConfigSourceKind::Ads, "", snapshot);
        }
    }

    /// Asks for all resources of a type.
    fn subscribe_all(&mut self, url: &str, config: &ConfigSourceConfig, snapshot: &mut Snapshot) {
        let scope = match url {
            types::CLUSTER => "cluster_manager.cds.",
            _ => "listener_manager.lds.",
        };
        let url = self.urls.get(url);
        let all: Wanted = (url.clone(), WILDCARD.into());
        let found = self.source(&all, &config.source, scope, snapshot);
        let Some(source) = found.and_then(|at| self.sources.get_mut(&at)) else {
            tracing::error!(target: "config", type_url = %url, "no ADS is configured");
            self.timed_out(&all.0, &all.1, snapshot);
            return;
        };
        source.subscribed.insert(all.clone());
        source
            .client
            .subscribe(&url, vec![all.1], config.initial_fetch_timeout);
    }

    /// The stream for a subscription, begun if there is none yet; one of its own has its stats in `scope`.
    /// None if it should be ADS and there is none.
    fn source(
        &mut self,
        wanted: &Wanted,
        kind: &ConfigSourceKind,
        scope: &str,
        snapshot: &mut Snapshot,
    ) -> Option<usize> {
        let (purpose, config) = match kind {
            ConfigSourceKind::Ads => (None, self.ads.clone()?),
            ConfigSourceKind::Api(config) => (Some(wanted.clone()), config.clone()),
        };
        let known = self.by_purpose.get(&purpose).into_iter().flatten();
        for at in known {
            if self.sources.get(at).is_some_and(|s| s.config == config) {
                return Some(*at);
            }
        }
        snapshot.use_on_main(&config.cluster);
        let id = self.next_source;
        let source = self.start(id, purpose.clone(), config, scope)?;
        self.next_source += 1;
        self.by_purpose.entry(purpose).or_default().push(id);
        self.sources.insert(id, source);
        Some(id)
    }

    fn start(
        &self,
        id: usize,
        purpose: Purpose,
        config: Arc<ApiConfigSource>,
        scope: &str,
    ) -> Option<Source> {
        let (method, scope) = match &purpose {
            None => (types::aggregated_method(config.delta), ""),
            Some((url, _)) => (types::method(url, config.delta)?, scope),
        };
        let client = GrpcClient::new(
            self.worker.clone(),
            config.cluster.clone(),
            config.authority.as_deref(),
            &config.initial_metadata,
        );
        let settings = Settings {
            variant: transport::variant(&config),
            node: self.node.clone(),
            node_on_first_message_only: config.set_node_on_first_message_only,
            back_off_base: config.retry_back_off.base,
            back_off_max: config.retry_back_off.max,
        };
        let transport = GrpcTransport::new(client, method, &config);
        Some(Source {
            client: Client::start(settings, transport, id, self.notices.clone()),
            stats: self.store.scope(&format!("{scope}control_plane.")).slab(),
            subscribed: BTreeSet::new(),
            purpose,
            config,
        })
    }

    /// Ends the streams that were for one subscription each, which is over.
    fn end_unused(&mut self) {
        let is_over = |source: &Source| source.purpose.is_some() && source.subscribed.is_empty();
        let over: Vec<usize> = self
            .sources
            .extract_if(.., |_, source| is_over(source))
            .map(|(at, _)| at)
            .collect();
        if over.is_empty() {
            return;
        }
        self.by_purpose.retain(|_, ids| {
            ids.retain(|id| !over.contains(id));
            !ids.is_empty()
        });
    }

    fn note_connected(&self, source: usize, connected: bool) {
        let stats = &self.sources[&source].stats;
        stats.gauge_set(ControlPlaneStats::connected_state, i64::from(connected));
    }
}
