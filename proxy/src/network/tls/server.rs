//! The server's side: contexts of filter chains, and the handshake with clients.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::BytesMut;
use outrigger_config::ir::DownstreamTlsConfig;
use outrigger_types::{Certificate, SanKind, TlsInfo};
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::{
    Acceptor, ClientHello, NoClientAuth, NoServerSessionStorage, ProducesTickets,
    ResolvesServerCert, ServerSessionMemoryCache, StoresServerSessions,
};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, SignatureAlgorithm};
use tokio::io::AsyncReadExt;
use tokio_rustls::LazyConfigAcceptor;

use super::TlsFailure;
use super::certificate::Identity;
use super::params::algorithms;
use super::verify::{Trust, Verifier};
use crate::network::io::Io;

/// The first byte of a client that begins a handshake.
const HANDSHAKE: u8 = 22;
/// Bytes that are read at first; most handshakes begin with fewer.
const FIRST_READ: usize = 2_048;

/// Sessions of TLS 1.2 that a context remembers by their ids.
const REMEMBERED_SESSIONS: usize = 1_024;

/// A context that accepts clients. Everything in it belongs to one configuration with one version of
/// its secrets; so do the keys of its tickets, and nothing older can be resumed.
#[derive(Debug)]
pub struct TlsServer {
    agreeing: Arc<ServerConfig>,
    /// Without ALPN: a client with which there is no overlap is served all the same.
    silent: Arc<ServerConfig>,
    require_sni: bool,
    identities: Arc<Identities>,
}

impl TlsServer {
    /// A context of these certificates and roots.
    ///
    /// # Errors
    /// For algorithms of which none is there.
    pub fn new(
        config: &DownstreamTlsConfig,
        identities: Vec<Arc<Identity>>,
        trust: &Trust,
    ) -> Result<Self, String> {
        let algorithms = algorithms(&config.common.params)?;
        let provider = &algorithms.provider;
        let identities = Arc::new(Identities {
            all: identities,
            full_scan: config.full_scan_on_sni_mismatch,
        });
        let verifier =
            Verifier::new(trust, provider).requiring_certificate(config.require_client_certificate);
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&algorithms.versions)
            .map_err(|error| error.to_string())?;
        let asks = trust.verifies() || config.require_client_certificate;
        let builder = match asks {
            true => builder.with_client_cert_verifier(Arc::new(verifier)),
            false => builder.with_client_cert_verifier(Arc::new(NoClientAuth)),
        };
        let mut silent = builder.with_cert_resolver(identities.clone());
        silent.ignore_client_order = !config.prefer_client_ciphers;
        resumption(&mut silent, config)?;
        let mut agreeing = silent.clone();
        agreeing.alpn_protocols = config.common.alpn.iter().map(|p| p.to_vec()).collect();
        Ok(Self {
            agreeing: Arc::new(agreeing),
            silent: Arc::new(silent),
            require_sni: config.require_sni,
            identities,
        })
    }

    /// The certificates, leaf by leaf.
    pub fn certificates(&self) -> impl Iterator<Item = &Arc<Certificate>> {
        self.identities.all.iter().map(|identity| &identity.leaf)
    }

    /// Shakes hands with a client.
    ///
    /// # Errors
    /// When the handshake fails; an alert has then been sent where one is due.
    pub async fn accept(&self, mut io: Io) -> Result<(Io, TlsInfo), TlsFailure> {
        // Who does not speak TLS is not told so in TLS.
        let mut first = BytesMut::with_capacity(FIRST_READ);
        if io.read_buf(&mut first).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        if first[0] != HANDSHAKE {
            return Err(TlsFailure::no_handshake(&first));
        }
        io.rewind(first.freeze());
        let start = LazyConfigAcceptor::new(Acceptor::default(), io).await;
        let start = start.map_err(TlsFailure::from)?;
        let hello = start.client_hello();
        if self.require_sni && hello.server_name().is_none() {
            return Err(TlsFailure::from(io::Error::other(
                "the client names no server",
            )));
        }
        let config = self.config_for(&hello);
        let stream = start.into_stream(config).await.map_err(TlsFailure::from)?;
        let mut info = super::info(stream.get_ref().1);
        info.sni = stream.get_ref().1.server_name().unwrap_or_default().into();
        info.local = self.identities.shown(&info.sni);
        Ok((Io::over_tls(stream.into()), info))
    }

    /// ALPN only where both sides have a protocol in common, because the library would refuse the
    /// client otherwise.
    fn config_for(&self, hello: &ClientHello<'_>) -> Arc<ServerConfig> {
        let ours = &self.agreeing.alpn_protocols;
        let agrees = hello
            .alpn()
            .is_some_and(|mut offered| offered.any(|p| ours.iter().any(|o| o == p)));
        match agrees {
            true => self.agreeing.clone(),
            false => self.silent.clone(),
        }
    }
}

fn resumption(config: &mut ServerConfig, wanted: &DownstreamTlsConfig) -> Result<(), String> {
    let lifetime = wanted.session_timeout;
    config.session_storage = match wanted.stateful_resumption {
        true => Arc::new(Sessions {
            cache: ServerSessionMemoryCache::new(REMEMBERED_SESSIONS),
            lifetime,
        }),
        false => Arc::new(NoServerSessionStorage {}),
    };
    if wanted.stateless_resumption {
        let tickets = Ticketer::new().map_err(|error| error.to_string())?;
        config.ticketer = Arc::new(Tickets { tickets, lifetime });
    } else {
        config.send_tls13_tickets = if wanted.stateful_resumption { 2 } else { 0 };
    }
    Ok(())
}

/// Tickets that hold until when they are good, because the library's own limit is fixed.
#[derive(Debug)]
struct Tickets {
    tickets: Arc<dyn ProducesTickets>,
    lifetime: Option<Duration>,
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        self.tickets.enabled()
    }

    fn lifetime(&self) -> u32 {
        let own = self.tickets.lifetime();
        let wanted = |t: Duration| u32::try_from(t.as_secs()).unwrap_or(u32::MAX);
        self.lifetime.map_or(own, |t| wanted(t).min(own))
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.tickets.encrypt(&with_end(self.lifetime, plain))
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        while_good(self.tickets.decrypt(cipher)?)
    }
}

/// Remembered sessions that hold until when they are good.
#[derive(Debug)]
struct Sessions {
    cache: Arc<ServerSessionMemoryCache>,
    lifetime: Option<Duration>,
}

impl StoresServerSessions for Sessions {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        self.cache.put(key, with_end(self.lifetime, &value))
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        while_good(self.cache.get(key)?)
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        while_good(self.cache.take(key)?)
    }

    fn can_cache(&self) -> bool {
        true
    }
}

fn now() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().map_or(0, |t| t.as_secs())
}

/// The bytes, after the second in which they end.
fn with_end(lifetime: Option<Duration>, bytes: &[u8]) -> Vec<u8> {
    let end = lifetime.map_or(u64::MAX, |t| now().saturating_add(t.as_secs()));
    [&end.to_be_bytes()[..], bytes].concat()
}

fn while_good(mut bytes: Vec<u8>) -> Option<Vec<u8>> {
    let (end, _) = bytes.split_first_chunk::<8>()?;
    let good = now() < u64::from_be_bytes(*end);
    good.then(|| bytes.split_off(8))
}

/// The certificates of a context.
#[derive(Debug)]
struct Identities {
    all: Vec<Arc<Identity>>,
    full_scan: bool,
}

impl Identities {
    /// In Envoy's order: those with the very name, those with a wildcard for it, the first; with a
    /// full scan, all.
    fn candidates<'a>(&'a self, sni: &'a str) -> impl Iterator<Item = &'a Arc<Identity>> {
        let exact = self.all.iter().filter(move |i| has_name(i, sni));
        let wildcard = self.all.iter().filter(move |i| has_wildcard_for(i, sni));
        let rest = match self.full_scan || sni.is_empty() {
            true => &self.all[..],
            false => self.all.get(..1).unwrap_or_default(),
        };
        exact.chain(wildcard).chain(rest)
    }

    /// The certificate that a client asking for this name is shown.
    fn shown(&self, sni: &str) -> Option<Arc<Certificate>> {
        self.candidates(sni).next().map(|i| i.leaf.clone())
    }
}

fn has_name(identity: &Identity, sni: &str) -> bool {
    let mut names = identity.leaf.names_of(SanKind::Dns);
    names.any(|name| name.eq_ignore_ascii_case(sni))
}

fn has_wildcard_for(identity: &Identity, sni: &str) -> bool {
    let Some((_, domain)) = sni.split_once('.') else {
        return false;
    };
    let mut names = identity.leaf.names_of(SanKind::Dns);
    names.any(|name| {
        name.strip_prefix("*.")
            .is_some_and(|rest| rest.eq_ignore_ascii_case(domain))
    })
}

impl ResolvesServerCert for Identities {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let sni = hello.server_name().unwrap_or_default();
        let schemes = hello.signature_schemes();
        let usable = |i: &&Arc<Identity>| i.key.key.choose_scheme(schemes).is_some();
        let fast = |i: &&Arc<Identity>| i.key.key.algorithm() != SignatureAlgorithm::RSA;
        let first = self.candidates(sni).find(|i| usable(i) && fast(i));
        first
            .or_else(|| self.candidates(sni).find(usable))
            .map(|i| i.key.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_ended_is_forgotten() {
        let lasting = with_end(None, b"x");
        assert_eq!(while_good(lasting).as_deref(), Some(&b"x"[..]));
        let ended = with_end(Some(Duration::ZERO), b"x");
        assert_eq!(while_good(ended), None);
        assert_eq!(while_good(vec![1, 2]), None);
    }
}
