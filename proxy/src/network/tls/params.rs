//! Versions, cipher suites and groups, from OpenSSL's names to the library's.

use std::sync::Arc;

use outrigger_config::ir::{TlsParams, TlsVersion};
use rustls::crypto::aws_lc_rs::{self, cipher_suite as suite, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, NamedGroup, SupportedCipherSuite, SupportedProtocolVersion};

/// What a context is built with.
pub(super) struct Algorithms {
    /// Suites and groups, in order.
    pub(super) provider: Arc<CryptoProvider>,
    /// Versions that may be agreed on.
    pub(super) versions: Vec<&'static SupportedProtocolVersion>,
    /// Names that were asked for and that the library lacks.
    pub(super) lacking: Vec<Box<str>>,
}

/// The suites of TLS 1.2, by their names in OpenSSL.
const SUITES_12: [(&str, SupportedCipherSuite); 6] = [
    (
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "ECDHE-RSA-AES128-GCM-SHA256",
        suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "ECDHE-RSA-AES256-GCM-SHA384",
        suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "ECDHE-RSA-CHACHA20-POLY1305",
        suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
];

/// Suites that Envoy knows and the library lacks: without forward secrecy, or of CBC mode.
const LACKING_SUITES: [&str; 13] = [
    "AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-SHA",
    "AES256-SHA",
    "AES128-SHA256",
    "ECDHE-ECDSA-AES128-SHA",
    "ECDHE-ECDSA-AES256-SHA",
    "ECDHE-RSA-AES128-SHA",
    "ECDHE-RSA-AES256-SHA",
    "ECDHE-RSA-AES128-SHA256",
    "ECDHE-PSK-CHACHA20-POLY1305",
    "ECDHE-PSK-AES128-CBC-SHA",
    "DES-CBC3-SHA",
];

/// Those of TLS 1.3, which cannot be chosen, in BoringSSL's order.
const SUITES_13: [SupportedCipherSuite; 3] = [
    suite::TLS13_AES_128_GCM_SHA256,
    suite::TLS13_AES_256_GCM_SHA384,
    suite::TLS13_CHACHA20_POLY1305_SHA256,
];

/// Groups by their names in BoringSSL.
const GROUPS: [(&str, &dyn SupportedKxGroup); 8] = [
    ("X25519", kx_group::X25519),
    ("x25519", kx_group::X25519),
    ("P-256", kx_group::SECP256R1),
    ("prime256v1", kx_group::SECP256R1),
    ("P-384", kx_group::SECP384R1),
    ("secp384r1", kx_group::SECP384R1),
    ("X25519MLKEM768", kx_group::X25519MLKEM768),
    ("MLKEM1024", kx_group::MLKEM1024),
];

/// The groups that Envoy offers where none is named.
const DEFAULT_GROUPS: [&dyn SupportedKxGroup; 3] = [
    kx_group::X25519MLKEM768,
    kx_group::X25519,
    kx_group::SECP256R1,
];

const LACKING_GROUPS: [&str; 4] = ["P-224", "P-521", "secp521r1", "X25519Kyber768Draft00"];

/// What the parameters ask for; what they leave open is Envoy's default: suites in the order of
/// [`SUITES_12`], and [`DEFAULT_GROUPS`].
///
/// # Errors
/// For a name that nobody knows, or when none of those asked for is there.
pub(super) fn algorithms(params: &TlsParams) -> Result<Algorithms, String> {
    let mut lacking = Vec::new();
    let suites = chosen(
        "cipher suites",
        &params.cipher_suites,
        &SUITES_12,
        &LACKING_SUITES,
        &mut lacking,
    )?;
    let groups = chosen(
        "ECDH curves",
        &params.groups,
        &GROUPS,
        &LACKING_GROUPS,
        &mut lacking,
    )?;
    let suites = suites.unwrap_or_else(|| SUITES_12.iter().map(|(_, suite)| *suite).collect());
    let versions = [(TlsVersion::Tls12, &TLS12), (TlsVersion::Tls13, &TLS13)];
    Ok(Algorithms {
        provider: Arc::new(CryptoProvider {
            cipher_suites: SUITES_13.into_iter().chain(suites).collect(),
            kx_groups: groups.unwrap_or_else(|| DEFAULT_GROUPS.to_vec()),
            ..aws_lc_rs::default_provider()
        }),
        versions: versions
            .into_iter()
            .filter(|(version, _)| (params.min..=params.max).contains(version))
            .map(|(_, version)| version)
            .collect(),
        lacking,
    })
}

/// Those of the known ones that are named, in the order of the names; none if nothing is named.
fn chosen<T: Copy>(
    what: &str,
    names: &[Box<str>],
    known: &[(&str, T)],
    lacking: &[&str],
    missing: &mut Vec<Box<str>>,
) -> Result<Option<Vec<T>>, String> {
    if names.is_empty() {
        return Ok(None);
    }
    let mut found = Vec::new();
    for name in names {
        match known.iter().find(|(known, _)| *known == &**name) {
            Some((_, one)) => found.push(*one),
            None if lacking.contains(&&**name) => missing.push(name.clone()),
            None => return Err(format!("failed to initialize {what}: unknown {name}")),
        }
    }
    match found.is_empty() {
        true => Err(format!(
            "failed to initialize {what}: none of {} is supported",
            names.join(":")
        )),
        false => Ok(Some(found)),
    }
}

/// The name of a suite as Envoy prints it.
pub(super) fn cipher_name(suite: CipherSuite) -> &'static str {
    let of_12 = SUITES_12.iter().find(|(_, known)| known.suite() == suite);
    match (of_12, suite) {
        (Some((name, _)), _) => name,
        (None, CipherSuite::TLS13_AES_128_GCM_SHA256) => "TLS_AES_128_GCM_SHA256",
        (None, CipherSuite::TLS13_AES_256_GCM_SHA384) => "TLS_AES_256_GCM_SHA384",
        (None, CipherSuite::TLS13_CHACHA20_POLY1305_SHA256) => "TLS_CHACHA20_POLY1305_SHA256",
        (None, _) => "",
    }
}

/// The name of a group as Envoy prints it.
pub(super) fn group_name(group: NamedGroup) -> &'static str {
    let known = GROUPS.iter().find(|(_, known)| known.name() == group);
    known.map_or("", |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(suites: &[&str], groups: &[&str]) -> TlsParams {
        TlsParams {
            min: TlsVersion::Tls12,
            max: TlsVersion::Tls13,
            cipher_suites: suites.iter().map(|s| (*s).into()).collect(),
            groups: groups.iter().map(|s| (*s).into()).collect(),
        }
    }

    #[test]
    fn defaults_are_envoys() {
        let all = algorithms(&params(&[], &[])).unwrap();
        assert_eq!(all.provider.cipher_suites.len(), 9);
        assert_eq!(all.provider.kx_groups.len(), 3);
        assert_eq!(all.versions.len(), 2);
    }

    #[test]
    fn named_suites_keep_their_order_and_those_lacking_are_named() {
        let names = [
            "ECDHE-RSA-AES256-GCM-SHA384",
            "AES128-GCM-SHA256",
            "ECDHE-ECDSA-AES128-GCM-SHA256",
        ];
        let some = algorithms(&params(&names, &["P-521", "P-384"])).unwrap();
        assert_eq!(
            some.provider.cipher_suites[3..],
            [
                suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
                suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
            ]
        );
        assert_eq!(some.lacking, ["AES128-GCM-SHA256".into(), "P-521".into()]);
    }

    #[test]
    fn unknown_names_and_nothing_left_are_refused() {
        assert!(algorithms(&params(&["NOPE"], &[])).is_err());
        assert!(algorithms(&params(&["AES128-SHA"], &[])).is_err());
        assert!(algorithms(&params(&[], &["P-224"])).is_err());
    }

    #[test]
    fn bounds_choose_versions() {
        let only_12 = TlsParams {
            max: TlsVersion::Tls12,
            ..params(&[], &[])
        };
        assert_eq!(algorithms(&only_12).unwrap().versions, [&TLS12]);
    }
}
