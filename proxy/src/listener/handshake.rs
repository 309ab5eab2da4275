//! The TLS handshake of an accepted connection, within its time, and what it counts.

use std::sync::Arc;
use std::time::Duration;

use outrigger_stats::{Scope, Slab};
use outrigger_types::ConnectionInfo;

use super::stats::ListenerStats;
use crate::network::exchange::{Exchange, Told};
use crate::network::io::Io;
use crate::network::tls::{ContextStats, ServerContext, TlsFailure, TlsFailureKind, TlsStats};

/// What the handshakes of a listener count on one worker.
#[derive(Debug)]
pub(super) struct HandshakeStats {
    tls: Arc<TlsStats>,
    contexts: Slab<ContextStats>,
}

impl HandshakeStats {
    /// The stats of a listener, below its scope.
    pub(super) fn new(scope: &Scope) -> Arc<Self> {
        Arc::new(Self {
            tls: TlsStats::new(scope),
            contexts: scope.scope("server_ssl_socket_factory.").slab(),
        })
    }
}

/// A handshake that is still to be shaken.
pub struct Handshake {
    pub(super) context: Arc<ServerContext>,
    pub(super) stats: Arc<HandshakeStats>,
    pub(super) listener: Slab<ListenerStats>,
    /// What the ends tell each other after it.
    pub(super) exchange: Option<Arc<Exchange>>,
    /// How long it may take; none for any time.
    pub(super) timeout: Option<Duration>,
}

/// Who ended a connection whose handshake did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The peer, or the handshake itself: as in Envoy both count alike.
    Remote,
    /// The time was up.
    Local,
}

impl Handshake {
    /// Shakes hands with the client, and writes into `connection` what came of it.
    ///
    /// # Errors
    /// Who ended the connection; all is counted then.
    pub async fn run(self, io: Io, connection: &Arc<ConnectionInfo>) -> Result<Io, Lost> {
        let server = match self.context.current() {
            Ok(Some(server)) => server,
            Ok(None) => {
                let counter = ContextStats::downstream_context_secrets_not_ready;
                self.stats.contexts.inc(counter);
                return Err(Lost::Remote);
            }
            Err(reason) => {
                tracing::error!(target: "connection", reason, "the TLS context cannot be made");
                return Err(Lost::Remote);
            }
        };
        let accepted = match self.timeout {
            Some(timeout) => match tokio::time::timeout(timeout, server.accept(io)).await {
                Ok(accepted) => accepted,
                Err(_elapsed) => {
                    let counter = ListenerStats::downstream_cx_transport_socket_connect_timeout;
                    self.listener.inc(counter);
                    return Err(Lost::Local);
                }
            },
            None => server.accept(io).await,
        };
        match accepted {
            Ok((io, info)) => {
                self.stats.tls.note_handshake(&info);
                let tls = connection.tls.get_or_init(|| Arc::new(info));
                Ok(match &self.exchange {
                    Some(exchange) => {
                        exchange.begin(io, &tls.alpn, Told::Downstream(connection.clone()))
                    }
                    None => io,
                })
            }
            Err(failure) => {
                note(&failure);
                self.stats.tls.note_failure(&failure);
                let reason = failure.reason.into_boxed_str();
                connection.transport_failure.get_or_init(|| reason);
                Err(Lost::Remote)
            }
        }
    }
}

fn note(failure: &TlsFailure) {
    if failure.kind != TlsFailureKind::Disconnected {
        tracing::debug!(target: "connection", reason = failure.reason, "TLS handshake failed");
    }
}
