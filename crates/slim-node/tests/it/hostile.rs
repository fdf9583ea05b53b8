//! What no decent peer sends: it costs the sender the message or the link, and
//! nobody else anything.

use crate::common::{
    Client, RawStream, TestNode, any, config, name, ok, publish, refused, subscription, text,
};
use bytes::{BufMut, Bytes, BytesMut};
use prost::Message as _;
use slim_node::NodeConfig;
use slim_proto::{BROADCAST, Header, MAX_MESSAGE_LEN, Message, Name, UNICAST, pb};

/// A hostile link and a bystander.
async fn start(node: &TestNode) -> (RawStream, Client) {
    (RawStream::start(node.addr).await, Client::start(node, "bob", 2).await)
}

/// The link still works, in both directions.
async fn still_works(stream: &mut RawStream, bob: &mut Client) {
    let mallory = name("mallory", 66);
    stream.send_signed(&Message::Subscribe(subscription(&mallory, 7))).await;
    assert_eq!(stream.next().await, Some(Message::SubscriptionAck(ok(7))));
    stream.send_signed(&publish(to(&bob.name), "still here")).await;
    assert_eq!(bob.next_text().await, "still here");
    bob.tell(&mallory, "so am I").await;
    assert_eq!(text(&stream.next().await.unwrap()), "so am I");
}

fn to(destination: &Name) -> Header {
    Header::new(name("mallory", 66), destination.clone(), UNICAST)
}

fn wire(kind: pb::message::MessageType) -> Vec<u8> {
    pb::Message { metadata: Default::default(), message_type: Some(kind) }.encode_to_vec()
}

/// The generated type of a message, to leave things out of.
fn raw_publish(message: &Message) -> pb::Publish {
    let message = pb::Message::decode(message.encode()).unwrap();
    let Some(pb::message::MessageType::Publish(publish)) = message.message_type else {
        panic!("not a publish")
    };
    publish
}

#[tokio::test]
async fn what_is_no_message_is_dropped_and_the_link_goes_on() {
    let node = TestNode::start().await;
    let (mut stream, mut bob) = start(&node).await;
    let good = raw_publish(&stream.signed(&publish(to(&bob.name), "to bob")));
    let publish = |change: &dyn Fn(&mut pb::Publish)| {
        let mut publish = good.clone();
        change(&mut publish);
        wire(pb::message::MessageType::Publish(publish))
    };
    let header = |change: &dyn Fn(&mut pb::SlimHeader)| {
        publish(&|publish| change(publish.header.as_mut().unwrap()))
    };
    let mut twice = publish(&|_| {});
    twice.extend_from_slice(&publish(&|_| {}));
    let mut truncated = publish(&|_| {});
    truncated.truncate(truncated.len() - 1);
    let bad = [
        ("garbage", vec![0xff; 100]),
        ("no kind", Vec::new()),
        ("metadata only", vec![0x22, 0]),
        ("truncated", truncated),
        ("two kinds of one", twice),
        ("no header", publish(&|publish| publish.header = None)),
        ("no session", publish(&|publish| publish.session = None)),
        ("no source", header(&|header| header.source = None)),
        ("no destination", header(&|header| header.destination = None)),
        ("no encoded name", header(&|header| header.destination.as_mut().unwrap().name = None)),
    ];
    for (_, message) in &bad {
        stream.send_bytes(message).await;
    }
    still_works(&mut stream, &mut bob).await;
    node.until(|metrics| metrics.dropped.malformed == bad.len() as u64).await;
}

#[tokio::test]
async fn a_name_needs_no_readable_parts() {
    let node = TestNode::start().await;
    let (mut stream, bob) = start(&node).await;
    let bare = name("bare", 3).without_text();
    stream.send_signed(&Message::Subscribe(subscription(&bare, 5))).await;
    assert_eq!(stream.next().await, Some(Message::SubscriptionAck(ok(5))));
    bob.tell(&name("bare", 3), "hello").await;
    assert_eq!(text(&stream.next().await.unwrap()), "hello");
}

#[tokio::test]
async fn a_wrong_mac_is_dropped_in_silence() {
    let node = TestNode::start().await;
    let (mut stream, mut bob) = start(&node).await;
    let other = RawStream::start(node.addr).await;
    let message = publish(to(&bob.name), "forged");
    // None, one of another link, one of another header.
    stream.send(&message).await;
    stream.send(&other.signed(&message)).await;
    let Message::Publish(mut changed) = stream.signed(&message) else { unreachable!() };
    changed.header.destination = any("bob");
    stream.send(&Message::Publish(changed)).await;
    stream.send(&Message::Subscribe(subscription(&name("bob", 2), 5))).await;
    still_works(&mut stream, &mut bob).await;
    node.until(|metrics| metrics.dropped.bad_mac == 4).await;
    assert_eq!(node.metrics().subscriptions, 2);
}

#[tokio::test]
async fn connection_numbers_of_strangers_are_ignored_and_not_passed_on() {
    let node = TestNode::start().await;
    let (mut stream, mut bob) = start(&node).await;
    let mut carol = Client::start(&node, "carol", 3).await;
    for connection in [0, 1, 2, 3, u64::MAX] {
        // Neither steals what is for others …
        let mut steal = subscription(&name("victim", connection.into()), 5);
        steal.header.recv_from = Some(connection);
        stream.send_signed(&Message::Subscribe(steal)).await;
        assert_eq!(stream.next().await, Some(Message::SubscriptionAck(ok(5))));
        bob.tell(&name("victim", connection.into()), "to who subscribed").await;
        assert_eq!(text(&stream.next().await.unwrap()), "to who subscribed");
        // … nor injects into a link by its number.
        let mut inject = to(&name("nobody", 9));
        inject.forward_to = Some(connection);
        stream.send_signed(&publish(inject, "injected")).await;
        let mut passed = to(&bob.name);
        passed.forward_to = Some(connection);
        passed.recv_from = Some(connection);
        stream.send_signed(&publish(passed, "to bob")).await;
        let Message::Publish(message) = bob.next().await else { panic!("not a publish") };
        assert_eq!((message.header.forward_to, message.header.recv_from), (None, None));
        assert_eq!(text(&Message::Publish(message)), "to bob");
    }
    carol.has_nothing_from(&bob).await;
}

#[tokio::test]
async fn a_message_that_is_too_large_ends_its_link_only() {
    let node = TestNode::start().await;
    for announced in [MAX_MESSAGE_LEN as u32 + 1, u32::MAX] {
        let (mut stream, mut bob) = start(&node).await;
        let mut head = BytesMut::new();
        head.put_u8(0);
        head.put_u32(announced);
        stream.send_data(head.freeze()).await;
        assert_eq!(stream.next_bytes().await, None);
        let carol = Client::connect(&node, "carol", 3).await;
        bob.has_nothing_from(&carol).await;
    }
    node.until(|metrics| metrics.links == 0).await;
}

#[tokio::test]
async fn what_is_not_grpc_ends_its_link_only() {
    let node = TestNode::start().await;
    let (mut stream, mut bob) = start(&node).await;
    // The flag says compressed.
    stream.send_data(Bytes::from_static(&[1, 0, 0, 0, 1, 0])).await;
    assert_eq!(stream.next_bytes().await, None);
    let carol = Client::connect(&node, "carol", 3).await;
    bob.has_nothing_from(&carol).await;
}

#[tokio::test]
async fn what_means_nothing_on_an_established_link_is_ignored() {
    let node = TestNode::start().await;
    let (mut stream, mut bob) = start(&node).await;
    let secret = x25519_dalek::StaticSecret::from([8; 32]);
    let again = stream.request(slim_proto::ConnectionType::Edge, &secret);
    stream.send(&Message::Link(again)).await;
    stream.send(&Message::SubscriptionAck(ok(5))).await;
    stream.send(&Message::SubscriptionAck(refused(6, "no"))).await;
    still_works(&mut stream, &mut bob).await;
    node.until(|metrics| metrics.dropped.unexpected == 3).await;
}

#[tokio::test]
async fn a_link_cannot_fill_the_table() {
    let config = NodeConfig { max_subscriptions_per_link: 3, ..config() };
    let node = TestNode::start_with(config).await;
    let mut mallory = Client::connect(&node, "mallory", 66).await;
    for id in 1..=3 {
        assert_eq!(mallory.subscribe(&name("group", id), 1).await, ok(1));
    }
    let answer = mallory.subscribe(&name("group", 4), 1).await;
    assert_eq!(answer, refused(1, "too many subscriptions: a link may have 3"));
    assert_eq!(mallory.unsubscribe(&name("group", 1), 1).await, ok(1));
    assert_eq!(mallory.subscribe(&name("group", 4), 1).await, ok(1));
    let mut bob = Client::start(&node, "bob", 2).await;
    mallory.tell_all(&bob.name.clone(), "harmless").await;
    assert_eq!(bob.next_text().await, "harmless");
}

#[tokio::test]
async fn a_replayed_frame_stays_on_its_link() {
    let node = TestNode::start().await;
    let (mut stream, mut bob) = start(&node).await;
    let mut carol = RawStream::start(node.addr).await;
    let group = name("group", 9);
    carol.send_signed(&Message::Subscribe(subscription(&group, 5))).await;
    assert_eq!(carol.next().await, Some(Message::SubscriptionAck(ok(5))));
    let header = Header::new(bob.name.clone(), group, BROADCAST);
    bob.send(&publish(header, "once")).await;
    let overheard = carol.next_bytes().await.unwrap();
    stream.send_bytes(&overheard).await;
    carol.send_bytes(&overheard).await;
    still_works(&mut stream, &mut bob).await;
    node.until(|metrics| metrics.dropped.bad_mac == 1 && metrics.dropped.no_subscriber == 1).await;
}
