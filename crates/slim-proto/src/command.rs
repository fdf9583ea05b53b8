//! Commands: the signed messages of the session layer, types 5 to 20.
//!
//! What MLS puts into them holds identity tokens, so `Debug` shows its length.

use std::fmt;

use bytes::Bytes;

use crate::{MessageType, Name};

/// A command. Which of them a member answers, and how, is in `docs/session.md`.
#[derive(Clone, PartialEq)]
#[expect(missing_docs, reason = "named and explained in data_plane.proto")]
pub enum Command {
    DiscoveryRequest,
    DiscoveryReply,
    JoinRequest(JoinRequest),
    JoinReply(JoinReply),
    LeaveRequest,
    LeaveReply,
    GroupUpdate(GroupUpdate),
    GroupWelcome(GroupWelcome),
    GroupClose { participants: Vec<Name> },
    GroupProposal { source: Name, mls_proposal: Bytes },
    GroupAck,
    GroupNack,
    Heartbeat { epoch: u64 },
    UpdateParticipantState(UpdateParticipantState),
    RejoinRequest(RejoinRequest),
    RejoinReply(RejoinReply),
}

impl Command {
    /// The wire's number for this command.
    pub fn message_type(&self) -> MessageType {
        match self {
            Self::DiscoveryRequest => MessageType::DiscoveryRequest,
            Self::DiscoveryReply => MessageType::DiscoveryReply,
            Self::JoinRequest(_) => MessageType::JoinRequest,
            Self::JoinReply(_) => MessageType::JoinReply,
            Self::LeaveRequest => MessageType::LeaveRequest,
            Self::LeaveReply => MessageType::LeaveReply,
            Self::GroupUpdate(_) => MessageType::GroupUpdate,
            Self::GroupWelcome(_) => MessageType::GroupWelcome,
            Self::GroupClose { .. } => MessageType::GroupClose,
            Self::GroupProposal { .. } => MessageType::GroupProposal,
            Self::GroupAck => MessageType::GroupAck,
            Self::GroupNack => MessageType::GroupNack,
            Self::Heartbeat { .. } => MessageType::Heartbeat,
            Self::UpdateParticipantState(_) => MessageType::UpdateParticipantState,
            Self::RejoinRequest(_) => MessageType::RejoinRequest,
            Self::RejoinReply(_) => MessageType::RejoinReply,
        }
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::JoinRequest(request) => request.fmt(f),
            Self::JoinReply(reply) => reply.fmt(f),
            Self::GroupUpdate(update) => update.fmt(f),
            Self::GroupWelcome(welcome) => welcome.fmt(f),
            Self::GroupClose { participants } => {
                f.debug_struct("GroupClose").field("participants", participants).finish()
            }
            Self::GroupProposal { source, mls_proposal } => f
                .debug_struct("GroupProposal")
                .field("source", source)
                .field("mls_proposal", &Length(mls_proposal))
                .finish(),
            Self::Heartbeat { epoch } => f.debug_struct("Heartbeat").field("epoch", epoch).finish(),
            Self::UpdateParticipantState(update) => update.fmt(f),
            Self::RejoinRequest(request) => request.fmt(f),
            Self::RejoinReply(reply) => reply.fmt(f),
            Self::DiscoveryRequest
            | Self::DiscoveryReply
            | Self::LeaveRequest
            | Self::LeaveReply
            | Self::GroupAck
            | Self::GroupNack => self.message_type().fmt(f),
        }
    }
}

/// Stands for bytes that are not to be seen.
struct Length<'a>(&'a Bytes);

impl fmt::Debug for Length<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// The moderator invites.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinRequest {
    /// None: the session is unreliable.
    pub timer_settings: Option<TimerSettings>,
    /// Data and control name of a group; none in point-to-point.
    pub channels: Option<Channels>,
    /// Some: MLS, and for how many of a hundred data messages the receiver
    /// compares the AAD (0 to 100; more reads as 100).
    pub mls_aad_percent: Option<u32>,
}

/// The two names of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channels {
    /// Where data is published.
    pub data: Name,
    /// Where commands to all are published.
    pub control: Name,
}

/// When a message that nobody answered is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerSettings {
    /// Milliseconds between two transmissions.
    pub timeout_ms: u32,
    /// Transmissions after the first.
    pub max_retries: u32,
}

/// The invited application accepts.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinReply {
    /// MLSMessage(KeyPackage), if the request asked for MLS.
    pub key_package: Option<Bytes>,
    /// Who joins.
    pub participant: Participant,
}

impl fmt::Debug for JoinReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinReply")
            .field("key_package", &self.key_package.as_ref().map(Length))
            .field("participant", &self.participant)
            .finish()
    }
}

/// One row of a roster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Participant {
    /// Full name.
    pub name: Name,
    /// It publishes.
    pub sends_data: bool,
    /// It is sent data and acknowledges it.
    pub receives_data: bool,
    /// Online or offline.
    pub status: ParticipantState,
}

/// Whether a participant answers. Unknown values read as online.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum ParticipantState {
    #[default]
    Online,
    Offline,
}

/// What a [`GroupUpdate`] does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupUpdateOp {
    /// A new member.
    Add,
    /// A member is gone.
    Remove,
    /// A member with lost state came back with new keys.
    Rejoin,
}

/// The roster, or only the keys, changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupUpdate {
    /// What happened.
    pub op: GroupUpdateOp,
    /// To whom; none where only keys changed.
    pub participant: Option<Participant>,
    /// The whole roster; after a removal it still lists the removed member.
    pub participants: Vec<Participant>,
    /// The commit, in a session with MLS.
    pub mls: Option<MlsPayload>,
}

/// The invited application is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupWelcome {
    /// All members, moderator and receiver included.
    pub participants: Vec<Participant>,
    /// The welcome, in a session with MLS.
    pub mls: Option<MlsPayload>,
}

/// A commit or welcome with its number.
#[derive(Clone, PartialEq, Eq)]
pub struct MlsPayload {
    /// Commits count 1, 2, 3 …; a welcome has its commit's number.
    pub commit_id: u32,
    /// A whole MLSMessage.
    pub mls_content: Bytes,
}

impl fmt::Debug for MlsPayload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MlsPayload")
            .field("commit_id", &self.commit_id)
            .field("mls_content", &Length(&self.mls_content))
            .finish()
    }
}

/// A member announces that it goes or is back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpdateParticipantState {
    /// Who.
    pub participant: Name,
    /// What it is from now on.
    pub new_state: ParticipantState,
    /// Its MLS epoch; 0 without MLS.
    pub epoch: u64,
}

/// A member whose MLS state fell behind asks to be added anew.
#[derive(Clone, PartialEq, Eq)]
pub struct RejoinRequest {
    /// Who.
    pub participant: Name,
    /// MLSMessage(KeyPackage).
    pub key_package: Bytes,
}

impl fmt::Debug for RejoinRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RejoinRequest")
            .field("participant", &self.participant)
            .field("key_package", &Length(&self.key_package))
            .finish()
    }
}

/// The answer to a [`RejoinRequest`].
#[derive(Clone, PartialEq, Eq)]
pub struct RejoinReply {
    /// Number of the commit that the welcome belongs to.
    pub commit_id: u32,
    /// MLSMessage(Welcome).
    pub welcome: Bytes,
}

impl fmt::Debug for RejoinReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RejoinReply")
            .field("commit_id", &self.commit_id)
            .field("welcome", &Length(&self.welcome))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_mls_sends_is_not_shown() {
        let name: Name = "a/b/c".parse().unwrap();
        let participant = Participant {
            name: name.clone(),
            sends_data: true,
            receives_data: true,
            status: ParticipantState::Online,
        };
        let hidden = Bytes::from_static(b"hidden");
        let mls = || Some(MlsPayload { commit_id: 1, mls_content: hidden.clone() });
        let commands = [
            Command::JoinReply(JoinReply {
                key_package: Some(hidden.clone()),
                participant: participant.clone(),
            }),
            Command::GroupUpdate(GroupUpdate {
                op: GroupUpdateOp::Add,
                participant: Some(participant),
                participants: vec![],
                mls: mls(),
            }),
            Command::GroupWelcome(GroupWelcome { participants: vec![], mls: mls() }),
            Command::GroupProposal { source: name.clone(), mls_proposal: hidden.clone() },
            Command::RejoinRequest(RejoinRequest {
                participant: name,
                key_package: hidden.clone(),
            }),
            Command::RejoinReply(RejoinReply { commit_id: 1, welcome: hidden.clone() }),
        ];
        for command in commands {
            let text = format!("{command:?}");
            assert!(text.contains("6 bytes") && !text.contains("hidden"), "{text}");
        }
    }
}
