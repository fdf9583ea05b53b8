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
    /// Who may hear it or not, because it is just joining or leaving.
    pub(super) passers_by: Vec<MemberId>,
    /// Who is to acknowledge it.
    pub(super) acks: Acks,
    /// As a listener hears it.
    pub(super) text: String,
    /// What became of it.
    pub(super) outcome: Option<Outcome>,
}

/// Who acknowledges what is said, as ours tell it. The reference does not tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Acks {
    /// Everybody who hears it.
    Listeners,
    /// Not these, who are known to be away: it is reported as lost for them.
    NotThese(Vec<MemberId>),
    /// Nobody, in a session without acknowledgements.
    None,
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
    Delivered(BTreeSet<String>),
    /// These did not.
    Lost(BTreeSet<String>),
}

/// Everything that is known about one member.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) label: String,
    pub(super) side: Side,
    /// Name without id.
    pub(super) address: String,
    /// Name with id, once it is connected.
    pub(super) name: String,
    /// All that it told but messages and outcomes.
    pub(super) events: Vec<Event>,
    pub(super) said: Vec<Said>,
    pub(super) echoes: Vec<Echo>,
    /// What it heard, by source.
    heard: BTreeMap<String, Vec<String>>,
    /// Codes of errors that are no mistake in this case.
    pub(super) tolerates: BTreeSet<&'static str>,
    /// It is meant to end by itself.
    pub(super) may_end: bool,
    /// How it has ended.
    pub(super) status: Option<ExitStatus>,
}

impl Record {
    /// Of somebody who has told nothing yet.
    pub(super) fn new(label: &str, side: Side, address: String) -> Self {
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
            status: None,
        }
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
    pub(super) fn on_end(&mut self, status: ExitStatus) -> anyhow::Result<()> {
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

impl Record {
    /// What it heard of somebody, in order.
    fn heard_of(&self, speaker: &Self) -> &[String] {
        self.heard.get(&speaker.name).map_or(&[], Vec::as_slice)
    }

    /// Whether it is known in the end what became of this line. The reference never
    /// tells if those who have not acknowledged it leave.
    fn tells_outcome(&self, said: &Said) -> bool {
        self.side == Ours || said.passers_by.is_empty()
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
pub(super) fn not_heard(records: &[Record]) -> Vec<String> {
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
pub(super) fn verdict(records: &[Record]) -> anyhow::Result<()> {
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

    const NAMES: [&str; 2] = ["a/b/ann/1", "a/b/bob/2"];
    const ANN: MemberId = MemberId(0);
    const BOB: MemberId = MemberId(1);

    /// Ann, who says "one" and "two" to Bob, of the reference.
    fn records() -> Vec<Record> {
        let mut records = vec![
            Record::new("ann", Ours, "a/b/ann".to_owned()),
            Record::new("bob", Side::Theirs, "a/b/bob".to_owned()),
        ];
        for (record, name) in records.iter_mut().zip(NAMES) {
            record.on_line(&format!(r#"{{"event":"connected","name":"{name}"}}"#)).unwrap();
        }
        for text in ["one", "two"] {
            records[ANN.0].said.push(Said {
                listeners: vec![BOB],
                passers_by: Vec::new(),
                acks: Acks::Listeners,
                text: text.to_owned(),
                outcome: None,
            });
        }
        records
    }

    fn message(source: MemberId, text: &str) -> String {
        let source = NAMES[source.0];
        format!(r#"{{"event":"message","source":"{source}","payload":"{text}"}}"#)
    }

    fn delivered(line: u32, to: &str) -> String {
        format!(r#"{{"event":"delivered","line":{line},"members":[{to}]}}"#)
    }

    /// What is wrong if Bob hears these texts, and Ann these outcomes.
    fn check(heard: &[&str], outcomes: &[String], expected: Option<&str>) {
        let mut records = records();
        for text in heard {
            records[BOB.0].on_line(&message(ANN, text)).unwrap();
        }
        let told = outcomes.iter().try_for_each(|line| records[ANN.0].on_line(line));
        let error = told.and_then(|()| verdict(&records)).err().map(|error| error.to_string());
        assert_eq!(error.as_deref(), expected);
    }

    fn all_delivered() -> [String; 2] {
        [delivered(0, r#""a/b/bob/2""#), delivered(1, r#""a/b/bob/2""#)]
    }

    #[test]
    fn what_was_said_is_heard_once_and_in_order() {
        check(&["one", "two"], &all_delivered(), None);
        check(&["one"], &all_delivered(), Some("bob heard ann: missing: two"));
        check(&["one", "two", "two"], &all_delivered(), Some("bob heard ann: repeated: two"));
        check(&["two", "one"], &all_delivered(), Some("bob heard ann: order changed: two, one"));
    }

    #[test]
    fn each_line_has_one_outcome_that_names_its_listeners() {
        let [first, second] = all_delivered();
        let heard = ["one", "two"];
        let check = |outcomes: &[String], expected| check(&heard, outcomes, Some(expected));
        check(std::slice::from_ref(&first), r#"ann has no outcome of "two""#);
        check(&[first.clone(), first.clone()], "a second outcome of line 0");
        check(&[delivered(2, "")], "an outcome of line 2, which it was not given");
        check(
            &[first, delivered(1, "")],
            r#"ann said "two": Delivered({}), which should be {"a/b/bob/2"}, by chance {}"#,
        );
        let lost = second.replace("delivered", "lost");
        check(&[lost], r#"line 1 is lost for {"a/b/bob/2"} "#);
    }

    #[test]
    fn who_is_away_is_named_in_the_loss() {
        let mut records = records();
        records[ANN.0].said.truncate(1);
        records[ANN.0].said[0].acks = Acks::NotThese(vec![BOB]);
        records[BOB.0].on_line(&message(ANN, "one")).unwrap();
        let lost = all_delivered()[0].replace("delivered", "lost");
        records[ANN.0].on_line(&lost).unwrap();
        verdict(&records).unwrap();
    }

    #[test]
    fn who_passes_by_hears_a_line_or_not() {
        let in_passing = |heard: &[&str], outcome: &str| {
            let mut records = records();
            let said = &mut records[ANN.0].said[0];
            said.passers_by = std::mem::take(&mut said.listeners);
            for text in heard {
                records[BOB.0].on_line(&message(ANN, text)).unwrap();
            }
            records[ANN.0].on_line(outcome).unwrap();
            records[ANN.0].on_line(&all_delivered()[1]).unwrap();
            assert!(not_heard(&records).is_empty());
            verdict(&records).map_err(|error| error.to_string())
        };
        let [reached, _] = all_delivered();
        for outcome in [delivered(0, ""), reached.replace("delivered", "lost"), reached] {
            in_passing(&["one", "two"], &outcome).unwrap();
            in_passing(&["two"], &outcome).unwrap();
            let error = in_passing(&["two", "one"], &outcome).unwrap_err();
            assert_eq!(error, "bob heard ann: order changed: two, one");
        }
    }

    #[test]
    fn what_is_missing_is_known_while_one_waits() {
        let mut records = records();
        records[BOB.0].on_line(&message(ANN, "one")).unwrap();
        records[ANN.0].on_line(&all_delivered()[0]).unwrap();
        let expected = ["bob heard 1 of 2 lines of ann", "ann has no outcome of 1 lines"];
        assert_eq!(not_heard(&records), expected);
    }

    #[test]
    fn echoes_come_back_to_the_caller() {
        let mut records = records();
        records[ANN.0].said.clear();
        records[BOB.0].echoes.push(Echo { listener: ANN, text: "one".to_owned() });
        assert_eq!(not_heard(&records), ["ann heard 0 of 1 lines of bob"]);
        records[ANN.0].on_line(&message(BOB, "one")).unwrap();
        verdict(&records).unwrap();
    }

    #[test]
    fn strangers_errors_and_gaps_are_mistakes() {
        let mut records = records();
        records[BOB.0].on_line(&message(ANN, "one").replace("ann", "eve")).unwrap();
        let error = verdict(&records).unwrap_err().to_string();
        assert_eq!(error, "bob heard a stranger, a/b/eve/1");
        let line = r#"{"event":"error","code":"alone","message":"nobody else is in"}"#;
        let error = records[BOB.0].on_line(line).unwrap_err().to_string();
        assert_eq!(error, "error alone: nobody else is in");
        records[BOB.0].tolerates.insert("alone");
        records[BOB.0].on_line(line).unwrap();
        assert!(records[BOB.0].on_line(r#"{"event":"missed","count":1}"#).is_err());
        assert!(records[BOB.0].on_line("listening").is_err());
    }

    fn check_text(line: &str, expected: &str) {
        assert_eq!(heard_as(&Event(serde_json::from_str(line).unwrap())), expected);
    }

    #[test]
    fn messages_are_compared_with_type_and_metadata() {
        check_text(r#"{"payload":"hi","payload_type":"msg","metadata":{}}"#, "hi");
        check_text(r#"{"payload_base64":"/w==","payload_type":"t"}"#, "base64:/w== [t]");
        check_text(r#"{"payload":"","metadata":{"a":"b"}}"#, r#" {"a":"b"}"#);
    }

    #[test]
    fn long_payloads_that_differ_at_the_end_differ() {
        let text = |end: &str| text_of(&("x".repeat(1000) + end), "msg", "");
        assert_ne!(text("a"), text("b"));
        assert_eq!(text("a"), text("a"));
        assert!(text("a").len() < SHOWN);
    }
}
