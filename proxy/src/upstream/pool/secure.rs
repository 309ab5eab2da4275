//! A connection to a host, with the TLS session that its transport socket asks for.

use std::sync::Arc;

use outrigger_types::{Address, ResetReason, TlsInfo};

use super::{Pool, Speaks, dial};
use crate::network::exchange::PeerState;
use crate::network::io::Io;
use crate::network::tls::{ClientContext, ConnectOptions, ContextStats};
use crate::network::transport_socket::UpstreamSocket;
use crate::upstream::cluster::WorkerCluster;

/// A connection that is ready for the codec.
pub(super) struct Connected {
    pub(super) io: Io,
    /// The address at which the host was reached.
    pub(super) remote: Address,
    /// What the handshake agreed on; none in plain text.
    pub(super) tls: Option<Arc<TlsInfo>>,
    /// Who the peer is, where it tells; none if nobody asks.
    pub(super) peer: Option<PeerState>,
}

/// Why a connection cannot be had.
pub(super) struct Failure {
    pub(super) reset: ResetReason,
    /// In Envoy's words.
    pub(super) why: String,
}

impl From<dial::DialError> for Failure {
    fn from(error: dial::DialError) -> Self {
        Self {
            reset: error.reset(),
            why: error.to_string(),
        }
    }
}

impl From<String> for Failure {
    /// Of a peer with whom no secure connection can be had.
    fn from(why: String) -> Self {
        Self {
            reset: ResetReason::ConnectionFailure,
            why,
        }
    }
}

/// Connects to the pool's host.
pub(super) async fn connect(pool: &Pool, cluster: &WorkerCluster) -> Result<Connected, Failure> {
    let (io, remote) = dial::to_host(&pool.host, cluster).await?;
    let socket = cluster.info.sockets.for_host(&pool.host);
    let UpstreamSocket::Tls(context) = socket else {
        let (io, peer) = exchange(io, b"", cluster);
        return Ok(Connected {
            io,
            remote,
            tls: None,
            peer,
        });
    };
    let (io, tls) = handshake(context, io, pool, cluster).await?;
    let (io, peer) = exchange(io, &tls.alpn, cluster);
    Ok(Connected {
        io,
        remote,
        tls: Some(Arc::new(tls)),
        peer,
    })
}

/// Begins what the cluster has the ends tell each other, if anything.
fn exchange(io: Io, alpn: &[u8], cluster: &WorkerCluster) -> (Io, Option<PeerState>) {
    match cluster.exchange() {
        Some(exchange) => {
            let (io, peer) = exchange.begin_upstream(io, alpn);
            (io, Some(peer))
        }
        None => (io, None),
    }
}

async fn handshake(
    context: &ClientContext,
    io: Io,
    pool: &Pool,
    cluster: &WorkerCluster,
) -> Result<(Io, TlsInfo), String> {
    let Some(client) = context.current()? else {
        cluster
            .context_stats()
            .inc(ContextStats::upstream_context_secrets_not_ready);
        return Err("TLS_error: Secret is not supplied by SDS".to_owned());
    };
    let options = ConnectOptions {
        alpn: pool.alpn.clone().or_else(|| {
            let names_none = context.config.common.alpn.is_empty();
            names_none.then(|| fallback_alpn(pool.speaks)).flatten()
        }),
        sni: pool.server_name.clone(),
        names_server: pool.server_name.is_some() && cluster.info.validates_name(),
    };
    let stats = cluster.tls_stats();
    match client.connect(io, &options, &pool.host.hostname).await {
        Ok((io, info)) => {
            stats.note_handshake(&info);
            Ok((io, info))
        }
        Err(failure) => {
            stats.note_failure(&failure);
            Err(failure.reason)
        }
    }
}

/// What is offered where the context names no protocol: what the pool can speak.
fn fallback_alpn(speaks: Speaks) -> Option<Arc<[Box<[u8]>]>> {
    let names: &[&[u8]] = match speaks {
        Speaks::Raw => return None,
        Speaks::Http1 => &[b"http/1.1"],
        Speaks::Http2 => &[b"h2"],
        Speaks::Agreed => &[b"h2", b"http/1.1"],
    };
    Some(names.iter().map(|name| Box::from(*name)).collect())
}
