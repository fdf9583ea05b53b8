//! How a member takes the moderator's commits.
//!
//! A commit is staged, checked completely, and only then merged.

use std::{fmt, sync::Arc};

use openmls::{
    prelude::{
        ContentType, KeyPackageVerifyError, LeafNode, LeafNodeIndex, MlsMessageBodyIn,
        ProcessMessageError, ProcessedMessageContent, Proposal, ProposalValidationError,
        ProtocolMessage, Sender, StageCommitError, StagedCommit, ValidationError,
    },
    treesync::errors::LeafNodeValidationError,
};
use thiserror::Error;

use super::{
    commit::not_valid_yet,
    credential::{CredentialError, Entered, Leaf, Vetting},
    decode,
    group::Group,
};

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

impl Group {
    /// Takes a commit of the moderator: checks it, then moves to its epoch.
    ///
    /// # Errors
    ///
    /// [`ProcessError`]; the group is as it was. Only [`ProcessError::FutureEpoch`],
    /// [`ProcessError::NotValidYet`] and a token from the future can go better later.
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
