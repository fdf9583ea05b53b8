//! The world: what happens when, and what each engine's outputs mean.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use slim_auth::SharedSecret;
use slim_proto::{Message, Name, RouteName, SessionId};
use slim_session::{
    Command, Done, Endpoint, EndpointConfig, Input, Outgoing, Output, ParticipantChange,
    PublishError, RequestId, Role, SessionEvent, SessionInfo, SessionState,
};

use super::Totals;
use super::app::{App, AppId, Asked, Held, View};
use super::ledger::{Ledger, Promised, Publication, PublicationId};
use super::network::{LinkId, Node};
use super::plan::{Network, Plan};
use super::story::is_heartbeat;
use crate::SECRET;

/// What did not hold.
pub(super) type Broken = String;

/// Publishes of a session that are accepted and not reported, at most.
const MAX_OPEN: usize = 512;

/// Deadlines that an engine may ask for within a second. The shortest period in a
/// world is a tenth of a second, and few things are under way at once.
const MAX_DEADLINES: u32 = 1000;

/// Outputs of one input, at most: each open message goes to each member.
const MAX_OUTPUTS: usize = 10_000;

/// Inputs of all engines in a whole world, at most. Sound ones take some 5,000.
const MAX_INPUTS: u64 = 50_000;

/// A direction of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Up,
    Down,
}

/// Publishes that are lost as long as it exists. `None` is everybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) from: Option<AppId>,
    pub(super) to: Option<AppId>,
}

/// Something that happens at a time.
#[derive(Debug)]
pub(super) enum Event {
    ToNode(LinkId, Bytes),
    ToApp(LinkId, Bytes),
    Act,
    /// The client notices that its link is lost, and dials again after a while.
    LinkDown(AppId, LinkId, Duration),
    LinkUp(AppId),
    /// The node notices that a link is lost.
    Forget(LinkId),
    Resume(AppId),
    Heal(Cut),
    NotBusy(AppId, SessionId),
}

/// Everything.
#[derive(Debug)]
pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) rng: StdRng,
    /// Decides who is away, so that the seeds of worlds in which nobody is stay what
    /// they were before anybody could be.
    pub(super) away_rng: StdRng,
    pub(super) at: Duration,
    queue: BTreeMap<(Duration, u64), Event>,
    queued: u64,
    pub(super) apps: Vec<App>,
    /// The latest process of each readable name.
    pub(super) slots: Vec<AppId>,
    pub(super) by_name: BTreeMap<RouteName, AppId>,
    pub(super) node: Node,
    /// Whose each link is.
    owners: BTreeMap<LinkId, AppId>,
    /// When the latest frame of each way arrives.
    latest: BTreeMap<(LinkId, Way), Duration>,
    pub(super) network: Network,
    pub(super) cuts: Vec<Cut>,
    /// Nothing arrives from or at these before.
    pub(super) stalls: BTreeMap<AppId, Duration>,
    next_request: u64,
    pub(super) ledger: Ledger,
    /// What a look at a session showed.
    seen: BTreeMap<RequestId, Option<SessionState>>,
    /// Sessions that somebody was told are joined by somebody.
    joined: Vec<(AppId, SessionId, Name)>,
    /// Publishes other than heartbeats, by session.
    pub(super) traffic: BTreeMap<SessionId, u64>,
    unix: u64,
    story: Vec<String>,
    pub(super) totals: Totals,
}

impl World {
    pub(super) fn new(seed: u64, plan: Plan) -> Self {
        // MLS checks the lifetime of key packages by the system's clock. A day
        // before it, they are valid whatever a run does.
        let today = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            rng: StdRng::seed_from_u64(seed),
            away_rng: StdRng::seed_from_u64(seed ^ 0x6177_6179),
            at: Duration::ZERO,
            queue: BTreeMap::new(),
            queued: 0,
            apps: Vec::new(),
            slots: Vec::new(),
            by_name: BTreeMap::new(),
            node: Node::default(),
            owners: BTreeMap::new(),
            latest: BTreeMap::new(),
            network: plan.network.calm(),
            cuts: Vec::new(),
            stalls: BTreeMap::new(),
            next_request: 0,
            ledger: Ledger::default(),
            seen: BTreeMap::new(),
            joined: Vec::new(),
            traffic: BTreeMap::new(),
            unix: today.as_secs() - 24 * 3600,
            story: Vec::new(),
            totals: Totals::default(),
            plan,
        }
    }

    pub(super) fn into_parts(mut self) -> (Vec<String>, Totals) {
        self.totals.seconds = self.at.as_secs();
        self.totals.before_first = self.ledger.before_first;
        (self.story, self.totals)
    }

    pub(super) fn note(&mut self, text: impl AsRef<str>) {
        self.story.push(format!("{:>9.3}  {}", self.at.as_secs_f64(), text.as_ref()));
    }

    fn tell(&mut self, app: AppId, text: impl AsRef<str>) {
        let line = format!("{}  {}", self.apps[app].label, text.as_ref());
        self.note(line);
    }

    // ------------------------------------------------------------ time

    /// From the first command to the last check.
    pub(super) fn play(&mut self) -> Result<(), Broken> {
        let plan = format!("{:?}", self.plan);
        self.note(plan);
        for slot in 0..self.plan.slots {
            self.slots.push(0);
            self.start(slot)?;
        }
        self.run_for(Duration::from_secs(1))?;
        self.begin()?;
        for _ in 0..self.plan.rounds {
            self.note("--- a round of faults");
            self.network = self.plan.network.clone();
            for _ in 0..self.plan.actions {
                let time = self.within(Duration::ZERO, self.plan.round);
                self.after(time, Event::Act);
            }
            self.run_for(self.plan.round)?;
            self.heal()?;
            self.calm()?;
        }
        if self.plan.sleeps {
            self.note("--- an hour passes");
            self.run_for(Duration::from_secs(3600))?;
            self.calm()?;
        }
        self.close_all()
    }

    /// A random time.
    pub(super) fn within(&mut self, least: Duration, most: Duration) -> Duration {
        Duration::from_micros(
            self.rng.random_range(least.as_micros() as u64..=most.as_micros() as u64),
        )
    }

    pub(super) fn after(&mut self, time: Duration, event: Event) {
        self.queued += 1;
        self.queue.insert((self.at + time, self.queued), event);
    }

    pub(super) fn run_for(&mut self, time: Duration) -> Result<(), Broken> {
        let end = self.at + time;
        loop {
            let event_at = self.queue.first_key_value().map(|((at, _), _)| *at);
            let deadline = (self.apps.iter().enumerate())
                .filter(|(_, app)| app.is_running())
                .filter_map(|(id, app)| Some((app.deadline?, id)))
                .min();
            match (event_at, deadline) {
                (Some(at), deadline)
                    if at <= end && deadline.is_none_or(|(deadline, _)| at <= deadline) =>
                {
                    self.at = self.at.max(at);
                    let (_, event) = self.queue.pop_first().expect("it was there");
                    self.happen(event)?;
                }
                (_, Some((at, app))) if at <= end => {
                    self.at = self.at.max(at);
                    self.call_again(app)?;
                }
                _ => break,
            }
        }
        self.at = end;
        Ok(())
    }

    fn call_again(&mut self, id: AppId) -> Result<(), Broken> {
        let second = self.at.as_secs();
        let app = &mut self.apps[id];
        app.deadline = None;
        if app.called.0 != second {
            app.called = (second, 0);
        }
        app.called.1 += 1;
        if app.called.1 > MAX_DEADLINES {
            return Err(format!("{} asks for more than {MAX_DEADLINES} deadlines", app.label));
        }
        self.feed(id, Input::Deadline)
    }

    fn happen(&mut self, event: Event) -> Result<(), Broken> {
        match event {
            Event::Act => self.act(),
            Event::ToNode(link, bytes) => {
                let Some(&from) = self.owners.get(&link) else { return Ok(()) };
                for (target, bytes) in self.node.receive(link, bytes)? {
                    self.send_down(from, target, bytes);
                }
                Ok(())
            }
            Event::ToApp(link, bytes) => {
                let Some(&app) = self.owners.get(&link) else { return Ok(()) };
                match &mut self.apps[app].held {
                    Some(held) => held.push_back(Held::Bytes(link, bytes)),
                    None => self.receive(app, link, bytes)?,
                }
                Ok(())
            }
            Event::LinkDown(app, link, pause) => {
                if self.apps[app].link == Some(link) && self.apps[app].is_alive {
                    self.link_down(app, pause)?;
                }
                Ok(())
            }
            Event::LinkUp(app) => self.link_up(app),
            Event::Forget(link) => {
                self.node.detach(link);
                Ok(())
            }
            Event::Resume(app) => self.resume(app),
            Event::Heal(cut) => {
                self.cuts.retain(|other| *other != cut);
                Ok(())
            }
            Event::NotBusy(app, session) => self.set_busy(app, session, false),
        }
    }

    // ------------------------------------------------------------ processes and links

    /// Starts a process of this readable name.
    pub(super) fn start(&mut self, slot: usize) -> Result<(), Broken> {
        let id = self.apps.len();
        let letter = char::from(b'a' + u8::try_from(slot).expect("few slots"));
        let count = self.apps.iter().filter(|app| app.slot == slot).count() + 1;
        let text = format!("org/sim/{letter}");
        let identity = SharedSecret::new(&text, SECRET, &mut self.rng);
        let identity = Arc::new(identity.map_err(|error| error.to_string())?);
        let name: Name = text.parse().map_err(|error| format!("{error}"))?;
        let config = EndpointConfig::new(name, self.rng.random());
        let endpoint = Endpoint::new(config, identity.clone(), identity);
        let name = endpoint.name().clone();
        self.by_name.insert(name.route(), id);
        self.apps.push(App {
            name,
            slot,
            label: format!("{letter}{count}"),
            endpoint,
            is_alive: true,
            held: None,
            origin: Duration::from_millis(self.rng.random_range(0..1_000_000)),
            unix: self.unix + self.rng.random_range(0..=4),
            link: None,
            wanted: None,
            deadline: None,
            sessions: BTreeMap::new(),
            pending: BTreeMap::new(),
            called: (0, 0),
        });
        self.slots[slot] = id;
        self.tell(id, "is started");
        self.link_up(id)
    }

    fn link_up(&mut self, id: AppId) -> Result<(), Broken> {
        let app = &self.apps[id];
        if app.link.is_some() || !app.is_alive {
            return Ok(());
        }
        if !app.is_running() {
            // It dials when it goes on.
            self.after(Duration::from_secs(1), Event::LinkUp(id));
            return Ok(());
        }
        let link = self.node.attach();
        self.owners.insert(link, id);
        self.apps[id].link = Some(link);
        self.tell(id, "has a link");
        self.feed(id, Input::LinkUp)
    }

    /// The client's end of a link is lost; it dials again after a while.
    pub(super) fn link_down(&mut self, id: AppId, pause: Duration) -> Result<(), Broken> {
        if self.apps[id].link.take().is_none() {
            return Ok(());
        }
        self.tell(id, "has no link");
        self.after(pause, Event::LinkUp(id));
        self.input(id, Input::LinkDown)
    }

    /// The process is killed; the node notices after a while.
    pub(super) fn kill(&mut self, id: AppId, noticed: Duration) {
        self.tell(id, "is killed");
        let app = &mut self.apps[id];
        app.is_alive = false;
        app.held = None;
        app.pending.clear();
        if let Some(link) = app.link.take() {
            self.after(noticed, Event::Forget(link));
        }
    }

    pub(super) fn resume(&mut self, id: AppId) -> Result<(), Broken> {
        let Some(held) = self.apps[id].held.take().filter(|_| self.apps[id].is_alive) else {
            return Ok(());
        };
        self.tell(id, "goes on");
        for held in held {
            match held {
                Held::Bytes(link, bytes) => self.receive(id, link, bytes)?,
                Held::Input(input) => self.feed(id, input)?,
            }
        }
        Ok(())
    }

    /// An input, now or when the process goes on.
    pub(super) fn input(&mut self, id: AppId, input: Input) -> Result<(), Broken> {
        match &mut self.apps[id].held {
            Some(held) => {
                held.push_back(Held::Input(input));
                Ok(())
            }
            None => self.feed(id, input),
        }
    }

    pub(super) fn set_busy(
        &mut self,
        id: AppId,
        session: SessionId,
        busy: bool,
    ) -> Result<(), Broken> {
        if !self.apps[id].is_alive {
            return Ok(());
        }
        self.tell(id, if busy { "does not read" } else { "reads" });
        self.input(id, Input::Busy(session, busy))
    }

    // ------------------------------------------------------------ frames

    fn send_up(&mut self, id: AppId, message: &Message) {
        let text = self.describe(message);
        let Some(link) = self.apps[id].link else { return };
        if let Message::Publish(publish) = message
            && !is_heartbeat(message)
        {
            *self.traffic.entry(publish.session_id).or_default() += 1;
        }
        let is_publish = matches!(message, Message::Publish(_));
        let bytes = message.encode();
        if !is_heartbeat(message) {
            self.tell(id, format!("> {text}"));
        }
        self.travel(id, link, Way::Up, is_publish, bytes, &text);
    }

    fn send_down(&mut self, from: AppId, link: LinkId, bytes: Bytes) {
        let Some(&to) = self.owners.get(&link) else { return };
        let is_cut = |cut: &Cut| {
            cut.from.is_none_or(|app| app == from) && cut.to.is_none_or(|app| app == to)
        };
        let is_publish = from != to;
        if is_publish && self.cuts.iter().any(is_cut) {
            self.totals.dropped += 1;
            let line = format!("x cut off: {}", self.describe_bytes(&bytes));
            return self.tell(to, line);
        }
        let text = if is_publish { self.describe_bytes(&bytes) } else { String::new() };
        self.travel(to, link, Way::Down, is_publish, bytes, &text);
    }

    fn describe_bytes(&self, bytes: &Bytes) -> String {
        match Message::decode(bytes.clone()) {
            Ok(message) => self.describe(&message),
            Err(error) => format!("unreadable: {error}"),
        }
    }

    /// A frame on one way of a link. Only a publish can be lost: what a client
    /// and its node say to each other ends with their link or arrives.
    fn travel(
        &mut self,
        id: AppId,
        link: LinkId,
        way: Way,
        is_publish: bool,
        bytes: Bytes,
        text: &str,
    ) {
        if is_publish && self.rng.random_bool(self.network.loss) {
            self.totals.dropped += 1;
            return self.tell(id, format!("x lost {way:?}: {text}"));
        }
        let twice = is_publish && self.rng.random_bool(self.network.duplication);
        for _ in 0..1 + u32::from(twice) {
            let (least, most) = self.network.latency;
            let mut arrives_at = self.at + self.within(least, most);
            if let Some(until) = self.stalls.get(&id) {
                arrives_at = arrives_at.max(*until);
            }
            if is_publish && self.rng.random_bool(self.network.reordering) {
                arrives_at += self.within(Duration::ZERO, Duration::from_secs(2));
            } else {
                let took = self.network.bandwidth.map_or(Duration::ZERO, |rate| {
                    Duration::from_secs(1) * bytes.len() as u32 / rate
                });
                let latest = self.latest.entry((link, way)).or_default();
                arrives_at = arrives_at.max(*latest + took);
                *latest = arrives_at;
            }
            let event = match way {
                Way::Up => Event::ToNode(link, bytes.clone()),
                Way::Down => Event::ToApp(link, bytes.clone()),
            };
            self.after(arrives_at - self.at, event);
        }
    }

    fn receive(&mut self, id: AppId, link: LinkId, bytes: Bytes) -> Result<(), Broken> {
        if self.apps[id].link != Some(link) {
            return Ok(());
        }
        let message = Message::decode(bytes).map_err(|error| format!("unreadable: {error}"))?;
        if !is_heartbeat(&message) {
            let text = self.describe(&message);
            self.tell(id, format!("< {text}"));
        }
        self.feed(id, Input::Received(message))
    }

    // ------------------------------------------------------------ engines

    fn feed(&mut self, id: AppId, input: Input) -> Result<(), Broken> {
        self.totals.inputs += 1;
        if self.totals.inputs > MAX_INPUTS {
            return Err(format!("the engines got {MAX_INPUTS} inputs"));
        }
        let app = &mut self.apps[id];
        let now = app.now(self.at);
        let outputs = app.endpoint.handle(now, input);
        let wanted = app.endpoint.next_deadline();
        let label = app.label.clone();
        if let Some(wanted) = wanted.filter(|wanted| *wanted <= now.at) {
            return Err(format!("{label} asks for {wanted:?} at {:?}", now.at));
        }
        if outputs.len() > MAX_OUTPUTS {
            return Err(format!("{} outputs of {label} at once", outputs.len()));
        }
        if app.wanted != wanted || app.deadline.is_none() {
            app.wanted = wanted;
            // Timers are a little late at times.
            let late = match self.rng.random_bool(0.2) {
                true => Duration::from_millis(self.rng.random_range(0..5)),
                false => Duration::ZERO,
            };
            app.deadline = wanted.map(|wanted| wanted - app.origin + late);
        }
        for output in outputs {
            self.on_output(id, output)?;
        }
        while let Some((moderator, session, name)) = self.joined.pop() {
            self.check_joined(moderator, session, &name)?;
        }
        Ok(())
    }

    fn on_output(&mut self, id: AppId, output: Output) -> Result<(), Broken> {
        match output {
            Output::Send(message) => self.send_up(id, &message),
            Output::Ready => self.tell(id, "is ready"),
            Output::NotReady(reason) => return Err(format!("a name is refused: {reason}")),
            Output::Accepted(request) => self.on_accepted(id, request)?,
            Output::Done(request, done) => self.on_done(id, request, done)?,
            Output::Session(info) => {
                self.tell(id, format!("is invited to {}", info.id));
                self.opened(id, info, Role::Participant)?;
            }
            Output::Event(session, event) => self.on_event(id, session, event)?,
            Output::IdentityMismatch(peer, _) => {
                return Err(format!("{} does not verify", self.call(&peer)));
            }
            Output::Declined(peer, _) => {
                return Err(format!("{} is declined", self.call(&peer)));
            }
            Output::Unbound(peer, what) => {
                return Err(format!("{}: {what}", self.call(&peer)));
            }
        }
        Ok(())
    }

    fn opened(&mut self, id: AppId, info: SessionInfo, role: Role) -> Result<(), Broken> {
        let session = info.id;
        if info.role != role || info.local != self.apps[id].name {
            return Err(format!("{session} is not what it should be: {info:?}"));
        }
        let (since, label) = (self.at, self.apps[id].label.clone());
        let times = match self.apps[id].sessions.get(&session) {
            Some(old) if old.is_open => return Err(format!("{label} has {session} twice")),
            old => old.map_or(0, |old| old.times) + 1,
        };
        let (is_open, is_away, is_closing) = (true, false, false);
        let view = View { info, since, times, is_open, is_away, is_closing };
        self.apps[id].sessions.insert(session, view);
        self.ledger.joined(id, session);
        Ok(())
    }

    fn on_event(
        &mut self,
        id: AppId,
        session: SessionId,
        event: SessionEvent,
    ) -> Result<(), Broken> {
        let text = self.describe_event(&event);
        self.tell(id, format!("{text} in {session}"));
        if !self.apps[id].is_open(session) {
            return Err(format!("{} has no {session}, but {text}", self.apps[id].label));
        }
        match event {
            SessionEvent::Message(message) => {
                self.totals.delivered += 1;
                let from = self.sender(&message.source)?;
                let number = std::str::from_utf8(&message.payload).ok();
                let number = number.and_then(|text| text.parse().ok());
                let number = number.ok_or("a payload that nobody sent")?;
                let promised = self.promised(id, session, from, number);
                match self.ledger.deliver(id, session, from, number, promised) {
                    Err(_) if self.counts_anew_unseen(id, session, from) => {
                        self.totals.mistaken += 1;
                        self.ledger.deliver(id, session, from, number, Promised::Nothing)?;
                    }
                    told => told?,
                }
            }
            SessionEvent::MessageLost { source, count } => {
                let from = self.sender(&source)?;
                self.ledger.lost(id, session, from, count);
            }
            SessionEvent::Participant { name, change } => {
                let who = self.sender(&name)?;
                if change == ParticipantChange::Joined {
                    self.ledger.saw_join(id, session, who, self.at);
                }
            }
            SessionEvent::Closed { .. } => {
                if let Some(view) = self.apps[id].sessions.get_mut(&session) {
                    view.is_open = false;
                }
            }
        }
        Ok(())
    }

    /// What order and uniqueness are promised.
    fn promised(
        &self,
        id: AppId,
        session: SessionId,
        from: AppId,
        number: PublicationId,
    ) -> Promised {
        let network = &self.plan.network;
        let view = &self.apps[id].sessions[&session];
        let published = self.ledger.publications.get(number).map_or(self.at, |it| it.at);
        let has_left = |app: AppId| {
            let view = self.apps[app].sessions.get(&session);
            view.is_none_or(|view| view.times > 1 || !view.is_open)
        };
        if view.info.reliable {
            match self.plan.is_ordered() {
                // For a sender that has not noticed that it was gone.
                true if published < view.since => Promised::SinceJoined,
                true => Promised::Always,
                // A late copy from before the sender left is taken for news, once it is
                // invited again, and what then comes with its number for another count.
                false if has_left(from) => Promised::Nothing,
                false => Promised::SinceJoined,
            }
        } else if network.duplication == 0.0 && network.reordering == 0.0 {
            Promised::Always
        } else {
            Promised::Nothing
        }
    }

    /// Whether the sender left and came back without the receiver's seeing it.
    fn counts_anew_unseen(&self, to: AppId, session: SessionId, from: AppId) -> bool {
        let view = self.apps[from].sessions.get(&session);
        view.is_some_and(|view| {
            view.times > 1 && self.ledger.seen_at(to, session, from) < view.since
        })
    }

    fn sender(&self, name: &Name) -> Result<AppId, Broken> {
        self.by_name.get(&name.route()).copied().ok_or_else(|| format!("nobody is called {name}"))
    }

    // ------------------------------------------------------------ commands

    pub(super) fn command(
        &mut self,
        id: AppId,
        command: Command,
        asked: Asked,
    ) -> Result<(), Broken> {
        self.totals.commands += 1;
        let request = RequestId(self.next_request);
        self.next_request += 1;
        self.apps[id].pending.insert(request, asked);
        let text = self.describe_command(&command);
        self.tell(id, format!("{text} ({})", request.0));
        self.feed(id, Input::Command(request, command))
    }

    /// What an application knows of a session.
    pub(super) fn state(
        &mut self,
        id: AppId,
        session: SessionId,
    ) -> Result<Option<SessionState>, Broken> {
        let request = RequestId(self.next_request);
        self.next_request += 1;
        self.apps[id].pending.insert(request, Asked::Look);
        self.feed(id, Input::Command(request, Command::State { session }))?;
        self.seen.remove(&request).ok_or_else(|| "a state is not told at once".to_owned())
    }

    /// Publishes; the payload is the publication's number. Gives the number.
    pub(super) fn publish(
        &mut self,
        id: AppId,
        session: SessionId,
        to: Option<AppId>,
    ) -> Result<usize, Broken> {
        let state = self.state(id, session)?;
        let members = state.iter().flat_map(|state| &state.members);
        let expected: BTreeSet<RouteName> =
            members.filter(|member| !member.is_self).map(|member| member.name.route()).collect();
        let number = self.ledger.publications.len();
        self.ledger.publications.push(Publication {
            from: id,
            session,
            to,
            at: self.at,
            expected,
            is_accepted: false,
            outcome: None,
        });
        let message = Outgoing {
            payload: Bytes::from(number.to_string()),
            to: to.map(|app| self.apps[app].name.clone()),
            ..Outgoing::default()
        };
        self.command(id, Command::Publish { session, message }, Asked::Publish(number))?;
        Ok(number)
    }

    fn on_accepted(&mut self, id: AppId, request: RequestId) -> Result<(), Broken> {
        let Some(Asked::Publish(number)) = self.apps[id].pending.get(&request) else {
            return Err("something is accepted that is no publish".to_owned());
        };
        let publication = &mut self.ledger.publications[*number];
        if std::mem::replace(&mut publication.is_accepted, true) {
            return Err(format!("message {number} is accepted twice"));
        }
        if publication.at != self.at {
            // It waited: the members may be others now.
            publication.expected.clear();
        }
        let session = publication.session;
        if self.ledger.open(id, session) > MAX_OPEN {
            return Err(format!("more than {MAX_OPEN} messages are open"));
        }
        Ok(())
    }

    fn on_done(&mut self, id: AppId, request: RequestId, done: Done) -> Result<(), Broken> {
        let text = self.describe_done(&done);
        let Some(asked) = self.apps[id].pending.remove(&request) else {
            return Err(format!("request {} has two outcomes, or nobody asked", request.0));
        };
        if !matches!(asked, Asked::Look) {
            self.tell(id, format!("{text} ({})", request.0));
        }
        match (asked, done) {
            (Asked::CreateGroup, Done::Created(Ok(info)))
            | (Asked::CreateP2p, Done::Created(Ok(info))) => {
                self.opened(id, info, Role::Moderator)?;
            }
            (Asked::CreateP2p, Done::Created(Err(_))) => {}
            (Asked::Invite { session }, Done::Invited(Ok(name))) => {
                self.joined.push((id, session, name));
            }
            (Asked::Invite { .. }, Done::Invited(Err(_))) => {}
            (Asked::Remove { session, member: Some(member), at }, Done::Removed(result)) => {
                use slim_session::RemoveError::Unconfirmed;
                let is_out = match result {
                    Ok(()) => true,
                    // Without MLS nothing keeps it from listening on.
                    Err(Unconfirmed { .. }) => self.plan.config.mls,
                    Err(_) => false,
                };
                // Before this outcome it may have been invited again.
                let view = self.apps[member].sessions.get(&session);
                if is_out && view.is_none_or(|view| view.since <= at) {
                    self.ledger.removed(member, session, id);
                }
            }
            (Asked::Remove { member: None, .. }, Done::Removed(_)) => {}
            (Asked::Publish(number), Done::Published(result)) => {
                self.check_report(number, &result)?;
                self.ledger.publications[number].outcome = Some(result);
            }
            (Asked::Look, Done::State(state)) => {
                self.seen.insert(request, state);
            }
            (Asked::State, Done::State(_))
            | (Asked::Flush, Done::Flushed)
            | (Asked::Presence, Done::Presence(_))
            | (Asked::Close, Done::Closed) => {}
            (asked, done) => return Err(format!("{asked:?} ends as {done:?}")),
        }
        Ok(())
    }

    /// A report names everybody, once.
    fn check_report(
        &self,
        number: usize,
        result: &Result<slim_session::DeliveryReport, PublishError>,
    ) -> Result<(), Broken> {
        let publication = &self.ledger.publications[number];
        let expected = &publication.expected;
        let report = match result {
            Ok(report) => report,
            Err(PublishError::Closed | PublishError::Busy { .. } | PublishError::Away) => {
                return Ok(());
            }
            Err(PublishError::Alone) if expected.is_empty() => return Ok(()),
            Err(PublishError::NotMember { .. }) if publication.to.is_some() => return Ok(()),
            Err(error) => return Err(format!("message {number}: {error}")),
        };
        if !publication.is_accepted {
            return Err(format!("message {number} is reported before it is accepted"));
        }
        let names: Vec<RouteName> =
            report.delivered.iter().chain(&report.lost).map(Name::route).collect();
        let reported: BTreeSet<RouteName> = names.iter().copied().collect();
        if reported.len() != names.len() {
            return Err(format!("the report of message {number} names somebody twice"));
        }
        let is_reliable = self.plan.config.timers.is_some();
        let expected = match publication.to {
            _ if !is_reliable => BTreeSet::new(),
            Some(to) => BTreeSet::from([self.apps[to].name.route()]),
            None if expected.is_empty() => return Ok(()),
            None => expected.clone(),
        };
        if reported != expected {
            return Err(format!("the report of message {number} does not name whom it was for"));
        }
        Ok(())
    }

    /// Who has joined is seen by its moderator.
    fn check_joined(
        &mut self,
        moderator: AppId,
        session: SessionId,
        name: &Name,
    ) -> Result<(), Broken> {
        let state = self.state(moderator, session)?;
        let is_in =
            state.is_some_and(|state| state.members.iter().any(|m| m.name.route() == name.route()));
        match is_in {
            true => Ok(()),
            false => Err(format!("{} was invited, but is not in", self.call(name))),
        }
    }

    /// Runs the process of `id` no further for a while.
    pub(super) fn pause(&mut self, id: AppId, time: Duration) {
        self.tell(id, format!("is paused for {time:?}"));
        self.apps[id].held = Some(VecDeque::new());
        self.after(time, Event::Resume(id));
    }

    pub(super) fn has_link(&self, link: LinkId) -> bool {
        self.node.has(link)
    }
}
