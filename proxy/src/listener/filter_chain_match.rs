//! Chooses the filter chain of a connection, in Envoy's order and without going
//! back: destination port, destination address, server name, transport
//! protocol, application protocol, the peer before any filter, source type,
//! source address, source port. At each step the most specific criterion that
//! holds is taken, and only chains that name it are considered further.

use std::net::IpAddr;
use std::sync::Arc;

use outrigger_config::ir::{
    CidrRange, FilterChainConfig, FilterChainMatchConfig, ListenerConfig, SourceType,
};
use outrigger_types::Address;

/// What is known of a connection when its chain is chosen.
#[derive(Clone, Copy, Debug)]
pub struct Peer<'a> {
    /// The local address, the original destination where it was restored.
    pub local: &'a Address,
    /// The peer's address.
    pub remote: &'a Address,
    /// The peer's address before any filter changed it.
    pub direct_remote: &'a Address,
    /// SNI, lower case; empty for none.
    pub server_name: &'a str,
    /// `raw_buffer` or `tls`.
    pub transport_protocol: &'a str,
    /// ALPN protocols that the client offers, or what an inspector found.
    pub application_protocols: &'a [&'a str],
}

/// The chains of a listener.
#[derive(Debug)]
pub struct ChainMatcher {
    chains: Vec<Arc<FilterChainConfig>>,
    default: Option<Arc<FilterChainConfig>>,
}

type Candidates<'a> = Vec<&'a Arc<FilterChainConfig>>;

impl ChainMatcher {
    /// The matcher of a listener.
    pub fn new(config: &ListenerConfig) -> Self {
        Self {
            chains: config.filter_chains.clone(),
            default: config.default_filter_chain.clone(),
        }
    }

    /// The chain of a connection; the default one when none matches.
    pub fn find(&self, peer: &Peer<'_>) -> Option<&Arc<FilterChainConfig>> {
        if let [only] = &self.chains[..]
            && only.matches == FilterChainMatchConfig::default()
        {
            return Some(only);
        }
        self.walk(peer).or(self.default.as_ref())
    }

    fn walk(&self, peer: &Peer<'_>) -> Option<&Arc<FilterChainConfig>> {
        let chains: Candidates<'_> = self.chains.iter().collect();
        let chains = by_score(chains, |m| {
            port_score(m.destination_port, peer.local.port())
        });
        let chains = by_score(chains, |m| range_score(&m.prefix_ranges, peer.local.ip()));
        let chains = by_score(chains, |m| name_score(&m.server_names, peer.server_name));
        let chains = by_score(chains, |m| match &*m.transport_protocol {
            "" => Some(0),
            wanted => (wanted == peer.transport_protocol).then_some(1),
        });
        let chains = by_score(chains, |m| {
            any_of(&m.application_protocols, |p| {
                peer.application_protocols.contains(&&**p)
            })
        });
        let chains = by_score(chains, |m| {
            range_score(&m.direct_source_prefix_ranges, peer.direct_remote.ip())
        });
        let local = is_local(peer);
        let chains = by_score(chains, |m| match m.source_type {
            SourceType::Any => Some(0),
            SourceType::SameIpOrLoopback => local.then_some(1),
            SourceType::External => (!local).then_some(1),
        });
        let chains = by_score(chains, |m| {
            range_score(&m.source_prefix_ranges, peer.remote.ip())
        });
        let chains = by_score(chains, |m| {
            any_of(&m.source_ports, |p| Some(*p) == peer.remote.port())
        });
        chains.into_iter().next()
    }
}

/// Keeps the chains with the highest score; those without one are out.
fn by_score(
    chains: Candidates<'_>,
    score: impl Fn(&FilterChainMatchConfig) -> Option<usize>,
) -> Candidates<'_> {
    let scored: Vec<_> = chains
        .into_iter()
        .filter_map(|c| Some((score(&c.matches)?, c)))
        .collect();
    let best = scored.iter().map(|(s, _)| *s).max();
    scored
        .into_iter()
        .filter(|(s, _)| Some(*s) == best)
        .map(|(_, c)| c)
        .collect()
}

fn port_score(wanted: Option<u16>, port: Option<u16>) -> Option<usize> {
    match wanted {
        None => Some(0),
        Some(wanted) => (Some(wanted) == port).then_some(1),
    }
}

/// The longest prefix that holds the address. One of length zero says no more than none:
/// Envoy keeps both at the same place, and looks into one of them, whichever comes first
/// in memory; here both are candidates for the steps that follow.
fn range_score(ranges: &[CidrRange], address: Option<IpAddr>) -> Option<usize> {
    if ranges.is_empty() {
        return Some(0);
    }
    let address = address?;
    ranges
        .iter()
        .filter(|r| r.contains(address))
        .map(|r| usize::from(r.prefix_len))
        .max()
}

/// An exact name beats any suffix, a longer suffix beats a shorter.
fn name_score(names: &[Box<str>], server_name: &str) -> Option<usize> {
    if names.is_empty() {
        return Some(0);
    }
    let score = |name: &str| match name.strip_prefix('*') {
        Some(suffix) => (server_name.len() > suffix.len() && server_name.ends_with(suffix))
            .then_some(suffix.len()),
        None => (name == server_name).then_some(usize::MAX),
    };
    names.iter().filter_map(|n| score(n)).max()
}

fn any_of<T>(wanted: &[T], holds: impl Fn(&T) -> bool) -> Option<usize> {
    if wanted.is_empty() {
        return Some(0);
    }
    wanted.iter().any(holds).then_some(1)
}

/// A peer on a Unix socket, on loopback, or with our own address.
fn is_local(peer: &Peer<'_>) -> bool {
    match (peer.remote.ip(), peer.local.ip()) {
        (Some(remote), local) => remote.is_loopback() || Some(remote) == local,
        (None, _) => true,
    }
}

#[cfg(test)]
mod tests;
