//! What only a moderator, or only a participant, does.

pub(crate) mod moderator;
pub(crate) mod participant;

pub(crate) use moderator::Moderator;
pub(crate) use participant::Participant;

use rand::RngExt;

use crate::session::{Core, Encryption};

/// Number of an invitation or removal, unique in its session.
pub(crate) type TaskId = u64;

/// When the token in our leaf of the group is renewed. Members of the reference check
/// it with every message, and hear nobody once it is too old.
#[derive(Debug)]
pub(crate) struct Renewal {
    /// So many seconds before it expires.
    margin: u64,
    /// But not before, in seconds since the Unix epoch: some tokens last no longer than
    /// the margin.
    from: u64,
}

impl Default for Renewal {
    fn default() -> Self {
        Self { margin: Self::MARGIN, from: 0 }
    }
}

impl Renewal {
    const MARGIN: u64 = 900;

    /// At least this many seconds are between two renewals.
    const PAUSE: u64 = 60;

    /// Somewhat later than the moderator, and not all at once: each member's renewal
    /// is a commit.
    pub(crate) fn of_participant(rng: &mut impl RngExt) -> Self {
        Self { margin: rng.random_range(Self::MARGIN / 3..Self::MARGIN), from: 0 }
    }

    /// Whether it is time, at `now` in seconds since the Unix epoch.
    pub(crate) fn is_due(&self, core: &Core, now: u64) -> bool {
        expires_at(core).is_some_and(|at| at < now + self.margin) && now >= self.from
    }

    /// It is asked for, or done.
    pub(crate) fn postpone(&mut self, core: &Core, now: u64) {
        let left = expires_at(core).unwrap_or_default().saturating_sub(now);
        self.from = now + (left / 2).max(Self::PAUSE);
    }
}

fn expires_at(core: &Core) -> Option<u64> {
    core.mls.as_ref().and_then(Encryption::credential_expires_at)
}

/// Why a command was sent that somebody has to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Moderator, DISCOVERY_REQUEST: is somebody of this name there?
    Discover(TaskId),
    /// Moderator, JOIN_REQUEST: come in.
    Join(TaskId),
    /// Moderator, GROUP_WELCOME: you are in.
    Welcome(TaskId),
    /// Moderator, GROUP_UPDATE ADD: tell the others of a new member.
    Admit(TaskId),
    /// Moderator, GROUP_UPDATE REMOVE: tell the others that a member is out.
    Retire(TaskId),
    /// Moderator, LEAVE_REQUEST: tell the member itself.
    Dismiss(TaskId),
    /// Moderator, GROUP_UPDATE of which nobody awaits the end.
    Announce,
    /// Moderator, GROUP_CLOSE.
    CloseGroup,
    /// Both, UPDATE_PARTICIPANT_STATE: we are away, or back.
    Presence,
    /// Participant, LEAVE_REQUEST.
    Leave,
    /// Participant, REJOIN_REQUEST.
    Rejoin,
}

impl Purpose {
    /// Whether this tells members of a change of the group. One that shows the
    /// group's epoch in a heartbeat knows of it, even if its answer is lost.
    pub(crate) fn is_update(&self) -> bool {
        matches!(self, Self::Admit(_) | Self::Retire(_) | Self::Announce)
    }
}
