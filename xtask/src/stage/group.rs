//! What groups do: join, speak, see each other, leave.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use super::cast::Theirs;
use super::record::{MemberId, Record};
use super::tools::Part;
use super::{STEP_TIMEOUT, Stage};

/// Between two looks at something that is not told by itself.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

impl Stage<'_> {
    /// Starts the participants of the cast, `p1`, `p2`…, and waits until they wait.
    pub(crate) fn participants(&mut self) -> anyhow::Result<Vec<MemberId>> {
        let mut ids = Vec::new();
        for (index, &side) in self.cast.others.iter().enumerate() {
            let label = format!("p{}", index + 1);
            ids.push(self.start(&Part::participant(side, &label))?);
        }
        self.all_have(&ids, "waiting")?;
        Ok(ids)
    }

    /// Starts the moderator of the cast, who invites these, and waits until all
    /// have joined.
    pub(crate) fn moderator(&mut self, invites: &[MemberId]) -> anyhow::Result<MemberId> {
        let addresses = self.addresses(invites);
        let part = Part::moderator(self.cast.moderator, self.cast.mls, addresses);
        let moderator = self.start(&part)?;
        self.has_joined(moderator, invites)?;
        Ok(moderator)
    }

    /// The names to invite them by.
    pub(crate) fn addresses(&self, ids: &[MemberId]) -> Vec<String> {
        ids.iter().map(|&id| self.member(id).address.clone()).collect()
    }

    /// The whole cast in a group. The moderator is told first.
    pub(crate) fn group(&mut self) -> anyhow::Result<(MemberId, Vec<MemberId>)> {
        let participants = self.participants()?;
        let moderator = self.moderator(&participants)?;
        Ok((moderator, participants))
    }

    /// Has the moderator invite one more, and waits until it has joined.
    pub(crate) fn invite(&mut self, moderator: MemberId, id: MemberId) -> anyhow::Result<()> {
        let address = self.member(id).address.clone();
        let (outcome, reason) = self.outcome_of_invite(moderator, &address)?;
        ensure!(outcome == "joined", "invitation of {address}: {outcome}: {reason}");
        self.has_joined(moderator, &[id])
    }

    /// Has the moderator invite a name, and tells the outcome and its reason.
    pub(crate) fn outcome_of_invite(
        &mut self,
        moderator: MemberId,
        address: &str,
    ) -> anyhow::Result<(String, String)> {
        let before = self.member(moderator).invites(address).count();
        self.command(moderator, &format!("/invite {address}"))?;
        self.wait(|stage| {
            let has_it = |member: &Record| member.invites(address).count() > before;
            stage.without(&[moderator], &format!("knows what became of {address}"), has_it)
        })?;
        let invite = self.member(moderator).invites(address).last().context("no outcome")?;
        Ok((invite.text("outcome").to_owned(), invite.text("reason").to_owned()))
    }

    /// Waits until they have joined, as they and the moderator see it.
    pub(crate) fn has_joined(
        &mut self,
        moderator: MemberId,
        ids: &[MemberId],
    ) -> anyhow::Result<()> {
        for address in self.addresses(ids) {
            self.invite_ends(moderator, &address, "joined")?;
        }
        let all = [ids, &[moderator]].concat();
        self.all_have(&all, "session")?;
        for id in all {
            let member = self.member(id);
            let session = member.events("session").last().context("no session")?;
            let mls = session.field("mls").as_bool();
            ensure!(mls == Some(self.cast.mls), "{}: mls is {mls:?}", member.label);
        }
        Ok(())
    }

    /// Waits until the latest invitation of this name has an outcome, which must be
    /// the given one.
    pub(crate) fn invite_ends(
        &mut self,
        moderator: MemberId,
        address: &str,
        outcome: &str,
    ) -> anyhow::Result<()> {
        self.wait(|stage| {
            let has_it = |member: &Record| member.invites(address).next().is_some();
            stage.without(&[moderator], &format!("knows what became of {address}"), has_it)
        })?;
        let invite = self.member(moderator).invites(address).last().context("no outcome")?;
        let (found, reason) = (invite.text("outcome"), invite.text("reason"));
        ensure!(found == outcome, "invitation of {address}: {found}, not {outcome}: {reason}");
        Ok(())
    }

    /// Each says so many lines to all others, one after another, and everything is
    /// heard and acknowledged.
    pub(crate) fn converse(&mut self, ids: &[MemberId], lines: usize) -> anyhow::Result<()> {
        for _ in 0..lines {
            for &id in ids {
                self.say(id, ids)?;
            }
            self.all_heard()?;
        }
        Ok(())
    }

    /// The members of the group as one of them sees it, by name, and whether they
    /// are online.
    pub(crate) fn roster(&mut self, id: MemberId) -> anyhow::Result<Vec<(String, bool)>> {
        let before = self.member(id).events("who").count();
        self.command(id, "/who")?;
        self.wait(|stage| {
            stage.without(&[id], "answers /who", |who| who.events("who").count() > before)
        })?;
        let who = self.member(id).events("who").last().context("no answer")?;
        let members = who.field("members").as_array().context("no members")?;
        let mut roster: Vec<(String, bool)> = members
            .iter()
            .map(|member| {
                let name = member["name"].as_str().unwrap_or_default().to_owned();
                (name, member["online"].as_bool().unwrap_or_default())
            })
            .collect();
        roster.sort();
        Ok(roster)
    }

    /// Waits until `at` sees exactly these members, each online or not.
    pub(crate) fn roster_becomes(
        &mut self,
        at: MemberId,
        expected: &[(MemberId, bool)],
        timeout: Duration,
    ) -> anyhow::Result<()> {
        let mut wanted: Vec<(String, bool)> =
            expected.iter().map(|&(id, online)| (self.member(id).name.clone(), online)).collect();
        wanted.sort();
        let deadline = Instant::now() + timeout;
        loop {
            let roster = self.roster(at)?;
            if roster == wanted {
                return Ok(());
            }
            let label = &self.member(at).label;
            ensure!(
                Instant::now() < deadline,
                "after {timeout:?} {label} sees {roster:?}, not {wanted:?}"
            );
            self.pass(POLL_INTERVAL)?;
        }
    }

    /// Waits until `at` sees exactly these members, all online.
    pub(crate) fn sees(&mut self, at: MemberId, members: &[MemberId]) -> anyhow::Result<()> {
        let online: Vec<(MemberId, bool)> = members.iter().map(|&id| (id, true)).collect();
        self.roster_becomes(at, &online, STEP_TIMEOUT)
    }

    /// Has the moderator remove a member, which is told so and ends.
    pub(crate) fn remove(&mut self, moderator: MemberId, id: MemberId) -> anyhow::Result<()> {
        self.may_end(&[id]);
        let line = format!("/remove {}", self.member(id).address);
        self.command(moderator, &line)?;
        self.have_ended(&[id])?;
        self.ended_because(id, "removed")
    }

    /// Has the moderator close the group, which ends with that for all others.
    pub(crate) fn close(
        &mut self,
        moderator: MemberId,
        participants: &[MemberId],
    ) -> anyhow::Result<()> {
        self.leave(moderator, participants)?;
        self.ended_because(moderator, "left")?;
        participants.iter().try_for_each(|&id| self.ended_because(id, "moderator_closed"))
    }

    /// Has a member leave, and waits until its process and those of all others
    /// whose session ends with that have ended well.
    pub(crate) fn leave(&mut self, id: MemberId, others: &[MemberId]) -> anyhow::Result<()> {
        let all = [others, &[id]].concat();
        self.may_end(&all);
        self.command(id, "/leave")?;
        self.have_ended(&all)
    }

    /// Waits until their session and their process have ended well.
    pub(crate) fn have_ended(&mut self, ids: &[MemberId]) -> anyhow::Result<()> {
        self.wait(|stage| stage.without(ids, "has ended", |member| member.status.is_some()))?;
        for &id in ids {
            let member = self.member(id);
            let status = member.status.context("no status")?;
            ensure!(status.success(), "{} ended with {status}", member.label);
            ensure!(member.has("closed"), "{} did not tell that it is over", member.label);
        }
        Ok(())
    }

    /// Waits until its process has ended and told that it could not tell everybody.
    pub(crate) fn has_ended_untold(&mut self, id: MemberId) -> anyhow::Result<()> {
        self.wait(|stage| stage.without(&[id], "has ended", |member| member.status.is_some()))?;
        let member = self.member(id);
        let status = member.status.context("no status")?;
        ensure!(status.code() == Some(1), "{} ended with {status}", member.label);
        let is_told = member.events("error").any(|event| event.text("code") == "not_told");
        ensure!(is_told, "{} did not tell that others were not told", member.label);
        Ok(())
    }

    /// Why the session of one of ours ended; the reference does not tell.
    pub(crate) fn ended_because(&self, id: MemberId, reason: &str) -> anyhow::Result<()> {
        let member = self.member(id);
        let closed = member.events("closed").last().context("no end")?;
        let found = closed.text("reason");
        ensure!(
            member.side == Theirs || found == reason,
            "{} ended because of {found}, not {reason}",
            member.label
        );
        Ok(())
    }
}
