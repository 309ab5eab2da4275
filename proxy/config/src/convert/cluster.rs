//! Clusters.

use std::collections::BTreeMap;

use outrigger_types::MetadataValue;

use super::bind::{bind, connecting};
use super::breakers::breakers;
use super::discovery::discovery;
use super::dns::{Dns, Resolver};
use super::http_protocol_options::{Deprecated, http_options};
use super::lb_policy::{Policy, common_lb, policy};
use super::original_dst::{self, OriginalDst};
use super::path::{Within, each, non_empty, optional, refuse, u32_or};
use super::structure::{metadata, structure};
use super::tls::upstream_transport;
use super::{ConvertContext, Converted, Result, check, defaults, metadata_exchange};
use crate::ir::{
    ClusterConfig, TrackedStats, TransportMatch, UpstreamProtocolConfig, UpstreamTransport,
};
use crate::pb::envoy::config::cluster::v3 as pb;
use crate::pb::google::protobuf as wkt;

/// Converts a cluster.
///
/// # Errors
/// For a value or a field that is refused, with its path.
pub fn cluster(bytes: &[u8], cx: &ConvertContext<'_>) -> Result<Converted<ClusterConfig>> {
    check::entry::<pb::Cluster, _>(
        check::CLUSTER,
        bytes,
        cx,
        |message| format!("cluster \"{}\"", message.name),
        |message| convert(message, cx),
    )
}

/// Takes the message apart; long because every field stands here once.
fn convert(message: pb::Cluster, cx: &ConvertContext<'_>) -> Result<ClusterConfig> {
    let pb::Cluster {
        transport_socket_matches,
        transport_socket_matcher: _,
        name,
        alt_stat_name,
        stats_matcher: _,
        eds_cluster_config,
        connect_timeout,
        per_connection_buffer_limit_bytes,
        per_connection_buffer_high_watermark_timeout: _,
        lb_policy,
        load_assignment,
        health_checks: _,
        max_requests_per_connection,
        circuit_breakers,
        upstream_http_protocol_options,
        common_http_protocol_options,
        http_protocol_options,
        http2_protocol_options,
        typed_extension_protocol_options,
        dns_refresh_rate,
        dns_jitter,
        dns_failure_refresh_rate,
        respect_dns_ttl,
        dns_lookup_family,
        dns_resolvers,
        use_tcp_for_dns_lookups,
        dns_resolution_config,
        typed_dns_resolver_config,
        wait_for_warm_on_init,
        outlier_detection: _,
        cleanup_interval,
        upstream_bind_config,
        lb_subset_config: _,
        common_lb_config,
        transport_socket: socket,
        metadata: metadata_message,
        protocol_selection,
        upstream_connection_options,
        close_connections_on_host_health_failure: _,
        ignore_health_on_host_removal: _,
        filters,
        load_balancing_policy,
        lrs_server: _,
        lrs_report_endpoint_metrics: _,
        track_timeout_budgets,
        upstream_config: _,
        track_cluster_stats,
        preconnect_policy: _,
        connection_pool_per_downstream_connection: _,
        queuing_policies: _,
        cluster_discovery_type,
        mut lb_config,
    } = message;
    if name.is_empty() {
        return refuse("name", "value length must be at least 1 characters");
    }
    let dns = Dns {
        refresh_rate: dns_refresh_rate,
        failure_refresh_rate: dns_failure_refresh_rate,
        respect_ttl: respect_dns_ttl,
        jitter: dns_jitter,
        family: dns_lookup_family,
        resolver: Resolver {
            typed: typed_dns_resolver_config,
            resolution: dns_resolution_config,
            servers: dns_resolvers,
            tcp: use_tcp_for_dns_lookups,
        },
        waits: wait_for_warm_on_init,
    };
    let deprecated = Deprecated {
        common: common_http_protocol_options,
        http1: http_protocol_options,
        http2: http2_protocol_options,
        protocol_selection,
        max_requests_per_connection,
        upstream: upstream_http_protocol_options,
    };
    let original_dst = OriginalDst::new(lb_policy, cleanup_interval, &mut lb_config);
    let breakers = breakers(circuit_breakers.unwrap_or_default()).within("circuit_breakers")?;
    let options = http_options(typed_extension_protocol_options, deprecated)?;
    let discovery = discovery(
        &name,
        cluster_discovery_type,
        eds_cluster_config,
        load_assignment,
        dns,
        original_dst,
    )?;
    let mut lb_common = common_lb(common_lb_config).within("common_lb_config")?;
    let lb = policy(Policy {
        by_name: lb_policy,
        config: lb_config,
        typed: load_balancing_policy,
        common: &mut lb_common,
    })?;
    let transport = optional("transport_socket", socket, upstream_transport)?.unwrap_or_default();
    if options.protocol == UpstreamProtocolConfig::Auto && transport == UpstreamTransport::Raw {
        let reason =
            "auto_config: ALPN configured for a cluster which has a non-ALPN transport socket";
        return refuse("typed_extension_protocol_options", reason);
    }
    let connecting = optional(
        "upstream_connection_options",
        upstream_connection_options,
        connecting,
    )?
    .unwrap_or_default();
    let bind = optional("upstream_bind_config", upstream_bind_config, |message| {
        bind(message, &format!("Cluster {name}"))
    })?;
    original_dst::check_policy(&name, &discovery, &lb)?;
    Ok(ClusterConfig {
        discovery,
        name: name.into(),
        alt_stat_name: non_empty(alt_stat_name),
        connect_timeout: connect_timeout_of(connect_timeout)?,
        per_connection_buffer_limit: u32_or(
            per_connection_buffer_limit_bytes,
            defaults::PER_CONNECTION_BUFFER_LIMIT,
        ),
        lb,
        lb_common,
        breakers_default: breakers.default,
        breakers_high: breakers.high,
        protocol: options.protocol,
        common_http: options.common,
        http1: options.http1,
        http2: options.http2,
        auto_sni: options.auto_sni,
        transport,
        transport_matches: each(
            "transport_socket_matches",
            transport_socket_matches,
            socket_match,
        )?,
        exchange: metadata_exchange::of_cluster(filters, cx)?,
        tcp_keepalive: connecting.keepalive,
        happy_eyeballs: connecting.happy_eyeballs,
        bind,
        metadata: metadata(metadata_message),
        tracked: tracked(
            track_cluster_stats.unwrap_or_default(),
            track_timeout_budgets,
        ),
    })
}

/// `deprecated_budgets` is the older field of the cluster itself.
fn tracked(message: pb::TrackClusterStats, deprecated_budgets: bool) -> TrackedStats {
    let pb::TrackClusterStats {
        timeout_budgets,
        request_response_sizes,
        per_endpoint_stats,
    } = message;
    TrackedStats {
        per_endpoint: per_endpoint_stats,
        timeout_budgets: timeout_budgets || deprecated_budgets,
        sizes: request_response_sizes,
    }
}

fn connect_timeout_of(message: Option<wkt::Duration>) -> Result<std::time::Duration> {
    match super::path::duration("connect_timeout", message)? {
        None => Ok(defaults::CONNECT_TIMEOUT),
        Some(timeout) if timeout.is_zero() && nothing(message) => {
            refuse("connect_timeout", "value must be greater than 0s")
        }
        Some(timeout) => Ok(timeout),
    }
}

fn nothing(message: Option<wkt::Duration>) -> bool {
    message.is_some_and(|d| d.seconds == 0 && d.nanos == 0)
}

/// A transport for hosts with certain metadata.
fn socket_match(message: pb::cluster::TransportSocketMatch) -> Result<TransportMatch> {
    let pb::cluster::TransportSocketMatch {
        name,
        r#match,
        transport_socket: socket,
    } = message;
    let criteria = match r#match.map(structure) {
        Some(MetadataValue::Struct(fields)) => fields,
        _ => BTreeMap::new(),
    };
    Ok(TransportMatch {
        name: name.into(),
        criteria,
        transport: optional("transport_socket", socket, upstream_transport)?.unwrap_or_default(),
    })
}
