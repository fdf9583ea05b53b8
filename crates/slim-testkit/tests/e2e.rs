//! Node and clients over real connections, in one process.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use slim_client::{
    Client, ClientEvent, CloseReason, ConnectError, InviteError, Outgoing, ParticipantChange,
    PublishError, SessionConfig, SessionEvent, SessionType, Timers,
};
use slim_node::MetricsSnapshot;
use slim_testkit::talk::{everybody_speaks, group};
use slim_testkit::{Cluster, SECRET, messages, next_session, wait_for, within};

fn config(mls: bool) -> SessionConfig {
    SessionConfig { mls, ..SessionConfig::default() }
}

async fn clients(cluster: &Cluster, names: &[&str]) -> Vec<Client> {
    let mut clients = Vec::new();
    for name in names {
        clients.push(cluster.client(name).await);
    }
    clients
}

/// Also of subscriptions, invitations, commits, and the answers to them.
#[tokio::test(flavor = "multi_thread")]
async fn a_fiftieth_of_all_messages_may_be_lost() {
    let mut cluster = Cluster::start().await;
    let loss = cluster.lossy().await;
    loss.set_per_mille(20);
    let clients = clients(&cluster, &["mod", "alice", "bob", "carol"]).await;
    let timers = Timers { max_retries: 40, ..Timers::default() };
    let sessions = group(&clients, SessionConfig { timers: Some(timers), ..config(true) }).await;
    // A stream begins with what arrives first: of what is said before, nobody knows.
    loss.set_per_mille(0);
    everybody_speaks(&sessions, 1).await;
    loss.set_per_mille(20);
    everybody_speaks(&sessions, 100).await;
    within("the close", sessions[0].close()).await;
    let (passed, lost) = loss.counts();
    assert!(lost > 20, "{lost} lost, {passed} not");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_talks() {
    for mls in [false, true] {
        let cluster = Cluster::start().await;
        let clients = clients(&cluster, &["mod", "alice", "bob", "carol"]).await;
        let sessions = group(&clients, config(mls)).await;
        everybody_speaks(&sessions, 50).await;
        sessions[0].flush().await;
        within("the close", sessions[0].close()).await;
        for session in &sessions[1..] {
            let reason = wait_for("the end", session, |event| match event {
                SessionEvent::Closed { reason } => Some(reason),
                _ => None,
            });
            assert_eq!(reason.await, CloseReason::ModeratorClosed);
            let refused = session.publish("too late").await;
            assert_eq!(refused.unwrap_err(), PublishError::Closed);
        }
    }
}

/// Where names belong to somebody: channels work, whose ids follow from their moderators,
/// and nobody gets in under a name that is not his.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_talks_under_a_policy() {
    for mls in [false, true] {
        let users = ["mod", "alice", "bob", "carol"];
        let cluster = Cluster::start_with(Cluster::with_policy(&users, &["mallory"])).await;
        let clients = clients(&cluster, &users).await;
        let sessions = group(&clients, config(mls)).await;
        everybody_speaks(&sessions, 20).await;
        let call = clients[1].create_p2p(clients[2].name().without_id(), config(mls));
        let caller = within("the call", call).await.unwrap();
        everybody_speaks(&[caller, next_session(&clients[2]).await], 5).await;
        let quiet =
            |metrics: &MetricsSnapshot| (metrics.dropped.denied, metrics.denied_subscriptions);
        assert_eq!(quiet(&cluster.metrics()), (0, 0), "nothing of that was denied");

        let name = "org/test/alice".parse().unwrap();
        let builder = Client::builder(name).shared_secret(SECRET).unwrap();
        let thief = builder.authorization(cluster.authorization("mallory").unwrap());
        let refused = within("an answer", thief.connect(&cluster.endpoint())).await.unwrap_err();
        let ConnectError::Refused { reason, .. } = refused else { panic!("{refused:?}") };
        let expected = "not allowed: basic:mallory may not subscribe to this name";
        assert!(reason.contains(expected), "{reason}");
        assert_eq!(cluster.metrics().denied_subscriptions, 1);
        within("the close", sessions[0].close()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_talk() {
    for mls in [false, true] {
        let cluster = Cluster::start().await;
        let clients = clients(&cluster, &["alice", "bob"]).await;
        let peer = clients[1].name().without_id();
        let call = clients[0].create_p2p(peer, config(mls));
        let caller = within("the call", call).await.unwrap();
        let listener = next_session(&clients[1]).await;
        assert_eq!(listener.info().session_type, SessionType::PointToPoint);
        assert_eq!(caller.info().remote, *clients[1].name());
        everybody_speaks(&[caller.clone(), listener.clone()], 100).await;
        within("leaving", listener.close()).await;
        let reason = wait_for("the end", &caller, |event| match event {
            SessionEvent::Closed { reason } => Some(reason),
            _ => None,
        });
        assert_eq!(reason.await, CloseReason::PeerLeft);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_member_is_spoken_to_alone() {
    let cluster = Cluster::start().await;
    let clients = clients(&cluster, &["mod", "alice", "bob"]).await;
    let sessions = group(&clients, config(true)).await;
    let message = Outgoing {
        payload: "psst".into(),
        payload_type: "whisper".into(),
        metadata: [("mood".to_owned(), "secretive".to_owned())].into(),
        to: Some(clients[1].name().clone()),
    };
    let delivery = sessions[2].publish_with(message).await.unwrap();
    let report = within("a report", delivery).await.unwrap();
    assert_eq!(report.delivered, [clients[1].name().clone()]);
    let heard = messages(&sessions[1], 1).await.remove(0);
    assert!(heard.to_me);
    assert_eq!(
        (heard.payload_type.as_str(), heard.metadata["mood"].as_str()),
        ("whisper", "secretive")
    );
    sessions[2].publish("to all").await.unwrap();
    assert_eq!(&messages(&sessions[0], 1).await[0].payload[..], b"to all");
}

#[tokio::test(flavor = "multi_thread")]
async fn large_and_empty_payloads_arrive() {
    let cluster = Cluster::start().await;
    let clients = clients(&cluster, &["alice", "bob"]).await;
    let peer = clients[1].name().clone();
    let caller = within("the call", clients[0].create_p2p(peer, config(true))).await.unwrap();
    let listener = next_session(&clients[1]).await;
    let refused = caller.publish(vec![7; slim_proto::MAX_MESSAGE_LEN]).await.unwrap_err();
    let PublishError::TooLarge { limit, .. } = refused else { panic!("{refused}") };
    for len in [0, 1, 1 << 20, limit] {
        let delivery = caller.publish(vec![7; len]).await.unwrap();
        assert_eq!(messages(&listener, 1).await[0].payload.len(), len);
        assert_eq!(within("a report", delivery).await.unwrap().delivered.len(), 1);
    }
}

/// The node goes away in the middle of a conversation and comes back.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_survives_its_node() {
    for mls in [false, true] {
        let mut cluster = Cluster::start().await;
        let clients = clients(&cluster, &["mod", "alice", "bob"]).await;
        let sessions = group(&clients, config(mls)).await;
        everybody_speaks(&sessions, 3).await;
        let mut events = clients[0].events();

        cluster.stop_node().await;
        let event = within("the loss", events.next()).await;
        assert!(matches!(event, Some(ClientEvent::Disconnected { .. })), "{event:?}");
        let mut waiting = Vec::new();
        for session in &sessions {
            waiting.push(session.publish("sent without a node").await.unwrap());
        }
        cluster.start_node().await;
        let event = within("the return", events.next()).await;
        assert_eq!(event, Some(ClientEvent::Reconnected));
        for delivery in waiting {
            let report = within("a report", delivery).await.unwrap();
            assert_eq!((report.delivered.len(), report.lost.len()), (2, 0));
        }
        for session in &sessions {
            let texts = messages(session, 2).await;
            assert!(texts.iter().all(|message| &message.payload[..] == b"sent without a node"));
        }
        everybody_speaks(&sessions, 3).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_secret_is_told_to_both_sides() {
    let cluster = Cluster::start().await;
    let moderator = cluster.client("mod").await;
    let stranger = cluster.client_with("stranger", "another secret of thirty-two bytes!!").await;
    let mut events = stranger.events();
    let channel = "org/test/channel".parse().unwrap();
    let session = moderator.create_group(channel, config(true)).await.unwrap();
    let name = stranger.name().without_id();
    let outcome = within("the refusal", session.invite(&name)).await;
    assert_eq!(
        outcome,
        Err(InviteError::IdentityMismatch { name, reason: "secrets differ".to_owned() })
    );
    let event = within("the news", events.next()).await;
    assert_eq!(
        event,
        Some(ClientEvent::IdentityMismatch {
            peer: moderator.name().clone(),
            reason: "secrets differ".to_owned(),
        })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_the_handles_leaves() {
    let cluster = Cluster::start().await;
    let clients = clients(&cluster, &["mod", "alice", "bob"]).await;
    let mut sessions = group(&clients, config(true)).await;
    let name = clients[2].name().clone();
    drop(sessions.pop());
    let change = wait_for("the leave", &sessions[1], |event| match event {
        SessionEvent::Participant { name: who, change: ParticipantChange::Left } => Some(who),
        _ => None,
    });
    assert_eq!(change.await, name);
}

/// Anycast: each call goes to one of the instances of a name.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_reaches_one_instance_and_stays_there() {
    let cluster = Cluster::start().await;
    let instances = clients(&cluster, &["service", "service", "service"]).await;
    let caller = cluster.client("caller").await;
    let mut reached = std::collections::BTreeSet::new();
    for _ in 0..3 {
        let name = "org/test/service".parse().unwrap();
        let session = within("the call", caller.create_p2p(name, config(true))).await.unwrap();
        let peer = session.info().remote.clone();
        assert!(instances.iter().any(|instance| *instance.name() == peer));
        for _ in 0..5 {
            let delivery = session.publish("hello").await.unwrap();
            let report = within("a report", delivery).await.unwrap();
            assert_eq!(report.delivered, std::slice::from_ref(&peer));
        }
        reached.insert(peer);
    }
    assert_eq!(reached.len(), 3, "in turn");
}
