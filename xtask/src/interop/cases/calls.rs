//! Point-to-point sessions.

use std::collections::BTreeSet;

use anyhow::{Context, bail, ensure};

use super::groups::say_all_kinds;
use super::{Ours, Stage, Theirs};
use crate::stage::record::{Event, MemberId, Record};
use crate::stage::tools::{Part, address};

/// Whom everybody calls.
const BOB: &str = "bob";

/// Both speak in turn, say something to each other by name, and send every kind of
/// payload; then the caller hangs up.
pub(super) fn both_speak(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    let listener = start_listener(stage, 0, true)?;
    let caller = start_caller(stage, "alice")?;
    stage.all_have(&[listener, caller], "session")?;
    let both = [caller, listener];
    stage.converse(&both, 5)?;
    for (id, peer) in [(caller, listener), (listener, caller)] {
        let text = format!("{} to its peer", stage.member(id).label);
        let line = match stage.member(id).side {
            Ours => format!("/to {} {text}", stage.member(peer).address),
            Theirs => format!("/reply {text}"),
        };
        stage.say_as(id, &both, line.as_bytes(), text)?;
        say_all_kinds(stage, id, &both)?;
    }
    stage.all_heard()?;
    stage.leave(caller, &[])?;
    stage.ended_because(caller, "left")?;
    stage.all_have(&[listener], "closed")?;
    stage.ended_because(listener, "peer_left")
}

/// The listener sends everything back, and hangs up in the end.
pub(super) fn echo(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    let listener = start_listener(stage, 0, false)?;
    let caller = start_caller(stage, "alice")?;
    stage.all_have(&[listener, caller], "session")?;
    for _ in 0..5 {
        stage.call_out(caller, listener)?;
        stage.all_heard()?;
    }
    // Several on their way at once.
    for _ in 0..20 {
        stage.call_out(caller, listener)?;
    }
    stage.all_heard()?;
    stage.leave(listener, &[caller])?;
    stage.ended_because(caller, "peer_left")
}

/// The kinds of remote procedure call that the reference has.
const KINDS: [&str; 4] = ["unary", "server", "client", "both"];

/// The reference calls procedures of the reference; only the node may be ours.
pub(super) fn procedures(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    let part = |label| Part { mode: "rpc", ..Part::participant(Theirs, label) };
    let server = stage.start(&part(BOB))?;
    stage.all_have(&[server], "waiting")?;
    let peer = address(BOB);
    let client = stage.start(&Part { remote: Some(&peer), ..part("alice") })?;
    stage.may_end(&[client]);
    stage.wait(|stage| stage.without(&[client], "has ended", |who| who.status.is_some()))?;
    let client = stage.member(client);
    ensure!(client.status.is_some_and(|status| status.success()), "{:?}", client.status);
    for kind in KINDS {
        let is_right = |call: &Event| {
            call.text("kind") == kind && call.field("is_right").as_bool() == Some(true)
        };
        ensure!(client.events("called").any(is_right), "{kind}: no answer, or not the right one");
    }
    Ok(())
}

/// Several instances of one name: each call is answered by one of them, and stays
/// with it while others begin and end.
pub(super) fn anycast(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    let listeners = (0..stage.cast.others.len())
        .map(|index| start_listener(stage, index, false))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let mut calls = Vec::new();
    for number in 1..=2 * listeners.len() {
        let caller = start_caller(stage, &format!("alice-{number}"))?;
        let peer = who_answered(stage, caller, &listeners)?;
        calls.push((caller, peer));
        for &(caller, peer) in &calls {
            stage.call_out(caller, peer)?;
            stage.all_heard()?;
        }
    }
    let answered: BTreeSet<MemberId> = calls.iter().map(|&(_, peer)| peer).collect();
    ensure!(
        stage.cast.node != Ours || answered.len() == listeners.len(),
        "only {} of {} instances were called",
        answered.len(),
        listeners.len()
    );
    while let Some((caller, _)) = calls.pop() {
        stage.leave(caller, &[])?;
        for &(caller, peer) in &calls {
            stage.call_out(caller, peer)?;
        }
        stage.all_heard()?;
    }
    Ok(())
}

fn start_listener(stage: &mut Stage<'_>, index: usize, no_echo: bool) -> anyhow::Result<MemberId> {
    let side = stage.cast.others[index];
    let label = format!("{BOB}-{}", index + 1);
    let part = Part { app: BOB, no_echo, ..Part::listener(side, &label) };
    let listener = stage.start(&part)?;
    stage.all_have(&[listener], "waiting")?;
    Ok(listener)
}

fn start_caller(stage: &mut Stage<'_>, label: &str) -> anyhow::Result<MemberId> {
    let peer = address(BOB);
    stage.start(&Part::caller(stage.cast.moderator, label, &peer, stage.cast.mls))
}

/// The one of these that is in the caller's session.
fn who_answered(
    stage: &mut Stage<'_>,
    caller: MemberId,
    listeners: &[MemberId],
) -> anyhow::Result<MemberId> {
    stage.all_have(&[caller], "session")?;
    let session = stage.member(caller).events("session").last().context("no session")?;
    let session = session.field("session_id").clone();
    let is_in = |member: &Record| {
        member.events("session").any(|event| *event.field("session_id") == session)
    };
    let answered = |stage: &Stage<'_>| -> Vec<MemberId> {
        listeners.iter().copied().filter(|&id| is_in(stage.member(id))).collect()
    };
    stage.wait(|stage| match answered(stage).len() {
        0 => vec!["somebody who answers".to_owned()],
        _ => Vec::new(),
    })?;
    match answered(stage)[..] {
        [one] => Ok(one),
        ref several => bail!("{} answered the same call", several.len()),
    }
}
