//! The rules for the head of a request before any filter sees it: what is
//! refused, what a client may not say, and what the proxy says about itself.
//!
//! The order is Envoy's: host, path, then the fields that say
//! who the client is. See "HTTP header sanitizing" in Envoy's documentation.

use std::collections::BTreeMap;

use bytes::Bytes;
use filter_api::LocalReply;
use outrigger_config::ir::{HcmConfig, StripPort};
use outrigger_types::{
    HeaderName, HeaderValue, Method, Protocol, RequestHead, Scheme, StatusCode, StreamInfo,
    details, names,
};

use super::{client_cert, forwarded, path, request_id};

/// Makes a request fit for the filters, and takes note of what it says about
/// its client. `random` is the stream's own number.
///
/// # Errors
/// With the answer, if the request is refused.
pub fn mutate(
    head: &mut RequestHead,
    hcm: &HcmConfig,
    caller: &Caller,
    info: &mut StreamInfo,
    random: u64,
) -> Result<(), LocalReply> {
    info.is_grpc = head.is_grpc();
    let mut seen = Seen::of(head);
    check_target(head)?;
    path::normalise(head, hcm, info.is_grpc)?;
    normalise_host(head, hcm, info);
    take_extended_connect(head, &mut seen);
    let mut remove = hop_by_hop(head, seen);
    let edge = forwarded::apply(head, hcm, info, seen);
    if !info.internal_request {
        remove |= Seen::UNTRUSTED;
    }
    if edge {
        remove |= Seen::EDGE_ONLY;
    }
    if seen.intersects(remove) {
        head.headers
            .retain(|name, _| !remove.intersects(Seen::class(name)));
    }
    if info.internal_request {
        head.headers
            .append(names::X_ENVOY_INTERNAL, HeaderValue::from_static("true"));
    }
    if hcm.add_user_agent {
        caller.write(head);
    }
    append_via(head, hcm);
    forwarded::write_external_address(head, info, edge);
    request_id::apply(head, hcm, info, edge, random);
    client_cert::apply(&mut head.headers, hcm, info, seen);
    Ok(())
}

/// Whether a request asks for an upgrade, or for a tunnel by CONNECT, that the route or
/// the HCM takes; none if it asks for neither. `route` are the route's own settings by
/// lower-case name, which come first.
pub fn takes_upgrade(
    head: &RequestHead,
    hcm: &HcmConfig,
    route: Option<&BTreeMap<Box<str>, bool>>,
) -> Option<bool> {
    let wanted: &[u8] = match &head.protocol {
        Some(protocol) => protocol,
        None if head.method == Method::CONNECT => b"connect",
        None => return None,
    };
    let is = |name: &str| name.as_bytes().eq_ignore_ascii_case(wanted);
    let of_route = route.and_then(|r| r.iter().find(|(name, _)| is(name)).map(|(_, on)| *on));
    let of_hcm = || hcm.upgrades.iter().find(|u| is(&u.name)).map(|u| u.enabled);
    Some(of_route.or_else(of_hcm).unwrap_or(false))
}

/// The answer to an upgrade that is not taken.
pub fn upgrade_refused() -> LocalReply {
    LocalReply::new(StatusCode::FORBIDDEN, "", details::UPGRADE_FAILED)
}

/// Removes the fields that a route table keeps for internal requests
/// (`internal_only_headers`).
pub fn remove_internal_only(head: &mut RequestHead, names: &[HeaderName], info: &StreamInfo) {
    if !info.internal_request && !names.is_empty() {
        head.headers.retain(|name, _| !names.contains(name));
    }
}

/// Who calls, as `add_user_agent` has it written.
#[derive(Clone, Debug)]
pub struct Caller {
    cluster: HeaderValue,
    node: Option<HeaderValue>,
}

impl Default for Caller {
    /// Nobody.
    fn default() -> Self {
        Self::new("", "")
    }
}

impl Caller {
    /// From the cluster and the id of the process's node. What cannot be the value of a
    /// field is left out.
    pub fn new(cluster: &str, node: &str) -> Self {
        let value = |text: &str| HeaderValue::from_str(text).ok();
        Self {
            cluster: value(cluster).unwrap_or_else(|| HeaderValue::from_static("")),
            node: value(node).filter(|node| !node.is_empty()),
        }
    }

    /// Writes the node's cluster as `user-agent` where there is none and as
    /// `x-envoy-downstream-service-cluster`, its id as `x-envoy-downstream-service-node`.
    fn write(&self, head: &mut RequestHead) {
        let headers = &mut head.headers;
        headers.set(
            names::X_ENVOY_DOWNSTREAM_SERVICE_CLUSTER,
            self.cluster.clone(),
        );
        if headers
            .get(&names::USER_AGENT)
            .is_none_or(HeaderValue::is_empty)
        {
            headers.set(names::USER_AGENT, self.cluster.clone());
        }
        if let Some(node) = &self.node {
            headers.set(names::X_ENVOY_DOWNSTREAM_SERVICE_NODE, node.clone());
        }
    }
}

/// Which of the fields that matter here a head has: one pass over the names
/// saves a look-up for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen(u16);

impl Seen {
    pub(super) const NONE: Self = Self(0);
    pub(super) const CONNECTION: Self = Self(1);
    pub(super) const UPGRADE: Self = Self(1 << 1);
    pub(super) const TE: Self = Self(1 << 2);
    /// `keep-alive`, `proxy-connection`, `transfer-encoding`, `x-envoy-internal`:
    /// removed from every request.
    pub(super) const ALWAYS_REMOVED: Self = Self(1 << 3);
    pub(super) const FORWARDED_FOR: Self = Self(1 << 4);
    pub(super) const FORWARDED_PROTO: Self = Self(1 << 5);
    pub(super) const FORWARDED_PORT: Self = Self(1 << 6);
    pub(super) const CLIENT_CERT: Self = Self(1 << 7);
    /// What only a trusted client may say to the first proxy.
    pub(super) const EDGE_ONLY: Self = Self(1 << 8);
    /// What only an internal client may say.
    pub(super) const UNTRUSTED: Self = Self(1 << 9);

    fn of(head: &RequestHead) -> Self {
        head.headers
            .iter()
            .fold(Self::NONE, |seen, (name, _)| seen | Self::class(name))
    }

    pub(super) fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    fn class(name: &HeaderName) -> Self {
        match name.as_str() {
            "connection" => Self::CONNECTION,
            "upgrade" => Self::UPGRADE,
            "te" => Self::TE,
            "keep-alive" | "proxy-connection" | "transfer-encoding" | "x-envoy-internal" => {
                Self::ALWAYS_REMOVED
            }
            "x-forwarded-for" => Self::FORWARDED_FOR,
            "x-forwarded-proto" => Self::FORWARDED_PROTO,
            "x-forwarded-port" => Self::FORWARDED_PORT,
            "x-forwarded-client-cert" => Self::CLIENT_CERT,
            text => match text.strip_prefix("x-envoy-") {
                Some(rest) => Self::class_of_envoy(rest),
                None => Self::NONE,
            },
        }
    }

    fn class_of_envoy(rest: &str) -> Self {
        match rest {
            "decorator-operation"
            | "downstream-service-cluster"
            | "downstream-service-node"
            | "original-path"
            | "original-host" => Self::EDGE_ONLY,
            "retriable-status-codes"
            | "retriable-header-names"
            | "retry-on"
            | "retry-grpc-on"
            | "max-retries"
            | "upstream-alt-stat-name"
            | "upstream-rq-timeout-ms"
            | "upstream-rq-per-try-timeout-ms"
            | "upstream-stream-duration-ms"
            | "upstream-rq-timeout-alt-response"
            | "expected-rq-timeout-ms"
            | "force-trace"
            | "ip-tags"
            | "original-url"
            | "hedge-on-per-try-timeout" => Self::UNTRUSTED,
            _ => Self::NONE,
        }
    }
}

impl std::ops::BitOr for Seen {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl std::ops::BitOrAssign for Seen {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// A host must be there, even if it is empty; the path must be relative; a QUERY says
/// what it holds.
fn check_target(head: &RequestHead) -> Result<(), LocalReply> {
    let refused = |details| Err(LocalReply::new(StatusCode::BAD_REQUEST, "", details));
    if head.authority.is_none() {
        return refused(details::MISSING_HOST_HEADER);
    }
    if head.method.as_str() == "QUERY" && !head.headers.contains(&names::CONTENT_TYPE) {
        return refused(details::QUERY_MISSING_CONTENT_TYPE);
    }
    match head.path.first() {
        Some(b'/') => Ok(()),
        None if head.method == Method::CONNECT && head.protocol.is_none() => Ok(()),
        None => Err(LocalReply::new(
            StatusCode::NOT_FOUND,
            "",
            details::MISSING_PATH,
        )),
        Some(_) => Err(LocalReply::new(
            StatusCode::NOT_FOUND,
            "",
            details::ABSOLUTE_PATH_REJECTED,
        )),
    }
}

/// Drops the host's final dot and its port, as far as the configuration says.
fn normalise_host(head: &mut RequestHead, hcm: &HcmConfig, info: &StreamInfo) {
    if hcm.strip_trailing_host_dot {
        strip_trailing_dot(head);
    }
    let listener_port = match hcm.strip_port {
        StripPort::None => return,
        StripPort::Any => None,
        StripPort::Matching => Some(info.connection.local.port().map_or(0, u32::from)),
    };
    let Some(host) = &head.authority else { return };
    if let Some((end, port)) = port_of(host)
        && listener_port.is_none_or(|listener| listener == port)
    {
        head.authority = Some(host.slice(..end));
    }
}

fn strip_trailing_dot(head: &mut RequestHead) {
    let Some(host) = &head.authority else { return };
    let Some(dot) = host.iter().rposition(|b| *b == b'.') else {
        return;
    };
    if dot + 1 == host.len() {
        head.authority = Some(host.slice(..dot));
    } else if host[dot + 1] == b':' {
        head.authority = Some(Bytes::from([&host[..dot], &host[dot + 1..]].concat()));
    }
}

/// Where the port's colon stands, and the port.
fn port_of(host: &[u8]) -> Option<(usize, u32)> {
    let colon = host.iter().rposition(|b| *b == b':')?;
    if host[colon..].contains(&b']') {
        return None;
    }
    let port = std::str::from_utf8(&host[colon + 1..]).ok()?.parse().ok()?;
    Some((colon, port))
}

/// An extended CONNECT of HTTP/2 is treated as the upgrade of HTTP/1 that it
/// stands for.
fn take_extended_connect(head: &mut RequestHead, seen: &mut Seen) {
    if head.method != Method::CONNECT {
        return;
    }
    let Some(protocol) = &head.protocol else {
        return;
    };
    let Ok(value) = HeaderValue::from_maybe_shared(protocol.clone()) else {
        return;
    };
    head.method = Method::GET;
    head.headers.set(names::UPGRADE, value);
    head.headers
        .set(names::CONNECTION, HeaderValue::from_static("upgrade"));
    *seen |= Seen::UPGRADE | Seen::CONNECTION;
}

/// What of the connection's own fields is to be removed. An upgrade keeps what
/// asks for it.
fn hop_by_hop(head: &mut RequestHead, seen: Seen) -> Seen {
    let mut remove = Seen::ALWAYS_REMOVED;
    if head.protocol.is_some() {
        return remove;
    }
    remove |= Seen::CONNECTION | Seen::UPGRADE;
    if seen.has(Seen::TE) && !keep_trailers(head) {
        remove |= Seen::TE;
    }
    remove
}

/// Of `te` only `trailers` is passed on. False if it is not there.
fn keep_trailers(head: &mut RequestHead) -> bool {
    let Some(te) = head.headers.joined(&names::TE) else {
        return false;
    };
    if &*te == b"trailers" {
        return true;
    }
    let takes_trailers = te
        .split(|b| *b == b',')
        .any(|t| t.trim_ascii() == b"trailers");
    drop(te);
    if takes_trailers {
        head.headers
            .set(names::TE, HeaderValue::from_static("trailers"));
    }
    takes_trailers
}

fn append_via(head: &mut RequestHead, hcm: &HcmConfig) {
    if !hcm.via.is_empty() {
        super::response::append_via(&mut head.headers, &hcm.via);
    }
}

/// The scheme: the one that is configured, else for HTTP/1 the one that
/// `x-forwarded-proto` names. One that is none of HTTP's gives way to the transport's.
pub(super) fn set_scheme(head: &mut RequestHead, hcm: &HcmConfig, info: &StreamInfo) {
    if let Some(scheme) = &hcm.scheme_overwrite {
        head.scheme = Scheme::from_bytes(scheme.as_bytes());
        if let Ok(value) = HeaderValue::from_str(scheme) {
            head.headers.set(names::X_FORWARDED_PROTO, value);
        }
    } else if info.protocol != Some(Protocol::Http2)
        && let Some(proto) = head.headers.get_bytes(&names::X_FORWARDED_PROTO)
    {
        match Scheme::from_bytes(proto) {
            Scheme::Other(_) => {}
            scheme => head.scheme = scheme,
        }
    }
    if let Scheme::Other(_) = head.scheme {
        head.scheme = match info.connection.tls().is_some() {
            true => Scheme::Https,
            false => Scheme::Http,
        };
    }
}

#[cfg(test)]
pub(crate) mod tests;
