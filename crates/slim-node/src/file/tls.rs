//! The key `tls` of a server entry, in the spelling of today and in the older one.

use slim_node::{ClientTls, DEFAULT_RELOAD_INTERVAL, KeyPair, Pem, ServerTls, TlsVersion};

use super::section::{ConfigError, Section};

/// Where there is no TLS, nothing may ask for it.
pub(super) fn read_none(
    mut tls: Section,
    ignored: &mut Vec<String>,
) -> Result<Option<ServerTls>, ConfigError> {
    let insecure = tls.flag("insecure")?;
    if insecure == Some(false) || (insecure.is_none() && !tls.keys().is_empty()) {
        return Err(tls.itself("a Unix socket has no TLS: leave it out, or say insecure: true"));
    }
    tls.ignore_rest(ignored);
    Ok(None)
}

/// Whether TLS is spoken, and how.
pub(super) fn read(
    mut tls: Section,
    ignored: &mut Vec<String>,
) -> Result<Option<ServerTls>, ConfigError> {
    if tls.flag("insecure")? == Some(true) {
        tls.ignore_rest(ignored);
        return Ok(None);
    }
    let identity = identity(&mut tls)?;
    let client_ca = authority(&mut tls, "client_ca")?;
    let min_version = min_version(&mut tls)?;
    let reload_interval = tls.duration("reload_interval")?.unwrap_or(DEFAULT_RELOAD_INTERVAL);
    // Whom a node trusts that it dials is said where it dials.
    for key in ["ca_source", "ca_file", "ca_pem", "include_system_ca_certs_pool"] {
        tls.ignore(key, ignored);
    }
    // They are followed anyway.
    tls.ignore("reload_client_ca_file", ignored);
    let missing = tls.itself(
        "a certificate is missing: give source: { type: file, cert: …, key: … }, \
         or insecure: true if links shall not be encrypted",
    );
    // Whoever mistyped the key of the certificate is told that.
    tls.deny_rest()?;
    let identity = identity.ok_or(missing)?;
    Ok(Some(ServerTls { identity, client_ca, min_version, reload_interval }))
}

/// How a node is dialled. Without TLS, this has to be said twice: by the address and by
/// `insecure: true`; unless `is_none`, where there is nothing to encrypt.
pub(super) fn read_client(
    mut tls: Section,
    is_none: bool,
    is_tls: bool,
    ignored: &mut Vec<String>,
) -> Result<ClientTls, ConfigError> {
    let insecure = tls.flag("insecure")?;
    match (is_tls, insecure) {
        (true, Some(true)) => {
            return Err(tls.unsupported("insecure", "https:// is with TLS: say http://"));
        }
        (false, Some(true)) => {
            tls.ignore_rest(ignored);
            return Ok(ClientTls::default());
        }
        (false, _) if !is_none => {
            return Err(tls.itself(
                "an address without TLS: say https://, or insecure: true if the link shall not be \
                 encrypted",
            ));
        }
        _ => {}
    }
    if tls.flag("insecure_skip_verify")? == Some(true) {
        let reason = "a certificate is never taken unchecked: give ca_source";
        return Err(tls.unsupported("insecure_skip_verify", reason));
    }
    let identity = identity(&mut tls)?;
    let ca = match (authority(&mut tls, "ca_source")?, older(&mut tls, "ca")?) {
        (Some(_), Some(_)) => return Err(tls.unsupported("ca_source", "given twice")),
        (ca, older) => ca.or(older),
    };
    let system_roots = tls.flag("include_system_ca_certs_pool")?;
    let min_version = min_version(&mut tls)?;
    tls.ignore("reload_interval", ignored);
    tls.deny_rest()?;
    Ok(ClientTls { ca, system_roots, identity, server_name: None, min_version })
}

fn min_version(tls: &mut Section) -> Result<TlsVersion, ConfigError> {
    match tls.text("tls_version")?.as_deref() {
        None | Some("tls1.3") => Ok(TlsVersion::Tls13),
        Some("tls1.2") => Ok(TlsVersion::Tls12),
        Some(version) => {
            let reason = format!("{version:?} is neither tls1.3 nor tls1.2");
            Err(tls.unsupported("tls_version", &reason))
        }
    }
}

/// `source: { type: file | pem, cert, key }`, or `cert_file` or `cert_pem`, and
/// `key_file` or `key_pem`.
fn identity(tls: &mut Section) -> Result<Option<KeyPair>, ConfigError> {
    let old = (older(tls, "cert")?, older(tls, "key")?);
    let Some(mut source) = tls.optional("source")? else {
        return match old {
            (None, None) => Ok(None),
            (Some(certificate), Some(key)) => Ok(Some(KeyPair { certificate, key })),
            (None, Some(_)) => Err(tls.itself("a key without a certificate: cert_file is missing")),
            (Some(_), None) => {
                Err(tls.itself("a certificate without its key: key_file is missing"))
            }
        };
    };
    if old != (None, None) {
        return Err(tls.unsupported("source", "the certificate is given twice"));
    }
    let kind = Kind::read(&mut source)?;
    let certificate = kind.pem(&mut source, "cert")?;
    let identity = KeyPair { certificate, key: kind.pem(&mut source, "key")? };
    source.deny_rest()?;
    Ok(Some(identity))
}

/// `client_ca: { type: file, path }` or `{ type: pem, data }`, or `client_ca_file` or
/// `client_ca_pem`.
fn authority(tls: &mut Section, name: &str) -> Result<Option<Pem>, ConfigError> {
    let old = older(tls, name)?;
    let Some(mut source) = tls.optional(name)? else {
        return Ok(old);
    };
    if old.is_some() {
        return Err(tls.unsupported(name, "given twice"));
    }
    let kind = Kind::read(&mut source)?;
    let authority = match kind {
        Kind::File => kind.pem(&mut source, "path")?,
        Kind::Pem => kind.pem(&mut source, "data")?,
    };
    source.deny_rest()?;
    Ok(Some(authority))
}

/// `NAME_file` or `NAME_pem`.
fn older(tls: &mut Section, name: &str) -> Result<Option<Pem>, ConfigError> {
    let file = tls.text(&format!("{name}_file"))?;
    let text = tls.text(&format!("{name}_pem"))?;
    match (file, text) {
        (Some(_), Some(_)) => {
            Err(tls.itself(&format!("both {name}_file and {name}_pem: give one of them")))
        }
        (Some(path), None) => Ok(Some(Pem::File(path.into()))),
        (None, text) => Ok(text.map(Pem::Text)),
    }
}

/// Where a source has its PEM.
#[derive(Clone, Copy)]
enum Kind {
    File,
    Pem,
}

impl Kind {
    fn read(source: &mut Section) -> Result<Self, ConfigError> {
        match source.text("type")?.as_deref() {
            Some("file") => Ok(Self::File),
            Some("pem") => Ok(Self::Pem),
            Some("spire") => Err(source.unsupported("type", "SPIRE is not supported yet")),
            _ => Err(source.unsupported("type", "required: file or pem")),
        }
    }

    fn pem(self, source: &mut Section, key: &str) -> Result<Pem, ConfigError> {
        let text = source.text(key)?.ok_or_else(|| source.unsupported(key, "required"))?;
        Ok(match self {
            Self::File => Pem::File(text.into()),
            Self::Pem => Pem::Text(text),
        })
    }
}
