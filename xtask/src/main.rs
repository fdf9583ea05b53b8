//! Automation of the project: `cargo xtask <command>`.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program that people read")]

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod cargo;
mod child;
mod ci;
mod codegen;
mod compare;
mod containers;
mod demo;
mod difference;
mod fuzz;
mod image;
mod interop;
mod launch;
mod licences;
mod node;
mod planted;
mod restarts;
mod sim;
mod soak;
mod stage;

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
    /// Plant faults in a copy of the engine, and see the simulator catch each.
    Planted(planted::Args),
    /// Kill, stop and freeze everybody before, during and after everything.
    Restarts(restarts::Args),
    /// Have members come and go for as long as one likes, and watch what they use.
    Soak(soak::Args),
    /// Feed random input to everything that reads what others say.
    Fuzz(fuzz::Args),
    /// Run the benchmarks and say where the report is.
    Bench(bench::Args),
    /// Measure the node against the reference's, in turn, and say how they compare.
    Compare(compare::Args),
    /// Build the container image `slim` from the release programs.
    Image,
    /// Build the image, and kill, pause and cut off containers of it.
    Containers(containers::Args),
    /// Generate the Rust types of proto/ again, and the manual and schemas of the node's files.
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
        Command::Planted(args) => planted::run(&args),
        Command::Restarts(args) => restarts::run(&args),
        Command::Soak(args) => soak::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Compare(args) => compare::run(&args),
        Command::Image => image::run(),
        Command::Containers(args) => containers::run(&args),
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
