//! `/config_dump`: resources as they were received.

use std::time::SystemTime;

use outrigger_config::re2::Regex;
use outrigger_types::StatusCode;
use serde_json::{Map, Value, json};

mod endpoints;
mod mask;
mod secrets;

use mask::Mask;

use super::Page;
use super::pages::AdminContext;
use super::query::Query;
use crate::snapshot::{ClusterEntry, ListenerEntry, Origin, Received};

const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
const ROUTES: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";

/// The page.
pub fn page(cx: &AdminContext<'_>, query: &Query) -> Page {
    let expression = query.get("name_regex");
    let names = match expression.map(Regex::new).transpose() {
        Ok(names) => Names(names),
        Err(reason) => {
            let expression = expression.unwrap_or_default();
            return refused(
                StatusCode::BAD_REQUEST,
                format!(
                    "INVALID_ARGUMENT: Error while parsing name_regex from {expression}: {reason}"
                ),
            );
        }
    };
    let mut dumps = vec![bootstrap(cx), clusters(cx, &names)];
    if query.has("include_eds") {
        dumps.push(endpoints::dump(cx, &names));
    }
    dumps.push(listeners(cx, &names));
    dumps.push(dump("ScopedRoutesConfigDump", Vec::new()));
    dumps.push(routes(cx, &names));
    dumps.push(secrets::dump(cx, &names));
    let mask = query.get("mask").map(Mask::parse);
    let configs = match query.get("resource") {
        Some(resource) => resources(&dumps, resource, mask.as_ref()),
        None => whole(dumps, mask.as_ref()),
    };
    match configs {
        Ok(configs) if configs.is_empty() => Page::json(&json!({})),
        Ok(configs) => Page::json(&json!({ "configs": configs })),
        Err(page) => page,
    }
}

fn refused(status: StatusCode, body: String) -> Page {
    Page {
        status,
        content_type: "text/plain",
        body,
    }
}

/// All dumps, or what a mask leaves of those that it fits.
fn whole(dumps: Vec<Value>, mask: Option<&Mask>) -> Result<Vec<Value>, Page> {
    let Some(mask) = mask else { return Ok(dumps) };
    let cut = dumps.iter().filter_map(|dump| mask.cut_dump(dump));
    let cut: Vec<Value> = cut.collect();
    if cut.is_empty() {
        return Err(refused(
            StatusCode::BAD_REQUEST,
            format!("FieldMask {mask} could not be successfully applied to any configs."),
        ));
    }
    Ok(cut)
}

/// The elements of one repeated field of the dumps, each with its type.
fn resources(dumps: &[Value], field: &str, mask: Option<&Mask>) -> Result<Vec<Value>, Page> {
    let Some((kind, element)) = mask::element_of(field) else {
        return Err(if mask::is_single(field) {
            let reason = format!(
                "{field} is not a repeated field. Use ?mask={field} to get only this field"
            );
            refused(StatusCode::BAD_REQUEST, reason)
        } else {
            refused(
                StatusCode::NOT_FOUND,
                format!("{field} not found in config dump"),
            )
        });
    };
    let list = dumps.iter().find_map(|d| d.get(field)?.as_array());
    let unusable = |mask: &Mask| {
        refused(
            StatusCode::BAD_REQUEST,
            format!("FieldMask {mask} could not be successfully used."),
        )
    };
    list.into_iter()
        .flatten()
        .map(|value| {
            let value = match mask {
                Some(mask) => mask
                    .cut_element(element, value)
                    .ok_or_else(|| unusable(mask))?,
                None => value.clone(),
            };
            Ok(with_type(
                &format!("type.googleapis.com/envoy.admin.v3.{kind}.{element}"),
                value,
            ))
        })
        .collect()
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
    match xds_api::json::to_json(name, bytes) {
        Ok(mut value) => {
            secrets::redact(&mut value);
            with_type(type_url, value)
        }
        Err(error) => json!({ "@type": type_url, "error": error.to_string() }),
    }
}

/// An object with its type in front.
fn with_type(type_url: &str, mut value: Value) -> Value {
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
    let fixed = cx
        .snapshot
        .listeners()
        .flat_map(|listener| inline_routes(&listener.received, names));
    let fixed: Vec<Value> = fixed.collect();
    dump(
        "RoutesConfigDump",
        vec![
            ("static_route_configs", fixed.into()),
            ("dynamic_route_configs", dynamic.into()),
        ],
    )
}

/// The routes that stand in a listener.
fn inline_routes(listener: &Received, names: &Names) -> Vec<Value> {
    let message = message(LISTENER, &listener.bytes);
    let chains = message["filter_chains"].as_array().into_iter().flatten();
    let all = chains.chain(message.get("default_filter_chain"));
    let filters = all.flat_map(|chain| chain["filters"].as_array().into_iter().flatten());
    let routes = filters.filter_map(|filter| filter["typed_config"].get("route_config"));
    routes
        .filter(|routes| names.show(routes["name"].as_str().unwrap_or_default()))
        .map(|routes| {
            json!({
                "route_config": with_type(ROUTES, routes.clone()),
                "last_updated": timestamp(listener.at),
            })
        })
        .collect()
}
