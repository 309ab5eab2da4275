//! Writing of heads: names in lower case (or proper case), in the order in
//! which they stand, and the framing that Envoy chooses.

use bytes::{BufMut, BytesMut};
use http::{HeaderName, Method};
use outrigger_types::{Headers, RequestHead, ResponseHead, StatusCode, names};

use super::head::Asked;
use super::options::HeaderCase;

/// What delimits the body that is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outgoing {
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked,
    /// The end of the connection.
    UntilClose,
    /// No message any more.
    Raw,
    /// The message can have no body: bytes of one are dropped.
    Discard,
}

/// What the connection adds to a response's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ResponseContext {
    pub(super) asked: Asked,
    pub(super) http_10: bool,
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    pub(super) case: HeaderCase,
}

/// Writes the fields, without those that belong to the framing.
pub(super) fn fields(out: &mut BytesMut, headers: &Headers, case: HeaderCase) {
    for (name, value) in headers.iter() {
        if *name != names::TRANSFER_ENCODING {
            field(out, name, value.as_bytes(), case);
        }
    }
}

fn field(out: &mut BytesMut, name: &HeaderName, value: &[u8], case: HeaderCase) {
    let name = name.as_str().as_bytes();
    out.reserve(name.len() + value.len() + 4);
    match case {
        HeaderCase::Lower => out.put_slice(name),
        HeaderCase::Proper => proper_case(out, name),
    }
    out.put_slice(b": ");
    out.put_slice(value);
    out.put_slice(b"\r\n");
}

/// The first letter, and each after a byte that is no letter or digit.
fn proper_case(out: &mut BytesMut, name: &[u8]) {
    let mut starts = true;
    for byte in name {
        out.put_u8(match starts {
            true => byte.to_ascii_uppercase(),
            false => *byte,
        });
        starts = !byte.is_ascii_alphanumeric();
    }
}

fn declared_length(headers: &Headers) -> Option<u64> {
    let value = headers.get_bytes(&names::CONTENT_LENGTH)?;
    std::str::from_utf8(value).ok()?.trim().parse().ok()
}

/// Writes the head of a response; says what its body is to look like.
pub(super) fn response(
    out: &mut BytesMut,
    head: &ResponseHead,
    end_stream: bool,
    context: ResponseContext,
) -> Outgoing {
    let ResponseContext { asked, case, .. } = context;
    status_line(out, head.status, context.http_10);
    fields(out, &head.headers, case);
    if !head.headers.contains(&names::CONNECTION) {
        if context.close {
            field(out, &names::CONNECTION, b"close", case);
        } else if context.keep_alive {
            field(out, &names::CONNECTION, b"keep-alive", case);
        }
    }
    let framing = response_framing(out, head, end_stream, context);
    out.put_slice(b"\r\n");
    match framing {
        Outgoing::Raw => Outgoing::Raw,
        _ if asked.head => Outgoing::Discard,
        framing => framing,
    }
}

fn response_framing(
    out: &mut BytesMut,
    head: &ResponseHead,
    end_stream: bool,
    context: ResponseContext,
) -> Outgoing {
    let ResponseContext { asked, case, .. } = context;
    let status = head.status;
    if asked.is_tunnel(status) {
        return Outgoing::Raw;
    }
    if status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED
    {
        return Outgoing::Discard;
    }
    if let Some(length) = declared_length(&head.headers) {
        return Outgoing::Length(length);
    }
    if end_stream && !asked.head {
        field(out, &names::CONTENT_LENGTH, b"0", case);
        return Outgoing::Length(0);
    }
    if context.http_10 {
        return Outgoing::UntilClose;
    }
    field(out, &names::TRANSFER_ENCODING, b"chunked", case);
    Outgoing::Chunked
}

/// Envoy writes its own reason phrase, `Unknown` where it has none.
fn status_line(out: &mut BytesMut, status: StatusCode, http_10: bool) {
    let reason = match status {
        StatusCode::PROCESSING | StatusCode::EARLY_HINTS | StatusCode::IM_A_TEAPOT => "Unknown",
        last if last.as_u16() == 599 => "Last Unassigned Server Error Code",
        known => known.canonical_reason().unwrap_or("Unknown"),
    };
    out.reserve(256);
    out.put_slice(match http_10 {
        true => b"HTTP/1.0 ",
        false => b"HTTP/1.1 ",
    });
    out.put_slice(status.as_str().as_bytes());
    out.put_u8(b' ');
    out.put_slice(reason.as_bytes());
    out.put_slice(b"\r\n");
}

/// Writes the head of a request; says what its body is to look like.
pub(super) fn request(
    out: &mut BytesMut,
    head: &RequestHead,
    end_stream: bool,
    absolute: bool,
    case: HeaderCase,
) -> Outgoing {
    out.reserve(256);
    out.put_slice(head.method.as_str().as_bytes());
    out.put_u8(b' ');
    if head.method == Method::CONNECT {
        out.put_slice(head.authority_bytes());
    } else {
        if absolute {
            out.put_slice(head.scheme.as_bytes());
            out.put_slice(b"://");
            out.put_slice(head.authority_bytes());
        }
        out.put_slice(&head.path);
    }
    out.put_slice(b" HTTP/1.1\r\n");
    if let Some(authority) = &head.authority {
        field(out, &names::HOST, authority, case);
    }
    fields(out, &head.headers, case);
    let framing = request_framing(out, head, end_stream, case);
    out.put_slice(b"\r\n");
    framing
}

fn request_framing(
    out: &mut BytesMut,
    head: &RequestHead,
    end_stream: bool,
    case: HeaderCase,
) -> Outgoing {
    if head.method == Method::CONNECT || head.protocol.is_some() {
        return Outgoing::Raw;
    }
    if let Some(length) = declared_length(&head.headers) {
        return Outgoing::Length(length);
    }
    if !end_stream {
        field(out, &names::TRANSFER_ENCODING, b"chunked", case);
        return Outgoing::Chunked;
    }
    if !matches!(
        head.method,
        Method::GET | Method::HEAD | Method::DELETE | Method::TRACE
    ) {
        field(out, &names::CONTENT_LENGTH, b"0", case);
    }
    Outgoing::Length(0)
}
