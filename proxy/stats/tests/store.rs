//! Cells, scopes, caps, tags and families.

use outrigger_stats::{
    ConfigError, FamilyKind, FamilyOptions, HistogramData, NameMatcher, NamePattern,
    PrometheusQuery, StatsConfig, StatsMatcher, StatsQuery, Store, TagSpecifier, Unit,
};
use proptest::prelude::*;

outrigger_stats::stat_set! {
    /// A set for the tests.
    struct TestStats {
        counters { rq_total, tls = "ssl.versions.TLSv1.3" }
        gauges { active, members }
        histograms { time: ms }
        text { note }
    }
}

fn prometheus(store: &Store, query: &str) -> String {
    store
        .render_prometheus(&PrometheusQuery::parse(query).expect("a query"))
        .body
}

#[test]
fn slabs_of_two_threads_add_up() {
    let store = Store::default();
    let scope = store.scope("t.");
    let threads: Vec<_> = (0..2)
        .map(|_| {
            let scope = scope.clone();
            std::thread::spawn(move || {
                let slab = scope.slab::<TestStats>();
                for n in 0..100_000 {
                    slab.inc(TestStats::rq_total);
                    slab.gauge_inc(TestStats::active);
                    slab.record(TestStats::time, n % 7);
                }
            })
        })
        .collect();
    threads
        .into_iter()
        .for_each(|thread| thread.join().expect("no panic"));
    store.flush();
    assert_eq!(store.counter_value("t.rq_total"), Some(200_000));
    assert_eq!(store.gauge_value("t.active"), Some(200_000));
    assert!(prometheus(&store, "").contains("envoy_t_time_count{} 200000\n"));
}

#[test]
fn counts_outlive_their_slab_and_end_with_the_scope() {
    let store = Store::default();
    let scope = store.scope("c.");
    let slab = scope.slab::<TestStats>();
    slab.add(TestStats::rq_total, 3);
    slab.gauge_inc(TestStats::active);
    slab.gauge_set(TestStats::members, 9);
    drop(slab);
    let next = scope.slab::<TestStats>();
    next.gauge_dec(TestStats::active);
    next.inc(TestStats::rq_total);
    assert_eq!(store.counter_value("c.rq_total"), Some(4));
    assert_eq!(store.gauge_value("c.active"), Some(0));
    assert_eq!(
        store.gauge_value("c.members"),
        Some(0),
        "what was set ends with its slab"
    );
    drop(scope);
    assert_eq!(
        store.counter_value("c.rq_total"),
        Some(4),
        "the slab keeps the scope"
    );
    drop(next);
    store.flush();
    assert_eq!(store.text(), "");
}

#[test]
fn a_scope_taken_again_is_the_same() {
    let store = Store::default();
    let old = store.scope("cluster.a.").slab::<TestStats>();
    old.inc(TestStats::rq_total);
    let new = store.scope("cluster.a.").slab::<TestStats>();
    drop(old);
    new.inc(TestStats::rq_total);
    assert_eq!(store.counter_value("cluster.a.rq_total"), Some(2));
}

#[test]
fn names_beyond_the_cap_are_counted_and_not_shown() {
    let store = Store::new(StatsConfig {
        max_dynamic_names: 2,
        ..StatsConfig::default()
    });
    let store = store.expect("valid");
    let scope = store.scope("d.");
    let counters: Vec<_> = (0..5).map(|n| scope.counter(&format!("n{n}"))).collect();
    counters.iter().for_each(outrigger_stats::Counter::inc);
    assert_eq!(store.text(), "d.n0: 1\nd.n1: 1\nstats.overflow: 3\n");
    scope.counter("n1").inc();
    assert_eq!(
        store.counter_value("d.n1"),
        Some(2),
        "a known name has room"
    );
}

#[test]
fn handles_made_and_dropped_leave_no_cells() {
    let store = Store::default();
    let scope = store.scope("d.");
    for _ in 0..1000 {
        scope.counter("n").inc();
        scope.histogram("h", Unit::Milliseconds).record(5);
    }
    store.flush();
    assert_eq!(store.counter_value("d.n"), Some(1000));
    assert!(prometheus(&store, "filter=h").contains("envoy_d_h_count{} 1000\n"));
}

#[test]
fn reset_zeroes_counters_and_latch_goes_on() {
    let store = Store::default();
    let slab = store.scope("r.").slab::<TestStats>();
    slab.add(TestStats::rq_total, 5);
    assert_eq!(store.latch_counters()[0].delta, 5);
    store.reset_counters();
    assert_eq!(store.counter_value("r.rq_total"), Some(0));
    slab.add(TestStats::rq_total, 2);
    let latched = store.latch_counters();
    assert_eq!(
        (latched[0].name.as_str(), latched[0].delta, latched[0].value),
        ("r.rq_total", 2, 2)
    );
}

#[test]
fn interval_is_what_came_between_flushes() {
    let store = Store::default();
    let slab = store.scope("i.").slab::<TestStats>();
    let line = |store: &Store| {
        store
            .text()
            .lines()
            .find(|line| line.starts_with("i.time"))
            .map(str::to_owned)
    };
    assert_eq!(line(&store).as_deref(), Some("i.time: No recorded values"));
    slab.record(TestStats::time, 10);
    assert_eq!(line(&store).as_deref(), Some("i.time: No recorded values"));
    store.flush();
    assert!(line(&store).expect("shown").contains("P0(10.5,10.5)"));
    slab.record(TestStats::time, 20);
    store.flush();
    assert!(line(&store).expect("shown").contains("P0(20.5,10.5)"));
    store.flush();
    assert!(line(&store).expect("shown").contains("P0(nan,10.5)"));
}

#[test]
fn the_matcher_decides_what_exists() {
    let inclusion = vec![
        NameMatcher::new(NamePattern::Prefix("cluster.xds".into())),
        NameMatcher::regex(r"vhost\..*\.route\..*").expect("a regex"),
    ];
    let config = StatsConfig {
        matcher: StatsMatcher::Inclusion(inclusion),
        ..StatsConfig::default()
    };
    let store = Store::new(config).expect("valid");
    let hidden = store.scope("cluster.other.").slab::<TestStats>();
    let shown = store.scope("cluster.xds-grpc;.").counter("upstream_rq_503");
    let route = store.scope("vhost.a.").counter("route.b.upstream_rq_total");
    let refused = store.scope("vhost.a.").counter("vcluster.b");
    hidden.inc(TestStats::rq_total);
    [&shown, &route, &refused]
        .iter()
        .for_each(|counter| counter.inc());
    let want = "cluster.xds-grpc;.upstream_rq_503: 1\nvhost.a.route.b.upstream_rq_total: 1\n";
    assert_eq!(store.text(), want);
}

#[test]
fn istios_rules_take_its_delimiter_out() {
    let tag = |name: &str, regex: &str| TagSpecifier::Regex {
        name: name.into(),
        regex: regex.into(),
    };
    let config = StatsConfig {
        use_all_default_tags: false,
        tags: vec![
            tag(
                "cluster_name",
                r"^cluster\.((.+?(\..+?\.svc\.cluster\.local)?);\.)",
            ),
            tag(
                "http_conn_manager_listener_prefix",
                r"^listener(?=\.).*?\.http\.(((?:[_.[:digit:]]*|[_\[\]aAbBcCdDeEfF[:digit:]]*))\.)",
            ),
            tag("response_code", r"_rq(_(\d{3}))$"),
            TagSpecifier::Fixed {
                name: "mesh.id".into(),
                value: "m\"1".into(),
            },
        ],
        ..StatsConfig::default()
    };
    let store = Store::new(config).expect("valid");
    let a = store
        .scope("cluster.outbound|80||a.ns.svc.cluster.local;.")
        .counter("upstream_rq_200");
    let b = store
        .scope("listener.0.0.0.0_80.http.10.0.0.1_80.")
        .counter("downstream_cx_total");
    a.inc();
    b.inc();
    assert_eq!(
        prometheus(&store, ""),
        "# TYPE envoy_cluster_upstream_rq counter\n\
         envoy_cluster_upstream_rq{response_code=\"200\",mesh_id=\"m\\\"1\",\
         cluster_name=\"outbound|80||a.ns.svc.cluster.local\"} 1\n\
         # TYPE envoy_listener_0_0_0_0_80_http_downstream_cx_total counter\n\
         envoy_listener_0_0_0_0_80_http_downstream_cx_total{mesh_id=\"m\\\"1\",\
         http_conn_manager_listener_prefix=\"10.0.0.1_80\"} 1\n"
    );
}

#[test]
fn malformed_tags_are_refused() {
    let with = |name: &str, regex: &str| {
        let tags = vec![TagSpecifier::Regex {
            name: name.into(),
            regex: regex.into(),
        }];
        Store::new(StatsConfig {
            tags,
            ..StatsConfig::default()
        })
        .map(|_| ())
    };
    assert!(matches!(with("a", "("), Err(ConfigError::Regex { .. })));
    assert!(matches!(with("a", "b"), Err(ConfigError::NoGroup { .. })));
    assert!(matches!(with("a", ""), Err(ConfigError::NoDefault { .. })));
    assert!(with("envoy.cluster_name", "").is_ok());
}

#[test]
fn default_tags_are_found() {
    let store = Store::default();
    let names = [
        (
            "cluster.c.grpc.svc.Method.success",
            "envoy_cluster_grpc_success{envoy_grpc_bridge_method=\"Method\",envoy_grpc_bridge_service=\"svc\",envoy_cluster_name=\"c\"} 0",
        ),
        (
            "listener.[__1]_80.worker_3.downstream_cx_total",
            "envoy_listener_worker_downstream_cx_total{envoy_worker_id=\"3\",envoy_listener_address=\"[__1]_80\"} 0",
        ),
        (
            "listener.admin.downstream_cx_total",
            "envoy_listener_admin_downstream_cx_total{} 0",
        ),
        (
            "vhost.v.route.r.upstream_rq_total",
            "envoy_vhost_route_upstream_rq_total{envoy_virtual_host=\"v\",envoy_route=\"r\"} 0",
        ),
    ];
    let scope = store.scope("");
    let _handles: Vec<_> = names.iter().map(|(name, _)| scope.counter(name)).collect();
    let page = prometheus(&store, "");
    for (name, line) in names {
        assert!(
            page.lines().any(|got| got == line),
            "{name}: want {line}\n{page}"
        );
    }
}

#[test]
fn bad_queries_get_envoys_words() {
    let bad = |query: &str| StatsQuery::parse(query).expect_err("refused").0;
    assert_eq!(bad("type=counters"), "invalid &type= param");
    assert_eq!(
        bad("format=bogus"),
        "usage: /stats?format=(html|active-html|json|prometheus|text)\n\n"
    );
    assert!(bad("filter=%5B").starts_with("Invalid re2 regex: "));
    assert!(PrometheusQuery::parse("histogram_buckets=detailed").is_err());
}

#[test]
fn text_and_touched_gauges_show_under_usedonly() {
    let store = Store::default();
    let slab = store.scope("u.").slab::<TestStats>();
    slab.gauge_set(TestStats::members, 0);
    slab.set_text(TestStats::note, "a\"<b>");
    slab.inc(TestStats::tls);
    let body = store
        .render(&StatsQuery::parse("usedonly").expect("a query"))
        .body;
    assert_eq!(
        body,
        "u.members: 0\nu.note: \"a&quot;&lt;b&gt;\"\nu.ssl.versions.TLSv1.3: 1\n"
    );
}

#[test]
fn methods_beyond_the_cap_share_a_label_set() {
    let store = Store::default();
    let family = store.family(FamilyOptions {
        name: "outrigger_grpc_requests_total",
        help: "Calls.",
        kind: FamilyKind::Counter,
        labels: &["cluster", "method", "grpc_status"],
        capped: &["method"],
        max_label_sets: Some(2),
    });
    let counters: Vec<_> = ["a", "b", "c", "d", "a"]
        .iter()
        .zip(["0", "0", "0", "0", "14"])
        .map(|(method, status)| family.counter(&["x", method, status]))
        .collect();
    counters.iter().for_each(outrigger_stats::Counter::inc);
    assert_eq!(family.overflowed(), 2);
    assert_eq!(
        store.open_metrics().body,
        "# HELP outrigger_grpc_requests Calls.\n\
         # TYPE outrigger_grpc_requests counter\n\
         outrigger_grpc_requests_total{cluster=\"x\",method=\"_overflow\",grpc_status=\"0\"} 2\n\
         outrigger_grpc_requests_total{cluster=\"x\",method=\"a\",grpc_status=\"0\"} 1\n\
         outrigger_grpc_requests_total{cluster=\"x\",method=\"a\",grpc_status=\"14\"} 1\n\
         outrigger_grpc_requests_total{cluster=\"x\",method=\"b\",grpc_status=\"0\"} 1\n\
         # HELP outrigger_stats_overflow What was counted beyond the cap of label sets.\n\
         # TYPE outrigger_stats_overflow counter\n\
         outrigger_stats_overflow_total{family=\"outrigger_grpc_requests_total\"} 2\n\
         # EOF\n"
    );
    assert!(prometheus(&store, "").starts_with("# TYPE outrigger_grpc_requests_total counter\n"));
}

#[test]
fn durations_are_shown_in_seconds() {
    let store = Store::default();
    let family = store.family(FamilyOptions {
        name: "outrigger_grpc_duration_seconds",
        help: "Time.",
        kind: FamilyKind::Histogram(Unit::Seconds, &[0.001, 0.01]),
        labels: &[],
        capped: &[],
        max_label_sets: None,
    });
    let histogram = family.histogram(&[]);
    histogram.record(500);
    histogram.record(5_000);
    let body = store.open_metrics().body;
    assert!(
        body.contains("duration_seconds_bucket{le=\"0.001\"} 1\n"),
        "{body}"
    );
    assert!(body.contains("duration_seconds_count{} 2\n"));
}

/// The least value of the bin of a sample, found with decimal digits.
fn floor(value: u64) -> u64 {
    let digits = value.to_string();
    match digits.len() {
        0..=2 => value,
        len => digits[..2].parse::<u64>().expect("digits") * 10u64.pow(len as u32 - 2),
    }
}

proptest! {
    #[test]
    fn merging_equals_recording_in_one(a in prop::collection::vec(any::<u64>(), 0..50),
                                       b in prop::collection::vec(0u64..2000, 0..50)) {
        let of = |values: &[u64]| {
            let mut data = HistogramData::default();
            values.iter().for_each(|value| data.record(*value));
            data
        };
        let mut merged = of(&a);
        merged.merge(&of(&b));
        let all = of(&[a.clone(), b.clone()].concat());
        prop_assert_eq!(&merged, &all);
        prop_assert_eq!(all.since(&of(&a)), of(&b));
        prop_assert_eq!(all.count(), (a.len() + b.len()) as u64);
    }

    #[test]
    fn a_quantile_lies_in_the_bin_of_its_sample(mut values in prop::collection::vec(0u64..10_000_000, 1..80),
                                                quantile in 0.0f64..=1.0) {
        let mut data = HistogramData::default();
        values.iter().for_each(|value| data.record(*value));
        values.sort_unstable();
        let rank = ((quantile * values.len() as f64).ceil() as usize).max(1);
        let sample = floor(values[rank - 1]) as f64;
        let got = data.quantiles(Unit::Unspecified, &[quantile])[0];
        let near = sample * 1e-12;
        prop_assert!(got >= sample - near && got <= sample * 1.1 + near, "{got} for {sample}");
    }
}

#[test]
fn a_gauge_that_is_set_shows_all_64_bits() {
    let store = Store::default();
    let scope = store.scope("v.");
    let slab = scope.slab::<TestStats>();
    slab.gauge_set(TestStats::members, u64::MAX.cast_signed());
    assert_eq!(store.gauge_value("v.members"), Some(u64::MAX));
    let named = scope.gauge("version");
    named.set((1u64 << 63).cast_signed());
    assert_eq!(store.gauge_value("v.version"), Some(1 << 63));
    slab.gauge_dec(TestStats::active);
    assert_eq!(store.gauge_value("v.active"), Some(0));
}
