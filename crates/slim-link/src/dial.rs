//! The dialling side.

use std::fmt;
use std::io;
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::uri::{Authority, PathAndQuery};
use http::{HeaderValue, Request, StatusCode, header};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use slim_proto::{ConnectionType, Message};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_rustls::TlsConnector;

use crate::accept::is_taken;
use crate::address::unix_path;
use crate::budget::Budget;
use crate::handshake::{self, Negotiated, NegotiationError, Secrets};
use crate::listener::Raw;
use crate::outbound::{CloseOnDrop, OutboundBody, Queue};
use crate::reader::{Inbound, MacRule, MessageReader, with_causes};
use crate::socket::{Doom, Socket};
use crate::tls::{self, of_io};
use crate::transport::Transport;
use crate::websocket::WebSocket;
use crate::{
    AcceptedLink, Authorization, ClientTls, CloseReason, DEFAULT_QUEUE_BYTES, FrameReader, LINGER,
    Link, LinkInfo, LinkReceiver, LinkSender, Outbound, PIECE_LEN, PeerAddr, TlsConfigError,
    TlsError, grpc,
};

/// What the link may receive before its reader takes it, in bytes, and the same for
/// its connection.
const STREAM_WINDOW: u32 = 2 * 1024 * 1024;
const CONNECTION_WINDOW: u32 = 5 * 1024 * 1024;

/// Time between two signs of life from the node, and how long each may take. Until
/// both have passed, a node that is gone without a word looks like a quiet one.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(60);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// RFC 8446 §5.1: the first byte of a peer that speaks TLS and got something else. In
/// HTTP/2 nothing begins like that.
const TLS_ALERT: u8 = 21;

/// Where a node listens: `host:port`, `http://host:port`, `https://host:port` for TLS,
/// `ws://host:port/path` or `wss://host:port/path` for a WebSocket, or `unix:///path` for
/// a socket of this machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target(Place);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Place {
    Tcp(Host),
    Unix(PathBuf),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Host {
    is_tls: bool,
    /// An IPv6 address is in brackets.
    name: String,
    port: u16,
    /// Of a WebSocket: the path, which begins with a slash.
    web: Option<String>,
}

impl Host {
    /// Without brackets, as a resolver takes it.
    fn bare(&self) -> &str {
        self.name.trim_start_matches('[').trim_end_matches(']')
    }

    /// What is spoken over TLS there.
    fn alpn(&self) -> &'static [u8] {
        if self.web.is_some() { tls::HTTP1 } else { tls::HTTP2 }
    }
}

impl Target {
    /// Whether TLS is spoken there.
    pub fn is_tls(&self) -> bool {
        matches!(&self.0, Place::Tcp(Host { is_tls: true, .. }))
    }

    /// Whether these settings and their files could be used to dial it. Blocks for a
    /// moment.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check_tls(&self, tls: &ClientTls) -> Result<(), TlsConfigError> {
        match &self.0 {
            Place::Tcp(host) => tls::connector(tls, host.bare(), host.alpn()).map(drop),
            Place::Unix(_) => Ok(()),
        }
    }

    /// What a request is addressed to.
    fn base(&self) -> String {
        match &self.0 {
            Place::Tcp(_) => self.to_string(),
            Place::Unix(_) => "http://localhost".to_owned(),
        }
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let malformed = || TargetError::Malformed(text.to_owned());
        if let Some(path) = unix_path(text) {
            return path.map(|path| Self(Place::Unix(path))).map_err(|()| malformed());
        }
        let (is_tls, authority, web) = match text.split_once("://") {
            None => (false, text, None),
            Some((scheme @ ("http" | "https"), authority)) => {
                (scheme == "https", authority.strip_suffix('/').unwrap_or(authority), None)
            }
            Some((scheme @ ("ws" | "wss"), rest)) => {
                let at = rest.find('/').unwrap_or(rest.len());
                let path = if at < rest.len() { &rest[at..] } else { "/" };
                let parsed: PathAndQuery = path.parse().map_err(|_| malformed())?;
                // What is secret in a query would be shown with the address.
                if parsed.as_str() != path || parsed.query().is_some() {
                    return Err(malformed());
                }
                (scheme == "wss", &rest[..at], Some(path.to_owned()))
            }
            Some(_) => return Err(TargetError::Scheme(text.to_owned())),
        };
        let authority: Authority = authority.parse().map_err(|_| malformed())?;
        let (host, port) = (authority.host(), authority.port().ok_or_else(malformed)?);
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let is_host = match bracketed {
            Some(address) => address.parse::<Ipv6Addr>().is_ok(),
            None => !host.is_empty() && !host.contains(['[', ']']),
        };
        // The parser takes more than these two, and overlooks what is between them.
        let is_all = authority.as_str() == format!("{host}:{}", port.as_str());
        if !is_host || !is_all || port.as_u16() == 0 {
            return Err(malformed());
        }
        let port = port.as_u16();
        Ok(Self(Place::Tcp(Host { is_tls, name: host.to_owned(), port, web })))
    }
}

/// As a URL.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::Tcp(Host { is_tls, name, port, web: None }) => {
                let scheme = if *is_tls { "https" } else { "http" };
                write!(f, "{scheme}://{name}:{port}")
            }
            Place::Tcp(Host { is_tls, name, port, web: Some(path) }) => {
                let scheme = if *is_tls { "wss" } else { "ws" };
                write!(f, "{scheme}://{name}:{port}{path}")
            }
            Place::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

/// The text is not an address that can be dialled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// Neither `host:port` nor a URL of such.
    #[error(
        "{0:?} is not an address: expected host:port, the same after http://, https://, ws:// \
         or wss://, or unix:///path"
    )]
    Malformed(String),
    /// Another scheme.
    #[error("{0:?}: unknown scheme, expected http, https, ws, wss or unix")]
    Scheme(String),
}

/// How a link is dialled.
#[derive(Clone, Debug)]
pub struct DialConfig {
    /// Names this link. Keep it over reconnects. Default: a new UUID.
    pub link_id: String,
    /// Own node id. Default: `node-` and a new UUID.
    pub node_id: String,
    /// Own group of nodes, for peers. Default none.
    pub deployment_name: String,
    /// What kind of link to ask for. Default edge.
    pub connection_type: ConnectionType,
    /// Whether a node that offers no key is refused. Default true; without it, a
    /// link to such a node can be written to by anybody on the path.
    pub require_header_mac: bool,
    /// TLS, where [`Target::is_tls`].
    pub tls: ClientTls,
    /// What the node is shown in the header `authorization`. Default nothing.
    pub authorization: Option<Authorization>,
    /// From resolving the host name to an open TCP connection. Default 10 s.
    pub connect_timeout: Duration,
    /// From there to the end of the negotiation. Default 5 s; nodes give up
    /// after 5 s too.
    pub negotiation_timeout: Duration,
    /// Bytes that may wait to be sent. Default [`DEFAULT_QUEUE_BYTES`].
    pub queue_bytes: usize,
}

impl Default for DialConfig {
    fn default() -> Self {
        Self {
            link_id: uuid::Uuid::new_v4().to_string(),
            node_id: format!("node-{}", uuid::Uuid::new_v4()),
            deployment_name: String::new(),
            connection_type: ConnectionType::Edge,
            require_header_mac: true,
            tls: ClientTls::default(),
            authorization: None,
            connect_timeout: Duration::from_secs(10),
            negotiation_timeout: Duration::from_secs(5),
            queue_bytes: DEFAULT_QUEUE_BYTES,
        }
    }
}

/// Opens a link: connects, agrees on TLS if that is spoken there, opens the stream,
/// negotiates.
///
/// # Errors
/// See [`DialError`]; [`DialError::is_unreachable`] tells whether trying again later
/// is the thing to do, [`DialError::is_lasting`] whether it is of no use.
pub async fn dial(target: &Target, config: &DialConfig) -> Result<Link, DialError> {
    let Dialled { link, connection, queue } = establish(target, config, false).await?;
    Ok(Link {
        info: link.info,
        receiver: LinkReceiver::new(link.frames, Arc::clone(&queue), connection),
        sender: LinkSender::new(link.outbound, queue),
    })
}

/// A link that a node has dialled.
#[derive(Debug)]
pub struct DialledLink {
    /// What an accepted link has, too. Its reader ends when the link is closed here.
    pub link: AcceptedLink,
    /// The connection that it is on.
    pub connection: Connection,
}

/// Dropping this closes the link and ends its connection, which has
/// [`LINGER`](crate::LINGER) left for what is still to be sent.
pub struct Connection {
    closes: CloseOnDrop,
    _connection: oneshot::Sender<()>,
}

impl Connection {
    /// Closes the link, and waits until the peer has taken what is queued, or does not.
    pub async fn finish(self) {
        self.closes.0.close(CloseReason::Done);
        is_taken(&self.closes.0, LINGER).await;
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

/// Like [`dial`] for a node, which passes on frames as they came.
///
/// # Errors
/// As [`dial`].
pub async fn dial_node(target: &Target, config: &DialConfig) -> Result<DialledLink, DialError> {
    let Dialled { link, connection, queue } = establish(target, config, true).await?;
    let connection = Connection { closes: CloseOnDrop(queue), _connection: connection };
    Ok(DialledLink { link, connection })
}

struct Dialled {
    link: AcceptedLink,
    connection: oneshot::Sender<()>,
    queue: Arc<Queue>,
}

/// `ends_here`: whether the reader ends when the link is closed here.
async fn establish(
    target: &Target,
    config: &DialConfig,
    ends_here: bool,
) -> Result<Dialled, DialError> {
    let authorization = match config.authorization.clone() {
        None => None,
        Some(authorization) => {
            let shown = spawn_blocking(move || authorization.header()).await;
            let shown = shown.unwrap_or_else(|error| Err(error.to_string()));
            Some(shown.map_err(DialError::NothingToShow)?)
        }
    };
    let (raw, peer_addr) = timeout(config.connect_timeout, connect(target))
        .await
        .map_err(|_| DialError::Timeout(DialStage::Connect))??;
    let deadline = Instant::now() + config.negotiation_timeout;
    let queue = Queue::new(config.queue_bytes, Budget::unlimited());
    let (connection, doom) = lifetime();
    let heard = Heard::default();
    let transport = match (raw, &target.0) {
        (Raw::Tcp(tcp), Place::Tcp(host)) if host.is_tls => {
            timeout_at(deadline, secure(host, &config.tls, tcp, doom, &heard))
                .await
                .map_err(|_| DialError::Timeout(DialStage::Tls))??
        }
        (Raw::Tcp(tcp), _) => {
            Transport::plain(Socket::new(tcp, doom, Some(Box::new(heard.first_byte()))), ())
        }
        (Raw::Unix(unix), _) => Transport::unix(Socket::new(unix, doom, None), ()),
    };
    let inbound = timeout_at(deadline, open(target, authorization, transport, &queue))
        .await
        .map_err(|_| DialError::Timeout(DialStage::Open))?
        .map_err(|error| heard.reason().unwrap_or(error))?;
    let (messages, negotiated) =
        timeout_at(deadline, negotiate(config, inbound, &queue, ends_here))
            .await
            .map_err(|_| DialError::Timeout(DialStage::Negotiate))?
            .map_err(|error| match error {
                NegotiationError::Denied(message) => {
                    let (http, grpc) = (StatusCode::OK.as_u16(), Some(grpc::PERMISSION_DENIED));
                    DialError::Refused { http, grpc, message }
                }
                error => DialError::Negotiation(error),
            })?;

    let Negotiated { peer, key } = negotiated;
    let mac_rule = MacRule::new(config.require_header_mac, peer.connection_type);
    let link = AcceptedLink {
        info: LinkInfo::new(peer, peer_addr, Arc::default(), key.is_some()),
        frames: FrameReader::new(messages, key.clone(), mac_rule),
        outbound: Outbound::new(Arc::clone(&queue), key),
    };
    Ok(Dialled { link, connection, queue })
}

/// Opens a socket.
async fn connect(target: &Target) -> Result<(Raw, PeerAddr), DialError> {
    match &target.0 {
        Place::Tcp(host) => {
            let tcp = TcpStream::connect((host.bare(), host.port)).await;
            let tcp = tcp.map_err(DialError::Unreachable)?;
            let peer_addr = peer_of(&tcp)?;
            Ok((Raw::Tcp(tcp), peer_addr))
        }
        Place::Unix(path) => {
            let unix = UnixStream::connect(path).await.map_err(DialError::Unreachable)?;
            Ok((Raw::Unix(unix), PeerAddr::Unix(path.clone())))
        }
    }
}

/// The address at the other end, if there is another end: a socket that dials a
/// local port on which nobody listens may be given that very port, and then connects
/// to itself.
fn peer_of(tcp: &TcpStream) -> Result<PeerAddr, DialError> {
    let peer_addr = tcp.peer_addr().map_err(DialError::Unreachable)?;
    if tcp.local_addr().map_err(DialError::Unreachable)? == peer_addr {
        return Err(DialError::SelfConnection);
    }
    Ok(PeerAddr::Ip(peer_addr))
}

/// What a connection lasts as long as, and a little longer if it still has something
/// to send; and what ends it then.
fn lifetime() -> (oneshot::Sender<()>, Doom) {
    let (connection, dropped) = oneshot::channel();
    let doom = Box::pin(async move {
        // Nothing is sent; it is the end that counts.
        dropped.await.unwrap_or(());
        sleep(LINGER).await;
        io::ErrorKind::ConnectionAborted.into()
    });
    (connection, doom)
}

/// What the transport found out and HTTP/2 would tell in other words.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Option<DialError>>>);

impl Heard {
    fn tell(&self, error: DialError) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }

    fn reason(&self) -> Option<DialError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Takes the first byte of who should speak plain text.
    fn first_byte(&self) -> impl FnOnce(u8) + Send + use<> {
        let heard = self.clone();
        move |first| {
            if first == TLS_ALERT {
                heard.tell(DialError::SpeaksTls);
            }
        }
    }
}

/// Agrees on TLS.
async fn secure(
    host: &Host,
    config: &ClientTls,
    tcp: TcpStream,
    doom: Doom,
    heard: &Heard,
) -> Result<Transport<()>, DialError> {
    let shown = config.identity.is_some();
    let (settings, alpn, host) = (config.clone(), host.alpn(), host.bare().to_owned());
    let loaded = spawn_blocking(move || tls::connector(&settings, &host, alpn)).await;
    let (settings, name) = loaded
        .map_err(|error| DialError::Broken { stage: DialStage::Tls, cause: error.to_string() })??;
    let shown_name = name.to_str().into_owned();
    let connector = TlsConnector::from(settings);
    let tls =
        connector.connect(name, Socket::new(tcp, doom, None)).await.map_err(
            |error| match of_io(&error) {
                Some(error) => TlsError::of(error, &shown_name, shown).into(),
                None if error.kind() == io::ErrorKind::UnexpectedEof => TlsError::Ended.into(),
                None => DialError::Broken { stage: DialStage::Tls, cause: error.to_string() },
            },
        )?;
    let heard = heard.clone();
    let on_error = Box::new(move |error: TlsError| heard.tell(error.into()));
    Ok(Transport::dialled(tls.into(), shown, on_error, ()))
}

/// Opens the stream.
async fn open(
    target: &Target,
    authorization: Option<HeaderValue>,
    transport: Transport<()>,
    queue: &Arc<Queue>,
) -> Result<Inbound, DialError> {
    let body = OutboundBody::request(Arc::clone(queue));
    match &target.0 {
        Place::Tcp(Host { web: Some(_), .. }) => {
            let socket = WebSocket::dial(&target.to_string(), authorization, transport).await?;
            let writer = Arc::clone(&socket);
            tokio::spawn(
                async move { writer.write(body, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT).await },
            );
            Ok(Inbound::WebSocket(socket))
        }
        _ => Ok(Inbound::Response(open_grpc(target, authorization, transport, body).await?)),
    }
}

/// HTTP/2, then the response headers.
async fn open_grpc(
    target: &Target,
    authorization: Option<HeaderValue>,
    transport: Transport<()>,
    body: OutboundBody,
) -> Result<Incoming, DialError> {
    let broken = |error: hyper::Error| DialError::Broken {
        stage: DialStage::Open,
        cause: with_causes(&error),
    };
    let (mut requests, driver) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(PIECE_LEN as u32)
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .handshake(TokioIo::new(transport))
        .await
        .map_err(broken)?;
    // Ends with its streams, which report how.
    tokio::spawn(driver);

    let mut request = Request::post(format!("{}{}", target.base(), grpc::PATH))
        .header(header::CONTENT_TYPE, grpc::CONTENT_TYPE)
        .header(header::TE, "trailers")
        .header(header::USER_AGENT, concat!("slim-link/", env!("CARGO_PKG_VERSION")))
        .body(body)
        .map_err(|error| DialError::Broken { stage: DialStage::Open, cause: error.to_string() })?;
    if let Some(shown) = authorization {
        request.headers_mut().insert(header::AUTHORIZATION, shown);
    }
    let response = requests.send_request(request).await.map_err(broken)?;
    let (head, body) = response.into_parts();
    let status = grpc::status(&head.headers);
    if head.status != StatusCode::OK || status.is_some() {
        let (grpc, message) = status.unzip();
        if grpc == Some(grpc::UNAUTHENTICATED) || head.status == StatusCode::UNAUTHORIZED {
            return Err(DialError::Unauthenticated(message.unwrap_or_default()));
        }
        return Err(DialError::Refused {
            http: head.status.as_u16(),
            grpc,
            message: message.unwrap_or_default(),
        });
    }
    Ok(body)
}

async fn negotiate(
    config: &DialConfig,
    inbound: Inbound,
    queue: &Arc<Queue>,
    ends_here: bool,
) -> Result<(MessageReader, Negotiated), NegotiationError> {
    let secrets = Secrets::generate();
    let DialConfig { link_id, node_id, deployment_name, connection_type, .. } = config;
    let request = handshake::request(link_id, node_id, deployment_name, *connection_type, &secrets);
    queue.push_control(&Message::Link(request).encode()).map_err(|_| NegotiationError::Ended)?;
    queue.wake_writer();
    let ends_with = ends_here.then(|| Arc::clone(queue));
    let mut messages = MessageReader::new(inbound, ends_with);
    let answer = messages.negotiation().await?;
    let negotiated = handshake::finish(
        answer,
        (link_id, *connection_type),
        config.require_header_mac,
        &secrets,
    )?;
    Ok((messages, negotiated))
}

/// How far a dialler had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialStage {
    /// Resolving the name and opening the TCP connection.
    Connect,
    /// Agreeing on TLS.
    Tls,
    /// Opening the stream, up to the response headers.
    Open,
    /// Waiting for the answer to the negotiation.
    Negotiate,
}

impl fmt::Display for DialStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "connecting",
            Self::Tls => "agreeing on TLS",
            Self::Open => "opening the stream",
            Self::Negotiate => "negotiating",
        })
    }
}

/// There is no link.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// No TCP connection: unknown host, port closed, network down.
    #[error("cannot connect")]
    Unreachable(#[source] io::Error),
    /// The connection led back to this very socket: nobody listens there.
    #[error("connected to itself, nobody listens there")]
    SelfConnection,
    /// No answer in time. Whoever accepted the connection may be no node.
    #[error("no answer while {0}")]
    Timeout(DialStage),
    /// Our own certificates or key cannot be used.
    #[error(transparent)]
    TlsConfig(#[from] TlsConfigError),
    /// The node and we do not agree on TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The node speaks TLS, and we do not.
    #[error("it speaks TLS; the address of such a node begins with https:// or wss://")]
    SpeaksTls,
    /// What answers does not speak HTTP/2, or broke the connection.
    #[error("connection broke while {stage}: {cause}")]
    Broken {
        /// How far it had come.
        stage: DialStage,
        /// What the transport said.
        cause: String,
    },
    /// There is nothing to show to the node, and why.
    #[error("nothing to show to the node: {0}")]
    NothingToShow(String),
    /// What was shown to the node proves nobody to it, or it was shown nothing: gRPC
    /// status 16 or HTTP status 401, with the node's text.
    #[error("the node does not know us: {}", if .0.is_empty() { "it does not say why" } else { .0 })]
    Unauthenticated(String),
    /// The stream was refused: an HTTP status other than 200, or a gRPC status, also
    /// instead of an answer to the negotiation.
    #[error("refused by the node: HTTP status {http}, gRPC status {grpc:?}: {message:?}")]
    Refused {
        /// HTTP status code.
        http: u16,
        /// gRPC status, if there was one.
        grpc: Option<u16>,
        /// The node's text.
        message: String,
    },
    /// The node's answer to the negotiation is not acceptable, or it ended the stream
    /// instead.
    #[error("negotiation failed")]
    Negotiation(#[source] NegotiationError),
}

impl DialError {
    /// Whether the node says: do not come back.
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Refused { grpc: Some(grpc::PERMISSION_DENIED), .. })
    }

    /// Whether nothing was reached that speaks the protocol, so that trying again
    /// later makes sense.
    pub fn is_unreachable(&self) -> bool {
        matches!(
            self,
            Self::Unreachable(_) | Self::SelfConnection | Self::Timeout(DialStage::Connect)
        )
    }

    /// Whether it will be the same until somebody changes a certificate or an
    /// address, so that trying again is of no use.
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::Tls(error) => *error != TlsError::Ended,
            Self::TlsConfig(_) | Self::SpeaksTls => true,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpSocket;

    use super::*;

    #[tokio::test]
    async fn a_socket_that_dials_itself_notices() {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let own = socket.local_addr().unwrap();
        let tcp = socket.connect(own).await.unwrap();
        let error = peer_of(&tcp).unwrap_err();
        assert!(matches!(error, DialError::SelfConnection), "{error:?}");
        assert!(error.is_unreachable());
    }
}
