//! TLS contexts and secrets (`extensions.transport_sockets.tls.v3`).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use outrigger_types::SanKind;

use super::ConfigSourceConfig;
use crate::matcher::StringMatcher;

/// What carries the bytes of the connections that a filter chain serves.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum DownstreamTransport {
    /// Plain text.
    #[default]
    Raw,
    /// TLS.
    Tls(Arc<DownstreamTlsConfig>),
}

/// What carries the bytes of connections to a host.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum UpstreamTransport {
    /// Plain text.
    #[default]
    Raw,
    /// TLS.
    Tls(Arc<UpstreamTlsConfig>),
}

/// `DownstreamTlsContext`
#[derive(Clone, Debug, PartialEq)]
pub struct DownstreamTlsConfig {
    /// What both sides have.
    pub common: TlsContextConfig,
    /// Refuse clients without a certificate. Default false.
    pub require_client_certificate: bool,
    /// Refuse clients that do not name a server. Default false.
    pub require_sni: bool,
    /// Resume sessions by tickets. Default true.
    pub stateless_resumption: bool,
    /// Resume sessions of TLS 1.2 by their ids. Default true.
    pub stateful_resumption: bool,
    /// How long a session may be resumed; none for the library's default.
    pub session_timeout: Option<Duration>,
    /// Search all certificates for the name when none matches exactly. Default false.
    pub full_scan_on_sni_mismatch: bool,
    /// Let the client's order of ciphers count. Default false.
    pub prefer_client_ciphers: bool,
}

/// `UpstreamTlsContext`
#[derive(Clone, Debug, PartialEq)]
pub struct UpstreamTlsConfig {
    /// What both sides have.
    pub common: TlsContextConfig,
    /// The server name to ask for; empty for none.
    pub sni: Box<str>,
    /// Ask for the host's own name instead of `sni`, if it has one. Default false.
    pub auto_host_sni: bool,
    /// The server's certificate must hold the name asked for. Default false.
    pub auto_sni_san_validation: bool,
    /// Sessions kept to be resumed; zero for none. Default 1.
    pub max_session_keys: usize,
}

/// `CommonTlsContext`
#[derive(Clone, Debug, PartialEq)]
pub struct TlsContextConfig {
    /// Versions and algorithms.
    pub params: TlsParams,
    /// Protocols to agree on, the most wanted first.
    pub alpn: Vec<Box<[u8]>>,
    /// Certificates given here.
    pub certificates: Vec<CertificateConfig>,
    /// Certificates that come by SDS.
    pub certificate_secrets: Vec<SecretRef>,
    /// How the peer's certificate is verified; with a secret, what the secret is merged over.
    pub validation: ValidationConfig,
    /// The rest of `validation`, by SDS.
    pub validation_secret: Option<SecretRef>,
}

/// A secret by name.
#[derive(Clone, Debug, PartialEq)]
pub struct SecretRef {
    /// Its name.
    pub name: Arc<str>,
    /// Where it comes from; none for a static secret of the bootstrap.
    pub source: Option<ConfigSourceConfig>,
}

/// A secret: what SDS brings, or a bootstrap holds.
#[derive(Clone, Debug, PartialEq)]
pub struct SecretConfig {
    /// Its name.
    pub name: Arc<str>,
    /// What it is.
    pub value: SecretValue,
}

/// What a secret is.
#[derive(Clone, Debug, PartialEq)]
pub enum SecretValue {
    /// A certificate and its key.
    Certificate(CertificateConfig),
    /// What verifies a peer.
    Validation(ValidationConfig),
}

/// Versions of TLS that are spoken here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2
    Tls12,
    /// TLS 1.3
    Tls13,
}

/// `TlsParameters`, with the side's defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsParams {
    /// The lowest version. Default TLS 1.2.
    pub min: TlsVersion,
    /// The highest version. Default TLS 1.3 downstream, TLS 1.2 upstream.
    pub max: TlsVersion,
    /// Suites of TLS 1.2 by their OpenSSL names, in order; empty for the defaults.
    pub cipher_suites: Vec<Box<str>>,
    /// Groups by their OpenSSL names, in order; empty for the defaults.
    pub groups: Vec<Box<str>>,
}

/// A certificate chain and its key, both PEM.
#[derive(Clone, PartialEq)]
pub struct CertificateConfig {
    /// The chain, leaf first.
    pub chain: Bytes,
    /// The private key.
    pub key: Bytes,
    /// A response of the issuer's OCSP server, DER; empty for none.
    pub ocsp_staple: Bytes,
}

/// The key never reaches a log.
impl fmt::Debug for CertificateConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateConfig")
            .field("chain", &self.chain.len())
            .finish_non_exhaustive()
    }
}

/// `CertificateValidationContext`
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ValidationConfig {
    /// Roots, PEM. None accepts any certificate that the rest accepts.
    pub trusted_ca: Option<Bytes>,
    /// Revocation lists, PEM.
    pub crl: Option<Bytes>,
    /// Look only for the leaf in the revocation lists. Default false.
    pub only_leaf_crl: bool,
    /// SHA-256 of public keys, of which the leaf must have one; empty for any.
    pub spki_pins: Vec<[u8; 32]>,
    /// SHA-256 of certificates, of which the leaf must be one; empty for any.
    pub certificate_hashes: Vec<[u8; 32]>,
    /// Names of which the leaf must have one; empty for any.
    pub san_matchers: Vec<SanMatcher>,
    /// Accept what no root vouches for, and only note it. Default false.
    pub accept_untrusted: bool,
    /// The most certificates between leaf and root; none for the library's limit.
    pub max_verify_depth: Option<u32>,
    /// Do not tell clients which roots are trusted. Default false.
    pub suppress_client_ca_list: bool,
}

/// A name that a certificate may have.
#[derive(Clone, Debug, PartialEq)]
pub struct SanMatcher {
    /// Of which kind; none for DNS, URI, e-mail and IP address alike.
    pub kind: Option<SanKind>,
    /// The name.
    pub matcher: StringMatcher,
}

impl ValidationConfig {
    /// What the secret says over what stood in the configuration: lists grow, single values are
    /// replaced where the secret has one, as protobuf merges messages.
    pub fn merged_with(&self, secret: &Self) -> Self {
        let joined = |a: &[[u8; 32]], b: &[[u8; 32]]| [a, b].concat();
        Self {
            trusted_ca: secret
                .trusted_ca
                .clone()
                .or_else(|| self.trusted_ca.clone()),
            crl: secret.crl.clone().or_else(|| self.crl.clone()),
            only_leaf_crl: self.only_leaf_crl || secret.only_leaf_crl,
            spki_pins: joined(&self.spki_pins, &secret.spki_pins),
            certificate_hashes: joined(&self.certificate_hashes, &secret.certificate_hashes),
            san_matchers: [&self.san_matchers[..], &secret.san_matchers[..]].concat(),
            accept_untrusted: self.accept_untrusted || secret.accept_untrusted,
            max_verify_depth: secret.max_verify_depth.or(self.max_verify_depth),
            suppress_client_ca_list: self.suppress_client_ca_list || secret.suppress_client_ca_list,
        }
    }
}
