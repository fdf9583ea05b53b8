//! Who opens a link, as far as the transport can prove it.
//!
//! A client certificate says who somebody is once its handshake is done; what the
//! request shows in its header `authorization` is judged by the [`Authenticator`] of
//! the address. Both come before the first message of the link, and a link can have
//! several principals.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, header};
use rustls::pki_types::CertificateDer;

/// Longest `authorization` that is looked at, in bytes: a token has 16 KiB at most, and
/// HTTP/2 gives all headers of a request together no more.
const MAX_AUTHORIZATION: usize = 20 * 1024;

/// Names of one certificate that count.
const MAX_CERTIFICATE_NAMES: usize = 16;

/// Somebody whom the transport has verified.
///
/// As a text: `basic:USER`, `jwt:SUBJECT`, the SPIFFE ID, or `dns:NAME`. The issuer of a
/// token is shown behind its subject and not parsed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Principal {
    /// A user with a password (RFC 7617).
    Basic(String),
    /// Whom a token is about.
    Jwt {
        /// Its claim `sub`.
        subject: String,
        /// Its claim `iss`, if it has one.
        issuer: Option<String>,
    },
    /// The SPIFFE ID of a client certificate: its only URI.
    Spiffe(String),
    /// A host name of a client certificate.
    Dns(String),
}

impl Principal {
    /// The name alone, without what kind of name it is.
    pub fn name(&self) -> &str {
        match self {
            Self::Basic(name) | Self::Spiffe(name) | Self::Dns(name) => name,
            Self::Jwt { subject, .. } => subject,
        }
    }

    /// Those of a client certificate that was verified.
    pub(crate) fn of_certificate(certificate: &CertificateDer<'_>) -> Vec<Self> {
        let Ok(certificate) = webpki::EndEntityCert::try_from(certificate) else {
            return Vec::new();
        };
        // X509-SVID §2: exactly one URI, or it is none.
        let mut uris = certificate.valid_uri_names();
        let only = uris.next().filter(|_| uris.next().is_none());
        let spiffe = only.filter(|uri| uri.starts_with("spiffe://"));
        let spiffe = spiffe.map(|uri| Self::Spiffe(uri.to_owned()));
        // Host names are the same whatever their case.
        let dns = certificate.valid_dns_names().map(|name| Self::Dns(name.to_ascii_lowercase()));
        spiffe.into_iter().chain(dns).take(MAX_CERTIFICATE_NAMES).collect()
    }
}

/// What somebody else chose is shown without what moves a terminal's cursor.
impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Basic(user) => write!(f, "basic:{}", user.escape_debug()),
            Self::Jwt { subject, issuer: None } => write!(f, "jwt:{}", subject.escape_debug()),
            Self::Jwt { subject, issuer: Some(issuer) } => {
                write!(f, "jwt:{} of {}", subject.escape_debug(), issuer.escape_debug())
            }
            Self::Spiffe(id) => write!(f, "{}", id.escape_debug()),
            Self::Dns(name) => write!(f, "dns:{}", name.escape_debug()),
        }
    }
}

impl FromStr for Principal {
    type Err = PrincipalError;

    fn from_str(text: &str) -> Result<Self, PrincipalError> {
        let malformed = || PrincipalError(text.to_owned());
        let principal = match text.split_once(':').ok_or_else(malformed)? {
            ("basic", user) => Self::Basic(user.to_owned()),
            ("jwt", subject) => Self::Jwt { subject: subject.to_owned(), issuer: None },
            ("spiffe", rest) if rest.starts_with("//") && rest.len() > 2 => {
                Self::Spiffe(text.to_owned())
            }
            ("dns", name) => Self::Dns(name.to_ascii_lowercase()),
            _ => return Err(malformed()),
        };
        if principal.name().is_empty() { Err(malformed()) } else { Ok(principal) }
    }
}

/// The text names no principal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no principal: expected basic:USER, jwt:SUBJECT, spiffe://DOMAIN/PATH or dns:NAME"
)]
pub struct PrincipalError(String);

/// Judges what a dialler shows in the header `authorization`.
pub trait Authenticator: fmt::Debug + Send + Sync {
    /// Who it is. Must not wait.
    ///
    /// # Errors
    /// The check that failed, in words that go to the dialler and into the log. They
    /// must not hold what was shown.
    fn authenticate(&self, authorization: Option<&str>) -> Result<Principal, String>;
}

/// The only header `authorization` of a request, as a text.
pub(crate) fn authorization(headers: &HeaderMap) -> Result<Option<&str>, &'static str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err("there is more than one header authorization");
    }
    if value.len() > MAX_AUTHORIZATION {
        return Err("the header authorization is too long");
    }
    value.to_str().map(Some).map_err(|_| "the header authorization is not ASCII")
}

/// Gives what a dialler shows in the header `authorization`, for each dial anew: tokens
/// grow old.
#[derive(Clone)]
pub struct Authorization(Arc<dyn Fn() -> Result<String, String> + Send + Sync>);

impl Authorization {
    /// What `header` gives is shown, or why there is nothing to show. It may read a file,
    /// and must not wait for anything slower.
    pub fn new(header: impl Fn() -> Result<String, String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(header))
    }

    pub(crate) fn header(&self) -> Result<HeaderValue, String> {
        let not_a_header = |_| "what is to be shown cannot stand in a header".to_owned();
        let mut value = HeaderValue::try_from((self.0)()?).map_err(not_a_header)?;
        // Not to be kept in a table for compression, nor to be printed.
        value.set_sensitive(true);
        Ok(value)
    }
}

impl fmt::Debug for Authorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authorization")
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType, string::Ia5String};

    use super::*;

    fn of(uris: &[&str], hosts: &[&str]) -> Vec<String> {
        let ia5 = |text: &&str| Ia5String::try_from(*text).unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names.extend(uris.iter().map(ia5).map(SanType::URI));
        params.subject_alt_names.extend(hosts.iter().map(ia5).map(SanType::DnsName));
        let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        Principal::of_certificate(made.der()).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_certificate_has_a_spiffe_id_or_host_names() {
        assert_eq!(of(&["spiffe://example.org/a"], &[]), ["spiffe://example.org/a"]);
        assert_eq!(of(&[], &["A.example.org", "b"]), ["dns:a.example.org", "dns:b"]);
        assert_eq!(of(&["spiffe://a/b"], &["b"]), ["spiffe://a/b", "dns:b"]);
        assert!(of(&["https://example.org/a"], &[]).is_empty());
        assert!(of(&["spiffe://example.org/a", "spiffe://example.org/b"], &[]).is_empty());
        assert!(of(&[], &[]).is_empty());
        assert_eq!(of(&[], &["a"; 100]).len(), MAX_CERTIFICATE_NAMES);
        let junk = CertificateDer::from(vec![0x30, 0x82, 1, 2, 3]);
        assert_eq!(Principal::of_certificate(&junk), []);
    }

    #[test]
    fn texts_are_principals_or_an_error_that_says_what_is_one() {
        for text in ["basic:alice", "jwt:org/ns/a", "jwt:did:key:z6Mk", "spiffe://d/p", "dns:a.b"] {
            assert_eq!(text.parse::<Principal>().unwrap().to_string(), text);
        }
        for text in ["alice", "basic:", "spiffe:a", "spiffe://", "tls:a", ""] {
            let error = text.parse::<Principal>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("{text:?} is no principal")), "{error}");
        }
        let jwt = Principal::Jwt { subject: "a\u{1b}".to_owned(), issuer: Some("i".to_owned()) };
        assert_eq!(jwt.to_string(), "jwt:a\\u{1b} of i");
    }

    #[test]
    fn one_header_and_no_more() {
        let mut headers = HeaderMap::new();
        assert_eq!(authorization(&headers), Ok(None));
        headers.append(header::AUTHORIZATION, HeaderValue::from_static("Bearer x"));
        assert_eq!(authorization(&headers), Ok(Some("Bearer x")));
        headers.append(header::AUTHORIZATION, HeaderValue::from_static("Bearer y"));
        authorization(&headers).unwrap_err();
        headers.insert(header::AUTHORIZATION, HeaderValue::from_bytes(b"B\xff").unwrap());
        authorization(&headers).unwrap_err();
        let long = HeaderValue::try_from("x".repeat(MAX_AUTHORIZATION + 1)).unwrap();
        headers.insert(header::AUTHORIZATION, long);
        authorization(&headers).unwrap_err();
    }

    #[test]
    fn what_is_shown_is_not_printed() {
        let shown = Authorization::new(|| Ok("Basic c2VjcmV0".to_owned()));
        let value = shown.header().unwrap();
        assert!(value.is_sensitive());
        assert!(!format!("{shown:?} {value:?}").contains("c2VjcmV0"));
        Authorization::new(|| Ok("a\nb".to_owned())).header().unwrap_err();
    }
}
