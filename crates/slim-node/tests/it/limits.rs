//! What one peer, and all together, may take. Each limit is counted.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::common::{
    Client, RawConnection, RawStream, TestNode, config, name, ok, publish, refused, subscription,
    within,
};
use slim_link::{DialConfig, QUEUE_SHARE};
use slim_node::{MetricsSnapshot, NodeConfig};
use slim_proto::{BROADCAST, Message};
use tokio::net::TcpStream;

#[tokio::test]
async fn connections_are_bounded_and_more_wait_for_one_to_go() {
    let config = NodeConfig { max_connections: 2, ..config() };
    let node = TestNode::start_with(config).await;
    let bob = Client::start(&node, "bob", 2).await;
    let carol = Client::start(&node, "carol", 3).await;
    let dan = Client::connect(&node, "dan", 4);
    tokio::pin!(dan);
    // Dan has a TCP connection, but nobody talks to him while there are two others.
    tokio::select! {
        _ = &mut dan => panic!("a third connection"),
        () = node.until(|metrics| metrics.times_full > 0) => {}
    }
    assert_eq!((node.metrics().connections, node.metrics().links), (2, 2));
    drop(carol);
    let dan = dan.await;
    let mut bob = bob;
    bob.has_nothing_from(&dan).await;
    node.until(|metrics| metrics.connections == 2).await;
}

#[tokio::test]
async fn connections_that_never_negotiate_are_bounded_and_make_room() {
    const SILENT: usize = 12;
    let config = NodeConfig { max_unnegotiated_connections: 4, ..config() };
    let node = TestNode::start_with(config).await;
    let mut bob = Client::start(&node, "bob", 2).await;
    let mut silent = Vec::new();
    for _ in 0..SILENT {
        silent.push(within(TcpStream::connect(node.addr)).await.unwrap());
    }
    // Behind all of them, and yet she gets in, long before the others' time is over.
    let patient =
        DialConfig { negotiation_timeout: Duration::from_secs(20), ..DialConfig::default() };
    let carol = Client::connect_with(&node, "carol", 3, &patient).await;
    bob.has_nothing_from(&carol).await;
    let metrics = node.metrics();
    assert!(metrics.unnegotiated_connections <= 4, "{metrics:?}");
    assert!(metrics.cut_connections >= SILENT as u64 - 4, "{metrics:?}");
    assert_eq!(metrics.links, 2);
}

#[tokio::test]
async fn a_connection_whose_streams_never_negotiate_is_cut() {
    let negotiation_timeout = Duration::from_millis(200);
    let node = TestNode::start_with(NodeConfig { negotiation_timeout, ..config() }).await;
    let mut connection = RawConnection::open(node.addr).await;
    let again = async {
        // A new stream whenever one is refused.
        while !connection.is_closed().await {
            let Some(mut stream) = connection.try_stream().await else { break };
            stream.end().await;
        }
    };
    within(again).await;
    // The link is refused by a task of its own.
    let is_over = |metrics: &MetricsSnapshot| {
        metrics.cut_connections == 1 && metrics.connections == 0 && metrics.refused_links >= 1
    };
    node.until(is_over).await;
}

#[tokio::test]
async fn a_refused_subscription_is_counted_whether_it_asked_for_an_answer_or_not() {
    let config = NodeConfig { max_subscriptions_per_link: 1, ..config() };
    let node = TestNode::start_with(config).await;
    let mut mallory = Client::start(&node, "mallory", 66).await;
    let other = name("other", 1);
    let answer = mallory.subscribe(&other, 1).await;
    assert_eq!(answer, refused(1, "too many subscriptions: a link may have 1"));
    mallory.send(&Message::Subscribe(subscription(&other, 0))).await;
    node.until(|metrics| metrics.refused_subscriptions == 2).await;
}

/// Many that do not read share what may be queued for all; who reads notices nothing.
#[tokio::test]
async fn what_waits_for_all_together_is_bounded() {
    const STUCK: usize = 16;
    const MESSAGES: usize = 2000;
    const MAX_QUEUED_BYTES: usize = 512 * 1024;
    let config = NodeConfig { max_queued_bytes: MAX_QUEUED_BYTES, ..config() };
    let node = TestNode::start_with(config).await;
    let group = name("group", 9);
    let mut stuck = Vec::new();
    for _ in 0..STUCK {
        let mut stream = RawStream::start(node.addr).await;
        stream.send_signed(&Message::Subscribe(subscription(&group, 5))).await;
        assert_eq!(stream.next().await, Some(Message::SubscriptionAck(ok(5))));
        stuck.push(stream);
    }
    let mut bob = Client::start(&node, "bob", 2).await;
    assert_eq!(bob.subscribe(&group, 1).await, ok(1));
    let alice = Client::connect(&node, "alice", 1).await;
    let text = "x".repeat(1000);
    let send = async {
        for _ in 0..MESSAGES {
            let message = publish(alice.header(&group, BROADCAST), text.clone());
            alice.send(&message).await;
        }
    };
    let receive = async {
        for _ in 0..MESSAGES {
            assert_eq!(bob.next_text().await, text);
        }
    };
    // The limit, and for each what it may always queue, what is in its window, and
    // what is on its way there. Without the limit, each would have a whole queue,
    // which is four times as much.
    let most = MAX_QUEUED_BYTES + STUCK * 4 * QUEUE_SHARE;
    assert!(STUCK * NodeConfig::default().queue_bytes > 3 * most);
    tokio::join!(send, receive);
    node.until(|metrics| metrics.shed_links == STUCK as u64).await;
    let metrics = node.metrics();
    let to_bob = MESSAGES as u64;
    let each = metrics.delivered_bytes / metrics.delivered;
    let queued = (metrics.delivered - to_bob) * each;
    assert!(queued <= most as u64, "{queued} of {most} bytes were queued: {metrics:?}");
}

#[tokio::test]
async fn a_link_that_sends_too_much_is_slowed_down_and_loses_nothing() {
    let config = NodeConfig { max_messages_per_second: NonZeroU32::new(200), ..config() };
    let node = TestNode::start_with(config).await;
    let mut bob = Client::start(&node, "bob", 2).await;
    let alice = Client::connect(&node, "alice", 1).await;
    let started = std::time::Instant::now();
    for number in 0..500 {
        alice.tell(&bob.name, &number.to_string()).await;
    }
    for number in 0..500 {
        assert_eq!(bob.next_text().await, number.to_string());
    }
    // A burst of 200, then 200 a second; a batch is read as a whole.
    assert!(started.elapsed() >= Duration::from_millis(200), "{:?}", started.elapsed());
    assert!(node.metrics().throttled > 0);
}

/// Garbage counts, too.
#[tokio::test]
async fn what_is_dropped_counts_for_the_rate() {
    let config = NodeConfig { max_messages_per_second: NonZeroU32::new(100), ..config() };
    let node = TestNode::start_with(config).await;
    let mallory = RawStream::start(node.addr).await;
    let garbage = async {
        while node.metrics().throttled == 0 {
            mallory.send_bytes(b"garbage").await;
        }
    };
    within(garbage).await;
    assert!(node.metrics().dropped.malformed > 0);
    assert!(!mallory.is_closed(), "it is only slowed down");
}

/// Who has to wait is not kept waiting by it when the node stops, or it goes itself.
#[tokio::test]
async fn a_throttled_link_still_ends_at_once() {
    let config = NodeConfig {
        max_messages_per_second: Some(NonZeroU32::MIN),
        drain_timeout: Duration::from_secs(600),
        ..config()
    };
    let mut node = TestNode::start_with(config).await;
    let streams = [RawStream::start(node.addr).await, RawStream::start(node.addr).await];
    let [gone, mut stays] = streams;
    for stream in [&gone, &stays] {
        for _ in 0..200 {
            stream.send_bytes(b"garbage").await;
        }
    }
    node.until(|metrics| metrics.throttled == 2).await;
    drop(gone);
    node.until(|metrics| metrics.links == 1).await;
    node.stop();
    stays.end().await;
    node.ended().await;
}
