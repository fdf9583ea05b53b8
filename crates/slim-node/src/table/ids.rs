//! The subscription ids under which one link has subscribed to one name.

use std::collections::HashSet;

/// At least one id. Nearly always exactly one.
#[derive(Debug)]
pub(super) enum Ids {
    One(u64),
    Many(Box<Many>),
}

#[derive(Debug)]
pub(super) struct Many {
    /// Ids other than 0.
    numbered: HashSet<u64>,
    /// How many subscriptions came with id 0.
    zero: u32,
}

/// What a removal has changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Removed {
    /// It was the last subscription: the link no longer wants the name.
    pub(super) last: bool,
    /// One id less is on record.
    pub(super) record: bool,
}

impl Ids {
    pub(super) fn contains(&self, id: u64) -> bool {
        match self {
            Self::One(one) => *one == id,
            Self::Many(many) if id == 0 => many.zero > 0,
            Self::Many(many) => many.numbered.contains(&id),
        }
    }

    /// How many ids are on record.
    pub(super) fn records(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Many(many) => many.numbered.len() + usize::from(many.zero > 0),
        }
    }

    /// Says whether one id more is on record. Id 0 is one record however often
    /// it came.
    pub(super) fn insert(&mut self, id: u64) -> bool {
        match self {
            Self::One(one) if *one == id && id != 0 => false,
            Self::One(one) => {
                let mut many = Many { numbered: HashSet::new(), zero: 0 };
                many.insert(*one);
                let new = many.insert(id);
                *self = Self::Many(Box::new(many));
                new
            }
            Self::Many(many) => many.insert(id),
        }
    }

    /// `None` if the id is not on record and there are others than 0.
    pub(super) fn remove(&mut self, id: u64) -> Option<Removed> {
        match self {
            Self::One(one) => {
                (*one == id || *one == 0).then_some(Removed { last: true, record: true })
            }
            Self::Many(many) if many.numbered.contains(&id) => {
                many.numbered.remove(&id);
                let last = many.numbered.is_empty() && many.zero == 0;
                Some(Removed { last, record: true })
            }
            Self::Many(many) if many.zero > 0 && (id == 0 || many.numbered.is_empty()) => {
                many.zero -= 1;
                let record = many.zero == 0;
                Some(Removed { last: record && many.numbered.is_empty(), record })
            }
            Self::Many(_) => None,
        }
    }
}

impl Many {
    fn insert(&mut self, id: u64) -> bool {
        if id == 0 {
            self.zero = self.zero.saturating_add(1);
            return self.zero == 1;
        }
        self.numbered.insert(id)
    }
}
