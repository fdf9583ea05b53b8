//! What travels between SLIM nodes and applications.
//!
//! Two readings of the same bytes live here. [`Message`] is typed and complete
//! once decoded: the session engine works with it and never meets a missing
//! field again. [`Frame`] keeps the received bytes and looks only at what routing
//! needs: a node forwards it without touching what the sender signed.
//!
//! Beside them: [`Name`]s and their hashes, and the [`canonical`] bytes that are
//! signed, MACed and authenticated. Nothing here does IO or reads a clock.

pub mod canonical;
mod command;
mod frame;
mod message;
mod name;
mod prefix;
mod wire;

/// The generated Protobuf types. For [`slim-link`] and tests; everybody else
/// works with the typed messages.
///
/// [`slim-link`]: https://docs.rs/slim-link
#[allow(missing_docs, unreachable_pub, clippy::all)]
#[rustfmt::skip]
pub mod pb {
    include!("gen/dataplane.proto.v1.rs");
}

pub use command::{
    Channels, Command, GroupUpdate, GroupUpdateOp, GroupWelcome, JoinReply, JoinRequest,
    MlsPayload, Participant, ParticipantState, RejoinReply, RejoinRequest, TimerSettings,
    UpdateParticipantState,
};
pub use frame::{Frame, FrameError, FrameHeader, LastHeader, Outgoing, RoutedFrame, Undeliverable};
pub use message::{
    AppPayload, Body, ConnectionType, Header, LinkNegotiation, Message, MessageType, Publish,
    SessionId, SessionType, Subscription, SubscriptionAck,
};
pub use name::{Name, NameError, NameId, RouteName};
pub use prefix::{NamePrefix, PrefixError};
pub use wire::DecodeError;

/// Largest encoded message, in bytes, that a receiver decodes (the gRPC
/// library's default, which peers cannot change). Whoever sends more loses its
/// link, so it is an error at the sender.
pub const MAX_MESSAGE_LEN: usize = 4 * 1024 * 1024;

/// Hops that a new message may make.
pub const DEFAULT_TTL: u32 = 8;

/// [`Header::fanout`] of a message for one subscriber.
pub const UNICAST: u32 = 1;

/// [`Header::fanout`] of a message for all subscribers. Any value but 1 means
/// all; this is the one that is customary.
pub const BROADCAST: u32 = 256;

/// The protocol's version that is announced to peers.
pub const SLIM_VERSION: &str = "3.4.6";
