//! Lets connections in: limits, listener filters, and the choice of the filter chain.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use filter_api::Services as _;
use outrigger_config::ir::FilterChainConfig;
use outrigger_types::{Address, ConnectionInfo};
use socket2::SockRef;
use tokio::net::TcpStream;

use super::ListenerSpec;
use super::connection_log::{ConnectionLog, log_unmatched, log_unserved};
use super::filter_chain_match::Peer;
use super::handshake::{Handshake, HandshakeStats};
use super::inspect::{Facts, Rejected};
use super::stats::{ListenerStats, WorkerListenerStats};
use super::worker::{Chain, Shared, State, Terminal};
use crate::network::io::Io;
use crate::network::transport_socket::DownstreamSocket;
use crate::upstream::pool::socket_keepalive;

/// An end of a connection. IPv4 on a socket of IPv6 is IPv4 for all who match or log it.
fn seen(end: SocketAddr) -> Address {
    let ip = end.ip().to_canonical();
    if ip == end.ip() {
        return end.into();
    }
    SocketAddr::new(ip, end.port()).into()
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

    /// Lets a TCP connection in.
    pub(super) fn admit_tcp(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        let local = stream.local_addr().unwrap_or(peer);
        // A peer that is gone already shows at the first read.
        let _ = stream.set_nodelay(true);
        if let Some(keepalive) = &self.state.read().spec.config.tcp_keepalive {
            let _ = SockRef::from(&stream).set_tcp_keepalive(&socket_keepalive(keepalive));
        }
        self.admit(Io::from(stream), seen(local), seen(peer));
    }

    /// Lets a connection in, by its two ends.
    pub(super) fn admit(self: &Arc<Self>, io: Io, local: Address, remote: Address) {
        self.inspect(io, Facts::new(local, remote));
    }

    /// Has the listener filters look at a connection. Without any it is served at once.
    fn inspect(self: &Arc<Self>, mut io: Io, mut facts: Facts) {
        let state = self.state.read().clone();
        if self.is_full(&state) {
            self.stats.inc(ListenerStats::downstream_global_cx_overflow);
            return;
        }
        if self.is_listener_full() {
            self.stats.inc(ListenerStats::downstream_cx_overflow);
            return;
        }
        let waits = Waiting::new(self);
        if state.filters.is_empty() {
            drop(waits);
            return self.choose(&state, io, facts);
        }
        let shared = self.clone();
        tokio::spawn(async move {
            let outcome = tokio::select! {
                outcome = state.filters.run(&mut io, &mut facts) => outcome,
                () = shared.idle.cancelled() => Err(Rejected::Refused),
            };
            drop(waits);
            if let Err(why) = outcome {
                shared.count_rejected(why);
                if why != Rejected::Late || !state.filters.goes_on() {
                    let info = connection_info(&state, None, facts);
                    return log_unserved(&Arc::new(info), &state.access_logs);
                }
            }
            shared.hand_over(&state, io, facts);
        });
    }

    fn count_rejected(&self, why: Rejected) {
        match why {
            Rejected::Closed => {
                let counter = ListenerStats::downstream_listener_filter_remote_close;
                self.stats.inc(counter);
            }
            Rejected::Failed => self
                .stats
                .inc(ListenerStats::downstream_listener_filter_error),
            Rejected::Late => self.stats.inc(ListenerStats::downstream_pre_cx_timeout),
            Rejected::Refused => {}
        }
    }

    /// Gives a redirected connection to the listener that it was meant for, if this one does so
    /// and there is one; else serves it.
    fn hand_over(self: &Arc<Self>, state: &Arc<State>, io: Io, facts: Facts) {
        if state.spec.config.use_original_dst && facts.local_restored {
            let found = match &facts.local {
                Address::Ip(address) => self.worker.listener_at(*address),
                _ => None,
            };
            if let Some(other) = found.filter(|other| !Arc::ptr_eq(&other.0, self)) {
                return other.0.inspect(io, facts);
            }
        }
        self.choose(state, io, facts);
    }

    /// Chooses the chain of a connection and serves it.
    fn choose(self: &Arc<Self>, state: &Arc<State>, io: Io, facts: Facts) {
        let protocols: Vec<&str> = facts.application_protocols.iter().map(|p| &**p).collect();
        let peer = Peer {
            local: &facts.local,
            remote: &facts.remote,
            direct_remote: &facts.remote,
            server_name: &facts.server_name,
            transport_protocol: facts.transport_protocol,
            application_protocols: &protocols,
        };
        let found = state.spec.matcher.find(&peer).cloned();
        let info = Arc::new(connection_info(state, found.as_deref(), facts));
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
        let handshake = self.handshake(&state.spec, &chain);
        let guard = ConnectionGuard::new(self);
        tokio::spawn(async move {
            tokio::select! {
                () = chain.serve(io, info, handshake, log) => {}
                () = chain.end.cancelled() => {}
            }
            drop(guard);
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
    facts: Facts,
) -> ConnectionInfo {
    ConnectionInfo {
        id: next_connection_id(),
        direct_local: facts.direct_local,
        local_restored: facts.local_restored,
        local: facts.local,
        direct_remote: facts.remote.clone(),
        remote: facts.remote,
        requested_server_name: facts.server_name,
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

pub(super) fn limit_key(listener: &str) -> Box<str> {
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

/// Counts a connection while it waits for its chain.
struct Waiting(Arc<Shared>);

impl Waiting {
    fn new(shared: &Arc<Shared>) -> Self {
        let gauge = ListenerStats::downstream_pre_cx_active;
        shared.stats.gauge_inc(gauge);
        Self(shared.clone())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let gauge = ListenerStats::downstream_pre_cx_active;
        self.0.stats.gauge_dec(gauge);
    }
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
