//! The exact bytes that are MACed, signed and authenticated.
//!
//! All of them are computed from values, not from what arrived: each party
//! builds them again, so any difference in presence or order is a failure there.
//! Also here: the metadata keys of the session layer, since what a signature
//! covers depends on some of them.

use prost::Message as _;

use crate::{Body, Header, Name, Publish, pb, wire::halves};

/// Metadata key: base64 of the signature over [`payload_signing_input`].
pub const PAYLOAD_SIGNATURE: &str = "slim-payload-sig";
/// Metadata key: the verified subject of the sender. Set by a receiver for its
/// application only, and removed from whatever arrives.
pub const PEER_SUBJECT: &str = "slim-peer-subject";
/// Metadata key: a message for one member of a group, outside the order.
pub const PUBLISH_TO: &str = "PUBLISH_TO";
/// Metadata key: this leave request is the sender's own wish.
pub const LEAVING_SESSION: &str = "LEAVING_SESSION";
/// Metadata key: internal to other implementations, never to be sent.
pub const LEAVE_REPLY_SENT: &str = "LEAVE_REPLY_SENT";
/// Metadata key: reserved.
pub const DELETE_GROUP: &str = "DELETE_GROUP";
/// Metadata keys of the W3C trace context, which nodes may change.
pub const TRACE_CONTEXT: [&str; 3] = ["traceparent", "tracestate", "baggage"];

/// Value of a metadata entry that says yes. Receivers look at the key alone.
pub const TRUE: &str = "TRUE";

/// Whether an application's metadata cannot have this key, because the session
/// layer would read it. The trace context is the application's to set.
pub fn is_reserved(key: &str) -> bool {
    [
        PAYLOAD_SIGNATURE,
        PEER_SUBJECT,
        PUBLISH_TO,
        LEAVING_SESSION,
        LEAVE_REPLY_SENT,
        DELETE_GROUP,
    ]
    .contains(&key)
}

/// What a link's header MAC is computed over. Little-endian throughout;
/// optional values carry a presence byte.
///
/// Covers the values as they are: decrement the ttl and clear `recv_from` and
/// `forward_to` first.
pub fn mac_preimage(link_id: &str, header: &Header) -> Vec<u8> {
    let mut out = Vec::with_capacity(256 + header.identity.len());
    out.extend_from_slice(b"SLIM-DP-HDR-v1\0");
    put_bytes(&mut out, link_id);
    put_name(&mut out, &header.source);
    put_name(&mut out, &header.destination);
    put_bytes(&mut out, &header.identity);
    out.extend_from_slice(&header.fanout.to_le_bytes());
    put_option(&mut out, header.recv_from.map(u64::to_le_bytes));
    put_option(&mut out, header.forward_to.map(u64::to_le_bytes));
    put_option(&mut out, header.error.map(|error| [u8::from(error)]));
    out.extend_from_slice(&header.ttl.to_le_bytes());
    out
}

fn put_name(out: &mut Vec<u8>, name: &Name) {
    // A name and its encoded part are always there once decoded.
    out.extend_from_slice(&[1, 1]);
    for component in name.components() {
        out.extend_from_slice(&component.to_le_bytes());
    }
    put_option(
        out,
        name.wire_id()
            .map(|id| halves(id).map(u64::to_le_bytes).concat()),
    );
    match name.text() {
        None => out.push(0),
        Some(text) => {
            out.push(1);
            text.iter().for_each(|part| put_bytes(out, part));
        }
    }
}

fn put_option(out: &mut Vec<u8>, value: Option<impl AsRef<[u8]>>) {
    match value {
        None => out.push(0),
        Some(value) => {
            out.push(1);
            out.extend_from_slice(value.as_ref());
        }
    }
}

fn put_bytes(out: &mut Vec<u8>, text: &str) {
    // Lengths on the wire are below 4 MiB.
    out.extend_from_slice(&(text.len() as u32).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// The encoded `HeaderIntegrityAad` of a message: what a command's header
/// signature signs, and the `authenticated_data` of encrypted data.
///
/// Covers the identity token, so set that first.
pub fn header_aad(publish: &Publish) -> Vec<u8> {
    let header = &publish.header;
    pb::HeaderIntegrityAad {
        version: 1,
        source: Some((&header.source).into()),
        destination: Some((&header.destination).into()),
        identity: header.identity.clone(),
        session_type: pb::SessionType::from(publish.session_type).into(),
        session_message_type: publish.body.message_type() as i32,
        session_id: publish.session_id.0,
        message_id: publish.message_id,
        payload_type: publish.body.payload_type().to_owned(),
    }
    .encode_to_vec()
}

/// The encoded `Content` of a message.
pub fn content_bytes(body: &Body) -> Vec<u8> {
    pb::Content::from(body).encode_to_vec()
}

/// What a command's payload signature signs: its [`header_aad`], its
/// content, and all metadata but the trace context and the two keys that are
/// not the sender's to sign.
pub fn payload_signing_input(aad: &[u8], publish: &Publish) -> Vec<u8> {
    let content = content_bytes(&publish.body);
    let mut out = Vec::with_capacity(64 + aad.len() + content.len());
    let mut put = |part: &[u8]| {
        out.extend_from_slice(&(part.len() as u64).to_be_bytes());
        out.extend_from_slice(part);
    };
    put(aad);
    put(&content);
    for (key, value) in &publish.metadata {
        let key = key.as_str();
        if key != PAYLOAD_SIGNATURE && key != PEER_SUBJECT && !TRACE_CONTEXT.contains(&key) {
            put(key.as_bytes());
            put(value.as_bytes());
        }
    }
    [b"slim-payload-v1", &out[..]].concat()
}
