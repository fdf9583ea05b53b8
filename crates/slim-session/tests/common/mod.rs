//! A world in one thread: engines, a node that is a table, and a clock that only
//! moves when told. Messages travel as bytes.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use rand::{SeedableRng, rngs::StdRng};
use slim_auth::{Identity, SharedSecret};
use slim_proto::{
    Body, Header, Message, MessageType, Name, NameId, Publish, RouteName, SessionId, SessionType,
    SubscriptionAck, UNICAST, canonical,
};
use slim_session::{
    Command, Done, Endpoint, EndpointConfig, Input, Now, Outgoing, Output, ParticipantChange,
    ReceivedMessage, RequestId, SessionConfig, SessionEvent, SessionInfo,
};

pub(crate) const SECRET: &str = "a secret of at least thirty-two bytes";
pub(crate) const CHANNEL: &str = "org/test/channel";

/// What an application has seen.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) endpoint: Endpoint,
    pub(crate) identity: Arc<SharedSecret>,
    pub(crate) name: Name,
    pub(crate) ready: bool,
    pub(crate) invited: Vec<SessionInfo>,
    pub(crate) events: Vec<(SessionId, SessionEvent)>,
    pub(crate) done: BTreeMap<u64, Done>,
    pub(crate) accepted: Vec<u64>,
    pub(crate) mismatches: Vec<Name>,
    pub(crate) declined: Vec<Name>,
    pub(crate) unbound: Vec<(Name, &'static str)>,
    /// Cut off from the node, without being told.
    pub(crate) deaf: bool,
}

type Filter = Box<dyn FnMut(usize, usize, &Message) -> bool>;

/// Everything.
pub(crate) struct World {
    pub(crate) apps: Vec<App>,
    pub(crate) at: Duration,
    pub(crate) unix: u64,
    table: BTreeMap<RouteName, Vec<usize>>,
    /// On their way, to whom.
    queue: VecDeque<(usize, usize, Message)>,
    /// Gives false for what is to be lost between two applications.
    pub(crate) filter: Option<Filter>,
    /// All publishes that were sent: from, what.
    pub(crate) sent: Vec<(usize, Publish)>,
    next_request: u64,
    /// Of several holders of a name, the last is the one for a unicast.
    pub(crate) prefer_last: bool,
    /// The node refuses subscriptions of channels (no identity in them).
    pub(crate) refuse_channels: bool,
    /// The node refuses everything.
    pub(crate) refuse_all: bool,
    /// Acks stay under way until it is false again.
    pub(crate) hold_acks: bool,
    held: Vec<(usize, Message)>,
}

impl World {
    /// Applications with these names, all with the same secret, and connected.
    pub(crate) fn new(names: &[&str]) -> Self {
        let mut world = Self {
            apps: Vec::new(),
            at: Duration::ZERO,
            unix: yesterday(),
            table: BTreeMap::new(),
            queue: VecDeque::new(),
            filter: None,
            sent: Vec::new(),
            next_request: 0,
            prefer_last: false,
            refuse_channels: false,
            refuse_all: false,
            hold_acks: false,
            held: Vec::new(),
        };
        for name in names {
            world.add(name, SECRET);
        }
        world.run();
        world
    }

    pub(crate) fn add(&mut self, name: &str, secret: &str) -> usize {
        let seed = self.apps.len() as u64 + 1;
        let mut rng = StdRng::seed_from_u64(seed);
        let text = format!("org/test/{name}");
        let identity = Arc::new(SharedSecret::new(&text, secret, &mut rng).unwrap());
        let config = EndpointConfig::new(text.parse().unwrap(), seed);
        let endpoint = Endpoint::new(config, identity.clone(), identity.clone());
        self.apps.push(App {
            name: endpoint.name().clone(),
            endpoint,
            identity,
            ready: false,
            invited: Vec::new(),
            events: Vec::new(),
            done: BTreeMap::new(),
            accepted: Vec::new(),
            mismatches: Vec::new(),
            declined: Vec::new(),
            unbound: Vec::new(),
            deaf: false,
        });
        let index = self.apps.len() - 1;
        self.input(index, Input::LinkUp);
        index
    }

    pub(crate) fn now(&self) -> Now {
        Now { at: self.at, unix: self.unix + self.at.as_secs() }
    }

    pub(crate) fn name(&self, app: usize) -> Name {
        self.apps[app].name.clone()
    }

    // ------------------------------------------------------------ in

    pub(crate) fn input(&mut self, app: usize, input: Input) {
        let now = self.now();
        let outputs = self.apps[app].endpoint.handle(now, input);
        for output in outputs {
            let seen = &mut self.apps[app];
            match output {
                Output::Send(message) => self.route(app, message),
                Output::Ready => seen.ready = true,
                Output::NotReady(_) => seen.ready = false,
                Output::Accepted(request) => seen.accepted.push(request.0),
                Output::Done(request, done) => {
                    let before = seen.done.insert(request.0, done);
                    assert!(before.is_none(), "two outcomes of one request");
                }
                Output::Session(info) => seen.invited.push(info),
                Output::Event(session, event) => seen.events.push((session, event)),
                Output::IdentityMismatch(peer, _) => seen.mismatches.push(peer),
                Output::Declined(peer, _) => seen.declined.push(peer),
                Output::Unbound(peer, what) => seen.unbound.push((peer, what)),
            }
        }
    }

    /// Gives a command; its outcome is under the returned number.
    pub(crate) fn command(&mut self, app: usize, command: Command) -> u64 {
        let request = self.next_request;
        self.next_request += 1;
        self.input(app, Input::Command(RequestId(request), command));
        request
    }

    // ------------------------------------------------------------ the node

    fn route(&mut self, from: usize, message: Message) {
        if self.apps[from].deaf {
            return;
        }
        match message {
            Message::Subscribe(subscription)
                if self.refuse_all
                    || self.refuse_channels && subscription.header.identity.is_empty() =>
            {
                let result = Err("full".to_owned());
                let subscription_id = subscription.subscription_id;
                let ack = SubscriptionAck { subscription_id, result };
                self.queue.push_back((from, from, Message::SubscriptionAck(ack)));
            }
            Message::Subscribe(subscription) => {
                let name = subscription.header.destination.route();
                let holders = self.table.entry(name).or_default();
                if !holders.contains(&from) {
                    holders.push(from);
                }
                self.ack(from, subscription.subscription_id);
            }
            Message::Unsubscribe(subscription) => {
                let name = subscription.header.destination.route();
                self.table.entry(name).or_default().retain(|holder| *holder != from);
                self.ack(from, subscription.subscription_id);
            }
            Message::Publish(publish) => {
                let target = publish.header.destination.route();
                let mut holders: Vec<usize> = (self.table.iter())
                    .filter(|(name, _)| match target.id.is_any() {
                        true => name.components == target.components,
                        false => **name == target,
                    })
                    .flat_map(|(_, holders)| holders.iter().copied())
                    .filter(|holder| *holder != from)
                    .collect();
                holders.sort_unstable();
                holders.dedup();
                if self.prefer_last {
                    holders.reverse();
                }
                if publish.header.fanout == UNICAST {
                    holders.truncate(1);
                }
                self.sent.push((from, publish.clone()));
                for to in holders {
                    let message = Message::Publish(publish.clone());
                    self.queue.push_back((from, to, message));
                }
            }
            other => panic!("{other:?}"),
        }
    }

    /// The node lost an application's link.
    pub(crate) fn forget(&mut self, app: usize) {
        self.table.values_mut().for_each(|holders| holders.retain(|holder| *holder != app));
    }

    /// Delivers the acks that were held.
    pub(crate) fn release_acks(&mut self) {
        self.hold_acks = false;
        for (to, message) in std::mem::take(&mut self.held) {
            self.input(to, Input::Received(message));
        }
        self.run();
    }

    fn ack(&mut self, to: usize, subscription_id: u64) {
        let ack = SubscriptionAck { subscription_id, result: Ok(()) };
        self.queue.push_back((to, to, Message::SubscriptionAck(ack)));
    }

    /// Delivers the next message that is on its way.
    pub(crate) fn step(&mut self) -> bool {
        let Some((from, to, message)) = self.queue.pop_front() else {
            return false;
        };
        if self.hold_acks && matches!(message, Message::SubscriptionAck(_)) {
            self.held.push((to, message));
            return true;
        }
        if self.apps[to].deaf {
            return true;
        }
        if from != to && self.filter.as_mut().is_some_and(|keep| !keep(from, to, &message)) {
            return true;
        }
        let message = Message::decode(message.encode()).expect("ours decodes");
        self.input(to, Input::Received(message));
        true
    }

    /// Delivers what is on its way, and what that causes, in no time.
    pub(crate) fn run(&mut self) {
        for _ in 0..1_000_000 {
            if !self.step() {
                return;
            }
        }
        panic!("it never gets quiet");
    }

    /// Lets time pass, deadline by deadline.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.at + time;
        loop {
            self.run();
            let next = (0..self.apps.len())
                .filter_map(|app| Some((self.apps[app].endpoint.next_deadline()?, app)))
                .min();
            match next {
                Some((at, app)) if at <= end => {
                    self.at = self.at.max(at);
                    self.input(app, Input::Deadline);
                }
                _ => break,
            }
        }
        self.at = end;
    }

    // ------------------------------------------------------------ a group

    /// The first application creates a group and invites the others.
    pub(crate) fn group(&mut self, config: SessionConfig) -> SessionId {
        let session = self.create_group(config);
        for app in 1..self.apps.len() {
            let request = self.invite(session, app);
            self.run();
            assert!(self.joined(request), "{:?}", self.apps[0].done.get(&request));
        }
        session
    }

    pub(crate) fn create_group(&mut self, config: SessionConfig) -> SessionId {
        let channel = CHANNEL.parse().unwrap();
        let request = self.command(0, Command::CreateGroup { channel, config });
        self.run();
        match &self.apps[0].done[&request] {
            Done::Created(Ok(info)) => info.id,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn invite(&mut self, session: SessionId, app: usize) -> u64 {
        let name = self.name(app).without_id();
        self.command(0, Command::Invite { session, name })
    }

    pub(crate) fn joined(&self, request: u64) -> bool {
        matches!(self.apps[0].done.get(&request), Some(Done::Invited(Ok(_))))
    }

    pub(crate) fn publish(&mut self, app: usize, session: SessionId, text: &str) -> u64 {
        let message =
            Outgoing { payload: Bytes::copy_from_slice(text.as_bytes()), ..Outgoing::default() };
        self.command(app, Command::Publish { session, message })
    }

    pub(crate) fn close(&mut self, app: usize, session: SessionId) -> u64 {
        self.command(app, Command::Close { session })
    }

    // ------------------------------------------------------------ what was seen

    pub(crate) fn messages(&self, app: usize) -> Vec<&ReceivedMessage> {
        let events = self.apps[app].events.iter();
        events
            .filter_map(|(_, event)| match event {
                SessionEvent::Message(message) => Some(message),
                _ => None,
            })
            .collect()
    }

    /// `sender: text` of everything that an application got.
    pub(crate) fn heard(&self, app: usize) -> Vec<String> {
        self.messages(app)
            .into_iter()
            .map(|message| {
                let sender = message.source.text().expect("names carry text")[2].clone();
                format!("{sender}: {}", String::from_utf8_lossy(&message.payload))
            })
            .collect()
    }

    /// `name change` of every participant event.
    pub(crate) fn changes(&self, app: usize) -> Vec<String> {
        self.apps[app]
            .events
            .iter()
            .filter_map(|(_, event)| match event {
                SessionEvent::Participant { name, change } => {
                    Some(format!("{} {}", name.text()?[2], word(*change)))
                }
                _ => None,
            })
            .collect()
    }

    pub(crate) fn closed(&self, app: usize) -> Option<slim_session::CloseReason> {
        self.apps[app].events.iter().find_map(|(_, event)| match event {
            SessionEvent::Closed { reason } => Some(*reason),
            _ => None,
        })
    }

    pub(crate) fn count_sent(&self, from: usize, kind: MessageType) -> usize {
        self.sent
            .iter()
            .filter(|(app, publish)| *app == from && publish.body.message_type() == kind)
            .count()
    }

    /// Loses the first `count` messages of a kind on their way to an application.
    pub(crate) fn lose(&mut self, kind: MessageType, to: usize, mut count: usize) {
        self.filter = Some(Box::new(move |_, target, message| {
            let Message::Publish(publish) = message else {
                return true;
            };
            let hit = target == to && count > 0 && publish.body.message_type() == kind;
            if hit {
                count -= 1;
            }
            !hit
        }));
    }
}

/// OpenMLS compares the lifetime of key packages with the clock of the system; a
/// day before it leaves room for everything that a test lets pass.
fn yesterday() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_secs() - 24 * 3600
}

fn word(change: ParticipantChange) -> &'static str {
    match change {
        ParticipantChange::Joined => "joined",
        ParticipantChange::Left => "left",
        ParticipantChange::Removed => "removed",
        ParticipantChange::Online => "online",
        ParticipantChange::Offline => "offline",
    }
}

pub(crate) fn config(mls: bool) -> SessionConfig {
    SessionConfig { mls, ..SessionConfig::default() }
}

pub(crate) fn is_data(message: &Message) -> bool {
    matches!(message, Message::Publish(publish) if matches!(publish.body, Body::Msg(_)))
}

// ---------------------------------------------------------------- a liar

/// Somebody who is not a member, with the secret or without.
pub(crate) struct Mallory {
    pub(crate) identity: Arc<SharedSecret>,
    pub(crate) name: Name,
}

impl Mallory {
    pub(crate) fn new(secret: &str) -> Self {
        let mut rng = StdRng::seed_from_u64(666);
        let identity = Arc::new(SharedSecret::new("org/test/mallory", secret, &mut rng).unwrap());
        let id = NameId::of_subject(identity.subject());
        Self { identity, name: "org/test/mallory".parse::<Name>().unwrap().with_id(id) }
    }

    /// Who knows the secret.
    pub(crate) fn insider() -> Self {
        Self::new(SECRET)
    }

    pub(crate) fn unsigned(&self, to: &Name, session_id: SessionId, body: Body) -> Publish {
        Publish {
            header: Header::new(self.name.clone(), to.clone(), UNICAST),
            session_type: SessionType::Multicast,
            session_id,
            message_id: 4711,
            body,
            metadata: BTreeMap::new(),
        }
    }

    /// With our own token, whatever the source says.
    pub(crate) fn sign(&self, world: &World, mut publish: Publish) -> Publish {
        let mut rng = StdRng::seed_from_u64(667);
        publish.header.identity = self.identity.token(world.now().unix, &mut rng).unwrap();
        self.add_signatures(publish)
    }

    /// Under the name of a member and with a token for its subject, which a shared
    /// secret lets everybody make, but with our key.
    pub(crate) fn sign_as(&self, world: &World, app: usize, mut publish: Publish) -> Publish {
        let mut tokens = world.sent.iter().filter(|(from, _)| *from == app);
        let token = &tokens.next().expect("it has spoken").1.header.identity;
        let subject = token.split(':').next().unwrap();
        let claims = format!("{{\"pubkey\":\"{}\"}}", self.identity.key().public_key().to_base64());
        let (nonce, claims) = (URL_SAFE_NO_PAD.encode([7; 12]), URL_SAFE_NO_PAD.encode(claims));
        let text = format!("{subject}:{}:{nonce}:{claims}", world.now().unix);
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, SECRET.as_bytes());
        let mac = URL_SAFE_NO_PAD.encode(ring::hmac::sign(&key, text.as_bytes()));
        publish.header.identity = format!("{text}:{mac}");
        publish.header.source = world.name(app);
        self.add_signatures(publish)
    }

    fn add_signatures(&self, mut publish: Publish) -> Publish {
        let aad = canonical::header_aad(&publish);
        publish.header.e2e_header_sig = Some(self.identity.key().sign(&aad).unwrap().into());
        let input = canonical::payload_signing_input(&aad, &publish);
        let signature = STANDARD.encode(self.identity.key().sign(&input).unwrap());
        publish.metadata.insert(canonical::PAYLOAD_SIGNATURE.to_owned(), signature);
        publish
    }
}

/// Hands an application a message, past the node.
pub(crate) fn receive(world: &mut World, app: usize, publish: Publish) {
    let message = Message::decode(Message::Publish(publish).encode()).unwrap();
    world.input(app, Input::Received(message));
    world.run();
}
