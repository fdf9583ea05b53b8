//! The one gate: a command has to show who sent it before anything acts on it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use slim_auth::{Claims, Shown, Verifier, VerifyError};
use slim_proto::Body;
use slim_proto::{Command, MessageType, Name, NameId, Publish, RouteName, SessionId, canonical};

use crate::api::{IdentityBinding, Output};
use crate::outbox::Outbox;

/// A command whose token, source and signatures fit together.
///
/// It can only be had from [`Gate::authenticate`]. That the sender may say *this* is
/// for the session to decide, which knows the roles.
#[derive(Debug)]
pub(crate) struct Authentic {
    pub(crate) source: Name,
    pub(crate) destination: Name,
    pub(crate) session_type: slim_proto::SessionType,
    pub(crate) session_id: SessionId,
    pub(crate) message_id: u32,
    pub(crate) command: Command,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) claims: Claims,
}

/// Why a command does not pass.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("not a command")]
    NotACommand,
    #[error("message id 0")]
    ZeroId,
    #[error("identity: {0}")]
    Token(#[from] VerifyError),
    #[error("the source name is not the one of the identity")]
    ForeignName,
    #[error("no header signature")]
    NoHeaderSignature,
    #[error("the header signature does not verify")]
    HeaderSignature,
    #[error("no payload signature")]
    NoPayloadSignature,
    #[error("the payload signature does not verify")]
    PayloadSignature,
}

/// Something that does not follow from the identity that goes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unbound {
    Name,
    Payload,
    Channel,
}

impl Unbound {
    fn in_words(self) -> &'static str {
        match self {
            Self::Name => "its name is not the one of its identity",
            Self::Payload => "the content of its commands is not signed",
            Self::Channel => "it invites to a channel that is not the one of its identity",
        }
    }
}

impl Refusal {
    /// Why whoever sent this cannot be in a session with us, as far as it tells that.
    pub(crate) fn in_words(&self) -> Option<String> {
        match self {
            Self::Token(VerifyError::BadMac) => Some("secrets differ".to_owned()),
            Self::Token(error) => Some(error.to_string()),
            // The reference before its version 3 signs less.
            Self::NoHeaderSignature | Self::NoPayloadSignature => {
                let words = "its commands are not signed, as in older versions of the protocol";
                Some(words.to_owned())
            }
            _ => None,
        }
    }
}

/// Why somebody does not believe us, as its own words in an authentic GROUP_NACK say.
pub(crate) fn refusal_of_us(nack: &Authentic) -> String {
    with_words("it does not verify us", nack, canonical::REFUSAL)
}

/// Why somebody does not want to join, if that is what an authentic GROUP_NACK says.
pub(crate) fn declined(nack: &Authentic) -> Option<String> {
    let declines = nack.metadata.contains_key(canonical::DECLINED);
    declines.then(|| with_words("it does not want to join", nack, canonical::DECLINED))
}

fn with_words(what: &str, nack: &Authentic, key: &str) -> String {
    match nack.metadata.get(key).filter(|words| !words.is_empty()) {
        Some(words) => format!("{what}: {}", Shown::up_to(MAX_WORDS, words)),
        None => what.to_owned(),
    }
}

/// So many characters of a reason are passed on.
const MAX_WORDS: usize = 400;

/// What everything from others passes, or not.
#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) verifier: Arc<dyn Verifier>,
    pub(crate) binding: IdentityBinding,
}

impl Gate {
    /// Whether what does not follow from the identity of `peer` is let through all the
    /// same. The application is told, if it wants to be warned.
    pub(crate) fn lets_through(&self, out: &mut Outbox, peer: &Name, what: Unbound) -> bool {
        if self.binding == IdentityBinding::Warn {
            out.push(Output::Unbound(peer.clone(), what.in_words()));
        }
        self.binding != IdentityBinding::Enforce
    }

    /// Checks, cheapest first: token, source name, header signature, payload
    /// signature. All are required, with and without MLS, but for what the binding
    /// lets through; the reference's strictest setting ("enforce") asks for no more.
    pub(crate) fn authenticate(
        &self,
        out: &mut Outbox,
        publish: Publish,
        unix: u64,
    ) -> Result<Authentic, Refusal> {
        if !matches!(publish.body, Body::Command(_)) {
            return Err(Refusal::NotACommand);
        }
        if publish.message_id == 0 {
            return Err(Refusal::ZeroId);
        }
        let is_strict = self.binding == IdentityBinding::Enforce;
        let claims = self.verifier.verify(&publish.header.identity, unix)?;
        let is_own_name = publish.header.source.id() == NameId::of_subject(&claims.subject);
        if is_strict && !is_own_name {
            return Err(Refusal::ForeignName);
        }
        let signature = publish.header.e2e_header_sig.as_ref().ok_or(Refusal::NoHeaderSignature)?;
        let aad = canonical::header_aad(&publish);
        claims.public_key.verify(&aad, signature).map_err(|_| Refusal::HeaderSignature)?;
        match publish.metadata.get(canonical::PAYLOAD_SIGNATURE) {
            Some(text) => {
                let signature = STANDARD.decode(text).map_err(|_| Refusal::PayloadSignature)?;
                let input = canonical::payload_signing_input(&aad, &publish);
                let verified = claims.public_key.verify(&input, &signature);
                verified.map_err(|_| Refusal::PayloadSignature)?;
            }
            None if is_strict => return Err(Refusal::NoPayloadSignature),
            None => _ = self.lets_through(out, &publish.header.source, Unbound::Payload),
        }
        // Only now: nobody can have us warn of somebody else.
        if !is_own_name {
            self.lets_through(out, &publish.header.source, Unbound::Name);
        }

        let Publish { header, session_type, session_id, message_id, body, metadata } = publish;
        let Body::Command(command) = body else {
            return Err(Refusal::NotACommand);
        };
        Ok(Authentic {
            source: header.source,
            destination: header.destination,
            session_type,
            session_id,
            message_id,
            command,
            metadata,
            claims,
        })
    }
}

/// Senders that are remembered at once.
const SENDERS: usize = 256;
/// Commands that are remembered of one sender.
const COMMANDS: usize = 512;

/// Which commands have been acted on, and how they were answered, so that a
/// copy gets the same answer and does nothing else. When full, the oldest
/// command of the sender, or the sender heard of least recently, is forgotten.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    senders: BTreeMap<RouteName, Seen>,
    clock: u64,
}

#[derive(Debug, Default)]
struct Seen {
    order: VecDeque<(MessageType, u32)>,
    answers: BTreeMap<(MessageType, u32), Option<Command>>,
    used: u64,
}

impl Memory {
    /// `None`: never seen. `Some(None)`: seen, not answered (yet).
    pub(crate) fn recall(
        &self,
        source: &Name,
        kind: MessageType,
        id: u32,
    ) -> Option<Option<&Command>> {
        let seen = self.senders.get(&source.route())?;
        seen.answers.get(&(kind, id)).map(Option::as_ref)
    }

    pub(crate) fn remember(
        &mut self,
        source: &Name,
        kind: MessageType,
        id: u32,
        answer: Option<Command>,
    ) {
        let route = source.route();
        if !self.senders.contains_key(&route) && self.senders.len() >= SENDERS {
            let oldest = self.senders.iter().min_by_key(|(_, seen)| seen.used).map(|(r, _)| *r);
            if let Some(oldest) = oldest {
                self.senders.remove(&oldest);
            }
        }
        self.clock += 1;
        let seen = self.senders.entry(route).or_default();
        seen.used = self.clock;
        if seen.answers.insert((kind, id), answer).is_none() {
            seen.order.push_back((kind, id));
            if seen.order.len() > COMMANDS
                && let Some(oldest) = seen.order.pop_front()
            {
                seen.answers.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    #[test]
    fn a_copy_finds_the_answer_of_the_first() {
        let mut memory = Memory::default();
        let alice = name("a/b/alice");
        let kind = MessageType::GroupUpdate;
        assert_eq!(memory.recall(&alice, kind, 7), None);
        memory.remember(&alice, kind, 7, None);
        assert_eq!(memory.recall(&alice, kind, 7), Some(None));
        memory.remember(&alice, kind, 7, Some(Command::GroupAck));
        assert_eq!(memory.recall(&alice, kind, 7), Some(Some(&Command::GroupAck)));
        assert_eq!(memory.recall(&alice, MessageType::GroupWelcome, 7), None);
        assert_eq!(memory.recall(&name("a/b/bob"), kind, 7), None);
    }

    #[test]
    fn the_memory_is_bounded() {
        let mut memory = Memory::default();
        for sender in 0..SENDERS + 10 {
            memory.remember(&name(&format!("a/b/{sender}")), MessageType::GroupAck, 1, None);
        }
        assert_eq!(memory.senders.len(), SENDERS);
        assert_eq!(memory.recall(&name("a/b/0"), MessageType::GroupAck, 1), None);
        let alice = name("a/b/alice");
        for id in 0..COMMANDS as u32 + 10 {
            memory.remember(&alice, MessageType::GroupAck, id, None);
        }
        assert_eq!(memory.senders[&alice.route()].answers.len(), COMMANDS);
        assert_eq!(memory.recall(&alice, MessageType::GroupAck, 9), None);
        assert_eq!(memory.recall(&alice, MessageType::GroupAck, 10), Some(None));
    }
}
