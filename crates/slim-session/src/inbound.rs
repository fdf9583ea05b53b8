//! The receiver's side of data: one stream per sender, put in order, without
//! duplicates, and with each missing message asked for.
//!
//! A stream remembers the last id that it passed on and, behind the first gap,
//! one slot for each id up to the highest that arrived:
//!
//! | the slot is | a `MSG` fills it | an `RTX_REPLY` fills it | passed on as |
//! |---|---|---|---|
//! | missing: asked for, again at P, 2P … R·P | yes | yes | – |
//! | lost: the sender has it no more, or never answered | yes | no | lost, in its place |
//! | a message | duplicate | no | message |
//!
//! A point-to-point stream starts at id 1, and so does a group's if its sender
//! joined after us. Any other starts at whatever arrives first. What was sent before
//! that and arrives later is not delivered, since that would be out of order, but
//! when it arrives it is told as lost, once: it may be the sender's first message to
//! us, sent again or overtaken, and the sender is going to report it as delivered.
//! Or it is from before we joined: a reference sender that takes us for offline
//! repeats all that it has when we are back.
//!
//! The front slot is missing, or it would have been passed on; the rear one has
//! arrived. Ids count modulo 2^31: one is ahead of another if it is reached sooner
//! by counting up than by counting down.
//!
//! A sender that left and was invited again counts from 1 again. Whoever was away
//! meanwhile learns only that it is a member, as before. So a stream remembers what
//! its last [`WINDOW`] messages were: a known id with other content, or one that no
//! sender keeps any more, starts it anew. Of what was lost before we were away there is
//! no content to compare: what comes in its place may be that one, sent again, or one of
//! a new count. It is not delivered, and told as lost, for the sender is going to report
//! it as delivered.
//!
//! A stream is kept while its sender is offline, since only what it remembers
//! tells a message that was sent again from a new one. Whoever uses this admits
//! members only, so the streams are as many as they.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hasher};
use std::iter;
use std::time::Duration;

use slim_proto::{Name, RouteName};

use crate::retry::{Deadlines, Retry, Turn};
use crate::{ReceivedMessage, Timers, outbound::is_direct};

#[cfg(test)]
mod tests;

/// Ids that a stream has slots for. A sender keeps 512 messages, so more gives
/// no chance to mend anything. A message that would lie further ahead makes the
/// oldest gap count as lost; if nothing has arrived behind the gap, the stream
/// goes on from that message.
pub(crate) const SPAN: usize = 1024;

/// Memory of all messages that wait behind gaps, in bytes. When it is exceeded,
/// the oldest gap of the stream that holds most counts as lost.
pub(crate) const BUFFER_BYTES: usize = 64 << 20;

/// As many messages as a sender keeps, and so can send again: what is farther back
/// than this is no copy.
pub(crate) const WINDOW: usize = 512;

/// Ids of messages to us alone that are remembered per sender. One that is sent
/// again after so many others is delivered twice.
pub(crate) const DIRECT_MEMORY: usize = 512;

/// Ids of ordered messages are counted modulo 2^31.
const ID_MASK: u32 = (1 << 31) - 1;

/// Memory of a waiting message beside its content, roughly: the frame's header is
/// kept with the payload.
const MESSAGE_OVERHEAD: usize = 1024;

/// Whether a message is one that we did not have. A `MSG` is acknowledged either
/// way, an `RTX_REPLY` only if it is new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// It is delivered now or waits for its turn.
    New,
    /// It was delivered or lost before, waits already, lies before the start of the
    /// stream, or is a reply that nobody asked for.
    Duplicate,
}

/// What the session has to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Give this to the application.
    Deliver(ReceivedMessage),
    /// Tell the application that so many messages are missing in this place, or
    /// one from before the start of the stream.
    Lost {
        /// Whose.
        source: Name,
        /// At least 1.
        count: u32,
    },
    /// Send an `RTX_REQUEST`.
    Request {
        /// To whom.
        source: Name,
        /// For which message.
        id: u32,
    },
}

/// What we receive in one session.
#[derive(Debug)]
pub(crate) struct Inbound {
    /// None: unreliable, everything is delivered as it comes.
    timers: Option<Timers>,
    is_p2p: bool,
    streams: BTreeMap<RouteName, Stream>,
    direct: BTreeMap<RouteName, VecDeque<u32>>,
    /// Memory of the waiting messages of all streams.
    bytes: usize,
    deadlines: Deadlines<RouteName>,
    paused: bool,
}

#[derive(Debug)]
struct Stream {
    source: Name,
    /// The last that was passed on.
    last: u32,
    /// Nothing was sent before what was passed on.
    starts_at_one: bool,
    /// Ids before the start that were told as lost, with the hash of the content.
    told: BTreeMap<u32, u64>,
    /// The last that were passed on, the newest in front, up to [`WINDOW`].
    recent: VecDeque<Passed>,
    /// The ids after `last`.
    slots: VecDeque<Slot>,
    /// Memory of the messages in the slots.
    bytes: usize,
}

/// What was passed on.
#[derive(Clone, Debug)]
enum Passed {
    Lost,
    /// Lost before its sender may have begun to count anew.
    LostBefore,
    /// The hash of the content; also of what came in the place of [`Self::LostBefore`].
    Message(u64),
}

#[derive(Debug)]
enum Slot {
    Missing(Retry),
    Lost,
    Message(ReceivedMessage),
}

impl Inbound {
    /// Without timers the session is unreliable.
    pub(crate) fn new(timers: Option<Timers>, is_p2p: bool) -> Self {
        Self {
            timers,
            is_p2p,
            streams: BTreeMap::new(),
            direct: BTreeMap::new(),
            bytes: 0,
            deadlines: Deadlines::new(),
            paused: false,
        }
    }

    /// Who joins after us sends us everything from its first message on. Changes
    /// nothing if it has a stream already.
    pub(crate) fn expect_first(&mut self, source: &Name) {
        if self.timers.is_some() {
            self.start(source, 0, true);
        }
    }

    /// We may have missed that senders left and came back.
    pub(crate) fn expect_new_counts(&mut self) {
        // The peer of a point-to-point session cannot come back.
        if self.is_p2p {
            return;
        }
        for passed in self.streams.values_mut().flat_map(|stream| &mut stream.recent) {
            if matches!(passed, Passed::Lost) {
                *passed = Passed::LostBefore;
            }
        }
    }

    fn start(&mut self, source: &Name, last: u32, starts_at_one: bool) {
        self.streams.entry(source.route()).or_insert_with(|| Stream {
            source: source.clone(),
            last,
            starts_at_one,
            told: BTreeMap::new(),
            recent: VecDeque::new(),
            slots: VecDeque::new(),
            bytes: 0,
        });
    }

    /// A `MSG` that is for all.
    pub(crate) fn receive(
        &mut self,
        at: Duration,
        id: u32,
        message: ReceivedMessage,
    ) -> (Arrival, Vec<Action>) {
        let Some(timers) = self.timers else {
            return (Arrival::New, vec![Action::Deliver(message)]);
        };
        // Not a number of the sequence; taken for what the numbers up there are for.
        if is_direct(id) {
            return self.receive_direct(id, message);
        }
        let route = message.source.route();
        let last = if self.is_p2p { 0 } else { id.wrapping_sub(1) & ID_MASK };
        self.start(&message.source, last, self.is_p2p);
        let mut arrival = Arrival::Duplicate;
        let actions = self.update(route, |stream, actions| {
            arrival = stream.insert(at, &timers, id, message, actions);
        });
        (arrival, actions)
    }

    /// A `MSG` for us alone (`PUBLISH_TO`): outside the order, at once, once.
    pub(crate) fn receive_direct(
        &mut self,
        id: u32,
        message: ReceivedMessage,
    ) -> (Arrival, Vec<Action>) {
        if self.timers.is_some() {
            let recent = self.direct.entry(message.source.route()).or_default();
            if recent.contains(&id) {
                return (Arrival::Duplicate, Vec::new());
            }
            if recent.len() == DIRECT_MEMORY {
                recent.pop_front();
            }
            recent.push_back(id);
        }
        (Arrival::New, vec![Action::Deliver(message)])
    }

    /// An `RTX_REPLY` with the message; means nothing unless it is asked for. Only
    /// what is new is acknowledged: the sender goes on sending copies until then.
    pub(crate) fn reply(&mut self, id: u32, message: ReceivedMessage) -> (Arrival, Vec<Action>) {
        let mut arrival = Arrival::Duplicate;
        let actions = self.update(message.source.route(), |stream, _| {
            if let Some(slot @ Slot::Missing(_)) = stream.slot_mut(id) {
                let size = size(&message);
                *slot = Slot::Message(message);
                stream.bytes += size;
                arrival = Arrival::New;
            }
        });
        (arrival, actions)
    }

    /// An `RTX_REPLY` with `error`: the sender has the message no more. Means
    /// nothing unless it is asked for.
    pub(crate) fn reply_lost(&mut self, source: &Name, id: u32) -> Vec<Action> {
        self.update(source.route(), |stream, _| {
            if let Some(slot @ Slot::Missing(_)) = stream.slot_mut(id) {
                *slot = Slot::Lost;
            }
        })
    }

    /// When to [`tick`](Self::tick): set while anything is asked for and the link
    /// is up.
    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        if self.paused { None } else { self.deadlines.next() }
    }

    /// Asks again for what is missing, gives up what was asked for often enough.
    pub(crate) fn tick(&mut self, at: Duration) -> Vec<Action> {
        let mut actions = Vec::new();
        let Some(timers) = self.timers.filter(|_| !self.paused) else {
            return actions;
        };
        while let Some(route) = self.deadlines.pop_due(at) {
            actions.extend(self.update(route, |stream, actions| {
                stream.poll(at, &timers, actions);
            }));
        }
        actions
    }

    /// The link is lost: timers stand still.
    pub(crate) fn pause(&mut self) {
        self.paused = true;
    }

    /// The link is back: what is missing is asked for at once, and as often as if
    /// it were new.
    pub(crate) fn resume(&mut self, at: Duration) {
        self.paused = false;
        let Some(timers) = self.timers else { return };
        for (&route, stream) in &mut self.streams {
            for slot in &mut stream.slots {
                if let Slot::Missing(retry) = slot {
                    *retry = Retry::unsent(at, &timers);
                }
            }
            self.deadlines.set(route, stream.next_due());
        }
    }

    /// The sender left or was removed: its gaps are lost, what waited behind them
    /// is delivered. Its next message, should it join again, starts a new stream.
    pub(crate) fn forget(&mut self, source: &Name) -> Vec<Action> {
        let route = source.route();
        self.direct.remove(&route);
        let actions = self.update(route, |stream, _| stream.give_up());
        self.streams.remove(&route);
        actions
    }

    /// The session is over: [forgets](Self::forget) every sender.
    pub(crate) fn forget_all(&mut self) -> Vec<Action> {
        let sources: Vec<Name> =
            self.streams.values().map(|stream| stream.source.clone()).collect();
        self.direct.clear();
        sources.iter().flat_map(|source| self.forget(source)).collect()
    }

    // -------------------------------------------------------------- inside

    /// Changes a stream, if there is one, and passes on what has become ready.
    fn update(
        &mut self,
        route: RouteName,
        change: impl FnOnce(&mut Stream, &mut Vec<Action>),
    ) -> Vec<Action> {
        let mut actions = Vec::new();
        self.change(route, &mut actions, change);
        while self.bytes > BUFFER_BYTES {
            let largest = self.streams.iter().max_by_key(|(_, stream)| stream.bytes);
            let Some((&route, _)) = largest else { break };
            self.change(route, &mut actions, |stream, _| stream.give_up_gap());
        }
        actions
    }

    fn change(
        &mut self,
        route: RouteName,
        actions: &mut Vec<Action>,
        change: impl FnOnce(&mut Stream, &mut Vec<Action>),
    ) {
        let Some(stream) = self.streams.get_mut(&route) else { return };
        self.bytes -= stream.bytes;
        change(stream, actions);
        stream.release(actions);
        self.bytes += stream.bytes;
        self.deadlines.set(route, stream.next_due());
    }
}

impl Stream {
    fn insert(
        &mut self,
        at: Duration,
        timers: &Timers,
        id: u32,
        message: ReceivedMessage,
        actions: &mut Vec<Action>,
    ) -> Arrival {
        if self.index(id).is_none() && self.is_of_another_count(id, &message) {
            self.start_anew(actions);
        }
        let Some(mut index) = self.index(id) else {
            let behind = self.behind(id);
            let is_lost = match self.recent.get_mut(behind) {
                Some(passed @ Passed::LostBefore) => {
                    *passed = Passed::Message(hash_of(&message));
                    true
                }
                Some(_) => false,
                // Before the start.
                None => {
                    let is_lost = !self.starts_at_one && behind < WINDOW;
                    is_lost && self.told.insert(id, hash_of(&message)).is_none()
                }
            };
            if is_lost {
                actions.push(self.lost(1));
            }
            return Arrival::Duplicate;
        };
        while index >= SPAN {
            if self.slots.is_empty() {
                actions.push(self.lost(index as u32));
                self.last = self.last.wrapping_add(index as u32) & ID_MASK;
                self.recent = iter::repeat_n(Passed::Lost, WINDOW).collect();
                index = 0;
            } else {
                let before = self.slots.len();
                self.give_up_gap();
                self.release(actions);
                index -= before - self.slots.len();
            }
        }
        if let Some(Slot::Message(_)) = self.slots.get(index) {
            return Arrival::Duplicate;
        }
        for missing in self.slots.len()..index {
            actions.push(Action::Request { source: self.source.clone(), id: self.id(missing) });
            self.slots.push_back(Slot::Missing(Retry::sent(at, timers)));
        }
        self.bytes += size(&message);
        let slot = Slot::Message(message);
        match self.slots.get_mut(index) {
            Some(missing) => *missing = slot,
            None => self.slots.push_back(slot),
        }
        Arrival::New
    }

    /// Whether this, which is not ahead, cannot be a copy of what was passed on, but
    /// comes from a sender that counts anew.
    fn is_of_another_count(&self, id: u32, message: &ReceivedMessage) -> bool {
        match self.recent.get(self.behind(id)) {
            Some(&Passed::Message(hash)) => hash != hash_of(message),
            Some(Passed::Lost | Passed::LostBefore) => false,
            None if id < self.last && self.behind(id) >= WINDOW => true,
            None => self.told.get(&id).is_some_and(|&hash| hash != hash_of(message)),
        }
    }

    /// What waits is passed on, and the stream goes on from id 1.
    fn start_anew(&mut self, actions: &mut Vec<Action>) {
        self.give_up();
        self.release(actions);
        self.last = 0;
        self.starts_at_one = true;
        self.told.clear();
        self.recent.clear();
    }

    /// One more was passed on.
    fn advance(&mut self, passed: Passed) {
        self.last = self.last.wrapping_add(1) & ID_MASK;
        self.recent.push_front(passed);
        self.recent.truncate(WINDOW);
    }

    /// How far the last that was passed on is ahead of this.
    fn behind(&self, id: u32) -> usize {
        (self.last.wrapping_sub(id) & ID_MASK) as usize
    }

    /// Where the slot of this id is or would be; none if it was passed on.
    fn index(&self, id: u32) -> Option<usize> {
        let ahead = id.wrapping_sub(self.last) & ID_MASK;
        (1..=1 << 30).contains(&ahead).then(|| ahead as usize - 1)
    }

    fn slot_mut(&mut self, id: u32) -> Option<&mut Slot> {
        let index = self.index(id).filter(|_| !is_direct(id))?;
        self.slots.get_mut(index)
    }

    fn id(&self, index: usize) -> u32 {
        self.last.wrapping_add(1 + index as u32) & ID_MASK
    }

    fn poll(&mut self, at: Duration, timers: &Timers, actions: &mut Vec<Action>) {
        for index in 0..self.slots.len() {
            let Slot::Missing(retry) = &mut self.slots[index] else { continue };
            match retry.poll(at, timers) {
                Turn::Wait => {}
                Turn::Repeat => actions
                    .push(Action::Request { source: self.source.clone(), id: self.id(index) }),
                Turn::GiveUp => self.slots[index] = Slot::Lost,
            }
        }
    }

    /// The oldest gap is lost.
    fn give_up_gap(&mut self) {
        for slot in &mut self.slots {
            match slot {
                Slot::Missing(_) => *slot = Slot::Lost,
                Slot::Lost => {}
                Slot::Message(_) => return,
            }
        }
    }

    /// All gaps are lost.
    fn give_up(&mut self) {
        for slot in &mut self.slots {
            if let Slot::Missing(_) = slot {
                *slot = Slot::Lost;
            }
        }
    }

    /// Passes on what is in front of the first gap.
    fn release(&mut self, actions: &mut Vec<Action>) {
        let mut lost = 0;
        while let Some(slot) = self.slots.pop_front() {
            match slot {
                Slot::Missing(_) => {
                    self.slots.push_front(slot);
                    break;
                }
                Slot::Lost => {
                    lost += 1;
                    self.advance(Passed::Lost);
                }
                Slot::Message(message) => {
                    if lost > 0 {
                        actions.push(self.lost(lost));
                        lost = 0;
                    }
                    self.bytes -= size(&message);
                    self.advance(Passed::Message(hash_of(&message)));
                    actions.push(Action::Deliver(message));
                }
            }
        }
        if lost > 0 {
            actions.push(self.lost(lost));
        }
    }

    fn lost(&self, count: u32) -> Action {
        Action::Lost { source: self.source.clone(), count }
    }

    fn next_due(&self) -> Option<Duration> {
        let due = |slot: &Slot| match slot {
            Slot::Missing(retry) => Some(retry.due()),
            Slot::Lost | Slot::Message(_) => None,
        };
        self.slots.iter().filter_map(due).min()
    }
}

fn hash_of(message: &ReceivedMessage) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(&message.payload);
    hasher.finish()
}

fn size(message: &ReceivedMessage) -> usize {
    let metadata = message.metadata.iter().map(|(key, value)| key.len() + value.len());
    MESSAGE_OVERHEAD + message.payload.len() + message.payload_type.len() + metadata.sum::<usize>()
}
