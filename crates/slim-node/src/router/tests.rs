use std::collections::BTreeMap;

use bytes::Bytes;
use slim_proto::{
    AppPayload, BROADCAST, Body, Header, LinkNegotiation, MAX_MESSAGE_LEN, Message, Name, NameId,
    Publish, SessionId, SessionType, Subscription,
};

use super::*;
use crate::peers::PeerKey;

impl Target for &'static str {
    fn peer(&self) -> Option<PeerKey> {
        None
    }

    fn is_usable(&self) -> bool {
        true
    }

    fn tell(&self, _: &Message) -> bool {
        unreachable!("it is no peer")
    }

    fn wake(&self) {}
}

/// Two links; the first sends, `from` is its routes.
struct Net {
    table: Arc<RouteTable<&'static str>>,
    from: LinkRoutes<&'static str>,
    other: LinkRoutes<&'static str>,
}

fn net() -> Net {
    let table = Arc::new(RouteTable::new());
    let attach = |link| table.attach(Arc::new(link), 2);
    let (from, other) = (attach("from"), attach("other"));
    Net { table, from, other }
}

impl Net {
    /// What becomes of a message: the answer, and where it goes.
    fn route(
        &mut self,
        message: &Message,
    ) -> Result<(Option<SubscriptionAck>, Vec<&str>), Counter> {
        let frame = Frame::parse(message.encode()).unwrap();
        let mut targets = Vec::new();
        let routed = route(&frame, &self.table, None, &mut self.from, &mut targets)?;
        let answer = match routed {
            Routed::Answer(ack) => Some(ack),
            Routed::Done | Routed::Forward(..) => None,
        };
        Ok((answer, targets.iter().map(|link| **link).collect()))
    }
}

fn name(text: &str, id: u128) -> Name {
    text.parse::<Name>().unwrap().with_id(NameId(id))
}

fn header(destination: &Name, fanout: u32) -> Header {
    Header::new(name("org/ns/sender", 1), destination.clone(), fanout)
}

fn subscription(destination: &Name, subscription_id: u64) -> Subscription {
    Subscription { header: header(destination, 1), subscription_id }
}

fn publish(header: Header) -> Message {
    Message::Publish(Publish {
        header,
        session_type: SessionType::Multicast,
        session_id: SessionId(1),
        message_id: 1,
        body: Body::Msg(AppPayload::default()),
        metadata: BTreeMap::new(),
    })
}

fn ok(subscription_id: u64) -> SubscriptionAck {
    SubscriptionAck { subscription_id, result: Ok(()) }
}

fn refused(subscription_id: u64, reason: &str) -> SubscriptionAck {
    SubscriptionAck { subscription_id, result: Err(reason.to_owned()) }
}

#[test]
fn a_subscription_with_an_id_is_answered() {
    let mut net = net();
    let bob = name("org/ns/bob", 7);
    let subscribe = Message::Subscribe(subscription(&bob, 5));
    assert_eq!(net.route(&subscribe).unwrap(), (Some(ok(5)), vec![]));
    assert_eq!(net.table.subscriptions(), 1, "before the ack is sent");
    assert_eq!(net.route(&subscribe).unwrap(), (Some(ok(5)), vec![]), "again when repeated");
    let unsubscribe = Message::Unsubscribe(subscription(&bob, 5));
    assert_eq!(net.route(&unsubscribe).unwrap(), (Some(ok(5)), vec![]));
    assert_eq!(net.table.subscriptions(), 0);
    let (answer, _) = net.route(&unsubscribe).unwrap();
    assert_eq!(answer, Some(refused(5, "subscription not found")));
}

#[test]
fn one_without_an_id_is_not() {
    let mut net = net();
    let bob = name("org/ns/bob", 7);
    assert_eq!(net.route(&Message::Subscribe(subscription(&bob, 0))).unwrap(), (None, vec![]));
    assert_eq!(net.table.subscriptions(), 1);
    let unknown = Message::Unsubscribe(subscription(&name("org/ns/eve", 7), 0));
    let dropped = net.route(&unknown).unwrap_err();
    assert_eq!(dropped, Counter::RefusedSubscriptions, "not even if it fails");
}

#[test]
fn too_many_subscriptions_are_refused() {
    let mut net = net();
    for id in 1..=2 {
        net.route(&Message::Subscribe(subscription(&name("org/ns/bob", 7), id))).unwrap();
    }
    let third = Message::Subscribe(subscription(&name("org/ns/bob", 7), 3));
    let (answer, _) = net.route(&third).unwrap();
    assert_eq!(answer, Some(refused(3, "too many subscriptions: a link may have 2")));
}

#[test]
fn the_last_hop_is_the_one_before_zero() {
    let mut net = net();
    let bob = name("org/ns/bob", 7);
    net.other.subscribe(&bob.route(), 1).unwrap();
    let check = |net: &mut Net, ttl, expected| {
        let mut header = header(&bob, 1);
        header.ttl = ttl;
        let subscription = Subscription { header: header.clone(), subscription_id: 9 };
        let messages = [
            publish(header),
            Message::Subscribe(subscription.clone()),
            Message::Unsubscribe(subscription),
        ];
        for message in messages {
            assert_eq!(net.route(&message).err(), expected, "ttl {ttl}: {message:?}");
        }
    };
    check(&mut net, 0, Some(Counter::TtlExpired));
    check(&mut net, 1, Some(Counter::TtlExpired));
    check(&mut net, 2, None);
}

#[test]
fn fanout_is_one_or_all() {
    let mut net = net();
    let bob = name("org/ns/bob", 7);
    let mut third = net.table.attach(Arc::new("third"), 1);
    third.subscribe(&bob.route(), 1).unwrap();
    net.other.subscribe(&bob.route(), 1).unwrap();
    for (fanout, expected) in [(1, 1), (0, 2), (2, 2), (BROADCAST, 2)] {
        let (answer, targets) = net.route(&publish(header(&bob, fanout))).unwrap();
        assert_eq!((answer, targets.len()), (None, expected), "fanout {fanout}");
    }
}

#[test]
fn what_nobody_else_wants_is_dropped_in_silence() {
    let mut net = net();
    let bob = name("org/ns/bob", 7);
    let unroutable = Err(Counter::NoSubscriber);
    assert_eq!(net.route(&publish(header(&bob, 1))), unroutable);
    net.from.subscribe(&bob.route(), 1).unwrap();
    assert_eq!(net.route(&publish(header(&bob, 1))), unroutable);
    assert_eq!(net.route(&publish(header(&bob, BROADCAST))), unroutable);
}

#[test]
fn connection_numbers_from_elsewhere_mean_nothing() {
    let mut net = net();
    let bob = name("org/ns/bob", 7);
    net.other.subscribe(&bob.route(), 1).unwrap();
    let mut header = header(&bob, 1);
    header.recv_from = Some(2);
    header.forward_to = Some(77);
    assert_eq!(net.route(&publish(header.clone())).unwrap(), (None, vec!["other"]));
    let subscribe = Message::Subscribe(Subscription { header, subscription_id: 5 });
    assert_eq!(net.route(&subscribe).unwrap(), (Some(ok(5)), vec![]));
    let mut targets = Vec::new();
    net.table.all(&bob.route(), net.other.link(), &mut targets);
    assert_eq!(targets.iter().map(|link| **link).collect::<Vec<_>>(), ["from"]);
}

#[test]
fn what_grows_too_large_with_a_mac_is_dropped() {
    let mut net = net();
    let bob = name("org/ns/bob", 7);
    net.other.subscribe(&bob.route(), 1).unwrap();
    let with_blob = |len: usize| {
        let Message::Publish(mut message) = publish(header(&bob, 1)) else { unreachable!() };
        let blob = Bytes::from(vec![0; len]);
        message.body = Body::Msg(AppPayload { payload_type: String::new(), blob });
        Message::Publish(message)
    };
    let rest = with_blob(MAX_MESSAGE_LEN - 200).encode().len() - (MAX_MESSAGE_LEN - 200);
    let largest = MAX_MESSAGE_LEN - rest;
    assert_eq!(with_blob(largest).encode().len(), MAX_MESSAGE_LEN);
    assert_eq!(net.route(&with_blob(largest)), Err(Counter::TooLarge));
    assert_eq!(net.route(&with_blob(largest - 40)), Ok((None, vec!["other"])));
}

#[test]
fn a_second_negotiation_and_an_unasked_ack_are_ignored() {
    let mut net = net();
    assert_eq!(net.route(&Message::SubscriptionAck(ok(5))), Err(Counter::Unexpected));
    let negotiation = LinkNegotiation {
        link_id: "link".to_owned(),
        slim_version: "3.4.6".to_owned(),
        is_reply: false,
        ecdh_public_key: Bytes::new(),
        connection_type: slim_proto::ConnectionType::Edge,
        node_id: String::new(),
        deployment_name: String::new(),
        kem_payload: None,
    };
    assert_eq!(net.route(&Message::Link(negotiation)), Err(Counter::Unexpected));
}
