//! Answers: those nobody asked for, those that come twice, and those that are not what
//! they say.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::Rng;
use slim_auth::{Claims, Identity, SharedSecret, SigningKey, TokenError, Verifier, VerifyError};
use slim_proto::{
    Body, Command, JoinReply, Message, Participant, ParticipantState, Publish, RejoinReply,
    SubscriptionAck,
};
use slim_session::{Endpoint, EndpointConfig, Input, Now, Output};
use slim_testkit::within;

use crate::conversation::{beside_a_conversation, client};
use crate::mallory::{Mallory, unix};

/// An identity for which it is always now.
#[derive(Debug)]
struct Timeless(Arc<SharedSecret>);

impl Identity for Timeless {
    fn subject(&self) -> &str {
        self.0.subject()
    }

    fn key(&self) -> &SigningKey {
        self.0.key()
    }

    fn token(&self, _: u64, rng: &mut dyn Rng) -> Result<String, TokenError> {
        self.0.token(unix(), rng)
    }
}

impl Verifier for Timeless {
    fn authenticate(&self, token: &str, _: u64) -> Result<Claims, VerifyError> {
        self.0.authenticate(token, unix())
    }

    fn verify(&self, token: &str, _: u64) -> Result<Claims, VerifyError> {
        self.0.verify(token, unix())
    }
}

/// What Mallory's engine answers to a join request if its clock is wrong by so many
/// seconds: a good key package, but for the time in it.
pub(crate) fn key_package(mallory: &Mallory, request: &Publish, shift: i64) -> Option<Bytes> {
    let identity = Arc::new(Timeless(Arc::clone(&mallory.identity)));
    let config = EndpointConfig::new(mallory.name.without_id(), 1);
    let mut engine = Endpoint::new(config, identity.clone(), identity);
    let now = Now { at: Duration::ZERO, unix: unix().saturating_add_signed(shift) };
    let mut inputs = vec![Input::LinkUp, Input::Received(Message::Publish(request.clone()))];
    while !inputs.is_empty() {
        let outputs: Vec<_> =
            inputs.drain(..).flat_map(|input| engine.handle(now, input)).collect();
        for output in outputs {
            let Output::Send(message) = output else { continue };
            match message {
                Message::Subscribe(subscription) => {
                    let subscription_id = subscription.subscription_id;
                    let ack = SubscriptionAck { subscription_id, result: Ok(()) };
                    inputs.push(Input::Received(Message::SubscriptionAck(ack)));
                }
                Message::Publish(Publish {
                    body: Body::Command(Command::JoinReply(reply)),
                    ..
                }) => {
                    return Some(reply.key_package.expect("a key package"));
                }
                _ => {}
            }
        }
    }
    panic!("the engine does not answer a join request")
}

fn unasked(mallory: &Mallory) -> Vec<Command> {
    let participant = Participant {
        name: mallory.name.clone(),
        sends_data: true,
        receives_data: true,
        status: ParticipantState::Online,
    };
    vec![
        Command::DiscoveryReply,
        Command::JoinReply(JoinReply { key_package: None, participant: participant.clone() }),
        Command::JoinReply(JoinReply {
            key_package: Some(Bytes::from_static(b"no key package")),
            participant,
        }),
        Command::LeaveReply,
        Command::GroupAck,
        Command::GroupNack,
        Command::RejoinReply(RejoinReply { commit_id: 1, welcome: Bytes::new() }),
    ]
}

/// The reference's moderator dies of each of the first four.
#[tokio::test(flavor = "multi_thread")]
async fn replies_that_nobody_asked_for() {
    beside_a_conversation(async |scene| {
        let mut mallories = vec![Mallory::insider(scene).await];
        for member in 1..3 {
            mallories.push(Mallory::member(scene, member).await);
        }
        for mallory in &mut mallories {
            for reply in unasked(mallory) {
                for member in 0..3 {
                    let reply = reply.clone();
                    let publish = mallory.command(&scene.name(member), scene.session, reply);
                    mallory.send(publish).await;
                }
            }
            mallory.settle().await;
        }
        // The moderator can still invite, and remove.
        scene.somebody_comes_and_goes().await;
    })
    .await;
}

/// Each answer of somebody who joins comes three times; the reference's moderator does
/// not survive the second.
#[tokio::test(flavor = "multi_thread")]
async fn replies_that_come_again() {
    beside_a_conversation(async |scene| {
        let mut mallory = Mallory::insider(scene).await;
        mallory.subscribe(&mallory.name.clone()).await;
        let name = mallory.name.clone();
        let invite = tokio::spawn({
            let session = scene.sessions[0].clone();
            async move { session.invite(&name).await }
        });
        let mut is_welcome = false;
        while !is_welcome {
            let (request, command) = mallory.next_command().await;
            let reply = match command {
                Command::DiscoveryRequest => Command::DiscoveryReply,
                Command::JoinRequest(_) => {
                    let key_package = key_package(&mallory, &request, 0);
                    let Command::JoinReply(reply) = unasked(&mallory).swap_remove(1) else {
                        unreachable!()
                    };
                    Command::JoinReply(JoinReply { key_package, ..reply })
                }
                Command::GroupWelcome(_) => {
                    is_welcome = true;
                    Command::GroupAck
                }
                _ => continue,
            };
            for _ in 0..3 {
                let to = request.header.source.clone();
                let mut reply = mallory.command(&to, scene.session, reply.clone());
                reply.message_id = request.message_id;
                let reply = mallory.sign(reply);
                mallory.send(reply).await;
            }
        }
        // She is a member now, one that never acknowledges anything; out with her.
        within("the outcome", invite).await.unwrap().unwrap();
        let removed = scene.sessions[0].remove(&mallory.name);
        within("the removal", removed).await.ok();
        scene.accept_epoch().await;
    })
    .await;
}

/// Somebody without the secret, under the name of who was invited, says that the
/// secrets differ. The one who was meant joins all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_forged_reply_does_not_end_an_invitation() {
    beside_a_conversation(async |scene| {
        let mut mallory = Mallory::with_secret(scene, "the secret of another circle, 32+").await;
        let dan = "org/test/dan".parse::<slim_proto::Name>().unwrap();
        mallory.name = dan.with_id(mallory.name.id());
        mallory.subscribe(&mallory.name.clone()).await;
        let invite = tokio::spawn({
            let (session, dan) = (scene.sessions[0].clone(), dan.clone());
            async move { session.invite(&dan).await }
        });
        let (request, command) = mallory.next_command().await;
        assert_eq!(command, Command::DiscoveryRequest);
        let to = request.header.source.clone();
        for reply in [Command::DiscoveryReply, Command::GroupNack] {
            let mut reply = mallory.command(&to, scene.session, reply);
            reply.message_id = request.message_id;
            let reply = mallory.sign(reply);
            mallory.send(reply).await;
        }
        mallory.settle().await;
        let (dan, _) = client(&scene.cluster, "dan").await;
        let joined = within("the outcome", invite).await.unwrap();
        assert_eq!(joined.as_ref(), Ok(dan.name()));
        scene.hears_and_goes(&dan).await;
    })
    .await;
}

/// A node's acks are only for what was asked of it.
#[tokio::test(flavor = "multi_thread")]
async fn acks_of_subscriptions_that_nobody_made() {
    beside_a_conversation(async |scene| {
        let mut mallory = Mallory::insider(scene).await;
        for subscription_id in [0, 1, 7, u64::MAX - 1] {
            for result in [Ok(()), Err("go away".to_owned())] {
                let ack = SubscriptionAck { subscription_id, result };
                mallory.link.send(&Message::SubscriptionAck(ack)).await;
            }
        }
        mallory.settle().await;
        assert_eq!(scene.cluster.metrics().dropped.unexpected, 8);
    })
    .await;
}
