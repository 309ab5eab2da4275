//! How a cluster finds its hosts.

use super::Result;
use super::any::Typed;
use super::dns::{Dns, by_extension, by_fields};
use super::endpoint::{Resolution, assignment};
use super::original_dst::OriginalDst;
use super::path::{Within, refuse, required, unknown_enum};
use super::source::required_source;
use crate::ir::{DiscoveryConfig, LoadAssignmentConfig};
use crate::pb::envoy::config::cluster::v3 as pb;
use crate::pb::envoy::config::endpoint::v3 as endpoint;
use crate::pb::google::protobuf as wkt;
use pb::cluster as parts;

/// Converts the discovery of the cluster called `name`.
pub(super) fn discovery(
    name: &str,
    kind: Option<parts::ClusterDiscoveryType>,
    eds: Option<parts::EdsClusterConfig>,
    endpoints: Option<endpoint::ClusterLoadAssignment>,
    dns: Dns,
    original_dst: OriginalDst,
) -> Result<DiscoveryConfig> {
    use parts::{ClusterDiscoveryType as Kind, DiscoveryType as Type};
    let number = match kind {
        None => Type::Static as i32,
        Some(Kind::Type(number)) => number,
        Some(Kind::ClusterType(custom)) => {
            return custom_type(name, custom, endpoints, dns.waits).within("cluster_type");
        }
    };
    let kind = match Type::try_from(number) {
        Ok(kind) => kind,
        Err(_) => return unknown_enum("type", number),
    };
    if kind != Type::Eds && eds.is_some() {
        return refuse(
            "eds_cluster_config",
            "eds_cluster_config set in a non-EDS cluster",
        );
    }
    let has_endpoints = endpoints.is_some();
    let hosts = |resolution| {
        assignment(endpoints.unwrap_or_default(), name, resolution).within("load_assignment")
    };
    match kind {
        Type::Static => hosts(Resolution::Addresses).map(DiscoveryConfig::Static),
        Type::StrictDns => Ok(DiscoveryConfig::StrictDns(
            hosts(Resolution::Names)?,
            by_fields(dns)?,
        )),
        Type::LogicalDns => {
            let hosts = hosts(Resolution::Names)?;
            single(&hosts)?;
            Ok(DiscoveryConfig::LogicalDns(hosts, by_fields(dns)?))
        }
        Type::Eds => by_eds(name, eds),
        Type::OriginalDst => original_dst.config(has_endpoints),
    }
}

fn by_eds(name: &str, config: Option<parts::EdsClusterConfig>) -> Result<DiscoveryConfig> {
    let parts::EdsClusterConfig {
        eds_config,
        service_name,
    } = required("eds_cluster_config", config)?;
    let source = required_source("eds_config", eds_config).within("eds_cluster_config")?;
    let service_name = match service_name.is_empty() {
        true => name.into(),
        false => service_name.into(),
    };
    Ok(DiscoveryConfig::Eds {
        source,
        service_name,
    })
}

/// LOGICAL_DNS knows one name.
fn single(hosts: &LoadAssignmentConfig) -> Result<()> {
    match hosts.localities.as_slice() {
        [locality] if locality.endpoints.len() == 1 => Ok(()),
        _ => refuse(
            "load_assignment",
            "LOGICAL_DNS clusters must have a single locality_lb_endpoint and a single lb_endpoint",
        ),
    }
}

/// Of the extensions only `envoy.cluster.dns`, which replaces STRICT_DNS and
/// LOGICAL_DNS.
fn custom_type(
    name: &str,
    message: parts::CustomClusterType,
    endpoints: Option<endpoint::ClusterLoadAssignment>,
    waits: Option<wkt::BoolValue>,
) -> Result<DiscoveryConfig> {
    let parts::CustomClusterType {
        name: _,
        typed_config,
    } = message;
    let typed = Typed::unpack(required("typed_config", typed_config)?).within("typed_config")?;
    if typed.name != "envoy.extensions.clusters.dns.v3.DnsCluster" {
        return typed.unsupported("cluster type").within("typed_config");
    }
    let hosts = assignment(endpoints.unwrap_or_default(), name, Resolution::Names)
        .within("load_assignment")?;
    let (dns, single_endpoint) = by_extension(&typed, waits).within("typed_config")?;
    if !single_endpoint {
        return Ok(DiscoveryConfig::StrictDns(hosts, dns));
    }
    single(&hosts)?;
    Ok(DiscoveryConfig::LogicalDns(hosts, dns))
}
