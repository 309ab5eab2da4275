//! Every resource that istiod sends converts, or is refused by name: the list of
//! refusals is kept in `golden/istio.txt`. Set `UPDATE_GOLDEN=1` to write it anew.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::support::{names, refusal};
use serde_json::Value;

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/istio")
}

fn read(file: &str) -> Value {
    let path = fixtures().join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap()
}

/// Every object within a dump that is one of the resources, in order.
fn resources<'a>(value: &'a Value, found: &mut Vec<(&'static str, &'a Value)>) {
    const KINDS: [&str; 4] = [
        names::CLUSTER,
        names::LISTENER,
        names::LOAD_ASSIGNMENT,
        names::ROUTES,
    ];
    match value {
        Value::Array(items) => items.iter().for_each(|item| resources(item, found)),
        Value::Object(fields) => {
            let type_url = fields.get("@type").and_then(Value::as_str).unwrap_or("");
            match KINDS.iter().find(|kind| type_url.ends_with(*kind)) {
                Some(kind) => found.push((kind, value)),
                None => fields.values().for_each(|field| resources(field, found)),
            }
        }
        _ => {}
    }
}

/// Envoy's dump writes the weight of a locality that has none as zero, which its
/// own rules refuse.
fn without_zero_weights(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(without_zero_weights),
        Value::Object(fields) => {
            fields.retain(|name, value| name != "load_balancing_weight" || *value != 0);
            fields.values_mut().for_each(without_zero_weights);
        }
        _ => {}
    }
}

/// The bytes of a resource in a dump, which names its own type.
fn bytes(kind: &str, value: &Value) -> Vec<u8> {
    let mut value = value.clone();
    value.as_object_mut().unwrap().remove("@type");
    without_zero_weights(&mut value);
    let parsed = xds_api::json::from_json(kind, &value)
        .unwrap_or_else(|error| panic!("{kind}: {}: {}", error.path, error.reason));
    parsed.bytes
}

/// What becomes of the resources of one file: how many of each kind are taken,
/// and why the others are refused.
fn outcome(file: &str) -> String {
    let dump = read(file);
    let mut found = Vec::new();
    resources(&dump, &mut found);
    assert!(!found.is_empty(), "{file} holds no resource");
    let mut taken: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    let mut refused = Vec::new();
    for (kind, value) in found {
        let counts = taken.entry(kind).or_default();
        counts.1 += 1;
        match refusal(kind, &bytes(kind, value)) {
            None => counts.0 += 1,
            Some(error) => refused.push(error),
        }
    }
    refused.sort();
    refused.dedup();
    let mut text = format!("== {file}\n");
    for (kind, (yes, all)) in taken {
        text += &format!("{kind}: {yes} of {all} taken\n");
    }
    text + &refused.join("\n") + "\n"
}

#[test]
fn every_resource_converts_or_is_refused_by_path() {
    let mut text = String::new();
    for file in [
        "client.json",
        "server.json",
        "gateway.json",
        "stock-client.json",
        "stock-server.json",
    ] {
        text += &outcome(file);
    }
    for line in text.lines().filter(|line| line.contains(" \"")) {
        assert!(line.contains(" / "), "no path in {line}");
    }
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/istio.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&golden, &text).unwrap();
    }
    let expected = std::fs::read_to_string(&golden).unwrap_or_default();
    assert!(
        text == expected,
        "the refusals changed; look at the difference after UPDATE_GOLDEN=1:\n{text}"
    );
}

#[test]
fn every_cluster_assignment_of_a_mesh_converts() {
    for file in ["stock-client.json", "stock-server.json"] {
        let dump = read(file);
        let mut found = Vec::new();
        resources(&dump, &mut found);
        for (kind, value) in found {
            if kind == names::LOAD_ASSIGNMENT {
                assert_eq!(refusal(kind, &bytes(kind, value)), None);
            }
        }
    }
}

#[test]
fn the_bootstrap_of_a_sidecar_converts() {
    let text = std::fs::read(fixtures().join("bootstrap-client.json")).unwrap();
    let loaded = xds_api::bootstrap::load(
        Some(xds_api::bootstrap::File::named(
            "bootstrap-client.json",
            &text,
        )),
        None,
        xds_api::bootstrap::Options::default(),
    )
    .unwrap();
    let cx = crate::support::context();
    let converted = outrigger_config::convert::bootstrap(&loaded.bytes, &cx).unwrap();
    let config = converted.value;
    assert_eq!(&*config.node.cluster, "client.demo");
    assert!(!config.node.message.is_empty());
    assert_eq!(config.static_clusters.len(), 4);
    assert_eq!(config.static_listeners.len(), 2);
    let ads = config.ads.expect("ADS");
    assert!(ads.delta && ads.set_node_on_first_message_only);
    assert_eq!(&*ads.cluster, "xds-grpc");
    assert_eq!(config.lds.expect("LDS").initial_fetch_timeout, None);
    assert_eq!(config.max_downstream_connections, Some(2_147_483_647));
    assert_eq!(config.runtime_layers.len(), 2);
    for bytes in &config.static_clusters {
        assert_eq!(refusal(names::CLUSTER, bytes), None);
    }
    let ignored: Vec<&str> = converted
        .ignored
        .iter()
        .map(|(path, _)| path.as_str())
        .collect();
    assert!(
        ignored.contains(&"bootstrap / deferred_stat_options"),
        "{ignored:?}"
    );
}
