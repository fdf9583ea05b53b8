//! The same on a terminal: what a person sees and types.

use std::process::Command;

use rexpect::reader::Options;
use rexpect::session::{PtySession, spawn_with_options};

use super::support::{OTHER_SECRET, PATIENCE, SECRET, Slim, TestNode, command};

const DOWN: char = 'd';
const INTERRUPT: char = 'c';

/// `slim LINE` on a terminal of its own.
fn terminal(node: &str, line: &str) -> Screen {
    terminal_with(node, line, |_| {})
}

fn terminal_with(node: &str, line: &str, change: impl FnOnce(&mut Command)) -> Screen {
    let mut command = command();
    command
        .args(line.split_whitespace())
        .args(["--slim", node])
        .env("TERM", "xterm-256color")
        .env_remove("NO_COLOR")
        .env("SLIM_SHARED_SECRET", SECRET)
        .env("SLIM_TIMEOUT", "0.5")
        .env("SLIM_MAX_RETRIES", "3");
    change(&mut command);
    let patience = u64::try_from(PATIENCE.as_millis()).unwrap();
    let options = Options::new().timeout_ms(Some(patience));
    Screen { session: spawn_with_options(command, options).unwrap() }
}

#[test]
fn top_takes_the_screen_and_gives_it_back() {
    let node = TestNode::start();
    let mut bob = Slim::start(&node, "group --local a/b/bob");
    bob.expect("waiting");
    for quit in ["q", "\x03"] {
        let mut command = command();
        command.args(["top", "--admin", &node.admin()]).env("TERM", "xterm-256color");
        let patience = u64::try_from(PATIENCE.as_millis()).unwrap();
        let options = Options::new().timeout_ms(Some(patience));
        let mut screen = Screen { session: spawn_with_options(command, options).unwrap() };
        screen.shows("\x1b[?1049h");
        screen.shows("a/b/bob");
        screen.shows("sort: traffic");
        screen.types("s");
        screen.shows("sort: queue");
        screen.types(quit);
        screen.shows("\x1b[?1049l");
        screen.ends(0);
    }
}

/// What comes out of the terminal, colours and cursor movements included.
struct Screen {
    session: PtySession,
}

impl Screen {
    /// Waits until this is shown and returns what was before it.
    fn shows(&mut self, text: &str) -> String {
        self.session.exp_string(text).unwrap_or_else(|error| panic!("no {text:?}: {error}"))
    }

    fn types(&mut self, keys: &str) {
        self.session.send(keys).unwrap();
        self.session.flush().unwrap();
    }

    fn presses_control(&mut self, key: char) {
        self.session.send_control(key).unwrap();
    }

    /// Waits for the end and returns what was shown until then.
    fn ends(mut self, status: i32) -> String {
        let rest = self.session.exp_eof().unwrap();
        // The type is not exported.
        let ended = format!("{:?}", self.session.process().wait().unwrap());
        assert!(
            ended.starts_with("Exited") && ended.ends_with(&format!(" {status})")),
            "{ended}: {rest}"
        );
        rest
    }
}

fn participant(node: &TestNode) -> Screen {
    let mut screen = terminal(&node.url(), "group --local a/b/client-1");
    screen.shows("connected to ");
    screen.shows(" as a/b/client-1");
    screen.shows("waiting to be invited");
    screen.shows("client-1");
    screen
}

fn moderator(node: &TestNode, options: &str) -> Slim {
    let line = "group --local a/b/moderator --remote a/b/chat --invites a/b/client-1";
    Slim::start(node, &format!("{line} {options}"))
}

/// A person in a group with a program.
fn conversation(node: &TestNode) -> (Screen, Slim) {
    let mut screen = participant(node);
    let mut moderator = moderator(node, "");
    moderator.expect("invite");
    screen.shows("in it: client-1 (you), moderator");
    (screen, moderator)
}

#[test]
fn a_half_typed_line_survives_what_others_say() {
    let node = TestNode::start();
    let (mut screen, mut moderator) = conversation(&node);
    screen.types("half a li");
    screen.shows("half a li");
    moderator.type_line("hello");
    screen.shows("> hello");
    screen.shows("client-1");
    screen.shows("> half a li");
    screen.types("ne\r");
    moderator.expect_message("half a line");
}

#[test]
fn the_state_of_the_conversation_is_told_in_words() {
    let node = TestNode::start();
    let mut screen = participant(&node);
    let mut moderator = moderator(&node, "--enable-mls");
    screen.shows("joined group a/b/chat, end-to-end encrypted");
    let mut second = Slim::start(&node, "group --local a/b/client-2");
    second.expect("waiting");
    moderator.expect("invite");
    moderator.type_line("/invite a/b/client-2");
    screen.shows("client-2 joined");
    screen.types("/who\r");
    screen.shows("in it: client-1 (you), client-2, moderator; encrypted with MLS_");
    second.expect("session");
    second.type_line("exit");
    screen.shows("client-2 left");
    moderator.type_line("exit");
    let rest = screen.ends(0);
    assert!(rest.contains("the moderator closed the group"), "{rest}");
}

#[test]
fn what_is_typed_before_there_is_a_session_is_not_sent() {
    let node = TestNode::start();
    let mut screen = participant(&node);
    screen.types("too early\r");
    screen.shows("not sent: nobody has invited you yet");
    screen.types("again\rdraft");
    screen.shows("not sent");
    screen.shows("draft");
    let mut moderator = moderator(&node, "");
    screen.shows("not encrypted");
    screen.types(" finished\r");
    let first = moderator.expect("message");
    assert_eq!(first["payload"], "draft finished");
}

#[test]
fn leaving_ends_with_a_clean_line() {
    for leave in ["exit\r", "QUIT\r", "/leave\r", "\u{4}", "\u{3}"] {
        let node = TestNode::start();
        let (mut screen, mut moderator) = conversation(&node);
        screen.types(leave);
        let rest = screen.ends(0);
        assert!(rest.trim_end().ends_with("you left the group\u{1b}[0m"), "{leave:?}: {rest:?}");
        moderator.expect_where("participant", |event| event["change"] == "left");
    }
}

#[test]
fn one_can_stop_before_anything_happens() {
    for key in [DOWN, INTERRUPT] {
        let node = TestNode::start();
        let mut screen = participant(&node);
        screen.presses_control(key);
        screen.ends(0);
    }
}

#[test]
fn a_lost_node_is_one_line_and_its_return_another() {
    let mut node = TestNode::start();
    let (mut screen, mut moderator) = conversation(&node);
    screen.types("half");
    screen.shows("half");
    node.stop();
    screen.shows(" is lost, trying again");
    node.restart();
    let between = screen.shows(" is back");
    assert_eq!(between.matches("lost").count(), 0, "{between}");
    screen.shows("> half");
    screen.types(" a line\r");
    moderator.expect_message("half a line");
}

#[test]
fn a_moderator_at_a_terminal_may_stay_alone() {
    let node = TestNode::start();
    let line = "group --local a/b/moderator --remote a/b/chat --invites a/b/nobody";
    let mut screen = terminal(&node.url(), line);
    screen.shows("created group a/b/chat");
    screen.types("anybody?\r");
    screen.shows("not sent: nobody else is in the group yet");
    screen.shows("nobody did not join: no answer after 2 s");
    let mut client = Slim::start(&node, "group --local a/b/client-1");
    client.expect("waiting");
    screen.types("/invite a/b/client-1\r");
    screen.shows("client-1 joined");
    screen.types("hello\r");
    client.expect_message("hello");
    screen.presses_control(INTERRUPT);
    let rest = screen.ends(0);
    assert!(rest.contains("you closed the group"), "{rest}");
    assert_eq!(client.expect("closed")["reason"], "moderator_closed");
}

#[test]
fn a_secret_that_nobody_shares_ends_even_a_terminal() {
    let node = TestNode::start();
    let mut client = Slim::start(&node, "group --local a/b/client-1");
    client.expect("waiting");
    let line = "group --local a/b/moderator --remote a/b/chat --invites a/b/client-1";
    let mut screen = terminal_with(&node.url(), line, |command| {
        command.env("SLIM_SHARED_SECRET", OTHER_SECRET);
    });
    screen.shows("client-1 did not join: secrets differ");
    let rest = screen.ends(4);
    assert!(rest.contains("slim: secrets differ"), "{rest}");
}

#[test]
fn nobody_answers_a_call() {
    let node = TestNode::start();
    let mut screen = terminal(&node.url(), "p2p --local a/b/bob --remote a/b/alice");
    screen.shows("calling a/b/alice");
    let rest = screen.ends(5);
    assert!(rest.contains("slim: no answer from a/b/alice within 2 s"), "{rest}");
}

#[test]
fn a_call_is_a_conversation() {
    let node = TestNode::start();
    let mut alice = terminal(&node.url(), "p2p --local a/b/alice");
    alice.shows("waiting to be called");
    let mut bob = terminal(&node.url(), "p2p --local a/b/bob --remote a/b/alice --enable-mls");
    bob.shows("talking to alice, end-to-end encrypted");
    alice.shows("talking to bob");
    bob.types("hello\r");
    alice.shows("> hello");
    bob.shows("alice");
    bob.shows("> hello");
    alice.types("hi bob\r");
    bob.shows("> hi bob");
    bob.types("exit\r");
    let rest = bob.ends(0);
    assert!(rest.contains("you ended the conversation with alice"), "{rest}");
    alice.shows("bob ended the conversation");
    alice.presses_control(DOWN);
    alice.ends(0);
}

#[test]
fn connecting_is_shown_in_place_and_ends_with_one_line() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let node = format!("http://{}", silent.local_addr().unwrap());
    let mut screen = terminal(&node, "group --local a/b/client-1 --connect-timeout 1.5");
    screen.shows(&format!("connecting to {node} (0 s of 1.5 s)"));
    screen.shows(&format!("connecting to {node} (1 s of 1.5 s)"));
    let rest = screen.ends(3);
    let lines: Vec<&str> = rest.lines().filter(|line| line.contains("slim: ")).collect();
    assert_eq!(lines.len(), 1, "{rest}");
    assert!(lines[0].contains(&node), "{rest}");
}

#[test]
fn there_are_no_colours_if_they_are_not_wanted() {
    let node = TestNode::start();
    for (variable, value) in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let mut screen = terminal_with(&node.url(), "group --local a/b/client-1", |command| {
            command.env(variable, value);
        });
        let before = screen.shows("waiting to be invited");
        assert!(!before.contains("\u{1b}[2m"), "{before:?}");
        screen.presses_control(INTERRUPT);
        screen.ends(0);
    }
}

#[test]
fn json_on_a_terminal_has_neither_prompt_nor_colours() {
    let node = TestNode::start();
    let mut screen = terminal(&node.url(), "group --local a/b/client-1 --output json");
    screen.shows("\"event\":\"waiting\"");
    screen.types("too early\n");
    screen.shows("\"code\":\"alone\"");
    let mut moderator = moderator(&node, "");
    screen.shows("\"event\":\"session\"");
    screen.types("in time\n");
    assert_eq!(moderator.expect("message")["payload"], "in time");
    screen.shows("\"event\":\"delivered\"");
    screen.types("exit\n");
    let rest = screen.ends(0);
    assert!(rest.contains("\"event\":\"closed\"") && !rest.contains('\u{1b}'), "{rest:?}");
}

#[test]
fn every_pasted_line_is_sent() {
    let node = TestNode::start();
    let (mut screen, mut moderator) = conversation(&node);
    // As a terminal sends it with and without marking what is pasted.
    screen.types("\u{1b}[200~one\ntwo\n\nthree\u{1b}[201~\r");
    screen.types("four\rfive\r");
    for line in ["one", "two", "three", "four", "five"] {
        assert_eq!(moderator.expect("message")["payload"], line);
    }
}
