//! Files that are read again when they change.
//!
//! They are looked at in intervals rather than watched by the system: that works for
//! files that are replaced, for links that are turned, as orchestrators do with secrets,
//! and over a network.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Weak;
use std::time::Duration;

use slim_auth::KeySet;
use thiserror::Error;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};
use zeroize::Zeroizing;

/// How often a file is looked at.
pub const WATCH_INTERVAL: Duration = Duration::from_secs(2);

/// The text of a file. What is longer than a document with keys may be is refused.
pub(crate) fn read(path: &Path) -> Result<Zeroizing<String>, FileError> {
    let failed =
        |reason: io::Error| FileError::Read { path: path.to_owned(), reason: reason.to_string() };
    let file = File::open(path).map_err(failed)?;
    let limit = KeySet::MAX_DOCUMENT as u64;
    let mut text = Zeroizing::new(String::new());
    file.take(limit + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > limit {
        return Err(FileError::TooLarge { path: path.to_owned(), limit });
    }
    Ok(text)
}

/// Gives the text of a file to `apply` each time it is another one than before, for as
/// long as somebody has the owner.
pub(crate) fn watch<T: Send + Sync + 'static>(
    path: PathBuf,
    first: Zeroizing<String>,
    owner: Weak<T>,
    apply: impl Fn(&T, &str) -> Result<(), String> + Send + 'static,
) {
    tokio::spawn(async move {
        let mut ticks = interval(WATCH_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut seen = Ok(first);
        loop {
            ticks.tick().await;
            if owner.strong_count() == 0 {
                return;
            }
            let path_to_read = path.clone();
            let Ok(now) = tokio::task::spawn_blocking(move || read(&path_to_read)).await else {
                return;
            };
            if now == seen {
                continue;
            }
            match (&now, owner.upgrade()) {
                (_, None) => return,
                (Err(error), _) => warn!(%error, "what was read before stays in use"),
                (Ok(text), Some(owner)) => match apply(&owner, text) {
                    Ok(()) => info!(file = %path.display(), "read again"),
                    Err(reason) => {
                        warn!(file = %path.display(), %reason, "what was read before stays in use");
                    }
                },
            }
            seen = now;
        }
    });
}

/// A file could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FileError {
    /// It is not there, must not be read, or is no text.
    #[error("{}: {reason}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// As the system says.
        reason: String,
    },
    /// Nothing of the kind is that large.
    #[error("{}: more than {limit} bytes", path.display())]
    TooLarge {
        /// Which.
        path: PathBuf,
        /// In bytes.
        limit: u64,
    },
}
