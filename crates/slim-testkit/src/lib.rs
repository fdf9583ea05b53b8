//! For tests only: a node and its clients in one process, between them a network
//! that is [`lossy`], and in [`sim`] their engines alone, under a clock that only
//! moves when told.
//!
//! Nothing here waits without a deadline: what does not happen within
//! [`DEADLINE`] fails the test, and says what it was.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use slim_auth::Users;
use slim_client::{Authorization, Client, ReceivedMessage, Session, SessionEvent};
use slim_node::{
    Endpoint, LinkAuth, ListenConfig, Metrics, MetricsSnapshot, NamePattern, Node, NodeConfig,
    Policy, Rule,
};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::lossy::Loss;

pub mod agent;
pub mod collector;
pub mod holding;
pub mod lossy;
pub mod relay;
pub mod sim;
pub mod talk;

/// Everything that a test waits for has to happen within this time.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// How often counters are looked at.
const METRICS_POLL: Duration = Duration::from_millis(5);

/// The secret that all clients share unless a test says otherwise.
pub const SECRET: &str = "a secret of at least thirty-two bytes";

/// What the users of [`Cluster::with_policy`] show.
pub const PASSWORD: &str = "a password";

/// Waits for something, but not for ever.
///
/// # Panics
/// If it does not happen within [`DEADLINE`].
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not happen within {} s", DEADLINE.as_secs()),
    }
}

/// A node in this process.
#[derive(Debug)]
pub struct Cluster {
    config: NodeConfig,
    running: Option<Running>,
    /// Where clients connect, if not directly.
    proxy: Option<SocketAddr>,
}

#[derive(Debug)]
struct Running {
    metrics: Arc<Metrics>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Cluster {
    /// Starts a node on a free port.
    ///
    /// # Panics
    /// If it cannot listen.
    pub async fn start() -> Self {
        Self::start_with(NodeConfig::default()).await
    }

    /// A configuration for a node that lets in these users, each with [`PASSWORD`], and
    /// keeps them to a policy: each has the name `org/test/USER` and the channel
    /// `org/test/channel`, and may send to both, and to those who have them. Who is in
    /// `strangers` has an own name, too, and may send to everybody's, but has no channel.
    ///
    /// # Panics
    /// If there are no users.
    pub fn with_policy(users: &[&str], strangers: &[&str]) -> NodeConfig {
        let known = users.iter().chain(strangers).map(|user| (*user, PASSWORD));
        let auth = LinkAuth::Basic(Users::new(known).expect("users with passwords"));
        let names = |list: &[&str]| -> Vec<NamePattern> {
            list.iter().map(|text| text.parse().expect("a pattern")).collect()
        };
        let rule = |user: &str, channel: &[&str]| Rule {
            name: user.to_owned(),
            principals: vec![format!("basic:{user}").parse().expect("a principal")],
            issuer: None,
            subscribe: names(&[&[&*format!("org/test/{user}")], channel].concat()),
            publish: (users.iter().chain(strangers))
                .flat_map(|user| names(&[&format!("org/test/{user}")]))
                .chain(names(channel))
                .collect(),
        };
        let insiders = users.iter().map(|user| rule(user, &["org/test/channel"]));
        let rules = insiders.chain(strangers.iter().map(|user| rule(user, &[]))).collect();
        let listen = ListenConfig::from(SocketAddr::from(([127, 0, 0, 1], 0)));
        let listen = vec![ListenConfig { auth: Some(Arc::new(auth)), ..listen }];
        NodeConfig { listen, policy: Some(Policy { rules }), ..NodeConfig::default() }
    }

    /// What an application shows to a node that wants to know who it is.
    pub fn authorization(&self, app: &str) -> Option<Authorization> {
        self.config.listen[0].auth.as_ref()?;
        let header = slim_auth::basic(app, PASSWORD);
        Some(Authorization::new(move || Ok(header.clone())))
    }

    /// Starts such a node, but on a free port of this machine and without TLS.
    ///
    /// # Panics
    /// If it cannot listen.
    pub async fn start_with(config: NodeConfig) -> Self {
        let first = config.listen.into_iter().next();
        let endpoint = Endpoint::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)));
        let auth = first.and_then(|listen| listen.auth);
        let listen = vec![ListenConfig { auth, ..endpoint.into() }];
        let config = NodeConfig { listen, ..config };
        let mut cluster = Self { config, running: None, proxy: None };
        cluster.start_node().await;
        cluster
    }

    /// Starts the node, on the port that it had before.
    ///
    /// # Panics
    /// If it cannot listen.
    pub async fn start_node(&mut self) {
        let node = Node::bind(self.config.clone()).await.expect("the node listens");
        self.config.listen[0].endpoint = Endpoint::Tcp(node.local_addrs()[0]);
        let metrics = node.metrics();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            // A dropped sender stops it, too.
            let shutdown = async { drop(stopped.await) };
            node.run(shutdown).await.expect("the node runs");
        });
        self.running = Some(Running { metrics, stop, task });
    }

    /// Stops the node and waits until it is gone.
    ///
    /// # Panics
    /// If it does not stop.
    pub async fn stop_node(&mut self) {
        let Some(Running { stop, task, .. }) = self.running.take() else { return };
        // It may have stopped by itself.
        stop.send(()).ok();
        within("the end of the node", task).await.expect("the node does not panic");
    }

    /// Puts a network that loses messages between the node and the clients that come
    /// from now on.
    ///
    /// # Panics
    /// If it cannot listen.
    pub async fn lossy(&mut self) -> Arc<Loss> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        self.proxy = Some(listener.local_addr().expect("it listens"));
        let loss = Arc::new(Loss::default());
        tokio::spawn(lossy::serve(listener, self.addr(), Arc::clone(&loss)));
        loss
    }

    /// Where the node listens.
    pub fn addr(&self) -> SocketAddr {
        match self.config.listen[0].endpoint {
            Endpoint::Tcp(addr) => addr,
            ref other => unreachable!("{other} is not what it was started on"),
        }
    }

    /// What the running node has counted.
    ///
    /// # Panics
    /// If it is stopped.
    pub fn metrics(&self) -> MetricsSnapshot {
        self.running.as_ref().expect("a running node").metrics.snapshot()
    }

    /// Waits until the node's counters are as wanted.
    ///
    /// # Panics
    /// If they never are; says what they are.
    pub async fn until(&self, what: &str, wanted: impl Fn(&MetricsSnapshot) -> bool) {
        let reached = async {
            while !wanted(&self.metrics()) {
                sleep(METRICS_POLL).await;
            }
        };
        if timeout(DEADLINE, reached).await.is_err() {
            panic!("{what} never came true: {:?}", self.metrics());
        }
    }

    /// Where clients connect.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.proxy.unwrap_or_else(|| self.addr()))
    }

    /// A client `org/test/<app>` with [`SECRET`], which has telemetry if the node has.
    ///
    /// # Panics
    /// If it cannot connect.
    pub async fn client(&self, app: &str) -> Client {
        self.client_with(app, SECRET).await
    }

    /// A client `org/test/<app>` with another secret.
    ///
    /// # Panics
    /// If it cannot connect.
    pub async fn client_with(&self, app: &str, secret: &str) -> Client {
        let name = format!("org/test/{app}").parse().expect("a name");
        let mut builder = Client::builder(name).shared_secret(secret).expect("a long secret");
        builder = builder.telemetry(self.config.telemetry);
        if let Some(authorization) = self.authorization(app) {
            builder = builder.authorization(authorization);
        }
        within("connecting", builder.connect(&self.endpoint())).await.expect("a connection")
    }
}

/// The next session that somebody opens with a client.
///
/// # Panics
/// If none comes.
pub async fn next_session(client: &Client) -> Session {
    within("a session", client.listen_for_session()).await.expect("the client is open")
}

/// The next event of a session that is one of those wanted; others are skipped.
///
/// # Panics
/// If none comes, or the session ends before.
pub async fn wait_for<T>(
    what: &str,
    session: &Session,
    mut wanted: impl FnMut(SessionEvent) -> Option<T>,
) -> T {
    let search = async {
        loop {
            match session.next_event().await {
                Some(event) => match wanted(event) {
                    Some(found) => return found,
                    None => continue,
                },
                None => panic!("the session ended before {what}"),
            }
        }
    };
    within(what, search).await
}

/// The next so many messages of a session.
///
/// # Panics
/// If they do not come.
pub async fn messages(session: &Session, count: usize) -> Vec<ReceivedMessage> {
    let mut messages = Vec::new();
    while messages.len() < count {
        let message = wait_for("a message", session, |event| match event {
            SessionEvent::Message(message) => Some(message),
            _ => None,
        });
        messages.push(message.await);
    }
    messages
}
