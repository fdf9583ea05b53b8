//! The accepting side against peers of every kind, on real sockets.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::Duration;

use bytes::Bytes;
use slim_link::{
    AcceptConfig, CloseReason, DialConfig, Drops, Keepalive, LinkEnd, Listener, MAX_BATCH_FRAMES,
    PeerAddr, PushError, dial,
};
use slim_proto::{
    ConnectionType, Frame, Header, LinkNegotiation, MAX_MESSAGE_LEN, Message, SubscriptionAck,
};
use support::{
    Accepted, LINK_ID, Node, PATH, RawConnection, RawStream, Received, framed, header, name,
    publish, request, soon, subscribe,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn lenient() -> AcceptConfig {
    AcceptConfig { require_header_mac: false, ..AcceptConfig::default() }
}

/// For tests in which something has to time out.
fn impatient() -> AcceptConfig {
    AcceptConfig { negotiation_timeout: Duration::from_millis(200), ..AcceptConfig::default() }
}

impl Accepted {
    async fn batch(&mut self) -> Vec<Frame> {
        let mut batch = Vec::new();
        soon(self.link.frames.read_batch(&mut batch)).await.unwrap();
        batch
    }

    async fn end(&mut self) -> LinkEnd {
        let mut batch = Vec::new();
        loop {
            match soon(self.link.frames.read_batch(&mut batch)).await {
                Ok(()) => {}
                Err(end) => return end,
            }
        }
    }

    /// The ids of the next subscriptions, this many.
    async fn subscriptions(&mut self, count: usize) -> Vec<u64> {
        let mut batch = Vec::new();
        while batch.len() < count {
            soon(self.link.frames.read_batch(&mut batch)).await.unwrap();
        }
        batch.iter().map(|frame| frame.routed().unwrap().subscription_id()).collect()
    }
}

/// A raw peer and a node, negotiated.
async fn raw_link(config: AcceptConfig) -> (Node, RawStream, support::Key, Accepted) {
    let mut node = Node::start(config).await;
    let mut peer = RawStream::open(node.addr).await;
    let key = peer.negotiate().await;
    let accepted = node.accepted().await;
    (node, peer, key, accepted)
}

// ---------------------------------------------------------------- negotiation

#[tokio::test]
async fn headers_come_before_anything_is_sent() {
    let node = Node::start(AcceptConfig::default()).await;
    // Returns with the headers, and nothing has been sent yet.
    let peer = RawStream::open(node.addr).await;
    assert_eq!(peer.response.status(), 200);
    assert_eq!(peer.response.headers()["content-type"], "application/grpc");
}

#[tokio::test]
async fn the_reply_echoes_and_the_link_knows_its_peer() {
    let mut node =
        Node::start(AcceptConfig { node_id: "node-b".to_owned(), ..AcceptConfig::default() }).await;
    for connection_type in [ConnectionType::Edge, ConnectionType::Remote] {
        let mut peer = RawStream::open(node.addr).await;
        peer.send_message(&Message::Link(LinkNegotiation {
            connection_type,
            slim_version: "0.1.0".to_owned(),
            ..request()
        }))
        .await;
        let Message::Link(reply) = peer.message().await else {
            panic!("no negotiation");
        };
        assert_eq!(reply.link_id, LINK_ID);
        assert_eq!(reply.connection_type, connection_type);
        assert_eq!(reply.node_id, "node-b");
        assert!(reply.is_reply && reply.ecdh_public_key.len() == 32);

        let info = node.accepted().await.link.info;
        assert_eq!(info.link_id, LINK_ID);
        assert_eq!(info.node_id, "node-raw");
        assert_eq!(info.slim_version, "0.1.0");
        assert_eq!(info.connection_type, connection_type);
        assert!(
            info.has_mac && matches!(info.peer_addr, PeerAddr::Ip(addr) if addr.ip().is_loopback())
        );
    }
}

/// The stream ends with this status and without a message, and the node goes on.
async fn check_end_of_stream(status: u16, first: impl Into<Bytes>) {
    let config = AcceptConfig { refusal_pause: Duration::ZERO, ..AcceptConfig::default() };
    let mut node = Node::start(config).await;
    let mut peer = RawStream::open(node.addr).await;
    peer.send(first).await;
    assert_eq!(peer.recv().await, Received::Status(status));
    node.link().await;
}

/// Who negotiates like this is told not to come back (PERMISSION_DENIED).
async fn check_refused(first: Bytes) {
    check_end_of_stream(7, first).await;
}

fn spoiled(spoil: impl FnOnce(&mut LinkNegotiation)) -> Bytes {
    let mut negotiation = request();
    spoil(&mut negotiation);
    framed(&Message::Link(negotiation).encode())
}

#[tokio::test]
async fn a_bad_negotiation_is_refused() {
    let check = check_refused;
    check(spoiled(|r| r.is_reply = true)).await;
    check(spoiled(|r| r.slim_version = "v3.4.6".to_owned())).await;
    check(spoiled(|r| r.link_id.clear())).await;
    check(spoiled(|r| r.link_id = "x".repeat(10_000))).await;
    check(spoiled(|r| r.ecdh_public_key = Bytes::new())).await;
    check(spoiled(|r| r.ecdh_public_key = vec![0; 32].into())).await;
    check(spoiled(|r| r.connection_type = ConnectionType::Peer)).await;
    check(spoiled(|r| r.kem_payload = Some(vec![0xff; 1184].into()))).await;
}

#[tokio::test]
async fn whatever_is_no_negotiation_is_refused() {
    check_refused(framed(&subscribe(header(), 1).encode())).await;
    check_refused(framed(b"no message at all")).await;
    check_refused(framed(b"")).await;
    // Compressed; too long for a first message; too long for any: who sends this is
    // not understood well enough to be sent away for ever.
    check_end_of_stream(0, Bytes::from_static(&[1, 0, 0, 0, 0])).await;
    check_end_of_stream(0, Bytes::from_static(&[0, 0, 1, 0, 0])).await;
    check_end_of_stream(0, Bytes::from_static(&[0, 0xff, 0xff, 0xff, 0xff])).await;
}

#[tokio::test]
async fn who_is_refused_is_told_why() {
    let config = AcceptConfig { refusal_pause: Duration::ZERO, ..AcceptConfig::default() };
    let node = Node::start(config).await;
    let config = DialConfig { link_id: String::new(), ..DialConfig::default() };
    let error = soon(dial(&node.target(), &config)).await.unwrap_err();
    assert!(error.is_denied() && !error.is_unreachable(), "{error:?}");
    assert!(error.to_string().contains("empty link id"), "{error}");
}

#[tokio::test]
async fn a_stream_that_ends_before_its_negotiation_is_refused() {
    for bytes in [&b""[..], &[0, 0, 0], &[0, 0, 0, 0, 9, 1, 2]] {
        let node = Node::start(AcceptConfig::default()).await;
        let mut peer = RawStream::open(node.addr).await;
        peer.send(bytes.to_vec()).await;
        peer.sender = None;
        assert_eq!(peer.recv().await, Received::Status(0));
    }
}

#[tokio::test]
async fn a_silent_dialler_is_closed_in_time() {
    let mut node = Node::start(impatient()).await;
    let mut silent = RawStream::open(node.addr).await;
    let mut slow = RawStream::open(node.addr).await;
    slow.send(framed(&Message::Link(request()).encode()).slice(..50)).await;
    assert_eq!(silent.recv().await, Received::Status(0));
    assert_eq!(slow.recv().await, Received::Status(0));
    node.link().await;
}

#[tokio::test]
async fn a_connection_without_a_link_is_closed_in_time() {
    let mut node = Node::start(impatient()).await;
    let mut silent = TcpStream::connect(node.addr).await.unwrap();
    let mut byte = [0; 1024];
    // Not a word, as HTTP/2 lets the server speak first: its settings, then the end.
    while soon(silent.read(&mut byte)).await.is_ok_and(|n| n > 0) {}
    node.link().await;
}

#[tokio::test]
async fn garbage_instead_of_http2_costs_its_connection() {
    let mut node = Node::start(AcceptConfig::default()).await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    for garbage in [
        b"GET / HTTP/1.1\r\nHost: node\r\n\r\n".to_vec(),
        vec![0xff; 10_000],
        [preface.clone(), vec![0xff; 10_000]].concat(),
        // A frame longer than allowed; data for a stream that was never opened.
        [&preface[..], &[0, 0, 0, 4, 0, 0, 0, 0, 0], &[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]]
            .concat(),
        [&preface[..], &[0, 0, 0, 4, 0, 0, 0, 0, 0], &[0, 0, 1, 0, 0, 0, 0, 0, 1, 7]].concat(),
    ] {
        let mut peer = TcpStream::connect(node.addr).await.unwrap();
        // The node may have closed before all is written.
        peer.write_all(&garbage).await.ok();
        let mut answer = [0; 1024];
        while soon(peer.read(&mut answer)).await.is_ok_and(|n| n > 0) {}
    }
    node.link().await;
}

#[tokio::test]
async fn other_methods_are_unimplemented() {
    let node = Node::start(AcceptConfig::default()).await;
    let mut connection = RawConnection::open(node.addr).await;
    for path in ["/", "/dataplane.proto.v1.DataPlaneService/Other"] {
        let stream = connection.stream(path).await;
        assert_eq!(stream.response.status(), 200);
        assert_eq!(stream.response.headers()["grpc-status"], "12");
    }
}

#[tokio::test]
async fn streams_of_one_connection_are_links_of_their_own() {
    let mut node = Node::start(AcceptConfig::default()).await;
    let mut connection = RawConnection::open(node.addr).await;
    let mut first = connection.stream(PATH).await;
    let first_key = first.negotiate().await;
    let mut first_accepted = node.accepted().await;
    let mut second = connection.stream(PATH).await;
    let second_key = second.negotiate().await;
    let mut second_accepted = node.accepted().await;

    // A key is of one link, though both have the same id.
    second.send_message(&subscribe(first_key.signed(header()), 1)).await;
    second.send_message(&subscribe(second_key.signed(header()), 2)).await;
    assert_eq!(second_accepted.subscriptions(1).await, [2]);
    assert_eq!(second_accepted.link.frames.drops().bad_mac, 1);

    second.sender = None;
    assert_eq!(second_accepted.end().await, LinkEnd::Ended);
    first.send_message(&subscribe(first_key.signed(header()), 3)).await;
    assert_eq!(first_accepted.subscriptions(1).await, [3]);
}

// ---------------------------------------------------------------- receiving

#[tokio::test]
async fn what_is_there_arrives_in_one_batch() {
    let (_node, peer, key, mut accepted) = raw_link(AcceptConfig::default()).await;
    let all: Vec<u8> =
        (1..=1000).flat_map(|id| framed(&subscribe(key.signed(header()), id).encode())).collect();
    peer.send(all).await;
    let mut ids = Vec::new();
    while ids.len() < 1000 {
        let batch = accepted.batch().await;
        assert!(batch.len() <= MAX_BATCH_FRAMES);
        ids.extend(batch.iter().map(|frame| frame.routed().unwrap().subscription_id()));
    }
    assert_eq!(ids, (1..=1000).collect::<Vec<_>>());
}

#[tokio::test]
async fn one_byte_at_a_time_will_do() {
    let mut node = Node::start(AcceptConfig::default()).await;
    let mut peer = RawStream::open(node.addr).await;
    for byte in framed(&Message::Link(request()).encode()) {
        peer.send(vec![byte]).await;
    }
    let Message::Link(reply) = peer.message().await else {
        panic!("no negotiation");
    };
    let key = support::Key::derive(&reply.ecdh_public_key);
    let mut accepted = node.accepted().await;
    for byte in framed(&subscribe(key.signed(header()), 9).encode()) {
        peer.send(vec![byte]).await;
    }
    assert_eq!(accepted.subscriptions(1).await, [9]);
}

#[tokio::test]
async fn a_strict_link_takes_nothing_without_its_mac() {
    let (_node, peer, key, mut accepted) = raw_link(AcceptConfig::default()).await;
    let wrong = |header: Header| Header { header_mac: Some(vec![1; 32].into()), ..header };
    for header in [header(), wrong(header())] {
        peer.send_message(&subscribe(header.clone(), 1)).await;
        peer.send_message(&publish(header, 1, 10)).await;
    }
    // Signed, then changed on the way.
    let redirected = Header { destination: name("acme/demo/eve"), ..key.signed(header()) };
    peer.send_message(&publish(redirected, 1, 10)).await;
    peer.send_message(&subscribe(key.signed(header()), 2)).await;
    assert_eq!(accepted.subscriptions(1).await, [2]);
    assert_eq!(accepted.link.frames.drops().bad_mac, 5);
}

#[tokio::test]
async fn a_mac_is_known_again_only_with_its_header() {
    let (_node, peer, key, mut accepted) = raw_link(AcceptConfig::default()).await;
    let good = key.signed(header());
    let forged = Header { header_mac: Some(vec![1; 32].into()), ..header() };
    let redirected = Header { destination: name("acme/demo/eve"), ..good.clone() };
    // What passes is longer than what does not.
    for header in [&good, &good, &forged, &forged, &good, &redirected, &redirected, &good] {
        let len = if header == &good { 20 } else { 10 };
        peer.send_message(&publish(header.clone(), 1, len)).await;
        peer.send_message(&subscribe(forged.clone(), 3)).await;
    }
    peer.send_message(&subscribe(good, 2)).await;
    let mut lens = Vec::new();
    loop {
        let batch = accepted.batch().await;
        lens.extend(batch.iter().map(|frame| frame.bytes().len()));
        if matches!(batch.last(), Some(Frame::Subscribe(_))) {
            break;
        }
    }
    lens.pop();
    assert_eq!(lens.len(), 4);
    assert!(lens.iter().all(|len| *len == lens[0]));
    assert_eq!(accepted.link.frames.drops().bad_mac, 4 + 8);
}

#[tokio::test]
async fn a_lenient_link_takes_subscriptions_without_a_mac() {
    let (_node, peer, key, mut accepted) = raw_link(lenient()).await;
    let wrong = Header { header_mac: Some(vec![1; 32].into()), ..header() };
    let empty = Header { header_mac: Some(Bytes::new()), ..header() };
    peer.send_message(&subscribe(header(), 1)).await;
    peer.send_message(&subscribe(empty, 2)).await;
    peer.send_message(&subscribe(key.signed(header()), 3)).await;
    peer.send_message(&subscribe(wrong.clone(), 4)).await;
    peer.send_message(&publish(wrong, 5, 10)).await;
    peer.send_message(&publish(header(), 6, 10)).await;
    peer.send_message(&subscribe(header(), 7)).await;
    assert_eq!(accepted.subscriptions(4).await, [1, 2, 3, 7]);
    assert_eq!(accepted.link.frames.drops().bad_mac, 3);
}

#[tokio::test]
async fn a_lenient_link_may_have_no_key() {
    let mut node = Node::start(lenient()).await;
    let mut peer = RawStream::open(node.addr).await;
    peer.send(spoiled(|r| r.ecdh_public_key = Bytes::new())).await;
    let Message::Link(reply) = peer.message().await else {
        panic!("no negotiation");
    };
    assert!(reply.ecdh_public_key.is_empty());
    let mut accepted = node.accepted().await;
    assert!(!accepted.link.info.has_mac);

    let with_mac = Header { header_mac: Some(vec![1; 32].into()), ..header() };
    peer.send_message(&subscribe(header(), 1)).await;
    peer.send_message(&subscribe(with_mac.clone(), 2)).await;
    peer.send_message(&publish(with_mac, 3, 10)).await;
    peer.send_message(&publish(header(), 4, 10)).await;
    let mut frames = Vec::new();
    while frames.len() < 3 {
        frames.extend(accepted.batch().await);
    }
    assert!(matches!(frames[..], [Frame::Subscribe(_), Frame::Subscribe(_), Frame::Publish(_)]));
    assert_eq!(accepted.link.frames.drops().bad_mac, 1);

    // And what goes out on it has none.
    let Frame::Publish(frame) = &frames[2] else { unreachable!() };
    accepted.link.outbound.try_push(&frame.forward().unwrap()).unwrap();
    accepted.link.outbound.wake();
    let Message::Publish(forwarded) = peer.message().await else {
        panic!("no publish");
    };
    assert_eq!(forwarded.header.header_mac, None);
    assert_eq!(forwarded.header.ttl, 7);
}

#[tokio::test]
async fn what_is_no_message_is_counted_and_skipped() {
    let (_node, peer, key, mut accepted) = raw_link(AcceptConfig::default()).await;
    peer.send(framed(b"garbage")).await;
    peer.send(framed(b"")).await;
    let mut cut = publish(key.signed(header()), 1, 10).encode();
    cut.truncate(cut.len() - 1);
    peer.send(framed(&cut)).await;
    // Means nothing any more, but is one.
    peer.send_message(&Message::Link(request())).await;
    peer.send_message(&subscribe(key.signed(header()), 5)).await;
    let mut frames = Vec::new();
    while frames.len() < 2 {
        frames.extend(accepted.batch().await);
    }
    assert!(matches!(frames[..], [Frame::Link(_), Frame::Subscribe(_)]));
    assert_eq!(accepted.link.frames.drops().malformed, 3);
}

/// After the negotiation, this ends the link for its reader and in good order for
/// the peer.
async fn check_end(bytes: &[u8], half_close: bool, expected: LinkEnd) {
    let (mut node, mut peer, _key, mut accepted) = raw_link(AcceptConfig::default()).await;
    peer.send(bytes.to_vec()).await;
    if half_close {
        peer.sender = None;
    }
    assert_eq!(accepted.end().await, expected);
    assert_eq!(accepted.end().await, expected, "an end stays");
    drop(accepted);
    assert_eq!(peer.recv().await, Received::Status(0));
    node.link().await;
}

#[tokio::test]
async fn broken_framing_ends_the_link() {
    let too_large = (MAX_MESSAGE_LEN as u32 + 1).to_be_bytes();
    let too_large = [&[0][..], &too_large].concat();
    check_end(&too_large, false, LinkEnd::TooLarge(MAX_MESSAGE_LEN + 1)).await;
    check_end(&[1, 0, 0, 0, 1, 0], false, LinkEnd::BadFraming).await;
    check_end(&[0, 0, 0, 0, 9, 1], true, LinkEnd::BadFraming).await;
    check_end(&[], true, LinkEnd::Ended).await;
}

#[tokio::test]
async fn frames_before_the_end_are_handed_out() {
    let (_node, mut peer, key, mut accepted) = raw_link(AcceptConfig::default()).await;
    peer.send_message(&subscribe(key.signed(header()), 1)).await;
    peer.send(&[1, 0, 0, 0, 0][..]).await;
    peer.sender = None;
    assert_eq!(accepted.subscriptions(1).await, [1]);
    assert_eq!(accepted.end().await, LinkEnd::BadFraming);
}

#[tokio::test]
async fn a_peer_that_vanishes_ends_its_link() {
    let mut node = Node::start(AcceptConfig::default()).await;
    // Cancels the stream, as applications do.
    let (link, mut accepted) = node.link().await;
    drop(link);
    let end = accepted.end().await;
    assert_eq!(end, LinkEnd::Ended);

    let tcp = TcpStream::connect(node.addr).await.unwrap();
    let socket = tcp.into_std().unwrap();
    let again = TcpStream::from_std(socket.try_clone().unwrap()).unwrap();
    let mut peer = RawConnection::over(again).await.stream(PATH).await;
    peer.negotiate().await;
    let mut accepted = node.accepted().await;
    socket.shutdown(std::net::Shutdown::Both).unwrap();
    let end = accepted.end().await;
    assert!(matches!(end, LinkEnd::Lost(_)), "{end:?}");
    assert!(accepted.link.outbound.is_closed());
}

// ---------------------------------------------------------------- sending

#[tokio::test]
async fn frames_pass_from_link_to_link() {
    let mut node = Node::start(AcceptConfig::default()).await;
    let (sending, mut from) = node.link().await;
    let (receiving, to) = node.link().await;
    let (sender, _keep) = sending.split();
    let (_keep, mut receiver) = receiving.split();

    let payloads = [0, 10, 5_000, 100_000, 4_000_000];
    for (number, len) in (0..).zip(payloads) {
        sender.send(&publish(header(), number, len)).await.unwrap();
        let ack = Message::SubscriptionAck(SubscriptionAck {
            subscription_id: number.into(),
            result: Ok(()),
        });
        to.link.outbound.try_push_control(&ack).unwrap();
        to.link.outbound.wake();
        assert_eq!(soon(receiver.recv()).await, Ok(ack));

        for frame in from.batch().await {
            let outgoing = frame.routed().unwrap().forward().unwrap();
            to.link.outbound.try_push(&outgoing).unwrap();
        }
        to.link.outbound.wake();
        // The receiver is strict, so the MAC of its own link is on it.
        let Message::Publish(mut arrived) = soon(receiver.recv()).await.unwrap() else {
            panic!("no publish");
        };
        assert_eq!(arrived.header.ttl, 7);
        assert!(arrived.header.header_mac.take().is_some());
        arrived.header.ttl = 8;
        assert_eq!(Message::Publish(arrived), publish(header(), number, len));
    }
    assert_eq!(receiver.drops(), Drops::default());
}

#[tokio::test]
async fn the_peer_learns_why_its_link_was_closed() {
    let mut node = Node::start(AcceptConfig::default()).await;
    for (reason, expected) in [
        (CloseReason::Done, LinkEnd::Ended),
        (
            CloseReason::TooSlow,
            LinkEnd::Status { code: 14, message: "reads too slowly".to_owned() },
        ),
        (CloseReason::Refused, LinkEnd::PermissionDenied("not wanted here".to_owned())),
    ] {
        let (link, mut accepted) = node.link().await;
        let (_sender, mut receiver) = link.split();
        accepted.link.outbound.close(reason);
        assert_eq!(soon(receiver.recv()).await, Err(expected));
        assert_eq!(accepted.end().await, LinkEnd::ClosedHere);
        let frame = Frame::parse(publish(header(), 1, 1).encode()).unwrap();
        let outgoing = frame.routed().unwrap().forward().unwrap();
        let refused = accepted.link.outbound.try_push(&outgoing);
        assert_eq!(refused, Err(PushError::Closed));
    }
}

#[tokio::test]
async fn a_closed_link_ends_even_if_its_peer_never_stops_sending() {
    let (_node, peer, key, mut accepted) = raw_link(AcceptConfig::default()).await;
    let message = framed(&subscribe(key.signed(header()), 1).encode());
    let sender = peer.sender.clone().unwrap();
    let flood = tokio::spawn(async move { while sender.send(message.clone()).await.is_ok() {} });
    accepted.batch().await;
    accepted.link.outbound.close(CloseReason::Done);
    assert_eq!(accepted.end().await, LinkEnd::ClosedHere);
    flood.abort();
}

// ---------------------------------------------------------------- shutdown

#[tokio::test]
async fn a_shutdown_ends_links_in_good_order() {
    let mut node = Node::start(AcceptConfig::default()).await;
    let (link, mut accepted) = node.link().await;
    let (_sender, mut receiver) = link.split();
    let target = node.target();
    // Something is still queued.
    let frame = Frame::parse(publish(header(), 1, 1000).encode()).unwrap();
    let outgoing = frame.routed().unwrap().forward().unwrap();
    accepted.link.outbound.try_push(&outgoing).unwrap();

    node.shut_down();
    assert_eq!(accepted.end().await, LinkEnd::ClosedHere);
    // Before any stream ends, nobody can connect any more.
    let refused = dial(&target, &DialConfig::default()).await.unwrap_err();
    assert!(refused.is_unreachable(), "{refused:?}");
    drop(accepted);
    let queued = soon(receiver.recv()).await;
    assert!(matches!(queued, Ok(Message::Publish(_))), "{queued:?}");
    assert_eq!(soon(receiver.recv()).await, Err(LinkEnd::Ended));
    drop(receiver);
    node.stopped().await;
}

#[tokio::test]
async fn who_has_connected_before_a_shutdown_gets_a_negotiation() {
    let mut node = Node::start(AcceptConfig::default()).await;
    // Is connected, but not accepted before the shutdown.
    let tcp = TcpStream::connect(node.addr).await.unwrap();
    node.shut_down();
    let mut peer = RawConnection::over(tcp).await.stream(PATH).await;
    peer.negotiate().await;
    assert_eq!(peer.recv().await, Received::Status(0));
    drop(peer);
    node.stopped().await;
}

#[tokio::test]
async fn links_that_do_not_end_are_cut() {
    let mut node = Node::start(AcceptConfig {
        drain_timeout: Duration::from_millis(200),
        ..AcceptConfig::default()
    })
    .await;
    // Its task on the node goes on for as long as the test keeps it.
    let (link, _accepted) = node.link().await;
    let (_sender, mut receiver) = link.split();
    // And one that does not read: more is queued than its windows hold.
    let stuck = RawStream::open(node.addr).await;
    stuck.send_message(&Message::Link(request())).await;
    let deaf = node.accepted().await;
    let frame = Frame::parse(publish(header(), 1, 4_000_000).encode()).unwrap();
    let outgoing = frame.routed().unwrap().forward().unwrap();
    deaf.link.outbound.try_push(&outgoing).unwrap();
    deaf.link.outbound.wake();

    node.shut_down();
    node.stopped().await;
    let end = soon(receiver.recv()).await.unwrap_err();
    assert!(matches!(end, LinkEnd::Ended | LinkEnd::Lost(_)), "{end:?}");
    assert!(deaf.link.outbound.is_closed());
}

#[tokio::test]
async fn an_old_connection_keeps_its_links_and_gets_no_further_ones() {
    let max_connection_age = Duration::from_millis(50);
    let keepalive = Keepalive { max_connection_age, ..Keepalive::default() };
    let mut node = Node::start(AcceptConfig { keepalive, ..AcceptConfig::default() }).await;
    let mut connection = RawConnection::open(node.addr).await;
    let mut stream = connection.stream(PATH).await;
    let key = stream.negotiate().await;
    let mut accepted = node.accepted().await;
    soon(connection.ended()).await;
    // The one that is there works as before.
    stream.send_message(&subscribe(key.signed(header()), 7)).await;
    let mut frames = Vec::new();
    soon(accepted.link.frames.read_batch(&mut frames)).await.unwrap();
    assert_eq!(frames.len(), 1);
    let ack = Message::SubscriptionAck(SubscriptionAck { subscription_id: 7, result: Ok(()) });
    accepted.link.outbound.try_push_control(&ack).unwrap();
    accepted.link.outbound.wake();
    assert_eq!(stream.message().await, ack);
}

#[tokio::test]
async fn a_peer_that_gives_no_sign_of_life_is_cut() {
    let (interval, timeout) = (Duration::from_millis(50), Duration::from_millis(50));
    let keepalive = Keepalive { interval, timeout, ..Keepalive::default() };
    // Nothing else ends it.
    let negotiation_timeout = Duration::from_secs(600);
    let config = AcceptConfig { keepalive, negotiation_timeout, ..AcceptConfig::default() };
    let mut node = Node::start(config).await;
    // One that answers stays.
    let (_link, mut lively) = node.link().await;
    let mut silent = frozen(node.addr).await;
    let mut rest = Vec::new();
    soon(silent.read_to_end(&mut rest)).await.ok();
    let mut frames = Vec::new();
    let waiting =
        tokio::time::timeout(3 * (interval + timeout), lively.link.frames.read_batch(&mut frames));
    assert!(waiting.await.is_err(), "the other link is there");
}

/// A peer that says hello in HTTP/2, and nothing from then on.
async fn frozen(addr: std::net::SocketAddr) -> TcpStream {
    let mut tcp = TcpStream::connect(addr).await.unwrap();
    // RFC 9113 §3.4: the preface, empty settings, and that theirs are taken.
    tcp.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    tcp.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0]).await.unwrap();
    tcp
}

#[tokio::test]
async fn a_node_that_is_dropped_takes_its_links_along() {
    let mut node = Node::start(AcceptConfig::default()).await;
    let (link, accepted) = node.link().await;
    let (_sender, mut receiver) = link.split();
    node.abort();
    soon(receiver.recv()).await.unwrap_err();
    drop(accepted);
}

#[tokio::test]
async fn a_task_that_panics_ends_its_link_only() {
    let listener = Listener::bind(&support::any_port().into()).unwrap();
    let target = listener.endpoint().to_string().parse().unwrap();
    // Somebody else holds the queue.
    let (kept, _keep) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(slim_link::serve(
        vec![listener],
        AcceptConfig::default(),
        move |link| {
            kept.send(link.outbound.clone()).unwrap();
            async move {
                assert_ne!(link.info.node_id, "node-unlucky", "as intended");
                std::future::pending().await
            }
        },
        std::future::pending(),
    ));
    let dial_as = async |node_id: &str| {
        let config = DialConfig { node_id: node_id.to_owned(), ..DialConfig::default() };
        dial(&target, &config).await.unwrap().split()
    };
    let (_sender, mut lucky) = dial_as("node-lucky").await;
    let (_sender, mut unlucky) = dial_as("node-unlucky").await;
    assert_eq!(soon(unlucky.recv()).await, Err(LinkEnd::Ended));
    let other = tokio::time::timeout(Duration::from_millis(50), lucky.recv()).await;
    assert!(other.is_err(), "{other:?}");
}

#[tokio::test]
async fn one_node_may_listen_on_several_addresses() {
    let mut listeners = Vec::new();
    for _ in 0..3 {
        listeners.push(Listener::bind(&support::any_port().into()).unwrap());
    }
    let addrs: Vec<_> = listeners.iter().map(|l| l.endpoint().to_string()).collect();
    tokio::spawn(slim_link::serve(
        listeners,
        AcceptConfig::default(),
        |_| std::future::pending(),
        std::future::pending(),
    ));
    for addr in addrs {
        let target = addr.parse().unwrap();
        soon(dial(&target, &DialConfig::default())).await.unwrap();
    }
}
