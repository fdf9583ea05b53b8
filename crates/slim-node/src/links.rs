//! The links that are up, for whoever looks at the node.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use slim_proto::{Name, RouteName};

use crate::subscriber::Subscriber;

/// Names that are shown of each link: an application has one, and two for each group. Of
/// further ones there is the number.
pub(crate) const SHOWN_NAMES: usize = 8;

/// The links that are up, by their numbers. Only links that come and go change it, and
/// who looks takes some at a time.
#[derive(Debug, Default)]
pub(crate) struct Links {
    up: Mutex<BTreeMap<u64, Arc<Subscriber>>>,
    last: AtomicU64,
}

impl Links {
    /// A number for a new link. None is used twice.
    pub(crate) fn number(&self) -> u64 {
        self.last.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Links that there have been.
    pub(crate) fn ever(&self) -> u64 {
        self.last.load(Ordering::Relaxed)
    }

    /// Shows a link for as long as the returned value lives.
    pub(crate) fn enter(self: &Arc<Self>, link: &Arc<Subscriber>) -> LinkUp {
        let number = link.about().number;
        self.lock().insert(number, Arc::clone(link));
        LinkUp { links: Arc::clone(self), number }
    }

    /// Links that are up.
    pub(crate) fn count(&self) -> usize {
        self.lock().len()
    }

    /// The first links behind a number, so many at most, and how many there are behind
    /// them.
    pub(crate) fn page(&self, after: u64, limit: usize) -> (Vec<Arc<Subscriber>>, usize) {
        let up = self.lock();
        let mut rest = up.range((Bound::Excluded(after), Bound::Unbounded));
        let page = rest.by_ref().take(limit).map(|(_, link)| Arc::clone(link)).collect();
        (page, rest.count())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Subscriber>>> {
        // Nothing panics while it holds the lock.
        self.up.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One link that is up.
#[derive(Debug)]
pub(crate) struct LinkUp {
    links: Arc<Links>,
    number: u64,
}

impl Drop for LinkUp {
    fn drop(&mut self) {
        self.links.lock().remove(&self.number);
    }
}

/// Messages and their bytes, counted by whoever moves them.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    messages: AtomicU64,
    bytes: AtomicU64,
}

impl Traffic {
    pub(crate) fn add(&self, messages: usize, bytes: usize) {
        self.messages.fetch_add(messages as u64, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn messages(&self) -> u64 {
        self.messages.load(Ordering::Relaxed)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// What a link has subscribed to, as far as it is shown.
#[derive(Debug, Default)]
pub(crate) struct Names(Mutex<NamesInner>);

#[derive(Debug, Default)]
struct NamesInner {
    shown: Vec<Name>,
    total: usize,
}

impl Names {
    /// The link has subscribed to this name, and has so many of them now.
    pub(crate) fn add(&self, route: RouteName, total: usize, name: impl FnOnce() -> Name) {
        let mut names = self.lock();
        names.total = total;
        if names.shown.len() < SHOWN_NAMES && names.shown.iter().all(|n| n.route() != route) {
            names.shown.push(name().shown());
        }
    }

    /// The link has not subscribed to this name any more.
    pub(crate) fn remove(&self, route: RouteName, total: usize) {
        let mut names = self.lock();
        names.total = total;
        names.shown.retain(|name| name.route() != route);
    }

    /// Those that are shown, and how many there are.
    pub(crate) fn read(&self) -> (Vec<Name>, usize) {
        let names = self.lock();
        (names.shown.clone(), names.total)
    }

    /// The name with these hashes and this id, if its readable parts are known.
    pub(crate) fn of_route(&self, route: &RouteName) -> Option<Name> {
        let names = self.lock();
        let is_same = |name: &&Name| name.components() == route.components && name.text().is_some();
        Some(names.shown.iter().find(is_same)?.with_id(route.id))
    }

    fn lock(&self) -> MutexGuard<'_, NamesInner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use slim_proto::NameId;

    use super::*;

    fn name(text: &str, id: u128) -> Name {
        text.parse::<Name>().unwrap().with_id(NameId(id))
    }

    #[test]
    fn some_names_are_shown_and_all_are_counted() {
        let names = Names::default();
        for id in 0..20 {
            let name = name("a/b/c", id);
            names.add(name.route(), id as usize + 1, || name);
        }
        let (shown, total) = names.read();
        assert_eq!((shown.len(), total), (SHOWN_NAMES, 20));
        names.remove(shown[0].route(), 19);
        let (shown, total) = names.read();
        assert_eq!((shown.len(), total), (SHOWN_NAMES - 1, 19));
        // Again is not twice.
        names.add(shown[1].route(), 19, || panic!("it is there"));
    }

    #[test]
    fn a_very_long_name_is_shown_as_its_hashes() {
        let names = Names::default();
        let long = name(&format!("a/b/{}", "c".repeat(300)), 1);
        names.add(long.route(), 1, || long.clone());
        assert_eq!(names.read().0, [long.without_text()]);
    }

    #[test]
    fn an_instance_that_is_not_shown_has_the_text_of_another() {
        let names = Names::default();
        let first = name("a/b/c", 1);
        names.add(first.route(), 1, || first.clone());
        let other = first.with_id(NameId(2));
        assert_eq!(names.of_route(&other.route()), Some(other));
        assert_eq!(names.of_route(&name("a/b/d", 1).route()), None);
    }
}
