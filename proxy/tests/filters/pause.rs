//! Filters that hold a stream back: for a while, or for ever.

use std::time::Duration;

use bytes::Bytes;
use filter_api::Side;
use outrigger_filters::http::testing::{Behaviour, Part};
use serde_json::json;

use crate::lab::{Lab, Setup};
use crate::peers::{Client, Manner, Upstream, VERSIONS, get, grpc, post, streamed};

const IDLE: &str = "0.2s";

async fn lab(behaviour: Behaviour, manner: Manner, h2: bool) -> (Lab, Upstream) {
    let upstream = Upstream::start(manner).await;
    let mut setup = Setup::new(vec![behaviour], upstream.address, h2);
    setup.hcm = json!({"stream_idle_timeout": IDLE});
    (Lab::start(setup).await, upstream)
}

#[tokio::test]
async fn a_request_held_for_ever_is_ended_by_the_idle_timeout() {
    for h2 in VERSIONS {
        let held = Behaviour::PauseForEver(Side::Decode, Part::Head);
        let (lab, upstream) = lab(held, Manner::Echo, h2).await;
        let mut client = Client::connect(lab.address, h2).await;
        let answer = client.call(get("/")).await.unwrap();
        assert_eq!(
            (answer.status, &answer.body[..]),
            (504, &b"stream timeout"[..])
        );
        assert_eq!(lab.logged(1).await, ["504 SI stream_idle_timeout"]);
        let (_sender, unfinished) = streamed();
        let answer = client.send(unfinished).await.unwrap();
        assert_eq!(answer.status(), 408);
        drop((answer, _sender));
        assert_eq!(lab.counter("http.lab.downstream_rq_idle_timeout"), 2);
        assert!(upstream.seen().is_empty());
        lab.settles().await;
    }
}

#[tokio::test]
async fn a_grpc_caller_that_is_held_for_ever_gets_a_status() {
    let held = Behaviour::PauseForEver(Side::Decode, Part::Head);
    let (lab, _upstream) = lab(held, Manner::Echo, true).await;
    let mut client = Client::connect(lab.address, true).await;
    let answer = client.call(grpc()).await.unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["grpc-status"], "14");
    lab.settles().await;
}

#[tokio::test]
async fn a_call_without_answer_is_cancelled_by_the_idle_timeout() {
    for h2 in VERSIONS {
        let called = Upstream::start(Manner::Silent).await;
        let upstream = Upstream::start(Manner::Echo).await;
        let callout = Behaviour::Callout {
            cluster: "calls".into(),
            timeout: Duration::from_secs(60),
            fail_open: true,
        };
        let mut setup = Setup::new(vec![callout], upstream.address, h2);
        setup.clusters.push(("calls", called.address, h2));
        setup.hcm = json!({"stream_idle_timeout": IDLE});
        let lab = Lab::start(setup).await;
        let mut client = Client::connect(lab.address, h2).await;
        let answer = client.call(get("/")).await.unwrap();
        assert_eq!(answer.status, 504);
        called.has_active(0).await;
        lab.settles().await;
    }
}

#[tokio::test]
async fn a_response_held_for_ever_is_ended_by_the_idle_timeout() {
    for h2 in VERSIONS {
        for manner in [Manner::Echo, Manner::Endless] {
            let held = Behaviour::PauseForEver(Side::Encode, Part::Head);
            let (lab, upstream) = lab(held, manner, h2).await;
            let mut client = Client::connect(lab.address, h2).await;
            let answer = client.call(get("/")).await.unwrap();
            // The answer does not wait at the filter that holds the response.
            assert_eq!(
                (answer.status, &answer.body[..]),
                (504, &b"stream timeout"[..])
            );
            assert_eq!(lab.logged(1).await, ["504 SI stream_idle_timeout"]);
            upstream.has_active(0).await;
            lab.settles().await;
        }
    }
}

#[tokio::test]
async fn a_body_held_for_ever_is_cut_by_the_idle_timeout() {
    for h2 in VERSIONS {
        let held = Behaviour::PauseForEver(Side::Encode, Part::Data);
        let (lab, upstream) = lab(held, Manner::Endless, h2).await;
        let mut client = Client::connect(lab.address, h2).await;
        client.call(get("/")).await.unwrap_err();
        assert_eq!(lab.logged(1).await, ["200 SI stream_idle_timeout"]);
        upstream.has_active(0).await;
        lab.settles().await;
    }
}

#[tokio::test]
async fn what_was_held_for_a_while_arrives_whole() {
    const TRAILERS: &[(&str, &str)] = &[("x-t", "1")];
    for h2 in VERSIONS {
        for side in [Side::Decode, Side::Encode] {
            for part in [Part::Head, Part::Data, Part::Trailers] {
                let pause = Behaviour::PauseFor(side, part, Duration::from_millis(30));
                // Upstreams of hyper send trailers over HTTP/2 alone.
                let upstream = Upstream::start(Manner::Echo).await;
                let lab = Lab::start(Setup::new(vec![pause], upstream.address, true)).await;
                let mut client = Client::connect(lab.address, h2).await;
                let body = vec![b'x'; 300_000];
                let answer = client.call(post(&body, TRAILERS)).await.unwrap();
                assert_eq!(answer.status, 200);
                assert!(answer.body == body, "{side:?} {part:?} over HTTP/2: {h2}");
                assert_eq!(answer.trailers["x-t"], "1");
                lab.settles().await;
            }
        }
    }
}

#[tokio::test]
async fn a_filter_that_waits_for_more_than_the_window_is_not_starved() {
    for h2 in VERSIONS {
        let pause = Behaviour::PauseFor(Side::Decode, Part::Data, Duration::from_millis(50));
        let (lab, _upstream) = lab(pause, Manner::Echo, h2).await;
        let mut client = Client::connect(lab.address, h2).await;
        let (sender, request) = streamed();
        let feed = tokio::spawn(async move {
            for _ in 0..64 {
                let piece = Bytes::from(vec![b'y'; 32 << 10]);
                if sender.send(piece).await.is_err() {
                    return;
                }
            }
        });
        let answer = client.call(request).await.unwrap();
        feed.await.unwrap();
        assert_eq!((answer.status, answer.body.len()), (200, 2 << 20));
        lab.settles().await;
    }
}
