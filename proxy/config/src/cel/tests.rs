//! Expressions over a stream; `tests/parity/access_log/expressions.yaml` has Envoy's answers.

use std::sync::Arc;
use std::time::Instant;

use outrigger_types::{
    Address, ConnectionInfo, HeaderName, HeaderValue, Method, Protocol, RequestHead, ResponseHead,
    StatusCode, StreamInfo,
};
use proptest::prelude::*;

use super::*;

fn info() -> StreamInfo {
    let address = Address::Ip(([127, 0, 0, 1], 80).into());
    let connection = ConnectionInfo {
        id: 1,
        local: address.clone(),
        direct_local: address.clone(),
        local_restored: false,
        remote: address.clone(),
        direct_remote: address,
        requested_server_name: "".into(),
        tls: Default::default(),
        transport_failure: Default::default(),
        start: Instant::now(),
        listener_name: "l".into(),
        filter_chain_name: "".into(),
        listener_metadata: None,
        filter_chain_metadata: None,
        filter_state: Default::default(),
    };
    let mut info = StreamInfo::new(Arc::new(connection), "".into());
    info.protocol = Some(Protocol::Http11);
    info.response_code = Some(404);
    info.response_code_details = Some("via_upstream".into());
    info
}

fn holds(text: &str) -> bool {
    let expression = Expression::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    let mut request = RequestHead::new(Method::POST, "/a/b?c=d");
    request.authority = Some("host".into());
    let field = (
        HeaderName::from_static("x-a"),
        HeaderValue::from_static("1"),
    );
    request.headers.append(field.0.clone(), field.1.clone());
    request
        .headers
        .append(field.0, HeaderValue::from_static("2"));
    let response = ResponseHead::new(StatusCode::NOT_FOUND);
    let info = info();
    let mut context = FormatContext::new(&info);
    context.request = Some(&request);
    context.response = Some(&response);
    expression.holds(&context)
}

#[test]
fn what_holds() {
    for text in [
        "response.code >= 400",
        "response.code == 404 && request.method == 'POST'",
        "response.code in [400, 404]",
        "!(response.code < 400) || false",
        "request.headers['x-a'] == \"1,2\"",
        "request.headers.host == 'host' && 'x-a' in request.headers",
        "request.url_path.startsWith('/a') && request.path.endsWith('d')",
        "request.query.contains('c=') && request.query.size() == 3 && size(request.host) == 4",
        "has(request.headers.host) && !has(request.headers.referer)",
        "response.code == 404 ? true : response.code / 0 == 1",
        "1 + 2 * 3 - 4 / 2 == 5 && 7 % 4 == 3 && -1 < 0 && 1.5 < 2.0",
        "request.headers['x-b'] == 'a' || true",
        "true || request.headers['x-b'] == 'a'",
        "destination.port == 80 && source.address == '127.0.0.1:80'",
        "connection.mtls == false && request.protocol == 'HTTP/1.1'",
        "null == null && 'it\\'s' == \"it's\"",
    ] {
        assert!(holds(text), "{text}");
    }
}

#[test]
fn what_does_not_hold_or_has_no_value() {
    for text in [
        "response.code",
        "response.code < 400",
        "request.headers['x-b'] == 'a'",
        "request.headers['x-b'] != 'a'",
        "!(request.headers['x-b'] == 'a')",
        "true && request.headers['x-b'] == 'a'",
        "request.headers['x-b'] == 'a' && false",
        "response.code == '404'",
        "response.code < '500'",
        "response.trailers['t'] == ''",
        "xds.cluster_name == 'a'",
        "1 / 0 == 1",
        "9223372036854775807 + 1 > 0",
        "'a' + 'b' == 'ab'",
    ] {
        assert!(!holds(text), "{text}");
    }
}

#[test]
fn what_is_not_known_is_refused_by_name() {
    for (text, named) in [
        ("", "ends too early"),
        ("response.codes == 1", "response.codes"),
        (
            "metadata.filter_metadata['a'] == 1",
            "metadata.filter_metadata.a",
        ),
        ("request.path.matches('a')", "matches()"),
        ("int('1') == 1", "int()"),
        ("request.headers == 1", "request.headers"),
        ("request.headers[response.code] == 1", "only a text"),
        ("has(request.headers['x-a'])", "has()"),
        ("1u == 1", "1u"),
        ("0x1F == 31", "0x1F"),
        ("r'a' == 'a'", "r\"\""),
        ("{'a': 1}", "'{'"),
        ("response.code >= 400)", "unexpected"),
        ("'a", "does not end"),
        ("response.code # 1", "'#'"),
    ] {
        let error = Expression::parse(text).expect_err(text);
        assert!(error.contains(named), "{text}: {error}");
    }
}

#[test]
fn what_is_nested_too_deep_is_refused() {
    let deep = |n: usize| format!("{}true{}", "(".repeat(n), ")".repeat(n));
    assert!(holds(&deep(10)));
    assert!(Expression::parse(&deep(1000)).is_err());
    assert!(Expression::parse(&"!".repeat(100_000)).is_err());
    assert!(Expression::parse(&"true && ".repeat(10_000)).is_err());
}

proptest! {
    #[test]
    fn nothing_panics(text in "[a-z0-9.'\"()\\[\\]!&|=<>?:+*/%, -]{0,60}") {
        let _ = Expression::parse(&text);
    }
}

#[test]
fn doubles_may_have_exponents() {
    for text in [
        "1e3 == 1000.0",
        "2.5e-1 == 0.25",
        "1E+2 == 100.0",
        "1e1-5.0 == 5.0",
    ] {
        assert!(Expression::parse(text).is_ok(), "{text}");
    }
    for text in ["1e", "1e+", "0x1e", "1.5x"] {
        assert!(Expression::parse(text).is_err(), "{text}");
    }
}

#[test]
fn doubles_have_six_digits() {
    for (n, text) in [
        (0.0, "0"),
        (1.5, "1.5"),
        (2.0, "2"),
        (0.1, "0.1"),
        (-0.000_12, "-0.00012"),
        (0.000_012, "1.2e-05"),
        (123_456.0, "123456"),
        (1_234_567.0, "1.23457e+06"),
        (999_999.5, "1e+06"),
        (1e20, "1e+20"),
    ] {
        assert_eq!(double(n), text);
    }
}
