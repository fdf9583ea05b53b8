//! Faults that the simulator found, each as the shortest conversation that shows it.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use common::{World, config, is_data};
use slim_proto::{Message, MessageType};
use slim_session::{Command, Done, Input, SessionEvent};

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
        world.run();
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

/// Bob is away while carol joins.
fn bob_misses_carol() -> (World, slim_proto::SessionId) {
    let mut world = World::new(&["alice", "bob", "carol"]);
    let session = world.create_group(config(true));
    world.invite(session, 1);
    world.run();
    world.apps[1].deaf = true;
    world.invite(session, 2);
    world.pass(seconds(40));
    world.apps[1].deaf = false;
    (world, session)
}

fn check_bob_knows_carol(mut world: World, session: slim_proto::SessionId) {
    world.pass(seconds(60));
    let changes = world.changes(1);
    assert!(changes.contains(&"carol joined".to_owned()), "{changes:?}");
    let publish = world.publish(1, session, "hello");
    world.run();
    let outcome = &world.apps[1].done[&publish];
    assert!(
        matches!(outcome, Done::Published(Ok(report)) if report.delivered.len() == 2),
        "{outcome:?}"
    );
    world.publish(2, session, "welcome");
    world.run();
    assert_eq!(world.heard(1).last().map(String::as_str), Some("carol: welcome"));
}

/// A member gets a new welcome, and before it the update that says who is in.
#[test]
fn a_roster_that_comes_before_its_welcome_counts() {
    let (mut world, session) = bob_misses_carol();
    world.lose(MessageType::RejoinReply, 1, 1);
    world.pass(seconds(20));
    // From here on nobody sends it again.
    world.lose(MessageType::GroupUpdate, 1, usize::MAX);
    check_bob_knows_carol(world, session);
}

/// A member gets a new welcome and never the update that says who is in.
#[test]
fn a_welcome_without_its_roster_is_asked_for_again() {
    let (mut world, session) = bob_misses_carol();
    world.lose(MessageType::GroupUpdate, 1, 15);
    world.pass(seconds(20));
    assert_eq!(world.changes(1), ["alice offline", "alice online"]);
    check_bob_knows_carol(world, session);
}

/// Nor is it given up when nobody hears that it is asked for.
#[test]
fn a_roster_is_asked_for_until_it_comes() {
    let (mut world, session) = bob_misses_carol();
    world.lose(MessageType::GroupUpdate, 1, 15);
    world.pass(seconds(20));
    world.lose(MessageType::RejoinRequest, 0, 20);
    check_bob_knows_carol(world, session);
}

/// A late copy of what a member said when it left puts it out again: it learns of it.
#[test]
fn who_is_out_by_a_late_copy_is_told() {
    let mut world = World::new(&["alice", "bob", "carol"]);
    let session = world.group(config(true));
    let held = Rc::new(RefCell::new(None));
    let slot = Rc::clone(&held);
    let (mut requests, mut replies) = (0, 0);
    world.filter = Some(Box::new(move |_, to, message| {
        let Message::Publish(publish) = message else { return true };
        match publish.body.message_type() {
            MessageType::LeaveRequest if to == 0 => {
                requests += 1;
                if requests == 2 {
                    *slot.borrow_mut() = Some(message.clone());
                }
                requests != 2
            }
            MessageType::LeaveReply => {
                replies += 1;
                replies > 1
            }
            _ => true,
        }
    }));
    world.close(1, session);
    world.pass(seconds(4));
    let again = world.invite(session, 1);
    world.pass(seconds(1));
    assert!(world.joined(again));
    let late = held.borrow_mut().take().unwrap();
    world.input(0, Input::Received(late));
    world.run();
    assert_eq!(world.changes(2).last().map(String::as_str), Some("bob left"));
    world.pass(seconds(90));
    assert_eq!(world.apps[1].endpoint.session_count(), 0);
}

/// A member gets a new welcome, then hears that another is out, and only then who was
/// in when the welcome was made.
#[test]
fn a_roster_that_is_out_of_date_does_not_count() {
    let mut world = World::new(&["alice", "bob", "carol", "dave"]);
    let session = world.create_group(config(true));
    world.invite(session, 1);
    world.invite(session, 3);
    world.run();
    world.apps[1].deaf = true;
    world.invite(session, 2);
    world.pass(seconds(40));
    world.apps[1].deaf = false;
    // The update that goes with bob's new welcome is lost once; before it is sent
    // again, dave is removed.
    world.lose(MessageType::GroupUpdate, 1, 1);
    while world.count_sent(0, MessageType::RejoinReply) == 0 {
        world.pass(Duration::from_millis(100));
    }
    let name = world.name(3);
    world.command(0, Command::Remove { session, name });
    world.pass(seconds(60));
    let state = world.command(1, Command::State { session });
    let Some(Done::State(Some(state))) = world.apps[1].done.get(&state) else { panic!("no state") };
    assert_eq!(state.members.len(), 3, "{:?}", world.changes(1));
}

/// A member gets new keys when it has given up asking for them: it must not follow the
/// others to where it cannot read anything.
#[test]
fn who_was_given_keys_that_never_came_asks_again() {
    let (mut world, session) = bob_misses_carol();
    world.lose(MessageType::RejoinReply, 1, 20);
    world.pass(seconds(20));
    assert!(world.count_sent(0, MessageType::RejoinReply) > 0);
    check_bob_knows_carol(world, session);
}

/// Without MLS, somebody comes and goes while another waits for its welcome. Of what is
/// told again then, the coming is told last.
#[test]
fn an_old_change_is_not_told_again_as_new() {
    let mut world = World::new(&["alice", "bob", "carol"]);
    let session = world.create_group(config(false));
    world.lose(MessageType::GroupWelcome, 1, 4);
    let bob = world.invite(session, 1);
    world.pass(Duration::from_millis(1900));
    let carol = world.invite(session, 2);
    world.pass(Duration::from_millis(600));
    assert!(world.joined(carol) && !world.joined(bob));
    world.close(2, session);
    world.pass(seconds(15));
    assert!(world.joined(bob));
    let state = world.command(1, Command::State { session });
    let Some(Done::State(Some(state))) = world.apps[1].done.get(&state) else { panic!("no state") };
    assert_eq!(state.members.len(), 2, "{:?}", world.changes(1));
}

/// A copy of what a member said before it left comes after it is back: it is not what
/// the member says now.
#[test]
fn a_copy_from_before_a_member_left_is_not_heard_when_it_is_back() {
    let mut world = World::new(&["alice", "bob", "carol"]);
    let session = world.group(config(true));
    let held = Rc::new(RefCell::new(None));
    let slot = Rc::clone(&held);
    let mut acks = 0;
    world.filter = Some(Box::new(move |from, to, message| {
        let Message::Publish(publish) = message else { return true };
        match publish.body.message_type() {
            MessageType::MsgAck if from == 2 => {
                acks += 1;
                acks > 1
            }
            MessageType::Msg if to == 2 => slot.borrow_mut().replace(message.clone()).is_none(),
            _ => true,
        }
    }));
    world.publish(1, session, "hello");
    world.pass(Duration::from_millis(1500));
    world.filter = None;
    assert_eq!(world.heard(2), ["bob: hello"]);
    let copy = held.borrow_mut().take().unwrap();
    world.close(1, session);
    world.pass(seconds(2));
    let again = world.invite(session, 1);
    world.pass(seconds(2));
    assert!(world.joined(again));
    world.input(2, Input::Received(copy));
    world.run();
    assert_eq!(world.heard(2), ["bob: hello"]);
}

/// What carol said first lay before the start of her stream at bob, and was told as
/// lost. She leaves and comes back while bob is away, and counts anew: he hears what she
/// says under that number now.
#[test]
fn a_new_count_begins_with_a_number_that_was_told_as_lost() {
    let mut world = World::new(&["alice", "carol", "bob"]);
    let session = world.group(config(false));
    world.lose(MessageType::Msg, 2, 1);
    world.publish(1, session, "one");
    world.run();
    world.publish(1, session, "two");
    world.pass(seconds(3));
    assert_eq!(world.heard(2), ["carol: two"]);
    let misses = |world: &World| {
        let events = world.apps[2].events.iter();
        events.filter(|(_, event)| matches!(event, SessionEvent::MessageLost { .. })).count()
    };
    assert_eq!(misses(&world), 1);
    world.apps[2].deaf = true;
    world.close(1, session);
    world.pass(seconds(40));
    let again = world.invite(session, 1);
    world.pass(seconds(5));
    assert!(world.joined(again));
    world.apps[2].deaf = false;
    world.pass(seconds(30));
    let anew = world.publish(1, session, "anew");
    world.pass(seconds(15));
    assert!(matches!(&world.apps[1].done[&anew],
        Done::Published(Ok(report)) if report.delivered.len() == 2));
    assert_eq!(world.heard(2), ["carol: two", "carol: anew"]);
    assert_eq!(misses(&world), 1);
}
