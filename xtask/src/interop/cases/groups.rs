//! Whole groups: everybody speaks.

use serde_json::{Value, json};

use super::{Ours, Side, Stage, Theirs};
use crate::stage::mesh::Joined;
use crate::stage::record::{Acks, MemberId, Record, heard_alone, text_of};
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

/// The same over links with TLS.
pub(super) fn over_tls(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    stage.restart_node_with_certificates(false)?;
    all_to_all(stage)
}

/// The same where the members have certificates, too.
pub(super) fn over_mutual_tls(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    stage.restart_node_with_certificates(true)?;
    all_to_all(stage)
}

/// The same where the node demands a password.
pub(super) fn with_passwords(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    stage.restart_node_with_password()?;
    all_to_all(stage)
}

/// The same where the node demands a token.
pub(super) fn with_bearer_tokens(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    stage.restart_node_with_tokens()?;
    all_to_all(stage)
}

/// The same where everybody is known, and kept to the own name and the channel. Who takes
/// another name does not get it.
pub(super) fn under_a_policy(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    stage.restart_node_with_policy(&["mod", "p1", "p2", "thief-ours", "thief-theirs"])?;
    for side in Side::BOTH {
        let label = format!("thief-{side}");
        let thief = stage.start(&Part { app: "p2", ..Part::participant(side, &label) })?;
        stage.tolerate(thief, "identity_refused");
        stage.is_refused(thief)?;
    }
    all_to_all(stage)
}

/// The same over a socket in the file system.
pub(super) fn over_a_unix_socket(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    stage.restart_node_on_unix_socket()?;
    all_to_all(stage)
}

/// The same at three nodes, each of which has a link to each other one.
pub(super) fn at_a_full_mesh(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    stage.join_nodes(Joined::FullMesh)?;
    all_to_all(stage)
}

/// The same at three nodes of which the outer ones have no link to one another.
pub(super) fn at_a_line(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    stage.join_nodes(Joined::Line)?;
    all_to_all(stage)
}

/// The same over WebSockets with TLS.
pub(super) fn over_websockets_with_tls(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    stage.restart_node_on_secure_websockets()?;
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

/// The same with tokens that each signs with a key of its own, instead of a secret.
pub(super) fn tokens(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    stage.use_tokens()?;
    enforced(stage)
}

/// The same with what a SPIFFE agent says, which signs with another key in between.
pub(super) fn spiffe(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    stage.use_agent(false)?;
    stage.identity_binding = "enforce";
    let participants = stage.participants()?;
    let (late, first) = participants.split_last().expect("the cast has four");
    let moderator = stage.moderator(first)?;
    stage.converse(&[first, &[moderator]].concat(), 2)?;
    stage.rotate_keys()?;
    stage.invite(moderator, *late)?;
    let newcomer = stage.start(&Part::participant(stage.cast.moderator.other(), "newcomer"))?;
    stage.all_have(&[newcomer], "waiting")?;
    stage.invite(moderator, newcomer)?;
    let everybody = [&participants[..], &[newcomer]].concat();
    stage.converse(&[&everybody[..], &[moderator]].concat(), 2)?;
    stage.remove(moderator, participants[0])?;
    stage.converse(&[&everybody[1..], &[moderator]].concat(), 2)?;
    stage.close(moderator, &everybody[1..])
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

/// Bytes that are not text, in base64.
const BYTES: &str = "//4A";

/// Payloads of all sizes, with and without a type and metadata.
pub(super) fn payloads(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    let (moderator, participants) = stage.group()?;
    let everybody = [&participants[..], &[moderator]].concat();
    for &id in &everybody {
        say_all_kinds(stage, id, &everybody)?;
    }
    stage.all_heard()?;
    stage.close(moderator, &participants)
}

/// Has somebody send every kind of payload to these.
pub(super) fn say_all_kinds(
    stage: &mut Stage<'_>,
    id: MemberId,
    listeners: &[MemberId],
) -> anyhow::Result<()> {
    // A line as it is, if it is nothing else for both sides.
    stage.say_as(id, listeners, b"x", "x".to_owned())?;
    let large = "zw\u{f6}lf ".repeat(LARGE / 7);
    let metadata = json!({"answer": "42", "empty": "", "zw\u{f6}lf": "12"});
    for wanted in [
        json!({"payload": ""}),
        json!({"payload": "", "payload_type": "nothing", "metadata": metadata}),
        json!({"payload": "two\nlines", "payload_type": "text/plain"}),
        json!({"payload_base64": BYTES, "metadata": metadata}),
        json!({"payload": large}),
        json!({"payload": large, "payload_type": "large", "metadata": metadata}),
    ] {
        let text = |field: &str| wanted[field].as_str().unwrap_or_default();
        let bytes = format!("base64:{}", text("payload_base64"));
        let payload = wanted["payload"].as_str().unwrap_or(&bytes);
        let metadata = wanted.get("metadata").map(Value::to_string);
        let heard = text_of(payload, text("payload_type"), &metadata.unwrap_or_default());
        stage.say_as(id, listeners, format!("/publish {wanted}").as_bytes(), heard)?;
    }
    Ok(())
}

/// Everybody answers single members, and nobody else hears it.
pub(super) fn direct(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    let (moderator, participants) = stage.group()?;
    let everybody = [&participants[..], &[moderator]].concat();
    for round in 1..=3 {
        for &asking in &everybody {
            stage.say(asking, &everybody)?;
            stage.all_heard()?;
            for &id in everybody.iter().filter(|&&id| id != asking) {
                let text = format!("{} answers {round}", stage.member(id).label);
                let line = answer(stage.member(id), stage.member(asking), round, &text);
                stage.say_as(id, &[asking], line.as_bytes(), heard_alone(&text))?;
            }
            stage.all_heard()?;
        }
    }
    stage.close(moderator, &participants)
}

/// How somebody says this to one member. Ours by its name, with and without its id;
/// the reference only to who spoke last.
fn answer(who: &Record, to: &Record, round: usize, text: &str) -> String {
    match (who.side, round) {
        (Ours, 1) => format!("/to {} {text}", to.address),
        (Ours, _) => format!("/to {} {text}", to.name),
        (Theirs, _) => format!("/reply {text}"),
    }
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
