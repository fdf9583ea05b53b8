//! Edges: what holds when messages cross, come twice, are refused, or lie.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use common::{Mallory, SECRET, World, config, receive};
use rand::{SeedableRng, rngs::StdRng};
use slim_auth::{Identity, SharedSecret};
use slim_proto::{
    Body, Command as Wire, Header, JoinRequest, Message, MessageType, Name, Publish, SessionId,
    SessionType, TimerSettings, UNICAST, canonical,
};
use slim_session::{Command, Done, Input, InviteError, Outgoing, SessionEvent, SessionState};

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A signed command of a stranger.
fn say(
    mallory: &Mallory,
    world: &World,
    to: &Name,
    session: SessionId,
    session_type: SessionType,
    message_id: u32,
    command: Wire,
) -> Publish {
    let publish = mallory.unsigned(to, session, Body::Command(command));
    mallory.sign(world, Publish { session_type, message_id, ..publish })
}

fn kind_of(message: &Message) -> Option<MessageType> {
    match message {
        Message::Publish(publish) => Some(publish.body.message_type()),
        _ => None,
    }
}

fn call(world: &mut World, from: usize, to: usize, mls: bool) -> SessionId {
    let peer = world.name(to).without_id();
    let request = world.command(from, Command::CreateP2p { peer, config: config(mls) });
    world.run();
    match &world.apps[from].done[&request] {
        Done::Created(Ok(info)) => info.id,
        other => panic!("{other:?}"),
    }
}

fn state(world: &mut World, app: usize, session: SessionId) -> Option<SessionState> {
    let request = world.command(app, Command::State { session });
    match world.apps[app].done.remove(&request) {
        Some(Done::State(state)) => state,
        other => panic!("{other:?}"),
    }
}

fn has(world: &mut World, app: usize, session: SessionId, name: &Name) -> bool {
    state(world, app, session).is_some_and(|state| state.members.iter().any(|m| m.name == *name))
}

fn delivered(world: &World, app: usize, request: u64) -> Vec<Name> {
    match world.apps[app].done.get(&request) {
        Some(Done::Published(Ok(report))) => report.delivered.clone(),
        other => panic!("{other:?}"),
    }
}

fn lost_events(world: &World, app: usize) -> usize {
    world.apps[app]
        .events
        .iter()
        .filter(|(_, e)| matches!(e, SessionEvent::MessageLost { .. }))
        .count()
}

// ------------------------------------------------------------ authority

#[test]
fn a_stranger_cannot_end_a_call() {
    for mls in [false, true] {
        let mut world = World::new(&["alice", "bob"]);
        let session = call(&mut world, 0, 1, mls);
        let mallory = Mallory::insider();
        let to = world.name(0);
        let publish =
            say(&mallory, &world, &to, session, SessionType::PointToPoint, 5, Wire::LeaveRequest);
        receive(&mut world, 0, publish);
        assert_eq!(world.closed(0), None, "mls {mls}");
    }
}

#[test]
fn a_dismissal_of_bob_does_not_dismiss_alice() {
    for mls in [false, true] {
        let mut world = World::new(&["mod", "alice", "bob"]);
        let session = world.group(config(mls));
        let name = world.name(2);
        world.command(0, Command::Remove { session, name });
        world.run();
        let (_, leave) = world
            .sent
            .iter()
            .find(|(from, p)| *from == 0 && p.body.message_type() == MessageType::LeaveRequest)
            .unwrap()
            .clone();
        receive(&mut world, 1, leave);
        assert_eq!(world.closed(1), None, "mls {mls}: a node redirected it");
    }
}

/// PUBLISH_TO in the metadata is not authenticated.
#[test]
fn a_node_cannot_make_a_message_arrive_twice() {
    let mut world = World::new(&["mod", "alice"]);
    let session = world.group(config(true));
    world.publish(0, session, "one");
    world.run();
    world.filter = Some(Box::new(|_, _, message| !common::is_data(message)));
    world.publish(0, session, "two");
    world.run();
    let (_, mut two) = world
        .sent
        .iter()
        .rev()
        .find(|(_, p)| p.body.message_type() == MessageType::Msg)
        .unwrap()
        .clone();
    two.metadata.insert(canonical::PUBLISH_TO.to_owned(), canonical::TRUE.to_owned());
    receive(&mut world, 1, two);
    world.filter = None;
    world.publish(0, session, "three");
    world.pass(secs(5));
    assert_eq!(world.heard(1), ["mod: one", "mod: two", "mod: three"]);
}

#[test]
fn a_direct_message_for_bob_is_not_given_to_alice() {
    let mut world = World::new(&["mod", "alice", "bob"]);
    let session = world.group(config(true));
    let message = Outgoing {
        payload: Bytes::from_static(b"for bob"),
        to: Some(world.name(2)),
        ..Outgoing::default()
    };
    world.command(0, Command::Publish { session, message });
    world.run();
    let (_, direct) = world
        .sent
        .iter()
        .rev()
        .find(|(_, p)| p.body.message_type() == MessageType::Msg)
        .unwrap()
        .clone();
    receive(&mut world, 1, direct);
    assert!(world.heard(1).is_empty(), "{:?}", world.messages(1));
}

#[test]
fn the_moderators_key_is_the_one_of_its_invitation() {
    for mls in [false, true] {
        let mut world = World::new(&["mod", "alice"]);
        let session = world.group(config(mls));
        let mallory = Mallory::insider();
        let to = world.name(1);
        let forged = mallory.sign_as(
            &world,
            0,
            mallory.unsigned(&to, session, Body::Command(Wire::Heartbeat { epoch: 1 })),
        );
        receive(&mut world, 1, forged);
        let request = world.close(0, session);
        world.pass(secs(6));
        assert!(world.apps[0].done.contains_key(&request));
        assert!(world.closed(1).is_some(), "mls {mls}: the moderator is not believed any more");
    }
}

/// As the reference did before its version 3.
#[test]
fn who_does_not_sign_its_commands_is_told_of() {
    let mut world = World::new(&["mod", "old"]);
    let session = world.create_group(config(false));
    world.filter =
        Some(Box::new(|_, _, message| kind_of(message) != Some(MessageType::DiscoveryReply)));
    let name = world.name(1).without_id();
    let request = world.command(0, Command::Invite { session, name });
    let mut answered = 0;
    for _ in 0..20 {
        world.pass(ms(500));
        for (_, mut reply) in world.sent.split_off(answered) {
            if reply.body.message_type() == MessageType::DiscoveryReply {
                reply.metadata.remove(canonical::PAYLOAD_SIGNATURE);
                receive(&mut world, 0, reply);
            }
        }
        answered = world.sent.len();
    }
    match &world.apps[0].done[&request] {
        Done::Invited(Err(InviteError::IdentityMismatch { reason, .. })) => {
            assert!(reason.contains("not signed"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
}

/// A copy of a GROUP_UPDATE ADD forgets the member's key.
#[test]
fn a_key_stays_known_when_an_update_is_repeated() {
    let mut world = World::new(&["mod", "alice", "bob"]);
    let session = world.create_group(config(false));
    world.invite(session, 1);
    world.run();
    // alice's ack of the update is lost, so it comes again.
    let mut lost = false;
    world.filter = Some(Box::new(move |from, to, message| {
        let hit = !lost && from == 1 && to == 0 && kind_of(message) == Some(MessageType::GroupAck);
        lost |= hit;
        !hit
    }));
    world.invite(session, 2);
    world.run();
    // bob's key is shown: force a heartbeat of everybody
    world.input(2, Input::LinkDown);
    world.input(2, Input::LinkUp);
    world.run();
    world.pass(ms(1500));
    let mallory = Mallory::insider();
    let to = world.name(1);
    let forged = mallory.sign_as(
        &world,
        2,
        mallory.unsigned(&to, session, Body::Command(Wire::Heartbeat { epoch: u64::MAX })),
    );
    receive(&mut world, 1, forged);
    world.pass(secs(60));
    assert!(!world.changes(1).contains(&"bob offline".to_owned()), "bob's own key is refused");
}

#[test]
fn a_replayed_heartbeat_is_no_sign_of_life() {
    let mut world = World::new(&["mod", "alice"]);
    let session = world.group(config(true));
    world.pass(secs(11));
    let (_, heartbeat) = world
        .sent
        .iter()
        .rev()
        .find(|(from, p)| *from == 1 && p.body.message_type() == MessageType::Heartbeat)
        .unwrap()
        .clone();
    world.apps[1].deaf = true;
    for _ in 0..12 {
        world.pass(secs(5));
        receive(&mut world, 0, heartbeat.clone());
    }
    let _ = session;
    assert!(world.changes(0).contains(&"alice offline".to_owned()));
    assert_ne!(world.changes(0).last().unwrap(), "alice online");
}

// ------------------------------------------------------------ removal

#[test]
fn removed_is_out_before_anything_else_is_published() {
    let mut world = World::new(&["mod", "alice", "bob", "carol"]);
    let session = world.create_group(config(true));
    for app in [1, 2] {
        world.invite(session, app);
        world.run();
    }
    world.lose(MessageType::GroupWelcome, 3, 1);
    world.invite(session, 3);
    world.run();
    let name = world.name(2);
    world.command(0, Command::Remove { session, name });
    world.publish(0, session, "secret");
    world.run();
    assert!(world.heard(2).is_empty(), "{:?}", world.heard(2));
}

#[test]
fn who_was_removed_while_away_learns_it_and_can_come_back() {
    for mls in [false, true] {
        let mut world = World::new(&["mod", "alice", "bob"]);
        let session = world.group(config(mls));
        world.apps[2].deaf = true;
        let name = world.name(2);
        let request = world.command(0, Command::Remove { session, name });
        world.pass(secs(40));
        assert!(matches!(world.apps[0].done[&request], Done::Removed(Err(_))));
        world.apps[2].deaf = false;
        world.pass(secs(60));
        assert!(world.closed(2).is_some(), "mls {mls}: bob is told");
    }
}

#[test]
fn who_was_removed_while_away_can_be_invited_again() {
    for mls in [false, true] {
        let mut world = World::new(&["mod", "alice", "bob"]);
        let session = world.group(config(mls));
        world.apps[2].deaf = true;
        let name = world.name(2);
        world.command(0, Command::Remove { session, name });
        world.pass(secs(40));
        world.apps[2].deaf = false;
        world.pass(secs(30));
        let again = world.invite(session, 2);
        world.pass(secs(15));
        assert!(world.joined(again), "mls {mls} {:?}", world.apps[0].done[&again]);
    }
}

#[test]
fn an_old_dismissal_does_not_dismiss_who_is_back() {
    for mls in [false, true] {
        let mut world = World::new(&["mod", "alice", "bob"]);
        let session = world.group(config(mls));
        world.lose(MessageType::LeaveReply, 0, 1);
        let name = world.name(2);
        world.command(0, Command::Remove { session, name });
        world.run();
        world.apps[2].events.clear();
        let again = world.invite(session, 2);
        world.run();
        assert!(world.joined(again));
        world.pass(secs(5));
        assert_eq!(world.closed(2), None, "mls {mls}");
    }
}

#[test]
fn a_replay_of_an_old_dismissal_does_not_dismiss_who_is_back() {
    for mls in [false, true] {
        let mut world = World::new(&["mod", "alice", "bob"]);
        let session = world.group(config(mls));
        let name = world.name(2);
        world.command(0, Command::Remove { session, name });
        world.run();
        let (_, leave) = world
            .sent
            .iter()
            .find(|(from, p)| *from == 0 && p.body.message_type() == MessageType::LeaveRequest)
            .unwrap()
            .clone();
        world.apps[2].events.clear();
        let again = world.invite(session, 2);
        world.run();
        assert!(world.joined(again));
        receive(&mut world, 2, leave);
        assert_eq!(world.closed(2), None, "mls {mls}");
    }
}

/// No MLS: nothing orders updates. An ADD repeated after the REMOVE.
#[test]
fn who_left_does_not_come_back_as_a_ghost() {
    let mut world = World::new(&["mod", "alice", "bob"]);
    let session = world.create_group(config(false));
    world.invite(session, 1);
    world.run();
    let mut lost = false;
    world.filter = Some(Box::new(move |from, to, message| {
        let hit = !lost && from == 1 && to == 0 && kind_of(message) == Some(MessageType::GroupAck);
        lost |= hit;
        !hit
    }));
    world.invite(session, 2);
    world.run();
    world.close(2, session);
    world.pass(secs(5));
    let bob = world.name(2);
    assert!(!has(&mut world, 0, session, &bob));
    assert!(!has(&mut world, 1, session, &bob), "alice has a ghost");
    assert!(
        !world.changes(0).contains(&"bob joined".to_owned())
            || world.changes(0).last().unwrap() == "bob left",
        "{:?}",
        world.changes(0)
    );
}

/// No MLS: a REMOVE repeated (for carol's sake) after the member is back.
#[test]
fn who_is_back_is_not_removed_by_an_old_update() {
    let mut world = World::new(&["mod", "alice", "bob", "carol"]);
    let session = world.group(config(false));
    world.apps[3].deaf = true;
    world.close(2, session);
    world.run();
    let again = world.invite(session, 2);
    world.pass(secs(20));
    assert!(world.joined(again));
    let bob = world.name(2);
    assert!(has(&mut world, 0, session, &bob));
    assert!(has(&mut world, 1, session, &bob), "alice dropped bob again");
    let left = world.changes(1).iter().filter(|change| *change == "bob left").count();
    assert_eq!(left, 1, "{:?}", world.changes(1));
}

// ------------------------------------------------------------ joining

#[test]
fn an_invitation_can_be_tried_again() {
    for mls in [false, true] {
        let mut world = World::new(&["mod", "alice"]);
        let session = world.create_group(config(mls));
        world.lose(MessageType::JoinReply, 0, 1000);
        let first = world.invite(session, 1);
        world.pass(secs(12));
        assert!(matches!(
            world.apps[0].done[&first],
            Done::Invited(Err(InviteError::NoAnswer { .. }))
        ));
        world.filter = None;
        let second = world.invite(session, 1);
        world.pass(secs(12));
        assert!(world.joined(second), "mls {mls}: {:?}", world.apps[0].done[&second]);
    }
}

#[test]
fn a_restarted_application_is_invited_not_its_ghost() {
    let mut world = World::new(&["mod", "alice"]);
    let session = world.group(config(true));
    world.apps[1].deaf = true;
    world.pass(secs(40));
    assert_eq!(world.changes(0).last().unwrap(), "alice offline");
    let new = world.add("alice", SECRET);
    world.run();
    let name = world.name(new);
    assert_ne!(name, world.name(1));
    let request = world.command(0, Command::Invite { session, name: name.clone() });
    world.pass(secs(15));
    match &world.apps[0].done[&request] {
        Done::Invited(Ok(joined)) => assert_eq!(*joined, name, "not who was invited"),
        other => panic!("{other:?}"),
    }
    assert_eq!(world.apps[new].invited.len(), 1);
}

#[test]
fn an_invitation_ends_when_the_node_refuses_the_channel() {
    let mut world = World::new(&["mod", "alice"]);
    world.refuse_channels = true;
    let session = world.create_group(config(true));
    let request = world.invite(session, 1);
    world.pass(secs(60));
    assert!(world.apps[0].done.contains_key(&request), "no outcome");
    assert!(!world.joined(request), "joined a channel that nobody holds");
}

/// The refusal comes after the join reply.
#[test]
fn an_invitation_ends_when_the_node_refuses_late() {
    let mut world = World::new(&["mod", "alice"]);
    world.refuse_channels = true;
    world.hold_acks = true;
    let session = world.create_group(config(true));
    let invite = world.invite(session, 1);
    world.run();
    world.release_acks();
    world.pass(secs(60));
    assert!(world.apps[0].done.contains_key(&invite), "no outcome");
}

#[test]
fn a_participant_without_its_channel_does_not_say_it_is_in() {
    let mut world = World::new(&["mod", "alice"]);
    let session = world.create_group(config(true));
    world.refuse_channels = true;
    let request = world.invite(session, 1);
    world.pass(secs(60));
    assert!(!world.joined(request), "{:?}", world.apps[0].done[&request]);
    assert!(world.apps[1].invited.is_empty());
}

/// Welcomed, but the channel is refused, and the moderator is gone.
#[test]
fn a_session_that_is_never_active_is_freed() {
    let mut world = World::new(&["mod", "alice"]);
    let session = world.create_group(config(true));
    world.refuse_channels = true;
    world.hold_acks = true;
    world.invite(session, 1);
    world.run();
    assert!(world.apps[1].invited.is_empty());
    world.apps[0].deaf = true;
    world.release_acks();
    world.pass(secs(3600));
    assert!(world.apps[1].invited.is_empty());
    assert_eq!(world.apps[1].endpoint.session_count(), 0, "a session that nobody can close");
}

#[test]
fn who_does_not_confirm_does_not_hold_up_others() {
    for mls in [false, true] {
        let mut world = World::new(&["mod", "alice", "bob", "carol"]);
        let session = world.create_group(config(mls));
        world.invite(session, 1);
        world.run();
        world.lose(MessageType::GroupWelcome, 2, 1000);
        world.invite(session, 2);
        world.run();
        let carol = world.invite(session, 3);
        world.pass(secs(4));
        assert!(world.joined(carol), "mls {mls}: waits for bob");
    }
}

#[test]
fn a_member_that_missed_a_join_hears_the_new_one() {
    for mls in [true, false] {
        let mut world = World::new(&["mod", "alice", "bob", "carol"]);
        let session = world.create_group(config(mls));
        for app in [1, 2] {
            world.invite(session, app);
            world.run();
        }
        world.apps[1].deaf = true;
        let carol = world.invite(session, 3);
        world.pass(secs(40));
        assert!(world.joined(carol));
        world.apps[1].deaf = false;
        world.pass(secs(60));
        let request = world.publish(3, session, "hi");
        world.pass(secs(15));
        assert!(delivered(&world, 3, request).contains(&world.name(1)), "mls {mls}");
    }
}

#[test]
fn huge_timers_of_a_peer_do_not_keep_a_session_for_ever() {
    let mut world = World::new(&["alice"]);
    let mallory = Mallory::insider();
    let to = world.name(0);
    for n in 0..10 {
        let join = Wire::JoinRequest(JoinRequest {
            timer_settings: Some(TimerSettings { timeout_ms: u32::MAX, max_retries: u32::MAX }),
            channels: None,
            mls_aad_percent: None,
        });
        let publish = say(&mallory, &world, &to, SessionId(n), SessionType::PointToPoint, 5, join);
        receive(&mut world, 0, publish);
    }
    world.pass(secs(30 * 24 * 3600));
    assert_eq!(world.apps[0].endpoint.session_count(), 0);
}

// ------------------------------------------------------------ rejoin

/// Every message between the two takes 1.2 s: copies cross with answers.
#[test]
fn rejoining_over_a_slow_link() {
    let mut world = World::new(&["mod", "alice", "bob", "carol"]);
    let session = world.create_group(config(true));
    for app in [1, 2] {
        world.invite(session, app);
        world.run();
    }
    world.apps[1].deaf = true;
    world.invite(session, 3);
    world.pass(secs(40));
    world.apps[1].deaf = false;
    let late: Rc<RefCell<Vec<Message>>> = Rc::default();
    let keep = late.clone();
    let mut holding = false;
    let active = Rc::new(RefCell::new(true));
    let on = active.clone();
    world.filter = Some(Box::new(move |from, to, message| {
        if !*on.borrow() {
            return true;
        }
        // What the moderator says to alice from its rejoin reply on.
        if from == 0 && to == 1 && (holding || kind_of(message) == Some(MessageType::RejoinReply)) {
            holding = true;
            keep.borrow_mut().push(message.clone());
            return false;
        }
        true
    }));
    // Until two rejoin requests are out.
    for _ in 0..400 {
        world.pass(ms(100));
        if world.count_sent(1, MessageType::RejoinRequest) >= 2 {
            break;
        }
    }
    assert!(world.count_sent(1, MessageType::RejoinRequest) >= 2);
    world.pass(ms(200));
    *active.borrow_mut() = false;
    let held: Vec<Message> = late.borrow_mut().drain(..).collect();
    for message in held {
        world.input(1, Input::Received(message));
        world.run();
    }
    world.pass(secs(60));
    let request = world.publish(0, session, "hello");
    world.pass(secs(15));
    assert!(delivered(&world, 0, request).contains(&world.name(1)), "alice is mute for ever");
    assert_eq!(world.heard(1), ["mod: hello"]);
}

#[test]
fn a_member_that_was_cut_off_catches_up_everybody() {
    let mut world = World::new(&["mod", "alice", "bob", "carol"]);
    let session = world.create_group(config(true));
    for app in [1, 2] {
        world.invite(session, app);
        world.run();
    }
    world.apps[1].deaf = true;
    world.publish(1, session, "into the void");
    world.invite(session, 3);
    world.pass(secs(60));
    world.apps[1].deaf = false;
    world.pass(secs(60));
    assert_eq!(world.heard(0), ["alice: into the void"]);
    assert_eq!(world.heard(2), ["alice: into the void"], "{:?}", world.changes(1));
    assert!(world.changes(1).contains(&"carol joined".to_owned()), "{:?}", world.changes(1));
    assert!(world.changes(1).contains(&"bob online".to_owned()), "{:?}", world.changes(1));
}

// ------------------------------------------------------------ data

/// The very first message of a sender is lost once.
#[test]
fn the_first_message_is_lost_once() {
    for mls in [false, true] {
        let mut world = World::new(&["mod", "alice"]);
        let session = world.group(config(mls));
        world.lose(MessageType::Msg, 1, 1);
        let one = world.publish(0, session, "one");
        world.publish(0, session, "two");
        world.pass(secs(15));
        let told = lost_events(&world, 1) > 0;
        let has = world.heard(1).contains(&"mod: one".to_owned());
        assert!(
            has || told || delivered(&world, 0, one).is_empty(),
            "mls {mls}: reported as delivered to alice, who heard {:?}",
            world.heard(1)
        );
    }
}

/// A new member speaks before others have heard of it.
#[test]
fn the_first_words_of_a_new_member() {
    for mls in [true, false] {
        let mut world = World::new(&["mod", "alice", "bob"]);
        let session = world.create_group(config(mls));
        world.invite(session, 1);
        world.run();
        world.lose(MessageType::GroupUpdate, 1, 1);
        world.invite(session, 2);
        world.run();
        world.pass(ms(500));
        let one = world.publish(2, session, "one");
        world.pass(ms(700));
        world.publish(2, session, "two");
        world.pass(secs(15));
        assert_eq!(
            world.heard(1),
            ["bob: one", "bob: two"],
            "mls {mls}: reported as delivered to {:?}",
            delivered(&world, 2, one)
        );
    }
}

#[test]
fn a_request_is_not_a_delivery() {
    let mut world = World::new(&["alice", "bob"]);
    let session = call(&mut world, 0, 1, false);
    world.filter = Some(Box::new(move |_, to, message| {
        let Message::Publish(publish) = message else { return true };
        let hit = to == 1
            && publish.message_id == 1
            && matches!(publish.body.message_type(), MessageType::Msg | MessageType::RtxReply);
        !hit
    }));
    let one = world.publish(0, session, "one");
    world.publish(0, session, "two");
    world.pass(secs(30));
    assert_eq!(world.heard(1), ["alice: two"]);
    assert!(delivered(&world, 0, one).is_empty(), "bob never had it");
}

/// Somebody publishes all the time; each message needs a second copy.
#[test]
fn flush_waits_only_for_what_was_published_before_it() {
    let mut world = World::new(&["mod", "alice"]);
    let session = world.group(config(false));
    world.filter = Some(Box::new(|_, _, message| match message {
        Message::Publish(publish) => {
            !(common::is_data(message) && publish.header.fanout != UNICAST)
        }
        _ => true,
    }));
    let one = world.publish(0, session, "one");
    let flush = world.command(0, Command::Flush { session });
    for _ in 0..10 {
        world.pass(ms(500));
        world.publish(0, session, "more");
    }
    assert!(world.apps[0].done.contains_key(&one));
    assert!(world.apps[0].done.contains_key(&flush), "waits for what came later");
}

#[test]
fn metadata_counts_for_early_data() {
    // A stranger fills the memory of a session that is only invited.
    let mut world = World::new(&["mod", "alice"]);
    let session = world.create_group(config(false));
    world.lose(MessageType::GroupWelcome, 1, 1000);
    world.invite(session, 1);
    world.run();
    let big = "x".repeat(3 << 20);
    let to = world.name(1);
    for n in 0..40 {
        let mut publish = Publish {
            header: Header::new(world.name(0), to.clone(), UNICAST),
            session_type: SessionType::Multicast,
            session_id: session,
            message_id: n + 1,
            body: Body::Msg(slim_proto::AppPayload::default()),
            metadata: Default::default(),
        };
        publish.metadata.insert("k".into(), big.clone());
        world.input(1, Input::Received(Message::Publish(publish)));
    }
    world.filter = None;
    world.pass(secs(3));
    let held = world.heard(1).len() * (3 << 20);
    assert!(held <= 8 << 20, "{held} bytes were kept, 8 MiB is the bound");
}

// ------------------------------------------------------------ the link

#[test]
fn a_name_that_was_refused_once_is_asked_for_again() {
    let mut world = World::new(&["alice"]);
    world.refuse_all = true;
    world.input(0, Input::LinkDown);
    world.input(0, Input::LinkUp);
    world.run();
    assert!(!world.apps[0].ready);
    world.refuse_all = false;
    world.input(0, Input::LinkDown);
    world.input(0, Input::LinkUp);
    world.run();
    world.pass(secs(60));
    assert!(world.apps[0].ready, "never asked for again");
}

#[test]
fn close_ends_without_a_link() {
    let mut world = World::new(&["mod", "alice"]);
    let session = world.group(config(false));
    world.input(1, Input::LinkDown);
    let request = world.close(1, session);
    // The driver would come back at every deadline; there is none.
    assert!(
        world.apps[1].done.contains_key(&request)
            || world.apps[1].endpoint.next_deadline().is_some()
    );
}

#[test]
fn a_stray_copy_of_a_join_request_is_not_answered_after_leaving() {
    let mut world = World::new(&["mod", "alice"]);
    let session = world.group(config(false));
    let (_, join) = world
        .sent
        .iter()
        .find(|(from, p)| *from == 0 && p.body.message_type() == MessageType::JoinRequest)
        .unwrap()
        .clone();
    world.close(1, session);
    world.run();
    let before = world.count_sent(1, MessageType::JoinReply);
    receive(&mut world, 1, join);
    assert_eq!(
        world.count_sent(1, MessageType::JoinReply),
        before,
        "T10: kills a moderator of the reference"
    );
}

/// Gives tokens that end soon, and none at all when told so.
#[derive(Debug)]
struct Poor {
    inner: SharedSecret,
    none: std::sync::atomic::AtomicBool,
}

impl Identity for Poor {
    fn subject(&self) -> &str {
        self.inner.subject()
    }
    fn key(&self) -> &slim_auth::SigningKey {
        self.inner.key()
    }
    fn token(&self, now: u64, rng: &mut dyn rand::Rng) -> Result<String, slim_auth::TokenError> {
        if self.none.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(slim_auth::TokenError::Unavailable("file is gone".into()));
        }
        self.inner.token(now - 3000, rng)
    }
}

fn poor(world: &mut World, app: usize) -> std::sync::Arc<Poor> {
    let mut rng = StdRng::seed_from_u64(99);
    let text = "org/test/poor";
    let inner = SharedSecret::new(text, SECRET, &mut rng).unwrap();
    let verifier = std::sync::Arc::new(SharedSecret::new(text, SECRET, &mut rng).unwrap());
    let identity = std::sync::Arc::new(Poor { inner, none: false.into() });
    let config = slim_session::EndpointConfig::new(text.parse().unwrap(), 99);
    let endpoint = slim_session::Endpoint::new(config, identity.clone(), verifier);
    world.apps[app].name = endpoint.name().clone();
    world.apps[app].endpoint = endpoint;
    world.input(app, Input::LinkUp);
    world.run();
    identity
}

/// Tokens that last ten minutes.
#[test]
fn short_tokens_do_not_make_a_storm_of_commits() {
    let mut world = World::new(&["mod", "alice"]);
    poor(&mut world, 0);
    world.group(config(true));
    world.pass(secs(300));
    let commits = world.count_sent(0, MessageType::GroupUpdate);
    assert!(commits <= 3, "{commits} in five minutes");
}

/// No token at the moment when the link comes back.
#[test]
fn a_missing_token_does_not_stop_everything_for_ever() {
    let mut world = World::new(&["mod", "alice"]);
    let identity = poor(&mut world, 0);
    let session = world.group(config(false));
    world.input(0, Input::LinkDown);
    world.pass(secs(31));
    identity.none.store(true, std::sync::atomic::Ordering::Relaxed);
    world.input(0, Input::LinkUp);
    identity.none.store(false, std::sync::atomic::Ordering::Relaxed);
    world.pass(secs(60));
    let request = world.publish(0, session, "hello");
    world.pass(secs(30));
    assert!(world.apps[0].done.contains_key(&request), "no outcome");
    assert_eq!(delivered(&world, 0, request).len(), 1);
}
