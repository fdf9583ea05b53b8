//! Waiting, always for something and never for ever.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Everything that a test waits for has to happen within this time. The longest is a
/// link that is gone without a word: its ends notice after 80 s and 140 s.
pub const DEADLINE: Duration = Duration::from_secs(180);

/// How often is looked.
const LOOK: Duration = Duration::from_millis(20);

/// Looks until there is something, which `look` returns; until then it says what is
/// missing.
///
/// # Panics
/// If there is nothing within [`DEADLINE`], with what was missing then.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match look().await {
            Ok(found) => return found,
            Err(missing) if Instant::now() >= deadline => {
                panic!("{what}: not within {} s: {missing}", DEADLINE.as_secs())
            }
            Err(_) => sleep(LOOK).await,
        }
    }
}
