//! Frames that are not what they should be. The node drops them, or ends their link.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message as _;
use slim_proto::{
    BROADCAST, Body, Header, MAX_MESSAGE_LEN, Message, Name, Publish, SessionId, Subscription,
    SubscriptionAck, UNICAST, pb,
};

use crate::conversation::{Scene, beside_a_conversation, client};
use crate::mallory::{Mallory, channels, data};
use crate::raw::{End, RawStream};

fn wire(kind: pb::message::MessageType) -> Vec<u8> {
    pb::Message { metadata: Default::default(), message_type: Some(kind) }.encode_to_vec()
}

/// As the generated type has it, to leave things out.
fn raw(message: &Message) -> pb::message::MessageType {
    pb::Message::decode(message.encode()).unwrap().message_type.unwrap()
}

/// Data for the channel, with the link's MAC.
fn to_channel(mallory: &mut Mallory, scene: &Scene, text: &str) -> Message {
    let publish = mallory.unsigned(&scene.channel, scene.session, Body::Msg(data(text.to_owned())));
    let mut publish = mallory.sign(publish);
    publish.header.fanout = BROADCAST;
    mallory.link.signed(&Message::Publish(publish))
}

/// So many malformed messages are dropped, and the link is served on.
async fn check_malformed(messages: impl FnOnce(&mut Mallory, &Scene) -> Vec<Vec<u8>>) {
    beside_a_conversation(async |scene| {
        let mut mallory = Mallory::insider(scene).await;
        let messages = messages(&mut mallory, scene);
        for message in &messages {
            mallory.link.send_bytes(message).await;
        }
        mallory.settle().await;
        let dropped = scene.cluster.metrics().dropped;
        assert_eq!(dropped.malformed, messages.len() as u64, "{dropped:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_no_kind() {
    check_malformed(|_, _| vec![Vec::new(), vec![0x22, 0]]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_and_halves() {
    check_malformed(|mallory, scene| {
        let good = to_channel(mallory, scene, "half").encode();
        vec![vec![0xff; 100], good[..good.len() - 1].to_vec(), good[..good.len() / 2].to_vec()]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_without_what_it_needs() {
    check_malformed(|mallory, scene| {
        let pb::message::MessageType::Publish(good) = raw(&to_channel(mallory, scene, "bare"))
        else {
            unreachable!()
        };
        let without = |spoil: &dyn Fn(&mut pb::Publish)| {
            let mut publish = good.clone();
            spoil(&mut publish);
            wire(pb::message::MessageType::Publish(publish))
        };
        let header = |spoil: &dyn Fn(&mut pb::SlimHeader)| {
            without(&|publish| spoil(publish.header.as_mut().unwrap()))
        };
        vec![
            without(&|publish| publish.header = None),
            without(&|publish| publish.session = None),
            header(&|header| header.source = None),
            header(&|header| header.destination = None),
            header(&|header| header.source.as_mut().unwrap().name = None),
            header(&|header| header.destination.as_mut().unwrap().name = None),
        ]
    })
    .await;
}

/// The reference's link dies of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_subscribe_without_readable_names() {
    beside_a_conversation(async |scene| {
        let mut mallory = Mallory::insider(scene).await;
        let bare = mallory.name.without_text();
        mallory.subscribe(&bare).await;
        let (honest, _) = client(&scene.cluster, "honest").await;
        // It reaches her.
        tokio::select! {
            outcome = honest.create_p2p(mallory.name.clone(), Default::default()) => {
                panic!("{outcome:?}")
            }
            (publish, _) = mallory.next_command() => {
                assert_eq!(publish.header.source, *honest.name());
            }
        }
    })
    .await;
}

/// What is spoiled is dropped, counted as a wrong MAC, and nobody gets it.
async fn check_mac(spoil: impl AsyncFn(&Mallory, &Scene, &mut Header)) {
    beside_a_conversation(async |scene| {
        let mut mallory = Mallory::insider(scene).await;
        let mut bystander = Mallory::insider(scene).await;
        bystander.subscribe(&scene.channel).await;
        let Message::Publish(mut publish) = to_channel(&mut mallory, scene, "forged") else {
            unreachable!()
        };
        spoil(&mallory, scene, &mut publish.header).await;
        mallory.link.send(&Message::Publish(publish)).await;
        let header = Header::new(mallory.name.clone(), mallory.name.clone(), UNICAST);
        let mut subscription = Subscription { header, subscription_id: 1 };
        mallory.link.sign(&mut subscription.header);
        spoil(&mallory, scene, &mut subscription.header).await;
        mallory.link.send(&Message::Subscribe(subscription)).await;
        mallory.settle().await;
        assert_eq!(scene.cluster.metrics().dropped.bad_mac, 2);
        // Had it passed, it would be in front of this.
        let good = to_channel(&mut mallory, scene, "true");
        mallory.link.send(&good).await;
        loop {
            let Some(Message::Publish(Publish { header, body: Body::Msg(payload), .. })) =
                bystander.link.next().await
            else {
                panic!("the bystander's link is gone")
            };
            if header.source == mallory.name {
                assert_eq!(&payload.blob[..], b"true");
                break;
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_mac() {
    check_mac(async |_, _, header| header.header_mac = Some(Bytes::from_static(&[7; 32]))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mac_of_another_length() {
    check_mac(async |_, _, header| {
        let mac = header.header_mac.take().unwrap();
        header.header_mac = Some(mac.slice(..31));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stripped_mac() {
    check_mac(async |_, _, header| header.header_mac = None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_mac() {
    check_mac(async |_, _, header| header.header_mac = Some(Bytes::new())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mac_of_another_link() {
    check_mac(async |_, scene, header| {
        RawStream::start(scene.cluster.addr()).await.sign(header);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_that_was_changed_under_its_mac() {
    check_mac(async |_, scene, header| {
        if header.destination == scene.channel {
            header.fanout = UNICAST;
        } else {
            header.destination = scene.name(1);
        }
    })
    .await;
}

/// What `field` does to headers has no effect: names lead where they led, members get
/// nothing that is not theirs, and the field does not travel.
async fn check_connection_field(field: impl Fn(&mut Header, u64)) {
    beside_a_conversation(async |scene| {
        let mut mallory = Mallory::insider(scene).await;
        let mut listener = Mallory::insider(scene).await;
        listener.subscribe(&listener.name.clone()).await;
        for connection in [0, 1, 2, 3, 4, u64::MAX] {
            // She takes a name for somebody else: it is still she who gets it.
            let name = mallory.name.clone();
            let mut header = Header::new(name.clone(), name.clone(), UNICAST);
            field(&mut header, connection);
            let subscription = Subscription { header, subscription_id: 7 };
            mallory.link.send_signed(&Message::Subscribe(subscription)).await;
            let ack = SubscriptionAck { subscription_id: 7, result: Ok(()) };
            assert_eq!(mallory.link.next().await, Some(Message::SubscriptionAck(ack)));
            let body = Body::Msg(data("to her who asked"));
            let publish = listener.unsigned(&name, SessionId(1), body);
            listener.send(publish).await;
            assert!(matches!(mallory.link.next().await, Some(Message::Publish(_))));
            // She takes a name away from a member, on its connection.
            let mut header = Header::new(scene.name(1), scene.name(1), UNICAST);
            field(&mut header, connection);
            let subscription = Subscription { header, subscription_id: 0 };
            mallory.link.send_signed(&Message::Unsubscribe(subscription)).await;
            // She names a connection, and a name that nobody has.
            let nobody = "org/test/nobody".parse::<Name>().unwrap().with_id(name.id());
            let mut publish = mallory.unsigned(&nobody, scene.session, Body::Msg(data("forced")));
            field(&mut publish.header, connection);
            mallory.send(publish).await;
            // What is delivered is delivered by name, and bare.
            let to = listener.name.clone();
            let mut publish = mallory.unsigned(&to, scene.session, Body::Msg(data("by name")));
            field(&mut publish.header, connection);
            mallory.send(publish).await;
            let Some(Message::Publish(got)) = listener.link.next().await else {
                panic!("nothing came")
            };
            let Body::Msg(payload) = &got.body else { panic!("{got:?}") };
            assert_eq!(&payload.blob[..], b"by name");
            assert_eq!((got.header.recv_from, got.header.forward_to), (None, None));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn recv_from_of_a_stranger() {
    check_connection_field(|header, connection| header.recv_from = Some(connection)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forward_to_of_a_stranger() {
    check_connection_field(|header, connection| header.forward_to = Some(connection)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn incoming_conn_of_a_stranger() {
    check_connection_field(|header, connection| header.incoming_conn = Some(connection)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_connection_fields_in_commands_of_a_stranger() {
    beside_a_conversation(async |scene| {
        let mut mallory = Mallory::member(scene, 2).await;
        for connection in [0, 1, 2, 3, 4, u64::MAX] {
            let close = slim_proto::Command::GroupClose { participants: vec![] };
            let mut publish = mallory.command(&scene.name(1), scene.session, close);
            publish.header.recv_from = Some(connection);
            publish.header.forward_to = Some(connection);
            publish.header.incoming_conn = Some(connection);
            mallory.send_to_all(scene, &publish).await;
        }
        mallory.settle().await;
    })
    .await;
}

/// 4 MiB pass, one byte more ends the sender's link.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_4_mib_and_one_byte() {
    beside_a_conversation(async |scene| {
        let mut mallory = Mallory::insider(scene).await;
        let mut listener = Mallory::insider(scene).await;
        listener.subscribe(&listener.name.clone()).await;
        let sized = |mallory: &mut Mallory, blob: usize| {
            let body = Body::Msg(data(vec![7; blob]));
            let publish = mallory.unsigned(&listener.name.clone(), SessionId(1), body);
            mallory.link.signed(&Message::Publish(publish)).encode()
        };
        let overhead = sized(&mut mallory, MAX_MESSAGE_LEN / 2).len() - MAX_MESSAGE_LEN / 2;
        let largest = sized(&mut mallory, MAX_MESSAGE_LEN - overhead);
        assert_eq!(largest.len(), MAX_MESSAGE_LEN);
        mallory.link.send_bytes(&largest).await;
        assert_eq!(listener.link.next_bytes().await.unwrap().len(), MAX_MESSAGE_LEN);
        let too_large = sized(&mut mallory, MAX_MESSAGE_LEN - overhead + 1);
        mallory.link.send_bytes(&too_large).await;
        assert_eq!(mallory.link.end().await, End::Status("0".to_owned()));
        // Nor is one announced and never sent.
        let mut mallory = Mallory::insider(scene).await;
        let mut head = BytesMut::new();
        head.put_u8(0);
        head.put_u32(u32::MAX);
        mallory.link.send_data(head.freeze()).await;
        assert_eq!(mallory.link.end().await, End::Status("0".to_owned()));
    })
    .await;
}

/// Everything that went over the channel comes again: as it was, with a right MAC, to
/// the channel and to each member, twice.
#[tokio::test(flavor = "multi_thread")]
async fn replayed_frames() {
    beside_a_conversation(async |scene| {
        let mut ear = Mallory::insider(scene).await;
        for name in channels(scene) {
            ear.subscribe(&name).await;
        }
        // Commands, too: somebody comes and goes.
        scene.somebody_comes_and_goes().await;
        let (mut overheard, mut commands) = (Vec::new(), 0);
        while commands < 2 || overheard.len() < 50 {
            let bytes = ear.link.next_bytes().await.unwrap();
            if let Message::Publish(publish) = Message::decode(bytes.clone()).unwrap() {
                commands += usize::from(matches!(publish.body, Body::Command(_)));
                overheard.push((bytes, publish));
            }
        }
        let mut mallory = Mallory::insider(scene).await;
        for (bytes, publish) in overheard.iter().chain(&overheard) {
            mallory.link.send_bytes(bytes).await;
            mallory.send_to_all(scene, publish).await;
        }
        mallory.settle().await;
        assert_eq!(scene.cluster.metrics().dropped.bad_mac, 2 * overheard.len() as u64);
    })
    .await;
}
