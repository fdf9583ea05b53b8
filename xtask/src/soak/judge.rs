//! What was said and what was heard, for as long as one likes: the soak's judge. Pure:
//! events and times in, the first thing that is wrong out.
//!
//! Remembers only what is not settled. A line is settled when its outcome is known
//! and everybody heard it who was to; then it is forgotten.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

/// A member's place in its world. Never given twice.
pub(super) type MemberId = u32;

/// Lines of a speaker that are not settled. More of them are a failure.
const MAX_OPEN: usize = 4096;

/// Until a line is settled. What a session gives it, and the time in which nodes and
/// listeners stand still, is less than half of it.
const SETTLED_WITHIN: Duration = Duration::from_secs(120);

/// How long a member that is gone is remembered: its last words are still on the way.
const REMEMBERED: Duration = Duration::from_secs(120);

/// Everything that was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Lines that were given to members.
    pub(super) said: u64,
    /// Messages that members told.
    pub(super) heard: u64,
    /// Lines that everybody acknowledged who was in.
    pub(super) delivered: u64,
    /// Lines that were reported as lost for somebody who was away, dying or leaving.
    pub(super) lost: u64,
    /// Lines that were meant for a member and not told by it, because the first that
    /// arrived was a later one, with which a stream starts (docs/session.md). Only
    /// where something gets lost: with a node that dies.
    pub(super) before_first: u64,
}

/// The members of a group and their unsettled lines.
#[derive(Debug, Default)]
pub(super) struct Judge {
    members: BTreeMap<MemberId, Member>,
    names: HashMap<String, MemberId>,
    /// Whether what is sent may get lost on the way, and has to be sent again.
    is_lossy: bool,
    pub(super) counts: Counts,
}

#[derive(Debug)]
struct Member {
    label: String,
    name: String,
    /// It is in and gets everything.
    is_firm: bool,
    /// Since when it is out.
    gone_at: Option<Instant>,
    /// Number of its next line.
    next: u64,
    open: VecDeque<Line>,
    /// The first and the last number that it heard, by speaker.
    heard: BTreeMap<MemberId, (u64, u64)>,
}

#[derive(Debug)]
struct Line {
    number: u64,
    said_at: Instant,
    /// Who was firm when it was said, and still is.
    firm: BTreeSet<MemberId>,
    /// Who has yet to hear it.
    owed: BTreeSet<MemberId>,
    heard_by: BTreeSet<MemberId>,
    has_outcome: bool,
}

impl Judge {
    /// Of a group without members.
    pub(super) fn new(is_lossy: bool) -> Self {
        Self { is_lossy, ..Self::default() }
    }

    /// A member has a name now.
    pub(super) fn meet(&mut self, id: MemberId, label: &str, name: &str) {
        self.names.insert(name.to_owned(), id);
        let member = Member {
            label: label.to_owned(),
            name: name.to_owned(),
            is_firm: false,
            gone_at: None,
            next: 0,
            open: VecDeque::new(),
            heard: BTreeMap::new(),
        };
        self.members.insert(id, member);
    }

    /// It is in: it hears all that is said from now on.
    pub(super) fn firm(&mut self, id: MemberId) {
        if let Some(member) = self.members.get_mut(&id) {
            member.is_firm = true;
        }
    }

    /// It may or may not hear what is not settled and what is said from now on.
    pub(super) fn loosen(&mut self, id: MemberId) {
        if let Some(member) = self.members.get_mut(&id) {
            member.is_firm = false;
        }
        for speaker in self.members.values_mut() {
            for line in &mut speaker.open {
                line.firm.remove(&id);
                line.owed.remove(&id);
            }
            speaker.settle();
        }
    }

    /// As [`Self::loosen`]; and of its own lines that are not settled, nobody has to
    /// hear any: it is taken out in the middle of them.
    pub(super) fn dismiss(&mut self, id: MemberId) {
        self.loosen(id);
        if let Some(member) = self.members.get_mut(&id) {
            for line in &mut member.open {
                line.firm.clear();
                line.owed.clear();
            }
            member.settle();
        }
    }

    /// It is out, and nobody waits for the outcomes of its lines any more.
    pub(super) fn gone(&mut self, id: MemberId, now: Instant) {
        self.loosen(id);
        if let Some(member) = self.members.get_mut(&id) {
            member.gone_at = Some(now);
            member.open.clear();
            member.heard.clear();
        }
    }

    /// Has `speaker` say a line; tells how it begins.
    ///
    /// # Errors
    /// If too many of its lines are not settled.
    pub(super) fn say(&mut self, speaker: MemberId, now: Instant) -> anyhow::Result<String> {
        let firm: BTreeSet<MemberId> = self
            .members
            .iter()
            .filter(|(id, member)| **id != speaker && member.is_firm)
            .map(|(id, _)| *id)
            .collect();
        let member = self.members.get_mut(&speaker).context("it has no name")?;
        ensure!(member.open.len() < MAX_OPEN, "{MAX_OPEN} lines are not settled");
        let number = member.next;
        member.next += 1;
        member.open.push_back(Line {
            number,
            said_at: now,
            owed: firm.clone(),
            firm,
            heard_by: BTreeSet::new(),
            has_outcome: false,
        });
        self.counts.said += 1;
        Ok(format!("{} {number}", member.label))
    }

    /// `listener` told a message.
    ///
    /// # Errors
    /// If nobody said it, or if it comes twice, too early or too late.
    pub(super) fn heard(
        &mut self,
        listener: MemberId,
        source: &str,
        text: &str,
    ) -> anyhow::Result<()> {
        let speaker = *self.names.get(source).with_context(|| format!("a stranger: {source}"))?;
        let last = self.members.get(&listener).and_then(|member| member.heard.get(&speaker));
        let (first, last) = last.map_or((None, None), |(first, last)| (Some(*first), Some(*last)));
        let said = self.members.get_mut(&speaker).context("a stranger")?;
        let mut words = text.split(' ');
        let label = words.next().unwrap_or_default();
        let number = words.next().and_then(|number| number.parse::<u64>().ok());
        let number = number.filter(|number| label == said.label && *number < said.next);
        let Some(number) = number else {
            let start: String = text.chars().take(40).collect();
            bail!("{} never said {start:?}", said.label);
        };
        if let Some(last) = last {
            ensure!(number != last, "line {number} of {} twice", said.label);
            ensure!(number > last, "line {number} of {} after {last}", said.label);
        }
        let may_start_late = self.is_lossy && first.is_none();
        for line in &mut said.open {
            if line.number < number && line.owed.remove(&listener) {
                ensure!(may_start_late, "line {number} of {}, but not {}", said.label, line.number);
                line.heard_by.insert(listener);
                self.counts.before_first += 1;
            }
            if line.number == number {
                line.owed.remove(&listener);
                line.heard_by.insert(listener);
            }
        }
        said.settle();
        if let Some(member) = self.members.get_mut(&listener)
            && member.gone_at.is_none()
        {
            member.heard.insert(speaker, (first.unwrap_or(number), number));
        }
        self.counts.heard += 1;
        Ok(())
    }

    /// `speaker` told what became of a line: these acknowledged it, or did not.
    ///
    /// # Errors
    /// If there is no such line or it has an outcome already, if somebody is left out
    /// who was in, or if somebody acknowledged it and passed it over.
    pub(super) fn outcome(
        &mut self,
        speaker: MemberId,
        number: u64,
        is_delivered: bool,
        members: &[&str],
    ) -> anyhow::Result<()> {
        let ids: BTreeSet<MemberId> =
            members.iter().filter_map(|name| self.names.get(*name)).copied().collect();
        let last = |id: MemberId| self.members.get(&id).and_then(|at| at.heard.get(&speaker));
        let heard: BTreeMap<MemberId, (u64, u64)> =
            ids.iter().filter_map(|&id| last(id).map(|heard| (id, *heard))).collect();
        let is_here = |id: MemberId| self.members.get(&id).is_some_and(|one| one.is_firm);
        let here: BTreeSet<MemberId> = ids.iter().copied().filter(|&id| is_here(id)).collect();
        let label = |id: MemberId| match self.members.get(&id) {
            Some(member) => member.label.clone(),
            None => id.to_string(),
        };
        let left_out = |line: &Line| {
            let wrong = line.firm.iter().find(|id| ids.contains(id) != is_delivered);
            wrong.map(|id| label(*id))
        };
        let open = self.members.get(&speaker).map(|member| &member.open);
        let line = open.and_then(|open| open.iter().find(|line| line.number == number));
        let line = line.with_context(|| format!("a further outcome of line {number}"))?;
        ensure!(!line.has_outcome, "a second outcome of line {number}");
        if let Some(who) = left_out(line) {
            let what = if is_delivered { "delivered without" } else { "lost for" };
            bail!("line {number} is {what} {who}, who was in all the time");
        }
        let mut owes = BTreeSet::new();
        if is_delivered {
            for &id in ids.difference(&line.heard_by) {
                match heard.get(&id) {
                    Some(&(first, last)) if first < number && last > number => {
                        bail!("line {number}: {} acknowledged and passed over it", label(id))
                    }
                    Some(&(first, _)) if first > number => {
                        let label = label(id);
                        ensure!(
                            self.is_lossy,
                            "line {number}: {label} began after it with {first}"
                        );
                        self.counts.before_first += 1;
                    }
                    _ if here.contains(&id) => {
                        owes.insert(id);
                    }
                    _ => {}
                }
            }
            self.counts.delivered += 1;
        } else {
            self.counts.lost += 1;
        }
        if let Some(member) = self.members.get_mut(&speaker) {
            if let Some(line) = member.open.iter_mut().find(|line| line.number == number) {
                line.has_outcome = true;
                line.owed.extend(owes);
            }
            member.settle();
        }
        Ok(())
    }

    /// Lines of all members that are not settled.
    pub(super) fn open(&self) -> usize {
        self.members.values().map(|member| member.open.len()).sum()
    }

    /// Lines of one member that are not settled.
    pub(super) fn open_of(&self, id: MemberId) -> usize {
        self.members.get(&id).map_or(0, |member| member.open.len())
    }

    /// Whether one member's lines have their outcomes.
    pub(super) fn has_outcomes(&self, id: MemberId) -> bool {
        self.members.get(&id).is_none_or(|member| member.open.iter().all(|line| line.has_outcome))
    }

    /// Forgets who is gone for long.
    ///
    /// # Errors
    /// If a line should have been settled by now.
    pub(super) fn check(&mut self, now: Instant) -> anyhow::Result<()> {
        for member in self.members.values() {
            let Some(line) = member.open.front() else { continue };
            if now.saturating_duration_since(line.said_at) < SETTLED_WITHIN {
                continue;
            }
            let listeners: Vec<&str> = line
                .owed
                .iter()
                .filter_map(|id| self.members.get(id))
                .map(|listener| listener.label.as_str())
                .collect();
            let (label, number) = (&member.label, line.number);
            let outcome = if line.has_outcome { "an" } else { "no" };
            bail!(
                "{label}: after {SETTLED_WITHIN:?} line {number} has {outcome} outcome, and is \
                 not heard by {listeners:?}"
            );
        }
        let is_over = |at: Instant| now.saturating_duration_since(at) > REMEMBERED;
        let over: Vec<MemberId> = self
            .members
            .iter()
            .filter(|(_, member)| member.gone_at.is_some_and(is_over))
            .map(|(id, _)| *id)
            .collect();
        for id in over {
            if let Some(member) = self.members.remove(&id) {
                self.names.remove(&member.name);
            }
            for member in self.members.values_mut() {
                member.heard.remove(&id);
            }
        }
        Ok(())
    }
}

impl Member {
    /// Forgets the oldest lines, as far as they are settled.
    fn settle(&mut self) {
        while self.open.front().is_some_and(|line| line.has_outcome && line.owed.is_empty()) {
            self.open.pop_front();
        }
    }
}

#[cfg(test)]
mod tests;
