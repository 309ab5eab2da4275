//! How configuration meets the filters that are built in, without knowing them.

use std::sync::Arc;

use outrigger_stats::Store;

use crate::{ConfigError, HttpFilterConfig, RouteFilterConfig};

/// Where a filter is being configured.
#[derive(Clone, Debug)]
pub struct FactoryContext {
    /// Prefix of the stats of the HCM or listener, with its final dot:
    /// `http.ingress.`
    pub stat_prefix: Arc<str>,
    /// Where stats are registered.
    pub store: Store,
}

/// The table of extensions, by type URL.
pub trait ExtensionRegistry: Send + Sync {
    /// Validates an HTTP filter's configuration.
    ///
    /// # Errors
    /// If the type is not known, or the configuration is refused.
    fn http_filter(
        &self,
        type_url: &str,
        config: &[u8],
        cx: &FactoryContext,
    ) -> Result<Arc<dyn HttpFilterConfig>, ConfigError>;

    /// Validates a per-route override.
    ///
    /// # Errors
    /// If the type is not known, or the configuration is refused.
    fn route_filter(&self, type_url: &str, config: &[u8])
    -> Result<RouteFilterConfig, ConfigError>;
}
