//! Connections that come to nothing, or to it very slowly.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use slim_client::Client;
use slim_node::NodeConfig;
use slim_proto::{Body, ConnectionType, Message, SessionId};
use slim_testkit::{DEADLINE, SECRET, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::interval;
use x25519_dalek::StaticSecret;

use crate::conversation::{Scene, beside_a_conversation, on_such_a_node};
use crate::http2::{DATA, END_HEADERS, HEADERS, Http2, PREFACE, frame, headers};
use crate::mallory::{Mallory, data};
use crate::raw::{End, RawConnection};

/// Who dawdles sends a byte this often: too slowly to be in time, often enough to look
/// alive.
const DRIP: Duration = Duration::from_millis(50);

/// A node that gives up soon.
fn impatient() -> NodeConfig {
    NodeConfig { negotiation_timeout: Duration::from_secs(1), ..NodeConfig::default() }
}

/// Sends what is given byte by byte, and then goes on with nothing, until the node has
/// had enough.
async fn drip(addr: SocketAddr, bytes: Vec<u8>) {
    let (mut read, mut out) =
        within("connecting", TcpStream::connect(addr)).await.unwrap().into_split();
    let slowly = async {
        let mut pace = interval(DRIP);
        for byte in bytes {
            pace.tick().await;
            if out.write_all(&[byte]).await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    let end = async { while matches!(read.read(&mut [0; 1024]).await, Ok(1..)) {} };
    tokio::select! {
        () = slowly => {}
        () = within("being cut", end) => {}
    }
}

/// Many of them at once are all cut, and counted.
async fn check_slowloris(bytes: &[u8]) {
    const MANY: usize = 50;
    on_such_a_node(impatient(), async |scene| {
        let before = scene.cluster.metrics().connections;
        let mut dawdlers = JoinSet::new();
        for _ in 0..MANY {
            dawdlers.spawn(drip(scene.cluster.addr(), bytes.to_vec()));
        }
        while let Some(end) = dawdlers.join_next().await {
            end.unwrap();
        }
        let gone = |metrics: &slim_node::MetricsSnapshot| metrics.connections == before;
        scene.cluster.until("their end", gone).await;
        assert_eq!(scene.cluster.metrics().cut_connections, MANY as u64);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slowloris_with_the_preface() {
    check_slowloris(&PREFACE[..PREFACE.len() - 1]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slowloris_with_the_headers() {
    let settings = frame(crate::http2::SETTINGS, 0, 0, &[]);
    let open = frame(HEADERS, 0, 1, &headers());
    check_slowloris(&[PREFACE, &settings, &open].concat()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slowloris_with_the_negotiation() {
    let settings = frame(crate::http2::SETTINGS, 0, 0, &[]);
    let open = frame(HEADERS, END_HEADERS, 1, &headers());
    let half_a_message = frame(DATA, 0, 1, &[0, 0, 0, 0, 100, 0x2a, 98]);
    check_slowloris(&[PREFACE, &settings, &open, &half_a_message].concat()).await;
}

/// A message that never ends is kept as far as it has come.
#[tokio::test(flavor = "multi_thread")]
async fn slowloris_with_a_message() {
    beside_a_conversation(async |scene| {
        let mallory = Mallory::insider(scene).await;
        mallory.link.send_data(Bytes::from_static(&[0, 0, 0x3f, 0xff, 0xff])).await;
        let slowly = async {
            let mut pace = interval(DRIP);
            loop {
                pace.tick().await;
                mallory.link.send_data(Bytes::from_static(&[0x1a])).await;
            }
        };
        scene.meanwhile(slowly).await;
        // It is nobody's yet.
        assert_eq!(scene.cluster.metrics().dropped.malformed, 0);
    })
    .await;
}

/// A decent message, a byte in each piece, arrives.
#[tokio::test(flavor = "multi_thread")]
async fn one_byte_at_a_time() {
    beside_a_conversation(async |scene| {
        let mut mallory = Mallory::insider(scene).await;
        let mut listener = Mallory::insider(scene).await;
        listener.subscribe(&listener.name.clone()).await;
        let body = Body::Msg(data("one by one"));
        let publish = mallory.unsigned(&listener.name.clone(), SessionId(1), body);
        let message = mallory.link.signed(&Message::Publish(publish)).encode();
        let mut framed = vec![0];
        framed.extend((message.len() as u32).to_be_bytes());
        framed.extend(&message);
        for _ in 0..10 {
            for byte in &framed {
                mallory.link.send_data(Bytes::copy_from_slice(&[*byte])).await;
            }
            let Some(Message::Publish(got)) = listener.link.next().await else {
                panic!("nothing came")
            };
            assert_eq!(got.body, Body::Msg(data("one by one")));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_http2() {
    beside_a_conversation(async |scene| {
        for garbage in [&b"GET / HTTP/1.1\r\nHost: node\r\n\r\n"[..], &[0; 1000], &[0xff; 1000]] {
            let mut tcp = TcpStream::connect(scene.cluster.addr()).await.unwrap();
            tcp.write_all(garbage).await.unwrap();
            let end = async { while matches!(tcp.read(&mut [0; 1024]).await, Ok(1..)) {} };
            within("the end", end).await;
        }
    })
    .await;
}

/// Whatever is wrong with a negotiation ends its stream, and who sent it is told not to
/// come back.
#[tokio::test(flavor = "multi_thread")]
async fn bad_negotiations() {
    beside_a_conversation(async |scene| {
        let secret = StaticSecret::from([7; 32]);
        let mut connection = RawConnection::open(scene.cluster.addr()).await;
        let good = connection.stream().await.request(ConnectionType::Edge, &secret);
        let spoiled = |spoil: &dyn Fn(&mut slim_proto::LinkNegotiation)| {
            let mut negotiation = good.clone();
            spoil(&mut negotiation);
            Message::Link(negotiation).encode().to_vec()
        };
        // Too long to be one.
        let mut endless = connection.stream().await;
        endless.send_bytes(&vec![0; 100_000]).await;
        assert_eq!(endless.end().await, End::Status("0".to_owned()));
        let firsts = [
            b"garbage".to_vec(),
            Vec::new(),
            spoiled(&|negotiation| negotiation.is_reply = true),
            spoiled(&|negotiation| negotiation.slim_version = "v1".to_owned()),
            spoiled(&|negotiation| negotiation.slim_version.clear()),
            spoiled(&|negotiation| negotiation.link_id.clear()),
            spoiled(&|negotiation| negotiation.link_id = "x".repeat(10_000)),
            spoiled(&|negotiation| negotiation.ecdh_public_key = Bytes::new()),
            spoiled(&|negotiation| negotiation.ecdh_public_key = Bytes::from(vec![1; 31])),
            // Points of small order: anybody would know the key.
            spoiled(&|negotiation| negotiation.ecdh_public_key = Bytes::from(vec![0; 32])),
            // Replicas carry no MAC.
            spoiled(&|negotiation| negotiation.connection_type = ConnectionType::Peer),
        ];
        // All at once: each waits for its end.
        let mut streams = Vec::new();
        for first in &firsts {
            let stream = connection.stream().await;
            stream.send_bytes(first).await;
            streams.push(stream);
        }
        for (mut stream, first) in streams.into_iter().zip(&firsts) {
            assert_eq!(stream.end().await, End::Status("7".to_owned()), "{first:?}");
        }
        assert!(scene.cluster.metrics().refused_links >= firsts.len() as u64);
    })
    .await;
}

/// The reference waits up to five seconds for a silent peer before it answers anybody's
/// subscription; here that would take a hundred times as long as the test may.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_peer_delays_nobodys_subscription() {
    beside_a_conversation(async |scene| {
        let mut silent = Mallory::insider(scene).await;
        silent.subscribe(&silent.name.clone()).await;
        let mut mallory = Mallory::insider(scene).await;
        for _ in 0..1000 {
            mallory.subscribe(&mallory.name.clone()).await;
        }
    })
    .await;
}

/// As many as the system allows, up to ten thousand, and all of them silent.
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_connections_that_never_negotiate() {
    const WANTED: u64 = 10_000;
    /// For the node's ends, and everything else.
    const RESERVE: u64 = 3000;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, ..limit };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).unwrap();
    let available = limit.maximum.unwrap_or(u64::MAX).saturating_sub(RESERVE);
    let count = WANTED.min(available);
    if count < WANTED {
        eprintln!("ONLY {count} CONNECTIONS INSTEAD OF {WANTED}: too few descriptors");
    }
    assert!(count > 1000, "nothing to be seen with {count} connections");
    beside_a_conversation(async |scene| {
        let mut silent = JoinSet::new();
        for _ in 0..count {
            silent.spawn(say_nothing(scene.cluster.addr()));
        }
        // There is still a way in, for who negotiates.
        let builder = Client::builder("org/test/dan".parse().unwrap());
        let builder = builder.shared_secret(SECRET).unwrap().connect_timeout(DEADLINE);
        let dan = builder.connect(&scene.cluster.endpoint()).await.unwrap();
        scene.rounds(10).await;
        let most = NodeConfig::default().max_unnegotiated_connections as u64;
        let mut checks = interval(DRIP);
        let all_cut = async {
            loop {
                tokio::select! {
                    end = silent.join_next() => match end {
                        Some(end) => end.unwrap(),
                        None => break,
                    },
                    _ = checks.tick() => {
                        let metrics = scene.cluster.metrics();
                        assert!(metrics.unnegotiated_connections <= most, "{metrics:?}");
                    }
                }
            }
        };
        within("cutting them all", all_cut).await;
        let metrics = scene.cluster.metrics();
        assert!(metrics.cut_connections >= count, "{metrics:?}");
        drop(dan);
    })
    .await;
}

/// Speaks HTTP/2, but has nothing to say, until the node has had enough. With so many
/// at once some are lost before the node has seen them; those try again.
async fn say_nothing(addr: SocketAddr) {
    loop {
        let mut read = 0;
        if let Ok(mut tcp) = TcpStream::connect(addr).await
            && tcp.write_all(PREFACE).await.is_ok()
        {
            while let Ok(len @ 1..) = tcp.read(&mut [0; 1024]).await {
                read += len;
            }
        }
        if read > 0 {
            return;
        }
    }
}

/// Links up and down as fast as it goes.
#[tokio::test(flavor = "multi_thread")]
async fn links_that_come_and_go() {
    beside_a_conversation(async |scene: &Scene| {
        let churn = async {
            loop {
                let mut mallory = Mallory::insider(scene).await;
                mallory.subscribe(&mallory.name.clone()).await;
            }
        };
        scene.meanwhile(churn).await;
        let Scene { cluster, .. } = scene;
        cluster.until("their end", |metrics| metrics.links == 3).await;
    })
    .await;
}

/// Streams of one connection that are never used: so many and no more.
#[tokio::test(flavor = "multi_thread")]
async fn streams_that_never_negotiate() {
    on_such_a_node(impatient(), async |scene| {
        let mut connection = Http2::open(scene.cluster.addr()).await;
        let mut open = Vec::new();
        for stream in 0..200 {
            open.extend(frame(HEADERS, END_HEADERS, 2 * stream + 1, &headers()));
        }
        connection.write(&open).await;
        connection.end().await;
        let metrics = scene.cluster.metrics();
        assert_eq!(metrics.cut_connections, 1, "{metrics:?}");
        assert!(metrics.refused_links <= 100, "{metrics:?}");
    })
    .await;
}
