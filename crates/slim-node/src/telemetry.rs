//! What [`NodeConfig::telemetry`](crate::NodeConfig::telemetry) turns on: the node's part
//! of a message's trace, and the metrics, for the OpenTelemetry provider of the process.
//!
//! A sender puts the W3C trace context into a message's metadata. The node reads it there
//! and changes nothing: its span is a child of the sender's, beside those of receivers
//! and of other nodes. Messages without one, or whose sender does not sample, have none,
//! nor have those that the policy denies.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use opentelemetry::global::{self, BoxedSpan, BoxedTracer};
use opentelemetry::metrics::Meter;
use opentelemetry::propagation::Extractor;
use opentelemetry::trace::{Span as _, SpanKind, Status, TraceContextExt as _, Tracer as _};
use opentelemetry::{Context, KeyValue};
use slim_proto::RoutedFrame;
use slim_proto::canonical::TRACE_CONTEXT;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::families::{Family, Kind, Sample, Value};
use crate::metrics::Counter;
use crate::view::View;

/// What spans and metrics are said to come from.
const SCOPE: &str = "slim-node";

/// How often metrics are read anew.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(5);

/// Makes spans.
#[derive(Debug)]
pub(crate) struct Tracing(BoxedTracer);

impl Tracing {
    pub(crate) fn new() -> Self {
        Self(global::tracer(SCOPE))
    }

    /// Begins the span of a publish, if its sender traces it. Dropping it ends it.
    pub(crate) fn begin(&self, frame: &RoutedFrame, link: u64) -> Option<BoxedSpan> {
        // Most have none, and this is all that they cost.
        frame.metadata(TRACE_CONTEXT[0])?;
        let extract = |propagator: &dyn opentelemetry::propagation::TextMapPropagator| {
            propagator.extract_with_context(&Context::new(), &Metadata(frame))
        };
        let parent = global::get_text_map_propagator(extract);
        if !parent.span().span_context().is_sampled() {
            return None;
        }
        let destination = frame.destination().shown().readable();
        let attributes = [
            KeyValue::new("messaging.system", "slim"),
            KeyValue::new("messaging.operation.name", "route"),
            KeyValue::new("messaging.destination.name", destination.clone()),
            KeyValue::new("messaging.message.envelope.size", frame.bytes().len() as i64),
            KeyValue::new("slim.source", frame.source().shown().to_string()),
            KeyValue::new("slim.link", link as i64),
        ];
        let span = self.0.span_builder(format!("route {destination}"));
        let span = span.with_kind(SpanKind::Internal).with_attributes(attributes);
        Some(self.0.build_with_context(span, &parent))
    }
}

/// Says how many get a copy.
pub(crate) fn forwarded(span: &mut BoxedSpan, copies: usize) {
    span.set_attribute(KeyValue::new("slim.copies", copies as i64));
}

/// Says why nobody gets one.
pub(crate) fn dropped(span: &mut BoxedSpan, reason: Counter) {
    let reason = reason.reason();
    span.set_attribute(KeyValue::new("error.type", reason));
    span.set_status(Status::error(reason));
}

/// A frame's metadata, to find a trace context in.
struct Metadata<'a>(&'a RoutedFrame);

impl Extractor for Metadata<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.metadata(key)
    }

    fn keys(&self) -> Vec<&str> {
        TRACE_CONTEXT.into_iter().filter(|key| self.get(key).is_some()).collect()
    }
}

/// What the nodes of this process tell, by their ids. The provider is given its
/// instruments once, and can never be rid of them.
static NODES: Mutex<BTreeMap<String, Told>> = Mutex::new(BTreeMap::new());
static INSTRUMENTS: Once = Once::new();

/// The last samples of a node, by the metric's name.
struct Told {
    samples: BTreeMap<&'static str, Vec<Sample>>,
    is_last: bool,
}

/// Gives the metrics of a node to the provider of the process.
#[derive(Clone)]
pub(crate) struct Reports {
    node_id: String,
    view: View,
}

impl Reports {
    pub(crate) async fn start(node_id: &str, view: View) -> Self {
        let reports = Self { node_id: node_id.to_owned(), view };
        let families = reports.view.families().await;
        INSTRUMENTS.call_once(|| {
            let meter = global::meter(SCOPE);
            families.iter().for_each(|family| register(&meter, family));
        });
        // Who has ended was told of until now.
        nodes().retain(|_, told| !told.is_last);
        reports.tell(families, false);
        reports
    }

    /// Keeps the samples fresh, until it is dropped.
    pub(crate) async fn run(self) -> Infallible {
        // The first ones are there since the start.
        let mut samples = interval_at(Instant::now() + SAMPLE_INTERVAL, SAMPLE_INTERVAL);
        samples.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            samples.tick().await;
            self.tell(self.view.families().await, false);
        }
    }

    /// What there was in the end, which the provider may ask for once more.
    pub(crate) async fn end(self) {
        self.tell(self.view.families().await, true);
    }

    fn tell(&self, families: Vec<Family>, is_last: bool) {
        let samples = families.into_iter().map(|family| (family.name, family.samples)).collect();
        nodes().insert(self.node_id.clone(), Told { samples, is_last });
    }
}

fn nodes() -> MutexGuard<'static, BTreeMap<String, Told>> {
    NODES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The provider asks for the samples whenever it exports.
fn register(meter: &Meter, family: &Family) {
    let (name, unit) = named(family.name);
    let family_name = family.name;
    let each = move |observe: &mut dyn FnMut(Value, &[KeyValue])| {
        for (node_id, told) in &*nodes() {
            for Sample { labels, value } in told.samples.get(family_name).into_iter().flatten() {
                let labels = labels.iter().map(|(key, value)| KeyValue::new(*key, *value));
                let node = KeyValue::new("slim.node.id", node_id.clone());
                observe(*value, &labels.chain([node]).collect::<Vec<_>>());
            }
        }
    };
    let is_float = matches!(family.samples.first(), Some(Sample { value: Value::Float(_), .. }));
    macro_rules! observe {
        ($instrument:ident, $value:pat => $out:expr) => {{
            let instrument = meter.$instrument(name).with_description(family.help).with_unit(unit);
            let instrument = instrument.with_callback(move |observer| {
                each(&mut |value, labels| {
                    if let $value = value {
                        observer.observe($out, labels);
                    }
                });
            });
            // The provider keeps it.
            let _ = instrument.build();
        }};
    }
    match (family.kind, is_float) {
        (Kind::Gauge, false) => observe!(u64_observable_gauge, Value::Int(n) => n),
        (Kind::Gauge, true) => observe!(f64_observable_gauge, Value::Float(n) => n),
        (Kind::Counter, false) => observe!(u64_observable_counter, Value::Int(n) => n),
        (Kind::Counter, true) => observe!(f64_observable_counter, Value::Float(n) => n),
    }
}

/// Name and unit of a metric in the words of OpenTelemetry. A collector that serves
/// Prometheus makes the other name of it again.
fn named(name: &str) -> (String, &'static str) {
    let name = name.strip_suffix("_total").unwrap_or(name);
    let unit = match name.rsplit_once('_') {
        Some((_, "bytes")) => "By",
        Some((_, "seconds")) => "s",
        Some((_, "messages")) => "{message}",
        // A collector would add "ratio" to what has the unit 1.
        _ => "",
    };
    (name.replace('_', "."), unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_prometheus_without_what_a_collector_adds() {
        for (name, expected) in [
            ("slim_links", ("slim.links", "")),
            ("slim_links_opened_total", ("slim.links.opened", "")),
            ("slim_queued_bytes", ("slim.queued.bytes", "By")),
            ("slim_received_messages_total", ("slim.received.messages", "{message}")),
            ("process_cpu_seconds_total", ("process.cpu.seconds", "s")),
        ] {
            assert_eq!(named(name), (expected.0.to_owned(), expected.1));
        }
    }
}
