//! Point-to-point sessions.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::{World, config};
use slim_proto::{MessageType, Name, SessionId};
use slim_session::{
    CloseReason, Command, CreateError, Done, InviteError, Outgoing, PublishError, SessionConfig,
};

fn call(world: &mut World, from: usize, to: usize, config: SessionConfig) -> SessionId {
    let peer = world.name(to).without_id();
    let request = world.command(from, Command::CreateP2p { peer, config });
    world.run();
    match &world.apps[from].done[&request] {
        Done::Created(Ok(info)) => {
            assert_eq!(info.remote, world.name(to), "the peer's full name");
            info.id
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn messages_both_ways() {
    for mls in [false, true] {
        let mut world = World::new(&["alice", "bob"]);
        let session = call(&mut world, 0, 1, config(mls));
        for n in 0..5 {
            world.publish(0, session, &format!("ping {n}"));
            world.publish(1, session, &format!("pong {n}"));
        }
        world.run();
        assert_eq!(world.heard(1), (0..5).map(|n| format!("alice: ping {n}")).collect::<Vec<_>>());
        assert_eq!(world.heard(0), (0..5).map(|n| format!("bob: pong {n}")).collect::<Vec<_>>());
        assert!(world.messages(0)[0].to_me);
    }
}

#[test]
fn to_whom_is_the_peer_or_nobody() {
    let mut world = World::new(&["alice", "bob", "carol"]);
    let session = call(&mut world, 0, 1, config(true));
    let mut publish = |to: Name| {
        let payload = Bytes::from_static(b"psst");
        let message = Outgoing { payload, to: Some(to), ..Outgoing::default() };
        let request = world.command(0, Command::Publish { session, message });
        world.run();
        match &world.apps[0].done[&request] {
            Done::Published(result) => result.clone(),
            other => panic!("{other:?}"),
        }
    };
    let carol: Name = "org/test/carol".parse().unwrap();
    assert_eq!(publish(carol.clone()), Err(PublishError::NotMember { name: carol }));
    assert_eq!(publish("org/test/bob".parse().unwrap()).unwrap().delivered.len(), 1);
    assert_eq!(world.heard(1), ["alice: psst"]);
    assert!(world.heard(2).is_empty());
}

#[test]
fn either_side_ends_it() {
    for closer in [0, 1] {
        let mut world = World::new(&["alice", "bob"]);
        let session = call(&mut world, 0, 1, config(true));
        let request = world.close(closer, session);
        world.run();
        assert!(matches!(world.apps[closer].done[&request], Done::Closed));
        assert_eq!(world.closed(closer), Some(CloseReason::Left));
        assert_eq!(world.closed(1 - closer), Some(CloseReason::PeerLeft));
        world.pass(Duration::from_secs(60));
        assert_eq!(world.apps[0].endpoint.session_count(), 0);
        assert_eq!(world.apps[1].endpoint.session_count(), 0);
    }
}

#[test]
fn nobody_there() {
    let mut world = World::new(&["alice"]);
    let peer = "org/test/nobody".parse().unwrap();
    let request = world.command(0, Command::CreateP2p { peer, config: config(true) });
    world.pass(Duration::from_secs(12));
    let outcome = &world.apps[0].done[&request];
    assert!(
        matches!(outcome, Done::Created(Err(CreateError::Invite(InviteError::NoAnswer { .. })))),
        "{outcome:?}"
    );
    assert!(world.apps[0].events.is_empty(), "there never was a session");
    world.pass(Duration::from_secs(60));
    assert_eq!(world.apps[0].endpoint.session_count(), 0);
}

#[test]
fn several_callers_of_one_listener() {
    let mut world = World::new(&["listener", "a", "b", "c"]);
    let sessions: Vec<SessionId> =
        (1..4).map(|from| call(&mut world, from, 0, config(true))).collect();
    for (from, session) in (1..4).zip(&sessions) {
        world.publish(from, *session, "hello");
        world.publish(0, *session, "hello you");
    }
    world.run();
    assert_eq!(world.heard(0), ["a: hello", "b: hello", "c: hello"]);
    for from in 1..4 {
        assert_eq!(world.heard(from), ["listener: hello you"]);
    }
}

#[test]
fn a_lost_message_is_sent_again() {
    for kind in [MessageType::Msg, MessageType::MsgAck] {
        let mut world = World::new(&["alice", "bob"]);
        let session = call(&mut world, 0, 1, config(true));
        world.lose(kind, if kind == MessageType::Msg { 1 } else { 0 }, 1);
        let requests = ["one", "two", "three"].map(|text| world.publish(0, session, text));
        world.pass(Duration::from_secs(2));
        assert_eq!(world.heard(1), ["alice: one", "alice: two", "alice: three"], "{kind:?}");
        for request in requests {
            match &world.apps[0].done[&request] {
                Done::Published(Ok(report)) => assert!(report.lost.is_empty()),
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn unreliable_messages_are_not_acknowledged() {
    let mut world = World::new(&["alice", "bob"]);
    let config = SessionConfig { timers: None, ..config(true) };
    let session = call(&mut world, 0, 1, config);
    let request = world.publish(0, session, "fire and forget");
    world.run();
    assert_eq!(world.heard(1), ["alice: fire and forget"]);
    assert_eq!(world.count_sent(1, MessageType::MsgAck), 0);
    match &world.apps[0].done[&request] {
        Done::Published(Ok(report)) => assert!(report.delivered.is_empty()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_creators_metadata_reaches_the_peer() {
    let mut world = World::new(&["alice", "bob"]);
    let mut config = config(true);
    config.metadata.insert("topic".into(), "tea".into());
    config.metadata.insert("PUBLISH_TO".into(), "reserved".into());
    call(&mut world, 0, 1, config);
    let metadata = &world.apps[1].invited[0].metadata;
    assert_eq!(metadata.len(), 1);
    assert_eq!(metadata["topic"], "tea");
}

#[test]
fn a_busy_application_loses_nothing() {
    let mut world = World::new(&["alice", "bob"]);
    let session = call(&mut world, 0, 1, config(true));
    world.input(1, slim_session::Input::Busy(session, true));
    let request = world.publish(0, session, "patience");
    world.pass(Duration::from_millis(2500));
    assert!(world.heard(1).is_empty());
    assert!(!world.apps[0].done.contains_key(&request));
    world.input(1, slim_session::Input::Busy(session, false));
    world.pass(Duration::from_secs(1));
    assert_eq!(world.heard(1), ["alice: patience"]);
    assert!(world.apps[0].done.contains_key(&request));
}

#[test]
fn what_does_not_fit_is_refused_before_it_is_sent() {
    let mut world = World::new(&["alice", "bob"]);
    for mls in [false, true] {
        let session = call(&mut world, 0, 1, config(mls));
        let too_large = "x".repeat(slim_proto::MAX_MESSAGE_LEN);
        let request = world.publish(0, session, &too_large);
        let limit = match &world.apps[0].done[&request] {
            Done::Published(Err(PublishError::TooLarge { limit, len })) => {
                assert_eq!(*len, too_large.len());
                *limit
            }
            other => panic!("{other:?}"),
        };
        let request = world.publish(0, session, &too_large[..limit]);
        let sent = world.sent.last().unwrap().1.clone();
        let len = slim_proto::Message::Publish(sent).encoded_len();
        assert!(
            (slim_proto::MAX_MESSAGE_LEN - 1024..slim_proto::MAX_MESSAGE_LEN - 40).contains(&len)
        );
        world.run();
        match &world.apps[0].done[&request] {
            Done::Published(Ok(report)) => assert_eq!(report.delivered.len(), 1),
            other => panic!("{other:?}"),
        }
    }
}
