//! Endpoints in `/config_dump?include_eds`: the hosts in use, as an assignment.

use serde_json::{Value, json};

use super::{Names, with_type};
use crate::admin::clusters::address_json;
use crate::admin::pages::AdminContext;
use crate::snapshot::{ClusterEntry, Origin};
use crate::upstream::host::{Health, Host};
use crate::upstream::priority_set::LocalityHosts;

const ENDPOINTS: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";

/// The dump.
pub(super) fn dump(cx: &AdminContext<'_>, names: &Names) -> Value {
    let of = |origin: Origin| -> Value {
        let clusters = cx.snapshot.clusters().filter(|c| c.origin == origin);
        clusters
            .filter(|c| names.show(service(c)))
            .map(|c| json!({ "endpoint_config": with_type(ENDPOINTS, assignment(c)) }))
            .collect::<Vec<_>>()
            .into()
    };
    super::dump(
        "EndpointsConfigDump",
        vec![
            ("static_endpoint_configs", of(Origin::Static)),
            ("dynamic_endpoint_configs", of(Origin::Dynamic)),
        ],
    )
}

/// What EDS calls the cluster.
fn service(cluster: &ClusterEntry) -> &str {
    cluster.eds_name().unwrap_or(cluster.info.name())
}

fn assignment(cluster: &ClusterEntry) -> Value {
    let priorities = cluster.hosts.priorities.iter().enumerate();
    let groups = priorities
        .flat_map(|(priority, set)| set.localities.iter().map(move |l| locality(priority, l)));
    let mut value = json!({ "cluster_name": service(cluster) });
    let groups: Vec<Value> = groups.collect();
    if !groups.is_empty() {
        value["endpoints"] = groups.into();
    }
    value["policy"] = json!({ "overprovisioning_factor": cluster.hosts.overprovisioning_factor });
    value
}

fn locality(priority: usize, group: &LocalityHosts) -> Value {
    let mut place = json!({});
    for (name, part) in [
        ("region", &group.locality.region),
        ("zone", &group.locality.zone),
        ("sub_zone", &group.locality.sub_zone),
    ] {
        if !part.is_empty() {
            place[name] = json!(&**part);
        }
    }
    let hosts: Vec<Value> = group.hosts.iter().map(|h| endpoint(h)).collect();
    let mut value = json!({
        "locality": place,
        "lb_endpoints": hosts,
        "load_balancing_weight": group.weight,
    });
    if priority > 0 {
        value["priority"] = priority.into();
    }
    value
}

fn endpoint(host: &Host) -> Value {
    let mut endpoint = json!({
        "address": address_json(&host.address),
        "health_check_config": {},
    });
    if !host.hostname.is_empty() {
        endpoint["hostname"] = json!(&*host.hostname);
    }
    let health = match (host.health(), host.status()) {
        (Health::Healthy, _) => "HEALTHY",
        (Health::Degraded, _) => "DEGRADED",
        (Health::Excluded, _) => "DRAINING",
        (Health::Unhealthy, _) => "UNHEALTHY",
    };
    json!({
        "endpoint": endpoint,
        "health_status": health,
        "load_balancing_weight": host.weight(),
    })
}
