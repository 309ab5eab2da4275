//! Verification of the peer's certificate, as Envoy's default validator does it: the chain up to a
//! trusted root, revocation lists, pinned hashes, and names; never the host name unless asked for.

use std::sync::Arc;
use std::time::SystemTime;

use outrigger_config::ir::{SanMatcher, ValidationConfig};
use outrigger_config::matcher::StringPattern;
use outrigger_types::SanKind;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, ServerName, TrustAnchor, UnixTime,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage, OwnedCertRevocationList,
    RevocationCheckDepth, RevocationOptionsBuilder, VerifiedPath,
};

use super::certificate::{self, sha256};
use super::failure::VerifyFailure;

/// What a peer's certificate is held against, read.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    config: ValidationConfig,
    roots: Option<Arc<Roots>>,
    crls: Arc<Vec<CertRevocationList<'static>>>,
}

#[derive(Debug, Default)]
struct Roots {
    anchors: Vec<TrustAnchor<'static>>,
    /// Until when the first of them is valid.
    not_after: Option<SystemTime>,
    subjects: Vec<DistinguishedName>,
}

impl Trust {
    /// # Errors
    /// For roots or revocation lists that cannot be read.
    pub fn read(config: &ValidationConfig) -> Result<Self, String> {
        let roots = config.trusted_ca.as_ref().map(|pem| read_roots(pem));
        let crls = config.crl.as_ref().map(|pem| read_crls(pem));
        Ok(Self {
            config: config.clone(),
            roots: roots.transpose()?.map(Arc::new),
            crls: Arc::new(crls.transpose()?.unwrap_or_default()),
        })
    }

    /// Until when the first root is valid; none without roots.
    pub(super) fn roots_end(&self) -> Option<SystemTime> {
        self.roots.as_ref()?.not_after
    }

    /// What a secret says over this.
    pub fn merged_with(&self, secret: &Self) -> Self {
        Self {
            config: self.config.merged_with(&secret.config),
            roots: secret.roots.clone().or_else(|| self.roots.clone()),
            crls: match secret.config.crl.is_some() {
                true => secret.crls.clone(),
                false => self.crls.clone(),
            },
        }
    }

    /// Whether there is anything that a certificate could be held against.
    pub(super) fn verifies(&self) -> bool {
        self.roots.is_some()
            || !self.config.spki_pins.is_empty()
            || !self.config.certificate_hashes.is_empty()
    }
}

/// What a verification lets through.
#[derive(Debug)]
pub(super) struct Verifier {
    trust: Trust,
    provider: Arc<CryptoProvider>,
    /// Of a server: refuse clients without a certificate.
    require_certificate: bool,
    /// Of a client: the certificate must hold the server name asked for.
    names_server: bool,
}

impl Verifier {
    pub(super) fn new(trust: &Trust, provider: &Arc<CryptoProvider>) -> Self {
        Self {
            trust: trust.clone(),
            provider: provider.clone(),
            require_certificate: false,
            names_server: false,
        }
    }

    /// Refuses clients without a certificate.
    pub(super) fn requiring_certificate(mut self, required: bool) -> Self {
        self.require_certificate = required;
        self
    }

    /// Looks for the server name that was asked for in the certificate.
    pub(super) fn naming_server(mut self, named: bool) -> Self {
        self.names_server = named;
        self
    }

    fn check(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<(), VerifyFailure> {
        if let Some(roots) = &self.trust.roots {
            let chained = self.check_chain(roots, leaf, intermediates, now, usage);
            if !self.trust.config.accept_untrusted {
                chained?;
            }
        }
        self.check_names(leaf)?;
        self.check_hashes(leaf)
    }

    fn check_chain(
        &self,
        roots: &Roots,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<(), VerifyFailure> {
        let certificate = EndEntityCert::try_from(leaf).map_err(VerifyFailure::Chain)?;
        let crls: Vec<&CertRevocationList<'_>> = self.trust.crls.iter().collect();
        let revocation = RevocationOptionsBuilder::new(&crls).ok().map(|builder| {
            let depth = match self.trust.config.only_leaf_crl {
                true => RevocationCheckDepth::EndEntity,
                false => RevocationCheckDepth::Chain,
            };
            builder
                .with_depth(depth)
                .with_expiration_policy(ExpirationPolicy::Enforce)
                .build()
        });
        let depth = self.trust.config.max_verify_depth.map(|d| d as usize);
        let short_enough = |path: &VerifiedPath<'_>| {
            let length = path.intermediate_certificates().count();
            match depth.is_some_and(|most| length > most) {
                true => Err(webpki::Error::MaximumPathDepthExceeded),
                false => Ok(()),
            }
        };
        certificate
            .verify_for_usage(
                self.provider.signature_verification_algorithms.all,
                &roots.anchors,
                intermediates,
                now,
                usage,
                revocation,
                Some(&short_enough),
            )
            .map(drop)
            .map_err(VerifyFailure::Chain)
    }

    fn check_names(&self, leaf: &CertificateDer<'_>) -> Result<(), VerifyFailure> {
        if self.trust.config.san_matchers.is_empty() {
            return Ok(());
        }
        let found = certificate::read(leaf).map(|leaf| leaf.names);
        let accepted = found.iter().flatten().any(|(kind, name)| {
            self.trust
                .config
                .san_matchers
                .iter()
                .any(|matcher| accepts(matcher, *kind, name))
        });
        accepted
            .then_some(())
            .ok_or_else(|| VerifyFailure::San(names_of(leaf)))
    }

    fn check_hashes(&self, leaf: &CertificateDer<'_>) -> Result<(), VerifyFailure> {
        let config = &self.trust.config;
        let (hashes, pins) = (&config.certificate_hashes, &config.spki_pins);
        if hashes.is_empty() && pins.is_empty() {
            return Ok(());
        }
        let is_known = hashes.contains(&sha256(leaf));
        let has_known_key = || {
            let certificate = EndEntityCert::try_from(leaf).ok()?;
            let key = certificate.subject_public_key_info();
            Some(pins.contains(&sha256(&key)))
        };
        match is_known || has_known_key().unwrap_or(false) {
            true => Ok(()),
            false => Err(VerifyFailure::Hash),
        }
    }

    fn signature_12(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn signature_13(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

fn read_roots(pem: &[u8]) -> Result<Roots, String> {
    let mut roots = Roots::default();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| format!("trusted_ca: {error}"))?;
        let anchor = webpki::anchor_from_trusted_cert(&certificate)
            .map_err(|error| format!("trusted_ca: {error}"))?
            .to_owned();
        let subject = DistinguishedName::in_sequence(&anchor.subject);
        if roots.anchors.is_empty() {
            roots.not_after = certificate::read(&certificate).map(|c| c.not_after);
        }
        roots.subjects.push(subject);
        roots.anchors.push(anchor);
    }
    match roots.anchors.is_empty() {
        true => Err("trusted_ca: no certificate in it".to_owned()),
        false => Ok(roots),
    }
}

fn read_crls(pem: &[u8]) -> Result<Vec<CertRevocationList<'static>>, String> {
    let lists: Result<Vec<_>, String> = CertificateRevocationListDer::pem_slice_iter(pem)
        .map(|der| {
            let der = der.map_err(|error| format!("crl: {error}"))?;
            OwnedCertRevocationList::from_der(&der)
                .map(CertRevocationList::Owned)
                .map_err(|error| format!("crl: {error}"))
        })
        .collect();
    let lists = lists?;
    match lists.is_empty() {
        true => Err("crl: no revocation list in it".to_owned()),
        false => Ok(lists),
    }
}

fn names_of(leaf: &CertificateDer<'_>) -> Vec<Box<str>> {
    let names = certificate::read(leaf).map(|leaf| leaf.names);
    let names = names.unwrap_or_default().into_iter();
    names.map(|(_, name)| name).collect()
}

/// An exact matcher for DNS names meets a wildcard in the certificate as RFC 6125 says.
fn accepts(matcher: &SanMatcher, kind: SanKind, name: &str) -> bool {
    if matcher.kind.is_some_and(|wanted| wanted != kind) {
        return false;
    }
    match (kind, matcher.matcher.pattern(), name.strip_prefix("*.")) {
        (SanKind::Dns, StringPattern::Exact(wanted), Some(domain)) => wanted
            .split_once('.')
            .is_some_and(|(host, rest)| !host.is_empty() && rest.eq_ignore_ascii_case(domain)),
        _ => matcher.matcher.matches(name.as_bytes()),
    }
}

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        self.require_certificate
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        match &self.trust.roots {
            Some(roots) if !self.trust.config.suppress_client_ca_list => &roots.subjects,
            _ => &[],
        }
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(leaf, intermediates, now, KeyUsage::client_auth())?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature_12(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature_13(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(leaf, intermediates, now, KeyUsage::server_auth())?;
        if self.names_server {
            EndEntityCert::try_from(leaf)
                .and_then(|certificate| certificate.verify_is_valid_for_subject_name(server_name))
                .map_err(|_| {
                    let asked = server_name.to_str().into_owned();
                    VerifyFailure::ServerName(asked.into(), names_of(leaf))
                })?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature_12(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature_13(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}
