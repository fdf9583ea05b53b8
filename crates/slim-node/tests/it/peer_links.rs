//! Links between nodes over TLS, WebSockets and Unix sockets, and with passwords: who is
//! let in, and what is said to who is not.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer};
use slim_auth::{Users, basic};
use slim_link::{Authorization, ClientTls, DialConfig, KeyPair, Pem, ServerTls, dial, with_causes};
use slim_node::{Endpoint, LinkAuth, ListenConfig, NodeConfig, PeerConfig};
use slim_proto::{ConnectionType, Header, UNICAST};

use crate::common::{Client, TestNode, config, name, publish, text, within};
use crate::peers::{joined, peer};

/// Who issues certificates.
struct Authority {
    pem: Pem,
    issuer: Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = Pem::Text(params.self_signed(&key).unwrap().pem());
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// A certificate for a host of this name.
    fn issue(&self, host: &str) -> KeyPair {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        let certificate = Pem::Text(params.signed_by(&key, &self.issuer).unwrap().pem());
        KeyPair { certificate, key: Pem::Text(key.serialize_pem()) }
    }

    /// How to dial b, with a certificate for this host.
    fn client(&self, host: &str) -> ClientTls {
        ClientTls {
            ca: Some(self.pem.clone()),
            identity: Some(self.issue(host)),
            server_name: Some("b".to_owned()),
            ..ClientTls::default()
        }
    }

    /// Node b, which asks for certificates and knows a peer.
    async fn node(&self, a: PeerConfig) -> TestNode {
        let tls =
            ServerTls { client_ca: Some(self.pem.clone()), ..ServerTls::new(self.issue("b")) };
        listening(ListenConfig { tls: Some(tls), ..config().listen.remove(0) }, a).await
    }
}

/// Node b, which knows a.
async fn listening(listen: ListenConfig, a: PeerConfig) -> TestNode {
    TestNode::start_with(NodeConfig { listen: vec![listen], ..joined("b", vec![a]) }).await
}

/// Node a, which dials b.
async fn dialling(target: &str, change: impl FnOnce(&mut PeerConfig)) -> TestNode {
    let mut b = PeerConfig { target: Some(target.parse().unwrap()), ..peer("b", None) };
    change(&mut b);
    TestNode::start_with(joined("a", vec![b])).await
}

/// Both are joined, and something gets from an application at a to one at b.
async fn are_joined(a: &TestNode, b: &TestNode) {
    a.until(|metrics| metrics.peers == 1).await;
    b.until(|metrics| metrics.peers == 1).await;
    let (alice, mut bob) = (Client::start(a, "alice", 1).await, Client::start(b, "bob", 2).await);
    a.until(|metrics| metrics.peer_names == 1).await;
    alice.send(&publish(Header::new(name("alice", 1), name("bob", 2), UNICAST), "hello")).await;
    assert_eq!(text(&bob.next().await), "hello");
}

/// What node a is told when it dials.
async fn refusal(target: &str, tls: ClientTls, authorization: Option<Authorization>) -> String {
    let config = DialConfig {
        node_id: "a".to_owned(),
        connection_type: ConnectionType::Peer,
        tls,
        authorization,
        ..DialConfig::default()
    };
    match within(dial(&target.parse().unwrap(), &config)).await {
        Ok(link) => panic!("{:?}", link.info()),
        // What the node says is quoted.
        Err(error) => with_causes(&error).replace("\\\"", "\""),
    }
}

#[tokio::test]
async fn certificates_say_which_node_it_is() {
    let authority = Authority::new();
    let b = authority.node(peer("a", None)).await;
    let a = dialling(&format!("https://{}", b.addr), |b| b.tls = authority.client("a")).await;
    a.until(|metrics| metrics.peers == 1).await;
    b.until(|metrics| metrics.peers == 1).await;
    assert_eq!((a.metrics().failed_dials, b.metrics().refused_links), (0, 0));
}

#[tokio::test]
async fn a_peer_may_have_another_name_in_its_certificate() {
    let authority = Authority::new();
    let principal = Some("dns:a.example.org".parse().unwrap());
    let b = authority.node(PeerConfig { principal, ..peer("a", None) }).await;
    let target = format!("https://{}", b.addr);
    let told = refusal(&target, authority.client("a"), None).await;
    assert!(told.contains("\"a\" has to be dns:a.example.org"), "{told}");
    let a = dialling(&target, |b| b.tls = authority.client("a.example.org")).await;
    b.until(|metrics| metrics.peers == 1).await;
    assert_eq!(a.metrics().failed_dials, 0);
}

#[tokio::test]
async fn a_certificate_for_somebody_else_makes_no_peer() {
    let (authority, other) = (Authority::new(), Authority::new());
    let b = authority.node(peer("a", None)).await;
    let target = format!("https://{}", b.addr);
    let foreign = ClientTls { identity: Some(other.issue("a")), ..authority.client("a") };
    let nameless = ClientTls { identity: None, ..authority.client("a") };
    let misled = ClientTls { server_name: Some("c".to_owned()), ..authority.client("a") };
    let distrustful = ClientTls { ca: Some(other.pem.clone()), ..authority.client("a") };
    for (tls, expected) in [
        (authority.client("mallory"), "whoever opens this link is not named \"a\""),
        (foreign, "it does not accept our certificate"),
        (nameless, "it wants a certificate from us, and we have none"),
        (misled, "its certificate is not for \"c\""),
        (distrustful, "the issuer of its certificate is unknown here"),
    ] {
        let told = refusal(&target, tls.clone(), None).await;
        assert!(told.contains(expected), "{expected}: {told}");
        // And so it is for a node, which goes on trying.
        let a = dialling(&target, |b| b.tls = tls).await;
        a.until(|metrics| metrics.failed_dials > 0).await;
        assert_eq!(a.metrics().peers, 0);
    }
    assert_eq!(b.metrics().peers, 0);
    assert!(b.metrics().refused_links >= 2, "{:?}", b.metrics());
}

#[tokio::test]
async fn passwords_say_which_node_it_is() {
    let users = Users::new([("a", "wonderland"), ("mallory", "password")]).unwrap();
    let auth = Arc::new(LinkAuth::Basic(users));
    let listen = ListenConfig { auth: Some(auth), ..config().listen.remove(0) };
    let b = listening(listen, peer("a", None)).await;
    let target = b.addr.to_string();
    let shows = |user: &str, password: &str| {
        let header = basic(user, password);
        Some(Authorization::new(move || Ok(header.clone())))
    };
    for (authorization, expected) in [
        (None, "the node does not know us"),
        (shows("a", "w0nderland"), "unknown user or wrong password"),
        (shows("mallory", "password"), "whoever opens this link is not named \"a\""),
    ] {
        let told = refusal(&target, ClientTls::default(), authorization).await;
        assert!(told.contains(expected), "{expected}: {told}");
    }
    b.until(|metrics| metrics.unauthenticated_links == 2 && metrics.refused_links == 1).await;
    let wrong = dialling(&target, |b| b.authorization = shows("a", "w0nderland")).await;
    wrong.until(|metrics| metrics.failed_dials > 0).await;
    drop(wrong);
    let a = dialling(&target, |b| b.authorization = shows("a", "wonderland")).await;
    b.until(|metrics| metrics.peers == 1).await;
    assert_eq!(a.metrics().failed_dials, 0);
}

/// Node b, which listens there, too, and a that dials it there.
async fn meet_at(endpoint: &str) {
    let endpoint: Endpoint = endpoint.parse().unwrap();
    let listen = config().listen.into_iter().chain([endpoint.into()]);
    let b = NodeConfig { listen: listen.collect(), ..joined("b", vec![peer("a", None)]) };
    let b = TestNode::start_with(b).await;
    let a = dialling(&b.endpoints[1].to_string(), |_| ()).await;
    are_joined(&a, &b).await;
}

#[tokio::test]
async fn peers_meet_at_a_unix_socket() {
    let path = std::env::temp_dir().join(format!("slim-peers-{}.sock", std::process::id()));
    meet_at(&format!("unix://{}", path.display())).await;
}

#[tokio::test]
async fn peers_meet_over_websockets() {
    meet_at("ws://127.0.0.1:0").await;
}
