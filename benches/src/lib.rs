//! What the benchmarks measure with: messages like those of a real conversation, and
//! clients that are links and nothing else.

pub mod client;
pub mod engines;
pub mod yardstick;

use bytes::Bytes;
use slim_proto::{
    AppPayload, BROADCAST, Body, Header, Message, Name, NameId, Publish, SessionId, SessionType,
};

/// Payload lengths in bytes: a few words, a paragraph, an image.
pub const PAYLOADS: [usize; 3] = [32, 1024, 64 * 1024];

/// The channel that everybody subscribes to.
///
/// # Panics
/// If the text were no name, which it is.
pub fn channel() -> Name {
    name("agntcy/ns/chat")
}

/// An application with an id.
///
/// # Panics
/// If the number made no name, which it does.
pub fn member(number: usize) -> Name {
    name(&format!("agntcy/ns/client-{number}")).with_id(NameId(1 + number as u128))
}

/// A token of typical length.
pub fn identity() -> String {
    "t".repeat(232)
}

/// A data message to all of [`channel`], with `payload` bytes of payload and a
/// token, as a member with MLS sends it.
pub fn publish(payload: usize) -> Message {
    let header = Header {
        identity: identity(),
        header_mac: Some(Bytes::from_static(&[7; 32])),
        ..Header::new(member(0), channel(), BROADCAST)
    };
    Message::Publish(Publish {
        header,
        session_type: SessionType::Multicast,
        session_id: SessionId(1),
        message_id: 1,
        body: Body::Msg(AppPayload {
            payload_type: "msg".to_owned(),
            blob: vec![0x5A; payload].into(),
        }),
        metadata: [].into(),
    })
}

fn name(text: &str) -> Name {
    text.parse().expect("three parts")
}
