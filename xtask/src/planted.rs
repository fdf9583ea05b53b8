//! `cargo xtask planted`: what the simulator is worth. Faults are planted in a copy
//! of the workspace, one at a time, and seeds are played until one shows it.
//!
//! A fault is a patch in `planted/`, whose first line says what it does. One that
//! does not apply any more fails a test here, so that none is forgotten when the
//! code around it changes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use crate::cargo;
use crate::child::{Child, Output};

/// Arguments of `planted`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which faults to plant, by name; all if not given.
    faults: Vec<String>,
}

/// Seeds within which a fault has to show, from 1 on.
const SEEDS: u64 = 200;

/// How long a seed may take; sound ones take less than a second, and engines that do
/// not understand each other have more to say.
const SEED_LIMIT: Duration = Duration::from_secs(120);

/// What cargo needs to build the simulator.
const COPIED: [&str; 5] = ["Cargo.toml", "Cargo.lock", "crates", "benches", "xtask"];

/// A patch, and what it does.
struct Fault {
    name: String,
    path: PathBuf,
    what: String,
}

/// How a seed ended.
#[derive(PartialEq, Eq)]
enum Played {
    Holds,
    Fails,
    Hangs,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let all = faults()?;
    if let Some(unknown) = args.faults.iter().find(|name| all.iter().all(|it| it.name != **name)) {
        let names: Vec<_> = all.iter().map(|fault| &*fault.name).collect();
        bail!("no fault {unknown}: expected {}", names.join(", "));
    }
    let is_chosen = |fault: &Fault| args.faults.is_empty() || args.faults.contains(&fault.name);
    plant(&all.into_iter().filter(is_chosen).collect::<Vec<_>>())
}

/// Plants every fault.
///
/// # Errors
/// If one of them is not caught.
pub(crate) fn check() -> anyhow::Result<()> {
    plant(&faults()?)
}

fn plant(faults: &[Fault]) -> anyhow::Result<()> {
    let target = cargo::target_folder()?;
    let folder = target.join("planted");
    let _ours = cargo::lock(&folder)?;
    let copy = folder.join("workspace");
    fresh_copy(&copy)?;
    let (sound, broken) = (folder.join("sound"), folder.join("broken"));
    simulator(cargo::root(), &target, &sound)?;
    let mut summary = Vec::new();
    for Fault { name, path, what } in faults {
        println!("--- {name}: {what}");
        apply(&copy, path, &[])?;
        simulator(&copy, &target, &broken)?;
        apply(&copy, path, &["--reverse"])?;
        let mut seeds = 1..=SEEDS;
        let (seed, how) = loop {
            let Some(seed) = seeds.next() else {
                bail!("{name} is not caught within {SEEDS} seeds");
            };
            match play(&broken, seed)? {
                Played::Holds => {}
                Played::Fails => break (seed, "caught"),
                Played::Hangs => break (seed, "hangs, so caught,"),
            }
        };
        ensure!(play(&sound, seed)? == Played::Holds, "seed {seed} fails without {name} too");
        summary.push(format!("{name:<20} {how} at seed {seed}"));
    }
    println!("\n{}", summary.join("\n"));
    Ok(())
}

/// Builds the simulator of a workspace, and puts it where the next build does not
/// replace it.
fn simulator(workspace: &Path, target: &Path, kept: &Path) -> anyhow::Result<()> {
    let manifest = workspace.join("Cargo.toml");
    let (manifest, target) = (manifest.to_string_lossy(), target.to_string_lossy());
    let args = ["--manifest-path", &manifest, "--target-dir", &target, "--quiet"];
    let program = ["--package", "slim-testkit", "--bin", "slim-sim"];
    let [built] = cargo::build(&[&args[..], &program[..]].concat(), ["slim-sim"])?;
    fs::copy(&built, kept).map(drop).with_context(|| format!("copying {}", built.display()))
}

fn play(simulator: &Path, seed: u64) -> anyhow::Result<Played> {
    let (sink, outputs) = mpsc::channel();
    let mut command = Command::new(simulator);
    command.args([seed.to_string(), "1".to_owned()]);
    let mut child = Child::start(&mut command, move |output| drop(sink.send(output)))?;
    loop {
        match outputs.recv_timeout(SEED_LIMIT) {
            Ok(Output::Line(_)) => {}
            Ok(Output::Ended) => break,
            Err(_) => return Ok(Played::Hangs),
        }
    }
    let (status, _) = child.end()?;
    Ok(if status.success() { Played::Holds } else { Played::Fails })
}

/// Applies a patch in a folder. Outside of any repository as far as git is concerned,
/// or it would pass over files that the repository ignores.
fn apply(folder: &Path, patch: &Path, options: &[&str]) -> anyhow::Result<()> {
    let mut git = Command::new("git");
    git.args(["apply"]).args(options).arg(patch).current_dir(folder);
    git.env("GIT_CEILING_DIRECTORIES", folder.parent().unwrap_or(folder));
    cargo::run(&mut git)
}

fn fresh_copy(to: &Path) -> anyhow::Result<()> {
    if to.exists() {
        fs::remove_dir_all(to).with_context(|| format!("emptying {}", to.display()))?;
    }
    fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    COPIED.iter().try_for_each(|name| copy(&cargo::root().join(name), &to.join(name)))
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    if !from.is_dir() {
        return fs::copy(from, to)
            .map(drop)
            .with_context(|| format!("copying {} to {}", from.display(), to.display()));
    }
    fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let entry = entry.context("a folder's entry")?;
        copy(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}

/// All of `planted/`, by name.
fn faults() -> anyhow::Result<Vec<Fault>> {
    let folder = cargo::root().join("xtask/src/planted");
    let mut faults = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry.context("a folder's entry")?.path();
        let text =
            fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let what = text.lines().next().unwrap_or_default().to_owned();
        faults.push(Fault { name, path, what });
    }
    faults.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(faults)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_can_be_planted_and_says_what_it_does() {
        let faults = faults().unwrap();
        assert!(faults.len() >= 5);
        let testing = fs::read_to_string(cargo::root().join("docs/testing.md")).unwrap();
        for fault in faults {
            assert!(testing.contains(&format!("| `{}` |", fault.name)), "{}", fault.name);
            assert!(fault.what.ends_with('.'), "{}: {}", fault.name, fault.what);
            apply(cargo::root(), &fault.path, &["--check"]).expect(&fault.name);
        }
    }
}
