//! The node goes away and comes back.

use rustix::process::Signal;

use super::support::{Slim, TestNode};

fn pair(node: &TestNode, options: &str) -> (Slim, Slim) {
    let mut client = Slim::start(node, "group --local a/b/client");
    client.expect("waiting");
    let line =
        format!("group --local a/b/moderator --remote a/b/chat --invites a/b/client {options}");
    let mut moderator = Slim::start(node, &line);
    moderator.expect("invite");
    client.expect("session");
    (moderator, client)
}

#[test]
fn a_conversation_survives_the_node() {
    for options in ["", "--enable-mls"] {
        let mut node = TestNode::start();
        let (mut moderator, mut client) = pair(&node, options);
        moderator.type_line("before");
        client.expect_message("before");
        node.stop();
        for member in [&mut moderator, &mut client] {
            let lost = member.expect("disconnected");
            assert!(lost["node"].is_string() && lost["reason"].is_string(), "{lost}");
        }
        moderator.type_line("while it was away");
        node.restart();
        for member in [&mut moderator, &mut client] {
            member.expect("reconnected");
        }
        client.expect_message("while it was away");
        client.type_line("after");
        moderator.expect_message("after");
        for line in 0..2 {
            assert_eq!(moderator.outcome(line)["event"], "delivered");
        }
    }
}

/// It says that it could tell nobody.
#[test]
fn one_can_leave_while_the_node_is_away() {
    let mut node = TestNode::start();
    let (mut moderator, mut client) = pair(&node, "");
    node.stop();
    for (member, what) in [(&mut moderator, "the group is closed"), (&mut client, "we left")] {
        member.expect("disconnected");
        member.signal(Signal::INT);
        assert_eq!(member.expect("closed")["reason"], "left");
        let error = member.expect("error");
        assert_eq!(error["code"], "not_told");
        assert!(error["message"].as_str().unwrap().ends_with(what), "{error}");
    }
    for member in [moderator, client] {
        assert_eq!(member.exit().status, Some(1));
    }
}

/// There is nobody to tell.
#[test]
fn one_can_leave_alone_while_the_node_is_away() {
    let mut node = TestNode::start();
    let (mut moderator, mut client) = pair(&node, "");
    client.type_line("/leave");
    client.expect("closed");
    client.exit_well();
    moderator.expect("participant");
    node.stop();
    moderator.expect("disconnected");
    moderator.signal(Signal::INT);
    moderator.expect("closed");
    moderator.exit_well();
}

#[test]
fn a_client_may_be_there_before_its_node() {
    let mut node = TestNode::start();
    node.stop();
    let mut client = Slim::start(&node, "group --local a/b/client");
    node.restart();
    client.expect("waiting");
    client.signal(Signal::TERM);
    client.exit_well();
}

#[test]
fn stopping_while_connecting_is_no_failure() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut command = super::support::command();
    command
        .args(["group", "--local", "a/b/c", "--output", "json"])
        .args(["--shared-secret", super::support::SECRET])
        .args(["--slim", &silent.local_addr().unwrap().to_string()]);
    let slim = Slim::spawn(command);
    // It listens to signals before it connects.
    let _connection = silent.accept().unwrap();
    slim.signal(Signal::INT);
    slim.exit_well();
}
