//! The conversation: one loop in which everything that happens is told, and
//! everything that is typed is done.
//!
//! What takes time (an invitation, the acknowledgements of a line, closing a
//! session) is a future in one of the loop's sets, so that nothing waits for it.
//! The loop ends when its session is over, or, for a listener, when it is told to.
//! What is typed is in [`typed`], how it ends in [`ending`].

mod ending;
mod typed;

use bytes::Bytes;
use futures_util::future::{BoxFuture, OptionFuture};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use slim_client::{
    Client, ClientEvent, ClientEvents, CloseReason, CreateError, Delivery, DeliveryReport,
    InviteError, Name, Outgoing, ParticipantChange, PresenceError, PublishError, ReceivedMessage,
    RemoveError, Session, SessionConfig, SessionEvent, SessionId, SessionState, SessionType,
};
use tokio::time::{Instant, sleep_until};
use tracing::warn;

use crate::args::{Role, Settings};
use crate::failure::Failure;
use crate::group::{self, Invitations};
use crate::output::{
    Change, Encryption, Event, GroupRole, Member, Output, P2pRole, Payload, Place, SessionStart,
};
use crate::p2p::{self, Rounds, Step};
use crate::signals::Stop;
use crate::source::Source;

/// A session whose end was not told yet.
#[derive(Debug)]
struct Live {
    session: Session,
    /// Lines without their outcome.
    outstanding: usize,
    /// It is over; told when nothing is outstanding.
    closed: Option<CloseReason>,
}

/// Whether we are leaving, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Leaving {
    /// Not yet.
    No,
    /// What was published still gets its outcome.
    WithOutcomes,
    /// At once.
    Now,
}

/// What was typed, took a moment, and is done.
enum Done {
    Published { session: SessionId, payload: Bytes, result: Result<Delivery, PublishError> },
    Removed { session: SessionId, result: Result<(), RemoveError> },
    Presence { session: SessionId, online: bool, result: Result<(), PresenceError> },
    Who { session: SessionId, state: Option<SessionState> },
}

/// What became of a line.
struct Outcome {
    session: SessionId,
    line: u64,
    payload: Bytes,
    result: Result<DeliveryReport, PublishError>,
}

/// What became of an invitation.
struct Invited {
    session: SessionId,
    given: String,
    /// One of `--invites`.
    is_initial: bool,
    result: Result<Name, InviteError>,
}

/// A session that we have left, or closed for all.
struct Closing {
    session: SessionId,
    /// Somebody else was in and online.
    has_others: bool,
    /// It did not end in time.
    stalled: bool,
}

/// The state of the loop.
pub(crate) struct Conversation<'a> {
    settings: &'a Settings,
    client: Client,
    client_events: ClientEvents,
    output: &'a mut Output,
    source: Source,
    stop: Stop,
    /// Oldest first; what is typed goes to the newest.
    live: Vec<Live>,
    /// Whether there ever was a session.
    had_session: bool,
    invitations: Invitations,
    rounds: Option<Rounds>,
    /// Number of the next line.
    line: u64,
    leaving: Leaving,
    /// The node is lost and tried again.
    is_away: bool,
    /// Why the process fails, once everything is closed.
    verdict: Option<Failure>,
    input_ended: bool,
    /// The next session that others open.
    arriving: OptionFuture<BoxFuture<'static, Option<Session>>>,
    calling: OptionFuture<BoxFuture<'static, Result<Session, CreateError>>>,
    doing: OptionFuture<BoxFuture<'static, Done>>,
    events: FuturesUnordered<BoxFuture<'static, (Session, Option<SessionEvent>)>>,
    outcomes: FuturesUnordered<BoxFuture<'static, Outcome>>,
    inviting: FuturesUnordered<BoxFuture<'static, Invited>>,
    closing: FuturesUnordered<BoxFuture<'static, Closing>>,
    is_doing: bool,
}

impl<'a> Conversation<'a> {
    /// Of this client, which is connected.
    pub(crate) fn new(
        settings: &'a Settings,
        client: Client,
        output: &'a mut Output,
        source: Source,
        stop: Stop,
    ) -> Self {
        Self {
            settings,
            client_events: client.events(),
            client,
            output,
            source,
            stop,
            live: Vec::new(),
            had_session: false,
            invitations: Invitations::default(),
            rounds: None,
            line: 0,
            leaving: Leaving::No,
            is_away: false,
            verdict: None,
            input_ended: false,
            arriving: None.into(),
            calling: None.into(),
            doing: None.into(),
            events: FuturesUnordered::new(),
            outcomes: FuturesUnordered::new(),
            inviting: FuturesUnordered::new(),
            closing: FuturesUnordered::new(),
            is_doing: false,
        }
    }

    /// Lasts until the conversation is over.
    ///
    /// # Errors
    /// Why what was asked for could not be done.
    pub(crate) async fn run(mut self) -> Result<(), Failure> {
        let begun = self.begin().await;
        if begun.is_ok() {
            self.go_on().await;
        }
        self.source.close(self.output);
        begun.and(self.verdict.map_or(Ok(()), Err))
    }

    async fn go_on(&mut self) {
        let (stopped, broken) = (self.stop.requested(), self.output.broken());
        let mut stopped = OptionFuture::from(Some(Box::pin(stopped)));
        let mut broken = OptionFuture::from(Some(Box::pin(broken)));
        while !self.is_over() {
            self.take_turn();
            let alarm = self.rounds.as_ref().and_then(Rounds::deadline);
            let takes_input = self.takes_input();
            tokio::select! {
                Some(()) = &mut stopped => {
                    stopped = None.into();
                    self.leave(Leaving::Now);
                }
                Some(()) = &mut broken => {
                    broken = None.into();
                    self.fail(Failure::OutputClosed);
                }
                Some(event) = self.client_events.next() => self.on_client_event(event),
                Some((session, event)) = self.events.next() => self.on_event(session, event),
                Some(outcome) = self.outcomes.next() => self.on_outcome(outcome),
                Some(invited) = self.inviting.next() => self.on_invited(invited),
                Some(closing) = self.closing.next() => self.on_closing(&closing),
                Some(session) = &mut self.arriving => self.on_arrival(session).await,
                Some(called) = &mut self.calling => self.on_called(called).await,
                Some(done) = &mut self.doing => self.on_done(done),
                input = self.source.next(), if takes_input => self.on_input(input),
                Some(()) = OptionFuture::from(alarm.map(sleep_until)) => {}
            }
            self.tell_closed();
        }
    }

    /// Does what this role does first.
    async fn begin(&mut self) -> Result<(), Failure> {
        self.await_session();
        let settings = self.settings;
        let config = SessionConfig {
            timers: Some(settings.timers),
            mls: settings.mls,
            ..SessionConfig::default()
        };
        match &settings.role {
            Role::Moderator { channel, invites } => {
                let created = self.client.create_group(channel.clone(), config).await;
                let session = created.map_err(|error| p2p::other(&error))?;
                self.start(session.clone()).await;
                let given: Vec<&str> = invites.iter().map(|name| name.given.as_str()).collect();
                self.output.note(&format!("inviting {}", given.join(", ")));
                self.invitations = Invitations::new(invites);
                for invitee in invites {
                    self.invite(&session, invitee.clone(), true);
                }
            }
            Role::Caller { peer, .. } => {
                self.output.note(&format!("calling {peer}"));
                let (client, peer) = (self.client.clone(), peer.clone());
                let call = async move { client.create_p2p(peer, config).await };
                self.calling = Some(Box::pin(call) as BoxFuture<'_, _>).into();
            }
            Role::Participant | Role::Listener { .. } => self.output.emit(&Event::Waiting),
        }
        Ok(())
    }

    fn await_session(&mut self) {
        let client = self.client.clone();
        let session = async move { client.listen_for_session().await };
        self.arriving = Some(Box::pin(session) as BoxFuture<'_, _>).into();
    }

    async fn on_arrival(&mut self, session: Option<Session>) {
        let Some(session) = session else {
            self.arriving = None.into();
            return;
        };
        self.await_session();
        let is_wanted = match self.settings.role {
            Role::Participant => !self.had_session && is_group(&session),
            Role::Listener { .. } => !is_group(&session),
            Role::Moderator { .. } | Role::Caller { .. } => false,
        };
        if is_wanted && self.leaving == Leaving::No {
            self.start(session).await;
        } else {
            warn!(session = %session.id(), from = %session.info().remote, "session turned away");
            // Nobody waits for it: the other side may be as silent as it likes.
            tokio::spawn(async move { session.close().await });
        }
    }

    async fn on_called(&mut self, called: Result<Session, CreateError>) {
        self.calling = None.into();
        let Role::Caller { peer, script } = &self.settings.role else { return };
        match called {
            Ok(session) => {
                self.start(session).await;
                let patience = self.settings.timers.limit();
                self.rounds =
                    script.as_ref().map(|script| Rounds::new(script, patience, Instant::now()));
            }
            Err(error) => self.fail(p2p::call_failure(peer, error)),
        }
    }

    /// Tells that a session has begun, and follows it.
    async fn start(&mut self, session: Session) {
        self.had_session = true;
        let state = session.state().await;
        let info = session.info();
        let moderates = info.role == slim_client::Role::Moderator;
        let place = if is_group(&session) {
            let role = if moderates { GroupRole::Moderator } else { GroupRole::Participant };
            Place::Group { channel: info.remote.readable(), role }
        } else {
            let role = if moderates { P2pRole::Caller } else { P2pRole::Listener };
            Place::P2p { peer: info.remote.clone(), role }
        };
        self.output.emit(&Event::Session(SessionStart {
            session_id: info.id.0,
            place,
            mls: info.mls,
            encryption: encryption(state.as_ref()),
            members: members(state),
        }));
        self.events.push(next_event(session.clone(), None));
        self.live.push(Live { session, outstanding: 0, closed: None });
    }

    fn on_client_event(&mut self, event: ClientEvent) {
        let node = self.client.node().to_owned();
        match event {
            ClientEvent::Disconnected { reason } => {
                self.is_away = true;
                if let Some(rounds) = &mut self.rounds {
                    rounds.stall();
                }
                self.output.emit(&Event::Disconnected { node, reason });
            }
            ClientEvent::Reconnected => {
                self.is_away = false;
                if let Some(rounds) = &mut self.rounds {
                    rounds.resume(Instant::now());
                }
                let reason = "the node answers again".to_owned();
                self.output.emit(&Event::Reconnected { node, reason });
            }
            ClientEvent::IdentityMismatch { peer, reason } => {
                let message = format!("{reason}: what {} sends is ignored", peer.readable());
                self.error(None, "identity_mismatch", message);
            }
            ClientEvent::Declined { peer, .. } => {
                let message = format!("declined an invitation of {}", peer.readable());
                self.error(None, "invitation_declined", message);
            }
            ClientEvent::Unbound { peer, reason } => {
                let message = format!("{}: {reason}; let through all the same", peer.readable());
                self.error(None, "identity_unbound", message);
            }
            ClientEvent::Closed { reason } => self.fail(Failure::RefusedByNode { node, reason }),
        }
    }

    fn on_event(&mut self, session: Session, event: Option<SessionEvent>) {
        let session_id = session.id().0;
        let mut reply = None;
        let told = match event {
            Some(SessionEvent::Message(message)) => {
                if let Some(rounds) = &mut self.rounds {
                    rounds.answered();
                }
                if self.settings.role == (Role::Listener { echo: true }) {
                    reply = Some(echo(&message));
                }
                Event::Message {
                    session_id,
                    source: message.source,
                    payload: Payload(message.payload),
                    payload_type: message.payload_type,
                    metadata: message.metadata,
                    to_me: message.to_me,
                }
            }
            Some(SessionEvent::MessageLost { source, count }) => {
                Event::Missed { session_id, source, count }
            }
            Some(SessionEvent::Participant { name, change }) => {
                Event::Participant { session_id, name, change: change_of(change) }
            }
            Some(SessionEvent::Closed { reason }) => {
                return self.on_closed(session.id(), reason);
            }
            // The client is closed.
            None => return self.on_closed(session.id(), CloseReason::NodeLost),
        };
        self.output.emit(&told);
        self.events.push(next_event(session, reply));
    }

    fn on_closed(&mut self, id: SessionId, reason: CloseReason) {
        if let Some(live) = self.live_session(id) {
            live.closed.get_or_insert(reason);
        }
    }

    /// Sends the next message of a script when it is time.
    fn take_turn(&mut self) {
        let Role::Caller { peer, script: Some(script) } = &self.settings.role else { return };
        let (Some(rounds), Some(live)) = (&mut self.rounds, self.live.last()) else { return };
        match rounds.step(Instant::now()) {
            Step::Wait => {}
            Step::Send => {
                let session = live.session.clone();
                let number = rounds.number();
                self.output.note(&format!("sending message {number} of {}", script.iterations));
                let payload = Bytes::copy_from_slice(script.message.as_bytes());
                self.publish(session, Outgoing { payload, ..self.settings.template.clone() });
            }
            Step::Done => self.leave(Leaving::WithOutcomes),
            Step::NoAnswer => {
                let within = self.settings.timers.limit();
                self.fail(Failure::NoAnswer { peer: peer.clone(), within });
            }
        }
    }

    fn on_invited(&mut self, invited: Invited) {
        let Invited { session, given, is_initial, result } = invited;
        let refused_here = matches!(
            result,
            Err(InviteError::NotModerator | InviteError::NotGroup | InviteError::TooMany { .. })
        );
        let (outcome, reason) = group::outcome(&result);
        self.output.emit(&Event::Invite {
            session_id: session.0,
            name: given,
            outcome,
            reason: reason.clone(),
            asked: !refused_here,
        });
        if refused_here {
            let code = match result {
                Err(InviteError::NotModerator) => "not_moderator",
                Err(InviteError::NotGroup) => "not_a_group",
                _ => "too_many",
            };
            self.error(Some(session), code, reason);
        }
        if is_initial {
            self.invitations.settle(&result);
            if self.leaving == Leaving::No
                && let Some(failure) = self.invitations.failure(self.source.is_terminal())
            {
                self.fail(failure);
            }
        }
    }

    fn error(&mut self, session: Option<SessionId>, code: &'static str, message: String) {
        let session_id = session.map(|session| session.0);
        self.output.emit(&Event::Error { code, message, session_id });
    }

    fn live_session(&mut self, id: SessionId) -> Option<&mut Live> {
        self.live.iter_mut().find(|live| live.session.id() == id)
    }
}

/// Publishes the reply, then waits for what happens next. Replies stay in order,
/// and a caller whose replies pile up is read more slowly.
fn next_event(
    session: Session,
    reply: Option<Outgoing>,
) -> BoxFuture<'static, (Session, Option<SessionEvent>)> {
    Box::pin(async move {
        if let Some(reply) = reply
            && let Err(error) = session.publish_with(reply).await
        {
            warn!(session = %session.id(), %error, "message not sent back");
        }
        let event = session.next_event().await;
        (session, event)
    })
}

fn echo(message: &ReceivedMessage) -> Outgoing {
    Outgoing {
        payload: message.payload.clone(),
        payload_type: message.payload_type.clone(),
        metadata: message.metadata.clone(),
        to: None,
    }
}

fn is_group(session: &Session) -> bool {
    session.info().session_type == SessionType::Multicast
}

fn change_of(change: ParticipantChange) -> Change {
    match change {
        ParticipantChange::Joined => Change::Joined,
        ParticipantChange::Left => Change::Left,
        ParticipantChange::Removed => Change::Removed,
        ParticipantChange::Online => Change::Online,
        ParticipantChange::Offline => Change::Offline,
    }
}

fn encryption(state: Option<&SessionState>) -> Encryption {
    let mls = state.and_then(|state| state.mls);
    Encryption { mls_suite: mls.map(|mls| mls.suite), epoch: mls.map(|mls| mls.epoch) }
}

fn members(state: Option<SessionState>) -> Vec<Member> {
    let members = state.map(|state| state.members).unwrap_or_default();
    members
        .into_iter()
        .map(|member| Member { name: member.name, online: member.online, is_self: member.is_self })
        .collect()
}
