//! Known answers: bytes that other implementations sent or accepted.
//!
//! Frames go bytes → value → the same bytes; signing inputs and MAC preimages
//! are compared with what was signed. The signatures themselves are checked
//! where the keys are.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use bytes::Bytes;
use slim_proto::{
    AppPayload, Body, Channels, Command, ConnectionType, GroupWelcome, Header, JoinReply,
    JoinRequest, LinkNegotiation, Message, MessageType, Name, NameId, Participant,
    ParticipantState, Publish, SessionId, SessionType, SubscriptionAck, TimerSettings,
    UpdateParticipantState, canonical,
};

const MOD_TOKEN: &str = "org/trace/mod_ePlB6BaZ:1795329932:j0YeuNQv-p_SLyvD:eyJwdWJrZXkiOiJCR3dMa3BBZGUvMGFDQjliVG5IMVFmTTc4UDM0eDRmbVhVR1hWbktEZGJLL3VpUEJqU3ZNd3QvMllMRldEcUR0UWk4MkxDZWlocS9Md3ZXZC8vUm5nelU9In0:sDN6dg0ggXuvn7JRQzfNiy-HeUlwmWacCCOCd5DDUmU";

const ALICE_NAME: &str = "0a3608bbacaab7b780969f8701109d87bbe3d09cdf993c1882e3daadfa91afc87b2215088c8cd49fbffbdd8a6510f2eb9dc299e9a6c59d0112130a036f7267120574726163651a05616c696365";

const MOD_NAME: &str = "0a3708bbacaab7b780969f8701109d87bbe3d09cdf993c1880c184b8eac3ab9be801221508d5fbeef0e99cc3e7ba0110fb9985e88c96e1e93d12110a036f7267120574726163651a036d6f64";

fn unhex(text: &str) -> Vec<u8> {
    hex::decode(text).unwrap()
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn moderator() -> Name {
    name("org/trace/mod").with_id(NameId::of_subject("org/trace/mod_ePlB6BaZ"))
}

fn alice() -> Name {
    name("org/trace/alice").with_id(NameId::of_subject("org/trace/alice_7ZaqQOgB"))
}

fn participant(name: Name, data: bool) -> Participant {
    Participant { name, sends_data: data, receives_data: data, status: ParticipantState::Online }
}

fn publish(body: Body) -> Publish {
    Publish {
        header: Header::new(moderator(), alice(), 1),
        session_type: SessionType::Multicast,
        session_id: SessionId(7),
        message_id: 9,
        body,
        metadata: BTreeMap::new(),
    }
}

/// Content bytes ↔ body, alone and inside a frame.
fn check_content(body: &Body, expected: &str) {
    assert_eq!(hex::encode(canonical::content_bytes(body)), expected, "{body:?}");
    check_frame_contains(&unhex(expected), body);
}

fn check_frame_contains(content: &[u8], body: &Body) {
    let message = Message::Publish(publish(body.clone()));
    let frame = message.encode();
    assert_eq!(frame.len(), message.encoded_len());
    let mut tail = vec![0x1a];
    prost::encoding::encode_varint(content.len() as u64, &mut tail);
    tail.extend_from_slice(content);
    assert!(frame.ends_with(&tail), "{body:?}");
    assert_eq!(Message::decode(frame), Ok(message));
}

fn check_frame(frame: &[u8], message: &Message) {
    let decoded = Message::decode(Bytes::copy_from_slice(frame)).unwrap();
    assert_eq!(&decoded, message);
    assert_eq!(hex::encode(decoded.encode()), hex::encode(frame));
    assert_eq!(decoded.encoded_len(), frame.len());
}

// ---------------------------------------------------------------- names

#[test]
fn names_encode_as_recorded() {
    for (who, expected) in [(moderator(), MOD_NAME), (alice(), ALICE_NAME)] {
        let content = canonical::content_bytes(&Body::Command(Command::GroupClose {
            participants: vec![who],
        }));
        // Content.command_payload.group_close.participants[0]
        let inner = unhex(expected);
        let length = inner.len() as u8;
        let mut bytes = vec![0x12, length + 4, 0x4a, length + 2, 0x0a, length];
        bytes.extend_from_slice(&inner);
        assert_eq!(hex::encode(content), hex::encode(bytes));
    }
    assert_eq!((unhex(MOD_NAME).len(), unhex(ALICE_NAME).len()), (76, 77));
}

#[test]
fn ids_follow_from_subjects() {
    for (subject, id) in [
        ("acme/demo/alice_2B5PkucI", 0xee23cd86c165f5493bcdcd4cde967fbd),
        ("org/trace/mod_ePlB6BaZ", 0xbacf0ce69e1bbdd53dd384b0cd014cfb),
        ("org/trace/alice_7ZaqQOgB", 0x651577dbf3f5060c9d8a9b49984775f2),
        (
            "did:key:z6Mkfvtar6ATQYC5jXqVLBjCH8R6AUAuKjta6LsFcG4gUND1",
            0x48b1da600caab75fa73e4fe334bf1482,
        ),
    ] {
        assert_eq!(NameId::of_subject(subject), NameId(id), "{subject}");
    }
}

#[test]
fn components_hash_as_recorded() {
    let check = |text: &str, hashes| assert_eq!(name(text).components(), hashes, "{text}");
    let (org, acme, demo) = (0x873e580376ea963b, 0xf685e3e03791a023, 0x4948e8d027952bde);
    check("acme/demo/alice", [acme, demo, 0x7b90bc8fa5b6b182]);
    check("acme/demo/bob", [acme, demo, 0x49ae1b437ae573c4]);
    check("org/trace/mod", [org, 0x3c337ce50c6ec39d, 0xe836ae1ea7012080]);
    check("a/agntcy/naïve", [0x3ff5008a504a5280, 0x169ca82eb17d6bc2, 0xbd05d3de9250c5f9]);
}

#[test]
fn channels_follow_from_the_moderator() {
    let check = |group: &str, subject: &str, data, control| {
        let channels = name(group).channels(subject);
        assert_eq!(channels.data, name(group).with_id(NameId(data)));
        assert_eq!(channels.control, name(group).with_id(NameId(control)));
    };
    check(
        "acme/demo/channel",
        "acme/demo/mod_RB3rDbOw",
        0x7d1bd99dc5aea522d12ec6367783d80a,
        0xaffa380c95871f31c11dc249f92d62a3,
    );
    check(
        "org/trace/chan2",
        "org/trace/mod_AJP9AQsM",
        0x66fd9a71a795f32ab3768069f89cec7e,
        0x3c0078c4fb87f2751f64c3b83771341a,
    );
}

// ---------------------------------------------------------------- links and acks

#[test]
fn success_ack() {
    check_frame(
        &unhex("320d08c1a1d3cde5e2e0a3aa011001"),
        &Message::SubscriptionAck(SubscriptionAck {
            subscription_id: 12269919841811747009,
            result: Ok(()),
        }),
    );
}

fn negotiation(node_id: &str, is_reply: bool) -> Message {
    Message::Link(LinkNegotiation {
        link_id: "4f732319-7d8e-4938-8a1b-7e0cdda824b0".into(),
        slim_version: "3.4.6".into(),
        is_reply,
        ecdh_public_key: Bytes::from_static(&[0xab; 32]),
        connection_type: ConnectionType::Edge,
        node_id: node_id.into(),
        deployment_name: String::new(),
        kem_payload: None,
    })
}

#[test]
fn client_negotiation() {
    let node_id = "node-ec16f2bf-0000-4000-8000-000000000001";
    let mut frame = unhex("2a7e0a7c0a24");
    frame.extend_from_slice(b"4f732319-7d8e-4938-8a1b-7e0cdda824b0");
    frame.extend(unhex("1205332e342e362220"));
    frame.extend([0xab; 32]);
    frame.extend(unhex("28023229"));
    frame.extend_from_slice(node_id.as_bytes());
    assert_eq!(frame.len(), 128);
    check_frame(&frame, &negotiation(node_id, false));
}

#[test]
fn node_negotiation() {
    let node_id = "node-09f56a30-0000-4000-8000-000000000002";
    // Two bytes more than the request, one of them in a length that needs two.
    let mut frame = unhex("2a80010a7e0a24");
    frame.extend_from_slice(b"4f732319-7d8e-4938-8a1b-7e0cdda824b0");
    frame.extend(unhex("1205332e342e3618012220"));
    frame.extend([0xab; 32]);
    frame.extend(unhex("28023229"));
    frame.extend_from_slice(node_id.as_bytes());
    assert_eq!(frame.len(), 131);
    check_frame(&frame, &negotiation(node_id, true));
}

// ---------------------------------------------------------------- contents

#[test]
fn contents_without_fields() {
    for (command, expected) in [
        (Command::DiscoveryRequest, "12020a00"),
        (Command::DiscoveryReply, "12021200"),
        (Command::LeaveRequest, "12022a00"),
        (Command::LeaveReply, "12023200"),
        (Command::GroupAck, "12025a00"),
        (Command::GroupNack, "12026200"),
    ] {
        check_content(&Body::Command(command), expected);
    }
    check_content(&Body::MsgAck, "0a00");
    check_content(&Body::RtxRequest, "0a00");
    check_content(&Body::RtxReply(AppPayload::default()), "0a00");
}

#[test]
fn data_content() {
    let hello = AppPayload { payload_type: "msg".into(), blob: Bytes::from_static(b"hello") };
    check_content(&Body::Msg(hello.clone()), "0a0c0a036d7367120568656c6c6f");
    check_content(&Body::RtxReply(hello), "0a0c0a036d7367120568656c6c6f");
}

#[test]
fn heartbeat_contents() {
    for (epoch, expected) in
        [(u64::MAX, "120d6a0b08ffffffffffffffffff01"), (2, "12046a020802"), (0, "12026a00")]
    {
        check_content(&Body::Command(Command::Heartbeat { epoch }), expected);
    }
}

#[test]
fn join_request_content() {
    let group = name("org/trace/chan2");
    check_content(
        &Body::Command(Command::JoinRequest(JoinRequest {
            timer_settings: Some(TimerSettings { timeout_ms: 1000, max_retries: 5 }),
            channels: Some(Channels {
                data: group.with_id(NameId(0x66fd9a71a795f32ab3768069f89cec7e)),
                control: group.with_id(NameId(0x3c0078c4fb87f2751f64c3b83771341a)),
            }),
            mls_aad_percent: Some(100),
        })),
        "12ab011aa8010a0508e8071005124d0a3608bbacaab7b780969f8701109d87bbe3d09cdf993c18dc969ca08db88bea2d221508aae6d7bc9acee6fe6610fed8f3c49f8da0bbb30112130a036f7267120574726163651a056368616e321a4c0a3508bbacaab7b780969f8701109d87bbe3d09cdf993c18dc969ca08db88bea2d221408f5e49fdccf989e803c109ae8c4bb83f7b0b21f12130a036f7267120574726163651a056368616e3222020864",
    );
}

#[test]
fn join_reply_contents() {
    let reply = |data| {
        Body::Command(Command::JoinReply(JoinReply {
            key_package: None,
            participant: participant(alice(), data),
        }))
    };
    check_content(&reply(true), &format!("1259225712550a4d{ALICE_NAME}120408011001"));
    check_content(&reply(false), &format!("1255225312510a4d{ALICE_NAME}1200"));
}

#[test]
fn group_welcome_content() {
    check_content(
        &Body::Command(Command::GroupWelcome(GroupWelcome {
            participants: vec![participant(moderator(), true), participant(alice(), true)],
            mls: None,
        })),
        &format!("12b00142ad010a540a4c{MOD_NAME}1204080110010a550a4d{ALICE_NAME}120408011001"),
    );
}

#[test]
fn update_participant_state_content() {
    check_content(
        &Body::Command(Command::UpdateParticipantState(UpdateParticipantState {
            participant: alice(),
            new_state: ParticipantState::Offline,
            epoch: 0,
        })),
        &format!("125372510a4d{ALICE_NAME}1001"),
    );
}

// ---------------------------------------------------------------- signing inputs

const DISCOVERY_AAD: &str = "0801124c0a3708bbacaab7b780969f8701109d87bbe3d09cdf993c1880c184b8eac3ab9be801221508d5fbeef0e99cc3e7ba0110fb9985e88c96e1e93d12110a036f7267120574726163651a036d6f641a4e0a3708bbacaab7b780969f8701109d87bbe3d09cdf993c1882e3daadfa91afc87b221608ffffffffffffffffff0110ffffffffffffffffff0112130a036f7267120574726163651a05616c69636522e6016f72672f74726163652f6d6f645f65506c423642615a3a313739353332393933323a6a305965754e51762d705f534c7976443a65794a7764574a725a586b694f694a435233644d613342425a4755764d474644516a6c69564735494d56466d5454633455444d306544526d6256685652316857626b74455a474a4c4c33567055454a7155335a4e643351764d6c6c4d526c64456355523055576b344d6b78445a576c6f6353394d64335a585a433876556d356e656c5539496e303a73444e3664673067675875766e374a52517a664e69792d4865556c776d57616343434f4364354444556d55280130053899c18fd90740b0d087d208";

fn discovery_request() -> Publish {
    let mut header = Header::new(moderator(), name("org/trace/alice"), 1);
    header.identity = MOD_TOKEN.to_owned();
    Publish {
        header,
        session_type: SessionType::PointToPoint,
        session_id: SessionId(2065948825),
        message_id: 2319575088,
        body: Body::Command(Command::DiscoveryRequest),
        metadata: BTreeMap::new(),
    }
}

#[test]
fn discovery_request_aad_and_signing_input() {
    let publish = discovery_request();
    let aad = canonical::header_aad(&publish);
    assert_eq!(aad.len(), 409);
    assert_eq!(hex::encode(&aad), DISCOVERY_AAD);

    let input = canonical::payload_signing_input(&aad, &publish);
    assert_eq!(input.len(), 444);
    let expected = format!(
        "736c696d2d7061796c6f61642d76310000000000000199{DISCOVERY_AAD}000000000000000412020a00"
    );
    assert_eq!(hex::encode(input), expected);
}

const GROUP_ACK_AAD: &str = "0801124d0a3608bbacaab7b780969f8701109d87bbe3d09cdf993c1882e3daadfa91afc87b2215088c8cd49fbffbdd8a6510f2eb9dc299e9a6c59d0112130a036f7267120574726163651a05616c6963651a4c0a3708bbacaab7b780969f8701109d87bbe3d09cdf993c1880c184b8eac3ab9be80122150886f883b2f5bb87cd181085e999bbc9e2f5c9810112110a036f7267120574726163651a036d6f6422e8016f72672f74726163652f616c6963655f375a6171514f67423a313739353332393938383a33496a4675612d70676e615761776a693a65794a7764574a725a586b694f694a4352304e7564544e774d31523264575249536b315155793878656c4a3556544e334e5552304d454e5a62544a4b536a6c364d574933623078556357704859584a4c59555a5152457469556a4d724c325246646939445a6c707a51316c43526a565762533878536a4a6a63586f33596b597963546739496e303a6e4143786367573143325a4951767a68396f377a6c723378684843443248316246304d7469597a4d7767672801300f38a5f7d8be0440f493a68409";

#[test]
fn group_ack_aad_and_signing_input() {
    let moderator = name("org/trace/mod").with_id(NameId(0x189a1ddf5640fc06_8193d71497667485));
    let mut header = Header::new(alice(), moderator, 1);
    header.identity = "org/trace/alice_7ZaqQOgB:1795329988:3IjFua-pgnaWawji:eyJwdWJrZXkiOiJCR0NudTNwM1R2dWRISk1QUy8xelJ5VTN3NUR0MENZbTJKSjl6MWI3b0xUcWpHYXJLYUZQREtiUjMrL2RFdi9DZlpzQ1lCRjVWbS8xSjJjcXo3YkYycTg9In0:nACxcgW1C2ZIQvzh9o7zlr3xhHCD2H1bF0MtiYzMwgg".to_owned();
    let publish = Publish {
        header,
        session_type: SessionType::PointToPoint,
        session_id: SessionId(1205222309),
        message_id: 2424932852,
        body: Body::Command(Command::GroupAck),
        metadata: BTreeMap::new(),
    };
    let aad = canonical::header_aad(&publish);
    assert_eq!(aad.len(), 410);
    assert_eq!(hex::encode(&aad), GROUP_ACK_AAD);

    let input = canonical::payload_signing_input(&aad, &publish);
    assert_eq!(input.len(), 445);
    let digest = ring::digest::digest(&ring::digest::SHA256, &input);
    assert_eq!(
        hex::encode(digest),
        "566d988efbce282dc18e870d8ccba435786757a57e9f1ca490bf31f07fce9ea5"
    );
}

#[test]
fn aad_of_data_names_the_payload_type() {
    let payload = AppPayload { payload_type: "msg".into(), blob: Bytes::from_static(b"secret") };
    let data = canonical::header_aad(&publish(Body::Msg(payload.clone())));
    assert_eq!(hex::encode(&data[data.len() - 13..]), "28023001380740094a036d7367");
    // Its own message type, so a retransmission never reuses an encryption.
    let reply = canonical::header_aad(&publish(Body::RtxReply(payload)));
    assert_eq!(reply[reply.len() - 10], MessageType::RtxReply as u8);
}

#[test]
fn payload_signature_covers_metadata_in_order_but_not_what_nodes_change() {
    let mut publish = discovery_request();
    let aad = canonical::header_aad(&publish);
    let bare = canonical::payload_signing_input(&aad, &publish);
    for key in ["traceparent", "tracestate", "baggage", "slim-payload-sig", "slim-peer-subject"] {
        publish.metadata.insert(key.into(), "x".into());
    }
    assert_eq!(canonical::payload_signing_input(&aad, &publish), bare);

    publish.metadata.insert(canonical::LEAVING_SESSION.into(), canonical::TRUE.into());
    publish.metadata.insert("A".into(), "b".into());
    let covered = canonical::payload_signing_input(&aad, &publish);
    let mut expected = bare;
    for part in ["A", "b", "LEAVING_SESSION", "TRUE"] {
        expected.extend_from_slice(&(part.len() as u64).to_be_bytes());
        expected.extend_from_slice(part.as_bytes());
    }
    assert_eq!(covered, expected);
}

// ---------------------------------------------------------------- header MAC

const LINK_ID: &str = "79b83a99-0ac4-43b2-ba0e-284b322db221";

fn mac(header: &Header) -> String {
    let key = unhex("697a5dd17455aaec7c7d1e086f7989e01febecb3d6c95d8f1b5c0e46c5be29ba");
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &key);
    hex::encode(ring::hmac::sign(&key, &canonical::mac_preimage(LINK_ID, header)))
}

fn maced_header() -> Header {
    let alice = name("acme/demo/alice/ee23cd86-c165-f549-3bcd-cd4cde967fbd");
    let mut header = Header::new(alice, name("acme/demo/bob"), 1);
    header.identity = "tok".into();
    header.incoming_conn = Some(1);
    header
}

#[test]
fn mac_preimage_of_a_full_header() {
    let header = maced_header();
    assert_eq!(
        hex::encode(canonical::mac_preimage(LINK_ID, &header)),
        [
            "534c494d2d44502d4844522d7631002400000037396238336139392d306163342d343362322d626130652d323834623332326462323231",
            "010123a09137e0e385f6de2b9527d0e8484982b1b6a58fbc907b0149f565c186cd23eebd7f96de4ccdcd3b",
            "010400000061636d650400000064656d6f05000000616c696365",
            "010123a09137e0e385f6de2b9527d0e84849c473e57a431bae4901ffffffffffffffffffffffffffffffff",
            "010400000061636d650400000064656d6f03000000626f62",
            "03000000746f6b0100000000000008000000",
        ]
        .concat()
    );
    assert_eq!(canonical::mac_preimage(LINK_ID, &header).len(), 209);
    assert_eq!(mac(&header), "1197c2c526db3099b324fb55facf734f9cbd9f4230816f7b0a25f708680dac44");
}

#[test]
fn mac_preimage_depends_on_presence() {
    let mut header = maced_header();
    header.source = header.source.without_text();
    let text = header.destination.text().cloned();
    header.destination = Name::from_parts(header.destination.components(), None, text).unwrap();
    header.recv_from = Some(9);
    header.forward_to = Some(10);
    header.error = Some(false);
    let preimage = canonical::mac_preimage(LINK_ID, &header);
    assert_eq!(preimage.len(), 185);
    assert!(
        hex::encode(&preimage)
            .ends_with("01000000010900000000000000010a00000000000000010008000000")
    );
    assert_eq!(mac(&header), "260edbde9cf5d6ef96651d90f9c33990b69db2293e2a25e20eb131448eed5a4c");
}
