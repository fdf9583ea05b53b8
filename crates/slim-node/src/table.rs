//! The routing table: which links want what is sent to a name.
//!
//! Pure bookkeeping; it knows nothing of sockets. A name is three hashes (its
//! *prefix*) and an id. A link is whatever the caller keeps behind an `Arc`, and
//! two links are the same if they are the same allocation, so nothing that refers
//! to a link can ever mean another one.
//!
//! The table is cut into shards by prefix. All ids of a prefix live in one shard,
//! so a wildcard look-up and the look-up of one id see the same state, and a
//! change is one short critical section. Publishing takes a read lock of one
//! shard for as long as it takes to copy the targets; nothing is awaited or sent
//! under it. A concurrent map with the prefix as key would lock in the same way,
//! but would store each prefix in a bucket of its own; a million names then cost
//! twice the memory. Here names sit densely in a slab and the hash tables hold
//! four-byte positions.
//!
//! What a link has subscribed to is kept by the link's own [`LinkRoutes`], which
//! only that link's task touches. It is what makes the loss of a link cost what
//! the link owned, and dropping it, for whatever reason, removes the routes.
//!
//! Links have no categories: the reference prefers remote links to edge links
//! when it picks one subscriber, so a name served by both is always sent away.
//! Here all take turns.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use hashbrown::HashTable;
use slab::Slab;
use slim_proto::{NameId, RouteName};

use self::ids::Ids;
use self::members::Members;

mod ids;
mod members;
#[cfg(test)]
mod tests;

/// Independent parts of the table. More of them than threads, so that two
/// publishers rarely meet, and so many that growing one is a short stall.
const SHARDS: usize = 256;

/// Which links want what is sent to a name. `T` is the caller's link.
pub struct RouteTable<T> {
    shards: Box<[RwLock<Shard<T>>]>,
    /// Peers choose the names, so the hash must be one they cannot predict.
    hasher: RandomState,
    subscriptions: AtomicUsize,
}

/// Why a subscription was not made or removed. The texts travel in the nack;
/// all but the first are the reference's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubscriptionError {
    /// The link has as many subscriptions as one link may have.
    #[error("too many subscriptions: a link may have {0}")]
    TooMany(usize),
    /// No link has subscribed to any id of this name.
    #[error("subscription not found")]
    UnknownName,
    /// No link has subscribed to this id of the name.
    #[error("id not found: {0}")]
    UnknownId(NameId),
    /// The name is known, but this link has not subscribed to it with this
    /// subscription id.
    #[error("subscription id not found: {0}")]
    UnknownSubscription(u64),
}

impl<T> RouteTable<T> {
    /// An empty table.
    pub fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| RwLock::new(Shard::new())).collect(),
            hasher: RandomState::new(),
            subscriptions: AtomicUsize::new(0),
        }
    }

    /// The routes of a new link, none yet. It may make up to `limit`
    /// subscriptions.
    pub fn attach(self: &Arc<Self>, link: Arc<T>, limit: usize) -> LinkRoutes<T> {
        LinkRoutes { table: Arc::clone(self), link, limit, records: 0, owned: HashMap::new() }
    }

    /// One link for a message to `name` from the link `from`, which never gets
    /// its own message back. The subscribers take turns; those that are not
    /// `usable` are passed over.
    pub fn any(
        &self,
        name: &RouteName,
        from: &Arc<T>,
        usable: impl Fn(&T) -> bool,
    ) -> Option<Arc<T>> {
        self.with_members(name, |members| members.pick(from, usable)).flatten()
    }

    /// Adds all links for a message to `name` from the link `from` to `targets`,
    /// each once and `from` not at all.
    pub fn all(&self, name: &RouteName, from: &Arc<T>, targets: &mut Vec<Arc<T>>) {
        self.with_members(name, |members| {
            targets.extend(members.iter().filter(|link| !Arc::ptr_eq(link, from)).cloned());
        });
    }

    /// How many pairs of link and name there are.
    pub fn subscriptions(&self) -> usize {
        self.subscriptions.load(Ordering::Relaxed)
    }

    /// How many names there are that somebody has subscribed to.
    pub fn names(&self) -> usize {
        (0..SHARDS as u32).map(|shard| self.read(shard).entries.len()).sum()
    }

    /// How many of them are at this place of [`Self::page`] or behind it.
    pub fn names_from(&self, place: RoutePlace) -> usize {
        let (first, index) = place.parts();
        let here = match first < SHARDS as u32 {
            true => self.read(first).entries.iter().filter(|(at, _)| *at >= index).count(),
            false => 0,
        };
        here + (first.saturating_add(1)..SHARDS as u32)
            .map(|shard| self.read(shard).entries.len())
            .sum::<usize>()
    }

    /// Shows names and the links that have subscribed to them, so many at most, shard by
    /// shard from a place that an earlier call has told. While the table changes, a name
    /// may be missed or come twice, but none that stays where it is.
    pub fn page<R>(
        &self,
        from: RoutePlace,
        limit: usize,
        mut show: impl FnMut(&RouteName, &mut dyn Iterator<Item = &Arc<T>>) -> R,
    ) -> (Vec<R>, Option<RoutePlace>) {
        let mut page = Vec::new();
        let (first, mut index) = from.parts();
        for number in first..SHARDS as u32 {
            let shard = self.read(number);
            for (index, entry) in shard.entries.iter().skip_while(|(at, _)| *at < index) {
                if page.len() >= limit {
                    return (page, Some(RoutePlace(u64::from(number) << 32 | index as u64)));
                }
                page.push(show(&route_name(&entry.key), &mut entry.members.iter()));
            }
            index = 0;
        }
        (page, None)
    }

    /// Shows the instances of a name that somebody has subscribed to, so many at most, and
    /// tells how many there are.
    pub fn instances<R>(
        &self,
        components: [u64; 3],
        limit: usize,
        mut show: impl FnMut(&RouteName, &mut dyn Iterator<Item = &Arc<T>>) -> R,
    ) -> (Vec<R>, usize) {
        let place = self.locate(&RouteName { components, id: NameId::ANY });
        let shard = self.read(place.shard);
        let mut show = |entry: &Entry<T>| show(&route_name(&entry.key), &mut entry.members.iter());
        match shard.find_prefix(&place) {
            None => (Vec::new(), 0),
            Some(Prefix::Single(index)) => {
                let only = &shard.entries[index as usize];
                (Vec::from_iter((limit > 0).then(|| show(only))), 1)
            }
            Some(Prefix::Service(service)) => {
                let all = shard.entries.iter().map(|(_, entry)| entry);
                let some = all.filter(|entry| prefix(&entry.key) == components).take(limit);
                (some.map(show).collect(), shard.services[service as usize].ids as usize)
            }
        }
    }

    fn with_members<R>(&self, name: &RouteName, f: impl FnOnce(&Members<T>) -> R) -> Option<R> {
        let place = self.locate(name);
        let shard = self.read(place.shard);
        let members = if name.id.is_any() {
            shard.prefix_members(&place)
        } else {
            shard.find(&place).map(|index| &shard.entries[index as usize].members)
        };
        members.map(f)
    }

    fn locate(&self, name: &RouteName) -> Place {
        let key = key(name);
        let prefix_hash = self.hasher.hash_one(prefix(&key));
        Place {
            key,
            hash: self.hasher.hash_one(key),
            prefix_hash,
            // The hash table uses the lowest and the highest bits.
            shard: (prefix_hash >> 32) as u32 % SHARDS as u32,
        }
    }

    /// Whose entry this is.
    fn name(&self, entry: EntryRef) -> RouteName {
        route_name(&self.read(entry.shard).entries[entry.index as usize].key)
    }

    fn remove(&self, entry: EntryRef, link: &Arc<T>) -> RouteName {
        let key = self.write(entry.shard).remove(entry.index, link, &self.hasher);
        self.subscriptions.fetch_sub(1, Ordering::Relaxed);
        route_name(&key)
    }

    // A panic while a shard was locked would be a bug here; the other links
    // should still not suffer from it.
    fn read(&self, shard: u32) -> RwLockReadGuard<'_, Shard<T>> {
        self.shards[shard as usize].read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, shard: u32) -> RwLockWriteGuard<'_, Shard<T>> {
        self.shards[shard as usize].write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Default for RouteTable<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> fmt::Debug for RouteTable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RouteTable({} subscriptions)", self.subscriptions())
    }
}

/// Where [`RouteTable::page`] goes on. The default is the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoutePlace(pub u64);

impl RoutePlace {
    /// A shard, and a position in it.
    fn parts(self) -> (u32, usize) {
        ((self.0 >> 32) as u32, (self.0 & u64::from(u32::MAX)) as usize)
    }
}

/// The routes towards one link. Dropping it removes them.
pub struct LinkRoutes<T> {
    table: Arc<RouteTable<T>>,
    link: Arc<T>,
    limit: usize,
    /// Subscription ids on record, of all names together.
    records: usize,
    owned: HashMap<EntryRef, Ids>,
}

impl<T> LinkRoutes<T> {
    /// The link these routes lead to.
    pub fn link(&self) -> &Arc<T> {
        &self.link
    }

    /// From now on the link gets what is sent to `name`. Repeating it with the
    /// same id changes nothing, except that subscriptions with id 0, which no one
    /// can tell apart, are counted.
    ///
    /// Says whether it did not get it before.
    ///
    /// # Errors
    /// [`SubscriptionError::TooMany`] if the link's limit is reached.
    pub fn subscribe(
        &mut self,
        name: &RouteName,
        subscription_id: u64,
    ) -> Result<bool, SubscriptionError> {
        let place = self.table.locate(name);
        let mut shard = self.table.write(place.shard);
        let known = shard.find(&place).map(|index| EntryRef { shard: place.shard, index });
        if let Some(ids) = known.and_then(|entry| self.owned.get_mut(&entry)) {
            if !ids.contains(subscription_id) && self.records >= self.limit {
                return Err(SubscriptionError::TooMany(self.limit));
            }
            self.records += usize::from(ids.insert(subscription_id));
            return Ok(false);
        }
        if self.records >= self.limit {
            return Err(SubscriptionError::TooMany(self.limit));
        }
        let index = shard.add(&place, &self.link, &self.table.hasher);
        drop(shard);
        self.owned.insert(EntryRef { shard: place.shard, index }, Ids::One(subscription_id));
        self.records += 1;
        self.table.subscriptions.fetch_add(1, Ordering::Relaxed);
        Ok(true)
    }

    /// Withdraws one subscription; the route goes with the last one for the name.
    ///
    /// A client that has reconnected has subscribed again with id 0, but
    /// unsubscribes with the id it first used: where only records with id 0 are
    /// left, one of them is withdrawn. Says whether the route has gone.
    ///
    /// # Errors
    /// If there is no such subscription; nothing has changed.
    pub fn unsubscribe(
        &mut self,
        name: &RouteName,
        subscription_id: u64,
    ) -> Result<bool, SubscriptionError> {
        let place = self.table.locate(name);
        let entry = {
            let shard = self.table.read(place.shard);
            if shard.find_prefix(&place).is_none() {
                return Err(SubscriptionError::UnknownName);
            }
            let index = shard.find(&place).ok_or(SubscriptionError::UnknownId(name.id))?;
            EntryRef { shard: place.shard, index }
        };
        let unknown = SubscriptionError::UnknownSubscription(subscription_id);
        let ids = self.owned.get_mut(&entry).ok_or(unknown)?;
        let removed = ids.remove(subscription_id).ok_or(unknown)?;
        self.records -= usize::from(removed.record);
        if removed.last {
            self.owned.remove(&entry);
            self.table.remove(entry, &self.link);
        }
        Ok(removed.last)
    }

    /// Withdraws all subscriptions to names that are not to be kept, and gives those names.
    pub fn withdraw(&mut self, keep: impl Fn(&RouteName) -> bool) -> Vec<RouteName> {
        let mut gone = Vec::new();
        for (entry, ids) in self.owned.extract_if(|entry, _| !keep(&self.table.name(*entry))) {
            gone.push(self.table.remove(entry, &self.link));
            self.records -= ids.records();
        }
        gone
    }

    /// From now on the link may have so many subscriptions. If it has more, it keeps
    /// them.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// How many names the link has subscribed to.
    pub fn len(&self) -> usize {
        self.owned.len()
    }

    /// Whether it has subscribed to none.
    pub fn is_empty(&self) -> bool {
        self.owned.is_empty()
    }

    /// Whether the link has subscribed to this name.
    pub fn contains(&self, name: &RouteName) -> bool {
        let place = self.table.locate(name);
        let index = self.table.read(place.shard).find(&place);
        index.is_some_and(|index| self.owned.contains_key(&EntryRef { shard: place.shard, index }))
    }

    /// Removes up to `at_most` routes, and says whether there are more. Lets the
    /// owner of very many of them pause in between.
    pub fn release(&mut self, at_most: usize) -> bool {
        self.release_each(at_most, |_| {})
    }

    /// Like [`Self::release`], and names each that has gone.
    pub fn release_each(&mut self, at_most: usize, mut gone: impl FnMut(RouteName)) -> bool {
        for (entry, _) in self.owned.extract_if(|_, _| true).take(at_most) {
            gone(self.table.remove(entry, &self.link));
        }
        !self.owned.is_empty()
    }
}

impl<T> Drop for LinkRoutes<T> {
    fn drop(&mut self) {
        self.release(usize::MAX);
    }
}

impl<T> fmt::Debug for LinkRoutes<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LinkRoutes({} names)", self.owned.len())
    }
}

/// A name as it is stored: without the padding of a 128-bit number.
type Key = [u64; 5];

fn key(name: &RouteName) -> Key {
    let [a, b, c] = name.components;
    [a, b, c, (name.id.0 >> 64) as u64, name.id.0 as u64]
}

fn route_name(key: &Key) -> RouteName {
    let [_, _, _, upper, lower] = *key;
    RouteName { components: prefix(key), id: NameId(u128::from(upper) << 64 | u128::from(lower)) }
}

fn prefix(key: &Key) -> [u64; 3] {
    [key[0], key[1], key[2]]
}

/// Where a name belongs, and its hashes.
struct Place {
    key: Key,
    hash: u64,
    prefix_hash: u64,
    shard: u32,
}

/// An entry of a shard. Stays what it is while a link is in the entry.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct EntryRef {
    shard: u32,
    index: u32,
}

/// A part of the table.
struct Shard<T> {
    /// Positions in `entries`, by name.
    names: HashTable<u32>,
    entries: Slab<Entry<T>>,
    /// By the three hashes.
    prefixes: HashTable<Prefix>,
    services: Slab<Service<T>>,
}

/// A name that somebody has subscribed to.
struct Entry<T> {
    key: Key,
    members: Members<T>,
}

/// What a prefix leads to. Most names have one instance; then the members of the
/// prefix are those of its only entry.
#[derive(Clone, Copy)]
enum Prefix {
    /// Position in `entries`.
    Single(u32),
    /// Position in `services`.
    Service(u32),
}

/// A prefix that has, or had, more than one id.
struct Service<T> {
    prefix: [u64; 3],
    /// Entries with this prefix.
    ids: u32,
    /// All links of all these entries, with the number of entries each is in.
    members: Members<T>,
}

impl<T> Shard<T> {
    fn new() -> Self {
        Self {
            names: HashTable::new(),
            entries: Slab::new(),
            prefixes: HashTable::new(),
            services: Slab::new(),
        }
    }

    fn find(&self, place: &Place) -> Option<u32> {
        self.names.find(place.hash, |&index| self.entries[index as usize].key == place.key).copied()
    }

    fn find_prefix(&self, place: &Place) -> Option<Prefix> {
        let wanted = prefix(&place.key);
        self.prefixes
            .find(place.prefix_hash, |&candidate| self.prefix_of(candidate) == wanted)
            .copied()
    }

    fn prefix_of(&self, candidate: Prefix) -> [u64; 3] {
        match candidate {
            Prefix::Single(index) => prefix(&self.entries[index as usize].key),
            Prefix::Service(index) => self.services[index as usize].prefix,
        }
    }

    fn prefix_members(&self, place: &Place) -> Option<&Members<T>> {
        Some(match self.find_prefix(place)? {
            Prefix::Single(index) => &self.entries[index as usize].members,
            Prefix::Service(index) => &self.services[index as usize].members,
        })
    }

    /// Adds a link to a name it is not in yet.
    fn add(&mut self, place: &Place, link: &Arc<T>, hasher: &RandomState) -> u32 {
        let known = self.find(place);
        let index = match known {
            Some(index) => {
                self.entries[index as usize].members.add(link);
                index
            }
            None => {
                let members = Members::new(link);
                let index = insert(&mut self.entries, Entry { key: place.key, members });
                let entries = &self.entries;
                self.names.insert_unique(place.hash, index, |&index| {
                    hasher.hash_one(entries[index as usize].key)
                });
                index
            }
        };
        match self.find_prefix(place) {
            // The prefix has this entry alone, and the entry has the link already.
            Some(Prefix::Single(only)) if only == index => {}
            Some(Prefix::Single(other)) => {
                let mut members = self.entries[other as usize].members.duplicate();
                members.add(link);
                let service = Service { prefix: prefix(&place.key), ids: 2, members };
                let service = insert(&mut self.services, service);
                self.replace_prefix(place, Prefix::Single(other), Prefix::Service(service));
            }
            Some(Prefix::Service(service)) => {
                let service = &mut self.services[service as usize];
                service.members.add(link);
                service.ids += u32::from(known.is_none());
            }
            None => {
                let (entries, services) = (&self.entries, &self.services);
                self.prefixes.insert_unique(
                    place.prefix_hash,
                    Prefix::Single(index),
                    |&candidate| {
                        hasher.hash_one(match candidate {
                            Prefix::Single(index) => prefix(&entries[index as usize].key),
                            Prefix::Service(index) => services[index as usize].prefix,
                        })
                    },
                );
            }
        }
        index
    }

    /// Removes a link from an entry it is in, and says whose that was.
    fn remove(&mut self, index: u32, link: &Arc<T>, hasher: &RandomState) -> Key {
        let entry = &mut self.entries[index as usize];
        let key = entry.key;
        let place = Place {
            key,
            hash: hasher.hash_one(key),
            prefix_hash: hasher.hash_one(prefix(&key)),
            shard: 0,
        };
        let entry_is_empty = entry.members.remove(link);
        // Before the entry goes: a `Single` prefix is found by its entry.
        match self.find_prefix(&place) {
            Some(Prefix::Single(only)) if entry_is_empty => {
                self.forget_prefix(&place, Prefix::Single(only));
            }
            Some(Prefix::Service(service)) => {
                let there = &mut self.services[service as usize];
                there.members.remove(link);
                there.ids -= u32::from(entry_is_empty);
                if there.ids == 0 {
                    self.forget_prefix(&place, Prefix::Service(service));
                    self.services.remove(service as usize);
                }
            }
            Some(Prefix::Single(_)) | None => {}
        }
        if entry_is_empty {
            if let Ok(found) = self.names.find_entry(place.hash, |&other| other == index) {
                found.remove();
            }
            self.entries.remove(index as usize);
        }
        key
    }

    fn replace_prefix(&mut self, place: &Place, old: Prefix, new: Prefix) {
        if let Some(found) = self.prefixes.find_mut(place.prefix_hash, |&prefix| prefix.is(old)) {
            *found = new;
        }
    }

    fn forget_prefix(&mut self, place: &Place, old: Prefix) {
        if let Ok(found) = self.prefixes.find_entry(place.prefix_hash, |&prefix| prefix.is(old)) {
            found.remove();
        }
    }
}

impl Prefix {
    fn is(self, other: Self) -> bool {
        match (self, other) {
            (Self::Single(a), Self::Single(b)) | (Self::Service(a), Self::Service(b)) => a == b,
            (Self::Single(_), Self::Service(_)) | (Self::Service(_), Self::Single(_)) => false,
        }
    }
}

/// Grows by a quarter rather than by doubling: a full table is mostly this.
fn insert<V>(slab: &mut Slab<V>, value: V) -> u32 {
    if slab.len() == slab.capacity() {
        slab.reserve_exact((slab.len() / 4).max(4));
    }
    u32::try_from(slab.insert(value)).expect("entries take more than a byte of memory each")
}
