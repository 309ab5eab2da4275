//! What a worker's fault filters count.

use ahash::AHashMap;
use outrigger_stats::{Counter, Scope, Slab};
use parking_lot::Mutex;

/// Names of callers that are counted apart; they come from the wire.
const MAX_CLUSTERS: usize = 1024;

outrigger_stats::stat_set! {
    /// What fault filters count (`http.<stat_prefix>.fault.`).
    pub(super) struct FaultStats {
        counters {
            aborts_injected,
            delays_injected,
            faults_overflow,
            response_rl_injected,
        }
        gauges {
            active_faults,
        }
    }
}

/// One worker's counts, and those of each caller.
pub(super) struct FaultCounts {
    scope: Scope,
    slab: Slab<FaultStats>,
    clusters: Mutex<AHashMap<Box<str>, OfCluster>>,
}

struct OfCluster {
    aborts: Option<Counter>,
    delays: Option<Counter>,
}

impl FaultCounts {
    pub(super) fn new(scope: Scope) -> Self {
        Self {
            slab: scope.slab::<FaultStats>(),
            scope,
            clusters: Mutex::default(),
        }
    }

    pub(super) fn begin(&self) {
        self.slab.gauge_inc(FaultStats::active_faults);
    }

    pub(super) fn end(&self) {
        self.slab.gauge_dec(FaultStats::active_faults);
    }

    pub(super) fn overflow(&self) {
        self.slab.inc(FaultStats::faults_overflow);
    }

    pub(super) fn rate_limited(&self) {
        self.slab.inc(FaultStats::response_rl_injected);
    }

    pub(super) fn delayed(&self, cluster: Option<&str>) {
        self.slab.inc(FaultStats::delays_injected);
        self.count(cluster, "delays_injected", |c| &mut c.delays);
    }

    pub(super) fn aborted(&self, cluster: Option<&str>) {
        self.slab.inc(FaultStats::aborts_injected);
        self.count(cluster, "aborts_injected", |c| &mut c.aborts);
    }

    fn count(
        &self,
        cluster: Option<&str>,
        name: &str,
        pick: impl FnOnce(&mut OfCluster) -> &mut Option<Counter>,
    ) {
        let Some(cluster) = cluster else { return };
        let mut clusters = self.clusters.lock();
        if !clusters.contains_key(cluster) {
            if clusters.len() >= MAX_CLUSTERS {
                return;
            }
            let fresh = OfCluster {
                aborts: None,
                delays: None,
            };
            clusters.insert(cluster.into(), fresh);
        }
        if let Some(of_cluster) = clusters.get_mut(cluster) {
            let counter = || self.scope.counter(&format!("{cluster}.{name}"));
            pick(of_cluster).get_or_insert_with(counter).inc();
        }
    }
}
