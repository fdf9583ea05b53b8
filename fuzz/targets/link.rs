//! Whatever a peer sends over a link, in whatever pieces.
#![no_main]

use arbitrary::Arbitrary;
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use slim_link::fuzzing::{self, Established};
use slim_link::{Drops, LinkEnd, NegotiationError};
use slim_proto::{ConnectionType, Frame, LinkNegotiation, Message};

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    /// We dial, instead of accepting.
    dials: bool,
    require_mac: bool,
    first: First<'a>,
    frames: Vec<Sent<'a>>,
    /// Lengths of the pieces that everything comes in.
    pieces: Vec<u8>,
}

#[derive(Arbitrary, Debug)]
enum First<'a> {
    Bytes(&'a [u8]),
    Message(&'a [u8]),
    Negotiation(Negotiation<'a>),
}

/// One that is nearly right, or is.
#[derive(Arbitrary, Debug)]
struct Negotiation<'a> {
    link_id: Option<&'a str>,
    slim_version: Option<&'a str>,
    node_id: Option<&'a str>,
    deployment_name: &'a str,
    other_direction: bool,
    ecdh_public_key: Option<&'a [u8]>,
    connection_type: u8,
    kem: Kem<'a>,
}

#[derive(Arbitrary, Debug)]
enum Kem<'a> {
    None,
    /// Zeros are a key by the rules of FIPS 203.
    Zeros,
    /// Of the right length.
    Filled(u8),
    Bytes(&'a [u8]),
}

#[derive(Arbitrary, Debug)]
struct Sent<'a> {
    /// With the MAC of the link.
    is_signed: bool,
    frame: &'a [u8],
}

fuzz_target!(|input: Input<'_>| {
    let first = first(&input);
    let whole = play(&input, &first, &[]);
    let pieces = play(&input, &first, &input.pieces);
    match (&whole, &pieces) {
        // How it came makes no difference.
        (Ok(whole), Ok(pieces)) => assert_eq!(whole, pieces),
        (Err(whole), Err(pieces)) => assert_eq!(whole, pieces),
        _ => panic!("{whole:?} {pieces:?}"),
    }
});

type Outcome = (Vec<Bytes>, Drops, LinkEnd);

fn play(input: &Input<'_>, first: &Bytes, pieces: &[u8]) -> Result<Outcome, NegotiationError> {
    let first = cut(first, pieces);
    let link = match input.dials {
        true => fuzzing::dial(first, input.require_mac)?,
        false => fuzzing::accept(first, input.require_mac)?,
    };
    check(&link, input);
    let link_type = link.peer.connection_type;
    let mut macs = Vec::new();
    let mut bytes = Vec::new();
    for sent in &input.frames {
        let frame = Bytes::copy_from_slice(sent.frame);
        let signed = sent.is_signed.then(|| link.signed(frame.clone())).flatten();
        macs.extend(signed.clone().and_then(mac_of));
        bytes.extend_from_slice(&fuzzing::framed(&signed.unwrap_or(frame)));
    }
    let (frames, drops, end) = link.receive(cut(&bytes.into(), pieces));
    // Peers pass on the MACs of other links.
    if input.require_mac && link_type != ConnectionType::Peer {
        for frame in frames.iter().filter(|frame| frame.routed().is_some()) {
            let mac = mac_of(frame.bytes().clone()).expect("what passes has a MAC");
            assert!(macs.contains(&mac), "a MAC that nobody made");
        }
    }
    Ok((frames.iter().map(|frame| frame.bytes().clone()).collect(), drops, end))
}

/// What was agreed on is within its bounds, and the other side agrees.
fn check(link: &Established, input: &Input<'_>) {
    let peer = &link.peer;
    let texts = [&peer.link_id, &peer.slim_version, &peer.node_id, &peer.deployment_name];
    assert!(texts.iter().all(|text| text.len() <= slim_link::MAX_ID_LEN));
    assert!(!input.require_mac || peer.ecdh_public_key.len() == 32);
    let Some(reply) = &link.reply else {
        let (link_id, connection_type) = (&*peer.link_id, peer.connection_type);
        return assert_eq!((link_id, connection_type), (fuzzing::LINK_ID, ConnectionType::Edge));
    };
    assert_eq!((&reply.link_id, reply.is_reply), (&peer.link_id, true));
    let is_peer = peer.connection_type == ConnectionType::Peer;
    assert!(!is_peer || peer.node_id == fuzzing::PEER, "nobody is a peer by saying so");
    let request = fuzzing::request();
    let is_ours = peer.link_id == request.link_id
        && peer.ecdh_public_key == request.ecdh_public_key
        && peer.kem_payload.is_none();
    if is_ours {
        let reply = fuzzing::framed(&Message::Link(reply.clone()).encode());
        let dialler = fuzzing::dial([reply], true).expect("it takes the reply");
        assert!(link.agrees_with(&dialler));
    }
}

fn first(input: &Input<'_>) -> Bytes {
    match &input.first {
        First::Bytes(bytes) => Bytes::copy_from_slice(bytes),
        First::Message(message) => fuzzing::framed(message),
        First::Negotiation(negotiation) => {
            fuzzing::framed(&Message::Link(negotiation.build(input.dials)).encode())
        }
    }
}

impl Negotiation<'_> {
    fn build(&self, is_reply: bool) -> LinkNegotiation {
        let usual = fuzzing::request();
        let text = |text: Option<&str>, usual: String| text.map_or(usual, str::to_owned);
        LinkNegotiation {
            link_id: text(self.link_id, usual.link_id),
            slim_version: text(self.slim_version, usual.slim_version),
            is_reply: is_reply != self.other_direction,
            ecdh_public_key: self
                .ecdh_public_key
                .map_or(usual.ecdh_public_key, Bytes::copy_from_slice),
            connection_type: match self.connection_type % 3 {
                0 => ConnectionType::Edge,
                1 => ConnectionType::Remote,
                _ => ConnectionType::Peer,
            },
            node_id: text(self.node_id, fuzzing::PEER.to_owned()),
            deployment_name: self.deployment_name.to_owned(),
            kem_payload: match self.kem {
                Kem::None => None,
                Kem::Zeros => Some(Bytes::from_static(&[0; 1184])),
                Kem::Filled(byte) => Some(vec![byte; 1184].into()),
                Kem::Bytes(bytes) => Some(Bytes::copy_from_slice(bytes)),
            },
        }
    }
}

fn mac_of(frame: Bytes) -> Option<Bytes> {
    Frame::parse(frame).ok()?.routed()?.mac().map(Bytes::copy_from_slice)
}

/// In pieces of these lengths, the rest as it is.
fn cut(bytes: &Bytes, lengths: &[u8]) -> Vec<Bytes> {
    let mut rest = bytes.clone();
    let mut pieces: Vec<Bytes> =
        lengths.iter().map(|length| rest.split_to(rest.len().min((*length).into()))).collect();
    pieces.push(rest);
    pieces
}
