//! `cargo xtask bench`: the benchmarks of `benches/`, with optimisation.

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
    let target = cargo::target_folder()?;
    let report = target.join("criterion/report/index.html");
    println!("report: {}", report.display());
    Ok(())
}
