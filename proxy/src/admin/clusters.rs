//! `/clusters`, text and JSON.

use std::fmt::Write as _;
use std::sync::atomic::Ordering::Relaxed;

use outrigger_config::ir::{CircuitBreakerConfig, RoutingPriority};
use outrigger_config::re2::Regex;
use outrigger_types::Address;
use outrigger_types::StatusCode;
use serde_json::{Value, json};

use super::Page;
use super::pages::AdminContext;
use super::query::Query;
use crate::snapshot::{ClusterEntry, Origin};
use crate::upstream::host::{Health, Host};

/// The page.
pub fn page(cx: &AdminContext<'_>, query: &Query) -> Page {
    let filter = match query.get("filter").map(Regex::new).transpose() {
        Ok(filter) => filter,
        Err(_) => return Page::error(StatusCode::BAD_REQUEST, "Invalid re2 regex\n"),
    };
    let shown = |cluster: &&ClusterEntry| {
        filter
            .as_ref()
            .is_none_or(|f| f.find(cluster.info.name().as_bytes()).is_some())
    };
    let clusters = cx.snapshot.clusters().filter(shown);
    if query.get("format") == Some("json") {
        let statuses: Vec<Value> = clusters.map(cluster_json).collect();
        return Page::json(&json!({ "cluster_statuses": statuses }));
    }
    let mut text = String::new();
    for cluster in clusters {
        cluster_text(&mut text, cluster);
    }
    Page::text(text)
}

fn cluster_text(out: &mut String, cluster: &ClusterEntry) {
    let name = cluster.info.name();
    // Writing to a string does not fail.
    let mut line = |what: &str, value: &dyn std::fmt::Display| {
        let _ = writeln!(out, "{name}::{what}::{value}");
    };
    line("observability_name", cluster.info.observability_name());
    let config = &cluster.info.config;
    for (priority, limits) in [
        ("default", &config.breakers_default),
        ("high", &config.breakers_high),
    ] {
        line(
            &format!("{priority}_priority::max_connections"),
            &limits.max_connections,
        );
        line(
            &format!("{priority}_priority::max_pending_requests"),
            &limits.max_pending_requests,
        );
        line(
            &format!("{priority}_priority::max_requests"),
            &limits.max_requests,
        );
        line(
            &format!("{priority}_priority::max_retries"),
            &limits.max_retries,
        );
    }
    line("added_via_api", &(cluster.origin == Origin::Dynamic));
    if let Some(service) = cluster.eds_name() {
        line("eds_service_name", service);
    }
    for host in cluster.hosts.hosts() {
        let address = host.address.to_string();
        for (what, value) in host_lines(host) {
            line(&format!("{address}::{what}"), &value);
        }
    }
}

fn host_lines(host: &Host) -> Vec<(&'static str, String)> {
    let stats = &host.stats;
    let count = |n: &std::sync::atomic::AtomicU64| n.load(Relaxed).to_string();
    vec![
        ("cx_active", count(&stats.cx_active)),
        ("cx_connect_fail", count(&stats.cx_connect_fail)),
        ("cx_total", count(&stats.cx_total)),
        ("rq_active", stats.rq_active.load(Relaxed).to_string()),
        ("rq_error", count(&stats.rq_error)),
        (
            "rq_pending_active",
            stats.rq_pending.load(Relaxed).to_string(),
        ),
        ("rq_success", count(&stats.rq_success)),
        ("rq_timeout", count(&stats.rq_timeout)),
        ("rq_total", count(&stats.rq_total)),
        ("hostname", host.hostname.to_string()),
        ("health_flags", health_flags(host).to_owned()),
        ("weight", host.weight().to_string()),
        ("region", host.locality.region.to_string()),
        ("zone", host.locality.zone.to_string()),
        ("sub_zone", host.locality.sub_zone.to_string()),
        ("canary", host.canary.to_string()),
        ("priority", host.priority.to_string()),
        ("success_rate", "-1".to_owned()),
        ("local_origin_success_rate", "-1".to_owned()),
    ]
}

fn health_flags(host: &Host) -> &'static str {
    match host.health() {
        Health::Healthy => "healthy",
        Health::Degraded => "/degraded_eds_health",
        Health::Excluded => "/eds_status_draining",
        Health::Unhealthy => "/failed_eds_health",
    }
}

fn cluster_json(cluster: &ClusterEntry) -> Value {
    let config = &cluster.info.config;
    let mut status = json!({
        "name": &**cluster.info.name(),
        "host_statuses": cluster.hosts.hosts().map(|h| host_json(h)).collect::<Vec<_>>(),
        "circuit_breakers": { "thresholds": [
            thresholds(&config.breakers_default, RoutingPriority::Default),
            thresholds(&config.breakers_high, RoutingPriority::High),
        ] },
        "observability_name": &**cluster.info.observability_name(),
    });
    if cluster.origin == Origin::Dynamic {
        status["added_via_api"] = true.into();
    }
    if let Some(service) = cluster.eds_name() {
        status["eds_service_name"] = json!(&**service);
    }
    status
}

fn thresholds(config: &CircuitBreakerConfig, priority: RoutingPriority) -> Value {
    let mut value = json!({
        "max_connections": config.max_connections,
        "max_pending_requests": config.max_pending_requests,
        "max_requests": config.max_requests,
        "max_retries": config.max_retries,
    });
    if priority == RoutingPriority::High {
        value["priority"] = "HIGH".into();
    }
    value
}

fn host_json(host: &Host) -> Value {
    let stats = &host.stats;
    let stat = |kind: Option<&str>, name: &str, n: u64| {
        let mut value = json!({ "name": name });
        if let Some(kind) = kind {
            value["type"] = kind.into();
        }
        if n > 0 {
            value["value"] = n.to_string().into();
        }
        value
    };
    let health = match host.health() {
        Health::Healthy => json!({ "eds_health_status": "HEALTHY" }),
        Health::Degraded => json!({ "eds_health_status": "DEGRADED" }),
        Health::Unhealthy => json!({ "eds_health_status": "UNHEALTHY" }),
        Health::Excluded => json!({ "eds_health_status": "DRAINING" }),
    };
    let mut locality = serde_json::Map::new();
    for (name, part) in [
        ("region", &host.locality.region),
        ("zone", &host.locality.zone),
        ("sub_zone", &host.locality.sub_zone),
    ] {
        if !part.is_empty() {
            locality.insert(name.to_owned(), json!(&**part));
        }
    }
    let mut value = json!({
        "address": address_json(&host.address),
        "stats": [
            stat(None, "cx_connect_fail", stats.cx_connect_fail.load(Relaxed)),
            stat(None, "cx_total", stats.cx_total.load(Relaxed)),
            stat(None, "rq_error", stats.rq_error.load(Relaxed)),
            stat(None, "rq_success", stats.rq_success.load(Relaxed)),
            stat(None, "rq_timeout", stats.rq_timeout.load(Relaxed)),
            stat(None, "rq_total", stats.rq_total.load(Relaxed)),
            stat(Some("GAUGE"), "cx_active", stats.cx_active.load(Relaxed)),
            stat(Some("GAUGE"), "rq_active", stats.rq_active.load(Relaxed).into()),
            stat(Some("GAUGE"), "rq_pending_active", stats.rq_pending.load(Relaxed).into()),
        ],
        "health_status": health,
        "weight": host.weight(),
        "locality": locality,
    });
    if !host.hostname.is_empty() {
        value["hostname"] = json!(&*host.hostname);
    }
    if host.priority > 0 {
        value["priority"] = host.priority.into();
    }
    value
}

/// An address as the API writes it.
pub fn address_json(address: &Address) -> Value {
    match address {
        Address::Ip(addr) => {
            json!({ "socket_address": { "address": addr.ip().to_string(), "port_value": addr.port() } })
        }
        Address::Pipe(path) => json!({ "pipe": { "path": &**path } }),
        Address::Internal(name, id) => {
            json!({ "envoy_internal_address": { "server_listener_name": &**name, "endpoint_id": &**id } })
        }
    }
}
