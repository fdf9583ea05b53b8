//! One application's session layer: finds the session that something is about,
//! and answers what is about none.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::StdRng};
use slim_auth::{Identity, Verifier};
use slim_proto::{
    Body, Channels, Command as Wire, Header, Message, MessageType, Name, NameId, Publish,
    RouteName, SessionId, SessionType, UNICAST, canonical,
};
use tracing::{debug, trace, warn};

use crate::api::{
    Command, CreateError, Done, EndpointConfig, Input, Invitation, Now, Output, RequestId, Role,
    SessionConfig, SessionInfo, Timers,
};
use crate::gate::{Authentic, Gate, Memory, Refusal, Unbound};
use crate::outbox::{Context, Outbox};
use crate::session::{Session, Setup, refuse};
use crate::subscriptions::{Outcome, Owner, Subscriptions};
use crate::voice::Voice;

/// Sessions that one application may hold. What would be one more is refused:
/// a create fails, an invitation is not answered.
pub(crate) const MAX_SESSIONS: usize = 4096;

/// A copy of a discovery request is answered this long after it came, and only
/// if no join request came meanwhile: then the first answer was lost. A
/// moderator of the reference does not survive an answer too many.
const DISCOVERY_COPY_DELAY: Duration = Duration::from_millis(200);

/// How long discovery requests are remembered.
const DISCOVERY_MEMORY: Duration = Duration::from_secs(60);

/// Discovery requests that are remembered at once; the oldest goes first.
const MAX_DISCOVERIES: usize = 1024;

/// Between two answers to messages whose identity does not verify. Everybody can ask
/// for these, and each costs two signatures.
const NACK_INTERVAL: Duration = Duration::from_millis(100);

/// What was told of peers, and is remembered so that it is told once. When full,
/// nothing further is told.
const MAX_TOLD: usize = 1024;

/// The engine. See the crate's documentation for how to drive it.
#[derive(Debug)]
pub struct Endpoint {
    config: EndpointConfig,
    /// Our full name.
    local: Name,
    shared: Shared,
    sessions: BTreeMap<SessionId, Session>,
    deadlines: Deadlines,
    discoveries: BTreeMap<(SessionId, RouteName), Discovery>,
    told: Told,
    /// When the next may be told that it has another identity.
    next_nack_at: Duration,
    /// Invitations that were acted on: a copy does not open a session again.
    invitations: Memory,
}

/// What every session needs while it works.
#[derive(Debug)]
struct Shared {
    out: Outbox,
    voice: Voice,
    gate: Gate,
    subscriptions: Subscriptions,
    rng: StdRng,
}

impl Shared {
    fn context(&mut self, now: Now) -> Context<'_> {
        Context {
            now,
            out: &mut self.out,
            voice: &mut self.voice,
            gate: &self.gate,
            subscriptions: &mut self.subscriptions,
            rng: &mut self.rng,
        }
    }
}

/// A discovery request that we answered.
#[derive(Debug)]
struct Discovery {
    at: Duration,
    /// A copy that waits for its answer: when, and to which message.
    copy: Option<(Duration, Asked)>,
}

/// What an answer to a discovery request needs of it.
#[derive(Debug)]
struct Asked {
    source: Name,
    /// The name by which we were asked for, with our id.
    local: Name,
    session_type: SessionType,
    message_id: u32,
}

/// What was told of whom.
#[derive(Debug, Default)]
struct Told(BTreeSet<(RouteName, &'static str)>);

impl Told {
    /// Whether this is news.
    fn is_new(&mut self, peer: &Name, what: &'static str) -> bool {
        self.0.len() < MAX_TOLD && self.0.insert((peer.route(), what))
    }
}

/// When each session wants to be called.
#[derive(Debug, Default)]
struct Deadlines {
    of_session: BTreeMap<SessionId, Duration>,
    order: BTreeSet<(Duration, SessionId)>,
}

impl Deadlines {
    fn set(&mut self, id: SessionId, at: Option<Duration>) {
        if let Some(old) = self.of_session.remove(&id) {
            self.order.remove(&(old, id));
        }
        if let Some(at) = at {
            self.of_session.insert(id, at);
            self.order.insert((at, id));
        }
    }
}

impl Endpoint {
    /// An engine for the application with this identity.
    pub fn new(
        config: EndpointConfig,
        identity: Arc<dyn Identity>,
        verifier: Arc<dyn Verifier>,
    ) -> Self {
        let mut rng = StdRng::seed_from_u64(config.seed);
        let local = config.name.with_id(NameId::of_subject(identity.subject()));
        let gate = Gate { verifier, binding: config.binding };
        Self {
            config,
            local,
            shared: Shared {
                out: Outbox::default(),
                voice: Voice::new(identity),
                gate,
                subscriptions: Subscriptions::new(&mut rng),
                rng,
            },
            sessions: BTreeMap::new(),
            deadlines: Deadlines::default(),
            discoveries: BTreeMap::new(),
            told: Told::default(),
            next_nack_at: Duration::ZERO,
            invitations: Memory::default(),
        }
    }

    /// Our full name, id included.
    pub fn name(&self) -> &Name {
        &self.local
    }

    /// Sessions that are open or still repeat their last answers.
    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }

    /// Takes what happened, and gives what is to be done, in order.
    pub fn handle(&mut self, now: Now, input: Input) -> Vec<Output> {
        trace!(?input, "in");
        match input {
            Input::LinkUp => self.on_link_up(now),
            Input::LinkDown => self.on_link_down(now),
            Input::LinkGone => self.on_link_gone(now),
            Input::Received(message) => self.on_message(now, message),
            Input::Command(request, command) => self.on_command(now, request, command),
            Input::Busy(id, busy) => {
                if let Some(session) = self.sessions.get_mut(&id) {
                    session.set_busy(busy);
                }
            }
            Input::Deadline => {}
        }
        self.on_deadlines(now);
        let mut outputs = self.shared.out.take();
        outputs.retain(|output| match output {
            Output::IdentityMismatch(peer, _) => self.told.is_new(peer, "mismatch"),
            Output::Declined(peer, _) => self.told.is_new(peer, "declined"),
            Output::Unbound(peer, what) => self.told.is_new(peer, what),
            _ => true,
        });
        for output in &outputs {
            trace!(?output, "out");
        }
        outputs
    }

    /// When [`Input::Deadline`] is wanted next. `None` while nothing is
    /// outstanding, and while the link is down.
    pub fn next_deadline(&self) -> Option<Duration> {
        if !self.shared.out.connected {
            return None;
        }
        let sessions = self.deadlines.order.first().map(|(at, _)| *at);
        let discoveries = self.discoveries.values().filter_map(Discovery::due_at).min();
        [sessions, discoveries, self.shared.subscriptions.next_deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    // ------------------------------------------------------------ the link

    fn on_link_up(&mut self, now: Now) {
        let Shared { out, voice, subscriptions, rng, .. } = &mut self.shared;
        out.connected = true;
        // Without one the node may refuse us, but everything else goes on.
        let token = voice.token(now, rng).unwrap_or_default();
        if subscriptions.knows_application() {
            subscriptions.resume(now.at, out, &token);
        } else {
            let (local, owner) = (&self.local, Owner::Application);
            subscriptions.subscribe(now.at, out, local, local, owner, token);
        }
        self.each_session(now, Session::on_link_up);
    }

    fn on_link_down(&mut self, now: Now) {
        self.shared.out.connected = false;
        self.each_session(now, Session::on_link_down);
    }

    fn on_link_gone(&mut self, now: Now) {
        self.on_link_down(now);
        self.each_session(now, Session::on_link_gone);
    }

    fn each_session(&mut self, now: Now, act: impl Fn(&mut Session, &mut Context<'_>)) {
        for (id, session) in &mut self.sessions {
            act(session, &mut self.shared.context(now));
            self.deadlines.set(*id, session.next_deadline());
        }
    }

    fn with_session(
        &mut self,
        now: Now,
        id: SessionId,
        act: impl FnOnce(&mut Session, &mut Context<'_>),
    ) {
        if let Some(session) = self.sessions.get_mut(&id) {
            act(session, &mut self.shared.context(now));
            self.deadlines.set(id, session.next_deadline());
        }
    }

    // ------------------------------------------------------------ the application

    fn on_command(&mut self, now: Now, request: RequestId, command: Command) {
        let id = match command {
            Command::CreateGroup { channel, config } => {
                return self.create_group(now, request, &channel, config);
            }
            Command::CreateP2p { peer, config } => {
                return self.create_p2p(now, request, peer, config);
            }
            Command::Invite { session, .. }
            | Command::Remove { session, .. }
            | Command::Publish { session, .. }
            | Command::State { session }
            | Command::Flush { session }
            | Command::SetPresence { session, .. }
            | Command::Close { session } => session,
        };
        if self.sessions.contains_key(&id) {
            self.with_session(now, id, |session, cx| session.on_command(cx, request, command));
        } else {
            refuse(&mut self.shared.context(now), request, &command);
        }
    }

    fn create_group(
        &mut self,
        now: Now,
        request: RequestId,
        channel: &Name,
        config: SessionConfig,
    ) {
        let channels = channel.channels(self.shared.voice.subject());
        let remote = channels.data.clone();
        let Some(info) = self.new_session(now, request, SessionType::Multicast, remote, &config)
        else {
            return;
        };
        let setup = self.setup(info.clone(), Some(channels), config.timers);
        let session = Session::create(setup, &mut self.shared.context(now));
        self.shared.out.done(request, Done::Created(Ok(info)));
        self.add_session(session);
    }

    fn create_p2p(&mut self, now: Now, request: RequestId, peer: Name, config: SessionConfig) {
        let kind = SessionType::PointToPoint;
        let Some(info) = self.new_session(now, request, kind, peer.clone(), &config) else {
            return;
        };
        let setup = self.setup(info, None, config.timers);
        let cx = &mut self.shared.context(now);
        let mut session = Session::create(setup, cx);
        session.call(cx, request, peer);
        self.add_session(session);
    }

    /// What is known of a session that we create; `None` if it may not be.
    fn new_session(
        &mut self,
        now: Now,
        request: RequestId,
        session_type: SessionType,
        remote: Name,
        config: &SessionConfig,
    ) -> Option<SessionInfo> {
        if self.sessions.len() >= MAX_SESSIONS {
            let error = CreateError::TooManySessions { limit: MAX_SESSIONS };
            self.shared.context(now).out.done(request, Done::Created(Err(error)));
            return None;
        }
        let id = loop {
            let id = SessionId(self.shared.rng.random_range(0..SessionId::LIMIT));
            if !self.sessions.contains_key(&id) {
                break id;
            }
        };
        let mut metadata = config.metadata.clone();
        metadata.retain(|key, _| !canonical::is_reserved(key));
        Some(SessionInfo {
            id,
            session_type,
            role: Role::Moderator,
            local: self.local.clone(),
            remote,
            mls: config.mls,
            reliable: config.timers.is_some(),
            metadata,
        })
    }

    fn setup(
        &self,
        info: SessionInfo,
        channels: Option<Channels>,
        timers: Option<Timers>,
    ) -> Setup {
        let EndpointConfig { sends_data, receives_data, .. } = self.config;
        Setup { info, channels, timers, sends_data, receives_data }
    }

    fn add_session(&mut self, session: Session) {
        let id = session.info().id;
        self.deadlines.set(id, session.next_deadline());
        self.sessions.insert(id, session);
    }

    // ------------------------------------------------------------ the network

    fn on_message(&mut self, now: Now, message: Message) {
        match message {
            Message::Publish(publish) => self.on_publish(now, publish),
            Message::SubscriptionAck(ack) => {
                if let Some(outcome) =
                    self.shared.subscriptions.on_ack(ack.subscription_id, ack.result)
                {
                    self.on_subscribed(now, &outcome);
                }
            }
            // A client contains no router: routes towards others mean nothing here.
            Message::Subscribe(_) | Message::Unsubscribe(_) | Message::Link(_) => {
                debug!("not for an application");
            }
        }
    }

    fn on_subscribed(&mut self, now: Now, outcome: &Outcome) {
        match (outcome.owner, &outcome.result) {
            (Owner::Application, Ok(())) => {
                self.shared.out.push(Output::Ready);
            }
            (Owner::Application, Err(reason)) => {
                self.shared.out.push(Output::NotReady(reason.clone()));
            }
            (Owner::Session(id), result) => {
                self.with_session(now, id, |session, cx| session.on_subscribed(cx, result));
            }
        }
    }

    fn on_publish(&mut self, now: Now, mut publish: Publish) {
        // Only a receiver sets this, for its own application.
        publish.metadata.remove(canonical::PEER_SUBJECT);
        if publish.header.source.route() == self.local.route() {
            return;
        }
        let id = publish.session_id;
        let session = self.sessions.get(&id);
        let is_open = session.is_some_and(|session| !session.is_over());
        // An invitation that came to nothing is tried again from the start.
        let is_in = is_open && !session.is_some_and(Session::is_invited);
        match publish.body {
            Body::Command(Wire::DiscoveryRequest) if !is_in => self.on_discovery(now, publish),
            Body::Command(Wire::JoinRequest(_)) if !is_open => self.on_invitation(now, publish),
            _ => self.with_session(now, id, |session, cx| session.on_publish(cx, publish)),
        }
    }

    /// Whether a message is for us, under the name that it was sent to.
    fn is_addressed(&self, destination: &Name) -> bool {
        let id = destination.id();
        destination.same_app(&self.local) && (id.is_any() || id == self.local.id())
    }

    fn pass(&mut self, now: Now, publish: Publish) -> Option<Authentic> {
        let (source, id) = (publish.header.source.clone(), publish.session_id);
        let (kind, message_id) = (publish.session_type, publish.message_id);
        let Shared { gate, out, .. } = &mut self.shared;
        match gate.authenticate(out, publish, now.unix) {
            Ok(message) => Some(message),
            Err(refusal) => {
                debug!(%source, %refusal, "invitation refused");
                if let Some(reason) = refusal.in_words() {
                    // Said to both sides: our application, and the moderator, for
                    // whom a nack under our identity may be as unreadable as its
                    // request is for us.
                    if let Refusal::Token(error) = &refusal
                        && self.next_nack_at <= now.at
                    {
                        self.next_nack_at = now.at + NACK_INTERVAL;
                        let why = (canonical::REFUSAL, error.to_string());
                        self.nack(now, kind, id, message_id, &source, why);
                    }
                    self.shared.out.push(Output::IdentityMismatch(source, reason));
                }
                None
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one message")]
    fn reply(
        &mut self,
        now: Now,
        session_type: SessionType,
        session_id: SessionId,
        message_id: u32,
        source: Name,
        destination: &Name,
        command: Wire,
    ) {
        let publish = Publish {
            header: Header::new(source, destination.clone(), UNICAST),
            session_type,
            session_id,
            message_id,
            body: Body::Command(command),
            metadata: BTreeMap::new(),
        };
        self.send(now, publish);
    }

    /// Refuses an invitation, in words.
    fn nack(
        &mut self,
        now: Now,
        session_type: SessionType,
        session_id: SessionId,
        message_id: u32,
        to: &Name,
        (key, words): (&str, String),
    ) {
        let nack = Publish {
            header: Header::new(self.local.clone(), to.clone(), UNICAST),
            session_type,
            session_id,
            message_id,
            body: Body::Command(Wire::GroupNack),
            metadata: BTreeMap::from([(key.to_owned(), words)]),
        };
        self.send(now, nack);
    }

    fn send(&mut self, now: Now, publish: Publish) {
        let Shared { out, voice, rng, .. } = &mut self.shared;
        if let Some(message) = voice.finish(publish, now, rng) {
            out.send(message);
        }
    }

    /// Somebody asks whether we are there.
    fn on_discovery(&mut self, now: Now, publish: Publish) {
        if !self.is_addressed(&publish.header.destination) || self.is_full() {
            return;
        }
        let Some(message) = self.pass(now, publish) else { return };
        let asked = Asked {
            local: message.destination.with_id(self.local.id()),
            source: message.source,
            session_type: message.session_type,
            message_id: message.message_id,
        };
        self.forget_discoveries(now);
        let key = (message.session_id, asked.source.route());
        if let Some(known) = self.discoveries.get_mut(&key) {
            let due_at = known.copy.take().map_or(now.at + DISCOVERY_COPY_DELAY, |(at, _)| at);
            known.copy = Some((due_at, asked));
            return;
        }
        self.discoveries.insert(key, Discovery { at: now.at, copy: None });
        self.answer_discovery(now, message.session_id, asked);
    }

    fn answer_discovery(&mut self, now: Now, id: SessionId, asked: Asked) {
        let Asked { source, local, session_type, message_id } = asked;
        self.reply(now, session_type, id, message_id, local, &source, Wire::DiscoveryReply);
    }

    fn forget_discoveries(&mut self, now: Now) {
        self.discoveries.retain(|_, known| now.at.saturating_sub(known.at) < DISCOVERY_MEMORY);
        if self.discoveries.len() >= MAX_DISCOVERIES {
            let oldest = self.discoveries.iter().min_by_key(|(_, known)| known.at);
            if let Some(key) = oldest.map(|(key, _)| *key) {
                self.discoveries.remove(&key);
            }
        }
    }

    /// Somebody invites us.
    fn on_invitation(&mut self, now: Now, publish: Publish) {
        if publish.header.destination.id() != self.local.id()
            || !self.is_addressed(&publish.header.destination)
            || self.is_full()
        {
            return;
        }
        let Some(message) = self.pass(now, publish) else { return };
        let Wire::JoinRequest(request) = &message.command else { return };
        let remote = match (message.session_type, &request.channels) {
            (SessionType::PointToPoint, None) => message.source.clone(),
            (SessionType::Multicast, Some(channels))
                if is_own_channel(&message, channels) || self.lets_through(&message.source) =>
            {
                channels.data.clone()
            }
            _ => {
                return warn!(source = %message.source, "invitation to a channel that is not its own");
            }
        };
        let mut metadata = message.metadata.clone();
        metadata.retain(|key, _| !canonical::is_reserved(key));
        let info = SessionInfo {
            id: message.session_id,
            session_type: message.session_type,
            role: Role::Participant,
            local: message.destination.clone(),
            remote,
            mls: request.mls_aad_percent.is_some(),
            reliable: request.timer_settings.is_some(),
            metadata,
        };
        let (source, subject) = (&message.source, &message.claims.subject);
        let invitation = Invitation { from: source, subject, session: &info };
        if let Err(reason) = self.config.invitations.decide(&invitation) {
            debug!(%source, %reason, "invitation declined");
            let (kind, id) = (message.session_type, message.session_id);
            let why = (canonical::DECLINED, reason.clone());
            self.nack(now, kind, id, message.message_id, source, why);
            return self.shared.out.push(Output::Declined(source.clone(), reason));
        }
        let timers = request.timer_settings.map(|settings| Timers {
            timeout: Duration::from_millis(settings.timeout_ms.max(1).into()),
            max_retries: settings.max_retries,
        });
        let (kind, id) = (MessageType::JoinRequest, message.message_id);
        if self.invitations.recall(&message.source, kind, id).is_some() {
            return debug!(source = %message.source, "invitation of a session that is over");
        }
        self.invitations.remember(&message.source, kind, id, None);
        self.discoveries.remove(&(message.session_id, message.source.route()));
        let before = self.sessions.remove(&message.session_id).map(Session::into_memory);
        let setup = self.setup(info, request.channels.clone(), timers);
        let session = Session::invited(
            setup,
            &mut self.shared.context(now),
            &message,
            before.unwrap_or_default(),
        );
        self.add_session(session);
    }

    /// Whether somebody may invite to a channel that is not its own.
    fn lets_through(&mut self, moderator: &Name) -> bool {
        let Shared { gate, out, .. } = &mut self.shared;
        gate.lets_through(out, moderator, Unbound::Channel)
    }

    fn is_full(&self) -> bool {
        let full = self.sessions.len() >= MAX_SESSIONS;
        if full {
            warn!(limit = MAX_SESSIONS, "invitation ignored: too many sessions");
        }
        full
    }

    // ------------------------------------------------------------ time

    fn on_deadlines(&mut self, now: Now) {
        if !self.shared.out.connected {
            return;
        }
        let failed = self.shared.subscriptions.due(now.at, &mut self.shared.out);
        for outcome in failed {
            self.on_subscribed(now, &outcome);
        }
        let due = |known: &Discovery| known.due_at().is_some_and(|at| at <= now.at);
        let keys: Vec<_> =
            self.discoveries.iter().filter(|(_, known)| due(known)).map(|(key, _)| *key).collect();
        for key in keys {
            let copy = self.discoveries.get_mut(&key).and_then(|known| known.copy.take());
            if let Some((_, asked)) = copy {
                self.answer_discovery(now, key.0, asked);
            }
        }
        while let Some(&(at, id)) = self.deadlines.order.first()
            && at <= now.at
        {
            let Some(session) = self.sessions.get_mut(&id) else {
                self.deadlines.set(id, None);
                continue;
            };
            if session.is_forgotten(now.at) {
                self.sessions.remove(&id);
                self.deadlines.set(id, None);
                continue;
            }
            session.on_deadline(&mut self.shared.context(now));
            let next = session.next_deadline();
            debug_assert!(next.is_none_or(|next| next > now.at), "{id} wants the past");
            // Never again within the same input, whatever a session wants.
            self.deadlines.set(id, next.map(|next| next.max(now.at + Duration::from_millis(1))));
        }
    }
}

impl Discovery {
    fn due_at(&self) -> Option<Duration> {
        self.copy.as_ref().map(|(at, _)| *at)
    }
}

/// Whether the channel of an invitation belongs to who invites: its ids follow
/// from the moderator's subject.
fn is_own_channel(message: &Authentic, channels: &Channels) -> bool {
    *channels == channels.data.without_id().channels(&message.claims.subject)
}
