//! Who plays what.

use std::fmt;

/// An implementation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// This project.
    Ours,
    /// The reference.
    Theirs,
}

pub(crate) use Side::{Ours, Theirs};

impl Side {
    /// Both of them.
    pub(crate) const BOTH: [Self; 2] = [Ours, Theirs];

    /// The other one.
    pub(crate) fn other(self) -> Self {
        match self {
            Ours => Theirs,
            Theirs => Ours,
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Ours => "ours",
            Theirs => "theirs",
        })
    }
}

/// One way to play a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cast {
    pub(crate) node: Side,
    /// Moderator of the group, or caller.
    pub(crate) moderator: Side,
    /// Those that are invited or called, in this order.
    pub(crate) others: Vec<Side>,
    pub(crate) mls: bool,
}

impl Cast {
    /// The others in words, for the table.
    pub(crate) fn others(&self) -> String {
        Side::BOTH
            .iter()
            .filter_map(|side| match self.others.iter().filter(|other| *other == side).count() {
                0 => None,
                1 => Some(side.to_string()),
                count => Some(format!("{count} {side}")),
            })
            .collect::<Vec<_>>()
            .join(" + ")
    }
}

/// Everything in `casts`, with and without MLS.
pub(crate) fn with_and_without_mls(casts: impl IntoIterator<Item = Cast>) -> Vec<Cast> {
    let both = |cast: Cast| [Cast { mls: true, ..cast.clone() }, Cast { mls: false, ..cast }];
    casts.into_iter().flat_map(both).collect()
}

/// A group in the given nodes, moderated by each side.
pub(crate) fn groups(nodes: &[Side], others: &[Side]) -> Vec<Cast> {
    let mut casts = Vec::new();
    for &node in nodes {
        for moderator in Side::BOTH {
            casts.push(Cast { node, moderator, others: others.to_vec(), mls: true });
        }
    }
    casts
}

/// Calls from each side to the other, over the given nodes.
pub(crate) fn calls(nodes: &[Side]) -> Vec<Cast> {
    let mut casts = groups(nodes, &[]);
    for cast in &mut casts {
        cast.others = vec![cast.moderator.other()];
    }
    casts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_are_counted() {
        let cast = |others: &[Side]| Cast {
            node: Ours,
            moderator: Ours,
            others: others.to_vec(),
            mls: true,
        };
        assert_eq!(cast(&[Theirs, Ours, Theirs]).others(), "ours + 2 theirs");
        assert_eq!(cast(&[Theirs]).others(), "theirs");
    }

    #[test]
    fn casts_are_all_combinations() {
        let casts = with_and_without_mls(groups(&Side::BOTH, &[Ours]));
        assert_eq!(casts.len(), 8);
        assert_eq!(casts.iter().filter(|cast| cast.mls).count(), 4);
        assert!(calls(&[Ours]).iter().all(|cast| cast.others == [cast.moderator.other()]));
    }
}
