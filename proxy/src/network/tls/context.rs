//! Contexts whose certificates and roots may come later, and change.
//!
//! A secret lives in a [`SecretCell`] that the main thread fills; contexts hold the cells that they
//! use. What is made of a context and the present secrets is kept until a secret changes, and is made
//! on first use: of thousands of clusters most are never called.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use arc_swap::ArcSwapOption;
use outrigger_config::ir::{DownstreamTlsConfig, SecretValue, TlsContextConfig, UpstreamTlsConfig};
use outrigger_stats::{Gauge, Scope, Slab};
use parking_lot::Mutex;

use super::certificate::Identity;
use super::client::TlsClient;
use super::params::algorithms;
use super::server::TlsServer;
use super::stats::{ContextStats, SslStats};
use super::verify::Trust;

/// A secret, read.
#[derive(Clone, Debug)]
pub enum Secret {
    /// A certificate and its key.
    Identity(Arc<Identity>),
    /// What verifies a peer.
    Trust(Trust),
}

impl Secret {
    /// # Errors
    /// For what cannot be read.
    pub fn read(value: &SecretValue) -> Result<Self, String> {
        Ok(match value {
            SecretValue::Certificate(config) => Self::Identity(Arc::new(Identity::read(config)?)),
            SecretValue::Validation(config) => Self::Trust(Trust::read(config)?),
        })
    }
}

/// Where a secret is found by those who use it; empty until it has arrived.
#[derive(Debug, Default)]
pub struct SecretCell {
    secret: ArcSwapOption<Secret>,
    given_up: AtomicBool,
}

impl SecretCell {
    /// A new version of the secret.
    pub fn set(&self, secret: Secret) {
        self.secret.store(Some(Arc::new(secret)));
    }

    /// The present version.
    pub fn get(&self) -> Option<Arc<Secret>> {
        self.secret.load_full()
    }

    /// Nobody waits any more for the first version.
    pub fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
    }

    /// Whether there is nothing to wait for.
    fn is_settled(&self) -> bool {
        self.given_up.load(Ordering::Relaxed) || self.secret.load().is_some()
    }
}

/// The secrets of a context: those given with it, and the cells of the others.
#[derive(Debug)]
struct Sources {
    identities: Vec<Arc<Identity>>,
    identity_cells: Vec<Arc<SecretCell>>,
    trust: Trust,
    trust_cell: Option<Arc<SecretCell>>,
}

/// Keeps the names of a context's stats, and counts the secrets that it gets.
#[derive(Debug)]
pub struct ContextNames {
    cells: Vec<Arc<SecretCell>>,
    contexts: Slab<ContextStats>,
    _ends: Vec<Gauge>,
    _ssl: Slab<SslStats>,
}

impl ContextNames {
    /// A secret has another version.
    pub fn note_update(&self, cell: &Arc<SecretCell>) {
        if self.cells.iter().any(|own| Arc::ptr_eq(own, cell)) {
            self.contexts.inc(ContextStats::ssl_context_update_by_sds);
        }
    }
}

/// What [`Sources`] hold at a time.
struct Present {
    identities: Vec<Arc<Identity>>,
    trust: Trust,
    /// The versions of the cells, to see whether they have changed.
    versions: Vec<Arc<Secret>>,
}

impl Sources {
    fn read(
        config: &TlsContextConfig,
        mut cell: impl FnMut(&outrigger_config::ir::SecretRef) -> Result<Arc<SecretCell>, String>,
    ) -> Result<Self, String> {
        let lacking = algorithms(&config.params)?.lacking;
        super::name_lacking(&lacking);
        let identities = config.certificates.iter();
        let cells = config.certificate_secrets.iter();
        Ok(Self {
            identities: identities
                .map(|one| Identity::read(one).map(Arc::new))
                .collect::<Result<_, _>>()?,
            identity_cells: cells.map(&mut cell).collect::<Result<_, _>>()?,
            trust: Trust::read(&config.validation)?,
            trust_cell: config.validation_secret.as_ref().map(cell).transpose()?,
        })
    }

    /// Registers what a context counts, before there is anything to count, and until when its own
    /// certificates are valid.
    fn register(&self, scope: &Scope, factory: &str) -> ContextNames {
        let scope_of_ssl = scope.scope("ssl.");
        let own = self
            .identities
            .iter()
            .map(|own| (own.leaf.not_after, "cert"));
        let roots = self.trust.roots_end().map(|end| (end, "ca_cert"));
        let ends = own.chain(roots).map(|(end, kind)| {
            // The hash of no name at all.
            let name = format!("certificate.unnamed_{kind}_e3b0c442.expiration_unix_time_seconds");
            let gauge = scope_of_ssl.gauge(&name);
            let since = end
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap_or_default();
            gauge.set(i64::try_from(since.as_secs()).unwrap_or(i64::MAX));
            gauge
        });
        let names = ContextNames {
            cells: self.cells().cloned().collect(),
            contexts: scope.scope(factory).slab(),
            _ends: ends.collect(),
            _ssl: scope_of_ssl.slab(),
        };
        // As in Envoy, roots that are there already count as an update.
        if let Some(cell) = self.trust_cell.as_ref().filter(|c| c.get().is_some()) {
            names.note_update(cell);
        }
        names
    }

    fn cells(&self) -> impl Iterator<Item = &Arc<SecretCell>> {
        self.identity_cells.iter().chain(&self.trust_cell)
    }

    /// The present versions of all cells; none while one is empty.
    fn versions(&self) -> Option<Vec<Arc<Secret>>> {
        self.cells().map(|cell| cell.get()).collect()
    }

    fn present(&self, versions: Vec<Arc<Secret>>) -> Present {
        let mut identities = self.identities.clone();
        let mut trust = self.trust.clone();
        for version in &versions {
            match &**version {
                Secret::Identity(identity) => identities.push(identity.clone()),
                Secret::Trust(secret) => trust = trust.merged_with(secret),
            }
        }
        Present {
            identities,
            trust,
            versions,
        }
    }
}

/// What was made of a context, and of which versions of its secrets.
#[derive(Debug)]
struct Made<T> {
    context: Arc<T>,
    versions: Vec<Arc<Secret>>,
}

/// The last that was made; made anew when a secret has changed.
#[derive(Debug)]
struct Latest<T>(Mutex<Option<Made<T>>>);

impl<T> Default for Latest<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T> Latest<T> {
    /// None while a secret is missing.
    fn get(
        &self,
        sources: &Sources,
        make: impl FnOnce(Present) -> Result<T, String>,
    ) -> Result<Option<Arc<T>>, String> {
        let Some(versions) = sources.versions() else {
            return Ok(None);
        };
        let mut latest = self.0.lock();
        if let Some(made) = &*latest
            && made.versions.len() == versions.len()
            && made
                .versions
                .iter()
                .zip(&versions)
                .all(|(a, b)| Arc::ptr_eq(a, b))
        {
            return Ok(Some(made.context.clone()));
        }
        let present = sources.present(versions);
        let versions = present.versions.clone();
        let context = Arc::new(make(present)?);
        *latest = Some(Made {
            context: context.clone(),
            versions,
        });
        Ok(Some(context))
    }
}

/// The TLS context of a filter chain.
#[derive(Debug)]
pub struct ServerContext {
    /// Its configuration.
    pub config: Arc<DownstreamTlsConfig>,
    sources: Sources,
    latest: Latest<TlsServer>,
}

impl ServerContext {
    /// A context whose cells `cell` finds.
    ///
    /// # Errors
    /// For what cannot be read, for algorithms of which none is there, and what `cell` refuses.
    pub fn new(
        config: &Arc<DownstreamTlsConfig>,
        cell: impl FnMut(&outrigger_config::ir::SecretRef) -> Result<Arc<SecretCell>, String>,
    ) -> Result<Self, String> {
        Ok(Self {
            config: config.clone(),
            sources: Sources::read(&config.common, cell)?,
            latest: Latest::default(),
        })
    }

    /// Registers its stats below the scope of its owner.
    pub fn register(&self, scope: &Scope) -> ContextNames {
        self.sources.register(scope, "server_ssl_socket_factory.")
    }

    /// Whether all its secrets have arrived, or are waited for no more.
    pub fn is_settled(&self) -> bool {
        self.sources.cells().all(|cell| cell.is_settled())
    }

    /// The context with the present secrets; none while one is missing.
    ///
    /// # Errors
    /// When the secrets do not go together with the configuration.
    pub fn current(&self) -> Result<Option<Arc<TlsServer>>, String> {
        self.latest.get(&self.sources, |present| {
            TlsServer::new(&self.config, present.identities, &present.trust)
        })
    }
}

/// The TLS context of a cluster, or of some of its hosts.
#[derive(Debug)]
pub struct ClientContext {
    /// Its configuration.
    pub config: Arc<UpstreamTlsConfig>,
    sources: Sources,
    latest: Latest<TlsClient>,
}

impl ClientContext {
    /// See [`ServerContext::new`].
    ///
    /// # Errors
    /// Likewise.
    pub fn new(
        config: &Arc<UpstreamTlsConfig>,
        cell: impl FnMut(&outrigger_config::ir::SecretRef) -> Result<Arc<SecretCell>, String>,
    ) -> Result<Self, String> {
        Ok(Self {
            config: config.clone(),
            sources: Sources::read(&config.common, cell)?,
            latest: Latest::default(),
        })
    }

    /// Registers its stats below the scope of its owner.
    pub fn register(&self, scope: &Scope) -> ContextNames {
        self.sources.register(scope, "client_ssl_socket_factory.")
    }

    /// Whether all its secrets have arrived, or are waited for no more.
    pub fn is_settled(&self) -> bool {
        self.sources.cells().all(|cell| cell.is_settled())
    }

    /// The context with the present secrets; none while one is missing.
    ///
    /// # Errors
    /// When the secrets do not go together with the configuration.
    pub fn current(&self) -> Result<Option<Arc<TlsClient>>, String> {
        self.latest.get(&self.sources, |mut present| {
            TlsClient::new(&self.config, present.identities.pop(), &present.trust)
        })
    }
}
