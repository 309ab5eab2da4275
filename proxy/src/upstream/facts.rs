//! What the access log says of the upstream side.

use std::time::Instant;

use outrigger_types::UpstreamInfo;

use super::cluster::WorkerCluster;
use super::host::Host;
use super::pool::ConnectionMeta;

/// Notes which cluster a stream goes to.
pub fn note_cluster(upstream: &mut UpstreamInfo, cluster: &WorkerCluster) {
    upstream.cluster = Some(cluster.info.observability_name().clone());
    upstream.cluster_raw = Some(cluster.info.name().clone());
    upstream.cluster_metadata = cluster.info.config.metadata.clone();
}

/// Notes the host that it goes to, or would have gone to.
pub fn note_host(upstream: &mut UpstreamInfo, host: &Host) {
    upstream.host = Some(host.address.clone());
    upstream.hostname = Some(host.hostname.clone());
    upstream.host_metadata = host.metadata.clone();
    let zone = &host.locality.zone;
    upstream.zone = (!zone.is_empty()).then(|| zone.clone());
}

/// Notes the connection that it goes out on, to the host noted before.
pub fn note_connection(upstream: &mut UpstreamInfo, meta: &ConnectionMeta) {
    upstream.attempted.extend(upstream.host.clone());
    upstream
        .attempted_hostnames
        .extend(upstream.hostname.clone());
    upstream.attempted_connection_ids.push(meta.id);
    upstream.connection_id = Some(meta.id);
    upstream.local = meta.local.clone();
    upstream.remote = Some(meta.remote.clone());
    upstream.tls.clone_from(&meta.tls);
    upstream.filter_state.clone_from(&meta.filter_state);
    upstream.protocol = meta.protocol;
    upstream.connect_start = Some(meta.connect_start);
    upstream.connect_end = Some(meta.opened);
    upstream.pool_ready = Some(Instant::now());
}
