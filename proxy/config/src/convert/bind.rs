//! Where upstream sockets are bound, and how connections are made.

use std::net::SocketAddr;
use std::sync::Arc;

use filter_api::ConfigError;

use super::Result;
use super::any::extension;
use super::common::{Place, malformed, place, tcp_keepalive};
use super::path::{Within, each, refuse, required, u32_or, unknown_enum};
use crate::ir::{
    AddressFamily, BindConfig, HappyEyeballs, SocketOption, SourceAddress, TcpKeepalive,
};
use crate::pb::envoy::config::cluster::v3 as cluster;
use crate::pb::envoy::config::core::v3 as core;

/// The binding of a cluster, or of all of them. `whose` begins the errors about it.
pub(super) fn bind(message: core::BindConfig, whose: &str) -> Result<BindConfig> {
    let core::BindConfig {
        source_address,
        freebind,
        socket_options,
        extra_source_addresses,
        additional_source_addresses,
        local_address_selector,
        validate_network_namespaces: _,
    } = message;
    selector(local_address_selector).within("local_address_selector")?;
    if !extra_source_addresses.is_empty() && !additional_source_addresses.is_empty() {
        return fail(format!(
            "Can't specify both `extra_source_addresses` and `additional_source_addresses` in the {whose}'s upstream binding config"
        ));
    }
    let first = source_address.map(source).transpose();
    let first = first.within("source_address")?;
    let extra = each("extra_source_addresses", extra_source_addresses, extra)?;
    let more = each(
        "additional_source_addresses",
        additional_source_addresses,
        source,
    )?;
    let others: Vec<_> = extra.into_iter().chain(more).collect();
    if first.is_none() && !others.is_empty() {
        return fail(format!(
            "{whose}'s upstream binding config has extra/additional source addresses but no source_address. Extra/additional addresses cannot be specified if source_address is not set."
        ));
    }
    let sources: Vec<_> = first.into_iter().chain(others).collect();
    check_families(&sources, whose)?;
    Ok(BindConfig {
        sources,
        freebind: freebind.map(|on| on.value),
        options: options("socket_options", socket_options)?,
    })
}

/// Of local addresses there may be one of each family.
fn check_families(sources: &[SourceAddress], whose: &str) -> Result<()> {
    match sources {
        [] | [_] => Ok(()),
        [one, other] if one.address.is_ipv4() != other.address.is_ipv4() => Ok(()),
        [_, _] => fail(format!(
            "{whose}'s upstream binding config has two same IP version source addresses. Only two different IP version source addresses can be supported in BindConfig's source_address and extra_source_addresses/additional_source_addresses fields"
        )),
        _ => fail(format!(
            "{whose}'s upstream binding config has more than one extra/additional source addresses. Only one extra/additional source can be supported in BindConfig's extra_source_addresses/additional_source_addresses field"
        )),
    }
}

fn fail<T>(reason: String) -> Result<T> {
    Err(ConfigError::new(reason))
}

/// Of the extensions only the default one, which chooses by family.
fn selector(message: Option<core::TypedExtensionConfig>) -> Result<()> {
    let Some(message) = message else {
        return Ok(());
    };
    let typed = extension(message).within("typed_config")?;
    match typed.name.as_str() {
        "envoy.config.upstream.local_address_selector.v3.DefaultLocalAddressSelector" => Ok(()),
        _ => typed
            .unsupported("selector of local addresses")
            .within("typed_config"),
    }
}

fn source(message: core::SocketAddress) -> Result<SourceAddress> {
    Ok(SourceAddress {
        address: socket_address(message)?,
        options: None,
    })
}

fn extra(message: core::ExtraSourceAddress) -> Result<SourceAddress> {
    let core::ExtraSourceAddress {
        address,
        socket_options,
    } = message;
    let list = socket_options.map(|core::SocketOptionsOverride { socket_options }| {
        options("socket_options", socket_options).within("socket_options")
    });
    Ok(SourceAddress {
        address: socket_address(required("address", address)?).within("address")?,
        options: list.transpose()?,
    })
}

fn socket_address(message: core::SocketAddress) -> Result<SocketAddr> {
    let message = core::Address {
        address: Some(core::address::Address::SocketAddress(message)),
    };
    match place(message)? {
        Place::Resolved(address) => address
            .socket_addr()
            .ok_or_else(|| ConfigError::new("is no address of a socket")),
        Place::Name(name, _) => Err(malformed(&name)),
    }
}

/// Options of sockets; those for datagrams alone are passed over.
fn options(name: &str, messages: Vec<core::SocketOption>) -> Result<Arc<[SocketOption]>> {
    let all = each(name, messages, option)?;
    Ok(all.into_iter().flatten().collect())
}

fn option(message: core::SocketOption) -> Result<Option<SocketOption>> {
    use core::socket_option::{SocketIpVersion, SocketState, Value};
    let core::SocketOption {
        description: _,
        level,
        name,
        state,
        r#type,
        ip_version,
        value,
    } = message;
    if state != SocketState::StatePrebind as i32 {
        return refuse(
            "state",
            "upstream sockets have options before they are bound only",
        );
    }
    let number = |field: &str, number: i64| {
        i32::try_from(number)
            .map_err(|_| ConfigError::field(field, format!("{number} is out of range")))
    };
    let value: Box<[u8]> = match required("value", value)? {
        Value::IntValue(n) => Box::from(number("int_value", n)?.to_ne_bytes()),
        Value::BufValue(bytes) => bytes.into(),
    };
    let family = match SocketIpVersion::try_from(ip_version) {
        Ok(SocketIpVersion::Unspecified) => None,
        Ok(SocketIpVersion::Ipv4) => Some(AddressFamily::V4),
        Ok(SocketIpVersion::Ipv6) => Some(AddressFamily::V6),
        Err(_) => return unknown_enum("ip_version", ip_version),
    };
    let core::socket_option::SocketType { stream, datagram } = r#type.unwrap_or_default();
    let for_streams = stream.is_some() || datagram.is_none();
    Ok(for_streams.then_some(SocketOption {
        level: number("level", level)?,
        name: number("name", name)?,
        value,
        family,
    }))
}

/// How connections are made.
#[derive(Default)]
pub(super) struct Connecting {
    pub(super) keepalive: Option<TcpKeepalive>,
    pub(super) happy_eyeballs: HappyEyeballs,
}

/// Converts the options of connections.
pub(super) fn connecting(message: cluster::UpstreamConnectionOptions) -> Result<Connecting> {
    let cluster::UpstreamConnectionOptions {
        tcp_keepalive: keepalive,
        set_local_interface_name_on_upstream_connections: _,
        happy_eyeballs_config,
    } = message;
    let order = happy_eyeballs_config.map(happy_eyeballs).transpose();
    Ok(Connecting {
        keepalive: keepalive.map(tcp_keepalive).filter(is_on),
        happy_eyeballs: order.within("happy_eyeballs_config")?.unwrap_or_default(),
    })
}

/// A zero anywhere turns keep-alive off.
fn is_on(keepalive: &TcpKeepalive) -> bool {
    let off = |time: Option<std::time::Duration>| time.is_some_and(|time| time.is_zero());
    keepalive.probes != Some(0) && !off(keepalive.time) && !off(keepalive.interval)
}

fn happy_eyeballs(
    message: cluster::upstream_connection_options::HappyEyeballsConfig,
) -> Result<HappyEyeballs> {
    use cluster::upstream_connection_options::FirstAddressFamilyVersion as Version;
    let cluster::upstream_connection_options::HappyEyeballsConfig {
        first_address_family_version,
        first_address_family_count,
    } = message;
    let count = u32_or(first_address_family_count, 1);
    if count == 0 {
        return refuse(
            "first_address_family_count",
            "value must be greater than or equal to 1",
        );
    }
    let first = match Version::try_from(first_address_family_version) {
        Ok(Version::V4) => Some(AddressFamily::V4),
        Ok(Version::V6) => Some(AddressFamily::V6),
        Ok(Version::Pipe) => Some(AddressFamily::Pipe),
        Ok(Version::Internal) => Some(AddressFamily::Internal),
        Ok(Version::Default) => None,
        Err(_) => {
            return unknown_enum("first_address_family_version", first_address_family_version);
        }
    };
    Ok(HappyEyeballs { first, count })
}
