//! Point-to-point conversations.

use rustix::process::Signal;
use serde_json::{Value, json};

use super::support::{OTHER_SECRET, Slim, TestNode, app};

fn listener(node: &TestNode, options: &str) -> Slim {
    let mut slim = Slim::start(node, &format!("p2p --local a/b/alice {options}"));
    slim.expect("waiting");
    slim
}

fn caller(node: &TestNode, options: &str) -> Slim {
    Slim::start(node, &format!("p2p --local a/b/bob --remote a/b/alice {options}"))
}

#[test]
fn a_listener_sends_back_what_it_gets() {
    for options in ["", "--enable-mls"] {
        let node = TestNode::start();
        let mut alice = listener(&node, "");
        let mut bob = caller(&node, options);
        let called = bob.expect("session");
        assert_eq!((&called["type"], &called["role"]), (&"p2p".into(), &"caller".into()));
        assert_eq!(app(&called["peer"]), "a/b/alice");
        assert_eq!(called["mls"], !options.is_empty());
        let listened = alice.expect("session");
        assert_eq!(listened["role"], "listener");
        assert_eq!(app(&listened["peer"]), "a/b/bob");
        assert_eq!(listened["session_id"], called["session_id"]);

        bob.type_line("hello");
        bob.type_bytes(b"\xff\n");
        let heard = alice.expect("message");
        assert_eq!((&heard["payload"], app(&heard["source"])), (&"hello".into(), "a/b/bob"));
        assert_eq!(app(&bob.expect_message("hello")["source"]), "a/b/alice");
        assert_eq!(bob.expect("message")["payload_base64"], "/w==");

        alice.type_line("my own words");
        bob.expect_message("my own words");
        assert_eq!(alice.expect("delivered")["line"], 0);

        bob.end_input();
        assert_eq!(bob.expect("closed")["reason"], "left");
        bob.exit_well();
        assert_eq!(alice.expect("closed")["reason"], "peer_left");
        alice.signal(Signal::TERM);
        alice.exit_well();
    }
}

#[test]
fn a_listener_serves_many_and_talks_to_the_newest() {
    let node = TestNode::start();
    let mut alice = listener(&node, "");
    let mut bob = caller(&node, "");
    bob.expect("session");
    alice.expect("session");
    let mut carol = Slim::start(&node, "p2p --local a/b/carol --remote a/b/alice");
    carol.expect("session");
    alice.expect("session");
    for (who, text) in [(&mut bob, "from bob"), (&mut carol, "from carol")] {
        who.type_line(text);
        who.expect_message(text);
    }
    alice.type_line("to carol");
    carol.expect_message("to carol");
    carol.type_line("exit");
    carol.exit_well();
    alice.expect("closed");
    alice.type_line("to bob");
    bob.expect_message("to bob");
    alice.end_input();
    bob.type_line("still here");
    bob.expect_message("still here");
    alice.signal(Signal::INT);
    assert_eq!(alice.expect("closed")["reason"], "left");
    alice.exit_well();
    assert_eq!(bob.expect("closed")["reason"], "peer_left");
    bob.exit_well();
}

#[test]
fn a_listener_says_to_whom() {
    let node = TestNode::start();
    let mut alice = listener(&node, "--no-echo");
    let mut bob = caller(&node, "");
    alice.expect("session");
    let mut carol = Slim::start(&node, "p2p --local a/b/carol --remote a/b/alice");
    alice.expect("session");
    alice.type_line("/to a/b/bob to bob");
    alice.type_line("/to a/b/carol to carol");
    alice.type_line("/to a/b/dave to nobody");
    alice.expect_error("not_a_member");
    alice.type_line("to the newest");
    bob.expect_message("to bob");
    for text in ["to carol", "to the newest"] {
        carol.expect_message(text);
    }
    for line in 0..3 {
        assert_eq!(alice.outcome(line)["event"], "delivered");
    }
    bob.type_line("/to a/b/carol not hers");
    bob.expect_error("not_a_member");
    alice.signal(Signal::TERM);
    alice.exit_well();
    for (slim, count) in [(bob, 1), (carol, 2)] {
        let before = slim.messages().len();
        let rest = slim.exit_well();
        let more = rest.iter().filter(|event| event["event"] == "message").count();
        assert_eq!(before + more, count);
    }
}

#[test]
fn type_and_metadata_come_back() {
    let node = TestNode::start();
    let mut alice = listener(&node, "");
    let script = "--message hey --iterations 1 --payload-type greeting --metadata from=bob";
    let bob = caller(&node, script);
    let heard = alice.expect_message("hey");
    let rest = bob.exit_well();
    let answer = rest.iter().find(|event| event["event"] == "message").unwrap();
    for message in [&heard, answer] {
        assert_eq!(message["payload_type"], "greeting");
        assert_eq!(message["metadata"], json!({"from": "bob"}));
        assert_eq!(message["to_me"], true);
    }
}

#[test]
fn a_listener_without_echo_only_shows() {
    let node = TestNode::start();
    let mut alice = listener(&node, "--no-echo");
    let mut bob = caller(&node, "");
    bob.type_line("hello");
    alice.expect_message("hello");
    bob.expect("delivered");
    alice.type_line("an answer by hand");
    bob.expect_message("an answer by hand");
    assert_eq!(bob.messages().len(), 1);
}

#[test]
fn a_script_asks_and_waits_for_each_answer() {
    let node = TestNode::start();
    let mut alice = listener(&node, "");
    let bob = caller(&node, "--message hey --iterations 2 --enable-mls");
    for _ in 0..2 {
        alice.expect_message("hey");
    }
    let rest = bob.exit_well();
    let kinds = |kind: &str| rest.iter().filter(|event| event["event"] == kind).count();
    assert_eq!((kinds("delivered"), kinds("message"), kinds("closed")), (2, 2, 1), "{rest:?}");
    assert_eq!(rest.last().unwrap()["event"], "closed");
}

#[test]
fn a_script_ends_with_the_first_answer_that_stays_away() {
    let node = TestNode::start();
    let mut alice = listener(&node, "--no-echo");
    let mut bob = caller(&node, "--message hey --iterations 5");
    alice.expect_message("hey");
    bob.expect("delivered");
    assert_eq!(bob.expect("closed")["reason"], "left");
    bob.exit().assert_failed(5, "no_answer");
    assert_eq!(alice.messages().len(), 1);
}

#[test]
fn a_script_fails_if_the_peer_leaves_instead_of_answering() {
    let node = TestNode::start();
    let mut alice = listener(&node, "--no-echo");
    let mut bob = caller(&node, "--message hey");
    alice.expect_message("hey");
    alice.signal(Signal::TERM);
    assert_eq!(bob.expect("closed")["reason"], "peer_left");
    bob.exit().assert_failed(5, "no_answer");
}

#[test]
fn somebody_who_is_not_there_does_not_answer() {
    let node = TestNode::start();
    for options in ["", "--message hey"] {
        let mut bob = caller(&node, options);
        bob.expect("connected");
        let exit = bob.exit();
        exit.assert_failed(5, "no_answer");
        assert!(exit.stderr.contains("a/b/alice") && exit.stderr.contains("2 s"), "{exit:?}");
    }
}

#[test]
fn a_wrong_secret_is_told_to_both_sides() {
    let node = TestNode::start();
    let mut alice = listener(&node, "");
    let bob = Slim::start_with(&node, "p2p --local a/b/bob --remote a/b/alice", |command| {
        command.env("SLIM_SHARED_SECRET", OTHER_SECRET);
    });
    bob.exit().assert_failed(4, "identity_refused");
    alice.expect_error("identity_mismatch");
    alice.signal(Signal::TERM);
    let told = alice.exit_well().iter().filter(|event| event["event"] == "error").count();
    assert_eq!(told, 0, "told again");
}

#[test]
fn a_call_takes_nobody_in_or_out() {
    let node = TestNode::start();
    let mut alice = listener(&node, "");
    let mut bob = caller(&node, "");
    alice.expect("session");
    bob.type_line("/invite a/b/carol");
    bob.expect_error("not_a_group");
    bob.type_line("/remove a/b/alice");
    bob.expect_error("not_a_group");
    bob.type_line("/who");
    assert_eq!(bob.expect("who")["members"].as_array().unwrap().len(), 2);
}

#[test]
fn lines_wait_for_a_caller() {
    let node = TestNode::start();
    let mut alice = listener(&node, "--no-echo");
    alice.type_line("typed too early");
    let mut bob = caller(&node, "");
    bob.expect_message("typed too early");
    bob.type_line("/leave");
    assert_eq!(bob.expect("closed")["reason"], "left");
    assert_eq!(bob.exit_well(), Vec::<Value>::new());
}

#[test]
fn a_caller_can_be_stopped_while_it_calls() {
    let node = TestNode::start();
    let mut bob = caller(&node, "--timeout 60");
    bob.expect("connected");
    bob.signal(Signal::INT);
    bob.exit_well();
}
