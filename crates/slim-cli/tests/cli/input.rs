//! What can go wrong with a line.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use super::support::{SECRET, Slim, TestNode, command};

fn pair(node: &TestNode) -> (Slim, Slim) {
    let mut client = Slim::start(node, "group --local a/b/client");
    client.expect("waiting");
    let line = "group --local a/b/moderator --remote a/b/chat --invites a/b/client";
    let mut moderator = Slim::start(node, line);
    moderator.expect("invite");
    client.expect("session");
    (moderator, client)
}

/// A line that gives this error is no published line: the next one has number 0.
fn check(line: &[u8], code: &str) {
    let node = TestNode::start();
    let (mut moderator, mut client) = pair(&node);
    moderator.type_bytes(line);
    moderator.type_bytes(b"\nnext\n");
    moderator.expect_error(code);
    assert_eq!(moderator.expect("delivered")["line"], 0);
    assert_eq!(client.expect("message")["payload"], "next");
}

#[test]
fn unknown_commands_are_not_sent() {
    check(b"/nonsense", "unknown_command");
    check(b"/\xff", "unknown_command");
}

#[test]
fn bad_names_are_refused() {
    check(b"/invite", "bad_name");
    check(b"/invite bob", "bad_name");
    check(b"/remove a/b/c/d", "bad_name");
}

#[test]
fn who_is_no_member_cannot_be_removed() {
    check(b"/remove a/b/nobody", "not_a_member");
}

#[test]
fn lines_that_do_not_fit_are_refused() {
    // One that is read and too large with its envelope, and one that is not even read.
    check(&vec![b'x'; 4 << 20], "too_large");
    check(&vec![b'x'; 5 << 20], "too_large");
}

#[test]
fn a_large_line_arrives() {
    let node = TestNode::start();
    let (mut moderator, mut client) = pair(&node);
    let line = "x".repeat(1 << 20);
    moderator.type_line(&line);
    assert_eq!(client.expect("message")["payload"], line);
}

#[test]
fn a_line_is_not_sent_while_nobody_else_is_in() {
    let node = TestNode::start();
    let (mut moderator, mut client) = pair(&node);
    moderator.type_line("/remove a/b/client");
    moderator.type_line("hello?");
    moderator.type_line("anybody?");
    client.expect("closed");
    moderator.expect_error("alone");
    moderator.expect_error("alone");
    moderator.end_input();
    let rest = moderator.exit_well();
    assert!(rest.iter().all(|event| event["event"] != "delivered" && event["event"] != "lost"));
}

#[test]
fn help_lists_the_commands() {
    let node = TestNode::start();
    let (mut moderator, _client) = pair(&node);
    moderator.type_line("/help");
    let help = moderator.expect("help").to_string();
    for command in ["/invite", "/remove", "/who", "/leave"] {
        assert!(help.contains(command), "{help}");
    }
}

#[test]
fn a_closed_standard_output_ends_it() {
    let node = TestNode::start();
    let mut command = command();
    command
        .args(["group", "--local", "a/b/client", "--slim", &node.url(), "--output", "json"])
        .args(["--shared-secret", SECRET])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("\"waiting\"")));
    drop(lines);
    let line = "group --local a/b/moderator --remote a/b/chat --invites a/b/client";
    let mut moderator = Slim::start(&node, line);
    moderator.expect_where("participant", |event| event["change"] == "left");
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}
