//! Listeners.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use filter_api::ConfigError;
use outrigger_types::Address;
use prost::Message;

use super::access_log::access_logs;
use super::common::{address, tcp_keepalive};
use super::filter_chain::filter_chain;
use super::listener_filter::listener_filter;
use super::path::{
    Within, bool_or, duration_or, each, must_be_off, non_empty, optional, refuse, required, u32_or,
    unknown_enum,
};
use super::structure::metadata;
use super::{ConvertContext, Converted, Result, check, defaults};
use crate::ir::{FilterChainConfig, ListenerConfig, TrafficDirection};
use crate::pb::envoy::config::core::v3 as core;
use crate::pb::envoy::config::listener::v3 as pb;
use crate::pb::google::protobuf as wkt;

/// Converts a listener.
///
/// # Errors
/// For a value or a field that is refused, with its path.
pub fn listener(bytes: &[u8], cx: &ConvertContext<'_>) -> Result<Converted<ListenerConfig>> {
    check::entry::<pb::Listener, _>(
        check::LISTENER,
        bytes,
        cx,
        |message| format!("listener \"{}\"", message.name),
        |message| convert(message, cx),
    )
}

/// Whether two listeners are the same but for their filter chains, the default one
/// among them.
pub fn differ_in_chains_alone(old: &[u8], new: &[u8]) -> bool {
    let rest = |bytes: &[u8]| {
        let mut message = pb::Listener::decode(bytes).ok()?;
        message.filter_chains.clear();
        message.default_filter_chain = None;
        Some(message)
    };
    let (old, new) = (rest(old), rest(new));
    old.is_some() && old == new
}

fn convert(message: pb::Listener, cx: &ConvertContext<'_>) -> Result<ListenerConfig> {
    let pb::Listener {
        name,
        address: main_address,
        additional_addresses,
        stat_prefix,
        stats_matcher: _,
        filter_chains,
        fcds_config: _,
        filter_chain_matcher: _,
        use_original_dst,
        default_filter_chain,
        per_connection_buffer_limit_bytes,
        per_connection_buffer_high_watermark_timeout: _,
        metadata: metadata_message,
        deprecated_v1,
        drain_type,
        listener_filters,
        listener_filters_timeout,
        continue_on_listener_filters_timeout,
        transparent,
        freebind,
        socket_options: _,
        tcp_fast_open_queue_length: _,
        traffic_direction,
        udp_listener_config: _,
        api_listener: _,
        connection_balance_config: _,
        reuse_port,
        enable_reuse_port,
        access_log,
        tcp_backlog_size,
        max_connections_to_accept_per_socket_event,
        bind_to_port,
        enable_mptcp: _,
        ignore_global_conn_limit,
        bypass_overload_manager: _,
        tcp_keepalive: keepalive,
        listener_specifier: _,
    } = message;
    for (name, flag) in [("transparent", transparent), ("freebind", freebind)] {
        must_be_off(name, flag)?;
    }
    let ipv4_compat = wants_ipv4_compat(main_address.as_ref());
    let deprecated_bind = deprecated_v1.and_then(|old| old.bind_to_port);
    let default_chain = optional("default_filter_chain", default_filter_chain, |message| {
        filter_chain(message, cx).map(Arc::new)
    })?;
    Ok(ListenerConfig {
        name: name.into(),
        addresses: addresses(main_address, additional_addresses)?,
        stat_prefix: non_empty(stat_prefix),
        bind_to_port: bool_or(bind_to_port, bool_or(deprecated_bind, true)),
        enable_reuse_port: bool_or(enable_reuse_port, true) || reuse_port,
        ipv4_compat,
        tcp_backlog: tcp_backlog_size.map_or_else(system_backlog, |wrapped| wrapped.value),
        max_connections_per_event: max_connections_to_accept_per_socket_event.map(|n| n.value),
        filter_chains: chains(filter_chains, default_chain.is_some(), cx)?,
        default_filter_chain: default_chain,
        listener_filters: each("listener_filters", listener_filters, listener_filter)?,
        listener_filters_timeout: filters_timeout(listener_filters_timeout)?,
        continue_on_listener_filters_timeout,
        use_original_dst: bool_or(use_original_dst, false),
        per_connection_buffer_limit: u32_or(
            per_connection_buffer_limit_bytes,
            defaults::PER_CONNECTION_BUFFER_LIMIT,
        ),
        access_logs: access_logs("access_log", access_log)?,
        traffic_direction: direction(traffic_direction)?,
        // Envoy takes any other number as the default.
        drain_modify_only: drain_type == pb::listener::DrainType::ModifyOnly as i32,
        tcp_keepalive: keepalive.map(tcp_keepalive),
        ignore_global_conn_limit,
        metadata: metadata(metadata_message),
    })
}

/// Zero is no limit.
fn filters_timeout(message: Option<wkt::Duration>) -> Result<Option<Duration>> {
    let timeout = duration_or(
        "listener_filters_timeout",
        message,
        defaults::LISTENER_FILTERS_TIMEOUT,
    )?;
    Ok(Some(timeout).filter(|timeout| !timeout.is_zero()))
}

/// What the kernel would take by default, as Envoy reads it.
fn system_backlog() -> u32 {
    std::fs::read_to_string("/proc/sys/net/core/somaxconn")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(defaults::TCP_BACKLOG)
}

fn wants_ipv4_compat(message: Option<&core::Address>) -> bool {
    match message.and_then(|message| message.address.as_ref()) {
        Some(core::address::Address::SocketAddress(socket)) => socket.ipv4_compat,
        _ => false,
    }
}

fn addresses(
    main: Option<core::Address>,
    additional: Vec<pb::AdditionalAddress>,
) -> Result<Vec<Address>> {
    let mut all = vec![address(required("address", main)?).within("address")?];
    all.extend(each("additional_addresses", additional, |message| {
        let pb::AdditionalAddress {
            address: more,
            socket_options: _,
            tcp_keepalive: _,
        } = message;
        address(required("address", more)?).within("address")
    })?);
    Ok(all)
}

fn direction(number: i32) -> Result<TrafficDirection> {
    match core::TrafficDirection::try_from(number) {
        Ok(core::TrafficDirection::Unspecified) => Ok(TrafficDirection::Unspecified),
        Ok(core::TrafficDirection::Inbound) => Ok(TrafficDirection::Inbound),
        Ok(core::TrafficDirection::Outbound) => Ok(TrafficDirection::Outbound),
        Err(_) => unknown_enum("traffic_direction", number),
    }
}

/// The most combinations of criteria that the chains of a listener may make.
const MAX_COMBINATIONS: usize = 1 << 18;

/// The chains: at least one, each with a name and criteria of its own.
fn chains(
    messages: Vec<pb::FilterChain>,
    has_default: bool,
    cx: &ConvertContext<'_>,
) -> Result<Vec<Arc<FilterChainConfig>>> {
    if messages.is_empty() && !has_default {
        return refuse("filter_chains", "no filter chains specified");
    }
    let chains = each("filter_chains", messages, |message| {
        filter_chain(message, cx).map(Arc::new)
    })?;
    let total = chains.iter().fold(0usize, |sum, chain| {
        sum.saturating_add(chain.matches.combination_count())
    });
    if total > MAX_COMBINATIONS {
        let reason = format!("{total} combinations of criteria, more than {MAX_COMBINATIONS}");
        return refuse("filter_chains", reason);
    }
    let mut seen = HashMap::new();
    for (i, chain) in chains.iter().enumerate() {
        for key in chain.matches.combinations() {
            if let Some(first) = seen.insert(key, i) {
                let reason = format!("the same matching rules as filter_chains[{first}]");
                let error = ConfigError::field("filter_chain_match", reason);
                return Err(error.at("filter_chains", i));
            }
        }
    }
    Ok(chains)
}
