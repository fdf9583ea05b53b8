//! Sending again until somebody answers: one attempt's timer, and a table of
//! deadlines. Both are told the time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::Timers;

/// Peers choose the period; one of zero would never come to an end.
const MIN_PERIOD: Duration = Duration::from_millis(1);

/// One thing that is sent until it is answered: at once, after each period P up
/// to R times more, and one period later it has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Retry {
    due: Duration,
    left: u32,
}

/// What [`Retry::poll`] asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Nothing yet.
    Wait,
    /// Send it again.
    Repeat,
    /// Nobody answered.
    GiveUp,
}

impl Retry {
    /// It was sent at `at`.
    pub(crate) fn sent(at: Duration, timers: &Timers) -> Self {
        Self { due: after(at, timers), left: timers.max_retries }
    }

    /// It is to be sent at `at` and then has all its repetitions.
    pub(crate) fn unsent(at: Duration, timers: &Timers) -> Self {
        Self { due: at, left: timers.max_retries.saturating_add(1) }
    }

    /// When to poll.
    pub(crate) fn due(&self) -> Duration {
        self.due
    }

    /// Takes what is due at `at`. A late call takes one repetition, not all that
    /// would have been due, and leaves it a whole period to be answered.
    pub(crate) fn poll(&mut self, at: Duration, timers: &Timers) -> Turn {
        if self.due > at {
            return Turn::Wait;
        }
        let Some(left) = self.left.checked_sub(1) else {
            return Turn::GiveUp;
        };
        self.left = left;
        self.due = after(self.due, timers);
        if self.due <= at {
            self.due = after(at, timers);
        }
        Turn::Repeat
    }
}

fn after(at: Duration, timers: &Timers) -> Duration {
    at.saturating_add(timers.timeout.max(MIN_PERIOD))
}

/// At most one deadline for each key. Equal deadlines come in the keys' order.
#[derive(Debug)]
pub(crate) struct Deadlines<K> {
    by_key: BTreeMap<K, Duration>,
    queue: BTreeSet<(Duration, K)>,
}

impl<K: Copy + Ord> Deadlines<K> {
    pub(crate) fn new() -> Self {
        Self { by_key: BTreeMap::new(), queue: BTreeSet::new() }
    }

    /// Replaces the key's deadline; `None` clears it.
    pub(crate) fn set(&mut self, key: K, at: Option<Duration>) {
        let previous = match at {
            Some(at) => self.by_key.insert(key, at),
            None => self.by_key.remove(&key),
        };
        if let Some(previous) = previous {
            self.queue.remove(&(previous, key));
        }
        if let Some(at) = at {
            self.queue.insert((at, key));
        }
    }

    /// The key's deadline is this or, if it has an earlier one, stays.
    pub(crate) fn set_earlier(&mut self, key: K, at: Duration) {
        let earlier = self.by_key.get(&key).map_or(at, |&previous| previous.min(at));
        self.set(key, Some(earlier));
    }

    /// The earliest.
    pub(crate) fn next(&self) -> Option<Duration> {
        self.queue.first().map(|&(at, _)| at)
    }

    /// Removes the earliest if its time has come.
    pub(crate) fn pop_due(&mut self, at: Duration) -> Option<K> {
        let &(_, key) = self.queue.first().filter(|&&(due, _)| due <= at)?;
        self.set(key, None);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn timers(max_retries: u32) -> Timers {
        Timers { timeout: s(1), max_retries }
    }

    /// What a retry asks for at each second.
    fn turns(mut retry: Retry, timers: &Timers, seconds: u64) -> Vec<Turn> {
        (0..=seconds).map(|second| retry.poll(s(second), timers)).collect()
    }

    #[test]
    fn repeats_each_period_and_gives_up_one_later() {
        use Turn::{GiveUp, Repeat, Wait};
        let retry = Retry::sent(s(0), &timers(3));
        assert_eq!(turns(retry, &timers(3), 4), [Wait, Repeat, Repeat, Repeat, GiveUp]);
        let retry = Retry::unsent(s(0), &timers(1));
        assert_eq!(turns(retry, &timers(1), 2), [Repeat, Repeat, GiveUp]);
        let retry = Retry::sent(s(0), &timers(0));
        assert_eq!(turns(retry, &timers(0), 1), [Wait, GiveUp]);
    }

    #[test]
    fn late_polls_do_not_repeat_in_a_burst() {
        let timers = timers(5);
        let mut retry = Retry::sent(s(0), &timers);
        assert_eq!(retry.poll(s(10), &timers), Turn::Repeat);
        assert_eq!(retry.poll(s(10), &timers), Turn::Wait);
        assert_eq!(retry.due(), s(11));
    }

    #[test]
    fn a_period_of_zero_and_endless_retries_are_survived() {
        let timers = Timers { timeout: Duration::ZERO, max_retries: u32::MAX };
        let mut retry = Retry::unsent(s(1), &timers);
        assert_eq!(retry.poll(s(1), &timers), Turn::Repeat);
        assert!(retry.due() > s(1));
        let timers = Timers { timeout: Duration::MAX, max_retries: 1 };
        assert_eq!(Retry::sent(s(1), &timers).due(), Duration::MAX);
    }

    #[test]
    fn deadlines_are_replaced_and_popped_in_order() {
        let mut deadlines = Deadlines::new();
        for (key, at) in [('b', 2), ('c', 1), ('a', 2), ('b', 1)] {
            deadlines.set(key, Some(s(at)));
        }
        deadlines.set_earlier('a', s(3));
        deadlines.set_earlier('d', s(2));
        deadlines.set_earlier('d', s(0));
        deadlines.set('c', None);
        assert_eq!(deadlines.next(), Some(s(0)));
        assert_eq!(deadlines.pop_due(s(1)), Some('d'));
        assert_eq!(deadlines.pop_due(s(1)), Some('b'));
        assert_eq!(deadlines.pop_due(s(1)), None);
        assert_eq!(deadlines.pop_due(s(2)), Some('a'));
        assert_eq!(deadlines.next(), None);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Set(u8, Option<u64>),
        SetEarlier(u8, u64),
        Pop(u64),
    }

    fn any_step() -> impl Strategy<Value = Step> {
        let (key, at) = (|| 0..6u8, || 0..8u64);
        prop_oneof![
            (key(), prop::option::of(at())).prop_map(|(key, at)| Step::Set(key, at)),
            (key(), at()).prop_map(|(key, at)| Step::SetEarlier(key, at)),
            at().prop_map(Step::Pop),
        ]
    }

    proptest! {
        /// One deadline for each key, and the earliest comes first.
        #[test]
        fn deadlines_behave_like_a_list(steps in prop::collection::vec(any_step(), 0..60)) {
            let mut deadlines = Deadlines::new();
            let mut list: Vec<(Duration, u8)> = Vec::new();
            for step in steps {
                match step {
                    Step::Set(key, at) => {
                        deadlines.set(key, at.map(s));
                        list.retain(|(_, other)| *other != key);
                        list.extend(at.map(|at| (s(at), key)));
                    }
                    Step::SetEarlier(key, at) => {
                        deadlines.set_earlier(key, s(at));
                        let known = list.iter().find(|(_, other)| *other == key);
                        let at = known.map_or_else(|| s(at), |(known, _)| s(at).min(*known));
                        list.retain(|(_, other)| *other != key);
                        list.push((at, key));
                    }
                    Step::Pop(at) => {
                        let due = list.iter().copied().min().filter(|(due, _)| *due <= s(at));
                        prop_assert_eq!(deadlines.pop_due(s(at)), due.map(|(_, key)| key));
                        list.retain(|one| Some(*one) != due);
                    }
                }
                let next = list.iter().map(|(at, _)| *at).min();
                prop_assert_eq!(deadlines.next(), next);
                prop_assert_eq!(deadlines.queue.len(), list.len());
            }
        }

        /// However late it is polled: so many repetitions, never two at once, then the end.
        #[test]
        fn a_retry_ends_after_its_repetitions(
            max_retries in 0..6u32,
            period in 0..4u64,
            late in prop::collection::vec(0..5000u64, 20),
        ) {
            let timers = Timers { timeout: s(period), max_retries };
            let mut retry = Retry::sent(s(1), &timers);
            let mut repeated = 0;
            for late in late {
                let at = retry.due() + Duration::from_millis(late);
                if late > 0 {
                    let early = retry.due() - Duration::from_nanos(1);
                    prop_assert_eq!({ retry }.poll(early, &timers), Turn::Wait);
                }
                match retry.poll(at, &timers) {
                    Turn::Wait => prop_assert!(false, "it is due"),
                    Turn::Repeat => repeated += 1,
                    Turn::GiveUp => break,
                }
                prop_assert!(retry.due() > at, "never twice at once");
            }
            prop_assert_eq!(repeated, max_retries);
        }
    }
}
