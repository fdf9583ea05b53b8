//! One application on one node.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use slim_proto::Name;
use slim_session::{Command, CreateError, Done, SessionConfig};
use tokio::sync::{Mutex, broadcast, mpsc, oneshot};
use tokio_stream::wrappers::{BroadcastStream, errors::BroadcastStreamRecvError};

use crate::driver::{Answer, Invited, Request};
use crate::telemetry::Telemetry;
use crate::{ClientBuilder, Session};

/// Client events that a slow [`ClientEvents`] may be behind; older ones are skipped.
pub(crate) const EVENT_QUEUE: usize = 64;

/// An application that is connected to a node. Cheap to clone; when the last
/// handle, those of its sessions included, is dropped, the link is closed.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
}

/// What all handles of a client, and of its sessions, have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) name: Name,
    pub(crate) node: String,
    pub(crate) requests: mpsc::Sender<Request>,
    pub(crate) invited: Mutex<mpsc::Receiver<Invited>>,
    pub(crate) events: broadcast::Sender<ClientEvent>,
    pub(crate) telemetry: Option<Arc<Telemetry>>,
}

impl Client {
    /// Starts to describe a client with this name. Any id in it is ignored: the id
    /// follows from the identity.
    pub fn builder(name: Name) -> ClientBuilder {
        ClientBuilder::new(name)
    }

    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The full name, id included.
    pub fn name(&self) -> &Name {
        &self.shared.name
    }

    /// The node, as a URL.
    pub fn node(&self) -> &str {
        &self.shared.node
    }

    /// Creates a group that this client moderates. Nobody is in it yet, and nobody
    /// is asked: it is there at once.
    ///
    /// # Errors
    /// If too many sessions are open.
    pub async fn create_group(
        &self,
        channel: Name,
        config: SessionConfig,
    ) -> Result<Session, CreateError> {
        self.create(Command::CreateGroup { channel, config }).await
    }

    /// Opens a session with one application: with any instance of it if the name
    /// has no id. Done when the peer has joined.
    ///
    /// # Errors
    /// If the peer does not join; the session is gone then.
    pub async fn create_p2p(
        &self,
        peer: Name,
        config: SessionConfig,
    ) -> Result<Session, CreateError> {
        self.create(Command::CreateP2p { peer, config }).await
    }

    async fn create(&self, command: Command) -> Result<Session, CreateError> {
        let closed = CreateError::Invite(slim_session::InviteError::Closed);
        let (created, session) = oneshot::channel();
        let answer = Answer::Created(created);
        if self.shared.requests.send(Request::Command(command, answer)).await.is_err() {
            return Err(closed);
        }
        session.await.unwrap_or(Err(closed))
    }

    /// The next session that somebody opened with us, in the order of their
    /// welcomes. `None` if the client is closed.
    pub async fn listen_for_session(&self) -> Option<Session> {
        let invited = self.shared.invited.lock().await.recv().await?;
        Some(Session::new(self.shared.clone(), invited))
    }

    /// What happens to the client from now on.
    pub fn events(&self) -> ClientEvents {
        ClientEvents { events: BroadcastStream::new(self.shared.events.subscribe()) }
    }

    /// The same as [`Session::close`].
    pub async fn delete_session(&self, session: &Session) {
        session.close().await;
    }

    /// Sends what is queued and closes the link. Sessions that are still open are
    /// not closed: to the others we are merely silent.
    pub async fn shutdown(self) {
        let (done, finished) = oneshot::channel();
        // If the driver is gone, the link is closed already.
        if self.shared.requests.send(Request::Shutdown(done)).await.is_ok() {
            finished.await.ok();
        }
    }
}

impl Shared {
    /// Asks the engine. `None` if the client is closed.
    pub(crate) async fn ask(&self, command: Command) -> Option<Done> {
        let (answer, done) = oneshot::channel();
        self.requests.send(Request::Command(command, Answer::Done(answer))).await.ok()?;
        done.await.ok()
    }
}

/// Something happened to a client as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientEvent {
    /// The link is lost. It is tried again for ever, and sessions go on.
    Disconnected {
        /// What the link said.
        reason: String,
    },
    /// The link is back, and so is everything that the node has to know.
    Reconnected,
    /// What this peer sends does not verify with our identity. Told once per peer,
    /// otherwise ignored.
    IdentityMismatch {
        /// As it calls itself.
        peer: Name,
        /// Which check failed.
        reason: String,
    },
    /// An invitation of this peer was refused, as [`ClientBuilder::invitations`] says.
    /// Told once per peer.
    Declined {
        /// Who invited.
        peer: Name,
        /// What it was told.
        reason: String,
    },
    /// What this peer says does not follow from its identity, and was let through, as
    /// [`ClientBuilder::identity_binding`] says. Told once per peer and reason.
    Unbound {
        /// As it calls itself.
        peer: Name,
        /// What does not fit.
        reason: &'static str,
    },
    /// The node does not want us back: every session is over.
    Closed {
        /// Its reason.
        reason: String,
    },
}

/// The events of a client, from when it was asked for on. Who does not keep up
/// misses the oldest.
#[derive(Debug)]
pub struct ClientEvents {
    events: BroadcastStream<ClientEvent>,
}

impl ClientEvents {
    /// The next event; `None` if the client is closed. Cancel safe.
    pub async fn next(&mut self) -> Option<ClientEvent> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }
}

impl Stream for ClientEvents {
    type Item = ClientEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<ClientEvent>> {
        loop {
            match ready!(Pin::new(&mut self.events).poll_next(cx)) {
                Some(Ok(event)) => return Poll::Ready(Some(event)),
                Some(Err(BroadcastStreamRecvError::Lagged(_))) => {}
                None => return Poll::Ready(None),
            }
        }
    }
}
