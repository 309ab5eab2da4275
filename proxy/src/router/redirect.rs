//! Redirects that a route answers with.

use bytes::Bytes;
use outrigger_config::ir::{PathRedirect, RedirectConfig, SchemeRedirect};
use outrigger_types::{HeaderValue, RequestHead, StatusCode, names};

use super::matcher::{RouteMatch, without_port};
use super::rewrite::{matched_length, substitute};

/// Status and `location` of a redirect.
pub fn location(
    matched: &RouteMatch,
    redirect: &RedirectConfig,
    head: &RequestHead,
) -> (StatusCode, HeaderValue) {
    let scheme = request_scheme(head);
    let new_scheme: &[u8] = match &redirect.scheme {
        Some(SchemeRedirect::Https) => b"https",
        Some(SchemeRedirect::Scheme(scheme)) => scheme.as_bytes(),
        None => scheme,
    };
    let mut url = Vec::with_capacity(64);
    url.extend_from_slice(new_scheme);
    url.extend_from_slice(b"://");
    url.extend_from_slice(&host(redirect, head, scheme));
    url.extend_from_slice(&path(matched, redirect, head));
    let value = HeaderValue::from_bytes(&url).unwrap_or_else(|_| HeaderValue::from_static("/"));
    (redirect.status, value)
}

/// Where a virtual host that asks for TLS sends plain requests.
pub fn to_https(head: &RequestHead) -> (StatusCode, HeaderValue) {
    let url = [b"https://", head.authority_bytes(), &head.path].concat();
    let value = HeaderValue::from_bytes(&url).unwrap_or_else(|_| HeaderValue::from_static("/"));
    (StatusCode::MOVED_PERMANENTLY, value)
}

/// The request's own URL, which goes with a direct response that is a redirect
/// or says that something was created.
pub fn to_itself(head: &RequestHead) -> HeaderValue {
    let url = [
        request_scheme(head),
        b"://",
        head.authority_bytes(),
        &head.path,
    ]
    .concat();
    HeaderValue::from_bytes(&url).unwrap_or_else(|_| HeaderValue::from_static("/"))
}

fn request_scheme(head: &RequestHead) -> &[u8] {
    head.headers
        .get_bytes(&names::X_FORWARDED_PROTO)
        .unwrap_or_else(|| head.scheme.as_bytes())
}

/// The host with its port: a default port that no longer fits the scheme is
/// dropped, another stays unless the redirect names one.
fn host(redirect: &RedirectConfig, head: &RequestHead, scheme: &[u8]) -> Vec<u8> {
    let authority = match &redirect.host {
        Some(host) => host.as_bytes(),
        None => head.authority_bytes(),
    };
    if let Some(port) = redirect.port.filter(|p| *p != 0) {
        return [without_port(authority), format!(":{port}").as_bytes()].concat();
    }
    let bare = without_port(authority);
    let port = &authority[bare.len()..];
    let was_default =
        (scheme == b"http" && port == b":80") || (scheme == b"https" && port == b":443");
    if redirect.host.is_none() && redirect.scheme.is_some() && was_default {
        return bare.to_vec();
    }
    authority.to_vec()
}

/// The path with its query. It begins with a slash whatever the rewrite made, or it would go on
/// naming the host; one that the rewrite leaves nothing of stays as it was.
fn path(matched: &RouteMatch, redirect: &RedirectConfig, head: &RequestHead) -> Bytes {
    let old = head.path_only();
    let (new, own_query) = match &redirect.path {
        PathRedirect::Keep => (old.to_vec(), false),
        PathRedirect::Path(path) => (path.as_bytes().to_vec(), path.contains('?')),
        PathRedirect::Prefix(prefix) if prefix.is_empty() => (old.to_vec(), false),
        PathRedirect::Prefix(prefix) => {
            let length = matched_length(matched, old).unwrap_or(0);
            ([prefix.as_bytes(), &old[length..]].concat(), false)
        }
        PathRedirect::Regex(rewrite) => match substitute(rewrite, old) {
            new if new.is_empty() => (old.to_vec(), false),
            new => (new, false),
        },
    };
    let slash: &[u8] = if new.starts_with(b"/") { b"" } else { b"/" };
    let kept = match new.iter().position(|b| *b == b'?') {
        Some(at) if redirect.strip_query && !own_query => &new[..at],
        _ => &new[..],
    };
    match head.query() {
        Some(query) if !own_query && !redirect.strip_query => {
            [slash, kept, b"?", query].concat().into()
        }
        _ => [slash, kept].concat().into(),
    }
}
