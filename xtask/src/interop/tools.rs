//! How a node and a member of either side are started.

use std::path::PathBuf;
use std::process::Command;

use super::cast::{Ours, Side, Theirs};
use crate::cargo::Programs;
use crate::node::program;

/// What everybody shares who is meant to understand each other.
pub(super) const SECRET: &str = "the-secret-of-a-conversation-that-everybody-may-hear";

/// What all groups are called.
pub(super) const CHANNEL: &str = "interop/ns/chat";

/// What is needed to start either side.
#[derive(Clone, Debug)]
pub(super) struct Tools {
    pub(super) programs: Programs,
    /// Of the virtual environment.
    pub(super) python: PathBuf,
    pub(super) peer: PathBuf,
    pub(super) log: String,
}

impl Tools {
    /// A node that listens there.
    pub(super) fn node(&self, side: Side, address: &str) -> Command {
        let mut command = match side {
            Ours => {
                let mut command = program(&self.programs.node);
                command.args(["--log", &self.log]);
                command
            }
            Theirs => {
                let mut command = self.peer();
                command.arg("node");
                command
            }
        };
        command.args(["--listen", address]);
        command
    }

    /// A member, with the node at this address.
    pub(super) fn member(&self, part: &Part<'_>, node: &str) -> Command {
        let mut command = match part.side {
            Ours => program(&self.programs.slim),
            Theirs => self.peer(),
        };
        command.args([part.mode, "--local", &part.address()]);
        command.arg("--slim").arg(format!("http://{node}"));
        if part.side == Ours {
            command.args(["--output", "json", "--log", &self.log]);
        }
        command.arg("--timeout").arg(part.timeout.to_string());
        command.arg("--max-retries").arg(part.max_retries.to_string());
        if let Some(remote) = part.remote {
            command.args(["--remote", remote]);
            if part.mls {
                command.arg("--enable-mls");
            }
        }
        for name in &part.invites {
            command.args(["--invites", name]);
        }
        for (option, is_given) in [("--no-echo", part.no_echo), ("--best-effort", part.best_effort)]
        {
            if is_given {
                command.arg(option);
            }
        }
        command.env("SLIM_SHARED_SECRET", part.secret);
        command
    }

    fn peer(&self) -> Command {
        let mut command = program(&self.python);
        command.arg(&self.peer).args(["--log", &self.log]);
        command
    }
}

/// A member that is to be started.
#[derive(Clone, Debug)]
pub(super) struct Part<'a> {
    pub(super) side: Side,
    /// Unique on the stage.
    pub(super) label: &'a str,
    /// Third part of its name.
    pub(super) app: &'a str,
    /// `group` or `p2p`.
    pub(super) mode: &'static str,
    /// Channel or peer, for who creates a session.
    pub(super) remote: Option<&'a str>,
    pub(super) invites: Vec<String>,
    pub(super) mls: bool,
    /// Seconds until a message is repeated. Not too short: a moderator of the
    /// reference does not survive an answer that is slower.
    pub(super) timeout: f64,
    pub(super) max_retries: u32,
    pub(super) secret: &'a str,
    /// A listener that does not send back what it gets.
    pub(super) no_echo: bool,
    /// Nothing is acknowledged or repeated. Only the reference creates such sessions.
    pub(super) best_effort: bool,
}

impl<'a> Part<'a> {
    /// Somebody who waits to be invited.
    pub(super) fn participant(side: Side, label: &'a str) -> Self {
        Self {
            side,
            label,
            app: label,
            mode: "group",
            remote: None,
            invites: Vec::new(),
            mls: false,
            timeout: 3.0,
            max_retries: 9,
            secret: SECRET,
            no_echo: false,
            best_effort: false,
        }
    }

    /// Somebody who creates the group.
    pub(super) fn moderator(side: Side, mls: bool, invites: Vec<String>) -> Self {
        Self { remote: Some(CHANNEL), invites, mls, ..Self::participant(side, "mod") }
    }

    /// Somebody who waits for calls.
    pub(super) fn listener(side: Side, label: &'a str) -> Self {
        Self { mode: "p2p", ..Self::participant(side, label) }
    }

    /// Somebody who calls.
    pub(super) fn caller(side: Side, label: &'a str, peer: &'a str, mls: bool) -> Self {
        Self { remote: Some(peer), mls, ..Self::listener(side, label) }
    }

    /// Its name.
    pub(super) fn address(&self) -> String {
        address(self.app)
    }
}

/// The name of an application.
pub(super) fn address(app: &str) -> String {
    format!("interop/ns/{app}")
}
