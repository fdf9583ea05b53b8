//! A SPIFFE agent at a real socket: identities that are renewed, keys that change, and
//! what it does not have.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic, too")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rand::{SeedableRng as _, rngs::SmallRng};
use serde_json::json;
use slim_auth::{Identity as _, PublicKey, Verifier as _, VerifyError};
use slim_identity::{Credentials, LoadError, Workload, WorkloadError};
use slim_testkit::agent::Agent;
use slim_testkit::within;
use tempfile::TempDir;

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A folder for sockets.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn socket(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn agent(&self, domain: &str) -> Agent {
        Agent::start(&self.socket(domain), domain).unwrap()
    }

    /// What somebody would configure who is one of this domain.
    fn workload(&self, domain: &str, name: &str) -> Workload {
        let workload = Workload::new(self.socket(domain).to_str()).unwrap();
        workload.with_id(&format!("spiffe://{domain}/{name}")).unwrap()
    }
}

async fn credentials(workload: &Workload) -> Arc<Credentials> {
    within("the agent's answer", Credentials::from_agent(workload)).await.unwrap()
}

async fn refused(workload: &Workload) -> String {
    let loaded = within("the agent's answer", Credentials::from_agent(workload)).await;
    let error = loaded.unwrap_err();
    assert!(matches!(error, LoadError::Workload(_)), "{error:?}");
    error.to_string()
}

fn token(credentials: &Credentials) -> String {
    credentials.token(now(), &mut SmallRng::seed_from_u64(1)).unwrap()
}

/// Waits until this is so, looking whenever something was renewed.
async fn until(what: &str, credentials: &Credentials, is_so: impl Fn() -> bool) {
    let mut changes = credentials.changes();
    within(what, async {
        while !is_so() {
            changes.changed().await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn two_of_a_domain_believe_each_other() {
    let place = Place::new();
    let _agent = place.agent("example.org");
    let alice = credentials(&place.workload("example.org", "alice")).await;
    let bob = credentials(&place.workload("example.org", "bob")).await;
    assert_eq!(alice.subject(), "spiffe://example.org/alice");
    assert_ne!(alice.key().public_key(), bob.key().public_key());
    let claims = bob.verify(&token(&alice), now()).unwrap();
    assert_eq!(claims.subject, alice.subject());
    assert_eq!(claims.public_key, *alice.key().public_key());
    assert!(bob.tells_apart());
    // Whoever does not say who it is is who the agent says.
    let somebody = Workload::new(place.socket("example.org").to_str()).unwrap();
    assert_eq!(credentials(&somebody).await.subject(), "spiffe://example.org/workload");
}

#[tokio::test]
async fn tokens_are_renewed_and_the_key_stays() {
    let place = Place::new();
    let agent = place.agent("example.org");
    agent.set_lifetime(3);
    let alice = credentials(&place.workload("example.org", "alice")).await;
    let (first, key) = (token(&alice), alice.key().public_key().clone());
    let issued = agent.issued();
    until("renewal", &alice, || agent.issued() >= issued + 2).await;
    let claims = alice.verify(&token(&alice), now()).unwrap();
    assert_eq!(claims.public_key, key);
    assert_ne!(token(&alice), first);
    // It never came near its end.
    assert!(claims.expires_at > now());
}

/// The authority signs with new keys, and then believes only those.
#[tokio::test]
async fn keys_change_while_they_are_in_use() {
    let place = Place::new();
    let agent = place.agent("example.org");
    let bob = credentials(&place.workload("example.org", "bob")).await;
    let old = token(&bob);
    agent.rotate();
    until("the new key", &bob, || {
        let claims = json!({ "sub": "spiffe://example.org/x", "exp": now() + 60, "aud": ["slim"] });
        let said = bob.verify(&agent.sign(&claims), now());
        // Signed by somebody whom it knows: only then it looks for a public key.
        matches!(said, Err(VerifyError::NoPublicKey))
    })
    .await;
    assert!(bob.verify(&old, now()).is_ok());
    agent.forget_old_keys();
    until("the end of the old key", &bob, || {
        matches!(bob.verify(&old, now()), Err(VerifyError::UnknownKey(_)))
    })
    .await;
    let alice = credentials(&place.workload("example.org", "alice")).await;
    assert!(bob.verify(&token(&alice), now()).is_ok());
}

#[tokio::test]
async fn an_agent_that_is_away_is_awaited() {
    let place = Place::new();
    let mut agent = place.agent("example.org");
    agent.set_lifetime(5);
    let alice = credentials(&place.workload("example.org", "alice")).await;
    let key = alice.key().public_key().clone();
    agent.stop().await;
    // What there is is in use as long as it is good.
    assert!(alice.verify(&token(&alice), now()).is_ok());
    agent.rotate();
    agent.forget_old_keys();
    agent.restart().unwrap();
    let issued = agent.issued();
    until("a token and a key after the restart", &alice, || {
        let renewed = alice.verify(&token(&alice), now());
        agent.issued() > issued && renewed.is_ok_and(|claims| claims.public_key == key)
    })
    .await;
}

#[tokio::test]
async fn federated_domains_are_believed_unless_somebody_says_otherwise() {
    let place = Place::new();
    let (here, there) = (place.agent("here.example"), place.agent("there.example"));
    let bob = credentials(&place.workload("there.example", "bob")).await;
    let alice = place.workload("here.example", "alice");
    let open = credentials(&alice).await;
    let said = open.verify(&token(&bob), now()).unwrap_err();
    assert_eq!(said.to_string(), "key id there.example-1 of the token is unknown");
    here.federate(&there);
    until("federation", &open, || open.verify(&token(&bob), now()).is_ok()).await;
    // The other domain speaks for itself only.
    let forged =
        json!({ "sub": "spiffe://here.example/alice", "exp": now() + 60, "aud": ["slim"] });
    let said = open.verify(&there.sign(&forged), now()).unwrap_err().to_string();
    assert!(said.ends_with("and signed with the key of there.example"), "{said}");

    let closed = alice.with_domains(&["here.example".to_owned()]).unwrap();
    let closed = credentials(&closed).await;
    assert!(closed.verify(&token(&open), now()).is_ok());
    assert!(matches!(closed.verify(&token(&bob), now()), Err(VerifyError::UnknownKey(_))));
}

#[tokio::test]
async fn audiences_and_times_are_told() {
    let place = Place::new();
    let agent = place.agent("example.org");
    let alice = place.workload("example.org", "alice");
    let slim = credentials(&alice).await;
    let other = credentials(&alice.clone().with_audience(vec!["other".into()])).await;
    let said = slim.verify(&token(&other), now()).unwrap_err();
    assert_eq!(said.to_string(), "audience other of the token is not among slim");
    let both = alice.with_audience(vec!["other".into(), "slim".into()]);
    let both = credentials(&both).await;
    assert!(slim.verify(&token(&both), now()).is_ok());

    // The audience that brings the key is none.
    let pubkey = slim.key().public_key().to_base64();
    let brought = format!("slim-claims:{}", base64(&json!({ "pubkey": pubkey }).to_string()));
    let claims = |aud: serde_json::Value, ago: u64| json!({ "sub": "spiffe://example.org/x", "exp": now() - ago, "aud": aud });
    let judged = |claims| slim.verify(&agent.sign(&claims), now()).map_err(|e| e.to_string());
    let said = judged(claims(json!([brought.clone()]), 0)).unwrap_err();
    assert_eq!(said, "audience \"\" of the token is not among slim");
    let said = judged(claims(json!(["slim", brought]), 180)).unwrap_err();
    assert_eq!(said, "the token expired 3 minutes ago");
    let said = judged(json!({ "sub": "spiffe://example.org/x", "exp": now() + 60 }));
    assert_eq!(said.unwrap_err(), "the token has no claim aud");
    assert!(PublicKey::from_base64(&pubkey).is_ok());
}

#[tokio::test]
async fn what_an_agent_does_not_have_is_told_in_words() {
    let place = Place::new();
    let alice = place.workload("example.org", "alice");
    let at = place.socket("example.org");
    let words = refused(&alice).await;
    let start = format!("SPIFFE agent at unix://{}: ", at.display());
    assert!(words.starts_with(&start), "{words}");
    assert!(words.contains("No such file or directory"), "{words}");

    let agent = place.agent("example.org");
    agent.set_open(false);
    let words = refused(&alice).await;
    let expected =
        "it has no identity spiffe://example.org/alice for this process: is it registered?";
    assert!(words.ends_with(expected), "{words}");
    agent.set_open(true);
    let stranger = Workload::new(at.to_str()).unwrap().with_id("spiffe://evil.example/x").unwrap();
    assert!(refused(&stranger).await.contains("no identity spiffe://evil.example/x"));

    // Not of use even to ourselves.
    let elsewhere = alice.clone().with_domains(&["other.example".to_owned()]).unwrap();
    let words = refused(&elsewhere).await;
    assert!(words.contains("it has no keys of the trust domains that we believe"), "{words}");
    agent.set_lifetime(-300);
    let words = refused(&alice).await;
    assert!(words.ends_with("the token expired 5 minutes ago"), "{words}");

    // A socket behind which nobody answers.
    let silent = std::os::unix::net::UnixListener::bind(place.socket("silent")).unwrap();
    drop(silent);
    let dead = Workload::new(place.socket("silent").to_str()).unwrap();
    assert!(refused(&dead).await.contains("Connection refused"));
    assert_eq!(Workload::new(None), Err(WorkloadError::NoSocket), "the test's own environment");
}

/// An agent that takes the connection and says nothing does not keep anybody for ever.
#[tokio::test(start_paused = true)]
async fn an_agent_that_says_nothing_is_given_up() {
    let place = Place::new();
    let _silent = tokio::net::UnixListener::bind(place.socket("silent")).unwrap();
    let workload = Workload::new(place.socket("silent").to_str()).unwrap();
    let words = refused(&workload).await;
    assert!(words.ends_with("no answer within 10 s"), "{words}");
}

fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}
