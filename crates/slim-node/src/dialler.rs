//! The task that keeps a link to one peer.

use std::sync::Arc;
use std::time::Duration;

use slim_link::{DialConfig, DialledLink, Target, dial_node};
use slim_proto::ConnectionType;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use crate::metrics::{Counter, Tally};
use crate::peering::{Peering, random};
use crate::peers::Topology;
use crate::server::Shared;
use crate::{Backoff, NodeConfig, PeerConfig};

/// A link that has lasted for so long was good, and is dialled again at once.
const GOOD_LINK: Duration = Duration::from_secs(10);

/// Dials one peer for as long as the node runs.
pub(crate) struct Dialler {
    shared: Arc<Shared>,
    peering: Arc<Peering>,
    node_id: Option<String>,
    target: Target,
    config: DialConfig,
    backoff: Waits,
    /// What was wrong the last time, in order not to say it again.
    trouble: Option<String>,
}

impl Dialler {
    /// One for a peer that this node is to dial: in a full mesh, of each two nodes the
    /// one with the smaller id.
    pub(crate) fn new(
        shared: &Arc<Shared>,
        peering: &Arc<Peering>,
        node: &NodeConfig,
        peer: &PeerConfig,
    ) -> Option<Self> {
        let target = peer.target.clone()?;
        let own_id = peering.own_id();
        let node_id = peer.node_id.as_deref();
        let is_ours = match (peering.topology(), node_id) {
            (Topology::FullMesh, Some(node_id)) => own_id < node_id,
            (Topology::FullMesh, None) => true,
            (Topology::Relay, node_id) => node_id != Some(own_id),
        };
        if !is_ours {
            return None;
        }
        let default = DialConfig::default();
        let link_id = match (peering.topology(), node_id) {
            (Topology::FullMesh, Some(node_id)) => format!("{own_id}:{node_id}"),
            _ => default.link_id.clone(),
        };
        let config = DialConfig {
            link_id,
            node_id: own_id.to_owned(),
            deployment_name: peering.group().to_owned(),
            connection_type: ConnectionType::Peer,
            require_header_mac: node.require_header_mac,
            negotiation_timeout: node.negotiation_timeout,
            queue_bytes: node.queue_bytes,
            tls: peer.tls.clone(),
            authorization: peer.authorization.clone(),
            ..default
        };
        Some(Self {
            shared: Arc::clone(shared),
            peering: Arc::clone(peering),
            node_id: node_id.map(str::to_owned),
            target,
            config,
            backoff: Waits::new(peer.backoff),
            trouble: None,
        })
    }

    /// Keeps the link until `stopping` says so, then sends what is queued and ends it.
    pub(crate) async fn run(mut self, mut stopping: watch::Receiver<bool>) {
        loop {
            let link = tokio::select! {
                link = self.dial() => link,
                () = stopped(&mut stopping) => return,
            };
            if let Some(link) = link {
                self.serve(link, &mut stopping).await;
            }
            let wait = self.backoff.next(random());
            tokio::select! {
                () = sleep(wait) => {}
                () = stopped(&mut stopping) => return,
            }
        }
    }

    async fn dial(&mut self) -> Option<DialledLink> {
        if let Some(node_id) = &self.node_id {
            // It may have dialled us.
            self.peering.missing(node_id).await;
        }
        debug!(target = %self.target, "dialling peer");
        match dial_node(&self.target, &self.config).await {
            Ok(dialled) => {
                match self.peering.examine(&dialled.link.info, self.node_id.as_deref()) {
                    Ok(()) => {
                        // An address alone does not say whom it leads to.
                        let is = || dialled.link.info.node_id.clone();
                        self.node_id.get_or_insert_with(is);
                        Some(dialled)
                    }
                    Err(reason) => {
                        self.failed(reason, true);
                        None
                    }
                }
            }
            Err(error) => {
                let lasting = error.is_denied() || error.is_lasting();
                let reason = slim_link::with_causes(&error);
                self.failed(reason, lasting);
                None
            }
        }
    }

    async fn serve(&mut self, dialled: DialledLink, stopping: &mut watch::Receiver<bool>) {
        if self.trouble.take().is_some() {
            info!(target = %self.target, "peer can be reached again");
        }
        let DialledLink { link, connection } = dialled;
        let outbound = link.outbound.clone();
        let since = Instant::now();
        let served = Arc::clone(&self.shared).serve(link, true);
        tokio::pin!(served);
        tokio::select! {
            () = &mut served => {}
            () = stopped(stopping) => {
                outbound.close(slim_link::CloseReason::Done);
                served.await;
            }
        }
        connection.finish().await;
        if since.elapsed() >= GOOD_LINK {
            self.backoff.reset();
        }
    }

    fn failed(&mut self, reason: String, lasting: bool) {
        if lasting {
            self.backoff.slow_down();
        }
        let mut tally = Tally::default();
        tally.add(Counter::FailedDials, 1);
        self.shared.metrics().take(&mut tally);
        if self.trouble.as_ref() == Some(&reason) {
            debug!(target = %self.target, reason, "no link to peer");
        } else {
            warn!(target = %self.target, node_id = self.node_id, reason, "no link to peer");
            self.trouble = Some(reason);
        }
    }
}

async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // Without its sender, the node is gone.
    drop(stopping.wait_for(|stopping| *stopping).await);
}

/// The times between one attempt and the next.
#[derive(Debug)]
struct Waits {
    backoff: Backoff,
    next: Duration,
}

impl Waits {
    fn new(backoff: Backoff) -> Self {
        Self { backoff, next: backoff.first }
    }

    /// Half of what it is for sure, and by `random` up to all of it, so that nodes which
    /// have lost the same peer do not come back at the same moment.
    fn next(&mut self, random: u64) -> Duration {
        let wait = self.next;
        self.next = wait.saturating_mul(2).min(self.backoff.most);
        let share = (random % 1024) as u32;
        wait / 2 + (wait / 2 * share) / 1023
    }

    fn reset(&mut self) {
        self.next = self.backoff.first;
    }

    fn slow_down(&mut self) {
        self.next = self.backoff.most;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_most_and_begin_again() {
        let backoff =
            Backoff { first: Duration::from_millis(100), most: Duration::from_millis(450) };
        let mut waits = Waits::new(backoff);
        let mut all =
            |n: usize| -> Vec<u128> { (0..n).map(|_| waits.next(1023).as_millis()).collect() };
        assert_eq!(all(5), [100, 200, 400, 450, 450]);
        waits.reset();
        assert_eq!(waits.next(0).as_millis(), 50, "half of it at least");
        waits.slow_down();
        assert_eq!(waits.next(1023).as_millis(), 450);
    }
}
