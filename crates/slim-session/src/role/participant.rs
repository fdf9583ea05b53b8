//! The participant: is invited, follows the moderator's changes, leaves.
//!
//! | phase | JOIN_REQUEST | GROUP_WELCOME | GROUP_UPDATE | data | LEAVE_REQUEST, GROUP_CLOSE |
//! |---|---|---|---|---|---|
//! | invited | reply; a known id gets the same reply | join, subscribe | ignored | kept for later | ends |
//! | welcomed | – | – | kept for later | kept for later | ends |
//! | active | – | acknowledged again | applied in order | delivered | answered, ends |
//! | leaving | – | – | – | – | ends |
//!
//! "–" is: nothing happens. A JOIN_REQUEST that comes after the welcome must not be
//! answered; a moderator of the reference does not survive it.

use std::collections::BTreeMap;
use std::time::Duration;

use slim_auth::{Claims, PublicKey};
use slim_proto::{
    Command, GroupUpdate, GroupUpdateOp, GroupWelcome, JoinReply, MessageType, Name, RejoinReply,
    RejoinRequest, RouteName, UNICAST,
};
use tracing::{debug, warn};

use super::{Purpose, Renewal};
use crate::api::{CloseReason, Output, ParticipantChange, PresenceError};
use crate::exchange::Request;
use crate::gate::Authentic;
use crate::outbox::Context;
use crate::roster::Entry;
use crate::session::Core;

/// An invitation that is not followed by a welcome is forgotten after this time.
const WELCOME_LIMIT: Duration = Duration::from_secs(60);

/// Commits that may be kept while an earlier one is missing. What comes beyond
/// is dropped and, not being acknowledged, sent again.
const MAX_EARLY_UPDATES: usize = 64;

/// Before we believe a member that others are ahead, the moderator has the time of
/// two heartbeats to show its own epoch.
const HEARSAY_PATIENCE: Duration = Duration::from_secs(25);

/// How long the request to leave may take after the last of the others has answered,
/// or has not.
const DISMISSAL_MARGIN: Duration = Duration::from_secs(5);

/// Key packages of one invitation; more copies of the request are ignored.
const MAX_KEY_PACKAGES: usize = 16;

/// What a participant knows beyond the group.
#[derive(Debug)]
pub(crate) struct Participant {
    pub(crate) moderator: Name,
    moderator_key: PublicKey,
    phase: Phase,
    key_packages: usize,
    /// GROUP_UPDATEs by commit, until the ones before have come.
    early: BTreeMap<u32, Authentic>,
    /// When to ask for a new welcome, unless the missing commit comes before.
    rejoin_at: Option<Duration>,
    /// The same if only a member says that others are ahead, unless the moderator
    /// shows before that nobody is.
    hearsay_until: Option<Duration>,
    renewal: Renewal,
    /// When to ask for another, unless the roster that goes with the last one comes
    /// before.
    roster_until: Option<Duration>,
    /// The group is without us. The moderator tells us so once the others know; if it
    /// does not by then, it is gone itself.
    removed_until: Option<Duration>,
}

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    Invited {
        until: Duration,
    },
    /// The welcome with this id is acknowledged once the channel is subscribed.
    Welcomed {
        message_id: u32,
    },
    Active,
    Leaving,
}

impl Participant {
    pub(crate) fn new(moderator: Name, claims: &Claims, cx: &mut Context<'_>) -> Self {
        Self {
            moderator,
            moderator_key: claims.public_key.clone(),
            phase: Phase::Invited { until: cx.now.at + WELCOME_LIMIT },
            key_packages: 0,
            early: BTreeMap::new(),
            rejoin_at: None,
            hearsay_until: None,
            renewal: Renewal::of_participant(cx.rng),
            roster_until: None,
            removed_until: None,
        }
    }

    /// Whether the application has the session.
    pub(crate) fn is_active(&self) -> bool {
        self.phase == Phase::Active
    }

    /// Whether no welcome has come yet.
    pub(crate) fn is_invited(&self) -> bool {
        matches!(self.phase, Phase::Invited { .. })
    }

    /// Whether this command is the moderator's, by name and key. Only it may
    /// change the group.
    pub(crate) fn is_from_moderator(&self, message: &Authentic) -> bool {
        self.is_moderator(&message.source) && message.claims.public_key == self.moderator_key
    }

    fn is_moderator(&self, name: &Name) -> bool {
        name.route() == self.moderator.route()
    }

    // ------------------------------------------------------------ joining

    pub(crate) fn on_join_request(
        &mut self,
        core: &mut Core,
        cx: &mut Context<'_>,
        message: &Authentic,
    ) {
        let Phase::Invited { until } = &mut self.phase else { return };
        *until = cx.now.at + WELCOME_LIMIT;
        if self.key_packages >= MAX_KEY_PACKAGES {
            return;
        }
        self.key_packages += 1;
        let key_package = match core.mls.as_mut().map(|mls| mls.key_package(cx)) {
            None => None,
            Some(Ok(key_package)) => Some(key_package),
            Some(Err(error)) => return warn!(%error, "cannot make a key package"),
        };
        let participant = core.own_row();
        core.answer(cx, message, Command::JoinReply(JoinReply { key_package, participant }));
    }

    pub(crate) fn on_welcome(
        &mut self,
        core: &mut Core,
        cx: &mut Context<'_>,
        message: &Authentic,
        welcome: &GroupWelcome,
    ) {
        match &mut self.phase {
            Phase::Invited { .. } => {}
            // A copy under a new id: the answer to the first was lost, or is late.
            Phase::Welcomed { message_id } => return *message_id = message.message_id,
            Phase::Active => {
                if core.mls.is_none() {
                    self.removed_until = None;
                    core.take_roster(cx, &welcome.participants);
                }
                return core.answer(cx, message, Command::GroupAck);
            }
            Phase::Leaving => return,
        }
        if let Some(mls) = core.mls.as_mut() {
            let Some(payload) = &welcome.mls else {
                return warn!("welcome without MLS part");
            };
            if let Err(error) =
                mls.join(cx, &payload.mls_content, payload.commit_id, &message.claims)
            {
                return warn!(%error, "welcome refused");
            }
        }
        let own = core.info.local.route();
        for row in welcome.participants.iter().filter(|row| row.name.route() != own) {
            let mut entry = Entry::new(row);
            // Its key is the one of its invitation.
            entry.key = self.is_moderator(&row.name).then(|| self.moderator_key.clone());
            core.roster.insert(entry);
        }
        self.phase = Phase::Welcomed { message_id: message.message_id };
        self.on_subscribed(core, cx);
    }

    /// The last step: the channel is subscribed, so nothing is missed from here on.
    pub(crate) fn on_subscribed(&mut self, core: &mut Core, cx: &mut Context<'_>) {
        if core.is_refused(cx)
            && matches!(self.phase, Phase::Invited { .. } | Phase::Welcomed { .. })
        {
            return core.vanish(cx);
        }
        let Phase::Welcomed { message_id } = self.phase else { return };
        if !core.is_subscribed(cx) {
            return;
        }
        self.phase = Phase::Active;
        let ack = Command::GroupAck;
        core.send_command(cx, self.moderator.clone(), UNICAST, message_id, ack.clone(), false);
        core.memory.remember(&self.moderator, MessageType::GroupWelcome, message_id, Some(ack));
        core.announced = true;
        cx.out.push(Output::Session(core.info.clone()));
        self.apply_updates(core, cx);
        core.replay_early_data(cx);
    }

    // ------------------------------------------------------------ the group changes

    pub(crate) fn on_update(
        &mut self,
        core: &mut Core,
        cx: &mut Context<'_>,
        message: Authentic,
        update: &GroupUpdate,
    ) {
        if !matches!(self.phase, Phase::Active | Phase::Welcomed { .. }) {
            return;
        }
        let Some(mls) = core.mls.as_ref() else {
            if is_about(core.info.local.route(), update) {
                self.removed_until = None;
                if update.op == GroupUpdateOp::Remove {
                    self.await_dismissal(core, cx);
                }
            }
            self.change_roster(core, cx, update);
            return core.answer(cx, &message, Command::GroupAck);
        };
        let Some(payload) = &update.mls else {
            return warn!("group update without a commit");
        };
        let last = mls.last_commit();
        if payload.commit_id <= last {
            // Known: a copy, or the change that our own welcome came with. A
            // rejoin's update tells us the roster that goes with the new welcome,
            // unless the group has changed since: then we ask for another.
            let is_current = payload.commit_id == last;
            if is_about(core.info.local.route(), update)
                && is_current
                && update.op == GroupUpdateOp::Rejoin
            {
                self.take_roster(core, cx, update);
            }
            return core.answer(cx, &message, Command::GroupAck);
        }
        if self.early.len() < MAX_EARLY_UPDATES || payload.commit_id == last + 1 {
            // A later copy replaces an earlier one: its id is the one to answer.
            self.early.insert(payload.commit_id, message);
        }
        if self.phase == Phase::Active {
            self.apply_updates(core, cx);
        }
    }

    /// Applies the commits that are there, in unbroken sequence.
    fn apply_updates(&mut self, core: &mut Core, cx: &mut Context<'_>) {
        let own = core.info.local.route();
        while let Some(mls) = core.mls.as_mut() {
            let next = mls.last_commit() + 1;
            self.early.retain(|commit_id, _| *commit_id >= next);
            let Some(message) = self.early.remove(&next) else { break };
            let Command::GroupUpdate(update) = &message.command else { continue };
            let Some(payload) = &update.mls else { continue };
            if update.op == GroupUpdateOp::Rejoin && is_about(own, update) {
                // Our leaf is another's: only the welcome that goes with it leads on.
                self.early.insert(next, message);
                if !core.exchanges.any(|purpose| *purpose == Purpose::Rejoin) {
                    self.rejoin_at.get_or_insert(cx.now.at);
                }
                break;
            }
            match mls.apply(cx, payload) {
                Ok(true) => self.await_dismissal(core, cx),
                Ok(false) => {}
                Err(error) => {
                    warn!(%error, commit = next, "commit refused");
                    self.rejoin_at.get_or_insert(cx.now.at);
                    break;
                }
            }
            self.change_roster(core, cx, &update.clone());
            core.answer(cx, &message, Command::GroupAck);
            (self.rejoin_at, self.hearsay_until) = (None, None);
            core.replay_early_data(cx);
        }
    }

    fn change_roster(&mut self, core: &mut Core, cx: &mut Context<'_>, update: &GroupUpdate) {
        let Some(row) = &update.participant else { return };
        if row.name.route() == core.info.local.route() {
            return;
        }
        match update.op {
            GroupUpdateOp::Add => {
                // A copy tells nothing new.
                if core.roster.get(&row.name).is_none() {
                    core.roster.insert(Entry::new(row));
                    core.inbound.expect_first(&row.name);
                    core.tell(cx, &row.name, ParticipantChange::Joined);
                }
            }
            GroupUpdateOp::Rejoin => {
                if core.roster.get(&row.name).is_none() {
                    core.roster.insert(Entry::new(row));
                }
                core.member_online(cx, &row.name);
            }
            GroupUpdateOp::Remove => {
                if core.drop_member(cx, &row.name).is_some() {
                    core.tell(cx, &row.name, ParticipantChange::Left);
                }
            }
        }
    }

    // ------------------------------------------------------------ rejoin

    fn take_roster(&mut self, core: &mut Core, cx: &mut Context<'_>, update: &GroupUpdate) {
        self.roster_until = None;
        core.take_roster(cx, &update.participants);
    }

    /// Others are ahead. If the moderator says so, the commit may still be on its
    /// way and has one period to come before we ask for a new welcome. A member
    /// may be lying, and each welcome costs everybody a commit: the moderator has
    /// time to show its own epoch.
    pub(crate) fn on_newer_epoch(&mut self, core: &Core, cx: &Context<'_>, is_moderator: bool) {
        if self.phase != Phase::Active {
            return;
        }
        if is_moderator {
            let patience = core.control_pace().period;
            self.rejoin_at.get_or_insert_with(|| cx.now.at + patience);
        } else {
            self.hearsay_until.get_or_insert_with(|| cx.now.at + HEARSAY_PATIENCE);
        }
    }

    /// The moderator shows that nobody is ahead of us.
    pub(crate) fn on_current_epoch(&mut self) {
        self.hearsay_until = None;
    }

    /// Others are in another epoch than the one in which we say that we are back.
    pub(crate) fn on_stale(&mut self, core: &mut Core, cx: &mut Context<'_>) {
        self.rejoin(core, cx);
        if !core.exchanges.any(|purpose| *purpose == Purpose::Rejoin) {
            core.presence_done(cx, &Err(PresenceError::Unconfirmed));
        }
    }

    fn rejoin(&mut self, core: &mut Core, cx: &mut Context<'_>) {
        let open = |purpose: &Purpose| *purpose == Purpose::Rejoin;
        let Some(mls) = core.mls.as_mut() else { return };
        if core.exchanges.any(open) {
            return;
        }
        let key_package = match mls.key_package(cx) {
            Ok(key_package) => key_package,
            Err(error) => return warn!(%error, "cannot make a key package"),
        };
        debug!("asking for a new welcome");
        let participant = core.info.local.clone();
        let command = Command::RejoinRequest(RejoinRequest { participant, key_package });
        let destination = self.moderator.clone();
        let missing = [destination.route()];
        let request = Request { destination, fanout: UNICAST, command, leaving: false };
        core.request(cx, Purpose::Rejoin, request, core.control_pace(), missing);
    }

    pub(crate) fn on_rejoin_reply(
        &mut self,
        core: &mut Core,
        cx: &mut Context<'_>,
        message: &Authentic,
        reply: &RejoinReply,
    ) {
        let Some(Purpose::Rejoin) = core.completed(message) else { return };
        let Some(mls) = core.mls.as_mut() else { return };
        if let Err(error) = mls.join(cx, &reply.welcome, reply.commit_id, &message.claims) {
            warn!(%error, "welcome refused");
            self.rejoin_at = Some(cx.now.at + core.control_pace().period);
            return core.presence_done(cx, &Err(PresenceError::Unconfirmed));
        }
        (self.rejoin_at, self.hearsay_until, self.removed_until) = (None, None, None);
        self.roster_until = Some(cx.now.at + core.control_limit());
        // This one ack goes out under our name without its readable parts: the
        // reference's moderator takes it for a copy of our request otherwise,
        // and waits for it for ever.
        core.send_nameless_ack(cx, self.moderator.clone(), message.message_id);
        let moderator = self.moderator.clone();
        core.member_online(cx, &moderator);
        // The update that this welcome belongs to may have come before it.
        if let Some(message) = self.early.remove(&reply.commit_id)
            && let Command::GroupUpdate(update) = &message.command
        {
            self.take_roster(core, cx, update);
            core.answer(cx, &message, Command::GroupAck);
        }
        core.presence_done(cx, &Ok(()));
        self.apply_updates(core, cx);
        core.replay_early_data(cx);
    }

    // ------------------------------------------------------------ ending

    /// The moderator takes us out. It awaits our answer when it has told the others, so
    /// we stay until then; if it dies meanwhile, nobody else would tell us.
    fn await_dismissal(&mut self, core: &Core, cx: &Context<'_>) {
        self.removed_until = Some(cx.now.at + core.control_limit() + DISMISSAL_MARGIN);
    }

    /// The moderator removed us.
    pub(crate) fn on_leave_request(
        &mut self,
        core: &mut Core,
        cx: &mut Context<'_>,
        message: &Authentic,
    ) {
        core.answer(cx, message, Command::LeaveReply);
        let reason = if core.is_p2p() { CloseReason::PeerLeft } else { CloseReason::Removed };
        self.end(core, cx, reason);
    }

    /// The moderator closed the session.
    pub(crate) fn on_close(&mut self, core: &mut Core, cx: &mut Context<'_>, message: &Authentic) {
        core.answer(cx, message, Command::GroupAck);
        let reason =
            if core.is_p2p() { CloseReason::PeerLeft } else { CloseReason::ModeratorClosed };
        self.end(core, cx, reason);
    }

    fn end(&mut self, core: &mut Core, cx: &mut Context<'_>, reason: CloseReason) {
        match self.phase {
            // The application never heard of it.
            Phase::Invited { .. } | Phase::Welcomed { .. } => core.vanish(cx),
            Phase::Active => core.end(cx, reason),
            Phase::Leaving => core.end(cx, CloseReason::Left),
        }
    }

    /// The application leaves.
    pub(crate) fn leave(&mut self, core: &mut Core, cx: &mut Context<'_>) {
        self.phase = Phase::Leaving;
        core.exchanges.cancel(|_| true);
        core.unsubscribe(cx);
        let destination = self.moderator.clone();
        let missing = [destination.route()];
        let command = Command::LeaveRequest;
        let request = Request { destination, fanout: UNICAST, command, leaving: true };
        core.request(cx, Purpose::Leave, request, core.closing_pace(), missing);
    }

    // ------------------------------------------------------------ time and answers

    pub(crate) fn on_completed(&mut self, core: &mut Core, cx: &mut Context<'_>, purpose: Purpose) {
        match purpose {
            Purpose::Leave => core.end(cx, CloseReason::Left),
            Purpose::Presence => core.presence_done(cx, &Ok(())),
            _ => {}
        }
    }

    pub(crate) fn on_failed(
        &mut self,
        core: &mut Core,
        cx: &mut Context<'_>,
        purpose: Purpose,
        missing: &[RouteName],
    ) {
        match purpose {
            Purpose::Leave => core.end(cx, CloseReason::Left),
            Purpose::Presence => core.presence_failed(cx, missing),
            // The next heartbeat of a member that is ahead starts it again.
            Purpose::Rejoin => {
                warn!("the moderator does not answer the rejoin request");
                core.presence_done(cx, &Err(PresenceError::Unconfirmed));
            }
            _ => {}
        }
    }

    pub(crate) fn on_deadline(&mut self, core: &mut Core, cx: &mut Context<'_>) {
        if [self.rejoin_at, self.hearsay_until].into_iter().flatten().any(|at| at <= cx.now.at) {
            (self.rejoin_at, self.hearsay_until) = (None, None);
            self.rejoin(core, cx);
        }
        if self.roster_until.is_some_and(|at| at <= cx.now.at) {
            // Nobody is ahead of us, so nothing else would make us ask again.
            self.roster_until = Some(cx.now.at + core.control_limit());
            if core.roster.get(&self.moderator).is_some_and(|entry| entry.online) {
                self.rejoin(core, cx);
            }
        }
        // A new welcome renews the token in our leaf.
        if self.phase == Phase::Active && !core.is_p2p() && self.renewal.is_due(core, cx.now.unix) {
            self.rejoin(core, cx);
            self.renewal.postpone(core, cx.now.unix);
        }
        if matches!(self.phase, Phase::Invited { until } if until <= cx.now.at) {
            debug!("no welcome came");
            core.vanish(cx);
        }
        if self.removed_until.is_some_and(|until| until <= cx.now.at) {
            self.removed_until = None;
            debug!("removed, and nobody says so any more");
            self.end(core, cx, CloseReason::Removed);
        }
    }

    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        let invited = match self.phase {
            Phase::Invited { until } => Some(until),
            Phase::Welcomed { .. } | Phase::Active | Phase::Leaving => None,
        };
        let own = [self.rejoin_at, self.hearsay_until, self.roster_until, self.removed_until];
        own.into_iter().chain([invited]).flatten().min()
    }
}

/// Whether it is our own place in the group that changes.
fn is_about(own: RouteName, update: &GroupUpdate) -> bool {
    update.participant.as_ref().is_some_and(|row| row.name.route() == own)
}
