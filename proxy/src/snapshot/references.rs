//! Names in routes that must be those of known clusters (`validate_clusters`).

use std::sync::Arc;

use filter_api::ConfigError;
use outrigger_config::ir::{
    ClusterSpecifier, ListenerConfig, NetworkTerminal, RouteActionConfig, RouteConfig, RouteSource,
    RouteTableConfig, WeightedClusterName,
};

use super::Snapshot;

impl Snapshot {
    /// Refuses a listener with routes to clusters that are not known.
    pub(super) fn check_listener(&self, config: &ListenerConfig) -> Result<(), ConfigError> {
        let chains = config.filter_chains.iter();
        for chain in chains.chain(&config.default_filter_chain) {
            if let NetworkTerminal::Http(hcm) = &chain.terminal
                && let RouteSource::Inline(table) = &hcm.routes
            {
                self.check_routes(table).map_err(|e| {
                    e.within("route_config")
                        .within(format!("listener \"{}\"", config.name))
                })?;
            }
        }
        Ok(())
    }

    /// Refuses routes to clusters that are not known, if they ask for that.
    pub(super) fn check_routes(&self, table: &RouteTableConfig) -> Result<(), ConfigError> {
        if !table.validate_clusters {
            return Ok(());
        }
        for (at, host) in table.virtual_hosts.iter().enumerate() {
            for (index, route) in host.routes.iter().enumerate() {
                self.check_route(route)
                    .map_err(|e| e.at("routes", index).at("virtual_hosts", at))?;
            }
        }
        Ok(())
    }

    fn check_route(&self, route: &RouteConfig) -> Result<(), ConfigError> {
        let RouteActionConfig::Forward(forward) = &route.action else {
            return Ok(());
        };
        let unknown = match &forward.cluster {
            ClusterSpecifier::Header(_) => None,
            ClusterSpecifier::Cluster(name) => Some(name).filter(|n| !self.knows_cluster(n)),
            ClusterSpecifier::Weighted(weighted) => {
                let names = weighted.clusters.iter().filter_map(|c| match &c.cluster {
                    WeightedClusterName::Name(name) => Some(name),
                    WeightedClusterName::Header(_) => None,
                });
                names.into_iter().find(|n| !self.knows_cluster(n))
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

    fn knows_cluster(&self, name: &Arc<str>) -> bool {
        self.clusters.contains_key(name) || self.warming_clusters.contains_key(name)
    }
}
