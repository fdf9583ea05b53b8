//! `slim doctor`: each reason that it can find.

use serde_json::Value;
use slim_node::{Policy, Rule};

use super::support::{Exit, OTHER_SECRET, SECRET, Slim, TestNode, command};

/// What it says about FROM and TO, step by step, and how it ends.
fn doctor(node: &TestNode, options: &[&str], secret: &str) -> (Vec<(String, String)>, Exit) {
    let mut command = command();
    command
        .args(["doctor", "a/b/alice", "a/b/bob", "--slim", &node.url(), "--output", "json"])
        .args(["--timeout", "2", "--connect-timeout", "2"])
        .args(options)
        .env("SLIM_SHARED_SECRET", secret);
    let exit = Slim::spawn(command).exit();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let steps = exit.rest.iter().filter(|event| event["event"] == "step");
    let steps = steps.map(|step| (text(&step["step"]), text(&step["outcome"]))).collect();
    (steps, exit)
}

fn step<'e>(exit: &'e Exit, name: &str) -> &'e Value {
    exit.rest.iter().find(|event| event["step"] == name).unwrap_or_else(|| panic!("{exit:?}"))
}

fn all(steps: &[(String, String)]) -> Vec<(&str, &str)> {
    steps.iter().map(|(step, outcome)| (&**step, &**outcome)).collect()
}

fn bob(node: &TestNode) -> Slim {
    let mut bob = Slim::start(node, "p2p --local a/b/bob");
    bob.expect("waiting");
    bob
}

#[test]
fn all_is_well_where_both_know_each_other() {
    let node = TestNode::start();
    let _bob = bob(&node);
    let (steps, exit) = doctor(&node, &[], SECRET);
    let well =
        ["node", "token", "subscribe", "answer", "identity", "clock"].map(|step| (step, "ok"));
    assert_eq!(all(&steps), well, "{exit:?}");
    assert_eq!((exit.status, &*exit.stderr), (Some(0), ""));

    let (steps, exit) = doctor(&node, &["--admin", &node.admin()], SECRET);
    assert_eq!(exit.status, Some(0));
    let expected = [
        ("node", "ok"),
        ("token", "ok"),
        ("subscribe", "ok"),
        ("admin", "ok"),
        ("node_clock", "ok"),
        ("route", "ok"),
        ("from", "unclear"),
        ("answer", "ok"),
        ("identity", "ok"),
        ("clock", "ok"),
    ];
    assert_eq!(all(&steps), expected, "{exit:?}");
}

#[test]
fn who_is_not_there_is_told_from_who_is_mistyped() {
    let node = TestNode::start();
    let (steps, exit) = doctor(&node, &[], SECRET);
    assert_eq!(all(&steps).last(), Some(&("answer", "failed")), "{exit:?}");
    exit.assert_failed(5, "no_answer");
    assert!(step(&exit, "answer")["advice"].as_str().unwrap().contains("--admin"), "{exit:?}");

    let mut bobby = Slim::start(&node, "p2p --local a/b/bobb");
    bobby.expect("waiting");
    let (_, exit) = doctor(&node, &["--admin", &node.admin()], SECRET);
    exit.assert_failed(5, "no_answer");
    assert_eq!(step(&exit, "route")["outcome"], "failed");
    assert_eq!(step(&exit, "route")["advice"], "is a/b/bobb meant?");
}

#[test]
fn secrets_that_differ_are_named() {
    let node = TestNode::start();
    let _bob = bob(&node);
    let (steps, exit) = doctor(&node, &[], OTHER_SECRET);
    assert_eq!(all(&steps).last(), Some(&("identity", "failed")), "{exit:?}");
    exit.assert_failed(4, "identity_refused");
    let identity = step(&exit, "identity").to_string();
    assert!(identity.contains("secret") && !identity.contains(OTHER_SECRET), "{identity}");
}

#[test]
fn a_policy_that_denies_is_named() {
    let mut node = TestNode::start();
    let rule = |subscribe: &[&str], publish: &[&str]| {
        let names = |list: &[&str]| list.iter().map(|text| text.parse().unwrap()).collect();
        Policy {
            rules: vec![Rule {
                name: "everybody".to_owned(),
                principals: vec!["anyone".parse().unwrap()],
                issuer: None,
                subscribe: names(subscribe),
                publish: names(publish),
            }],
        }
    };
    node.restart_with(rule(&["a/b"], &["a/c"]));
    let _bob = bob(&node);
    let (steps, exit) = doctor(&node, &["--admin", &node.admin()], SECRET);
    assert_eq!(all(&steps)[steps.len() - 2..], [("policy", "failed"), ("answer", "failed")]);
    exit.assert_failed(5, "no_answer");

    node.restart_with(rule(&["a/b/bob"], &["a/b"]));
    let (steps, exit) = doctor(&node, &[], SECRET);
    assert_eq!(all(&steps).last(), Some(&("subscribe", "failed")), "{exit:?}");
    exit.assert_failed(4, "identity_refused");
    let said = step(&exit, "subscribe")["message"].as_str().unwrap().to_owned();
    assert!(said.contains("not allowed"), "{said}");
}

#[test]
fn a_node_that_is_away_is_the_reason() {
    let mut node = TestNode::start();
    node.stop();
    let (steps, exit) = doctor(&node, &[], SECRET);
    assert_eq!(all(&steps), [("node", "failed")]);
    exit.assert_failed(3, "node_unreachable");
}

#[test]
fn people_read_sentences() {
    let node = TestNode::start();
    let mut command = command();
    command.args(["doctor", "a/b/alice", "a/b/bob", "--slim", &node.url(), "--timeout", "1"]);
    let output = command.env("SLIM_SHARED_SECRET", SECRET).output().unwrap();
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    for expected in [
        "ok      the node lets us be a/b/alice\n",
        "FAILED  nobody answers as a/b/bob\n        look",
    ] {
        assert!(text.contains(expected), "{expected} is not in\n{text}");
    }
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(stderr, "slim: no answer from a/b/bob within 1 s\n");
}
