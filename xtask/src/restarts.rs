//! `cargo xtask restarts`: the node, the moderator or a participant is killed, asked
//! to end or made to stand still, before, during and after everything that a group
//! does.
//!
//! Each [`cell`] of the matrix is played by processes ([`mod@play`]), and what they tell
//! has to be what the matrix says, which docs/testing.md shows.

mod cell;
mod matrix;
mod play;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::mpsc::{self, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use self::cell::Cell;
use crate::cargo::{self, Programs};
use crate::stage::Stage;
use crate::stage::cast::{Cast, Ours};
use crate::stage::tools::Tools;

/// Arguments of `restarts`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only the cells whose name contains all of these words.
    cells: Vec<String>,
    /// Print the matrix as docs/testing.md shows it, and play nothing.
    #[arg(long)]
    table: bool,
    /// Take slim-node, slim and slim-holding from this folder, and build nothing.
    #[arg(long, value_name = "FOLDER")]
    programs: Option<PathBuf>,
    /// What all processes log, each into a file of its own.
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log: String,
}

/// Cells that are played at the same time: they mostly wait.
const LANES: usize = 8;

/// What became of a cell.
#[derive(Debug)]
struct Played {
    cell: Cell,
    took: Duration,
    result: anyhow::Result<()>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    if args.table {
        print!("{}", matrix::table());
        return Ok(());
    }
    let programs = match &args.programs {
        Some(folder) => Programs::in_folder(folder)?,
        None => {
            println!("building slim-node, slim and slim-holding");
            let packages = ["slim-node", "slim-cli", "slim-testkit"];
            let args: Vec<&str> = packages.iter().flat_map(|name| ["--package", name]).collect();
            Programs::build(&[&args[..], &["--bins"]].concat())?
        }
    };
    let has_all = |cell: &Cell| args.cells.iter().all(|word| cell.to_string().contains(word));
    check(&programs, &args.log, has_all)
}

/// All cells, for `ci`.
pub(crate) fn check_all(programs: &Programs) -> anyhow::Result<()> {
    check(programs, "info", |_| true)
}

fn check(programs: &Programs, log: &str, is_chosen: impl Fn(&Cell) -> bool) -> anyhow::Result<()> {
    let cells: Vec<Cell> = Cell::all().filter(is_chosen).collect();
    ensure!(!cells.is_empty(), "no such cell; --table shows them");
    let folder = cargo::target_folder()?.join("restarts");
    let _alone = cargo::lock(&folder)?;
    let logs = folder.join("logs");
    if logs.exists() {
        fs::remove_dir_all(&logs).with_context(|| format!("cannot empty {}", logs.display()))?;
    }
    let tools = Tools { programs: programs.clone(), reference: None, log: log.to_owned() };
    let began_at = Instant::now();
    let count = cells.len();
    let again = play_all(&tools, cells, &logs);
    // Deadlines are in real time, and a machine can be too busy for them.
    let failed = again.iter().filter(|&&cell| {
        let played = play_one(&tools, cell, &logs.join("again"));
        println!("again: {}", line(&played));
        played.result.is_err()
    });
    let failed = failed.count();
    let took = began_at.elapsed().as_secs();
    if failed > 0 {
        bail!("{failed} of {count} failed, after {took} s; logs are in {}", logs.display());
    }
    let again = again.len();
    println!("all {count} as docs/testing.md says, {again} at the second try, in {took} s");
    Ok(())
}

/// Plays them all; those that failed.
fn play_all(tools: &Tools, cells: Vec<Cell>, logs: &Path) -> Vec<Cell> {
    let (sender, results) = mpsc::sync_channel(cells.len());
    let left = Mutex::new(cells.into_iter());
    thread::scope(|scope| {
        for _ in 0..LANES {
            let (left, sender) = (&left, sender.clone());
            scope.spawn(move || play_lane(tools, left, logs, &sender));
        }
        drop(sender);
        results
            .iter()
            .inspect(|played| println!("{}", line(played)))
            .filter(|played| played.result.is_err())
            .map(|played| played.cell)
            .collect()
    })
}

fn play_lane(
    tools: &Tools,
    left: &Mutex<impl Iterator<Item = Cell>>,
    logs: &Path,
    results: &SyncSender<Played>,
) {
    loop {
        let next = left.lock().expect("nobody panics while it is locked").next();
        let Some(cell) = next else { return };
        // There is room for all of them.
        results.send(play_one(tools, cell, logs)).ok();
    }
}

fn play_one(tools: &Tools, cell: Cell, logs: &Path) -> Played {
    let began_at = Instant::now();
    let result = play(tools, cell, &logs.join(cell.to_string().replace(' ', "-")));
    Played { cell, took: began_at.elapsed(), result }
}

fn play(tools: &Tools, cell: Cell, folder: &Path) -> anyhow::Result<()> {
    let cast = Cast { node: Ours, moderator: Ours, others: Vec::new(), mls: true };
    let mut stage = Stage::new(tools, &cast, folder)?;
    let outcome = play::play(&mut stage, cell)?;
    stage.finish()?;
    let expected = matrix::expected(cell);
    let is_expected = expected.split(" or ").any(|one| one == outcome);
    ensure!(is_expected, "{outcome:?}, expected {expected:?}");
    Ok(())
}

/// One cell, as it ends.
fn line(played: &Played) -> String {
    let Played { cell, took, result } = played;
    let (cell, took) = (cell.to_string(), took.as_secs_f64());
    match result {
        Ok(()) => format!("{cell:<36} ok {took:6.1} s"),
        Err(error) => format!("{cell:<36} FAILED {took:.1} s\n    {error:#}"),
    }
}
