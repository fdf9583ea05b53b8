//! One authenticated, bidirectional stream between two SLIM nodes.
//!
//! A *link* is one gRPC call, `dataplane.proto.v1.DataPlaneService/OpenChannel`,
//! that stays open, or one WebSocket: each side sends messages when it likes. The first message in
//! each direction negotiates a key; from then on each message with a routing
//! header carries a MAC of this link.
//!
//! - An application [`dial`]s a [`Target`] and gets a [`Link`], which splits into a
//!   [`LinkSender`] and a [`LinkReceiver`] of typed messages.
//! - A node [`serve`]s [`Listener`]s and is handed an [`AcceptedLink`] per negotiated
//!   link: a [`FrameReader`] of verified frames and an [`Outbound`] queue that takes
//!   frames without waiting.
//! - A node that has peers opens links to them with [`dial_node`], and
//!   [`PeerAdmission`] says whose it accepts. Their frames are taken without looking
//!   at the MAC: other nodes pass on the MAC of another link there.
//!
//! The negotiation and the MAC are pure functions; everything that knows gRPC,
//! HTTP/2 or sockets is in this crate and hidden by it.

mod accept;
mod address;
mod admission;
mod budget;
mod buffer;
mod dial;
#[cfg(fuzzing)]
pub mod fuzzing;
mod grpc;
mod handshake;
mod health;
mod limits;
mod link;
mod listen;
mod listener;
mod mac;
mod outbound;
mod principal;
mod reader;
mod socket;
mod tls;
mod transport;
mod websocket;

pub use accept::{AcceptConfig, AcceptedLink, Keepalive, LINGER, LinkInfo, serve};
pub use address::PeerAddr;
pub use admission::{
    AcceptCounters, DEFAULT_MAX_CONNECTIONS, DEFAULT_MAX_NEWCOMERS, NEWCOMER_GRACE,
};
pub use budget::{DEFAULT_MAX_QUEUED_BYTES, QUEUE_SHARE};
pub use dial::{
    Connection, DialConfig, DialError, DialStage, DialledLink, Target, TargetError, dial, dial_node,
};
pub use handshake::{MAX_ID_LEN, NegotiationError, PeerAdmission};
pub use health::Health;
pub use limits::LiveLimits;
pub use link::{Link, LinkReceiver, LinkSender, SendError};
pub use listener::{Certificates, Endpoint, EndpointError, ListenConfig, ListenError, Listener};
pub use outbound::{
    CONTROL_QUEUE_BYTES, CloseReason, DEFAULT_QUEUE_BYTES, Outbound, PIECE_LEN, PushError, Shed,
};
pub use principal::{Authenticator, Authorization, Principal, PrincipalError};
pub use reader::{Drops, FrameReader, LinkEnd, MAX_BATCH_BYTES, MAX_BATCH_FRAMES, with_causes};
pub use tls::{
    ClientTls, DEFAULT_RELOAD_INTERVAL, KeyPair, Pem, ServerTls, TlsConfigError, TlsError,
    TlsVersion,
};
