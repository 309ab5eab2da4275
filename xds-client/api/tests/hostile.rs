//! Bytes from a peer that lies: every walk ends, with an error or without, and never panics.

use proptest::prelude::*;
use xds_api::wire::{put_bytes, put_varint_field};
use xds_api::{json, text, validate, verdict};

const LISTENER: &str = "envoy.config.listener.v3.Listener";
const TYPES: [&str; 5] = [
    LISTENER,
    "envoy.config.cluster.v3.Cluster",
    "google.protobuf.Any",
    "google.protobuf.Struct",
    "envoy.config.core.v3.Metadata",
];

fn walk(type_name: &str, bytes: &[u8]) {
    let _ = verdict::check(type_name, bytes, "resource");
    let _ = verdict::census(type_name, bytes);
    let _ = validate::validate(type_name, bytes);
    if let Ok(value) = json::to_json(type_name, bytes) {
        let _ = json::from_json(type_name, &value);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_end(bytes: Vec<u8>, which in 0..TYPES.len()) {
        walk(TYPES[which], &bytes);
    }

    #[test]
    fn bytes_that_look_like_fields_end(fields: Vec<(u8, u8, u8)>, which in 0..TYPES.len()) {
        let bytes: Vec<u8> = fields.into_iter().flat_map(|(tag, length, value)| [tag & 0x7f, length & 7, value]).collect();
        walk(TYPES[which], &bytes);
    }

    #[test]
    fn any_text_ends(text: String) {
        let _ = text::parse_json(&text);
        let _ = text::parse_yaml(&text);
    }
}

/// `depth` structs in structs.
fn nested_struct(depth: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..depth {
        let (mut value, mut entry, mut object) = (Vec::new(), Vec::new(), Vec::new());
        put_bytes(&mut value, 5, &bytes);
        put_bytes(&mut entry, 2, &value);
        put_bytes(&mut object, 1, &entry);
        bytes = object;
    }
    bytes
}

#[test]
fn deep_nesting_is_an_error() {
    let bytes = nested_struct(5_000);
    assert!(json::to_json("google.protobuf.Struct", &bytes).is_err());
    let mut any = Vec::new();
    for _ in 0..2_000 {
        let mut outer = Vec::new();
        put_bytes(&mut outer, 1, b"type.googleapis.com/google.protobuf.Any");
        put_bytes(&mut outer, 2, &any);
        any = outer;
    }
    walk("google.protobuf.Any", &any);
    assert!(json::to_json("google.protobuf.Any", &any).is_err());
}

#[test]
fn an_unknown_field_is_reported_by_path_and_is_an_error_inside_a_match() {
    let (mut matched, mut chain, mut listener) = (Vec::new(), Vec::new(), Vec::new());
    put_varint_field(&mut matched, 900, 1);
    put_bytes(&mut chain, 1, &matched);
    put_varint_field(&mut chain, 901, 1);
    put_bytes(&mut listener, 3, &chain);
    let report = verdict::check(LISTENER, &listener, "listener \"x\"").expect("it scans");
    let found: Vec<(String, u32, bool)> = report
        .unknown
        .iter()
        .map(|unknown| (unknown.path.to_string(), unknown.number, unknown.strict))
        .collect();
    assert_eq!(
        found,
        [
            (
                "listener \"x\" / filter_chains[0] / filter_chain_match".to_owned(),
                900,
                true
            ),
            ("listener \"x\" / filter_chains[0]".to_owned(), 901, false),
        ]
    );
    assert!(!report.is_acceptable());
}

#[test]
fn a_singular_message_in_two_parts_is_checked_as_one() {
    let mut cluster = Vec::new();
    put_bytes(&mut cluster, 1, b"c");
    for (number, text) in [(1, "c"), (1, "d")] {
        let mut assignment = Vec::new();
        put_bytes(&mut assignment, number, text.as_bytes());
        put_bytes(&mut cluster, 33, &assignment);
    }
    put_bytes(&mut cluster, 33, &[]);
    assert_eq!(
        validate::validate("envoy.config.cluster.v3.Cluster", &cluster),
        Ok(())
    );
}
