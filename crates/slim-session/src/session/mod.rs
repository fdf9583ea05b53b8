//! One session: what a moderator and a participant have in common, and the
//! dispatch to what they have not.

mod core;
mod data;
mod encryption;
mod presence;

use std::time::Duration;

use slim_proto::{Body, Command as Wire, MessageType, Name, Publish, RouteName};
use tracing::{debug, trace, warn};

pub(crate) use self::core::{Core, Setup};
pub(crate) use self::encryption::{Encryption, EncryptionError};
use crate::api::{
    CloseReason, Command, Done, InviteError, PresenceError, PublishError, RemoveError, RequestId,
};
use crate::exchange::Due;
use crate::gate::{Authentic, Memory, declined, refusal_of_us};
use crate::outbox::Context;
use crate::role::{Moderator, Participant, Purpose};

/// A session that we moderate or take part in.
#[derive(Debug)]
pub(crate) struct Session {
    core: Core,
    role: Role,
}

#[derive(Debug)]
enum Role {
    Moderator(Moderator),
    Participant(Participant),
}

impl Session {
    /// A session that we create. A group subscribes its channel at once.
    pub(crate) fn create(setup: Setup, cx: &mut Context<'_>) -> Self {
        let mut core = Core::new(setup, cx);
        // A peer has to join first.
        core.announced = !core.is_p2p();
        core.subscribe(cx);
        Self { core, role: Role::Moderator(Moderator::default()) }
    }

    /// A session that `message`, a join request, invites us to.
    /// `memory` is of our session with this number before, so that what ended it
    /// does not end this one when it is replayed.
    pub(crate) fn invited(
        setup: Setup,
        cx: &mut Context<'_>,
        message: &Authentic,
        memory: Memory,
    ) -> Self {
        let mut core = Core::new(setup, cx);
        core.memory = memory;
        core.subscribe(cx);
        let moderator = message.source.clone();
        let mut role = Participant::new(moderator, &message.claims, cx);
        role.on_join_request(&mut core, cx, message);
        Self { core, role: Role::Participant(role) }
    }

    /// Which commands it has acted on.
    pub(crate) fn into_memory(self) -> Memory {
        self.core.memory
    }

    /// Calls the peer of a point-to-point session.
    pub(crate) fn call(&mut self, cx: &mut Context<'_>, request: RequestId, peer: Name) {
        if let Role::Moderator(moderator) = &mut self.role {
            moderator.call(&mut self.core, cx, request, peer);
        }
    }

    pub(crate) fn info(&self) -> &crate::api::SessionInfo {
        &self.core.info
    }

    /// Whether the session is over and only repeats its last answers.
    pub(crate) fn is_over(&self) -> bool {
        self.core.is_over()
    }

    /// Whether we were invited and wait for the welcome.
    pub(crate) fn is_invited(&self) -> bool {
        matches!(&self.role, Role::Participant(participant) if participant.is_invited())
    }

    /// Whether nothing of it is needed any more.
    pub(crate) fn is_forgotten(&self, at: Duration) -> bool {
        self.core.is_forgotten(at)
    }

    // ------------------------------------------------------------ the application

    pub(crate) fn on_command(
        &mut self,
        cx: &mut Context<'_>,
        request: RequestId,
        command: Command,
    ) {
        let Self { core, role } = self;
        if !core.is_open() {
            return match command {
                Command::Close { .. } if !core.is_over() => core.await_close(request),
                command => refuse(cx, request, &command),
            };
        }
        match (command, role) {
            (Command::Invite { name, .. }, Role::Moderator(moderator)) => {
                moderator.invite(core, cx, request, name);
            }
            (Command::Remove { name, .. }, Role::Moderator(moderator)) => {
                moderator.remove(core, cx, request, name);
            }
            (Command::Invite { .. }, Role::Participant(_)) => {
                cx.out.done(request, Done::Invited(Err(InviteError::NotModerator)));
            }
            (Command::Remove { .. }, Role::Participant(_)) => {
                cx.out.done(request, Done::Removed(Err(RemoveError::NotModerator)));
            }
            (Command::Publish { message, .. }, _) => core.publish(cx, request, message),
            (Command::State { .. }, _) => {
                cx.out.done(request, Done::State(Some(core.state())));
            }
            (Command::Flush { .. }, _) => core.flush(cx, request),
            (Command::SetPresence { online, .. }, _) => core.set_presence(cx, request, online),
            (Command::Close { .. }, role) => {
                core.start_closing(cx, request);
                match role {
                    // Nobody can be told.
                    _ if !cx.out.connected => core.end(cx, CloseReason::Left),
                    Role::Moderator(moderator) => moderator.close(core, cx),
                    Role::Participant(participant) => participant.leave(core, cx),
                }
            }
            (Command::CreateGroup { .. } | Command::CreateP2p { .. }, _) => {
                debug!("a session cannot create another");
            }
        }
        self.settle(cx);
    }

    pub(crate) fn set_busy(&mut self, busy: bool) {
        self.core.busy = busy;
    }

    /// There will be no link any more.
    pub(crate) fn on_link_gone(&mut self, cx: &mut Context<'_>) {
        if !self.core.is_over() {
            self.core.end(cx, CloseReason::NodeLost);
            self.settle(cx);
        }
    }

    // ------------------------------------------------------------ the network

    pub(crate) fn on_publish(&mut self, cx: &mut Context<'_>, publish: Publish) {
        match publish.body {
            Body::Command(_) => self.on_command_message(cx, publish),
            Body::Msg(_) | Body::RtxReply(_) if self.takes_data() => self.core.on_data(cx, publish),
            Body::Msg(_) | Body::RtxReply(_) => self.core.keep_early_data(publish),
            Body::MsgAck => self.core.on_ack(cx, &publish.header.source, publish.message_id),
            Body::RtxRequest => {
                self.core.on_rtx_request(cx, &publish.header.source, publish.message_id);
            }
        }
        self.settle(cx);
    }

    /// An application takes data once it has the session.
    fn takes_data(&self) -> bool {
        match &self.role {
            Role::Moderator(_) => self.core.announced,
            Role::Participant(participant) => participant.is_active(),
        }
    }

    fn on_command_message(&mut self, cx: &mut Context<'_>, publish: Publish) {
        let source = publish.header.source.clone();
        let message_id = publish.message_id;
        let message = match cx.gate.authenticate(cx.out, publish, cx.now.unix) {
            Ok(message) => message,
            Err(refusal) => {
                debug!(%source, %refusal, "command refused");
                if let (Role::Moderator(moderator), Some(reason)) =
                    (&mut self.role, refusal.in_words())
                {
                    moderator.on_identity_mismatch(&mut self.core, message_id, &source, reason);
                }
                return;
            }
        };
        if !self.core.is_addressed(&message.destination) {
            return debug!(%source, "command refused: for somebody else");
        }
        let kind = message.command.message_type();
        if !self.core.knows_key(&message) {
            if let (Role::Moderator(moderator), MessageType::DiscoveryReply, true) =
                (&mut self.role, kind, cx.gate.verifier.tells_apart())
            {
                return moderator.on_started_again(&mut self.core, cx, &message);
            }
            return debug!(%source, "command refused: not the key it joined with");
        }
        if let Some(answer) = self.core.memory.recall(&source, kind, message_id) {
            let answer = answer.cloned();
            if let (Some(answer), true) = (answer, self.may_repeat(kind)) {
                trace!(%source, ?kind, "copy answered again");
                self.core.repeat_answer(cx, &message, answer);
            }
            return;
        }
        self.core.heard(cx.now.at, &source);
        if let Role::Moderator(moderator) = &mut self.role
            && self.core.is_open()
            && self.core.roster.get(&source).is_none()
            && matches!(kind, MessageType::Heartbeat | MessageType::RejoinRequest)
        {
            moderator.on_stranger(&mut self.core, cx, &source);
        }
        self.dispatch(cx, message);
    }

    /// A copy of a join request must not be answered once the welcome came.
    fn may_repeat(&self, kind: MessageType) -> bool {
        kind != MessageType::JoinRequest || (self.is_invited() && !self.is_over())
    }

    fn dispatch(&mut self, cx: &mut Context<'_>, message: Authentic) {
        let Self { core, role } = self;
        if core.is_over() {
            // A copy under a new id of what ended the session: same answer.
            match (&message.command, &*role) {
                (Wire::LeaveRequest, _) => core.answer(cx, &message, Wire::LeaveReply),
                (Wire::GroupClose { .. }, Role::Participant(_)) => {
                    core.answer(cx, &message, Wire::GroupAck);
                }
                _ => {}
            }
            return;
        }
        match (&message.command, &mut *role) {
            (Wire::Heartbeat { epoch }, role) => {
                // A copy of it is no sign of life.
                let (source, id) = (&message.source, message.message_id);
                core.memory.remember(source, MessageType::Heartbeat, id, None);
                let was_offline =
                    core.roster.get(&message.source).is_some_and(|entry| !entry.online);
                let is_ahead = core.on_heartbeat(cx, &message.source, *epoch);
                if let Role::Participant(participant) = &mut *role {
                    let is_moderator = participant.is_from_moderator(&message);
                    match (is_ahead, is_moderator) {
                        (true, _) => participant.on_newer_epoch(core, cx, is_moderator),
                        (false, true) => participant.on_current_epoch(),
                        (false, false) => {}
                    }
                }
                if let (true, Role::Moderator(_)) = (was_offline, &mut *role) {
                    Moderator::on_back(core, cx, &message.source);
                }
                for purpose in core.excuse_up_to_date(&message.source, *epoch) {
                    role.on_completed(core, cx, purpose);
                }
            }
            (Wire::UpdateParticipantState(update), role) => {
                let is_back = core.on_participant_state(cx, &message, update);
                if let (true, Role::Moderator(_)) = (is_back, role) {
                    Moderator::on_back(core, cx, &message.source);
                }
            }
            (Wire::GroupAck, role) => {
                if let Some(purpose) = core.completed(&message) {
                    role.on_completed(core, cx, purpose);
                }
            }
            (Wire::LeaveReply, role) => {
                if let Some(purpose) = core.completed(&message) {
                    role.on_completed(core, cx, purpose);
                }
            }

            (Wire::DiscoveryReply, Role::Moderator(moderator)) => {
                moderator.on_discovery_reply(core, cx, &message);
            }
            (Wire::JoinReply(reply), Role::Moderator(moderator)) => {
                moderator.on_join_reply(core, cx, &message, reply);
            }
            (Wire::LeaveRequest, Role::Moderator(moderator)) => {
                moderator.on_leave_request(core, cx, &message);
            }
            (Wire::RejoinRequest(request), Role::Moderator(moderator)) => {
                moderator.on_rejoin_request(core, cx, &message, request);
            }
            (Wire::GroupNack, Role::Moderator(moderator)) => {
                // Ours say in this way that they do not want to join, or cannot verify us.
                let (id, source) = (message.message_id, message.source.clone());
                match declined(&message) {
                    Some(reason) => moderator.on_declined(core, cx, &message, reason),
                    None => {
                        let reason = refusal_of_us(&message);
                        moderator.on_identity_mismatch(core, id, &source, reason);
                    }
                }
            }

            (Wire::GroupNack, Role::Participant(participant)) => {
                if core.is_presence_refused(&message) {
                    participant.on_stale(core, cx);
                }
            }
            (_, Role::Participant(participant)) if !participant.is_from_moderator(&message) => {
                debug!(source = %message.source, "not the moderator's to say");
            }
            (Wire::JoinRequest(_), Role::Participant(participant)) => {
                participant.on_join_request(core, cx, &message);
            }
            (Wire::GroupWelcome(welcome), Role::Participant(participant)) => {
                participant.on_welcome(core, cx, &message, welcome);
            }
            (Wire::GroupUpdate(update), Role::Participant(participant)) => {
                let update = update.clone();
                participant.on_update(core, cx, message, &update);
            }
            (Wire::LeaveRequest, Role::Participant(participant)) => {
                participant.on_leave_request(core, cx, &message);
            }
            (Wire::GroupClose { .. }, Role::Participant(participant)) => {
                participant.on_close(core, cx, &message);
            }
            (Wire::RejoinReply(reply), Role::Participant(participant)) => {
                participant.on_rejoin_reply(core, cx, &message, reply);
            }
            // Nobody sends proposals; discovery is answered without a session;
            // the rest is the other role's.
            (
                Wire::GroupProposal { .. }
                | Wire::DiscoveryRequest
                | Wire::DiscoveryReply
                | Wire::JoinRequest(_)
                | Wire::JoinReply(_)
                | Wire::GroupUpdate(_)
                | Wire::GroupWelcome(_)
                | Wire::GroupClose { .. }
                | Wire::RejoinRequest(_)
                | Wire::RejoinReply(_),
                _,
            ) => debug!(source = %message.source, "command ignored"),
        }
    }

    /// The node answered a subscription of the channel.
    pub(crate) fn on_subscribed(&mut self, cx: &mut Context<'_>, result: &Result<(), String>) {
        if let Err(reason) = result {
            warn!(%reason, "the channel cannot be subscribed");
        }
        let Self { core, role } = self;
        match role {
            Role::Moderator(moderator) => moderator.on_subscribed(core, cx),
            Role::Participant(participant) => participant.on_subscribed(core, cx),
        }
        self.settle(cx);
    }

    // ------------------------------------------------------------ time

    pub(crate) fn on_deadline(&mut self, cx: &mut Context<'_>) {
        if self.core.is_over() {
            return;
        }
        let Self { core, role } = self;
        for due in core.exchanges.due(cx.now.at) {
            match due {
                Due::Repeat(id, request) => core.repeat_request(cx, id, request),
                Due::Failed(purpose, missing) => role.on_failed(core, cx, purpose, &missing),
            }
        }
        match role {
            Role::Moderator(moderator) => moderator.on_deadline(core, cx),
            Role::Participant(participant) => participant.on_deadline(core, cx),
        }
        core.on_data_deadline(cx);
        core.on_tick(cx);
        self.settle(cx);
    }

    /// The link is back.
    pub(crate) fn on_link_up(&mut self, cx: &mut Context<'_>) {
        self.core.resume(cx);
    }

    /// The link is lost.
    pub(crate) fn on_link_down(&mut self, cx: &mut Context<'_>) {
        self.core.pause();
        if !self.core.is_open() {
            // It was being closed, and nobody can be told any more.
            self.core.end(cx, CloseReason::Left);
            self.settle(cx);
        }
    }

    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        if self.core.is_over() {
            return self.core.next_deadline();
        }
        let role = match &self.role {
            Role::Moderator(moderator) => moderator.next_deadline(),
            Role::Participant(participant) => participant.next_deadline(),
        };
        [role, self.core.next_deadline()].into_iter().flatten().min()
    }

    /// Follow-ups of whatever just happened: exchanges that lost their last
    /// awaited member, and requests that can be answered now.
    fn settle(&mut self, cx: &mut Context<'_>) {
        let Self { core, role } = self;
        while let Some(purpose) = core.excused.pop() {
            role.on_completed(core, cx, purpose);
        }
        if core.is_over()
            && let Role::Moderator(moderator) = role
        {
            moderator.abandon(cx);
        }
    }
}

impl Role {
    fn on_completed(&mut self, core: &mut Core, cx: &mut Context<'_>, purpose: Purpose) {
        match self {
            Self::Moderator(moderator) => moderator.on_completed(core, cx, purpose),
            Self::Participant(participant) => participant.on_completed(core, cx, purpose),
        }
    }

    fn on_failed(
        &mut self,
        core: &mut Core,
        cx: &mut Context<'_>,
        purpose: Purpose,
        missing: &[RouteName],
    ) {
        match self {
            Self::Moderator(moderator) => moderator.on_failed(core, cx, purpose, missing),
            Self::Participant(participant) => participant.on_failed(core, cx, purpose, missing),
        }
    }
}

/// The answer to a command for a session that is over, or never was.
pub(crate) fn refuse(cx: &mut Context<'_>, request: RequestId, command: &Command) {
    let done = match command {
        Command::Invite { .. } => Done::Invited(Err(InviteError::Closed)),
        Command::Remove { .. } => Done::Removed(Err(RemoveError::Closed)),
        Command::Publish { .. } => Done::Published(Err(PublishError::Closed)),
        Command::State { .. } => Done::State(None),
        Command::Flush { .. } => Done::Flushed,
        Command::SetPresence { .. } => Done::Presence(Err(PresenceError::Closed)),
        Command::Close { .. } => Done::Closed,
        Command::CreateGroup { .. } | Command::CreateP2p { .. } => return,
    };
    cx.out.done(request, done);
}
