//! Conversations in a group.

use rustix::process::Signal;
use serde_json::{Value, json};

use super::support::{OTHER_SECRET, SECRET, Slim, TestNode, app, apps, command};

const MODERATOR: &str = "a/b/moderator";

/// A participant that can be invited.
fn participant(node: &TestNode, name: &str) -> Slim {
    let mut slim = Slim::start(node, &format!("group --local {name}"));
    slim.expect("waiting");
    slim
}

/// A moderator that invites these.
fn moderator(node: &TestNode, invites: &[&str], options: &str) -> Slim {
    let invites: String = invites.iter().map(|name| format!(" --invites {name}")).collect();
    let line = format!("group --local {MODERATOR} --remote a/b/chat{invites} {options}");
    Slim::start(node, &line)
}

/// A moderator and its participants `a/b/client-1`…, everybody in.
fn group(node: &TestNode, participants: usize, options: &str) -> (Slim, Vec<Slim>) {
    let names: Vec<String> = (1..=participants).map(|i| format!("a/b/client-{i}")).collect();
    let mut clients: Vec<Slim> = names.iter().map(|name| participant(node, name)).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut moderator = moderator(node, &names, options);
    for _ in &names {
        assert_eq!(moderator.expect("invite")["outcome"], "joined");
    }
    for client in &mut clients {
        client.expect("session");
    }
    (moderator, clients)
}

/// Whether this is about that member and that change.
fn is_change(event: &Value, name: &str, change: &str) -> bool {
    event["event"] == "participant" && event["change"] == change && app(&event["name"]) == name
}

#[test]
fn everybody_gets_everything_once_and_in_order() {
    for options in ["", "--enable-mls"] {
        let node = TestNode::start();
        let (mut moderator, mut clients) = group(&node, 2, options);
        for i in 0..20 {
            moderator.type_line(&format!("moderator {i}"));
            for (c, client) in clients.iter_mut().enumerate() {
                client.type_line(&format!("client {c} {i}"));
            }
        }
        let mut members = vec![moderator];
        members.append(&mut clients);
        for member in &mut members {
            for line in 0..20 {
                let outcome = member.outcome(line);
                assert_eq!(outcome["event"], "delivered");
                assert_eq!(outcome["members"].as_array().unwrap().len(), 2);
            }
        }
        // What was acknowledged is told before the end.
        members[0].end_input();
        for (i, mut member) in members.into_iter().enumerate() {
            member.expect("closed");
            let messages = member.messages();
            member.exit_well();
            assert_eq!(messages.len(), 40, "{options} member {i}: {messages:?}");
            for source in [MODERATOR, "a/b/client-1", "a/b/client-2"] {
                let numbers: Vec<usize> = messages
                    .iter()
                    .filter(|(from, _)| from == source)
                    .map(|(_, text)| text.rsplit(' ').next().unwrap().parse().unwrap())
                    .collect();
                assert!(numbers.is_empty() || numbers == (0..20).collect::<Vec<_>>());
            }
        }
    }
}

#[test]
fn the_session_event_says_who_we_are_and_whether_it_is_encrypted() {
    let node = TestNode::start();
    let mut client = participant(&node, "a/b/client-1");
    let mut moderator = moderator(&node, &["a/b/client-1"], "--enable-mls");
    let started = moderator.expect("session");
    assert_eq!(started["type"], "group");
    assert_eq!(started["role"], "moderator");
    assert_eq!(started["channel"], "a/b/chat");
    assert_eq!(started["mls"], true);
    let invite = moderator.expect("invite");
    assert_eq!(invite["name"], "a/b/client-1");
    assert_eq!(invite["outcome"], "joined");
    let joined = client.expect("session");
    assert_eq!(joined["role"], "participant");
    assert_eq!(joined["channel"], "a/b/chat");
    assert_eq!(joined["session_id"], started["session_id"]);
    assert_eq!(joined["mls"], true);
    assert!(joined["mls_suite"].as_str().unwrap().starts_with("MLS_"), "{joined}");
    assert!(joined["epoch"].is_u64(), "{joined}");
}

#[test]
fn what_is_not_text_arrives_as_it_is() {
    let node = TestNode::start();
    let (mut moderator, mut clients) = group(&node, 1, "");
    moderator.type_bytes(b"\xff\xfe\x00binary\n");
    moderator.type_bytes(b"\n\r\n");
    moderator.type_bytes(b" windows \r\n");
    moderator.type_bytes(b"//leave\n");
    moderator.type_bytes("naïve „text“\n".as_bytes());
    moderator.type_bytes(b"no line end");
    moderator.end_input();
    let message = clients[0].expect("message");
    assert_eq!(message["payload_base64"], "//4AYmluYXJ5");
    assert!(message.get("payload").is_none());
    assert_eq!(message["payload_type"], "msg");
    assert_eq!(message["metadata"], json!({}));
    assert_eq!(app(&message["source"]), MODERATOR);
    for text in [" windows ", "/leave", "naïve „text“", "no line end"] {
        assert_eq!(clients[0].expect("message")["payload"], text);
    }
    let outcomes = moderator.exit_well();
    let lines: Vec<u64> = outcomes
        .iter()
        .filter(|event| event["event"] == "delivered")
        .map(|event| event["line"].as_u64().unwrap())
        .collect();
    assert_eq!(lines, [0, 1, 2, 3, 4], "empty lines do not count");
}

#[test]
fn a_line_to_one_member_is_heard_by_nobody_else() {
    for options in ["", "--enable-mls"] {
        let node = TestNode::start();
        let (mut moderator, mut clients) = group(&node, 2, options);
        moderator.type_line("/to a/b/client-1 for one");
        let heard = clients[0].expect_message("for one");
        assert_eq!((&heard["to_me"], app(&heard["source"])), (&true.into(), MODERATOR));
        assert_eq!(apps(&moderator.outcome(0)["members"]), ["a/b/client-1"]);
        // With its id, and from one participant to another.
        let full = heard["source"].as_str().unwrap();
        clients[0].type_line(&format!("/to {full} back"));
        assert_eq!(moderator.expect_message("back")["to_me"], true);
        clients[0].type_line("/to a/b/client-2 between us");
        assert_eq!(clients[1].expect_message("between us")["to_me"], true);
        assert_eq!(apps(&clients[0].outcome(1)["members"]), ["a/b/client-2"]);
        moderator.type_line("for all");
        for client in &mut clients {
            assert_eq!(client.expect_message("for all")["to_me"], false);
        }
        assert_eq!(clients[0].messages().len(), 2, "{:?}", clients[0].messages());
        assert_eq!(clients[1].messages().len(), 2, "{:?}", clients[1].messages());
        moderator.type_line("/to a/b/nobody hello?");
        moderator.expect_error("not_a_member");
        moderator.type_line("/to nobody hello?");
        moderator.expect_error("bad_name");
        moderator.end_input();
        let rest = moderator.exit_well();
        assert!(rest.iter().all(|event| event["event"] != "message"), "{rest:?}");
    }
}

#[test]
fn messages_have_a_type_and_metadata() {
    let node = TestNode::start();
    let options = "--payload-type text/plain --metadata a=1 --metadata b=2=3";
    let (mut moderator, mut clients) = group(&node, 1, options);
    let client = &mut clients[0];
    moderator.type_line("as the options say");
    let heard = client.expect("message");
    assert_eq!(heard["payload_type"], "text/plain");
    assert_eq!(heard["metadata"], json!({"a": "1", "b": "2=3"}));
    moderator.type_line(r#"/publish {"payload": "{}", "payload_type": "json", "metadata": {}}"#);
    let heard = client.expect("message");
    assert_eq!((&heard["payload"], &heard["payload_type"]), (&"{}".into(), &"json".into()));
    assert_eq!(heard["metadata"], json!({}));
    moderator.type_line(r#"/publish {"payload": "two\nlines"}"#);
    let heard = client.expect("message");
    assert_eq!((&heard["payload"], &heard["metadata"]["a"]), (&"two\nlines".into(), &"1".into()));
    moderator.type_line(r#"/publish {"payload": ""}"#);
    assert_eq!(client.expect("message")["payload"], "");
    moderator.type_line(r#"/publish {"payload_base64": "/wo=", "to": "a/b/client-1"}"#);
    let heard = client.expect("message");
    assert_eq!((&heard["payload_base64"], &heard["to_me"]), (&"/wo=".into(), &true.into()));
    for line in 0..5 {
        assert_eq!(apps(&moderator.outcome(line)["members"]), ["a/b/client-1"]);
    }
}

#[test]
fn lines_wait_for_the_invitations() {
    let node = TestNode::start();
    let mut client = participant(&node, "a/b/client-1");
    let mut moderator = moderator(&node, &["a/b/client-1", "a/b/nobody"], "");
    moderator.type_line("typed too early");
    moderator.type_line("/who");
    moderator.end_input();
    client.expect_message("typed too early");
    for event in ["session", "invite", "invite", "who"] {
        moderator.expect(event);
    }
    moderator.exit_well();
    client.exit_well();
}

#[test]
fn a_participants_lines_wait_for_its_session() {
    let node = TestNode::start();
    let mut client = participant(&node, "a/b/client-1");
    client.type_line("typed too early");
    let mut moderator = moderator(&node, &["a/b/client-1"], "");
    moderator.expect_message("typed too early");
}

#[test]
fn an_invitee_that_is_not_there_is_told_and_nobody_waits_for_it() {
    let node = TestNode::start();
    let mut client = participant(&node, "a/b/client-1");
    let mut moderator = moderator(&node, &["a/b/nobody", "a/b/client-1"], "");
    // The one that is there joins first, although it was invited after.
    let first = moderator.expect("invite");
    assert_eq!((&first["name"], &first["outcome"]), (&"a/b/client-1".into(), &"joined".into()));
    client.expect("session");
    let second = moderator.expect("invite");
    assert_eq!((&second["name"], &second["outcome"]), (&"a/b/nobody".into(), &"no_answer".into()));
    assert!(second["reason"].as_str().unwrap().contains("2 s"), "{second}");
    moderator.end_input();
    moderator.exit_well();
}

#[test]
fn a_group_that_nobody_joins_fails() {
    let node = TestNode::start();
    let mut moderator = moderator(&node, &["a/b/nobody", "a/b/no-one"], "");
    for _ in 0..2 {
        assert_eq!(moderator.expect("invite")["outcome"], "no_answer");
    }
    assert_eq!(moderator.expect("closed")["reason"], "left");
    moderator.exit().assert_failed(5, "nobody_joined");
}

#[test]
fn a_wrong_secret_is_told_to_both_sides_once() {
    let node = TestNode::start();
    let mut client = Slim::start_with(&node, "group --local a/b/client-1", |command| {
        command.env("SLIM_SHARED_SECRET", OTHER_SECRET);
    });
    client.expect("waiting");
    let mut moderator = moderator(&node, &["a/b/client-1"], "");
    let invite = moderator.expect("invite");
    assert_eq!(invite["outcome"], "refused");
    assert_eq!(invite["reason"], "secrets differ");
    moderator.exit().assert_failed(4, "identity_refused");
    client.expect_error("identity_mismatch");
    client.signal(Signal::TERM);
    let exit = client.exit();
    assert_eq!(exit.status, Some(0));
    assert!(exit.rest.iter().all(|event| event["event"] != "error"), "told again: {exit:?}");
}

#[test]
fn one_with_a_wrong_secret_does_not_hold_up_the_others() {
    let node = TestNode::start();
    let mut stranger = Slim::start_with(&node, "group --local a/b/stranger", |command| {
        command.env("SLIM_SHARED_SECRET", OTHER_SECRET);
    });
    stranger.expect("waiting");
    let mut client = participant(&node, "a/b/client-1");
    let mut moderator = moderator(&node, &["a/b/stranger", "a/b/client-1"], "");
    moderator.expect_where("invite", |event| event["outcome"] == "joined");
    moderator.type_line("hello");
    client.expect_message("hello");
}

#[test]
fn a_participant_that_is_killed_is_told_and_what_it_misses_is_lost() {
    let node = TestNode::start();
    let (mut moderator, mut clients) = group(&node, 2, "--enable-mls");
    moderator.type_line("all here");
    moderator.expect("delivered");
    let killed = clients.pop().unwrap();
    killed.signal(Signal::KILL);
    assert_eq!(killed.exit().status, None);
    moderator.type_line("one is gone");
    let lost = moderator.outcome(1);
    assert_eq!(lost["event"], "lost");
    assert_eq!(apps(&lost["members"]), ["a/b/client-2"]);
    moderator.told("offline", |event| is_change(event, "a/b/client-2", "offline"));
    clients[0].expect_message("one is gone");
    moderator.type_line("/who");
    let who = moderator.expect("who");
    let offline: Vec<&str> = who["members"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|member| member["online"] == false)
        .map(|member| app(&member["name"]))
        .collect();
    assert_eq!(offline, ["a/b/client-2"]);
    moderator.type_line("the others go on");
    clients[0].expect_message("the others go on");
    assert_eq!(apps(&moderator.outcome(2)["members"]), ["a/b/client-2"]);
}

#[test]
fn a_participant_goes_away_and_comes_back() {
    let node = TestNode::start();
    let (mut moderator, mut clients) = group(&node, 2, "--enable-mls");
    clients[1].type_line("/away");
    assert_eq!(clients[1].expect("presence")["online"], false);
    moderator.told("offline", |event| is_change(event, "a/b/client-2", "offline"));
    moderator.type_line("for later");
    let lost = moderator.outcome(0);
    assert_eq!(lost["event"], "lost");
    assert_eq!(apps(&lost["members"]), ["a/b/client-2"]);
    clients[0].expect_message("for later");
    clients[1].type_line("too early");
    assert_eq!(clients[1].expect("error")["code"], "away");

    clients[1].type_line("/back");
    assert_eq!(clients[1].expect("presence")["online"], true);
    clients[1].told("message", |event| event["payload"] == "for later");
    moderator.told("online", |event| is_change(event, "a/b/client-2", "online"));
    clients[1].type_line("here");
    assert_eq!(apps(&clients[1].expect("delivered")["members"]).len(), 2);
}

#[test]
fn participants_leave_in_every_way() {
    let node = TestNode::start();
    let (mut moderator, mut clients) = group(&node, 6, "");
    let leavers = clients.split_off(1);
    for (mut leaver, name) in leavers.into_iter().zip(2..) {
        match name {
            2 => leaver.type_line("Exit"),
            3 => leaver.type_line("/leave"),
            4 => leaver.signal(Signal::INT),
            5 => leaver.signal(Signal::HUP),
            _ => leaver.signal(Signal::TERM),
        }
        assert_eq!(leaver.expect("closed")["reason"], "left");
        assert_eq!(leaver.exit_well(), Vec::<Value>::new(), "closed is the last event");
        let name = format!("a/b/client-{name}");
        for member in [&mut moderator, &mut clients[0]] {
            member.expect_where("participant", |event| is_change(event, &name, "left"));
        }
    }
    moderator.type_line("two are left");
    clients[0].expect_message("two are left");
}

#[test]
fn a_participant_stays_after_the_end_of_its_input() {
    let node = TestNode::start();
    let (mut moderator, mut clients) = group(&node, 1, "");
    clients[0].type_line("last words");
    clients[0].end_input();
    moderator.expect_message("last words");
    moderator.type_line("still there?");
    clients[0].expect_message("still there?");
    moderator.end_input();
    moderator.exit_well();
    assert_eq!(clients[0].expect("closed")["reason"], "moderator_closed");
    clients.pop().unwrap().exit_well();
}

#[test]
fn the_moderator_leaves_and_the_group_is_over() {
    for signal in [None, Some(Signal::INT), Some(Signal::TERM)] {
        let node = TestNode::start();
        let (mut moderator, clients) = group(&node, 2, "--enable-mls");
        match signal {
            None => moderator.type_line("quit"),
            Some(signal) => moderator.signal(signal),
        }
        assert_eq!(moderator.expect("closed")["reason"], "left");
        moderator.exit_well();
        for mut client in clients {
            assert_eq!(client.expect("closed")["reason"], "moderator_closed");
            client.exit_well();
        }
    }
}

#[test]
fn exit_waits_for_the_outcomes() {
    let node = TestNode::start();
    let (mut moderator, mut clients) = group(&node, 1, "");
    for i in 0..50 {
        moderator.type_line(&format!("line {i}"));
    }
    moderator.type_line("exit");
    moderator.type_line("never sent");
    for i in 0..50 {
        assert_eq!(clients[0].expect("message")["payload"], format!("line {i}"));
    }
    for i in 0..50 {
        assert_eq!(moderator.outcome(i)["event"], "delivered");
    }
    assert_eq!(moderator.expect("closed")["reason"], "left");
    assert_eq!(moderator.exit_well(), Vec::<Value>::new());
}

#[test]
fn members_are_invited_and_removed_in_order() {
    let node = TestNode::start();
    let (mut moderator, mut clients) = group(&node, 1, "--enable-mls");
    let mut late = participant(&node, "a/b/late");
    moderator.type_line("/invite a/b/late");
    moderator.type_line("hello late");
    moderator.type_line("/remove a/b/client-1");
    moderator.type_line("only for late");
    moderator.type_line("/who");
    let invite = moderator.expect("invite");
    assert_eq!((&invite["name"], &invite["outcome"]), (&"a/b/late".into(), &"joined".into()));
    late.expect("session");
    late.expect_message("hello late");
    clients[0].expect_where("participant", |event| is_change(event, "a/b/late", "joined"));
    clients[0].expect_message("hello late");
    assert_eq!(clients[0].expect("closed")["reason"], "removed");
    let rest = clients.pop().unwrap().exit_well();
    assert_eq!(rest, Vec::<Value>::new());
    late.expect_where("participant", |event| is_change(event, "a/b/client-1", "left"));
    late.expect_message("only for late");
    let who = moderator.expect("who");
    moderator.told("removed", |event| is_change(event, "a/b/client-1", "removed"));
    let names: Vec<Value> =
        who["members"].as_array().unwrap().iter().map(|member| member["name"].clone()).collect();
    assert_eq!(apps(&names.into()), ["a/b/late", MODERATOR]);
}

#[test]
fn inviting_a_member_again_does_no_harm() {
    let node = TestNode::start();
    let (mut moderator, mut clients) = group(&node, 1, "");
    moderator.type_line("/invite a/b/client-1");
    assert_eq!(moderator.expect("invite")["outcome"], "joined");
    moderator.type_line("still one");
    clients[0].expect_message("still one");
    assert_eq!(moderator.expect("delivered")["members"].as_array().unwrap().len(), 1);
}

#[test]
fn an_instance_can_be_invited_by_its_full_name() {
    let node = TestNode::start();
    let mut first = Slim::start(&node, "group --local a/b/client");
    let first_name = first.expect("connected")["name"].as_str().unwrap().to_owned();
    first.expect("waiting");
    let second = participant(&node, "a/b/client");
    let mut moderator = moderator(&node, &[&first_name], "");
    assert_eq!(moderator.expect("invite")["name"], first_name);
    first.expect("session");
    drop(second);
}

#[test]
fn a_participant_may_not_moderate() {
    let node = TestNode::start();
    let (_moderator, mut clients) = group(&node, 1, "");
    clients[0].type_line("/invite a/b/friend");
    assert_eq!(clients[0].expect("invite")["outcome"], "refused");
    clients[0].expect_error("not_moderator");
    clients[0].type_line("/remove a/b/moderator");
    clients[0].expect_error("not_moderator");
}

#[test]
fn a_second_signal_ends_at_once() {
    let node = TestNode::start();
    let (moderator, mut clients) = group(&node, 1, "--timeout 60");
    let mut client = clients.pop().unwrap();
    // It neither acknowledges the line nor answers the leaving.
    moderator.freeze();
    client.type_line("never acknowledged");
    client.type_line("/who");
    client.expect("who");
    client.signal(Signal::TERM);
    assert_eq!(client.expect("lost")["line"], 0, "the first signal does not wait for outcomes");
    client.signal(Signal::TERM);
    client.exit().assert_failed(1, "interrupted");
}

#[test]
fn variables_are_as_good_as_options() {
    let node = TestNode::start();
    let clients = [participant(&node, "a/b/client-1"), participant(&node, "a/b/client-2")];
    let mut command = command();
    command
        .arg("group")
        .env("SLIM_LOCAL", MODERATOR)
        .env("SLIM_REMOTE", "a/b/chat")
        .env("SLIM_INVITES", " a/b/client-1  a/b/client-2 ")
        .env("SLIM_SLIM", json!({"endpoint": node.url(), "tls": {"insecure": true}}).to_string())
        .env("SLIM_SHARED_SECRET", SECRET)
        .env("SLIM_ENABLE_MLS", "true")
        .env("SLIM_OUTPUT", "json");
    let mut moderator = Slim::spawn(command);
    assert_eq!(moderator.expect("session")["mls"], true);
    for _ in 0..2 {
        assert_eq!(moderator.expect("invite")["outcome"], "joined");
    }
    moderator.end_input();
    moderator.exit_well();
    for client in clients {
        client.exit_well();
    }
}

#[test]
fn an_option_wins_over_its_variable() {
    let node = TestNode::start();
    let mut client = Slim::start_with(&node, "group --local a/b/client", |command| {
        command.env("SLIM_LOCAL", "a/b/other").env("SLIM_SLIM", "http://127.0.0.1:9");
    });
    assert_eq!(app(&client.expect("connected")["name"]), "a/b/client");
}

#[test]
fn who_is_invited_twice_at_once_joins_once() {
    let node = TestNode::start();
    let mut client = participant(&node, "a/b/client");
    let mut moderator = moderator(&node, &["a/b/client", "a/b/client"], "--enable-mls");
    for _ in 0..2 {
        assert_eq!(moderator.expect("invite")["outcome"], "joined");
    }
    moderator.type_line("/who");
    assert_eq!(moderator.expect("who")["members"].as_array().unwrap().len(), 2);
    moderator.type_line("hello");
    client.expect_message("hello");
    moderator.end_input();
    moderator.exit_well();
    let rest = client.exit_well();
    assert!(rest.iter().all(|event| event["event"] != "session" && event["event"] != "message"));
}

#[test]
fn an_invitee_may_start_after_its_invitation() {
    let node = TestNode::start();
    let options = "--timeout 0.5 --max-retries 100";
    let mut moderator = moderator(&node, &["a/b/late"], options);
    moderator.expect("session");
    let mut late = participant(&node, "a/b/late");
    late.expect("session");
    assert_eq!(moderator.expect("invite")["outcome"], "joined");
}

#[test]
fn a_participant_is_in_one_group_only() {
    let node = TestNode::start();
    let (mut moderator, mut clients) = group(&node, 1, "");
    let line = "group --local a/b/other --remote a/b/party --invites a/b/client-1";
    let mut other = Slim::start(&node, line);
    other.expect_where("participant", |event| is_change(event, "a/b/client-1", "left"));
    moderator.type_line("still with us?");
    clients[0].expect_message("still with us?");
    // What is turned away is a warning.
    clients[0].type_line("exit");
    let exit = clients.pop().unwrap().exit();
    assert_eq!((exit.status, exit.stderr.lines().count()), (Some(0), 1), "{exit:?}");
}
