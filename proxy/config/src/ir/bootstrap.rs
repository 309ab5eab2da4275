//! The bootstrap (`config.bootstrap.v3.Bootstrap`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use filter_api::LocalNode;
use outrigger_types::{Address, MetadataValue};

use super::{
    AccessLogConfig, ApiConfigSource, BindConfig, ConfigSourceConfig, DnsResolverConfig, Locality,
};

/// The bootstrap, validated. Static resources stay bytes here: they take the
/// same way as those of xDS.
#[derive(Clone, Debug)]
pub struct BootstrapConfig {
    /// The node.
    pub node: NodeConfig,
    /// The admin endpoint; none for no admin.
    pub admin: Option<AdminConfig>,
    /// Serialised `Cluster` messages.
    pub static_clusters: Vec<Bytes>,
    /// Serialised `Listener` messages.
    pub static_listeners: Vec<Bytes>,
    /// Serialised `Secret` messages.
    pub static_secrets: Vec<Bytes>,
    /// ADS.
    pub ads: Option<Arc<ApiConfigSource>>,
    /// Where listeners come from.
    pub lds: Option<ConfigSourceConfig>,
    /// Where clusters come from.
    pub cds: Option<ConfigSourceConfig>,
    /// Runtime layers in order, the last wins.
    pub runtime_layers: Vec<RuntimeLayerConfig>,
    /// Time between flushes of stats, 5 s by default; none where asking the admin page for
    /// them flushes them.
    pub stats_flush_interval: Option<Duration>,
    /// Tags and the matcher.
    pub stats: StatsConfig,
    /// Most downstream connections in the process; none for any number.
    pub max_downstream_connections: Option<u64>,
    /// Where upstream sockets are bound for clusters that do not say; none for anywhere.
    pub upstream_bind: Option<BindConfig>,
    /// Who resolves names for clusters that do not say.
    pub dns_resolver: Arc<DnsResolverConfig>,
    /// Format of the process's log (`application_log_config`); none for the
    /// command line's.
    pub log_format: Option<LogFormatConfig>,
}

/// Format of the process's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogFormatConfig {
    /// spdlog-like pattern.
    Text(Arc<str>),
    /// A JSON object of patterns by key.
    Json(BTreeMap<Arc<str>, Arc<str>>),
}

/// Who this proxy is (`core.v3.Node`).
#[derive(Clone, Debug, PartialEq)]
pub struct NodeConfig {
    /// Id.
    pub id: Arc<str>,
    /// Cluster.
    pub cluster: Arc<str>,
    /// Locality.
    pub locality: Locality,
    /// Metadata: a struct.
    pub metadata: MetadataValue,
    /// The serialised message, as xDS sends it, before the proxy adds what it
    /// says of itself.
    pub message: Bytes,
}

impl NodeConfig {
    /// The part of it that filters may want to know.
    pub fn local(&self) -> LocalNode {
        LocalNode {
            id: self.id.clone(),
            metadata: self.metadata.clone(),
            region: self.locality.region.clone(),
            zone: self.locality.zone.clone(),
        }
    }
}

/// The admin endpoint.
#[derive(Clone, Debug)]
pub struct AdminConfig {
    /// Where it listens.
    pub address: Address,
    /// Its access logs.
    pub access_logs: Vec<AccessLogConfig>,
}

/// One layer of the runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeLayerConfig {
    /// Its name.
    pub name: Arc<str>,
    /// What it holds.
    pub kind: RuntimeLayerKind,
}

/// What a layer holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuntimeLayerKind {
    /// Flattened keys and values.
    Static(BTreeMap<Box<str>, Box<str>>),
    /// What `/runtime_modify` sets.
    Admin,
}

/// Tags and the matcher of stats (`StatsConfig`), as the stats package takes them.
#[derive(Clone, Debug, Default)]
pub struct StatsConfig {
    /// Tag specifiers in order.
    pub tags: Vec<TagSpecifierConfig>,
    /// Use Envoy's default tags too. Default true.
    pub use_all_default_tags: bool,
    /// Which stats exist.
    pub matcher: StatsMatcherConfig,
    /// Buckets of histograms whose name matches.
    pub histogram_buckets: Vec<(crate::matcher::StringMatcher, Vec<f64>)>,
}

/// One tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TagSpecifierConfig {
    /// Its value is found by a regex; empty for the default of that name.
    Regex {
        /// Tag name.
        name: Arc<str>,
        /// ECMAScript regex.
        regex: Arc<str>,
    },
    /// Its value is fixed.
    Fixed {
        /// Tag name.
        name: Arc<str>,
        /// Its value.
        value: Arc<str>,
    },
}

/// Which stats exist.
#[derive(Clone, Debug, Default)]
pub enum StatsMatcherConfig {
    /// All.
    #[default]
    All,
    /// None.
    None,
    /// Those that match any.
    Inclusion(Vec<crate::matcher::StringMatcher>),
    /// Those that match none.
    Exclusion(Vec<crate::matcher::StringMatcher>),
}
