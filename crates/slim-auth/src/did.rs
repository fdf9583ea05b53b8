//! Identities that are keys (did:key), and lists of those that are trusted.

use std::collections::BTreeSet;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::{
    jwt::{JwtKey, JwtKeyError, KeySet},
    key::SignError,
    shown::Shown,
};

const PREFIX: &str = "did:key:z";
/// Multicodec of an Ed25519 public key.
const ED25519: [u8; 2] = [0xed, 0x01];

/// The did:key of an Ed25519 public key.
#[must_use]
pub fn did_key(public: &[u8; 32]) -> String {
    let bytes = [&ED25519[..], public].concat();
    format!("{PREFIX}{}", bs58::encode(bytes).into_string())
}

/// The Ed25519 public key that a did:key is.
///
/// # Errors
///
/// [`DidError`] if the text is none, or one of another kind of key.
pub fn parse_did_key(text: &str) -> Result<[u8; 32], DidError> {
    let refused = || DidError(Shown::new(text));
    let encoded = text.strip_prefix(PREFIX).ok_or_else(refused)?;
    // 34 bytes make at most 47 characters.
    let mut bytes = [0; 34];
    if encoded.len() > 47 || bs58::decode(encoded).onto(&mut bytes) != Ok(34) {
        return Err(refused());
    }
    let (codec, key) = bytes.split_at(2);
    let key = key.try_into().map_err(|_| refused())?;
    // One key, one text: base58 has only one form, so this is for safety.
    if codec == ED25519 && did_key(&key) == text { Ok(key) } else { Err(refused()) }
}

/// A new Ed25519 private key in PEM (PKCS#8), as [`crate::JwtIdentity::did`] takes it.
///
/// # Errors
///
/// [`SignError`] if the operating system gives no random numbers.
pub fn new_did_pem() -> Result<Zeroizing<String>, SignError> {
    crate::jwt::new_ed25519_pem()
}

/// Those who are trusted: a JWKS with a key for each, which the reference reads too. An
/// Ed25519 key speaks for its did:key, any other for the subject that is its id. What is
/// not understood is kept as it is.
#[derive(Debug, Clone, PartialEq)]
pub struct TrustList {
    document: Value,
}

impl Default for TrustList {
    fn default() -> Self {
        Self { document: json!({ "keys": [] }) }
    }
}

impl TrustList {
    /// Reads a JWKS.
    ///
    /// # Errors
    ///
    /// [`JwtKeyError`] if it is none.
    pub fn read(text: &str) -> Result<Self, JwtKeyError> {
        if text.len() > KeySet::MAX_DOCUMENT {
            return Err(JwtKeyError::TooLarge(KeySet::MAX_DOCUMENT));
        }
        let document: Value =
            serde_json::from_str(text).map_err(|_| JwtKeyError::Json("a JWKS"))?;
        if !document.get("keys").is_some_and(Value::is_array) {
            return Err(JwtKeyError::Json("a JWKS"));
        }
        Ok(Self { document })
    }

    /// The did:keys and subjects that it trusts, in the order of their texts.
    #[must_use]
    pub fn subjects(&self) -> BTreeSet<String> {
        self.keys().iter().filter_map(subject_of).collect()
    }

    /// Trusts a key to speak for this subject and nobody else, in place of the one that did
    /// so before; false if it does already.
    ///
    /// # Errors
    ///
    /// [`JwtKeyError::Purpose`] if the key is a secret, which does not belong into a list.
    pub fn add_key(&mut self, subject: &str, key: JwtKey) -> Result<bool, JwtKeyError> {
        let jwk = key.with_id(subject).to_jwk();
        let jwk = jwk.ok_or_else(|| JwtKeyError::Purpose(Shown::new("secret")))?;
        if self.keys().contains(&jwk) {
            return Ok(false);
        }
        self.keys_mut().retain(|known| !has_id(known, subject));
        self.keys_mut().push(jwk);
        Ok(true)
    }

    /// Trusts a did:key; false if it is trusted already.
    ///
    /// # Errors
    ///
    /// [`DidError`] if it is none.
    pub fn add(&mut self, did: &str) -> Result<bool, DidError> {
        let public = parse_did_key(did)?;
        if self.subjects().contains(did) {
            return Ok(false);
        }
        let key = json!({
            "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig",
            "kid": did, "x": URL_SAFE_NO_PAD.encode(public),
        });
        self.keys_mut().push(key);
        Ok(true)
    }

    /// Trusts a did:key or a subject no longer; false if it was not trusted.
    pub fn remove(&mut self, subject: &str) -> bool {
        let before = self.keys().len();
        let is_it = |key: &Value| subject_of(key).as_deref() == Some(subject);
        self.keys_mut().retain(|key| !is_it(key) && !has_id(key, subject));
        self.keys().len() < before
    }

    /// What verifies with it. A list of nobody verifies nothing.
    ///
    /// # Errors
    ///
    /// [`JwtKeyError`] if it holds keys, but none that can be used.
    pub fn key_set(&self) -> Result<KeySet, JwtKeyError> {
        if self.keys().is_empty() {
            return Ok(KeySet::default());
        }
        KeySet::from_jwks(&self.document.to_string())
    }

    /// The text of the document, as [`TrustList::read`] takes it.
    #[must_use]
    pub fn to_text(&self) -> String {
        format!("{:#}\n", self.document)
    }

    fn keys(&self) -> &[Value] {
        self.document.get("keys").and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    fn keys_mut(&mut self) -> &mut Vec<Value> {
        match self.document.get_mut("keys") {
            Some(Value::Array(keys)) => keys,
            _ => unreachable!("checked when it was read"),
        }
    }
}

/// Whom a key of the list speaks for.
fn subject_of(key: &Value) -> Option<String> {
    let set = KeySet::from_jwk(&key.to_string(), None).ok()?;
    let key = set.iter().next()?;
    match key.ed25519() {
        Some(public) => Some(did_key(&public)),
        None => key.id().map(str::to_owned),
    }
}

fn has_id(key: &Value, id: &str) -> bool {
    key.get("kid").and_then(Value::as_str) == Some(id)
}

/// Not the did:key of an Ed25519 key.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0} is not the did:key of an Ed25519 key, did:key:z6Mk…")]
pub struct DidError(Shown);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Algorithm;

    #[test]
    fn a_known_did() {
        // W3C did:key test vectors: this text and this key belong together.
        let did = "did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp";
        let public = parse_did_key(did).unwrap();
        let expected = "3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29";
        assert_eq!(hex::encode(public), expected);
        assert_eq!(did_key(&public), did);
    }

    #[test]
    fn what_is_no_did() {
        let good = did_key(&[7; 32]);
        for bad in [
            "",
            "did:key:",
            "did:key:z",
            "did:web:example.org",
            &good[1..],
            &good[..good.len() - 1],
            &format!("{good}1"),
            &good.replace(":z", ":Z"),
            // X25519.
            "did:key:z6LSbysY2xFMRpGMhb7tFTLMpeuPRaqaWM1yECx2AtzE3KCc",
            &format!("did:key:z{}", "1".repeat(100_000)),
        ] {
            assert!(parse_did_key(bad).is_err(), "{bad:.60}");
        }
    }

    #[test]
    fn a_list_of_the_trusted() {
        let (alice, bob) = (did_key(&[1; 32]), did_key(&[2; 32]));
        let mut list = TrustList::default();
        assert!(list.key_set().unwrap().is_empty());
        assert_eq!(list.add(&alice), Ok(true));
        assert_eq!(list.add(&alice), Ok(false));
        assert_eq!(list.add(&bob), Ok(true));
        assert!(list.add("did:key:nobody").is_err());
        let mut read = TrustList::read(&list.to_text()).unwrap();
        assert_eq!(read, list);
        assert_eq!(read.subjects(), BTreeSet::from([alice.clone(), bob.clone()]));
        assert_eq!(read.key_set().unwrap().get(&bob).unwrap().ed25519(), Some([2; 32]));
        assert!(read.remove(&alice));
        assert!(!read.remove(&alice));
        assert_eq!(read.subjects(), BTreeSet::from([bob]));
    }

    #[test]
    fn keys_of_other_kinds_speak_for_a_subject() {
        let key = |text| JwtKey::from_any_pem(text).unwrap();
        let p256 = key(include_str!("../tests/keys/p256.pub.pem"));
        let rsa = key(include_str!("../tests/keys/rsa.pem"));
        let mut list = TrustList::default();
        list.add(&did_key(&[1; 32])).unwrap();
        assert_eq!(list.add_key("alice", p256.clone()), Ok(true));
        assert_eq!(list.add_key("alice", p256), Ok(false));
        assert_eq!(list.add_key("bob", rsa.clone()), Ok(true));
        assert_eq!(
            list.subjects(),
            BTreeSet::from([did_key(&[1; 32]), "alice".into(), "bob".into()])
        );
        assert!(!list.to_text().contains("PRIVATE") && !list.to_text().contains("\"d\""));
        // One key for each: the new one takes the place of the old one.
        assert_eq!(list.add_key("alice", rsa), Ok(true));
        assert_eq!(list.key_set().unwrap().len(), 3);
        assert!(list.remove("alice") && !list.remove("alice"));
        assert_eq!(list.key_set().unwrap().len(), 2);
        let secret = JwtKey::from_pem(Algorithm::Hs256, &"x".repeat(40)).unwrap();
        assert!(list.add_key("carol", secret).is_err());
        assert!(JwtKey::from_any_pem("no key").is_err());
    }

    #[test]
    fn a_list_keeps_what_it_does_not_understand() {
        let text = r#"{"keys":[{"kty":"mystery","kid":"a"}],"note":"keep me"}"#;
        let mut list = TrustList::read(text).unwrap();
        assert!(list.subjects().is_empty());
        list.add(&did_key(&[1; 32])).unwrap();
        let text = list.to_text();
        assert!(text.contains("mystery") && text.contains("keep me"), "{text}");
        for bad in ["", "[]", "{}", r#"{"keys":1}"#] {
            assert_eq!(TrustList::read(bad), Err(JwtKeyError::Json("a JWKS")), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_key_has_a_did(public: [u8; 32]) {
            prop_assert_eq!(parse_did_key(&did_key(&public)), Ok(public));
        }

        #[test]
        fn no_text_makes_parsing_panic(text in ".*") {
            parse_did_key(&text).ok();
            parse_did_key(&format!("{PREFIX}{text}")).ok();
            TrustList::read(&text).ok();
        }
    }
}
