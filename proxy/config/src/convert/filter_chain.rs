//! Filter chains of a listener: criteria, network filters, transport socket.

use std::sync::Arc;

use filter_api::ConfigError;
use prost::Message;

use super::any::Typed;
use super::common::cidr;
use super::hcm::hcm;
use super::path::{Within, each, must_be_off, optional, port, refuse, timeout_or, unknown_enum};
use super::structure::metadata;
use super::tcp_proxy::tcp_proxy;
use super::tls::downstream_transport;
use super::{ConvertContext, Result};
use crate::ir::{FilterChainConfig, FilterChainMatchConfig, NetworkTerminal, SourceType};
use crate::pb::envoy::config::listener::v3 as pb;

const HCM: &str =
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const TCP_PROXY: &str = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";

/// Converts a filter chain.
pub(super) fn filter_chain(
    message: pb::FilterChain,
    cx: &ConvertContext<'_>,
) -> Result<FilterChainConfig> {
    let fingerprint = fingerprint(&message);
    let pb::FilterChain {
        filter_chain_match,
        filters,
        use_proxy_proto,
        metadata: metadata_message,
        transport_socket: socket,
        transport_socket_connect_timeout,
        name,
    } = message;
    must_be_off("use_proxy_proto", use_proxy_proto)?;
    Ok(FilterChainConfig {
        name: name.into(),
        matches: optional("filter_chain_match", filter_chain_match, criteria)?.unwrap_or_default(),
        terminal: terminal(filters, cx)?,
        transport: optional("transport_socket", socket, downstream_transport)?.unwrap_or_default(),
        transport_socket_connect_timeout: timeout_or(
            "transport_socket_connect_timeout",
            transport_socket_connect_timeout,
            None,
        )?,
        metadata: metadata(metadata_message),
        fingerprint,
    })
}

/// A hash of the message. Its maps are written in no certain order, so that equal
/// messages may differ in it; never the other way round.
fn fingerprint(message: &pb::FilterChain) -> u64 {
    ahash::RandomState::with_seeds(1, 2, 3, 4).hash_one(message.encode_to_vec())
}

/// The one filter that ends the chain; none closes the connection.
fn terminal(filters: Vec<pb::Filter>, cx: &ConvertContext<'_>) -> Result<NetworkTerminal> {
    let count = filters.len();
    let converted = each("filters", filters.into_iter().enumerate(), |(i, filter)| {
        let terminal = network_filter(filter, cx)?;
        if i + 1 < count {
            return Err(ConfigError::new("a terminal filter must be the last one"));
        }
        Ok(terminal)
    })?;
    Ok(converted
        .into_iter()
        .next()
        .unwrap_or(NetworkTerminal::None))
}

fn network_filter(message: pb::Filter, cx: &ConvertContext<'_>) -> Result<NetworkTerminal> {
    use pb::filter::ConfigType;
    let pb::Filter { name, config_type } = message;
    let config = match config_type {
        Some(ConfigType::TypedConfig(config)) => config,
        Some(ConfigType::ConfigDiscovery(_)) => {
            return refuse("config_discovery", "is not supported");
        }
        None => {
            return refuse(
                "typed_config",
                format!("network filter \"{name}\" has none"),
            );
        }
    };
    let typed = Typed::unpack(config).within("typed_config")?;
    match typed.name.as_str() {
        HCM => typed
            .decode()
            .and_then(|message| hcm(message, cx))
            .map(|config| NetworkTerminal::Http(Arc::new(config)))
            .within("typed_config"),
        TCP_PROXY => typed
            .decode()
            .and_then(tcp_proxy)
            .map(|config| NetworkTerminal::Tcp(Arc::new(config)))
            .within("typed_config"),
        _ => typed.unsupported("network filter").within("typed_config"),
    }
}

/// The criteria of a chain.
fn criteria(message: pb::FilterChainMatch) -> Result<FilterChainMatchConfig> {
    let pb::FilterChainMatch {
        destination_port,
        prefix_ranges,
        address_suffix: _,
        suffix_len: _,
        direct_source_prefix_ranges,
        source_type: source_kind,
        source_prefix_ranges,
        source_ports,
        server_names,
        transport_protocol,
        application_protocols,
    } = message;
    Ok(FilterChainMatchConfig {
        destination_port: optional("destination_port", destination_port, |n| port(n.value))?,
        prefix_ranges: each("prefix_ranges", prefix_ranges, cidr)?,
        direct_source_prefix_ranges: each(
            "direct_source_prefix_ranges",
            direct_source_prefix_ranges,
            cidr,
        )?,
        source_type: source_type(source_kind)?,
        source_prefix_ranges: each("source_prefix_ranges", source_prefix_ranges, cidr)?,
        source_ports: each("source_ports", source_ports, port)?,
        server_names: each("server_names", server_names, server_name)?,
        transport_protocol: transport_protocol.into(),
        application_protocols: application_protocols.into_iter().map(Into::into).collect(),
    })
}

fn source_type(number: i32) -> Result<SourceType> {
    use pb::filter_chain_match::ConnectionSourceType as Type;
    match Type::try_from(number) {
        Ok(Type::Any) => Ok(SourceType::Any),
        Ok(Type::SameIpOrLoopback) => Ok(SourceType::SameIpOrLoopback),
        Ok(Type::External) => Ok(SourceType::External),
        Err(_) => unknown_enum("source_type", number),
    }
}

/// A name, exact or `*.suffix`, in lower case.
fn server_name(name: String) -> Result<Box<str>> {
    if name.contains('*') && !name.starts_with("*.") {
        return Err(ConfigError::new(format!(
            "partial wildcards are not supported in \"{name}\""
        )));
    }
    Ok(name.to_ascii_lowercase().into())
}
