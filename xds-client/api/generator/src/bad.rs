//! Bad bootstraps, made by rule from the validation rules, so that the verdict on them can be compared with Envoy's.
//!
//! A good bootstrap is taken, and everything in it that a rule speaks of is broken once: a required field is left out, a
//! number leaves its range, text is too short or does not match, an enum has no such value.

use serde_json::{Map, Value as Json, json};
use xds_api::path::FieldPath;
use xds_api::schema::{self, Field, Kind, Message, WellKnown};
use xds_api::{bootstrap, validate};

/// A bootstrap with one thing wrong.
#[derive(Clone, Debug)]
pub struct BadBootstrap {
    /// What was done, for example `static_resources / clusters[0] / name left out`.
    pub name: String,
    /// Where.
    pub path: FieldPath,
    /// Last field of the path: a good error message holds it.
    pub field: String,
    /// Whether a validation rule or the schema says so; otherwise it shows when the configuration is used.
    pub by_rule: bool,
    /// The bootstrap as JSON text.
    pub text: String,
}

/// A bootstrap that Envoy and this product accept, with most of what a rule speaks of.
pub fn good_bootstrap() -> Json {
    json!({
        "node": {"id": "sidecar", "cluster": "app"},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "layered_runtime": {"layers": [{"name": "static", "static_layer": {"a": "b"}}]},
        "stats_flush_interval": "5s",
        "static_resources": {
            "listeners": [{
                "name": "in",
                "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
                "filter_chains": [{"filters": [{
                    "name": "envoy.filters.network.http_connection_manager",
                    "typed_config": connection_manager(),
                }]}],
            }],
            "clusters": [{
                "name": "backend",
                "type": "STATIC",
                "connect_timeout": "1s",
                "lb_policy": "LEAST_REQUEST",
                "least_request_lb_config": {"choice_count": 2},
                "circuit_breakers": {"thresholds": [{"priority": "DEFAULT", "max_connections": 5}]},
                "load_assignment": {
                    "cluster_name": "backend",
                    "endpoints": [{
                        "priority": 0,
                        "load_balancing_weight": 1,
                        "lb_endpoints": [{
                            "load_balancing_weight": 1,
                            "endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 9}}},
                        }],
                    }],
                },
                "typed_extension_protocol_options": {
                    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                        "explicit_http_config": {"http2_protocol_options": {"max_concurrent_streams": 100}},
                    },
                },
            }],
        },
    })
}

fn connection_manager() -> Json {
    json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "codec_type": "AUTO",
        "max_request_headers_kb": 60,
        "http2_protocol_options": {"initial_stream_window_size": 65536, "max_concurrent_streams": 100},
        "route_config": {
            "name": "local",
            "virtual_hosts": [{
                "name": "all",
                "domains": ["*"],
                "require_tls": "NONE",
                "routes": [
                    {
                        "match": {"prefix": "/", "headers": [{"name": "x", "string_match": {"exact": "y"}}]},
                        "route": {
                            "cluster": "backend",
                            "priority": "DEFAULT",
                            "retry_policy": {
                                "retry_on": "5xx",
                                "num_retries": 2,
                                "retry_back_off": {"base_interval": "0.025s", "max_interval": "0.25s"},
                            },
                        },
                        "request_headers_to_add": [{"header": {"key": "a", "value": "b"}}],
                    },
                    {"match": {"path": "/gone"}, "direct_response": {"status": 410}},
                    {
                        "match": {"safe_regex": {"regex": "/r.*"}},
                        "redirect": {"host_redirect": "other", "response_code": "FOUND"},
                    },
                ],
            }],
        },
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
        }],
    })
}

/// Every bad bootstrap that breaks the good one in one place: by rule, or with text that is no regular expression.
pub fn bad_bootstraps() -> Vec<BadBootstrap> {
    let good = good_bootstrap();
    let mut mutations = Vec::new();
    if let Some(message) = schema::message(bootstrap::BOOTSTRAP) {
        collect(message, &good, &mut Vec::new(), &mut mutations);
    }
    mutations
        .into_iter()
        .filter_map(|mutation| mutation.apply(&good))
        .filter(|bad| !bad.by_rule || bad.is_broken())
        .collect()
}

impl BadBootstrap {
    fn is_broken(&self) -> bool {
        let file = bootstrap::File::named("bad.json", self.text.as_bytes());
        match bootstrap::load(Some(file), None, bootstrap::Options::default()) {
            Ok(loaded) => validate::validate(bootstrap::BOOTSTRAP, &loaded.bytes).is_err(),
            Err(_) => true,
        }
    }
}

/// What is done to regular expressions.
const BAD_REGEX: &str = "is no regular expression";

/// A step into JSON.
#[derive(Clone, Debug)]
enum Place {
    Name(String),
    Index(usize),
}

/// One change of the good bootstrap.
struct Mutation {
    places: Vec<Place>,
    what: &'static str,
    /// What to put there; nothing: leave it out.
    value: Option<Json>,
}

impl Mutation {
    fn apply(self, good: &Json) -> Option<BadBootstrap> {
        let mut bad = good.clone();
        let (last, before) = self.places.split_last()?;
        let mut at = &mut bad;
        for place in before {
            at = match place {
                Place::Name(name) => at.get_mut(name.as_str())?,
                Place::Index(index) => at.get_mut(*index)?,
            };
        }
        match (last, self.value) {
            (Place::Name(name), Some(value)) => {
                at.as_object_mut()?.insert(name.clone(), value);
            }
            (Place::Name(name), None) => {
                at.as_object_mut()?.remove(name)?;
            }
            (Place::Index(index), Some(value)) => *at.get_mut(*index)? = value,
            (Place::Index(index), None) => {
                at.as_array_mut()?.remove(*index);
            }
        }
        let path = self
            .places
            .iter()
            .fold(FieldPath::default(), |path, place| match place {
                Place::Name(name) => path.field(name.clone()),
                Place::Index(index) => path.index(*index),
            });
        let field = self.places.iter().rev().find_map(|place| match place {
            Place::Name(name) => Some(name.clone()),
            Place::Index(_) => None,
        })?;
        let name = format!("{path} {}", self.what);
        Some(BadBootstrap {
            name,
            path,
            by_rule: self.what != BAD_REGEX,
            field,
            text: serde_json::to_string_pretty(&bad).ok()?,
        })
    }
}

/// Goes through a message of the good bootstrap and notes what can be broken.
fn collect(message: Message, value: &Json, places: &mut Vec<Place>, out: &mut Vec<Mutation>) {
    let Json::Object(object) = value else { return };
    match message.well_known() {
        Some(WellKnown::Any) => {
            let inner = object
                .get("@type")
                .and_then(Json::as_str)
                .and_then(schema::message_by_url);
            if let Some(inner) = inner {
                collect(inner, value, places, out);
            }
            return;
        }
        Some(_) => return,
        None => {}
    }
    add(
        out,
        places,
        Place::Name("no_such_field".to_owned()),
        "is unknown",
        Some(json!(1)),
    );
    for field in message.fields() {
        let Some(value) = object.get(field.name()) else {
            continue;
        };
        places.push(Place::Name(field.name().to_owned()));
        collect_field(field, value, places, out);
        places.pop();
    }
}

fn add(
    out: &mut Vec<Mutation>,
    places: &[Place],
    last: Place,
    what: &'static str,
    value: Option<Json>,
) {
    let places = places.iter().cloned().chain([last]).collect();
    out.push(Mutation {
        places,
        what,
        value,
    });
}

fn collect_field(field: Field, value: &Json, places: &mut Vec<Place>, out: &mut Vec<Mutation>) {
    if field.rules().is_some() {
        let whole = places.clone();
        let broken = |what, value| Mutation {
            places: whole.clone(),
            what,
            value,
        };
        out.push(broken("left out", None));
        out.extend(
            wrong_values(field, value)
                .into_iter()
                .map(|(what, value)| broken(what, Some(value))),
        );
    }
    if field.parent().name() == "envoy.type.matcher.v3.RegexMatcher" && field.name() == "regex" {
        out.push(Mutation {
            places: places.clone(),
            what: BAD_REGEX,
            value: Some(json!("(")),
        });
    }
    if let Kind::Enum(_) = field.kind() {
        out.push(Mutation {
            places: places.clone(),
            what: "has an unknown name",
            value: Some(json!("NO_SUCH")),
        });
    }
    let Some(message) = field.message() else {
        return;
    };
    match value {
        Json::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                places.push(Place::Index(index));
                collect(message, item, places, out);
                places.pop();
            }
        }
        Json::Object(object) if field.is_map() => collect_map(message, object, places, out),
        value => collect(message, value, places, out),
    }
}

fn collect_map(
    entry: Message,
    object: &Map<String, Json>,
    places: &mut Vec<Place>,
    out: &mut Vec<Mutation>,
) {
    let Some(inner) = entry.field_by_number(2).and_then(Field::message) else {
        return;
    };
    for (key, value) in object {
        places.push(Place::Name(key.clone()));
        collect(inner, value, places, out);
        places.pop();
    }
}

/// Values that some rule of the field may refuse.
fn wrong_values(field: Field, value: &Json) -> Vec<(&'static str, Json)> {
    if field.is_repeated() {
        return vec![("is empty", json!([]))];
    }
    match field.kind() {
        Kind::Enum(_) => vec![("has an undefined number", json!(9_999))],
        Kind::String => vec![
            ("is empty", json!("")),
            ("has a line end", json!("a\nb")),
            ("is too long", json!("x".repeat(20_000))),
        ],
        Kind::Message(message) if message.well_known() == Some(WellKnown::Duration) => {
            vec![("is zero", json!("0s")), ("is negative", json!("-1s"))]
        }
        Kind::Message(message) if message.well_known().is_none() => vec![("is empty", json!({}))],
        _ if value.is_number() => vec![
            ("is zero", json!(0)),
            ("is too large", json!(u32::MAX)),
            ("is negative", json!(-1)),
            ("is no number", json!("many")),
        ],
        _ => Vec::new(),
    }
}
