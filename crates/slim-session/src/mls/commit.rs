//! The moderator's commits: adding, removing, putting back, renewing its own token.
//!
//! A commit moves every member from one epoch to the next. The moderator merges its own
//! at once: it is the only one who makes any, so nothing can come in between.

use std::fmt;

use bytes::Bytes;
use openmls::{
    prelude::{
        CommitBuilder, Initial, KeyPackage, KeyPackageVerifyError, LeafNodeIndex,
        LeafNodeParameters, MlsMessageBodyIn, OpenMlsProvider as _, ProtocolVersion,
    },
    treesync::errors::LifetimeError,
};
use slim_auth::Verifier;
use thiserror::Error;

use super::{
    CIPHER_SUITE,
    credential::{CredentialError, Entered, Leaf, Vetting},
    decode,
    group::Group,
    joiner::credential,
};

/// A commit that adds members, with what the new members need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AddCommit {
    /// For those who were members before.
    pub(crate) commit: Bytes,
    /// For the new members; the same for each.
    pub(crate) welcome: Bytes,
}

/// Somebody who may be added: its key package has been checked.
#[derive(Debug, Clone)]
pub(crate) struct Newcomer {
    key_package: KeyPackage,
    leaf: (Vec<u8>, Leaf),
}

impl Group {
    /// Checks whether the owner of a key package, who must be `subject`, may be added.
    ///
    /// # Errors
    ///
    /// [`CommitError`].
    pub(crate) fn vet(
        &self,
        key_package: &[u8],
        subject: &str,
        verifier: &dyn Verifier,
        now: u64,
    ) -> Result<Newcomer, CommitError> {
        if self.contains(subject) {
            return Err(CommitError::AlreadyMember(subject.to_owned()));
        }
        let (key_package, leaf) = self.vet_key_package(key_package, subject, verifier, now)?;
        Ok(Newcomer { key_package, leaf })
    }

    /// Adds them all in one commit. No two may have a key in common, of whatever kind.
    ///
    /// # Errors
    ///
    /// [`CommitError`]; the group is as it was.
    pub(crate) fn add_all(&mut self, newcomers: Vec<Newcomer>) -> Result<AddCommit, CommitError> {
        let (key_packages, leaves): (Vec<_>, Entered) =
            newcomers.into_iter().map(|new| (new.key_package, new.leaf)).unzip();
        self.commit_add(leaves, |builder| builder.propose_adds(key_packages))
    }

    /// Takes a member out and puts it back with a new key package, in one commit. For a
    /// member that has lost track of the group.
    ///
    /// # Errors
    ///
    /// [`CommitError`]; the group is as it was.
    pub(crate) fn rejoin(
        &mut self,
        key_package: &[u8],
        subject: &str,
        verifier: &dyn Verifier,
        now: u64,
    ) -> Result<AddCommit, CommitError> {
        let index = self.other_member(subject)?;
        let (key_package, leaf) = self.vet_key_package(key_package, subject, verifier, now)?;
        self.commit_add(vec![leaf], |builder| {
            builder.propose_removals([index]).propose_adds([key_package])
        })
    }

    /// Removes a member. What is sent after this commit it cannot decrypt.
    ///
    /// # Errors
    ///
    /// [`CommitError`]; the group is as it was.
    pub(crate) fn remove(&mut self, subject: &str) -> Result<Bytes, CommitError> {
        let index = self.other_member(subject)?;
        let (commit, _) = self.commit(Vec::new(), |builder| builder.propose_removals([index]))?;
        Ok(commit)
    }

    /// Replaces the token in our own leaf, and the keys on its path. The signature key
    /// stays, so messages of earlier epochs still verify.
    ///
    /// # Errors
    ///
    /// [`CommitError`]; the group is as it was.
    pub(crate) fn refresh_credential(
        &mut self,
        token: &str,
        verifier: &dyn Verifier,
        now: u64,
    ) -> Result<Bytes, CommitError> {
        let own = self.leaves.get(&self.mls.own_leaf_index()).ok_or(CommitError::Removed)?;
        let vetting = Vetting { verifier, now, accept_expired: false };
        let credential = credential(token, &self.signer);
        let key = credential.signature_key.as_slice().to_vec();
        let leaf = vetting
            .leaf_of(&own.subject, &credential.credential, &key)
            .map_err(CommitError::OwnCredential)?;
        let parameters = LeafNodeParameters::builder().with_credential_with_key(credential).build();
        let (commit, _) =
            self.commit(vec![(key, leaf)], |builder| builder.leaf_node_parameters(parameters))?;
        Ok(commit)
    }

    /// Checks everything about a key package: signatures, lifetime, keys (RFC 9420 §10.1),
    /// and whose it is.
    fn vet_key_package(
        &self,
        key_package: &[u8],
        subject: &str,
        verifier: &dyn Verifier,
        now: u64,
    ) -> Result<(KeyPackage, (Vec<u8>, Leaf)), KeyPackageError> {
        let Some(MlsMessageBodyIn::KeyPackage(key_package)) = decode(key_package) else {
            return Err(KeyPackageError::Malformed);
        };
        let key_package = key_package
            .validate(self.provider.crypto(), ProtocolVersion::Mls10)
            .map_err(|error| match error {
                KeyPackageVerifyError::LifetimeError(error) => not_valid_yet(&error).map_or_else(
                    || KeyPackageError::Invalid(error.to_string()),
                    |seconds| KeyPackageError::NotValidYet { seconds },
                ),
                error => KeyPackageError::Invalid(error.to_string()),
            })?;
        if key_package.ciphersuite() != CIPHER_SUITE {
            return Err(KeyPackageError::Invalid("other cipher suite".to_owned()));
        }
        let vetting = Vetting { verifier, now, accept_expired: false };
        let node = key_package.leaf_node();
        let key = node.signature_key().as_slice().to_vec();
        let leaf = vetting.leaf_of(subject, node.credential(), &key)?;
        Ok((key_package, (key, leaf)))
    }

    /// The leaf of a member other than us.
    fn other_member(&self, subject: &str) -> Result<LeafNodeIndex, CommitError> {
        self.leaf_index(subject)
            .filter(|index| *index != self.mls.own_leaf_index())
            .ok_or_else(|| CommitError::NotMember(subject.to_owned()))
    }

    fn commit_add(
        &mut self,
        leaves: Entered,
        proposals: impl FnOnce(CommitBuilder<'_, Initial>) -> CommitBuilder<'_, Initial>,
    ) -> Result<AddCommit, CommitError> {
        let (commit, welcome) = self.commit(leaves, proposals)?;
        let welcome =
            welcome.ok_or_else(|| CommitError::Invalid("no welcome for an add".to_owned()))?;
        Ok(AddCommit { commit, welcome })
    }

    /// Stages a commit with the given proposals, writes its messages, and merges it.
    fn commit(
        &mut self,
        entered: Entered,
        proposals: impl FnOnce(CommitBuilder<'_, Initial>) -> CommitBuilder<'_, Initial>,
    ) -> Result<(Bytes, Option<Bytes>), CommitError> {
        if !self.is_active() {
            return Err(CommitError::Removed);
        }
        if self.mls.own_leaf_index() != self.moderator {
            return Err(CommitError::NotModerator);
        }
        let invalid = |error: &dyn fmt::Display| CommitError::Invalid(error.to_string());
        let provider = &self.provider;
        let bundle = proposals(self.mls.commit_builder())
            .load_psks(provider.storage())
            .map_err(|error| invalid(&error))?
            .build(provider.rand(), provider.crypto(), &self.signer, |_| true)
            .map_err(|error| invalid(&error))?
            .stage_commit(provider)
            .map_err(|error| invalid(&error))?;
        let (commit, welcome, _) = bundle.into_messages();
        let messages = commit.to_bytes().and_then(|commit| {
            let welcome = welcome.map(|welcome| welcome.to_bytes()).transpose()?;
            Ok((commit.into(), welcome.map(Bytes::from)))
        });
        let messages = match messages {
            Ok(messages) => messages,
            Err(error) => {
                // It was not sent, so it must not take effect either.
                self.mls
                    .clear_pending_commit(provider.storage())
                    .map_err(|error| invalid(&error))?;
                return Err(invalid(&error));
            }
        };
        let before = self.epoch();
        self.mls.merge_pending_commit(&self.provider).map_err(|error| invalid(&error))?;
        self.take_members(before, &entered);
        Ok(messages)
    }
}

/// Why the moderator could not make a commit.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum CommitError {
    /// Only the moderator changes the group, and we are not.
    #[error("not the moderator of the group")]
    NotModerator,
    /// The one to add is a member.
    #[error("{0} is a member already")]
    AlreadyMember(String),
    /// The one to remove or to put back is no member, or is the moderator.
    #[error("{0} is no member that can be removed")]
    NotMember(String),
    /// The key package was refused.
    #[error("key package refused")]
    KeyPackage(#[from] KeyPackageError),
    /// Our own new token was refused.
    #[error("own credential refused")]
    OwnCredential(#[source] CredentialError),
    /// We are no member of the group any more.
    #[error("removed from the group")]
    Removed,
    /// Some rule of RFC 9420 is broken; the text says which.
    #[error("no commit: {0}")]
    Invalid(String),
}

/// Why a key package was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum KeyPackageError {
    /// Not an encoded key package.
    #[error("malformed key package")]
    Malformed,
    /// Its credential was refused.
    #[error("credential refused")]
    Credential(#[from] CredentialError),
    /// Its lifetime has not begun by our clock.
    #[error("not valid for another {seconds} s")]
    NotValidYet {
        /// How long to wait.
        seconds: u64,
    },
    /// It does not hold what RFC 9420 §10.1 asks of it; the text says what.
    #[error("invalid key package: {0}")]
    Invalid(String),
}

/// How many seconds are missing until a lifetime begins, if that is what is wrong.
pub(super) fn not_valid_yet(error: &LifetimeError) -> Option<u64> {
    match error {
        LifetimeError::NotValidYet { not_before, now } => Some(not_before.saturating_sub(*now)),
        _ => None,
    }
}
