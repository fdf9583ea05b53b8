//! What one writes in an afternoon: a bidirectional method on tonic that passes each
//! decoded publish to everybody who has subscribed to anything, through a channel
//! each. No routing, no MAC, no limits.
#![expect(clippy::print_stdout, reason = "a program that another one reads")]

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};

use bytes::{Buf, BufMut};
use clap::Parser;
use http::{Request, Response};
use slim_bench::yardstick::answer;
use slim_proto::Message;
use tokio::net::TcpListener;
use tokio::sync::mpsc::{self, Sender};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::{Grpc, StreamingService};
use tonic::{Status, Streaming};
use tower_service::Service;

/// Messages that may wait for a subscriber before everybody waits for it.
const QUEUE: usize = 128;

#[derive(Debug, Parser)]
struct Args {
    #[arg(long)]
    listen: SocketAddr,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let listener = TcpListener::bind(Args::parse().listen).await?;
    println!("listening on {}", listener.local_addr()?);
    let incoming = TcpListenerStream::new(listener).map(|tcp| {
        let tcp = tcp?;
        tcp.set_nodelay(true)?;
        Ok::<_, std::io::Error>(tcp)
    });
    tonic::transport::Server::builder().serve_with_incoming(Relay::default(), incoming).await?;
    Ok(())
}

type Outgoing = Sender<Result<Message, Status>>;

/// The queues of all subscribers.
#[derive(Clone, Default)]
struct Relay(Arc<RwLock<Vec<Outgoing>>>);

impl Relay {
    async fn pass_on(self, mut messages: Streaming<Message>, own: Outgoing) {
        while let Ok(Some(message)) = messages.message().await {
            if let Some(answer) = answer(&message) {
                if matches!(message, Message::Subscribe(_)) {
                    self.0.write().unwrap_or_else(PoisonError::into_inner).push(own.clone());
                }
                // Who is gone needs no answer.
                own.send(Ok(answer)).await.ok();
                continue;
            }
            let subscribers = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
            for subscriber in subscribers {
                // The same for who is gone.
                subscriber.send(Ok(message.clone())).await.ok();
            }
        }
    }
}

impl StreamingService<Message> for Relay {
    type Response = Message;
    type ResponseStream = ReceiverStream<Result<Message, Status>>;
    type Future = Ready<Result<tonic::Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: tonic::Request<Streaming<Message>>) -> Self::Future {
        let (own, queue) = mpsc::channel(QUEUE);
        tokio::spawn(self.clone().pass_on(request.into_inner(), own));
        ready(Ok(tonic::Response::new(ReceiverStream::new(queue))))
    }
}

/// As it is generated for the only method.
impl Service<Request<Body>> for Relay {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let relay = self.clone();
        Box::pin(async move { Ok(Grpc::new(Messages).streaming(relay, request).await) })
    }
}

/// Messages, decoded and encoded.
struct Messages;

impl Codec for Messages {
    type Encode = Message;
    type Decode = Message;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Messages {
    type Item = Message;
    type Error = Status;

    fn encode(&mut self, message: Message, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(message.encode());
        Ok(())
    }
}

impl Decoder for Messages {
    type Item = Message;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<Message>, Status> {
        let bytes = bytes.copy_to_bytes(bytes.remaining());
        Message::decode(bytes).map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}
