//! A filter that asks another cluster while its stream waits.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use outrigger_filters::http::testing::Behaviour;

use crate::lab::{Lab, Setup};
use crate::peers::{Client, Manner, Upstream, VERSIONS, get, post};

fn callout(fail_open: bool) -> Behaviour {
    Behaviour::Callout {
        cluster: "calls".into(),
        timeout: Duration::from_secs(30),
        fail_open,
    }
}

async fn lab(called: SocketAddr, fail_open: bool, h2: bool) -> (Lab, Upstream) {
    let upstream = Upstream::start(Manner::Echo).await;
    let mut setup = Setup::new(vec![callout(fail_open)], upstream.address, h2);
    setup.clusters.push(("calls", called, h2));
    (Lab::start(setup).await, upstream)
}

/// An address where nobody listens.
fn nowhere() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

#[tokio::test]
async fn the_stream_goes_on_with_the_answer() {
    for h2 in VERSIONS {
        let called = Upstream::start(Manner::Echo).await;
        let (lab, upstream) = lab(called.address, false, h2).await;
        let mut client = Client::connect(lab.address, h2).await;
        let answer = client.call(post(b"hello", &[])).await.unwrap();
        assert_eq!((answer.status, &answer.body[..]), (200, &b"hello"[..]));
        assert_eq!(upstream.seen()[0].headers["x-called"], "200");
        assert_eq!(called.seen()[0].path, "/check");
        lab.settles().await;
    }
}

#[tokio::test]
async fn a_call_that_fails_is_survived_or_answered() {
    for h2 in VERSIONS {
        let (lab_open, upstream) = lab(nowhere(), true, h2).await;
        let mut client = Client::connect(lab_open.address, h2).await;
        assert_eq!(client.call(get("/")).await.unwrap().status, 200);
        assert_eq!(upstream.seen()[0].headers["x-called"], "error");
        lab_open.settles().await;

        let (lab, upstream) = lab(nowhere(), false, h2).await;
        let mut client = Client::connect(lab.address, h2).await;
        let answer = client.call(get("/")).await.unwrap();
        assert_eq!(
            (answer.status, &answer.body[..]),
            (503, &b"the call failed"[..])
        );
        assert!(upstream.seen().is_empty());
        assert_eq!(lab.logged(1).await, ["503 - test_filter"]);
        lab.settles().await;
    }
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_the_call() {
    for h2 in VERSIONS {
        let called = Upstream::start(Manner::Silent).await;
        let (lab, upstream) = lab(called.address, true, h2).await;
        let mut client = Client::connect(lab.address, h2).await;
        let waiting = tokio::spawn(async move { client.call(get("/")).await.map(|a| a.status) });
        called.has_active(1).await;
        assert_eq!(lab.filters[0].alive(), 1);
        waiting.abort();
        called.has_active(0).await;
        lab.settles().await;
        assert!(upstream.seen().is_empty());
        assert_eq!(
            lab.logged(1).await.len(),
            1,
            "the stream is logged once it is over"
        );
    }
}
