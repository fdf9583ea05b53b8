//! Keys that sign tokens, and keys that verify them. Each has one algorithm.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use p256::pkcs8::{
    DecodePrivateKey as _, ObjectIdentifier,
    der::{Decode as _, Reader as _, SliceReader, asn1::UintRef},
    spki::SubjectPublicKeyInfoRef,
};
use ring::{
    hmac,
    rand::SystemRandom,
    rsa::PublicKeyComponents,
    signature::{
        self, ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED,
        ECDSA_P384_SHA384_FIXED_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
        RsaEncoding, RsaKeyPair, RsaParameters, UnparsedPublicKey,
    },
};
use rustls_pki_types::{PrivateKeyDer, SubjectPublicKeyInfoDer, pem::PemObject as _};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use thiserror::Error;
use zeroize::Zeroizing;

use super::{
    algorithm::{Algorithm, Family},
    token::unsigned,
};
use crate::{
    key::{BadSignature, SignError, private_pem},
    shown::Shown,
};

/// The shortest secret for HS256, HS384 and HS512, in bytes.
const MIN_SECRET: usize = 32;
/// The smallest RSA modulus, in bytes.
const MIN_MODULUS: usize = 256;

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const ED: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// Signs tokens.
pub struct JwtSigningKey {
    algorithm: Algorithm,
    signer: Signer,
}

enum Signer {
    Secret(Zeroizing<Vec<u8>>),
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

impl JwtSigningKey {
    /// Reads a private key in PEM: PKCS#8, or the older forms that say `EC PRIVATE KEY`
    /// or `RSA PRIVATE KEY`. RSA from 2048 to 4096 bits. For HS256 and its kind the
    /// text itself is the secret, all of it, and needs 32 bytes.
    ///
    /// # Errors
    ///
    /// [`JwtKeyError`], which never shows any of the text.
    pub fn from_pem(algorithm: Algorithm, pem: &str) -> Result<Self, JwtKeyError> {
        let family = algorithm.family();
        if family == Family::Secret {
            return Ok(Self { algorithm, signer: Signer::Secret(secret(pem)?) });
        }
        let der = PrivateKeyDer::from_pem_slice(pem.as_bytes())
            .map_err(|_| JwtKeyError::NoSection("PRIVATE KEY"))?;
        let not = || JwtKeyError::Kind { algorithm, needed: family.to_string() };
        let rejected = |reason: ring::error::KeyRejected| match reason.to_string() {
            reason if reason == "WrongAlgorithm" => not(),
            reason => JwtKeyError::Rejected(reason),
        };
        let signer = match (family, &der) {
            (Family::P256, PrivateKeyDer::Pkcs8(der)) => p256_signer(
                &p256::SecretKey::from_pkcs8_der(der.secret_pkcs8_der()).map_err(|_| not())?,
            )?,
            (Family::P256, PrivateKeyDer::Sec1(der)) => p256_signer(
                &p256::SecretKey::from_sec1_der(der.secret_sec1_der()).map_err(|_| not())?,
            )?,
            (Family::P384, PrivateKeyDer::Pkcs8(der)) => p384_signer(
                &p384::SecretKey::from_pkcs8_der(der.secret_pkcs8_der()).map_err(|_| not())?,
            )?,
            (Family::P384, PrivateKeyDer::Sec1(der)) => p384_signer(
                &p384::SecretKey::from_sec1_der(der.secret_sec1_der()).map_err(|_| not())?,
            )?,
            (Family::Rsa, PrivateKeyDer::Pkcs8(der)) => {
                Signer::Rsa(RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).map_err(rejected)?)
            }
            (Family::Rsa, PrivateKeyDer::Pkcs1(der)) => {
                Signer::Rsa(RsaKeyPair::from_der(der.secret_pkcs1_der()).map_err(rejected)?)
            }
            (Family::Ed25519, PrivateKeyDer::Pkcs8(der)) => Signer::Ed(
                Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der())
                    .map_err(rejected)?,
            ),
            _ => return Err(not()),
        };
        Ok(Self { algorithm, signer })
    }

    /// Reads a private key in PEM of whatever kind, and signs in the usual way of its
    /// kind: ES256, ES384, EdDSA, or RS256.
    ///
    /// # Errors
    ///
    /// [`JwtKeyError`], which never shows any of the text.
    pub fn from_any_pem(pem: &str) -> Result<Self, JwtKeyError> {
        let usual = [Algorithm::Es256, Algorithm::Es384, Algorithm::EdDsa, Algorithm::Rs256];
        let mut keys = usual.into_iter().map(|algorithm| Self::from_pem(algorithm, pem));
        let last = keys.next_back();
        keys.find_map(Result::ok).map_or_else(|| last.expect("there are four"), Ok)
    }

    /// How it signs.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The key that verifies what this one signs; under HS256 and its kind it is the
    /// same secret.
    #[must_use]
    pub fn verifying_key(&self) -> JwtKey {
        let material = match &self.signer {
            Signer::Secret(secret) => Material::Secret(secret.clone()),
            Signer::Rsa(pair) => {
                let PublicKeyComponents { n, e } =
                    PublicKeyComponents::<Vec<u8>>::from(pair.public());
                Material::Rsa { n: n.into(), e: e.into() }
            }
            Signer::Ec(pair) => Material::Raw(pair.public_key().as_ref().into()),
            Signer::Ed(pair) => Material::Raw(pair.public_key().as_ref().into()),
        };
        JwtKey { algorithm: self.algorithm, material, id: None, domain: None }
    }

    /// A token that says this, as an issuer makes them, with `key_id` in its header.
    ///
    /// # Errors
    ///
    /// [`SignError`] if the operating system gives no random numbers.
    pub fn sign_claims(
        &self,
        key_id: &str,
        claims: &Map<String, Value>,
    ) -> Result<String, SignError> {
        let header = json!({ "typ": "JWT", "alg": self.algorithm.as_str(), "kid": key_id });
        let mut token = unsigned(&header, claims);
        let signature = self.sign(token.as_bytes())?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }

    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let random = SystemRandom::new();
        match &self.signer {
            Signer::Secret(secret) => {
                let key = hmac::Key::new(hmac_algorithm(self.algorithm), secret);
                Ok(hmac::sign(&key, message).as_ref().to_vec())
            }
            Signer::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                let encoding = rsa_encoding(self.algorithm);
                pair.sign(encoding, &random, message, &mut signature).map_err(|_| SignError)?;
                Ok(signature)
            }
            Signer::Ec(pair) => {
                let signature = pair.sign(&random, message).map_err(|_| SignError)?;
                Ok(signature.as_ref().to_vec())
            }
            Signer::Ed(pair) => Ok(pair.sign(message).as_ref().to_vec()),
        }
    }
}

/// Modulus and exponent of an `RSAPublicKey` (RFC 8017 §A.1.1).
fn rsa_public(der: &[u8]) -> Option<Material> {
    let mut reader = SliceReader::new(der).ok()?;
    let (n, e) =
        reader.sequence(|reader| Ok((UintRef::decode(reader)?, UintRef::decode(reader)?))).ok()?;
    Some(Material::Rsa { n: n.as_bytes().into(), e: e.as_bytes().into() })
}

fn p256_signer(key: &p256::SecretKey) -> Result<Signer, JwtKeyError> {
    use p256::elliptic_curve::sec1::ToEncodedPoint as _;
    let public = key.public_key().to_encoded_point(false);
    let private = Zeroizing::new(key.to_bytes().to_vec());
    ec_signer(&ECDSA_P256_SHA256_FIXED_SIGNING, &private, public.as_bytes())
}

fn p384_signer(key: &p384::SecretKey) -> Result<Signer, JwtKeyError> {
    use p384::elliptic_curve::sec1::ToEncodedPoint as _;
    let public = key.public_key().to_encoded_point(false);
    let private = Zeroizing::new(key.to_bytes().to_vec());
    ec_signer(&ECDSA_P384_SHA384_FIXED_SIGNING, &private, public.as_bytes())
}

fn ec_signer(
    algorithm: &'static signature::EcdsaSigningAlgorithm,
    private: &[u8],
    public: &[u8],
) -> Result<Signer, JwtKeyError> {
    let random = SystemRandom::new();
    EcdsaKeyPair::from_private_key_and_public_key(algorithm, private, public, &random)
        .map(Signer::Ec)
        .map_err(rejected)
}

impl fmt::Debug for JwtSigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtSigningKey").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

/// Verifies tokens.
#[derive(Clone)]
pub struct JwtKey {
    algorithm: Algorithm,
    material: Material,
    id: Option<String>,
    /// The SPIFFE trust domain whose document it came from.
    domain: Option<String>,
}

#[derive(Clone)]
enum Material {
    Secret(Zeroizing<Vec<u8>>),
    /// Big-endian, without leading zeros.
    Rsa {
        n: Box<[u8]>,
        e: Box<[u8]>,
    },
    /// An uncompressed point, or 32 bytes of Ed25519.
    Raw(Box<[u8]>),
}

impl JwtKey {
    /// Reads a public key in PEM, `PUBLIC KEY`. RSA from 2048 to 8192 bits. For HS256 and
    /// its kind the text itself is the secret, all of it, and needs 32 bytes.
    ///
    /// # Errors
    ///
    /// [`JwtKeyError`], which never shows any of the text.
    pub fn from_pem(algorithm: Algorithm, pem: &str) -> Result<Self, JwtKeyError> {
        let family = algorithm.family();
        let material = if family == Family::Secret {
            // Somebody who gives a public key for a shared secret means something else,
            // and everybody who has that key could sign.
            if pem.contains("-----BEGIN ") {
                return Err(JwtKeyError::Kind { algorithm, needed: family.to_string() });
            }
            Material::Secret(secret(pem)?)
        } else {
            let der = SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes())
                .map_err(|_| JwtKeyError::NoSection("PUBLIC KEY"))?;
            let not = || JwtKeyError::Kind { algorithm, needed: family.to_string() };
            let info = SubjectPublicKeyInfoRef::try_from(&*der).map_err(|_| not())?;
            let key = info.subject_public_key.as_bytes().ok_or_else(not)?;
            let curve = info.algorithm.parameters_oid().ok();
            match (family, info.algorithm.oid, curve) {
                (Family::Rsa, RSA, _) => rsa_public(key).ok_or_else(not)?,
                (Family::P256, EC, Some(P256))
                | (Family::P384, EC, Some(P384))
                | (Family::Ed25519, ED, _) => Material::Raw(key.into()),
                _ => return Err(not()),
            }
        };
        Self { algorithm, material, id: None, domain: None }.checked()
    }

    /// Reads the public half of a private key in PEM, or a public key, of whatever kind. It
    /// verifies in the usual way of its kind: ES256, ES384, EdDSA, or RS256.
    ///
    /// # Errors
    ///
    /// [`JwtKeyError`], which never shows any of the text.
    pub fn from_any_pem(pem: &str) -> Result<Self, JwtKeyError> {
        if pem.contains("PRIVATE KEY") {
            return Ok(JwtSigningKey::from_any_pem(pem)?.verifying_key());
        }
        let usual = [Algorithm::Es256, Algorithm::Es384, Algorithm::EdDsa, Algorithm::Rs256];
        let mut keys = usual.into_iter().map(|algorithm| Self::from_pem(algorithm, pem));
        let last = keys.next_back();
        keys.find_map(Result::ok).map_or_else(|| last.expect("there are four"), Ok)
    }

    /// An Ed25519 key, for EdDSA.
    #[must_use]
    pub fn from_ed25519(key: [u8; 32]) -> Self {
        let material = Material::Raw(key.into());
        Self { algorithm: Algorithm::EdDsa, material, id: None, domain: None }
    }

    /// The same key with an id, by which tokens choose it.
    #[must_use]
    pub fn with_id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    pub(super) fn in_domain(mut self, domain: &str) -> Self {
        self.domain = Some(domain.to_owned());
        self
    }

    /// How tokens have to be signed.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// By which tokens choose it.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    pub(super) fn is_secret(&self) -> bool {
        matches!(self.material, Material::Secret(_))
    }

    pub(super) fn domain(&self) -> Option<&str> {
        self.domain.as_deref()
    }

    /// The 32 bytes, if it is an Ed25519 key.
    #[must_use]
    pub fn ed25519(&self) -> Option<[u8; 32]> {
        match &self.material {
            Material::Raw(key) if self.algorithm == Algorithm::EdDsa => (**key).try_into().ok(),
            _ => None,
        }
    }

    /// As it stands in a JWKS; `None` for a secret, which does not belong there.
    #[must_use]
    pub fn to_jwk(&self) -> Option<Value> {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let mut jwk = match (&self.material, self.algorithm.family()) {
            (Material::Secret(_), _) => return None,
            (Material::Rsa { n, e }, _) => json!({ "kty": "RSA", "n": text(n), "e": text(e) }),
            (Material::Raw(key), Family::Ed25519) => {
                json!({ "kty": "OKP", "crv": "Ed25519", "x": text(key) })
            }
            (Material::Raw(point), family) => {
                let (x, y) = point[1..].split_at(point.len() / 2);
                let curve = if family == Family::P384 { "P-384" } else { "P-256" };
                json!({ "kty": "EC", "crv": curve, "x": text(x), "y": text(y) })
            }
        };
        jwk["alg"] = json!(self.algorithm.as_str());
        jwk["use"] = json!("sig");
        if let Some(id) = &self.id {
            jwk["kid"] = json!(id);
        }
        Some(jwk)
    }

    pub(super) fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        match &self.material {
            Material::Secret(secret) => {
                let key = hmac::Key::new(hmac_algorithm(self.algorithm), secret);
                hmac::verify(&key, message, signature)
            }
            Material::Rsa { n, e } => PublicKeyComponents { n, e }.verify(
                rsa_parameters(self.algorithm),
                message,
                signature,
            ),
            Material::Raw(key) => {
                let algorithm: &'static dyn signature::VerificationAlgorithm =
                    match self.algorithm.family() {
                        Family::P384 => &ECDSA_P384_SHA384_FIXED,
                        Family::Ed25519 => &ED25519,
                        _ => &ECDSA_P256_SHA256_FIXED,
                    };
                UnparsedPublicKey::new(algorithm, key).verify(message, signature)
            }
        }
        .map_err(|_| BadSignature)
    }

    /// Refuses what could never verify anything, or should not.
    fn checked(self) -> Result<Self, JwtKeyError> {
        let family = self.algorithm.family();
        let is_point = |key: &[u8], length: usize| key.len() == length && key[0] == 4;
        match &self.material {
            Material::Raw(key) => {
                let is_good = match family {
                    Family::P256 => {
                        p256::PublicKey::from_sec1_bytes(key).is_ok() && is_point(key, 65)
                    }
                    Family::P384 => {
                        p384::PublicKey::from_sec1_bytes(key).is_ok() && is_point(key, 97)
                    }
                    _ => key.len() == 32,
                };
                if !is_good {
                    return Err(JwtKeyError::Rejected(format!("not {family}")));
                }
            }
            Material::Rsa { n, .. } if n.len() < MIN_MODULUS => return Err(short_modulus()),
            Material::Secret(_) | Material::Rsa { .. } => {}
        }
        Ok(self)
    }
}

/// Never shows a secret.
impl fmt::Debug for JwtKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtKey")
            .field("algorithm", &self.algorithm)
            .field("id", &self.id)
            .field("domain", &self.domain)
            .finish_non_exhaustive()
    }
}

/// One key of a JWKS (RFC 7517 §4, RFC 7518 §6, RFC 8037 §2).
#[derive(Deserialize)]
pub(super) struct Jwk {
    kty: String,
    #[serde(rename = "use")]
    purpose: Option<String>,
    alg: Option<String>,
    kid: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
    k: Option<String>,
}

impl Jwk {
    /// The key, if it is one that verifies tokens. Where neither `algorithm` nor the JWK
    /// says how, a key of a curve has one way, and an RSA key is for RS256.
    pub(super) fn key(self, algorithm: Option<Algorithm>) -> Result<JwtKey, JwtKeyError> {
        if let Some(purpose) =
            self.purpose.as_deref().filter(|use_| !matches!(*use_, "sig" | "jwt-svid"))
        {
            return Err(JwtKeyError::Purpose(Shown::new(purpose)));
        }
        let named = self
            .alg
            .as_deref()
            .map(|alg| alg.parse().map_err(|_| JwtKeyError::Algorithm(Shown::new(alg))))
            .transpose()?;
        if let (Some(given), Some(named)) = (algorithm, named)
            && given != named
        {
            return Err(JwtKeyError::OtherAlgorithm { given, named });
        }
        let kind = (self.kty.as_str(), self.crv.as_deref());
        let usual = match kind {
            ("RSA", _) => Some(Algorithm::Rs256),
            ("EC", Some("P-256")) => Some(Algorithm::Es256),
            ("EC", Some("P-384")) => Some(Algorithm::Es384),
            ("OKP", Some("Ed25519")) => Some(Algorithm::EdDsa),
            _ => None,
        };
        let algorithm = algorithm.or(named).or(usual).ok_or(JwtKeyError::NoAlgorithm)?;
        let bytes = |member: &'static str, text: &Option<String>| {
            let text = text.as_deref().ok_or(JwtKeyError::Member(member))?;
            URL_SAFE_NO_PAD.decode(text).map_err(|_| JwtKeyError::Member(member))
        };
        let point = |length: usize| {
            let (x, y) = (bytes("x", &self.x)?, bytes("y", &self.y)?);
            if (x.len(), y.len()) != (length, length) {
                return Err(JwtKeyError::Member("x, y"));
            }
            Ok([&[4][..], &x, &y].concat().into())
        };
        let material = match (algorithm.family(), kind) {
            (Family::Rsa, ("RSA", _)) => {
                let strip = |bytes: Vec<u8>| {
                    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
                    bytes[zeros..].into()
                };
                Material::Rsa { n: strip(bytes("n", &self.n)?), e: strip(bytes("e", &self.e)?) }
            }
            (Family::P256, ("EC", Some("P-256"))) => Material::Raw(point(32)?),
            (Family::P384, ("EC", Some("P-384"))) => Material::Raw(point(48)?),
            (Family::Ed25519, ("OKP", Some("Ed25519"))) => {
                Material::Raw(bytes("x", &self.x)?.into())
            }
            (Family::Secret, ("oct", _)) => {
                let text = self.k.as_deref().ok_or(JwtKeyError::Member("k"))?;
                let secret = URL_SAFE_NO_PAD.decode(text).map_err(|_| JwtKeyError::Member("k"))?;
                Material::Secret(long_enough(secret)?)
            }
            (family, _) => {
                return Err(JwtKeyError::Kind { algorithm, needed: family.to_string() });
            }
        };
        JwtKey { algorithm, material, id: self.kid, domain: None }.checked()
    }
}

/// An Ed25519 private key, new, as PKCS#8 in PEM. The form without the public key, which
/// everybody reads.
pub(crate) fn new_ed25519_pem() -> Result<Zeroizing<String>, SignError> {
    let mut der = Zeroizing::new(Vec::from(
        *b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20",
    ));
    let seed: [u8; 32] =
        ring::rand::generate(&SystemRandom::new()).map_err(|_| SignError)?.expose();
    der.extend_from_slice(&*Zeroizing::new(seed));
    Ok(private_pem(&der))
}

fn secret(text: &str) -> Result<Zeroizing<Vec<u8>>, JwtKeyError> {
    long_enough(text.as_bytes().to_vec())
}

fn long_enough(secret: Vec<u8>) -> Result<Zeroizing<Vec<u8>>, JwtKeyError> {
    if secret.len() < MIN_SECRET {
        return Err(JwtKeyError::ShortSecret(secret.len()));
    }
    Ok(Zeroizing::new(secret))
}

fn short_modulus() -> JwtKeyError {
    JwtKeyError::Rejected("RSA keys need 2048 bits".to_owned())
}

fn rejected(reason: ring::error::KeyRejected) -> JwtKeyError {
    JwtKeyError::Rejected(reason.to_string())
}

fn hmac_algorithm(algorithm: Algorithm) -> hmac::Algorithm {
    match algorithm {
        Algorithm::Hs384 => hmac::HMAC_SHA384,
        Algorithm::Hs512 => hmac::HMAC_SHA512,
        _ => hmac::HMAC_SHA256,
    }
}

fn rsa_encoding(algorithm: Algorithm) -> &'static dyn RsaEncoding {
    match algorithm {
        Algorithm::Rs384 => &signature::RSA_PKCS1_SHA384,
        Algorithm::Rs512 => &signature::RSA_PKCS1_SHA512,
        Algorithm::Ps256 => &signature::RSA_PSS_SHA256,
        Algorithm::Ps384 => &signature::RSA_PSS_SHA384,
        Algorithm::Ps512 => &signature::RSA_PSS_SHA512,
        _ => &signature::RSA_PKCS1_SHA256,
    }
}

fn rsa_parameters(algorithm: Algorithm) -> &'static RsaParameters {
    match algorithm {
        Algorithm::Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
        Algorithm::Rs512 => &signature::RSA_PKCS1_2048_8192_SHA512,
        Algorithm::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
        Algorithm::Ps384 => &signature::RSA_PSS_2048_8192_SHA384,
        Algorithm::Ps512 => &signature::RSA_PSS_2048_8192_SHA512,
        _ => &signature::RSA_PKCS1_2048_8192_SHA256,
    }
}

/// Why a text holds no key of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum JwtKeyError {
    /// The PEM text has no such section.
    #[error("no section {0} in the PEM text")]
    NoSection(&'static str),
    /// The key is not of the kind that its algorithm needs.
    #[error("{algorithm} needs {needed}")]
    Kind {
        /// As configured.
        algorithm: Algorithm,
        /// The kind of key.
        needed: String,
    },
    /// The key has the right kind and is no good.
    #[error("unusable key: {0}")]
    Rejected(String),
    /// A shared secret that could be guessed; gives its length in bytes.
    #[error("a secret of {0} bytes is too short, at least {MIN_SECRET} are needed")]
    ShortSecret(usize),
    /// Not the JSON of a key or a set of keys.
    #[error("not the JSON of {0}")]
    Json(&'static str),
    /// A member of a JWK is missing or malformed.
    #[error("member {0} of the JWK is missing or malformed")]
    Member(&'static str),
    /// A JWK is for something else than signatures.
    #[error("the JWK is for the use {0}, not sig")]
    Purpose(Shown),
    /// A JWK names an algorithm that we do not have.
    #[error("unknown algorithm {0} in the JWK")]
    Algorithm(Shown),
    /// A JWK names another algorithm than was asked for.
    #[error("the JWK is for {named}, not for {given}")]
    OtherAlgorithm {
        /// As configured.
        given: Algorithm,
        /// As the JWK says.
        named: Algorithm,
    },
    /// Neither the JWK nor its kind says how tokens are signed.
    #[error("the JWK names no algorithm")]
    NoAlgorithm,
    /// A set in which no key can be used; gives the fault of the first.
    #[error("no usable key in the set{}", .0.as_ref().map(|fault| format!(": {fault}")).unwrap_or_default())]
    Empty(Option<Box<Self>>),
    /// A document that is larger than any of its kind should be.
    #[error("more than {0} bytes")]
    TooLarge(usize),
}
