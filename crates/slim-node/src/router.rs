//! What becomes of one received frame. Decides and keeps the table; sends nothing.
//!
//! | frame | when | what happens |
//! |---|---|---|
//! | subscribe, unsubscribe | ttl below 2 | dropped, no ack |
//! | | id is 0 | the table changes, no ack |
//! | | otherwise | the table changes, then ack, or nack with the reason |
//! | publish | ttl below 2, or too large to go on | dropped |
//! | | fanout 1 | one subscriber of the destination, in turn |
//! | | other fanout, 0 too | all subscribers, one copy for each link |
//! | | from a peer, fanout 1 | an application here, else the nearest where nodes relay |
//! | | from a peer, other fanout | all applications here, and the peers behind us where nodes relay |
//! | | nobody but the sender | dropped; silence is the protocol |
//! | subscription ack | from a peer | what it was told has arrived |
//! | link, other subscription ack | always | ignored |
//!
//! The destination is only read: a message for any instance still says so when it
//! arrives. `recv_from` and `forward_to` name connections of the process that
//! wrote them and are not looked at. What fails the checks of [`Frame::parse`] or
//! its MAC does not get here, nor what a policy does not allow.

use std::sync::Arc;

use bytes::Bytes;
use slim_proto::{
    Frame, FrameHeader, Outgoing, RoutedFrame, SubscriptionAck, UNICAST, Undeliverable,
};

use crate::mesh::{Mesh, Target};
use crate::metrics::Counter;
use crate::{LinkRoutes, RouteTable, SubscriptionError};

#[cfg(test)]
mod tests;

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Routed<'f> {
    /// Nothing more.
    Done,
    /// This goes back to the sender.
    Answer(SubscriptionAck),
    /// This goes to the links in `targets`.
    Forward(&'f RoutedFrame, Outgoing<'f>),
}

/// What a link's frames change.
pub(crate) trait Subscriptions<T> {
    /// The link that they come from.
    fn link(&self) -> &Arc<T>;
    fn subscribe(&mut self, frame: &RoutedFrame) -> Result<(), SubscriptionError>;
    fn unsubscribe(&mut self, frame: &RoutedFrame) -> Result<(), SubscriptionError>;
    /// Takes the answer to what the link was told; false if it was told nothing.
    fn answered(&mut self, ack: &Bytes) -> bool;
}

impl<T> Subscriptions<T> for LinkRoutes<T> {
    fn link(&self) -> &Arc<T> {
        self.link()
    }

    fn subscribe(&mut self, frame: &RoutedFrame) -> Result<(), SubscriptionError> {
        self.subscribe(&frame.header().destination, frame.subscription_id()).map(drop)
    }

    fn unsubscribe(&mut self, frame: &RoutedFrame) -> Result<(), SubscriptionError> {
        self.unsubscribe(&frame.header().destination, frame.subscription_id()).map(drop)
    }

    fn answered(&mut self, _: &Bytes) -> bool {
        false
    }
}

/// Decides about a frame from the link of `subscriptions`. Adds the links that a publish
/// goes to, one at least, to `targets`.
///
/// # Errors
/// Why the frame is dropped.
pub(crate) fn route<'f, T: Target>(
    frame: &'f Frame,
    table: &RouteTable<T>,
    mesh: Option<&Mesh<T>>,
    subscriptions: &mut impl Subscriptions<T>,
    targets: &mut Vec<Arc<T>>,
) -> Result<Routed<'f>, Counter> {
    match frame {
        Frame::Subscribe(frame) => change(frame, |frame| subscriptions.subscribe(frame)),
        Frame::Unsubscribe(frame) => change(frame, |frame| subscriptions.unsubscribe(frame)),
        Frame::Publish(frame) => {
            let outgoing = frame.forward().map_err(|reason| match reason {
                Undeliverable::TtlExpired => Counter::TtlExpired,
                Undeliverable::TooLarge(_) => Counter::TooLarge,
            })?;
            select(frame.header(), table, mesh, subscriptions.link(), targets);
            if targets.is_empty() {
                return Err(Counter::NoSubscriber);
            }
            Ok(Routed::Forward(frame, outgoing))
        }
        Frame::SubscriptionAck(ack) if subscriptions.answered(ack) => Ok(Routed::Done),
        Frame::Link(_) | Frame::SubscriptionAck(_) => Err(Counter::Unexpected),
    }
}

/// Adds the links that a publish from `from` goes to.
fn select<T: Target>(
    header: &FrameHeader,
    table: &RouteTable<T>,
    mesh: Option<&Mesh<T>>,
    from: &Arc<T>,
    targets: &mut Vec<Arc<T>>,
) {
    let destination = &header.destination;
    let is_unicast = header.fanout == UNICAST;
    match (mesh, from.peer()) {
        (Some(mesh), Some(_)) if is_unicast => {
            let is_here = |link: &T| link.peer().is_none() && link.is_usable();
            let here = table.any(destination, from, is_here);
            targets.extend(here.or_else(|| mesh.nearest(from.peer()?, destination)));
        }
        (Some(mesh), Some(peer)) => {
            table.all(destination, from, targets);
            mesh.keep_relays(peer, &header.source, targets);
        }
        _ if is_unicast => targets.extend(table.any(destination, from, T::is_usable)),
        _ => table.all(destination, from, targets),
    }
}

fn change(
    frame: &RoutedFrame,
    apply: impl FnOnce(&RoutedFrame) -> Result<(), SubscriptionError>,
) -> Result<Routed<'_>, Counter> {
    if frame.header().ttl < 2 {
        return Err(Counter::TtlExpired);
    }
    // The ack promises that what is published from now on is routed.
    let result = apply(frame).map_err(|error| error.to_string());
    match frame.subscription_id() {
        0 => result.map(|()| Routed::Done).map_err(|_| Counter::RefusedSubscriptions),
        subscription_id => Ok(Routed::Answer(SubscriptionAck { subscription_id, result })),
    }
}
