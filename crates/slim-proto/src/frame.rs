//! The received bytes of a message, with a view of its header.
//!
//! A node forwards what it received: it reads the header, checks that the rest
//! is well-formed, and changes the hop count and the MAC. The payload is one
//! [`Bytes`] for all subscribers, and what the sender signed is never rewritten.

mod scan;
mod schema;

use std::fmt;

use bytes::{BufMut, Bytes};

use crate::canonical::{MacFields, MacName};
use crate::{MAX_MESSAGE_LEN, Name, NameId, RouteName};
use scan::{Field, Fields, Span, put_varint};

/// One element of a link's stream, as it was received.
pub enum Frame {
    /// The link's own negotiation. Means nothing on an established link.
    Link(Bytes),
    /// An answer to a subscription of the receiver.
    SubscriptionAck(Bytes),
    /// Deliver what is sent to the destination's name.
    Subscribe(RoutedFrame),
    /// No longer deliver what is sent to the destination's name.
    Unsubscribe(RoutedFrame),
    /// Something for the subscribers of the destination's name.
    Publish(RoutedFrame),
}

impl Frame {
    /// Reads one element of the stream without copying it.
    ///
    /// What passes is complete (header, both names, a publish's session) and
    /// decodes everywhere: forwarding it costs no receiver its link. No field that
    /// matters here occurs twice, so no reader can see another header than this one.
    ///
    /// # Errors
    /// If the bytes are no such message. The receiver drops them.
    pub fn parse(bytes: Bytes) -> Result<Self, FrameError> {
        Self::read(bytes, None)
    }

    /// Like [`Self::parse`], for the next element of a stream: reads the header of a
    /// publish only if it differs from the one before.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn parse_after(bytes: Bytes, last: &mut LastHeader) -> Result<Self, FrameError> {
        Self::read(bytes, Some(last))
    }

    fn read(bytes: Bytes, last: Option<&mut LastHeader>) -> Result<Self, FrameError> {
        if bytes.len() > MAX_MESSAGE_LEN {
            return Err(FrameError::Malformed("longer than any message"));
        }
        let mut kind: Option<Field> = None;
        let mut fields = Fields::whole(&bytes);
        while let Some(field) = fields.next()? {
            match field.number {
                1 | 2 | 3 | 5 | 6 => once(&mut kind, field, "message_type")?,
                METADATA => schema::check(&bytes, field.span()?, schema::METADATA_ENTRY)?,
                _ => {}
            }
        }
        let kind = kind.ok_or(FrameError::NoKind)?;
        let body = kind.span()?;
        Ok(match kind.number {
            1 => Self::Subscribe(RoutedFrame::subscription(bytes, kind, body)?),
            2 => Self::Unsubscribe(RoutedFrame::subscription(bytes, kind, body)?),
            3 => Self::Publish(RoutedFrame::publish(bytes, kind, body, last)?),
            5 => {
                schema::check(&bytes, body, schema::LINK)?;
                Self::Link(bytes)
            }
            _ => {
                schema::check(&bytes, body, schema::SUBSCRIPTION_ACK)?;
                Self::SubscriptionAck(bytes)
            }
        })
    }

    /// The bytes as they came.
    pub fn bytes(&self) -> &Bytes {
        match self {
            Self::Link(bytes) | Self::SubscriptionAck(bytes) => bytes,
            Self::Subscribe(frame) | Self::Unsubscribe(frame) | Self::Publish(frame) => {
                frame.bytes()
            }
        }
    }

    /// The frame with its header, if it is one that has a header.
    pub fn routed(&self) -> Option<&RoutedFrame> {
        match self {
            Self::Link(_) | Self::SubscriptionAck(_) => None,
            Self::Subscribe(frame) | Self::Unsubscribe(frame) | Self::Publish(frame) => Some(frame),
        }
    }
}

/// Shows lengths and routes, no content.
impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let len = self.bytes().len();
        match self {
            Self::Link(_) => write!(f, "Link({len} bytes)"),
            Self::SubscriptionAck(_) => write!(f, "SubscriptionAck({len} bytes)"),
            Self::Subscribe(frame) => f.debug_tuple("Subscribe").field(frame).finish(),
            Self::Unsubscribe(frame) => f.debug_tuple("Unsubscribe").field(frame).finish(),
            Self::Publish(frame) => f.debug_tuple("Publish").field(frame).finish(),
        }
    }
}

/// A message with a routing header, as it was received.
pub struct RoutedFrame {
    bytes: Bytes,
    header: FrameHeader,
    repeats: bool,
    subscription_id: u64,
    layout: Layout,
}

/// The header of the last publish on a link.
///
/// What a sender says to one name has the same header, MAC included, for as long as it
/// uses the same token, and comparing costs far less than reading and verifying.
#[derive(Debug, Default)]
pub struct LastHeader(Option<Box<KeptHeader>>);

#[derive(Debug)]
struct KeptHeader {
    /// As it was received.
    bytes: Vec<u8>,
    /// Where in its frame.
    start: u32,
    /// As it was read.
    header: FrameHeader,
}

/// Bytes of a header above which it is not kept: a node has many links.
const MAX_KEPT_HEADER: usize = 4096;

/// What a node reads of a header.
#[derive(Clone, Debug)]
pub struct FrameHeader {
    /// Who sent it.
    pub source: RouteName,
    /// Whom it is for, or the name that is subscribed.
    pub destination: RouteName,
    /// 1: any one subscriber; anything else: all.
    pub fanout: u32,
    /// Hops left, this one included: what arrives with 1 goes no further.
    pub ttl: u32,
    /// Not to be believed from another process.
    pub recv_from: Option<u64>,
    /// Not to be believed from another process.
    pub forward_to: Option<u64>,
    source_parts: NameParts,
    destination_parts: NameParts,
    identity: Span,
    error: Option<bool>,
    mac: Option<Span>,
    ttl_field: Option<Span>,
}

/// What a MAC covers of a name beyond what routing reads.
#[derive(Clone, Debug)]
struct NameParts {
    has_id: bool,
    text: Option<[Span; 3]>,
}

/// Where the header is.
struct Layout {
    /// Number of the kind, and its whole field.
    kind: Field,
    /// The kind's value.
    body: Span,
    /// The whole field of the header.
    header_field: Span,
    /// The header's value.
    header: Span,
}

impl Layout {
    fn new(kind: Field, body: Span, header: Field) -> Result<Self, FrameError> {
        Ok(Self { kind, body, header_field: header.whole, header: header.span()? })
    }
}

impl LastHeader {
    /// The header at `span` of a frame, and whether it is the last one again.
    fn read(&mut self, frame: &[u8], span: Span) -> Result<(FrameHeader, bool), FrameError> {
        let bytes = span.of(frame);
        match &self.0 {
            Some(kept) if kept.start == span.start && kept.bytes == bytes => {
                return Ok((kept.header.clone(), true));
            }
            _ => {}
        }
        let header = FrameHeader::parse(frame, span)?;
        if bytes.len() > MAX_KEPT_HEADER {
            self.0 = None;
            return Ok((header, false));
        }
        let start = span.start;
        match &mut self.0 {
            Some(kept) => {
                kept.bytes.clear();
                kept.bytes.extend_from_slice(bytes);
                kept.start = start;
                kept.header = header.clone();
            }
            None => {
                let kept = KeptHeader { bytes: bytes.to_vec(), start, header: header.clone() };
                self.0 = Some(Box::new(kept));
            }
        }
        Ok((header, false))
    }
}

/// Number of the metadata's field, one for each entry.
const METADATA: u32 = 4;

/// `header_mac`'s key and length.
const MAC_FIELD: [u8; 2] = [11 << 3 | 2, MAC_LEN as u8];
const MAC_LEN: usize = 32;

impl RoutedFrame {
    fn subscription(bytes: Bytes, kind: Field, body: Span) -> Result<Self, FrameError> {
        let (mut header, mut id) = (None, None);
        let mut fields = Fields::new(&bytes, body);
        while let Some(field) = fields.next()? {
            match field.number {
                1 => once(&mut header, field, "header")?,
                2 => once(&mut id, field.varint()?, "subscription_id")?,
                _ => {}
            }
        }
        let header_field = header.ok_or(FrameError::Missing("header"))?;
        let header = FrameHeader::parse(&bytes, header_field.span()?)?;
        let layout = Layout::new(kind, body, header_field)?;
        Ok(Self { bytes, header, repeats: false, subscription_id: id.unwrap_or(0), layout })
    }

    fn publish(
        bytes: Bytes,
        kind: Field,
        body: Span,
        last: Option<&mut LastHeader>,
    ) -> Result<Self, FrameError> {
        let (mut header, mut session, mut content) = (None, None, None);
        let mut fields = Fields::new(&bytes, body);
        while let Some(field) = fields.next()? {
            match field.number {
                1 => once(&mut header, field, "header")?,
                2 => once(&mut session, field.span()?, "session")?,
                3 => once(&mut content, field.span()?, "msg")?,
                _ => {}
            }
        }
        let session = session.ok_or(FrameError::Missing("session"))?;
        schema::check(&bytes, session, schema::SESSION_HEADER)?;
        if let Some(content) = content {
            schema::check(&bytes, content, schema::CONTENT)?;
        }
        let header_field = header.ok_or(FrameError::Missing("header"))?;
        let layout = Layout::new(kind, body, header_field)?;
        let (header, repeats) = match last {
            Some(last) => last.read(&bytes, layout.header)?,
            None => (FrameHeader::parse(&bytes, layout.header)?, false),
        };
        Ok(Self { bytes, header, repeats, subscription_id: 0, layout })
    }

    /// The bytes as they came.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Where from, where to.
    pub fn header(&self) -> &FrameHeader {
        &self.header
    }

    /// The name that it goes to or that is subscribed, for people: its readable parts
    /// are there if they are what the hashes say.
    pub fn destination(&self) -> Name {
        self.name(&self.header.destination, &self.header.destination_parts)
    }

    /// The same for whoever sent it.
    pub fn source(&self) -> Name {
        self.name(&self.header.source, &self.header.source_parts)
    }

    fn name(&self, route: &RouteName, parts: &NameParts) -> Name {
        let RouteName { components, id } = *route;
        let text = parts.text.and_then(|parts| {
            let [a, b, c] = parts.map(|part| str::from_utf8(part.of(&self.bytes)).ok());
            Some([a?.to_owned(), b?.to_owned(), c?.to_owned()])
        });
        let name = Name::from_parts(components, Some(id), text);
        // Without text it cannot be dishonest.
        name.or_else(|| Name::from_parts(components, Some(id), None)).expect("no text is honest")
    }

    /// Whether this is a publish whose header, MAC included, has the same bytes as that
    /// of the publish before; see [`Frame::parse_after`].
    pub fn repeats(&self) -> bool {
        self.repeats
    }

    /// The id of a subscribe or unsubscribe, 0 if no answer is wanted; 0 for a publish.
    pub fn subscription_id(&self) -> u64 {
        self.subscription_id
    }

    /// The value of a metadata entry; the last one of its key, as everywhere. Nothing of
    /// the metadata is kept, so this walks over the frame again.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        let mut found = None;
        let mut fields = Fields::whole(&self.bytes);
        while let Ok(Some(field)) = fields.next() {
            let Some(entry) = field.span().ok().filter(|_| field.number == METADATA) else {
                continue;
            };
            // What is not there is empty.
            let (mut has_key, mut value) = (key.is_empty(), Span::default());
            let mut parts = Fields::new(&self.bytes, entry);
            while let Ok(Some(part)) = parts.next() {
                match (part.number, part.span()) {
                    (1, Ok(span)) => has_key = span.of(&self.bytes) == key.as_bytes(),
                    (2, Ok(span)) => value = span,
                    _ => {}
                }
            }
            if has_key {
                found = str::from_utf8(value.of(&self.bytes)).ok();
            }
        }
        found
    }

    /// The MAC that came with it, whatever its length; none if it is absent or empty.
    pub fn mac(&self) -> Option<&[u8]> {
        let mac = self.header.mac?.of(&self.bytes);
        (!mac.is_empty()).then_some(mac)
    }

    /// Appends what the MAC of the received frame covers after the link's id: the
    /// rest of [`mac_preimage`](crate::canonical::mac_preimage).
    pub fn put_mac_body(&self, out: &mut Vec<u8>) {
        let FrameHeader { recv_from, forward_to, ttl, .. } = self.header;
        out.reserve(self.mac_body_capacity());
        self.mac_fields(recv_from, forward_to, ttl).put(out);
    }

    fn mac_fields(
        &self,
        recv_from: Option<u64>,
        forward_to: Option<u64>,
        ttl: u32,
    ) -> MacFields<'_> {
        let header = &self.header;
        let name = |route: &RouteName, parts: &NameParts| MacName {
            components: route.components,
            id: parts.has_id.then_some(route.id),
            text: parts.text.map(|text| text.map(|part| part.of(&self.bytes))),
        };
        MacFields {
            source: name(&header.source, &header.source_parts),
            destination: name(&header.destination, &header.destination_parts),
            identity: header.identity.of(&self.bytes),
            fanout: header.fanout,
            recv_from,
            forward_to,
            error: header.error,
            ttl,
        }
    }

    /// What goes out to the subscribers: one hop less, without the fields that
    /// mean something inside one process only, everything else byte for byte.
    ///
    /// # Errors
    /// If this was the last hop, or the result would exceed
    /// [`MAX_MESSAGE_LEN`].
    pub fn forward(&self) -> Result<Outgoing<'_>, Undeliverable> {
        match self.header.ttl {
            0 | 1 => Err(Undeliverable::TtlExpired),
            ttl => self.outgoing(ttl - 1),
        }
    }

    /// What goes out where this message begins: with all its hops.
    ///
    /// # Errors
    /// If the result would exceed [`MAX_MESSAGE_LEN`].
    pub fn originate(&self) -> Result<Outgoing<'_>, Undeliverable> {
        self.outgoing(self.header.ttl)
    }

    fn outgoing(&self, ttl: u32) -> Result<Outgoing<'_>, Undeliverable> {
        let patched = self.patched(ttl);
        let (mut buffer, tail_at) =
            patched.unwrap_or_else(|| (self.rebuilt(ttl, true), self.layout.header_field.end));
        let prefix_len = buffer.len();
        let tail = self.bytes.slice(tail_at as usize..);
        let len = prefix_len + MAC_LEN + tail.len();
        if len > MAX_MESSAGE_LEN {
            return Err(Undeliverable::TooLarge(len));
        }
        self.mac_fields(None, None, ttl).put(&mut buffer);
        Ok(Outgoing { frame: self, ttl, buffer, prefix_len, tail })
    }

    /// The frame up to its MAC with another ttl, and where its MAC ends. `None`
    /// unless these are the only bytes that have to differ.
    fn patched(&self, ttl: u32) -> Option<(Vec<u8>, u32)> {
        let header = &self.header;
        let (mac, ttl_field) = (header.mac?, header.ttl_field?);
        // A key and a number of one byte each.
        let fits = mac.len() == MAC_LEN && ttl_field.len() == 2 && (1..0x80).contains(&ttl);
        let in_order = ttl_field.end <= mac.start;
        let clean = header.recv_from.is_none() && header.forward_to.is_none();
        if !(fits && in_order && clean) {
            return None;
        }
        let before = &self.bytes[..mac.start as usize];
        let mut prefix = Vec::with_capacity(before.len() + self.mac_body_capacity());
        prefix.extend_from_slice(before);
        prefix[ttl_field.start as usize + 1] = ttl as u8;
        Some((prefix, mac.end))
    }

    /// The frame up to the end of its header, which is written anew with its MAC
    /// last; the MAC itself is not there yet. Fields that nobody knows are kept.
    fn rebuilt(&self, ttl: u32, with_mac: bool) -> Vec<u8> {
        let Layout { kind, body, header_field, header: header_span } = self.layout;
        let mac_len = if with_mac { MAC_LEN } else { 0 };

        let mut header = Vec::with_capacity(header_span.len() + 8);
        let mut fields = Fields::new(&self.bytes, header_span);
        while let Ok(Some(field)) = fields.next() {
            if !matches!(field.number, TTL | RECV_FROM | FORWARD_TO | HEADER_MAC) {
                header.extend_from_slice(field.whole.of(&self.bytes));
            }
        }
        if ttl != 0 {
            header.push((TTL << 3) as u8);
            put_varint(&mut header, ttl.into());
        }
        if with_mac {
            header.extend_from_slice(&MAC_FIELD);
        }

        let mut field = Vec::with_capacity(header.len() + 8);
        field.push(1 << 3 | 2);
        put_varint(&mut field, (header.len() + mac_len) as u64);
        field.append(&mut header);

        let (outer, inner) = (
            &self.bytes[..kind.whole.start as usize],
            &self.bytes[body.start as usize..header_field.start as usize],
        );
        let body_len = body.len() - header_field.len() + field.len() + mac_len;
        let mut out = Vec::with_capacity(
            outer.len() + inner.len() + field.len() + 16 + self.mac_body_capacity(),
        );
        out.extend_from_slice(outer);
        out.push((kind.number << 3 | 2) as u8);
        put_varint(&mut out, body_len as u64);
        out.extend_from_slice(inner);
        out.append(&mut field);
        out
    }

    /// Enough for [`MacFields::put`]: it adds at most 200 bytes to the texts, which
    /// are part of the header.
    fn mac_body_capacity(&self) -> usize {
        self.layout.header.len() + 200
    }
}

/// Shows lengths and routes, no content.
impl fmt::Debug for RoutedFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RoutedFrame")
            .field("source", &self.header.source)
            .field("destination", &self.header.destination)
            .field("fanout", &self.header.fanout)
            .field("ttl", &self.header.ttl)
            .field("len", &self.bytes.len())
            .finish_non_exhaustive()
    }
}

/// A frame to be signed and written for any number of links.
pub struct Outgoing<'a> {
    frame: &'a RoutedFrame,
    ttl: u32,
    /// The message up to its MAC, then what the MAC covers.
    buffer: Vec<u8>,
    prefix_len: usize,
    tail: Bytes,
}

impl Outgoing<'_> {
    /// Length of the message in bytes, with its MAC.
    #[expect(clippy::len_without_is_empty, reason = "a message is never empty")]
    pub fn len(&self) -> usize {
        self.prefix_len + MAC_LEN + self.tail.len()
    }

    /// What the MAC covers after the link's id.
    pub fn mac_body(&self) -> &[u8] {
        &self.buffer[self.prefix_len..]
    }

    /// Writes all of the message that differs between links, which is its
    /// beginning; [`Self::tail`] follows.
    pub fn write_head(&self, mac: &[u8; 32], out: &mut impl BufMut) {
        out.put_slice(&self.buffer[..self.prefix_len]);
        out.put_slice(mac);
    }

    /// The rest of the message, the same memory for all links.
    pub fn tail(&self) -> &Bytes {
        &self.tail
    }

    /// The whole message for a link without a key, in two parts.
    pub fn without_mac(&self) -> (Vec<u8>, Bytes) {
        let RoutedFrame { bytes, layout, .. } = self.frame;
        (self.frame.rebuilt(self.ttl, false), bytes.slice(layout.header_field.end as usize..))
    }
}

/// Shows lengths, no content.
impl fmt::Debug for Outgoing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing")
            .field("destination", &self.frame.header.destination)
            .field("ttl", &self.ttl)
            .field("len", &self.len())
            .finish()
    }
}

// data_plane.proto: SLIMHeader
const SOURCE: u32 = 1;
const DESTINATION: u32 = 2;
const IDENTITY: u32 = 3;
const FANOUT: u32 = 4;
const VERSION: u32 = 5;
const TTL: u32 = 6;
const RECV_FROM: u32 = 7;
const FORWARD_TO: u32 = 8;
const INCOMING_CONN: u32 = 9;
const ERROR: u32 = 10;
const HEADER_MAC: u32 = 11;
const E2E_HEADER_SIG: u32 = 12;

impl FrameHeader {
    fn parse(bytes: &[u8], span: Span) -> Result<Self, FrameError> {
        let (mut source, mut destination) = (None, None);
        let mut identity = None;
        let (mut fanout, mut ttl, mut ttl_field) = (None, None, None);
        let (mut recv_from, mut forward_to) = (None, None);
        let (mut error, mut mac) = (None, None);
        let mut fields = Fields::new(bytes, span);
        while let Some(field) = fields.next()? {
            match field.number {
                SOURCE => once(&mut source, field.span()?, "source")?,
                DESTINATION => once(&mut destination, field.span()?, "destination")?,
                IDENTITY => once(&mut identity, field.span()?, "identity")?,
                FANOUT => once(&mut fanout, field.varint()?, "fanout")?,
                VERSION => schema::check_text(bytes, field.span()?)?,
                TTL => {
                    once(&mut ttl, field.varint()?, "ttl")?;
                    ttl_field = Some(field.whole);
                }
                RECV_FROM => once(&mut recv_from, field.varint()?, "recv_from")?,
                FORWARD_TO => once(&mut forward_to, field.varint()?, "forward_to")?,
                INCOMING_CONN => drop(field.varint()?),
                ERROR => once(&mut error, field.varint()? != 0, "error")?,
                HEADER_MAC => once(&mut mac, field.span()?, "header_mac")?,
                E2E_HEADER_SIG => drop(field.span()?),
                _ => {}
            }
        }
        let identity = identity.unwrap_or_default();
        schema::check_text(bytes, identity)?;
        let (source, source_parts) = parse_name(bytes, source, "source")?;
        let (destination, destination_parts) = parse_name(bytes, destination, "destination")?;
        Ok(Self {
            source,
            destination,
            // As every decoder does, these keep the lower half of a longer integer.
            fanout: fanout.unwrap_or(0) as u32,
            ttl: ttl.unwrap_or(0) as u32,
            recv_from,
            forward_to,
            source_parts,
            destination_parts,
            identity,
            error,
            mac,
            ttl_field,
        })
    }
}

fn parse_name(
    bytes: &[u8],
    span: Option<Span>,
    which: &'static str,
) -> Result<(RouteName, NameParts), FrameError> {
    let (mut encoded, mut text) = (None, None);
    let mut fields = Fields::new(bytes, span.ok_or(FrameError::Missing(which))?);
    while let Some(field) = fields.next()? {
        match field.number {
            1 => once(&mut encoded, field.span()?, which)?,
            2 => once(&mut text, field.span()?, which)?,
            _ => {}
        }
    }

    let mut components = [None; 3];
    let mut id = None;
    let mut fields = Fields::new(bytes, encoded.ok_or(FrameError::Missing(which))?);
    while let Some(field) = fields.next()? {
        match field.number {
            number @ 1..=3 => once(&mut components[number as usize - 1], field.varint()?, which)?,
            4 => once(&mut id, field.span()?, which)?,
            _ => {}
        }
    }
    let route = RouteName {
        components: components.map(|component| component.unwrap_or(0)),
        id: id.map_or(Ok(NameId::ANY), |id| parse_id(bytes, id, which))?,
    };
    let text = text.map(|text| parse_text(bytes, text, which)).transpose()?;
    Ok((route, NameParts { has_id: id.is_some(), text }))
}

fn parse_id(bytes: &[u8], span: Span, which: &'static str) -> Result<NameId, FrameError> {
    let mut halves = [None; 2];
    let mut fields = Fields::new(bytes, span);
    while let Some(field) = fields.next()? {
        if let number @ 1..=2 = field.number {
            once(&mut halves[number as usize - 1], field.varint()?, which)?;
        }
    }
    let [upper, lower] = halves.map(|half| u128::from(half.unwrap_or(0)));
    Ok(NameId(upper << 64 | lower))
}

fn parse_text(bytes: &[u8], span: Span, which: &'static str) -> Result<[Span; 3], FrameError> {
    let mut parts = [None; 3];
    let mut fields = Fields::new(bytes, span);
    while let Some(field) = fields.next()? {
        if let number @ 1..=3 = field.number {
            let part = field.span()?;
            schema::check_text(bytes, part)?;
            once(&mut parts[number as usize - 1], part, which)?;
        }
    }
    Ok(parts.map(Option::unwrap_or_default))
}

/// Keeps the value of a field that may occur once.
fn once<T>(slot: &mut Option<T>, value: T, field: &'static str) -> Result<(), FrameError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(FrameError::Duplicate(field)),
    }
}

/// A frame that cannot be forwarded. Nobody is told: silence is the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Undeliverable {
    /// It has made all its hops.
    #[error("no hops left")]
    TtlExpired,
    /// With a MAC it would be longer than receivers accept.
    #[error("message of {0} bytes is too large")]
    TooLarge(usize),
}

/// The bytes are no message that could be routed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// Not Protobuf of this schema.
    #[error("malformed message: {0}")]
    Malformed(&'static str),
    /// None of the kinds.
    #[error("message without a kind")]
    NoKind,
    /// A field that every message of this kind has.
    #[error("missing field {0}")]
    Missing(&'static str),
    /// A field twice where readers could disagree on which one counts.
    #[error("field {0} more than once")]
    Duplicate(&'static str),
}
