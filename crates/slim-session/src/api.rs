//! The words between engine and driver.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use slim_proto::{Message, Name, NamePrefix, SessionId, SessionType};

/// The time, as the driver tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Monotonic, since any origin that stays the same.
    pub at: Duration,
    /// Wall clock, seconds since the Unix epoch. Tokens carry it.
    pub unix: u64,
}

/// How the application appears to others.
#[derive(Clone, Debug)]
pub struct EndpointConfig {
    /// Its readable name; the id follows from the identity.
    pub name: Name,
    /// It publishes. Default: true.
    pub sends_data: bool,
    /// It is sent data and acknowledges it. Default: true.
    pub receives_data: bool,
    /// Seed of everything random that is not a key.
    pub seed: u64,
    /// Which invitations it takes. Default: all.
    pub invitations: Invitations,
    /// How strictly names and contents have to follow from identities. Default:
    /// [`IdentityBinding::Enforce`].
    pub binding: IdentityBinding,
}

impl EndpointConfig {
    /// An application that sends and receives.
    pub fn new(name: Name, seed: u64) -> Self {
        Self {
            name,
            sends_data: true,
            receives_data: true,
            seed,
            invitations: Invitations::default(),
            binding: IdentityBinding::default(),
        }
    }
}

/// Somebody asks us into a session. Who it is has been verified.
#[derive(Debug)]
pub struct Invitation<'a> {
    /// Who moderates it.
    pub from: &'a Name,
    /// The subject of its identity.
    pub subject: &'a str,
    /// The session: its kind, its channel, whether it is encrypted, and what its creator
    /// says with it.
    pub session: &'a SessionInfo,
}

/// Decides on each invitation before anything is joined: `Err` refuses it, and the
/// moderator is told the reason.
#[derive(Clone)]
pub struct Invitations(Arc<Decide>);

type Decide = dyn Fn(&Invitation<'_>) -> Result<(), String> + Send + Sync;

impl Invitations {
    /// Takes those for which `decide` says so. It is asked for every copy of an
    /// invitation, so it has to answer at once, and the same.
    pub fn decided_by(
        decide: impl Fn(&Invitation<'_>) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(decide))
    }

    /// Takes those of moderators whose name begins with one of these.
    pub fn from_prefixes(prefixes: Vec<NamePrefix>) -> Self {
        Self::decided_by(move |invitation| {
            match prefixes.iter().any(|prefix| prefix.matches(invitation.from)) {
                true => Ok(()),
                false => Err(format!("it takes none from {}", invitation.from.readable())),
            }
        })
    }

    pub(crate) fn decide(&self, invitation: &Invitation<'_>) -> Result<(), String> {
        (self.0)(invitation)
    }
}

impl Default for Invitations {
    fn default() -> Self {
        Self::decided_by(|_| Ok(()))
    }
}

impl fmt::Debug for Invitations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Invitations")
    }
}

/// What becomes of a peer whose token and signature are good, but do not vouch for all
/// that it says: the id of its name is not the one that follows from its identity, the
/// content of its commands is not signed, or the channel that it invites to is not its
/// own. Tokens and the signatures that are there have to be good in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IdentityBinding {
    /// What it says is dropped.
    #[default]
    Enforce,
    /// It is let through, and [`Output::Unbound`] tells.
    Warn,
    /// It is let through.
    Off,
}

/// Links a [`Command`] to its [`Output::Done`]. Chosen by the driver, unique
/// among the commands that are not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// Something happened.
#[derive(Debug)]
pub enum Input {
    /// The link to the node is up; nothing sent before counts.
    LinkUp,
    /// The link is lost; timers stand still until it is up again.
    LinkDown,
    /// There will be no link any more: every session ends.
    LinkGone,
    /// A message came over the link.
    Received(Message),
    /// The application wants something.
    Command(RequestId, Command),
    /// The application does not keep up with what a session delivers (true), or
    /// does again (false). Meanwhile its data is neither taken nor acknowledged,
    /// so that its sender repeats it.
    Busy(SessionId, bool),
    /// The time that [`crate::Endpoint::next_deadline`] named has come.
    Deadline,
}

/// What the application wants. Each ends with one [`Output::Done`].
#[derive(Debug)]
pub enum Command {
    /// Create a group on this channel. Nothing is sent before the first invite
    /// but the subscriptions of the channel.
    CreateGroup {
        /// `org/ns/channel`; an id is ignored.
        channel: Name,
        /// For all members.
        config: SessionConfig,
    },
    /// Open a session with one application, with any instance of it if the name
    /// has no id. Done when it has joined.
    CreateP2p {
        /// Whom to call.
        peer: Name,
        /// For both.
        config: SessionConfig,
    },
    /// Invite into a group. Several may be under way at once.
    Invite {
        /// A group that we moderate.
        session: SessionId,
        /// Any instance, if it has no id.
        name: Name,
    },
    /// Remove from a group.
    Remove {
        /// A group that we moderate.
        session: SessionId,
        /// With or without its id.
        name: Name,
    },
    /// Send data.
    Publish {
        /// To whose members.
        session: SessionId,
        /// What.
        message: Outgoing,
    },
    /// Tell who is in.
    State {
        /// Of which session.
        session: SessionId,
    },
    /// Done when every message published so far has its outcome.
    Flush {
        /// Of which session.
        session: SessionId,
    },
    /// Be away from a group for a while, or back: others count us as offline, send
    /// us no data that they keep until we are back, and hear nothing of us. Changes
    /// of the group, and its end, are taken all the same.
    SetPresence {
        /// Which group.
        session: SessionId,
        /// Back, or away.
        online: bool,
    },
    /// Leave; the moderator closes the session for all.
    Close {
        /// Which session.
        session: SessionId,
    },
}

/// Settings of a session. Its creator sets them for all members.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionConfig {
    /// `None`: unreliable, messages are neither acknowledged nor ordered.
    /// Default: 1 s and 10 retries.
    pub timers: Option<Timers>,
    /// End-to-end encryption. Default: true.
    pub mls: bool,
    /// Shown to the invited applications. Default: empty.
    pub metadata: BTreeMap<String, String>,
}

/// Shows the keys of the metadata, never their values.
impl fmt::Debug for SessionConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionConfig")
            .field("timers", &self.timers)
            .field("mls", &self.mls)
            .field("metadata", &self.metadata.keys())
            .finish()
    }
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self { timers: Some(Timers::default()), mls: true, metadata: BTreeMap::new() }
    }
}

/// When something is sent again, and when it has failed: after
/// `timeout × (max_retries + 1)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timers {
    /// Between two transmissions; 1 ms to 49 days. Too short repeats what is on
    /// its way, too long makes a loss slow to mend. Default: 1 s.
    pub timeout: Duration,
    /// Transmissions after the first. Default: 10.
    pub max_retries: u32,
}

impl Timers {
    /// How long a message is tried.
    pub fn limit(&self) -> Duration {
        self.timeout.saturating_mul(self.max_retries.saturating_add(1))
    }
}

impl Default for Timers {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(1), max_retries: 10 }
    }
}

/// A message to publish.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Outgoing {
    /// The bytes.
    pub payload: Bytes,
    /// What they are; empty reads as `msg`. Travels in clear.
    pub payload_type: String,
    /// The application's entries. They travel in clear; reserved keys are left out.
    pub metadata: BTreeMap<String, String>,
    /// One member instead of all: outside the order of what is for all. In a
    /// point-to-point session only the peer, which changes nothing.
    pub to: Option<Name>,
}

/// Shows the length of the payload, never its content.
impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing")
            .field("payload_len", &self.payload.len())
            .field("payload_type", &self.payload_type)
            .field("to", &self.to)
            .finish_non_exhaustive()
    }
}

/// What the driver has to do.
#[derive(Debug)]
pub enum Output {
    /// Put this on the link.
    Send(Message),
    /// Our own name is subscribed: others can reach us.
    Ready,
    /// The node does not take our name; the text is its reason.
    NotReady(String),
    /// The publish was taken and numbered; its outcome follows.
    Accepted(RequestId),
    /// The outcome of a command.
    Done(RequestId, Done),
    /// Somebody opened a session with us.
    Session(SessionInfo),
    /// Something happened in a session. Nothing follows a `Closed`.
    Event(SessionId, SessionEvent),
    /// What this peer sends does not verify with our identity, and why. Told once per peer.
    IdentityMismatch(Name, String),
    /// An invitation of this peer was refused by [`EndpointConfig::invitations`], with this
    /// reason. Told once per peer.
    Declined(Name, String),
    /// This peer was let through, which [`IdentityBinding::Enforce`] would not have done,
    /// and why not. Told once per peer and reason.
    Unbound(Name, &'static str),
}

/// The outcome of a [`Command`].
#[derive(Debug)]
pub enum Done {
    /// Of `CreateGroup` and `CreateP2p`.
    Created(Result<SessionInfo, CreateError>),
    /// Of `Invite`: the full name that joined.
    Invited(Result<Name, InviteError>),
    /// Of `Remove`.
    Removed(Result<(), RemoveError>),
    /// Of `Publish`.
    Published(Result<DeliveryReport, PublishError>),
    /// Of `State`; `None` if there is no such session.
    State(Option<SessionState>),
    /// Of `Flush`.
    Flushed,
    /// Of `SetPresence`.
    Presence(Result<(), PresenceError>),
    /// Of `Close`.
    Closed,
}

/// What became of a published message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeliveryReport {
    /// These acknowledged it. Empty in an unreliable session, where nobody does.
    pub delivered: Vec<Name>,
    /// These did not.
    pub lost: Vec<Name>,
}

/// What does not change about a session.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionInfo {
    /// Its number, the same at all members.
    pub id: SessionId,
    /// Group or point-to-point.
    pub session_type: SessionType,
    /// Ours.
    pub role: Role,
    /// Our full name in it.
    pub local: Name,
    /// The channel, or the peer's full name.
    pub remote: Name,
    /// Whether it is encrypted end to end.
    pub mls: bool,
    /// Whether messages are acknowledged, repeated and ordered.
    pub reliable: bool,
    /// The creator's entries.
    pub metadata: BTreeMap<String, String>,
}

/// Shows the keys of the metadata, never their values.
impl fmt::Debug for SessionInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionInfo")
            .field("id", &self.id)
            .field("session_type", &self.session_type)
            .field("role", &self.role)
            .field("local", &self.local)
            .field("remote", &self.remote)
            .field("mls", &self.mls)
            .field("reliable", &self.reliable)
            .field("metadata", &self.metadata.keys())
            .finish()
    }
}

/// Who moderates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Created the session.
    Moderator,
    /// Was invited.
    Participant,
}

/// What changes about a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionState {
    /// Everybody, ourselves included.
    pub members: Vec<Member>,
    /// `None` without MLS, or before anybody has joined.
    pub mls: Option<MlsState>,
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Full name.
    pub name: Name,
    /// Whether it answers.
    pub online: bool,
    /// Whether it is us.
    pub is_self: bool,
}

/// Where a session's encryption stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MlsState {
    /// Name of the cipher suite (RFC 9420 §17.1).
    pub suite: &'static str,
    /// Counts the changes of membership.
    pub epoch: u64,
}

/// Something happened in a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionEvent {
    /// Data for the application.
    Message(ReceivedMessage),
    /// Messages of this sender could not be had any more.
    MessageLost {
        /// Whose.
        source: Name,
        /// How many.
        count: u32,
    },
    /// Somebody else came, went, or is (not) answering.
    Participant {
        /// Who.
        name: Name,
        /// What.
        change: ParticipantChange,
    },
    /// The session is over.
    Closed {
        /// Why.
        reason: CloseReason,
    },
}

/// What became of a participant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParticipantChange {
    /// It is in.
    Joined,
    /// It is out. Only a moderator can tell this from `Removed`.
    Left,
    /// The moderator removed it.
    Removed,
    /// It answers again.
    Online,
    /// It does not answer.
    Offline,
}

/// Why a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// We left, or closed it.
    Left,
    /// The moderator removed us.
    Removed,
    /// The moderator closed the group.
    ModeratorClosed,
    /// The peer of a point-to-point session ended it.
    PeerLeft,
    /// There is no link any more.
    NodeLost,
}

/// Data as it arrived.
#[derive(Clone, PartialEq, Eq)]
pub struct ReceivedMessage {
    /// Who sent it; verified in a session with MLS.
    pub source: Name,
    /// The bytes.
    pub payload: Bytes,
    /// What they are; `msg` if the sender gave nothing.
    pub payload_type: String,
    /// The sender's entries, without those of the protocol.
    pub metadata: BTreeMap<String, String>,
    /// It was sent to us alone.
    pub to_me: bool,
}

/// Shows the length of the payload, never its content.
impl fmt::Debug for ReceivedMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceivedMessage")
            .field("source", &self.source)
            .field("payload_len", &self.payload.len())
            .field("payload_type", &self.payload_type)
            .field("to_me", &self.to_me)
            .finish_non_exhaustive()
    }
}

/// A session could not be created.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CreateError {
    /// The peer of a point-to-point session did not join.
    #[error(transparent)]
    Invite(#[from] InviteError),
    /// This application holds as many sessions as it may.
    #[error("{limit} sessions are open, which is the most")]
    TooManySessions {
        /// The bound.
        limit: usize,
    },
}

/// An invitation failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InviteError {
    /// Nobody of this name answered.
    #[error("no answer from {name} after {} s", .after.as_secs_f32())]
    NoAnswer {
        /// As it was given.
        name: Name,
        /// How long it was tried.
        after: Duration,
    },
    /// Ours and theirs do not verify with each other.
    #[error("{name} and we do not verify with each other: {reason}")]
    IdentityMismatch {
        /// As it was given.
        name: Name,
        /// What is wrong, and with whose identity.
        reason: String,
    },
    /// It answered, but cannot be a member.
    #[error("{name} cannot join: {reason}")]
    Refused {
        /// As it was given.
        name: Name,
        /// Why.
        reason: String,
    },
    /// We do not moderate this session.
    #[error("only the moderator invites")]
    NotModerator,
    /// A point-to-point session has two members for life.
    #[error("a point-to-point session takes no further members")]
    NotGroup,
    /// The session is over.
    #[error("the session is over")]
    Closed,
    /// Too many invitations are under way.
    #[error("{limit} invitations are under way, which is the most")]
    TooMany {
        /// The bound.
        limit: usize,
    },
}

/// A removal failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RemoveError {
    /// No such member.
    #[error("{name} is not a member")]
    NotMember {
        /// As it was given.
        name: Name,
    },
    /// We do not moderate this session.
    #[error("only the moderator removes")]
    NotModerator,
    /// A point-to-point session is closed, nobody is removed from it.
    #[error("nobody can be removed from a point-to-point session")]
    NotGroup,
    /// It is out for everybody who answered, but did not confirm it itself.
    #[error("{name} is out, but did not confirm it")]
    Unconfirmed {
        /// As it was given.
        name: Name,
    },
    /// The session is over.
    #[error("the session is over")]
    Closed,
}

/// Not everybody knows that we are away, or back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PresenceError {
    /// A point-to-point session has nobody who could go on without us.
    #[error("nobody can be away from a point-to-point session")]
    NotGroup,
    /// It is so for everybody who answered. Who did not answer finds out by our
    /// heartbeats, or that there are none.
    #[error("not everybody confirmed it")]
    Unconfirmed,
    /// The session is over.
    #[error("the session is over")]
    Closed,
}

/// A message was not published.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// Nobody else is in, or nobody who receives data.
    #[error("nobody else is in the session")]
    Alone,
    /// It would not fit into one message of the protocol.
    #[error("{len} bytes are too large: at most {limit} fit")]
    TooLarge {
        /// Size of the payload in bytes.
        len: usize,
        /// The most that would have fitted, in bytes.
        limit: usize,
    },
    /// The one that it was for is not a member that receives data.
    #[error("{name} is not a member")]
    NotMember {
        /// As it was given.
        name: Name,
    },
    /// More publishes wait for room than may.
    #[error("{limit} messages wait already, which is the most")]
    Busy {
        /// The bound.
        limit: usize,
    },
    /// We are away from the session.
    #[error("away from the session: come back first")]
    Away,
    /// The session is over.
    #[error("the session is over")]
    Closed,
    /// A bug of ours; the text says where.
    #[error("internal error: {0}")]
    Internal(&'static str),
}
