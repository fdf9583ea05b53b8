//! What takes a peer's bytes, for `fuzz/`: both ends of a negotiation and the
//! reader behind it, with fixed secrets and without sockets.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{BufMut, Bytes, BytesMut};
use http_body::Body;
use slim_proto::{ConnectionType, Frame, LinkNegotiation};
use zeroize::Zeroizing;

use crate::grpc;
use crate::handshake::{self, Acceptor, Negotiated, PeerAdmission, Secrets};
use crate::mac::LinkKey;
use crate::reader::{Inbound, MacRule, MessageReader};
use crate::{Drops, FrameReader, LinkEnd, NegotiationError};

/// The link that [`dial`] asks for.
pub const LINK_ID: &str = "link";

/// The only node that [`accept`] takes for a peer.
pub const PEER: &str = "peer";

/// Times that something may be polled before it counts as hanging.
const MAX_POLLS: usize = 100_000;

/// A link whose negotiation has succeeded, with the peer in our hand.
#[derive(Debug)]
pub struct Established {
    /// What the peer said.
    pub peer: LinkNegotiation,
    /// The answer to it; none where we dialled.
    pub reply: Option<LinkNegotiation>,
    key: Option<LinkKey>,
    reader: FrameReader,
    chunks: Chunks,
}

/// The request of a dialler.
pub fn request() -> LinkNegotiation {
    handshake::request(LINK_ID, "dialler", "", ConnectionType::Edge, &dialler())
}

/// A message with the bytes in front that gRPC wants.
pub fn framed(message: &[u8]) -> Bytes {
    [&grpc::prefix(message.len())[..], message].concat().into()
}

/// The acceptor's side, when the peer sends this.
///
/// # Errors
/// As for any peer.
pub fn accept(
    chunks: impl IntoIterator<Item = Bytes>,
    require_mac: bool,
) -> Result<Established, NegotiationError> {
    let (chunks, mut messages) = stream(chunks);
    let first = finish(messages.negotiation())?;
    let peers = PeerAdmission::new(|peer, _| match &*peer.node_id {
        PEER => Ok(()),
        _ => Err("not a peer".to_owned()),
    });
    let own = Acceptor {
        node_id: "acceptor",
        deployment_name: "",
        require_mac,
        peers: &peers,
        principals: &[],
    };
    let (reply, Negotiated { peer, key }) = handshake::accept(first, &own, &acceptor())?;
    let reader =
        FrameReader::new(messages, key.clone(), MacRule::new(require_mac, peer.connection_type));
    Ok(Established { peer, reply: Some(reply), key, reader, chunks })
}

/// The dialler's side, when the node answers [`request`] with this.
///
/// # Errors
/// As for any node.
pub fn dial(
    chunks: impl IntoIterator<Item = Bytes>,
    require_mac: bool,
) -> Result<Established, NegotiationError> {
    let (chunks, mut messages) = stream(chunks);
    let answer = finish(messages.negotiation())?;
    let asked = (LINK_ID, ConnectionType::Edge);
    let Negotiated { peer, key } = handshake::finish(answer, asked, require_mac, &dialler())?;
    let reader =
        FrameReader::new(messages, key.clone(), MacRule::new(require_mac, peer.connection_type));
    Ok(Established { peer, reply: None, key, reader, chunks })
}

impl Established {
    /// The frame with the MAC of this link, if it is one that has a header and the
    /// link has a key.
    pub fn signed(&self, frame: Bytes) -> Option<Bytes> {
        let frame = Frame::parse(frame).ok()?;
        let outgoing = frame.routed()?.originate().ok()?;
        let mut bytes = BytesMut::new();
        outgoing.write_head(&self.key.as_ref()?.sign(outgoing.mac_body()), &mut bytes);
        bytes.put_slice(outgoing.tail());
        Some(bytes.freeze())
    }

    /// Whether both ends have the same key.
    pub fn agrees_with(&self, other: &Self) -> bool {
        let sample = |key: &Option<LinkKey>| key.as_ref().map(|key| key.sign(b"sample"));
        sample(&self.key) == sample(&other.key)
    }

    /// What is left of the first chunks, then these, read to the end.
    pub fn receive(
        mut self,
        chunks: impl IntoIterator<Item = Bytes>,
    ) -> (Vec<Frame>, Drops, LinkEnd) {
        self.chunks.lock().extend(chunks);
        let mut frames = Vec::new();
        loop {
            if let Err(end) = finish(self.reader.read_batch(&mut frames)) {
                return (frames, self.reader.drops(), end);
            }
        }
    }
}

fn dialler() -> Secrets {
    secrets(1)
}

fn acceptor() -> Secrets {
    secrets(2)
}

fn secrets(byte: u8) -> Secrets {
    Secrets::new(Zeroizing::new([byte; 32]), Zeroizing::new([byte; 32]))
}

fn stream(chunks: impl IntoIterator<Item = Bytes>) -> (Chunks, MessageReader) {
    let chunks = Chunks(Arc::new(Mutex::new(chunks.into_iter().collect())));
    let body = Inbound::Request(tonic::body::Body::new(chunks.clone()));
    (chunks, MessageReader::new(body, None))
}

/// A body whose chunks are all there.
#[derive(Clone, Debug)]
struct Chunks(Arc<Mutex<VecDeque<Bytes>>>);

impl Chunks {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Bytes>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Body for Chunks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.lock().pop_front().map(|chunk| Ok(http_body::Frame::data(chunk))))
    }
}

/// Runs what has nothing to wait for.
///
/// # Panics
/// If it waits nevertheless.
fn finish<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    for _ in 0..MAX_POLLS {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return value;
        }
    }
    panic!("it never ends");
}
