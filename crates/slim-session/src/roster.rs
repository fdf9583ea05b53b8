//! Who is in a session, besides ourselves.

use std::collections::BTreeMap;
use std::time::Duration;

use slim_auth::PublicKey;
use slim_proto::{Name, Participant, ParticipantState, RouteName};

/// Ticks without a sign of life after which a member counts as offline.
pub(crate) const MISSED_TICKS: u32 = 3;

/// One other member.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// As it stands in its own messages.
    pub(crate) name: Name,
    pub(crate) sends_data: bool,
    pub(crate) receives_data: bool,
    pub(crate) online: bool,
    /// Invited, but it has not confirmed its welcome.
    pub(crate) joining: bool,
    /// Ticks since it was last heard.
    pub(crate) missed: u32,
    /// When that was.
    pub(crate) heard_at: Duration,
    /// The key of its first command; later ones have to show the same.
    pub(crate) key: Option<PublicKey>,
}

impl Entry {
    pub(crate) fn new(participant: &Participant) -> Self {
        Self {
            name: participant.name.clone(),
            sends_data: participant.sends_data,
            receives_data: participant.receives_data,
            online: participant.status == ParticipantState::Online,
            joining: false,
            missed: 0,
            heard_at: Duration::ZERO,
            key: None,
        }
    }

    /// It showed that it lives.
    pub(crate) fn heard(&mut self, at: Duration) {
        self.missed = 0;
        self.heard_at = at;
    }

    pub(crate) fn participant(&self) -> Participant {
        Participant {
            name: self.name.clone(),
            sends_data: self.sends_data,
            receives_data: self.receives_data,
            status: if self.online { ParticipantState::Online } else { ParticipantState::Offline },
        }
    }
}

/// The other members, found by what routing compares. Ordered, so that a seed
/// gives the same messages in the same order.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    members: BTreeMap<RouteName, Entry>,
}

impl Roster {
    pub(crate) fn insert(&mut self, entry: Entry) {
        self.members.insert(entry.name.route(), entry);
    }

    pub(crate) fn remove(&mut self, name: &Name) -> Option<Entry> {
        self.members.remove(&name.route())
    }

    pub(crate) fn get(&self, name: &Name) -> Option<&Entry> {
        self.members.get(&name.route())
    }

    pub(crate) fn get_mut(&mut self, name: &Name) -> Option<&mut Entry> {
        self.members.get_mut(&name.route())
    }

    /// The member that `name` means: this instance, or the one instance of the
    /// readable name if it has no id.
    pub(crate) fn find(&self, name: &Name) -> Option<&Entry> {
        match name.id().is_any() {
            true => self.iter().find(|entry| entry.name.same_app(name)),
            false => self.get(name),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.members.values()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.members.values_mut()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Names of those whose answers are awaited.
    pub(crate) fn online(&self) -> impl Iterator<Item = &Name> {
        self.iter().filter(|entry| entry.online).map(|entry| &entry.name)
    }

    /// Those that get data and acknowledge it.
    pub(crate) fn receivers(&self) -> impl Iterator<Item = &Entry> {
        self.iter().filter(|entry| entry.receives_data && !entry.joining)
    }

    /// One more tick without a sign of life for everybody; gives the names of
    /// those that count as offline from now on.
    pub(crate) fn tick(&mut self) -> Vec<Name> {
        let mut silent = Vec::new();
        for entry in self.members.values_mut() {
            entry.missed = entry.missed.saturating_add(1);
            if entry.online && entry.missed >= MISSED_TICKS {
                silent.push(entry.name.clone());
            }
        }
        silent
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use slim_proto::NameId;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Insert { app: u8, id: u8, receives: bool },
        Remove(u8, u8),
        Heard(u8, u8),
        Online(u8, u8, bool),
        Joining(u8, u8, bool),
        Tick,
    }

    fn any_step() -> impl Strategy<Value = Step> {
        let who = || (0..2u8, 0..3u8);
        prop_oneof![
            (who(), any::<bool>()).prop_map(|((app, id), receives)| Step::Insert {
                app,
                id,
                receives
            }),
            who().prop_map(|(app, id)| Step::Remove(app, id)),
            who().prop_map(|(app, id)| Step::Heard(app, id)),
            (who(), any::<bool>()).prop_map(|((app, id), on)| Step::Online(app, id, on)),
            (who(), any::<bool>()).prop_map(|((app, id), on)| Step::Joining(app, id, on)),
            Just(Step::Tick),
            Just(Step::Tick),
        ]
    }

    fn name(app: u8, id: u8) -> Name {
        format!("org/ns/{app}").parse::<Name>().unwrap().with_id(NameId(id.into()))
    }

    /// A member, as a list would have it.
    #[derive(Clone, Debug)]
    struct Row {
        name: Name,
        receives: bool,
        online: bool,
        joining: bool,
        /// Ticks since it was heard.
        silent: u32,
    }

    fn sorted(mut names: Vec<Name>) -> Vec<Name> {
        names.sort();
        names
    }

    fn names<'a>(entries: impl Iterator<Item = &'a Entry>) -> Vec<Name> {
        sorted(entries.map(|entry| entry.name.clone()).collect())
    }

    proptest! {
        /// One entry for each instance, whatever its name looks like, and who is
        /// not heard for three ticks is told as long as it counts as online.
        #[test]
        fn a_roster_behaves_like_a_list(steps in prop::collection::vec(any_step(), 0..60)) {
            let mut roster = Roster::default();
            let mut list: Vec<Row> = Vec::new();
            for step in steps {
                match step {
                    Step::Insert { app, id, receives } => {
                        let name = name(app, id);
                        roster.insert(Entry::new(&Participant {
                            name: name.clone(),
                            sends_data: true,
                            receives_data: receives,
                            status: ParticipantState::Online,
                        }));
                        list.retain(|row| row.name != name);
                        list.push(Row { name, receives, online: true, joining: false, silent: 0 });
                    }
                    Step::Remove(app, id) => {
                        let name = name(app, id);
                        // Names count by what routing reads of them.
                        let removed = roster.remove(&name.without_text());
                        let row = list.iter().find(|row| row.name == name);
                        prop_assert_eq!(removed.map(|e| e.name), row.map(|row| row.name.clone()));
                        list.retain(|row| row.name != name);
                    }
                    Step::Heard(app, id) => {
                        let name = name(app, id);
                        if let Some(entry) = roster.get_mut(&name) {
                            entry.heard(Duration::ZERO);
                        }
                        list.iter_mut().filter(|row| row.name == name).for_each(|row| row.silent = 0);
                    }
                    Step::Online(app, id, online) => {
                        let name = name(app, id);
                        if let Some(entry) = roster.get_mut(&name) {
                            entry.online = online;
                        }
                        let rows = list.iter_mut().filter(|row| row.name == name);
                        rows.for_each(|row| row.online = online);
                    }
                    Step::Joining(app, id, joining) => {
                        let name = name(app, id);
                        if let Some(entry) = roster.get_mut(&name) {
                            entry.joining = joining;
                        }
                        let rows = list.iter_mut().filter(|row| row.name == name);
                        rows.for_each(|row| row.joining = joining);
                    }
                    Step::Tick => {
                        list.iter_mut().for_each(|row| row.silent += 1);
                        let silent = list.iter().filter(|row| row.online && row.silent >= 3);
                        let silent = silent.map(|row| row.name.clone()).collect();
                        prop_assert_eq!(sorted(roster.tick()), sorted(silent));
                    }
                }
                let all = list.iter().map(|row| row.name.clone()).collect();
                prop_assert_eq!(names(roster.iter()), sorted(all));
                prop_assert_eq!(roster.is_empty(), list.is_empty());
                let online = list.iter().filter(|row| row.online).map(|row| row.name.clone());
                prop_assert_eq!(sorted(roster.online().cloned().collect()), sorted(online.collect()));
                let receivers = list.iter().filter(|row| row.receives && !row.joining);
                let receivers = receivers.map(|row| row.name.clone()).collect();
                prop_assert_eq!(names(roster.receivers()), sorted(receivers));
                for (app, id) in (0..2).flat_map(|app| (0..3).map(move |id| (app, id))) {
                    let name = name(app, id);
                    let is_in = list.iter().any(|row| row.name == name);
                    prop_assert_eq!(roster.get(&name).is_some(), is_in);
                    prop_assert_eq!(roster.find(&name).is_some(), is_in);
                    let of_app = roster.find(&name.without_id());
                    let any = list.iter().any(|row| row.name.same_app(&name));
                    prop_assert_eq!(of_app.is_some(), any);
                    prop_assert!(of_app.is_none_or(|entry| entry.name.same_app(&name)));
                }
            }
        }
    }
}
