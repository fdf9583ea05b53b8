//! TLS between real sockets: who is let in, who is not, and in what words.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair as RcgenKey,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{AlertDescription, ClientConfig, Error, RootCertStore};
use slim_link::{
    AcceptConfig, AcceptCounters, ClientTls, DialConfig, DialError, DialStage, KeyPair, Link,
    ListenConfig, ListenError, Listener, Pem, ServerTls, Target, TlsConfigError, TlsError,
    TlsVersion, dial,
};
use support::{Node, any_port, header, publish, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

// ---------------------------------------------------------------- certificates

/// An authority.
struct Authority {
    issuer: Issuer<'static, RcgenKey>,
    pem: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = RcgenKey::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    fn signed(&self, params: &CertificateParams) -> KeyPair {
        let key = RcgenKey::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        KeyPair { certificate: Pem::Text(certificate), key: Pem::Text(key.serialize_pem()) }
    }

    /// A certificate for this name or address.
    fn issue(&self, name: &str) -> KeyPair {
        self.signed(&CertificateParams::new(vec![name.to_owned()]).unwrap())
    }

    fn ca(&self) -> Pem {
        Pem::Text(self.pem.clone())
    }
}

fn text(pem: &Pem) -> &str {
    match pem {
        Pem::Text(text) => text,
        Pem::File(path) => panic!("{} is a file", path.display()),
    }
}

/// A folder of this test alone, removed with it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("tls-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, text: &str) -> Pem {
        let path = self.0.join(name);
        // As it is rotated: never half a file.
        let new = self.0.join(format!("{name}.new"));
        fs::write(&new, text).unwrap();
        fs::rename(new, &path).unwrap();
        Pem::File(path)
    }

    fn identity(&self, identity: &KeyPair) -> KeyPair {
        KeyPair {
            certificate: self.file("node.crt", text(&identity.certificate)),
            key: self.file("node.key", text(&identity.key)),
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

// ---------------------------------------------------------------- ends

fn listen(tls: ServerTls) -> ListenConfig {
    ListenConfig { tls: Some(tls), ..any_port().into() }
}

fn start(tls: ServerTls) -> Node {
    Node::start_on(&listen(tls), AcceptConfig::default())
}

fn https(addr: SocketAddr) -> Target {
    format!("https://{addr}").parse().unwrap()
}

fn trusting(ca: &Authority) -> ClientTls {
    ClientTls { ca: Some(ca.ca()), ..ClientTls::default() }
}

async fn dial_with(addr: SocketAddr, tls: ClientTls) -> Result<Link, DialError> {
    let config = DialConfig { tls, ..DialConfig::default() };
    soon(dial(&https(addr), &config)).await
}

/// The link works, in both directions.
async fn check_link(link: Link, node: &mut Node) {
    let mut accepted = node.accepted().await;
    let (sender, mut receiver) = link.split();
    for (number, len) in [(1, 10), (2, 100_000)] {
        sender.send(&publish(header(), number, len)).await.unwrap();
    }
    let mut frames = Vec::new();
    while frames.len() < 2 {
        soon(accepted.link.frames.read_batch(&mut frames)).await.unwrap();
    }
    for frame in &frames {
        let outgoing = frame.routed().unwrap().forward().unwrap();
        accepted.link.outbound.try_push(&outgoing).unwrap();
    }
    accepted.link.outbound.wake();
    for _ in 0..2 {
        soon(receiver.recv()).await.unwrap();
    }
}

/// What a dialler that trusts `ca` is told by a node with this certificate.
async fn told(identity: KeyPair, ca: &Authority) -> TlsError {
    let node = start(ServerTls::new(identity));
    let error = dial_with(node.addr, trusting(ca)).await.unwrap_err();
    assert!(error.is_lasting(), "{error:?}");
    match error {
        DialError::Tls(error) => error,
        other => panic!("{other:?}"),
    }
}

// ---------------------------------------------------------------- what works

#[tokio::test]
async fn a_link_over_tls_carries_messages() {
    let ca = Authority::new("ours");
    let mut node = start(ServerTls::new(ca.issue("127.0.0.1")));
    let link = dial_with(node.addr, trusting(&ca)).await.unwrap();
    check_link(link, &mut node).await;
}

#[tokio::test]
async fn certificates_may_be_in_files() {
    let (ca, folder) = (Authority::new("ours"), Folder::new());
    let identity = folder.identity(&ca.issue("127.0.0.1"));
    let mut node = start(ServerTls::new(identity));
    let tls = ClientTls { ca: Some(folder.file("ca.crt", &ca.pem)), ..ClientTls::default() };
    let link = dial_with(node.addr, tls).await.unwrap();
    check_link(link, &mut node).await;
}

#[tokio::test]
async fn the_name_in_the_certificate_may_be_another_than_the_address() {
    let ca = Authority::new("ours");
    let mut node = start(ServerTls::new(ca.issue("node.example.org")));
    let server_name = Some("node.example.org".to_owned());
    let tls = ClientTls { server_name, ..trusting(&ca) };
    let link = dial_with(node.addr, tls).await.unwrap();
    check_link(link, &mut node).await;
}

#[tokio::test]
async fn a_node_may_know_its_clients() {
    let (ca, clients) = (Authority::new("nodes"), Authority::new("clients"));
    let tls = ServerTls { client_ca: Some(clients.ca()), ..ServerTls::new(ca.issue("127.0.0.1")) };
    let mut node = start(tls);
    let identity = Some(clients.issue("client-1"));
    let link = dial_with(node.addr, ClientTls { identity, ..trusting(&ca) }).await.unwrap();
    check_link(link, &mut node).await;
}

#[tokio::test]
async fn one_node_may_speak_tls_here_and_plain_text_there() {
    let ca = Authority::new("ours");
    let plain = Listener::bind(&any_port().into()).unwrap();
    let tls = Listener::bind(&listen(ServerTls::new(ca.issue("127.0.0.1")))).unwrap();
    let targets = [format!("http://{}", plain.endpoint()), format!("https://{}", tls.endpoint())];
    tokio::spawn(slim_link::serve(
        vec![plain, tls],
        AcceptConfig::default(),
        |_| std::future::pending(),
        std::future::pending(),
    ));
    let config = DialConfig { tls: trusting(&ca), ..DialConfig::default() };
    for target in targets {
        soon(dial(&target.parse().unwrap(), &config)).await.unwrap();
    }
}

/// A dialler of another make.
async fn handshake(
    addr: SocketAddr,
    ca: &Authority,
    version: &'static rustls::SupportedProtocolVersion,
    alpn: &[&str],
) -> std::io::Result<Option<Vec<u8>>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.pem.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let tcp = TcpStream::connect(addr).await.unwrap();
    let name = ServerName::try_from(addr.ip().to_string()).unwrap();
    let tls = TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
    Ok(tls.get_ref().1.alpn_protocol().map(<[u8]>::to_vec))
}

#[tokio::test]
async fn h2_is_chosen_where_it_is_offered_and_not_demanded() {
    let ca = Authority::new("ours");
    let node = start(ServerTls::new(ca.issue("127.0.0.1")));
    let tls13 = &rustls::version::TLS13;
    let chosen = soon(handshake(node.addr, &ca, tls13, &["http/1.1", "h2"])).await.unwrap();
    assert_eq!(chosen.as_deref(), Some(&b"h2"[..]));
    assert_eq!(soon(handshake(node.addr, &ca, tls13, &[])).await.unwrap(), None);
}

#[tokio::test]
async fn tls_1_2_is_for_those_who_allow_it() {
    let ca = Authority::new("ours");
    let strict = ServerTls::new(ca.issue("127.0.0.1"));
    let lenient = ServerTls { min_version: TlsVersion::Tls12, ..strict.clone() };
    let tls12 = &rustls::version::TLS12;
    let node = start(strict);
    let error = soon(handshake(node.addr, &ca, tls12, &["h2"])).await.unwrap_err();
    let error = error.get_ref().unwrap().downcast_ref::<Error>().unwrap();
    assert_eq!(*error, Error::AlertReceived(AlertDescription::ProtocolVersion));
    let node = start(lenient);
    soon(handshake(node.addr, &ca, tls12, &["h2"])).await.unwrap();
    soon(handshake(node.addr, &ca, &rustls::version::TLS13, &["h2"])).await.unwrap();
}

// ---------------------------------------------------------------- what does not

#[tokio::test]
async fn a_certificate_that_is_not_good_is_refused_in_words() {
    let (ca, other) = (Authority::new("ours"), Authority::new("others"));
    let name = "127.0.0.1";
    assert_eq!(told(other.issue(name), &ca).await, TlsError::UnknownIssuer);
    let namesake = Authority::new("ours");
    assert_eq!(told(namesake.issue(name), &ca).await, TlsError::UnknownIssuer);
    let expected = TlsError::OtherName(name.to_owned());
    assert_eq!(told(ca.issue("127.0.0.2"), &ca).await, expected);
    assert_eq!(told(ca.issue("localhost"), &ca).await, expected);

    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.not_after = date_time_ymd(2001, 1, 1);
    assert_eq!(told(ca.signed(&params), &ca).await, TlsError::Expired);
    params.not_before = date_time_ymd(3000, 1, 1);
    params.not_after = date_time_ymd(3001, 1, 1);
    assert_eq!(told(ca.signed(&params), &ca).await, TlsError::NotYetValid);

    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    assert_eq!(told(ca.signed(&params), &ca).await, TlsError::AuthorityItself);
}

#[tokio::test]
async fn without_a_ca_only_the_systems_are_trusted() {
    let ca = Authority::new("ours");
    let node = start(ServerTls::new(ca.issue("127.0.0.1")));
    let error = dial_with(node.addr, ClientTls::default()).await.unwrap_err();
    // A machine may have none.
    let expected = matches!(
        error,
        DialError::Tls(TlsError::UnknownIssuer) | DialError::TlsConfig(TlsConfigError::NoRoots)
    );
    assert!(expected, "{error:?}");
    let none = ClientTls { system_roots: Some(false), ..ClientTls::default() };
    let error = dial_with(node.addr, none).await.unwrap_err();
    assert!(matches!(error, DialError::TlsConfig(TlsConfigError::NoRoots)), "{error:?}");
}

#[tokio::test]
async fn a_client_that_shows_no_good_certificate_is_refused_in_words() {
    let (ca, other) = (Authority::new("ours"), Authority::new("others"));
    for (version, rounds) in [(TlsVersion::Tls13, 10), (TlsVersion::Tls12, 1)] {
        let counters = Arc::new(AcceptCounters::default());
        let config = AcceptConfig { counters: Arc::clone(&counters), ..AcceptConfig::default() };
        let tls = ServerTls {
            client_ca: Some(ca.ca()),
            min_version: version,
            ..ServerTls::new(ca.issue("127.0.0.1"))
        };
        let node = Node::start_on(&listen(tls), config);
        let said = async |identity| {
            let tls = ClientTls { identity, min_version: version, ..trusting(&ca) };
            match dial_with(node.addr, tls).await.unwrap_err() {
                DialError::Tls(error) => error,
                other => panic!("{other:?}"),
            }
        };
        // The node's word and the end of its connection arrive together.
        for _ in 0..rounds {
            assert_eq!(said(None).await, TlsError::WantsCertificate);
            let refused = TlsError::RefusesCertificate("its issuer is unknown there");
            assert_eq!(said(Some(other.issue("client"))).await, refused);
            let mut params = CertificateParams::new(vec!["client".to_owned()]).unwrap();
            params.not_after = date_time_ymd(2001, 1, 1);
            let refused = TlsError::RefusesCertificate("it has expired");
            assert_eq!(said(Some(ca.signed(&params))).await, refused);
        }
        // Counted when the word is out.
        soon(async {
            while counters.refused_links() < 3 * rounds {
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert_eq!(counters.refused_links(), 3 * rounds);
    }
}

#[tokio::test]
async fn plain_text_where_tls_is_spoken_is_noticed() {
    let ca = Authority::new("ours");
    let node = start(ServerTls::new(ca.issue("127.0.0.1")));
    for _ in 0..10 {
        let target = node.addr.to_string().parse().unwrap();
        let error = soon(dial(&target, &DialConfig::default())).await.unwrap_err();
        assert!(matches!(error, DialError::SpeaksTls), "{error:?}");
        assert!(error.is_lasting());
    }
}

#[tokio::test]
async fn tls_where_plain_text_is_spoken_is_noticed() {
    let ca = Authority::new("ours");
    let node = Node::start(AcceptConfig::default()).await;
    for _ in 0..10 {
        let error = dial_with(node.addr, trusting(&ca)).await.unwrap_err();
        assert!(matches!(error, DialError::Tls(TlsError::PlainText)), "{error:?}");
    }
}

#[tokio::test]
async fn a_node_that_hangs_up_or_says_nothing_is_not_there() {
    let ca = Authority::new("ours");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let hangs_up = async {
        let (mut tcp, _) = listener.accept().await.unwrap();
        tcp.read_u8().await.unwrap();
        tcp.shutdown().await.unwrap();
        let mut rest = Vec::new();
        tcp.read_to_end(&mut rest).await.ok();
    };
    let (error, ()) = tokio::join!(dial_with(addr, trusting(&ca)), hangs_up);
    let error = error.unwrap_err();
    assert!(matches!(error, DialError::Tls(TlsError::Ended)), "{error:?}");
    assert!(!error.is_lasting());

    let negotiation_timeout = Duration::from_millis(100);
    let config = DialConfig { tls: trusting(&ca), negotiation_timeout, ..DialConfig::default() };
    let error = soon(dial(&https(addr), &config)).await.unwrap_err();
    assert!(matches!(error, DialError::Timeout(DialStage::Tls)), "{error:?}");
}

// ---------------------------------------------------------------- handshakes are bounded

/// The beginning of a handshake, and no more of it.
async fn half_a_handshake(addr: SocketAddr) -> TcpStream {
    let mut tcp = TcpStream::connect(addr).await.unwrap();
    // RFC 8446 §5.1: a handshake record of 512 bytes, of which ten come.
    tcp.write_all(&[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3, 0, 0, 0, 0]).await.unwrap();
    tcp
}

#[tokio::test]
async fn a_handshake_that_is_not_finished_is_cut() {
    let ca = Authority::new("ours");
    let counters = Arc::new(AcceptCounters::default());
    let negotiation_timeout = Duration::from_millis(200);
    let config = AcceptConfig {
        negotiation_timeout,
        counters: Arc::clone(&counters),
        ..AcceptConfig::default()
    };
    let mut node = Node::start_on(&listen(ServerTls::new(ca.issue("127.0.0.1"))), config);
    let mut half = half_a_handshake(node.addr).await;
    let mut silent = TcpStream::connect(node.addr).await.unwrap();
    // Others do not wait for them.
    let link = dial_with(node.addr, trusting(&ca)).await.unwrap();
    check_link(link, &mut node).await;
    for tcp in [&mut half, &mut silent] {
        let mut rest = Vec::new();
        soon(tcp.read_to_end(&mut rest)).await.ok();
        assert_eq!(rest, b"");
    }
    assert_eq!(counters.cut_newcomers(), 2);
}

#[tokio::test]
async fn handshakes_take_the_places_of_newcomers() {
    let ca = Authority::new("ours");
    let counters = Arc::new(AcceptCounters::default());
    let config = AcceptConfig {
        max_newcomers: 1,
        counters: Arc::clone(&counters),
        ..AcceptConfig::default()
    };
    let mut node = Node::start_on(&listen(ServerTls::new(ca.issue("127.0.0.1"))), config);
    let mut half = half_a_handshake(node.addr).await;
    // It comes in when the other has had its time, long before that is cut anyway.
    let link = dial_with(node.addr, trusting(&ca)).await.unwrap();
    check_link(link, &mut node).await;
    let mut rest = Vec::new();
    soon(half.read_to_end(&mut rest)).await.ok();
    assert_eq!((counters.cut_newcomers(), counters.times_full() > 0), (1, true));
}

// ---------------------------------------------------------------- files that change

#[tokio::test]
async fn new_certificates_are_for_new_links_and_the_old_links_stay() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let folder = Folder::new();
    let identity = folder.identity(&old.issue("127.0.0.1"));
    let reload_interval = Duration::from_millis(10);
    let mut node = start(ServerTls { reload_interval, ..ServerTls::new(identity) });
    let link = dial_with(node.addr, trusting(&old)).await.unwrap();

    folder.identity(&new.issue("127.0.0.1"));
    soon(async { while dial_with(node.addr, trusting(&new)).await.is_err() {} }).await;
    let error = dial_with(node.addr, trusting(&old)).await.unwrap_err();
    assert!(matches!(error, DialError::Tls(TlsError::UnknownIssuer)), "{error:?}");
    check_link(link, &mut node).await;
}

// ---------------------------------------------------------------- what cannot be used

fn refused(tls: ServerTls) -> TlsConfigError {
    match Listener::bind(&listen(tls)).unwrap_err() {
        ListenError::Tls(error) => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn certificates_that_cannot_be_used_are_named() {
    let (ca, folder) = (Authority::new("ours"), Folder::new());
    let good = ServerTls::new(ca.issue("127.0.0.1"));
    let with = |change: fn(&mut ServerTls, Pem), pem| {
        let mut tls = good.clone();
        change(&mut tls, pem);
        refused(tls)
    };
    let certificate = |tls: &mut ServerTls, pem| tls.identity.certificate = pem;
    let key = |tls: &mut ServerTls, pem| tls.identity.key = pem;
    let client_ca = |tls: &mut ServerTls, pem| tls.client_ca = Some(pem);

    let gone = folder.0.join("gone.pem");
    let error = with(certificate, Pem::File(gone.clone())).to_string();
    assert!(error.starts_with(&format!("cannot read the certificate {}", gone.display())));
    let empty = || folder.file("empty.pem", "nothing here");
    let origin = folder.0.join("empty.pem").display().to_string();
    let none = |what| TlsConfigError::NoCertificate { what, origin: origin.clone() };
    assert_eq!(with(certificate, empty()), none("certificate"));
    assert_eq!(with(client_ca, empty()), none("client CA"));
    assert_eq!(with(key, empty()), TlsConfigError::NoKey { origin: origin.clone() });
    let other = with(key, ca.issue("127.0.0.1").key);
    assert!(matches!(other, TlsConfigError::OtherKey { .. }), "{other:?}");

    let node = start(good.clone());
    let server_name = Some("not a name".to_owned());
    let error = dial_with(node.addr, ClientTls { server_name, ..trusting(&ca) }).await.unwrap_err();
    assert!(matches!(error, DialError::TlsConfig(TlsConfigError::ServerName(_))), "{error:?}");
    assert!(error.is_lasting());
}

#[test]
fn keys_are_not_shown() {
    let identity = Authority::new("ours").issue("127.0.0.1");
    let key = text(&identity.key).to_owned();
    let shown = format!("{:?}", ServerTls::new(identity));
    let line = key.lines().nth(1).unwrap();
    assert!(!shown.contains(line) && !shown.contains("PRIVATE"), "{shown}");
}
