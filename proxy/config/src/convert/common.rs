//! Addresses and the options of HTTP, TCP and connections that listeners and
//! clusters share.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use filter_api::ConfigError;
use outrigger_types::Address;

use super::matcher::percent;
use super::path::{
    Within, bool_or, duration, duration_or, non_empty, port, refuse, required, timeout_or, u32_or,
    unknown_enum,
};
use super::{Result, defaults};
use crate::ir::{
    CidrRange, CommonHttpOptions, HeaderKeyFormat, Http1Options, Http2Options, KeepaliveConfig,
    TcpKeepalive, UnderscoresAction,
};
use crate::pb::envoy::config::core::v3 as core;

/// Length of `sun_path` on Linux, its final zero included.
const MAX_PIPE_PATH: usize = 108;

/// What an address is, before anything is resolved.
pub(super) enum Place {
    /// It stands for itself.
    Resolved(Address),
    /// A name that DNS knows, and a port.
    Name(String, u16),
}

/// An address.
pub(super) fn place(message: core::Address) -> Result<Place> {
    use core::address::Address as Kind;
    let core::Address { address } = message;
    match required("address", address)? {
        Kind::SocketAddress(message) => socket_place(message).within("socket_address"),
        Kind::Pipe(message) => pipe(message).within("pipe").map(Place::Resolved),
        Kind::EnvoyInternalAddress(_) => refuse(
            "envoy_internal_address",
            "internal addresses are not supported",
        ),
    }
}

/// An address that must stand for itself.
pub(super) fn address(message: core::Address) -> Result<Address> {
    match place(message)? {
        Place::Resolved(address) => Ok(address),
        Place::Name(name, _) => Err(malformed(&name).within("address").within("socket_address")),
    }
}

/// The error for a name where only an address will do.
pub(super) fn malformed(name: &str) -> ConfigError {
    ConfigError::new(format!("malformed IP address: {name}"))
}

fn pipe(message: core::Pipe) -> Result<Address> {
    let core::Pipe { path, mode: _ } = message;
    if path.len() >= MAX_PIPE_PATH {
        return refuse(
            "path",
            format!("exceeds the maximum length of {} bytes", MAX_PIPE_PATH - 1),
        );
    }
    Ok(Address::Pipe(path.into()))
}

fn socket_place(message: core::SocketAddress) -> Result<Place> {
    use core::socket_address::PortSpecifier;
    let core::SocketAddress {
        protocol,
        address,
        resolver_name: _,
        ipv4_compat: _,
        network_namespace_filepath: _,
        port_specifier,
    } = message;
    if protocol != core::socket_address::Protocol::Tcp as i32 {
        return refuse("protocol", "only TCP is supported");
    }
    let port = match required("port_specifier", port_specifier)? {
        PortSpecifier::PortValue(number) => port(number).within("port_value")?,
        PortSpecifier::NamedPort(_) => return refuse("named_port", "is not supported"),
    };
    match address.parse::<IpAddr>() {
        Ok(ip) => Ok(Place::Resolved(Address::Ip(SocketAddr::new(ip, port)))),
        Err(_) if address.is_empty() => {
            refuse("address", "value length must be at least 1 characters")
        }
        Err(_) => Ok(Place::Name(address, port)),
    }
}

/// A range of addresses.
pub(super) fn cidr(message: core::CidrRange) -> Result<CidrRange> {
    let core::CidrRange {
        address_prefix,
        prefix_len,
    } = message;
    let Ok(address) = address_prefix.parse::<IpAddr>() else {
        return refuse(
            "address_prefix",
            format!("malformed IP address: {address_prefix}"),
        );
    };
    match u8::try_from(u32_or(prefix_len, 0)) {
        // What is longer than the family's is cut, as Envoy does.
        Ok(length) if length <= 128 => Ok(CidrRange::new(address, length)),
        _ => refuse("prefix_len", "value must be less than or equal to 128"),
    }
}

/// Keep-alive of TCP; its times are in seconds.
pub(super) fn tcp_keepalive(message: core::TcpKeepalive) -> TcpKeepalive {
    let core::TcpKeepalive {
        keepalive_probes,
        keepalive_time,
        keepalive_interval,
    } = message;
    let seconds = |n: crate::pb::google::protobuf::UInt32Value| Duration::from_secs(n.value.into());
    TcpKeepalive {
        probes: keepalive_probes.map(|n| n.value),
        time: keepalive_time.map(seconds),
        interval: keepalive_interval.map(seconds),
    }
}

/// Options common to versions of HTTP.
pub(super) fn common_http(message: Option<core::HttpProtocolOptions>) -> Result<CommonHttpOptions> {
    let core::HttpProtocolOptions {
        idle_timeout,
        max_connection_duration,
        max_connection_duration_jitter: _,
        max_headers_count,
        max_response_headers_kb,
        max_stream_duration,
        headers_with_underscores_action,
        max_requests_per_connection,
    } = message.unwrap_or_default();
    Ok(CommonHttpOptions {
        idle_timeout: timeout_or(
            "idle_timeout",
            idle_timeout,
            Some(defaults::CONNECTION_IDLE_TIMEOUT),
        )?,
        max_connection_duration: timeout_or(
            "max_connection_duration",
            max_connection_duration,
            None,
        )?,
        max_headers_count: u32_or(max_headers_count, defaults::MAX_HEADERS_COUNT),
        max_response_headers_kb: max_response_headers_kb.map(|n| n.value),
        max_stream_duration: timeout_or("max_stream_duration", max_stream_duration, None)?,
        headers_with_underscores_action: underscores(headers_with_underscores_action)?,
        max_requests_per_connection: max_requests_per_connection
            .map(|n| n.value)
            .filter(|n| *n > 0),
    })
}

fn underscores(action: i32) -> Result<UnderscoresAction> {
    use core::http_protocol_options::HeadersWithUnderscoresAction as Action;
    match Action::try_from(action) {
        Ok(Action::Allow) => Ok(UnderscoresAction::Allow),
        Ok(Action::RejectRequest) => Ok(UnderscoresAction::RejectRequest),
        Ok(Action::DropHeader) => Ok(UnderscoresAction::DropHeader),
        Err(_) => unknown_enum("headers_with_underscores_action", action),
    }
}

/// Options of HTTP/1. `stream_error` is what decides about malformed messages
/// where the options themselves do not.
pub(super) fn http1(
    message: Option<core::Http1ProtocolOptions>,
    stream_error: bool,
) -> Result<Http1Options> {
    let core::Http1ProtocolOptions {
        allow_absolute_url,
        accept_http_10,
        default_host_for_http_10,
        header_key_format,
        enable_trailers,
        allow_chunked_length,
        override_stream_error_on_invalid_http_message,
        send_fully_qualified_url,
        use_balsa_parser: _,
        allow_custom_methods,
        ignore_http_11_upgrade: _,
    } = message.unwrap_or_default();
    Ok(Http1Options {
        allow_absolute_url: bool_or(allow_absolute_url, true),
        accept_http_10,
        default_host_for_http_10: non_empty(default_host_for_http_10),
        enable_trailers,
        allow_chunked_length,
        header_key_format: header_key_format_of(header_key_format).within("header_key_format")?,
        override_stream_error_on_invalid_http_message: bool_or(
            override_stream_error_on_invalid_http_message,
            stream_error,
        ),
        allow_custom_methods,
        send_fully_qualified_url,
    })
}

fn header_key_format_of(
    message: Option<core::http1_protocol_options::HeaderKeyFormat>,
) -> Result<HeaderKeyFormat> {
    use core::http1_protocol_options::header_key_format::HeaderFormat;
    let Some(core::http1_protocol_options::HeaderKeyFormat { header_format }) = message else {
        return Ok(HeaderKeyFormat::Lower);
    };
    match required("header_format", header_format)? {
        HeaderFormat::ProperCaseWords(_) => Ok(HeaderKeyFormat::ProperCase),
        HeaderFormat::StatefulFormatter(_) => refuse("stateful_formatter", "is not supported"),
    }
}

/// Options of HTTP/2.
pub(super) fn http2(message: Option<core::Http2ProtocolOptions>) -> Result<Http2Options> {
    let core::Http2ProtocolOptions {
        hpack_table_size,
        max_concurrent_streams,
        initial_stream_window_size,
        initial_connection_window_size,
        allow_connect,
        allow_metadata: _,
        max_outbound_frames,
        max_outbound_control_frames,
        max_consecutive_inbound_frames_with_empty_payload,
        max_inbound_priority_frames_per_stream,
        max_inbound_window_update_frames_per_data_frame_sent,
        stream_error_on_invalid_http_messaging: _,
        override_stream_error_on_invalid_http_message: _,
        custom_settings_parameters: _,
        connection_keepalive,
        use_oghttp2_codec: _,
        max_metadata_size: _,
        enable_huffman_encoding: _,
        max_header_field_size_kb: _,
        disallow_obs_text: _,
        stream_reset_burst: _,
        stream_reset_rate: _,
    } = message.unwrap_or_default();
    Ok(Http2Options {
        hpack_table_size: u32_or(hpack_table_size, defaults::HPACK_TABLE_SIZE),
        max_concurrent_streams: u32_or(max_concurrent_streams, defaults::MAX_CONCURRENT_STREAMS),
        initial_stream_window_size: u32_or(
            initial_stream_window_size,
            defaults::INITIAL_STREAM_WINDOW,
        ),
        initial_connection_window_size: u32_or(
            initial_connection_window_size,
            defaults::INITIAL_CONNECTION_WINDOW,
        ),
        allow_connect,
        max_outbound_frames: u32_or(max_outbound_frames, defaults::MAX_OUTBOUND_FRAMES),
        max_outbound_control_frames: u32_or(
            max_outbound_control_frames,
            defaults::MAX_OUTBOUND_CONTROL_FRAMES,
        ),
        max_consecutive_inbound_frames_with_empty_payload: u32_or(
            max_consecutive_inbound_frames_with_empty_payload,
            defaults::MAX_CONSECUTIVE_EMPTY_FRAMES,
        ),
        max_inbound_priority_frames_per_stream: u32_or(
            max_inbound_priority_frames_per_stream,
            defaults::MAX_PRIORITY_FRAMES_PER_STREAM,
        ),
        max_inbound_window_update_frames_per_data_frame_sent: u32_or(
            max_inbound_window_update_frames_per_data_frame_sent,
            defaults::MAX_WINDOW_UPDATES_PER_DATA_FRAME,
        ),
        keepalive: connection_keepalive
            .map(keepalive)
            .transpose()
            .within("connection_keepalive")?
            .flatten(),
    })
}

fn keepalive(message: core::KeepaliveSettings) -> Result<Option<KeepaliveConfig>> {
    let core::KeepaliveSettings {
        interval,
        timeout,
        interval_jitter,
        connection_idle_interval,
    } = message;
    let timeout = duration_or("timeout", timeout, Duration::ZERO)?;
    let interval = timeout_or("interval", interval, None)?;
    let jitter = percent(
        "interval_jitter",
        interval_jitter,
        defaults::KEEPALIVE_JITTER_PERCENT,
    )?;
    let idle = duration("connection_idle_interval", connection_idle_interval)?;
    if interval.is_none() && idle.is_none() {
        return Ok(None);
    }
    Ok(Some(KeepaliveConfig {
        interval,
        interval_jitter: interval.unwrap_or_default().mul_f64(jitter / 100.0),
        timeout,
        connection_idle_interval: idle,
    }))
}
