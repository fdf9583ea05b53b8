//! End-to-end encryption of a session with MLS (RFC 9420), by OpenMLS.
//!
//! The moderator has a [`Group`] from the start and is the only one who changes it:
//! each change is a commit that the members take in their order. A participant makes
//! key packages with a [`Joiner`] and gets its [`Group`] from the welcome that answers
//! one. Both encrypt and decrypt with it.
//!
//! One cipher suite (P-256, AES-128-GCM), basic credentials that are identity tokens,
//! commits in the clear, no extensions, no proposals outside of commits. All messages
//! in and out are complete `MLSMessage`s.
//!
//! | what arrives | member, same epoch | later epoch | earlier epoch | removed |
//! |---|---|---|---|---|
//! | commit of the moderator | applied, or `SelfRemoved` | `FutureEpoch` | `PastEpoch` | `Removed` |
//! | commit of anybody else | `NotModerator` | `FutureEpoch` | `PastEpoch` | `Removed` |
//! | data | decrypted once | `FutureEpoch` | decrypted once for five epochs back | `Removed` |
//! | anything broken | refused, nothing changes | refused | refused | refused |
//!
//! Changes are staged first, everything about them is checked, then they are merged;
//! whatever is refused leaves the group as it was.
//!
//! OpenMLS reads the system's clock to check the lifetime of key packages that are
//! added, and for nothing else that matters. A simulation has to keep its time within
//! the year before the real one.

mod commit;
mod credential;
mod group;
mod joiner;
mod process;
mod provider;
mod storage;
#[cfg(test)]
mod tests;

use openmls::prelude::{
    Capabilities, Ciphersuite, CredentialType, Lifetime, MlsMessageBodyIn, MlsMessageIn,
    ProtocolVersion, tls_codec::Deserialize as _,
};

pub(crate) use self::{
    commit::{AddCommit, CommitError, Newcomer},
    credential::Vetting,
    group::{CreateError, DecryptError, Decrypted, EncryptError, Group},
    joiner::{JoinError, Joiner, KeyPackageRefused},
    process::{Effect, ProcessError},
};

const CIPHER_SUITE: Ciphersuite = Ciphersuite::MLS_128_DHKEMP256_AES128GCM_SHA256_P256;

/// Its name in the registry (RFC 9420 §17.1).
pub(crate) const SUITE_NAME: &str = "MLS_128_DHKEMP256_AES128GCM_SHA256_P256";

/// How many epochs back a message is still decrypted. Enough for what crosses commits
/// on the way; peers of other makes keep all.
const PAST_EPOCHS: usize = 5;

/// How many messages of one sender may be late within an epoch. The skipped keys are
/// kept, so this bounds memory per sender, too.
const GENERATIONS: u32 = 1024;

/// How many messages of one sender may be missing in a row within an epoch; beyond, none
/// of it can be read until the next. Every copy for every member counts: 512 open
/// messages, sent eleven times to eleven others. It bounds the work for one message.
const GENERATIONS_AHEAD: u32 = 1 << 16;

/// Plaintexts are padded to a multiple of this many bytes, so that their exact length
/// stays hidden.
const PADDING: usize = 32;

/// Seconds before its making from which a leaf is valid, for clocks that are behind.
const LIFETIME_MARGIN: u64 = 3600;

/// Seconds after its making until which a leaf is valid. The identity token in it ends
/// much earlier.
const LIFETIME: u64 = 365 * 24 * 3600;

fn capabilities() -> Capabilities {
    Capabilities::new(
        Some(&[ProtocolVersion::Mls10]),
        Some(&[CIPHER_SUITE]),
        Some(&[]),
        Some(&[]),
        Some(&[CredentialType::Basic]),
    )
}

fn lifetime(now: u64) -> Lifetime {
    Lifetime::init(now.saturating_sub(LIFETIME_MARGIN), now.saturating_add(LIFETIME))
}

/// Decodes one complete `MLSMessage` (RFC 9420 §6).
fn decode(mut message: &[u8]) -> Option<MlsMessageBodyIn> {
    let decoded = MlsMessageIn::tls_deserialize(&mut message).ok()?;
    message.is_empty().then(|| decoded.extract())
}
