//! What diallers show before their link begins.

mod support;

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, SanType, string::Ia5String};
use slim_link::{
    AcceptConfig, Authenticator, Authorization, ClientTls, DialConfig, DialError, KeyPair, Link,
    ListenConfig, Pem, Principal, ServerTls, Target, dial,
};
use support::{Node, RawStream, any_port, soon};
use tokio::time::Instant;

/// Who says a name is let in under it.
#[derive(Debug)]
struct Believes;

impl Authenticator for Believes {
    fn authenticate(&self, authorization: Option<&str>) -> Result<Principal, String> {
        match authorization {
            Some(name) if name != "nobody" => Ok(Principal::Basic(name.to_owned())),
            Some(_) => Err("nobody is not \u{e9}nough".to_owned()),
            None => Err("show who you are".to_owned()),
        }
    }
}

fn start(tls: Option<ServerTls>, config: AcceptConfig) -> Node {
    let auth: Option<Arc<dyn Authenticator>> = Some(Arc::new(Believes));
    Node::start_on(&ListenConfig { tls, auth, ..any_port().into() }, config)
}

async fn dial_as(
    target: &Target,
    name: Option<&'static str>,
    tls: ClientTls,
) -> Result<Link, DialError> {
    let authorization = name.map(|name| Authorization::new(move || Ok(name.to_owned())));
    soon(dial(target, &DialConfig { authorization, tls, ..DialConfig::default() })).await
}

#[tokio::test]
async fn who_shows_something_good_has_a_name() {
    let mut node = start(None, AcceptConfig::default());
    let (target, tls) = (node.target(), ClientTls::default());
    let _link = dial_as(&target, Some("alice"), tls).await.unwrap();
    let principals = node.accepted().await.link.info.principals;
    assert_eq!(*principals, [Principal::Basic("alice".to_owned())]);
}

#[tokio::test]
async fn who_shows_nothing_good_is_told_why_after_a_while_and_counted() {
    let config = AcceptConfig::default();
    let (counters, pause) = (Arc::clone(&config.counters), config.refusal_pause);
    let mut node = start(None, config);
    let target = node.target();
    let since = Instant::now();
    for (name, why) in [(None, "show who you are"), (Some("nobody"), "nobody is not %C3%A9nough")] {
        let error = dial_as(&target, name, ClientTls::default()).await.unwrap_err();
        assert!(matches!(&error, DialError::Unauthenticated(said) if said == why), "{error:?}");
    }
    assert!(since.elapsed() >= 2 * pause, "one cannot guess often");
    assert_eq!((counters.unauthenticated_links(), counters.refused_links()), (2, 0));
    // And the next one is let in.
    let _link = dial_as(&target, Some("bob"), ClientTls::default()).await.unwrap();
    node.accepted().await;
}

#[tokio::test]
async fn a_refusal_is_headers_alone() {
    let node = start(None, AcceptConfig::default());
    let refused = RawStream::open(node.addr).await.response;
    assert_eq!(refused.status(), 200);
    assert_eq!(refused.headers()["grpc-status"], "16");
    assert_eq!(refused.headers()["grpc-message"], "show who you are");
    assert!(http_body::Body::is_end_stream(refused.body()), "nothing comes after the headers");
}

#[tokio::test]
async fn where_nothing_is_asked_for_nothing_is_looked_at() {
    let mut node = Node::start(AcceptConfig::default()).await;
    let _link = dial_as(&node.target(), Some("nobody"), ClientTls::default()).await.unwrap();
    assert_eq!(*node.accepted().await.link.info.principals, []);
}

#[tokio::test]
async fn a_certificate_names_its_owner_too() {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    let authority = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::from_params(&params, &key);
    let issue = |names: Vec<SanType>| {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap().pem();
        KeyPair { certificate: Pem::Text(certificate), key: Pem::Text(key.serialize_pem()) }
    };
    let text = |text: &str| Ia5String::try_from(text).unwrap();
    let ca = || Some(Pem::Text(authority.clone()));
    let server = issue(vec![SanType::DnsName(text("localhost"))]);
    let tls = ServerTls { client_ca: ca(), ..ServerTls::new(server) };
    let mut node = start(Some(tls), AcceptConfig::default());
    let client = issue(vec![
        SanType::URI(text("spiffe://example.org/alice")),
        SanType::DnsName(text("alice.example.org")),
    ]);
    let tls = ClientTls { ca: ca(), identity: Some(client), ..ClientTls::default() };
    let target = format!("https://localhost:{}", node.addr.port()).parse().unwrap();
    let _link = dial_as(&target, Some("alice"), tls).await.unwrap();
    let principals = node.accepted().await.link.info.principals;
    let shown: Vec<String> = principals.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["basic:alice", "spiffe://example.org/alice", "dns:alice.example.org"]);
}
