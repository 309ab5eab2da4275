//! Clusters whose hosts have names: what answers of DNS make of them.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use outrigger_config::ir::{
    DiscoveryConfig, DnsConfig, EndpointAddress, EndpointConfig, LoadAssignmentConfig,
};
use outrigger_types::Address;

use super::clusters::ClusterEntry;
use super::dns::Progress;
use super::stats::ClusterMembershipStats as Stats;
use super::{Resolved, Snapshot};

/// The addresses that names have, by name.
type Found = HashMap<Arc<str>, Vec<IpAddr>>;

impl ClusterEntry {
    fn dns(&self) -> Option<&DnsConfig> {
        match &self.info.config.discovery {
            DiscoveryConfig::StrictDns(_, dns) | DiscoveryConfig::LogicalDns(_, dns) => Some(dns),
            _ => None,
        }
    }

    fn is_logical(&self) -> bool {
        matches!(self.info.config.discovery, DiscoveryConfig::LogicalDns(..))
    }

    /// Whether every name was looked up, or nothing waits for that.
    fn names_known(&self) -> bool {
        let names = self.assignment().map(names).unwrap_or_default();
        let waits = self.dns().is_none_or(|dns| dns.waits);
        !waits || names.iter().all(|n| self.resolved.contains_key(n))
    }

    /// Takes in the addresses of a name.
    fn resolve(&mut self, host: Arc<str>, addresses: Vec<IpAddr>) {
        if self.is_logical()
            && let Some(known) = self.resolved.get(&host)
            && known.first() == addresses.first()
            && same_members(known, &addresses)
        {
            // The order of those after the first is no news.
            return;
        }
        self.resolved.insert(host, addresses);
    }
}

impl Snapshot {
    /// Has the names of a cluster looked up from now on. True if nothing waits for that.
    pub(super) fn watch_names(&mut self, name: &Arc<str>, entry: &ClusterEntry) -> bool {
        let names = entry.assignment().map(names).unwrap_or_default();
        match entry.dns() {
            Some(dns) if !names.is_empty() => {
                self.resolver.watch(name, &names, dns, entry.is_logical());
            }
            _ => self.resolver.forget(name),
        }
        entry.names_known()
    }

    /// Takes in what became of a look-up.
    pub fn apply_resolved(&mut self, answer: Resolved) {
        let Some(entry) = self
            .warming_clusters
            .get_mut(&answer.cluster)
            .or_else(|| self.clusters.get_mut(&answer.cluster))
        else {
            return;
        };
        let succeeded = match answer.progress {
            Progress::Started => return entry.stats.inc(Stats::update_attempt),
            Progress::Answered(addresses) => {
                entry.stats.inc(Stats::update_success);
                entry.resolve(answer.host, addresses);
                true
            }
            Progress::Failed(error) => {
                tracing::debug!(target: "upstream", cluster = %answer.cluster, %error, "DNS look-up failed");
                entry.stats.inc(Stats::update_failure);
                // A failed look-up ends warming, but takes no host away.
                entry.resolved.entry(answer.host).or_default();
                false
            }
        };
        let Some(config) = entry.assignment().cloned() else {
            return;
        };
        let changed = entry.rebuild(&config, &self.runtime);
        if succeeded && !changed {
            entry.stats.inc(Stats::update_no_rebuild);
        }
        let ready = entry.names_known();
        let hosts = entry.hosts.clone();
        if ready && let Some(mut entry) = self.warming_clusters.remove(&answer.cluster) {
            entry.hosts_known = true;
            self.publish_if_warm(answer.cluster, entry);
            self.count_clusters();
        } else if changed && self.clusters.contains_key(&answer.cluster) {
            self.publish_hosts(answer.cluster, hosts);
        }
    }
}

/// Where an endpoint is, as far as DNS has answered.
pub(super) fn addresses(endpoint: &EndpointConfig, found: &Found) -> Vec<Address> {
    match &endpoint.address {
        EndpointAddress::Resolved(address) => vec![address.clone()],
        EndpointAddress::Name { host, port } => {
            let found = found.get(host).map_or(&[][..], Vec::as_slice);
            let at = |ip: &IpAddr| Address::Ip((*ip, *port).into());
            found.iter().map(at).collect()
        }
    }
}

/// The assignment in which the first address of a name is that of its one host, which is
/// reached at the others too. The priority does not matter then.
pub(super) fn single_host(config: &LoadAssignmentConfig, found: &Found) -> LoadAssignmentConfig {
    let mut config = config.clone();
    for locality in &mut config.localities {
        locality.priority = 0;
        locality.endpoints.retain_mut(|endpoint| {
            let mut all = addresses(endpoint, found).into_iter();
            let first = all.next();
            endpoint.additional_addresses = all.collect();
            if let Some(first) = &first {
                endpoint.address = EndpointAddress::Resolved(first.clone());
            }
            first.is_some()
        });
    }
    config
}

fn same_members(one: &[IpAddr], other: &[IpAddr]) -> bool {
    let members = |list: &[IpAddr]| list.iter().copied().collect::<BTreeSet<_>>();
    members(one) == members(other)
}

/// The names among the endpoints.
fn names(config: &LoadAssignmentConfig) -> Vec<Arc<str>> {
    let endpoints = config.localities.iter().flat_map(|l| &l.endpoints);
    let named = endpoints.filter_map(|e| match &e.address {
        EndpointAddress::Name { host, .. } => Some(host.clone()),
        EndpointAddress::Resolved(_) => None,
    });
    let distinct: BTreeSet<Arc<str>> = named.collect();
    distinct.into_iter().collect()
}
