//! A program that makes work for a node, step by step, and what each step costs the
//! node.

use std::process::Command;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;

use super::process::Process;
use crate::child::{Child, Output};

/// How long a program may take until it is ready, and for a step.
const TIMEOUT: Duration = Duration::from_secs(180);

/// Lines that may wait to be read: one for each step.
const OUTPUTS: usize = 16;

/// Prints `ready`, then a line of JSON for each number that it is given. Ends when
/// dropped.
#[derive(Debug)]
pub(super) struct Load {
    child: Child,
    outputs: Receiver<Output>,
    node: Process,
}

/// What a step has cost and brought.
#[derive(Debug)]
pub(super) struct Step {
    /// Time that the node was on a processor.
    pub(super) cpu: Duration,
    result: Value,
}

impl Load {
    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// If it says something else; with the end of its stderr.
    pub(super) fn start(command: &mut Command, node: Process) -> anyhow::Result<Self> {
        let (sender, outputs) = mpsc::sync_channel(OUTPUTS);
        let child = Child::start(command, move |output| {
            // Nobody listens any more once the load is dropped.
            sender.send(output).ok();
        })?;
        let mut load = Self { child, outputs, node };
        let line = load.line()?;
        if line != "ready" {
            bail!("the load is not ready but says {line:?}");
        }
        Ok(load)
    }

    /// Does a step; what `amount` means is the load's business.
    ///
    /// # Errors
    /// If the load fails.
    pub(super) fn step(&mut self, amount: f64) -> anyhow::Result<Step> {
        let before = self.node.cpu()?;
        self.begin(amount)?;
        let result = self.end()?;
        Ok(Step { cpu: self.node.cpu()? - before, result })
    }

    /// Begins a step, for whoever wants to watch the node meanwhile.
    ///
    /// # Errors
    /// If the load has ended.
    pub(super) fn begin(&mut self, amount: f64) -> anyhow::Result<()> {
        self.child.write_line(&amount.to_string())
    }

    /// Waits for the end of a step.
    ///
    /// # Errors
    /// If the load fails.
    pub(super) fn end(&mut self) -> anyhow::Result<Value> {
        let line = self.line()?;
        serde_json::from_str(&line).with_context(|| format!("the load says {line:?}"))
    }

    fn line(&mut self) -> anyhow::Result<String> {
        match self.outputs.recv_timeout(TIMEOUT) {
            Ok(Output::Line(line)) => Ok(line),
            other => {
                let (status, stderr) = self.child.end()?;
                bail!("the load: {other:?}, {status}\n{}", stderr.join("\n"))
            }
        }
    }
}

impl Step {
    /// A number that the load tells about the step.
    ///
    /// # Errors
    /// If it does not.
    pub(super) fn number(&self, name: &str) -> anyhow::Result<f64> {
        number(&self.result, name)
    }
}

/// A number of a load's answer.
///
/// # Errors
/// If it is not there.
pub(super) fn number(result: &Value, name: &str) -> anyhow::Result<f64> {
    result[name].as_f64().with_context(|| format!("no {name} in {result}"))
}
