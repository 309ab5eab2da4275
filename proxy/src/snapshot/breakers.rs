//! Gauges of circuit breakers. The breakers themselves are a few atomics that
//! workers share; what they say is made into gauges when somebody is about to
//! read.

use outrigger_config::ir::RoutingPriority;
use outrigger_stats::{Scope, Slab};

use super::Snapshot;
use crate::upstream::circuit_breaker::{CircuitBreaker, Kind};
use crate::upstream::cluster::ClusterInfo;

outrigger_stats::stat_set! {
    /// `cluster.<name>.circuit_breakers.<priority>.`
    pub struct BreakerStats {
        gauges {
            cx_open,
            cx_pool_open,
            rq_open,
            rq_pending_open,
            rq_retry_open,
        }
    }
}

outrigger_stats::stat_set! {
    /// The same place, with `track_remaining`.
    pub struct RemainingStats {
        gauges {
            remaining_cx,
            remaining_cx_pools,
            remaining_pending,
            remaining_retries,
            remaining_rq,
        }
    }
}

/// The gauges of one cluster.
pub(super) struct BreakerGauges {
    default: PriorityGauges,
    high: PriorityGauges,
}

struct PriorityGauges {
    open: Slab<BreakerStats>,
    remaining: Option<Slab<RemainingStats>>,
}

impl BreakerGauges {
    pub(super) fn new(info: &ClusterInfo) -> Self {
        let gauges = |priority, name: &str| {
            let scope: Scope = info.scope.scope(&format!("circuit_breakers.{name}."));
            PriorityGauges {
                open: scope.slab(),
                remaining: info.breaker(priority).track_remaining.then(|| scope.slab()),
            }
        };
        Self {
            default: gauges(RoutingPriority::Default, "default"),
            high: gauges(RoutingPriority::High, "high"),
        }
    }

    fn observe(&self, info: &ClusterInfo) {
        self.default.observe(info.breaker(RoutingPriority::Default));
        self.high.observe(info.breaker(RoutingPriority::High));
    }
}

impl PriorityGauges {
    fn observe(&self, breaker: &CircuitBreaker) {
        let open = |id, kind| {
            if breaker.resource(kind).was_used() {
                self.open.gauge_set(id, i64::from(breaker.shows_open(kind)));
            }
        };
        open(BreakerStats::cx_open, Kind::Connections);
        open(BreakerStats::cx_pool_open, Kind::Pools);
        open(BreakerStats::rq_open, Kind::Requests);
        open(BreakerStats::rq_pending_open, Kind::Pending);
        open(BreakerStats::rq_retry_open, Kind::Retries);
        let Some(slab) = &self.remaining else {
            return;
        };
        let left = |id, kind| slab.gauge_set(id, breaker.remaining(kind).cast_signed());
        left(RemainingStats::remaining_cx, Kind::Connections);
        left(RemainingStats::remaining_cx_pools, Kind::Pools);
        left(RemainingStats::remaining_pending, Kind::Pending);
        left(RemainingStats::remaining_retries, Kind::Retries);
        left(RemainingStats::remaining_rq, Kind::Requests);
    }
}

impl Snapshot {
    /// Brings the gauges of circuit breakers up to date; to be called before
    /// stats are read.
    pub fn observe_breakers(&self) {
        for cluster in self.clusters.values() {
            cluster.breakers.observe(&cluster.info);
        }
    }
}
