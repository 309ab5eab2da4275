//! From the command line to a bootstrap that was checked.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use filter_api::{ConfigError, ExtensionRegistry};
use outrigger_config::convert::{self, ConvertContext, Converted};
use outrigger_config::ir::{BootstrapConfig, ClusterConfig, DiscoveryConfig};
use outrigger_stats::Store;
use prost::Message;
use xds_api::bootstrap::{self, File};
use xds_api::pb::envoy::config::bootstrap::v3 as pb;
use xds_api::pb::envoy::config::core::v3::{Locality, Node};

use crate::access_log;
use crate::runtime::{self, Runtime};
use crate::server::options::Options;
use crate::snapshot::{self, KnownClusters, Secrets};
use crate::version;

/// A bootstrap that was read.
#[derive(Clone, Debug)]
pub struct LoadedBootstrap {
    /// The serialised message, as `/config_dump` shows it.
    pub bytes: Bytes,
    /// Converted.
    pub config: BootstrapConfig,
    /// Fields that have no effect here: path and reason.
    pub ignored: Vec<(String, String)>,
    /// Paths of fields that the schema does not know.
    pub unknown: Vec<String>,
}

/// Reads the bootstrap that the options name.
///
/// # Errors
/// One message with the file, the path of the field and the reason.
pub fn load(
    options: &Options,
    registry: &dyn ExtensionRegistry,
) -> Result<LoadedBootstrap, String> {
    let path = options.config_path.as_deref();
    let name = path.map_or_else(String::new, |p| p.display().to_string());
    read(options, path, registry)
        .map_err(|reason| format!("error initializing configuration '{name}': {reason}"))
}

fn read(
    options: &Options,
    path: Option<&Path>,
    registry: &dyn ExtensionRegistry,
) -> Result<LoadedBootstrap, String> {
    if path.is_none() && options.config_yaml.is_none() {
        return Err("At least one of --config-path or --config-yaml or Options::configProto() should be non-empty".into());
    }
    let content = path
        .map(std::fs::read)
        .transpose()
        .map_err(|e| missing(&options.config_path, &e))?;
    let file_name = path.map(|p| p.display().to_string()).unwrap_or_default();
    let file = content
        .as_deref()
        .map(|bytes| File::named(&file_name, bytes));
    let allow = bootstrap::Options {
        allow_unknown: options.allow_unknown_static_fields,
    };
    let loaded =
        bootstrap::load(file, options.config_yaml.as_deref(), allow).map_err(|e| e.to_string())?;
    let bytes = with_node(&loaded.bytes, options);
    let store = Store::default();
    let converted =
        convert::bootstrap(&bytes, &context(registry, &store)).map_err(|e| e.to_string())?;
    let mut unknown: Vec<String> = loaded.unknown.iter().map(ToString::to_string).collect();
    unknown.extend(converted.unknown);
    Ok(LoadedBootstrap {
        bytes: bytes.into(),
        config: converted.value,
        ignored: converted.ignored,
        unknown,
    })
}

/// Why the file cannot be read: one that is not there in Envoy's words.
fn missing(path: &Option<PathBuf>, error: &std::io::Error) -> String {
    let path = path.as_deref().unwrap_or(Path::new("")).display();
    match error.kind() {
        std::io::ErrorKind::NotFound => format!("Invalid path: {path}"),
        _ => format!("unable to read file: {error}"),
    }
}

fn context<'a>(registry: &'a dyn ExtensionRegistry, store: &Store) -> ConvertContext<'a> {
    ConvertContext {
        registry,
        store: store.clone(),
        node: Arc::default(),
        reject_unknown_fields: false,
    }
}

/// The bootstrap with what the command line and this build say of the node. Two
/// messages one after the other are merged when they are read, so that nothing
/// of the first has to be understood here.
fn with_node(bytes: &[u8], options: &Options) -> Vec<u8> {
    let node = Node {
        id: options.service_node.clone().unwrap_or_default(),
        cluster: options.service_cluster.clone().unwrap_or_default(),
        locality: options.service_zone.clone().map(|zone| Locality {
            zone,
            ..Locality::default()
        }),
        user_agent_name: "envoy".to_owned(),
        user_agent_version_type: Some(version::of_node()),
        ..Node::default()
    };
    let overlay = pb::Bootstrap {
        node: Some(node),
        ..pb::Bootstrap::default()
    };
    [bytes, &overlay.encode_to_vec()].concat()
}

/// Checks the static resources, as `--mode validate` does.
///
/// # Errors
/// The first that is refused, with its path.
pub fn check_static(
    loaded: &LoadedBootstrap,
    registry: &dyn ExtensionRegistry,
) -> Result<Vec<(String, String)>, String> {
    let store = Store::default();
    let runtime = Runtime::new(&loaded.config.runtime_layers, &store);
    runtime::apply_to_process(&runtime.snapshot());
    let cx = context(registry, &store);
    let mut ignored = loaded.ignored.clone();
    let mut secrets = Secrets::default();
    for bytes in &loaded.config.static_secrets {
        let secret = take(convert::secret(bytes, &cx), &mut ignored)?;
        secrets
            .set_static(&secret, bytes)
            .map_err(|e| e.to_string())?;
    }
    let mut clusters: Vec<ClusterConfig> = Vec::new();
    for bytes in &loaded.config.static_clusters {
        let cluster = take(convert::cluster(bytes, &cx), &mut ignored)?;
        if clusters.iter().any(|known| known.name == cluster.name) {
            return Err(format!(
                "cluster manager: duplicate cluster '{}'",
                cluster.name
            ));
        }
        secrets
            .upstream_sockets(&cluster, None)
            .map_err(|e| e.to_string())?;
        clusters.push(cluster);
    }
    let known = StaticClusters(&clusters);
    for cluster in &clusters {
        snapshot::check_cluster(cluster, &known).map_err(|e| e.to_string())?;
    }
    snapshot::check_bootstrap(&loaded.config, &known).map_err(|e| e.to_string())?;
    let mut listeners = Vec::new();
    for bytes in &loaded.config.static_listeners {
        let listener = take(convert::listener(bytes, &cx), &mut ignored)?;
        snapshot::check_addresses(&listener, &listeners).map_err(|e| e.to_string())?;
        access_log::check(&listener)?;
        snapshot::check_listener(&listener, &known).map_err(|e| e.to_string())?;
        secrets
            .downstream_sockets(&listener, None)
            .map_err(|e| e.to_string())?;
        listeners.push(listener);
    }
    Ok(ignored)
}

/// The clusters of a bootstrap.
struct StaticClusters<'a>(&'a [ClusterConfig]);

impl StaticClusters<'_> {
    fn get(&self, name: &str) -> Option<&ClusterConfig> {
        self.0.iter().find(|cluster| *cluster.name == *name)
    }
}

impl KnownClusters for StaticClusters<'_> {
    fn is_known(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Envoy finds it missing only where it serves.
    fn has_ads(&self) -> bool {
        true
    }

    fn is_primary(&self, name: &str) -> bool {
        let cluster = self.get(name);
        cluster.is_some_and(|c| !matches!(c.discovery, DiscoveryConfig::Eds { .. }))
    }
}

fn take<T>(
    converted: Result<Converted<T>, ConfigError>,
    ignored: &mut Vec<(String, String)>,
) -> Result<T, String> {
    let converted = converted.map_err(|e| e.to_string())?;
    ignored.extend(converted.ignored);
    Ok(converted.value)
}
