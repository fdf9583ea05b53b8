//! What must not disturb a group for long.

use std::time::Duration;

use anyhow::ensure;
use rustix::process::Signal;

use super::{Ours, Side, Stage};
use crate::interop::member::MemberId;
use crate::interop::stage::Part;

/// Until silent members count as offline: three heartbeats, which are 10 s apart.
const OFFLINE_AFTER: Duration = Duration::from_secs(60);

/// The node ends, as it should, and another one begins at the same place.
pub(super) fn node_restarts(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    over_two_nodes(stage, |stage| stage.stop_node())
}

/// The node dies without a word.
pub(super) fn node_crashes(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    over_two_nodes(stage, |stage| stage.kill_node())
}

fn over_two_nodes(
    stage: &mut Stage<'_>,
    end: impl Fn(&mut Stage<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let (moderator, participants) = stage.group()?;
    let everybody = [&participants[..], &[moderator]].concat();
    stage.converse(&everybody, 2)?;
    end(stage)?;
    stage.start_node()?;
    let ours: Vec<MemberId> =
        everybody.iter().copied().filter(|&id| stage.member(id).side == Ours).collect();
    stage.all_have(&ours, "reconnected")?;
    stage.converse(&everybody, 2)?;
    // The group can still change.
    let late = stage.start(&Part::participant(stage.cast.moderator.other(), "late"))?;
    stage.all_have(&[late], "waiting")?;
    stage.invite(moderator, late)?;
    stage.converse(&[&everybody[..], &[late]].concat(), 1)?;
    stage.close(moderator, &[&participants[..], &[late]].concat())
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

/// Members stop for a while: the others notice, go on, and notice their return.
pub(super) fn pause(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    let (moderator, participants) = stage.group()?;
    let everybody = [&participants[..], &[moderator]].concat();
    stage.converse(&everybody, 1)?;
    let (away, here) = (&participants[..2], [&participants[2..], &[moderator]].concat());
    for &id in away {
        stage.signal(id, Signal::STOP)?;
    }
    let seen = |online: bool| {
        let away = away.iter().map(|&id| (id, online));
        away.chain(here.iter().map(|&id| (id, true))).collect::<Vec<_>>()
    };
    for &id in &here {
        stage.roster_becomes(id, &seen(false), OFFLINE_AFTER)?;
    }
    for &id in away {
        stage.signal(id, Signal::CONT)?;
    }
    for &id in &everybody {
        stage.roster_becomes(id, &seen(true), OFFLINE_AFTER)?;
    }
    stage.converse(&everybody, 2)?;
    stage.close(moderator, &participants)
}
