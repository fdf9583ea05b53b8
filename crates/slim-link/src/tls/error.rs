//! What can be wrong with certificates: our own, when they are read, and the other
//! side's, when it shows them.

use std::io;
use std::path::PathBuf;

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};

/// Certificates or keys that were given cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TlsConfigError {
    /// A file cannot be read.
    #[error("cannot read the {what} {}: {reason}", .path.display())]
    Read {
        /// What it should hold.
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// There is no certificate in it, or one that is broken.
    #[error("no {what} in {origin}, expected PEM that begins with -----BEGIN CERTIFICATE-----")]
    NoCertificate {
        /// What it should hold.
        what: &'static str,
        /// The file.
        origin: String,
    },
    /// There is no private key in it, or one that is encrypted.
    #[error("no key in {origin}, expected PEM of a private key that is not encrypted")]
    NoKey {
        /// The file.
        origin: String,
    },
    /// The key is that of another certificate.
    #[error("the key in {key} does not belong to the certificate in {certificate}")]
    OtherKey {
        /// The file of the certificate.
        certificate: String,
        /// The file of the key.
        key: String,
    },
    /// It is read and of no use.
    #[error("the {what} in {origin} cannot be used: {reason}")]
    Unusable {
        /// What it should hold.
        what: &'static str,
        /// The file.
        origin: String,
        /// In the words of rustls.
        reason: String,
    },
    /// There is nobody to trust.
    #[error("this system has no certificates of authorities: give a CA")]
    NoRoots,
    /// Neither a host name nor an address.
    #[error("{0:?} is not a name that a certificate could have")]
    ServerName(String),
}

/// Why the other side and we do not agree on TLS. The texts speak of the other side
/// as "it".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// Its certificate is from nobody that is trusted here.
    #[error("the issuer of its certificate is unknown here")]
    UnknownIssuer,
    /// Its certificate was valid once.
    #[error("its certificate has expired")]
    Expired,
    /// Its certificate will be valid, or one of the clocks is wrong.
    #[error("its certificate is not valid yet")]
    NotYetValid,
    /// Its certificate is good, for somebody else.
    #[error("its certificate is not for {0:?}")]
    OtherName(String),
    /// It shows the certificate of an authority as its own.
    #[error("its certificate is that of an authority; it needs one that the authority has signed")]
    AuthorityItself,
    /// Something else is wrong with its certificate.
    #[error("its certificate is not acceptable: {0}")]
    Certificate(String),
    /// It has none, and needs one here.
    #[error("it shows no certificate")]
    NoCertificate,
    /// It wants to see one of ours, and we have none.
    #[error("it wants a certificate from us, and we have none")]
    WantsCertificate,
    /// It has something against our certificate, in its words.
    #[error("it does not accept our certificate: {0}")]
    RefusesCertificate(&'static str),
    /// It speaks something else, most likely the protocol without TLS.
    #[error("it does not speak TLS but plain text")]
    PlainText,
    /// No version that both speak.
    #[error("it speaks no version of TLS that is allowed here")]
    Version,
    /// It hung up in the middle.
    #[error("it ended the connection while TLS was agreed on")]
    Ended,
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl TlsError {
    /// What the error of a connection means, if it is about TLS. `name` is what the
    /// certificate should be for, `shown` whether we have shown one.
    pub(crate) fn of(error: &Error, name: &str, shown: bool) -> Self {
        match error {
            Error::InvalidCertificate(error) => Self::of_certificate(error, name),
            Error::NoCertificatesPresented => Self::NoCertificate,
            Error::InvalidMessage(InvalidMessage::InvalidContentType) => Self::PlainText,
            Error::PeerIncompatible(_) => Self::Version,
            Error::AlertReceived(alert) => Self::of_alert(*alert, shown),
            error => Self::Other(error.to_string()),
        }
    }

    fn of_certificate(error: &CertificateError, name: &str) -> Self {
        match error {
            // The latter: one of the same name is known, with another key.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::UnknownIssuer,
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                Self::NotYetValid
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Self::OtherName(name.to_owned())
            }
            // Its type is not ours to name.
            error if error.to_string().contains("CaUsedAsEndEntity") => Self::AuthorityItself,
            error => Self::Certificate(error.to_string()),
        }
    }

    fn of_alert(alert: AlertDescription, shown: bool) -> Self {
        match alert {
            AlertDescription::ProtocolVersion => Self::Version,
            AlertDescription::UnknownCA => Self::RefusesCertificate("its issuer is unknown there"),
            AlertDescription::CertificateExpired => Self::RefusesCertificate("it has expired"),
            AlertDescription::CertificateRevoked => Self::RefusesCertificate("it is revoked"),
            AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::AccessDenied
            | AlertDescription::DecryptError => Self::RefusesCertificate("it is not acceptable"),
            AlertDescription::CertificateRequired => Self::WantsCertificate,
            // How TLS 1.2 says the same.
            AlertDescription::HandshakeFailure if !shown => Self::WantsCertificate,
            alert => Self::Other(format!("it answered with the alert {alert:?}")),
        }
    }
}

/// What rustls says, where an error of a connection comes from it.
pub(crate) fn of_io(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}
