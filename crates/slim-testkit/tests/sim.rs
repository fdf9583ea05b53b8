//! What is promised holds under faults: a fixed set of seeds, and those that once
//! showed a fault. `cargo xtask sim` plays others.

use slim_testkit::sim;

/// Lines of a failing story that are shown; the replay shows all.
const LAST_LINES: usize = 200;

fn check(seeds: impl IntoIterator<Item = u64>) {
    for seed in seeds {
        if let Err(failure) = sim::run(seed) {
            panic!("\n{}", failure.brief(LAST_LINES));
        }
    }
}

#[test]
fn what_is_promised_holds_under_faults() {
    check(1020..1060);
}

/// The application got a message of a session that it did not have yet.
#[test]
fn a_peer_that_speaks_at_once() {
    check([43, 144]);
}

/// An application was told of the end of a session that it did not have.
#[test]
fn an_invited_process_that_gives_up() {
    check([75, 227]);
}

/// The invitation had no outcome.
#[test]
fn a_member_that_leaves_while_it_is_invited_again() {
    check([51, 69, 110]);
}

/// A copy was delivered while the session was being closed.
#[test]
fn a_late_copy_while_a_session_closes() {
    check([83, 321]);
}

/// Without MLS nobody told a member what it had missed, or an old roster came back.
#[test]
fn a_roster_without_mls() {
    check([4, 48, 92, 95, 291, 555]);
}

/// It went on for ever with a group that it was no member of.
#[test]
fn a_member_that_was_removed_while_it_was_away() {
    check([50, 112, 147]);
}

/// Its leaf was replaced once more for each copy of its request.
#[test]
fn a_member_that_asks_twice_for_a_new_welcome() {
    check([63, 126]);
}

/// More was said while a member heard nothing than its keys reach ahead.
#[test]
fn a_member_that_missed_very_much() {
    check([509, 1016, 5295]);
}

/// What it said first was acknowledged, but neither delivered nor reported.
#[test]
fn a_member_that_is_back_speaks_under_a_number_that_is_lost() {
    check([1_302_533]);
}

/// Not a fault: without MLS nothing tells such a copy from news, and on no real link
/// does it come so late.
#[test]
fn a_copy_from_before_its_sender_left_that_is_overtaken() {
    check([1_302_238, 5_011_593]);
}

#[test]
fn a_seed_tells_the_same_story_again() {
    for seed in [7, 77] {
        let story = || sim::run(seed).map(|outcome| outcome.story);
        assert_eq!(story(), story());
    }
}

/// A world in which nothing happens would prove nothing.
#[test]
fn the_worlds_are_eventful() {
    let mut totals = sim::Totals::default();
    for seed in 2000..2005 {
        totals += sim::run(seed).expect("it holds").totals;
    }
    assert!(totals.delivered > 50, "{totals}");
    assert!(totals.dropped > 0, "{totals}");
    assert!(totals.commands > 50, "{totals}");
}
