//! Listening sockets as one stream of connections.
//!
//! An application that reconnects gives up for good if it reaches a node that does
//! not negotiate with it. So a node that stops does it in this order: accept what
//! has already connected, close the listeners, let those that are new here open
//! their link, and only then stop.

use std::collections::VecDeque;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::HeaderMap;

use rustls::pki_types::CertificateDer;
use tokio::sync::{Notify, watch};
use tokio::time::{Sleep, sleep, timeout};
use tokio_stream::Stream;
use tracing::{debug, warn};

use crate::admission::{Door, Place};
use crate::listener::{BACKLOG, Raw};
use crate::socket::{Doom, OnFirstByte, Socket};
use crate::transport::Transport;
use crate::{Authenticator, Endpoint, Listener, PeerAddr, Principal, TlsError, principal};

/// How long a connection may exist without a link, except before its first.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Pause after an error of a listener, most likely too many open files.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// How long a shutdown waits for connections that have no link yet, and then for
/// those that have none any more to be closed by their peers.
const FAREWELL: Duration = Duration::from_secs(1);

/// Connections that are accepted after the shutdown, because they were made before: all
/// that can have waited at two listeners. Closing a listener breaks those that still do,
/// and an application whose connection breaks before it has negotiated gives up.
const LAST_ACCEPTS: usize = 2 * BACKLOG as usize;

/// RFC 8446 §5.1: the first byte of a peer that wants to agree on TLS. In HTTP/2
/// nothing begins like that.
const TLS_HANDSHAKE: u8 = 22;

/// An accepted connection, as its links see it.
pub(crate) struct Connection {
    pub(crate) peer_addr: PeerAddr,
    /// Whether it is one WebSocket, not gRPC.
    pub(crate) is_web: bool,
    auth: Option<Arc<dyn Authenticator>>,
    /// Of the client's certificate, once its handshake is done.
    certified: OnceLock<Vec<Principal>>,
    /// Links that are open.
    links: AtomicUsize,
    /// Links that have negotiated, ever.
    negotiated: AtomicUsize,
    place: Place,
    /// Notified when a link is not open any more.
    link_gone: Notify,
    cut: Arc<Notify>,
}

/// A link of a connection, for as long as this lives.
pub(crate) struct OpenLink {
    connection: Arc<Connection>,
}

impl Connection {
    fn new(
        peer_addr: PeerAddr,
        is_web: bool,
        auth: Option<Arc<dyn Authenticator>>,
        door: &Arc<Door>,
    ) -> Arc<Self> {
        let cut = Arc::new(Notify::new());
        Arc::new(Self {
            peer_addr,
            is_web,
            auth,
            certified: OnceLock::new(),
            links: AtomicUsize::new(0),
            negotiated: AtomicUsize::new(0),
            place: door.enter(Arc::clone(&cut)),
            link_gone: Notify::new(),
            cut,
        })
    }

    pub(crate) fn open_link(self: &Arc<Self>) -> OpenLink {
        self.links.fetch_add(1, Ordering::Relaxed);
        OpenLink { connection: Arc::clone(self) }
    }

    /// Who opens a link with these headers.
    ///
    /// # Errors
    /// The check that failed.
    pub(crate) fn authenticate(&self, headers: &HeaderMap) -> Result<Arc<[Principal]>, String> {
        let certified = self.certified.get().into_iter().flatten().cloned();
        let Some(auth) = &self.auth else { return Ok(certified.collect()) };
        let shown = principal::authorization(headers)?;
        Ok(std::iter::once(auth.authenticate(shown)?).chain(certified).collect())
    }

    /// Waits until no link is open.
    async fn linkless(&self) {
        loop {
            let mut changed = pin!(self.link_gone.notified());
            changed.as_mut().enable();
            if self.links.load(Ordering::Relaxed) == 0 {
                return;
            }
            changed.await;
        }
    }
}

impl OpenLink {
    /// The peer is one that speaks the protocol.
    pub(crate) fn negotiated(&self) {
        self.connection.negotiated.fetch_add(1, Ordering::Relaxed);
        self.settle();
    }

    /// It is no link but a question, whose connection may last without any.
    pub(crate) fn is_a_question(&self) {
        self.connection.negotiated.fetch_add(1, Ordering::Relaxed);
    }

    /// The peer is none that is waited for.
    pub(crate) fn settle(&self) {
        self.connection.place.settle();
    }

    /// Breaks the connection of the link, with all its links.
    pub(crate) fn cut(&self) {
        self.connection.cut.notify_one();
    }
}

impl Drop for OpenLink {
    fn drop(&mut self) {
        self.connection.links.fetch_sub(1, Ordering::Relaxed);
        self.connection.link_gone.notify_waiters();
    }
}

/// Resolves when the sender is gone. Such a channel carries no values.
pub(crate) async fn dropped(receiver: &mut watch::Receiver<()>) {
    while receiver.changed().await.is_ok() {}
}

/// When connections are cut.
#[derive(Clone)]
pub(crate) struct Dooms {
    /// Without a link in this time, or without a negotiated one in the same time again.
    pub(crate) negotiation_timeout: Duration,
    /// Its sender is dropped when the listeners are closed.
    pub(crate) listens: watch::Receiver<()>,
    /// All of them when its sender is dropped.
    pub(crate) cut_all: watch::Receiver<()>,
}

impl Dooms {
    /// Of one connection, which may also be told to go.
    fn doom(&self, connection: Arc<Connection>) -> Doom {
        let Self { negotiation_timeout, mut listens, mut cut_all } = self.clone();
        Box::pin(async move {
            let lasts = async {
                for needed in [&connection.links, &connection.negotiated] {
                    sleep(negotiation_timeout).await;
                    if needed.load(Ordering::Relaxed) == 0 {
                        connection.place.count_cut();
                        return;
                    }
                }
                loop {
                    sleep(IDLE_TIMEOUT).await;
                    if connection.links.load(Ordering::Relaxed) == 0 {
                        return;
                    }
                }
            };
            // A peer that is there closes the connection when its links have ended.
            let leaves = async {
                dropped(&mut listens).await;
                sleep(FAREWELL).await;
                connection.linkless().await;
                sleep(FAREWELL).await;
            };
            tokio::select! {
                () = lasts => io::ErrorKind::TimedOut.into(),
                () = leaves => io::ErrorKind::ConnectionAborted.into(),
                () = connection.cut.notified() => io::ErrorKind::ConnectionAborted.into(),
                () = dropped(&mut cut_all) => io::ErrorKind::ConnectionAborted.into(),
            }
        })
    }
}

/// What tonic reads connections from.
pub(crate) struct Incoming<S> {
    listeners: Vec<Listener>,
    /// The listener to ask first, so that none starves.
    next: usize,
    /// Accepted by [`Self::stop`].
    last: VecDeque<Accepted>,
    retry: Option<Pin<Box<Sleep>>>,
    shutdown: Pin<Box<S>>,
    door: Arc<Door>,
    /// While a limit is reached: resolves when one more may come in.
    room: Option<Waiting>,
    /// After the shutdown: resolves when the newcomers have their links.
    farewell: Option<Waiting>,
    dooms: Dooms,
    /// Dropped with this, which says that there are no listeners any more.
    _listening: watch::Sender<()>,
}

pub(crate) type Accepted = Transport<Arc<Connection>>;

type Waiting = Pin<Box<dyn Future<Output = ()> + Send>>;

impl<S: Future<Output = ()>> Incoming<S> {
    /// Ends after `shutdown`; `listening` is dropped then.
    pub(crate) fn new(
        listeners: Vec<Listener>,
        shutdown: S,
        door: Arc<Door>,
        dooms: Dooms,
        listening: watch::Sender<()>,
    ) -> Self {
        Self {
            listeners,
            next: 0,
            last: VecDeque::new(),
            retry: None,
            shutdown: Box::pin(shutdown),
            door,
            room: None,
            farewell: None,
            dooms,
            _listening: listening,
        }
    }

    /// Accepts a connection if one more may come in.
    fn poll_admit(&mut self, cx: &mut Context<'_>) -> Poll<Accepted> {
        if self.room.is_none() && !self.door.has_room() {
            self.room = Some(Box::pin(Arc::clone(&self.door).wait_for_room()));
        }
        if let Some(room) = &mut self.room {
            ready!(room.as_mut().poll(cx));
            self.room = None;
        }
        self.poll_accept(cx)
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Accepted> {
        if let Some(retry) = &mut self.retry {
            ready!(retry.as_mut().poll(cx));
            self.retry = None;
        }
        for _ in 0..self.listeners.len() {
            let listener = &self.listeners[self.next];
            self.next = (self.next + 1) % self.listeners.len();
            match listener.poll_accept(cx) {
                Poll::Ready(Ok((raw, peer_addr))) => {
                    return Poll::Ready(self.accepted(raw, peer_addr, listener));
                }
                Poll::Ready(Err(error)) => {
                    warn!(%error, "cannot accept a connection");
                    self.retry = Some(Box::pin(sleep(ACCEPT_RETRY)));
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Poll::Pending => {}
            }
        }
        Poll::Pending
    }

    fn accepted(&self, raw: Raw, peer_addr: PeerAddr, listener: &Listener) -> Accepted {
        let is_web = matches!(listener.endpoint(), Endpoint::WebSocket { .. });
        let auth = listener.auth().cloned();
        let connection = Connection::new(peer_addr.clone(), is_web, auth, &self.door);
        let doom = self.dooms.doom(Arc::clone(&connection));
        let tcp = match raw {
            Raw::Tcp(tcp) => tcp,
            Raw::Unix(unix) => return Transport::unix(Socket::new(unix, doom, None), connection),
        };
        let Some(tls) = listener.tls() else {
            return Transport::plain(
                Socket::new(tcp, doom, Some(notice_tls(peer_addr))),
                connection,
            );
        };
        let failed = Arc::clone(&connection);
        let on_error = Box::new(move |error| {
            failed.place.count_refused();
            match error {
                // A probe or a change of mind, nothing that anybody has to look at.
                TlsError::Ended => debug!(%peer_addr, %error, "no TLS"),
                error => warn!(%peer_addr, %error, "no TLS"),
            }
        });
        let certified = Arc::clone(&connection);
        let on_certificate = Box::new(move |certificate: &CertificateDer<'_>| {
            certified.certified.get_or_init(|| Principal::of_certificate(certificate));
        });
        let socket = Socket::new(tcp, doom, None);
        Transport::accept(socket, tls.current(), on_certificate, on_error, connection)
    }

    /// Closes the listeners, after a last look at what has come.
    fn stop(&mut self, cx: &mut Context<'_>) {
        while self.last.len() < LAST_ACCEPTS
            && let Poll::Ready(accepted) = self.poll_accept(cx)
        {
            self.last.push_back(accepted);
        }
        self.listeners.clear();
        let all_linked = Arc::clone(&self.door).wait_for_newcomers();
        self.farewell = Some(Box::pin(async move {
            // Whoever has no link by then is no application.
            timeout(FAREWELL, all_linked).await.unwrap_or(());
        }));
    }
}

/// Says why nothing will come of a peer that speaks TLS where none is spoken.
fn notice_tls(peer_addr: PeerAddr) -> OnFirstByte {
    Box::new(move |first| {
        if first == TLS_HANDSHAKE {
            warn!(%peer_addr, "it speaks TLS, and this address does not");
        }
    })
}

impl<S: Future<Output = ()>> Stream for Incoming<S> {
    type Item = io::Result<Accepted>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.farewell.is_none() && this.shutdown.as_mut().poll(cx).is_ready() {
            this.stop(cx);
        }
        if let Some(accepted) = this.last.pop_front() {
            return Poll::Ready(Some(Ok(accepted)));
        }
        match &mut this.farewell {
            Some(farewell) => farewell.as_mut().poll(cx).map(|()| None),
            None => this.poll_admit(cx).map(|accepted| Some(Ok(accepted))),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::{AcceptConfig, LiveLimits};

    const FIRST: Duration = Duration::from_secs(5);

    /// A connection, its doom, and what keeps everything: first the listeners.
    pub(crate) fn connection() -> (Arc<Connection>, Doom, [watch::Sender<()>; 2]) {
        let peer_addr = PeerAddr::Ip(([127, 0, 0, 1], 1).into());
        let limits = Arc::new(LiveLimits::default());
        limits.set(&AcceptConfig::default());
        let door = Door::new(limits, Arc::default());
        let connection = Connection::new(peer_addr, false, None, &door);
        let (listening, listens) = watch::channel(());
        let (keep, cut_all) = watch::channel(());
        let dooms = Dooms { negotiation_timeout: FIRST, listens, cut_all };
        let doom = dooms.doom(Arc::clone(&connection));
        (connection, doom, [listening, keep])
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_a_link_is_doomed() {
        let (_connection, doom, _keep) = connection();
        let start = Instant::now();
        assert_eq!(doom.await.kind(), io::ErrorKind::TimedOut);
        assert_eq!(start.elapsed(), FIRST);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_lasts_while_it_has_a_link() {
        let (connection, mut doom, _keep) = connection();
        let link = connection.open_link();
        let other = connection.open_link();
        link.negotiated();
        let hour = Duration::from_secs(3600);
        timeout(hour, &mut doom).await.unwrap_err();
        drop(link);
        timeout(hour, &mut doom).await.unwrap_err();
        drop(other);
        let start = Instant::now();
        assert_eq!(doom.await.kind(), io::ErrorKind::TimedOut);
        assert!(start.elapsed() <= IDLE_TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_link_may_cut_its_connection_and_a_server_all_of_them() {
        let (connection, doom, _keep) = connection();
        connection.open_link().cut();
        assert_eq!(doom.await.kind(), io::ErrorKind::ConnectionAborted);

        let (connection, doom, [_listening, keep]) = self::connection();
        let _link = connection.open_link();
        drop(keep);
        assert_eq!(doom.await.kind(), io::ErrorKind::ConnectionAborted);
    }

    #[tokio::test(start_paused = true)]
    async fn a_link_alone_does_not_save_a_connection() {
        let (connection, doom, _keep) = connection();
        let _link = connection.open_link();
        let start = Instant::now();
        assert_eq!(doom.await.kind(), io::ErrorKind::TimedOut);
        assert_eq!(start.elapsed(), 2 * FIRST);
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_shutdown_a_connection_goes_soon_after_its_last_link() {
        let (connection, mut doom, [listening, _keep]) = connection();
        let link = connection.open_link();
        link.negotiated();
        drop(listening);
        timeout(Duration::from_secs(3600), &mut doom).await.unwrap_err();
        drop(link);
        let start = Instant::now();
        assert_eq!(doom.await.kind(), io::ErrorKind::ConnectionAborted);
        assert_eq!(start.elapsed(), FAREWELL);
    }
}
