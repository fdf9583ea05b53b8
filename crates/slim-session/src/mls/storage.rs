//! What OpenMLS is made to remember for one group: nearly nothing.
//!
//! A group object holds its whole state. What it writes besides is for being loaded
//! again after a restart, which is not done here, and writing it costs more than all
//! the cryptography of a message. Only what OpenMLS reads back while a group lives is
//! kept: the key pairs of the epoch, and the key package a welcome answers to.
//! Proposals travel inside commits, so none is ever queued.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use openmls_traits::storage::{CURRENT_VERSION, StorageProvider, traits};
use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;
use zeroize::Zeroizing;

/// The memory of one group, or of one key package that may become one.
#[derive(Default)]
pub(super) struct Storage(Mutex<Entries>);

#[derive(Default)]
struct Entries {
    key_package: Option<Encoded>,
    /// By group, epoch and leaf. There are two only while a commit is merged.
    epoch_key_pairs: BTreeMap<Vec<u8>, Encoded>,
}

/// OpenMLS hands over values of types it keeps to itself, so they can only be kept
/// encoded. They are private keys, wiped when dropped.
type Encoded = Zeroizing<Vec<u8>>;

/// A value of OpenMLS could not be encoded or decoded.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("key storage: {0}")]
pub(super) struct StorageError(String);

impl From<serde_json::Error> for StorageError {
    fn from(error: serde_json::Error) -> Self {
        // The category has no part of the value in it, unlike the message.
        Self(format!("{:?}", error.classify()))
    }
}

fn encode(value: &impl Serialize) -> Result<Encoded, StorageError> {
    Ok(Zeroizing::new(serde_json::to_vec(value)?))
}

fn decode<T: DeserializeOwned>(value: &Encoded) -> Result<T, StorageError> {
    Ok(serde_json::from_slice(value)?)
}

impl Storage {
    /// Forgets the private keys of the key package, once its group is joined.
    pub(super) fn forget_key_package(&self) {
        self.entries().key_package = None;
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        // No entry is ever left half written.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = self.entries();
        f.debug_struct("Storage")
            .field("key_package", &entries.key_package.is_some())
            .field("epochs", &entries.epoch_key_pairs.len())
            .finish()
    }
}

/// Writers and deleters that have nothing to do.
macro_rules! ignore {
    ($($name:ident<$($t:ident),*>($($argument:ty),*);)*) => {$(
        fn $name<$($t: traits::$t<CURRENT_VERSION>),*>(
            &self,
            $(_: $argument),*
        ) -> Result<(), StorageError> {
            Ok(())
        }
    )*};
}

/// Readers of what was never written.
macro_rules! nothing {
    ($($name:ident<$($t:ident),*>($key:ty) -> $value:ty;)*) => {$(
        fn $name<$($t: traits::$t<CURRENT_VERSION>),*>(
            &self,
            _: $key,
        ) -> Result<$value, StorageError> {
            Ok(Default::default())
        }
    )*};
}

impl StorageProvider<CURRENT_VERSION> for Storage {
    type Error = StorageError;

    fn write_encryption_epoch_key_pairs<
        GroupId: traits::GroupId<CURRENT_VERSION>,
        EpochKey: traits::EpochKey<CURRENT_VERSION>,
        HpkeKeyPair: traits::HpkeKeyPair<CURRENT_VERSION>,
    >(
        &self,
        group_id: &GroupId,
        epoch: &EpochKey,
        leaf_index: u32,
        key_pairs: &[HpkeKeyPair],
    ) -> Result<(), StorageError> {
        let key = serde_json::to_vec(&(group_id, epoch, leaf_index))?;
        let value = encode(&key_pairs)?;
        self.entries().epoch_key_pairs.insert(key, value);
        Ok(())
    }

    fn encryption_epoch_key_pairs<
        GroupId: traits::GroupId<CURRENT_VERSION>,
        EpochKey: traits::EpochKey<CURRENT_VERSION>,
        HpkeKeyPair: traits::HpkeKeyPair<CURRENT_VERSION>,
    >(
        &self,
        group_id: &GroupId,
        epoch: &EpochKey,
        leaf_index: u32,
    ) -> Result<Vec<HpkeKeyPair>, StorageError> {
        let key = serde_json::to_vec(&(group_id, epoch, leaf_index))?;
        let entries = self.entries();
        entries.epoch_key_pairs.get(&key).map_or_else(|| Ok(Vec::new()), decode)
    }

    fn delete_encryption_epoch_key_pairs<
        GroupId: traits::GroupId<CURRENT_VERSION>,
        EpochKey: traits::EpochKey<CURRENT_VERSION>,
    >(
        &self,
        group_id: &GroupId,
        epoch: &EpochKey,
        leaf_index: u32,
    ) -> Result<(), StorageError> {
        let key = serde_json::to_vec(&(group_id, epoch, leaf_index))?;
        self.entries().epoch_key_pairs.remove(&key);
        Ok(())
    }

    fn write_key_package<
        HashReference: traits::HashReference<CURRENT_VERSION>,
        KeyPackage: traits::KeyPackage<CURRENT_VERSION>,
    >(
        &self,
        _: &HashReference,
        key_package: &KeyPackage,
    ) -> Result<(), StorageError> {
        let value = encode(key_package)?;
        self.entries().key_package = Some(value);
        Ok(())
    }

    /// There is one at most, and whoever reads it has compared the reference.
    fn key_package<
        KeyPackageRef: traits::HashReference<CURRENT_VERSION>,
        KeyPackage: traits::KeyPackage<CURRENT_VERSION>,
    >(
        &self,
        _: &KeyPackageRef,
    ) -> Result<Option<KeyPackage>, StorageError> {
        self.entries().key_package.as_ref().map(decode).transpose()
    }

    /// OpenMLS deletes it on the first look. It must outlive a forged welcome, so it
    /// goes when the group is joined.
    fn delete_key_package<KeyPackageRef: traits::HashReference<CURRENT_VERSION>>(
        &self,
        _: &KeyPackageRef,
    ) -> Result<(), StorageError> {
        Ok(())
    }

    ignore! {
        write_mls_join_config<GroupId, MlsGroupJoinConfig>(&GroupId, &MlsGroupJoinConfig);
        append_own_leaf_node<GroupId, LeafNode>(&GroupId, &LeafNode);
        queue_proposal<GroupId, ProposalRef, QueuedProposal>(&GroupId, &ProposalRef, &QueuedProposal);
        write_tree<GroupId, TreeSync>(&GroupId, &TreeSync);
        write_interim_transcript_hash<GroupId, InterimTranscriptHash>(&GroupId, &InterimTranscriptHash);
        write_context<GroupId, GroupContext>(&GroupId, &GroupContext);
        write_confirmation_tag<GroupId, ConfirmationTag>(&GroupId, &ConfirmationTag);
        write_group_state<GroupState, GroupId>(&GroupId, &GroupState);
        write_message_secrets<GroupId, MessageSecrets>(&GroupId, &MessageSecrets);
        write_resumption_psk_store<GroupId, ResumptionPskStore>(&GroupId, &ResumptionPskStore);
        write_own_leaf_index<GroupId, LeafNodeIndex>(&GroupId, &LeafNodeIndex);
        write_group_epoch_secrets<GroupId, GroupEpochSecrets>(&GroupId, &GroupEpochSecrets);
        write_signature_key_pair<SignaturePublicKey, SignatureKeyPair>(&SignaturePublicKey, &SignatureKeyPair);
        write_encryption_key_pair<EncryptionKey, HpkeKeyPair>(&EncryptionKey, &HpkeKeyPair);
        write_psk<PskId, PskBundle>(&PskId, &PskBundle);
        remove_proposal<GroupId, ProposalRef>(&GroupId, &ProposalRef);
        delete_own_leaf_nodes<GroupId>(&GroupId);
        delete_group_config<GroupId>(&GroupId);
        delete_tree<GroupId>(&GroupId);
        delete_confirmation_tag<GroupId>(&GroupId);
        delete_group_state<GroupId>(&GroupId);
        delete_context<GroupId>(&GroupId);
        delete_interim_transcript_hash<GroupId>(&GroupId);
        delete_message_secrets<GroupId>(&GroupId);
        delete_all_resumption_psk_secrets<GroupId>(&GroupId);
        delete_own_leaf_index<GroupId>(&GroupId);
        delete_group_epoch_secrets<GroupId>(&GroupId);
        clear_proposal_queue<GroupId, ProposalRef>(&GroupId);
        delete_signature_key_pair<SignaturePublicKey>(&SignaturePublicKey);
        delete_encryption_key_pair<EncryptionKey>(&EncryptionKey);
        delete_psk<PskId>(&PskId);
    }

    nothing! {
        mls_group_join_config<GroupId, MlsGroupJoinConfig>(&GroupId) -> Option<MlsGroupJoinConfig>;
        own_leaf_nodes<GroupId, LeafNode>(&GroupId) -> Vec<LeafNode>;
        queued_proposal_refs<GroupId, ProposalRef>(&GroupId) -> Vec<ProposalRef>;
        queued_proposals<GroupId, ProposalRef, QueuedProposal>(&GroupId) -> Vec<(ProposalRef, QueuedProposal)>;
        tree<GroupId, TreeSync>(&GroupId) -> Option<TreeSync>;
        group_context<GroupId, GroupContext>(&GroupId) -> Option<GroupContext>;
        interim_transcript_hash<GroupId, InterimTranscriptHash>(&GroupId) -> Option<InterimTranscriptHash>;
        confirmation_tag<GroupId, ConfirmationTag>(&GroupId) -> Option<ConfirmationTag>;
        group_state<GroupState, GroupId>(&GroupId) -> Option<GroupState>;
        message_secrets<GroupId, MessageSecrets>(&GroupId) -> Option<MessageSecrets>;
        resumption_psk_store<GroupId, ResumptionPskStore>(&GroupId) -> Option<ResumptionPskStore>;
        own_leaf_index<GroupId, LeafNodeIndex>(&GroupId) -> Option<LeafNodeIndex>;
        group_epoch_secrets<GroupId, GroupEpochSecrets>(&GroupId) -> Option<GroupEpochSecrets>;
        signature_key_pair<SignaturePublicKey, SignatureKeyPair>(&SignaturePublicKey) -> Option<SignatureKeyPair>;
        encryption_key_pair<HpkeKeyPair, EncryptionKey>(&EncryptionKey) -> Option<HpkeKeyPair>;
        psk<PskBundle, PskId>(&PskId) -> Option<PskBundle>;
    }
}
