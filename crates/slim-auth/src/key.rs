//! Key pairs, public keys and signatures.

use std::{fmt, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use p256::{elliptic_curve::sec1::ToEncodedPoint as _, pkcs8::DecodePrivateKey as _};
use ring::{
    rand::SystemRandom,
    signature::{
        self, ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ED25519, EcdsaKeyPair,
        KeyPair as _,
    },
};
use rustls_pki_types::{PrivateKeyDer, pem::PemObject as _};
use thiserror::Error;
use zeroize::Zeroizing;

/// A P-256 key pair. Clones share one copy of the private key.
#[derive(Clone)]
pub struct SigningKey(Arc<Pair>);

struct Pair {
    private: EcdsaKeyPair,
    public: PublicKey,
}

impl SigningKey {
    /// Draws a new key pair from the operating system's random numbers.
    ///
    /// # Errors
    ///
    /// [`SigningKeyError::Random`] if the operating system gives none.
    pub fn generate() -> Result<Self, SigningKeyError> {
        let document =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new())
                .map_err(|_| SigningKeyError::Random)?;
        Self::from_pkcs8(document.as_ref())
    }

    /// A new P-256 private key in PEM, as [`SigningKey::from_pem`] reads it.
    ///
    /// # Errors
    ///
    /// [`SigningKeyError::Random`] if the operating system gives no random numbers.
    pub fn new_pem() -> Result<Zeroizing<String>, SigningKeyError> {
        let document =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new())
                .map_err(|_| SigningKeyError::Random)?;
        Ok(private_pem(document.as_ref()))
    }

    /// Reads a P-256 key pair from PKCS#8 DER that includes the public key.
    ///
    /// # Errors
    ///
    /// [`SigningKeyError::Rejected`] if it is anything else.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, SigningKeyError> {
        let private =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der, &SystemRandom::new())
                .map_err(|rejected| SigningKeyError::Rejected(rejected.to_string()))?;
        let public = PublicKey(private.public_key().as_ref().into());
        Ok(Self(Arc::new(Pair { private, public })))
    }

    /// Reads a P-256 private key from PEM: PKCS#8, or the older form `EC PRIVATE KEY`.
    ///
    /// # Errors
    ///
    /// [`SigningKeyError::Rejected`] if it is anything else; never shows any of the text.
    pub fn from_pem(pem: &str) -> Result<Self, SigningKeyError> {
        let rejected = |reason: &str| SigningKeyError::Rejected(reason.to_owned());
        let der = PrivateKeyDer::from_pem_slice(pem.as_bytes())
            .map_err(|_| rejected("no section PRIVATE KEY in the PEM text"))?;
        let key = match &der {
            PrivateKeyDer::Pkcs8(der) => {
                p256::SecretKey::from_pkcs8_der(der.secret_pkcs8_der()).ok()
            }
            PrivateKeyDer::Sec1(der) => p256::SecretKey::from_sec1_der(der.secret_sec1_der()).ok(),
            _ => None,
        };
        let key = key.ok_or_else(|| rejected("another kind of key"))?;
        let public = key.public_key().to_encoded_point(false);
        let private = EcdsaKeyPair::from_private_key_and_public_key(
            &ECDSA_P256_SHA256_ASN1_SIGNING,
            &Zeroizing::new(key.to_bytes().to_vec()),
            public.as_bytes(),
            &SystemRandom::new(),
        )
        .map_err(|reason| rejected(&reason.to_string()))?;
        let public = PublicKey(public.as_bytes().into());
        Ok(Self(Arc::new(Pair { private, public })))
    }

    /// The public half: an uncompressed point of 65 bytes.
    #[must_use]
    pub fn public_key(&self) -> &PublicKey {
        &self.0.public
    }

    /// Signs with ECDSA over SHA-256 and returns ASN.1 DER, 68 to 72 bytes as a rule.
    ///
    /// Two signatures of one message differ: the nonce is drawn anew.
    ///
    /// # Errors
    ///
    /// [`SignError`] if the operating system gives no random numbers.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let signature =
            self.0.private.sign(&SystemRandom::new(), message).map_err(|_| SignError)?;
        Ok(signature.as_ref().to_vec())
    }
}

/// PKCS#8 in PEM.
pub(crate) fn private_pem(der: &[u8]) -> Zeroizing<String> {
    let body = Zeroizing::new(STANDARD.encode(der));
    let mut pem = Zeroizing::new(String::with_capacity(512));
    pem.push_str("-----BEGIN PRIVATE KEY-----\n");
    // Base64 is ASCII, so every place is between two characters.
    for start in (0..body.len()).step_by(64) {
        pem.push_str(&body[start..body.len().min(start + 64)]);
        pem.push('\n');
    }
    pem.push_str("-----END PRIVATE KEY-----\n");
    pem
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SigningKey").field(self.public_key()).finish()
    }
}

/// A public key as it stands in tokens and group leaves.
///
/// The algorithm follows from the length: 65 bytes are an uncompressed and 33 bytes
/// a compressed P-256 point (SEC 1 §2.3.3), 32 bytes an Ed25519 key. Keys are equal if
/// their bytes are; the two forms of one point are not.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(Arc<[u8]>);

impl PublicKey {
    /// Takes a key of one of the three lengths.
    ///
    /// # Errors
    ///
    /// [`PublicKeyError`] if the length or the form of the point is none of them.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, PublicKeyError> {
        match (bytes.len(), bytes.first()) {
            (32, _) | (65, Some(4)) | (33, Some(2 | 3)) => Ok(Self(bytes.into())),
            (33 | 65, _) => Err(PublicKeyError::Point),
            (length, _) => Err(PublicKeyError::Length(length)),
        }
    }

    /// Reads the text form: standard base64 with padding and without spare bits, so
    /// that equal keys have equal texts.
    ///
    /// # Errors
    ///
    /// [`PublicKeyError`] if the text is anything else, or the key is.
    pub fn from_base64(text: &str) -> Result<Self, PublicKeyError> {
        let bytes = STANDARD.decode(text).map_err(|_| PublicKeyError::Base64)?;
        Self::from_bytes(&bytes)
    }

    /// The bytes as they were given.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The text form that [`PublicKey::from_base64`] reads.
    #[must_use]
    pub fn to_base64(&self) -> String {
        STANDARD.encode(&self.0)
    }

    /// Checks a signature of `message`: for P-256 ECDSA over SHA-256 in ASN.1 DER with
    /// any `s`, for Ed25519 the 64 bytes of RFC 8032.
    ///
    /// # Errors
    ///
    /// [`BadSignature`], also if the key is no point of the curve.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        let check = |algorithm: &'static dyn signature::VerificationAlgorithm, key: &[u8]| {
            signature::UnparsedPublicKey::new(algorithm, key)
                .verify(message, signature)
                .map_err(|_| BadSignature)
        };
        match self.0.len() {
            32 => check(&ED25519, &self.0),
            33 => {
                let point = p256::PublicKey::from_sec1_bytes(&self.0).map_err(|_| BadSignature)?;
                check(&ECDSA_P256_SHA256_ASN1, point.to_encoded_point(false).as_bytes())
            }
            _ => check(&ECDSA_P256_SHA256_ASN1, &self.0),
        }
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.to_base64())
    }
}

/// Why a key pair could not be had.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SigningKeyError {
    /// The operating system gave no random numbers.
    #[error("no random numbers from the operating system")]
    Random,
    /// The document is no P-256 key pair in PKCS#8; the text names the fault.
    #[error("not a P-256 key pair in PKCS#8: {0}")]
    Rejected(String),
}

/// Why bytes or a text are no public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PublicKeyError {
    /// Not strict standard base64 with padding.
    #[error("not base64")]
    Base64,
    /// No key is this long.
    #[error("{0} bytes, not 65, 33 or 32")]
    Length(usize),
    /// The first byte does not fit the length.
    #[error("not an encoded point")]
    Point,
}

/// The operating system gave no random numbers to sign with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("no random numbers from the operating system")]
pub struct SignError;

/// A signature was not made by this key over this message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("signature does not verify")]
pub struct BadSignature;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ring::signature::Ed25519KeyPair;

    use super::*;

    #[test]
    fn a_signature_verifies_for_its_key_and_message_only() {
        let key = SigningKey::generate().unwrap();
        let signature = key.sign(b"message").unwrap();
        assert_eq!(signature[0], 0x30, "DER sequence");
        assert_eq!(key.public_key().verify(b"message", &signature), Ok(()));
        assert_eq!(key.public_key().verify(b"messagf", &signature), Err(BadSignature));
        let other = SigningKey::generate().unwrap();
        assert_eq!(other.public_key().verify(b"message", &signature), Err(BadSignature));
    }

    #[test]
    fn a_compressed_point_verifies_the_same_signatures() {
        let key = SigningKey::generate().unwrap();
        let full = key.public_key().as_bytes();
        let mut short = vec![2 + (full[64] & 1)];
        short.extend_from_slice(&full[1..33]);
        let compressed = PublicKey::from_bytes(&short).unwrap();
        assert_ne!(&compressed, key.public_key());
        let signature = key.sign(b"message").unwrap();
        assert_eq!(compressed.verify(b"message", &signature), Ok(()));
        short[0] ^= 1;
        let negated = PublicKey::from_bytes(&short).unwrap();
        assert_eq!(negated.verify(b"message", &signature), Err(BadSignature));
    }

    #[test]
    fn ed25519_signatures_are_verified() {
        // RFC 8032 §7.1, test 2.
        let key = PublicKey::from_bytes(
            &hex::decode("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
                .unwrap(),
        )
        .unwrap();
        let signature = hex::decode(
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
             085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        )
        .unwrap();
        assert_eq!(key.verify(&[0x72], &signature), Ok(()));
        assert_eq!(key.verify(&[0x73], &signature), Err(BadSignature));
    }

    #[test]
    fn points_off_the_curve_verify_nothing() {
        let key = SigningKey::generate().unwrap();
        let signature = key.sign(b"").unwrap();
        for prefix_and_length in [(4, 65), (2, 33)] {
            let mut bytes = vec![0xff; prefix_and_length.1];
            bytes[0] = prefix_and_length.0;
            let off = PublicKey::from_bytes(&bytes).unwrap();
            assert_eq!(off.verify(b"", &signature), Err(BadSignature));
        }
    }

    #[test]
    fn lengths_and_prefixes_of_public_keys() {
        let key = |prefix: u8, length: usize| {
            let mut bytes = vec![0; length];
            if let Some(first) = bytes.first_mut() {
                *first = prefix;
            }
            PublicKey::from_bytes(&bytes)
        };
        for (prefix, length) in [(4, 65), (2, 33), (3, 33), (0, 32), (255, 32)] {
            assert!(key(prefix, length).is_ok(), "{prefix} {length}");
        }
        assert_eq!(key(2, 65), Err(PublicKeyError::Point));
        assert_eq!(key(4, 33), Err(PublicKeyError::Point));
        for length in [0, 31, 34, 64, 66] {
            assert_eq!(key(4, length), Err(PublicKeyError::Length(length)));
        }
    }

    #[test]
    fn the_text_form_is_strict() {
        let key = SigningKey::generate().unwrap().public_key().clone();
        let text = key.to_base64();
        assert_eq!(PublicKey::from_base64(&text), Ok(key));
        let unpadded = text.trim_end_matches('=');
        assert_eq!(PublicKey::from_base64(unpadded), Err(PublicKeyError::Base64));
        assert_eq!(PublicKey::from_base64("-_-_"), Err(PublicKeyError::Base64));
        assert_eq!(PublicKey::from_base64("AAAA"), Err(PublicKeyError::Length(3)));
        // 65 bytes leave four spare bits before the padding.
        let spare =
            unpadded.char_indices().map(|(i, c)| if i == 86 { 'B' } else { c }).collect::<String>()
                + "=";
        assert_eq!(PublicKey::from_base64(&spare), Err(PublicKeyError::Base64));
    }

    #[test]
    fn pkcs8_round_trip_and_refusal() {
        let document =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new())
                .unwrap();
        let first = SigningKey::from_pkcs8(document.as_ref()).unwrap();
        let second = SigningKey::from_pkcs8(document.as_ref()).unwrap();
        let signature = first.sign(b"x").unwrap();
        assert_eq!(second.public_key().verify(b"x", &signature), Ok(()));

        assert!(matches!(SigningKey::from_pkcs8(b"no key"), Err(SigningKeyError::Rejected(_))));
        let pem = SigningKey::new_pem().unwrap();
        assert_eq!(pem.lines().map(str::len).max(), Some(64));
        let [first, second] = [(); 2].map(|()| SigningKey::from_pem(&pem).unwrap());
        assert_eq!(first.public_key(), second.public_key());

        let edwards = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        assert!(matches!(
            SigningKey::from_pkcs8(edwards.as_ref()),
            Err(SigningKeyError::Rejected(_))
        ));
    }

    #[test]
    fn debug_shows_the_public_key_only() {
        let key = SigningKey::generate().unwrap();
        let expected = format!("SigningKey(PublicKey({}))", key.public_key().to_base64());
        assert_eq!(format!("{key:?}"), expected);
    }

    proptest! {
        #[test]
        fn nothing_panics_on_foreign_bytes(key: Vec<u8>, length in 0..4usize, message: Vec<u8>, signature: Vec<u8>) {
            let mut key = key;
            if let Some(&(prefix, length)) = [(0, 32), (2, 33), (4, 65)].get(length) {
                key.resize(length, 7);
                if prefix != 0 { key[0] = prefix; }
            }
            if let Ok(key) = PublicKey::from_bytes(&key) {
                prop_assert_eq!(key.verify(&message, &signature), Err(BadSignature));
            }
        }

        #[test]
        fn text_and_key_are_one_to_one(text in "B[A-P][A-Za-z0-9+/]{85}=|.*") {
            if let Ok(key) = PublicKey::from_base64(&text) {
                prop_assert_eq!(key.to_base64(), text);
            }
        }
    }
}
