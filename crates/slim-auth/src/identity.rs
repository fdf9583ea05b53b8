//! What every kind of identity can do, and what every verifier answers.

use std::fmt::Debug;

use rand::Rng;
use thiserror::Error;

use crate::{
    jwt::Algorithm,
    key::{PublicKey, PublicKeyError, SigningKey},
    shown::{Shown, Span},
};

/// Who we are: a subject, a signing key, and tokens that bind the key to the subject.
pub trait Identity: Debug + Send + Sync {
    /// The name other participants verify us under. Constant for the life of the object.
    fn subject(&self) -> &str;

    /// The key pair whose public half is in every token.
    ///
    /// It signs control messages and the leaf of each encrypted group.
    fn key(&self) -> &SigningKey;

    /// A token valid at `now`, in seconds since the Unix epoch.
    ///
    /// # Errors
    ///
    /// When no valid token can be had at the moment. Trying again later may help.
    fn token(&self, now: u64, rng: &mut dyn Rng) -> Result<String, TokenError>;
}

/// Decides what a received token is worth.
pub trait Verifier: Debug + Send + Sync {
    /// Checks everything about a token except whether it has expired.
    ///
    /// This is for a token that was verified in time by somebody trusted and is only
    /// read late: a joiner finds credentials in a group that are older than their
    /// tokens last. Everywhere else use [`Verifier::verify`].
    ///
    /// # Errors
    ///
    /// Any [`VerifyError`] but [`VerifyError::Expired`].
    fn authenticate(&self, token: &str, now: u64) -> Result<Claims, VerifyError>;

    /// Checks a token completely, at `now` in seconds since the Unix epoch.
    ///
    /// # Errors
    ///
    /// [`VerifyError::Expired`] if its age is the only fault, else what
    /// [`Verifier::authenticate`] says.
    fn verify(&self, token: &str, now: u64) -> Result<Claims, VerifyError> {
        let claims = self.authenticate(token, now)?;
        if now > claims.expires_at {
            return Err(VerifyError::Expired { ago: now - claims.expires_at });
        }
        Ok(claims)
    }

    /// Whether a good token shows that its maker may speak for the subject, and not
    /// merely that it belongs to a circle in which everybody can make a token for anybody.
    /// Only then does a new key under a known subject count as the same one, started
    /// again. Default false.
    fn tells_apart(&self) -> bool {
        false
    }
}

/// What a verified token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// The name the token speaks for.
    pub subject: String,
    /// The key the subject signs with.
    pub public_key: PublicKey,
    /// When the token was made, in seconds since the Unix epoch, if it says so.
    pub issued_at: Option<u64>,
    /// The last second since the Unix epoch at which the verifier takes the token,
    /// its allowance for clocks included.
    pub expires_at: u64,
    /// Who issued the token, if somebody other than the subject did.
    pub issuer: Option<String>,
}

/// Why an identity has no token to give.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TokenError {
    /// The source of the tokens has none that is valid now; the text says which source.
    #[error("no valid token at hand: {0}")]
    Unavailable(String),
}

/// Why a token was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum VerifyError {
    /// The text is no token of the expected kind; names the part at fault.
    #[error("malformed token: {0}")]
    Malformed(&'static str),
    /// A token of another kind of identity.
    #[error("the token is {found}, expected {expected}")]
    OtherKind {
        /// What it looks like.
        found: &'static str,
        /// What we verify.
        expected: &'static str,
    },
    /// The authentication code is not ours: the two sides hold different secrets, or
    /// the token was altered.
    #[error("the token was made with a different secret")]
    BadMac,
    /// Authentic, but too old.
    #[error("the token expired {} ago", Span(*ago))]
    Expired {
        /// Seconds since it was last valid.
        ago: u64,
    },
    /// Authentic, but made later than now: the clocks disagree.
    #[error("the token is from the future: the clock of who made it is {} ahead of ours", Span(*ahead))]
    FromFuture {
        /// Seconds it is ahead of our clock.
        ahead: u64,
    },
    /// Authentic, but it names no public key, so nothing can be signed under it.
    #[error("the token names no public key")]
    NoPublicKey,
    /// Authentic, but what it gives as public key is none we know.
    #[error("unusable public key in the token: {0}")]
    PublicKey(#[from] PublicKeyError),
    /// It says that it is signed in another way than the key it is for.
    #[error("the token is signed with {found}, its key is for {expected}")]
    Algorithm {
        /// What its header says.
        found: Shown,
        /// What the key is for.
        expected: Algorithm,
    },
    /// Nobody whom we know has signed it, or it was altered.
    #[error("the signature of the token is not that of {}", key_named(key_id.as_ref()))]
    BadSignature {
        /// The id of the key that should have signed it, if it names one.
        key_id: Option<Shown>,
    },
    /// It names a key that we do not have, and none of ours signed it.
    #[error("key id {0} of the token is unknown")]
    UnknownKey(Shown),
    /// The keys of its issuer could not be had yet. Later it may be good.
    #[error("the keys of issuer {0} are not at hand")]
    KeysNotAtHand(Shown),
    /// Somebody else issued it.
    #[error("the token is issued by {found}, expected {expected}")]
    Issuer {
        /// Who did.
        found: Shown,
        /// Who should have.
        expected: Shown,
    },
    /// It is for others.
    #[error("audience {found} of the token is not among {expected}")]
    Audience {
        /// For whom.
        found: Shown,
        /// For whom it should be.
        expected: Shown,
    },
    /// It is for an audience, and we have not been told which one is ours.
    #[error("the token is for audience {0}, and no audience is configured here")]
    UnaskedAudience(Shown),
    /// It is one of those that are in messages, and so in many hands.
    #[error(
        "the token is one for messages, which everybody has who gets a message: here it has to \
         be one without the claim pubkey"
    )]
    OfMessages,
    /// A claim that must be there is not, or has no text.
    #[error("the token has no claim {0}")]
    Missing(&'static str),
    /// The key that signed it may not speak for its subject.
    #[error("the token is for {subject}, and signed with the key of {key}")]
    ForeignSubject {
        /// For whom it speaks.
        subject: Shown,
        /// Whose key it is.
        key: Shown,
    },
}

fn key_named(id: Option<&Shown>) -> String {
    id.map_or_else(|| "a key that we know".to_owned(), |id| format!("key id {id}"))
}

/// The kinds of tokens, in words.
pub(crate) const A_JWT: &str = "a JSON Web Token";
pub(crate) const A_SECRETS: &str = "one of a shared secret";
