//! What an expression may ask of a stream.

use std::borrow::Cow;

use outrigger_types::{Address, HeaderKey, HeaderName, StreamInfo, names};

use super::eval::Value;
use crate::format::FormatContext;

/// The fields of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fields {
    Request,
    Response,
    Trailers,
}

impl Fields {
    /// The fields that a path stands for.
    pub(super) fn find(path: &[String]) -> Option<Self> {
        let [message, part] = path else { return None };
        match (message.as_str(), part.as_str()) {
            ("request", "headers") => Some(Self::Request),
            ("response", "headers") => Some(Self::Response),
            ("response", "trailers") => Some(Self::Trailers),
            _ => None,
        }
    }

    /// The value of a field; several joined by commas.
    pub(super) fn get<'a>(self, key: &HeaderKey, cx: &FormatContext<'a>) -> Option<Cow<'a, str>> {
        let value = match (self, key) {
            (Self::Request, key) => key.in_request(cx.request?),
            (Self::Response, key) => key.in_response(cx.response?),
            (Self::Trailers, HeaderKey::Field(name)) => cx.trailers?.joined(name),
            (Self::Trailers, _) => None,
        };
        value.map(text)
    }
}

/// Bytes as text; what is none is replaced.
fn text(bytes: Cow<'_, [u8]>) -> Cow<'_, str> {
    match bytes {
        Cow::Borrowed(bytes) => String::from_utf8_lossy(bytes),
        Cow::Owned(bytes) => String::from_utf8_lossy(&bytes).into_owned().into(),
    }
}

/// Something that is known of a stream; none while it is not.
type Read = for<'a> fn(&FormatContext<'a>) -> Option<Value<'a>>;

/// One of the attributes.
#[derive(Clone, Copy)]
pub(super) struct Attribute {
    path: &'static str,
    read: Read,
}

impl std::fmt::Debug for Attribute {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.path)
    }
}

impl Attribute {
    /// The attribute of that path.
    pub(super) fn find(path: &str) -> Option<Self> {
        ATTRIBUTES.iter().copied().find(|known| known.path == path)
    }

    pub(super) fn read<'a>(&self, cx: &FormatContext<'a>) -> Option<Value<'a>> {
        (self.read)(cx)
    }
}

macro_rules! attributes {
    ($($path:literal: $read:expr,)*) => {
        const ATTRIBUTES: &[Attribute] = &[$(Attribute { path: $path, read: $read },)*];
    };
}

attributes! {
    "request.path": |cx| Fields::Request.get(&HeaderKey::Path, cx).map(Value::Text),
    "request.url_path": |cx| Some(of_bytes(cx.request?.path_only())),
    "request.query": |cx| {
        let query = cx.request?.query().unwrap_or_default();
        let end = query.iter().position(|b| *b == b'#').unwrap_or(query.len());
        Some(of_bytes(&query[..end]))
    },
    "request.host": |cx| Fields::Request.get(&HeaderKey::Authority, cx).map(Value::Text),
    "request.scheme": |cx| Fields::Request.get(&HeaderKey::Scheme, cx).map(Value::Text),
    "request.method": |cx| Fields::Request.get(&HeaderKey::Method, cx).map(Value::Text),
    "request.referer": |cx| of_field(cx, "referer"),
    "request.useragent": |cx| of_field(cx, "user-agent"),
    "request.id": |cx| of_field(cx, "x-request-id"),
    "request.protocol": |cx| Some(Value::Text(cx.info.protocol?.as_str().into())),
    "request.size": |cx| {
        let said = cx.request.and_then(|head| head.headers.get(&names::CONTENT_LENGTH));
        let said = said.and_then(|value| value.to_str().ok()?.parse().ok());
        Some(said.map_or_else(|| number(cx.info.bytes_received), Value::Int))
    },
    "response.code": |cx| cx.info.response_code.map(|code| Value::Int(code.into())),
    "response.code_details": |cx| {
        cx.info.response_code_details.as_deref().map(|text| Value::Text(text.into()))
    },
    "response.grpc_status": |cx| cx.grpc_status_or_mapped().map(number),
    "response.size": |cx| Some(number(cx.info.bytes_sent)),
    "connection.mtls": |cx| {
        let tls = cx.info.connection.tls();
        Some(Value::Bool(tls.is_some_and(|tls| tls.peer_leaf().is_some())))
    },
    "connection.requested_server_name": |cx| {
        let connection = &cx.info.connection;
        let of_tls = connection.tls().map(|tls| &*tls.sni);
        let name = of_tls.unwrap_or(&connection.requested_server_name);
        Some(Value::Text(name.into()))
    },
    "source.address": |cx| Some(address(&cx.info.downstream_remote)),
    "source.port": |cx| port(&cx.info.downstream_remote),
    "destination.address": |cx| Some(address(&cx.info.connection.local)),
    "destination.port": |cx| port(&cx.info.connection.local),
    "upstream.address": |cx| cx.info.upstream.host.as_ref().map(address),
    "upstream.port": |cx| port(cx.info.upstream.host.as_ref()?),
    "xds.cluster_name": |cx| shared(cx.info.upstream.cluster_raw.as_deref()),
    "xds.route_name": |cx| of_route(cx.info),
}

fn of_field<'a>(cx: &FormatContext<'a>, name: &'static str) -> Option<Value<'a>> {
    let key = HeaderKey::Field(HeaderName::from_static(name));
    Fields::Request.get(&key, cx).map(Value::Text)
}

fn of_bytes(bytes: &[u8]) -> Value<'_> {
    Value::Text(text(bytes.into()))
}

fn number(n: u64) -> Value<'static> {
    Value::Int(i64::try_from(n).unwrap_or(i64::MAX))
}

fn address(address: &Address) -> Value<'static> {
    Value::Text(address.to_string().into())
}

fn port(address: &Address) -> Option<Value<'static>> {
    let address = address.socket_addr()?;
    Some(Value::Int(address.port().into()))
}

fn shared(text: Option<&str>) -> Option<Value<'_>> {
    text.map(|text| Value::Text(text.into()))
}

/// The route's name, of a stream that has one.
fn of_route(info: &StreamInfo) -> Option<Value<'_>> {
    (info.route_resolutions > 0).then(|| Value::Text((&*info.route_name).into()))
}
