//! The received bytes of a message, with a view of its header.
//!
//! A node forwards what it received: it reads the header, checks that the rest
//! is well-formed, and changes the hop count and the MAC. The payload is one
//! [`Bytes`] for all subscribers, and what the sender signed is never rewritten.

use bytes::{BufMut, Bytes};

use crate::RouteName;

/// One element of a link's stream, as it was received.
#[derive(Debug)]
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
    /// decodes everywhere: forwarding it costs no receiver its link.
    ///
    /// # Errors
    /// If the bytes are no such message. The receiver drops them.
    pub fn parse(bytes: Bytes) -> Result<Self, FrameError> {
        let _ = bytes;
        Err(FrameError::NoKind)
    }

    /// The bytes as they came.
    pub fn bytes(&self) -> &Bytes {
        match self {
            Self::Link(bytes) | Self::SubscriptionAck(bytes) => bytes,
            Self::Subscribe(frame) | Self::Unsubscribe(frame) | Self::Publish(frame) => {
                &frame.bytes
            }
        }
    }
}

/// A message with a routing header, as it was received.
#[derive(Debug)]
pub struct RoutedFrame {
    bytes: Bytes,
    header: FrameHeader,
    subscription_id: u64,
}

/// What a node reads of a header.
#[derive(Debug)]
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
}

impl RoutedFrame {
    /// The bytes as they came.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Where from, where to.
    pub fn header(&self) -> &FrameHeader {
        &self.header
    }

    /// The id of a subscribe or unsubscribe, 0 if no answer is wanted; 0 for a publish.
    pub fn subscription_id(&self) -> u64 {
        self.subscription_id
    }

    /// What goes out to the subscribers: one hop less, without the fields that
    /// mean something inside one process only.
    ///
    /// # Errors
    /// If this was the last hop, or the result would exceed
    /// [`crate::MAX_MESSAGE_LEN`].
    pub fn forward(&self) -> Result<Outgoing<'_>, Undeliverable> {
        let _ = self;
        Err(Undeliverable::TtlExpired)
    }
}

/// A frame to be signed and written for any number of links.
#[derive(Debug)]
pub struct Outgoing<'a> {
    frame: &'a RoutedFrame,
}

impl Outgoing<'_> {
    /// Length of the message in bytes, as it goes out on a link with a MAC.
    #[expect(clippy::len_without_is_empty, reason = "a message is never empty")]
    pub fn len(&self) -> usize {
        self.frame.bytes.len()
    }

    /// What the MAC covers after the link's id.
    pub fn mac_body(&self) -> &[u8] {
        &[]
    }

    /// Writes the message up to and including all that differs between links.
    /// [`Self::tail`] follows.
    pub fn write_head(&self, mac: &[u8; 32], out: &mut impl BufMut) {
        let _ = mac;
        out.put_slice(&[]);
    }

    /// The rest of the message, the same memory for all links.
    pub fn tail(&self) -> &Bytes {
        &self.frame.bytes
    }
}

/// A frame that cannot be forwarded. Nobody is told: silence is the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Undeliverable {
    /// It has made all its hops.
    #[error("no hops left")]
    TtlExpired,
    /// With a MAC it would be longer than receivers accept.
    #[error("message of {0} bytes is too large to forward")]
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
