//! Configuration: text or bytes to messages, and messages to the IR.

use filter_api::ConfigError;
use outrigger_config::convert::{self, ConvertContext};
use outrigger_filters::Registry;
use outrigger_stats::{StatsConfig, Store};
use xds_api::bootstrap::{BOOTSTRAP, File, LoadError, Loaded, Options, load};
use xds_api::json::{from_json, to_json};
use xds_api::text::{Format, parse_yaml};

/// What a conversion says: nothing, or why not.
type Verdict = Result<(), String>;

/// A kind of resource: its name in an input, its message, its conversion.
type Kind = (&'static str, &'static str, fn(&[u8]) -> Verdict);

/// The kinds of resources that a control plane sends.
const KINDS: [Kind; 4] = [
    ("listener", "envoy.config.listener.v3.Listener", |bytes| {
        verdict(convert::listener(bytes, &context()))
    }),
    ("route", "envoy.config.route.v3.RouteConfiguration", |b| {
        verdict(convert::route_table(b, &context()))
    }),
    ("cluster", "envoy.config.cluster.v3.Cluster", |bytes| {
        verdict(convert::cluster(bytes, &context()))
    }),
    (
        "endpoints",
        "envoy.config.endpoint.v3.ClusterLoadAssignment",
        |bytes| verdict(convert::load_assignment(bytes, &context())),
    ),
];

/// A store without stats and default tags, whose expressions cost more to compile
/// than all the rest of an input.
pub(crate) fn store() -> Store {
    let config = StatsConfig {
        use_all_default_tags: false,
        ..StatsConfig::default()
    };
    Store::new(config).expect("a valid configuration")
}

/// A context in which nothing is registered yet.
pub(crate) fn context() -> ConvertContext<'static> {
    ConvertContext {
        registry: &Registry,
        store: store(),
        node: Default::default(),
        reject_unknown_fields: false,
    }
}

fn verdict<T>(result: Result<T, ConfigError>) -> Verdict {
    result.map(drop).map_err(|error| {
        let text = error.to_string();
        assert!(!text.trim().is_empty(), "an error that says nothing");
        text
    })
}

/// A bootstrap, once as YAML, once as JSON and once as the message's bytes; its
/// static resources go through their own conversions.
pub(crate) fn bootstrap(data: &[u8]) {
    for format in [Format::Yaml, Format::Json, Format::Binary] {
        let read = || {
            load(
                Some(File {
                    format,
                    bytes: data,
                }),
                None,
                Options {
                    allow_unknown: true,
                },
            )
        };
        let loaded: Result<Loaded, LoadError> = read();
        assert_eq!(loaded, read(), "read twice");
        let Ok(loaded) = loaded else { continue };
        holds(BOOTSTRAP, &loaded.bytes, bootstrap_verdict);
    }
}

fn bootstrap_verdict(bytes: &[u8]) -> Verdict {
    let converted = convert::bootstrap(bytes, &context());
    if let Ok(converted) = &converted {
        for listener in &converted.value.static_listeners {
            let _ = verdict(convert::listener(listener, &context()));
        }
        for cluster in &converted.value.static_clusters {
            let _ = verdict(convert::cluster(cluster, &context()));
        }
    }
    verdict(converted)
}

/// A resource: a line with its kind, then YAML or the message's bytes.
pub(crate) fn resource(data: &[u8]) {
    let Some(line) = data.iter().position(|b| *b == b'\n') else {
        return;
    };
    let (kind, rest) = (&data[..line], &data[line + 1..]);
    let Some((_, message, conversion)) = KINDS.iter().find(|(name, ..)| name.as_bytes() == kind)
    else {
        return;
    };
    holds(message, rest, *conversion);
    let text = std::str::from_utf8(rest).ok();
    let Some(value) = text.and_then(|text| parse_yaml(text).ok()) else {
        return;
    };
    if let Ok(parsed) = from_json(message, &value) {
        holds(message, &parsed.bytes, *conversion);
    }
}

/// A message has one verdict, and JSON carries all of it that the schema knows.
fn holds(message: &str, bytes: &[u8], conversion: fn(&[u8]) -> Verdict) {
    let said = conversion(bytes);
    assert_eq!(said, conversion(bytes), "converted twice");
    let Ok(json) = to_json(message, bytes) else {
        return;
    };
    let again = from_json(message, &json)
        .unwrap_or_else(|error| panic!("its own JSON is refused: {error}: {json}"));
    assert!(again.unknown.is_empty(), "unknown: {:?}", again.unknown);
    let json_again = to_json(message, &again.bytes).map_err(|error| error.to_string());
    assert_eq!(json_again.as_ref(), Ok(&json));
    let third = from_json(message, &json).map(|parsed| parsed.bytes);
    assert_eq!(third, Ok(again.bytes.clone()), "read twice");
    let _ = conversion(&again.bytes);
}
