//! The rules for heads of requests, against what Envoy 1.40 was seen to do.

use std::sync::Arc;
use std::time::Instant;

use outrigger_config::convert::{self, ConvertContext};
use outrigger_config::ir::{CidrRange, EscapedSlashesAction, NetworkTerminal, UpgradeConfig};
use outrigger_filters::Registry;
use outrigger_stats::Store;
use outrigger_types::{Address, ConnectionInfo, Headers};

use super::*;

/// An HCM without any option.
pub(crate) fn hcm() -> HcmConfig {
    const LISTENER: &str = r#"{"name":"l","address":{"socket_address":{"address":"127.0.0.1","port_value":80}},
        "filter_chains":[{"filters":[{"name":"h","typed_config":{
        "@type":"type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix":"s","route_config":{"name":"r"},"http_filters":[{"name":"r","typed_config":{
        "@type":"type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]}}]}]}"#;
    let json = xds_api::text::parse_json(LISTENER).unwrap();
    let listener = xds_api::json::from_json("envoy.config.listener.v3.Listener", &json).unwrap();
    let cx = ConvertContext {
        registry: &Registry,
        store: Store::default(),
        node: Default::default(),
        reject_unknown_fields: false,
    };
    let listener = convert::listener(&listener.bytes, &cx).unwrap().value;
    match &listener.filter_chains[0].terminal {
        NetworkTerminal::Http(hcm) => HcmConfig::clone(hcm),
        NetworkTerminal::Tcp(_) | NetworkTerminal::None => panic!("no HCM"),
    }
}

/// A stream from 127.0.0.1 on HTTP/1.
pub(crate) fn info() -> StreamInfo {
    let address = Address::Ip(([127, 0, 0, 1], 8080).into());
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
    info
}

pub(crate) fn request(path: &str, fields: &[(&str, &str)]) -> RequestHead {
    let mut head = RequestHead::new(Method::GET, path.to_owned());
    head.authority = Some("x".into());
    for (name, value) in fields {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        head.headers
            .append(name, HeaderValue::from_str(value).unwrap());
    }
    head
}

/// What goes upstream, without the id, which is a new one.
fn passed(hcm: &HcmConfig, fields: &[(&str, &str)]) -> (String, StreamInfo) {
    let (mut head, mut info) = (request("/", fields), info());
    mutate(&mut head, hcm, &caller(), &mut info, 7).unwrap();
    assert_eq!(info.request_id.as_deref().map(str::len), Some(36));
    (joined(&head.headers), info)
}

fn joined(headers: &Headers) -> String {
    let fields = headers.iter().filter(|(n, _)| **n != names::X_REQUEST_ID);
    let fields = fields.map(|(n, v)| format!("{n}={}", v.to_str().unwrap()));
    fields.collect::<Vec<_>>().join("|")
}

fn edge() -> HcmConfig {
    HcmConfig {
        use_remote_address: true,
        skip_xff_append: true,
        ..hcm()
    }
}

fn internal(of: HcmConfig) -> HcmConfig {
    let ranges = [[127, 0, 0, 0], [10, 0, 0, 0]].map(|a: [u8; 4]| CidrRange::new(a.into(), 8));
    HcmConfig {
        internal_addresses: ranges.into(),
        ..of
    }
}

const SAID: &[(&str, &str)] = &[
    ("x-envoy-retry-on", "5xx"),
    ("x-envoy-decorator-operation", "o"),
    ("x-envoy-internal", "true"),
    ("x-envoy-original-path", "/o"),
    ("x-envoy-original-host", "h"),
    ("x-envoy-foo", "1"),
];

fn caller() -> Caller {
    Caller::new("cluster", "node")
}

#[test]
fn what_a_client_may_say_depends_on_who_it_is() {
    let plain = "x-envoy-decorator-operation=o|x-envoy-original-path=/o|x-envoy-original-host=h|x-envoy-foo=1|x-forwarded-proto=http";
    assert_eq!(passed(&hcm(), SAID).0, plain);
    assert_eq!(
        passed(&internal(hcm()), SAID).0,
        plain,
        "without an address nobody is internal"
    );
    let at_edge = "x-envoy-foo=1|x-forwarded-proto=http|x-envoy-external-address=127.0.0.1";
    assert_eq!(passed(&edge(), SAID).0, at_edge);
    let (inside, info) = passed(&internal(edge()), SAID);
    assert_eq!(
        inside,
        format!("x-envoy-retry-on=5xx|{plain}|x-envoy-internal=true")
    );
    assert!(info.internal_request);
}

#[test]
fn the_client_is_whom_a_trusted_header_names() {
    let hops = |of: HcmConfig| HcmConfig {
        xff_num_trusted_hops: 1,
        ..of
    };
    let peer = "127.0.0.1:8080";
    for (value, plain, hops_plain, hops_edge) in [
        ("1.2.3.4", "1.2.3.4:0", peer, "1.2.3.4:0"),
        ("1.2.3.4, 5.6.7.8", "5.6.7.8:0", "1.2.3.4:0", "5.6.7.8:0"),
        ("1.2.3.4,", peer, "1.2.3.4:0", peer),
        ("garbage", peer, peer, peer),
        ("1.2.3.4:80", peer, peer, peer),
        ("::1", "[::1]:0", peer, "[::1]:0"),
        ("[::1]", peer, peer, peer),
        ("", peer, peer, peer),
    ] {
        let client = |hcm: &HcmConfig| {
            let fields = [("x-forwarded-for", value)];
            passed(hcm, &fields).1.downstream_remote.to_string()
        };
        assert_eq!(client(&hcm()), plain, "{value}");
        assert_eq!(client(&hops(hcm())), hops_plain, "{value}");
        assert_eq!(client(&hops(edge())), hops_edge, "{value}");
        assert_eq!(client(&edge()), peer, "{value}");
    }
    let one = passed(&internal(hcm()), &[("x-forwarded-for", "10.1.1.1")]).1;
    let two = passed(
        &internal(hcm()),
        &[("x-forwarded-for", "10.1.1.1, 10.2.2.2")],
    )
    .1;
    assert!(one.internal_request && !two.internal_request);
}

#[test]
fn fields_of_the_connection_end_here() {
    let hop: &[(&str, &str)] = &[
        ("keep-alive", "1"),
        ("proxy-connection", "x"),
        ("upgrade", "foo"),
        ("connection", "close"),
    ];
    for (fields, expected) in [
        (&[("te", "trailers")][..], "te=trailers|"),
        (&[("te", "gzip, trailers")], "te=trailers|"),
        (&[("te", "Trailers")], ""),
        (&[("te", "gzip")], ""),
        (hop, ""),
        (&[("x-forwarded-client-cert", "By=x")], ""),
    ] {
        let expected = format!("{expected}x-forwarded-proto=http");
        assert_eq!(passed(&hcm(), fields).0, expected, "{fields:?}");
    }
}

#[test]
fn an_id_from_outside_is_replaced_unless_it_is_kept() {
    const ID: &str = "11111111-2222-9333-8444-555555555555";
    let id = |hcm: &HcmConfig, id: &str| {
        let (mut head, mut info) = (request("/", &[("x-request-id", id)]), info());
        mutate(&mut head, hcm, &caller(), &mut info, 7).unwrap();
        info.request_id.unwrap().to_string()
    };
    let kept = HcmConfig {
        preserve_external_request_id: true,
        ..edge()
    };
    assert_eq!(id(&hcm(), "mine"), "mine");
    assert_eq!(id(&hcm(), "").len(), 36);
    assert_eq!(id(&kept, "mine"), "mine");
    assert_eq!(
        id(&kept, ID),
        ID.replace("-9333", "-4333"),
        "it is not traced"
    );
    let fresh = id(&edge(), ID);
    assert!(
        fresh.as_bytes()[14] == b'4' && b"89ab".contains(&fresh.as_bytes()[19]),
        "{fresh}"
    );
}

#[test]
fn hosts_lose_their_port_and_dot() {
    let host = |hcm: &HcmConfig, host: &str| {
        let mut head = request("/", &[]);
        head.authority = Some(host.to_owned().into());
        mutate(&mut head, hcm, &caller(), &mut info(), 7).unwrap();
        String::from_utf8(head.authority.unwrap().to_vec()).unwrap()
    };
    let dot = HcmConfig {
        strip_trailing_host_dot: true,
        ..hcm()
    };
    let any = HcmConfig {
        strip_port: StripPort::Any,
        ..hcm()
    };
    let same = HcmConfig {
        strip_port: StripPort::Matching,
        ..hcm()
    };
    for (given, no_dot, no_port, no_same) in [
        ("a.", "a", "a.", "a."),
        ("a.:80", "a:80", "a.", "a.:80"),
        ("[::1]:80", "[::1]:80", "[::1]", "[::1]:80"),
        ("[::1]", "[::1]", "[::1]", "[::1]"),
        ("a:8080", "a:8080", "a", "a"),
        ("a:", "a:", "a:", "a:"),
        ("a:x", "a:x", "a:x", "a:x"),
        ("::1", "::1", ":", "::1"),
        (".", "", ".", "."),
    ] {
        assert_eq!(host(&dot, given), no_dot);
        assert_eq!(host(&any, given), no_port);
        assert_eq!(host(&same, given), no_same);
    }
}

#[test]
fn paths_are_normalised_as_configured() {
    let path = |hcm: &HcmConfig, path: &str| {
        let mut head = request(path, &[]);
        match mutate(&mut head, hcm, &caller(), &mut info(), 7) {
            Ok(()) => String::from_utf8(head.path.to_vec()).unwrap(),
            Err(reply) => reply.status.as_u16().to_string(),
        }
    };
    let norm = HcmConfig {
        normalize_path: true,
        ..hcm()
    };
    for (given, expected) in [
        ("/a/./b/../c", "/a/c"),
        ("//a//b", "//a//b"),
        ("/a%2Fb", "/a%2Fb"),
        ("/a%41b%2e", "/aAb."),
        ("/../../x", "/x"),
        (r"/a\b", "/a/b"),
        ("/a/..", "/"),
        ("/a/.", "/a/"),
        ("/a/%2e%2E/b", "/b"),
        ("/a/..b", "/a/..b"),
        ("/a/...", "/a/..."),
        ("/%zz", "/%zz"),
        ("/%4", "/%4"),
        ("/a%00b", "400"),
        ("/a?b=../c", "/a?b=../c"),
        ("/a//../b", "/a/b"),
        ("/a\"<>^`{|}b", "/a%22%3C%3E%5E%60%7B%7C%7Db"),
        ("/[x]", "/[x]"),
        ("/%25%32%65", "/%252e"),
        (r"/\", "//"),
        ("/a/..?q", "/?q"),
        ("/+%2B", "/+%2B"),
    ] {
        assert_eq!(path(&norm, given), expected, "{given}");
    }
    let merge = HcmConfig {
        merge_slashes: true,
        ..hcm()
    };
    for (given, expected) in [
        ("//a//b", "/a/b"),
        ("//", "//"),
        ("///", "//"),
        ("/a//", "/a/"),
        ("/a?x=//", "/a?x=//"),
    ] {
        assert_eq!(path(&merge, given), expected, "{given}");
    }
    for (given, expected) in [("/a#b", "400"), ("*", "404"), ("", "404")] {
        assert_eq!(path(&hcm(), given), expected, "{given}");
    }
    for (action, expected) in [
        (EscapedSlashesAction::RejectRequest, "400"),
        (EscapedSlashesAction::UnescapeAndRedirect, "307"),
        (EscapedSlashesAction::UnescapeAndForward, r"/a/b\c?x=%2f"),
        (EscapedSlashesAction::KeepUnchanged, "/a%2fb%5Cc?x=%2f"),
    ] {
        let hcm = HcmConfig {
            escaped_slashes: action,
            ..hcm()
        };
        assert_eq!(path(&hcm, "/a%2fb%5Cc?x=%2f"), expected);
    }
}

#[test]
fn an_upgrade_needs_the_route_or_the_hcm() {
    let upgrade = |name: &str, enabled| UpgradeConfig {
        name: name.into(),
        enabled,
    };
    let upgrades = vec![upgrade("websocket", false), upgrade("foo", true)];
    let hcm = HcmConfig { upgrades, ..hcm() };
    let route = |enabled| BTreeMap::from([("websocket".into(), enabled)]);
    for (protocol, route, taken) in [
        ("websocket", None, false),
        ("FOO", None, true),
        ("other", None, false),
        ("WebSocket", Some(route(true)), true),
        ("websocket", Some(route(false)), false),
        ("foo", Some(route(false)), true),
    ] {
        let mut head = request("/", &[]);
        head.protocol = Some(protocol.to_owned().into());
        assert_eq!(
            takes_upgrade(&head, &hcm, route.as_ref()),
            Some(taken),
            "{protocol}"
        );
    }
    let mut head = request("", &[]);
    head.method = Method::CONNECT;
    assert_eq!(takes_upgrade(&head, &hcm, None), Some(false));
    let route = BTreeMap::from([("connect".into(), true)]);
    assert_eq!(takes_upgrade(&head, &hcm, Some(&route)), Some(true));
    assert_eq!(takes_upgrade(&request("/", &[]), &hcm, None), None);
}

#[test]
fn says_who_calls_when_it_is_told_to() {
    let hcm = HcmConfig {
        add_user_agent: true,
        ..hcm()
    };
    for (given, agent) in [("mine", "mine"), ("", "cluster")] {
        let mut head = request("/", &[("user-agent", given)]);
        mutate(&mut head, &hcm, &caller(), &mut info(), 7).unwrap();
        let value = |name: &'static str| head.headers.get_bytes(&HeaderName::from_static(name));
        assert_eq!(value("user-agent"), Some(agent.as_bytes()));
        let service = "x-envoy-downstream-service-cluster";
        assert_eq!(value(service), Some(&b"cluster"[..]));
        let node = "x-envoy-downstream-service-node";
        assert_eq!(value(node), Some(&b"node"[..]));
    }
}
