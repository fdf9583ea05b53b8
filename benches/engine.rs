//! The engine alone: no socket, no node, no clock, one thread.
//!
//! `deliver` is one message of the moderator to all others, from the command until
//! everybody has delivered it and the report is there: numbering, encryption, the
//! encoding of each copy, the gate and decryption at each receiver, all acks. Its
//! throughput counts deliveries.
//!
//! `join` and `remove` are one member more or less in a group that has the given
//! size without it: the time is that of everybody together, from the command until
//! all know. One processor of one member has about that time divided by the size to
//! spend, and the moderator somewhat more.

use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use slim_bench::engines::Engines;

fn mode(mls: bool) -> &'static str {
    if mls { "mls" } else { "plain" }
}

fn deliver(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("engine/deliver");
    for members in [2, 16] {
        for mls in [false, true] {
            let mut engines = Engines::new(members, mls);
            (1..members).for_each(|number| engines.invite(number));
            group.throughput(Throughput::Elements(members as u64 - 1));
            let payload = Bytes::from_static(&[0x5A; 512]);
            group.bench_function(BenchmarkId::new(mode(mls), members), |bencher| {
                bencher.iter(|| engines.publish(&payload));
            });
        }
    }
}

fn membership(criterion: &mut Criterion) {
    for members in [2, 10, 50] {
        for mls in [false, true] {
            let mut engines = Engines::new(members + 1, mls);
            (1..members).for_each(|number| engines.invite(number));
            let mut group = criterion.benchmark_group("engine");
            group.sample_size(10);
            // The last one comes and goes; one of both is measured.
            group.bench_function(
                BenchmarkId::new(format!("join/{}", mode(mls)), members),
                |bencher| {
                    bencher.iter_custom(|count| {
                        (0..count)
                            .map(|_| {
                                let took = timed(|| engines.invite(members));
                                engines.remove(members);
                                took
                            })
                            .sum()
                    });
                },
            );
            group.bench_function(
                BenchmarkId::new(format!("remove/{}", mode(mls)), members),
                |bencher| {
                    bencher.iter_custom(|count| {
                        (0..count)
                            .map(|_| {
                                engines.invite(members);
                                timed(|| engines.remove(members))
                            })
                            .sum()
                    });
                },
            );
        }
    }
}

fn timed(work: impl FnOnce()) -> Duration {
    let started_at = Instant::now();
    work();
    started_at.elapsed()
}

criterion_group!(benches, deliver, membership);
criterion_main!(benches);
