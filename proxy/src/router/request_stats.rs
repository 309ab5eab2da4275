//! Stats of virtual clusters and of routes with a `stat_prefix`, under Envoy's
//! names (`vhost.V.vcluster.C.`, `vhost.V.route.S.`). Follows Envoy's page on the
//! router's statistics.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use outrigger_config::ir::{RouteTableConfig, VirtualClusterConfig, VirtualHostConfig};
use outrigger_stats::{Histogram, Scope, Slab, Store, Unit};
use outrigger_types::RequestHead;
use smallvec::SmallVec;

use super::matcher::RouteMatch;
use crate::upstream::code_stats::{CodeStats, Kind};

outrigger_stats::stat_set! {
    /// What a virtual cluster or a route counts on one worker.
    pub struct RequestStats {
        counters {
            upstream_rq_retry,
            upstream_rq_retry_limit_exceeded,
            upstream_rq_retry_overflow,
            upstream_rq_retry_success,
            upstream_rq_timeout,
            upstream_rq_total,
        }
    }
}

/// Those of one virtual cluster or route, on one worker.
#[derive(Debug)]
pub struct RequestCounters {
    /// The cells.
    pub stats: Slab<RequestStats>,
    codes: CodeStats,
    scope: Scope,
    time: OnceLock<Histogram>,
}

impl RequestCounters {
    /// Counters below a name.
    pub fn new(store: &Store, name: &str) -> Self {
        let scope = store.scope(name);
        Self {
            stats: scope.slab(),
            codes: CodeStats::new(scope.clone(), "upstream_rq"),
            scope,
            time: OnceLock::new(),
        }
    }

    /// Counts the status of a response.
    pub fn charge(&self, code: u16) {
        self.codes.charge(code, Kind::Plain);
    }

    /// Records the time from the end of the request to the end of the response.
    pub fn record_time(&self, time: Duration) {
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let scope = &self.scope;
        self.time
            .get_or_init(|| scope.histogram("upstream_rq_time", Unit::Milliseconds))
            .record(millis);
    }
}

/// Where a request is counted: a virtual cluster, a route, or both.
pub type Counted = SmallVec<[Arc<RequestCounters>; 2]>;

/// The names below which a request is counted.
pub fn scopes<'a>(
    matched: &'a RouteMatch,
    head: &'a RequestHead,
) -> impl Iterator<Item = &'a Arc<str>> {
    let route = matched.route.as_ref().and_then(|r| r.stat_scope.as_ref());
    let cluster = virtual_cluster(&matched.vhost, head).map(|c| &c.stat_scope);
    cluster.into_iter().chain(route)
}

/// The virtual cluster that a request falls into; none where there are none.
pub fn virtual_cluster<'a>(
    vhost: &'a VirtualHostConfig,
    head: &RequestHead,
) -> Option<&'a VirtualClusterConfig> {
    let clusters = vhost.virtual_clusters.as_ref()?;
    let matches = |c: &&VirtualClusterConfig| c.headers.iter().all(|m| m.matches_request(head));
    clusters.list.iter().find(matches).or(Some(&clusters.other))
}

/// Cells that are never written: they show the stats of a route configuration from
/// its arrival on, as Envoy does.
pub fn shown(config: &RouteTableConfig, store: &Store) -> Vec<Slab<RequestStats>> {
    let names = config.virtual_hosts.iter().flat_map(|vhost| {
        let clusters = vhost.virtual_clusters.iter();
        let clusters = clusters.flat_map(|clusters| clusters.list.iter().chain([&clusters.other]));
        let clusters = clusters.map(|c| &c.stat_scope);
        let routes = vhost.routes.iter().filter_map(|r| r.stat_scope.as_ref());
        clusters.chain(routes)
    });
    names.map(|name| store.scope(name).slab()).collect()
}
