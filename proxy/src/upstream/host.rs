//! Hosts: one endpoint of a cluster, with the state that outlives an update.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use outrigger_config::ir::{EndpointAddress, EndpointConfig, HealthStatus, Locality};
use outrigger_types::{Address, Metadata, MetadataValue};

/// What a host can be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Takes load.
    Healthy,
    /// Takes load when too few hosts are healthy.
    Degraded,
    /// Takes load only in panic.
    Unhealthy,
    /// Draining: takes load only in panic, and is not missed meanwhile.
    Excluded,
}

/// Counts of one host over all workers, as `/clusters` prints them.
#[derive(Debug, Default)]
pub struct HostStats {
    /// Requests under way. The least request balancer reads it.
    pub rq_active: AtomicU32,
    /// Requests that wait for a connection.
    pub rq_pending: AtomicU32,
    /// Requests begun.
    pub rq_total: AtomicU64,
    /// Requests answered without an error.
    pub rq_success: AtomicU64,
    /// Requests answered by a 5xx or not at all.
    pub rq_error: AtomicU64,
    /// Requests that timed out.
    pub rq_timeout: AtomicU64,
    /// Connections open.
    pub cx_active: AtomicU64,
    /// Connections opened.
    pub cx_total: AtomicU64,
    /// Connections that failed.
    pub cx_connect_fail: AtomicU64,
}

fn is_canary(metadata: Option<&Metadata>) -> bool {
    let of_lb = metadata.and_then(|metadata| metadata.get("envoy.lb"));
    let canary = of_lb.and_then(|fields| fields.at(["canary"]));
    canary == Some(&MetadataValue::Bool(true))
}

/// One endpoint. It keeps its identity over updates of the cluster's hosts, and
/// with it its pools and counts.
#[derive(Debug)]
pub struct Host {
    /// Where it is.
    pub address: Address,
    /// Where else it can be reached; tried in order when `address` does not answer.
    pub additional_addresses: Vec<Address>,
    /// Its host name; empty for none.
    pub hostname: Arc<str>,
    /// Its locality.
    pub locality: Locality,
    /// Its priority.
    pub priority: u32,
    /// What is said of it alone.
    pub metadata: Option<Arc<Metadata>>,
    /// What is said of all in its locality.
    pub locality_metadata: Option<Arc<Metadata>>,
    /// Whether its metadata calls it canary (`envoy.lb`, `canary`).
    pub canary: bool,
    /// When it was first seen.
    pub created: Instant,
    /// Its counts.
    pub stats: HostStats,
    weight: AtomicU32,
    status: AtomicU8,
}

impl Host {
    /// A host at a resolved address.
    pub fn new(
        address: Address,
        endpoint: &EndpointConfig,
        locality: Locality,
        priority: u32,
    ) -> Self {
        Self {
            address,
            additional_addresses: endpoint.additional_addresses.clone(),
            hostname: endpoint.hostname.clone(),
            locality,
            priority,
            canary: is_canary(endpoint.metadata.as_deref()),
            metadata: endpoint.metadata.clone(),
            locality_metadata: endpoint.locality_metadata.clone(),
            created: Instant::now(),
            stats: HostStats::default(),
            weight: AtomicU32::new(endpoint.weight.max(1)),
            status: AtomicU8::new(endpoint.health as u8),
        }
    }

    /// A host that is known by its address alone.
    pub fn at(address: Address, hostname: Arc<str>) -> Self {
        let endpoint = EndpointConfig {
            address: EndpointAddress::Resolved(address.clone()),
            additional_addresses: Vec::new(),
            hostname,
            health: HealthStatus::Unknown,
            weight: 1,
            metadata: None,
            locality_metadata: None,
        };
        Self::new(address, &endpoint, Locality::default(), 0)
    }

    /// Whether it has a connection, or a request waits for one.
    pub fn is_in_use(&self) -> bool {
        self.stats.cx_active.load(Ordering::Relaxed) > 0
            || self.stats.rq_pending.load(Ordering::Relaxed) > 0
    }

    /// Its weight, from 1.
    pub fn weight(&self) -> u32 {
        self.weight.load(Ordering::Relaxed)
    }

    /// The status that the control plane gave.
    pub fn status(&self) -> HealthStatus {
        match self.status.load(Ordering::Relaxed) {
            1 => HealthStatus::Healthy,
            2 => HealthStatus::Unhealthy,
            3 => HealthStatus::Draining,
            4 => HealthStatus::Timeout,
            5 => HealthStatus::Degraded,
            _ => HealthStatus::Unknown,
        }
    }

    /// What it can be used for.
    pub fn health(&self) -> Health {
        match self.status() {
            HealthStatus::Unknown | HealthStatus::Healthy => Health::Healthy,
            HealthStatus::Degraded => Health::Degraded,
            HealthStatus::Unhealthy | HealthStatus::Timeout => Health::Unhealthy,
            HealthStatus::Draining => Health::Excluded,
        }
    }

    /// Takes over what may change without a new identity.
    pub fn update(&self, weight: u32, status: HealthStatus) {
        self.weight.store(weight.max(1), Ordering::Relaxed);
        self.status.store(status as u8, Ordering::Relaxed);
    }

    /// Whether an endpoint of an update is this host.
    pub fn is_same(&self, endpoint: &EndpointConfig, locality: &Locality, priority: u32) -> bool {
        self.priority == priority
            && self.hostname == endpoint.hostname
            && self.locality == *locality
            && self.metadata == endpoint.metadata
            && self.locality_metadata == endpoint.locality_metadata
            && self.additional_addresses == endpoint.additional_addresses
    }
}
