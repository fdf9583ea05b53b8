//! Subscribers that do not read.

use std::time::Duration;

use crate::common::{
    Client, RawStream, TestNode, config, name, ok, publish, subscription, text, within,
};
use slim_node::NodeConfig;
use slim_proto::{BROADCAST, Message, Name};

/// A subscriber of `group` that will read nothing more.
async fn stalled(node: &TestNode, group: &Name) -> RawStream {
    let mut stream = RawStream::start(node.addr).await;
    stream.send_signed(&Message::Subscribe(subscription(group, 5))).await;
    assert_eq!(stream.next().await, Some(Message::SubscriptionAck(ok(5))));
    stream
}

fn config_with_grace(slow_subscriber_grace: Duration) -> NodeConfig {
    NodeConfig { slow_subscriber_grace, queue_bytes: 64 * 1024, ..config() }
}

/// More than the windows and the queue of a link hold.
const MESSAGES: usize = 1000;
const LEN: usize = 4 * 1024;

fn numbered(number: usize) -> String {
    format!("{number:0>LEN$}")
}

#[tokio::test]
async fn one_that_stops_reading_is_shed_and_the_others_get_everything() {
    let node = TestNode::start_with(config_with_grace(Duration::from_millis(100))).await;
    let group = name("group", 9);
    let mut stuck = stalled(&node, &group).await;
    let mut members = Vec::new();
    for id in 1..=4 {
        let mut member = Client::start(&node, "member", id).await;
        assert_eq!(member.subscribe(&group, 1).await, ok(1));
        members.push(member);
    }
    let mut publishers = Vec::new();
    for id in 1..=2 {
        publishers.push(Client::connect(&node, "publisher", id).await);
    }
    let receive = futures_util::future::join_all(members.iter_mut().map(|member| async move {
        let mut next = [0; 2];
        for _ in 0..2 * MESSAGES {
            let Message::Publish(message) = member.next().await else { panic!("not a publish") };
            let sender = message.header.source.id().0 as usize - 1;
            assert_eq!(text(&Message::Publish(message)), numbered(next[sender]));
            next[sender] += 1;
        }
    }));
    let send = futures_util::future::join_all(publishers.iter().map(|publisher| async {
        for number in 0..MESSAGES {
            publisher.tell_all(&group, &numbered(number)).await;
        }
    }));
    tokio::join!(receive, send);
    node.until(|metrics| metrics.links == 6).await;
    let metrics = node.metrics();
    assert_eq!(metrics.shed_links, 1);
    assert!(metrics.dropped.shed > 0, "{metrics:?}");
    assert_eq!(metrics.received, 2 * MESSAGES as u64 + 9);
    // It is told, once it reads again.
    stuck.end().await;
}

#[tokio::test]
async fn a_publisher_that_waits_delays_nobody_else() {
    // It waits for ever, as far as this test is concerned.
    let node = TestNode::start_with(NodeConfig {
        drain_timeout: Duration::from_millis(100),
        ..config_with_grace(Duration::from_secs(3600))
    });
    let mut node = node.await;
    let group = name("group", 9);
    let _stuck = stalled(&node, &group).await;
    let mut bob = Client::start(&node, "bob", 2).await;
    assert_eq!(bob.subscribe(&group, 1).await, ok(1));
    let publisher = Client::connect(&node, "publisher", 1).await;
    let flood = tokio::spawn(async move {
        for number in 0.. {
            let message = publish(publisher.header(&group, BROADCAST), numbered(number));
            if publisher.sender.send(&message).await.is_err() {
                break;
            }
        }
    });
    let carol = Client::connect(&node, "carol", 3).await;
    // Bob has his copies of what the stuck one has none of: they come in order, and
    // then no more, because the publisher waits.
    let mut next = 0;
    let mut rounds_without = 0;
    while rounds_without < 50 {
        carol.tell(&bob.name, "from carol").await;
        rounds_without += 1;
        loop {
            let text = bob.next_text().await;
            if text == "from carol" {
                break;
            }
            assert_eq!(text, numbered(next));
            next += 1;
            rounds_without = 0;
        }
    }
    let metrics = node.metrics();
    assert_eq!(metrics.shed_links, 0);
    // Nor does it keep the node from stopping.
    node.stop();
    node.ended().await;
    within(flood).await.unwrap();
}

#[tokio::test]
async fn who_does_not_read_the_answers_is_shed() {
    let node = TestNode::start_with(config_with_grace(Duration::from_millis(100))).await;
    let mut mallory = RawStream::start(node.addr).await;
    let mut bob = Client::start(&node, "bob", 2).await;
    let question =
        mallory.signed(&Message::Unsubscribe(subscription(&name("nobody", 1), u64::MAX)));
    let question = question.encode();
    let ask = async {
        while node.metrics().shed_links == 0 {
            for _ in 0..100 {
                mallory.send_bytes(&question).await;
            }
        }
    };
    within(ask).await;
    node.until(|metrics| metrics.links == 1).await;
    let carol = Client::connect(&node, "carol", 3).await;
    bob.has_nothing_from(&carol).await;
    mallory.end().await;
}

#[tokio::test]
async fn who_asks_much_at_once_gets_all_answers_if_it_reads_them() {
    const QUESTIONS: u64 = 100_000;
    let config = NodeConfig {
        max_subscriptions_per_link: QUESTIONS as usize,
        ..config_with_grace(Duration::from_secs(3600))
    };
    let node = TestNode::start_with(config).await;
    let mut alice = RawStream::start(node.addr).await;
    let mut bob = Client::start(&node, "bob", 2).await;
    let carol = Client::connect(&node, "carol", 3).await;
    let questions: Vec<_> = (1..=QUESTIONS)
        .map(|id| subscription(&name("much", id.into()), id))
        .map(|question| alice.signed(&Message::Subscribe(question)).encode())
        .collect();
    let sender = alice.sender();
    let ask = async {
        for question in &questions {
            sender.send_bytes(question).await;
        }
    };
    let read = async {
        until_it_waits(&node, &mut bob, &carol).await;
        for id in 1..=QUESTIONS {
            assert_eq!(alice.next().await, Some(Message::SubscriptionAck(ok(id))));
        }
    };
    tokio::join!(ask, read);
    let metrics = node.metrics();
    // Bob has one, too.
    assert_eq!((metrics.subscriptions as u64, metrics.shed_links), (QUESTIONS + 1, 0));
}

/// Waits until the node reads nothing more but what these two say; tells how much it has
/// read of others.
async fn until_it_waits(node: &TestNode, bob: &mut Client, carol: &Client) -> u64 {
    let (mut received, mut rounds_without) = (0, 0);
    while rounds_without < 50 {
        bob.has_nothing_from(carol).await;
        rounds_without += 1;
        let metrics = node.metrics();
        let now = metrics.received - metrics.delivered;
        if now != received {
            (received, rounds_without) = (now, 0);
        }
    }
    received
}

/// Who does not read them waits, and nobody else does.
#[tokio::test]
async fn who_waits_for_answers_delays_nobody_and_ends_with_the_node() {
    let config = NodeConfig {
        drain_timeout: Duration::from_millis(100),
        ..config_with_grace(Duration::from_secs(3600))
    };
    let mut node = TestNode::start_with(config).await;
    let mallory = RawStream::start(node.addr).await;
    let question =
        mallory.signed(&Message::Unsubscribe(subscription(&name("nobody", 1), u64::MAX)));
    let question = question.encode();
    let flood = tokio::spawn(async move {
        while !mallory.is_closed() {
            mallory.send_bytes(&question).await;
        }
        mallory
    });
    let mut bob = Client::start(&node, "bob", 2).await;
    let carol = Client::connect(&node, "carol", 3).await;
    let received = until_it_waits(&node, &mut bob, &carol).await;
    assert!(received > 3000, "{received} questions fill the queue");
    assert_eq!(node.metrics().shed_links, 0);
    node.stop();
    node.ended().await;
    let mut mallory = within(flood).await.unwrap();
    mallory.end().await;
}
