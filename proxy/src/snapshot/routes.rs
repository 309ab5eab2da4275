//! Route configurations from RDS.

use std::sync::Arc;

use filter_api::ConfigError;
use outrigger_config::convert;

use super::references::check_routes;
use super::{Applied, Received, Snapshot};
use crate::router::matcher::RouteTable;
use crate::server::worker::Change;

/// A route configuration that is known.
pub struct RouteEntry {
    /// As received.
    pub received: Received,
    /// Ready for look-ups.
    pub table: Arc<RouteTable>,
}

impl Snapshot {
    /// Takes in a route configuration; listeners that wait for it go on.
    ///
    /// # Errors
    /// If it is refused; what there was serves on.
    pub fn apply_routes(&mut self, received: Received) -> Result<Applied, ConfigError> {
        let config = self.convert(|cx| convert::route_table(&received.bytes, cx))?;
        let name = config.name.clone();
        if self
            .routes
            .get(&name)
            .is_some_and(|r| r.received.bytes == received.bytes)
        {
            return Ok(Applied::Unchanged);
        }
        check_routes(&config, self)?;
        let table = RouteTable::new(Arc::new(config), &self.store);
        self.pending
            .push(Change::Routes(name.clone(), table.clone()));
        self.routes.insert(name, RouteEntry { received, table });
        self.publish_warm_listeners();
        Ok(Applied::Changed)
    }

    /// Takes away routes that no listener names any more.
    pub fn remove_routes(&mut self, name: &str) {
        if self.routes.remove(name).is_some() {
            self.pending.push(Change::RemoveRoutes(name.into()));
        }
    }

    /// Route configurations by name.
    pub fn routes(&self) -> impl Iterator<Item = (&Arc<str>, &RouteEntry)> {
        self.routes.iter()
    }
}
