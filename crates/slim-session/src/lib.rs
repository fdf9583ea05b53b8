//! The SLIM session engine: groups and point-to-point conversations with
//! invitations, reliable delivery, presence and MLS.
//!
//! # The contract between engine and driver
//!
//! [`Endpoint`] is one application's whole session layer. It does no IO, reads no
//! clock and spawns nothing. A driver
//!
//! 1. calls [`Endpoint::handle`] with the time and what happened (an [`Input`]),
//! 2. carries out the returned [`Output`]s in their order,
//! 3. comes back with [`Input::Deadline`] at [`Endpoint::next_deadline`], or earlier.
//!
//! That is all. Nothing else changes the engine, and nothing it does takes effect
//! before the outputs are carried out. Protocol choices (ids, nonces) come from a
//! seeded generator, so a seed and a list of inputs give the same conversation
//! again; only keys and signatures are drawn from the system.
//!
//! # Inside
//!
//! `endpoint` finds the session that a message belongs to and answers what belongs
//! to none. `gate` checks identity, signature and replay: what passed has another
//! type. `session` is the one group machine; point-to-point is a group of two
//! without a channel. Only what a moderator or a participant does alone is in
//! `role`. `exchange` sends a command until all have answered. `outbound` and
//! `inbound` are the two sides of reliable data, `mls` the encryption.
//!
//! What goes over the wire, when and why, is in `docs/session.md`.

mod api;
mod endpoint;
mod exchange;
mod gate;
mod inbound;
mod mls;
mod outbound;
mod outbox;
mod retry;
mod role;
mod roster;
mod session;
mod subscriptions;
mod voice;

pub use api::{
    CloseReason, Command, CreateError, DeliveryReport, Done, EndpointConfig, IdentityBinding,
    Input, Invitation, Invitations, InviteError, Member, MlsState, Now, Outgoing, Output,
    ParticipantChange, PresenceError, PublishError, ReceivedMessage, RemoveError, RequestId, Role,
    SessionConfig, SessionEvent, SessionInfo, SessionState, Timers,
};
pub use endpoint::Endpoint;
pub use voice::sign_command;
