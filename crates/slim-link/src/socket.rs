//! A socket set for small messages, which breaks when it has to go.
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
use tokio::net::{TcpStream, UnixStream};

/// Resolves when the socket has to go, with the reason.
pub(crate) type Doom = Pin<Box<dyn Future<Output = io::Error> + Send>>;

/// Called with the first byte that is read.
pub(crate) type OnFirstByte = Box<dyn FnOnce(u8) + Send>;

/// What bytes come from.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin {
    /// Has no delay before what is small is sent.
    fn send_at_once(&self);

    /// Not sticky: the kernel falls back to delaying by itself.
    fn acknowledge_at_once(&self);
}

impl Stream for TcpStream {
    fn send_at_once(&self) {
        // Fails only on a socket that is broken, as the next read will say.
        self.set_nodelay(true).ok();
    }

    #[cfg(target_os = "linux")]
    fn acknowledge_at_once(&self) {
        // Only latency is at stake.
        self.set_quickack(true).ok();
    }

    #[cfg(not(target_os = "linux"))]
    fn acknowledge_at_once(&self) {}
}

/// Sends and acknowledges at once anyway.
impl Stream for UnixStream {
    fn send_at_once(&self) {}

    fn acknowledge_at_once(&self) {}
}

/// A socket that breaks when its doom comes.
pub(crate) struct Socket<S> {
    stream: S,
    doom: Doom,
    on_first_byte: Option<OnFirstByte>,
}

impl<S: Stream> Socket<S> {
    pub(crate) fn new(stream: S, doom: Doom, on_first_byte: Option<OnFirstByte>) -> Self {
        stream.send_at_once();
        Self { stream, doom, on_first_byte }
    }

    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let Poll::Ready(error) = self.doom.as_mut().poll(cx) else {
            return Ok(());
        };
        // Whoever asks again gets the same answer.
        self.doom = Box::pin(ready(error.kind().into()));
        Err(error)
    }

    #[cold]
    fn has_read(&mut self, read: &[u8]) {
        if let Some(&first) = read.first()
            && let Some(tell) = self.on_first_byte.take()
        {
            tell(first);
        }
    }

    /// Who does not want what we say may have said why and hung up, and we may write
    /// before we have read that: then it is read first.
    #[cold]
    fn poll_failed(&mut self, cx: &mut Context<'_>, error: io::Error) -> Poll<io::Result<usize>> {
        if self.on_first_byte.is_some() {
            let mut first = [0];
            let mut buf = ReadBuf::new(&mut first);
            // Trying to write again fails again, so we come back here.
            if task::ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buf)).is_ok() {
                self.has_read(buf.filled());
            }
            self.on_first_byte = None;
        }
        Poll::Ready(Err(error))
    }
}

impl<S: Stream> AsyncRead for Socket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(cx)?;
        let before = buf.filled().len();
        task::ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        self.stream.acknowledge_at_once();
        if self.on_first_byte.is_some() {
            self.has_read(&buf.filled()[before..]);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: Stream> AsyncWrite for Socket<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        match Pin::new(&mut self.stream).poll_write(cx, buf) {
            Poll::Ready(Err(error)) => self.poll_failed(cx, error),
            written => written,
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        match Pin::new(&mut self.stream).poll_write_vectored(cx, bufs) {
            Poll::Ready(Err(error)) => self.poll_failed(cx, error),
            written => written,
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
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
        let mut socket = Socket::new(tcp, Box::pin(std::future::pending()), None);
        assert!(socket.stream.nodelay().unwrap());
        for byte in 0..100 {
            #[cfg(target_os = "linux")]
            socket.stream.set_quickack(false).unwrap();
            peer.write_u8(byte).await.unwrap();
            assert_eq!(socket.read_u8().await.unwrap(), byte);
            #[cfg(target_os = "linux")]
            assert!(socket.stream.quickack().unwrap());
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
        let mut socket = Socket::new(tcp, doom, None);
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
