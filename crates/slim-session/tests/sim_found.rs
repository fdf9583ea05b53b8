//! Faults that the simulator found, each as the shortest conversation that shows it.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use common::{World, config, is_data};
use slim_proto::{Message, MessageType};
use slim_session::{Command, Done, Input};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A member that is invited again does not answer. If it leaves meanwhile, it can
/// answer, and comes back.
#[test]
fn a_member_that_leaves_while_it_is_invited_again_comes_back() {
    let mut world = World::new(&["alice", "bob", "carol"]);
    let session = world.group(config(true));
    let again = world.invite(session, 1);
    world.run();
    world.close(1, session);
    world.pass(seconds(30));
    let outcome = world.apps[0].done.get(&again);
    assert!(matches!(outcome, Some(Done::Invited(Ok(_)))), "{outcome:?}");
}

/// The peer of a new session speaks before the caller knows that it has joined:
/// the caller's application gets the session first.
#[test]
fn what_a_peer_says_at_once_comes_after_the_session() {
    for mls in [false, true] {
        let mut world = World::new(&["alice", "bob"]);
        world.lose(MessageType::GroupAck, 0, 1);
        let peer = world.name(1).without_id();
        let call = world.command(0, Command::CreateP2p { peer, config: config(mls) });
        world.run();
        let session = world.apps[1].invited[0].id;
        let publish = world.publish(1, session, "hello");
        world.run();
        assert!(!world.apps[0].done.contains_key(&call));
        assert!(world.heard(0).is_empty(), "of a session that nobody has");
        world.pass(seconds(3));
        assert!(matches!(world.apps[0].done[&call], Done::Created(Ok(_))));
        assert_eq!(world.heard(0), ["bob: hello"]);
        assert!(matches!(&world.apps[1].done[&publish],
            Done::Published(Ok(report)) if report.lost.is_empty()));
    }
}

/// An application does not hear of the end of a session that it never had.
#[test]
fn a_session_that_nobody_has_ends_in_silence() {
    let mut world = World::new(&["alice", "bob"]);
    world.lose(MessageType::GroupWelcome, 1, 99);
    let peer = world.name(1).without_id();
    let call = world.command(0, Command::CreateP2p { peer, config: config(true) });
    world.run();
    for app in [0, 1] {
        assert_eq!(world.apps[app].endpoint.session_count(), 1);
        world.input(app, Input::LinkGone);
        assert!(world.apps[app].events.is_empty(), "{:?}", world.apps[app].events);
    }
    assert!(matches!(world.apps[0].done[&call], Done::Created(Err(_))));
}

/// Who closes a session takes no more data. A late copy would start a stream anew
/// and be told twice.
#[test]
fn a_late_copy_is_not_told_again_while_a_session_closes() {
    let mut world = World::new(&["alice", "bob"]);
    let session = world.group(config(true));
    let held = Rc::new(RefCell::new(None));
    let slot = Rc::clone(&held);
    world.filter = Some(Box::new(move |_, to, message| {
        if to == 0 && is_data(message) {
            *slot.borrow_mut() = Some(message.clone());
        }
        // Nobody confirms the close.
        !(to == 1
            && matches!(message, Message::Publish(publish)
            if publish.body.message_type() == MessageType::GroupClose))
    }));
    world.publish(1, session, "hello");
    world.run();
    assert_eq!(world.heard(0), ["bob: hello"]);
    // As without MLS, or sent again: the same message once more.
    let again = world.publish(1, session, "again");
    world.close(0, session);
    world.run();
    assert_eq!(world.heard(0), ["bob: hello"], "{again}");
    let late = held.borrow_mut().take().unwrap();
    world.input(0, Input::Received(late));
    assert_eq!(world.heard(0), ["bob: hello"]);
}

/// The answer to a welcome is lost, and the group changes before the welcome is
/// sent again: the copy does not take back the change.
#[test]
fn a_copy_of_a_welcome_tells_who_is_in_now() {
    for mls in [false, true] {
        let mut world = World::new(&["alice", "bob", "carol"]);
        let session = world.create_group(config(mls));
        let mut lost = 0;
        world.filter = Some(Box::new(move |from, _, message| {
            let is_ack = matches!(message, Message::Publish(publish)
                if publish.body.message_type() == MessageType::GroupAck);
            lost += usize::from(is_ack && from == 1);
            !(is_ack && from == 1 && lost <= 3)
        }));
        let bob = world.invite(session, 1);
        let carol = world.invite(session, 2);
        world.pass(seconds(15));
        assert!(world.joined(bob) && world.joined(carol));
        assert_eq!(world.changes(1), ["carol joined"], "mls: {mls}");
        let publish = world.publish(1, session, "hello");
        world.run();
        assert!(matches!(&world.apps[1].done[&publish],
            Done::Published(Ok(report)) if report.delivered.len() == 2));
    }
}

/// A member was away while very much was said, each copy of it encrypted with a key
/// of its own. When it is back it can read what is said then.
#[test]
fn a_member_that_missed_very_much_reads_on() {
    let mut world = World::new(&["alice", "bob", "carol"]);
    let session = world.group(config(true));
    world.apps[1].deaf = true;
    for _ in 0..40 {
        for _ in 0..100 {
            world.publish(0, session, "much");
        }
        world.pass(seconds(1));
    }
    world.apps[1].deaf = false;
    world.pass(seconds(30));
    let last = world.publish(0, session, "the last");
    world.pass(seconds(15));
    assert_eq!(world.heard(1).last().map(String::as_str), Some("alice: the last"));
    assert!(matches!(&world.apps[0].done[&last],
        Done::Published(Ok(report)) if report.lost.is_empty()));
}

/// A member leaves and is invited again at once. Another does not hear that it left
/// until it is about to be in again.
#[test]
fn a_member_that_comes_back_at_once_is_in_for_everybody() {
    for mls in [false, true] {
        let mut world = World::new(&["alice", "bob", "carol"]);
        let session = world.group(config(mls));
        world.lose(MessageType::GroupUpdate, 1, 1);
        world.close(2, session);
        world.run();
        let again = world.invite(session, 2);
        world.pass(seconds(15));
        assert!(world.joined(again), "mls: {mls}");
        assert_eq!(world.changes(1), ["carol joined", "carol left", "carol joined"]);
        let publish = world.publish(1, session, "welcome back");
        world.run();
        assert!(matches!(&world.apps[1].done[&publish],
            Done::Published(Ok(report)) if report.delivered.len() == 2));
    }
}
