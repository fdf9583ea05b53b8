//! Who we are and whom we believe, in one object that is kept fresh.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rand::Rng;
use slim_auth::{
    Algorithm, Claims, Identity, JwtIdentity, JwtIdentityConfig, JwtIdentityError, JwtSigningKey,
    JwtVerifier, JwtVerifierConfig, KeySet, SigningKey, TokenError, TokenIdentity, TrustList,
    Verifier, VerifyError,
};
use thiserror::Error;
use tokio::sync::{Notify, watch};
use zeroize::Zeroizing;

use crate::file::{self, FileError};
use crate::issuer::{Issuer, IssuerError};
#[cfg(feature = "spiffe")]
use crate::workload::WorkloadError;

/// How we show who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Speaker {
    /// We are an Ed25519 key: our subject is its did:key, and we sign our tokens with it.
    Did {
        /// The private key, in PEM.
        key: PathBuf,
    },
    /// We sign our tokens, in the name of a subject.
    Signer {
        /// The private key in PEM, or the secret for HS256 and its kind. Read again when
        /// it changes.
        key: PathBuf,
        /// How it signs. Default: ES256, ES384, EdDSA or RS256, as the key allows.
        algorithm: Option<Algorithm>,
        /// What the tokens say; their audience is that of the [`Sources`].
        config: JwtIdentityConfig,
    },
    /// Somebody else issues our tokens.
    Token {
        /// The token. Read again when it changes.
        token: PathBuf,
        /// The P-256 private key whose public half is the token's claim `pubkey`.
        key: PathBuf,
    },
}

/// Whom we believe. Files are read again when they change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// A JWKS with one key for each peer, which speaks for nobody else: its id, or its
    /// did:key, is the subject.
    Peers(PathBuf),
    /// A JWKS whose keys speak for anybody.
    Keys(PathBuf),
    /// A trust bundle, a JSON object of trust domain and base64 of its JWKS. Tokens must
    /// name an audience.
    Bundle(PathBuf),
    /// An OpenID Connect issuer.
    Issuer(Issuer),
}

/// Where everything is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources {
    /// Who we are.
    pub speaker: Speaker,
    /// Whom we believe.
    pub trust: Trust,
    /// For whom tokens are: in ours if we sign them, and demanded of those that name an
    /// audience.
    pub audience: Vec<String>,
}

/// The identity of an application and its verifier, kept fresh as long as somebody has it.
pub struct Credentials {
    pub(crate) own: Own,
    pub(crate) verifier: JwtVerifier,
    /// Those of the trust, without our own. `None` for those of an issuer or an agent.
    trusted: Mutex<Option<KeySet>>,
    changes: watch::Sender<u64>,
}

pub(crate) enum Own {
    Signed(JwtIdentity),
    Issued(TokenIdentity),
}

impl Credentials {
    /// Reads everything, and keeps it fresh from then on. For an issuer, its keys are
    /// awaited.
    ///
    /// # Errors
    ///
    /// [`LoadError`], which names the file or the issuer and what is wrong.
    pub async fn load(sources: &Sources) -> Result<Arc<Self>, LoadError> {
        let (own, own_text) = own(sources)?;
        let mut config = JwtVerifierConfig {
            audience: sources.audience.clone(),
            ..JwtVerifierConfig::default()
        };
        match &sources.trust {
            Trust::Issuer(issuer) => {
                if matches!(own, Own::Signed(_)) {
                    return Err(LoadError::OwnTokens);
                }
                let wanted = Arc::new(Notify::new());
                let wake = Arc::clone(&wanted);
                let verifier = JwtVerifier::by_issuer([issuer.name().to_owned()], config)
                    .when_unknown(move || wake.notify_one());
                verifier.set_issuer_keys(issuer.name(), issuer.keys().await?);
                let this = Arc::new(Self::new(own, verifier, None));
                let name = issuer.name().to_owned();
                issuer.clone().follow(&this, wanted, move |this: &Self, keys| {
                    this.verifier.set_issuer_keys(&name, keys);
                    this.changed();
                });
                this.watch_own(sources, own_text);
                Ok(this)
            }
            Trust::Peers(path) | Trust::Keys(path) | Trust::Bundle(path) => {
                config.subject_is_key = matches!(sources.trust, Trust::Peers(_));
                let is_bundle = matches!(sources.trust, Trust::Bundle(_));
                config.claims_in_audience = is_bundle;
                config.require_audience = is_bundle;
                let text = file::read(path)?;
                let parse = parser(&sources.trust);
                let content = |reason| LoadError::Content { path: path.clone(), reason };
                let trusted = parse(&text).map_err(content)?;
                let verifier = JwtVerifier::new(KeySet::default(), config);
                let this = Arc::new(Self::new(own, verifier, Some(trusted)));
                this.join_keys();
                file::watch(path.clone(), text, Arc::downgrade(&this), move |this: &Self, text| {
                    let keys = parse(text)?;
                    *this.trusted.lock().unwrap_or_else(PoisonError::into_inner) = Some(keys);
                    this.join_keys();
                    this.changed();
                    Ok(())
                });
                this.watch_own(sources, own_text);
                Ok(this)
            }
        }
    }

    pub(crate) fn new(own: Own, verifier: JwtVerifier, trusted: Option<KeySet>) -> Self {
        Self { own, verifier, trusted: Mutex::new(trusted), changes: watch::Sender::new(0) }
    }

    /// How many times something was read or fetched again and is in use since.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub(crate) fn changed(&self) {
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// We verify our own tokens too: they are in the groups that we are in.
    fn join_keys(&self) {
        let trusted = self.trusted.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(mut keys) = trusted.clone() else { return };
        if let Own::Signed(own) = &self.own {
            keys.insert(own.verifying_key());
        }
        self.verifier.set_keys(keys);
    }

    fn watch_own(self: &Arc<Self>, sources: &Sources, first: Zeroizing<String>) {
        let this = Arc::downgrade(self);
        match &sources.speaker {
            // Another key would be another subject.
            Speaker::Did { .. } => {}
            Speaker::Signer { key, algorithm, .. } => {
                let algorithm = *algorithm;
                file::watch(key.clone(), first, this, move |this: &Self, text| {
                    let signer = signer(algorithm, text).map_err(|error| error.to_string())?;
                    if let Own::Signed(own) = &this.own {
                        own.set_signer(signer);
                    }
                    this.join_keys();
                    this.changed();
                    Ok(())
                });
            }
            Speaker::Token { token, .. } => {
                file::watch(token.clone(), first, this, |this: &Self, text| {
                    if let Own::Issued(own) = &this.own {
                        own.set_token(text).map_err(|error| error.to_string())?;
                    }
                    this.changed();
                    Ok(())
                });
            }
        }
    }
}

/// Our identity, and the text of the file that is watched for it.
fn own(sources: &Sources) -> Result<(Own, Zeroizing<String>), LoadError> {
    match &sources.speaker {
        Speaker::Did { key } => {
            let pem = file::read(key)?;
            let identity = JwtIdentity::did(&pem, sources.audience.clone());
            let own = identity.map(Own::Signed).map_err(|error| in_file(key, &error))?;
            Ok((own, pem))
        }
        Speaker::Signer { key, algorithm, config } => {
            let text = file::read(key)?;
            let signer = signer(*algorithm, &text).map_err(|error| in_file(key, &error))?;
            let config = JwtIdentityConfig { audience: sources.audience.clone(), ..config.clone() };
            let identity = JwtIdentity::new(signer, config);
            let own = identity.map(Own::Signed).map_err(|error| in_file(key, &error))?;
            Ok((own, text))
        }
        Speaker::Token { token, key } => {
            let signing =
                SigningKey::from_pem(&file::read(key)?).map_err(|error| in_file(key, &error))?;
            let text = file::read(token)?;
            let identity = TokenIdentity::new(&text, signing);
            let own = identity.map(Own::Issued).map_err(|error| in_file(token, &error))?;
            Ok((own, text))
        }
    }
}

pub(crate) fn signer(
    algorithm: Option<Algorithm>,
    text: &str,
) -> Result<JwtSigningKey, JwtIdentityError> {
    match algorithm {
        Some(algorithm) => Ok(JwtSigningKey::from_pem(algorithm, text)?),
        None => Ok(JwtSigningKey::from_any_pem(text)?),
    }
}

pub(crate) fn in_file(path: &Path, error: &impl fmt::Display) -> LoadError {
    LoadError::Content { path: path.to_owned(), reason: error.to_string() }
}

type Parser = fn(&str) -> Result<KeySet, String>;

fn parser(trust: &Trust) -> Parser {
    match trust {
        Trust::Peers(_) => |text| {
            let list = TrustList::read(text).map_err(|error| error.to_string())?;
            list.key_set().map_err(|error| error.to_string())
        },
        Trust::Bundle(_) => {
            |text| KeySet::from_trust_bundle(text).map_err(|error| error.to_string())
        }
        Trust::Keys(_) | Trust::Issuer(_) => {
            |text| KeySet::from_jwks(text).map_err(|error| error.to_string())
        }
    }
}

impl Identity for Credentials {
    fn subject(&self) -> &str {
        match &self.own {
            Own::Signed(own) => own.subject(),
            Own::Issued(own) => own.subject(),
        }
    }

    fn key(&self) -> &SigningKey {
        match &self.own {
            Own::Signed(own) => own.key(),
            Own::Issued(own) => own.key(),
        }
    }

    fn token(&self, now: u64, rng: &mut dyn Rng) -> Result<String, TokenError> {
        match &self.own {
            Own::Signed(own) => own.token(now, rng),
            Own::Issued(own) => own.token(now, rng),
        }
    }
}

impl Verifier for Credentials {
    fn authenticate(&self, token: &str, now: u64) -> Result<Claims, VerifyError> {
        self.verifier.authenticate(token, now)
    }

    fn verify(&self, token: &str, now: u64) -> Result<Claims, VerifyError> {
        self.verifier.verify(token, now)
    }

    fn tells_apart(&self) -> bool {
        self.verifier.tells_apart()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("subject", &self.subject()).finish_non_exhaustive()
    }
}

/// Credentials could not be loaded.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LoadError {
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file holds something else than it should; the text says what.
    #[error("{}: {reason}", path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The issuer's keys cannot be had.
    #[error(transparent)]
    Issuer(#[from] IssuerError),
    /// The agent gives us no identity.
    #[cfg(feature = "spiffe")]
    #[error(transparent)]
    Workload(#[from] WorkloadError),
    /// Nobody who believes the issuer alone would believe us, ourselves included.
    #[error("tokens that we sign ourselves are not those of the issuer: use one of its tokens")]
    OwnTokens,
}
