//! Listeners: sockets, filter chain match, and connections.

mod accept;
mod admission;
pub mod connection_log;
pub mod drain;
pub mod filter_chain_match;
mod handshake;
pub mod inspect;
mod listener_index;
pub mod sockets;
pub mod stats;
pub mod worker;

use std::sync::Arc;

use outrigger_config::ir::ListenerConfig;

pub use self::drain::{DrainDecision, DrainPolicy};
use self::filter_chain_match::ChainMatcher;
pub use self::handshake::{Handshake, Lost};
pub(crate) use self::listener_index::ListenerIndex;
pub use self::sockets::ListenerSockets;
use crate::network::transport_socket::DownstreamSockets;

/// A listener made ready for workers.
#[derive(Debug)]
pub struct ListenerSpec {
    /// Its configuration.
    pub config: Arc<ListenerConfig>,
    /// Chooses the filter chain of a connection.
    pub matcher: ChainMatcher,
    /// What carries the connections of its chains.
    pub sockets: DownstreamSockets,
    /// Its name in stats: the address with `:` written `_`, or `stat_prefix`.
    pub stat_name: Arc<str>,
}

impl ListenerSpec {
    /// Makes a configuration ready; `addresses` are those really bound.
    pub fn new(config: Arc<ListenerConfig>, sockets: DownstreamSockets, bound: &str) -> Arc<Self> {
        let stat_name: Arc<str> = match &config.stat_prefix {
            Some(prefix) => prefix.clone(),
            None => bound.replace(':', "_").into(),
        };
        Arc::new(Self {
            matcher: ChainMatcher::new(&config),
            sockets,
            stat_name,
            config,
        })
    }
}
