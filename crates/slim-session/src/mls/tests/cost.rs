//! Large groups work, and what they cost.

use std::time::{Duration, Instant};

use super::*;

const ROUNDS: u32 = 200;

fn timed<T>(what: &str, rounds: u32, mut run: impl FnMut() -> T) -> T {
    let start = Instant::now();
    let mut last = run();
    for _ in 1..rounds {
        last = run();
    }
    let each: Duration = start.elapsed() / rounds;
    println!("{what}: {each:?}");
    last
}

/// Prints what things cost beside doing them: `--nocapture` shows it.
#[test]
fn groups_of_ten_and_of_fifty() {
    let mut party = Party::new(&[]);
    let mut newest = Person::new("first");
    let mut first: Option<Member> = None;
    for count in 2..=50 {
        let print = [2, 10, 50].contains(&count);
        let name = |what: &str| format!("{what}, {count} members");
        let mut next = Person::new(&format!("member-{count}"));
        let key_package = next.key_package(now());
        let Member { person, group } = &mut party.moderator;
        let start = Instant::now();
        let added = group.add(&key_package, next.subject(), &person.identity, now()).unwrap();
        if print {
            println!("{}: {:?}", name("add"), start.elapsed());
            println!("commit {} bytes, welcome {} bytes", added.commit.len(), added.welcome.len());
        }
        if let Some(member) = &mut first {
            let start = Instant::now();
            member.process(&added.commit).unwrap();
            if print {
                println!("{}: {:?}", name("process the add"), start.elapsed());
            }
        }
        if count == 2 || print {
            let moderator = party.moderator_subject();
            let start = Instant::now();
            let group = next.join(&added.welcome, &moderator, now());
            println!("{}: {:?}", name("join"), start.elapsed());
            std::mem::swap(&mut newest, &mut next);
            let mut joined = Member { person: next, group };
            let aad = [b'a'; 400];
            let payload = [b'p'; 1024];
            let group = &mut party.moderator.group;
            let mut messages = Vec::new();
            timed(&name("encrypt 1 KiB"), ROUNDS, || {
                messages.push(group.encrypt(&aad, &payload).unwrap());
            });
            let mut received = messages.iter();
            let decrypted = timed(&name("decrypt 1 KiB"), ROUNDS, || {
                let message = received.next().unwrap();
                joined.group.decrypt(message).unwrap()
            });
            assert_eq!(decrypted.plaintext, payload.as_slice());
            println!("{} bytes", messages[0].len());
            first = Some(joined);
        }
    }
    let mut member = first.unwrap();
    let leaver = subjects(&party.moderator.group)[7].clone();
    let commit = timed("remove, 50 members", 1, || party.moderator.group.remove(&leaver).unwrap());
    timed("process the removal, 50 members", 1, || member.process(&commit).unwrap());
    let commit = timed("refresh, 49 members", 1, || party.refresh());
    timed("process the refresh, 49 members", 1, || member.process(&commit).unwrap());
    assert_eq!(member.group.members().count(), 49);
    let message = party.moderator.encrypt("still here");
    assert_eq!(member.decrypt(&message), Ok("still here".to_owned()));
}
