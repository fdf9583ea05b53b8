//! What is refused before anything is connected, and what a node that is not
//! there does to a command.

use std::net::TcpListener;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use super::support::{SECRET, Slim, command};

/// Nobody listens there: asking to be told would take the 10 s that a node is tried.
const NOWHERE: &str = "http://127.0.0.1:9";

fn run(arguments: &[&str]) -> Output {
    command().args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// `slim LINE` ends with status 2 and says this.
fn refused(line: &str, expected: &str) {
    let arguments: Vec<&str> = line.split_whitespace().collect();
    refused_arguments(&arguments, expected);
}

fn refused_arguments(arguments: &[&str], expected: &str) {
    let output = run(&[arguments, &["--slim", NOWHERE, "--shared-secret", SECRET][..]].concat());
    check_refused(&output, expected);
}

fn check_refused(output: &Output, expected: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains(expected), "{text}");
    assert!(!text.contains(SECRET), "{text}");
    assert!(output.stdout.is_empty());
}

#[test]
fn own_name_needs_three_parts() {
    refused("group --local a/b", "three parts like org/ns/app");
    refused("group --local a/b/c/d/e", "three parts like org/ns/app");
    refused("p2p --local a/b", "three parts like org/ns/app");
    refused("p2p --local a//c", "three parts like org/ns/app");
    refused("group", "--local");
    refused("group --local a/b:c/d", "':'");
}

#[test]
fn a_group_needs_channel_and_invitees_or_neither() {
    refused("group --local a/b/c --remote a/b/chat", "--remote needs --invites");
    refused("group --local a/b/c --invites a/b/d", "--invites needs --remote");
    refused("group --local a/b/c --remote chat --invites a/b/d", "is not a name");
    refused("group --local a/b/c --remote a/b/chat --invites a/b/d/e", "is not a name");
    refused("group --local a/b/c --message hey", "unexpected argument '--message'");
}

#[test]
fn a_script_needs_somebody_to_call() {
    refused("p2p --local a/b/c --message hey", "--message needs --remote");
    refused("p2p --local a/b/c --remote a/b --message hey", "is not a name");
    refused("p2p --local a/b/c --remote a/b/d --iterations 2", "--message");
    refused("p2p --local a/b/c --remote a/b/d --message hey --iterations none", "--iterations");
    refused("p2p --local a/b/c --remote a/b/d --no-echo", "--no-echo is for a listener");
}

#[test]
fn metadata_are_entries() {
    refused("group --local a/b/c --metadata key", "\"key\" is not KEY=VALUE");
    refused("p2p --local a/b/c --metadata a=1 --metadata a=2", "\"a\" is given twice");
    refused("p2p --local a/b/c --metadata PUBLISH_TO=x", "the protocol's own");
}

#[test]
fn numbers_must_make_sense() {
    refused("group --local a/b/c --timeout 0", "--timeout");
    refused("group --local a/b/c --timeout soon", "--timeout");
    refused("group --local a/b/c --max-retries=-1", "--max-retries");
    refused("group --local a/b/c --connect-timeout 0", "--connect-timeout");
    refused("group --local a/b/c --output yaml", "--output");
    refused("group --local a/b/c --log everything", "--log");
}

#[test]
fn identity_is_required_and_its_length_is_checked() {
    let arguments = ["group", "--local", "a/b/c", "--slim", NOWHERE];
    check_refused(&run(&arguments), "no identity");
    let short = "thirty-one bytes are not enough";
    let output = run(&[&arguments[..], &["--shared-secret", short]].concat());
    check_refused(&output, "31 bytes are too short");
    assert!(!String::from_utf8_lossy(&output.stderr).contains(short));
    let output = run(&[&arguments[..], &["--shared-secret", ""]].concat());
    check_refused(&output, "0 bytes are too short");
}

#[test]
fn one_identity_is_enough() {
    for (option, expected) in [
        ("--jwt", "more than one identity"),
        ("--identity", "more than one identity"),
        ("--trust", "--trust needs --identity or --jwt"),
        ("--audience", "--audience needs --identity or --jwt"),
    ] {
        refused(&format!("group --local a/b/c {option} x"), expected);
    }
}

#[test]
fn the_node_must_be_an_address() {
    for (node, expected) in [
        ("{", "not a JSON object"),
        ("{}", "\"endpoint\" is missing"),
        (r#"{"endpoint": 7}"#, "\"endpoint\" is not a text"),
        (r#"{"endpoint": "https://x:1", "tls": {"insecure": true}}"#, "begins with https://"),
        (r#"{"endpoint": "https://x:1", "tls": {"cert_file": "c"}}"#, "key_file"),
        ("ftp://localhost:46357", "scheme"),
        ("localhost", "host:port"),
        ("localhost:port", "host:port"),
        ("", "--slim"),
    ] {
        let arguments = ["group", "--local", "a/b/c", "--shared-secret", SECRET, "--slim", node];
        check_refused(&run(&arguments), expected);
    }
}

#[test]
fn variables_are_checked_like_options() {
    let output = command()
        .args(["group"])
        .env("SLIM_LOCAL", "a/b")
        .env("SLIM_SHARED_SECRET", SECRET)
        .output()
        .unwrap();
    check_refused(&output, "three parts");
    let output = command()
        .args(["group", "--local", "a/b/c", "--remote", "a/b/chat"])
        .env("SLIM_INVITES", " a/b/d  a/b ")
        .env("SLIM_SHARED_SECRET", SECRET)
        .output()
        .unwrap();
    check_refused(&output, "--invites: \"a/b\" is not a name");
}

#[test]
fn the_help_names_variables_but_not_the_secret() {
    let output =
        command().args(["group", "--help"]).env("SLIM_SHARED_SECRET", SECRET).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0));
    assert!(text.contains("SLIM_SHARED_SECRET") && text.contains("SLIM_INVITES"), "{text}");
    assert!(!text.contains(SECRET), "{text}");
}

#[test]
fn a_usage_error_is_no_event() {
    let output = run(&["group", "--local", "a/b", "--output", "json", "--shared-secret", SECRET]);
    check_refused(&output, "three parts");
}

/// `slim group` against this node ends with status 3, in time.
fn check_unreachable(node: &str) {
    let mut command = command();
    command
        .args(["group", "--local", "a/b/c", "--shared-secret", SECRET, "--output", "json"])
        .args(["--connect-timeout", "1.5", "--slim", node]);
    let since = Instant::now();
    let exit = Slim::spawn(command).exit();
    let took = since.elapsed();
    exit.assert_failed(3, "node_unreachable");
    assert!(exit.stderr.contains(node) && exit.stderr.contains("1.5 s"), "{exit:?}");
    assert!(took >= Duration::from_millis(1400), "gave up after {took:?}");
    assert!(took < Duration::from_secs(10), "took {took:?}");
}

#[test]
fn a_node_that_is_not_there_is_tried_for_the_given_time() {
    // Bound and dropped: nobody else gets this port for a while.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    check_unreachable(&format!("http://127.0.0.1:{port}"));
}

#[test]
fn a_node_that_takes_the_connection_and_says_nothing_counts_as_not_there() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    check_unreachable(&format!("http://{}", listener.local_addr().unwrap()));
}

#[test]
fn a_host_that_does_not_exist_is_not_there() {
    check_unreachable("http://no-such-host.invalid:46357");
}

#[test]
fn text_mode_says_why_in_one_line() {
    let output = run(&[
        "group",
        "--local",
        "a/b/c",
        "--shared-secret",
        SECRET,
        "--connect-timeout",
        "0.2",
        "--slim",
        NOWHERE,
    ]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains(NOWHERE), "{text}");
    assert!(output.stdout.is_empty());
}
