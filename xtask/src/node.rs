//! A node as a child, and what all children have in common.

use std::env;
use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use crate::child::{Child, Output};
use crate::launch;

/// Until the node listens, and until it has ended.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Lines of the node's stdout that may wait to be read. It prints one; further
/// ones would wait in the pipe.
const OUTPUTS: usize = 16;

/// A running node.
#[derive(Debug)]
pub(crate) struct Node {
    child: Child,
    outputs: Receiver<Output>,
    address: String,
}

impl Node {
    /// Starts it, and waits until it says where it listens. What it logs goes to
    /// the file, if there is one.
    ///
    /// # Errors
    /// If it does not say so; with the end of its stderr.
    pub(crate) fn start(command: &mut Command, log: Option<File>) -> anyhow::Result<Self> {
        let (sender, outputs) = mpsc::sync_channel(OUTPUTS);
        let sink = move |output| {
            // Nobody listens any more once the node is dropped.
            sender.send(output).ok();
        };
        let mut child = match log {
            Some(log) => Child::start_logged(command, log, sink)?,
            None => Child::start(command, sink)?,
        };
        match outputs.recv_timeout(TIMEOUT) {
            Ok(Output::Line(line)) if line.starts_with("listening on ") => {
                let address = line["listening on ".len()..].to_owned();
                Ok(Self { child, outputs, address })
            }
            other => {
                let (status, stderr) = child.end()?;
                bail!("the node does not listen: {other:?}, {status}\n{}", stderr.join("\n"))
            }
        }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// The number of its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Gives it a line, for those that read some, and waits for the answer.
    ///
    /// # Errors
    /// If there is none in time.
    pub(crate) fn ask(&mut self, line: &str) -> anyhow::Result<String> {
        self.child.write_line(line)?;
        self.line().with_context(|| format!("no answer to {line:?}"))
    }

    /// Waits for the next line that it prints.
    ///
    /// # Errors
    /// If there is none in time.
    pub(crate) fn line(&mut self) -> anyhow::Result<String> {
        match self.outputs.recv_timeout(TIMEOUT) {
            Ok(Output::Line(line)) => Ok(line),
            other => bail!("no line: {other:?}"),
        }
    }

    /// Its process, to be told what a node needs no help with.
    pub(crate) fn child(&self) -> &Child {
        &self.child
    }

    /// Asks it to end and waits until it has.
    ///
    /// # Errors
    /// If it does not, or with another status than 0; with the end of its stderr.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        self.child.terminate();
        let ended = loop {
            match self.outputs.recv_timeout(TIMEOUT) {
                Ok(Output::Line(_)) => {}
                Ok(Output::Ended) => break true,
                Err(_) => break false,
            }
        };
        let (status, stderr) = self.child.end().context("the node")?;
        let stderr = stderr.join("\n");
        ensure!(ended, "the node still runs {TIMEOUT:?} after SIGTERM\n{stderr}");
        ensure!(status.success(), "the node ended with {status}\n{stderr}");
        Ok(())
    }
}

/// A program that ends with us, and that our own environment does not influence.
pub(crate) fn program(path: &Path) -> Command {
    let mut command = launch::command(path);
    for (name, _) in env::vars_os() {
        if name == "RUST_LOG" || name.to_string_lossy().starts_with("SLIM_") {
            command.env_remove(name);
        }
    }
    command
}
