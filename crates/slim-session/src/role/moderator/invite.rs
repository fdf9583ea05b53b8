//! From the name of an application to a member of the session.

use std::time::Duration;

use slim_proto::{
    Command, GroupUpdateOp, GroupWelcome, JoinReply, JoinRequest, Name, RouteName, TimerSettings,
    UNICAST,
};
use tracing::{debug, warn};

use super::{
    Change, DOUBT, DOUBT_PACE, Invite, MAX_INVITES, Moderator, SLOT_LIMIT, Stage, Waiting, namesake,
};
use crate::api::{CreateError, Done, InviteError, ParticipantChange, RequestId};
use crate::exchange::Request;
use crate::gate::Authentic;
use crate::outbox::Context;
use crate::role::{Purpose, TaskId};
use crate::roster::Entry;
use crate::session::Core;

impl Moderator {
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

    pub(super) fn discover(
        &mut self,
        core: &mut Core,
        cx: &mut Context<'_>,
        name: Name,
        waiting: Waiting,
    ) {
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
    pub(super) fn is_out(&mut self, core: &mut Core, cx: &mut Context<'_>, name: &Name) {
        self.away.remove(&name.route());
        let known: Vec<TaskId> = (self.removals.iter())
            .filter(|(_, removal)| removal.member.name.route() == name.route())
            .map(|(task, _)| *task)
            .collect();
        for task in known {
            if core.exchanges.any(|purpose| *purpose == Purpose::Retire(task)) {
                // Once the others know.
                if let Some(removal) = self.removals.get_mut(&task) {
                    removal.dismiss = false;
                }
                continue;
            }
            core.exchanges.cancel(|purpose| *purpose == Purpose::Dismiss(task));
            self.on_dismissed(cx, task, true);
        }
    }

    /// Asks the one that answered in, in place of a member with its name that is
    /// not there any more.
    pub(super) fn join(&mut self, core: &mut Core, cx: &mut Context<'_>, task: TaskId, peer: Name) {
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

    pub(super) fn fail_invite(
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

    /// Whether a change has to wait: who left and comes back is admitted once
    /// everybody knows that it had left. Without MLS, whose commits are numbered, a
    /// member that heard of the two in the other order would take it for gone.
    pub(super) fn is_early(&self, core: &Core, change: &Change) -> bool {
        let (Change::Admit(task), false) = (change, core.info.mls) else { return false };
        let Some(Stage::Queued { entry, .. }) = self.invites.get(task).map(|invite| &invite.stage)
        else {
            return false;
        };
        self.removals.iter().any(|(task, removal)| {
            removal.member.name.route() == entry.name.route()
                && core.exchanges.any(|purpose| *purpose == Purpose::Retire(*task))
        })
    }

    pub(super) fn admit(&mut self, core: &mut Core, cx: &mut Context<'_>, task: TaskId) {
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
        invite.stage = Stage::Admitting { peer, welcomed: false, announced: others.is_empty() };
        self.slot = Some((task, cx.now.at + SLOT_LIMIT));
    }

    pub(super) fn on_welcomed(&mut self, core: &mut Core, cx: &mut Context<'_>, task: TaskId) {
        let Some(invite) = self.invites.get_mut(&task) else { return };
        let Stage::Admitting { peer, welcomed, .. } = &mut invite.stage else { return };
        *welcomed = true;
        core.confirm(cx, &peer.clone());
        self.free_slot(task);
        self.finish_invite(core, cx, task);
        self.pump(core, cx);
    }

    pub(super) fn on_announced(&mut self, core: &mut Core, cx: &mut Context<'_>, task: TaskId) {
        let Some(invite) = self.invites.get_mut(&task) else { return };
        let Stage::Admitting { announced, .. } = &mut invite.stage else { return };
        *announced = true;
        self.finish_invite(core, cx, task);
    }

    pub(super) fn finish_invite(&mut self, core: &mut Core, cx: &mut Context<'_>, task: TaskId) {
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
    pub(super) fn answer_invite(
        &mut self,
        core: &mut Core,
        cx: &mut Context<'_>,
        task: TaskId,
        peer: &Name,
    ) {
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

    pub(super) fn free_slot(&mut self, task: TaskId) {
        if self.slot.is_some_and(|(holder, _)| holder == task) {
            self.slot = None;
        }
    }

    pub(super) fn resolve_doubts(&mut self, core: &mut Core, cx: &mut Context<'_>) {
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
}
