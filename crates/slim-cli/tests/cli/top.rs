//! `slim top` where nobody sits in front of it.

use rustix::process::Signal;
use serde_json::Value;

use super::support::{Slim, TestNode, command};

#[test]
fn one_look_is_a_table_or_an_event() {
    let node = TestNode::start();
    let mut bob = Slim::start(&node, "group --local a/b/bob");
    bob.expect("waiting");
    let look = |options: &[&str]| {
        let mut command = command();
        command.args(["top", "--once", "--admin", &node.admin()]).args(options);
        let output = command.output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let table = look(&[]);
    for expected in ["slim-node ", "   ready   up ", "links 1 ", "LINK", "a/b/bob", "good"] {
        assert!(table.contains(expected), "{expected} is not in\n{table}");
    }
    let event: Value = serde_json::from_str(&look(&["--output", "json"])).unwrap();
    assert_eq!((&event["event"], &event["ready"]), (&"top".into(), &true.into()));
    assert_eq!((&event["connections"], &event["names"]), (&1.into(), &1.into()));
    let link = &event["links"][0];
    assert!(link["names"][0].as_str().unwrap().starts_with("a/b/bob/"), "{link}");
    assert_eq!((&link["received"]["messages"], &link["state"]), (&1.into(), &"good".into()));
}

#[test]
fn further_looks_follow_until_a_signal() {
    let node = TestNode::start();
    let mut command = command();
    command.args(["top", "--admin", &node.admin(), "--interval", "0.05", "--output", "json"]);
    let mut top = Slim::spawn(command);
    assert_eq!(top.expect("top")["cpu"], Value::Null, "nothing to compare with");
    for _ in 0..2 {
        assert!(top.expect("top")["cpu"].is_number());
    }
    top.signal(Signal::TERM);
    top.exit_well();
}

#[test]
fn where_nobody_can_be_looked_at_is_told() {
    let mut node = TestNode::start();
    let admin = node.admin();
    node.stop();
    let mut command = command();
    command.args(["top", "--once", "--admin", &admin, "--output", "json"]);
    Slim::spawn(command).exit().assert_failed(3, "node_unreachable");
    let node = TestNode::start();
    // The port of links is none that can be looked at.
    let mut command = super::support::command();
    command.args(["top", "--once", "--output", "json"]);
    command.args(["--admin", node.url().strip_prefix("http://").unwrap()]);
    Slim::spawn(command).exit().assert_failed(3, "node_unreachable");
}
