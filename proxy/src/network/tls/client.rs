//! The client's side: contexts of clusters, and the handshake with hosts.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use outrigger_config::ir::UpstreamTlsConfig;
use outrigger_types::{Certificate, TlsInfo};
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;

use super::TlsFailure;
use super::certificate::Identity;
use super::params::algorithms;
use super::verify::{Trust, Verifier};
use crate::network::io::Io;

/// What a connection wants otherwise than its context says
/// (Envoy's `TransportSocketOptions`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ConnectOptions {
    /// The server name to ask for.
    pub sni: Option<Arc<str>>,
    /// Protocols to offer.
    pub alpn: Option<Arc<[Box<[u8]>]>>,
    /// The certificate must hold the server name.
    pub names_server: bool,
}

/// A context that connects to hosts; everything in it belongs to one version of its secrets.
#[derive(Debug)]
pub struct TlsClient {
    config: Arc<ClientConfig>,
    /// The same, but the certificate must hold the server name.
    naming: Arc<ClientConfig>,
    sni: Box<str>,
    auto_host_sni: bool,
    always_naming: bool,
    identity: Option<Arc<Certificate>>,
}

impl TlsClient {
    /// A context of this certificate, if any, and these roots.
    ///
    /// # Errors
    /// For algorithms of which none is there.
    pub fn new(
        config: &UpstreamTlsConfig,
        identity: Option<Arc<Identity>>,
        trust: &Trust,
    ) -> Result<Self, String> {
        let algorithms = algorithms(&config.common.params)?;
        let provider = &algorithms.provider;
        let build = |naming: bool| {
            let verifier = Verifier::new(trust, provider).naming_server(naming);
            let builder = ClientConfig::builder_with_provider(provider.clone())
                .with_protocol_versions(&algorithms.versions)
                .map_err(|error| error.to_string())?
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(verifier));
            let mut built = match &identity {
                Some(identity) => builder.with_client_cert_resolver(Arc::new(
                    rustls::sign::SingleCertAndKey::from(identity.key.clone()),
                )),
                None => builder.with_no_client_auth(),
            };
            built.alpn_protocols = config.common.alpn.iter().map(|p| p.to_vec()).collect();
            built.resumption = match config.max_session_keys {
                0 => Resumption::disabled(),
                keys => Resumption::in_memory_sessions(keys),
            };
            Ok::<_, String>(Arc::new(built))
        };
        Ok(Self {
            config: build(false)?,
            naming: build(true)?,
            sni: config.sni.clone(),
            auto_host_sni: config.auto_host_sni,
            always_naming: config.auto_sni_san_validation,
            identity: identity.map(|identity| identity.leaf.clone()),
        })
    }

    /// The certificate that hosts are shown.
    pub fn certificate(&self) -> Option<&Arc<Certificate>> {
        self.identity.as_ref()
    }

    /// Shakes hands with a host of this name.
    ///
    /// # Errors
    /// When the handshake fails, or the server name cannot be asked for.
    pub async fn connect(
        &self,
        io: Io,
        options: &ConnectOptions,
        hostname: &str,
    ) -> Result<(Io, TlsInfo), TlsFailure> {
        let host = (self.auto_host_sni && !hostname.is_empty()).then_some(hostname);
        let sni = options.sni.as_deref().or(host).unwrap_or(&self.sni);
        let name = server_name(sni)?;
        let config = match options.names_server || self.always_naming {
            true => &self.naming,
            false => &self.config,
        };
        let connector = TlsConnector::from(config.clone());
        let handshake = match &options.alpn {
            Some(alpn) => connector
                .with_alpn(alpn.iter().map(|p| p.to_vec()).collect())
                .connect(name, io),
            None => connector.connect(name, io),
        };
        let stream = handshake.await.map_err(TlsFailure::from)?;
        let mut info = super::info(stream.get_ref().1);
        // An address is not asked for.
        info.sni = match sni.parse::<IpAddr>() {
            Ok(_) => "".into(),
            Err(_) => sni.into(),
        };
        info.local = self.identity.clone();
        Ok((Io::over_tls(stream.into()), info))
    }
}

/// The name as the library takes it; an address where there is none, because none is then asked for.
fn server_name(sni: &str) -> Result<ServerName<'static>, TlsFailure> {
    if sni.is_empty() {
        return Ok(ServerName::IpAddress(
            IpAddr::V4(Ipv4Addr::UNSPECIFIED).into(),
        ));
    }
    ServerName::try_from(sni.to_owned()).map_err(|_| {
        TlsFailure::other(format!("\"{sni}\" is no server name that can be asked for"))
    })
}
