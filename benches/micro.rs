//! Micro benches: `cargo bench --package outrigger-bench --bench micro [-- NAME...]`.
//!
//! Each prints nanoseconds per operation, measured as [`outrigger_bench::micro`] says.

use std::hint::black_box;

use outrigger_bench::micro::bench;
use outrigger_stats::{FamilyKind, FamilyOptions, Store, Unit, stat_set};
use outrigger_types::{HeaderName, HeaderValue, Headers, names};

stat_set! {
    /// What is counted for a request, more or less.
    struct RequestStats {
        counters { upstream_rq_total }
        gauges { upstream_rq_active }
        histograms { upstream_rq_time: ms }
    }
}

fn main() {
    if !outrigger_bench::runs_as_bench() {
        return;
    }
    // Cargo passes --bench to every bench it runs.
    let filters: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    headers(&filters);
    stats(&filters);
}

/// The headers of a gRPC request as a Go client sends them, and what a proxy adds.
const FIELDS: [(&str, &str); 8] = [
    ("content-type", "application/grpc"),
    ("te", "trailers"),
    ("user-agent", "grpc-go/1.70.0"),
    ("grpc-accept-encoding", "gzip"),
    ("grpc-timeout", "4999m"),
    ("x-forwarded-proto", "http"),
    ("x-request-id", "0b2c0c2e-5d6a-4a9a-9c55-6a2b5c1f7f10"),
    ("x-envoy-expected-rq-timeout-ms", "15000"),
];

fn headers(filters: &[String]) {
    let fields: Vec<_> = FIELDS
        .map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v)))
        .into_iter()
        .collect();
    let full: Headers = fields.iter().cloned().collect();
    bench(filters, "headers/append_8", || {
        let mut headers = Headers::with_capacity(fields.len());
        fields
            .iter()
            .for_each(|(n, v)| headers.append(n.clone(), v.clone()));
        headers
    });
    bench(filters, "headers/get_last_of_8", || {
        black_box(&full)
            .get(&names::X_ENVOY_EXPECTED_RQ_TIMEOUT_MS)
            .is_some()
    });
    bench(filters, "headers/get_missing_of_8", || {
        black_box(&full).get(&names::X_ENVOY_RETRY_ON).is_some()
    });
    bench(filters, "headers/clone_remove_set", || {
        let mut headers = full.clone();
        headers.remove(&names::X_ENVOY_EXPECTED_RQ_TIMEOUT_MS);
        headers.set(names::X_REQUEST_ID, HeaderValue::from_static("1"));
        headers
    });
}

fn stats(filters: &[String]) {
    let store = Store::default();
    let slab = store.scope("cluster.backend.").slab::<RequestStats>();
    bench(filters, "stats/counter", || {
        slab.inc(RequestStats::upstream_rq_total)
    });
    bench(filters, "stats/gauge_up_and_down", || {
        slab.gauge_inc(RequestStats::upstream_rq_active);
        slab.gauge_dec(RequestStats::upstream_rq_active);
    });
    let mut value = 0;
    bench(filters, "stats/histogram", || {
        value = (value + 7) % 1_000;
        slab.record(RequestStats::upstream_rq_time, value);
    });
    let family = store.family(FamilyOptions {
        name: "bench_seconds",
        help: "A histogram with labels.",
        kind: FamilyKind::Histogram(Unit::Milliseconds, &[0.01, 0.1, 1.0]),
        labels: &["service", "method"],
        capped: &["method"],
        max_label_sets: None,
    });
    bench(filters, "stats/family_look_up", || {
        family.histogram(&["demo.Greeter", "SayHello"])
    });
}
