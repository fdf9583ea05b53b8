//! Getting into a group: key packages out, welcomes in.

use std::{collections::VecDeque, fmt, sync::Arc};

use bytes::Bytes;
use openmls::prelude::{
    BasicCredential, CredentialWithKey, KeyPackage, MlsMessageBodyIn, MlsMessageOut,
    OpenMlsProvider as _, StagedWelcome, Welcome,
};
use slim_auth::SigningKey;
use thiserror::Error;

use super::{
    CIPHER_SUITE, capabilities,
    credential::{CredentialError, Leaves, Vetting},
    decode,
    group::{Group, join_config},
    lifetime,
    provider::{LeafSigner, Provider},
};

/// How many key packages may wait for their welcome. Each answers one copy of a join
/// request; when there are more, the oldest is forgotten, and its welcome with it.
const MAX_OUTSTANDING: usize = 8;

/// A participant's side of becoming a member: the private halves of its key packages.
pub(crate) struct Joiner {
    signer: LeafSigner,
    outstanding: VecDeque<Outstanding>,
}

struct Outstanding {
    /// The reference by which a welcome names the key package (RFC 9420 §5.2).
    reference: Vec<u8>,
    /// Holds the private keys, and becomes the group's.
    provider: Provider,
}

impl Joiner {
    /// A joiner that signs with the application's key.
    pub(crate) fn new(key: SigningKey) -> Self {
        Self { signer: LeafSigner(key), outstanding: VecDeque::new() }
    }

    /// Makes a key package with `token` as credential, at `now` in seconds since the Unix
    /// epoch. It is good for one welcome.
    ///
    /// # Errors
    ///
    /// [`KeyPackageRefused`] is a fault of ours.
    pub(crate) fn key_package(
        &mut self,
        token: &str,
        now: u64,
    ) -> Result<Bytes, KeyPackageRefused> {
        let refused = |error: &dyn fmt::Display| KeyPackageRefused(error.to_string());
        let provider = Provider::default();
        let bundle = KeyPackage::builder()
            .key_package_lifetime(lifetime(now))
            .leaf_node_capabilities(capabilities())
            .build(CIPHER_SUITE, &provider, &self.signer, credential(token, &self.signer))
            .map_err(|error| refused(&error))?;
        let reference = bundle
            .key_package()
            .hash_ref(provider.crypto())
            .map_err(|error| refused(&error))?
            .as_slice()
            .to_vec();
        let message = MlsMessageOut::from(bundle).to_bytes().map_err(|error| refused(&error))?;
        self.outstanding.push_back(Outstanding { reference, provider });
        if self.outstanding.len() > MAX_OUTSTANDING {
            self.outstanding.pop_front();
        }
        Ok(message.into())
    }

    /// Joins the group that a welcome invites one of our key packages to.
    ///
    /// The welcome must come from the leaf of `moderator`, the subject whose control
    /// message carried it, and the credential of every leaf must pass the vetting. The key
    /// package is used up if and only if this succeeds.
    ///
    /// # Errors
    ///
    /// [`JoinError`]. The same welcome will not do better a second time.
    pub(crate) fn join(
        &mut self,
        welcome: &[u8],
        moderator: &str,
        vetting: &Vetting<'_>,
    ) -> Result<Group, JoinError> {
        let Some(MlsMessageBodyIn::Welcome(welcome)) = decode(welcome) else {
            return Err(JoinError::Malformed);
        };
        let index = self
            .outstanding
            .iter()
            .position(|outstanding| is_for(&welcome, &outstanding.reference))
            .ok_or(JoinError::NoKeyPackage)?;
        let provider = &self.outstanding[index].provider;
        // Lifetimes are the adder's to check: leaves stay in the tree beyond theirs.
        let staged = StagedWelcome::build_from_welcome(provider, &join_config(), welcome)
            .and_then(|builder| builder.skip_lifetime_validation().build())
            .map_err(|error| JoinError::Invalid(error.to_string()))?;
        let leaves = vet_members(&staged, vetting)?;
        let sender = staged.welcome_sender_index();
        match leaves.get(&sender) {
            Some(leaf) if &*leaf.subject == moderator => {}
            _ => return Err(JoinError::NotModerator),
        }
        let mls =
            staged.into_group(provider).map_err(|error| JoinError::Invalid(error.to_string()))?;
        let Some(Outstanding { provider, .. }) = self.outstanding.remove(index) else {
            return Err(JoinError::NoKeyPackage);
        };
        provider.storage().forget_key_package();
        Ok(Group::new(mls, provider, self.signer.clone(), leaves, sender))
    }
}

/// Whether a welcome names the key package with this reference.
fn is_for(welcome: &Welcome, reference: &[u8]) -> bool {
    welcome.secrets().iter().any(|secret| secret.new_member().as_slice() == reference)
}

fn vet_members(staged: &StagedWelcome, vetting: &Vetting<'_>) -> Result<Leaves, JoinError> {
    let mut leaves = Leaves::new();
    for member in staged.members() {
        let leaf = vetting
            .leaf(&member.credential, &member.signature_key)
            .map_err(|source| JoinError::Credential { leaf: member.index.u32(), source })?;
        if leaves.values().any(|other| other.subject == leaf.subject) {
            return Err(JoinError::SubjectTwice(leaf.subject));
        }
        leaves.insert(member.index, leaf);
    }
    Ok(leaves)
}

/// The application's key with a token for it, as OpenMLS wants them.
pub(super) fn credential(token: &str, signer: &LeafSigner) -> CredentialWithKey {
    CredentialWithKey {
        credential: BasicCredential::new(token.as_bytes().to_vec()).into(),
        signature_key: signer.0.public_key().as_bytes().into(),
    }
}

impl fmt::Debug for Joiner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Joiner")
            .field("outstanding", &self.outstanding.len())
            .finish_non_exhaustive()
    }
}

/// A key package could not be made: random numbers, a token too long, or a bug.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("no key package: {0}")]
pub(crate) struct KeyPackageRefused(String);

/// Why a welcome was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum JoinError {
    /// Not an encoded welcome.
    #[error("malformed welcome")]
    Malformed,
    /// It is for none of the key packages that are outstanding.
    #[error("the welcome is for no key package of ours")]
    NoKeyPackage,
    /// It was not made by the leaf of the moderator.
    #[error("the welcome is not the moderator's")]
    NotModerator,
    /// A leaf's credential was refused.
    #[error("credential of leaf {leaf} refused")]
    Credential {
        /// The index of the leaf.
        leaf: u32,
        /// What is wrong with it.
        source: CredentialError,
    },
    /// Two leaves claim to be the same member.
    #[error("two leaves for {0}")]
    SubjectTwice(Arc<str>),
    /// It does not hold what RFC 9420 §12.4.3.1 asks of it; the text says what.
    #[error("invalid welcome: {0}")]
    Invalid(String),
}
