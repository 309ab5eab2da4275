//! Heads of `h2` as ours, and ours as `h2`'s: names and values are moved.

use bytes::{BufMut, Bytes, BytesMut};
use h2::{Reason, ext};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, Version};
use outrigger_types::{HeadKind, Headers, RequestHead, ResponseHead, Scheme, names};

use crate::http::codec::StreamError;

/// The fields in order; those of one name together, as `h2` keeps them.
pub(super) fn headers_in(map: HeaderMap) -> Headers {
    let mut headers = Headers::with_capacity(map.len() + 8);
    let mut last: Option<HeaderName> = None;
    for (name, value) in map {
        let name = match (name, &last) {
            (Some(name), _) => last.insert(name).clone(),
            (None, Some(name)) => name.clone(),
            (None, None) => continue,
        };
        headers.append(name, value);
    }
    headers
}

/// Fields that HTTP/2 does not know are left out, and so is a Host beside
/// `:authority`.
pub(super) fn headers_out(headers: Headers) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers {
        let forbidden = name == names::CONNECTION
            || name == names::TRANSFER_ENCODING
            || name == names::UPGRADE
            || name == names::KEEP_ALIVE
            || name == names::PROXY_CONNECTION
            || name == names::HOST
            || (name == names::TE && value != "trailers");
        if !forbidden {
            map.append(name, value);
        }
    }
    map
}

/// A request that came in.
pub(super) fn request_in<T>(request: Request<T>) -> (RequestHead, T) {
    let (mut parts, body) = request.into_parts();
    let uri = parts.uri.into_parts();
    let connect = parts.method == Method::CONNECT;
    let protocol = parts.extensions.remove::<ext::Protocol>();
    let mut head = RequestHead {
        method: parts.method,
        scheme: uri
            .scheme
            .map_or(Scheme::Http, |s| Scheme::from_bytes(s.as_str().as_bytes())),
        authority: uri.authority.map(authority_in),
        path: uri.path_and_query.map_or_else(
            || Bytes::from_static(if connect { b"" } else { b"/" }),
            |path| Bytes::copy_from_slice(path.as_str().as_bytes()),
        ),
        protocol: protocol.map(|p| Bytes::copy_from_slice(p.as_str().as_bytes())),
        headers: headers_in(parts.headers),
    };
    if let Some(host) = head.headers.get(&names::HOST).cloned() {
        head.headers.remove(&names::HOST);
        head.authority
            .get_or_insert_with(|| Bytes::copy_from_slice(host.as_bytes()));
    }
    join_cookies(&mut head.headers);
    head.headers.join_singles(HeadKind::Request);
    (head, body)
}

fn authority_in(authority: Authority) -> Bytes {
    Bytes::copy_from_slice(authority.as_str().as_bytes())
}

/// Cookies that HTTP/2 sent in crumbs become one field, as RFC 9113 8.2.3 asks.
fn join_cookies(headers: &mut Headers) {
    if headers.get_all(&names::COOKIE).nth(1).is_none() {
        return;
    }
    let mut all = BytesMut::new();
    for crumb in headers.get_all(&names::COOKIE) {
        if !all.is_empty() {
            all.put_slice(b"; ");
        }
        all.put_slice(crumb.as_bytes());
    }
    if let Ok(joined) = HeaderValue::from_maybe_shared(all.freeze()) {
        headers.set(names::COOKIE, joined);
    }
}

/// A request that goes out; one that asks for an upgrade is an extended CONNECT, which
/// has no length.
pub(super) fn request_out(head: RequestHead) -> Result<Request<()>, StreamError> {
    const INVALID: StreamError = StreamError::local("http2.invalid_header");
    let mut uri = http::uri::Parts::default();
    let plain_connect = head.method == Method::CONNECT && head.protocol.is_none();
    if let Some(authority) = head.authority.filter(|a| !a.is_empty()) {
        uri.authority = Some(Authority::from_maybe_shared(authority).map_err(|_| INVALID)?);
    }
    if !plain_connect {
        uri.path_and_query = Some(PathAndQuery::from_maybe_shared(head.path).map_err(|_| INVALID)?);
        if uri.authority.is_some() {
            uri.scheme = Some(scheme_out(&head.scheme)?);
        }
    }
    let mut request = Request::new(());
    *request.uri_mut() = Uri::from_parts(uri).map_err(|_| INVALID)?;
    *request.method_mut() = match head.protocol {
        Some(_) => Method::CONNECT,
        None => head.method,
    };
    // With HTTP/2 here `h2` would refuse a request without `:authority`.
    *request.version_mut() = Version::HTTP_11;
    *request.headers_mut() = headers_out(head.headers);
    if head.protocol.is_some() {
        request.headers_mut().remove(names::CONTENT_LENGTH);
    }
    if let Some(protocol) = head.protocol {
        let protocol = std::str::from_utf8(&protocol).map_err(|_| INVALID)?;
        request
            .extensions_mut()
            .insert(ext::Protocol::from(protocol));
    }
    Ok(request)
}

fn scheme_out(scheme: &Scheme) -> Result<http::uri::Scheme, StreamError> {
    match scheme {
        Scheme::Http => Ok(http::uri::Scheme::HTTP),
        Scheme::Https => Ok(http::uri::Scheme::HTTPS),
        Scheme::Other(other) => http::uri::Scheme::try_from(&other[..])
            .map_err(|_| StreamError::local("http2.invalid_header")),
    }
}

/// A response that came in.
pub(super) fn response_in<T>(response: Response<T>) -> (ResponseHead, T) {
    let (parts, body) = response.into_parts();
    let mut head = ResponseHead {
        status: parts.status,
        headers: headers_in(parts.headers),
    };
    head.headers.join_singles(HeadKind::Response);
    (head, body)
}

/// A response that goes out.
pub(super) fn response_out(head: ResponseHead) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = head.status;
    *response.version_mut() = Version::HTTP_2;
    *response.headers_mut() = headers_out(head.headers);
    response
}

/// The code that a reset of a head over the limits carries.
pub(super) const OVER_THE_LIMITS: Reason = Reason::INTERNAL_ERROR;
