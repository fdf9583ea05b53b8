//! One session of a client.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_core::Stream;
use opentelemetry::global::BoxedSpan;
use slim_proto::{Name, SessionId};
use slim_session::{
    Command, DeliveryReport, Done, InviteError, Member, Outgoing, PresenceError, PublishError,
    RemoveError, SessionEvent, SessionInfo, SessionState,
};
use tokio::sync::{Mutex, mpsc, oneshot};

use crate::client::Shared;
use crate::driver::{Answer, Invited, Request, Signal};

/// Events that wait for the application. The engine stops taking data, so that
/// its sender repeats it, well before the queue is full.
pub(crate) const QUEUE_EVENTS: usize = 4096;
/// The engine stops taking data with more events than this in the queue. One
/// message can set free as many as the engine keeps out of order.
pub(crate) const BUSY_EVENTS: usize = 2048;
/// The same bound for the payloads, in bytes.
pub(crate) const BUSY_BYTES: usize = 64 << 20;

/// A session. Cheap to clone; when the last handle is dropped, it is left, or
/// closed if we moderate it.
#[derive(Clone, Debug)]
pub struct Session {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    client: Arc<Shared>,
    info: SessionInfo,
    events: Mutex<mpsc::Receiver<Queued>>,
    queue: Arc<Queue>,
    signals: mpsc::UnboundedSender<Signal>,
}

/// What waits for the application, with the span of its waiting.
pub(crate) type Queued = (SessionEvent, Option<BoxedSpan>);

/// How full a session's queue is; shared with the driver.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    pub(crate) events: AtomicUsize,
    pub(crate) bytes: AtomicUsize,
    /// The engine was told that the application does not keep up.
    pub(crate) busy: AtomicBool,
    /// The session is over; its number may belong to another by now.
    pub(crate) over: AtomicBool,
}

impl Queue {
    pub(crate) fn is_high(&self) -> bool {
        self.events.load(Ordering::SeqCst) > BUSY_EVENTS
            || self.bytes.load(Ordering::SeqCst) > BUSY_BYTES
    }

    pub(crate) fn is_low(&self) -> bool {
        self.events.load(Ordering::SeqCst) <= BUSY_EVENTS / 2
            && self.bytes.load(Ordering::SeqCst) <= BUSY_BYTES / 2
    }
}

/// Bytes that an event holds.
pub(crate) fn weight(event: &SessionEvent) -> usize {
    match event {
        SessionEvent::Message(message) => message.payload.len(),
        _ => 0,
    }
}

impl Session {
    pub(crate) fn new(client: Arc<Shared>, invited: Invited) -> Self {
        let Invited { info, events, queue, signals } = invited;
        Self { inner: Arc::new(Inner { client, info, events: Mutex::new(events), queue, signals }) }
    }

    /// The session's number, the same at all members.
    pub fn id(&self) -> SessionId {
        self.inner.info.id
    }

    /// What does not change about it.
    pub fn info(&self) -> &SessionInfo {
        &self.inner.info
    }

    /// Asks the engine. `None` if the session or the client is closed.
    async fn ask(&self, command: Command) -> Option<Done> {
        match self.inner.queue.over.load(Ordering::Acquire) {
            true => None,
            false => self.inner.client.ask(command).await,
        }
    }

    /// Invites into a group that we moderate; gives the full name that joined. Calls
    /// may overlap, and inviting a member again is harmless.
    ///
    /// # Errors
    /// If it does not join. Trying again is possible after each error but
    /// [`InviteError::NotModerator`], [`InviteError::NotGroup`] and
    /// [`InviteError::Closed`].
    pub async fn invite(&self, name: &Name) -> Result<Name, InviteError> {
        let command = Command::Invite { session: self.id(), name: name.clone() };
        match self.ask(command).await {
            Some(Done::Invited(result)) => result,
            _ => Err(InviteError::Closed),
        }
    }

    /// Removes from a group that we moderate.
    ///
    /// # Errors
    /// If it is not a member, or we may not. After [`RemoveError::Unconfirmed`] it is
    /// out nevertheless.
    pub async fn remove(&self, name: &Name) -> Result<(), RemoveError> {
        let command = Command::Remove { session: self.id(), name: name.clone() };
        match self.ask(command).await {
            Some(Done::Removed(result)) => result,
            _ => Err(RemoveError::Closed),
        }
    }

    /// Publishes to everybody. Resolves when the message is on its way, which may
    /// take until earlier ones have their outcome; the [`Delivery`] then resolves to
    /// what became of it.
    ///
    /// # Errors
    /// If it is not sent.
    pub async fn publish(&self, payload: impl Into<Bytes>) -> Result<Delivery, PublishError> {
        let payload = payload.into();
        self.publish_with(Outgoing { payload, ..Outgoing::default() }).await
    }

    /// Publishes with a type, metadata, or to one member.
    ///
    /// # Errors
    /// If it is not sent.
    pub async fn publish_with(&self, mut message: Outgoing) -> Result<Delivery, PublishError> {
        if self.inner.queue.over.load(Ordering::Acquire) {
            return Err(PublishError::Closed);
        }
        let telemetry = self.inner.client.telemetry.as_ref();
        let published = telemetry.map(|telemetry| telemetry.publish(self.info(), &mut message));
        let command = Command::Publish { session: self.id(), message };
        let (accepted, is_accepted) = oneshot::channel();
        let (done, outcome) = oneshot::channel();
        let answer = Answer::Published { accepted: Some(accepted), done, published };
        let request = Request::Command(command, answer);
        let delivery = Delivery { outcome };
        if self.inner.client.requests.send(request).await.is_err() {
            return Err(PublishError::Closed);
        }
        match is_accepted.await {
            Ok(()) => Ok(delivery),
            Err(_) => match delivery.await {
                Err(error) => Err(error),
                Ok(_) => Err(PublishError::Internal("reported before it was accepted")),
            },
        }
    }

    /// Everybody who is in, ourselves included; nobody if the session is over.
    pub async fn members(&self) -> Vec<Member> {
        self.state().await.map(|state| state.members).unwrap_or_default()
    }

    /// Who is in, and where the encryption stands. `None` if the session is over.
    pub async fn state(&self) -> Option<SessionState> {
        match self.ask(Command::State { session: self.id() }).await {
            Some(Done::State(state)) => state,
            _ => None,
        }
    }

    /// What happens next. `None` after [`SessionEvent::Closed`] was handed out, or if
    /// the client is closed. Cancel safe. Who does not call it for long gets no
    /// more data: senders see their messages as lost.
    pub async fn next_event(&self) -> Option<SessionEvent> {
        let (event, _ends_here) = self.inner.events.lock().await.recv().await?;
        let queue = &self.inner.queue;
        queue.events.fetch_sub(1, Ordering::SeqCst);
        queue.bytes.fetch_sub(weight(&event), Ordering::SeqCst);
        if queue.is_low() && queue.busy.swap(false, Ordering::SeqCst) {
            // If the driver is gone nobody needs to know.
            self.inner.signals.send(Signal::Drained(self.id(), queue.clone())).ok();
        }
        Some(event)
    }

    /// [`next_event`](Self::next_event) as a stream.
    pub fn events(&self) -> impl Stream<Item = SessionEvent> + Send + 'static {
        futures_util::stream::unfold(self.clone(), |session| async move {
            session.next_event().await.map(|event| (event, session))
        })
    }

    /// Resolves when every message published so far has its outcome.
    pub async fn flush(&self) {
        self.ask(Command::Flush { session: self.id() }).await;
    }

    /// Goes away from a group for a while (`false`), or comes back (`true`). Who is
    /// away counts as offline and gets no data, but still follows the group; when it
    /// is back, others send what they still have for it. Resolves when the others
    /// know.
    ///
    /// # Errors
    /// In a point-to-point session, or if it is over. [`PresenceError::Unconfirmed`] if
    /// some did not answer; it counts nevertheless.
    pub async fn set_presence(&self, online: bool) -> Result<(), PresenceError> {
        match self.ask(Command::SetPresence { session: self.id(), online }).await {
            Some(Done::Presence(result)) => result,
            _ => Err(PresenceError::Closed),
        }
    }

    /// Leaves the session; if we moderate it, closes it for all. Resolves when the
    /// others have confirmed, or did not within a few seconds. What is still on its
    /// way is reported as lost: [`flush`](Self::flush) first to avoid that.
    pub async fn close(&self) {
        self.ask(Command::Close { session: self.id() }).await;
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // If the driver is gone the session is, too.
        self.signals.send(Signal::Dropped(self.info.id, self.queue.clone())).ok();
    }
}

/// What becomes of a published message. Dropping it changes nothing for the message.
#[derive(Debug)]
pub struct Delivery {
    outcome: oneshot::Receiver<Done>,
}

impl Future for Delivery {
    type Output = Result<DeliveryReport, PublishError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match ready!(Pin::new(&mut self.outcome).poll(cx)) {
            Ok(Done::Published(result)) => result,
            _ => Err(PublishError::Closed),
        })
    }
}
