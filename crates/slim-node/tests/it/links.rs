//! How links begin, end and come back.

use std::time::Duration;

use crate::common::{
    Client, End, RawConnection, RawStream, TestNode, config, name, ok, publish, subscription, text,
    within,
};
use bytes::Bytes;
use slim_link::{DialConfig, LinkEnd};
use slim_node::{Node, NodeConfig};
use slim_proto::{ConnectionType, Header, LinkNegotiation, Message, UNICAST};
use tokio::net::TcpStream;
use x25519_dalek::StaticSecret;

#[tokio::test]
async fn the_answer_repeats_what_the_dialler_chose() {
    let node = TestNode::start_with(NodeConfig { node_id: "node-7".to_owned(), ..config() }).await;
    for connection_type in [ConnectionType::Edge, ConnectionType::Remote] {
        // Opening the stream waits for the response headers, before it has said a word.
        let mut stream = RawConnection::open(node.addr).await.stream().await;
        let reply = stream.negotiate(connection_type).await;
        assert_eq!(reply.link_id, "raw-link");
        assert_eq!(reply.connection_type, connection_type);
        assert_eq!(reply.node_id, "node-7");
        assert_eq!((reply.is_reply, reply.ecdh_public_key.len()), (true, 32));
        assert_eq!(reply.slim_version, slim_proto::SLIM_VERSION);
    }
}

#[tokio::test]
async fn a_bad_beginning_is_the_end() {
    let node = TestNode::start().await;
    let check = async |what: &str, change: &dyn Fn(&mut LinkNegotiation)| {
        let mut stream = RawConnection::open(node.addr).await.stream().await;
        let mut request = stream.request(ConnectionType::Edge, &StaticSecret::from([7; 32]));
        change(&mut request);
        stream.send(&Message::Link(request)).await;
        assert_eq!(stream.next_bytes().await, None, "{what}: no word");
        assert_eq!(stream.end().await, End::Status("7".to_owned()), "{what}");
    };
    let version = async |version: &str| {
        check(version, &|request| request.slim_version = version.to_owned()).await;
    };
    let no_negotiation = async {
        let mut stream = RawConnection::open(node.addr).await.stream().await;
        stream.send(&Message::Subscribe(subscription(&name("bob", 2), 1))).await;
        assert_eq!(stream.end().await, End::Status("7".to_owned()), "no negotiation");
    };
    // All at once: each waits for its end.
    tokio::join!(
        check("a reply", &|request| request.is_reply = true),
        check("no link id", &|request| request.link_id.clear()),
        check("no key", &|request| request.ecdh_public_key = Bytes::new()),
        check("a short key", &|request| request.ecdh_public_key = Bytes::from_static(&[1; 31])),
        check("a key of small order", &|request| {
            request.ecdh_public_key = Bytes::from_static(&[0; 32]);
        }),
        version(""),
        version("abc"),
        version("v3.4.6"),
        no_negotiation,
    );
    assert_eq!(node.metrics().links, 0);
}

#[tokio::test]
async fn replica_links_are_refused() {
    let node = TestNode::start().await;
    let mut stream = RawConnection::open(node.addr).await.stream().await;
    let request = stream.request(ConnectionType::Peer, &StaticSecret::from([7; 32]));
    stream.send(&Message::Link(request)).await;
    assert_eq!(stream.next_bytes().await, None);
}

#[tokio::test]
async fn who_says_nothing_is_not_waited_for() {
    let negotiation_timeout = Duration::from_millis(50);
    let node = TestNode::start_with(NodeConfig { negotiation_timeout, ..config() }).await;
    let mut stream = RawConnection::open(node.addr).await.stream().await;
    assert_eq!(stream.next_bytes().await, None);
    // Nor is a connection kept on which nothing is opened.
    let mut connection = RawConnection::open(node.addr).await;
    within(async {
        while !connection.is_closed().await {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn two_streams_of_one_connection_are_two_links() {
    let node = TestNode::start().await;
    let mut connection = RawConnection::open(node.addr).await;
    let mut bob = connection.stream().await;
    let mut alice = connection.stream().await;
    bob.negotiate(ConnectionType::Edge).await;
    alice.negotiate(ConnectionType::Edge).await;
    let bobs = name("bob", 2);
    bob.send_signed(&Message::Subscribe(subscription(&bobs, 5))).await;
    assert_eq!(bob.next().await, Some(Message::SubscriptionAck(ok(5))));
    let header = Header::new(name("alice", 1), bobs, UNICAST);
    alice.send_signed(&publish(header, "hello")).await;
    assert_eq!(text(&bob.next().await.unwrap()), "hello");
    assert_eq!(node.metrics().links, 2);
    assert_eq!(bob.finish().status().await, "0");
    node.until(|metrics| metrics.links == 1 && metrics.subscriptions == 0).await;
}

#[tokio::test]
async fn a_lost_link_takes_its_routes_along() {
    let node = TestNode::start().await;
    let mut alice = Client::start(&node, "alice", 1).await;
    let mut bob = Client::start(&node, "bob", 2).await;
    for id in 0..5000 {
        bob.send(&Message::Subscribe(subscription(&name("group", id), 0))).await;
    }
    assert_eq!(bob.subscribe(&name("group", 5000), 1).await, ok(1));
    assert_eq!(node.metrics().subscriptions, 5003);
    drop(bob);
    node.until(|metrics| metrics.links == 1 && metrics.subscriptions == 1).await;
    alice.tell(&name("group", 17), "nobody").await;
    node.until(|metrics| metrics.dropped.no_subscriber == 1).await;
    // The others have lost nothing.
    let carol = Client::connect(&node, "carol", 3).await;
    alice.has_nothing_from(&carol).await;
}

#[tokio::test]
async fn after_a_reconnect_the_old_subscription_id_still_withdraws() {
    let node = TestNode::start().await;
    let alice = Client::connect(&node, "alice", 1).await;
    let dial = DialConfig { link_id: "bobs-link".to_owned(), ..DialConfig::default() };
    let old = Client::connect_with(&node, "bob", 2, &dial).await;
    // The new link comes before the old one is seen dead, under the same name.
    let mut bob = Client::connect_with(&node, "bob", 2, &dial).await;
    let (own, group) = (name("bob", 2), name("group", 9));
    for name in [&own, &group] {
        bob.send(&Message::Subscribe(subscription(name, 0))).await;
    }
    drop(old);
    node.until(|metrics| metrics.links == 2 && metrics.subscriptions == 2).await;
    alice.tell_all(&group, "back again").await;
    assert_eq!(bob.next_text().await, "back again");
    assert_eq!(bob.unsubscribe(&group, 6455086713755850597).await, ok(6455086713755850597));
    alice.tell_all(&group, "left").await;
    bob.has_nothing_from(&alice).await;
}

#[tokio::test]
async fn without_required_macs_a_peer_without_a_key_is_served() {
    let node = TestNode::start_with(NodeConfig { require_header_mac: false, ..config() }).await;
    let mut stream = RawConnection::open(node.addr).await.stream().await;
    let mut request = stream.request(ConnectionType::Edge, &StaticSecret::from([7; 32]));
    request.ecdh_public_key = Bytes::new();
    stream.send(&Message::Link(request)).await;
    let Some(Message::Link(reply)) = stream.next().await else { panic!("no negotiation") };
    assert!(reply.ecdh_public_key.is_empty());
    stream.send(&Message::Subscribe(subscription(&name("old", 2), 5))).await;
    assert_eq!(stream.next().await, Some(Message::SubscriptionAck(ok(5))));
    let alice = Client::connect(&node, "alice", 1).await;
    alice.tell(&name("old", 2), "hello").await;
    assert_eq!(text(&stream.next().await.unwrap()), "hello");
}

#[tokio::test]
async fn a_node_that_stops_closes_its_port_first_and_ends_links_in_good_order() {
    // Links with nothing to send are not waited for.
    let drain_timeout = Duration::from_secs(600);
    let mut node = TestNode::start_with(NodeConfig { drain_timeout, ..config() }).await;
    let mut bob = Client::start(&node, "bob", 2).await;
    let mut alice = RawStream::start(node.addr).await;
    node.stop();
    assert_eq!(bob.end().await, LinkEnd::Ended);
    assert_eq!(alice.end().await, End::Status("0".to_owned()));
    assert!(TcpStream::connect(node.addr).await.is_err(), "closed before the links ended");
    let metrics = node.ended().await;
    assert_eq!((metrics.links, metrics.subscriptions), (0, 0));
}

#[tokio::test]
async fn what_is_queued_goes_out_before_the_end() {
    let mut node = TestNode::start().await;
    let alice = Client::connect(&node, "alice", 1).await;
    let mut bob = Client::start(&node, "bob", 2).await;
    const MESSAGES: u64 = 300;
    let long = "x".repeat(10_000);
    for _ in 0..MESSAGES {
        alice.tell(&bob.name, &long).await;
        // As much as fits between sender and receiver while the receiver sleeps.
        if node.metrics().delivered_bytes > 2_500_000 {
            break;
        }
    }
    node.until(|metrics| metrics.received > 200).await;
    node.stop();
    let mut received = 0;
    loop {
        match within(bob.receiver.recv()).await {
            Ok(message) => {
                assert_eq!(text(&message).len(), long.len());
                received += 1;
            }
            Err(end) => {
                assert_eq!(end, LinkEnd::Ended);
                break;
            }
        }
    }
    assert_eq!(node.ended().await.delivered, received);
}

#[tokio::test]
async fn a_node_comes_back_on_its_port() {
    let mut node = TestNode::start().await;
    let addr = node.addr;
    let mut bob = Client::start(&node, "bob", 2).await;
    node.stop();
    assert_eq!(bob.end().await, LinkEnd::Ended);
    node.ended().await;
    let node = TestNode::start_with(NodeConfig { listen: vec![addr.into()], ..config() }).await;
    let mut bob = Client::start(&node, "bob", 2).await;
    let alice = Client::connect(&node, "alice", 1).await;
    bob.has_nothing_from(&alice).await;
}

#[tokio::test]
async fn a_taken_port_is_an_error_that_names_it() {
    let node = TestNode::start().await;
    let error =
        Node::bind(NodeConfig { listen: vec![node.addr.into()], ..config() }).await.unwrap_err();
    assert!(error.to_string().starts_with(&format!("cannot listen on {}: ", node.addr)), "{error}");
    let error = Node::bind(NodeConfig { listen: vec![], ..config() }).await.unwrap_err();
    assert_eq!(error.to_string(), "no address to listen on");
}

/// A process that is stopped, or a machine that sleeps: its connection is there, and
/// nothing comes from it. What is queued for it, if anything, is not waited for.
async fn check_frozen(queued: usize) {
    let drain_timeout = Duration::from_secs(600);
    let mut node = TestNode::start_with(NodeConfig { drain_timeout, ..config() }).await;
    let addr = node.addr;
    let group = name("group", 9);
    let (is_ready, ready) = tokio::sync::oneshot::channel();
    let (thaw, thawed) = std::sync::mpsc::channel::<()>();
    let frozen = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _stream = runtime.block_on(async {
            let mut stream = RawStream::start(addr).await;
            stream.send_signed(&Message::Subscribe(subscription(&name("group", 9), 5))).await;
            assert_eq!(stream.next().await, Some(Message::SubscriptionAck(ok(5))));
            stream
        });
        is_ready.send(()).unwrap();
        // Its tasks do not run meanwhile.
        thawed.recv().unwrap_err();
    });
    within(ready).await.unwrap();
    let alice = Client::connect(&node, "alice", 1).await;
    for _ in 0..queued {
        alice.tell_all(&group, &"x".repeat(1000)).await;
    }
    node.until(|metrics| metrics.delivered == queued as u64).await;
    drop(alice);
    node.until(|metrics| metrics.links == 1).await;
    let start = std::time::Instant::now();
    node.stop();
    node.ended().await;
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    drop(thaw);
    frozen.join().unwrap();
}

#[tokio::test]
async fn a_frozen_peer_does_not_keep_a_node_from_stopping() {
    check_frozen(0).await;
}

#[tokio::test]
async fn nor_does_one_for_which_something_is_queued() {
    check_frozen(500).await;
}
