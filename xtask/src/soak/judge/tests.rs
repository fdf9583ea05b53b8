//! Ann and Bob, who are in, and Cid, who comes and goes.

use super::*;

const ANN: MemberId = 1;
const BOB: MemberId = 2;
const CID: MemberId = 3;

fn judge() -> (Judge, Instant) {
    let mut judge = Judge::new(false);
    for (id, label) in [(ANN, "ann"), (BOB, "bob"), (CID, "cid")] {
        judge.meet(id, label, &name(label));
    }
    judge.firm(ANN);
    judge.firm(BOB);
    let now = Instant::now();
    for number in 0..3 {
        assert_eq!(judge.say(ANN, now).unwrap(), format!("ann {number}"));
    }
    (judge, now)
}

fn name(label: &str) -> String {
    format!("a/b/{label}/id")
}

fn hears(judge: &mut Judge, listener: MemberId, texts: &[&str]) -> anyhow::Result<()> {
    texts.iter().try_for_each(|text| judge.heard(listener, &name("ann"), text))
}

fn delivered(judge: &mut Judge, number: u64, to: &[&str]) -> anyhow::Result<()> {
    let names: Vec<String> = to.iter().map(|label| name(label)).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    judge.outcome(ANN, number, true, &names)
}

fn wrong(result: anyhow::Result<()>, expected: &str) {
    assert_eq!(result.unwrap_err().to_string(), expected);
}

#[test]
fn what_is_settled_is_forgotten() {
    let (mut judge, now) = judge();
    assert_eq!(judge.open(), 3);
    hears(&mut judge, BOB, &["ann 0", "ann 1 and more", "ann 2"]).unwrap();
    assert!(!judge.has_outcomes(ANN));
    delivered(&mut judge, 1, &["bob"]).unwrap();
    delivered(&mut judge, 0, &["bob", "cid"]).unwrap();
    assert_eq!(judge.open_of(ANN), 1);
    delivered(&mut judge, 2, &["bob"]).unwrap();
    assert_eq!(judge.open(), 0);
    judge.check(now + SETTLED_WITHIN).unwrap();
    let counts = Counts { said: 3, heard: 3, delivered: 3, ..Counts::default() };
    assert_eq!(judge.counts, counts);
}

#[test]
fn twice_disordered_unsaid_and_missing_are_wrong() {
    let cases: [(&[&str], &str); 5] = [
        (&["ann 0", "ann 0"], "line 0 of ann twice"),
        (&["ann 0", "ann 1", "ann 0"], "line 0 of ann after 1"),
        (&["ann 3"], "ann never said \"ann 3\""),
        (&["bob 0"], "ann never said \"bob 0\""),
        (&["ann 0", "ann 2"], "line 2 of ann, but not 1"),
    ];
    for (texts, expected) in cases {
        let (mut judge, _) = judge();
        wrong(hears(&mut judge, BOB, texts), expected);
    }
    let (mut judge, _) = judge();
    wrong(judge.heard(BOB, "a/b/eve/id", "eve 0"), "a stranger: a/b/eve/id");
}

#[test]
fn who_comes_and_goes_may_miss_something() {
    let (mut judge, _) = judge();
    hears(&mut judge, CID, &["ann 1"]).unwrap();
    judge.loosen(BOB);
    hears(&mut judge, BOB, &["ann 2"]).unwrap();
    wrong(hears(&mut judge, CID, &["ann 1"]), "line 1 of ann twice");
    let names = [name("bob")];
    judge.outcome(ANN, 0, false, &[&names[0]]).unwrap();
    assert_eq!(judge.counts.lost, 1);
}

#[test]
fn who_is_taken_out_may_be_heard_in_part() {
    let (mut judge, _) = judge();
    judge.dismiss(ANN);
    hears(&mut judge, BOB, &["ann 1"]).unwrap();
    judge.outcome(ANN, 2, false, &[&name("bob")]).unwrap();
    wrong(hears(&mut judge, BOB, &["ann 0"]), "line 0 of ann after 1");
}

#[test]
fn outcomes_name_all_who_were_in_and_come_once() {
    let (mut judge, _) = judge();
    wrong(
        delivered(&mut judge, 0, &[]),
        "line 0 is delivered without bob, who was in all the time",
    );
    let bob = name("bob");
    wrong(judge.outcome(ANN, 0, false, &[&bob]), "line 0 is lost for bob, who was in all the time");
    delivered(&mut judge, 0, &["bob"]).unwrap();
    wrong(delivered(&mut judge, 0, &["bob"]), "a second outcome of line 0");
    wrong(delivered(&mut judge, 3, &["bob"]), "a further outcome of line 3");
}

#[test]
fn a_stream_may_start_late_where_something_gets_lost() {
    let (mut judge, _) = judge();
    judge.is_lossy = true;
    hears(&mut judge, BOB, &["ann 1"]).unwrap();
    delivered(&mut judge, 0, &["bob"]).unwrap();
    assert_eq!(judge.counts.before_first, 1);
    judge.say(ANN, Instant::now()).unwrap();
    wrong(hears(&mut judge, BOB, &["ann 3"]), "line 3 of ann, but not 2");
}

#[test]
fn who_acknowledges_has_to_tell() {
    let (mut judge, now) = judge();
    // Before the first that it told, and between two that it told.
    hears(&mut judge, CID, &["ann 1"]).unwrap();
    wrong(delivered(&mut judge, 0, &["bob", "cid"]), "line 0: cid began after it with 1");
    judge.say(ANN, now).unwrap();
    hears(&mut judge, CID, &["ann 3"]).unwrap();
    wrong(delivered(&mut judge, 2, &["bob", "cid"]), "line 2: cid acknowledged and passed over it");
    // Not yet told, but owed from now on.
    judge.firm(CID);
    let (mut judge, now) = self::judge();
    hears(&mut judge, BOB, &["ann 0", "ann 1", "ann 2"]).unwrap();
    for number in 0..2 {
        delivered(&mut judge, number, &["bob"]).unwrap();
    }
    judge.firm(CID);
    delivered(&mut judge, 2, &["bob", "cid"]).unwrap();
    assert_eq!(judge.open(), 1);
    wrong(
        judge.check(now + SETTLED_WITHIN),
        "ann: after 120s line 2 has an outcome, and is not heard by [\"cid\"]",
    );
}

#[test]
fn a_line_without_an_outcome_is_wrong_in_the_end() {
    let (mut judge, now) = judge();
    hears(&mut judge, BOB, &["ann 0"]).unwrap();
    judge.check(now).unwrap();
    wrong(
        judge.check(now + SETTLED_WITHIN),
        "ann: after 120s line 0 has no outcome, and is not heard by []",
    );
    judge.gone(ANN, now);
    judge.check(now + SETTLED_WITHIN).unwrap();
}

#[test]
fn last_words_are_heard_and_then_the_speaker_is_forgotten() {
    let (mut judge, now) = judge();
    judge.gone(ANN, now);
    hears(&mut judge, BOB, &["ann 1"]).unwrap();
    judge.check(now + REMEMBERED + Duration::from_secs(1)).unwrap();
    wrong(hears(&mut judge, BOB, &["ann 2"]), "a stranger: a/b/ann/id");
    assert_eq!(judge.members.len(), 2);
    assert!(judge.members[&BOB].heard.is_empty());
}

#[test]
fn too_many_unsettled_lines_are_wrong() {
    let (mut judge, now) = judge();
    for _ in 3..MAX_OPEN {
        judge.say(ANN, now).unwrap();
    }
    assert_eq!(judge.say(ANN, now).unwrap_err().to_string(), "4096 lines are not settled");
}
