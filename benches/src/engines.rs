//! Engines that talk to each other through a table instead of a node, in one thread
//! and in no time. Messages travel as bytes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::StdRng;
use slim_auth::SharedSecret;
use slim_proto::{Message, Name, RouteName, SessionId, SubscriptionAck};
use slim_session::{
    Command, Done, Endpoint, EndpointConfig, Input, Now, Outgoing, Output, RequestId,
    SessionConfig, SessionEvent,
};

use crate::{channel, member};

/// Applications with one group. The first moderates it.
#[derive(Debug)]
pub struct Engines {
    endpoints: Vec<Endpoint>,
    /// Who has subscribed to what.
    table: BTreeMap<RouteName, Vec<usize>>,
    /// On their way, to whom.
    queue: VecDeque<(usize, Bytes)>,
    session: SessionId,
    now: Now,
    delivered: usize,
    done: Option<Done>,
}

impl Engines {
    /// So many applications, and a group of the first alone.
    ///
    /// # Panics
    /// If there is no such group, as everywhere here: then a number would lie.
    pub fn new(count: usize, mls: bool) -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        let mut engines = Self {
            endpoints: Vec::new(),
            table: BTreeMap::new(),
            queue: VecDeque::new(),
            session: SessionId(0),
            now: Now { at: Duration::ZERO, unix },
            delivered: 0,
            done: None,
        };
        for number in 0..count {
            let name = member(number).without_id();
            let mut rng = StdRng::seed_from_u64(number as u64);
            let secret = "a secret of at least thirty-two bytes";
            let identity = SharedSecret::new(&name.to_string(), secret, &mut rng);
            let identity = Arc::new(identity.expect("a name and a long secret"));
            let config = EndpointConfig::new(name, number as u64);
            engines.endpoints.push(Endpoint::new(config, identity.clone(), identity));
            engines.input(number, Input::LinkUp);
        }
        let config = SessionConfig { mls, ..SessionConfig::default() };
        let create = Command::CreateGroup { channel: channel(), config };
        let Done::Created(Ok(info)) = engines.command(create) else {
            panic!("no group");
        };
        engines.session = info.id;
        engines
    }

    /// Has the moderator invite an application; returns when everybody knows.
    pub fn invite(&mut self, number: usize) {
        let (session, name) = (self.session, self.name(number));
        let done = self.command(Command::Invite { session, name });
        assert!(matches!(done, Done::Invited(Ok(_))), "{done:?}");
    }

    /// Has the moderator remove an application; returns when everybody knows.
    pub fn remove(&mut self, number: usize) {
        let (session, name) = (self.session, self.name(number));
        let done = self.command(Command::Remove { session, name });
        assert!(matches!(done, Done::Removed(Ok(()))), "{done:?}");
    }

    /// Has the moderator publish; returns when everybody has acknowledged it.
    pub fn publish(&mut self, payload: &Bytes) {
        let message = Outgoing { payload: payload.clone(), ..Outgoing::default() };
        let expected = self.delivered + self.endpoints.len() - 1;
        let done = self.command(Command::Publish { session: self.session, message });
        match done {
            Done::Published(Ok(report)) if report.lost.is_empty() => {}
            other => panic!("{other:?}"),
        }
        assert_eq!(self.delivered, expected, "everybody has it, once");
    }

    fn name(&self, number: usize) -> Name {
        self.endpoints[number].name().without_id()
    }

    /// What becomes of a command of the moderator.
    fn command(&mut self, command: Command) -> Done {
        self.input(0, Input::Command(RequestId(0), command));
        self.done.take().expect("it is done when all is quiet")
    }

    /// Lets an application know something, and the others what follows from it.
    fn input(&mut self, to: usize, input: Input) {
        self.handle(to, input);
        while let Some((to, bytes)) = self.queue.pop_front() {
            let message = Message::decode(bytes).expect("ours decodes");
            self.handle(to, Input::Received(message));
        }
    }

    fn handle(&mut self, who: usize, input: Input) {
        for output in self.endpoints[who].handle(self.now, input) {
            match output {
                Output::Send(message) => self.route(who, message),
                Output::Done(_, done) => self.done = Some(done),
                Output::Event(_, SessionEvent::Message(_)) => self.delivered += 1,
                _ => {}
            }
        }
    }

    /// What a node does.
    fn route(&mut self, from: usize, message: Message) {
        match &message {
            Message::Subscribe(subscription) => {
                let name = subscription.header.destination.route();
                self.table.entry(name).or_default().push(from);
                self.ack(from, subscription.subscription_id);
            }
            Message::Unsubscribe(subscription) => {
                let name = subscription.header.destination.route();
                self.table.entry(name).or_default().retain(|who| *who != from);
                self.ack(from, subscription.subscription_id);
            }
            Message::Publish(publish) => {
                let wanted = publish.header.destination.route();
                let bytes = message.encode();
                let matching = self.table.iter().filter(|(name, _)| match wanted.id.is_any() {
                    true => name.components == wanted.components,
                    false => **name == wanted,
                });
                let holders = matching.flat_map(|(_, holders)| holders.iter().copied());
                let targets = holders.filter(|who| *who != from);
                self.queue.extend(targets.map(|who| (who, bytes.clone())));
            }
            Message::Link(_) | Message::SubscriptionAck(_) => {}
        }
    }

    fn ack(&mut self, to: usize, subscription_id: u64) {
        let ack = SubscriptionAck { subscription_id, result: Ok(()) };
        self.queue.push_back((to, Message::SubscriptionAck(ack).encode()));
    }
}
