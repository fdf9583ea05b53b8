//! The dialling side against nodes of every kind, on real sockets.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use slim_link::{
    AcceptConfig, Authorization, DialConfig, DialError, DialStage, Drops, Link, LinkEnd,
    LinkSender, NegotiationError, PeerAddr, SendError, Target, TargetError, dial,
};
use slim_proto::{ConnectionType, Frame, LinkNegotiation, MAX_MESSAGE_LEN, Message};
use support::{ChannelBody, Node, framed, header, name, publish, request, soon, subscribe};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;

fn impatient() -> DialConfig {
    DialConfig {
        link_id: support::LINK_ID.to_owned(),
        negotiation_timeout: Duration::from_millis(300),
        ..DialConfig::default()
    }
}

fn lenient() -> DialConfig {
    DialConfig { require_header_mac: false, ..impatient() }
}

async fn dial_addr(addr: SocketAddr, config: &DialConfig) -> Result<Link, DialError> {
    soon(dial(&addr.to_string().parse().unwrap(), config)).await
}

/// A listener whose connections get this as the answer to whatever they say, and
/// then nothing more.
async fn blurting(answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut tcp, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                tcp.write_all(answer).await.ok();
                let mut ignored = [0; 1024];
                while tcp.read(&mut ignored).await.is_ok_and(|n| n > 0) {}
            });
        }
    });
    addr
}

/// An HTTP/2 server with this answer to every request.
async fn answering<B>(answer: fn(Request<Incoming>) -> Response<B>) -> SocketAddr
where
    B: Body<Data = Bytes, Error = Infallible> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let service =
                service_fn(move |request| async move { Ok::<_, Infallible>(answer(request)) });
            tokio::spawn(
                hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(tcp), service),
            );
        }
    });
    addr
}

/// A stream that begins with these bytes and stays open.
fn open_stream(bytes: Bytes) -> Response<ChannelBody> {
    let (sender, body) = mpsc::channel(1);
    sender.try_send(bytes).unwrap();
    tokio::spawn(async move { sender.closed().await });
    Response::new(ChannelBody::new(body))
}

fn reply() -> LinkNegotiation {
    LinkNegotiation { is_reply: true, ..request() }
}

fn keyless_reply() -> LinkNegotiation {
    LinkNegotiation { ecdh_public_key: Bytes::new(), ..reply() }
}

fn stream_of(reply: LinkNegotiation) -> Response<ChannelBody> {
    open_stream(framed(&Message::Link(reply).encode()))
}

// ---------------------------------------------------------------- targets

#[test]
fn targets_parse_and_print() {
    for (text, shown) in [
        ("localhost:46357", "http://localhost:46357"),
        ("http://localhost:46357", "http://localhost:46357"),
        ("http://127.0.0.1:1/", "http://127.0.0.1:1"),
        ("[::1]:46357", "http://[::1]:46357"),
        ("node.example.org:65535", "http://node.example.org:65535"),
        ("https://localhost:46357", "https://localhost:46357"),
        ("https://[::1]:46357/", "https://[::1]:46357"),
        ("unix:///run/slim.sock", "unix:///run/slim.sock"),
    ] {
        let target: Target = text.parse().unwrap();
        assert_eq!(target.to_string(), shown);
        assert_eq!(shown.parse::<Target>().unwrap(), target);
    }
}

#[test]
fn what_cannot_be_dialled_is_named() {
    let check = |text: &str, error: fn(String) -> TargetError| {
        assert_eq!(text.parse::<Target>(), Err(error(text.to_owned())));
    };
    for text in [
        "",
        "localhost",
        "localhost:",
        "localhost:0",
        "localhost:65536",
        ":46357",
        "http://",
        "http://localhost",
        "a b:1",
        "user@host:1",
        "host[::1]:1",
        "[host]:1",
        "[::1]host:1",
        "[::1],:1",
        "[]:1",
        "host:1/path",
        "http://host:1/path",
    ] {
        check(text, TargetError::Malformed);
    }
    check("https://localhost", TargetError::Malformed);
    check("ftp://localhost:46357", TargetError::Scheme);
    check("unix://run/node", TargetError::Malformed);
    check("unix:///", TargetError::Malformed);
}

// ---------------------------------------------------------------- links

#[tokio::test]
async fn a_link_carries_messages_in_order() {
    let mut node = Node::start(AcceptConfig::default()).await;
    let config = DialConfig {
        node_id: "node-a".to_owned(),
        connection_type: ConnectionType::Remote,
        ..DialConfig::default()
    };
    let link = dial_addr(node.addr, &config).await.unwrap();
    assert_eq!(link.info().link_id, config.link_id);
    assert_eq!(link.info().connection_type, ConnectionType::Remote);
    assert_eq!(link.info().peer_addr, PeerAddr::Ip(node.addr));
    assert!(link.info().has_mac);
    let mut accepted = node.accepted().await;
    assert_eq!(accepted.link.info.node_id, "node-a");

    let (sender, _receiver) = link.split();
    let sizes = |number: u32| [0, 100, 20_000][number as usize % 3];
    for number in 0..300 {
        let message = publish(header(), number, sizes(number));
        sender.send(&message).await.unwrap();
    }
    let mut frames = Vec::new();
    while frames.len() < 300 {
        soon(accepted.link.frames.read_batch(&mut frames)).await.unwrap();
    }
    for (number, frame) in (0..).zip(frames) {
        let Message::Publish(mut publish) = Message::decode(frame.bytes().clone()).unwrap() else {
            panic!("no publish");
        };
        publish.header.header_mac = None;
        let expected = support::publish(header(), number, sizes(number));
        assert_eq!(Message::Publish(publish), expected);
    }
    assert_eq!(accepted.link.frames.drops(), Drops::default());
}

#[tokio::test]
async fn the_largest_message_passes_and_a_larger_one_does_no_harm() {
    let mut node = Node::start(AcceptConfig::default()).await;
    let (link, mut accepted) = node.link().await;
    let (sender, _receiver) = link.split();
    // The header grows by its MAC, key and length included.
    let room = MAX_MESSAGE_LEN - 34 - publish(header(), 1, 4_000_000).encoded_len();
    let send = |extra| {
        let message = publish(header(), 1, 4_000_000 + room + extra);
        let sender = sender.clone();
        async move { soon(sender.send(&message)).await }
    };
    let too_large = |len| Err(SendError::TooLarge(len));
    assert_eq!(send(1).await, too_large(MAX_MESSAGE_LEN + 1));
    // What is too long by itself is not even signed.
    assert_eq!(send(100_000).await, too_large(MAX_MESSAGE_LEN + 100_000 - 34));
    assert_eq!(send(0).await, Ok(()));
    let mut frames = Vec::new();
    soon(accepted.link.frames.read_batch(&mut frames)).await.unwrap();
    assert_eq!(frames[0].bytes().len(), MAX_MESSAGE_LEN);
}

/// Sends until neither the queue nor the transport takes any more; how many.
async fn fill(sender: &LinkSender) -> usize {
    let message = publish(header(), 1, 100_000);
    let mut sent = 0;
    while let Ok(result) = timeout(Duration::from_millis(100), sender.send(&message)).await {
        result.unwrap();
        sent += 1;
    }
    assert_eq!(sender.try_send(&message), Err(SendError::Full));
    sent
}

#[tokio::test]
async fn a_sender_waits_for_a_node_that_does_not_read() {
    let mut node = Node::start(AcceptConfig::default()).await;
    let (link, mut accepted) = node.link().await;
    let (sender, _receiver) = link.split();
    let sent = fill(&sender).await;
    // Cancelled, so it is not there.
    let reading = tokio::spawn(async move {
        let mut frames = Vec::new();
        while frames.len() < sent + 1 {
            soon(accepted.link.frames.read_batch(&mut frames)).await.unwrap();
        }
        frames.len()
    });
    soon(sender.send(&publish(header(), 1, 10))).await.unwrap();
    assert_eq!(reading.await.unwrap(), sent + 1);
}

#[tokio::test]
async fn the_last_sender_ends_the_stream_and_loses_nothing() {
    let mut node = Node::start(AcceptConfig::default()).await;
    for explicitly in [true, false] {
        let (link, mut accepted) = node.link().await;
        let (sender, mut receiver) = link.split();
        let clone = sender.clone();
        sender.send(&publish(header(), 1, 3_000_000)).await.unwrap();
        drop(sender);
        clone.send(&publish(header(), 2, 1)).await.unwrap();
        if explicitly {
            clone.close();
            let closed = clone.send(&publish(header(), 3, 1)).await;
            assert_eq!(closed, Err(SendError::Closed));
        }
        drop(clone);
        let mut frames = Vec::new();
        let end = loop {
            match soon(accepted.link.frames.read_batch(&mut frames)).await {
                Ok(()) => {}
                Err(end) => break end,
            }
        };
        assert_eq!((frames.len(), end), (2, LinkEnd::Ended));
        drop(accepted);
        assert_eq!(soon(receiver.recv()).await, Err(LinkEnd::Ended));
    }
}

#[tokio::test]
async fn dropping_the_receiver_cancels_the_link() {
    let mut node = Node::start(AcceptConfig::default()).await;
    let (link, mut accepted) = node.link().await;
    let (sender, receiver) = link.split();
    drop(receiver);
    let closed = sender.send(&publish(header(), 1, 10)).await;
    assert_eq!(closed, Err(SendError::Closed));
    let end = soon(accepted.link.frames.read_batch(&mut Vec::new())).await;
    assert_eq!(end, Err(LinkEnd::Ended));
}

#[tokio::test]
async fn a_node_that_does_not_read_cannot_keep_the_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let connection = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let service = service_fn(async |request: Request<Incoming>| {
            tokio::spawn(async move {
                let _unread = request;
                std::future::pending::<()>().await
            });
            Ok::<_, Infallible>(stream_of(keyless_reply()))
        });
        hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(tcp), service)
            .await
    });
    let (sender, receiver) = dial_addr(addr, &lenient()).await.unwrap().split();
    fill(&sender).await;
    drop((sender, receiver));
    // The end of the stream is stuck behind the rest; the connection ends anyway, how
    // does not matter.
    soon(connection).await.unwrap().ok();
}

#[tokio::test]
async fn a_receiver_skips_what_is_not_for_it() {
    let mut node = Node::start(AcceptConfig::default()).await;
    let (link, accepted) = node.link().await;
    let (_sender, mut receiver) = link.split();
    let push = |message: &Message| {
        let frame = Frame::parse(message.encode()).unwrap();
        let outgoing = frame.routed().unwrap().forward().unwrap();
        accepted.link.outbound.try_push(&outgoing).unwrap();
    };
    // A frame, but no message: its name says one thing and hashes to another.
    let mut dishonest = slim_proto::pb::Name::from(&name("acme/demo/bob"));
    dishonest.str_name.as_mut().unwrap().str_component_2 = "eve".to_owned();
    let mut wire: slim_proto::pb::Message = (&subscribe(header(), 1)).into();
    let Some(slim_proto::pb::message::MessageType::Subscribe(inner)) = &mut wire.message_type
    else {
        unreachable!()
    };
    inner.header.as_mut().unwrap().destination = Some(dishonest);
    let frame = Frame::parse(prost::Message::encode_to_vec(&wire).into()).unwrap();
    let outgoing = frame.routed().unwrap().forward().unwrap();
    accepted.link.outbound.try_push(&outgoing).unwrap();
    push(&subscribe(header(), 2));
    accepted.link.outbound.wake();

    let Message::Subscribe(arrived) = soon(receiver.recv()).await.unwrap() else {
        panic!("no subscribe");
    };
    assert_eq!(arrived.subscription_id, 2);
    assert_eq!(receiver.drops().malformed, 1);
}

// ---------------------------------------------------------------- nodes that are none

#[tokio::test]
async fn a_closed_port_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    let error = dial_addr(addr, &DialConfig::default()).await.unwrap_err();
    assert!(matches!(error, DialError::Unreachable(_)), "{error:?}");
    assert!(error.is_unreachable());
}

#[tokio::test]
async fn an_unknown_host_is_unreachable() {
    let target = "host.invalid:46357".parse().unwrap();
    let error = soon(dial(&target, &DialConfig::default())).await.unwrap_err();
    assert!(matches!(error, DialError::Unreachable(_)), "{error:?}");
}

async fn check_times_out(addr: SocketAddr, stage: DialStage) {
    let error = dial_addr(addr, &impatient()).await.unwrap_err();
    assert!(matches!(error, DialError::Timeout(s) if s == stage), "{error:?}");
    assert!(!error.is_unreachable());
}

#[tokio::test]
async fn who_accepts_and_says_nothing_is_given_up() {
    check_times_out(blurting(b"").await, DialStage::Open).await;
    let headers_only = answering(|_| open_stream(Bytes::new())).await;
    check_times_out(headers_only, DialStage::Negotiate).await;
    let half_a_reply = answering(|_| {
        let whole = framed(&Message::Link(reply()).encode());
        open_stream(whole.slice(..40))
    });
    check_times_out(half_a_reply.await, DialStage::Negotiate).await;
}

#[tokio::test]
async fn who_speaks_something_else_is_told_apart() {
    for answer in
        [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], b"SSH-2.0-OpenSSH_9.6\r\n", &[0xff; 1000]]
    {
        let addr = blurting(answer).await;
        let error = dial_addr(addr, &DialConfig::default()).await.unwrap_err();
        let open = DialStage::Open;
        assert!(matches!(&error, DialError::Broken { stage, .. } if *stage == open), "{error:?}");
    }
}

#[tokio::test]
async fn a_refusal_says_what_the_node_said() {
    let refused = |addr| async move {
        match dial_addr(addr, &DialConfig::default()).await.unwrap_err() {
            DialError::Refused { http, grpc, message } => (http, grpc, message),
            other => panic!("not refused: {other:?}"),
        }
    };
    let unauthorized = answering(|_| {
        let mut response = open_stream(Bytes::new());
        *response.status_mut() = StatusCode::FORBIDDEN;
        response
    });
    assert_eq!(refused(unauthorized.await).await, (403, None, String::new()));
    let exhausted = answering(|_| {
        let mut response = open_stream(Bytes::new());
        let headers = response.headers_mut();
        headers.insert("grpc-status", http::HeaderValue::from_static("8"));
        headers.insert("grpc-message", http::HeaderValue::from_static("who are you"));
        response
    });
    let said = (200, Some(8), "who are you".to_owned());
    assert_eq!(refused(exhausted.await).await, said);
}

#[tokio::test]
async fn a_node_that_does_not_know_us_is_told_apart() {
    let unknown = |addr| async move {
        match dial_addr(addr, &DialConfig::default()).await.unwrap_err() {
            DialError::Unauthenticated(message) => message,
            other => panic!("not unauthenticated: {other:?}"),
        }
    };
    // As others say it.
    let unauthorized = answering(|_| {
        let mut response = open_stream(Bytes::new());
        *response.status_mut() = StatusCode::UNAUTHORIZED;
        response
    });
    assert_eq!(unknown(unauthorized.await).await, "");
    let unauthenticated = answering(|_| {
        let mut response = open_stream(Bytes::new());
        let headers = response.headers_mut();
        headers.insert("grpc-status", http::HeaderValue::from_static("16"));
        headers.insert("grpc-message", http::HeaderValue::from_static("who are you"));
        response
    });
    assert_eq!(unknown(unauthenticated.await).await, "who are you");
}

#[tokio::test]
async fn who_has_nothing_to_show_does_not_dial() {
    let authorization = Some(Authorization::new(|| Err("no token there".to_owned())));
    let config = DialConfig { authorization, ..DialConfig::default() };
    // Nobody listens there, and nobody asks.
    let error = dial_addr(([127, 0, 0, 1], 1).into(), &config).await.unwrap_err();
    assert!(
        matches!(&error, DialError::NothingToShow(why) if why == "no token there"),
        "{error:?}"
    );
}

async fn check_negotiation(addr: SocketAddr, expected: NegotiationError) {
    match dial_addr(addr, &impatient()).await.unwrap_err() {
        DialError::Negotiation(error) => assert_eq!(error, expected),
        other => panic!("not a negotiation error: {other:?}"),
    }
}

#[tokio::test]
async fn a_bad_reply_fails_the_negotiation() {
    let is_request = answering(|_| stream_of(request())).await;
    check_negotiation(is_request, NegotiationError::Direction).await;
    let versionless =
        answering(|_| stream_of(LinkNegotiation { slim_version: String::new(), ..reply() }));
    check_negotiation(versionless.await, NegotiationError::Version(String::new())).await;
    let keyless = answering(|_| stream_of(keyless_reply()));
    check_negotiation(keyless.await, NegotiationError::KeyLength(0)).await;
    let other_link =
        answering(|_| stream_of(LinkNegotiation { link_id: "other".to_owned(), ..reply() }));
    check_negotiation(other_link.await, NegotiationError::OtherLinkId).await;
    let no_link = answering(|_| open_stream(framed(&subscribe(header(), 1).encode()))).await;
    check_negotiation(no_link, NegotiationError::NotANegotiation).await;
    let garbage = answering(|_| open_stream(framed(b"garbage"))).await;
    check_negotiation(garbage, NegotiationError::NotANegotiation).await;
    let ends = answering(|_| Response::new(ChannelBody::new(mpsc::channel(1).1))).await;
    check_negotiation(ends, NegotiationError::Ended).await;
    let compressed = answering(|_| open_stream(Bytes::from_static(&[1, 0, 0, 0, 0])));
    let error = NegotiationError::Stream("not an uncompressed gRPC message".to_owned());
    check_negotiation(compressed.await, error).await;
}

#[tokio::test]
async fn a_lenient_dialler_does_without_a_key() {
    let addr = answering(|_| stream_of(keyless_reply()));
    let config = DialConfig { require_header_mac: false, ..impatient() };
    let link = dial_addr(addr.await, &config).await.unwrap();
    assert!(!link.info().has_mac);
}
