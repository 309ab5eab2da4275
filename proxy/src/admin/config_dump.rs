//! `/config_dump`: resources as they were received.

use std::time::SystemTime;

use hyper::StatusCode;
use outrigger_config::re2::Regex;
use serde_json::{Map, Value, json};

use super::Page;
use super::pages::AdminContext;
use super::query::Query;
use crate::snapshot::{ClusterEntry, ListenerEntry, Origin, Received};

const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
const ROUTES: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
const ENDPOINTS: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";

/// The page.
pub fn page(cx: &AdminContext<'_>, query: &Query) -> Page {
    let names = match query.get("name_regex").map(Regex::new).transpose() {
        Ok(names) => Names(names),
        Err(reason) => {
            return Page::error(
                StatusCode::BAD_REQUEST,
                format!("Error while parsing name_regex: {reason}"),
            );
        }
    };
    let mut dumps = vec![bootstrap(cx), clusters(cx, &names)];
    if query.has("include_eds") {
        dumps.push(endpoints(cx, &names));
    }
    dumps.push(listeners(cx, &names));
    dumps.push(routes(cx, &names));
    if let Some(resource) = query.get("resource") {
        return match resources(&dumps, resource) {
            Some(list) => Page::json(&json!({ "configs": list })),
            None => Page::error(
                StatusCode::NOT_FOUND,
                format!("{resource} not found in config dump"),
            ),
        };
    }
    // A kind of which there is nothing is left out.
    dumps.retain(|d| d.as_object().is_some_and(|o| o.len() > 1));
    Page::json(&json!({ "configs": dumps }))
}

/// The elements of one repeated field of the dumps.
fn resources(dumps: &[Value], field: &str) -> Option<Vec<Value>> {
    let found = dumps.iter().find_map(|d| d.get(field));
    let known = [
        "static_clusters",
        "dynamic_active_clusters",
        "dynamic_warming_clusters",
        "static_listeners",
        "dynamic_listeners",
        "static_route_configs",
        "dynamic_route_configs",
        "static_endpoint_configs",
        "dynamic_endpoint_configs",
    ];
    match found {
        Some(Value::Array(list)) => Some(list.clone()),
        Some(_) => None,
        None => known.contains(&field).then(Vec::new),
    }
}

struct Names(Option<Regex>);

impl Names {
    fn show(&self, name: &str) -> bool {
        self.0
            .as_ref()
            .is_none_or(|r| r.is_full_match(name.as_bytes()))
    }
}

fn dump(kind: &str, fields: Vec<(&str, Value)>) -> Value {
    let mut map = Map::new();
    map.insert(
        "@type".to_owned(),
        format!("type.googleapis.com/envoy.admin.v3.{kind}").into(),
    );
    for (name, value) in fields {
        let empty = match &value {
            Value::Array(list) => list.is_empty(),
            Value::String(text) => text.is_empty(),
            Value::Null => true,
            _ => false,
        };
        if !empty {
            map.insert(name.to_owned(), value);
        }
    }
    Value::Object(map)
}

/// A message as JSON with its type. What cannot be shown says why.
fn message(type_url: &str, bytes: &[u8]) -> Value {
    let name = type_url.rsplit('/').next().unwrap_or(type_url);
    let mut value = match xds_api::json::to_json(name, bytes) {
        Ok(value) => value,
        Err(error) => json!({ "error": error.to_string() }),
    };
    if let Some(object) = value.as_object_mut() {
        let fields = std::mem::take(object);
        object.insert("@type".to_owned(), type_url.into());
        object.extend(fields);
    }
    value
}

fn timestamp(at: SystemTime) -> Value {
    let since = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let bytes = prost::Message::encode_to_vec(&xds_api::pb::google::protobuf::Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(since.subsec_millis()).unwrap_or(0) * 1_000_000,
    });
    xds_api::json::to_json("google.protobuf.Timestamp", &bytes).unwrap_or_default()
}

fn bootstrap(cx: &AdminContext<'_>) -> Value {
    let mut value = message("envoy.config.bootstrap.v3.Bootstrap", &cx.bootstrap.bytes);
    if let Some(object) = value.as_object_mut() {
        object.remove("@type");
    }
    let started = SystemTime::now() - cx.state.started.elapsed();
    dump(
        "BootstrapConfigDump",
        vec![("bootstrap", value), ("last_updated", timestamp(started))],
    )
}

/// One resource under the name of its field.
fn entry(field: &str, type_url: &str, received: &Received) -> Value {
    let mut value = json!({});
    if !received.version.is_empty() {
        value["version_info"] = json!(&*received.version);
    }
    value[field] = message(type_url, &received.bytes);
    value["last_updated"] = timestamp(received.at);
    value
}

fn clusters(cx: &AdminContext<'_>, names: &Names) -> Value {
    let shown = |c: &&ClusterEntry| names.show(c.info.name());
    let of = |origin: Origin| -> Value {
        let active = cx
            .snapshot
            .clusters()
            .filter(|c| c.origin == origin)
            .filter(shown);
        active
            .map(|c| entry("cluster", CLUSTER, &c.received))
            .collect::<Vec<_>>()
            .into()
    };
    let warming = cx.snapshot.warming_clusters().filter(shown);
    let warming: Vec<Value> = warming
        .map(|c| entry("cluster", CLUSTER, &c.received))
        .collect();
    dump(
        "ClustersConfigDump",
        vec![
            ("static_clusters", of(Origin::Static)),
            ("dynamic_active_clusters", of(Origin::Dynamic)),
            ("dynamic_warming_clusters", warming.into()),
        ],
    )
}

fn listeners(cx: &AdminContext<'_>, names: &Names) -> Value {
    let shown = |l: &&ListenerEntry| names.show(&l.spec.config.name);
    let (mut fixed, mut dynamic) = (Vec::new(), Vec::new());
    for listener in cx.snapshot.listeners().filter(shown) {
        match listener.origin {
            Origin::Static => fixed.push(entry("listener", LISTENER, &listener.received)),
            Origin::Dynamic => dynamic.push(state("active_state", listener)),
        }
    }
    for listener in cx.snapshot.warming_listeners().filter(shown) {
        dynamic.push(state("warming_state", listener));
    }
    dump(
        "ListenersConfigDump",
        vec![
            ("static_listeners", fixed.into()),
            ("dynamic_listeners", dynamic.into()),
        ],
    )
}

fn state(kind: &str, listener: &ListenerEntry) -> Value {
    json!({ "name": &*listener.spec.config.name, kind: entry("listener", LISTENER, &listener.received) })
}

fn routes(cx: &AdminContext<'_>, names: &Names) -> Value {
    let shown = cx.snapshot.routes().filter(|(name, _)| names.show(name));
    let dynamic: Vec<Value> = shown
        .map(|(_, r)| entry("route_config", ROUTES, &r.received))
        .collect();
    dump(
        "RoutesConfigDump",
        vec![("dynamic_route_configs", dynamic.into())],
    )
}

fn endpoints(cx: &AdminContext<'_>, names: &Names) -> Value {
    let shown = cx
        .snapshot
        .assignments()
        .filter(|(name, _)| names.show(name));
    let dynamic: Vec<Value> = shown
        .map(|(_, a)| entry("endpoint_config", ENDPOINTS, &a.received))
        .collect();
    dump(
        "EndpointsConfigDump",
        vec![("dynamic_endpoint_configs", dynamic.into())],
    )
}
