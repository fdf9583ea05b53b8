//! Events for programs: one JSON object a line.

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Event;

#[derive(Serialize)]
struct Stamped<'a> {
    #[serde(flatten)]
    event: &'a Event,
    time: String,
}

/// The event as it happened at `time`, without a line end.
pub(crate) fn line(event: &Event, time: OffsetDateTime) -> String {
    let time = time.format(&Rfc3339).expect("years of four digits and an offset in whole minutes");
    serde_json::to_string(&Stamped { event, time }).expect("all keys are texts")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use serde_json::{Value, json};
    use slim_client::Name;

    use super::super::{
        Change, Encryption, GroupRole, InviteOutcome, Member, P2pRole, Payload, Place, Reason,
        SessionStart,
    };
    use super::*;

    const CLIENT: &str = "a/b/c/ee23cd86-c165-f549-3bcd-cd4cde967fbd";

    fn client() -> Name {
        CLIENT.parse().unwrap()
    }

    fn check(event: &Event, mut expected: Value) {
        let line = line(event, OffsetDateTime::UNIX_EPOCH);
        assert!(!line.contains('\n'), "{line}");
        expected["time"] = json!("1970-01-01T00:00:00Z");
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), expected);
    }

    #[test]
    fn events_about_the_node() {
        let node = || "http://node:1".to_owned();
        check(
            &Event::Connected { node: node(), name: client() },
            json!({"event": "connected", "node": "http://node:1", "name": CLIENT}),
        );
        check(
            &Event::Disconnected { node: node(), reason: "gone".to_owned() },
            json!({"event": "disconnected", "node": "http://node:1", "reason": "gone"}),
        );
        check(
            &Event::Reconnected { node: node(), reason: "back".to_owned() },
            json!({"event": "reconnected", "node": "http://node:1", "reason": "back"}),
        );
        check(&Event::Waiting, json!({"event": "waiting"}));
    }

    #[test]
    fn beginning_and_end_of_a_session() {
        let mut start = SessionStart {
            session_id: 7,
            place: Place::Group { channel: "a/b/chat".to_owned(), role: GroupRole::Moderator },
            mls: false,
            encryption: Encryption::default(),
            members: vec![Member { name: client(), online: true, is_self: true }],
        };
        check(
            &Event::Session(start.clone()),
            json!({"event": "session", "session_id": 7, "type": "group", "channel": "a/b/chat",
                "role": "moderator", "mls": false}),
        );
        start.place = Place::P2p { peer: client(), role: P2pRole::Listener };
        start.mls = true;
        start.encryption = Encryption { mls_suite: Some("SUITE"), epoch: Some(3) };
        check(
            &Event::Session(start),
            json!({"event": "session", "session_id": 7, "type": "p2p", "peer": CLIENT,
                "role": "listener", "mls": true, "mls_suite": "SUITE", "epoch": 3}),
        );
        for (reason, text) in [
            (Reason::Left, "left"),
            (Reason::Removed, "removed"),
            (Reason::ModeratorClosed, "moderator_closed"),
            (Reason::PeerLeft, "peer_left"),
            (Reason::NodeLost, "node_lost"),
        ] {
            check(
                &Event::Closed { session_id: 7, reason },
                json!({"event": "closed", "session_id": 7, "reason": text}),
            );
        }
    }

    #[test]
    fn events_about_members() {
        for (outcome, text) in [
            (InviteOutcome::Joined, "joined"),
            (InviteOutcome::NoAnswer, "no_answer"),
            (InviteOutcome::Refused, "refused"),
        ] {
            check(
                &Event::Invite {
                    session_id: 7,
                    name: "a/b/c".to_owned(),
                    outcome,
                    reason: "so".to_owned(),
                    asked: true,
                },
                json!({"event": "invite", "session_id": 7, "name": "a/b/c", "outcome": text,
                    "reason": "so"}),
            );
        }
        for (change, text) in [
            (Change::Joined, "joined"),
            (Change::Left, "left"),
            (Change::Removed, "removed"),
            (Change::Online, "online"),
            (Change::Offline, "offline"),
        ] {
            check(
                &Event::Participant { session_id: 7, name: client(), change },
                json!({"event": "participant", "session_id": 7, "name": CLIENT, "change": text}),
            );
        }
        check(
            &Event::Presence { session_id: 7, online: false },
            json!({"event": "presence", "session_id": 7, "online": false}),
        );
        check(
            &Event::Who {
                session_id: 7,
                members: vec![Member { name: client(), online: false, is_self: true }],
                encryption: Encryption { mls_suite: None, epoch: None },
            },
            json!({"event": "who", "session_id": 7,
                "members": [{"name": CLIENT, "online": false}]}),
        );
    }

    #[test]
    fn payloads_are_text_or_base64() {
        let message = |payload: &'static [u8]| Event::Message {
            session_id: 7,
            source: client(),
            payload: Payload(Bytes::from_static(payload)),
            payload_type: "msg".to_owned(),
            metadata: BTreeMap::from([("key".to_owned(), "value".to_owned())]),
            to_me: true,
        };
        check(
            &message("naïve\n\"".as_bytes()),
            json!({"event": "message", "session_id": 7, "source": CLIENT, "payload": "naïve\n\"",
                "payload_type": "msg", "metadata": {"key": "value"}, "to_me": true}),
        );
        check(
            &message(b"\xff\x00"),
            json!({"event": "message", "session_id": 7, "source": CLIENT,
                "payload_base64": "/wA=", "payload_type": "msg", "metadata": {"key": "value"},
                "to_me": true}),
        );
    }

    #[test]
    fn outcomes_of_lines() {
        check(
            &Event::Delivered { session_id: 7, line: 0, members: vec![client()] },
            json!({"event": "delivered", "session_id": 7, "line": 0, "members": [CLIENT]}),
        );
        let payload = Payload(Bytes::from_static(b"not told"));
        check(
            &Event::Lost { session_id: 7, line: 1, members: vec![client()], payload },
            json!({"event": "lost", "session_id": 7, "line": 1, "members": [CLIENT]}),
        );
        check(
            &Event::Missed { session_id: 7, source: client(), count: 2 },
            json!({"event": "missed", "session_id": 7, "source": CLIENT, "count": 2}),
        );
    }

    #[test]
    fn errors_name_their_session_if_they_have_one() {
        let error =
            |session_id| Event::Error { code: "alone", message: "nobody".to_owned(), session_id };
        check(&error(None), json!({"event": "error", "code": "alone", "message": "nobody"}));
        check(
            &error(Some(7)),
            json!({"event": "error", "code": "alone", "message": "nobody", "session_id": 7}),
        );
    }
}
