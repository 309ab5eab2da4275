//! Operators that read metadata.

use outrigger_types::{Metadata, StreamInfo};

use super::value::Value;

/// Whose metadata is read.
#[derive(Clone, Copy, Debug)]
pub(super) enum Owner {
    Dynamic,
    Cluster,
    Route,
    UpstreamHost,
    Listener,
    ListenerFilterChain,
    VirtualHost,
}

/// A namespace and the keys below it.
#[derive(Debug)]
pub(super) struct Path {
    owner: Owner,
    namespace: Box<str>,
    keys: Box<[Box<str>]>,
}

impl Path {
    /// Reads `NAMESPACE:KEY*`.
    pub(super) fn parse(owner: Owner, params: &str) -> Self {
        let mut parts = params.split(':');
        Self {
            owner,
            namespace: parts.next().unwrap_or_default().into(),
            keys: parts.map(Into::into).collect(),
        }
    }

    /// Reads `TYPE:NAMESPACE:KEY*`.
    pub(super) fn parse_typed(params: &str) -> Result<Self, String> {
        let (owner, rest) = params.split_once(':').unwrap_or((params, ""));
        let owner = match owner {
            "DYNAMIC" => Owner::Dynamic,
            "CLUSTER" => Owner::Cluster,
            "ROUTE" => Owner::Route,
            "UPSTREAM_HOST" => Owner::UpstreamHost,
            "LISTENER" => Owner::Listener,
            "LISTENER_FILTER_CHAIN" => Owner::ListenerFilterChain,
            "VIRTUAL_HOST" => Owner::VirtualHost,
            other => return Err(format!("{other} is not supported type of metadata")),
        };
        Ok(Self::parse(owner, rest))
    }

    /// The value, if it is there.
    pub(super) fn read<'a>(&'a self, info: &'a StreamInfo) -> Value<'a> {
        self.of(info)
            .and_then(|metadata| metadata.get(&self.namespace))
            .and_then(|value| value.at(self.keys.iter().map(|key| &**key)))
            .map_or(Value::Missing, Value::Metadata)
    }

    fn of<'a>(&self, info: &'a StreamInfo) -> Option<&'a Metadata> {
        match self.owner {
            Owner::Dynamic => info.metadata.as_deref(),
            Owner::Cluster => info.upstream.cluster_metadata.as_deref(),
            Owner::Route => info.route_metadata.as_deref(),
            Owner::UpstreamHost => info.upstream.host_metadata.as_deref(),
            Owner::Listener => info.connection.listener_metadata.as_deref(),
            Owner::ListenerFilterChain => info.connection.filter_chain_metadata.as_deref(),
            Owner::VirtualHost => info.virtual_host_metadata.as_deref(),
        }
    }
}
