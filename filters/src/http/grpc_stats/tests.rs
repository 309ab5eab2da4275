//! The filter's stats against those that Envoy 1.40 printed for the same calls.

use filter_api::{CreateContext, HttpFilterFactory, WorkerContext};
use outrigger_stats::Store;
use outrigger_types::{MetadataValue, ResponseHead, StatusCode};
use prost::Message;
use xds_api::pb::envoy::config::core::v3 as core;
use xds_api::pb::envoy::extensions::filters::http::grpc_stats::v3 as pb;
use xds_api::pb::google::protobuf::BoolValue;

use crate::testing::{TestStream, data, factory_context, headers};

use pb::filter_config::PerMethodStatSpecifier as Kind;

fn message(kind: Option<Kind>) -> pb::FilterConfig {
    pb::FilterConfig {
        per_method_stat_specifier: kind,
        ..pb::FilterConfig::default()
    }
}

fn all() -> pb::FilterConfig {
    message(Some(Kind::StatsForAllMethods(BoolValue { value: true })))
}

/// One call: two messages up, one down; the status in trailers, in the head
/// alone, or nowhere.
struct Call {
    path: &'static str,
    content_type: &'static str,
    trailers: Option<&'static [(&'static str, &'static str)]>,
    head: &'static [(&'static str, &'static str)],
    code: u16,
}

const UP: &[u8] = &[0, 0, 0, 0, 2, b'h', b'i', 0, 0, 0, 0, 1, b'x'];
const DOWN: &[u8] = &[0, 0, 0, 0, 1, b'r'];

fn call(path: &'static str, trailers: &'static [(&'static str, &'static str)]) -> Call {
    Call {
        path,
        content_type: "application/grpc",
        trailers: Some(trailers),
        head: &[],
        code: 200,
    }
}

fn run(factory: &dyn HttpFilterFactory, store: &Store, call: &Call) {
    let mut stream = TestStream::new(store, call.path).header("content-type", call.content_type);
    let cx = CreateContext {
        overrides: &Vec::new,
        services: &stream.services,
    };
    let mut filter = factory.create(None, &cx).unwrap();
    let mut cx = stream.context();
    filter.decode_headers(&mut cx, false);
    for chunk in UP.chunks(4) {
        filter.decode_data(&mut cx, &mut data(chunk), false);
    }
    let mut head = ResponseHead::new(StatusCode::from_u16(call.code).unwrap());
    head.headers = headers(call.head);
    head.headers
        .extend(headers(&[("content-type", "application/grpc")]));
    filter.encode_headers(&mut cx, &mut head, call.trailers.is_none());
    if let Some(trailers) = call.trailers {
        filter.encode_data(&mut cx, &mut data(DOWN), false);
        filter.encode_trailers(&mut cx, &mut headers(trailers));
    }
    filter.on_stream_complete(&mut cx);
}

/// The calls that Envoy was recorded with.
fn calls() -> Vec<Call> {
    const OK: &[(&str, &str)] = &[("grpc-status", "0")];
    const UNAVAILABLE: &[(&str, &str)] = &[("grpc-status", "14")];
    let head_only = |path, head, code| Call {
        head,
        trailers: None,
        code,
        ..call(path, &[])
    };
    vec![
        call("/pkg.S/M", OK),
        call("/pkg.S/M", &[("grpc-status", "5")]),
        head_only("/pkg.S/N", UNAVAILABLE, 200),
        call("/pkg.T/M", OK),
        call("/pkg.S/M/extra", OK),
        call("/nope", OK),
        Call {
            content_type: "application/grpc-web",
            ..call("/pkg.S/M", OK)
        },
        Call {
            content_type: "application/json",
            ..call("/pkg.S/M", OK)
        },
        call("/pkg.S/X?q=1", &[]),
        call("/pkg.S/Y", &[("grpc-status", "99")]),
        call("/pkg.S/Z", &[("grpc-status", "abc")]),
        head_only("/pkg.S/W", &[], 503),
        call("/a.b-c/M%20", &[("grpc-status", "16")]),
        head_only("/pkg.S/nottrailer", OK, 200),
        call("//M", OK),
        call("/S/", OK),
        Call {
            content_type: "application/grpc+proto",
            ..call("/pkg.S/C", OK)
        },
    ]
}

/// The store after all calls; the factory keeps its stats alive.
fn after(message: &pb::FilterConfig) -> (Store, Box<dyn HttpFilterFactory>) {
    let store = Store::default();
    let config = super::filter(&message.encode_to_vec(), &factory_context()).unwrap();
    let factory = config.factory(&WorkerContext {
        index: 0,
        store: store.clone(),
    });
    for call in calls() {
        run(&*factory, &store, &call);
    }
    (store, factory)
}

fn stats_of(message: &pb::FilterConfig) -> Vec<String> {
    let (store, _factory) = after(message);
    let text = store.text();
    let lines = text
        .lines()
        .filter_map(|line| line.strip_prefix("cluster.a.grpc."));
    lines.map(ToOwned::to_owned).collect()
}

#[test]
fn without_options_a_cluster_counts_as_a_whole() {
    let expected = [
        "0: 4",
        "14: 1",
        "16: 1",
        "5: 1",
        "99: 1",
        "abc: 1",
        "failure: 5",
        "request_message_count: 22",
        "response_message_count: 8",
        "success: 4",
        "total: 9",
    ];
    assert_eq!(stats_of(&message(None)), expected);
    assert_eq!(
        stats_of(&message(Some(Kind::StatsForAllMethods(BoolValue {
            value: false
        })))),
        expected
    );
}

#[test]
fn methods_that_are_listed_count_apart() {
    let service = core::grpc_method_list::Service {
        name: "pkg.S".to_owned(),
        method_names: vec!["M".to_owned(), "N".to_owned()],
    };
    let list = core::GrpcMethodList {
        services: vec![service],
    };
    let stats = stats_of(&message(Some(Kind::IndividualMethodStatsAllowlist(list))));
    assert_eq!(
        stats,
        [
            "0: 3",
            "16: 1",
            "99: 1",
            "abc: 1",
            "failure: 3",
            "pkg.S.M.0: 1",
            "pkg.S.M.5: 1",
            "pkg.S.M.failure: 1",
            "pkg.S.M.request_message_count: 4",
            "pkg.S.M.response_message_count: 2",
            "pkg.S.M.success: 1",
            "pkg.S.M.total: 2",
            "pkg.S.N.14: 1",
            "pkg.S.N.failure: 1",
            "pkg.S.N.request_message_count: 2",
            "pkg.S.N.total: 1",
            "request_message_count: 16",
            "response_message_count: 6",
            "success: 3",
            "total: 6",
        ]
    );
}

#[test]
fn every_method_may_count_apart() {
    let stats = stats_of(&all());
    for line in [
        "a.b-c.M%20.16: 1",
        "pkg.S.W.request_message_count: 2",
        "pkg.S.X.request_message_count: 2",
        "pkg.S.X.response_message_count: 1",
        "pkg.S.Y.99: 1",
        "pkg.S.Y.failure: 1",
        "pkg.S.Z.abc: 1",
        "pkg.S.Z.total: 1",
        "pkg.S.nottrailer.success: 1",
        "pkg.S.C.total: 1",
    ] {
        assert!(
            stats.iter().any(|s| s == line),
            "{line} is not in {stats:#?}"
        );
    }
    assert!(
        !stats
            .iter()
            .any(|s| s.starts_with("pkg.S.X.total") || s.starts_with("pkg.S.W.total"))
    );
    assert!(
        !stats
            .iter()
            .any(|s| s.contains("extra") || s.contains("nope"))
    );
    let replaced = stats_of(&pb::FilterConfig {
        replace_dots_in_grpc_service_name: true,
        ..all()
    });
    assert!(
        replaced.iter().any(|s| s == "pkg_S.M.total: 2"),
        "{replaced:#?}"
    );
}

#[test]
fn our_own_families_have_labels() {
    let (store, _factory) = after(&all());
    let metrics = store.open_metrics().body;
    for line in [
        "outrigger_grpc_requests_total{direction=\"inbound\",cluster=\"a\",service=\"pkg.S\",method=\"M\",grpc_status=\"5\"} 1",
        "outrigger_grpc_requests_total{direction=\"inbound\",cluster=\"a\",service=\"pkg.S\",method=\"X\",grpc_status=\"none\"} 1",
        "outrigger_grpc_requests_total{direction=\"inbound\",cluster=\"a\",service=\"pkg.S\",method=\"Z\",grpc_status=\"invalid\"} 1",
        "outrigger_grpc_messages_sent_total{direction=\"inbound\",cluster=\"a\",service=\"pkg.S\",method=\"M\"} 4",
        "outrigger_grpc_messages_received_total{direction=\"inbound\",cluster=\"a\",service=\"pkg.S\",method=\"M\"} 2",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
}

#[test]
fn the_counts_of_messages_are_left_with_the_stream() {
    let config = pb::FilterConfig {
        emit_filter_state: true,
        ..all()
    };
    let config = super::filter(&config.encode_to_vec(), &factory_context()).unwrap();
    let mut stream =
        TestStream::new(&Store::default(), "/pkg.S/M").header("content-type", "application/grpc");
    let mut filter = stream.filter(&*config, None).unwrap();
    let mut cx = stream.context();
    filter.decode_headers(&mut cx, false);
    filter.decode_data(&mut cx, &mut data(UP), true);
    filter.on_stream_complete(&mut cx);
    let state = stream.info.filter_state.unwrap();
    let object = state.get(super::STATE_KEY).unwrap();
    assert_eq!(object.plain.as_deref(), Some("2,0"));
    let counts = &object.typed;
    assert_eq!(
        counts.at(["requestMessageCount"]),
        Some(&MetadataValue::String("2".into()))
    );
    assert_eq!(counts.at(["responseMessageCount"]), None);
}
