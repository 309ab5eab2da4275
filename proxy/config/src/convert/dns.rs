//! How names are resolved: what a cluster says of it, and the resolvers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use outrigger_types::Address;

use super::any::{Typed, extension};
use super::common::address;
use super::path::{
    Within, bool_or, duration, duration_or, each, optional, refuse, required, unknown_enum,
};
use super::{Result, defaults};
use crate::ir::{BackOffConfig, DnsConfig, DnsLookupFamily, DnsResolverConfig};
use crate::pb::envoy::config::cluster::v3::cluster as parts;
use crate::pb::envoy::config::core::v3 as core;
use crate::pb::envoy::extensions::clusters::common::dns::v3::DnsLookupFamily as TypedFamily;
use crate::pb::envoy::extensions::clusters::dns::v3 as typed_dns;
use crate::pb::envoy::extensions::network::dns_resolver::cares::v3::CaresDnsResolverConfig;
use crate::pb::google::protobuf as wkt;

/// What a cluster itself says about DNS.
pub(super) struct Dns {
    pub(super) refresh_rate: Option<wkt::Duration>,
    pub(super) failure_refresh_rate: Option<parts::RefreshRate>,
    pub(super) respect_ttl: bool,
    pub(super) jitter: Option<wkt::Duration>,
    pub(super) family: i32,
    pub(super) resolver: Resolver,
    pub(super) waits: Option<wkt::BoolValue>,
}

/// The ways in which a message may name a resolver, the older ones after the newer.
#[derive(Default)]
pub(super) struct Resolver {
    pub(super) typed: Option<core::TypedExtensionConfig>,
    pub(super) resolution: Option<core::DnsResolutionConfig>,
    pub(super) servers: Vec<core::Address>,
    pub(super) tcp: bool,
}

impl Resolver {
    /// The first way that is used; none if none is.
    pub(super) fn config(self) -> Result<Option<Arc<DnsResolverConfig>>> {
        let Self {
            typed,
            resolution,
            servers,
            tcp,
        } = self;
        let config = if let Some(typed) = typed {
            resolver(typed).within("typed_dns_resolver_config")?
        } else if let Some(resolution) = resolution {
            by_resolution(resolution).within("dns_resolution_config")?
        } else if tcp || !servers.is_empty() {
            DnsResolverConfig {
                servers: each("dns_resolvers", servers, server)?,
                tcp,
                ..DnsResolverConfig::default()
            }
        } else {
            return Ok(None);
        };
        Ok(Some(Arc::new(config)))
    }
}

fn by_resolution(message: core::DnsResolutionConfig) -> Result<DnsResolverConfig> {
    let core::DnsResolutionConfig {
        resolvers,
        dns_resolver_options,
    } = message;
    let (tcp, search) = options(dns_resolver_options);
    Ok(DnsResolverConfig {
        servers: each("resolvers", resolvers, server)?,
        tcp,
        search,
        ..DnsResolverConfig::default()
    })
}

/// Whether TCP alone is used, and whether search domains are.
fn options(message: Option<core::DnsResolverOptions>) -> (bool, bool) {
    let core::DnsResolverOptions {
        use_tcp_for_dns_lookups,
        no_default_search_domain,
    } = message.unwrap_or_default();
    (use_tcp_for_dns_lookups, !no_default_search_domain)
}

fn server(message: core::Address) -> Result<SocketAddr> {
    match address(message)? {
        Address::Ip(address) => Ok(address),
        other => Err(filter_api::ConfigError::new(format!(
            "{other} is no address of a name server"
        ))),
    }
}

/// A resolver by its extension; the library that Envoy would ask is another matter.
fn resolver(config: core::TypedExtensionConfig) -> Result<DnsResolverConfig> {
    let typed = extension(config).within("typed_config")?;
    match typed.name.as_str() {
        "envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig" => {
            typed.decode().and_then(cares).within("typed_config")
        }
        "envoy.extensions.network.dns_resolver.getaddrinfo.v3.GetAddrInfoDnsResolverConfig" => {
            Ok(DnsResolverConfig::default())
        }
        _ => typed.unsupported("DNS resolver").within("typed_config"),
    }
}

fn cares(message: CaresDnsResolverConfig) -> Result<DnsResolverConfig> {
    let CaresDnsResolverConfig {
        resolvers,
        use_resolvers_as_fallback,
        filter_unroutable_families: _,
        dns_resolver_options,
        udp_max_queries: _,
        query_timeout_seconds,
        query_tries,
        rotate_nameservers,
        edns0_max_payload_size,
        max_udp_channel_duration: _,
        reinit_channel_on_timeout: _,
        qcache_max_ttl: _,
    } = message;
    let unset = DnsResolverConfig::default();
    let (tcp, search) = options(dns_resolver_options);
    Ok(DnsResolverConfig {
        servers: each("resolvers", resolvers, server)?,
        fallback: use_resolvers_as_fallback,
        tcp,
        search,
        timeout: query_timeout_seconds.map_or(unset.timeout, |n| Duration::from_secs(n.value)),
        tries: query_tries.map_or(unset.tries, |n| n.value),
        rotate: rotate_nameservers,
        edns_payload: edns0_max_payload_size.and_then(|n| u16::try_from(n.value).ok()),
    })
}

/// By the fields of a cluster of type STRICT_DNS or LOGICAL_DNS.
pub(super) fn by_fields(dns: Dns) -> Result<DnsConfig> {
    let Dns {
        refresh_rate,
        failure_refresh_rate,
        respect_ttl,
        jitter,
        family,
        resolver,
        waits,
    } = dns;
    Ok(DnsConfig {
        refresh_rate: refresh("dns_refresh_rate", refresh_rate)?,
        failure_refresh_rate: optional("dns_failure_refresh_rate", failure_refresh_rate, |rate| {
            let parts::RefreshRate {
                base_interval,
                max_interval,
            } = rate;
            failure_rate(base_interval, max_interval)
        })?,
        respect_ttl,
        min_refresh_rate: Duration::ZERO,
        jitter: duration("dns_jitter", jitter)?.unwrap_or_default(),
        family: match parts::DnsLookupFamily::try_from(family) {
            Ok(parts::DnsLookupFamily::Auto) => DnsLookupFamily::Auto,
            Ok(parts::DnsLookupFamily::V4Only) => DnsLookupFamily::V4Only,
            Ok(parts::DnsLookupFamily::V6Only) => DnsLookupFamily::V6Only,
            Ok(parts::DnsLookupFamily::V4Preferred) => DnsLookupFamily::V4Preferred,
            Ok(parts::DnsLookupFamily::All) => DnsLookupFamily::All,
            Err(_) => return unknown_enum("dns_lookup_family", family),
        },
        resolver: resolver.config()?,
        waits: bool_or(waits, true),
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

/// By the extension `envoy.cluster.dns`; true if all addresses belong to one host.
pub(super) fn by_extension(
    typed: &Typed,
    waits: Option<wkt::BoolValue>,
) -> Result<(DnsConfig, bool)> {
    let typed_dns::DnsCluster {
        dns_refresh_rate,
        dns_failure_refresh_rate,
        respect_dns_ttl,
        dns_jitter,
        typed_dns_resolver_config,
        dns_lookup_family,
        all_addresses_in_single_endpoint,
        dns_min_refresh_rate,
    } = typed.decode()?;
    let config = DnsConfig {
        refresh_rate: refresh("dns_refresh_rate", dns_refresh_rate)?,
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
        min_refresh_rate: duration("dns_min_refresh_rate", dns_min_refresh_rate)?
            .unwrap_or_default(),
        jitter: duration("dns_jitter", dns_jitter)?.unwrap_or_default(),
        family: match TypedFamily::try_from(dns_lookup_family) {
            Ok(TypedFamily::Unspecified | TypedFamily::Auto) => DnsLookupFamily::Auto,
            Ok(TypedFamily::V4Only) => DnsLookupFamily::V4Only,
            Ok(TypedFamily::V6Only) => DnsLookupFamily::V6Only,
            Ok(TypedFamily::V4Preferred) => DnsLookupFamily::V4Preferred,
            Ok(TypedFamily::All) => DnsLookupFamily::All,
            Err(_) => return unknown_enum("dns_lookup_family", dns_lookup_family),
        },
        resolver: Resolver {
            typed: typed_dns_resolver_config,
            ..Resolver::default()
        }
        .config()?,
        waits: bool_or(waits, true),
    };
    Ok((config, all_addresses_in_single_endpoint))
}
