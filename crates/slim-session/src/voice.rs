//! How we speak: the token in every header and the signatures of commands.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rand::{RngExt, rngs::StdRng};
use slim_auth::{Identity, SignError, SigningKey};
use slim_proto::{Body, Message, Publish, canonical};
use tracing::error;

use crate::api::Now;

/// A token is used for this many seconds before a new one is made. Any fraction
/// of a token's life is allowed; this one keeps every token young.
const TOKEN_REUSE_SECS: u64 = 30;

/// Our identity, and the token in use.
#[derive(Debug)]
pub(crate) struct Voice {
    identity: Arc<dyn Identity>,
    token: Option<Token>,
}

struct Token {
    made_at: u64,
    text: String,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("made_at", &self.made_at).finish_non_exhaustive()
    }
}

impl Voice {
    pub(crate) fn new(identity: Arc<dyn Identity>) -> Self {
        Self { identity, token: None }
    }

    pub(crate) fn subject(&self) -> &str {
        self.identity.subject()
    }

    pub(crate) fn key(&self) -> &SigningKey {
        self.identity.key()
    }

    /// A token that is valid now; `None`, and a line in the log, if the identity
    /// has none. What needed it is then not sent, as if it were lost on the way.
    pub(crate) fn token(&mut self, now: Now, rng: &mut StdRng) -> Option<String> {
        let fresh = |token: &Token| now.unix.abs_diff(token.made_at) < TOKEN_REUSE_SECS;
        if self.token.as_ref().is_none_or(|token| !fresh(token)) {
            match self.identity.token(now.unix, rng) {
                Ok(text) => self.token = Some(Token { made_at: now.unix, text }),
                Err(reason) => {
                    error!(%reason, "nothing can be sent without a token");
                    return None;
                }
            }
        }
        self.token.as_ref().map(|token| token.text.clone())
    }

    /// Completes a message for the wire: the identity first, since everything
    /// else covers it, then the signatures of a command (wire protocol, control
    /// message signatures).
    pub(crate) fn finish(
        &mut self,
        mut publish: Publish,
        now: Now,
        rng: &mut StdRng,
    ) -> Option<Message> {
        publish.header.identity = self.token(now, rng)?;
        if matches!(publish.body, Body::Command(_)) {
            let signed = sign_command(self.key(), &mut publish);
            signed.inspect_err(|reason| error!(%reason, "cannot sign")).ok()?;
        }
        Some(Message::Publish(publish))
    }
}

/// Signs a command as every receiver checks it (wire protocol, control message
/// signatures). Its header has to be complete, the token included. Sessions do this by
/// themselves; it is for who asks without one.
///
/// # Errors
/// If the system gives no random numbers.
pub fn sign_command(key: &SigningKey, publish: &mut Publish) -> Result<(), SignError> {
    let aad = canonical::header_aad(publish);
    publish.header.e2e_header_sig = Some(key.sign(&aad)?.into());
    let input = canonical::payload_signing_input(&aad, publish);
    let signature = STANDARD.encode(key.sign(&input)?);
    publish.metadata.insert(canonical::PAYLOAD_SIGNATURE.to_owned(), signature);
    Ok(())
}

/// A message id for a command: random, and never 0, which receivers refuse.
pub(crate) fn command_id(rng: &mut StdRng) -> u32 {
    rng.random_range(1..=u32::MAX)
}
