//! A network between clients and their node, on whose links messages get lost.
//!
//! Any message but the negotiation of a link can be. Which ones are follows from a
//! seed and from their place among the messages of their link and direction.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use slim_proto::Message;
use tokio::net::TcpListener;

use crate::relay::{self, Fate, Policy};

/// How many messages are lost, and how many there were.
#[derive(Debug, Default)]
pub struct Loss {
    per_mille: AtomicU32,
    passed: AtomicU64,
    lost: AtomicU64,
    /// Directions of links so far, for a seed of each.
    directions: AtomicU64,
}

impl Loss {
    /// Loses so many of a thousand messages from now on; at first none.
    pub fn set_per_mille(&self, per_mille: u32) {
        self.per_mille.store(per_mille.min(1000), Ordering::Relaxed);
    }

    /// Messages that were passed on, and that were lost.
    pub fn counts(&self) -> (u64, u64) {
        (self.passed.load(Ordering::Relaxed), self.lost.load(Ordering::Relaxed))
    }

    /// The policy of one direction of a link.
    fn policy(self: &Arc<Self>) -> Policy {
        let loss = Arc::clone(self);
        let seed = loss.directions.fetch_add(1, Ordering::Relaxed);
        let mut rng = SmallRng::seed_from_u64(seed);
        // Drawn for each, so that a message's fate depends on its place alone.
        Box::new(move |message| loss.fate(rng.random_range(0..1000), message))
    }

    fn fate(&self, draw: u32, message: &Bytes) -> Fate {
        if draw < self.per_mille.load(Ordering::Relaxed) && !is_negotiation(message) {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return Fate::Lose;
        }
        self.passed.fetch_add(1, Ordering::Relaxed);
        Fate::Pass
    }
}

/// Serves clients with the node at `node`, for ever.
///
/// # Errors
/// If the listener fails. What happens on one connection stays there.
pub async fn serve(listener: TcpListener, node: SocketAddr, loss: Arc<Loss>) -> io::Result<()> {
    relay::serve(listener, node, move |_| loss.policy()).await
}

fn is_negotiation(message: &Bytes) -> bool {
    matches!(Message::decode(message.clone()), Ok(Message::Link(_)))
}
