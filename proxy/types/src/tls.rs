//! What a TLS handshake leaves to logs, headers, matchers and admin pages.

use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use http::HeaderValue;

/// Kinds of names in a certificate (`SubjectAltNameMatcher.SanType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SanKind {
    /// EMAIL
    Email,
    /// DNS
    Dns,
    /// URI
    Uri,
    /// IP_ADDRESS
    Ip,
}

/// What is said of a certificate.
#[derive(Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The certificate, DER.
    pub der: Box<[u8]>,
    /// Its holder, as RFC 2253 writes names; empty for none.
    pub subject: Box<str>,
    /// Who signed it, likewise.
    pub issuer: Box<str>,
    /// Its serial number, hexadecimal.
    pub serial: Box<str>,
    /// Its names, in its order; IP addresses written out.
    pub names: Vec<(SanKind, Box<str>)>,
    /// Since when it is valid.
    pub not_before: SystemTime,
    /// Until when it is valid.
    pub not_after: SystemTime,
    /// SHA-256 of the certificate.
    pub fingerprint_256: [u8; 32],
    /// SHA-1 of the certificate.
    pub fingerprint_1: [u8; 20],
}

impl Certificate {
    /// The names of a kind.
    pub fn names_of(&self, kind: SanKind) -> impl Iterator<Item = &str> {
        self.names
            .iter()
            .filter(move |(k, _)| *k == kind)
            .map(|(_, name)| &**name)
    }
}

/// What a handshake agreed on.
#[derive(Debug, Default)]
pub struct TlsInfo {
    /// The protocol of ALPN; empty for none.
    pub alpn: Box<[u8]>,
    /// The server name asked for; empty for none.
    pub sni: Box<str>,
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// The cipher suite by its name in OpenSSL.
    pub cipher: &'static str,
    /// The group by its name in BoringSSL; empty for a resumed session that exchanged no keys.
    pub group: &'static str,
    /// Whether an earlier session was resumed.
    pub resumed: bool,
    /// The peer's certificates as it showed them, leaf first; empty if it showed none.
    pub peer: Vec<Arc<Certificate>>,
    /// The certificate that the peer was shown.
    pub local: Option<Arc<Certificate>>,
    /// What `x-forwarded-client-cert` says of the peer, made with the first request.
    pub client_cert: OnceLock<HeaderValue>,
}

impl TlsInfo {
    /// The peer's own certificate.
    pub fn peer_leaf(&self) -> Option<&Arc<Certificate>> {
        self.peer.first()
    }
}
