//! What the conversation's latency does beside each flood. No test: it measures.

use std::time::Duration;

use slim_node::NodeConfig;
use tokio::time::{Instant, timeout};

use crate::conversation::Scene;
use crate::floods;

/// How long each is measured.
const TIME: Duration = Duration::from_secs(5);

struct Latency {
    messages: usize,
    median: Duration,
    p99: Duration,
}

async fn measure(attack: impl AsyncFn(&Scene)) -> Latency {
    let mut scene = Scene::start(NodeConfig::default()).await;
    scene.rounds(10).await;
    let flood = async {
        attack(&scene).await;
        std::future::pending::<()>().await;
    };
    let start = Instant::now();
    timeout(TIME, flood).await.unwrap_err();
    assert!(start.elapsed() >= TIME);
    let latencies = scene.finish().await;
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
    Latency { messages: latencies.len(), median: at(0.5), p99: at(0.99) }
}

macro_rules! each {
    ($($flood:ident)*) => {
        $(
            let quiet = measure(async |_| {}).await;
            let loud = measure(floods::$flood).await;
            print(stringify!($flood), &quiet, &loud);
        )*
    };
}

#[expect(clippy::print_stdout, reason = "a report")]
fn print(name: &str, quiet: &Latency, loud: &Latency) {
    let factor = loud.p99.as_secs_f64() / quiet.p99.as_secs_f64();
    println!(
        "{name:<16} quiet {:>5} messages, median {:>9.3?}, p99 {:>9.3?}; beside it {:>5}, {:>9.3?}, {:>9.3?}: {factor:.1}",
        quiet.messages, quiet.median, quiet.p99, loud.messages, loud.median, loud.p99,
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures, and takes minutes"]
async fn latency_beside_floods() {
    each! {
        pings settings window_updates empty_data resets garbage forged_macs to_nobody
        to_the_channel
    }
}
