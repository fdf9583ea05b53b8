//! What only a moderator, or only a participant, does.

pub(crate) mod moderator;
pub(crate) mod participant;

pub(crate) use moderator::Moderator;
pub(crate) use participant::Participant;

/// Number of an invitation or removal, unique in its session.
pub(crate) type TaskId = u64;

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
