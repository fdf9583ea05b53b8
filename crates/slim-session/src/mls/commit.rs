//! Changes of the group: the moderator's commits, and how members take them.
//!
//! A commit moves every member from one epoch to the next. The moderator merges its own
//! at once; a member merges what it has checked completely.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use openmls::{
    prelude::{
        CommitBuilder, ContentType, Initial, KeyPackage, KeyPackageVerifyError, LeafNode,
        LeafNodeIndex, LeafNodeParameters, MlsMessageBodyIn, OpenMlsProvider as _,
        ProcessMessageError, ProcessedMessageContent, Proposal, ProposalValidationError,
        ProtocolMessage, ProtocolVersion, Sender, StageCommitError, StagedCommit, ValidationError,
    },
    treesync::errors::{LeafNodeValidationError, LifetimeError},
};
use slim_auth::Verifier;
use thiserror::Error;

use super::{
    CIPHER_SUITE,
    credential::{CredentialError, Leaf, Vetting},
    decode,
    group::Group,
    joiner::credential,
};

/// A commit that adds one member, with what the new member needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AddCommit {
    /// For those who were members before.
    pub(crate) commit: Bytes,
    /// For the new member.
    pub(crate) welcome: Bytes,
}

/// What a commit did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    /// The members changed as listed, by subject. A member that was taken out and put
    /// back in one step is in both lists; if both are empty, keys or tokens were renewed.
    Changed {
        /// Who came.
        added: Vec<Arc<str>>,
        /// Who went.
        removed: Vec<Arc<str>>,
    },
    /// We were removed. The group is of no more use.
    SelfRemoved,
}

/// The leaves a commit brings or renews, with their signature keys.
type Entered = Vec<(Vec<u8>, Leaf)>;

impl Group {
    /// Adds the owner of a key package, who must be `subject`.
    ///
    /// # Errors
    ///
    /// [`CommitError`]; the group is as it was.
    pub(crate) fn add(
        &mut self,
        key_package: &[u8],
        subject: &str,
        verifier: &dyn Verifier,
        now: u64,
    ) -> Result<AddCommit, CommitError> {
        if self.contains(subject) {
            return Err(CommitError::AlreadyMember(subject.to_owned()));
        }
        let (key_package, leaf) = self.vet_key_package(key_package, subject, verifier, now)?;
        self.commit_add(leaf, |builder| builder.propose_adds([key_package]))
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
        self.commit_add(leaf, |builder| {
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
        leaf: (Vec<u8>, Leaf),
        proposals: impl FnOnce(CommitBuilder<'_, Initial>) -> CommitBuilder<'_, Initial>,
    ) -> Result<AddCommit, CommitError> {
        let (commit, welcome) = self.commit(vec![leaf], proposals)?;
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

    /// Takes a commit of the moderator: checks it, then moves to its epoch.
    ///
    /// # Errors
    ///
    /// [`ProcessError`]; the group is as it was. Only [`ProcessError::FutureEpoch`] and
    /// [`ProcessError::NotValidYet`] can go better another time.
    pub(crate) fn process_commit(
        &mut self,
        commit: &[u8],
        vetting: &Vetting<'_>,
    ) -> Result<Effect, ProcessError> {
        if !self.is_active() {
            return Err(ProcessError::Removed);
        }
        let Some(MlsMessageBodyIn::PublicMessage(message)) = decode(commit) else {
            return Err(ProcessError::Malformed);
        };
        let message = ProtocolMessage::from(message);
        if message.content_type() != ContentType::Commit {
            return Err(ProcessError::Malformed);
        }
        if message.group_id() != self.mls.group_id() {
            return Err(ProcessError::OtherGroup);
        }
        let (epoch, before) = (message.epoch().as_u64(), self.epoch());
        if epoch > before {
            return Err(ProcessError::FutureEpoch { message: epoch, group: before });
        }
        if epoch < before {
            return Err(ProcessError::PastEpoch { message: epoch, group: before });
        }
        let processed = self.mls.process_message(&self.provider, message)?;
        if *processed.sender() != Sender::Member(self.moderator) {
            return Err(ProcessError::NotModerator);
        }
        let ProcessedMessageContent::StagedCommitMessage(staged) = processed.into_content() else {
            return Err(ProcessError::Malformed);
        };
        if staged.self_removed() {
            self.merge(*staged)?;
            return Ok(Effect::SelfRemoved);
        }
        let removed = self.removed_by(&staged)?;
        let entered = self.vet_staged(&staged, &removed, vetting)?;
        let effect = Effect::Changed {
            added: entered.added.iter().map(|(_, leaf)| Arc::clone(&leaf.subject)).collect(),
            removed: self.subjects(&removed),
        };
        self.merge(*staged)?;
        let mut leaves = entered.added;
        leaves.extend(entered.renewed);
        self.take_members(before, &leaves);
        Ok(effect)
    }

    fn merge(&mut self, staged: StagedCommit) -> Result<(), ProcessError> {
        self.mls
            .merge_staged_commit(&self.provider, staged)
            .map_err(|error| ProcessError::Invalid(error.to_string()))
    }

    /// The leaves that a commit removes, provided it does nothing but remove and add.
    fn removed_by(&self, staged: &StagedCommit) -> Result<Vec<LeafNodeIndex>, ProcessError> {
        let mut removed = Vec::new();
        for proposal in staged.queued_proposals() {
            match proposal.proposal() {
                Proposal::Add(_) => {}
                Proposal::Remove(remove) => removed.push(remove.removed()),
                other => return Err(ProcessError::Proposal(other.proposal_type().into())),
            }
        }
        Ok(removed)
    }

    fn subjects(&self, indices: &[LeafNodeIndex]) -> Vec<Arc<str>> {
        indices
            .iter()
            .filter_map(|index| self.leaves.get(index))
            .map(|leaf| Arc::clone(&leaf.subject))
            .collect()
    }

    /// Checks the credential of every leaf that a commit adds or renews.
    fn vet_staged(
        &self,
        staged: &StagedCommit,
        removed: &[LeafNodeIndex],
        vetting: &Vetting<'_>,
    ) -> Result<Vetted, ProcessError> {
        let key = |node: &LeafNode| node.signature_key().as_slice().to_vec();
        let mut added = Entered::new();
        for add in staged.add_proposals() {
            let node = add.add_proposal().key_package().leaf_node();
            let key = key(node);
            let leaf = vetting.leaf(node.credential(), &key)?;
            let taken = self
                .leaves
                .iter()
                .filter(|(index, _)| !removed.contains(index))
                .map(|(_, other)| other)
                .chain(added.iter().map(|(_, other)| other))
                .any(|other| other.subject == leaf.subject);
            if taken {
                return Err(ProcessError::SubjectTwice(leaf.subject));
            }
            added.push((key, leaf));
        }
        // RFC 9420 §5.3.1: a credential may be succeeded only by one for the same member.
        let renewed = match (staged.update_path_leaf_node(), self.leaves.get(&self.moderator)) {
            (Some(node), Some(moderator)) => {
                let key = key(node);
                let leaf = if self.is_unchanged(node) {
                    moderator.clone()
                } else {
                    vetting.leaf_of(&moderator.subject, node.credential(), &key)?
                };
                Some((key, leaf))
            }
            _ => None,
        };
        Ok(Vetted { added, renewed })
    }

    /// Whether the moderator's new leaf has the credential and the key of its old one,
    /// which was checked when it came.
    fn is_unchanged(&self, node: &LeafNode) -> bool {
        self.mls.public_group().leaf(self.moderator).is_some_and(|old| {
            old.credential() == node.credential() && old.signature_key() == node.signature_key()
        })
    }
}

struct Vetted {
    added: Entered,
    renewed: Option<(Vec<u8>, Leaf)>,
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

/// Why a commit was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum ProcessError {
    /// Not an encoded commit.
    #[error("malformed commit")]
    Malformed,
    /// It belongs to another group.
    #[error("commit of another group")]
    OtherGroup,
    /// It was taken before, or another in its place.
    #[error("commit of epoch {message}, the group is in {group}")]
    PastEpoch {
        /// The epoch it starts from.
        message: u64,
        /// Our epoch.
        group: u64,
    },
    /// There is one before it that we have not seen.
    #[error("commit of epoch {message}, the group is still in {group}")]
    FutureEpoch {
        /// The epoch it starts from.
        message: u64,
        /// Our epoch.
        group: u64,
    },
    /// Somebody other than the moderator made it.
    #[error("commit is not the moderator's")]
    NotModerator,
    /// It does something other than adding and removing; gives the type of the proposal.
    #[error("commit with a proposal of type {0}")]
    Proposal(u16),
    /// The credential of a leaf it brings was refused.
    #[error("credential refused")]
    Credential(#[from] CredentialError),
    /// It would make two leaves claim to be the same member.
    #[error("two leaves for {0}")]
    SubjectTwice(Arc<str>),
    /// The lifetime of a leaf it adds has not begun by our clock.
    #[error("not valid for another {seconds} s")]
    NotValidYet {
        /// How long to wait.
        seconds: u64,
    },
    /// We are no member of the group any more.
    #[error("removed from the group")]
    Removed,
    /// Some other rule of RFC 9420 is broken; the text says which.
    #[error("invalid commit: {0}")]
    Invalid(String),
}

fn not_valid_yet(error: &LifetimeError) -> Option<u64> {
    match error {
        LifetimeError::NotValidYet { not_before, now } => Some(not_before.saturating_sub(*now)),
        _ => None,
    }
}

impl<S: fmt::Display> From<ProcessMessageError<S>> for ProcessError {
    fn from(error: ProcessMessageError<S>) -> Self {
        let lifetime = match &error {
            ProcessMessageError::ValidationError(ValidationError::KeyPackageVerifyError(
                KeyPackageVerifyError::LifetimeError(lifetime),
            ))
            | ProcessMessageError::InvalidCommit(
                StageCommitError::LeafNodeValidation(LeafNodeValidationError::Lifetime(lifetime))
                | StageCommitError::ProposalValidationError(
                    ProposalValidationError::LeafNodeValidation(LeafNodeValidationError::Lifetime(
                        lifetime,
                    )),
                ),
            ) => not_valid_yet(lifetime),
            _ => None,
        };
        lifetime.map_or_else(
            || Self::Invalid(error.to_string()),
            |seconds| Self::NotValidYet { seconds },
        )
    }
}
