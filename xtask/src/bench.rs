//! `cargo xtask bench`: the benchmarks of `benches/`, with optimisation.

use anyhow::Context;
use serde_json::Value;

use crate::cargo;

/// Arguments of `bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Handed to criterion: a filter, `--save-baseline NAME`, `--baseline NAME`, `--test`…
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    cargo::run(
        cargo::command(&["bench", "--locked", "--package", "slim-bench", "--"]).args(&args.args),
    )?;
    let metadata = cargo::output(&mut cargo::command(&[
        "metadata",
        "--locked",
        "--no-deps",
        "--format-version=1",
    ]))?;
    let metadata: Value = serde_json::from_str(&metadata).context("cargo's metadata")?;
    let target = metadata["target_directory"].as_str().context("no target directory")?;
    println!("report: {target}/criterion/report/index.html");
    Ok(())
}
