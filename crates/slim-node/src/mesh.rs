//! The peers of a node and the routes towards them, shared by all its links.
//!
//! One lock, held for as long as it takes to decide and to queue, never while waiting.
//! What an application subscribes to is queued for each peer before the application is
//! answered, and on a link announcements overtake data: whoever has had the answer and
//! says so to somebody at another node is known there before the word arrives.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use slim_proto::{Message, Name, RouteName, RoutedFrame};

use crate::peers::{PeerKey, Peers, RouteChange, Topology};
use crate::router::Subscriptions;
use crate::{LinkRoutes, RouteTable, SubscriptionError};

/// Names that are forgotten under one lock when a peer is gone, at most.
const NAMES_PER_TURN: usize = 256;

/// Bytes of a name's readable parts above which it is not announced: it is kept for
/// each peer.
const MAX_TEXT_LEN: usize = 1024;

/// A link as the router and the mesh see it.
pub(crate) trait Target {
    /// Which peer it leads to; none for an application.
    fn peer(&self) -> Option<PeerKey>;
    /// Whether it is worth picking where one is enough.
    fn is_usable(&self) -> bool;
    /// Queues a message in front of all data, if there is room.
    fn tell(&self, message: &Message) -> bool;
    /// Nothing more comes for now.
    fn wake(&self);
}

/// A node's peers. `T` is its link.
pub(crate) struct Mesh<T> {
    topology: Topology,
    table: Arc<RouteTable<T>>,
    state: Mutex<State<T>>,
}

struct State<T> {
    peers: Peers,
    /// The routes towards each peer that is up.
    links: BTreeMap<PeerKey, LinkRoutes<T>>,
}

impl<T: Target> Mesh<T> {
    pub(crate) fn new(topology: Topology, table: Arc<RouteTable<T>>, peers: Peers) -> Self {
        let state = State { peers, links: BTreeMap::new() };
        Self { topology, table, state: Mutex::new(state) }
    }

    pub(crate) fn is_relay(&self) -> bool {
        self.topology == Topology::Relay
    }

    /// A new peer, with the link that `link` makes for it. Call [`Self::tell`] then.
    pub(crate) fn up(&self, link: impl FnOnce(PeerKey) -> T) -> (PeerKey, Arc<T>) {
        let mut state = self.lock();
        let key = state.peers.up();
        let link = Arc::new(link(key));
        let routes = self.table.attach(Arc::clone(&link), usize::MAX);
        state.links.insert(key, routes);
        (key, link)
    }

    /// A peer is gone. Forgets some of what was heard from it, and says whether there
    /// is more.
    pub(crate) fn down(&self, peer: PeerKey, at_most: usize) -> bool {
        let at_most = at_most.min(NAMES_PER_TURN);
        self.change(
            |peers| peers.down(peer, at_most),
            |links, more| {
                if !more {
                    links.remove(&peer);
                }
            },
        )
    }

    pub(crate) fn subscribed(&self, route: RouteName, name: Option<Name>) {
        self.change(|peers| peers.subscribed(route, name), |_, ()| {});
    }

    pub(crate) fn unsubscribed(&self, route: RouteName) {
        self.change(|peers| peers.unsubscribed(route), |_, ()| {});
    }

    /// A peer has sent a Subscribe.
    pub(crate) fn announced(
        &self,
        from: PeerKey,
        frame: &RoutedFrame,
    ) -> Result<(), SubscriptionError> {
        let (header, id) = (frame.header(), frame.subscription_id());
        let (route, hops) = (header.destination, header.ttl.saturating_sub(1));
        let name = readable(frame);
        self.change(|peers| peers.announced(from, route, name, id, hops), |_, _| {})
    }

    /// A peer has sent an Unsubscribe.
    pub(crate) fn withdrawn(&self, from: PeerKey, frame: &RoutedFrame) {
        let (route, id) = (frame.header().destination, frame.subscription_id());
        self.change(|peers| peers.withdrawn(from, route, id), |_, ()| {});
    }

    /// A peer has sent a SubscriptionAck; false if it is none.
    pub(crate) fn answered(&self, from: PeerKey, ack: &Bytes) -> bool {
        let Ok(Message::SubscriptionAck(ack)) = Message::decode(ack.clone()) else { return false };
        let (id, is_accepted) = (ack.subscription_id, ack.result.is_ok());
        self.change(|peers| peers.answered(from, id, is_accepted), |_, ()| {});
        true
    }

    pub(crate) fn give_up_waiting(&self, peer: PeerKey) -> usize {
        self.change(|peers| peers.give_up_waiting(peer), |_, _| {})
    }

    pub(crate) fn remind(&self, peer: PeerKey) {
        self.change(|peers| peers.remind(peer), |_, ()| {});
    }

    /// Queues what a peer does not know yet, as far as there is room. Says whether
    /// there is more.
    pub(crate) fn tell(&self, peer: PeerKey) -> bool {
        let State { peers, links } = &mut *self.lock();
        links.get(&peer).is_some_and(|routes| tell(peers, peer, routes))
    }

    /// See [`Peers::relays`].
    pub(crate) fn keep_relays(&self, from: PeerKey, source: &RouteName, targets: &mut Vec<Arc<T>>) {
        if targets.iter().all(|link| link.peer().is_none()) {
            return;
        }
        let state = self.is_relay().then(|| self.lock());
        targets.retain(|link| match (link.peer(), &state) {
            (None, _) => true,
            (Some(to), Some(state)) => state.peers.relays(from, to, source),
            (Some(_), None) => false,
        });
    }

    /// See [`Peers::nearest`].
    pub(crate) fn nearest(&self, from: PeerKey, name: &RouteName) -> Option<Arc<T>> {
        if !self.is_relay() {
            return None;
        }
        let state = self.lock();
        let peer = state.peers.nearest(from, name)?;
        state.links.get(&peer).map(|routes| Arc::clone(routes.link()))
    }

    /// How many peers there are, and names that they have announced.
    pub(crate) fn size(&self) -> (usize, usize) {
        let state = self.lock();
        (state.links.len(), state.peers.heard())
    }

    /// Changes what is known, then the table, then tells the peers.
    fn change<R>(
        &self,
        change: impl FnOnce(&mut Peers) -> R,
        then: impl FnOnce(&mut BTreeMap<PeerKey, LinkRoutes<T>>, &R),
    ) -> R {
        let State { peers, links } = &mut *self.lock();
        let result = change(peers);
        for RouteChange { peer, name, is_up } in peers.take_changes() {
            let Some(routes) = links.get_mut(&peer) else { continue };
            // There is no limit, and what is removed was there.
            let changed = match is_up {
                true => routes.subscribe(&name, 0).map(drop),
                false => routes.unsubscribe(&name, 0).map(drop),
            };
            debug_assert_eq!(changed, Ok(()), "the table follows");
        }
        then(links, &result);
        for (peer, routes) in links {
            if peers.has_news(*peer) {
                tell(peers, *peer, routes);
            }
        }
        result
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a link's frames change. Dropping it removes its routes.
pub(crate) enum Side<T: Target> {
    /// The link of an application, whose names the peers are told.
    App { routes: LinkRoutes<T>, mesh: Option<Arc<Mesh<T>>> },
    /// The link to a peer.
    Peer { link: Arc<T>, key: PeerKey, mesh: Arc<Mesh<T>> },
}

impl<T: Target> Side<T> {
    /// Removes up to `at_most` routes, and says whether there are more.
    pub(crate) fn release(&mut self, at_most: usize) -> bool {
        match self {
            Self::App { routes, mesh: None } => routes.release(at_most),
            Self::App { routes, mesh: Some(mesh) } => {
                routes.release_each(at_most, |name| mesh.unsubscribed(name))
            }
            Self::Peer { key, mesh, .. } => mesh.down(*key, at_most),
        }
    }
}

impl<T: Target> Side<T> {
    /// Changes how many subscriptions an application may have. Peers have a limit of
    /// their own.
    pub(crate) fn set_limit(&mut self, limit: usize) {
        if let Self::App { routes, .. } = self {
            routes.set_limit(limit);
        }
    }

    /// Takes names from an application that are not to be kept, and gives them. A peer
    /// withdraws its own.
    pub(crate) fn withdraw(&mut self, keep: impl Fn(&RouteName) -> bool) -> Vec<RouteName> {
        let Self::App { routes, mesh } = self else { return Vec::new() };
        let gone = routes.withdraw(keep);
        if let Some(mesh) = mesh {
            gone.iter().for_each(|name| mesh.unsubscribed(*name));
        }
        gone
    }

    /// How many names the link leads to.
    pub(crate) fn names(&self) -> usize {
        match self {
            Self::App { routes, .. } => routes.len(),
            Self::Peer { key, mesh, .. } => mesh.lock().peers.heard_from(*key),
        }
    }

    /// Whether it leads to this name.
    pub(crate) fn has(&self, name: &RouteName) -> bool {
        match self {
            Self::App { routes, .. } => routes.contains(name),
            Self::Peer { key, mesh, .. } => mesh.lock().peers.has_heard(*key, name),
        }
    }
}

impl<T: Target> Drop for Side<T> {
    fn drop(&mut self) {
        while self.release(usize::MAX) {}
    }
}

impl<T: Target> Subscriptions<T> for Side<T> {
    fn link(&self) -> &Arc<T> {
        match self {
            Self::App { routes, .. } => routes.link(),
            Self::Peer { link, .. } => link,
        }
    }

    fn subscribe(&mut self, frame: &RoutedFrame) -> Result<(), SubscriptionError> {
        match self {
            Self::App { routes, mesh } => {
                let name = frame.header().destination;
                let is_new = routes.subscribe(&name, frame.subscription_id())?;
                if let (true, Some(mesh)) = (is_new, mesh) {
                    mesh.subscribed(name, readable(frame));
                }
                Ok(())
            }
            Self::Peer { key, mesh, .. } => mesh.announced(*key, frame),
        }
    }

    fn unsubscribe(&mut self, frame: &RoutedFrame) -> Result<(), SubscriptionError> {
        match self {
            Self::App { routes, mesh } => {
                let name = frame.header().destination;
                let is_gone = routes.unsubscribe(&name, frame.subscription_id())?;
                if let (true, Some(mesh)) = (is_gone, mesh) {
                    mesh.unsubscribed(name);
                }
                Ok(())
            }
            Self::Peer { key, mesh, .. } => {
                mesh.withdrawn(*key, frame);
                Ok(())
            }
        }
    }

    fn answered(&mut self, ack: &Bytes) -> bool {
        match self {
            Self::App { .. } => false,
            Self::Peer { key, mesh, .. } => mesh.answered(*key, ack),
        }
    }
}

/// The name in question with its readable parts, if they are true and not too long.
fn readable(frame: &RoutedFrame) -> Option<Name> {
    let name = frame.destination();
    let len = name.text()?.iter().map(String::len).sum::<usize>();
    (len <= MAX_TEXT_LEN).then_some(name)
}

fn tell<T: Target>(peers: &mut Peers, peer: PeerKey, routes: &LinkRoutes<T>) -> bool {
    let more = peers.tell(peer, |message| routes.link().tell(message));
    routes.link().wake();
    more
}

impl<T> fmt::Debug for Mesh<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mesh").field("topology", &self.topology).finish_non_exhaustive()
    }
}
