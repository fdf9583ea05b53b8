//! An invited application decides whether it joins, and says why not.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic, too")]

mod common;

use std::time::Duration;

use common::{Mallory, World, config, receive};
use slim_proto::{Body, Command as Wire, MessageType, canonical};
use slim_session::{
    Command, CreateError, Done, Endpoint, EndpointConfig, Input, Invitations, InviteError, Role,
};

/// Has an application decide in this way from now on, started anew.
fn decides(world: &mut World, app: usize, invitations: Invitations) {
    let identity = world.apps[app].identity.clone();
    let mut config = EndpointConfig::new(world.name(app).without_id(), 100 + app as u64);
    config.invitations = invitations;
    world.apps[app].endpoint = Endpoint::new(config, identity.clone(), identity);
    world.input(app, Input::LinkUp);
    world.run();
}

fn only_from(prefix: &str) -> Invitations {
    Invitations::from_prefixes(vec![prefix.parse().unwrap()])
}

fn refused(done: &Done) -> &str {
    match done {
        Done::Invited(Err(InviteError::Refused { reason, .. }))
        | Done::Created(Err(CreateError::Invite(InviteError::Refused { reason, .. }))) => reason,
        other => panic!("{other:?}"),
    }
}

/// The others join all the same, nothing is joined or subscribed by who refuses, and both
/// sides know at once.
#[test]
fn a_group_is_declined_in_words() {
    for mls in [false, true] {
        let mut world = World::new(&["mod", "alice", "bob"]);
        decides(&mut world, 1, only_from("org/other"));
        let session = world.create_group(config(mls));
        let (alice, bob) = (world.invite(session, 1), world.invite(session, 2));
        world.pass(Duration::from_secs(1));
        let words = "it does not want to join: it takes none from org/test/mod";
        assert_eq!(refused(&world.apps[0].done[&alice]), words);
        assert!(world.joined(bob));
        assert_eq!(world.apps[1].declined, [world.name(0)]);
        assert!(world.apps[1].invited.is_empty() && world.apps[1].endpoint.session_count() == 0);
        assert_eq!(world.count_sent(1, MessageType::JoinReply), 0);
        // Once per peer, however often it asks.
        let again = world.invite(session, 1);
        world.pass(Duration::from_secs(1));
        assert_eq!(refused(&world.apps[0].done[&again]), words);
        assert_eq!(world.apps[1].declined.len(), 1);
        // It may think better of it.
        decides(&mut world, 1, only_from("org/test/mod"));
        let joins = world.invite(session, 1);
        world.pass(Duration::from_secs(1));
        assert!(world.joined(joins));
        world.publish(1, session, "here I am");
        world.pass(Duration::from_secs(1));
        assert_eq!((world.heard(0), world.heard(2)), {
            let heard = vec!["alice: here I am".to_owned()];
            (heard.clone(), heard)
        });
    }
}

#[test]
fn a_call_is_declined_in_words() {
    let mut world = World::new(&["caller", "alice"]);
    let decide = |invitation: &slim_session::Invitation<'_>| {
        assert_eq!(invitation.session.role, Role::Participant);
        assert_eq!(invitation.session.metadata["topic"], "lunch");
        assert!(invitation.subject.starts_with("org/test/caller_"));
        Err(String::new())
    };
    decides(&mut world, 1, Invitations::decided_by(decide));
    let peer = world.name(1).without_id();
    let mut config = config(true);
    config.metadata.insert("topic".into(), "lunch".into());
    let request = world.command(0, Command::CreateP2p { peer, config });
    world.pass(Duration::from_secs(1));
    assert_eq!(refused(&world.apps[0].done[&request]), "it does not want to join");
}

/// The first refusals get lost; a later copy of the request is refused as well.
#[test]
fn a_refusal_that_is_lost_comes_again() {
    let mut world = World::new(&["mod", "alice"]);
    decides(&mut world, 1, only_from("org/other"));
    let session = world.create_group(config(false));
    world.lose(MessageType::GroupNack, 0, 2);
    let request = world.invite(session, 1);
    world.pass(Duration::from_secs(5));
    refused(&world.apps[0].done[&request]);
    assert_eq!(world.count_sent(1, MessageType::GroupNack), 3);
    assert_eq!(world.apps[1].declined.len(), 1);
}

/// Only who is asked can decline.
#[test]
fn nobody_declines_for_somebody_else() {
    let mut world = World::new(&["mod", "alice"]);
    let session = world.create_group(config(true));
    world.lose(MessageType::JoinReply, 0, 1);
    let request = world.invite(session, 1);
    world.run();
    let (_, asked) = world
        .sent
        .iter()
        .find(|(_, sent)| sent.body.message_type() == MessageType::JoinRequest)
        .unwrap()
        .clone();
    let mallory = Mallory::insider();
    let mut nack = mallory.unsigned(&world.name(0), session, Body::Command(Wire::GroupNack));
    nack.message_id = asked.message_id;
    nack.metadata.insert(canonical::DECLINED.to_owned(), "go away".to_owned());
    // Under its own name; under that of the one that is asked, with its own key; and
    // without a token at all.
    for nack in [mallory.sign(&world, nack.clone()), {
        let mut nack = nack.clone();
        nack.header.source = world.name(1);
        nack
    }] {
        receive(&mut world, 0, nack);
    }
    world.pass(Duration::from_secs(3));
    assert!(world.joined(request), "{:?}", world.apps[0].done.get(&request));
}

/// What somebody says is shown in part only, and moves no cursor.
#[test]
fn words_are_cut_and_escaped() {
    let mut world = World::new(&["mod", "alice"]);
    let long = format!("\u{1b}[2J{}", "no ".repeat(1000));
    decides(&mut world, 1, Invitations::decided_by(move |_| Err(long.clone())));
    let session = world.create_group(config(false));
    let request = world.invite(session, 1);
    world.pass(Duration::from_secs(1));
    let words = refused(&world.apps[0].done[&request]);
    assert!(words.chars().count() < 500 && !words.contains('\u{1b}'), "{words}");
}
