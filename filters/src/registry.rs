//! The one table of extensions.

use std::sync::Arc;

use filter_api::{
    ConfigError, ExtensionRegistry, FactoryContext, HttpFilterConfig, RouteFilterConfig,
};

/// The filters that are built in.
#[derive(Clone, Copy, Debug, Default)]
pub struct Registry;

impl ExtensionRegistry for Registry {
    fn http_filter(
        &self,
        type_url: &str,
        _config: &[u8],
        _cx: &FactoryContext,
    ) -> Result<Arc<dyn HttpFilterConfig>, ConfigError> {
        Err(unknown(type_url))
    }

    fn route_filter(&self, type_url: &str, _config: &[u8]) -> Result<RouteFilterConfig, ConfigError> {
        Err(unknown(type_url))
    }
}

fn unknown(type_url: &str) -> ConfigError {
    ConfigError::new(format!("HTTP filter {type_url} is not supported"))
}
