//! What OpenMLS computes with: *ring* where it counts, RustCrypto for the rest.
//!
//! Only one cipher suite is spoken, so only its algorithms are here.

use std::fmt;

use openmls::prelude::tls_codec::SecretVLBytes;
use openmls_rust_crypto::RustCrypto;
use openmls_traits::{
    OpenMlsProvider,
    crypto::OpenMlsCrypto,
    signatures::{Signer, SignerError},
    types::{
        AeadType, Ciphersuite, CryptoError, ExporterSecret, HashType, HpkeCiphertext, HpkeConfig,
        HpkeKeyPair, KemOutput, SignatureScheme,
    },
};
use ring::{
    aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    digest, hkdf, hmac,
    signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey},
};
use slim_auth::SigningKey;

use super::{CIPHER_SUITE, storage::Storage};

/// Computation and memory for one group, or for one key package that may become one.
#[derive(Debug, Default)]
pub(super) struct Provider {
    crypto: Crypto,
    storage: Storage,
}

impl OpenMlsProvider for Provider {
    type CryptoProvider = Crypto;
    type RandProvider = RustCrypto;
    type StorageProvider = Storage;

    fn storage(&self) -> &Storage {
        &self.storage
    }

    fn crypto(&self) -> &Crypto {
        &self.crypto
    }

    fn rand(&self) -> &RustCrypto {
        &self.crypto.rust_crypto
    }
}

/// The application's key in the form OpenMLS signs with.
#[derive(Debug, Clone)]
pub(super) struct LeafSigner(pub(super) SigningKey);

impl Signer for LeafSigner {
    fn sign(&self, payload: &[u8]) -> Result<Vec<u8>, SignerError> {
        self.0.sign(payload).map_err(|_| SignerError::SigningError)
    }

    fn signature_scheme(&self) -> SignatureScheme {
        SignatureScheme::ECDSA_SECP256R1_SHA256
    }
}

/// The algorithms of the one cipher suite.
///
/// HPKE stays with RustCrypto: *ring* does not take a Diffie-Hellman key that is given.
#[derive(Default)]
pub(super) struct Crypto {
    /// Also the source of random numbers, seeded by the operating system.
    rust_crypto: RustCrypto,
}

impl fmt::Debug for Crypto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Crypto")
    }
}

fn only_sha256(hash: HashType) -> Result<(), CryptoError> {
    match hash {
        HashType::Sha2_256 => Ok(()),
        _ => Err(CryptoError::UnsupportedHashAlgorithm),
    }
}

fn aes_128_gcm(
    algorithm: AeadType,
    key: &[u8],
    nonce: &[u8],
) -> Result<(LessSafeKey, Nonce), CryptoError> {
    if algorithm != AeadType::Aes128Gcm {
        return Err(CryptoError::UnsupportedAeadAlgorithm);
    }
    let key = UnboundKey::new(&AES_128_GCM, key).map_err(|_| CryptoError::InvalidLength)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| CryptoError::InvalidLength)?;
    Ok((LessSafeKey::new(key), nonce))
}

/// The length of a key that HKDF is asked to expand to.
struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

impl OpenMlsCrypto for Crypto {
    fn supports(&self, cipher_suite: Ciphersuite) -> Result<(), CryptoError> {
        if cipher_suite == CIPHER_SUITE { Ok(()) } else { Err(CryptoError::UnsupportedCiphersuite) }
    }

    fn supported_ciphersuites(&self) -> Vec<Ciphersuite> {
        vec![CIPHER_SUITE]
    }

    fn hkdf_extract(
        &self,
        hash: HashType,
        salt: &[u8],
        ikm: &[u8],
    ) -> Result<SecretVLBytes, CryptoError> {
        // RFC 5869 §2.2: extracting is HMAC with the salt as its key.
        self.hmac(hash, salt, ikm)
    }

    fn hmac(
        &self,
        hash: HashType,
        key: &[u8],
        message: &[u8],
    ) -> Result<SecretVLBytes, CryptoError> {
        only_sha256(hash)?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        Ok(hmac::sign(&key, message).as_ref().into())
    }

    fn hkdf_expand(
        &self,
        hash: HashType,
        prk: &[u8],
        info: &[u8],
        okm_len: usize,
    ) -> Result<SecretVLBytes, CryptoError> {
        only_sha256(hash)?;
        let mut okm = vec![0; okm_len];
        hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, prk)
            .expand(&[info], Length(okm_len))
            .and_then(|expanded| expanded.fill(&mut okm))
            .map_err(|_| CryptoError::HkdfOutputLengthInvalid)?;
        Ok(okm.into())
    }

    fn hash(&self, hash: HashType, data: &[u8]) -> Result<Vec<u8>, CryptoError> {
        only_sha256(hash)?;
        Ok(digest::digest(&digest::SHA256, data).as_ref().to_vec())
    }

    fn aead_encrypt(
        &self,
        algorithm: AeadType,
        key: &[u8],
        data: &[u8],
        nonce: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        let (key, nonce) = aes_128_gcm(algorithm, key, nonce)?;
        let mut sealed = Vec::with_capacity(data.len() + AES_128_GCM.tag_len());
        sealed.extend_from_slice(data);
        key.seal_in_place_append_tag(nonce, Aad::from(aad), &mut sealed)
            .map_err(|_| CryptoError::CryptoLibraryError)?;
        Ok(sealed)
    }

    fn aead_decrypt(
        &self,
        algorithm: AeadType,
        key: &[u8],
        ct_tag: &[u8],
        nonce: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        let (key, nonce) = aes_128_gcm(algorithm, key, nonce)?;
        let mut opened = ct_tag.to_vec();
        let length = key
            .open_in_place(nonce, Aad::from(aad), &mut opened)
            .map_err(|_| CryptoError::AeadDecryptionError)?
            .len();
        opened.truncate(length);
        Ok(opened)
    }

    fn signature_key_gen(
        &self,
        algorithm: SignatureScheme,
    ) -> Result<(Vec<u8>, Vec<u8>), CryptoError> {
        self.rust_crypto.signature_key_gen(algorithm)
    }

    fn verify_signature(
        &self,
        algorithm: SignatureScheme,
        data: &[u8],
        pk: &[u8],
        signature: &[u8],
    ) -> Result<(), CryptoError> {
        if algorithm != SignatureScheme::ECDSA_SECP256R1_SHA256 {
            return Err(CryptoError::UnsupportedSignatureScheme);
        }
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, pk)
            .verify(data, signature)
            .map_err(|_| CryptoError::InvalidSignature)
    }

    fn sign(
        &self,
        algorithm: SignatureScheme,
        data: &[u8],
        key: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        self.rust_crypto.sign(algorithm, data, key)
    }

    fn hpke_seal(
        &self,
        config: HpkeConfig,
        pk_r: &[u8],
        info: &[u8],
        aad: &[u8],
        ptxt: &[u8],
    ) -> Result<HpkeCiphertext, CryptoError> {
        self.rust_crypto.hpke_seal(config, pk_r, info, aad, ptxt)
    }

    fn hpke_open(
        &self,
        config: HpkeConfig,
        input: &HpkeCiphertext,
        sk_r: &[u8],
        info: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        self.rust_crypto.hpke_open(config, input, sk_r, info, aad)
    }

    fn hpke_setup_sender_and_export(
        &self,
        config: HpkeConfig,
        pk_r: &[u8],
        info: &[u8],
        exporter_context: &[u8],
        exporter_length: usize,
    ) -> Result<(KemOutput, ExporterSecret), CryptoError> {
        self.rust_crypto.hpke_setup_sender_and_export(
            config,
            pk_r,
            info,
            exporter_context,
            exporter_length,
        )
    }

    fn hpke_setup_receiver_and_export(
        &self,
        config: HpkeConfig,
        enc: &[u8],
        sk_r: &[u8],
        info: &[u8],
        exporter_context: &[u8],
        exporter_length: usize,
    ) -> Result<ExporterSecret, CryptoError> {
        self.rust_crypto.hpke_setup_receiver_and_export(
            config,
            enc,
            sk_r,
            info,
            exporter_context,
            exporter_length,
        )
    }

    fn derive_hpke_keypair(
        &self,
        config: HpkeConfig,
        ikm: &[u8],
    ) -> Result<HpkeKeyPair, CryptoError> {
        self.rust_crypto.derive_hpke_keypair(config, ikm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 16] = [7; 16];
    const NONCE: [u8; 12] = [9; 12];

    /// Both libraries must agree on every algorithm we took over.
    #[test]
    fn the_fast_algorithms_agree_with_rust_crypto() {
        let (fast, reference) = (Crypto::default(), RustCrypto::default());
        for length in [0, 1, 31, 32, 33, 64, 65, 1000] {
            let input: Vec<u8> = (0..length).map(|i| i as u8).collect();
            let sha = HashType::Sha2_256;
            assert_eq!(fast.hash(sha, &input), reference.hash(sha, &input));
            assert_eq!(
                fast.hmac(sha, &input, b"message").unwrap().as_slice(),
                reference.hmac(sha, &input, b"message").unwrap().as_slice()
            );
            assert_eq!(
                fast.hkdf_extract(sha, &input, b"ikm").unwrap().as_slice(),
                reference.hkdf_extract(sha, &input, b"ikm").unwrap().as_slice()
            );
            assert_eq!(
                fast.hkdf_expand(sha, &KEY.repeat(2), &input, length).unwrap().as_slice(),
                reference.hkdf_expand(sha, &KEY.repeat(2), &input, length).unwrap().as_slice()
            );
            let aead = AeadType::Aes128Gcm;
            let sealed = fast.aead_encrypt(aead, &KEY, &input, &NONCE, b"aad").unwrap();
            assert_eq!(
                reference.aead_encrypt(aead, &KEY, &input, &NONCE, b"aad"),
                Ok(sealed.clone())
            );
            assert_eq!(fast.aead_decrypt(aead, &KEY, &sealed, &NONCE, b"aad"), Ok(input));
            assert_eq!(
                fast.aead_decrypt(aead, &KEY, &sealed, &NONCE, b"dad"),
                Err(CryptoError::AeadDecryptionError)
            );
        }
    }

    #[test]
    fn signatures_agree_with_rust_crypto() {
        let (fast, reference) = (Crypto::default(), RustCrypto::default());
        let scheme = SignatureScheme::ECDSA_SECP256R1_SHA256;
        let (private, public) = reference.signature_key_gen(scheme).unwrap();
        let signature = reference.sign(scheme, b"message", &private).unwrap();
        assert_eq!(fast.verify_signature(scheme, b"message", &public, &signature), Ok(()));
        assert_eq!(
            fast.verify_signature(scheme, b"massage", &public, &signature),
            Err(CryptoError::InvalidSignature)
        );
        let signer = LeafSigner(SigningKey::generate().unwrap());
        let signature = signer.sign(b"message").unwrap();
        let public = signer.0.public_key().as_bytes();
        assert_eq!(reference.verify_signature(scheme, b"message", public, &signature), Ok(()));
    }

    #[test]
    fn other_algorithms_are_refused() {
        let crypto = Crypto::default();
        assert!(
            crypto.supports(Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519).is_err()
        );
        assert!(crypto.hash(HashType::Sha2_512, b"").is_err());
        assert!(
            crypto.aead_encrypt(AeadType::ChaCha20Poly1305, &[0; 32], b"", &NONCE, b"").is_err()
        );
        assert!(crypto.aead_encrypt(AeadType::Aes128Gcm, &[0; 15], b"", &NONCE, b"").is_err());
        assert!(
            crypto.verify_signature(SignatureScheme::ED25519, b"", &[0; 32], &[0; 64]).is_err()
        );
        assert!(crypto.hkdf_expand(HashType::Sha2_256, &KEY, b"", 255 * 32 + 1).is_err());
    }
}
