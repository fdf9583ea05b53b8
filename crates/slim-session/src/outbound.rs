//! The sender's side of data: numbers messages, awaits their acknowledgements,
//! sends copies to who stays silent, and says what became of each message.
//!
//! A message is *open* until it is reported, once: when each member that it waits
//! for has acknowledged it, gone, or stayed silent for (R+1) periods. It stays in
//! the buffer longer, for members that ask for it or come back.
//!
//! | a recipient is | the message waits for it | it gets a copy | reported as |
//! |---|---|---|---|
//! | awaited | yes | at P, 2P … R·P after it was sent, and if it asks | – |
//! | acknowledged | no | if it asks | delivered |
//! | missing: offline, or silent for (R+1)·P | no | when it is online again, then awaited once more; if it asks | lost |
//! | lost: silent again, or about this message alone | no | if it asks | lost |
//! | gone: left or removed | no | no | lost |
//!
//! Who asks for a message shows that it is there, and does not have it: the reply
//! may get lost like anything else, so it is awaited as before until it
//! acknowledges the reply or a copy.
//!
//! Only recipients are served: who joined later cannot ask for what was said
//! before. Members are told apart as routing does, without their readable parts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use slim_proto::{Name, RouteName};

use crate::retry::{Deadlines, Retry, Turn};
use crate::{DeliveryReport, Outgoing, RequestId, Timers};

#[cfg(test)]
mod tests;

/// Messages in the buffer. Open ones are never evicted: with this many of them
/// the buffer [is full](Outbound::is_full). Reported ones make room, oldest first.
pub(crate) const WINDOW: usize = 512;

/// The same bound for the sum of their sizes in bytes. One message is always
/// taken, so the buffer may exceed it by one message.
pub(crate) const WINDOW_BYTES: usize = 64 << 20;

/// Ids of messages to all count up to this and start again at 0; those of
/// messages to one lie above.
const DIRECT: u32 = 1 << 31;

/// Whether this is the id of a message to one member of a group (`PUBLISH_TO`).
pub(crate) fn is_direct(id: u32) -> bool {
    id >= DIRECT
}

/// For whom a message is.
#[derive(Debug)]
pub(crate) enum Audience {
    /// All members that receive data. If none of them is online, the offline ones
    /// are awaited. The peer of a point-to-point session is all.
    All {
        /// They are awaited.
        online: Vec<Name>,
        /// They get a copy when they are online again.
        offline: Vec<Name>,
    },
    /// One member of a group, outside the order.
    One {
        /// Who.
        member: Name,
        /// At random from 2^31 to 2^32−2. If it is in use the next free one is taken.
        id: u32,
    },
}

/// Where a copy goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum To {
    /// The channel, or the peer.
    All,
    /// This member.
    One(Name),
}

/// What the session has to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Send a `MSG` with this id; a copy is encrypted anew.
    Send {
        /// See [`is_direct`].
        id: u32,
        /// Where to.
        to: To,
        /// What.
        message: Arc<Outgoing>,
    },
    /// This member did not answer at all for (R+1) periods, and nothing waits for
    /// it any more: it is offline.
    Silent(Name),
    /// The outcome of a publish.
    Done {
        /// Which.
        request: RequestId,
        /// Empty in an unreliable session.
        report: DeliveryReport,
    },
}

/// The messages that we sent into one session.
#[derive(Debug)]
pub(crate) struct Outbound {
    /// None: unreliable, nothing is kept.
    timers: Option<Timers>,
    next_id: u32,
    next_key: u64,
    /// By a key that counts up for ever, so that order survives the ids' wrap.
    entries: BTreeMap<u64, Entry>,
    keys: BTreeMap<u32, u64>,
    /// Keys of the open ones.
    open: BTreeSet<u64>,
    /// Keys of the reported ones.
    reported: BTreeSet<u64>,
    bytes: usize,
    open_bytes: usize,
    /// When each recipient last acknowledged or asked for anything.
    heard_at: BTreeMap<RouteName, Duration>,
    deadlines: Deadlines<u64>,
    paused: bool,
}

#[derive(Debug)]
struct Entry {
    id: u32,
    message: Arc<Outgoing>,
    size: usize,
    to: To,
    /// None: reported.
    request: Option<RequestId>,
    /// False while it waits for the link.
    sent: bool,
    recipients: BTreeMap<RouteName, Recipient>,
    /// How many recipients are awaited.
    awaited: usize,
}

#[derive(Debug)]
struct Recipient {
    name: Name,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Awaited {
        retry: Retry,
        since: Duration,
        /// It had been missing before.
        again: bool,
    },
    Acked,
    Missing,
    Lost,
    Gone,
}

impl State {
    fn is_awaited(self) -> bool {
        matches!(self, Self::Awaited { .. })
    }
}

impl Outbound {
    /// Without timers the session is unreliable.
    pub(crate) fn new(timers: Option<Timers>) -> Self {
        Self {
            timers,
            next_id: 1,
            next_key: 0,
            entries: BTreeMap::new(),
            keys: BTreeMap::new(),
            open: BTreeSet::new(),
            reported: BTreeSet::new(),
            bytes: 0,
            open_bytes: 0,
            heard_at: BTreeMap::new(),
            deadlines: Deadlines::new(),
            paused: false,
        }
    }

    /// Whether the next publish has to wait until an open message is reported.
    pub(crate) fn is_full(&self) -> bool {
        self.open() >= WINDOW || self.open_bytes >= WINDOW_BYTES
    }

    /// Number of messages that are not reported yet.
    pub(crate) fn open(&self) -> usize {
        self.open.len()
    }

    /// The key that the next reliable publish gets. Keys count up for ever; an
    /// unreliable publish takes none.
    pub(crate) fn next_key(&self) -> u64 {
        self.next_key
    }

    /// The smallest key of a message that is not reported yet. With none below it,
    /// all that was published before that [`Self::next_key`] is reported.
    pub(crate) fn oldest_open(&self) -> Option<u64> {
        self.open.first().copied()
    }

    /// Takes a message; ask [`Self::is_full`] before. Returns its id. While the
    /// link is lost a reliable message is kept and sent on [`Self::resume`].
    pub(crate) fn publish(
        &mut self,
        at: Duration,
        request: RequestId,
        message: Outgoing,
        audience: Audience,
    ) -> (u32, Vec<Action>) {
        let message = Arc::new(message);
        let (id, to, online, offline) = match audience {
            Audience::All { online, offline } if online.is_empty() => {
                (self.take_id(), To::All, offline, online)
            }
            Audience::All { online, offline } => (self.take_id(), To::All, online, offline),
            Audience::One { member, id } => {
                (self.free_direct_id(id), To::One(member.clone()), vec![member], Vec::new())
            }
        };
        let mut actions = Vec::new();
        let Some(timers) = self.timers else {
            actions.push(Action::Send { id, to, message });
            actions.push(Action::Done { request, report: DeliveryReport::default() });
            return (id, actions);
        };

        let retry = Retry::sent(at, &timers);
        let awaited = State::Awaited { retry, since: at, again: false };
        let recipients: BTreeMap<_, _> = offline
            .into_iter()
            .map(|name| (name, State::Missing))
            .chain(online.into_iter().map(|name| (name, awaited)))
            .map(|(name, state)| (name.route(), Recipient { name, state }))
            .collect();
        let entry = Entry {
            id,
            size: size(&message),
            message,
            to,
            request: Some(request),
            sent: !self.paused,
            awaited: recipients.values().filter(|recipient| recipient.state.is_awaited()).count(),
            recipients,
        };
        if entry.sent {
            actions.push(entry.first_copy());
        }
        let key = self.next_key;
        self.next_key += 1;
        self.keys.insert(id, key);
        self.bytes += entry.size;
        self.open_bytes += entry.size;
        self.entries.insert(key, entry);
        self.open.insert(key);
        self.deadlines.set(key, Some(retry.due()));
        self.settle([key], &mut actions);
        (id, actions)
    }

    /// A `MSG_ACK`, for whatever id.
    pub(crate) fn ack(&mut self, at: Duration, from: &Name, id: u32) -> Vec<Action> {
        let mut actions = Vec::new();
        self.acknowledge(at, from, id, &mut actions);
        actions
    }

    /// An `RTX_REQUEST`: the message to reply with, or none if there is no such
    /// message (any more) for this member. It is a sign of life, not an ack.
    pub(crate) fn rtx_request(
        &mut self,
        at: Duration,
        from: &Name,
        id: u32,
    ) -> Option<Arc<Outgoing>> {
        let route = from.route();
        let entry = self.keys.get(&id).and_then(|key| self.entries.get(key))?;
        if entry.recipients.get(&route)?.state == State::Gone {
            return None;
        }
        self.heard_at.insert(route, at);
        Some(Arc::clone(&entry.message))
    }

    /// The member left or was removed: nothing waits for it, and it gets nothing
    /// more of what was sent so far, not even if it joins again.
    pub(crate) fn member_gone(&mut self, name: &Name) -> Vec<Action> {
        let route = name.route();
        self.heard_at.remove(&route);
        let mut released = Vec::new();
        for (&key, entry) in &mut self.entries {
            let Some(recipient) = entry.recipients.get_mut(&route) else { continue };
            match recipient.state {
                State::Acked => continue,
                State::Awaited { .. } => {
                    entry.awaited -= 1;
                    released.push(key);
                }
                State::Missing | State::Lost | State::Gone => {}
            }
            recipient.state = State::Gone;
        }
        let mut actions = Vec::new();
        self.settle(released, &mut actions);
        actions
    }

    /// The member is offline: nothing waits for it.
    pub(crate) fn member_offline(&mut self, name: &Name) -> Vec<Action> {
        let released = self.set_missing(name.route());
        let mut actions = Vec::new();
        self.settle(released, &mut actions);
        actions
    }

    /// The member was offline and is back: it gets what it did not acknowledge, in
    /// order, and is awaited again, also for what was reported already.
    pub(crate) fn member_online(&mut self, at: Duration, name: &Name) -> Vec<Action> {
        let mut actions = Vec::new();
        let Some(timers) = self.timers else {
            return actions;
        };
        for (&key, entry) in &mut self.entries {
            let Some(recipient) = entry.recipients.get_mut(&name.route()) else { continue };
            match recipient.state {
                State::Missing => entry.awaited += 1,
                State::Awaited { .. } => {}
                State::Acked | State::Lost | State::Gone => continue,
            }
            let retry = Retry::sent(at, &timers);
            recipient.state = State::Awaited { retry, since: at, again: true };
            let to = To::One(recipient.name.clone());
            self.deadlines.set_earlier(key, retry.due());
            // Without a link it is sent on resume, like everything awaited.
            if !self.paused {
                actions.push(entry.copy(to));
            }
        }
        actions
    }

    /// When to [`tick`](Self::tick): set while anybody is awaited and the link is up.
    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        if self.paused { None } else { self.deadlines.next() }
    }

    /// Sends copies to who has been silent for a period, gives up on who has been
    /// for all of them.
    pub(crate) fn tick(&mut self, at: Duration) -> Vec<Action> {
        let mut actions = Vec::new();
        let Some(timers) = self.timers.filter(|_| !self.paused) else {
            return actions;
        };
        let mut silent = BTreeMap::new();
        let mut polled = BTreeSet::new();
        while let Some(key) = self.deadlines.pop_due(at) {
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            if !entry.sent {
                entry.sent = true;
                entry.restart(Retry::sent(at, &timers), at);
                actions.push(entry.first_copy());
            }
            let next = entry.poll(at, &timers, &self.heard_at, &mut silent, &mut actions);
            self.deadlines.set(key, next);
            polled.insert(key);
        }
        for (route, name) in silent {
            actions.push(Action::Silent(name));
            polled.extend(self.set_missing(route));
        }
        self.settle(polled, &mut actions);
        actions
    }

    /// The link is lost: timers stand still.
    pub(crate) fn pause(&mut self) {
        self.paused = true;
    }

    /// The link is back: what is awaited is due at once and has all its
    /// repetitions again.
    pub(crate) fn resume(&mut self, at: Duration) {
        self.paused = false;
        let Some(timers) = self.timers else { return };
        for (&key, entry) in &mut self.entries {
            if entry.awaited > 0 {
                entry.restart(Retry::unsent(at, &timers), at);
                self.deadlines.set(key, Some(at));
            }
        }
    }

    /// The session is over: every open message is reported as it stands, and the
    /// buffer is empty.
    pub(crate) fn fail_all(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        for entry in std::mem::take(&mut self.entries).values_mut() {
            actions.extend(entry.report());
        }
        *self = Self { next_id: self.next_id, next_key: self.next_key, ..Self::new(self.timers) };
        actions
    }

    // -------------------------------------------------------------- inside

    fn take_id(&mut self) -> u32 {
        let id = self.next_id;
        self.next_id = (id + 1) % DIRECT;
        id
    }

    fn free_direct_id(&self, wished: u32) -> u32 {
        // The highest of all is not in the range.
        let valid = |id: u32| {
            if id | DIRECT == u32::MAX { DIRECT } else { id | DIRECT }
        };
        let mut id = valid(wished);
        while self.keys.contains_key(&id) {
            id = valid(id.wrapping_add(1));
        }
        id
    }

    fn acknowledge(&mut self, at: Duration, from: &Name, id: u32, actions: &mut Vec<Action>) {
        let route = from.route();
        let Some(&key) = self.keys.get(&id) else { return };
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let Some(recipient) = entry.recipients.get_mut(&route) else { return };
        if recipient.state != State::Gone {
            self.heard_at.insert(route, at);
        }
        if recipient.state.is_awaited() {
            entry.awaited -= 1;
        }
        recipient.state = State::Acked;
        self.settle([key], actions);
    }

    /// Stops awaiting a recipient; returns the messages that awaited it.
    fn set_missing(&mut self, route: RouteName) -> Vec<u64> {
        let mut released = Vec::new();
        for (&key, entry) in &mut self.entries {
            let Some(recipient) = entry.recipients.get_mut(&route) else { continue };
            if recipient.state.is_awaited() {
                recipient.state = State::Missing;
                entry.awaited -= 1;
                released.push(key);
            }
        }
        released
    }

    /// Reports those of the messages that nobody is awaited for.
    fn settle(&mut self, keys: impl IntoIterator<Item = u64>, actions: &mut Vec<Action>) {
        for key in keys {
            let entry = self.entries.get_mut(&key).filter(|entry| entry.awaited == 0);
            let Some(entry) = entry else { continue };
            self.deadlines.set(key, None);
            if let Some(done) = entry.report() {
                self.open_bytes -= entry.size;
                self.open.remove(&key);
                self.reported.insert(key);
                actions.push(done);
            }
        }
        self.evict();
    }

    fn evict(&mut self) {
        while self.entries.len() > WINDOW || self.bytes > WINDOW_BYTES {
            let Some(key) = self.reported.pop_first() else { return };
            let Some(entry) = self.entries.remove(&key) else { continue };
            self.bytes -= entry.size;
            self.deadlines.set(key, None);
            if self.keys.get(&entry.id) == Some(&key) {
                self.keys.remove(&entry.id);
            }
        }
    }
}

impl Entry {
    fn copy(&self, to: To) -> Action {
        Action::Send { id: self.id, to, message: Arc::clone(&self.message) }
    }

    fn first_copy(&self) -> Action {
        self.copy(self.to.clone())
    }

    fn restart(&mut self, retry: Retry, at: Duration) {
        for recipient in self.recipients.values_mut() {
            if let State::Awaited { again, .. } = recipient.state {
                recipient.state = State::Awaited { retry, since: at, again };
            }
        }
    }

    /// Takes what is due; returns when the next is.
    fn poll(
        &mut self,
        at: Duration,
        timers: &Timers,
        heard_at: &BTreeMap<RouteName, Duration>,
        silent: &mut BTreeMap<RouteName, Name>,
        actions: &mut Vec<Action>,
    ) -> Option<Duration> {
        let mut next: Option<Duration> = None;
        for (route, Recipient { name, state }) in &mut self.recipients {
            let State::Awaited { retry, since, again } = state else { continue };
            match retry.poll(at, timers) {
                Turn::Wait => {}
                Turn::Repeat => actions.push(Action::Send {
                    id: self.id,
                    to: To::One(name.clone()),
                    message: Arc::clone(&self.message),
                }),
                Turn::GiveUp => {
                    self.awaited -= 1;
                    // Who acknowledges or asks for messages is there, and just cannot
                    // take this one.
                    let answers = heard_at.get(route).is_some_and(|heard| heard >= since);
                    if !answers {
                        silent.insert(*route, name.clone());
                    }
                    // Once more when it is back, but not for ever.
                    *state = if answers || *again { State::Lost } else { State::Missing };
                    continue;
                }
            }
            let due = retry.due();
            next = Some(next.map_or(due, |next| next.min(due)));
        }
        next
    }

    fn report(&mut self) -> Option<Action> {
        let request = self.request.take()?;
        let mut report = DeliveryReport::default();
        for Recipient { name, state } in self.recipients.values() {
            match state {
                State::Acked => report.delivered.push(name.clone()),
                State::Awaited { .. } | State::Missing | State::Lost | State::Gone => {
                    report.lost.push(name.clone());
                }
            }
        }
        Some(Action::Done { request, report })
    }
}

fn size(message: &Outgoing) -> usize {
    let metadata = message.metadata.iter().map(|(key, value)| key.len() + value.len());
    message.payload.len() + message.payload_type.len() + metadata.sum::<usize>()
}
