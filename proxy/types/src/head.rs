//! The head of a request or a response: pseudo-headers apart from the fields.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderName, Method, StatusCode};

use crate::Headers;

/// Version of HTTP that a stream speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
    /// HTTP/2
    Http2,
}

impl Protocol {
    /// As `%PROTOCOL%` prints it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
        }
    }
}

/// `:scheme`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Scheme {
    /// `http`
    #[default]
    Http,
    /// `https`
    Https,
    /// Anything else that a peer wrote.
    Other(Bytes),
}

impl Scheme {
    /// The bytes on the wire.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Http => b"http",
            Self::Https => b"https",
            Self::Other(other) => other,
        }
    }

    /// Reads the bytes on the wire; case is ignored for the two known ones.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        if bytes.eq_ignore_ascii_case(b"http") {
            Self::Http
        } else if bytes.eq_ignore_ascii_case(b"https") {
            Self::Https
        } else {
            Self::Other(Bytes::copy_from_slice(bytes))
        }
    }
}

/// The head of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// `:method`
    pub method: Method,
    /// `:scheme`; for HTTP/1 what the transport is, or an absolute URL said.
    pub scheme: Scheme,
    /// `:authority`, or `Host` of HTTP/1 (never among the fields). Absent and
    /// empty are not the same.
    pub authority: Option<Bytes>,
    /// `:path` with the query. Empty for CONNECT without one.
    pub path: Bytes,
    /// `:protocol` of an extended CONNECT, or the value of `Upgrade` of an
    /// HTTP/1 upgrade that was accepted.
    pub protocol: Option<Bytes>,
    /// The fields.
    pub headers: Headers,
}

impl RequestHead {
    /// A head with nothing but method and path.
    pub fn new(method: Method, path: impl Into<Bytes>) -> Self {
        Self {
            method,
            scheme: Scheme::Http,
            authority: None,
            path: path.into(),
            protocol: None,
            headers: Headers::new(),
        }
    }

    /// The path without query and fragment.
    pub fn path_only(&self) -> &[u8] {
        let end = self.path.iter().position(|b| matches!(b, b'?' | b'#'));
        &self.path[..end.unwrap_or(self.path.len())]
    }

    /// What follows `?`, without the fragment; none if there is no `?`.
    pub fn query(&self) -> Option<&[u8]> {
        let at = self.path.iter().position(|b| *b == b'?')?;
        let query = &self.path[at + 1..];
        let end = query.iter().position(|b| *b == b'#');
        Some(&query[..end.unwrap_or(query.len())])
    }

    /// `:authority` as bytes, empty when absent.
    pub fn authority_bytes(&self) -> &[u8] {
        self.authority.as_deref().unwrap_or_default()
    }

    /// Whether the content type is gRPC's (`application/grpc`, alone or
    /// followed by `+` or `;`), as Envoy decides it: gRPC-Web is not gRPC.
    pub fn is_grpc(&self) -> bool {
        is_grpc_content_type(&self.headers)
    }

    /// Bytes of names and values, pseudo-headers included.
    pub fn byte_size(&self) -> usize {
        self.headers.byte_size()
            + ":method".len()
            + self.method.as_str().len()
            + ":scheme".len()
            + self.scheme.as_bytes().len()
            + self
                .authority
                .as_ref()
                .map_or(0, |a| ":authority".len() + a.len())
            + ":path".len()
            + self.path.len()
    }

    /// How many fields the head has, the pseudo-headers among them.
    pub fn field_count(&self) -> usize {
        self.headers.len() + 3 + usize::from(self.authority.is_some())
    }
}

/// The head of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseHead {
    /// `:status`
    pub status: StatusCode,
    /// The fields.
    pub headers: Headers,
}

impl ResponseHead {
    /// A head with nothing but a status.
    pub fn new(status: StatusCode) -> Self {
        Self {
            status,
            headers: Headers::new(),
        }
    }

    /// Whether the content type is gRPC's.
    pub fn is_grpc(&self) -> bool {
        is_grpc_content_type(&self.headers)
    }

    /// Bytes of names and values, `:status` included.
    pub fn byte_size(&self) -> usize {
        self.headers.byte_size() + ":status".len() + 3
    }

    /// How many fields the head has, `:status` among them.
    pub fn field_count(&self) -> usize {
        self.headers.len() + 1
    }
}

fn is_grpc_content_type(headers: &Headers) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    headers
        .get_bytes(&http::header::CONTENT_TYPE)
        .is_some_and(|value| {
            value.starts_with(GRPC) && matches!(value.get(GRPC.len()), None | Some(b'+'))
        })
}

/// A header name as configuration writes it: a pseudo-header or a field.
///
/// `host` means `:authority`, as it does in Envoy's configuration.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HeaderKey {
    /// `:method`
    Method,
    /// `:scheme`
    Scheme,
    /// `:authority` or `host`
    Authority,
    /// `:path`
    Path,
    /// `:protocol`
    Protocol,
    /// `:status`
    Status,
    /// A field.
    Field(HeaderName),
}

impl HeaderKey {
    /// Reads a configured name; none if it is no valid header name.
    pub fn parse(text: &str) -> Option<Self> {
        let lower = text.to_ascii_lowercase();
        Some(match lower.as_str() {
            ":method" => Self::Method,
            ":scheme" => Self::Scheme,
            ":authority" | "host" => Self::Authority,
            ":path" => Self::Path,
            ":protocol" => Self::Protocol,
            ":status" => Self::Status,
            field => Self::Field(HeaderName::from_bytes(field.as_bytes()).ok()?),
        })
    }

    /// The name as it is written on the HTTP/2 wire.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Method => ":method",
            Self::Scheme => ":scheme",
            Self::Authority => ":authority",
            Self::Path => ":path",
            Self::Protocol => ":protocol",
            Self::Status => ":status",
            Self::Field(name) => name.as_str(),
        }
    }

    /// The value in a request; several fields are joined by `,`.
    pub fn in_request<'a>(&self, head: &'a RequestHead) -> Option<Cow<'a, [u8]>> {
        match self {
            Self::Method => Some(head.method.as_str().as_bytes().into()),
            Self::Scheme => Some(head.scheme.as_bytes().into()),
            Self::Authority => head.authority.as_deref().map(Cow::Borrowed),
            Self::Path if head.path.is_empty() => None,
            Self::Path => Some((&*head.path).into()),
            Self::Protocol => head.protocol.as_deref().map(Cow::Borrowed),
            Self::Status => None,
            Self::Field(name) => head.headers.joined(name),
        }
    }

    /// The value in a response; several fields are joined by `,`.
    pub fn in_response<'a>(&self, head: &'a ResponseHead) -> Option<Cow<'a, [u8]>> {
        match self {
            Self::Status => Some(head.status.as_str().as_bytes().to_vec().into()),
            Self::Field(name) => head.headers.joined(name),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn splits_path_query_and_fragment() {
        let head = RequestHead::new(Method::GET, "/a/b?c=d#e");
        assert_eq!(head.path_only(), b"/a/b");
        assert_eq!(head.query(), Some(&b"c=d"[..]));
        assert_eq!(RequestHead::new(Method::GET, "/a").query(), None);
    }

    #[test]
    fn grpc_web_is_not_grpc() {
        for (value, grpc) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;x=y", false),
            ("application/grpc-web", false),
            ("application/json", false),
        ] {
            let mut head = RequestHead::new(Method::POST, "/");
            head.headers
                .append(http::header::CONTENT_TYPE, HeaderValue::from_static(value));
            assert_eq!(head.is_grpc(), grpc, "{value}");
        }
    }

    #[test]
    fn host_in_configuration_means_authority() {
        assert_eq!(HeaderKey::parse("Host"), Some(HeaderKey::Authority));
        assert_eq!(HeaderKey::parse("bad name"), None);
    }
}
