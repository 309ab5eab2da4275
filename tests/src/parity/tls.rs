//! A TLS hop in a case: the listener sends its requests over TLS to a second listener of the same
//! proxy, and that one to cluster `a`. So both sides of TLS are the proxy's.
//!
//! Both listeners log to the one log of the case, the second with the word `tls` in front.

use serde::Deserialize;
use serde_json::{Value, json};

use super::template::{merge, usual_format};

const TLS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3";

/// What a case says of its TLS hop. The contexts begin with mutual TLS that works.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// Merged over the `DownstreamTlsContext`.
    pub downstream: Value,
    /// Merged over the `UpstreamTlsContext`.
    pub upstream: Value,
    /// Merged over the HTTP connection manager of the second listener.
    pub hcm: Value,
    /// Merged over the second listener.
    pub listener: Value,
    /// Merged over the cluster `secure`.
    pub cluster: Value,
}

/// What is logged beside the usual, of the downstream side.
const DOWNSTREAM: &[&str] = &[
    "DOWNSTREAM_TLS_VERSION",
    "DOWNSTREAM_TLS_CIPHER",
    "DOWNSTREAM_PEER_URI_SAN",
    "DOWNSTREAM_PEER_SUBJECT",
    "DOWNSTREAM_PEER_ISSUER",
    "DOWNSTREAM_PEER_SERIAL",
    "DOWNSTREAM_PEER_FINGERPRINT_256",
    "DOWNSTREAM_PEER_FINGERPRINT_1",
    "DOWNSTREAM_PEER_CERT",
    "DOWNSTREAM_PEER_CERT_V_START",
    "DOWNSTREAM_PEER_CERT_V_END",
    "DOWNSTREAM_LOCAL_URI_SAN",
    "DOWNSTREAM_LOCAL_DNS_SAN",
    "DOWNSTREAM_LOCAL_SUBJECT",
    "REQUESTED_SERVER_NAME",
    "REQ(X-FORWARDED-PROTO)",
    "REQ(X-FORWARDED-CLIENT-CERT)",
];

/// Likewise of the upstream side.
const UPSTREAM: &[&str] = &[
    "UPSTREAM_TLS_VERSION",
    "UPSTREAM_TLS_CIPHER",
    "UPSTREAM_PEER_URI_SAN",
    "UPSTREAM_PEER_DNS_SAN",
    "UPSTREAM_PEER_SUBJECT",
    "UPSTREAM_PEER_ISSUER",
    "UPSTREAM_PEER_CERT_V_START",
    "UPSTREAM_LOCAL_URI_SAN",
    "UPSTREAM_SERVER_NAME",
];

fn format(before: &str, more: &[&str]) -> Value {
    let more: Vec<String> = more.iter().map(|op| format!("{op}=%{op}%")).collect();
    let line = format!(
        "{before}{}\t{}\n",
        usual_format().trim_end(),
        more.join("\t")
    );
    json!({"text_format_source": {"inline_string": line}})
}

fn certificate(name: &str) -> Value {
    let file = |kind: &str| json!({"filename": format!("{{{{pki}}}}/{name}.{kind}")});
    json!({"certificate_chain": file("pem"), "private_key": file("key")})
}

fn roots() -> Value {
    json!({"filename": "{{pki}}/ca.pem"})
}

/// The first listener, with what it logs of the TLS upstream.
pub(super) fn plain(mut listener: Value) -> Value {
    let manager = &mut listener["filter_chains"][0]["filters"][0]["typed_config"];
    manager["access_log"][0]["typed_config"]["log_format"] = format("", UPSTREAM);
    let hosts = &mut manager["route_config"]["virtual_hosts"];
    for host in hosts.as_array_mut().into_iter().flatten() {
        for route in host["routes"].as_array_mut().into_iter().flatten() {
            if route["route"]["cluster"] == "a" {
                route["route"]["cluster"] = json!("secure");
            }
        }
    }
    listener
}

impl Tls {
    /// The second listener.
    pub(super) fn listener(&self, base: &Value) -> Value {
        let mut context = json!({
            "@type": format!("{TLS}.DownstreamTlsContext"),
            "require_client_certificate": true,
            "common_tls_context": {
                "tls_certificates": [certificate("server")],
                "validation_context": {"trusted_ca": roots()}}});
        merge(&mut context, &self.downstream);
        let mut manager = base["hcm"].clone();
        manager["stat_prefix"] = json!("tls");
        let mut log = base["access_log"].clone();
        log["typed_config"]["log_format"] = format("tls ", DOWNSTREAM);
        manager["access_log"] = json!([log]);
        let route = json!({"match": {"prefix": "/"}, "route": {"cluster": "a"}});
        let host = json!({"name": "all", "domains": ["*"], "routes": [route]});
        manager["route_config"] = json!({"name": "tls", "virtual_hosts": [host]});
        merge(&mut manager, &self.hcm);
        let filter = json!({"name": "hcm", "typed_config": manager});
        let socket = json!({"name": "tls", "typed_config": context});
        let address = json!({"address": "127.0.0.1", "port_value": "{{listener.tls}}"});
        let mut listener = json!({"name": "tls", "address": {"socket_address": address},
            "filter_chains": [{"filters": [filter], "transport_socket": socket}]});
        merge(&mut listener, &self.listener);
        listener
    }

    /// The cluster that leads there.
    pub(super) fn cluster(&self, base: &Value) -> Value {
        let mut context = json!({
            "@type": format!("{TLS}.UpstreamTlsContext"),
            "sni": "outbound_.80_._.server.ns.svc.cluster.local",
            "common_tls_context": {
                "tls_certificates": [certificate("client")],
                "validation_context": {
                    "trusted_ca": roots(),
                    "match_typed_subject_alt_names": [
                        {"san_type": "URI", "matcher": {"exact": "spiffe://td/ns/b/sa/server"}}]}}});
        merge(&mut context, &self.upstream);
        let address = json!({"address": "127.0.0.1", "port_value": "{{listener.tls}}"});
        let endpoint = json!({"endpoint": {"address": {"socket_address": address}}});
        let mut cluster = base["cluster"].clone();
        cluster["name"] = json!("secure");
        cluster["transport_socket"] = json!({"name": "tls", "typed_config": context});
        cluster["load_assignment"] =
            json!({"cluster_name": "secure", "endpoints": [{"lb_endpoints": [endpoint]}]});
        merge(&mut cluster, &self.cluster);
        cluster
    }
}
