//! A TCP socket set for small messages.
//!
//! Applications in the field switch Nagle's algorithm on and write an ack and the
//! next message as two small segments; the second then waits for the acknowledgement
//! of the first, which the kernel delays by 40 ms. Acknowledging at once removes that
//! wait without any change to them.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tonic::transport::server::Connected;

/// Resolves when the socket has to go, with the reason.
pub(crate) type Doom = Pin<Box<dyn Future<Output = io::Error> + Send>>;

/// A socket that breaks when its doom comes.
pub(crate) struct Socket<T = ()> {
    tcp: TcpStream,
    doom: Option<Doom>,
    /// What its owner wants to know of it.
    info: T,
}

impl Socket {
    /// A socket that lasts.
    pub(crate) fn new(tcp: TcpStream) -> Self {
        // Fails only on a socket that is broken, as the next read will say.
        tcp.set_nodelay(true).ok();
        Self { tcp, doom: None, info: () }
    }

    pub(crate) fn with_doom<T>(self, doom: Doom, info: T) -> Socket<T> {
        Socket { tcp: self.tcp, doom: Some(doom), info }
    }
}

impl<T> Socket<T> {
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.doom.as_mut().map(|doom| doom.as_mut().poll(cx)) {
            None | Some(Poll::Pending) => Ok(()),
            Some(Poll::Ready(error)) => {
                let kind = error.kind();
                self.doom = Some(Box::pin(async move { kind.into() }));
                Err(error)
            }
        }
    }

    /// Not sticky: the kernel falls back to delaying by itself.
    #[cfg(target_os = "linux")]
    fn acknowledge_at_once(&self) {
        // Only latency is at stake.
        self.tcp.set_quickack(true).ok();
    }

    #[cfg(not(target_os = "linux"))]
    fn acknowledge_at_once(&self) {}
}

impl<T: Clone + Send + Sync + 'static> Connected for Socket<T> {
    type ConnectInfo = T;

    fn connect_info(&self) -> T {
        self.info.clone()
    }
}

impl<T: Unpin> AsyncRead for Socket<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(cx)?;
        ready!(Pin::new(&mut self.tcp).poll_read(cx, buf))?;
        self.acknowledge_at_once();
        Poll::Ready(Ok(()))
    }
}

impl<T: Unpin> AsyncWrite for Socket<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
