//! Links to peers: which are accepted, which are dialled, and what keeps them told.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use slim_link::{CloseReason, LinkInfo, Outbound, Principal};
use slim_proto::{ConnectionType, LinkNegotiation};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};

use crate::mesh::{Mesh, Side};
use crate::metrics::{Counter, Metrics, Tally};
use crate::peers::{PeerKey, Peers, Topology};
use crate::subscriber::{About, Subscriber};
use crate::{PeersConfig, RouteTable};

/// How long a peer may take to answer before it is told the next things nevertheless.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// How often a peer is told again what it has not acknowledged.
const REMINDER_INTERVAL: Duration = Duration::from_secs(30);

/// The peers of this node.
#[derive(Debug)]
pub(crate) struct Peering {
    own_id: String,
    group: String,
    topology: Topology,
    /// Who may open a peer link, and who that has to be.
    known: BTreeMap<String, Option<Principal>>,
    mesh: Arc<Mesh<Subscriber>>,
    metrics: Arc<Metrics>,
    up: Mutex<BTreeMap<String, Up>>,
    /// Told when `up` has changed.
    changed: watch::Sender<()>,
}

/// A link to a peer.
#[derive(Debug)]
struct Up {
    key: PeerKey,
    is_dialled: bool,
    outbound: Outbound,
}

/// The mesh of a node with these peers.
pub(crate) fn mesh(config: &PeersConfig, table: &Arc<RouteTable<Subscriber>>) -> Mesh<Subscriber> {
    let peers = Peers::new(config.topology, random(), config.max_names_per_peer);
    Mesh::new(config.topology, Arc::clone(table), peers)
}

/// Random enough to tell lives of a node apart, and to spread what they do.
pub(crate) fn random() -> u64 {
    RandomState::new().hash_one(0)
}

impl Peering {
    pub(crate) fn new(
        own_id: &str,
        config: &PeersConfig,
        mesh: Arc<Mesh<Subscriber>>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            own_id: own_id.to_owned(),
            group: config.domain_name.clone(),
            topology: config.topology,
            known: (config.peers.iter())
                .filter_map(|peer| Some((peer.node_id.clone()?, peer.principal.clone())))
                .collect(),
            mesh,
            metrics,
            up: Mutex::default(),
            changed: watch::channel(()).0,
        }
    }

    pub(crate) fn mesh(&self) -> &Arc<Mesh<Subscriber>> {
        &self.mesh
    }

    pub(crate) fn own_id(&self) -> &str {
        &self.own_id
    }

    pub(crate) fn group(&self) -> &str {
        &self.group
    }

    pub(crate) fn topology(&self) -> Topology {
        self.topology
    }

    /// Whether a node that dials may be a peer.
    ///
    /// # Errors
    /// Why not, in words for whoever runs it.
    pub(crate) fn admit(
        &self,
        peer: &LinkNegotiation,
        principals: &[Principal],
    ) -> Result<(), String> {
        self.check(&peer.node_id, &peer.deployment_name)?;
        let node_id = &peer.node_id;
        let Some(wanted) = self.known.get(node_id) else {
            return Err(format!("{node_id:?} is none of the peers of {:?}", self.own_id));
        };
        let is_it = |principal: &Principal| match wanted {
            Some(wanted) => is_same(principal, wanted),
            None => principal.name() == node_id,
        };
        match (principals.iter().any(is_it), wanted) {
            (true, _) => Ok(()),
            (false, None) if principals.is_empty() => Ok(()),
            (false, Some(wanted)) => Err(format!("{node_id:?} has to be {wanted}")),
            (false, None) => Err(format!("whoever opens this link is not named {node_id:?}")),
        }
    }

    /// Whether the node that was dialled is the one that was meant.
    ///
    /// # Errors
    /// Why not, in words.
    pub(crate) fn examine(&self, info: &LinkInfo, meant: Option<&str>) -> Result<(), String> {
        self.check(&info.node_id, &info.deployment_name)?;
        if info.connection_type != ConnectionType::Peer {
            return Err("it has not agreed to a peer link".to_owned());
        }
        match meant {
            Some(meant) if meant != info.node_id => {
                Err(format!("it is {:?}, not {meant:?}", info.node_id))
            }
            _ => Ok(()),
        }
    }

    fn check(&self, node_id: &str, group: &str) -> Result<(), String> {
        if node_id == self.own_id {
            return Err(format!("self-connection rejected: same node_id {node_id:?}"));
        }
        if !self.group.is_empty() && group != self.group {
            return Err(format!("deployment_name mismatch: {group:?}, here {:?}", self.group));
        }
        Ok(())
    }

    /// Takes a link into use, unless there is one that is to be kept. Of two nodes that
    /// dial each other, the one with the smaller id keeps its link; a node that dials
    /// again has lost the link that it had.
    pub(crate) fn join(
        self: &Arc<Self>,
        about: About,
        outbound: Outbound,
        is_dialled: bool,
    ) -> Option<(Side<Subscriber>, Membership)> {
        let node_id = about.info.node_id.clone();
        let mut up = lock(&self.up);
        if let Some(other) = up.get(&node_id) {
            let other_is_rightful = other.is_dialled == (self.own_id < node_id);
            if other.is_dialled != is_dialled && other_is_rightful && !other.outbound.is_closed() {
                return None;
            }
            other.outbound.close(CloseReason::Done);
        }
        let queue = outbound.clone();
        let (key, link) = self.mesh.up(|key| Subscriber::peer(queue, about, key));
        up.insert(node_id.clone(), Up { key, is_dialled, outbound });
        self.changed.send_replace(());
        info!(node_id, peers = up.len(), "peer up");
        let side = Side::Peer { link: Arc::clone(&link), key, mesh: Arc::clone(&self.mesh) };
        Some((side, Membership { peering: Arc::clone(self), node_id, key, link }))
    }

    fn leave(&self, node_id: &str, key: PeerKey) {
        let mut up = lock(&self.up);
        if up.get(node_id).is_some_and(|up| up.key == key) {
            up.remove(node_id);
            self.changed.send_replace(());
            info!(node_id, peers = up.len(), "peer down");
        }
    }

    /// Waits until there is no link to this peer.
    pub(crate) async fn missing(&self, node_id: &str) {
        let mut changed = self.changed.subscribe();
        while lock(&self.up).contains_key(node_id) {
            // Its sender is in `self`.
            changed.changed().await.unwrap_or(());
        }
    }
}

/// Whether a verified principal is the one that was configured, which may leave the
/// issuer open.
fn is_same(principal: &Principal, wanted: &Principal) -> bool {
    match (principal, wanted) {
        (Principal::Jwt { subject, .. }, Principal::Jwt { subject: wanted, issuer: None }) => {
            subject == wanted
        }
        _ => principal == wanted,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A link to a peer that is up, until this is dropped.
pub(crate) struct Membership {
    peering: Arc<Peering>,
    node_id: String,
    key: PeerKey,
    link: Arc<Subscriber>,
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.peering.leave(&self.node_id, self.key);
    }
}

impl Membership {
    /// Tells the peer all there is, and again what it has not acknowledged. What is new
    /// is told by who brings it; this goes on where there was no room.
    pub(crate) async fn announce(&self) -> Infallible {
        let Self { peering, key, link, .. } = self;
        let mesh = peering.mesh();
        let mut reminder = Instant::now() + REMINDER_INTERVAL;
        loop {
            let more = mesh.tell(*key);
            let until = if more { Instant::now() + ANSWER_TIMEOUT } else { reminder };
            tokio::select! {
                () = link.untold() => {
                    // A peer that reads nothing is found out by its keepalive.
                    timeout(ANSWER_TIMEOUT, link.outbound().control_space()).await.unwrap_or(());
                }
                () = sleep_until(until) => {
                    let unanswered = mesh.give_up_waiting(*key);
                    if unanswered > 0 {
                        warn!(unanswered, "peer does not acknowledge");
                        let mut tally = Tally::default();
                        tally.add(Counter::Unacknowledged, unanswered);
                        peering.metrics.take(&mut tally);
                    }
                }
            }
            if Instant::now() >= reminder {
                mesh.remind(*key);
                reminder = Instant::now() + REMINDER_INTERVAL;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PeerConfig;

    fn peering(own_id: &str) -> Peering {
        let peer = |id: &str| PeerConfig { node_id: Some(id.to_owned()), ..PeerConfig::default() };
        let config = PeersConfig {
            domain_name: "east".to_owned(),
            peers: vec![
                peer("a"),
                peer("b"),
                PeerConfig { principal: Some("spiffe://east/c".parse().unwrap()), ..peer("c") },
            ],
            ..PeersConfig::default()
        };
        let table = Arc::new(RouteTable::new());
        let mesh = Arc::new(mesh(&config, &table));
        let metrics = Arc::new(Metrics::new(table, Arc::default(), Some(Arc::clone(&mesh))));
        Peering::new(own_id, &config, mesh, metrics)
    }

    fn asks(node_id: &str, group: &str) -> LinkNegotiation {
        LinkNegotiation {
            link_id: "link".to_owned(),
            slim_version: slim_proto::SLIM_VERSION.to_owned(),
            is_reply: false,
            ecdh_public_key: bytes::Bytes::new(),
            connection_type: ConnectionType::Peer,
            node_id: node_id.to_owned(),
            deployment_name: group.to_owned(),
            kem_payload: None,
        }
    }

    #[test]
    fn a_peer_is_who_is_configured_and_of_the_same_group() {
        let a = peering("a");
        assert_eq!(a.admit(&asks("b", "east"), &[]), Ok(()));
        let refused = |node_id, group, reason: &str| {
            assert_eq!(a.admit(&asks(node_id, group), &[]), Err(reason.to_owned()));
        };
        refused("a", "east", "self-connection rejected: same node_id \"a\"");
        refused("b", "west", "deployment_name mismatch: \"west\", here \"east\"");
        refused("b", "", "deployment_name mismatch: \"\", here \"east\"");
        refused("mallory", "east", "\"mallory\" is none of the peers of \"a\"");
        refused("", "east", "\"\" is none of the peers of \"a\"");
    }

    #[test]
    fn whom_the_transport_has_verified_has_to_be_the_peer() {
        let a = peering("a");
        let asks = |node_id, principals: &[&str]| {
            let principals: Vec<Principal> =
                principals.iter().map(|text| text.parse().unwrap()).collect();
            a.admit(&asks(node_id, "east"), &principals)
        };
        assert_eq!(asks("b", &["spiffe://east/app", "dns:b"]), Ok(()));
        let other = Err("whoever opens this link is not named \"b\"".to_owned());
        assert_eq!(asks("b", &["spiffe://east/b", "dns:app"]), other);
        // Of this one it is said who it has to be.
        assert_eq!(asks("c", &["spiffe://east/c"]), Ok(()));
        for principals in [&["dns:c"][..], &["spiffe://east/b"], &[]] {
            let wrong = Err("\"c\" has to be spiffe://east/c".to_owned());
            assert_eq!(asks("c", principals), wrong, "{principals:?}");
        }
    }
}
