//! A node with a policy: names belong to somebody.

use std::sync::Arc;

use crate::common::{Client, TestNode, any, config, name, ok, publish, refused};
use slim_auth::{Users, basic};
use slim_link::{Authorization, DialConfig};
use slim_node::{LinkAuth, ListenConfig, NodeConfig, Policy, Rule};
use slim_proto::{BROADCAST, Header, Message, UNICAST};

/// What somebody may do who is known by a password.
fn rule(user: &str, subscribe: &[&str], publish: &[&str]) -> Rule {
    let names = |list: &[&str]| list.iter().map(|text| text.parse().unwrap()).collect();
    Rule {
        name: format!("of {user}"),
        principals: vec![format!("basic:{user}").parse().unwrap()],
        issuer: None,
        subscribe: names(subscribe),
        publish: names(publish),
    }
}

/// Everybody has the own name, and sends to everybody; alice and bob have a team.
fn policy() -> Policy {
    let team = ["org/ns/alice", "org/ns/team"];
    Policy {
        rules: vec![
            rule("alice", &team, &["org/ns"]),
            rule("bob", &["org/ns/bob", "org/ns/team"], &["org/ns"]),
            rule("mallory", &["org/ns/mallory"], &["org/ns/alice"]),
        ],
    }
}

async fn node() -> TestNode {
    let users = ["alice", "bob", "mallory"].map(|user| (user, "password"));
    let auth = LinkAuth::Basic(Users::new(users).unwrap());
    let config = config();
    let listen = ListenConfig { auth: Some(Arc::new(auth)), ..config.listen[0].clone() };
    let config = NodeConfig { listen: vec![listen], policy: Some(policy()), ..config };
    TestNode::start_with(config).await
}

/// The link of a user, who speaks in the name of `app`.
async fn link(node: &TestNode, user: &str, app: &str, id: u128) -> Client {
    let header = basic(user, "password");
    let authorization = Some(Authorization::new(move || Ok(header.clone())));
    let dial = DialConfig { authorization, ..DialConfig::default() };
    Client::connect_with(node, app, id, &dial).await
}

#[tokio::test]
async fn a_name_is_its_owners() {
    let node = node().await;
    let mut alice = link(&node, "alice", "alice", 1).await;
    assert_eq!(alice.subscribe(&name("alice", 1), 1).await, ok(1));
    let mut mallory = link(&node, "mallory", "mallory", 3).await;
    assert_eq!(mallory.subscribe(&name("mallory", 3), 1).await, ok(1));
    let reason = "not allowed: basic:mallory may not subscribe to this name";
    // This instance, another one, any, and with the own text over somebody's hashes.
    for stolen in [name("alice", 1), name("alice", 7), any("alice"), name("team", 1)] {
        assert_eq!(mallory.subscribe(&stolen, 2).await, refused(2, reason));
    }
    // Nobody answers who does not ask, and it is denied all the same.
    mallory.send(&Message::Subscribe(crate::common::subscription(&any("alice"), 0))).await;
    node.until(|metrics| metrics.denied_subscriptions == 5).await;
    assert_eq!(node.metrics().subscriptions, 2);
    // What is not there can be withdrawn in vain, as ever.
    assert!(mallory.unsubscribe(&any("alice"), 2).await.result.is_err());
    let mut bob = link(&node, "bob", "bob", 2).await;
    assert_eq!(bob.subscribe(&name("bob", 2), 1).await, ok(1));
    bob.tell_all(&any("alice"), "for alice").await;
    assert_eq!(alice.next_text().await, "for alice");
    mallory.tell(&name("mallory", 3), "nobody else").await;
    alice.has_nothing_from(&bob).await;
}

#[tokio::test]
async fn one_sends_to_whom_one_may_and_in_the_own_name() {
    let node = node().await;
    let mut alice = link(&node, "alice", "alice", 1).await;
    assert_eq!(alice.subscribe(&name("alice", 1), 1).await, ok(1));
    assert_eq!(alice.subscribe(&name("team", 9), 2).await, ok(2));
    let bob = link(&node, "bob", "bob", 2).await;
    let mallory = link(&node, "mallory", "mallory", 3).await;
    // Header after header the same, and then others in between.
    for round in ["1", "2", "3"] {
        mallory.tell(&name("alice", 1), round).await;
        assert_eq!(alice.next_text().await, round);
        mallory.tell_all(&name("team", 9), "no").await;
        mallory.tell_all(&name("team", 9), "no").await;
        for source in [name("bob", 2), name("alice", 1)] {
            let header = Header::new(source, name("alice", 1), UNICAST);
            mallory.send(&publish(header.clone(), "no")).await;
            mallory.send(&publish(header, "no")).await;
        }
    }
    mallory.tell(&name("alice", 1), "the last").await;
    assert_eq!(alice.next_text().await, "the last");
    assert_eq!(node.metrics().dropped.denied, 18);
    // Who is in the team may, in the team's name, too.
    bob.send(&publish(bob.header(&name("team", 9), BROADCAST), "to the team")).await;
    assert_eq!(alice.next_text().await, "to the team");
    let header = Header::new(name("team", 9), name("alice", 1), UNICAST);
    bob.send(&publish(header, "of the team")).await;
    assert_eq!(alice.next_text().await, "of the team");
    assert_eq!(node.metrics().dropped.denied, 18);
}

#[tokio::test]
async fn a_new_policy_takes_names_away_and_ends_no_link() {
    let node = node().await;
    let mut alice = link(&node, "alice", "alice", 1).await;
    let mut bob = link(&node, "bob", "bob", 2).await;
    for (client, app, id) in [(&mut alice, "alice", 1), (&mut bob, "bob", 2)] {
        assert_eq!(client.subscribe(&name(app, id), 1).await, ok(1));
        assert_eq!(client.subscribe(&name("team", 9), 2).await, ok(2));
        assert_eq!(client.subscribe(&name("team", 9), 3).await, ok(3));
    }
    assert_eq!(node.metrics().subscriptions, 4);
    let mut without = policy();
    without.rules[1] = rule("bob", &["org/ns/bob"], &["org/ns/alice"]);
    assert!(node.policy.as_ref().unwrap().set(without.clone()));
    assert!(!node.policy.as_ref().unwrap().set(without), "it is the same");
    // Bob says nothing, and loses it all the same.
    node.until(|metrics| metrics.withdrawn_subscriptions == 1).await;
    assert_eq!(node.metrics().subscriptions, 3);
    let reason = "not allowed: basic:bob may not subscribe to this name";
    assert_eq!(bob.subscribe(&name("team", 9), 4).await, refused(4, reason));
    alice.tell_all(&name("team", 9), "without bob").await;
    bob.tell_all(&name("team", 9), "no").await;
    bob.tell(&name("alice", 1), "still here").await;
    assert_eq!(alice.next_text().await, "still here");
    alice.tell(&name("bob", 2), "next").await;
    assert_eq!(bob.next_text().await, "next");

    // And back again.
    assert!(node.policy.as_ref().unwrap().set(policy()));
    let mut again = bob.subscribe(&name("team", 9), 5).await;
    // The policy and the subscription are on different ways to the link's task.
    for id in 6..1000 {
        if again.result.is_ok() {
            break;
        }
        again = bob.subscribe(&name("team", 9), id).await;
    }
    again.result.unwrap();
    alice.tell_all(&name("team", 9), "with bob").await;
    assert_eq!(bob.next_text().await, "with bob");
    assert_eq!(node.metrics().links, 2);
}

#[tokio::test]
async fn without_rules_for_them_links_may_nothing() {
    let config = NodeConfig { policy: Some(policy()), ..config() };
    let node = TestNode::start_with(config).await;
    let mut stranger = Client::connect(&node, "alice", 1).await;
    let ack = stranger.subscribe(&name("alice", 1), 1).await;
    let reason = "not allowed: who has shown nothing may not subscribe to this name";
    assert_eq!(ack, refused(1, reason));
    stranger.tell(&name("alice", 1), "no").await;
    node.until(|metrics| metrics.dropped.denied == 1).await;
}

#[tokio::test]
async fn without_a_policy_names_are_anybodys() {
    let node = TestNode::start().await;
    assert!(node.policy.is_none());
    let mut alice = Client::start(&node, "alice", 1).await;
    let mut thief = Client::connect(&node, "thief", 2).await;
    assert_eq!(thief.subscribe(&name("alice", 1), 1).await, ok(1));
    let bob = Client::connect(&node, "bob", 3).await;
    bob.tell_all(&name("alice", 1), "for alice").await;
    assert_eq!(alice.next_text().await, "for alice");
    assert_eq!(thief.next_text().await, "for alice");
}
