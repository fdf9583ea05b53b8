//! The demo as a program: how it ends when something is wrong, and that nothing
//! outlives it. The members are shell scripts; `cargo xtask ci` plays it for real.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

const XTASK: &str = env!("CARGO_BIN_EXE_xtask");

/// More than anything here takes, on any machine.
const TIMEOUT: Duration = Duration::from_secs(60);

const NODE: &str = "echo listening on 127.0.0.1:1; exec cat";

/// A folder with a `slim-node` and a `slim` that are these scripts.
fn programs(test: &str, node: &str, slim: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test);
    fs::create_dir_all(&folder).unwrap();
    for (name, script) in [("slim-node", node), ("slim", slim)] {
        let path = folder.join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    folder
}

fn demo(folder: &Path) -> Command {
    let mut command = Command::new(XTASK);
    command.arg("demo").arg("--programs").arg(folder).stdin(Stdio::null());
    command
}

/// What a demo with these members says, and that it fails.
fn check_fails(test: &str, node: &str, slim: &str, expected: &[&str]) {
    let folder = programs(test, node, slim);
    let Output { status, stdout, stderr } =
        demo(&folder).args(["--clients", "1"]).output().unwrap();
    let shown = String::from_utf8([stdout, stderr].concat()).unwrap();
    assert_eq!(status.code(), Some(1), "{shown}");
    for text in expected {
        assert!(shown.contains(text), "no {text:?} in\n{shown}");
    }
}

#[test]
fn a_node_that_cannot_listen_is_told_with_its_reason() {
    check_fails(
        "no-node",
        "echo 'cannot listen: address in use' >&2; exit 1",
        "exit 0",
        &["the node does not listen", "cannot listen: address in use"],
    );
}

#[test]
fn a_client_that_ends_early_is_told_with_its_reason() {
    check_fails(
        "no-client",
        NODE,
        "echo 'identity refused' >&2; exit 4",
        &["client-1: ended early", "is not waiting", "client-1: identity refused"],
    );
}

#[test]
fn a_line_that_is_no_event_is_told() {
    check_fails("no-event", NODE, "echo hello; exec cat", &["not an event: \"hello\""]);
}

#[test]
fn an_invitation_without_answer_ends_the_demo_at_once() {
    // `$3` is the name that follows `group --local`.
    let slim = r#"
        echo "{\"event\":\"connected\",\"name\":\"$3/id\"}"
        case $3 in
        */moderator) echo '{"event":"invite","name":"a/b/c","outcome":"no_answer"}' ;;
        *) echo '{"event":"waiting"}' ;;
        esac
        exec cat"#;
    let expected = ["moderator: invitation of a/b/c: no_answer", "client-1 is not in a session"];
    check_fails("no-answer", NODE, slim, &expected);
}

#[test]
#[cfg(target_os = "linux")]
fn nothing_outlives_a_demo_that_is_killed() {
    // All of them hold descriptor 9, a pipe to here, and do not end when theirs break.
    let folder = programs(
        "killed",
        "echo listening on 127.0.0.1:1; exec sleep 1000",
        r#"echo '{"event":"waiting"}'; echo up >&9; exec sleep 1000"#,
    );
    let mut shell = Command::new("sh");
    // The shell makes its stderr descriptor 9 and becomes the demo.
    shell.args(["-c", r#"exec "$@" 9>&2"#, "sh"]).arg(XTASK);
    shell.args(["demo", "--clients", "3", "--programs"]).arg(folder);
    shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut demo = shell.spawn().unwrap();

    let mut pipe = demo.stderr.take().unwrap();
    let (sender, seen) = mpsc::channel();
    thread::spawn(move || {
        // Three clients and the moderator, who thinks that it waits too.
        for _ in 0..4 {
            pipe.read_exact(&mut [0; 3]).unwrap();
        }
        sender.send(()).unwrap();
        pipe.read_to_end(&mut Vec::new()).unwrap();
        sender.send(()).unwrap();
    });
    seen.recv_timeout(TIMEOUT).expect("all members are up");
    demo.kill().unwrap();
    demo.wait().unwrap();
    seen.recv_timeout(TIMEOUT).expect("nobody holds the pipe any more");
}

#[test]
#[cfg(target_os = "linux")]
fn nothing_is_started_for_a_process_that_is_gone() {
    // Whoever asks is not our parent, as if it had died already.
    let output = Command::new(XTASK).args(["launch", "1", "echo", "started"]).output().unwrap();
    assert!(!output.status.success());
    assert_eq!(output.stdout, b"");
}
