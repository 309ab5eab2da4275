//! TCP proxies.

use std::time::Duration;

use filter_api::ConfigError;

use super::access_log::access_logs;
use super::matcher::percent;
use super::path::{Within, duration, duration_or, each, optional, refuse, timeout_or, u32_or};
use super::source::back_off;
use super::{Result, defaults};
use crate::ir::{BackOffConfig, TcpCluster, TcpProxyConfig};
use crate::pb::envoy::config::core::v3 as core;
use crate::pb::envoy::extensions::filters::network::tcp_proxy::v3 as pb;
use pb::tcp_proxy::ClusterSpecifier;
use pb::tcp_proxy::weighted_cluster::ClusterWeight;

/// Converts a TCP proxy.
pub(super) fn tcp_proxy(message: pb::TcpProxy) -> Result<TcpProxyConfig> {
    let pb::TcpProxy {
        stat_prefix,
        on_demand: _,
        metadata_match: _,
        idle_timeout,
        downstream_idle_timeout: _,
        upstream_idle_timeout: _,
        access_log,
        max_connect_attempts,
        backoff_options,
        hash_policy: _,
        tunneling_config: _,
        max_downstream_connection_duration,
        max_downstream_connection_duration_jitter_percentage,
        access_log_flush_interval,
        flush_access_log_on_connected,
        access_log_options,
        proxy_protocol_tlvs: _,
        proxy_protocol_tlv_merge_policy: _,
        upstream_connect_mode: _,
        max_early_data_bytes: _,
        check_drain_close: _,
        cluster_specifier,
    } = message;
    let options = match access_log_options {
        Some(options) => log_options(options).within("access_log_options")?,
        None => LogOptions {
            interval: log_interval(access_log_flush_interval)?,
            on_connected: flush_access_log_on_connected,
            on_start: false,
        },
    };
    let clusters = clusters(cluster_specifier)?;
    Ok(TcpProxyConfig {
        stat_prefix: stat_prefix.into(),
        total_weight: clusters.iter().map(|c| u64::from(c.weight)).sum(),
        clusters,
        idle_timeout: timeout_or(
            "idle_timeout",
            idle_timeout,
            Some(defaults::TCP_IDLE_TIMEOUT),
        )?,
        max_duration: duration(
            "max_downstream_connection_duration",
            max_downstream_connection_duration,
        )?,
        max_duration_jitter: percent(
            "max_downstream_connection_duration_jitter_percentage",
            max_downstream_connection_duration_jitter_percentage,
            0.0,
        )?,
        max_connect_attempts: u32_or(max_connect_attempts, 1),
        back_off: optional("backoff_options", backoff_options, pauses)?,
        access_logs: access_logs("access_log", access_log)?,
        access_log_flush_interval: options.interval,
        log_on_connected: options.on_connected,
        log_on_start: options.on_start,
    })
}

/// One cluster, or several by weight.
fn clusters(specifier: Option<ClusterSpecifier>) -> Result<Vec<TcpCluster>> {
    match specifier {
        Some(ClusterSpecifier::Cluster(name)) => Ok(vec![TcpCluster {
            name: name.into(),
            weight: 1,
        }]),
        Some(ClusterSpecifier::WeightedClusters(message)) => {
            let pb::tcp_proxy::WeightedCluster { clusters } = message;
            if clusters.is_empty() {
                return refuse("weighted_clusters", "value must contain at least 1 item(s)");
            }
            each("clusters", clusters, |message| {
                let ClusterWeight {
                    name,
                    weight,
                    metadata_match: _,
                } = message;
                Ok(TcpCluster {
                    name: name.into(),
                    weight,
                })
            })
            .within("weighted_clusters")
        }
        None => Err(ConfigError::new(
            "one of cluster and weighted_clusters is required",
        )),
    }
}

/// When lines are written beside the one at the end.
struct LogOptions {
    interval: Option<Duration>,
    on_connected: bool,
    on_start: bool,
}

fn log_options(message: pb::tcp_proxy::TcpAccessLogOptions) -> Result<LogOptions> {
    let pb::tcp_proxy::TcpAccessLogOptions {
        access_log_flush_interval,
        flush_access_log_on_connected,
        flush_access_log_on_start,
    } = message;
    Ok(LogOptions {
        interval: log_interval(access_log_flush_interval)?,
        on_connected: flush_access_log_on_connected,
        on_start: flush_access_log_on_start,
    })
}

fn log_interval(
    message: Option<crate::pb::google::protobuf::Duration>,
) -> Result<Option<Duration>> {
    duration("access_log_flush_interval", message)
}

/// The pauses between attempts: the longest is ten times the first where it is not said.
fn pauses(message: core::BackoffStrategy) -> Result<BackOffConfig> {
    let core::BackoffStrategy {
        base_interval,
        max_interval,
    } = message;
    let base = duration_or("base_interval", base_interval, Duration::ZERO)?;
    let max = duration_or("max_interval", max_interval, base.saturating_mul(10))?;
    back_off(base, max)
}
