//! A node that hands its links to the test, and a peer that can do anything wrong.
#![allow(dead_code, reason = "each test binary uses its part")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use http_body::{Body, Frame as BodyFrame};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use ring::{hkdf, hmac};
use slim_link::{
    AcceptConfig, AcceptedLink, DialConfig, Endpoint, Link, ListenConfig, Listener, Target, dial,
    serve,
};
use slim_proto::{
    AppPayload, Body as MessageBody, ConnectionType, Header, LinkNegotiation, Message, Name,
    NameId, Publish, SessionId, SessionType, Subscription, canonical,
};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use x25519_dalek::{PublicKey, StaticSecret};

pub(crate) const LINK_ID: &str = "79b83a99-0ac4-43b2-ba0e-284b322db221";

/// No test waits longer than this for anything.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), what).await.expect("happens soon")
}

// ---------------------------------------------------------------- a node

/// Any free port of this machine.
pub(crate) fn any_port() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

pub(crate) fn addr_of(listener: &Listener) -> SocketAddr {
    match listener.endpoint() {
        Endpoint::Tcp(addr) | Endpoint::WebSocket { addr, .. } => *addr,
        other => panic!("{other} has no address"),
    }
}

pub(crate) struct Node {
    pub(crate) addr: SocketAddr,
    links: mpsc::UnboundedReceiver<Accepted>,
    shutdown: Option<oneshot::Sender<()>>,
    serving: JoinHandle<io::Result<()>>,
}

/// A link that the node has accepted. It ends when this is dropped.
pub(crate) struct Accepted {
    pub(crate) link: AcceptedLink,
    _open: oneshot::Sender<()>,
}

impl Node {
    #[expect(clippy::unused_async, reason = "it needs a runtime, which an async caller has")]
    pub(crate) async fn start(config: AcceptConfig) -> Self {
        Self::start_on(&any_port().into(), config)
    }

    pub(crate) fn start_on(listen: &ListenConfig, config: AcceptConfig) -> Self {
        let listener = Listener::bind(listen).unwrap();
        let addr = addr_of(&listener);
        let (shutdown, stopped) = oneshot::channel();
        let (accepted, links) = mpsc::unbounded_channel();
        let on_link = move |link| {
            let (open, dropped) = oneshot::channel::<()>();
            // The test may be over.
            accepted.send(Accepted { link, _open: open }).ok();
            async move { drop(dropped.await) }
        };
        let serving = tokio::spawn(serve(vec![listener], config, on_link, async {
            stopped.await.ok();
        }));
        Self { addr, links, shutdown: Some(shutdown), serving }
    }

    pub(crate) fn target(&self) -> Target {
        self.addr.to_string().parse().unwrap()
    }

    /// The next link that is accepted.
    pub(crate) async fn accepted(&mut self) -> Accepted {
        soon(self.links.recv()).await.unwrap()
    }

    /// A dialled link, both ends.
    pub(crate) async fn link(&mut self) -> (Link, Accepted) {
        let link = soon(dial(&self.target(), &DialConfig::default())).await.unwrap();
        (link, self.accepted().await)
    }

    pub(crate) fn shut_down(&mut self) {
        self.shutdown.take().unwrap().send(()).unwrap();
    }

    /// Waits until nothing is served any more. Links that nobody has taken end now.
    pub(crate) async fn stopped(self) {
        drop(self.links);
        soon(self.serving).await.unwrap().unwrap();
    }

    /// Stops serving without any farewell.
    pub(crate) fn abort(&self) {
        self.serving.abort();
    }
}

// ---------------------------------------------------------------- a raw peer

/// An HTTP/2 connection.
pub(crate) struct RawConnection {
    requests: SendRequest<ChannelBody>,
}

/// A gRPC stream, byte by byte.
pub(crate) struct RawStream {
    pub(crate) sender: Option<mpsc::Sender<Bytes>>,
    pub(crate) response: http::Response<Incoming>,
    /// Received and not looked at yet.
    buffer: Vec<u8>,
    _connection: SendRequest<ChannelBody>,
}

/// Ends when its sender is dropped.
pub(crate) struct ChannelBody(mpsc::Receiver<Bytes>);

impl ChannelBody {
    pub(crate) fn new(chunks: mpsc::Receiver<Bytes>) -> Self {
        Self(chunks)
    }
}

impl Body for ChannelBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<BodyFrame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|chunk| Some(Ok(BodyFrame::data(chunk?))))
    }
}

/// What a raw peer gets to see.
#[derive(Debug, PartialEq)]
pub(crate) enum Received {
    Message(Message),
    /// Trailers with this gRPC status.
    Status(u16),
    Broken,
}

impl RawConnection {
    pub(crate) async fn open(addr: SocketAddr) -> Self {
        let tcp = TcpStream::connect(addr).await.unwrap();
        Self::over(tcp).await
    }

    pub(crate) async fn over(tcp: TcpStream) -> Self {
        let (requests, driver) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(tcp)).await.unwrap();
        tokio::spawn(driver);
        Self { requests }
    }

    /// Waits until no further stream may be opened.
    pub(crate) async fn ended(&mut self) {
        loop {
            let (_, body) = mpsc::channel(1);
            let request = Request::post("http://node/other").body(ChannelBody(body)).unwrap();
            if self.requests.send_request(request).await.is_err() {
                return;
            }
        }
    }

    /// Returns when the response headers are there.
    pub(crate) async fn stream(&mut self, path: &str) -> RawStream {
        let (sender, body) = mpsc::channel(1000);
        let request = Request::post(format!("http://node{path}"))
            .header(header::CONTENT_TYPE, "application/grpc")
            .header(header::TE, "trailers")
            .body(ChannelBody(body))
            .unwrap();
        let response = soon(self.requests.send_request(request)).await.unwrap();
        RawStream {
            sender: Some(sender),
            response,
            buffer: Vec::new(),
            _connection: self.requests.clone(),
        }
    }
}

pub(crate) const PATH: &str = "/dataplane.proto.v1.DataPlaneService/OpenChannel";

pub(crate) fn framed(message: &[u8]) -> Bytes {
    let len = (message.len() as u32).to_be_bytes();
    [&[0][..], &len, message].concat().into()
}

impl RawStream {
    pub(crate) async fn open(addr: SocketAddr) -> Self {
        RawConnection::open(addr).await.stream(PATH).await
    }

    pub(crate) async fn send(&self, bytes: impl Into<Bytes>) {
        // A node that has ended the stream takes nothing more.
        self.sender.as_ref().unwrap().send(bytes.into()).await.ok();
    }

    pub(crate) async fn send_message(&self, message: &Message) {
        self.send(framed(&message.encode())).await;
    }

    /// The next thing that arrives.
    pub(crate) async fn recv(&mut self) -> Received {
        soon(self.recv_inner()).await
    }

    async fn recv_inner(&mut self) -> Received {
        loop {
            if let Some(message) = self.buffered() {
                return Received::Message(Message::decode(message).unwrap());
            }
            let body = self.response.body_mut();
            let frame = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx));
            let Some(Ok(frame)) = frame.await else {
                return Received::Broken;
            };
            match frame.into_data() {
                Ok(data) => self.buffer.extend_from_slice(&data),
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap();
                    let status = trailers["grpc-status"].to_str().unwrap();
                    return Received::Status(status.parse().unwrap());
                }
            }
        }
    }

    fn buffered(&mut self) -> Option<Bytes> {
        let (prefix, rest) = self.buffer.split_first_chunk::<5>()?;
        assert_eq!(prefix[0], 0, "nothing is compressed");
        let len = u32::from_be_bytes(prefix[1..].try_into().unwrap()) as usize;
        let message = Bytes::copy_from_slice(rest.get(..len)?);
        self.buffer.drain(..5 + len);
        Some(message)
    }

    pub(crate) async fn message(&mut self) -> Message {
        match self.recv().await {
            Received::Message(message) => message,
            other => panic!("no message: {other:?}"),
        }
    }

    /// Negotiates, properly.
    pub(crate) async fn negotiate(&mut self) -> Key {
        self.send_message(&Message::Link(request())).await;
        match self.message().await {
            Message::Link(reply) => Key::derive(&reply.ecdh_public_key),
            other => panic!("no negotiation: {other:?}"),
        }
    }
}

// ---------------------------------------------------------------- negotiation and MAC

fn secret() -> StaticSecret {
    StaticSecret::from(std::array::from_fn(|i| i as u8))
}

pub(crate) fn public_key() -> Bytes {
    Bytes::copy_from_slice(PublicKey::from(&secret()).as_bytes())
}

pub(crate) fn request() -> LinkNegotiation {
    LinkNegotiation {
        link_id: LINK_ID.to_owned(),
        slim_version: "3.4.6".to_owned(),
        is_reply: false,
        ecdh_public_key: public_key(),
        connection_type: ConnectionType::Edge,
        node_id: "node-raw".to_owned(),
        deployment_name: String::new(),
        kem_payload: None,
    }
}

/// The key of the raw peer's link, derived once more.
pub(crate) struct Key(hmac::Key);

impl Key {
    pub(crate) fn derive(peer: &[u8]) -> Self {
        let peer: [u8; 32] = peer.try_into().unwrap();
        let shared = secret().diffie_hellman(&PublicKey::from(peer));
        let key = hkdf::Salt::new(hkdf::HKDF_SHA256, LINK_ID.as_bytes())
            .extract(shared.as_bytes())
            .expand(&[b"SLIM-DP-inter-node-hmac-v1"], hmac::HMAC_SHA256)
            .unwrap()
            .into();
        Self(key)
    }

    pub(crate) fn mac(&self, header: &Header) -> Bytes {
        let preimage = canonical::mac_preimage(LINK_ID, header);
        Bytes::copy_from_slice(hmac::sign(&self.0, &preimage).as_ref())
    }

    pub(crate) fn signed(&self, header: Header) -> Header {
        let header_mac = Some(self.mac(&header));
        Header { header_mac, ..header }
    }
}

// ---------------------------------------------------------------- messages

pub(crate) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub(crate) fn header() -> Header {
    Header {
        identity: "token".to_owned(),
        ..Header::new(name("acme/demo/alice").with_id(NameId(7)), name("acme/demo/bob"), 1)
    }
}

pub(crate) fn subscribe(header: Header, subscription_id: u64) -> Message {
    Message::Subscribe(Subscription { header, subscription_id })
}

pub(crate) fn publish(header: Header, message_id: u32, payload_len: usize) -> Message {
    Message::Publish(Publish {
        header,
        session_type: SessionType::Multicast,
        session_id: SessionId(1),
        message_id,
        body: MessageBody::Msg(AppPayload {
            payload_type: "msg".to_owned(),
            blob: vec![0x5A; payload_len].into(),
        }),
        metadata: Default::default(),
    })
}
