//! Own certificates: read from PEM, and what logs say of any certificate.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{Algorithm, SHA1_FOR_LEGACY_USE_ONLY, SHA256};
use outrigger_config::ir::CertificateConfig;
use outrigger_types::{Certificate, SanKind};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::X509Name;

/// A certificate with its key, ready to be shown to peers.
#[derive(Debug)]
pub struct Identity {
    /// Chain and key.
    pub(super) key: Arc<CertifiedKey>,
    /// The leaf, for logs.
    pub(super) leaf: Arc<Certificate>,
}

impl Identity {
    /// # Errors
    /// For a chain or a key that cannot be read, and for a key that is not the chain's.
    pub fn read(config: &CertificateConfig) -> Result<Self, String> {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&config.chain)
            .collect::<Result<_, _>>()
            .map_err(|error| format!("certificate_chain: {error}"))?;
        let Some(leaf) = chain.first() else {
            return Err("certificate_chain: no certificate in it".to_owned());
        };
        let leaf =
            read(leaf).ok_or_else(|| "certificate_chain: not an X.509 certificate".to_owned())?;
        let key = PrivateKeyDer::from_pem_slice(&config.key)
            .map_err(|error| format!("private_key: {error}"))?;
        let key = any_supported_type(&key).map_err(|error| format!("private_key: {error}"))?;
        let mut key = CertifiedKey::new(chain, key);
        key.keys_match()
            .map_err(|_| "private_key: is not the certificate's".to_owned())?;
        if !config.ocsp_staple.is_empty() {
            key.ocsp = Some(config.ocsp_staple.to_vec());
        }
        Ok(Self {
            key: Arc::new(key),
            leaf: Arc::new(leaf),
        })
    }
}

/// Reads a certificate; none for what is no X.509 certificate.
pub(super) fn read(der: &CertificateDer<'_>) -> Option<Certificate> {
    let (_, parsed) = X509Certificate::from_der(der).ok()?;
    Some(Certificate {
        der: der.to_vec().into(),
        subject: distinguished_name(parsed.subject()).into(),
        issuer: distinguished_name(parsed.issuer()).into(),
        serial: hex(strip_zeroes(parsed.raw_serial())).into(),
        names: names(&parsed),
        not_before: time(parsed.validity().not_before.timestamp()),
        not_after: time(parsed.validity().not_after.timestamp()),
        fingerprint_256: digest(&SHA256, der),
        fingerprint_1: digest(&SHA1_FOR_LEGACY_USE_ONLY, der),
    })
}

/// The names of a certificate that may be matched. IP addresses are written out.
fn names(certificate: &X509Certificate<'_>) -> Vec<(SanKind, Box<str>)> {
    let mut found = Vec::new();
    for extension in certificate.extensions() {
        if let ParsedExtension::SubjectAlternativeName(list) = extension.parsed_extension() {
            found.extend(list.general_names.iter().filter_map(name));
        }
    }
    found
}

fn name(name: &GeneralName<'_>) -> Option<(SanKind, Box<str>)> {
    Some(match name {
        GeneralName::URI(uri) => (SanKind::Uri, (*uri).into()),
        GeneralName::DNSName(dns) => (SanKind::Dns, (*dns).into()),
        GeneralName::RFC822Name(mail) => (SanKind::Email, (*mail).into()),
        GeneralName::IPAddress(bytes) => (SanKind::Ip, address(bytes)?.to_string().into()),
        _ => return None,
    })
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}

fn time(seconds: i64) -> SystemTime {
    let magnitude = Duration::from_secs(seconds.unsigned_abs());
    let epoch = SystemTime::UNIX_EPOCH;
    match seconds {
        0.. => epoch.checked_add(magnitude),
        _ => epoch.checked_sub(magnitude),
    }
    .unwrap_or(epoch)
}

fn strip_zeroes(number: &[u8]) -> &[u8] {
    let zeroes = number.iter().take_while(|b| **b == 0).count();
    &number[zeroes.min(number.len().saturating_sub(1))..]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256.
pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest(&SHA256, bytes)
}

fn digest<const N: usize>(algorithm: &'static Algorithm, bytes: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(aws_lc_rs::digest::digest(algorithm, bytes).as_ref());
    out
}

/// A name as RFC 2253 writes it: the last attribute first, commas between, specials escaped.
fn distinguished_name(name: &X509Name<'_>) -> String {
    let mut parts: Vec<String> = name
        .iter_rdn()
        .map(|set| {
            let attributes = set.iter().map(|attribute| {
                let key = short_name(&attribute.attr_type().to_id_string());
                format!("{key}={}", escaped(attribute.as_str().unwrap_or_default()))
            });
            attributes.collect::<Vec<_>>().join("+")
        })
        .collect();
    parts.reverse();
    parts.join(",")
}

/// The names of RFC 2253 and OpenSSL's for some others; an identifier stays one.
fn short_name(oid: &str) -> String {
    match oid {
        "2.5.4.3" => "CN",
        "2.5.4.4" => "SN",
        "2.5.4.5" => "serialNumber",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "street",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "2.5.4.12" => "title",
        "2.5.4.42" => "GN",
        "0.9.2342.19200300.100.1.1" => "UID",
        "0.9.2342.19200300.100.1.25" => "DC",
        "1.2.840.113549.1.9.1" => "emailAddress",
        other => return other.to_owned(),
    }
    .to_owned()
}

fn escaped(value: &str) -> String {
    let last = value.chars().count().saturating_sub(1);
    let mut out = String::with_capacity(value.len());
    for (at, c) in value.chars().enumerate() {
        let special = matches!(c, ',' | '+' | '"' | '\\' | '<' | '>' | ';');
        let at_edge = (at == 0 && matches!(c, ' ' | '#')) || (at == last && c == ' ');
        if special || at_edge {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specials_of_names_are_escaped() {
        assert_eq!(escaped("a, b"), "a\\, b");
        assert_eq!(escaped("#x "), "\\#x\\ ");
        assert_eq!(escaped(""), "");
    }

    #[test]
    fn serial_numbers_lose_their_leading_zeroes() {
        assert_eq!(strip_zeroes(&[0, 0, 1]), [1]);
        assert_eq!(strip_zeroes(&[0]), [0]);
        assert_eq!(strip_zeroes(&[]), [0u8; 0]);
    }
}
