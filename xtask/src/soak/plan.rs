//! What a seed draws: what happens, to whom, and when.

use std::ops::Range;
use std::time::Duration;

use rand::{RngExt, rngs::StdRng};

/// Something that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Another guest comes.
    Join,
    /// One leaves.
    Leave,
    /// The moderator removes one.
    Remove,
    /// One is killed, and removed then.
    Kill,
    /// Somebody stands still for seconds, and misses nothing.
    StandStill,
    /// A guest stands still for so long that it counts as offline.
    GoAway,
    /// Somebody says much at once.
    Burst,
    /// Somebody calls the listener, has some answers, and hangs up.
    Call,
    /// The node stands still for seconds.
    NodeStandsStill,
    /// The node ends as it should, and begins again.
    NodeStops,
    /// The node is killed, and begins again.
    NodeDies,
}

/// How often each of them is drawn, relative to the others.
const WEIGHTS: [(Action, u32); 11] = [
    (Action::Join, 30),
    (Action::Leave, 8),
    (Action::Remove, 8),
    (Action::Kill, 5),
    (Action::StandStill, 10),
    (Action::GoAway, 2),
    (Action::Burst, 8),
    (Action::Call, 15),
    (Action::NodeStandsStill, 3),
    (Action::NodeStops, 2),
    (Action::NodeDies, 2),
];

/// Guests and callers at a time.
pub(super) const MOST_GUESTS: usize = 5;
pub(super) const MOST_CALLERS: usize = 3;

/// Commands that wait at the moderator. It does them one after another, and somebody
/// who was killed may hold up each of them.
pub(super) const MOST_COMMANDS: usize = 2;

/// Lines of a burst: less than half of what may wait at a sender.
pub(super) const BURST: usize = 200;

/// Lines of a call, at most.
pub(super) const CALL_LINES: u64 = 20;

/// Between two things that happen in a world, in milliseconds.
pub(super) const ACTS: Range<u64> = 300..2500;
/// Between two lines of a member.
pub(super) const SPEAKS: Range<u64> = 100..1000;
/// How long somebody stands still whom everybody waits for.
pub(super) const STILL: Range<u64> = 200..5000;
/// How long somebody stands still who counts as offline then, after 30 s.
pub(super) const AWAY: Range<u64> = 34_000..45_000;
/// How long there is no node.
pub(super) const NODE_GONE: Range<u64> = 0..2000;

/// One of them.
pub(super) fn action(rng: &mut StdRng) -> Action {
    let total: u32 = WEIGHTS.iter().map(|(_, weight)| weight).sum();
    let mut drawn = rng.random_range(0..total);
    for (action, weight) in WEIGHTS {
        if drawn < weight {
            return action;
        }
        drawn -= weight;
    }
    Action::Join
}

/// A time in this range of milliseconds.
pub(super) fn pace(rng: &mut StdRng, range: Range<u64>) -> Duration {
    Duration::from_millis(rng.random_range(range))
}

/// Most lines are short, some are not.
pub(super) fn with_filler(text: String, rng: &mut StdRng) -> String {
    let len = match rng.random_range(0..1000) {
        0..800 => return text,
        800..998 => rng.random_range(1..2_000),
        _ => rng.random_range(2_000..200_000),
    };
    format!("{text} {}", "x".repeat(len))
}

/// What a caller says, and hears, who has as many lines left.
pub(super) fn call_line(left: u64) -> String {
    format!("{left} to go")
}
