//! The typed messages: complete once decoded.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;

use crate::{Command, Name, NameId};

/// One element of a link's stream.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// The link's own negotiation; never forwarded.
    Link(LinkNegotiation),
    /// Deliver what is sent to this name.
    Subscribe(Subscription),
    /// No longer deliver what is sent to this name.
    Unsubscribe(Subscription),
    /// The answer to one of the two; never forwarded.
    SubscriptionAck(SubscriptionAck),
    /// Something for the subscribers of a name.
    Publish(Publish),
}

/// The first message in each direction of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkNegotiation {
    /// Chosen by the dialler, the same again on each reconnect.
    pub link_id: String,
    /// Semantic version of the sender's protocol.
    pub slim_version: String,
    /// False from the dialler, true from the acceptor.
    pub is_reply: bool,
    /// X25519 public key: 32 bytes, or none.
    pub ecdh_public_key: Bytes,
    /// What kind of link this is.
    pub connection_type: ConnectionType,
    /// The sender's own id.
    pub node_id: String,
    /// Peer group of the sender, usually empty.
    pub deployment_name: String,
    /// ML-KEM-768 encapsulation key or ciphertext.
    pub kem_payload: Option<Bytes>,
}

/// What is at the other end of a link. Unknown values read as remote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ConnectionType {
    /// A node that the control plane connected.
    #[default]
    Remote,
    /// A replica that shares its subscriptions.
    Peer,
    /// An application.
    Edge,
}

/// Content of a subscribe or unsubscribe.
#[derive(Clone, Debug, PartialEq)]
pub struct Subscription {
    /// Its destination is the name in question.
    pub header: Header,
    /// Chosen by the subscriber; 0 asks for no ack.
    pub subscription_id: u64,
}

/// Answer to a [`Subscription`] whose id was not 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionAck {
    /// The id that is answered.
    pub subscription_id: u64,
    /// `Err` carries the node's reason, free text.
    pub result: Result<(), String>,
}

/// Routing header of everything but link messages and subscription acks.
#[derive(Clone, PartialEq)]
pub struct Header {
    /// Who sent it, with its id.
    pub source: Name,
    /// Whom it is for; never rewritten on the way.
    pub destination: Name,
    /// Identity token of the sender. Never shown in a log.
    pub identity: String,
    /// 1: any one subscriber; anything else: all.
    pub fanout: u32,
    /// Version of the sender's software; informative.
    pub version: String,
    /// Hops left.
    pub ttl: u32,
    /// Only inside one process; a node clears it before every send.
    pub recv_from: Option<u64>,
    /// Only inside one process; a node clears it before every send.
    pub forward_to: Option<u64>,
    /// Written by the receiver; whatever arrives means nothing.
    pub incoming_conn: Option<u64>,
    /// `Some(true)`: the message that was asked for no longer exists. Presence
    /// alone reads as an error at some peers, so `Some(false)` is never sent.
    pub error: Option<bool>,
    /// HMAC of this link, set and checked by `slim-link`.
    pub header_mac: Option<Bytes>,
    /// The sender's signature of a command.
    pub e2e_header_sig: Option<Bytes>,
}

impl Header {
    /// A header as an application sends it: full ttl, version set, everything
    /// optional absent, identity still empty.
    pub fn new(source: Name, destination: Name, fanout: u32) -> Self {
        Self {
            source,
            destination,
            identity: String::new(),
            fanout,
            version: crate::SLIM_VERSION.to_owned(),
            ttl: crate::DEFAULT_TTL,
            recv_from: None,
            forward_to: None,
            incoming_conn: None,
            error: None,
            header_mac: None,
            e2e_header_sig: None,
        }
    }
}

/// Shows no identity token, MAC or signature.
impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Header")
            .field("source", &self.source)
            .field("destination", &self.destination)
            .field("identity_len", &self.identity.len())
            .field("fanout", &self.fanout)
            .field("ttl", &self.ttl)
            .field("error", &self.error)
            .field("signed", &self.e2e_header_sig.is_some())
            .finish_non_exhaustive()
    }
}

/// Something for the subscribers of a name: data or a command of a session.
#[derive(Clone, PartialEq)]
pub struct Publish {
    /// Where from, where to.
    pub header: Header,
    /// Point-to-point or group.
    pub session_type: SessionType,
    /// The session, chosen by its moderator.
    pub session_id: SessionId,
    /// Counts from 1 for data; random and never 0 for commands; an answer
    /// carries the number of what it answers.
    pub message_id: u32,
    /// What it says.
    pub body: Body,
    /// The application's entries and, under reserved keys, the session's.
    pub metadata: BTreeMap<String, String>,
}

/// Shows the keys of the metadata, not what the application says under them.
impl fmt::Debug for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publish")
            .field("header", &self.header)
            .field("session_type", &self.session_type)
            .field("session_id", &self.session_id)
            .field("message_id", &self.message_id)
            .field("body", &self.body)
            .field("metadata", &self.metadata.keys())
            .finish()
    }
}

/// Number of a session, drawn at random by the moderator.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u32);

impl SessionId {
    /// Session ids lie below this number.
    pub const LIMIT: u32 = u32::MAX - 1000;
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Kind of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SessionType {
    /// Two applications.
    PointToPoint,
    /// Any number of applications on a channel ("group").
    Multicast,
}

/// What a [`Publish`] says. The variant is the wire's session message type.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// Application data.
    Msg(AppPayload),
    /// The message with this id has arrived.
    MsgAck,
    /// The message with this id is missing.
    RtxRequest,
    /// The message that was asked for; in a header with `error`, the news that
    /// it no longer exists.
    RtxReply(AppPayload),
    /// A signed command of the session layer.
    Command(Command),
}

impl Body {
    /// The wire's number for this kind of message.
    pub fn message_type(&self) -> MessageType {
        match self {
            Self::Msg(_) => MessageType::Msg,
            Self::MsgAck => MessageType::MsgAck,
            Self::RtxRequest => MessageType::RtxRequest,
            Self::RtxReply(_) => MessageType::RtxReply,
            Self::Command(command) => command.message_type(),
        }
    }

    /// The payload's type; empty for everything but data. Part of the AAD.
    pub fn payload_type(&self) -> &str {
        match self {
            Self::Msg(payload) | Self::RtxReply(payload) => &payload.payload_type,
            Self::MsgAck | Self::RtxRequest | Self::Command(_) => "",
        }
    }
}

/// The wire's session message types (`SESSION_MESSAGE_TYPE_…`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(i32)]
#[expect(missing_docs, reason = "the names are the wire's")]
pub enum MessageType {
    Msg = 1,
    MsgAck = 2,
    RtxRequest = 3,
    RtxReply = 4,
    DiscoveryRequest = 5,
    DiscoveryReply = 6,
    JoinRequest = 7,
    JoinReply = 8,
    LeaveRequest = 9,
    LeaveReply = 10,
    GroupUpdate = 11,
    GroupWelcome = 12,
    GroupClose = 13,
    GroupProposal = 14,
    GroupAck = 15,
    GroupNack = 16,
    Heartbeat = 17,
    UpdateParticipantState = 18,
    RejoinRequest = 19,
    RejoinReply = 20,
}

/// Application data, plain or encrypted.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct AppPayload {
    /// The sender's word for what it is; empty reads as `msg`.
    pub payload_type: String,
    /// The bytes, or an MLS PrivateMessage that holds them.
    pub blob: Bytes,
}

/// Shows the length of the payload, never its content.
impl fmt::Debug for AppPayload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AppPayload({:?}, {} bytes)", self.payload_type, self.blob.len())
    }
}

impl Publish {
    /// The id that the destination asks for, [`NameId::ANY`] for any instance.
    pub fn destination_id(&self) -> NameId {
        self.header.destination.id()
    }
}
