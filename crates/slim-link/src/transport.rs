//! What a link's bytes go over: a socket, or TLS on one.
//!
//! An accepted connection agrees on TLS when it is first read or written, so a peer
//! that never finishes is bounded by what bounds every connection that has not
//! negotiated, and holds nobody else up.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::{Accept, TlsAcceptor, TlsStream};
use tonic::transport::server::Connected;

use crate::TlsError;
use crate::socket::Socket;
use crate::tls::of_io;

/// Called with the certificate that a client has shown and proved to be its own, once.
pub(crate) type OnCertificate = Box<dyn FnOnce(&CertificateDer<'_>) + Send>;

/// Called with what is wrong, once.
pub(crate) type OnTlsError = Box<dyn FnOnce(TlsError) + Send>;

/// A connection, and what its owner wants to know of it.
pub(crate) struct Transport<T> {
    stream: Stream,
    info: T,
}

enum Stream {
    Tcp(Socket<TcpStream>),
    Unix(Socket<UnixStream>),
    Tls(Box<Tls>),
}

struct Tls {
    state: State,
    /// Until something has arrived: then TLS is agreed on, as both sides see it.
    on_error: Option<OnTlsError>,
    /// How sending has failed before anything had arrived.
    send_failed: Option<io::ErrorKind>,
    /// Whether we have shown a certificate.
    shown: bool,
}

enum State {
    Accepting(Accept<Socket<TcpStream>>, Option<OnCertificate>),
    Open(TlsStream<Socket<TcpStream>>),
    Failed(io::ErrorKind),
}

impl<T> Transport<T> {
    pub(crate) fn plain(socket: Socket<TcpStream>, info: T) -> Self {
        Self { stream: Stream::Tcp(socket), info }
    }

    pub(crate) fn unix(socket: Socket<UnixStream>, info: T) -> Self {
        Self { stream: Stream::Unix(socket), info }
    }

    /// TLS that is agreed on when the transport is first used.
    pub(crate) fn accept(
        socket: Socket<TcpStream>,
        config: Arc<ServerConfig>,
        on_certificate: OnCertificate,
        on_error: OnTlsError,
        info: T,
    ) -> Self {
        let tls = Tls {
            state: State::Accepting(TlsAcceptor::from(config).accept(socket), Some(on_certificate)),
            on_error: Some(on_error),
            send_failed: None,
            shown: true,
        };
        Self { stream: Stream::Tls(Box::new(tls)), info }
    }

    /// TLS that is agreed on as far as we can tell: that the other side does not
    /// accept our certificate, or wants one, comes afterwards.
    pub(crate) fn dialled(
        tls: TlsStream<Socket<TcpStream>>,
        shown: bool,
        on_error: OnTlsError,
        info: T,
    ) -> Self {
        let on_error = Some(on_error);
        let tls = Tls { state: State::Open(tls), on_error, send_failed: None, shown };
        Self { stream: Stream::Tls(Box::new(tls)), info }
    }
}

impl Tls {
    /// The stream, once TLS is agreed on.
    fn poll_open(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<&mut TlsStream<Socket<TcpStream>>>> {
        if let State::Accepting(accept, on_certificate) = &mut self.state {
            match ready!(Pin::new(accept).poll(cx)) {
                Ok(tls) => {
                    let shown = tls.get_ref().1.peer_certificates().and_then(<[_]>::first);
                    if let (Some(tell), Some(certificate)) = (on_certificate.take(), shown) {
                        tell(certificate);
                    }
                    self.state = State::Open(tls.into());
                }
                Err(error) => {
                    self.state = State::Failed(error.kind());
                    self.tell(&error);
                    if let Some(tell) = self.on_error.take()
                        && error.kind() == io::ErrorKind::UnexpectedEof
                    {
                        tell(TlsError::Ended);
                    }
                    return Poll::Ready(Err(error));
                }
            }
        }
        match &mut self.state {
            State::Open(tls) => Poll::Ready(Ok(tls)),
            State::Failed(kind) => Poll::Ready(Err((*kind).into())),
            State::Accepting(..) => Poll::Pending,
        }
    }

    /// Passes an error on to whoever wants to know, if it is about TLS.
    fn tell(&mut self, error: &io::Error) {
        if let Some(error) = of_io(error)
            && let Some(tell) = self.on_error.take()
        {
            tell(TlsError::of(error, "", self.shown));
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = ready!(Pin::new(ready!(self.poll_open(cx))?).poll_read(cx, buf));
        match &read {
            Ok(()) if buf.filled().len() > before => self.on_error = None,
            Ok(()) => {}
            Err(error) => self.tell(error),
        }
        Poll::Ready(read)
    }

    /// Does something that sends.
    ///
    /// Who does not accept our certificate says why and hangs up. We may send before
    /// we have read that: then it is read first.
    fn poll_send<V>(
        &mut self,
        cx: &mut Context<'_>,
        send: impl FnOnce(
            Pin<&mut TlsStream<Socket<TcpStream>>>,
            &mut Context<'_>,
        ) -> Poll<io::Result<V>>,
    ) -> Poll<io::Result<V>> {
        if self.send_failed.is_none() {
            match ready!(send(Pin::new(ready!(self.poll_open(cx))?), cx)) {
                Err(error) if self.on_error.is_some() => self.send_failed = Some(error.kind()),
                sent => return Poll::Ready(sent),
            }
        }
        while self.on_error.is_some() {
            let mut ignored = [0; 256];
            let mut buf = ReadBuf::new(&mut ignored);
            if ready!(self.poll_read(cx, &mut buf)).is_err() || buf.filled().is_empty() {
                break;
            }
        }
        Poll::Ready(Err(self.send_failed.unwrap_or(io::ErrorKind::BrokenPipe).into()))
    }
}

impl<T: Clone + Send + Sync + 'static> Connected for Transport<T> {
    type ConnectInfo = T;

    fn connect_info(&self) -> T {
        self.info.clone()
    }
}

impl<T: Unpin> AsyncRead for Transport<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(socket) => Pin::new(socket).poll_read(cx, buf),
            Stream::Unix(socket) => Pin::new(socket).poll_read(cx, buf),
            Stream::Tls(tls) => tls.poll_read(cx, buf),
        }
    }
}

impl<T: Unpin> AsyncWrite for Transport<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Tcp(socket) => Pin::new(socket).poll_write(cx, buf),
            Stream::Unix(socket) => Pin::new(socket).poll_write(cx, buf),
            Stream::Tls(tls) => tls.poll_send(cx, |tls, cx| tls.poll_write(cx, buf)),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Tcp(socket) => Pin::new(socket).poll_write_vectored(cx, bufs),
            Stream::Unix(socket) => Pin::new(socket).poll_write_vectored(cx, bufs),
            Stream::Tls(tls) => tls.poll_send(cx, |tls, cx| tls.poll_write_vectored(cx, bufs)),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Tcp(socket) => socket.is_write_vectored(),
            Stream::Unix(socket) => socket.is_write_vectored(),
            Stream::Tls(_) => true,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(socket) => Pin::new(socket).poll_flush(cx),
            Stream::Unix(socket) => Pin::new(socket).poll_flush(cx),
            Stream::Tls(tls) => tls.poll_send(cx, |tls, cx| tls.poll_flush(cx)),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(socket) => Pin::new(socket).poll_shutdown(cx),
            Stream::Unix(socket) => Pin::new(socket).poll_shutdown(cx),
            Stream::Tls(tls) => tls.poll_send(cx, |tls, cx| tls.poll_shutdown(cx)),
        }
    }
}
