//! One application: its process, and all that it has told.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::io::Write;
use std::process::{ChildStdin, ExitStatus};
use std::sync::mpsc::{self, SyncSender};
use std::thread;

use anyhow::{Context, anyhow, bail};
use serde_json::Value;

use super::cast::Side;
use crate::child::Child;

/// Lines that may wait until a member reads them. Nothing that a case says at once
/// is longer; a member that falls behind this far fails the case.
const LINES: usize = 2048;

/// Payloads are compared by their first bytes, length and hash when longer than this.
const SHOWN: usize = 100;

/// A member's place on the stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct MemberId(pub(super) usize);

/// A line of `--output json`.
#[derive(Clone, Debug)]
pub(super) struct Event(Value);

impl Event {
    /// What kind of event it is.
    pub(super) fn kind(&self) -> &str {
        self.text("event")
    }

    /// The text in a field; empty if there is none.
    pub(super) fn text(&self, field: &str) -> &str {
        self.0[field].as_str().unwrap_or_default()
    }

    /// Any field.
    pub(super) fn field(&self, field: &str) -> &Value {
        &self.0[field]
    }
}

/// A line that a member was given to say.
#[derive(Debug)]
pub(super) struct Said {
    /// Who is to hear it.
    pub(super) listeners: Vec<MemberId>,
    /// Who was known to be away at that time.
    pub(super) absent: Vec<MemberId>,
    /// As a listener hears it.
    pub(super) text: String,
    /// What became of it.
    pub(super) outcome: Option<Outcome>,
}

/// Something that a listener sends back, without an outcome.
#[derive(Debug)]
pub(super) struct Echo {
    pub(super) listener: MemberId,
    pub(super) text: String,
}

/// What became of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// These acknowledged it. The reference does not tell who.
    Delivered(Vec<String>),
    /// These did not.
    Lost(Vec<String>),
}

/// A running application.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) label: String,
    pub(super) side: Side,
    /// Name without id.
    pub(super) address: String,
    /// Name with id, once it is connected.
    pub(super) name: String,
    child: Child,
    input: SyncSender<Vec<u8>>,
    /// All but messages and outcomes.
    pub(super) events: Vec<Event>,
    pub(super) said: Vec<Said>,
    pub(super) echoes: Vec<Echo>,
    /// What it heard, by source.
    pub(super) heard: BTreeMap<String, Vec<String>>,
    /// Kinds of events and codes of errors that are no mistake in this case.
    pub(super) tolerates: BTreeSet<&'static str>,
    /// It is meant to end by itself.
    pub(super) may_end: bool,
    pub(super) status: Option<ExitStatus>,
}

impl Member {
    pub(super) fn new(
        label: &str,
        side: Side,
        address: &str,
        mut child: Child,
    ) -> anyhow::Result<Self> {
        let stdin = child.take_stdin().context("no pipe to its stdin")?;
        Ok(Self {
            label: label.to_owned(),
            side,
            address: address.to_owned(),
            name: String::new(),
            child,
            input: writer(stdin),
            events: Vec::new(),
            said: Vec::new(),
            echoes: Vec::new(),
            heard: BTreeMap::new(),
            tolerates: BTreeSet::new(),
            may_end: false,
            status: None,
        })
    }

    /// Gives it a line, without waiting until it is read.
    ///
    /// # Errors
    /// If it has ended, or does not read.
    pub(super) fn write(&self, line: &[u8]) -> anyhow::Result<()> {
        self.input
            .try_send([line, b"\n"].concat())
            .map_err(|_| anyhow!("{} takes no more lines", self.label))
    }

    /// Its process.
    pub(super) fn child(&self) -> &Child {
        &self.child
    }

    /// Its process has ended, or is ended now.
    pub(super) fn end(&mut self) -> anyhow::Result<ExitStatus> {
        let (status, _) = self.child.end().with_context(|| self.label.clone())?;
        self.status = Some(status);
        Ok(status)
    }

    /// Takes a line of its stdout in.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn on_line(&mut self, line: &str) -> anyhow::Result<()> {
        let event: Value =
            serde_json::from_str(line).with_context(|| format!("not an event: {line:?}"))?;
        let event = Event(event);
        match event.kind() {
            "message" => {
                let heard = self.heard.entry(event.text("source").to_owned()).or_default();
                heard.push(heard_as(&event));
                return Ok(());
            }
            "delivered" | "lost" => return self.on_outcome(&event),
            "connected" => event.text("name").clone_into(&mut self.name),
            kind @ ("missed" | "error") => {
                let code = event.text("code");
                if !self.tolerates.contains(kind) && !self.tolerates.contains(code) {
                    let text = event.text(if kind == "error" { "message" } else { "reason" });
                    bail!("{kind} {code}: {text}");
                }
            }
            _ => {}
        }
        self.events.push(event);
        Ok(())
    }

    fn on_outcome(&mut self, event: &Event) -> anyhow::Result<()> {
        let line = event.field("line");
        let said = line
            .as_u64()
            .and_then(|line| usize::try_from(line).ok())
            .and_then(|line| self.said.get_mut(line))
            .with_context(|| format!("an outcome of line {line}, which it was not given"))?;
        if said.outcome.is_some() {
            bail!("a second outcome of line {line}");
        }
        let members = event.field("members").as_array().into_iter().flatten();
        let mut names: Vec<String> = members.filter_map(Value::as_str).map(str::to_owned).collect();
        names.sort();
        if event.kind() == "delivered" {
            said.outcome = Some(Outcome::Delivered(names));
            return Ok(());
        }
        if said.absent.is_empty() {
            bail!("line {line} is lost for {names:?} {}", event.text("reason"));
        }
        said.outcome = Some(Outcome::Lost(names));
        Ok(())
    }

    /// Events of a kind.
    pub(super) fn events<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Event> {
        self.events.iter().filter(move |event| event.kind() == kind)
    }

    /// Whether there was an event of a kind.
    pub(super) fn has(&self, kind: &str) -> bool {
        self.events(kind).next().is_some()
    }

    /// What became of the invitations of this name.
    pub(super) fn invites<'a>(&'a self, address: &'a str) -> impl Iterator<Item = &'a Event> {
        self.events("invite").filter(move |event| event.text("name") == address)
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

/// A message as it is compared: payload, and type and metadata where there are any.
fn heard_as(event: &Event) -> String {
    let payload = match event.field("payload").as_str() {
        Some(text) => text.to_owned(),
        None => format!("base64:{}", event.text("payload_base64")),
    };
    let metadata = match event.field("metadata").as_object() {
        Some(entries) if !entries.is_empty() => event.field("metadata").to_string(),
        _ => String::new(),
    };
    text_of(&payload, event.text("payload_type"), &metadata)
}

/// How a message is compared that has this payload, type and metadata (JSON).
pub(super) fn text_of(payload: &str, payload_type: &str, metadata: &str) -> String {
    let mut text = if payload.len() > SHOWN {
        let mut hasher = DefaultHasher::new();
        payload.hash(&mut hasher);
        let start: String = payload.chars().take(16).collect();
        format!("{start}… ({} bytes, hash {:016x})", payload.len(), hasher.finish())
    } else {
        payload.to_owned()
    };
    if !matches!(payload_type, "" | "msg") {
        text += &format!(" [{payload_type}]");
    }
    if !metadata.is_empty() {
        text += &format!(" {metadata}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: &str) {
        assert_eq!(heard_as(&Event(serde_json::from_str(line).unwrap())), expected);
    }

    #[test]
    fn messages_are_compared_with_type_and_metadata() {
        check(r#"{"payload":"hi","payload_type":"msg","metadata":{}}"#, "hi");
        check(r#"{"payload_base64":"/w==","payload_type":"t"}"#, "base64:/w== [t]");
        check(r#"{"payload":"","metadata":{"a":"b"}}"#, r#" {"a":"b"}"#);
    }

    #[test]
    fn long_payloads_that_differ_at_the_end_differ() {
        let text = |end: &str| text_of(&("x".repeat(1000) + end), "msg", "");
        assert_ne!(text("a"), text("b"));
        assert_eq!(text("a"), text("a"));
        assert!(text("a").len() < SHOWN);
    }
}
