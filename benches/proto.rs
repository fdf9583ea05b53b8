//! The pure part: names, encoding, and what a node does with a frame, without a
//! socket.
//!
//! `forward` is one received message on its way to all subscribers: read the
//! header, check the received MAC, then for each subscriber a MAC of its link and
//! the bytes that differ. Its throughput counts copies that could be written.

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ring::hmac;
use slim_bench::{PAYLOADS, publish};
use slim_proto::{Frame, Message, Name, RoutedFrame, canonical};

fn names(criterion: &mut Criterion) {
    criterion.bench_function("name/parse_and_hash", |bencher| {
        bencher.iter(|| black_box("agntcy/ns/client-1").parse::<Name>());
    });
}

fn messages(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("message");
    for payload in PAYLOADS {
        let message = publish(payload);
        let bytes = message.encode();
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_with_input(
            BenchmarkId::new("encode", payload),
            &message,
            |bencher, message| {
                bencher.iter(|| message.encode());
            },
        );
        group.bench_with_input(BenchmarkId::new("decode", payload), &bytes, |bencher, bytes| {
            bencher.iter(|| Message::decode(bytes.clone()));
        });
    }
}

fn macs(criterion: &mut Criterion) {
    let link = Link::new(0);
    let frame = routed(publish(512).encode());
    criterion.bench_function("mac/header", |bencher| {
        let mut body = Vec::new();
        bencher.iter(|| {
            body.clear();
            frame.put_mac_body(&mut body);
            link.mac(&body)
        });
    });
}

fn frames(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame");
    for payload in PAYLOADS {
        let bytes = publish(payload).encode();
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_with_input(BenchmarkId::new("parse", payload), &bytes, |bencher, bytes| {
            bencher.iter(|| Frame::parse(bytes.clone()));
        });
    }
    for subscribers in [1, 16, 128] {
        let publisher = Link::new(0);
        let links: Vec<Link> = (1..=subscribers).map(Link::new).collect();
        let bytes = publish(512).encode();
        group.throughput(Throughput::Elements(subscribers));
        group.bench_with_input(
            BenchmarkId::new("forward", subscribers),
            &bytes,
            |bencher, bytes| {
                let mut body = Vec::new();
                let mut out = BytesMut::new();
                bencher.iter(|| {
                    let frame = routed(bytes.clone());
                    body.clear();
                    frame.put_mac_body(&mut body);
                    black_box(publisher.mac(&body));
                    let copy = frame.forward().expect("hops are left");
                    for link in &links {
                        out.clear();
                        copy.write_head(&link.mac(copy.mac_body()), &mut out);
                        black_box((&out, copy.tail()));
                    }
                });
            },
        );
    }
}

/// What a node keeps of a link to sign for it: the key, with the link's id
/// already taken in.
struct Link(hmac::Context);

impl Link {
    fn new(number: u64) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &number.to_be_bytes());
        let mut context = hmac::Context::with_key(&key);
        context.update(&canonical::mac_prefix("0f8fad5b-d9cb-469f-a165-70867728950e"));
        Self(context)
    }

    fn mac(&self, body: &[u8]) -> [u8; 32] {
        let mut context = self.0.clone();
        context.update(body);
        context.sign().as_ref().try_into().expect("SHA-256 gives 32 bytes")
    }
}

fn routed(bytes: Bytes) -> RoutedFrame {
    match Frame::parse(bytes) {
        Ok(Frame::Publish(frame)) => frame,
        other => panic!("not a publish: {other:?}"),
    }
}

criterion_group!(benches, names, messages, macs, frames);
criterion_main!(benches);
