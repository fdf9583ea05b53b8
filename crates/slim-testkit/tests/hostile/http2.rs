//! HTTP/2 frames made by hand (RFC 9113), for what no library sends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::task::JoinHandle;

use crate::within;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

/// Flags of HEADERS and CONTINUATION.
pub(crate) const END_HEADERS: u8 = 4;

/// Error code: the peer misbehaves.
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

/// What a client says first.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The headers that open a link (RFC 7541 §6.2.2: literals, nothing indexed).
pub(crate) fn headers() -> Vec<u8> {
    let path = b"/dataplane.proto.v1.DataPlaneService/OpenChannel";
    let mut block = vec![0x83, 0x86];
    let mut literal = |name: &[u8], value: &[u8]| {
        block.extend(name);
        block.push(value.len() as u8);
        block.extend(value);
    };
    literal(&[0x04], path);
    literal(&[0x01], b"node");
    literal(b"\0\x02te", b"trailers");
    literal(b"\0\x0ccontent-type", b"application/grpc");
    block
}

/// A connection that has sent its preface.
pub(crate) struct Http2 {
    out: OwnedWriteHalf,
    reader: JoinHandle<Option<u32>>,
    pub(crate) frames_read: Arc<AtomicU32>,
}

impl Http2 {
    pub(crate) async fn open(addr: SocketAddr) -> Self {
        let tcp = within(TcpStream::connect(addr)).await.unwrap();
        let (mut read, out) = tcp.into_split();
        let frames_read = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&frames_read);
        let reader = tokio::spawn(async move {
            let mut goaway = None;
            let mut head = [0; 9];
            while read.read_exact(&mut head).await.is_ok() {
                let len = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
                let mut payload = vec![0; len];
                if read.read_exact(&mut payload).await.is_err() {
                    break;
                }
                counter.fetch_add(1, Ordering::Relaxed);
                if head[3] == GOAWAY {
                    goaway = Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
                }
            }
            goaway
        });
        let mut connection = Self { out, reader, frames_read };
        assert!(connection.write(PREFACE).await);
        assert!(connection.write(&frame(SETTINGS, 0, 0, &[])).await);
        connection
    }

    /// Whether the node still takes it. Waits for as long as the node does not read.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> bool {
        self.out.write_all(bytes).await.is_ok()
    }

    /// Waits until the node has ended the connection: the error code that it gave.
    pub(crate) async fn end(self) -> Option<u32> {
        within(self.reader).await.unwrap()
    }
}
