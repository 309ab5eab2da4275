//! Operators about the TLS session of either side (`%DOWNSTREAM_PEER_...%`, `%UPSTREAM_TLS_...%`).

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use outrigger_types::{Certificate, SanKind, TlsInfo};

use super::FormatContext;
use super::value::Value;

/// An operator about one side.
#[derive(Clone, Copy, Debug)]
pub(super) struct TlsOperator {
    side: Side,
    read: Read,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Downstream,
    Upstream,
}

/// What is read where there is a TLS session.
#[derive(Clone, Copy, Debug)]
enum Read {
    Session(fn(&TlsInfo) -> Value<'_>),
    Peer(fn(&Certificate) -> Value<'_>),
    Local(fn(&Certificate) -> Value<'_>),
    /// Of every certificate that the peer showed.
    Chain(fn(&Certificate) -> String),
    /// Of what signed the peer's certificate, as far as the peer showed it.
    Issuer(fn(&Certificate) -> String),
    /// Known to Envoy, and never there on this path.
    Nothing,
}

/// Looks an operator up.
pub(super) fn find(name: &str) -> Option<TlsOperator> {
    if matches!(name, "TLS_JA3_FINGERPRINT" | "TLS_JA4_FINGERPRINT") {
        return Some(TlsOperator {
            side: Side::Downstream,
            read: Read::Nothing,
        });
    }
    let (side, field) = side_of(name)?;
    let of_downstream = (side == Side::Downstream).then_some(OF_DOWNSTREAM);
    let of_upstream = (side == Side::Upstream).then_some(OF_UPSTREAM);
    let tables = [Some(OF_EITHER_SIDE), of_downstream, of_upstream];
    let mut known = tables.into_iter().flatten().flatten();
    let (_, read) = known.find(|(known, _)| *known == field)?;
    Some(TlsOperator { side, read: *read })
}

/// The side that a name begins with, and the rest of the name.
pub(super) fn side_of(name: &str) -> Option<(Side, &str)> {
    let downstream = name.strip_prefix("DOWNSTREAM_");
    let upstream = name.strip_prefix("UPSTREAM_");
    let upstream = upstream.map(|field| (Side::Upstream, field));
    downstream
        .map(|field| (Side::Downstream, field))
        .or(upstream)
}

impl Side {
    /// The session of this side, if there is one.
    pub(super) fn session<'a>(self, context: &FormatContext<'a>) -> Option<&'a TlsInfo> {
        match self {
            Self::Downstream => context.info.connection.tls(),
            Self::Upstream => context.info.upstream.tls.as_deref(),
        }
    }
}

impl TlsOperator {
    /// The value.
    pub(super) fn read<'a>(self, context: &FormatContext<'a>) -> Value<'a> {
        let Some(session) = self.side.session(context) else {
            return Value::Missing;
        };
        match self.read {
            Read::Session(read) => read(session),
            Read::Peer(read) => session.peer_leaf().map_or(Value::Missing, |c| read(c)),
            Read::Local(read) => session.local.as_deref().map_or(Value::Missing, read),
            Read::Chain(read) => {
                let all: Vec<String> = session.peer.iter().map(|c| read(c)).collect();
                match all.is_empty() {
                    true => Value::Missing,
                    false => Value::owned(all.join(",")),
                }
            }
            Read::Issuer(read) => {
                let issuer = session.peer.get(1);
                issuer.map_or(Value::Missing, |c| Value::owned(read(c)))
            }
            Read::Nothing => Value::Missing,
        }
    }
}

const OF_EITHER_SIDE: &[(&str, Read)] = &[
    ("LOCAL_CLOSE_REASON", Read::Nothing),
    ("LOCAL_DNS_SAN", Read::Local(|c| names(c, SanKind::Dns))),
    ("LOCAL_IP_SAN", Read::Local(|c| names(c, SanKind::Ip))),
    ("LOCAL_URI_SAN", Read::Local(|c| names(c, SanKind::Uri))),
    ("PEER_CERT", Read::Peer(|c| Value::owned(encoded_pem(c)))),
    ("PEER_DNS_SAN", Read::Peer(|c| names(c, SanKind::Dns))),
    ("PEER_IP_SAN", Read::Peer(|c| names(c, SanKind::Ip))),
    ("PEER_ISSUER", Read::Peer(|c| Value::text(&c.issuer))),
    ("PEER_SUBJECT", Read::Peer(|c| Value::text(&c.subject))),
    ("PEER_URI_SAN", Read::Peer(|c| names(c, SanKind::Uri))),
    ("TLS_CIPHER", Read::Session(|s| Value::text(s.cipher))),
    ("TLS_GROUP", Read::Session(|s| Value::text(s.group))),
    // The library does not show it.
    ("TLS_SESSION_ID", Read::Nothing),
    ("TLS_VERSION", Read::Session(|s| Value::text(s.version))),
];

const OF_DOWNSTREAM: &[(&str, Read)] = &[
    ("CX_RTT", Read::Nothing),
    ("HANDSHAKE_DURATION", Read::Nothing),
    ("LOCAL_EMAIL_SAN", Read::Local(|c| names(c, SanKind::Email))),
    ("LOCAL_OTHERNAME_SAN", Read::Nothing),
    ("LOCAL_SUBJECT", Read::Local(|c| Value::text(&c.subject))),
    (
        "PEER_CHAIN_FINGERPRINTS_1",
        Read::Chain(|c| hex(&c.fingerprint_1)),
    ),
    (
        "PEER_CHAIN_FINGERPRINTS_256",
        Read::Chain(|c| hex(&c.fingerprint_256)),
    ),
    ("PEER_CHAIN_SERIALS", Read::Chain(|c| c.serial.to_string())),
    ("PEER_EMAIL_SAN", Read::Peer(|c| names(c, SanKind::Email))),
    (
        "PEER_FINGERPRINT_1",
        Read::Peer(|c| Value::owned(hex(&c.fingerprint_1))),
    ),
    (
        "PEER_FINGERPRINT_256",
        Read::Peer(|c| Value::owned(hex(&c.fingerprint_256))),
    ),
    (
        "PEER_ISSUER_FINGERPRINT_256",
        Read::Issuer(|c| hex(&c.fingerprint_256)),
    ),
    ("PEER_ISSUER_SERIAL", Read::Issuer(|c| c.serial.to_string())),
    ("PEER_OTHERNAME_SAN", Read::Nothing),
    ("PEER_SERIAL", Read::Peer(|c| Value::text(&c.serial))),
];

const OF_UPSTREAM: &[(&str, Read)] = &[("SERVER_NAME", Read::Session(|s| Value::text(&s.sni)))];

/// The names of a kind, with commas between.
fn names(certificate: &Certificate, kind: SanKind) -> Value<'_> {
    let mut found = certificate.names_of(kind);
    match (found.next(), found.next()) {
        (None, _) => Value::Missing,
        (Some(only), None) => Value::text(only),
        (Some(first), Some(second)) => {
            let all: Vec<&str> = [first, second].into_iter().chain(found).collect();
            Value::owned(all.join(","))
        }
    }
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(out, "{byte:02x}");
    }
    out
}

/// A certificate as PEM whose unsafe characters are percent-encoded, as headers and logs hold it.
pub fn encoded_pem(certificate: &Certificate) -> String {
    let body = STANDARD.encode(&certificate.der);
    let mut out = String::with_capacity(body.len() + body.len() / 8 + 96);
    out.push_str("-----BEGIN%20CERTIFICATE-----%0A");
    for line in body.as_bytes().chunks(64) {
        for byte in line {
            match byte {
                b'+' => out.push_str("%2B"),
                b'/' => out.push_str("%2F"),
                b'=' => out.push_str("%3D"),
                other => out.push(char::from(*other)),
            }
        }
        out.push_str("%0A");
    }
    out.push_str("-----END%20CERTIFICATE-----%0A");
    out
}
