//! The forms of `/stats` and `/stats/prometheus`, against recordings of Envoy 1.40.
//!
//! The recordings are of one moment: the values are read from three of them, put in a
//! store, and every form must come out equal byte for byte.

use std::path::PathBuf;

use outrigger_stats::{
    BucketSettings, NameMatcher, NamePattern, PrometheusQuery, StatsConfig, StatsQuery, Store, Unit,
};
use serde_json::Value;

fn golden(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn json(name: &str) -> Value {
    serde_json::from_str(&golden(name)).expect("a recording is JSON")
}

/// Written before, so that `usedonly` shows it: Envoy's recording says which those are.
fn used(name: &str, used_only: &str) -> bool {
    used_only.lines().any(|line| {
        line.strip_prefix(name)
            .is_some_and(|rest| rest.starts_with(": "))
    })
}

fn plain(file: &str) -> Vec<(String, u64)> {
    let rows = json(file);
    let rows = rows["stats"].as_array().expect("a list").iter();
    rows.map(|row| {
        (
            row["name"].as_str().expect("a name").to_owned(),
            row["value"].as_u64().expect("a value"),
        )
    })
    .collect()
}

/// A store with what Envoy had, and the handles that keep it.
fn recorded() -> (Store, Vec<Box<dyn std::any::Any>>) {
    let config = StatsConfig {
        histogram_buckets: vec![BucketSettings {
            matcher: NameMatcher::new(NamePattern::Suffix("downstream_cx_length_ms".into())),
            bounds: vec![0.5, 1.0, 10.0, 1000.0],
        }],
        ..StatsConfig::default()
    };
    let store = Store::new(config).expect("valid");
    let scope = store.scope("");
    let used_only = golden("usedonly.txt");
    let mut handles: Vec<Box<dyn std::any::Any>> = Vec::new();
    for (name, value) in plain("counters.json") {
        let counter = scope.counter(&name);
        counter.add(value);
        handles.push(Box::new(counter));
    }
    for (name, value) in plain("gauges.json") {
        let gauge = scope.gauge(&name);
        if used(&name, &used_only) {
            gauge.add(value as i64);
        }
        handles.push(Box::new(gauge));
    }
    let histograms = json("histograms_detailed.json");
    let details = &histograms["stats"][0]["histograms"]["details"];
    for row in details.as_array().expect("a list") {
        let histogram = scope.histogram(row["name"].as_str().expect("a name"), Unit::Unspecified);
        for bin in row["totals"].as_array().expect("a list") {
            let lower = bin["lower_bound"].as_f64().expect("a number");
            for _ in 0..bin["count"].as_u64().expect("a count") {
                histogram.record(lower.round() as u64);
            }
        }
        handles.push(Box::new(histogram));
    }
    store.flush();
    store.flush(); // the recordings' last interval was idle
    (store, handles)
}

fn assert_same(got: &str, file: &str) {
    let want = golden(file);
    for (got, want) in got.lines().zip(want.lines()) {
        let differs = got
            .bytes()
            .zip(want.bytes())
            .position(|(got, want)| got != want);
        let from = differs.unwrap_or(0).saturating_sub(80);
        let near = |line: &str| line.chars().skip(from).take(200).collect::<String>();
        assert!(
            got == want,
            "{file}:\n got {}\nwant {}",
            near(got),
            near(want)
        );
    }
    assert_eq!(got.len(), want.len(), "{file}: length");
}

#[test]
fn stats_forms_equal_envoys() {
    let (store, _handles) = recorded();
    for (query, file) in [
        ("", "stats.txt"),
        ("usedonly", "usedonly.txt"),
        ("format=json", "stats.json"),
        ("histogram_buckets=cumulative", "cumulative.txt"),
        ("histogram_buckets=disjoint", "disjoint.txt"),
        ("histogram_buckets=detailed", "detailed.txt"),
        (
            "format=json&histogram_buckets=cumulative",
            "cumulative.json",
        ),
        ("format=json&histogram_buckets=disjoint", "disjoint.json"),
        ("type=Counters&format=json", "counters.json"),
        ("type=Gauges&format=json", "gauges.json"),
        (
            "type=Histograms&format=json&histogram_buckets=detailed",
            "histograms_detailed.json",
        ),
    ] {
        let query = StatsQuery::parse(query).expect("a query");
        assert_same(&store.render(&query).body, file);
    }
}

#[test]
fn prometheus_forms_equal_envoys() {
    let (store, _handles) = recorded();
    for (query, file) in [
        ("", "prometheus.txt"),
        ("usedonly", "prometheus_usedonly.txt"),
        ("histogram_buckets=summary", "prometheus_summary.txt"),
    ] {
        let query = PrometheusQuery::parse(query).expect("a query");
        assert_same(&store.render_prometheus(&query).body, file);
    }
}
