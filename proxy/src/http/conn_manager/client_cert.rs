//! `x-forwarded-client-cert`: what those behind are told of the client's certificate.
//!
//! Follows Envoy's "x-forwarded-client-cert" section of "HTTP header manipulation".

use bytes::Bytes;
use outrigger_config::format::{encoded_pem, hex};
use outrigger_config::ir::{ClientCertDetails, ForwardClientCert, HcmConfig};
use outrigger_types::{HeaderValue, Headers, SanKind, StreamInfo, TlsInfo, names};

use super::request::Seen;

/// Writes the header, leaves it, or takes it away, as configured. Without a client certificate
/// nobody may say anything about one.
pub(super) fn apply(headers: &mut Headers, hcm: &HcmConfig, info: &StreamInfo, seen: Seen) {
    let session = info.connection.tls();
    let session = session.filter(|session| !session.peer.is_empty());
    let forward = hcm.forward_client_cert;
    let (session, append) = match (forward, session) {
        (ForwardClientCert::AlwaysForwardOnly, _) | (ForwardClientCert::ForwardOnly, Some(_)) => {
            return;
        }
        (ForwardClientCert::Sanitize, _) | (_, None) => {
            if seen.has(Seen::CLIENT_CERT) {
                headers.remove(&names::X_FORWARDED_CLIENT_CERT);
            }
            return;
        }
        (ForwardClientCert::AppendForward, Some(session)) => (session, true),
        (ForwardClientCert::SanitizeSet, Some(session)) => (session, false),
    };
    let own = session
        .client_cert
        .get_or_init(|| details(session, &hcm.client_cert_details));
    let before = (append && seen.has(Seen::CLIENT_CERT))
        .then(|| headers.joined(&names::X_FORWARDED_CLIENT_CERT))
        .flatten();
    let value = match before {
        Some(before) if !before.is_empty() => {
            let all = [&before[..], b",", own.as_bytes()].concat();
            HeaderValue::from_maybe_shared(Bytes::from(all)).unwrap_or_else(|_| own.clone())
        }
        _ => own.clone(),
    };
    headers.set(names::X_FORWARDED_CLIENT_CERT, value);
}

/// One element of the header, the same for all requests of a connection.
fn details(session: &TlsInfo, wanted: &ClientCertDetails) -> HeaderValue {
    let mut parts = Vec::new();
    if let Some(local) = &session.local {
        let uris = local.names_of(SanKind::Uri);
        parts.extend(uris.map(|uri| format!("By={uri}")));
    }
    if let Some(peer) = session.peer_leaf() {
        parts.push(format!("Hash={}", hex(&peer.fingerprint_256)));
        if wanted.cert {
            parts.push(format!("Cert=\"{}\"", encoded_pem(peer)));
        }
        if wanted.chain {
            let chain: String = session.peer.iter().map(|c| encoded_pem(c)).collect();
            parts.push(format!("Chain=\"{chain}\""));
        }
        if wanted.subject {
            parts.push(format!("Subject=\"{}\"", peer.subject));
        }
        if wanted.uri {
            let before = parts.len();
            let uris = peer.names_of(SanKind::Uri);
            parts.extend(uris.map(|uri| format!("URI={uri}")));
            if parts.len() == before {
                parts.push("URI=".to_owned());
            }
        }
        if wanted.dns {
            let names = peer.names_of(SanKind::Dns);
            parts.extend(names.map(|name| format!("DNS={name}")));
        }
    }
    // A subject may hold what no header can.
    HeaderValue::from_maybe_shared(Bytes::from(parts.join(";")))
        .unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::SystemTime;

    use outrigger_types::Certificate;

    use super::*;

    fn certificate(names: &[(SanKind, &str)], subject: &str) -> Arc<Certificate> {
        Arc::new(Certificate {
            der: Box::new([1, 2, 3]),
            subject: subject.into(),
            issuer: "".into(),
            serial: "1".into(),
            names: names.iter().map(|(k, n)| (*k, (*n).into())).collect(),
            not_before: SystemTime::UNIX_EPOCH,
            not_after: SystemTime::UNIX_EPOCH,
            fingerprint_256: [0xab; 32],
            fingerprint_1: [0; 20],
        })
    }

    #[test]
    fn details_stand_in_envoys_order() {
        let session = TlsInfo {
            peer: vec![certificate(
                &[(SanKind::Dns, "a"), (SanKind::Dns, "b")],
                "CN=x",
            )],
            local: Some(certificate(&[(SanKind::Uri, "spiffe://td/s")], "")),
            ..TlsInfo::default()
        };
        let all = ClientCertDetails {
            subject: true,
            cert: true,
            chain: false,
            dns: true,
            uri: true,
        };
        let hash = "ab".repeat(32);
        let pem = "-----BEGIN%20CERTIFICATE-----%0AAQID%0A-----END%20CERTIFICATE-----%0A";
        assert_eq!(
            details(&session, &all),
            format!(
                "By=spiffe://td/s;Hash={hash};Cert=\"{pem}\";Subject=\"CN=x\";URI=;DNS=a;DNS=b"
            )
        );
    }
}
