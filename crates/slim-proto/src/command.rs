//! Commands: the signed messages of the session layer, types 5 to 20.

use bytes::Bytes;

use crate::{MessageType, Name};

/// A command. Which of them a member answers, and how, is in `docs/session.md`.
#[derive(Clone, Debug, PartialEq)]
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinReply {
    /// MLSMessage(KeyPackage), if the request asked for MLS.
    pub key_package: Option<Bytes>,
    /// Who joins.
    pub participant: Participant,
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MlsPayload {
    /// Commits count 1, 2, 3 …; a welcome has its commit's number.
    pub commit_id: u32,
    /// A whole MLSMessage.
    pub mls_content: Bytes,
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejoinRequest {
    /// Who.
    pub participant: Name,
    /// MLSMessage(KeyPackage).
    pub key_package: Bytes,
}

/// The answer to a [`RejoinRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejoinReply {
    /// Number of the commit that the welcome belongs to.
    pub commit_id: u32,
    /// MLSMessage(Welcome).
    pub welcome: Bytes,
}
