//! A panic in a filter ends its own stream, and nothing else.

use bytes::Bytes;
use filter_api::Side;
use outrigger_filters::http::testing::{Behaviour, Part};
use serde_json::{Value, json};

use crate::lab::{Lab, Setup};
use crate::peers::{Client, Manner, Upstream, VERSIONS, get, grpc, streamed};

const PANICS: &str = "http.lab.downstream_rq_filter_panic";

/// Everything but `/panic` goes without the filter.
fn hosts() -> Value {
    let off = json!({"f0": {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig",
        "disabled": true}});
    json!([{"name": "all", "domains": ["*"], "routes": [
        {"match": {"prefix": "/panic"}, "route": {"cluster": "a"}},
        {"match": {"prefix": "/pkg"}, "route": {"cluster": "a"}},
        {"match": {"prefix": "/"}, "route": {"cluster": "a"}, "typed_per_filter_config": off},
    ]}])
}

async fn lab(side: Side, part: Part, manner: Manner, h2: bool) -> (Lab, Upstream) {
    let upstream = Upstream::start(manner).await;
    let mut setup = Setup::new(vec![Behaviour::Panic(side, part)], upstream.address, h2);
    setup.virtual_hosts = Some(hosts());
    let one = json!([{"max_requests": 1, "max_pending_requests": 1}]);
    setup.cluster = json!({"circuit_breakers": {"thresholds": one}});
    (Lab::start(setup).await, upstream)
}

#[tokio::test]
async fn a_panic_before_the_head_went_out_is_answered_500() {
    for h2 in VERSIONS {
        for (side, part) in [(Side::Decode, Part::Head), (Side::Encode, Part::Head)] {
            let (lab, _upstream) = lab(side, part, Manner::Echo, h2).await;
            // The breaker lets one request through at a time: each frees its slot.
            for times in 1..=3 {
                let mut client = Client::connect(lab.address, h2).await;
                let answer = client.call(get("/panic")).await.unwrap();
                assert_eq!(
                    (answer.status, &answer.body[..]),
                    (500, &b"Internal Server Error"[..])
                );
                assert_eq!(lab.counter(PANICS), times);
                lab.settles().await;
            }
            let mut client = Client::connect(lab.address, h2).await;
            assert_eq!(client.call(get("/")).await.unwrap().status, 200);
            lab.settles().await;
            let log = lab.logged(4).await;
            assert_eq!(log[0], "500 - filter_panic");
            assert_eq!(log[3], "200 - via_upstream");
        }
    }
}

#[tokio::test]
async fn a_panic_at_the_body_of_a_request_is_answered_500() {
    for h2 in VERSIONS {
        let (lab, upstream) = lab(Side::Decode, Part::Data, Manner::Silent, h2).await;
        let mut client = Client::connect(lab.address, h2).await;
        let (sender, mut request) = streamed();
        *request.uri_mut() = "http://lab/panic".parse().unwrap();
        let feed = async {
            upstream.has_active(1).await;
            // The proxy may be done with the stream by now.
            let _ = sender.send(Bytes::from_static(b"x")).await;
        };
        let (answer, ()) = tokio::join!(client.send(request), feed);
        assert_eq!(answer.unwrap().status(), 500);
        upstream.has_active(0).await;
        drop(sender);
        lab.settles().await;
        assert_eq!(lab.counter(PANICS), 1);
    }
}

#[tokio::test]
async fn a_grpc_caller_is_told_internal() {
    for part in [(Side::Decode, Part::Head), (Side::Encode, Part::Head)] {
        let (lab, _upstream) = lab(part.0, part.1, Manner::Echo, true).await;
        let mut client = Client::connect(lab.address, true).await;
        let mut call = grpc();
        *call.uri_mut() = "http://lab/pkg.S/M".parse().unwrap();
        let answer = client.call(call).await.unwrap();
        assert_eq!(answer.status, 200);
        assert_eq!(answer.headers["grpc-status"], "13");
        lab.settles().await;
    }
}

#[tokio::test]
async fn a_panic_after_the_head_went_out_resets_the_stream() {
    for h2 in VERSIONS {
        // Upstreams of hyper send trailers over HTTP/2 alone.
        let (lab, upstream) = lab(Side::Encode, Part::Trailers, Manner::LateTrailers, true).await;
        let mut client = Client::connect(lab.address, h2).await;
        client.call(get("/panic")).await.unwrap_err();
        assert_eq!(lab.counter(PANICS), 1);
        upstream.has_active(0).await;
        lab.settles().await;
    }
}

#[tokio::test]
async fn a_panic_at_the_end_is_counted_and_the_answer_stands() {
    for h2 in VERSIONS {
        let (lab, _upstream) = lab(Side::Decode, Part::Complete, Manner::Echo, h2).await;
        let mut client = Client::connect(lab.address, h2).await;
        for _ in 0..2 {
            assert_eq!(client.call(get("/panic")).await.unwrap().status, 200);
        }
        lab.settles().await;
        assert_eq!(lab.counter(PANICS), 2);
        assert_eq!(lab.logged(2).await[1], "200 - via_upstream");
    }
}

#[tokio::test]
async fn neighbours_on_the_connection_live_on() {
    let upstream = Upstream::start(Manner::Echo).await;
    let panics = Behaviour::Panic(Side::Decode, Part::Head);
    let mut setup = Setup::new(vec![panics], upstream.address, true);
    setup.virtual_hosts = Some(hosts());
    let lab = Lab::start(setup).await;
    let client = Client::connect(lab.address, true).await;
    let Client::Http2(sender) = &client else {
        panic!("not HTTP/2");
    };
    let mut neighbour = Client::Http2(sender.clone());
    let (pieces, request) = streamed();
    let waiting = tokio::spawn(async move { neighbour.call(request).await });
    pieces.send(Bytes::from_static(b"be")).await.unwrap();
    upstream.has_active(1).await;
    let mut client = client;
    for _ in 0..5 {
        assert_eq!(client.call(get("/panic")).await.unwrap().status, 500);
    }
    pieces.send(Bytes::from_static(b"fore")).await.unwrap();
    drop(pieces);
    let answer = waiting.await.unwrap().unwrap();
    assert_eq!((answer.status, &answer.body[..]), (200, &b"before"[..]));
    assert_eq!(lab.counter(PANICS), 5);
    assert_eq!(lab.counter("http.lab.downstream_cx_total"), 1);
    lab.settles().await;
}
