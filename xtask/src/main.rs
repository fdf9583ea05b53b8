//! Automation of the project: `cargo xtask <command>`.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program that people read")]

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod cargo;
mod child;
mod ci;
mod codegen;
mod demo;
mod difference;
mod image;
mod interop;
mod launch;
mod licences;
mod node;
mod sim;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "Automation of the project")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// A node, a moderator and its group on this machine, checked message by message.
    Demo(demo::Args),
    /// Everything that has to pass before a change is merged.
    Ci,
    /// Check the licences of all dependencies against deny.toml.
    Licences,
    /// Play conversations together with the reference implementation.
    Interop(interop::Args),
    /// Play seeds of the simulator: many engines under faults and virtual time.
    Sim(sim::Args),
    /// Run the benchmarks and say where the report is.
    Bench(bench::Args),
    /// Build the container image `slim` from the release programs.
    Image,
    /// Generate the Rust types of proto/ again.
    Codegen(codegen::Args),
    #[command(hide = true)]
    Launch(launch::Args),
}

fn main() -> ExitCode {
    let result = match Args::parse().command {
        Command::Demo(args) => demo::run(&args),
        Command::Ci => ci::run(),
        Command::Licences => licences::run(),
        Command::Interop(args) => interop::run(&args),
        Command::Sim(args) => sim::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Image => image::run(),
        Command::Codegen(args) => codegen::run(&args),
        Command::Launch(args) => launch::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
