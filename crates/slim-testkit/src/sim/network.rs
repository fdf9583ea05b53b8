//! A node with the real routing table, and the links to it as bytes on their way.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use slim_node::{LinkRoutes, RouteTable};
use slim_proto::{Frame, Message, SubscriptionAck, UNICAST};

/// Subscriptions of one link; no simulated application comes near it.
const MAX_SUBSCRIPTIONS: usize = 100_000;

/// Number of a link, never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct LinkId(pub(super) u64);

/// The node: what a link sends becomes bytes for other links.
#[derive(Debug, Default)]
pub(super) struct Node {
    table: Arc<RouteTable<LinkId>>,
    links: BTreeMap<LinkId, LinkRoutes<LinkId>>,
    next: u64,
}

impl Node {
    /// A new link.
    pub(super) fn attach(&mut self) -> LinkId {
        let link = LinkId(self.next);
        self.next += 1;
        self.links.insert(link, self.table.attach(Arc::new(link), MAX_SUBSCRIPTIONS));
        link
    }

    /// A link is lost, and its routes with it.
    pub(super) fn detach(&mut self, link: LinkId) {
        self.links.remove(&link);
    }

    /// Whether the node knows of this link.
    pub(super) fn has(&self, link: LinkId) -> bool {
        self.links.contains_key(&link)
    }

    /// All links are lost.
    pub(super) fn restart(&mut self) {
        self.links.clear();
    }

    /// How many names all links have subscribed to together.
    pub(super) fn subscriptions(&self) -> usize {
        self.table.subscriptions()
    }

    /// A frame comes over a link; gives what goes out over which. The same rules as
    /// the node's own router, which takes sockets.
    pub(super) fn receive(
        &mut self,
        from: LinkId,
        bytes: Bytes,
    ) -> Result<Vec<(LinkId, Bytes)>, String> {
        let Some(routes) = self.links.get_mut(&from) else { return Ok(Vec::new()) };
        let frame = Frame::parse(bytes).map_err(|error| format!("the node reads: {error}"))?;
        let (subscription_id, result) = match &frame {
            Frame::Subscribe(frame) => {
                let id = frame.subscription_id();
                (id, routes.subscribe(&frame.header().destination, id))
            }
            Frame::Unsubscribe(frame) => {
                let id = frame.subscription_id();
                (id, routes.unsubscribe(&frame.header().destination, id))
            }
            Frame::Publish(frame) => {
                let (header, mut targets) = (frame.header(), Vec::new());
                if header.fanout == UNICAST {
                    targets.extend(self.table.any(&header.destination, routes.link(), |_| true));
                } else {
                    self.table.all(&header.destination, routes.link(), &mut targets);
                }
                let out = frame.forward().map_err(|error| format!("the node forwards: {error}"))?;
                let (head, tail) = out.without_mac();
                let mut bytes = BytesMut::from(&head[..]);
                bytes.extend_from_slice(&tail);
                let bytes = bytes.freeze();
                return Ok(targets.iter().map(|link| (**link, bytes.clone())).collect());
            }
            Frame::Link(_) | Frame::SubscriptionAck(_) => {
                return Err("an engine sends what is the link's or the node's".to_owned());
            }
        };
        let result = result.map(drop).map_err(|error| error.to_string());
        let ack = Message::SubscriptionAck(SubscriptionAck { subscription_id, result });
        Ok(vec![(from, ack.encode())])
    }
}
