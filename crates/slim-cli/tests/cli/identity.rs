//! Identities other than a secret: keys, lists, tokens, and the document about them.

use std::fs;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use slim_auth::{JwtSigningKey, SigningKey, new_did_pem};
use slim_testkit::agent::Agent;
use tempfile::TempDir;

use super::support::{SECRET, Slim, TestNode, command};

const DOCUMENT: &str = include_str!("../../../../docs/identity.md");

fn slim(folder: &Path, arguments: &[&str]) -> Output {
    command().args(arguments).current_dir(folder).stdin(Stdio::null()).output().unwrap()
}

/// What it printed, which has to be all.
fn well(folder: &Path, arguments: &[&str]) -> String {
    let output = slim(folder, arguments);
    assert!(output.status.success() && output.stderr.is_empty(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Why it was refused.
fn badly(folder: &Path, arguments: &[&str], status: i32) -> String {
    let output = slim(folder, arguments);
    assert_eq!(output.status.code(), Some(status), "{arguments:?}: {output:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// A process with these options and no secret.
fn start(node: &TestNode, folder: &Path, line: &str) -> Slim {
    Slim::start_with(node, line, |command| {
        command.current_dir(folder).env_remove("SLIM_SHARED_SECRET");
    })
}

#[test]
fn keys_are_made_for_their_owner_alone() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    let did = well(folder, &["identity", "new", "a.pem"]);
    assert!(did.starts_with("did:key:z6Mk") && did.lines().count() == 1, "{did}");
    let file = folder.join("a.pem");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let pem = fs::read_to_string(&file).unwrap();
    assert_eq!(well(folder, &["identity", "show", "a.pem"]), did);
    let private = pem.lines().nth(1).unwrap();

    let words = badly(folder, &["identity", "new", "a.pem"], 1);
    assert!(words.contains("a.pem: File exists"), "{words}");
    assert_eq!(fs::read_to_string(&file).unwrap(), pem);

    let public = well(folder, &["identity", "new", "--for-jwt", "b.pem"]);
    assert_eq!(well(folder, &["identity", "show", "b.pem"]), public);
    let key = SigningKey::from_pem(&fs::read_to_string(folder.join("b.pem")).unwrap()).unwrap();
    assert_eq!(public.trim(), key.public_key().to_base64());

    let list = well(folder, &["identity", "trust", "trust.json", "a.pem"]);
    assert_eq!(list, did);
    let trusted = fs::read_to_string(folder.join("trust.json")).unwrap();
    for text in [&did, &public, &list, &trusted] {
        assert!(!text.contains(private) && !text.contains("PRIVATE"), "{text}");
    }
}

#[test]
fn a_list_says_who_is_trusted() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    let a = well(folder, &["identity", "new", "a.pem"]);
    let b = well(folder, &["identity", "new", "b.pem"]);
    let trust = |arguments: &[&str]| {
        let mut lines: Vec<String> = well(folder, &[&["identity", "trust"], arguments].concat())
            .lines()
            .map(|line| format!("{line}\n"))
            .collect();
        lines.sort();
        lines
    };
    let mut both = [a.clone(), b.clone()];
    both.sort();
    assert_eq!(trust(&["list", "a.pem", b.trim()]), both);
    assert_eq!(trust(&["list", "a.pem"]), both, "a second time changes nothing");
    assert_eq!(trust(&["list"]), both);
    assert_eq!(trust(&["list", "--remove", a.trim()]), [b]);

    let words = badly(folder, &["identity", "trust", "gone"], 1);
    assert!(words.starts_with("slim: gone: No such file"), "{words}");
    let words = badly(folder, &["identity", "trust", "list", "did:key:zNobody"], 1);
    assert!(words.contains("did:key:zNobody is not the did:key of an Ed25519 key"), "{words}");
    fs::write(folder.join("other"), "[]").unwrap();
    let words = badly(folder, &["identity", "trust", "other", "a.pem"], 1);
    assert!(words.contains("other: not the JSON of a JWKS"), "{words}");
    assert_eq!(fs::read_to_string(folder.join("other")).unwrap(), "[]");
    assert!(badly(folder, &["identity", "show", "list"], 1).contains("neither an Ed25519 nor"));
    badly(folder, &["identity", "trust", "list", "--remove"], 2);
}

/// Keys of other kinds, which sign for a subject.
#[test]
fn keys_of_any_kind_are_listed_and_shown() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    let keys = Path::new(env!("CARGO_MANIFEST_DIR")).join("../slim-auth/tests/keys");
    let keys = keys.to_str().unwrap();
    let set: Value =
        serde_json::from_str(&fs::read_to_string(format!("{keys}/jwks.json")).unwrap()).unwrap();
    for name in ["p256", "p384", "rsa", "ed25519"] {
        let of = |file: String| -> Value {
            let line = well(folder, &["identity", "show", "--jwk", "--subject", name, &file]);
            serde_json::from_str(&line).unwrap()
        };
        let jwk = of(format!("{keys}/{name}.pem"));
        assert_eq!(jwk, of(format!("{keys}/{name}.pub.pem")), "{name}");
        let known = set["keys"].as_array().unwrap().iter().find(|key| key["kid"] == name).unwrap();
        for member in ["kty", "kid", "crv", "x", "y", "n", "e"] {
            assert_eq!(jwk[member], known[member], "{name}: {member}");
        }
        assert!(["d", "p", "q"].iter().all(|member| jwk.get(member).is_none()), "{name}");
    }
    let p256 = format!("alice={keys}/p256.pem");
    let list =
        well(folder, &["identity", "trust", "list", &p256, &format!("bob={keys}/rsa.pub.pem")]);
    assert_eq!(list, "alice\nbob\n");
    assert_eq!(well(folder, &["identity", "trust", "--remove", "list", "alice"]), "bob\n");
    let words = badly(folder, &["identity", "trust", "list", "carol=gone.pem"], 1);
    assert!(words.contains("gone.pem: No such file"), "{words}");
    badly(folder, &["identity", "show", "--subject", "x", "list"], 2);
    badly(folder, &["identity", "show", "--jwk", "list"], 1);
}

#[test]
fn options_that_do_not_fit_are_refused() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    well(folder, &["identity", "new", "a.pem"]);
    fs::write(folder.join("empty"), r#"{"keys":[]}"#).unwrap();
    for (line, expected) in [
        ("", "no identity: give --shared-secret"),
        ("--identity a.pem", "whom to believe?"),
        ("--identity a.pem --trust empty --jwks empty", "exclude each other"),
        ("--identity a.pem --jwt t --jwt-key k --trust empty", "more than one identity"),
        ("--jwt t --trust empty", "--jwt needs --jwt-key"),
        ("--jwt-key k --trust empty", "--jwt"),
        ("--subject s --trust empty", "--identity"),
        ("--identity a.pem --spire-trust-bundle b", "--audience"),
        ("--identity gone.pem --trust empty", "gone.pem: No such file"),
        ("--identity a.pem --trust gone", "gone: No such file"),
        ("--identity empty --trust empty", "empty: key for tokens: no section PRIVATE KEY"),
        ("--identity a.pem --subject s --algorithm none --jwks empty", "none is none of HS256"),
        (
            "--identity a.pem --subject s --algorithm RS256 --jwks empty",
            "a.pem: key for tokens: RS256 needs an RSA key",
        ),
        ("--identity a.pem --jwks empty", "empty: no usable key in the set"),
        ("--identity a.pem --oidc-issuer http://issuer.example", "http is for this machine alone"),
        ("--identity a.pem --oidc-issuer https://issuer.example", "tokens that we sign ourselves"),
    ] {
        let line = format!("group --local a/b/c --slim http://127.0.0.1:9 {line}");
        let words = badly(folder, &line.split_whitespace().collect::<Vec<_>>(), 2);
        assert!(words.contains(expected), "{line}: {words}");
    }
    let secret = ["group", "--local", "a/b/c", "--shared-secret", SECRET, "--trust", "empty"];
    let words = badly(folder, &secret, 2);
    assert!(words.contains("--trust needs --identity or --jwt"), "{words}");
    assert!(!words.contains(SECRET));
}

/// Two commands, and a stranger who has not been added to the list.
#[test]
fn keys_and_a_list_are_a_group() {
    let (node, folder) = (TestNode::start(), TempDir::new().unwrap());
    let folder = folder.path();
    for name in ["mod.pem", "a.pem", "b.pem", "eve.pem"] {
        well(folder, &["identity", "new", name]);
    }
    well(folder, &["identity", "trust", "list", "mod.pem", "a.pem", "b.pem"]);
    let options = |name: &str| format!("--local o/n/{name} --identity {name}.pem --trust list");
    let mut others =
        ["a", "b", "eve"].map(|name| start(&node, folder, &format!("group {}", options(name))));
    for other in &mut others {
        other.expect("waiting");
    }
    let [mut a, mut b, mut eve] = others;
    let mut moderator = start(
        &node,
        folder,
        &format!(
            "group {} --remote o/n/chat --invites o/n/a --invites o/n/eve --invites o/n/b --enable-mls",
            options("mod")
        ),
    );
    let refused = moderator.expect_where("invite", |event| event["name"] == "o/n/eve");
    assert_eq!(refused["outcome"], "refused", "{refused}");
    let did = well(folder, &["identity", "show", "eve.pem"]);
    let reason = format!("key id {} of the token is unknown", did.trim());
    assert_eq!(refused["reason"], reason);
    // She is told by nobody's list: she trusts the moderator, who does not trust her.
    for other in [&mut a, &mut b] {
        let session = other.expect("session");
        assert_eq!(session["mls"], true);
    }
    moderator.type_line("hello");
    a.expect_message("hello");
    b.type_line("hi");
    moderator.expect_message("hi");

    // Once she is in the list, she is in the group.
    well(folder, &["identity", "trust", "list", "eve.pem"]);
    let mut invited = None;
    for _ in 0..20 {
        moderator.type_line("/invite o/n/eve");
        let event = moderator.expect_where("invite", |event| event["name"] == "o/n/eve");
        if event["outcome"] == "joined" {
            invited = Some(event);
            break;
        }
    }
    assert!(invited.is_some(), "never noticed that the list has changed");
    eve.expect("session");
    moderator.type_line("exit");
    for one in [moderator, a, b, eve] {
        assert_eq!(one.exit().status, Some(0));
    }
}

/// The invited one does not trust the moderator: both are told why.
#[test]
fn who_is_not_trusted_is_told_by_whom() {
    let (node, folder) = (TestNode::start(), TempDir::new().unwrap());
    let folder = folder.path();
    let caller = well(folder, &["identity", "new", "caller.pem"]);
    well(folder, &["identity", "new", "bob.pem"]);
    well(folder, &["identity", "trust", "both", "caller.pem", "bob.pem"]);
    well(folder, &["identity", "trust", "himself", "bob.pem"]);
    let mut bob = start(&node, folder, "p2p --local o/n/bob --identity bob.pem --trust himself");
    bob.expect("waiting");
    let caller_process = start(
        &node,
        folder,
        "p2p --local o/n/caller --identity caller.pem --trust both --remote o/n/bob",
    );
    let exit = caller_process.exit();
    exit.assert_failed(4, "identity_refused");
    let reason = format!("key id {} of the token is unknown", caller.trim());
    assert!(exit.stderr.contains(&format!("it does not verify us: {reason}")), "{exit:?}");
    let told = bob.expect_error("identity_mismatch");
    assert!(told["message"].as_str().unwrap().starts_with(&reason), "{told}");

    // With another kind of identity there is not even a token that could be read.
    let caller = Slim::start(&node, "p2p --local o/n/dave --remote o/n/bob");
    let exit = caller.exit();
    exit.assert_failed(4, "identity_refused");
    assert!(exit.stderr.contains("the token is a JSON Web Token"), "{exit:?}");
    let told = bob.expect_error("identity_mismatch");
    let words = told["message"].as_str().unwrap();
    assert!(words.starts_with("the token is one of a shared secret"), "{words}");
}

/// Who waits takes whom it wants, and says so in words; to the others that is an outcome.
#[test]
fn invitations_are_taken_from_whom_one_wants() {
    let node = TestNode::start();
    let mut picky =
        Slim::start(&node, "group --local o/n/picky --accept-from x --accept-from o/n/boss");
    let mut open = Slim::start(&node, "group --local o/n/open");
    let mut deaf = Slim::start_with(&node, "p2p --local o/n/deaf", |command| {
        command.env("SLIM_ACCEPT_FROM", "x/y  o/other");
    });
    for one in [&mut picky, &mut open, &mut deaf] {
        one.expect("waiting");
    }
    let invites = "--invites o/n/picky --invites o/n/open --enable-mls";
    let mut stranger =
        Slim::start(&node, &format!("group --local o/n/stranger --remote o/n/chat {invites}"));
    let refused = stranger.expect_where("invite", |event| event["name"] == "o/n/picky");
    assert_eq!(refused["outcome"], "refused", "{refused}");
    assert_eq!(refused["reason"], "it does not want to join: it takes none from o/n/stranger");
    let told = picky.expect_error("invitation_declined");
    assert_eq!(told["message"], "declined an invitation of o/n/stranger");
    open.expect("session");
    let caller = Slim::start(&node, "p2p --local o/n/caller --remote o/n/deaf").exit();
    caller.assert_failed(1, "refused");
    assert!(caller.stderr.contains("o/n/deaf cannot join: it does not want to join"), "{caller:?}");
    deaf.expect_error("invitation_declined");

    let mut boss =
        Slim::start(&node, "group --local o/n/boss --remote o/n/work --invites o/n/picky");
    picky.expect("session");
    boss.type_line("hello");
    picky.expect_message("hello");
    for mut moderator in [stranger, boss] {
        moderator.end_input();
        moderator.exit_well();
    }
    for member in [picky, open] {
        assert_eq!(member.exit().status, Some(0));
    }
}

/// An issuer: signs what it is asked to.
struct Issuer {
    key: JwtSigningKey,
    /// What it calls itself in its tokens, if it does.
    url: Option<String>,
}

impl Issuer {
    fn new() -> Self {
        let key = JwtSigningKey::from_any_pem(&new_did_pem().unwrap()).unwrap();
        Self { key, url: None }
    }

    fn jwks(&self) -> String {
        let x = URL_SAFE_NO_PAD.encode(self.key.verifying_key().ed25519().unwrap());
        let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "kid": "k", "x": x, "use": "jwt-svid" });
        json!({ "keys": [jwk] }).to_string()
    }

    fn bundle(&self) -> String {
        json!({ "example.org": STANDARD.encode(self.jwks()) }).to_string()
    }

    fn token(&self, name: &str, pubkey: &str, lasts: u64) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let mut claims = json!({
            "sub": format!("spiffe://example.org/{name}"),
            "exp": now + lasts - 1000,
            "aud": ["slim"],
            "pubkey": pubkey,
        });
        if let Some(url) = &self.url {
            claims["iss"] = json!(url);
        }
        self.key.sign_claims("k", claims.as_object().unwrap()).unwrap()
    }

    /// Key, token and bundle of somebody, under the names of the document.
    fn equip(&self, folder: &Path, name: &str, lasts: u64) {
        let key = format!("{name}-key.pem");
        let pubkey = well(folder, &["identity", "new", "--for-jwt", &key]);
        let token = self.token(name, pubkey.trim(), lasts);
        fs::write(folder.join(format!("{name}.token")), format!("{token}\n")).unwrap();
        fs::write(folder.join("bundle.json"), self.bundle()).unwrap();
    }
}

#[test]
fn a_token_that_has_expired_is_told_in_words() {
    let (node, folder) = (TestNode::start(), TempDir::new().unwrap());
    let folder = folder.path();
    let issuer = Issuer::new();
    issuer.equip(folder, "bob", 2000);
    issuer.equip(folder, "alice", 1000);
    let line = |name: &str, more: &str| {
        format!(
            "p2p --local o/n/{name} --jwt {name}.token --jwt-key {name}-key.pem \
             --spire-trust-bundle bundle.json {more}"
        )
    };
    let mut bob = start(&node, folder, &line("bob", "--audience slim"));
    bob.expect("waiting");
    // Sixty seconds are allowed, so this one still does, but not for another audience.
    let alice = start(&node, folder, &line("alice", "--audience other --remote o/n/bob"));
    let exit = alice.exit();
    exit.assert_failed(4, "identity_refused");
    assert!(exit.stderr.contains("audience slim of the token is not among other"), "{exit:?}");
    let alice = start(
        &node,
        folder,
        &line("alice", "--audience slim --remote o/n/bob --message hi --iterations 1"),
    );
    alice.exit_well();

    // Two minutes old: whoever starts with it cannot even speak.
    issuer.equip(folder, "carol", 880);
    let carol = start(&node, folder, &line("carol", "--audience slim --remote o/n/bob"));
    let exit = carol.exit();
    assert_ne!(exit.status, Some(0));
    assert!(exit.stderr.contains("expired 2 minutes ago"), "{exit:?}");
}

/// An OpenID Connect issuer over HTTP: where it is. Serves until the test ends.
fn serve(issuer: &Issuer) -> String {
    serve_with(issuer, None)
}

/// The same over HTTPS, as `localhost`, if there is a certificate.
fn serve_with(issuer: &Issuer, tls: Option<Arc<ServerConfig>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let url = match tls {
        None => format!("http://{address}"),
        Some(_) => format!("https://localhost:{}", address.port()),
    };
    let discovery = json!({ "issuer": url, "jwks_uri": format!("{url}/keys") }).to_string();
    let keys = issuer.jwks();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            let mut stream: BufReader<Box<dyn ReadWrite>> = BufReader::new(match &tls {
                None => Box::new(stream),
                Some(tls) => {
                    let connection = ServerConnection::new(tls.clone()).unwrap();
                    Box::new(StreamOwned::new(connection, stream))
                }
            });
            let mut request = String::new();
            // Who does not trust us does not ask.
            if stream.read_line(&mut request).is_err() {
                continue;
            }
            let (status, body) = match request.split(' ').nth(1) {
                Some("/.well-known/openid-configuration") => ("200 OK", &discovery),
                Some("/keys") => ("200 OK", &keys),
                _ => ("404 Not Found", &String::new()),
            };
            let length = body.len();
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}");
            // Who asked may be gone.
            stream.get_mut().write_all(answer.as_bytes()).ok();
        }
    });
    url
}

#[test]
fn the_keys_of_an_issuer_are_fetched() {
    let (node, folder) = (TestNode::start(), TempDir::new().unwrap());
    let folder = folder.path();
    let mut issuer = Issuer::new();
    let url = serve(&issuer);
    issuer.url = Some(url.clone());
    for name in ["bob", "alice"] {
        issuer.equip(folder, name, 5000);
    }
    let line = |name: &str, url: &str, more: &str| {
        format!(
            "p2p --local o/n/{name} --jwt {name}.token --jwt-key {name}-key.pem --audience slim \
             --oidc-issuer {url} {more}"
        )
    };
    let mut bob = start(&node, folder, &line("bob", &url, ""));
    bob.expect("waiting");
    let call = "--remote o/n/bob --message hi --iterations 1 --enable-mls";
    start(&node, folder, &line("alice", &url, call)).exit_well();
    let session = bob.expect("session");
    assert_eq!(session["mls"], true);

    // Somebody else's tokens, however well they are signed.
    let mut other = Issuer::new();
    other.url = Some(serve(&other));
    other.equip(folder, "mallory", 5000);
    let mallory = start(&node, folder, &line("mallory", &url, call)).exit();
    mallory.assert_failed(4, "identity_refused");
    let expected = format!("is issued by {}, expected {url}", other.url.unwrap());
    assert!(mallory.stderr.contains(&expected), "{mallory:?}");

    // Nobody is there: said at once, before anything is connected.
    let gone = start(&node, folder, &line("alice", "http://127.0.0.1:9", call)).exit();
    assert_eq!(gone.status, Some(1), "{gone:?}");
    assert!(gone.stderr.contains("http://127.0.0.1:9/.well-known/jwks.json"), "{gone:?}");
}

trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

/// An authority for the certificate of an issuer, and what shows the latter.
fn authority(name: &str) -> (String, Arc<ServerConfig>) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let ca = params.self_signed(&key).unwrap().pem();
    let issuer = rcgen::Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key.serialize_der().try_into().unwrap())
        .unwrap();
    (ca, Arc::new(config))
}

/// Over TLS, with an authority that only we know, and with certificates that are no good.
#[test]
fn the_keys_of_an_issuer_come_over_tls() {
    let (node, folder) = (TestNode::start(), TempDir::new().unwrap());
    let folder = folder.path();
    let (ca, tls) = authority("localhost");
    let mut issuer = Issuer::new();
    let url = serve_with(&issuer, Some(tls));
    issuer.url = Some(url.clone());
    for name in ["bob", "alice"] {
        issuer.equip(folder, name, 5000);
    }
    fs::write(folder.join("ca.pem"), &ca).unwrap();
    let slim = |name: &str, url: &str, trusts: Option<&str>, more: &str| {
        let line = format!(
            "p2p --local o/n/{name} --jwt {name}.token --jwt-key {name}-key.pem --audience slim \
             --oidc-issuer {url} {more}"
        );
        Slim::start_with(&node, &line, |command| {
            command.current_dir(folder).env_remove("SLIM_SHARED_SECRET");
            command.env_remove("SSL_CERT_DIR").env_remove("SSL_CERT_FILE");
            if let Some(file) = trusts {
                command.env("SSL_CERT_FILE", folder.join(file));
            }
        })
    };
    let mut bob = slim("bob", &url, Some("ca.pem"), "");
    bob.expect("waiting");
    let call = "--remote o/n/bob --message hi --iterations 1 --enable-mls";
    slim("alice", &url, Some("ca.pem"), call).exit_well();

    let (other_ca, misnamed) = authority("issuer.example");
    fs::write(folder.join("other.pem"), other_ca).unwrap();
    let elsewhere = serve_with(&issuer, Some(misnamed));
    for (url, trusts, words) in [
        // The system does not know the authority, nor does another one vouch for it.
        (&url, None, "UnknownIssuer"),
        (&url, Some("other.pem"), "invalid peer certificate"),
        (&elsewhere, Some("other.pem"), "not valid for name"),
    ] {
        let exit = slim("alice", url, trusts, call).exit();
        exit.assert_failed(1, "issuer_unreachable");
        assert!(exit.stderr.contains(words), "{exit:?}");
    }
}

/// Every block `sh` of docs/identity.md, in order, as it stands there.
#[test]
fn the_commands_of_the_document_work() {
    let (node, folder) = (TestNode::start(), TempDir::new().unwrap());
    let folder = folder.path();
    let issuer = Issuer::new();
    issuer.equip(folder, "bob", 5000);
    issuer.equip(folder, "alice", 5000);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let guard = runtime.enter();
    let socket = folder.join("agent.sock");
    let _agent = Agent::start(&socket, "example.org").unwrap();
    drop(guard);
    let programs = Path::new(env!("CARGO_BIN_EXE_slim")).parent().unwrap();
    let path = std::env::var("PATH").unwrap();
    let blocks: Vec<&str> =
        DOCUMENT.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(blocks.len() >= 8, "{}", blocks.len());
    let mut calls = 0;
    for block in blocks {
        let mut shell = Command::new("sh");
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("SLIM_") {
                shell.env_remove(name);
            }
        }
        let output = shell
            .args(["-e", "-u", "-c", block])
            .current_dir(folder)
            .env("PATH", format!("{}:{path}", programs.display()))
            .env("SLIM_SLIM", node.url())
            .env("SPIFFE_ENDPOINT_SOCKET", format!("unix://{}", socket.display()))
            .env("SLIM_TIMEOUT", "0.5")
            .env("SLIM_MAX_RETRIES", "30")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(output.status.success(), "{block}{output:?}");
        if block.contains("--message hello") {
            calls += 1;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(text.contains("hello"), "{block}{output:?}");
        }
    }
    assert_eq!(calls, 7);
    let list: Value =
        serde_json::from_str(&fs::read_to_string(folder.join("trust.json")).unwrap()).unwrap();
    assert_eq!(list["keys"].as_array().unwrap().len(), 2);
}
