//! Where a node listens.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::tls::Acceptor;
use crate::{ServerTls, TlsConfigError};

/// Connections that may wait with the system to be accepted, if it allows so many: all
/// applications of a node that was started again come at the same time, and who finds
/// no place tries again seconds later.
const BACKLOG: u32 = 2048;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Endpoint {
    /// An address of this machine; port 0 picks one.
    Tcp(SocketAddr),
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        text.parse().map(Self::Tcp).map_err(|_| EndpointError(text.to_owned()))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => addr.fmt(f),
        }
    }
}

/// The text is not an address to listen on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a numeric address and a port, such as 127.0.0.1:46357")]
pub struct EndpointError(String);

/// Where to listen, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenConfig {
    /// Where.
    pub endpoint: Endpoint,
    /// TLS, if that is what is spoken there.
    pub tls: Option<ServerTls>,
}

/// Without TLS.
impl From<SocketAddr> for ListenConfig {
    fn from(addr: SocketAddr) -> Self {
        Self { endpoint: Endpoint::Tcp(addr), tls: None }
    }
}

/// It is not listened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// The address is in use, not this machine's, or not allowed.
    #[error(transparent)]
    Socket(#[from] io::Error),
    /// The certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsConfigError),
}

/// Something that is listened on. Peers can connect, and are served by
/// [`serve`](crate::serve).
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    endpoint: Endpoint,
    tls: Option<Arc<Acceptor>>,
}

impl Listener {
    /// Listens. Needs a runtime.
    ///
    /// # Errors
    /// See [`ListenError`].
    pub fn bind(config: &ListenConfig) -> Result<Self, ListenError> {
        let tls = config.tls.clone().map(Acceptor::new).transpose()?.map(Arc::new);
        let Endpoint::Tcp(addr) = config.endpoint;
        let socket = bind_tcp(addr)?;
        let endpoint = Endpoint::Tcp(socket.local_addr()?);
        Ok(Self { socket, endpoint, tls })
    }

    /// Where, with the real port.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    pub(crate) fn tls(&self) -> Option<&Arc<Acceptor>> {
        self.tls.as_ref()
    }

    pub(crate) fn poll_accept(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        self.socket.poll_accept(cx)
    }
}

fn bind_tcp(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // On Windows it means something else: that others may take the port.
    if cfg!(unix) {
        socket.set_reuseaddr(true)?;
    }
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}
