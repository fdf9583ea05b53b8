//! An application that takes names which are not its own. Without a policy nodes let it,
//! and what it gets out of that is ciphertext and delay; with one, it gets nothing.

use std::collections::BTreeSet;

use bytes::Bytes;
use slim_client::{InviteError, SessionConfig};
use slim_link::{DialConfig, dial};
use slim_node::NodeConfig;
use slim_proto::{Body, Header, Message, NameId, Subscription, SubscriptionAck, UNICAST};
use slim_testkit::{Cluster, messages, next_session, within};

use crate::conversation::{SECRET_WORDS, Scene, beside_a_conversation, client, on_such_a_node};
use crate::mallory::{Mallory, channels};
use crate::raw::RawStream;

/// Somebody who listens to the channel takes nothing away, and reads nothing.
#[tokio::test(flavor = "multi_thread")]
async fn an_eavesdropper_gets_ciphertext_and_takes_nothing_away() {
    beside_a_conversation(async |scene| {
        let mut mallory = Mallory::insider(scene).await;
        for name in channels(scene) {
            mallory.subscribe(&name).await;
        }
        let words = SECRET_WORDS.as_bytes();
        let mut count = 0;
        while count < 50 {
            let Some(Message::Publish(publish)) = mallory.link.next().await else { continue };
            let Body::Msg(payload) = publish.body else { continue };
            let is_readable = payload.blob.windows(words.len()).any(|window| window == words);
            assert!(!is_readable, "{:?}", payload.blob);
            count += 1;
        }
    })
    .await;
}

/// Somebody who takes a member's name gets some of what is for it alone, such as
/// acknowledgements. Each publish still ends as delivered to who has it, or as a loss;
/// nothing false is delivered, and nothing can be read.
#[tokio::test(flavor = "multi_thread")]
async fn somebody_elses_name() {
    const MESSAGES: usize = 20;
    let cluster = Cluster::start().await;
    let (alice, _) = client(&cluster, "alice").await;
    let (bob, _) = client(&cluster, "bob").await;
    let call = alice.create_p2p(bob.name().clone(), SessionConfig::default());
    let speaker = within("the call", call).await.unwrap();
    let listener = next_session(&bob).await;
    let mut thief = RawStream::start(cluster.addr()).await;
    let header = Header::new(bob.name().clone(), bob.name().clone(), UNICAST);
    let subscription = Subscription { header, subscription_id: 7 };
    thief.send_signed(&Message::Subscribe(subscription)).await;
    let ok = SubscriptionAck { subscription_id: 7, result: Ok(()) };
    assert_eq!(thief.next().await, Some(Message::SubscriptionAck(ok)));
    let secret = "12345678 a secret that is long enough to be recognised";
    let steal = tokio::spawn(async move {
        let mut stolen = 0;
        while let Some(bytes) = thief.next_bytes().await {
            assert!(!bytes.windows(8).any(|window| window == &secret.as_bytes()[..8]));
            stolen += 1;
            if stolen >= MESSAGES / 2 {
                break;
            }
        }
        stolen
    });
    let heard = tokio::spawn(async move { messages(&listener, MESSAGES).await });
    for _ in 0..MESSAGES {
        let delivery = within("the next one", speaker.publish(secret)).await.unwrap();
        let report = within("an outcome", delivery).await.unwrap();
        assert_eq!((report.delivered.len(), report.lost.len()), (1, 0), "{report:?}");
    }
    for message in heard.await.unwrap() {
        assert_eq!((&message.payload[..], &message.source), (secret.as_bytes(), alice.name()));
    }
    assert!(within("some of it", steal).await.unwrap() > 0, "the thief has got something");
}

/// The same thief, who has a password of her own, where names belong to somebody: she has
/// nothing, disturbs nobody, and is counted.
#[tokio::test(flavor = "multi_thread")]
async fn a_policy_keeps_names() {
    let config = Cluster::with_policy(&["mod", "alice", "bob"], &["mallory"]);
    on_such_a_node(config, async |scene| {
        let authorization = scene.cluster.authorization("mallory");
        let config = DialConfig { authorization, ..DialConfig::default() };
        let target = scene.cluster.addr().to_string().parse().unwrap();
        let link = within("a link", dial(&target, &config)).await.unwrap();
        let (sender, mut receiver) = link.split();
        let own = "org/test/mallory".parse::<slim_proto::Name>().unwrap().with_id(NameId(7));
        let subscribe = |name: &slim_proto::Name, subscription_id| {
            let header = Header::new(own.clone(), name.clone(), UNICAST);
            Message::Subscribe(Subscription { header, subscription_id })
        };
        sender.send(&subscribe(&own, 1)).await.unwrap();
        let ok = SubscriptionAck { subscription_id: 1, result: Ok(()) };
        assert_eq!(receiver.recv().await, Ok(Message::SubscriptionAck(ok)));
        let members: Vec<_> = (0..3).map(|member| scene.name(member)).collect();
        let channels = channels(scene);
        let wanted = members.iter().chain(&channels).cloned();
        // Each of them, and whoever else is called like that.
        for name in wanted.flat_map(|name| [name.clone(), name.without_id()]) {
            sender.send(&subscribe(&name, 2)).await.unwrap();
            let denied = "not allowed: basic:mallory may not subscribe to this name".to_owned();
            let ack = SubscriptionAck { subscription_id: 2, result: Err(denied) };
            let answer = within("an answer", receiver.recv()).await;
            assert_eq!(answer, Ok(Message::SubscriptionAck(ack)), "{name}");
        }
        let said = |source: &slim_proto::Name, destination: &slim_proto::Name| {
            Message::Publish(slim_proto::Publish {
                header: Header::new(source.clone(), destination.clone(), slim_proto::BROADCAST),
                session_type: slim_proto::SessionType::Multicast,
                session_id: scene.session,
                message_id: 1,
                body: Body::Msg(slim_proto::AppPayload {
                    payload_type: "msg".to_owned(),
                    blob: Bytes::from_static(b"listen to me"),
                }),
                metadata: Default::default(),
            })
        };
        // Into the channel, and to a member in the name of another one.
        for _ in 0..10 {
            for channel in &channels {
                sender.send(&said(&own, channel)).await.unwrap();
                sender.send(&said(&members[1], channel)).await.unwrap();
            }
            sender.send(&said(&members[1], &members[2])).await.unwrap();
        }
        let is_counted = |metrics: &slim_node::MetricsSnapshot| {
            metrics.dropped.denied == 50 && metrics.denied_subscriptions == 10
        };
        scene.cluster.until("what was denied is counted", is_counted).await;
        // The conversation goes on, and the first thing that she hears is from herself.
        scene.rounds(5).await;
        let (other, _receiver) = within("a link", dial(&target, &config)).await.unwrap().split();
        other.send(&said(&own, &own)).await.unwrap();
        let Ok(Message::Publish(heard)) = within("a message", receiver.recv()).await else {
            panic!("no message");
        };
        assert_eq!(heard.header.source, own);
    })
    .await;
}

/// Under an invited application's readable name, with the secret, but another id: the
/// inviter learns whom it has got.
#[tokio::test(flavor = "multi_thread")]
async fn a_readable_name_of_somebody_else() {
    let cluster = Cluster::start().await;
    let (alice, _) = client(&cluster, "alice").await;
    let (impostor, _) = client(&cluster, "bob").await;
    let (bob, _) = client(&cluster, "bob").await;
    assert!(impostor.name().same_app(bob.name()));
    let mut ids = BTreeSet::new();
    for _ in 0..2 {
        let name = "org/test/bob".parse().unwrap();
        let call = alice.create_p2p(name, SessionConfig::default());
        let session = within("the call", call).await.unwrap();
        ids.insert(session.info().remote.id());
    }
    assert_eq!(ids, [impostor.name().id(), bob.name().id()].into());
    // Who asks for an id gets that one or nobody.
    let call = alice.create_p2p(bob.name().clone(), SessionConfig::default());
    let session = within("the call", call).await.unwrap();
    assert_eq!(session.info().remote, *bob.name());
}

/// An id follows from the identity: nobody else's can be had, with whatever secret.
#[tokio::test(flavor = "multi_thread")]
async fn somebody_elses_id() {
    beside_a_conversation(async |scene| {
        let mut mallory = Mallory::insider(scene).await;
        // A name that nobody has, whose id is not that of any identity of hers.
        let dan = "org/test/dan".parse::<slim_proto::Name>().unwrap().with_id(NameId(4711));
        mallory.subscribe(&dan).await;
        let invite = scene.sessions[0].invite(&dan);
        let answer = async {
            loop {
                let (request, _) = mallory.next_command().await;
                let command = slim_proto::Command::DiscoveryReply;
                let to = request.header.source.clone();
                let mut reply = mallory.unsigned(&to, scene.session, Body::Command(command));
                reply.message_id = request.message_id;
                reply.header.source = dan.clone();
                let reply = mallory.sign(reply);
                mallory.send(reply).await;
            }
        };
        let outcome = tokio::select! {
            outcome = within("the outcome", invite) => outcome,
            never = answer => never,
        };
        assert!(matches!(outcome, Err(InviteError::NoAnswer { .. })), "{outcome:?}");
    })
    .await;
}

/// Up to the limit they are taken, then refused with a reason; all go with the link.
#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_subscriptions() {
    const SUBSCRIPTIONS: usize = 100_000;
    let config = NodeConfig::default();
    let limit = config.max_subscriptions_per_link;
    assert!(limit < SUBSCRIPTIONS, "the default does not let one link have that many");
    on_such_a_node(config, async |scene| {
        let mallory = Mallory::insider(scene).await;
        let name = mallory.name.without_id();
        let others = scene.cluster.metrics().subscriptions as usize;
        let Mallory { mut link, .. } = mallory;
        let requests: Vec<Bytes> = (1..=SUBSCRIPTIONS)
            .map(|number| {
                let name = name.with_id(NameId(number as u128));
                let header = Header::new(name.clone(), name, UNICAST);
                let subscription = Subscription { header, subscription_id: number as u64 };
                link.signed(&Message::Subscribe(subscription)).encode()
            })
            .collect();
        let (mut taken, mut refused) = (0, 0);
        // In turns, for want of a second task that reads.
        for batch in requests.chunks(200) {
            for request in batch {
                link.send_bytes(request).await;
            }
            for _ in batch {
                let Some(Message::SubscriptionAck(ack)) = link.next().await else {
                    panic!("the link is gone")
                };
                match ack.result {
                    Ok(()) => taken += 1,
                    Err(reason) => {
                        let expected = format!("too many subscriptions: a link may have {limit}");
                        assert_eq!(reason, expected);
                        refused += 1;
                    }
                }
            }
        }
        assert_eq!((taken, refused), (limit, SUBSCRIPTIONS - limit));
        let metrics = scene.cluster.metrics();
        assert_eq!(metrics.subscriptions as usize, limit + others);
        assert_eq!(metrics.refused_subscriptions as usize, refused);
        drop(link);
        let gone = |metrics: &slim_node::MetricsSnapshot| metrics.subscriptions as usize == others;
        scene.cluster.until("their end", gone).await;
    })
    .await;
}

/// Who does not read the answers to them is shed.
#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_whose_answers_are_not_read() {
    beside_a_conversation(async |scene: &Scene| {
        let mallory = Mallory::insider(scene).await;
        let header = Header::new(mallory.name.clone(), mallory.name.clone(), UNICAST);
        let subscription = Subscription { header, subscription_id: u64::MAX };
        let request = mallory.link.signed(&Message::Unsubscribe(subscription)).encode();
        let flood = async {
            while scene.cluster.metrics().shed_links == 0 {
                for _ in 0..100 {
                    mallory.link.send_bytes(&request).await;
                }
            }
        };
        within("shedding", flood).await;
    })
    .await;
}
