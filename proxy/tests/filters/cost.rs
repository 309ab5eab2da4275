//! What frames and connections cost a worker, under recorded limits: a timer, a
//! label or a log line a frame would show as allocations.

use std::net::TcpStream as StdStream;
use std::time::Duration;

use bytes::Bytes;
use filter_api::Side;
use hyper::client::conn::http2::SendRequest;
use outrigger_filters::http::testing::{Behaviour, Part};
use serde_json::json;
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::JoinHandle;

use crate::allocator::{allocations, live};
use crate::lab::{Lab, Setup};
use crate::peers::{Body, Client, Manner, Upstream, get, post, streamed};

/// Allocations of a worker for a small DATA frame that it passes on.
const PER_FRAME: f64 = 4.0;
/// Heap of an idle connection on which one request was served.
const PER_HTTP1_CONNECTION: i64 = 6 << 10;
const PER_HTTP2_CONNECTION: i64 = 44 << 10;
/// Heap of a connection on which nothing was said.
const PER_SILENT_CONNECTION: i64 = 8 << 10;

/// One at a time: all workers' allocations are counted together.
async fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::const_new(());
    ALONE.lock().await
}

#[tokio::test]
async fn a_frame_costs_few_allocations_however_long_the_stream() {
    let _alone = alone().await;
    let upstream = Upstream::start(Manner::Silent).await;
    let lab = Lab::start_counted(Setup::new(vec![], upstream.address, true));
    let mut client = Client::connect(lab.address, true).await;
    let (pieces, request) = streamed();
    let call = tokio::spawn(async move { client.send(request).await.map(|_| ()) });
    let mut taken = 0;
    let mut costs = Vec::new();
    for frames in [500, 4000, 4000] {
        let before = allocations();
        for _ in 0..frames {
            pieces.send(Bytes::from_static(&[7; 100])).await.unwrap();
            // Frames that come one by one are the dear ones.
            tokio::task::yield_now().await;
        }
        taken += frames * 100;
        upstream.has_taken(taken).await;
        costs.push((allocations() - before) as f64 / frames as f64);
    }
    call.abort();
    assert!(costs[1] <= PER_FRAME, "{costs:?} allocations a frame");
    assert!(costs[2] <= costs[1] * 1.2 + 0.1, "{costs:?}: it grows");
}

#[tokio::test]
async fn an_idle_connection_costs_little() {
    const CONNECTIONS: usize = 200;
    let _alone = alone().await;
    for (h2, limit) in [(false, PER_HTTP1_CONNECTION), (true, PER_HTTP2_CONNECTION)] {
        let upstream = Upstream::start(Manner::Echo).await;
        let lab = Lab::start_counted(Setup::new(vec![], upstream.address, true));
        let mut warm = Client::connect(lab.address, h2).await;
        assert_eq!(warm.call(get("/")).await.unwrap().status, 200);
        lab.settles().await;
        let before = live();
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS {
            let mut client = Client::connect(lab.address, h2).await;
            assert_eq!(client.call(get("/")).await.unwrap().status, 200);
            clients.push(client);
        }
        lab.settles().await;
        let each = (live() - before) / CONNECTIONS as i64;
        assert!(each <= limit, "{each} bytes, HTTP/2: {h2}");
        drop(clients);
    }
}

#[tokio::test]
async fn a_connection_that_says_nothing_costs_next_to_nothing() {
    const CONNECTIONS: usize = 300;
    let _alone = alone().await;
    let upstream = Upstream::start(Manner::Echo).await;
    let lab = Lab::start_counted(Setup::new(vec![], upstream.address, true));
    let accepted = |n: u64| {
        let lab = &lab;
        async move {
            while lab.counter("http.lab.downstream_cx_total") < n {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    };
    let _first = StdStream::connect(lab.address).unwrap();
    accepted(1).await;
    let before = live();
    let connections: Vec<StdStream> = (0..CONNECTIONS)
        .map(|_| StdStream::connect(lab.address).unwrap())
        .collect();
    accepted(1 + CONNECTIONS as u64).await;
    let each = (live() - before) / connections.len() as i64;
    assert!(each <= PER_SILENT_CONNECTION, "{each} bytes");
}

/// One stream of a connection that sends `count` pieces and stays open.
fn open(sender: &SendRequest<Body>, path: &str, count: usize) -> JoinHandle<()> {
    let mut client = Client::Http2(sender.clone());
    let (pieces, mut request) = streamed();
    *request.uri_mut() = format!("http://lab{path}").parse().unwrap();
    tokio::spawn(async move {
        let feed = async {
            for _ in 0..count {
                pieces.send(Bytes::from(vec![1; PIECE])).await.unwrap();
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = feed => {}
            _ = client.send(request) => {}
        }
    })
}

const PIECE: usize = 32 << 10;

/// A whole exchange beside other streams, in much less than any timeout.
async fn is_served_beside(sender: &SendRequest<Body>) {
    let body = vec![b'n'; 200_000];
    let mut neighbour = Client::Http2(sender.clone());
    let mut request = post(&body, &[]);
    *request.uri_mut() = "http://lab/echo".parse().unwrap();
    let call = tokio::time::timeout(Duration::from_secs(3), neighbour.call(request));
    let answer = call.await.expect("no starvation").unwrap();
    assert_eq!((answer.status, answer.body.len()), (200, body.len()));
}

#[tokio::test]
async fn a_stream_that_is_idle_holds_no_window_of_the_connection() {
    const IDLE: usize = 40;
    let silent = Upstream::start(Manner::Silent).await;
    let echo = Upstream::start(Manner::Echo).await;
    let mut setup = Setup::new(vec![], silent.address, true);
    setup.clusters.push(("echo", echo.address, true));
    setup.virtual_hosts = Some(json!([{"name": "all", "domains": ["*"], "routes": [
        {"match": {"prefix": "/echo"}, "route": {"cluster": "echo"}},
        {"match": {"prefix": "/"}, "route": {"cluster": "a"}},
    ]}]));
    let lab = Lab::start(setup).await;
    let Client::Http2(sender) = Client::connect(lab.address, true).await else {
        panic!("not HTTP/2");
    };
    // Together they send more than the window of the connection, 24 MiB.
    let idle: Vec<_> = (0..IDLE).map(|_| open(&sender, "/", 32)).collect();
    silent.has_taken((IDLE * 32 * PIECE) as i64).await;
    is_served_beside(&sender).await;
    idle.iter().for_each(JoinHandle::abort);
    lab.settles().await;
}

#[tokio::test]
async fn streams_that_wait_do_not_starve_those_that_move() {
    const WAITING: usize = 64;
    let echo = Upstream::start(Manner::Echo).await;
    let held = Behaviour::PauseForEver(Side::Decode, Part::Head);
    let mut setup = Setup::new(vec![held], echo.address, true);
    let off = json!({"f0": {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig",
        "disabled": true}});
    setup.virtual_hosts = Some(json!([{"name": "all", "domains": ["*"], "routes": [
        {"match": {"prefix": "/echo"}, "route": {"cluster": "a"}, "typed_per_filter_config": off},
        {"match": {"prefix": "/"}, "route": {"cluster": "a"}},
    ]}]));
    let lab = Lab::start(setup).await;
    let Client::Http2(sender) = Client::connect(lab.address, true).await else {
        panic!("not HTTP/2");
    };
    let waiting: Vec<_> = (0..WAITING).map(|_| open(&sender, "/held", 8)).collect();
    while lab.filters[0].alive() < WAITING as i64 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    is_served_beside(&sender).await;
    waiting.iter().for_each(JoinHandle::abort);
    lab.settles().await;
}
