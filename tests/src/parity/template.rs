//! From the brief `config` of a case to a whole bootstrap.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::tls::{self, Tls};
use crate::upstream::{Protocol, Script};

/// What a case says about its bootstrap. Everything given is merged over the base:
/// maps by key (null removes), anything else replaces.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `http` (when unset), `tcp`, `ads`, or `none`: only the admin address.
    pub base: Base,
    /// Merged over the whole result.
    pub bootstrap: Value,
    /// Merged over the listener.
    pub listener: Value,
    /// The filter chains instead of the usual one.
    pub chains: Vec<Chain>,
    /// Merged over the HTTP connection manager.
    pub hcm: Value,
    /// HTTP filters before the router.
    pub filters: Vec<Value>,
    /// Merged over the TCP proxy.
    pub tcp_proxy: Value,
    /// Merged over the route configuration.
    pub route_config: Value,
    /// Merged over the one virtual host.
    pub virtual_host: Value,
    /// Merged over the route action of the default route.
    pub route: Value,
    /// The routes instead of the default one.
    pub routes: Option<Vec<Value>>,
    /// Merged over every cluster.
    pub cluster: Value,
    /// Merged over the cluster of this name, made when no upstream has it. The key `hosts`
    /// lists the upstreams behind it, each a name or a map of name, weight, priority.
    pub clusters: BTreeMap<String, Value>,
    /// The access log format instead of the usual one.
    pub log_format: Option<String>,
    /// A TLS hop between the listener and the upstream.
    pub tls: Option<Tls>,
}

/// One of several filter chains of the listener.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chain {
    /// Its name, which is the stat prefix too, and what it answers to HTTP.
    name: String,
    /// `filter_chain_match`; without it the chain is the default one, unless it is alone.
    #[serde(default, rename = "match")]
    matches: Option<Value>,
    /// The cluster that a TCP proxy sends to; without it the chain answers HTTP by its name.
    tcp: Option<String>,
}

/// What a bootstrap starts from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Base {
    /// One listener with an HTTP connection manager.
    #[default]
    Http,
    /// One listener with a TCP proxy.
    Tcp,
    /// No listener.
    None,
    /// Listeners and clusters from an ADS server on `{{upstream.xds}}`; what the other keys
    /// describe is not in the bootstrap, it is there for the script to push.
    Ads,
}

const BASE: &str = include_str!("../../parity/base/http.yaml");

/// The operators whose values are compared in every case, in this order.
const OPERATORS: &[&str] = &[
    "RESPONSE_CODE",
    "RESPONSE_FLAGS",
    "RESPONSE_CODE_DETAILS",
    "CONNECTION_TERMINATION_DETAILS",
    "UPSTREAM_TRANSPORT_FAILURE_REASON",
    "BYTES_RECEIVED",
    "BYTES_SENT",
    "PROTOCOL",
    "REQ(:METHOD)",
    "REQ(X-ENVOY-ORIGINAL-PATH?:PATH)",
    "REQ(:AUTHORITY)",
    "UPSTREAM_CLUSTER",
    "UPSTREAM_HOST",
    "ROUTE_NAME",
    "UPSTREAM_REQUEST_ATTEMPT_COUNT",
    "GRPC_STATUS",
];

pub(super) fn usual_format() -> String {
    let items: Vec<String> = OPERATORS.iter().map(|op| format!("{op}=%{op}%")).collect();
    items.join("\t") + "\n"
}

/// Merges `over` into `under`.
pub fn merge(under: &mut Value, over: &Value) {
    match (under, over) {
        (_, Value::Null) => {}
        (Value::Object(under), Value::Object(over)) => {
            for (key, value) in over {
                if value.is_null() {
                    under.remove(key);
                } else {
                    merge(under.entry(key.clone()).or_insert(Value::Null), value);
                }
            }
        }
        (under, over) => *under = over.clone(),
    }
}

impl Config {
    /// The bootstrap with placeholders still in it.
    ///
    /// # Errors
    /// When the base file does not parse.
    pub fn bootstrap(&self, upstreams: &BTreeMap<String, Script>) -> Result<Value, String> {
        let base: Value = serde_yaml_ng::from_str(BASE).map_err(|e| e.to_string())?;
        let mut bootstrap = base["bootstrap"].clone();
        let mut resources = Map::new();
        let mut clusters = self.clusters(&base, upstreams);
        if let (Some(tls), Base::Http) = (&self.tls, self.base) {
            let plain = tls::plain(self.listener(&base));
            resources.insert("listeners".to_owned(), json!([plain, tls.listener(&base)]));
            clusters.push(tls.cluster(&base));
        } else if matches!(self.base, Base::Http | Base::Tcp) {
            resources.insert("listeners".to_owned(), json!([self.listener(&base)]));
        }
        if self.base == Base::Ads {
            clusters = vec![self.control_plane(&base)];
            bootstrap["dynamic_resources"] = base["dynamic_resources"].clone();
        }
        if !clusters.is_empty() {
            resources.insert("clusters".to_owned(), Value::Array(clusters));
        }
        bootstrap["static_resources"] = Value::Object(resources);
        merge(&mut bootstrap, &self.bootstrap);
        Ok(bootstrap)
    }

    /// The cluster of the control plane.
    fn control_plane(&self, base: &Value) -> Value {
        let host = Host {
            name: "xds".to_owned(),
            ..Host::default()
        };
        let mut cluster = base["cluster"].clone();
        cluster["name"] = json!("xds");
        cluster["typed_extension_protocol_options"] = base["http2"].clone();
        cluster["load_assignment"] =
            json!({"cluster_name": "xds", "endpoints": localities(&[host])});
        cluster
    }

    /// A resource as the other keys describe it: `listener`, `route`, or the cluster or the
    /// endpoints of a name.
    ///
    /// # Errors
    /// When there is none of that kind.
    pub fn resource(
        &self,
        kind: &str,
        name: &str,
        upstreams: &BTreeMap<String, Script>,
    ) -> Result<Value, String> {
        let base: Value = serde_yaml_ng::from_str(BASE).map_err(|e| e.to_string())?;
        match (kind, name, &self.tls) {
            ("listener", "tls", Some(tls)) => return Ok(tls.listener(&base)),
            ("listener", _, Some(_)) => return Ok(tls::plain(self.listener(&base))),
            ("cluster", "secure", Some(tls)) => return Ok(tls.cluster(&base)),
            _ => {}
        }
        match kind {
            "listener" => Ok(self.listener(&base)),
            "route" => Ok(self.route_configuration(&base)),
            "cluster" => Ok(self.cluster(name, &base, upstreams)),
            "endpoints" => Ok(self.cluster(name, &base, upstreams)["load_assignment"].clone()),
            other => Err(format!(
                "no resource of kind {other:?} can be made from the config"
            )),
        }
    }

    fn listener(&self, base: &Value) -> Value {
        let mut log = base["access_log"].clone();
        let format = self.log_format.clone().unwrap_or_else(usual_format);
        log["typed_config"]["log_format"] =
            json!({"text_format_source": {"inline_string": format}});
        let (name, mut filter) = if self.base != Base::Tcp {
            (
                "envoy.filters.network.http_connection_manager",
                self.manager(base),
            )
        } else {
            let mut proxy = base["tcp_proxy"].clone();
            proxy["cluster"] = json!("a");
            merge(&mut proxy, &self.tcp_proxy);
            ("envoy.filters.network.tcp_proxy", proxy)
        };
        if filter.get("access_log").is_none() {
            filter["access_log"] = json!([log]);
        }
        let mut listener = base["listener"].clone();
        listener["filter_chains"] = json!([{"filters": [{"name": name, "typed_config": filter}]}]);
        if !self.chains.is_empty() {
            self.put_chains(&mut listener, base, &log);
        }
        merge(&mut listener, &self.listener);
        listener
    }

    fn put_chains(&self, listener: &mut Value, base: &Value, log: &Value) {
        let (matched, rest): (Vec<&Chain>, Vec<&Chain>) = self
            .chains
            .iter()
            .partition(|chain| chain.matches.is_some());
        let chains = matched.iter().map(|chain| self.chain(chain, base, log));
        listener["filter_chains"] = chains.collect();
        if let Some(chain) = rest.first() {
            let key = ["filter_chains", "default_filter_chain"][usize::from(!matched.is_empty())];
            let chain = self.chain(chain, base, log);
            listener[key] = if matched.is_empty() {
                json!([chain])
            } else {
                chain
            };
        }
    }

    fn chain(&self, chain: &Chain, base: &Value, log: &Value) -> Value {
        let (name, mut filter) = match &chain.tcp {
            Some(cluster) => {
                let mut proxy = base["tcp_proxy"].clone();
                proxy["cluster"] = json!(cluster);
                merge(&mut proxy, &self.tcp_proxy);
                ("envoy.filters.network.tcp_proxy", proxy)
            }
            None => {
                let answer = json!({"status": 200, "body": {"inline_string": chain.name}});
                let route = json!({"match": {"prefix": "/"}, "direct_response": answer});
                let mut manager = self.manager(base);
                manager["route_config"]["virtual_hosts"][0]["routes"] = json!([route]);
                ("envoy.filters.network.http_connection_manager", manager)
            }
        };
        filter["access_log"] = json!([log]);
        filter["stat_prefix"] = json!(chain.name);
        let filters = json!([{"name": name, "typed_config": filter}]);
        let mut made = json!({"name": chain.name, "filters": filters});
        if let Some(matches) = &chain.matches {
            made["filter_chain_match"] = matches.clone();
        }
        made
    }

    fn route_configuration(&self, base: &Value) -> Value {
        let mut route = base["route"].clone();
        route["route"] = json!({"cluster": "a"});
        merge(&mut route["route"], &self.route);
        let mut host = base["virtual_host"].clone();
        host["routes"] = self.routes.clone().map_or(json!([route]), Value::Array);
        merge(&mut host, &self.virtual_host);
        let mut config = base["route_config"].clone();
        config["virtual_hosts"] = json!([host]);
        merge(&mut config, &self.route_config);
        config
    }

    fn manager(&self, base: &Value) -> Value {
        let mut manager = base["hcm"].clone();
        if !self.filters.is_empty() {
            let router = manager["http_filters"][0].clone();
            let all = self.filters.iter().cloned().chain([router]).collect();
            manager["http_filters"] = Value::Array(all);
        }
        manager["route_config"] = self.route_configuration(base);
        merge(&mut manager, &self.hcm);
        manager
    }

    fn clusters(&self, base: &Value, upstreams: &BTreeMap<String, Script>) -> Vec<Value> {
        let mut names: Vec<&String> = upstreams.keys().collect();
        names.extend(
            self.clusters
                .keys()
                .filter(|name| !upstreams.contains_key(*name)),
        );
        let grouped: Vec<String> = self
            .clusters
            .values()
            .flat_map(hosts)
            .map(|h| h.name)
            .collect();
        let alone = |name: &&String| self.clusters.contains_key(*name) || !grouped.contains(name);
        names.retain(alone);
        names
            .into_iter()
            .map(|name| self.cluster(name, base, upstreams))
            .collect()
    }

    fn cluster(&self, name: &str, base: &Value, upstreams: &BTreeMap<String, Script>) -> Value {
        let own = self.clusters.get(name).cloned().unwrap_or(Value::Null);
        let mut members = hosts(&own);
        if members.is_empty() && upstreams.contains_key(name) {
            members.push(Host {
                name: name.to_owned(),
                ..Host::default()
            });
        }
        let mut cluster = base["cluster"].clone();
        cluster["name"] = json!(name);
        let h2 = |h: &Host| {
            upstreams
                .get(&h.name)
                .is_some_and(|u| u.protocol == Protocol::H2)
        };
        if members.iter().any(h2) {
            cluster["typed_extension_protocol_options"] = base["http2"].clone();
        }
        let endpoints = localities(&members);
        cluster["load_assignment"] = json!({"cluster_name": name, "endpoints": endpoints});
        merge(&mut cluster, &self.cluster);
        merge(&mut cluster, &own);
        if let Value::Object(map) = &mut cluster {
            map.remove("hosts");
        }
        cluster
    }
}

/// One upstream behind a cluster.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Host {
    name: String,
    weight: Option<u32>,
    priority: u32,
    health: Option<String>,
}

fn hosts(cluster: &Value) -> Vec<Host> {
    let list = cluster.get("hosts").and_then(Value::as_array);
    let host = |value: &Value| match value {
        Value::String(name) => Some(Host {
            name: name.clone(),
            ..Host::default()
        }),
        other => serde_json::from_value(other.clone()).ok(),
    };
    list.into_iter().flatten().filter_map(host).collect()
}

impl Host {
    fn endpoint(&self) -> Value {
        let port = format!("{{{{upstream.{}}}}}", self.name);
        let address = json!({"socket_address": {"address": "127.0.0.1", "port_value": port}});
        let mut endpoint = json!({"endpoint": {"address": address}});
        if let Some(weight) = self.weight {
            endpoint["load_balancing_weight"] = json!(weight);
        }
        if let Some(health) = &self.health {
            endpoint["health_status"] = json!(health);
        }
        endpoint
    }
}

/// Hosts grouped by priority.
fn localities(hosts: &[Host]) -> Vec<Value> {
    let mut by_priority: BTreeMap<u32, Vec<Value>> = BTreeMap::new();
    for host in hosts {
        by_priority
            .entry(host.priority)
            .or_default()
            .push(host.endpoint());
    }
    let group = |(priority, list)| json!({"priority": priority, "lb_endpoints": list});
    by_priority.into_iter().map(group).collect()
}

/// Replaces placeholders: a string that is one placeholder for a port becomes a number.
#[must_use]
pub fn fill(text: &str, values: &BTreeMap<String, String>) -> String {
    values.iter().fold(text.to_owned(), |text, (name, value)| {
        let mark = format!("{{{{{name}}}}}");
        let text = match value.parse::<u16>() {
            Ok(_) => text.replace(&format!("\"{mark}\""), value),
            Err(_) => text,
        };
        text.replace(&mark, value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_goes_by_key_and_null_removes() {
        let mut under = json!({"a": {"b": 1, "c": 2}, "l": [1]});
        merge(&mut under, &json!({"a": {"b": null, "d": 3}, "l": [2]}));
        assert_eq!(under, json!({"a": {"c": 2, "d": 3}, "l": [2]}));
    }

    #[test]
    fn a_port_placeholder_becomes_a_number() {
        let values = BTreeMap::from([("admin".to_owned(), "9901".to_owned())]);
        assert_eq!(
            fill(r#"{"p":"{{admin}}","t":"x {{admin}}"}"#, &values),
            r#"{"p":9901,"t":"x 9901"}"#
        );
    }
}
