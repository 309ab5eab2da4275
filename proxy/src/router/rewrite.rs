//! What a route changes in a request before it goes upstream, and in a response
//! before it goes downstream.
//!
//! Header mutations come first, because the rewrites may change what they refer
//! to; then the authority, then the path.

use bytes::Bytes;
use outrigger_config::format::FormatContext;
use outrigger_config::ir::{
    ForwardConfig, HeaderMutations, HostRewrite, PathMatchConfig, RegexRewrite,
};
use outrigger_types::{HeaderValue, Headers, RequestHead, ResponseHead, StreamInfo, names};

use super::matcher::RouteMatch;
use crate::http::header_mutation;

/// The mutations that apply, in the order in which they are made.
fn in_order<'a>(
    matched: &'a RouteMatch,
    pick: impl Fn(Level<'a>) -> &'a HeaderMutations,
) -> impl Iterator<Item = &'a HeaderMutations> {
    let mut levels = smallvec::SmallVec::<[&HeaderMutations; 4]>::new();
    if let Some(weighted) = matched.weighted_cluster() {
        levels.push(pick(Level::Weighted(weighted)));
    }
    if let Some(route) = &matched.route {
        levels.push(pick(Level::Route(route)));
    }
    levels.push(pick(Level::VirtualHost(&matched.vhost)));
    levels.push(pick(Level::Table(matched.table.config())));
    if matched.table.config().most_specific_header_mutations_wins {
        levels.reverse();
    }
    levels.into_iter()
}

#[derive(Clone, Copy)]
enum Level<'a> {
    Weighted(&'a outrigger_config::ir::WeightedCluster),
    Route(&'a outrigger_config::ir::RouteConfig),
    VirtualHost(&'a outrigger_config::ir::VirtualHostConfig),
    Table(&'a outrigger_config::ir::RouteTableConfig),
}

impl<'a> Level<'a> {
    fn request(self) -> &'a HeaderMutations {
        match self {
            Self::Weighted(w) => &w.request_headers,
            Self::Route(r) => &r.request_headers,
            Self::VirtualHost(v) => &v.request_headers,
            Self::Table(t) => &t.request_headers,
        }
    }

    fn response(self) -> &'a HeaderMutations {
        match self {
            Self::Weighted(w) => &w.response_headers,
            Self::Route(r) => &r.response_headers,
            Self::VirtualHost(v) => &v.response_headers,
            Self::Table(t) => &t.response_headers,
        }
    }
}

/// Changes the request as the route says. `original_path` writes
/// `x-envoy-original-path` when the path changes.
pub fn request(
    matched: &RouteMatch,
    forward: &ForwardConfig,
    head: &mut RequestHead,
    info: &StreamInfo,
    original_path: bool,
) {
    for mutations in in_order(matched, Level::request) {
        header_mutation::apply_to_request(mutations, head, info);
    }
    rewrite_host(matched, forward, head, info);
    rewrite_path(matched, forward, head, original_path);
}

/// Changes the response as the route says.
pub fn response(
    matched: &RouteMatch,
    head: &mut ResponseHead,
    request: &RequestHead,
    info: &StreamInfo,
) {
    for mutations in in_order(matched, Level::response) {
        header_mutation::apply_to_response(mutations, head, request, info);
    }
}

fn rewrite_host(
    matched: &RouteMatch,
    forward: &ForwardConfig,
    head: &mut RequestHead,
    info: &StreamInfo,
) {
    let weighted = matched
        .weighted_cluster()
        .and_then(|w| w.host_rewrite_literal.as_ref());
    let new = match (&forward.host_rewrite, weighted) {
        (_, Some(host)) => Some(Bytes::copy_from_slice(host.as_bytes())),
        (HostRewrite::Literal(host), None) => Some(Bytes::copy_from_slice(host.as_bytes())),
        (HostRewrite::Header(name), None) => {
            let value = head.headers.get_bytes(name).filter(|v| !v.is_empty());
            value.map(Bytes::copy_from_slice)
        }
        (HostRewrite::PathRegex(rewrite), None) => {
            Some(Bytes::from(substitute(rewrite, head.path_only())))
        }
        (HostRewrite::Format(format), None) => {
            let mut out = Vec::new();
            let context = FormatContext {
                request: Some(head),
                ..FormatContext::new(info)
            };
            format.append_to(&mut out, &context);
            Some(Bytes::from(out))
        }
        (HostRewrite::Auto | HostRewrite::None, None) => None,
    };
    if let Some(new) = new {
        set_authority(
            head,
            new,
            forward.append_x_forwarded_host,
            weighted.is_none(),
        );
    }
}

/// Sets a new authority. The old one goes to `x-envoy-original-host` where
/// `keep_original`, and to `x-forwarded-host` where asked.
pub fn set_authority(
    head: &mut RequestHead,
    new: Bytes,
    append_forwarded: bool,
    keep_original: bool,
) {
    let old = head.authority.replace(new).unwrap_or_default();
    if head.authority.as_ref() == Some(&old) || old.is_empty() {
        return;
    }
    if keep_original
        && !head.headers.contains(&names::X_ENVOY_ORIGINAL_HOST)
        && let Ok(value) = HeaderValue::from_bytes(&old)
    {
        head.headers.set(names::X_ENVOY_ORIGINAL_HOST, value);
    }
    if append_forwarded {
        append_comma_separated(&mut head.headers, &old);
    }
}

fn append_comma_separated(headers: &mut Headers, value: &[u8]) {
    let mut all = headers
        .joined(&names::X_FORWARDED_HOST)
        .map(|v| v.into_owned())
        .unwrap_or_default();
    if !all.is_empty() {
        all.push(b',');
    }
    all.extend_from_slice(value);
    if let Ok(value) = HeaderValue::from_bytes(&all) {
        headers.set(names::X_FORWARDED_HOST, value);
    }
}

fn rewrite_path(
    matched: &RouteMatch,
    forward: &ForwardConfig,
    head: &mut RequestHead,
    original_path: bool,
) {
    let path = head.path_only();
    let new = if let Some(prefix) = &forward.prefix_rewrite {
        let Some(length) = matched_length(matched, path) else {
            return;
        };
        [prefix.as_bytes(), &path[length..]].concat()
    } else if let Some(rewrite) = &forward.regex_rewrite {
        match substitute(rewrite, path) {
            // As in Envoy, a request is not left without a path.
            new if new.is_empty() => return,
            new => new,
        }
    } else {
        return;
    };
    let rest = &head.path[path.len()..];
    let new = Bytes::from([&new, rest].concat());
    if original_path && let Ok(old) = HeaderValue::from_bytes(&head.path) {
        head.headers.set(names::X_ENVOY_ORIGINAL_PATH, old);
    }
    head.path = new;
}

/// Length of what the route's path matched, which a prefix rewrite replaces.
pub fn matched_length(matched: &RouteMatch, path: &[u8]) -> Option<usize> {
    match &matched.route.as_ref()?.matches.path {
        PathMatchConfig::Prefix(prefix) | PathMatchConfig::PathSeparatedPrefix(prefix) => {
            Some(prefix.len().min(path.len()))
        }
        PathMatchConfig::Exact(_) | PathMatchConfig::Regex(_) | PathMatchConfig::Connect => {
            Some(path.len())
        }
    }
}

/// The path after a regex rewrite.
pub fn substitute(rewrite: &RegexRewrite, path: &[u8]) -> Vec<u8> {
    rewrite
        .pattern
        .replace_all(path, &rewrite.substitution)
        .into_owned()
}
