//! How members get out.

use super::Stage;
use crate::interop::stage::Part;

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
