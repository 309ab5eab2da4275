//! A listener on one worker: accepts connections, chooses their filter chain
//! and serves them.

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use filter_api::Services as _;
use outrigger_config::ir::{FilterChainConfig, NetworkTerminal};
use outrigger_stats::{Scope, Slab};
use outrigger_types::{Address, ConnectionInfo};
use parking_lot::RwLock;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio_util::sync::CancellationToken;

use super::connection_log::{Account, ConnectionLog, log_unmatched};
use super::filter_chain_match::Peer;
use super::handshake::{Handshake, HandshakeStats};
use super::sockets::ListenSocket;
use super::stats::{DiscoveredFilterStats, ListenerStats, WorkerListenerStats};
use super::{ListenerSockets, ListenerSpec};
use crate::access_log::AccessLogger;
use crate::http::conn_manager::{self, Hcm};
use crate::network::exchange::{Exchange, Told};
use crate::network::io::Io;
use crate::network::transport_socket::DownstreamSocket;
use crate::server::worker::Worker;
use crate::tcp_proxy::TcpProxy;
use crate::upstream::pool::socket_keepalive;

/// A pause after an accept that failed for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listener that this worker serves.
pub struct WorkerListener {
    shared: Arc<Shared>,
    sockets: Arc<ListenerSockets>,
}

/// What the accept loops and the connections share.
struct Shared {
    scope: Scope,
    stats: Slab<ListenerStats>,
    worker_stats: Slab<WorkerListenerStats>,
    state: RwLock<Arc<State>>,
    max_connections: Option<u64>,
    worker: Arc<Worker>,
    /// Connections of the listener on all workers.
    connections: Arc<AtomicU64>,
    /// The key of runtime that limits the connections of this listener.
    limit_key: Box<str>,
    /// Made when a chain has TLS.
    handshakes: OnceLock<Arc<HandshakeStats>>,
    /// None where the connections are no traffic: those of the admin endpoint.
    traffic: Option<Slab<DiscoveredFilterStats>>,
    /// Ends the accept loops.
    stop: CancellationToken,
    /// The sockets are another's from now on: what waits in their queues is not for this one.
    handed_over: AtomicBool,
    /// Ends the connections of all chains, also of those that are gone, as soon as they are idle.
    idle: CancellationToken,
}

/// What an update replaces.
struct State {
    spec: Arc<ListenerSpec>,
    access_logs: Arc<[AccessLogger]>,
    chains: HashMap<u64, Arc<Chain>>,
}

/// What serves the connections of a chain.
enum Terminal {
    Http(Arc<Hcm>),
    Tcp(Arc<TcpProxy>),
    /// They are closed.
    None,
}

/// A filter chain on this worker.
struct Chain {
    config: Arc<FilterChainConfig>,
    /// What the ends of its connections tell each other first.
    exchange: Option<Arc<Exchange>>,
    terminal: Terminal,
    /// Ends the chain's connections as soon as they are idle.
    drain: CancellationToken,
    /// Cuts the chain's connections.
    end: CancellationToken,
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
    async fn serve(
        &self,
        io: Io,
        info: Arc<ConnectionInfo>,
        handshake: Option<Handshake>,
        account: Option<Arc<Account>>,
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
                let drain = self.drain.child_token();
                conn_manager::serve(hcm.clone(), io, info, handshake, drain, account).await;
            }
            Terminal::Tcp(tcp) => {
                // In a box, or connections of HTTP would have room for it.
                Box::pin(tcp.clone().serve(io, info, handshake, account)).await;
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

async fn accept_loop(shared: Arc<Shared>, socket: ListenSocket) {
    let end = match socket {
        ListenSocket::Tcp(socket) => accept_tcp(shared, socket).await,
        ListenSocket::Unix(socket) => accept_unix(shared, socket).await,
    };
    if let Err(error) = end {
        tracing::error!(%error, "the listening socket is unusable");
    }
}

async fn accept_tcp(shared: Arc<Shared>, socket: std::net::TcpListener) -> io::Result<()> {
    let listener = TcpListener::from_std(socket)?;
    let mut batch = Batch::default();
    loop {
        let accepted = tokio::select! {
            biased;
            () = shared.stop.cancelled() => break,
            accepted = batch.next(&shared, |cx| listener.poll_accept(cx)) => accepted,
        };
        match accepted {
            Ok((stream, peer)) => shared.admit_tcp(stream, peer),
            Err(error) => accept_failed(&error).await,
        }
    }
    if shared.handed_over.load(Ordering::Relaxed) {
        return Ok(());
    }
    // What the kernel has accepted before the socket closes would be reset.
    let socket = listener.into_std()?;
    while let Ok((stream, peer)) = socket.accept() {
        stream.set_nonblocking(true)?;
        shared.admit_tcp(TcpStream::from_std(stream)?, peer);
    }
    Ok(())
}

async fn accept_unix(
    shared: Arc<Shared>,
    socket: std::os::unix::net::UnixListener,
) -> io::Result<()> {
    let path = socket.local_addr()?;
    let path = path.as_pathname().map(|p| p.display().to_string());
    let local = Address::Pipe(path.unwrap_or_default().into());
    let listener = UnixListener::from_std(socket)?;
    let mut batch = Batch::default();
    loop {
        let accepted = tokio::select! {
            biased;
            () = shared.stop.cancelled() => return Ok(()),
            accepted = batch.next(&shared, |cx| listener.poll_accept(cx)) => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let state = shared.state.read().clone();
                let peer = Address::Pipe("".into());
                shared.admit(&state, Io::from(stream), local.clone(), peer);
            }
            Err(error) => accept_failed(&error).await,
        }
    }
}

/// Connections accepted since the queue was last empty.
#[derive(Default)]
struct Batch(u64);

impl Batch {
    /// The next connection. A worker that has taken as many in a row as the
    /// listener lets it sees to its other work first.
    async fn next<T>(
        &mut self,
        shared: &Shared,
        mut accept: impl FnMut(&mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> io::Result<T> {
        let most = shared.state.read().spec.config.max_connections_per_event;
        if most.is_some_and(|most| self.0 >= u64::from(most)) {
            self.end(shared);
            tokio::task::yield_now().await;
        }
        let accepted = poll_fn(|cx| {
            let polled = accept(cx);
            if polled.is_pending() {
                self.end(shared);
            }
            polled
        });
        let accepted = accepted.await;
        self.0 += u64::from(accepted.is_ok());
        accepted
    }

    fn end(&mut self, shared: &Shared) {
        if self.0 > 0 {
            shared
                .stats
                .record(ListenerStats::connections_accepted_per_socket_event, self.0);
            self.0 = 0;
        }
    }
}

/// An end of a connection. IPv4 on a socket of IPv6 is IPv4 for all who match or log it.
fn seen(end: SocketAddr) -> Address {
    let ip = end.ip().to_canonical();
    if ip == end.ip() {
        return end.into();
    }
    SocketAddr::new(ip, end.port()).into()
}

/// A connection that ended in the queue is nobody's loss; without descriptors
/// there is nothing to do but wait.
async fn accept_failed(error: &io::Error) {
    if !matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    ) {
        tracing::warn!(%error, "accept failed");
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

impl Shared {
    /// Whether the process has as many connections as it may. What the overload manager
    /// says comes before what runtime says.
    fn is_full(&self, state: &State) -> bool {
        if state.spec.config.ignore_global_conn_limit || self.traffic.is_none() {
            return false;
        }
        let of_runtime = || self.worker.runtime().integer(PROCESS_LIMIT, u64::MAX);
        let limit = self.max_connections.unwrap_or_else(of_runtime);
        CONNECTIONS.load(Ordering::Relaxed) >= limit
    }

    /// Whether the listener has as many connections, on all workers, as runtime lets it.
    fn is_listener_full(&self) -> bool {
        let limit = self.worker.runtime().integer(&self.limit_key, u64::MAX);
        self.connections.load(Ordering::Relaxed) >= limit
    }

    fn admit_tcp(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        let local = stream.local_addr().unwrap_or(peer);
        // A peer that is gone already shows at the first read.
        let _ = stream.set_nodelay(true);
        let state = self.state.read().clone();
        if let Some(keepalive) = &state.spec.config.tcp_keepalive {
            let _ = SockRef::from(&stream).set_tcp_keepalive(&socket_keepalive(keepalive));
        }
        self.admit(&state, Io::from(stream), seen(local), seen(peer));
    }

    /// Chooses the chain of a new connection and serves it.
    fn admit(self: &Arc<Self>, state: &Arc<State>, io: Io, local: Address, remote: Address) {
        if self.is_full(state) {
            self.stats.inc(ListenerStats::downstream_global_cx_overflow);
            return;
        }
        if self.is_listener_full() {
            self.stats.inc(ListenerStats::downstream_cx_overflow);
            return;
        }
        let peer = Peer {
            local: &local,
            remote: &remote,
            direct_remote: &remote,
            server_name: "",
            transport_protocol: "raw_buffer",
            application_protocols: &[],
        };
        let found = state.spec.matcher.find(&peer).cloned();
        let info = Arc::new(connection_info(state, found.as_deref(), local, remote));
        let Some(config) = found else {
            // It is no connection yet, and counts as none.
            self.stats.inc(ListenerStats::no_filter_chain_match);
            log_unmatched(&info, &state.access_logs);
            return;
        };
        let log = ConnectionLog::new(&info, &state.access_logs);
        self.stats.inc(ListenerStats::downstream_cx_total);
        self.worker_stats
            .inc(WorkerListenerStats::downstream_cx_total);
        let Some(chain) = state.chains.get(&config.fingerprint).cloned() else {
            return;
        };
        if matches!(chain.terminal, Terminal::None) {
            self.stats.inc(ListenerStats::downstream_cx_destroy);
            return;
        }
        let account = log.as_ref().map(|log| log.account.clone());
        let handshake = self.handshake(&state.spec, &chain);
        let guard = ConnectionGuard::new(self);
        tokio::spawn(async move {
            tokio::select! {
                () = chain.serve(io, info, handshake, account) => {}
                () = chain.end.cancelled() => {}
            }
            drop((guard, log));
        });
    }
}

impl Shared {
    /// The handshake of a connection, if its chain has TLS.
    fn handshake(&self, spec: &ListenerSpec, chain: &Chain) -> Option<Handshake> {
        let config = &chain.config;
        let DownstreamSocket::Tls(context) = spec.sockets.of(config.fingerprint) else {
            return None;
        };
        Some(Handshake {
            context,
            stats: self.handshake_stats().clone(),
            listener: self.stats.clone(),
            exchange: chain.exchange.clone(),
            timeout: config.transport_socket_connect_timeout,
        })
    }

    fn handshake_stats(&self) -> &Arc<HandshakeStats> {
        let made = || HandshakeStats::new(&self.scope);
        self.handshakes.get_or_init(made)
    }
}

/// What is fixed for all streams of a new connection; `chain` is the one that takes it.
fn connection_info(
    state: &State,
    chain: Option<&FilterChainConfig>,
    local: Address,
    remote: Address,
) -> ConnectionInfo {
    ConnectionInfo {
        id: next_connection_id(),
        direct_local: local.clone(),
        local_restored: false,
        local,
        direct_remote: remote.clone(),
        remote,
        requested_server_name: "".into(),
        tls: OnceLock::new(),
        transport_failure: OnceLock::new(),
        start: Instant::now(),
        listener_name: state.spec.config.name.clone(),
        filter_chain_name: chain.map_or_else(|| "".into(), |chain| chain.name.clone()),
        listener_metadata: state.spec.config.metadata.clone(),
        filter_chain_metadata: chain.and_then(|chain| chain.metadata.clone()),
        filter_state: OnceLock::new(),
    }
}

/// The key of runtime that limits the connections of the process, where the overload manager
/// does not.
const PROCESS_LIMIT: &str = "overload.global_downstream_max_connections";

fn limit_key(listener: &str) -> Box<str> {
    format!("envoy.resource_limits.listener.{listener}.connection_limit").into()
}

/// Downstream connections of the process, as
/// `envoy.resource_monitors.global_downstream_max_connections` counts them.
static CONNECTIONS: AtomicU64 = AtomicU64::new(0);

/// `%CONNECTION_ID%`
fn next_connection_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Counts a connection while it lives.
struct ConnectionGuard {
    shared: Arc<Shared>,
    opened: Instant,
}

impl ConnectionGuard {
    fn new(shared: &Arc<Shared>) -> Self {
        CONNECTIONS.fetch_add(u64::from(shared.traffic.is_some()), Ordering::Relaxed);
        shared.connections.fetch_add(1, Ordering::Relaxed);
        shared.stats.gauge_inc(ListenerStats::downstream_cx_active);
        shared
            .worker_stats
            .gauge_inc(WorkerListenerStats::downstream_cx_active);
        Self {
            shared: shared.clone(),
            opened: Instant::now(),
        }
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        CONNECTIONS.fetch_sub(u64::from(self.shared.traffic.is_some()), Ordering::Relaxed);
        let Shared {
            stats,
            worker_stats,
            connections,
            ..
        } = &*self.shared;
        connections.fetch_sub(1, Ordering::Relaxed);
        stats.gauge_dec(ListenerStats::downstream_cx_active);
        worker_stats.gauge_dec(WorkerListenerStats::downstream_cx_active);
        stats.inc(ListenerStats::downstream_cx_destroy);
        let millis = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        stats.record(ListenerStats::downstream_cx_length_ms, millis);
    }
}
