//! A node in this process, and clients of two kinds: [`Client`] speaks through
//! `slim-link`, [`RawStream`] has an implementation of its own and can misbehave.

mod raw;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use slim_link::{DialConfig, LinkEnd, LinkReceiver, LinkSender, dial};
use slim_node::{Endpoint, Metrics, MetricsSnapshot, Node, NodeConfig, PolicyHandle};
use slim_proto::{
    AppPayload, BROADCAST, Body, Header, Message, Name, NameId, Publish, SessionId, SessionType,
    Subscription, SubscriptionAck, UNICAST,
};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub(crate) use raw::{End, RawConnection, RawStream};

/// Waits for what must happen. The limit only ends a test that has failed.
pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("in time")
}

/// A configuration for tests: any free port of this machine.
pub(crate) fn config() -> NodeConfig {
    NodeConfig {
        listen: vec![SocketAddr::from(([127, 0, 0, 1], 0)).into()],
        ..NodeConfig::default()
    }
}

/// A running node.
pub(crate) struct TestNode {
    pub(crate) addr: SocketAddr,
    /// All that it listens on.
    pub(crate) endpoints: Vec<Endpoint>,
    /// Of a node that has one.
    pub(crate) admin: Option<SocketAddr>,
    /// Of a node that has one.
    pub(crate) policy: Option<PolicyHandle>,
    metrics: std::sync::Arc<Metrics>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<std::io::Result<()>>,
}

impl TestNode {
    pub(crate) async fn start() -> Self {
        Self::start_with(config()).await
    }

    pub(crate) async fn start_with(config: NodeConfig) -> Self {
        let node = Node::bind(config).await.unwrap();
        let addr = node.local_addrs()[0];
        let endpoints = node.endpoints().cloned().collect();
        let admin = node.admin_addr();
        let (metrics, policy) = (node.metrics(), node.policy());
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(node.run(async {
            stopped.await.ok();
        }));
        Self { addr, endpoints, admin, policy, metrics, stop: Some(stop), task }
    }

    pub(crate) fn metrics(&self) -> MetricsSnapshot {
        self.metrics.snapshot()
    }

    /// Waits until the counters are as wanted; what the node does after the last
    /// message that a test can see is seen here.
    pub(crate) async fn until(&self, wanted: impl Fn(&MetricsSnapshot) -> bool) {
        let reached = async {
            while !wanted(&self.metrics()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(20), reached).await.is_err() {
            panic!("never reached; now {:?}", self.metrics());
        }
    }

    /// Tells the node to stop.
    pub(crate) fn stop(&mut self) {
        self.stop.take();
    }

    /// Waits until [`Node::run`] has returned.
    pub(crate) async fn ended(self) -> MetricsSnapshot {
        within(self.task).await.unwrap().unwrap();
        self.metrics.snapshot()
    }
}

/// `org/ns/<app>` with an id.
pub(crate) fn name(app: &str, id: u128) -> Name {
    format!("org/ns/{app}").parse::<Name>().unwrap().with_id(NameId(id))
}

/// `org/ns/<app>`, any instance.
pub(crate) fn any(app: &str) -> Name {
    name(app, 0).without_id()
}

pub(crate) fn ok(subscription_id: u64) -> SubscriptionAck {
    SubscriptionAck { subscription_id, result: Ok(()) }
}

pub(crate) fn refused(subscription_id: u64, reason: &str) -> SubscriptionAck {
    SubscriptionAck { subscription_id, result: Err(reason.to_owned()) }
}

pub(crate) fn subscription(name: &Name, subscription_id: u64) -> Subscription {
    let header = Header::new(name.clone(), name.clone(), UNICAST);
    Subscription { header, subscription_id }
}

/// A message that says `text`.
pub(crate) fn publish(header: Header, text: impl Into<Bytes>) -> Message {
    Message::Publish(Publish {
        header,
        session_type: SessionType::Multicast,
        session_id: SessionId(7),
        message_id: 1,
        body: Body::Msg(AppPayload { payload_type: "msg".to_owned(), blob: text.into() }),
        metadata: BTreeMap::new(),
    })
}

/// What a message says.
pub(crate) fn text(message: &Message) -> String {
    match message {
        Message::Publish(Publish { body: Body::Msg(payload), .. }) => {
            String::from_utf8_lossy(&payload.blob).into_owned()
        }
        other => panic!("not a message with data: {other:?}"),
    }
}

/// A well-behaved application.
pub(crate) struct Client {
    pub(crate) sender: LinkSender,
    pub(crate) receiver: LinkReceiver,
    pub(crate) name: Name,
}

impl Client {
    /// A link that has subscribed to its own name.
    pub(crate) async fn start(node: &TestNode, app: &str, id: u128) -> Self {
        let mut client = Self::connect(node, app, id).await;
        assert_eq!(client.subscribe(&name(app, id), 1000).await, ok(1000));
        client
    }

    /// A link without subscriptions.
    pub(crate) async fn connect(node: &TestNode, app: &str, id: u128) -> Self {
        Self::connect_with(node, app, id, &DialConfig::default()).await
    }

    pub(crate) async fn connect_with(
        node: &TestNode,
        app: &str,
        id: u128,
        config: &DialConfig,
    ) -> Self {
        let target = node.addr.to_string().parse().unwrap();
        let link = within(dial(&target, config)).await.unwrap();
        let (sender, receiver) = link.split();
        Self { sender, receiver, name: name(app, id) }
    }

    pub(crate) async fn send(&self, message: &Message) {
        within(self.sender.send(message)).await.unwrap();
    }

    pub(crate) async fn subscribe(&mut self, name: &Name, id: u64) -> SubscriptionAck {
        self.send(&Message::Subscribe(subscription(name, id))).await;
        self.next_ack().await
    }

    pub(crate) async fn unsubscribe(&mut self, name: &Name, id: u64) -> SubscriptionAck {
        self.send(&Message::Unsubscribe(subscription(name, id))).await;
        self.next_ack().await
    }

    pub(crate) fn header(&self, destination: &Name, fanout: u32) -> Header {
        Header::new(self.name.clone(), destination.clone(), fanout)
    }

    /// To one subscriber.
    pub(crate) async fn tell(&self, destination: &Name, text: &str) {
        self.send(&publish(self.header(destination, UNICAST), text.to_owned())).await;
    }

    /// To all subscribers.
    pub(crate) async fn tell_all(&self, destination: &Name, text: &str) {
        self.send(&publish(self.header(destination, BROADCAST), text.to_owned())).await;
    }

    pub(crate) async fn next(&mut self) -> Message {
        within(self.receiver.recv()).await.unwrap()
    }

    pub(crate) async fn next_text(&mut self) -> String {
        text(&self.next().await)
    }

    pub(crate) async fn next_ack(&mut self) -> SubscriptionAck {
        match self.next().await {
            Message::SubscriptionAck(ack) => ack,
            other => panic!("not an ack: {other:?}"),
        }
    }

    /// Waits until the link has ended.
    pub(crate) async fn end(&mut self) -> LinkEnd {
        loop {
            if let Err(end) = within(self.receiver.recv()).await {
                return end;
            }
        }
    }

    /// Whatever of `from` was to come here has come, and nothing more: what is sent
    /// now is next. Order from one link to another is kept, so this proves a silence.
    pub(crate) async fn has_nothing_from(&mut self, from: &Self) {
        from.tell(&self.name, "fence").await;
        assert_eq!(self.next_text().await, "fence");
    }
}
