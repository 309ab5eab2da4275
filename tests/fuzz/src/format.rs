//! Command operators.

use std::time::Duration;

use bytes::Bytes;
use outrigger_config::format::{Format, FormatContext, FormatOptions, JsonFormat};
use outrigger_types::{
    HeaderName, HeaderValue, Headers, Method, RequestHead, ResponseHead, StatusCode, StreamInfo,
};

use crate::bytes::first;
use crate::stream::info;

/// A byte of options, then the format: as text, and as a member of a JSON format.
pub(crate) fn format(data: &[u8]) {
    let (flags, text) = first(data);
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    let options = FormatOptions {
        omit_empty_values: flags & 1 != 0,
        req_without_query: flags & 2 != 0,
    };
    let parsed = Format::parse(text, &options);
    assert_eq!(parsed, Format::parse(text, &options), "parsed twice");
    match &parsed {
        Ok(format) => {
            assert_eq!(format.as_str(), text);
            let rendered = with_stream(flags, |context| {
                let mut out = b"before".to_vec();
                format.append_to(&mut out, context);
                assert!(out.starts_with(b"before"));
                out.split_off(6)
            });
            if !text.contains('%') {
                assert_eq!(rendered, text.as_bytes());
            }
            if let Some(literal) = format.as_literal() {
                assert_eq!(rendered, literal.as_bytes());
            }
        }
        Err(error) => assert!(!error.is_empty(), "an error that says nothing"),
    }
    as_json(text, &options, flags, parsed.is_ok());
}

/// What a JSON format writes is one line of JSON, whatever the fields hold.
fn as_json(text: &str, options: &FormatOptions, flags: u8, is_ok: bool) {
    let object = serde_json::json!({ text: text, "list": [text, { "k": text }] });
    let object = object.as_object().expect("an object");
    let format = JsonFormat::parse(object, options);
    assert_eq!(format.is_ok(), is_ok, "text and JSON differ");
    let Ok(format) = format else { return };
    let line = with_stream(flags, |context| {
        let mut out = Vec::new();
        format.append_to(&mut out, context);
        out
    });
    let line = String::from_utf8(line).expect("JSON is UTF-8");
    assert_eq!(line.find('\n'), Some(line.len() - 1), "{line:?}");
    let read: Result<serde_json::Value, _> = serde_json::from_str(&line);
    assert!(read.is_ok(), "{line:?}: {read:?}");
}

/// Renders for a stream about which nothing is known, or nearly everything.
fn with_stream<T>(flags: u8, render: impl FnOnce(&FormatContext<'_>) -> T) -> T {
    let mut info = info();
    if flags & 4 == 0 {
        return render(&FormatContext::new(&info));
    }
    fill(&mut info);
    let mut request = RequestHead::new(Method::GET, "/path?query=\"1\"");
    request.authority = Some(Bytes::from_static(b"host"));
    request.headers = fields();
    let mut response = ResponseHead::new(StatusCode::OK);
    response.headers = fields();
    render(&FormatContext {
        request: Some(&request),
        response: Some(&response),
        trailers: Some(&response.headers),
        local_reply_body: b"said \"so\"\n\xff",
        ..FormatContext::new(&info)
    })
}

/// Values that JSON has to escape, and one that is no UTF-8.
fn fields() -> Headers {
    [("a", &b"\"\\\t"[..]), ("b", b"\xffx\xc3\xa9"), ("c", b"")]
        .into_iter()
        .map(|(name, value)| {
            let value = HeaderValue::from_bytes(value).expect("a value");
            (HeaderName::from_static(name), value)
        })
        .collect()
}

fn fill(info: &mut StreamInfo) {
    let time = Some(Duration::from_micros(1_234_567));
    info.times.last_downstream_rx = time;
    info.times.first_upstream_tx = time;
    info.times.last_downstream_tx = time;
    info.response_code = Some(200);
    info.response_code_details = Some("via \"upstream\"".into());
    info.bytes_received = u64::MAX;
    info.upstream.cluster = Some("cluster".into());
    info.upstream.hostname = Some("host\"name".into());
    info.upstream.attempted = vec![info.downstream_remote.clone()];
    info.upstream.host = Some(info.downstream_remote.clone());
    info.request_id = Some("id".into());
}
