//! Who is speaking: identity tokens, keys, signatures and claims.
//!
//! An application has one [`Identity`]: a subject, a signing key, and tokens that
//! tie the two together. Who receives a token asks a [`Verifier`] what it is
//! worth and gets [`Claims`]: the subject and the public key. With that key
//! ([`PublicKey::verify`]) the signatures of control messages are checked, and a
//! member of an encrypted group must own it.
//!
//! [`SharedSecret`] is both an identity and a verifier: whoever holds the secret
//! can make and check tokens. [`JwtIdentity`] and [`TokenIdentity`] have JSON Web
//! Tokens, which a [`JwtVerifier`] checks with the keys of those it trusts.
//!
//! Everything is synchronous and does no IO. The time, in seconds since the Unix
//! epoch, and the random numbers that a simulation must be able to repeat come in
//! as arguments. Keys and ECDSA nonces are drawn from the operating system.

mod authorization;
mod did;
mod identity;
mod jwt;
mod key;
mod shared_secret;
mod shown;

pub use authorization::{AuthorizationError, Users, UsersError, basic, bearer, bearer_token};
pub use did::{DidError, TrustList, did_key, new_did_pem, parse_did_key};
pub use identity::{Claims, Identity, TokenError, Verifier, VerifyError};
pub use jwt::{
    Algorithm, Bearer, JwtIdentity, JwtIdentityConfig, JwtIdentityError, JwtKey, JwtKeyError,
    JwtSigningKey, JwtVerifier, JwtVerifierConfig, KeySet, TokenIdentity, TokenIdentityError,
    UnknownAlgorithm,
};
pub use key::{BadSignature, PublicKey, PublicKeyError, SignError, SigningKey, SigningKeyError};
pub use shared_secret::{SharedSecret, SharedSecretError};
pub use shown::Shown;
