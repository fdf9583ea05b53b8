//! Faults that the simulator found, each as the shortest conversation that shows it.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::time::Duration;

use common::{World, config};
use slim_session::Done;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A member that is invited again does not answer. If it leaves meanwhile, it can
/// answer, and comes back.
#[test]
fn a_member_that_leaves_while_it_is_invited_again_comes_back() {
    let mut world = World::new(&["alice", "bob", "carol"]);
    let session = world.group(config(true));
    let again = world.invite(session, 1);
    world.run();
    world.close(1, session);
    world.pass(seconds(30));
    let outcome = world.apps[0].done.get(&again);
    assert!(matches!(outcome, Some(Done::Invited(Ok(_)))), "{outcome:?}");
}
