//! The encrypted group: its members, and messages in and out.

use std::{collections::VecDeque, fmt, sync::Arc};

use bytes::Bytes;
use openmls::{
    framing::errors::{MessageDecryptionError, SecretTreeError},
    prelude::{
        ContentType, GroupId, LeafNodeIndex, MlsGroup, MlsGroupCreateConfig, MlsGroupJoinConfig,
        MlsMessageBodyIn, OpenMlsProvider as _, OpenMlsRand as _,
        PURE_PLAINTEXT_WIRE_FORMAT_POLICY, ProcessMessageError, ProcessedMessageContent, Sender,
        SenderRatchetConfiguration, ValidationError,
    },
};
use slim_auth::{SigningKey, Verifier};
use thiserror::Error;

use super::{
    CIPHER_SUITE, GENERATIONS, GENERATIONS_AHEAD, PADDING, PAST_EPOCHS, capabilities,
    credential::{CredentialError, Leaf, Leaves, Vetting},
    decode,
    joiner::credential,
    lifetime,
    provider::{LeafSigner, Provider},
};

const GROUP_ID_LENGTH: usize = 32;

/// One group, from the point of view of one member.
pub(crate) struct Group {
    pub(super) mls: MlsGroup,
    pub(super) provider: Provider,
    pub(super) signer: LeafSigner,
    pub(super) leaves: Arc<Leaves>,
    /// Who sent what in the epochs that can still be decrypted, oldest first: a leaf may
    /// have gone to another member since.
    past: VecDeque<(u64, Arc<Leaves>)>,
    /// The only leaf whose commits count. It cannot change hands: nobody else may remove
    /// it, and it cannot remove itself.
    pub(super) moderator: LeafNodeIndex,
}

/// A message that was decrypted, and its sender proven.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Decrypted {
    /// What was encrypted.
    pub(crate) plaintext: Bytes,
    /// What the sender authenticated beside it.
    pub(crate) aad: Vec<u8>,
    /// The subject of the sender's leaf. It was a member when it encrypted the message, and
    /// may have been removed since: [`Group::stayed`] tells.
    pub(crate) sender: Arc<str>,
    /// In which epoch.
    pub(crate) epoch: u64,
}

impl Group {
    /// A new group with us as moderator and only member, and `token` as our credential.
    ///
    /// # Errors
    ///
    /// [`CreateError::Credential`] if our own token does not pass our verifier.
    pub(crate) fn create(
        key: SigningKey,
        token: &str,
        verifier: &dyn Verifier,
        now: u64,
    ) -> Result<Self, CreateError> {
        let invalid = |error: &dyn fmt::Display| CreateError::Invalid(error.to_string());
        let provider = Provider::default();
        let signer = LeafSigner(key);
        let credential = credential(token, &signer);
        let vetting = Vetting { verifier, now, accept_expired: false };
        let leaf = vetting.leaf(&credential.credential, credential.signature_key.as_slice())?;
        let group_id: [u8; GROUP_ID_LENGTH] =
            provider.rand().random_array().map_err(|error| invalid(&error))?;
        let config = MlsGroupCreateConfig::builder()
            .ciphersuite(CIPHER_SUITE)
            .capabilities(capabilities())
            .lifetime(lifetime(now))
            .wire_format_policy(PURE_PLAINTEXT_WIRE_FORMAT_POLICY)
            .use_ratchet_tree_extension(true)
            .max_past_epochs(PAST_EPOCHS)
            .sender_ratchet_configuration(ratchet())
            .padding_size(PADDING)
            .build();
        let mls = MlsGroup::new_with_group_id(
            &provider,
            &signer,
            &config,
            GroupId::from_slice(&group_id),
            credential,
        )
        .map_err(|error| invalid(&error))?;
        let own = mls.own_leaf_index();
        Ok(Self::new(mls, provider, signer, Leaves::from([(own, leaf)]), own))
    }

    pub(super) fn new(
        mls: MlsGroup,
        provider: Provider,
        signer: LeafSigner,
        leaves: Leaves,
        moderator: LeafNodeIndex,
    ) -> Self {
        Self { mls, provider, signer, leaves: Arc::new(leaves), past: VecDeque::new(), moderator }
    }

    /// The current epoch: how many commits the group has taken.
    pub(crate) fn epoch(&self) -> u64 {
        self.mls.epoch().as_u64()
    }

    /// The subjects of all members, in the order of their leaves.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Arc<str>> {
        self.leaves.values().map(|leaf| &leaf.subject)
    }

    /// Whether somebody with this subject is a member.
    pub(crate) fn contains(&self, subject: &str) -> bool {
        self.leaf_index(subject).is_some()
    }

    /// Whether the member with this subject signs with this key, which is the one of
    /// its leaf. `None` if there is no such member.
    pub(crate) fn signs_with(&self, subject: &str, key: &[u8]) -> Option<bool> {
        let member = self.mls.member_at(self.leaf_index(subject)?)?;
        Some(member.signature_key == key)
    }

    /// When the token in our own leaf expires, in seconds since the Unix epoch. Peers that
    /// look at tokens again drop our messages from then on.
    pub(crate) fn credential_expires_at(&self) -> u64 {
        self.leaves.get(&self.mls.own_leaf_index()).map_or(0, |leaf| leaf.expires_at)
    }

    /// Whether we are still a member. Once removed there is no way back but a new welcome.
    pub(crate) fn is_active(&self) -> bool {
        self.mls.is_active()
    }

    pub(super) fn leaf_index(&self, subject: &str) -> Option<LeafNodeIndex> {
        self.leaves.iter().find(|(_, leaf)| &*leaf.subject == subject).map(|(index, _)| *index)
    }

    /// Encrypts a message to all members. `aad` travels beside it in the clear, and cannot
    /// be changed without the receivers noticing.
    ///
    /// # Errors
    ///
    /// [`EncryptError::Removed`] once we are no member any more.
    pub(crate) fn encrypt(&mut self, aad: &[u8], plaintext: &[u8]) -> Result<Bytes, EncryptError> {
        if !self.is_active() {
            return Err(EncryptError::Removed);
        }
        self.mls.set_aad(aad.to_vec());
        self.mls
            .create_message(&self.provider, &self.signer, plaintext)
            .map_err(|error| EncryptError::Invalid(error.to_string()))?
            .to_bytes()
            .map(Bytes::from)
            .map_err(|error| EncryptError::Invalid(error.to_string()))
    }

    /// Decrypts a message of another member, once.
    ///
    /// # Errors
    ///
    /// [`DecryptError`]. A message that was refused can be offered again; only
    /// [`DecryptError::FutureEpoch`] has a chance then.
    pub(crate) fn decrypt(&mut self, message: &[u8]) -> Result<Decrypted, DecryptError> {
        if !self.is_active() {
            return Err(DecryptError::Removed);
        }
        let Some(MlsMessageBodyIn::PrivateMessage(message)) = decode(message) else {
            return Err(DecryptError::Malformed);
        };
        if message.content_type() != ContentType::Application {
            return Err(DecryptError::Malformed);
        }
        if message.group_id() != self.mls.group_id() {
            return Err(DecryptError::OtherGroup);
        }
        let epoch = message.epoch().as_u64();
        let leaves = Arc::clone(self.leaves_at(epoch)?);
        let processed = self.mls.process_message(&self.provider, message)?;
        let Sender::Member(index) = processed.sender() else {
            return Err(DecryptError::SenderUnknown);
        };
        let leaf = leaves.get(index).ok_or(DecryptError::SenderUnknown)?;
        let aad = processed.aad().to_vec();
        match processed.into_content() {
            ProcessedMessageContent::ApplicationMessage(message) => Ok(Decrypted {
                plaintext: message.into_bytes().into(),
                aad,
                sender: Arc::clone(&leaf.subject),
                epoch,
            }),
            ProcessedMessageContent::OwnPrivateMessage => Err(DecryptError::OwnMessage),
            _ => Err(DecryptError::Malformed),
        }
    }

    /// Whether somebody has been a member from this epoch, whose messages can be
    /// decrypted, until now.
    pub(crate) fn stayed(&self, subject: &str, epoch: u64) -> bool {
        // Who speaks in the current epoch is a member: nothing to look up for most.
        let mut later = self.past.iter().filter(|(past, _)| *past > epoch);
        epoch == self.epoch()
            || self.contains(subject)
                && later.all(|(_, leaves)| leaves.values().any(|leaf| &*leaf.subject == subject))
    }

    /// The members of an epoch whose messages can be decrypted.
    fn leaves_at(&self, epoch: u64) -> Result<&Arc<Leaves>, DecryptError> {
        let current = self.epoch();
        if epoch == current {
            return Ok(&self.leaves);
        }
        if epoch > current {
            return Err(DecryptError::FutureEpoch { message: epoch, group: current });
        }
        self.past
            .iter()
            .find(|(past, _)| *past == epoch)
            .map(|(_, leaves)| leaves)
            .ok_or(DecryptError::PastEpochGone { message: epoch, group: current })
    }

    /// Takes over the members after a commit was merged. `before` was the epoch until now;
    /// `entered` are the leaves that came or were renewed, with their signature keys.
    pub(super) fn take_members(&mut self, before: u64, entered: &[(Vec<u8>, Leaf)]) {
        let leaves = self
            .mls
            .members()
            .filter_map(|member| {
                // Signature keys are unique in a tree (RFC 9420 §7.3).
                let leaf = entered
                    .iter()
                    .find(|(key, _)| *key == member.signature_key)
                    .map(|(_, leaf)| leaf)
                    .or_else(|| self.leaves.get(&member.index))?;
                Some((member.index, leaf.clone()))
            })
            .collect();
        let previous = std::mem::replace(&mut self.leaves, Arc::new(leaves));
        self.past.push_back((before, previous));
        if self.past.len() > PAST_EPOCHS {
            self.past.pop_front();
        }
    }
}

fn ratchet() -> SenderRatchetConfiguration {
    SenderRatchetConfiguration::new(GENERATIONS, GENERATIONS_AHEAD)
}

/// The settings of a group that we join.
pub(super) fn join_config() -> MlsGroupJoinConfig {
    MlsGroupJoinConfig::builder()
        .wire_format_policy(PURE_PLAINTEXT_WIRE_FORMAT_POLICY)
        .use_ratchet_tree_extension(true)
        .max_past_epochs(PAST_EPOCHS)
        .sender_ratchet_configuration(ratchet())
        .padding_size(PADDING)
        .build()
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group")
            .field("epoch", &self.epoch())
            .field("members", &self.leaves.len())
            .field("active", &self.is_active())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Decrypted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decrypted")
            .field("plaintext", &self.plaintext.len())
            .field("aad", &self.aad.len())
            .field("sender", &self.sender)
            .finish()
    }
}

/// Why no group could be created.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum CreateError {
    /// Our own identity token is not good.
    #[error("own credential refused")]
    Credential(#[from] CredentialError),
    /// Random numbers, a token too long, or a bug.
    #[error("no group: {0}")]
    Invalid(String),
}

/// Why a message could not be encrypted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum EncryptError {
    /// We are no member of the group any more.
    #[error("removed from the group")]
    Removed,
    /// Random numbers, a message too long, or a bug.
    #[error("cannot encrypt: {0}")]
    Invalid(String),
}

/// Why a message was not decrypted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum DecryptError {
    /// Not an encoded, encrypted application message.
    #[error("malformed message")]
    Malformed,
    /// It belongs to another group.
    #[error("message of another group")]
    OtherGroup,
    /// It is ahead of us: there are commits we have not taken yet.
    #[error("message of epoch {message}, the group is in {group}")]
    FutureEpoch {
        /// The epoch it was encrypted in.
        message: u64,
        /// Our epoch.
        group: u64,
    },
    /// It is so old, or from so long before we joined, that its keys are gone.
    #[error("keys of epoch {message} are gone, the group is in {group}")]
    PastEpochGone {
        /// The epoch it was encrypted in.
        message: u64,
        /// Our epoch.
        group: u64,
    },
    /// It was decrypted before.
    #[error("message was decrypted before")]
    Replayed,
    /// More than a thousand messages of this sender came after it.
    #[error("key of the message is gone")]
    KeyGone,
    /// More than a thousand messages of this sender are missing before it.
    #[error("message is too far ahead of its sender's last one")]
    TooFarAhead,
    /// Its sender was no member in that epoch.
    #[error("sender is no member")]
    SenderUnknown,
    /// It was altered, or not encrypted by a member.
    #[error("message is not authentic")]
    NotAuthentic,
    /// We sent it ourselves.
    #[error("own message")]
    OwnMessage,
    /// We are no member of the group any more.
    #[error("removed from the group")]
    Removed,
    /// Some other rule of RFC 9420 is broken; the text says which.
    #[error("invalid message: {0}")]
    Invalid(String),
}

impl<S: fmt::Display> From<ProcessMessageError<S>> for DecryptError {
    fn from(error: ProcessMessageError<S>) -> Self {
        let ProcessMessageError::ValidationError(error) = error else {
            return Self::Invalid(error.to_string());
        };
        match error {
            ValidationError::UnableToDecrypt(MessageDecryptionError::SecretTreeError(error)) => {
                match error {
                    SecretTreeError::SecretReuseError => Self::Replayed,
                    SecretTreeError::TooDistantInThePast => Self::KeyGone,
                    SecretTreeError::TooDistantInTheFuture => Self::TooFarAhead,
                    SecretTreeError::IndexOutOfBounds => Self::SenderUnknown,
                    error => Self::Invalid(error.to_string()),
                }
            }
            ValidationError::UnableToDecrypt(MessageDecryptionError::MalformedContent) => {
                Self::Malformed
            }
            ValidationError::UnableToDecrypt(_) | ValidationError::InvalidSignature => {
                Self::NotAuthentic
            }
            ValidationError::UnknownMember => Self::SenderUnknown,
            error => Self::Invalid(error.to_string()),
        }
    }
}
