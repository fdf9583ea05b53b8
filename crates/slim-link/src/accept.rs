//! The accepting side: listeners in, negotiated links out.

use std::convert::Infallible;
use std::future::{pending, poll_fn, ready};
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use slim_proto::{ConnectionType, LinkNegotiation, Message};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_stream::StreamExt as _;
use tonic::transport::Server;
use tonic::transport::server::Connected as _;
use tower_service::Service;
use tracing::{debug, warn};

use crate::admission::{AcceptCounters, DEFAULT_MAX_CONNECTIONS, DEFAULT_MAX_NEWCOMERS, Door};
use crate::budget::{Budget, DEFAULT_MAX_QUEUED_BYTES};
use crate::handshake::{self, Acceptor, Negotiated, NegotiationError, PeerAdmission, Secrets};
use crate::health::Question;
use crate::listen::{Accepted, Connection, Dooms, Incoming, OpenLink, dropped};
use crate::outbound::{CloseOnDrop, OutboundBody, Queue};
use crate::reader::{Inbound, MacRule, MessageReader};
use crate::websocket::WebSocket;
use crate::{
    CloseReason, DEFAULT_QUEUE_BYTES, FrameReader, Health, Listener, LiveLimits, Outbound,
    PIECE_LEN, PeerAddr, Principal, grpc,
};

/// How long a closed link may take to be sent and read to its end, before its
/// connection is cut.
pub const LINGER: Duration = Duration::from_secs(5);

/// A peer that takes nothing of a closed link for so long is not waited for.
const STALL: Duration = Duration::from_secs(2);

/// What a link may receive before its reader takes it, in bytes.
const STREAM_WINDOW: u32 = 1024 * 1024;

/// The same for all links of a connection together: one that is not read leaves
/// room for others.
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// Links per connection.
const MAX_STREAMS: u32 = 100;

/// How long cutting everything may take.
const CUT_TIMEOUT: Duration = Duration::from_secs(1);

/// How it is noticed that a peer is gone without a word, and how old a connection gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Time between two signs of life that a peer is asked for (HTTP/2 PING). Default
    /// 120 s.
    pub interval: Duration,
    /// How long each may take before the connection is cut. Default 20 s.
    pub timeout: Duration,
    /// A connection that is older is told to open no further links (HTTP/2 GOAWAY);
    /// those that it has stay. Default 2 h, as everywhere.
    pub max_connection_age: Duration,
}

impl Default for Keepalive {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(120),
            timeout: Duration::from_secs(20),
            max_connection_age: Duration::from_secs(2 * 60 * 60),
        }
    }
}

/// How links are accepted.
#[derive(Clone, Debug)]
pub struct AcceptConfig {
    /// Own node id, announced to each peer.
    pub node_id: String,
    /// Own group of nodes, announced to each peer. Default none.
    pub deployment_name: String,
    /// Which nodes may open peer links. Default: none may.
    pub peers: PeerAdmission,
    /// Whether each message with a header needs a valid MAC. Default true; without
    /// it, peers that offer no key get a link that anybody on the path can write to.
    pub require_header_mac: bool,
    /// From the opening of a stream to the end of its negotiation; also from
    /// accepting a connection to its first stream, and as much again until one of
    /// its streams has negotiated. Default 5 s, as everywhere. Shorter cuts off slow
    /// diallers, longer keeps silent ones.
    pub negotiation_timeout: Duration,
    /// How long a dialler whose negotiation was refused is kept waiting for the end of
    /// its stream. Default 1 s. Some come back at once, and for ever: shorter lets them
    /// take more processor time, longer keeps more of them as newcomers.
    pub refusal_pause: Duration,
    /// Connections that there may be, at least 1. Default
    /// [`DEFAULT_MAX_CONNECTIONS`]. Further ones wait with the system until one
    /// goes.
    pub max_connections: usize,
    /// Connections of which none of the streams has negotiated yet, at least 1.
    /// Default [`DEFAULT_MAX_NEWCOMERS`]. Further ones wait with the system; one
    /// that has had [`NEWCOMER_GRACE`](crate::NEWCOMER_GRACE) is cut for them.
    pub max_newcomers: usize,
    /// Bytes that may wait to be sent on one link. Default [`DEFAULT_QUEUE_BYTES`].
    pub queue_bytes: usize,
    /// Bytes that may wait on all links together, not counting
    /// [`QUEUE_SHARE`](crate::QUEUE_SHARE) on each. Default
    /// [`DEFAULT_MAX_QUEUED_BYTES`]. While more is waiting, that share is the limit
    /// of each link.
    pub max_queued_bytes: usize,
    /// Signs of life, and age.
    pub keepalive: Keepalive,
    /// How long links may take to end after a shutdown before their connections
    /// are cut. Default 10 s.
    pub drain_timeout: Duration,
    /// Counts what is accepted. Default: new ones.
    pub counters: Arc<AcceptCounters>,
    /// Says whether links are taken. Default: a new one.
    pub health: Arc<Health>,
    /// The limits of this configuration, to be changed while it is served. Default: new
    /// ones; they are given the values of this configuration.
    pub limits: Arc<LiveLimits>,
}

impl Default for AcceptConfig {
    fn default() -> Self {
        Self {
            node_id: format!("node-{}", uuid::Uuid::new_v4()),
            deployment_name: String::new(),
            peers: PeerAdmission::default(),
            require_header_mac: true,
            negotiation_timeout: Duration::from_secs(5),
            refusal_pause: Duration::from_secs(1),
            max_connections: DEFAULT_MAX_CONNECTIONS,
            max_newcomers: DEFAULT_MAX_NEWCOMERS,
            queue_bytes: DEFAULT_QUEUE_BYTES,
            max_queued_bytes: DEFAULT_MAX_QUEUED_BYTES,
            keepalive: Keepalive::default(),
            drain_timeout: Duration::from_secs(10),
            counters: Arc::default(),
            health: Arc::default(),
            limits: Arc::default(),
        }
    }
}

/// Who is at the other end of a link, by its own account.
#[derive(Clone, Debug)]
pub struct LinkInfo {
    /// Chosen by the dialler, the same again on each of its reconnects.
    pub link_id: String,
    /// The peer's node id.
    pub node_id: String,
    /// The peer's group, usually empty.
    pub deployment_name: String,
    /// Version of the peer's protocol.
    pub slim_version: String,
    /// What kind of link this is.
    pub connection_type: ConnectionType,
    /// The peer's address.
    pub peer_addr: PeerAddr,
    /// Who that is, as the transport has verified: what it showed to an
    /// [`Authenticator`](crate::Authenticator), and the names in its certificate. Empty
    /// where nothing is asked for, and on dialled links.
    pub principals: Arc<[Principal]>,
    /// Whether the link has a key. Always true if MACs are required.
    pub has_mac: bool,
}

impl LinkInfo {
    pub(crate) fn new(
        peer: LinkNegotiation,
        peer_addr: PeerAddr,
        principals: Arc<[Principal]>,
        has_mac: bool,
    ) -> Self {
        Self {
            link_id: peer.link_id,
            node_id: peer.node_id,
            deployment_name: peer.deployment_name,
            slim_version: peer.slim_version,
            connection_type: peer.connection_type,
            peer_addr,
            principals,
            has_mac,
        }
    }
}

/// A link whose negotiation has succeeded.
#[derive(Debug)]
pub struct AcceptedLink {
    /// Who is there.
    pub info: LinkInfo,
    /// What arrives.
    pub frames: FrameReader,
    /// What goes out; clone it for whoever has something to send.
    pub outbound: Outbound,
}

/// Accepts links until `shutdown`, then drains.
///
/// For each negotiated link one task runs `on_link`; when it returns, the link is
/// closed ([`CloseReason::Done`](crate::CloseReason::Done)). On `shutdown`
/// [`AcceptConfig::health`] says so first, then the listeners are closed, then every link: its [`FrameReader`] reports
/// [`LinkEnd::ClosedHere`](crate::LinkEnd::ClosedHere), what is queued goes out,
/// the stream ends with OK. What has not ended after
/// [`AcceptConfig::drain_timeout`] is cut and its task aborted, so this returns soon
/// after. Dropping the returned future cuts everything at once.
///
/// # Errors
/// If the server ends before `shutdown`. Failures of single connections are no
/// errors: they cost that connection only.
pub async fn serve<F, Fut>(
    listeners: Vec<Listener>,
    config: AcceptConfig,
    on_link: F,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()>
where
    F: Fn(AcceptedLink) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let (cut_all, cut) = watch::channel(());
    let (listening, mut listens) = watch::channel(());
    let drain_timeout = config.drain_timeout;
    let keepalive = config.keepalive;
    config.limits.set(&config);
    let door = Door::new(Arc::clone(&config.limits), Arc::clone(&config.counters));
    let negotiation_timeout = config.negotiation_timeout;
    let dooms = Dooms { negotiation_timeout, listens: listens.clone(), cut_all: cut };
    let mut following = JoinSet::new();
    for listener in &listeners {
        if let Some(tls) = listener.tls() {
            following.spawn(Arc::clone(tls).follow(listener.endpoint().to_string()));
        }
    }
    let serving = config.health.begin();
    let shutdown = async move {
        shutdown.await;
        // Before any listener is closed: who asks is sent elsewhere from now on.
        drop(serving);
    };
    let incoming = Incoming::new(listeners, shutdown, door, dooms, listening);
    let tasks = LinkTasks::default();
    let shared = Arc::new(Shared {
        budget: Budget::new(Arc::clone(&config.limits)),
        config,
        on_link,
        listens: listens.clone(),
        tasks: Arc::clone(&tasks.0),
    });
    let service = OpenChannel { shared: Arc::clone(&shared) };
    let incoming = incoming.filter_map(move |accepted| match accepted {
        Ok(transport) if transport.connect_info().is_web => {
            shared.spawn(run_websocket(Arc::clone(&shared), transport));
            None
        }
        accepted => Some(accepted),
    });
    // The shutdown is the end of `incoming`. This one never comes, but without it
    // tonic would not wait for its connections.
    let server = Server::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(Some(PIECE_LEN as u32))
        .max_concurrent_streams(MAX_STREAMS)
        .http2_keepalive_interval(Some(keepalive.interval))
        .http2_keepalive_timeout(Some(keepalive.timeout))
        .max_connection_age(keepalive.max_connection_age)
        .serve_with_incoming_shutdown(service, incoming, pending::<()>());

    let mut finished = pin!(async {
        let result = server.await.map_err(io::Error::other);
        tasks.finished().await;
        result
    });
    tokio::select! {
        result = &mut finished => return result,
        () = dropped(&mut listens) => {}
    }
    if let Ok(result) = timeout(drain_timeout, &mut finished).await {
        return result;
    }
    warn!("links did not end in time and are cut");
    drop(cut_all);
    tasks.abort();
    // What is left now is a matter of scheduling.
    timeout(CUT_TIMEOUT, finished).await.unwrap_or(Ok(()))
}

/// One task per link. Dropping this aborts them.
#[derive(Default)]
struct LinkTasks(Arc<Mutex<JoinSet<()>>>);

impl LinkTasks {
    async fn finished(&self) {
        while poll_fn(|cx| lock(&self.0).poll_join_next(cx)).await.is_some() {}
    }

    fn abort(&self) {
        lock(&self.0).abort_all();
    }
}

impl Drop for LinkTasks {
    fn drop(&mut self) {
        self.abort();
    }
}

fn lock(tasks: &Mutex<JoinSet<()>>) -> MutexGuard<'_, JoinSet<()>> {
    tasks.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The gRPC service, mounted on tonic's server without its codec: each of its
/// requests is a link, or a question about health.
struct OpenChannel<F> {
    shared: Arc<Shared<F>>,
}

struct Shared<F> {
    config: AcceptConfig,
    budget: Arc<Budget>,
    on_link: F,
    /// Its sender is dropped when the listeners are closed.
    listens: watch::Receiver<()>,
    tasks: Arc<Mutex<JoinSet<()>>>,
}

/// Who did not prove to be anybody.
pub(crate) struct NotAdmitted {
    reason: String,
    pause: Duration,
    listens: watch::Receiver<()>,
}

impl NotAdmitted {
    /// The check that failed, after a while: who guesses does not get to guess often.
    pub(crate) async fn reason(mut self) -> String {
        timeout(self.pause, dropped(&mut self.listens)).await.unwrap_or(());
        self.reason
    }
}

impl<F> Shared<F> {
    /// Who opens a link with these headers.
    fn admit(
        &self,
        connection: &Connection,
        headers: &HeaderMap,
    ) -> Result<Arc<[Principal]>, NotAdmitted> {
        connection.authenticate(headers).map_err(|reason| {
            self.config.counters.count_unauthenticated();
            warn!(peer_addr = %connection.peer_addr, %reason, "link not authenticated");
            let pause = self.config.refusal_pause;
            NotAdmitted { reason, pause, listens: self.listens.clone() }
        })
    }

    fn spawn(&self, link: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = lock(&self.tasks);
        // Those that have ended are of no interest.
        while tasks.try_join_next().is_some() {}
        tasks.spawn(link);
    }
}

impl<F> Clone for OpenChannel<F> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<F, Fut> Service<Request<tonic::body::Body>> for OpenChannel<F>
where
    F: Fn(AcceptedLink) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    /// Answers a link at once: a dialler sends nothing before it has seen the headers.
    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        let connection = request.extensions().get::<Arc<Connection>>().cloned();
        let path = request.uri().path();
        let question = Question::of_path(path);
        let known = connection.filter(|_| path == grpc::PATH || question.is_some());
        let Some(connection) = known else {
            return Box::pin(ready(Ok(no_link(grpc::unimplemented()))));
        };
        let shared = &self.shared;
        // How the node is may be asked by anybody.
        let admitted = match question {
            Some(_) => Ok(Arc::default()),
            None => shared.admit(&connection, request.headers()),
        };
        let principals = match admitted {
            Ok(principals) => principals,
            Err(refused) => {
                return Box::pin(async {
                    Ok(no_link(grpc::unauthenticated(&refused.reason().await)))
                });
            }
        };
        let queue = Queue::of_budget(Arc::clone(&shared.budget));
        let inbound = Inbound::Request(request.into_body());
        match question {
            None => shared.spawn(run_link(
                Arc::clone(shared),
                (connection.peer_addr.clone(), principals),
                connection.open_link(),
                inbound,
                Arc::clone(&queue),
            )),
            Some(question) => shared.spawn(question.answer(
                Arc::clone(&shared.config.health),
                connection.open_link(),
                inbound,
                Arc::clone(&queue),
                shared.listens.clone(),
                shared.config.negotiation_timeout,
            )),
        }
        let mut response = Response::new(ResponseBody::Link(OutboundBody::response(queue)));
        *response.headers_mut() = grpc::response_headers();
        Box::pin(ready(Ok(response)))
    }
}

/// What a request is answered with. Dropped if its stream is reset.
type Answer = Pin<Box<dyn Future<Output = Result<Response<ResponseBody>, Infallible>> + Send>>;

/// An answer of headers alone.
fn no_link(headers: HeaderMap) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::None);
    *response.headers_mut() = headers;
    response
}

/// The life of a connection that is to be a WebSocket, which is one link.
async fn run_websocket<F, Fut>(shared: Arc<Shared<F>>, transport: Accepted)
where
    F: Fn(AcceptedLink) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let connection = transport.connect_info();
    let opened = WebSocket::accept(transport, |headers| shared.admit(&connection, headers)).await;
    let Some((socket, principals)) = opened else {
        return debug!(peer_addr = %connection.peer_addr, "no WebSocket");
    };
    let queue = Queue::of_budget(Arc::clone(&shared.budget));
    let body = OutboundBody::response(Arc::clone(&queue));
    let Keepalive { interval, timeout, .. } = shared.config.keepalive;
    let inbound = Inbound::WebSocket(Arc::clone(&socket));
    let (peer, link) = ((connection.peer_addr.clone(), principals), connection.open_link());
    tokio::join!(
        run_link(shared, peer, link, inbound, queue),
        socket.write(body, interval, timeout)
    );
}

/// The life of one link, from the opening of its stream to its end.
async fn run_link<F, Fut>(
    shared: Arc<Shared<F>>,
    (peer_addr, principals): (PeerAddr, Arc<[Principal]>),
    open_link: OpenLink,
    inbound: Inbound,
    queue: Arc<Queue>,
) where
    F: Fn(AcceptedLink) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    // However this ends, the stream does too: others may hold its queue.
    let closes = CloseOnDrop(Arc::clone(&queue));
    let config = &shared.config;
    let messages = MessageReader::new(inbound, Some(Arc::clone(&queue)));
    let negotiated =
        timeout(config.negotiation_timeout, negotiate(config, &principals, messages, &queue));
    match negotiated.await {
        Ok(Ok((Negotiated { peer, key }, messages))) => {
            open_link.negotiated();
            let mac_rule = MacRule::new(config.require_header_mac, peer.connection_type);
            let link = AcceptedLink {
                info: LinkInfo::new(peer, peer_addr, principals, key.is_some()),
                frames: FrameReader::new(messages, key.clone(), mac_rule),
                outbound: Outbound::new(Arc::clone(&queue), key),
            };
            let mut listens = shared.listens.clone();
            let mut served = pin!((shared.on_link)(link));
            tokio::select! {
                () = &mut served => {}
                () = dropped(&mut listens) => {
                    queue.close(CloseReason::Done);
                    served.await;
                }
            }
        }
        // A probe or a change of mind, nothing that anybody has to look at.
        Ok(Err(error @ (NegotiationError::Ended | NegotiationError::Stream(_)))) => {
            config.counters.count_refused();
            debug!(%peer_addr, %error, "no negotiation");
        }
        Ok(Err(error)) => {
            config.counters.count_refused();
            warn!(%peer_addr, %error, "link refused");
            pause(config.refusal_pause, &queue, shared.listens.clone()).await;
            // It would be refused again: there is no need to come back.
            queue.refuse(&error);
        }
        Err(_) => {
            config.counters.count_refused();
            warn!(%peer_addr, "no negotiation in time");
        }
    }
    drop(closes);
    // A server that stops gives all the time there is: what is queued is not sent again
    // by anybody but its publisher.
    let stops = shared.listens.has_changed().is_err();
    let linger = if stops { config.drain_timeout } else { LINGER };
    if !is_taken(&queue, linger).await {
        // The peer does not even read the end.
        open_link.cut();
    }
}

/// Waits for this long, but not for a peer that has gone, nor when the listeners are
/// closed.
async fn pause(time: Duration, queue: &Queue, mut listens: watch::Receiver<()>) {
    tokio::select! {
        () = sleep(time) => {}
        () = queue.body_gone() => {}
        () = dropped(&mut listens) => {}
    }
}

/// Waits until the peer has taken what is queued and the end, for this long at most,
/// and not for one that takes nothing.
pub(crate) async fn is_taken(queue: &Queue, linger: Duration) -> bool {
    let until = Instant::now() + linger;
    loop {
        let queued = queue.queued();
        let soon = until.min(Instant::now() + STALL);
        if timeout_at(soon, queue.body_gone()).await.is_ok() {
            return true;
        }
        if soon == until || queue.queued() == queued {
            return false;
        }
    }
}

async fn negotiate(
    config: &AcceptConfig,
    principals: &[Principal],
    mut messages: MessageReader,
    queue: &Queue,
) -> Result<(Negotiated, MessageReader), NegotiationError> {
    let first = messages.negotiation().await?;
    let secrets = Secrets::generate();
    let require_mac = config.require_header_mac;
    let own = Acceptor {
        node_id: &config.node_id,
        deployment_name: &config.deployment_name,
        require_mac,
        peers: &config.peers,
        principals,
    };
    let (reply, negotiated) = handshake::accept(first, &own, &secrets)?;
    // Nothing is queued yet, so it has room, unless the peer is gone again.
    queue.push_control(&Message::Link(reply).encode()).map_err(|_| NegotiationError::Ended)?;
    queue.wake_writer();
    Ok((negotiated, messages))
}

/// A link, or nothing.
enum ResponseBody {
    Link(OutboundBody),
    None,
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Link(body) => Pin::new(body).poll_frame(cx),
            Self::None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Link(body) => body.is_end_stream(),
            Self::None => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listen::tests::connection;

    fn shared(
        listens: watch::Receiver<()>,
    ) -> Arc<Shared<impl Fn(AcceptedLink) -> std::future::Pending<()>>> {
        Arc::new(Shared {
            config: AcceptConfig::default(),
            budget: Budget::unlimited(),
            on_link: |_| pending(),
            listens,
            tasks: Arc::default(),
        })
    }

    fn stranger(connection: &Connection) -> (PeerAddr, Arc<[Principal]>) {
        (connection.peer_addr.clone(), Arc::default())
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_refused_waits_for_the_end() {
        let (listening, listens) = watch::channel(());
        let (connection, _doom, _keep) = connection();
        let queue = Queue::new(1000, Budget::unlimited());
        let says = Queue::new(1000, Budget::unlimited());
        says.push_plain(b"no negotiation").unwrap();
        let inbound = Inbound::Request(tonic::body::Body::new(OutboundBody::request(says)));
        let mut body = OutboundBody::response(Arc::clone(&queue));
        let start = Instant::now();
        let end = async {
            let frame = poll_fn(|cx| http_body::Body::poll_frame(Pin::new(&mut body), cx)).await;
            let trailers = frame.unwrap().unwrap().into_trailers().unwrap();
            drop(body);
            (trailers["grpc-status"].clone(), start.elapsed())
        };
        let open_link = connection.open_link();
        let link = run_link(shared(listens), stranger(&connection), open_link, inbound, queue);
        let ((status, after), ()) = tokio::join!(end, link);
        assert_eq!((status.as_bytes(), after), (&b"7"[..], AcceptConfig::default().refusal_pause));
        drop(listening);
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_read_the_end_loses_the_connection() {
        let (listening, listens) = watch::channel(());
        let (connection, doom, _keep) = connection();
        let queue = Queue::new(1000, Budget::unlimited());
        // Nothing ever comes, and what is queued is never taken.
        let inbound = Inbound::Request(tonic::body::Body::new(OutboundBody::request(Queue::new(
            1,
            Budget::unlimited(),
        ))));
        let body = OutboundBody::response(Arc::clone(&queue));
        let start = Instant::now();
        let open_link = connection.open_link();
        // Another of its links is good.
        open_link.negotiated();
        let link = run_link(shared(listens), stranger(&connection), open_link, inbound, queue);
        let (error, ()) = tokio::join!(doom, link);
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
        assert_eq!(start.elapsed(), AcceptConfig::default().negotiation_timeout + STALL);
        drop((body, listening));
    }
}
