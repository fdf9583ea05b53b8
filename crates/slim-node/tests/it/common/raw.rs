//! A link made by hand: HTTP/2 from hyper, the rest from the protocol's text. It
//! checks the node against something that shares no code with it, and sends what
//! no decent client sends.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use ring::{hkdf, hmac};
use slim_proto::{ConnectionType, Header, LinkNegotiation, Message, canonical};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use x25519_dalek::{PublicKey, StaticSecret};

use super::within;

type Chunk = Result<Frame<Bytes>, Infallible>;
type RequestBody = StreamBody<ReceiverStream<Chunk>>;

/// A TCP connection that speaks HTTP/2.
pub(crate) struct RawConnection {
    requests: SendRequest<RequestBody>,
}

/// One stream of it.
pub(crate) struct RawStream {
    out: mpsc::Sender<Chunk>,
    body: Incoming,
    buffer: BytesMut,
    trailers: Option<http::HeaderMap>,
    link_id: String,
    key: Option<hmac::Key>,
}

/// The sending direction of a stream.
pub(crate) struct RawSender(mpsc::Sender<Chunk>);

/// How a stream ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// With this gRPC status.
    Status(String),
    /// Reset, or the connection was lost.
    Broken,
}

impl RawConnection {
    pub(crate) async fn open(addr: SocketAddr) -> Self {
        let socket = within(TcpStream::connect(addr)).await.unwrap();
        // Small windows, so that who does not read is soon noticed.
        let mut http2 = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        http2.initial_stream_window_size(65_535).initial_connection_window_size(65_535);
        let handshake = http2.handshake(TokioIo::new(socket));
        let (requests, connection) = within(handshake).await.unwrap();
        tokio::spawn(connection);
        Self { requests }
    }

    /// Opens a stream and waits for the response headers, having sent nothing.
    pub(crate) async fn stream(&mut self) -> RawStream {
        self.try_stream().await.expect("a stream")
    }

    /// The same; none if the connection takes no more.
    pub(crate) async fn try_stream(&mut self) -> Option<RawStream> {
        self.call("dataplane.proto.v1.DataPlaneService/OpenChannel").await
    }

    /// The same of any method.
    pub(crate) async fn call(&mut self, method: &str) -> Option<RawStream> {
        let (out, chunks) = mpsc::channel(64);
        let request = http::Request::post(format!("http://node/{method}"))
            .header("te", "trailers")
            .header("content-type", "application/grpc")
            .body(StreamBody::new(ReceiverStream::new(chunks)))
            .unwrap();
        let response = within(self.requests.send_request(request)).await.ok()?;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "application/grpc");
        Some(RawStream {
            out,
            body: response.into_body(),
            buffer: BytesMut::new(),
            trailers: None,
            link_id: "raw-link".to_owned(),
            key: None,
        })
    }

    /// Whether the connection still takes requests.
    pub(crate) async fn is_closed(&mut self) -> bool {
        within(self.requests.ready()).await.is_err()
    }
}

impl RawStream {
    /// A negotiated link on a connection of its own.
    pub(crate) async fn start(addr: SocketAddr) -> Self {
        let mut connection = RawConnection::open(addr).await;
        let mut stream = connection.stream().await;
        stream.negotiate(ConnectionType::Edge).await;
        stream
    }

    pub(crate) fn request(
        &self,
        connection_type: ConnectionType,
        secret: &StaticSecret,
    ) -> LinkNegotiation {
        LinkNegotiation {
            link_id: self.link_id.clone(),
            slim_version: "3.4.6".to_owned(),
            is_reply: false,
            ecdh_public_key: Bytes::copy_from_slice(PublicKey::from(secret).as_bytes()),
            connection_type,
            node_id: "node-raw".to_owned(),
            deployment_name: String::new(),
            kem_payload: None,
        }
    }

    /// Negotiates a key and returns the node's answer.
    pub(crate) async fn negotiate(&mut self, connection_type: ConnectionType) -> LinkNegotiation {
        let secret = StaticSecret::from([7; 32]);
        self.send(&Message::Link(self.request(connection_type, &secret))).await;
        let Some(Message::Link(reply)) = self.next().await else { panic!("no negotiation") };
        let public: [u8; 32] = reply.ecdh_public_key[..].try_into().unwrap();
        let shared = secret.diffie_hellman(&PublicKey::from(public));
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, self.link_id.as_bytes());
        let prk = salt.extract(shared.as_bytes());
        let okm = prk.expand(&[b"SLIM-DP-inter-node-hmac-v1"], hmac::HMAC_SHA256).unwrap();
        self.key = Some(hmac::Key::from(okm));
        reply
    }

    /// Signs a header for this link.
    pub(crate) fn sign(&self, header: &mut Header) {
        let preimage = canonical::mac_preimage(&self.link_id, header);
        let mac = hmac::sign(self.key.as_ref().unwrap(), &preimage);
        header.header_mac = Some(Bytes::copy_from_slice(mac.as_ref()));
    }

    /// Whether a header carries this link's MAC.
    pub(crate) fn verifies(&self, header: &Header) -> bool {
        let preimage = canonical::mac_preimage(&self.link_id, header);
        let mac = header.header_mac.as_deref().unwrap_or_default();
        hmac::verify(self.key.as_ref().unwrap(), &preimage, mac).is_ok()
    }

    /// Sends a message as it is.
    pub(crate) async fn send(&self, message: &Message) {
        self.send_bytes(&message.encode()).await;
    }

    /// Sends a message, signed.
    pub(crate) async fn send_signed(&self, message: &Message) {
        self.send(&self.signed(message)).await;
    }

    pub(crate) fn signed(&self, message: &Message) -> Message {
        let mut message = message.clone();
        match &mut message {
            Message::Subscribe(subscription) | Message::Unsubscribe(subscription) => {
                self.sign(&mut subscription.header);
            }
            Message::Publish(publish) => self.sign(&mut publish.header),
            Message::Link(_) | Message::SubscriptionAck(_) => {}
        }
        message
    }

    /// Sends bytes as one gRPC message.
    pub(crate) async fn send_bytes(&self, message: &[u8]) {
        self.sender().send_bytes(message).await;
    }

    /// For who sends and reads at the same time.
    pub(crate) fn sender(&self) -> RawSender {
        RawSender(self.out.clone())
    }

    /// Whether the node, or the connection, takes no more.
    pub(crate) fn is_closed(&self) -> bool {
        self.out.is_closed()
    }

    /// Sends bytes without framing. That the node no longer takes them is fine.
    pub(crate) async fn send_data(&self, data: Bytes) {
        self.sender().send_data(data).await;
    }

    /// The bytes of the next message; `None` when the stream has ended.
    pub(crate) async fn next_bytes(&mut self) -> Option<Bytes> {
        loop {
            if self.buffer.len() >= 5 {
                let len = u32::from_be_bytes(self.buffer[1..5].try_into().unwrap()) as usize;
                if self.buffer.len() >= 5 + len {
                    assert_eq!(self.buffer[0], 0, "not compressed");
                    self.buffer.advance(5);
                    return Some(self.buffer.split_to(len).freeze());
                }
            }
            let frame = within(self.body.frame()).await?.ok()?;
            match frame.into_data() {
                Ok(data) => self.buffer.extend_from_slice(&data),
                Err(frame) => self.trailers = frame.into_trailers().ok(),
            }
        }
    }

    /// The next message; `None` when the stream has ended.
    pub(crate) async fn next(&mut self) -> Option<Message> {
        self.next_bytes().await.map(|bytes| Message::decode(bytes).unwrap())
    }

    /// Ends the own direction in good order.
    pub(crate) fn finish(self) -> StreamRest {
        StreamRest { body: self.body }
    }

    /// Reads until the stream ends.
    pub(crate) async fn end(&mut self) -> End {
        while self.next_bytes().await.is_some() {}
        match self.trailers.as_ref().and_then(|trailers| trailers.get("grpc-status")) {
            Some(status) => End::Status(status.to_str().unwrap().to_owned()),
            None => End::Broken,
        }
    }
}

impl RawSender {
    /// See [`RawStream::send_bytes`].
    pub(crate) async fn send_bytes(&self, message: &[u8]) {
        let mut framed = BytesMut::with_capacity(5 + message.len());
        framed.put_u8(0);
        framed.put_u32(message.len() as u32);
        framed.put_slice(message);
        self.send_data(framed.freeze()).await;
    }

    /// See [`RawStream::send_data`].
    async fn send_data(&self, data: Bytes) {
        within(self.0.send(Ok(Frame::data(data)))).await.ok();
    }
}

/// A stream whose own direction is over.
pub(crate) struct StreamRest {
    body: Incoming,
}

impl StreamRest {
    /// The gRPC status with which the node ends its direction.
    pub(crate) async fn status(self) -> String {
        let collected = within(self.body.collect()).await.unwrap();
        collected.trailers().unwrap()["grpc-status"].to_str().unwrap().to_owned()
    }
}
