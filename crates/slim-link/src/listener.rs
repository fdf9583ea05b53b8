//! Where a node listens.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};

use crate::address::unix_path;
use crate::tls::{self, Acceptor};
use crate::{Authenticator, PeerAddr, ServerTls, TlsConfigError};

/// Connections that may wait with the system to be accepted, if it allows so many: all
/// applications of a node that was started again come at the same time, and who finds
/// no place tries again seconds later.
pub(crate) const BACKLOG: u32 = 2048;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Endpoint {
    /// An address of this machine; port 0 picks one. Links are gRPC.
    Tcp(SocketAddr),
    /// The same, but links are WebSockets, for peers that cannot do otherwise.
    WebSocket {
        /// Where.
        addr: SocketAddr,
        /// Whether TLS is spoken, as [`ListenConfig::tls`] has to say too.
        is_tls: bool,
    },
    /// A socket in the file system, for whoever may write to it. It is made with the
    /// rights that the process gives to new files (its umask), and removed at the end;
    /// one that was left over by another process is replaced.
    Unix(PathBuf),
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let web = |addr: &str, is_tls| {
            let addr = addr.strip_suffix('/').unwrap_or(addr).parse();
            addr.ok().map(|addr| Self::WebSocket { addr, is_tls })
        };
        let endpoint = match text.split_once("://") {
            Some(("unix", _)) => unix_path(text).and_then(Result::ok).map(Self::Unix),
            Some(("ws", addr)) => web(addr, false),
            Some(("wss", addr)) => web(addr, true),
            _ => text.parse().ok().map(Self::Tcp),
        };
        endpoint.ok_or_else(|| EndpointError(text.to_owned()))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => addr.fmt(f),
            Self::WebSocket { addr, is_tls: false } => write!(f, "ws://{addr}"),
            Self::WebSocket { addr, is_tls: true } => write!(f, "wss://{addr}"),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

/// The text is not an address to listen on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is neither a numeric address and a port, such as 127.0.0.1:46357, nor the same after \
     ws:// or wss://, nor unix:///path"
)]
pub struct EndpointError(String);

/// Where to listen, and how.
#[derive(Clone, Debug)]
pub struct ListenConfig {
    /// Where.
    pub endpoint: Endpoint,
    /// TLS, if that is what is spoken there.
    pub tls: Option<ServerTls>,
    /// Who judges what diallers show, and whoever shows nothing good is refused. Default
    /// none: whatever they show is not looked at.
    pub auth: Option<Arc<dyn Authenticator>>,
}

/// Without TLS, for everybody.
impl From<Endpoint> for ListenConfig {
    fn from(endpoint: Endpoint) -> Self {
        Self { endpoint, tls: None, auth: None }
    }
}

/// Without TLS, for everybody.
impl From<SocketAddr> for ListenConfig {
    fn from(addr: SocketAddr) -> Self {
        Endpoint::Tcp(addr).into()
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
    /// TLS is asked for where none is spoken.
    #[error("a Unix socket has no TLS: it does not leave this machine")]
    TlsOnUnix,
    /// TLS is asked for where none is spoken.
    #[error("ws:// has no TLS: expected wss://, or no certificate")]
    TlsOnPlainWebSocket,
    /// No TLS is given where it is spoken.
    #[error("wss:// has TLS: expected a certificate and a key, or ws://")]
    NoCertificate,
    /// There is a file of this name, and it is not a socket.
    #[error("there is a file of this name that is no socket")]
    NoSocket,
}

/// Something that is listened on. Peers can connect, and are served by
/// [`serve`](crate::serve).
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    endpoint: Endpoint,
    tls: Option<Arc<Acceptor>>,
    auth: Option<Arc<dyn Authenticator>>,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// What is accepted.
pub(crate) enum Raw {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Listener {
    /// Listens. Needs a runtime.
    ///
    /// # Errors
    /// See [`ListenError`].
    pub fn bind(config: &ListenConfig) -> Result<Self, ListenError> {
        let alpn = match config.endpoint {
            Endpoint::WebSocket { .. } => tls::HTTP1,
            _ => tls::HTTP2,
        };
        let tls = config.tls.clone().map(|tls| Acceptor::new(tls, alpn)).transpose()?.map(Arc::new);
        let auth = config.auth.clone();
        match &config.endpoint {
            Endpoint::Tcp(addr) => {
                let socket = bind_tcp(*addr)?;
                let endpoint = Endpoint::Tcp(socket.local_addr()?);
                Ok(Self { socket: Socket::Tcp(socket), endpoint, tls, auth })
            }
            Endpoint::WebSocket { is_tls: true, .. } if tls.is_none() => {
                Err(ListenError::NoCertificate)
            }
            Endpoint::WebSocket { is_tls: false, .. } if tls.is_some() => {
                Err(ListenError::TlsOnPlainWebSocket)
            }
            Endpoint::WebSocket { addr, is_tls } => {
                let socket = bind_tcp(*addr)?;
                let endpoint = Endpoint::WebSocket { addr: socket.local_addr()?, is_tls: *is_tls };
                Ok(Self { socket: Socket::Tcp(socket), endpoint, tls, auth })
            }
            Endpoint::Unix(_) if tls.is_some() => Err(ListenError::TlsOnUnix),
            Endpoint::Unix(path) => {
                let (socket, file) = bind_unix(path)?;
                let endpoint = config.endpoint.clone();
                Ok(Self { socket: Socket::Unix(socket, file), endpoint, tls, auth })
            }
        }
    }

    /// Where, with the real port.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Its certificates, to be read again when somebody says so.
    pub fn certificates(&self) -> Option<Certificates> {
        let acceptor = Arc::clone(self.tls.as_ref()?);
        Some(Certificates { endpoint: self.endpoint.clone(), acceptor })
    }

    pub(crate) fn tls(&self) -> Option<&Arc<Acceptor>> {
        self.tls.as_ref()
    }

    pub(crate) fn auth(&self) -> Option<&Arc<dyn Authenticator>> {
        self.auth.as_ref()
    }

    pub(crate) fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Raw, PeerAddr)>> {
        match &self.socket {
            Socket::Tcp(socket) => {
                socket.poll_accept(cx).map_ok(|(tcp, addr)| (Raw::Tcp(tcp), PeerAddr::Ip(addr)))
            }
            Socket::Unix(socket, file) => socket
                .poll_accept(cx)
                .map_ok(|(unix, _)| (Raw::Unix(unix), PeerAddr::Unix(file.path.clone()))),
        }
    }
}

/// The file of a socket that is listened on. Removed when this is dropped, unless
/// another has taken its place.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    /// Device and number.
    id: (u64, u64),
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        let file = std::fs::symlink_metadata(path)?;
        Ok(Self { path: path.to_owned(), id: (file.dev(), file.ino()) })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let id = std::fs::symlink_metadata(&self.path).map(|file| (file.dev(), file.ino()));
        if id.is_ok_and(|id| id == self.id) {
            // Whoever comes next finds that nobody listens there.
            std::fs::remove_file(&self.path).ok();
        }
    }
}

/// A socket whose process is gone leaves its file behind, at which nobody answers.
fn bind_unix(path: &Path) -> Result<(UnixListener, SocketFile), ListenError> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
        Ok(file) if !file.file_type().is_socket() => return Err(ListenError::NoSocket),
        Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path)?;
            }
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error.into()),
            // Somebody answers, or is too busy to.
            _ => return Err(io::Error::from(io::ErrorKind::AddrInUse).into()),
        },
    }
    let socket = UnixListener::bind(path)?;
    Ok((socket, SocketFile::of(path)?))
}

/// The certificates of a [`Listener`], which may be served meanwhile.
#[derive(Clone, Debug)]
pub struct Certificates {
    endpoint: Endpoint,
    acceptor: Arc<Acceptor>,
}

impl Certificates {
    /// Where they are shown.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Reads the files again, which blocks for a moment. Tells whether they are others
    /// now: new links get these, and the old links stay.
    ///
    /// # Errors
    /// If they cannot be used. Everything stays as it is then.
    pub fn reload(&self) -> Result<bool, TlsConfigError> {
        self.acceptor.reload()
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
