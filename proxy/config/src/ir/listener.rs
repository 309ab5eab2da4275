//! Listeners (`config.listener.v3.Listener`).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use outrigger_types::{Address, Metadata};

use super::{
    AccessLogConfig, DownstreamTransport, HcmConfig, ListenerFilterConfig, MetadataExchangeConfig,
    TcpKeepalive, TcpProxyConfig,
};

/// A listener, validated.
#[derive(Clone, Debug)]
pub struct ListenerConfig {
    /// Its name.
    pub name: Arc<str>,
    /// What it binds, the main address first.
    pub addresses: Vec<Address>,
    /// Its stats name, if not its address.
    pub stat_prefix: Option<Arc<str>>,
    /// Bind at all. Default true.
    pub bind_to_port: bool,
    /// One socket a worker. Default true.
    pub enable_reuse_port: bool,
    /// Take both IPv6 and IPv4 on an IPv6 wildcard address.
    pub ipv4_compat: bool,
    /// Length of the accept queue. Default `net.core.somaxconn`, else 128.
    pub tcp_backlog: u32,
    /// Connections accepted in a row; none for any number.
    pub max_connections_per_event: Option<u32>,
    /// The chains, in order.
    pub filter_chains: Vec<Arc<FilterChainConfig>>,
    /// The chain when none matches.
    pub default_filter_chain: Option<Arc<FilterChainConfig>>,
    /// What looks at a connection before its chain is chosen, in order.
    pub listener_filters: Vec<ListenerFilterConfig>,
    /// How long that may take; none for any time. Default 15 s.
    pub listener_filters_timeout: Option<Duration>,
    /// Serve a connection for which it takes longer, by what is known of it until then.
    pub continue_on_listener_filters_timeout: bool,
    /// Hand a redirected connection to the listener that it was meant for.
    pub use_original_dst: bool,
    /// Soft limit on a connection's buffers, bytes. Default 1 MiB.
    pub per_connection_buffer_limit: u32,
    /// Listener access logs.
    pub access_logs: Vec<AccessLogConfig>,
    /// INBOUND, OUTBOUND or neither.
    pub traffic_direction: TrafficDirection,
    /// MODIFY_ONLY: drain only on removal or change, not on health failure.
    pub drain_modify_only: bool,
    /// Keep-alive of accepted sockets.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// Ignore the global limit on connections.
    pub ignore_global_conn_limit: bool,
    /// Metadata.
    pub metadata: Option<Arc<Metadata>>,
}

/// `TrafficDirection`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum TrafficDirection {
    /// UNSPECIFIED
    #[default]
    Unspecified,
    /// INBOUND
    Inbound,
    /// OUTBOUND
    Outbound,
}

/// A filter chain and what it serves.
#[derive(Clone, Debug)]
pub struct FilterChainConfig {
    /// Its name; may be empty.
    pub name: Arc<str>,
    /// Which connections it serves.
    pub matches: FilterChainMatchConfig,
    /// What peers tell each other before the terminal sees a byte.
    pub exchange: Option<Arc<MetadataExchangeConfig>>,
    /// What ends the chain.
    pub terminal: NetworkTerminal,
    /// What carries its connections.
    pub transport: DownstreamTransport,
    /// How long the transport's handshake may take; none for any time.
    pub transport_socket_connect_timeout: Option<Duration>,
    /// Metadata.
    pub metadata: Option<Arc<Metadata>>,
    /// Hash of the bytes it was made from: equal chains keep their connections
    /// over an update of the listener.
    pub fingerprint: u64,
}

/// The filter that ends a chain of network filters.
#[derive(Clone, Debug)]
pub enum NetworkTerminal {
    /// HTTP.
    Http(Arc<HcmConfig>),
    /// Bytes as they are.
    Tcp(Arc<TcpProxyConfig>),
    /// No network filter at all: the connection is closed.
    None,
}

/// Criteria of a chain; an empty list means any (`FilterChainMatch`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct FilterChainMatchConfig {
    /// The port of the local address.
    pub destination_port: Option<u16>,
    /// Ranges of the local address.
    pub prefix_ranges: Vec<CidrRange>,
    /// Ranges of the peer's address before any filter changed it.
    pub direct_source_prefix_ranges: Vec<CidrRange>,
    /// Whether the peer is this machine.
    pub source_type: SourceType,
    /// Ranges of the peer's address.
    pub source_prefix_ranges: Vec<CidrRange>,
    /// Ports of the peer.
    pub source_ports: Vec<u16>,
    /// SNI: exact, or a suffix written `*.example.com`. Lower case.
    pub server_names: Vec<Box<str>>,
    /// `raw_buffer` or `tls`; empty for any.
    pub transport_protocol: Box<str>,
    /// ALPN protocols, any of them.
    pub application_protocols: Vec<Box<str>>,
}

impl FilterChainMatchConfig {
    /// How many [`combinations`](Self::combinations) there are.
    pub fn combination_count(&self) -> usize {
        [
            self.prefix_ranges.len(),
            self.server_names.len(),
            self.application_protocols.len(),
            self.direct_source_prefix_ranges.len(),
            self.source_prefix_ranges.len(),
            self.source_ports.len(),
        ]
        .into_iter()
        .fold(1, |count, len| count.saturating_mul(len.max(1)))
    }

    /// Every combination of single criteria: chains that share one could not be
    /// told apart.
    pub fn combinations(&self) -> Vec<FilterChainMatchConfig> {
        let mut all = vec![Self {
            destination_port: self.destination_port,
            source_type: self.source_type,
            transport_protocol: self.transport_protocol.clone(),
            ..Self::default()
        }];
        spread(&mut all, &self.prefix_ranges, |m, v| {
            m.prefix_ranges.push(v)
        });
        spread(&mut all, &self.server_names, |m, v| m.server_names.push(v));
        spread(&mut all, &self.application_protocols, |m, v| {
            m.application_protocols.push(v);
        });
        spread(&mut all, &self.direct_source_prefix_ranges, |m, v| {
            m.direct_source_prefix_ranges.push(v);
        });
        spread(&mut all, &self.source_prefix_ranges, |m, v| {
            m.source_prefix_ranges.push(v);
        });
        spread(&mut all, &self.source_ports, |m, v| m.source_ports.push(v));
        all
    }
}

/// Replaces each element by one for every value; leaves them where there is none.
fn spread<T: Clone>(
    all: &mut Vec<FilterChainMatchConfig>,
    values: &[T],
    mut put: impl FnMut(&mut FilterChainMatchConfig, T),
) {
    if values.is_empty() {
        return;
    }
    *all = all
        .iter()
        .flat_map(|base| std::iter::repeat_n(base, values.len()).zip(values))
        .map(|(base, value)| {
            let mut one = base.clone();
            put(&mut one, value.clone());
            one
        })
        .collect();
}

/// Whether the peer is this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum SourceType {
    /// ANY
    #[default]
    Any,
    /// SAME_IP_OR_LOOPBACK
    SameIpOrLoopback,
    /// EXTERNAL
    External,
}

/// An address range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CidrRange {
    /// The address, host bits cleared.
    pub address: IpAddr,
    /// Length of the prefix in bits.
    pub prefix_len: u8,
}

impl CidrRange {
    /// A range; the bits of `address` past the prefix are cleared, and the
    /// length is capped at the family's.
    pub fn new(address: IpAddr, prefix_len: u8) -> Self {
        match address {
            IpAddr::V4(v4) => {
                let len = prefix_len.min(32);
                let bits = u32::from(v4) & u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
                Self {
                    address: IpAddr::V4(bits.into()),
                    prefix_len: len,
                }
            }
            IpAddr::V6(v6) => {
                let len = prefix_len.min(128);
                let bits =
                    u128::from(v6) & u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
                Self {
                    address: IpAddr::V6(bits.into()),
                    prefix_len: len,
                }
            }
        }
    }

    /// Whether the range holds the address. Families never match each other.
    pub fn contains(&self, address: IpAddr) -> bool {
        Self::new(address, self.prefix_len) == *self && address.is_ipv4() == self.address.is_ipv4()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hold_their_addresses_only() {
        let range = CidrRange::new("10.1.2.3".parse().unwrap(), 8);
        assert!(range.contains("10.255.0.1".parse().unwrap()));
        assert!(!range.contains("11.0.0.1".parse().unwrap()));
        assert!(!range.contains("::1".parse().unwrap()));
        let all = CidrRange::new("1.2.3.4".parse().unwrap(), 0);
        assert!(all.contains("9.9.9.9".parse().unwrap()) && !all.contains("::".parse().unwrap()));
        let v6 = CidrRange::new("fe80::1".parse().unwrap(), 128);
        assert!(
            v6.contains("fe80::1".parse().unwrap()) && !v6.contains("fe80::2".parse().unwrap())
        );
    }
}
