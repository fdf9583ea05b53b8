//! The driver: one task per link reads frames, lets the router decide, queues.
//!
//! A task queues everything it could read at once for all subscribers, then wakes
//! their writers, then waits for those whose queue was full, all of them at the
//! same time. So a slow subscriber delays nobody's copy of the frames that were
//! read together with its own; it delays what its publishers send next, by
//! [`NodeConfig::slow_subscriber_grace`] at most, and is shed then. Who asks faster
//! than it reads the answers delays itself, for as long at most.
//!
//! A task that panics takes its own link with it, routes included, and no other.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use futures_util::future::join_all;
use indexmap::IndexMap;
use opentelemetry::global::BoxedSpan;
use slim_link::{
    AcceptConfig, AcceptedLink, Certificates, Drops, Endpoint, FrameReader, LinkEnd, ListenError,
    Listener, PeerAdmission, Principal, PushError,
};
use slim_proto::{ConnectionType, Frame, Message, RoutedFrame, SubscriptionAck};
use tokio::sync::watch;
use tokio::task::{JoinSet, yield_now};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{Instrument, debug, info, info_span, trace, warn};

use crate::admin::Admin;
use crate::dialler::Dialler;
use crate::guard::{Denied, Guard};
use crate::links::Links;
use crate::mesh::{Side, Target};
use crate::metrics::{Counter, Metrics, Tally};
use crate::peering::{self, Peering};
use crate::policy::{Action, Policy, PolicyHandle};
use crate::rate::Rate;
use crate::router::{Routed, Subscriptions, route};
use crate::subscriber::{About, Full, Subscriber};
use crate::telemetry::{self, Reports, Tracing};
use crate::view::View;
use crate::{NodeConfig, NodeLimits, RouteTable};

/// Copies that a task queues before it wakes the writers and lets other tasks run:
/// some ten milliseconds of work. Fewer make more, smaller writes of it; with 128
/// subscribers a quarter of this costs a fifth more.
const COPIES_PER_TURN: usize = 16 * 1024;

/// Frames of a batch whose memory is not kept for the next one.
const FEW_FRAMES: usize = 8;

/// Routes that a lost link's task removes before it lets other tasks run.
const ROUTES_PER_TURN: usize = 4096;

/// A node that listens. [`Node::run`] makes it work.
#[derive(Debug)]
pub struct Node {
    listeners: Vec<Listener>,
    local_addrs: Vec<SocketAddr>,
    config: NodeConfig,
    admin: Option<Admin>,
    shared: Arc<Shared>,
}

/// The node cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// No address is configured.
    #[error("no address to listen on")]
    NoAddress,
    /// The address is in use, not this machine's, or not allowed, or its certificates
    /// cannot be used.
    #[error("cannot listen on {endpoint}: {source}")]
    Listen {
        /// The address.
        endpoint: Endpoint,
        /// What is wrong.
        source: ListenError,
    },
    /// The same of [`NodeConfig::admin`].
    #[error("cannot listen on {address} for --admin: {source}")]
    Admin {
        /// The address.
        address: SocketAddr,
        /// What is wrong.
        source: io::Error,
    },
}

impl Node {
    /// Listens on all of [`NodeConfig::listen`]. Peers can connect from now on and
    /// are served once [`Self::run`] is called, so call it soon.
    ///
    /// # Errors
    /// See [`BindError`]. Nothing is listened on then.
    pub async fn bind(config: NodeConfig) -> Result<Self, BindError> {
        if config.listen.is_empty() {
            return Err(BindError::NoAddress);
        }
        let mut listeners = Vec::new();
        let mut local_addrs = Vec::new();
        for listen in &config.listen {
            let failed = |source| BindError::Listen { endpoint: listen.endpoint.clone(), source };
            let listener = Listener::bind(listen).map_err(failed)?;
            if let Endpoint::Tcp(addr) = listener.endpoint() {
                local_addrs.push(*addr);
            }
            listeners.push(listener);
        }
        let admin = match config.admin {
            None => None,
            Some(address) => {
                let failed = |source| BindError::Admin { address, source };
                Some(Admin::bind(address).await.map_err(failed)?)
            }
        };
        let table = Arc::new(RouteTable::new());
        let links = Arc::new(Links::default());
        let mesh = config.peers.as_ref().map(|peers| Arc::new(peering::mesh(peers, &table)));
        let metrics = Metrics::new(Arc::clone(&table), Arc::clone(&links), mesh.clone());
        let metrics = Arc::new(metrics);
        let peering = config.peers.as_ref().zip(mesh).map(|(peers, mesh)| {
            Arc::new(Peering::new(&config.node_id, peers, mesh, Arc::clone(&metrics)))
        });
        let shared = Shared {
            metrics,
            peering,
            table,
            turns: AtomicU64::new(0),
            links,
            limits: NodeLimits::new(&config),
            policies: config.policy.clone().map(|policy| watch::Sender::new(Arc::new(policy))),
            tracing: config.telemetry.then(Tracing::new),
        };
        Ok(Self { listeners, local_addrs, config, admin, shared: Arc::new(shared) })
    }

    /// The addresses listened on, with real ports, in the order of
    /// [`NodeConfig::listen`].
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.local_addrs
    }

    /// All that is listened on, with real ports, in the order of
    /// [`NodeConfig::listen`].
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.listeners.iter().map(Listener::endpoint)
    }

    /// Certificates that it shows, to be read again while it runs.
    pub fn certificates(&self) -> Vec<Certificates> {
        self.listeners.iter().filter_map(Listener::certificates).collect()
    }

    /// The node's counters. They can be read while it runs and afterwards.
    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.shared.metrics)
    }

    /// Its policy, to be replaced while it runs, if [`NodeConfig::policy`] gives one.
    pub fn policy(&self) -> Option<PolicyHandle> {
        self.shared.policies.clone().map(PolicyHandle)
    }

    /// Its limits, to be changed while it runs.
    pub fn limits(&self) -> NodeLimits {
        self.shared.limits.clone()
    }

    /// Where it can be looked at, with the real port, if [`NodeConfig::admin`] says so.
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(Admin::local_addr)
    }

    /// Serves links until `shutdown`, then stops listening, sends what is queued and
    /// ends the links in good order, so that applications connect again elsewhere.
    /// Takes [`NodeConfig::drain_timeout`] at most for that, and no time for links
    /// that have nothing queued. Dropping the future cuts all links at once.
    ///
    /// # Errors
    /// If the server ends before `shutdown`.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) -> io::Result<()> {
        let Self { shared, config, listeners, admin, .. } = self;
        let accept = shared.accept(&config);
        let view = View {
            metrics: Arc::clone(&shared.metrics),
            table: Arc::clone(&shared.table),
            links: Arc::clone(&shared.links),
            health: Arc::clone(&accept.health),
            limits: shared.limits.clone(),
            began_at: SystemTime::now(),
        };
        let (stop, stopping) = watch::channel(false);
        let mut diallers = JoinSet::new();
        for dialler in shared.diallers(&config) {
            diallers.spawn(dialler.run(stopping.clone()));
        }
        let shutdown = async {
            shutdown.await;
            stop.send_replace(true);
        };
        let on_link = move |link: AcceptedLink| Arc::clone(&shared).serve(link, false);
        let serving = async {
            let result = slim_link::serve(listeners, accept, on_link, shutdown).await;
            stop.send_replace(true);
            // They have begun to end when the others did.
            let ended = async { while diallers.join_next().await.is_some() {} };
            timeout(config.drain_timeout, ended).await.unwrap_or(());
            result
        };
        let reports = match config.telemetry {
            true => Some(Reports::start(&config.node_id, view.clone()).await),
            false => None,
        };
        let mut reporting = JoinSet::new();
        if let Some(reports) = reports.clone() {
            reporting.spawn(reports.run());
        }
        let admin = async {
            match admin {
                Some(admin) => admin.run(view).await,
                None => std::future::pending().await,
            }
        };
        // To the end: who asks while the node drains is told that it does.
        let result = tokio::select! {
            result = serving => result,
            never = admin => match never {},
        };
        reporting.shutdown().await;
        if let Some(reports) = reports {
            reports.end().await;
        }
        result
    }
}

/// What the links' tasks share.
#[derive(Debug)]
pub(crate) struct Shared {
    table: Arc<RouteTable<Subscriber>>,
    metrics: Arc<Metrics>,
    peering: Option<Arc<Peering>>,
    /// Numbers turns; see [`Subscriber::touch`]. 0 is none.
    turns: AtomicU64,
    links: Arc<Links>,
    limits: NodeLimits,
    policies: Option<watch::Sender<Arc<Policy>>>,
    tracing: Option<Tracing>,
}

/// Who opens a link, for the log.
struct Principals<'a>(&'a [Principal]);

impl fmt::Display for Principals<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        self.0.iter().enumerate().try_for_each(|(index, principal)| {
            write!(f, "{}{principal}", if index == 0 { "" } else { ", " })
        })
    }
}

impl Shared {
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    fn accept(&self, config: &NodeConfig) -> AcceptConfig {
        let accept = AcceptConfig {
            counters: self.metrics.accepted(),
            limits: Arc::clone(self.limits.accept()),
            ..config.accept()
        };
        let Some(peering) = self.peering.clone() else { return accept };
        AcceptConfig {
            deployment_name: peering.group().to_owned(),
            peers: PeerAdmission::new(move |peer, principals| peering.admit(peer, principals)),
            ..accept
        }
    }

    fn diallers(self: &Arc<Self>, config: &NodeConfig) -> Vec<Dialler> {
        let (Some(peering), Some(peers)) = (&self.peering, &config.peers) else {
            return Vec::new();
        };
        let dialler = |peer| Dialler::new(self, peering, config, peer);
        peers.peers.iter().filter_map(dialler).collect()
    }

    /// What keeps a link to the policy, if there is one.
    fn guard(&self, side: &Side<Subscriber>, is_dialled: bool) -> Option<Box<Guard>> {
        let principals = &side.link().about().info.principals;
        // A peer speaks for its applications, and has asked its own policy. It is one if we
        // have dialled it, or if it has shown that it is the one that we know.
        let is_peer = matches!(side, Side::Peer { .. }) && (is_dialled || !principals.is_empty());
        let policies = self.policies.as_ref().filter(|_| !is_peer)?;
        Some(Box::new(Guard::new(policies.subscribe(), Arc::clone(principals))))
    }

    /// Not an `async fn`, whose future would keep room for all of `link` besides what is
    /// made of it: a node has many links.
    pub(crate) fn serve(
        self: Arc<Self>,
        link: AcceptedLink,
        is_dialled: bool,
    ) -> impl Future<Output = ()> + Send {
        let AcceptedLink { info, frames, outbound } = link;
        let number = self.links.number();
        let span = info_span!("link", number, peer = %info.peer_addr);
        let is_peer = info.connection_type == ConnectionType::Peer;
        span.in_scope(|| {
            info!(
                node_id = info.node_id,
                link_id = info.link_id,
                version = info.slim_version,
                principals = %Principals(&info.principals),
                mac = info.has_mac,
                "link up"
            );
        });
        let about = About { number, info, since: SystemTime::now() };
        let peer = self.peering.as_ref().filter(|_| is_peer);
        let (side, membership) = match peer {
            Some(peering) => peering.join(about, outbound, is_dialled).unzip(),
            None => {
                let link = Arc::new(Subscriber::new(outbound, about));
                let routes = self.table.attach(link, 0);
                let mesh = self.peering.as_ref().map(|peering| Arc::clone(peering.mesh()));
                (Some(Side::App { routes, mesh }), None)
            }
        };
        let task = side.map(|side| {
            let guard = self.guard(&side, is_dialled);
            Box::new(LinkTask::new(Arc::clone(&self), frames, side, guard))
        });
        let shown = task.as_ref().map(|task| self.links.enter(task.side.link()));
        let work = async move {
            let _shown = shown;
            let Some(mut task) = task else {
                info!("link closed, for there is another one to this peer");
                return;
            };
            let end = match &membership {
                None => task.run().await,
                Some(membership) => {
                    tokio::select! {
                        end = task.run() => end,
                        never = membership.announce() => match never {},
                    }
                }
            };
            info!(%end, "link down");
        };
        work.instrument(span)
    }
}

/// One link's task.
struct LinkTask {
    shared: Arc<Shared>,
    frames: FrameReader,
    side: Side<Subscriber>,
    tally: Tally,
    /// What the reader has dropped as far as it is counted.
    drops: Drops,
    rate: Option<Rate>,
    /// None without a policy.
    guard: Option<Box<Guard>>,
}

/// What is queued but not yet sent off.
#[derive(Default)]
struct Turn<'f> {
    number: u64,
    copies: usize,
    targets: Vec<Arc<Subscriber>>,
    /// Links with something new in their queue.
    touched: Vec<Arc<Subscriber>>,
    /// Links whose queue was full, by address, and the frames for them, from the
    /// first that did not fit: what a link gets from another stays in order.
    behind: IndexMap<usize, (Arc<Subscriber>, Vec<&'f RoutedFrame>)>,
    /// Of what is queued in this turn; they end with it.
    spans: Vec<BoxedSpan>,
}

impl LinkTask {
    fn new(
        shared: Arc<Shared>,
        frames: FrameReader,
        side: Side<Subscriber>,
        guard: Option<Box<Guard>>,
    ) -> Self {
        let drops = frames.drops();
        Self { shared, frames, side, tally: Tally::default(), drops, rate: None, guard }
    }

    /// Serves the link until it ends.
    async fn run(&mut self) -> LinkEnd {
        let mut batch = Vec::new();
        let end = loop {
            let read = match &mut self.guard {
                None => self.frames.read_batch(&mut batch).await,
                Some(guard) => tokio::select! {
                    biased;
                    () = guard.changed() => {
                        self.withdraw();
                        continue;
                    }
                    read = self.frames.read_batch(&mut batch) => read,
                },
            };
            self.follow_limits();
            let received = self.count_received(&batch);
            self.handle(&batch).await;
            let rate = self.rate.as_mut();
            let pause = rate.and_then(|rate| rate.spend(received, Instant::now()));
            self.tally.add(Counter::Throttled, pause.iter().count());
            self.shared.metrics.take(&mut self.tally);
            // Who sends little keeps no memory: most links are idle most of the time.
            match batch.len() {
                0..FEW_FRAMES => batch = Vec::new(),
                _ => batch.clear(),
            }
            if let Err(end) = read {
                break end;
            }
            match pause {
                // A link that ends meanwhile does so at once.
                Some(until) => timeout_at(until, self.frames.closed()).await.unwrap_or(()),
                // A peer that always has more must not keep this thread for itself;
                // and while others run, more arrives to be handled together.
                None => yield_now().await,
            }
        };
        while self.side.release(ROUTES_PER_TURN) {
            yield_now().await;
        }
        end
    }

    /// They may be others than they were.
    fn follow_limits(&mut self) {
        let limits = &self.shared.limits;
        self.side.set_limit(limits.max_subscriptions_per_link());
        // What a peer passes on was measured where it came from.
        let is_peer = self.side.link().peer().is_some();
        let rate = limits.max_messages_per_second().filter(|_| !is_peer);
        if self.rate.as_ref().map(Rate::per_second) != rate {
            self.rate = rate.map(Rate::new);
        }
    }

    /// How many messages have come.
    fn count_received(&mut self, batch: &[Frame]) -> usize {
        let drops = self.frames.drops();
        let malformed = (drops.malformed - self.drops.malformed) as usize;
        let bad_mac = (drops.bad_mac - self.drops.bad_mac) as usize;
        if malformed + bad_mac > 0 {
            debug!(malformed, bad_mac, "messages dropped");
        }
        self.drops = drops;
        self.tally.add(Counter::Malformed, malformed);
        self.tally.add(Counter::BadMac, bad_mac);
        let received = batch.len() + malformed + bad_mac;
        self.tally.add(Counter::Received, received);
        let bytes = batch.iter().map(|frame| frame.bytes().len()).sum();
        self.tally.add(Counter::ReceivedBytes, bytes);
        self.side.link().received().add(received, bytes);
        received
    }

    async fn handle(&mut self, batch: &[Frame]) {
        let mut turn = self.new_turn();
        for frame in batch {
            if let Some(answer) = self.handle_frame(frame, &mut turn) {
                self.end_turn(turn).await;
                self.answer_slowly(&answer).await;
                turn = self.new_turn();
            }
            if turn.copies >= COPIES_PER_TURN {
                self.end_turn(turn).await;
                yield_now().await;
                turn = self.new_turn();
            }
        }
        self.end_turn(turn).await;
    }

    fn new_turn<'f>(&self) -> Turn<'f> {
        let number = self.shared.turns.fetch_add(1, Ordering::Relaxed) + 1;
        Turn { number, ..Turn::default() }
    }

    /// Queues what follows from one frame. Gives the answer back for which there is
    /// no room.
    #[must_use]
    fn handle_frame<'f>(&mut self, frame: &'f Frame, turn: &mut Turn<'f>) -> Option<Box<Message>> {
        if let Some(denied) = self.guard.as_mut().and_then(|guard| guard.check(frame).err()) {
            return self.deny(frame, &denied, turn);
        }
        let mut span = match (&self.shared.tracing, frame) {
            (Some(tracing), Frame::Publish(frame)) => tracing.begin(frame, self.link_number()),
            _ => None,
        };
        turn.targets.clear();
        let mesh = self.shared.peering.as_ref().map(|peering| &**peering.mesh());
        match route(frame, &self.shared.table, mesh, &mut self.side, &mut turn.targets) {
            Ok(Routed::Done) => self.show(frame),
            Ok(Routed::Answer(ack)) => {
                if ack.result.is_ok() {
                    self.show(frame);
                }
                return self.answer(ack, turn);
            }
            Ok(Routed::Forward(frame, outgoing)) => {
                let header = frame.header();
                let copies = turn.targets.len();
                trace!(source = %header.source.id, destination = %header.destination.id, copies, "publish");
                turn.copies += copies;
                span.iter_mut().for_each(|span| telemetry::forwarded(span, copies));
                turn.spans.extend(span);
                for link in turn.targets.drain(..) {
                    let key = Arc::as_ptr(&link).addr();
                    if let Some((_, frames)) = turn.behind.get_mut(&key) {
                        frames.push(frame);
                    } else if let Err(Full) = link.push(&outgoing, &mut self.tally) {
                        turn.behind.insert(key, (link, vec![frame]));
                    } else if link.touch(turn.number) {
                        turn.touched.push(link);
                    }
                }
            }
            Err(reason) => {
                trace!(?reason, "dropped");
                span.iter_mut().for_each(|span| telemetry::dropped(span, reason));
                self.tally.add(reason, 1);
            }
        }
        None
    }

    fn link_number(&self) -> u64 {
        self.side.link().about().number
    }

    /// Tells whoever subscribes; who publishes is never told.
    fn deny(
        &mut self,
        frame: &Frame,
        denied: &Denied,
        turn: &mut Turn<'_>,
    ) -> Option<Box<Message>> {
        let (guard, routed) = (self.guard.as_mut()?, frame.routed()?);
        guard.log(denied, routed, Instant::now());
        let reason = guard.reason(denied);
        if !matches!(frame, Frame::Subscribe(_)) {
            self.tally.add(Counter::Denied, 1);
            return None;
        }
        self.tally.add(Counter::DeniedSubscriptions, 1);
        match routed.subscription_id() {
            0 => None,
            subscription_id => {
                self.answer(SubscriptionAck { subscription_id, result: Err(reason) }, turn)
            }
        }
    }

    /// Takes from the link what a new policy does not let it have.
    fn withdraw(&mut self) {
        let Some(guard) = &self.guard else { return };
        let gone = self.side.withdraw(|name| guard.may(Action::Subscribe, name));
        let (names, total) = (self.side.link().names(), self.side.names());
        for name in &gone {
            names.remove(*name, total);
        }
        if !gone.is_empty() {
            let who = guard.who();
            warn!(principal = who, names = gone.len(), "subscriptions withdrawn by the new policy");
        }
        self.tally.add(Counter::WithdrawnSubscriptions, gone.len());
        self.shared.metrics.take(&mut self.tally);
    }

    /// Shows what a subscription has changed.
    fn show(&self, frame: &Frame) {
        let (Frame::Subscribe(routed) | Frame::Unsubscribe(routed)) = frame else { return };
        let name = routed.header().destination;
        let (names, total) = (self.side.link().names(), self.side.names());
        match self.side.has(&name) {
            true => names.add(name, total, || routed.destination()),
            false => names.remove(name, total),
        }
    }

    /// Queues an ack in front of all data, or gives it back if there is no room.
    fn answer(&mut self, ack: SubscriptionAck, turn: &mut Turn<'_>) -> Option<Box<Message>> {
        if let Err(reason) = &ack.result {
            debug!(subscription_id = ack.subscription_id, %reason, "subscription refused");
            self.tally.add(Counter::RefusedSubscriptions, 1);
        }
        let (link, ack) = (self.side.link(), Message::SubscriptionAck(ack));
        match link.outbound().try_push_control(&ack) {
            Ok(()) if link.touch(turn.number) => turn.touched.push(Arc::clone(link)),
            Ok(()) | Err(PushError::Closed) => {}
            Err(PushError::Full) => return Some(Box::new(ack)),
        }
        None
    }

    /// Waits until the peer has read what it was answered before.
    async fn answer_slowly(&mut self, answer: &Message) {
        debug!("waiting for answers to be read");
        let tally = self.side.link().answer_slowly(answer, self.shared.limits.grace().period).await;
        self.tally.merge(&tally);
    }

    /// Wakes the writers, then waits for those that are behind.
    async fn end_turn(&mut self, turn: Turn<'_>) {
        for link in turn.touched {
            link.outbound().wake();
        }
        if turn.behind.is_empty() {
            return;
        }
        debug!(links = turn.behind.len(), "waiting for slow subscribers");
        let grace = self.shared.limits.grace();
        let waits = turn.behind.values().map(|(link, frames)| link.push_slowly(frames, grace));
        for tally in join_all(waits).await {
            self.tally.merge(&tally);
        }
    }
}
