//! What a member was given to say, what it told, and whether that is as it should be.
//! Pure: lines in, verdict out.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{Hash, Hasher};
use std::process::ExitStatus;

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use super::cast::{Ours, Side};
use crate::difference::difference;

/// Payloads are compared by their first bytes, length and hash when longer than this.
const SHOWN: usize = 100;

/// A member's place on the stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct MemberId(pub(super) usize);

/// A line of `--output json`.
#[derive(Clone, Debug)]
pub(crate) struct Event(Value);

impl Event {
    /// Reads a line.
    ///
    /// # Errors
    /// If it is none.
    pub(crate) fn read(line: &str) -> anyhow::Result<Self> {
        serde_json::from_str(line).map(Self).with_context(|| format!("not an event: {line:?}"))
    }

    /// What kind of event it is.
    pub(crate) fn kind(&self) -> &str {
        self.text("event")
    }

    /// The text in a field; empty if there is none.
    pub(crate) fn text(&self, field: &str) -> &str {
        self.0[field].as_str().unwrap_or_default()
    }

    /// Any field.
    pub(crate) fn field(&self, field: &str) -> &Value {
        &self.0[field]
    }
}

/// A line that a member was given to say.
#[derive(Debug)]
pub(crate) struct Said {
    /// Who is to hear it.
    pub(crate) listeners: Vec<MemberId>,
    /// Who may hear it or not, because it is just joining or leaving.
    pub(crate) passers_by: Vec<MemberId>,
    /// Who is to acknowledge it.
    pub(crate) acks: Acks,
    /// As a listener hears it.
    pub(crate) text: String,
    /// What became of it.
    pub(crate) outcome: Option<Outcome>,
}

/// Who acknowledges what is said, as ours tell it. The reference does not tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Acks {
    /// Everybody who hears it.
    Listeners,
    /// Not these, who are known to be away: it is reported as lost for them.
    NotThese(Vec<MemberId>),
    /// Nobody, in a session without acknowledgements.
    None,
}

/// Something that a listener sends back, without an outcome.
#[derive(Debug)]
pub(crate) struct Echo {
    pub(crate) listener: MemberId,
    pub(crate) text: String,
}

/// What became of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// These acknowledged it. The reference does not tell who.
    Delivered(BTreeSet<String>),
    /// These did not.
    Lost(BTreeSet<String>),
}

/// Everything that is known about one member.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) label: String,
    pub(crate) side: Side,
    /// Name without id.
    pub(crate) address: String,
    /// Name with id, once it is connected.
    pub(crate) name: String,
    /// All that it told but messages and outcomes.
    pub(crate) events: Vec<Event>,
    pub(crate) said: Vec<Said>,
    pub(crate) echoes: Vec<Echo>,
    /// What it heard, by source.
    heard: BTreeMap<String, Vec<String>>,
    /// Codes of errors that are no mistake in this case; `missed` for lines that are
    /// told to be missing.
    pub(crate) tolerates: BTreeSet<&'static str>,
    /// It is meant to end by itself.
    pub(crate) may_end: bool,
    /// Nobody learns the outcomes any more that it has not told.
    pub(crate) was_killed: bool,
    /// How it has ended.
    pub(crate) status: Option<ExitStatus>,
}

impl Record {
    /// Of somebody who has told nothing yet.
    pub(crate) fn new(label: &str, side: Side, address: String) -> Self {
        Self {
            label: label.to_owned(),
            side,
            address,
            name: String::new(),
            events: Vec::new(),
            said: Vec::new(),
            echoes: Vec::new(),
            heard: BTreeMap::new(),
            tolerates: BTreeSet::new(),
            may_end: false,
            was_killed: false,
            status: None,
        }
    }

    /// Takes a line of its stdout in.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn on_line(&mut self, line: &str) -> anyhow::Result<()> {
        let event = Event::read(line)?;
        match event.kind() {
            "message" => {
                let mut text = heard_as(&event);
                // In a call everything is for one.
                let in_group = self.events("session").all(|event| event.text("type") == "group");
                if in_group && event.field("to_me").as_bool() == Some(true) {
                    text = heard_alone(&text);
                }
                self.heard.entry(event.text("source").to_owned()).or_default().push(text);
                return Ok(());
            }
            "delivered" | "lost" => return self.on_outcome(&event),
            "connected" => event.text("name").clone_into(&mut self.name),
            kind @ ("missed" | "error") => {
                let code = if kind == "error" { event.text("code") } else { kind };
                if !self.tolerates.contains(code) {
                    let text = event.text(if kind == "error" { "message" } else { "reason" });
                    bail!("{kind} {code}: {text}");
                }
            }
            _ => {}
        }
        self.events.push(event);
        Ok(())
    }

    /// Its process has ended.
    ///
    /// # Errors
    /// If it was not to end.
    pub(crate) fn on_end(&mut self, status: ExitStatus) -> anyhow::Result<()> {
        self.status = Some(status);
        ensure!(self.may_end, "ended early, with {status}");
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
        let names: BTreeSet<String> =
            members.filter_map(Value::as_str).map(str::to_owned).collect();
        if event.kind() == "delivered" {
            said.outcome = Some(Outcome::Delivered(names));
            return Ok(());
        }
        if said.acks == Acks::Listeners && said.passers_by.is_empty() {
            bail!("line {line} is lost for {names:?} {}", event.text("reason"));
        }
        said.outcome = Some(Outcome::Lost(names));
        Ok(())
    }

    /// Events of a kind.
    pub(crate) fn events<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Event> {
        self.events.iter().filter(move |event| event.kind() == kind)
    }

    /// Whether there was an event of a kind.
    pub(crate) fn has(&self, kind: &str) -> bool {
        self.events(kind).next().is_some()
    }

    /// What became of the invitations of this name.
    pub(crate) fn invites<'a>(&'a self, address: &'a str) -> impl Iterator<Item = &'a Event> {
        self.events("invite").filter(move |event| event.text("name") == address)
    }
}

impl Record {
    /// What it heard of somebody, in order.
    pub(crate) fn heard_of(&self, speaker: &Self) -> &[String] {
        self.heard.get(&speaker.name).map_or(&[], Vec::as_slice)
    }

    /// Whether it is known in the end what became of this line. The reference never
    /// tells if those who have not acknowledged it leave.
    fn tells_outcome(&self, said: &Said) -> bool {
        !self.was_killed && (self.side == Ours || said.passers_by.is_empty())
    }

    /// What `listener` is to hear of it: what it says, or what it sends back. Of what
    /// was said in passing, only what is in `heard`.
    fn tells<'a>(&'a self, listener: MemberId, heard: &HashSet<&str>) -> Vec<&'a str> {
        let is_for = |said: &&Said| {
            said.listeners.contains(&listener)
                || (said.passers_by.contains(&listener) && heard.contains(said.text.as_str()))
        };
        let said = self.said.iter().filter(is_for).map(|said| &said.text);
        let echoes = self.echoes.iter().filter(|echo| echo.listener == listener);
        said.chain(echoes.map(|echo| &echo.text)).map(String::as_str).collect()
    }
}

/// What was said and not heard yet, or has no outcome.
pub(crate) fn not_heard(records: &[Record]) -> Vec<String> {
    let mut missing = Vec::new();
    for speaker in records {
        for (index, listener) in records.iter().enumerate() {
            let heard = listener.heard_of(speaker);
            let texts = heard.iter().map(String::as_str);
            let in_passing = speaker.said.iter().any(|said| !said.passers_by.is_empty());
            let texts = if in_passing { texts.collect() } else { HashSet::new() };
            let expected = speaker.tells(MemberId(index), &texts).len();
            if heard.len() < expected {
                missing.push(format!(
                    "{} heard {} of {expected} lines of {}",
                    listener.label,
                    heard.len(),
                    speaker.label
                ));
            }
        }
        let is_open = |said: &&Said| said.outcome.is_none() && speaker.tells_outcome(said);
        let open = speaker.said.iter().filter(is_open).count();
        if open > 0 {
            missing.push(format!("{} has no outcome of {open} lines", speaker.label));
        }
    }
    missing
}

/// The verdict: everybody heard exactly what was said to it, in order per speaker,
/// and those who tell it know it.
///
/// # Errors
/// The first thing that is not so.
pub(crate) fn verdict(records: &[Record]) -> anyhow::Result<()> {
    for (index, listener) in records.iter().enumerate() {
        let known = |name: &str| records.iter().any(|record| record.name == name);
        if let Some(stranger) = listener.heard.keys().find(|name| !known(name)) {
            bail!("{} heard a stranger, {stranger}", listener.label);
        }
        for speaker in records {
            let heard: Vec<&str> = listener.heard_of(speaker).iter().map(String::as_str).collect();
            let told = speaker.tells(MemberId(index), &heard.iter().copied().collect());
            if let Some(difference) = difference(&told, &heard) {
                bail!("{} heard {}: {difference}", listener.label, speaker.label);
            }
        }
    }
    records.iter().try_for_each(|speaker| check_outcomes(speaker, records))
}

/// Each line has its outcome; of ours, the right one.
fn check_outcomes(speaker: &Record, records: &[Record]) -> anyhow::Result<()> {
    let names = |ids: &[MemberId]| -> BTreeSet<String> {
        ids.iter().map(|&id| records[id.0].name.clone()).collect()
    };
    for said in &speaker.said {
        let Some(outcome) = &said.outcome else {
            ensure!(
                !speaker.tells_outcome(said),
                "{} has no outcome of {:?}",
                speaker.label,
                said.text
            );
            continue;
        };
        let (least, in_passing) = match &said.acks {
            Acks::Listeners => (names(&said.listeners), names(&said.passers_by)),
            Acks::NotThese(away) => (names(away), BTreeSet::new()),
            Acks::None => (BTreeSet::new(), BTreeSet::new()),
        };
        let most = &least | &in_passing;
        let is_right = match outcome {
            Outcome::Delivered(to) => {
                !matches!(said.acks, Acks::NotThese(_))
                    && to.is_superset(&least)
                    && to.is_subset(&most)
            }
            Outcome::Lost(to) if in_passing.is_empty() => *to == least,
            Outcome::Lost(to) => to.is_subset(&in_passing),
        };
        ensure!(
            speaker.side != Ours || is_right,
            "{} said {:?}: {outcome:?}, which should be {least:?}, by chance {in_passing:?}",
            speaker.label,
            said.text
        );
    }
    Ok(())
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

/// How a message is compared that is for one member of a group alone.
pub(crate) fn heard_alone(text: &str) -> String {
    format!("{text} (for one)")
}

/// How a message is compared that has this payload, type and metadata (JSON).
pub(crate) fn text_of(payload: &str, payload_type: &str, metadata: &str) -> String {
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
mod tests;
