//! TLS contexts and secrets.

use std::collections::BTreeSet;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use filter_api::ConfigError;
use outrigger_types::SanKind;

use super::any::Typed;
use super::body::data_source;
use super::matcher::string;
use super::path::{Within, bool_or, duration, each, optional, refuse, required, unknown_enum};
use super::source::config_source;
use super::{ConvertContext, Converted, Result, check};
use crate::ir::{
    CertificateConfig, DownstreamTlsConfig, DownstreamTransport, SanMatcher, SecretConfig,
    SecretRef, SecretValue, TlsContextConfig, TlsParams, TlsVersion, UpstreamTlsConfig,
    UpstreamTransport, ValidationConfig,
};
use crate::pb::envoy::config::core::v3 as core;
use crate::pb::envoy::extensions::transport_sockets::tls::v3 as pb;

const RAW_BUFFER: &str = "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer";
const DOWNSTREAM: &str = "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";
const UPSTREAM: &str = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";

/// The longest certificate chain, key, list of roots or of revocations, in bytes.
const MAX_PEM: usize = 16 << 20;

/// Where systems keep the roots they trust, in the order in which Envoy looks.
const SYSTEM_ROOTS: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
    "/usr/local/etc/ssl/cert.pem",
];

/// Converts a secret.
///
/// # Errors
/// For a value or a field that is refused, with its path.
pub fn secret(bytes: &[u8], cx: &ConvertContext<'_>) -> Result<Converted<SecretConfig>> {
    check::entry::<pb::Secret, _>(
        check::SECRET,
        bytes,
        cx,
        |message| format!("secret \"{}\"", message.name),
        secret_config,
    )
}

/// Converts a secret that has been checked with what holds it.
pub(super) fn secret_config(message: pb::Secret) -> Result<SecretConfig> {
    use pb::secret::Type;
    let pb::Secret { name, r#type } = message;
    let value = match required("type", r#type)? {
        Type::TlsCertificate(message) => certificate(message)
            .map(SecretValue::Certificate)
            .within("tls_certificate")?,
        Type::ValidationContext(message) => validation(message)
            .map(SecretValue::Validation)
            .within("validation_context")?,
        Type::SessionTicketKeys(_) => return refuse("session_ticket_keys", "is not supported"),
        Type::GenericSecret(_) => return refuse("generic_secret", "is not supported"),
    };
    Ok(SecretConfig {
        name: name.into(),
        value,
    })
}

/// What carries the connections of a filter chain.
pub(super) fn downstream_transport(message: core::TransportSocket) -> Result<DownstreamTransport> {
    let Some(typed) = typed_socket(message)? else {
        return Ok(DownstreamTransport::Raw);
    };
    match typed.name.as_str() {
        DOWNSTREAM => typed
            .decode()
            .and_then(downstream)
            .map(|config| DownstreamTransport::Tls(Arc::new(config)))
            .within("typed_config"),
        _ => typed.unsupported("transport socket").within("typed_config"),
    }
}

/// What carries the connections to a host.
pub(super) fn upstream_transport(message: core::TransportSocket) -> Result<UpstreamTransport> {
    let Some(typed) = typed_socket(message)? else {
        return Ok(UpstreamTransport::Raw);
    };
    match typed.name.as_str() {
        UPSTREAM => typed
            .decode()
            .and_then(upstream)
            .map(|config| UpstreamTransport::Tls(Arc::new(config)))
            .within("typed_config"),
        _ => typed.unsupported("transport socket").within("typed_config"),
    }
}

/// The configuration of a transport socket; none for plain text.
fn typed_socket(message: core::TransportSocket) -> Result<Option<Typed>> {
    let core::TransportSocket { name, config_type } = message;
    let Some(core::transport_socket::ConfigType::TypedConfig(config)) = config_type else {
        let reason = format!("transport socket \"{name}\" has none");
        return refuse("typed_config", reason);
    };
    let typed = Typed::unpack(config).within("typed_config")?;
    Ok((typed.name != RAW_BUFFER).then_some(typed))
}

fn downstream(message: pb::DownstreamTlsContext) -> Result<DownstreamTlsConfig> {
    use pb::downstream_tls_context::{OcspStaplePolicy, SessionTicketKeysType};
    let pb::DownstreamTlsContext {
        common_tls_context,
        require_client_certificate,
        require_sni,
        disable_stateful_session_resumption,
        session_timeout,
        ocsp_staple_policy,
        full_scan_certs_on_sni_mismatch,
        prefer_client_ciphers,
        session_ticket_keys_type,
    } = message;
    let stateless_resumption = match session_ticket_keys_type {
        None => true,
        Some(SessionTicketKeysType::DisableStatelessSessionResumption(off)) => !off,
        Some(SessionTicketKeysType::SessionTicketKeys(_)) => {
            return refuse("session_ticket_keys", "is not supported");
        }
        Some(SessionTicketKeysType::SessionTicketKeysSdsSecretConfig(_)) => {
            return refuse("session_ticket_keys_sds_secret_config", "is not supported");
        }
    };
    if ocsp_staple_policy != OcspStaplePolicy::LenientStapling as i32 {
        return refuse("ocsp_staple_policy", "only LENIENT_STAPLING is supported");
    }
    let common = common_context(common_tls_context.unwrap_or_default(), TlsVersion::Tls13)
        .within("common_tls_context")?;
    if common.certificates.is_empty() && common.certificate_secrets.is_empty() {
        let reason = "no TLS certificates found for server context";
        return refuse("common_tls_context", reason);
    }
    Ok(DownstreamTlsConfig {
        common,
        require_client_certificate: bool_or(require_client_certificate, false),
        require_sni: bool_or(require_sni, false),
        stateless_resumption,
        stateful_resumption: !disable_stateful_session_resumption,
        session_timeout: duration("session_timeout", session_timeout)?,
        full_scan_on_sni_mismatch: bool_or(full_scan_certs_on_sni_mismatch, false),
        prefer_client_ciphers,
    })
}

fn upstream(message: pb::UpstreamTlsContext) -> Result<UpstreamTlsConfig> {
    let pb::UpstreamTlsContext {
        common_tls_context,
        sni,
        auto_host_sni,
        auto_sni_san_validation,
        allow_renegotiation,
        max_session_keys,
        enforce_rsa_key_usage: _,
    } = message;
    if allow_renegotiation {
        return refuse("allow_renegotiation", "is not supported");
    }
    let common = common_context(common_tls_context.unwrap_or_default(), TlsVersion::Tls12)
        .within("common_tls_context")?;
    if common.certificates.len() + common.certificate_secrets.len() > 1 {
        let reason = "multiple TLS certificates are not supported for client contexts";
        return refuse("common_tls_context", reason);
    }
    Ok(UpstreamTlsConfig {
        common,
        sni: sni.into(),
        auto_host_sni,
        auto_sni_san_validation,
        max_session_keys: max_session_keys.map_or(1, |n| n.value as usize),
    })
}

fn common_context(
    message: pb::CommonTlsContext,
    highest_default: TlsVersion,
) -> Result<TlsContextConfig> {
    let pb::CommonTlsContext {
        tls_params,
        tls_certificates,
        tls_certificate_sds_secret_configs,
        tls_certificate_provider_instance: _,
        custom_tls_certificate_selector: _,
        tls_certificate_certificate_provider: _,
        tls_certificate_certificate_provider_instance: _,
        alpn_protocols,
        custom_handshaker: _,
        key_log: _,
        validation_context_type,
    } = message;
    if !tls_certificates.is_empty() && !tls_certificate_sds_secret_configs.is_empty() {
        let reason = "SDS and non-SDS TLS certificates may not be mixed";
        return refuse("tls_certificate_sds_secret_configs", reason);
    }
    let (validation, validation_secret) = validation_source(validation_context_type)?;
    Ok(TlsContextConfig {
        params: params(tls_params.unwrap_or_default(), highest_default).within("tls_params")?,
        alpn: each("alpn_protocols", alpn_protocols, alpn)?,
        certificates: each("tls_certificates", tls_certificates, certificate)?,
        certificate_secrets: each(
            "tls_certificate_sds_secret_configs",
            tls_certificate_sds_secret_configs,
            secret_ref,
        )?,
        validation,
        validation_secret,
    })
}

/// The name of a protocol, of a length that the handshake can carry.
fn alpn(name: String) -> Result<Box<[u8]>> {
    match name.len() {
        1..=255 => Ok(name.into_bytes().into()),
        len => Err(ConfigError::new(format!(
            "an ALPN protocol of {len} bytes: 1 to 255 are allowed"
        ))),
    }
}

fn validation_source(
    source: Option<pb::common_tls_context::ValidationContextType>,
) -> Result<(ValidationConfig, Option<SecretRef>)> {
    use pb::common_tls_context::{CombinedCertificateValidationContext, ValidationContextType};
    match source {
        None => Ok((ValidationConfig::default(), None)),
        Some(ValidationContextType::ValidationContext(message)) => {
            let config = validation(message)
                .and_then(sane)
                .within("validation_context")?;
            Ok((config, None))
        }
        Some(ValidationContextType::ValidationContextSdsSecretConfig(message)) => {
            let secret = secret_ref(message).within("validation_context_sds_secret_config")?;
            Ok((ValidationConfig::default(), Some(secret)))
        }
        Some(ValidationContextType::CombinedValidationContext(message)) => {
            let CombinedCertificateValidationContext {
                default_validation_context,
                validation_context_sds_secret_config,
                validation_context_certificate_provider: _,
                validation_context_certificate_provider_instance: _,
            } = message;
            let read = || {
                let base = required("default_validation_context", default_validation_context)?;
                let base = validation(base).within("default_validation_context")?;
                let field = "validation_context_sds_secret_config";
                let secret = required(field, validation_context_sds_secret_config)?;
                Ok((base, Some(secret_ref(secret).within(field)?)))
            };
            read().within("combined_validation_context")
        }
        Some(
            ValidationContextType::ValidationContextCertificateProvider(_)
            | ValidationContextType::ValidationContextCertificateProviderInstance(_),
        ) => Err(ConfigError::new("certificate providers are not supported")),
    }
}

fn secret_ref(message: pb::SdsSecretConfig) -> Result<SecretRef> {
    let pb::SdsSecretConfig { name, sds_config } = message;
    Ok(SecretRef {
        name: name.into(),
        source: optional("sds_config", sds_config, config_source)?,
    })
}

fn params(message: pb::TlsParameters, highest_default: TlsVersion) -> Result<TlsParams> {
    let pb::TlsParameters {
        tls_minimum_protocol_version,
        tls_maximum_protocol_version,
        cipher_suites,
        ecdh_curves,
        signature_algorithms: _,
        compliance_policies: _,
    } = message;
    // What is older than TLS 1.2 is not spoken here: a lower bound is raised to it.
    let min = version("tls_minimum_protocol_version", tls_minimum_protocol_version)?
        .map_or(TlsVersion::Tls12, |v| v.unwrap_or(TlsVersion::Tls12));
    let max = match version("tls_maximum_protocol_version", tls_maximum_protocol_version)? {
        None => highest_default,
        Some(Some(version)) => version,
        Some(None) => {
            let reason = "versions before TLS 1.2 are not supported";
            return refuse("tls_maximum_protocol_version", reason);
        }
    };
    if min > max {
        return refuse(
            "tls_minimum_protocol_version",
            "is above tls_maximum_protocol_version",
        );
    }
    Ok(TlsParams {
        min,
        max,
        cipher_suites: suites(&cipher_suites),
        groups: ecdh_curves.into_iter().map(Into::into).collect(),
    })
}

/// A version: none for AUTO, and within it none for one that is too old.
fn version(name: &str, number: i32) -> Result<Option<Option<TlsVersion>>> {
    use pb::tls_parameters::TlsProtocol;
    Ok(match TlsProtocol::try_from(number) {
        Ok(TlsProtocol::TlsAuto) => None,
        Ok(TlsProtocol::TlSv10 | TlsProtocol::TlSv11) => Some(None),
        Ok(TlsProtocol::TlSv12) => Some(Some(TlsVersion::Tls12)),
        Ok(TlsProtocol::TlSv13) => Some(Some(TlsVersion::Tls13)),
        Err(_) => return unknown_enum(name, number),
    })
}

/// The names of suites in order. Those of one preference stand in brackets with bars
/// between them, and elements may hold several with colons between.
fn suites(elements: &[String]) -> Vec<Box<str>> {
    let mut seen = BTreeSet::new();
    elements
        .iter()
        .flat_map(|element| element.split([':', '|', '[', ']']))
        .map(str::trim)
        .filter(|name| !name.is_empty() && seen.insert((*name).to_owned()))
        .map(Into::into)
        .collect()
}

fn certificate(message: pb::TlsCertificate) -> Result<CertificateConfig> {
    let pb::TlsCertificate {
        certificate_chain,
        private_key,
        pkcs12: _,
        watched_directory: _,
        private_key_provider: _,
        password: _,
        ocsp_staple,
        signed_certificate_timestamp: _,
        tls_params: _,
    } = message;
    Ok(CertificateConfig {
        chain: pem(
            "certificate_chain",
            required("certificate_chain", certificate_chain)?,
        )?,
        key: pem("private_key", required("private_key", private_key)?)?,
        ocsp_staple: match ocsp_staple {
            Some(source) => pem("ocsp_staple", source)?,
            None => Bytes::new(),
        },
    })
}

fn pem(name: &str, source: core::DataSource) -> Result<Bytes> {
    data_source(source, MAX_PEM).within(name)
}

fn validation(message: pb::CertificateValidationContext) -> Result<ValidationConfig> {
    use pb::certificate_validation_context::TrustChainVerification;
    let pb::CertificateValidationContext {
        trusted_ca,
        ca_certificate_provider_instance: _,
        system_root_certs,
        watched_directory: _,
        verify_certificate_spki,
        verify_certificate_hash,
        match_typed_subject_alt_names,
        match_subject_alt_names,
        require_signed_certificate_timestamp: _,
        crl,
        allow_expired_certificate: _,
        trust_chain_verification,
        custom_validator_config: _,
        only_verify_leaf_cert_crl,
        max_verify_depth,
        suppress_client_ca_list,
    } = message;
    let mut san_matchers = each(
        "match_typed_subject_alt_names",
        match_typed_subject_alt_names,
        typed_san,
    )?;
    san_matchers.extend(each(
        "match_subject_alt_names",
        match_subject_alt_names,
        |message| {
            Ok(SanMatcher {
                kind: None,
                matcher: string(message)?,
            })
        },
    )?);
    let trusted_ca = match (trusted_ca, system_root_certs) {
        (Some(source), _) => Some(pem("trusted_ca", source)?),
        (None, Some(_)) => Some(system_roots().within("system_root_certs")?),
        (None, None) => None,
    };
    Ok(ValidationConfig {
        trusted_ca,
        // As in Envoy an empty list is none; Istio's agent sends such.
        crl: optional("crl", crl, |source| data_source(source, MAX_PEM))?
            .filter(|list| !list.is_empty()),
        only_leaf_crl: only_verify_leaf_cert_crl,
        spki_pins: each("verify_certificate_spki", verify_certificate_spki, spki)?,
        certificate_hashes: each("verify_certificate_hash", verify_certificate_hash, hash)?,
        san_matchers,
        accept_untrusted: trust_chain_verification
            == TrustChainVerification::AcceptUntrusted as i32,
        max_verify_depth: max_verify_depth.map(|depth| depth.value),
        suppress_client_ca_list,
    })
}

/// Refuses what looks like a check and is none without roots.
fn sane(config: ValidationConfig) -> Result<ValidationConfig> {
    if config.trusted_ca.is_some() {
        return Ok(config);
    }
    if !config.san_matchers.is_empty() {
        return refuse(
            "match_typed_subject_alt_names",
            "SAN-based verification of peer certificates without trusted CA is insecure and not allowed",
        );
    }
    if config.crl.is_some() {
        return refuse("crl", "a revocation list without trusted CA");
    }
    Ok(config)
}

fn system_roots() -> Result<Bytes> {
    SYSTEM_ROOTS
        .iter()
        .find_map(|path| std::fs::read(path).ok())
        .map(Bytes::from)
        .ok_or_else(|| ConfigError::new("the system has no list of roots"))
}

fn typed_san(message: pb::SubjectAltNameMatcher) -> Result<SanMatcher> {
    use pb::subject_alt_name_matcher::SanType;
    let pb::SubjectAltNameMatcher {
        san_type,
        matcher,
        oid: _,
    } = message;
    let kind = match SanType::try_from(san_type) {
        Ok(SanType::Email) => SanKind::Email,
        Ok(SanType::Dns) => SanKind::Dns,
        Ok(SanType::Uri) => SanKind::Uri,
        Ok(SanType::IpAddress) => SanKind::Ip,
        Ok(SanType::OtherName) => return refuse("san_type", "OTHER_NAME is not supported"),
        Ok(SanType::Unspecified) | Err(_) => return unknown_enum("san_type", san_type),
    };
    Ok(SanMatcher {
        kind: Some(kind),
        matcher: string(required("matcher", matcher)?).within("matcher")?,
    })
}

fn spki(text: String) -> Result<[u8; 32]> {
    STANDARD
        .decode(&text)
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| ConfigError::new(format!("invalid base64-encoded SHA-256 {text}")))
}

/// Hexadecimal, with or without colons.
fn hash(text: String) -> Result<[u8; 32]> {
    let invalid = || ConfigError::new(format!("invalid hex-encoded SHA-256 {text}"));
    let digits: Vec<u8> = text.bytes().filter(|b| *b != b':').collect();
    if digits.len() != 64 {
        return Err(invalid());
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
        let pair = std::str::from_utf8(pair).map_err(|_| invalid())?;
        *byte = u8::from_str_radix(pair, 16).map_err(|_| invalid())?;
    }
    Ok(bytes)
}
