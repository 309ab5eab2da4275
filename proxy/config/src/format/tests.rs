//! Operators, one by one: what Envoy printed for the same stream.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use outrigger_types::{
    Address, ConnectionInfo, FilterState, FilterStateObject, HeaderName, HeaderValue, Headers,
    Metadata, MetadataValue, Method, Protocol, RequestHead, ResponseFlag, ResponseHead, StatusCode,
    StreamInfo,
};
use proptest::prelude::*;

use super::*;

fn address(text: &str) -> Address {
    Address::Ip(text.parse::<SocketAddr>().unwrap())
}

fn metadata() -> Arc<Metadata> {
    let list = MetadataValue::List(vec![
        MetadataValue::Number(1.0),
        MetadataValue::String("x".into()),
        MetadataValue::Struct(Default::default()),
    ]);
    let object = [("a", list), ("y", MetadataValue::String("1".into()))];
    let fields = [
        ("b", MetadataValue::Bool(true)),
        ("i", MetadataValue::Number(3.0)),
        ("k", MetadataValue::String("cluster".into())),
        ("n", MetadataValue::Number(1.5)),
        (
            "o",
            MetadataValue::Struct(object.into_iter().map(|(k, v)| (k.into(), v)).collect()),
        ),
        ("z", MetadataValue::Null),
    ];
    let mut metadata = Metadata::default();
    metadata.set(
        "ns",
        MetadataValue::Struct(fields.into_iter().map(|(k, v)| (k.into(), v)).collect()),
    );
    Arc::new(metadata)
}

/// An object of this text.
fn object(plain: &str) -> FilterStateObject {
    let one = MetadataValue::String("1".into());
    FilterStateObject {
        typed: MetadataValue::Struct([("n".into(), one)].into()),
        plain: Some(plain.into()),
        fields: [("n".into(), "first".into())].into(),
    }
}

fn stream() -> StreamInfo {
    let start = Instant::now();
    let connection = ConnectionInfo {
        id: 7,
        local: address("127.0.0.1:18080"),
        direct_local: address("127.0.0.1:18080"),
        local_restored: false,
        remote: address("10.1.10.23:4000"),
        direct_remote: address("10.1.10.23:4000"),
        requested_server_name: "".into(),
        tls: Default::default(),
        transport_failure: Default::default(),
        start: start.checked_sub(Duration::from_micros(300)).unwrap(),
        listener_name: "l".into(),
        filter_chain_name: "fc".into(),
        listener_metadata: None,
        filter_chain_metadata: None,
        filter_state: Default::default(),
    };
    let mut of_connection = FilterState::default();
    of_connection.set("c", object("connection"));
    let _ = connection.filter_state.set(of_connection);
    let mut info = StreamInfo::new(Arc::new(connection), "".into());
    info.start = start;
    info.start_wall = UNIX_EPOCH + Duration::new(1_795_391_610, 643_890_000);
    info.protocol = Some(Protocol::Http11);
    info.response_code = Some(200);
    info.response_code_details = Some("via upstream".into());
    info.bytes_sent = 5;
    info.attempt_count = 1;
    info.route_name = "rname".into();
    info.request_id = Some("5d6e2667".into());
    info.times.last_downstream_rx = Some(Duration::from_micros(105));
    info.times.first_upstream_rx = Some(Duration::from_micros(2191));
    info.times.last_downstream_tx = Some(Duration::from_micros(5666));
    info.upstream.cluster = Some("alt".into());
    info.upstream.cluster_raw = Some("up".into());
    info.upstream.host = Some(address("127.0.0.1:18081"));
    info.upstream.hostname = Some("h.example".into());
    info.upstream.remote = Some(address("[2001:db8:1234:5678::1]:18081"));
    info.upstream.attempted = vec![address("127.0.0.1:9"), address("127.0.0.1:18081")];
    info.upstream.attempted_hostnames = vec!["".into(), "h.example".into()];
    info.upstream.cluster_metadata = Some(metadata());
    let mut state = FilterState::default();
    state.set("u", object("upstream"));
    info.upstream.filter_state = Some(Arc::new(state.into()));
    info.filter_state_mut().set("f", object("one"));
    info
}

fn headers(fields: &[(&'static str, &'static [u8])]) -> Headers {
    fields
        .iter()
        .map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_bytes(value).unwrap(),
            )
        })
        .collect()
}

fn request() -> RequestHead {
    let mut head = RequestHead::new(Method::GET, "/pre/a/b?a=1");
    head.authority = Some("ex.com".into());
    head.headers = headers(&[
        ("x-dup", b"one"),
        ("x-dup", b"two"),
        ("empty", b""),
        ("x-utf", b"\xe9\xc3\xa9\"q\\\t z"),
        ("x-ok", b"\xc3\xa9\"q\\\t</>"),
        ("x-envoy-original-path", b"/a/b?a=1%20x&b&c=&a=2&d%20e=4"),
    ]);
    head
}

fn response() -> ResponseHead {
    let mut head = ResponseHead::new(StatusCode::OK);
    head.headers = headers(&[("x-r", b"v")]);
    head
}

fn print_with(text: &str, info: &StreamInfo, options: &FormatOptions) -> String {
    let (request, response) = (request(), response());
    let mut context = FormatContext::new(info);
    context.request = Some(&request);
    context.response = Some(&response);
    context.access_log_type = AccessLogType::DownstreamEnd;
    let mut out = Vec::new();
    Format::parse(text, options)
        .unwrap()
        .append_to(&mut out, &context);
    String::from_utf8_lossy(&out).into_owned()
}

fn print(text: &str) -> String {
    print_with(text, &stream(), &FormatOptions::default())
}

#[test]
fn operators_print_what_envoy_prints() {
    for (operator, expected) in [
        ("REQ(a)", "-"),
        ("REQ(x-dup)", "one"),
        ("REQ(x-dup):2", "on"),
        ("REQ(x-dup):0", ""),
        ("REQ(nope?x-dup)", "one"),
        ("REQ(empty?x-dup)", ""),
        ("REQ(?x-dup)", "one"),
        ("REQ(x-dup?)", "one"),
        ("REQ(:METHOD)", "GET"),
        ("REQ(host)", "ex.com"),
        ("REQ(:status)", "-"),
        ("REQ(:x?:path)", "/pre/a/b?a=1"),
        ("RESP(:STATUS)", "200"),
        ("RESPONSE_HEADER(x-r)", "v"),
        ("TRAILER(a)", "-"),
        ("PATH", "/a/b?a=1%20x&b&c=&a=2&d%20e=4"),
        ("PATH(NQ)", "/a/b"),
        ("PATH(NQ:ORIG)", "/a/b"),
        ("PATH(WQ:PATH:Z)", "/pre/a/b?a=1"),
        ("PATH():3", "/a/"),
        ("QUERY_PARAM(a)", "1 x"),
        ("QUERY_PARAM(b)", ""),
        ("QUERY_PARAM(nope)", "-"),
        ("QUERY_PARAM(d e)", "4"),
        ("QUERY_PARAMS(ORIG):3", "a=1"),
        ("QUERY_PARAMS(DECODED)", "a=1%20x&b&c=&a=2&d%20e=4"),
        ("REQUEST_DURATION", "0"),
        ("REQUEST_TX_DURATION", "-"),
        ("RESPONSE_DURATION", "2"),
        ("RESPONSE_TX_DURATION", "3"),
        ("ROUNDTRIP_DURATION", "-"),
        ("COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)", "5666"),
        ("COMMON_DURATION(DS_RX_BEG:DS_TX_END)", "5"),
        ("COMMON_DURATION(DS_TX_END:DS_RX_BEG:us)", "-"),
        ("COMMON_DURATION(DS_CX_BEG:DS_RX_BEG:us)", "300"),
        ("COMMON_DURATION(X:DS_RX_BEG:us)", "-"),
        ("PROTOCOL", "HTTP/1.1"),
        ("UPSTREAM_PROTOCOL", "-"),
        ("RESPONSE_CODE", "200"),
        ("RESPONSE_CODE_DETAILS", "via_upstream"),
        ("RESPONSE_CODE_DETAILS(ALLOW_WHITESPACES)", "via upstream"),
        ("RESPONSE_FLAGS", "-"),
        ("BYTES_SENT", "5"),
        ("UPSTREAM_HOST", "127.0.0.1:18081"),
        ("UPSTREAM_HOST_NAME", "h.example"),
        ("UPSTREAM_HOSTS_ATTEMPTED", "127.0.0.1:9,127.0.0.1:18081"),
        ("UPSTREAM_HOST_NAMES_ATTEMPTED", "127.0.0.1:9,h.example"),
        (
            "UPSTREAM_HOST_NAMES_ATTEMPTED_WITHOUT_PORT",
            "127.0.0.1,h.example",
        ),
        ("UPSTREAM_CLUSTER", "alt"),
        ("UPSTREAM_CLUSTER_RAW", "up"),
        ("UPSTREAM_LOCAL_ADDRESS", "-"),
        (
            "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(64)",
            "2001:db8:1234:5678::/64",
        ),
        ("UPSTREAM_CONNECTION_ID", "0"),
        ("DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", "10.1.10.23"),
        ("DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(16)", "10.1.0.0/16"),
        ("DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(0)", "0.0.0.0/0"),
        (
            "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(33)",
            "10.1.10.23/32",
        ),
        ("DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(x)", "10.1.10.23"),
        ("DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(-1)", ""),
        ("DOWNSTREAM_LOCAL_PORT", "18080"),
        ("DOWNSTREAM_LOCAL_ADDRESS_ENDPOINT_ID", ""),
        ("DOWNSTREAM_TLS_VERSION", "-"),
        ("DOWNSTREAM_PEER_CERT_V_START(%Y)", "-"),
        ("CONNECTION_ID", "7"),
        ("STREAM_ID", "5d6e2667"),
        ("REQUESTED_SERVER_NAME", "-"),
        ("REQUESTED_SERVER_NAME(SNI_FIRST)", "ex.com"),
        ("REQUESTED_SERVER_NAME(HOST_FIRST:ORIG)", "-"),
        ("ROUTE_NAME", "rname"),
        ("ENVIRONMENT(NO_SUCH_VARIABLE)", "-"),
        ("GRPC_STATUS", "-"),
        (
            "CLUSTER_METADATA(ns)",
            r#"{"b":true,"i":3,"k":"cluster","n":1.5,"o":{"a":[1,"x",{}],"y":"1"},"z":null}"#,
        ),
        ("CLUSTER_METADATA(ns:k)", "cluster"),
        ("CLUSTER_METADATA(ns:n)", "1.5"),
        ("CLUSTER_METADATA(ns:z)", "-"),
        ("CLUSTER_METADATA(ns:k:x)", "-"),
        ("METADATA(CLUSTER:ns:k):2", "cl"),
        ("METADATA(CLUSTER:ns:n):2", "1."),
        ("METADATA(ROUTE)", "-"),
        ("FILTER_STATE(a)", "-"),
        ("FILTER_STATE(f)", "{\"n\":\"1\"}"),
        ("FILTER_STATE(f:TYPED):5", "{\"n\":"),
        ("FILTER_STATE(f:PLAIN)", "one"),
        ("FILTER_STATE(f:FIELD:n)", "first"),
        ("FILTER_STATE(f:FIELD:m)", "-"),
        ("FILTER_STATE(c:PLAIN)", "connection"),
        ("UPSTREAM_FILTER_STATE(f)", "-"),
        ("UPSTREAM_FILTER_STATE(u:PLAIN)", "upstream"),
        ("FILTER_CHAIN_NAME", "fc"),
        ("LISTENER_NAME", "l"),
        ("LOCAL_REPLY_BODY", ""),
        ("ACCESS_LOG_TYPE", "DownstreamEnd"),
        (
            r#"COALESCE({"operators": ["REQUESTED_SERVER_NAME", {"command": "REQ", "param": ":authority", "max_length": 2}]})"#,
            "ex",
        ),
        (
            r#"COALESCE({"operators": ["BYTES_RECEIVED", "PROTOCOL"]}):3"#,
            "0",
        ),
    ] {
        assert_eq!(print(&format!("%{operator}%")), expected, "{operator}");
    }
}

#[test]
fn times_print_what_envoy_prints() {
    for (format, expected) in [
        ("", "2026-11-22T23:53:30.643Z"),
        ("()", "2026-11-22T23:53:30.643Z"),
        ("(%s.%3f)", "1795391610.643"),
        ("(%f|%1f|%9f)", "643890000|6|643890000"),
        ("(%E3f|%E3S|%E*S|%E*f)", "643|30.643|30.64389|64389"),
        ("(%Ez|%E*z|%::z|%:z)", "+00:00|+00:00:00|+00:00:00|+00:00"),
        (
            "(%a %B %D %e %F %j %p)",
            "Sun November 11/22/26 22 2026-11-22 326 PM",
        ),
        ("(%E4Y %ET %z %Z %% lit)", "2026 T +0000 UTC % lit"),
        ("(a)x)", "a)x"),
    ] {
        assert_eq!(
            print(&format!("%START_TIME{format}%")),
            expected,
            "{format}"
        );
    }
}

#[test]
fn refuses_what_envoy_refuses() {
    let cases = [
        ("%REQ%", "REQ requires parameters"),
        ("%REQ()%", "REQ requires parameters"),
        (
            "%REQ(a?b?c)%",
            "More than 1 alternative header specified in token: a?b?c",
        ),
        (
            "%REQ(a):x%",
            "Incorrect configuration: %REQ(a):x%. Couldn't find valid command at position 0",
        ),
        (
            "100%",
            "Incorrect configuration: 100%. Couldn't find valid command at position 3",
        ),
        ("%NOPE%", "Not supported field in StreamInfo: NOPE"),
        (
            "%REQ_WITHOUT_QUERY(a)%",
            "Not supported field in StreamInfo: REQ_WITHOUT_QUERY",
        ),
        (
            "%req(a)%",
            "Incorrect configuration: %req(a)%. Couldn't find valid command at position 0",
        ),
        (
            "%PROTOCOL(x)%",
            "PROTOCOL does not take any parameters or length",
        ),
        (
            "%PROTOCOL:3%",
            "PROTOCOL does not take any parameters or length",
        ),
        (
            "%START_TIME:3%",
            "START_TIME does not allow length to be specified.",
        ),
        (
            "%START_TIME(%n)%",
            "Invalid header configuration. Format string contains newline.",
        ),
        (
            "%COMMON_DURATION(a)%",
            "Invalid common duration configuration: a.",
        ),
        (
            "%COMMON_DURATION(a:b:s)%",
            "Invalid common duration precision: s.",
        ),
        (
            "%GRPC_STATUS(FOO)%",
            "GrpcStatusFormatter only supports CAMEL_STRING, SNAKE_STRING or NUMBER. Got: FOO",
        ),
        ("%METADATA(FOO:a)%", "FOO is not supported type of metadata"),
        (
            "%FILTER_STATE%",
            "Invalid filter state configuration, key cannot be empty.",
        ),
        (
            "%FILTER_STATE(a:NOPE)%",
            "Invalid filter state serialize type, only support PLAIN/TYPED/FIELD.",
        ),
        (
            "%PATH(X)%",
            "Invalid PATH option: 'X', only 'WQ'/'NQ' are allowed",
        ),
        (
            "%REQ(a)x%REQ(b)%",
            "Invalid header configuration. Format string contains invalid characters.",
        ),
        (
            "%COALESCE({})%",
            "COALESCE: JSON configuration must contain 'operators' array",
        ),
        (
            r#"%COALESCE({"operators":["NOPE"]})%"#,
            "COALESCE: failed to parse operator at index 0: unknown command: 'NOPE'",
        ),
        (
            "%CLUSTER_METADATA(a):3%",
            "CLUSTER_METADATA does not allow length to be specified.",
        ),
    ];
    for (format, expected) in cases {
        let error = Format::parse(format, &FormatOptions::default()).unwrap_err();
        assert_eq!(error, expected, "{format}");
    }
}

#[test]
fn absent_values_are_empty_where_that_is_asked_for() {
    let options = FormatOptions {
        omit_empty_values: true,
        req_without_query: true,
    };
    let print = |text| print_with(text, &stream(), &options);
    assert_eq!(print("a%REQ(nope)%b"), "ab");
    assert_eq!(
        print("%RESPONSE_FLAGS%%ENVIRONMENT(NO_SUCH_VARIABLE)%"),
        "--"
    );
    assert_eq!(print("%REQ_WITHOUT_QUERY(x?:path)%"), "/pre/a/b");
}

#[test]
fn literals_are_known_without_a_stream() {
    let parse = |text| Format::parse(text, &FormatOptions::default()).unwrap();
    assert_eq!(parse("100%% sure").as_literal(), Some("100% sure"));
    assert_eq!(parse("").as_literal(), Some(""));
    assert_eq!(parse("a%PROTOCOL%").as_literal(), None);
    assert_eq!(Format::literal("100%").as_literal(), Some("100%"));
}

#[test]
fn flags_print_in_both_forms() {
    let mut info = stream();
    info.flags.set(ResponseFlag::UpstreamConnectionFailure);
    info.flags.set(ResponseFlag::UpstreamRetryLimitExceeded);
    let text = print_with(
        "%RESPONSE_FLAGS% %RESPONSE_FLAGS_LONG%",
        &info,
        &FormatOptions::default(),
    );
    assert_eq!(
        text,
        "UF,URX UpstreamConnectionFailure,UpstreamRetryLimitExceeded"
    );
}

fn grpc(status: Option<&'static [u8]>, code: u16) -> String {
    let mut info = stream();
    info.response_code = Some(code);
    let mut request = request();
    request.headers.append(
        http::header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    let fields: Vec<_> = status
        .map(|value| ("grpc-status", value))
        .into_iter()
        .collect();
    let trailers = headers(&fields);
    let mut context = FormatContext::new(&info);
    context.request = Some(&request);
    context.trailers = Some(&trailers);
    let format = Format::parse(
        "%GRPC_STATUS%|%GRPC_STATUS(SNAKE_STRING)%|%GRPC_STATUS_NUMBER%",
        &FormatOptions::default(),
    );
    let mut out = Vec::new();
    format.unwrap().append_to(&mut out, &context);
    String::from_utf8(out).unwrap()
}

#[test]
fn grpc_statuses_print_as_envoy_prints_them() {
    assert_eq!(grpc(Some(b"1"), 200), "Canceled|CANCELLED|1");
    assert_eq!(grpc(Some(b"16"), 200), "Unauthenticated|UNAUTHENTICATED|16");
    assert_eq!(grpc(Some(b"99"), 200), "99|99|99");
    assert_eq!(grpc(Some(b"x"), 200), "-1|-1|-1");
    assert_eq!(grpc(Some(b""), 200), "Unknown|UNKNOWN|2");
    assert_eq!(grpc(None, 404), "Unimplemented|UNIMPLEMENTED|12");
    assert_eq!(grpc(None, 503), "Unavailable|UNAVAILABLE|14");
}

fn print_json(config: serde_json::Value, omit_empty_values: bool) -> String {
    let options = FormatOptions {
        omit_empty_values,
        ..FormatOptions::default()
    };
    let format = JsonFormat::parse(config.as_object().unwrap(), &options).unwrap();
    let (info, request) = (stream(), request());
    let mut context = FormatContext::new(&info);
    context.request = Some(&request);
    let mut out = Vec::new();
    format.append_to(&mut out, &context);
    String::from_utf8(out).unwrap()
}

fn json_config() -> serde_json::Value {
    serde_json::json!({
        "z": "%REQ(a)%", "b": {"y": "%REQ(a)%", "x": {"q": "%REQ(a)%"}}, "n": 3, "f": 1.5,
        "t": true, "nul": null,
        "l": ["%REQ(a)%", "lit", 2, {"k": "%BYTES_SENT%"}, [], ["%REQ(a)%"]],
        "multi": "%REQ(a)% %PROTOCOL%%REQ(b)%", "pct": "100%%", "e": "", "eo": {},
        "utf": "%REQ(x-ok)%", "bad": "%REQ(x-utf)%", "mixed": "é %REQ(x-utf):1%",
        "flags": "%RESPONSE_FLAGS%", "two": "%BYTES_SENT%%BYTES_SENT%",
        "o": "%CLUSTER_METADATA(ns:o)%", "key \"\n": 1,
    })
}

#[test]
fn json_keeps_types_and_sorts_keys() {
    let bad = r#""\u00e9\u00c3\u00a9\u0022q\u005c\u0009 z""#;
    let expected = [
        r#"{"b":{"x":{"q":null},"y":null},"bad":"#,
        bad,
        r#","e":"","eo":{},"f":1.5,"flags":"-","key \"\n":1,"#,
        r#""l":[null,"lit",2,{"k":5},[],[null]],"mixed":"é \u00e9","#,
        r#""multi":"- HTTP/1.1-","n":3,"nul":null,"o":{"a":[1,"x",{}],"y":"1"},"#,
        r#""pct":"100%","t":true,"two":"55","utf":"é\"q\\\t</>","z":null}"#,
        "\n",
    ];
    assert_eq!(print_json(json_config(), false), expected.concat());
}

#[test]
fn json_leaves_out_what_is_absent_if_asked_to() {
    let bad = r#""\u00e9\u00c3\u00a9\u0022q\u005c\u0009 z""#;
    let expected = [
        r#"{"bad":"#,
        bad,
        r#","e":"","f":1.5,"flags":"-","key \"\n":1,"#,
        r#""l":["lit",2,{"k":5},[],[]],"mixed":"é \u00e9","#,
        r#""multi":" HTTP/1.1","n":3,"o":{"a":[1,"x",{}],"y":"1"},"#,
        r#""pct":"100%","t":true,"two":"55","utf":"é\"q\\\t</>"}"#,
        "\n",
    ];
    assert_eq!(print_json(json_config(), true), expected.concat());
}

#[test]
fn unique_ids_are_random_uuids() {
    let (one, other) = (print("%UNIQUE_ID%"), print("%UNIQUE_ID%"));
    assert_ne!(one, other);
    assert_eq!((one.len(), one.as_bytes()[14]), (36, b'4'));
    assert!(matches!(one.as_bytes()[19], b'8' | b'9' | b'a' | b'b'));
}

#[test]
fn the_default_format_is_known() {
    let text = print(default_access_log_format());
    assert!(
        text.starts_with(
            "[2026-11-22T23:53:30.643Z] \"GET /a/b?a=1%20x&b&c=&a=2&d%20e=4 HTTP/1.1\" 200 - 0 5 "
        ),
        "{text}"
    );
}

proptest! {
    #[test]
    fn no_format_makes_it_panic(text in "[%A-Z_()a-z:?0-9{}\"\\[\\] é\n]{0,40}") {
        if let Ok(format) = Format::parse(&text, &FormatOptions::default()) {
            format.append_to(&mut Vec::new(), &FormatContext::new(&stream()));
        }
    }

    #[test]
    fn no_time_format_makes_it_panic(text in "[%A-Za-z0-9*:_^é-]{0,20}") {
        if let Ok(format) = Format::parse(
            &format!("%START_TIME({text})%"),
            &FormatOptions::default(),
        ) {
            format.append_to(&mut Vec::new(), &FormatContext::new(&stream()));
        }
    }
}
