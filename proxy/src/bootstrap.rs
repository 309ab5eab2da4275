//! From the command line to a bootstrap that was checked.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use filter_api::{ConfigError, ExtensionRegistry};
use outrigger_config::convert::{self, ConvertContext, Converted};
use outrigger_config::ir::{
    BootstrapConfig, ClusterSpecifier, HcmConfig, ListenerConfig, NetworkTerminal,
};
use outrigger_config::ir::{RouteActionConfig, RouteSource, RouteTableConfig, WeightedClusterName};
use outrigger_stats::Store;
use prost::Message;
use xds_api::bootstrap::{self, File};
use xds_api::pb::envoy::config::bootstrap::v3 as pb;
use xds_api::pb::envoy::config::core::v3::{
    BuildVersion, Locality, Node, node::UserAgentVersionType,
};
use xds_api::pb::envoy::r#type::v3::SemanticVersion;

use crate::server::options::Options;

/// The release of Envoy whose API and behaviour this proxy has.
pub const ENVOY_VERSION: SemanticVersion = SemanticVersion {
    major_number: 1,
    minor_number: 40,
    patch: 0,
};

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
    let name = path.map_or_else(|| "--config-yaml".to_owned(), |p| p.display().to_string());
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
        .map_err(|e| format!("unable to read file: {e}"))?;
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

fn context<'a>(registry: &'a dyn ExtensionRegistry, store: &Store) -> ConvertContext<'a> {
    ConvertContext {
        registry,
        store: store.clone(),
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
        user_agent_version_type: Some(UserAgentVersionType::UserAgentBuildVersion(BuildVersion {
            version: Some(ENVOY_VERSION),
            metadata: None,
        })),
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
    let cx = context(registry, &store);
    let mut ignored = loaded.ignored.clone();
    let mut clusters: Vec<Arc<str>> = Vec::new();
    for bytes in &loaded.config.static_clusters {
        let cluster = take(convert::cluster(bytes, &cx), &mut ignored)?;
        if clusters.contains(&cluster.name) {
            return Err(format!(
                "cluster manager: duplicate cluster '{}'",
                cluster.name
            ));
        }
        clusters.push(cluster.name);
    }
    for bytes in &loaded.config.static_listeners {
        let listener = take(convert::listener(bytes, &cx), &mut ignored)?;
        for hcm in hcms(&listener) {
            if let RouteSource::Inline(table) = &hcm.routes {
                check_clusters(table, &clusters)?;
            }
        }
    }
    Ok(ignored)
}

fn take<T>(
    converted: Result<Converted<T>, ConfigError>,
    ignored: &mut Vec<(String, String)>,
) -> Result<T, String> {
    let converted = converted.map_err(|e| e.to_string())?;
    ignored.extend(converted.ignored);
    Ok(converted.value)
}

fn hcms(listener: &ListenerConfig) -> impl Iterator<Item = &Arc<HcmConfig>> {
    let chains = listener
        .filter_chains
        .iter()
        .chain(&listener.default_filter_chain);
    chains.filter_map(|chain| match &chain.terminal {
        NetworkTerminal::Http(hcm) => Some(hcm),
        NetworkTerminal::None => None,
    })
}

/// Envoy's rule: an inline route table that is to be checked names only clusters
/// that exist.
///
/// # Errors
/// The first unknown cluster.
pub fn check_clusters(table: &RouteTableConfig, known: &[Arc<str>]) -> Result<(), String> {
    if !table.validate_clusters {
        return Ok(());
    }
    let missing = |name: &Arc<str>| !known.contains(name);
    for route in table.virtual_hosts.iter().flat_map(|v| &v.routes) {
        let RouteActionConfig::Forward(forward) = &route.action else {
            continue;
        };
        let unknown = match &forward.cluster {
            ClusterSpecifier::Cluster(name) => Some(name).filter(|n| missing(n)),
            ClusterSpecifier::Header(_) => None,
            ClusterSpecifier::Weighted(weighted) => {
                weighted.clusters.iter().find_map(|w| match &w.cluster {
                    WeightedClusterName::Name(name) => Some(name).filter(|n| missing(n)),
                    WeightedClusterName::Header(_) => None,
                })
            }
        };
        if let Some(name) = unknown {
            return Err(format!("route: unknown cluster '{name}'"));
        }
    }
    Ok(())
}
