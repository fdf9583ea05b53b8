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
    check(1000..1019);
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
