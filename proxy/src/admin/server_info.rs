//! `/server_info`.

use std::time::Duration;

use serde_json::{Value, json};

use super::pages::{AdminContext, ServerState};
use crate::server::logging::DEFAULT_FORMAT;
use crate::server::options::{DrainStrategy, Mode};
use crate::version;
use crate::xds::InitState;

/// What the process says of itself (`ServerInfo.State`), with the number of stat
/// `server.state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It serves.
    Live = 0,
    /// It serves, and asks not to be sent more.
    Draining = 1,
    /// Clusters are waited for.
    PreInitializing = 2,
    /// Listeners are waited for.
    Initializing = 3,
}

impl State {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Live => "LIVE",
            Self::Draining => "DRAINING",
            Self::PreInitializing => "PRE_INITIALIZING",
            Self::Initializing => "INITIALIZING",
        }
    }
}

/// The state of the process.
pub fn state(state: &ServerState) -> State {
    match state.init {
        InitState::Primary | InitState::Clusters => State::PreInitializing,
        InitState::Listeners => State::Initializing,
        InitState::Initialized if state.health_failed => State::Draining,
        InitState::Initialized => State::Live,
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
        "version": version::full(),
        "state": state(cx.state).name(),
        "uptime_current_epoch": uptime,
        "uptime_all_epochs": uptime,
        "hot_restart_version": "disabled",
        "command_line_options": command_line(cx),
        "node": with_defaults(node.unwrap_or_default()),
        "hot_restart_initializing": false,
    })
}

/// The node with those of its fields that are unset too, which this page shows.
fn with_defaults(mut node: Value) -> Value {
    for (name, default) in [
        ("id", json!("")),
        ("cluster", json!("")),
        ("extensions", json!([])),
        ("client_features", json!([])),
        ("listening_addresses", json!([])),
        ("dynamic_parameters", json!({})),
    ] {
        if node.get(name).is_none() {
            node[name] = default;
        }
    }
    if let Some(version) = node.pointer_mut("/user_agent_build_version/version")
        && version.get("patch").is_none()
    {
        version["patch"] = 0.into();
    }
    node
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
    let typed = |name: &str| o.typed.text(name).cloned().unwrap_or_default();
    let list = |text: String| -> Vec<String> {
        let parts = text.split(',').filter(|part| !part.is_empty());
        parts.map(str::to_owned).collect()
    };
    let seconds = |time: Duration| format!("{}s", time.as_secs_f64());
    json!({
        "base_id": o.typed.number("base-id", 0).to_string(),
        "concurrency": o.concurrency,
        "config_path": path(&o.config_path),
        "config_yaml": o.config_yaml.clone().unwrap_or_default(),
        "allow_unknown_static_fields": o.allow_unknown_static_fields,
        "admin_address_path": path(&o.admin_address_path),
        "local_address_ip_version": if o.ipv6 { "v6" } else { "v4" },
        "log_level": o.log_level,
        "component_log_level": components.join(","),
        "log_format": o.log_format.as_deref().unwrap_or(DEFAULT_FORMAT),
        "log_path": path(&o.log_path),
        "service_cluster": o.service_cluster.clone().unwrap_or_default(),
        "service_node": o.service_node.clone().unwrap_or_default(),
        "service_zone": o.service_zone.clone().unwrap_or_default(),
        "file_flush_interval": seconds(o.file_flush_interval),
        "drain_time": seconds(o.drain_time),
        "parent_shutdown_time": format!("{}s", o.typed.number("parent-shutdown-time-s", 900)),
        "mode": match o.mode {
            Mode::Serve => "Serve",
            Mode::Validate => "Validate",
            Mode::InitOnly => "InitOnly",
        },
        // There is no hot restart that could be on.
        "disable_hot_restart": true,
        "enable_mutex_tracing": o.typed.has("enable-mutex-tracing"),
        "restart_epoch": o.typed.number("restart-epoch", 0),
        "cpuset_threads": o.typed.has("cpuset-threads"),
        "reject_unknown_dynamic_fields": o.reject_unknown_dynamic_fields,
        "log_format_escaped": o.log_format_escaped,
        "disabled_extensions": list(typed("disable-extensions")),
        "ignore_unknown_dynamic_fields": o.typed.has("ignore-unknown-dynamic-fields"),
        "use_dynamic_base_id": o.typed.has("use-dynamic-base-id"),
        "base_id_path": typed("base-id-path"),
        "drain_strategy": match o.drain_strategy {
            DrainStrategy::Gradual => "Gradual",
            DrainStrategy::Immediate => "Immediate",
        },
        "enable_fine_grain_logging": o.typed.has("enable-fine-grain-logging"),
        "socket_path": o.typed.text("socket-path").map_or("@envoy_domain_socket", String::as_str),
        "socket_mode": typed("socket-mode").parse::<u32>().unwrap_or(0),
        "enable_core_dump": o.typed.has("enable-core-dump"),
        "stats_tag": tags,
        "skip_hot_restart_on_no_parent": o.typed.has("skip-hot-restart-on-no-parent"),
        "skip_hot_restart_parent_stats": o.typed.has("skip-hot-restart-parent-stats"),
        "skip_deprecated_logs": o.typed.has("skip-deprecated-logs"),
        // Envoy shows what was typed here, not its default of 64.
        "file_flush_min_size": o.typed.number("file-flush-min-size-kb", 0),
        "log_stacktrace_single_entry": o.typed.has("log-stacktrace-single-entry"),
    })
}
