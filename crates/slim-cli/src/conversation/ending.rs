//! How a conversation ends: told to, by the others, or because it failed.

use slim_client::CloseReason;

use super::{Conversation, Leaving, Live};
use crate::args::Role;
use crate::failure::Failure;
use crate::output::{Event, Reason};
use crate::p2p::Rounds;

impl Conversation<'_> {
    /// Whether nothing is left to be told or to be waited for.
    pub(super) fn is_over(&self) -> bool {
        let is_ending = self.leaving > Leaving::No || (self.had_session && !self.is_listener());
        is_ending && self.live.is_empty() && self.closing.is_empty()
    }

    /// Leaves all sessions. Told again, more urgently, it does so at once.
    pub(super) fn leave(&mut self, leaving: Leaving) {
        if leaving <= self.leaving {
            return;
        }
        self.leaving = leaving;
        self.calling = None.into();
        for live in &self.live {
            let session = live.session.clone();
            self.closing.push(Box::pin(async move {
                if leaving == Leaving::WithOutcomes {
                    session.flush().await;
                }
                session.close().await;
            }));
        }
    }

    /// Leaves, and the process fails in the end. The first reason counts.
    pub(super) fn fail(&mut self, failure: Failure) {
        self.verdict.get_or_insert(failure);
        self.leave(Leaving::Now);
    }

    /// Tells the end of the sessions that are over and have nothing outstanding.
    pub(super) fn tell_closed(&mut self) {
        let is_told = |live: &mut Live| live.closed.is_some() && live.outstanding == 0;
        let over: Vec<Live> = self.live.extract_if(.., is_told).collect();
        for live in over {
            if let Some(reason) = live.closed {
                self.tell(&live, reason);
            }
        }
    }

    fn tell(&mut self, live: &Live, reason: CloseReason) {
        let is_last = self.live.is_empty() && (self.leaving > Leaving::No || !self.is_listener());
        if is_last {
            // So that the last thing on the screen is not a prompt.
            self.source.close(self.output);
        }
        let session_id = live.session.id().0;
        self.output.emit(&Event::Closed { session_id, reason: reason_of(reason) });
        if self.is_listener() {
            return;
        }
        let is_unfinished = self.rounds.as_ref().is_some_and(Rounds::is_unfinished);
        match (reason, &self.settings.role) {
            (CloseReason::NodeLost, _) => {
                let node = self.client.node().to_owned();
                self.verdict.get_or_insert(Failure::NodeLost { node });
            }
            (CloseReason::PeerLeft, Role::Caller { peer, .. }) if is_unfinished => {
                self.verdict.get_or_insert(Failure::LeftWithoutAnswer { peer: peer.clone() });
            }
            _ => {}
        }
    }

    fn is_listener(&self) -> bool {
        matches!(self.settings.role, Role::Listener { .. })
    }
}

fn reason_of(reason: CloseReason) -> Reason {
    match reason {
        CloseReason::Left => Reason::Left,
        CloseReason::Removed => Reason::Removed,
        CloseReason::ModeratorClosed => Reason::ModeratorClosed,
        CloseReason::PeerLeft => Reason::PeerLeft,
        CloseReason::NodeLost => Reason::NodeLost,
    }
}
