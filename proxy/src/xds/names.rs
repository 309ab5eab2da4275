//! Names of what is subscribed to.

use std::sync::Arc;

use xds_client::types;

/// A type and a name.
pub(super) type Wanted = (Arc<str>, Arc<str>);

/// The type URLs, shared.
pub(super) struct TypeUrls([Arc<str>; 5]);

impl TypeUrls {
    pub(super) fn new() -> Self {
        let urls = [
            types::CLUSTER,
            types::ENDPOINTS,
            types::LISTENER,
            types::ROUTES,
            types::SECRET,
        ];
        Self(urls.map(Arc::from))
    }

    /// The shared copy of a type URL.
    pub(super) fn get(&self, url: &str) -> Arc<str> {
        let found = self.0.iter().find(|known| ***known == *url);
        found.map_or_else(|| url.into(), Clone::clone)
    }
}
