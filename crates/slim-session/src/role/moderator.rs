//! The moderator: invites, welcomes, removes, closes.
//!
//! Invitations overlap. Each goes through discovery and join by itself; only the
//! change of the group, commit and welcome, is one at a time, because a new member
//! must hold the channel before the next change is announced there. It does not
//! wait for ever: a welcome that is not confirmed after [`SLOT_LIMIT`] lets the
//! next change go ahead, and a member that missed one gets it again.
//!
//! | stage of an invitation | what it waits for | on its answer | when time is up |
//! |---|---|---|---|
//! | discovering | DISCOVERY_REPLY | JOIN_REQUEST | no answer; in already, if it was |
//! | doubting | a sign of life of the old instance | in already | the old one is out; JOIN_REQUEST to the new one |
//! | joining | JOIN_REPLY | queues the change | no answer |
//! | queued | its turn | commit; GROUP_UPDATE to the others, GROUP_WELCOME | – |
//! | admitting | GROUP_ACK of the welcome | the next change may go | no answer; the member is removed again |
//! | | GROUP_ACKs of the update | joined | joined; who is silent is offline |

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use slim_auth::Claims;
use slim_proto::{
    Command, GroupUpdateOp, GroupWelcome, JoinReply, JoinRequest, MlsPayload, Name, Participant,
    RejoinReply, RejoinRequest, RouteName, TimerSettings, UNICAST,
};
use tracing::{debug, warn};

use super::{Purpose, TaskId};
use crate::api::{
    CloseReason, CreateError, Done, InviteError, ParticipantChange, RemoveError, RequestId,
};
use crate::exchange::{Pace, Request};
use crate::gate::Authentic;
use crate::outbox::Context;
use crate::roster::Entry;
use crate::session::{Core, Encryption};

/// Invitations of one session that may be under way at once.
pub(crate) const MAX_INVITES: usize = 1024;

/// A member that is invited again does not answer, since it is in. Somebody who
/// does has its name but is not it: a process that was started again, or another
/// instance. The old one is out unless it is heard within this time, in which
/// every living member sends a heartbeat.
const DOUBT: Duration = Duration::from_secs(11);

/// How long it is tried whether a member that is invited again was started again.
const DOUBT_PACE: Pace = Pace { period: Duration::from_secs(1), retries: 1 };

/// Removed members that are remembered because they did not confirm it.
const MAX_AWAY: usize = 1024;

/// How long an unconfirmed welcome holds up the next change of the group.
const SLOT_LIMIT: Duration = Duration::from_secs(1);

/// The token in our leaf is renewed this many seconds before it expires. Members of
/// the reference check it with every message, and hear nobody once it is too old.
const REFRESH_MARGIN_SECS: u64 = 900;

/// At least this many seconds are between two renewals.
const REFRESH_PAUSE_SECS: u64 = 60;

/// What the moderator of a session has under way.
#[derive(Debug, Default)]
pub(crate) struct Moderator {
    invites: BTreeMap<TaskId, Invite>,
    removals: BTreeMap<TaskId, Removal>,
    /// Changes of the group that wait for their turn.
    changes: VecDeque<Change>,
    /// The admission whose welcome is not confirmed yet, and until when it holds
    /// up others.
    slot: Option<(TaskId, Duration)>,
    next: TaskId,
    /// Not before, in seconds since the Unix epoch, is our credential renewed again:
    /// some tokens last no longer than the margin.
    refresh_from: u64,
    /// Removed, but they did not confirm it. They are told again when they are heard.
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
    // ------------------------------------------------------------ invite

    /// The application invites. Harmless for who is in or being invited already.
    pub(crate) fn invite(
        &mut self,
        core: &mut Core,
        cx: &mut Context<'_>,
        request: RequestId,
        name: Name,
    ) {
        if core.is_p2p() {
            return cx.out.done(request, Done::Invited(Err(InviteError::NotGroup)));
        }
        if name.same_app(&core.info.local) {
            let error = InviteError::Refused { name, reason: "it moderates this group".into() };
            return cx.out.done(request, Done::Invited(Err(error)));
        }
        let asked = |invite: &&mut Invite| invite.name.same_app(&name);
        if let Some(invite) = self.invites.values_mut().find(asked) {
            return invite.waiting.push(Waiting::Invite(request));
        }
        if self.invites.len() >= MAX_INVITES {
            let error = InviteError::TooMany { limit: MAX_INVITES };
            return cx.out.done(request, Done::Invited(Err(error)));
        }
        self.discover(core, cx, name, Waiting::Invite(request));
    }

    /// The application calls a peer: the one invitation of a session of two.
    pub(crate) fn call(
        &mut self,
        core: &mut Core,
        cx: &mut Context<'_>,
        request: RequestId,
        peer: Name,
    ) {
        self.discover(core, cx, peer, Waiting::Create(request));
    }

    fn discover(&mut self, core: &mut Core, cx: &mut Context<'_>, name: Name, waiting: Waiting) {
        let task = self.next_task();
        let request = Request {
            destination: name.clone(),
            fanout: UNICAST,
            command: Command::DiscoveryRequest,
            leaving: false,
        };
        let missing = [name.route()];
        let is_member = namesake(core, &name).is_some();
        let pace = if is_member { DOUBT_PACE } else { core.control_pace() };
        core.request(cx, Purpose::Discover(task), request, pace, missing);
        let invite = Invite { name, waiting: vec![waiting], stage: Stage::Discovering };
        self.invites.insert(task, invite);
    }

    /// Somebody is there: ask it in.
    pub(crate) fn on_discovery_reply(
        &mut self,
        core: &mut Core,
        cx: &mut Context<'_>,
        message: &Authentic,
    ) {
        let Some(Purpose::Discover(task)) = core.completed(message) else { return };
        let peer = message.source.clone();
        self.is_out(core, cx, &peer);
        let Some(invite) = self.invites.get_mut(&task) else { return };
        match namesake(core, &peer) {
            Some(member) if member.online => {
                invite.stage = Stage::Doubting { peer, since: cx.now.at };
            }
            _ => self.join(core, cx, task, peer),
        }
    }

    /// Who answers a discovery is not in the session, so it need not be told to go:
    /// that would throw it out again.
    fn is_out(&mut self, core: &mut Core, cx: &mut Context<'_>, name: &Name) {
        self.away.remove(&name.route());
        let known: Vec<TaskId> = (self.removals.iter())
            .filter(|(_, removal)| removal.member.name.route() == name.route())
            .map(|(task, _)| *task)
            .collect();
        for task in known {
            core.exchanges.cancel(|purpose| *purpose == Purpose::Dismiss(task));
            self.on_dismissed(cx, task, true);
        }
    }

    /// Asks the one that answered in, in place of a member with its name that is
    /// not there any more.
    fn join(&mut self, core: &mut Core, cx: &mut Context<'_>, task: TaskId, peer: Name) {
        if let Some(old) = namesake(core, &peer).map(|entry| entry.name.clone()) {
            let dismiss = old.route() != peer.route();
            self.drop_member(core, cx, &old, ParticipantChange::Left, Vec::new(), dismiss);
        }
        let Some(invite) = self.invites.get_mut(&task) else { return };
        invite.stage = Stage::Joining;
        let command = Command::JoinRequest(JoinRequest {
            timer_settings: core.timers.map(|timers| TimerSettings {
                timeout_ms: u32::try_from(timers.timeout.as_millis()).unwrap_or(u32::MAX),
                max_retries: timers.max_retries,
            }),
            channels: core.channels.clone(),
            mls_aad_percent: core.info.mls.then_some(100),
        });
        let missing = [peer.route()];
        let request = Request { destination: peer, fanout: UNICAST, command, leaving: false };
        core.request(cx, Purpose::Join(task), request, core.control_pace(), missing);
    }

    /// It wants in: queue the change of the group.
    pub(crate) fn on_join_reply(
        &mut self,
        core: &mut Core,
        cx: &mut Context<'_>,
        message: &Authentic,
        reply: &JoinReply,
    ) {
        let Some(Purpose::Join(task)) = core.completed(message) else { return };
        let Some(invite) = self.invites.get_mut(&task) else { return };
        let refused = if reply.participant.name != message.source {
            Some("it answered under another name")
        } else if core.info.mls && reply.key_package.is_none() {
            Some("it does not do MLS")
        } else {
            None
        };
        if let Some(reason) = refused {
            let name = invite.name.clone();
            let error = InviteError::Refused { name, reason: reason.to_owned() };
            return self.fail_invite(core, cx, task, &error);
        }
        let mut entry = Entry::new(&reply.participant);
        entry.online = true;
        entry.joining = true;
        entry.key = Some(message.claims.public_key.clone());
        invite.stage = Stage::Queued {
            entry: Box::new(entry),
            key_package: reply.key_package.clone().unwrap_or_default(),
            claims: message.claims.clone(),
        };
        self.changes.push_back(Change::Admit(task));
        self.on_subscribed(core, cx);
    }

    /// An invited application says that it cannot verify us, or we cannot verify
    /// what it says: the identities differ.
    pub(crate) fn on_identity_mismatch(
        &mut self,
        core: &mut Core,
        cx: &mut Context<'_>,
        message_id: u32,
        source: &Name,
    ) {
        let Some(Purpose::Discover(task)) = core.exchanges.purpose_of(message_id).copied() else {
            return;
        };
        let Some(invite) = self.invites.get(&task) else { return };
        if !invite.name.same_app(source) {
            return;
        }
        let error = InviteError::IdentityMismatch { name: invite.name.clone() };
        core.exchanges.cancel(|purpose| *purpose == Purpose::Discover(task));
        self.fail_invite(core, cx, task, &error);
    }

    fn fail_invite(
        &mut self,
        core: &mut Core,
        cx: &mut Context<'_>,
        task: TaskId,
        error: &InviteError,
    ) {
        let Some(invite) = self.invites.remove(&task) else { return };
        debug!(name = %invite.name, %error, "invitation failed");
        core.exchanges.cancel(|purpose| {
            matches!(purpose, Purpose::Discover(id) | Purpose::Join(id) | Purpose::Welcome(id)
                | Purpose::Admit(id) if *id == task)
        });
        let mut over = false;
        for waiting in invite.waiting {
            match waiting {
                Waiting::Invite(request) => {
                    cx.out.done(request, Done::Invited(Err(error.clone())));
                }
                Waiting::Create(request) => {
                    let error = CreateError::Invite(error.clone());
                    cx.out.done(request, Done::Created(Err(error)));
                    over = true;
                }
            }
        }
        if over {
            core.vanish(cx);
        }
    }

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
        while self.slot.is_none() && core.is_open() && core.is_subscribed(cx) {
            match self.changes.pop_front() {
                None => return,
                Some(Change::Admit(task)) => self.admit(core, cx, task),
                Some(Change::Rejoin { member, message_id, key_package, claims }) => {
                    if let Some(reply) =
                        readmit(core, cx, &member, message_id, &key_package, &claims)
                    {
                        self.readmitted.insert(member.route(), (key_package, reply));
                    }
                }
                Some(Change::Refresh) => {
                    refresh(core, cx);
                    let expires_at = core.mls.as_ref().and_then(Encryption::credential_expires_at);
                    let left = expires_at.unwrap_or_default().saturating_sub(cx.now.unix);
                    self.refresh_from = cx.now.unix + (left / 2).max(REFRESH_PAUSE_SECS);
                }
            }
        }
    }

    fn admit(&mut self, core: &mut Core, cx: &mut Context<'_>, task: TaskId) {
        let Some(invite) = self.invites.get_mut(&task) else { return };
        let Stage::Queued { entry, key_package, claims } = &invite.stage else { return };
        let peer = entry.name.clone();
        let added = match core.mls.as_mut() {
            None => Ok(None),
            Some(mls) => mls.add(cx, key_package, claims).map(Some),
        };
        let added = match added {
            Ok(added) => added,
            Err(error) => {
                warn!(%peer, %error, "key package refused");
                let reason = error.to_string();
                let error = InviteError::Refused { name: invite.name.clone(), reason };
                return self.fail_invite(core, cx, task, &error);
            }
        };
        let entry = (**entry).clone();
        let joined = entry.participant();
        // Who has not confirmed its own welcome yet gets this, too, but does not
        // hold up the invitation.
        let (joining, others): (Vec<&Entry>, Vec<&Entry>) =
            core.roster.iter().filter(|entry| entry.online).partition(|entry| entry.joining);
        let routes = |entries: Vec<&Entry>| -> Vec<RouteName> {
            entries.into_iter().map(|entry| entry.name.route()).collect()
        };
        let (joining, others) = (routes(joining), routes(others));
        let alone = core.roster.is_empty();
        core.roster.insert(entry);
        core.inbound.expect_first(&peer);
        let participants = core.participants();
        let (commit, welcome) = match added {
            None => (None, None),
            Some(added) => (Some(added.commit), Some(added.welcome)),
        };
        // Before the welcome: the others should know the new member before it speaks.
        let announced = alone;
        if !alone {
            let mut announce = |purpose, missing: &[RouteName]| {
                core.update(
                    cx,
                    purpose,
                    GroupUpdateOp::Add,
                    Some(joined.clone()),
                    participants.clone(),
                    commit.clone(),
                    missing.iter().copied(),
                );
            };
            announce(Purpose::Admit(task), &others);
            if !joining.is_empty() {
                announce(Purpose::Announce, &joining);
            }
        }
        let request = Request {
            destination: peer.clone(),
            fanout: UNICAST,
            command: Command::GroupWelcome(GroupWelcome { participants, mls: welcome }),
            leaving: false,
        };
        core.request(cx, Purpose::Welcome(task), request, core.control_pace(), [peer.route()]);
        invite.stage =
            Stage::Admitting { peer, welcomed: false, announced: announced || others.is_empty() };
        if !announced && others.is_empty() {
            // Nobody is online to answer; it was sent for those who may be back.
            core.exchanges.cancel(|purpose| *purpose == Purpose::Admit(task));
        }
        self.slot = Some((task, cx.now.at + SLOT_LIMIT));
    }

    fn on_welcomed(&mut self, core: &mut Core, cx: &mut Context<'_>, task: TaskId) {
        let Some(invite) = self.invites.get_mut(&task) else { return };
        let Stage::Admitting { peer, welcomed, .. } = &mut invite.stage else { return };
        *welcomed = true;
        core.confirm(cx, &peer.clone());
        self.free_slot(task);
        self.finish_invite(core, cx, task);
        self.pump(core, cx);
    }

    fn on_announced(&mut self, core: &mut Core, cx: &mut Context<'_>, task: TaskId) {
        let Some(invite) = self.invites.get_mut(&task) else { return };
        let Stage::Admitting { announced, .. } = &mut invite.stage else { return };
        *announced = true;
        self.finish_invite(core, cx, task);
    }

    fn finish_invite(&mut self, core: &mut Core, cx: &mut Context<'_>, task: TaskId) {
        let Some(Stage::Admitting { peer, welcomed: true, announced: true }) =
            self.invites.get(&task).map(|invite| &invite.stage)
        else {
            return;
        };
        let peer = peer.clone();
        if !core.is_p2p() {
            core.tell(cx, &peer, ParticipantChange::Joined);
        }
        self.answer_invite(core, cx, task, &peer);
    }

    /// The invitation succeeded: `peer` is in.
    fn answer_invite(&mut self, core: &mut Core, cx: &mut Context<'_>, task: TaskId, peer: &Name) {
        let Some(invite) = self.invites.remove(&task) else { return };
        for waiting in invite.waiting {
            match waiting {
                Waiting::Invite(request) => cx.out.done(request, Done::Invited(Ok(peer.clone()))),
                Waiting::Create(request) => {
                    core.info.remote = peer.clone();
                    core.announced = true;
                    cx.out.done(request, Done::Created(Ok(core.info.clone())));
                    core.replay_early_data(cx);
                }
            }
        }
    }

    fn free_slot(&mut self, task: TaskId) {
        if self.slot.is_some_and(|(holder, _)| holder == task) {
            self.slot = None;
        }
    }

    // ------------------------------------------------------------ remove

    /// The application removes a member, or takes back its invitation.
    pub(crate) fn remove(
        &mut self,
        core: &mut Core,
        cx: &mut Context<'_>,
        request: RequestId,
        name: Name,
    ) {
        if core.is_p2p() {
            return cx.out.done(request, Done::Removed(Err(RemoveError::NotGroup)));
        }
        let invited = self.invites.iter().find(|(_, invite)| invite.name.same_app(&name));
        if let Some((&task, invite)) = invited {
            let error = InviteError::Refused {
                name: invite.name.clone(),
                reason: "it was removed meanwhile".into(),
            };
            self.fail_invite(core, cx, task, &error);
            self.free_slot(task);
            if core.roster.find(&name).is_none() {
                cx.out.done(request, Done::Removed(Ok(())));
                return self.pump(core, cx);
            }
        }
        let Some(member) = core.roster.find(&name).map(|entry| entry.name.clone()) else {
            return cx.out.done(request, Done::Removed(Err(RemoveError::NotMember { name })));
        };
        self.drop_member(core, cx, &member, ParticipantChange::Removed, vec![request], true);
    }

    /// A member says that it leaves. Answered also when it is out already: the
    /// first answer may be lost.
    pub(crate) fn on_leave_request(
        &mut self,
        core: &mut Core,
        cx: &mut Context<'_>,
        message: &Authentic,
    ) {
        core.answer(cx, message, Command::LeaveReply);
        if core.roster.get(&message.source).is_none() {
            return;
        }
        if core.is_p2p() {
            return core.end(cx, CloseReason::PeerLeft);
        }
        let peer = message.source.clone();
        let invited = self.invites.iter().find(|(_, invite)| {
            matches!(&invite.stage, Stage::Admitting { peer: other, .. } if *other == peer)
        });
        if let Some((&task, invite)) = invited {
            let (name, reason) = (invite.name.clone(), "it left at once".to_owned());
            self.fail_invite(core, cx, task, &InviteError::Refused { name, reason });
            self.free_slot(task);
        }
        self.drop_member(core, cx, &peer, ParticipantChange::Left, Vec::new(), false);
        self.pump(core, cx);
    }

    /// Takes a member out of the roster at once, and out of the group as soon as
    /// its turn comes.
    fn drop_member(
        &mut self,
        core: &mut Core,
        cx: &mut Context<'_>,
        name: &Name,
        change: ParticipantChange,
        waiting: Vec<RequestId>,
        dismiss: bool,
    ) {
        let Some(member) = core.drop_member(cx, name) else { return };
        self.readmitted.remove(&name.route());
        if !member.joining {
            core.tell(cx, name, change);
        }
        if !core.is_open() {
            return;
        }
        let task = self.next_task();
        let member = member.participant();
        self.removals.insert(task, Removal { member, waiting, dismiss });
        // At once: nothing that is published from here on is for it. Who is just
        // joining gets this update again once it holds the channel.
        self.retire(core, cx, task);
    }

    fn retire(&mut self, core: &mut Core, cx: &mut Context<'_>, task: TaskId) {
        let Some(removal) = self.removals.get(&task) else { return };
        let member = removal.member.clone();
        let mut commit = None;
        if let Some(mls) = core.mls.as_mut() {
            match mls.remove(&member.name) {
                Ok(payload) => commit = payload,
                Err(error) => warn!(name = %member.name, %error, "cannot take out of the group"),
            }
        }
        let others: Vec<RouteName> = core.roster.online().map(Name::route).collect();
        if core.roster.is_empty() {
            return self.dismiss(core, cx, task);
        }
        let mut participants = core.participants();
        participants.push(member.clone());
        let purpose = Purpose::Retire(task);
        core.update(
            cx,
            purpose,
            GroupUpdateOp::Remove,
            Some(member),
            participants,
            commit,
            others.clone(),
        );
        if others.is_empty() {
            core.exchanges.cancel(|open| *open == purpose);
            self.dismiss(core, cx, task);
        }
    }

    /// Tells the member itself, last, whether or not all others have confirmed.
    fn dismiss(&mut self, core: &mut Core, cx: &mut Context<'_>, task: TaskId) {
        let Some(removal) = self.removals.get(&task) else { return };
        if !removal.dismiss {
            self.removals.remove(&task);
            return;
        }
        let destination = removal.member.name.clone();
        let missing = [destination.route()];
        let request = Request {
            destination,
            fanout: UNICAST,
            command: Command::LeaveRequest,
            leaving: false,
        };
        core.request(cx, Purpose::Dismiss(task), request, core.control_pace(), missing);
    }

    fn on_dismissed(&mut self, cx: &mut Context<'_>, task: TaskId, confirmed: bool) {
        let Some(removal) = self.removals.remove(&task) else { return };
        let route = removal.member.name.route();
        if confirmed {
            self.away.remove(&route);
        } else if self.away.len() < MAX_AWAY {
            self.away.insert(route, removal.member.clone());
        }
        for request in removal.waiting {
            let result = match confirmed {
                true => Ok(()),
                false => Err(RemoveError::Unconfirmed { name: removal.member.name.clone() }),
            };
            cx.out.done(request, Done::Removed(result));
        }
    }

    /// A member was offline and is back. Without MLS nothing tells it that it
    /// missed a change of the roster, so it gets the roster again.
    pub(crate) fn on_back(core: &mut Core, cx: &mut Context<'_>, member: &Name) {
        if core.info.mls || core.is_p2p() {
            return;
        }
        let command =
            Command::GroupWelcome(GroupWelcome { participants: core.participants(), mls: None });
        let missing = [member.route()];
        let destination = member.clone();
        let request = Request { destination, fanout: UNICAST, command, leaving: false };
        core.request(cx, Purpose::Announce, request, core.control_pace(), missing);
    }

    /// Somebody who is not a member speaks: one that was removed while it was
    /// away is told so.
    pub(crate) fn on_stranger(&mut self, core: &mut Core, cx: &mut Context<'_>, name: &Name) {
        let Some(member) = self.away.remove(&name.route()) else { return };
        let task = self.next_task();
        self.removals.insert(task, Removal { member, waiting: Vec::new(), dismiss: true });
        self.dismiss(core, cx, task);
    }

    // ------------------------------------------------------------ rejoin

    /// A member with lost state asks for a new welcome (session protocol, epoch
    /// mismatch).
    pub(crate) fn on_rejoin_request(
        &mut self,
        core: &mut Core,
        cx: &mut Context<'_>,
        message: &Authentic,
        request: &RejoinRequest,
    ) {
        let known = core.roster.get(&message.source).is_some();
        if !core.info.mls || !known || request.participant.route() != message.source.route() {
            return debug!(source = %message.source, "rejoin request ignored");
        }
        core.memory.remember(
            &message.source,
            message.command.message_type(),
            message.message_id,
            None,
        );
        let member = message.source.clone();
        // A copy under a new id: our answer is on its way, or was lost. Another
        // commit would throw the member out of the group that it is entering.
        if let Some((known, reply)) = self.readmitted.get(&member.route())
            && *known == request.key_package
        {
            let reply = reply.clone();
            return core.answer(cx, message, reply);
        }
        // A newer request of the same member replaces one that waits.
        self.changes.retain(
            |change| !matches!(change, Change::Rejoin { member: other, .. } if *other == member),
        );
        self.changes.push_back(Change::Rejoin {
            member,
            message_id: message.message_id,
            key_package: request.key_package.clone(),
            claims: message.claims.clone(),
        });
        self.pump(core, cx);
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
    }

    // ------------------------------------------------------------ time and answers

    /// Everybody has answered.
    pub(crate) fn on_completed(&mut self, core: &mut Core, cx: &mut Context<'_>, purpose: Purpose) {
        match purpose {
            Purpose::Welcome(task) => self.on_welcomed(core, cx, task),
            Purpose::Admit(task) => self.on_announced(core, cx, task),
            Purpose::Retire(task) => self.dismiss(core, cx, task),
            Purpose::Dismiss(task) => self.on_dismissed(cx, task, true),
            Purpose::CloseGroup => core.end(cx, CloseReason::Left),
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
                let error = InviteError::NoAnswer { name, after: core.control_limit() };
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
                self.dismiss(core, cx, task);
            }
            Purpose::Announce => core.silent(cx, missing),
            Purpose::Dismiss(task) => self.on_dismissed(cx, task, false),
            Purpose::CloseGroup => core.end(cx, CloseReason::Left),
            Purpose::Leave | Purpose::Rejoin => {}
        }
    }

    /// Lets the next change go when a welcome stays unconfirmed, and renews our
    /// credential in time.
    pub(crate) fn on_deadline(&mut self, core: &mut Core, cx: &mut Context<'_>) {
        let expires_at = core.mls.as_ref().and_then(Encryption::credential_expires_at);
        if expires_at.is_some_and(|at| at < cx.now.unix + REFRESH_MARGIN_SECS)
            && cx.now.unix >= self.refresh_from
            && !self.changes.iter().any(|change| matches!(change, Change::Refresh))
        {
            self.changes.push_back(Change::Refresh);
            self.pump(core, cx);
        }
        if self.slot.is_some_and(|(_, until)| until <= cx.now.at) {
            self.slot = None;
            self.pump(core, cx);
        }
        self.resolve_doubts(core, cx);
    }

    fn resolve_doubts(&mut self, core: &mut Core, cx: &mut Context<'_>) {
        let doubts: Vec<(TaskId, Name, Duration)> = (self.invites.iter())
            .filter_map(|(task, invite)| match &invite.stage {
                Stage::Doubting { peer, since } => Some((*task, peer.clone(), *since)),
                _ => None,
            })
            .collect();
        for (task, peer, since) in doubts {
            match namesake(core, &peer) {
                Some(member) if member.heard_at > since => {
                    let member = member.name.clone();
                    self.answer_invite(core, cx, task, &member);
                }
                Some(member) if member.online && since + DOUBT > cx.now.at => {}
                _ => self.join(core, cx, task, peer),
            }
        }
    }

    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        let doubts = self.invites.values().filter_map(|invite| match &invite.stage {
            Stage::Doubting { since, .. } => Some(*since + DOUBT),
            _ => None,
        });
        doubts.chain(self.slot.map(|(_, until)| until)).min()
    }

    fn next_task(&mut self) -> TaskId {
        self.next += 1;
        self.next
    }
}

/// The member with this readable name.
fn namesake<'a>(core: &'a Core, name: &Name) -> Option<&'a Entry> {
    core.roster.iter().find(|entry| entry.name.same_app(name))
}

/// Replaces a member's leaf and welcomes it again.
fn readmit(
    core: &mut Core,
    cx: &mut Context<'_>,
    member: &Name,
    message_id: u32,
    key_package: &Bytes,
    claims: &Claims,
) -> Option<Command> {
    core.roster.get(member)?;
    let readmitted = match core.mls.as_mut()?.rejoin(cx, key_package, claims) {
        Ok(readmitted) => readmitted,
        Err(error) => {
            warn!(%member, %error, "rejoin refused");
            return None;
        }
    };
    let (commit, welcome): (MlsPayload, MlsPayload) = (readmitted.commit, readmitted.welcome);
    let reply = Command::RejoinReply(RejoinReply {
        commit_id: welcome.commit_id,
        welcome: welcome.mls_content,
    });
    core.send_command(cx, member.clone(), UNICAST, message_id, reply.clone(), false);
    let kind = slim_proto::MessageType::RejoinRequest;
    core.memory.remember(member, kind, message_id, Some(reply.clone()));
    core.member_online(cx, member);
    let row = core.roster.get(member).map(Entry::participant)?;
    let online: Vec<RouteName> = core.roster.online().map(Name::route).collect();
    let participants = core.participants();
    let rejoin = GroupUpdateOp::Rejoin;
    core.update(cx, Purpose::Announce, rejoin, Some(row), participants, Some(commit), online);
    Some(reply)
}

/// A commit that renews our credential and changes nothing else.
fn refresh(core: &mut Core, cx: &mut Context<'_>) {
    let Some(mls) = core.mls.as_mut() else { return };
    let commit = match mls.refresh(cx) {
        Ok(commit) => commit,
        Err(error) => return warn!(%error, "cannot renew the credential"),
    };
    let online: Vec<RouteName> = core.roster.online().map(Name::route).collect();
    let participants = core.participants();
    core.update(
        cx,
        Purpose::Announce,
        GroupUpdateOp::Add,
        None,
        participants,
        Some(commit),
        online,
    );
}
