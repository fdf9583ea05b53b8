//! What must not disturb a group for long.

use std::time::Duration;

use anyhow::{Context, ensure};

use super::{Ours, Side, Stage, Theirs};
use crate::stage::STEP_TIMEOUT;
use crate::stage::record::{Acks, MemberId, Record};
use crate::stage::tools::Part;

/// Until silent members count as offline: three heartbeats, which are 10 s apart.
const OFFLINE_AFTER: Duration = Duration::from_secs(60);

/// Lines that everybody says, one after the other and unanswered, before the node ends.
const LINES_IN_SPEECH: usize = 20;

/// The node ends, as it should, and another one begins at the same place. What is
/// said meanwhile arrives later.
pub(super) fn node_restarts(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    let takes_leave = stage.cast.node == Ours;
    over_two_nodes(stage, |stage| stage.stop_node(), takes_leave)
}

/// The same while everybody speaks: what is on its way when the node ends arrives, too.
pub(super) fn node_restarts_in_speech(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    let (moderator, participants) = stage.group()?;
    let everybody = [&participants[..], &[moderator]].concat();
    let (ours, theirs) = stage.sides(&everybody);
    stage.converse(&everybody, 1)?;
    for _ in 0..LINES_IN_SPEECH {
        for &id in &everybody {
            stage.say(id, &everybody)?;
        }
    }
    stage.stop_node()?;
    stage.all_have(&ours, "disconnected")?;
    for &id in &everybody {
        stage.say(id, &everybody)?;
    }
    stage.settled(&theirs)?;
    stage.start_node()?;
    stage.settled(&ours)?;
    stage.converse(&everybody, 2)?;
    go_on(stage, moderator, participants)
}

/// The same over WebSockets.
pub(super) fn node_restarts_on_websockets(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    stage.restart_node_on_websockets()?;
    node_restarts(stage)
}

/// The node dies without a word.
pub(super) fn node_crashes(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    over_two_nodes(stage, |stage| stage.kill_node(), false)
}

/// `takes_leave`: the node stops to listen before it ends its links. The reference
/// gives up for ever if an attempt to connect again is cut off, which happens if it
/// reaches a node that is about to end. With such a node it has to look away.
fn over_two_nodes(
    stage: &mut Stage<'_>,
    end: impl Fn(&mut Stage<'_>) -> anyhow::Result<()>,
    takes_leave: bool,
) -> anyhow::Result<()> {
    let (moderator, participants) = stage.group()?;
    let everybody = [&participants[..], &[moderator]].concat();
    stage.converse(&everybody, 2)?;
    let (ours, theirs) = stage.sides(&everybody);
    if !takes_leave {
        stage.freeze(&theirs)?;
    }
    end(stage)?;
    stage.all_have(&ours, "disconnected")?;
    for &id in if takes_leave { &everybody } else { &ours } {
        stage.say(id, &everybody)?;
    }
    if takes_leave {
        // It says at once that its line is delivered, which it is not yet: that it was
        // missed is noticed, and it is asked for, when its sender speaks again.
        stage.settled(&theirs)?;
    }
    stage.start_node()?;
    if !takes_leave {
        stage.thaw(&theirs)?;
    }
    // The reference does not tell that it is back, but then it acknowledges this.
    stage.settled(&ours)?;
    stage.converse(&everybody, 2)?;
    go_on(stage, moderator, participants)
}

/// The group can still change, and end.
fn go_on(
    stage: &mut Stage<'_>,
    moderator: MemberId,
    mut participants: Vec<MemberId>,
) -> anyhow::Result<()> {
    let newcomer = stage.start(&Part::participant(stage.cast.moderator.other(), "newcomer"))?;
    stage.all_have(&[newcomer], "waiting")?;
    stage.invite(moderator, newcomer)?;
    participants.push(newcomer);
    stage.converse(&[&participants[..], &[moderator]].concat(), 1)?;
    stage.close(moderator, &participants)
}

/// Members die, are started again, and invited again: the new ones take the place of
/// the old ones. Only where we moderate; a moderator of the reference says that they
/// are in already.
pub(super) fn started_again(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    let (moderator, participants) = stage.group()?;
    let mut group = [&participants[..], &[moderator]].concat();
    stage.converse(&group, 1)?;
    for (index, &id) in participants[..2].iter().enumerate() {
        stage.kill(id)?;
        let app = format!("p{}", index + 1);
        let label = format!("{app}-again");
        let side = stage.member(id).side;
        let again = stage.start(&Part { app: &app, ..Part::participant(side, &label) })?;
        stage.all_have(&[again], "waiting")?;
        stage.invite(moderator, again)?;
        group.retain(|&other| other != id);
        group.push(again);
        for &other in &group {
            stage.sees(other, &group)?;
        }
        stage.converse(&group, 1)?;
    }
    group.retain(|&id| id != moderator);
    stage.close(moderator, &group)
}

/// Who has another secret gets no further than the invitation, whoever invites.
pub(super) fn wrong_secret(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    let participants = stage.participants()?;
    let mut strangers = Vec::new();
    for side in Side::BOTH {
        let label = format!("stranger-{side}");
        let secret = "a-different-secret-that-is-also-more-than-32-bytes";
        let stranger = stage.start(&Part { secret, ..Part::participant(side, &label) })?;
        stage.tolerate(stranger, "identity_mismatch");
        strangers.push(stranger);
    }
    stage.all_have(&strangers, "waiting")?;
    let invites = stage.addresses(&[&strangers[..], &participants].concat());
    let part = Part {
        timeout: 1.0,
        max_retries: 3,
        ..Part::moderator(stage.cast.moderator, stage.cast.mls, invites)
    };
    let moderator = stage.start(&part)?;
    stage.tolerate(moderator, "identity_mismatch");
    stage.has_joined(moderator, &participants)?;
    for &id in &strangers {
        let stranger = stage.member(id);
        let (address, side) = (stranger.address.clone(), stranger.side);
        let told = side == Ours && stage.cast.moderator == Ours;
        stage.invite_ends(moderator, &address, if told { "refused" } else { "no_answer" })?;
        ensure!(!stage.member(id).has("session"), "{address} is in a session");
    }
    stage.converse(&[&participants[..], &[moderator]].concat(), 2)?;
    stage.close(moderator, &participants)
}

/// Members stand still while much is said, for longer than it takes until it is
/// repeated, but not so long that they count as offline.
pub(super) fn stutter(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    let participants = stage.participants()?;
    let invites = stage.addresses(&participants);
    let moderator = stage.start(&Part {
        timeout: 1.0,
        ..Part::moderator(stage.cast.moderator, stage.cast.mls, invites)
    })?;
    stage.has_joined(moderator, &participants)?;
    let everybody = [&participants[..], &[moderator]].concat();
    let (still, speaking) = everybody.split_at(2);
    for _ in 0..2 {
        stage.freeze(still)?;
        for _ in 0..100 {
            for &id in speaking {
                stage.say(id, &everybody)?;
            }
        }
        stage.pass(Duration::from_millis(3500))?;
        stage.thaw(still)?;
        stage.converse(&everybody, 2)?;
    }
    stage.close(moderator, &participants)
}

/// Members stand still for a while: the others notice, go on, and notice their
/// return.
pub(super) fn pause(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    let (moderator, participants) = stage.group()?;
    let everybody = [&participants[..], &[moderator]].concat();
    stage.converse(&everybody, 1)?;
    let (away, here) = (&participants[..2], [&participants[2..], &[moderator]].concat());
    stage.freeze(away)?;
    let seen = [presence(away, false), presence(&here, true)].concat();
    for &id in &here {
        stage.roster_becomes(id, &seen, OFFLINE_AFTER)?;
    }
    stage.thaw(away)?;
    for &id in &everybody {
        stage.roster_becomes(id, &presence(&everybody, true), OFFLINE_AFTER)?;
    }
    stage.converse(&everybody, 2)?;
    stage.close(moderator, &participants)
}

/// One of each kind goes away on purpose, and comes back: first to a group that is as
/// it was, then to one that somebody joined meanwhile. Only not one of the reference
/// to a moderator of its own kind, which never gets over it.
pub(super) fn away(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    let (moderator, mut participants) = stage.group()?;
    stage.converse(&[&participants[..], &[moderator]].concat(), 1)?;
    for index in 0..2 {
        let id = participants[index];
        goes_away(stage, moderator, &participants, id, None)?;
        if stage.member(id).side == Ours || stage.cast.moderator == Ours {
            let label = format!("late-{}", index + 1);
            let late = stage.start(&Part::participant(Theirs, &label))?;
            stage.all_have(&[late], "waiting")?;
            goes_away(stage, moderator, &participants, id, Some(late))?;
            participants.push(late);
        }
    }
    stage.close(moderator, &participants)
}

/// One of the participants goes away, somebody joins if there is anybody, and it comes
/// back.
fn goes_away(
    stage: &mut Stage<'_>,
    moderator: MemberId,
    participants: &[MemberId],
    id: MemberId,
    late: Option<MemberId>,
) -> anyhow::Result<()> {
    let mut all = [participants, &[moderator]].concat();
    is_present(stage, id, false)?;
    let here: Vec<_> = all.iter().copied().filter(|&other| other != id).collect();
    let seen = [presence(&here, true), presence(&[id], false)].concat();
    for &other in &here {
        stage.roster_becomes(other, &seen, STEP_TIMEOUT)?;
    }
    if let Some(late) = late {
        stage.invite(moderator, late)?;
        all.push(late);
    }
    is_present(stage, id, true)?;
    for &other in &all {
        if other != id {
            stage.sees(other, &all)?;
        }
    }
    stage.converse(&all, 2)
}

/// Has somebody go away or come back, and waits until it says that it has.
fn is_present(stage: &mut Stage<'_>, id: MemberId, online: bool) -> anyhow::Result<()> {
    let before = stage.member(id).events("presence").count();
    stage.command(id, if online { "/back" } else { "/away" })?;
    stage.wait(|stage| {
        let told = |who: &Record| who.events("presence").count() > before;
        stage.without(&[id], if online { "is back" } else { "is away" }, told)
    })?;
    let last = stage.member(id).events("presence").last().context("no presence")?;
    ensure!(last.field("online").as_bool() == Some(online), "it does not say so");
    Ok(())
}

/// Members stand still, lose their link, and miss that somebody joins: with MLS their
/// keys are old when they come back, and they get new ones.
pub(super) fn missed_commit(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    let (moderator, participants) = stage.group()?;
    stage.converse(&[&participants[..], &[moderator]].concat(), 1)?;
    // A moderator of the reference never finishes the return of one of its own kind,
    // and does nothing else from then on.
    let is_away = |id: &MemberId| *id == participants[0] || stage.cast.moderator == Ours;
    let (away, mut here): (Vec<_>, Vec<_>) = participants.iter().copied().partition(is_away);
    here.push(moderator);
    stage.freeze(&away)?;
    stage.stop_node()?;
    stage.start_node()?;
    let seen = [presence(&away, false), presence(&here, true)].concat();
    stage.roster_becomes(moderator, &seen, OFFLINE_AFTER)?;
    let late = stage.start(&Part::participant(stage.cast.moderator.other(), "late"))?;
    stage.all_have(&[late], "waiting")?;
    stage.invite(moderator, late)?;
    here.push(late);
    let everybody = [&away[..], &here].concat();
    stage.acks = Acks::NotThese(away.clone());
    for &id in &here {
        // Ours send what was missed to who is back. The reference does not; ours may get
        // it all the same, because they ask for it.
        let is_late = id == late && stage.member(id).side == Theirs;
        stage.passers_by = if is_late { away.clone() } else { Vec::new() };
        stage.say(id, if is_late { &here } else { &everybody })?;
    }
    stage.passers_by.clear();
    stage.settled(&here)?;
    stage.acks = Acks::Listeners;
    stage.thaw(&away)?;
    for &id in [&[moderator], &everybody[..]].concat().iter() {
        stage.roster_becomes(id, &presence(&everybody, true), OFFLINE_AFTER)?;
    }
    stage.converse(&everybody, 2)?;
    let participants = everybody.into_iter().filter(|&id| id != moderator).collect();
    go_on(stage, moderator, participants)
}

/// These, all online or all offline.
fn presence(ids: &[MemberId], online: bool) -> Vec<(MemberId, bool)> {
    ids.iter().map(|&id| (id, online)).collect()
}
