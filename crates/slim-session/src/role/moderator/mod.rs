//! The moderator: invites, welcomes, removes, closes.
//!
//! Invitations overlap. Each goes through discovery and join by itself; only the
//! change of the group, commit and welcome, is one at a time, because a new member
//! must hold the channel before the next change is announced there. It does not
//! wait for ever: a welcome that is not confirmed after [`SLOT_LIMIT`] lets the
//! next change go ahead, and a member that missed one gets it again.
//!
//! Each change costs all members something, so whoever is asked in together is the
//! first change together, with one commit and one welcome. Later ones go one by one:
//! a GROUP_UPDATE names a single participant.
//!
//! | stage of an invitation | what it waits for | on its answer | when time is up |
//! |---|---|---|---|
//! | discovering | DISCOVERY_REPLY | JOIN_REQUEST | no answer; in already, if it was |
//! | doubting | a sign of life of the old instance | in already | the old one is out; JOIN_REQUEST to the new one |
//! | joining | JOIN_REPLY | queues the change | no answer |
//! | queued | its turn | commit; GROUP_UPDATE to the others, GROUP_WELCOME | – |
//! | admitting | GROUP_ACK of the welcome | the next change may go | no answer; the member is removed again |
//! | | GROUP_ACKs of the update | joined | joined; who is silent for long is offline |

mod invite;
mod remove;
mod renew;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use slim_auth::Claims;
use slim_proto::{Command, Name, Participant, RouteName};

use self::renew::{readmit, refresh};
use super::{Purpose, Renewal, TaskId};
use crate::api::{
    CloseReason, CreateError, Done, InviteError, ParticipantChange, RemoveError, RequestId,
};
use crate::exchange::{Pace, Request};
use crate::outbox::Context;
use crate::roster::Entry;
use crate::session::Core;

/// Invitations of one session that may be under way at once.
pub(crate) const MAX_INVITES: usize = 1024;

/// A member that is invited again does not answer, since it is in. Somebody who
/// does has its name but is not it: a process that was started again, or another
/// instance. The old one is out unless it is heard within this time, in which
/// every living member sends a heartbeat.
const DOUBT: Duration = Duration::from_secs(11);

/// How long it is tried whether a member that is invited again was started again.
const DOUBT_PACE: Pace = Pace { period: Duration::from_secs(1), retries: 1 };

/// Further requests to an invited application after somebody of its name has shown
/// another identity.
const MISMATCH_RETRIES: u32 = 2;

/// Removed members that are remembered because they did not confirm it.
const MAX_AWAY: usize = 1024;

/// How long an unconfirmed welcome holds up the next change of the group.
const SLOT_LIMIT: Duration = Duration::from_secs(1);

/// How long an invitation waits for the other members to confirm that they know of the
/// new one: three times told, and a second to answer. A member that was killed does not,
/// and would hold it up until it counts as offline. Who is merely slow is told on, and
/// takes what the new one says after that.
const ANNOUNCEMENT_LIMIT: Duration = Duration::from_secs(3);

/// The first change waits for others who are being invited until none has answered for
/// this long,
const GATHER_PAUSE: Duration = Duration::from_millis(500);

/// and no longer than this in all.
const GATHER_LIMIT: Duration = Duration::from_secs(5);

/// What the moderator of a session has under way.
#[derive(Debug, Default)]
pub(crate) struct Moderator {
    invites: BTreeMap<TaskId, Invite>,
    removals: BTreeMap<TaskId, Removal>,
    /// Changes of the group that wait for their turn.
    changes: VecDeque<Change>,
    /// The admissions whose welcomes are not confirmed yet, and until when they hold
    /// up others.
    slot: Option<(BTreeSet<TaskId>, Duration)>,
    /// While the first change waits for others: since when, and for how long.
    gathering: Option<(Duration, Duration)>,
    next: TaskId,
    renewal: Renewal,
    /// Removed, but they did not confirm it, or left, which a late copy of what they
    /// said can make us believe. They are told when they are heard.
    away: BTreeMap<RouteName, Participant>,
    /// The last key package that each member came back with, and our answer.
    readmitted: BTreeMap<RouteName, (Bytes, Command)>,
}

#[derive(Debug)]
struct Invite {
    /// As it was given.
    name: Name,
    waiting: Vec<Waiting>,
    stage: Stage,
    /// Somebody of this name has answered with another identity than ours.
    mismatch: Option<String>,
}

/// Who wants to know what becomes of an invitation.
#[derive(Clone, Copy, Debug)]
enum Waiting {
    Invite(RequestId),
    /// The creation of a point-to-point session: it fails with the invitation.
    Create(RequestId),
}

#[derive(Debug)]
enum Stage {
    Discovering,
    /// The one that answered has the name of a member, but is not it.
    Doubting {
        peer: Name,
        since: Duration,
    },
    Joining,
    Queued {
        entry: Box<Entry>,
        key_package: Bytes,
        claims: Claims,
    },
    Admitting {
        peer: Name,
        welcomed: bool,
        announced: bool,
        /// How long the others may take to confirm.
        until: Duration,
    },
}

#[derive(Debug)]
struct Removal {
    member: Participant,
    waiting: Vec<RequestId>,
    /// Whether the member has to be told; one that left by itself knows.
    dismiss: bool,
}

#[derive(Debug)]
enum Change {
    Admit(TaskId),
    Rejoin {
        member: Name,
        message_id: u32,
        key_package: Bytes,
        claims: Claims,
    },
    /// Renew the token in our leaf.
    Refresh,
}

impl Moderator {
    // ------------------------------------------------------------ change the group

    /// The node answered a subscription of the channel. Without the channel nobody
    /// can be admitted.
    pub(crate) fn on_subscribed(&mut self, core: &mut Core, cx: &mut Context<'_>) {
        if !core.is_refused(cx) {
            return self.pump(core, cx);
        }
        let queued: Vec<(TaskId, Name)> = (self.invites.iter())
            .filter(|(_, invite)| matches!(invite.stage, Stage::Queued { .. }))
            .map(|(task, invite)| (*task, invite.name.clone()))
            .collect();
        for (task, name) in queued {
            let reason = "the node refuses us the channel".to_owned();
            self.fail_invite(core, cx, task, &InviteError::Refused { name, reason });
        }
    }

    /// Makes the changes whose turn it is.
    pub(crate) fn pump(&mut self, core: &mut Core, cx: &mut Context<'_>) {
        while self.slot.is_none()
            && core.is_open()
            && core.is_subscribed(cx)
            && !self.is_gathering(core, cx.now.at)
        {
            let next = self.changes.iter().position(|change| !self.is_early(core, change));
            match next.and_then(|next| self.changes.remove(next)) {
                None => return,
                Some(Change::Admit(task)) => {
                    let others =
                        if core.roster.is_empty() { self.take_admissions() } else { vec![] };
                    self.admit(core, cx, [vec![task], others].concat());
                }
                Some(Change::Rejoin { member, message_id, key_package, claims }) => {
                    if let Some(reply) =
                        readmit(core, cx, &member, message_id, &key_package, &claims)
                    {
                        self.readmitted.insert(member.route(), (key_package, reply));
                    }
                }
                Some(Change::Refresh) => {
                    refresh(core, cx);
                    self.renewal.postpone(core, cx.now.unix);
                }
            }
        }
    }

    // ------------------------------------------------------------ close

    /// The application closes the session for all.
    pub(crate) fn close(&mut self, core: &mut Core, cx: &mut Context<'_>) {
        self.abandon(cx);
        core.exchanges.cancel(|_| true);
        let (destination, fanout) = core.everybody();
        let missing: Vec<RouteName> = core.roster.online().map(Name::route).collect();
        if missing.is_empty() && core.roster.is_empty() {
            return core.end(cx, CloseReason::Left);
        }
        let participants = core.participants().into_iter().map(|row| row.name).collect();
        let command = Command::GroupClose { participants };
        let request = Request { destination, fanout, command, leaving: false };
        let nobody = missing.is_empty();
        core.request(cx, Purpose::CloseGroup, request, core.closing_pace(), missing);
        if nobody {
            // Sent for those who may hear it; nobody is online to answer.
            core.end(cx, CloseReason::Left);
        }
    }

    /// The session ends: whoever waits for an invitation or removal is told.
    pub(crate) fn abandon(&mut self, cx: &mut Context<'_>) {
        for (_, invite) in std::mem::take(&mut self.invites) {
            for waiting in invite.waiting {
                match waiting {
                    Waiting::Invite(request) => {
                        cx.out.done(request, Done::Invited(Err(InviteError::Closed)));
                    }
                    Waiting::Create(request) => {
                        let error = CreateError::Invite(InviteError::Closed);
                        cx.out.done(request, Done::Created(Err(error)));
                    }
                }
            }
        }
        for (_, removal) in std::mem::take(&mut self.removals) {
            for request in removal.waiting {
                cx.out.done(request, Done::Removed(Err(RemoveError::Closed)));
            }
        }
        self.changes.clear();
        self.slot = None;
        self.gathering = None;
    }

    // ------------------------------------------------------------ time and answers

    /// Everybody has answered.
    pub(crate) fn on_completed(&mut self, core: &mut Core, cx: &mut Context<'_>, purpose: Purpose) {
        match purpose {
            Purpose::Welcome(task) => self.on_welcomed(core, cx, task),
            Purpose::Admit(task) => self.on_announced(core, cx, task),
            Purpose::Retire(task) => self.on_retired(core, cx, task),
            Purpose::Dismiss(task) => self.on_dismissed(cx, task, true),
            Purpose::CloseGroup => core.end(cx, CloseReason::Left),
            Purpose::Presence => core.presence_done(cx, &Ok(())),
            Purpose::Discover(_)
            | Purpose::Join(_)
            | Purpose::Announce
            | Purpose::Leave
            | Purpose::Rejoin => {}
        }
    }

    /// Time is up for these.
    pub(crate) fn on_failed(
        &mut self,
        core: &mut Core,
        cx: &mut Context<'_>,
        purpose: Purpose,
        missing: &[RouteName],
    ) {
        match purpose {
            Purpose::Discover(task) | Purpose::Join(task) | Purpose::Welcome(task) => {
                let Some(invite) = self.invites.get(&task) else { return };
                let name = invite.name.clone();
                if let (Stage::Discovering, Some(member)) = (&invite.stage, namesake(core, &name)) {
                    let member = member.name.clone();
                    return self.answer_invite(core, cx, task, &member);
                }
                let admitted = match &invite.stage {
                    Stage::Admitting { peer, .. } => Some(peer.clone()),
                    _ => None,
                };
                let error = match (&invite.stage, &invite.mismatch) {
                    (Stage::Discovering, Some(reason)) => {
                        InviteError::IdentityMismatch { name, reason: reason.clone() }
                    }
                    _ => InviteError::NoAnswer { name, after: core.control_limit() },
                };
                self.fail_invite(core, cx, task, &error);
                self.free_slot(task);
                if let Some(peer) = admitted {
                    // It may be in without our knowing: take it out for everybody.
                    let left = ParticipantChange::Left;
                    self.drop_member(core, cx, &peer, left, Vec::new(), true);
                }
                self.pump(core, cx);
            }
            Purpose::Admit(task) => {
                core.silent(cx, missing);
                self.on_announced(core, cx, task);
            }
            Purpose::Retire(task) => {
                core.silent(cx, missing);
                self.on_retired(core, cx, task);
            }
            Purpose::Announce => core.silent(cx, missing),
            Purpose::Dismiss(task) => self.on_dismissed(cx, task, false),
            Purpose::CloseGroup => core.end(cx, CloseReason::Left),
            Purpose::Presence => core.presence_failed(cx, missing),
            Purpose::Leave | Purpose::Rejoin => {}
        }
    }

    /// Lets the next change go when a welcome stays unconfirmed, and renews our
    /// credential in time.
    pub(crate) fn on_deadline(&mut self, core: &mut Core, cx: &mut Context<'_>) {
        if self.renewal.is_due(core, cx.now.unix)
            && !self.changes.iter().any(|change| matches!(change, Change::Refresh))
        {
            self.changes.push_back(Change::Refresh);
            self.pump(core, cx);
        }
        if self.slot.as_ref().is_some_and(|(_, until)| *until <= cx.now.at) {
            self.slot = None;
            self.pump(core, cx);
        }
        if self.gathering.is_some_and(|(_, until)| until <= cx.now.at) {
            self.gathering = None;
            self.pump(core, cx);
        }
        let late = |invite: &Invite| invite.announced_by().is_some_and(|until| until <= cx.now.at);
        let late: Vec<TaskId> = (self.invites.iter())
            .filter(|(_, invite)| late(invite))
            .map(|(task, _)| *task)
            .collect();
        for task in late {
            self.on_announced(core, cx, task);
        }
        self.resolve_doubts(core, cx);
    }

    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        let doubts = self.invites.values().filter_map(|invite| match &invite.stage {
            Stage::Doubting { since, .. } => Some(*since + DOUBT),
            _ => None,
        });
        let announced = self.invites.values().filter_map(Invite::announced_by);
        let slot = self.slot.as_ref().map(|(_, until)| *until);
        doubts.chain(announced).chain(slot).chain(self.gathering.map(|(_, until)| until)).min()
    }

    fn next_task(&mut self) -> TaskId {
        self.next += 1;
        self.next
    }
}

impl Invite {
    /// Until when it waits for the others, if it does.
    fn announced_by(&self) -> Option<Duration> {
        match self.stage {
            Stage::Admitting { announced: false, until, .. } => Some(until),
            _ => None,
        }
    }
}

/// The member with this readable name.
fn namesake<'a>(core: &'a Core, name: &Name) -> Option<&'a Entry> {
    core.roster.iter().find(|entry| entry.name.same_app(name))
}
