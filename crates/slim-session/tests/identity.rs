//! Sessions whose members have JSON Web Tokens, and what becomes of those who are not
//! believed.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic, too")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Mallory, World, config, receive};
use slim_auth::{
    Identity as _, JwtIdentity, JwtIdentityConfig, JwtSigningKey, JwtVerifier, JwtVerifierConfig,
    KeySet, new_did_pem,
};
use slim_proto::{Body, Command, MessageType};
use slim_session::{Done, Endpoint, EndpointConfig, Input, InviteError};

/// Keys of applications, each of which is its own subject.
struct Circle {
    pems: Vec<String>,
    audience: Vec<String>,
}

impl Circle {
    fn new(members: usize) -> Self {
        let pems = (0..members).map(|_| new_did_pem().unwrap().to_string()).collect();
        Self { pems, audience: Vec::new() }
    }

    /// The identity of one of them, whose tokens last so many seconds.
    fn identity(&self, member: usize, duration: u64) -> JwtIdentity {
        let did = JwtIdentity::did(&self.pems[member], Vec::new()).unwrap();
        let signer = JwtSigningKey::from_any_pem(&self.pems[member]).unwrap();
        let config = JwtIdentityConfig {
            issuer: Some(did.subject().to_owned()),
            audience: self.audience.clone(),
            duration,
            ..JwtIdentityConfig::new(did.subject())
        };
        JwtIdentity::new(signer, config).unwrap()
    }

    /// What believes these of them.
    fn verifier(&self, members: &[usize]) -> JwtVerifier {
        let key = |&member: &usize| self.identity(member, 60).verifying_key();
        let keys: KeySet = members.iter().map(key).collect();
        let config = JwtVerifierConfig {
            subject_is_key: true,
            audience: self.audience.clone(),
            ..JwtVerifierConfig::default()
        };
        JwtVerifier::new(keys, config)
    }
}

/// Has an application of the world be this one, started anew.
fn be(world: &mut World, app: usize, identity: JwtIdentity, verifier: JwtVerifier) {
    let name = world.name(app).readable();
    let config = EndpointConfig::new(name.parse().unwrap(), 100 + app as u64);
    let endpoint = Endpoint::new(config, Arc::new(identity), Arc::new(verifier));
    world.apps[app].name = endpoint.name().clone();
    world.apps[app].endpoint = endpoint;
    world.apps[app].invited.clear();
    world.apps[app].events.clear();
    world.input(app, Input::LinkUp);
    world.run();
}

/// These applications, which believe each other; tokens last so many seconds.
fn world(circle: &Circle, names: &[&str], duration: u64) -> World {
    let mut world = World::new(names);
    let everybody: Vec<usize> = (0..names.len()).collect();
    for app in 0..names.len() {
        be(&mut world, app, circle.identity(app, duration), circle.verifier(&everybody));
    }
    world
}

/// Whether everybody online got it.
fn reaches(world: &mut World, app: usize, session: slim_proto::SessionId, others: usize) {
    let request = world.publish(app, session, "still here");
    world.pass(Duration::from_secs(1));
    match &world.apps[app].done[&request] {
        Done::Published(Ok(report)) => {
            assert_eq!((report.delivered.len(), report.lost.len()), (others, 0), "{app}");
        }
        other => panic!("{other:?}"),
    }
}

/// An hour's tokens, and some that last minutes: after several of their lives everybody
/// still speaks, and somebody joins.
#[test]
fn a_group_outlives_its_tokens() {
    for (mls, duration) in [(true, 3600), (true, 120), (false, 60)] {
        let circle = Circle::new(3);
        let mut world = world(&circle, &["mod", "alice", "bob"], duration);
        let session = world.create_group(config(mls));
        let alice = world.invite(session, 1);
        world.run();
        assert!(world.joined(alice), "{duration} s");
        let time = Duration::from_secs(2 * duration + 500);
        world.pass(time);
        for app in [0, 1] {
            reaches(&mut world, app, session, 1);
        }
        let bob = world.invite(session, 2);
        world.pass(Duration::from_secs(1));
        assert!(world.joined(bob), "{duration} s");
        for app in 0..3 {
            reaches(&mut world, app, session, 2);
        }
        world.pass(time);
        for app in 0..3 {
            reaches(&mut world, app, session, 2);
        }
        let renewals = world.count_sent(1, MessageType::RejoinRequest) as u64;
        let most = if mls { 2 * time.as_secs() / (duration / 3).max(60) + 2 } else { 0 };
        assert!(renewals <= most, "{renewals} renewals of tokens of {duration} s");
        assert!(!mls || renewals > 0, "tokens of {duration} s were not renewed");
    }
}

/// A key is the same before and after a restart, and so is the name that follows from
/// it; what signs messages is new.
#[test]
fn a_member_with_a_key_that_was_started_again_is_invited_again() {
    for mls in [false, true] {
        let circle = Circle::new(3);
        let mut world = world(&circle, &["mod", "alice", "bob"], 3600);
        let session = world.group(config(mls));
        let before = world.name(2);
        be(&mut world, 2, circle.identity(2, 3600), circle.verifier(&[0, 1, 2]));
        assert_eq!(world.name(2), before);
        let request = world.invite(session, 2);
        world.pass(Duration::from_secs(1));
        assert!(world.joined(request), "mls {mls}");
        assert_eq!(world.apps[2].invited.len(), 1, "mls {mls}");
        for app in 0..3 {
            reaches(&mut world, app, session, 2);
        }
    }
}

/// With a secret, whoever has it could say so: the member keeps its place.
#[test]
fn another_key_under_a_secret_is_somebody_else() {
    let mut world = World::new(&["mod", "alice", "bob"]);
    let session = world.group(config(true));
    let asked_in = world.count_sent(0, MessageType::JoinRequest);
    world.apps[2].deaf = true;
    world.invite(session, 2);
    let (_, asked) = world.sent.last().unwrap().clone();
    assert_eq!(asked.body.message_type(), MessageType::DiscoveryRequest);
    let (mallory, to) = (Mallory::insider(), world.name(0));
    let mut reply = mallory.unsigned(&to, session, Body::Command(Command::DiscoveryReply));
    reply.message_id = asked.message_id;
    let reply = mallory.sign_as(&world, 2, reply);
    receive(&mut world, 0, reply);
    world.pass(Duration::from_secs(3));
    assert_eq!(world.count_sent(0, MessageType::JoinRequest), asked_in);
}

/// Which check failed is told to both: by the invited one if it is not believed, and by
/// its nack if it does not believe.
#[test]
fn a_refusal_names_the_check_on_both_sides() {
    let outcome = |inviting: &[usize], invited: &[usize]| {
        let circle = Circle::new(2);
        let mut world = World::new(&["mod", "alice"]);
        be(&mut world, 0, circle.identity(0, 3600), circle.verifier(inviting));
        be(&mut world, 1, circle.identity(1, 3600), circle.verifier(invited));
        let session = world.create_group(config(true));
        let request = world.invite(session, 1);
        world.pass(Duration::from_secs(10));
        let reason = match &world.apps[0].done[&request] {
            Done::Invited(Err(InviteError::IdentityMismatch { reason, .. })) => reason.clone(),
            other => panic!("{other:?}"),
        };
        let dids = [0, 1].map(|member| circle.identity(member, 60).subject().to_owned());
        (reason, dids, world.apps[1].mismatches.len())
    };
    let (reason, [_, alice], told) = outcome(&[0], &[0, 1]);
    assert_eq!(reason, format!("key id {alice} of the token is unknown"));
    assert_eq!(told, 0);
    let (reason, [moderator, _], told) = outcome(&[0, 1], &[1]);
    let words = format!("it does not verify us: key id {moderator} of the token is unknown");
    assert_eq!((reason, told), (words, 1));
}

/// Tokens for another audience are as good as none.
#[test]
fn another_audience_is_told() {
    let mut circle = Circle::new(2);
    let mut world = World::new(&["mod", "alice"]);
    circle.audience = vec!["b".into()];
    be(&mut world, 1, circle.identity(1, 3600), circle.verifier(&[0, 1]));
    circle.audience = vec!["a".into()];
    be(&mut world, 0, circle.identity(0, 3600), circle.verifier(&[0, 1]));
    let session = world.create_group(config(false));
    let request = world.invite(session, 1);
    world.pass(Duration::from_secs(10));
    match &world.apps[0].done[&request] {
        Done::Invited(Err(InviteError::IdentityMismatch { reason, .. })) => {
            assert_eq!(reason, "audience b of the token is not among a");
        }
        other => panic!("{other:?}"),
    }
}
