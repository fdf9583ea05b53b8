//! `cargo xtask fuzz`: inputs that nobody thought of, for everything that reads what
//! a peer, a user or a file says. The targets are in `fuzz/`.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use serde::Deserialize;

use crate::cargo;

/// Arguments of `fuzz`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to run; everything if not given.
    targets: Vec<String>,
    /// Seconds that each target runs.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Runs one target with this file and nothing else: what an earlier run has kept.
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
}

/// Seconds that one input may take before it counts as hanging. The longest of
/// `engine` take one or two on an idle machine.
const INPUT_LIMIT: u32 = 60;

/// Memory that a target may take, in MiB.
const MEMORY_LIMIT: u32 = 2048;

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let all = targets(&fs::read_to_string(folder().join("Cargo.toml"))?)?;
    if let Some(unknown) = args.targets.iter().find(|target| !all.contains(target)) {
        bail!("no target {unknown}: expected {}", all.join(", "));
    }
    let targets = if args.targets.is_empty() { &all } else { &args.targets };
    match (&args.input, &targets[..]) {
        (None, targets) => run_for(targets, args.seconds),
        (Some(input), [target]) => replay(target, input),
        (Some(_), _) => bail!("--input needs the one target that it is for"),
    }
}

/// Runs all targets for so many seconds each.
///
/// # Errors
/// If one of them finds something.
pub(crate) fn check(seconds: u32) -> anyhow::Result<()> {
    run(&Args { targets: Vec::new(), seconds, input: None })
}

fn run_for(targets: &[String], seconds: u32) -> anyhow::Result<()> {
    install()?;
    let mut build = fuzz("build")?;
    // Of one, or of all: the tool knows nothing between.
    build.args(if let [target] = targets { Some(target) } else { None });
    cargo::run(&mut build)?;

    let mut summary = Vec::new();
    let mut findings = Vec::new();
    for target in targets {
        println!("\n--- {target}");
        let before = kept(target);
        let result = match run_target(target, seconds)? {
            Some(last) => last,
            None => {
                let inputs = kept(target);
                let new = inputs.difference(&before).map(|input| input.display().to_string());
                let new = new.collect::<Vec<_>>().join(" ");
                findings.push(format!("cargo xtask fuzz {target} --input {new}"));
                "FAILED".to_owned()
            }
        };
        summary.push(format!("{target:<10} {result}"));
    }
    println!("\n{}", summary.join("\n"));
    if !findings.is_empty() {
        bail!("something was found; again with:\n{}", findings.join("\n"));
    }
    Ok(())
}

/// Gives what the last line of progress says, or nothing if something was found.
fn run_target(target: &str, seconds: u32) -> anyhow::Result<Option<String>> {
    let corpus = folder().join("corpus").join(target);
    fs::create_dir_all(&corpus).with_context(|| format!("cannot make {}", corpus.display()))?;
    let mut run = fuzz("run")?;
    run.arg(target).arg(corpus);
    // What is new goes into the first folder, the second is only read.
    run.args(Some(folder().join("seeds").join(target)).filter(|seeds| seeds.is_dir()));
    run.arg("--").args([
        format!("-max_total_time={seconds}"),
        format!("-timeout={INPUT_LIMIT}"),
        format!("-rss_limit_mb={MEMORY_LIMIT}"),
        "-print_funcs=0".to_owned(),
    ]);
    let mut child = run
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", cargo::shown(&run)))?;
    let mut last = String::new();
    for line in BufReader::new(child.stderr.take().context("no pipe")?).split(b'\n') {
        // An input that is shown need not be text.
        let line = String::from_utf8_lossy(&line.context("reading the output")?).into_owned();
        match progress(&line) {
            Some(progress) => last = progress,
            None if is_dictionary(&line) => {}
            None => eprintln!("{line}"),
        }
    }
    let status = child.wait().context("waiting for the target")?;
    Ok(status.success().then_some(last))
}

/// What a line such as `#1274 NEW cov: 9919 …` says, if it is one.
fn progress(line: &str) -> Option<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let count: u64 = words.first()?.strip_prefix('#')?.parse().ok()?;
    let cov = words.iter().position(|word| *word == "cov:").and_then(|at| words.get(at + 1));
    Some(format!("{count} inputs, coverage {}", cov.unwrap_or(&"unknown")))
}

/// Whether a line is of the list of words that were of use, which is long.
fn is_dictionary(line: &str) -> bool {
    line.starts_with("######") || line.contains("\" # Uses: ")
}

fn replay(target: &str, input: &Path) -> anyhow::Result<()> {
    // The tool runs elsewhere.
    let input = input.canonicalize().with_context(|| format!("no file {}", input.display()))?;
    install()?;
    cargo::run(fuzz("run")?.arg(target).arg(input))
}

/// Files of inputs that a target found fault with.
fn kept(target: &str) -> BTreeSet<PathBuf> {
    let files = fs::read_dir(folder().join("artifacts").join(target));
    let paths = files.into_iter().flatten().filter_map(|file| Some(file.ok()?.path()));
    paths.map(|path| path.strip_prefix(cargo::root()).unwrap_or(&path).to_owned()).collect()
}

/// The tool, for our folder. No sanitizer: there is no unsafe code here to be
/// watched, and it would need another compiler.
fn fuzz(subcommand: &str) -> anyhow::Result<Command> {
    let mut command = cargo::command(&["fuzz", subcommand]);
    command.arg("--fuzz-dir").arg(folder());
    command.arg("--target-dir").arg(cargo::target_folder()?.join("fuzz"));
    command.args(["--release", "--sanitizer", "none", "--codegen-units", "16"]);
    Ok(command)
}

fn install() -> anyhow::Result<()> {
    let is_there = cargo::command(&["fuzz", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if is_there {
        return Ok(());
    }
    println!("installing cargo-fuzz");
    cargo::run(&mut cargo::command(&["install", "--locked", "cargo-fuzz"]))
}

fn folder() -> PathBuf {
    cargo::root().join("fuzz")
}

/// The names of all targets.
fn targets(manifest: &str) -> anyhow::Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Manifest {
        bin: Vec<Bin>,
    }
    #[derive(Deserialize)]
    struct Bin {
        name: String,
    }
    let manifest: Manifest = toml::from_str(manifest).context("fuzz/Cargo.toml")?;
    Ok(manifest.bin.into_iter().map(|bin| bin.name).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_progress_are_told_from_others() {
        let line = "#1274\tREDUCE cov: 9919 ft: 20333 corp: 88/855b lim: 21 exec/s: 31 rss: 40Mb";
        assert_eq!(progress(line).as_deref(), Some("1274 inputs, coverage 9919"));
        assert_eq!(progress("#2\tINITED exec/s: 0").as_deref(), Some("2 inputs, coverage unknown"));
        for line in ["", "###### End of recommended dictionary. ######", "thread panicked at x"] {
            assert_eq!(progress(line), None, "{line}");
        }
    }

    #[test]
    fn every_target_has_its_file_and_its_seeds() {
        let names = targets(&fs::read_to_string(folder().join("Cargo.toml")).unwrap()).unwrap();
        assert!(names.len() > 5);
        for name in names {
            let seeds = folder().join("seeds").join(&name);
            assert!(fs::read_dir(seeds).is_ok_and(|mut files| files.next().is_some()), "{name}");
        }
    }
}
