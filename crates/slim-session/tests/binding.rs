//! Peers whose names do not follow from their identities, and what each mode of the
//! identity binding makes of them.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Mallory, World, config, receive};
use rand::Rng;
use slim_auth::{Identity, SharedSecret, SigningKey, TokenError};
use slim_proto::{Body, Command as Wire, MessageType, canonical};
use slim_session::{Command, Done, Endpoint, EndpointConfig, IdentityBinding, Input};

/// Somebody whose name follows from another subject than its tokens have.
#[derive(Debug)]
struct Odd(Arc<SharedSecret>);

impl Identity for Odd {
    fn subject(&self) -> &'static str {
        "somebody else"
    }

    fn key(&self) -> &SigningKey {
        self.0.key()
    }

    fn token(&self, now: u64, rng: &mut dyn Rng) -> Result<String, TokenError> {
        self.0.token(now, rng)
    }
}

/// `mod`, `alice` and `bob`, who bind in this way; one of them is odd.
fn world(binding: IdentityBinding, odd: usize) -> World {
    let mut world = World::new(&["mod", "alice", "bob"]);
    for app in 0..3 {
        let identity = world.apps[app].identity.clone();
        let mut config = EndpointConfig::new(world.name(app).without_id(), 100 + app as u64);
        config.binding = binding;
        let own: Arc<dyn Identity> =
            if app == odd { Arc::new(Odd(identity.clone())) } else { identity.clone() };
        world.forget(app);
        let endpoint = Endpoint::new(config, own, identity);
        world.apps[app].name = endpoint.name().clone();
        world.apps[app].endpoint = endpoint;
        world.input(app, Input::LinkUp);
    }
    world.run();
    world
}

/// All three speak, and everybody hears it.
fn everybody_speaks(world: &mut World, session: slim_proto::SessionId) {
    for app in 0..3 {
        let request = world.publish(app, session, "hello");
        world.pass(Duration::from_secs(1));
        match &world.apps[app].done[&request] {
            Done::Published(Ok(report)) => {
                assert_eq!((report.delivered.len(), report.lost.len()), (2, 0))
            }
            other => panic!("{app}: {other:?}"),
        }
    }
}

#[test]
fn a_foreign_name_is_heard_only_where_it_may() {
    for mls in [false, true] {
        let mut world = world(IdentityBinding::Enforce, 1);
        let session = world.create_group(config(mls));
        let request = world.invite(session, 1);
        world.pass(Duration::from_secs(20));
        assert!(!world.joined(request));
        assert!(world.apps[0].unbound.is_empty() && world.apps[1].invited.is_empty());
    }
    for (binding, told) in [(IdentityBinding::Warn, 1), (IdentityBinding::Off, 0)] {
        for mls in [false, true] {
            let mut world = world(binding, 1);
            let session = world.group(config(mls));
            everybody_speaks(&mut world, session);
            // With the next heartbeat everybody has had a command of it.
            world.pass(Duration::from_secs(25));
            let name = world.name(1);
            for app in [0, 2] {
                let of_it = world.apps[app].unbound.iter().filter(|(peer, what)| {
                    *peer == name && *what == "its name is not the one of its identity"
                });
                assert_eq!(of_it.count(), told, "{binding:?} mls {mls}: {app}");
            }
        }
    }
}

/// Who was let in under a foreign name is taken out of the encryption like anybody else.
#[test]
fn a_foreign_name_can_be_removed_for_good() {
    let mut world = world(IdentityBinding::Off, 1);
    let session = world.group(config(true));
    everybody_speaks(&mut world, session);
    let name = world.name(1).without_id();
    let epoch = |world: &mut World, app: usize| {
        let request = world.command(app, Command::State { session });
        match &world.apps[app].done[&request] {
            Done::State(Some(state)) => state.mls.unwrap().epoch,
            other => panic!("{other:?}"),
        }
    };
    let before = epoch(&mut world, 2);
    let request = world.command(0, Command::Remove { session, name });
    world.pass(Duration::from_secs(2));
    assert!(matches!(world.apps[0].done[&request], Done::Removed(Ok(()))));
    assert_eq!(epoch(&mut world, 2), before + 1, "the keys did not change");
    let heard = world.messages(1).len();
    world.publish(0, session, "without you");
    world.pass(Duration::from_secs(1));
    assert_eq!(world.messages(1).len(), heard);
}

/// A moderator whose channel does not follow from its identity.
#[test]
fn a_foreign_channel_is_joined_only_where_it_may() {
    for (binding, told) in [(IdentityBinding::Warn, true), (IdentityBinding::Off, false)] {
        let mut world = world(binding, 0);
        let session = world.group(config(true));
        everybody_speaks(&mut world, session);
        let what = "it invites to a channel that is not the one of its identity";
        let is_told = world.apps[1].unbound.contains(&(world.name(0), what));
        assert_eq!(is_told, told, "{binding:?}");
    }
    let mut world = world(IdentityBinding::Enforce, 0);
    let session = world.create_group(config(true));
    let request = world.invite(session, 1);
    world.pass(Duration::from_secs(20));
    assert!(!world.joined(request));
}

/// Without the signature of its content a command counts only where it may; with one that
/// is wrong, nowhere.
#[test]
fn content_without_a_signature() {
    for (binding, answers) in
        [(IdentityBinding::Enforce, 0), (IdentityBinding::Warn, 1), (IdentityBinding::Off, 1)]
    {
        let mut world = world(binding, 2);
        let mallory = Mallory::insider();
        let ask = Body::Command(Wire::DiscoveryRequest);
        let to = world.name(1).without_id();
        let request = mallory.unsigned(&to, slim_proto::SessionId(5), ask);
        let signed = mallory.sign(&world, request);
        let mut wrong = signed.clone();
        wrong.metadata.insert("more".to_owned(), "than was signed".to_owned());
        receive(&mut world, 1, wrong);
        assert_eq!(world.count_sent(1, MessageType::DiscoveryReply), 0, "{binding:?}");
        let mut without = signed;
        without.metadata.remove(canonical::PAYLOAD_SIGNATURE);
        receive(&mut world, 1, without);
        assert_eq!(world.count_sent(1, MessageType::DiscoveryReply), answers, "{binding:?}");
        let told = world.apps[1].unbound.len();
        assert_eq!(told, usize::from(binding == IdentityBinding::Warn), "{binding:?}");
    }
}
