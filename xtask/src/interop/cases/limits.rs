//! How much fits into one message.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use super::Stage;
use crate::stage::STEP_TIMEOUT;
use crate::stage::record::{MemberId, Record, text_of};
use crate::stage::tools::Part;

/// No message is longer than this, with everything around the payload. In a session
/// with MLS the reference pads what is longer than 7/8 of this beyond it.
const MAX_MESSAGE: usize = 4 << 20;

/// Payloads that just fit arrive. One that does not is refused by ours where it is
/// said; the reference sends it, the node ends the link, and what ours hear is that
/// something is missing. Either way the session goes on.
pub(super) fn largest(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    let participants = stage.participants()?;
    let invites = stage.addresses(&participants);
    let moderator = stage.start(&Part {
        timeout: 1.0,
        max_retries: 2,
        ..Part::moderator(stage.cast.moderator, stage.cast.mls, invites)
    })?;
    stage.has_joined(moderator, &participants)?;
    let everybody = [&participants[..], &[moderator]].concat();
    let (ours, theirs) = stage.sides(&everybody);
    everybody.iter().for_each(|&id| stage.tolerate(id, "missed"));
    for &id in &ours {
        stage.tolerate(id, "too_large");
        stage.command(id, &large(MAX_MESSAGE))?;
        let limit = told_limit(stage, id, 1)?;
        stage.command(id, &large(limit + 1))?;
        ensure!(told_limit(stage, id, 2)? == limit, "another limit");
        say_large(stage, id, &everybody, limit)?;
    }
    let around = if stage.cast.mls { MAX_MESSAGE / 8 + 256 } else { 1024 };
    for &id in &theirs {
        say_large(stage, id, &everybody, MAX_MESSAGE - around)?;
        // Nobody hears this, whatever becomes of it.
        stage.say_as(id, &[], large(MAX_MESSAGE).as_bytes(), String::new())?;
        stage.settled(&[id])?;
        is_missed(stage, id, &ours)?;
    }
    stage.converse(&everybody, 2)?;
    stage.close(moderator, &participants)
}

/// How long the others ask for what is missing, and a little more.
const ASKING: Duration = Duration::from_secs(4);

/// Has somebody go on until these tell that something of it is missing. Whenever one
/// of the others asks for that, it is sent, and ends the link again: what is said
/// meanwhile may be lost, too.
fn is_missed(stage: &mut Stage<'_>, speaker: MemberId, ours: &[MemberId]) -> anyhow::Result<()> {
    let source = stage.member(speaker).name.clone();
    let deadline = Instant::now() + STEP_TIMEOUT;
    let tells = |who: &Record| who.events("missed").any(|event| event.text("source") == source);
    stage.passers_by = stage.everybody();
    while !ours.iter().all(|&id| tells(stage.member(id))) {
        ensure!(Instant::now() < deadline, "nobody tells that something is missing");
        stage.say(speaker, &[])?;
        stage.pass(Duration::from_secs(1))?;
    }
    stage.pass(ASKING)?;
    stage.passers_by.clear();
    Ok(())
}

/// Has somebody say this much, and waits until everybody has heard it.
fn say_large(
    stage: &mut Stage<'_>,
    id: MemberId,
    everybody: &[MemberId],
    len: usize,
) -> anyhow::Result<()> {
    let payload = large(len);
    stage.say_as(id, everybody, payload.as_bytes(), text_of(&payload, "", ""))?;
    stage.all_heard()
}

/// What one of ours says is the most, the so many-th time that it is asked.
fn told_limit(stage: &mut Stage<'_>, id: MemberId, times: usize) -> anyhow::Result<usize> {
    stage.wait(|stage| {
        stage.without(&[id], "says what is too large", |who| who.events("error").count() >= times)
    })?;
    let error = stage.member(id).events("error").last().context("no error")?;
    let text = error.text("message");
    let limit = text.split_whitespace().rev().find_map(|word| word.parse().ok());
    limit.with_context(|| format!("no limit in {text:?}"))
}

/// A payload of this length.
fn large(len: usize) -> String {
    "0123456789abcdef".chars().cycle().take(len).collect()
}
