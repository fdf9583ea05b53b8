//! What an embedder can set.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::time::Duration;

use crate::Policy;
use slim_link::{
    AcceptConfig, Authorization, ClientTls, DEFAULT_MAX_CONNECTIONS, DEFAULT_MAX_NEWCOMERS,
    DEFAULT_MAX_QUEUED_BYTES, DEFAULT_QUEUE_BYTES, Keepalive, ListenConfig, Principal, Target,
};

use crate::peers::Topology;

/// Where a node listens if nothing else is said.
pub const DEFAULT_PORT: u16 = 46357;

/// Subscriptions that one link may have by default: 10 MB.
pub const DEFAULT_MAX_SUBSCRIPTIONS: usize = 1 << 16;

/// Names that one peer may announce by default: some 500 MB.
pub const DEFAULT_MAX_NAMES_PER_PEER: usize = 1 << 20;

/// How a node is joined to others: what applications subscribe to at one of them can be
/// reached at all.
#[derive(Clone, Debug)]
pub struct PeersConfig {
    /// Who passes on what. All nodes have to agree on it. Default full mesh.
    pub topology: Topology,
    /// Group of nodes; one that says another is refused. Default none, which refuses
    /// nobody.
    pub domain_name: String,
    /// The other nodes. Oneself among them is skipped.
    pub peers: Vec<PeerConfig>,
    /// Names that one peer may announce; each takes some 500 bytes. Default
    /// [`DEFAULT_MAX_NAMES_PER_PEER`]. Further ones are answered with an error.
    pub max_names_per_peer: usize,
}

impl Default for PeersConfig {
    fn default() -> Self {
        Self {
            topology: Topology::default(),
            domain_name: String::new(),
            peers: Vec::new(),
            max_names_per_peer: DEFAULT_MAX_NAMES_PER_PEER,
        }
    }
}

/// Another node. It is trusted with all names.
#[derive(Clone, Debug, Default)]
pub struct PeerConfig {
    /// Its id. Without one, whoever answers at `target` is the peer, and it cannot dial
    /// this node.
    pub node_id: Option<String>,
    /// Where it listens. Without one it has to dial. In a full mesh, the node with the
    /// smaller id dials, so the other one needs none.
    pub target: Option<Target>,
    /// TLS, where the target's address asks for it.
    pub tls: ClientTls,
    /// What is shown when it is dialled, if its node wants to see a password or a token.
    pub authorization: Option<Authorization>,
    /// Who it has to be when it dials. Default: where the transport verifies who opens
    /// a link, one of whom it finds has to have the peer's id as its name; where it does
    /// not, the id is believed.
    pub principal: Option<Principal>,
    /// When it is dialled again.
    pub backoff: Backoff,
}

/// When something is tried again: after `first`, then after twice as long each time, up
/// to `most`; a random part of up to half of it is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Default 200 ms.
    pub first: Duration,
    /// Default 30 s. Also the time after a refusal.
    pub most: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_millis(200), most: Duration::from_secs(30) }
    }
}

/// How a node is run. The defaults are the safe ones.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Where to listen, and whether TLS is spoken there; port 0 picks one. Default
    /// `127.0.0.1:46357`, which only this machine reaches, without TLS.
    pub listen: Vec<ListenConfig>,
    /// Where the node can be looked at over HTTP: metrics, health, links and routes.
    /// Whoever reaches this address sees all names and addresses, so it should be one
    /// that only this machine reaches. Default none; port 0 picks one.
    pub admin: Option<SocketAddr>,
    /// Own id, announced at the other end of each link. Default: `node-` and a new UUID.
    pub node_id: String,
    /// Other nodes that this one is joined to. Default none, and nobody can open a peer
    /// link then.
    pub peers: Option<PeersConfig>,
    /// Whether each message with a header needs a valid MAC. Default true; without
    /// it, a peer that offers no key gets a link that anybody on the path can write
    /// to.
    pub require_header_mac: bool,
    /// How long a peer may take to negotiate once it has opened a stream, and how
    /// long it may take to open one. Default 5 s, as everywhere. Shorter cuts off
    /// slow diallers, longer keeps silent ones.
    pub negotiation_timeout: Duration,
    /// Connections that there may be, at least 1. Default
    /// [`DEFAULT_MAX_CONNECTIONS`]; each takes a file descriptor and some 50 KB.
    /// Further ones are not turned away, which would make applications give up,
    /// but wait with the system until one goes.
    pub max_connections: usize,
    /// Connections that have not negotiated yet, at least 1. Default
    /// [`DEFAULT_MAX_NEWCOMERS`]. Further ones wait; one of these that has had half
    /// a second is cut for them.
    pub max_unnegotiated_connections: usize,
    /// Bytes of data that may wait for one subscriber. Default
    /// [`DEFAULT_QUEUE_BYTES`]. Less makes bursts wait, more delays the moment at
    /// which a slow subscriber is noticed, and costs that much memory for each.
    pub queue_bytes: usize,
    /// Bytes of data that may wait for all subscribers together, not counting the
    /// first 64 KiB of each. Default [`DEFAULT_MAX_QUEUED_BYTES`]. While more is
    /// waiting, 64 KiB is the limit of each, so that those who are far behind are
    /// shed and the others notice nothing.
    pub max_queued_bytes: usize,
    /// How long a publisher waits for a subscriber whose queue is full. Default 1 s.
    /// A subscriber that takes less than a quarter of its queue in this time is
    /// shed: what waits for it is dropped and its link is closed. Shorter sheds
    /// subscribers that are merely behind, longer lets a stuck one slow its
    /// publishers, each once.
    pub slow_subscriber_grace: Duration,
    /// Subscriptions that one link may have; each takes some 150 bytes. Default
    /// [`DEFAULT_MAX_SUBSCRIPTIONS`]. Further ones are answered with an error.
    pub max_subscriptions_per_link: usize,
    /// Messages a second that are read from one link, after a burst of as many.
    /// Default none: no limit. Who sends more is slowed down by flow control, and
    /// loses nothing; so are its own subscriptions.
    pub max_messages_per_second: Option<NonZeroU32>,
    /// Which names are whose. Default none: whoever has a link may subscribe to any name,
    /// and publish to any. With one, what no rule allows is denied.
    pub policy: Option<Policy>,
    /// How it is noticed that an application is gone without a word, and how old a
    /// connection gets.
    pub keepalive: Keepalive,
    /// How long links may take to end after a shutdown. Default 10 s. What is
    /// queued and not taken until then is lost.
    pub drain_timeout: Duration,
    /// Whether the OpenTelemetry providers that the process has set by the time of
    /// [`Node::run`](crate::Node::run) get the node's metrics, and a span for each message
    /// that its sender traces. Default false.
    pub telemetry: bool,
}

impl Default for NodeConfig {
    fn default() -> Self {
        let accept = AcceptConfig::default();
        Self {
            listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT)).into()],
            admin: None,
            node_id: accept.node_id,
            peers: None,
            require_header_mac: true,
            negotiation_timeout: Duration::from_secs(5),
            max_connections: DEFAULT_MAX_CONNECTIONS,
            max_unnegotiated_connections: DEFAULT_MAX_NEWCOMERS,
            queue_bytes: DEFAULT_QUEUE_BYTES,
            max_queued_bytes: DEFAULT_MAX_QUEUED_BYTES,
            slow_subscriber_grace: Duration::from_secs(1),
            max_subscriptions_per_link: DEFAULT_MAX_SUBSCRIPTIONS,
            max_messages_per_second: None,
            policy: None,
            keepalive: Keepalive::default(),
            drain_timeout: Duration::from_secs(10),
            telemetry: false,
        }
    }
}

impl NodeConfig {
    pub(crate) fn accept(&self) -> AcceptConfig {
        AcceptConfig {
            node_id: self.node_id.clone(),
            require_header_mac: self.require_header_mac,
            negotiation_timeout: self.negotiation_timeout,
            max_connections: self.max_connections,
            max_newcomers: self.max_unnegotiated_connections,
            queue_bytes: self.queue_bytes,
            max_queued_bytes: self.max_queued_bytes,
            keepalive: self.keepalive,
            drain_timeout: self.drain_timeout,
            ..AcceptConfig::default()
        }
    }
}
