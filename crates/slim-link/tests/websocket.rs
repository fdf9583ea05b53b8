//! Links over WebSockets.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use slim_link::{
    AcceptConfig, Authenticator, Authorization, ClientTls, CloseReason, DialConfig, DialError,
    Endpoint, Keepalive, KeyPair, Link, LinkEnd, ListenConfig, ListenError, Listener, Pem,
    Principal, ServerTls, Target, dial,
};
use slim_proto::{MAX_MESSAGE_LEN, Message as SlimMessage};
use support::{Node, any_port, header, publish, request, soon};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::{WebSocketStream, client_async};

fn listen(tls: Option<ServerTls>) -> ListenConfig {
    let endpoint = Endpoint::WebSocket { addr: any_port(), is_tls: tls.is_some() };
    ListenConfig { endpoint, tls, auth: None }
}

fn start(config: AcceptConfig) -> Node {
    Node::start_on(&listen(None), config)
}

async fn dial_at(address: &str) -> Result<Link, DialError> {
    soon(dial(&address.parse().unwrap(), &DialConfig::default())).await
}

/// The link carries small and large messages, in both directions.
async fn check_link(link: Link, node: &mut Node) {
    let mut accepted = node.accepted().await;
    let (sender, mut receiver) = link.split();
    let lens = [0, 10, 1000, 100_000, 3_000_000, 5];
    for (number, len) in (1..).zip(lens) {
        sender.send(&publish(header(), number, len)).await.unwrap();
    }
    let mut frames = Vec::new();
    while frames.len() < lens.len() {
        soon(accepted.link.frames.read_batch(&mut frames)).await.unwrap();
    }
    for frame in &frames {
        soon(async {
            while accepted
                .link
                .outbound
                .try_push(&frame.routed().unwrap().forward().unwrap())
                .is_err()
            {
                accepted.link.outbound.space().await;
            }
        })
        .await;
        accepted.link.outbound.wake();
    }
    for (number, len) in (1..).zip(lens) {
        let SlimMessage::Publish(publish) = soon(receiver.recv()).await.unwrap() else {
            panic!("no publish");
        };
        assert_eq!(publish.message_id, number);
        assert_eq!(publish.body.payload_type(), "msg");
        let slim_proto::Body::Msg(payload) = publish.body else { panic!("no data") };
        assert_eq!(payload.blob.len(), len);
    }
}

#[tokio::test]
async fn a_link_carries_messages_of_any_size() {
    let mut node = start(AcceptConfig::default());
    let link = dial_at(&format!("ws://{}", node.addr)).await.unwrap();
    assert!(link.info().has_mac);
    check_link(link, &mut node).await;
}

#[tokio::test]
async fn a_link_over_tls_carries_messages() {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    let ca = Pem::Text(certificate.pem());
    let identity = KeyPair { certificate: ca.clone(), key: Pem::Text(key.serialize_pem()) };
    let mut node = Node::start_on(&listen(Some(ServerTls::new(identity))), AcceptConfig::default());
    let tls = ClientTls { ca: Some(ca), ..ClientTls::default() };
    let config = DialConfig { tls, ..DialConfig::default() };
    let target: Target = format!("wss://{}", node.addr).parse().unwrap();
    assert!(target.is_tls());
    let link = soon(dial(&target, &config)).await.unwrap();
    check_link(link, &mut node).await;

    let error = dial_at(&format!("ws://{}", node.addr)).await.unwrap_err();
    assert!(matches!(error, DialError::SpeaksTls), "{error:?}");
}

#[tokio::test]
async fn either_side_ends_a_link() {
    let mut node = start(AcceptConfig::default());
    let link = dial_at(&format!("ws://{}", node.addr)).await.unwrap();
    let mut accepted = node.accepted().await;
    let (sender, mut receiver) = link.split();
    sender.close();
    let end = soon(accepted.link.frames.read_batch(&mut Vec::new())).await.unwrap_err();
    assert_eq!(end, LinkEnd::Ended);
    drop(accepted);
    assert_eq!(soon(receiver.recv()).await.unwrap_err(), LinkEnd::Ended);

    for (reason, check) in [
        (CloseReason::Done, (|end| *end == LinkEnd::Ended) as fn(&LinkEnd) -> bool),
        (CloseReason::Refused, |end| matches!(end, LinkEnd::PermissionDenied(_))),
        (CloseReason::TooSlow, |end| matches!(end, LinkEnd::Status { code: 14, .. })),
    ] {
        let mut link = dial_at(&format!("ws://{}", node.addr)).await.unwrap().split();
        let accepted = node.accepted().await;
        accepted.link.outbound.close(reason);
        let end = soon(link.1.recv()).await.unwrap_err();
        assert!(check(&end), "{reason:?}: {end:?}");
    }
}

#[tokio::test]
async fn a_node_that_stops_sends_what_is_queued_first() {
    let mut node = start(AcceptConfig::default());
    let (sender, mut receiver) = dial_at(&format!("ws://{}", node.addr)).await.unwrap().split();
    let mut accepted = node.accepted().await;
    sender.send(&publish(header(), 1, 100_000)).await.unwrap();
    let mut frames = Vec::new();
    soon(accepted.link.frames.read_batch(&mut frames)).await.unwrap();
    accepted.link.outbound.try_push(&frames[0].routed().unwrap().forward().unwrap()).unwrap();
    node.shut_down();
    assert!(matches!(soon(receiver.recv()).await.unwrap(), SlimMessage::Publish(_)));
    assert_eq!(soon(receiver.recv()).await.unwrap_err(), LinkEnd::Ended);
    drop(accepted);
    node.stopped().await;
}

#[tokio::test]
async fn a_peer_that_is_gone_without_a_word_is_noticed() {
    let interval = Duration::from_millis(20);
    let keepalive = Keepalive { interval, timeout: interval, ..Keepalive::default() };
    let mut node = start(AcceptConfig { keepalive, ..AcceptConfig::default() });
    let mut peer = raw(node.addr).await;
    peer.send(Message::Binary(SlimMessage::Link(request()).encode())).await.unwrap();
    let mut silent = node.accepted().await;
    // Nobody polls `peer` any more, so it answers no ping.
    let end = soon(silent.link.frames.read_batch(&mut Vec::new())).await.unwrap_err();
    assert!(matches!(end, LinkEnd::Lost(_)), "{end:?}");

    // One that is there, and has nothing to say, stays.
    let mut link = dial_at(&format!("ws://{}", node.addr)).await.unwrap().split();
    let mut accepted = node.accepted().await;
    let mut batch = Vec::new();
    tokio::select! {
        end = accepted.link.frames.read_batch(&mut batch) => panic!("{end:?}"),
        end = link.1.recv() => panic!("{end:?}"),
        () = tokio::time::sleep(20 * interval) => {}
    }
}

// ---------------------------------------------------------------- refusals

async fn raw(addr: SocketAddr) -> WebSocketStream<TcpStream> {
    let tcp = TcpStream::connect(addr).await.unwrap();
    soon(client_async(format!("ws://{addr}/"), tcp)).await.unwrap().0
}

/// What a raw request is answered with.
async fn http(addr: SocketAddr, request: &str) -> String {
    let mut tcp = TcpStream::connect(addr).await.unwrap();
    tcp.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon(tcp.read_to_string(&mut answer)).await.unwrap();
    answer
}

#[tokio::test]
async fn other_requests_are_answered_and_over() {
    let node = start(AcceptConfig::default());
    let upgrade = "Host: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n";
    let key = "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";
    let version = "Sec-WebSocket-Version: 13\r\n";
    for (request, status) in [
        (format!("GET /other HTTP/1.1\r\n{upgrade}{key}{version}\r\n"), "404"),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), "400"),
        ("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), "400"),
        (format!("POST / HTTP/1.1\r\n{upgrade}{key}{version}\r\n"), "400"),
        (format!("GET / HTTP/1.1\r\n{upgrade}{version}\r\n"), "400"),
        (format!("GET / HTTP/1.1\r\n{upgrade}{key}\r\n"), "400"),
    ] {
        let answer = http(node.addr, &request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
    }
    let error = dial_at(&format!("ws://{}/other", node.addr)).await.unwrap_err();
    assert!(matches!(error, DialError::Refused { http: 404, grpc: None, .. }), "{error:?}");
    // A gRPC peer at the wrong address, and the other way round.
    let error = dial_at(&node.addr.to_string()).await.unwrap_err();
    assert!(matches!(error, DialError::Broken { .. }), "{error:?}");
    let grpc = Node::start(AcceptConfig::default()).await;
    let error = dial_at(&format!("ws://{}", grpc.addr)).await.unwrap_err();
    assert!(matches!(error, DialError::Broken { .. }), "{error:?}");
}

/// The code and the text that end a socket after these messages.
async fn closed_after(addr: SocketAddr, messages: Vec<Message>) -> (CloseCode, String) {
    let mut peer = raw(addr).await;
    for message in messages {
        // It may be over already.
        peer.send(message).await.ok();
    }
    loop {
        match soon(peer.next()).await {
            Some(Ok(Message::Close(Some(frame)))) => return (frame.code, frame.reason.to_string()),
            Some(Ok(_)) => {}
            other => panic!("no close frame: {other:?}"),
        }
    }
}

#[tokio::test]
async fn what_is_not_the_protocol_is_refused_in_words() {
    let refusal_pause = Duration::from_millis(10);
    let node = start(AcceptConfig { refusal_pause, ..AcceptConfig::default() });
    let binary = |bytes: &[u8]| Message::Binary(Bytes::copy_from_slice(bytes));
    let (code, text) = closed_after(node.addr, vec![binary(b"hello")]).await;
    assert_eq!((code, text.is_empty()), (CloseCode::Policy, false));
    let (code, _) = closed_after(node.addr, vec![Message::text("hello")]).await;
    assert_eq!(code, CloseCode::Unsupported);
}

#[tokio::test]
async fn a_link_takes_no_message_that_is_too_long() {
    let mut node = start(AcceptConfig::default());
    let mut peer = raw(node.addr).await;
    peer.send(Message::Binary(SlimMessage::Link(request()).encode())).await.unwrap();
    let mut accepted = node.accepted().await;
    // Not all of it is taken.
    let long = Message::Binary(vec![0; MAX_MESSAGE_LEN + 1].into());
    let sends = tokio::spawn(async move { peer.send(long).await });
    let end = soon(accepted.link.frames.read_batch(&mut Vec::new())).await.unwrap_err();
    assert_eq!(end, LinkEnd::TooLarge(MAX_MESSAGE_LEN + 1));
    drop(accepted);
    soon(sends).await.unwrap().unwrap_err();
}

#[tokio::test]
async fn who_has_not_negotiated_is_given_little_memory_and_time() {
    let negotiation_timeout = Duration::from_millis(200);
    let node = start(AcceptConfig { negotiation_timeout, ..AcceptConfig::default() });
    let mut peer = raw(node.addr).await;
    peer.send(Message::Binary(vec![0; 1024 * 1024].into())).await.ok();
    // Broken, by a reset perhaps, long before all of it was taken.
    while let Some(Ok(_)) = soon(peer.next()).await {}
    // Nothing at all, half a request, a socket without a word.
    for request in ["", "GET / HTTP/1.1\r\nHost: a\r\n"] {
        let mut tcp = TcpStream::connect(node.addr).await.unwrap();
        tcp.write_all(request.as_bytes()).await.unwrap();
        soon(tcp.read_to_end(&mut Vec::new())).await.ok();
    }
    let mut silent = raw(node.addr).await;
    while let Some(Ok(_)) = soon(silent.next()).await {}
}

// ---------------------------------------------------------------- addresses

#[test]
fn addresses_of_sockets() {
    for (text, shown) in [
        ("ws://node:80", Some("ws://node:80/")),
        ("wss://[::1]:9/", Some("wss://[::1]:9/")),
        ("ws://node:80/a/b", Some("ws://node:80/a/b")),
        ("ws://node/", None),
        ("ws://node:80/?token=a", None),
        ("ws://user@node:80/", None),
        ("ws://node:80/ ", None),
    ] {
        let target = text.parse::<Target>().ok();
        assert_eq!(target.map(|target| target.to_string()).as_deref(), shown, "{text}");
    }
    for (text, shown) in [
        ("ws://127.0.0.1:80", Some("ws://127.0.0.1:80")),
        ("wss://[::1]:80/", Some("wss://[::1]:80")),
        ("ws://localhost:80", None),
        ("ws://127.0.0.1:80/path", None),
        ("http://127.0.0.1:80", None),
    ] {
        let endpoint = text.parse::<Endpoint>().ok();
        assert_eq!(endpoint.map(|endpoint| endpoint.to_string()).as_deref(), shown, "{text}");
    }
}

#[tokio::test]
async fn the_scheme_and_the_certificates_have_to_fit() {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::default().self_signed(&key).unwrap();
    let identity =
        KeyPair { certificate: Pem::Text(certificate.pem()), key: Pem::Text(key.serialize_pem()) };
    let tls = Some(ServerTls::new(identity));
    let bind = |tls, is_tls| {
        let endpoint = Endpoint::WebSocket { addr: any_port(), is_tls };
        Listener::bind(&ListenConfig { endpoint, tls, auth: None }).unwrap_err()
    };
    assert!(matches!(bind(None, true), ListenError::NoCertificate));
    assert!(matches!(bind(tls, false), ListenError::TlsOnPlainWebSocket));
}

// ---------------------------------------------------------------- who opens it

/// Who shows `Bearer good` is good.
#[derive(Debug)]
struct Good;

impl Authenticator for Good {
    fn authenticate(&self, authorization: Option<&str>) -> Result<Principal, String> {
        match authorization {
            Some("Bearer good") => Ok(Principal::Basic("good".to_owned())),
            _ => Err("not good".to_owned()),
        }
    }
}

#[tokio::test]
async fn a_node_may_ask_who_opens_a_link() {
    let refusal_pause = Duration::from_millis(10);
    let config = AcceptConfig { refusal_pause, ..AcceptConfig::default() };
    let counters = Arc::clone(&config.counters);
    let auth: Option<Arc<dyn Authenticator>> = Some(Arc::new(Good));
    let mut node = Node::start_on(&ListenConfig { auth, ..listen(None) }, config);
    let target: Target = format!("ws://{}", node.addr).parse().unwrap();
    let dial_with = async |shown: &'static str| {
        let authorization = Some(Authorization::new(move || Ok(shown.to_owned())));
        soon(dial(&target, &DialConfig { authorization, ..DialConfig::default() })).await
    };
    let _link = dial_with("Bearer good").await.unwrap();
    assert_eq!(*node.accepted().await.link.info.principals, [Principal::Basic("good".to_owned())]);
    let error = dial_with("Bearer bad").await.unwrap_err();
    assert!(matches!(&error, DialError::Unauthenticated(why) if why == "not good"), "{error:?}");
    let error = dial_at(&target.to_string()).await.unwrap_err();
    assert!(matches!(&error, DialError::Unauthenticated(why) if why == "not good"), "{error:?}");
    assert_eq!(counters.unauthenticated_links(), 2);

    // As a browser has to, that can set no header.
    for (query, is_let_in) in
        [("?token=good", true), ("?a=b&token=good", true), ("?token=x", false)]
    {
        let tcp = TcpStream::connect(node.addr).await.unwrap();
        let opened = soon(client_async(format!("ws://{}/{query}", node.addr), tcp)).await;
        assert_eq!(opened.is_ok(), is_let_in, "{query}");
    }
}
