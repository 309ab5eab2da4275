//! Bytes that nobody should send: an error at worst.

use crate::support::{bytes, hcm, listener_with, names, refusal, routes_with};
use proptest::prelude::*;
use serde_json::json;

const KINDS: [&str; 5] = [
    names::BOOTSTRAP,
    names::CLUSTER,
    names::LISTENER,
    names::LOAD_ASSIGNMENT,
    names::ROUTES,
];

fn samples() -> Vec<(&'static str, Vec<u8>)> {
    let route = json!({
        "match": { "safe_regex": { "regex": "/a.*" } },
        "route": {
            "weighted_clusters": { "clusters": [{ "name": "a", "weight": 1 }, { "name": "b", "weight": 3 }] },
            "timeout": "1.5s",
            "retry_policy": { "retry_on": "5xx,unavailable", "num_retries": 3 }
        }
    });
    let table = routes_with(route);
    vec![
        (
            names::LISTENER,
            bytes(
                names::LISTENER,
                &listener_with(hcm(json!({ "route_config": table.clone() }))),
            ),
        ),
        (names::ROUTES, bytes(names::ROUTES, &table)),
        (
            names::CLUSTER,
            bytes(names::CLUSTER, &crate::support::cluster(json!({}))),
        ),
    ]
}

proptest! {
    #[test]
    fn noise_is_survived(noise: Vec<u8>) {
        for kind in KINDS {
            refusal(kind, &noise);
        }
    }

    #[test]
    fn flipped_bytes_are_survived(which in 0usize..3, at: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
        let (kind, mut bytes) = samples().swap_remove(which);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        refusal(kind, &bytes);
        bytes.truncate(cut.index(bytes.len() + 1));
        refusal(kind, &bytes);
    }
}

#[test]
fn deep_nesting_is_refused() {
    // AccessLogFilter.and_filter.filters[0].and_filter...
    let mut filter: Vec<u8> = Vec::new();
    for _ in 0..10_000 {
        let inner = [field(1, &filter)].concat();
        filter = field(6, &inner);
        if filter.len() > 60_000 {
            break;
        }
    }
    let log = field(2, &filter);
    let listener = field(22, &log);
    assert!(refusal(names::LISTENER, &listener).is_some());
}

/// A length-delimited field.
fn field(number: u32, value: &[u8]) -> Vec<u8> {
    let mut out = varint(u64::from(number) << 3 | 2);
    out.extend(varint(value.len() as u64));
    out.extend_from_slice(value);
    out
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while number > 0x7f {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
    out
}
