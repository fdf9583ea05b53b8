//! Groups of several members in one thread.

mod cost;
mod credentials;
mod hostile;
mod membership;
mod messages;

use std::{sync::Arc, time::SystemTime};

use bytes::Bytes;
use rand::{SeedableRng as _, rngs::SmallRng};
use slim_auth::{Identity as _, SharedSecret, SigningKey, Verifier};

use super::{
    AddCommit, CommitError, DecryptError, Decrypted, Group, Joiner, ProcessError, Vetting,
    process::Effect,
};

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const MODERATOR: &str = "org/ns/mod";

/// The time of the tests, in seconds since the Unix epoch. OpenMLS looks at the system's
/// clock, and some tests go forward by hours, so it is a day behind.
fn now() -> u64 {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    since_epoch.as_secs() - 24 * 3600
}

/// One participant, before it joins.
struct Person {
    identity: SharedSecret,
    joiner: Joiner,
}

impl Person {
    fn new(name: &str) -> Self {
        Self::with_secret(name, SECRET)
    }

    fn with_secret(name: &str, secret: &str) -> Self {
        let mut rng = SmallRng::seed_from_u64(name.bytes().map(u64::from).sum());
        let identity = SharedSecret::new(name, secret, &mut rng).unwrap();
        let joiner = Joiner::new(identity.key().clone());
        Self { identity, joiner }
    }

    fn subject(&self) -> &str {
        self.identity.subject()
    }

    fn token(&self, now: u64) -> String {
        let mut rng = SmallRng::seed_from_u64(now);
        self.identity.token(now, &mut rng).unwrap()
    }

    fn key_package(&mut self, now: u64) -> Bytes {
        let token = self.token(now);
        self.joiner.key_package(&token, now).unwrap()
    }

    fn vetting(&self, now: u64) -> Vetting<'_> {
        Vetting { verifier: &self.identity, now, accept_expired: false }
    }

    fn join(&mut self, welcome: &[u8], moderator: &str, now: u64) -> Group {
        let vetting = Vetting { verifier: &self.identity, now, accept_expired: false };
        self.joiner.join(welcome, moderator, &vetting).unwrap()
    }
}

/// A member: a person and its view of the group.
struct Member {
    person: Person,
    group: Group,
}

impl Member {
    fn process(&mut self, commit: &[u8]) -> Result<Effect, ProcessError> {
        self.group.process_commit(commit, &self.person.vetting(now()))
    }

    fn encrypt(&mut self, text: &str) -> Bytes {
        self.group.encrypt(b"aad", text.as_bytes()).unwrap()
    }

    fn decrypt(&mut self, message: &[u8]) -> Result<String, DecryptError> {
        self.group.decrypt(message).map(|decrypted| {
            let Decrypted { plaintext, aad, .. } = decrypted;
            assert_eq!(aad, b"aad");
            String::from_utf8(plaintext.to_vec()).unwrap()
        })
    }
}

impl Group {
    /// Adds one member.
    fn add(
        &mut self,
        key_package: &[u8],
        subject: &str,
        verifier: &dyn Verifier,
        now: u64,
    ) -> Result<AddCommit, CommitError> {
        let newcomer = self.vet(key_package, subject, verifier, now)?;
        self.add_all(vec![newcomer])
    }
}

/// A moderator and its participants, all in the same epoch.
struct Party {
    moderator: Member,
    members: Vec<Member>,
}

impl Party {
    /// A group of the moderator and the named participants.
    fn new(names: &[&str]) -> Self {
        let person = Person::new(MODERATOR);
        let group = create(&person, now());
        let mut party = Self { moderator: Member { person, group }, members: Vec::new() };
        for name in names {
            party.invite(Person::new(name));
        }
        party
    }

    fn moderator_subject(&self) -> String {
        self.moderator.person.subject().to_owned()
    }

    /// Adds somebody; everybody takes the commit.
    fn invite(&mut self, mut person: Person) {
        let added = self.add(&mut person);
        self.deliver(&added.commit);
        let group = person.join(&added.welcome, &self.moderator_subject(), now());
        self.members.push(Member { person, group });
        self.assert_agreement();
    }

    /// Makes the commit that adds somebody, and gives it to nobody.
    fn add(&mut self, person: &mut Person) -> AddCommit {
        let key_package = person.key_package(now());
        let moderator = &mut self.moderator;
        moderator
            .group
            .add(&key_package, person.subject(), &moderator.person.identity, now())
            .unwrap()
    }

    /// Makes the commit that removes a participant, and gives it to nobody.
    fn remove(&mut self, index: usize) -> Bytes {
        let subject = self.members[index].person.subject();
        self.moderator.group.remove(subject).unwrap()
    }

    /// Makes a commit that only renews the moderator's token, and gives it to nobody.
    fn refresh(&mut self) -> Bytes {
        let Member { person, group } = &mut self.moderator;
        group.refresh_credential(&person.token(now()), &person.identity, now()).unwrap()
    }

    /// Gives a commit to all participants.
    fn deliver(&mut self, commit: &[u8]) -> Vec<Effect> {
        self.members.iter_mut().map(|member| member.process(commit).unwrap()).collect()
    }

    /// Everybody has the same epoch and the same members, and hears everybody.
    fn assert_agreement(&mut self) {
        let subjects = subjects(&self.moderator.group);
        let epoch = self.moderator.group.epoch();
        for member in &self.members {
            assert_eq!(subjects, self::subjects(&member.group));
            assert_eq!(epoch, member.group.epoch());
        }
        let count = self.members.len() + 1;
        for from in 0..count {
            let sender = self.member(from).person.subject().to_owned();
            let message = self.member(from).encrypt(&sender);
            for to in (0..count).filter(|to| *to != from) {
                let decrypted = self.member(to).group.decrypt(&message).unwrap();
                assert_eq!(decrypted.plaintext, sender);
                assert_eq!(decrypted.aad, b"aad");
                assert_eq!(&*decrypted.sender, sender);
            }
        }
    }

    /// The moderator is number 0.
    fn member(&mut self, index: usize) -> &mut Member {
        match index.checked_sub(1) {
            None => &mut self.moderator,
            Some(index) => &mut self.members[index],
        }
    }
}

fn create(person: &Person, now: u64) -> Group {
    let key = person.identity.key().clone();
    Group::create(key, &person.token(now), &person.identity, now).unwrap()
}

fn subjects(group: &Group) -> Vec<Arc<str>> {
    group.members().cloned().collect()
}

fn changed(added: &[&str], removed: &[&str]) -> Effect {
    let list = |subjects: &[&str]| subjects.iter().map(|s| Arc::from(*s)).collect();
    Effect::Changed { added: list(added), removed: list(removed) }
}

/// Each message with one byte changed, at every `step`th place.
fn flipped(message: &[u8], step: usize) -> impl Iterator<Item = Vec<u8>> {
    (0..message.len()).step_by(step).map(|at| {
        let mut copy = message.to_vec();
        copy[at] ^= 0x10;
        copy
    })
}

#[test]
fn nothing_printed_holds_keys_or_payload() {
    let mut party = Party::new(&["alice"]);
    let message = party.moderator.encrypt("payload");
    let decrypted = party.members[0].group.decrypt(&message).unwrap();
    let subject = party.moderator.person.subject();
    assert_eq!(
        format!("{decrypted:?}"),
        format!("Decrypted {{ plaintext: 7, aad: 3, sender: {subject:?} }}")
    );
    assert_eq!(
        format!("{:?}", party.moderator.group),
        "Group { epoch: 1, members: 2, active: true, .. }"
    );
    assert_eq!(
        format!("{:?}", Joiner::new(SigningKey::generate().unwrap())),
        "Joiner { outstanding: 0, .. }"
    );
}
