//! An OpenTelemetry collector that keeps what it gets. It says where it listens; the lines
//! `spans` and `metrics` of its input are each answered with all that there are so far, a
//! JSON array in one line.
#![expect(clippy::print_stdout, reason = "a program that is read by others")]

use std::io;

use serde_json::{Value, json};
use slim_testkit::collector::{Collector, Metric, Span};
use tokio::runtime::Runtime;

fn main() -> io::Result<()> {
    let runtime = Runtime::new()?;
    let collector = runtime.block_on(Collector::start());
    println!("listening on {}", collector.endpoint());
    for line in io::stdin().lines() {
        let received = collector.received();
        let answer: Vec<_> = match &*line? {
            "spans" => received.spans.iter().map(span).collect(),
            "metrics" => received.metrics.iter().map(metric).collect(),
            other => return Err(io::Error::other(format!("neither spans nor metrics: {other}"))),
        };
        println!("{}", Value::from(answer));
    }
    Ok(())
}

fn metric(metric: &Metric) -> Value {
    json!({
        "service": metric.resource.get("service.name"),
        "name": metric.name,
        "value": metric.value,
    })
}

fn span(span: &Span) -> Value {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    json!({
        "service": span.resource.get("service.name"),
        "name": span.name,
        "trace": hex(&span.trace_id),
        "id": hex(&span.id),
        "parent": hex(&span.parent_id),
        "attributes": span.attributes,
        "error": span.error,
        "took_ns": span.took,
    })
}
