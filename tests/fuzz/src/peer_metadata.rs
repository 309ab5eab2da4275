//! What a peer of the mesh says of itself, in a header and before the bytes of a connection.

use std::sync::Arc;

use outrigger::network::exchange::Exchange;
use outrigger::network::io::Io;
use outrigger_config::ir::MetadataExchangeConfig;
use outrigger_config::workload::{Labels, MAGIC, PeerSide, Workload};
use outrigger_types::FilterState;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::bytes::first;
use crate::config::store;
use crate::stream::info;

/// The longest message that is taken.
const LONGEST: usize = 64 << 10;

/// A byte that says how large the pieces are, then what the peer sends.
pub(crate) fn peer_metadata(data: &[u8]) {
    let (size, sent) = first(data);
    header(sent);
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let received = runtime.expect("a runtime").block_on(receive(size, sent));
    assert_eq!(received, expected(sent));
}

/// Who is told of somebody, and tells it on, says the same.
fn header(value: &[u8]) {
    let labels: Labels = ["role".into()].into();
    if let Some(heard) = Workload::from_header(value, &labels) {
        let said = heard.to_header();
        let again = Workload::from_header(said.as_bytes(), &labels);
        assert_eq!(again.as_ref(), Some(&heard));
        let mut state = FilterState::default();
        let side = PeerSide::Downstream;
        heard.to_filter_state().leave(side, &mut state);
        let mut stream = info();
        stream.filter_state = Some(Box::new(state));
        assert!(stream.filter_state_object(side.key()).is_some());
    }
}

/// What the application gets of it; none if the connection is given up.
async fn receive(size: u8, sent: &[u8]) -> Option<Vec<u8>> {
    let config = MetadataExchangeConfig {
        protocol: b"p"[..].into(),
        labels: Labels::new(),
        preamble: Workload::default().to_preamble("fuzz"),
    };
    let exchange = Exchange::new(&Arc::new(config), &store());
    let (io, mut peer) = Io::pair(1 << 16);
    let (mut io, _) = exchange.begin_upstream(io, b"p");
    let send = async {
        for piece in sent.chunks(usize::from(size).max(1)) {
            // Who gives up reads no more.
            if peer.write_all(piece).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        let _ = peer.shutdown().await;
    };
    let take = async {
        let mut received = Vec::new();
        let ended = io.read_to_end(&mut received).await;
        drop(io);
        ended.is_ok().then_some(received)
    };
    tokio::join!(send, take).1
}

/// The same, read all at once.
fn expected(sent: &[u8]) -> Option<Vec<u8>> {
    let Some((header, rest)) = sent.split_at_checked(8) else {
        return Some(sent.to_vec());
    };
    let number = |bytes: &[u8]| bytes.iter().fold(0_usize, |n, b| n << 8 | usize::from(*b));
    if number(&header[..4]) != MAGIC as usize {
        return Some(sent.to_vec());
    }
    let length = number(&header[4..]);
    if length > LONGEST {
        return None;
    }
    let Some((message, application)) = rest.split_at_checked(length) else {
        return Some(Vec::new());
    };
    match Workload::from_preamble(message, &Labels::new()) {
        Ok(_) => Some(application.to_vec()),
        Err(_) => Some(rest.to_vec()),
    }
}
