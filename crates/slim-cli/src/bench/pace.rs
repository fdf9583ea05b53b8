//! Whose turn it is, and when: the publishers of one measurement share one pace.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::args::{Limit, Load};
use super::halt::Halt;

/// Hands out turns until the limit is reached or somebody stops it. Clones share
/// them.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    limit: Limit,
    interval: Option<Duration>,
    started_at: Instant,
    taken: Arc<AtomicU64>,
    halt: Halt,
}

impl Pace {
    /// Starts now.
    pub(crate) fn start(load: &Load, halt: &Halt) -> Self {
        Self {
            limit: load.limit,
            interval: load.interval,
            started_at: Instant::now(),
            taken: Arc::default(),
            halt: halt.clone(),
        }
    }

    /// When the next message is to be sent; `None` if there are no more.
    pub(crate) fn take(&self) -> Option<Instant> {
        if self.halt.is_set() {
            return None;
        }
        let number = self.taken.fetch_add(1, Ordering::Relaxed);
        let due = match self.interval {
            None => self.started_at,
            Some(interval) => self.started_at + interval.mul_f64(number as f64),
        };
        let over = match self.limit {
            Limit::Messages(messages) => number >= messages,
            Limit::Duration(duration) => due.max(Instant::now()) >= self.started_at + duration,
        };
        (!over).then_some(due)
    }

    /// Waits for a turn that was taken; for ever, if there is none. False: somebody
    /// wants to stop instead.
    pub(crate) async fn wait(&self, turn: Option<Instant>) -> bool {
        let Some(due) = turn else { return std::future::pending().await };
        // The clock is looked at first: a timer costs more than a message.
        if due <= Instant::now() {
            return !self.halt.is_set();
        }
        tokio::select! {
            () = sleep_until(due) => true,
            () = self.halt.wait() => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(limit: Limit, interval: Option<Duration>) -> (Pace, Halt) {
        let halt = Halt::default();
        (Pace::start(&Load { sizes: vec![512], limit, interval }, &halt), halt)
    }

    #[test]
    fn all_publishers_share_the_messages() {
        let (first, _halt) = pace(Limit::Messages(3), None);
        let second = first.clone();
        assert!(first.take().is_some() && second.take().is_some() && first.take().is_some());
        assert_eq!((first.take(), second.take()), (None, None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_spaces_them() {
        let interval = Duration::from_millis(100);
        let (pace, _halt) = pace(Limit::Duration(Duration::from_secs(1)), Some(interval));
        let dues: Vec<Instant> = std::iter::from_fn(|| pace.take()).collect();
        assert_eq!(dues.len(), 10);
        assert!(dues.windows(2).all(|pair| pair[1] - pair[0] == interval));
    }

    #[tokio::test(start_paused = true)]
    async fn time_ends_it() {
        let (pace, _halt) = pace(Limit::Duration(Duration::from_secs(1)), None);
        assert!(pace.take().is_some());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(pace.take(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_ends_it_while_a_turn_is_waited_for() {
        let (pace, halt) = pace(Limit::Messages(3), Some(Duration::from_secs(3600)));
        let first = pace.take();
        assert!(pace.wait(first).await);
        let second = pace.take();
        let began_at = Instant::now();
        let (waited, ()) = tokio::join!(pace.wait(second), async { halt.set() });
        assert!(!waited && began_at.elapsed() < Duration::from_secs(1));
        assert_eq!(pace.take(), None);
    }
}
