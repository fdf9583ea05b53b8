//! How a node and a member of either side are started.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use serde_json::{Value, json};

use super::cast::{Ours, Side, Theirs};
use crate::cargo::{self, Programs};
use crate::node::program;

/// What everybody shares who is meant to understand each other.
pub(crate) const SECRET: &str = "the-secret-of-a-conversation-that-everybody-may-hear";

/// What all groups are called.
pub(crate) const CHANNEL: &str = "interop/ns/chat";

/// Whose identities members have by a SPIFFE agent.
const TRUST_DOMAIN: &str = "interop.example";

/// What is needed to start either side.
#[derive(Clone, Debug)]
pub(crate) struct Tools {
    pub(crate) programs: Programs,
    /// If it plays a part.
    pub(crate) reference: Option<Reference>,
    pub(crate) log: String,
}

/// The program that has the reference do what our own programs do.
#[derive(Clone, Debug)]
pub(crate) struct Reference {
    /// Of the virtual environment.
    pub(crate) python: PathBuf,
    pub(crate) peer: PathBuf,
}

impl Tools {
    /// A node that listens there, with a configuration file that says the same.
    pub(crate) fn node(&self, side: Side, address: &str, config: Option<&Path>) -> Command {
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
        if let Some(config) = config {
            command.arg("--config").arg(config);
        }
        // To ours an option says more than the file.
        if side == Theirs || config.is_none() {
            command.args(["--listen", address]);
        }
        command
    }

    /// A network that loses messages, in front of the node at this address.
    pub(crate) fn lossy(&self, node: &str) -> Command {
        let mut command = program(&self.programs.helper("slim-lossy"));
        command.arg(node);
        command
    }

    /// A member, with the node at this address, or as this JSON object says.
    pub(crate) fn member(&self, part: &Part<'_>, node: &str) -> Command {
        let mut command = match part.side {
            Ours => program(&self.programs.slim),
            Theirs => self.peer(),
        };
        command.args([part.mode, "--local", &part.address()]);
        let scheme = if node.starts_with('{') { "" } else { "http://" };
        command.arg("--slim").arg(format!("{scheme}{node}"));
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
        if let Some(prefix) = part.accept_from {
            command.args(["--accept-from", prefix]);
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

    /// Has a member sign tokens with a key for tests, instead of sharing the secret.
    pub(crate) fn sign_tokens(command: &mut Command, signer: &Signer, jwks: &Path) {
        command.env_remove("SLIM_SHARED_SECRET");
        let key = keys().join(signer.key).with_extension("pem");
        command.arg("--identity").arg(key).arg("--trust").arg(jwks);
        command.args(["--subject", signer.subject, "--algorithm", signer.algorithm]);
        command.args(["--audience", "interop"]);
    }

    /// A SPIFFE agent at this socket, whose tokens last an hour.
    pub(crate) fn agent(&self, socket: &Path) -> Command {
        let mut command = program(&self.programs.helper("slim-agent"));
        // The reference wants to see a certificate of itself before it asks for a token.
        command.arg(socket).args([TRUST_DOMAIN, "3600"]);
        command.args(SIGNERS.iter().map(|signer| signer.subject)).arg("newcomer");
        command
    }

    /// Has a member be whom this agent says, instead of sharing the secret.
    pub(crate) fn ask_agent(command: &mut Command, label: &str, socket: &Path) {
        command.env_remove("SLIM_SHARED_SECRET");
        command.arg("--spire-socket").arg(socket);
        command.args(["--spiffe-id", &format!("spiffe://{TRUST_DOMAIN}/{label}")]);
        command.args(["--audience", "interop"]);
    }

    fn peer(&self) -> Command {
        let reference = self.reference.as_ref().expect("who casts the reference has it");
        let mut command = program(&reference.python);
        command.arg(&reference.peer).args(["--log", &self.log]);
        command
    }
}

/// Who signs tokens, and with which of the keys for tests.
#[derive(Debug)]
pub(crate) struct Signer {
    /// As the label of the member.
    pub(crate) subject: &'static str,
    pub(crate) key: &'static str,
    pub(crate) algorithm: &'static str,
}

/// Each kind of key at two members.
pub(crate) const SIGNERS: [Signer; 7] = [
    Signer { subject: "mod", key: "p384", algorithm: "ES384" },
    Signer { subject: "p1", key: "rsa", algorithm: "RS256" },
    Signer { subject: "p2", key: "rsa", algorithm: "RS256" },
    Signer { subject: "p3", key: "p256", algorithm: "ES256" },
    Signer { subject: "p4", key: "p256", algorithm: "ES256" },
    Signer { subject: "p5", key: "ed25519", algorithm: "EdDSA" },
    Signer { subject: "p6", key: "ed25519", algorithm: "EdDSA" },
];

/// A JWKS with the key of each of [`SIGNERS`] under its subject.
pub(crate) fn jwks() -> anyhow::Result<String> {
    let path = keys().join("jwks.json");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path:?}"))?;
    let set: Value = serde_json::from_str(&text)?;
    let known = set["keys"].as_array().context("no keys")?;
    let keys = SIGNERS
        .iter()
        .map(|signer| {
            let mut key = known.iter().find(|key| key["kid"] == signer.key).cloned();
            if let Some(key) = &mut key {
                key["kid"] = signer.subject.into();
            }
            key.with_context(|| format!("no key {}", signer.key))
        })
        .collect::<anyhow::Result<Vec<Value>>>()?;
    Ok(json!({ "keys": keys }).to_string())
}

pub(super) fn keys() -> PathBuf {
    cargo::root().join("crates/slim-auth/tests/keys")
}

/// A member that is to be started.
#[derive(Clone, Debug)]
pub(crate) struct Part<'a> {
    pub(crate) side: Side,
    /// Unique on the stage.
    pub(crate) label: &'a str,
    /// Third part of its name.
    pub(crate) app: &'a str,
    /// `group` or `p2p`; of the reference also `rpc`.
    pub(crate) mode: &'static str,
    /// Channel or peer, for who creates a session.
    pub(crate) remote: Option<&'a str>,
    pub(crate) invites: Vec<String>,
    pub(crate) mls: bool,
    /// Seconds until a message is repeated. Not too short: a moderator of the
    /// reference does not survive an answer that is slower.
    pub(crate) timeout: f64,
    pub(crate) max_retries: u32,
    pub(crate) secret: &'a str,
    /// Whose invitations it takes, if not everybody's. Only ours can say.
    pub(crate) accept_from: Option<&'a str>,
    /// A listener that does not send back what it gets.
    pub(crate) no_echo: bool,
    /// Nothing is acknowledged or repeated. Only the reference creates such sessions.
    pub(crate) best_effort: bool,
    /// It has a clock of its own, which is so many seconds ahead.
    pub(crate) clock: Option<i64>,
}

impl<'a> Part<'a> {
    /// Somebody who waits to be invited.
    pub(crate) fn participant(side: Side, label: &'a str) -> Self {
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
            accept_from: None,
            no_echo: false,
            best_effort: false,
            clock: None,
        }
    }

    /// Somebody who creates the group.
    pub(crate) fn moderator(side: Side, mls: bool, invites: Vec<String>) -> Self {
        Self { remote: Some(CHANNEL), invites, mls, ..Self::participant(side, "mod") }
    }

    /// Somebody who waits for calls.
    pub(crate) fn listener(side: Side, label: &'a str) -> Self {
        Self { mode: "p2p", ..Self::participant(side, label) }
    }

    /// Somebody who calls.
    pub(crate) fn caller(side: Side, label: &'a str, peer: &'a str, mls: bool) -> Self {
        Self { remote: Some(peer), mls, ..Self::listener(side, label) }
    }

    /// Its name.
    pub(crate) fn address(&self) -> String {
        address(self.app)
    }
}

/// The name of an application.
pub(crate) fn address(app: &str) -> String {
    format!("interop/ns/{app}")
}
