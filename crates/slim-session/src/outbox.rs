//! Where the engine puts what the driver has to do, and what every part of it
//! needs at hand while it handles one input.

use rand::rngs::StdRng;
use slim_proto::{Message, SessionId};

use crate::api::{Done, Now, Output, RequestId, SessionEvent};
use crate::gate::Gate;
use crate::subscriptions::Subscriptions;
use crate::voice::Voice;

/// Outputs in the order in which they have to be carried out.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    outputs: Vec<Output>,
    /// While the link is down nothing is sent: timers stand still, and what
    /// matters is sent again once it is up.
    pub(crate) connected: bool,
}

impl Outbox {
    pub(crate) fn send(&mut self, message: Message) {
        if self.connected {
            self.outputs.push(Output::Send(message));
        }
    }

    pub(crate) fn event(&mut self, session: SessionId, event: SessionEvent) {
        self.outputs.push(Output::Event(session, event));
    }

    pub(crate) fn done(&mut self, request: RequestId, done: Done) {
        self.outputs.push(Output::Done(request, done));
    }

    pub(crate) fn push(&mut self, output: Output) {
        self.outputs.push(output);
    }

    pub(crate) fn take(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.outputs)
    }
}

/// At hand while one input is handled.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    pub(crate) now: Now,
    pub(crate) out: &'a mut Outbox,
    pub(crate) voice: &'a mut Voice,
    pub(crate) gate: &'a Gate,
    pub(crate) subscriptions: &'a mut Subscriptions,
    pub(crate) rng: &'a mut StdRng,
}
