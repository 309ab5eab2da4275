//! Secrets: those of the bootstrap, those of SDS, and the contexts that use them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use filter_api::ConfigError;
use outrigger_config::convert;
use outrigger_config::ir::{
    ClusterConfig, ConfigSourceConfig, ConfigSourceKind, DownstreamTransport, ListenerConfig,
    SecretConfig, SecretRef, UpstreamTransport,
};

use super::{Applied, Received, Snapshot};
use crate::network::tls::{ClientContext, Secret, SecretCell, ServerContext};
use crate::network::transport_socket::{
    DownstreamSocket, DownstreamSockets, UpstreamMatch, UpstreamSocket, UpstreamSockets,
};

/// All secrets that are known or asked for.
#[derive(Default)]
pub struct Secrets {
    statics: BTreeMap<Arc<str>, StaticSecret>,
    dynamic: Vec<DynamicSecret>,
}

/// A secret of the bootstrap.
#[derive(Default)]
struct StaticSecret {
    bytes: Bytes,
    cell: Arc<SecretCell>,
}

/// A secret that SDS brings.
pub struct DynamicSecret {
    /// Its name.
    pub name: Arc<str>,
    /// Where it is asked for.
    pub source: ConfigSourceConfig,
    /// Since when it is asked for.
    pub asked: SystemTime,
    /// As received last; none until then.
    pub received: Option<Received>,
    cell: Arc<SecretCell>,
}

impl DynamicSecret {
    /// Whether a context uses it.
    fn is_used(&self) -> bool {
        Arc::strong_count(&self.cell) > 1
    }
}

impl Secrets {
    /// Takes in a secret of the bootstrap.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn set_static(&mut self, config: &SecretConfig, bytes: &Bytes) -> Result<(), ConfigError> {
        let secret = read(config)?;
        let known = self.statics.entry(config.name.clone()).or_default();
        known.bytes = bytes.clone();
        known.cell.set(secret);
        Ok(())
    }

    /// The cell of a secret, which is asked for from now on.
    fn cell(&mut self, wanted: &SecretRef) -> Result<Arc<SecretCell>, String> {
        let Some(source) = &wanted.source else {
            let known = self
                .statics
                .get(&wanted.name)
                .map(|known| known.cell.clone());
            return known.ok_or_else(|| format!("unknown static secret '{}'", wanted.name));
        };
        if let Some(known) = self.find(&wanted.name, &source.source) {
            return Ok(known.cell.clone());
        }
        let cell = Arc::new(SecretCell::default());
        self.dynamic.push(DynamicSecret {
            name: wanted.name.clone(),
            source: source.clone(),
            asked: SystemTime::now(),
            received: None,
            cell: cell.clone(),
        });
        Ok(cell)
    }

    /// What carries the connections of a listener's chains. What is configured as in `last` is taken
    /// from there, with the sessions that it remembers.
    ///
    /// # Errors
    /// For a context that cannot be made, with its path.
    pub fn downstream_sockets(
        &mut self,
        config: &ListenerConfig,
        last: Option<&DownstreamSockets>,
    ) -> Result<DownstreamSockets, ConfigError> {
        let mut sockets = DownstreamSockets::default();
        let chains = config.filter_chains.iter().enumerate();
        let all = chains.map(|(i, chain)| (Some(i), chain)).chain(
            config
                .default_filter_chain
                .iter()
                .map(|chain| (None, chain)),
        );
        for (index, chain) in all {
            let DownstreamTransport::Tls(tls) = &chain.transport else {
                continue;
            };
            let kept = last.and_then(|l| l.tls_of(chain.fingerprint));
            let socket = match kept.filter(|context| context.config == *tls) {
                Some(kept) => kept.clone(),
                None => {
                    let made = ServerContext::new(tls, |wanted| self.cell(wanted));
                    Arc::new(made.map_err(|reason| {
                        let error = ConfigError::new(reason).within("transport_socket");
                        let error = match index {
                            Some(i) => error.at("filter_chains", i),
                            None => error.within("default_filter_chain"),
                        };
                        error.within(format!("listener \"{}\"", config.name))
                    })?)
                }
            };
            sockets.insert(chain.fingerprint, DownstreamSocket::Tls(socket));
        }
        Ok(sockets)
    }

    /// What carries the connections to a cluster's hosts; see
    /// [`downstream_sockets`](Self::downstream_sockets).
    ///
    /// # Errors
    /// Likewise.
    pub fn upstream_sockets(
        &mut self,
        config: &ClusterConfig,
        last: Option<&UpstreamSockets>,
    ) -> Result<UpstreamSockets, ConfigError> {
        let within = |error: ConfigError| error.within(format!("cluster \"{}\"", config.name));
        let default = self
            .upstream_socket(&config.transport, last.map(|l| &l.default))
            .map_err(|reason| within(ConfigError::new(reason).within("transport_socket")))?;
        let mut matches = Vec::with_capacity(config.transport_matches.len());
        for (i, one) in config.transport_matches.iter().enumerate() {
            let known = last.and_then(|l| l.matches.get(i)).map(|m| &m.socket);
            let socket = self
                .upstream_socket(&one.transport, known)
                .map_err(|reason| {
                    let error = ConfigError::new(reason).within("transport_socket");
                    within(error.at("transport_socket_matches", i))
                })?;
            matches.push(UpstreamMatch {
                criteria: one.clone(),
                socket,
            });
        }
        Ok(UpstreamSockets { matches, default })
    }

    fn upstream_socket(
        &mut self,
        transport: &UpstreamTransport,
        last: Option<&UpstreamSocket>,
    ) -> Result<UpstreamSocket, String> {
        let UpstreamTransport::Tls(tls) = transport else {
            return Ok(UpstreamSocket::Raw);
        };
        if let Some(UpstreamSocket::Tls(known)) = last
            && known.config == *tls
        {
            return Ok(UpstreamSocket::Tls(known.clone()));
        }
        let made = ClientContext::new(tls, |wanted| self.cell(wanted))?;
        Ok(UpstreamSocket::Tls(Arc::new(made)))
    }

    fn find(&mut self, name: &str, source: &ConfigSourceKind) -> Option<&mut DynamicSecret> {
        let mut all = self.dynamic.iter_mut();
        all.find(|s| *s.name == *name && s.source.source == *source)
    }
}

impl Snapshot {
    /// Takes in a secret of the bootstrap.
    ///
    /// # Errors
    /// If it is refused.
    pub fn apply_static_secret(&mut self, received: &Received) -> Result<(), ConfigError> {
        let config = self.convert(|cx| convert::secret(&received.bytes, cx))?;
        self.secrets.set_static(&config, &received.bytes)
    }

    /// The secrets of the bootstrap: name and message.
    pub fn static_secrets(&self) -> impl Iterator<Item = (&Arc<str>, &Bytes)> {
        let all = self.secrets.statics.iter();
        all.map(|(name, secret)| (name, &secret.bytes))
    }

    /// The secrets that SDS was asked for.
    pub fn dynamic_secrets(&self) -> impl Iterator<Item = &DynamicSecret> {
        self.secrets
            .dynamic
            .iter()
            .filter(|secret| secret.is_used())
    }

    /// Takes in a secret that SDS brought from `source`.
    ///
    /// # Errors
    /// If it is refused; the version there was serves on.
    pub fn apply_secret(
        &mut self,
        source: &ConfigSourceKind,
        received: Received,
    ) -> Result<Applied, ConfigError> {
        let config = self.convert(|cx| convert::secret(&received.bytes, cx))?;
        let secret = read(&config)?;
        let name = config.name;
        let Some(known) = self.secrets.find(&name, source) else {
            return Ok(Applied::Unchanged);
        };
        let same = known
            .received
            .as_ref()
            .is_some_and(|r| r.bytes == received.bytes);
        known.received = Some(received);
        if same {
            return Ok(Applied::Unchanged);
        }
        known.cell.set(secret);
        let cell = known.cell.clone();
        self.note_context_updates(&cell);
        self.secrets_known();
        Ok(Applied::Changed)
    }

    /// Counts a new version with every context that uses the secret.
    fn note_context_updates(&self, cell: &Arc<SecretCell>) {
        let clusters = self.clusters().chain(self.warming_clusters());
        let listeners = self.listeners().chain(self.warming_listeners());
        let of_clusters = clusters.flat_map(|c| &c.info.tls_names);
        let of_listeners = listeners.flat_map(|l| &l.tls_names);
        for names in of_clusters.chain(of_listeners) {
            names.note_update(cell);
        }
    }

    /// Publishes what waited only for secrets that are known now.
    fn secrets_known(&mut self) {
        self.publish_warm_clusters();
        self.publish_warm_listeners();
    }

    /// SDS will not answer in time: what waits for the secret goes on without it, and refuses
    /// connections until it arrives.
    pub fn secret_timed_out(&mut self, source: &ConfigSourceKind, name: &str) {
        if let Some(secret) = self.secrets.find(name, source) {
            secret.cell.give_up();
        }
        self.secrets_known();
    }

    /// The secrets that SDS is to be asked for; those that nothing uses any more are forgotten.
    pub fn wanted_secrets(&mut self) -> impl Iterator<Item = &DynamicSecret> {
        self.secrets.dynamic.retain(DynamicSecret::is_used);
        self.secrets.dynamic.iter()
    }
}

fn read(config: &SecretConfig) -> Result<Secret, ConfigError> {
    Secret::read(&config.value)
        .map_err(|reason| ConfigError::new(reason).within(format!("secret \"{}\"", config.name)))
}
