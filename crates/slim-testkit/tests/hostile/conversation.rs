//! The victim: a group that talks while something is done to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rand::rng;
use slim_auth::SharedSecret;
use slim_client::{Client, ParticipantChange, Session, SessionConfig, SessionEvent};
use slim_node::NodeConfig;
use slim_proto::{Name, SessionId};
use slim_testkit::{Cluster, SECRET, messages, next_session, within};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// Who talks. The first moderates.
const MEMBERS: [&str; 3] = ["mod", "alice", "bob"];

/// What every message begins with, and nobody else may read.
pub(crate) const SECRET_WORDS: &str = "between you and me:";

/// Between two messages of one member, if the first had its outcome by then.
const PACE: Duration = Duration::from_millis(10);

/// Messages that each member publishes, at least, while something is done, before it
/// and after it.
const ROUNDS: u64 = 10;

/// A node, and a conversation on it.
pub(crate) struct Scene {
    pub(crate) cluster: Cluster,
    pub(crate) session: SessionId,
    /// The channel's name for data.
    pub(crate) channel: Name,
    pub(crate) clients: Vec<Client>,
    pub(crate) sessions: Vec<Session>,
    pub(crate) identities: Vec<Arc<SharedSecret>>,
    shared: Arc<Shared>,
    speakers: JoinSet<(usize, u64)>,
    listeners: JoinSet<Vec<Duration>>,
    /// How much each has said, once it says no more.
    said: watch::Sender<Option<Vec<u64>>>,
    /// The epoch in which it should be.
    epoch: AtomicU64,
}

struct Shared {
    started: Instant,
    stop: AtomicBool,
    /// Messages of each that everybody has.
    rounds: Vec<AtomicU64>,
}

/// Does something beside a conversation, which must not notice.
pub(crate) async fn beside_a_conversation(attack: impl AsyncFnOnce(&Scene)) {
    on_such_a_node(NodeConfig::default(), attack).await;
}

/// The same with another node.
pub(crate) async fn on_such_a_node(config: NodeConfig, attack: impl AsyncFnOnce(&Scene)) {
    let mut scene = Scene::start(config).await;
    scene.rounds(ROUNDS).await;
    attack(&scene).await;
    scene.rounds(ROUNDS).await;
    scene.finish().await;
}

impl Scene {
    pub(crate) async fn start(config: NodeConfig) -> Self {
        let cluster = Cluster::start_with(config).await;
        let mut identities = Vec::new();
        let mut clients = Vec::new();
        for member in MEMBERS {
            let (client, identity) = client(&cluster, member).await;
            identities.push(identity);
            clients.push(client);
        }
        let channel = "org/test/channel".parse().unwrap();
        let moderated = clients[0].create_group(channel, SessionConfig::default()).await.unwrap();
        let mut sessions = vec![moderated.clone()];
        for other in &clients[1..] {
            let name = other.name().without_id();
            let invited = within("an invitation", moderated.invite(&name)).await;
            assert_eq!(invited.as_ref(), Ok(other.name()));
            sessions.push(next_session(other).await);
        }
        let mut scene = Self {
            cluster,
            session: moderated.id(),
            channel: moderated.info().remote.clone(),
            epoch: AtomicU64::new(epoch(&moderated).await),
            shared: Arc::new(Shared {
                started: Instant::now(),
                stop: AtomicBool::new(false),
                rounds: MEMBERS.map(|_| AtomicU64::new(0)).into(),
            }),
            speakers: JoinSet::new(),
            listeners: JoinSet::new(),
            said: watch::Sender::new(None),
            clients,
            sessions,
            identities,
        };
        let names: Vec<Name> = scene.clients.iter().map(|client| client.name().clone()).collect();
        for (member, session) in scene.sessions.iter().enumerate() {
            let shared = Arc::clone(&scene.shared);
            scene.speakers.spawn(speak(member, session.clone(), names.clone(), shared));
            let said = scene.said.subscribe();
            let heard = listen(member, session.clone(), names.clone(), said, scene.shared.started);
            scene.listeners.spawn(heard);
        }
        scene
    }

    pub(crate) fn name(&self, member: usize) -> Name {
        self.clients[member].name().clone()
    }

    /// Waits until everybody has published so many more, and everybody has them.
    pub(crate) async fn rounds(&self, count: u64) {
        let rounds = || self.shared.rounds.iter().map(|rounds| rounds.load(Ordering::Relaxed));
        let goals: Vec<u64> = rounds().map(|rounds| rounds + count).collect();
        let reached = async {
            let mut pace = interval(PACE);
            while !rounds().zip(&goals).all(|(rounds, goal)| rounds >= *goal) {
                pace.tick().await;
            }
        };
        within("progress of the conversation", reached).await;
    }

    /// Somebody is invited, hears some of what is said, and is removed.
    pub(crate) async fn somebody_comes_and_goes(&self) {
        let (dan, _) = client(&self.cluster, "dan").await;
        within("joining", self.sessions[0].invite(dan.name())).await.unwrap();
        self.hears_and_goes(&dan).await;
    }

    /// Who was invited hears some of what is said, and is removed.
    pub(crate) async fn hears_and_goes(&self, newcomer: &Client) {
        // Dropping it would be leaving.
        let session = next_session(newcomer).await;
        messages(&session, 5).await;
        within("removing", self.sessions[0].remove(newcomer.name())).await.unwrap();
        self.accept_epoch().await;
    }

    /// Does something for as long as it takes everybody to publish a few more.
    pub(crate) async fn meanwhile(&self, attack: impl Future<Output = ()>) {
        tokio::select! {
            () = self.rounds(ROUNDS) => {}
            () = async { attack.await; std::future::pending::<()>().await } => {}
        }
    }

    /// Ends the conversation and checks that nobody has noticed anything. Gives the
    /// latencies of all messages, sorted.
    pub(crate) async fn finish(&mut self) -> Vec<Duration> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut said = vec![0; MEMBERS.len()];
        while let Some(ended) = within("the last report", self.speakers.join_next()).await {
            let (member, count) = ended.unwrap();
            said[member] = count;
        }
        self.said.send_replace(Some(said));
        let mut latencies = Vec::new();
        while let Some(heard) = within("the last message", self.listeners.join_next()).await {
            latencies.extend(heard.unwrap());
        }
        for session in &self.sessions {
            let state = session.state().await.unwrap();
            let members: Vec<_> = state.members.iter().map(|member| &member.name).collect();
            assert_eq!(members.len(), MEMBERS.len(), "{members:?}");
            assert!(state.members.iter().all(|member| member.online), "{state:?}");
            let expected = self.epoch.load(Ordering::Relaxed);
            assert_eq!(state.mls.unwrap().epoch, expected, "nobody came or went");
        }
        latencies.sort_unstable();
        latencies
    }

    /// From here on the group has another epoch, for a good reason.
    pub(crate) async fn accept_epoch(&self) {
        self.epoch.store(epoch(&self.sessions[0]).await, Ordering::Relaxed);
    }
}

/// A client whose identity the test knows.
pub(crate) async fn client(cluster: &Cluster, app: &str) -> (Client, Arc<SharedSecret>) {
    let text = format!("org/test/{app}");
    let identity = Arc::new(SharedSecret::new(&text, SECRET, &mut rng()).unwrap());
    let builder = Client::builder(text.parse().unwrap());
    let mut builder = builder.identity(identity.clone(), identity.clone());
    if let Some(authorization) = cluster.authorization(app) {
        builder = builder.authorization(authorization);
    }
    let client = within("connecting", builder.connect(&cluster.endpoint())).await.unwrap();
    (client, identity)
}

async fn epoch(session: &Session) -> u64 {
    session.state().await.unwrap().mls.unwrap().epoch
}

/// Publishes until told to stop; gives how many.
async fn speak(
    member: usize,
    session: Session,
    names: Vec<Name>,
    shared: Arc<Shared>,
) -> (usize, u64) {
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for number in 0.. {
        if shared.stop.load(Ordering::Relaxed) {
            return (member, number);
        }
        pace.tick().await;
        let text = format!("{SECRET_WORDS} {number} {}", shared.started.elapsed().as_nanos());
        let delivery = session.publish(text).await.unwrap();
        let report = within("a report", delivery).await.unwrap();
        // There may be others in the group, who come and go.
        let mut others = names.iter().enumerate().filter(|(other, _)| *other != member);
        assert!(others.all(|(_, name)| report.delivered.contains(name)), "{report:?}");
        shared.rounds[member].store(number + 1, Ordering::Relaxed);
    }
    unreachable!()
}

/// Hears everybody else, each in order and once, until all has come that was said.
/// Gives how long each message took.
async fn listen(
    member: usize,
    session: Session,
    names: Vec<Name>,
    mut said: watch::Receiver<Option<Vec<u64>>>,
    started: Instant,
) -> Vec<Duration> {
    let mut heard = vec![0; names.len()];
    let mut latencies = Vec::new();
    loop {
        let is_all = said.borrow().as_ref().is_some_and(|said| {
            (0..names.len()).all(|other| other == member || heard[other] == said[other])
        });
        if is_all {
            return latencies;
        }
        let event = tokio::select! {
            event = session.next_event() => event.expect("the session goes on"),
            changed = said.changed() => { changed.unwrap(); continue }
        };
        match event {
            SessionEvent::Message(message) => {
                let sender = names.iter().position(|name| *name == message.source);
                let sender = sender.expect("a member");
                let text = String::from_utf8(message.payload.to_vec()).unwrap();
                let text = text.strip_prefix(SECRET_WORDS).unwrap().trim_start();
                let (number, sent) = text.split_once(' ').unwrap();
                assert_eq!(number.parse(), Ok(heard[sender]), "from {}", message.source);
                heard[sender] += 1;
                let sent = Duration::from_nanos(sent.parse().unwrap());
                latencies.push(started.elapsed().saturating_sub(sent));
            }
            SessionEvent::Participant { change: ParticipantChange::Joined, .. } => {}
            SessionEvent::Participant { name, .. } if !names.contains(&name) => {}
            event => panic!("{} has noticed: {event:?}", names[member]),
        }
    }
}
