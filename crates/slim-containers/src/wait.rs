//! Waiting, always for something and never for ever.

use std::time::Duration;

use tokio::time::{sleep, timeout};

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
    let mut missing = "no answer".to_owned();
    let search = async {
        loop {
            match look().await {
                Ok(found) => return found,
                Err(reason) => missing = reason,
            }
            sleep(LOOK).await;
        }
    };
    match timeout(DEADLINE, search).await {
        Ok(found) => found,
        Err(_) => panic!("{what}: not within {} s: {missing}", DEADLINE.as_secs()),
    }
}

/// Waits for something that says by itself when it is there.
///
/// # Panics
/// If it is not within [`DEADLINE`].
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {} s", DEADLINE.as_secs()),
    }
}
