//! How a cell is played.

use std::time::Duration;

use anyhow::{Context, bail, ensure};

use super::cell::{Cell, Hit, Moment, Operation, Victim};
use crate::node::{Node, program};
use crate::stage::Stage;
use crate::stage::cast::Ours;
use crate::stage::record::{Acks, MemberId, Outcome, Record};
use crate::stage::tools::Part;

/// How long somebody stands still: longer than it takes until what it does not answer
/// is repeated, shorter than it takes until that is given up.
const STILL: Duration = Duration::from_millis(1200);

/// Seconds until something is repeated, and how often. Together longer than it takes
/// everybody to find a node again.
const TIMEOUT: f64 = 0.5;
const MAX_RETRIES: u32 = 9;

/// Who plays.
struct Scene {
    cell: Cell,
    /// In front of the subject's link.
    holding: Node,
    moderator: MemberId,
    /// The participant to whom things happen.
    subject: MemberId,
    /// The newcomer of an invitation, who is the subject then; who is removed by a
    /// commit.
    other: Option<MemberId>,
    /// In the group, as it should be in the end, but for who was hit.
    group: Vec<MemberId>,
}

/// Plays it; tells what became of the operation, and has the group go on as
/// docs/testing.md says.
pub(super) fn play(stage: &mut Stage<'_>, cell: Cell) -> anyhow::Result<String> {
    let mut scene = Scene::new(stage, cell)?;
    match cell.moment {
        Moment::Before => {
            scene.hit(stage)?;
            if scene.can_begin() {
                scene.begin(stage)?;
            }
            scene.relent(stage)?;
        }
        Moment::During => {
            scene.hold(&format!("hold {} in", cell.operation.message()))?;
            scene.begin(stage)?;
            ensure!(scene.holding.line()? == "held", "nothing was held");
            if cell.operation == Operation::Close {
                scene.others_are_told(stage)?;
            }
            if cell.operation == Operation::Rejoin {
                // The others have the line; who is held comes back only now.
                stage.settled(&[scene.moderator])?;
            }
            scene.hit(stage)?;
            scene.relent(stage)?;
        }
        Moment::After => {
            scene.begin(stage)?;
            scene.is_done(stage)?;
            scene.hit(stage)?;
            scene.relent(stage)?;
        }
    }
    scene.settle(stage)?;
    let outcome = scene.outcome(stage)?;
    scene.go_on(stage)?;
    Ok(outcome)
}

impl Scene {
    fn new(stage: &mut Stage<'_>, cell: Cell) -> anyhow::Result<Self> {
        let mut command = program(&stage.tools().programs.helper("slim-holding"));
        let holding = Node::start(command.arg(stage.node_address()), None)?;
        let address = holding.address().to_owned();
        let subject = stage.start_at(&Part::participant(Ours, "subject"), &address)?;
        let bystander = stage.start(&Part::participant(Ours, "bystander"))?;
        let mut participants = vec![subject, bystander];
        let mut other = None;
        match cell.operation {
            Operation::Invite => {
                participants[0] = stage.start(&Part::participant(Ours, "member"))?;
                other = Some(subject);
            }
            Operation::Commit | Operation::Rejoin => {
                let removed = stage.start(&Part::participant(Ours, "removed"))?;
                participants.push(removed);
                other = Some(removed);
            }
            Operation::Publish | Operation::Close => {}
        }
        let waiting: Vec<MemberId> = participants.iter().copied().chain(other).collect();
        stage.all_have(&waiting, "waiting")?;
        let invites = stage.addresses(&participants);
        let moderator = stage.start(&Part {
            timeout: TIMEOUT,
            max_retries: MAX_RETRIES,
            ..Part::moderator(Ours, true, invites)
        })?;
        // Who is being removed when it does not answer.
        stage.tolerate(moderator, "unconfirmed");
        stage.has_joined(moderator, &participants)?;
        let mut group = participants;
        group.push(moderator);
        stage.converse(&group, 1)?;
        let mut scene = Self { cell, holding, moderator, subject, other, group };
        scene.prepare(stage)?;
        Ok(scene)
    }

    /// What has to have happened before the operation.
    fn prepare(&mut self, stage: &mut Stage<'_>) -> anyhow::Result<()> {
        let Some(other) = self.other else { return Ok(()) };
        match self.cell.operation {
            Operation::Rejoin => {
                self.hold("lose GroupUpdate in")?;
                stage.remove(self.moderator, other)?;
                self.hold("pass")?;
                self.group.retain(|&id| id != other);
            }
            Operation::Commit => {
                stage.may_end(&[other]);
                self.group.retain(|&id| id != other);
            }
            _ => {}
        }
        Ok(())
    }

    /// Tells the proxy in front of the subject what to do.
    fn hold(&mut self, what: &str) -> anyhow::Result<()> {
        let answer = self.holding.ask(what)?;
        ensure!(answer == "ok", "{what}: {answer}");
        Ok(())
    }

    /// Who is hit, if it is a member.
    fn victim(&self) -> Option<MemberId> {
        match self.cell.victim {
            Victim::Node => None,
            Victim::Moderator => Some(self.moderator),
            Victim::Participant => Some(self.subject),
        }
    }

    /// Whether who was hit is gone.
    fn is_gone(&self) -> bool {
        self.cell.hit != Hit::Frozen
    }

    /// Whether a member is not there any more.
    fn lacks(&self, id: MemberId) -> bool {
        self.is_gone() && self.victim() == Some(id)
    }

    /// Whether the moderator can still be told something.
    fn can_begin(&self) -> bool {
        !self.lacks(self.moderator)
    }

    /// Whether the moderator ended in a way that ends the group.
    fn is_over(&self) -> bool {
        let is_closed = self.cell.operation == Operation::Close && self.can_begin();
        let is_stopped = self.cell.hit == Hit::Stopped && self.cell.victim == Victim::Moderator;
        is_closed || is_stopped || self.is_closed_without_moderator()
    }

    /// The moderator was killed after it had told everybody that the group is over.
    fn is_closed_without_moderator(&self) -> bool {
        self.cell.operation == Operation::Close && self.cell.moment != Moment::Before
    }

    fn begin(&mut self, stage: &mut Stage<'_>) -> anyhow::Result<()> {
        match self.cell.operation {
            Operation::Invite => {
                let address = stage.addresses(&[self.subject]).join("");
                stage.command(self.moderator, &format!("/invite {address}"))
            }
            Operation::Commit => {
                let removed = self.other.context("nobody to remove")?;
                let address = stage.addresses(&[removed]).join("");
                stage.command(self.moderator, &format!("/remove {address}"))
            }
            Operation::Publish | Operation::Rejoin => self.say(stage, self.moderator),
            Operation::Close => {
                stage.may_end(&self.group);
                stage.command(self.moderator, "/leave")
            }
        }
    }

    /// Has somebody say something that everybody else may hear.
    fn say(&self, stage: &mut Stage<'_>, speaker: MemberId) -> anyhow::Result<()> {
        stage.passers_by = self.group.clone();
        stage.passers_by.extend(self.other);
        stage.passers_by.push(self.moderator);
        stage.say(speaker, &[])?;
        stage.passers_by.clear();
        Ok(())
    }

    /// Waits until the operation is done, with nobody hit.
    fn is_done(&mut self, stage: &mut Stage<'_>) -> anyhow::Result<()> {
        match self.cell.operation {
            Operation::Invite => {
                stage.has_joined(self.moderator, &[self.subject])?;
                self.group.push(self.subject);
                Ok(())
            }
            Operation::Commit => {
                let removed = self.other.context("nobody to remove")?;
                stage.have_ended(&[removed])?;
                self.has_removed(stage)
            }
            Operation::Publish => {
                stage.settled(&[self.moderator])?;
                self.has_heard(stage, self.subject)
            }
            Operation::Rejoin => {
                stage.settled(&[self.moderator])?;
                self.has_heard(stage, self.subject)?;
                self.knows_of_removal(stage)
            }
            Operation::Close => stage.have_ended(&self.group),
        }
    }

    /// Waits until the moderator tells that somebody was removed.
    fn has_removed(&self, stage: &mut Stage<'_>) -> anyhow::Result<()> {
        let is_removed = |member: &Record| {
            member.events("participant").any(|event| event.text("change") == "removed")
        };
        let moderator = self.moderator;
        stage.wait(|stage| stage.without(&[moderator], "tells the removal", is_removed))
    }

    /// Waits until the subject has taken in that somebody was removed.
    fn knows_of_removal(&self, stage: &mut Stage<'_>) -> anyhow::Result<()> {
        let has_left = |member: &Record| {
            member.events("participant").any(|event| event.text("change") == "left")
        };
        let subject = self.subject;
        stage.wait(|stage| stage.without(&[subject], "knows of the removal", has_left))
    }

    /// Waits until somebody hears the moderator's last line.
    fn has_heard(&self, stage: &mut Stage<'_>, id: MemberId) -> anyhow::Result<()> {
        let moderator = self.moderator;
        stage.wait(|stage| match stage.has_heard_last(id, moderator) {
            true => Vec::new(),
            false => vec!["the line is not heard".to_owned()],
        })
    }

    /// Waits until a closing that is held for the subject has reached the others.
    fn others_are_told(&self, stage: &mut Stage<'_>) -> anyhow::Result<()> {
        let others = self.group.iter().copied();
        let others: Vec<MemberId> =
            others.filter(|&id| id != self.subject && id != self.moderator).collect();
        stage.have_ended(&others)
    }

    /// It happens.
    fn hit(&mut self, stage: &mut Stage<'_>) -> anyhow::Result<()> {
        if self.is_over() {
            stage.may_end(&self.group);
            stage.may_end(&[self.subject, self.moderator]);
        }
        match (self.victim(), self.cell.hit) {
            (None, Hit::Killed | Hit::Stopped) if self.cell.operation == Operation::Close => {
                stage.tolerate(self.moderator, "not_told");
                if self.cell.hit == Hit::Killed { stage.kill_node() } else { stage.stop_node() }
            }
            (None, Hit::Killed) => stage.kill_node(),
            (None, Hit::Stopped) => stage.stop_node(),
            (None, Hit::Frozen) => stage.freeze_node(true),
            (Some(id), Hit::Killed) => stage.kill(id),
            (Some(id), Hit::Frozen) => stage.freeze(&[id]),
            (Some(id), Hit::Stopped) => {
                stage.terminate(id)?;
                // What is held may be what it waits for.
                if self.cell.moment == Moment::During { Ok(()) } else { stage.has_ended(id) }
            }
        }
    }

    /// What was held goes on its way, who stands still goes on, and who is stopped gets
    /// the time it needs. A node comes back.
    fn relent(&mut self, stage: &mut Stage<'_>) -> anyhow::Result<()> {
        match (self.victim(), self.cell.hit) {
            (None, Hit::Killed | Hit::Stopped) => {
                self.hold("cut")?;
                if self.cell.operation == Operation::Close && self.cell.moment != Moment::After {
                    // It does not wait for ever for a node that does not come, and says so.
                    stage.has_ended_untold(self.moderator)?;
                }
                stage.start_node()
            }
            (None, Hit::Frozen) => {
                self.hold("pass")?;
                stage.pass(STILL)?;
                stage.freeze_node(false)
            }
            (Some(id), Hit::Frozen) => {
                self.hold("pass")?;
                stage.pass(STILL)?;
                stage.thaw(&[id])
            }
            (Some(_), Hit::Killed) => self.hold("pass"),
            (Some(id), Hit::Stopped) => {
                if id == self.moderator && self.cell.moment == Moment::During {
                    // It has begun to end before what is held goes on.
                    self.others_are_told(stage)?;
                }
                self.hold("pass")?;
                stage.has_ended(id)
            }
        }
    }

    /// Waits until nothing more will become of the operation.
    fn settle(&mut self, stage: &mut Stage<'_>) -> anyhow::Result<()> {
        let Cell { operation, moment, .. } = self.cell;
        if self.is_over() {
            let left: Vec<MemberId> =
                self.group.iter().copied().filter(|&id| !self.lacks(id)).collect();
            let may_be_missed = operation == Operation::Close && moment != Moment::After;
            if may_be_missed && self.cell.victim == Victim::Node && self.is_gone() {
                // The moderator has ended; whether the others were told is the outcome.
                return Ok(());
            }
            if operation == Operation::Invite && moment == Moment::During {
                stage.have_ended(&[self.subject])?;
            }
            if operation == Operation::Commit {
                // It has not been removed yet, or has ended because of that.
                stage.have_ended(self.other.as_slice())?;
            }
            return stage.have_ended(&left);
        }
        if !self.can_begin() {
            return self.settle_without_moderator(stage);
        }
        if moment == Moment::After {
            return Ok(());
        }
        match operation {
            Operation::Invite => {
                let moderator = self.moderator;
                let address = stage.addresses(&[self.subject]).join("");
                stage.wait(|stage| {
                    let has_it = |member: &Record| member.invites(&address).next().is_some();
                    stage.without(&[moderator], "knows what became of the invitation", has_it)
                })?;
                if !self.lacks(self.subject) {
                    stage.has_joined(moderator, &[self.subject])?;
                    self.group.push(self.subject);
                }
                Ok(())
            }
            Operation::Publish | Operation::Rejoin if self.lacks(self.subject) => {
                stage.settled(&[self.moderator])
            }
            Operation::Commit | Operation::Publish | Operation::Rejoin => self.is_done(stage),
            Operation::Close => bail!("a group that is closed is over"),
        }
    }

    /// As [`Self::settle`], when the moderator was killed.
    fn settle_without_moderator(&mut self, stage: &mut Stage<'_>) -> anyhow::Result<()> {
        match (self.cell.operation, self.cell.moment) {
            (Operation::Invite, Moment::During) => {
                self.group.push(self.subject);
                stage.all_have(&[self.subject], "session")
            }
            // It is still in.
            (Operation::Commit, Moment::Before) => {
                self.group.extend(self.other);
                Ok(())
            }
            (Operation::Commit, Moment::During) => {
                self.knows_of_removal(stage)?;
                // It has seen the commit, and waits for a while to be told so.
                stage.have_ended(&[self.other.context("nobody to remove")?])
            }
            (Operation::Rejoin, Moment::During) => {
                self.knows_of_removal(stage)?;
                self.has_heard(stage, self.subject)
            }
            (Operation::Publish, Moment::During) => self.has_heard(stage, self.subject),
            _ => Ok(()),
        }
    }

    /// What became of the operation, in the words of the table.
    fn outcome(&self, stage: &Stage<'_>) -> anyhow::Result<String> {
        let moderator = stage.member(self.moderator);
        let has_begun = self.cell.moment != Moment::Before || self.can_begin();
        if !has_begun {
            return Ok("–".to_owned());
        }
        let ended = |id: MemberId| {
            let member = stage.member(id);
            member.events("closed").last().map(|event| event.text("reason").to_owned())
        };
        Ok(match self.cell.operation {
            Operation::Invite => {
                let address = stage.addresses(&[self.subject]).join("");
                match moderator.invites(&address).last() {
                    Some(event) => event.text("outcome").replace('_', " "),
                    None => "in, nobody knows".to_owned(),
                }
            }
            Operation::Commit => {
                let removed = self.other.context("nobody to remove")?;
                ended(removed)
                    .map_or_else(|| "is not told".to_owned(), |reason| reason.replace('_', " "))
            }
            Operation::Publish | Operation::Rejoin => {
                let said = moderator.said.last().context("nothing was said")?;
                let heard = match stage.has_heard_last(self.subject, self.moderator) {
                    true => "heard",
                    false => "not heard",
                };
                match &said.outcome {
                    Some(Outcome::Delivered(_)) => format!("{heard}, delivered"),
                    Some(Outcome::Lost(_)) => format!("{heard}, lost"),
                    None => format!("{heard}, no outcome"),
                }
            }
            Operation::Close => {
                let others = self.group.iter().filter(|&&id| id != self.moderator);
                let told = others
                    .filter(|&&id| {
                        !self.lacks(id) && ended(id).as_deref() == Some("moderator_closed")
                    })
                    .count();
                ["nobody is told", "one is told", "both are told"][told].to_owned()
            }
        })
    }

    /// The group goes on: first those who are left, then all again.
    fn go_on(&mut self, stage: &mut Stage<'_>) -> anyhow::Result<()> {
        let mut left: Vec<MemberId> =
            self.group.iter().copied().filter(|&id| !self.lacks(id)).collect();
        left.retain(|&id| stage.member(id).status.is_none());
        if left.is_empty() {
            return self.end_who_waits(stage);
        }
        let Some(victim) = self.victim().filter(|&id| self.lacks(id)) else {
            if !left.contains(&self.moderator) {
                return self.another_moderator(stage, &left);
            }
            stage.converse(&left, 1)?;
            return self.close(stage, self.moderator, &left);
        };
        if victim == self.moderator {
            // Who missed a commit has nobody to ask for new keys.
            let is_stuck =
                self.cell.operation == Operation::Rejoin && self.cell.moment == Moment::Before;
            if !is_stuck {
                stage.acks = Acks::NotThese(vec![victim]);
                stage.converse(&left, 1)?;
                stage.acks = Acks::Listeners;
            }
            return self.another_moderator(stage, &left);
        }
        let is_known = self.cell.hit == Hit::Stopped || !self.group.contains(&victim);
        if is_known {
            // Not all may have been told yet.
            stage.passers_by = vec![victim];
        } else {
            stage.acks = Acks::NotThese(vec![victim]);
        }
        stage.converse(&left, 1)?;
        stage.passers_by.clear();
        stage.acks = Acks::Listeners;
        let again = Part { app: "subject", ..Part::participant(Ours, "subject-again") };
        let again = stage.start(&again)?;
        stage.all_have(&[again], "waiting")?;
        let before = stage.member(self.moderator).invites(&stage.addresses(&[again])[0]).count();
        ensure!(before <= 1, "it was invited {before} times");
        stage.invite(self.moderator, again)?;
        left.push(again);
        for &id in &left {
            stage.sees(id, &left)?;
        }
        stage.converse(&left, 1)?;
        self.close(stage, self.moderator, &left)
    }

    /// The group is made anew: those who are left end, and all are started again. Who is
    /// in a group comes to no other one, whoever invites.
    fn another_moderator(&self, stage: &mut Stage<'_>, left: &[MemberId]) -> anyhow::Result<()> {
        let mut again = Vec::new();
        for &id in left {
            stage.terminate(id)?;
            stage.has_ended(id)?;
            stage.ended_because(id, "left")?;
            let app = stage.member(id).label.clone();
            let label = format!("{app}-again");
            again.push(stage.start(&Part { app: &app, ..Part::participant(Ours, &label) })?);
        }
        stage.all_have(&again, "waiting")?;
        let part = Part::moderator(Ours, true, stage.addresses(&again));
        let moderator = stage.start(&Part { label: "mod-again", ..part })?;
        stage.has_joined(moderator, &again)?;
        let group = [&again[..], &[moderator]].concat();
        for &id in &group {
            stage.sees(id, &group)?;
        }
        stage.converse(&group, 1)?;
        self.close(stage, moderator, &group)
    }

    fn close(
        &self,
        stage: &mut Stage<'_>,
        moderator: MemberId,
        group: &[MemberId],
    ) -> anyhow::Result<()> {
        let others: Vec<MemberId> = group.iter().copied().filter(|&id| id != moderator).collect();
        stage.close(moderator, &others)?;
        self.end_who_waits(stage)
    }

    /// Who waits for an invitation that does not come any more.
    fn end_who_waits(&self, stage: &mut Stage<'_>) -> anyhow::Result<()> {
        for id in [Some(self.subject), self.other].into_iter().flatten() {
            if stage.member(id).status.is_none() {
                ensure!(!stage.member(id).has("closed"), "it should have ended");
                stage.kill(id)?;
            }
        }
        Ok(())
    }
}
