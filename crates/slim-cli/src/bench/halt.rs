//! The wish to end a measurement early, for everybody who takes part in it.

use std::sync::Arc;

use tokio::sync::watch;

/// Set once. Clones are the same wish.
#[derive(Clone, Debug, Default)]
pub(crate) struct Halt(Arc<watch::Sender<bool>>);

impl Halt {
    /// Everybody is to end.
    pub(crate) fn set(&self) {
        self.0.send_replace(true);
    }

    /// Whether somebody wants that.
    pub(crate) fn is_set(&self) -> bool {
        *self.0.borrow()
    }

    /// Done when somebody wants that.
    pub(crate) async fn wait(&self) {
        // We hold the sender.
        self.0.subscribe().wait_for(|set| *set).await.ok();
    }
}
