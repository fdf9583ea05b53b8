//! `slim bench`: what it tells about a node in this process.

use std::process::Output;
use std::time::Instant;

use rexpect::reader::Options;
use rexpect::session::spawn_with_options;
use rustix::process::Signal;
use serde_json::Value;

use super::support::{PATIENCE, SECRET, Slim, TestNode, command};

/// `slim bench LINE` with JSON, to be watched.
fn start(node: &TestNode, line: &str) -> Slim {
    let mut command = command();
    command.arg("bench").args(line.split_whitespace()).args([
        "--slim",
        &node.url(),
        "--output",
        "json",
    ]);
    Slim::spawn(command)
}

/// The reports of `slim bench LINE`, which ends well. Sessions tell before each that
/// all have joined.
fn reports(node: &TestNode, line: &str) -> Vec<Value> {
    let mut told = start(node, line).exit_well();
    told.retain(|event| event["event"] != "joined");
    assert!(told.iter().all(|event| event["event"] == "bench"), "{told:?}");
    told
}

fn report(node: &TestNode, line: &str) -> Value {
    let mut reports = reports(node, line);
    assert_eq!(reports.len(), 1, "{reports:?}");
    reports.remove(0)
}

/// `slim bench LINE`, with whatever output.
fn run(node: &TestNode, line: &str) -> Output {
    let line = line.split_whitespace();
    command().arg("bench").args(line).args(["--slim", &node.url()]).output().unwrap()
}

/// Percentiles that can be.
fn check_percentiles(latency: &Value) {
    let values = ["p50", "p90", "p99", "p99_9", "max"].map(|key| latency[key].as_f64().unwrap());
    assert!(values[0] > 0.0 && values.is_sorted(), "{latency}");
}

#[test]
fn a_channel_tells_how_long_joining_and_delivering_took() {
    let node = TestNode::start();
    for (options, mls) in [("", false), ("--enable-mls", true)] {
        let line = format!("channel --members 4 --publishers 2 --messages 50 --size 300 {options}");
        let report = report(&node, &line);
        assert_eq!((&report["bench"], &report["mls"]), (&"channel".into(), &mls.into()));
        assert_eq!((&report["clients"], &report["publishers"]), (&4.into(), &2.into()));
        assert_eq!((&report["size"], &report["published"]), (&300.into(), &50.into()));
        assert_eq!((&report["delivered"], &report["lost"]), (&150.into(), &0.into()));
        assert_eq!(report["complete"], true);
        for key in ["join_seconds", "seconds", "per_second", "mib_per_second", "cpu_seconds"] {
            assert!(report[key].as_f64().unwrap() > 0.0, "{key} of {report}");
        }
        check_percentiles(&report["latency_us"]);
        check_percentiles(&report["acknowledged_us"]);
    }
}

#[test]
fn without_messages_a_channel_only_joins() {
    let node = TestNode::start();
    let mut slim = start(&node, "channel --members 3 --messages 0 --enable-mls");
    let joined = slim.expect("joined");
    assert!(joined["join_seconds"].as_f64().unwrap() > 0.0, "{joined}");
    assert_eq!(joined["clients"], 3);
    let report = slim.expect("bench");
    slim.exit_well();
    assert_eq!(report["join_seconds"], joined["join_seconds"]);
    assert_eq!((&report["published"], &report["delivered"]), (&0.into(), &0.into()));
    assert_eq!(report.get("latency_us"), None);
}

#[test]
fn requests_are_answered_by_peers_of_its_own_or_by_a_listener() {
    let mut node = TestNode::start();
    let own = report(&node, "request --clients 2 --messages 30 --in-flight 4 --enable-mls");
    assert_eq!((&own["published"], &own["delivered"]), (&30.into(), &30.into()));
    check_percentiles(&own["latency_us"]);

    let mut listener = Slim::start(&node, "p2p --local a/b/echo");
    listener.expect("waiting");
    let line = format!("request --remote a/b/echo --messages 5 --shared-secret {}", "s".repeat(32));
    start(&node, &line).exit().assert_failed(4, "identity_refused");
    let line = ["bench", "request", "--remote", "a/b/echo", "--messages", "20"];
    let output = command()
        .args(line)
        .args(["--slim", &node.url(), "--output", "csv", "--shared-secret", SECRET])
        .output()
        .unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(rows.len(), 2, "{table}");
    let cell = |name| rows[1][rows[0].iter().position(|column| *column == name).unwrap()];
    assert_eq!((cell("bench"), cell("published"), cell("delivered")), ("request", "20", "20"));
    assert!(cell("latency_us_p50").parse::<f64>().unwrap() > 0.0, "{table}");
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
    listener.signal(Signal::TERM);
    listener.exit_well();
    node.stop();
}

#[test]
fn a_subscriber_counts_what_publishers_send() {
    let node = TestNode::start();
    let mut sub = start(&node, "sub --clients 2 --remote a/b/load");
    sub.expect("waiting");
    let published =
        reports(&node, "pub --clients 3 --remote a/b/load --size 64,1000 --messages 90");
    let sizes: Vec<&Value> = published.iter().map(|report| &report["size"]).collect();
    assert_eq!(sizes, [64, 1000]);
    assert!(published.iter().all(|report| report["published"] == 90), "{published:?}");
    let heard = sub.exit_well();
    assert_eq!(heard.len(), 2, "{heard:?}");
    for (report, size) in heard.iter().zip([64, 1000]) {
        assert_eq!((&report["bench"], &report["size"]), (&"sub".into(), &size.into()));
        assert_eq!((&report["delivered"], &report["lost"]), (&180.into(), &0.into()));
        check_percentiles(&report["latency_us"]);
    }
}

#[test]
fn a_subscriber_that_hears_nothing_says_so() {
    let node = TestNode::start();
    start(&node, "sub --duration 0.2").exit().assert_failed(5, "nothing_received");
}

#[test]
fn a_rate_is_kept_and_time_ends_it() {
    let node = TestNode::start();
    let report = report(&node, "channel --members 2 --duration 1 --rate 100");
    assert_eq!(report["published"], 100);
    let seconds = report["seconds"].as_f64().unwrap();
    assert!(seconds > 0.98, "{seconds}");
}

/// Publishes until it is stopped; returns once messages arrive somewhere.
fn endless(node: &TestNode) -> Slim {
    let publisher = start(node, "pub --duration 3600 --rate 1000 --remote a/b/load");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let exit = start(node, "sub --remote a/b/load --duration 0.5").exit();
        match exit.status {
            Some(0) => return publisher,
            Some(5) => assert!(Instant::now() < deadline, "nothing is published"),
            _ => panic!("{exit:?}"),
        }
    }
}

#[test]
fn a_stop_tells_what_was_measured_so_far() {
    let node = TestNode::start();
    let mut sub = start(&node, "sub --remote a/b/load");
    sub.expect("waiting");
    let publisher = endless(&node);
    for (mut stopped, count) in [(sub, "delivered"), (publisher, "published")] {
        stopped.signal(Signal::INT);
        let report = stopped.expect("bench");
        assert_eq!(report["complete"], false);
        assert!(report[count].as_u64().unwrap() > 0, "{report}");
        stopped.exit_well();
    }
}

#[test]
fn a_stop_before_anything_was_measured_is_no_failure() {
    let node = TestNode::start();
    let mut sub = start(&node, "sub");
    sub.expect("waiting");
    sub.signal(Signal::TERM);
    assert!(sub.exit_well().is_empty());
}

#[test]
fn a_lost_node_ends_it_and_a_subscriber_tells_what_came_before() {
    let mut node = TestNode::start();
    let mut sub = start(&node, "sub --remote a/b/load");
    sub.expect("waiting");
    let publisher = endless(&node);
    node.stop();
    publisher.exit().assert_failed(1, "node_lost");
    let report = sub.expect("bench");
    assert_eq!(report["complete"], false);
    sub.exit().assert_failed(1, "node_lost");
}

#[test]
fn people_get_a_summary_and_nothing_else() {
    let node = TestNode::start();
    let output = run(&node, "channel --members 3 --messages 10 --size 64,128");
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]), "{text}");
    assert_eq!(text.matches("channel: 3 members").count(), 2, "{text}");
    assert_eq!(text.matches("20 in ").count(), 2, "{text}");
    assert!(text.contains("p99.9"), "{text}");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let node = TestNode::start();
    for (line, expected) in [
        ("", "Usage: slim bench"),
        ("everything", "unrecognized subcommand"),
        ("channel --members 1", "--members"),
        ("channel --members 3 --publishers 4", "--publishers"),
        ("channel --in-flight 0", "--in-flight"),
        ("channel --messages 5 --duration 5", "cannot be used with"),
        ("channel --size 31", "expected bytes, 32 to"),
        ("channel --size 64,", "expected bytes"),
        ("channel --rate 0", "--rate"),
        ("channel --shared-secret short", "too short"),
        ("request --remote a/b/c", "--remote needs --shared-secret"),
        ("pub --remote a/b", "--remote"),
        ("pub --output yaml", "--output"),
        ("sub --local a/b", "three parts"),
        ("sub --messages 5", "unexpected argument"),
    ] {
        let output = run(&node, line);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{line}: {text}");
        assert!(text.contains(expected), "{line}: {text}");
    }
}

#[test]
fn a_node_that_is_not_there_is_told() {
    let mut node = TestNode::start();
    node.stop();
    for what in ["sub", "pub", "channel", "request"] {
        let exit = start(&node, &format!("{what} --connect-timeout 0.3")).exit();
        exit.assert_failed(3, "node_unreachable");
    }
}

/// The bar is there for who looks at it, and gone in the end. Nothing of it gets into
/// what is told.
#[test]
fn a_bar_is_shown_on_a_terminal() {
    let node = TestNode::start();
    let mut command = command();
    command
        .args(["bench", "channel", "--members", "2", "--duration", "1.5", "--slim", &node.url()])
        .env("TERM", "xterm-256color");
    let patience = u64::try_from(PATIENCE.as_millis()).unwrap();
    let options = Options::new().timeout_ms(Some(patience));
    let mut screen = spawn_with_options(command, options).unwrap();
    screen.exp_string("512 bytes for 1.5 s").unwrap();
    screen.exp_string("channel: 2 members").unwrap();
    let rest = screen.exp_eof().unwrap();
    assert!(rest.contains("delivered") && !rest.contains("512 bytes for"), "{rest}");
}
