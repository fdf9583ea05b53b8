//! What decodes, what does not and why, and that nothing is lost on the way.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod messages;

use std::collections::BTreeMap;

use bytes::Bytes;
use messages::any_message;
use proptest::{collection, prelude::*};
use prost::Message as _;
use slim_proto::{
    AppPayload, Body, Command, ConnectionType, DecodeError, Header, Message, MessageType, Name,
    ParticipantState, Publish, SessionId, SessionType, UpdateParticipantState, pb,
};

// ---------------------------------------------------------------- refusals

fn name() -> Name {
    "acme/demo/alice".parse().unwrap()
}

fn publish(body: Body) -> Publish {
    Publish {
        header: Header::new(name(), name(), 1),
        session_type: SessionType::Multicast,
        session_id: SessionId(3),
        message_id: 4,
        body,
        metadata: BTreeMap::new(),
    }
}

fn decode(message: &pb::Message) -> Result<Message, DecodeError> {
    Message::decode(message.encode_to_vec().into())
}

/// A valid publish, spoiled, gives this error.
fn check_publish(
    body: Body,
    spoil: impl FnOnce(&mut pb::Publish),
    expected: Result<Body, DecodeError>,
) {
    let mut wire = pb::Message::decode(Message::Publish(publish(body)).encode()).unwrap();
    let Some(pb::message::MessageType::Publish(inner)) = &mut wire.message_type else {
        panic!("not a publish");
    };
    spoil(inner);
    let decoded = decode(&wire).map(|message| match message {
        Message::Publish(publish) => publish.body,
        other => panic!("not a publish: {other:?}"),
    });
    assert_eq!(decoded, expected);
}

fn check_header(spoil: impl FnOnce(&mut pb::SlimHeader), error: DecodeError) {
    check_publish(Body::MsgAck, |p| spoil(p.header.as_mut().unwrap()), Err(error));
}

fn session(publish: &mut pb::Publish) -> &mut pb::SessionHeader {
    publish.session.as_mut().unwrap()
}

/// A valid command, replaced by `spoiled`, gives this error.
fn check_command(
    message_type: MessageType,
    spoiled: pb::command_payload::CommandPayloadType,
    expected: Result<Command, DecodeError>,
) {
    check_publish(
        Body::MsgAck,
        |publish| {
            session(publish).session_message_type = message_type as i32;
            publish.msg = Some(command_content(Some(spoiled)));
        },
        expected.map(Body::Command),
    );
}

fn command_content(command: Option<pb::command_payload::CommandPayloadType>) -> pb::Content {
    let command = pb::CommandPayload { command_payload_type: command };
    pb::Content { content_type: Some(pb::content::ContentType::CommandPayload(command)) }
}

#[test]
fn garbage_is_malformed() {
    let error = Message::decode(Bytes::from_static(&[0x1a, 0xff])).unwrap_err();
    assert!(matches!(error, DecodeError::Malformed(_)), "{error:?}");
}

#[test]
fn a_message_needs_a_kind() {
    assert_eq!(Message::decode(Bytes::new()), Err(DecodeError::NoKind));
    // Metadata alone, and a field that nobody knows.
    let bytes = Bytes::from_static(&[0x22, 0x06, 0x0a, 0x01, b'k', 0x12, 0x01, b'v', 0x78, 0x01]);
    assert_eq!(Message::decode(bytes), Err(DecodeError::NoKind));
}

#[test]
fn a_link_message_needs_a_negotiation() {
    let bytes = Bytes::from_static(&[0x2a, 0x00]);
    assert_eq!(Message::decode(bytes), Err(DecodeError::Missing("link_negotiation")));
}

#[test]
fn headers_and_names_are_required() {
    use pb::message::MessageType as Pb;
    for kind in [
        Pb::Subscribe(pb::Subscribe::default()),
        Pb::Unsubscribe(pb::Unsubscribe::default()),
        Pb::Publish(pb::Publish { session: Some(publish_session()), ..Default::default() }),
    ] {
        let message = pb::Message { message_type: Some(kind), metadata: BTreeMap::new() };
        assert_eq!(decode(&message), Err(DecodeError::Missing("header")));
    }
    check_header(|h| h.source = None, DecodeError::Missing("source"));
    check_header(|h| h.destination = None, DecodeError::Missing("destination"));
    check_header(|h| h.source.as_mut().unwrap().name = None, DecodeError::Missing("source"));
}

fn publish_session() -> pb::SessionHeader {
    pb::SessionHeader { session_type: 1, session_message_type: 2, session_id: 0, message_id: 0 }
}

#[test]
fn a_publish_needs_a_session() {
    check_publish(Body::MsgAck, |p| p.session = None, Err(DecodeError::Missing("session")));
}

#[test]
fn names_must_be_honest() {
    check_header(
        |h| {
            let text = h.destination.as_mut().unwrap().str_name.as_mut().unwrap();
            text.str_component_2 = "bob".into();
        },
        DecodeError::DishonestName("destination"),
    );
}

#[test]
fn types_must_be_known() {
    for number in [0, 3, -1] {
        check_publish(
            Body::MsgAck,
            |p| session(p).session_type = number,
            Err(DecodeError::UnknownSessionType(number)),
        );
    }
    for number in [0, 21, -1] {
        check_publish(
            Body::MsgAck,
            |p| session(p).session_message_type = number,
            Err(DecodeError::UnknownMessageType(number)),
        );
    }
}

#[test]
fn content_must_fit_the_type() {
    let ack = MessageType::MsgAck as i32;
    let group_ack = MessageType::GroupAck;
    let command = || Body::Command(Command::GroupNack);
    check_publish(
        command(),
        |p| session(p).session_message_type = group_ack as i32,
        Err(DecodeError::ContentMismatch(group_ack)),
    );
    check_publish(
        command(),
        |p| session(p).session_message_type = ack,
        Err(DecodeError::ContentMismatch(MessageType::MsgAck)),
    );
    check_publish(
        Body::Msg(AppPayload::default()),
        |p| session(p).session_message_type = group_ack as i32,
        Err(DecodeError::ContentMismatch(group_ack)),
    );
}

#[test]
fn content_may_be_absent_only_where_it_says_nothing() {
    let check = |body: Body, expected: Result<Body, DecodeError>| {
        check_publish(body.clone(), |p| p.msg = None, expected.clone());
        check_publish(body, |p| p.msg = Some(pb::Content::default()), expected);
    };
    let missing = || Err(DecodeError::Missing("content"));
    check(Body::MsgAck, Ok(Body::MsgAck));
    check(Body::RtxRequest, Ok(Body::RtxRequest));
    check(
        Body::RtxReply(AppPayload { payload_type: "a".into(), blob: Bytes::from_static(b"b") }),
        Ok(Body::RtxReply(AppPayload::default())),
    );
    check(Body::Msg(AppPayload::default()), missing());
    check(Body::Command(Command::GroupAck), missing());
    check_publish(
        Body::Command(Command::GroupAck),
        |p| p.msg = Some(command_content(None)),
        Err(DecodeError::Missing("command_payload_type")),
    );
}

#[test]
fn an_ack_may_carry_a_payload_that_means_nothing() {
    let data = Body::Msg(AppPayload { payload_type: "a".into(), blob: Bytes::from_static(b"b") });
    let ack = MessageType::MsgAck as i32;
    check_publish(data, |p| session(p).session_message_type = ack, Ok(Body::MsgAck));
}

#[test]
fn one_channel_name_is_not_enough() {
    let request = |channel: bool| {
        let name = Some(pb::Name::from(&name()));
        let (channel, control) = if channel { (name, None) } else { (None, name) };
        pb::JoinRequestPayload { channel, control, ..Default::default() }
    };
    for (channel, missing) in [(true, "control"), (false, "channel")] {
        check_command(
            MessageType::JoinRequest,
            pb::command_payload::CommandPayloadType::JoinRequest(request(channel)),
            Err(DecodeError::Missing(missing)),
        );
    }
}

#[test]
fn a_participant_needs_settings() {
    let participant = pb::Participant { name: Some((&name()).into()), settings: None, status: 0 };
    let error = || Err(DecodeError::Missing("participant settings"));
    use pb::command_payload::CommandPayloadType as Pb;
    check_command(
        MessageType::JoinReply,
        Pb::JoinReply(pb::JoinReplyPayload {
            participant: Some(participant.clone()),
            ..Default::default()
        }),
        error(),
    );
    check_command(
        MessageType::GroupWelcome,
        Pb::GroupWelcome(pb::GroupWelcomePayload {
            participants: vec![participant.clone()],
            mls: None,
        }),
        error(),
    );
    check_command(
        MessageType::GroupUpdate,
        Pb::GroupUpdate(pb::GroupUpdatePayload {
            participants: vec![participant],
            ..Default::default()
        }),
        error(),
    );
    check_command(
        MessageType::JoinReply,
        Pb::JoinReply(pb::JoinReplyPayload::default()),
        Err(DecodeError::Missing("participant")),
    );
}

#[test]
fn names_inside_commands_are_required() {
    use pb::command_payload::CommandPayloadType as Pb;
    let missing = || Err(DecodeError::Missing("participant"));
    check_command(
        MessageType::RejoinRequest,
        Pb::RejoinRequest(pb::RejoinRequestPayload::default()),
        missing(),
    );
    check_command(
        MessageType::UpdateParticipantState,
        Pb::UpdateParticipantState(pb::UpdateParticipantStatePayload::default()),
        missing(),
    );
    check_command(
        MessageType::GroupClose,
        Pb::GroupClose(pb::GroupClosePayload { participants: vec![pb::Name::default()] }),
        missing(),
    );
    check_command(
        MessageType::GroupProposal,
        Pb::GroupProposal(pb::GroupProposalPayload::default()),
        Err(DecodeError::Missing("proposal source")),
    );
}

#[test]
fn unknown_enum_values() {
    use pb::command_payload::CommandPayloadType as Pb;
    check_command(
        MessageType::GroupUpdate,
        Pb::GroupUpdate(pb::GroupUpdatePayload { op: 3, ..Default::default() }),
        Err(DecodeError::UnknownGroupUpdateOp(3)),
    );
    check_command(
        MessageType::UpdateParticipantState,
        Pb::UpdateParticipantState(pb::UpdateParticipantStatePayload {
            participant: Some((&name()).into()),
            new_state: 2,
            epoch: 5,
        }),
        Ok(Command::UpdateParticipantState(UpdateParticipantState {
            participant: name(),
            new_state: ParticipantState::Online,
            epoch: 5,
        })),
    );
    let negotiation = pb::LinkNegotiationPayload { connection_type: 9, ..Default::default() };
    let link = pb::Link { link_type: Some(pb::link::LinkType::LinkNegotiation(negotiation)) };
    let message = pb::Message {
        message_type: Some(pb::message::MessageType::Link(link)),
        metadata: BTreeMap::new(),
    };
    match decode(&message) {
        Ok(Message::Link(link)) => assert_eq!(link.connection_type, ConnectionType::Remote),
        other => panic!("{other:?}"),
    }
}

#[test]
fn payloads_share_the_memory_of_the_frame() {
    let blob = Bytes::from(vec![7; 1000]);
    let frame =
        Message::Publish(publish(Body::Msg(AppPayload { payload_type: "msg".into(), blob })))
            .encode();
    let decoded = Message::decode(frame.clone()).unwrap();
    let Message::Publish(Publish { body: Body::Msg(payload), .. }) = decoded else {
        panic!("{decoded:?}");
    };
    assert!(frame.as_ptr_range().contains(&payload.blob.as_ptr()));
}

#[test]
fn errors_and_debug_show_no_token_and_no_payload() {
    let mut message = publish(Body::Msg(AppPayload {
        payload_type: "msg".into(),
        blob: Bytes::from_static(b"payload-secret"),
    }));
    message.header.identity = "token-secret".into();
    message.header.header_mac = Some(Bytes::from_static(b"mac-secret"));
    let shown = format!("{:?}", Message::Publish(message.clone()));
    assert!(!shown.contains("secret"), "{shown}");

    let frame = Message::Publish(message).encode();
    for end in 0..frame.len() {
        let error = Message::decode(frame.slice(..end)).unwrap_err();
        let shown = format!("{error:?} {error}");
        assert!(!shown.contains("secret"), "{shown}");
    }
}

// ---------------------------------------------------------------- round trips

proptest! {
    #[test]
    fn decode_undoes_encode(message in any_message()) {
        let bytes = message.encode();
        prop_assert_eq!(bytes.len(), message.encoded_len());
        prop_assert_eq!(Message::decode(bytes), Ok(message));
    }

    /// Receivers rebuild the bytes that were signed from what they decoded.
    #[test]
    fn encoding_is_canonical(message in any_message()) {
        let bytes = message.encode();
        let again = Message::decode(bytes.clone()).unwrap().encode();
        prop_assert_eq!(bytes, again);
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(bytes in collection::vec(any::<u8>(), 0..300)) {
        let _ = Message::decode(bytes.into());
    }

    /// Bytes that are nearly right reach deeper than random ones.
    #[test]
    fn damaged_messages_do_not_panic(
        message in any_message(),
        damage in collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = message.encode().to_vec();
        for (index, value) in damage {
            let index = index.index(bytes.len());
            bytes[index] = value;
        }
        if let Ok(message) = Message::decode(bytes.into()) {
            prop_assert_eq!(Message::decode(message.encode()), Ok(message));
        }
    }
}
