//! The names for which the node delivers to us.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::{RngExt, rngs::StdRng};
use slim_proto::{Header, Message, Name, SessionId, Subscription, UNICAST};
use tracing::warn;

use crate::outbox::Outbox;

/// A (un)subscribe without an answer is sent again after this time, as the
/// reference does.
const RETRY: Duration = Duration::from_secs(5);
/// Transmissions after the first.
const RETRIES: u32 = 3;

/// Who wants to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// Our own name.
    Application,
    /// A name of a session's channel.
    Session(SessionId),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Asked {
        due_at: Duration,
        left: u32,
    },
    Held,
    /// Not held: it is asked for again when the link is.
    Refused,
    Dropping {
        due_at: Duration,
        left: u32,
    },
}

struct Entry {
    source: Name,
    name: Name,
    owner: Owner,
    /// Of our own name; channel names go without.
    identity: String,
    state: State,
}

/// What became of a subscription.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) owner: Owner,
    pub(crate) result: Result<(), String>,
}

/// All subscriptions, by their ids on the wire.
#[derive(Debug)]
pub(crate) struct Subscriptions {
    entries: BTreeMap<u64, Entry>,
    /// Ids count up from a random number.
    next: u64,
}

impl Subscriptions {
    pub(crate) fn new(rng: &mut StdRng) -> Self {
        Self { entries: BTreeMap::new(), next: rng.random_range(1..u64::MAX / 2) }
    }

    /// Asks the node for a name; an [`Outcome`] follows.
    pub(crate) fn subscribe(
        &mut self,
        at: Duration,
        out: &mut Outbox,
        source: &Name,
        name: &Name,
        owner: Owner,
        identity: String,
    ) {
        let id = self.next;
        self.next += 1;
        let state = State::Asked { due_at: at + RETRY, left: RETRIES };
        let entry = Entry { source: source.clone(), name: name.clone(), owner, identity, state };
        out.send(Message::Subscribe(entry.subscription(id)));
        self.entries.insert(id, entry);
    }

    /// Gives up the names of a session.
    pub(crate) fn drop_session(&mut self, at: Duration, out: &mut Outbox, session: SessionId) {
        for (id, entry) in &mut self.entries {
            let dropping = matches!(entry.state, State::Dropping { .. });
            if entry.owner == Owner::Session(session) && !dropping {
                entry.state = State::Dropping { due_at: at + RETRY, left: RETRIES };
                out.send(Message::Unsubscribe(entry.subscription(*id)));
            }
        }
        if !out.connected {
            // A node that lost the link has forgotten them anyway.
            self.entries.retain(|_, entry| !matches!(entry.state, State::Dropping { .. }));
        }
    }

    /// Whether the node holds all names of a session.
    pub(crate) fn all_held(&self, session: SessionId) -> bool {
        self.entries
            .values()
            .filter(|entry| entry.owner == Owner::Session(session))
            .all(|entry| entry.state == State::Held)
    }

    /// Whether the node does not give us a name of a session.
    pub(crate) fn any_refused(&self, session: SessionId) -> bool {
        self.entries
            .values()
            .any(|entry| entry.owner == Owner::Session(session) && entry.state == State::Refused)
    }

    /// Whether our own name was ever asked for.
    pub(crate) fn knows_application(&self) -> bool {
        self.entries.values().any(|entry| entry.owner == Owner::Application)
    }

    /// The node answered. `None` if nothing new follows from it.
    pub(crate) fn on_ack(&mut self, id: u64, result: Result<(), String>) -> Option<Outcome> {
        let entry = self.entries.get_mut(&id)?;
        match entry.state {
            State::Held | State::Refused => None,
            State::Dropping { .. } => {
                self.entries.remove(&id);
                None
            }
            State::Asked { .. } => {
                let owner = entry.owner;
                entry.state = if result.is_ok() { State::Held } else { State::Refused };
                Some(Outcome { owner, result })
            }
        }
    }

    /// The link is up, and the node knows none of them. `identity` is the token
    /// for our own name.
    pub(crate) fn resume(&mut self, at: Duration, out: &mut Outbox, identity: &str) {
        self.entries.retain(|_, entry| !matches!(entry.state, State::Dropping { .. }));
        for (id, entry) in &mut self.entries {
            entry.state = State::Asked { due_at: at + RETRY, left: RETRIES };
            if entry.owner == Owner::Application {
                identity.clone_into(&mut entry.identity);
            }
            out.send(Message::Subscribe(entry.subscription(*id)));
        }
    }

    /// Sends again what is due; gives those that no node answered.
    pub(crate) fn due(&mut self, at: Duration, out: &mut Outbox) -> Vec<Outcome> {
        let mut failed = Vec::new();
        self.entries.retain(|id, entry| {
            let (State::Asked { due_at, left } | State::Dropping { due_at, left }) =
                &mut entry.state
            else {
                return true;
            };
            if *due_at > at {
                return true;
            }
            if *left == 0 {
                warn!(name = %entry.name, "the node does not answer a subscription");
                if matches!(entry.state, State::Dropping { .. }) {
                    return false;
                }
                entry.state = State::Refused;
                let result = Err("the node does not answer".to_owned());
                failed.push(Outcome { owner: entry.owner, result });
                return true;
            }
            *left -= 1;
            *due_at = at + RETRY;
            let subscription = entry.subscription(*id);
            out.send(match entry.state {
                State::Dropping { .. } => Message::Unsubscribe(subscription),
                State::Asked { .. } | State::Held | State::Refused => {
                    Message::Subscribe(subscription)
                }
            });
            true
        });
        failed
    }

    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        self.entries
            .values()
            .filter_map(|entry| match entry.state {
                State::Asked { due_at, .. } | State::Dropping { due_at, .. } => Some(due_at),
                State::Held | State::Refused => None,
            })
            .min()
    }
}

/// Shows no token.
impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry")
            .field("name", &self.name)
            .field("owner", &self.owner)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl Entry {
    fn subscription(&self, id: u64) -> Subscription {
        let mut header = Header::new(self.source.clone(), self.name.clone(), UNICAST);
        header.identity.clone_from(&self.identity);
        Subscription { header, subscription_id: id }
    }
}
