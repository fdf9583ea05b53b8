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
