//! The MLS side of a session: its group, and the numbers of its commits.

use std::collections::BTreeMap;

use bytes::Bytes;
use slim_auth::Claims;
use slim_proto::{MlsPayload, Name, NameId, RouteName};

use crate::api::MlsState;
use crate::mls::{
    AddCommit, CommitError, CreateError, DecryptError, Decrypted, Effect, EncryptError, Group,
    JoinError, Joiner, KeyPackageRefused, Newcomer, ProcessError, SUITE_NAME, Vetting,
};
use crate::outbox::Context;

/// A session's encryption. There is no group before the first member joins, or
/// before our own welcome.
#[derive(Debug, Default)]
pub(crate) struct Encryption {
    joiner: Option<Joiner>,
    group: Option<Group>,
    /// Number of the last commit that was made or applied.
    last_commit: u32,
    /// Subjects of those that were let in under a name that does not follow from it.
    unbound: BTreeMap<RouteName, String>,
}

/// A commit for the members and a welcome for the new ones, both with their number.
#[derive(Debug)]
pub(crate) struct Added {
    pub(crate) commit: MlsPayload,
    pub(crate) welcome: MlsPayload,
}

/// Something about the encryption of a session went wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EncryptionError {
    #[error("no identity token")]
    NoToken,
    #[error("no group yet")]
    NoGroup,
    #[error(transparent)]
    Create(#[from] CreateError),
    #[error(transparent)]
    Commit(#[from] CommitError),
    #[error(transparent)]
    KeyPackage(#[from] KeyPackageRefused),
    #[error(transparent)]
    Join(#[from] JoinError),
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error(transparent)]
    Encrypt(#[from] EncryptError),
    #[error(transparent)]
    Decrypt(#[from] DecryptError),
}

impl Encryption {
    pub(crate) fn epoch(&self) -> Option<u64> {
        self.group.as_ref().map(Group::epoch)
    }

    /// Whether the member with this subject signs with this key; see
    /// [`Group::signs_with`].
    pub(crate) fn signs_with(&self, subject: &str, key: &[u8]) -> Option<bool> {
        self.group.as_ref()?.signs_with(subject, key)
    }

    /// Whether the sender of a message has been a member ever since.
    pub(crate) fn stayed(&self, message: &Decrypted) -> bool {
        let group = self.group.as_ref();
        group.is_some_and(|group| group.stayed(&message.sender, message.epoch))
    }

    pub(crate) fn last_commit(&self) -> u32 {
        self.last_commit
    }

    pub(crate) fn state(&self) -> Option<MlsState> {
        self.epoch().map(|epoch| MlsState { suite: SUITE_NAME, epoch })
    }

    // ------------------------------------------------------------ moderator

    /// Checks whether somebody can be added; the group is made for the first.
    pub(crate) fn vet(
        &mut self,
        cx: &mut Context<'_>,
        name: &Name,
        key_package: &[u8],
        claims: &Claims,
    ) -> Result<Newcomer, EncryptionError> {
        if self.group.is_none() {
            let token = cx.voice.token(cx.now, cx.rng).ok_or(EncryptionError::NoToken)?;
            let key = cx.voice.key().clone();
            self.group = Some(Group::create(key, &token, cx.gate.verifier.as_ref(), cx.now.unix)?);
        }
        let group = self.group.as_ref().ok_or(EncryptionError::NoGroup)?;
        let verifier = cx.gate.verifier.as_ref();
        let newcomer = group.vet(key_package, &claims.subject, verifier, cx.now.unix)?;
        if name.id() != NameId::of_subject(&claims.subject) {
            self.unbound.insert(name.route(), claims.subject.clone());
        }
        Ok(newcomer)
    }

    /// Adds them with one commit.
    pub(crate) fn add(&mut self, newcomers: Vec<Newcomer>) -> Result<Added, EncryptionError> {
        let group = self.group.as_mut().ok_or(EncryptionError::NoGroup)?;
        let added = group.add_all(newcomers)?;
        Ok(self.numbered(added))
    }

    /// Takes a member out and puts it back with new keys.
    pub(crate) fn rejoin(
        &mut self,
        cx: &mut Context<'_>,
        key_package: &[u8],
        claims: &Claims,
    ) -> Result<Added, EncryptionError> {
        let group = self.group.as_mut().ok_or(EncryptionError::NoGroup)?;
        let verifier = cx.gate.verifier.as_ref();
        let added = group.rejoin(key_package, &claims.subject, verifier, cx.now.unix)?;
        Ok(self.numbered(added))
    }

    fn numbered(&mut self, added: AddCommit) -> Added {
        self.last_commit += 1;
        let payload = |mls_content| MlsPayload { commit_id: self.last_commit, mls_content };
        Added { commit: payload(added.commit), welcome: payload(added.welcome) }
    }

    /// Removes a member. `None` if it is not in the group.
    pub(crate) fn remove(&mut self, name: &Name) -> Result<Option<MlsPayload>, EncryptionError> {
        let Some(group) = self.group.as_mut() else {
            return Ok(None);
        };
        let subject = self.unbound.remove(&name.route()).or_else(|| {
            let mut members = group.members();
            let member = members.find(|subject| NameId::of_subject(subject) == name.id());
            member.map(|subject| subject.to_string())
        });
        let Some(subject) = subject.filter(|subject| group.contains(subject)) else {
            return Ok(None);
        };
        let mls_content = group.remove(&subject)?;
        self.last_commit += 1;
        Ok(Some(MlsPayload { commit_id: self.last_commit, mls_content }))
    }

    /// When the token in our leaf expires, in seconds since the Unix epoch.
    pub(crate) fn credential_expires_at(&self) -> Option<u64> {
        self.group.as_ref().map(Group::credential_expires_at)
    }

    /// Renews the token in our leaf.
    pub(crate) fn refresh(&mut self, cx: &mut Context<'_>) -> Result<MlsPayload, EncryptionError> {
        let token = cx.voice.token(cx.now, cx.rng).ok_or(EncryptionError::NoToken)?;
        let group = self.group.as_mut().ok_or(EncryptionError::NoGroup)?;
        let verifier = cx.gate.verifier.as_ref();
        let mls_content = group.refresh_credential(&token, verifier, cx.now.unix)?;
        self.last_commit += 1;
        Ok(MlsPayload { commit_id: self.last_commit, mls_content })
    }

    // ------------------------------------------------------------ participant

    pub(crate) fn key_package(&mut self, cx: &mut Context<'_>) -> Result<Bytes, EncryptionError> {
        let token = cx.voice.token(cx.now, cx.rng).ok_or(EncryptionError::NoToken)?;
        let key = cx.voice.key();
        let joiner = self.joiner.get_or_insert_with(|| Joiner::new(key.clone()));
        Ok(joiner.key_package(&token, cx.now.unix)?)
    }

    /// Joins by the welcome of the moderator, who showed `claims` with it.
    pub(crate) fn join(
        &mut self,
        cx: &Context<'_>,
        welcome: &[u8],
        commit_id: u32,
        claims: &Claims,
    ) -> Result<(), EncryptionError> {
        let joiner = self.joiner.as_mut().ok_or(EncryptionError::NoGroup)?;
        self.group = Some(joiner.join(welcome, &claims.subject, &vetting(cx))?);
        self.last_commit = commit_id;
        Ok(())
    }

    /// Applies the next commit. Gives whether it removes ourselves.
    pub(crate) fn apply(
        &mut self,
        cx: &Context<'_>,
        payload: &MlsPayload,
    ) -> Result<bool, EncryptionError> {
        let group = self.group.as_mut().ok_or(EncryptionError::NoGroup)?;
        let effect = group.process_commit(&payload.mls_content, &vetting(cx))?;
        self.last_commit = payload.commit_id;
        Ok(effect == Effect::SelfRemoved)
    }

    // ------------------------------------------------------------ data

    pub(crate) fn encrypt(
        &mut self,
        aad: &[u8],
        plaintext: &[u8],
    ) -> Result<Bytes, EncryptionError> {
        let group = self.group.as_mut().ok_or(EncryptionError::NoGroup)?;
        Ok(group.encrypt(aad, plaintext)?)
    }

    pub(crate) fn decrypt(&mut self, message: &[u8]) -> Result<Decrypted, EncryptionError> {
        let group = self.group.as_mut().ok_or(EncryptionError::NoGroup)?;
        Ok(group.decrypt(message)?)
    }
}

/// What the moderator sends it vouches for with a fresh token of its own, so the
/// age of the tokens in the tree is no fault.
fn vetting<'a>(cx: &Context<'a>) -> Vetting<'a> {
    Vetting { verifier: cx.gate.verifier.as_ref(), now: cx.now.unix, accept_expired: true }
}
