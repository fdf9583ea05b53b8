//! How members get in.

use anyhow::{Context, ensure};

use super::{Ours, Stage, Theirs};
use crate::stage::tools::{Part, address};

/// One after another, speaking in between: who joins late hears what comes after.
pub(super) fn one_by_one(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    let participants = stage.participants()?;
    let moderator = stage.moderator(&participants[..1])?;
    let mut group = vec![moderator, participants[0]];
    stage.converse(&group, 1)?;
    for &id in &participants[1..] {
        stage.invite(moderator, id)?;
        group.push(id);
        stage.converse(&group, 1)?;
    }
    for &id in &group {
        stage.sees(id, &group)?;
    }
    stage.close(moderator, &participants)
}

/// All at the same time.
pub(super) fn at_once(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    let (moderator, participants) = stage.group()?;
    let everybody = [&participants[..], &[moderator]].concat();
    stage.converse(&everybody, 1)?;
    for &id in &everybody {
        stage.sees(id, &everybody)?;
    }
    stage.close(moderator, &participants)
}

/// Somebody who is in already is invited again: nothing changes.
pub(super) fn again(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    let (moderator, participants) = stage.group()?;
    let everybody = [&participants[..], &[moderator]].concat();
    stage.converse(&everybody, 1)?;
    for &id in &participants {
        let address = stage.member(id).address.clone();
        let (outcome, reason) = stage.outcome_of_invite(moderator, &address)?;
        match stage.cast.moderator {
            Ours => ensure!(outcome == "joined", "{address}: {outcome}: {reason}"),
            Theirs => ensure!(reason.contains("already in group"), "{address}: {reason}"),
        }
    }
    stage.converse(&everybody, 1)?;
    for &id in &everybody {
        stage.sees(id, &everybody)?;
    }
    stage.close(moderator, &participants)
}

/// A name that nobody has, first of all; the others join nevertheless.
pub(super) fn nobody(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    let participants = stage.participants()?;
    let nobody = address("nobody");
    let invites = [vec![nobody.clone()], stage.addresses(&participants)].concat();
    let part = Part {
        timeout: 1.0,
        max_retries: 3,
        ..Part::moderator(stage.cast.moderator, stage.cast.mls, invites)
    };
    let moderator = stage.start(&part)?;
    stage.has_joined(moderator, &participants)?;
    stage.invite_ends(moderator, &nobody, "no_answer")?;
    if stage.cast.moderator == Ours {
        // Nobody waited for the one who does not answer.
        let last = stage.member(moderator).events("invite").last().context("no outcome")?;
        ensure!(last.text("name") == nobody, "the others joined after the timeout");
    }
    stage.converse(&[&participants[..], &[moderator]].concat(), 2)?;
    stage.close(moderator, &participants)
}

/// Whose invitations those take that want none of this moderator.
const ELSEWHERE: Option<&str> = Some("interop/elsewhere");

/// Some of ours do not want into the group of this moderator, nor into a call, and say so
/// where it is understood. The others notice nothing.
pub(super) fn declined(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    let participants = stage.participants()?;
    let unwilling =
        stage.start(&Part { accept_from: ELSEWHERE, ..Part::participant(Ours, "unwilling") })?;
    let busy = stage.start(&Part { accept_from: ELSEWHERE, ..Part::listener(Ours, "busy") })?;
    let willing = stage.start(&Part {
        accept_from: Some("interop/ns/mod"),
        ..Part::participant(Ours, "willing")
    })?;
    stage.all_have(&[unwilling, busy, willing], "waiting")?;
    for id in [unwilling, busy] {
        stage.tolerate(id, "invitation_declined");
    }
    let joining = [&participants[..], &[willing]].concat();
    let part = Part {
        timeout: 1.0,
        max_retries: 3,
        ..Part::moderator(
            stage.cast.moderator,
            stage.cast.mls,
            stage.addresses(&[&[unwilling], &joining[..]].concat()),
        )
    };
    let moderator = stage.start(&part)?;
    stage.has_joined(moderator, &joining)?;
    let is_told = stage.cast.moderator == Ours;
    let address = stage.member(unwilling).address.clone();
    stage.invite_ends(moderator, &address, if is_told { "refused" } else { "no_answer" })?;
    if is_told {
        let invite = stage.member(moderator).invites(&address).last().context("no outcome")?;
        let reason = invite.text("reason");
        ensure!(reason.contains("it takes none from interop/ns/mod"), "{reason}");
    }
    stage.all_have(&[unwilling], "error")?;

    let peer = stage.member(busy).address.clone();
    let caller = stage.start(&Part {
        timeout: 1.0,
        max_retries: 3,
        ..Part::caller(stage.cast.moderator, "caller", &peer, stage.cast.mls)
    })?;
    stage.may_end(&[caller]);
    stage.tolerate(caller, if is_told { "refused" } else { "no_answer" });
    stage.wait(|stage| stage.without(&[caller], "has given up", |who| who.status.is_some()))?;
    stage.all_have(&[busy], "error")?;
    for id in [unwilling, busy] {
        ensure!(!stage.member(id).has("session"), "it is in a session");
    }

    // Nothing came of all this to the group.
    stage.converse(&[&joining[..], &[moderator]].concat(), 2)?;
    stage.close(moderator, &joining)
}
