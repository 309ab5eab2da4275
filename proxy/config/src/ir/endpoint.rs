//! Endpoints of a cluster (`ClusterLoadAssignment`).

use std::sync::Arc;
use std::time::Duration;

use outrigger_types::{Address, Metadata};

use filter_api::FractionalPercent;

/// The hosts of a cluster, as configured or as EDS sent them.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadAssignmentConfig {
    /// The cluster's (or EDS service's) name.
    pub cluster_name: Arc<str>,
    /// Hosts by locality.
    pub localities: Vec<LocalityEndpointsConfig>,
    /// Share of a priority's hosts that must be healthy before load spills
    /// over, per cent. Default 140.
    pub overprovisioning_factor: u32,
    /// Share of requests to drop, by category, in order.
    pub drop_overloads: Vec<(Arc<str>, FractionalPercent)>,
    /// Hosts are stale and dropped after so long; none for never.
    pub endpoint_stale_after: Option<Duration>,
    /// Weigh the health of a priority by the hosts' weights.
    pub weighted_priority_health: bool,
}

/// Region, zone and sub-zone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Locality {
    /// Region.
    pub region: Arc<str>,
    /// Zone.
    pub zone: Arc<str>,
    /// Sub-zone.
    pub sub_zone: Arc<str>,
}

/// Hosts of one locality in one priority.
#[derive(Clone, Debug, PartialEq)]
pub struct LocalityEndpointsConfig {
    /// The locality.
    pub locality: Locality,
    /// The hosts.
    pub endpoints: Vec<EndpointConfig>,
    /// Weight among localities of a priority; none takes no load where weights
    /// are used.
    pub weight: Option<u32>,
    /// 0 is the highest.
    pub priority: u32,
}

/// Health as the control plane says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum HealthStatus {
    /// UNKNOWN: taken as healthy.
    #[default]
    Unknown,
    /// HEALTHY
    Healthy,
    /// UNHEALTHY
    Unhealthy,
    /// DRAINING: taken as unhealthy.
    Draining,
    /// TIMEOUT: taken as unhealthy.
    Timeout,
    /// DEGRADED: used after all healthy ones.
    Degraded,
}

/// Where an endpoint is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum EndpointAddress {
    /// A resolved address.
    Resolved(Address),
    /// A host name and a port, for clusters that resolve by DNS.
    Name {
        /// DNS name.
        host: Arc<str>,
        /// Port.
        port: u16,
    },
}

/// One host.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointConfig {
    /// Its address.
    pub address: EndpointAddress,
    /// More addresses for Happy Eyeballs.
    pub additional_addresses: Vec<Address>,
    /// Its host name, for `auto_host_rewrite` and logs; empty for none.
    pub hostname: Arc<str>,
    /// See [`HealthStatus`].
    pub health: HealthStatus,
    /// Weight among the hosts of its locality, from 1.
    pub weight: u32,
    /// What is said of it alone.
    pub metadata: Option<Arc<Metadata>>,
    /// What is said of all in its locality.
    pub locality_metadata: Option<Arc<Metadata>>,
}
