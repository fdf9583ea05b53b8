//! `cargo xtask compare`: our node, the reference's and two yardsticks under the same
//! load, in turn.
//!
//! A [`Case`] plays one side once and tells numbers; several rounds are played, each
//! side of a case right after the other, so that what else the machine does hits all
//! of them alike. Numbers are compared within a round; what is told is the median of
//! the rounds and how far they lie apart.
//!
//! All samples are kept in `target/compare/samples.json`; the tables and the plots of
//! `docs/performance.md` are made from there.

mod cases;
mod load;
mod plot;
mod process;
mod report;
mod roundtrip;
mod samples;
mod side;
mod stack;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, ensure};

use self::cases::{Case, Run};
use self::samples::Samples;
use self::side::Tools;
use crate::cargo;

/// Arguments of `compare`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How often everything is played. Growth is played three times at most.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Only the cases whose name contains one of these; the numbers of the others are
    /// kept from earlier runs.
    #[arg(long, value_name = "CASE", num_args = 1..)]
    only: Vec<String>,
    /// One round of short steps: to see that it works, not how fast.
    #[arg(long)]
    quick: bool,
    /// List the cases and play none.
    #[arg(long)]
    list: bool,
    /// Put the tables and plots into docs/performance.md.
    #[arg(long)]
    write: bool,
    /// Play nothing; show, or with --write put down, what earlier runs have told.
    #[arg(long)]
    again: bool,
    /// Python to make the virtual environment with: 3.10 or newer.
    #[arg(long, value_name = "PROGRAM", default_value = "python3")]
    python: String,
    /// Take all programs from this folder, and build nothing.
    #[arg(long, value_name = "FOLDER")]
    programs: Option<PathBuf>,
}

/// Rounds of cases that show growth.
const GROWTH_ROUNDS: u32 = 3;

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let cases = cases::all();
    if args.list {
        for case in &cases {
            println!("{:<14} {}", case.name, case.about);
        }
        return Ok(());
    }
    let is_chosen = |case: &&Case| {
        args.only.is_empty() || args.only.iter().any(|part| case.name.contains(part))
    };
    let chosen: Vec<&Case> = cases.iter().filter(is_chosen).collect();
    ensure!(!chosen.is_empty(), "no such case; --list shows them");

    let folder = cargo::target_folder()?.join("compare");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let file = folder.join("samples.json");
    let mut samples = Samples::read(&file)?;
    if !args.again {
        play(args, &chosen, &mut samples, &file)?;
    }
    for table in report::tables(&chosen, &samples) {
        println!("\n{table}");
    }
    if args.write {
        ensure!(!args.quick, "--quick is too short for the document");
        report::write(&cases, &samples)?;
    }
    Ok(())
}

fn play(args: &Args, cases: &[&Case], samples: &mut Samples, file: &Path) -> anyhow::Result<()> {
    let tools = Tools::new(&args.python, args.programs.as_deref())?;
    for case in cases {
        samples.forget(case.name);
    }
    let rounds = if args.quick { 1 } else { args.rounds };
    let started_at = Instant::now();
    for round in 0..rounds {
        for case in cases {
            if case.is_growth && round >= GROWTH_ROUNDS {
                continue;
            }
            let mut sides = case.sides.to_vec();
            // Nobody is always the first.
            sides.rotate_left(round as usize % case.sides.len());
            for side in sides {
                let at = started_at.elapsed().as_secs();
                println!("{at:>4} s, round {}: {} of {side}", round + 1, case.name);
                let run = Run { tools: &tools, side, is_quick: args.quick };
                let told = (case.play)(&run).with_context(|| format!("{} of {side}", case.name))?;
                samples.add(case.name, side, round, told);
                // What a quick run tells is worth nothing later.
                if !args.quick {
                    samples.write(file)?;
                }
            }
        }
    }
    println!("played in {} s", started_at.elapsed().as_secs());
    Ok(())
}
