//! Many engines and a node in one thread, under virtual time and one seed.
//!
//! [`run`] draws a world from a seed: applications, their clocks, a session's
//! settings, how bad the network is. Then the applications do what applications
//! do, at random, while messages are lost, copied, delayed, held up and reordered, links
//! break, the node restarts, members go away and come back, are killed, started
//! again or paused. After each such round the faults end, and what was promised has
//! to hold.
//!
//! | checked | when |
//! |---|---|
//! | a message reaches an application once, and a sender's in order | each delivery |
//! | a command has one outcome, of its kind | each outcome, and in a calm |
//! | a report names everybody that the message was for | each outcome |
//! | who is reported to have a message got it, or was told that it is lost | in a calm |
//! | nothing follows the end of a session; who was removed hears no more | each event |
//! | no deadline lies in the past, none is asked for too often, and engines do not keep each other busy | each input |
//! | members agree on roster, presence and epoch | in a calm |
//! | all hear all again; but for heartbeats it is quiet | in a calm |
//! | nothing is left of what was closed | at the end |
//!
//! The engines' decisions depend on nothing but the seed, so a seed tells the same
//! story each time. Keys and signatures are drawn anew, and no story shows them.
//!
//! What is not demanded: a group's stream starts at its first arrival, so the
//! first messages to a new member may be reported as delivered without having
//! been, if they are lost once and come again after a later one. If such a new
//! member leaves and comes back while another is away, the other may be told that
//! its messages are lost until it has counted up to that start; and if it has counted
//! as far as before, its first messages may be delivered after others. Who leaves and comes
//! back while a sender is away may get once more what it had before. Nobody has to
//! agree with a moderator that is gone. An unreliable session promises neither
//! order nor, without MLS, that a copy is noticed. If messages overtake each other on
//! one link, which no real link does, rosters may differ without MLS, and nothing tells
//! a late copy of what a member said before it left from what it says when it is back.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

mod act;
mod app;
mod calm;
mod ledger;
mod network;
mod plan;
mod story;
mod world;

use self::plan::Plan;
use self::world::World;

/// What a seed that holds amounted to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// One line for each thing that happened, with its virtual time.
    pub story: Vec<String>,
    /// How much happened.
    pub totals: Totals,
}

/// How much happened in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Inputs that the engines took.
    pub inputs: u64,
    /// Commands that the applications gave.
    pub commands: u64,
    /// Messages that reached an application.
    pub delivered: u64,
    /// Frames that were lost on their way.
    pub dropped: u64,
    /// Messages that count as delivered because a stream starts at its first
    /// arrival.
    pub before_first: u64,
    /// Messages that were delivered twice or out of order because nothing told a
    /// receiver that their sender had left and come back.
    pub mistaken: u64,
    /// Virtual time in seconds.
    pub seconds: u64,
}

/// Something did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The seed that shows it.
    pub seed: u64,
    /// What did not hold.
    pub what: String,
    /// One line for each thing that happened before, with its virtual time.
    pub story: Vec<String>,
}

impl Failure {
    /// The failure with only the last lines of its story.
    pub fn brief(mut self, lines: usize) -> Self {
        let skipped = self.story.len().saturating_sub(lines);
        if skipped > 0 {
            self.story.drain(..skipped);
            self.story.insert(0, format!("… {skipped} lines before"));
        }
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.story {
            writeln!(f, "{line}")?;
        }
        writeln!(f, "\nseed {}: {}", self.seed, self.what)?;
        write!(f, "replay: cargo xtask sim --seed {}", self.seed)
    }
}

impl std::error::Error for Failure {}

/// Plays what the seed says.
///
/// # Errors
/// What did not hold, with the story up to there. A panic of an engine is one, too.
pub fn run(seed: u64) -> Result<Outcome, Box<Failure>> {
    let mut world = World::new(seed, Plan::draw(seed));
    let result = catch_unwind(AssertUnwindSafe(|| world.play())).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(format!("panicked: {}", text.unwrap_or("without words")))
    });
    let (story, totals) = world.into_parts();
    match result {
        Ok(()) => Ok(Outcome { story, totals }),
        Err(what) => Err(Box::new(Failure { seed, what, story })),
    }
}

impl std::ops::AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.inputs += other.inputs;
        self.commands += other.commands;
        self.delivered += other.delivered;
        self.dropped += other.dropped;
        self.before_first += other.before_first;
        self.mistaken += other.mistaken;
        self.seconds += other.seconds;
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} s of virtual time, {} inputs, {} commands, {} messages delivered, {} frames lost, {} messages before a first, {} of a count taken for another",
            self.seconds,
            self.inputs,
            self.commands,
            self.delivered,
            self.dropped,
            self.before_first,
            self.mistaken
        )
    }
}
