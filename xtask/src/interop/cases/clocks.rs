//! Clocks that are wrong, and time that passes.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use super::{Ours, Side, Stage, Theirs};
use crate::stage::STEP_TIMEOUT;
use crate::stage::record::{Acks, MemberId};
use crate::stage::tools::Part;

/// Tokens may be this many seconds ahead of whoever looks at them, and no more.
const TAKEN: i64 = 4;
const AHEAD: i64 = 20;

/// The same for who looks at them with a clock that is behind. More, because ours use
/// a token for some time.
const BEHIND: i64 = -300;

/// A clock that is a little ahead does not matter; with one that is far ahead or
/// behind nobody gets in. Only a moderator of the reference in a group without MLS
/// does not look at the tokens of those who answer. Ours say whose clock is ahead,
/// if they see it or one of ours tells.
pub(super) fn wrong(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    let mut good = stage.participants()?;
    let mut odd = Vec::new();
    for side in Side::BOTH {
        good.push(start(stage, side, TAKEN)?);
        odd.extend([start(stage, side, AHEAD)?, start(stage, side, BEHIND)?]);
    }
    odd.iter().for_each(|&id| stage.tolerate(id, "identity_mismatch"));
    stage.all_have(&[&good[..], &odd].concat(), "waiting")?;
    let moderator = stage.start(&Part {
        timeout: 1.0,
        max_retries: 3,
        ..Part::moderator(stage.cast.moderator, stage.cast.mls, stage.addresses(&good))
    })?;
    stage.tolerate(moderator, "identity_mismatch");
    stage.has_joined(moderator, &good)?;
    stage.converse(&[&good[..], &[moderator]].concat(), 2)?;
    let is_overlooked = stage.cast.moderator == Theirs && !stage.cast.mls;
    for (index, &id) in odd.iter().enumerate() {
        let address = stage.member(id).address.clone();
        let (outcome, reason) = stage.outcome_of_invite(moderator, &address)?;
        let is_ahead = index % 2 == 0;
        let side = stage.member(id).side;
        let expected = match (stage.cast.moderator, side, is_ahead) {
            (Theirs, _, true) if is_overlooked => "joined",
            (Theirs, ..) | (Ours, Theirs, false) => "no_answer",
            (Ours, _, true) | (Ours, Ours, false) => "refused",
        };
        ensure!(outcome == expected, "{address}: {outcome}: {reason}");
        is_clear(&outcome, &reason)?;
        if outcome == "joined" {
            good.push(id);
        }
    }
    stage.close(moderator, &good)?;
    ahead_of_all(stage)
}

/// The clock of who invites is far ahead of the others'.
fn ahead_of_all(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    let mut waiting = Vec::new();
    for side in Side::BOTH {
        let label = format!("{side}-waiting");
        let id = stage.start(&Part::participant(side, &label))?;
        stage.tolerate(id, "identity_mismatch");
        waiting.push(id);
    }
    stage.all_have(&waiting, "waiting")?;
    let moderator = stage.start(&Part {
        label: "ahead",
        clock: Some(AHEAD),
        timeout: 1.0,
        max_retries: 3,
        ..Part::moderator(stage.cast.moderator, stage.cast.mls, stage.addresses(&waiting))
    })?;
    // Nobody joins, which is the end of ours.
    stage.may_end(&[moderator]);
    for code in ["identity_mismatch", "nobody_joined"] {
        stage.tolerate(moderator, code);
    }
    for &id in &waiting {
        let (address, side) = (stage.member(id).address.clone(), stage.member(id).side);
        let told = side == Ours && stage.cast.moderator == Ours;
        stage.invite_ends(moderator, &address, if told { "refused" } else { "no_answer" })?;
        let invite = stage.member(moderator).invites(&address).last().context("no outcome")?;
        is_clear(invite.text("outcome"), invite.text("reason"))?;
        ensure!(!stage.member(id).has("session"), "{address} is in a session");
    }
    Ok(())
}

/// Who is refused because of a clock is told that it is one.
fn is_clear(outcome: &str, reason: &str) -> anyhow::Result<()> {
    let is_told = reason.contains("clock") && reason.contains("ahead");
    ensure!(outcome != "refused" || is_told, "nothing of a clock: {reason:?}");
    Ok(())
}

fn start(stage: &mut Stage<'_>, side: Side, ahead: i64) -> anyhow::Result<MemberId> {
    let which = if ahead < 0 { "behind" } else { "ahead" };
    let label = format!("{side}-{}-s-{which}", ahead.abs());
    stage.start(&Part { clock: Some(ahead), ..Part::participant(side, &label) })
}

/// Tokens are good for an hour. This long after its making, each of ours has renewed
/// its own.
const ALMOST: i64 = 3400;
const OVER: i64 = 3800;

/// A group that is older than the tokens of those who joined. Without MLS nothing
/// happens. With MLS ours go on hearing everybody; the reference looks at tokens with
/// every message, so it hears ours, who renew theirs, and nobody of its own kind.
pub(super) fn hour(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    let sides = stage.cast.others.clone();
    let mut participants = Vec::new();
    for (index, side) in sides.into_iter().enumerate() {
        let label = format!("p{}", index + 1);
        let part = Part { clock: Some(0), ..Part::participant(side, &label) };
        participants.push(stage.start(&part)?);
    }
    stage.all_have(&participants, "waiting")?;
    let moderator = stage.start(&Part {
        clock: Some(0),
        timeout: 1.0,
        max_retries: 4,
        ..Part::moderator(stage.cast.moderator, stage.cast.mls, stage.addresses(&participants[..1]))
    })?;
    stage.has_joined(moderator, &participants[..1])?;
    for &id in &participants[1..] {
        stage.invite(moderator, id)?;
    }
    let everybody = [&[moderator], &participants[..]].concat();
    let (ours, theirs) = stage.sides(&everybody);
    stage.converse(&everybody, 1)?;

    stage.set_clocks(&everybody, ALMOST)?;
    if stage.cast.mls {
        // The group was new when the moderator was alone, and each change counts.
        let renewed = everybody.len() - 1 + ours.len();
        for &id in &ours {
            epoch_becomes(stage, id, renewed as u64)?;
        }
    }
    stage.converse(&everybody, 1)?;

    stage.set_clocks(&everybody, OVER)?;
    for &id in &everybody {
        let is_heard = !stage.cast.mls || ours.contains(&id);
        let deaf: Vec<_> = theirs.iter().copied().filter(|&other| other != id).collect();
        stage.acks = if is_heard { Acks::Listeners } else { Acks::NotThese(deaf) };
        stage.say(id, if is_heard { &everybody } else { &ours })?;
    }
    stage.all_heard()?;
    stage.acks = Acks::Listeners;
    stage.close(moderator, &participants)
}

/// The same with tokens that each signs for itself.
pub(super) fn hour_of_tokens(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    stage.use_tokens()?;
    hour(stage)
}

/// The same with tokens of a SPIFFE agent, among ours: the reference renews its token
/// after some time has passed, whatever its clock says.
pub(super) fn hour_of_svids(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    stage.use_agent(true)?;
    hour(stage)
}

/// Waits until the encryption stands there at one of ours.
fn epoch_becomes(stage: &mut Stage<'_>, id: MemberId, wanted: u64) -> anyhow::Result<()> {
    let deadline = Instant::now() + STEP_TIMEOUT;
    loop {
        stage.roster(id)?;
        let who = stage.member(id).events("who").last().context("no answer")?;
        let epoch = who.field("epoch").as_u64().context("no epoch")?;
        if epoch == wanted {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "the keys of epoch {epoch}, not {wanted}");
        stage.pass(Duration::from_secs(1))?;
    }
}
