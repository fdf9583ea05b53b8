//! Presence: who is heard, and whether our own application is away.

use std::time::Duration;

use slim_proto::{Command, Name, ParticipantState, RouteName, UpdateParticipantState};
use tracing::debug;

use super::core::Core;
use crate::api::{Done, PresenceError, RequestId};
use crate::exchange::Request;
use crate::gate::Authentic;
use crate::outbox::Context;
use crate::role::Purpose;
use crate::voice::command_id;

/// Between two heartbeats, and two looks at who was not heard.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(10);

/// Heartbeats of sessions without MLS show this epoch.
const NO_EPOCH: u64 = u64::MAX;

impl Core {
    // ------------------------------------------------------------ others

    fn epoch(&self) -> Option<u64> {
        self.mls.as_ref().map(|mls| mls.epoch().unwrap_or(NO_EPOCH))
    }

    /// Counts who was not heard, and lets ourselves be heard, whatever else was
    /// sent meanwhile: an offline member comes back by a heartbeat only.
    pub(crate) fn on_tick(&mut self, cx: &mut Context<'_>) {
        if self.tick_at > cx.now.at || self.is_over() {
            return;
        }
        self.tick_at = cx.now.at + HEARTBEAT;
        for name in self.roster.tick() {
            self.member_offline(cx, &name);
        }
        // Before the welcome we have no epoch that others could do anything with.
        let epoch = self.epoch().unwrap_or(NO_EPOCH);
        if self.away || self.roster.is_empty() || (self.mls.is_some() && epoch == NO_EPOCH) {
            return;
        }
        let (destination, fanout) = self.everybody();
        let id = command_id(cx.rng);
        self.send_command(cx, destination, fanout, id, Command::Heartbeat { epoch }, false);
    }

    /// Gives true if the sender is in a later epoch than we.
    pub(crate) fn on_heartbeat(&mut self, cx: &mut Context<'_>, source: &Name, epoch: u64) -> bool {
        let Some(entry) = self.roster.get(source) else {
            debug!(%source, "heartbeat of a stranger");
            return false;
        };
        let (name, online) = (entry.name.clone(), entry.online);
        let own = self.epoch();
        if !online && own.is_none_or(|own| own == epoch) {
            self.member_online(cx, &name);
        }
        own.is_some_and(|own| epoch != NO_EPOCH && own != NO_EPOCH && epoch > own)
    }

    /// A member that shows our epoch has every change, even if its answer to one
    /// is lost; members of the reference do not answer a copy.
    pub(crate) fn excuse_up_to_date(&mut self, name: &Name, epoch: u64) -> Vec<Purpose> {
        match self.epoch() {
            Some(own) if own == epoch => self.exchanges.excuse(name, Purpose::is_update),
            _ => Vec::new(),
        }
    }

    /// A member announces that it goes for a while, or is back. Gives true if it is
    /// back.
    pub(crate) fn on_participant_state(
        &mut self,
        cx: &mut Context<'_>,
        message: &Authentic,
        update: &UpdateParticipantState,
    ) -> bool {
        let source = &message.source;
        let Some(entry) = self.roster.get(source) else { return false };
        if update.participant.route() != source.route() {
            debug!(%source, "speaks of somebody else's state");
            return false;
        }
        let online = entry.online;
        match update.new_state {
            ParticipantState::Offline if online => {
                self.member_offline(cx, source);
                self.answer(cx, message, Command::GroupAck);
            }
            ParticipantState::Offline => {}
            ParticipantState::Online if self.epoch().is_some_and(|own| own != update.epoch) => {
                self.answer(cx, message, Command::GroupNack);
            }
            ParticipantState::Online => {
                self.member_online(cx, source);
                self.answer(cx, message, Command::GroupAck);
                return !online;
            }
        }
        false
    }

    // ------------------------------------------------------------ ourselves

    /// The application goes away for a while, or is back. While it is away the
    /// session goes on, changes of the group included; data is not taken, and so
    /// sent again by those who still have it when we are back.
    pub(crate) fn set_presence(&mut self, cx: &mut Context<'_>, request: RequestId, online: bool) {
        if self.is_p2p() {
            return cx.out.done(request, Done::Presence(Err(PresenceError::NotGroup)));
        }
        if self.away != online {
            // As it is already. It may still be on its way to the others.
            match self.presence_requests.is_empty() {
                true => cx.out.done(request, Done::Presence(Ok(()))),
                false => self.presence_requests.push(request),
            }
            return;
        }
        self.away = !online;
        // Nothing is asked for that would not be taken.
        match online {
            true if cx.out.connected => self.inbound.resume(cx.now.at),
            true => {}
            false => self.inbound.pause(),
        }
        self.exchanges.cancel(|purpose| *purpose == Purpose::Presence);
        self.presence_done(cx, &Ok(()));
        self.presence_requests.push(request);
        let missing: Vec<RouteName> = self.roster.online().map(Name::route).collect();
        if missing.is_empty() {
            self.presence_done(cx, &Ok(()));
        }
        let (destination, fanout) = self.everybody();
        let command = Command::UpdateParticipantState(UpdateParticipantState {
            participant: self.info.local.clone(),
            new_state: if online { ParticipantState::Online } else { ParticipantState::Offline },
            epoch: self.epoch().unwrap_or(NO_EPOCH),
        });
        let request = Request { destination, fanout, command, leaving: false };
        self.request(cx, Purpose::Presence, request, self.control_pace(), missing);
    }

    /// Everybody knows, or nobody can be told any more.
    pub(crate) fn presence_done(
        &mut self,
        cx: &mut Context<'_>,
        result: &Result<(), PresenceError>,
    ) {
        for request in std::mem::take(&mut self.presence_requests) {
            cx.out.done(request, Done::Presence(result.clone()));
        }
    }

    /// These do not answer.
    pub(crate) fn presence_failed(&mut self, cx: &mut Context<'_>, missing: &[RouteName]) {
        self.silent(cx, missing);
        self.presence_done(cx, &Err(PresenceError::Unconfirmed));
    }

    /// Somebody is in another epoch than the one in which we say that we are back.
    /// Gives true if this is about what we said last.
    pub(crate) fn is_presence_refused(&mut self, message: &Authentic) -> bool {
        let is_ours =
            self.exchanges.purpose_of(message.message_id) == Some(&Purpose::Presence) && !self.away;
        if is_ours {
            self.exchanges.cancel(|purpose| *purpose == Purpose::Presence);
        }
        is_ours
    }
}
