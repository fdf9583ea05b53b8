//! Two nodes that are joined, and who may not be.

use std::time::Duration;

use slim_node::{Backoff, NodeConfig, PeerConfig, PeersConfig, Topology};
use slim_proto::{BROADCAST, ConnectionType, Header, LinkNegotiation, Message, UNICAST};
use x25519_dalek::StaticSecret;

use crate::common::{
    Client, End, RawConnection, RawStream, TestNode, config, name, ok, publish, refused,
    subscription, text,
};

pub(crate) fn peer(node_id: &str, addr: Option<std::net::SocketAddr>) -> PeerConfig {
    let backoff = Backoff { first: Duration::from_millis(10), most: Duration::from_millis(50) };
    PeerConfig {
        backoff,
        node_id: Some(node_id.to_owned()),
        target: addr.map(|addr| addr.to_string().parse().unwrap()),
        ..PeerConfig::default()
    }
}

pub(crate) fn joined(node_id: &str, peers: Vec<PeerConfig>) -> NodeConfig {
    let peers = PeersConfig { peers, ..PeersConfig::default() };
    NodeConfig { node_id: node_id.to_owned(), peers: Some(peers), ..config() }
}

/// Node b, and node a that dials it.
async fn pair() -> (TestNode, TestNode) {
    let b = TestNode::start_with(joined("b", vec![peer("a", None)])).await;
    let a = TestNode::start_with(joined("a", vec![peer("b", Some(b.addr))])).await;
    a.until(|metrics| metrics.peers == 1).await;
    b.until(|metrics| metrics.peers == 1).await;
    (a, b)
}

#[tokio::test]
async fn what_is_subscribed_at_one_node_is_reached_from_the_other() {
    let (a, b) = pair().await;
    let mut bob = Client::start(&b, "bob", 2).await;
    // The other way round: who was there before the peers met.
    let mut alice = Client::start(&a, "alice", 1).await;
    let group = name("group", 9);
    assert_eq!(bob.subscribe(&group, 5).await, ok(5));
    a.until(|metrics| metrics.peer_names == 2).await;
    b.until(|metrics| metrics.peer_names == 1).await;
    alice.send(&publish(Header::new(name("alice", 1), group.clone(), BROADCAST), "all")).await;
    alice.send(&publish(Header::new(name("alice", 1), name("bob", 2), UNICAST), "one")).await;
    assert_eq!(text(&bob.next().await), "all");
    let message = bob.next().await;
    assert_eq!(text(&message), "one");
    let Message::Publish(received) = message else { unreachable!("it has a text") };
    assert_eq!(received.header.ttl, 6, "8, and two nodes");
    bob.send(&publish(Header::new(name("bob", 2), name("alice", 1), UNICAST), "back")).await;
    assert_eq!(text(&alice.next().await), "back");
    // What nobody wants there any more does not go there.
    bob.send(&Message::Unsubscribe(subscription(&group, 5))).await;
    a.until(|metrics| metrics.peer_names == 1).await;
    drop(bob);
    a.until(|metrics| metrics.peer_names == 0 && metrics.subscriptions == 1).await;
}

#[tokio::test]
async fn a_node_that_comes_back_is_told_everything_again() {
    let (a, mut b) = pair().await;
    let mut alice = Client::start(&a, "alice", 1).await;
    b.until(|metrics| metrics.peer_names == 1).await;
    let addr = b.addr;
    b.stop();
    b.ended().await;
    a.until(|metrics| metrics.peers == 0).await;
    let listen = vec![addr.into()];
    let b = NodeConfig { listen, ..joined("b", vec![peer("a", None)]) };
    let b = TestNode::start_with(b).await;
    b.until(|metrics| metrics.peer_names == 1).await;
    let bob = Client::start(&b, "bob", 2).await;
    bob.send(&publish(Header::new(name("bob", 2), name("alice", 1), UNICAST), "again")).await;
    assert_eq!(text(&alice.next().await), "again");
    assert!(a.metrics().failed_dials < 1000);
}

/// What a dialler is told that asks for a peer link.
async fn asks(node: &TestNode, change: impl FnOnce(&mut LinkNegotiation)) -> Option<String> {
    let mut stream = RawConnection::open(node.addr).await.stream().await;
    let mut request = stream.request(ConnectionType::Peer, &StaticSecret::from([7; 32]));
    change(&mut request);
    stream.send(&Message::Link(request)).await;
    match stream.next_bytes().await {
        Some(_) => None,
        None => match stream.end().await {
            End::Status(status) => Some(status),
            other => panic!("{other:?}"),
        },
    }
}

#[tokio::test]
async fn nobody_is_a_peer_by_saying_so() {
    let denied = Some("7".to_owned());
    let without = TestNode::start().await;
    let with = TestNode::start_with(joined("b", vec![peer("a", None)])).await;
    let group = PeersConfig {
        domain_name: "east".to_owned(),
        peers: vec![peer("a", None)],
        ..PeersConfig::default()
    };
    let grouped = NodeConfig { peers: Some(group), ..joined("b", Vec::new()) };
    let grouped = TestNode::start_with(grouped).await;
    let is = |node_id: &'static str| {
        move |request: &mut LinkNegotiation| request.node_id = node_id.to_owned()
    };
    // All at once: each refusal takes its time.
    let (none, stranger, oneself, other_group, right) = tokio::join!(
        asks(&without, is("a")),
        asks(&with, is("mallory")),
        asks(&with, is("b")),
        asks(&grouped, is("a")),
        asks(&with, is("a")),
    );
    assert_eq!(
        (none, stranger, oneself, other_group),
        (denied.clone(), denied.clone(), denied.clone(), denied)
    );
    assert_eq!(right, None, "it is answered");
    for node in [&without, &grouped] {
        assert_eq!((node.metrics().peers, node.metrics().links), (0, 0));
    }
}

#[tokio::test]
async fn an_application_announces_nothing() {
    // Without a peer link, a subscription says what this link wants, and nothing else.
    let node = TestNode::start_with(joined("b", vec![peer("a", None)])).await;
    let mut eve = Client::start(&node, "eve", 3).await;
    assert_eq!(eve.subscribe(&name("bob", 2), 5).await, ok(5));
    let metrics = node.metrics();
    assert_eq!((metrics.peers, metrics.peer_names, metrics.subscriptions), (0, 0, 2));
}

#[tokio::test]
async fn relays_join_what_has_no_link() {
    let relay = |config: NodeConfig| {
        let peers = config.peers.map(|peers| PeersConfig { topology: Topology::Relay, ..peers });
        NodeConfig { peers, ..config }
    };
    let b = relay(joined("b", vec![peer("a", None), peer("c", None)]));
    let b = TestNode::start_with(b).await;
    let a = TestNode::start_with(relay(joined("a", vec![peer("b", Some(b.addr))]))).await;
    let c = TestNode::start_with(relay(joined("c", vec![peer("b", Some(b.addr))]))).await;
    b.until(|metrics| metrics.peers == 2).await;
    let mut carol = Client::start(&c, "carol", 3).await;
    let alice = Client::start(&a, "alice", 1).await;
    a.until(|metrics| metrics.peer_names == 1).await;
    c.until(|metrics| metrics.peer_names == 1).await;
    let header = Header::new(name("alice", 1), name("carol", 3), UNICAST);
    alice.send(&publish(header, "far")).await;
    let header = Header::new(name("alice", 1), name("carol", 3), BROADCAST);
    alice.send(&publish(header, "all")).await;
    assert_eq!(text(&carol.next().await), "far");
    assert_eq!(text(&carol.next().await), "all");
}

/// A link that asks to be a peer, and is one: the name of a raw stream is configured.
async fn raw_peer(node: &TestNode) -> RawStream {
    let mut stream = RawConnection::open(node.addr).await.stream().await;
    stream.negotiate(ConnectionType::Peer).await;
    stream
}

#[tokio::test]
async fn a_peer_takes_nothing_away_that_is_not_its_own() {
    let config = joined("b", vec![peer("node-raw", None)]);
    let peers = config.peers.map(|peers| PeersConfig { max_names_per_peer: 3, ..peers });
    let node = TestNode::start_with(NodeConfig { peers, ..config }).await;
    let mut bob = Client::start(&node, "bob", 2).await;
    let alice = Client::start(&node, "alice", 1).await;
    let mut mallory = raw_peer(&node).await;
    node.until(|metrics| metrics.peers == 1).await;
    // What it is told, in any order; the ids are the node's.
    let mut ids = Vec::new();
    while ids.len() < 2 {
        if let Some(Message::Subscribe(told)) = mallory.next().await {
            ids.push(told.subscription_id);
        }
    }
    // It withdraws what others have, answers what it was not told, and says nonsense.
    for id in ids.iter().copied().chain([0, 1, u64::MAX]) {
        mallory.send(&Message::Unsubscribe(subscription(&name("bob", 2), id))).await;
        mallory.send(&Message::Subscribe(subscription(&name("alice", 1), id))).await;
        mallory.send(&Message::SubscriptionAck(ok(id.wrapping_add(7)))).await;
        mallory.send(&Message::SubscriptionAck(refused(id, "no"))).await;
    }
    mallory.send_bytes(b"nonsense").await;
    for id in 10..20 {
        mallory.send(&Message::Subscribe(subscription(&name("eve", id.into()), id))).await;
    }
    node.until(|metrics| metrics.refused_subscriptions >= 7).await;
    assert!(node.metrics().peer_names <= 3);
    let header = || Header::new(name("alice", 1), name("bob", 2), UNICAST);
    alice.send(&publish(header(), "still here")).await;
    assert_eq!(text(&bob.next().await), "still here");
    // And with it goes what it has said.
    drop(mallory);
    node.until(|metrics| metrics.peers == 0 && metrics.peer_names == 0).await;
    assert_eq!(node.metrics().subscriptions, 2);
    alice.send(&publish(header(), "and now")).await;
    assert_eq!(text(&bob.next().await), "and now");
}
