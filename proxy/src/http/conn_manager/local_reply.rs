//! Replies that the proxy makes itself: how they look, and those that stand for
//! a failed upstream.

use std::borrow::Cow;

use bytes::Bytes;
use filter_api::{LocalReply, RuntimeSnapshot};
use outrigger_config::format::FormatContext;
use outrigger_config::ir::{
    AppendAction, BodyFormat, BodyFormatContent, HeaderAdd, LocalReplyConfig, LocalReplyMapper,
};
use outrigger_types::{
    Details, HeaderKey, HeaderValue, Method, RequestHead, ResetReason, ResponseFlag, ResponseHead,
    StatusCode, StreamInfo, names,
};

use crate::access_log::accepts;

/// A reply as it is to be sent.
#[derive(Debug)]
pub struct Rendered {
    /// The head, `content-length` and `content-type` included.
    pub head: ResponseHead,
    /// The body; always empty for a gRPC caller.
    pub body: Bytes,
}

/// Makes a response of a reply: mapped as configured, and trailers-only for a
/// gRPC caller. `info` gets the status as it is before gRPC makes it a 200:
/// formats and access logs see it.
pub fn render(
    config: &LocalReplyConfig,
    reply: LocalReply,
    request: &RequestHead,
    info: &mut StreamInfo,
    runtime: &RuntimeSnapshot,
) -> Rendered {
    info.response_code = Some(reply.status.as_u16());
    let mut rendered = Rendered {
        head: ResponseHead::new(reply.status),
        body: reply.body,
    };
    rendered.head.headers = reply.headers;
    if reply.verbatim {
        return rendered;
    }
    let original = rendered.body.clone();
    let own_type = rendered.head.headers.get(&names::CONTENT_TYPE).cloned();
    let content_type = rewrite(config, &mut rendered, request, info, runtime);
    if info.is_grpc || request.is_grpc() {
        return to_grpc(rendered, reply.grpc_status, request.method == Method::HEAD);
    }
    let headers = &mut rendered.head.headers;
    if rendered.body.is_empty() {
        headers.remove(&names::CONTENT_LENGTH);
        headers.remove(&names::CONTENT_TYPE);
    } else {
        headers.set(
            names::CONTENT_LENGTH,
            HeaderValue::from(rendered.body.len()),
        );
        // What the reply said of its type holds for no other body, unless a mapper said it.
        let now = headers.get(&names::CONTENT_TYPE);
        if now.is_none() || rendered.body != original && now == own_type.as_ref() {
            let text = HeaderValue::from_static("text/plain");
            headers.set(names::CONTENT_TYPE, content_type.unwrap_or(text));
        }
    }
    rendered
}

/// Applies the first mapper that matches, then the format of the body. The
/// content type of the format, if there is one.
fn rewrite(
    config: &LocalReplyConfig,
    rendered: &mut Rendered,
    request: &RequestHead,
    info: &mut StreamInfo,
    runtime: &RuntimeSnapshot,
) -> Option<HeaderValue> {
    let mapper = {
        let context = context(&rendered.head, b"", request, info);
        let takes = |mapper: &&LocalReplyMapper| accepts(&mapper.filter, &context, runtime);
        config.mappers.iter().find(takes)
    };
    let mut format = config.body_format.as_ref();
    if let Some(mapper) = mapper {
        if let Some(body) = &mapper.body {
            rendered.body = Bytes::copy_from_slice(body);
        }
        for add in &mapper.headers_to_add {
            add_header(add, &mut rendered.head, request, info);
        }
        if let Some(status) = mapper.status {
            rendered.head.status = status;
            info.response_code = Some(status.as_u16());
        }
        format = mapper.body_format.as_ref().or(format);
    }
    format.map(|format| apply_format(format, rendered, request, info))
}

/// Makes the body of a reply by a format of its own.
pub fn format_body(
    reply: &mut LocalReply,
    format: &BodyFormat,
    request: &RequestHead,
    info: &StreamInfo,
) {
    let mut rendered = Rendered {
        head: ResponseHead::new(reply.status),
        body: std::mem::take(&mut reply.body),
    };
    let content_type = apply_format(format, &mut rendered, request, info);
    reply.body = rendered.body;
    // Plain text is what it is without a word.
    if format.content_type.is_some() || matches!(format.content, BodyFormatContent::Json(_)) {
        reply.headers.set(names::CONTENT_TYPE, content_type);
    }
}

fn context<'a>(
    head: &'a ResponseHead,
    body: &'a [u8],
    request: &'a RequestHead,
    info: &'a StreamInfo,
) -> FormatContext<'a> {
    FormatContext {
        request: Some(request),
        response: Some(head),
        local_reply_body: body,
        ..FormatContext::new(info)
    }
}

fn apply_format(
    format: &BodyFormat,
    rendered: &mut Rendered,
    request: &RequestHead,
    info: &StreamInfo,
) -> HeaderValue {
    let mut out = Vec::new();
    let context = context(&rendered.head, &rendered.body, request, info);
    let default = match &format.content {
        BodyFormatContent::Text(text) => {
            text.append_to(&mut out, &context);
            "text/plain"
        }
        BodyFormatContent::Json(json) => {
            json.append_to(&mut out, &context);
            "application/json"
        }
    };
    rendered.body = out.into();
    let configured = format
        .content_type
        .as_ref()
        .and_then(|t| HeaderValue::from_str(t).ok());
    configured.unwrap_or(HeaderValue::from_static(default))
}

fn add_header(add: &HeaderAdd, head: &mut ResponseHead, request: &RequestHead, info: &StreamInfo) {
    let HeaderKey::Field(name) = &add.key else {
        return;
    };
    let mut value = Vec::new();
    add.value
        .append_to(&mut value, &context(head, b"", request, info));
    if value.is_empty() && !add.keep_empty_value {
        return;
    }
    let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(value)) else {
        return;
    };
    let exists = head.headers.contains(name);
    match add.action {
        AppendAction::AppendIfExistsOrAdd => head.headers.append(name.clone(), value),
        AppendAction::AddIfAbsent if exists => {}
        AppendAction::OverwriteIfExists if !exists => {}
        AppendAction::AddIfAbsent
        | AppendAction::OverwriteIfExists
        | AppendAction::OverwriteIfExistsOrAdd => {
            head.headers.remove(name);
            head.headers.append(name.clone(), value);
        }
    }
}

fn to_grpc(mut rendered: Rendered, status: Option<u32>, is_head: bool) -> Rendered {
    let headers = &mut rendered.head.headers;
    headers.set(
        names::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    if headers
        .get(&names::GRPC_STATUS)
        .is_none_or(HeaderValue::is_empty)
    {
        let status = status.unwrap_or_else(|| grpc_status_of(rendered.head.status));
        headers.set(names::GRPC_STATUS, HeaderValue::from(status));
    }
    if !rendered.body.is_empty()
        && !is_head
        && let Ok(message) = HeaderValue::from_bytes(&percent_encoded(&rendered.body))
    {
        headers.set(names::GRPC_MESSAGE, message);
    }
    headers.remove(&names::CONTENT_LENGTH);
    rendered.head.status = StatusCode::OK;
    rendered.body = Bytes::new();
    rendered
}

/// The gRPC status that Envoy answers for an HTTP one.
fn grpc_status_of(status: StatusCode) -> u32 {
    match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

/// `grpc-message` as Envoy writes it.
fn percent_encoded(text: &[u8]) -> Cow<'_, [u8]> {
    let plain = |b: &u8| (b' '..b'~').contains(b) && *b != b'%';
    if text.iter().all(plain) {
        return text.into();
    }
    let mut out = Vec::with_capacity(text.len() + 16);
    for byte in text {
        if plain(byte) {
            out.push(*byte);
        } else {
            out.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
    out.into()
}

/// The flag of a reset by the upstream.
pub fn flag_of(reason: ResetReason) -> ResponseFlag {
    match reason {
        ResetReason::ConnectionFailure
        | ResetReason::LocalConnectionFailure
        | ResetReason::ConnectionTimeout => ResponseFlag::UpstreamConnectionFailure,
        ResetReason::ConnectionTermination | ResetReason::Http1PrematureUpstreamHalfClose => {
            ResponseFlag::UpstreamConnectionTermination
        }
        ResetReason::LocalReset | ResetReason::LocalRefusedStreamReset => ResponseFlag::LocalReset,
        ResetReason::RemoteReset
        | ResetReason::RemoteRefusedStreamReset
        | ResetReason::ConnectError => ResponseFlag::UpstreamRemoteReset,
        ResetReason::Overflow => ResponseFlag::UpstreamOverflow,
        ResetReason::ProtocolError => ResponseFlag::UpstreamProtocolError,
        ResetReason::OverloadManager => ResponseFlag::OverloadManager,
    }
}

/// The reply for an upstream that reset the stream before its response began.
/// `retried` says that it was not the first attempt; why the transport failed is
/// in the details alone. The caller sets the flag.
pub fn of_upstream_reset(
    reason: ResetReason,
    transport_failure: Option<&str>,
    retried: bool,
) -> LocalReply {
    let status = match reason {
        ResetReason::ProtocolError => StatusCode::BAD_GATEWAY,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    let why = transport_failure.unwrap_or_default();
    let mut body = String::from("upstream connect error or disconnect/reset before headers. ");
    if retried {
        body.push_str("retried and the latest ");
    }
    body.push_str("reset reason: ");
    body.push_str(reason.as_str());
    let details = reset_details("upstream_reset_before_response_started", reason, why);
    let mut reply = LocalReply::new(status, body, details);
    if reason == ResetReason::Overflow {
        reply
            .headers
            .append(names::X_ENVOY_OVERLOADED, HeaderValue::from_static("true"));
    }
    reply
}

/// The details of a reset by the upstream after its response had begun.
pub fn details_after_head(reason: ResetReason) -> Details {
    reset_details("upstream_reset_after_response_started", reason, "")
}

/// Details hold no white space.
fn reset_details(when: &str, reason: ResetReason, why: &str) -> Details {
    let bar = if why.is_empty() { "" } else { "|" };
    let text = format!("{when}{{{}{bar}{why}}}", reason.as_str());
    text.replace(|c: char| c.is_ascii_whitespace(), "_").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::conn_manager::request::tests::{info, request};

    fn rendered(content_type: &str, reply: LocalReply) -> Rendered {
        let request = request("/", &[("content-type", content_type)]);
        let config = LocalReplyConfig::default();
        render(
            &config,
            reply,
            &request,
            &mut info(),
            &RuntimeSnapshot::default(),
        )
    }

    #[test]
    fn grpc_callers_get_the_status_that_envoy_maps() {
        let table = [
            (200, "2"),
            (204, "2"),
            (307, "2"),
            (400, "13"),
            (401, "16"),
            (403, "7"),
            (404, "12"),
            (408, "2"),
            (413, "2"),
            (418, "2"),
            (429, "14"),
            (499, "2"),
            (500, "2"),
            (501, "2"),
            (502, "14"),
            (503, "14"),
            (504, "14"),
        ];
        for (status, expected) in table {
            let reply = LocalReply::new(
                StatusCode::from_u16(status).unwrap(),
                "b \u{e9}%~\n\tx",
                "d",
            );
            let out = rendered("application/grpc", reply);
            assert_eq!(out.head.status, StatusCode::OK);
            assert!(out.body.is_empty());
            let field = |name| {
                let value = out.head.headers.get_bytes(&name);
                String::from_utf8(value.unwrap().to_vec()).unwrap()
            };
            assert_eq!(field(names::GRPC_STATUS), expected, "{status}");
            assert_eq!(field(names::GRPC_MESSAGE), "b %C3%A9%25%7E%0A%09x");
            assert_eq!(field(names::CONTENT_TYPE), "application/grpc");
        }
        let reply = LocalReply::new(StatusCode::OK, "", "d").with_grpc_status(8);
        let out = rendered("application/grpc", reply);
        assert_eq!(
            out.head.headers.get_bytes(&names::GRPC_STATUS),
            Some(&b"8"[..])
        );
        assert!(!out.head.headers.contains(&names::GRPC_MESSAGE));
    }

    #[test]
    fn others_get_text_with_its_length_and_nothing_with_an_empty_body() {
        let out = rendered(
            "application/grpc-web",
            LocalReply::new(StatusCode::NOT_FOUND, "gone", "d"),
        );
        assert_eq!(
            (out.head.status, &out.body[..]),
            (StatusCode::NOT_FOUND, &b"gone"[..])
        );
        let fields: Vec<_> = out
            .head
            .headers
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_bytes()))
            .collect();
        assert_eq!(
            fields,
            [
                ("content-length", &b"4"[..]),
                ("content-type", &b"text/plain"[..])
            ]
        );
        let out = rendered(
            "text/plain",
            LocalReply::new(StatusCode::NOT_FOUND, "", "d"),
        );
        assert!(out.head.headers.is_empty());
    }

    #[test]
    fn a_reset_upstream_is_told_in_envoys_words() {
        let table = [
            (
                ResetReason::ConnectionTermination,
                503,
                "connection termination",
                ResponseFlag::UpstreamConnectionTermination,
            ),
            (
                ResetReason::ProtocolError,
                502,
                "protocol error",
                ResponseFlag::UpstreamProtocolError,
            ),
            (
                ResetReason::ConnectionFailure,
                503,
                "remote connection failure",
                ResponseFlag::UpstreamConnectionFailure,
            ),
            (
                ResetReason::Overflow,
                503,
                "overflow",
                ResponseFlag::UpstreamOverflow,
            ),
        ];
        for (reason, status, words, flag) in table {
            let reply = of_upstream_reset(reason, None, false);
            let body = format!(
                "upstream connect error or disconnect/reset before headers. reset reason: {words}"
            );
            assert_eq!(
                (reply.status.as_u16(), &reply.body[..]),
                (status, body.as_bytes())
            );
            let details = format!(
                "upstream_reset_before_response_started{{{}}}",
                words.replace(' ', "_")
            );
            assert_eq!(reply.details, details);
            assert_eq!(flag_of(reason), flag);
            assert_eq!(
                reply.headers.contains(&names::X_ENVOY_OVERLOADED),
                reason == ResetReason::Overflow
            );
        }
        let reply = of_upstream_reset(
            ResetReason::ConnectionFailure,
            Some("delayed connect error: Connection refused"),
            true,
        );
        assert!(
            reply.body.ends_with(
                b"headers. retried and the latest reset reason: remote connection failure"
            )
        );
        assert_eq!(
            reply.details,
            "upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused}"
        );
    }
}
