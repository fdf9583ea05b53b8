//! Who comes, who goes, and what everybody else sees of it.

use super::*;
use crate::mls::{CommitError, EncryptError, JoinError};

#[test]
fn members_join_one_after_the_other() {
    let mut party = Party::new(&["alice", "bob"]);
    let mut carol = Person::new("carol");
    let added = party.add(&mut carol);
    assert_eq!(party.moderator.group.epoch(), 3);
    for effect in party.deliver(&added.commit) {
        assert_eq!(effect, changed(&[carol.subject()], &[]));
    }
    let group = carol.join(&added.welcome, &party.moderator_subject(), now());
    assert!(group.contains(carol.subject()));
    party.members.push(Member { person: carol, group });
    party.assert_agreement();
}

#[test]
fn several_join_with_one_commit() {
    let mut party = Party::new(&["alice"]);
    let mut people = ["bob", "carol", "dave"].map(Person::new);
    let Member { person, group } = &mut party.moderator;
    let newcomers = people.iter_mut().map(|new| {
        let key_package = new.key_package(now());
        group.vet(&key_package, new.subject(), &person.identity, now()).unwrap()
    });
    let newcomers = newcomers.collect();
    let added = group.add_all(newcomers).unwrap();
    assert_eq!(group.epoch(), 2);
    let subjects: Vec<String> = people.iter().map(|new| new.subject().to_owned()).collect();
    let subjects: Vec<&str> = subjects.iter().map(String::as_str).collect();
    assert_eq!(party.deliver(&added.commit), [changed(&subjects, &[])]);
    for mut person in people {
        let group = person.join(&added.welcome, &party.moderator_subject(), now());
        party.members.push(Member { person, group });
    }
    party.assert_agreement();
    let commit = party.remove(2);
    party.deliver(&commit);
    party.members.remove(2);
    party.assert_agreement();
}

#[test]
fn who_does_not_fit_together_is_not_added_and_changes_nothing() {
    let mut party = Party::new(&["alice"]);
    let mut bob = Person::new("bob");
    let (first, second) = (bob.key_package(now()), bob.key_package(now()));
    let Member { person, group } = &mut party.moderator;
    let newcomers = [&first, &second]
        .map(|key_package| group.vet(key_package, bob.subject(), &person.identity, now()).unwrap());
    let refused = group.add_all(newcomers.to_vec()).unwrap_err();
    assert!(matches!(refused, CommitError::Invalid(_)), "{refused}");
    assert_eq!(group.epoch(), 1);
    group.add(&first, bob.subject(), &person.identity, now()).unwrap();
}

#[test]
fn a_removed_member_decrypts_nothing_new() {
    let mut party = Party::new(&["alice", "bob", "carol"]);
    let bob = party.members[1].person.subject().to_owned();
    let commit = party.remove(1);
    let message = party.moderator.encrypt("not for bob");

    // Bob has not seen the commit yet.
    assert!(matches!(party.members[1].decrypt(&message), Err(DecryptError::FutureEpoch { .. })));
    let effects = party.deliver(&commit);
    assert_eq!(effects[0], changed(&[], &[&bob]));
    assert_eq!(effects[1], Effect::SelfRemoved);
    assert_eq!(effects[2], changed(&[], &[&bob]));

    let mut member = party.members.remove(1);
    assert!(!member.group.is_active());
    assert_eq!(member.decrypt(&message), Err(DecryptError::Removed));
    assert_eq!(member.group.encrypt(b"", b"still here"), Err(EncryptError::Removed));
    let refresh = party.refresh();
    assert_eq!(member.process(&refresh), Err(ProcessError::Removed));

    party.deliver(&refresh);
    assert!(!party.moderator.group.contains(&bob));
    party.assert_agreement();
}

#[test]
fn a_removed_member_that_ignores_its_removal_is_left_behind() {
    let mut party = Party::new(&["alice", "bob"]);
    let commit = party.remove(1);
    party.members[0].process(&commit).unwrap();
    let mut bob = party.members.remove(1);
    for epoch in [3, 4] {
        let message = party.moderator.encrypt("not for bob");
        assert_eq!(
            bob.decrypt(&message),
            Err(DecryptError::FutureEpoch { message: epoch, group: 2 })
        );
        let refresh = party.refresh();
        party.members[0].process(&refresh).unwrap();
        assert!(matches!(bob.process(&refresh), Err(ProcessError::FutureEpoch { .. })));
    }
    // What bob sends can be told from a message of now, and ends with his epoch.
    let late = bob.encrypt("late");
    let decrypted = party.members[0].group.decrypt(&late).unwrap();
    assert!(!party.members[0].group.contains(&decrypted.sender));
    for _ in 0..5 {
        let refresh = party.refresh();
        party.deliver(&refresh);
    }
    let later = bob.encrypt("later");
    assert!(matches!(party.members[0].decrypt(&later), Err(DecryptError::PastEpochGone { .. })));
}

#[test]
fn a_removed_member_can_be_invited_again() {
    let mut party = Party::new(&["alice", "bob"]);
    let commit = party.remove(0);
    party.deliver(&commit);
    let Member { person, .. } = party.members.remove(0);
    party.invite(person);
    assert_eq!(party.moderator.group.members().count(), 3);
}

#[test]
fn a_lost_member_rejoins_in_one_commit() {
    let mut party = Party::new(&["alice", "bob", "carol"]);
    // Alice misses two commits.
    for _ in 0..2 {
        let refresh = party.refresh();
        for member in &mut party.members[1..] {
            member.process(&refresh).unwrap();
        }
    }
    let key_package = party.members[0].person.key_package(now());
    let alice = party.members[0].person.subject().to_owned();
    let moderator = &mut party.moderator;
    let rejoined =
        moderator.group.rejoin(&key_package, &alice, &moderator.person.identity, now()).unwrap();
    for member in &mut party.members[1..] {
        assert_eq!(member.process(&rejoined.commit), Ok(changed(&[&alice], &[&alice])));
    }
    let moderator = party.moderator_subject();
    let member = &mut party.members[0];
    member.group = member.person.join(&rejoined.welcome, &moderator, now());
    party.assert_agreement();
}

#[test]
fn an_old_self_learns_from_the_rejoin_that_it_is_out() {
    let mut party = Party::new(&["alice", "bob"]);
    let key_package = party.members[0].person.key_package(now());
    let alice = party.members[0].person.subject().to_owned();
    let moderator = &mut party.moderator;
    let rejoined =
        moderator.group.rejoin(&key_package, &alice, &moderator.person.identity, now()).unwrap();
    assert_eq!(party.members[0].process(&rejoined.commit), Ok(Effect::SelfRemoved));
}

#[test]
fn a_rejoined_member_keeps_its_name_for_late_messages() {
    let mut party = Party::new(&["alice", "bob"]);
    let late = party.members[0].encrypt("from before");
    let alice = party.members[0].person.subject().to_owned();
    let key_package = party.members[0].person.key_package(now());
    let moderator = &mut party.moderator;
    let rejoined =
        moderator.group.rejoin(&key_package, &alice, &moderator.person.identity, now()).unwrap();
    party.members[1].process(&rejoined.commit).unwrap();
    let decrypted = party.members[1].group.decrypt(&late).unwrap();
    assert_eq!(&*decrypted.sender, alice);
}

#[test]
fn a_late_message_is_not_put_down_to_the_leafs_next_owner() {
    let mut party = Party::new(&["alice", "bob"]);
    let alice = party.members[0].person.subject().to_owned();
    let late = party.members[0].encrypt("from alice");
    let commit = party.remove(0);
    party.deliver(&commit);
    party.members.remove(0);
    // Carol gets the leaf that was alice's.
    party.invite(Person::new("carol"));
    for member in [&mut party.moderator, &mut party.members[0]] {
        assert_eq!(&*member.group.decrypt(&late).unwrap().sender, alice);
    }
}

#[test]
fn refreshing_replaces_the_token_and_nothing_else() {
    let mut party = Party::new(&["alice", "bob"]);
    let before = party.moderator.encrypt("before");
    let later = now() + 3000;
    let Member { person, group } = &mut party.moderator;
    let old = group.credential_expires_at();
    let commit = group.refresh_credential(&person.token(later), &person.identity, later).unwrap();
    assert_eq!(group.credential_expires_at(), later + 3600);
    assert!(old < later + 3600);
    for member in &mut party.members {
        let effect = member.group.process_commit(&commit, &member.person.vetting(later));
        assert_eq!(effect, Ok(changed(&[], &[])));
        assert_eq!(member.decrypt(&before), Ok("before".to_owned()));
    }
    party.assert_agreement();
}

#[test]
fn a_session_outlives_the_tokens() {
    let mut party = Party::new(&["alice"]);
    // Two hours on, all tokens in the tree are long expired.
    let later = now() + 7200;
    let Member { person, group } = &mut party.moderator;
    let commit = group.refresh_credential(&person.token(later), &person.identity, later).unwrap();
    let alice = &mut party.members[0];
    alice.group.process_commit(&commit, &alice.person.vetting(later)).unwrap();
    party.assert_agreement();

    // Bob joins and finds alice's old token.
    let mut bob = Person::new("bob");
    let key_package = bob.key_package(later);
    let Member { person, group } = &mut party.moderator;
    let added = group.add(&key_package, bob.subject(), &person.identity, later).unwrap();
    let moderator = person.subject().to_owned();
    let strict = Vetting { verifier: &bob.identity, now: later, accept_expired: false };
    assert!(matches!(
        bob.joiner.join(&added.welcome, &moderator, &strict),
        Err(JoinError::Credential { leaf: 1, .. })
    ));
    let lenient = Vetting { accept_expired: true, ..strict };
    let group = bob.joiner.join(&added.welcome, &moderator, &lenient).unwrap();
    let alice = &mut party.members[0];
    alice.group.process_commit(&added.commit, &alice.person.vetting(later)).unwrap();
    party.members.push(Member { person: bob, group });
    party.assert_agreement();
}

#[test]
fn a_path_with_the_old_token_is_not_judged_by_age_again() {
    let mut party = Party::new(&["alice", "bob"]);
    let commit = party.remove(1);
    // The path of a removal carries the moderator's first token, by now expired.
    let alice = &mut party.members[0];
    let later = alice.person.vetting(now() + 7200);
    assert!(alice.group.process_commit(&commit, &later).is_ok());
}

#[test]
fn only_the_moderator_commits() {
    let mut party = Party::new(&["alice", "bob"]);
    let bob = party.members[1].person.subject().to_owned();
    let group = &mut party.members[0].group;
    assert_eq!(group.remove(&bob), Err(CommitError::NotModerator));

    // A member that does it all the same is not followed.
    group.moderator = group.mls.own_leaf_index();
    let coup = group.remove(&bob).unwrap();
    assert_eq!(party.members[1].process(&coup), Err(ProcessError::NotModerator));
    assert_eq!(party.moderator.process(&coup), Err(ProcessError::NotModerator));
    let refresh = party.refresh();
    assert_eq!(party.members[1].process(&refresh), Ok(changed(&[], &[])));
}

#[test]
fn who_is_no_member_cannot_be_removed() {
    let mut party = Party::new(&["alice"]);
    let moderator = party.moderator_subject();
    for subject in ["nobody", &moderator] {
        assert_eq!(
            party.moderator.group.remove(subject),
            Err(CommitError::NotMember(subject.to_owned()))
        );
    }
    party.assert_agreement();
}

#[test]
fn commits_apply_once_and_in_their_order() {
    let mut party = Party::new(&["alice"]);
    let first = party.refresh();
    let second = party.refresh();
    let alice = &mut party.members[0];
    assert_eq!(alice.process(&second), Err(ProcessError::FutureEpoch { message: 2, group: 1 }));
    for commit in [&first, &second] {
        assert_eq!(alice.process(commit), Ok(changed(&[], &[])));
    }
    for commit in [&first, &second] {
        assert!(matches!(alice.process(commit), Err(ProcessError::PastEpoch { .. })));
    }
    // Its own echo is nothing to the moderator.
    assert!(matches!(party.moderator.process(&second), Err(ProcessError::PastEpoch { .. })));
    party.assert_agreement();
}

#[test]
fn each_key_package_answers_one_welcome() {
    let mut party = Party::new(&[]);
    let mut alice = Person::new("alice");
    let first = alice.key_package(now());
    let _second = alice.key_package(now());
    let Member { person, group } = &mut party.moderator;
    let added = group.add(&first, alice.subject(), &person.identity, now()).unwrap();
    let moderator = person.subject().to_owned();
    let group = alice.join(&added.welcome, &moderator, now());
    let again = alice.joiner.join(
        &added.welcome,
        &moderator,
        &Vetting { verifier: &alice.identity, now: now(), accept_expired: false },
    );
    assert_eq!(again.map(|_| ()), Err(JoinError::NoKeyPackage));
    party.members.push(Member { person: alice, group });
    party.assert_agreement();
}

#[test]
fn old_key_packages_are_forgotten() {
    let mut party = Party::new(&[]);
    let mut alice = Person::new("alice");
    let first = alice.key_package(now());
    for _ in 0..8 {
        alice.key_package(now());
    }
    assert_eq!(format!("{:?}", alice.joiner), "Joiner { outstanding: 8, .. }");
    let Member { person, group } = &mut party.moderator;
    let added = group.add(&first, alice.subject(), &person.identity, now()).unwrap();
    let vetting = Vetting { verifier: &alice.identity, now: now(), accept_expired: false };
    let joined = alice.joiner.join(&added.welcome, person.subject(), &vetting);
    assert_eq!(joined.map(|_| ()), Err(JoinError::NoKeyPackage));
}

#[test]
fn memory_does_not_grow_with_the_commits() {
    let mut party = Party::new(&["alice", "bob", "carol"]);
    for round in 0..12 {
        let commit = if round % 3 == 0 {
            let mut dave = Person::new("dave");
            party.add(&mut dave).commit
        } else if round % 3 == 1 {
            let dave = subjects(&party.moderator.group).pop().unwrap();
            party.moderator.group.remove(&dave).unwrap()
        } else {
            party.refresh()
        };
        party.deliver(&commit);
    }
    for index in 0..4 {
        assert_eq!(
            format!("{:?}", party.member(index).group.provider),
            "Provider { crypto: Crypto, storage: Storage { key_package: false, epochs: 1 } }"
        );
    }
}
