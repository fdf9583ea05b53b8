//! How a run is told.

use slim_proto::{Message, MessageType, Name};
use slim_session::{Command, Done, SessionEvent};

use super::world::World;

impl World {
    /// A name as the story says it.
    pub(super) fn call(&self, name: &Name) -> String {
        match self.by_name.get(&name.route()) {
            Some(app) => self.apps[*app].label.clone(),
            None => name.text().map_or_else(|| "nameless".to_owned(), |text| text[2].clone()),
        }
    }

    pub(super) fn describe(&self, message: &Message) -> String {
        match message {
            Message::Publish(publish) => {
                let header = &publish.header;
                format!(
                    "{:?} {:x} of {}, {} to {}",
                    publish.body.message_type(),
                    publish.message_id,
                    publish.session_id,
                    self.call(&header.source),
                    self.call(&header.destination)
                )
            }
            Message::Subscribe(subscription) => {
                format!("subscribe {}", self.call(&subscription.header.destination))
            }
            Message::Unsubscribe(subscription) => {
                format!("unsubscribe {}", self.call(&subscription.header.destination))
            }
            Message::SubscriptionAck(ack) => format!("the node's answer {:?}", ack.result),
            Message::Link(_) => "a negotiation".to_owned(),
        }
    }

    pub(super) fn describe_command(&self, command: &Command) -> String {
        match command {
            Command::CreateGroup { channel, .. } => format!("create group {}", self.call(channel)),
            Command::CreateP2p { peer, .. } => format!("call {}", self.call(peer)),
            Command::Invite { session, name } => format!("invite {} to {session}", self.call(name)),
            Command::Remove { session, name } => {
                format!("remove {} from {session}", self.call(name))
            }
            Command::Publish { session, message } => {
                let to = message.to.as_ref().map_or_else(|| "all".to_owned(), |to| self.call(to));
                let text = String::from_utf8_lossy(&message.payload);
                format!("publish #{text} to {to} in {session}")
            }
            Command::State { session } => format!("state of {session}"),
            Command::Flush { session } => format!("flush {session}"),
            Command::SetPresence { session, online: true } => format!("back to {session}"),
            Command::SetPresence { session, online: false } => format!("away from {session}"),
            Command::Close { session } => format!("close {session}"),
        }
    }

    pub(super) fn describe_done(&self, done: &Done) -> String {
        match done {
            Done::Created(Ok(info)) => format!("created {}", info.id),
            Done::Created(Err(error)) => format!("not created: {error}"),
            Done::Invited(Ok(name)) => format!("{} is in", self.call(name)),
            Done::Invited(Err(error)) => format!("not invited: {error}"),
            Done::Removed(Ok(())) => "removed".to_owned(),
            Done::Removed(Err(error)) => format!("not removed: {error}"),
            Done::Published(Ok(report)) => {
                let names = |names: &[Name]| {
                    names.iter().map(|name| self.call(name)).collect::<Vec<_>>().join(" ")
                };
                format!("delivered [{}] lost [{}]", names(&report.delivered), names(&report.lost))
            }
            Done::Published(Err(error)) => format!("not published: {error}"),
            Done::State(Some(state)) => {
                let members: Vec<String> = (state.members.iter())
                    .map(|member| {
                        let sign = if member.online { "" } else { "?" };
                        format!("{}{sign}", self.call(&member.name))
                    })
                    .collect();
                let epoch = state.mls.map_or_else(String::new, |mls| format!(" in {}", mls.epoch));
                format!("members [{}]{epoch}", members.join(" "))
            }
            Done::State(None) => "no such session".to_owned(),
            Done::Flushed => "flushed".to_owned(),
            Done::Presence(Ok(())) => "all know".to_owned(),
            Done::Presence(Err(error)) => format!("not all know: {error}"),
            Done::Closed => "closed".to_owned(),
        }
    }

    pub(super) fn describe_event(&self, event: &SessionEvent) -> String {
        match event {
            SessionEvent::Message(message) => {
                let text = String::from_utf8_lossy(&message.payload);
                format!("hears #{text} from {}", self.call(&message.source))
            }
            SessionEvent::MessageLost { source, count } => {
                format!("misses {count} of {}", self.call(source))
            }
            SessionEvent::Participant { name, change } => {
                format!("sees {} {change:?}", self.call(name))
            }
            SessionEvent::Closed { reason } => format!("ended: {reason:?}"),
        }
    }
}

/// Whether a message says no more than that somebody is there.
pub(super) fn is_heartbeat(message: &Message) -> bool {
    matches!(message, Message::Publish(publish)
        if publish.body.message_type() == MessageType::Heartbeat)
}
