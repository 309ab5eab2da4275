//! The filter by hand; what it does on the wire is compared with Envoy's.

use filter_api::ConfigError;
use outrigger_stats::Store;
use prost::Message;
use xds_api::pb::envoy::extensions::filters::http::cors::v3 as pb;
use xds_api::pb::envoy::r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern};
use xds_api::pb::google::protobuf::BoolValue;

use super::*;
use crate::testing::{TestStream, factory_context, headers};

fn exact(origin: &str) -> StringMatcher {
    StringMatcher {
        match_pattern: Some(MatchPattern::Exact(origin.into())),
        ..StringMatcher::default()
    }
}

fn policy(message: &pb::CorsPolicy) -> RouteFilterConfig {
    route(&message.encode_to_vec()).unwrap()
}

fn allowing(origin: &str) -> pb::CorsPolicy {
    pb::CorsPolicy {
        allow_origin_string_match: vec![exact(origin)],
        ..pb::CorsPolicy::default()
    }
}

/// The filter of a stream whose route has these policies, the most specific first.
fn filter_of(stream: &TestStream, policies: &[RouteFilterConfig]) -> Option<Box<dyn HttpFilter>> {
    let config = filter(b"", &factory_context()).unwrap();
    let worker = WorkerContext {
        index: 0,
        store: stream.services.store.clone(),
    };
    let cx = CreateContext {
        services: &stream.services,
        overrides: &|| policies.to_vec(),
    };
    config.factory(&worker).create(policies.first(), &cx)
}

fn preflight(store: &Store, origin: &str) -> TestStream {
    let mut stream = TestStream::new(store, "/")
        .header("origin", origin)
        .header("access-control-request-method", "PUT")
        .header("access-control-request-headers", "x-a");
    stream.request.method = Method::OPTIONS;
    stream
}

#[test]
fn without_a_policy_it_takes_no_part() {
    let stream = preflight(&Store::default(), "http://a");
    assert!(filter_of(&stream, &[]).is_none());
}

#[test]
fn a_level_says_what_the_more_specific_one_leaves_open() {
    let specific = pb::CorsPolicy {
        allow_methods: "*".into(),
        allow_credentials: Some(BoolValue { value: false }),
        ..pb::CorsPolicy::default()
    };
    let general = pb::CorsPolicy {
        allow_methods: "GET".into(),
        allow_headers: "x-b".into(),
        max_age: "60".into(),
        allow_credentials: Some(BoolValue { value: true }),
        ..allowing("http://a")
    };
    let policies = [policy(&specific), policy(&general)];
    let mut stream = preflight(&Store::default(), "http://a");
    let mut filter = filter_of(&stream, &policies).unwrap();
    let FilterStatus::Reply(reply) = filter.decode_headers(&mut stream.context(), true) else {
        panic!("a preflight request is answered");
    };
    let expected = headers(&[
        ("access-control-allow-origin", "http://a"),
        ("access-control-allow-methods", "PUT"),
        ("access-control-allow-headers", "x-b"),
        ("access-control-max-age", "60"),
    ]);
    let fields = |headers: &Headers| format!("{:?}", headers.iter().collect::<Vec<_>>());
    assert_eq!(fields(&reply.headers), fields(&expected));
    assert!(reply.verbatim && reply.body.is_empty());
}

#[test]
fn an_origin_that_is_not_allowed_is_forwarded_unless_it_must_not() {
    let store = Store::default();
    for (forwards, answered) in [(None, false), (Some(true), false), (Some(false), true)] {
        let message = pb::CorsPolicy {
            forward_not_matching_preflights: forwards.map(|value| BoolValue { value }),
            ..allowing("http://a")
        };
        let mut stream = preflight(&store, "http://b");
        let mut filter = filter_of(&stream, &[policy(&message)]).unwrap();
        let status = filter.decode_headers(&mut stream.context(), true);
        assert_eq!(matches!(status, FilterStatus::Reply(_)), answered);
        let mut head = ResponseHead::new(StatusCode::OK);
        filter.encode_headers(&mut stream.context(), &mut head, true);
        assert!(head.headers.is_empty());
    }
}

#[test]
fn a_route_to_no_cluster_is_left_alone() {
    let mut stream = preflight(&Store::default(), "http://a");
    stream.route.cluster = None;
    let mut filter = filter_of(&stream, &[policy(&allowing("http://a"))]).unwrap();
    let status = filter.decode_headers(&mut stream.context(), true);
    assert!(matches!(status, FilterStatus::Continue));
}

#[test]
fn a_value_that_cannot_be_sent_is_refused() {
    let message = pb::CorsPolicy {
        allow_methods: "GET\r\nset-cookie: a".into(),
        ..pb::CorsPolicy::default()
    };
    let error: ConfigError = route(&message.encode_to_vec()).unwrap_err();
    assert!(error.to_string().contains("allow_methods"), "{error}");
}
