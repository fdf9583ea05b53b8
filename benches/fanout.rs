//! The whole way, over loopback: one publisher, an embedded node, and 1 to 512
//! subscribers of a channel, each with a link of its own.
//!
//! The throughput is messages *delivered* per second: received and decoded by the
//! subscribers. Publisher, node and subscribers share this process and its cores,
//! so a number says how expensive a delivery is, not how much a node on a machine
//! of its own can do.

use std::future;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use slim_bench::{PAYLOADS, client, publish};
use slim_link::{DialConfig, LinkSender, Target};
use slim_node::{Node, NodeConfig};
use slim_proto::Message;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// More than any sample takes; then something is lost, and a number would lie.
const TIMEOUT: Duration = Duration::from_secs(120);

fn fanout(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let mut group = criterion.benchmark_group("fanout");
    group.sample_size(10);
    for subscribers in [1, 8, 64, 512] {
        for payload in PAYLOADS {
            let mut stage = runtime.block_on(Stage::new(subscribers, payload));
            group.throughput(Throughput::Elements(subscribers as u64));
            let id = BenchmarkId::new(format!("1_to_{subscribers}"), payload);
            group.bench_function(id, |bencher| {
                bencher.iter_custom(|count| {
                    let sample = async { timeout(TIMEOUT, stage.deliver(count)).await };
                    runtime.block_on(sample).expect("every message is delivered")
                });
            });
        }
    }
}

/// A node with everybody connected and subscribed. Ends when dropped.
struct Stage {
    publisher: LinkSender,
    message: Message,
    /// How many messages each subscriber is to receive next.
    orders: Vec<mpsc::Sender<u64>>,
    /// One entry for each subscriber that has received as many.
    done: mpsc::Receiver<()>,
    _node: Task,
    _publisher: Task,
    _subscribers: Vec<Task>,
}

/// A task that ends with its handle.
struct Task(tokio::task::JoinHandle<()>);

impl Task {
    fn spawn(work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(work))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Stage {
    async fn new(subscribers: usize, payload: usize) -> Self {
        let listen = vec![std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()];
        let node = Node::bind(NodeConfig { listen, ..NodeConfig::default() });
        let node = node.await.expect("a free port");
        let target: Target = node.local_addrs()[0].to_string().parse().expect("an address");
        let node = Task::spawn(async {
            node.run(future::pending()).await.expect("the node serves");
        });

        let (finished, done) = mpsc::channel(subscribers);
        let mut orders = Vec::new();
        let mut tasks = Vec::new();
        for number in 1..=subscribers {
            let link = client::subscriber(&target, DialConfig::default(), number);
            let (sender, mut receiver) = link.await.expect("the node answers");
            let (order, mut ordered) = mpsc::channel::<u64>(1);
            let finished = finished.clone();
            tasks.push(Task::spawn(async move {
                // Held as long as messages are received: without it the link ends.
                let _sender = sender;
                while let Some(count) = ordered.recv().await {
                    for _ in 0..count {
                        receiver.recv().await.expect("the link holds");
                    }
                    finished.send(()).await.expect("the benchmark waits");
                }
            }));
            orders.push(order);
        }

        let link = client::connect(&target, DialConfig::default());
        let (publisher, mut nothing) = link.await.expect("the node answers");
        let receive = Task::spawn(async move { while nothing.recv().await.is_ok() {} });
        Self {
            publisher,
            message: publish(payload),
            orders,
            done,
            _node: node,
            _publisher: receive,
            _subscribers: tasks,
        }
    }

    /// Publishes `count` messages and waits until all subscribers have them all.
    async fn deliver(&mut self, count: u64) -> Duration {
        let started_at = Instant::now();
        for order in &self.orders {
            order.send(count).await.expect("the subscriber runs");
        }
        for _ in 0..count {
            self.publisher.send(&self.message).await.expect("the link holds");
        }
        for _ in &self.orders {
            self.done.recv().await.expect("the subscribers run");
        }
        started_at.elapsed()
    }
}

criterion_group!(benches, fanout);
criterion_main!(benches);
