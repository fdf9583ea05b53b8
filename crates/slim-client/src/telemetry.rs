//! What [`ClientBuilder::telemetry`](crate::ClientBuilder::telemetry) turns on: spans and
//! counters of messages, for the OpenTelemetry provider of the process.
//!
//! | span | begins | ends |
//! |---|---|---|
//! | `publish`, child of the caller's | when the application publishes | with the outcome |
//! | `receive`, child of `publish` | when the engine delivers | when the application takes it |
//!
//! The context travels in the message's metadata, as the W3C has it, where the
//! application of a receiver finds it, too.

use std::collections::BTreeMap;
use std::time::Instant;

use opentelemetry::global::{self, BoxedSpan, BoxedTracer};
use opentelemetry::metrics::{Counter, Histogram};
use opentelemetry::trace::{Span as _, SpanKind, Status, TraceContextExt as _, Tracer as _};
use opentelemetry::{Context, KeyValue};
use slim_proto::{Name, SessionType};
use slim_session::{DeliveryReport, Outgoing, PublishError, ReceivedMessage, SessionInfo};

/// What spans and metrics are said to come from.
const SCOPE: &str = "slim-client";

/// Where the histogram of times to the outcome is divided.
const OUTCOME_SECONDS: [f64; 12] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0, 60.0];

/// Names that one span lists.
const MAX_LISTED: usize = 16;

/// Makes spans and counts.
#[derive(Debug)]
pub(crate) struct Telemetry {
    tracer: BoxedTracer,
    published: Counter<u64>,
    delivered: Counter<u64>,
    lost: Counter<u64>,
    received: Counter<u64>,
    link_losses: Counter<u64>,
    outcome_after: Histogram<f64>,
}

/// A message that has no outcome yet.
#[derive(Debug)]
pub(crate) struct Published {
    span: BoxedSpan,
    kind: KeyValue,
    began_at: Instant,
    has_outcome: bool,
}

impl Drop for Published {
    fn drop(&mut self) {
        if !self.has_outcome {
            self.span.set_status(Status::error("no outcome"));
        }
    }
}

impl Telemetry {
    pub(crate) fn new() -> Self {
        let meter = global::meter(SCOPE);
        let counter = |name, unit, what| {
            meter.u64_counter(name).with_unit(unit).with_description(what).build()
        };
        Self {
            tracer: global::tracer(SCOPE),
            published: counter("slim.client.published", "{message}", "Messages published."),
            delivered: counter(
                "slim.client.delivered",
                "{copy}",
                "Acknowledgements by members of what was published.",
            ),
            lost: counter(
                "slim.client.lost",
                "{copy}",
                "Members that did not acknowledge what was published.",
            ),
            received: counter("slim.client.received", "{message}", "Messages delivered to us."),
            link_losses: counter("slim.client.link.losses", "", "How often the link was lost."),
            outcome_after: meter
                .f64_histogram("slim.client.outcome.duration")
                .with_unit("s")
                .with_description("From publishing to the outcome.")
                .with_boundaries(OUTCOME_SECONDS.to_vec())
                .build(),
        }
    }

    /// Begins the span of a message, and puts its context into the metadata. A context
    /// that is there already is what it continues; without one, the caller's.
    pub(crate) fn publish(&self, session: &SessionInfo, message: &mut Outgoing) -> Published {
        let parent = extracted(&message.metadata).unwrap_or_else(Context::current);
        let mut span = self.begin("publish", SpanKind::Producer, session, &parent);
        let len = message.payload.len() as i64;
        span.set_attribute(KeyValue::new("messaging.message.body.size", len));
        if let Some(to) = &message.to {
            span.set_attribute(KeyValue::new("slim.to", to.clone().shown().to_string()));
        }
        let context = Context::new().with_remote_span_context(span.span_context().clone());
        global::get_text_map_propagator(|propagator| {
            propagator.inject_context(&context, &mut Metadata(&mut message.metadata));
        });
        let kind = kind(session);
        self.published.add(1, std::slice::from_ref(&kind));
        Published { span, kind, began_at: Instant::now(), has_outcome: false }
    }

    /// Ends the span with the outcome.
    pub(crate) fn done(
        &self,
        mut published: Published,
        outcome: &Result<DeliveryReport, PublishError>,
    ) {
        published.has_outcome = true;
        let Published { span, kind, began_at, .. } = &mut published;
        let kind = [kind.clone()];
        match outcome {
            Ok(report) => {
                let (delivered, lost) = (report.delivered.len(), report.lost.len());
                span.set_attribute(KeyValue::new("slim.delivered", delivered as i64));
                self.delivered.add(delivered as u64, &kind);
                self.lost.add(lost as u64, &kind);
                if lost > 0 {
                    span.set_status(Status::error(format!("lost for {}", list(&report.lost))));
                }
            }
            Err(error) => span.set_status(Status::error(error.to_string())),
        }
        self.outcome_after.record(began_at.elapsed().as_secs_f64(), &kind);
    }

    /// Begins the span of a message that was delivered, if its sender traces it. Dropping
    /// it ends it.
    pub(crate) fn receive(
        &self,
        session: &SessionInfo,
        message: &ReceivedMessage,
    ) -> Option<BoxedSpan> {
        self.received.add(1, &[kind(session)]);
        let parent = extracted(&message.metadata)?;
        let mut span = self.begin("receive", SpanKind::Consumer, session, &parent);
        let len = message.payload.len() as i64;
        span.set_attribute(KeyValue::new("messaging.message.body.size", len));
        span.set_attribute(KeyValue::new(
            "slim.source",
            message.source.clone().shown().to_string(),
        ));
        Some(span)
    }

    pub(crate) fn link_lost(&self) {
        self.link_losses.add(1, &[]);
    }

    fn begin(
        &self,
        operation: &'static str,
        span_kind: SpanKind,
        session: &SessionInfo,
        parent: &Context,
    ) -> BoxedSpan {
        let destination = session.remote.clone().shown().readable();
        let name = format!("{operation} {destination}");
        let attributes = [
            KeyValue::new("messaging.system", "slim"),
            KeyValue::new("messaging.operation.name", operation),
            KeyValue::new("messaging.destination.name", destination),
            KeyValue::new("slim.session.id", i64::from(session.id.0)),
            KeyValue::new("slim.session.mls", session.mls),
            KeyValue::new("slim.local", session.local.to_string()),
        ];
        let span = self.tracer.span_builder(name).with_kind(span_kind);
        self.tracer.build_with_context(span.with_attributes(attributes), parent)
    }
}

/// Of which kind of session something is: the one attribute of our metrics.
fn kind(session: &SessionInfo) -> KeyValue {
    let kind = match session.session_type {
        SessionType::Multicast => "group",
        SessionType::PointToPoint => "p2p",
    };
    KeyValue::new("slim.session.type", kind)
}

/// The context in the metadata of a message, if there is one.
fn extracted(metadata: &BTreeMap<String, String>) -> Option<Context> {
    struct Entries<'a>(&'a BTreeMap<String, String>);
    impl opentelemetry::propagation::Extractor for Entries<'_> {
        fn get(&self, key: &str) -> Option<&str> {
            self.0.get(key).map(String::as_str)
        }

        fn keys(&self) -> Vec<&str> {
            self.0.keys().map(String::as_str).collect()
        }
    }
    let context = global::get_text_map_propagator(|propagator| {
        propagator.extract_with_context(&Context::new(), &Entries(metadata))
    });
    context.span().span_context().is_valid().then_some(context)
}

/// Metadata that a context is put into.
struct Metadata<'a>(&'a mut BTreeMap<String, String>);

impl opentelemetry::propagation::Injector for Metadata<'_> {
    fn set(&mut self, key: &str, value: String) {
        // An empty tracestate says nothing.
        if !value.is_empty() {
            self.0.insert(key.to_owned(), value);
        }
    }
}

fn list(names: &[Name]) -> String {
    let shown = |name: &Name| name.clone().shown().to_string();
    let mut text: Vec<_> = names.iter().take(MAX_LISTED).map(shown).collect();
    if names.len() > MAX_LISTED {
        text.push(format!("{} more", names.len() - MAX_LISTED));
    }
    text.join(", ")
}
