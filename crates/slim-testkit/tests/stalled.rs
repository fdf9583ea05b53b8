//! One of several subscribers stops reading, at five thousand messages of 4 KiB a
//! second: the others get all of them, their publisher hardly waits, the memory is
//! bounded, and the one that stalled is back when it reads again.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use slim_client::{Client, ClientEvent, SessionConfig, SessionEvent};
use slim_link::{DialConfig, Link, dial};
use slim_node::NodeConfig;
use slim_proto::{
    AppPayload, BROADCAST, Body, Header, Message, Name, NameId, Publish, SessionId, SessionType,
    Subscription, UNICAST,
};
use slim_testkit::{Cluster, SECRET, messages, next_session, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval};

const MESSAGES: usize = 15_000;
const LEN: usize = 4 * 1024;
/// Messages that are sent each [`TICK`].
const BURST: usize = 50;
const TICK: Duration = Duration::from_millis(10);
const READERS: usize = 4;

/// What a process may grow by while it passes 60 MB on to five subscribers: queues and
/// windows of all links here, on both ends, and the allocator's habits.
const MAX_GROWTH: usize = 40 << 20;

/// What stops reading, and when it is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stall {
    Reads,
    Stalls,
    /// It reads on, and finds that its link is gone.
    IsBack,
}

fn name(app: &str, id: u128) -> Name {
    format!("org/test/{app}").parse::<Name>().unwrap().with_id(NameId(id))
}

async fn link(cluster: &Cluster) -> Link {
    let target = cluster.addr().to_string().parse().unwrap();
    within("a link", dial(&target, &DialConfig::default())).await.unwrap()
}

/// What the process occupies.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() * 1024
}

/// Reads all of the flood, in order.
async fn read_all(
    cluster: &Cluster,
    number: usize,
    flooded: &Name,
) -> impl Future<Output = ()> + use<> {
    let (sender, mut receiver) = link(cluster).await.split();
    let own = name("reader", number as u128);
    let header = Header::new(own, flooded.clone(), UNICAST);
    sender.send(&Message::Subscribe(Subscription { header, subscription_id: 7 })).await.unwrap();
    let ack = within("the ack", receiver.recv()).await.unwrap();
    assert!(matches!(ack, Message::SubscriptionAck(ack) if ack.result.is_ok()));
    async move {
        let _sender = sender;
        for expected in 0..MESSAGES as u32 {
            match within("the next message", receiver.recv()).await.unwrap() {
                Message::Publish(publish) => assert_eq!(publish.message_id, expected),
                other => panic!("{other:?}"),
            }
        }
    }
}

/// Publishes it all; gives how long the publisher had to wait at most.
async fn flood(cluster: &Cluster, flooded: &Name) -> Duration {
    let (sender, mut receiver) = link(cluster).await.split();
    // Nothing comes, but the link's end.
    tokio::spawn(async move { while receiver.recv().await.is_ok() {} });
    let mut pace = interval(TICK);
    let mut longest = Duration::ZERO;
    for message_id in 0..MESSAGES {
        if message_id % BURST == 0 {
            pace.tick().await;
        }
        let blob = vec![b'x'; LEN].into();
        let publish = Publish {
            header: Header::new(name("flood", 1), flooded.clone(), BROADCAST),
            session_type: SessionType::Multicast,
            session_id: SessionId(1),
            message_id: message_id as u32,
            body: Body::Msg(AppPayload { payload_type: "msg".to_owned(), blob }),
            metadata: BTreeMap::new(),
        };
        let start = Instant::now();
        sender.send(&Message::Publish(publish)).await.unwrap();
        longest = longest.max(start.elapsed());
    }
    longest
}

/// Passes on what goes between a client and the node, until it stalls.
async fn pass_on(client: TcpStream, node: SocketAddr, mut stall: watch::Receiver<Stall>) {
    let node = TcpStream::connect(node).await.unwrap();
    for socket in [&client, &node] {
        socket.set_nodelay(true).unwrap();
    }
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_node, mut to_node) = node.into_split();
    let back = async {
        let mut buffer = vec![0; 64 * 1024];
        while *stall.borrow() != Stall::Stalls {
            let len = from_node.read(&mut buffer).await?;
            if len == 0 {
                return Ok(());
            }
            to_client.write_all(&buffer[..len]).await?;
        }
        stall.wait_for(|stall| *stall == Stall::IsBack).await.ok();
        io::Result::Ok(())
    };
    // Whatever ends one direction ends both.
    tokio::select! {
        _ = tokio::io::copy(&mut from_client, &mut to_node) => {}
        _ = back => {}
    }
}

/// A client behind a network that can stop delivering.
async fn behind(cluster: &Cluster, stall: &watch::Sender<Stall>) -> Client {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let stall = stall.subscribe();
    let node = cluster.addr();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(pass_on(client, node, stall.clone()));
        }
    });
    let builder = Client::builder("org/test/bob".parse().unwrap());
    let builder = builder.shared_secret(SECRET).unwrap();
    within("connecting", builder.connect(&endpoint)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_subscriber_stops_reading() {
    let config = NodeConfig::default();
    let grace = config.slow_subscriber_grace;
    let cluster = Cluster::start_with(config).await;
    let stall = watch::Sender::new(Stall::Reads);
    let moderator = cluster.client("mod").await;
    let alice = cluster.client("alice").await;
    let bob = behind(&cluster, &stall).await;
    let mut bobs_link = bob.events();

    // A conversation, and a name that of all applications only Bob has subscribed to.
    let channel = "org/test/channel".parse().unwrap();
    let group = moderator.create_group(channel, SessionConfig::default()).await.unwrap();
    let mut sessions = Vec::new();
    for client in [&alice, &bob] {
        within("joining", group.invite(client.name())).await.unwrap();
        sessions.push(next_session(client).await);
    }
    let bobs = sessions.pop().unwrap();
    let flooded = "org/test/flooded".parse().unwrap();
    let flooded = bob.create_group(flooded, SessionConfig::default()).await.unwrap();
    let flooded = flooded.info().remote.clone();
    let subscribed = |metrics: &slim_node::MetricsSnapshot| metrics.subscriptions >= 3 + 2 * 3 + 2;
    cluster.until("all subscriptions", subscribed).await;
    within("a message", group.publish("before")).await.unwrap();
    assert_eq!(&messages(&bobs, 1).await[0].payload[..], b"before");

    let mut readers = JoinSet::new();
    for number in 0..READERS {
        readers.spawn(read_all(&cluster, number, &flooded).await);
    }
    stall.send_replace(Stall::Stalls);
    let (before, start) = (resident(), Instant::now());
    let mut largest = before;
    let mut waiting = Vec::new();
    let flooding = flood(&cluster, &flooded);
    tokio::pin!(flooding);
    let mut watch = interval(10 * TICK);
    let longest = loop {
        tokio::select! {
            longest = &mut flooding => break longest,
            _ = watch.tick() => {
                largest = largest.max(resident());
                if waiting.len() < 5 {
                    waiting.push(group.publish(format!("{}", waiting.len())).await.unwrap());
                }
            }
        }
    };
    while let Some(read) = readers.join_next().await {
        // All of it, in order, or it has panicked.
        read.unwrap();
    }
    let took = start.elapsed();
    let growth = largest.max(resident()) - before;
    println!(
        "{MESSAGES} messages of {LEN} bytes to {READERS} readers in {took:.1?}; the publisher \
         waited {longest:.1?} at most; {} MiB more memory",
        growth >> 20,
    );
    assert!(longest < grace + Duration::from_secs(5), "the publisher waited {longest:?}");
    assert!(growth < MAX_GROWTH, "{growth} bytes more");
    cluster.until("shedding", |metrics| metrics.shed_links == 1).await;
    assert!(cluster.metrics().dropped.shed > 0);

    // Bob reads again, finds his link gone, and comes back.
    stall.send_replace(Stall::IsBack);
    let event = within("the loss", bobs_link.next()).await;
    assert!(matches!(event, Some(ClientEvent::Disconnected { .. })), "{event:?}");
    assert_eq!(within("the return", bobs_link.next()).await, Some(ClientEvent::Reconnected));

    // What was said meanwhile has reached him, or was reported as lost to him alone.
    let mut missed = 0;
    for delivery in waiting {
        let report = within("an outcome", delivery).await.unwrap();
        assert!(report.delivered.contains(alice.name()), "{report:?}");
        if !report.delivered.contains(bob.name()) {
            assert_eq!(report.lost, [bob.name().clone()]);
            missed += 1;
        }
    }
    let mut heard = Vec::new();
    while heard.len() < 5 - missed {
        match within("what was said meanwhile", bobs.next_event()).await.unwrap() {
            SessionEvent::Message(message) => heard.push(message.payload),
            SessionEvent::Closed { reason } => panic!("closed: {reason:?}"),
            SessionEvent::MessageLost { .. } | SessionEvent::Participant { .. } => {}
        }
    }
    assert!(heard.is_sorted());
    // From now on he is told everything.
    let again = async {
        loop {
            let report = group.publish("after").await.unwrap().await.unwrap();
            if report.delivered.contains(bob.name()) {
                break;
            }
        }
    };
    within("hearing everything again", again).await;
}
