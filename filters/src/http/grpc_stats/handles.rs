//! The stats of a cluster's methods under Envoy's names, found once a worker and
//! method and kept.

use std::sync::{Arc, OnceLock};

use ahash::AHashMap;
use filter_api::Services;
use outrigger_stats::{Counter, Histogram, Scope, Unit};
use parking_lot::Mutex;

use super::config::GrpcStatsConfig;
use super::names::service_and_method;

/// Paths of a cluster that are kept; they come from the wire.
const MAX_PATHS: usize = 4096;
/// Statuses of a method beside gRPC's own; they come from the wire.
const MAX_ODD_STATUSES: usize = 32;
const STATUSES: usize = 17;

/// What one method of one cluster counts on one worker. A stat exists from when
/// it is first counted, as in Envoy.
pub(super) struct MethodStats {
    scope: Scope,
    /// `grpc.` or `grpc.<service>.<method>.`
    prefix: Box<str>,
    success: OnceLock<Counter>,
    failure: OnceLock<Counter>,
    total: OnceLock<Counter>,
    requests: OnceLock<Counter>,
    responses: OnceLock<Counter>,
    time: OnceLock<Histogram>,
    statuses: [OnceLock<Counter>; STATUSES],
    odd_statuses: Mutex<AHashMap<Box<str>, Counter>>,
}

impl MethodStats {
    fn new(scope: Scope, prefix: Box<str>) -> Self {
        Self {
            scope,
            prefix,
            success: OnceLock::new(),
            failure: OnceLock::new(),
            total: OnceLock::new(),
            requests: OnceLock::new(),
            responses: OnceLock::new(),
            time: OnceLock::new(),
            statuses: [const { OnceLock::new() }; STATUSES],
            odd_statuses: Mutex::default(),
        }
    }

    fn counter<'a>(&self, cell: &'a OnceLock<Counter>, name: &str) -> &'a Counter {
        cell.get_or_init(|| self.scope.counter(&format!("{}{name}", self.prefix)))
    }

    pub(super) fn requests(&self, n: u64) {
        self.counter(&self.requests, "request_message_count").add(n);
    }

    pub(super) fn responses(&self, n: u64) {
        self.counter(&self.responses, "response_message_count")
            .add(n);
    }

    /// Counts a `grpc-status`, whatever it says.
    pub(super) fn status(&self, status: &[u8]) {
        let Ok(text) = std::str::from_utf8(status) else {
            return;
        };
        self.counter(&self.total, "total").inc();
        match text {
            "0" => self.counter(&self.success, "success").inc(),
            _ => self.counter(&self.failure, "failure").inc(),
        }
        let known = text
            .parse()
            .ok()
            .filter(|n: &usize| *n < STATUSES && text == number(*n));
        match known {
            Some(n) => self.counter(&self.statuses[n], text).inc(),
            None => self.odd_status(text),
        }
    }

    fn odd_status(&self, text: &str) {
        let mut odd = self.odd_statuses.lock();
        if let Some(counter) = odd.get(text) {
            return counter.inc();
        }
        if odd.len() < MAX_ODD_STATUSES {
            let counter = self.scope.counter(&format!("{}{text}", self.prefix));
            counter.inc();
            odd.insert(text.into(), counter);
        }
    }

    pub(super) fn time(&self, millis: u64) {
        let name = || format!("{}upstream_rq_time", self.prefix);
        let histogram = self
            .time
            .get_or_init(|| self.scope.histogram(&name(), Unit::Milliseconds));
        histogram.record(millis);
    }
}

/// The text of a status of gRPC's own: one of another form has its own stat.
fn number(n: usize) -> &'static str {
    const TEXT: [&str; STATUSES] = [
        "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16",
    ];
    TEXT[n]
}

/// One worker's methods by cluster and path.
#[derive(Default)]
pub(super) struct Handles {
    clusters: Mutex<AHashMap<Box<str>, OfCluster>>,
}

struct OfCluster {
    scope: Scope,
    by_path: AHashMap<Box<[u8]>, Arc<MethodStats>>,
    by_prefix: AHashMap<Box<str>, Arc<MethodStats>>,
}

impl Handles {
    /// The stats of a path; none for one that names no method, or if there are
    /// too many.
    pub(super) fn find(
        &self,
        config: &GrpcStatsConfig,
        services: &dyn Services,
        cluster: &str,
        path: &[u8],
    ) -> Option<Arc<MethodStats>> {
        let path = path.split(|b| *b == b'?').next().unwrap_or(path);
        let mut clusters = self.clusters.lock();
        if let Some(found) = clusters.get(cluster).and_then(|c| c.by_path.get(path)) {
            return Some(found.clone());
        }
        let (service, method) = service_and_method(path)?;
        // Clusters that are gone take their stats with them.
        clusters.retain(|name, _| services.cluster_scope(name).is_some());
        if !clusters.contains_key(cluster) {
            let fresh = OfCluster {
                scope: services.cluster_scope(cluster)?,
                by_path: AHashMap::new(),
                by_prefix: AHashMap::new(),
            };
            clusters.insert(cluster.into(), fresh);
        }
        clusters
            .get_mut(cluster)?
            .add(config, path, service, method)
    }
}

impl OfCluster {
    fn add(
        &mut self,
        config: &GrpcStatsConfig,
        path: &[u8],
        service: &str,
        method: &str,
    ) -> Option<Arc<MethodStats>> {
        let has_own = config.methods.has(service, method);
        let prefix: Box<str> = match (has_own, config.replace_dots) {
            (false, _) => "grpc.".into(),
            (true, false) => format!("grpc.{service}.{method}.").into(),
            (true, true) => format!("grpc.{}.{method}.", service.replace('.', "_")).into(),
        };
        let known = self.by_prefix.get(&prefix).cloned();
        let full = self.by_path.len() >= MAX_PATHS;
        if full && known.is_none() {
            return None;
        }
        let stats = known.unwrap_or_else(|| {
            let fresh = Arc::new(MethodStats::new(self.scope.clone(), prefix.clone()));
            self.by_prefix.insert(prefix, fresh.clone());
            fresh
        });
        if !full {
            self.by_path.insert(path.into(), stats.clone());
        }
        Some(stats)
    }
}
