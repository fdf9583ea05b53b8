//! Arbitrary messages, for properties that hold for all of them.

use bytes::Bytes;
use proptest::{collection, option, prelude::*};
use slim_proto::{
    AppPayload, Body, Channels, Command, ConnectionType, GroupUpdate, GroupUpdateOp, GroupWelcome,
    Header, JoinReply, JoinRequest, LinkNegotiation, Message, MlsPayload, Name, NameId,
    Participant, ParticipantState, Publish, RejoinReply, RejoinRequest, SessionId, SessionType,
    Subscription, SubscriptionAck, TimerSettings, UpdateParticipantState,
};

fn any_name() -> impl Strategy<Value = Name> {
    (["[a-zé]{1,8}", "[a-z]{1,8}", "[a-z0-9_-]{1,20}"], any::<Option<u128>>(), any::<bool>())
        .prop_map(|([org, namespace, app], id, text)| {
            let full = Name::new(&org, &namespace, &app).unwrap();
            Name::from_parts(
                full.components(),
                id.map(NameId),
                full.text().filter(|_| text).cloned(),
            )
            .unwrap()
        })
}

fn any_bytes() -> impl Strategy<Value = Bytes> {
    collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

prop_compose! {
    fn any_header()(
        source in any_name(),
        destination in any_name(),
        identity in ".{0,20}",
        version in ".{0,6}",
        (fanout, ttl) in any::<(u32, u32)>(),
        (recv_from, forward_to, incoming_conn) in any::<(Option<u64>, Option<u64>, Option<u64>)>(),
        error in any::<Option<bool>>(),
        header_mac in option::of(any_bytes()),
        e2e_header_sig in option::of(any_bytes()),
    ) -> Header {
        Header {
            source, destination, identity, fanout, version, ttl, recv_from, forward_to,
            incoming_conn, error, header_mac, e2e_header_sig,
        }
    }
}

fn any_state() -> impl Strategy<Value = ParticipantState> {
    prop_oneof![Just(ParticipantState::Online), Just(ParticipantState::Offline)]
}

prop_compose! {
    fn any_participant()(
        name in any_name(),
        (sends_data, receives_data) in any::<(bool, bool)>(),
        status in any_state(),
    ) -> Participant {
        Participant { name, sends_data, receives_data, status }
    }
}

fn any_roster() -> impl Strategy<Value = Vec<Participant>> {
    collection::vec(any_participant(), 0..4)
}

prop_compose! {
    fn any_mls()(commit_id in any::<u32>(), mls_content in any_bytes()) -> MlsPayload {
        MlsPayload { commit_id, mls_content }
    }
}

prop_compose! {
    fn any_join_request()(
        timer in any::<Option<(u32, u32)>>(),
        channels in option::of((any_name(), any_name())),
        mls_aad_percent in any::<Option<u32>>(),
    ) -> JoinRequest {
        JoinRequest {
            timer_settings: timer
                .map(|(timeout_ms, max_retries)| TimerSettings { timeout_ms, max_retries }),
            channels: channels.map(|(data, control)| Channels { data, control }),
            mls_aad_percent,
        }
    }
}

prop_compose! {
    fn any_group_update()(
        op in prop_oneof![
            Just(GroupUpdateOp::Add), Just(GroupUpdateOp::Remove), Just(GroupUpdateOp::Rejoin)
        ],
        participant in option::of(any_participant()),
        participants in any_roster(),
        mls in option::of(any_mls()),
    ) -> GroupUpdate {
        GroupUpdate { op, participant, participants, mls }
    }
}

fn any_command() -> impl Strategy<Value = Command> {
    prop_oneof![
        Just(Command::DiscoveryRequest),
        Just(Command::DiscoveryReply),
        any_join_request().prop_map(Command::JoinRequest),
        (option::of(any_bytes()), any_participant()).prop_map(|(key_package, participant)| {
            Command::JoinReply(JoinReply { key_package, participant })
        }),
        Just(Command::LeaveRequest),
        Just(Command::LeaveReply),
        any_group_update().prop_map(Command::GroupUpdate),
        (any_roster(), option::of(any_mls())).prop_map(|(participants, mls)| {
            Command::GroupWelcome(GroupWelcome { participants, mls })
        }),
        collection::vec(any_name(), 0..4)
            .prop_map(|participants| Command::GroupClose { participants }),
        (any_name(), any_bytes())
            .prop_map(|(source, mls_proposal)| Command::GroupProposal { source, mls_proposal }),
        Just(Command::GroupAck),
        Just(Command::GroupNack),
        any::<u64>().prop_map(|epoch| Command::Heartbeat { epoch }),
        (any_name(), any_state(), any::<u64>()).prop_map(|(participant, new_state, epoch)| {
            Command::UpdateParticipantState(UpdateParticipantState {
                participant,
                new_state,
                epoch,
            })
        }),
        (any_name(), any_bytes()).prop_map(|(participant, key_package)| {
            Command::RejoinRequest(RejoinRequest { participant, key_package })
        }),
        (any::<u32>(), any_bytes()).prop_map(|(commit_id, welcome)| {
            Command::RejoinReply(RejoinReply { commit_id, welcome })
        }),
    ]
}

fn any_body() -> impl Strategy<Value = Body> {
    let payload = || {
        ("[a-z]{0,6}", any_bytes())
            .prop_map(|(payload_type, blob)| AppPayload { payload_type, blob })
    };
    prop_oneof![
        payload().prop_map(Body::Msg),
        Just(Body::MsgAck),
        Just(Body::RtxRequest),
        payload().prop_map(Body::RtxReply),
        any_command().prop_map(Body::Command),
    ]
}

prop_compose! {
    fn any_publish()(
        header in any_header(),
        point_to_point in any::<bool>(),
        (session_id, message_id) in any::<(u32, u32)>(),
        body in any_body(),
        metadata in collection::btree_map(".{0,6}", ".{0,6}", 0..4),
    ) -> Publish {
        Publish {
            header,
            session_type: if point_to_point {
                SessionType::PointToPoint
            } else {
                SessionType::Multicast
            },
            session_id: SessionId(session_id),
            message_id,
            body,
            metadata,
        }
    }
}

prop_compose! {
    fn any_link()(
        [link_id, slim_version, node_id, deployment_name] in [".{0,8}", ".{0,8}", ".{0,8}", ".{0,8}"],
        is_reply in any::<bool>(),
        ecdh_public_key in any_bytes(),
        connection_type in prop_oneof![
            Just(ConnectionType::Remote), Just(ConnectionType::Peer), Just(ConnectionType::Edge)
        ],
        kem_payload in option::of(any_bytes()),
    ) -> LinkNegotiation {
        LinkNegotiation {
            link_id, slim_version, is_reply, ecdh_public_key, connection_type, node_id,
            deployment_name, kem_payload,
        }
    }
}

/// Any message that an encoder can write.
pub(crate) fn any_message() -> impl Strategy<Value = Message> {
    let subscription = || {
        (any_header(), any::<u64>())
            .prop_map(|(header, subscription_id)| Subscription { header, subscription_id })
    };
    prop_oneof![
        1 => any_link().prop_map(Message::Link),
        1 => subscription().prop_map(Message::Subscribe),
        1 => subscription().prop_map(Message::Unsubscribe),
        1 => (any::<u64>(), prop_oneof![Just(Ok(())), ".{0,8}".prop_map(Err)]).prop_map(
            |(subscription_id, result)| {
                Message::SubscriptionAck(SubscriptionAck { subscription_id, result })
            }
        ),
        4 => any_publish().prop_map(Message::Publish),
    ]
}
