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
//! | | nobody but the sender | dropped; silence is the protocol |
//! | link, subscription ack | always | ignored |
//!
//! The destination is only read: a message for any instance still says so when it
//! arrives. `recv_from` and `forward_to` name connections of the process that
//! wrote them and are not looked at. What fails the checks of [`Frame::parse`] or
//! its MAC does not get here.

use std::sync::Arc;

use slim_proto::{Frame, Outgoing, RoutedFrame, SubscriptionAck, UNICAST, Undeliverable};

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

/// Decides about a frame from the link that `routes` belongs to. Adds the links
/// that a publish goes to, one at least, to `targets`; `usable` says which can be
/// picked where one is enough.
///
/// # Errors
/// Why the frame is dropped.
pub(crate) fn route<'f, T>(
    frame: &'f Frame,
    table: &RouteTable<T>,
    routes: &mut LinkRoutes<T>,
    usable: impl Fn(&T) -> bool,
    targets: &mut Vec<Arc<T>>,
) -> Result<Routed<'f>, Counter> {
    match frame {
        Frame::Subscribe(frame) => change(frame, |frame| {
            routes.subscribe(&frame.header().destination, frame.subscription_id())
        }),
        Frame::Unsubscribe(frame) => change(frame, |frame| {
            routes.unsubscribe(&frame.header().destination, frame.subscription_id())
        }),
        Frame::Publish(frame) => {
            let outgoing = frame.forward().map_err(|reason| match reason {
                Undeliverable::TtlExpired => Counter::TtlExpired,
                Undeliverable::TooLarge(_) => Counter::TooLarge,
            })?;
            let destination = &frame.header().destination;
            if frame.header().fanout == UNICAST {
                targets.extend(table.any(destination, routes.link(), usable));
            } else {
                table.all(destination, routes.link(), targets);
            }
            if targets.is_empty() {
                return Err(Counter::NoSubscriber);
            }
            Ok(Routed::Forward(frame, outgoing))
        }
        Frame::Link(_) | Frame::SubscriptionAck(_) => Err(Counter::Unexpected),
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
