//! What arrives on a link: cut into messages, verified, in batches.

use slim_proto::Frame;

/// Frames that one [`FrameReader::read_batch`] hands out at most.
pub const MAX_BATCH_FRAMES: usize = 256;

/// Bytes after which [`FrameReader::read_batch`] takes no further frame. A batch
/// exceeds it by one message at most.
pub const MAX_BATCH_BYTES: usize = 256 * 1024;

/// The receiving half of an accepted link.
#[derive(Debug)]
pub struct FrameReader {
    drops: Drops,
}

/// What a reader has dropped since the link began. The link goes on after each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Drops {
    /// No message of this protocol.
    pub malformed: u64,
    /// A MAC that is wrong, or missing where it is needed.
    pub bad_mac: u64,
}

impl FrameReader {
    /// Waits for a frame, then appends it and everything else that is there without
    /// waiting, up to [`MAX_BATCH_FRAMES`] and [`MAX_BATCH_BYTES`], to `batch`. What
    /// fails its checks is counted and skipped.
    ///
    /// Cancel safe. While nobody calls this, the sender is slowed by flow control.
    ///
    /// # Errors
    /// If the link has ended; frames that came before the end have been handed out.
    pub async fn read_batch(&mut self, batch: &mut Vec<Frame>) -> Result<(), LinkEnd> {
        batch.clear();
        std::future::pending().await
    }

    /// What was dropped so far.
    pub fn drops(&self) -> Drops {
        self.drops
    }
}

/// Why nothing more arrives.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkEnd {
    /// The peer ended the stream in good order.
    #[error("ended by the peer")]
    Ended,
    /// This side closed the link.
    #[error("closed here")]
    ClosedHere,
    /// The peer says: do not come back.
    #[error("permission denied by the peer: {0:?}")]
    PermissionDenied(String),
    /// The peer ended the stream with another gRPC status.
    #[error("ended by the peer with gRPC status {code}: {message:?}")]
    Status {
        /// The number, not 0 and not 7.
        code: u16,
        /// The peer's text.
        message: String,
    },
    /// The stream or its connection broke.
    #[error("connection lost: {0}")]
    Lost(String),
    /// The peer announced a message of this many bytes.
    #[error("message of {0} bytes exceeds the limit")]
    TooLarge(usize),
    /// What arrives is not gRPC framing without compression.
    #[error("not an uncompressed gRPC message")]
    BadFraming,
}
