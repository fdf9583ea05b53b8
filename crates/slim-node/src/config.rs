//! What an embedder can set.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use slim_link::{AcceptConfig, DEFAULT_QUEUE_BYTES};

/// Where a node listens if nothing else is said.
pub const DEFAULT_PORT: u16 = 46357;

/// Subscriptions that one link may have by default.
pub const DEFAULT_MAX_SUBSCRIPTIONS: usize = 1 << 20;

/// How a node is run. The defaults are the safe ones.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Addresses to listen on; port 0 picks one. Default `127.0.0.1:46357`, which
    /// only this machine reaches.
    pub listen: Vec<SocketAddr>,
    /// Own id, announced to each peer. Default: `node-` and a new UUID.
    pub node_id: String,
    /// Whether each message with a header needs a valid MAC. Default true; without
    /// it, a peer that offers no key gets a link that anybody on the path can write
    /// to.
    pub require_header_mac: bool,
    /// How long a peer may take to negotiate. Default 5 s, as everywhere. Shorter
    /// cuts off slow diallers, longer keeps silent ones.
    pub negotiation_timeout: Duration,
    /// Bytes of data that may wait for one subscriber. Default
    /// [`DEFAULT_QUEUE_BYTES`]. Less makes bursts wait, more delays the moment at
    /// which a slow subscriber is noticed, and costs that much memory for each.
    pub queue_bytes: usize,
    /// How long a publisher waits for a subscriber whose queue is full. Default 1 s.
    /// A subscriber that takes less than a quarter of its queue in this time is
    /// shed: what waits for it is dropped and its link is closed. Shorter sheds
    /// subscribers that are merely behind, longer lets a stuck one slow its
    /// publishers, each once.
    pub slow_subscriber_grace: Duration,
    /// Subscriptions that one link may have; each takes some 150 bytes. Default
    /// [`DEFAULT_MAX_SUBSCRIPTIONS`]. Further ones are answered with an error.
    pub max_subscriptions_per_link: usize,
    /// How long links may take to end after a shutdown. Default 10 s. What is
    /// queued and not taken until then is lost.
    pub drain_timeout: Duration,
}

impl Default for NodeConfig {
    fn default() -> Self {
        let accept = AcceptConfig::default();
        Self {
            listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT))],
            node_id: accept.node_id,
            require_header_mac: true,
            negotiation_timeout: Duration::from_secs(5),
            queue_bytes: DEFAULT_QUEUE_BYTES,
            slow_subscriber_grace: Duration::from_secs(1),
            max_subscriptions_per_link: DEFAULT_MAX_SUBSCRIPTIONS,
            drain_timeout: Duration::from_secs(10),
        }
    }
}

impl NodeConfig {
    pub(crate) fn accept(&self) -> AcceptConfig {
        AcceptConfig {
            node_id: self.node_id.clone(),
            require_header_mac: self.require_header_mac,
            negotiation_timeout: self.negotiation_timeout,
            queue_bytes: self.queue_bytes,
            drain_timeout: self.drain_timeout,
        }
    }
}
