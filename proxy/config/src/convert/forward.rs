//! The action that sends a request upstream (`RouteAction`).

use std::collections::BTreeMap;
use std::time::Duration;

use outrigger_types::{HeaderKey, StatusCode};

use super::hcm::upgrade_name;
use super::matcher::regex_rewrite;
use super::path::{
    Within, bool_or, duration, each, header_name, non_empty, optional, refuse, required,
    timeout_or, unknown_enum,
};
use super::retry::retry_policy;
use super::weighted_cluster::weighted_clusters;
use super::{ConvertContext, Result, defaults};
use crate::ir::{
    ClusterSpecifier, ForwardConfig, HostRewrite, MaxStreamDuration, PathMatchConfig,
    RoutingPriority,
};
use crate::pb::envoy::config::core::v3 as core;
use crate::pb::envoy::config::route::v3 as pb;
use pb::route_action as parts;

/// Converts the action of a route that matches by `path`.
pub(super) fn forward(
    message: pb::RouteAction,
    path: &PathMatchConfig,
    cx: &ConvertContext<'_>,
) -> Result<ForwardConfig> {
    let pb::RouteAction {
        cluster_not_found_response_code,
        metadata_match: _,
        prefix_rewrite,
        regex_rewrite: regex_message,
        path_rewrite_policy: _,
        path_rewrite: _,
        append_x_forwarded_host,
        timeout,
        idle_timeout,
        flush_timeout: _,
        early_data_policy: _,
        retry_policy: retry,
        retry_policy_typed_config: _,
        request_mirror_policies: _,
        priority,
        rate_limits: _,
        include_vh_rate_limits: _,
        hash_policy: _,
        cors: _,
        max_grpc_timeout,
        grpc_timeout_offset,
        upgrade_configs,
        internal_redirect_policy: _,
        internal_redirect_action: _,
        max_internal_redirects: _,
        hedge_policy: _,
        max_stream_duration,
        cluster_specifier,
        host_rewrite_specifier,
    } = message;
    let prefix_rewrite: Option<Box<str>> = non_empty(prefix_rewrite);
    let regex_rewrite = optional("regex_rewrite", regex_message, regex_rewrite)?;
    if prefix_rewrite.is_some() && regex_rewrite.is_some() {
        return refuse(
            "regex_rewrite",
            "cannot be set together with prefix_rewrite",
        );
    }
    if regex_rewrite.is_some() && matches!(path, PathMatchConfig::Connect) {
        return refuse("regex_rewrite", "cannot rewrite the path of CONNECT");
    }
    let (upgrades, terminates_connect) = upgrades(upgrade_configs)?;
    Ok(ForwardConfig {
        cluster: cluster(required("cluster_specifier", cluster_specifier)?, cx)?,
        cluster_not_found: not_found(cluster_not_found_response_code)?,
        prefix_rewrite,
        regex_rewrite,
        host_rewrite: host_rewrite(host_rewrite_specifier)?,
        append_x_forwarded_host,
        timeout: timeout_or("timeout", timeout, Some(defaults::ROUTE_TIMEOUT))?,
        idle_timeout: duration("idle_timeout", idle_timeout)?,
        max_stream_duration: optional("max_stream_duration", max_stream_duration, stream_life)?,
        retry_policy: optional("retry_policy", retry, retry_policy)?,
        priority: routing_priority(priority).within("priority")?,
        upgrades,
        terminates_connect,
        max_grpc_timeout: duration("max_grpc_timeout", max_grpc_timeout)?,
        grpc_timeout_offset: duration("grpc_timeout_offset", grpc_timeout_offset)?,
    })
}

fn cluster(
    specifier: parts::ClusterSpecifier,
    cx: &ConvertContext<'_>,
) -> Result<ClusterSpecifier> {
    use parts::ClusterSpecifier as Kind;
    match specifier {
        Kind::Cluster(name) if name.is_empty() => {
            refuse("cluster", "value length must be at least 1 characters")
        }
        Kind::Cluster(name) => Ok(ClusterSpecifier::Cluster(name.into())),
        Kind::ClusterHeader(name) => match HeaderKey::parse(&name) {
            Some(key) => Ok(ClusterSpecifier::Header(key)),
            None => refuse("cluster_header", format!("\"{name}\" is no header name")),
        },
        Kind::WeightedClusters(message) => weighted_clusters(message, cx)
            .within("weighted_clusters")
            .map(ClusterSpecifier::Weighted),
        Kind::ClusterSpecifierPlugin(_) => refuse("cluster_specifier_plugin", "is not supported"),
        Kind::InlineClusterSpecifierPlugin(_) => {
            refuse("inline_cluster_specifier_plugin", "is not supported")
        }
    }
}

fn not_found(number: i32) -> Result<StatusCode> {
    use parts::ClusterNotFoundResponseCode as Code;
    match Code::try_from(number) {
        Ok(Code::ServiceUnavailable) => Ok(StatusCode::SERVICE_UNAVAILABLE),
        Ok(Code::NotFound) => Ok(StatusCode::NOT_FOUND),
        Ok(Code::InternalServerError) => Ok(StatusCode::INTERNAL_SERVER_ERROR),
        Err(_) => unknown_enum("cluster_not_found_response_code", number),
    }
}

fn host_rewrite(specifier: Option<parts::HostRewriteSpecifier>) -> Result<HostRewrite> {
    use parts::HostRewriteSpecifier as Kind;
    Ok(match specifier {
        None => HostRewrite::None,
        Some(Kind::HostRewriteLiteral(host)) if host.is_empty() => HostRewrite::None,
        Some(Kind::HostRewriteLiteral(host)) => HostRewrite::Literal(host.into()),
        Some(Kind::AutoHostRewrite(wrapped)) if wrapped.value => HostRewrite::Auto,
        Some(Kind::AutoHostRewrite(_)) => HostRewrite::None,
        Some(Kind::HostRewriteHeader(name)) if name.is_empty() => HostRewrite::None,
        Some(Kind::HostRewriteHeader(name)) => {
            HostRewrite::Header(header_name(&name).within("host_rewrite_header")?)
        }
        Some(Kind::HostRewritePathRegex(message)) => {
            HostRewrite::PathRegex(regex_rewrite(message).within("host_rewrite_path_regex")?)
        }
        Some(Kind::HostRewrite(_)) => return refuse("host_rewrite", "is not supported"),
    })
}

fn stream_life(message: parts::MaxStreamDuration) -> Result<MaxStreamDuration> {
    let parts::MaxStreamDuration {
        max_stream_duration,
        grpc_timeout_header_max,
        grpc_timeout_header_offset,
    } = message;
    Ok(MaxStreamDuration {
        max_stream_duration: duration("max_stream_duration", max_stream_duration)?,
        grpc_timeout_header_max: duration("grpc_timeout_header_max", grpc_timeout_header_max)?,
        grpc_timeout_header_offset: duration(
            "grpc_timeout_header_offset",
            grpc_timeout_header_offset,
        )?
        .filter(|offset| *offset > Duration::ZERO),
    })
}

/// A routing priority.
pub(super) fn routing_priority(number: i32) -> Result<RoutingPriority> {
    match core::RoutingPriority::try_from(number) {
        Ok(core::RoutingPriority::Default) => Ok(RoutingPriority::Default),
        Ok(core::RoutingPriority::High) => Ok(RoutingPriority::High),
        Err(_) => Err(filter_api::ConfigError::new(format!(
            "value {number} is not defined"
        ))),
    }
}

/// Upgrades by name, and whether CONNECT ends here.
fn upgrades(messages: Vec<parts::UpgradeConfig>) -> Result<(BTreeMap<Box<str>, bool>, bool)> {
    let mut all = BTreeMap::new();
    let mut terminates = false;
    each("upgrade_configs", messages, |message| {
        let parts::UpgradeConfig {
            upgrade_type,
            enabled,
            connect_config,
        } = message;
        let name = upgrade_name(upgrade_type)?;
        if let Some(config) = connect_config {
            let parts::upgrade_config::ConnectConfig {
                proxy_protocol_config: _,
                allow_post: _,
            } = config;
            if &*name != "connect" {
                let reason = format!("Non-CONNECT upgrade type {name} has ConnectConfig");
                return refuse("connect_config", reason);
            }
            terminates = true;
        }
        match all.insert(name.clone(), bool_or(enabled, true)) {
            Some(_) => refuse("upgrade_type", format!("duplicate upgrade {name}")),
            None => Ok(()),
        }
    })?;
    Ok((all, terminates))
}
