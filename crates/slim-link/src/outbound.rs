//! What waits to be sent on a link: bounded, taken without waiting, handed to
//! the transport in large pieces.
//!
//! Small messages are written one behind the other into a buffer that leaves as
//! one piece, in one write to the socket if the peer takes HTTP/2 frames of that
//! length: a write costs more than copying some kilobytes. Of a large message only
//! the beginning is written there; the rest is the memory that all its subscribers
//! share. Control messages have a lane of their own that goes first, at the boundary
//! between two messages.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::mem;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderValue;
use http_body::Frame;
use slim_proto::{Message, Outgoing};
use tokio::sync::Notify;

use crate::budget::Budget;
use crate::buffer::Buffer;
use crate::grpc;
use crate::handshake::NegotiationError;
use crate::mac::LinkKey;

/// Data that may wait on one link by default, in bytes. With typical messages about
/// a thousand; more only delays the moment at which a slow reader is noticed.
pub const DEFAULT_QUEUE_BYTES: usize = 1024 * 1024;

/// Control messages that may wait on one link, in bytes, or one message. A
/// subscription ack takes some 20, so who fills it asks faster than it reads: it
/// waits, see [`Outbound::control_space`].
pub const CONTROL_QUEUE_BYTES: usize = 64 * 1024;

/// Small messages go out together in pieces of up to this many bytes. The kernel
/// makes one segment of as much.
pub const PIECE_LEN: usize = 64 * 1024;

/// Messages up to this many bytes are copied for each subscriber; longer ones are
/// shared, which costs each subscriber a write of its own.
const SMALL_LEN: usize = 32 * 1024;

/// The sending half of a link. Clones are cheap and share the queue.
///
/// Nothing here waits, but [`Self::space`] and [`Self::control_space`]. Frames of one pusher leave in order.
#[derive(Clone)]
pub struct Outbound {
    queue: Arc<Queue>,
    key: Option<LinkKey>,
}

impl Outbound {
    pub(crate) fn new(queue: Arc<Queue>, key: Option<LinkKey>) -> Self {
        Self { queue, key }
    }

    /// Signs a frame for this link and queues it behind the others, if less than
    /// the link's limit is waiting, or [`QUEUE_SHARE`](crate::QUEUE_SHARE) while
    /// all links together have too much; a queue is longer than its limit by one
    /// message at most. The writer is not woken: push all there is, then [`Self::wake`].
    ///
    /// # Errors
    /// See [`PushError`]; the frame is not queued then.
    pub fn try_push(&self, frame: &Outgoing<'_>) -> Result<(), PushError> {
        // Again under the lock; this saves the MAC of what is not queued anyway.
        self.queue.admits(self.queue.queued())?;
        let Some(key) = &self.key else {
            let (head, tail) = frame.without_mac();
            let len = head.len() + tail.len();
            return self.queue.push(len, &tail, |out| out.put_slice(&head));
        };
        let mac = key.sign(frame.mac_body());
        self.queue.push(frame.len(), frame.tail(), |out| frame.write_head(&mac, out))
    }

    /// Queues a message without a routing header ([`Message::SubscriptionAck`])
    /// in front of all data, bounded by [`CONTROL_QUEUE_BYTES`].
    ///
    /// # Errors
    /// See [`PushError`].
    pub fn try_push_control(&self, message: &Message) -> Result<(), PushError> {
        self.queue.push_control(&message.encode())
    }

    /// Waits until all control messages have been handed to the transport, or the
    /// link is closed. How long that takes is up to the peer: bound it with a timeout.
    pub async fn control_space(&self) {
        self.wait(|| self.queue.lock().control.is_empty()).await;
    }

    /// Tells the writer that there is something to send. Cheap if there is not.
    pub fn wake(&self) {
        self.queue.wake_writer();
    }

    /// Waits until [`Self::try_push`] may succeed again, or the link is closed.
    /// How long that takes is up to the peer: bound it with a timeout. Room that
    /// other links make is noticed when this one's peer reads something.
    pub async fn space(&self) {
        self.wait(|| self.queue.has_room(self.queue.queued())).await;
    }

    /// Waits until this is so, or the link is closed.
    async fn wait(&self, is_so: impl Fn() -> bool) {
        loop {
            let mut changed = pin!(self.queue.space.notified());
            changed.as_mut().enable();
            if self.is_closed() || is_so() {
                return;
            }
            changed.await;
        }
    }

    /// Bytes of data that wait to be sent.
    pub fn queued_bytes(&self) -> usize {
        self.queue.queued()
    }

    /// Whether the link is closed, by either side. It stays so.
    pub fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }

    /// Takes nothing more, sends what is queued and ends the stream. The link's
    /// reader reports [`LinkEnd::ClosedHere`](crate::LinkEnd::ClosedHere). What the
    /// peer has not taken [`LINGER`](crate::LINGER) later is lost with the
    /// connection. Closing again changes nothing.
    pub fn close(&self, reason: CloseReason) {
        self.queue.close(reason);
    }

    /// Like [`Self::close`], but drops what is queued, and says how much that was.
    pub fn shed(&self, reason: CloseReason) -> Shed {
        self.queue.close(reason);
        self.queue.drop_data()
    }
}

impl fmt::Debug for Outbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbound")
            .field("queued_bytes", &self.queued_bytes())
            .field("is_closed", &self.is_closed())
            .finish_non_exhaustive()
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
    /// There is no such service (NOT_FOUND). The end of a question about its health, and
    /// of no link.
    NotFound,
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

/// The queue behind all [`Outbound`]s of a link, its body and its reader.
pub(crate) struct Queue {
    state: Mutex<State>,
    /// That of the budget, if this is none.
    limit: Option<usize>,
    /// Of all queues together.
    budget: Arc<Budget>,
    /// Bytes of data in `state`, to be read without the lock.
    queued: AtomicUsize,
    closed: AtomicBool,
    /// Notified when there is room again, and when the link is closed.
    space: Notify,
    /// Notified when the body is gone.
    gone: Notify,
}

#[derive(Default)]
struct State {
    /// Whole control messages.
    control: BytesMut,
    /// Complete pieces, in order.
    pieces: VecDeque<Piece>,
    /// The piece that is being filled with small messages.
    open: Buffer,
    /// Messages that begin in `open`.
    open_frames: usize,
    /// Length of the last piece that left: a busy link gets its buffer at once, an
    /// idle one keeps none.
    last_len: usize,
    close_reason: Option<CloseReason>,
    /// More about it, for the peer.
    close_text: Option<HeaderValue>,
    body_gone: bool,
    writer: Option<Waker>,
    reader: Option<Waker>,
}

/// Whole messages; only the last one may continue in `tail`.
struct Piece {
    bytes: Bytes,
    tail: Bytes,
    frames: usize,
}

impl Queue {
    pub(crate) fn new(limit: usize, budget: Arc<Budget>) -> Arc<Self> {
        Self::with_limit(Some(limit), budget)
    }

    /// A queue whose limit is that of the budget, which may change.
    pub(crate) fn of_budget(budget: Arc<Budget>) -> Arc<Self> {
        Self::with_limit(None, budget)
    }

    fn with_limit(limit: Option<usize>, budget: Arc<Budget>) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            limit,
            budget,
            queued: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            space: Notify::new(),
            gone: Notify::new(),
        })
    }

    /// Nothing panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn queued(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    fn admits(&self, queued: usize) -> Result<(), PushError> {
        if self.is_closed() {
            return Err(PushError::Closed);
        }
        if !self.has_room(queued) {
            return Err(PushError::Full);
        }
        Ok(())
    }

    fn has_room(&self, queued: usize) -> bool {
        let limit = self.limit.unwrap_or_else(|| self.budget.queue_limit());
        queued < limit && self.budget.admits(queued)
    }

    /// Queues a message of `len` bytes that begins with what `write_head` writes and
    /// ends with `tail`.
    fn push(
        &self,
        len: usize,
        tail: &Bytes,
        write_head: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), PushError> {
        let mut state = self.lock();
        // Under the lock, so that a close that has dropped the queue stays the last.
        self.admits(self.queued())?;
        let framed = grpc::PREFIX_LEN + len;
        let shared = framed > SMALL_LEN;
        let written = if shared { framed - tail.len() } else { framed };
        if !state.open.is_empty() && state.open.len() + written > PIECE_LEN {
            state.seal(Bytes::new());
        }
        if state.open.is_empty() {
            state.open = Buffer::with_room(state.last_len.max(written));
        }
        state.open.put_slice(&grpc::prefix(len));
        write_head(&mut state.open);
        state.open_frames += 1;
        if shared {
            state.seal(tail.clone());
        } else {
            state.open.put_slice(tail);
        }
        let before = self.queued.fetch_add(framed, Ordering::Relaxed);
        self.budget.changed(before, before + framed);
        Ok(())
    }

    pub(crate) fn push_control(&self, message: &[u8]) -> Result<(), PushError> {
        let mut state = self.lock();
        self.admits(0)?;
        let len = state.control.len() + grpc::PREFIX_LEN + message.len();
        if len > CONTROL_QUEUE_BYTES && !state.control.is_empty() {
            return Err(PushError::Full);
        }
        state.control.put_slice(&grpc::prefix(message.len()));
        state.control.put_slice(message);
        Ok(())
    }

    pub(crate) fn wake_writer(&self) {
        let writer = {
            let mut state = self.lock();
            if state.is_empty() && state.close_reason.is_none() {
                return;
            }
            state.writer.take()
        };
        if let Some(writer) = writer {
            writer.wake();
        }
    }

    pub(crate) fn close(&self, reason: CloseReason) {
        self.end(|state| state.close_reason = state.close_reason.or(Some(reason)));
    }

    /// Closes the link because of what the peer has said, and tells it.
    pub(crate) fn refuse(&self, reason: &NegotiationError) {
        let text = grpc::status_text(&reason.to_string());
        self.end(|state| {
            if state.close_reason.is_none() {
                (state.close_reason, state.close_text) = (Some(CloseReason::Refused), text);
            }
        });
    }

    fn end(&self, how: impl FnOnce(&mut State)) {
        let (writer, reader) = {
            let mut state = self.lock();
            how(&mut state);
            self.closed.store(true, Ordering::Release);
            (state.writer.take(), state.reader.take())
        };
        for waker in [writer, reader].into_iter().flatten() {
            waker.wake();
        }
        self.space.notify_waiters();
    }

    /// For a closed queue, to which nothing comes any more.
    fn drop_data(&self) -> Shed {
        let mut state = self.lock();
        self.budget.changed(self.queued.swap(0, Ordering::Relaxed), 0);
        state.drop_data()
    }

    /// Queues a message as it is, behind the data.
    pub(crate) fn push_plain(&self, message: &[u8]) -> Result<(), PushError> {
        self.push(message.len(), &Bytes::new(), |out| out.put_slice(message))
    }

    /// Whether somebody has closed the link, as opposed to lost it.
    pub(crate) fn is_closed_here(&self) -> bool {
        self.lock().close_reason.is_some()
    }

    /// Ready when the link is closed by this side, or its body is gone.
    pub(crate) fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if self.is_closed() {
            return Poll::Ready(());
        }
        if !state.reader.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
            state.reader = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Waits until the transport has let go of the body: all has been handed over,
    /// or the stream is broken.
    pub(crate) async fn body_gone(&self) {
        loop {
            let mut changed = pin!(self.gone.notified());
            changed.as_mut().enable();
            if self.lock().body_gone {
                return;
            }
            changed.await;
        }
    }
}

/// Closes the link with this, so that nobody has to remember to.
pub(crate) struct CloseOnDrop(pub(crate) Arc<Queue>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close(CloseReason::Done);
    }
}

impl State {
    fn is_empty(&self) -> bool {
        self.control.is_empty() && self.pieces.is_empty() && self.open.is_empty()
    }

    /// Ends the open piece; its last message continues with `tail`.
    fn seal(&mut self, tail: Bytes) {
        self.pieces.push_back(Piece {
            bytes: mem::take(&mut self.open).into_bytes(),
            tail,
            frames: mem::take(&mut self.open_frames),
        });
    }

    fn drop_data(&mut self) -> Shed {
        if !self.open.is_empty() {
            self.seal(Bytes::new());
        }
        let mut shed = Shed::default();
        for piece in self.pieces.drain(..) {
            shed.frames += piece.frames;
            shed.bytes += piece.bytes.len() + piece.tail.len();
        }
        shed
    }
}

/// What the transport reads the queue through. Dropping it closes the link.
pub(crate) struct OutboundBody {
    queue: Arc<Queue>,
    /// The rest of the message that has begun; nothing may come in between.
    tail: Bytes,
    /// Whether the stream ends with a status, as responses do.
    with_trailers: bool,
    finished: bool,
}

impl OutboundBody {
    /// The body of a request: its end says nothing.
    pub(crate) fn request(queue: Arc<Queue>) -> Self {
        Self::new(queue, false)
    }

    /// The body of a response: its end is a gRPC status.
    pub(crate) fn response(queue: Arc<Queue>) -> Self {
        Self::new(queue, true)
    }

    fn new(queue: Arc<Queue>, with_trailers: bool) -> Self {
        Self { queue, tail: Bytes::new(), with_trailers, finished: false }
    }
}

impl http_body::Body for OutboundBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        if !this.tail.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(mem::take(&mut this.tail)))));
        }
        if this.finished {
            return Poll::Ready(None);
        }
        let mut state = this.queue.lock();
        if !state.control.is_empty() {
            let control = mem::take(&mut state.control).freeze();
            drop(state);
            this.queue.space.notify_waiters();
            return Poll::Ready(Some(Ok(Frame::data(control))));
        }
        if state.pieces.is_empty() && !state.open.is_empty() {
            state.seal(Bytes::new());
        }
        if let Some(piece) = state.pieces.pop_front() {
            state.last_len = piece.bytes.len();
            this.tail = piece.tail;
            let len = piece.bytes.len() + this.tail.len();
            // Under the lock, as every change of it.
            let before = this.queue.queued.fetch_sub(len, Ordering::Relaxed);
            this.queue.budget.changed(before, before - len);
            drop(state);
            this.queue.space.notify_waiters();
            return Poll::Ready(Some(Ok(Frame::data(piece.bytes))));
        }
        if let Some(reason) = state.close_reason {
            this.finished = true;
            let trailers = Frame::trailers(grpc::trailers(reason, state.close_text.take()));
            return Poll::Ready(this.with_trailers.then_some(Ok(trailers)));
        }
        if !state.writer.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
            state.writer = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.finished && self.tail.is_empty()
    }
}

impl Drop for OutboundBody {
    fn drop(&mut self) {
        self.queue.end(|state| state.body_gone = true);
        self.queue.drop_data();
        self.queue.gone.notify_waiters();
    }
}

#[cfg(test)]
mod tests;
