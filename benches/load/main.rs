//! Load for a node, from a process of its own, so that what the node's process costs
//! is the node's.
//!
//! Prints `ready` when it is connected, then does one step for each number that it
//! reads on stdin and prints a line of JSON about it. What a number means depends on
//! the load. Ends with its stdin. Whoever reads the node's CPU time before a number
//! is written and after the line has come knows what the step has cost.
#![expect(clippy::print_stdout, reason = "a program that another one reads")]

mod connections;
mod fanout;
mod names;

use anyhow::Context;
use clap::{Parser, Subcommand};
use serde_json::Value;
use slim_link::{DialConfig, Target};
use tokio::io::{AsyncBufReadExt, BufReader};

#[derive(Debug, Parser)]
struct Args {
    /// Where the node listens: host:port.
    #[arg(long)]
    node: Target,
    /// For a node that knows no header MAC. Otherwise all links have one.
    #[arg(long)]
    without_mac: bool,
    #[command(subcommand)]
    load: Load,
}

#[derive(Debug, Subcommand)]
enum Load {
    /// One publisher and the subscribers of a channel; a number is seconds of
    /// publishing.
    Fanout(fanout::Args),
    /// Links that subscribe and end, so many for a number.
    Connect(connections::Args),
    /// Links that subscribe and stay, so many more for a number.
    Idle,
    /// Names that are subscribed to, so many more for a number.
    Names,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let place = Place { node: args.node, has_mac: !args.without_mac };
    match args.load {
        Load::Fanout(args) => {
            let mut fanout = fanout::Fanout::new(&place, &args).await?;
            steps(async |seconds| fanout.publish(seconds).await).await
        }
        Load::Connect(args) => {
            steps(async |count| connections::come_and_go(&place, &args, count as usize).await).await
        }
        Load::Idle => {
            let mut idle = Vec::new();
            steps(async |count| connections::stay(&place, &mut idle, count as usize).await).await
        }
        Load::Names => {
            let mut names = names::Names::new(&place).await?;
            steps(async |count| names.subscribe(count as u64).await).await
        }
    }
}

/// Where to connect to, and how.
#[derive(Clone, Debug)]
struct Place {
    node: Target,
    has_mac: bool,
}

impl Place {
    fn config(&self) -> DialConfig {
        DialConfig { require_header_mac: self.has_mac, ..DialConfig::default() }
    }
}

/// Does a step for each line of stdin.
async fn steps(mut step: impl AsyncFnMut(f64) -> anyhow::Result<Value>) -> anyhow::Result<()> {
    println!("ready");
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await.context("reading stdin")? {
        let amount = line.trim().parse().with_context(|| format!("{line:?} is no number"))?;
        println!("{}", step(amount).await?);
    }
    Ok(())
}
