//! How configuration meets the filters that are built in, without knowing them.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use outrigger_stats::Store;
use outrigger_types::MetadataValue;

use crate::{ConfigError, HttpFilterConfig, RouteFilterConfig};

/// Who this proxy is, by its bootstrap (`core.v3.Node`).
#[derive(Clone, Debug)]
pub struct LocalNode {
    /// Id; may be empty.
    pub id: Arc<str>,
    /// A struct of whatever the node says of itself.
    pub metadata: MetadataValue,
    /// Region of its locality; may be empty.
    pub region: Arc<str>,
    /// Zone of its locality; may be empty.
    pub zone: Arc<str>,
}

impl Default for LocalNode {
    /// A node that says nothing.
    fn default() -> Self {
        Self {
            id: "".into(),
            metadata: MetadataValue::Struct(BTreeMap::new()),
            region: "".into(),
            zone: "".into(),
        }
    }
}

/// Where a filter is being configured.
#[derive(Clone, Debug)]
pub struct FactoryContext {
    /// Who this proxy is.
    pub node: Arc<LocalNode>,
    /// Prefix of the stats of the HCM or listener, with its final dot:
    /// `http.ingress.`
    pub stat_prefix: Arc<str>,
    /// Where stats are registered.
    pub store: Store,
    /// What the filters of the chain that is being made know of each other.
    pub chain: Chain,
}

/// What the filters of one chain leave for each other when they are configured; empty at
/// first. A clone is of the same chain.
#[derive(Clone, Debug, Default)]
pub struct Chain(Arc<Mutex<Left>>);

type Left = Vec<Arc<dyn Any + Send + Sync>>;

impl Chain {
    /// Leaves something, after what is there.
    pub fn add(&self, left: Arc<dyn Any + Send + Sync>) {
        self.left().push(left);
    }

    /// All of one type that was left, in the order of the filters.
    pub fn all<T: Any + Send + Sync>(&self) -> Arc<[Arc<T>]> {
        let left = self.left();
        let all = left.iter().filter_map(|any| any.clone().downcast().ok());
        all.collect()
    }

    /// Half of what a panic left here is as good as the rest of it.
    fn left(&self) -> MutexGuard<'_, Left> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
