//! Filters and routes: overrides, the choice of another route, and answers on
//! the way back.

use outrigger_filters::http::testing::Behaviour;
use outrigger_types::StatusCode;
use serde_json::{Value, json};

use crate::lab::{Lab, Setup, override_with};
use crate::peers::{Client, Manner, Seen, Upstream, VERSIONS, get, grpc, post};

fn mark(text: &str) -> Behaviour {
    Behaviour::Mark(text.into())
}

/// What the marks of a chain left on a request.
fn ran(seen: &Seen) -> Vec<&str> {
    let marks = seen.headers.get_all("x-ran").iter();
    marks.flat_map(|v| v.to_str().unwrap().split(',')).collect()
}

/// A host of one route for everything, with overrides.
fn host(domain: &str, of_host: Value, of_route: Value) -> Value {
    json!({"name": domain, "domains": [domain], "typed_per_filter_config": of_host, "routes": [
        {"match": {"prefix": "/"}, "route": {"cluster": "a"}, "typed_per_filter_config": of_route}]})
}

#[tokio::test]
async fn each_virtual_host_runs_each_filter_once_with_its_own_overrides() {
    for h2 in VERSIONS {
        let upstream = Upstream::start(Manner::Echo).await;
        let marks = vec![mark("one"), mark("two"), mark("three")];
        let mut setup = Setup::new(marks, upstream.address, h2);
        setup.virtual_hosts = Some(json!([
            host(
                "lab",
                json!({"f0": override_with("h0"), "f1": override_with("h1")}),
                json!({"f1": override_with("r1")}),
            ),
            host("*", json!({}), json!({"f2": override_with("other")})),
        ]));
        setup.hcm = json!({"route_config": {"typed_per_filter_config": {
            "f0": override_with("table0"), "f2": override_with("table2")}}});
        let lab = Lab::start(setup).await;
        let mut client = Client::connect(lab.address, h2).await;
        assert_eq!(client.call(get("/")).await.unwrap().status, 200);
        let mut elsewhere = get("/");
        if h2 {
            *elsewhere.uri_mut() = "http://elsewhere/".parse().unwrap();
        }
        let host = "elsewhere".parse().unwrap();
        elsewhere.headers_mut().insert("host", host);
        assert_eq!(client.call(elsewhere).await.unwrap().status, 200);
        let seen = upstream.seen();
        assert_eq!(ran(&seen[0]), ["h0", "r1", "table2"]);
        assert_eq!(ran(&seen[1]), ["table0", "two", "other"]);
    }
}

#[tokio::test]
async fn a_weighted_cluster_overrides_its_route_and_any_may_turn_a_filter_off() {
    let upstream = Upstream::start(Manner::Echo).await;
    let mut setup = Setup::new(vec![mark("one"), mark("two")], upstream.address, true);
    let config = |fields: Value| {
        let mut config = json!({"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig"});
        for (key, value) in fields.as_object().unwrap() {
            config[key] = value.clone();
        }
        config
    };
    let nested = config(json!({"config": override_with("weighted"), "is_optional": true}));
    setup.virtual_hosts = Some(json!([{"name": "all", "domains": ["*"],
        "typed_per_filter_config": {"f1": config(json!({"disabled": true}))},
        "routes": [{"match": {"prefix": "/"},
            "typed_per_filter_config": {"f0": override_with("route")},
            "route": {"weighted_clusters": {"clusters": [
                {"name": "a", "weight": 1, "typed_per_filter_config": {"f0": nested}}]}}}]}]));
    let lab = Lab::start(setup).await;
    let mut client = Client::connect(lab.address, true).await;
    assert_eq!(client.call(get("/")).await.unwrap().status, 200);
    assert_eq!(ran(&upstream.seen()[0]), ["weighted"]);
}

#[tokio::test]
async fn filters_after_one_that_clears_the_route_have_the_overrides_of_the_next() {
    for h2 in VERSIONS {
        let (a, b) = (
            Upstream::start(Manner::Echo).await,
            Upstream::start(Manner::Echo).await,
        );
        let filters = vec![
            mark("one"),
            Behaviour::ClearRouteCache,
            mark("two"),
            mark("three"),
        ];
        let mut setup = Setup::new(filters, a.address, h2);
        setup.clusters.push(("b", b.address, h2));
        let cleared = json!({"name": "x-cleared", "present_match": true});
        let off = json!({"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig",
            "disabled": true});
        setup.virtual_hosts = Some(json!([{"name": "all", "domains": ["*"], "routes": [
            {"match": {"prefix": "/", "headers": [cleared]}, "route": {"cluster": "b"},
                "typed_per_filter_config": {"f0": override_with("late"),
                    "f2": override_with("new")}},
            {"match": {"prefix": "/"}, "route": {"cluster": "a"}, "typed_per_filter_config": {
                "f0": override_with("first"), "f2": override_with("old"), "f3": off}},
        ]}]));
        let lab = Lab::start(setup).await;
        let mut client = Client::connect(lab.address, h2).await;
        let answer = client.call(post(b"body", &[])).await.unwrap();
        assert_eq!((answer.status, &answer.body[..]), (200, &b"body"[..]));
        assert!(a.seen().is_empty());
        // What is off is so by the first route, as in Envoy.
        assert_eq!(ran(&b.seen()[0]), ["first", "new"]);
        lab.settles().await;
    }
}

#[tokio::test]
async fn an_answer_on_the_way_back_replaces_the_response() {
    for h2 in VERSIONS {
        for manner in [Manner::Echo, Manner::Endless] {
            let upstream = Upstream::start(manner).await;
            let answers = Behaviour::AnswerOnEncode(StatusCode::IM_A_TEAPOT);
            let lab = Lab::start(Setup::new(vec![answers], upstream.address, h2)).await;
            let mut client = Client::connect(lab.address, h2).await;
            let answer = client.call(get("/")).await.unwrap();
            assert_eq!(
                (answer.status, &answer.body[..]),
                (418, &b"answered on the way back"[..])
            );
            assert_eq!(lab.logged(1).await, ["418 - test_filter"]);
            upstream.has_active(0).await;
            lab.settles().await;
            if h2 {
                let answer = client.call(grpc()).await.unwrap();
                assert_eq!(answer.headers["grpc-status"], "2");
            }
        }
    }
}
