//! Listening sockets as one stream of connections.
//!
//! An application that reconnects gives up for good if it reaches a node that does
//! not negotiate with it. So a node that stops does it in this order: accept what
//! has already connected, close the listeners, let those that are new here open
//! their link, and only then stop.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::time::{Sleep, sleep, timeout};
use tokio_stream::Stream;
use tracing::warn;

use crate::socket::{Doom, Socket};

/// How long a connection may exist without a link, except before its first.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Pause after an error of a listener, most likely too many open files.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Connections that are accepted after the shutdown, because they were made before.
const LAST_ACCEPTS: usize = 1024;

/// How long a shutdown waits for connections that have no link yet.
const NEWCOMER_GRACE: Duration = Duration::from_secs(1);

/// An accepted connection, as its links see it.
pub(crate) struct Connection {
    pub(crate) peer_addr: SocketAddr,
    /// Links that are open.
    links: AtomicUsize,
    /// Whether it has not had a link yet.
    is_new: AtomicBool,
    newcomers: Newcomers,
    cut: Notify,
}

/// How many connections have not had a link yet.
type Newcomers = Arc<watch::Sender<usize>>;

/// A link of a connection, for as long as this lives.
pub(crate) struct OpenLink {
    connection: Arc<Connection>,
}

impl Connection {
    fn new(peer_addr: SocketAddr, newcomers: &Newcomers) -> Arc<Self> {
        newcomers.send_modify(|count| *count += 1);
        Arc::new(Self {
            peer_addr,
            links: AtomicUsize::new(0),
            is_new: AtomicBool::new(true),
            newcomers: Arc::clone(newcomers),
            cut: Notify::new(),
        })
    }

    pub(crate) fn open_link(self: &Arc<Self>) -> OpenLink {
        self.links.fetch_add(1, Ordering::Relaxed);
        self.settle();
        OpenLink { connection: Arc::clone(self) }
    }

    fn settle(&self) {
        if self.is_new.swap(false, Ordering::Relaxed) {
            self.newcomers.send_modify(|count| *count -= 1);
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.settle();
    }
}

impl OpenLink {
    /// Breaks the connection of the link, with all its links.
    pub(crate) fn cut(&self) {
        self.connection.cut.notify_one();
    }
}

impl Drop for OpenLink {
    fn drop(&mut self) {
        self.connection.links.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Resolves when the sender is gone. Such a channel carries no values.
pub(crate) async fn dropped(receiver: &mut watch::Receiver<()>) {
    while receiver.changed().await.is_ok() {}
}

/// Cuts a connection that never has a link, or none for long, or is told to go.
fn doom(
    connection: Arc<Connection>,
    first_link_timeout: Duration,
    mut cut_all: watch::Receiver<()>,
) -> Doom {
    Box::pin(async move {
        let mut patience = first_link_timeout;
        loop {
            tokio::select! {
                () = sleep(patience) => {
                    if connection.links.load(Ordering::Relaxed) == 0 {
                        return io::ErrorKind::TimedOut.into();
                    }
                    patience = IDLE_TIMEOUT;
                }
                () = connection.cut.notified() => return io::ErrorKind::ConnectionAborted.into(),
                () = dropped(&mut cut_all) => return io::ErrorKind::ConnectionAborted.into(),
            }
        }
    })
}

/// What tonic reads connections from.
pub(crate) struct Incoming<S> {
    listeners: Vec<TcpListener>,
    /// The listener to ask first, so that none starves.
    next: usize,
    /// Accepted by [`Self::stop`].
    last: VecDeque<Accepted>,
    retry: Option<Pin<Box<Sleep>>>,
    shutdown: Pin<Box<S>>,
    newcomers: Newcomers,
    /// After the shutdown: resolves when the newcomers have their links.
    farewell: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    first_link_timeout: Duration,
    cut_all: watch::Receiver<()>,
    /// Dropped with this, which says that there are no listeners any more.
    _listening: watch::Sender<()>,
}

pub(crate) type Accepted = Socket<Arc<Connection>>;

impl<S: Future<Output = ()>> Incoming<S> {
    /// Ends after `shutdown`; `listening` is dropped then. Every connection is cut
    /// when the sender of `cut_all` is dropped.
    pub(crate) fn new(
        listeners: Vec<TcpListener>,
        shutdown: S,
        first_link_timeout: Duration,
        listening: watch::Sender<()>,
        cut_all: watch::Receiver<()>,
    ) -> Self {
        Self {
            listeners,
            next: 0,
            last: VecDeque::new(),
            retry: None,
            shutdown: Box::pin(shutdown),
            newcomers: Arc::new(watch::Sender::new(0)),
            farewell: None,
            first_link_timeout,
            cut_all,
            _listening: listening,
        }
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
                Poll::Ready(Ok((tcp, peer_addr))) => {
                    return Poll::Ready(self.accepted(tcp, peer_addr));
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

    fn accepted(&self, tcp: TcpStream, peer_addr: SocketAddr) -> Accepted {
        let connection = Connection::new(peer_addr, &self.newcomers);
        let doom = doom(Arc::clone(&connection), self.first_link_timeout, self.cut_all.clone());
        Socket::new(tcp, doom, connection)
    }

    /// Closes the listeners, after a last look at what has come.
    fn stop(&mut self, cx: &mut Context<'_>) {
        while self.last.len() < LAST_ACCEPTS
            && let Poll::Ready(accepted) = self.poll_accept(cx)
        {
            self.last.push_back(accepted);
        }
        self.listeners.clear();
        let mut newcomers = self.newcomers.subscribe();
        self.farewell = Some(Box::pin(async move {
            let all_linked = newcomers.wait_for(|count| *count == 0);
            // Whoever has no link by then is no application.
            timeout(NEWCOMER_GRACE, all_linked).await.ok();
        }));
    }
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
            None => this.poll_accept(cx).map(|accepted| Some(Ok(accepted))),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use tokio::time::Instant;

    use super::*;

    const FIRST: Duration = Duration::from_secs(5);

    /// A connection, its doom, and what keeps everything.
    pub(crate) fn connection() -> (Arc<Connection>, Doom, watch::Sender<()>) {
        let peer_addr = ([127, 0, 0, 1], 1).into();
        let connection = Connection::new(peer_addr, &Arc::new(watch::Sender::new(0)));
        let (keep, cut_all) = watch::channel(());
        let doom = doom(Arc::clone(&connection), FIRST, cut_all);
        (connection, doom, keep)
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

        let (connection, doom, keep) = self::connection();
        let _link = connection.open_link();
        drop(keep);
        assert_eq!(doom.await.kind(), io::ErrorKind::ConnectionAborted);
    }

    #[tokio::test]
    async fn newcomers_are_counted_once() {
        let newcomers = Arc::new(watch::Sender::new(0));
        let connect = || Connection::new(([127, 0, 0, 1], 1).into(), &newcomers);
        let (first, second) = (connect(), connect());
        assert_eq!(*newcomers.borrow(), 2);
        drop(first.open_link());
        drop(first.open_link());
        assert_eq!(*newcomers.borrow(), 1);
        drop(first);
        assert_eq!(*newcomers.borrow(), 1);
        drop(second);
        assert_eq!(*newcomers.borrow(), 0);
    }
}
