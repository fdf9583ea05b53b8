//! Who gets what: subscriptions, publishing, turns, hops.

use std::collections::BTreeMap;

use crate::common::{
    Client, RawStream, TestNode, any, name, ok, publish, refused, subscription, text,
};
use slim_proto::{BROADCAST, Message, UNICAST};

#[tokio::test]
async fn a_subscriber_gets_what_is_sent_to_its_name() {
    let node = TestNode::start().await;
    let alice = Client::connect(&node, "alice", 1).await;
    let mut bob = Client::start(&node, "bob", 2).await;
    alice.tell(&bob.name, "hello").await;
    let Message::Publish(message) = bob.next().await else { panic!("not a publish") };
    assert_eq!(message.header.source, alice.name);
    assert_eq!(message.header.destination, bob.name);
    assert_eq!((message.header.ttl, message.header.fanout), (7, UNICAST));
    assert_eq!(text(&Message::Publish(message)), "hello");
}

#[tokio::test]
async fn subscribing_twice_is_acknowledged_twice_and_delivers_once() {
    let node = TestNode::start().await;
    let alice = Client::connect(&node, "alice", 1).await;
    let mut bob = Client::start(&node, "bob", 2).await;
    assert_eq!(bob.subscribe(&name("bob", 2), 1000).await, ok(1000));
    assert_eq!(bob.subscribe(&name("bob", 2), 1001).await, ok(1001));
    alice.tell_all(&bob.name, "once").await;
    assert_eq!(bob.next_text().await, "once");
    bob.has_nothing_from(&alice).await;
    assert_eq!(node.metrics().subscriptions, 1);
}

#[tokio::test]
async fn a_name_is_withdrawn_with_its_last_subscription() {
    let node = TestNode::start().await;
    let alice = Client::connect(&node, "alice", 1).await;
    let mut bob = Client::start(&node, "bob", 2).await;
    let group = name("group", 9);
    assert_eq!(bob.subscribe(&group, 1).await, ok(1));
    assert_eq!(bob.subscribe(&group, 2).await, ok(2));
    assert_eq!(bob.unsubscribe(&group, 1).await, ok(1));
    alice.tell(&group, "still there").await;
    assert_eq!(bob.next_text().await, "still there");
    assert_eq!(bob.unsubscribe(&group, 2).await, ok(2));
    alice.tell(&group, "gone").await;
    bob.has_nothing_from(&alice).await;
}

#[tokio::test]
async fn a_wrong_unsubscribe_is_refused_with_its_reason() {
    let node = TestNode::start().await;
    let mut bob = Client::start(&node, "bob", 2).await;
    let id = "00000000-0000-0000-0000-000000000003";
    for (name, subscription, reason) in [
        (name("nobody", 2), 1000, "subscription not found".to_owned()),
        (name("bob", 3), 1000, format!("id not found: {id}")),
        (any("bob"), 1000, "id not found: NULL_COMPONENT".to_owned()),
        (name("bob", 2), 5, "subscription id not found: 5".to_owned()),
    ] {
        let answer = bob.unsubscribe(&name, subscription).await;
        assert_eq!(answer, refused(subscription, &reason));
    }
    // Neither ack nor nack without an id: the next answer belongs to the next question.
    bob.send(&Message::Unsubscribe(subscription(&name("nobody", 2), 0))).await;
    bob.send(&Message::Subscribe(subscription(&name("bob", 4), 0))).await;
    assert_eq!(bob.subscribe(&name("bob", 5), 6).await, ok(6));
    assert_eq!(node.metrics().subscriptions, 3);
}

#[tokio::test]
async fn an_ack_means_that_the_name_is_routed() {
    let node = TestNode::start().await;
    let alice = Client::connect(&node, "alice", 1).await;
    let mut bob = Client::connect(&node, "bob", 2).await;
    for round in 0..200 {
        let group = name("group", round);
        assert_eq!(bob.subscribe(&group, 1).await, ok(1));
        alice.tell_all(&group, "now").await;
        assert_eq!(bob.next_text().await, "now");
    }
}

#[tokio::test]
async fn a_message_to_one_is_for_one_and_they_take_turns() {
    let node = TestNode::start().await;
    let alice = Client::connect(&node, "alice", 1).await;
    let mut instances = Vec::new();
    for id in 1..=3 {
        let mut instance = Client::start(&node, "service", id).await;
        assert_eq!(instance.subscribe(&name("shared", 9), 1).await, ok(1));
        instances.push(instance);
    }
    // Any instance, then an id that all have.
    for destination in [any("service"), name("shared", 9)] {
        for number in 0..6 {
            alice.tell(&destination, &number.to_string()).await;
        }
        let mut seen = Vec::new();
        for instance in &mut instances {
            for _ in 0..2 {
                seen.push(instance.next_text().await);
            }
            instance.has_nothing_from(&alice).await;
        }
        seen.sort();
        assert_eq!(seen, ["0", "1", "2", "3", "4", "5"]);
    }
}

#[tokio::test]
async fn the_sender_is_passed_over_when_its_turn_comes() {
    let node = TestNode::start().await;
    let mut one = Client::start(&node, "one", 1).await;
    let mut two = Client::start(&node, "two", 2).await;
    let group = name("group", 9);
    one.subscribe(&group, 1).await;
    two.subscribe(&group, 1).await;
    for _ in 0..4 {
        one.tell(&group, "yours").await;
        assert_eq!(two.next_text().await, "yours");
    }
    one.has_nothing_from(&two).await;
}

#[tokio::test]
async fn a_message_to_all_is_one_copy_for_each_but_the_sender() {
    let node = TestNode::start().await;
    let group = name("group", 9);
    let mut members = Vec::new();
    for id in 1..=4 {
        let mut member = Client::start(&node, "member", id).await;
        assert_eq!(member.subscribe(&group, 1).await, ok(1));
        assert_eq!(member.subscribe(&group, 2).await, ok(2));
        members.push(member);
    }
    let sender = members.remove(0);
    for fanout in [BROADCAST, 0, 2, 3] {
        sender.send(&publish(sender.header(&group, fanout), "all")).await;
        for member in &mut members {
            assert_eq!(member.next_text().await, "all", "fanout {fanout}");
        }
    }
    // Any instance of the name, too.
    sender.tell_all(&any("member"), "instances").await;
    for member in &mut members {
        assert_eq!(member.next_text().await, "instances");
        member.has_nothing_from(&sender).await;
    }
    let mut sender = sender;
    sender.has_nothing_from(&members[0]).await;
}

#[tokio::test]
async fn a_wildcard_subscription_gets_wildcard_messages_only() {
    let node = TestNode::start().await;
    let alice = Client::connect(&node, "alice", 1).await;
    let mut bob = Client::start(&node, "bob", 2).await;
    assert_eq!(bob.subscribe(&any("group"), 1).await, ok(1));
    alice.tell(&name("group", 7), "to an id").await;
    alice.tell_all(&name("group", 7), "to an id").await;
    alice.tell(&any("group"), "to any").await;
    assert_eq!(bob.next_text().await, "to any");
}

#[tokio::test]
async fn a_message_dies_with_its_last_hop() {
    let node = TestNode::start().await;
    let alice = Client::connect(&node, "alice", 1).await;
    let mut bob = Client::start(&node, "bob", 2).await;
    for ttl in [0, 1, 2] {
        let mut header = alice.header(&bob.name, UNICAST);
        header.ttl = ttl;
        alice.send(&publish(header, format!("ttl {ttl}"))).await;
    }
    let Message::Publish(message) = bob.next().await else { panic!("not a publish") };
    assert_eq!(message.header.ttl, 1);
    assert_eq!(text(&Message::Publish(message)), "ttl 2");
    // A subscription, too: no ack and no route.
    let mut header = subscription(&name("group", 9), 5);
    header.header.ttl = 1;
    bob.send(&Message::Subscribe(header)).await;
    assert_eq!(bob.subscribe(&name("other", 9), 6).await, ok(6));
    alice.tell(&name("group", 9), "nobody").await;
    bob.has_nothing_from(&alice).await;
    node.until(|metrics| (metrics.dropped.ttl_expired, metrics.dropped.no_subscriber) == (3, 1))
        .await;
}

#[tokio::test]
async fn what_nobody_wants_is_dropped_without_a_word() {
    let node = TestNode::start().await;
    let mut alice = Client::start(&node, "alice", 1).await;
    let bob = Client::connect(&node, "bob", 2).await;
    alice.tell(&name("nobody", 1), "lost").await;
    alice.tell(&alice.name.clone(), "to myself").await;
    alice.tell_all(&any("alice"), "to my other instances").await;
    alice.has_nothing_from(&bob).await;
    node.until(|metrics| metrics.dropped.no_subscriber == 3).await;
}

#[tokio::test]
async fn all_but_the_hop_count_and_the_mac_arrives_as_it_was_sent() {
    let node = TestNode::start().await;
    let alice = RawStream::start(node.addr).await;
    let mut bob = RawStream::start(node.addr).await;
    let bobs = name("bob", 2);
    bob.send_signed(&Message::Subscribe(subscription(&bobs, 5))).await;
    assert_eq!(bob.next().await, Some(Message::SubscriptionAck(ok(5))));

    let mut header = slim_proto::Header::new(name("alice", 1).without_text(), any("bob"), UNICAST);
    header.identity = "token".to_owned();
    header.version = "0.0.1-other".to_owned();
    header.error = Some(false);
    header.incoming_conn = Some(0);
    header.e2e_header_sig = Some(vec![9; 70].into());
    let Message::Publish(mut sent) = publish(header, "text") else { unreachable!() };
    sent.metadata =
        BTreeMap::from([("b".to_owned(), "1".to_owned()), ("a".to_owned(), "2".to_owned())]);
    let sent = alice.signed(&Message::Publish(sent));
    // A field that nobody knows yet, at the end of the message.
    let mut bytes = sent.encode().to_vec();
    let unknown = [0xfa, 0x01, 3, b'n', b'e', b'w'];
    bytes.extend_from_slice(&unknown);
    alice.send_bytes(&bytes).await;

    let received = bob.next_bytes().await.unwrap();
    assert!(received.ends_with(&unknown), "unknown fields go on");
    let Message::Publish(received) = Message::decode(received).unwrap() else {
        panic!("not a publish")
    };
    assert!(bob.verifies(&received.header));
    let Message::Publish(mut expected) = sent else { unreachable!() };
    expected.header.ttl = 7;
    expected.header.header_mac = received.header.header_mac.clone();
    expected.header.incoming_conn = received.header.incoming_conn;
    assert_eq!(received, expected);
    assert!(
        received.header.destination.id().is_any(),
        "the choice of an instance is not written down"
    );
}

#[tokio::test]
async fn order_from_one_link_to_another_is_kept() {
    let node = TestNode::start().await;
    let group = name("group", 9);
    let mut members = Vec::new();
    for id in 1..=3 {
        let mut member = Client::start(&node, "member", id).await;
        assert_eq!(member.subscribe(&group, 1).await, ok(1));
        members.push(member);
    }
    let alice = Client::connect(&node, "alice", 1).await;
    const MESSAGES: usize = 3000;
    let send = async {
        for number in 0..MESSAGES {
            alice.tell_all(&group, &number.to_string()).await;
        }
    };
    let receive = futures_util::future::join_all(members.iter_mut().map(|member| async move {
        for number in 0..MESSAGES {
            assert_eq!(member.next_text().await, number.to_string());
        }
    }));
    tokio::join!(send, receive);
    node.until(|metrics| metrics.delivered == 3 * MESSAGES as u64).await;
    assert_eq!(node.metrics().links, 4);
}

#[tokio::test]
async fn the_largest_message_arrives() {
    let node = TestNode::start().await;
    let alice = Client::connect(&node, "alice", 1).await;
    let mut bob = Client::start(&node, "bob", 2).await;
    let len = slim_proto::MAX_MESSAGE_LEN - 400;
    alice.send(&publish(alice.header(&bob.name, UNICAST), vec![b'x'; len])).await;
    assert_eq!(bob.next_text().await.len(), len);
}
