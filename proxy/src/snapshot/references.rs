//! Names that must be those of known clusters: in routes (`validate_clusters`), and in sources of
//! configuration.

use std::sync::Arc;

use filter_api::ConfigError;
use outrigger_config::ir::{
    BootstrapConfig, ClusterConfig, ClusterSpecifier, ConfigSourceConfig, ConfigSourceKind,
    DiscoveryConfig, ListenerConfig, NetworkTerminal, NodeConfig, RouteActionConfig, RouteConfig,
    RouteSource, RouteTableConfig, WeightedClusterName,
};

use super::{Origin, Snapshot};

/// What is known of clusters.
pub trait KnownClusters {
    /// Whether there is a cluster of that name, or will be once it is warm.
    fn is_known(&self, name: &str) -> bool;

    /// Whether the bootstrap has a stream of all types.
    fn has_ads(&self) -> bool;

    /// Whether it is one of the bootstrap's that does not itself wait for EDS.
    fn is_primary(&self, name: &str) -> bool;
}

impl Snapshot {
    /// Refuses clusters and sources of a bootstrap that cannot work, once all its clusters are there.
    ///
    /// # Errors
    /// The first one, with its path.
    pub fn check_static(&self, config: &BootstrapConfig) -> Result<(), ConfigError> {
        for entry in self.clusters().chain(self.warming_clusters()) {
            check_cluster(&entry.info.config, self)?;
        }
        check_bootstrap(config, self)
    }
}

impl KnownClusters for Snapshot {
    fn is_known(&self, name: &str) -> bool {
        self.clusters.contains_key(name) || self.warming_clusters.contains_key(name)
    }

    fn has_ads(&self) -> bool {
        self.ads
    }

    fn is_primary(&self, name: &str) -> bool {
        let entry = self.clusters.get(name);
        let entry = entry.or_else(|| self.warming_clusters.get(name));
        entry.is_some_and(|e| e.origin == Origin::Static && e.eds_name().is_none())
    }
}

/// Refuses sources of a bootstrap that cannot work.
///
/// # Errors
/// The first one, with its path.
pub fn check_bootstrap(
    config: &BootstrapConfig,
    known: &dyn KnownClusters,
) -> Result<(), ConfigError> {
    let path = |e: ConfigError, field| {
        e.within(field)
            .within("dynamic_resources")
            .within("bootstrap")
    };
    if let Some(ads) = &config.ads
        && !known.is_known(&ads.cluster)
    {
        let reason = format!("Unknown gRPC client cluster '{}'", ads.cluster);
        return Err(path(
            ConfigError::field("grpc_services", reason),
            "ads_config",
        ));
    }
    for (field, source) in [("cds_config", &config.cds), ("lds_config", &config.lds)] {
        if let Some(source) = source {
            check_source(source, known).map_err(|e| path(e, field))?;
        }
    }
    let subscribes = config.ads.is_some() || config.cds.is_some() || config.lds.is_some();
    let NodeConfig { id, cluster, .. } = &config.node;
    if subscribes && (id.is_empty() || cluster.is_empty()) {
        let reason = "node 'id' and 'cluster' are required. Set it either in 'node' config or via \
                      --service-node and --service-cluster options.";
        return Err(ConfigError::field("node", reason).within("bootstrap"));
    }
    Ok(())
}

/// Envoy's rules: a stream of its own goes to a cluster that is there from the start, and the
/// stream of all types has to be configured.
fn check_source(source: &ConfigSourceConfig, known: &dyn KnownClusters) -> Result<(), ConfigError> {
    let ConfigSourceKind::Api(api) = &source.source else {
        let reason = "there is no ads_config in the bootstrap";
        return match known.has_ads() {
            true => Ok(()),
            false => Err(ConfigError::field("ads", reason)),
        };
    };
    if known.is_primary(&api.cluster) {
        return Ok(());
    }
    let reason = format!(
        "envoy.config.core.v3.ApiConfigSource must have a statically defined non-EDS cluster: '{}' \
         does not exist, was added via api, or is an EDS cluster",
        api.cluster
    );
    Err(ConfigError::field("api_config_source", reason))
}

/// Refuses a cluster whose endpoints come from a cluster that they cannot come from.
///
/// # Errors
/// Which cluster that is.
pub fn check_cluster(config: &ClusterConfig, known: &dyn KnownClusters) -> Result<(), ConfigError> {
    match &config.discovery {
        DiscoveryConfig::Eds { source, .. } => check_source(source, known).map_err(|e| {
            e.within("eds_config")
                .within("eds_cluster_config")
                .within(format!("cluster \"{}\"", config.name))
        }),
        _ => Ok(()),
    }
}

/// Refuses a listener with routes to clusters that are not known, or from one that they cannot come from.
///
/// # Errors
/// Which cluster that is, and where.
pub fn check_listener(
    config: &ListenerConfig,
    known: &dyn KnownClusters,
) -> Result<(), ConfigError> {
    let chains = config.filter_chains.iter();
    for chain in chains.chain(&config.default_filter_chain) {
        let NetworkTerminal::Http(hcm) = &chain.terminal else {
            continue;
        };
        let checked = match &hcm.routes {
            RouteSource::Inline(table) => {
                check_routes(table, known).map_err(|e| e.within("route_config"))
            }
            RouteSource::Rds { source, .. } => {
                check_source(source, known).map_err(|e| e.within("config_source").within("rds"))
            }
        };
        checked.map_err(|e| e.within(format!("listener \"{}\"", config.name)))?;
    }
    Ok(())
}

/// Refuses routes to clusters that are not known, if they ask for that.
///
/// # Errors
/// The first unknown cluster, and where it is named.
pub fn check_routes(
    table: &RouteTableConfig,
    known: &dyn KnownClusters,
) -> Result<(), ConfigError> {
    if !table.validate_clusters {
        return Ok(());
    }
    for (at, host) in table.virtual_hosts.iter().enumerate() {
        for (index, route) in host.routes.iter().enumerate() {
            check_route(route, known).map_err(|e| e.at("routes", index).at("virtual_hosts", at))?;
        }
    }
    Ok(())
}

fn check_route(route: &RouteConfig, known: &dyn KnownClusters) -> Result<(), ConfigError> {
    let RouteActionConfig::Forward(forward) = &route.action else {
        return Ok(());
    };
    let unknown = |name: &&Arc<str>| !known.is_known(name);
    let unknown = match &forward.cluster {
        ClusterSpecifier::Header(_) => None,
        ClusterSpecifier::Cluster(name) => Some(name).filter(unknown),
        ClusterSpecifier::Weighted(weighted) => {
            let names = weighted.clusters.iter().filter_map(|c| match &c.cluster {
                WeightedClusterName::Name(name) => Some(name),
                WeightedClusterName::Header(_) => None,
            });
            names.into_iter().find(unknown)
        }
    };
    match unknown {
        None => Ok(()),
        Some(name) => {
            let reason = format!("unknown cluster '{name}'");
            Err(ConfigError::field("route", reason))
        }
    }
}
