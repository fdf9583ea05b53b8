//! The node as its peers see it: a real one, over TCP.

#![expect(clippy::unwrap_used, reason = "a test that fails panics")]

mod admin;
mod common;
mod health;
mod hostile;
mod limits;
mod links;
mod peer_links;
mod peers;
mod policy;
#[cfg(unix)]
mod program;
mod routing;
mod slow;
