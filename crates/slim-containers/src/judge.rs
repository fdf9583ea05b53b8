//! What everybody should have heard, against what everybody told.

use std::collections::BTreeSet;

use serde_json::Value;

/// One member: what it was given to say, and the events that it told.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// Its full name, once it is connected.
    pub name: String,
    /// Lines that it published, in order.
    pub said: Vec<String>,
    /// What it told, in order.
    pub events: Vec<Value>,
    /// It was cut off from those who were not, for so long that one may have been told
    /// that the other does not have a line.
    pub was_cut_off: bool,
}

impl Account {
    /// Events of a kind, in order.
    pub fn events<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.events.iter().filter(move |event| event["event"] == kind)
    }

    /// What it heard of somebody, in order.
    fn heard_of<'a>(&'a self, speaker: &'a Self) -> impl Iterator<Item = &'a str> {
        self.events("message")
            .filter(|event| event["source"] == speaker.name.as_str())
            .map(|event| event["payload"].as_str().unwrap_or("something that is no text"))
    }

    /// What became of its lines, in the order in which it was told.
    pub fn outcomes(&self) -> impl Iterator<Item = &Value> {
        self.events.iter().filter(|event| event["event"] == "delivered" || event["event"] == "lost")
    }
}

/// The others of a member.
fn others<'a>(accounts: &'a [Account], one: &'a Account) -> impl Iterator<Item = &'a Account> {
    accounts.iter().filter(move |other| other.name != one.name)
}

/// What was said and not heard yet, or has no outcome. Empty: it can be judged.
#[must_use]
pub fn missing(accounts: &[Account]) -> Vec<String> {
    let mut missing = Vec::new();
    for speaker in accounts {
        let said = speaker.said.len();
        for listener in others(accounts, speaker) {
            let heard = listener.heard_of(speaker).count();
            if heard < said {
                missing.push(format!(
                    "{} heard {heard} of {said} lines of {}",
                    listener.name, speaker.name
                ));
            }
        }
        let known = speaker.outcomes().count();
        if known < said {
            missing.push(format!("{} knows what became of {known} of {said} lines", speaker.name));
        }
    }
    missing
}

/// The verdict: everybody heard all that the others said, once and in order, each line
/// has an outcome, which names nobody else as without it than who was cut off from its
/// sender, and nobody complained.
///
/// # Errors
/// The first thing that is not so.
pub fn verdict(accounts: &[Account]) -> Result<(), String> {
    for account in accounts {
        for kind in ["error", "missed", "unreadable"] {
            if let Some(event) = account.events(kind).next() {
                return Err(format!("{} told {event}", account.name));
            }
        }
        if let Some(stranger) = account.events("message").find(|event| {
            !others(accounts, account).any(|other| event["source"] == other.name.as_str())
        }) {
            return Err(format!("{} heard a stranger: {stranger}", account.name));
        }
        for speaker in others(accounts, account) {
            let heard: Vec<&str> = account.heard_of(speaker).collect();
            if heard != speaker.said {
                let same = heard.iter().zip(&speaker.said).take_while(|(a, b)| *a == b).count();
                return Err(format!(
                    "{} heard {} lines of {}, who said {}; of line {same}: {:?} instead of {:?}",
                    account.name,
                    heard.len(),
                    speaker.name,
                    speaker.said.len(),
                    heard.get(same),
                    speaker.said.get(same),
                ));
            }
        }
        outcomes_are_right(account, accounts)?;
    }
    Ok(())
}

/// Each line has one outcome: delivered to all others, or, for who was cut off, lost.
fn outcomes_are_right(speaker: &Account, accounts: &[Account]) -> Result<(), String> {
    let names = |was_cut_off: bool| -> BTreeSet<&str> {
        others(accounts, speaker)
            .filter(|other| (other.was_cut_off != speaker.was_cut_off) == was_cut_off)
            .map(|other| other.name.as_str())
            .collect()
    };
    let (near, far) = (names(false), names(true));
    let mut lines = vec![0_u32; speaker.said.len()];
    for outcome in speaker.outcomes() {
        let members = outcome["members"].as_array().into_iter().flatten();
        let members: BTreeSet<&str> = members.filter_map(Value::as_str).collect();
        let is_right = if outcome["event"] == "delivered" {
            members.is_superset(&near) && members.is_subset(&(&near | &far))
        } else {
            !members.is_empty() && members.is_subset(&far)
        };
        let line = outcome["line"].as_u64().and_then(|line| usize::try_from(line).ok());
        match line.and_then(|line| lines.get_mut(line)) {
            Some(line) if is_right => *line += 1,
            _ => return Err(format!("{} told {outcome}", speaker.name)),
        }
    }
    match lines.iter().position(|outcomes| *outcomes != 1) {
        Some(line) => Err(format!("{} told {} outcomes of line {line}", speaker.name, lines[line])),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn message(source: &str, payload: &str) -> Value {
        json!({"event": "message", "source": source, "payload": payload})
    }

    fn outcome(event: &str, line: u32) -> Value {
        json!({"event": event, "line": line, "members": ["b"]})
    }

    /// `a` has said two lines; what both told of it.
    fn after(a: &[Value], b: &[Value]) -> [Account; 2] {
        let said = vec!["one".to_owned(), "two".to_owned()];
        [
            Account { name: "a".to_owned(), said, events: a.to_vec(), was_cut_off: false },
            Account { name: "b".to_owned(), events: b.to_vec(), ..Account::default() },
        ]
    }

    fn delivered() -> [Value; 2] {
        [outcome("delivered", 0), outcome("delivered", 1)]
    }

    fn check(a: &[Value], b: &[Value], complaint: Option<&str>) {
        match (verdict(&after(a, b)), complaint) {
            (Ok(()), None) => {}
            (Err(told), Some(complaint)) if told.contains(complaint) => {}
            (told, _) => panic!("{told:?} instead of {complaint:?}"),
        }
    }

    #[test]
    fn all_in_order_and_delivered_is_right() {
        let heard = [message("a", "one"), message("a", "two")];
        assert!(missing(&after(&delivered(), &heard)).is_empty());
        check(&delivered(), &heard, None);
    }

    #[test]
    fn what_is_not_there_yet_is_named() {
        let missing = missing(&after(&delivered()[..1], &[message("a", "one")]));
        assert_eq!(missing, ["b heard 1 of 2 lines of a", "a knows what became of 1 of 2 lines"]);
    }

    #[test]
    fn lost_twice_and_out_of_order_are_seen() {
        let [one, two] = [message("a", "one"), message("a", "two")];
        check(&delivered(), std::slice::from_ref(&one), Some("1 lines of a, who said 2"));
        check(&delivered(), &[one.clone(), one.clone(), two.clone()], Some("of line 1"));
        check(&delivered(), &[two.clone(), one.clone()], Some("of line 0"));
        let heard = [one, two];
        check(&[outcome("delivered", 0), outcome("lost", 1)], &heard, Some("lost"));
        check(&delivered()[..1], &heard, Some("0 outcomes of line 1"));
        check(
            &[&delivered()[..], &delivered()[..1]].concat(),
            &heard,
            Some("2 outcomes of line 0"),
        );
    }

    #[test]
    fn outcomes_name_everybody_and_lines_that_were_said() {
        let heard = [message("a", "one"), message("a", "two")];
        let nobody = json!({"event": "delivered", "line": 1, "members": []});
        check(&[outcome("delivered", 0), nobody], &heard, Some("told"));
        check(&[&delivered()[..], &[outcome("delivered", 2)]].concat(), &heard, Some("told"));
    }

    #[test]
    fn a_loss_is_for_who_was_cut_off() {
        let heard = [message("a", "one"), message("a", "two")];
        let mut both = after(&[outcome("delivered", 0), outcome("lost", 1)], &heard);
        both[1].was_cut_off = true;
        assert_eq!(verdict(&both), Ok(()));
        both[0].was_cut_off = true;
        assert!(verdict(&both).is_err(), "they were on the same side");
    }

    #[test]
    fn strangers_and_complaints_are_seen() {
        let heard = [message("a", "one"), message("a", "two")];
        check(&delivered(), &[&heard[..], &[message("c", "hi")]].concat(), Some("stranger"));
        let error = json!({"event": "error", "code": "alone"});
        check(&delivered(), &[&heard[..], &[error]].concat(), Some("alone"));
    }
}
