//! Identities by a SPIFFE agent, at a real socket.

use std::path::PathBuf;

use serde_json::Value;
use slim_testkit::agent::Agent;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use super::support::{SECRET, Slim, TestNode};

const DOMAIN: &str = "example.org";

/// A node, and an agent of a trust domain.
struct World {
    node: TestNode,
    folder: TempDir,
    agent: Agent,
    runtime: Runtime,
}

impl World {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let guard = runtime.enter();
        let agent = Agent::start(&folder.path().join("agent.sock"), DOMAIN).unwrap();
        drop(guard);
        Self { node: TestNode::start(), folder, agent, runtime }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("agent.sock")
    }

    fn start(&self, name: &str, line: &str) -> Slim {
        let (mode, rest) = line.split_once(' ').unwrap_or((line, ""));
        let socket = self.socket();
        let line = format!(
            "{mode} --local o/n/{name} --spire-socket {} --spiffe-id spiffe://{DOMAIN}/{name} {rest}",
            socket.display()
        );
        Slim::start_with(&self.node, &line, |command| {
            command.env_remove("SLIM_SHARED_SECRET").env("SLIM_MAX_RETRIES", "30");
        })
    }

    /// The agent ends, and comes back.
    fn restart_agent(&mut self) {
        let _guard = self.runtime.enter();
        self.runtime.block_on(self.agent.stop());
        self.agent.restart().unwrap();
    }
}

/// Tokens of seconds, an authority that signs with another key, an agent that is started
/// again: the group goes on, and somebody joins.
#[test]
fn a_group_outlives_tokens_keys_and_agents() {
    let mut world = World::new();
    world.agent.set_lifetime(4);
    let mut alice = world.start("alice", "group");
    alice.expect("waiting");
    let mut bob = world.start("bob", "group --accept-from o/n/mod");
    bob.expect("waiting");
    let mut moderator = world
        .start("mod", "group --remote o/n/chat --invites o/n/alice --invites o/n/bob --enable-mls");
    for name in ["o/n/alice", "o/n/bob"] {
        let is_it = |event: &Value| event["event"] == "invite" && event["name"] == name;
        let invite = moderator.told("outcome of an invitation", is_it);
        assert_eq!(invite["outcome"], "joined", "{invite}");
    }
    for one in [&mut alice, &mut bob] {
        assert_eq!(one.expect("session")["mls"], true);
    }
    let mut everybody = [moderator, alice, bob];
    let mut said = 0;
    let mut converse = |members: &mut [Slim]| {
        for speaker in 0..members.len() {
            said += 1;
            let text = format!("line {said}");
            members[speaker].type_line(&text);
            for (listener, member) in members.iter_mut().enumerate() {
                if listener != speaker {
                    member.expect_message(&text);
                }
            }
        }
    };
    converse(&mut everybody);
    // Everybody gets another token, and another one.
    let renewed = |world: &World, times: u64| {
        let before = world.agent.issued();
        let deadline = std::time::Instant::now() + super::support::PATIENCE;
        while world.agent.issued() < before + times {
            assert!(std::time::Instant::now() < deadline, "no renewal");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    };
    renewed(&world, 6);
    converse(&mut everybody);
    world.agent.rotate();
    renewed(&world, 6);
    converse(&mut everybody);
    world.restart_agent();
    renewed(&world, 3);
    converse(&mut everybody);

    let mut carol = world.start("carol", "group");
    carol.expect("waiting");
    everybody[0].type_line("/invite o/n/carol");
    let invite = everybody[0].expect_where("invite", |event| event["name"] == "o/n/carol");
    assert_eq!(invite["outcome"], "joined", "{invite}");
    carol.expect("session");
    let [mut moderator, alice, bob] = everybody;
    moderator.type_line("welcome");
    carol.expect_message("welcome");
    moderator.type_line("exit");
    for one in [moderator, alice, bob, carol] {
        let exit = one.exit();
        assert_eq!(exit.status, Some(0), "{exit:?}");
    }
}

/// Its own audience, and an identity that the agent does not have for it.
#[test]
fn what_does_not_fit_is_told_in_words() {
    let world = World::new();
    let mut bob = world.start("bob", "p2p");
    bob.expect("waiting");
    let exit = world.start("alice", "p2p --remote o/n/bob --audience other").exit();
    exit.assert_failed(4, "identity_refused");
    assert!(exit.stderr.contains("audience slim of the token is not among other"), "{exit:?}");
    let told = bob.expect_error("identity_mismatch");
    let words = told["message"].as_str().unwrap();
    assert!(words.starts_with("audience other of the token is not among slim"), "{words}");
    world
        .start("alice", "p2p --remote o/n/bob --message hi --iterations 1 --enable-mls")
        .exit_well();

    world.agent.set_open(false);
    let exit = world.start("alice", "p2p --remote o/n/bob").exit();
    exit.assert_failed(1, "agent_unreachable");
    assert!(exit.stderr.contains("it has no identity spiffe://example.org/alice"), "{exit:?}");
}

#[test]
fn an_agent_that_is_not_there_is_told_at_once() {
    let node = TestNode::start();
    let start = |line: &str, socket: Option<&str>| {
        let line = format!("group --local o/n/alice --slim {} {line}", node.url());
        let mut command = super::support::command();
        command.args(line.split_whitespace()).stdin(std::process::Stdio::null());
        if let Some(socket) = socket {
            command.env("SPIFFE_ENDPOINT_SOCKET", socket);
        } else {
            command.env_remove("SPIFFE_ENDPOINT_SOCKET");
        }
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for (line, socket) in [
        ("--spire-socket /nowhere/agent.sock", None),
        ("--spire-socket", Some("unix:///nowhere/agent.sock")),
    ] {
        let (status, words) = start(line, socket);
        assert_eq!(status, Some(1), "{words}");
        let expected = "SPIFFE agent at unix:///nowhere/agent.sock: ";
        assert!(words.contains(expected) && words.contains("No such file"), "{words}");
        assert_eq!(words.lines().count(), 1, "{words}");
    }
    let secret = format!("--shared-secret {}", SECRET.replace(' ', "-"));
    for (line, expected) in [
        ("--spire-socket", "SPIFFE_ENDPOINT_SOCKET is not set"),
        ("--spire-socket tcp:192.0.2.1:1", "not a socket of this machine"),
        ("--spire-socket /a --spiffe-id alice", "--spiffe-id: alice is no SPIFFE ID"),
        ("--spire-socket /a --trust-domain a/b", "--trust-domain: a/b is no trust domain"),
        ("--spire-socket /a --jwks keys.json", "--jwks excludes --spire-socket"),
        ("--spiffe-id spiffe://a/b", "--spire-socket"),
        (&format!("--spire-socket /a {secret}"), "more than one identity"),
    ] {
        let (status, words) = start(line, None);
        assert_eq!(status, Some(2), "{line}: {words}");
        assert!(words.contains(expected), "{line}: {words}");
    }
}
