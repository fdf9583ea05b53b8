//! Facts about the sender's side, then random conversations.

use bytes::Bytes;
use proptest::{collection, prelude::*};
use slim_proto::NameId;

use super::*;

const P: Duration = Duration::from_secs(1);

fn at(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// An instance of one application, named by one letter, in the order of the letters.
fn name(letter: &str) -> Name {
    let id = letter.bytes().next().map(u128::from).unwrap();
    Name::new("org", "ns", "app").unwrap().with_id(NameId(id))
}

fn names(who: &str) -> Vec<Name> {
    who.split_whitespace().map(name).collect()
}

fn message(size: usize) -> Outgoing {
    Outgoing { payload: Bytes::from(vec![0; size]), ..Outgoing::default() }
}

fn reliable(max_retries: u32) -> Outbound {
    Outbound::new(Some(Timers { timeout: P, max_retries }))
}

/// Publishes to these members and forgets the actions. The request is the id.
fn publish(outbound: &mut Outbound, seconds: f64, online: &str, offline: &str) -> u32 {
    let id = outbound.next_id;
    let audience = Audience::All { online: names(online), offline: names(offline) };
    outbound.publish(at(seconds), RequestId(id.into()), message(1), audience).0
}

/// Actions in short: `1>*` sends 1 to all, `1>a` to a, `!a` a is silent, and
/// `1 ok a b lost c` is the report for request 1.
fn brief(actions: &[Action]) -> Vec<String> {
    let list = |names: &[Name]| {
        let letters = names.iter().map(|name| char::from(name.id().0 as u8).to_string());
        letters.collect::<Vec<_>>().join(" ")
    };
    let show = |action: &Action| match action {
        Action::Send { id, to: To::All, .. } => format!("{id}>*"),
        Action::Send { id, to: To::One(name), .. } => {
            format!("{id}>{}", list(std::slice::from_ref(name)))
        }
        Action::Silent(name) => format!("!{}", list(std::slice::from_ref(name))),
        Action::Done { request: RequestId(request), report } => {
            let (delivered, lost) = (list(&report.delivered), list(&report.lost));
            format!("{request} ok {delivered} lost {lost}").replace("  ", " ").trim().to_owned()
        }
    };
    actions.iter().map(show).collect()
}

/// Ticks whenever it asks for it, up to and including this time.
fn run(outbound: &mut Outbound, until: f64) -> Vec<(Duration, Vec<String>)> {
    let mut ticks = Vec::new();
    while let Some(deadline) = outbound.next_deadline().filter(|&due| due <= at(until)) {
        let actions = brief(&outbound.tick(deadline));
        if !actions.is_empty() {
            ticks.push((deadline, actions));
        }
        assert_ne!(outbound.next_deadline(), Some(deadline), "a tick leaves nothing due");
    }
    ticks
}

fn check(actions: Vec<Action>, expected: &[&str]) {
    assert_eq!(brief(&actions), expected);
}

fn check_run(outbound: &mut Outbound, until: f64, expected: &[(f64, &[&str])]) {
    let expected: Vec<_> = expected
        .iter()
        .map(|(seconds, actions)| {
            (at(*seconds), actions.iter().map(|&action| action.to_owned()).collect())
        })
        .collect();
    assert_eq!(run(outbound, until), expected);
}

// ---------------------------------------------------------------- numbers

#[test]
fn numbers_count_from_one_and_wrap_to_zero() {
    let mut outbound = reliable(1);
    assert_eq!(publish(&mut outbound, 0., "a", ""), 1);
    assert_eq!(publish(&mut outbound, 0., "a", ""), 2);
    outbound.next_id = DIRECT - 2;
    let ids: Vec<_> = (0..4).map(|_| publish(&mut outbound, 0., "a", "")).collect();
    assert_eq!(ids, [DIRECT - 2, DIRECT - 1, 0, 1]);
    // The second message with number 1 is the one that counts.
    check(outbound.ack(at(0.), &name("a"), 1), &["1 ok a lost"]);
    assert_eq!(outbound.open(), 5);
    check(outbound.ack(at(0.), &name("a"), 1), &[]);
}

#[test]
fn evicting_the_old_message_of_a_number_leaves_the_new_one() {
    let mut outbound = reliable(1);
    publish(&mut outbound, 0., "a", "");
    outbound.ack(at(0.), &name("a"), 1);
    outbound.next_id = 1;
    for _ in 0..WINDOW {
        publish(&mut outbound, 0., "a", "");
    }
    assert_eq!(outbound.entries.len(), WINDOW);
    check(outbound.ack(at(0.), &name("a"), 1), &["1 ok a lost"]);
}

#[test]
fn direct_messages_take_no_number_and_wait_for_one_member() {
    let mut outbound = reliable(1);
    let direct = |outbound: &mut Outbound, wished| {
        let audience = Audience::One { member: name("a"), id: wished };
        outbound.publish(at(0.), RequestId(7), message(1), audience)
    };
    let (id, actions) = direct(&mut outbound, 3_000_000_000);
    assert_eq!(id, 3_000_000_000);
    assert!(is_direct(id));
    check(actions, &["3000000000>a"]);
    assert_eq!(publish(&mut outbound, 0., "a b", ""), 1);
    check(outbound.tick(at(1.)), &["3000000000>a", "1>a", "1>b"]);
    check(outbound.ack(at(1.), &name("b"), id), &[]);
    check(outbound.ack(at(1.), &name("a"), id), &["7 ok a lost"]);

    // Out of range or taken: the next free one.
    for (wished, expected) in [
        (3_000_000_000, 3_000_000_001),
        (5, DIRECT + 5),
        (u32::MAX, DIRECT),
        (u32::MAX / 2, DIRECT + 1),
        (u32::MAX - 1, u32::MAX - 1),
        (u32::MAX - 1, DIRECT + 2),
    ] {
        assert_eq!(direct(&mut outbound, wished).0, expected, "{wished}");
    }
}

// ---------------------------------------------------------------- acks and timers

#[test]
fn a_message_is_done_when_all_have_acknowledged() {
    let mut outbound = reliable(3);
    let audience = Audience::All { online: names("a b"), offline: Vec::new() };
    let (id, actions) = outbound.publish(at(0.), RequestId(5), message(1), audience);
    check(actions, &["1>*"]);
    check(outbound.ack(at(0.), &name("a"), id), &[]);
    check(outbound.ack(at(0.), &name("a"), id), &[]);
    check(outbound.ack(at(0.), &name("x"), id), &[]);
    check(outbound.ack(at(0.), &name("b"), 99), &[]);
    assert_eq!(outbound.next_deadline(), Some(P));
    // Acknowledgements may come without the readable parts of the name.
    check(outbound.ack(at(0.), &name("b").without_text(), id), &["5 ok a b lost"]);
    assert_eq!(outbound.next_deadline(), None);
}

#[test]
fn the_missing_get_copies_and_are_given_up() {
    let mut outbound = reliable(3);
    publish(&mut outbound, 0., "a b c", "");
    outbound.ack(at(0.5), &name("b"), 1);
    check_run(
        &mut outbound,
        10.,
        &[
            (1., &["1>a", "1>c"]),
            (2., &["1>a", "1>c"]),
            (3., &["1>a", "1>c"]),
            (4., &["!a", "!c", "1 ok b lost a c"]),
        ],
    );
    assert_eq!(outbound.next_deadline(), None);
}

#[test]
fn a_late_tick_sends_one_copy() {
    let mut outbound = reliable(3);
    publish(&mut outbound, 0., "a", "");
    check(outbound.tick(at(100.)), &["1>a"]);
    assert_eq!(outbound.next_deadline(), Some(at(101.)));
}

#[test]
fn who_is_silent_is_no_longer_awaited_for_later_messages() {
    let mut outbound = reliable(2);
    publish(&mut outbound, 0., "a b", "");
    publish(&mut outbound, 2.5, "a b", "");
    publish(&mut outbound, 2.5, "a", "");
    outbound.ack(at(0.6), &name("b"), 1);
    check_run(
        &mut outbound,
        3.,
        &[(1., &["1>a"]), (2., &["1>a"]), (3., &["!a", "1 ok b lost a", "3 ok lost a"])],
    );
    check(outbound.ack(at(3.), &name("b"), 2), &["2 ok b lost a"]);
}

#[test]
fn who_acknowledges_other_messages_is_not_silent() {
    let mut outbound = reliable(1);
    publish(&mut outbound, 0., "a", "");
    publish(&mut outbound, 0., "a", "");
    check_run(&mut outbound, 1.5, &[(1., &["1>a", "2>a"])]);
    outbound.ack(at(1.5), &name("a"), 2);
    check_run(&mut outbound, 5., &[(2., &["1 ok lost a"])]);
    // And the one message is not tried again.
    outbound.member_offline(&name("a"));
    check(outbound.member_online(at(9.), &name("a")), &[]);
}

#[test]
fn unreliable_messages_are_done_at_once() {
    let mut outbound = Outbound::new(None);
    let audience = Audience::All { online: names("a"), offline: names("b") };
    let (id, actions) = outbound.publish(at(0.), RequestId(1), message(1), audience);
    check(actions, &["1>*", "1 ok lost"]);
    assert_eq!(outbound.rtx_request(at(0.), &name("a"), id), None);
    check(outbound.member_online(at(0.), &name("b")), &[]);
    assert_eq!((outbound.open(), outbound.entries.len()), (0, 0));
    assert_eq!(outbound.next_deadline(), None);
    assert_eq!(publish(&mut outbound, 0., "a", ""), 2);
}

// ---------------------------------------------------------------- retransmission on request

#[test]
fn a_request_is_answered_and_is_no_ack() {
    let mut outbound = reliable(1);
    let audience = Audience::All { online: names("a"), offline: names("b") };
    let (id, _) = outbound.publish(at(0.), RequestId(1), message(42), audience);
    // As often as it is asked for, also by who was offline.
    for who in ["a", "a", "b"] {
        let found = outbound.rtx_request(at(0.5), &name(who), id);
        assert_eq!(found.map(|message| message.payload.len()), Some(42));
    }
    assert_eq!(outbound.rtx_request(at(0.5), &name("a"), 2), None);
    // Until there is an ack, copies follow as if nobody had asked.
    assert_eq!(outbound.open(), 1);
    check_run(&mut outbound, 1., &[(1., &["1>a"])]);
    check(outbound.ack(at(1.5), &name("a"), id), &["1 ok a lost b"]);
    check(outbound.ack(at(1.5), &name("b"), id), &[]);
    check(outbound.member_online(at(2.), &name("b")), &[]);
    assert!(outbound.rtx_request(at(2.), &name("a"), id).is_some(), "even after the ack");
}

#[test]
fn who_asks_in_vain_has_not_got_it_and_is_not_silent() {
    let mut outbound = reliable(1);
    publish(&mut outbound, 0., "a b", "");
    assert!(outbound.rtx_request(at(0.5), &name("a"), 1).is_some());
    check_run(&mut outbound, 9., &[(1., &["1>a", "1>b"]), (2., &["!b", "1 ok lost a b"])]);
}

#[test]
fn only_recipients_are_answered() {
    let mut outbound = reliable(1);
    let id = publish(&mut outbound, 0., "a b", "");
    outbound.member_gone(&name("b"));
    for who in ["x", "b"] {
        assert_eq!(outbound.rtx_request(at(0.), &name(who), id), None);
    }
    assert!(outbound.heard_at.is_empty(), "nothing is remembered of them");
}

// ---------------------------------------------------------------- presence

#[test]
fn who_is_gone_is_not_awaited_and_gets_nothing_more() {
    let mut outbound = reliable(1);
    publish(&mut outbound, 0., "a b", "");
    publish(&mut outbound, 0., "b", "");
    publish(&mut outbound, 0., "a", "b");
    outbound.ack(at(0.), &name("a"), 1);
    check(outbound.member_gone(&name("b")), &["1 ok a lost b", "2 ok lost b"]);
    check(outbound.member_online(at(0.), &name("b")), &[]);
    // An acknowledgement that crossed its leaving counts nevertheless.
    outbound.ack(at(0.), &name("b"), 3);
    check(outbound.ack(at(0.), &name("a"), 3), &["3 ok a b lost"]);
    assert!(!outbound.heard_at.contains_key(&name("b").route()), "it is forgotten");
}

#[test]
fn who_is_offline_is_not_awaited() {
    let mut outbound = reliable(1);
    publish(&mut outbound, 0., "a b", "");
    check(outbound.ack(at(0.), &name("b"), 1), &[]);
    check(outbound.member_offline(&name("a")), &["1 ok b lost a"]);
    check(outbound.member_offline(&name("a")), &[]);
    publish(&mut outbound, 0., "b", "a");
    check(outbound.ack(at(0.), &name("b"), 2), &["2 ok b lost a"]);
    assert_eq!(outbound.next_deadline(), None);
}

#[test]
fn who_is_back_gets_what_it_missed_in_order() {
    let mut outbound = reliable(1);
    publish(&mut outbound, 0., "a b", "");
    publish(&mut outbound, 0., "a b", "");
    outbound.ack(at(0.), &name("a"), 1);
    for id in [1, 2] {
        outbound.ack(at(0.), &name("b"), id);
    }
    outbound.member_offline(&name("a"));
    publish(&mut outbound, 1., "b", "a");
    publish(&mut outbound, 1., "b", "");
    check(outbound.member_online(at(1.5), &name("a")), &["2>a", "3>a"]);

    // 2 was reported: its copy is tried as long, but there is no second report.
    check(outbound.ack(at(1.6), &name("b"), 3), &[]);
    check(outbound.ack(at(1.6), &name("b"), 4), &["4 ok b lost"]);
    check_run(&mut outbound, 2.5, &[(2.5, &["2>a", "3>a"])]);
    check(outbound.ack(at(2.6), &name("a"), 2), &[]);
    check(outbound.ack(at(2.6), &name("a"), 3), &["3 ok a b lost"]);
    assert_eq!(outbound.next_deadline(), None);
}

#[test]
fn who_is_back_and_silent_again_is_not_tried_for_ever() {
    let mut outbound = reliable(0);
    publish(&mut outbound, 0., "a", "");
    check_run(&mut outbound, 1., &[(1., &["!a", "1 ok lost a"])]);
    check(outbound.member_online(at(5.), &name("a")), &["1>a"]);
    check_run(&mut outbound, 6., &[(6., &["!a"])]);
    check(outbound.member_online(at(9.), &name("a")), &[]);
    // If it asks, it gets it all the same.
    assert!(outbound.rtx_request(at(9.), &name("a"), 1).is_some());
}

#[test]
fn if_nobody_is_online_the_offline_ones_are_awaited() {
    let mut outbound = reliable(1);
    let audience = Audience::All { online: Vec::new(), offline: names("a b") };
    let (_, actions) = outbound.publish(at(0.), RequestId(1), message(1), audience);
    check(actions, &["1>*"]);
    check(outbound.member_online(at(0.5), &name("b")), &["1>b"]);
    check_run(&mut outbound, 1.5, &[(1., &["1>a"]), (1.5, &["1>b"])]);
    check(outbound.ack(at(1.6), &name("b"), 1), &[]);
    check_run(&mut outbound, 9., &[(2., &["!a", "1 ok b lost a"])]);
}

#[test]
fn without_an_audience_there_is_nothing_to_wait_for() {
    let mut outbound = reliable(1);
    let audience = Audience::All { online: Vec::new(), offline: Vec::new() };
    let (_, actions) = outbound.publish(at(0.), RequestId(1), message(1), audience);
    check(actions, &["1>*", "1 ok lost"]);
}

// ---------------------------------------------------------------- keys

#[test]
fn keys_tell_whether_all_before_is_reported() {
    let mut outbound = reliable(1);
    assert_eq!((outbound.next_key(), outbound.oldest_open()), (0, None));
    for _ in 0..3 {
        publish(&mut outbound, 0., "a", "");
    }
    assert_eq!((outbound.next_key(), outbound.oldest_open()), (3, Some(0)));
    outbound.ack(at(0.), &name("a"), 2);
    assert_eq!(outbound.oldest_open(), Some(0));
    outbound.ack(at(0.), &name("a"), 1);
    assert_eq!(outbound.oldest_open(), Some(2));
    outbound.fail_all();
    assert_eq!((outbound.next_key(), outbound.oldest_open()), (3, None));
    publish(&mut outbound, 0., "", "");
    assert_eq!((outbound.next_key(), outbound.oldest_open()), (4, None), "reported at once");

    let mut unreliable = Outbound::new(None);
    publish(&mut unreliable, 0., "a", "");
    assert_eq!((unreliable.next_key(), unreliable.oldest_open()), (0, None));
}

// ---------------------------------------------------------------- the link

#[test]
fn timers_stand_still_without_a_link() {
    let mut outbound = reliable(1);
    publish(&mut outbound, 0., "a b", "");
    check_run(&mut outbound, 1., &[(1., &["1>a", "1>b"])]);
    outbound.pause();
    assert_eq!(outbound.next_deadline(), None);
    check(outbound.tick(at(50.)), &[]);
    check(outbound.ack(at(50.), &name("b"), 1), &[]);
    outbound.resume(at(100.));
    check_run(
        &mut outbound,
        110.,
        &[(100., &["1>a"]), (101., &["1>a"]), (102., &["!a", "1 ok b lost a"])],
    );
}

#[test]
fn what_is_published_without_a_link_goes_to_all_when_it_is_back() {
    let mut outbound = reliable(1);
    outbound.pause();
    let audience = Audience::All { online: names("a b"), offline: names("c") };
    let (_, actions) = outbound.publish(at(0.), RequestId(1), message(1), audience);
    check(actions, &[]);
    check(outbound.member_online(at(1.), &name("c")), &[]);
    assert_eq!(outbound.next_deadline(), None);
    outbound.resume(at(100.));
    assert_eq!(outbound.next_deadline(), Some(at(100.)));
    check_run(
        &mut outbound,
        102.,
        &[
            (100., &["1>*"]),
            (101., &["1>a", "1>b", "1>c"]),
            (102., &["!a", "!b", "!c", "1 ok lost a b c"]),
        ],
    );
}

#[test]
fn at_the_end_every_message_has_its_report() {
    let mut outbound = reliable(1);
    for _ in 0..3 {
        publish(&mut outbound, 0., "a b", "");
    }
    outbound.ack(at(0.), &name("a"), 1);
    for who in ["a", "b"] {
        outbound.ack(at(0.), &name(who), 2);
    }
    check(outbound.fail_all(), &["1 ok a lost b", "3 ok lost a b"]);
    check(outbound.fail_all(), &[]);
    assert_eq!((outbound.open(), outbound.next_deadline()), (0, None));
    check(outbound.ack(at(0.), &name("b"), 1), &[]);
    assert_eq!(publish(&mut outbound, 0., "a", ""), 4);
}

// ---------------------------------------------------------------- bounds

#[test]
fn open_messages_fill_the_window_and_reported_ones_leave_it() {
    let mut outbound = reliable(1);
    for _ in 0..WINDOW {
        assert!(!outbound.is_full());
        publish(&mut outbound, 0., "a b", "");
    }
    assert!(outbound.is_full());
    for who in ["a", "b"] {
        outbound.ack(at(0.), &name(who), 7);
        outbound.ack(at(0.), &name(who), 9);
    }
    assert!(!outbound.is_full());
    // The oldest that is reported makes room; the open ones stay.
    publish(&mut outbound, 0., "a", "");
    assert_eq!(outbound.entries.len(), WINDOW);
    assert_eq!(outbound.rtx_request(at(0.), &name("a"), 7), None);
    assert!(outbound.rtx_request(at(0.), &name("a"), 9).is_some());
    assert!(outbound.rtx_request(at(0.), &name("a"), 1).is_some());
    assert_eq!(outbound.keys.len(), WINDOW);
}

#[test]
fn large_messages_fill_the_window_sooner() {
    let mut outbound = reliable(1);
    let large = || message(WINDOW_BYTES / 4);
    let to_a = || Audience::All { online: names("a"), offline: Vec::new() };
    let publish =
        |outbound: &mut Outbound| outbound.publish(at(0.), RequestId(1), large(), to_a()).0;
    for _ in 0..4 {
        assert!(!outbound.is_full());
        publish(&mut outbound);
    }
    assert!(outbound.is_full());
    outbound.ack(at(0.), &name("a"), 1);
    outbound.ack(at(0.), &name("a"), 2);
    assert!(!outbound.is_full());
    assert_eq!(outbound.entries.len(), 4);
    publish(&mut outbound);
    assert_eq!(outbound.entries.len(), 4);
    assert_eq!(outbound.bytes, WINDOW_BYTES);
    assert_eq!(outbound.rtx_request(at(0.), &name("a"), 1), None);
    assert!(outbound.rtx_request(at(0.), &name("a"), 2).is_some());
}

// ---------------------------------------------------------------- random conversations

#[derive(Clone, Debug)]
enum Step {
    Publish { online: u8 },
    PublishTo(u8),
    Ack(u8, u32),
    Rtx(u8, u32),
    Gone(u8),
    Presence(u8, bool),
    Link(bool),
    Pass(u32),
}

const MEMBERS: u8 = 4;

fn any_step() -> impl Strategy<Value = Step> {
    let member = || 0..MEMBERS;
    prop_oneof![
        4 => any::<u8>().prop_map(|online| Step::Publish { online }),
        1 => member().prop_map(Step::PublishTo),
        6 => (member(), 0u32..40).prop_map(|(who, back)| Step::Ack(who, back)),
        1 => (member(), 0u32..40).prop_map(|(who, back)| Step::Rtx(who, back)),
        1 => member().prop_map(Step::Gone),
        2 => (member(), any::<bool>()).prop_map(|(who, online)| Step::Presence(who, online)),
        1 => any::<bool>().prop_map(Step::Link),
        4 => (1u32..2500).prop_map(Step::Pass),
    ]
}

/// What should be true of each request.
#[derive(Debug, Default)]
struct Expected {
    audience: BTreeSet<Name>,
    acked: BTreeSet<Name>,
    copies: BTreeMap<Name, u32>,
    reports: u32,
}

struct Conversation {
    outbound: Outbound,
    now: Duration,
    expected: Vec<Expected>,
    requests: BTreeMap<u32, usize>,
    max_retries: u32,
    restarts: u32,
}

impl Conversation {
    fn carry_out(&mut self, actions: Vec<Action>) -> Result<(), TestCaseError> {
        for action in actions {
            match action {
                Action::Send { id, to: To::One(name), .. } => {
                    let expected = &mut self.expected[self.requests[&id]];
                    prop_assert!(expected.audience.contains(&name));
                    prop_assert!(!expected.acked.contains(&name), "a copy after the ack");
                    *expected.copies.entry(name).or_default() += 1;
                }
                Action::Send { to: To::All, .. } | Action::Silent(_) => {}
                Action::Done { request: RequestId(request), report } => {
                    let expected = &mut self.expected[request as usize];
                    expected.reports += 1;
                    prop_assert_eq!(expected.reports, 1);
                    let delivered: BTreeSet<_> = report.delivered.iter().cloned().collect();
                    prop_assert_eq!(&delivered, &expected.acked);
                    let lost: BTreeSet<_> = report.lost.iter().cloned().collect();
                    let silent = expected.audience.difference(&expected.acked).cloned().collect();
                    prop_assert_eq!(lost, silent);
                }
            }
        }
        let outbound = &self.outbound;
        prop_assert!(outbound.entries.len() <= WINDOW);
        let awaited: usize = outbound.entries.values().map(|entry| entry.awaited).sum();
        prop_assert_eq!(outbound.next_deadline().is_some(), awaited > 0 && !outbound.paused);
        for entry in outbound.entries.values() {
            let awaited = entry.recipients.values().filter(|r| r.state.is_awaited());
            prop_assert_eq!(awaited.count(), entry.awaited);
            prop_assert!(entry.request.is_none() || entry.awaited > 0, "an open message waits");
        }
        let mut open = outbound.entries.iter().filter(|(_, entry)| entry.request.is_some());
        prop_assert_eq!(open.clone().count(), outbound.open());
        prop_assert_eq!(open.next().map(|(&key, _)| key), outbound.oldest_open());
        prop_assert!(outbound.entries.keys().all(|&key| key < outbound.next_key()));
        let bytes: usize = outbound.entries.values().map(|entry| entry.size).sum();
        prop_assert_eq!(outbound.bytes, bytes);
        Ok(())
    }

    fn publish(&mut self, audience: Audience) -> Result<(), TestCaseError> {
        let members = match &audience {
            Audience::All { online, offline } => online.iter().chain(offline).cloned().collect(),
            Audience::One { member, .. } => BTreeSet::from([member.clone()]),
        };
        let request = self.expected.len();
        self.expected.push(Expected { audience: members, ..Expected::default() });
        let (id, actions) =
            self.outbound.publish(self.now, RequestId(request as u64), message(3), audience);
        prop_assert!(self.requests.insert(id, request).is_none(), "ids are unique");
        self.carry_out(actions)
    }

    fn acknowledged(&mut self, name: &Name, id: u32) {
        if let Some(&request) = self.requests.get(&id) {
            let expected = &mut self.expected[request];
            if expected.audience.contains(name) {
                expected.acked.insert(name.clone());
            }
        }
    }

    fn step(&mut self, step: Step) -> Result<(), TestCaseError> {
        let member = |index: u8| name(&char::from(b'a' + index).to_string());
        let actions = match step {
            Step::Publish { online } => {
                let (online, offline) = (0..MEMBERS)
                    .map(|i| (i, member(i)))
                    .partition::<Vec<_>, _>(|(i, _)| online & (1 << i) != 0);
                let strip = |list: Vec<(u8, Name)>| list.into_iter().map(|(_, n)| n).collect();
                return self
                    .publish(Audience::All { online: strip(online), offline: strip(offline) });
            }
            Step::PublishTo(who) => {
                return self.publish(Audience::One { member: member(who), id: 0x8765_4321 });
            }
            Step::Ack(who, back) => {
                let id = self.outbound.next_id.wrapping_sub(back);
                let in_buffer = self.outbound.keys.contains_key(&id);
                if in_buffer {
                    self.acknowledged(&member(who), id);
                }
                self.outbound.ack(self.now, &member(who), id)
            }
            Step::Rtx(who, back) => {
                let id = self.outbound.next_id.wrapping_sub(back);
                let request = self.requests.get(&id).map(|&request| &self.expected[request]);
                let found = self.outbound.rtx_request(self.now, &member(who), id);
                let member = member(who);
                prop_assert!(found.is_none() || request.unwrap().audience.contains(&member));
                Vec::new()
            }
            Step::Gone(who) => self.outbound.member_gone(&member(who)),
            Step::Presence(who, true) => {
                self.restarts += 1;
                self.outbound.member_online(self.now, &member(who))
            }
            Step::Presence(who, false) => self.outbound.member_offline(&member(who)),
            Step::Link(true) => {
                self.restarts += 1;
                self.outbound.resume(self.now);
                Vec::new()
            }
            Step::Link(false) => {
                self.outbound.pause();
                Vec::new()
            }
            Step::Pass(milliseconds) => {
                let until = self.now + Duration::from_millis(milliseconds.into());
                while let Some(due) = self.outbound.next_deadline().filter(|&due| due <= until) {
                    self.now = due.max(self.now);
                    let actions = self.outbound.tick(self.now);
                    self.carry_out(actions)?;
                }
                self.now = until;
                Vec::new()
            }
        };
        self.carry_out(actions)
    }
}

proptest! {
    /// Whatever happens, each publish is reported once and truthfully, nobody gets
    /// copies of what it has, and while somebody is awaited there is a deadline.
    #[test]
    fn each_publish_ends_in_one_true_report(
        max_retries in 0u32..4,
        steps in collection::vec(any_step(), 1..120),
    ) {
        let mut conversation = Conversation {
            outbound: reliable(max_retries),
            now: Duration::ZERO,
            expected: Vec::new(),
            requests: BTreeMap::new(),
            max_retries,
            restarts: 0,
        };
        for step in steps {
            conversation.step(step)?;
        }
        // With the link up, time alone finishes everything.
        conversation.step(Step::Link(true))?;
        conversation.step(Step::Pass((max_retries + 3) * 1000))?;
        prop_assert_eq!(conversation.outbound.open(), 0);
        prop_assert_eq!(conversation.outbound.next_deadline(), None);
        for expected in &conversation.expected {
            prop_assert_eq!(expected.reports, 1);
            let limit = (conversation.max_retries + 1) * (conversation.restarts + 1);
            prop_assert!(expected.copies.values().all(|&copies| copies <= limit));
        }
    }
}
