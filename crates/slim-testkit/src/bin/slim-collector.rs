//! An OpenTelemetry collector that keeps what it gets. It says where it listens; each
//! line of its input is answered with all spans so far, a JSON array in one line.
#![expect(clippy::print_stdout, reason = "a program that is read by others")]

use std::io;

use serde_json::{Value, json};
use slim_testkit::collector::{Collector, Span};
use tokio::runtime::Runtime;

fn main() -> io::Result<()> {
    let runtime = Runtime::new()?;
    let collector = runtime.block_on(Collector::start());
    println!("listening on {}", collector.endpoint());
    for line in io::stdin().lines() {
        line?;
        let spans: Vec<_> = collector.received().spans.iter().map(shown).collect();
        println!("{}", Value::from(spans));
    }
    Ok(())
}

fn shown(span: &Span) -> Value {
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
