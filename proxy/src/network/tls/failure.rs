//! Why a handshake failed: for stats, and in BoringSSL's words, which operators search logs for.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, OtherError};

/// BoringSSL's number of the library, above the number of the reason.
const LIBRARY: u32 = 16 << 24;

/// The same of the system's errors.
const SYSTEM_LIBRARY: u32 = 2 << 24;

/// Why a peer's certificate was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VerifyFailure {
    /// The chain leads to no trusted root, is expired or revoked (`fail_verify_error`).
    Chain(webpki::Error),
    /// No name is accepted (`fail_verify_san`); the names there are.
    San(Vec<Box<str>>),
    /// The name that was asked for is not among those there are (`fail_verify_san`).
    ServerName(Box<str>, Vec<Box<str>>),
    /// Neither the certificate nor its key is pinned (`fail_verify_cert_hash`).
    Hash,
}

impl fmt::Display for VerifyFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("verify cert failed: ")?;
        match self {
            Self::Chain(why) => write!(
                f,
                "X509_verify_cert: certificate verification error at depth 0: {}",
                chain_reason(why)
            ),
            Self::San(names) => {
                let names = names.join(", ");
                write!(f, "SAN matcher, certificate SANs are [{names}]")
            }
            Self::ServerName(asked, names) => {
                let names = names.join(", ");
                write!(
                    f,
                    "verify SAN list, expected SANs: [{asked}], certificate SANs: [{names}]"
                )
            }
            Self::Hash => f.write_str("cert hash and spki"),
        }
    }
}

impl std::error::Error for VerifyFailure {}

/// The peer is told with an alert of its own what has one.
impl From<VerifyFailure> for Error {
    fn from(failure: VerifyFailure) -> Self {
        use webpki::Error as E;
        Self::InvalidCertificate(match failure {
            VerifyFailure::Chain(E::CertExpired { .. }) => CertificateError::Expired,
            VerifyFailure::Chain(E::CertNotValidYet { .. }) => CertificateError::NotValidYet,
            VerifyFailure::Chain(E::CertRevoked) => CertificateError::Revoked,
            VerifyFailure::Chain(E::UnknownIssuer) => CertificateError::UnknownIssuer,
            other => CertificateError::Other(OtherError(Arc::new(other))),
        })
    }
}

/// BoringSSL's words for what is wrong with a chain, where it has words of its own.
fn chain_reason(error: &webpki::Error) -> Cow<'static, str> {
    use webpki::Error as E;
    Cow::Borrowed(match error {
        E::CertExpired { .. } => "certificate has expired",
        E::CertNotValidYet { .. } => "certificate is not yet valid",
        E::CertRevoked => "certificate revoked",
        E::UnknownIssuer => "unable to get local issuer certificate",
        E::UnknownRevocationStatus => "unable to get certificate CRL",
        E::CrlExpired { .. } => "CRL has expired",
        E::RequiredEkuNotFoundContext(_) => "unsupported certificate purpose",
        E::MaximumPathDepthExceeded => "certificate chain too long",
        other => return Cow::Owned(other.to_string()),
    })
}

/// The same for an error that the library has a name of its own for.
fn certificate_reason(error: &CertificateError) -> Cow<'static, str> {
    let depth = "verify cert failed: X509_verify_cert: certificate verification error at depth 0:";
    let words = match error {
        CertificateError::Expired => "certificate has expired",
        CertificateError::NotValidYet => "certificate is not yet valid",
        CertificateError::Revoked => "certificate revoked",
        CertificateError::UnknownIssuer => "unable to get local issuer certificate",
        other => return Cow::Owned(other.to_string()),
    };
    Cow::Owned(format!("{depth} {words}"))
}

/// Why a handshake failed.
#[derive(Debug)]
pub struct TlsFailure {
    /// What the stats tell apart.
    pub kind: TlsFailureKind,
    /// `%UPSTREAM_TRANSPORT_FAILURE_REASON%` or `%DOWNSTREAM_TRANSPORT_FAILURE_REASON%`; empty when
    /// the peer went away without a word.
    pub reason: String,
}

/// Failures that the stats tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsFailureKind {
    /// The peer went away.
    Disconnected,
    /// The peer showed no certificate (`fail_verify_no_cert`).
    NoCertificate,
    /// See [`VerifyFailure::Chain`].
    Chain,
    /// See [`VerifyFailure::San`].
    San,
    /// See [`VerifyFailure::Hash`].
    Hash,
    /// Anything else (`connection_error`).
    Other,
}

impl TlsFailure {
    /// A client that does not begin a handshake; `first` are its first bytes.
    pub(super) fn no_handshake(first: &[u8]) -> Self {
        let is_http = [&b"GET "[..], b"POST ", b"HEAD ", b"PUT "]
            .iter()
            .any(|method| first.starts_with(&method[..method.len().min(first.len())]));
        match is_http {
            true => Self::numbered(TlsFailureKind::Other, 156, "HTTP_REQUEST"),
            false => Self::numbered(TlsFailureKind::Other, 247, "WRONG_VERSION_NUMBER"),
        }
    }

    /// A failure that BoringSSL has no word for.
    pub(super) fn other(reason: impl Into<String>) -> Self {
        Self {
            kind: TlsFailureKind::Other,
            reason: reason.into(),
        }
    }

    fn of(error: &Error) -> Self {
        if let Error::InvalidCertificate(CertificateError::Other(other)) = error
            && let Some(failure) = other.0.downcast_ref::<VerifyFailure>()
        {
            let kind = match failure {
                VerifyFailure::Chain(_) => TlsFailureKind::Chain,
                VerifyFailure::San(_) | VerifyFailure::ServerName(..) => TlsFailureKind::San,
                VerifyFailure::Hash => TlsFailureKind::Hash,
            };
            let reason = format!("CERTIFICATE_VERIFY_FAILED:{failure}");
            return Self::numbered(kind, 125, &reason);
        }
        match error {
            Error::NoCertificatesPresented => Self::numbered(
                TlsFailureKind::NoCertificate,
                192,
                "PEER_DID_NOT_RETURN_A_CERTIFICATE",
            ),
            Error::AlertReceived(alert) => {
                let number = 1_000 + u32::from(u8::from(*alert));
                Self::numbered(TlsFailureKind::Other, number, alert_name(*alert))
            }
            Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
                Self::numbered(TlsFailureKind::Other, 247, "WRONG_VERSION_NUMBER")
            }
            Error::InvalidCertificate(why) => {
                let reason = format!("CERTIFICATE_VERIFY_FAILED:{}", certificate_reason(why));
                Self::numbered(TlsFailureKind::Chain, 125, &reason)
            }
            other => Self::other(format!("TLS_error: {other}")),
        }
    }

    fn numbered(kind: TlsFailureKind, number: u32, words: &str) -> Self {
        let number = LIBRARY + number;
        Self {
            kind,
            reason: format!(
                "TLS_error:|{number}:SSL routines:OPENSSL_internal:{words}:TLS_error_end"
            ),
        }
    }
}

impl From<io::Error> for TlsFailure {
    fn from(error: io::Error) -> Self {
        let inner = error.get_ref().and_then(|e| e.downcast_ref::<Error>());
        match (inner, error.kind()) {
            (Some(error), _) => Self::of(error),
            (None, io::ErrorKind::InvalidData | io::ErrorKind::Other) => {
                Self::other(error.to_string())
            }
            (None, _) => Self {
                kind: TlsFailureKind::Disconnected,
                reason: error.raw_os_error().map_or_else(String::new, system_reason),
            },
        }
    }
}

/// BoringSSL's words for an error of the system.
fn system_reason(code: i32) -> String {
    let number = SYSTEM_LIBRARY + code.unsigned_abs();
    let text = io::Error::from_raw_os_error(code).to_string();
    let words = text.split(" (os error").next().unwrap_or_default();
    format!("TLS_error:|{number}:system library:OPENSSL_internal:{words}:TLS_error_end")
}

/// BoringSSL's name of an alert that was received.
fn alert_name(alert: AlertDescription) -> &'static str {
    use AlertDescription as A;
    match alert {
        A::CloseNotify => "SSLV3_ALERT_CLOSE_NOTIFY",
        A::UnexpectedMessage => "SSLV3_ALERT_UNEXPECTED_MESSAGE",
        A::BadRecordMac => "SSLV3_ALERT_BAD_RECORD_MAC",
        A::RecordOverflow => "TLSV1_ALERT_RECORD_OVERFLOW",
        A::HandshakeFailure => "SSLV3_ALERT_HANDSHAKE_FAILURE",
        A::BadCertificate => "SSLV3_ALERT_BAD_CERTIFICATE",
        A::UnsupportedCertificate => "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
        A::CertificateRevoked => "SSLV3_ALERT_CERTIFICATE_REVOKED",
        A::CertificateExpired => "SSLV3_ALERT_CERTIFICATE_EXPIRED",
        A::CertificateUnknown => "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
        A::IllegalParameter => "SSLV3_ALERT_ILLEGAL_PARAMETER",
        A::UnknownCA => "TLSV1_ALERT_UNKNOWN_CA",
        A::AccessDenied => "TLSV1_ALERT_ACCESS_DENIED",
        A::DecodeError => "TLSV1_ALERT_DECODE_ERROR",
        A::DecryptError => "TLSV1_ALERT_DECRYPT_ERROR",
        A::ProtocolVersion => "TLSV1_ALERT_PROTOCOL_VERSION",
        A::InsufficientSecurity => "TLSV1_ALERT_INSUFFICIENT_SECURITY",
        A::InternalError => "TLSV1_ALERT_INTERNAL_ERROR",
        A::UserCanceled => "TLSV1_ALERT_USER_CANCELLED",
        A::UnrecognisedName => "TLSV1_ALERT_UNRECOGNIZED_NAME",
        A::CertificateRequired => "TLSV1_ALERT_CERTIFICATE_REQUIRED",
        A::NoApplicationProtocol => "TLSV1_ALERT_NO_APPLICATION_PROTOCOL",
        _ => "SSLV3_ALERT",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_boringssls() {
        let of = |error: Error| TlsFailure::of(&error).reason;
        let names = vec!["spiffe://td/a".into(), "a.b".into()];
        assert_eq!(
            of(VerifyFailure::San(names).into()),
            "TLS_error:|268435581:SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED:\
             verify cert failed: SAN matcher, certificate SANs are [spiffe://td/a, a.b]:\
             TLS_error_end"
        );
        assert_eq!(
            of(Error::AlertReceived(AlertDescription::HandshakeFailure)),
            "TLS_error:|268436496:SSL routines:OPENSSL_internal:SSLV3_ALERT_HANDSHAKE_FAILURE:\
             TLS_error_end"
        );
        assert_eq!(
            of(Error::InvalidMessage(InvalidMessage::InvalidContentType)),
            "TLS_error:|268435703:SSL routines:OPENSSL_internal:WRONG_VERSION_NUMBER:\
             TLS_error_end"
        );
    }

    #[test]
    fn a_peer_that_goes_away_says_nothing() {
        let failure = TlsFailure::from(io::Error::from(io::ErrorKind::UnexpectedEof));
        assert_eq!(failure.kind, TlsFailureKind::Disconnected);
        assert_eq!(failure.reason, "");
    }
}
