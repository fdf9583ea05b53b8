//! A link as the others see it: where to queue what it has subscribed to, and how
//! long they wait if its peer does not read.

use std::fmt;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use slim_link::{CloseReason, Outbound, PushError};
use slim_proto::{Message, Outgoing, RoutedFrame};
use tokio::time::{Instant, timeout_at};

use crate::metrics::{Counter, Tally};

/// A link that frames can be sent to.
pub(crate) struct Subscriber {
    outbound: Outbound,
    /// Bytes ever queued.
    queued: AtomicU64,
    patience: Mutex<Patience>,
    shed: AtomicBool,
    /// The last turn in which somebody queued something here.
    turn: AtomicU64,
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
    pub(crate) fn new(outbound: Outbound) -> Self {
        Self {
            outbound,
            queued: AtomicU64::new(0),
            patience: Mutex::new(Patience::default()),
            shed: AtomicBool::new(false),
            turn: AtomicU64::new(0),
        }
    }

    pub(crate) fn outbound(&self) -> &Outbound {
        &self.outbound
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
                self.queued.fetch_add(frame.len() as u64, Ordering::Relaxed);
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
        let taken = self.queued.load(Ordering::Relaxed).saturating_sub(waiting);
        let mut patience = self.patience.lock().unwrap_or_else(PoisonError::into_inner);
        let grace = Grace { bytes: grace.bytes.min(waiting / 2), ..grace };
        patience.until(Instant::now(), taken, grace)
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
        assert_eq!(patience.until(start, 500, GRACE), after(start, 1000));
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
