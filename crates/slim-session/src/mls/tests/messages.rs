//! Messages that come late, early, twice, or not at all.

use super::*;
use crate::mls::GENERATIONS_AHEAD;

#[test]
fn messages_come_in_any_order() {
    let mut party = Party::new(&["alice"]);
    let messages: Vec<_> = (0..20).map(|i| party.moderator.encrypt(&i.to_string())).collect();
    for (i, message) in messages.iter().enumerate().rev() {
        assert_eq!(party.members[0].decrypt(message), Ok(i.to_string()));
    }
    for message in &messages {
        assert_eq!(party.members[0].decrypt(message), Err(DecryptError::Replayed));
    }
}

#[test]
fn a_thousand_late_messages_are_read() {
    let mut party = Party::new(&["alice"]);
    let messages: Vec<_> = (0..2100).map(|_| party.moderator.encrypt("x")).collect();
    let alice = &mut party.members[0];
    assert_eq!(alice.decrypt(&messages[1024]), Ok("x".to_owned()));
    assert_eq!(alice.decrypt(&messages[1]), Ok("x".to_owned()));
    assert_eq!(alice.decrypt(&messages[2099]), Ok("x".to_owned()));
    assert_eq!(alice.decrypt(&messages[1074]), Err(DecryptError::KeyGone));
    assert_eq!(alice.decrypt(&messages[1076]), Ok("x".to_owned()));
}

#[test]
fn very_many_lost_messages_do_not_matter() {
    let mut party = Party::new(&["alice"]);
    let mut message = party.moderator.encrypt("x");
    for _ in 0..GENERATIONS_AHEAD - 1 {
        message = party.moderator.encrypt("x");
    }
    let too_far = {
        party.moderator.encrypt("x");
        party.moderator.encrypt("x")
    };
    let alice = &mut party.members[0];
    assert_eq!(alice.decrypt(&too_far), Err(DecryptError::TooFarAhead));
    // The agreement check above has used up the first generation.
    assert_eq!(alice.decrypt(&message), Ok("x".to_owned()));
    assert_eq!(alice.decrypt(&too_far), Ok("x".to_owned()));
}

#[test]
fn messages_of_the_last_five_epochs_are_decrypted() {
    let mut party = Party::new(&["alice"]);
    let mut messages = Vec::new();
    for epoch in 0..7 {
        messages.push(party.moderator.encrypt(&epoch.to_string()));
        let commit = party.refresh();
        party.deliver(&commit);
    }
    let alice = &mut party.members[0];
    for (epoch, message) in messages.iter().enumerate() {
        let expected = if epoch < 2 {
            Err(DecryptError::PastEpochGone { message: epoch as u64 + 1, group: 8 })
        } else {
            Ok(epoch.to_string())
        };
        assert_eq!(alice.decrypt(message), expected);
    }
    assert_eq!(alice.decrypt(&messages[6]), Err(DecryptError::Replayed));
}

#[test]
fn a_message_ahead_of_its_commit_waits_for_it() {
    let mut party = Party::new(&["alice"]);
    let commit = party.refresh();
    let message = party.moderator.encrypt("early");
    assert_eq!(
        party.members[0].decrypt(&message),
        Err(DecryptError::FutureEpoch { message: 2, group: 1 })
    );
    party.deliver(&commit);
    assert_eq!(party.members[0].decrypt(&message), Ok("early".to_owned()));
}

#[test]
fn what_was_sent_before_one_joined_stays_closed() {
    let mut party = Party::new(&["alice"]);
    let message = party.moderator.encrypt("before bob");
    party.invite(Person::new("bob"));
    assert_eq!(
        party.members[1].decrypt(&message),
        Err(DecryptError::PastEpochGone { message: 1, group: 2 })
    );
}

#[test]
fn an_own_message_is_recognised() {
    let mut party = Party::new(&["alice"]);
    let message = party.moderator.encrypt("echo");
    assert_eq!(party.moderator.decrypt(&message), Err(DecryptError::OwnMessage));
}

#[test]
fn messages_of_other_groups_are_recognised() {
    let mut party = Party::new(&["alice"]);
    let mut other = Party::new(&["alice"]);
    let message = other.moderator.encrypt("wrong door");
    assert_eq!(party.members[0].decrypt(&message), Err(DecryptError::OtherGroup));
    let commit = other.refresh();
    assert_eq!(party.members[0].process(&commit), Err(ProcessError::OtherGroup));
}

#[test]
fn payloads_of_all_sizes() {
    let mut party = Party::new(&["alice"]);
    for length in [0, 1, 31, 32, 33, 1024, 70_000] {
        let (payload, aad) = (vec![7; length], vec![8; length % 1000]);
        let message = party.moderator.group.encrypt(&aad, &payload).unwrap();
        let decrypted = party.members[0].group.decrypt(&message).unwrap();
        assert_eq!(decrypted.plaintext, payload);
        assert_eq!(decrypted.aad, aad);
    }
}

#[test]
fn the_length_of_a_short_payload_is_hidden() {
    let mut party = Party::new(&[]);
    let mut lengths: Vec<_> = (0..200)
        .map(|i| party.moderator.group.encrypt(b"", &vec![0; i % 16]))
        .map(|message| message.unwrap().len())
        .collect();
    lengths.sort_unstable();
    lengths.dedup();
    assert!(lengths.len() <= 2, "{lengths:?}");
}
