//! What istiod really sends: converted to the wire and back unchanged, and every field with a verdict.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value as Json;
use xds_api::{json, validate, verdict};

const DUMPS: [&str; 5] = [
    "client",
    "server",
    "gateway",
    "stock-client",
    "stock-server",
];
const DUMP_TYPE: &str = "envoy.admin.v3.ConfigDump";
const BOOTSTRAP_TYPE: &str = "envoy.config.bootstrap.v3.Bootstrap";

fn fixtures() -> Vec<(String, &'static str, Json)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/istio");
    let dumps = DUMPS.iter().map(|name| (*name, DUMP_TYPE));
    dumps
        .chain([("bootstrap-client", BOOTSTRAP_TYPE)])
        .map(|(name, type_name)| {
            let text = std::fs::read_to_string(folder.join(format!("{name}.json"))).expect(name);
            (
                name.to_owned(),
                type_name,
                serde_json::from_str(&text).expect(name),
            )
        })
        .collect()
}

/// A name without what tells its spellings apart.
fn bare(name: &str) -> String {
    name.replace('_', "").to_ascii_lowercase()
}

/// One spelling for what JSON may spell in many ways: names, durations, numbers as text, empty values.
fn normal(value: &Json) -> Json {
    match value {
        Json::Object(object) => {
            let mut members: Vec<(String, Json)> = object
                .iter()
                .map(|(name, value)| (bare(name), normal(value)))
                .collect();
            members.sort_by(|one, two| one.0.cmp(&two.0));
            Json::Object(members.into_iter().collect())
        }
        Json::Array(items) => Json::Array(items.iter().map(normal).collect()),
        Json::String(text) => match text
            .strip_suffix('s')
            .and_then(|number| number.parse::<f64>().ok())
        {
            Some(seconds) => Json::String(format!("{seconds}s")),
            None => text
                .parse::<f64>()
                .ok()
                .and_then(serde_json::Number::from_f64)
                .map_or(value.clone(), Json::Number),
        },
        Json::Number(number) => number
            .as_f64()
            .and_then(serde_json::Number::from_f64)
            .map_or(value.clone(), Json::Number),
        other => other.clone(),
    }
}

/// Whether a value may be the default, which is not written: of an enum only the name is known here.
fn is_default(value: &Json) -> bool {
    match value {
        Json::Bool(flag) => !flag,
        Json::Number(number) => number.as_f64() == Some(0.0),
        Json::String(text) => text
            .chars()
            .all(|letter| letter.is_ascii_uppercase() || letter == '_'),
        Json::Array(items) => items.is_empty(),
        _ => false,
    }
}

/// Where two values differ, at most ten places.
fn differences(path: &str, one: &Json, two: &Json, found: &mut Vec<String>) {
    match (one, two) {
        _ if found.len() >= 10 || one == two => {}
        (one, Json::Null) if is_default(one) => {}
        (Json::Object(left), Json::Object(right)) => {
            let names: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
            for name in names {
                let get = |object: &serde_json::Map<String, Json>| {
                    object.get(name).cloned().unwrap_or_default()
                };
                differences(&format!("{path}/{name}"), &get(left), &get(right), found);
            }
        }
        (Json::Array(left), Json::Array(right)) if left.len() == right.len() => {
            for (index, (left, right)) in left.iter().zip(right).enumerate() {
                differences(&format!("{path}[{index}]"), left, right, found);
            }
        }
        _ => found.push(format!("{path}: {one} became {two}")),
    }
}

#[test]
fn converts_what_istiod_sends_and_back_unchanged() {
    for (name, type_name, value) in fixtures() {
        let parsed = json::from_json(type_name, &value).expect(&name);
        assert_eq!(parsed.unknown, [], "{name}");
        let back = json::to_json(type_name, &parsed.bytes).expect(&name);
        let mut found = Vec::new();
        differences("", &normal(&value), &normal(&back), &mut found);
        assert!(found.is_empty(), "{name}: {found:#?}");
        let again = json::from_json(type_name, &back).expect(&name);
        assert!(again.bytes == parsed.bytes, "{name}: the bytes change");
    }
}

#[test]
fn has_a_verdict_on_every_field_that_istiod_sends() {
    let mut missing = BTreeSet::new();
    for (name, type_name, value) in fixtures() {
        let parsed = json::from_json(type_name, &value).expect(&name);
        let census = verdict::census(type_name, &parsed.bytes).expect(&name);
        missing.extend(
            census
                .into_iter()
                .filter(|found| !found.listed)
                .map(|found| found.key),
        );
    }
    assert!(
        missing.is_empty(),
        "without a line in verdicts/*.txt: {missing:#?}"
    );
}

#[test]
fn finds_no_broken_rule_in_what_istiod_sends() {
    // In the dumps of endpoints Envoy shows weights of zero, which nobody sent.
    for (name, type_name, value) in fixtures()
        .into_iter()
        .filter(|(name, ..)| !name.starts_with("stock"))
    {
        let parsed = json::from_json(type_name, &value).expect(&name);
        assert_eq!(
            validate::validate(type_name, &parsed.bytes),
            Ok(()),
            "{name}"
        );
    }
}

#[test]
fn refuses_nothing_of_the_bootstrap_that_pilot_agent_writes() {
    for (name, type_name, value) in fixtures()
        .into_iter()
        .filter(|(_, type_name, _)| *type_name == BOOTSTRAP_TYPE)
    {
        let parsed = json::from_json(type_name, &value).expect(&name);
        let report = verdict::check(type_name, &parsed.bytes, "bootstrap").expect(&name);
        assert_eq!(report.unknown, []);
        assert!(report.rejected.is_empty(), "{:#?}", report.rejected);
    }
}
