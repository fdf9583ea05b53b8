//! An identity that signs its own tokens.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use rand::Rng;
use serde_json::{Map, Value, json};
use thiserror::Error;

use super::key::{JwtKey, JwtKeyError, JwtSigningKey};
use crate::{
    did::did_key,
    identity::{Identity, TokenError},
    key::{SigningKey, SigningKeyError},
};

/// What the tokens say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtIdentityConfig {
    /// Who we are, the claim `sub` and the id of the key.
    pub subject: String,
    /// The claim `iss`. Default none; those who verify with a set of keys may want one.
    pub issuer: Option<String>,
    /// The claim `aud`. Default none, and then the claim is left out.
    pub audience: Vec<String>,
    /// How long a token lasts, in seconds. Default an hour. Each is used for the first
    /// quarter of its life. Below two minutes, clocks that differ begin to matter.
    pub duration: u64,
}

impl JwtIdentityConfig {
    /// What every token says, whatever it is for.
    fn claims(&self, now: u64) -> Map<String, Value> {
        let mut claims = Map::new();
        let mut claim = |name: &str, value: Value| drop(claims.insert(name.to_owned(), value));
        if let Some(issuer) = &self.issuer {
            claim("iss", json!(issuer));
        }
        if !self.audience.is_empty() {
            claim("aud", json!(self.audience));
        }
        claim("sub", json!(self.subject));
        claim("exp", json!(now.saturating_add(self.duration)));
        claim("iat", json!(now));
        claim("nbf", json!(now));
        claims
    }

    /// A token for whoever has no messages to sign, at `now` in seconds since the Unix
    /// epoch: a bearer shows it to one who verifies it with
    /// [`JwtVerifier::verify_bearer`](crate::JwtVerifier::verify_bearer).
    ///
    /// # Errors
    ///
    /// [`TokenError`] if the operating system gives no random numbers.
    pub fn bearer(&self, signer: &JwtSigningKey, now: u64) -> Result<String, TokenError> {
        signer
            .sign_claims(&self.subject, &self.claims(now))
            .map_err(|error| TokenError::Unavailable(error.to_string()))
    }

    /// The defaults, for this subject.
    #[must_use]
    pub fn new(subject: impl Into<String>) -> Self {
        let subject = subject.into();
        Self { subject, issuer: None, audience: Vec::new(), duration: 3600 }
    }
}

/// An application's identity whose tokens it signs itself.
///
/// The key that signs tokens says who we are; the one in the tokens, which signs messages,
/// is drawn anew for each identity.
pub struct JwtIdentity {
    config: JwtIdentityConfig,
    key: SigningKey,
    signer: RwLock<Arc<JwtSigningKey>>,
    current: Mutex<Option<Token>>,
}

struct Token {
    made_at: u64,
    text: String,
}

impl JwtIdentity {
    /// An identity with a new key pair for its messages.
    ///
    /// # Errors
    ///
    /// [`JwtIdentityError`].
    pub fn new(signer: JwtSigningKey, config: JwtIdentityConfig) -> Result<Self, JwtIdentityError> {
        if config.subject.is_empty() {
            return Err(JwtIdentityError::NoSubject);
        }
        if config.duration == 0 {
            return Err(JwtIdentityError::NoDuration);
        }
        let key = SigningKey::generate()?;
        let signer = RwLock::new(Arc::new(signer));
        Ok(Self { config, key, signer, current: Mutex::new(None) })
    }

    /// The identity of an Ed25519 key, which needs nobody else: subject, issuer and key id
    /// are the key itself, as a did:key.
    ///
    /// # Errors
    ///
    /// [`JwtIdentityError`], also if the PEM text holds no Ed25519 private key.
    pub fn did(pem: &str, audience: Vec<String>) -> Result<Self, JwtIdentityError> {
        let signer = JwtSigningKey::from_pem(super::Algorithm::EdDsa, pem)?;
        let public = signer.verifying_key().ed25519();
        let did = did_key(&public.ok_or(JwtIdentityError::NoSubject)?);
        let config = JwtIdentityConfig {
            issuer: Some(did.clone()),
            audience,
            ..JwtIdentityConfig::new(did)
        };
        Self::new(signer, config)
    }

    /// Signs with another key from now on.
    pub fn set_signer(&self, signer: JwtSigningKey) {
        *self.signer.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(signer);
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// What verifies our tokens, with the subject as its id.
    #[must_use]
    pub fn verifying_key(&self) -> JwtKey {
        self.signer().verifying_key().with_id(&*self.config.subject)
    }

    fn signer(&self) -> Arc<JwtSigningKey> {
        Arc::clone(&self.signer.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn make(&self, now: u64) -> Result<String, TokenError> {
        let mut claims = self.config.claims(now);
        claims.insert("pubkey".to_owned(), json!(self.key.public_key().to_base64()));
        self.signer()
            .sign_claims(&self.config.subject, &claims)
            .map_err(|error| TokenError::Unavailable(error.to_string()))
    }
}

impl Identity for JwtIdentity {
    fn subject(&self) -> &str {
        &self.config.subject
    }

    fn key(&self) -> &SigningKey {
        &self.key
    }

    fn token(&self, now: u64, _: &mut dyn Rng) -> Result<String, TokenError> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(token) = &*current
            && now.abs_diff(token.made_at) < self.config.duration / 4
        {
            return Ok(token.text.clone());
        }
        let text = self.make(now)?;
        *current = Some(Token { made_at: now, text: text.clone() });
        Ok(text)
    }
}

impl fmt::Debug for JwtIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtIdentity").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Why there is no such identity.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum JwtIdentityError {
    /// Whom do the tokens speak for?
    #[error("a JWT identity needs a subject")]
    NoSubject,
    /// Tokens that never were valid.
    #[error("a JWT identity needs a duration of at least 1 s")]
    NoDuration,
    /// The key for the tokens is no good.
    #[error("key for tokens: {0}")]
    Signer(#[from] JwtKeyError),
    /// No key pair could be made.
    #[error("no key pair for the identity")]
    Key(#[from] SigningKeyError),
}
