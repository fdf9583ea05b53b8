//! What is typed: lines to publish, and commands.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use slim_client::{Name, Outgoing, PresenceError, PublishError, RemoveError, Session, SessionId};

use super::{Conversation, Done, Invited, Leaving, Outcome, encryption, is_group, members};
use crate::args::{Invitee, Role};
use crate::input::{self, Action, Spoken};
use crate::output::{Event, InviteOutcome, Payload};
use crate::source::{Input, MAX_LINE};

impl Conversation<'_> {
    /// Whether a line would be acted upon now. A person is always told something;
    /// a script's lines wait until there is a session, all invitations are settled
    /// and the line before is done.
    pub(super) fn takes_input(&self) -> bool {
        let is_ready = self.source.is_terminal()
            || (self.had_session && self.invitations.are_settled() && self.inviting.is_empty());
        is_ready && !self.input_ended && self.leaving == Leaving::No && !self.is_doing
    }

    pub(super) fn on_input(&mut self, input: Option<Input>) {
        match input {
            Some(Input::Line(line)) => self.act(input::action(line)),
            Some(Input::TooLong(len)) => {
                let message = format!("{len} bytes are too large: at most {MAX_LINE} are read");
                self.error(None, "too_large", message);
            }
            None => {
                self.input_ended = true;
                let stays = matches!(self.settings.role, Role::Participant | Role::Listener { .. });
                if self.source.is_terminal() || !stays {
                    self.leave(Leaving::WithOutcomes);
                }
            }
        }
    }

    fn act(&mut self, action: Action) {
        let session = match action {
            Action::Nothing => return,
            Action::Help => return self.output.emit(&Event::Help { commands: input::HELP.into() }),
            Action::Leave => return self.leave(Leaving::WithOutcomes),
            Action::Unknown(command) => {
                let message = format!("{command}: no such command, /help lists them");
                return self.error(None, "unknown_command", message);
            }
            Action::Unspoken(reason) => return self.error(None, "bad_message", reason),
            Action::Publish(_)
            | Action::Invite(_)
            | Action::Remove(_)
            | Action::Who
            | Action::SetPresence(_) => {
                match self.live.iter().rev().find(|live| live.closed.is_none()) {
                    Some(live) => live.session.clone(),
                    None => {
                        let message = self.why_no_session().to_owned();
                        return self.error(None, "alone", message);
                    }
                }
            }
        };
        match action {
            Action::Publish(spoken) => self.speak(session, spoken),
            Action::Invite(given) => match given.parse() {
                Ok(name) => self.invite(&session, Invitee { given, name }, false),
                Err(error) => self.refuse_invitation(&session, given, &error),
            },
            Action::Remove(given) => match given.parse() {
                Ok(name) => self.remove(&session, name),
                Err(error) => self.error(Some(session.id()), "bad_name", error.to_string()),
            },
            Action::Who => self.who(&session),
            Action::SetPresence(online) => self.set_presence(&session, online),
            Action::Nothing
            | Action::Help
            | Action::Leave
            | Action::Unspoken(_)
            | Action::Unknown(_) => {}
        }
    }

    fn why_no_session(&self) -> &'static str {
        match self.settings.role {
            Role::Moderator { .. } => "the group is closed",
            Role::Participant => "nobody has invited you yet",
            Role::Caller { .. } => "the call is not answered yet",
            Role::Listener { .. } => "nobody is calling",
        }
    }

    /// Says what was typed, in the newest session, or to whom it is for.
    fn speak(&mut self, newest: Session, spoken: Spoken) {
        let Spoken { payload, payload_type, metadata, to } = spoken;
        let mut message = Outgoing { payload, ..self.settings.template.clone() };
        if let Some(payload_type) = payload_type {
            message.payload_type = payload_type;
        }
        if let Some(metadata) = metadata {
            message.metadata = metadata;
        }
        let mut session = newest;
        if let Some(given) = to {
            let name = match given.parse::<Name>() {
                Ok(name) => name,
                Err(error) => {
                    return self.error(Some(session.id()), "bad_name", error.to_string());
                }
            };
            if let Some(called) = self.with_peer(&name) {
                session = called;
            }
            message.to = Some(name);
        }
        self.publish(session, message);
    }

    /// The newest call with this one. A listener may have several.
    fn with_peer(&self, name: &Name) -> Option<Session> {
        let is_peer = |session: &Session| {
            let peer = &session.info().remote;
            let is_meant = name.id().is_any() || name.id() == peer.id();
            !is_group(session) && peer.same_app(name) && is_meant
        };
        let open = self.live.iter().rev().filter(|live| live.closed.is_none());
        open.map(|live| &live.session).find(|session| is_peer(session)).cloned()
    }

    pub(super) fn publish(&mut self, session: Session, message: Outgoing) {
        self.run_in_turn(async move {
            let payload = message.payload.clone();
            let result = session.publish_with(message).await;
            Done::Published { session: session.id(), payload, result }
        });
    }

    pub(super) fn invite(&mut self, session: &Session, invitee: Invitee, is_initial: bool) {
        let session = session.clone();
        self.inviting.push(Box::pin(async move {
            let result = session.invite(&invitee.name).await;
            Invited { session: session.id(), given: invitee.given, is_initial, result }
        }));
    }

    fn refuse_invitation(&mut self, session: &Session, given: String, error: &impl ToString) {
        let reason = error.to_string();
        self.output.emit(&Event::Invite {
            session_id: session.id().0,
            name: given,
            outcome: InviteOutcome::Refused,
            reason: reason.clone(),
            asked: false,
        });
        self.error(Some(session.id()), "bad_name", reason);
    }

    fn remove(&mut self, session: &Session, name: Name) {
        let session = session.clone();
        self.run_in_turn(async move {
            let result = session.remove(&name).await;
            Done::Removed { session: session.id(), result }
        });
    }

    fn who(&mut self, session: &Session) {
        let session = session.clone();
        self.run_in_turn(async move {
            let state = session.state().await;
            Done::Who { session: session.id(), state }
        });
    }

    fn set_presence(&mut self, session: &Session, online: bool) {
        let session = session.clone();
        self.run_in_turn(async move {
            let result = session.set_presence(online).await;
            Done::Presence { session: session.id(), online, result }
        });
    }

    /// The next line waits for this.
    fn run_in_turn(&mut self, done: impl Future<Output = Done> + Send + 'static) {
        self.is_doing = true;
        self.doing = Some(Box::pin(done) as BoxFuture<'_, _>).into();
    }

    pub(super) fn on_done(&mut self, done: Done) {
        self.is_doing = false;
        self.doing = None.into();
        match done {
            Done::Published { session, payload, result } => {
                self.on_published(session, payload, result);
            }
            Done::Removed { result: Ok(()), .. } => {}
            // The removal is overtaken by our own leaving, which the member is told.
            Done::Removed { result: Err(RemoveError::Closed), .. }
            | Done::Presence { result: Err(PresenceError::Closed), .. }
                if self.leaving > Leaving::No => {}
            Done::Removed { session, result: Err(error) } => {
                let code = match error {
                    RemoveError::NotMember { .. } => "not_a_member",
                    RemoveError::NotModerator => "not_moderator",
                    RemoveError::NotGroup => "not_a_group",
                    RemoveError::Unconfirmed { .. } => "unconfirmed",
                    RemoveError::Closed => "session_closed",
                };
                self.error(Some(session), code, error.to_string());
            }
            Done::Presence { session, online, result } => {
                if matches!(result, Ok(()) | Err(PresenceError::Unconfirmed)) {
                    self.output.emit(&Event::Presence { session_id: session.0, online });
                }
                if let Err(error) = result {
                    let code = match error {
                        PresenceError::NotGroup => "not_a_group",
                        PresenceError::Unconfirmed => "unconfirmed",
                        PresenceError::Closed => "session_closed",
                    };
                    self.error(Some(session), code, error.to_string());
                }
            }
            Done::Who { session, state } => {
                let encryption = encryption(state.as_ref());
                let members = members(state);
                self.output.emit(&Event::Who { session_id: session.0, members, encryption });
            }
        }
    }

    fn on_published(
        &mut self,
        session: SessionId,
        payload: Bytes,
        result: Result<slim_client::Delivery, PublishError>,
    ) {
        match result {
            Ok(delivery) => {
                if let Some(rounds) = &mut self.rounds {
                    rounds.sent(tokio::time::Instant::now());
                }
                let line = self.line;
                self.line += 1;
                if let Some(live) = self.live_session(session) {
                    live.outstanding += 1;
                }
                self.outcomes.push(Box::pin(async move {
                    Outcome { session, line, payload, result: delivery.await }
                }));
            }
            Err(error) => {
                let (code, message) = publish_error(&error, &self.settings.role);
                if self.rounds.is_some() {
                    self.fail(crate::failure::Failure::Other { code, message });
                } else {
                    self.error(Some(session), code, message);
                }
            }
        }
    }

    pub(super) fn on_outcome(&mut self, outcome: Outcome) {
        let Outcome { session, line, payload, result } = outcome;
        if let Some(live) = self.live_session(session) {
            live.outstanding -= 1;
        }
        let session_id = session.0;
        let told = match result {
            Ok(report) if report.lost.is_empty() => {
                Event::Delivered { session_id, line, members: report.delivered }
            }
            // Without a report nobody is known to have it, and nobody known to lack it.
            result => {
                let members = result.map(|report| report.lost).unwrap_or_default();
                Event::Lost { session_id, line, members, payload: Payload(payload) }
            }
        };
        self.output.emit(&told);
    }
}

/// The code and the message of a line that was not sent.
fn publish_error(error: &PublishError, role: &Role) -> (&'static str, String) {
    match error {
        PublishError::Alone => {
            let place = match role {
                Role::Moderator { .. } | Role::Participant => "group",
                Role::Caller { .. } | Role::Listener { .. } => "conversation",
            };
            ("alone", format!("nobody else is in the {place} yet"))
        }
        PublishError::TooLarge { .. } => ("too_large", error.to_string()),
        PublishError::NotMember { .. } => ("not_a_member", error.to_string()),
        PublishError::Busy { .. } => ("busy", error.to_string()),
        PublishError::Away => ("away", "you are away: /back first".to_owned()),
        PublishError::Closed => ("session_closed", error.to_string()),
        PublishError::Internal(_) => ("internal", error.to_string()),
    }
}
