//! `cargo xtask sim`: engines and a node under virtual time, seed by seed.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::cargo;

/// Arguments of `sim`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many seeds to play; 1 if --seed is given.
    #[arg(long)]
    seeds: Option<u64>,
    /// The first seed. A single one is told in full. Fresh ones if not given.
    #[arg(long)]
    seed: Option<u64>,
}

/// Seeds that are played if nobody says how many.
const SEEDS: u64 = 100;

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let seeds = match (args.seeds, args.seed) {
        (Some(seeds), _) => seeds,
        (None, Some(_)) => 1,
        (None, None) => SEEDS,
    };
    match args.seed {
        Some(first) => play(first, seeds),
        None => play_fresh(seeds),
    }
}

/// Plays seeds that nobody has played before, and prints which.
pub(crate) fn play_fresh(seeds: u64) -> anyhow::Result<()> {
    play(fresh(), seeds)
}

fn play(first: u64, seeds: u64) -> anyhow::Result<()> {
    let (first, seeds) = (first.to_string(), seeds.to_string());
    let args = ["run", "--locked", "--quiet", "--package", "slim-testkit", "--bin", "slim-sim"];
    cargo::run(cargo::command(&args).args(["--", &first, &seeds]))
}

/// The time in milliseconds: another one each time.
fn fresh() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or_default()
}
