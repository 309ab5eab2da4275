//! Operators that take neither parameters nor a length, and what addresses are
//! read from.

use std::borrow::Cow;
use std::fmt;

use outrigger_types::{Address, Protocol, ResponseFlag, names};

use super::FormatContext;
use super::duration::millis;
use super::value::Value;

type Read = for<'a> fn(&FormatContext<'a>) -> Value<'a>;

/// An operator that only its name tells apart.
#[derive(Clone, Copy)]
pub(super) struct Plain {
    name: &'static str,
    read: Read,
}

impl Plain {
    /// The value.
    pub(super) fn read<'a>(self, context: &FormatContext<'a>) -> Value<'a> {
        (self.read)(context)
    }
}

impl fmt::Debug for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Looks an operator up.
pub(super) fn find(name: &str) -> Option<Plain> {
    [TRAFFIC, UPSTREAM, DOWNSTREAM, STREAM]
        .into_iter()
        .flatten()
        .find(|(known, _)| *known == name)
        .map(|(name, read)| Plain { name, read: *read })
}

const TRAFFIC: &[(&str, Read)] = &[
    ("BYTES_RECEIVED", |c| Value::Number(c.info.bytes_received)),
    ("BYTES_SENT", |c| Value::Number(c.info.bytes_sent)),
    // QUIC alone retransmits by itself.
    ("BYTES_RETRANSMITTED", |_| Value::Number(0)),
    ("PACKETS_RETRANSMITTED", |_| Value::Number(0)),
    ("REQUEST_HEADERS_BYTES", |c| {
        Value::Number(c.request.map_or(0, |head| head.byte_size() as u64))
    }),
    ("RESPONSE_HEADERS_BYTES", |c| {
        Value::Number(c.response.map_or(0, |head| head.byte_size() as u64))
    }),
    ("RESPONSE_TRAILERS_BYTES", |c| {
        Value::Number(c.trailers.map_or(0, |fields| fields.byte_size() as u64))
    }),
    ("DOWNSTREAM_WIRE_BYTES_SENT", |c| {
        Value::Number(c.info.wire_bytes_sent)
    }),
    ("DOWNSTREAM_WIRE_BYTES_RECEIVED", |c| {
        Value::Number(c.info.wire_bytes_received)
    }),
    ("DOWNSTREAM_HEADER_BYTES_SENT", |c| {
        Value::Number(c.info.header_bytes_sent)
    }),
    ("DOWNSTREAM_HEADER_BYTES_RECEIVED", |c| {
        Value::Number(c.info.header_bytes_received)
    }),
    ("DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_SENT", |c| {
        Value::Number(c.info.header_bytes_sent)
    }),
    ("DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED", |c| {
        Value::Number(c.info.header_bytes_received)
    }),
    ("UPSTREAM_WIRE_BYTES_SENT", |c| {
        Value::Number(c.info.upstream.wire_bytes_sent)
    }),
    ("UPSTREAM_WIRE_BYTES_RECEIVED", |c| {
        Value::Number(c.info.upstream.wire_bytes_received)
    }),
    ("UPSTREAM_HEADER_BYTES_SENT", |c| {
        Value::Number(c.info.upstream.header_bytes_sent)
    }),
    ("UPSTREAM_HEADER_BYTES_RECEIVED", |c| {
        Value::Number(c.info.upstream.header_bytes_received)
    }),
    ("UPSTREAM_DECOMPRESSED_HEADER_BYTES_SENT", |c| {
        Value::Number(c.info.upstream.header_bytes_sent)
    }),
    ("UPSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED", |c| {
        Value::Number(c.info.upstream.header_bytes_received)
    }),
];

const UPSTREAM: &[(&str, Read)] = &[
    ("UPSTREAM_HOST", |c| {
        address_value(c.info.upstream.host.as_ref())
    }),
    ("UPSTREAM_HOST_NAME", host_name),
    ("UPSTREAM_HOST_NAME_WITHOUT_PORT", |c| match host_name(c) {
        Value::Bytes(name) => Value::Bytes(cut_port(name)),
        other => other,
    }),
    ("UPSTREAM_HOSTS_ATTEMPTED", |c| {
        list(c.info.upstream.attempted.iter().map(Address::to_string))
    }),
    ("UPSTREAM_HOSTS_ATTEMPTED_WITHOUT_PORT", |c| {
        list(c.info.upstream.attempted.iter().map(without_port))
    }),
    ("UPSTREAM_HOST_NAMES_ATTEMPTED", |c| {
        list(names_attempted(c))
    }),
    ("UPSTREAM_HOST_NAMES_ATTEMPTED_WITHOUT_PORT", |c| {
        list(names_attempted(c).map(|name| {
            let cut = cut_port(Cow::Borrowed(name.as_bytes()));
            String::from_utf8_lossy(&cut).into_owned()
        }))
    }),
    ("UPSTREAM_CONNECTION_IDS_ATTEMPTED", |c| {
        let ids = &c.info.upstream.attempted_connection_ids;
        list(ids.iter().map(u64::to_string))
    }),
    ("UPSTREAM_CLUSTER", |c| {
        Value::opt(c.info.upstream.cluster.as_deref())
    }),
    ("UPSTREAM_CLUSTER_RAW", |c| {
        Value::opt(c.info.upstream.cluster_raw.as_deref())
    }),
    ("UPSTREAM_LOCAL_ADDRESS", |c| {
        address_value(c.info.upstream.local.as_ref())
    }),
    ("UPSTREAM_LOCAL_PORT", |c| {
        port(c.info.upstream.local.as_ref())
    }),
    ("UPSTREAM_REMOTE_ADDRESS", |c| {
        address_value(c.info.upstream.remote.as_ref())
    }),
    ("UPSTREAM_REMOTE_PORT", |c| {
        port(c.info.upstream.remote.as_ref())
    }),
    ("UPSTREAM_REMOTE_ADDRESS_ENDPOINT_ID", |c| {
        endpoint_id(c.info.upstream.remote.as_ref())
    }),
    ("UPSTREAM_CONNECTION_ID", |c| {
        Value::Number(c.info.upstream.connection_id.unwrap_or(0))
    }),
    ("UPSTREAM_PROTOCOL", |c| protocol(c.info.upstream.protocol)),
    ("UPSTREAM_TRANSPORT_FAILURE_REASON", |c| {
        without_whitespace(c.info.upstream.transport_failure.as_deref())
    }),
    ("DOWNSTREAM_TRANSPORT_FAILURE_REASON", |c| {
        let reason = c.info.connection.transport_failure.get();
        without_whitespace(reason.map(|reason| &**reason))
    }),
    ("UPSTREAM_DETECTED_CLOSE_TYPE", |c| {
        match c.info.upstream.host {
            Some(_) => Value::bytes(b"Normal"),
            None => Value::Missing,
        }
    }),
    ("ROUTE_RESOLUTION_COUNT", |c| {
        Value::Number(c.info.route_resolutions.into())
    }),
    ("ROUTE_RESOLUTION_TIME_US", |c| {
        let micros = c.info.route_resolution_time.as_micros();
        Value::Number(u64::try_from(micros).unwrap_or(u64::MAX))
    }),
    ("UPSTREAM_REQUEST_ATTEMPT_COUNT", |c| {
        Value::Number(c.info.attempt_count.into())
    }),
    ("UPSTREAM_CONNECTION_POOL_READY_DURATION", |c| {
        let upstream = &c.info.upstream;
        millis(
            upstream
                .pool_ready
                .zip(upstream.request_start)
                .and_then(|(ready, start)| ready.checked_duration_since(start)),
        )
    }),
];

const DOWNSTREAM: &[(&str, Read)] = &[
    ("DOWNSTREAM_REMOTE_ADDRESS", |c| {
        address_value(Some(&c.info.downstream_remote))
    }),
    ("DOWNSTREAM_REMOTE_PORT", |c| {
        port(Some(&c.info.downstream_remote))
    }),
    ("DOWNSTREAM_DIRECT_REMOTE_ADDRESS", |c| {
        address_value(Some(&c.info.connection.direct_remote))
    }),
    ("DOWNSTREAM_DIRECT_REMOTE_PORT", |c| {
        port(Some(&c.info.connection.direct_remote))
    }),
    ("DOWNSTREAM_LOCAL_ADDRESS", |c| {
        address_value(Some(&c.info.connection.local))
    }),
    ("DOWNSTREAM_LOCAL_PORT", |c| {
        port(Some(&c.info.connection.local))
    }),
    ("DOWNSTREAM_LOCAL_ADDRESS_ENDPOINT_ID", |c| {
        endpoint_id(Some(&c.info.connection.local))
    }),
    ("DOWNSTREAM_DIRECT_LOCAL_ADDRESS", |c| {
        address_value(Some(&c.info.connection.direct_local))
    }),
    ("DOWNSTREAM_DIRECT_LOCAL_PORT", |c| {
        port(Some(&c.info.connection.direct_local))
    }),
    ("DOWNSTREAM_DIRECT_LOCAL_ADDRESS_ENDPOINT_ID", |c| {
        endpoint_id(Some(&c.info.connection.direct_local))
    }),
    ("DOWNSTREAM_DETECTED_CLOSE_TYPE", |_| {
        Value::bytes(b"Normal")
    }),
    ("CONNECTION_ID", |c| Value::Number(c.info.connection.id)),
    ("CONNECTION_TERMINATION_DETAILS", |c| {
        Value::opt(c.info.connection_termination_details.as_deref())
    }),
    ("FILTER_CHAIN_NAME", |c| {
        Value::text(&c.info.connection.filter_chain_name)
    }),
    ("LISTENER_NAME", |c| {
        Value::text(&c.info.connection.listener_name)
    }),
];

const STREAM: &[(&str, Read)] = &[
    ("PROTOCOL", |c| protocol(c.info.protocol)),
    ("RESPONSE_CODE", |c| {
        Value::Number(c.info.response_code.unwrap_or(0).into())
    }),
    ("RESPONSE_FLAGS", |c| flags(c, ResponseFlag::short)),
    ("RESPONSE_FLAGS_LONG", |c| flags(c, ResponseFlag::long)),
    ("DURATION", |c| millis(Some(c.info.elapsed()))),
    ("REQUEST_DURATION", |c| {
        millis(c.info.times.last_downstream_rx)
    }),
    ("REQUEST_TX_DURATION", |c| {
        millis(c.info.times.last_upstream_tx)
    }),
    ("RESPONSE_DURATION", |c| {
        millis(c.info.times.first_upstream_rx)
    }),
    ("RESPONSE_TX_DURATION", |c| {
        let times = &c.info.times;
        millis(
            times
                .last_downstream_tx
                .zip(times.first_upstream_rx)
                .and_then(|(sent, received)| sent.checked_sub(received)),
        )
    }),
    ("ROUNDTRIP_DURATION", |_| Value::Missing),
    ("ROUTE_NAME", |c| Value::text(&c.info.route_name)),
    ("VIRTUAL_CLUSTER_NAME", |c| {
        Value::opt(c.info.virtual_cluster.as_deref())
    }),
    ("STREAM_ID", |c| Value::opt(c.info.request_id.as_deref())),
    ("TRACE_ID", |c| Value::opt(c.info.trace_id.as_deref())),
    ("SPAN_ID", |_| Value::Missing),
    ("HOSTNAME", |_| Value::text(host())),
    ("LOCAL_REPLY_BODY", |c| Value::bytes(c.local_reply_body)),
    ("ACCESS_LOG_TYPE", |c| {
        Value::bytes(c.access_log_type.as_str().as_bytes())
    }),
    ("CUSTOM_FLAGS", |_| Value::bytes(b"")),
    ("UNIQUE_ID", |_| Value::owned(unique_id())),
];

/// Where the operators that take a mask read their address from.
pub(super) fn address(name: &str) -> Option<fn(&FormatContext<'_>) -> Option<Address>> {
    Some(match name {
        "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" => |c| c.info.upstream.local.clone(),
        "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => |c| c.info.upstream.remote.clone(),
        "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => |c| Some(c.info.downstream_remote.clone()),
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT" => {
            |c| Some(c.info.connection.direct_remote.clone())
        }
        "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" => |c| Some(c.info.connection.local.clone()),
        "DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT" => {
            |c| Some(c.info.connection.direct_local.clone())
        }
        _ => return None,
    })
}

/// An address without its port.
pub(super) fn without_port(address: &Address) -> String {
    match address.ip() {
        Some(ip) => ip.to_string(),
        None => address.to_string(),
    }
}

/// Text in which every white space is a `_`, as logs want it.
pub(super) fn without_whitespace(text: Option<&str>) -> Value<'_> {
    match text {
        Some(text) if text.contains(|c: char| c.is_ascii_whitespace()) => {
            Value::owned(text.replace(|c: char| c.is_ascii_whitespace(), "_"))
        }
        other => Value::opt(other),
    }
}

fn address_value<'a>(address: Option<&'a Address>) -> Value<'a> {
    match address {
        None => Value::Missing,
        Some(Address::Pipe(path)) => Value::bytes(path.as_bytes()),
        Some(address) => Value::owned(address.to_string()),
    }
}

fn port<'a>(address: Option<&Address>) -> Value<'a> {
    Value::number(address.and_then(Address::port))
}

fn endpoint_id(address: Option<&Address>) -> Value<'_> {
    match address {
        Some(Address::Internal(_, id)) => Value::bytes(id.as_bytes()),
        Some(_) => Value::bytes(b""),
        None => Value::Missing,
    }
}

fn protocol<'a>(protocol: Option<Protocol>) -> Value<'a> {
    Value::opt(protocol.map(Protocol::as_str))
}

fn host_name<'a>(context: &FormatContext<'a>) -> Value<'a> {
    let upstream = &context.info.upstream;
    match upstream.hostname.as_deref() {
        Some(name) if !name.is_empty() => Value::bytes(name.as_bytes()),
        _ => address_value(upstream.host.as_ref()),
    }
}

fn names_attempted<'a>(context: &FormatContext<'a>) -> impl Iterator<Item = String> + use<'a> {
    let upstream = &context.info.upstream;
    upstream.attempted.iter().enumerate().map(|(i, address)| {
        let name = upstream.attempted_hostnames.get(i);
        match name.filter(|name| !name.is_empty()) {
            Some(name) => name.to_string(),
            None => address.to_string(),
        }
    })
}

fn list<'a>(items: impl Iterator<Item = String>) -> Value<'a> {
    let all = items.collect::<Vec<_>>().join(",");
    if all.is_empty() {
        Value::Missing
    } else {
        Value::owned(all)
    }
}

/// A host without a `:port` at its end; IPv6 loses its brackets too.
fn cut_port(host: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    let text = std::str::from_utf8(&host).unwrap_or_default();
    if let Ok(address) = text.parse::<std::net::SocketAddr>() {
        return Cow::Owned(address.ip().to_string().into_bytes());
    }
    match text.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') && port.parse::<u16>().is_ok() => {
            Cow::Owned(name.as_bytes().to_vec())
        }
        _ => host,
    }
}

fn flags<'a>(context: &FormatContext<'a>, name: fn(ResponseFlag) -> &'static str) -> Value<'a> {
    let mut flags = context.info.flags.iter().map(name);
    match (flags.next(), flags.next()) {
        (None, _) => Value::bytes(b"-"),
        (Some(only), None) => Value::bytes(only.as_bytes()),
        (Some(first), Some(second)) => {
            let mut all = [first, second].join(",");
            for flag in flags {
                all.push(',');
                all.push_str(flag);
            }
            Value::owned(all)
        }
    }
}

/// The name of this host, read once.
fn host() -> &'static str {
    static NAME: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    NAME.get_or_init(|| {
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        name.trim_end().to_owned()
    })
}

/// A random UUID (version 4).
fn unique_id() -> String {
    const VERSION: u128 = 0xf << 76;
    const VARIANT: u128 = 0x3 << 62;
    let random: u128 = rand::random();
    let id = (random & !VERSION & !VARIANT) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{id:032x}");
    [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ]
    .join("-")
}

impl FormatContext<'_> {
    /// The gRPC status of a gRPC request, as `%GRPC_STATUS%` has it.
    /// `Some(None)` is a status that is no number.
    pub(super) fn grpc_status(&self) -> Option<Option<u64>> {
        let is_grpc = self
            .request
            .is_some_and(outrigger_types::RequestHead::is_grpc);
        if is_grpc {
            self.any_grpc_status()
        } else {
            None
        }
    }

    /// The gRPC status of any response: from the trailers, else from the
    /// response's head, else what its HTTP status maps to.
    pub fn grpc_status_or_mapped(&self) -> Option<u64> {
        self.any_grpc_status().flatten()
    }

    fn any_grpc_status(&self) -> Option<Option<u64>> {
        let fields = [self.trailers, self.response.map(|head| &head.headers)];
        let text = fields
            .into_iter()
            .flatten()
            .find_map(|fields| fields.get_bytes(&names::GRPC_STATUS))
            .filter(|text| !text.is_empty());
        match text {
            Some(text) => Some(std::str::from_utf8(text).ok().and_then(|t| t.parse().ok())),
            None => self.info.response_code.map(|code| Some(mapped(code))),
        }
    }
}

/// The gRPC status that stands for an HTTP status.
fn mapped(code: u16) -> u64 {
    match code {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}
