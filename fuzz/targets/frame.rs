//! Any frame that a node takes, as it passes it on: one hop less, its own MAC, and
//! not a byte of the rest changed.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use prost::Message as _;
use slim_proto::{Frame, Outgoing, RoutedFrame, Undeliverable, pb};

const MAC: [u8; 32] = [0xa5; 32];

fuzz_target!(|data: &[u8]| {
    let bytes = Bytes::copy_from_slice(data);
    let Ok(frame) = Frame::parse(bytes.clone()) else { return };
    let Some(frame) = frame.routed() else { return };
    let arrived = pb::Message::decode(bytes).expect("what a node takes decodes");
    let ttl = frame.header().ttl;
    match frame.forward() {
        Ok(outgoing) => check(frame, &outgoing, &arrived, ttl - 1),
        Err(error) => assert!(ttl <= 1 && error == Undeliverable::TtlExpired),
    }
    check(frame, &frame.originate().expect("it is small"), &arrived, ttl);
});

fn check(frame: &RoutedFrame, outgoing: &Outgoing<'_>, arrived: &pb::Message, ttl: u32) {
    let mut bytes = Vec::new();
    outgoing.write_head(&MAC, &mut bytes);
    bytes.extend_from_slice(outgoing.tail());
    assert_eq!(bytes.len(), outgoing.len());
    check_bytes(frame, &bytes, outgoing, arrived, ttl, Some(&MAC));

    let (head, tail) = outgoing.without_mac();
    check_bytes(frame, &[&head, &tail[..]].concat(), outgoing, arrived, ttl, None);
}

fn check_bytes(
    frame: &RoutedFrame,
    bytes: &[u8],
    outgoing: &Outgoing<'_>,
    arrived: &pb::Message,
    ttl: u32,
    mac: Option<&[u8]>,
) {
    let mut expected = arrived.clone();
    let header = header_of(&mut expected);
    header.ttl = ttl;
    header.recv_from = None;
    header.forward_to = None;
    header.header_mac = mac.map(Bytes::copy_from_slice);
    assert_eq!(pb::Message::decode(bytes), Ok(expected));

    // The next node takes it, and computes the MAC over what this one did.
    let next = Frame::parse(Bytes::copy_from_slice(bytes)).expect("the next node takes it");
    let next = next.routed().expect("it still has its header");
    assert_eq!(next.mac(), mac);
    assert_eq!(next.header().destination, frame.header().destination);
    assert_eq!(next.subscription_id(), frame.subscription_id());
    let mut covered = Vec::new();
    next.put_mac_body(&mut covered);
    assert_eq!(covered, outgoing.mac_body());

    // Passing on what was passed on changes the hops alone.
    if mac.is_some() && ttl > 1 {
        let again = next.forward().expect("it has hops left");
        assert_eq!(again.tail().len(), outgoing.tail().len());
    }
}

fn header_of(message: &mut pb::Message) -> &mut pb::SlimHeader {
    use pb::message::MessageType::{Publish, Subscribe, Unsubscribe};
    match message.message_type.as_mut() {
        Some(Publish(publish)) => publish.header.as_mut(),
        Some(Subscribe(subscribe)) => subscribe.header.as_mut(),
        Some(Unsubscribe(unsubscribe)) => unsubscribe.header.as_mut(),
        _ => None,
    }
    .expect("a routed frame has a header")
}
