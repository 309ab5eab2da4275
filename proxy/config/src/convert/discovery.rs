//! How a cluster finds its hosts.

use std::time::Duration;

use filter_api::ConfigError;

use super::Result;
use super::any::Typed;
use super::defaults;
use super::endpoint::{Resolution, assignment};
use super::original_dst::OriginalDst;
use super::path::{Within, duration, duration_or, optional, refuse, required, unknown_enum};
use super::source::required_source;
use crate::ir::{BackOffConfig, DiscoveryConfig, DnsConfig, DnsLookupFamily, LoadAssignmentConfig};
use crate::pb::envoy::config::cluster::v3 as pb;
use crate::pb::envoy::config::core::v3 as core;
use crate::pb::envoy::config::endpoint::v3 as endpoint;
use crate::pb::envoy::extensions::clusters::common::dns::v3::DnsLookupFamily as TypedFamily;
use crate::pb::envoy::extensions::clusters::dns::v3 as typed_dns;
use crate::pb::google::protobuf as wkt;
use pb::cluster as parts;

/// What a cluster itself says about DNS.
pub(super) struct Dns {
    pub(super) refresh_rate: Option<wkt::Duration>,
    pub(super) failure_refresh_rate: Option<parts::RefreshRate>,
    pub(super) respect_ttl: bool,
    pub(super) jitter: Option<wkt::Duration>,
    pub(super) family: i32,
    pub(super) resolver: Option<core::TypedExtensionConfig>,
}

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
            return custom_type(name, custom, endpoints).within("cluster_type");
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

fn by_fields(dns: Dns) -> Result<DnsConfig> {
    let Dns {
        refresh_rate,
        failure_refresh_rate,
        respect_ttl,
        jitter,
        family,
        resolver: resolver_config,
    } = dns;
    optional("typed_dns_resolver_config", resolver_config, resolver)?;
    let refresh = refresh("dns_refresh_rate", refresh_rate)?;
    Ok(DnsConfig {
        refresh_rate: refresh,
        failure_refresh_rate: optional("dns_failure_refresh_rate", failure_refresh_rate, |rate| {
            let parts::RefreshRate {
                base_interval,
                max_interval,
            } = rate;
            failure_rate(base_interval, max_interval)
        })?,
        respect_ttl,
        jitter: duration("dns_jitter", jitter)?.unwrap_or_default(),
        family: match parts::DnsLookupFamily::try_from(family) {
            Ok(parts::DnsLookupFamily::Auto) => DnsLookupFamily::Auto,
            Ok(parts::DnsLookupFamily::V4Only) => DnsLookupFamily::V4Only,
            Ok(parts::DnsLookupFamily::V6Only) => DnsLookupFamily::V6Only,
            Ok(parts::DnsLookupFamily::V4Preferred) => DnsLookupFamily::V4Preferred,
            Ok(parts::DnsLookupFamily::All) => DnsLookupFamily::All,
            Err(_) => return unknown_enum("dns_lookup_family", family),
        },
    })
}

fn refresh(name: &str, rate: Option<wkt::Duration>) -> Result<Duration> {
    let rate = duration_or(name, rate, defaults::DNS_REFRESH_RATE)?;
    if rate.is_zero() {
        return refuse(name, "value must be at least 1 ms");
    }
    Ok(rate)
}

fn failure_rate(base: Option<wkt::Duration>, max: Option<wkt::Duration>) -> Result<BackOffConfig> {
    let base =
        duration("base_interval", Some(required("base_interval", base)?))?.unwrap_or_default();
    let max = duration_or("max_interval", max, base.saturating_mul(10))?;
    super::source::back_off(base, max)
}

/// The system's resolvers are asked, whichever library would ask them; options
/// that say to ask others have verdicts of their own.
pub(super) fn resolver(config: core::TypedExtensionConfig) -> Result<()> {
    let typed = super::any::extension(config).within("typed_config")?;
    match typed.name.as_str() {
        "envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig"
        | "envoy.extensions.network.dns_resolver.getaddrinfo.v3.GetAddrInfoDnsResolverConfig" => {
            Ok(())
        }
        _ => typed.unsupported("DNS resolver").within("typed_config"),
    }
}

/// Of the extensions only `envoy.cluster.dns`, which replaces STRICT_DNS and
/// LOGICAL_DNS.
fn custom_type(
    name: &str,
    message: parts::CustomClusterType,
    endpoints: Option<endpoint::ClusterLoadAssignment>,
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
    let (dns, single_endpoint) = typed
        .decode()
        .and_then(dns_cluster)
        .within("typed_config")?;
    if !single_endpoint {
        return Ok(DiscoveryConfig::StrictDns(hosts, dns));
    }
    single(&hosts)?;
    Ok(DiscoveryConfig::LogicalDns(hosts, dns))
}

fn dns_cluster(message: typed_dns::DnsCluster) -> Result<(DnsConfig, bool)> {
    let typed_dns::DnsCluster {
        dns_refresh_rate,
        dns_failure_refresh_rate,
        respect_dns_ttl,
        dns_jitter,
        typed_dns_resolver_config,
        dns_lookup_family,
        all_addresses_in_single_endpoint,
        dns_min_refresh_rate: _,
    } = message;
    optional(
        "typed_dns_resolver_config",
        typed_dns_resolver_config,
        resolver,
    )?;
    let refresh_rate = refresh("dns_refresh_rate", dns_refresh_rate)?;
    let config = DnsConfig {
        refresh_rate,
        failure_refresh_rate: optional(
            "dns_failure_refresh_rate",
            dns_failure_refresh_rate,
            |rate| {
                let typed_dns::dns_cluster::RefreshRate {
                    base_interval,
                    max_interval,
                } = rate;
                failure_rate(base_interval, max_interval)
            },
        )?,
        respect_ttl: respect_dns_ttl,
        jitter: duration("dns_jitter", dns_jitter)?.unwrap_or_default(),
        family: match TypedFamily::try_from(dns_lookup_family) {
            Ok(TypedFamily::Unspecified | TypedFamily::Auto) => DnsLookupFamily::Auto,
            Ok(TypedFamily::V4Only) => DnsLookupFamily::V4Only,
            Ok(TypedFamily::V6Only) => DnsLookupFamily::V6Only,
            Ok(TypedFamily::V4Preferred) => DnsLookupFamily::V4Preferred,
            Ok(TypedFamily::All) => DnsLookupFamily::All,
            Err(_) => {
                let reason = format!("value {dns_lookup_family} is not defined");
                return Err(ConfigError::field("dns_lookup_family", reason));
            }
        },
    };
    Ok((config, all_addresses_in_single_endpoint))
}
