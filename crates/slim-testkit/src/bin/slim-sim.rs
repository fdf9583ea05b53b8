//! Plays seeds of the simulator: `slim-sim FIRST COUNT`. One seed is told in
//! full, of many the end of each that does not hold.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program that people read")]

use std::process::ExitCode;
use std::time::Instant;

use slim_testkit::sim;

/// Lines of a failing story when many seeds are played; a replay shows all.
const LAST_LINES: usize = 60;

fn main() -> ExitCode {
    let numbers: Option<Vec<u64>> = std::env::args().skip(1).map(|arg| arg.parse().ok()).collect();
    let Some([first, count]) = numbers.as_deref() else {
        eprintln!("usage: slim-sim FIRST COUNT");
        return ExitCode::FAILURE;
    };
    let started_at = Instant::now();
    let mut totals = sim::Totals::default();
    let mut failed = Vec::new();
    for seed in *first..first.saturating_add(*count) {
        match sim::run(seed) {
            Ok(outcome) => {
                if *count == 1 {
                    outcome.story.iter().for_each(|line| println!("{line}"));
                }
                totals += outcome.totals;
            }
            Err(failure) => {
                let lines = if *count == 1 { usize::MAX } else { LAST_LINES };
                println!("{}", failure.brief(lines));
                failed.push(seed);
            }
        }
    }
    let took = started_at.elapsed().as_secs_f64();
    println!("{totals}");
    let last = first + count - 1;
    if failed.is_empty() {
        println!("seeds {first} to {last}: all hold, {took:.1} s");
        return ExitCode::SUCCESS;
    }
    println!("seeds {first} to {last}: {} do not hold, {took:.1} s: {failed:?}", failed.len());
    ExitCode::FAILURE
}
