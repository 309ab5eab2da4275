//! Who the client is: `x-forwarded-for`, `x-forwarded-proto`,
//! `x-forwarded-port`, `x-envoy-external-address`, and whether it is internal.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use outrigger_config::ir::HcmConfig;
use outrigger_types::{Address, HeaderValue, Headers, RequestHead, StreamInfo, names};

use super::request::{Seen, set_scheme};
use crate::network::local_address;

/// Finds the client's address and writes what follows from it. True for a
/// request that enters the trusted network here.
pub(super) fn apply(
    head: &mut RequestHead,
    hcm: &HcmConfig,
    info: &mut StreamInfo,
    seen: Seen,
) -> bool {
    let client = if hcm.use_remote_address {
        let client = from_peer(&head.headers, hcm, info, seen);
        if !hcm.skip_xff_append {
            append_peer(&mut head.headers, info);
        }
        client
    } else {
        from_header(&head.headers, hcm, info, seen)
    };
    write_proto_and_port(head, hcm, info, seen);
    set_scheme(head, hcm, info);
    info.internal_request = client.may_be_internal && is_internal(&client.address, hcm);
    info.downstream_remote = client.address;
    hcm.use_remote_address && !info.internal_request
}

/// Writes the client's address for those behind, on a request that enters the
/// trusted network here.
pub(super) fn write_external_address(head: &mut RequestHead, info: &StreamInfo, edge: bool) {
    if edge && let Some(ip) = info.downstream_remote.ip() {
        head.headers
            .set(names::X_ENVOY_EXTERNAL_ADDRESS, ip_value(ip));
    }
}

struct Client {
    address: Address,
    /// Whether the address is sure enough to be taken as internal.
    may_be_internal: bool,
}

/// The peer, or behind trusted proxies the address that the first of them saw.
fn from_peer(headers: &Headers, hcm: &HcmConfig, info: &StreamInfo, seen: Seen) -> Client {
    let has_header = seen.has(Seen::FORWARDED_FOR);
    let from_header = match hcm.xff_num_trusted_hops {
        hops if hops > 0 && has_header => last_address(headers, hops - 1),
        _ => None,
    };
    Client {
        address: from_header.map_or_else(
            || info.connection.remote.clone(),
            |(ip, _)| without_port(ip),
        ),
        may_be_internal: !has_header,
    }
}

/// The address that the header names, if it names one.
fn from_header(headers: &Headers, hcm: &HcmConfig, info: &StreamInfo, seen: Seen) -> Client {
    let found = match seen.has(Seen::FORWARDED_FOR) {
        true => last_address(headers, hcm.xff_num_trusted_hops),
        false => None,
    };
    match found {
        Some((ip, only_one)) => Client {
            address: without_port(ip),
            may_be_internal: only_one,
        },
        None => Client {
            address: info.connection.remote.clone(),
            may_be_internal: false,
        },
    }
}

fn without_port(ip: IpAddr) -> Address {
    Address::Ip(SocketAddr::new(ip, 0))
}

/// The last address of `x-forwarded-for` after `skip` of them, and whether it
/// is the only one.
fn last_address(headers: &Headers, skip: u32) -> Option<(IpAddr, bool)> {
    let value = headers.joined(&names::X_FORWARDED_FOR)?;
    let mut rest = &value[..];
    for _ in 0..skip {
        let comma = rest.iter().rposition(|b| *b == b',')?;
        rest = &rest[..comma];
    }
    let comma = rest.iter().rposition(|b| *b == b',');
    let last = match comma {
        Some(comma) if comma + 1 < rest.len() => &rest[comma + 1..],
        _ => rest,
    };
    let ip = std::str::from_utf8(last.trim_ascii()).ok()?.parse().ok()?;
    Some((ip, comma.is_none() && skip == 0))
}

/// Adds the peer to `x-forwarded-for`. A loopback address says nothing to those
/// behind: the machine's own address stands for it.
fn append_peer(headers: &mut Headers, info: &StreamInfo) {
    let Some(mut ip) = info.connection.remote.ip() else {
        return;
    };
    if ip.is_loopback() {
        ip = local_address::local_address();
    }
    let value = match headers.joined(&names::X_FORWARDED_FOR) {
        Some(old) if !old.is_empty() => join(&old, ip),
        _ => ip_value(ip),
    };
    headers.set(names::X_FORWARDED_FOR, value);
}

fn join(old: &[u8], ip: IpAddr) -> HeaderValue {
    let mut all = Vec::with_capacity(old.len() + 40);
    all.extend_from_slice(old);
    all.push(b',');
    all.extend_from_slice(ip_value(ip).as_bytes());
    HeaderValue::from_maybe_shared(Bytes::from(all)).unwrap_or_else(|_| ip_value(ip))
}

/// The text of an address; the text is always a valid value.
fn ip_value(ip: IpAddr) -> HeaderValue {
    HeaderValue::from_str(&ip.to_string()).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// Says what transport the client used and what port it came to, unless a
/// trusted proxy said it.
fn write_proto_and_port(head: &mut RequestHead, hcm: &HcmConfig, info: &StreamInfo, seen: Seen) {
    let first = hcm.use_remote_address && hcm.xff_num_trusted_hops == 0;
    if first || !seen.has(Seen::FORWARDED_PROTO) {
        let proto = HeaderValue::from_static(if info.connection.tls().is_some() {
            "https"
        } else {
            "http"
        });
        head.headers.set(names::X_FORWARDED_PROTO, proto);
    } else if let Some(Cow::Owned(all)) = head.headers.joined(&names::X_FORWARDED_PROTO)
        && let Ok(all) = HeaderValue::from_maybe_shared(Bytes::from(all))
    {
        head.headers.set(names::X_FORWARDED_PROTO, all);
    }
    if hcm.append_x_forwarded_port
        && (first || !seen.has(Seen::FORWARDED_PORT))
        && let Some(port) = info.connection.local.port()
    {
        head.headers
            .set(names::X_FORWARDED_PORT, HeaderValue::from(port));
    }
}

fn is_internal(address: &Address, hcm: &HcmConfig) -> bool {
    match address {
        Address::Ip(addr) => hcm
            .internal_addresses
            .iter()
            .any(|range| range.contains(addr.ip())),
        Address::Pipe(_) => hcm.internal_unix_sockets,
        Address::Internal(..) => false,
    }
}
