//! Field masks of `/config_dump`, on the JSON of the dumps.
//!
//! A mask must fit: a name that a message does not have refuses it, and so does a path
//! that goes on behind a repeated field, or ends at an embedded resource.

use std::fmt;

use serde_json::{Map, Value};
use xds_api::schema::{self, Message};

/// What a field of the dump holds.
#[derive(Clone, Copy)]
enum Holds {
    /// Something that a path may name but not enter.
    Value,
    /// A message of that name.
    Message(&'static str),
    /// A resource of that name, which a path must enter.
    Resource(&'static str),
}

use Holds::{Message as Inner, Resource, Value as Leaf};

type Fields = &'static [(&'static str, Holds)];

const CLUSTER: Holds = Resource("envoy.config.cluster.v3.Cluster");
const LISTENER: Holds = Resource("envoy.config.listener.v3.Listener");
const ROUTES: Holds = Resource("envoy.config.route.v3.RouteConfiguration");
const ENDPOINTS: Holds = Resource("envoy.config.endpoint.v3.ClusterLoadAssignment");

/// The kinds of dumps, with their single fields and the elements of the others.
type Kind = (
    &'static str,
    Fields,
    &'static [(&'static str, &'static str)],
);

#[rustfmt::skip]
const KINDS: &[Kind] = &[
    ("BootstrapConfigDump",
        &[("bootstrap", Inner("envoy.config.bootstrap.v3.Bootstrap")), ("last_updated", Leaf)],
        &[]),
    ("ClustersConfigDump", &[("version_info", Leaf)], &[
        ("static_clusters", "StaticCluster"),
        ("dynamic_active_clusters", "DynamicCluster"),
        ("dynamic_warming_clusters", "DynamicCluster"),
    ]),
    ("ListenersConfigDump", &[("version_info", Leaf)], &[
        ("static_listeners", "StaticListener"),
        ("dynamic_listeners", "DynamicListener"),
    ]),
    ("ScopedRoutesConfigDump", &[], &[
        ("inline_scoped_route_configs", "InlineScopedRouteConfigs"),
        ("dynamic_scoped_route_configs", "DynamicScopedRouteConfigs"),
    ]),
    ("RoutesConfigDump", &[], &[
        ("static_route_configs", "StaticRouteConfig"),
        ("dynamic_route_configs", "DynamicRouteConfig"),
    ]),
    ("SecretsConfigDump", &[], &[
        ("static_secrets", "StaticSecret"),
        ("dynamic_active_secrets", "DynamicSecret"),
        ("dynamic_warming_secrets", "DynamicSecret"),
    ]),
    ("EndpointsConfigDump", &[], &[
        ("static_endpoint_configs", "StaticEndpointConfig"),
        ("dynamic_endpoint_configs", "DynamicEndpointConfig"),
    ]),
];

#[rustfmt::skip]
const ELEMENTS: &[(&str, Fields)] = &[
    ("StaticCluster", &[("cluster", CLUSTER), ("last_updated", Leaf)]),
    ("DynamicCluster", &[
        ("version_info", Leaf), ("cluster", CLUSTER), ("last_updated", Leaf),
        ("error_state", Leaf), ("client_status", Leaf),
    ]),
    ("StaticListener", &[("listener", LISTENER), ("last_updated", Leaf)]),
    ("DynamicListener", &[
        ("name", Leaf), ("active_state", Leaf), ("warming_state", Leaf), ("draining_state", Leaf),
        ("error_state", Leaf), ("client_status", Leaf),
    ]),
    ("StaticRouteConfig", &[("route_config", ROUTES), ("last_updated", Leaf)]),
    ("DynamicRouteConfig", &[
        ("version_info", Leaf), ("route_config", ROUTES), ("last_updated", Leaf),
        ("error_state", Leaf), ("client_status", Leaf),
    ]),
    ("StaticEndpointConfig", &[("endpoint_config", ENDPOINTS), ("last_updated", Leaf)]),
    ("DynamicEndpointConfig", &[
        ("version_info", Leaf), ("endpoint_config", ENDPOINTS), ("last_updated", Leaf),
        ("error_state", Leaf), ("client_status", Leaf),
    ]),
];

/// The kind of dump that has a repeated field, and the type of its elements.
pub(super) fn element_of(field: &str) -> Option<(&'static str, &'static str)> {
    KINDS.iter().find_map(|(kind, _, repeated)| {
        let (_, element) = repeated.iter().find(|(name, _)| *name == field)?;
        Some((*kind, *element))
    })
}

/// Whether a dump has a field of that name that is not repeated.
pub(super) fn is_single(field: &str) -> bool {
    let mut kinds = KINDS.iter();
    kinds.any(|(_, fields, _)| fields.iter().any(|(name, _)| *name == field))
}

/// A mask.
pub(super) struct Mask(Vec<String>);

impl Mask {
    /// Reads paths, with commas between.
    pub(super) fn parse(text: &str) -> Self {
        let paths = text.split(',').filter(|path| !path.is_empty());
        Self(paths.map(str::to_owned).collect())
    }

    /// What is left of a dump; none if the mask does not fit its kind.
    pub(super) fn cut_dump(&self, dump: &Value) -> Option<Value> {
        let kind = dump["@type"].as_str()?.rsplit('.').next()?;
        let (_, fields, repeated) = KINDS.iter().find(|(name, ..)| *name == kind)?;
        let whole = |path: &str| repeated.iter().any(|(name, _)| *name == path);
        let fits = |path: &String| whole(path) || holds(fields, path);
        self.0.iter().all(fits).then(|| self.cut(dump))
    }

    /// What is left of an element; none if the mask does not fit it.
    pub(super) fn cut_element(&self, element: &str, value: &Value) -> Option<Value> {
        let (_, fields) = ELEMENTS.iter().find(|(name, _)| *name == element)?;
        let fits = self.0.iter().all(|path| holds(fields, path));
        fits.then(|| self.cut(value))
    }

    fn cut(&self, value: &Value) -> Value {
        let mut out = Value::Object(Map::new());
        keep_type(value, &mut out);
        for path in &self.0 {
            let names: Vec<&str> = path.split('.').collect();
            copy(value, &names, &mut out);
        }
        out
    }
}

impl fmt::Display for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

/// Whether a path is one of these fields, or goes on within one.
fn holds(fields: Fields, path: &str) -> bool {
    let (name, rest) = match path.split_once('.') {
        Some((name, rest)) => (name, Some(rest)),
        None => (path, None),
    };
    let Some((_, held)) = fields.iter().find(|(field, _)| *field == name) else {
        return false;
    };
    match (held, rest) {
        (Resource(_), None) | (Leaf, Some(_)) => false,
        (Inner(_) | Leaf, None) => true,
        (Resource(inner) | Inner(inner), Some(rest)) => {
            schema::message(inner).is_some_and(|message| is_path(message, rest))
        }
    }
}

/// Whether a path leads through a message.
fn is_path(message: Message, path: &str) -> bool {
    let (name, rest) = match path.split_once('.') {
        Some((name, rest)) => (name, Some(rest)),
        None => (path, None),
    };
    let Some(field) = message.field_by_name(name) else {
        return false;
    };
    match (rest, field.message()) {
        (None, _) => true,
        (Some(rest), Some(inner)) => !field.is_repeated() && is_path(inner, rest),
        (Some(_), None) => false,
    }
}

fn keep_type(from: &Value, to: &mut Value) {
    if let Some(kind) = from.get("@type") {
        to["@type"] = kind.clone();
    }
}

/// Copies what a path names, with the objects on the way.
fn copy(from: &Value, path: &[&str], to: &mut Value) {
    let [name, rest @ ..] = path else { return };
    let Some(value) = from.get(name) else { return };
    if rest.is_empty() {
        to[name] = value.clone();
        return;
    }
    if to.get(name).is_none() {
        to[name] = Value::Object(Map::new());
        keep_type(value, &mut to[name]);
    }
    copy(value, rest, &mut to[name]);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn element(mask: &str) -> Option<Value> {
        let value = json!({
            "cluster": { "@type": "t", "name": "up", "load_assignment": { "cluster_name": "up" } },
            "last_updated": "now",
        });
        Mask::parse(mask).cut_element("StaticCluster", &value)
    }

    #[test]
    fn leaves_what_it_names() {
        assert_eq!(
            element("cluster.name,last_updated"),
            Some(json!({ "cluster": { "@type": "t", "name": "up" }, "last_updated": "now" }))
        );
        assert_eq!(
            element("cluster.load_assignment.cluster_name"),
            Some(
                json!({ "cluster": { "@type": "t", "load_assignment": { "cluster_name": "up" } } })
            )
        );
    }

    #[test]
    fn must_fit() {
        for mask in [
            "cluster",
            "bogus",
            "version_info",
            "cluster.bogus",
            "last_updated,bogus",
            "cluster.load_assignment.endpoints.lb_endpoints",
        ] {
            assert_eq!(element(mask), None, "{mask}");
        }
    }

    #[test]
    fn a_dump_that_it_does_not_fit_is_left_out() {
        let dump =
            json!({ "@type": "x/envoy.admin.v3.ClustersConfigDump", "static_clusters": [1] });
        let cut = |mask: &str| Mask::parse(mask).cut_dump(&dump);
        assert_eq!(cut("static_clusters"), Some(dump.clone()));
        assert!(cut("version_info").is_some() && cut("bootstrap").is_none());
        assert!(cut("static_clusters.cluster").is_none());
    }
}
