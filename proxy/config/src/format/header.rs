//! Operators that read a field of a head or of trailers.

use http::HeaderName;
use outrigger_types::{HeaderKey, Headers, RequestHead, ResponseHead};

use super::FormatContext;
use super::value::Value;

/// Where a field is looked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source {
    Request,
    Response,
    Trailers,
    /// The request, cut at the query.
    RequestWithoutQuery,
}

/// `X?Y`: a field and what is read when it is absent. A name that no message
/// can have is none.
#[derive(Debug)]
pub(super) struct Alternatives {
    main: Option<HeaderKey>,
    other: Option<HeaderKey>,
}

impl Alternatives {
    /// Reads `X?Y`.
    pub(super) fn parse(params: &str) -> Result<Self, String> {
        let mut names = params.split('?');
        let main = names.next().unwrap_or_default();
        let other = names.next().unwrap_or_default();
        if names.next().is_some() {
            return Err(format!(
                "More than 1 alternative header specified in token: {params}"
            ));
        }
        Ok(Self {
            main: key(main)?,
            other: key(other)?,
        })
    }

    /// The first value of the first of the two that is there.
    pub(super) fn read<'a>(&self, source: Source, context: &FormatContext<'a>) -> Value<'a> {
        let found = [&self.main, &self.other]
            .into_iter()
            .flatten()
            .find_map(|key| look_up(key, source, context));
        match (found, source) {
            (None, _) => Value::Missing,
            (Some(value), Source::RequestWithoutQuery) => {
                let end = value.iter().position(|b| *b == b'?');
                Value::bytes(&value[..end.unwrap_or(value.len())])
            }
            (Some(value), _) => Value::bytes(value),
        }
    }
}

/// A name of the configuration: none if it is empty or an unknown
/// pseudo-header, which Envoy accepts and never finds.
fn key(name: &str) -> Result<Option<HeaderKey>, String> {
    let field = name.strip_prefix(':').unwrap_or(name);
    let valid = field.is_empty() || HeaderName::from_bytes(field.as_bytes()).is_ok();
    if valid {
        Ok(HeaderKey::parse(name))
    } else {
        Err("Invalid header configuration. Format string contains invalid characters.".into())
    }
}

fn look_up<'a>(key: &HeaderKey, source: Source, context: &FormatContext<'a>) -> Option<&'a [u8]> {
    match source {
        Source::Request | Source::RequestWithoutQuery => in_request(key, context.request?),
        Source::Response => in_response(key, context.response?),
        Source::Trailers => match key {
            HeaderKey::Field(name) => first(context.trailers?, name),
            _ => None,
        },
    }
}

/// The first value of a name in a request. Formats, unlike matchers, do not join
/// several fields.
pub(super) fn in_request<'a>(key: &HeaderKey, head: &'a RequestHead) -> Option<&'a [u8]> {
    match key {
        HeaderKey::Method => Some(head.method.as_str().as_bytes()),
        HeaderKey::Scheme => Some(head.scheme.as_bytes()),
        HeaderKey::Authority => head.authority.as_deref(),
        HeaderKey::Path => Some(&*head.path).filter(|path| !path.is_empty()),
        HeaderKey::Protocol => head.protocol.as_deref(),
        HeaderKey::Status => None,
        HeaderKey::Field(name) => first(&head.headers, name),
    }
}

fn in_response<'a>(key: &HeaderKey, head: &'a ResponseHead) -> Option<&'a [u8]> {
    match key {
        HeaderKey::Status => Some(head.status.as_str().as_bytes()),
        HeaderKey::Field(name) => first(&head.headers, name),
        _ => None,
    }
}

fn first<'a>(headers: &'a Headers, name: &HeaderName) -> Option<&'a [u8]> {
    headers.get_bytes(name)
}
