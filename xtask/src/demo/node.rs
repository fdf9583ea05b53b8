//! The node of the demo, and how members reach it.

use std::env;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use super::child::{Child, Output};
use crate::cargo::Programs;
use crate::launch;

/// Until the node listens, and until it has ended.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Lines of the node's stdout that may wait to be read. It prints one; further
/// ones would wait in the pipe.
const OUTPUTS: usize = 16;

/// Only ever used on the loopback interface, for as long as the demo runs.
const SECRET: &str = "the-secret-of-a-conversation-that-everybody-may-hear";

/// A running node.
#[derive(Debug)]
pub(super) struct Node {
    child: Child,
    outputs: Receiver<Output>,
    address: String,
}

impl Node {
    /// Starts it on a free port.
    ///
    /// # Errors
    /// If it does not say where it listens; with the end of its stderr.
    pub(super) fn start(programs: &Programs) -> anyhow::Result<Self> {
        let (sender, outputs) = mpsc::sync_channel(OUTPUTS);
        let mut command = program(&programs.node);
        let mut child = Child::start(command.args(["--listen", "127.0.0.1:0"]), move |output| {
            // Nobody listens any more once the node is dropped.
            sender.send(output).ok();
        })?;
        match outputs.recv_timeout(TIMEOUT) {
            Ok(Output::Line(line)) if line.starts_with("listening on ") => {
                let address = line["listening on ".len()..].to_owned();
                Ok(Self { child, outputs, address })
            }
            other => {
                let (status, stderr) = child.end()?;
                bail!("slim-node does not listen: {other:?}, {status}\n{}", stderr.join("\n"))
            }
        }
    }

    /// Where it listens.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// The command of a member of a group.
    pub(super) fn member(&self, programs: &Programs, local: &str) -> Command {
        let mut command = program(&programs.slim);
        command
            .args(["group", "--local", local, "--slim", &self.address])
            .env("SLIM_SHARED_SECRET", SECRET);
        command
    }

    /// Asks it to end and waits until it has.
    ///
    /// # Errors
    /// If it does not, or with another status than 0; with the end of its stderr.
    pub(super) fn stop(mut self) -> anyhow::Result<()> {
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
        ensure!(ended, "slim-node still runs {TIMEOUT:?} after SIGTERM\n{stderr}");
        ensure!(status.success(), "slim-node ended with {status}\n{stderr}");
        Ok(())
    }
}

/// A program that ends with us, and that our own environment does not influence.
fn program(path: &Path) -> Command {
    let mut command = launch::command(path);
    for (name, _) in env::vars_os() {
        if name == "RUST_LOG" || name.to_string_lossy().starts_with("SLIM_") {
            command.env_remove(name);
        }
    }
    command
}
