//! A listener on one worker, its filter chains, and what an update does to both. How
//! connections come in is in [`accept`](super::accept), which chain serves them in
//! [`admission`](super::admission).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use outrigger_config::ir::{FilterChainConfig, NetworkTerminal};
use outrigger_stats::{Scope, Slab};
use outrigger_types::{Address, ConnectionInfo};
use parking_lot::RwLock;
use tokio_util::sync::CancellationToken;

use super::accept::accept_loop;
use super::admission::limit_key;
use super::connection_log::ConnectionLog;
use super::handshake::{Handshake, HandshakeStats};
use super::inspect::ListenerFilters;
use super::stats::{DiscoveredFilterStats, ListenerStats, WorkerListenerStats};
use super::{ListenerSockets, ListenerSpec};
use crate::access_log::AccessLogger;
use crate::http::conn_manager::{self, Hcm};
use crate::network::exchange::{Exchange, Told};
use crate::network::io::Io;
use crate::server::worker::Worker;
use crate::tcp_proxy::TcpProxy;

/// A listener that this worker serves.
pub struct WorkerListener {
    shared: Arc<Shared>,
    sockets: Arc<ListenerSockets>,
}

/// Where another listener hands its connections over.
#[derive(Clone)]
pub(crate) struct Door(pub(super) Arc<Shared>);

impl PartialEq for Door {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// What the accept loops and the connections share.
pub(super) struct Shared {
    pub(super) scope: Scope,
    pub(super) stats: Slab<ListenerStats>,
    pub(super) worker_stats: Slab<WorkerListenerStats>,
    pub(super) state: RwLock<Arc<State>>,
    pub(super) max_connections: Option<u64>,
    pub(super) worker: Arc<Worker>,
    /// Connections of the listener on all workers.
    pub(super) connections: Arc<AtomicU64>,
    /// The key of runtime that limits the connections of this listener.
    pub(super) limit_key: Box<str>,
    /// Made when a chain has TLS.
    pub(super) handshakes: OnceLock<Arc<HandshakeStats>>,
    /// None where the connections are no traffic: those of the admin endpoint.
    pub(super) traffic: Option<Slab<DiscoveredFilterStats>>,
    /// Ends the accept loops.
    pub(super) stop: CancellationToken,
    /// The sockets are another's from now on: what waits in their queues is not for this one.
    pub(super) handed_over: AtomicBool,
    /// Ends the connections of all chains, also of those that are gone, as soon as they are idle.
    pub(super) idle: CancellationToken,
}

/// What an update replaces.
pub(super) struct State {
    pub(super) spec: Arc<ListenerSpec>,
    pub(super) filters: ListenerFilters,
    pub(super) access_logs: Arc<[AccessLogger]>,
    pub(super) chains: HashMap<u64, Arc<Chain>>,
}

/// What serves the connections of a chain.
pub(super) enum Terminal {
    Http(Arc<Hcm>),
    Tcp(Arc<TcpProxy>),
    /// They are closed.
    None,
}

/// A filter chain on this worker.
pub(super) struct Chain {
    pub(super) config: Arc<FilterChainConfig>,
    /// What the ends of its connections tell each other first.
    pub(super) exchange: Option<Arc<Exchange>>,
    pub(super) terminal: Terminal,
    /// Ends the chain's connections as soon as they are idle.
    drain: CancellationToken,
    /// Cuts the chain's connections.
    pub(super) end: CancellationToken,
}

impl WorkerListener {
    /// Begins to accept.
    pub fn start(
        worker: &Arc<Worker>,
        spec: &Arc<ListenerSpec>,
        sockets: &Arc<ListenerSockets>,
    ) -> Self {
        Self::start_until(worker, spec, sockets, CancellationToken::new())
    }

    /// Begins to accept in place of `self`, whose connections drain.
    pub fn replace(
        self,
        worker: &Arc<Worker>,
        spec: &Arc<ListenerSpec>,
        sockets: &Arc<ListenerSockets>,
    ) -> Self {
        // The end of all connections is also that of those that drain.
        let new = Self::start_until(worker, spec, sockets, self.shared.idle.clone());
        let kept = Arc::ptr_eq(&self.sockets, sockets);
        self.shared.handed_over.store(kept, Ordering::Relaxed);
        self.remove(worker);
        new
    }

    fn start_until(
        worker: &Arc<Worker>,
        spec: &Arc<ListenerSpec>,
        sockets: &Arc<ListenerSockets>,
        idle: CancellationToken,
    ) -> Self {
        let scope = worker.store.scope(&format!("listener.{}.", spec.stat_name));
        let shared = Arc::new(Shared {
            stats: scope.slab::<ListenerStats>(),
            worker_stats: scope
                .scope(&format!("{}.", worker.name()))
                .slab::<WorkerListenerStats>(),
            state: RwLock::new(Arc::new(State::new(worker, spec, None, &idle))),
            max_connections: worker.max_connections,
            worker: worker.clone(),
            connections: sockets.connections.clone(),
            limit_key: limit_key(&spec.config.name),
            scope: scope.clone(),
            handshakes: OnceLock::new(),
            traffic: (!worker.is_main()).then(|| scope.slab()),
            stop: CancellationToken::new(),
            handed_over: AtomicBool::new(false),
            idle,
        });
        // What the main thread listens to is its own.
        let slot = if worker.is_main() { 0 } else { worker.index };
        match sockets.for_worker(slot) {
            Ok(copies) => {
                for socket in copies {
                    tokio::spawn(accept_loop(shared.clone(), socket));
                }
            }
            Err(error) => {
                tracing::error!(listener = %spec.config.name, %error, "cannot copy the sockets")
            }
        }
        Self {
            shared,
            sockets: sockets.clone(),
        }
    }

    /// Takes over other filter chains. Those that have not changed keep their
    /// connections; those that are gone ask theirs to end.
    pub fn update(&self, worker: &Arc<Worker>, spec: &Arc<ListenerSpec>) {
        let old = self.shared.state.read().clone();
        let new = Arc::new(State::new(worker, spec, Some(&old), &self.shared.idle));
        for (fingerprint, chain) in &old.chains {
            if !new.chains.contains_key(fingerprint) {
                self.retire(worker, chain.clone());
            }
        }
        *self.shared.state.write() = new;
    }

    /// Where redirected connections for it go to.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        let ip = |address: &Address| match address {
            Address::Ip(address) => Some(*address),
            _ => None,
        };
        self.sockets.bound().iter().filter_map(ip)
    }

    /// Takes a connection that another listener hands over.
    pub(crate) fn door(&self) -> Door {
        Door(self.shared.clone())
    }

    /// The HCMs of all chains.
    pub fn hcms(&self) -> Vec<Arc<Hcm>> {
        self.shared
            .state
            .read()
            .chains
            .values()
            .filter_map(|chain| chain.hcm().cloned())
            .collect()
    }

    /// Asks all connections to end, by and by; new ones are still accepted.
    pub fn start_drain(&self) {
        for chain in self.shared.state.read().chains.values() {
            chain.start_drain();
        }
    }

    /// Ends all connections as soon as they are idle.
    pub fn end_idle(&self) {
        self.shared.idle.cancel();
    }

    /// Accepts no more.
    pub fn stop_accepting(&self) {
        self.shared.stop.cancel();
    }

    /// The listener is gone: accepts no more, and asks its connections to end;
    /// those that are left after the drain time are cut.
    pub fn remove(&self, worker: &Worker) {
        self.stop_accepting();
        for chain in self.shared.state.read().chains.values() {
            self.retire(worker, chain.clone());
        }
    }

    /// Drains a chain that serves no more. It is kept, with its stats, until its
    /// time is up.
    fn retire(&self, worker: &Worker, chain: Arc<Chain>) {
        chain.start_drain();
        if let Some(hcm) = chain.hcm() {
            worker.note_draining(hcm);
        }
        let drain_time = worker.drain.time;
        let shared = self.shared.clone();
        tokio::spawn(async move {
            tokio::time::sleep(drain_time).await;
            chain.end.cancel();
            drop(shared);
        });
    }
}

impl State {
    fn new(
        worker: &Arc<Worker>,
        spec: &Arc<ListenerSpec>,
        old: Option<&State>,
        idle: &CancellationToken,
    ) -> Self {
        let config = &spec.config;
        let all = config
            .filter_chains
            .iter()
            .chain(&config.default_filter_chain);
        let chains = all.map(|chain| {
            let kept = old.and_then(|o| o.chains.get(&chain.fingerprint)).cloned();
            let chain = kept.unwrap_or_else(|| Arc::new(Chain::new(worker, spec, chain, idle)));
            (chain.config.fingerprint, chain)
        });
        Self {
            chains: chains.collect(),
            filters: ListenerFilters::new(config, &worker.store),
            access_logs: config
                .access_logs
                .iter()
                .map(|log| worker.access_logs.logger(log))
                .collect(),
            spec: spec.clone(),
        }
    }
}

impl Chain {
    fn new(
        worker: &Arc<Worker>,
        spec: &ListenerSpec,
        config: &Arc<FilterChainConfig>,
        idle: &CancellationToken,
    ) -> Self {
        let limit = spec.config.per_connection_buffer_limit;
        let terminal = match &config.terminal {
            NetworkTerminal::Http(hcm) => Terminal::Http(Hcm::new(hcm.clone(), worker, spec)),
            NetworkTerminal::Tcp(tcp) => Terminal::Tcp(TcpProxy::new(tcp.clone(), worker, limit)),
            NetworkTerminal::None => Terminal::None,
        };
        let exchange = config.exchange.as_ref();
        Self {
            exchange: exchange.map(|exchange| Exchange::new(exchange, &worker.store)),
            config: config.clone(),
            terminal,
            drain: idle.child_token(),
            end: CancellationToken::new(),
        }
    }

    /// Serves a connection to its end.
    pub(super) async fn serve(
        &self,
        io: Io,
        info: Arc<ConnectionInfo>,
        handshake: Option<Handshake>,
        log: Option<ConnectionLog>,
    ) {
        let io = match &self.exchange {
            // Without TLS nothing is agreed on.
            Some(exchange) if handshake.is_none() => {
                exchange.begin(io, b"", Told::Downstream(info.clone()))
            }
            _ => io,
        };
        match &self.terminal {
            Terminal::Http(hcm) => {
                let account = log.as_ref().map(|log| log.account.clone());
                let drain = self.drain.child_token();
                conn_manager::serve(hcm.clone(), io, info, handshake, drain, account).await;
            }
            Terminal::Tcp(tcp) => {
                // In a box, or connections of HTTP would have room for it.
                Box::pin(tcp.clone().serve(io, info, handshake, log)).await;
            }
            Terminal::None => {}
        }
    }

    fn hcm(&self) -> Option<&Arc<Hcm>> {
        match &self.terminal {
            Terminal::Http(hcm) => Some(hcm),
            Terminal::Tcp(_) | Terminal::None => None,
        }
    }

    fn start_drain(&self) {
        if let Some(hcm) = self.hcm() {
            hcm.start_drain();
        }
    }
}
