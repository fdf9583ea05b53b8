//! Whom a node lets in by a token, and what an application shows to be let in.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use slim_auth::{
    Algorithm, AuthorizationError, Bearer, JwtIdentityConfig, JwtKey, JwtVerifier,
    JwtVerifierConfig, KeySet, basic, bearer, bearer_token,
};
use tokio::sync::Notify;
use tracing::warn;
use zeroize::Zeroizing;

use crate::credentials::{LoadError, in_file, signer};
use crate::file::{self, FileError};
use crate::issuer::Issuer;

/// A text that may be a secret: in a file, or as it is.
#[derive(Clone, PartialEq, Eq)]
pub enum Text {
    /// A file, read again when it changes.
    File(PathBuf),
    /// The text itself.
    Inline(String),
}

impl Text {
    fn read(&self) -> Result<Zeroizing<String>, FileError> {
        match self {
            Self::File(path) => file::read(path),
            Self::Inline(text) => Ok(Zeroizing::new(text.clone())),
        }
    }

    /// What is wrong with it, and where it is.
    fn fault(&self, reason: &impl fmt::Display) -> LoadError {
        match self {
            Self::File(path) => in_file(path, reason),
            Self::Inline(_) => in_file(Path::new("the key as it is given"), reason),
        }
    }
}

/// Shows a text's length only.
impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Inline(text) => write!(f, "Inline({} bytes)", text.len()),
        }
    }
}

/// Where the keys are that sign bearers' tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BearerKeys {
    /// One public key in PEM, or the secret of HS256 and its kind.
    Pem(Algorithm, Text),
    /// One JWK, and how tokens are signed where it does not say.
    Jwk(Option<Algorithm>, Text),
    /// A JWKS.
    Jwks(Text),
    /// An OpenID Connect issuer.
    Issuer(Issuer),
}

impl BearerKeys {
    fn text(&self) -> Option<&Text> {
        match self {
            Self::Pem(_, text) | Self::Jwk(_, text) | Self::Jwks(text) => Some(text),
            Self::Issuer(_) => None,
        }
    }

    fn parse(&self, text: &str) -> Result<KeySet, String> {
        let keys = match self {
            Self::Pem(algorithm, _) => JwtKey::from_pem(*algorithm, text).map(KeySet::from),
            Self::Jwk(algorithm, _) => KeySet::from_jwk(text, *algorithm),
            Self::Jwks(_) => KeySet::from_jwks(text),
            Self::Issuer(_) => Ok(KeySet::default()),
        };
        keys.map_err(|error| error.to_string())
    }

    /// Reads the keys and forgets them again. An issuer is not asked.
    ///
    /// # Errors
    /// [`LoadError`], which names the file and what is wrong.
    pub fn check(&self) -> Result<(), LoadError> {
        let Some(text) = self.text() else { return Ok(()) };
        self.parse(&text.read()?).map(drop).map_err(|reason| text.fault(&reason))
    }
}

/// Verifies what bearers show, with keys that are kept fresh as long as somebody has this.
#[derive(Debug)]
pub struct Bearers {
    verifier: JwtVerifier,
}

impl Bearers {
    /// Reads the keys. Those of an issuer that does not answer are tried again, and
    /// nobody is let in until they are there.
    ///
    /// # Errors
    /// [`LoadError`], which names the file and what is wrong.
    pub async fn load(
        keys: &BearerKeys,
        config: JwtVerifierConfig,
    ) -> Result<Arc<Self>, LoadError> {
        let text = match keys {
            BearerKeys::Issuer(issuer) => return Ok(Self::of_issuer(issuer, config).await),
            BearerKeys::Pem(_, text) | BearerKeys::Jwk(_, text) | BearerKeys::Jwks(text) => text,
        };
        let first = text.read()?;
        let parsed = keys.parse(&first).map_err(|reason| text.fault(&reason))?;
        let this = Arc::new(Self { verifier: JwtVerifier::new(parsed, config) });
        if let Text::File(path) = text {
            let keys = keys.clone();
            file::watch(path.clone(), first, Arc::downgrade(&this), move |this: &Self, text| {
                this.verifier.set_keys(keys.parse(text)?);
                Ok(())
            });
        }
        Ok(this)
    }

    async fn of_issuer(issuer: &Issuer, config: JwtVerifierConfig) -> Arc<Self> {
        let name = issuer.name().to_owned();
        let wanted = Arc::new(Notify::new());
        let wake = Arc::clone(&wanted);
        let verifier =
            JwtVerifier::by_issuer([name.clone()], config).when_unknown(move || wake.notify_one());
        match issuer.keys().await {
            Ok(keys) => verifier.set_issuer_keys(&name, keys),
            Err(error) => {
                warn!(%error, "nobody is let in by a token until the keys are there");
                wanted.notify_one();
            }
        }
        let this = Arc::new(Self { verifier });
        issuer.clone().follow(&this, wanted, move |this: &Self, keys| {
            this.verifier.set_issuer_keys(&name, keys);
        });
        this
    }

    /// Who shows this header, at `now` in seconds since the Unix epoch.
    ///
    /// # Errors
    /// [`AuthorizationError`], which holds nothing of the token.
    pub fn check(&self, header: Option<&str>, now: u64) -> Result<Bearer, AuthorizationError> {
        Ok(self.verifier.verify_bearer(bearer_token(header)?, now)?)
    }
}

/// What an application, or a node, shows a node to be let in.
#[derive(Clone, PartialEq, Eq)]
pub enum LinkCredentials {
    /// A user and a password.
    Basic {
        /// The user.
        user: String,
        /// The password.
        password: String,
    },
    /// A token that somebody else issued. Read for each link anew.
    Token(PathBuf),
    /// A token that is signed for each link anew.
    Signer {
        /// The private key in PEM, or the secret of HS256 and its kind.
        key: Text,
        /// How it signs. Default: ES256, ES384, EdDSA or RS256, as the key allows.
        algorithm: Option<Algorithm>,
        /// What the token says.
        config: JwtIdentityConfig,
    },
}

impl LinkCredentials {
    /// The header to show at `now`, in seconds since the Unix epoch. Reads a file, so it
    /// blocks for a moment.
    ///
    /// # Errors
    /// [`LoadError`], which names the file and what is wrong.
    pub fn header(&self, now: u64) -> Result<String, LoadError> {
        match self {
            Self::Basic { user, password } => Ok(basic(user, password)),
            Self::Token(path) => {
                let token = file::read(path)?;
                if token.trim().is_empty() {
                    return Err(in_file(path, &"there is no token"));
                }
                Ok(bearer(&token))
            }
            Self::Signer { key, algorithm, config } => {
                let signer = signer(*algorithm, &key.read()?).map_err(|error| key.fault(&error))?;
                let token = config.bearer(&signer, now).map_err(|error| key.fault(&error))?;
                Ok(bearer(&token))
            }
        }
    }
}

/// Shows who, and no password.
impl fmt::Debug for LinkCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Basic { user, .. } => write!(f, "Basic({user:?})"),
            Self::Token(path) => f.debug_tuple("Token").field(path).finish(),
            Self::Signer { key, config, .. } => {
                f.debug_tuple("Signer").field(key).field(config).finish()
            }
        }
    }
}
