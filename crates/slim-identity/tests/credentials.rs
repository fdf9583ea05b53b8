//! Files that change, and an issuer that answers over HTTP on this machine.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic, too")]

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rand::{SeedableRng as _, rngs::SmallRng};
use serde_json::json;
use slim_auth::{
    Identity, JwtIdentity, JwtIdentityConfig, JwtSigningKey, JwtVerifierConfig, SigningKey,
    TrustList, Verifier as _, VerifyError, new_did_pem,
};
use slim_identity::{
    BearerKeys, Bearers, Credentials, FetchError, Issuer, IssuerError, LinkCredentials, LoadError,
    Sources, Speaker, Text, Trust,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(60);
const P256: &str = include_str!("../../slim-auth/tests/keys/p256.pem");

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn token_of(identity: &dyn Identity) -> String {
    identity.token(now(), &mut SmallRng::seed_from_u64(1)).unwrap()
}

/// A folder with files.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

/// What signs tokens, for any subject.
struct Signer(String);

impl Signer {
    fn new() -> Self {
        Self(new_did_pem().unwrap().to_string())
    }

    fn key(&self) -> JwtSigningKey {
        JwtSigningKey::from_any_pem(&self.0).unwrap()
    }

    /// The public key, as it stands in a JWKS.
    fn jwk(&self, id: &str) -> serde_json::Value {
        let x = URL_SAFE_NO_PAD.encode(self.key().verifying_key().ed25519().unwrap());
        json!({ "kty": "OKP", "crv": "Ed25519", "kid": id, "alg": "EdDSA", "x": x })
    }

    /// Somebody whose tokens it signs, with the subject as the id of the key.
    fn identity(&self, subject: &str, issuer: &str) -> JwtIdentity {
        let config =
            JwtIdentityConfig { issuer: Some(issuer.into()), ..JwtIdentityConfig::new(subject) };
        JwtIdentity::new(self.key(), config).unwrap()
    }
}

/// A token of an issuer for a key that we have: the two files.
fn issued(folder: &Folder, signer: &Signer, subject: &str, issuer: &str) -> Speaker {
    let token = folder.write("token", &issued_token(signer, subject, issuer));
    Speaker::Token { token, key: folder.write("key.pem", P256) }
}

/// JWTs with a `pubkey` of our choice are made by hand: `JwtIdentity` has its own.
fn issued_token(signer: &Signer, subject: &str, issuer: &str) -> String {
    let pubkey = SigningKey::from_pem(P256).unwrap().public_key().to_base64();
    let claims = json!({ "iss": issuer, "sub": subject, "exp": now() + 600, "pubkey": pubkey });
    signer.key().sign_claims(subject, claims.as_object().unwrap()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn who_is_added_to_the_list_is_trusted_at_once() {
    let folder = Folder::new();
    let (alice, bob) = (new_did_pem().unwrap(), Signer::new());
    let bob = JwtIdentity::did(&bob.0, Vec::new()).unwrap();
    let mut list = TrustList::default();
    let path = folder.write("trust.json", &list.to_text());
    let sources = Sources {
        speaker: Speaker::Did { key: folder.write("alice.pem", &alice) },
        trust: Trust::Peers(path),
        audience: Vec::new(),
    };
    let credentials = Credentials::load(&sources).await.unwrap();
    // Oneself is always among them.
    let own = credentials.verify(&token_of(&*credentials), now()).unwrap();
    assert_eq!(own.subject, credentials.subject());
    let token = token_of(&bob);
    assert!(matches!(credentials.verify(&token, now()), Err(VerifyError::UnknownKey(_))));

    let mut changes = credentials.changes();
    list.add(bob.subject()).unwrap();
    folder.write("trust.json", &list.to_text());
    changes.changed().await.unwrap();
    assert_eq!(credentials.verify(&token, now()).unwrap().subject, bob.subject());

    list.remove(bob.subject());
    folder.write("trust.json", &list.to_text());
    changes.changed().await.unwrap();
    assert!(credentials.verify(&token, now()).is_err());
}

#[tokio::test(start_paused = true)]
async fn a_broken_file_changes_nothing() {
    let folder = Folder::new();
    let (signer, other) = (Signer::new(), Signer::new());
    let jwks = |jwk| json!({ "keys": [jwk] }).to_string();
    let path = folder.write("keys.json", &jwks(signer.jwk("k")));
    let sources = Sources {
        speaker: issued(&folder, &signer, "alice", "x"),
        trust: Trust::Keys(path),
        audience: Vec::new(),
    };
    let credentials = Credentials::load(&sources).await.unwrap();
    let mut changes = credentials.changes();
    let bob = signer.identity("bob", "x");
    assert!(credentials.verify(&token_of(&bob), now()).is_ok());
    folder.write("keys.json", "{");
    // Time for it to be read.
    tokio::time::advance(3 * slim_identity::WATCH_INTERVAL).await;
    assert!(credentials.verify(&token_of(&bob), now()).is_ok());
    folder.write("keys.json", &jwks(other.jwk("k")));
    changes.changed().await.unwrap();
    assert!(credentials.verify(&token_of(&bob), now()).is_err());
    assert!(credentials.verify(&token_of(&other.identity("bob", "x")), now()).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_token_and_a_key_that_are_replaced_are_used() {
    let folder = Folder::new();
    let (old, new) = (Signer::new(), Signer::new());
    let both = json!({ "keys": [old.jwk("old"), new.jwk("new")] }).to_string();
    let trust = Trust::Keys(folder.write("keys.json", &both));
    let speaker = issued(&folder, &old, "alice", "x");
    let sources = Sources { speaker, trust: trust.clone(), audience: Vec::new() };
    let credentials = Credentials::load(&sources).await.unwrap();
    let mut changes = credentials.changes();
    let first = token_of(&*credentials);
    let second = issued_token(&new, "alice", "x");
    folder.write("token", &format!("{second}\n"));
    changes.changed().await.unwrap();
    assert_ne!(token_of(&*credentials), first);
    assert_eq!(token_of(&*credentials), second);
    assert!(credentials.verify(&second, now()).is_ok());

    let key = folder.write("signer.pem", &old.0);
    let config = JwtIdentityConfig::new("bob");
    let speaker = Speaker::Signer { key, algorithm: None, config };
    let sources = Sources { speaker, trust, audience: Vec::new() };
    let credentials = Credentials::load(&sources).await.unwrap();
    let mut changes = credentials.changes();
    let first = token_of(&*credentials);
    folder.write("signer.pem", &new.0);
    changes.changed().await.unwrap();
    let second = token_of(&*credentials);
    assert_ne!(second, first);
    assert!(credentials.verify(&second, now()).is_ok());
}

#[tokio::test]
async fn files_that_are_no_good_are_named_with_the_reason() {
    let folder = Folder::new();
    let trust = || Trust::Peers(folder.write("trust.json", r#"{"keys":[]}"#));
    let load = async |speaker, trust| {
        let sources = Sources { speaker, trust, audience: Vec::new() };
        Credentials::load(&sources).await.unwrap_err().to_string()
    };
    let did = |name: &str, text: &str| Speaker::Did { key: folder.write(name, text) };
    let gone = Speaker::Did { key: folder.0.path().join("gone.pem") };
    let words = load(gone, trust()).await;
    assert!(words.ends_with("gone.pem: No such file or directory (os error 2)"), "{words}");
    let words = load(did("ec.pem", P256), trust()).await;
    assert!(words.contains("ec.pem: key for tokens: EdDSA needs an Ed25519 key"), "{words}");
    let key = new_did_pem().unwrap();
    let words = load(did("a.pem", &key), Trust::Peers(folder.write("bad", "[]"))).await;
    assert!(words.ends_with("bad: not the JSON of a JWKS"), "{words}");
    let huge = " ".repeat(1024 * 1024 + 1);
    let words = load(did("a.pem", &key), Trust::Keys(folder.write("huge", &huge))).await;
    assert!(words.ends_with("huge: more than 1048576 bytes"), "{words}");
    let words = load(issued(&folder, &Signer::new(), "", "x"), trust()).await;
    assert!(words.ends_with("token: the token has no claim sub"), "{words}");
}

// ------------------------------------------------------------ an issuer

/// Answers, by path: status and body.
type Pages = Arc<Mutex<BTreeMap<String, (u16, String)>>>;

/// An HTTP server on this machine.
struct Server {
    url: String,
    pages: Pages,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let pages = Pages::default();
        let answers = Arc::clone(&pages);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let answers = Arc::clone(&answers);
                tokio::spawn(async move {
                    let mut request = Vec::new();
                    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                        if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
                            return;
                        }
                    }
                    let request = String::from_utf8_lossy(&request).into_owned();
                    let path = request.split(' ').nth(1).unwrap();
                    let page = answers.lock().unwrap().get(path).cloned();
                    let (status, body) = page.unwrap_or((404, String::new()));
                    let answer = format!(
                        "HTTP/1.1 {status} x\r\ncontent-length: {}\r\nlocation: /else\r\n\r\n{body}",
                        body.len()
                    );
                    // Who asked may not want all of it.
                    stream.write_all(answer.as_bytes()).await.ok();
                });
            }
        });
        Self { url, pages }
    }

    fn put(&self, path: &str, status: u16, body: &str) {
        self.pages.lock().unwrap().insert(path.to_owned(), (status, body.to_owned()));
    }

    /// Discovery and keys, as issuers have them.
    fn publish(&self, keys: &[serde_json::Value]) {
        let document = json!({ "issuer": self.url, "jwks_uri": format!("{}/keys", self.url) });
        self.put("/.well-known/openid-configuration", 200, &document.to_string());
        self.put("/keys", 200, &json!({ "keys": keys }).to_string());
    }

    fn issuer(&self) -> Issuer {
        Issuer::new(&self.url).unwrap().with_pause(Duration::from_millis(1))
    }
}

#[tokio::test]
async fn the_keys_of_an_issuer_are_found_and_followed() {
    let (folder, server) = (Folder::new(), Server::start().await);
    let (first, second) = (Signer::new(), Signer::new());
    server.publish(&[first.jwk("first")]);
    let speaker = issued(&folder, &first, "alice", &server.url);
    let trust = Trust::Issuer(server.issuer());
    let credentials =
        Credentials::load(&Sources { speaker, trust, audience: Vec::new() }).await.unwrap();
    let mut changes = credentials.changes();
    assert_eq!(credentials.verify(&token_of(&*credentials), now()).unwrap().subject, "alice");
    let bob = token_of(&first.identity("bob", &server.url));
    assert!(credentials.verify(&bob, now()).is_ok());

    // Somebody else's issuer, with a key that ours has.
    let mallory = token_of(&first.identity("bob", "https://mallory.example"));
    assert!(matches!(credentials.verify(&mallory, now()), Err(VerifyError::Issuer { .. })));
    assert!(!changes.has_changed().unwrap(), "nobody asks there, or again");

    // A key that is not there yet: once it is asked for, it is fetched.
    server.publish(&[first.jwk("first"), second.jwk("bob")]);
    let bob = token_of(&second.identity("bob", &server.url));
    assert!(matches!(credentials.verify(&bob, now()), Err(VerifyError::UnknownKey(_))));
    timeout(PATIENCE, changes.changed()).await.unwrap().unwrap();
    assert!(credentials.verify(&bob, now()).is_ok());

    // While the issuer is ill, what was fetched stays in use, and it is tried again.
    server.put("/keys", 500, "");
    let stranger = token_of(&Signer::new().identity("eve", &server.url));
    assert!(credentials.verify(&stranger, now()).is_err());
    assert!(credentials.verify(&bob, now()).is_ok());
    server.publish(&[second.jwk("bob")]);
    timeout(PATIENCE, changes.changed()).await.unwrap().unwrap();
    assert!(credentials.verify(&bob, now()).is_ok());
}

#[tokio::test]
async fn without_discovery_the_keys_are_at_the_usual_place() {
    let server = Server::start().await;
    let signer = Signer::new();
    let keys = json!({ "keys": [signer.jwk("k")] }).to_string();
    server.put("/.well-known/jwks.json", 200, &keys);
    assert!(server.issuer().keys().await.unwrap().get("k").is_some());
    for document in ["no JSON", "{}", r#"{"jwks_uri":7}"#] {
        server.put("/.well-known/openid-configuration", 200, document);
        assert!(server.issuer().keys().await.unwrap().get("k").is_some(), "{document}");
    }
    // With a slash at the end it is the same issuer.
    server.publish(&[signer.jwk("k")]);
    let issuer = Issuer::new(&format!("{}/", server.url)).unwrap();
    assert!(issuer.keys().await.unwrap().get("k").is_some());
}

#[tokio::test]
async fn an_issuer_that_says_odd_things_is_not_believed() {
    let server = Server::start().await;
    let discovery = "/.well-known/openid-configuration";
    let said = async |document: serde_json::Value| {
        server.put(discovery, 200, &document.to_string());
        server.issuer().keys().await.unwrap_err()
    };
    let error = said(json!({ "issuer": "https://mallory.example" })).await;
    assert!(matches!(error, IssuerError::OtherIssuer { .. }), "{error}");
    let host = server.url.strip_prefix("http://127.0.0.1").unwrap();
    for keys in [
        "https://mallory.example/keys",
        "http://127.0.0.1:1/keys",
        &format!("https://127.0.0.1{host}/keys"),
        &format!("http://127.0.0.2{host}/keys"),
        "/keys",
        "file:///etc/passwd",
        "",
    ] {
        let error = said(json!({ "jwks_uri": keys })).await;
        assert!(matches!(error, IssuerError::Elsewhere { .. }), "{keys}: {error}");
    }
    server.publish(&[]);
    let error = server.issuer().keys().await.unwrap_err();
    assert!(matches!(error, IssuerError::Keys { .. }), "{error}");
    for (status, body) in [(302, ""), (404, ""), (500, "{}"), (204, "")] {
        server.put("/keys", status, body);
        let error = server.issuer().keys().await.unwrap_err();
        assert!(
            matches!(
                error,
                IssuerError::Fetch(FetchError::Status { .. } | FetchError::Failed { .. })
            ),
            "{error}"
        );
    }
    server.put("/keys", 200, &" ".repeat(2 * 1024 * 1024));
    let error = server.issuer().keys().await.unwrap_err();
    assert!(matches!(error, IssuerError::Fetch(FetchError::Failed { .. })), "{error}");
}

/// The clock goes on as soon as there is nothing else to do.
#[tokio::test(start_paused = true)]
async fn an_issuer_that_says_nothing_is_not_awaited_for_ever() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let error = Issuer::new(&url).unwrap().keys().await.unwrap_err();
    assert!(matches!(error, IssuerError::Fetch(FetchError::Slow { .. })), "{error}");
}

#[test]
fn which_issuers_can_be_believed() {
    for good in [
        "https://issuer.example",
        "https://a.example/realms/b",
        "http://localhost:8080",
        "http://[::1]:1",
    ] {
        assert!(Issuer::new(good).is_ok(), "{good}");
    }
    for bad in [
        "",
        "issuer.example",
        "http://issuer.example",
        "http://10.0.0.1",
        "ftp://a",
        "https://",
        "https://a?b",
        "https://a#b",
        "http://localhost.evil.example",
        "unix:///x",
    ] {
        assert!(matches!(Issuer::new(bad), Err(IssuerError::Url { .. })), "{bad}");
    }
}

#[tokio::test]
async fn own_tokens_are_not_those_of_an_issuer() {
    let folder = Folder::new();
    let speaker = Speaker::Did { key: folder.write("a.pem", &new_did_pem().unwrap()) };
    let trust = Trust::Issuer(Issuer::new("https://issuer.example").unwrap());
    let refused = Credentials::load(&Sources { speaker, trust, audience: Vec::new() }).await;
    assert_eq!(refused.map(|_| ()), Err(LoadError::OwnTokens));
}

/// What somebody shows who signs for himself.
fn shown(folder: &Folder, signer: &Signer, subject: &str, audience: &str) -> LinkCredentials {
    let key = Text::File(folder.write(&format!("{subject}.key"), &signer.0));
    let mut config = JwtIdentityConfig::new(subject);
    config.audience = vec![audience.to_owned()];
    LinkCredentials::Signer { key, algorithm: None, config }
}

#[tokio::test(start_paused = true)]
async fn bearers_are_let_in_by_keys_that_are_replaced() {
    let folder = Folder::new();
    let [old, new] = [Signer::new(), Signer::new()];
    let set = |signer: &Signer| json!({ "keys": [signer.jwk("key")] }).to_string();
    let path = folder.write("keys.json", &set(&old));
    let keys = BearerKeys::Jwks(Text::File(path));
    keys.check().unwrap();
    let audience = vec!["nodes".to_owned()];
    let config = JwtVerifierConfig { audience, require_audience: true, ..Default::default() };
    let bearers = Bearers::load(&keys, config).await.unwrap();
    let header = |signer: &Signer, audience| {
        shown(&folder, signer, "alice", audience).header(now()).unwrap()
    };
    let check = |header: &str| bearers.check(Some(header), now()).map(|bearer| bearer.subject);
    assert_eq!(check(&header(&old, "nodes")), Ok("alice".to_owned()));
    let other = check(&header(&old, "others")).unwrap_err().to_string();
    assert_eq!(other, "audience others of the token is not among nodes");
    check(&header(&new, "nodes")).unwrap_err();
    // A token for messages is in many hands.
    let mut config = JwtIdentityConfig::new("alice");
    config.audience = vec!["applications".to_owned()];
    let of_messages = JwtIdentity::new(old.key(), config).unwrap();
    let error = check(&slim_auth::bearer(&token_of(&of_messages))).unwrap_err().to_string();
    assert_eq!(error, "audience applications of the token is not among nodes");
    // Where no audience is demanded, the key in it tells.
    let lenient = Bearers::load(&keys, JwtVerifierConfig::default()).await.unwrap();
    let of_messages = JwtIdentity::new(old.key(), JwtIdentityConfig::new("alice")).unwrap();
    let shown = slim_auth::bearer(&token_of(&of_messages));
    let error = lenient.check(Some(&shown), now()).unwrap_err().to_string();
    assert!(error.contains("everybody has who gets a message"), "{error}");

    folder.write("keys.json", &set(&new));
    let replaced = async {
        while check(&header(&new, "nodes")).is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(PATIENCE, replaced).await.unwrap();
    check(&header(&old, "nodes")).unwrap_err();
}

#[tokio::test]
async fn bearers_of_an_issuer_that_is_not_there_yet_wait() {
    let server = Server::start().await;
    let signer = Signer::new();
    let issuer = server.issuer().with_pause(Duration::from_millis(10));
    let name = issuer.name().to_owned();
    let keys = BearerKeys::Issuer(issuer);
    let bearers = Bearers::load(&keys, JwtVerifierConfig::default()).await.unwrap();
    let folder = Folder::new();
    let mut config = JwtIdentityConfig::new("alice");
    config.issuer = Some(name);
    let token = config.bearer(&signer.key(), now()).unwrap();
    let path = folder.write("token", &format!("{token}\n"));
    let header = LinkCredentials::Token(path).header(now()).unwrap();
    let error = bearers.check(Some(&header), now()).unwrap_err().to_string();
    assert!(error.ends_with("are not at hand"), "{error}");
    server.publish(&[signer.jwk("key")]);
    let there = async {
        while bearers.check(Some(&header), now()).is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, there).await.unwrap();
}

#[test]
fn credentials_that_are_no_good_are_named() {
    let folder = Folder::new();
    let error = |credentials: LinkCredentials| credentials.header(now()).unwrap_err().to_string();
    let empty = folder.write("empty", " \n");
    assert!(error(LinkCredentials::Token(empty)).ends_with("empty: there is no token"));
    let missing = folder.0.path().join("missing");
    assert!(error(LinkCredentials::Token(missing)).contains("missing: "));
    let key = Text::File(folder.write("key", "no key"));
    let config = JwtIdentityConfig::new("alice");
    let signer = LinkCredentials::Signer { key, algorithm: None, config };
    assert!(error(signer).contains("key: "));
    let none = BearerKeys::Jwks(Text::Inline("{}".to_owned()));
    assert!(none.check().unwrap_err().to_string().contains("JWKS"));
}
