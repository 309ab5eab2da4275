//! Stats of TLS, under Envoy's names.

use std::sync::Arc;

use outrigger_stats::{Counter, Scope, Slab};
use outrigger_types::TlsInfo;
use parking_lot::Mutex;

use super::failure::{TlsFailure, TlsFailureKind};

outrigger_stats::stat_set! {
    /// What handshakes count (`listener.<address>.ssl.`, `cluster.<name>.ssl.`).
    pub struct SslStats {
        counters {
            connection_error,
            fail_verify_cert_hash,
            fail_verify_error,
            fail_verify_no_cert,
            fail_verify_san,
            handshake,
            no_certificate,
            ocsp_staple_failed,
            ocsp_staple_omitted,
            ocsp_staple_requests,
            ocsp_staple_responses,
            session_reused,
        }
    }
}

/// What the handshakes of one listener or cluster count on one worker.
#[derive(Debug)]
pub struct TlsStats {
    scope: Scope,
    slab: Slab<SslStats>,
    /// Counters whose names tell what was agreed on.
    named: Mutex<Vec<(&'static str, &'static str, Counter)>>,
}

impl TlsStats {
    /// Stats in `ssl.` below a scope.
    pub fn new(scope: &Scope) -> Arc<Self> {
        let scope = scope.scope("ssl.");
        Arc::new(Self {
            slab: scope.slab(),
            scope,
            named: Mutex::default(),
        })
    }

    /// A finished handshake.
    pub fn note_handshake(&self, info: &TlsInfo) {
        self.slab.inc(SslStats::handshake);
        if info.resumed {
            self.slab.inc(SslStats::session_reused);
        }
        if info.peer.is_empty() {
            self.slab.inc(SslStats::no_certificate);
        }
        self.note_name("ciphers", info.cipher);
        self.note_name("versions", info.version);
        self.note_name("curves", info.group);
    }

    /// A handshake that failed.
    pub fn note_failure(&self, failure: &TlsFailure) {
        self.slab.inc(match failure.kind {
            TlsFailureKind::Disconnected => return,
            TlsFailureKind::NoCertificate => SslStats::fail_verify_no_cert,
            TlsFailureKind::Chain => SslStats::fail_verify_error,
            TlsFailureKind::San => SslStats::fail_verify_san,
            TlsFailureKind::Hash => SslStats::fail_verify_cert_hash,
            TlsFailureKind::Other => SslStats::connection_error,
        });
    }

    fn note_name(&self, kind: &'static str, name: &'static str) {
        if name.is_empty() {
            return;
        }
        let mut named = self.named.lock();
        if let Some((_, _, counter)) = named.iter().find(|(k, n, _)| (*k, *n) == (kind, name)) {
            return counter.inc();
        }
        let counter = self.scope.counter(&format!("{kind}.{name}"));
        counter.inc();
        named.push((kind, name, counter));
    }
}

outrigger_stats::stat_set! {
    /// What contexts count (`listener.<address>.server_ssl_socket_factory.`,
    /// `cluster.<name>.client_ssl_socket_factory.`). Both sides have both names, as in Envoy.
    pub struct ContextStats {
        counters {
            /// Connections refused because a secret of the listener had not arrived.
            downstream_context_secrets_not_ready,
            /// Contexts made anew because SDS brought a secret.
            ssl_context_update_by_sds,
            /// Connections refused because a secret of the cluster had not arrived.
            upstream_context_secrets_not_ready,
        }
    }
}
