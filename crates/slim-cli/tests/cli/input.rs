//! What can go wrong with a line.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

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
fn what_is_not_spelled_out_is_not_sent() {
    check(b"/to a/b/client", "bad_message");
    check(b"/publish hello", "bad_message");
    check(br#"/publish {"payload": "x", "metadata": {"PUBLISH_TO": "x"}}"#, "bad_message");
}

#[test]
fn bad_names_are_refused() {
    check(b"/to bob hello", "bad_name");
    check(br#"/publish {"payload": "x", "to": "bob"}"#, "bad_name");
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
    check(&vec![b'x'; 7 << 20], "too_large");
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
    for command in ["/invite", "/remove", "/who", "/leave", "/to", "/publish"] {
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

#[test]
fn nobody_reads_and_it_can_still_be_ended() {
    let node = TestNode::start();
    let mut command = command();
    command
        .args(["group", "--local", "a/b/client", "--slim", &node.url(), "--output", "json"])
        .args(["--shared-secret", SECRET])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let _never_read = child.stdout.take();
    let line = "group --local a/b/moderator --remote a/b/chat --invites a/b/client --timeout 5";
    let mut moderator = Slim::start(&node, line);
    moderator.expect_where("invite", |invite| invite["outcome"] == "joined");
    // Far more than a pipe holds.
    for _ in 0..2000 {
        moderator.type_line(&"x".repeat(100));
    }
    for line in 0..2000 {
        assert_eq!(moderator.outcome(line)["event"], "delivered", "others do not notice");
    }
    let pid = Pid::from_child(&child);
    let (ended, wait) = channel();
    std::thread::spawn(move || ended.send(child.wait().unwrap()));
    // Two signals that come too close count as one, so more are sent.
    let mut signals = 0;
    let status = loop {
        kill_process(pid, Signal::TERM).unwrap();
        signals += 1;
        match wait.recv_timeout(Duration::from_millis(200)) {
            Ok(status) => break status,
            Err(_) => assert!(signals < 100, "it does not end"),
        }
    };
    assert_eq!(status.code(), Some(1));
}

#[test]
fn logs_hold_neither_secrets_nor_tokens_nor_payloads() {
    let node = TestNode::start();
    let log = |command: &mut Command| {
        command.env("SLIM_LOG", "trace");
    };
    let mut client = Slim::start_with(&node, "group --local a/b/client", log);
    client.expect("waiting");
    let line = "group --local a/b/moderator --remote a/b/chat --invites a/b/client --enable-mls";
    let mut moderator = Slim::start_with(&node, line, log);
    moderator.type_line("the payload");
    client.expect_message("the payload");
    moderator.end_input();
    // How the claims of a token begin, in base64.
    let claims = "eyJwdWJrZXki";
    for slim in [moderator, client] {
        let stderr = slim.exit().stderr;
        assert!(stderr.contains("TRACE") && stderr.contains("slim_session"), "no logs");
        for secret in ["the payload", SECRET, claims] {
            assert!(!stderr.contains(secret), "{secret}: {stderr}");
        }
    }
}
