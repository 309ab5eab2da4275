//! Clusters (`config.cluster.v3.Cluster`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use outrigger_types::{Metadata, MetadataValue};

use super::{
    BindConfig, CommonHttpOptions, ConfigSourceConfig, DnsConfig, HappyEyeballs, Http1Options,
    Http2Options, LoadAssignmentConfig, MetadataExchangeConfig, UpstreamTransport,
};

/// A cluster, validated.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterConfig {
    /// Its name.
    pub name: Arc<str>,
    /// Its name in stats, if another (`alt_stat_name`).
    pub alt_stat_name: Option<Arc<str>>,
    /// How hosts are found.
    pub discovery: DiscoveryConfig,
    /// Default 5 s.
    pub connect_timeout: Duration,
    /// Soft limit on a connection's buffers, bytes. Default 1 MiB.
    pub per_connection_buffer_limit: u32,
    /// The load balancer.
    pub lb: LbPolicyConfig,
    /// Shares of health below which all hosts are used.
    pub lb_common: LbCommonConfig,
    /// Limits of priority DEFAULT.
    pub breakers_default: CircuitBreakerConfig,
    /// Limits of priority HIGH.
    pub breakers_high: CircuitBreakerConfig,
    /// Which protocol the upstream speaks.
    pub protocol: UpstreamProtocolConfig,
    /// Options common to HTTP versions. Idle timeout default 1 h.
    pub common_http: CommonHttpOptions,
    /// Options of HTTP/1.
    pub http1: Http1Options,
    /// Options of HTTP/2.
    pub http2: Http2Options,
    /// Which server name connections ask for, and whether hosts must have it; none for what
    /// their TLS context says.
    pub auto_sni: Option<AutoSniConfig>,
    /// What carries the connections to hosts that no match selects.
    pub transport: UpstreamTransport,
    /// What carries the connections to hosts with such metadata; the first that matches counts.
    pub transport_matches: Vec<TransportMatch>,
    /// What peers tell each other before the first byte of a connection.
    pub exchange: Option<Arc<MetadataExchangeConfig>>,
    /// TCP keep-alive of upstream sockets.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// Where upstream sockets are bound, and their options; none for what the bootstrap says.
    pub bind: Option<BindConfig>,
    /// The order in which the addresses of a host are tried.
    pub happy_eyeballs: HappyEyeballs,
    /// Metadata.
    pub metadata: Option<Arc<Metadata>>,
    /// Stats that are kept only where they are asked for.
    pub tracked: TrackedStats,
}

/// Stats that a cluster keeps only where they are asked for (`TrackClusterStats`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrackedStats {
    /// Those of each endpoint.
    pub per_endpoint: bool,
    /// What share of their timeouts requests use.
    pub timeout_budgets: bool,
    /// How large requests and responses are.
    pub sizes: bool,
}

/// The server name is the host that a request is for (`UpstreamHttpProtocolOptions`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AutoSniConfig {
    /// The field that names the host; none for the authority.
    pub header: Option<HeaderName>,
    /// A host's certificate must be for that name.
    pub validates: bool,
}

/// What carries the connections to some hosts (`Cluster.TransportSocketMatch`).
#[derive(Clone, Debug, PartialEq)]
pub struct TransportMatch {
    /// Its name, in stats.
    pub name: Arc<str>,
    /// What the host's metadata `envoy.transport_socket_match` must hold; nothing matches any.
    pub criteria: BTreeMap<Arc<str>, MetadataValue>,
    /// What carries the connections.
    pub transport: UpstreamTransport,
}

impl TransportMatch {
    /// Whether it is for a host with this metadata.
    pub fn matches(&self, host: Option<&Metadata>) -> bool {
        let found = host.and_then(|metadata| metadata.get("envoy.transport_socket_match"));
        self.criteria
            .iter()
            .all(|(key, wanted)| found.and_then(|fields| fields.at([&**key])) == Some(wanted))
    }
}

/// How hosts are found.
#[derive(Clone, Debug, PartialEq)]
pub enum DiscoveryConfig {
    /// Given here.
    Static(LoadAssignmentConfig),
    /// Names given here, resolved for ever, every address a host.
    StrictDns(LoadAssignmentConfig, DnsConfig),
    /// One name given here, one host: the last answer's first address, and then the others.
    LogicalDns(LoadAssignmentConfig, DnsConfig),
    /// Made on demand, at the address that the connection or the request was for.
    OriginalDst(OriginalDstConfig),
    /// By EDS.
    Eds {
        /// Where from.
        source: ConfigSourceConfig,
        /// The name asked for.
        service_name: Arc<str>,
    },
}

/// Where a cluster of type ORIGINAL_DST takes the address of a host from: metadata, else a field
/// of the request, else the restored local address of the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginalDstConfig {
    /// Dynamic metadata that holds the address.
    pub metadata: Option<MetadataPath>,
    /// The field of the request that holds the address.
    pub header: Option<DestinationHeader>,
    /// The port of all hosts, whatever the address says.
    pub port: Option<u16>,
    /// Hosts that nobody uses are dropped at this pace. Default 5 s.
    pub cleanup_interval: Duration,
}

/// The field of a request that holds an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DestinationHeader {
    /// `:authority`
    Authority,
    /// Any other.
    Field(HeaderName),
}

/// Where in dynamic metadata a value is (`MetadataKey`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataPath {
    /// The namespace.
    pub namespace: Arc<str>,
    /// The way from there.
    pub path: Vec<MetadataSegment>,
}

/// One step into a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetadataSegment {
    /// A field of a struct.
    Key(Arc<str>),
    /// An element of a list.
    Index(usize),
}

impl MetadataPath {
    /// The value that it leads to.
    pub fn find<'a>(&self, metadata: &'a Metadata) -> Option<&'a MetadataValue> {
        let namespace = metadata.get(&self.namespace)?;
        self.path
            .iter()
            .try_fold(namespace, |value, segment| match (value, segment) {
                (MetadataValue::Struct(fields), MetadataSegment::Key(key)) => fields.get(key),
                (MetadataValue::List(items), MetadataSegment::Index(at)) => items.get(*at),
                _ => None,
            })
    }
}

/// The load balancing policy.
#[derive(Clone, Debug, PartialEq)]
pub enum LbPolicyConfig {
    /// ROUND_ROBIN
    RoundRobin(SlowStart),
    /// LEAST_REQUEST
    LeastRequest {
        /// Hosts drawn at random, of which the least busy is taken. Default 2.
        choice_count: u32,
        /// Exponent of the active requests where weights differ. Default 1.0.
        active_request_bias: f64,
        /// Look at every host rather than at some (`FULL_SCAN`).
        full_scan: bool,
        /// See [`SlowStart`].
        slow_start: SlowStart,
    },
    /// RANDOM
    Random,
    /// CLUSTER_PROVIDED: the cluster makes its hosts itself, and says which.
    ClusterProvided,
}

/// How a new host is given less load at first; a zero window turns it off.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct SlowStart {
    /// How long.
    pub window: Duration,
    /// Exponent of the curve, turned around. Default 1.0.
    pub aggression: f64,
    /// Least share, per cent. Default 10.
    pub min_weight_percent: f64,
}

/// What all policies share.
#[derive(Clone, Debug, PartialEq)]
pub struct LbCommonConfig {
    /// Below this share of healthy hosts all are used, per cent. Default 50.
    pub healthy_panic_threshold: f64,
    /// In panic answer 503 instead of using all hosts.
    pub fail_traffic_on_panic: bool,
    /// Weigh localities by their weights.
    pub locality_weighted: bool,
    /// Close all connections when the set of hosts changes.
    pub close_connections_on_host_set_change: bool,
}

/// Limits of one priority, defaults filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct CircuitBreakerConfig {
    /// Default 1,024.
    pub max_connections: u32,
    /// Default 1,024.
    pub max_pending_requests: u32,
    /// Default 1,024.
    pub max_requests: u32,
    /// Default 3; unused where a budget is set.
    pub max_retries: u32,
    /// Retries as a share of active requests.
    pub retry_budget: Option<RetryBudget>,
    /// Default: no limit.
    pub max_connection_pools: u32,
    /// Publish what is left.
    pub track_remaining: bool,
    /// Connections to a single host. Default: no limit.
    pub max_connections_per_host: u32,
}

/// Retries as a share of what is active and pending.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryBudget {
    /// Per cent. Default 20.
    pub budget_percent: f64,
    /// Always allowed. Default 3.
    pub min_retry_concurrency: u32,
}

/// Which protocol the upstream speaks (`HttpProtocolOptions`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamProtocolConfig {
    /// HTTP/1.1, always. What a cluster without options speaks.
    Http1,
    /// HTTP/2, always.
    Http2,
    /// The downstream's (`use_downstream_protocol_config`).
    Downstream,
    /// What the TLS handshake agrees on; HTTP/1.1 where it agrees on nothing.
    Auto,
}

/// Keep-alive of a TCP socket; none leaves the kernel's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct TcpKeepalive {
    /// Probes before the connection is dead.
    pub probes: Option<u32>,
    /// Idle time before the first.
    pub time: Option<Duration>,
    /// Time between them.
    pub interval: Option<Duration>,
}
