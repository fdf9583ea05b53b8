//! Frames that no engine would send: real ones or plain ones, altered field by
//! field, then signed by who is hostile.

use std::collections::BTreeMap;

use arbitrary::Arbitrary;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use rand::{SeedableRng as _, rngs::StdRng};
use ring::hmac;
use slim_auth::{Identity as _, SharedSecret};
use slim_proto::{
    AppPayload, Body, Command, GroupUpdate, GroupUpdateOp, GroupWelcome, Header, JoinReply,
    JoinRequest, Message, MlsPayload, Name, NameId, Participant, ParticipantState, Publish,
    RejoinReply, RejoinRequest, SessionType, TimerSettings, UNICAST, UpdateParticipantState,
    canonical,
};

use crate::world::{APPS, SECRET, World};

/// Edits of one frame; more than these are not looked at.
const MAX_EDITS: usize = 8;

#[derive(Arbitrary, Debug)]
pub(crate) struct Forgery {
    base: Base,
    edits: Vec<Edit>,
    signer: Signer,
    to: u8,
}

#[derive(Arbitrary, Debug)]
enum Base {
    /// A publish that was sent before.
    Recorded(u8),
    /// A plain one of this kind.
    Plain { kind: u8, session: u8, about: NameOf },
}

#[derive(Arbitrary, Debug)]
enum Signer {
    /// As it is.
    Nobody,
    /// The hostile one with its own token, whatever the source says.
    Hostile,
    /// The hostile one, under its own name.
    HostileName,
    /// With a token for somebody's subject and the hostile one's key.
    Minted(u8),
}

/// A name that means something here.
#[derive(Arbitrary, Debug)]
pub(crate) enum NameOf {
    App(u8),
    AnyInstance(u8),
    WithoutText(u8),
    Other(u8, u8),
    Data(u8),
    Control(u8),
}

#[derive(Arbitrary, Debug)]
enum Edit {
    /// A byte of the encoded message.
    Byte {
        at: u16,
        value: u8,
    },
    Source(NameOf),
    Destination(NameOf),
    Session(u8),
    SessionType(bool),
    MessageId(u32),
    /// The id of another frame: what is answered, or a copy.
    MessageIdOf(u8),
    Fanout(u32),
    Error(Option<bool>),
    Metadata {
        key: u8,
        value: u8,
    },
    /// A name in what is said.
    Name {
        which: u8,
        name: NameOf,
    },
    /// Bytes in what is said become those of another frame.
    Blob {
        which: u8,
        of: u8,
    },
    BlobByte {
        which: u8,
        at: u16,
        value: u8,
    },
    BlobCut {
        which: u8,
        at: u16,
    },
    /// A commit id or an epoch.
    Number(u8),
    Operation(u8),
    Row {
        which: u8,
        name: NameOf,
        flags: u8,
    },
    NoRows,
    ManyRows(u16),
    NoMls,
    Timers {
        timeout_ms: u32,
        max_retries: u32,
    },
}

impl Forgery {
    pub(crate) fn play(&self, world: &mut World) {
        let base = match &self.base {
            Base::Recorded(which) => world.recorded(*which).cloned(),
            Base::Plain { kind, session, about } => Some(plain(world, *kind, *session, about)),
        };
        let Some(mut publish) = base else { return };
        for edit in self.edits.iter().take(MAX_EDITS) {
            edit.apply(world, &mut publish);
        }
        match &self.signer {
            Signer::Nobody => {}
            Signer::Hostile => sign(world, &mut publish, None),
            Signer::HostileName => {
                publish.header.source = world.name(world.hostile);
                sign(world, &mut publish, None);
            }
            Signer::Minted(app) => {
                let app = usize::from(*app) % APPS;
                world.is_anybody = true;
                publish.header.source = world.name(app);
                sign(world, &mut publish, Some(app));
            }
        }
        world.receive(usize::from(self.to) % APPS, Message::Publish(publish));
    }
}

impl NameOf {
    pub(crate) fn build(&self, world: &World) -> Name {
        let app = |app: u8| world.name(usize::from(app) % APPS);
        match *self {
            Self::App(which) => app(which),
            Self::AnyInstance(which) => app(which).without_id(),
            Self::WithoutText(which) => app(which).without_text(),
            Self::Other(which, id) => app(which).with_id(NameId(id.into())),
            Self::Data(of) => channels(world, of).data,
            Self::Control(of) => channels(world, of).control,
        }
    }
}

/// Those that an application would create.
fn channels(world: &World, of: u8) -> slim_proto::Channels {
    world.channel().channels(world.apps[usize::from(of) % APPS].identity.subject())
}

// -------------------------------------------------------------------- frames

fn row(name: Name) -> Participant {
    let status = ParticipantState::Online;
    Participant { name, sends_data: true, receives_data: true, status }
}

fn plain(world: &World, kind: u8, session: u8, about: &NameOf) -> Publish {
    let about = about.build(world);
    let hostile = world.name(world.hostile);
    let everybody = || (0..APPS).map(|app| row(world.name(app))).collect();
    let mls = || Some(MlsPayload { commit_id: 1, mls_content: Bytes::new() });
    let payload = AppPayload { payload_type: String::new(), blob: Bytes::from_static(b"forged") };
    let command = match kind % 20 {
        0 => Command::DiscoveryRequest,
        1 => Command::DiscoveryReply,
        2 => Command::JoinRequest(JoinRequest {
            timer_settings: Some(TimerSettings { timeout_ms: 1000, max_retries: 3 }),
            channels: Some(channels(world, world.hostile as u8)),
            mls_aad_percent: None,
        }),
        3 => Command::JoinRequest(JoinRequest {
            timer_settings: None,
            channels: None,
            mls_aad_percent: Some(100),
        }),
        4 => Command::JoinReply(JoinReply {
            key_package: Some(Bytes::new()),
            participant: row(about.clone()),
        }),
        5 => Command::LeaveRequest,
        6 => Command::LeaveReply,
        7 => Command::GroupUpdate(GroupUpdate {
            op: GroupUpdateOp::Add,
            participant: Some(row(about.clone())),
            participants: everybody(),
            mls: mls(),
        }),
        8 => Command::GroupWelcome(GroupWelcome { participants: everybody(), mls: mls() }),
        9 => Command::GroupClose { participants: vec![about.clone()] },
        10 => Command::GroupProposal { source: about.clone(), mls_proposal: Bytes::new() },
        11 => Command::GroupAck,
        12 => Command::GroupNack,
        13 => Command::Heartbeat { epoch: 1 },
        14 => Command::UpdateParticipantState(UpdateParticipantState {
            participant: about.clone(),
            new_state: ParticipantState::Offline,
            epoch: 1,
        }),
        15 => Command::RejoinRequest(RejoinRequest {
            participant: about.clone(),
            key_package: Bytes::new(),
        }),
        16 => Command::RejoinReply(RejoinReply { commit_id: 1, welcome: Bytes::new() }),
        17 => return envelope(world, hostile, about, session, Body::Msg(payload)),
        18 => return envelope(world, hostile, about, session, Body::RtxReply(payload)),
        _ => {
            let body = if session % 2 == 0 { Body::MsgAck } else { Body::RtxRequest };
            return envelope(world, hostile, about, session / 2, body);
        }
    };
    envelope(world, hostile, about, session, Body::Command(command))
}

fn envelope(world: &World, from: Name, to: Name, session: u8, body: Body) -> Publish {
    Publish {
        header: Header::new(from, to, UNICAST),
        session_type: SessionType::Multicast,
        session_id: world.session(session),
        message_id: 1,
        body,
        metadata: BTreeMap::new(),
    }
}

// -------------------------------------------------------------------- edits

impl Edit {
    fn apply(&self, world: &World, publish: &mut Publish) {
        match self {
            Self::Byte { at, value } => {
                let mut bytes = Message::Publish(publish.clone()).encode().to_vec();
                let at = usize::from(*at) % bytes.len();
                bytes[at] = *value;
                if let Ok(Message::Publish(altered)) = Message::decode(bytes.into()) {
                    *publish = altered;
                }
            }
            Self::Source(name) => publish.header.source = name.build(world),
            Self::Destination(name) => publish.header.destination = name.build(world),
            Self::Session(session) => publish.session_id = world.session(*session),
            Self::SessionType(is_p2p) => {
                publish.session_type =
                    if *is_p2p { SessionType::PointToPoint } else { SessionType::Multicast };
            }
            Self::MessageId(id) => publish.message_id = *id,
            Self::MessageIdOf(which) => {
                if let Some(other) = world.recorded(*which) {
                    publish.message_id = other.message_id;
                }
            }
            Self::Fanout(fanout) => publish.header.fanout = *fanout,
            Self::Error(error) => publish.header.error = *error,
            Self::Metadata { key, value } => {
                let keys = [
                    canonical::PAYLOAD_SIGNATURE,
                    canonical::PEER_SUBJECT,
                    canonical::PUBLISH_TO,
                    canonical::LEAVING_SESSION,
                    canonical::LEAVE_REPLY_SENT,
                    canonical::DELETE_GROUP,
                    "other",
                ];
                let key = keys[usize::from(*key) % keys.len()];
                publish.metadata.insert(key.to_owned(), value.to_string());
            }
            Self::Name { which, name } => {
                let mut names = names(&mut publish.body);
                if let Some(at) = pick(&mut names, *which) {
                    **at = name.build(world);
                }
            }
            Self::Blob { which, of } => {
                let blobs_sent = world.all_recorded().filter_map(|publish| {
                    blobs(&mut publish.body.clone()).first().map(|blob| (**blob).clone())
                });
                let other = blobs_sent.filter(|blob| !blob.is_empty()).nth((*of).into());
                if let (Some(blob), Some(other)) =
                    (pick(&mut blobs(&mut publish.body), *which), other)
                {
                    **blob = other;
                }
            }
            Self::BlobByte { which, at, value } => {
                if let Some(blob) = pick(&mut blobs(&mut publish.body), *which)
                    && !blob.is_empty()
                {
                    let mut bytes = blob.to_vec();
                    let at = usize::from(*at) % bytes.len();
                    bytes[at] = *value;
                    **blob = bytes.into();
                }
            }
            Self::BlobCut { which, at } => {
                if let Some(blob) = pick(&mut blobs(&mut publish.body), *which) {
                    blob.truncate((*at).into());
                }
            }
            Self::Number(number) => set_number(&mut publish.body, (*number).into()),
            Self::Operation(op) => {
                if let Body::Command(Command::GroupUpdate(update)) = &mut publish.body {
                    update.op = match op % 3 {
                        0 => GroupUpdateOp::Add,
                        1 => GroupUpdateOp::Remove,
                        _ => GroupUpdateOp::Rejoin,
                    };
                    if op & 64 != 0 {
                        update.participant = None;
                    }
                }
            }
            Self::Row { which, name, flags } => {
                if let Some(rows) = rows(&mut publish.body) {
                    let status = match flags & 4 {
                        0 => ParticipantState::Online,
                        _ => ParticipantState::Offline,
                    };
                    let row = Participant {
                        name: name.build(world),
                        sends_data: flags & 1 == 0,
                        receives_data: flags & 2 == 0,
                        status,
                    };
                    rows.insert(usize::from(*which) % (rows.len() + 1), row);
                }
            }
            Self::NoRows => {
                if let Some(rows) = rows(&mut publish.body) {
                    rows.clear();
                }
            }
            Self::ManyRows(count) => {
                if let Some(rows) = rows(&mut publish.body) {
                    let name = world.name(0);
                    let new = |id: u16| row(name.with_id(NameId(id.into())));
                    rows.extend((0..count % 300).map(new));
                }
            }
            Self::NoMls => match &mut publish.body {
                Body::Command(Command::GroupUpdate(update)) => update.mls = None,
                Body::Command(Command::GroupWelcome(welcome)) => welcome.mls = None,
                Body::Command(Command::JoinReply(reply)) => reply.key_package = None,
                _ => {}
            },
            Self::Timers { timeout_ms, max_retries } => {
                if let Body::Command(Command::JoinRequest(request)) = &mut publish.body {
                    let (timeout_ms, max_retries) = (*timeout_ms, *max_retries);
                    request.timer_settings = Some(TimerSettings { timeout_ms, max_retries });
                }
            }
        }
    }
}

fn pick<T>(list: &mut [T], which: u8) -> Option<&mut T> {
    let count = list.len().max(1);
    list.get_mut(usize::from(which) % count)
}

/// The names in what is said.
fn names(body: &mut Body) -> Vec<&mut Name> {
    let Body::Command(command) = body else { return Vec::new() };
    match command {
        Command::JoinRequest(request) => {
            request.channels.iter_mut().flat_map(|c| [&mut c.data, &mut c.control]).collect()
        }
        Command::JoinReply(reply) => vec![&mut reply.participant.name],
        Command::GroupUpdate(update) => (update.participant.iter_mut())
            .chain(&mut update.participants)
            .map(|row| &mut row.name)
            .collect(),
        Command::GroupWelcome(welcome) => {
            welcome.participants.iter_mut().map(|row| &mut row.name).collect()
        }
        Command::GroupClose { participants } => participants.iter_mut().collect(),
        Command::GroupProposal { source, .. } => vec![source],
        Command::UpdateParticipantState(update) => vec![&mut update.participant],
        Command::RejoinRequest(request) => vec![&mut request.participant],
        _ => Vec::new(),
    }
}

/// What is not for the session layer to read: MLS, or data.
fn blobs(body: &mut Body) -> Vec<&mut Bytes> {
    match body {
        Body::Msg(payload) | Body::RtxReply(payload) => vec![&mut payload.blob],
        Body::MsgAck | Body::RtxRequest => Vec::new(),
        Body::Command(command) => match command {
            Command::JoinReply(reply) => reply.key_package.iter_mut().collect(),
            Command::GroupUpdate(update) => {
                update.mls.iter_mut().map(|mls| &mut mls.mls_content).collect()
            }
            Command::GroupWelcome(welcome) => {
                welcome.mls.iter_mut().map(|mls| &mut mls.mls_content).collect()
            }
            Command::GroupProposal { mls_proposal, .. } => vec![mls_proposal],
            Command::RejoinRequest(request) => vec![&mut request.key_package],
            Command::RejoinReply(reply) => vec![&mut reply.welcome],
            _ => Vec::new(),
        },
    }
}

fn rows(body: &mut Body) -> Option<&mut Vec<Participant>> {
    match body {
        Body::Command(Command::GroupUpdate(update)) => Some(&mut update.participants),
        Body::Command(Command::GroupWelcome(welcome)) => Some(&mut welcome.participants),
        _ => None,
    }
}

fn set_number(body: &mut Body, number: u32) {
    // The ends of the range count most.
    let number = if number >= 250 { u32::MAX - (255 - number) } else { number };
    let Body::Command(command) = body else { return };
    match command {
        Command::GroupUpdate(update) => {
            update.mls.iter_mut().for_each(|mls| mls.commit_id = number);
        }
        Command::GroupWelcome(welcome) => {
            welcome.mls.iter_mut().for_each(|mls| mls.commit_id = number);
        }
        Command::RejoinReply(reply) => reply.commit_id = number,
        Command::Heartbeat { epoch } => *epoch = number.into(),
        Command::UpdateParticipantState(update) => update.epoch = number.into(),
        _ => {}
    }
}

// -------------------------------------------------------------------- signatures

/// Signs with the hostile one's key, with its own token or one for the subject of
/// another.
fn sign(world: &World, publish: &mut Publish, subject_of: Option<usize>) {
    let hostile = &world.apps[world.hostile];
    let unix = world.now(world.hostile).unix;
    publish.header.identity = match subject_of {
        None => hostile.identity.token(unix, &mut StdRng::seed_from_u64(7)).expect("a token"),
        Some(app) => minted(world.apps[app].identity.subject(), &hostile.identity, unix),
    };
    if !matches!(publish.body, Body::Command(_)) {
        return;
    }
    let key = hostile.identity.key();
    let aad = canonical::header_aad(publish);
    publish.header.e2e_header_sig = Some(key.sign(&aad).expect("a signature").into());
    let input = canonical::payload_signing_input(&aad, publish);
    let signature = STANDARD.encode(key.sign(&input).expect("a signature"));
    publish.metadata.insert(canonical::PAYLOAD_SIGNATURE.to_owned(), signature);
}

fn minted(subject: &str, identity: &SharedSecret, unix: u64) -> String {
    let claims = format!("{{\"pubkey\":\"{}\"}}", identity.key().public_key().to_base64());
    let (nonce, claims) = (URL_SAFE_NO_PAD.encode([7; 12]), URL_SAFE_NO_PAD.encode(claims));
    let text = format!("{subject}:{unix}:{nonce}:{claims}");
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let mac = URL_SAFE_NO_PAD.encode(hmac::sign(&key, text.as_bytes()));
    format!("{text}:{mac}")
}
