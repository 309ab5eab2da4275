//! `/server_info` and `/memory`.

use serde_json::{Value, json};

use super::pages::{AdminContext, ServerState};
use crate::server::options::{self, DrainStrategy, Mode};

/// `LIVE`, `DRAINING` or what comes before.
pub fn state(state: &ServerState) -> &'static str {
    match (state.initialized, state.health_failed) {
        (false, _) => "INITIALIZING",
        (true, true) => "DRAINING",
        (true, false) => "LIVE",
    }
}

/// What the process is, under Envoy's names.
pub fn page(cx: &AdminContext<'_>) -> Value {
    let uptime = format!("{}s", cx.state.started.elapsed().as_secs());
    let node = xds_api::json::to_json(
        "envoy.config.core.v3.Node",
        &cx.bootstrap.config.node.message,
    );
    json!({
        "version": options::version(),
        "state": state(cx.state),
        "uptime_current_epoch": uptime,
        "uptime_all_epochs": uptime,
        "hot_restart_version": "disabled",
        "command_line_options": command_line(cx),
        "node": node.unwrap_or_default(),
    })
}

fn command_line(cx: &AdminContext<'_>) -> Value {
    let o = cx.options;
    let path = |p: &Option<std::path::PathBuf>| {
        p.as_ref()
            .map(|p| p.display().to_string())
            .unwrap_or_default()
    };
    let components: Vec<String> = o
        .component_log_levels
        .iter()
        .map(|(n, l)| format!("{n}:{l}"))
        .collect();
    let tags: Vec<String> = o
        .stats_tags
        .iter()
        .map(|(n, v)| format!("{n}:{v}"))
        .collect();
    json!({
        "concurrency": o.concurrency,
        "config_path": path(&o.config_path),
        "config_yaml": o.config_yaml.clone().unwrap_or_default(),
        "allow_unknown_static_fields": o.allow_unknown_static_fields,
        "reject_unknown_dynamic_fields": o.reject_unknown_dynamic_fields,
        "admin_address_path": path(&o.admin_address_path),
        "local_address_ip_version": if o.ipv6 { "v6" } else { "v4" },
        "log_level": o.log_level,
        "component_log_level": components.join(","),
        "log_format": o.log_format.clone().unwrap_or_default(),
        "log_format_escaped": o.log_format_escaped,
        "log_path": path(&o.log_path),
        "service_cluster": o.service_cluster.clone().unwrap_or_default(),
        "service_node": o.service_node.clone().unwrap_or_default(),
        "service_zone": o.service_zone.clone().unwrap_or_default(),
        "file_flush_interval": format!("{}s", o.file_flush_interval.as_secs_f64()),
        "file_flush_min_size": o.file_flush_min_size / 1024,
        "drain_time": format!("{}s", o.drain_time.as_secs()),
        "drain_strategy": match o.drain_strategy {
            DrainStrategy::Gradual => "Gradual",
            DrainStrategy::Immediate => "Immediate",
        },
        "mode": match o.mode {
            Mode::Serve => "Serve",
            Mode::Validate => "Validate",
            Mode::InitOnly => "InitOnly",
        },
        "disable_hot_restart": true,
        "stats_tag": tags,
    })
}

/// Memory of the process as the system counts it. The allocator's own figures
/// are not kept.
pub fn memory() -> Value {
    let resident = resident_bytes().to_string();
    json!({
        "allocated": resident,
        "heap_size": resident,
        "pageheap_unmapped": "0",
        "pageheap_free": "0",
        "total_thread_cache": "0",
        "total_physical_bytes": resident,
    })
}

/// Resident set size, bytes; 0 where it cannot be told.
pub fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm
        .split_whitespace()
        .nth(1)
        .and_then(|n| n.parse().ok())
        .unwrap_or(0);
    pages * 4096
}
