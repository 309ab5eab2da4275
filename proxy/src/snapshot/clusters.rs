//! Clusters: static, by DNS, and by EDS.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use filter_api::{ConfigError, RuntimeSnapshot};
use outrigger_config::convert;
use outrigger_config::ir::{
    BindConfig, ClusterConfig, DiscoveryConfig, EndpointConfig, LbCommonConfig,
    LoadAssignmentConfig,
};
use outrigger_stats::Slab;

use super::breakers::BreakerGauges;
use super::names::{addresses, single_host};
use super::original_dst::first_clean_up;
use super::references::check_cluster;
use super::socket_matches::SocketMatches;
use super::stats::{ClusterManagerStats, ClusterMembershipStats};
use super::{Applied, Origin, Received, Snapshot};
use crate::server::worker::Change;
use crate::upstream::cluster::ClusterInfo;
use crate::upstream::priority_set::PrioritySet;
use crate::xds::{EndpointsStats, Outcome, note_accepted, version_gauge};

/// A cluster that is known.
pub struct ClusterEntry {
    /// As received.
    pub received: Received,
    /// From the bootstrap or from xDS.
    pub origin: Origin,
    /// What the workers share.
    pub info: Arc<ClusterInfo>,
    /// Its hosts.
    pub hosts: Arc<PrioritySet>,
    pub(super) stats: Slab<ClusterMembershipStats>,
    pub(super) socket_matches: SocketMatches,
    pub(super) breakers: BreakerGauges,
    /// When hosts that it made itself and nobody uses are to be dropped.
    pub(super) clean_up_at: Option<Instant>,
    /// Of a cluster by EDS only.
    endpoints_stats: Option<Slab<EndpointsStats>>,
    /// Addresses of names that DNS has answered.
    pub(super) resolved: HashMap<Arc<str>, Vec<std::net::IpAddr>>,
    /// Whether there is nothing to wait for but secrets.
    pub(super) hosts_known: bool,
}

/// An answer of EDS.
#[derive(Clone, Debug)]
pub struct Assignment {
    /// As received.
    pub received: Received,
    /// Converted.
    pub config: Arc<LoadAssignmentConfig>,
}

impl ClusterEntry {
    /// The name that EDS is asked for.
    pub fn eds_name(&self) -> Option<&Arc<str>> {
        match &self.info.config.discovery {
            DiscoveryConfig::Eds { service_name, .. } => Some(service_name),
            _ => None,
        }
    }

    pub(super) fn assignment(&self) -> Option<&LoadAssignmentConfig> {
        match &self.info.config.discovery {
            DiscoveryConfig::Static(config)
            | DiscoveryConfig::StrictDns(config, _)
            | DiscoveryConfig::LogicalDns(config, _) => Some(config),
            DiscoveryConfig::OriginalDst(_) | DiscoveryConfig::Eds { .. } => None,
        }
    }

    /// Makes the hosts anew; true if any was added or removed.
    pub(super) fn rebuild(
        &mut self,
        config: &LoadAssignmentConfig,
        runtime: &RuntimeSnapshot,
    ) -> bool {
        let logical = matches!(self.info.config.discovery, DiscoveryConfig::LogicalDns(..));
        let single = logical.then(|| single_host(config, &self.resolved));
        let config = single.as_ref().unwrap_or(config);
        let lookup = |endpoint: &EndpointConfig| addresses(endpoint, &self.resolved);
        for endpoint in config.localities.iter().flat_map(|l| &l.endpoints) {
            let (own, locality) = (&endpoint.metadata, &endpoint.locality_metadata);
            let hosts = lookup(endpoint).len() as u64;
            self.socket_matches
                .count(&self.info, own.as_deref(), locality.as_deref(), hosts);
        }
        let panic = panic_threshold(&self.info.config.lb_common, runtime);
        let (set, changes) = PrioritySet::build(&self.hosts, config, panic, &lookup);
        self.hosts = Arc::new(set);
        self.count_members();
        let changed = changes.priorities as u64;
        self.stats
            .add(ClusterMembershipStats::membership_change, changed);
        changed > 0
    }

    fn note_endpoints(&self, outcome: Outcome<'_>) {
        use ClusterMembershipStats as All;
        let stats = &self.stats;
        stats.inc(All::update_attempt);
        let Some(endpoints) = &self.endpoints_stats else {
            return;
        };
        match outcome {
            Outcome::Started => {}
            Outcome::Accepted(version, took) => {
                stats.inc(All::update_success);
                stats.gauge_set(All::version, version_gauge(version));
                note_accepted(endpoints, version, took);
            }
            Outcome::Rejected => endpoints.inc(EndpointsStats::update_rejected),
            Outcome::Failed => stats.inc(All::update_failure),
            Outcome::TimedOut => endpoints.inc(EndpointsStats::init_fetch_timeout),
        }
    }

    pub(super) fn count_members(&self) {
        let hosts = self.hosts.counts();
        let set = |id, n: usize| {
            self.stats
                .gauge_set(id, i64::try_from(n).unwrap_or(i64::MAX))
        };
        set(ClusterMembershipStats::warming_state, 0);
        set(ClusterMembershipStats::membership_total, hosts.total);
        set(ClusterMembershipStats::membership_healthy, hosts.healthy);
        set(ClusterMembershipStats::membership_degraded, hosts.degraded);
        set(ClusterMembershipStats::membership_excluded, hosts.excluded);
        if matches!(
            self.info.config.discovery,
            DiscoveryConfig::Static(_) | DiscoveryConfig::OriginalDst(_)
        ) {
            // Envoy notes the weight only when hosts come from elsewhere.
            return;
        }
        let heaviest = self.hosts.hosts().map(|h| h.weight()).max().unwrap_or(0);
        self.stats
            .gauge_set(ClusterMembershipStats::max_host_weight, i64::from(heaviest));
    }
}

impl Snapshot {
    /// Takes in a cluster.
    ///
    /// # Errors
    /// If it is refused; what there was serves on.
    pub fn apply_cluster(
        &mut self,
        received: Received,
        origin: Origin,
    ) -> Result<Applied, ConfigError> {
        let config = self.convert(|cx| convert::cluster(&received.bytes, cx))?;
        let name = config.name.clone();
        if let Some(known) = self.clusters.get(&name) {
            if known.origin == Origin::Static && origin == Origin::Dynamic {
                // Envoy's rule: a static cluster cannot be changed by CDS.
                return Ok(Applied::Unchanged);
            }
            let newest = self.warming_clusters.get(&name).unwrap_or(known);
            if newest.received.bytes == received.bytes {
                return Ok(Applied::Unchanged);
            }
        }
        if origin == Origin::Dynamic {
            // Those of the bootstrap may name one another in any order.
            check_cluster(&config, self)?;
        }
        let is_new = !self.clusters.contains_key(&name);
        self.cluster_stats.inc(if is_new {
            ClusterManagerStats::cluster_added
        } else {
            ClusterManagerStats::cluster_modified
        });
        let entry = self.cluster_entry(config, received, origin)?;
        self.warm_cluster(name, entry);
        self.count_clusters();
        Ok(Applied::Changed)
    }

    fn cluster_entry(
        &mut self,
        mut config: ClusterConfig,
        received: Received,
        origin: Origin,
    ) -> Result<ClusterEntry, ConfigError> {
        config.bind = BindConfig::over(config.bind.take(), self.upstream_bind.as_ref());
        let newest = self.warming_clusters.get(&config.name);
        let newest = newest.or_else(|| self.clusters.get(&config.name));
        let last = newest.map(|entry| entry.info.clone());
        let last = last.as_ref().map(|info| &info.sockets);
        let sockets = self.secrets.upstream_sockets(&config, last)?;
        let info = ClusterInfo::new(Arc::new(config), sockets, &self.store);
        let by_eds = matches!(info.config.discovery, DiscoveryConfig::Eds { .. });
        Ok(ClusterEntry {
            stats: info.scope.slab(),
            socket_matches: SocketMatches::new(&info),
            breakers: BreakerGauges::new(&info),
            clean_up_at: first_clean_up(&info.config.discovery),
            endpoints_stats: by_eds.then(|| info.scope.slab()),
            received,
            origin,
            info,
            hosts: Arc::default(),
            resolved: HashMap::new(),
            hosts_known: false,
        })
    }

    /// Publishes a cluster whose hosts are known; another waits for them.
    fn warm_cluster(&mut self, name: Arc<str>, mut entry: ClusterEntry) {
        if let Some(old) = self.clusters.get(&name)
            && entry.info.destinations.is_none()
        {
            // Hosts that stay keep their identity and their counts.
            entry.hosts = old.hosts.clone();
            entry.resolved.clone_from(&old.resolved);
        }
        let known = match entry.eds_name() {
            Some(service) => self.assignments.get(service).map(|a| a.config.clone()),
            None => {
                let given = entry.assignment().cloned();
                Some(Arc::new(given.unwrap_or_else(|| no_hosts(&name))))
            }
        };
        let resolved = self.watch_names(&name, &entry);
        match known {
            Some(config) if resolved => {
                entry.rebuild(&config, &self.runtime);
                entry.hosts_known = true;
                self.warming_clusters.remove(&name);
                self.publish_if_warm(name, entry);
            }
            _ => {
                self.warming_clusters.insert(name, entry);
            }
        }
    }

    /// Publishes a cluster whose hosts are known, unless it waits for secrets.
    pub(super) fn publish_if_warm(&mut self, name: Arc<str>, entry: ClusterEntry) {
        if entry.info.sockets.are_settled() {
            self.publish_cluster(name, entry);
        } else {
            self.warming_clusters.insert(name, entry);
        }
    }

    /// Publishes the clusters that waited only for secrets that are known now.
    pub(super) fn publish_warm_clusters(&mut self) {
        let waiting = |_: &Arc<str>, entry: &mut ClusterEntry| entry.hosts_known;
        let ready: Vec<_> = self.warming_clusters.extract_if(.., waiting).collect();
        for (name, entry) in ready {
            self.publish_if_warm(name, entry);
        }
        self.count_clusters();
    }

    fn publish_cluster(&mut self, name: Arc<str>, entry: ClusterEntry) {
        self.pending
            .push(Change::Cluster(entry.info.clone(), entry.hosts.clone()));
        self.note_clean_up(entry.clean_up_at);
        self.clusters.insert(name, entry);
    }

    pub(super) fn publish_hosts(&mut self, name: Arc<str>, hosts: Arc<PrioritySet>) {
        self.cluster_stats.inc(ClusterManagerStats::cluster_updated);
        self.pending.push(Change::Hosts(name, hosts));
    }

    /// Takes away a cluster that xDS had sent.
    pub fn remove_cluster(&mut self, name: &str) {
        if self
            .clusters
            .get(name)
            .is_some_and(|c| c.origin == Origin::Static)
        {
            return;
        }
        let warming = self.warming_clusters.remove(name);
        let active = self.clusters.remove(name);
        if active.is_some() {
            self.pending.push(Change::RemoveCluster(name.into()));
        }
        if active.is_some() || warming.is_some() {
            self.resolver.forget(name);
            self.cluster_stats.inc(ClusterManagerStats::cluster_removed);
        }
        let service = active.or(warming).and_then(|c| c.eds_name().cloned());
        if let Some(service) = service
            && !self.eds_names().any(|n| *n == service)
        {
            self.assignments.remove(&service);
        }
        self.count_clusters();
    }

    /// Takes in an answer of EDS.
    ///
    /// # Errors
    /// If it is refused; the hosts there were stay.
    pub fn apply_assignment(&mut self, received: Received) -> Result<Applied, ConfigError> {
        let config = self.convert(|cx| convert::load_assignment(&received.bytes, cx))?;
        let service = config.cluster_name.clone();
        let unchanged = self
            .assignments
            .get(&service)
            .is_some_and(|a| a.received.bytes == received.bytes);
        let config = Arc::new(config);
        let assignment = Assignment {
            received,
            config: config.clone(),
        };
        self.assignments.insert(service.clone(), assignment);
        if unchanged {
            self.finish_warming(&service, &config);
            return Ok(Applied::Unchanged);
        }
        self.hosts_known(&service, &config);
        Ok(Applied::Changed)
    }

    /// EDS will not answer in time, or has nothing of that name: those who wait
    /// go on without hosts, as in Envoy.
    pub fn assignment_timed_out(&mut self, service: &str) {
        self.finish_warming(service, &no_hosts(service));
    }

    /// An answer of EDS held for a time only, which has passed.
    pub fn assignment_expired(&mut self, service: &str) {
        if self.assignments.remove(service).is_some() {
            self.hosts_known(service, &no_hosts(service));
        }
    }

    /// Counts what came of a subscription to endpoints, in every cluster that uses them.
    pub(crate) fn note_endpoints(&self, service: &str, outcome: Outcome<'_>) {
        for cluster in self.users_of(service) {
            cluster.note_endpoints(outcome);
        }
    }

    /// Counts that endpoints came again as they were.
    pub(crate) fn note_same_endpoints(&self, service: &str) {
        for cluster in self.users_of(service) {
            cluster.stats.inc(ClusterMembershipStats::update_no_rebuild);
        }
    }

    /// Counts an answer without endpoints.
    pub(crate) fn note_no_endpoints(&self, service: &str) {
        for cluster in self.users_of(service) {
            cluster.stats.inc(ClusterMembershipStats::update_empty);
        }
    }

    /// Clusters with these endpoints, each once even if another version of it is warming.
    fn users_of(&self, service: &str) -> impl Iterator<Item = &ClusterEntry> {
        let warming = self.warming_clusters.iter();
        let only_warming = warming.filter(|(name, _)| !self.clusters.contains_key(*name));
        let all = self.clusters.iter().chain(only_warming).map(|(_, c)| c);
        all.filter(move |c| c.eds_name().is_some_and(|n| **n == *service))
    }

    /// Clusters that wait for something other than EDS.
    pub fn warming_without_xds(&self) -> usize {
        let warming = self.warming_clusters.values();
        let waits_for_eds = |c: &ClusterEntry| c.eds_name().is_some() && !c.hosts_known;
        warming.filter(|c| !waits_for_eds(c)).count()
    }

    fn hosts_known(&mut self, service: &str, config: &LoadAssignmentConfig) {
        let users: Vec<Arc<str>> = self
            .clusters
            .iter()
            .filter(|(_, c)| c.eds_name().is_some_and(|n| **n == *service))
            .map(|(n, _)| n.clone())
            .collect();
        for name in users {
            let Some(cluster) = self.clusters.get_mut(&name) else {
                continue;
            };
            cluster.rebuild(config, &self.runtime);
            let hosts = cluster.hosts.clone();
            self.publish_hosts(name, hosts);
        }
        self.finish_warming(service, config);
    }

    fn finish_warming(&mut self, service: &str, config: &LoadAssignmentConfig) {
        let waiting: Vec<Arc<str>> = self
            .warming_clusters
            .iter()
            .filter(|(_, c)| c.eds_name().is_some_and(|n| **n == *service))
            .map(|(n, _)| n.clone())
            .collect();
        for name in waiting {
            if let Some(mut entry) = self.warming_clusters.remove(&name) {
                entry.rebuild(config, &self.runtime);
                entry.hosts_known = true;
                self.publish_if_warm(name, entry);
            }
        }
        self.count_clusters();
    }

    /// Names that EDS is to be asked for, of active and warming clusters.
    pub fn eds_names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.clusters
            .values()
            .chain(self.warming_clusters.values())
            .filter_map(ClusterEntry::eds_name)
    }

    /// Active clusters by name.
    pub fn clusters(&self) -> impl Iterator<Item = &ClusterEntry> {
        self.clusters.values()
    }

    /// Clusters that wait for their hosts.
    pub fn warming_clusters(&self) -> impl Iterator<Item = &ClusterEntry> {
        self.warming_clusters.values()
    }

    /// EDS answers by service name.
    pub fn assignments(&self) -> impl Iterator<Item = (&Arc<str>, &Assignment)> {
        self.assignments.iter()
    }

    pub(super) fn count_clusters(&self) {
        let set = |id, n: usize| {
            self.cluster_stats
                .gauge_set(id, i64::try_from(n).unwrap_or(i64::MAX))
        };
        set(ClusterManagerStats::active_clusters, self.clusters.len());
        set(
            ClusterManagerStats::warming_clusters,
            self.warming_clusters.len(),
        );
    }
}

/// Per cent of usable hosts below which a priority panics: a whole number, which
/// `upstream.healthy_panic_threshold` of the runtime may override.
fn panic_threshold(lb: &LbCommonConfig, runtime: &RuntimeSnapshot) -> u64 {
    let configured = lb.healthy_panic_threshold as u64;
    let threshold = runtime.integer("upstream.healthy_panic_threshold", configured);
    threshold.min(100)
}

/// An assignment without endpoints.
fn no_hosts(service: &str) -> LoadAssignmentConfig {
    LoadAssignmentConfig {
        cluster_name: service.into(),
        localities: Vec::new(),
        overprovisioning_factor: 140,
        drop_overloads: Vec::new(),
        endpoint_stale_after: None,
        weighted_priority_health: false,
    }
}
