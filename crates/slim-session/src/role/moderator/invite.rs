//! From the name of an application to a member of the session.

use std::time::Duration;

use slim_proto::{
    Command, GroupUpdateOp, GroupWelcome, JoinReply, JoinRequest, Name, RouteName, TimerSettings,
    UNICAST,
};
use tracing::{debug, warn};

use super::{
    ANNOUNCEMENT_LIMIT, Change, DOUBT, DOUBT_PACE, GATHER_LIMIT, GATHER_PAUSE, Invite, MAX_INVITES,
    MISMATCH_RETRIES, Moderator, SLOT_LIMIT, Stage, Waiting, namesake,
};
use crate::api::{CreateError, Done, InviteError, ParticipantChange, RequestId};
use crate::exchange::Request;
use crate::gate::Authentic;
use crate::outbox::Context;
use crate::role::{Purpose, TaskId};
use crate::roster::Entry;
use crate::session::{Core, EncryptionError};

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
        let (waiting, stage) = (vec![waiting], Stage::Discovering);
        let invite = Invite { name, waiting, stage, mismatch: None };
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

    /// A member answers that shows another key than it joined with, under a token that
    /// nobody else could have: it was started again, and knows nothing of the session.
    pub(crate) fn on_started_again(
        &mut self,
        core: &mut Core,
        cx: &mut Context<'_>,
        message: &Authentic,
    ) {
        let Some(Purpose::Discover(task)) = core.completed(message) else { return };
        self.is_out(core, cx, &message.source);
        if self.invites.contains_key(&task) {
            self.join(core, cx, task, message.source.clone());
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
        self.gather(core, cx.now.at);
        self.on_subscribed(core, cx);
    }

    /// The first to answer waits for the others, and each that answers makes it wait
    /// for the next.
    fn gather(&mut self, core: &Core, at: Duration) {
        if core.roster.is_empty() {
            let since = self.gathering.map_or(at, |(since, _)| since);
            self.gathering = Some((since, (at + GATHER_PAUSE).min(since + GATHER_LIMIT)));
        }
    }

    /// Whether others may soon be part of the first change.
    pub(super) fn is_gathering(&mut self, core: &Core, at: Duration) -> bool {
        let is_asked =
            |invite: &Invite| matches!(invite.stage, Stage::Discovering | Stage::Joining);
        let waits = self.gathering.is_some_and(|(_, until)| until > at)
            && core.roster.is_empty()
            && self.invites.values().any(is_asked);
        if !waits {
            self.gathering = None;
        }
        waits
    }

    /// All admissions whose turn has not come.
    pub(super) fn take_admissions(&mut self) -> Vec<TaskId> {
        let mut tasks = Vec::new();
        self.changes.retain(|change| match change {
            Change::Admit(task) => {
                tasks.push(*task);
                false
            }
            _ => true,
        });
        tasks
    }

    /// An invited application says that it cannot verify us, or we cannot verify
    /// what it says: the identities differ. Nothing shows who says so; if it is not
    /// the one that is meant, a further request reaches that one.
    pub(crate) fn on_identity_mismatch(
        &mut self,
        core: &mut Core,
        message_id: u32,
        source: &Name,
        reason: String,
    ) {
        let Some(Purpose::Discover(task)) = core.exchanges.purpose_of(message_id).copied() else {
            return;
        };
        let Some(invite) = self.invites.get_mut(&task) else { return };
        if invite.name.same_app(source) {
            invite.mismatch = Some(reason);
            core.exchanges.hasten(message_id, MISMATCH_RETRIES);
        }
    }

    /// An invited application does not want to join. As it is signed, that is final.
    pub(crate) fn on_declined(
        &mut self,
        core: &mut Core,
        cx: &mut Context<'_>,
        message: &Authentic,
        reason: String,
    ) {
        let Some(Purpose::Join(_)) = core.exchanges.purpose_of(message.message_id) else { return };
        let Some(Purpose::Join(task)) = core.completed(message) else { return };
        let Some(invite) = self.invites.get(&task) else { return };
        let error = InviteError::Refused { name: invite.name.clone(), reason };
        self.fail_invite(core, cx, task, &error);
        self.pump(core, cx);
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

    /// Takes them in, with one commit. More than one only if there is no member yet.
    pub(super) fn admit(&mut self, core: &mut Core, cx: &mut Context<'_>, tasks: Vec<TaskId>) {
        let mut admitted = Vec::new();
        let mut newcomers = Vec::new();
        for task in tasks {
            let Some(invite) = self.invites.get(&task) else { continue };
            let Stage::Queued { entry, key_package, claims } = &invite.stage else { continue };
            if let Some(mls) = core.mls.as_mut() {
                match mls.vet(cx, &entry.name, key_package, claims) {
                    Ok(newcomer) => newcomers.push(newcomer),
                    Err(error) => {
                        self.refuse_key_package(core, cx, task, &error);
                        continue;
                    }
                }
            }
            admitted.push((task, (**entry).clone()));
        }
        let Some((first, _)) = admitted.first() else { return };
        let first = *first;
        let added = match core.mls.as_mut() {
            None => Ok(None),
            Some(mls) => mls.add(newcomers).map(Some),
        };
        let added = match added {
            Ok(added) => added,
            Err(error) if admitted.len() == 1 => {
                return self.refuse_key_package(core, cx, first, &error);
            }
            // They do not go together: the others have their turn after the first.
            Err(_) => {
                let others = admitted.into_iter().skip(1).map(|(task, _)| Change::Admit(task));
                self.changes.extend(others);
                return self.admit(core, cx, vec![first]);
            }
        };
        let (commit, welcome) = match added {
            None => (None, None),
            Some(added) => (Some(added.commit), Some(added.welcome)),
        };
        // Who has not confirmed its own welcome yet gets this, too, but does not
        // hold up the invitation.
        let (joining, others): (Vec<&Entry>, Vec<&Entry>) =
            core.roster.iter().filter(|entry| entry.online).partition(|entry| entry.joining);
        let routes = |entries: Vec<&Entry>| -> Vec<RouteName> {
            entries.into_iter().map(|entry| entry.name.route()).collect()
        };
        let (joining, others) = (routes(joining), routes(others));
        let alone = core.roster.is_empty();
        for (_, entry) in &admitted {
            core.roster.insert(entry.clone());
            core.inbound.expect_first(&entry.name);
        }
        let participants = core.participants();
        // Before the welcome: the others should know the new member before it speaks.
        if let ([(task, entry)], false) = (&admitted[..], alone) {
            let mut announce = |purpose, missing: &[RouteName]| {
                core.update(
                    cx,
                    purpose,
                    GroupUpdateOp::Add,
                    Some(entry.participant()),
                    participants.clone(),
                    commit.clone(),
                    missing.iter().copied(),
                );
            };
            announce(Purpose::Admit(*task), &others);
            if !joining.is_empty() {
                announce(Purpose::Announce, &joining);
            }
        }
        let holders = admitted.iter().map(|(task, _)| *task).collect();
        for (task, entry) in admitted {
            let peer = entry.name;
            let participants = participants.clone();
            let request = Request {
                destination: peer.clone(),
                fanout: UNICAST,
                command: Command::GroupWelcome(GroupWelcome { participants, mls: welcome.clone() }),
                leaving: false,
            };
            core.request(cx, Purpose::Welcome(task), request, core.control_pace(), [peer.route()]);
            if let Some(invite) = self.invites.get_mut(&task) {
                let announced = others.is_empty();
                let until = cx.now.at + ANNOUNCEMENT_LIMIT;
                invite.stage = Stage::Admitting { peer, welcomed: false, announced, until };
            }
        }
        self.slot = Some((holders, cx.now.at + SLOT_LIMIT));
    }

    /// The group cannot take it in.
    fn refuse_key_package(
        &mut self,
        core: &mut Core,
        cx: &mut Context<'_>,
        task: TaskId,
        error: &EncryptionError,
    ) {
        let Some(invite) = self.invites.get(&task) else { return };
        warn!(name = %invite.name, %error, "key package refused");
        let (name, reason) = (invite.name.clone(), error.to_string());
        self.fail_invite(core, cx, task, &InviteError::Refused { name, reason });
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
        let Some(Stage::Admitting { peer, welcomed: true, announced: true, .. }) =
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
        if let Some((holders, _)) = &mut self.slot {
            holders.remove(&task);
            if holders.is_empty() {
                self.slot = None;
            }
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
