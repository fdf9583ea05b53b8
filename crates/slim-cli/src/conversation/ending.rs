//! How a conversation ends: told to, by the others, or because it failed.

use std::time::Duration;

use futures_util::FutureExt as _;
use slim_client::{ClientEvent, ClientEvents, CloseReason, Session};
use tokio::time::timeout;

use super::{Closing, Conversation, Leaving, Live};
use crate::args::Role;
use crate::failure::Failure;
use crate::output::{Event, Reason};
use crate::p2p::Rounds;

/// How long the others have to confirm that a session is over. The session itself
/// gives them less, but its time stands still while the node is away.
const CLOSING_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a node that is away when we leave may take to come back, so that somebody
/// can be told: long enough for one that is merely being started again.
const RETURN_TIMEOUT: Duration = Duration::from_secs(2);

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
            let away = self.is_away.then(|| self.client.events());
            self.closing.push(Box::pin(async move {
                let has_others = has_others(&session).await;
                if leaving == Leaving::WithOutcomes {
                    session.flush().await;
                }
                if let Some(events) = away {
                    // If it does not, the session ends without the others.
                    timeout(RETURN_TIMEOUT, reconnected(events)).await.ok();
                }
                let stalled = timeout(CLOSING_TIMEOUT, session.close()).await.is_err();
                Closing { session: session.id(), has_others, stalled }
            }));
        }
    }

    /// A session was told to close. If it stalled, it will not tell its end.
    pub(super) fn on_closing(&mut self, closing: &Closing) {
        // What ended it may be that the link is lost, which was told before.
        while let Some(Some(event)) = self.client_events.next().now_or_never() {
            self.on_client_event(event);
        }
        if self.is_away && closing.has_others {
            let node = self.client.node().to_owned();
            let what = match self.settings.role {
                Role::Moderator { .. } => "the group is closed",
                Role::Participant => "we left",
                Role::Caller { .. } | Role::Listener { .. } => "the call is over",
            };
            self.verdict.get_or_insert(Failure::NotTold { node, what });
        }
        if closing.stalled {
            self.on_closed(closing.session, CloseReason::Left);
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

/// Whether somebody else is there to be told.
async fn has_others(session: &Session) -> bool {
    session.members().await.iter().any(|member| member.online && !member.is_self)
}

/// Waits until the node answers again.
async fn reconnected(mut events: ClientEvents) {
    while !matches!(events.next().await, Some(ClientEvent::Reconnected) | None) {}
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
