//! A running node as whoever looks at it sees it. Nothing here stops the links' tasks:
//! counters are read as they are, and tables a piece at a time.

use std::sync::Arc;
use std::time::SystemTime;

use slim_link::Health;

use crate::families::{Family, Process, Snapshot};
use crate::links::Links;
use crate::metrics::Metrics;
use crate::subscriber::{Condition, Subscriber};
use crate::{NodeLimits, RouteTable};

/// Links that are looked at before others get their turn.
const LINKS_PER_TURN: usize = 1000;

/// A running node.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) table: Arc<RouteTable<Subscriber>>,
    pub(crate) links: Arc<Links>,
    pub(crate) health: Arc<Health>,
    pub(crate) limits: NodeLimits,
    pub(crate) began_at: SystemTime,
}

/// All links together at one moment, roughly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Backlog {
    /// Bytes that wait to be sent.
    pub(crate) queued_bytes: u64,
    /// Links whose peers read too slowly.
    pub(crate) slow_links: u64,
}

impl View {
    /// Looks at all links.
    pub(crate) async fn each_link(&self, mut look: impl FnMut(&Subscriber)) {
        let mut after = 0;
        loop {
            let (links, left) = self.links.page(after, LINKS_PER_TURN);
            let Some(last) = links.last() else { return };
            after = last.about().number;
            links.iter().for_each(|link| look(link));
            if left == 0 {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    /// What waits.
    pub(crate) async fn backlog(&self) -> Backlog {
        let mut backlog = Backlog::default();
        self.each_link(|link| {
            backlog.queued_bytes += link.outbound().queued_bytes() as u64;
            backlog.slow_links += u64::from(link.condition() == Condition::Behind);
        })
        .await;
        backlog
    }

    /// All metrics.
    pub(crate) async fn families(&self) -> Vec<Family> {
        let snapshot = Snapshot {
            node: self.metrics.snapshot(),
            names: self.table.names() as u64,
            backlog: self.backlog().await,
            is_ready: self.health.is_serving(),
            max_connections: self.limits.accept().max_connections() as u64,
            began_at: self.began_at,
            process: Process::now(),
        };
        snapshot.families()
    }
}
