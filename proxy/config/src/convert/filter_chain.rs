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
use super::{ConvertContext, Result, metadata_exchange};
use crate::ir::{
    FilterChainConfig, FilterChainMatchConfig, MetadataExchangeConfig, NetworkTerminal, SourceType,
};
use crate::pb::envoy::config::listener::v3 as pb;

const HCM: &str =
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
/// Metrics, which are not reported yet.
const ISTIO_STATS: &str = "stats.PluginConfig";
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
    let filters = network_filters(filters, cx)?;
    Ok(FilterChainConfig {
        name: name.into(),
        matches: optional("filter_chain_match", filter_chain_match, criteria)?.unwrap_or_default(),
        exchange: filters.exchange,
        terminal: filters.terminal,
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

/// The network filters of a chain.
struct NetworkFilters {
    exchange: Option<Arc<MetadataExchangeConfig>>,
    terminal: NetworkTerminal,
}

/// One of them.
enum NetworkFilter {
    /// It has no effect here.
    Idle,
    Exchange(Arc<MetadataExchangeConfig>),
    /// It ends the chain.
    Terminal(NetworkTerminal),
}

/// The filters of a chain; no filter at all closes the connection.
fn network_filters(filters: Vec<pb::Filter>, cx: &ConvertContext<'_>) -> Result<NetworkFilters> {
    let count = filters.len();
    let mut found = NetworkFilters {
        exchange: None,
        terminal: NetworkTerminal::None,
    };
    each("filters", filters.into_iter().enumerate(), |(i, filter)| {
        let name = filter.name.clone();
        let is_last = i + 1 == count;
        match network_filter(filter, cx)? {
            NetworkFilter::Terminal(_) if !is_last => {
                return Err(ConfigError::new("a terminal filter must be the last one"));
            }
            NetworkFilter::Idle | NetworkFilter::Exchange(_) if is_last => {
                return Err(ConfigError::new(format!(
                    "non-terminal filter named {name} is the last filter in a network filter chain"
                )));
            }
            NetworkFilter::Exchange(_) if found.exchange.is_some() => {
                return Err(ConfigError::new(
                    "metadata is exchanged once on a connection",
                ));
            }
            NetworkFilter::Idle => {}
            NetworkFilter::Exchange(config) => found.exchange = Some(config),
            NetworkFilter::Terminal(terminal) => found.terminal = terminal,
        }
        Ok(())
    })?;
    Ok(found)
}

fn network_filter(message: pb::Filter, cx: &ConvertContext<'_>) -> Result<NetworkFilter> {
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
    of_type(&typed, cx).within("typed_config")
}

fn of_type(typed: &Typed, cx: &ConvertContext<'_>) -> Result<NetworkFilter> {
    let terminal = match typed.name.as_str() {
        HCM => NetworkTerminal::Http(Arc::new(hcm(typed.decode()?, cx)?)),
        TCP_PROXY => NetworkTerminal::Tcp(Arc::new(tcp_proxy(typed.decode()?)?)),
        ISTIO_STATS => return Ok(NetworkFilter::Idle),
        metadata_exchange::MESSAGE => {
            let message = typed.decode()?;
            let exchange = metadata_exchange::metadata_exchange(message, &cx.node)?;
            return Ok(NetworkFilter::Exchange(exchange));
        }
        _ => return typed.unsupported("network filter"),
    };
    Ok(NetworkFilter::Terminal(terminal))
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
