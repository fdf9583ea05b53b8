//! TLS of a link: who shows which certificate, and what is wrong in words.
//!
//! TLS 1.3 by default, with ring's cryptography. Sessions are not resumed: links
//! stay, so there is nothing to gain, and what was verified once is verified again.

mod error;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use ring::digest;
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use tracing::{info, warn};

pub(crate) use self::error::of_io;
pub use self::error::{TlsConfigError, TlsError};

/// How often a server looks whether its files have changed, by default.
pub const DEFAULT_RELOAD_INTERVAL: Duration = Duration::from_secs(10);

/// What both sides offer (ALPN), for gRPC and for WebSockets; a peer that offers nothing
/// is fine.
pub(crate) const HTTP2: &[u8] = b"h2";
pub(crate) const HTTP1: &[u8] = b"http/1.1";

const TLS13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// Where certificates or a key come from: PEM, in a file or as it is.
#[derive(Clone, PartialEq, Eq)]
pub enum Pem {
    /// A file, read again when it changes.
    File(PathBuf),
    /// The text itself.
    Text(String),
}

impl Pem {
    /// The bytes, read if it is a file. `what` is what the error calls it.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn read(&self, what: &'static str) -> Result<Vec<u8>, TlsConfigError> {
        match self {
            Self::Text(text) => Ok(text.as_bytes().to_vec()),
            Self::File(path) => std::fs::read(path).map_err(|error| TlsConfigError::Read {
                what,
                path: path.clone(),
                reason: error.to_string(),
            }),
        }
    }

    fn origin(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Text(_) => "the given text".to_owned(),
        }
    }
}

/// Shows a text's length only: it may be a key.
impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Text(text) => write!(f, "Text({} bytes)", text.len()),
        }
    }
}

/// A certificate and its private key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPair {
    /// The certificate, and behind it those of the authorities in between, if any.
    pub certificate: Pem,
    /// Its key: PKCS #8, PKCS #1 or SEC 1, not encrypted.
    pub key: Pem,
}

/// The oldest version of TLS that is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2 and 1.3.
    Tls12,
    /// TLS 1.3 only.
    #[default]
    Tls13,
}

impl TlsVersion {
    fn versions(self) -> &'static [&'static SupportedProtocolVersion] {
        match self {
            Self::Tls12 => rustls::ALL_VERSIONS,
            Self::Tls13 => TLS13,
        }
    }
}

/// TLS of a node's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTls {
    /// Who the node is.
    pub identity: KeyPair,
    /// The authorities of its clients. With it, a client without a certificate of
    /// theirs is refused. Default none: every client may connect.
    pub client_ca: Option<Pem>,
    /// Default [`TlsVersion::Tls13`].
    pub min_version: TlsVersion,
    /// How often it is looked whether a file has changed, which new connections then
    /// see; those that are there stay. Default [`DEFAULT_RELOAD_INTERVAL`], zero is
    /// never. What cannot be used is logged, and the old one stays.
    pub reload_interval: Duration,
}

impl ServerTls {
    /// TLS with this certificate and the defaults for everything else.
    pub fn new(identity: KeyPair) -> Self {
        Self {
            identity,
            client_ca: None,
            min_version: TlsVersion::default(),
            reload_interval: DEFAULT_RELOAD_INTERVAL,
        }
    }

    /// Reads the certificates and the key, and forgets them again.
    ///
    /// # Errors
    /// If they cannot be used.
    pub fn check(&self) -> Result<(), TlsConfigError> {
        Acceptor::new(self.clone(), HTTP2).map(drop)
    }
}

/// TLS of a dialler. The default trusts the authorities of the system and shows no
/// certificate. Files are read for each dial.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTls {
    /// Own authorities that the node's certificate may be from.
    pub ca: Option<Pem>,
    /// Whether those of the system are trusted. Default: if [`Self::ca`] is none.
    pub system_roots: Option<bool>,
    /// Who we are, for a node that wants to know.
    pub identity: Option<KeyPair>,
    /// The name in the node's certificate. Default: the host of the address.
    pub server_name: Option<String>,
    /// Default [`TlsVersion::Tls13`].
    pub min_version: TlsVersion,
}

/// Neither environment nor process-wide state decides what is used.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn certificates(
    pem: &Pem,
    what: &'static str,
    bytes: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TlsConfigError> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(TlsConfigError::NoCertificate { what, origin: pem.origin() }),
    }
}

fn roots(pem: &Pem, what: &'static str, bytes: &[u8]) -> Result<RootCertStore, TlsConfigError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem, what, bytes)? {
        roots.add(certificate).map_err(|error| TlsConfigError::Unusable {
            what,
            origin: pem.origin(),
            reason: error.to_string(),
        })?;
    }
    Ok(roots)
}

fn key(pem: &Pem, bytes: &[u8]) -> Result<PrivateKeyDer<'static>, TlsConfigError> {
    PrivateKeyDer::from_pem_slice(bytes).map_err(|_| TlsConfigError::NoKey { origin: pem.origin() })
}

/// What rustls has against a certificate and its key.
fn unusable(identity: &KeyPair, error: &rustls::Error) -> TlsConfigError {
    match error {
        rustls::Error::InconsistentKeys(_) => TlsConfigError::OtherKey {
            certificate: identity.certificate.origin(),
            key: identity.key.origin(),
        },
        error => TlsConfigError::Unusable {
            what: "certificate or key",
            origin: identity.certificate.origin(),
            reason: error.to_string(),
        },
    }
}

// ---------------------------------------------------------------- server

/// What the files of a server held when they were read.
struct ServerFiles {
    certificate: Vec<u8>,
    key: zeroize::Zeroizing<Vec<u8>>,
    client_ca: Option<Vec<u8>>,
}

impl ServerFiles {
    fn read(config: &ServerTls) -> Result<Self, TlsConfigError> {
        Ok(Self {
            certificate: config.identity.certificate.read("certificate")?,
            key: config.identity.key.read("key")?.into(),
            client_ca: config.client_ca.as_ref().map(|ca| ca.read("client CA")).transpose()?,
        })
    }

    /// Tells contents apart without keeping a second copy of the key.
    fn digest(&self) -> digest::Digest {
        let mut context = digest::Context::new(&digest::SHA256);
        for part in [&self.certificate, &*self.key, self.client_ca.as_deref().unwrap_or_default()] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        context.finish()
    }

    fn config(&self, config: &ServerTls, alpn: &[u8]) -> Result<ServerConfig, TlsConfigError> {
        let identity = &config.identity;
        let chain = certificates(&identity.certificate, "certificate", &self.certificate)?;
        let key = key(&identity.key, &self.key)?;
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(config.min_version.versions())
            .map_err(|error| unusable(identity, &error))?;
        let builder = match (&config.client_ca, &self.client_ca) {
            (Some(pem), Some(bytes)) => {
                let roots = Arc::new(roots(pem, "client CA", bytes)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
                    .build()
                    .map_err(|error| TlsConfigError::Unusable {
                        what: "client CA",
                        origin: pem.origin(),
                        reason: error.to_string(),
                    })?;
                builder.with_client_cert_verifier(verifier)
            }
            _ => builder.with_no_client_auth(),
        };
        let mut built =
            builder.with_single_cert(chain, key).map_err(|error| unusable(identity, &error))?;
        built.alpn_protocols = vec![alpn.to_vec()];
        built.session_storage = Arc::new(NoServerSessionStorage {});
        built.send_tls13_tickets = 0;
        Ok(built)
    }
}

/// What a listener accepts TLS with. New files take its place while it runs.
pub(crate) struct Acceptor {
    config: ServerTls,
    alpn: &'static [u8],
    current: RwLock<Loaded>,
}

struct Loaded {
    digest: digest::Digest,
    config: Arc<ServerConfig>,
}

impl Acceptor {
    pub(crate) fn new(config: ServerTls, alpn: &'static [u8]) -> Result<Self, TlsConfigError> {
        let files = ServerFiles::read(&config)?;
        let built = Arc::new(files.config(&config, alpn)?);
        let loaded = Loaded { digest: files.digest(), config: built };
        Ok(Self { config, alpn, current: RwLock::new(loaded) })
    }

    /// For the next connection.
    pub(crate) fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner).config)
    }

    /// Reads the files again, which blocks for a moment. Whether they are others now;
    /// what cannot be used leaves everything as it is.
    pub(crate) fn reload(&self) -> Result<bool, TlsConfigError> {
        let files = ServerFiles::read(&self.config)?;
        let digest = files.digest();
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        if current.digest.as_ref() == digest.as_ref() {
            return Ok(false);
        }
        drop(current);
        let config = Arc::new(files.config(&self.config, self.alpn)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Loaded { digest, config };
        Ok(true)
    }

    /// Follows the files for as long as this is polled.
    pub(crate) async fn follow(self: Arc<Self>, endpoint: String) {
        if self.config.reload_interval.is_zero() {
            return std::future::pending().await;
        }
        let mut said = None;
        loop {
            tokio::time::sleep(self.config.reload_interval).await;
            let this = Arc::clone(&self);
            let reloaded = tokio::task::spawn_blocking(move || this.reload()).await;
            match reloaded {
                Ok(Ok(true)) => info!(%endpoint, "certificates loaded anew"),
                Ok(Ok(false)) => {}
                // Once for each reason, or the log would repeat it for as long as it lasts.
                Ok(Err(error)) if said.as_ref() != Some(&error) => {
                    warn!(%endpoint, %error, "certificates have changed, the old ones stay");
                    said = Some(error);
                    continue;
                }
                Ok(Err(_)) => continue,
                Err(error) => warn!(%endpoint, %error, "certificates could not be looked at"),
            }
            said = None;
        }
    }
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor").field("config", &self.config).finish_non_exhaustive()
    }
}

// ---------------------------------------------------------------- client

/// What a connection to `host` is made with. Reads files, so it blocks for a moment.
pub(crate) fn connector(
    config: &ClientTls,
    host: &str,
    alpn: &[u8],
) -> Result<(Arc<ClientConfig>, ServerName<'static>), TlsConfigError> {
    let name = config.server_name.as_deref().unwrap_or(host);
    let name = ServerName::try_from(name.to_owned())
        .map_err(|_| TlsConfigError::ServerName(name.to_owned()))?;
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(config.min_version.versions())
        .map_err(|error| TlsConfigError::Unusable {
            what: "version",
            origin: format!("{:?}", config.min_version),
            reason: error.to_string(),
        })?
        .with_root_certificates(client_roots(config)?);
    let mut built = match &config.identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let bytes = identity.certificate.read("certificate")?;
            let chain = certificates(&identity.certificate, "certificate", &bytes)?;
            let bytes = zeroize::Zeroizing::new(identity.key.read("key")?);
            let key = key(&identity.key, &bytes)?;
            builder.with_client_auth_cert(chain, key).map_err(|error| unusable(identity, &error))?
        }
    };
    built.alpn_protocols = vec![alpn.to_vec()];
    built.resumption = Resumption::disabled();
    Ok((Arc::new(built), name))
}

fn client_roots(config: &ClientTls) -> Result<RootCertStore, TlsConfigError> {
    let mut trusted = match &config.ca {
        None => RootCertStore::empty(),
        Some(ca) => roots(ca, "CA", &ca.read("CA")?)?,
    };
    if config.system_roots.unwrap_or_else(|| config.ca.is_none()) {
        // Single ones that cannot be read are no reason to trust none.
        trusted.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    if trusted.is_empty() {
        return Err(TlsConfigError::NoRoots);
    }
    Ok(trusted)
}

#[cfg(test)]
mod tests {
    use rcgen::generate_simple_self_signed;

    use super::*;

    fn pem() -> [String; 2] {
        let made = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        [made.cert.pem(), made.signing_key.serialize_pem()]
    }

    #[test]
    fn half_of_a_change_is_no_change() {
        let folder = std::env::temp_dir().join(format!("slim-tls-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&folder).unwrap();
        let [certificate, key] = ["node.crt", "node.key"].map(|name| folder.join(name));
        let write = |path: &PathBuf, text: &str| std::fs::write(path, text).unwrap();
        let [old, new] = [pem(), pem()];
        write(&certificate, &old[0]);
        write(&key, &old[1]);
        let identity =
            KeyPair { certificate: Pem::File(certificate.clone()), key: Pem::File(key.clone()) };
        let acceptor = Acceptor::new(ServerTls::new(identity), HTTP2).unwrap();
        let first = acceptor.current();
        assert_eq!(acceptor.reload(), Ok(false));

        write(&certificate, &new[0]);
        assert!(matches!(acceptor.reload(), Err(TlsConfigError::OtherKey { .. })));
        std::fs::remove_file(&key).unwrap();
        assert!(matches!(acceptor.reload(), Err(TlsConfigError::Read { what: "key", .. })));
        assert!(Arc::ptr_eq(&first, &acceptor.current()));

        write(&key, &new[1]);
        assert_eq!(acceptor.reload(), Ok(true));
        assert!(!Arc::ptr_eq(&first, &acceptor.current()));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
