//! Bytes that nobody honest sends.

use std::cell::RefCell;

use openmls::prelude::{Extension, Extensions, RequiredCapabilitiesExtension};
use proptest::prelude::*;

use super::*;
use crate::mls::{CommitError, JoinError};

#[test]
fn a_changed_message_is_refused_and_the_true_one_still_taken() {
    let mut party = Party::new(&["alice"]);
    let message = party.moderator.encrypt("text");
    let alice = &mut party.members[0];
    for changed in flipped(&message, 1) {
        let error = alice.decrypt(&changed).unwrap_err();
        assert!(!matches!(
            error,
            DecryptError::Replayed | DecryptError::KeyGone | DecryptError::Removed
        ));
    }
    assert_eq!(alice.decrypt(&message), Ok("text".to_owned()));
}

#[test]
fn a_changed_commit_is_refused_and_the_true_one_still_taken() {
    let mut party = Party::new(&["alice", "bob"]);
    let mut carol = Person::new("carol");
    for commit in [party.add(&mut carol).commit, party.remove(1)] {
        let alice = &mut party.members[0];
        for changed in flipped(&commit, 3) {
            alice.process(&changed).unwrap_err();
        }
        alice.process(&commit).unwrap();
    }
}

#[test]
fn a_changed_welcome_is_refused_and_the_true_one_still_taken() {
    let mut party = Party::new(&["alice"]);
    let mut bob = Person::new("bob");
    let added = party.add(&mut bob);
    let moderator = party.moderator_subject();
    let vetting = Vetting { verifier: &bob.identity, now: now(), accept_expired: false };
    for changed in flipped(&added.welcome, 11) {
        bob.joiner.join(&changed, &moderator, &vetting).unwrap_err();
    }
    let group = bob.joiner.join(&added.welcome, &moderator, &vetting).unwrap();
    assert_eq!(group.epoch(), 2);
}

#[test]
fn a_changed_key_package_is_refused() {
    let mut party = Party::new(&[]);
    let mut alice = Person::new("alice");
    let key_package = alice.key_package(now());
    let Member { person, group } = &mut party.moderator;
    for changed in flipped(&key_package, 3) {
        let result = group.add(&changed, alice.subject(), &person.identity, now());
        assert!(matches!(result, Err(CommitError::KeyPackage(_))));
    }
    assert_eq!(group.epoch(), 0);
    assert!(group.add(&key_package, alice.subject(), &person.identity, now()).is_ok());
}

#[test]
fn messages_of_one_kind_are_not_another() {
    let mut party = Party::new(&["alice"]);
    let mut bob = Person::new("bob");
    let key_package = bob.key_package(now());
    let AddCommit { commit, welcome } = party.add(&mut bob);
    let alice = &mut party.members[0];
    for message in [&key_package, &welcome, &commit] {
        assert_eq!(alice.decrypt(message), Err(DecryptError::Malformed));
    }
    let data = alice.encrypt("x");
    for message in [&key_package, &welcome, &data] {
        assert_eq!(alice.process(message), Err(ProcessError::Malformed));
    }
    for message in [&key_package, &commit, &data] {
        let joined = alice.person.joiner.join(message, "", &bob.vetting(now()));
        assert_eq!(joined.map(|_| ()), Err(JoinError::Malformed));
    }
}

#[test]
fn proposals_other_than_add_and_remove_are_refused() {
    let mut party = Party::new(&["alice"]);
    let group = &mut party.moderator.group;
    let extension =
        Extension::RequiredCapabilities(RequiredCapabilitiesExtension::new(&[], &[], &[]));
    let (commit, _, _) = group
        .mls
        .update_group_context_extensions(
            &group.provider,
            Extensions::single(extension).unwrap(),
            &group.signer,
        )
        .unwrap();
    let commit = commit.to_bytes().unwrap();
    assert_eq!(party.members[0].process(&commit), Err(ProcessError::Proposal(7)));
    assert_eq!(party.members[0].group.epoch(), 1);
}

#[test]
fn a_proposal_outside_of_a_commit_is_refused() {
    let mut party = Party::new(&["alice", "bob"]);
    let group = &mut party.members[0].group;
    let proposal =
        group.mls.leave_group(&group.provider, &group.signer).unwrap().to_bytes().unwrap();
    assert_eq!(party.moderator.process(&proposal), Err(ProcessError::Malformed));
    assert_eq!(party.members[1].process(&proposal), Err(ProcessError::Malformed));
    assert!(party.members[1].group.mls.pending_proposals().next().is_none());
}

/// Everything that arrives from outside, given the same bytes.
fn offer_everywhere(party: &mut Party, bytes: &[u8]) {
    let epoch = party.members[0].group.epoch();
    let Member { person, group } = &mut party.moderator;
    group.add(bytes, "anybody", &person.identity, now()).unwrap_err();
    let alice = &mut party.members[0];
    alice.process(bytes).unwrap_err();
    alice.group.decrypt(bytes).unwrap_err();
    let vetting = Vetting { verifier: &alice.person.identity, now: now(), accept_expired: true };
    alice.person.joiner.join(bytes, "", &vetting).unwrap_err();
    assert_eq!(alice.group.epoch(), epoch);
}

#[test]
fn messages_cut_short_are_refused() {
    let mut party = Party::new(&["alice", "bob"]);
    let mut carol = Person::new("carol");
    let key_package = carol.key_package(now());
    let AddCommit { commit, welcome } = party.add(&mut carol);
    let data = party.moderator.encrypt("x");
    for message in [key_package, commit, welcome, data] {
        for length in (0..message.len()).step_by(7) {
            offer_everywhere(&mut party, &message[..length]);
        }
        let mut longer = message.to_vec();
        longer.push(0);
        offer_everywhere(&mut party, &longer);
    }
}

#[test]
fn lengths_that_promise_too_much_are_refused() {
    let mut party = Party::new(&["alice"]);
    for format in 0..7 {
        for length in [0xbf_u8, 0x7f, 0x3f, 0xff] {
            let mut message = vec![0, 1, 0, format];
            message.extend([length; 12]);
            offer_everywhere(&mut party, &message);
            // After the version and suite of a key package.
            let mut message = vec![0, 1, 0, format, 0, 1, 0, 2];
            message.extend([length; 12]);
            offer_everywhere(&mut party, &message);
        }
    }
}

#[test]
fn noise_is_refused() {
    let party = RefCell::new(Party::new(&["alice"]));
    proptest!(|(noise: Vec<u8>, format in 0..7u8, framed: bool)| {
        let mut bytes = noise;
        if framed {
            bytes.splice(0..0, [0, 1, 0, format]);
        }
        offer_everywhere(&mut party.borrow_mut(), &bytes);
    });
}

#[test]
fn torn_and_joined_messages_are_refused() {
    let mut party = Party::new(&["alice", "bob"]);
    let mut carol = Person::new("carol");
    let key_package = carol.key_package(now());
    let AddCommit { commit, welcome } = party.add(&mut carol);
    let data = party.moderator.encrypt("x");
    let messages = [key_package, commit, welcome, data];
    let party = RefCell::new(party);
    proptest!(ProptestConfig::with_cases(128), |(
        first in 0..4usize,
        second in 0..4usize,
        at: prop::sample::Index,
        from: prop::sample::Index,
        flip: u8,
    )| {
        let (first, second) = (&messages[first], &messages[second]);
        let mut bytes = first[..at.index(first.len())].to_vec();
        bytes.extend_from_slice(&second[from.index(second.len())..]);
        let last = bytes.len() - 1;
        bytes[last] ^= flip | 1;
        offer_everywhere(&mut party.borrow_mut(), &bytes);
    });
}
