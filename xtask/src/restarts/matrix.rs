//! What becomes of an operation in each cell. `play` compares, docs/testing.md shows.

use std::fmt::Write as _;

use super::cell::{Cell, Hit, Moment, Operation, Victim};

/// Before, during and after. "–": the operation does not begin. Empty: there is nobody
/// left to be hit. " or ": either, whichever is first.
type Row = [&'static str; 3];

/// As if nothing had happened.
const JOINED: Row = ["joined"; 3];
const REMOVED: Row = ["removed"; 3];
const DELIVERED: Row = ["heard, delivered"; 3];
const LOST_AND_HEARD: Row = ["heard, lost"; 3];
const TOLD: Row = ["both are told", "both are told", ""];

/// What becomes of an operation if this happens to somebody.
fn row(operation: Operation, victim: Victim, hit: Hit) -> Row {
    use Hit::{Frozen, Killed, Stopped};
    use Operation::{Close, Commit, Invite, Publish, Rejoin};
    use Victim::{Moderator, Node, Participant};
    match (operation, victim, hit) {
        (Invite, Node, _) | (Invite, _, Frozen) => JOINED,
        (Invite, Moderator, Killed) => ["–", "in, nobody knows", "joined"],
        (Invite, Moderator, Stopped) => ["–", "refused", "joined"],
        (Invite, Participant, Killed) => ["no answer", "no answer", "joined"],
        (Invite, Participant, Stopped) => ["no answer", "no answer or joined", "joined"],

        (Commit, Moderator, Killed) => ["–", "removed", "removed"],
        (Commit, Moderator, Stopped) => ["–", "moderator closed", "removed"],
        (Commit, ..) => REMOVED,

        (Publish, Node, _) | (Publish, _, Frozen) => DELIVERED,
        (Publish, Moderator, Killed) => ["–", "heard, no outcome", "heard, delivered"],
        (Publish, Moderator, Stopped) => ["–", "heard, lost", "heard, delivered"],
        (Publish, Participant, Killed) => {
            ["not heard, lost", "not heard, lost", "heard, delivered"]
        }
        (Publish, Participant, Stopped) => {
            ["not heard, delivered", "heard, delivered or not heard, lost", "heard, delivered"]
        }

        (Rejoin, Node, _) | (Rejoin, _, Frozen) => LOST_AND_HEARD,
        (Rejoin, Moderator, Killed | Stopped) => ["–", "heard, lost", "heard, lost"],
        (Rejoin, Participant, Killed) => ["not heard, lost", "not heard, lost", "heard, lost"],
        (Rejoin, Participant, Stopped) => {
            ["not heard, delivered", "heard, lost or not heard, lost", "heard, lost"]
        }

        (Close, Node, Killed | Stopped) => ["nobody is told", "one is told", "both are told"],
        (Close, Node, Frozen) => ["both are told"; 3],
        (Close, Moderator, Killed | Stopped) => ["–", "both are told", ""],
        (Close, Participant, Killed | Stopped) => ["one is told", "one is told", ""],
        (Close, Moderator | Participant, Frozen) => TOLD,
    }
}

/// What becomes of the operation of a cell.
pub(super) fn expected(cell: Cell) -> &'static str {
    let row = row(cell.operation, cell.victim, cell.hit);
    match cell.moment {
        Moment::Before => row[0],
        Moment::During => row[1],
        Moment::After => row[2],
    }
}

/// As docs/testing.md shows it.
pub(super) fn table() -> String {
    let mut table = String::from(
        "| operation | who | what | before | during | after |\n|---|---|---|---|---|---|\n",
    );
    for operation in Operation::ALL {
        for victim in Victim::ALL {
            for hit in Hit::ALL {
                let [before, during, after] = row(operation, victim, hit);
                writeln!(
                    table,
                    "| {operation} | {victim} | {hit} | {before} | {during} | {after} |"
                )
                .expect("a string takes everything");
            }
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cargo;

    #[test]
    fn the_document_shows_this_matrix() {
        let document = cargo::root().join("docs/testing.md");
        let document = std::fs::read_to_string(document).unwrap();
        assert!(
            document.contains(&table()),
            "docs/testing.md has another table than `cargo xtask restarts --table`"
        );
    }

    #[test]
    fn each_cell_that_exists_has_an_outcome_and_no_other_has() {
        let cells: Vec<Cell> = Cell::all().collect();
        assert_eq!(cells.len(), 5 * 3 * 3 * 3 - 6);
        assert!(cells.iter().all(|cell| !expected(*cell).is_empty()));
        let count = |row: Row| row.iter().filter(|outcome| !outcome.is_empty()).count();
        let outcomes: usize = Operation::ALL
            .iter()
            .flat_map(|&operation| Victim::ALL.map(|victim| (operation, victim)))
            .flat_map(|(operation, victim)| Hit::ALL.map(|hit| count(row(operation, victim, hit))))
            .sum();
        assert_eq!(outcomes, cells.len());
    }
}
