//! What was said and what was heard: the demo's judge. Pure: events and times
//! in, what is still missing and what was wrong out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::event::{Event, Presence};
use crate::difference::difference;

/// A member's place in the conversation. The moderator has the last one.
pub(super) type MemberId = usize;

/// Everything that is known about one run.
#[derive(Debug)]
pub(super) struct Conversation {
    mls: bool,
    members: Vec<Member>,
    /// Invitations that were answered "joined", as they were given.
    joined: BTreeSet<String>,
    problems: Vec<String>,
}

#[derive(Debug)]
struct Member {
    label: String,
    address: String,
    name: Option<String>,
    is_waiting: bool,
    session: Option<Session>,
    said: Vec<Line>,
    /// What it got, in order, by speaker.
    heard: BTreeMap<MemberId, Vec<String>>,
    roster: Option<Vec<Presence>>,
    closed: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Session {
    mls: bool,
    suite: Option<String>,
    epoch: Option<u64>,
}

#[derive(Debug)]
struct Line {
    text: String,
    said_at: Instant,
    /// Time to each member that heard it.
    delays: BTreeMap<MemberId, Duration>,
    outcome: Option<Outcome>,
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Delivered(BTreeSet<String>),
    Lost(Vec<String>),
}

/// A line that has arrived everywhere.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Completed<'a> {
    pub(super) speaker: MemberId,
    pub(super) label: &'a str,
    pub(super) text: &'a str,
    pub(super) listeners: Vec<&'a str>,
    /// Until the last of them had it.
    pub(super) took: Duration,
}

/// What the table at the end shows.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) members: usize,
    pub(super) messages: usize,
    pub(super) deliveries: usize,
    pub(super) lost: usize,
    /// From writing a line to reading it at another member.
    pub(super) delivery_p50: Option<Duration>,
    pub(super) delivery_p99: Option<Duration>,
    pub(super) suite: Option<String>,
    pub(super) epoch: Option<u64>,
}

impl Conversation {
    /// Members by label and name without id; the last one moderates.
    pub(super) fn new(members: impl IntoIterator<Item = (String, String)>, mls: bool) -> Self {
        let members = members
            .into_iter()
            .map(|(label, address)| Member {
                label,
                address,
                name: None,
                is_waiting: false,
                session: None,
                said: Vec::new(),
                heard: BTreeMap::new(),
                roster: None,
                closed: None,
            })
            .collect();
        Self { mls, members, joined: BTreeSet::new(), problems: Vec::new() }
    }

    /// Notes that `speaker` is given a line to say.
    pub(super) fn say(&mut self, speaker: MemberId, text: String, now: Instant) {
        let line = Line { text, said_at: now, delays: BTreeMap::new(), outcome: None };
        self.members[speaker].said.push(line);
    }

    /// Notes an event of `at`; tells of the line that it completed.
    pub(super) fn on_event(
        &mut self,
        at: MemberId,
        event: Event,
        now: Instant,
    ) -> Option<Completed<'_>> {
        let member = &mut self.members[at];
        match event {
            Event::Connected { name } => member.name = Some(name),
            Event::Waiting => member.is_waiting = true,
            Event::Session { mls, mls_suite: suite, epoch } => {
                member.session = Some(Session { mls, suite, epoch });
            }
            Event::Invite { name, outcome, reason } => self.on_invite(name, &outcome, reason),
            Event::Message { source, payload } => {
                return self.on_message(at, &source, payload, now);
            }
            Event::Delivered { line, members } => {
                return self.on_outcome(
                    at,
                    line,
                    Outcome::Delivered(members.into_iter().collect()),
                );
            }
            Event::Lost { line, members } => {
                return self.on_outcome(at, line, Outcome::Lost(members));
            }
            Event::Who { members, mls_suite, epoch } => {
                member.roster = Some(members);
                if let Some(session) = &mut member.session {
                    session.suite = mls_suite.or_else(|| session.suite.take());
                    session.epoch = epoch.or(session.epoch);
                }
            }
            Event::Closed { reason } => member.closed = Some(reason),
            Event::Error { code, message } => self.problem(at, &format!("error {code}: {message}")),
            Event::Other => {}
        }
        None
    }

    /// Notes something that should not have happened at `at`.
    pub(super) fn problem(&mut self, at: MemberId, text: &str) {
        self.problems.push(format!("{}: {text}", self.members[at].label));
    }

    /// What went wrong so far, apart from what may still come.
    pub(super) fn problems(&self) -> &[String] {
        &self.problems
    }

    fn on_invite(&mut self, name: String, outcome: &str, reason: Option<String>) {
        if outcome == "joined" {
            self.joined.insert(name);
        } else {
            let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
            self.problem(self.moderator(), &format!("invitation of {name}: {outcome}{reason}"));
        }
    }

    fn on_message(
        &mut self,
        at: MemberId,
        source: &str,
        text: String,
        now: Instant,
    ) -> Option<Completed<'_>> {
        let Some(speaker) =
            self.members.iter().position(|member| member.name.as_deref() == Some(source))
        else {
            self.problem(at, &format!("heard {text:?} from a stranger, {source}"));
            return None;
        };
        let line = self.members[speaker].said.iter().rposition(|line| line.text == text);
        self.members[at].heard.entry(speaker).or_default().push(text);
        let line = line?;
        let said = &mut self.members[speaker].said[line];
        let delay = now.saturating_duration_since(said.said_at);
        said.delays.entry(at).or_insert(delay);
        self.completed(speaker, line)
    }

    fn on_outcome(&mut self, at: MemberId, line: usize, outcome: Outcome) -> Option<Completed<'_>> {
        match self.members[at].said.get_mut(line) {
            None => self.problem(at, &format!("outcome of line {line}, which it never said")),
            Some(said) if said.outcome.is_some() => {
                self.problem(at, &format!("second outcome of line {line}"));
            }
            Some(said) => {
                if let Outcome::Lost(members) = &outcome {
                    let text = format!("line {line} is lost for {}", members.join(", "));
                    said.outcome = Some(outcome);
                    self.problem(at, &text);
                    return None;
                }
                said.outcome = Some(outcome);
                return self.completed(at, line);
            }
        }
        None
    }

    fn completed(&self, speaker: MemberId, line: usize) -> Option<Completed<'_>> {
        let line = self.members[speaker].said.get(line)?;
        if line.outcome.is_none() || line.delays.len() + 1 < self.members.len() {
            return None;
        }
        Some(Completed {
            speaker,
            label: self.label(speaker),
            text: &line.text,
            listeners: line.delays.keys().map(|&id| self.label(id)).collect(),
            took: line.delays.values().max().copied().unwrap_or_default(),
        })
    }

    /// The short name of a member.
    pub(super) fn label(&self, id: MemberId) -> &str {
        &self.members[id].label
    }

    fn moderator(&self) -> MemberId {
        self.members.len() - 1
    }

    /// Clients that do not wait for their invitation yet.
    pub(super) fn not_waiting(&self) -> Vec<String> {
        self.missing(&self.members[..self.moderator()], "waiting", |member| member.is_waiting)
    }

    /// Who is not in the group yet.
    pub(super) fn not_in(&self) -> Vec<String> {
        let mut missing =
            self.missing(&self.members, "in a session", |member| member.session.is_some());
        let clients = &self.members[..self.moderator()];
        missing.extend(self.missing(clients, "reported as joined", |member| {
            self.joined.contains(&member.address)
        }));
        missing
    }

    /// Lines that were not heard by all, or have no outcome yet.
    pub(super) fn not_heard(&self) -> Vec<String> {
        let mut missing = Vec::new();
        for (speaker, member) in self.members.iter().enumerate() {
            for line in &member.said {
                let by: Vec<&str> = self
                    .others(speaker)
                    .filter(|id| !line.delays.contains_key(id))
                    .map(|id| self.label(id))
                    .collect();
                if !by.is_empty() {
                    missing.push(format!(
                        "{} did not hear {}: {:?}",
                        by.join(", "),
                        member.label,
                        line.text
                    ));
                }
                if line.outcome.is_none() {
                    missing.push(format!("{} has no outcome of {:?}", member.label, line.text));
                }
            }
        }
        missing
    }

    /// Who has not answered `/who` yet.
    pub(super) fn not_listed(&self) -> Vec<String> {
        self.missing(&self.members, "done with /who", |member| member.roster.is_some())
    }

    fn missing(
        &self,
        members: &[Member],
        what: &str,
        is_there: impl Fn(&Member) -> bool,
    ) -> Vec<String> {
        members
            .iter()
            .filter(|member| !is_there(member))
            .map(|member| format!("{} is not {what}", member.label))
            .collect()
    }

    fn others(&self, id: MemberId) -> impl Iterator<Item = MemberId> + use<> {
        (0..self.members.len()).filter(move |&other| other != id)
    }

    /// Everything that was not as promised, once it is over. Empty: all held.
    pub(super) fn failures(&self) -> Vec<String> {
        let mut failures = self.problems.clone();
        for (id, member) in self.members.iter().enumerate() {
            let mut fail = |text: String| failures.push(format!("{}: {text}", member.label));
            self.check_heard(id, &mut fail);
            self.check_said(id, &mut fail);
            self.check_session(member, &mut fail);
            let reason = if id == self.moderator() { "left" } else { "moderator_closed" };
            if member.closed.as_deref() != Some(reason) {
                fail(format!("closed with {:?}, expected {reason}", member.closed));
            }
        }
        failures
    }

    /// Exactly once, in order, from every other member.
    fn check_heard(&self, listener: MemberId, fail: &mut impl FnMut(String)) {
        let heard = &self.members[listener].heard;
        if heard.contains_key(&listener) {
            fail("heard itself".to_owned());
        }
        for speaker in self.others(listener) {
            let said: Vec<&str> =
                self.members[speaker].said.iter().map(|line| line.text.as_str()).collect();
            let heard: Vec<&str> =
                heard.get(&speaker).into_iter().flatten().map(String::as_str).collect();
            if let Some(difference) = difference(&said, &heard) {
                fail(format!("of what {} said, {difference}", self.label(speaker)));
            }
        }
    }

    /// Each line was acknowledged by every other member.
    fn check_said(&self, speaker: MemberId, fail: &mut impl FnMut(String)) {
        let everybody: BTreeSet<&str> =
            self.others(speaker).filter_map(|id| self.members[id].name.as_deref()).collect();
        for line in &self.members[speaker].said {
            match &line.outcome {
                None => fail(format!("no outcome of {:?}", line.text)),
                // Noted as a problem when it came.
                Some(Outcome::Lost(_)) => {}
                Some(Outcome::Delivered(to))
                    if to.iter().map(String::as_str).eq(everybody.iter().copied()) => {}
                Some(Outcome::Delivered(to)) => fail(format!(
                    "{:?} is reported as delivered to {to:?}, not to {everybody:?}",
                    line.text
                )),
            }
        }
    }

    /// Encrypted as asked for, and the same view of the group at every member.
    fn check_session(&self, member: &Member, fail: &mut impl FnMut(String)) {
        let Some(session) = &member.session else {
            return fail("was in no session".to_owned());
        };
        if session.mls != self.mls {
            fail(format!("mls is {}, expected {}", session.mls, self.mls));
        }
        let moderator = &self.members[self.moderator()];
        if let Some(theirs) = &moderator.session
            && (&theirs.suite, theirs.epoch) != (&session.suite, session.epoch)
        {
            fail(format!(
                "suite and epoch {:?} {:?}, at the moderator {:?} {:?}",
                session.suite, session.epoch, theirs.suite, theirs.epoch
            ));
        }
        let mut roster = member.roster.clone().unwrap_or_default();
        roster.sort();
        let mut everybody: Vec<Presence> = self
            .members
            .iter()
            .filter_map(|member| member.name.clone())
            .map(|name| Presence { name, online: true })
            .collect();
        everybody.sort();
        if roster != everybody {
            fail(format!("/who lists {roster:?}, expected {everybody:?}"));
        }
    }

    /// The numbers of the run so far.
    pub(super) fn summary(&self) -> Summary {
        let lines = || self.members.iter().flat_map(|member| &member.said);
        let mut delays: Vec<Duration> =
            lines().flat_map(|line| line.delays.values().copied()).collect();
        delays.sort();
        let messages = lines().count();
        let session = self.members[self.moderator()].session.as_ref();
        Summary {
            members: self.members.len(),
            messages,
            deliveries: delays.len(),
            lost: messages * (self.members.len() - 1) - delays.len(),
            delivery_p50: percentile(&delays, 50),
            delivery_p99: percentile(&delays, 99),
            suite: session.and_then(|session| session.suite.clone()),
            epoch: session.and_then(|session| session.epoch),
        }
    }
}

/// The smallest value that `percent` of all do not exceed.
fn percentile(sorted: &[Duration], percent: usize) -> Option<Duration> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.max(1) - 1).copied()
}

#[cfg(test)]
mod tests;
