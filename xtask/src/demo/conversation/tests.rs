//! Runs of two clients and a moderator, as they should be and with one thing wrong.

use super::*;

/// A run in which `tamper` may change each event of each member.
struct Run {
    start: Instant,
    conversation: Conversation,
}

const LABELS: [&str; 3] = ["ann", "bob", "mod"];

fn address(id: MemberId) -> String {
    format!("org/ns/{}", LABELS[id])
}

fn name(id: MemberId) -> String {
    format!("{}/0000-{id}", address(id))
}

fn text(speaker: MemberId, line: usize) -> String {
    format!("{} says {line}", LABELS[speaker])
}

impl Run {
    fn new(mls: bool) -> Self {
        let members =
            LABELS.iter().enumerate().map(|(id, label)| ((*label).to_owned(), address(id)));
        Self { start: Instant::now(), conversation: Conversation::new(members, mls) }
    }

    fn event(&mut self, at: MemberId, event: Event) {
        self.conversation.on_event(at, event, self.start + Duration::from_millis(10));
    }

    fn gather(&mut self) {
        for id in 0..3 {
            self.event(id, Event::Connected { name: name(id) });
        }
        for id in [0, 1] {
            self.event(id, Event::Waiting);
            let epoch = Some(id as u64 + 1);
            self.event(id, Event::Session { mls: true, mls_suite: None, epoch });
        }
        self.event(
            2,
            Event::Session { mls: true, mls_suite: Some("suite".into()), epoch: Some(0) },
        );
        for id in [0, 1] {
            let outcome = "joined".to_owned();
            self.event(2, Event::Invite { name: address(id), outcome, reason: None });
        }
    }

    fn say(&mut self, speaker: MemberId, line: usize) {
        self.conversation.say(speaker, text(speaker, line), self.start);
    }

    fn hear(&mut self, listener: MemberId, speaker: MemberId, line: usize) {
        let message = Event::Message { source: name(speaker), payload: text(speaker, line) };
        self.event(listener, message);
    }

    fn delivered(&mut self, speaker: MemberId, line: usize, to: &[MemberId]) {
        let members = to.iter().map(|&id| name(id)).collect();
        self.event(speaker, Event::Delivered { line, members });
    }

    /// Everybody says one line and everybody hears it.
    fn round(&mut self, line: usize) {
        for speaker in 0..3 {
            self.say(speaker, line);
            let others: Vec<MemberId> = self.conversation.others(speaker).collect();
            for &listener in &others {
                self.hear(listener, speaker, line);
            }
            self.delivered(speaker, line, &others);
        }
    }

    fn part(&mut self) {
        for id in 0..3 {
            let members = [2, 0, 1].map(|id| Presence { name: name(id), online: true }).into();
            let mls_suite = Some("suite".to_owned());
            self.event(id, Event::Who { members, mls_suite, epoch: Some(2) });
            let reason = if id == 2 { "left" } else { "moderator_closed" };
            self.event(id, Event::Closed { reason: reason.to_owned() });
        }
    }
}

/// A run that is right up to `change`, and the one failure that it must give.
fn check(change: impl FnOnce(&mut Run), expected: &str) {
    let mut run = Run::new(true);
    run.gather();
    run.round(0);
    run.round(1);
    run.part();
    assert_eq!(run.conversation.failures(), [""; 0]);
    change(&mut run);
    let failures = run.conversation.failures();
    assert!(failures.iter().any(|failure| failure.contains(expected)), "{failures:#?}");
}

#[test]
fn a_good_run_has_no_failures_and_true_numbers() {
    let mut run = Run::new(true);
    run.gather();
    run.round(0);
    run.part();
    assert_eq!(run.conversation.failures(), [""; 0]);
    assert_eq!(
        run.conversation.summary(),
        Summary {
            members: 3,
            messages: 3,
            deliveries: 6,
            lost: 0,
            delivery_p50: Some(Duration::from_millis(10)),
            delivery_p99: Some(Duration::from_millis(10)),
            suite: Some("suite".to_owned()),
            epoch: Some(2),
        }
    );
}

#[test]
fn a_run_says_what_it_still_waits_for() {
    let mut run = Run::new(true);
    assert_eq!(run.conversation.not_waiting(), ["ann is not waiting", "bob is not waiting"]);
    assert_eq!(run.conversation.not_in().len(), 5);
    run.gather();
    assert_eq!(run.conversation.not_waiting(), [""; 0]);
    assert_eq!(run.conversation.not_in(), [""; 0]);

    run.say(0, 0);
    run.hear(1, 0, 0);
    assert_eq!(
        run.conversation.not_heard(),
        ["mod did not hear ann: \"ann says 0\"", "ann has no outcome of \"ann says 0\""]
    );
    run.hear(2, 0, 0);
    run.delivered(0, 0, &[1, 2]);
    assert_eq!(run.conversation.not_heard(), [""; 0]);

    assert_eq!(run.conversation.not_listed().len(), 3);
    run.part();
    assert_eq!(run.conversation.not_listed(), [""; 0]);
}

#[test]
fn a_line_is_complete_when_all_heard_it_and_it_has_its_outcome() {
    let mut run = Run::new(true);
    run.gather();
    run.say(0, 0);
    run.hear(2, 0, 0);
    run.delivered(0, 0, &[1, 2]);
    let message = Event::Message { source: name(0), payload: text(0, 0) };
    let now = run.start + Duration::from_millis(30);
    let completed = run.conversation.on_event(1, message, now);
    assert_eq!(
        completed,
        Some(Completed {
            speaker: 0,
            label: "ann",
            text: "ann says 0",
            listeners: vec!["bob", "mod"],
            took: Duration::from_millis(30),
        })
    );
}

#[test]
fn a_missing_message_is_found() {
    check(
        |run| {
            run.say(0, 2);
            run.hear(1, 0, 2);
            run.delivered(0, 2, &[1, 2]);
        },
        "mod: of what ann said, missing: ann says 2",
    );
}

#[test]
fn a_lost_delivery_is_counted() {
    let mut run = Run::new(true);
    run.gather();
    run.say(0, 0);
    run.hear(1, 0, 0);
    assert_eq!(run.conversation.summary().lost, 1);
}

#[test]
fn a_repeated_message_is_found() {
    check(|run| run.hear(1, 0, 1), "bob: of what ann said, repeated: ann says 1");
}

#[test]
fn a_message_that_nobody_said_is_found() {
    check(|run| run.hear(1, 0, 7), "bob: of what ann said, never said: ann says 7");
}

#[test]
fn a_stranger_is_found() {
    let message = Event::Message { source: "org/ns/eve/1".into(), payload: "hi".into() };
    check(|run| run.event(0, message), "ann: heard \"hi\" from a stranger, org/ns/eve/1");
}

#[test]
fn an_echo_of_oneself_is_found() {
    check(|run| run.hear(0, 0, 0), "ann: heard itself");
}

#[test]
fn a_lost_line_is_a_failure() {
    check(
        |run| {
            run.say(1, 2);
            run.event(1, Event::Lost { line: 2, members: vec![name(0)] });
        },
        "bob: line 2 is lost for org/ns/ann/0000-0",
    );
}

#[test]
fn a_line_without_outcome_is_a_failure() {
    check(|run| run.say(1, 2), "bob: no outcome of \"bob says 2\"");
}

#[test]
fn two_outcomes_of_a_line_are_a_failure() {
    check(|run| run.delivered(1, 1, &[0, 2]), "bob: second outcome of line 1");
    check(|run| run.delivered(1, 9, &[0, 2]), "bob: outcome of line 9, which it never said");
}

#[test]
fn delivered_to_some_is_not_delivered() {
    check(
        |run| {
            run.say(0, 2);
            run.hear(1, 0, 2);
            run.hear(2, 0, 2);
            run.delivered(0, 2, &[1]);
        },
        "is reported as delivered to",
    );
}

#[test]
fn an_invitation_that_is_not_accepted_is_a_problem_at_once() {
    let mut run = Run::new(true);
    let outcome = "no_answer".to_owned();
    run.event(2, Event::Invite { name: address(0), outcome, reason: Some("5 s".into()) });
    assert_eq!(run.conversation.problems(), ["mod: invitation of org/ns/ann: no_answer: 5 s"]);
}

#[test]
fn an_error_event_is_a_failure() {
    let error = Event::Error { code: "alone".into(), message: "nobody is in".into() };
    check(|run| run.event(0, error), "ann: error alone: nobody is in");
}

#[test]
fn a_session_without_the_encryption_that_was_asked_for_is_a_failure() {
    check(
        |run| run.event(0, Event::Session { mls: false, mls_suite: None, epoch: None }),
        "ann: mls is false, expected true",
    );
}

#[test]
fn members_of_different_epochs_are_a_failure() {
    let members = [0, 1, 2].map(|id| Presence { name: name(id), online: true }).into();
    check(
        |run| run.event(1, Event::Who { members, mls_suite: None, epoch: Some(1) }),
        "bob: suite and epoch Some(\"suite\") Some(1), at the moderator Some(\"suite\") Some(2)",
    );
}

#[test]
fn an_incomplete_roster_is_a_failure() {
    let members = [0, 1].map(|id| Presence { name: name(id), online: true }).into();
    check(
        |run| run.event(0, Event::Who { members, mls_suite: None, epoch: None }),
        "ann: /who lists",
    );
    let members = [0, 1, 2].map(|id| Presence { name: name(id), online: id != 1 }).into();
    check(
        |run| run.event(0, Event::Who { members, mls_suite: None, epoch: None }),
        "ann: /who lists",
    );
}

#[test]
fn a_group_that_ends_in_another_way_is_a_failure() {
    check(
        |run| run.event(0, Event::Closed { reason: "node_lost".into() }),
        "ann: closed with Some(\"node_lost\"), expected moderator_closed",
    );
}

#[test]
fn percentiles_are_values_that_occurred() {
    let delays: Vec<Duration> = (1..=200).map(Duration::from_millis).collect();
    assert_eq!(percentile(&delays, 50), Some(Duration::from_millis(100)));
    assert_eq!(percentile(&delays, 99), Some(Duration::from_millis(198)));
    assert_eq!(percentile(&delays[..1], 99), Some(Duration::from_millis(1)));
    assert_eq!(percentile(&[], 50), None);
}
