//! How fast one link may send.

use std::num::NonZeroU32;
use std::time::Duration;

use tokio::time::Instant;

/// What a link may send at once after it was silent for as long.
const BURST: Duration = Duration::from_secs(1);

/// Keeps a link to a number of messages a second. What is over that is not dropped:
/// the link is read later.
#[derive(Debug)]
pub(crate) struct Rate {
    per_second: NonZeroU32,
    /// Until when what has come would have taken at this rate.
    spent_until: Option<Instant>,
}

impl Rate {
    pub(crate) fn new(per_second: NonZeroU32) -> Self {
        Self { per_second, spent_until: None }
    }

    pub(crate) fn per_second(&self) -> NonZeroU32 {
        self.per_second
    }

    /// So many messages have come; gives until when to read no more.
    pub(crate) fn spend(&mut self, messages: usize, now: Instant) -> Option<Instant> {
        let seconds = messages as f64 / f64::from(self.per_second.get());
        let from = self.spent_until.map_or(now, |until| until.max(now));
        let until = from + Duration::from_secs_f64(seconds);
        self.spent_until = Some(until);
        (until > now + BURST).then(|| until - BURST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        let mut rate = Rate::new(NonZeroU32::new(100).unwrap());
        assert_eq!(rate.spend(100, start), None);
        assert_eq!(rate.spend(50, start), Some(after(500)));
        assert_eq!(rate.spend(50, after(500)), Some(after(1000)));
        // Silence is worth one burst, not more.
        assert_eq!(rate.spend(100, after(60_000)), None);
        assert_eq!(rate.spend(1, after(60_000)), Some(after(60_010)));
    }

    #[test]
    fn so_much_at_once_takes_its_time() {
        let start = Instant::now();
        let mut rate = Rate::new(NonZeroU32::MIN);
        assert_eq!(rate.spend(256, start), Some(start + Duration::from_secs(255)));
    }
}
