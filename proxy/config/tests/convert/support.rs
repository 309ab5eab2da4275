//! What the tests of the conversions share.

use std::sync::Arc;

use filter_api::{
    ConfigError, CreateContext, ExtensionRegistry, FactoryContext, HttpFilter, HttpFilterConfig,
    HttpFilterFactory, Interest, RouteFilterConfig, WorkerContext,
};
use outrigger_config::convert::ConvertContext;
use outrigger_stats::Store;
use serde_json::Value;

/// Knows the filters that the proxy is built with, and takes any configuration
/// of theirs.
pub(crate) struct Registry;

const FILTERS: [&str; 8] = [
    "type.googleapis.com/envoy.extensions.filters.http.grpc_stats.v3.FilterConfig",
    "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault",
    "type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer",
    "type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors",
    "type.googleapis.com/envoy.extensions.filters.http.compressor.v3.Compressor",
    "type.googleapis.com/io.istio.http.peer_metadata.Config",
    "type.googleapis.com/istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig",
    "type.googleapis.com/stats.PluginConfig",
];

#[derive(Debug)]
struct Known;

impl HttpFilterConfig for Known {
    fn factory(&self, _worker: &WorkerContext) -> Box<dyn HttpFilterFactory> {
        Box::new(Self)
    }
}

impl HttpFilterFactory for Known {
    fn interest(&self) -> Interest {
        Interest::NONE
    }

    fn create(
        &self,
        _route: Option<&RouteFilterConfig>,
        _cx: &CreateContext<'_>,
    ) -> Option<Box<dyn HttpFilter>> {
        None
    }
}

impl ExtensionRegistry for Registry {
    fn http_filter(
        &self,
        type_url: &str,
        _config: &[u8],
        _cx: &FactoryContext,
    ) -> Result<Arc<dyn HttpFilterConfig>, ConfigError> {
        match FILTERS.contains(&type_url) {
            true => Ok(Arc::new(Known)),
            false => Err(ConfigError::new(format!("unknown filter {type_url}"))),
        }
    }

    fn route_filter(
        &self,
        type_url: &str,
        _config: &[u8],
    ) -> Result<RouteFilterConfig, ConfigError> {
        Ok(Arc::new(type_url.to_owned()))
    }
}

/// A context of its own for each test.
pub(crate) fn context() -> ConvertContext<'static> {
    ConvertContext {
        registry: &Registry,
        store: Store::default(),
        node: Default::default(),
        reject_unknown_fields: false,
    }
}

/// The bytes of a message written in JSON.
pub(crate) fn bytes(name: &str, json: &Value) -> Vec<u8> {
    let parsed = xds_api::json::from_json(name, json)
        .unwrap_or_else(|error| panic!("{name}: {}: {}", error.path, error.reason));
    assert!(parsed.unknown.is_empty(), "{name}: {:?}", parsed.unknown);
    parsed.bytes
}

/// Full names of the resources.
pub(crate) mod names {
    pub(crate) const BOOTSTRAP: &str = "envoy.config.bootstrap.v3.Bootstrap";
    pub(crate) const CLUSTER: &str = "envoy.config.cluster.v3.Cluster";
    pub(crate) const LISTENER: &str = "envoy.config.listener.v3.Listener";
    pub(crate) const LOAD_ASSIGNMENT: &str = "envoy.config.endpoint.v3.ClusterLoadAssignment";
    pub(crate) const ROUTES: &str = "envoy.config.route.v3.RouteConfiguration";
}

/// Converts a resource and forgets the result: none if it was taken, else the
/// error.
pub(crate) fn refusal(name: &str, bytes: &[u8]) -> Option<String> {
    use outrigger_config::convert;
    let cx = context();
    let error = match name {
        names::BOOTSTRAP => convert::bootstrap(bytes, &cx).err(),
        names::CLUSTER => convert::cluster(bytes, &cx).err(),
        names::LISTENER => convert::listener(bytes, &cx).err(),
        names::LOAD_ASSIGNMENT => convert::load_assignment(bytes, &cx).err(),
        names::ROUTES => convert::route_table(bytes, &cx).err(),
        other => panic!("{other} is no resource"),
    };
    error.map(|error| error.to_string())
}

/// A router as the last filter.
pub(crate) fn router() -> Value {
    serde_json::json!({
        "name": "envoy.filters.http.router",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
        }
    })
}

/// An HCM with nothing but what it must have; `fields` are added or replaced.
pub(crate) fn hcm(fields: Value) -> Value {
    let mut message = serde_json::json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "ingress",
        "route_config": { "name": "local" },
        "http_filters": [router()]
    });
    merge(&mut message, fields);
    message
}

/// A listener with one chain that ends in this HCM.
pub(crate) fn listener_with(hcm: Value) -> Value {
    serde_json::json!({
        "name": "l",
        "address": { "socket_address": { "address": "127.0.0.1", "port_value": 10000 } },
        "filter_chains": [{ "filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": hcm
        }] }]
    })
}

/// A static cluster with one host; `fields` are added or replaced.
pub(crate) fn cluster(fields: Value) -> Value {
    let mut message = serde_json::json!({
        "name": "c",
        "type": "STATIC",
        "load_assignment": { "cluster_name": "c", "endpoints": [endpoint("127.0.0.1", 80)] }
    });
    merge(&mut message, fields);
    message
}

/// A locality of one host.
pub(crate) fn endpoint(address: &str, port: u16) -> Value {
    serde_json::json!({ "lb_endpoints": [{ "endpoint": { "address": {
        "socket_address": { "address": address, "port_value": port }
    } } }] })
}

/// A table with one virtual host of one route.
pub(crate) fn routes_with(route: Value) -> Value {
    serde_json::json!({
        "name": "r",
        "virtual_hosts": [{ "name": "v", "domains": ["*"], "routes": [route] }]
    })
}

/// Puts the fields of one object into another; null takes one away.
pub(crate) fn merge(into: &mut Value, fields: Value) {
    let (Value::Object(into), Value::Object(fields)) = (into, fields) else {
        panic!("only objects can be merged");
    };
    for (key, value) in fields {
        match value {
            Value::Null => into.remove(&key),
            value => into.insert(key, value),
        };
    }
}
