//! Whether a server takes links, for whoever wants to know: in this process, and over
//! gRPC by the protocol that balancers speak (`grpc.health.v1.Health`).

use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use tokio::sync::watch;
use tokio::time::timeout;

use self::pb::health_check_response::ServingStatus;
use self::pb::{HealthCheckRequest, HealthCheckResponse};
use crate::CloseReason;
use crate::listen::{OpenLink, dropped};
use crate::outbound::{CloseOnDrop, Queue};
use crate::reader::{Inbound, MessageReader};

#[allow(missing_docs, unreachable_pub, clippy::all)]
#[rustfmt::skip]
mod pb {
    include!("gen/grpc.health.v1.rs");
}

/// The services whose health can be asked for: all together, and the only one.
const SERVICES: [&str; 2] = ["", "dataplane.proto.v1.DataPlaneService"];

/// Whether [`serve`](crate::serve) takes links: from when it begins until it is told to
/// stop, which is before it closes a listener. Give the same to
/// [`AcceptConfig::health`](crate::AcceptConfig::health) and keep it.
#[derive(Debug)]
pub struct Health(watch::Sender<bool>);

impl Default for Health {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl Health {
    /// Whether links are taken now.
    pub fn is_serving(&self) -> bool {
        *self.0.borrow()
    }

    /// Links are taken for as long as the returned value lives.
    pub(crate) fn begin(self: &Arc<Self>) -> Serving {
        self.0.send_replace(true);
        Serving(Arc::clone(self))
    }
}

/// See [`Health::begin`].
pub(crate) struct Serving(Arc<Health>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.0.send_replace(false);
    }
}

/// A call of the health service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    /// How it is.
    Check,
    /// How it is, and each time it changes.
    Watch,
}

impl Question {
    pub(crate) fn of_path(path: &str) -> Option<Self> {
        match path {
            "/grpc.health.v1.Health/Check" => Some(Self::Check),
            "/grpc.health.v1.Health/Watch" => Some(Self::Watch),
            _ => None,
        }
    }

    /// Answers a call, to its end. Its connection stays that of a newcomer, which goes
    /// when others need its place, but is not cut for having no link.
    pub(crate) async fn answer(
        self,
        health: Arc<Health>,
        open_link: OpenLink,
        inbound: Inbound,
        queue: Arc<Queue>,
        mut listens: watch::Receiver<()>,
        limit: Duration,
    ) {
        let _closes = CloseOnDrop(Arc::clone(&queue));
        open_link.is_a_question();
        let mut messages = MessageReader::new(inbound, Some(Arc::clone(&queue)));
        let Ok(Ok(request)) = timeout(limit, messages.first()).await else { return };
        let service = HealthCheckRequest::decode(request).ok();
        let service = service.as_ref().map(|request| request.service.as_str());
        let is_known = service.is_some_and(|service| SERVICES.contains(&service));
        if !is_known && self == Self::Check {
            return queue.close(CloseReason::NotFound);
        }
        let mut changes = health.0.subscribe();
        loop {
            let is_serving = *changes.borrow_and_update();
            let status = match (is_known, is_serving) {
                (false, _) => ServingStatus::ServiceUnknown,
                (true, true) => ServingStatus::Serving,
                (true, false) => ServingStatus::NotServing,
            };
            let answer = HealthCheckResponse { status: status.into() }.encode_to_vec();
            // Who reads none of a thousand answers gets no more.
            if queue.push_control(&answer).is_err() || self == Self::Check {
                return;
            }
            queue.wake_writer();
            if !is_serving {
                // Nobody has to wait for it any more.
                open_link.settle();
            }
            tokio::select! {
                Ok(()) = changes.changed(), if is_known => {}
                () = queue.body_gone() => return,
                () = dropped(&mut listens) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_is_as_long_as_links_are_taken() {
        let health = Arc::new(Health::default());
        assert!(!health.is_serving());
        let serving = health.begin();
        assert!(health.is_serving());
        drop(serving);
        assert!(!health.is_serving());
    }
}
