//! Limits that may be changed while a server runs.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

use crate::AcceptConfig;

/// The limits of a configuration that is being served: those of
/// [`AcceptConfig::limits`], which may be given others. Give the same to the
/// configuration and keep it.
#[derive(Debug, Default)]
pub struct LiveLimits {
    max_connections: AtomicUsize,
    max_newcomers: AtomicUsize,
    queue_bytes: AtomicUsize,
    max_queued_bytes: AtomicUsize,
    /// Notified when they are others.
    pub(crate) changed: Notify,
}

impl LiveLimits {
    /// From now on these of the configuration count: `max_connections`,
    /// `max_newcomers`, `queue_bytes` and `max_queued_bytes`. Who is there stays, even
    /// if there are more of them than there may be now; and what is queued stays queued.
    pub fn set(&self, config: &AcceptConfig) {
        // With a limit of none nobody could ever come.
        self.max_connections.store(config.max_connections.max(1), Ordering::Relaxed);
        self.max_newcomers.store(config.max_newcomers.max(1), Ordering::Relaxed);
        self.queue_bytes.store(config.queue_bytes, Ordering::Relaxed);
        self.max_queued_bytes.store(config.max_queued_bytes, Ordering::Relaxed);
        self.changed.notify_waiters();
    }

    /// Connections that there may be.
    pub fn max_connections(&self) -> usize {
        self.max_connections.load(Ordering::Relaxed)
    }

    pub(crate) fn max_newcomers(&self) -> usize {
        self.max_newcomers.load(Ordering::Relaxed)
    }

    /// Bytes that may wait on one link.
    pub fn queue_bytes(&self) -> usize {
        self.queue_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn max_queued_bytes(&self) -> usize {
        self.max_queued_bytes.load(Ordering::Relaxed)
    }
}
