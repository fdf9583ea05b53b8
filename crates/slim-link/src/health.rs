//! Whether a server takes links, for whoever wants to know.

use std::sync::Arc;

use tokio::sync::watch;

/// Whether [`serve`](crate::serve) takes links: from when it begins until it is told to
/// stop, which is before it closes a listener. Give the same to
/// [`AcceptConfig::health`](crate::AcceptConfig::health) and keep it.
#[derive(Debug)]
pub struct Health(watch::Sender<bool>);

impl Default for Health {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl Health {
    /// Whether links are taken now.
    pub fn is_serving(&self) -> bool {
        *self.0.borrow()
    }

    /// Links are taken for as long as the returned value lives.
    pub(crate) fn begin(self: &Arc<Self>) -> Serving {
        self.0.send_replace(true);
        Serving(Arc::clone(self))
    }
}

/// See [`Health::begin`].
pub(crate) struct Serving(Arc<Health>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.0.send_replace(false);
    }
}
