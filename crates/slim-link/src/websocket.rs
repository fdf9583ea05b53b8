//! Links over WebSockets (RFC 6455): a binary message is a message, and the code of the
//! close frame says what a gRPC status says elsewhere.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Sink as _, Stream as _};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use slim_proto::MAX_MESSAGE_LEN;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::error::CapacityError;
use tokio_tungstenite::tungstenite::handshake::server::create_response;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};
use tracing::debug;

use crate::accept::NotAdmitted;
use crate::grpc::{self, Deframer, MAX_NEGOTIATION_LEN};
use crate::outbound::OutboundBody;
use crate::reader::with_causes;
use crate::transport::Transport;
use crate::{DialError, DialStage, LINGER, LinkEnd, PIECE_LEN, Principal};

/// The path of a node's WebSockets.
const PATH: &str = "/";

/// Longest request for a WebSocket, in bytes.
const MAX_REQUEST_LEN: usize = 16 * 1024;

/// Bytes that are taken of a peer that has not negotiated: its request or answer, the
/// negotiation, and what is around them.
const FIRST_BYTES: usize = 2 * MAX_REQUEST_LEN + MAX_NEGOTIATION_LEN;

/// Bytes that are read at once. Each socket has a buffer of this size.
const READ_LEN: usize = 16 * 1024;

/// Longest text of a close frame, in bytes (RFC 6455 §5.5).
const MAX_CLOSE_TEXT: usize = 123;

/// A link's socket, for its reader and its writer.
pub(crate) struct WebSocket {
    stream: Mutex<WebSocketStream<Guarded>>,
    /// Whether anything has arrived since the last look.
    heard: AtomicBool,
}

impl WebSocket {
    fn new(stream: WebSocketStream<Guarded>) -> Arc<Self> {
        Arc::new(Self { stream: Mutex::new(stream), heard: AtomicBool::new(true) })
    }

    /// Answers the request for a WebSocket, if that is what comes, of somebody whom
    /// `admit` admits.
    pub(crate) async fn accept<T>(
        transport: Transport<T>,
        admit: impl Fn(&HeaderMap) -> Result<Arc<[Principal]>, NotAdmitted>,
    ) -> Option<(Arc<Self>, Arc<[Principal]>)>
    where
        T: Send + Unpin + 'static,
    {
        let asked = Mutex::new(None);
        let service = service_fn(|request| async {
            let answer = match requested(request) {
                Ok((answer, headers, upgrade)) => match admit(&headers) {
                    Ok(principals) => {
                        let upgrade = Some((upgrade, principals));
                        *asked.lock().unwrap_or_else(PoisonError::into_inner) = upgrade;
                        answer
                    }
                    Err(refused) => refusal(StatusCode::UNAUTHORIZED, &refused.reason().await),
                },
                Err((status, words)) => refusal(status, &words),
            };
            Ok::<_, Infallible>(answer)
        });
        // How long this takes is bounded by the connection's doom.
        let served = http1::Builder::new()
            .max_buf_size(MAX_REQUEST_LEN)
            .serve_connection(TokioIo::new(transport), service)
            .with_upgrades()
            .await;
        if let Err(error) = served {
            debug!(error = with_causes(&error), "no request for a WebSocket");
            return None;
        }
        let (upgrade, principals) = asked.into_inner().unwrap_or_else(PoisonError::into_inner)?;
        let stream = Guarded::new(TokioIo::new(upgrade.await.ok()?));
        let stream = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config())).await;
        Some((Self::new(stream), principals))
    }

    /// Asks for a WebSocket.
    pub(crate) async fn dial(
        url: &str,
        authorization: Option<HeaderValue>,
        transport: Transport<()>,
    ) -> Result<Arc<Self>, DialError> {
        let broken =
            |error: Error| DialError::Broken { stage: DialStage::Open, cause: error.to_string() };
        let mut request = url.into_client_request().map_err(broken)?;
        let agent = HeaderValue::from_static(concat!("slim-link/", env!("CARGO_PKG_VERSION")));
        request.headers_mut().insert(header::USER_AGENT, agent);
        if let Some(shown) = authorization {
            request.headers_mut().insert(header::AUTHORIZATION, shown);
        }
        let stream = Guarded::new(transport);
        match client_async_with_config(request, stream, Some(config())).await {
            Ok((stream, _)) => Ok(Self::new(stream)),
            Err(Error::Http(response)) => {
                let body = response.body().as_deref().unwrap_or_default();
                let message = grpc::peer_text(body.trim_ascii());
                Err(match response.status() {
                    StatusCode::UNAUTHORIZED => DialError::Unauthenticated(message),
                    status => DialError::Refused { http: status.as_u16(), grpc: None, message },
                })
            }
            Err(error) => Err(broken(error)),
        }
    }

    /// Nothing panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, WebSocketStream<Guarded>> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The peer has negotiated, so it may send as much as it likes.
    pub(crate) fn lift_limit(&self) {
        self.lock().get_mut().allowance = None;
    }

    /// The next message. What a peer has to be answered goes out on the way.
    pub(crate) fn poll_message(&self, cx: &mut Context<'_>) -> Poll<Result<Bytes, LinkEnd>> {
        let mut stream = self.lock();
        loop {
            let message = ready!(Pin::new(&mut *stream).poll_next(cx));
            self.heard.store(true, Ordering::Relaxed);
            let end = match message {
                Some(Ok(Message::Binary(message))) => return Poll::Ready(Ok(message)),
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
                Some(Ok(Message::Text(_))) => {
                    let text = "expected binary messages";
                    close(&mut stream, CloseCode::Unsupported, text);
                    LinkEnd::Lost("it sent a text, and a link has binary messages".to_owned())
                }
                Some(Ok(Message::Close(frame))) => end_of(frame),
                Some(Err(Error::Capacity(CapacityError::MessageTooLong { size, .. }))) => {
                    close(&mut stream, CloseCode::Size, "message is too long");
                    LinkEnd::TooLarge(size)
                }
                Some(Err(error)) => LinkEnd::Lost(with_causes(&error)),
                None => LinkEnd::Ended,
            };
            return Poll::Ready(Err(end));
        }
    }

    /// Sends what is queued until that ends, or the peer gives no sign of life: it is asked
    /// for one each `interval` and has `patience` for it.
    pub(crate) async fn write(
        &self,
        mut body: OutboundBody,
        interval: Duration,
        patience: Duration,
    ) {
        let mut deframer = Deframer::new();
        deframer.lift_limit();
        let is_over = tokio::select! {
            sent = poll_fn(|cx| self.poll_send(cx, &mut body, &mut deframer)) => sent.is_ok(),
            () = self.watch(interval, patience) => false,
        };
        drop(body);
        if is_over {
            // Until the peer has seen the close frame and hangs up too.
            let seen = poll_fn(|cx| {
                let mut stream = self.lock();
                while let Some(Ok(_)) = ready!(Pin::new(&mut *stream).poll_next(cx)) {}
                Poll::Ready(())
            });
            timeout(LINGER, seen).await.unwrap_or(());
        }
    }

    /// Sends all of the body and the close frame.
    fn poll_send(
        &self,
        cx: &mut Context<'_>,
        body: &mut OutboundBody,
        deframer: &mut Deframer,
    ) -> Poll<Result<(), Error>> {
        let mut stream = self.lock();
        loop {
            ready!(Pin::new(&mut *stream).poll_ready(cx))?;
            let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(cx) else {
                ready!(Pin::new(&mut *stream).poll_flush(cx))?;
                return Poll::Pending;
            };
            let end = match frame.map(|Ok(frame)| frame.into_data()) {
                Some(Ok(chunk)) => {
                    deframer.push(chunk);
                    while let Ok(Some(message)) = deframer.next() {
                        Pin::new(&mut *stream).start_send(Message::Binary(message))?;
                    }
                    continue;
                }
                Some(Err(frame)) => frame.into_trailers().ok().and_then(|end| grpc::status(&end)),
                None => None,
            };
            let (status, text) = end.unwrap_or_default();
            close(&mut stream, code_of(status), &text);
            return Pin::new(&mut *stream).poll_flush(cx);
        }
    }

    /// Returns when the peer has not answered.
    async fn watch(&self, interval: Duration, patience: Duration) {
        loop {
            sleep(interval).await;
            self.heard.store(false, Ordering::Relaxed);
            let ping = Message::Ping(Bytes::new());
            // One that cannot be sent tells the other half of the writer.
            Pin::new(&mut *self.lock()).start_send(ping).unwrap_or(());
            let mut flush = pin!(poll_fn(|cx| Pin::new(&mut *self.lock()).poll_flush(cx)));
            let answered = async {
                flush.as_mut().await.unwrap_or(());
                std::future::pending::<()>().await;
            };
            timeout(patience, answered).await.unwrap_or(());
            if !self.heard.load(Ordering::Relaxed) {
                return debug!("a WebSocket's peer gives no sign of life");
            }
        }
    }
}

fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_LEN)
        .write_buffer_size(PIECE_LEN)
        .max_message_size(Some(MAX_MESSAGE_LEN))
        .max_frame_size(Some(MAX_MESSAGE_LEN))
}

/// What a request for a WebSocket is answered with, what it shows, and how to go on; or
/// why any other request is refused.
type Requested = Result<(Response<String>, HeaderMap, OnUpgrade), (StatusCode, String)>;

fn requested(mut request: Request<Incoming>) -> Requested {
    if request.uri().path() != PATH {
        return Err((StatusCode::NOT_FOUND, "the path of links is /".to_owned()));
    }
    let upgrade = hyper::upgrade::on(&mut request);
    let (mut parts, _) = request.into_parts();
    // Who runs in a browser cannot set headers.
    if !parts.headers.contains_key(header::AUTHORIZATION)
        && let Some(token) = parts.uri.query().and_then(token_of)
    {
        parts.headers.insert(header::AUTHORIZATION, token);
    }
    let request = Request::from_parts(parts, ());
    match create_response(&request) {
        Ok(response) => {
            let headers = request.into_parts().0.headers;
            Ok((response.map(|()| String::new()), headers, upgrade))
        }
        Err(error) => Err((StatusCode::BAD_REQUEST, format!("this is for WebSockets: {error}"))),
    }
}

/// The token in a query, as a header has it. A token has no character that a query would
/// have in another form.
fn token_of(query: &str) -> Option<HeaderValue> {
    let token = query.split('&').find_map(|part| part.strip_prefix("token="))?;
    let mut value = HeaderValue::try_from(format!("Bearer {token}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn refusal(status: StatusCode, words: &str) -> Response<String> {
    let mut response = Response::new(format!("{words}\n"));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Queues a close frame, unless one is already under way.
fn close(stream: &mut WebSocketStream<Guarded>, code: CloseCode, text: &str) {
    let text = &text[..text.floor_char_boundary(MAX_CLOSE_TEXT)];
    let frame = CloseFrame { code, reason: text.into() };
    Pin::new(stream).start_send(Message::Close(Some(frame))).unwrap_or(());
}

/// What a gRPC status is here.
fn code_of(status: u16) -> CloseCode {
    match status {
        0 => CloseCode::Normal,
        grpc::PERMISSION_DENIED => CloseCode::Policy,
        grpc::UNAVAILABLE => CloseCode::Again,
        _ => CloseCode::Error,
    }
}

/// Why a socket with this frame has ended.
fn end_of(frame: Option<CloseFrame>) -> LinkEnd {
    let Some(CloseFrame { code, reason }) = frame else {
        return LinkEnd::Ended;
    };
    let message = grpc::peer_text(reason.as_bytes());
    match code {
        CloseCode::Normal | CloseCode::Away => LinkEnd::Ended,
        CloseCode::Policy => LinkEnd::PermissionDenied(message),
        CloseCode::Again => LinkEnd::Status { code: grpc::UNAVAILABLE, message },
        code => LinkEnd::Lost(format!("closed with code {}: {message:?}", u16::from(code))),
    }
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A stream of which only so much is read until somebody lifts that: a message is put
/// together before we see it.
struct Guarded {
    stream: Box<dyn Io>,
    allowance: Option<usize>,
}

impl Guarded {
    fn new(stream: impl Io + 'static) -> Self {
        Self { stream: Box::new(stream), allowance: Some(FIRST_BYTES) }
    }
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if let Some(allowance) = &mut self.allowance {
            let read = buf.filled().len() - before;
            *allowance = allowance.checked_sub(read).ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidData, "too much before the negotiation")
            })?;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
