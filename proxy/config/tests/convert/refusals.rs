//! Values that Envoy refuses at load are refused here, and those that it takes
//! are taken: `recorded/envoy-verdicts.json` holds what Envoy 1.40 said of each
//! case under `--mode validate`. What we say is kept in `golden/refusals.txt`;
//! set `UPDATE_GOLDEN=1` to write it anew.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support::{bytes, cluster, hcm, listener_with, names, refusal, routes_with};

/// Cases where we differ, and why.
const DIFFERENT: [(&str, &str); 10] = [
    ("add bad name", "a blank cannot be sent in a header's name"),
    ("header matcher bad name", "such a header cannot come in"),
    ("value and raw_value", "one of them would be dropped"),
    (
        "bad substitution",
        "Envoy leaves every path as it is, without a word",
    ),
    ("previous priorities zero", "the proto's rule says so"),
    ("no HTTP filters", "no request would ever be answered"),
    ("unknown optional filter", "it may be one that Envoy knows"),
    ("strict dns pipe", "nothing could be resolved"),
    ("weights sum", "32 bits would overflow"),
    ("locality weights sum", "32 bits would overflow"),
];

fn recorded() -> Vec<Value> {
    let path = file("tests/recorded/envoy-verdicts.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn kind(name: &str) -> &'static str {
    match name {
        "listener" => names::LISTENER,
        "routes" => names::ROUTES,
        "cluster" => names::CLUSTER,
        "bootstrap" => names::BOOTSTRAP,
        other => panic!("{other} is no kind"),
    }
}

/// Our verdict on a case; one that is not even JSON of its message is refused.
fn verdict(case: &Value) -> Option<String> {
    let kind = kind(case["kind"].as_str().unwrap());
    match xds_api::json::from_json(kind, &case["resource"]) {
        Ok(parsed) => refusal(kind, &parsed.bytes),
        Err(error) => Some(format!("{}: {}", error.path, error.reason)),
    }
}

#[test]
fn the_verdict_is_envoys() {
    let mut wrong = Vec::new();
    let mut text = String::new();
    for case in recorded() {
        let name = case["case"].as_str().unwrap();
        let ours = verdict(&case);
        let envoy_refuses = case["envoy"] == "refuses";
        let known = DIFFERENT.iter().any(|(different, _)| *different == name);
        if (ours.is_some() != envoy_refuses) != known {
            wrong.push(format!("{name}: Envoy {}, we say {ours:?}", case["envoy"]));
        }
        text += &format!("{name} | {}\n", ours.as_deref().unwrap_or("taken"));
    }
    let golden = file("tests/golden/refusals.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&golden, &text).unwrap();
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let expected = std::fs::read_to_string(&golden).unwrap_or_default();
    assert!(text == expected, "the errors changed:\n{text}");
}

#[test]
fn every_refusal_names_its_place() {
    for case in recorded() {
        if let Some(error) = verdict(&case) {
            assert!(error.contains(": "), "{}: {error}", case["case"]);
            assert!(!error.starts_with(": "), "{}: {error}", case["case"]);
        }
    }
}

#[test]
fn the_path_leads_from_the_listener_to_the_value() {
    let table = routes_with(json!({
        "match": { "prefix": "/" },
        "route": { "cluster": "c", "retry_policy": { "retry_back_off": {
            "base_interval": "2s", "max_interval": "1s"
        } } }
    }));
    let listener = listener_with(hcm(json!({ "route_config": table })));
    let error = refusal(names::LISTENER, &bytes(names::LISTENER, &listener)).unwrap();
    assert_eq!(
        error,
        "listener \"l\" / filter_chains[0] / filters[0] / typed_config / route_config / \
         virtual_hosts[0] / routes[0] / route / retry_policy / retry_back_off / max_interval: \
         must be at least the base_interval"
    );
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    let tls = json!({ "transport_socket": { "name": "tls", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "allow_renegotiation": true
    } } });
    let checks = json!({ "health_checks": [{
        "timeout": "1s", "interval": "1s", "unhealthy_threshold": 1, "healthy_threshold": 1,
        "tcp_health_check": {}
    }] });
    for (fields, path) in [
        (tls, "transport_socket"),
        (checks, "health_checks[0]"),
        (json!({ "outlier_detection": {} }), "outlier_detection"),
        (json!({ "lb_policy": "MAGLEV" }), "lb_policy"),
    ] {
        let error = refusal(names::CLUSTER, &bytes(names::CLUSTER, &cluster(fields))).unwrap();
        assert!(
            error.starts_with(&format!("cluster \"c\" / {path}")),
            "{error}"
        );
    }
}

#[test]
fn fields_without_effect_are_reported() {
    let fields =
        json!({ "ignore_health_on_host_removal": true, "lrs_report_endpoint_metrics": ["x"] });
    let bytes = bytes(names::CLUSTER, &cluster(fields));
    let converted = outrigger_config::convert::cluster(&bytes, &crate::support::context()).unwrap();
    let paths: Vec<&str> = converted
        .ignored
        .iter()
        .map(|(path, _)| path.as_str())
        .collect();
    assert_eq!(
        paths,
        [
            "cluster \"c\" / ignore_health_on_host_removal",
            "cluster \"c\" / lrs_report_endpoint_metrics[0]"
        ]
    );
}

/// Field 5000 of the message, a varint.
const UNKNOWN: [u8; 4] = [0xc0, 0xb8, 0x02, 0x01];

#[test]
fn an_unknown_field_is_reported_and_refused_where_it_would_decide() {
    let mut cx = crate::support::context();
    let mut message = bytes(names::CLUSTER, &cluster(json!({})));
    message.extend(UNKNOWN);
    let converted = outrigger_config::convert::cluster(&message, &cx).unwrap();
    assert_eq!(converted.unknown, ["cluster \"c\" / field 5000"]);
    cx.reject_unknown_fields = true;
    let error = outrigger_config::convert::cluster(&message, &cx).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cluster \"c\" / field 5000: unknown field"
    );
}

#[test]
fn criteria_that_multiply_without_end_are_refused() {
    let ports: Vec<u32> = (1..=1_000).collect();
    let hosts: Vec<String> = (0..1_000).map(|n| format!("n{n}.example")).collect();
    let mut listener = listener_with(hcm(json!({})));
    listener["filter_chains"][0]["filter_chain_match"] =
        json!({ "source_ports": ports, "server_names": hosts });
    let error = refusal(names::LISTENER, &bytes(names::LISTENER, &listener)).unwrap();
    assert!(
        error.starts_with("listener \"l\" / filter_chains: 1000000 combinations"),
        "{error}"
    );
}

#[test]
fn stream_errors_are_refused_where_http_2_may_be_spoken() {
    let verdict = |codec: &str| {
        let fields = json!({ "codec_type": codec, "stream_error_on_invalid_http_message": true });
        let listener = listener_with(hcm(fields));
        refusal(names::LISTENER, &bytes(names::LISTENER, &listener))
    };
    assert_eq!(verdict("HTTP1"), None);
    for codec in ["AUTO", "HTTP2"] {
        let text = verdict(codec).expect("a refusal");
        assert!(
            text.contains("stream_error_on_invalid_http_message"),
            "{codec}: {text}"
        );
    }
}
