//! Counts which transport sockets the hosts of a cluster got.

use outrigger_stats::Counter;
use outrigger_types::Metadata;

use crate::upstream::cluster::ClusterInfo;

/// `total_match_count` of each transport socket match, and of `default`.
pub(super) struct SocketMatches {
    /// In the order of the matches.
    matches: Vec<Counter>,
    default: Counter,
}

impl SocketMatches {
    /// Those of a cluster.
    pub(super) fn new(info: &ClusterInfo) -> Self {
        let of = |name: &str| info.scope.counter(&format!("{name}.total_match_count"));
        let matches = info.sockets.matches.iter();
        Self {
            matches: matches.map(|m| of(&m.criteria.name)).collect(),
            default: of("default"),
        }
    }

    /// Counts so many hosts of which this is said, of them alone and of their locality.
    pub(super) fn count(
        &self,
        info: &ClusterInfo,
        own: Option<&Metadata>,
        locality: Option<&Metadata>,
        hosts: u64,
    ) {
        let found = info.sockets.matching(own, locality);
        let counter = found.and_then(|index| self.matches.get(index));
        counter.unwrap_or(&self.default).add(hosts);
    }
}
