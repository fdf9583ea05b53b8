//! How much may be queued on all links together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::{AcceptConfig, LiveLimits};

/// Bytes that each link may always queue. Only what a link has beyond this counts
/// for the limit of all together, so that links whose peers read neither notice it
/// nor pay for the counting.
pub const QUEUE_SHARE: usize = 64 * 1024;

/// Bytes that may be queued on all links together by default, beyond
/// [`QUEUE_SHARE`] on each: some 270 peers that do not read at all.
pub const DEFAULT_MAX_QUEUED_BYTES: usize = 256 * 1024 * 1024;

/// What all queues of a server may take together. While it is used up, a queue is
/// full at [`QUEUE_SHARE`].
#[derive(Debug)]
pub(crate) struct Budget {
    limits: Arc<LiveLimits>,
    used: AtomicUsize,
}

impl Budget {
    pub(crate) fn new(limits: Arc<LiveLimits>) -> Arc<Self> {
        Arc::new(Self { limits, used: AtomicUsize::new(0) })
    }

    pub(crate) fn unlimited() -> Arc<Self> {
        let limits = LiveLimits::default();
        limits.set(&AcceptConfig { max_queued_bytes: usize::MAX, ..AcceptConfig::default() });
        Self::new(Arc::new(limits))
    }

    /// Bytes that each queue may hold.
    pub(crate) fn queue_limit(&self) -> usize {
        self.limits.queue_bytes()
    }

    /// Whether a queue that holds `queued` bytes may take more.
    pub(crate) fn admits(&self, queued: usize) -> bool {
        queued < QUEUE_SHARE || self.used.load(Ordering::Relaxed) < self.limits.max_queued_bytes()
    }

    /// A queue that held `before` bytes holds `after` now.
    pub(crate) fn changed(&self, before: usize, after: usize) {
        let (before, after) = (beyond_share(before), beyond_share(after));
        if after > before {
            self.used.fetch_add(after - before, Ordering::Relaxed);
        } else if before > after {
            self.used.fetch_sub(before - after, Ordering::Relaxed);
        }
    }
}

fn beyond_share(queued: usize) -> usize {
    queued.saturating_sub(QUEUE_SHARE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_beyond_the_share_counts() {
        let limits = Arc::new(LiveLimits::default());
        let config = AcceptConfig { max_queued_bytes: 100, ..AcceptConfig::default() };
        limits.set(&config);
        let budget = Budget::new(Arc::clone(&limits));
        budget.changed(0, QUEUE_SHARE);
        assert_eq!(budget.used.load(Ordering::Relaxed), 0);
        budget.changed(QUEUE_SHARE - 10, QUEUE_SHARE + 99);
        assert!(budget.admits(QUEUE_SHARE));
        budget.changed(QUEUE_SHARE + 99, QUEUE_SHARE + 100);
        assert!(!budget.admits(QUEUE_SHARE));
        assert!(budget.admits(QUEUE_SHARE - 1));
        // It may be changed at any time.
        limits.set(&AcceptConfig { max_queued_bytes: 101, ..config });
        assert!(budget.admits(QUEUE_SHARE));
        budget.changed(QUEUE_SHARE + 100, 5);
        assert_eq!(budget.used.load(Ordering::Relaxed), 0);
        assert!(budget.admits(QUEUE_SHARE));
    }
}
