//! Fields that the configuration adds and removes.

use bytes::Bytes;
use outrigger::http::header_mutation::{apply_to_request, apply_to_response};
use outrigger_config::convert;
use outrigger_types::{HeaderName, HeaderValue, Method, RequestHead, ResponseHead, StatusCode};
use serde_json::{Value, json};
use xds_api::json::from_json;

use crate::bytes::first;
use crate::config::context;
use crate::stream::info;

const ACTIONS: [&str; 4] = [
    "APPEND_IF_EXISTS_OR_ADD",
    "ADD_IF_ABSENT",
    "OVERWRITE_IF_EXISTS_OR_ADD",
    "OVERWRITE_IF_EXISTS",
];

/// A byte of options, then lines: `name: value` is added, `-name` removed.
pub(crate) fn header_values(data: &[u8]) {
    let (flags, text) = first(data);
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    let config = configuration(flags, text);
    let Ok(message) = from_json("envoy.config.route.v3.RouteConfiguration", &config) else {
        return;
    };
    let Ok(table) = convert::route_table(&message.bytes, &context()) else {
        return;
    };
    let mut request = RequestHead::new(Method::GET, "/path?a=%20");
    request.authority = Some(Bytes::from_static(b"host"));
    let field = (HeaderName::from_static("x"), HeaderValue::from_static("1"));
    request.headers.append(field.0.clone(), field.1.clone());
    let before = request.clone();
    apply_to_request(&table.value.request_headers, &mut request, &info());
    let pseudo = |head: &RequestHead| {
        let RequestHead {
            method,
            path,
            authority,
            ..
        } = head;
        (method.clone(), path.clone(), authority.clone())
    };
    assert_eq!(pseudo(&request), pseudo(&before), "a pseudo-header changed");
    let mut response = ResponseHead::new(StatusCode::OK);
    response.headers.append(field.0, field.1);
    let mutations = &table.value.response_headers;
    apply_to_response(mutations, &mut response, &request, &info());
    assert_eq!(response.status, StatusCode::OK);
    for (name, value) in request.headers.iter().chain(response.headers.iter()) {
        assert_ne!(name, "host", "the authority by another name");
        let safe = |b: &u8| !matches!(b, b'\r' | b'\n' | 0);
        assert!(value.as_bytes().iter().all(safe), "{name}: {value:?}");
    }
}

fn configuration(flags: u8, text: &str) -> Value {
    let mut added = Vec::new();
    let mut removed = Vec::new();
    for line in text.split('\n') {
        if let Some(name) = line.strip_prefix('-') {
            removed.push(name);
        } else if let Some((name, value)) = line.split_once(": ") {
            added.push(json!({
                "header": { "key": name, "value": value },
                "append_action": ACTIONS[usize::from(flags & 3)],
                "keep_empty_value": flags & 4 != 0,
            }));
        }
    }
    json!({
        "name": "r",
        "request_headers_to_add": added,
        "request_headers_to_remove": removed,
        "response_headers_to_add": added,
        "response_headers_to_remove": removed,
    })
}
