//! The operators: which there are, what they take, how they are evaluated.

use outrigger_types::{Address, HeaderKey};

use super::coalesce::Coalesce;
use super::duration::CommonDuration;
use super::filter_state;
use super::header::{self, Alternatives, Source};
use super::metadata::{Owner, Path};
use super::plain::{self, Plain};
use super::time::{Clock, TimeFormat};
use super::tls::{self, TlsOperator};
use super::value::Value;
use super::{FormatContext, FormatOptions};
use crate::cel::Expression;

/// An operator as it is written.
pub(super) struct Call<'a> {
    /// The name.
    pub(super) name: &'a str,
    /// What stands in the parentheses; empty if there are none.
    pub(super) params: &'a str,
    /// What stands after the colon.
    pub(super) max_length: Option<usize>,
}

/// A compiled operator.
#[derive(Debug)]
pub(super) struct Operator {
    kind: Kind,
    max_length: Option<usize>,
}

#[derive(Debug)]
enum Kind {
    Plain(Plain),
    Tls(TlsOperator),
    /// The same for every stream.
    Constant(Box<str>),
    Field(Alternatives, Source),
    Time(Clock, TimeFormat),
    CommonDuration(CommonDuration),
    Metadata(Path),
    FilterState(filter_state::Key),
    UpstreamFilterState(filter_state::Key),
    GrpcStatus(GrpcStatusFormat),
    Details {
        keep_whitespace: bool,
    },
    Path {
        with_query: bool,
        origin: Origin,
    },
    QueryParameter(Box<str>),
    QueryParameters {
        decoded: bool,
    },
    ServerName {
        order: NameOrder,
        origin: Origin,
    },
    MaskedAddress(fn(&FormatContext<'_>) -> Option<Address>, Option<i32>),
    Coalesce(Coalesce),
    Cel(Expression),
}

/// How `%GRPC_STATUS%` is written.
#[derive(Clone, Copy, Debug)]
enum GrpcStatusFormat {
    Camel,
    Snake,
    Number,
}

/// Whether the value from before rewriting is read.
#[derive(Clone, Copy, Debug)]
enum Origin {
    Original,
    Current,
    OriginalOrCurrent,
}

/// Which of SNI and host goes first.
#[derive(Clone, Copy, Debug)]
enum NameOrder {
    SniOnly,
    SniFirst,
    HostFirst,
}

impl Operator {
    /// Compiles a call.
    pub(super) fn build(call: &Call<'_>, options: &FormatOptions) -> Result<Self, String> {
        let plain = plain::find(call.name).map(Kind::Plain);
        let kind = match plain.or_else(|| tls::find(call.name).map(Kind::Tls)) {
            Some(kind) => {
                if !call.params.is_empty() || call.max_length.is_some() {
                    return Err(format!(
                        "{} does not take any parameters or length",
                        call.name
                    ));
                }
                kind
            }
            None => parameterized(call, options)?,
        };
        Ok(Self {
            kind,
            max_length: call.max_length,
        })
    }

    /// The length that text is cut to, in bytes.
    pub(super) fn max_length(&self) -> Option<usize> {
        self.max_length
    }

    /// The value, not cut.
    pub(super) fn evaluate<'a>(&'a self, context: &FormatContext<'a>) -> Value<'a> {
        let info = context.info;
        match &self.kind {
            Kind::Plain(plain) => plain.read(context),
            Kind::Tls(operator) => operator.read(context),
            Kind::Constant(text) => Value::bytes(text.as_bytes()),
            Kind::Field(names, source) => names.read(*source, context),
            Kind::Time(clock, format) => format.read(*clock, context),
            Kind::CommonDuration(duration) => Value::number(duration.read(info)),
            Kind::Metadata(path) => path.read(info),
            Kind::FilterState(key) => key.read(info),
            Kind::UpstreamFilterState(key) => key.read_upstream(info),
            Kind::GrpcStatus(format) => grpc_status(*format, context),
            Kind::Details { keep_whitespace } => details(context, *keep_whitespace),
            Kind::Path { with_query, origin } => path(context, *with_query, *origin),
            Kind::QueryParameter(name) => query_value(context, name),
            Kind::QueryParameters { decoded } => query(context, *decoded),
            Kind::ServerName { order, origin } => server_name(context, *order, *origin),
            Kind::MaskedAddress(read, mask) => masked(read(context), *mask),
            Kind::Coalesce(coalesce) => coalesce.read(context),
            Kind::Cel(expression) => match expression.print(context) {
                Some(text) => Value::owned(text),
                None => Value::Missing,
            },
        }
    }
}

/// Operators that take parameters or a length.
fn parameterized(call: &Call<'_>, options: &FormatOptions) -> Result<Kind, String> {
    if let Some(read) = plain::address(call.name) {
        no_length(call)?;
        return Ok(Kind::MaskedAddress(read, call.params.parse().ok()));
    }
    if let Some(kind) = field(call, options)? {
        return Ok(kind);
    }
    if let Some(clock) = Clock::parse(call.name) {
        no_length(call)?;
        return Ok(Kind::Time(clock, TimeFormat::parse(call.params, clock)?));
    }
    let params = call.params;
    Ok(match call.name {
        "COMMON_DURATION" => {
            no_length(call)?;
            Kind::CommonDuration(CommonDuration::parse(required(call)?)?)
        }
        "DYNAMIC_METADATA" => Kind::Metadata(Path::parse(Owner::Dynamic, required(call)?)),
        "CLUSTER_METADATA" => {
            no_length(call)?;
            Kind::Metadata(Path::parse(Owner::Cluster, required(call)?))
        }
        "UPSTREAM_METADATA" => {
            no_length(call)?;
            Kind::Metadata(Path::parse(Owner::UpstreamHost, required(call)?))
        }
        "METADATA" => Kind::Metadata(Path::parse_typed(params)?),
        "CEL" => Kind::Cel(Expression::parse(required(call)?)?),
        "FILTER_STATE" => Kind::FilterState(filter_state::Key::parse(params)?),
        "UPSTREAM_FILTER_STATE" => Kind::UpstreamFilterState(filter_state::Key::parse(params)?),
        "GRPC_STATUS" => {
            no_length(call)?;
            Kind::GrpcStatus(grpc_status_format(params)?)
        }
        "GRPC_STATUS_NUMBER" => {
            if !params.is_empty() || call.max_length.is_some() {
                return Err("GRPC_STATUS_NUMBER does not take any parameters or length".into());
            }
            Kind::GrpcStatus(GrpcStatusFormat::Number)
        }
        "RESPONSE_CODE_DETAILS" => {
            no_length(call)?;
            Kind::Details {
                keep_whitespace: params == "ALLOW_WHITESPACES",
            }
        }
        "ENVIRONMENT" => Kind::Constant(environment(required(call)?)),
        "PATH" => path_kind(params)?,
        "QUERY_PARAM" => Kind::QueryParameter(required(call)?.into()),
        "QUERY_PARAMS" => query_kind(params)?,
        "REQUESTED_SERVER_NAME" => {
            no_length(call)?;
            server_name_kind(params)?
        }
        "COALESCE" => Kind::Coalesce(Coalesce::parse(required(call)?, options)?),
        name => return Err(format!("Not supported field in StreamInfo: {name}")),
    })
}

/// Operators that read a field.
fn field(call: &Call<'_>, options: &FormatOptions) -> Result<Option<Kind>, String> {
    let source = match call.name {
        "REQ" | "REQUEST_HEADER" | "STREAM_INFO_REQ" => Source::Request,
        "RESP" | "RESPONSE_HEADER" => Source::Response,
        "TRAILER" | "RESPONSE_TRAILER" => Source::Trailers,
        "REQ_WITHOUT_QUERY" if options.req_without_query => Source::RequestWithoutQuery,
        _ => return Ok(None),
    };
    let names = match source {
        Source::RequestWithoutQuery => Alternatives::parse(call.params)?,
        _ => Alternatives::parse(required(call)?)?,
    };
    Ok(Some(Kind::Field(names, source)))
}

fn required<'a>(call: &Call<'a>) -> Result<&'a str, String> {
    if call.params.is_empty() {
        Err(format!("{} requires parameters", call.name))
    } else {
        Ok(call.params)
    }
}

fn no_length(call: &Call<'_>) -> Result<(), String> {
    match call.max_length {
        Some(_) => Err(format!(
            "{} does not allow length to be specified.",
            call.name
        )),
        None => Ok(()),
    }
}

fn environment(name: &str) -> Box<str> {
    match std::env::var(name) {
        Ok(value) if !value.is_empty() => value.into(),
        _ => "-".into(),
    }
}

fn path_kind(params: &str) -> Result<Kind, String> {
    let mut parts = params.split(':');
    Ok(Kind::Path {
        with_query: match parts.next().unwrap_or_default() {
            "" | "WQ" => true,
            "NQ" => false,
            other => {
                return Err(format!(
                    "Invalid PATH option: '{other}', only 'WQ'/'NQ' are allowed"
                ));
            }
        },
        origin: match parts.next().unwrap_or_default() {
            "" | "ORIG_OR_PATH" => Origin::OriginalOrCurrent,
            "ORIG" => Origin::Original,
            "PATH" => Origin::Current,
            other => {
                return Err(format!(
                    "Invalid PATH option: '{other}', only 'ORIG'/'PATH'/'ORIG_OR_PATH' are allowed"
                ));
            }
        },
    })
}

fn query_kind(params: &str) -> Result<Kind, String> {
    match params {
        "" | "ORIG" => Ok(Kind::QueryParameters { decoded: false }),
        "DECODED" => Ok(Kind::QueryParameters { decoded: true }),
        other => Err(format!(
            "Invalid QUERY_PARAMS option: '{other}', only 'ORIG'/'DECODED' are allowed"
        )),
    }
}

fn server_name_kind(params: &str) -> Result<Kind, String> {
    let mut parts = params.split(':');
    let invalid = |option: &str, allowed: &str| {
        format!("Invalid REQUESTED_SERVER_NAME option: '{option}', only {allowed} are allowed")
    };
    Ok(Kind::ServerName {
        order: match parts.next().unwrap_or_default() {
            "" | "SNI_ONLY" => NameOrder::SniOnly,
            "SNI_FIRST" => NameOrder::SniFirst,
            "HOST_FIRST" => NameOrder::HostFirst,
            other => return Err(invalid(other, "'SNI_ONLY'/'SNI_FIRST'/'HOST_FIRST'")),
        },
        origin: match parts.next().unwrap_or_default() {
            "" | "ORIG_OR_HOST" => Origin::OriginalOrCurrent,
            "ORIG" => Origin::Original,
            "HOST" => Origin::Current,
            other => return Err(invalid(other, "'ORIG_OR_HOST'/'HOST'/'ORIG'")),
        },
    })
}

fn grpc_status_format(params: &str) -> Result<GrpcStatusFormat, String> {
    match params {
        "" | "CAMEL_STRING" => Ok(GrpcStatusFormat::Camel),
        "SNAKE_STRING" => Ok(GrpcStatusFormat::Snake),
        "NUMBER" => Ok(GrpcStatusFormat::Number),
        other => Err(format!(
            "GrpcStatusFormatter only supports CAMEL_STRING, SNAKE_STRING or NUMBER. Got: {other}"
        )),
    }
}

/// Names of gRPC's statuses, as Envoy writes them.
const GRPC_STATUS_NAMES: [(&str, &str); 17] = [
    ("OK", "OK"),
    ("Canceled", "CANCELLED"),
    ("Unknown", "UNKNOWN"),
    ("InvalidArgument", "INVALID_ARGUMENT"),
    ("DeadlineExceeded", "DEADLINE_EXCEEDED"),
    ("NotFound", "NOT_FOUND"),
    ("AlreadyExists", "ALREADY_EXISTS"),
    ("PermissionDenied", "PERMISSION_DENIED"),
    ("ResourceExhausted", "RESOURCE_EXHAUSTED"),
    ("FailedPrecondition", "FAILED_PRECONDITION"),
    ("Aborted", "ABORTED"),
    ("OutOfRange", "OUT_OF_RANGE"),
    ("Unimplemented", "UNIMPLEMENTED"),
    ("Internal", "INTERNAL"),
    ("Unavailable", "UNAVAILABLE"),
    ("DataLoss", "DATA_LOSS"),
    ("Unauthenticated", "UNAUTHENTICATED"),
];

fn grpc_status<'a>(format: GrpcStatusFormat, context: &FormatContext<'a>) -> Value<'a> {
    let Some(status) = context.grpc_status() else {
        return Value::Missing;
    };
    let Some(number) = status else {
        return Value::bytes(b"-1");
    };
    let name = usize::try_from(number)
        .ok()
        .and_then(|at| GRPC_STATUS_NAMES.get(at));
    match (format, name) {
        (GrpcStatusFormat::Number, _) => Value::Number(number),
        (_, None) => Value::owned(number.to_string()),
        (GrpcStatusFormat::Camel, Some((camel, _))) => Value::bytes(camel.as_bytes()),
        (GrpcStatusFormat::Snake, Some((_, snake))) => Value::bytes(snake.as_bytes()),
    }
}

fn details<'a>(context: &FormatContext<'a>, keep_whitespace: bool) -> Value<'a> {
    let details = context.info.response_code_details.as_deref();
    if keep_whitespace {
        Value::opt(details)
    } else {
        plain::without_whitespace(details)
    }
}

fn original<'a>(context: &FormatContext<'a>, name: &http::HeaderName) -> Option<&'a [u8]> {
    context.request?.headers.get_bytes(name)
}

fn choose<'a>(
    origin: Origin,
    original: Option<&'a [u8]>,
    current: Option<&'a [u8]>,
) -> Option<&'a [u8]> {
    match origin {
        Origin::Original => original,
        Origin::Current => current,
        Origin::OriginalOrCurrent => original.or(current),
    }
}

fn path<'a>(context: &FormatContext<'a>, with_query: bool, origin: Origin) -> Value<'a> {
    let original = original(context, &outrigger_types::names::X_ENVOY_ORIGINAL_PATH);
    let current = context.request.map(|head| &*head.path);
    let Some(path) = choose(origin, original, current) else {
        return Value::Missing;
    };
    let query = path.iter().position(|b| *b == b'?').unwrap_or(path.len());
    Value::bytes(if with_query { path } else { &path[..query] })
}

/// The query of the path from before rewriting, if it was rewritten.
fn original_query<'a>(context: &FormatContext<'a>) -> Option<&'a [u8]> {
    let original = original(context, &outrigger_types::names::X_ENVOY_ORIGINAL_PATH);
    let path = original.or(context.request.map(|head| &*head.path))?;
    let at = path.iter().position(|b| *b == b'?')?;
    Some(&path[at + 1..])
}

fn query<'a>(context: &FormatContext<'a>, decoded: bool) -> Value<'a> {
    match original_query(context) {
        None => Value::Missing,
        Some(query) if decoded => Value::owned(decode_visible(query)),
        Some(query) => Value::bytes(query),
    }
}

fn query_value<'a>(context: &FormatContext<'a>, name: &str) -> Value<'a> {
    let Some(query) = original_query(context) else {
        return Value::Missing;
    };
    query
        .split(|b| *b == b'&')
        .map(|pair| {
            let end = pair.iter().position(|b| *b == b'=').unwrap_or(pair.len());
            (&pair[..end], pair.get(end + 1..).unwrap_or_default())
        })
        .find(|(key, _)| percent_decode(key) == name.as_bytes())
        .map_or(Value::Missing, |(_, value)| {
            Value::owned(percent_decode(value))
        })
}

/// The byte of a `%XX` at the start of `text`.
fn escaped(text: &[u8]) -> Option<u8> {
    let hex = |at: usize| text.get(at).and_then(|b| (*b as char).to_digit(16));
    u8::try_from(hex(1)? * 16 + hex(2)?).ok()
}

/// Turns `%XX` into its byte; what is no such escape stays.
fn percent_decode(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        match escaped(rest) {
            Some(decoded) if byte == b'%' => {
                out.push(decoded);
                rest = &rest[3..];
            }
            _ => {
                out.push(byte);
                rest = after;
            }
        }
    }
    out
}

/// Turns `%XX` into its byte if that is visible ASCII, as Envoy does to a whole
/// query: others stay, and a `%` that two letters follow is dropped.
fn decode_visible(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        let is_escape = byte == b'%' && rest.len() > 2;
        rest = after;
        match escaped_or_byte(byte, after) {
            Some(decoded) if is_escape && decoded.is_ascii_graphic() => {
                out.push(decoded);
                rest = &after[2..];
            }
            None if is_escape => {}
            _ => out.push(byte),
        }
    }
    out
}

fn escaped_or_byte(first: u8, after: &[u8]) -> Option<u8> {
    escaped(&[first, *after.first()?, *after.get(1)?])
}

fn server_name<'a>(context: &FormatContext<'a>, order: NameOrder, origin: Origin) -> Value<'a> {
    let sni = Some(context.info.connection.requested_server_name.as_bytes());
    let sni = sni.filter(|name| !name.is_empty());
    let host = || {
        let original = original(context, &outrigger_types::names::X_ENVOY_ORIGINAL_HOST);
        let current = context
            .request
            .and_then(|head| header::in_request(&HeaderKey::Authority, head));
        choose(origin, original, current)
    };
    let name = match order {
        NameOrder::SniOnly => sni,
        NameOrder::SniFirst => sni.or_else(host),
        NameOrder::HostFirst => host().or(sni),
    };
    name.map_or(Value::Missing, Value::bytes)
}

/// An address without its port; with a mask, the network in CIDR notation. A
/// mask that is too long counts as the longest one.
fn masked<'a>(address: Option<Address>, mask: Option<i32>) -> Value<'a> {
    let Some(address) = address else {
        return Value::Missing;
    };
    let (Some(ip), Some(mask)) = (address.ip(), mask) else {
        return Value::owned(plain::without_port(&address));
    };
    let Ok(mask) = u32::try_from(mask) else {
        return Value::bytes(b"");
    };
    let network = match ip {
        std::net::IpAddr::V4(ip) => {
            let mask = mask.min(32);
            let bits = u32::MAX.checked_shl(32 - mask).unwrap_or(0);
            format!("{}/{mask}", std::net::Ipv4Addr::from(u32::from(ip) & bits))
        }
        std::net::IpAddr::V6(ip) => {
            let mask = mask.min(128);
            let bits = u128::MAX.checked_shl(128 - mask).unwrap_or(0);
            format!("{}/{mask}", std::net::Ipv6Addr::from(u128::from(ip) & bits))
        }
    };
    Value::owned(network)
}
