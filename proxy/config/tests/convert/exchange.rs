//! The exchange of peer metadata and Istio's metrics as network filters, in every form that
//! carries them.

use std::sync::Arc;

use filter_api::LocalNode;
use outrigger_config::convert;
use outrigger_config::ir::{MetadataExchangeConfig, NetworkTerminal};
use serde_json::{Value, json};

use crate::support::{bytes, cluster, context, names, refusal};

const MESSAGE: &str = "envoy.tcp.metadataexchange.config.MetadataExchange";
const URL: &str = "type.googleapis.com";

/// The filter as `carrier` has it.
fn carried(carrier: &str, type_url: &str, mut value: Value) -> Value {
    let config = match carrier {
        "" => {
            value["@type"] = json!(type_url);
            value
        }
        carrier => json!({
            "@type": format!("{URL}/{carrier}.TypedStruct"),
            "type_url": type_url,
            "value": value,
        }),
    };
    json!({"name": "istio.metadata_exchange", "typed_config": config})
}

fn exchange(value: Value) -> Value {
    carried("udpa.type.v1", &format!("{URL}/{MESSAGE}"), value)
}

fn usual() -> Value {
    exchange(json!({"protocol": "istio-peer-exchange", "enable_discovery": true}))
}

fn stats() -> Value {
    json!({"name": "istio.stats", "typed_config": {"@type": format!("{URL}/stats.PluginConfig")}})
}

fn tcp_proxy() -> Value {
    json!({"name": "tcp", "typed_config": {
        "@type": format!("{URL}/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"),
        "stat_prefix": "t", "cluster": "a"}})
}

fn listener(filters: &[Value]) -> Vec<u8> {
    let message = json!({
        "name": "l",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 10000}},
        "filter_chains": [{"filters": filters}],
    });
    bytes(names::LISTENER, &message)
}

fn of_listener(filters: &[Value], node: &str) -> Option<Arc<MetadataExchangeConfig>> {
    let mut cx = context();
    cx.node = Arc::new(LocalNode {
        id: node.into(),
        ..LocalNode::default()
    });
    let converted = convert::listener(&listener(filters), &cx).unwrap();
    let chain = converted.value.filter_chains[0].clone();
    assert!(matches!(chain.terminal, NetworkTerminal::Tcp(_)));
    chain.exchange.clone()
}

#[test]
fn every_carrier_carries_the_same() {
    let value = json!({"protocol": "p", "additional_labels": ["role"]});
    let url = format!("{URL}/{MESSAGE}");
    let mut found = Vec::new();
    for (carrier, type_url) in [
        ("", &*url),
        ("udpa.type.v1", &*url),
        ("udpa.type.v1", MESSAGE),
        ("xds.type.v3", &*url),
        ("xds.type.v3", MESSAGE),
    ] {
        let filter = carried(carrier, type_url, value.clone());
        found.push(of_listener(&[filter, stats(), tcp_proxy()], "n").unwrap());
    }
    assert_eq!(*found[0].protocol, *b"p");
    assert!(found[0].labels.contains("role"));
    assert!(found.iter().all(|config| *config == found[0]));
}

#[test]
fn what_is_sent_names_the_node() {
    let sent = |node: &str| {
        of_listener(&[usual(), tcp_proxy()], node)
            .unwrap()
            .preamble
            .clone()
    };
    assert_eq!(sent("one")[..4], [0x3D, 0x23, 0x04, 0x67]);
    assert_ne!(sent("one"), sent("two"));
    assert_eq!(of_listener(&[stats(), tcp_proxy()], "one"), None);
}

#[test]
fn a_chain_ends_in_a_terminal_filter() {
    for (filters, at) in [
        (vec![usual()], "filters[0]"),
        (vec![usual(), stats()], "filters[1]"),
        (vec![tcp_proxy(), stats()], "filters[0]"),
        (vec![usual(), usual(), tcp_proxy()], "filters[1]"),
        (
            vec![exchange(json!({})), tcp_proxy()],
            "filters[0] / typed_config / protocol",
        ),
    ] {
        let error = refusal(names::LISTENER, &listener(&filters)).expect(at);
        let path = format!("listener \"l\" / filter_chains[0] / {at}");
        assert!(error.starts_with(&path), "{error}");
    }
}

#[test]
fn a_cluster_takes_the_exchange_alone() {
    let with = |filters: Value| bytes(names::CLUSTER, &cluster(json!({"filters": filters})));
    let converted = convert::cluster(&with(json!([usual()])), &context()).unwrap();
    let exchange = converted.value.exchange.expect("an exchange");
    assert_eq!(*exchange.protocol, *b"istio-peer-exchange");
    for (filters, at) in [
        (json!([stats()]), "filters[0] / typed_config"),
        (json!([usual(), usual()]), "filters[1]"),
        (json!([{"name": "none"}]), "filters[0] / typed_config"),
        (
            json!([{"name": "d", "config_discovery": {"config_source": {"ads": {}}}}]),
            "filters[0] / config_discovery",
        ),
    ] {
        let error = refusal(names::CLUSTER, &with(filters)).expect(at);
        assert!(
            error.starts_with(&format!("cluster \"c\" / {at}")),
            "{error}"
        );
    }
}
