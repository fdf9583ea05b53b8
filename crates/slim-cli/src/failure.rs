//! How a command ends that did not do what was asked: the exit status, the code
//! of the error event and the one line on standard error.

use std::io::{self, Write as _};
use std::time::Duration;

use slim_client::Name;
use thiserror::Error;

use crate::output::Event;

/// Why a command failed.
#[derive(Debug, Error)]
pub(crate) enum Failure {
    /// The command line asks for what cannot be; nothing was connected.
    #[error(transparent)]
    Usage(#[from] Box<clap::Error>),
    /// The node was not there in time.
    #[error("node {node} is not reachable, tried for {} s: {cause}", .tried_for.as_secs_f32())]
    NodeUnreachable {
        /// As it was given.
        node: String,
        /// How long.
        tried_for: Duration,
        /// What happened at the last try.
        cause: String,
    },
    /// Nobody can say that it is the right node, or TLS is spoken by one side only.
    #[error("node {node} cannot be trusted: {reason}")]
    NodeInsecure {
        /// As it was given.
        node: String,
        /// What is wrong.
        reason: String,
    },
    /// The node does not let us in.
    #[error("node {node} refused us: {reason}")]
    RefusedByNode {
        /// As it was given.
        node: String,
        /// In the node's words.
        reason: String,
    },
    /// We and everybody who was asked do not verify with each other.
    #[error("{reason}: no session with {names}")]
    RefusedByPeers {
        /// Who was asked.
        names: String,
        /// Which check failed.
        reason: String,
    },
    /// Not one of the invited joined.
    #[error("nobody joined of {0}")]
    NobodyJoined(String),
    /// The peer does not answer.
    #[error("no answer from {peer} within {} s", .within.as_secs_f32())]
    NoAnswer {
        /// Who.
        peer: Name,
        /// How long.
        within: Duration,
    },
    /// The peer went before it had answered.
    #[error("{peer} left without an answer")]
    LeftWithoutAnswer {
        /// Who.
        peer: Name,
    },
    /// Somebody did not join what is to be measured.
    #[error("{name} did not join: {reason}")]
    NotJoined {
        /// Who.
        name: Name,
        /// Why.
        reason: String,
    },
    /// A subscriber waited in vain.
    #[error("nothing was received: does `slim bench pub` publish to this name?")]
    NothingReceived,
    /// A measurement did not get everything across.
    #[error("{lost} of {of} deliveries were lost")]
    Lost {
        /// How many.
        lost: u64,
        /// How many there should have been.
        of: u64,
    },
    /// The session did not survive a lost link.
    #[error("the session did not survive the lost link to node {node}")]
    NodeLost {
        /// As it was given.
        node: String,
    },
    /// The node was away when we left.
    #[error("node {node} is away: not everybody was told that {what}")]
    NotTold {
        /// As it was given.
        node: String,
        /// What they should have been told.
        what: &'static str,
    },
    /// Whoever read standard output reads no more.
    #[error("standard output is closed")]
    OutputClosed,
    /// Told to end at once.
    #[error("ended before everything was closed")]
    Interrupted,
    /// Anything else.
    #[error("{message}")]
    Other {
        /// Stable, snake_case.
        code: &'static str,
        /// In words.
        message: String,
    },
}

impl Failure {
    /// The event that tells programs; `None` for a usage error, which is not one of
    /// a conversation.
    pub(crate) fn event(&self) -> Option<Event> {
        let message = self.to_string();
        let event = Event::Error { code: self.code(), message, session_id: None };
        (!matches!(self, Self::Usage(_))).then_some(event)
    }

    /// Tells people, on standard error.
    pub(crate) fn print(&self) {
        let printed = match self {
            // Help and version, which are no errors to clap's callers, go elsewhere.
            Self::Usage(error) => error.print(),
            _ => writeln!(io::stderr(), "slim: {self}"),
        };
        // There is nobody to tell about an error here.
        printed.ok();
    }

    /// The exit status of the process.
    pub(crate) fn status(&self) -> u8 {
        match self {
            Self::NodeLost { .. }
            | Self::NotTold { .. }
            | Self::Lost { .. }
            | Self::OutputClosed
            | Self::Interrupted
            | Self::Other { .. } => 1,
            Self::Usage(error) => u8::try_from(error.exit_code()).unwrap_or(2),
            Self::NodeUnreachable { .. } | Self::NodeInsecure { .. } => 3,
            Self::RefusedByNode { .. } | Self::RefusedByPeers { .. } => 4,
            Self::NobodyJoined(_)
            | Self::NoAnswer { .. }
            | Self::LeftWithoutAnswer { .. }
            | Self::NotJoined { .. }
            | Self::NothingReceived => 5,
        }
    }

    /// The code of the error event.
    fn code(&self) -> &'static str {
        match self {
            Self::Usage(_) => "usage",
            Self::NodeUnreachable { .. } => "node_unreachable",
            Self::NodeInsecure { .. } => "node_insecure",
            Self::RefusedByNode { .. } | Self::RefusedByPeers { .. } => "identity_refused",
            Self::NobodyJoined(_) => "nobody_joined",
            Self::NoAnswer { .. } | Self::LeftWithoutAnswer { .. } => "no_answer",
            Self::NotJoined { .. } => "not_joined",
            Self::NothingReceived => "nothing_received",
            Self::Lost { .. } => "lost",
            Self::NodeLost { .. } => "node_lost",
            Self::NotTold { .. } => "not_told",
            Self::OutputClosed => "output_closed",
            Self::Interrupted => "interrupted",
            Self::Other { code, .. } => code,
        }
    }
}
