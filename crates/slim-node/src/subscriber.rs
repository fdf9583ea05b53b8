//! A link as the others see it: where to queue what it has subscribed to, and how
//! long they wait if its peer does not read.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use slim_link::{CloseReason, LinkInfo, Outbound, PushError};
use slim_proto::{Message, Outgoing, RoutedFrame};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::links::{Names, Traffic};
use crate::mesh::Target;
use crate::metrics::{Counter, Tally};
use crate::peers::PeerKey;

/// A link that frames can be sent to.
pub(crate) struct Subscriber {
    outbound: Outbound,
    peer: Option<Peer>,
    about: About,
    received: Traffic,
    /// What was ever queued.
    delivered: Traffic,
    names: Names,
    patience: Mutex<Patience>,
    shed: AtomicBool,
    /// The last turn in which somebody queued something here.
    turn: AtomicU64,
}

/// What does not change of a link.
#[derive(Debug)]
pub(crate) struct About {
    /// Of this link alone, as long as the node runs.
    pub(crate) number: u64,
    /// What the peer has said when it came.
    pub(crate) info: LinkInfo,
    /// When that was.
    pub(crate) since: SystemTime,
}

/// How a link does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// It takes what there is.
    Good,
    /// Its queue was full, and it has not caught up since.
    Behind,
    /// It was closed for reading too slowly.
    Shed,
    /// It ends.
    Closing,
}

/// What only the link to a peer has.
struct Peer {
    key: PeerKey,
    room_wanted: Notify,
}

impl Target for Subscriber {
    fn peer(&self) -> Option<PeerKey> {
        self.peer.as_ref().map(|peer| peer.key)
    }

    fn is_usable(&self) -> bool {
        !self.outbound.is_closed()
    }

    fn tell(&self, message: &Message) -> bool {
        // For one that is closed nothing is kept: it will be told again if it comes back.
        let has_room = self.outbound.try_push_control(message) != Err(PushError::Full);
        if let (false, Some(peer)) = (has_room, &self.peer) {
            peer.room_wanted.notify_one();
        }
        has_room
    }

    fn wake(&self) {
        self.outbound.wake();
    }
}

/// How long publishers wait for a subscriber whose queue is full.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grace {
    /// A subscriber has this long …
    pub(crate) period: Duration,
    /// … to take this many bytes, or half of what waited for it when its queue was
    /// full: while all queues together hold too much, that is less.
    pub(crate) bytes: u64,
}

impl Subscriber {
    /// The link of an application.
    pub(crate) fn new(outbound: Outbound, about: About) -> Self {
        Self {
            outbound,
            peer: None,
            about,
            received: Traffic::default(),
            delivered: Traffic::default(),
            names: Names::default(),
            patience: Mutex::new(Patience::default()),
            shed: AtomicBool::new(false),
            turn: AtomicU64::new(0),
        }
    }

    /// The link to a peer.
    pub(crate) fn peer(outbound: Outbound, about: About, key: PeerKey) -> Self {
        let peer = Peer { key, room_wanted: Notify::new() };
        Self { peer: Some(peer), ..Self::new(outbound, about) }
    }

    /// Waits until there was no room for something that the peer is to be told.
    pub(crate) async fn untold(&self) {
        match &self.peer {
            Some(peer) => peer.room_wanted.notified().await,
            None => std::future::pending().await,
        }
    }

    pub(crate) fn outbound(&self) -> &Outbound {
        &self.outbound
    }

    pub(crate) fn about(&self) -> &About {
        &self.about
    }

    /// What has come from it.
    pub(crate) fn received(&self) -> &Traffic {
        &self.received
    }

    /// What was queued for it.
    pub(crate) fn delivered(&self) -> &Traffic {
        &self.delivered
    }

    pub(crate) fn names(&self) -> &Names {
        &self.names
    }

    pub(crate) fn condition(&self) -> Condition {
        if self.shed.load(Ordering::Relaxed) {
            return Condition::Shed;
        }
        if self.outbound.is_closed() {
            return Condition::Closing;
        }
        match self.patience().is_tried(self.taken()) {
            true => Condition::Behind,
            false => Condition::Good,
        }
    }

    /// Marks the link for being woken at the end of a turn, and says whether it was
    /// not yet. May say so twice when publishers interleave, which does no harm.
    pub(crate) fn touch(&self, turn: u64) -> bool {
        self.turn.swap(turn, Ordering::Relaxed) != turn
    }

    /// Queues a frame if there is room.
    ///
    /// # Errors
    /// [`Full`]; a frame for a closed link is counted and forgotten.
    pub(crate) fn push(&self, frame: &Outgoing<'_>, tally: &mut Tally) -> Result<(), Full> {
        match self.outbound.try_push(frame) {
            Ok(()) => {
                self.delivered.add(1, frame.len());
                tally.add(Counter::Delivered, 1);
                tally.add(Counter::DeliveredBytes, frame.len());
                Ok(())
            }
            Err(PushError::Closed) => {
                let was_slow = self.shed.load(Ordering::Relaxed);
                tally.add(if was_slow { Counter::Shed } else { Counter::LinkClosed }, 1);
                Ok(())
            }
            Err(PushError::Full) => Err(Full),
        }
    }

    /// Queues frames as room becomes free. Sheds the subscriber if it takes too
    /// little in the grace period, so this ends.
    pub(crate) async fn push_slowly(&self, frames: &[&RoutedFrame], grace: Grace) -> Tally {
        let mut tally = Tally::default();
        for frame in frames {
            // It could be forwarded a moment ago.
            let Ok(frame) = frame.forward() else { continue };
            while let Err(Full) = self.push(&frame, &mut tally) {
                self.outbound.wake();
                let until = self.wait_until(grace);
                let in_time = timeout_at(until, self.outbound.space()).await.is_ok();
                if !in_time && self.wait_until(grace) <= Instant::now() {
                    self.shed(&mut tally);
                }
            }
        }
        self.outbound.wake();
        tally
    }

    /// Queues an answer once there is room. Sheds the link if the answers before it
    /// are not taken in this time, so this ends.
    pub(crate) async fn answer_slowly(&self, answer: &Message, period: Duration) -> Tally {
        let mut tally = Tally::default();
        let until = Instant::now() + period;
        while let Err(PushError::Full) = self.outbound.try_push_control(answer) {
            self.outbound.wake();
            if timeout_at(until, self.outbound.control_space()).await.is_err() {
                self.shed(&mut tally);
            }
        }
        tally
    }

    /// Drops what waits for this link and closes it.
    pub(crate) fn shed(&self, tally: &mut Tally) {
        if !self.shed.swap(true, Ordering::Relaxed) {
            let dropped = self.outbound.shed(CloseReason::TooSlow);
            tally.add(Counter::ShedLinks, 1);
            tally.add(Counter::Shed, dropped.frames);
            tracing::warn!(frames = dropped.frames, bytes = dropped.bytes, "slow subscriber shed");
        }
    }

    fn wait_until(&self, grace: Grace) -> Instant {
        let waiting = self.outbound.queued_bytes() as u64;
        let grace = Grace { bytes: grace.bytes.min(waiting / 2), ..grace };
        let taken = self.taken();
        self.patience().until(Instant::now(), taken, grace)
    }

    /// Bytes that have left the queue.
    fn taken(&self) -> u64 {
        self.delivered.bytes().saturating_sub(self.outbound.queued_bytes() as u64)
    }

    fn patience(&self) -> MutexGuard<'_, Patience> {
        self.patience.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Subscriber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.outbound.fmt(f)
    }
}

/// The subscriber's queue is full.
#[derive(Debug)]
pub(crate) struct Full;

/// Since when a subscriber takes too little. All its publishers share this, so a
/// stuck one costs each of them the grace period once at most.
#[derive(Debug, Default)]
struct Patience {
    /// When the queue was full, and how much has to be taken from then on.
    mark: Option<(Instant, u64)>,
}

impl Patience {
    /// Whether the queue was full and not enough was taken since.
    fn is_tried(&self, taken: u64) -> bool {
        self.mark.is_some_and(|(_, goal)| taken < goal)
    }

    /// Until when to wait for room, the queue being full at `now`. The period starts
    /// again once the subscriber has taken enough; for one that has been idle since,
    /// that is the case, because it has taken what was in the queue.
    fn until(&mut self, now: Instant, taken: u64, grace: Grace) -> Instant {
        match self.mark {
            Some((since, goal)) if taken < goal => since + grace.period,
            _ => {
                self.mark = Some((now, taken + grace.bytes));
                now + grace.period
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Grace = Grace { period: Duration::from_secs(1), bytes: 100 };

    fn after(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    #[test]
    fn a_stuck_subscriber_has_one_period_for_all_its_publishers() {
        let start = Instant::now();
        let mut patience = Patience::default();
        assert!(!patience.is_tried(500));
        assert_eq!(patience.until(start, 500, GRACE), after(start, 1000));
        assert!(patience.is_tried(599) && !patience.is_tried(600));
        assert_eq!(patience.until(after(start, 900), 500, GRACE), after(start, 1000));
        assert_eq!(patience.until(after(start, 5000), 500, GRACE), after(start, 1000));
    }

    #[test]
    fn one_that_takes_enough_starts_again() {
        let start = Instant::now();
        let mut patience = Patience::default();
        patience.until(start, 500, GRACE);
        assert_eq!(patience.until(after(start, 900), 600, GRACE), after(start, 1900));
    }

    #[test]
    fn one_that_takes_a_little_now_and_then_does_not() {
        let start = Instant::now();
        let mut patience = Patience::default();
        for step in 0..10 {
            let until = patience.until(after(start, 100 * step), 500 + step, GRACE);
            assert_eq!(until, after(start, 1000));
        }
    }
}
