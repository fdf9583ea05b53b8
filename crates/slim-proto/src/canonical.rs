//! The exact bytes that are MACed, signed and authenticated.
//!
//! All of them are computed from values, not from what arrived: each party
//! builds them again, so any difference in presence or order is a failure there.
//! Also here: the metadata keys of the session layer, since what a signature
//! covers depends on some of them.

use prost::Message as _;

use crate::{Body, Header, Name, NameId, Publish, pb, wire::halves};

/// Metadata key: base64 of the signature over [`payload_signing_input`].
pub const PAYLOAD_SIGNATURE: &str = "slim-payload-sig";
/// Metadata key: the verified subject of the sender. Set by a receiver for its
/// application only, and removed from whatever arrives.
pub const PEER_SUBJECT: &str = "slim-peer-subject";
/// Metadata key of a GROUP_NACK: why an invitation is refused, in words: the identities do
/// not verify. Not known to other implementations.
pub const REFUSAL: &str = "slim-refusal";
/// Metadata key of a GROUP_NACK: why the application does not want to join, in words. Not
/// known to other implementations.
pub const DECLINED: &str = "slim-declined";
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
        REFUSAL,
        DECLINED,
    ]
    .contains(&key)
}

/// What a link's header MAC is computed over. Little-endian throughout;
/// optional values carry a presence byte.
///
/// Covers the values as they are: decrement the ttl and clear `recv_from` and
/// `forward_to` first.
pub fn mac_preimage(link_id: &str, header: &Header) -> Vec<u8> {
    let mut out = mac_prefix(link_id);
    MacFields {
        source: MacName::from(&header.source),
        destination: MacName::from(&header.destination),
        identity: header.identity.as_bytes(),
        fanout: header.fanout,
        recv_from: header.recv_from,
        forward_to: header.forward_to,
        error: header.error,
        ttl: header.ttl,
    }
    .put(&mut out);
    out
}

/// The part of [`mac_preimage`] that is the same for each message of a link.
pub fn mac_prefix(link_id: &str) -> Vec<u8> {
    let mut out = b"SLIM-DP-HDR-v1\0".to_vec();
    put_bytes(&mut out, link_id.as_bytes());
    out
}

/// The part of [`mac_preimage`] after the link's id, read from a [`Header`] or
/// from the bytes of a frame.
pub(crate) struct MacFields<'a> {
    pub(crate) source: MacName<'a>,
    pub(crate) destination: MacName<'a>,
    pub(crate) identity: &'a [u8],
    pub(crate) fanout: u32,
    pub(crate) recv_from: Option<u64>,
    pub(crate) forward_to: Option<u64>,
    pub(crate) error: Option<bool>,
    pub(crate) ttl: u32,
}

/// A name and its encoded part are always there once read.
pub(crate) struct MacName<'a> {
    pub(crate) components: [u64; 3],
    pub(crate) id: Option<NameId>,
    pub(crate) text: Option<[&'a [u8]; 3]>,
}

impl<'a> From<&'a Name> for MacName<'a> {
    fn from(name: &'a Name) -> Self {
        Self {
            components: name.components(),
            id: name.wire_id(),
            text: name.text().map(|text| text.each_ref().map(|part| part.as_bytes())),
        }
    }
}

impl MacFields<'_> {
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        self.source.put(out);
        self.destination.put(out);
        put_bytes(out, self.identity);
        out.extend_from_slice(&self.fanout.to_le_bytes());
        put_option(out, self.recv_from.map(u64::to_le_bytes));
        put_option(out, self.forward_to.map(u64::to_le_bytes));
        put_option(out, self.error.map(|error| [u8::from(error)]));
        out.extend_from_slice(&self.ttl.to_le_bytes());
    }
}

impl MacName<'_> {
    fn put(&self, out: &mut Vec<u8>) {
        // The name is there, and so is its encoded part.
        out.extend_from_slice(&[1, 1]);
        for component in self.components {
            out.extend_from_slice(&component.to_le_bytes());
        }
        match self.id.map(halves) {
            None => out.push(0),
            Some([id_0, id_1]) => {
                out.push(1);
                out.extend_from_slice(&id_0.to_le_bytes());
                out.extend_from_slice(&id_1.to_le_bytes());
            }
        }
        match self.text {
            None => out.push(0),
            Some(text) => {
                out.push(1);
                text.iter().for_each(|part| put_bytes(out, part));
            }
        }
    }
}

fn put_option<const N: usize>(out: &mut Vec<u8>, value: Option<[u8; N]>) {
    match value {
        None => out.push(0),
        Some(value) => {
            out.push(1);
            out.extend_from_slice(&value);
        }
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    // Lengths on the wire are below 4 MiB.
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
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
