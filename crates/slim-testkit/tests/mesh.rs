//! Several nodes in one process, and conversations across them.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use slim_client::{Client, SessionConfig, Timers};
use slim_node::{Backoff, NodeConfig, PeerConfig, PeersConfig, Topology};
use slim_proto::Message;
use slim_testkit::relay::{self, Fate, Policy};
use slim_testkit::talk::{everybody_speaks, everybody_speaks_slowly, group};
use slim_testkit::{Cluster, next_session, within};
use tokio::net::TcpListener;

/// A node and its peers: those with an address are dialled.
async fn node(topology: Topology, id: &str, peers: &[(&str, Option<SocketAddr>)]) -> Cluster {
    let backoff = Backoff { first: Duration::from_millis(20), most: Duration::from_millis(200) };
    let peer = |(id, addr): &(&str, Option<SocketAddr>)| PeerConfig {
        node_id: Some((*id).to_owned()),
        target: addr.map(|addr| addr.to_string().parse().unwrap()),
        backoff,
        ..PeerConfig::default()
    };
    let peers = peers.iter().map(peer).collect();
    let peers = Some(PeersConfig { topology, peers, ..PeersConfig::default() });
    Cluster::start_with(NodeConfig { node_id: id.to_owned(), peers, ..NodeConfig::default() }).await
}

async fn has_peers(nodes: &[&Cluster], count: u64) {
    for node in nodes {
        node.until("its peers are up", |metrics| metrics.peers == count).await;
    }
}

/// Three nodes, each joined to each other.
async fn full_mesh() -> [Cluster; 3] {
    let mesh = Topology::FullMesh;
    let c = node(mesh, "c", &[("a", None), ("b", None)]).await;
    let b = node(mesh, "b", &[("a", None), ("c", Some(c.addr()))]).await;
    let a = node(mesh, "a", &[("b", Some(b.addr())), ("c", Some(c.addr()))]).await;
    has_peers(&[&a, &b, &c], 2).await;
    [a, b, c]
}

/// Four nodes in a ring, `a` to `d`.
async fn ring() -> [Cluster; 4] {
    let relay = Topology::Relay;
    let d = node(relay, "d", &[("a", None), ("c", None)]).await;
    let c = node(relay, "c", &[("b", None), ("d", Some(d.addr()))]).await;
    let b = node(relay, "b", &[("a", None), ("c", Some(c.addr()))]).await;
    let a = node(relay, "a", &[("b", Some(b.addr())), ("d", Some(d.addr()))]).await;
    has_peers(&[&a, &b, &c, &d], 2).await;
    [a, b, c, d]
}

/// One application at each node, known at all of them.
async fn one_at_each(nodes: &[&Cluster]) -> Vec<Client> {
    let mut clients = Vec::new();
    for (number, node) in nodes.iter().enumerate() {
        clients.push(node.client(&format!("app-{number}")).await);
    }
    clients
}

fn config() -> SessionConfig {
    let timers = Timers { max_retries: 40, ..Timers::default() };
    SessionConfig { mls: true, timers: Some(timers), ..SessionConfig::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_has_members_at_each_node_of_a_full_mesh() {
    let [a, b, c] = full_mesh().await;
    let clients = one_at_each(&[&a, &b, &c, &a, &b, &c]).await;
    let sessions = group(&clients, config()).await;
    everybody_speaks(&sessions, 30).await;
    for node in [&a, &b, &c] {
        let metrics = node.metrics();
        assert_eq!(metrics.unacknowledged, 0);
        assert_eq!(metrics.refused_subscriptions, 0);
    }
    drop((sessions, clients));
    for node in [&a, &b, &c] {
        node.until("nothing is left", |m| m.subscriptions == 0 && m.peer_names == 0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_carries_a_group_from_end_to_end() {
    let relay = Topology::Relay;
    let b = node(relay, "b", &[("a", None), ("c", None)]).await;
    let a = node(relay, "a", &[("b", Some(b.addr()))]).await;
    let clients = one_at_each(&[&a, &b]).await;
    // The last one is late.
    let c = node(relay, "c", &[("b", Some(b.addr()))]).await;
    has_peers(&[&a, &c], 1).await;
    let late = c.client("late").await;
    let clients = [&clients[..], &[late]].concat();
    let sessions = group(&clients, config()).await;
    everybody_speaks(&sessions, 30).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_goes_around_a_node_that_is_lost_and_takes_it_back() {
    let [a, mut b, c, d] = ring().await;
    let clients = one_at_each(&[&a, &c]).await;
    let sessions = group(&clients, config()).await;
    everybody_speaks(&sessions, 10).await;
    let lost = async {
        b.stop_node().await;
        has_peers(&[&a, &c], 1).await;
        b.start_node().await;
        has_peers(&[&a, &b, &c, &d], 2).await;
    };
    // Reliable sessions send again what was on its way through the lost node.
    let pace = Duration::from_millis(20);
    tokio::join!(everybody_speaks_slowly(&sessions, 50, pace), lost);
    let newcomer = b.client("newcomer").await;
    let name = newcomer.name().without_id();
    within("an invitation", sessions[0].invite(&name)).await.unwrap();
    let joined = next_session(&newcomer).await;
    everybody_speaks(&[&sessions[..], &[joined]].concat(), 10).await;
}

/// Each node in turn is asked to end and started again, while all its applications speak.
#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_loses_nothing() {
    let mut nodes = full_mesh().await;
    let clients = one_at_each(&[&nodes[0], &nodes[1], &nodes[2]]).await;
    let sessions = group(&clients, config()).await;
    let rolling = async {
        for number in 0..nodes.len() {
            nodes[number].stop_node().await;
            nodes[number].start_node().await;
            let [a, b, c] = &nodes;
            has_peers(&[a, b, c], 2).await;
        }
    };
    // A stream begins with what arrives first: of what is said before, nobody knows.
    everybody_speaks(&sessions, 3).await;
    let pace = Duration::from_millis(60);
    tokio::join!(everybody_speaks_slowly(&sessions, 50, pace), rolling);
    everybody_speaks(&sessions, 10).await;
}

/// Loses every acknowledgement of an announcement, in both directions.
fn without_acks() -> Policy {
    Box::new(|message: &Bytes| match Message::decode(message.clone()) {
        Ok(Message::SubscriptionAck(_)) => Fate::Lose,
        _ => Fate::Pass,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_never_acknowledges_is_told_everything_and_delays_nobody() {
    let mesh = Topology::FullMesh;
    let b = node(mesh, "b", &[("a", None)]).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let between = listener.local_addr().unwrap();
    tokio::spawn(relay::serve(listener, b.addr(), |_| without_acks()));
    // More applications than announcements may be unanswered.
    let mut crowd = Vec::new();
    for number in 0..150 {
        crowd.push(b.client(&format!("crowd-{number}")).await);
    }
    let a = node(mesh, "a", &[("b", Some(between))]).await;
    a.until("all are known", |metrics| metrics.peer_names == 150).await;
    b.until("it is noticed", |metrics| metrics.unacknowledged >= 128).await;
    let clients = one_at_each(&[&a, &b]).await;
    let sessions = group(&clients, config()).await;
    everybody_speaks(&sessions, 30).await;
    drop(crowd);
    a.until("they are gone", |metrics| metrics.peer_names < 150).await;
}
