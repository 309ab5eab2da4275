//! The TCP proxy: carries a connection to a host of a cluster, byte for byte. See Envoy's
//! "TCP proxy".

mod log;
mod relay;
mod session;
mod stats;

use std::sync::Arc;

use outrigger_config::ir::TcpProxyConfig;
use outrigger_stats::Slab;
use outrigger_types::ConnectionInfo;

use self::session::Session;
pub use self::stats::TcpProxyStats;
use crate::access_log::AccessLogger;
use crate::listener::Handshake;
use crate::listener::connection_log::{Account, ConnectionLog};
use crate::network::io::{ByteSink, Io};
use crate::server::worker::Worker;

/// The TCP proxy of a filter chain on one worker.
pub struct TcpProxy {
    config: Arc<TcpProxyConfig>,
    worker: Arc<Worker>,
    stats: Slab<TcpProxyStats>,
    access_logs: Arc<[AccessLogger]>,
    /// Bytes that may wait for a downstream before the upstream is read no more.
    buffer_limit: usize,
}

impl TcpProxy {
    /// The proxy of a chain whose listener has this buffer limit, bytes.
    pub fn new(config: Arc<TcpProxyConfig>, worker: &Arc<Worker>, buffer_limit: u32) -> Arc<Self> {
        let scope = worker.store.scope(&format!("tcp.{}.", config.stat_prefix));
        let logs = config.access_logs.iter();
        Arc::new(Self {
            stats: scope.slab(),
            access_logs: logs.map(|log| worker.access_logs.logger(log)).collect(),
            worker: worker.clone(),
            buffer_limit: buffer_limit as usize,
            config,
        })
    }

    /// Serves a connection to its end, beginning with its TLS handshake if it has one. As in
    /// Envoy the upstream is connected to meanwhile. `log` is that of the listener.
    pub async fn serve(
        self: Arc<Self>,
        io: Io,
        info: Arc<ConnectionInfo>,
        handshake: Option<Handshake>,
        log: Option<ConnectionLog>,
    ) {
        self.stats.inc(TcpProxyStats::downstream_cx_total);
        let counted = Counted {
            proxy: self.clone(),
            account: log.as_ref().map(|log| log.account.clone()),
        };
        let mut session = Session::new(self, &info, log);
        session.run(io, handshake, Arc::new(counted)).await;
    }
}

/// Counts the bytes of a connection.
struct Counted {
    proxy: Arc<TcpProxy>,
    account: Option<Arc<Account>>,
}

impl ByteSink for Counted {
    fn count_bytes(&self, read: u64, written: u64) {
        let stats = &self.proxy.stats;
        stats.add(TcpProxyStats::downstream_cx_rx_bytes_total, read);
        stats.add(TcpProxyStats::downstream_cx_tx_bytes_total, written);
        if let Some(account) = &self.account {
            account.count(read, written);
        }
    }

    fn count_unread(&self, change: i64) {
        let gauge = TcpProxyStats::downstream_cx_rx_bytes_buffered;
        self.proxy.stats.gauge_add(gauge, change);
    }

    fn count_unwritten(&self, change: i64) {
        let gauge = TcpProxyStats::downstream_cx_tx_bytes_buffered;
        self.proxy.stats.gauge_add(gauge, change);
    }
}
