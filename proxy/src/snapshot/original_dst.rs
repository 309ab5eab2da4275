//! Clusters that make their hosts themselves: what they have made is counted and shown, and
//! what nobody uses any more is dropped.

use std::sync::Arc;
use std::time::Instant;

use outrigger_config::ir::DiscoveryConfig;

use super::Snapshot;
use super::clusters::ClusterEntry;
use super::stats::{ClusterManagerStats, ClusterMembershipStats};
use crate::upstream::priority_set::PrioritySet;

/// When a new cluster is first looked through; none for one of another type.
pub(super) fn first_clean_up(discovery: &DiscoveryConfig) -> Option<Instant> {
    match discovery {
        DiscoveryConfig::OriginalDst(config) => Some(Instant::now() + config.cleanup_interval),
        _ => None,
    }
}

impl ClusterEntry {
    /// Takes over the hosts that workers have made, and whether any were dropped; how many
    /// updates of the hosts Envoy would count for that.
    fn note_destinations(&mut self, dropped: bool) -> u64 {
        let Some(destinations) = &self.info.destinations else {
            return 0;
        };
        let made = destinations.take_made();
        let updates = made + u64::from(dropped);
        if updates > 0 {
            self.hosts = Arc::new(PrioritySet::of(destinations.hosts()));
            let stats = &self.stats;
            self.socket_matches.count(&self.info, None, None, made);
            stats.add(ClusterMembershipStats::membership_change, updates);
            self.count_members();
        }
        updates
    }
}

impl Snapshot {
    /// Brings the hosts that workers made themselves up to date; to be called before stats or
    /// hosts are read.
    pub fn observe_destinations(&mut self) {
        let updates = self.clusters.values_mut();
        let updates = updates
            .map(|cluster| cluster.note_destinations(false))
            .sum();
        self.cluster_stats
            .add(ClusterManagerStats::cluster_updated, updates);
    }

    /// A cluster is to be looked through for hosts that nobody uses.
    pub(super) fn note_clean_up(&mut self, at: Option<Instant>) {
        self.clean_up_at = [self.clean_up_at, at].into_iter().flatten().min();
    }

    /// When [`clean_up`](Self::clean_up) is due; none while there is nothing to look through.
    pub fn next_clean_up(&self) -> Option<Instant> {
        self.clean_up_at
    }

    /// Drops the hosts that nobody uses, of the clusters whose time has come.
    pub fn clean_up(&mut self, now: Instant) {
        let mut changed = Vec::new();
        let mut next = None;
        for (name, cluster) in &mut self.clusters {
            let DiscoveryConfig::OriginalDst(config) = &cluster.info.config.discovery else {
                continue;
            };
            if cluster.clean_up_at.is_none_or(|at| at <= now) {
                cluster.clean_up_at = Some(now + config.cleanup_interval);
                let destinations = cluster.info.destinations.as_ref();
                let dropped = destinations.is_some_and(|destinations| destinations.clean_up());
                let updates = cluster.note_destinations(dropped);
                let before = updates - u64::from(dropped);
                self.cluster_stats
                    .add(ClusterManagerStats::cluster_updated, before);
                if dropped {
                    changed.push((name.clone(), cluster.hosts.clone()));
                }
            }
            next = [next, cluster.clean_up_at].into_iter().flatten().min();
        }
        self.clean_up_at = next;
        for (name, hosts) in changed {
            self.publish_hosts(name, hosts);
        }
    }
}
