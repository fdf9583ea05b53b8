//! A dialled link: typed messages in both directions.

use slim_proto::Message;

use crate::{Drops, LinkEnd, LinkInfo};

/// A negotiated link.
#[derive(Debug)]
pub struct Link {
    info: LinkInfo,
    sender: LinkSender,
    receiver: LinkReceiver,
}

impl Link {
    /// Who is at the other end.
    pub fn info(&self) -> &LinkInfo {
        &self.info
    }

    /// The two halves, for two tasks.
    pub fn split(self) -> (LinkSender, LinkReceiver) {
        (self.sender, self.receiver)
    }
}

/// The sending half. Clones are cheap; when the last is dropped, what is queued
/// is sent and the stream ends.
#[derive(Clone, Debug)]
pub struct LinkSender {}

impl LinkSender {
    /// Signs and queues a message. Waits while the queue
    /// ([`DialConfig::queue_bytes`](crate::DialConfig::queue_bytes)) is full, which
    /// lasts as long as the peer does not read. Cancel safe: a message is queued
    /// whole or not at all.
    ///
    /// # Errors
    /// [`SendError::TooLarge`] or [`SendError::Closed`].
    pub async fn send(&self, message: &Message) -> Result<(), SendError> {
        let _ = message;
        std::future::pending().await
    }

    /// Like [`Self::send`] for callers that cannot wait.
    ///
    /// # Errors
    /// See [`SendError`]; the message is not queued then.
    pub fn try_send(&self, message: &Message) -> Result<(), SendError> {
        let _ = (self, message);
        Err(SendError::Closed)
    }

    /// Takes nothing more, sends what is queued and ends the stream. To be sure
    /// that all has left, receive until the end afterwards.
    pub fn close(&self) {
        let _ = self;
    }
}

/// The receiving half. Dropping it ends the link.
#[derive(Debug)]
pub struct LinkReceiver {
    drops: Drops,
}

impl LinkReceiver {
    /// The next message. What fails its checks is counted and skipped. Does not
    /// wait if something is already there. Cancel safe.
    ///
    /// # Errors
    /// If the link has ended; what came before the end has been handed out.
    pub async fn recv(&mut self) -> Result<Message, LinkEnd> {
        std::future::pending().await
    }

    /// What was dropped so far.
    pub fn drops(&self) -> Drops {
        self.drops
    }
}

/// A message was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Encoded it has this many bytes, and receivers accept no more than
    /// [`slim_proto::MAX_MESSAGE_LEN`]. Nothing was sent, the link is unharmed.
    #[error("message of {0} bytes is too large")]
    TooLarge(usize),
    /// The queue is full ([`LinkSender::try_send`] only).
    #[error("queue is full")]
    Full,
    /// The link is closed.
    #[error("link is closed")]
    Closed,
}
