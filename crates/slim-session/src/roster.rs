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
