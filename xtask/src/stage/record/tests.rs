//! Ann, who says two lines to Bob, as it should be and with one thing wrong.

use super::*;

const NAMES: [&str; 2] = ["a/b/ann/1", "a/b/bob/2"];
const ANN: MemberId = MemberId(0);
const BOB: MemberId = MemberId(1);

/// Ann, who says "one" and "two" to Bob, of the reference.
fn records() -> Vec<Record> {
    let mut records = vec![
        Record::new("ann", Ours, "a/b/ann".to_owned()),
        Record::new("bob", Side::Theirs, "a/b/bob".to_owned()),
    ];
    for (record, name) in records.iter_mut().zip(NAMES) {
        record.on_line(&format!(r#"{{"event":"connected","name":"{name}"}}"#)).unwrap();
    }
    for text in ["one", "two"] {
        records[ANN.0].said.push(Said {
            listeners: vec![BOB],
            passers_by: Vec::new(),
            acks: Acks::Listeners,
            text: text.to_owned(),
            outcome: None,
        });
    }
    records
}

fn message(source: MemberId, text: &str) -> String {
    let source = NAMES[source.0];
    format!(r#"{{"event":"message","source":"{source}","payload":"{text}"}}"#)
}

fn delivered(line: u32, to: &str) -> String {
    format!(r#"{{"event":"delivered","line":{line},"members":[{to}]}}"#)
}

/// What is wrong if Bob hears these texts, and Ann these outcomes.
fn check(heard: &[&str], outcomes: &[String], expected: Option<&str>) {
    let mut records = records();
    for text in heard {
        records[BOB.0].on_line(&message(ANN, text)).unwrap();
    }
    let told = outcomes.iter().try_for_each(|line| records[ANN.0].on_line(line));
    let error = told.and_then(|()| verdict(&records)).err().map(|error| error.to_string());
    assert_eq!(error.as_deref(), expected);
}

fn all_delivered() -> [String; 2] {
    [delivered(0, r#""a/b/bob/2""#), delivered(1, r#""a/b/bob/2""#)]
}

#[test]
fn what_was_said_is_heard_once_and_in_order() {
    check(&["one", "two"], &all_delivered(), None);
    check(&["one"], &all_delivered(), Some("bob heard ann: missing: two"));
    check(&["one", "two", "two"], &all_delivered(), Some("bob heard ann: repeated: two"));
    check(&["two", "one"], &all_delivered(), Some("bob heard ann: order changed: two, one"));
}

#[test]
fn each_line_has_one_outcome_that_names_its_listeners() {
    let [first, second] = all_delivered();
    let heard = ["one", "two"];
    let check = |outcomes: &[String], expected| check(&heard, outcomes, Some(expected));
    check(std::slice::from_ref(&first), r#"ann has no outcome of "two""#);
    check(&[first.clone(), first.clone()], "a second outcome of line 0");
    check(&[delivered(2, "")], "an outcome of line 2, which it was not given");
    check(
        &[first, delivered(1, "")],
        r#"ann said "two": Delivered({}), which should be {"a/b/bob/2"}, by chance {}"#,
    );
    let lost = second.replace("delivered", "lost");
    check(&[lost], r#"line 1 is lost for {"a/b/bob/2"} "#);
}

#[test]
fn who_is_away_is_named_in_the_loss() {
    let mut records = records();
    records[ANN.0].said.truncate(1);
    records[ANN.0].said[0].acks = Acks::NotThese(vec![BOB]);
    records[BOB.0].on_line(&message(ANN, "one")).unwrap();
    let lost = all_delivered()[0].replace("delivered", "lost");
    records[ANN.0].on_line(&lost).unwrap();
    verdict(&records).unwrap();
}

#[test]
fn who_passes_by_hears_a_line_or_not() {
    let in_passing = |heard: &[&str], outcome: &str| {
        let mut records = records();
        let said = &mut records[ANN.0].said[0];
        said.passers_by = std::mem::take(&mut said.listeners);
        for text in heard {
            records[BOB.0].on_line(&message(ANN, text)).unwrap();
        }
        records[ANN.0].on_line(outcome).unwrap();
        records[ANN.0].on_line(&all_delivered()[1]).unwrap();
        assert!(not_heard(&records).is_empty());
        verdict(&records).map_err(|error| error.to_string())
    };
    let [reached, _] = all_delivered();
    for outcome in [delivered(0, ""), reached.replace("delivered", "lost"), reached] {
        in_passing(&["one", "two"], &outcome).unwrap();
        in_passing(&["two"], &outcome).unwrap();
        let error = in_passing(&["two", "one"], &outcome).unwrap_err();
        assert_eq!(error, "bob heard ann: order changed: two, one");
    }
}

#[test]
fn what_is_missing_is_known_while_one_waits() {
    let mut records = records();
    records[BOB.0].on_line(&message(ANN, "one")).unwrap();
    records[ANN.0].on_line(&all_delivered()[0]).unwrap();
    let expected = ["bob heard 1 of 2 lines of ann", "ann has no outcome of 1 lines"];
    assert_eq!(not_heard(&records), expected);
}

#[test]
fn echoes_come_back_to_the_caller() {
    let mut records = records();
    records[ANN.0].said.clear();
    records[BOB.0].echoes.push(Echo { listener: ANN, text: "one".to_owned() });
    assert_eq!(not_heard(&records), ["ann heard 0 of 1 lines of bob"]);
    records[ANN.0].on_line(&message(BOB, "one")).unwrap();
    verdict(&records).unwrap();
}

#[test]
fn strangers_errors_and_gaps_are_mistakes() {
    let mut records = records();
    records[BOB.0].on_line(&message(ANN, "one").replace("ann", "eve")).unwrap();
    let error = verdict(&records).unwrap_err().to_string();
    assert_eq!(error, "bob heard a stranger, a/b/eve/1");
    let line = r#"{"event":"error","code":"alone","message":"nobody else is in"}"#;
    let error = records[BOB.0].on_line(line).unwrap_err().to_string();
    assert_eq!(error, "error alone: nobody else is in");
    records[BOB.0].tolerates.insert("alone");
    records[BOB.0].on_line(line).unwrap();
    assert!(records[BOB.0].on_line(r#"{"event":"missed","count":1}"#).is_err());
    assert!(records[BOB.0].on_line("listening").is_err());
}

fn check_text(line: &str, expected: &str) {
    assert_eq!(heard_as(&Event(serde_json::from_str(line).unwrap())), expected);
}

#[test]
fn messages_are_compared_with_type_and_metadata() {
    check_text(r#"{"payload":"hi","payload_type":"msg","metadata":{}}"#, "hi");
    check_text(r#"{"payload_base64":"/w==","payload_type":"t"}"#, "base64:/w== [t]");
    check_text(r#"{"payload":"","metadata":{"a":"b"}}"#, r#" {"a":"b"}"#);
}

#[test]
fn long_payloads_that_differ_at_the_end_differ() {
    let text = |end: &str| text_of(&("x".repeat(1000) + end), "msg", "");
    assert_ne!(text("a"), text("b"));
    assert_eq!(text("a"), text("a"));
    assert!(text("a").len() < SHOWN);
}
