//! How members get out.

use anyhow::bail;

use super::{Ours, Stage, Theirs};
use crate::stage::tools::Part;

/// The moderator removes one of each kind; the others go on, and both come back as
/// new instances.
pub(super) fn remove(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    let (moderator, participants) = stage.group()?;
    let mut group = [&[moderator], &participants[..]].concat();
    stage.converse(&group, 1)?;
    for &id in &participants[..2] {
        stage.remove(moderator, id)?;
        group.retain(|&other| other != id);
        stage.converse(&group, 1)?;
        for &other in &group {
            stage.sees(other, &group)?;
        }
    }
    for (index, &id) in participants[..2].iter().enumerate() {
        let app = format!("p{}", index + 1);
        let label = format!("{app}-again");
        let side = stage.member(id).side;
        let again = stage.start(&Part { app: &app, ..Part::participant(side, &label) })?;
        stage.all_have(&[again], "waiting")?;
        stage.invite(moderator, again)?;
        group.push(again);
        stage.converse(&group, 1)?;
    }
    stage.close(moderator, &group[1..])
}

/// One of each kind leaves; the others notice and go on.
pub(super) fn leave(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    let (moderator, participants) = stage.group()?;
    let mut group = [&[moderator], &participants[..]].concat();
    stage.converse(&group, 1)?;
    for &id in &participants[..2] {
        stage.leave(id, &[])?;
        stage.ended_because(id, "left")?;
        group.retain(|&other| other != id);
        for &other in &group {
            stage.sees(other, &group)?;
        }
        stage.converse(&group, 1)?;
    }
    stage.close(moderator, &group[1..])
}

/// The only participant leaves. A moderator of the reference ends with it; ours keeps
/// the group, and others can join.
pub(super) fn last_leaves(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    let (moderator, participants) = stage.group()?;
    let [last] = participants[..] else { bail!("the cast has not one participant") };
    stage.converse(&[moderator, last], 1)?;
    match stage.cast.moderator {
        Theirs => stage.leave(last, &[moderator]),
        Ours => {
            stage.leave(last, &[])?;
            stage.sees(moderator, &[moderator])?;
            let next = stage.start(&Part::participant(stage.member(last).side, "next"))?;
            stage.all_have(&[next], "waiting")?;
            stage.invite(moderator, next)?;
            stage.converse(&[moderator, next], 1)?;
            stage.close(moderator, &[next])
        }
    }
}
