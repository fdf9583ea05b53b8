//! `cargo xtask interop`: conversations in which this project and the reference
//! implementation play together, each as node, as moderator and as participant.
//!
//! A case ([`cases`]) is a function that moves a [`Stage`]: a node and members, all
//! of them processes. Ours are `slim-node` and `slim --output json`; the
//! reference's are `interop/peer.py`, which understands and tells the same.

mod cases;
pub(crate) mod python;

use std::fs;
use std::iter;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::mpsc::{self, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use comfy_table::{CellAlignment, Table, presets};

use self::cases::{CASES, Case};
use crate::cargo::{self, Programs};
use crate::stage::Stage;
use crate::stage::cast::Cast;
use crate::stage::tools::{Reference, Tools};

/// Arguments of `interop`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only the cases whose name contains one of these.
    cases: Vec<String>,
    /// List the cases and play none.
    #[arg(long)]
    list: bool,
    /// Leave out the cases that take half a minute and more.
    #[arg(long)]
    quick: bool,
    /// Python to make the virtual environment with: 3.10 or newer.
    #[arg(long, value_name = "PROGRAM", default_value = "python3")]
    python: String,
    /// Take slim-node and slim from this folder, and build nothing.
    #[arg(long, value_name = "FOLDER")]
    programs: Option<PathBuf>,
    /// What all processes log, each into a file of its own.
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log: String,
}

/// One case with one cast.
#[derive(Clone, Debug)]
struct Run {
    case: Case,
    cast: Cast,
}

/// What became of it.
#[derive(Debug)]
struct Played {
    /// Its place among the runs.
    number: usize,
    took: Duration,
    result: anyhow::Result<()>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    if args.list {
        for case in CASES {
            let slow = if case.is_slow { " (slow)" } else { "" };
            println!("{:<12} {}{slow}", case.name, case.about);
        }
        return Ok(());
    }
    let runs = chosen(args);
    ensure!(!runs.is_empty(), "no such case; --list shows them");
    let folder = cargo::target_folder()?.join("interop");
    let _alone = cargo::lock(&folder)?;
    let tools = Tools {
        reference: Some(Reference {
            python: python::environment(&args.python, &folder.join("venv"))?,
            peer: cargo::root().join("xtask/src/interop/peer.py"),
        }),
        programs: match &args.programs {
            Some(folder) => Programs::in_folder(folder)?,
            None => {
                println!("building slim-node, slim and helpers");
                let packages = ["slim-node", "slim-cli", "slim-testkit"];
                Programs::build(&packages.map(|package| ["--package", package]).concat())?
            }
        },
        log: args.log.clone(),
    };
    let logs = folder.join("logs");
    if logs.exists() {
        fs::remove_dir_all(&logs).with_context(|| format!("cannot empty {}", logs.display()))?;
    }
    let started_at = Instant::now();
    let mut played = play_all(&tools, &runs, &logs);
    let again = play_again(&tools, &runs, &mut played, &logs);
    show(&runs, &played);
    let failed = played.iter().filter(|played| played.result.is_err()).count();
    let took = started_at.elapsed().as_secs();
    if failed > 0 {
        bail!("{failed} of {} failed, after {took} s; logs are in {}", runs.len(), logs.display());
    }
    println!("all {} with {}, {again} at the second try, in {took} s", runs.len(), python::wheel());
    Ok(())
}

/// Plays again, one after another, what has failed: deadlines are in real time, and a
/// machine can be too busy for them. How many those are.
fn play_again(tools: &Tools, runs: &[Run], played: &mut [Played], logs: &Path) -> usize {
    let failed = played.iter_mut().filter(|played| played.result.is_err());
    let again = failed.map(|first| {
        *first = play_one(tools, first.number, &runs[first.number], &logs.join("again"));
        println!("again: {}", line(&runs[first.number], first));
    });
    again.count()
}

fn chosen(args: &Args) -> Vec<Run> {
    let is_chosen = |case: &&Case| {
        (args.cases.is_empty() || args.cases.iter().any(|part| case.name.contains(part)))
            && !(args.quick && case.is_slow)
    };
    let with_casts =
        |case: &Case| (case.casts)().into_iter().map(|cast| Run { case: *case, cast }).collect();
    CASES.iter().filter(is_chosen).flat_map(|case| -> Vec<Run> { with_casts(case) }).collect()
}

/// Of those that mostly wait, so many are played at the same time.
const SLOW_LANES: usize = 3;

/// Plays the slow ones beside the others: they mostly wait. In the order of `runs`.
fn play_all(tools: &Tools, runs: &[Run], logs: &Path) -> Vec<Played> {
    let (sender, results) = mpsc::sync_channel(runs.len());
    let (slow, quick): (Vec<_>, Vec<_>) =
        runs.iter().enumerate().partition(|(_, run)| run.case.is_slow);
    let (slow, quick) = (Mutex::new(slow.into_iter()), Mutex::new(quick.into_iter()));
    let mut played: Vec<Played> = thread::scope(|scope| {
        let (first, others) = ([&quick, &slow], [&slow, &quick]);
        for queues in iter::once(first).chain(iter::repeat_n(others, SLOW_LANES)) {
            let sender = sender.clone();
            scope.spawn(move || play_lane(tools, queues, logs, &sender));
        }
        drop(sender);
        results
            .iter()
            .inspect(|played| println!("{}", line(&runs[played.number], played)))
            .collect()
    });
    played.sort_by_key(|played| played.number);
    played
}

/// Plays one after another what nobody else has taken, of the first queue first.
fn play_lane<'a>(
    tools: &Tools,
    queues: [&Mutex<impl Iterator<Item = (usize, &'a Run)>>; 2],
    logs: &Path,
    results: &SyncSender<Played>,
) {
    let next = || {
        let mut queues = queues.into_iter();
        queues.find_map(|queue| queue.lock().expect("nobody panics while taking one").next())
    };
    while let Some((number, run)) = next() {
        // There is room for all results.
        results.send(play_one(tools, number, run, logs)).ok();
    }
}

fn play_one(tools: &Tools, number: usize, run: &Run, logs: &Path) -> Played {
    let started_at = Instant::now();
    let folder = logs.join(format!("{:03}-{}", number + 1, run.case.name.replace(' ', "-")));
    let result = play(tools, run, &folder);
    Played { number, took: started_at.elapsed(), result }
}

fn play(tools: &Tools, run: &Run, folder: &Path) -> anyhow::Result<()> {
    let mut stage = Stage::new(tools, &run.cast, folder)?;
    (run.case.play)(&mut stage)?;
    stage.finish()
}

/// One run, as it ends.
fn line(run: &Run, played: &Played) -> String {
    let Run { case, cast } = run;
    let mls = if cast.mls { "mls" } else { "plain" };
    let head = format!(
        "{:>3} {:<12} node {:<6} moderator {:<6} others {:<16} {mls:<5}",
        played.number + 1,
        case.name,
        cast.node.to_string(),
        cast.moderator.to_string(),
        cast.others(),
    );
    let took = played.took.as_secs_f64();
    match &played.result {
        Ok(()) => format!("{head} ok {took:6.1} s"),
        Err(error) => format!("{head} FAILED {took:.1} s\n    {error:#}"),
    }
}

/// The matrix.
fn show(runs: &[Run], played: &[Played]) {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED);
    table.set_header(["case", "node", "moderator, caller", "others", "MLS", "result", "seconds"]);
    for (Run { case, cast }, played) in runs.iter().zip(played) {
        table.add_row([
            case.name.to_owned(),
            cast.node.to_string(),
            cast.moderator.to_string(),
            cast.others(),
            if cast.mls { "on" } else { "off" }.to_owned(),
            if played.result.is_ok() { "ok" } else { "FAILED" }.to_owned(),
            format!("{:.1}", played.took.as_secs_f64()),
        ]);
    }
    if let Some(seconds) = table.column_mut(6) {
        seconds.set_cell_alignment(CellAlignment::Right);
    }
    println!("{table}");
}
