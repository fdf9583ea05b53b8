//! What `slim --output json` prints, as far as the demo cares.

use serde::Deserialize;

/// One line of a member's stdout.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum Event {
    Connected {
        name: String,
    },
    Waiting,
    Session {
        mls: bool,
        mls_suite: Option<String>,
        epoch: Option<u64>,
    },
    Invite {
        name: String,
        outcome: String,
        reason: Option<String>,
    },
    Message {
        source: String,
        payload: String,
    },
    Delivered {
        line: usize,
        members: Vec<String>,
    },
    Lost {
        line: usize,
        members: Vec<String>,
    },
    Who {
        members: Vec<Presence>,
        mls_suite: Option<String>,
        epoch: Option<u64>,
    },
    Closed {
        reason: String,
    },
    Error {
        code: String,
        message: String,
    },
    #[serde(other)]
    Other,
}

/// One entry of the list of members.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Presence {
    pub(super) name: String,
    pub(super) online: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Event, serde_json::Error> {
        serde_json::from_str(line)
    }

    #[test]
    fn fields_that_the_demo_does_not_need_are_ignored() {
        let line = r#"{"event":"session","time":"2026-01-01T00:00:00Z","session_id":7,"type":"group",
            "channel":"a/b/c","role":"moderator","mls":true,"epoch":2}"#;
        let session = Event::Session { mls: true, mls_suite: None, epoch: Some(2) };
        assert_eq!(read(line).unwrap(), session);
    }

    #[test]
    fn an_event_of_another_kind_is_no_mistake() {
        let line = r#"{"event":"participant","name":"a/b/c/d","change":"joined"}"#;
        assert_eq!(read(line).unwrap(), Event::Other);
    }

    #[test]
    fn a_message_that_is_not_text_is_one() {
        assert!(read(r#"{"event":"message","source":"a/b/c/d","payload_base64":"/w=="}"#).is_err());
        assert!(read("listening").is_err());
    }
}
