//! The key `tls` of a server entry and of a peer, in the spelling of today and in the
//! older one.

use std::path::PathBuf;
use std::time::Duration;

use slim_node::{ClientTls, DEFAULT_RELOAD_INTERVAL, KeyPair, Pem, ServerTls, TlsVersion};

use super::error::ConfigError;
use super::setting::{Place, choice, mapping};
use super::value::shown;

mapping! {
    /// TLS of an address to listen on.
    pub(super) struct ServerTlsKeys {
        /// `true`: links are not encrypted, and what else is said here has no effect.
        insecure: Option<bool> = false,
        /// Authorities of the clients: who shows no certificate of theirs is refused.
        /// Default everybody may connect.
        client_ca: Option<AuthorityKeys>,
        /// `client_ca` as a file, in the older spelling.
        client_ca_file: Option<PathBuf>,
        /// `client_ca` as the text itself, in the older spelling.
        client_ca_pem: Option<String>,
        /// How often it is looked whether the files have changed; `0s` is never.
        reload_interval: Option<Duration> = shown(DEFAULT_RELOAD_INTERVAL),
    }
    flat {
        identity: IdentityKeys,
    }
    ignored {
        ca_source: "whom a node trusts that it dials is said where it dials",
        ca_file: "as `ca_source`",
        ca_pem: "as `ca_source`",
        include_system_ca_certs_pool: "as `ca_source`",
        reload_client_ca_file: "it is read again with the others, at `reload_interval`",
    }
}

mapping! {
    /// TLS to whom the node dials.
    pub(super) struct ClientTlsKeys {
        /// `true`: the link is not encrypted, and what else is said here has no effect; the
        /// address has to say `http://`, too.
        insecure: Option<bool> = false,
        /// `true` is refused: a certificate is never taken unchecked.
        insecure_skip_verify: Option<bool> = false,
        /// Authorities of the other side. Default the system's.
        ca_source: Option<AuthorityKeys>,
        /// `ca_source` as a file, in the older spelling.
        ca_file: Option<PathBuf>,
        /// `ca_source` as the text itself, in the older spelling.
        ca_pem: Option<String>,
        /// Whether the system's authorities are trusted. Default if no others are given.
        include_system_ca_certs_pool: Option<bool>,
    }
    flat {
        identity: IdentityKeys,
    }
    ignored {
        reload_interval: "files are read for each link",
    }
}

mapping! {
    /// One's own certificate.
    pub(super) struct IdentityKeys {
        /// Certificate, those behind it leading to the authority, and key, PEM without a
        /// password.
        source: Option<SourceKeys>,
        /// `source.cert` as a file, in the older spelling.
        cert_file: Option<PathBuf>,
        /// `source.cert` as the text itself, in the older spelling.
        cert_pem: Option<String>,
        /// `source.key` as a file, in the older spelling.
        key_file: Option<PathBuf>,
        /// `source.key` as the text itself, in the older spelling.
        key_pem: Option<String>,
        /// The oldest that is spoken.
        tls_version: Option<TlsVersion> = "tls1.3",
    }
}

choice! {
    /// Where certificate and key are.
    pub(super) enum SourceKeys {
        "file" => File(SourceFileKeys),
        "pem" => Pem(SourcePemKeys),
    }
    refused {
        "spire": "SPIRE is not supported yet",
    }
}

mapping! {
    /// In files of their own.
    pub(super) struct SourceFileKeys {
        /// File of the certificate.
        cert: PathBuf,
        /// File of its key.
        key: PathBuf,
    }
}

mapping! {
    /// As texts, in this file.
    pub(super) struct SourcePemKeys {
        /// The certificate.
        cert: String,
        /// Its key.
        key: String,
    }
}

choice! {
    /// Where certificates of authorities are.
    pub(super) enum AuthorityKeys {
        "file" => File(AuthorityFileKeys),
        "pem" => Pem(AuthorityPemKeys),
    }
    refused {
        "spire": "SPIRE is not supported yet",
    }
}

mapping! {
    /// In a file of their own.
    pub(super) struct AuthorityFileKeys {
        /// The file.
        path: PathBuf,
    }
}

mapping! {
    /// As a text, in this file.
    pub(super) struct AuthorityPemKeys {
        /// The certificates.
        data: String,
    }
}

impl ServerTlsKeys {
    /// Where there is no TLS, nothing may ask for it.
    pub(super) fn none(self, ignored: &mut Vec<String>) -> Result<Option<ServerTls>, ConfigError> {
        if self.insecure == Some(false) || (self.insecure.is_none() && !self.place.is_empty()) {
            let reason = "a Unix socket has no TLS: leave it out, or say insecure: true";
            return Err(self.place.error(reason));
        }
        self.place.ignore_all_but("insecure", ignored);
        Ok(None)
    }

    /// Whether TLS is spoken, and how.
    pub(super) fn config(
        self,
        ignored: &mut Vec<String>,
    ) -> Result<Option<ServerTls>, ConfigError> {
        let Self { place, identity, client_ca, client_ca_file, client_ca_pem, .. } = self;
        if self.insecure == Some(true) {
            place.ignore_all_but("insecure", ignored);
            return Ok(None);
        }
        let min_version = identity.tls_version.unwrap_or_default();
        let older = older(&place, "client_ca", client_ca_file, client_ca_pem)?;
        let client_ca = authority(&place, "client_ca", client_ca, older)?;
        let reload_interval = self.reload_interval.unwrap_or(DEFAULT_RELOAD_INTERVAL);
        let missing = "a certificate is missing: give source: { type: file, cert: …, key: … }, \
                       or insecure: true if links shall not be encrypted";
        let identity = identity.config()?.ok_or_else(|| place.error(missing))?;
        Ok(Some(ServerTls { identity, client_ca, min_version, reload_interval }))
    }
}

impl ClientTlsKeys {
    /// How a node is dialled. Without TLS, this has to be said twice: by the address and
    /// by `insecure: true`; unless `is_none`, where there is nothing to encrypt.
    pub(super) fn config(
        self,
        is_none: bool,
        is_tls: bool,
        ignored: &mut Vec<String>,
    ) -> Result<ClientTls, ConfigError> {
        let Self { place, identity, ca_source, ca_file, ca_pem, .. } = self;
        match (is_tls, self.insecure) {
            (true, Some(true)) => {
                return Err(place.error_at("insecure", "https:// is with TLS: say http://"));
            }
            (false, Some(true)) => {
                place.ignore_all_but("insecure", ignored);
                return Ok(ClientTls::default());
            }
            (false, _) if !is_none => {
                return Err(place.error(
                    "an address without TLS: say https://, or insecure: true if the link shall \
                     not be encrypted",
                ));
            }
            _ => {}
        }
        if self.insecure_skip_verify == Some(true) {
            let reason = "a certificate is never taken unchecked: give ca_source";
            return Err(place.error_at("insecure_skip_verify", reason));
        }
        let older = older(&place, "ca", ca_file, ca_pem)?;
        let ca = authority(&place, "ca_source", ca_source, older)?;
        let min_version = identity.tls_version.unwrap_or_default();
        Ok(ClientTls {
            ca,
            system_roots: self.include_system_ca_certs_pool,
            identity: identity.config()?,
            server_name: None,
            min_version,
        })
    }
}

impl IdentityKeys {
    fn config(self) -> Result<Option<KeyPair>, ConfigError> {
        let Self { place, source, cert_file, cert_pem, key_file, key_pem, .. } = self;
        let certificate = older(&place, "cert", cert_file, cert_pem)?;
        let key = older(&place, "key", key_file, key_pem)?;
        match (source, certificate, key) {
            (None, None, None) => Ok(None),
            (None, Some(certificate), Some(key)) => Ok(Some(KeyPair { certificate, key })),
            (None, None, Some(_)) => {
                Err(place.error("a key without a certificate: cert_file is missing"))
            }
            (None, Some(_), None) => {
                Err(place.error("a certificate without its key: key_file is missing"))
            }
            (Some(source), None, None) => Ok(Some(source.config())),
            (Some(_), _, _) => Err(place.error_at("source", "the certificate is given twice")),
        }
    }
}

impl SourceKeys {
    fn config(self) -> KeyPair {
        match self {
            Self::File(SourceFileKeys { cert, key, .. }) => {
                KeyPair { certificate: Pem::File(cert), key: Pem::File(key) }
            }
            Self::Pem(SourcePemKeys { cert, key, .. }) => {
                KeyPair { certificate: Pem::Text(cert), key: Pem::Text(key) }
            }
        }
    }
}

/// Authorities, which must not be given in both spellings.
fn authority(
    place: &Place,
    key: &str,
    authority: Option<AuthorityKeys>,
    older: Option<Pem>,
) -> Result<Option<Pem>, ConfigError> {
    match (authority, older) {
        (Some(_), Some(_)) => Err(place.error_at(key, "given twice")),
        (None, older) => Ok(older),
        (Some(AuthorityKeys::File(keys)), None) => Ok(Some(Pem::File(keys.path))),
        (Some(AuthorityKeys::Pem(keys)), None) => Ok(Some(Pem::Text(keys.data))),
    }
}

/// `NAME_file` or `NAME_pem`.
fn older(
    place: &Place,
    name: &str,
    file: Option<PathBuf>,
    text: Option<String>,
) -> Result<Option<Pem>, ConfigError> {
    match (file, text) {
        (Some(_), Some(_)) => {
            Err(place.error(format!("both {name}_file and {name}_pem: give one of them")))
        }
        (Some(path), None) => Ok(Some(Pem::File(path))),
        (None, text) => Ok(text.map(Pem::Text)),
    }
}
