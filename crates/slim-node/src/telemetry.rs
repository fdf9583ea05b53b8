//! What [`NodeConfig::telemetry`](crate::NodeConfig::telemetry) turns on: the node's part
//! of a message's trace, and the metrics, for the OpenTelemetry provider of the process.
//!
//! A sender puts the W3C trace context into a message's metadata. The node reads it there
//! and changes nothing: its span is a child of the sender's, beside those of receivers
//! and of other nodes. Messages without one, or whose sender does not sample, have none.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use opentelemetry::global::{self, BoxedSpan, BoxedTracer};
use opentelemetry::metrics::Meter;
use opentelemetry::propagation::Extractor;
use opentelemetry::trace::{Span as _, SpanKind, Status, TraceContextExt as _, Tracer as _};
use opentelemetry::{Context, KeyValue};
use slim_proto::RoutedFrame;
use slim_proto::canonical::TRACE_CONTEXT;
use tokio::time::interval;

use crate::families::{Family, Kind, Sample, Value};
use crate::metrics::Counter;
use crate::view::View;

/// What spans and metrics are said to come from.
const SCOPE: &str = "slim-node";

/// How often metrics are read anew. Exporters read them less often.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(2);

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
        let destination = frame.destination().readable();
        let attributes = [
            KeyValue::new("messaging.system", "slim"),
            KeyValue::new("messaging.operation.name", "route"),
            KeyValue::new("messaging.destination.name", destination.clone()),
            KeyValue::new("messaging.message.envelope.size", frame.bytes().len() as i64),
            KeyValue::new("slim.source", frame.source().to_string()),
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

/// The last samples, by the metric's name.
type Latest = Mutex<BTreeMap<&'static str, Vec<Sample>>>;

/// Gives the metrics to the provider of the process, until it is dropped.
pub(crate) async fn report(view: View) -> Infallible {
    let meter = global::meter(SCOPE);
    let latest = Arc::new(Latest::default());
    let mut samples = interval(SAMPLE_INTERVAL);
    let mut is_registered = false;
    loop {
        samples.tick().await;
        let families = view.families().await;
        if !is_registered {
            families.iter().for_each(|family| register(&meter, family, &latest));
            is_registered = true;
        }
        *latest.lock().unwrap_or_else(PoisonError::into_inner) =
            families.into_iter().map(|family| (family.name, family.samples)).collect();
    }
}

/// The provider asks for the samples whenever it exports.
fn register(meter: &Meter, family: &Family, latest: &Arc<Latest>) {
    let (name, unit) = named(family.name);
    let source = (family.name, Arc::downgrade(latest));
    // A node that has ended has no metrics any more.
    let each = move |observe: &mut dyn FnMut(Value, &[KeyValue])| {
        let (name, latest): &(&str, Weak<Latest>) = &source;
        let Some(latest) = latest.upgrade() else { return };
        let latest = latest.lock().unwrap_or_else(PoisonError::into_inner);
        for Sample { labels, value } in latest.get(name).into_iter().flatten() {
            let labels: Vec<_> = labels.iter().map(|(k, v)| KeyValue::new(*k, *v)).collect();
            observe(*value, &labels);
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
        _ => "1",
    };
    (name.replace('_', "."), unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_prometheus_without_what_a_collector_adds() {
        for (name, expected) in [
            ("slim_links", ("slim.links", "1")),
            ("slim_links_opened_total", ("slim.links.opened", "1")),
            ("slim_queued_bytes", ("slim.queued.bytes", "By")),
            ("slim_received_messages_total", ("slim.received.messages", "{message}")),
            ("process_cpu_seconds_total", ("process.cpu.seconds", "s")),
        ] {
            assert_eq!(named(name), (expected.0.to_owned(), expected.1));
        }
    }
}
