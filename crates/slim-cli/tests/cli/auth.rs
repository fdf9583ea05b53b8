//! Nodes that want to know who opens a link.

use std::fs;
use std::sync::Arc;

use slim_auth::{Algorithm, JwtIdentityConfig, JwtSigningKey, JwtVerifierConfig, Users};
use slim_identity::{BearerKeys, Bearers, Text};
use slim_node::LinkAuth;

use super::support::{Exit, Slim, TestNode};

fn users() -> TestNode {
    let users = Users::new([("alice", "wonderland"), ("bob", "builder")]).unwrap();
    TestNode::start_with(None, Some(Arc::new(LinkAuth::Basic(users))))
}

/// `--slim` with this object under `auth`.
fn shows(node: &TestNode, auth: &str) -> String {
    format!(r#"{{"endpoint": "{}", "tls": {{"insecure": true}}, "auth": {auth}}}"#, node.url())
}

fn basic(node: &TestNode, user: &str, password: &str) -> String {
    shows(node, &format!(r#"{{"type": "basic", "username": "{user}", "password": "{password}"}}"#))
}

fn ends(slim: &str) -> Exit {
    Slim::start_at(slim, "group --local a/b/c", |_| {}).exit()
}

/// Two of them call each other.
fn check_call(listener: &str, caller: &str) {
    let mut listener = Slim::start_at(listener, "p2p --local a/b/listener", |_| {});
    listener.expect("waiting");
    let line = "p2p --local a/b/caller --remote a/b/listener --message hey --iterations 1";
    let mut caller = Slim::start_at(caller, line, |_| {});
    caller.expect_message("hey");
    caller.exit_well();
    listener.expect("closed");
}

#[test]
fn who_has_a_password_is_let_in() {
    let node = users();
    check_call(&basic(&node, "alice", "wonderland"), &basic(&node, "bob", "builder"));
}

#[test]
fn who_has_none_is_refused_with_status_4_and_why() {
    let node = users();
    for (slim, why) in [
        (node.url(), "no authorization is shown, expected Basic"),
        (basic(&node, "alice", "builder"), "unknown user or wrong password"),
        (basic(&node, "carol", "wonderland"), "unknown user or wrong password"),
    ] {
        let exit = ends(&slim);
        assert_eq!(exit.status, Some(4), "{exit:?}");
        assert!(exit.stderr.contains(why), "{exit:?}");
        assert!(!exit.stderr.contains("builder") && !exit.stderr.contains("wonderland"));
    }
}

#[test]
fn tokens_are_made_or_read_and_their_faults_are_told() {
    let folder = tempfile::TempDir::new().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    const KEY: &str = "0123456789abcdef0123456789abcdef";
    let signer = JwtSigningKey::from_pem(Algorithm::Hs256, KEY).unwrap();
    let audience = vec!["nodes".to_owned()];
    let config = JwtVerifierConfig {
        audience: audience.clone(),
        require_audience: true,
        ..JwtVerifierConfig::default()
    };
    let keys = BearerKeys::Pem(Algorithm::Hs256, Text::Inline(KEY.to_owned()));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let bearers = runtime.block_on(Bearers::load(&keys, config)).unwrap();
    let auth = LinkAuth::Bearer { bearers, subject: None };
    let node = TestNode::start_with(None, Some(Arc::new(auth)));

    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let issued = |audience: &[String], age: u64| {
        let config =
            JwtIdentityConfig { audience: audience.to_vec(), ..JwtIdentityConfig::new("app") };
        config.bearer(&signer, now - age).unwrap()
    };
    let token = issued(&audience, 0);
    let held = |name: &str, token: &str| {
        let path = file(name, token);
        shows(&node, &format!(r#"{{"type": "static_jwt", "file": "{path}"}}"#))
    };
    let key = file("key", KEY);
    let signs = |audience: &str| {
        let claims = format!(r#"{{"subject": "app", "audience": "{audience}"}}"#);
        let key =
            format!(r#"{{"type": "encoding", "algorithm": "HS256", "key": {{"file": "{key}"}}}}"#);
        shows(&node, &format!(r#"{{"type": "jwt", "claims": {claims}, "key": {key}}}"#))
    };
    check_call(&held("good", &token), &signs("nodes"));

    for (slim, status, why) in [
        (signs("others"), 4, "audience others of the token is not among nodes"),
        (held("old", &issued(&audience, 7200)), 4, "the token expired 60 minutes ago"),
        (held("empty", " "), 2, "empty: there is no token"),
        (basic(&node, "alice", "x"), 4, "another scheme, expected Bearer"),
    ] {
        let exit = ends(&slim);
        assert_eq!(exit.status, Some(status), "{exit:?}");
        assert!(exit.stderr.contains(why), "{exit:?}");
    }
}
