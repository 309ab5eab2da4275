//! Micro benches: `cargo bench --package outrigger-bench --bench micro [-- NAME...]`.
//!
//! Each prints nanoseconds per operation, measured as [`outrigger_bench::micro`] says.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use outrigger::router::matcher::RouteTable;
use outrigger::router::retry::{Outcome, RetryState};
use outrigger_bench::micro::bench;
use outrigger_config::convert::{self, ConvertContext};
use outrigger_filters::Registry;
use outrigger_stats::{FamilyKind, FamilyOptions, Store, Unit, stat_set};
use outrigger_types::{
    Address, ConnectionInfo, HeaderName, HeaderValue, Headers, Method, RequestHead, ResponseHead,
    StatusCode, StreamInfo, names,
};

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
    routes(&filters);
    retries(&filters);
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

/// The table of a route configuration in JSON.
fn table(virtual_hosts: &str) -> Arc<RouteTable> {
    let text = format!(r#"{{"name":"r","virtual_hosts":[{virtual_hosts}]}}"#);
    let json = xds_api::text::parse_json(&text).expect("well-formed");
    let message = xds_api::json::from_json("envoy.config.route.v3.RouteConfiguration", &json);
    let cx = ConvertContext {
        registry: &Registry,
        store: Store::default(),
        node: Default::default(),
        reject_unknown_fields: false,
    };
    let config = convert::route_table(&message.expect("known fields").bytes, &cx);
    RouteTable::new(Arc::new(config.expect("valid").value), &cx.store)
}

/// So many virtual hosts, each with so many routes by prefix.
fn virtual_hosts(hosts: usize, routes: usize) -> String {
    let route =
        |i: usize| format!(r#"{{"match":{{"prefix":"/route{i}/"}},"route":{{"cluster":"c{i}"}}}}"#);
    let routes: Vec<String> = (0..routes).map(route).collect();
    let routes = routes.join(",");
    let host = |i: usize| {
        let domains = format!(r#""host{i}.test","*.host{i}.test""#);
        format!(r#"{{"name":"v{i}","domains":[{domains}],"routes":[{routes}]}}"#)
    };
    let hosts: Vec<String> = (0..hosts).map(host).collect();
    hosts.join(",")
}

fn stream() -> StreamInfo {
    let address = Address::Ip(([127, 0, 0, 1], 8080).into());
    let connection = ConnectionInfo {
        id: 1,
        local: address.clone(),
        direct_local: address.clone(),
        local_restored: false,
        remote: address.clone(),
        direct_remote: address,
        requested_server_name: "".into(),
        tls: Default::default(),
        transport_failure: Default::default(),
        start: Instant::now(),
        listener_name: "l".into(),
        filter_chain_name: "".into(),
        listener_metadata: None,
        filter_chain_metadata: None,
        filter_state: Default::default(),
    };
    StreamInfo::new(Arc::new(connection), "".into())
}

fn request(authority: &str, path: &'static str) -> RequestHead {
    let mut head = RequestHead::new(Method::POST, path);
    head.authority = Some(authority.to_owned().into());
    head
}

fn routes(filters: &[String]) {
    let (info, runtime) = (stream(), Default::default());
    for (name, hosts, routes, head) in [
        ("first_of_1", 1, 1, request("host0.test", "/route0/x")),
        (
            "last_of_1000_hosts",
            1_000,
            1,
            request("host999.test", "/route0/x"),
        ),
        (
            "last_of_100_suffixes",
            100,
            1,
            request("a.host99.test", "/route0/x"),
        ),
        (
            "last_of_50_prefixes",
            1,
            50,
            request("host0.test", "/route49/x"),
        ),
    ] {
        let table = table(&virtual_hosts(hosts, routes));
        assert!(table.find(&head, &info, &runtime, 0).is_some());
        bench(filters, &format!("routes/{name}"), || {
            table.find(black_box(&head), &info, &runtime, 0)
        });
    }
}

fn retries(filters: &[String]) {
    let table = table(
        r#"{"name":"v","domains":["*"],"routes":[{"match":{"prefix":"/"},
        "route":{"cluster":"c","retry_policy":{"num_retries":2,
        "retry_on":"connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes"}}}]}"#,
    );
    let head = request("x", "/pkg.Service/Method");
    let found = table
        .find(&head, &stream(), &Default::default(), 0)
        .expect("a route");
    let policy = found.forward().and_then(|f| f.retry_policy.clone());
    let ok = ResponseHead::new(StatusCode::OK);
    bench(filters, "retries/state_and_a_good_answer", || {
        let state = RetryState::new(policy.as_ref(), black_box(&head));
        state.map(|mut s| s.decide(Outcome::Head(&ok), || true, 0))
    });
}
