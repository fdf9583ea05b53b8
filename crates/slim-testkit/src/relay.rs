//! A proxy between clients and their node that looks at each message.
//!
//! It passes gRPC messages on as they are, so that header MACs stay right, and asks
//! for each what becomes of it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, client, server};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};

/// Bytes in front of each gRPC message: a flag, and the length in four bytes.
const PREFIX_LEN: usize = 5;

/// A direction of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To the node.
    Out,
    /// From the node.
    In,
}

/// Tells once whether what is held goes on.
pub type Release = Pin<Box<dyn Future<Output = bool> + Send>>;

/// What becomes of a message.
pub enum Fate {
    /// It goes on.
    Pass,
    /// It does not.
    Lose,
    /// It waits, and all that follows it, until it is known whether it goes on; if
    /// not, this direction of the link ends.
    Hold(Release),
}

impl fmt::Debug for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pass => "Pass",
            Self::Lose => "Lose",
            Self::Hold(_) => "Hold",
        })
    }
}

/// Decides for one direction of one link. Sees each message without its prefix.
pub type Policy = Box<dyn FnMut(&Bytes) -> Fate + Send>;

/// Serves clients with the node at `node`, for ever. `policy` is asked for each
/// direction of each link.
///
/// # Errors
/// If the listener fails. What happens on one connection stays there.
pub async fn serve(
    listener: TcpListener,
    node: SocketAddr,
    policy: impl Fn(Direction) -> Policy + Clone + Send + 'static,
) -> io::Result<()> {
    loop {
        let (client, _) = listener.accept().await?;
        client.set_nodelay(true)?;
        let policy = policy.clone();
        let service = service_fn(move |request| {
            pass_on(request, node, policy(Direction::Out), policy(Direction::In))
        });
        let connection = server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(client), service);
        // Both ends notice that it has ended, and say why.
        tokio::spawn(connection);
    }
}

/// Opens the link at the node, over a connection of its own.
async fn pass_on(
    request: Request<Incoming>,
    node: SocketAddr,
    outbound: Policy,
    inbound: Policy,
) -> Result<Response<Relay>, Box<dyn std::error::Error + Send + Sync>> {
    let tcp = TcpStream::connect(node).await?;
    tcp.set_nodelay(true)?;
    let (mut requests, connection) =
        client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tcp)).await?;
    tokio::spawn(connection);
    let request = request.map(|body| Relay::new(body, outbound));
    let response = requests.send_request(request).await?;
    Ok(response.map(|body| Relay::new(body, inbound)))
}

/// One direction of a link.
struct Relay {
    body: Incoming,
    /// What was received and not looked at.
    partial: BytesMut,
    policy: Policy,
    /// A message that waits, and what it waits for.
    held: Option<(Bytes, Release)>,
}

impl Relay {
    fn new(body: Incoming, policy: Policy) -> Self {
        Self { body, partial: BytesMut::new(), policy, held: None }
    }

    /// Takes complete messages out of `partial`, until one is held; those that go on.
    fn cut(&mut self) -> Bytes {
        let mut kept = BytesMut::new();
        while self.held.is_none()
            && let Some(message) = next_message(&mut self.partial)
        {
            match (self.policy)(&message.slice(PREFIX_LEN..)) {
                Fate::Pass => kept.extend_from_slice(&message),
                Fate::Lose => {}
                Fate::Hold(until) => self.held = Some((message, until)),
            }
        }
        kept.freeze()
    }
}

impl Body for Relay {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        loop {
            if let Some((message, until)) = &mut self.held {
                if !ready!(until.as_mut().poll(cx)) {
                    return Poll::Ready(None);
                }
                let message = message.clone();
                self.held = None;
                return Poll::Ready(Some(Ok(Frame::data(message))));
            }
            let kept = self.cut();
            if !kept.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(kept))));
            }
            if self.held.is_some() {
                continue;
            }
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                end => return Poll::Ready(end),
            };
            match frame.into_data() {
                Ok(data) => self.partial.extend_from_slice(&data),
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
    }
}

/// The first message, prefix included, if all of it is there.
fn next_message(bytes: &mut BytesMut) -> Option<Bytes> {
    let mut length = bytes.get(1..PREFIX_LEN)?;
    let end = PREFIX_LEN + length.get_u32() as usize;
    (bytes.len() >= end).then(|| bytes.split_to(end).freeze())
}
