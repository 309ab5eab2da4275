//! Subscriptions that follow from the snapshot: endpoints of clusters, routes of listeners.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use outrigger_config::ir::{ConfigSourceKind, DiscoveryConfig};
use outrigger_stats::Slab;
use xds_client::protocol::WILDCARD;
use xds_client::types;

use super::names::Wanted;
use super::stats::{self, Outcome, ReloadStats, RouteStats};
use super::{InitState, Xds};
use crate::snapshot::Snapshot;
use crate::upstream::cluster::ClusterInfo;

/// Stats of route subscriptions: one for each stat prefix and name.
#[derive(Default)]
pub(super) struct RouteSubscriptions {
    by_name: BTreeMap<(Arc<str>, Arc<str>), RouteSlabs>,
}

pub(super) struct RouteSlabs {
    pub(super) updates: Slab<ReloadStats>,
    /// Keeps a name that Envoy has and does not count under.
    _empty: Slab<RouteStats>,
}

impl RouteSubscriptions {
    /// The stats of one route configuration.
    pub(super) fn of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a RouteSlabs> {
        let all = self.by_name.iter();
        all.filter(move |((_, n), _)| **n == *name).map(|(_, s)| s)
    }
}

/// Names that are asked for together: of one source and type, and with one timeout.
type Batch = (usize, Arc<str>, Option<Duration>);

/// The scope of the stats of a stream of its own; ADS has none.
pub(super) fn scope_of(source: &ConfigSourceKind, scope: impl Fn() -> String) -> String {
    match source {
        ConfigSourceKind::Ads => String::new(),
        ConfigSourceKind::Api(_) => scope(),
    }
}

/// What a resource of the snapshot needs.
pub(super) struct Need {
    pub(super) wanted: Wanted,
    pub(super) kind: ConfigSourceKind,
    /// Where the stats of a stream of its own are.
    pub(super) scope: String,
    pub(super) fetch_timeout: Option<Duration>,
}

impl Xds {
    /// Subscribes to what the snapshot needs and has not asked for, and gives up what it does not need.
    pub(super) fn reconcile(&mut self, snapshot: &mut Snapshot) {
        let mut needs = self.secret_needs(snapshot);
        if self.state < InitState::Clusters {
            // ADS begins with the clusters.
            needs.retain(|need| need.kind != ConfigSourceKind::Ads);
        } else {
            needs.extend(self.endpoint_needs(snapshot));
        }
        if self.state >= InitState::Listeners {
            needs.extend(self.route_needs(snapshot));
        }
        let mut wanted: BTreeMap<usize, BTreeSet<Wanted>> = BTreeMap::new();
        let mut added: BTreeMap<Batch, Vec<Arc<str>>> = BTreeMap::new();
        for need in needs {
            let (url, name) = need.wanted.clone();
            match self.source(&need.wanted, &need.kind, &need.scope, snapshot) {
                Some(at) => {
                    let is_new = wanted.entry(at).or_default().insert(need.wanted.clone());
                    if is_new && !self.sources[&at].subscribed.contains(&need.wanted) {
                        added
                            .entry((at, url, need.fetch_timeout))
                            .or_default()
                            .push(name);
                    }
                }
                None => {
                    self.given_up.insert(need.wanted);
                }
            }
        }
        self.give_up(&mut wanted, snapshot);
        for ((at, url, timeout), names) in added {
            self.note_started(&url, &names, snapshot);
            let Some(source) = self.sources.get_mut(&at) else {
                continue;
            };
            let with_type = names.iter().map(|name| (url.clone(), name.clone()));
            source.subscribed.extend(with_type);
            source.client.subscribe(&url, names, timeout);
        }
        self.end_unused();
        self.release_late(snapshot);
    }

    fn endpoint_needs(&self, snapshot: &Snapshot) -> Vec<Need> {
        let url = self.urls.get(types::ENDPOINTS);
        let clusters = snapshot.clusters().chain(snapshot.warming_clusters());
        let need = |info: &ClusterInfo| match &info.config.discovery {
            DiscoveryConfig::Eds {
                source,
                service_name,
            } => Some(Need {
                wanted: (url.clone(), service_name.clone()),
                kind: source.source.clone(),
                scope: scope_of(&source.source, || {
                    format!("cluster.{}.", info.observability_name())
                }),
                fetch_timeout: source.initial_fetch_timeout,
            }),
            _ => None,
        };
        clusters.filter_map(|c| need(&c.info)).collect()
    }

    fn route_needs(&mut self, snapshot: &Snapshot) -> Vec<Need> {
        let url = self.urls.get(types::ROUTES);
        let mut needs = Vec::new();
        let mut used = BTreeSet::new();
        let listeners = snapshot.listeners().chain(snapshot.warming_listeners());
        for route in listeners.flat_map(|l| l.rds()) {
            needs.push(Need {
                wanted: (url.clone(), route.name.clone()),
                kind: route.source.source.clone(),
                scope: scope_of(&route.source.source, || {
                    format!("http.{}.rds.{}.", route.stat_prefix, route.name)
                }),
                fetch_timeout: route.source.initial_fetch_timeout,
            });
            used.insert((route.stat_prefix.clone(), route.name.clone()));
        }
        self.routes.by_name.retain(|key, _| used.contains(key));
        for key in used {
            let store = &self.store;
            self.routes.by_name.entry(key).or_insert_with_key(|key| {
                let scope = store.scope(&format!("http.{}.rds.{}.", key.0, key.1));
                let slabs = RouteSlabs {
                    updates: scope.slab(),
                    _empty: scope.slab(),
                };
                stats::note(&slabs.updates, Outcome::Started);
                slabs
            });
        }
        needs
    }

    /// Unsubscribes from what is not in `wanted`.
    fn give_up(&mut self, wanted: &mut BTreeMap<usize, BTreeSet<Wanted>>, snapshot: &mut Snapshot) {
        for (at, source) in &mut self.sources {
            let wanted = wanted.remove(at).unwrap_or_default();
            let is_over = |w: &Wanted| *w.1 != *WILDCARD && !wanted.contains(w);
            let over = source.subscribed.extract_if(.., |w| is_over(w));
            let mut by_type: BTreeMap<Arc<str>, Vec<Arc<str>>> = BTreeMap::new();
            for (url, name) in over {
                self.given_up.remove(&(url.clone(), name.clone()));
                if *url == *types::ROUTES {
                    snapshot.remove_routes(&name);
                }
                by_type.entry(url).or_default().push(name);
            }
            for (url, names) in by_type {
                source.client.unsubscribe(&url, names);
            }
        }
    }

    fn note_started(&self, url: &str, names: &[Arc<str>], snapshot: &Snapshot) {
        if url == types::ENDPOINTS {
            for name in names {
                snapshot.note_endpoints(name, Outcome::Started);
            }
        }
    }

    /// A resource that began to wait for a name after others gave it up does not wait either.
    fn release_late(&mut self, snapshot: &mut Snapshot) {
        for (url, name) in &self.given_up {
            if **url == *types::ENDPOINTS {
                snapshot.assignment_timed_out(name);
            } else {
                snapshot.routes_timed_out(name);
            }
        }
    }
}
