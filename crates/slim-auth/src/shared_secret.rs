//! Identity by a secret that a circle of applications shares.
//!
//! A token is `<subject>:<timestamp>:<nonce>:<claims>:<mac>`: the subject, the second
//! it was made, 12 random bytes, a JSON object with the public key, and HMAC-SHA-256
//! over the text before the last colon. The last three are URL-safe base64 without
//! padding. Whoever holds the secret can make a token for any subject and any key, so a
//! token shows that its maker belongs to the circle, not who in the circle it is.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rand::{
    Rng,
    distr::{Alphanumeric, SampleString as _},
};
use ring::hmac;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::{
    identity::{A_JWT, A_SECRETS, Claims, Identity, TokenError, Verifier, VerifyError},
    key::{PublicKey, SigningKey, SigningKeyError},
};

/// Characters drawn for the end of the subject.
const SUFFIX_LENGTH: usize = 8;
const NONCE_LENGTH: usize = 12;

/// An application's identity under a shared secret, and the verifier of everybody
/// else's.
pub struct SharedSecret {
    subject: String,
    key: SigningKey,
    /// The claims field of every token: it holds nothing but the public key.
    claims: String,
    secret: Zeroizing<String>,
}

impl SharedSecret {
    /// The shortest secret, in bytes.
    pub const MIN_SECRET_LENGTH: usize = 32;
    /// How many seconds after it was made a token is taken.
    pub const VALIDITY: u64 = 3600;
    /// How many seconds a token may be ahead of our clock.
    pub const CLOCK_SKEW: u64 = 5;

    /// An identity with a new key pair, and the subject `<base_id>_<8 random characters>`.
    ///
    /// `base_id` is customarily the application's name, `org/namespace/app`.
    ///
    /// # Errors
    ///
    /// [`SharedSecretError`] if `base_id` is empty or has a colon or white space in it, if
    /// the secret is shorter than [`SharedSecret::MIN_SECRET_LENGTH`], or if no key can be
    /// made.
    pub fn new(base_id: &str, secret: &str, rng: &mut dyn Rng) -> Result<Self, SharedSecretError> {
        if base_id.is_empty() {
            return Err(SharedSecretError::EmptyId);
        }
        if let Some(character) = base_id.chars().find(|&c| c == ':' || c.is_whitespace()) {
            return Err(SharedSecretError::IdCharacter(character));
        }
        if secret.len() < Self::MIN_SECRET_LENGTH {
            return Err(SharedSecretError::TooShort(secret.len()));
        }
        let key = SigningKey::generate()?;
        let suffix = Alphanumeric.sample_string(rng, SUFFIX_LENGTH);
        let claims = format!(r#"{{"pubkey":"{}"}}"#, key.public_key().to_base64());
        Ok(Self {
            subject: format!("{base_id}_{suffix}"),
            key,
            claims: URL_SAFE_NO_PAD.encode(claims),
            secret: Zeroizing::new(secret.to_owned()),
        })
    }

    /// Made for each use, so that the secret stays in one place that is wiped.
    fn mac_key(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, self.secret.as_bytes())
    }
}

impl Identity for SharedSecret {
    fn subject(&self) -> &str {
        &self.subject
    }

    fn key(&self) -> &SigningKey {
        &self.key
    }

    fn token(&self, now: u64, rng: &mut dyn Rng) -> Result<String, TokenError> {
        let mut nonce = [0; NONCE_LENGTH];
        rng.fill_bytes(&mut nonce);
        let nonce = URL_SAFE_NO_PAD.encode(nonce);
        let mut token = format!("{}:{now}:{nonce}:{}", self.subject, self.claims);
        let mac = hmac::sign(&self.mac_key(), token.as_bytes());
        token.push(':');
        URL_SAFE_NO_PAD.encode_string(mac, &mut token);
        Ok(token)
    }
}

impl Verifier for SharedSecret {
    fn authenticate(&self, token: &str, now: u64) -> Result<Claims, VerifyError> {
        if token.split('.').count() == 3 && !token.contains(':') {
            return Err(VerifyError::OtherKind { found: A_JWT, expected: A_SECRETS });
        }
        let (signed, mac) = token.rsplit_once(':').ok_or(VerifyError::Malformed("fields"))?;
        let mut fields = signed.split(':');
        let (Some(subject), Some(timestamp), Some(_nonce), Some(claims), None) =
            (fields.next(), fields.next(), fields.next(), fields.next(), fields.next())
        else {
            return Err(VerifyError::Malformed("fields"));
        };

        // The code comes first: a difference of clocks or keys is worth reporting only for
        // a token of our circle.
        let mac = URL_SAFE_NO_PAD.decode(mac).map_err(|_| VerifyError::Malformed("mac"))?;
        if mac.len() != hmac::HMAC_SHA256.digest_algorithm().output_len() {
            return Err(VerifyError::Malformed("mac"));
        }
        hmac::verify(&self.mac_key(), signed.as_bytes(), &mac).map_err(|_| VerifyError::BadMac)?;

        let issued_at: u64 = timestamp.parse().map_err(|_| VerifyError::Malformed("timestamp"))?;
        if issued_at > now.saturating_add(Self::CLOCK_SKEW) {
            return Err(VerifyError::FromFuture { ahead: issued_at - now });
        }
        Ok(Claims {
            subject: subject.to_owned(),
            public_key: public_key(claims)?,
            issued_at: Some(issued_at),
            expires_at: issued_at.saturating_add(Self::VALIDITY),
            issuer: None,
        })
    }
}

fn public_key(claims: &str) -> Result<PublicKey, VerifyError> {
    if claims.is_empty() {
        return Err(VerifyError::NoPublicKey);
    }
    let json = URL_SAFE_NO_PAD.decode(claims).map_err(|_| VerifyError::Malformed("claims"))?;
    let claims: serde_json::Value =
        serde_json::from_slice(&json).map_err(|_| VerifyError::Malformed("claims"))?;
    let text =
        claims.get("pubkey").and_then(serde_json::Value::as_str).ok_or(VerifyError::NoPublicKey)?;
    Ok(PublicKey::from_base64(text)?)
}

impl fmt::Debug for SharedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedSecret").field("subject", &self.subject).finish_non_exhaustive()
    }
}

/// Why a shared-secret identity was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SharedSecretError {
    /// The id has no characters.
    #[error("the id is empty")]
    EmptyId,
    /// The id contains a character that a token cannot carry.
    #[error("the id contains {0:?}")]
    IdCharacter(char),
    /// The secret is too short; gives its length in bytes.
    #[error("the secret has {0} bytes, at least {min} are needed", min = SharedSecret::MIN_SECRET_LENGTH)]
    TooShort(usize),
    /// No key pair could be made.
    #[error("no key pair for the identity")]
    Key(#[from] SigningKeyError),
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{SeedableRng as _, rngs::SmallRng};

    use super::*;
    use crate::PublicKeyError;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";
    const NOW: u64 = 1_795_000_000;

    fn rng() -> SmallRng {
        SmallRng::seed_from_u64(1)
    }

    fn alice() -> SharedSecret {
        SharedSecret::new("org/ns/alice", SECRET, &mut rng()).unwrap()
    }

    /// A token with a right code around any other fields.
    fn sealed(signed: &str) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
        let mac = hmac::sign(&key, signed.as_bytes());
        format!("{signed}:{}", URL_SAFE_NO_PAD.encode(mac))
    }

    fn with_claims(json: &str) -> String {
        sealed(&format!("id:{NOW}:n:{}", URL_SAFE_NO_PAD.encode(json)))
    }

    #[test]
    fn a_token_tells_subject_key_and_time() {
        let (alice, bob) = (alice(), SharedSecret::new("bob", SECRET, &mut rng()).unwrap());
        let token = alice.token(NOW, &mut rng()).unwrap();
        let claims = bob.verify(&token, NOW).unwrap();
        assert_eq!(
            claims,
            Claims {
                subject: alice.subject().to_owned(),
                public_key: alice.key().public_key().clone(),
                issued_at: Some(NOW),
                expires_at: NOW + 3600,
                issuer: None,
            }
        );
    }

    #[test]
    fn the_layout_of_a_token() {
        let alice = alice();
        let token = alice.token(NOW, &mut rng()).unwrap();
        let fields: Vec<&str> = token.split(':').collect();
        assert_eq!(fields.len(), 5);
        assert_eq!(fields[0], alice.subject());
        assert_eq!(fields[1], NOW.to_string());
        assert_eq!(fields[2].len(), 16);
        assert_eq!(fields[3].len(), 135);
        assert_eq!(fields[4].len(), 43);
        let json = URL_SAFE_NO_PAD.decode(fields[3]).unwrap();
        let key = alice.key().public_key().to_base64();
        assert_eq!(json, format!(r#"{{"pubkey":"{key}"}}"#).as_bytes());
    }

    #[test]
    fn the_suffix_and_the_nonce_come_from_the_generator() {
        let mut generator = rng();
        let first = SharedSecret::new("a", SECRET, &mut generator).unwrap();
        let second = SharedSecret::new("a", SECRET, &mut generator).unwrap();
        let again = SharedSecret::new("a", SECRET, &mut rng()).unwrap();
        assert_ne!(first.subject(), second.subject());
        assert_eq!(first.subject(), again.subject());
        let suffix = first.subject().strip_prefix("a_").unwrap();
        assert_eq!(suffix.len(), 8);
        assert!(suffix.chars().all(|c| c.is_ascii_alphanumeric()));

        let tokens = [(); 2].map(|()| first.token(NOW, &mut generator).unwrap());
        assert_ne!(tokens[0], tokens[1]);
        assert_eq!(first.token(NOW, &mut rng()).unwrap(), first.token(NOW, &mut rng()).unwrap());
    }

    #[test]
    fn what_an_identity_needs() {
        let new = |id, secret| SharedSecret::new(id, secret, &mut rng()).map(|_| ());
        assert_eq!(new("org/ns/app", SECRET), Ok(()));
        assert_eq!(new("", SECRET), Err(SharedSecretError::EmptyId));
        assert_eq!(new("a:b", SECRET), Err(SharedSecretError::IdCharacter(':')));
        assert_eq!(new("a b", SECRET), Err(SharedSecretError::IdCharacter(' ')));
        assert_eq!(new("a\u{2003}", SECRET), Err(SharedSecretError::IdCharacter('\u{2003}')));
        assert_eq!(new("a", &SECRET[1..]), Err(SharedSecretError::TooShort(31)));
        // Bytes count, not characters.
        assert_eq!(new("a", &"é".repeat(16)), Ok(()));
    }

    #[test]
    fn nothing_printed_holds_the_secret() {
        let alice = alice();
        assert!(!format!("{alice:?}").contains(SECRET));
        let short = "a secret of thirty-one bytes !!";
        let error = SharedSecret::new("a", short, &mut rng()).unwrap_err();
        assert_eq!(error.to_string(), "the secret has 31 bytes, at least 32 are needed");
        assert!(!format!("{error:?}").contains(short));
    }

    #[test]
    fn the_window_of_time() {
        let alice = alice();
        let token = alice.token(NOW, &mut rng()).unwrap();
        assert!(alice.verify(&token, NOW - 5).is_ok());
        assert_eq!(alice.verify(&token, NOW - 6), Err(VerifyError::FromFuture { ahead: 6 }));
        assert!(alice.verify(&token, NOW + 3600).is_ok());
        assert_eq!(alice.verify(&token, NOW + 3601), Err(VerifyError::Expired { ago: 1 }));
    }

    #[test]
    fn authenticate_overlooks_age_and_nothing_else() {
        let alice = alice();
        let token = alice.token(NOW, &mut rng()).unwrap();
        let claims = alice.authenticate(&token, NOW + 1_000_000).unwrap();
        assert_eq!(claims.expires_at, NOW + 3600);
        assert_eq!(alice.authenticate(&token, NOW - 6), Err(VerifyError::FromFuture { ahead: 6 }));
        let stranger = SharedSecret::new("a", &SECRET.replace('0', "1"), &mut rng()).unwrap();
        assert_eq!(stranger.authenticate(&token, NOW), Err(VerifyError::BadMac));
    }

    #[test]
    fn a_different_secret_is_told_from_everything_else() {
        let stranger = SharedSecret::new("a", &SECRET.replace('0', "1"), &mut rng()).unwrap();
        let token = alice().token(NOW, &mut rng()).unwrap();
        // Also where the clock is wrong as well.
        for now in [NOW, NOW + 4000, 0] {
            assert_eq!(stranger.verify(&token, now), Err(VerifyError::BadMac));
        }
    }

    #[test]
    fn malformed_texts() {
        let alice = alice();
        let token = alice.token(NOW, &mut rng()).unwrap();
        let check = |token: &str, fault| {
            assert_eq!(alice.verify(token, NOW), Err(VerifyError::Malformed(fault)), "{token}");
        };
        check("", "fields");
        check("a:b:c:d", "fields");
        let other = VerifyError::OtherKind { found: A_JWT, expected: A_SECRETS };
        assert_eq!(alice.verify("e30.e30.", NOW), Err(other));
        check(&sealed("id:1:n"), "fields");
        check(&sealed("id:1:n:c:d"), "fields");
        check(&format!("{token}="), "mac");
        check(&format!("{token}A"), "mac");
        check(&format!("{token}AAAA"), "mac");
        check(&token[..token.len() - 1], "mac");
        check(&token[..token.len() - 43], "mac");
        check(&token.replace(':', "::"), "fields");
        for timestamp in ["", "-1", "x", "1.0", " 1", "18446744073709551616"] {
            check(&sealed(&format!("id:{timestamp}:n:")), "timestamp");
        }
        check(&sealed(&format!("id:{NOW}:n:e30=")), "claims");
        check(&sealed(&format!("id:{NOW}:n:+/+/")), "claims");
        check(&with_claims("{"), "claims");
    }

    #[test]
    fn spare_bits_of_the_code_must_be_zero() {
        let alice = alice();
        let token = alice.token(NOW, &mut rng()).unwrap();
        let (text, last) = token.split_at(token.len() - 1);
        // 43 characters carry 258 bits for 256: the last one is a multiple of four.
        let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let index = alphabet.find(last).unwrap();
        assert_eq!(index % 4, 0);
        let spare = format!("{text}{}", &alphabet[index + 1..index + 2]);
        assert_eq!(alice.verify(&spare, NOW), Err(VerifyError::Malformed("mac")));
    }

    #[test]
    fn tokens_without_a_usable_key() {
        let alice = alice();
        for token in [
            sealed(&format!("id:{NOW}:n:")),
            with_claims("{}"),
            with_claims("[]"),
            with_claims("null"),
            with_claims(r#"{"pubkey":1}"#),
        ] {
            assert_eq!(alice.verify(&token, NOW), Err(VerifyError::NoPublicKey));
        }
        assert_eq!(
            alice.verify(&with_claims(r#"{"pubkey":"AAA"}"#), NOW),
            Err(VerifyError::PublicKey(PublicKeyError::Base64))
        );
        assert_eq!(
            alice.verify(&with_claims(r#"{"pubkey":"AAAA"}"#), NOW),
            Err(VerifyError::PublicKey(PublicKeyError::Length(3)))
        );
    }

    #[test]
    fn extreme_times_do_not_overflow() {
        let alice = alice();
        let last = alice.token(u64::MAX, &mut rng()).unwrap();
        assert!(alice.verify(&last, u64::MAX).is_ok());
        assert_eq!(alice.verify(&last, 0), Err(VerifyError::FromFuture { ahead: u64::MAX }));
        let first = alice.token(0, &mut rng()).unwrap();
        assert!(alice.verify(&first, 0).is_ok());
        assert!(matches!(alice.verify(&first, u64::MAX), Err(VerifyError::Expired { .. })));
    }

    /// Something that happens to a text on its way.
    #[derive(Clone, Debug)]
    enum Edit {
        Replace(prop::sample::Index, char),
        Insert(prop::sample::Index, char),
        Remove(prop::sample::Index),
        Swap(prop::sample::Index, prop::sample::Index),
        Repeat(prop::sample::Index, prop::sample::Index),
        Cut(prop::sample::Index),
    }

    fn any_edit() -> impl Strategy<Value = Edit> {
        let index = any::<prop::sample::Index>;
        // Those that a token is made of get further.
        let character = || {
            prop_oneof![3 => "[A-Za-z0-9:_-]", 1 => "."]
                .prop_map(|text: String| text.chars().next().unwrap_or(':'))
        };
        prop_oneof![
            (index(), character()).prop_map(|(at, new)| Edit::Replace(at, new)),
            (index(), character()).prop_map(|(at, new)| Edit::Insert(at, new)),
            index().prop_map(Edit::Remove),
            (index(), index()).prop_map(|(a, b)| Edit::Swap(a, b)),
            (index(), index()).prop_map(|(a, b)| Edit::Repeat(a, b)),
            index().prop_map(Edit::Cut),
        ]
    }

    impl Edit {
        fn apply(&self, text: &mut Vec<char>) {
            let length = text.len().max(1);
            let at = |index: &prop::sample::Index| index.index(length);
            match self {
                _ if text.is_empty() => {}
                Self::Replace(index, new) => {
                    let at = at(index);
                    text[at] = *new;
                }
                Self::Insert(index, new) => text.insert(at(index), *new),
                Self::Remove(index) => {
                    text.remove(at(index));
                }
                Self::Swap(a, b) => text.swap(at(a), at(b)),
                Self::Repeat(a, b) => {
                    let (a, b) = (at(a).min(at(b)), at(a).max(at(b)));
                    text.extend_from_within(a..b);
                }
                Self::Cut(index) => text.truncate(at(index)),
            }
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_verify_panic(text in ".*", now: u64) {
            prop_assert!(alice().verify(&text, now).is_err());
        }

        #[test]
        fn no_sealed_fields_make_verify_panic(fields in prop::collection::vec("[^:]*", 4), now: u64) {
            prop_assert!(alice().verify(&sealed(&fields.join(":")), now).is_err());
        }

        #[test]
        fn an_altered_token_never_verifies(
            seed: u64,
            edits in prop::collection::vec(any_edit(), 1..4),
            now in NOW - 10..NOW + 10,
        ) {
            let alice = alice();
            let token = alice.token(NOW, &mut SmallRng::seed_from_u64(seed)).unwrap();
            let mut altered: Vec<char> = token.chars().collect();
            for edit in edits {
                edit.apply(&mut altered);
            }
            let altered: String = altered.into_iter().collect();
            prop_assume!(altered != token);
            prop_assert!(alice.authenticate(&altered, now).is_err(), "{} is taken", altered);
        }

        #[test]
        fn a_token_verifies_from_any_seed_and_id(id in "[^:\\s]{1,40}", seed: u64, now: u64) {
            let mut generator = SmallRng::seed_from_u64(seed);
            let identity = SharedSecret::new(&id, SECRET, &mut generator).unwrap();
            let token = identity.token(now, &mut generator).unwrap();
            prop_assert_eq!(identity.verify(&token, now).unwrap().subject, identity.subject());
        }
    }
}
