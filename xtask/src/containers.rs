//! `cargo xtask containers`: the tests of `crates/slim-containers`, with the image that
//! users get and the engine of this machine.

mod bridge;

use std::env;

use anyhow::{Context, bail};

use self::bridge::Bridge;
use crate::{cargo, image};

/// Where an engine is unless `DOCKER_HOST` says otherwise.
const DEFAULT_ENGINE: &str = "unix:///var/run/docker.sock";

/// Tests at once. Most of the time they wait for health checks and for links that are
/// gone; more of them would wait for the processor.
const THREADS: &str = "4";

/// Arguments of `containers`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only the tests whose names contain one of these.
    tests: Vec<String>,
    /// Without an engine say so, and end with status 0.
    #[arg(long)]
    or_skip: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let Some(version) = image::engine() else {
        if args.or_skip {
            println!("{}", skipped());
            return Ok(());
        }
        bail!(image::NO_ENGINE);
    };
    image::build()?;
    let engine = env::var("DOCKER_HOST").unwrap_or_else(|_| DEFAULT_ENGINE.to_owned());
    let mut test = cargo::command(&["test", "--locked", "--package", "slim-containers"]);
    test.args(["--features", "engine", "--test", "containers", "--", "--test-threads", THREADS]);
    test.args(&args.tests);
    // Who tidies up outlives us, and the bridge with us.
    test.env("SLIM_CONTAINERS_ENGINE", &engine);
    let bridge = match engine.strip_prefix("unix://") {
        Some(socket) => Some(Bridge::open(socket.into(), &version).context("a way to the engine")?),
        None => None,
    };
    if let Some(bridge) = &bridge {
        test.env("DOCKER_HOST", bridge.address());
    }
    cargo::run(&mut test)
}

/// What nobody shall overlook at the end of a long log.
fn skipped() -> String {
    let lines = [
        "SKIPPED: THE TESTS IN CONTAINERS DID NOT RUN",
        image::NO_ENGINE,
        "not tested: the image, its health check, killed and paused",
        "containers, cut networks, the rolling restart of a mesh",
        "to run them: cargo xtask containers",
    ];
    let width = lines.iter().map(|line| line.len()).max().unwrap_or(0);
    let edge = "#".repeat(width + 6);
    let lines = lines.map(|line| format!("## {line:width$} ##"));
    format!("\n{edge}\n{}\n{edge}", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_overlooks_that_it_was_skipped() {
        let told = skipped();
        assert!(told.contains("SKIPPED"));
        let lines: Vec<&str> = told.trim().lines().collect();
        assert!(lines.iter().all(|line| line.len() == lines[0].len()), "{told}");
    }
}
