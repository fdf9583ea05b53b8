//! The links that want what is sent to a name.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use indexmap::IndexMap;

/// A set of links, each with a count; never empty while it is in the table. Most
/// names have one subscriber, which then costs sixteen bytes.
pub(super) enum Members<T> {
    One(Arc<T>, u32),
    Many(Box<Many<T>>),
}

pub(super) struct Many<T> {
    links: IndexMap<ByAddress<T>, u32>,
    /// Whose turn it is, modulo the number of links.
    turn: AtomicU32,
}

impl<T> Members<T> {
    pub(super) fn new(link: &Arc<T>) -> Self {
        Self::One(Arc::clone(link), 1)
    }

    /// The same links, each counted once.
    pub(super) fn duplicate(&self) -> Self {
        match self {
            Self::One(link, _) => Self::new(link),
            Self::Many(many) => Self::Many(Box::new(Many {
                links: many.links.keys().map(|link| (link.clone(), 1)).collect(),
                turn: AtomicU32::new(many.turn.load(Ordering::Relaxed)),
            })),
        }
    }

    /// Counts a link once more.
    pub(super) fn add(&mut self, link: &Arc<T>) {
        match self {
            Self::One(one, count) if Arc::ptr_eq(one, link) => *count += 1,
            Self::One(one, count) => {
                let first = (ByAddress(Arc::clone(one)), *count);
                let second = (ByAddress(Arc::clone(link)), 1);
                let links = IndexMap::from_iter([first, second]);
                *self = Self::Many(Box::new(Many { links, turn: AtomicU32::new(0) }));
            }
            Self::Many(many) => *many.links.entry(ByAddress(Arc::clone(link))).or_insert(0) += 1,
        }
    }

    /// Counts a link once less, and says whether no link is left.
    pub(super) fn remove(&mut self, link: &Arc<T>) -> bool {
        match self {
            Self::One(one, count) => {
                *count -= u32::from(Arc::ptr_eq(one, link));
                *count == 0
            }
            Self::Many(many) => {
                let link = ByAddress(Arc::clone(link));
                let Some(count) = many.links.get_mut(&link) else {
                    return false;
                };
                *count -= 1;
                if *count == 0 {
                    many.links.swap_remove(&link);
                }
                if many.links.len() == 1
                    && let Some((last, count)) = many.links.pop()
                {
                    *self = Self::One(last.0, count);
                }
                false
            }
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<T>> {
        let (one, many) = match self {
            Self::One(link, _) => (Some(link), None),
            Self::Many(many) => (None, Some(many.links.keys().map(|link| &link.0))),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }

    /// The next in turn that is usable and not `from`. Turns are counted among
    /// the others only: were `from` merely skipped, its neighbour would get its
    /// share too.
    pub(super) fn pick(&self, from: &Arc<T>, usable: impl Fn(&T) -> bool) -> Option<Arc<T>> {
        let many = match self {
            Self::One(link, _) => {
                return (!Arc::ptr_eq(link, from) && usable(link)).then(|| Arc::clone(link));
            }
            Self::Many(many) => many,
        };
        let own = many.links.get_index_of(&ByAddress(Arc::clone(from)));
        let others = many.links.len() - usize::from(own.is_some());
        (0..others).find_map(|_| {
            let turn = many.turn.fetch_add(1, Ordering::Relaxed) as usize % others;
            let index = if own.is_some_and(|own| turn >= own) { turn + 1 } else { turn };
            let (link, _) = many.links.get_index(index)?;
            usable(&link.0).then(|| Arc::clone(&link.0))
        })
    }
}

/// A link as a key: equal only to itself.
struct ByAddress<T>(Arc<T>);

impl<T> Clone for ByAddress<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> PartialEq for ByAddress<T> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<T> Eq for ByAddress<T> {}

impl<T> Hash for ByAddress<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}
