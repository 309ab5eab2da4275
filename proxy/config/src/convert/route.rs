//! Route configurations.

use std::collections::HashMap;
use std::sync::Arc;

use filter_api::ConfigError;

use super::filters::overrides;
use super::header_mutation::mutations;
use super::path::{bool_or, each, header_name, u32_or};
use super::structure::metadata;
use super::virtual_host::virtual_host;
use super::{ConvertContext, Converted, Result, check, defaults};
use crate::ir::{RouteTableConfig, VirtualHostConfig};
use crate::pb::envoy::config::route::v3 as pb;

/// Where a table comes from, which decides whether its clusters must be there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// Within an HCM.
    Inline,
    /// By RDS.
    Rds,
}

/// Converts a route configuration of RDS.
///
/// # Errors
/// For a value or a field that is refused, with its path.
pub fn route_table(bytes: &[u8], cx: &ConvertContext<'_>) -> Result<Converted<RouteTableConfig>> {
    check::entry::<pb::RouteConfiguration, _>(
        check::ROUTE_CONFIGURATION,
        bytes,
        cx,
        |message| format!("route_config \"{}\"", message.name),
        |message| table(message, Origin::Rds, cx),
    )
}

/// Converts a route configuration.
pub(super) fn table(
    message: pb::RouteConfiguration,
    origin: Origin,
    cx: &ConvertContext<'_>,
) -> Result<RouteTableConfig> {
    let pb::RouteConfiguration {
        name,
        virtual_hosts,
        vhds: _,
        internal_only_headers,
        response_headers_to_add,
        response_headers_to_remove,
        request_headers_to_add,
        request_headers_to_remove,
        most_specific_header_mutations_wins,
        validate_clusters,
        max_direct_response_body_size_bytes,
        cluster_specifier_plugins: _,
        request_mirror_policies: _,
        ignore_port_in_host_matching,
        vhost_header,
        ignore_path_parameters_in_path_matching,
        typed_per_filter_config,
        metadata: metadata_message,
        route_specifiers: _,
    } = message;
    let max_direct_response_body_size = u32_or(
        max_direct_response_body_size_bytes,
        defaults::MAX_DIRECT_RESPONSE_BODY,
    );
    let virtual_hosts = each("virtual_hosts", virtual_hosts, |message| {
        virtual_host(message, max_direct_response_body_size, cx).map(Arc::new)
    })?;
    unique(&virtual_hosts)?;
    Ok(RouteTableConfig {
        name: name.into(),
        virtual_hosts,
        request_headers: mutations("request", request_headers_to_add, request_headers_to_remove)?,
        response_headers: mutations(
            "response",
            response_headers_to_add,
            response_headers_to_remove,
        )?,
        internal_only_headers: each("internal_only_headers", internal_only_headers, |name| {
            header_name(&name)
        })?,
        validate_clusters: bool_or(validate_clusters, origin == Origin::Inline),
        most_specific_header_mutations_wins,
        filter_overrides: overrides(typed_per_filter_config, cx)?,
        ignore_port_in_host_matching,
        ignore_path_parameters_in_path_matching,
        vhost_header: match vhost_header.as_str() {
            "" => None,
            name => Some(header_name(name).map_err(|error| error.within("vhost_header"))?),
        },
        metadata: metadata(metadata_message),
    })
}

/// A domain may be there once in a table; names may repeat.
fn unique(hosts: &[Arc<VirtualHostConfig>]) -> Result<()> {
    let mut domains = HashMap::new();
    for (i, host) in hosts.iter().enumerate() {
        for (j, domain) in host.domains.iter().enumerate() {
            if let Some(first) = domains.insert(domain, i) {
                let reason = match &**domain {
                    "*" => "only a single wildcard domain is permitted".to_owned(),
                    _ => format!("\"{domain}\" is a domain of virtual_hosts[{first}] too"),
                };
                let error = ConfigError::new(reason).at("domains", j);
                return Err(error.at("virtual_hosts", i));
            }
        }
    }
    Ok(())
}
