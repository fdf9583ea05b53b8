//! What makes a [`relay`](crate::relay) stop a link at a message of a given kind, so
//! that something can happen right there.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use slim_proto::Message;
use tokio::sync::oneshot;

use crate::relay::{Direction, Fate, Policy};

/// What becomes of a kind of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Catch {
    /// The first of them is held.
    Hold,
    /// All of them are lost.
    Lose,
}

/// Says what happens to the links of a relay.
#[derive(Debug)]
pub struct Holding {
    state: Mutex<State>,
    on_held: fn(),
}

#[derive(Debug, Default)]
struct State {
    order: Option<Order>,
    /// Who waits to be released.
    held: Option<oneshot::Sender<bool>>,
}

/// A request for messages of one kind.
#[derive(Debug)]
struct Order {
    catch: Catch,
    /// As `MessageType` is called.
    kind: String,
    direction: Direction,
}

impl Holding {
    /// Everything passes. `on_held` is called whenever a message is held.
    pub fn new(on_held: fn()) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), on_held })
    }

    /// Catches messages of this kind from now on. What is held already ends its link.
    pub fn catch(&self, catch: Catch, kind: &str, direction: Direction) {
        let order = Order { catch, kind: kind.to_owned(), direction };
        *self.state() = State { order: Some(order), held: None };
    }

    /// Catches nothing any more. What is held goes on if `pass`; otherwise its link
    /// ends.
    pub fn release(&self, pass: bool) {
        let State { held, .. } = std::mem::take(&mut *self.state());
        if let Some(held) = held {
            // Its link may have ended already.
            held.send(pass).ok();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The policy of one direction of a link.
    pub fn policy(self: &Arc<Self>, direction: Direction) -> Policy {
        let holding = Arc::clone(self);
        Box::new(move |message| holding.fate(direction, message))
    }

    fn fate(&self, direction: Direction, message: &Bytes) -> Fate {
        let mut state = self.state();
        let Some(order) = state.order.as_ref().filter(|order| order.is_for(direction, message))
        else {
            return Fate::Pass;
        };
        if order.catch == Catch::Lose {
            return Fate::Lose;
        }
        let (release, released) = oneshot::channel();
        *state = State { order: None, held: Some(release) };
        drop(state);
        (self.on_held)();
        // Without anybody who could release it, its link ends.
        Fate::Hold(Box::pin(async move { released.await.unwrap_or(false) }))
    }
}

impl Order {
    fn is_for(&self, direction: Direction, message: &Bytes) -> bool {
        let kind = || match Message::decode(message.clone()) {
            Ok(Message::Publish(publish)) => format!("{:?}", publish.body.message_type()),
            _ => String::new(),
        };
        self.direction == direction && self.kind == kind()
    }
}
