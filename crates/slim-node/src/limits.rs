//! The limits of a node, which may be changed while it runs.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use slim_link::LiveLimits;

use crate::NodeConfig;
use crate::subscriber::Grace;

/// The limits of a running node. Clones are cheap and mean the same node.
#[derive(Clone, Debug)]
pub struct NodeLimits(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    accept: Arc<LiveLimits>,
    max_subscriptions_per_link: AtomicUsize,
    /// 0: none.
    max_messages_per_second: AtomicU32,
    slow_subscriber_grace_micros: AtomicU64,
}

impl NodeLimits {
    pub(crate) fn new(config: &NodeConfig) -> Self {
        let limits = Self(Arc::default());
        limits.set(config);
        limits
    }

    /// From now on the limits of this configuration count, for the links that are there
    /// too; nothing else of it is looked at. No link ends for it, even if there are more
    /// of them than there may be now, or one has more subscriptions.
    pub fn set(&self, config: &NodeConfig) {
        let inner = &*self.0;
        inner.accept.set(&config.accept());
        let subscriptions = config.max_subscriptions_per_link;
        inner.max_subscriptions_per_link.store(subscriptions, Ordering::Relaxed);
        let rate = config.max_messages_per_second.map_or(0, NonZeroU32::get);
        inner.max_messages_per_second.store(rate, Ordering::Relaxed);
        let grace = u64::try_from(config.slow_subscriber_grace.as_micros()).unwrap_or(u64::MAX);
        inner.slow_subscriber_grace_micros.store(grace, Ordering::Relaxed);
    }

    /// Those of connections and queues.
    pub(crate) fn accept(&self) -> &Arc<LiveLimits> {
        &self.0.accept
    }

    pub(crate) fn max_subscriptions_per_link(&self) -> usize {
        self.0.max_subscriptions_per_link.load(Ordering::Relaxed)
    }

    pub(crate) fn max_messages_per_second(&self) -> Option<NonZeroU32> {
        NonZeroU32::new(self.0.max_messages_per_second.load(Ordering::Relaxed))
    }

    pub(crate) fn grace(&self) -> Grace {
        let micros = self.0.slow_subscriber_grace_micros.load(Ordering::Relaxed);
        let bytes = self.accept().queue_bytes() as u64 / 4;
        Grace { period: Duration::from_micros(micros), bytes }
    }
}
