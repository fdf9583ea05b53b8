//! The keys that a verifier has.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::Value;

use super::{
    algorithm::Algorithm,
    key::{Jwk, JwtKey, JwtKeyError},
};

/// Keys that verify tokens: one, or those of a JWKS.
#[derive(Debug, Clone, Default)]
pub struct KeySet {
    keys: Vec<JwtKey>,
}

impl KeySet {
    /// No document with keys may be larger, in bytes.
    pub const MAX_DOCUMENT: usize = 1024 * 1024;

    /// How many keys are tried for a token that does not say which one signed it.
    pub(super) const MAX_TRIES: usize = 32;

    /// One JWK. Where it does not say how tokens are signed, `algorithm` does.
    ///
    /// # Errors
    ///
    /// [`JwtKeyError`].
    pub fn from_jwk(text: &str, algorithm: Option<Algorithm>) -> Result<Self, JwtKeyError> {
        let key: Jwk = parse(text, "a JWK")?;
        Ok(key.key(algorithm)?.into())
    }

    /// The keys of a JWKS that can be used; others, such as those for encryption, are
    /// left out. A key without `alg` is used in the way of its curve, or for RS256.
    ///
    /// # Errors
    ///
    /// [`JwtKeyError`], also if no key is left.
    pub fn from_jwks(text: &str) -> Result<Self, JwtKeyError> {
        Self::usable(&parse(text, "a JWKS")?, None)
    }

    /// The keys of a trust bundle: a JSON object of trust domains, each with the base64 of
    /// its JWKS. A key of one domain verifies no SPIFFE ID of another.
    ///
    /// # Errors
    ///
    /// [`JwtKeyError`], also if a domain has no usable key.
    pub fn from_trust_bundle(text: &str) -> Result<Self, JwtKeyError> {
        let kind = "a trust bundle, {\"trust domain\": \"base64 of a JWKS\"}";
        let bundle: BTreeMap<String, String> = parse(text, kind)?;
        let mut keys = Vec::new();
        for (domain, document) in &bundle {
            let document = STANDARD.decode(document).map_err(|_| JwtKeyError::Json(kind))?;
            let document =
                serde_json::from_slice(&document).map_err(|_| JwtKeyError::Json(kind))?;
            keys.extend(Self::usable(&document, Some(domain))?.keys);
        }
        Self::checked(keys, None)
    }

    /// The keys of one SPIFFE trust domain, in a JWKS. They verify no SPIFFE ID of another.
    ///
    /// # Errors
    ///
    /// [`JwtKeyError`], also if no key is left.
    pub fn from_domain(domain: &str, jwks: &str) -> Result<Self, JwtKeyError> {
        Self::usable(&parse(jwks, "a JWKS")?, Some(domain))
    }

    /// Adds those of another trust domain. Their ids need not differ.
    pub fn extend(&mut self, other: Self) {
        self.keys.extend(other.keys);
    }

    fn usable(set: &Jwks, domain: Option<&str>) -> Result<Self, JwtKeyError> {
        let mut fault = None;
        let keys = set
            .keys
            .iter()
            .filter_map(|jwk| {
                let read = Jwk::deserialize(jwk).map_err(|_| JwtKeyError::Json("a JWK"));
                let key = read.and_then(|jwk| jwk.key(None)).inspect_err(|error| {
                    fault.get_or_insert_with(|| Box::new(error.clone()));
                });
                let key = key.ok()?;
                Some(match domain {
                    Some(domain) => key.in_domain(domain),
                    None => key,
                })
            })
            .collect();
        Self::checked(keys, fault)
    }

    fn checked(keys: Vec<JwtKey>, fault: Option<Box<JwtKeyError>>) -> Result<Self, JwtKeyError> {
        if keys.is_empty() {
            return Err(JwtKeyError::Empty(fault));
        }
        Ok(Self { keys })
    }

    /// All keys.
    pub fn iter(&self) -> impl Iterator<Item = &JwtKey> {
        self.keys.iter()
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none, and so no token verifies.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The key with this id.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&JwtKey> {
        self.keys.iter().find(|key| key.id() == Some(id))
    }

    /// The key with this id, that of this trust domain before any other.
    pub(super) fn get_for(&self, id: &str, domain: Option<&str>) -> Option<&JwtKey> {
        let has_it = |key: &&JwtKey| key.id() == Some(id);
        let own = self.keys.iter().filter(|key| domain.is_some() && key.domain() == domain);
        own.clone().find(has_it).or_else(|| self.get(id))
    }

    /// Adds a key, unless one with its id is there already.
    pub fn insert(&mut self, key: JwtKey) {
        if key.id().is_none_or(|id| self.get(id).is_none()) {
            self.keys.push(key);
        }
    }
}

impl From<JwtKey> for KeySet {
    fn from(key: JwtKey) -> Self {
        Self { keys: vec![key] }
    }
}

impl FromIterator<JwtKey> for KeySet {
    fn from_iter<T: IntoIterator<Item = JwtKey>>(keys: T) -> Self {
        Self { keys: keys.into_iter().collect() }
    }
}

/// RFC 7517 §5: what of it is a key of ours is seen later, one by one.
#[derive(Deserialize)]
struct Jwks {
    keys: Vec<Value>,
}

fn parse<'a, T: Deserialize<'a>>(text: &'a str, kind: &'static str) -> Result<T, JwtKeyError> {
    if text.len() > KeySet::MAX_DOCUMENT {
        return Err(JwtKeyError::TooLarge(KeySet::MAX_DOCUMENT));
    }
    serde_json::from_str(text).map_err(|_| JwtKeyError::Json(kind))
}
