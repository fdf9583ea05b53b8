//! A frame reads the same header as the decoder, and forwarding changes what
//! forwarding may change and nothing else.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod messages;

use bytes::Bytes;
use messages::any_message;
use proptest::{collection, prelude::*, sample::Index};
use prost::Message as _;
use slim_proto::{
    AppPayload, Body, Frame, FrameError, Header, LastHeader, MAX_MESSAGE_LEN, Message, Name,
    NameId, Outgoing, Publish, RoutedFrame, SessionId, SessionType, Subscription, Undeliverable,
    canonical, pb,
};

const MAC: [u8; 32] = [0xA5; 32];

// ---------------------------------------------------------------- helpers

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// A header as it arrives from a link that has a key.
fn header() -> Header {
    Header {
        identity: "token".to_owned(),
        incoming_conn: Some(3),
        header_mac: Some(Bytes::from_static(&[1; 32])),
        e2e_header_sig: Some(Bytes::from_static(b"signature")),
        ..Header::new(name("acme/demo/alice").with_id(NameId(7)), name("acme/demo/bob"), 256)
    }
}

fn publish(header: Header, blob: Bytes) -> Message {
    Message::Publish(Publish {
        header,
        session_type: SessionType::Multicast,
        session_id: SessionId(3),
        message_id: 4,
        body: Body::Msg(AppPayload { payload_type: "msg".to_owned(), blob }),
        metadata: [("key".to_owned(), "value".to_owned())].into(),
    })
}

fn typical() -> Message {
    publish(header(), Bytes::from_static(b"payload"))
}

fn subscribe(header: Header) -> Message {
    Message::Subscribe(Subscription { header, subscription_id: 9 })
}

fn header_of(message: &Message) -> Option<&Header> {
    match message {
        Message::Publish(publish) => Some(&publish.header),
        Message::Subscribe(subscription) | Message::Unsubscribe(subscription) => {
            Some(&subscription.header)
        }
        Message::Link(_) | Message::SubscriptionAck(_) => None,
    }
}

fn header_mut(message: &mut Message) -> &mut Header {
    match message {
        Message::Publish(publish) => &mut publish.header,
        Message::Subscribe(subscription) | Message::Unsubscribe(subscription) => {
            &mut subscription.header
        }
        Message::Link(_) | Message::SubscriptionAck(_) => panic!("no header: {message:?}"),
    }
}

/// What the message is after a hop, on a link with a key or without.
fn hop(message: &Message, ttl: u32, mac: Option<[u8; 32]>) -> Message {
    let mut message = message.clone();
    let header = header_mut(&mut message);
    header.ttl = ttl;
    header.recv_from = None;
    header.forward_to = None;
    header.header_mac = mac.map(|mac| Bytes::copy_from_slice(&mac));
    message
}

fn parse(message: &Message) -> Frame {
    Frame::parse(message.encode()).unwrap()
}

fn routed(frame: &Frame) -> &RoutedFrame {
    frame.routed().unwrap()
}

fn signed(outgoing: &Outgoing<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    outgoing.write_head(&MAC, &mut out);
    out.extend_from_slice(outgoing.tail());
    out
}

/// Key and payload of a length-delimited field.
fn field(number: u32, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    prost::encoding::encode_key(number, prost::encoding::WireType::LengthDelimited, &mut out);
    prost::encoding::encode_varint(body.len() as u64, &mut out);
    out.extend_from_slice(body);
    out
}

fn varint(number: u32, value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    prost::encoding::encode_key(number, prost::encoding::WireType::Varint, &mut out);
    prost::encoding::encode_varint(value, &mut out);
    out
}

fn encoded_name(text: &str) -> Vec<u8> {
    pb::Name::from(&name(text)).encode_to_vec()
}

/// A frame of this kind with this header and this behind it.
fn by_hand(kind: u32, header: &[u8], rest: &[u8]) -> Vec<u8> {
    field(kind, &[&field(1, header), rest].concat())
}

fn minimal_header() -> Vec<u8> {
    [field(1, &encoded_name("a/b/c")), field(2, &encoded_name("d/e/f")), varint(6, 8)].concat()
}

fn check_refused(bytes: Vec<u8>, error: FrameError) {
    assert_eq!(Frame::parse(bytes.into()).unwrap_err(), error);
}

// ---------------------------------------------------------------- forwarding

#[test]
fn a_typical_frame_is_patched_in_two_places() {
    let message = typical();
    let before = message.encode();
    let frame = parse(&message);
    let outgoing = routed(&frame).forward().unwrap();
    let after = signed(&outgoing);

    assert_eq!(after.len(), before.len());
    assert_eq!(outgoing.len(), before.len());
    let changed: Vec<u8> =
        (0..before.len()).filter(|&i| before[i] != after[i]).map(|i| before[i]).collect();
    assert_eq!(changed, [&[8][..], &[1; 32]].concat());
}

#[test]
fn the_payload_is_shared() {
    let blob = Bytes::from(vec![0x5A; 100_000]);
    let message = publish(header(), blob);
    let frame = parse(&message);
    let outgoing = routed(&frame).forward().unwrap();
    let tail = outgoing.tail();
    assert!(tail.len() > 100_000 && tail.len() < 100_100);
    let range = frame.bytes().as_ptr_range();
    assert!(range.contains(&tail.as_ptr()));
}

#[test]
fn the_last_hop_is_not_forwarded() {
    for ttl in [0, 1] {
        let frame = parse(&publish(Header { ttl, ..header() }, Bytes::new()));
        let refused = routed(&frame).forward().unwrap_err();
        assert_eq!(refused, Undeliverable::TtlExpired);
    }
}

#[test]
fn what_a_mac_makes_too_long_is_not_forwarded() {
    let with_blob = |len| {
        let header = Header { header_mac: None, ..header() };
        publish(header, vec![0; len].into())
    };
    let room = MAX_MESSAGE_LEN - with_blob(4_000_000).encoded_len();
    let frame = parse(&with_blob(4_000_000 + room));
    assert_eq!(frame.bytes().len(), MAX_MESSAGE_LEN);
    let refused = routed(&frame).forward().unwrap_err();
    assert_eq!(refused, Undeliverable::TooLarge(MAX_MESSAGE_LEN + 34));
    // And one that just fits.
    let frame = parse(&with_blob(4_000_000 + room - 34));
    assert_eq!(routed(&frame).forward().unwrap().len(), MAX_MESSAGE_LEN);
}

/// Whatever keeps a frame from being patched, the result is the same message.
fn check_forwarded(message: &Message) {
    let frame = parse(message);
    let outgoing = routed(&frame).forward().unwrap();
    let ttl = header_of(message).unwrap().ttl - 1;
    let expected = hop(message, ttl, Some(MAC));
    assert_eq!(Message::decode(signed(&outgoing).into()), Ok(expected));
}

#[test]
fn frames_that_cannot_be_patched_are_rebuilt() {
    let spoilers: [fn(&mut Header); 6] = [
        |header| header.ttl = 128,
        |header| header.ttl = u32::MAX,
        |header| header.recv_from = Some(1),
        |header| header.forward_to = Some(1 << 40),
        |header| header.header_mac = None,
        |header| header.header_mac = Some(Bytes::from_static(b"short")),
    ];
    for spoil in spoilers {
        let mut header = header();
        spoil(&mut header);
        check_forwarded(&publish(header.clone(), Bytes::from_static(b"payload")));
        check_forwarded(&subscribe(header));
    }
}

#[test]
fn fields_may_come_in_any_order() {
    // MAC before ttl, session before header, metadata before the kind.
    let header = [
        field(11, &[1; 32]),
        varint(6, 8),
        field(2, &encoded_name("d/e/f")),
        field(1, &encoded_name("a/b/c")),
    ]
    .concat();
    let kind = [field(2, &varint(3, 77)), field(1, &header)].concat();
    let entry = [field(1, b"k"), field(2, b"v")].concat();
    let bytes = [field(4, &entry), field(3, &kind)].concat();

    let frame = Frame::parse(bytes.clone().into()).unwrap();
    let after = signed(&routed(&frame).forward().unwrap());
    let mut expected = pb::Message::decode(&bytes[..]).unwrap();
    let Some(pb::message::MessageType::Publish(publish)) = &mut expected.message_type else {
        panic!("not a publish");
    };
    let header = publish.header.as_mut().unwrap();
    header.ttl = 7;
    header.header_mac = Some(Bytes::copy_from_slice(&MAC));
    assert_eq!(pb::Message::decode(&after[..]).unwrap(), expected);
}

#[test]
fn unknown_fields_travel_on() {
    // In the header, in the kind, in the message; with a MAC (patched) and without.
    for mac in [field(11, &[1; 32]), Vec::new()] {
        let header = [minimal_header(), mac, field(90, b"in header")].concat();
        let rest = [field(2, b""), field(91, b"in publish")].concat();
        let bytes = [by_hand(3, &header, &rest), field(92, b"in message")].concat();
        let frame = Frame::parse(bytes.into()).unwrap();
        let after = signed(&routed(&frame).forward().unwrap());
        for unknown in [&b"in header"[..], b"in publish", b"in message"] {
            let found = after.windows(unknown.len()).filter(|w| w == &unknown);
            assert_eq!(found.count(), 1);
        }
        assert_eq!(routed(&Frame::parse(after.into()).unwrap()).mac(), Some(&MAC[..]));
    }
}

// ---------------------------------------------------------------- refusals

#[test]
fn a_field_that_counts_occurs_once() {
    let check = |bytes, field| check_refused(bytes, FrameError::Duplicate(field));
    let session = field(2, b"");
    let good = by_hand(3, &minimal_header(), &session);
    Frame::parse(good.clone().into()).unwrap();

    check([&good[..], &good].concat(), "message_type");
    check([&good[..], &field(6, b"")].concat(), "message_type");
    let twice = [&field(1, &minimal_header())[..], &session].concat();
    check(by_hand(3, &minimal_header(), &twice), "header");
    check(by_hand(3, &minimal_header(), &[&session[..], &session].concat()), "session");
    check(by_hand(1, &minimal_header(), &[varint(2, 1), varint(2, 1)].concat()), "subscription_id");

    for (extra, which) in [
        (field(1, &encoded_name("x/y/z")), "source"),
        (field(2, &encoded_name("x/y/z")), "destination"),
        (varint(6, 8), "ttl"),
    ] {
        check(by_hand(3, &[minimal_header(), extra].concat(), &session), which);
    }
    for (extra, which) in [
        (field(3, b"token"), "identity"),
        (varint(4, 1), "fanout"),
        (varint(7, 1), "recv_from"),
        (varint(8, 1), "forward_to"),
        (varint(10, 1), "error"),
        (field(11, &MAC), "header_mac"),
    ] {
        let header = [minimal_header(), extra.clone(), extra].concat();
        check(by_hand(3, &header, &session), which);
    }
    // Within a name: encoded part, text, component, id, half of an id, readable part.
    let id = field(4, &varint(1, 1));
    for source in [
        [field(1, b""), field(1, b"")].concat(),
        [field(1, b""), field(2, b""), field(2, b"")].concat(),
        field(1, &[varint(3, 1), varint(3, 1)].concat()),
        field(1, &[&id[..], &id].concat()),
        field(1, &field(4, &[varint(2, 1), varint(2, 1)].concat())),
        [field(1, b""), field(2, &[field(1, b"a"), field(1, b"a")].concat())].concat(),
    ] {
        let header = [field(1, &source), field(2, &encoded_name("d/e/f"))].concat();
        check(by_hand(3, &header, &session), "source");
    }
}

#[test]
fn what_routing_needs_has_to_be_there() {
    let check = |bytes, field| check_refused(bytes, FrameError::Missing(field));
    let (source, destination) =
        (field(1, &encoded_name("a/b/c")), field(2, &encoded_name("d/e/f")));
    for kind in 1..=3 {
        check(field(kind, b""), if kind == 3 { "session" } else { "header" });
        let rest = if kind == 3 { field(2, b"") } else { Vec::new() };
        check(by_hand(kind, &destination, &rest), "source");
        check(by_hand(kind, &source, &rest), "destination");
        let text_only = field(1, &field(2, b""));
        check(by_hand(kind, &[text_only, destination.clone()].concat(), &rest), "source");
    }
    check(by_hand(3, &minimal_header(), b""), "session");
    check_refused(Vec::new(), FrameError::NoKind);
    check_refused(field(9, b"unknown"), FrameError::NoKind);
}

#[test]
fn wrong_wire_types_and_text_that_is_none_are_refused() {
    let check = |bytes, what| check_refused(bytes, FrameError::Malformed(what));
    let session = field(2, b"");
    for wrong in [field(4, b""), field(6, b""), field(7, b""), varint(3, 1), varint(11, 1)] {
        let header =
            [field(1, &encoded_name("a/b/c")), field(2, &encoded_name("d/e/f")), wrong].concat();
        check(by_hand(3, &header, &session), "wrong wire type");
    }
    check(varint(3, 1), "wrong wire type");
    check(by_hand(3, &minimal_header(), &varint(2, 1)), "wrong wire type");

    let not_text = b"\xff\xfe";
    let content = |body: &[u8]| [&session[..], &field(3, body)].concat();
    for rest in [
        // The payload's type; a roster's name in a welcome.
        content(&field(1, &field(1, not_text))),
        content(&field(2, &field(8, &field(1, &field(1, &field(2, &field(1, not_text))))))),
    ] {
        check(by_hand(3, &minimal_header(), &rest), "text is not UTF-8");
    }
    let entry = field(4, &field(1, not_text));
    let metadata = [by_hand(3, &minimal_header(), &session), entry].concat();
    check(metadata, "text is not UTF-8");
    for text in [field(3, not_text), field(5, not_text)] {
        let header = [minimal_header(), text].concat();
        check(by_hand(3, &header, &session), "text is not UTF-8");
    }
}

#[test]
fn broken_encodings_are_refused() {
    let check = |bytes: &[u8], what| check_refused(bytes.to_vec(), FrameError::Malformed(what));
    check(&[0x00], "field number 0");
    check(&[0x80], "truncated integer");
    check(&[0x1a], "truncated integer");
    check(&[0x1a, 5, 0], "truncated field");
    check(&[0xff; 10], "integer out of range");
    check(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x02], "integer out of range");
    check(&[0x80, 0x80, 0x80, 0x80, 0x10, 0], "field key out of range");
    // A group, in both halves, and two types that do not exist.
    for wire_type in [3, 4, 6, 7] {
        check(&[9 << 3 | wire_type], "unknown wire type");
    }
    // A length beyond any memory.
    check(&[0x1a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], "truncated field");
    check_refused(vec![0; MAX_MESSAGE_LEN + 1], FrameError::Malformed("longer than any message"));
}

#[test]
fn a_truncated_frame_is_refused_wherever_it_ends() {
    for message in [typical(), subscribe(header())] {
        let bytes = message.encode();
        for end in 0..bytes.len() {
            // Without its metadata, a publish is complete.
            let cut = Frame::parse(bytes.slice(..end));
            let whole = Message::decode(bytes.slice(..end));
            assert_eq!(cut.is_ok(), whole.is_ok(), "cut at {end}");
        }
    }
}

#[test]
fn a_header_repeats_if_all_of_it_is_the_same() {
    let mut last = LastHeader::default();
    let mut repeats = |header: Header, len: usize| {
        let bytes = publish(header, vec![0; len].into()).encode();
        routed(&Frame::parse_after(bytes, &mut last).unwrap()).repeats()
    };
    let forged = Header { header_mac: Some(Bytes::from_static(&[2; 32])), ..header() };
    let long = Header { identity: "t".repeat(5000), ..header() };
    assert!(!repeats(header(), 10));
    assert!(repeats(header(), 10));
    assert!(repeats(header(), 20));
    assert!(!repeats(forged.clone(), 10));
    assert!(repeats(forged, 10));
    assert!(!repeats(header(), 10));
    // Too long to be kept, and what was before it is not kept either.
    assert!(!repeats(long.clone(), 10));
    assert!(!repeats(long, 10));
    assert!(!repeats(header(), 10));
}

#[test]
fn debug_shows_no_token_and_no_payload() {
    let blob = Bytes::from_static(b"the payload");
    let frame = parse(&publish(header(), blob));
    let outgoing = routed(&frame).forward().unwrap();
    let shown = format!("{frame:?} {outgoing:?}");
    assert!(!shown.contains("token") && !shown.contains("payload"), "{shown}");
}

// ---------------------------------------------------------------- properties

/// Mostly what a node forwards, sometimes anything.
fn any_arrival() -> impl Strategy<Value = Message> {
    (any_message(), any::<Option<u8>>()).prop_map(|(mut message, ttl)| {
        if let (Some(ttl), Some(_)) = (ttl, header_of(&message)) {
            let header = header_mut(&mut message);
            header.ttl = u32::from(ttl % 16);
            header.header_mac = Some(Bytes::from_static(&[1; 32]));
            if ttl % 4 != 0 {
                header.recv_from = None;
                header.forward_to = None;
            }
        }
        message
    })
}

/// Bytes that are nearly right: changed, inserted and removed in a few places.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let damage = (any::<Index>(), any::<u8>(), 0..3_u8);
    (any_arrival(), collection::vec(damage, 1..4)).prop_map(|(message, damage)| {
        let mut bytes = message.encode().to_vec();
        for (index, value, how) in damage {
            let at = index.index(bytes.len().max(1));
            match how {
                0 if at < bytes.len() => bytes[at] = value,
                1 if at < bytes.len() => drop(bytes.remove(at)),
                _ => bytes.insert(at, value),
            }
        }
        bytes
    })
}

fn pb_header(message: &mut pb::Message) -> Option<&mut pb::SlimHeader> {
    use pb::message::MessageType::{Publish, Subscribe, Unsubscribe};
    match message.message_type.as_mut()? {
        Publish(publish) => publish.header.as_mut(),
        Subscribe(subscribe) => subscribe.header.as_mut(),
        Unsubscribe(unsubscribe) => unsubscribe.header.as_mut(),
        _ => None,
    }
}

proptest! {
    #[test]
    fn a_frame_reads_the_metadata_that_is_decoded(bytes in damaged()) {
        let bytes = Bytes::from(bytes);
        if let (Ok(frame), Ok(message)) = (Frame::parse(bytes.clone()), Message::decode(bytes))
            && let (Some(frame), Message::Publish(publish)) = (frame.routed(), message)
        {
            for (key, value) in &publish.metadata {
                prop_assert_eq!(frame.metadata(key), Some(&**value), "{}", key);
            }
            prop_assert_eq!(frame.metadata("none of these keys"), None);
        }
    }

    #[test]
    fn a_frame_reads_the_header_that_is_decoded(message in any_arrival()) {
        let frame = parse(&message);
        prop_assert_eq!(frame.routed().is_some(), header_of(&message).is_some());
        if let (Some(frame), Some(header)) = (frame.routed(), header_of(&message)) {
            let view = frame.header();
            prop_assert_eq!(view.source, header.source.route());
            prop_assert_eq!(view.destination, header.destination.route());
            prop_assert_eq!((view.fanout, view.ttl), (header.fanout, header.ttl));
            prop_assert_eq!(view.recv_from, header.recv_from);
            prop_assert_eq!(view.forward_to, header.forward_to);
            let mac = header.header_mac.as_deref().filter(|mac| !mac.is_empty());
            prop_assert_eq!(frame.mac(), mac);
            let id = match &message {
                Message::Subscribe(s) | Message::Unsubscribe(s) => s.subscription_id,
                _ => 0,
            };
            prop_assert_eq!(frame.subscription_id(), id);
        }
    }

    #[test]
    fn both_readings_give_the_same_mac_input(message in any_arrival(), link_id in ".{0,40}") {
        let frame = parse(&message);
        if let (Some(frame), Some(header)) = (frame.routed(), header_of(&message)) {
            let mut body = canonical::mac_prefix(&link_id);
            frame.put_mac_body(&mut body);
            prop_assert_eq!(body, canonical::mac_preimage(&link_id, header));
        }
    }

    #[test]
    fn forwarding_is_decoding_changing_and_encoding(message in any_arrival(), link_id in ".{0,40}") {
        let frame = parse(&message);
        if let (Some(frame), Some(header)) = (frame.routed(), header_of(&message)) {
            let outgoing = match frame.forward() {
                Ok(outgoing) => outgoing,
                Err(error) => {
                    prop_assert_eq!(error, Undeliverable::TtlExpired);
                    prop_assert!(header.ttl < 2);
                    return Ok(());
                }
            };
            let expected = hop(&message, header.ttl - 1, Some(MAC));
            let bytes = signed(&outgoing);
            prop_assert_eq!(bytes.len(), outgoing.len());
            prop_assert_eq!(Message::decode(bytes.into()), Ok(expected.clone()));
            let preimage = [&canonical::mac_prefix(&link_id), outgoing.mac_body()].concat();
            let expected = canonical::mac_preimage(&link_id, header_of(&expected).unwrap());
            prop_assert_eq!(preimage, expected);

            let (head, tail) = outgoing.without_mac();
            let unsigned = Message::decode([&head[..], &tail].concat().into());
            prop_assert_eq!(unsigned, Ok(hop(&message, header.ttl - 1, None)));
        }
    }

    #[test]
    fn a_message_begins_with_all_its_hops(message in any_arrival()) {
        let frame = parse(&message);
        if let (Some(frame), Some(header)) = (frame.routed(), header_of(&message)) {
            let outgoing = frame.originate().unwrap();
            let expected = hop(&message, header.ttl, Some(MAC));
            prop_assert_eq!(Message::decode(signed(&outgoing).into()), Ok(expected));
        }
    }

    /// Some messages in any order, so that many come again, some of them damaged.
    #[test]
    fn what_was_read_before_makes_no_difference(
        messages in collection::vec(any_arrival(), 1..4),
        order in collection::vec((any::<Index>(), any::<bool>(), any::<Option<(Index, u8)>>()), 1..20),
    ) {
        let mut last = LastHeader::default();
        let mut last_header = None;
        for (index, is_short, damage) in order {
            let mut message = index.get(&messages).clone();
            if let (Message::Publish(publish), true) = (&mut message, is_short) {
                publish.message_id = 0;
                publish.metadata.clear();
            }
            let mut bytes = message.encode().to_vec();
            if let Some((at, value)) = damage.filter(|_| !bytes.is_empty()) {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            let bytes = Bytes::from(bytes);
            let alone = Frame::parse(bytes.clone());
            let frame = Frame::parse_after(bytes.clone(), &mut last);
            prop_assert_eq!(alone.as_ref().err(), frame.as_ref().err());
            let (Ok(alone), Ok(frame)) = (alone, frame) else { continue };
            let is_publish = matches!(frame, Frame::Publish(_));
            let (Some(alone), Some(frame)) = (alone.routed(), frame.routed()) else { continue };
            prop_assert_eq!(format!("{:?}", alone.header()), format!("{:?}", frame.header()));
            if is_publish {
                let mut read = pb::Message::decode(bytes).unwrap();
                let header = pb_header(&mut read).cloned();
                prop_assert!(!frame.repeats() || header == last_header);
                last_header = header;
            } else {
                prop_assert!(!frame.repeats());
            }
        }
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(bytes in collection::vec(any::<u8>(), 0..300)) {
        let _ = Frame::parse(bytes.into());
    }

    /// What a node lets through, the library of a receiver decodes, and it finds
    /// the header that the node has seen.
    #[test]
    fn what_is_forwarded_decodes_everywhere(bytes in damaged()) {
        let Ok(frame) = Frame::parse(bytes.clone().into()) else {
            return Ok(());
        };
        let mut expected = pb::Message::decode(&bytes[..]).unwrap();
        let header = pb_header(&mut expected);
        prop_assert_eq!(frame.routed().is_some(), header.is_some());
        if let (Some(frame), Some(header)) = (frame.routed(), header) {
            let view = frame.header();
            prop_assert_eq!((view.ttl, view.fanout), (header.ttl, header.fanout));
            let encoded = header.destination.as_ref().unwrap().name.unwrap();
            let components = [encoded.component_0, encoded.component_1, encoded.component_2];
            prop_assert_eq!(view.destination.components, components);
            if let Ok(outgoing) = frame.forward() {
                header.ttl -= 1;
                header.recv_from = None;
                header.forward_to = None;
                header.header_mac = Some(Bytes::copy_from_slice(&MAC));
                prop_assert_eq!(pb::Message::decode(&signed(&outgoing)[..]).unwrap(), expected);
            }
        }
    }
}
