//! Transport sockets: what carries the bytes of connections, plain text or TLS.

use std::collections::HashMap;
use std::sync::Arc;

use outrigger_config::ir::TransportMatch;
use outrigger_stats::Scope;
use outrigger_types::Metadata;

use crate::upstream::host::Host;

use super::tls::{ClientContext, ContextNames, ServerContext};

/// What carries the connections of a filter chain.
#[derive(Clone, Debug)]
pub enum DownstreamSocket {
    /// Plain text.
    Raw,
    /// TLS.
    Tls(Arc<ServerContext>),
}

/// The transport sockets of a listener's filter chains, by the fingerprints of the chains.
#[derive(Debug, Default)]
pub struct DownstreamSockets(HashMap<u64, DownstreamSocket>);

impl DownstreamSockets {
    /// What carries the connections of a chain.
    pub fn insert(&mut self, fingerprint: u64, socket: DownstreamSocket) {
        self.0.insert(fingerprint, socket);
    }

    /// What carries the connections of a chain; plain text if nothing was said.
    pub fn of(&self, fingerprint: u64) -> DownstreamSocket {
        let found = self.0.get(&fingerprint).cloned();
        found.unwrap_or(DownstreamSocket::Raw)
    }

    /// The TLS context of a chain, if it has one.
    pub fn tls_of(&self, fingerprint: u64) -> Option<&Arc<ServerContext>> {
        match self.0.get(&fingerprint) {
            Some(DownstreamSocket::Tls(context)) => Some(context),
            Some(DownstreamSocket::Raw) | None => None,
        }
    }

    /// Registers the stats of all contexts below the scope of the listener.
    pub fn register(&self, scope: &Scope) -> Vec<ContextNames> {
        let contexts = self.0.values().filter_map(|socket| match socket {
            DownstreamSocket::Raw => None,
            DownstreamSocket::Tls(context) => Some(context.register(scope)),
        });
        contexts.collect()
    }

    /// Whether all secrets have arrived, or are waited for no more.
    pub fn are_settled(&self) -> bool {
        self.0.values().all(|socket| match socket {
            DownstreamSocket::Raw => true,
            DownstreamSocket::Tls(context) => context.is_settled(),
        })
    }
}

/// What carries the connections to a host.
#[derive(Clone, Debug, Default)]
pub enum UpstreamSocket {
    /// Plain text.
    #[default]
    Raw,
    /// TLS.
    Tls(Arc<ClientContext>),
}

/// The transport socket for hosts with certain metadata.
#[derive(Debug)]
pub struct UpstreamMatch {
    /// Which hosts those are.
    pub criteria: TransportMatch,
    /// What carries the connections.
    pub socket: UpstreamSocket,
}

/// The transport sockets of a cluster.
#[derive(Debug, Default)]
pub struct UpstreamSockets {
    /// In order; the first that matches counts.
    pub matches: Vec<UpstreamMatch>,
    /// When none matches.
    pub default: UpstreamSocket,
}

impl UpstreamSockets {
    /// What carries the connections to a host.
    pub fn for_host(&self, host: &Host) -> &UpstreamSocket {
        let found = self.matching(host.metadata.as_deref(), host.locality_metadata.as_deref());
        let found = found.and_then(|index| self.matches.get(index));
        found.map_or(&self.default, |m| &m.socket)
    }

    /// Which match is for what is said of a host, and only then for what is said of its locality.
    pub fn matching(&self, own: Option<&Metadata>, locality: Option<&Metadata>) -> Option<usize> {
        let first = |metadata| {
            let mut matches = self.matches.iter();
            matches.position(|m| m.criteria.matches(metadata))
        };
        first(own).or_else(|| first(locality))
    }

    /// Whether one of them speaks TLS.
    pub fn have_tls(&self) -> bool {
        self.all()
            .any(|socket| matches!(socket, UpstreamSocket::Tls(_)))
    }

    fn all(&self) -> impl Iterator<Item = &UpstreamSocket> {
        let matches = self.matches.iter().map(|m| &m.socket);
        matches.chain([&self.default])
    }

    /// Registers the stats of all contexts below the scope of the cluster.
    pub fn register(&self, scope: &Scope) -> Vec<ContextNames> {
        let contexts = self.all().filter_map(|socket| match socket {
            UpstreamSocket::Raw => None,
            UpstreamSocket::Tls(context) => Some(context.register(scope)),
        });
        contexts.collect()
    }

    /// Whether all secrets have arrived, or are waited for no more.
    pub fn are_settled(&self) -> bool {
        self.all().all(|socket| match socket {
            UpstreamSocket::Raw => true,
            UpstreamSocket::Tls(context) => context.is_settled(),
        })
    }
}
