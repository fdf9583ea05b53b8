//! What this node tells its peers, and which peers lead to a name. Pure.
//!
//! A node whose first application subscribes to a name *announces* the name: it sends
//! each peer a Subscribe with an id of its own making and a number of hops. In a full
//! mesh that is all, since everybody hears it from its origin. Where nodes
//! [relay](Topology::Relay), each passes on the announcement with one hop less, so
//! that all learn how far the origin is through each of their peers.
//!
//! | what happens | what follows |
//! |---|---|
//! | first application of a name | announced to each peer under a new id |
//! | last one gone | withdrawn everywhere |
//! | a peer is up | it is told everything, in order of names, what is new first |
//! | a peer is gone | all that was heard through it is forgotten |
//! | a peer announces | remembered by peer, name and id; own announcements that come back are ignored |
//! | a peer withdraws | forgotten by peer, name and id; with an id nobody knows, what it announced of the name as the nearest |
//! | the way to an origin changes | the others are told the new distance, or that there is none; who has the best way is not told it |
//! | a peer does not acknowledge | it is told again later, and everything else goes on |
//!
//! Nothing lasts that is not held up by somebody nearer to its origin, and the hops
//! only go down, so what is gone is forgotten by all after as many steps as an
//! announcement has hops.
//!
//! # Where a message goes
//!
//! What an application of this node publishes goes to the applications here that want
//! it and to each peer on a shortest way to another node that does. What comes from a
//! peer goes to the applications here. Only where nodes relay does it go further, along
//! the tree of shortest ways from its source: an application subscribes to its own
//! name, so each node knows which peer is the nearest to it, and does not tell that
//! peer. Whoever has told us of the source is therefore not behind us in this tree,
//! and gets nothing from us; who has not, is. So in a ring nobody gets a message twice.
//! A message whose source nobody has subscribed to is not relayed.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use slim_proto::{DEFAULT_TTL, Header, Message, Name, NameId, RouteName, Subscription, UNICAST};

use crate::SubscriptionError;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

/// Announcements that may be on their way to a peer without an answer. Bounds what two
/// nodes that tell each other everything have to keep ready for one another.
const MAX_UNANSWERED: usize = 128;

/// Instances of a name that are looked at to find the nearest.
const MAX_INSTANCES: usize = 64;

/// How nodes are joined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Topology {
    /// Each node has a link to each other one, and passes nothing on between them.
    #[default]
    FullMesh,
    /// Nodes pass on what their peers say and send, over six links at most: for a line, a
    /// tree, or a ring, in which a lost link is gone around.
    Relay,
}

impl Topology {
    /// Hops of a new announcement.
    fn hops(self) -> u32 {
        match self {
            Self::FullMesh => 2,
            // What an application sends has spent one hop here, and is not to be called
            // for from farther away than it gets.
            Self::Relay => DEFAULT_TTL - 1,
        }
    }
}

/// A link to a peer. Never given to another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PeerKey(u64);

/// A name and the id under which its origin has announced it.
type Announcement = (RouteName, u64);

/// That a name can be reached through a peer from now on, or no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RouteChange {
    pub(crate) peer: PeerKey,
    pub(crate) name: RouteName,
    pub(crate) is_up: bool,
}

/// What is known of names and peers.
#[derive(Debug)]
pub(crate) struct Peers {
    topology: Topology,
    /// Names that one peer may announce.
    limit: usize,
    last_id: u64,
    last_key: u64,
    links: BTreeMap<PeerKey, PeerLink>,
    names: BTreeMap<RouteName, Known>,
    changes: Vec<RouteChange>,
}

#[derive(Debug, Default)]
struct PeerLink {
    heard: BTreeSet<Announcement>,
    /// Own announcements that came back.
    echoes: BTreeSet<Announcement>,
    told: BTreeMap<Announcement, Told>,
    /// What may differ from what was told.
    news: BTreeSet<Announcement>,
    /// The last name of those that it was told because it is new.
    introduced: Option<RouteName>,
    is_introduced: bool,
    unanswered: BTreeSet<(u64, RouteName)>,
    /// What was not acknowledged, to be told again.
    missed: BTreeSet<Announcement>,
    is_gone: bool,
}

#[derive(Clone, Debug)]
struct Told {
    hops: u32,
    name: Name,
}

#[derive(Debug, Default)]
struct Known {
    /// With its readable parts, without which it is not announced.
    name: Option<Name>,
    /// Id of our own announcement and the links of applications, while there are some.
    own: Option<Own>,
    heard: BTreeMap<u64, Heard>,
    /// Peers in the routing table: those on a shortest way to an origin.
    via: BTreeSet<PeerKey>,
}

#[derive(Debug)]
struct Own {
    id: u64,
    links: usize,
}

/// The ways to one origin.
#[derive(Debug)]
struct Heard {
    /// One of the shortest; stays while it is one.
    best: PeerKey,
    /// Hops that are left, by peer: the more, the nearer.
    hops: BTreeMap<PeerKey, u32>,
}

impl Heard {
    fn most(&self) -> u32 {
        self.hops.values().copied().max().unwrap_or(0)
    }

    fn left(&self) -> u32 {
        self.hops.get(&self.best).copied().unwrap_or(0)
    }
}

impl Peers {
    /// No peers yet. Own announcements are numbered from `first_id` on, which should be
    /// a random number: others may know ids of an earlier life of this node. A peer may
    /// announce `limit` names.
    pub(crate) fn new(topology: Topology, first_id: u64, limit: usize) -> Self {
        Self {
            topology,
            limit,
            last_id: first_id,
            last_key: 0,
            links: BTreeMap::new(),
            names: BTreeMap::new(),
            changes: Vec::new(),
        }
    }

    /// One more link of an application has subscribed to this name. `name` is the same
    /// with its readable parts, if they are there; one without is not announced.
    pub(crate) fn subscribed(&mut self, route: RouteName, name: Option<Name>) {
        let known = self.names.entry(route).or_default();
        let was_readable = known.name.is_some();
        if !was_readable {
            known.name = name;
        }
        let id = match &mut known.own {
            Some(own) => {
                own.links += 1;
                if was_readable == known.name.is_some() {
                    return;
                }
                own.id
            }
            None => {
                // 0 would ask for no answer.
                self.last_id = self.last_id.checked_add(1).unwrap_or(1);
                known.own = Some(Own { id: self.last_id, links: 1 });
                self.last_id
            }
        };
        self.mark((route, id));
    }

    /// One link less.
    pub(crate) fn unsubscribed(&mut self, route: RouteName) {
        let Some(known) = self.names.get_mut(&route) else { return };
        let Some(own) = &mut known.own else { return };
        own.links -= 1;
        if own.links > 0 {
            return;
        }
        let id = own.id;
        known.own = None;
        self.mark((route, id));
        self.tidy(route);
    }

    /// A new peer, which is to be told everything.
    pub(crate) fn up(&mut self) -> PeerKey {
        self.last_key += 1;
        let key = PeerKey(self.last_key);
        self.links.insert(key, PeerLink::default());
        key
    }

    /// Forgets up to `at_most` of the names that were heard from a peer which is gone,
    /// and says whether there are more. Nothing is told to it any more.
    pub(crate) fn down(&mut self, peer: PeerKey, at_most: usize) -> bool {
        let Some(link) = self.links.get_mut(&peer) else { return false };
        link.is_gone = true;
        link.news.clear();
        link.told.clear();
        let lost: Vec<Announcement> = link.heard.iter().take(at_most).copied().collect();
        for announcement in lost {
            self.forget(peer, announcement);
        }
        let more = self.links.get(&peer).is_some_and(|link| !link.heard.is_empty());
        if !more {
            self.links.remove(&peer);
        }
        more
    }

    /// A peer leads to a name. `hops` are those that are left.
    ///
    /// # Errors
    /// [`SubscriptionError::TooMany`] if it has announced its share.
    pub(crate) fn announced(
        &mut self,
        from: PeerKey,
        route: RouteName,
        name: Option<Name>,
        id: u64,
        hops: u32,
    ) -> Result<(), SubscriptionError> {
        let Some(link) = self.links.get_mut(&from) else { return Ok(()) };
        let own = self.names.get(&route).and_then(|known| known.own.as_ref());
        let is_echo = own.is_some_and(|own| own.id == id);
        let (count, list) = match link {
            PeerLink { heard, echoes, .. } if is_echo => (heard.len() + echoes.len(), echoes),
            PeerLink { heard, echoes, .. } => (heard.len() + echoes.len(), heard),
        };
        if count >= self.limit && !list.contains(&(route, id)) {
            return Err(SubscriptionError::TooMany(self.limit));
        }
        list.insert((route, id));
        if is_echo {
            return Ok(());
        }
        let known = self.names.entry(route).or_default();
        known.name = known.name.take().or(name);
        let heard = known.heard.entry(id);
        heard
            .or_insert_with(|| Heard { best: from, hops: BTreeMap::new() })
            .hops
            .insert(from, hops);
        self.heard_otherwise((route, id));
        Ok(())
    }

    /// A peer no longer leads to a name. Some say so twice, and are answered alike.
    pub(crate) fn withdrawn(&mut self, from: PeerKey, route: RouteName, id: u64) {
        let link = self.links.get_mut(&from);
        if link.is_some_and(|link| link.echoes.remove(&(route, id))) {
            return;
        }
        let Some(known) = self.names.get(&route) else { return };
        let of_peer = |heard: &Heard| heard.hops.get(&from).copied();
        if known.heard.get(&id).and_then(of_peer).is_some() {
            return self.forget(from, (route, id));
        }
        // Some withdraw a name with the id of the last application that had it, having
        // announced it with the id of the first.
        let nearest = known.heard.values().filter_map(of_peer).max();
        let is_it = |heard: &Heard| nearest.is_some() && of_peer(heard) == nearest;
        let same = known.heard.iter().filter(|(_, heard)| is_it(heard));
        for id in same.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.forget(from, (route, id));
        }
    }

    /// A peer has answered what it was told under this id.
    pub(crate) fn answered(&mut self, from: PeerKey, id: u64, is_accepted: bool) {
        let Some(link) = self.links.get_mut(&from) else { return };
        let lowest = RouteName { components: [0; 3], id: NameId(0) };
        let first = link.unanswered.range((id, lowest)..).next().copied();
        if let Some((_, name)) = first.filter(|(first, _)| *first == id) {
            link.unanswered.remove(&(id, name));
            if !is_accepted {
                link.missed.insert((name, id));
            }
        }
    }

    /// No longer waits for answers that have not come, and says how many there are.
    pub(crate) fn give_up_waiting(&mut self, peer: PeerKey) -> usize {
        let Some(link) = self.links.get_mut(&peer) else { return 0 };
        let unanswered = std::mem::take(&mut link.unanswered);
        let count = unanswered.len();
        link.missed.extend(unanswered.into_iter().map(|(id, name)| (name, id)));
        count
    }

    /// What was not acknowledged is told again.
    pub(crate) fn remind(&mut self, peer: PeerKey) {
        let Some(link) = self.links.get_mut(&peer) else { return };
        for announcement in std::mem::take(&mut link.missed) {
            if let Some(told) = link.told.get_mut(&announcement) {
                // Not what it should be, whatever that is by now.
                told.hops = 0;
                link.news.insert(announcement);
            }
        }
    }

    /// Tells a peer what it does not know yet, for as long as `send` takes it and not
    /// too much is unanswered. Says whether there is more.
    pub(crate) fn tell(&mut self, to: PeerKey, mut send: impl FnMut(&Message) -> bool) -> bool {
        loop {
            self.introduce(to);
            let Some(link) = self.links.get(&to) else { return false };
            let Some(&announcement) = link.news.first() else { return false };
            let told = link.told.get(&announcement);
            let (name, hops) = match (self.wanted(to, announcement), told) {
                (Some((_, hops)), Some(told)) if told.hops == hops => (None, None),
                (Some((name, hops)), _) => (Some(name.clone()), Some(hops)),
                (None, Some(told)) => (Some(told.name.clone()), None),
                (None, None) => (None, None),
            };
            if let Some(name) = &name {
                if link.unanswered.len() >= MAX_UNANSWERED {
                    return true;
                }
                if !send(&message(name, announcement.1, hops)) {
                    return true;
                }
            }
            let Some(link) = self.links.get_mut(&to) else { return false };
            link.news.remove(&announcement);
            if let Some(name) = name {
                let (route, id) = announcement;
                link.unanswered.insert((id, route));
                link.missed.remove(&announcement);
                match hops {
                    Some(hops) => drop(link.told.insert(announcement, Told { hops, name })),
                    None => drop(link.told.remove(&announcement)),
                }
            }
        }
    }

    /// Whether a peer waits for something that can be sent.
    pub(crate) fn has_news(&self, peer: PeerKey) -> bool {
        self.links.get(&peer).is_some_and(|link| !link.news.is_empty())
    }

    /// Changes of the routing table since the last call, in order.
    pub(crate) fn take_changes(&mut self) -> Vec<RouteChange> {
        std::mem::take(&mut self.changes)
    }

    /// Whether a message from `source` that came from one peer goes to another one: it
    /// does if the way from the source to that peer is through this node.
    pub(crate) fn relays(&self, from: PeerKey, to: PeerKey, source: &RouteName) -> bool {
        let Some(known) = self.names.get(source) else { return false };
        // While a lost link of the source is not noticed, there are two origins.
        let origin = known
            .heard
            .values()
            .filter_map(|heard| heard.hops.get(&from).map(|left| (left, heard)))
            .max_by_key(|(left, _)| *left);
        origin.is_some_and(|(_, heard)| !heard.hops.contains_key(&to))
    }

    /// The peer on the shortest way to any application of this name, for what came from
    /// a peer and is for one application only. It gets nearer with each step.
    pub(crate) fn nearest(&self, from: PeerKey, name: &RouteName) -> Option<PeerKey> {
        let first = if name.id.is_any() { RouteName { id: NameId(0), ..*name } } else { *name };
        self.names
            .range(first..=*name)
            .take(MAX_INSTANCES)
            .flat_map(|(_, known)| known.heard.values())
            .flat_map(|heard| heard.hops.iter())
            .filter(|(peer, _)| **peer != from && self.links.get(peer).is_some_and(|l| !l.is_gone))
            .max_by_key(|(_, left)| **left)
            .map(|(peer, _)| *peer)
    }

    /// How many names peers have announced, each counted once for each of them.
    pub(crate) fn heard(&self) -> usize {
        self.links.values().map(|link| link.heard.len()).sum()
    }

    /// How many of them one peer has.
    pub(crate) fn heard_from(&self, peer: PeerKey) -> usize {
        self.links.get(&peer).map_or(0, |link| link.heard.len())
    }

    /// Whether a peer has announced a name.
    pub(crate) fn has_heard(&self, peer: PeerKey, name: &RouteName) -> bool {
        let of_name = (*name, 0)..=(*name, u64::MAX);
        self.links.get(&peer).is_some_and(|link| link.heard.range(of_name).next().is_some())
    }

    /// What `to` should be told of an announcement.
    fn wanted(&self, to: PeerKey, (route, id): Announcement) -> Option<(&Name, u32)> {
        let known = self.names.get(&route)?;
        let name = known.name.as_ref()?;
        if known.own.as_ref().is_some_and(|own| own.id == id) {
            return Some((name, self.topology.hops()));
        }
        // Under 0, any number of origins may hide.
        if self.topology == Topology::FullMesh || id == 0 {
            return None;
        }
        let heard = known.heard.get(&id)?;
        let left = heard.left();
        (heard.best != to && left >= 2).then_some((name, left))
    }

    /// Adds a name to the news of a peer that has no others and does not know all yet.
    fn introduce(&mut self, to: PeerKey) {
        let Some(link) = self.links.get_mut(&to) else { return };
        while link.news.is_empty() && !link.is_introduced && !link.is_gone {
            let after = link.introduced.map_or(Bound::Unbounded, Bound::Excluded);
            let Some((route, known)) = self.names.range((after, Bound::Unbounded)).next() else {
                link.is_introduced = true;
                return;
            };
            let ids = known.own.iter().map(|own| own.id).chain(known.heard.keys().copied());
            link.news.extend(ids.map(|id| (*route, id)));
            link.introduced = Some(*route);
        }
    }

    fn mark(&mut self, announcement: Announcement) {
        for link in self.links.values_mut().filter(|link| !link.is_gone) {
            link.news.insert(announcement);
        }
    }

    fn forget(&mut self, peer: PeerKey, announcement: Announcement) {
        let (route, id) = announcement;
        if let Some(link) = self.links.get_mut(&peer) {
            link.heard.remove(&announcement);
        }
        if let Some(known) = self.names.get_mut(&route)
            && let Some(heard) = known.heard.get_mut(&id)
        {
            heard.hops.remove(&peer);
            if heard.hops.is_empty() {
                known.heard.remove(&id);
            }
        }
        self.heard_otherwise(announcement);
    }

    /// After a change of what was heard of an announcement.
    fn heard_otherwise(&mut self, announcement: Announcement) {
        let (route, id) = announcement;
        let Some(known) = self.names.get_mut(&route) else { return };
        if let Some(heard) = known.heard.get_mut(&id) {
            let most = heard.most();
            if heard.left() != most
                && let Some((peer, _)) = heard.hops.iter().find(|(_, left)| **left == most)
            {
                heard.best = *peer;
            }
        }
        let via: BTreeSet<PeerKey> = (known.heard.values())
            .flat_map(|heard| {
                let most = heard.most();
                heard.hops.iter().filter(move |(_, left)| **left == most).map(|(peer, _)| *peer)
            })
            .collect();
        let change = |peer: &PeerKey, is_up| RouteChange { peer: *peer, name: route, is_up };
        self.changes.extend(known.via.difference(&via).map(|peer| change(peer, false)));
        self.changes.extend(via.difference(&known.via).map(|peer| change(peer, true)));
        known.via = via;
        if self.topology == Topology::Relay {
            self.mark(announcement);
        }
        self.tidy(route);
    }

    fn tidy(&mut self, route: RouteName) {
        let is_empty = |known: &Known| known.own.is_none() && known.heard.is_empty();
        if self.names.get(&route).is_some_and(is_empty) {
            self.names.remove(&route);
        }
    }
}

/// An announcement, or its withdrawal.
fn message(name: &Name, subscription_id: u64, hops: Option<u32>) -> Message {
    let mut header = Header::new(name.clone(), name.clone(), UNICAST);
    header.ttl = hops.unwrap_or(DEFAULT_TTL);
    let subscription = Subscription { header, subscription_id };
    match hops {
        Some(_) => Message::Subscribe(subscription),
        None => Message::Unsubscribe(subscription),
    }
}
