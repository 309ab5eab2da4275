//! Endpoints of a cluster.

use std::collections::BTreeMap;
use std::sync::Arc;

use filter_api::ConfigError;
use outrigger_types::{Address, Metadata};

use super::common::{Place, address, malformed, place};
use super::matcher::fraction;
use super::path::{Within, duration, each, refuse, required, u32_or, unknown_enum};
use super::structure::metadata;
use super::{ConvertContext, Converted, Result, check, defaults};
use crate::ir::{
    EndpointAddress, EndpointConfig, HealthStatus, LoadAssignmentConfig, Locality,
    LocalityEndpointsConfig,
};
use crate::pb::envoy::config::core::v3 as core;
use crate::pb::envoy::config::endpoint::v3 as pb;
use crate::pb::envoy::r#type::v3::FractionalPercent;
use pb::cluster_load_assignment as parts;

/// The highest number of a priority, as the protos have it.
const MAX_PRIORITY: u32 = 128;

/// Whether the endpoints of a cluster may be DNS names.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Resolution {
    /// Addresses only.
    Addresses,
    /// Names, which DNS resolves.
    Names,
}

/// Converts what EDS sends.
///
/// # Errors
/// For a value or a field that is refused, with its path.
pub fn load_assignment(
    bytes: &[u8],
    cx: &ConvertContext<'_>,
) -> Result<Converted<LoadAssignmentConfig>> {
    check::entry::<pb::ClusterLoadAssignment, _>(
        check::LOAD_ASSIGNMENT,
        bytes,
        cx,
        |message| format!("load_assignment \"{}\"", message.cluster_name),
        |message| assignment(message, "", Resolution::Addresses),
    )
}

/// Converts the endpoints of the cluster called `cluster`, whose name the message
/// may leave out.
pub(super) fn assignment(
    message: pb::ClusterLoadAssignment,
    cluster: &str,
    resolution: Resolution,
) -> Result<LoadAssignmentConfig> {
    let pb::ClusterLoadAssignment {
        cluster_name,
        endpoints,
        named_endpoints: _,
        policy,
    } = message;
    let parts::Policy {
        drop_overloads,
        overprovisioning_factor,
        endpoint_stale_after,
        weighted_priority_health,
    } = policy.unwrap_or_default();
    let factor = u32_or(overprovisioning_factor, defaults::OVERPROVISIONING_FACTOR);
    if factor == 0 {
        return refuse("overprovisioning_factor", "value must be greater than 0").within("policy");
    }
    if drop_overloads.len() > 1 {
        return refuse("drop_overloads", "only one category is supported").within("policy");
    }
    let localities = each("endpoints", endpoints, |message| {
        locality(message, resolution)
    })?;
    locality_weights(&localities)?;
    Ok(LoadAssignmentConfig {
        cluster_name: match cluster_name.is_empty() {
            true => cluster.into(),
            false => cluster_name.into(),
        },
        localities,
        overprovisioning_factor: factor,
        drop_overloads: each("drop_overloads", drop_overloads, drop_overload).within("policy")?,
        endpoint_stale_after: duration("endpoint_stale_after", endpoint_stale_after)
            .within("policy")?
            .filter(|after| !after.is_zero()),
        weighted_priority_health,
    })
}

fn drop_overload(
    message: parts::policy::DropOverload,
) -> Result<(Arc<str>, filter_api::FractionalPercent)> {
    let parts::policy::DropOverload {
        category,
        drop_percentage,
    } = message;
    if category.is_empty() {
        return refuse("category", "value length must be at least 1 characters");
    }
    let none = FractionalPercent::default();
    let share = fraction(drop_percentage.unwrap_or(none)).within("drop_percentage")?;
    Ok((category.into(), share))
}

/// The weights of a priority's localities must fit into 32 bits together.
fn locality_weights(localities: &[LocalityEndpointsConfig]) -> Result<()> {
    let mut sums: BTreeMap<u32, u64> = BTreeMap::new();
    for (i, locality) in localities.iter().enumerate() {
        let sum = sums.entry(locality.priority).or_default();
        *sum += u64::from(locality.weight.unwrap_or(0));
        if *sum > u64::from(u32::MAX) {
            let reason = format!(
                "the sum of weights of all localities at the same priority exceeds {}",
                u32::MAX
            );
            let error = ConfigError::field("load_balancing_weight", reason);
            return Err(error.at("endpoints", i));
        }
    }
    Ok(())
}

fn locality(
    message: pb::LocalityLbEndpoints,
    resolution: Resolution,
) -> Result<LocalityEndpointsConfig> {
    let pb::LocalityLbEndpoints {
        locality: place,
        metadata: metadata_message,
        lb_endpoints,
        load_balancing_weight,
        priority,
        proximity: _,
        lb_config: _,
    } = message;
    if priority > MAX_PRIORITY {
        return refuse("priority", format!("value must be at most {MAX_PRIORITY}"));
    }
    let shared = metadata(metadata_message);
    let endpoints = each("lb_endpoints", lb_endpoints, |message| {
        lb_endpoint(message, resolution, shared.as_ref())
    })?;
    let sum: u64 = endpoints
        .iter()
        .map(|endpoint| u64::from(endpoint.weight))
        .sum();
    if sum > u64::from(u32::MAX) {
        let reason = format!(
            "the sum of weights of all endpoints in a locality exceeds {}",
            u32::MAX
        );
        return refuse("lb_endpoints", reason);
    }
    Ok(LocalityEndpointsConfig {
        locality: locality_name(place),
        endpoints,
        weight: load_balancing_weight.map(|n| n.value),
        priority,
    })
}

/// A locality by its names.
pub(super) fn locality_name(message: Option<core::Locality>) -> Locality {
    let core::Locality {
        region,
        zone,
        sub_zone,
    } = message.unwrap_or_default();
    Locality {
        region: region.into(),
        zone: zone.into(),
        sub_zone: sub_zone.into(),
    }
}

fn lb_endpoint(
    message: pb::LbEndpoint,
    resolution: Resolution,
    shared: Option<&Arc<Metadata>>,
) -> Result<EndpointConfig> {
    let pb::LbEndpoint {
        health_status,
        metadata: own,
        load_balancing_weight,
        host_identifier,
    } = message;
    let weight = u32_or(load_balancing_weight, 1);
    if weight == 0 {
        return refuse(
            "load_balancing_weight",
            "value must be greater than or equal to 1",
        );
    }
    let (address, additional_addresses, hostname) =
        match required("host_identifier", host_identifier)? {
            pb::lb_endpoint::HostIdentifier::Endpoint(message) => {
                endpoint(message, resolution).within("endpoint")?
            }
            pb::lb_endpoint::HostIdentifier::EndpointName(_) => {
                return refuse("endpoint_name", "is not supported");
            }
        };
    Ok(EndpointConfig {
        address,
        additional_addresses,
        hostname,
        health: health(health_status)?,
        weight,
        metadata: metadata(own),
        locality_metadata: shared.cloned(),
    })
}

fn health(number: i32) -> Result<HealthStatus> {
    match core::HealthStatus::try_from(number) {
        Ok(core::HealthStatus::Unknown) => Ok(HealthStatus::Unknown),
        Ok(core::HealthStatus::Healthy) => Ok(HealthStatus::Healthy),
        Ok(core::HealthStatus::Unhealthy) => Ok(HealthStatus::Unhealthy),
        Ok(core::HealthStatus::Draining) => Ok(HealthStatus::Draining),
        Ok(core::HealthStatus::Timeout) => Ok(HealthStatus::Timeout),
        Ok(core::HealthStatus::Degraded) => Ok(HealthStatus::Degraded),
        Err(_) => unknown_enum("health_status", number),
    }
}

/// The address, more of them, and the host name: for a DNS cluster that is the
/// name asked for, unless another is given.
fn endpoint(
    message: pb::Endpoint,
    resolution: Resolution,
) -> Result<(EndpointAddress, Vec<Address>, Arc<str>)> {
    let pb::Endpoint {
        address: main,
        health_check_config: _,
        hostname,
        additional_addresses,
        observability_name: _,
    } = message;
    let more = each("additional_addresses", additional_addresses, |message| {
        let pb::endpoint::AdditionalAddress { address: more } = message;
        address(required("address", more)?).within("address")
    })?;
    let hostname: Arc<str> = hostname.into();
    let main = place(required("address", main)?).within("address")?;
    match (main, resolution) {
        (Place::Resolved(Address::Ip(ip)), Resolution::Names) => {
            // It is looked up like a name, which shows in the stats of the cluster.
            let (host, port): (Arc<str>, u16) = (ip.ip().to_string().into(), ip.port());
            let name = or_name(hostname, &host);
            Ok((EndpointAddress::Name { host, port }, more, name))
        }
        (Place::Resolved(address), Resolution::Addresses) => {
            Ok((EndpointAddress::Resolved(address), more, hostname))
        }
        (Place::Resolved(_), Resolution::Names) => {
            refuse("address", "a DNS cluster needs socket addresses")
        }
        (Place::Name(host, port), Resolution::Names) => {
            let name = or_name(hostname, &host);
            let host = host.into();
            Ok((EndpointAddress::Name { host, port }, more, name))
        }
        (Place::Name(host, _), Resolution::Addresses) => {
            let error = malformed(&host).within("address").within("socket_address");
            Err(error.within("address"))
        }
    }
}

fn or_name(hostname: Arc<str>, name: &str) -> Arc<str> {
    match hostname.is_empty() {
        true => name.into(),
        false => hostname,
    }
}
