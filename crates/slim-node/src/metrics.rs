//! Counters of what the node does.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use slim_link::AcceptCounters;

use crate::RouteTable;
use crate::links::Links;
use crate::mesh::Mesh;
use crate::subscriber::Subscriber;

/// All counters at one moment, roughly: they are read one after the other. Those
/// of the moment are `connections`, `unnegotiated_connections`, `links`, `subscriptions`,
/// `peers` and `peer_names`; the others only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MetricsSnapshot {
    /// Connections that are open.
    pub connections: u64,
    /// Those of them on which no link has been up yet.
    pub unnegotiated_connections: u64,
    /// Connections that were cut because no link came up in time, or to make room
    /// for others.
    pub cut_connections: u64,
    /// How often [`NodeConfig::max_connections`](crate::NodeConfig::max_connections)
    /// or `max_unnegotiated_connections` kept connections waiting.
    pub times_full: u64,
    /// Links whose negotiation failed or did not come in time.
    pub refused_links: u64,
    /// Links that were refused before they negotiated, because what they showed proves
    /// nobody.
    pub unauthenticated_links: u64,
    /// Links that are up.
    pub links: u64,
    /// Links that there have been, those that are up included.
    pub opened_links: u64,
    /// Pairs of a link and a name that it has subscribed to, or that a peer leads to.
    pub subscriptions: u64,
    /// Those of the links that lead to peers.
    pub peers: u64,
    /// Pairs of a peer and something that it has announced.
    pub peer_names: u64,
    /// How often a peer could not be reached, or is not the right one.
    pub failed_dials: u64,
    /// What peers were told and did not acknowledge in time.
    pub unacknowledged: u64,
    /// Subscriptions that were refused because the link has too many, and
    /// unsubscriptions of what it has not.
    pub refused_subscriptions: u64,
    /// Subscriptions that the policy does not allow; those that were answered are among
    /// the refused ones, too.
    pub denied_subscriptions: u64,
    /// Names that were taken from their links because a new policy does not allow them.
    pub withdrawn_subscriptions: u64,
    /// How often a link was not read for a while because it had sent more than
    /// [`NodeConfig::max_messages_per_second`](crate::NodeConfig::max_messages_per_second).
    pub throttled: u64,
    /// Messages that arrived, those that were dropped included.
    pub received: u64,
    /// Bytes of the received messages that were understood.
    pub received_bytes: u64,
    /// Copies that were queued for a subscriber.
    pub delivered: u64,
    /// Bytes of these.
    pub delivered_bytes: u64,
    /// Links that were closed because their peer read too slowly.
    pub shed_links: u64,
    /// What was dropped.
    pub dropped: Dropped,
}

/// Messages that were dropped, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Dropped {
    /// No message of this protocol.
    pub malformed: u64,
    /// A MAC that is wrong, or missing where it is needed.
    pub bad_mac: u64,
    /// A message that has no meaning at this point, such as a second negotiation.
    pub unexpected: u64,
    /// No hops left.
    pub ttl_expired: u64,
    /// The policy does not allow the destination, or the source.
    pub denied: u64,
    /// Too large to be forwarded.
    pub too_large: u64,
    /// Nobody but perhaps the sender has subscribed to the name.
    pub no_subscriber: u64,
    /// Copies for a link that closed in the meantime.
    pub link_closed: u64,
    /// Copies for a subscriber that read too slowly.
    pub shed: u64,
}

/// What is counted; see [`MetricsSnapshot`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counter {
    Received,
    ReceivedBytes,
    Delivered,
    DeliveredBytes,
    ShedLinks,
    RefusedSubscriptions,
    DeniedSubscriptions,
    WithdrawnSubscriptions,
    Throttled,
    FailedDials,
    Unacknowledged,
    Malformed,
    BadMac,
    Unexpected,
    TtlExpired,
    Denied,
    TooLarge,
    NoSubscriber,
    LinkClosed,
    Shed,
}

impl Counter {
    /// Why something was dropped, as it is called where reasons are told apart.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::BadMac => "bad_mac",
            Self::Unexpected => "unexpected",
            Self::TtlExpired => "ttl_expired",
            Self::Denied => "denied",
            Self::TooLarge => "too_large",
            Self::NoSubscriber => "no_subscriber",
            Self::LinkClosed => "link_closed",
            Self::Shed => "shed",
            _ => "other",
        }
    }
}

const COUNTERS: usize = Counter::Shed as usize + 1;

/// The node's counters.
pub struct Metrics {
    table: Arc<RouteTable<Subscriber>>,
    mesh: Option<Arc<Mesh<Subscriber>>>,
    accepted: Arc<AcceptCounters>,
    links: Arc<Links>,
    counters: [AtomicU64; COUNTERS],
}

impl Metrics {
    pub(crate) fn new(
        table: Arc<RouteTable<Subscriber>>,
        links: Arc<Links>,
        mesh: Option<Arc<Mesh<Subscriber>>>,
    ) -> Self {
        let (accepted, counters) = Default::default();
        Self { table, mesh, accepted, links, counters }
    }

    /// Reads all counters.
    pub fn snapshot(&self) -> MetricsSnapshot {
        let (peers, peer_names) = self.mesh.as_ref().map_or((0, 0), |mesh| mesh.size());
        let read = |counter: Counter| self.counters[counter as usize].load(Ordering::Relaxed);
        MetricsSnapshot {
            connections: self.accepted.connections(),
            unnegotiated_connections: self.accepted.newcomers(),
            cut_connections: self.accepted.cut_newcomers(),
            times_full: self.accepted.times_full(),
            refused_links: self.accepted.refused_links(),
            unauthenticated_links: self.accepted.unauthenticated_links(),
            refused_subscriptions: read(Counter::RefusedSubscriptions),
            denied_subscriptions: read(Counter::DeniedSubscriptions),
            withdrawn_subscriptions: read(Counter::WithdrawnSubscriptions),
            throttled: read(Counter::Throttled),
            links: self.links.count() as u64,
            opened_links: self.links.ever(),
            subscriptions: self.table.subscriptions() as u64,
            peers: peers as u64,
            peer_names: peer_names as u64,
            failed_dials: read(Counter::FailedDials),
            unacknowledged: read(Counter::Unacknowledged),
            received: read(Counter::Received),
            received_bytes: read(Counter::ReceivedBytes),
            delivered: read(Counter::Delivered),
            delivered_bytes: read(Counter::DeliveredBytes),
            shed_links: read(Counter::ShedLinks),
            dropped: Dropped {
                malformed: read(Counter::Malformed),
                bad_mac: read(Counter::BadMac),
                unexpected: read(Counter::Unexpected),
                ttl_expired: read(Counter::TtlExpired),
                denied: read(Counter::Denied),
                too_large: read(Counter::TooLarge),
                no_subscriber: read(Counter::NoSubscriber),
                link_closed: read(Counter::LinkClosed),
                shed: read(Counter::Shed),
            },
        }
    }

    /// Where accepting counts.
    pub(crate) fn accepted(&self) -> Arc<AcceptCounters> {
        Arc::clone(&self.accepted)
    }

    /// Adds what one link's task has counted, and starts it again from nothing.
    pub(crate) fn take(&self, tally: &mut Tally) {
        for (counter, n) in self.counters.iter().zip(std::mem::take(&mut tally.0)) {
            if n > 0 {
                counter.fetch_add(n, Ordering::Relaxed);
            }
        }
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.snapshot().fmt(f)
    }
}

/// What a link's task has counted since it last told. The counters are shared by
/// all threads, so they are not touched for each message.
#[derive(Debug, Default)]
pub(crate) struct Tally([u64; COUNTERS]);

impl Tally {
    pub(crate) fn add(&mut self, counter: Counter, n: usize) {
        self.0[counter as usize] += n as u64;
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }
}
