//! Handshakes between both sides, over a connection in memory.

use outrigger_config::ir::{
    CertificateConfig, DownstreamTlsConfig, SanMatcher, SecretRef, SecretValue, TlsContextConfig,
    TlsParams, TlsVersion, UpstreamTlsConfig, ValidationConfig,
};
use outrigger_config::matcher::StringMatcher;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::network::io::Io;

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate as a mesh has it: a URI for a name, and an empty subject.
fn workload(ca: &Authority, name: &str) -> CertificateConfig {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.subject_alt_names = vec![match name.contains("://") {
        true => SanType::URI(name.try_into().unwrap()),
        false => SanType::DnsName(name.try_into().unwrap()),
    }];
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, ca).unwrap();
    CertificateConfig {
        chain: certificate.pem().into(),
        key: key.serialize_pem().into(),
        ocsp_staple: bytes::Bytes::new(),
    }
}

fn trusting(ca: &Authority, uri: Option<&str>) -> ValidationConfig {
    let matcher = |uri| SanMatcher {
        kind: None,
        matcher: StringMatcher::exact(uri),
    };
    ValidationConfig {
        trusted_ca: Some(ca.pem().into()),
        san_matchers: uri.map(matcher).into_iter().collect(),
        ..ValidationConfig::default()
    }
}

fn common(max: TlsVersion, alpn: &[&str]) -> TlsContextConfig {
    TlsContextConfig {
        params: TlsParams {
            min: TlsVersion::Tls12,
            max,
            cipher_suites: Vec::new(),
            groups: Vec::new(),
        },
        alpn: alpn.iter().map(|p| p.as_bytes().into()).collect(),
        certificates: Vec::new(),
        certificate_secrets: Vec::new(),
        validation: ValidationConfig::default(),
        validation_secret: None,
    }
}

fn downstream(alpn: &[&str]) -> DownstreamTlsConfig {
    DownstreamTlsConfig {
        common: common(TlsVersion::Tls13, alpn),
        require_client_certificate: true,
        require_sni: false,
        stateless_resumption: true,
        stateful_resumption: true,
        session_timeout: None,
        full_scan_on_sni_mismatch: false,
        prefer_client_ciphers: false,
    }
}

fn upstream(max: TlsVersion, alpn: &[&str]) -> UpstreamTlsConfig {
    UpstreamTlsConfig {
        common: common(max, alpn),
        sni: "outbound_.80_._.svc.ns.svc.cluster.local".into(),
        auto_host_sni: false,
        auto_sni_san_validation: false,
        max_session_keys: 1,
    }
}

const CLIENT: &str = "spiffe://td/ns/a/sa/client";
const SERVER: &str = "spiffe://td/ns/b/sa/server";

fn server(
    config: &DownstreamTlsConfig,
    own: &[CertificateConfig],
    validation: &ValidationConfig,
) -> TlsServer {
    let identities = own.iter().map(|one| Arc::new(Identity::read(one).unwrap()));
    let trust = Trust::read(validation).unwrap();
    TlsServer::new(config, identities.collect(), &trust).unwrap()
}

fn client(
    config: &UpstreamTlsConfig,
    own: Option<&CertificateConfig>,
    validation: &ValidationConfig,
) -> TlsClient {
    let identity = own.map(|one| Arc::new(Identity::read(one).unwrap()));
    TlsClient::new(config, identity, &Trust::read(validation).unwrap()).unwrap()
}

type Side = Result<(Io, TlsInfo), TlsFailure>;

async fn shake(server: &TlsServer, client: &TlsClient) -> (Side, Side) {
    let (near, far) = Io::pair(64 << 10);
    let options = ConnectOptions::default();
    let (accepted, connected) =
        tokio::join!(server.accept(far), client.connect(near, &options, ""));
    (accepted, connected)
}

/// A byte each way, so that tickets of TLS 1.3 have arrived.
async fn converse(server: &mut Io, client: &mut Io) {
    let mut byte = [0];
    server.write_all(b"s").await.unwrap();
    server.flush().await.unwrap();
    client.read_exact(&mut byte).await.unwrap();
    client.write_all(b"c").await.unwrap();
    client.flush().await.unwrap();
    server.read_exact(&mut byte).await.unwrap();
    assert_eq!(&byte, b"c");
}

struct Mesh {
    ca: Authority,
    server: TlsServer,
}

fn mesh(alpn: &[&str], accepts: Option<&str>) -> Mesh {
    let ca = authority();
    let own = [workload(&ca, SERVER)];
    let server = server(&downstream(alpn), &own, &trusting(&ca, accepts));
    Mesh { ca, server }
}

impl Mesh {
    fn client(&self, max: TlsVersion, alpn: &[&str], accepts: &str) -> TlsClient {
        let own = workload(&self.ca, CLIENT);
        let validation = trusting(&self.ca, Some(accepts));
        client(&upstream(max, alpn), Some(&own), &validation)
    }
}

#[tokio::test]
async fn both_sides_know_each_other_by_their_uris() {
    let mesh = mesh(&["h2"], Some(CLIENT));
    let client = mesh.client(TlsVersion::Tls13, &["istio", "h2"], SERVER);
    let (accepted, connected) = shake(&mesh.server, &client).await;
    let ((mut server_io, seen), (mut client_io, got)) = (accepted.unwrap(), connected.unwrap());
    converse(&mut server_io, &mut client_io).await;
    let peer = seen.peer_leaf().unwrap();
    assert_eq!(
        peer.names_of(outrigger_types::SanKind::Uri).next(),
        Some(CLIENT)
    );
    assert_eq!(&*peer.subject, "");
    assert_eq!((&*seen.alpn, seen.version), (&b"h2"[..], "TLSv1.3"));
    assert_eq!(&*seen.sni, "outbound_.80_._.svc.ns.svc.cluster.local");
    assert_eq!(
        (got.cipher, got.group),
        ("TLS_AES_128_GCM_SHA256", "X25519MLKEM768")
    );
    assert!(got.local.is_some() && seen.local.is_some());
}

#[tokio::test]
async fn no_common_protocol_is_no_protocol() {
    let mesh = mesh(&["h2", "http/1.1"], Some(CLIENT));
    let client = mesh.client(TlsVersion::Tls13, &["istio-peer-exchange", "istio"], SERVER);
    let (accepted, connected) = shake(&mesh.server, &client).await;
    assert!(accepted.unwrap().1.alpn.is_empty());
    assert!(connected.unwrap().1.alpn.is_empty());
}

#[tokio::test]
async fn upstream_defaults_end_at_tls_12() {
    let mesh = mesh(&[], Some(CLIENT));
    let client = mesh.client(TlsVersion::Tls12, &[], SERVER);
    let (accepted, connected) = shake(&mesh.server, &client).await;
    let info = accepted.unwrap().1;
    assert_eq!(info.version, "TLSv1.2");
    assert_eq!(info.cipher, "ECDHE-ECDSA-AES128-GCM-SHA256");
    assert_eq!(connected.unwrap().1.version, "TLSv1.2");
}

#[tokio::test]
async fn a_stranger_is_told_from_a_wrong_name_and_from_nobody() {
    let mesh = mesh(&[], Some(CLIENT));
    let wrong = mesh.client(TlsVersion::Tls12, &[], "spiffe://td/ns/b/sa/other");
    let (_, connected) = shake(&mesh.server, &wrong).await;
    assert_eq!(connected.unwrap_err().kind, TlsFailureKind::San);

    let stranger = authority();
    let own = workload(&stranger, CLIENT);
    let validation = trusting(&mesh.ca, None);
    let config = upstream(TlsVersion::Tls12, &[]);
    let strange = client(&config, Some(&own), &validation);
    let (accepted, _) = shake(&mesh.server, &strange).await;
    assert_eq!(accepted.unwrap_err().kind, TlsFailureKind::Chain);

    let nobody = client(&config, None, &validation);
    let (accepted, _) = shake(&mesh.server, &nobody).await;
    assert_eq!(accepted.unwrap_err().kind, TlsFailureKind::NoCertificate);
}

#[tokio::test]
async fn sessions_resume_with_the_context_that_gave_them_and_no_other() {
    for version in [TlsVersion::Tls12, TlsVersion::Tls13] {
        let mesh = mesh(&[], Some(CLIENT));
        let client = mesh.client(version, &[], SERVER);
        for resumed in [false, true] {
            let (accepted, connected) = shake(&mesh.server, &client).await;
            let ((mut server_io, info), (mut client_io, _)) =
                (accepted.unwrap(), connected.unwrap());
            assert_eq!(info.resumed, resumed, "{version:?}");
            assert!(info.peer_leaf().is_some());
            converse(&mut server_io, &mut client_io).await;
        }
        let own = [workload(&mesh.ca, SERVER)];
        let trust = trusting(&mesh.ca, Some(CLIENT));
        let renewed = server(&downstream(&[]), &own, &trust);
        let (accepted, connected) = shake(&renewed, &client).await;
        connected.unwrap();
        assert!(!accepted.unwrap().1.resumed, "{version:?}");
    }
}

#[tokio::test]
async fn names_of_servers_are_looked_for_only_where_asked() {
    let ca = authority();
    let own = [workload(&ca, "*.example.com")];
    let mut config = downstream(&[]);
    config.require_client_certificate = false;
    let server = server(&config, &own, &ValidationConfig::default());
    for (sni, checked, good) in [
        ("a.example.com", true, true),
        ("b.example.org", true, false),
        ("b.example.org", false, true),
    ] {
        let mut config = upstream(TlsVersion::Tls13, &[]);
        config.sni = sni.into();
        config.auto_sni_san_validation = checked;
        let client = client(&config, None, &trusting(&ca, None));
        let (_, connected) = shake(&server, &client).await;
        assert_eq!(connected.is_ok(), good, "{sni} {checked}");
    }
}

#[tokio::test]
async fn pins_name_a_certificate_or_its_key() {
    let ca = authority();
    let own = [workload(&ca, SERVER)];
    let mut config = downstream(&[]);
    config.require_client_certificate = false;
    let server = server(&config, &own, &ValidationConfig::default());
    let leaf = server.certificates().next().unwrap();
    let hash = certificate::sha256(&leaf.der);
    for (pin, good) in [(hash, true), ([7; 32], false)] {
        let validation = ValidationConfig {
            certificate_hashes: vec![pin],
            ..ValidationConfig::default()
        };
        let client = client(&upstream(TlsVersion::Tls13, &[]), None, &validation);
        let (_, connected) = shake(&server, &client).await;
        match good {
            true => drop(connected.unwrap()),
            false => assert_eq!(connected.unwrap_err().kind, TlsFailureKind::Hash),
        }
    }
}

#[test]
fn a_key_of_another_certificate_and_broken_pem_are_refused() {
    let ca = authority();
    let mut own = workload(&ca, SERVER);
    own.key = workload(&ca, CLIENT).key;
    let error = Identity::read(&own).unwrap_err();
    assert!(error.contains("is not the certificate's"), "{error}");
    let broken = ValidationConfig {
        trusted_ca: Some("nothing".into()),
        ..ValidationConfig::default()
    };
    let error = Trust::read(&broken).unwrap_err();
    assert!(error.contains("trusted_ca"), "{error}");
}

fn by_secret(name: &str) -> Vec<SecretRef> {
    vec![SecretRef {
        name: name.into(),
        source: None,
    }]
}

#[tokio::test]
async fn a_context_waits_for_its_secrets_and_takes_over_new_ones() {
    let ca = authority();
    let mut config = downstream(&[]);
    config.common.certificate_secrets = by_secret("default");
    config.common.validation_secret = by_secret("ROOTCA").pop();
    let cells = [
        Arc::new(SecretCell::default()),
        Arc::new(SecretCell::default()),
    ];
    let find = |wanted: &SecretRef| Ok(cells[usize::from(&*wanted.name == "ROOTCA")].clone());
    let context = ServerContext::new(&Arc::new(config), find).unwrap();
    assert!(!context.is_settled() && context.current().unwrap().is_none());

    let own = SecretValue::Certificate(workload(&ca, SERVER));
    cells[0].set(Secret::read(&own).unwrap());
    assert!(!context.is_settled());
    let roots = SecretValue::Validation(trusting(&ca, None));
    cells[1].set(Secret::read(&roots).unwrap());
    assert!(context.is_settled());
    let first = context.current().unwrap().unwrap();
    assert!(Arc::ptr_eq(&first, &context.current().unwrap().unwrap()));

    let serial = |server: &TlsServer| server.certificates().next().unwrap().serial.clone();
    let renewed = SecretValue::Certificate(workload(&ca, SERVER));
    cells[0].set(Secret::read(&renewed).unwrap());
    let second = context.current().unwrap().unwrap();
    assert_ne!(serial(&first), serial(&second));
}
