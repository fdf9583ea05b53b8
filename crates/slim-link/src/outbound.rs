//! What waits to be sent on a link: bounded, taken without waiting, handed to
//! the transport in large pieces.

use slim_proto::{Message, Outgoing};

/// Bytes that may wait on one link by default. With typical messages about a
/// thousand; more only delays the moment at which a slow reader is noticed.
pub const DEFAULT_QUEUE_BYTES: usize = 1024 * 1024;

/// Bytes of control messages that may wait on one link. A subscription ack takes
/// some 20, so who fills it subscribes without reading the answers.
pub const CONTROL_QUEUE_BYTES: usize = 64 * 1024;

/// Small messages go out together in pieces of up to this many bytes.
pub const PIECE_LEN: usize = 16 * 1024;

/// The sending half of an accepted link. Clones are cheap and share the queue.
///
/// Nothing here waits, but [`Self::space`]. Frames of one pusher leave in order.
#[derive(Clone, Debug)]
pub struct Outbound {}

impl Outbound {
    /// Signs a frame for this link and queues it behind the others, if there is
    /// room or nothing else is queued. The writer is not woken: push all there is,
    /// then [`Self::wake`].
    ///
    /// # Errors
    /// See [`PushError`]; the frame is not queued then.
    pub fn try_push(&self, frame: &Outgoing<'_>) -> Result<(), PushError> {
        let _ = (self, frame);
        Err(PushError::Closed)
    }

    /// Queues a message without a routing header ([`Message::SubscriptionAck`])
    /// in front of all data, bounded by [`CONTROL_QUEUE_BYTES`].
    ///
    /// # Errors
    /// See [`PushError`].
    pub fn try_push_control(&self, message: &Message) -> Result<(), PushError> {
        let _ = (self, message);
        Err(PushError::Closed)
    }

    /// Tells the writer that there is something to send. Cheap if there is not.
    pub fn wake(&self) {
        let _ = self;
    }

    /// Waits until [`Self::try_push`] may succeed again, or the link is closed.
    /// How long that takes is up to the peer: bound it with a timeout.
    pub async fn space(&self) {
        std::future::pending().await
    }

    /// Bytes of data that wait to be sent.
    pub fn queued_bytes(&self) -> usize {
        let _ = self;
        0
    }

    /// Whether the link is closed, by either side. It stays so.
    pub fn is_closed(&self) -> bool {
        let _ = self;
        true
    }

    /// Takes nothing more, sends what is queued and ends the stream. The link's
    /// reader reports [`LinkEnd::ClosedHere`](crate::LinkEnd::ClosedHere). What the
    /// peer has not taken a few seconds later is lost with the connection. Closing
    /// again changes nothing.
    pub fn close(&self, reason: CloseReason) {
        let _ = (self, reason);
    }

    /// Like [`Self::close`], but drops what is queued, and says how much that was.
    pub fn shed(&self, reason: CloseReason) -> Shed {
        let _ = (self, reason);
        Shed {
            frames: 0,
            bytes: 0,
        }
    }
}

/// What was dropped with a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shed {
    /// Data frames.
    pub frames: usize,
    /// Their bytes.
    pub bytes: usize,
}

/// Why a link is closed; decides whether the peer comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// Nothing is wrong (gRPC OK). Applications reconnect.
    Done,
    /// The peer did not read fast enough (UNAVAILABLE). Applications reconnect.
    TooSlow,
    /// The peer is not wanted (PERMISSION_DENIED). It does not come back.
    Refused,
}

/// A frame was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// The peer reads too slowly; see [`Outbound::space`].
    #[error("queue is full")]
    Full,
    /// The link is closed.
    #[error("link is closed")]
    Closed,
}
