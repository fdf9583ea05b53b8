//! Facts about the receiver's side, then random arrivals, then both sides over a
//! network that loses, repeats and reorders.

use std::collections::BTreeSet;

use bytes::Bytes;
use proptest::{collection, prelude::*};
use slim_proto::NameId;

use super::*;
use crate::outbound::{self, Audience, Outbound, To};
use crate::{DeliveryReport, Outgoing, RequestId};

const P: Duration = Duration::from_secs(1);
const TOP: u32 = ID_MASK;

fn at(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// An instance of one application, named by one letter.
fn name(letter: char) -> Name {
    Name::new("org", "ns", "app").unwrap().with_id(NameId(letter as u128))
}

/// The payload says which message it is.
fn message(source: char, id: u32) -> ReceivedMessage {
    ReceivedMessage {
        source: name(source),
        payload: Bytes::copy_from_slice(&id.to_be_bytes()),
        payload_type: "msg".into(),
        metadata: BTreeMap::new(),
        to_me: false,
    }
}

fn id_of(message: &ReceivedMessage) -> u32 {
    u32::from_be_bytes(message.payload[..4].try_into().unwrap())
}

fn timers(max_retries: u32) -> Timers {
    Timers { timeout: P, max_retries }
}

fn group() -> Inbound {
    Inbound::new(Some(timers(1)), false)
}

fn p2p() -> Inbound {
    Inbound::new(Some(timers(1)), true)
}

/// Actions in short: `a1` delivers 1 of a, `a-2` two of a are lost, `a?1` asks a for 1.
fn brief(actions: &[Action]) -> Vec<String> {
    let letter = |name: &Name| char::from(name.id().0 as u8);
    let show = |action: &Action| match action {
        Action::Deliver(message) => format!("{}{}", letter(&message.source), id_of(message)),
        Action::Lost { source, count } => format!("{}-{count}", letter(source)),
        Action::Request { source, id } => format!("{}?{id}", letter(source)),
    };
    actions.iter().map(show).collect()
}

fn check(actions: Vec<Action>, expected: &[&str]) {
    assert_eq!(brief(&actions), expected);
}

/// Message `id` of a arrives at `seconds`.
fn check_new(inbound: &mut Inbound, seconds: f64, id: u32, expected: &[&str]) {
    let (arrival, actions) = inbound.receive(at(seconds), id, message('a', id));
    assert_eq!((brief(&actions), arrival), (to_strings(expected), Arrival::New), "{id}");
}

fn check_duplicate(inbound: &mut Inbound, id: u32) {
    let (arrival, actions) = inbound.receive(at(0.), id, message('a', id));
    assert_eq!((brief(&actions), arrival), (Vec::new(), Arrival::Duplicate), "{id}");
}

/// A reply that fills a gap.
fn check_reply(inbound: &mut Inbound, id: u32, expected: &[&str]) {
    let (arrival, actions) = inbound.reply(id, message('a', id));
    assert_eq!((brief(&actions), arrival), (to_strings(expected), Arrival::New), "{id}");
}

/// A reply that means nothing.
fn check_idle_reply(inbound: &mut Inbound, source: char, id: u32) {
    let reply = inbound.reply(id, message(source, id));
    assert_eq!(reply, (Arrival::Duplicate, Vec::new()), "{id}");
}

/// Message `id` of a arrives, cannot be delivered any more, and is told as lost.
fn check_told_lost(inbound: &mut Inbound, id: u32) {
    let (arrival, actions) = inbound.receive(at(0.), id, message('a', id));
    assert_eq!((brief(&actions), arrival), (to_strings(&["a-1"]), Arrival::Duplicate), "{id}");
}

fn to_strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|&item| item.to_owned()).collect()
}

// ---------------------------------------------------------------- order

#[test]
fn messages_in_order_pass() {
    let mut inbound = p2p();
    for id in 1..=3 {
        check_new(&mut inbound, 0., id, &[&format!("a{id}")]);
    }
    assert_eq!(inbound.next_deadline(), None);
}

#[test]
fn a_gap_is_asked_for_once_and_holds_back_what_follows() {
    let mut inbound = p2p();
    check_new(&mut inbound, 0., 1, &["a1"]);
    check_new(&mut inbound, 0., 4, &["a?2", "a?3"]);
    check_new(&mut inbound, 0., 6, &["a?5"]);
    check_new(&mut inbound, 0., 3, &[]);
    check_new(&mut inbound, 0., 2, &["a2", "a3", "a4"]);
    assert_eq!(inbound.next_deadline(), Some(P));
    check_new(&mut inbound, 0., 5, &["a5", "a6"]);
    assert_eq!(inbound.next_deadline(), None);
    assert_eq!(inbound.bytes, 0);
}

#[test]
fn duplicates_are_told_and_dropped() {
    let mut inbound = p2p();
    check_new(&mut inbound, 0., 1, &["a1"]);
    check_new(&mut inbound, 0., 3, &["a?2"]);
    for id in [0, 1, 3, TOP] {
        check_duplicate(&mut inbound, id);
    }
    check_new(&mut inbound, 0., 2, &["a2", "a3"]);
    for id in [1, 2, 3] {
        check_duplicate(&mut inbound, id);
    }
}

#[test]
fn a_point_to_point_stream_starts_at_one() {
    check_new(&mut p2p(), 0., 3, &["a?1", "a?2"]);
}

#[test]
fn a_group_stream_starts_at_the_first_arrival() {
    let mut inbound = group();
    check_new(&mut inbound, 0., 7, &["a7"]);
    check_new(&mut inbound, 0., 9, &["a?8"]);
    let mut inbound = group();
    check_new(&mut inbound, 0., 0, &["a0"]);
    check_new(&mut inbound, 0., 1, &["a1"]);
}

#[test]
fn what_lies_before_the_start_is_told_as_lost_once() {
    let mut inbound = group();
    let window = WINDOW as u32;
    let start = 300_u32;
    check_new(&mut inbound, 0., start, &["a300"]);
    check_told_lost(&mut inbound, start - 1);
    check_new(&mut inbound, 0., start + 3, &["a?301", "a?302"]);
    // Also while something waits, and wherever the stream has got to.
    check_told_lost(&mut inbound, start - 2);
    assert_eq!(inbound.reply_lost(&name('a'), 302), []);
    check_reply(&mut inbound, 301, &["a301", "a-1", "a303"]);
    check_told_lost(&mut inbound, 0);
    check_told_lost(&mut inbound, TOP);
    for id in [TOP, 0, start - 2, start - 1] {
        check_duplicate(&mut inbound, id);
    }
    // What the stream has passed on, as itself or as lost, is told already.
    for id in [start, 301, 302, 303] {
        check_duplicate(&mut inbound, id);
    }
    for id in 304..300 + window {
        check_new(&mut inbound, 0., id, &[&format!("a{id}")]);
    }
    check_duplicate(&mut inbound, start);
    for id in TOP - 1000..=TOP {
        inbound.receive(at(0.), id, message('a', id));
    }
    assert_eq!(inbound.streams[&name('a').route()].told.len(), 4);
}

/// One of the same number, but not the same.
fn other(id: u32) -> ReceivedMessage {
    ReceivedMessage { payload: Bytes::from(vec![7; 9]), ..message('a', id) }
}

#[test]
fn who_counts_anew_starts_a_new_stream() {
    let mut inbound = group();
    for id in 1..=3 {
        check_new(&mut inbound, 0., id, &[&format!("a{id}")]);
    }
    check_new(&mut inbound, 0., 5, &["a?4"]);
    check_duplicate(&mut inbound, 2);
    // The same number, but not the same message: what waited is passed on, and the
    // first that we did not have is asked for.
    let (arrival, actions) = inbound.receive(at(0.), 2, other(2));
    assert_eq!((brief(&actions), arrival), (to_strings(&["a-1", "a5", "a?1"]), Arrival::New));
    let (arrival, actions) = inbound.receive(at(0.), 1, message('a', 1));
    assert_eq!(arrival, Arrival::New);
    assert_eq!(actions.len(), 2, "{actions:?}");
    check_new(&mut inbound, 0., 3, &["a3"]);
    check_duplicate(&mut inbound, 3);
    check_duplicate(&mut inbound, 0);
}

#[test]
fn who_counts_anew_after_many_messages_starts_a_new_stream() {
    let mut inbound = group();
    let many = 10 + WINDOW as u32;
    for id in 1..=many {
        check_new(&mut inbound, 0., id, &[&format!("a{id}")]);
    }
    assert_eq!(inbound.streams[&name('a').route()].recent.len(), WINDOW);
    check_duplicate(&mut inbound, many - WINDOW as u32 + 1);
    // Even with the same content: no sender has it any more.
    check_new(&mut inbound, 0., 2, &["a?1"]);
    check_new(&mut inbound, 0., 1, &["a1", "a2"]);
}

/// A group of which the second message is lost.
fn without_the_second() -> Inbound {
    let mut inbound = group();
    check_new(&mut inbound, 0., 1, &["a1"]);
    check_new(&mut inbound, 0., 3, &["a?2"]);
    check(inbound.reply_lost(&name('a'), 2), &["a-1", "a3"]);
    inbound
}

#[test]
fn a_lost_message_that_comes_late_is_no_new_count() {
    let mut inbound = without_the_second();
    check_duplicate(&mut inbound, 2);
    inbound.expect_new_counts();
    check_new(&mut inbound, 0., 4, &["a4"]);
}

#[test]
fn what_comes_in_the_place_of_a_lost_one_after_we_were_away_is_told_as_lost() {
    let mut inbound = without_the_second();
    inbound.expect_new_counts();
    let (arrival, actions) = inbound.receive(at(0.), 2, other(2));
    assert_eq!((arrival, brief(&actions)), (Arrival::Duplicate, to_strings(&["a-1"])));
    assert_eq!(inbound.receive(at(0.), 2, other(2)), (Arrival::Duplicate, Vec::new()));
    // Here it shows that it counts anew, and what is missing is asked for.
    let (arrival, actions) = inbound.receive(at(0.), 3, other(3));
    assert_eq!((arrival, brief(&actions)), (Arrival::New, to_strings(&["a?1", "a?2"])));
}

#[test]
fn a_new_count_that_begins_before_the_start_starts_a_new_stream() {
    let mut inbound = group();
    check_new(&mut inbound, 0., 4, &["a4"]);
    check_told_lost(&mut inbound, 1);
    check_duplicate(&mut inbound, 1);
    let (arrival, actions) = inbound.receive(at(0.), 1, other(1));
    assert_eq!((arrival, actions), (Arrival::New, vec![Action::Deliver(other(1))]));
    // Of the count before, which is over.
    assert!(inbound.streams[&name('a').route()].told.is_empty());
}

#[test]
fn a_peer_has_no_other_count() {
    let mut inbound = p2p();
    check_new(&mut inbound, 0., 2, &["a?1"]);
    check(inbound.reply_lost(&name('a'), 1), &["a-1", "a2"]);
    inbound.expect_new_counts();
    check_duplicate(&mut inbound, 1);
}

#[test]
fn what_comes_round_again_does_not_lie_before_the_start() {
    let mut inbound = group();
    let quarter = 1 << 29;
    for id in [quarter, 2 * quarter, 3 * quarter, 0, quarter - 9] {
        assert_eq!(inbound.receive(at(0.), id, message('a', id)).0, Arrival::New, "{id}");
    }
    check_duplicate(&mut inbound, quarter - 9);
    check_duplicate(&mut inbound, quarter - 10);
}

#[test]
fn a_point_to_point_stream_has_nothing_before_its_start() {
    let mut inbound = p2p();
    check_duplicate(&mut inbound, 0);
    check_duplicate(&mut inbound, TOP);
    check_new(&mut inbound, 0., 1, &["a1"]);
    check_duplicate(&mut inbound, 0);
}

#[test]
fn the_stream_of_who_joined_after_us_starts_at_one() {
    let mut inbound = group();
    inbound.expect_first(&name('a'));
    check_new(&mut inbound, 0., 3, &["a?1", "a?2"]);
    inbound.expect_first(&name('a'));
    check_new(&mut inbound, 0., 1, &["a1"]);
    check_new(&mut inbound, 0., 2, &["a2", "a3"]);
    check_duplicate(&mut inbound, 0);
    check(inbound.receive(at(0.), 7, message('b', 7)).1, &["b7"]);
}

#[test]
fn each_sender_has_its_stream() {
    let mut inbound = group();
    check_new(&mut inbound, 0., 5, &["a5"]);
    check(inbound.receive(at(0.), 1, message('b', 1)).1, &["b1"]);
    check_new(&mut inbound, 0., 7, &["a?6"]);
    check(inbound.receive(at(0.), 2, message('b', 2)).1, &["b2"]);
    // The readable parts of the name do not count.
    let mut bare = message('a', 6);
    bare.source = bare.source.without_text();
    check(inbound.receive(at(0.), 6, bare).1, &["a6", "a7"]);
}

#[test]
fn ids_wrap_to_zero() {
    let mut inbound = group();
    check_new(&mut inbound, 0., TOP - 1, &[&format!("a{}", TOP - 1)]);
    check_new(&mut inbound, 0., 1, &[&format!("a?{TOP}"), "a?0"]);
    check_new(&mut inbound, 0., 0, &[]);
    check_new(&mut inbound, 0., TOP, &[&format!("a{TOP}"), "a0", "a1"]);
    check_duplicate(&mut inbound, TOP);
}

#[test]
fn half_the_circle_is_ahead() {
    let start = |id| {
        let mut inbound = group();
        inbound.receive(at(0.), 10, message('a', 10));
        inbound.receive(at(0.), id, message('a', id)).0
    };
    assert_eq!(start(10 + (1 << 30)), Arrival::New);
    assert_eq!(start(11 + (1 << 30)), Arrival::Duplicate);
}

#[test]
fn unreliable_messages_pass_as_they_come() {
    let mut inbound = Inbound::new(None, true);
    for id in [5, 5, 1, u32::MAX] {
        check_new(&mut inbound, 0., id, &[&format!("a{id}")]);
    }
    check(inbound.receive_direct(5, message('a', 5)).1, &["a5"]);
    check(inbound.receive_direct(5, message('a', 5)).1, &["a5"]);
    assert!(inbound.streams.is_empty() && inbound.direct.is_empty());
    assert_eq!(inbound.next_deadline(), None);
}

// ---------------------------------------------------------------- asking again

#[test]
fn what_is_missing_is_asked_for_until_it_is_lost() {
    let mut inbound = p2p();
    check_new(&mut inbound, 0., 3, &["a?1", "a?2"]);
    check_new(&mut inbound, 0.5, 5, &["a?4"]);
    assert_eq!(inbound.next_deadline(), Some(at(1.)));
    check(inbound.tick(at(0.9)), &[]);
    check(inbound.tick(at(1.)), &["a?1", "a?2"]);
    check(inbound.tick(at(1.5)), &["a?4"]);
    check(inbound.tick(at(2.)), &["a-2", "a3"]);
    assert_eq!(inbound.next_deadline(), Some(at(2.5)));
    check(inbound.tick(at(2.5)), &["a-1", "a5"]);
    assert_eq!(inbound.next_deadline(), None);
    check_duplicate(&mut inbound, 4);
}

#[test]
fn a_late_tick_asks_once() {
    let mut inbound = p2p();
    check_new(&mut inbound, 0., 2, &["a?1"]);
    check(inbound.tick(at(60.)), &["a?1"]);
    assert_eq!(inbound.next_deadline(), Some(at(61.)));
}

#[test]
fn a_loss_behind_a_gap_waits_for_its_place() {
    let mut inbound = p2p();
    check_new(&mut inbound, 0., 1, &["a1"]);
    check_new(&mut inbound, 0., 5, &["a?2", "a?3", "a?4"]);
    check(inbound.reply_lost(&name('a'), 3), &[]);
    check(inbound.reply_lost(&name('a'), 4), &[]);
    // Until then it may still come by itself.
    check_new(&mut inbound, 0., 4, &[]);
    check_reply(&mut inbound, 2, &["a2", "a-1", "a4", "a5"]);
}

#[test]
fn replies_mean_something_only_if_asked_for() {
    let mut inbound = p2p();
    check_idle_reply(&mut inbound, 'a', 1);
    check(inbound.reply_lost(&name('a'), 1), &[]);
    check_new(&mut inbound, 0., 1, &["a1"]);
    check_new(&mut inbound, 0., 3, &["a?2"]);
    for id in [0, 1, 3, 4, 5000, 2 | 1 << 31] {
        check_idle_reply(&mut inbound, 'a', id);
        check(inbound.reply_lost(&name('a'), id), &[]);
    }
    check_idle_reply(&mut inbound, 'b', 2);
    check_reply(&mut inbound, 2, &["a2", "a3"]);
    check_idle_reply(&mut inbound, 'a', 2);

    check_new(&mut inbound, 0., 5, &["a?4"]);
    check(inbound.reply_lost(&name('b'), 4), &[]);
    check(inbound.reply_lost(&name('a'), 4), &["a-1", "a5"]);
    check(inbound.reply_lost(&name('a'), 4), &[]);
    check_idle_reply(&mut inbound, 'a', 4);

    // One that is filled, but waits behind another.
    check_new(&mut inbound, 0., 8, &["a?6", "a?7"]);
    check_reply(&mut inbound, 7, &[]);
    check_idle_reply(&mut inbound, 'a', 7);
    check_reply(&mut inbound, 6, &["a6", "a7", "a8"]);
}

#[test]
fn timers_stand_still_without_a_link() {
    let mut inbound = p2p();
    check_new(&mut inbound, 0., 2, &["a?1"]);
    check(inbound.tick(at(1.)), &["a?1"]);
    inbound.pause();
    assert_eq!(inbound.next_deadline(), None);
    check(inbound.tick(at(50.)), &[]);
    inbound.resume(at(100.));
    assert_eq!(inbound.next_deadline(), Some(at(100.)));
    check(inbound.tick(at(100.)), &["a?1"]);
    check(inbound.tick(at(101.)), &["a?1"]);
    check(inbound.tick(at(102.)), &["a-1", "a2"]);
}

// ---------------------------------------------------------------- direct messages

#[test]
fn direct_messages_pass_at_once_and_once() {
    let mut inbound = group();
    check_new(&mut inbound, 0., 1, &["a1"]);
    check_new(&mut inbound, 0., 3, &["a?2"]);
    let id = 3_000_000_000;
    check(inbound.receive_direct(id, message('a', id)).1, &["a3000000000"]);
    assert_eq!(inbound.receive_direct(id, message('a', id)), (Arrival::Duplicate, Vec::new()));
    // Even without the mark that it is one.
    check_duplicate(&mut inbound, id);
    check(inbound.receive_direct(id, message('b', id)).1, &["b3000000000"]);
    check_new(&mut inbound, 0., 2, &["a2", "a3"]);
}

#[test]
fn the_memory_of_direct_messages_is_bounded() {
    let mut inbound = group();
    let first = 1 << 31;
    for id in first..=first + DIRECT_MEMORY as u32 {
        assert_eq!(inbound.receive_direct(id, message('a', id)).0, Arrival::New);
    }
    assert_eq!(inbound.direct[&name('a').route()].len(), DIRECT_MEMORY);
    assert_eq!(inbound.receive_direct(first + 1, message('a', 0)).0, Arrival::Duplicate);
    assert_eq!(inbound.receive_direct(first, message('a', 0)).0, Arrival::New);
}

// ---------------------------------------------------------------- bounds

#[test]
fn a_far_jump_restarts_the_stream() {
    let mut inbound = group();
    check_new(&mut inbound, 0., 1, &["a1"]);
    check_new(&mut inbound, 0., 3000, &["a-2998", "a3000"]);
    check_new(&mut inbound, 0., 3001, &["a3001"]);
    check_duplicate(&mut inbound, 2999);
    assert_eq!(inbound.next_deadline(), None);

    // With something behind a gap, that is delivered first.
    check_new(&mut inbound, 0., 3003, &["a?3002"]);
    check_new(&mut inbound, 0., 9000, &["a-1", "a3003", "a-5996", "a9000"]);
    assert_eq!((inbound.next_deadline(), inbound.bytes), (None, 0));
}

#[test]
fn the_farthest_jump_within_the_span_is_asked_for() {
    let span = SPAN as u32;
    let mut inbound = p2p();
    let (_, actions) = inbound.receive(at(0.), span, message('a', span));
    assert_eq!(actions.len(), SPAN - 1);
    let mut inbound = p2p();
    check_new(&mut inbound, 0., span + 1, &["a-1024", "a1025"]);
}

#[test]
fn a_full_stream_gives_up_its_oldest_gap() {
    let span = SPAN as u32;
    let mut inbound = p2p();
    check_new(&mut inbound, 0., 2, &["a?1"]);
    check_new(&mut inbound, 0., 4, &["a?3"]);
    for id in 5..=span {
        check_new(&mut inbound, 0., id, &[]);
    }
    check_new(&mut inbound, 0., span + 1, &["a-1", "a2"]);
    assert_eq!(inbound.streams[&name('a').route()].slots.len(), SPAN - 1);
    let (_, actions) = inbound.receive(at(0.), span + 4, message('a', span + 4));
    let actions = brief(&actions);
    assert_eq!(actions[..2], ["a-1", "a4"]);
    assert_eq!(actions[actions.len() - 3..], ["a1025", "a?1026", "a?1027"]);
}

#[test]
fn the_stream_that_holds_most_makes_room() {
    let mut inbound = group();
    let large = |source, id| ReceivedMessage {
        payload: Bytes::from(vec![0; BUFFER_BYTES / 3]),
        ..message(source, id)
    };
    for source in ['a', 'b'] {
        inbound.receive(at(0.), 1, message(source, 1));
        inbound.receive(at(0.), 3, large(source, 3));
    }
    let (_, actions) = inbound.receive(at(0.), 5, large('a', 5));
    check_lengths(&actions, &["request 4", "lost a 1", "deliver a"]);
    assert!(inbound.bytes <= BUFFER_BYTES);
    // The other one still waits for what it misses.
    let (_, actions) = inbound.reply(2, message('b', 2));
    check_lengths(&actions, &["deliver b", "deliver b"]);
}

/// Like [`brief`] for payloads without an id.
fn check_lengths(actions: &[Action], expected: &[&str]) {
    let letter = |name: &Name| char::from(name.id().0 as u8);
    let show = |action: &Action| match action {
        Action::Deliver(message) => format!("deliver {}", letter(&message.source)),
        Action::Lost { source, count } => format!("lost {} {count}", letter(source)),
        Action::Request { id, .. } => format!("request {id}"),
    };
    assert_eq!(actions.iter().map(show).collect::<Vec<_>>(), expected);
}

// ---------------------------------------------------------------- the end of a stream

#[test]
fn what_waits_is_delivered_when_its_sender_is_gone() {
    let mut inbound = group();
    for id in [1, 3, 6] {
        inbound.receive(at(0.), id, message('a', id));
        inbound.receive(at(0.), id, message('b', id));
    }
    check(inbound.forget(&name('a')), &["a-1", "a3", "a-2", "a6"]);
    check(inbound.forget(&name('a')), &[]);
    check(inbound.forget(&name('c')), &[]);
    check_new(&mut inbound, 0., 1, &["a1"]);
    check(inbound.forget_all(), &["b-1", "b3", "b-2", "b6"]);
    assert_eq!((inbound.next_deadline(), inbound.bytes), (None, 0));
    assert!(inbound.streams.is_empty());
}

#[test]
fn a_sender_that_is_gone_may_use_its_direct_ids_again() {
    let mut inbound = group();
    let id = 1 << 31;
    assert_eq!(inbound.receive_direct(id, message('a', id)).0, Arrival::New);
    inbound.forget(&name('a'));
    assert_eq!(inbound.receive_direct(id, message('a', id)).0, Arrival::New);
    inbound.forget_all();
    assert_eq!(inbound.receive_direct(id, message('a', id)).0, Arrival::New);
}

// ---------------------------------------------------------------- random arrivals

#[derive(Clone, Debug)]
enum Step {
    /// So many ids after (or before) the highest so far.
    Message(char, i32),
    Reply(char, i32),
    ReplyLost(char, i32),
    Forget(char),
    Link(bool),
    Pass(u64),
}

fn any_step() -> impl Strategy<Value = Step> {
    let source = || prop_oneof![Just('a'), Just('b')];
    let near = || prop_oneof![6 => Just(1), 4 => -6..7i32];
    prop_oneof![
        10 => (source(), near()).prop_map(|(source, id)| Step::Message(source, id)),
        1 => (source(), 500..3000i32).prop_map(|(source, id)| Step::Message(source, id)),
        1 => (source(), -500..-6i32).prop_map(|(source, id)| Step::Message(source, id)),
        3 => (source(), -6..3i32).prop_map(|(source, id)| Step::Reply(source, id)),
        1 => (source(), -6..3i32).prop_map(|(source, id)| Step::ReplyLost(source, id)),
        1 => source().prop_map(Step::Forget),
        1 => any::<bool>().prop_map(Step::Link),
        3 => (1..2000u64).prop_map(Step::Pass),
    ]
}

/// What the application has been told about one sender.
#[derive(Debug, Default)]
struct Told {
    highest: u32,
    /// The next id that may be told about; none before the first.
    next: Option<u32>,
    /// Where the stream started, and what arrived from before. Groups only.
    start: Option<u32>,
    too_early: BTreeSet<u32>,
    arrived: BTreeSet<u32>,
    asked: BTreeMap<u32, u32>,
}

struct Listener {
    inbound: Inbound,
    now: Duration,
    told: BTreeMap<Name, Told>,
    restarts: u32,
}

impl Listener {
    /// Each id is told about once, in order, as itself or as lost.
    fn take(&mut self, actions: Vec<Action>) -> Result<(), TestCaseError> {
        for action in actions {
            match action {
                Action::Deliver(message) => {
                    let told = self.told.entry(message.source.clone()).or_default();
                    let id = id_of(&message);
                    prop_assert_eq!(told.next.unwrap_or(id), id);
                    prop_assert!(told.arrived.contains(&id), "nobody sent {}", id);
                    told.next = Some((id + 1) & ID_MASK);
                }
                Action::Lost { source, count } => {
                    let told = self.told.entry(source).or_default();
                    prop_assert!(count > 0);
                    told.next = told.next.map(|next| (next + count) & ID_MASK);
                }
                Action::Request { source, id } => {
                    let told = self.told.entry(source).or_default();
                    prop_assert!(!told.arrived.contains(&id), "{} has arrived", id);
                    *told.asked.entry(id).or_default() += 1;
                }
            }
        }
        let mut bytes = 0;
        let mut missing = 0;
        for stream in self.inbound.streams.values() {
            prop_assert!(stream.slots.len() <= SPAN);
            prop_assert!(matches!(stream.slots.front(), None | Some(Slot::Missing(_))));
            for slot in &stream.slots {
                match slot {
                    Slot::Missing(_) => missing += 1,
                    Slot::Lost => {}
                    Slot::Message(message) => bytes += size(message),
                }
            }
        }
        prop_assert_eq!(self.inbound.bytes, bytes);
        let has_deadline = self.inbound.next_deadline().is_some();
        prop_assert_eq!(has_deadline, missing > 0 && !self.inbound.paused);
        Ok(())
    }

    fn step(&mut self, step: Step) -> Result<(), TestCaseError> {
        let id = |told: &Told, offset: i32| told.highest.wrapping_add_signed(offset) & ID_MASK;
        let actions = match step {
            Step::Message(source, offset) => {
                let told = self.told.entry(name(source)).or_default();
                let id = id(told, offset);
                let known = told.next.is_some_and(|next| id.wrapping_sub(next) & ID_MASK > 1 << 30);
                if offset > 0 {
                    told.highest = id;
                }
                let is_new = !known && told.arrived.insert(id);
                if told.next.is_none() {
                    told.start = Some(id);
                }
                let before_start = told.start.map(|start| start.wrapping_sub(id) & ID_MASK);
                let is_too_early = before_start.is_some_and(|n| (1..=WINDOW as u32).contains(&n))
                    && told.too_early.insert(id);
                let (arrival, actions) = self.inbound.receive(self.now, id, message(source, id));
                prop_assert_eq!(arrival == Arrival::New, is_new);
                if arrival == Arrival::Duplicate {
                    let lost = Action::Lost { source: name(source), count: 1 };
                    let expected = if is_too_early { vec![lost] } else { Vec::new() };
                    prop_assert_eq!(actions, expected);
                    return Ok(());
                }
                actions
            }
            Step::Reply(source, offset) => {
                let told = self.told.entry(name(source)).or_default();
                let id = id(told, offset);
                let is_missing =
                    self.inbound.streams.get(&name(source).route()).is_some_and(|stream| {
                        let slot = stream.index(id).and_then(|index| stream.slots.get(index));
                        matches!(slot, Some(Slot::Missing(_)))
                    });
                let (arrival, actions) = self.inbound.reply(id, message(source, id));
                prop_assert_eq!(arrival == Arrival::New, is_missing);
                let told = self.told.entry(name(source)).or_default();
                if is_missing {
                    prop_assert!(told.asked.contains_key(&id));
                    prop_assert!(told.arrived.insert(id));
                } else {
                    prop_assert!(actions.is_empty());
                }
                actions
            }
            Step::ReplyLost(source, offset) => {
                let id = id(self.told.entry(name(source)).or_default(), offset);
                self.inbound.reply_lost(&name(source), id)
            }
            Step::Forget(source) => {
                let actions = self.inbound.forget(&name(source));
                self.take(actions)?;
                let told = self.told.entry(name(source)).or_default();
                *told = Told { highest: told.highest, ..Told::default() };
                Vec::new()
            }
            Step::Link(true) => {
                self.restarts += 1;
                self.inbound.resume(self.now);
                Vec::new()
            }
            Step::Link(false) => {
                self.inbound.pause();
                Vec::new()
            }
            Step::Pass(milliseconds) => {
                let until = self.now + Duration::from_millis(milliseconds);
                while let Some(due) = self.inbound.next_deadline().filter(|&due| due <= until) {
                    self.now = due.max(self.now);
                    let actions = self.inbound.tick(self.now);
                    self.take(actions)?;
                }
                self.now = until;
                Vec::new()
            }
        };
        self.take(actions)
    }
}

proptest! {
    /// Whatever arrives in whatever order: each message is told about once, in
    /// order, and time alone finishes what is missing.
    #[test]
    fn each_message_is_delivered_or_lost_once_and_in_order(
        is_p2p in any::<bool>(),
        start in prop_oneof![Just(0), Just(TOP - 5), 0..TOP],
        max_retries in 0u32..3,
        steps in collection::vec(any_step(), 1..150),
    ) {
        let mut listener = Listener {
            inbound: Inbound::new(Some(timers(max_retries)), is_p2p),
            now: Duration::ZERO,
            told: BTreeMap::new(),
            restarts: 0,
        };
        for source in ['a', 'b'] {
            let told = listener.told.entry(name(source)).or_default();
            if is_p2p {
                told.next = Some(1);
            } else {
                told.highest = start;
            }
        }
        for step in steps {
            // Forgetting a point-to-point peer ends the session.
            if !(is_p2p && matches!(step, Step::Forget(_))) {
                listener.step(step)?;
            }
        }
        listener.step(Step::Link(true))?;
        listener.step(Step::Pass(1000 * u64::from(max_retries + 3)))?;
        prop_assert_eq!(listener.inbound.next_deadline(), None);
        for (source, told) in &listener.told {
            if let Some(stream) = listener.inbound.streams.get(&source.route()) {
                prop_assert!(stream.slots.is_empty());
                prop_assert_eq!(told.next, Some((stream.last + 1) & ID_MASK));
            }
            let limit = (max_retries + 1) * (listener.restarts + 1);
            prop_assert!(told.asked.values().all(|&times| times <= limit));
        }
    }
}

// ---------------------------------------------------------------- both sides

/// What is on its way between the sender s and a receiver.
#[derive(Clone, Debug)]
enum Packet {
    Msg(u32, Bytes),
    Ack(u32),
    Rtx(u32),
    Reply(u32, Option<Bytes>),
}

struct Receiver {
    inbound: Inbound,
    /// The id at which the stream starts.
    start: Option<u32>,
    delivered: Vec<u32>,
    /// How many in their place.
    lost: u32,
    /// Told as lost, from before the start.
    too_early: BTreeSet<u32>,
}

/// A sender and receivers on a network that may lose, repeat and delay packets.
struct Network {
    now: Duration,
    sender: Outbound,
    receivers: BTreeMap<char, Receiver>,
    /// By arrival; the number keeps packets of the same time apart.
    packets: BTreeMap<(Duration, u64), (char, Packet)>,
    sent: u64,
    reports: BTreeMap<u64, DeliveryReport>,
    random: u64,
    loss_percent: u64,
}

impl Network {
    /// xorshift64; below `limit`.
    fn random(&mut self, limit: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % limit
    }

    fn transmit(&mut self, member: char, packet: Packet) {
        let copies = if self.random(100) < self.loss_percent {
            0
        } else {
            1 + u64::from(self.random(10) == 0)
        };
        for _ in 0..copies {
            let arrival = self.now + Duration::from_millis(1 + self.random(1500));
            self.packets.insert((arrival, self.sent), (member, packet.clone()));
            self.sent += 1;
        }
    }

    fn sender_does(&mut self, actions: Vec<outbound::Action>) {
        for action in actions {
            match action {
                outbound::Action::Send { id, to, message } => {
                    let packet = Packet::Msg(id, message.payload.clone());
                    let members: Vec<char> = match to {
                        To::All => self.receivers.keys().copied().collect(),
                        To::One(name) => vec![char::from(name.id().0 as u8)],
                    };
                    for member in members {
                        self.transmit(member, packet.clone());
                    }
                }
                // Everybody is online all the time here.
                outbound::Action::Silent(name) => {
                    let actions = self.sender.member_online(self.now, &name);
                    self.sender_does(actions);
                }
                outbound::Action::Done { request, report } => {
                    assert_eq!(self.reports.insert(request.0, report), None);
                }
            }
        }
    }

    fn receiver_does(&mut self, member: char, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Deliver(message) => {
                    if let Some(receiver) = self.receivers.get_mut(&member) {
                        receiver.delivered.push(id_of(&message));
                    }
                }
                Action::Lost { count, .. } => {
                    if let Some(receiver) = self.receivers.get_mut(&member) {
                        receiver.lost += count;
                    }
                }
                Action::Request { id, .. } => self.transmit(member, Packet::Rtx(id)),
            }
        }
    }

    fn arrive(&mut self, member: char, packet: Packet) {
        let (now, from) = (self.now, name(member));
        let message = |payload| ReceivedMessage { payload, ..message('s', 0) };
        let Some(receiver) = self.receivers.get_mut(&member) else { return };
        match packet {
            Packet::Msg(id, payload) => {
                let start = *receiver.start.get_or_insert(id);
                let (arrival, mut actions) = receiver.inbound.receive(now, id, message(payload));
                if arrival == Arrival::Duplicate && !actions.is_empty() {
                    assert_eq!(actions, [Action::Lost { source: name('s'), count: 1 }]);
                    assert!(id < start && receiver.too_early.insert(id), "{id}");
                    actions.clear();
                }
                self.transmit(member, Packet::Ack(id));
                self.receiver_does(member, actions);
            }
            Packet::Reply(id, Some(payload)) => {
                let (arrival, actions) = receiver.inbound.reply(id, message(payload));
                if arrival == Arrival::New {
                    self.transmit(member, Packet::Ack(id));
                }
                self.receiver_does(member, actions);
            }
            Packet::Reply(id, None) => {
                let actions = receiver.inbound.reply_lost(&name('s'), id);
                self.receiver_does(member, actions);
            }
            Packet::Ack(id) => {
                let actions = self.sender.ack(now, &from, id);
                self.sender_does(actions);
            }
            Packet::Rtx(id) => {
                let found = self.sender.rtx_request(now, &from, id);
                self.transmit(member, Packet::Reply(id, found.map(|found| found.payload.clone())));
            }
        }
    }

    /// Until this time, or until nothing is left to do.
    fn run(&mut self, until: Duration) {
        loop {
            let packet = self.packets.first_key_value().map(|(&(at, _), _)| at);
            let receivers = self.receivers.values().map(|one| one.inbound.next_deadline());
            let next = [packet, self.sender.next_deadline()].into_iter().chain(receivers);
            let Some(next) = next.flatten().min().filter(|&next| next <= until) else { break };
            self.now = self.now.max(next);
            if packet == Some(next) {
                if let Some((_, (member, packet))) = self.packets.pop_first() {
                    self.arrive(member, packet);
                }
                continue;
            }
            let actions = self.sender.tick(self.now);
            self.sender_does(actions);
            let members: Vec<char> = self.receivers.keys().copied().collect();
            for member in members {
                let Some(receiver) = self.receivers.get_mut(&member) else { continue };
                let actions = receiver.inbound.tick(self.now);
                self.receiver_does(member, actions);
            }
        }
        self.now = self.now.max(until.min(self.now + Duration::from_secs(3600)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Over any network: in order, without duplicates, and what the sender reports
    /// as delivered was delivered, or the receiver was told that it is lost.
    #[test]
    fn two_sides_agree(
        seed in 1..u64::MAX,
        loss_percent in 0..60u64,
        count in 1..80u32,
        is_p2p in any::<bool>(),
    ) {
        let sender = Outbound::new(Some(timers(4)));
        let receiver = || Receiver {
            inbound: Inbound::new(Some(timers(4)), is_p2p),
            start: is_p2p.then_some(1),
            delivered: Vec::new(),
            lost: 0,
            too_early: BTreeSet::new(),
        };
        let mut network = Network {
            now: Duration::ZERO,
            sender,
            receivers: ['a', 'b', 'c'].map(|member| (member, receiver())).into(),
            packets: BTreeMap::new(),
            sent: 0,
            reports: BTreeMap::new(),
            random: seed,
            loss_percent,
        };
        for id in 1..=count {
            let message = Outgoing {
                payload: Bytes::copy_from_slice(&id.to_be_bytes()),
                ..Outgoing::default()
            };
            let online = network.receivers.keys().map(|&member| name(member)).collect();
            let audience = Audience::All { online, offline: Vec::new() };
            let request = RequestId(id.into());
            let (_, actions) = network.sender.publish(network.now, request, message, audience);
            network.sender_does(actions);
            let pause = Duration::from_millis(network.random(600));
            network.run(network.now + pause);
        }
        network.run(Duration::MAX);

        prop_assert_eq!(network.reports.len(), count as usize);
        for (&member, receiver) in &network.receivers {
            let Receiver { inbound, start, delivered, lost, too_early } = receiver;
            prop_assert!(delivered.is_sorted_by(|a, b| a < b), "{:?}", delivered);
            // Each from the start to the last, once, as itself or as lost.
            let start = start.unwrap_or(1);
            let last = inbound.streams.values().next().map_or(start - 1, |stream| stream.last);
            prop_assert_eq!(start + delivered.len() as u32 + lost, last + 1);
            if loss_percent == 0 {
                prop_assert_eq!((delivered.len() + too_early.len(), *lost), (count as usize, 0));
            }
            for (&request, report) in &network.reports {
                let id = request as u32;
                if report.delivered.contains(&name(member)) {
                    let is_told = (start..=last).contains(&id) || too_early.contains(&id);
                    prop_assert!(is_told, "{} of {} to {}", id, start, last);
                }
                if loss_percent == 0 {
                    prop_assert_eq!(&report.lost, &[]);
                }
            }
        }
    }
}
