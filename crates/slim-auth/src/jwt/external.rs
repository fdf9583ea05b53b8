//! An identity whose tokens somebody else issues.

use std::{
    fmt,
    sync::{PoisonError, RwLock},
};

use rand::Rng;
use thiserror::Error;

use super::{JwtVerifier, token::Parts};
use crate::{
    identity::{Identity, TokenError, VerifyError},
    key::{PublicKey, SigningKey},
    shown::{Shown, Span},
};

/// An application's identity by a token that its issuer made out to the application's
/// key: the claim `pubkey` is the public half of the key that signs our messages.
pub struct TokenIdentity {
    subject: String,
    key: SigningKey,
    current: RwLock<Token>,
}

struct Token {
    text: String,
    expires: u64,
}

impl TokenIdentity {
    /// An identity with its first token, white space around it ignored. The issuer's
    /// signature is not checked: that is for those who receive the token.
    ///
    /// # Errors
    ///
    /// [`TokenIdentityError`].
    pub fn new(token: &str, key: SigningKey) -> Result<Self, TokenIdentityError> {
        let (subject, current) = read(token, &key)?;
        Ok(Self { subject, key, current: RwLock::new(current) })
    }

    /// When its token expires, in seconds since the Unix epoch.
    #[must_use]
    pub fn expires_at(&self) -> u64 {
        self.current.read().unwrap_or_else(PoisonError::into_inner).expires
    }

    /// Uses another token of the same subject and key from now on.
    ///
    /// # Errors
    ///
    /// [`TokenIdentityError`]; the old token stays in use.
    pub fn set_token(&self, token: &str) -> Result<(), TokenIdentityError> {
        let (subject, current) = read(token, &self.key)?;
        if subject != self.subject {
            return Err(TokenIdentityError::OtherSubject {
                found: Shown::new(&subject),
                expected: Shown::new(&self.subject),
            });
        }
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = current;
        Ok(())
    }
}

/// The subject, and what is kept of a token.
fn read(token: &str, key: &SigningKey) -> Result<(String, Token), TokenIdentityError> {
    let text = token.trim();
    let parts = Parts::read(text)?;
    let expires = parts.seconds("exp")?.ok_or(VerifyError::Missing("exp"))?;
    let subject = parts.subject()?.to_owned();
    let found = match parts.public_key() {
        Err(VerifyError::NoPublicKey) => brought(&parts)?,
        found => Some(found?),
    };
    match found {
        None => Err(TokenIdentityError::NoPublicKey { needed: key.public_key().clone() }),
        Some(found) if found != *key.public_key() => Err(TokenIdentityError::OtherKey { found }),
        Some(_) => Ok((subject, Token { text: text.to_owned(), expires })),
    }
}

/// The public key in an audience: SPIFFE tokens have no other place.
fn brought(parts: &Parts<'_>) -> Result<Option<PublicKey>, VerifyError> {
    let audience = parts.audience()?.unwrap_or_default();
    let text = audience.into_iter().find_map(super::verifier::public_key_in);
    text.map(|text| Ok(PublicKey::from_base64(&text)?)).transpose()
}

impl Identity for TokenIdentity {
    fn subject(&self) -> &str {
        &self.subject
    }

    fn key(&self) -> &SigningKey {
        &self.key
    }

    fn token(&self, now: u64, _: &mut dyn Rng) -> Result<String, TokenError> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        // As long as others take it, it is good.
        if now > current.expires.saturating_add(JwtVerifier::LEEWAY) {
            let ago = Span(now - current.expires);
            return Err(TokenError::Unavailable(format!("ours expired {ago} ago")));
        }
        Ok(current.text.clone())
    }
}

impl fmt::Debug for TokenIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenIdentity").field("subject", &self.subject).finish_non_exhaustive()
    }
}

/// Why a token is no identity of ours.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TokenIdentityError {
    /// It cannot be read.
    #[error(transparent)]
    Token(#[from] VerifyError),
    /// Nothing can be signed under it.
    #[error("the token has no claim pubkey: its issuer must put \"{}\" there", needed.to_base64())]
    NoPublicKey {
        /// What belongs there.
        needed: PublicKey,
    },
    /// It is made out to another key.
    #[error("the claim pubkey of the token, {}, is not that of our key", found.to_base64())]
    OtherKey {
        /// What it says.
        found: PublicKey,
    },
    /// It speaks for somebody else than the one before.
    #[error("the token is for {found}, not for {expected}")]
    OtherSubject {
        /// Whom it names.
        found: Shown,
        /// Whom the first one named.
        expected: Shown,
    },
}
