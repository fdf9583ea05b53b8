//! Being away from a group for a while.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::time::Duration;

use common::{World, config};
use slim_proto::{MessageType, SessionId};
use slim_session::{Command, Done, PresenceError, PublishError};

fn set_presence(world: &mut World, app: usize, session: SessionId, online: bool) -> u64 {
    world.command(app, Command::SetPresence { session, online })
}

fn check(world: &World, app: usize, request: u64, expected: &Result<(), PresenceError>) {
    let outcome = world.apps[app].done.get(&request);
    assert!(matches!(outcome, Some(Done::Presence(result)) if result == expected), "{outcome:?}");
}

fn is_online(world: &mut World, app: usize, session: SessionId, who: usize) -> bool {
    let request = world.command(app, Command::State { session });
    let name = world.name(who);
    let Some(Done::State(Some(state))) = world.apps[app].done.get(&request) else {
        panic!("no state")
    };
    state.members.iter().find(|member| member.name == name).unwrap().online
}

/// Who is away is offline for everybody, itself included, and for nobody when it is
/// back: then it hears what was said meanwhile.
#[test]
fn who_was_away_hears_what_was_said_meanwhile() {
    for mls in [false, true] {
        let mut world = World::new(&["alice", "bob", "carol"]);
        let session = world.group(config(mls));
        let away = set_presence(&mut world, 1, session, false);
        world.run();
        check(&world, 1, away, &Ok(()));
        for app in 0..3 {
            assert!(!is_online(&mut world, app, session, 1), "{app}");
        }
        let publish = world.publish(2, session, "hello");
        world.run();
        assert_eq!((world.heard(0).len(), world.heard(1).len()), (1, 0));
        let lost = vec![world.name(1)];
        assert!(matches!(&world.apps[2].done[&publish],
            Done::Published(Ok(report)) if report.lost == lost));

        // For as long as it likes: it sends no heartbeats.
        let before = world.count_sent(1, MessageType::Heartbeat);
        world.pass(Duration::from_secs(300));
        assert_eq!(world.count_sent(1, MessageType::Heartbeat), before);

        let back = set_presence(&mut world, 1, session, true);
        world.run();
        check(&world, 1, back, &Ok(()));
        assert_eq!(world.heard(1), ["carol: hello"], "mls: {mls}");
        for app in 0..3 {
            assert!(is_online(&mut world, app, session, 1), "{app}");
        }
        let publish = world.publish(1, session, "here I am");
        world.run();
        assert!(matches!(&world.apps[1].done[&publish],
            Done::Published(Ok(report)) if report.delivered.len() == 2 && report.lost.is_empty()));
    }
}

#[test]
fn who_is_away_cannot_publish() {
    let mut world = World::new(&["alice", "bob"]);
    let session = world.group(config(true));
    set_presence(&mut world, 1, session, false);
    let publish = world.publish(1, session, "hello");
    assert!(matches!(world.apps[1].done[&publish], Done::Published(Err(PublishError::Away))));
}

/// The group goes on: who is away follows its changes, and its end.
#[test]
fn who_is_away_follows_the_group() {
    let mut world = World::new(&["alice", "bob", "carol"]);
    let session = world.create_group(config(true));
    world.invite(session, 1);
    world.run();
    set_presence(&mut world, 1, session, false);
    world.run();
    let invite = world.invite(session, 2);
    world.pass(Duration::from_secs(15));
    assert!(world.joined(invite));
    assert_eq!(world.changes(1), ["carol joined"]);
    set_presence(&mut world, 1, session, true);
    world.run();
    assert_eq!(world.count_sent(1, MessageType::RejoinRequest), 0, "it has all keys");
    set_presence(&mut world, 1, session, false);
    world.close(0, session);
    world.run();
    assert!(world.closed(1).is_some());
}

/// Bob is away, and cut off while carol joins.
fn bob_misses_carol(mls: bool) -> (World, SessionId) {
    let mut world = World::new(&["alice", "bob", "carol"]);
    let session = world.create_group(config(mls));
    world.invite(session, 1);
    world.run();
    set_presence(&mut world, 1, session, false);
    world.run();
    world.apps[1].deaf = true;
    let invite = world.invite(session, 2);
    world.pass(Duration::from_secs(15));
    assert!(world.joined(invite));
    world.apps[1].deaf = false;
    (world, session)
}

/// Its keys are old when it is back: the others refuse, and it gets new ones.
#[test]
fn who_was_away_and_unreachable_gets_new_keys() {
    let (mut world, session) = bob_misses_carol(true);
    let back = set_presence(&mut world, 1, session, true);
    world.run();
    check(&world, 1, back, &Ok(()));
    assert_eq!(world.count_sent(1, MessageType::RejoinRequest), 1);
    let publish = world.publish(1, session, "hello");
    world.run();
    assert!(matches!(&world.apps[1].done[&publish],
        Done::Published(Ok(report)) if report.delivered.len() == 2));
}

/// Without MLS no key tells it that the group has changed; the moderator does.
#[test]
fn who_was_away_and_unreachable_learns_who_is_in() {
    let (mut world, session) = bob_misses_carol(false);
    set_presence(&mut world, 1, session, true);
    world.run();
    assert_eq!(world.changes(1).last().map(String::as_str), Some("carol joined"));
}

/// The moderator is a member like others.
#[test]
fn a_moderator_can_be_away() {
    let mut world = World::new(&["alice", "bob", "carol"]);
    let session = world.group(config(true));
    let away = set_presence(&mut world, 0, session, false);
    world.run();
    check(&world, 0, away, &Ok(()));
    assert_eq!(world.changes(2).last().map(String::as_str), Some("alice offline"));
    world.publish(1, session, "psst");
    world.run();
    assert_eq!((world.heard(0).len(), world.heard(2).len()), (0, 1));
    set_presence(&mut world, 0, session, true);
    world.run();
    assert_eq!(world.heard(0), ["bob: psst"]);
}

#[test]
fn every_request_has_its_outcome() {
    let mut world = World::new(&["alice", "bob", "carol"]);
    let session = world.group(config(true));
    // It was not away.
    let at_once = set_presence(&mut world, 1, session, true);
    check(&world, 1, at_once, &Ok(()));
    // Before the others answer to the first.
    let requests =
        [false, false, true, true].map(|online| set_presence(&mut world, 1, session, online));
    world.run();
    for request in requests {
        check(&world, 1, request, &Ok(()));
    }
    assert!(is_online(&mut world, 0, session, 1));

    // Somebody does not answer.
    world.apps[2].deaf = true;
    let silent = set_presence(&mut world, 1, session, false);
    world.run();
    assert!(!world.apps[1].done.contains_key(&silent));
    world.pass(Duration::from_secs(15));
    check(&world, 1, silent, &Err(PresenceError::Unconfirmed));
    assert!(!is_online(&mut world, 0, session, 1));

    // The session ends before the answers.
    world.apps[2].deaf = false;
    let back = set_presence(&mut world, 1, session, true);
    world.close(1, session);
    check(&world, 1, back, &Err(PresenceError::Closed));
    world.run();
    let late = set_presence(&mut world, 1, session, false);
    check(&world, 1, late, &Err(PresenceError::Closed));
}

#[test]
fn a_call_has_nobody_who_could_be_away() {
    let mut world = World::new(&["alice", "bob"]);
    let peer = world.name(1).without_id();
    world.command(0, Command::CreateP2p { peer, config: config(true) });
    world.run();
    let session = world.apps[1].invited[0].id;
    for app in [0, 1] {
        let request = set_presence(&mut world, app, session, false);
        check(&world, app, request, &Err(PresenceError::NotGroup));
    }
}
