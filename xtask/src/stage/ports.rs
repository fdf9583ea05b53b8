//! A port that a node can have, give up and have again.

use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::Context;

/// Below those that systems give to outgoing connections: a client that tries to
/// reach a node which is away could otherwise get the node's own port, be connected
/// to itself, and keep the node from coming back.
const PORTS: Range<u16> = 20_000..32_000;

/// How many were handed out, so that no two cases get the same.
static HANDED_OUT: AtomicU16 = AtomicU16::new(0);

/// One that nobody listened on a moment ago. It may be taken before it is used, if
/// only by a process that is being started and still has all our sockets.
///
/// # Errors
/// If there is none.
pub(crate) fn free() -> anyhow::Result<u16> {
    let count = PORTS.end - PORTS.start;
    // Two runs at the same time begin at different places.
    let start = std::process::id() % u32::from(count);
    let start = u16::try_from(start).expect("less than a u16");
    (0..count)
        .map(|_| {
            let number = HANDED_OUT.fetch_add(1, Ordering::Relaxed);
            PORTS.start + (u32::from(start) + u32::from(number)) as u16 % count
        })
        .find(|&port| is_free(port))
        .context("no free port")
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_handed_out_once_and_not_while_they_are_in_use() {
        let (first, second) = (free().unwrap(), free().unwrap());
        assert_ne!(first, second);
        assert!(PORTS.contains(&first) && PORTS.contains(&second));

        let in_use = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = in_use.local_addr().unwrap().port();
        assert!(!is_free(port));
    }
}
