//! The dialling side.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::time::Duration;

use slim_proto::ConnectionType;

use crate::{DEFAULT_QUEUE_BYTES, Link};

/// Where a node listens: `host:port` or `http://host:port`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    host: String,
    port: u16,
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        Err(TargetError::Malformed(text.to_owned()))
    }
}

/// As a URL.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}:{}", self.host, self.port)
    }
}

/// The text is not an address that can be dialled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// Neither `host:port` nor `http://host:port`.
    #[error("{0:?} is not an address: expected host:port or http://host:port")]
    Malformed(String),
    /// An `https` URL.
    #[error("{0:?}: TLS is not supported yet")]
    Tls(String),
    /// Another scheme.
    #[error("{0:?}: unknown scheme, expected http")]
    Scheme(String),
}

/// How a link is dialled.
#[derive(Clone, Debug)]
pub struct DialConfig {
    /// Names this link. Keep it over reconnects. Default: a new UUID.
    pub link_id: String,
    /// Own node id. Default: `node-` and a new UUID.
    pub node_id: String,
    /// What kind of link to ask for. Default edge.
    pub connection_type: ConnectionType,
    /// Whether a node that offers no key is refused. Default true; without it, a
    /// link to such a node can be written to by anybody on the path.
    pub require_header_mac: bool,
    /// From resolving the host name to an open TCP connection. Default 10 s.
    pub connect_timeout: Duration,
    /// From there to the end of the negotiation. Default 5 s; nodes give up
    /// after 5 s too.
    pub negotiation_timeout: Duration,
    /// Bytes that may wait to be sent. Default [`DEFAULT_QUEUE_BYTES`].
    pub queue_bytes: usize,
}

impl Default for DialConfig {
    fn default() -> Self {
        Self {
            link_id: uuid::Uuid::new_v4().to_string(),
            node_id: format!("node-{}", uuid::Uuid::new_v4()),
            connection_type: ConnectionType::Edge,
            require_header_mac: true,
            connect_timeout: Duration::from_secs(10),
            negotiation_timeout: Duration::from_secs(5),
            queue_bytes: DEFAULT_QUEUE_BYTES,
        }
    }
}

/// Opens a link: connects, opens the stream, negotiates.
///
/// # Errors
/// See [`DialError`]; [`DialError::is_unreachable`] tells whether trying again later
/// is the thing to do.
#[expect(clippy::unused_async, reason = "signature first")]
pub async fn dial(target: &Target, config: &DialConfig) -> Result<Link, DialError> {
    let _ = (target, config);
    Err(DialError::Timeout(DialStage::Connect))
}

/// How far a dialler had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialStage {
    /// Resolving the name and opening the TCP connection.
    Connect,
    /// Opening the stream, up to the response headers.
    Open,
    /// Waiting for the answer to the negotiation.
    Negotiate,
}

impl fmt::Display for DialStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "connecting",
            Self::Open => "opening the stream",
            Self::Negotiate => "negotiating",
        })
    }
}

/// There is no link.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// No TCP connection: unknown host, port closed, network down.
    #[error("cannot connect")]
    Unreachable(#[source] io::Error),
    /// The connection led back to this very socket: nobody listens there.
    #[error("connected to itself, nobody listens there")]
    SelfConnection,
    /// No answer in time. Whoever accepted the connection may be no node.
    #[error("no answer while {0}")]
    Timeout(DialStage),
    /// What answers does not speak HTTP/2, or broke the connection.
    #[error("connection broke while {stage}: {cause}")]
    Broken {
        /// How far it had come.
        stage: DialStage,
        /// What the transport said.
        cause: String,
    },
    /// The stream was refused: an HTTP status other than 200, or a gRPC status.
    #[error("refused by the node: HTTP status {http}, gRPC status {grpc:?}: {message:?}")]
    Refused {
        /// HTTP status code.
        http: u16,
        /// gRPC status, if there was one.
        grpc: Option<u16>,
        /// The node's text.
        message: String,
    },
    /// The node's answer to the negotiation is not acceptable, or it refused ours.
    #[error("negotiation failed")]
    Negotiation(#[source] NegotiationError),
}

impl DialError {
    /// Whether nothing was reached that speaks the protocol, so that trying again
    /// later makes sense.
    pub fn is_unreachable(&self) -> bool {
        matches!(
            self,
            Self::Unreachable(_) | Self::SelfConnection | Self::Timeout(DialStage::Connect)
        )
    }
}

/// What is wrong with the peer's negotiation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NegotiationError {
    /// The peer ended the stream.
    #[error("ended by the peer")]
    Ended,
}
