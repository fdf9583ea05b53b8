//! Who a leaf of the tree belongs to.
//!
//! A leaf's credential is an identity token. It is read once, when the leaf enters the
//! tree, and the subject is remembered for the leaf: from then on MLS proves that the
//! sender owns the key, and the age of the token no longer matters.

use std::{collections::BTreeMap, sync::Arc};

use openmls::prelude::{Credential, CredentialType, LeafNodeIndex};
use slim_auth::{Verifier, VerifyError};
use thiserror::Error;

/// How credentials of others are judged.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Vetting<'a> {
    /// Knows which tokens are good.
    pub(crate) verifier: &'a dyn Verifier,
    /// Seconds since the Unix epoch.
    pub(crate) now: u64,
    /// Whether a token will do whose only fault is its age.
    ///
    /// Who joins or catches up finds leaves older than their tokens last. To be set only
    /// if what vouches for them now, the moderator's message, came with a fresh token.
    pub(crate) accept_expired: bool,
}

/// One leaf, as far as we care.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Leaf {
    pub(super) subject: Arc<str>,
    /// When the token in the credential expires, in seconds since the Unix epoch.
    pub(super) expires_at: u64,
}

/// The members of one epoch.
pub(super) type Leaves = BTreeMap<LeafNodeIndex, Leaf>;

/// The leaves a commit brings or renews, with their signature keys.
pub(super) type Entered = Vec<(Vec<u8>, Leaf)>;

impl Vetting<'_> {
    /// Reads a credential and checks that it is made out to the key of its leaf.
    pub(super) fn leaf(
        &self,
        credential: &Credential,
        signature_key: &[u8],
    ) -> Result<Leaf, CredentialError> {
        if credential.credential_type() != CredentialType::Basic {
            return Err(CredentialError::Type);
        }
        let token = std::str::from_utf8(credential.serialized_content())
            .map_err(|_| CredentialError::Token(VerifyError::Malformed("text")))?;
        let claims = if self.accept_expired {
            self.verifier.authenticate(token, self.now)
        } else {
            self.verifier.verify(token, self.now)
        }?;
        if claims.public_key.as_bytes() != signature_key {
            return Err(CredentialError::Key);
        }
        Ok(Leaf { subject: claims.subject.into(), expires_at: claims.expires_at })
    }

    /// As [`Vetting::leaf`], and the subject must be the given one.
    pub(super) fn leaf_of(
        &self,
        subject: &str,
        credential: &Credential,
        signature_key: &[u8],
    ) -> Result<Leaf, CredentialError> {
        let leaf = self.leaf(credential, signature_key)?;
        if &*leaf.subject == subject {
            Ok(leaf)
        } else {
            Err(CredentialError::Subject {
                expected: subject.to_owned(),
                found: leaf.subject.to_string(),
            })
        }
    }
}

/// Why a credential was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum CredentialError {
    /// Not a basic credential, so no token.
    #[error("the credential is no identity token")]
    Type,
    /// The token is not good.
    #[error("identity token refused")]
    Token(#[from] VerifyError),
    /// The token is made out to another key than the one its leaf signs with.
    #[error("the identity token belongs to another key")]
    Key,
    /// The token names somebody else than it has to.
    #[error("the identity token names {found}, not {expected}")]
    Subject {
        /// Who it should be.
        expected: String,
        /// Who it is.
        found: String,
    },
}
