use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

type Table = Arc<RouteTable<u64>>;

const NO_LIMIT: usize = usize::MAX;

fn name(prefix: u64, id: u128) -> RouteName {
    RouteName { components: [prefix, prefix + 1, prefix + 2], id: NameId(id) }
}

fn any_of(prefix: u64) -> RouteName {
    RouteName { id: NameId::ANY, ..name(prefix, 0) }
}

fn link(table: &Table, number: u64) -> LinkRoutes<u64> {
    table.attach(Arc::new(number), NO_LIMIT)
}

/// The links that a message to all gets to, in order of their numbers.
fn all(table: &Table, name: &RouteName, from: &LinkRoutes<u64>) -> Vec<u64> {
    let mut targets = Vec::new();
    table.all(name, from.link(), &mut targets);
    let mut numbers: Vec<u64> = targets.iter().map(|link| **link).collect();
    numbers.sort_unstable();
    numbers
}

fn any(table: &Table, name: &RouteName, from: &LinkRoutes<u64>) -> Option<u64> {
    table.any(name, from.link(), |_| true).map(|link| *link)
}

/// How often each link was picked.
fn picks(
    table: &Table,
    name: &RouteName,
    from: &LinkRoutes<u64>,
    n: usize,
) -> BTreeMap<u64, usize> {
    let mut picks = BTreeMap::new();
    for _ in 0..n {
        let picked = any(table, name, from).expect("somebody has subscribed");
        *picks.entry(picked).or_insert(0) += 1;
    }
    picks
}

#[test]
fn an_id_is_matched_exactly() {
    let table = Table::default();
    let (from, mut one) = (link(&table, 0), link(&table, 1));
    one.subscribe(&name(1, 7), 100).unwrap();
    assert_eq!(all(&table, &name(1, 7), &from), [1]);
    assert_eq!(any(&table, &name(1, 7), &from), Some(1));
    assert_eq!(all(&table, &name(1, 8), &from), [0; 0]);
    assert_eq!(any(&table, &name(2, 7), &from), None);
    assert_eq!(any(&table, &any_of(1), &from), Some(1));
    assert_eq!(any(&table, &any_of(2), &from), None);
}

/// All names, a few at a time, each with the numbers of its links.
fn pages(table: &Table, limit: usize) -> BTreeMap<RouteName, Vec<u64>> {
    let (mut all, mut from) = (BTreeMap::new(), Some(RoutePlace::default()));
    while let Some(place) = from {
        let (page, next) = table.page(place, limit, |name, links| {
            (*name, links.map(|link| **link).collect::<Vec<_>>())
        });
        assert!(page.len() <= limit);
        let left = next.map_or(0, |next| table.names_from(next));
        assert_eq!(left, table.names() - all.len() - page.len());
        for (name, links) in page {
            assert_eq!(all.insert(name, links), None, "{name:?} comes twice");
        }
        from = next;
    }
    all
}

#[test]
fn the_whole_table_can_be_shown_page_by_page() {
    let table = Table::default();
    let (mut one, mut two) = (link(&table, 1), link(&table, 2));
    let mut expected = BTreeMap::new();
    for id in 0..50 {
        one.subscribe(&name(id as u64 % 7, id), 100).unwrap();
        expected.insert(name(id as u64 % 7, id), vec![1]);
    }
    two.subscribe(&name(3, 3), 100).unwrap();
    expected.get_mut(&name(3, 3)).unwrap().push(2);
    assert_eq!(table.names(), 50);
    for limit in [1, 3, 50, 1000] {
        assert_eq!(pages(&table, limit), expected);
    }
    let show =
        |name: &RouteName, links: &mut dyn Iterator<Item = &Arc<u64>>| (name.id.0, links.count());
    let (mut some, count) = table.instances(name(3, 0).components, 100, show);
    some.sort_unstable();
    let ids = [3, 10, 17, 24, 31, 38, 45];
    assert_eq!((some, count), (ids.map(|id| (id, if id == 3 { 2 } else { 1 })).to_vec(), 7));
    assert_eq!(table.instances(name(3, 0).components, 2, show).0.len(), 2);
    assert_eq!(table.instances(name(9, 0).components, 2, show), (vec![], 0));
    two.subscribe(&name(9, 1), 100).unwrap();
    assert_eq!(table.instances(name(9, 0).components, 2, show), (vec![(1, 1)], 1));
    assert!(two.contains(&name(9, 1)) && !one.contains(&name(9, 1)));
    assert_eq!((one.len(), two.len(), two.is_empty()), (50, 2, false));
}

#[test]
fn a_wildcard_subscription_is_not_matched_by_an_id() {
    let table = Table::default();
    let (from, mut one) = (link(&table, 0), link(&table, 1));
    one.subscribe(&any_of(1), 100).unwrap();
    assert_eq!(any(&table, &name(1, 7), &from), None);
    assert_eq!(any(&table, &any_of(1), &from), Some(1));
}

#[test]
fn a_link_never_gets_its_own_message() {
    let table = Table::default();
    let (mut one, mut two) = (link(&table, 1), link(&table, 2));
    one.subscribe(&name(1, 7), 100).unwrap();
    assert_eq!(any(&table, &name(1, 7), &one), None);
    two.subscribe(&name(1, 7), 100).unwrap();
    assert_eq!(all(&table, &name(1, 7), &one), [2]);
    assert_eq!(picks(&table, &name(1, 7), &one, 3), BTreeMap::from([(2, 3)]));
}

#[test]
fn subscribers_take_turns() {
    let table = Table::default();
    let from = link(&table, 0);
    let mut links: Vec<_> = (1..=3).map(|number| link(&table, number)).collect();
    for (id, link) in (0..).zip(&mut links) {
        link.subscribe(&name(1, id), 100).unwrap();
        link.subscribe(&name(2, 7), 101).unwrap();
    }
    let two_each = BTreeMap::from([(1, 2), (2, 2), (3, 2)]);
    assert_eq!(picks(&table, &any_of(1), &from, 6), two_each);
    assert_eq!(picks(&table, &name(2, 7), &from, 6), two_each);
    // The sender's own turn goes to nobody in particular.
    assert_eq!(picks(&table, &name(2, 7), &links[1], 6), BTreeMap::from([(1, 3), (3, 3)]));
}

#[test]
fn who_is_not_usable_is_passed_over() {
    let table = Table::default();
    let from = link(&table, 0);
    let mut links: Vec<_> = (1..=3).map(|number| link(&table, number)).collect();
    for link in &mut links {
        link.subscribe(&name(1, 7), 100).unwrap();
    }
    for _ in 0..6 {
        let picked = table.any(&name(1, 7), from.link(), |number| *number == 2);
        assert_eq!(picked.map(|link| *link), Some(2));
    }
    assert_eq!(table.any(&name(1, 7), from.link(), |_| false), None);
}

#[test]
fn a_link_gets_one_copy_however_many_ids_it_has() {
    let table = Table::default();
    let (from, mut one) = (link(&table, 0), link(&table, 1));
    for id in 0..5 {
        one.subscribe(&name(1, id), 100).unwrap();
        one.subscribe(&name(1, id), 101).unwrap();
    }
    assert_eq!(all(&table, &any_of(1), &from), [1]);
    assert_eq!(all(&table, &name(1, 3), &from), [1]);
}

#[test]
fn the_route_goes_with_the_last_subscription() {
    let table = Table::default();
    let (from, mut one) = (link(&table, 0), link(&table, 1));
    for id in [100, 101, 101] {
        one.subscribe(&name(1, 7), id).unwrap();
    }
    one.unsubscribe(&name(1, 7), 101).unwrap();
    assert_eq!(all(&table, &name(1, 7), &from), [1]);
    one.unsubscribe(&name(1, 7), 100).unwrap();
    assert_eq!(all(&table, &name(1, 7), &from), [0; 0]);
    assert_eq!(table.subscriptions(), 0);
}

#[test]
fn a_wrong_unsubscribe_says_what_is_wrong_and_changes_nothing() {
    let table = Table::default();
    let (mut one, mut two) = (link(&table, 1), link(&table, 2));
    one.subscribe(&name(1, 7), 100).unwrap();
    let check = |link: &mut LinkRoutes<u64>, name, id, text: &str| {
        assert_eq!(link.unsubscribe(&name, id).unwrap_err().to_string(), text);
    };
    check(&mut one, name(2, 7), 100, "subscription not found");
    check(&mut one, name(1, 8), 100, "id not found: 00000000-0000-0000-0000-000000000008");
    check(&mut one, any_of(1), 100, "id not found: NULL_COMPONENT");
    check(&mut one, name(1, 7), 101, "subscription id not found: 101");
    check(&mut two, name(1, 7), 100, "subscription id not found: 100");
    assert_eq!(all(&table, &name(1, 7), &two), [1]);
}

#[test]
fn after_a_reconnect_any_id_withdraws_a_subscription_without_one() {
    let table = Table::default();
    let (from, mut one) = (link(&table, 0), link(&table, 1));
    one.subscribe(&name(1, 7), 0).unwrap();
    one.subscribe(&name(1, 7), 0).unwrap();
    one.unsubscribe(&name(1, 7), 100).unwrap();
    assert_eq!(all(&table, &name(1, 7), &from), [1], "the second of them is still wanted");
    one.subscribe(&name(1, 7), 102).unwrap();
    assert_eq!(
        one.unsubscribe(&name(1, 7), 101),
        Err(SubscriptionError::UnknownSubscription(101)),
        "it may mean the one with an id"
    );
    one.unsubscribe(&name(1, 7), 102).unwrap();
    one.unsubscribe(&name(1, 7), 101).unwrap();
    assert_eq!(all(&table, &name(1, 7), &from), [0; 0]);
}

#[test]
fn a_lost_link_leaves_nothing_behind() {
    let table = Table::default();
    let (from, mut one, mut two) = (link(&table, 0), link(&table, 1), link(&table, 2));
    for id in 0..100 {
        one.subscribe(&name(1, id), 100).unwrap();
        one.subscribe(&name(id as u64, 7), 0).unwrap();
    }
    two.subscribe(&name(1, 7), 100).unwrap();
    assert!(one.release(50), "more than fifty");
    drop(one);
    assert_eq!(all(&table, &any_of(1), &from), [2]);
    assert_eq!(table.subscriptions(), 1);
    assert!(!two.release(50));
    let entries: usize = table.shards.iter().map(|shard| shard.read().unwrap().entries.len()).sum();
    let rest: usize = table
        .shards
        .iter()
        .map(|shard| shard.read().unwrap())
        .map(|shard| shard.names.len() + shard.prefixes.len() + shard.services.len())
        .sum();
    assert_eq!((entries, rest), (0, 0));
}

#[test]
fn the_routes_of_a_task_that_panics_are_removed() {
    let table = Table::default();
    let mut one = link(&table, 1);
    let task = std::thread::spawn(move || {
        one.subscribe(&name(1, 7), 100).unwrap();
        panic!("on purpose");
    });
    task.join().unwrap_err();
    assert_eq!(table.subscriptions(), 0);
    assert_eq!(any(&table, &name(1, 7), &link(&table, 2)), None);
}

#[test]
fn a_link_has_a_limit_and_others_have_their_own() {
    let table = Table::default();
    let mut one = table.attach(Arc::new(1), 2);
    one.subscribe(&name(1, 1), 1).unwrap();
    one.subscribe(&name(1, 1), 2).unwrap();
    one.subscribe(&name(1, 1), 2).unwrap();
    assert_eq!(one.subscribe(&name(1, 1), 3), Err(SubscriptionError::TooMany(2)));
    assert_eq!(one.subscribe(&name(1, 2), 1), Err(SubscriptionError::TooMany(2)));
    link(&table, 2).subscribe(&name(1, 2), 1).unwrap();
    one.unsubscribe(&name(1, 1), 2).unwrap();
    one.subscribe(&name(1, 2), 1).unwrap();
    one.set_limit(1);
    assert_eq!(one.subscribe(&name(1, 3), 1), Err(SubscriptionError::TooMany(1)));
    assert_eq!(all(&table, &name(1, 2), &link(&table, 3)), [1], "what it has it keeps");
    one.set_limit(3);
    one.subscribe(&name(1, 3), 1).unwrap();
}

#[test]
fn a_subscription_is_stored_densely() {
    assert_eq!(size_of::<Option<Entry<u64>>>(), 56, "40 of them are the name");
    assert_eq!(size_of::<Prefix>(), 8);
    assert_eq!(size_of::<(EntryRef, Ids)>(), 24);
}

/// What the table must do, as simply as it can be said.
#[derive(Default)]
struct Model {
    records: BTreeMap<(u64, RouteName), BTreeMap<u64, u32>>,
}

impl Model {
    fn subscribe(&mut self, link: u64, name: RouteName, id: u64) -> bool {
        let is_new = !self.records.contains_key(&(link, name));
        let count = self.records.entry((link, name)).or_default().entry(id).or_insert(0);
        *count = if id == 0 { *count + 1 } else { 1 };
        is_new
    }

    fn unsubscribe(
        &mut self,
        link: u64,
        name: RouteName,
        id: u64,
    ) -> Result<bool, SubscriptionError> {
        if !self.records.keys().any(|(_, known)| known.components == name.components) {
            return Err(SubscriptionError::UnknownName);
        }
        if !self.records.keys().any(|(_, known)| *known == name) {
            return Err(SubscriptionError::UnknownId(name.id));
        }
        let unknown = SubscriptionError::UnknownSubscription(id);
        let ids = self.records.get_mut(&(link, name)).ok_or(unknown)?;
        let only_zero = ids.keys().all(|id| *id == 0);
        let id = if only_zero { 0 } else { id };
        let count = ids.get_mut(&id).ok_or(unknown)?;
        *count -= 1;
        if *count == 0 {
            ids.remove(&id);
        }
        let is_gone = ids.is_empty();
        if is_gone {
            self.records.remove(&(link, name));
        }
        Ok(is_gone)
    }

    /// The names that it had.
    fn lose(&mut self, link: u64) -> BTreeSet<RouteName> {
        let lost = self.records.extract_if(.., |(other, _), _| *other == link);
        lost.map(|((_, name), _)| name).collect()
    }

    fn targets(&self, name: RouteName, from: u64) -> BTreeSet<u64> {
        self.records
            .keys()
            .filter(|(link, known)| {
                *link != from
                    && known.components == name.components
                    && (name.id.is_any() || known.id == name.id)
            })
            .map(|(link, _)| *link)
            .collect()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Subscribe(usize, RouteName, u64),
    Unsubscribe(usize, RouteName, u64),
    Lose(usize),
}

const LINKS: usize = 4;

fn some_name() -> impl Strategy<Value = RouteName> {
    (0..3_u64, 0..4_u128).prop_map(
        |(prefix, id)| {
            if id == 0 { any_of(prefix) } else { name(prefix, id) }
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let subscription = || (0..LINKS, some_name(), 0..3_u64);
    prop_oneof![
        6 => subscription().prop_map(|(link, name, id)| Step::Subscribe(link, name, id)),
        4 => subscription().prop_map(|(link, name, id)| Step::Unsubscribe(link, name, id)),
        1 => (0..LINKS).prop_map(Step::Lose),
    ]
}

proptest! {
    #[test]
    fn behaves_like_the_model(steps in prop::collection::vec(step(), 1..40)) {
        let table = Table::default();
        let mut model = Model::default();
        let mut links: Vec<_> = (0..LINKS as u64).map(|number| link(&table, number)).collect();
        for step in steps {
            match step {
                Step::Subscribe(at, name, id) => {
                    let is_new = links[at].subscribe(&name, id).unwrap();
                    prop_assert_eq!(is_new, model.subscribe(at as u64, name, id));
                }
                Step::Unsubscribe(at, name, id) => {
                    let result = links[at].unsubscribe(&name, id);
                    prop_assert_eq!(result, model.unsubscribe(at as u64, name, id));
                }
                Step::Lose(at) => {
                    let mut lost = BTreeSet::new();
                    while links[at].release_each(2, |name| lost.extend([name])) {}
                    prop_assert_eq!(lost, model.lose(at as u64));
                    links[at] = link(&table, at as u64);
                }
            }
            prop_assert_eq!(table.subscriptions(), model.records.len());
            for name in (0..3).flat_map(|p| [any_of(p), name(p, 1), name(p, 2), name(p, 3)]) {
                for from in &links {
                    let expected = model.targets(name, **from.link());
                    let targets = all(&table, &name, from);
                    prop_assert_eq!(&targets, &expected.iter().copied().collect::<Vec<_>>());
                    match targets.len() {
                        0 => prop_assert_eq!(any(&table, &name, from), None),
                        n => {
                            let fair: BTreeMap<u64, usize> =
                                expected.into_iter().map(|link| (link, 2)).collect();
                            prop_assert_eq!(picks(&table, &name, from, 2 * n), fair);
                        }
                    }
                }
            }
        }
    }
}
