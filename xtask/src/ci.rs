//! `cargo xtask ci`: everything that has to pass before a change is merged, in
//! the order in which it is cheap to fail.
//!
//! The steps build with the same profile and flags and for the same targets, so
//! that each dependency is compiled once and checked once.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::cargo::{self, Programs};
use crate::{codegen, demo, fuzz, licences, planted, restarts, sim};

/// The tests, as README.md names them. Only `--no-fail-fast` is added here.
const TEST: [&str; 2] = ["test", "--workspace"];

/// Seconds for each fuzz target: what breaks at once. More is for longer runs.
const FUZZ_SECONDS: u32 = 30;

/// Seeds of the simulator that nobody has played before; the tests have fixed ones.
const SIM_SEEDS: u64 = 20;

pub(crate) fn run() -> anyhow::Result<()> {
    let mut report = Report::default();
    report.step("formatting", formatting)?;
    report.step("generated code", codegen::check)?;
    report.step("licences", licences::run)?;
    report.advisories()?;
    report.step("clippy", || cargo::run(&mut clippy()))?;
    // What the tests build too, but said so that the programs' places come out.
    let programs = report
        .step("build", || Programs::build(&["--workspace", "--bins", "--tests", "--examples"]))?;
    let totals = report.step("tests", test)?;
    // In the tests' profile, once each: that they run, not how fast.
    report.step("benchmarks run", || {
        cargo::run(&mut cargo::command(&["test", "--locked", "--workspace", "--bench", "*"]))
    })?;
    report.step("documentation", || cargo::run(&mut documentation()))?;
    report.step("demo", || demo::check(&programs, true))?;
    report.step("demo without MLS", || demo::check(&programs, false))?;
    report.step("restarts", || restarts::check_all(&programs))?;
    report.step("fresh seeds of the simulator", || sim::play_fresh(SIM_SEEDS))?;
    report.step("planted faults", planted::check)?;
    report.step("fuzzing", || fuzz::check(FUZZ_SECONDS))?;
    report.print();
    println!("tests: {totals}");
    Ok(())
}

fn formatting() -> anyhow::Result<()> {
    cargo::run(&mut cargo::command(&["fmt", "--all", "--check"]))?;
    cargo::run(&mut cargo::command(&["fmt", "--manifest-path", "fuzz/Cargo.toml", "--check"]))
}

fn clippy() -> Command {
    let mut clippy = cargo::command(&["clippy", "--locked", "--workspace", "--all-targets"]);
    // What is tested elsewhere, in containers, is checked here.
    clippy.args(["--all-features", "--", "--deny", "warnings"]);
    clippy
}

fn documentation() -> Command {
    let mut doc = cargo::command(&["doc", "--locked", "--workspace", "--no-deps"]);
    // As clippy, so that nothing is checked twice.
    doc.arg("--all-features");
    doc.env("RUSTDOCFLAGS", "--deny warnings");
    doc
}

/// Runs all tests, passing their output on.
fn test() -> anyhow::Result<Totals> {
    let mut test = cargo::command(&TEST);
    test.args(["--locked", "--no-fail-fast"]).stdout(Stdio::piped());
    let mut child = test.spawn().with_context(|| format!("cannot start {test:?}"))?;
    let mut totals = Totals::default();
    for line in BufReader::new(child.stdout.take().context("no pipe")?).lines() {
        let line = line.context("reading the tests' output")?;
        println!("{line}");
        totals.add(&line);
    }
    let status = child.wait().context("waiting for the tests")?;
    println!("tests: {totals}");
    if !status.success() || totals.failed > 0 {
        bail!("{} ended with {status}", cargo::shown(&test));
    }
    if totals.passed == 0 {
        bail!("no test ran");
    }
    Ok(totals)
}

/// Sums of the lines `test result: …`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Totals {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Totals {
    fn add(&mut self, line: &str) {
        let Some((_, counts)) =
            line.strip_prefix("test result: ").and_then(|result| result.split_once(". "))
        else {
            return;
        };
        for count in counts.split("; ") {
            let Some((number, what)) = count.split_once(' ') else {
                continue;
            };
            let sum = match what {
                "passed" => &mut self.passed,
                "failed" => &mut self.failed,
                "ignored" => &mut self.ignored,
                _ => continue,
            };
            *sum += number.parse::<u64>().unwrap_or(0);
        }
    }
}

impl std::fmt::Display for Totals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed, {} ignored", self.passed, self.failed, self.ignored)
    }
}

/// What was done and how long it took.
#[derive(Debug, Default)]
struct Report(Vec<(String, String)>);

impl Report {
    fn step<T>(
        &mut self,
        name: &str,
        step: impl FnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        println!("\n=== {name}");
        let started_at = Instant::now();
        let result = step();
        let took = seconds(started_at.elapsed());
        match &result {
            Ok(_) => self.0.push((name.to_owned(), took)),
            Err(_) => {
                self.0.push((name.to_owned(), format!("{took}  FAILED")));
                self.print();
            }
        }
        result.with_context(|| format!("ci: {name}"))
    }

    /// Advisories need a database from the network and a tool that takes longer
    /// to build than the project: used where it is installed.
    fn advisories(&mut self) -> anyhow::Result<()> {
        let is_there = cargo::command(&["deny", "--version"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        if is_there {
            return self.step("advisories", || {
                let check = ["deny", "check", "advisories", "bans", "sources"];
                cargo::run(&mut cargo::command(&check))
            });
        }
        println!(
            "\n=== advisories\nSKIPPED: cargo-deny is not installed (cargo install cargo-deny)"
        );
        self.0.push(("advisories".to_owned(), "SKIPPED, no cargo-deny".to_owned()));
        Ok(())
    }

    fn print(&self) {
        println!("\n=== summary");
        for (name, took) in &self.0 {
            println!("{name:<20} {took}");
        }
    }
}

fn seconds(took: Duration) -> String {
    format!("{:>6.1} s", took.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_the_sums_of_all_result_lines() {
        let mut totals = Totals::default();
        for line in [
            "running 3 tests",
            "test a ... ok",
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 4 filtered out; finished in 1.00s",
        ] {
            totals.add(line);
        }
        assert_eq!(totals, Totals { passed: 15, failed: 2, ignored: 1 });
    }

    #[test]
    fn the_readme_names_the_same_commands() {
        let readme = std::fs::read_to_string(cargo::root().join("README.md")).unwrap();
        for command in [format!("cargo {}", TEST.join(" ")), "cargo xtask demo".to_owned()] {
            assert!(readme.contains(&command), "README.md does not say `{command}`");
        }
    }
}
