//! The group machine that moderator and participant share: roster, presence,
//! commands out and answers in, beginning and end.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use slim_proto::{
    BROADCAST, Body, Channels, Command, GroupUpdate, GroupUpdateOp, Header, MlsPayload, Name,
    Participant, ParticipantState, Publish, RouteName, SessionId, SessionType, UNICAST, canonical,
};

use super::data::{Early, Flush};
use super::encryption::Encryption;
use super::presence::HEARTBEAT;
use crate::api::{
    CloseReason, Done, Member, Outgoing, ParticipantChange, PresenceError, PublishError, RequestId,
    SessionEvent, SessionInfo, SessionState, Timers,
};
use crate::exchange::{Answered, ExchangeId, Exchanges, Pace, Request};
use crate::gate::{Authentic, Memory};
use crate::inbound::Inbound;
use crate::outbound::Outbound;
use crate::outbox::Context;
use crate::role::Purpose;
use crate::roster::{Entry, Roster};
use crate::subscriptions::Owner;
use crate::voice::command_id;

/// Commands are repeated at least this often, whatever the session's timeout:
/// a lost one holds up more than a lost message. The time after which they
/// have failed stays the session's.
const CONTROL_PERIOD: Duration = Duration::from_secs(1);

/// And no more often than this: copies are signed, and a moderator could ask for
/// thousands a second.
const MIN_CONTROL_PERIOD: Duration = Duration::from_millis(50);

/// Whoever ends a session waits this long for the others.
const CLOSING_LIMIT: Duration = Duration::from_secs(5);

/// A session that is over repeats its last answers at most this long.
const OVER_LIMIT: Duration = Duration::from_secs(60);

/// What is known of a session before its first message.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) info: SessionInfo,
    pub(crate) channels: Option<Channels>,
    pub(crate) timers: Option<Timers>,
    pub(crate) sends_data: bool,
    pub(crate) receives_data: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// Commands of the application are refused; the last exchange is under way.
    Closing,
    /// Over; its last answers are repeated until then.
    Over {
        until: Duration,
    },
}

/// State that both roles work on.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) info: SessionInfo,
    pub(crate) channels: Option<Channels>,
    pub(crate) timers: Option<Timers>,
    sends_data: bool,
    receives_data: bool,
    pub(crate) roster: Roster,
    pub(crate) mls: Option<Encryption>,
    pub(crate) exchanges: Exchanges<Purpose>,
    /// Completed because somebody who was awaited is gone or offline.
    pub(crate) excused: Vec<Purpose>,
    pub(crate) memory: Memory,
    pub(crate) outbound: Outbound,
    pub(crate) inbound: Inbound,
    pub(super) early: Early,
    /// Publishes that wait for room in `outbound`.
    pub(super) waiting: VecDeque<(RequestId, Outgoing)>,
    pub(super) flushes: Vec<Flush>,
    closes: Vec<RequestId>,
    /// The application does not keep up.
    pub(crate) busy: bool,
    phase: Phase,
    pub(super) tick_at: Duration,
    /// The application is away: it takes no data, and lets nobody hear of it.
    pub(super) away: bool,
    /// Who waits until the others know whether we are away.
    pub(super) presence_requests: Vec<RequestId>,
    /// The application has the session: it may be told of events, and of the end.
    pub(crate) announced: bool,
}

impl Core {
    pub(crate) fn new(setup: Setup, cx: &mut Context<'_>) -> Self {
        let Setup { info, channels, timers, sends_data, receives_data } = setup;
        Self {
            mls: info.mls.then(Encryption::default),
            outbound: Outbound::new(timers),
            inbound: Inbound::new(timers, info.session_type == SessionType::PointToPoint),
            early: Early::default(),
            info,
            channels,
            timers,
            sends_data,
            receives_data,
            roster: Roster::default(),
            exchanges: Exchanges::default(),
            excused: Vec::new(),
            memory: Memory::default(),
            waiting: VecDeque::new(),
            flushes: Vec::new(),
            closes: Vec::new(),
            busy: false,
            phase: Phase::Open,
            tick_at: cx.now.at + HEARTBEAT,
            away: false,
            presence_requests: Vec::new(),
            announced: false,
        }
    }

    pub(crate) fn id(&self) -> SessionId {
        self.info.id
    }

    pub(crate) fn is_p2p(&self) -> bool {
        self.info.session_type == SessionType::PointToPoint
    }

    /// Whether a message to this name is for us. A node may deliver what it likes.
    pub(crate) fn is_addressed(&self, to: &Name) -> bool {
        let own =
            (to.id().is_any() || to.id() == self.info.local.id()) && to.same_app(&self.info.local);
        let channel = |channels: &Channels| channels.control.route() == to.route();
        own || self.channels.as_ref().is_some_and(channel)
    }

    pub(crate) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    pub(crate) fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over { .. })
    }

    pub(crate) fn is_forgotten(&self, at: Duration) -> bool {
        matches!(self.phase, Phase::Over { until } if until <= at)
    }

    // ------------------------------------------------------------ pace

    fn control_timers(&self) -> Timers {
        self.timers.unwrap_or_default()
    }

    /// How long a command is tried.
    pub(crate) fn control_limit(&self) -> Duration {
        self.control_timers().limit()
    }

    pub(crate) fn control_pace(&self) -> Pace {
        pace(self.control_timers().timeout, self.control_limit())
    }

    pub(crate) fn closing_pace(&self) -> Pace {
        pace(self.control_timers().timeout, self.control_limit().min(CLOSING_LIMIT))
    }

    // ------------------------------------------------------------ subscriptions

    /// Asks the node for the channel. Point-to-point needs nothing but our name.
    pub(crate) fn subscribe(&mut self, cx: &mut Context<'_>) {
        let Some(channels) = &self.channels else { return };
        let owner = Owner::Session(self.info.id);
        for name in [&channels.data, &channels.control] {
            let local = &self.info.local;
            // A session's subscriptions go without an identity.
            cx.subscriptions.subscribe(cx.now.at, cx.out, local, name, owner, String::new());
        }
    }

    pub(crate) fn unsubscribe(&self, cx: &mut Context<'_>) {
        cx.subscriptions.drop_session(cx.now.at, cx.out, self.info.id);
    }

    /// Whether the node refused us the channel.
    pub(crate) fn is_refused(&self, cx: &Context<'_>) -> bool {
        cx.subscriptions.any_refused(self.info.id)
    }

    pub(crate) fn is_subscribed(&self, cx: &Context<'_>) -> bool {
        cx.subscriptions.all_held(self.info.id)
    }

    // ------------------------------------------------------------ roster

    /// Ourselves, as a roster shows us.
    pub(crate) fn own_row(&self) -> Participant {
        Participant {
            name: self.info.local.clone(),
            sends_data: self.sends_data,
            receives_data: self.receives_data,
            status: ParticipantState::Online,
        }
    }

    /// Everybody, ourselves included.
    pub(crate) fn participants(&self) -> Vec<Participant> {
        std::iter::once(self.own_row()).chain(self.roster.iter().map(Entry::participant)).collect()
    }

    /// Takes the roster that a moderator sent. The application learns of who came
    /// and went meanwhile.
    pub(crate) fn take_roster(&mut self, cx: &mut Context<'_>, participants: &[Participant]) {
        self.inbound.expect_new_counts();
        let listed = |name: &Name| participants.iter().any(|row| row.name.route() == name.route());
        let gone: Vec<Name> = (self.roster.iter())
            .map(|entry| entry.name.clone())
            .filter(|name| !listed(name))
            .collect();
        for name in gone {
            self.drop_member(cx, &name);
            self.tell(cx, &name, ParticipantChange::Left);
        }
        for row in participants {
            if row.name.route() == self.info.local.route() {
                continue;
            }
            match self.roster.get(&row.name) {
                None => {
                    self.roster.insert(Entry::new(row));
                    self.inbound.expect_first(&row.name);
                    self.tell(cx, &row.name, ParticipantChange::Joined);
                }
                Some(_) if row.status == ParticipantState::Online => {
                    self.member_online(cx, &row.name);
                }
                Some(_) => {}
            }
        }
    }

    /// Whether the sender shows the key of its leaf, or without MLS the one that it
    /// showed first. A shared secret lets every holder make a token for any
    /// subject; this keeps a member's name its own.
    pub(crate) fn knows_key(&mut self, message: &Authentic) -> bool {
        let Some(entry) = self.roster.get_mut(&message.source) else { return true };
        let (subject, key) = (&message.claims.subject, &message.claims.public_key);
        let of_leaf = self.mls.as_ref().and_then(|mls| mls.signs_with(subject, key.as_bytes()));
        if of_leaf == Some(false) {
            return false;
        }
        *entry.key.get_or_insert_with(|| message.claims.public_key.clone())
            == message.claims.public_key
    }

    /// The application learns what became of somebody else.
    pub(crate) fn tell(&self, cx: &mut Context<'_>, name: &Name, change: ParticipantChange) {
        let name = name.clone();
        if self.announced {
            cx.out.event(self.info.id, SessionEvent::Participant { name, change });
        }
    }

    /// A member has confirmed its welcome: data is awaited from now on.
    pub(crate) fn confirm(&mut self, cx: &mut Context<'_>, name: &Name) {
        if let Some(entry) = self.roster.get_mut(name) {
            entry.joining = false;
            entry.missed = 0;
        }
        self.retry_waiting(cx);
    }

    /// A member is out: nothing is awaited from it any more.
    pub(crate) fn drop_member(&mut self, cx: &mut Context<'_>, name: &Name) -> Option<Entry> {
        let entry = self.roster.remove(name)?;
        // Who is asked in is not asked as a member, and may still answer.
        let as_member =
            |purpose: &Purpose| !matches!(purpose, Purpose::Discover(_) | Purpose::Join(_));
        self.excused.extend(self.exchanges.excuse(name, as_member));
        self.forget_data(cx, &entry.name, true);
        Some(entry)
    }

    /// These do not answer.
    pub(crate) fn silent(&mut self, cx: &mut Context<'_>, who: &[RouteName]) {
        let names: Vec<Name> = (self.roster.iter())
            .filter(|entry| who.contains(&entry.name.route()))
            .map(|entry| entry.name.clone())
            .collect();
        for name in names {
            self.member_offline(cx, &name);
        }
    }

    pub(crate) fn member_offline(&mut self, cx: &mut Context<'_>, name: &Name) {
        let Some(entry) = self.roster.get_mut(name) else { return };
        if !std::mem::replace(&mut entry.online, false) {
            return;
        }
        let (name, joining) = (entry.name.clone(), entry.joining);
        if !joining {
            self.tell(cx, &name, ParticipantChange::Offline);
        }
        // Its welcome and dismissal go on; what goes to all does not wait for it.
        let to_all = |purpose: &Purpose| {
            purpose.is_update() || matches!(purpose, Purpose::CloseGroup | Purpose::Presence)
        };
        self.excused.extend(self.exchanges.excuse(&name, to_all));
        self.forget_data(cx, &name, false);
    }

    pub(crate) fn member_online(&mut self, cx: &mut Context<'_>, name: &Name) {
        let Some(entry) = self.roster.get_mut(name) else { return };
        entry.missed = 0;
        if std::mem::replace(&mut entry.online, true) {
            return;
        }
        let name = entry.name.clone();
        self.tell(cx, &name, ParticipantChange::Online);
        self.resend_to(cx, &name);
    }

    /// Anything of a member is a sign of life.
    pub(crate) fn heard(&mut self, at: Duration, name: &Name) {
        if let Some(entry) = self.roster.get_mut(name) {
            entry.heard(at);
        }
    }

    pub(crate) fn state(&self) -> SessionState {
        let own = Member { name: self.info.local.clone(), online: !self.away, is_self: true };
        let others = self.roster.iter().filter(|entry| !entry.joining).map(|entry| Member {
            name: entry.name.clone(),
            online: entry.online,
            is_self: false,
        });
        SessionState {
            members: std::iter::once(own).chain(others).collect(),
            mls: self.mls.as_ref().and_then(Encryption::state),
        }
    }

    // ------------------------------------------------------------ commands out

    /// Where a message to everybody goes.
    pub(crate) fn everybody(&self) -> (Name, u32) {
        match &self.channels {
            Some(channels) => (channels.control.clone(), BROADCAST),
            None => (self.peer(), UNICAST),
        }
    }

    /// The other one of a point-to-point session.
    pub(super) fn peer(&self) -> Name {
        let peer = self.roster.iter().next().map(|entry| entry.name.clone());
        peer.unwrap_or_else(|| self.info.remote.clone())
    }

    pub(super) fn envelope(
        &self,
        destination: Name,
        fanout: u32,
        message_id: u32,
        body: Body,
    ) -> Publish {
        Publish {
            header: Header::new(self.info.local.clone(), destination, fanout),
            session_type: self.info.session_type,
            session_id: self.info.id,
            message_id,
            body,
            metadata: BTreeMap::new(),
        }
    }

    pub(crate) fn send_command(
        &self,
        cx: &mut Context<'_>,
        destination: Name,
        fanout: u32,
        message_id: u32,
        command: Command,
        leaving: bool,
    ) {
        let mut publish = self.envelope(destination, fanout, message_id, Body::Command(command));
        if leaving {
            let (key, value) = (canonical::LEAVING_SESSION, canonical::TRUE);
            publish.metadata.insert(key.to_owned(), value.to_owned());
        }
        // The creator's entries go with the invitation.
        if matches!(publish.body, Body::Command(Command::JoinRequest(_))) {
            publish.metadata.extend(self.info.metadata.clone());
        }
        if let Some(message) = cx.voice.finish(publish, cx.now, cx.rng) {
            cx.out.send(message);
        }
    }

    /// A GROUP_ACK under our name without its readable parts.
    pub(crate) fn send_nameless_ack(&self, cx: &mut Context<'_>, to: Name, message_id: u32) {
        let ack = Body::Command(Command::GroupAck);
        let mut publish = self.envelope(to, UNICAST, message_id, ack);
        publish.header.source = publish.header.source.without_text();
        if let Some(message) = cx.voice.finish(publish, cx.now, cx.rng) {
            cx.out.send(message);
        }
    }

    /// Sends a command, and again until all of `missing` have answered; once if
    /// nobody has to.
    pub(crate) fn request(
        &mut self,
        cx: &mut Context<'_>,
        purpose: Purpose,
        request: Request,
        pace: Pace,
        missing: impl IntoIterator<Item = RouteName>,
    ) {
        let id = command_id(cx.rng);
        self.transmit(cx, id, request.clone());
        let mut missing = missing.into_iter().peekable();
        if missing.peek().is_some() {
            self.exchanges.open(cx.now.at, purpose, request, pace, id, missing);
        }
    }

    pub(crate) fn repeat_request(
        &mut self,
        cx: &mut Context<'_>,
        exchange: ExchangeId,
        mut request: Request,
    ) {
        // Without MLS nothing tells a late copy from news: it tells who is in now.
        match &mut request.command {
            Command::GroupWelcome(welcome) if self.mls.is_none() => {
                welcome.participants = self.participants();
            }
            Command::GroupUpdate(update) if self.mls.is_none() => {
                let who = update.participant.as_ref();
                let is_in = who.is_some_and(|row| self.roster.get(&row.name).is_some());
                update.op = if is_in { GroupUpdateOp::Add } else { GroupUpdateOp::Remove };
            }
            _ => {}
        }
        // A copy of an update keeps its id: members answer it again, and without
        // MLS nothing else would tell it from a new change.
        let id = match &request.command {
            Command::GroupUpdate(_) => self.exchanges.first_id(exchange),
            _ => None,
        };
        let id = id.unwrap_or_else(|| {
            let id = command_id(cx.rng);
            self.exchanges.sent(exchange, id);
            id
        });
        self.transmit(cx, id, request);
    }

    fn transmit(&self, cx: &mut Context<'_>, message_id: u32, request: Request) {
        let Request { destination, fanout, command, leaving } = request;
        self.send_command(cx, destination, fanout, message_id, command, leaving);
    }

    /// Tells everybody of a change of the group.
    #[expect(clippy::too_many_arguments, reason = "the fields of one message")]
    pub(crate) fn update(
        &mut self,
        cx: &mut Context<'_>,
        purpose: Purpose,
        op: GroupUpdateOp,
        participant: Option<Participant>,
        participants: Vec<Participant>,
        mls: Option<MlsPayload>,
        missing: impl IntoIterator<Item = RouteName>,
    ) {
        let (destination, fanout) = self.everybody();
        let update = GroupUpdate { op, participant, participants, mls };
        let command = Command::GroupUpdate(update);
        let request = Request { destination, fanout, command, leaving: false };
        self.request(cx, purpose, request, self.control_pace(), missing);
    }

    // ------------------------------------------------------------ answers

    /// Answers a command, and remembers the answer for copies of it.
    pub(crate) fn answer(&mut self, cx: &mut Context<'_>, to: &Authentic, answer: Command) {
        let kind = to.command.message_type();
        self.memory.remember(&to.source, kind, to.message_id, Some(answer.clone()));
        self.repeat_answer(cx, to, answer);
    }

    pub(crate) fn repeat_answer(&self, cx: &mut Context<'_>, to: &Authentic, answer: Command) {
        self.send_command(cx, to.source.clone(), UNICAST, to.message_id, answer, false);
    }

    /// The purpose of the exchange that this answer completes, if its kind fits.
    pub(crate) fn completed(&mut self, answer: &Authentic) -> Option<Purpose> {
        let purpose = *self.exchanges.purpose_of(answer.message_id)?;
        let fits = match purpose {
            Purpose::Discover(_) => matches!(answer.command, Command::DiscoveryReply),
            Purpose::Join(_) => {
                matches!(answer.command, Command::JoinReply(_) | Command::GroupNack)
            }
            Purpose::Dismiss(_) | Purpose::Leave => matches!(answer.command, Command::LeaveReply),
            Purpose::Rejoin => matches!(answer.command, Command::RejoinReply(_)),
            Purpose::Welcome(_)
            | Purpose::Admit(_)
            | Purpose::Retire(_)
            | Purpose::Announce
            | Purpose::Presence
            | Purpose::CloseGroup => matches!(answer.command, Command::GroupAck),
        };
        match fits.then(|| self.exchanges.answer(answer.message_id, &answer.source)) {
            Some(Answered::Completed(purpose)) => Some(purpose),
            Some(Answered::Partly(_) | Answered::Unasked) | None => None,
        }
    }

    // ------------------------------------------------------------ the end

    /// The application closes the session: `request` is answered when it is over.
    pub(crate) fn start_closing(&mut self, cx: &mut Context<'_>, request: RequestId) {
        self.phase = Phase::Closing;
        self.closes.push(request);
        self.fail_data(cx);
    }

    /// The application closes a session that is being closed.
    pub(crate) fn await_close(&mut self, request: RequestId) {
        self.closes.push(request);
    }

    /// The session is over. Its last answers are repeated as long as a peer may
    /// ask for them.
    pub(crate) fn end(&mut self, cx: &mut Context<'_>, reason: CloseReason) {
        if self.is_over() {
            return;
        }
        self.fail_data(cx);
        self.unsubscribe(cx);
        self.exchanges.cancel(|_| true);
        self.phase = Phase::Over { until: cx.now.at + self.control_limit().min(OVER_LIMIT) };
        if self.announced {
            cx.out.event(self.info.id, SessionEvent::Closed { reason });
        }
        for request in std::mem::take(&mut self.closes) {
            cx.out.done(request, Done::Closed);
        }
    }

    /// The session is over before the application had it.
    pub(crate) fn vanish(&mut self, cx: &mut Context<'_>) {
        self.end(cx, CloseReason::Left);
    }

    fn fail_data(&mut self, cx: &mut Context<'_>) {
        for (request, _) in std::mem::take(&mut self.waiting) {
            cx.out.done(request, Done::Published(Err(PublishError::Closed)));
        }
        self.fail_outstanding(cx);
        for flush in std::mem::take(&mut self.flushes) {
            cx.out.done(flush.request, Done::Flushed);
        }
        self.presence_done(cx, &Err(PresenceError::Closed));
    }

    // ------------------------------------------------------------ the link

    pub(crate) fn pause(&mut self) {
        self.outbound.pause();
        self.inbound.pause();
    }

    /// The link is back: what is outstanding goes out again, and nobody's
    /// silence meanwhile counts.
    pub(crate) fn resume(&mut self, cx: &mut Context<'_>) {
        self.exchanges.resume(cx.now.at);
        self.outbound.resume(cx.now.at);
        if !self.away {
            self.inbound.resume(cx.now.at);
        }
        for entry in self.roster.iter_mut() {
            entry.missed = 0;
        }
        // Soon: others may have given us up.
        self.tick_at = cx.now.at;
    }

    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        if let Phase::Over { until } = self.phase {
            return Some(until);
        }
        [
            Some(self.tick_at),
            self.exchanges.next_deadline(),
            self.outbound.next_deadline(),
            self.inbound.next_deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }
}

/// Repeats at least every [`CONTROL_PERIOD`] and ends after `limit`.
fn pace(timeout: Duration, limit: Duration) -> Pace {
    let period = timeout.clamp(MIN_CONTROL_PERIOD, CONTROL_PERIOD);
    let times = limit.as_millis().div_ceil(period.as_millis()).max(1);
    Pace { period, retries: u32::try_from(times - 1).unwrap_or(u32::MAX) }
}
