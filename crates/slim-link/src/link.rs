//! A dialled link: typed messages in both directions.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use slim_proto::{Frame, MAX_MESSAGE_LEN, Message, RoutedFrame, Undeliverable};
use tokio::sync::oneshot;

use crate::outbound::{CloseOnDrop, Queue};
use crate::{CloseReason, Drops, FrameReader, LinkEnd, LinkInfo, Outbound, PushError};

/// A negotiated link.
#[derive(Debug)]
pub struct Link {
    pub(crate) info: LinkInfo,
    pub(crate) sender: LinkSender,
    pub(crate) receiver: LinkReceiver,
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
#[derive(Clone)]
pub struct LinkSender {
    outbound: Outbound,
    queue: Arc<CloseOnDrop>,
}

impl LinkSender {
    pub(crate) fn new(outbound: Outbound, queue: Arc<Queue>) -> Self {
        Self { outbound, queue: Arc::new(CloseOnDrop(queue)) }
    }

    /// Signs and queues a message. Waits while the queue
    /// ([`DialConfig::queue_bytes`](crate::DialConfig::queue_bytes)) is full, which
    /// lasts as long as the peer does not read. Cancel safe: a message is queued
    /// whole or not at all.
    ///
    /// # Errors
    /// [`SendError::TooLarge`] or [`SendError::Closed`].
    pub async fn send(&self, message: &Message) -> Result<(), SendError> {
        let frame = encoded(message)?;
        loop {
            match self.push(&frame) {
                Err(SendError::Full) => self.outbound.space().await,
                result => return result,
            }
        }
    }

    /// Like [`Self::send`] for callers that cannot wait.
    ///
    /// # Errors
    /// See [`SendError`]; the message is not queued then.
    pub fn try_send(&self, message: &Message) -> Result<(), SendError> {
        self.push(&encoded(message)?)
    }

    fn push(&self, frame: &Frame) -> Result<(), SendError> {
        match frame.routed().map(RoutedFrame::originate) {
            Some(Ok(outgoing)) => self.outbound.try_push(&outgoing)?,
            Some(Err(Undeliverable::TooLarge(len))) => return Err(SendError::TooLarge(len)),
            Some(Err(Undeliverable::TtlExpired)) => unreachable!("only a hop counts"),
            // No header, no MAC.
            None => self.queue.0.push_plain(frame.bytes())?,
        }
        self.outbound.wake();
        Ok(())
    }

    /// Takes nothing more, sends what is queued and ends the stream. To be sure
    /// that all has left, receive until the end afterwards.
    pub fn close(&self) {
        self.outbound.close(CloseReason::Done);
    }
}

impl fmt::Debug for LinkSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkSender").field("outbound", &self.outbound).finish_non_exhaustive()
    }
}

/// The message as it goes out, but for its MAC.
fn encoded(message: &Message) -> Result<Frame, SendError> {
    let bytes = message.encode();
    if bytes.len() > MAX_MESSAGE_LEN {
        return Err(SendError::TooLarge(bytes.len()));
    }
    Ok(Frame::parse(bytes).expect("an encoded message is a frame"))
}

/// The receiving half. Dropping it cancels the link, and what is queued may be lost;
/// [`LinkSender::close`] is the better end.
pub struct LinkReceiver {
    frames: FrameReader,
    batch: VecDeque<Frame>,
    _closes: CloseOnDrop,
    /// When this is dropped, the connection has [`crate::LINGER`] left.
    _connection: oneshot::Sender<()>,
}

impl LinkReceiver {
    pub(crate) fn new(
        frames: FrameReader,
        queue: Arc<Queue>,
        connection: oneshot::Sender<()>,
    ) -> Self {
        Self {
            frames,
            batch: VecDeque::new(),
            _closes: CloseOnDrop(queue),
            _connection: connection,
        }
    }

    /// The next message. What fails its checks is counted and skipped. Does not
    /// wait if something is already there. Cancel safe.
    ///
    /// # Errors
    /// If the link has ended; what came before the end has been handed out.
    pub async fn recv(&mut self) -> Result<Message, LinkEnd> {
        loop {
            while let Some(frame) = self.batch.pop_front() {
                match Message::decode(frame.bytes().clone()) {
                    Ok(message) => return Ok(message),
                    Err(_) => self.frames.count_malformed(),
                }
            }
            let mut batch = Vec::from(std::mem::take(&mut self.batch));
            self.frames.read_batch(&mut batch).await?;
            self.batch = batch.into();
        }
    }

    /// What was dropped so far.
    pub fn drops(&self) -> Drops {
        self.frames.drops()
    }
}

impl fmt::Debug for LinkReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkReceiver")
            .field("frames", &self.frames)
            .field("waiting", &self.batch.len())
            .finish_non_exhaustive()
    }
}

/// A message was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// With its MAC it has this many bytes, and receivers accept no more than
    /// [`MAX_MESSAGE_LEN`]. Nothing was sent, the link is unharmed.
    #[error("message of {0} bytes is too large")]
    TooLarge(usize),
    /// The queue is full ([`LinkSender::try_send`] only).
    #[error("queue is full")]
    Full,
    /// The link is closed.
    #[error("link is closed")]
    Closed,
}

impl From<PushError> for SendError {
    fn from(error: PushError) -> Self {
        match error {
            PushError::Full => Self::Full,
            PushError::Closed => Self::Closed,
        }
    }
}
