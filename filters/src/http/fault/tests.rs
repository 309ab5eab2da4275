//! The fault filter, with time that stands still.

use std::future::poll_fn;
use std::time::Duration;

use filter_api::{FilterStatus, HttpFilter, LocalReply, ResponseFlag, Resume, Side};
use outrigger_stats::Store;
use outrigger_types::StatusCode;
use prost::Message;
use xds_api::pb::envoy::extensions::filters::common::fault::v3 as common;
use xds_api::pb::envoy::extensions::filters::http::fault::v3 as pb;
use xds_api::pb::envoy::r#type::v3::FractionalPercent;

use crate::testing::{TestStream, factory_context};

type Specifier = common::fault_delay::FaultDelaySecifier;
type ErrorType = pb::fault_abort::ErrorType;

fn percent(numerator: u32) -> Option<FractionalPercent> {
    Some(FractionalPercent {
        numerator,
        denominator: 0,
    })
}

fn abort(error_type: ErrorType, share: u32) -> pb::HttpFault {
    pb::HttpFault {
        abort: Some(pb::FaultAbort {
            percentage: percent(share),
            response_body: String::new(),
            error_type: Some(error_type),
        }),
        ..pb::HttpFault::default()
    }
}

fn delayed(mut message: pb::HttpFault, specifier: Specifier) -> pb::HttpFault {
    message.delay = Some(common::FaultDelay {
        percentage: percent(100),
        fault_delay_secifier: Some(specifier),
    });
    message
}

fn two_seconds() -> Specifier {
    Specifier::FixedDelay(xds_api::pb::google::protobuf::Duration {
        seconds: 2,
        nanos: 0,
    })
}

/// The filter of a stream.
fn filter(stream: &TestStream, message: &pb::HttpFault) -> Box<dyn HttpFilter> {
    let config = super::filter(&message.encode_to_vec(), &factory_context()).unwrap();
    stream.filter(&*config, None).unwrap()
}

/// What becomes of the head.
fn decide(stream: &mut TestStream, message: &pb::HttpFault) -> Option<Box<LocalReply>> {
    let mut filter = filter(stream, message);
    match filter.decode_headers(&mut stream.context(), true) {
        FilterStatus::Reply(reply) => Some(reply),
        FilterStatus::Continue => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_abort_answers_as_configured() {
    let store = Store::default();
    let mut stream =
        TestStream::new(&store, "/").header("x-envoy-downstream-service-cluster", "me");
    let reply = decide(&mut stream, &abort(ErrorType::HttpStatus(418), 100)).unwrap();
    assert_eq!(reply.status, StatusCode::IM_A_TEAPOT);
    assert_eq!(
        (&reply.body[..], &*reply.details),
        (&b"fault filter abort"[..], "fault_filter_abort")
    );
    assert_eq!(reply.flag, Some(ResponseFlag::FaultInjected));
    let reply = decide(&mut stream, &abort(ErrorType::GrpcStatus(8), 100)).unwrap();
    assert_eq!((reply.status, reply.grpc_status), (StatusCode::OK, Some(8)));
    assert!(decide(&mut stream, &abort(ErrorType::HttpStatus(418), 0)).is_none());
}

#[test]
fn aborts_are_counted_in_all_and_by_caller() {
    let store = Store::default();
    let mut stream =
        TestStream::new(&store, "/").header("x-envoy-downstream-service-cluster", "me");
    let mut filter = filter(&stream, &abort(ErrorType::HttpStatus(503), 100));
    assert!(matches!(
        filter.decode_headers(&mut stream.context(), true),
        FilterStatus::Reply(_)
    ));
    let text = store.text();
    for line in [
        "http.inbound_test.fault.aborts_injected: 1\n",
        "http.inbound_test.fault.me.aborts_injected: 1\n",
        "http.inbound_test.fault.active_faults: 1\n",
        "http.inbound_test.fault.delays_injected: 0\n",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    drop(filter);
    let text = store.text();
    assert!(!text.contains("fault.active_faults: 1\n"), "{text}");
}

#[test]
fn the_request_says_with_what_it_is_aborted() {
    let by_header = abort(ErrorType::HeaderAbort(pb::fault_abort::HeaderAbort {}), 100);
    let run = |name: &'static str, value: &str| {
        let store = Store::default();
        let mut stream = TestStream::new(&store, "/").header(name, value);
        decide(&mut stream, &by_header).map(|r| (r.status.as_u16(), r.grpc_status))
    };
    assert_eq!(run("x-envoy-fault-abort-request", "429"), Some((429, None)));
    assert_eq!(
        run("x-envoy-fault-abort-grpc-request", "5"),
        Some((200, Some(5)))
    );
    assert_eq!(run("x-envoy-fault-abort-request", "99"), None);
    assert_eq!(run("x-other", "1"), None);
    let store = Store::default();
    let mut stream = TestStream::new(&store, "/")
        .header("x-envoy-fault-abort-request", "429")
        .header("x-envoy-fault-abort-request-percentage", "0");
    assert!(decide(&mut stream, &by_header).is_none());
}

#[test]
fn runtime_overrides_share_and_status() {
    let store = Store::default();
    let message = abort(ErrorType::HttpStatus(503), 0);
    let mut stream = TestStream::new(&store, "/").runtime("fault.http.abort.abort_percent", "100");
    assert_eq!(decide(&mut stream, &message).unwrap().status.as_u16(), 503);
    let message = abort(ErrorType::HttpStatus(503), 100);
    let mut stream = TestStream::new(&store, "/").runtime("fault.http.abort.http_status", "500");
    assert_eq!(decide(&mut stream, &message).unwrap().status.as_u16(), 500);
    // A caller that says its cluster has a key of its own.
    let mut stream = TestStream::new(&store, "/")
        .header("x-envoy-downstream-service-cluster", "c")
        .runtime("fault.http.abort.abort_percent", "0");
    assert!(decide(&mut stream, &message).is_some());
    let mut stream = TestStream::new(&store, "/")
        .header("x-envoy-downstream-service-cluster", "c")
        .runtime("fault.http.c.abort.abort_percent", "0");
    assert!(decide(&mut stream, &message).is_none());
    let mut stream = TestStream::new(&store, "/").runtime("fault.http.max_active_faults", "0");
    assert!(decide(&mut stream, &message).is_none());
}

#[test]
fn only_requests_that_match_get_a_fault() {
    let store = Store::default();
    let with = |change: fn(&mut pb::HttpFault)| {
        let mut message = abort(ErrorType::HttpStatus(503), 100);
        change(&mut message);
        message
    };
    let cluster = with(|m| m.upstream_cluster = "b".into());
    let same = with(|m| m.upstream_cluster = "a".into());
    let node = with(|m| m.downstream_nodes = vec!["n".into()]);
    let mut stream = TestStream::new(&store, "/");
    assert!(decide(&mut stream, &cluster).is_none());
    assert!(decide(&mut stream, &same).is_some());
    assert!(decide(&mut stream, &node).is_none());
    let mut stream = stream.header("x-envoy-downstream-service-node", "n");
    assert!(decide(&mut stream, &node).is_some());
}

#[test]
fn no_more_faults_than_allowed_are_active() {
    let store = Store::default();
    let mut message = abort(ErrorType::HttpStatus(503), 100);
    message.max_active_faults = Some(xds_api::pb::google::protobuf::UInt32Value { value: 1 });
    let config = super::filter(&message.encode_to_vec(), &factory_context()).unwrap();
    let mut stream = TestStream::new(&store, "/");
    let mut first = stream.filter(&*config, None).unwrap();
    let mut second = stream.filter(&*config, None).unwrap();
    assert!(matches!(
        first.decode_headers(&mut stream.context(), true),
        FilterStatus::Reply(_)
    ));
    assert!(matches!(
        second.decode_headers(&mut stream.context(), true),
        FilterStatus::Continue
    ));
    first.on_stream_complete(&mut stream.context());
    assert!(matches!(
        second.decode_headers(&mut stream.context(), true),
        FilterStatus::Reply(_)
    ));
}

#[tokio::test(start_paused = true)]
async fn a_delay_holds_the_request_and_an_abort_may_follow() {
    for (message, aborted) in [
        (delayed(pb::HttpFault::default(), two_seconds()), false),
        (
            delayed(abort(ErrorType::HttpStatus(500), 100), two_seconds()),
            true,
        ),
    ] {
        let store = Store::default();
        let mut stream = TestStream::new(&store, "/");
        let mut filter = filter(&stream, &message);
        assert!(matches!(
            filter.decode_headers(&mut stream.context(), true),
            FilterStatus::Pause
        ));
        let start = tokio::time::Instant::now();
        let resume =
            poll_fn(|task| filter.poll_resume(Side::Decode, &mut stream.context(), task)).await;
        assert_eq!(start.elapsed().as_secs(), 2);
        assert_eq!(matches!(resume, Resume::Reply(_)), aborted);
        assert!(stream.info.flags.has(ResponseFlag::DelayInjected));
    }
}

#[tokio::test(start_paused = true)]
async fn the_request_says_how_long_it_is_delayed() {
    let by_header = Specifier::HeaderDelay(common::fault_delay::HeaderDelay {});
    let message = delayed(pb::HttpFault::default(), by_header);
    let store = Store::default();
    let mut stream = TestStream::new(&store, "/").header("x-envoy-fault-delay-request", "1500");
    let mut filter = filter(&stream, &message);
    assert!(matches!(
        filter.decode_headers(&mut stream.context(), true),
        FilterStatus::Pause
    ));
    let start = tokio::time::Instant::now();
    poll_fn(|task| filter.poll_resume(Side::Decode, &mut stream.context(), task)).await;
    let elapsed = start.elapsed();
    assert!(
        (Duration::from_millis(1500)..Duration::from_millis(1510)).contains(&elapsed),
        "{elapsed:?}"
    );
    let mut stream = TestStream::new(&store, "/");
    assert!(decide(&mut stream, &message).is_none());
}

#[test]
fn a_route_overrides_the_fault() {
    let store = Store::default();
    let config = super::filter(
        &abort(ErrorType::HttpStatus(503), 100).encode_to_vec(),
        &factory_context(),
    )
    .unwrap();
    let route = super::route(&abort(ErrorType::HttpStatus(404), 100).encode_to_vec()).unwrap();
    let off = super::route(&pb::HttpFault::default().encode_to_vec()).unwrap();
    let mut stream = TestStream::new(&store, "/");
    let mut filter = stream.filter(&*config, Some(&route)).unwrap();
    let FilterStatus::Reply(reply) = filter.decode_headers(&mut stream.context(), true) else {
        panic!("not aborted");
    };
    assert_eq!(reply.status, StatusCode::NOT_FOUND);
    assert!(stream.filter(&*config, Some(&off)).is_none());
}
