//! Messages to and from bytes, through the generated types.
//!
//! What decodes is complete: required fields are there, the content fits the
//! message type, and a readable name is what its hashes say. Encoding is
//! canonical (ascending field numbers, defaults left out), because receivers
//! encode names and content again to check what the sender signed.

use bytes::Bytes;
use prost::Message as _;

use crate::pb::{
    self, command_payload::CommandPayloadType as PbCommand, content::ContentType, link::LinkType,
    message::MessageType as PbMessage,
};
use crate::{
    AppPayload, Body, Channels, Command, ConnectionType, GroupUpdate, GroupUpdateOp, GroupWelcome,
    Header, JoinReply, JoinRequest, LinkNegotiation, Message, MessageType, MlsPayload, Name,
    NameId, Participant, ParticipantState, Publish, RejoinReply, RejoinRequest, SessionId,
    SessionType, Subscription, SubscriptionAck, TimerSettings, UpdateParticipantState,
};

/// The bytes are no message. Whoever sent them made a mistake; the receiver
/// drops them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Not Protobuf, or not of this schema.
    #[error("malformed message")]
    Malformed(#[from] prost::DecodeError),
    /// None of the kinds, or one that is not known.
    #[error("message without a kind")]
    NoKind,
    /// A field that every message of this kind has.
    #[error("missing field {0}")]
    Missing(&'static str),
    /// The readable parts of this name are not those that its hashes stand for.
    #[error("the text of {0} does not hash to its components")]
    DishonestName(&'static str),
    /// The session type, as it came.
    #[error("unknown session type {0}")]
    UnknownSessionType(i32),
    /// The session message type, as it came.
    #[error("unknown session message type {0}")]
    UnknownMessageType(i32),
    /// What a group update does, as it came.
    #[error("unknown group update operation {0}")]
    UnknownGroupUpdateOp(i32),
    /// The session header announces another content than there is.
    #[error("the content does not fit the message type {0:?}")]
    ContentMismatch(MessageType),
}

impl Message {
    /// Reads one element of the stream. Payloads share the memory of `bytes`.
    ///
    /// Metadata of anything but a publish means nothing and is not kept.
    ///
    /// # Errors
    /// If the bytes are no complete message.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let pb::Message { metadata, message_type } = pb::Message::decode(bytes)?;
        Ok(match message_type.ok_or(DecodeError::NoKind)? {
            PbMessage::Link(link) => {
                let LinkType::LinkNegotiation(negotiation) =
                    link.link_type.ok_or(DecodeError::Missing("link_negotiation"))?;
                Self::Link(negotiation.into())
            }
            PbMessage::Subscribe(pb::Subscribe { header, subscription_id }) => {
                Self::Subscribe(Subscription { header: read_header(header)?, subscription_id })
            }
            PbMessage::Unsubscribe(pb::Unsubscribe { header, subscription_id }) => {
                Self::Unsubscribe(Subscription { header: read_header(header)?, subscription_id })
            }
            PbMessage::SubscriptionAck(ack) => Self::SubscriptionAck(SubscriptionAck {
                subscription_id: ack.subscription_id,
                result: if ack.success { Ok(()) } else { Err(ack.error) },
            }),
            PbMessage::Publish(publish) => {
                let session = publish.session.ok_or(DecodeError::Missing("session"))?;
                Self::Publish(Publish {
                    header: read_header(publish.header)?,
                    session_type: session_type(session.session_type)?,
                    session_id: SessionId(session.session_id),
                    message_id: session.message_id,
                    body: read_body(message_type_of(&session)?, publish.msg)?,
                    metadata,
                })
            }
        })
    }

    /// The message as one element of the stream.
    pub fn encode(&self) -> Bytes {
        pb::Message::from(self).encode_to_vec().into()
    }

    /// Length of [`Self::encode`] in bytes; see [`crate::MAX_MESSAGE_LEN`].
    pub fn encoded_len(&self) -> usize {
        pb::Message::from(self).encoded_len()
    }
}

impl From<&Message> for pb::Message {
    fn from(message: &Message) -> Self {
        let mut metadata = std::collections::BTreeMap::new();
        let message_type = match message {
            Message::Link(negotiation) => PbMessage::Link(pb::Link {
                link_type: Some(LinkType::LinkNegotiation(negotiation.into())),
            }),
            Message::Subscribe(subscription) => PbMessage::Subscribe(pb::Subscribe {
                header: Some((&subscription.header).into()),
                subscription_id: subscription.subscription_id,
            }),
            Message::Unsubscribe(subscription) => PbMessage::Unsubscribe(pb::Unsubscribe {
                header: Some((&subscription.header).into()),
                subscription_id: subscription.subscription_id,
            }),
            Message::SubscriptionAck(ack) => PbMessage::SubscriptionAck(pb::SubscriptionAck {
                subscription_id: ack.subscription_id,
                success: ack.result.is_ok(),
                error: ack.result.clone().err().unwrap_or_default(),
            }),
            Message::Publish(publish) => {
                metadata.clone_from(&publish.metadata);
                PbMessage::Publish(publish.into())
            }
        };
        Self { metadata, message_type: Some(message_type) }
    }
}

impl From<&Publish> for pb::Publish {
    fn from(publish: &Publish) -> Self {
        Self {
            header: Some((&publish.header).into()),
            session: Some(pb::SessionHeader {
                session_type: pb::SessionType::from(publish.session_type).into(),
                session_message_type: publish.body.message_type() as i32,
                session_id: publish.session_id.0,
                message_id: publish.message_id,
            }),
            msg: Some((&publish.body).into()),
        }
    }
}

// ---------------------------------------------------------------- link

impl From<pb::LinkNegotiationPayload> for LinkNegotiation {
    fn from(negotiation: pb::LinkNegotiationPayload) -> Self {
        let connection_type = match negotiation.connection_type() {
            pb::LinkConnectionType::Remote => ConnectionType::Remote,
            pb::LinkConnectionType::Peer => ConnectionType::Peer,
            pb::LinkConnectionType::Edge => ConnectionType::Edge,
        };
        Self {
            link_id: negotiation.link_id,
            slim_version: negotiation.slim_version,
            is_reply: negotiation.is_reply,
            ecdh_public_key: negotiation.link_ecdh_public_key,
            connection_type,
            node_id: negotiation.node_id,
            deployment_name: negotiation.deployment_name,
            kem_payload: negotiation.link_kem_payload,
        }
    }
}

impl From<&LinkNegotiation> for pb::LinkNegotiationPayload {
    fn from(negotiation: &LinkNegotiation) -> Self {
        let connection_type = match negotiation.connection_type {
            ConnectionType::Remote => pb::LinkConnectionType::Remote,
            ConnectionType::Peer => pb::LinkConnectionType::Peer,
            ConnectionType::Edge => pb::LinkConnectionType::Edge,
        };
        Self {
            link_id: negotiation.link_id.clone(),
            slim_version: negotiation.slim_version.clone(),
            is_reply: negotiation.is_reply,
            link_ecdh_public_key: negotiation.ecdh_public_key.clone(),
            connection_type: connection_type.into(),
            node_id: negotiation.node_id.clone(),
            deployment_name: negotiation.deployment_name.clone(),
            link_kem_payload: negotiation.kem_payload.clone(),
        }
    }
}

// ---------------------------------------------------------------- names and header

/// A required name; `which` names the field in an error.
fn read_name(name: Option<pb::Name>, which: &'static str) -> Result<Name, DecodeError> {
    let pb::Name { name: encoded, str_name } = name.ok_or(DecodeError::Missing(which))?;
    let encoded = encoded.ok_or(DecodeError::Missing(which))?;
    let id = encoded.name_id.map(|id| NameId(u128::from(id.id_0) << 64 | u128::from(id.id_1)));
    let text =
        str_name.map(|text| [text.str_component_0, text.str_component_1, text.str_component_2]);
    Name::from_parts([encoded.component_0, encoded.component_1, encoded.component_2], id, text)
        .ok_or(DecodeError::DishonestName(which))
}

/// Upper and lower half of an id, as they travel.
pub(crate) fn halves(id: NameId) -> [u64; 2] {
    [(id.0 >> 64) as u64, id.0 as u64]
}

impl From<&Name> for pb::Name {
    fn from(name: &Name) -> Self {
        let [component_0, component_1, component_2] = name.components();
        let name_id = name.wire_id().map(|id| {
            let [id_0, id_1] = halves(id);
            pb::NameId { id_0, id_1 }
        });
        let str_name = name.text().cloned().map(|[first, second, third]| pb::StringName {
            str_component_0: first,
            str_component_1: second,
            str_component_2: third,
        });
        Self {
            name: Some(pb::EncodedName { component_0, component_1, component_2, name_id }),
            str_name,
        }
    }
}

fn read_header(header: Option<pb::SlimHeader>) -> Result<Header, DecodeError> {
    let header = header.ok_or(DecodeError::Missing("header"))?;
    Ok(Header {
        source: read_name(header.source, "source")?,
        destination: read_name(header.destination, "destination")?,
        identity: header.identity,
        fanout: header.fanout,
        version: header.version,
        ttl: header.ttl,
        recv_from: header.recv_from,
        forward_to: header.forward_to,
        incoming_conn: header.incoming_conn,
        error: header.error,
        header_mac: header.header_mac,
        e2e_header_sig: header.e2e_header_sig,
    })
}

impl From<&Header> for pb::SlimHeader {
    fn from(header: &Header) -> Self {
        Self {
            source: Some((&header.source).into()),
            destination: Some((&header.destination).into()),
            identity: header.identity.clone(),
            fanout: header.fanout,
            version: header.version.clone(),
            ttl: header.ttl,
            recv_from: header.recv_from,
            forward_to: header.forward_to,
            incoming_conn: header.incoming_conn,
            error: header.error,
            header_mac: header.header_mac.clone(),
            e2e_header_sig: header.e2e_header_sig.clone(),
        }
    }
}

// ---------------------------------------------------------------- session header

fn session_type(number: i32) -> Result<SessionType, DecodeError> {
    match pb::SessionType::try_from(number) {
        Ok(pb::SessionType::PointToPoint) => Ok(SessionType::PointToPoint),
        Ok(pb::SessionType::Multicast) => Ok(SessionType::Multicast),
        Ok(pb::SessionType::Unspecified) | Err(_) => Err(DecodeError::UnknownSessionType(number)),
    }
}

impl From<SessionType> for pb::SessionType {
    fn from(session_type: SessionType) -> Self {
        match session_type {
            SessionType::PointToPoint => Self::PointToPoint,
            SessionType::Multicast => Self::Multicast,
        }
    }
}

fn message_type_of(session: &pb::SessionHeader) -> Result<MessageType, DecodeError> {
    use pb::SessionMessageType as Pb;

    let number = session.session_message_type;
    let unknown = DecodeError::UnknownMessageType(number);
    Ok(match Pb::try_from(number) {
        Ok(Pb::Msg) => MessageType::Msg,
        Ok(Pb::MsgAck) => MessageType::MsgAck,
        Ok(Pb::RtxRequest) => MessageType::RtxRequest,
        Ok(Pb::RtxReply) => MessageType::RtxReply,
        Ok(Pb::DiscoveryRequest) => MessageType::DiscoveryRequest,
        Ok(Pb::DiscoveryReply) => MessageType::DiscoveryReply,
        Ok(Pb::JoinRequest) => MessageType::JoinRequest,
        Ok(Pb::JoinReply) => MessageType::JoinReply,
        Ok(Pb::LeaveRequest) => MessageType::LeaveRequest,
        Ok(Pb::LeaveReply) => MessageType::LeaveReply,
        Ok(Pb::GroupUpdate) => MessageType::GroupUpdate,
        Ok(Pb::GroupWelcome) => MessageType::GroupWelcome,
        Ok(Pb::GroupClose) => MessageType::GroupClose,
        Ok(Pb::GroupProposal) => MessageType::GroupProposal,
        Ok(Pb::GroupAck) => MessageType::GroupAck,
        Ok(Pb::GroupNack) => MessageType::GroupNack,
        Ok(Pb::Heartbeat) => MessageType::Heartbeat,
        Ok(Pb::UpdateParticipantState) => MessageType::UpdateParticipantState,
        Ok(Pb::RejoinRequest) => MessageType::RejoinRequest,
        Ok(Pb::RejoinReply) => MessageType::RejoinReply,
        Ok(Pb::Unspecified) | Err(_) => return Err(unknown),
    })
}

// ---------------------------------------------------------------- content

/// The content of a message whose session header says `expected`.
fn read_body(expected: MessageType, content: Option<pb::Content>) -> Result<Body, DecodeError> {
    let content = content.and_then(|content| content.content_type);
    match (expected, content) {
        // Acks and requests say nothing beyond their header, and neither does the
        // answer that a message is lost: a content is welcome but not needed.
        (MessageType::MsgAck, None | Some(ContentType::AppPayload(_))) => Ok(Body::MsgAck),
        (MessageType::RtxRequest, None | Some(ContentType::AppPayload(_))) => Ok(Body::RtxRequest),
        (MessageType::RtxReply, None) => Ok(Body::RtxReply(AppPayload::default())),
        (MessageType::RtxReply, Some(ContentType::AppPayload(payload))) => {
            Ok(Body::RtxReply(payload.into()))
        }
        (MessageType::Msg, Some(ContentType::AppPayload(payload))) => Ok(Body::Msg(payload.into())),
        (_, Some(ContentType::CommandPayload(command))) => {
            let command =
                command.command_payload_type.ok_or(DecodeError::Missing("command_payload_type"))?;
            let command = read_command(command)?;
            if command.message_type() != expected {
                return Err(DecodeError::ContentMismatch(expected));
            }
            Ok(Body::Command(command))
        }
        (_, None) => Err(DecodeError::Missing("content")),
        (_, Some(ContentType::AppPayload(_))) => Err(DecodeError::ContentMismatch(expected)),
    }
}

impl From<pb::ApplicationPayload> for AppPayload {
    fn from(payload: pb::ApplicationPayload) -> Self {
        Self { payload_type: payload.payload_type, blob: payload.blob }
    }
}

impl From<&AppPayload> for pb::ApplicationPayload {
    fn from(payload: &AppPayload) -> Self {
        Self { payload_type: payload.payload_type.clone(), blob: payload.blob.clone() }
    }
}

impl From<&Body> for pb::Content {
    fn from(body: &Body) -> Self {
        let content_type = match body {
            Body::Msg(payload) | Body::RtxReply(payload) => ContentType::AppPayload(payload.into()),
            // Present and empty, as everybody sends it.
            Body::MsgAck | Body::RtxRequest => {
                ContentType::AppPayload(pb::ApplicationPayload::default())
            }
            Body::Command(command) => ContentType::CommandPayload(pb::CommandPayload {
                command_payload_type: Some(command.into()),
            }),
        };
        Self { content_type: Some(content_type) }
    }
}

// ---------------------------------------------------------------- commands

fn read_command(command: PbCommand) -> Result<Command, DecodeError> {
    Ok(match command {
        PbCommand::DiscoveryRequest(_) => Command::DiscoveryRequest,
        PbCommand::DiscoveryReply(_) => Command::DiscoveryReply,
        PbCommand::JoinRequest(request) => Command::JoinRequest(read_join_request(request)?),
        PbCommand::JoinReply(pb::JoinReplyPayload { key_package, participant }) => {
            let participant = participant.ok_or(DecodeError::Missing("participant"))?;
            let participant = read_participant(participant)?;
            Command::JoinReply(JoinReply { key_package, participant })
        }
        PbCommand::LeaveRequest(_) => Command::LeaveRequest,
        PbCommand::LeaveReply(_) => Command::LeaveReply,
        PbCommand::GroupUpdate(update) => Command::GroupUpdate(GroupUpdate {
            op: match pb::GroupUpdateOp::try_from(update.op) {
                Ok(pb::GroupUpdateOp::Add) => GroupUpdateOp::Add,
                Ok(pb::GroupUpdateOp::Remove) => GroupUpdateOp::Remove,
                Ok(pb::GroupUpdateOp::Rejoin) => GroupUpdateOp::Rejoin,
                Err(_) => return Err(DecodeError::UnknownGroupUpdateOp(update.op)),
            },
            participant: update.participant.map(read_participant).transpose()?,
            participants: read_roster(update.participants)?,
            mls: update.mls.map(Into::into),
        }),
        PbCommand::GroupWelcome(welcome) => Command::GroupWelcome(GroupWelcome {
            participants: read_roster(welcome.participants)?,
            mls: welcome.mls.map(Into::into),
        }),
        PbCommand::GroupClose(close) => Command::GroupClose {
            participants: close
                .participants
                .into_iter()
                .map(|name| read_name(Some(name), "participant"))
                .collect::<Result<_, _>>()?,
        },
        PbCommand::GroupProposal(proposal) => Command::GroupProposal {
            source: read_name(proposal.source, "proposal source")?,
            mls_proposal: proposal.mls_proposal,
        },
        PbCommand::GroupAck(_) => Command::GroupAck,
        PbCommand::GroupNack(_) => Command::GroupNack,
        PbCommand::Heartbeat(pb::HeartbeatPayload { epoch }) => Command::Heartbeat { epoch },
        PbCommand::UpdateParticipantState(update) => {
            Command::UpdateParticipantState(UpdateParticipantState {
                new_state: update.new_state().into(),
                epoch: update.epoch,
                participant: read_name(update.participant, "participant")?,
            })
        }
        PbCommand::RejoinRequest(request) => Command::RejoinRequest(RejoinRequest {
            participant: read_name(request.participant, "participant")?,
            key_package: request.key_package,
        }),
        PbCommand::RejoinReply(reply) => Command::RejoinReply(RejoinReply {
            commit_id: reply.commit_id,
            welcome: reply.mls_content,
        }),
    })
}

impl From<&Command> for PbCommand {
    fn from(command: &Command) -> Self {
        match command {
            Command::DiscoveryRequest => Self::DiscoveryRequest(Default::default()),
            Command::DiscoveryReply => Self::DiscoveryReply(Default::default()),
            Command::JoinRequest(request) => Self::JoinRequest(request.into()),
            Command::JoinReply(reply) => Self::JoinReply(pb::JoinReplyPayload {
                key_package: reply.key_package.clone(),
                participant: Some((&reply.participant).into()),
            }),
            Command::LeaveRequest => Self::LeaveRequest(Default::default()),
            Command::LeaveReply => Self::LeaveReply(Default::default()),
            Command::GroupUpdate(update) => Self::GroupUpdate(pb::GroupUpdatePayload {
                op: match update.op {
                    GroupUpdateOp::Add => pb::GroupUpdateOp::Add,
                    GroupUpdateOp::Remove => pb::GroupUpdateOp::Remove,
                    GroupUpdateOp::Rejoin => pb::GroupUpdateOp::Rejoin,
                }
                .into(),
                participant: update.participant.as_ref().map(Into::into),
                participants: update.participants.iter().map(Into::into).collect(),
                mls: update.mls.as_ref().map(Into::into),
            }),
            Command::GroupWelcome(welcome) => Self::GroupWelcome(pb::GroupWelcomePayload {
                participants: welcome.participants.iter().map(Into::into).collect(),
                mls: welcome.mls.as_ref().map(Into::into),
            }),
            Command::GroupClose { participants } => Self::GroupClose(pb::GroupClosePayload {
                participants: participants.iter().map(Into::into).collect(),
            }),
            Command::GroupProposal { source, mls_proposal } => {
                Self::GroupProposal(pb::GroupProposalPayload {
                    source: Some(source.into()),
                    mls_proposal: mls_proposal.clone(),
                })
            }
            Command::GroupAck => Self::GroupAck(Default::default()),
            Command::GroupNack => Self::GroupNack(Default::default()),
            &Command::Heartbeat { epoch } => Self::Heartbeat(pb::HeartbeatPayload { epoch }),
            Command::UpdateParticipantState(update) => {
                Self::UpdateParticipantState(pb::UpdateParticipantStatePayload {
                    participant: Some((&update.participant).into()),
                    new_state: pb::ParticipantState::from(update.new_state).into(),
                    epoch: update.epoch,
                })
            }
            Command::RejoinRequest(request) => Self::RejoinRequest(pb::RejoinRequestPayload {
                participant: Some((&request.participant).into()),
                key_package: request.key_package.clone(),
            }),
            Command::RejoinReply(reply) => Self::RejoinReply(pb::RejoinReplyPayload {
                commit_id: reply.commit_id,
                mls_content: reply.welcome.clone(),
            }),
        }
    }
}

fn read_join_request(request: pb::JoinRequestPayload) -> Result<JoinRequest, DecodeError> {
    let channels = match (request.channel, request.control) {
        (None, None) => None,
        // One alone is an error that names the other.
        (data, control) => Some(Channels {
            data: read_name(data, "channel")?,
            control: read_name(control, "control")?,
        }),
    };
    Ok(JoinRequest {
        timer_settings: request.timer_settings.map(|timer| TimerSettings {
            timeout_ms: timer.timeout,
            max_retries: timer.max_retries,
        }),
        channels,
        mls_aad_percent: request.mls_settings.map(|mls| mls.header_integrity_validation_percent),
    })
}

impl From<&JoinRequest> for pb::JoinRequestPayload {
    fn from(request: &JoinRequest) -> Self {
        let channels = request.channels.as_ref();
        Self {
            timer_settings: request.timer_settings.map(|timer| pb::TimerSettings {
                timeout: timer.timeout_ms,
                max_retries: timer.max_retries,
            }),
            channel: channels.map(|channels| (&channels.data).into()),
            control: channels.map(|channels| (&channels.control).into()),
            mls_settings: request.mls_aad_percent.map(|header_integrity_validation_percent| {
                pb::MlsSettings { header_integrity_validation_percent }
            }),
        }
    }
}

fn read_roster(participants: Vec<pb::Participant>) -> Result<Vec<Participant>, DecodeError> {
    participants.into_iter().map(read_participant).collect()
}

fn read_participant(participant: pb::Participant) -> Result<Participant, DecodeError> {
    let status = participant.status().into();
    let settings = participant.settings.ok_or(DecodeError::Missing("participant settings"))?;
    Ok(Participant {
        name: read_name(participant.name, "participant")?,
        sends_data: settings.sends_data,
        receives_data: settings.receives_data,
        status,
    })
}

impl From<&Participant> for pb::Participant {
    fn from(participant: &Participant) -> Self {
        Self {
            name: Some((&participant.name).into()),
            settings: Some(pb::ParticipantSettings {
                sends_data: participant.sends_data,
                receives_data: participant.receives_data,
            }),
            status: pb::ParticipantState::from(participant.status).into(),
        }
    }
}

impl From<pb::ParticipantState> for ParticipantState {
    fn from(state: pb::ParticipantState) -> Self {
        match state {
            pb::ParticipantState::Online => Self::Online,
            pb::ParticipantState::Offline => Self::Offline,
        }
    }
}

impl From<ParticipantState> for pb::ParticipantState {
    fn from(state: ParticipantState) -> Self {
        match state {
            ParticipantState::Online => Self::Online,
            ParticipantState::Offline => Self::Offline,
        }
    }
}

impl From<pb::MlsPayload> for MlsPayload {
    fn from(payload: pb::MlsPayload) -> Self {
        Self { commit_id: payload.commit_id, mls_content: payload.mls_content }
    }
}

impl From<&MlsPayload> for pb::MlsPayload {
    fn from(payload: &MlsPayload) -> Self {
        Self { commit_id: payload.commit_id, mls_content: payload.mls_content.clone() }
    }
}
