//! Two ends of a connection in memory.

use filter_api::LocalNode;
use outrigger_config::workload::{Labels, Workload};
use outrigger_types::MetadataValue;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

const ALPN: &[u8] = b"istio-peer-exchange";

fn exchange(name: &str, store: &Store) -> Arc<Exchange> {
    let fields = [("NAMESPACE".into(), MetadataValue::String(name.into()))].into();
    let node = LocalNode {
        id: format!("{name}-id").into(),
        metadata: MetadataValue::Struct(fields),
        ..LocalNode::default()
    };
    let config = MetadataExchangeConfig {
        protocol: ALPN.into(),
        labels: Labels::new(),
        preamble: Workload::of_node(&node, &Labels::new()).to_preamble(&node.id),
    };
    Exchange::new(&Arc::new(config), store)
}

/// Both ends, with what each finds out of the other.
fn ends(store: &Store, capacity: usize) -> [(Io, PeerState); 2] {
    let (a, b) = Io::pair(capacity);
    [
        exchange("a", store).begin_upstream(a, ALPN),
        exchange("b", store).begin_upstream(b, ALPN),
    ]
}

fn namespace(state: &PeerState) -> Option<String> {
    let object = state.get()?.get(PeerSide::Upstream.key())?;
    match object.typed.at(["value", "namespace"]) {
        Some(MetadataValue::String(text)) => Some(text.to_string()),
        _ => None,
    }
}

fn count(store: &Store, name: &str) -> u64 {
    let name = format!("metadata_exchange.{name}");
    store.counter_value(&name).unwrap_or_default()
}

#[tokio::test]
async fn both_ends_learn_of_each_other_and_bytes_pass() {
    for capacity in [16, 4096] {
        let store = Store::default();
        let [(mut a, of_b), (mut b, of_a)] = ends(&store, capacity);
        let client = async {
            a.write_all(b"ping").await.unwrap();
            a.flush().await.unwrap();
            let mut answer = [0; 4];
            a.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"pong");
        };
        let server = async {
            let mut question = [0; 4];
            b.read_exact(&mut question).await.unwrap();
            assert_eq!(&question, b"ping");
            b.write_all(b"pong").await.unwrap();
            b.flush().await.unwrap();
        };
        tokio::join!(client, server);
        assert_eq!(namespace(&of_b).as_deref(), Some("b"));
        assert_eq!(namespace(&of_a).as_deref(), Some("a"));
        assert_eq!(count(&store, "alpn_protocol_found"), 2);
        assert_eq!(count(&store, "metadata_added"), 2);
    }
}

#[tokio::test]
async fn the_server_may_speak_first() {
    let store = Store::default();
    let [(mut a, of_b), (mut b, _)] = ends(&store, 4096);
    b.write_all(b"220 ready").await.unwrap();
    let mut greeting = [0; 9];
    a.read_exact(&mut greeting).await.unwrap();
    assert_eq!(&greeting, b"220 ready");
    assert_eq!(namespace(&of_b).as_deref(), Some("b"));
}

#[tokio::test]
async fn an_end_without_bytes_is_told_all_the_same() {
    let store = Store::default();
    let [(mut a, _), (mut b, of_a)] = ends(&store, 4096);
    a.shutdown().await.unwrap();
    assert_eq!(b.read(&mut [0; 4]).await.unwrap(), 0);
    assert_eq!(b.read(&mut [0; 4]).await.unwrap(), 0);
    assert_eq!(namespace(&of_a).as_deref(), Some("a"));
}

#[tokio::test]
async fn bytes_of_one_who_takes_no_part_pass_on() {
    let store = Store::default();
    let (a, mut plain) = Io::pair(4096);
    let (mut a, peer) = exchange("a", &store).begin_upstream(a, ALPN);
    plain.write_all(b"SSH-2.0-x").await.unwrap();
    let mut read = [0; 9];
    a.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"SSH-2.0-x");
    assert!(peer.get().unwrap().get("peer_not_found").is_some());
    assert_eq!(count(&store, "initial_header_not_found"), 1);
}

#[tokio::test]
async fn a_peer_that_says_too_much_is_lost() {
    let store = Store::default();
    let (a, mut liar) = Io::pair(4096);
    let (mut a, _) = exchange("a", &store).begin_upstream(a, ALPN);
    liar.write_all(&[0x3D, 0x23, 0x04, 0x67, 0xFF, 0, 0, 0])
        .await
        .unwrap();
    let error = a.read(&mut [0; 4]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert_eq!(count(&store, "header_not_found"), 1);
}

#[tokio::test]
async fn another_protocol_leaves_the_connection_as_it_is() {
    let store = Store::default();
    let (a, mut plain) = Io::pair(4096);
    let exchange = exchange("a", &store);
    let (mut a, peer) = exchange.begin_upstream(a, b"istio");
    a.write_all(b"hi").await.unwrap();
    let mut read = [0; 2];
    plain.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"hi");
    assert!(peer.get().unwrap().get("peer_not_found").is_some());
    assert_eq!(count(&store, "alpn_protocol_not_found"), 1);
}
