//! `cargo xtask interop`: conversations in which this project and the reference
//! implementation play together, each as node, as moderator and as participant.
//!
//! A case ([`cases`]) is a function that moves a [`stage`]: a node and members, all
//! of them processes. Ours are `slim-node` and `slim --output json`; the
//! reference's are `interop/peer.py`, which understands and tells the same.

mod cases;
mod cast;
mod group;
mod ports;
mod process;
mod python;
mod record;
mod stage;
mod tools;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use comfy_table::{CellAlignment, Table, presets};

use self::cases::{CASES, Case};
use self::cast::Cast;
use self::stage::Stage;
use self::tools::Tools;
use crate::cargo::{self, Programs};

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
    let _alone = lock(&folder)?;
    let tools = Tools {
        python: python::environment(&args.python, &folder.join("venv"))?,
        programs: match &args.programs {
            Some(folder) => Programs::in_folder(folder)?,
            None => {
                println!("building slim-node and slim");
                Programs::build(&["--package", "slim-node", "--package", "slim-cli"])?
            }
        },
        peer: cargo::root().join("xtask/src/interop/peer.py"),
        log: args.log.clone(),
    };
    let logs = folder.join("logs");
    if logs.exists() {
        fs::remove_dir_all(&logs).with_context(|| format!("cannot empty {}", logs.display()))?;
    }
    let started_at = Instant::now();
    let played = play_all(&tools, &runs, &logs);
    show(&runs, &played);
    let failed = played.iter().filter(|played| played.result.is_err()).count();
    let took = started_at.elapsed().as_secs();
    if failed > 0 {
        bail!("{failed} of {} failed, after {took} s; logs are in {}", runs.len(), logs.display());
    }
    println!("all {} with {}, in {took} s", runs.len(), python::wheel());
    Ok(())
}

/// Held as long as the file is open.
fn lock(folder: &Path) -> anyhow::Result<File> {
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let path = folder.join("lock");
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    file.try_lock().with_context(|| format!("another run uses {}", folder.display()))?;
    Ok(file)
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

/// Plays the slow ones beside the others: they mostly wait. In the order of `runs`.
fn play_all(tools: &Tools, runs: &[Run], logs: &Path) -> Vec<Played> {
    let (sender, results) = mpsc::sync_channel(runs.len());
    let mut played: Vec<Played> = thread::scope(|scope| {
        for lane in [false, true] {
            let sender = sender.clone();
            scope.spawn(move || play_lane(tools, runs, lane, logs, &sender));
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

/// Plays those that are slow, or those that are not, one after another.
fn play_lane(
    tools: &Tools,
    runs: &[Run],
    is_slow: bool,
    logs: &Path,
    results: &SyncSender<Played>,
) {
    for (number, run) in runs.iter().enumerate() {
        if run.case.is_slow != is_slow {
            continue;
        }
        let started_at = Instant::now();
        let folder = logs.join(format!("{:02}-{}", number + 1, run.case.name.replace(' ', "-")));
        let result = play(tools, run, &folder);
        let took = started_at.elapsed();
        // There is room for all results.
        results.send(Played { number, took, result }).ok();
    }
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
