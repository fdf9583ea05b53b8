//! Engines, a node that is a table, and a clock; and what has to hold whatever
//! happens.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::mem::{Discriminant, discriminant};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use rand::{SeedableRng as _, rngs::StdRng};
use slim_auth::SharedSecret;
use slim_proto::{
    MAX_MESSAGE_LEN, Message, Name, Publish, RouteName, SessionId, SubscriptionAck, UNICAST,
};
use slim_session::{
    Command, Done, Endpoint, EndpointConfig, Input, Now, Output, ParticipantChange, RequestId,
    Role, SessionConfig, SessionEvent, SessionInfo,
};

/// A moderator and two more.
pub(crate) const APPS: usize = 3;

pub(crate) const SECRET: &str = "a secret of at least thirty-two bytes";

/// Frames on their way; beyond it, the oldest is lost.
const MAX_QUEUED: usize = 1000;

/// Frames that can be sent again.
const MAX_RECORDED: usize = 256;

/// Deadlines in one step, so that a run comes to its end. What is skipped is late.
const MAX_DEADLINES: usize = 2000;

/// What may pass in all steps together.
const MAX_TIME: Duration = Duration::from_secs(300);

/// Outputs of one input, at most.
const MAX_OUTPUTS: usize = 10_000;

/// How long closing a session may take.
const CLOSED: Duration = Duration::from_secs(6);

/// What a closed session may take until nothing is left of it.
const FORGOTTEN: Duration = Duration::from_secs(200);

/// One application.
pub(crate) struct App {
    endpoint: Endpoint,
    pub(crate) name: Name,
    pub(crate) identity: Arc<SharedSecret>,
    is_linked: bool,
    is_gone: bool,
    /// Seconds that its wall clock is ahead.
    ahead: i64,
    sessions: BTreeMap<SessionId, View>,
    /// Commands without an outcome.
    pending: BTreeMap<u64, Discriminant<Command>>,
}

/// A session as its application sees it.
struct View {
    info: SessionInfo,
    is_open: bool,
    /// Payloads that came, by their sender.
    heard: BTreeMap<RouteName, BTreeSet<Bytes>>,
}

pub(crate) struct World {
    pub(crate) apps: Vec<App>,
    pub(crate) hostile: usize,
    /// Somebody showed a token for a subject that is not its own, which a shared
    /// secret lets its holders make. From then on nobody is who it says.
    pub(crate) is_anybody: bool,
    is_prompt: bool,
    at: Duration,
    unix: u64,
    table: BTreeMap<RouteName, BTreeSet<usize>>,
    queue: VecDeque<(usize, Message)>,
    /// Publishes that an engine sent.
    recorded: VecDeque<Publish>,
    sessions: Vec<SessionId>,
    /// Who published which payload.
    published: BTreeMap<Bytes, RouteName>,
    next_payload: u32,
    next_request: u64,
}

impl World {
    pub(crate) fn new(hostile: usize, is_prompt: bool) -> Self {
        // MLS compares lifetimes with the clock of the system.
        let today = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        let mut world = Self {
            apps: ["mod", "alice", "bob"]
                .iter()
                .zip(1..)
                .map(|(app, seed)| App::new(app, seed))
                .collect(),
            hostile: hostile % APPS,
            is_anybody: false,
            is_prompt,
            at: Duration::ZERO,
            unix: today.as_secs() - 24 * 3600,
            table: BTreeMap::new(),
            queue: VecDeque::new(),
            recorded: VecDeque::new(),
            sessions: Vec::new(),
            published: BTreeMap::new(),
            next_payload: 0,
            next_request: 0,
        };
        for app in 0..APPS {
            world.input(app, Input::LinkUp);
        }
        world.deliver_all();
        world
    }

    /// The first creates a session, and everybody joins.
    pub(crate) fn start(&mut self, config: SessionConfig, is_p2p: bool) {
        if is_p2p {
            let peer = self.name(1).without_id();
            self.command(0, Command::CreateP2p { peer, config });
            self.deliver_all();
            return;
        }
        let channel = self.channel();
        self.command(0, Command::CreateGroup { channel, config });
        self.deliver_all();
        for app in 1..APPS {
            let (session, name) = (self.session(0), self.name(app).without_id());
            self.command(0, Command::Invite { session, name });
            self.deliver_all();
        }
    }

    // ------------------------------------------------------------ what there is

    pub(crate) fn name(&self, app: usize) -> Name {
        self.apps[app].name.clone()
    }

    pub(crate) fn channel(&self) -> Name {
        "org/fuzz/channel".parse().expect("a name")
    }

    /// One of the sessions that there are or were.
    pub(crate) fn session(&self, which: u8) -> SessionId {
        let which = usize::from(which) % (self.sessions.len() + 1);
        self.sessions.get(which).copied().unwrap_or(SessionId(4711))
    }

    /// One of the publishes that were sent, counted from the latest.
    pub(crate) fn recorded(&self, which: u8) -> Option<&Publish> {
        let count = self.recorded.len().max(1);
        self.recorded.iter().rev().nth(usize::from(which) % count)
    }

    /// All that were sent, the latest first.
    pub(crate) fn all_recorded(&self) -> impl Iterator<Item = &Publish> {
        self.recorded.iter().rev()
    }

    /// A payload that nobody has published.
    pub(crate) fn payload(&mut self, length: usize) -> Bytes {
        self.next_payload += 1;
        let mut payload = self.next_payload.to_be_bytes().to_vec();
        payload.resize(4 + length, 7);
        payload.into()
    }

    pub(crate) fn now(&self, app: usize) -> Now {
        let unix = self.unix + self.at.as_secs();
        Now { at: self.at, unix: unix.saturating_add_signed(self.apps[app].ahead) }
    }

    // ------------------------------------------------------------ what happens

    pub(crate) fn command(&mut self, app: usize, command: Command) {
        let request = self.next_request;
        self.next_request += 1;
        if let Command::Publish { message, .. } = &command {
            let route = self.apps[app].name.route();
            self.published.insert(message.payload.clone(), route);
        }
        self.apps[app].pending.insert(request, discriminant(&command));
        self.input(app, Input::Command(RequestId(request), command));
    }

    pub(crate) fn set_clock(&mut self, app: usize, ahead: i32) {
        self.apps[app].ahead = ahead.into();
    }

    /// A message arrives, as bytes.
    pub(crate) fn receive(&mut self, app: usize, message: Message) {
        let bytes = message.encode();
        if bytes.len() <= MAX_MESSAGE_LEN
            && let Ok(message) = Message::decode(bytes)
        {
            self.input(app, Input::Received(message));
        }
    }

    pub(crate) fn deliver(&mut self, which: usize) {
        let which = which % self.queue.len().max(1);
        if let Some((to, message)) = self.queue.remove(which) {
            self.receive(to, message);
        }
    }

    pub(crate) fn deliver_all(&mut self) {
        for _ in 0..10 * MAX_QUEUED {
            let Some((to, message)) = self.queue.pop_front() else { return };
            self.receive(to, message);
        }
        panic!("it never gets quiet");
    }

    pub(crate) fn lose(&mut self, which: usize) {
        let which = which % self.queue.len().max(1);
        self.queue.remove(which);
    }

    /// After each step.
    pub(crate) fn settle(&mut self) {
        if self.is_prompt {
            self.deliver_all();
        }
    }

    /// Lets time pass, as long as there is some left.
    pub(crate) fn pass(&mut self, time: Duration) {
        self.advance(time.min(MAX_TIME.saturating_sub(self.at)));
    }

    fn advance(&mut self, time: Duration) {
        let end = self.at + time;
        for _ in 0..MAX_DEADLINES {
            let next = (0..APPS).filter_map(|app| Some((self.deadline(app)?, app))).min();
            let Some((at, app)) = next.filter(|(at, _)| *at <= end) else { break };
            self.at = self.at.max(at);
            self.input(app, Input::Deadline);
            self.settle();
        }
        self.at = end;
        for app in 0..APPS {
            self.input(app, Input::Deadline);
            self.settle();
        }
    }

    fn deadline(&self, app: usize) -> Option<Duration> {
        self.apps[app].endpoint.next_deadline()
    }

    // ------------------------------------------------------------ one engine

    pub(crate) fn input(&mut self, app: usize, input: Input) {
        match input {
            Input::LinkGone => self.apps[app].is_gone = true,
            // A driver dials no more after that.
            _ if self.apps[app].is_gone && matches!(input, Input::LinkUp) => return,
            _ => {}
        }
        match input {
            Input::LinkUp => self.apps[app].is_linked = true,
            Input::LinkDown | Input::LinkGone => {
                self.apps[app].is_linked = false;
                self.table.values_mut().for_each(|holders| holders.retain(|holder| *holder != app));
            }
            // Nothing comes without a link.
            Input::Received(_) if !self.apps[app].is_linked => return,
            _ => {}
        }
        let now = self.now(app);
        let outputs = self.apps[app].endpoint.handle(now, input);
        assert!(outputs.len() <= MAX_OUTPUTS, "{} outputs at once", outputs.len());
        let deadline = self.deadline(app);
        assert!(deadline.is_none_or(|at| at > self.at), "{deadline:?} at {:?}", self.at);
        for output in outputs {
            self.on_output(app, output);
        }
    }

    fn on_output(&mut self, app: usize, output: Output) {
        match output {
            Output::Send(message) => {
                assert!(self.apps[app].is_linked, "sends without a link");
                self.route(app, message);
            }
            Output::Done(request, done) => {
                let asked = self.apps[app].pending.remove(&request.0);
                let asked = asked.expect("one outcome of what was asked");
                assert!(fits(asked, &done), "{done:?}");
                if let Done::Created(Ok(info)) = done {
                    assert_eq!(info.role, Role::Moderator);
                    self.opened(app, info);
                }
            }
            Output::Session(info) => {
                assert_eq!(info.role, Role::Participant);
                self.opened(app, info);
            }
            Output::Event(session, event) => self.on_event(app, session, event),
            Output::Accepted(request) => {
                assert!(self.apps[app].pending.contains_key(&request.0));
            }
            Output::Ready
            | Output::NotReady(_)
            | Output::IdentityMismatch(..)
            | Output::Declined(..)
            | Output::Unbound(..) => {}
        }
    }

    fn opened(&mut self, app: usize, info: SessionInfo) {
        if !self.sessions.contains(&info.id) {
            self.sessions.push(info.id);
        }
        let view = View { info, is_open: true, heard: BTreeMap::new() };
        let before = self.apps[app].sessions.insert(view.info.id, view);
        assert!(before.is_none_or(|view| !view.is_open), "it was open already");
    }

    fn on_event(&mut self, app: usize, session: SessionId, event: SessionEvent) {
        let honest = |route: &RouteName| {
            let of = self.apps.iter().position(|other| other.name.route() == *route);
            of.is_some_and(|of| of != self.hostile)
        };
        let is_trusted = !self.is_anybody && app != self.hostile && self.hostile != 0;
        let check = match &event {
            SessionEvent::Message(message) => is_trusted && honest(&message.source.route()),
            _ => false,
        };
        let view = self.apps[app].sessions.get_mut(&session).expect("a session that was told");
        assert!(view.is_open, "nothing follows the end");
        match event {
            SessionEvent::Closed { .. } => view.is_open = false,
            SessionEvent::Message(message) if check && view.info.mls => {
                let (source, payload) = (message.source.route(), message.payload);
                assert_eq!(self.published.get(&payload), Some(&source), "it did not say that");
                let is_new = view.heard.entry(source).or_default().insert(payload);
                assert!(is_new || !view.info.reliable, "it comes twice");
            }
            SessionEvent::Participant { name, change } => match change {
                ParticipantChange::Joined
                | ParticipantChange::Left
                | ParticipantChange::Removed => {
                    view.heard.remove(&name.route());
                }
                ParticipantChange::Online | ParticipantChange::Offline => {}
            },
            SessionEvent::Message(_) | SessionEvent::MessageLost { .. } => {}
        }
    }

    // ------------------------------------------------------------ the node

    fn route(&mut self, from: usize, message: Message) {
        assert!(message.encoded_len() <= MAX_MESSAGE_LEN, "longer than any link takes");
        let mut answer = None;
        match message {
            Message::Subscribe(subscription) => {
                let name = subscription.header.destination.route();
                self.table.entry(name).or_default().insert(from);
                answer = Some(subscription.subscription_id);
            }
            Message::Unsubscribe(subscription) => {
                let name = subscription.header.destination.route();
                self.table.entry(name).or_default().remove(&from);
                answer = Some(subscription.subscription_id);
            }
            Message::Publish(publish) => {
                let target = publish.header.destination.route();
                let holders: BTreeSet<usize> = (self.table.iter())
                    .filter(|(name, _)| match target.id.is_any() {
                        true => name.components == target.components,
                        false => **name == target,
                    })
                    .flat_map(|(_, holders)| holders.iter().copied())
                    .filter(|holder| *holder != from)
                    .collect();
                let limit = if publish.header.fanout == UNICAST { 1 } else { APPS };
                for to in holders.into_iter().take(limit) {
                    self.send(to, Message::Publish(publish.clone()));
                }
                self.recorded.push_back(publish);
                if self.recorded.len() > MAX_RECORDED {
                    self.recorded.pop_front();
                }
            }
            Message::Link(_) | Message::SubscriptionAck(_) => panic!("not an engine's to send"),
        }
        if let Some(subscription_id) = answer {
            let ack = SubscriptionAck { subscription_id, result: Ok(()) };
            self.send(from, Message::SubscriptionAck(ack));
        }
    }

    fn send(&mut self, to: usize, message: Message) {
        self.queue.push_back((to, message));
        if self.queue.len() > MAX_QUEUED {
            self.queue.pop_front();
        }
    }

    // ------------------------------------------------------------ the end

    /// Whatever was done to them: with links, and after they were closed, nothing
    /// is outstanding and nothing is left.
    pub(crate) fn finish(&mut self) {
        self.is_prompt = true;
        for app in 0..APPS {
            if !self.apps[app].is_linked {
                self.input(app, Input::LinkUp);
            }
        }
        self.settle();
        // Whoever was being invited may only join now.
        for _ in 0..2 {
            self.advance(CLOSED);
            for app in 0..APPS {
                let open = self.apps[app].sessions.values().filter(|view| view.is_open);
                let open: Vec<SessionId> = open.map(|view| view.info.id).collect();
                for session in open {
                    self.command(app, Command::Close { session });
                }
            }
            self.settle();
        }
        self.advance(FORGOTTEN);
        for app in self.apps.iter().filter(|app| !app.is_gone) {
            let name = &app.name;
            assert!(app.pending.is_empty(), "{name}: {:?} have no outcome", app.pending);
            assert!(app.sessions.values().all(|view| !view.is_open), "{name} has a session open");
            assert_eq!(app.endpoint.session_count(), 0, "{name} keeps sessions");
            assert_eq!(app.endpoint.next_deadline(), None, "{name} waits for something");
        }
    }
}

impl App {
    fn new(app: &str, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let text = format!("org/fuzz/{app}");
        let identity = SharedSecret::new(&text, SECRET, &mut rng).expect("an identity");
        let identity = Arc::new(identity);
        let config = EndpointConfig::new(text.parse().expect("a name"), seed);
        let endpoint = Endpoint::new(config, identity.clone(), identity.clone());
        Self {
            name: endpoint.name().clone(),
            endpoint,
            identity,
            is_linked: false,
            is_gone: false,
            ahead: 0,
            sessions: BTreeMap::new(),
            pending: BTreeMap::new(),
        }
    }
}

/// Whether an outcome is one of this kind of command.
fn fits(asked: Discriminant<Command>, done: &Done) -> bool {
    let session = SessionId(0);
    let name = || "a/b/c".parse().expect("a name");
    let config = SessionConfig::default;
    let asked_for = |command: Command| asked == discriminant(&command);
    match done {
        Done::Created(_) => {
            asked_for(Command::CreateGroup { channel: name(), config: config() })
                || asked_for(Command::CreateP2p { peer: name(), config: config() })
        }
        Done::Invited(_) => asked_for(Command::Invite { session, name: name() }),
        Done::Removed(_) => asked_for(Command::Remove { session, name: name() }),
        Done::Published(_) => {
            asked_for(Command::Publish { session, message: slim_session::Outgoing::default() })
        }
        Done::State(_) => asked_for(Command::State { session }),
        Done::Flushed => asked_for(Command::Flush { session }),
        Done::Presence(_) => asked_for(Command::SetPresence { session, online: true }),
        Done::Closed => asked_for(Command::Close { session }),
    }
}
