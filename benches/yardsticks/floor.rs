//! What the machine allows: an HTTP/2 server that passes the bytes of each publish
//! to everybody who has subscribed to anything. No routing, no MAC, no limits.
//!
//! A reader queues everything that it can read at once, then wakes the writers; what
//! waits for a subscriber leaves in pieces, a large message as it is.
#![expect(clippy::print_stdout, reason = "a program that another one reads")]

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::task::{Context, Poll, Waker};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use clap::Parser;
use http::{Request, Response};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use slim_bench::yardstick::{answer, is_publish};
use slim_proto::Message;
use tokio::net::TcpListener;
use tokio::sync::Notify;

/// Small messages leave together in pieces of this size.
const PIECE_LEN: usize = 16 * 1024;
/// Longer messages are not copied.
const SMALL_LEN: usize = 4 * 1024;
/// Bytes that may wait for a subscriber before readers wait for it.
const QUEUE_BYTES: usize = 1024 * 1024;
/// Bytes of the length in front of a message, and of the flag before it.
const PREFIX_LEN: usize = 5;

#[derive(Debug, Parser)]
struct Args {
    #[arg(long)]
    listen: SocketAddr,
}

type Subscribers = Arc<RwLock<Vec<Arc<Queue>>>>;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let listener = TcpListener::bind(Args::parse().listen).await?;
    println!("listening on {}", listener.local_addr()?);
    let subscribers = Subscribers::default();
    loop {
        let (tcp, _) = listener.accept().await?;
        tcp.set_nodelay(true)?;
        let subscribers = Arc::clone(&subscribers);
        let service = service_fn(move |request: Request<Incoming>| {
            let queue = Arc::new(Queue::default());
            tokio::spawn(read(request.into_body(), Arc::clone(&queue), Arc::clone(&subscribers)));
            async {
                Response::builder().header("content-type", "application/grpc").body(Out(queue))
            }
        });
        let connection = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(1024 * 1024)
            .initial_connection_window_size(4 * 1024 * 1024)
            .serve_connection(TokioIo::new(tcp), service);
        tokio::spawn(connection);
    }
}

/// Passes on what a client sends, until it ends.
async fn read(mut body: Incoming, own: Arc<Queue>, subscribers: Subscribers) {
    let mut bytes = BytesMut::new();
    while poll_fn(|cx| poll_read(&mut body, &mut bytes, cx)).await {
        let mut received = bytes.split().freeze();
        let mut publishes = Vec::new();
        while let Some(len) = whole_message(&received) {
            let framed = received.split_to(len);
            let message = framed.slice(PREFIX_LEN..);
            if is_publish(&message) {
                publishes.push(framed);
            } else if let Ok(message) = Message::decode(message) {
                own.answer(&message);
                if matches!(message, Message::Subscribe(_)) {
                    let mut all = subscribers.write().unwrap_or_else(PoisonError::into_inner);
                    all.push(Arc::clone(&own));
                }
            }
        }
        bytes.extend_from_slice(&received);
        if publishes.is_empty() {
            continue;
        }
        let targets = subscribers.read().unwrap_or_else(PoisonError::into_inner).clone();
        for queue in &targets {
            queue.push(&publishes);
        }
        for queue in targets {
            queue.space().await;
        }
        tokio::task::yield_now().await;
    }
    own.lock().is_over = true;
    subscribers.write().unwrap_or_else(PoisonError::into_inner).retain(|q| !Arc::ptr_eq(q, &own));
}

/// Everything that is there. False: the end.
fn poll_read(body: &mut Incoming, bytes: &mut BytesMut, cx: &mut Context<'_>) -> Poll<bool> {
    let before = bytes.len();
    while bytes.len() - before < QUEUE_BYTES / 4 {
        match Pin::new(&mut *body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                bytes.extend(frame.into_data());
            }
            Poll::Ready(_) => return Poll::Ready(false),
            Poll::Pending if bytes.len() > before => break,
            Poll::Pending => return Poll::Pending,
        }
    }
    Poll::Ready(true)
}

/// Length of the first message with its prefix, if all of it is there.
fn whole_message(mut bytes: &[u8]) -> Option<usize> {
    let available = bytes.len();
    if available < PREFIX_LEN {
        return None;
    }
    bytes.advance(1);
    let len = PREFIX_LEN + bytes.get_u32() as usize;
    (len <= available).then_some(len)
}

/// What waits for a client.
#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    taken: Notify,
}

#[derive(Default)]
struct Waiting {
    pieces: VecDeque<Bytes>,
    open: BytesMut,
    len: usize,
    is_over: bool,
    writer: Option<Waker>,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, message: &Message) {
        if let Some(answer) = answer(message) {
            let answer = answer.encode();
            let mut framed = BytesMut::new();
            framed.put_u8(0);
            framed.put_u32(answer.len() as u32);
            framed.put(answer);
            self.push(&[framed.freeze()]);
        }
    }

    fn push(&self, messages: &[Bytes]) {
        let mut waiting = self.lock();
        for message in messages {
            waiting.len += message.len();
            let is_small = message.len() <= SMALL_LEN;
            if !is_small || waiting.open.len() + message.len() > PIECE_LEN {
                waiting.seal();
            }
            if is_small {
                waiting.open.extend_from_slice(message);
            } else {
                waiting.pieces.push_back(message.clone());
            }
        }
        let writer = waiting.writer.take();
        drop(waiting);
        if let Some(writer) = writer {
            writer.wake();
        }
    }

    async fn space(&self) {
        while {
            let waiting = self.lock();
            waiting.len > QUEUE_BYTES && !waiting.is_over
        } {
            self.taken.notified().await;
        }
    }
}

impl Waiting {
    fn seal(&mut self) {
        if !self.open.is_empty() {
            let piece = std::mem::take(&mut self.open).freeze();
            self.pieces.push_back(piece);
        }
    }
}

/// What hyper reads a queue through.
struct Out(Arc<Queue>);

impl Body for Out {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let mut waiting = self.0.lock();
        if waiting.pieces.is_empty() {
            waiting.seal();
        }
        if let Some(piece) = waiting.pieces.pop_front() {
            waiting.len -= piece.len();
            drop(waiting);
            self.0.taken.notify_one();
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        if waiting.is_over {
            return Poll::Ready(None);
        }
        waiting.writer = Some(cx.waker().clone());
        Poll::Pending
    }
}
