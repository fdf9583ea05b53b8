//! Whole groups: everybody speaks.

use serde_json::{Value, json};

use super::{Ours, Stage, Theirs};
use crate::stage::record::{Acks, MemberId, text_of};
use crate::stage::tools::Part;

/// A few rounds, the same group in everybody's eyes, and the end.
pub(super) fn all_to_all(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    let (moderator, participants) = stage.group()?;
    let everybody = [&participants[..], &[moderator]].concat();
    stage.converse(&everybody, 5)?;
    for &id in &everybody {
        stage.sees(id, &everybody)?;
    }
    stage.close(moderator, &participants)
}

/// The same over a node that a configuration file describes.
pub(super) fn node_from_a_file(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    stage.restart_node_from_file()?;
    all_to_all(stage)
}

/// The same with a reference that checks identities as strictly as it can, and with
/// changes to the group.
pub(super) fn enforced(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    stage.identity_binding = "enforce";
    let participants = stage.participants()?;
    let (late, first) = participants.split_last().expect("the cast has four");
    let moderator = stage.moderator(first)?;
    stage.converse(&[first, &[moderator]].concat(), 2)?;
    stage.invite(moderator, *late)?;
    stage.converse(&[&participants[..], &[moderator]].concat(), 2)?;
    stage.remove(moderator, participants[0])?;
    stage.remove(moderator, participants[1])?;
    stage.converse(&[&participants[2..], &[moderator]].concat(), 2)?;
    stage.close(moderator, &participants[2..])
}

/// What members say in a burst.
const BURST: usize = 500;

/// Everybody says everything at once.
pub(super) fn burst(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    let (moderator, participants) = stage.group()?;
    let everybody = [&participants[..], &[moderator]].concat();
    for _ in 0..BURST {
        for &id in &everybody {
            stage.say(id, &everybody)?;
        }
    }
    stage.all_heard()?;
    stage.close(moderator, &participants)
}

/// A burst over a network that loses one message in fifty, of all kinds.
pub(super) fn lossy_burst(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    stage.start_network()?;
    let (moderator, participants) = stage.group()?;
    let everybody = [&participants[..], &[moderator]].concat();
    // A stream begins with what arrives first: of what is said before, nobody knows.
    stage.converse(&everybody, 1)?;
    stage.lose_per_mille(20)?;
    for _ in 0..BURST {
        for &id in &everybody {
            stage.say(id, &everybody)?;
        }
    }
    stage.all_heard()?;
    stage.lose_per_mille(0)?;
    stage.close(moderator, &participants)
}

/// As large as the payloads get here.
const LARGE: usize = 1 << 20;

/// Bytes that are not text, and how they are told.
const BYTES: (&[u8], &str) = (b"\xff\xfe\0", "base64://4A");

/// Payloads of all sizes; of the reference also an empty one, payload types and
/// metadata, which `slim` shows but cannot send.
pub(super) fn payloads(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    let (moderator, participants) = stage.group()?;
    let everybody = [&participants[..], &[moderator]].concat();
    for &id in &everybody {
        match stage.member(id).side {
            Ours => {
                stage.say_as(id, &everybody, b"x", "x".to_owned())?;
                stage.say_as(id, &everybody, BYTES.0, BYTES.1.to_owned())?;
                let large = "zw\u{f6}lf ".repeat(LARGE / 7);
                stage.say_as(id, &everybody, large.as_bytes(), text_of(&large, "", ""))?;
            }
            Theirs => {
                let large = "zw\u{f6}lf ".repeat(LARGE / 7);
                let metadata = json!({"answer": "42", "zw\u{f6}lf": "12"});
                for (wanted, payload) in [
                    (json!({"text": ""}), ""),
                    (json!({"text": "x", "payload_type": "text/plain"}), "x"),
                    (json!({"bytes": BYTES.0, "metadata": metadata}), BYTES.1),
                    (json!({"text": large, "payload_type": "large", "metadata": metadata}), &large),
                ] {
                    let payload_type = wanted["payload_type"].as_str().unwrap_or_default();
                    let metadata = wanted.get("metadata").map(Value::to_string);
                    let text = text_of(payload, payload_type, &metadata.unwrap_or_default());
                    stage.say_as(id, &everybody, format!("/publish {wanted}").as_bytes(), text)?;
                }
            }
        }
    }
    stage.all_heard()?;
    stage.close(moderator, &participants)
}

/// The reference answers single members, and nobody else hears it.
pub(super) fn direct(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    let (moderator, participants) = stage.group()?;
    let everybody = [&participants[..], &[moderator]].concat();
    let (_, theirs) = stage.sides(&everybody);
    for round in 1..=3 {
        for &asking in &everybody {
            stage.say(asking, &everybody)?;
            stage.all_heard()?;
            for &id in theirs.iter().filter(|&&id| id != asking) {
                let text = format!("{} answers {round}", stage.member(id).label);
                stage.say_as(id, &[asking], format!("/reply {text}").as_bytes(), text)?;
            }
            stage.all_heard()?;
        }
    }
    stage.close(moderator, &participants)
}

/// A session of the reference in which nothing is acknowledged: on a good line
/// everything arrives all the same.
pub(super) fn best_effort(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    let participants = stage.participants()?;
    let invites = stage.addresses(&participants);
    let part = Part {
        best_effort: true,
        ..Part::moderator(stage.cast.moderator, stage.cast.mls, invites)
    };
    let moderator = stage.start(&part)?;
    stage.has_joined(moderator, &participants)?;
    stage.acks = Acks::None;
    stage.converse(&[&participants[..], &[moderator]].concat(), 5)?;
    stage.close(moderator, &participants)
}

/// Members join and leave while everybody speaks without a pause. Who is in all the
/// time hears everything; who joins or leaves hears what is said while it is in.
pub(super) fn churn(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    let participants = stage.participants()?;
    let (core, comers) = participants.split_at(2);
    let moderator = stage.moderator(core)?;
    let mut group = [core, &[moderator]].concat();
    for &id in comers {
        // What is still on its way could reach the new member, too.
        stage.all_heard()?;
        stage.passers_by = vec![id];
        all_speak(stage, &group)?;
        let invite = format!("/invite {}", stage.member(id).address);
        stage.command(moderator, &invite)?;
        all_speak(stage, &group)?;
        stage.has_joined(moderator, &[id])?;
        stage.passers_by.clear();
        group.push(id);
        all_speak(stage, &group)?;
    }
    for (index, &id) in comers.iter().enumerate() {
        // What was said before counts for it, too.
        stage.all_heard()?;
        group.retain(|&other| other != id);
        stage.passers_by = vec![id];
        all_speak(stage, &group)?;
        stage.may_end(&[id]);
        if index % 2 == 0 {
            let remove = format!("/remove {}", stage.member(id).address);
            stage.command(moderator, &remove)?;
        } else {
            stage.command(id, "/leave")?;
        }
        all_speak(stage, &group)?;
        stage.have_ended(&[id])?;
        // The others may learn of it a little later.
        all_speak(stage, &group)?;
        for &other in &group {
            stage.sees(other, &group)?;
        }
        stage.passers_by.clear();
    }
    stage.all_heard()?;
    stage.close(moderator, core)
}

fn all_speak(stage: &mut Stage<'_>, group: &[MemberId]) -> anyhow::Result<()> {
    for _ in 0..5 {
        for &id in group {
            stage.say(id, group)?;
        }
    }
    Ok(())
}
