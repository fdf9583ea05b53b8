//! The asynchronous SLIM API for applications.
//!
//! A [`Client`] is one application on one node. It creates sessions, or listens for
//! those that others open; a [`Session`] publishes, and hands out what happens in
//! it. Handles are cheap clones; behind all of one client is a single task that
//! feeds the engine of `slim-session` and carries out what it says.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use slim_client::{Client, SessionConfig, SessionEvent};
//!
//! let secret = "a secret of at least thirty-two bytes";
//! let client = Client::builder("agntcy/ns/moderator".parse()?)
//!     .shared_secret(secret)?
//!     .connect("http://127.0.0.1:46357")
//!     .await?;
//! let session = client.create_group("agntcy/ns/chat".parse()?, SessionConfig::default()).await?;
//! session.invite(&"agntcy/ns/client-1".parse()?).await?;
//! let report = session.publish("hello").await?.await?;
//! println!("{} have it", report.delivered.len());
//! while let Some(event) = session.next_event().await {
//!     if let SessionEvent::Message(message) = event {
//!         println!("{}: {} bytes", message.source, message.payload.len());
//!     }
//! }
//! # Ok(())
//! # }
//! ```

mod client;
mod connect;
mod driver;
mod session;
mod telemetry;

pub use client::{Client, ClientEvent, ClientEvents};
pub use connect::{ClientBuilder, ConnectError, dial};
pub use session::{Delivery, Session};

pub use slim_auth::{Identity, SharedSecret, SharedSecretError, Verifier};
pub use slim_link::{
    Authorization, ClientTls, KeyPair, Link, LinkEnd, LinkReceiver, LinkSender, Pem, SendError,
    TlsConfigError, TlsVersion,
};
pub use slim_proto::{Name, NameError, NameId, NamePrefix, PrefixError, SessionId, SessionType};
pub use slim_session::{
    CloseReason, CreateError, DeliveryReport, IdentityBinding, Invitation, Invitations,
    InviteError, Member, MlsState, Outgoing, ParticipantChange, PresenceError, PublishError,
    ReceivedMessage, RemoveError, Role, SessionConfig, SessionEvent, SessionInfo, SessionState,
    Timers, sign_command,
};
