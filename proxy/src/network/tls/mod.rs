//! TLS, over rustls: contexts made of configuration and secrets, verification of peers by their names
//! (SPIFFE or others), and what a handshake leaves to logs and stats.
//!
//! Follows Envoy's "TLS" and "Transport socket" pages.

mod certificate;
mod client;
mod context;
mod failure;
mod params;
mod server;
mod stats;
mod verify;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use outrigger_types::TlsInfo;
use parking_lot::Mutex;
use rustls::{CommonState, HandshakeKind, ProtocolVersion};

pub use certificate::Identity;
pub use client::{ConnectOptions, TlsClient};
pub use context::{ClientContext, ContextNames, Secret, SecretCell, ServerContext};
pub use failure::{TlsFailure, TlsFailureKind, VerifyFailure};
pub use server::TlsServer;
pub use stats::{ContextStats, TlsStats};
pub use verify::Trust;

/// What a finished handshake agreed on.
fn info(state: &CommonState) -> TlsInfo {
    let peer = state.peer_certificates().unwrap_or_default();
    TlsInfo {
        alpn: state.alpn_protocol().unwrap_or_default().into(),
        version: match state.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
            _ => "TLSv1.2",
        },
        cipher: state
            .negotiated_cipher_suite()
            .map_or("", |suite| params::cipher_name(suite.suite())),
        group: state
            .negotiated_key_exchange_group()
            .map_or("", |group| params::group_name(group.name())),
        resumed: state.handshake_kind() == Some(HandshakeKind::Resumed),
        peer: peer
            .iter()
            .filter_map(certificate::read)
            .map(Arc::new)
            .collect(),
        ..TlsInfo::default()
    }
}

/// Names in the log, once each, the algorithms that were asked for and are not there.
fn name_lacking(names: &[Box<str>]) {
    static NAMED: Mutex<BTreeSet<Box<str>>> = Mutex::new(BTreeSet::new());
    let mut named = NAMED.lock();
    for name in names {
        if named.insert(name.clone()) {
            tracing::warn!(target: "outrigger::connection", "TLS: {name} is not supported and left out");
        }
    }
}
