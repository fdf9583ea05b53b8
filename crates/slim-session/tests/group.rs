//! Groups: invitations, data, changes, the end.

mod common;

use std::time::Duration;

use common::{World, config};
use slim_proto::{MessageType, SessionId};
use slim_session::{CloseReason, Command, Done, InviteError, PublishError, RemoveError};

fn all_to_all(mls: bool) {
    let mut world = World::new(&["mod", "alice", "bob"]);
    let session = world.group(config(mls));
    for app in 0..3 {
        for n in 0..3 {
            let request = world.publish(app, session, &format!("{n}"));
            world.run();
            match &world.apps[app].done[&request] {
                Done::Published(Ok(report)) => {
                    assert_eq!((report.delivered.len(), report.lost.len()), (2, 0));
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(world.heard(0), ["alice: 0", "alice: 1", "alice: 2", "bob: 0", "bob: 1", "bob: 2"]);
    assert_eq!(world.heard(1), ["mod: 0", "mod: 1", "mod: 2", "bob: 0", "bob: 1", "bob: 2"]);
    assert_eq!(world.heard(2), ["mod: 0", "mod: 1", "mod: 2", "alice: 0", "alice: 1", "alice: 2"]);
    assert_eq!(world.changes(0), ["alice joined", "bob joined"]);
    assert_eq!(world.changes(1), ["bob joined"]);
    assert!(world.changes(2).is_empty());
}

#[test]
fn everybody_hears_everybody() {
    all_to_all(false);
}

#[test]
fn everybody_hears_everybody_encrypted() {
    all_to_all(true);
}

#[test]
fn eight_invitations_at_once() {
    for mls in [false, true] {
        let mut world = World::new(&["mod", "a", "b", "c", "d", "e", "f", "g", "h"]);
        let session = world.create_group(config(mls));
        let requests: Vec<u64> = (1..9).map(|app| world.invite(session, app)).collect();
        world.run();
        assert!(requests.iter().all(|request| world.joined(*request)), "mls {mls}");
        assert_eq!(world.count_sent(0, MessageType::GroupUpdate), 0, "one change for all");
        assert_eq!(epochs(&mut world, session), vec![mls.then_some(1); 9]);
        let request = world.publish(4, session, "hello");
        world.run();
        match &world.apps[4].done[&request] {
            Done::Published(Ok(report)) => assert_eq!(report.delivered.len(), 8),
            other => panic!("{other:?}"),
        }
        for app in [0, 1, 2, 3, 5, 6, 7, 8] {
            assert_eq!(world.heard(app), ["d: hello"]);
        }
    }
}

/// The epoch of each member's session.
fn epochs(world: &mut World, session: SessionId) -> Vec<Option<u64>> {
    (0..world.apps.len())
        .map(|app| {
            let request = world.command(app, Command::State { session });
            match &world.apps[app].done[&request] {
                Done::State(Some(state)) => state.mls.map(|mls| mls.epoch),
                other => panic!("{other:?}"),
            }
        })
        .collect()
}

/// Whoever answers in time is the first change, the others come one by one.
#[test]
fn who_answers_late_comes_later() {
    for mls in [false, true] {
        let mut world = World::new(&["mod", "a", "b", "late", "later"]);
        let session = world.create_group(config(mls));
        world.apps[3].deaf = true;
        world.apps[4].deaf = true;
        let requests: Vec<u64> = (1..5).map(|app| world.invite(session, app)).collect();
        world.pass(Duration::from_millis(500));
        assert_eq!(requests.iter().filter(|request| world.joined(**request)).count(), 2);
        assert_eq!(world.count_sent(0, MessageType::GroupUpdate), 0);
        world.apps[3].deaf = false;
        world.apps[4].deaf = false;
        world.pass(Duration::from_secs(2));
        assert!(requests.iter().all(|request| world.joined(*request)), "mls {mls}");
        assert_eq!(world.changes(1), ["late joined", "later joined"]);
        assert_eq!(epochs(&mut world, session), vec![mls.then_some(3); 5]);
    }
}

#[test]
fn one_that_is_welcomed_with_others_and_never_confirms_is_out_again() {
    let mut world = World::new(&["mod", "a", "b"]);
    let session = world.create_group(config(true));
    world.lose(MessageType::GroupWelcome, 2, usize::MAX);
    let (a, b) = (world.invite(session, 1), world.invite(session, 2));
    world.pass(Duration::from_secs(2));
    assert!(world.joined(a));
    world.pass(Duration::from_secs(12));
    assert!(matches!(world.apps[0].done[&b], Done::Invited(Err(InviteError::NoAnswer { .. }))));
    world.filter = None;
    let request = world.publish(1, session, "hello");
    world.pass(Duration::from_secs(1));
    match &world.apps[1].done[&request] {
        Done::Published(Ok(report)) => assert_eq!(report.delivered, [world.name(0)]),
        other => panic!("{other:?}"),
    }
}

#[test]
fn who_is_not_there_does_not_hold_up_the_others() {
    let mut world = World::new(&["mod", "alice"]);
    let session = world.create_group(config(true));
    let name = "org/test/nobody".parse().unwrap();
    let nobody = world.command(0, Command::Invite { session, name });
    let alice = world.invite(session, 1);
    world.run();
    assert!(!world.joined(alice), "others may answer at the same time");
    world.pass(Duration::from_millis(500));
    assert!(world.joined(alice));
    assert!(!world.apps[0].done.contains_key(&nobody));
    world.pass(Duration::from_secs(12));
    match &world.apps[0].done[&nobody] {
        Done::Invited(Err(InviteError::NoAnswer { after, .. })) => {
            assert_eq!(*after, Duration::from_secs(11));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_late_invitee_still_joins() {
    let mut world = World::new(&["mod", "alice"]);
    world.apps[1].deaf = true;
    let session = world.create_group(config(true));
    let request = world.invite(session, 1);
    world.pass(Duration::from_millis(3500));
    world.apps[1].deaf = false;
    world.pass(Duration::from_secs(1));
    assert!(world.joined(request));
}

#[test]
fn inviting_twice_is_harmless() {
    let mut world = World::new(&["mod", "alice"]);
    let session = world.create_group(config(true));
    let first = world.invite(session, 1);
    let second = world.invite(session, 1);
    world.run();
    let third = world.invite(session, 1);
    world.pass(Duration::from_secs(2));
    assert!([first, second, third].iter().all(|request| world.joined(*request)));
    assert_eq!(world.count_sent(0, MessageType::JoinRequest), 1);
}

/// Whatever one message of joining is lost, once, the invitation succeeds.
#[test]
fn a_lost_message_does_not_fail_an_invitation() {
    for mls in [false, true] {
        for (kind, to) in [
            (MessageType::DiscoveryRequest, 2),
            (MessageType::DiscoveryReply, 0),
            (MessageType::JoinRequest, 2),
            (MessageType::JoinReply, 0),
            (MessageType::GroupWelcome, 2),
            (MessageType::GroupAck, 0),
            (MessageType::GroupUpdate, 1),
        ] {
            let mut world = World::new(&["mod", "alice", "bob"]);
            let session = world.create_group(config(mls));
            world.invite(session, 1);
            world.run();
            world.lose(kind, to, 1);
            let request = world.invite(session, 2);
            world.pass(Duration::from_secs(3));
            assert!(world.joined(request), "{kind:?} lost, mls {mls}");
            for app in 0..3 {
                world.publish(app, session, "hello");
            }
            world.pass(Duration::from_secs(3));
            for app in 0..3 {
                assert_eq!(world.heard(app).len(), 2, "{kind:?} lost, mls {mls}, app {app}");
            }
            assert!(!world.changes(0).contains(&"alice offline".to_owned()), "{kind:?}");
        }
    }
}

#[test]
fn a_removed_member_is_told_and_hears_nothing_more() {
    for mls in [false, true] {
        let mut world = World::new(&["mod", "alice", "bob"]);
        let session = world.group(config(mls));
        let name = world.name(2).without_id();
        let request = world.command(0, Command::Remove { session, name });
        world.run();
        assert!(matches!(world.apps[0].done[&request], Done::Removed(Ok(()))));
        assert_eq!(world.closed(2), Some(CloseReason::Removed));
        world.publish(0, session, "secret");
        world.run();
        assert_eq!(world.heard(1), ["mod: secret"]);
        assert!(world.heard(2).is_empty());
        assert_eq!(world.changes(0).last().unwrap(), "bob removed");
        assert_eq!(world.changes(1).last().unwrap(), "bob left");

        let again = world.invite(session, 2);
        world.run();
        assert!(world.joined(again), "invited again");
        world.publish(2, session, "back");
        world.run();
        assert_eq!(world.heard(1).last().unwrap(), "bob: back");
    }
}

#[test]
fn removing_nobody_is_an_error() {
    let mut world = World::new(&["mod", "alice"]);
    let session = world.group(config(false));
    let name: slim_proto::Name = "org/test/nobody".parse().unwrap();
    let request = world.command(0, Command::Remove { session, name: name.clone() });
    match &world.apps[0].done[&request] {
        Done::Removed(Err(error)) => assert_eq!(*error, RemoveError::NotMember { name }),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_participant_leaves() {
    for mls in [false, true] {
        let mut world = World::new(&["mod", "alice", "bob"]);
        let session = world.group(config(mls));
        let request = world.close(1, session);
        world.run();
        assert!(matches!(world.apps[1].done[&request], Done::Closed));
        assert_eq!(world.closed(1), Some(CloseReason::Left));
        assert_eq!(world.changes(0).last().unwrap(), "alice left");
        assert_eq!(world.changes(2).last().unwrap(), "alice left");
        let request = world.publish(2, session, "still here");
        world.run();
        match &world.apps[2].done[&request] {
            Done::Published(Ok(report)) => assert_eq!(report.delivered, [world.name(0)]),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_moderator_closes_for_all() {
    for mls in [false, true] {
        let mut world = World::new(&["mod", "alice", "bob"]);
        let session = world.group(config(mls));
        let request = world.close(0, session);
        world.run();
        assert!(matches!(world.apps[0].done[&request], Done::Closed));
        assert_eq!(world.closed(0), Some(CloseReason::Left));
        for app in [1, 2] {
            assert_eq!(world.closed(app), Some(CloseReason::ModeratorClosed));
            let request = world.publish(app, session, "too late");
            let refused = &world.apps[app].done[&request];
            assert!(matches!(refused, Done::Published(Err(PublishError::Closed))), "{refused:?}");
        }
        world.pass(Duration::from_secs(60));
        for app in 0..3 {
            assert_eq!(world.apps[app].endpoint.session_count(), 0, "nothing is left");
            assert_eq!(world.apps[app].endpoint.next_deadline(), None);
        }
    }
}

#[test]
fn nobody_to_publish_to() {
    let mut world = World::new(&["mod"]);
    let session = world.create_group(config(true));
    let request = world.publish(0, session, "hello?");
    let refused = &world.apps[0].done[&request];
    assert!(matches!(refused, Done::Published(Err(PublishError::Alone))), "{refused:?}");
}

#[test]
fn a_participant_may_not_invite() {
    let mut world = World::new(&["mod", "alice"]);
    let session = world.group(config(true));
    let name = "org/test/bob".parse().unwrap();
    let request = world.command(1, Command::Invite { session, name });
    let refused = &world.apps[1].done[&request];
    assert!(matches!(refused, Done::Invited(Err(InviteError::NotModerator))), "{refused:?}");
}

#[test]
fn another_secret_is_told_to_both_sides_once() {
    let mut world = World::new(&["mod", "alice"]);
    let bob = world.add("bob", "another secret of thirty-two bytes!!");
    let session = world.create_group(config(true));
    let alice = world.invite(session, 1);
    let request = world.invite(session, bob);
    world.pass(Duration::from_millis(500));
    assert!(world.joined(alice));
    // It might have been somebody else who said so.
    assert!(!world.apps[0].done.contains_key(&request));
    world.pass(Duration::from_secs(3));
    let refused = &world.apps[0].done[&request];
    assert!(
        matches!(refused, Done::Invited(Err(InviteError::IdentityMismatch { .. }))),
        "{refused:?}"
    );
    assert_eq!(world.apps[bob].mismatches, [world.name(0)]);
    world.invite(session, bob);
    world.run();
    assert_eq!(world.apps[bob].mismatches.len(), 1);
}

/// A lost link stops the clocks: nobody is lost meanwhile, and what was published
/// arrives afterwards.
#[test]
fn what_is_published_without_a_link_is_sent_when_it_is_back() {
    for mls in [false, true] {
        let mut world = World::new(&["mod", "alice", "bob"]);
        let session = world.group(config(mls));
        world.input(1, slim_session::Input::LinkDown);
        let first = world.publish(1, session, "one");
        let second = world.publish(1, session, "two");
        world.pass(Duration::from_secs(15));
        assert!(!world.apps[1].done.contains_key(&first));
        world.input(1, slim_session::Input::LinkUp);
        world.pass(Duration::from_secs(2));
        for request in [first, second] {
            match &world.apps[1].done[&request] {
                Done::Published(Ok(report)) => assert_eq!(report.delivered.len(), 2),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(world.heard(0), ["alice: one", "alice: two"]);
        assert_eq!(world.heard(2), ["alice: one", "alice: two"]);
    }
}

#[test]
fn a_killed_member_is_reported_lost_then_offline() {
    let mut world = World::new(&["mod", "alice", "bob"]);
    let session = world.group(config(true));
    world.apps[2].deaf = true;
    let request = world.publish(0, session, "anybody?");
    world.pass(Duration::from_secs(12));
    match &world.apps[0].done[&request] {
        Done::Published(Ok(report)) => {
            assert_eq!(report.delivered, [world.name(1)]);
            assert_eq!(report.lost, [world.name(2)]);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(world.changes(0).last().unwrap(), "bob offline");
    // It does not hold up anything any more.
    let name = world.name(2);
    let request = world.command(0, Command::Remove { session, name });
    world.pass(Duration::from_secs(12));
    let outcome = &world.apps[0].done[&request];
    assert!(matches!(outcome, Done::Removed(Err(RemoveError::Unconfirmed { .. }))), "{outcome:?}");
}

/// A member that missed a commit is welcomed anew, and hears everybody again.
#[test]
fn a_member_that_fell_behind_rejoins() {
    let mut world = World::new(&["mod", "alice", "bob", "carol"]);
    let session = world.create_group(config(true));
    for app in [1, 2] {
        world.invite(session, app);
        world.run();
    }
    world.apps[1].deaf = true;
    let carol = world.invite(session, 3);
    world.pass(Duration::from_secs(40));
    assert!(world.joined(carol));
    assert!(world.changes(0).contains(&"alice offline".to_owned()));
    world.apps[1].deaf = false;
    world.pass(Duration::from_secs(30));
    assert_eq!(world.changes(0).last().unwrap(), "alice online");
    for (app, text) in [(0, "from mod"), (1, "from alice"), (3, "from carol")] {
        let request = world.publish(app, session, text);
        world.pass(Duration::from_secs(1));
        match &world.apps[app].done[&request] {
            Done::Published(Ok(report)) => assert_eq!(report.delivered.len(), 3, "{text}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(world.heard(1), ["mod: from mod", "carol: from carol"]);
}

/// Tokens last an hour; a group does not notice.
#[test]
fn an_encrypted_group_outlives_its_tokens() {
    let mut world = World::new(&["mod", "alice", "bob"]);
    let session = world.create_group(config(true));
    world.invite(session, 1);
    world.run();
    world.pass(Duration::from_secs(2 * 3600));
    let request = world.invite(session, 2);
    world.run();
    assert!(world.joined(request));
    for app in 0..3 {
        let request = world.publish(app, session, "still here");
        world.run();
        match &world.apps[app].done[&request] {
            Done::Published(Ok(report)) => assert_eq!(report.delivered.len(), 2),
            other => panic!("{other:?}"),
        }
    }
    // Others check the token in a leaf with every message: alice's is new, too.
    let asked = world.count_sent(1, MessageType::RejoinRequest);
    assert!((2..=3).contains(&asked), "{asked} renewals of the participant");
    let commits = world.count_sent(0, MessageType::GroupUpdate);
    assert!((3..=4).contains(&(commits - asked)), "{commits}: two renewals and one admission");
}

/// A process that died and was started again has a new id. Inviting its name
/// again lets it in, as soon as it is clear that the old one is gone.
#[test]
fn a_member_that_was_started_again_is_invited_again() {
    for mls in [false, true] {
        let mut world = World::new(&["mod", "alice", "bob"]);
        let session = world.group(config(mls));
        world.apps[2].deaf = true;
        world.forget(2);
        let bob = world.add("bob", common::SECRET);
        world.run();
        let request = world.invite(session, bob);
        world.pass(Duration::from_secs(12));
        assert!(world.joined(request), "mls {mls}");
        assert_eq!(world.apps[bob].invited.len(), 1);
        let request = world.publish(1, session, "hello again");
        world.pass(Duration::from_secs(1));
        match &world.apps[1].done[&request] {
            Done::Published(Ok(report)) => {
                assert_eq!((report.delivered.len(), report.lost.len()), (2, 0));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(world.heard(bob), ["alice: hello again"]);
    }
}

/// Another living instance of a member's name does not push the member out.
#[test]
fn a_second_instance_does_not_replace_the_first() {
    let mut world = World::new(&["mod", "alice", "bob"]);
    let session = world.group(config(true));
    let twin = world.add("bob", common::SECRET);
    // The node picks the other instance now.
    world.prefer_last = true;
    let request = world.invite(session, twin);
    world.pass(Duration::from_secs(12));
    match &world.apps[0].done[&request] {
        Done::Invited(Ok(name)) => assert_eq!(*name, world.name(2)),
        other => panic!("{other:?}"),
    }
    assert!(world.apps[twin].invited.is_empty());
    assert_eq!(world.closed(2), None);
}

/// The moderator dies while it removes somebody: the others know already, so it has to
/// learn it, too.
#[test]
fn who_is_removed_by_a_moderator_that_dies_meanwhile_learns_it() {
    for mls in [false, true] {
        let mut world = World::new(&["alice", "bob", "carol"]);
        let session = world.group(config(mls));
        world.lose(MessageType::GroupAck, 0, 99);
        let name = world.name(1);
        world.command(0, Command::Remove { session, name });
        world.run();
        world.apps[0].deaf = true;
        world.pass(Duration::from_secs(15));
        assert_eq!(world.closed(1), None, "she may still be telling the others");
        world.pass(Duration::from_secs(2));
        assert_eq!(world.closed(1), Some(CloseReason::Removed), "mls: {mls}");
        assert_eq!(world.closed(2), None);
    }
}

/// Somebody was killed and is not known to be offline yet: an invitation does not wait
/// for it as long as that takes.
#[test]
fn a_killed_member_does_not_hold_up_an_invitation() {
    for mls in [false, true] {
        let mut world = World::new(&["alice", "bob", "carol"]);
        let session = world.create_group(config(mls));
        let bob = world.invite(session, 1);
        world.run();
        assert!(world.joined(bob));
        world.apps[1].deaf = true;
        let carol = world.invite(session, 2);
        world.pass(Duration::from_secs(2));
        assert!(!world.joined(carol), "bob may be slow");
        world.pass(Duration::from_secs(2));
        assert!(world.joined(carol), "mls: {mls}");
        // He was, and has missed nothing.
        world.apps[1].deaf = false;
        world.pass(Duration::from_secs(2));
        assert_eq!(world.changes(1), ["carol joined"]);
        let publish = world.publish(2, session, "hello");
        world.run();
        assert!(matches!(&world.apps[2].done[&publish],
            Done::Published(Ok(report)) if report.delivered.len() == 2));
    }
}
