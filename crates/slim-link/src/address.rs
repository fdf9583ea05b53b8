//! Who is at the other end of a socket.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Where a peer is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerAddr {
    /// Its address.
    Ip(SocketAddr),
    /// On this machine, behind this socket. Those who connect have no name.
    Unix(PathBuf),
}

impl fmt::Display for PeerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(addr) => addr.fmt(f),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

/// The path in `unix:///path`. It has to be absolute, so that both sides mean the same.
pub(crate) fn unix_path(text: &str) -> Option<Result<PathBuf, ()>> {
    let path = text.strip_prefix("unix://")?;
    let is_path = path.starts_with('/') && !path.ends_with('/') && !path.contains('\0');
    Some(if is_path { Ok(path.into()) } else { Err(()) })
}
