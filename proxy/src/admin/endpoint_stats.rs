//! Stats of single endpoints, which clusters have that ask for them
//! (`TrackClusterStats.per_endpoint_stats`).

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use outrigger_stats::{Row, RowValue};

use super::pages::AdminContext;
use crate::upstream::host::{Health, Host};

/// The stats of all endpoints of such clusters, in Envoy's order.
pub(super) fn rows(cx: &AdminContext<'_>) -> Vec<Row> {
    let clusters = cx.snapshot.clusters();
    let tracked = clusters.filter(|cluster| cluster.info.config.tracked.per_endpoint);
    let mut rows = Vec::new();
    for cluster in tracked {
        let name = cluster.info.observability_name();
        for host in cluster.hosts.hosts() {
            of_host(&mut rows, name, host);
        }
    }
    rows
}

fn of_host(rows: &mut Vec<Row>, cluster: &Arc<str>, host: &Host) {
    let address = host.address.to_string();
    let prefix = format!("cluster.{cluster}.endpoint.{}", address.replace(':', "_"));
    let mut tags: Vec<(Arc<str>, String)> = vec![
        ("envoy.cluster_name".into(), cluster.to_string()),
        ("envoy.endpoint_address".into(), address),
    ];
    if !host.hostname.is_empty() {
        tags.push(("envoy.endpoint_hostname".into(), host.hostname.to_string()));
    }
    let stats = &host.stats;
    let counters = [
        ("cx_connect_fail", &stats.cx_connect_fail),
        ("cx_total", &stats.cx_total),
        ("rq_error", &stats.rq_error),
        ("rq_success", &stats.rq_success),
        ("rq_timeout", &stats.rq_timeout),
        ("rq_total", &stats.rq_total),
    ];
    let counters = counters.map(|(name, n)| (name, RowValue::Counter(n.load(Relaxed))));
    let healthy = u64::from(host.health() == Health::Healthy);
    let gauges = [
        ("cx_active", stats.cx_active.load(Relaxed)),
        ("rq_active", stats.rq_active.load(Relaxed).into()),
        ("rq_pending_active", stats.rq_pending.load(Relaxed).into()),
        ("healthy", healthy),
    ];
    let gauges = gauges.map(|(name, n)| (name, RowValue::Gauge(n)));
    for (name, value) in counters.into_iter().chain(gauges) {
        let bare = format!("cluster.endpoint.{name}");
        // As in Envoy they count as used from the start.
        rows.push(Row::outside(
            format!("{prefix}.{name}"),
            &bare,
            &tags,
            value,
            true,
        ));
    }
}
