//! The routing table alone.
//!
//! `subscribe` is one link's subscription to a new name with so many in the table
//! already; `exact` finds the one link of one name among a million; `anycast` and
//! `broadcast` ask for any one and for all of so many instances of a service;
//! `disconnect` is the loss of a link that owns so many names while a million others
//! stay.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use slim_node::{LinkRoutes, RouteTable};
use slim_proto::{NameId, RouteName};

const MILLION: u64 = 1_000_000;

/// The links of these tables are numbers.
type Routes = LinkRoutes<u64>;

fn name(number: u64) -> RouteName {
    // What the hash of a name looks like, without hashing a million texts.
    let spread = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    RouteName { components: [1, 2, spread], id: NameId(u128::from(number) + 1) }
}

fn instance(number: u64) -> RouteName {
    RouteName { components: [3, 4, 5], id: NameId(u128::from(number) + 1) }
}

fn attach(table: &Arc<RouteTable<u64>>, link: u64) -> Routes {
    table.attach(Arc::new(link), usize::MAX)
}

/// A table, and a link that owns so many names of it.
fn filled(names: u64) -> (Arc<RouteTable<u64>>, Routes) {
    let table = Arc::new(RouteTable::new());
    let mut routes = attach(&table, 0);
    for number in 0..names {
        routes.subscribe(&name(number), number).expect("there is no limit");
    }
    (table, routes)
}

fn subscribe(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("routes/subscribe");
    for names in [1000, MILLION] {
        let (_table, mut routes) = filled(names);
        let mut number = names;
        group.bench_function(BenchmarkId::from_parameter(names), |bencher| {
            bencher.iter_batched(
                || {
                    let last = name(number);
                    number += 1;
                    last
                },
                |new| routes.subscribe(&new, 1).is_ok(),
                BatchSize::SmallInput,
            );
        });
    }
}

fn look_up(criterion: &mut Criterion) {
    let (table, _routes) = filled(MILLION);
    let from = Arc::new(1);
    let mut number = 0;
    criterion.bench_function("routes/exact/1000000", |bencher| {
        bencher.iter(|| {
            // Far from the last one, so that no cache helps.
            number = (number + 611_953) % MILLION;
            table.any(&name(number), &from, |_| true).is_some()
        });
    });
    for instances in [1, 16, 1000] {
        let table = Arc::new(RouteTable::new());
        let _links: Vec<Routes> = (0..instances)
            .map(|number| {
                let mut routes = attach(&table, number);
                routes.subscribe(&instance(number), 1).expect("there is no limit");
                routes
            })
            .collect();
        let service = RouteName { id: NameId::ANY, ..instance(0) };
        criterion.bench_function(&format!("routes/anycast/{instances}"), |bencher| {
            bencher.iter(|| table.any(black_box(&service), &from, |_| true).is_some());
        });
        let mut group = criterion.benchmark_group("routes/broadcast");
        group.throughput(Throughput::Elements(instances));
        group.bench_function(BenchmarkId::from_parameter(instances), |bencher| {
            let mut targets = Vec::new();
            bencher.iter(|| {
                targets.clear();
                table.all(black_box(&service), &from, &mut targets);
                targets.len()
            });
        });
    }
}

fn disconnect(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("routes/disconnect");
    let (table, _routes) = filled(MILLION);
    for names in [1, 1000] {
        group.throughput(Throughput::Elements(names));
        group.bench_function(BenchmarkId::from_parameter(names), |bencher| {
            bencher.iter_batched(
                || {
                    let mut routes = attach(&table, 1);
                    for number in 0..names {
                        let own = name(2 * MILLION + number);
                        routes.subscribe(&own, 1).expect("there is no limit");
                    }
                    routes
                },
                drop,
                BatchSize::PerIteration,
            );
        });
    }
}

criterion_group!(benches, subscribe, look_up, disconnect);
criterion_main!(benches);
