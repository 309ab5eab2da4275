//! The driver over a transport in memory, with paused time.

mod support;

use std::sync::Arc;
use std::time::Duration;

use support::*;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use xds_client::driver::{Client, Notice};
use xds_client::message::{Rejection, Request, Response, Variant};
use xds_client::transport::{Opening, Responses, Transport};
use xds_client::types::{CLUSTER, ENDPOINTS};

/// The server's end of a stream.
struct Peer {
    requests: mpsc::Receiver<Request>,
    responses: mpsc::Sender<Result<Response, String>>,
}

impl Peer {
    async fn line(&mut self) -> String {
        line(&self.requests.recv().await.expect("the stream is open"))
    }

    async fn send(&self, response: Response) {
        self.responses.send(Ok(response)).await.unwrap();
    }
}

/// Streams that a test answers.
struct InMemory {
    peers: mpsc::UnboundedSender<Peer>,
    /// Streams that fail at once, at first.
    failures: usize,
}

impl Transport for InMemory {
    fn open(&mut self, requests: mpsc::Receiver<Request>) -> Opening {
        if self.failures > 0 {
            self.failures -= 1;
            return Box::pin(async { Err("refused".to_owned()) });
        }
        let (responses, receiver) = mpsc::channel(1);
        // A test that is over takes no more streams.
        let _ = self.peers.send(Peer {
            requests,
            responses,
        });
        Box::pin(async move { Ok(Box::pin(ReceiverStream::new(receiver)) as Responses) })
    }
}

struct Setup {
    client: Client,
    notices: mpsc::Receiver<((), Notice)>,
    peers: mpsc::UnboundedReceiver<Peer>,
}

fn start(failures: usize) -> Setup {
    let (sender, notices) = mpsc::channel(4);
    let (peers, receiver) = mpsc::unbounded_channel();
    let transport = InMemory { peers, failures };
    Setup {
        client: Client::start(settings(Variant::Delta), transport, (), sender),
        notices,
        peers: receiver,
    }
}

impl Setup {
    async fn notice(&mut self) -> Notice {
        self.notices.recv().await.expect("the client runs").1
    }

    /// The next push.
    async fn push(&mut self) -> xds_client::protocol::Push {
        loop {
            if let Notice::Push(push) = self.notice().await {
                return push;
            }
        }
    }
}

fn url(text: &str) -> Arc<str> {
    text.into()
}

#[tokio::test(start_paused = true)]
async fn carries_requests_pushes_and_verdicts() {
    let mut t = start(0);
    t.client.subscribe(&url(CLUSTER), arcs(&["*"]), None);
    let mut peer = t.peers.recv().await.unwrap();
    assert!(matches!(t.notice().await, Notice::Connected));
    assert!(peer.line().await.starts_with("CDS nonce= +[]"));
    let one = vec![resource(CLUSTER, "a", "1", "x")];
    peer.send(delta(CLUSTER, "n1", one, &[])).await;
    let push = t.push().await;
    t.client.subscribe(&url(ENDPOINTS), arcs(&["a"]), None);
    t.client.validated(vec![Rejection {
        name: push.changed[0].name.clone(),
        reason: "no".into(),
    }]);
    assert!(peer.line().await.starts_with("EDS nonce= +[\"a\"]"));
    assert!(peer.line().await.contains("error=Some(\"a: no\")"));
}

#[tokio::test(start_paused = true)]
async fn a_push_waits_for_the_verdict_on_the_one_before() {
    let mut t = start(0);
    t.client.subscribe(&url(CLUSTER), arcs(&["*"]), None);
    let peer = t.peers.recv().await.unwrap();
    for nonce in ["n1", "n2"] {
        let one = vec![resource(CLUSTER, "a", nonce, nonce)];
        peer.send(delta(CLUSTER, nonce, one, &[])).await;
    }
    assert_eq!(&*t.push().await.version, "n1");
    while let Ok((_, notice)) = t.notices.try_recv() {
        assert!(!matches!(notice, Notice::Push(_)), "{notice:?}");
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(t.notices.try_recv().is_err());
    t.client.validated(Vec::new());
    assert_eq!(&*t.push().await.version, "n2");
}

#[tokio::test(start_paused = true)]
async fn comes_back_with_back_off_and_says_what_it_holds() {
    let mut t = start(0);
    t.client.subscribe(&url(CLUSTER), arcs(&["*"]), None);
    let peer = t.peers.recv().await.unwrap();
    let one = vec![resource(CLUSTER, "a", "7", "x")];
    peer.send(delta(CLUSTER, "n1", one, &[])).await;
    t.push().await;
    t.client.validated(Vec::new());
    tokio::time::sleep(Duration::from_millis(1)).await;
    let begin = Instant::now();
    drop(peer);
    let mut peer = t.peers.recv().await.unwrap();
    assert!(begin.elapsed() <= Duration::from_millis(501));
    assert!(peer.line().await.contains("held=[(\"a\", \"7\")]"));
    match t.notice().await {
        Notice::Disconnected { reason, types } => {
            assert_eq!(reason, "closed by the server");
            assert_eq!(types, arcs(&[CLUSTER]));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn streams_that_fail_are_tried_ever_more_slowly() {
    let mut t = start(12);
    t.client.subscribe(&url(CLUSTER), arcs(&["*"]), None);
    let begin = Instant::now();
    let mut failures = 0;
    loop {
        match t.notice().await {
            Notice::Disconnected { reason, .. } => {
                assert_eq!(reason, "refused");
                failures += 1;
            }
            Notice::Connected if failures == 12 => break,
            _ => {}
        }
    }
    // 0.5 + 1 + 2 + 4 + 8 + 16 + 6 * 30 seconds, each jittered down to anything.
    assert!(begin.elapsed() < Duration::from_millis(211_500));
    assert!(begin.elapsed() > Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn timers_run_also_without_a_stream() {
    let mut t = start(usize::MAX);
    let begin = Instant::now();
    let timeout = Some(Duration::from_secs(15));
    t.client.subscribe(&url(CLUSTER), arcs(&["*"]), timeout);
    loop {
        if let Notice::FetchTimedOut { type_url, name } = t.notice().await {
            assert_eq!((&*type_url, &*name), (CLUSTER, "*"));
            break;
        }
    }
    let elapsed = begin.elapsed();
    assert!(
        elapsed >= Duration::from_secs(15) && elapsed < Duration::from_secs(16),
        "{elapsed:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_resource_expires_when_its_time_is_over() {
    let mut t = start(0);
    t.client.subscribe(&url(CLUSTER), arcs(&["*"]), None);
    let peer = t.peers.recv().await.unwrap();
    let mortal = with_ttl(resource(CLUSTER, "a", "1", "x"), 2);
    peer.send(delta(CLUSTER, "n1", vec![mortal], &[])).await;
    t.push().await;
    let begin = Instant::now();
    t.client.validated(Vec::new());
    loop {
        if let Notice::Expired { name, .. } = t.notice().await {
            assert_eq!(&*name, "a");
            break;
        }
    }
    assert!(begin.elapsed() >= Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn paused_types_hold_their_requests() {
    let mut t = start(0);
    t.client.subscribe(&url(CLUSTER), arcs(&["*"]), None);
    let mut peer = t.peers.recv().await.unwrap();
    assert!(peer.line().await.starts_with("CDS"));
    t.client.pause(&url(ENDPOINTS));
    t.client.subscribe(&url(ENDPOINTS), arcs(&["a"]), None);
    t.client.subscribe(&url(ENDPOINTS), arcs(&["b"]), None);
    t.client.resume(&url(ENDPOINTS));
    assert!(peer.line().await.starts_with("EDS nonce= +[\"a\", \"b\"]"));
}

#[tokio::test(start_paused = true)]
async fn the_stream_ends_with_the_client() {
    let mut t = start(0);
    t.client.subscribe(&url(CLUSTER), arcs(&["*"]), None);
    let mut peer = t.peers.recv().await.unwrap();
    assert!(peer.line().await.starts_with("CDS"));
    drop(t.client);
    assert!(peer.requests.recv().await.is_none());
    while t.notices.recv().await.is_some() {}
}
