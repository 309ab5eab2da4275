//! The bootstrap.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use filter_api::ConfigError;

use super::access_log::access_logs;
use super::any::{Typed, extension};
use super::bind::bind;
use super::common::address;
use super::dns::Resolver;
use super::endpoint::locality_name;
use super::path::{Within, duration_or, each, optional, refuse, required};
use super::runtime_layer::layers;
use super::source::{api, config_source};
use super::stats::stats_config;
use super::structure::{json_object, structure};
use super::{ConvertContext, Converted, Result, check, defaults, raw};
use crate::ir::{
    AdminConfig, ApiConfigSource, BindConfig, BootstrapConfig, ConfigSourceConfig, LogFormatConfig,
    NodeConfig,
};
use crate::pb::envoy::config::accesslog::v3 as log;
use crate::pb::envoy::config::bootstrap::v3 as pb;
use crate::pb::envoy::config::core::v3 as core;
use crate::pb::envoy::config::overload::v3 as overload;
use crate::pb::envoy::extensions::access_loggers::file::v3::FileAccessLog;
use crate::pb::envoy::extensions::resource_monitors::downstream_connections::v3 as connections;
use pb::bootstrap as parts;

/// Numbers of the fields that are passed on as bytes.
mod field {
    /// `Bootstrap.node`
    pub(super) const NODE: u32 = 1;
    /// `Bootstrap.static_resources`
    pub(super) const STATIC_RESOURCES: u32 = 2;
    /// `StaticResources.listeners`
    pub(super) const LISTENERS: u32 = 1;
    /// `StaticResources.clusters`
    pub(super) const CLUSTERS: u32 = 2;
    /// `StaticResources.secrets`
    pub(super) const SECRETS: u32 = 3;
}

/// Converts a bootstrap. Its static resources are left as bytes, unexamined:
/// each goes through its own entry point afterwards.
///
/// # Errors
/// For a value or a field that is refused, with its path.
pub fn bootstrap(bytes: &[u8], cx: &ConvertContext<'_>) -> Result<Converted<BootstrapConfig>> {
    let rest = raw::without(bytes, field::STATIC_RESOURCES);
    let converted = check::entry::<pb::Bootstrap, _>(
        check::BOOTSTRAP,
        &rest,
        cx,
        |_| "bootstrap".to_owned(),
        convert,
    )?;
    let resources = raw::submessages(bytes, field::STATIC_RESOURCES);
    let all = |field| {
        let of_one = |resources: &Bytes| raw::submessages(resources, field);
        resources.iter().flat_map(of_one).collect()
    };
    let node = raw::submessages(bytes, field::NODE);
    Ok(converted.map(|mut config| {
        config.static_listeners = all(field::LISTENERS);
        config.static_clusters = all(field::CLUSTERS);
        config.static_secrets = all(field::SECRETS);
        // A message that stands there twice is merged, which joining its bytes does.
        config.node.message = node.concat().into();
        config
    }))
}

/// Takes the message apart; long because every field stands here once.
fn convert(message: pb::Bootstrap) -> Result<BootstrapConfig> {
    let pb::Bootstrap {
        node: node_message,
        node_context_params: _,
        static_resources: _,
        dynamic_resources,
        cluster_manager,
        hds_config: _,
        flags_path: _,
        stats_sinks: _,
        deferred_stat_options: _,
        stats_config: stats,
        stats_flush_interval,
        watchdog: _,
        watchdogs: _,
        tracing: _,
        layered_runtime,
        admin: admin_message,
        overload_manager,
        enable_dispatcher_stats: _,
        header_prefix: _,
        stats_server_version_override: _,
        use_tcp_for_dns_lookups,
        dns_resolution_config,
        typed_dns_resolver_config,
        bootstrap_extensions,
        fatal_actions: _,
        config_sources: _,
        default_config_source: _,
        default_socket_interface: _,
        certificate_provider_instances: _,
        inline_headers: _,
        perf_tracing_file_path: _,
        default_regex_engine: _,
        xds_delegate_extension: _,
        xds_config_tracker_extension: _,
        listener_manager: _,
        application_log_config,
        grpc_async_client_manager_config: _,
        memory_allocator_manager: _,
        enable_worker_cpu_affinity: _,
        stats_flush,
        stats_eviction: _,
    } = message;
    let resolver = Resolver {
        typed: typed_dns_resolver_config,
        resolution: dns_resolution_config,
        servers: Vec::new(),
        tcp: use_tcp_for_dns_lookups,
    };
    let dynamic = dynamic(dynamic_resources).within("dynamic_resources")?;
    each(
        "bootstrap_extensions",
        bootstrap_extensions,
        bootstrap_extension,
    )?;
    Ok(BootstrapConfig {
        node: node(node_message),
        admin: optional("admin", admin_message, admin)?.flatten(),
        static_clusters: Vec::new(),
        static_listeners: Vec::new(),
        static_secrets: Vec::new(),
        ads: dynamic.ads,
        lds: dynamic.lds,
        cds: dynamic.cds,
        runtime_layers: layers(layered_runtime).within("layered_runtime")?,
        stats_flush_interval: match stats_flush {
            Some(pb::bootstrap::StatsFlush::StatsFlushOnAdmin(_)) => None,
            None => Some(duration_or(
                "stats_flush_interval",
                stats_flush_interval,
                defaults::STATS_FLUSH_INTERVAL,
            )?),
        },
        stats: stats_config(stats).within("stats_config")?,
        max_downstream_connections: optional(
            "overload_manager",
            overload_manager,
            max_connections,
        )?
        .flatten(),
        upstream_bind: optional("cluster_manager", cluster_manager, upstream_bind)?.flatten(),
        dns_resolver: resolver.config()?.unwrap_or_default(),
        log_format: optional("application_log_config", application_log_config, log_format)?
            .flatten(),
    })
}

/// The node; the rest of it only matters to the control plane, which gets the
/// message as it is.
fn node(message: Option<core::Node>) -> NodeConfig {
    let core::Node {
        id,
        cluster,
        metadata,
        dynamic_parameters: _,
        locality,
        user_agent_name: _,
        extensions: _,
        client_features: _,
        listening_addresses: _,
        user_agent_version_type: _,
    } = message.unwrap_or_default();
    NodeConfig {
        id: id.into(),
        cluster: cluster.into(),
        locality: locality_name(locality),
        metadata: structure(metadata.unwrap_or_default()),
        message: Bytes::new(),
    }
}

/// The sources of `dynamic_resources`.
struct Dynamic {
    ads: Option<Arc<ApiConfigSource>>,
    lds: Option<ConfigSourceConfig>,
    cds: Option<ConfigSourceConfig>,
}

fn dynamic(message: Option<parts::DynamicResources>) -> Result<Dynamic> {
    let parts::DynamicResources {
        lds_config,
        lds_resources_locator: _,
        cds_config,
        cds_resources_locator: _,
        ads_config,
    } = message.unwrap_or_default();
    Ok(Dynamic {
        ads: optional("ads_config", ads_config, |message| {
            api(message).map(Arc::new)
        })?,
        lds: optional("lds_config", lds_config, config_source)?,
        cds: optional("cds_config", cds_config, config_source)?,
    })
}

/// Of the cluster manager where upstream sockets are bound.
fn upstream_bind(message: pb::ClusterManager) -> Result<Option<BindConfig>> {
    let pb::ClusterManager {
        local_cluster_name: _,
        outlier_detection: _,
        upstream_bind_config,
        load_stats_config: _,
        enable_deferred_cluster_creation: _,
    } = message;
    optional("upstream_bind_config", upstream_bind_config, |message| {
        bind(message, "Bootstrap")
    })
}

/// Without an address there is no admin endpoint.
fn admin(message: pb::Admin) -> Result<Option<AdminConfig>> {
    let pb::Admin {
        access_log,
        access_log_path,
        profile_path: _,
        address: address_message,
        socket_options: _,
        ignore_global_conn_limit: _,
        allow_paths: _,
    } = message;
    let mut access_logs = access_logs("access_log", access_log)?;
    if !access_log_path.is_empty() {
        access_logs.extend(file_log(access_log_path)?);
    }
    let Some(at) = address_message else {
        return Ok(None);
    };
    Ok(Some(AdminConfig {
        address: address(at).within("address")?,
        access_logs,
    }))
}

/// The deprecated `access_log_path` is a file logger of the default format.
fn file_log(path: String) -> Result<Vec<crate::ir::AccessLogConfig>> {
    let config = crate::pb::google::protobuf::Any {
        type_url: "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog"
            .to_owned(),
        value: prost::Message::encode_to_vec(&FileAccessLog {
            path,
            access_log_format: None,
        }),
    };
    access_logs(
        "access_log_path",
        vec![log::AccessLog {
            name: String::new(),
            filter: None,
            config_type: Some(log::access_log::ConfigType::TypedConfig(config)),
        }],
    )
}

/// Of the overload manager only the limit on downstream connections.
fn max_connections(message: overload::OverloadManager) -> Result<Option<u64>> {
    let overload::OverloadManager {
        refresh_interval: _,
        resource_monitors,
        actions: _,
        loadshed_points: _,
        buffer_factory_config: _,
    } = message;
    let limits = each("resource_monitors", resource_monitors, monitor)?;
    match limits.as_slice() {
        [] => Ok(None),
        [limit] => Ok(Some(*limit)),
        _ => refuse("resource_monitors", "a monitor may be configured only once"),
    }
}

fn monitor(message: overload::ResourceMonitor) -> Result<u64> {
    use overload::resource_monitor::ConfigType;
    let overload::ResourceMonitor {
        name: _,
        config_type,
    } = message;
    let ConfigType::TypedConfig(config) = required("typed_config", config_type)?;
    let decode = |typed: Typed| match typed.name.as_str() {
        "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig" => {
            typed.decode::<connections::DownstreamConnectionsConfig>()
        }
        _ => typed.unsupported("resource monitor"),
    };
    let connections::DownstreamConnectionsConfig {
        max_active_downstream_connections,
    } = Typed::unpack(config)
        .and_then(decode)
        .within("typed_config")?;
    match u64::try_from(max_active_downstream_connections) {
        Ok(limit) if limit > 0 => Ok(limit),
        _ => refuse(
            "max_active_downstream_connections",
            "value must be greater than 0",
        )
        .within("typed_config"),
    }
}

/// Internal listeners are the only extension, and without meaning as long as no
/// listener is one.
fn bootstrap_extension(message: core::TypedExtensionConfig) -> Result<()> {
    let typed = extension(message).within("typed_config")?;
    match typed.name.as_str() {
        "envoy.extensions.bootstrap.internal_listener.v3.InternalListener" => Ok(()),
        _ => typed
            .unsupported("bootstrap extension")
            .within("typed_config"),
    }
}

fn log_format(message: parts::ApplicationLogConfig) -> Result<Option<LogFormatConfig>> {
    use parts::application_log_config::log_format::LogFormat as Kind;
    let parts::ApplicationLogConfig { log_format } = message;
    let Some(parts::application_log_config::LogFormat { log_format }) = log_format else {
        return Ok(None);
    };
    Ok(Some(
        match required("log_format", log_format).within("log_format")? {
            Kind::TextFormat(text) => LogFormatConfig::Text(text.into()),
            Kind::JsonFormat(object) => {
                let patterns = json_object(object)
                    .into_iter()
                    .map(|(key, value)| match value {
                        serde_json::Value::String(text) => Ok((key.into(), text.into())),
                        _ => Err(ConfigError::field(
                            "json_format",
                            format!("{key} is no string"),
                        )),
                    });
                let patterns: Result<BTreeMap<_, _>> = patterns.collect();
                LogFormatConfig::Json(patterns.within("log_format")?)
            }
        },
    ))
}
