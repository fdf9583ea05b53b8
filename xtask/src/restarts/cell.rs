//! What can happen to whom, and when.

use std::fmt;

/// Something that a group does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    /// The moderator invites a newcomer.
    Invite,
    /// The moderator removes a member, and the others take the commit in.
    Commit,
    /// The moderator says a line.
    Publish,
    /// A participant missed a commit, notices at the next line, and asks for new keys.
    Rejoin,
    /// The moderator closes the group.
    Close,
}

/// To whom it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Victim {
    Node,
    Moderator,
    /// The newcomer of an invitation; else one that receives what is sent.
    Participant,
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hit {
    /// SIGKILL.
    Killed,
    /// SIGTERM: it ends as it should.
    Stopped,
    /// SIGSTOP, and SIGCONT after a while.
    Frozen,
}

/// When it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    Before,
    /// While the message that matters is on its way to the participant.
    During,
    After,
}

/// One combination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) operation: Operation,
    pub(super) victim: Victim,
    pub(super) hit: Hit,
    pub(super) moment: Moment,
}

impl Operation {
    pub(super) const ALL: [Self; 5] =
        [Self::Invite, Self::Commit, Self::Publish, Self::Rejoin, Self::Close];

    /// The message at which the link of the participant stops.
    pub(super) fn message(self) -> &'static str {
        match self {
            Self::Invite => "GroupWelcome",
            Self::Commit => "GroupUpdate",
            Self::Publish => "Msg",
            Self::Rejoin => "RejoinReply",
            Self::Close => "GroupClose",
        }
    }
}

impl Victim {
    pub(super) const ALL: [Self; 3] = [Self::Node, Self::Moderator, Self::Participant];
}

impl Hit {
    pub(super) const ALL: [Self; 3] = [Self::Killed, Self::Stopped, Self::Frozen];
}

impl Moment {
    pub(super) const ALL: [Self; 3] = [Self::Before, Self::During, Self::After];
}

impl Cell {
    /// All combinations that there are: who has ended after a group was closed is hit no
    /// more.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        let exists = |cell: &Self| {
            let is_over = cell.operation == Operation::Close && cell.moment == Moment::After;
            !is_over || cell.victim == Victim::Node
        };
        Operation::ALL
            .into_iter()
            .flat_map(|operation| Victim::ALL.map(|victim| (operation, victim)))
            .flat_map(|(operation, victim)| Hit::ALL.map(|hit| (operation, victim, hit)))
            .flat_map(|(operation, victim, hit)| {
                Moment::ALL.map(|moment| Self { operation, victim, hit, moment })
            })
            .filter(exists)
    }
}

/// In the words of the table.
macro_rules! words {
    ($type:ty: $($variant:ident = $text:literal),*) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$variant => $text),* })
            }
        }
    };
}

words!(Operation: Invite = "invite", Commit = "commit", Publish = "publish", Rejoin = "rejoin", Close = "close");
words!(Victim: Node = "node", Moderator = "moderator", Participant = "participant");
words!(Hit: Killed = "killed", Stopped = "stopped", Frozen = "frozen");
words!(Moment: Before = "before", During = "during", After = "after");

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { operation, victim, hit, moment } = self;
        write!(f, "{operation} {victim} {hit} {moment}")
    }
}
