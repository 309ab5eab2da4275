//! TCP proxying (`extensions.filters.network.tcp_proxy.v3.TcpProxy`).

use std::sync::Arc;
use std::time::Duration;

use super::{AccessLogConfig, BackOffConfig};

/// A TCP proxy, validated.
#[derive(Clone, Debug)]
pub struct TcpProxyConfig {
    /// What its stats are called by: `tcp.<stat_prefix>.`
    pub stat_prefix: Arc<str>,
    /// Where connections go, by weight; at least one.
    pub clusters: Vec<TcpCluster>,
    /// The sum of the weights, from 1.
    pub total_weight: u64,
    /// How long nothing may pass; none for any time. Default 1 h.
    pub idle_timeout: Option<Duration>,
    /// How long a connection may live; none for any time.
    pub max_duration: Option<Duration>,
    /// By how much of itself that is longer, at random, percent.
    pub max_duration_jitter: f64,
    /// How often a connection is tried. Default 1.
    pub max_connect_attempts: u32,
    /// The pauses between the attempts; none for no pause.
    pub back_off: Option<BackOffConfig>,
    /// Access logs.
    pub access_logs: Vec<AccessLogConfig>,
    /// How often a line is written of a connection that goes on; none for never.
    pub access_log_flush_interval: Option<Duration>,
    /// Write a line when the upstream connection is made.
    pub log_on_connected: bool,
    /// Write a line when a connection begins.
    pub log_on_start: bool,
}

/// A cluster that takes a share of the connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpCluster {
    /// Its name.
    pub name: Arc<str>,
    /// Its share of [`TcpProxyConfig::total_weight`].
    pub weight: u32,
}

impl TcpProxyConfig {
    /// The cluster of a connection that drew `random`.
    pub fn cluster(&self, random: u64) -> &Arc<str> {
        let mut left = random % self.total_weight.max(1);
        let drawn = self.clusters.iter().find(|cluster| {
            let weight = u64::from(cluster.weight);
            let found = left < weight;
            left = left.saturating_sub(weight);
            found
        });
        &drawn.unwrap_or(&self.clusters[0]).name
    }
}
