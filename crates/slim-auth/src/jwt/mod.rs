//! Identity by JSON Web Tokens (RFC 7519, in the compact form of RFC 7515).
//!
//! [`JwtIdentity`] signs its tokens itself, [`TokenIdentity`] uses one that somebody
//! else issued. [`JwtVerifier`] checks both, with a [`KeySet`]: one key, or those of a
//! JWKS (RFC 7517). Key sets and tokens can be replaced while they are in use, so that
//! whoever watches a file or an issuer hands over what is new.
//!
//! A token is taken apart here and its signature is checked by ring. Libraries for JWT
//! read the clock by themselves, and let the token say how it is signed unless told not
//! to; here a key has one algorithm, and the time is an argument.

mod algorithm;
mod external;
mod identity;
mod key;
mod key_set;
mod token;
mod verifier;

#[cfg(test)]
mod tests;

pub use algorithm::{Algorithm, UnknownAlgorithm};
pub use external::{TokenIdentity, TokenIdentityError};
pub use identity::{JwtIdentity, JwtIdentityConfig, JwtIdentityError};
pub(crate) use key::new_ed25519_pem;
pub use key::{JwtKey, JwtKeyError, JwtSigningKey};
pub use key_set::KeySet;
pub use verifier::{Bearer, JwtVerifier, JwtVerifierConfig};
