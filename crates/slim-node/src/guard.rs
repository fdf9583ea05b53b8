//! The policy as one link meets it.
//!
//! What a link says to one name has the same header for as long as it uses the same
//! token, so most publishes cost a comparison here, the others one look-up, and only a
//! name that is new to the link has the rules read.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use slim_auth::Shown;
use slim_link::Principal;
use slim_proto::{Frame, RouteName, RoutedFrame};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::warn;

use crate::policy::{Action, Decision, Grants, Policy};

/// Decisions that are kept for a link, some 100 bytes each. When there are more, they are
/// made again.
const MAX_KEPT: usize = 1024;

/// How often at most the log has what a link was denied.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// A link's share of the policy.
#[derive(Debug)]
pub(crate) struct Guard {
    principals: Arc<[Principal]>,
    policies: watch::Receiver<Arc<Policy>>,
    policy: Arc<Policy>,
    grants: Grants,
    kept: HashMap<(Action, RouteName), bool>,
    /// Whether the last publish was allowed.
    last: bool,
    /// When a denial was last logged, and those since.
    logged: Option<Instant>,
    unlogged: u64,
}

/// Something that the policy does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Denied {
    action: Action,
    name: RouteName,
}

impl Guard {
    pub(crate) fn new(
        mut policies: watch::Receiver<Arc<Policy>>,
        principals: Arc<[Principal]>,
    ) -> Self {
        let policy = Arc::clone(&policies.borrow_and_update());
        let grants = Grants::new(&policy, &principals);
        Self {
            principals,
            policies,
            policy,
            grants,
            kept: HashMap::new(),
            last: false,
            logged: None,
            unlogged: 0,
        }
    }

    /// Waits for another policy, and takes it. Cancel safe.
    pub(crate) async fn changed(&mut self) {
        if self.policies.changed().await.is_err() {
            // The node is ending, and nothing will be changed any more.
            return std::future::pending().await;
        }
        self.policy = Arc::clone(&self.policies.borrow_and_update());
        self.grants = Grants::new(&self.policy, &self.principals);
        self.kept.clear();
        self.last = false;
    }

    /// Whether a frame may go on.
    ///
    /// # Errors
    /// What is not allowed.
    pub(crate) fn check(&mut self, frame: &Frame) -> Result<(), Denied> {
        match frame {
            Frame::Subscribe(frame) => self.allowed(Action::Subscribe, frame.header().destination),
            Frame::Publish(frame) => self.check_publish(frame),
            // Who withdraws something, or answers, takes nothing.
            Frame::Unsubscribe(_) | Frame::SubscriptionAck(_) | Frame::Link(_) => Ok(()),
        }
    }

    /// To whom, and in whose name: what one may not have is not one's own.
    fn check_publish(&mut self, frame: &RoutedFrame) -> Result<(), Denied> {
        if frame.repeats() && self.last {
            return Ok(());
        }
        let header = frame.header();
        let checked = self
            .allowed(Action::Publish, header.destination)
            .and_then(|()| self.allowed(Action::Subscribe, header.source));
        self.last = checked.is_ok();
        checked
    }

    fn allowed(&mut self, action: Action, name: RouteName) -> Result<(), Denied> {
        let allowed = match self.kept.get(&(action, name)) {
            Some(allowed) => *allowed,
            None => {
                let allowed = self.may(action, &name);
                if self.kept.len() >= MAX_KEPT {
                    self.kept.clear();
                }
                self.kept.insert((action, name), allowed);
                allowed
            }
        };
        if allowed { Ok(()) } else { Err(Denied { action, name }) }
    }

    /// Whether the policy allows something, asked anew.
    pub(crate) fn may(&self, action: Action, name: &RouteName) -> bool {
        self.grants.allows(&self.policy, action, name).is_some()
    }

    /// Says in words what was denied and why, for whoever asked.
    pub(crate) fn reason(&self, denied: &Denied) -> String {
        let who = self.who();
        format!("not allowed: {who} may not {} this name", denied.action)
    }

    /// Logs a denial, unless another one of this link was logged just now.
    pub(crate) fn log(&mut self, denied: &Denied, frame: &RoutedFrame, now: Instant) {
        if self.logged.is_some_and(|logged| now < logged + LOG_INTERVAL) {
            self.unlogged += 1;
            return;
        }
        let decision: Decision = self.policy.decide(&self.principals, denied.action, &denied.name);
        let header = frame.header();
        let is_source = denied.name == header.source && denied.name != header.destination;
        let name = if is_source { frame.source() } else { frame.destination() };
        // Whoever denied it knows the route, and whoever asked chose the text.
        let name = name.to_string();
        let name = Shown::new(&name);
        let what = match denied.action {
            Action::Publish => "publish to",
            Action::Subscribe if is_source => "publish in the name of",
            Action::Subscribe => "subscribe to",
        };
        let (who, more) = (self.who(), std::mem::take(&mut self.unlogged));
        warn!(principal = who, what, %name, rule = %decision, more, "denied by the policy");
        self.logged = Some(now);
    }

    /// Whose link it is.
    pub(crate) fn who(&self) -> String {
        let names: Vec<String> = self.principals.iter().map(ToString::to_string).collect();
        if names.is_empty() { "who has shown nothing".to_owned() } else { names.join(", ") }
    }
}
