//! gRPC in our own families, by method and status, whether or not the filter is
//! configured: an HCM may hold [`GrpcMetrics`] itself and drive a
//! [`GrpcRecorder`] per stream.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ahash::AHashMap;
use outrigger_stats::{
    Counter, Family, FamilyKind, FamilyOptions, Histogram, OVERFLOW, Store, Unit,
};
use outrigger_types::Buffer;
use parking_lot::Mutex;

use super::frames::FrameCounter;
use super::names::service_and_method;

const METHOD_LABELS: &[&str] = &["direction", "cluster", "service", "method"];
const STATUS_LABELS: &[&str] = &["direction", "cluster", "service", "method", "grpc_status"];
/// Made up by peers; beyond the cap of the store they count as `_overflow`.
const CAPPED: &[&str] = &["service", "method"];
/// Upper bounds of the duration, seconds.
const BOUNDS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0,
];
/// Paths that one worker keeps the handles of, over all clusters; others count as
/// `_overflow`.
const MAX_PATHS: usize = 4096;
/// The statuses of gRPC, none at all, and what is no status.
const STATUSES: [&str; 19] = [
    "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16",
    "none", "invalid",
];

/// The families, and one worker's handles of them.
#[derive(Debug)]
pub struct GrpcMetrics {
    direction: Box<str>,
    requests: Family,
    sent: Family,
    received: Family,
    duration: Family,
    methods: Mutex<Methods>,
}

type ByPath = AHashMap<Box<[u8]>, Arc<MethodMetrics>>;

#[derive(Debug, Default)]
struct Methods {
    by_cluster: AHashMap<Box<str>, ByPath>,
    /// What is over the cap, by cluster.
    overflow: AHashMap<Box<str>, Arc<MethodMetrics>>,
    len: usize,
}

/// The handles of one method.
#[derive(Debug)]
struct MethodMetrics {
    labels: [Box<str>; 4],
    sent: Counter,
    received: Counter,
    duration: Histogram,
    statuses: [OnceLock<Counter>; STATUSES.len()],
}

impl GrpcMetrics {
    /// The families of a store, for one worker. `direction` is `inbound`,
    /// `outbound` or empty.
    pub fn new(store: &Store, direction: &str) -> Self {
        let family = |name, help, kind, labels| {
            store.family(FamilyOptions {
                name,
                help,
                kind,
                labels,
                capped: CAPPED,
                max_label_sets: None,
            })
        };
        Self {
            direction: direction.into(),
            requests: family(
                "outrigger_grpc_requests_total",
                "gRPC calls that ended, by their status.",
                FamilyKind::Counter,
                STATUS_LABELS,
            ),
            sent: family(
                "outrigger_grpc_messages_sent_total",
                "gRPC messages sent to the upstream.",
                FamilyKind::Counter,
                METHOD_LABELS,
            ),
            received: family(
                "outrigger_grpc_messages_received_total",
                "gRPC messages received from the upstream.",
                FamilyKind::Counter,
                METHOD_LABELS,
            ),
            duration: family(
                "outrigger_grpc_request_duration_seconds",
                "Time from the head of a gRPC call to its end.",
                FamilyKind::Histogram(Unit::Seconds, BOUNDS),
                METHOD_LABELS,
            ),
            methods: Mutex::default(),
        }
    }

    /// The recorder of a call; none if `path` names no method.
    pub fn start(&self, cluster: &str, path: &[u8]) -> Option<GrpcRecorder> {
        let path = path.split(|b| *b == b'?').next().unwrap_or(path);
        let mut methods = self.methods.lock();
        let known = methods
            .by_cluster
            .get(cluster)
            .and_then(|m| m.get(path))
            .cloned();
        let metrics = match known {
            Some(known) => known,
            None => self.add(&mut methods, cluster, path)?,
        };
        Some(GrpcRecorder {
            requests: self.requests.clone(),
            metrics,
            sent: FrameCounter::default(),
            received: FrameCounter::default(),
        })
    }

    fn add(&self, methods: &mut Methods, cluster: &str, path: &[u8]) -> Option<Arc<MethodMetrics>> {
        let (service, method) = service_and_method(path)?;
        if methods.len >= MAX_PATHS {
            return Some(self.overflow(methods, cluster));
        }
        let metrics = match self.requests.admit(&[service, method]) {
            true => self.metrics([&*self.direction, cluster, service, method]),
            false => self.overflow(methods, cluster),
        };
        methods.len += 1;
        let of_cluster = methods.by_cluster.entry(cluster.into()).or_default();
        of_cluster.insert(path.into(), metrics.clone());
        Some(metrics)
    }

    fn overflow(&self, methods: &mut Methods, cluster: &str) -> Arc<MethodMetrics> {
        if let Some(known) = methods.overflow.get(cluster) {
            return known.clone();
        }
        let metrics = self.metrics([&*self.direction, cluster, OVERFLOW, OVERFLOW]);
        methods.overflow.insert(cluster.into(), metrics.clone());
        metrics
    }

    fn metrics(&self, labels: [&str; 4]) -> Arc<MethodMetrics> {
        Arc::new(MethodMetrics {
            sent: self.sent.counter(&labels),
            received: self.received.counter(&labels),
            duration: self.duration.histogram(&labels),
            statuses: [const { OnceLock::new() }; STATUSES.len()],
            labels: labels.map(Box::from),
        })
    }
}

/// Records one call.
#[derive(Debug)]
pub struct GrpcRecorder {
    requests: Family,
    metrics: Arc<MethodMetrics>,
    sent: FrameCounter,
    received: FrameCounter,
}

impl GrpcRecorder {
    /// Body on its way to the upstream. The number of messages that begin in it.
    pub fn on_request_data(&mut self, data: &Buffer) -> u64 {
        let n = self.sent.count(data);
        if n > 0 {
            self.metrics.sent.add(n);
        }
        n
    }

    /// Body on its way from the upstream. The number of messages that begin in
    /// it.
    pub fn on_response_data(&mut self, data: &Buffer) -> u64 {
        let n = self.received.count(data);
        if n > 0 {
            self.metrics.received.add(n);
        }
        n
    }

    /// The end of the call, with its `grpc-status` if there was one.
    pub fn on_end(self, status: Option<&[u8]>, elapsed: Duration) {
        let at = match status {
            None => STATUSES.len() - 2,
            Some(status) => STATUSES[..17]
                .iter()
                .position(|known| known.as_bytes() == status)
                .unwrap_or(STATUSES.len() - 1),
        };
        let metrics = &self.metrics;
        let counter = metrics.statuses[at].get_or_init(|| {
            let [direction, cluster, service, method] = &metrics.labels;
            self.requests
                .counter(&[direction, cluster, service, method, STATUSES[at]])
        });
        counter.inc();
        metrics
            .duration
            .record(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX));
    }
}
