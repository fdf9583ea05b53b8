//! What a token is worth.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;

use super::{key::JwtKey, key_set::KeySet, token::Parts};
use crate::{
    did::did_key,
    identity::{Claims, Verifier, VerifyError},
    key::PublicKey,
    shown::Shown,
};

/// An audience that starts with this carries claims (SPIFFE tokens have no other place).
const CLAIMS_AUDIENCE: &str = "slim-claims:";

/// What a token has to say, besides being signed with a known key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JwtVerifierConfig {
    /// A token that names an audience must name one of these. Default none, and then a
    /// token that names an audience is refused: it is for somebody else. One that names
    /// none passes.
    pub audience: Vec<String>,
    /// Who must have issued the token, if it says. Default anybody who has the key. For a
    /// verifier with keys by issuer it is these issuers that count.
    pub issuer: Option<String>,
    /// The claim `iss` must be there. Default false.
    pub require_issuer: bool,
    /// The claim `aud` must be there. Default false.
    pub require_audience: bool,
    /// The claim `sub` must be there; without, `id` will do. Default false.
    pub require_subject: bool,
    /// A key speaks for one subject only: the one that is its id or, for Ed25519, its
    /// did:key. For a set with one key for each peer. Default false.
    pub subject_is_key: bool,
    /// An audience `slim-claims:`, followed by base64 of a JSON object, is not an
    /// audience but brings claims, the public key among them. Only for issuers who let
    /// nobody but the subject choose audiences, such as SPIRE. Default false.
    pub claims_in_audience: bool,
    /// Subjects have to be SPIFFE IDs, and the key one of their trust domain. Without, a key
    /// of a trust domain verifies no SPIFFE ID of another one. Default false.
    pub require_spiffe_id: bool,
}

/// What a verified token says about whoever shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bearer {
    /// The name the token speaks for.
    pub subject: String,
    /// Who issued it, if it says so.
    pub issuer: Option<String>,
    /// When it was made, in seconds since the Unix epoch, if it says so.
    pub issued_at: Option<u64>,
    /// The last second since the Unix epoch at which the verifier takes it, its allowance
    /// for clocks included.
    pub expires_at: u64,
}

/// Checks tokens with keys that can be replaced at any time.
pub struct JwtVerifier {
    config: JwtVerifierConfig,
    keys: RwLock<Keys>,
    when_unknown: Option<Box<dyn Fn() + Send + Sync>>,
}

#[derive(Clone)]
enum Keys {
    Anybody(Arc<KeySet>),
    /// `None` until they are known.
    ByIssuer(BTreeMap<String, Option<Arc<KeySet>>>),
}

impl JwtVerifier {
    /// So many seconds after its `exp` a token is still taken, and so many before its
    /// `nbf`: clocks differ.
    pub const LEEWAY: u64 = 60;

    /// A verifier with one set of keys for all tokens.
    #[must_use]
    pub fn new(keys: KeySet, config: JwtVerifierConfig) -> Self {
        let keys = RwLock::new(Keys::Anybody(Arc::new(keys)));
        Self { config, keys, when_unknown: None }
    }

    /// A verifier that takes tokens of these issuers only, each with keys of its own, which
    /// come with [`JwtVerifier::set_issuer_keys`].
    #[must_use]
    pub fn by_issuer(issuers: impl IntoIterator<Item = String>, config: JwtVerifierConfig) -> Self {
        let issuers = issuers.into_iter().map(|issuer| (issuer, None)).collect();
        Self { config, keys: RwLock::new(Keys::ByIssuer(issuers)), when_unknown: None }
    }

    /// Calls this whenever a token names a key that is not there. It must return at once;
    /// whoever fetches keys is woken with it, and must not be made to fetch without end.
    #[must_use]
    pub fn when_unknown(mut self, call: impl Fn() + Send + Sync + 'static) -> Self {
        self.when_unknown = Some(Box::new(call));
        self
    }

    /// Replaces all keys, for tokens of whatever issuer.
    pub fn set_keys(&self, keys: KeySet) {
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Keys::Anybody(Arc::new(keys));
    }

    /// Replaces the keys of one issuer. Of an issuer that was not among those of
    /// [`JwtVerifier::by_issuer`] nothing is taken.
    pub fn set_issuer_keys(&self, issuer: &str, keys: KeySet) {
        let mut known = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        if let Keys::ByIssuer(issuers) = &mut *known
            && let Some(slot) = issuers.get_mut(issuer)
        {
            *slot = Some(Arc::new(keys));
        }
    }

    /// The keys for a token that says it is of this issuer.
    fn keys_for(&self, issuer: Option<&str>) -> Result<Arc<KeySet>, VerifyError> {
        match &*self.keys.read().unwrap_or_else(PoisonError::into_inner) {
            Keys::Anybody(keys) => Ok(Arc::clone(keys)),
            Keys::ByIssuer(issuers) => {
                let issuer = issuer.ok_or(VerifyError::Missing("iss"))?;
                let keys = issuers.get(issuer).ok_or_else(|| VerifyError::Issuer {
                    found: Shown::new(issuer),
                    expected: Shown::list(issuers.keys().map(String::as_str)),
                })?;
                keys.clone().ok_or_else(|| VerifyError::KeysNotAtHand(Shown::new(issuer)))
            }
        }
    }

    /// The key that signed the token.
    fn signer<'a>(&self, keys: &'a KeySet, token: &Parts<'_>) -> Result<&'a JwtKey, VerifyError> {
        let fits = |key: &JwtKey| key.algorithm().as_str() == token.header.alg;
        let verifies = |key: &JwtKey| key.verify(token.signed.as_bytes(), &token.signature).is_ok();
        let bad = || VerifyError::BadSignature { key_id: token.shown_key_id() };
        if let Some(key) =
            token.header.kid.as_deref().and_then(|id| keys.get_for(id, domain_of(token)))
        {
            if !fits(key) {
                return Err(VerifyError::Algorithm {
                    found: Shown::new(&token.header.alg),
                    expected: key.algorithm(),
                });
            }
            return if verifies(key) { Ok(key) } else { Err(bad()) };
        }
        let mut tried = keys.iter().filter(|key| fits(key)).take(KeySet::MAX_TRIES).peekable();
        if tried.peek().is_none()
            && let Some(only) = keys.iter().next()
            && keys.len() == 1
        {
            return Err(VerifyError::Algorithm {
                found: Shown::new(&token.header.alg),
                expected: only.algorithm(),
            });
        }
        tried.find(|key| verifies(key)).ok_or_else(|| match token.shown_key_id() {
            // A single key without an id is meant by all ids.
            Some(_) if keys.len() == 1 && keys.iter().all(|key| key.id().is_none()) => bad(),
            Some(id) => VerifyError::UnknownKey(id),
            None => bad(),
        })
    }

    /// Checks a token completely, at `now` in seconds since the Unix epoch, that proves
    /// by itself who shows it. The tokens in messages do not: whoever gets a message has
    /// one. They bring the key that signs the messages, and are refused for that, unless
    /// an audience is demanded: then it is the audience that tells the two apart, for some
    /// put a key into all their tokens.
    ///
    /// # Errors
    /// [`VerifyError`].
    pub fn verify_bearer(&self, token: &str, now: u64) -> Result<Bearer, VerifyError> {
        let checked = Parts::read(token).and_then(|token| {
            let (bearer, _) = self.check_parts(&token, now)?;
            let audience = token.audience()?.unwrap_or_default();
            let is_of_messages = audience.into_iter().any(|one| one.starts_with(CLAIMS_AUDIENCE));
            let brings_key = || token.public_key() != Err(VerifyError::NoPublicKey);
            if is_of_messages || (!self.config.require_audience && brings_key()) {
                return Err(VerifyError::OfMessages);
            }
            Ok(bearer)
        });
        let bearer = self.told(checked)?;
        in_time(bearer.expires_at, now)?;
        Ok(bearer)
    }

    /// Everything but whether it has expired.
    fn check(&self, token: &str, now: u64) -> Result<Claims, VerifyError> {
        let token = Parts::read(token)?;
        let (bearer, brought) = self.check_parts(&token, now)?;
        let public_key = match brought {
            Some(key) => key,
            None => token.public_key()?,
        };
        let Bearer { subject, issuer, issued_at, expires_at } = bearer;
        Ok(Claims { subject, public_key, issued_at, expires_at, issuer })
    }

    /// Everything but whether it has expired and its own key, unless an audience brings
    /// that.
    fn check_parts(
        &self,
        token: &Parts<'_>,
        now: u64,
    ) -> Result<(Bearer, Option<PublicKey>), VerifyError> {
        let keys = self.keys_for(token.issuer()?)?;
        let key = self.signer(&keys, token)?;
        // From here on the token is authentic, whatever else is wrong with it.
        self.check_issuer(token.issuer()?)?;
        let brought = self.check_audience(token)?;
        if self.config.require_subject && token.text("sub").is_none() {
            return Err(VerifyError::Missing("sub"));
        }
        let subject = token.subject()?;
        self.check_binding(subject, key)?;
        let expires = token.seconds("exp")?.ok_or(VerifyError::Missing("exp"))?;
        let from = token.seconds("nbf")?.unwrap_or_default();
        if from > now.saturating_add(Self::LEEWAY) {
            return Err(VerifyError::FromFuture { ahead: from - now });
        }
        let bearer = Bearer {
            subject: subject.to_owned(),
            issuer: token.issuer()?.map(str::to_owned),
            issued_at: token.seconds("iat")?,
            expires_at: expires.saturating_add(Self::LEEWAY),
        };
        Ok((bearer, brought))
    }

    /// Passes a result on, and tells whoever fetches keys that one is missing.
    fn told<T>(&self, result: Result<T, VerifyError>) -> Result<T, VerifyError> {
        if let (Err(VerifyError::UnknownKey(_) | VerifyError::KeysNotAtHand(_)), Some(call)) =
            (&result, &self.when_unknown)
        {
            call();
        }
        result
    }

    fn check_issuer(&self, issuer: Option<&str>) -> Result<(), VerifyError> {
        match (issuer, &self.config.issuer) {
            (None, _) if self.config.require_issuer => Err(VerifyError::Missing("iss")),
            (Some(found), Some(expected)) if found != expected => Err(VerifyError::Issuer {
                found: Shown::new(found),
                expected: Shown::new(expected),
            }),
            _ => Ok(()),
        }
    }

    /// Gives the public key if it came in an audience.
    fn check_audience(&self, token: &Parts<'_>) -> Result<Option<PublicKey>, VerifyError> {
        let Some(mut found) = token.audience()? else {
            return if self.config.require_audience {
                Err(VerifyError::Missing("aud"))
            } else {
                Ok(None)
            };
        };
        let mut brought = None;
        if self.config.claims_in_audience {
            found.retain(|audience| match public_key_in(audience) {
                Some(key) => {
                    brought.get_or_insert(key);
                    false
                }
                None => true,
            });
        }
        let expected = &self.config.audience;
        if expected.iter().any(|one| found.contains(&one.as_str())) {
            return brought.map(|text| Ok(PublicKey::from_base64(&text)?)).transpose();
        }
        let found = Shown::list(found);
        Err(if expected.is_empty() {
            VerifyError::UnaskedAudience(found)
        } else {
            let expected = Shown::list(expected.iter().map(String::as_str));
            VerifyError::Audience { found, expected }
        })
    }

    fn check_binding(&self, subject: &str, key: &JwtKey) -> Result<(), VerifyError> {
        let fits = match (key.domain(), trust_domain(subject)) {
            (Some(own), Some(found)) => own == found,
            _ => !self.config.require_spiffe_id,
        };
        if !fits {
            return Err(VerifyError::ForeignSubject {
                subject: Shown::new(subject),
                key: Shown::new(key.domain().unwrap_or("no trust domain")),
            });
        }
        if !self.config.subject_is_key || key.id() == Some(subject) {
            return Ok(());
        }
        let did = key.ed25519().map(|key| did_key(&key));
        if did.as_deref() == Some(subject) {
            return Ok(());
        }
        let owner = did.as_deref().or_else(|| key.id()).unwrap_or("a key without id");
        Err(VerifyError::ForeignSubject { subject: Shown::new(subject), key: Shown::new(owner) })
    }
}

fn in_time(expires_at: u64, now: u64) -> Result<(), VerifyError> {
    match now.checked_sub(expires_at) {
        None | Some(0) => Ok(()),
        // People compare this with what the token says, which knows no leeway.
        Some(late) => Err(VerifyError::Expired { ago: late.saturating_add(JwtVerifier::LEEWAY) }),
    }
}

/// The trust domain of a SPIFFE ID, empty if there is none in it; `None` for any other
/// subject.
fn trust_domain(subject: &str) -> Option<&str> {
    subject.strip_prefix("spiffe://").and_then(|rest| rest.split('/').next())
}

fn domain_of<'a>(token: &'a Parts<'_>) -> Option<&'a str> {
    token.subject().ok().and_then(trust_domain)
}

/// The text of the public key that an audience brings.
pub(super) fn public_key_in(audience: &str) -> Option<String> {
    let json = STANDARD.decode(audience.strip_prefix(CLAIMS_AUDIENCE)?).ok()?;
    let claims: Value = serde_json::from_slice(&json).ok()?;
    Some(claims.get("pubkey")?.as_str()?.to_owned())
}

impl Verifier for JwtVerifier {
    fn authenticate(&self, token: &str, now: u64) -> Result<Claims, VerifyError> {
        self.told(self.check(token, now))
    }

    fn verify(&self, token: &str, now: u64) -> Result<Claims, VerifyError> {
        let claims = self.authenticate(token, now)?;
        in_time(claims.expires_at, now)?;
        Ok(claims)
    }

    /// Unless a key is a secret, with which everybody who verifies can also sign.
    fn tells_apart(&self) -> bool {
        let is_public = |keys: &KeySet| !keys.iter().any(JwtKey::is_secret);
        match &*self.keys.read().unwrap_or_else(PoisonError::into_inner) {
            Keys::Anybody(keys) => is_public(keys),
            Keys::ByIssuer(issuers) => issuers.values().flatten().all(|keys| is_public(keys)),
        }
    }
}

impl fmt::Debug for JwtVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtVerifier").field("config", &self.config).finish_non_exhaustive()
    }
}
