//! A TCP socket set for small messages.
//!
//! Applications in the field switch Nagle's algorithm on and write an ack and the
//! next message as two small segments; the second then waits for the acknowledgement
//! of the first, which the kernel delays by 40 ms. Acknowledging at once removes that
//! wait without any change to them.

use std::future::ready;
use std::io;
use std::pin::Pin;
use std::task::{self, Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tonic::transport::server::Connected;

/// Resolves when the socket has to go, with the reason.
pub(crate) type Doom = Pin<Box<dyn Future<Output = io::Error> + Send>>;

/// A socket that breaks when its doom comes.
pub(crate) struct Socket<T> {
    tcp: TcpStream,
    doom: Doom,
    /// What its owner wants to know of it.
    info: T,
}

impl<T> Socket<T> {
    pub(crate) fn new(tcp: TcpStream, doom: Doom, info: T) -> Self {
        // Fails only on a socket that is broken, as the next read will say.
        tcp.set_nodelay(true).ok();
        Self { tcp, doom, info }
    }

    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let Poll::Ready(error) = self.doom.as_mut().poll(cx) else {
            return Ok(());
        };
        // Whoever asks again gets the same answer.
        self.doom = Box::pin(ready(error.kind().into()));
        Err(error)
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
        task::ready!(Pin::new(&mut self.tcp).poll_read(cx, buf))?;
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::sync::oneshot;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (dialled, accepted) = tokio::join!(TcpStream::connect(addr), listener.accept());
        (dialled.unwrap(), accepted.unwrap().0)
    }

    #[tokio::test]
    async fn small_segments_do_not_wait() {
        let (mut peer, tcp) = pair().await;
        let mut socket = Socket::new(tcp, Box::pin(std::future::pending()), ());
        assert!(socket.tcp.nodelay().unwrap());
        for byte in 0..100 {
            #[cfg(target_os = "linux")]
            socket.tcp.set_quickack(false).unwrap();
            peer.write_u8(byte).await.unwrap();
            assert_eq!(socket.read_u8().await.unwrap(), byte);
            #[cfg(target_os = "linux")]
            assert!(socket.tcp.quickack().unwrap());
        }
    }

    #[tokio::test]
    async fn doom_breaks_a_socket_in_both_directions() {
        let (_peer, tcp) = pair().await;
        let (send, doomed) = oneshot::channel::<()>();
        let doom: Doom = Box::pin(async move {
            doomed.await.ok();
            io::ErrorKind::TimedOut.into()
        });
        let mut socket = Socket::new(tcp, doom, ());
        socket.write_u8(1).await.unwrap();
        let reading = tokio::spawn(async move {
            let first = socket.read_u8().await.unwrap_err().kind();
            let second = socket.write_u8(1).await.unwrap_err().kind();
            (first, second)
        });
        send.send(()).unwrap();
        let timed_out = io::ErrorKind::TimedOut;
        assert_eq!(reading.await.unwrap(), (timed_out, timed_out));
    }
}
