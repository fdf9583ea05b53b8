//! How fast links send and receive, from looking at them now and then.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use serde::Serialize;

use crate::links::Traffic;
use crate::subscriber::Subscriber;
use crate::view::View;

/// Of one link and direction, over the last few seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Rate {
    pub(super) messages_per_second: f64,
    pub(super) bytes_per_second: f64,
}

/// Totals of one link and direction.
#[derive(Clone, Copy, Debug, Default)]
struct Total {
    messages: u64,
    bytes: u64,
}

/// What was seen of a link the last time.
#[derive(Debug)]
struct Seen {
    totals: [Total; 2],
    rates: [Rate; 2],
}

/// What was seen of all links.
#[derive(Debug, Default)]
pub(super) struct Rates(Mutex<HashMap<u64, Seen>>, Mutex<Option<Instant>>);

impl Rates {
    /// Looks at all links. A link that is new has sent everything since the last time.
    pub(super) async fn sample(&self, view: &View) {
        let now = Instant::now();
        let last = self.1.lock().unwrap_or_else(PoisonError::into_inner).replace(now);
        let seconds = last.map_or(f64::INFINITY, |last| (now - last).as_secs_f64().max(0.001));
        let mut seen = HashMap::with_capacity(view.links.count());
        view.each_link(|link| {
            let before = self.read(|old| {
                old.get(&link.about().number).map_or_else(Default::default, |seen| seen.totals)
            });
            let totals = totals(link);
            let rates = [0, 1].map(|at| Rate::between(before[at], totals[at], seconds));
            seen.insert(link.about().number, Seen { totals, rates });
        })
        .await;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = seen;
    }

    /// Of what a link sends and of what it gets; none if it is very new.
    pub(super) fn of(&self, link: &Subscriber) -> [Rate; 2] {
        self.read(|seen| {
            seen.get(&link.about().number).map_or_else(Default::default, |seen| seen.rates)
        })
    }

    fn read<R>(&self, f: impl FnOnce(&HashMap<u64, Seen>) -> R) -> R {
        // Nothing panics while it is locked.
        f(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Rate {
    fn between(before: Total, after: Total, seconds: f64) -> Self {
        let rate = |before: u64, after: u64| {
            let rate = after.saturating_sub(before) as f64 / seconds;
            // Nobody needs more digits.
            (rate * 10.0).round() / 10.0
        };
        Self {
            messages_per_second: rate(before.messages, after.messages),
            bytes_per_second: rate(before.bytes, after.bytes),
        }
    }
}

fn totals(link: &Subscriber) -> [Total; 2] {
    let total = |traffic: &Traffic| Total { messages: traffic.messages(), bytes: traffic.bytes() };
    [total(link.received()), total(link.delivered())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_what_came_in_the_time() {
        let total = |messages, bytes| Total { messages, bytes };
        let rate = Rate::between(total(10, 1000), total(15, 1333), 2.0);
        assert_eq!(rate, Rate { messages_per_second: 2.5, bytes_per_second: 166.5 });
        // The first time there is nothing to compare with.
        assert_eq!(Rate::between(total(0, 0), total(9, 9), f64::INFINITY), Rate::default());
    }
}
