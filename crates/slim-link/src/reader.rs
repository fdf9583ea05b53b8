//! What arrives on a link: cut into messages, verified, in batches.

use std::error::Error;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Body as _;
use hyper::body::Incoming;
use slim_proto::{ConnectionType, Frame, LastHeader, Message, RoutedFrame};
use tokio::task::consume_budget;
use tonic::Code;

use crate::NegotiationError;
use crate::grpc::{self, Deframer};
use crate::mac::LinkKey;
use crate::outbound::Queue;
use crate::websocket::WebSocket;

/// Frames that one [`FrameReader::read_batch`] hands out at most.
pub const MAX_BATCH_FRAMES: usize = 256;

/// Bytes after which [`FrameReader::read_batch`] takes no further frame. A batch
/// exceeds it by one message at most.
pub const MAX_BATCH_BYTES: usize = 256 * 1024;

/// The receiving half of a link.
pub struct FrameReader {
    messages: MessageReader,
    key: Option<LinkKey>,
    mac_rule: MacRule,
    drops: Drops,
    last_header: LastHeader,
    /// Whether the publish with `last_header` passed.
    last_passes: bool,
}

/// What the MACs of a link are good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MacRule {
    /// There is nothing without one.
    Required,
    /// Where the peer has given a key.
    IfKeyed,
    /// Peers pass on the MAC of another link, so it says nothing.
    Unread,
}

impl MacRule {
    pub(crate) fn new(require_mac: bool, connection_type: ConnectionType) -> Self {
        match (connection_type, require_mac) {
            (ConnectionType::Peer, _) => Self::Unread,
            (ConnectionType::Edge | ConnectionType::Remote, true) => Self::Required,
            (ConnectionType::Edge | ConnectionType::Remote, false) => Self::IfKeyed,
        }
    }
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
    /// A reader of what follows the negotiation.
    pub(crate) fn new(
        mut messages: MessageReader,
        key: Option<LinkKey>,
        mac_rule: MacRule,
    ) -> Self {
        messages.lift_limit();
        Self {
            messages,
            key,
            mac_rule,
            drops: Drops::default(),
            last_header: LastHeader::default(),
            last_passes: false,
        }
    }

    /// Waits for a message, then appends it and everything else that is there without
    /// waiting, up to [`MAX_BATCH_FRAMES`] and [`MAX_BATCH_BYTES`], to `batch`. What
    /// fails its checks is counted and skipped, but counts for these bounds: if all of
    /// it failed, nothing is appended, and the caller sees in [`Self::drops`] what
    /// came.
    ///
    /// Cancel safe. While nobody calls this, the sender is slowed by flow control.
    ///
    /// # Errors
    /// If the link has ended; frames that came before the end have been handed out.
    pub async fn read_batch(&mut self, batch: &mut Vec<Frame>) -> Result<(), LinkEnd> {
        // Lets others run now and then, even if there is always something to read.
        consume_budget().await;
        poll_fn(|cx| self.poll_read_batch(cx, batch)).await
    }

    fn poll_read_batch(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut Vec<Frame>,
    ) -> Poll<Result<(), LinkEnd>> {
        let (mut messages, mut bytes) = (0, 0);
        while messages < MAX_BATCH_FRAMES && bytes < MAX_BATCH_BYTES {
            match self.messages.poll_next(cx) {
                Poll::Ready(Ok(message)) => {
                    // What is dropped costs time too.
                    messages += 1;
                    bytes += message.len();
                    if let Some(frame) = self.check(message) {
                        batch.push(frame);
                    }
                }
                // An end stays, so the next call finds it.
                Poll::Pending | Poll::Ready(Err(_)) if messages > 0 => break,
                Poll::Ready(Err(end)) => return Poll::Ready(Err(end)),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn check(&mut self, message: Bytes) -> Option<Frame> {
        let Ok(frame) = Frame::parse_after(message, &mut self.last_header) else {
            self.drops.malformed += 1;
            return None;
        };
        let passes = match &frame {
            Frame::Link(_) | Frame::SubscriptionAck(_) => true,
            // The MAC covers the header alone.
            Frame::Publish(routed) if routed.repeats() => self.last_passes,
            Frame::Publish(routed) => {
                self.last_passes = self.passes(routed, false);
                self.last_passes
            }
            Frame::Subscribe(routed) | Frame::Unsubscribe(routed) => self.passes(routed, true),
        };
        if !passes {
            self.drops.bad_mac += 1;
            return None;
        }
        Some(frame)
    }

    /// Whether the frame may have come from the peer, as far as the link can tell.
    /// Where no MAC is required, a subscription may come without one.
    fn passes(&self, frame: &RoutedFrame, is_subscription: bool) -> bool {
        let required = match self.mac_rule {
            MacRule::Required => true,
            MacRule::IfKeyed => false,
            MacRule::Unread => return true,
        };
        match (&self.key, frame.mac()) {
            (Some(_), None) => is_subscription && !required,
            (Some(key), Some(_)) => key.verify(frame),
            (None, mac) => !required && (is_subscription || mac.is_none()),
        }
    }

    /// What was dropped so far.
    pub fn drops(&self) -> Drops {
        self.drops
    }

    /// Waits until the link is closed by this side, or its stream is gone. For who
    /// does not want to read for a while. An application's link is never found closed.
    /// Cancel safe.
    pub async fn closed(&mut self) {
        match &self.messages.ends_with {
            Some(queue) => poll_fn(|cx| queue.poll_closed(cx)).await,
            None => std::future::pending().await,
        }
    }

    pub(crate) fn count_malformed(&mut self) {
        self.drops.malformed += 1;
    }
}

impl std::fmt::Debug for FrameReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameReader")
            .field("has_mac", &self.key.is_some())
            .field("drops", &self.drops)
            .finish_non_exhaustive()
    }
}

/// Why nothing more arrives.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkEnd {
    /// The peer ended or cancelled the stream.
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

/// Where the bytes come from.
pub(crate) enum Inbound {
    /// The request that opened an accepted link.
    Request(tonic::body::Body),
    /// The response that answered a dialled link.
    Response(Incoming),
    /// Either, over a WebSocket.
    WebSocket(Arc<WebSocket>),
}

impl Inbound {
    /// The next message. The deframer is for what has no messages of its own.
    fn poll_message(
        &mut self,
        cx: &mut Context<'_>,
        deframer: &mut Deframer,
    ) -> Poll<Result<Bytes, LinkEnd>> {
        if let Self::WebSocket(socket) = self {
            return socket.poll_message(cx);
        }
        loop {
            if let Some(message) = deframer.next()? {
                return Poll::Ready(Ok(message));
            }
            let Some(frame) = ready!(self.poll_frame(cx)?) else {
                let complete = deframer.is_between_messages();
                let end = if complete { LinkEnd::Ended } else { LinkEnd::BadFraming };
                return Poll::Ready(Err(end));
            };
            match frame.into_data() {
                Ok(chunk) => deframer.push(chunk),
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    return Poll::Ready(Err(grpc::end_of(&trailers)));
                }
            }
        }
    }

    /// The next piece of a body.
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<http_body::Frame<Bytes>>, LinkEnd>> {
        let frame = match self {
            Self::Request(body) => {
                ready!(Pin::new(body).poll_frame(cx)).transpose().map_err(|status| {
                    // How applications hang up.
                    if status.code() == Code::Cancelled {
                        return LinkEnd::Ended;
                    }
                    LinkEnd::Lost(with_causes(status.source().unwrap_or(&status)))
                })
            }
            Self::Response(body) => ready!(Pin::new(body).poll_frame(cx))
                .transpose()
                .map_err(|error| LinkEnd::Lost(with_causes(&error))),
            Self::WebSocket(_) => Ok(None),
        };
        Poll::Ready(frame)
    }
}

/// The text of an error that is only for people.
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Reads whole messages until the stream ends.
pub(crate) struct MessageReader {
    body: Inbound,
    deframer: Deframer,
    /// A node's link ends for its reader when somebody closes it; an application's
    /// is read until the node has ended it.
    ends_with: Option<Arc<Queue>>,
    end: Option<LinkEnd>,
}

impl MessageReader {
    /// Reads a negotiation, which is short; see [`Deframer::new`].
    pub(crate) fn new(body: Inbound, ends_with: Option<Arc<Queue>>) -> Self {
        Self { body, deframer: Deframer::new(), ends_with, end: None }
    }

    /// The next message. An error stays.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, LinkEnd>> {
        // A peer that never stops sending must not keep a closed link going.
        let closed = |queue: &Arc<Queue>| queue.is_closed() && queue.is_closed_here();
        if self.ends_with.as_ref().is_some_and(closed) {
            return Poll::Ready(Err(LinkEnd::ClosedHere));
        }
        if self.end.is_none() {
            match ready!(self.poll_open(cx)) {
                Ok(message) => return Poll::Ready(Ok(message)),
                Err(end) => self.end = Some(end),
            }
        }
        let end = self.end.clone().unwrap_or(LinkEnd::Ended);
        Poll::Ready(Err(end))
    }

    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, LinkEnd>> {
        if let Poll::Ready(message) = self.body.poll_message(cx, &mut self.deframer) {
            return Poll::Ready(message);
        }
        let Some(queue) = &self.ends_with else {
            return Poll::Pending;
        };
        ready!(queue.poll_closed(cx));
        Poll::Ready(Err(if queue.is_closed_here() {
            LinkEnd::ClosedHere
        } else {
            LinkEnd::Lost("the stream is gone".to_owned())
        }))
    }

    /// Whoever has negotiated may send messages of any length.
    fn lift_limit(&mut self) {
        self.deframer.lift_limit();
        if let Inbound::WebSocket(socket) = &self.body {
            socket.lift_limit();
        }
    }

    /// The next message, which is a short one.
    pub(crate) async fn first(&mut self) -> Result<Bytes, LinkEnd> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// The message that has to be the peer's negotiation.
    pub(crate) async fn negotiation(&mut self) -> Result<Message, NegotiationError> {
        match self.first().await {
            Ok(message) => Message::decode(message).map_err(|_| NegotiationError::NotANegotiation),
            Err(LinkEnd::Ended) => Err(NegotiationError::Ended),
            Err(LinkEnd::PermissionDenied(reason)) => Err(NegotiationError::Denied(reason)),
            Err(end) => Err(NegotiationError::Stream(end.to_string())),
        }
    }
}
