//! Whose leaf it is: tokens, keys and what our own leaves look like.

use openmls::prelude::{
    MlsMessageBodyIn, OpenMlsProvider as _, ProtocolVersion, tls_codec::Serialize as _,
};
use slim_auth::{Claims, PublicKey, Verifier, VerifyError};

use super::*;
use crate::mls::{
    CommitError, CreateError, JoinError, commit::KeyPackageError, credential::CredentialError,
    decode, provider::Provider,
};

fn refused(error: CredentialError) -> CommitError {
    CommitError::KeyPackage(KeyPackageError::Credential(error))
}

/// What the moderator says to a key package whose credential is `token`.
fn offer(token: &str, key: &SigningKey, subject: &str) -> Result<AddCommit, CommitError> {
    let mut party = Party::new(&[]);
    let key_package = Joiner::new(key.clone()).key_package(token, now()).unwrap();
    let Member { person, group } = &mut party.moderator;
    let result = group.add(&key_package, subject, &person.identity, now());
    assert_eq!(group.epoch(), u64::from(result.is_ok()));
    result
}

#[test]
fn a_key_package_needs_a_good_token() {
    let alice = Person::new("alice");
    let key = alice.identity.key();
    let offer = |token: &str| offer(token, key, alice.subject()).map(|_| ());
    assert_eq!(offer(&alice.token(now())), Ok(()));
    assert!(matches!(
        offer(&alice.token(now() - 4000)),
        Err(CommitError::KeyPackage(KeyPackageError::Credential(CredentialError::Token(
            VerifyError::Expired { .. }
        ))))
    ));
    assert!(matches!(
        offer(&alice.token(now() + 60)),
        Err(CommitError::KeyPackage(KeyPackageError::Credential(CredentialError::Token(
            VerifyError::FromFuture { .. }
        ))))
    ));
    let stranger = Person::with_secret("alice", &SECRET.replace('0', "1"));
    assert_eq!(
        offer(&stranger.token(now())),
        Err(refused(CredentialError::Token(VerifyError::BadMac)))
    );
    assert_eq!(
        offer("no token"),
        Err(refused(CredentialError::Token(VerifyError::Malformed("fields"))))
    );
}

#[test]
fn a_token_of_somebody_elses_key_is_refused() {
    let alice = Person::new("alice");
    let thief = SigningKey::generate().unwrap();
    assert_eq!(
        offer(&alice.token(now()), &thief, alice.subject()),
        Err(refused(CredentialError::Key))
    );
}

#[test]
fn a_key_package_of_somebody_else_is_refused() {
    let alice = Person::new("alice");
    assert_eq!(
        offer(&alice.token(now()), alice.identity.key(), "bob"),
        Err(refused(CredentialError::Subject {
            expected: "bob".to_owned(),
            found: alice.subject().to_owned(),
        }))
    );
}

#[test]
fn a_member_is_not_added_twice() {
    let mut party = Party::new(&["alice"]);
    let alice = &mut party.members[0].person;
    let (subject, key_package) = (alice.subject().to_owned(), alice.key_package(now()));
    let Member { person, group } = &mut party.moderator;
    assert_eq!(
        group.add(&key_package, &subject, &person.identity, now()),
        Err(CommitError::AlreadyMember(subject))
    );
}

/// Takes every token for one of this subject and key, as the verifier of a moderator
/// would that lets anybody in.
#[derive(Debug)]
struct Gullible {
    subject: String,
    public_key: PublicKey,
}

impl Gullible {
    fn of(key: &SigningKey, subject: &str) -> Self {
        Self { subject: subject.to_owned(), public_key: key.public_key().clone() }
    }
}

impl Verifier for Gullible {
    fn authenticate(&self, _: &str, _: u64) -> Result<Claims, VerifyError> {
        Ok(Claims {
            subject: self.subject.clone(),
            public_key: self.public_key.clone(),
            issued_at: None,
            expires_at: u64::MAX,
            issuer: None,
        })
    }
}

/// Adds the owner of `key` under `token`, whatever that says.
fn add_unchecked(party: &mut Party, key: &SigningKey, token: &str) -> (Joiner, AddCommit) {
    let mut joiner = Joiner::new(key.clone());
    let key_package = joiner.key_package(token, now()).unwrap();
    let verifier = Gullible::of(key, "anybody");
    let group = &mut party.moderator.group;
    let added = group.add(&key_package, "anybody", &verifier, now()).unwrap();
    (joiner, added)
}

#[test]
fn one_key_cannot_be_two_members() {
    let mut party = Party::new(&["alice"]);
    let key = party.members[0].person.identity.key().clone();
    let key_package = Joiner::new(key.clone()).key_package("mallory's", now()).unwrap();
    let verifier = Gullible::of(&key, "mallory");
    assert!(matches!(
        party.moderator.group.add(&key_package, "mallory", &verifier, now()),
        Err(CommitError::Invalid(_))
    ));
    party.assert_agreement();
}

#[test]
fn members_check_whom_the_moderator_adds() {
    let stranger = Person::with_secret("eve", &SECRET.replace('0', "1"));
    let eve = Person::new("eve");
    let thief = SigningKey::generate().unwrap();
    let check = |key: &SigningKey, token: &str, expected: CredentialError| {
        let mut party = Party::new(&["alice"]);
        let (_, added) = add_unchecked(&mut party, key, token);
        let alice = &mut party.members[0];
        assert_eq!(alice.process(&added.commit), Err(ProcessError::Credential(expected)));
        assert_eq!(alice.group.epoch(), 1);
        assert_eq!(alice.group.members().count(), 2);
    };
    check(
        stranger.identity.key(),
        &stranger.token(now()),
        CredentialError::Token(VerifyError::BadMac),
    );
    check(&thief, &eve.token(now()), CredentialError::Key);
    check(&thief, "nothing", CredentialError::Token(VerifyError::Malformed("fields")));
}

#[test]
fn an_expired_token_in_a_commit_is_a_matter_of_policy() {
    let mut party = Party::new(&["alice"]);
    let eve = Person::new("eve");
    let now = now();
    let (_, added) = add_unchecked(&mut party, eve.identity.key(), &eve.token(now - 5000));
    let alice = &mut party.members[0];
    let strict = alice.person.vetting(now);
    assert_eq!(
        alice.group.process_commit(&added.commit, &strict),
        Err(ProcessError::Credential(CredentialError::Token(VerifyError::Expired { ago: 1400 })))
    );
    let lenient = Vetting { accept_expired: true, ..strict };
    assert_eq!(
        alice.group.process_commit(&added.commit, &lenient),
        Ok(changed(&[eve.subject()], &[]))
    );
}

#[test]
fn members_refuse_a_second_leaf_of_the_same_subject() {
    // Whoever holds the secret can make a token with any subject.
    let mut party = Party::new(&["alice"]);
    let double = SharedSecret::new("bob", SECRET, &mut SmallRng::seed_from_u64(1)).unwrap();
    let bob = SharedSecret::new("bob", SECRET, &mut SmallRng::seed_from_u64(1)).unwrap();
    assert_eq!(double.subject(), bob.subject());
    for (identity, expected) in [(bob, true), (double, false)] {
        let token = identity.token(now(), &mut SmallRng::seed_from_u64(2)).unwrap();
        let mut joiner = Joiner::new(identity.key().clone());
        let key_package = joiner.key_package(&token, now()).unwrap();
        // The moderator believes they are different people.
        let name = format!("bob, really: {expected}");
        let verifier = Gullible::of(identity.key(), &name);
        let added = party.moderator.group.add(&key_package, &name, &verifier, now()).unwrap();
        let alice = &mut party.members[0];
        let taken = alice.process(&added.commit);
        if expected {
            assert_eq!(taken, Ok(changed(&[identity.subject()], &[])));
        } else {
            let twice = identity.subject().into();
            assert_eq!(taken, Err(ProcessError::SubjectTwice(twice)));
            let moderator = party.moderator.person.subject();
            let vetting = Vetting { verifier: &identity, now: now(), accept_expired: false };
            assert_eq!(
                joiner.join(&added.welcome, moderator, &vetting).map(|_| ()),
                Err(JoinError::SubjectTwice(identity.subject().into()))
            );
        }
    }
}

#[test]
fn a_joiner_checks_every_leaf() {
    let mut party = Party::new(&["alice"]);
    let stranger = Person::with_secret("eve", &SECRET.replace('0', "1"));
    add_unchecked(&mut party, stranger.identity.key(), &stranger.token(now()));
    let mut bob = Person::new("bob");
    let added = party.add(&mut bob);
    let vetting = Vetting { verifier: &bob.identity, now: now(), accept_expired: true };
    assert_eq!(
        bob.joiner.join(&added.welcome, party.moderator.person.subject(), &vetting).map(|_| ()),
        Err(JoinError::Credential { leaf: 2, source: CredentialError::Token(VerifyError::BadMac) })
    );
}

#[test]
fn a_welcome_must_come_from_the_moderator() {
    let mut party = Party::new(&["alice"]);
    let mut bob = Person::new("bob");
    let added = party.add(&mut bob);
    let alice = party.members[0].person.subject();
    let vetting = Vetting { verifier: &bob.identity, now: now(), accept_expired: false };
    let mut join = |moderator: &str| bob.joiner.join(&added.welcome, moderator, &vetting);
    assert_eq!(join(alice).map(|_| ()), Err(JoinError::NotModerator));
    assert_eq!(join("nobody").map(|_| ()), Err(JoinError::NotModerator));
    // Refusing has not used up the key package.
    assert!(join(party.moderator.person.subject()).is_ok());
}

#[test]
fn a_new_credential_must_be_of_the_same_subject() {
    let mut party = Party::new(&["alice"]);
    let key = party.moderator.person.identity.key().clone();
    let mallory = Gullible::of(&key, "mallory");
    let Member { person, group } = &mut party.moderator;
    assert_eq!(
        group.refresh_credential("mallory's", &mallory, now()),
        Err(CommitError::OwnCredential(CredentialError::Subject {
            expected: person.subject().to_owned(),
            found: "mallory".to_owned(),
        }))
    );
    assert_eq!(group.epoch(), 1);

    // The moderator's own check switched off, the members still notice.
    let own = Gullible::of(&key, person.subject());
    let commit = group.refresh_credential("mallory's", &own, now()).unwrap();
    let alice = &mut party.members[0];
    let vetting = Vetting { verifier: &mallory, now: now(), accept_expired: true };
    assert_eq!(
        alice.group.process_commit(&commit, &vetting),
        Err(ProcessError::Credential(CredentialError::Subject {
            expected: person.subject().to_owned(),
            found: "mallory".to_owned(),
        }))
    );
    assert_eq!(alice.group.epoch(), 1);
}

#[test]
fn nobody_starts_a_group_with_a_token_that_others_would_refuse() {
    let alice = Person::new("alice");
    let create = |key: &SigningKey, token: &str| {
        Group::create(key.clone(), token, &alice.identity, now()).map(|_| ())
    };
    let key = alice.identity.key();
    assert_eq!(create(key, &alice.token(now())), Ok(()));
    assert_eq!(
        create(key, &alice.token(now() - 3700)),
        Err(CreateError::Credential(CredentialError::Token(VerifyError::Expired { ago: 100 })))
    );
    assert_eq!(
        create(&SigningKey::generate().unwrap(), &alice.token(now())),
        Err(CreateError::Credential(CredentialError::Key))
    );
}

#[test]
fn key_packages_whose_time_has_not_come_or_is_over() {
    let mut party = Party::new(&[]);
    let mut offer = |made: u64| {
        let alice = Person::new("alice");
        let key_package = Joiner::new(alice.identity.key().clone())
            .key_package(&alice.token(made), made)
            .unwrap();
        let Member { person, group } = &mut party.moderator;
        group.add(&key_package, alice.subject(), &person.identity, made)
    };
    // By the system's clock, a day ahead of the tests' time.
    assert!(matches!(
        offer(now() + 26 * 3600),
        Err(CommitError::KeyPackage(KeyPackageError::NotValidYet { seconds: 3500..=3600 }))
    ));
    assert!(matches!(
        offer(now() - 366 * 24 * 3600),
        Err(CommitError::KeyPackage(KeyPackageError::Invalid(_)))
    ));
    assert!(offer(now() + 24 * 3600).is_ok());
}

/// What peers of other makes ask of a key package.
#[test]
fn the_form_of_our_key_packages() {
    let mut alice = Person::new("alice");
    let bytes = alice.key_package(now());
    assert_eq!(bytes[..8], [0, 1, 0, 5, 0, 1, 0, 2], "mls10, key package, mls10, suite 2");
    let Some(MlsMessageBodyIn::KeyPackage(key_package)) = decode(&bytes) else {
        panic!("no key package");
    };
    let key_package =
        key_package.validate(Provider::default().crypto(), ProtocolVersion::Mls10).unwrap();
    assert_eq!(key_package.hpke_init_key().as_slice().len(), 65);
    assert_eq!(key_package.hpke_init_key().as_slice()[0], 4);
    assert!(key_package.extensions().iter().next().is_none());
    assert!(!key_package.last_resort());

    let leaf = key_package.leaf_node();
    assert_eq!(leaf.signature_key().as_slice(), alice.identity.key().public_key().as_bytes());
    let signature = leaf.signature().tls_serialize_detached().unwrap();
    assert_eq!(signature[2], 0x30, "DER, after a length of two bytes");
    assert_eq!(leaf.credential().serialized_content(), alice.token(now()).as_bytes());
    assert!(leaf.extensions().iter().next().is_none());
    // RFC 9420 §7.2: versions, suites, extensions, proposals, credentials.
    let capabilities = [2, 0, 1, 2, 0, 2, 0, 0, 2, 0, 1];
    assert!(bytes.windows(capabilities.len()).any(|window| window == capabilities));
    let lifetime = key_package.life_time();
    assert_eq!(lifetime.not_before(), now() - 3600);
    assert_eq!(lifetime.not_after(), now() + 365 * 24 * 3600);
}
