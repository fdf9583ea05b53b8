//! Who is let in: how many connections there may be, and how many of them that have
//! not said what they want.
//!
//! A connection is a *newcomer* until one of its links has negotiated. At a limit, no
//! further connection is accepted: it waits with the system, where it costs this
//! process nothing, and an application that waits there tries for longer than one
//! that was turned away. Newcomers cannot keep the others out by saying nothing:
//! one that is still there after [`NEWCOMER_GRACE`] makes room for who waits.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::LiveLimits;

/// Connections that there may be by default, of which each takes a descriptor and,
/// with its link, some 50 KB.
pub const DEFAULT_MAX_CONNECTIONS: usize = 10_000;

/// Newcomers that there may be by default: who reconnects negotiates within
/// milliseconds, so that this many at once are thousands a second.
pub const DEFAULT_MAX_NEWCOMERS: usize = 1024;

/// How long a newcomer keeps its place if others wait for it: half a second, in which
/// an application negotiates from the other side of the world. Longer, and those who
/// wait behind many silent ones lose their patience.
pub const NEWCOMER_GRACE: Duration = Duration::from_millis(500);

/// What has been accepted, counted while [`serve`](crate::serve) runs; give the same
/// to [`AcceptConfig::counters`](crate::AcceptConfig::counters) and keep it.
#[derive(Debug, Default)]
pub struct AcceptCounters {
    connections: AtomicU64,
    newcomers: AtomicU64,
    cut: AtomicU64,
    refused: AtomicU64,
    unauthenticated: AtomicU64,
    full: AtomicU64,
}

impl AcceptCounters {
    /// Connections that are open now.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Those of them that have not negotiated yet.
    pub fn newcomers(&self) -> u64 {
        self.newcomers.load(Ordering::Relaxed)
    }

    /// Newcomers that were cut, because they did not negotiate in time, or to make
    /// room for others.
    pub fn cut_newcomers(&self) -> u64 {
        self.cut.load(Ordering::Relaxed)
    }

    /// Streams whose negotiation failed or did not come in time, and connections
    /// that did not agree on TLS.
    pub fn refused_links(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Streams that were refused because what they showed proves nobody.
    pub fn unauthenticated_links(&self) -> u64 {
        self.unauthenticated.load(Ordering::Relaxed)
    }

    /// How often a limit kept connections waiting.
    pub fn times_full(&self) -> u64 {
        self.full.load(Ordering::Relaxed)
    }

    pub(crate) fn count_unauthenticated(&self) {
        self.unauthenticated.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }
}

/// The door of a server.
pub(crate) struct Door {
    limits: Arc<LiveLimits>,
    state: Mutex<State>,
    /// Notified when there is a connection, or a newcomer, less.
    changed: Notify,
    counters: Arc<AcceptCounters>,
}

#[derive(Default)]
struct State {
    connections: usize,
    next: u64,
    /// By the order in which they came.
    newcomers: BTreeMap<u64, Newcomer>,
}

struct Newcomer {
    since: Instant,
    cut: Arc<Notify>,
}

/// Whether one more may come in.
#[derive(Debug, PartialEq, Eq)]
enum Room {
    Now,
    /// Then, the oldest newcomer has to go.
    At(Instant),
    /// When somebody goes.
    Later,
}

impl Door {
    pub(crate) fn new(limits: Arc<LiveLimits>, counters: Arc<AcceptCounters>) -> Arc<Self> {
        Arc::new(Self { limits, state: Mutex::default(), changed: Notify::new(), counters })
    }

    /// Lets a connection in, which is cut when `cut` is notified.
    pub(crate) fn enter(self: &Arc<Self>, cut: Arc<Notify>) -> Place {
        let mut state = self.lock();
        let number = state.next;
        state.next += 1;
        state.connections += 1;
        state.newcomers.insert(number, Newcomer { since: Instant::now(), cut });
        self.tell(&state);
        drop(state);
        Place { door: Arc::clone(self), number }
    }

    /// Whether one more may come in now. May cut a newcomer for it.
    pub(crate) fn has_room(&self) -> bool {
        let room = self.room();
        if room != Room::Now {
            self.counters.full.fetch_add(1, Ordering::Relaxed);
        }
        room == Room::Now
    }

    /// Waits until one more may come in.
    pub(crate) async fn wait_for_room(self: Arc<Self>) {
        self.wait(Self::room).await;
    }

    /// Waits until there are no newcomers.
    pub(crate) async fn wait_for_newcomers(self: Arc<Self>) {
        self.wait(|door| if door.lock().newcomers.is_empty() { Room::Now } else { Room::Later })
            .await;
    }

    async fn wait(&self, room: impl Fn(&Self) -> Room) {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            let mut limits = pin!(self.limits.changed.notified());
            limits.as_mut().enable();
            let changed = async {
                tokio::select! {
                    () = changed => {}
                    () = limits => {}
                }
            };
            match room(self) {
                Room::Now => return,
                // Whichever comes first, we look again.
                Room::At(at) => timeout_at(at, changed).await.unwrap_or(()),
                Room::Later => changed.await,
            }
        }
    }

    fn room(&self) -> Room {
        let mut state = self.lock();
        let is_full = state.connections >= self.limits.max_connections();
        if !is_full && state.newcomers.len() < self.limits.max_newcomers() {
            return Room::Now;
        }
        let Some(oldest) = state.newcomers.first_entry() else {
            return Room::Later;
        };
        let until = oldest.get().since + NEWCOMER_GRACE;
        if until > Instant::now() {
            return Room::At(until);
        }
        oldest.remove().cut.notify_one();
        self.counters.cut.fetch_add(1, Ordering::Relaxed);
        self.tell(&state);
        // Its connection is there until it has noticed.
        if is_full { Room::Later } else { Room::Now }
    }

    fn settle(&self, number: u64, is_gone: bool) {
        let mut state = self.lock();
        state.newcomers.remove(&number);
        state.connections -= usize::from(is_gone);
        self.tell(&state);
        drop(state);
        self.changed.notify_waiters();
    }

    fn tell(&self, state: &State) {
        self.counters.connections.store(state.connections as u64, Ordering::Relaxed);
        self.counters.newcomers.store(state.newcomers.len() as u64, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.counters.fmt(f)
    }
}

/// The place of a connection, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Place {
    door: Arc<Door>,
    number: u64,
}

impl Place {
    /// It is no newcomer any more.
    pub(crate) fn settle(&self) {
        self.door.settle(self.number, false);
    }

    /// It did not agree on TLS.
    pub(crate) fn count_refused(&self) {
        self.door.counters.count_refused();
    }

    /// It did not negotiate in time.
    pub(crate) fn count_cut(&self) {
        self.door.counters.cut.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.door.settle(self.number, true);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, timeout};

    use super::*;
    use crate::AcceptConfig;

    fn limits(max_connections: usize, max_newcomers: usize) -> AcceptConfig {
        AcceptConfig { max_connections, max_newcomers, ..AcceptConfig::default() }
    }

    fn door(max_connections: usize, max_newcomers: usize) -> Arc<Door> {
        let door = Door::new(Arc::default(), Arc::default());
        door.limits.set(&limits(max_connections, max_newcomers));
        door
    }

    #[tokio::test(start_paused = true)]
    async fn newcomers_are_bounded_and_make_room_when_they_are_old() {
        let door = door(10, 2);
        let cuts = [(); 2].map(|()| Arc::new(Notify::new()));
        let places = cuts.clone().map(|cut| door.enter(cut));
        assert!(!door.has_room());
        assert_eq!((door.counters.newcomers(), door.counters.times_full()), (2, 1));
        let start = Instant::now();
        Arc::clone(&door).wait_for_room().await;
        assert_eq!(start.elapsed(), NEWCOMER_GRACE);
        // The oldest went, and only that.
        timeout(Duration::ZERO, cuts[0].notified()).await.unwrap();
        timeout(Duration::ZERO, cuts[1].notified()).await.unwrap_err();
        assert_eq!((door.counters.newcomers(), door.counters.cut_newcomers()), (1, 1));
        assert!(door.has_room());
        drop(places);
        assert_eq!((door.counters.newcomers(), door.counters.connections()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_negotiated_makes_room_for_a_newcomer_and_keeps_its_own() {
        let door = door(10, 1);
        let place = door.enter(Arc::default());
        assert!(!door.has_room());
        place.settle();
        place.settle();
        assert!(door.has_room());
        assert_eq!((door.counters.newcomers(), door.counters.connections()), (0, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn at_the_limit_of_connections_one_waits_until_another_goes() {
        let door = door(2, 2);
        let places = [door.enter(Arc::default()), door.enter(Arc::default())];
        places.iter().for_each(Place::settle);
        advance(Duration::from_secs(3600)).await;
        assert!(!door.has_room());
        let waiting = tokio::spawn(Arc::clone(&door).wait_for_room());
        let [first, _second] = places;
        drop(first);
        waiting.await.unwrap();
        assert!(door.has_room());
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_let_in_when_there_may_be_more() {
        let door = door(1, 2);
        let place = door.enter(Arc::default());
        place.settle();
        let waiting = tokio::spawn(Arc::clone(&door).wait_for_room());
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        door.limits.set(&limits(2, 2));
        waiting.await.unwrap();
        door.limits.set(&limits(0, 0));
        assert!(!door.has_room(), "one, at least");
        drop(place);
        assert!(door.has_room());
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_newcomer_makes_room_among_all_connections_too() {
        let door = door(1, 1);
        let cut = Arc::new(Notify::new());
        let place = door.enter(Arc::clone(&cut));
        let waiting = tokio::spawn(Arc::clone(&door).wait_for_room());
        cut.notified().await;
        // It still holds a descriptor.
        assert!(!door.has_room());
        drop(place);
        waiting.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_can_wait_for_the_last_newcomer() {
        let door = door(10, 10);
        let (first, second) = (door.enter(Arc::default()), door.enter(Arc::default()));
        let waiting = tokio::spawn(Arc::clone(&door).wait_for_newcomers());
        first.settle();
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(second);
        waiting.await.unwrap();
    }
}
