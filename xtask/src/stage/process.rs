//! The process of a member, and the lines that it is given.

use std::io::Write;
use std::process::{ChildStdin, ExitStatus};
use std::sync::mpsc::{self, SyncSender};
use std::thread;

use anyhow::{Context, anyhow};

use crate::child::Child;

/// Lines that may wait until a member reads them. Nothing that a case says at once
/// is longer; a member that falls behind this far fails the case.
const LINES: usize = 2048;

/// A running member. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    input: SyncSender<Vec<u8>>,
}

impl Process {
    pub(crate) fn new(mut child: Child) -> anyhow::Result<Self> {
        let stdin = child.take_stdin().context("no pipe to its stdin")?;
        Ok(Self { child, input: writer(stdin) })
    }

    /// Gives it a line, without waiting until it is read.
    ///
    /// # Errors
    /// If it has ended, or does not read.
    pub(crate) fn write(&self, line: &[u8]) -> anyhow::Result<()> {
        self.input.try_send([line, b"\n"].concat()).map_err(|_| anyhow!("it takes no more lines"))
    }

    /// What it is told by other means.
    pub(crate) fn child(&self) -> &Child {
        &self.child
    }

    /// Its status, once it has ended.
    ///
    /// # Errors
    /// If the system does not tell.
    pub(crate) fn end(&mut self) -> anyhow::Result<ExitStatus> {
        self.child.end().map(|(status, _)| status)
    }
}

/// Writes what is sent to it, from a thread that may be kept waiting by the reader.
fn writer(mut stdin: ChildStdin) -> SyncSender<Vec<u8>> {
    let (sender, lines) = mpsc::sync_channel::<Vec<u8>>(LINES);
    thread::spawn(move || {
        for line in lines {
            // It has ended: whoever waits for it is told by the end of its stdout.
            if stdin.write_all(&line).and_then(|()| stdin.flush()).is_err() {
                return;
            }
        }
    });
    sender
}
