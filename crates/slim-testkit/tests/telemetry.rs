//! Traces and metrics as a collector gets them.
//!
//! The providers are the process's, so all tests here have one collector, and look for
//! what is theirs.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Duration;

use opentelemetry::trace::{FutureExt as _, TraceContextExt as _, Tracer as _};
use opentelemetry::{Context, global};
use slim_client::{
    Client, ClientTls, Name, Outgoing, SessionConfig, SessionId, SessionType, Timers, dial,
};
use slim_node::NodeConfig;
use slim_proto::{AppPayload, BROADCAST, Body, Header, Message, Publish};
use slim_telemetry::{Telemetry, TelemetryConfig};
use slim_testkit::collector::{Collector, Span};
use slim_testkit::talk::group;
use slim_testkit::{Cluster, DEADLINE, SECRET, messages, within};
use tokio::runtime::Runtime;

/// Outlives every test.
struct Providers {
    runtime: Runtime,
    collector: Collector,
    _telemetry: Telemetry,
}

/// Runs a test where traces and metrics go to the collector.
fn with_collector(test: impl AsyncFnOnce(&Collector)) {
    static PROVIDERS: OnceLock<Providers> = OnceLock::new();
    let providers = PROVIDERS.get_or_init(|| {
        let runtime = Runtime::new().unwrap();
        let (collector, telemetry) = runtime.block_on(async {
            let collector = Collector::start().await;
            let config = TelemetryConfig {
                endpoint: Some(collector.endpoint().to_owned()),
                metrics_interval: Some(Duration::from_millis(200)),
                environment: Some("a test".to_owned()),
                ..TelemetryConfig::new("a-test", "1.2.3", "instance")
            };
            (collector, Telemetry::start(&config).unwrap())
        });
        Providers { runtime, collector, _telemetry: telemetry }
    });
    providers.runtime.block_on(test(&providers.collector));
}

async fn traced() -> Cluster {
    Cluster::start_with(NodeConfig { telemetry: true, ..NodeConfig::default() }).await
}

/// Waits for so many spans that belong to the same message as this context.
async fn trace(collector: &Collector, context: &Context, len: usize) -> Vec<Span> {
    let id = context.span().span_context().trace_id().to_bytes();
    let spans = collector.wait("the trace", |received| {
        let spans = received.spans.iter().filter(|span| span.trace_id == id);
        let spans: Vec<_> = spans.cloned().collect();
        (spans.len() >= len).then_some(spans)
    });
    spans.await
}

/// How many spans there are of each name, all of them children of this one.
fn children(spans: &[Span], parent: &Span) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for span in spans.iter().filter(|span| span.parent_id == parent.id) {
        *counts.entry(span.name.clone()).or_default() += 1;
    }
    counts
}

fn begin(name: &'static str) -> Context {
    Context::new().with_span(global::tracer("test").start(name))
}

#[test]
fn a_message_and_what_answers_it_are_one_trace() {
    with_collector(async |collector| {
        let cluster = traced().await;
        let mut clients = Vec::new();
        for app in ["mod", "alice", "bob"] {
            clients.push(cluster.client(app).await);
        }
        let sessions = group(&clients, SessionConfig::default()).await;

        let work = begin("work");
        let delivery = sessions[0].publish("question").with_context(work.clone());
        within("the outcome", delivery.await.unwrap()).await.unwrap();
        let heard = messages(&sessions[1], 1).await.remove(0);
        messages(&sessions[2], 1).await;
        let reply = Outgoing { metadata: heard.metadata, ..Outgoing::default() };
        let delivery = sessions[1].publish_with(reply).await.unwrap();
        within("the outcome", delivery).await.unwrap();
        messages(&sessions[0], 1).await;
        messages(&sessions[2], 1).await;
        work.span().end();

        // The work; then twice a message, through a node, to two.
        let spans = trace(collector, &work, 9).await;
        assert_eq!(spans.len(), 9, "{spans:#?}");
        let only = |span: &dyn Fn(&&Span) -> bool| -> Span {
            let found: Vec<_> = spans.iter().filter(span).collect();
            assert_eq!(found.len(), 1, "{spans:#?}");
            found[0].clone()
        };
        let root = only(&|span| span.name == "work");
        let question = only(&|span| span.parent_id == root.id);
        assert_eq!(question.name, "publish org/test/channel");
        let reply = only(&|span| span.name.starts_with("publish") && span.id != question.id);
        assert_eq!(reply.parent_id, question.id, "it continues the context of the message");
        let onward = [("receive org/test/channel", 2), ("route org/test/channel", 1)];
        let onward: BTreeMap<_, _> = onward.map(|(name, n)| (name.to_owned(), n)).into();
        assert_eq!(children(&spans, &reply), onward);
        let with_reply = onward.into_iter().chain([(reply.name.clone(), 1)]).collect();
        assert_eq!(children(&spans, &question), with_reply);

        let said = |span: &Span, key: &str| span.attributes.get(key).cloned().unwrap_or_default();
        assert_eq!(said(&question, "slim.delivered"), "2");
        assert_eq!(said(&question, "messaging.message.body.size"), "8");
        let route = spans.iter().find(|span| span.name.starts_with("route")).unwrap();
        assert_eq!((route.scope.as_str(), said(route, "slim.copies")), ("slim-node", "2".into()));
        assert!(spans.iter().all(|span| span.error.is_none()), "{spans:#?}");
        for (key, value) in [
            ("service.name", "a-test"),
            ("service.version", "1.2.3"),
            ("service.instance.id", "instance"),
            ("deployment.environment.name", "a test"),
        ] {
            assert_eq!(route.resource.get(key).map(String::as_str), Some(value));
        }
        let shown = format!("{spans:?}");
        assert!(!shown.contains("question"), "a payload is nobody's business: {shown}");
    });
}

#[test]
fn a_loss_is_an_error_that_says_who_and_where() {
    with_collector(async |collector| {
        let cluster = traced().await;
        let clients = [cluster.client("mod").await, cluster.client("alice").await];
        let timers = Timers { timeout: Duration::from_millis(100), max_retries: 2 };
        let config = SessionConfig { timers: Some(timers), ..SessionConfig::default() };
        let sessions = group(&clients, config).await;
        let [_, alice] = clients;
        let name = alice.name().to_string();
        alice.shutdown().await;
        cluster.until("alice's link to be gone", |metrics| metrics.links == 1).await;

        let work = begin("work");
        let delivery = sessions[0].publish("into the void").with_context(work.clone());
        let report = within("the outcome", delivery.await.unwrap()).await.unwrap();
        assert_eq!(report.lost.len(), 1);
        let spans = trace(collector, &work, 4).await;
        let publish = spans.iter().find(|span| span.name.starts_with("publish")).unwrap();
        assert_eq!(publish.error.as_deref(), Some(&*format!("lost for {name}")));
        let routes: Vec<_> = spans.iter().filter(|span| span.name.starts_with("route")).collect();
        assert_eq!(routes.len(), 3, "one for each transmission: {spans:#?}");
        for route in routes {
            assert_eq!(route.error.as_deref(), Some("no_subscriber"));
        }
    });
}

/// Neither the node nor a receiver begins a trace by itself, and nothing is added to what
/// is sent by a client without telemetry.
#[test]
fn who_does_not_trace_is_not_traced() {
    with_collector(async |collector| {
        let cluster = traced().await;
        let quiet = Client::builder("org/test/quiet".parse().unwrap());
        let quiet = quiet.shared_secret(SECRET).unwrap().connect(&cluster.endpoint()).await;
        let clients = [quiet.unwrap(), cluster.client("listener").await];
        let sessions = group(&clients, SessionConfig::default()).await;
        let delivery = sessions[0].publish("hush").await.unwrap();
        within("the outcome", delivery).await.unwrap();
        let heard = messages(&sessions[1], 1).await.remove(0);
        assert_eq!(heard.metadata, BTreeMap::new());

        // What comes later has come, so what would have come before has, too.
        let work = begin("work");
        let delivery = sessions[1].publish("heard").with_context(work.clone());
        within("the outcome", delivery.await.unwrap()).await.unwrap();
        trace(collector, &work, 2).await;
        let name = clients[0].name().to_string();
        let of_quiet = |span: &&Span| span.attributes.get("slim.source") == Some(&name);
        assert_eq!(collector.received().spans.iter().find(of_quiet), None);
    });
}

/// A sender that does not sample says so, and everybody follows.
#[test]
fn what_the_sender_does_not_sample_nobody_records() {
    with_collector(async |collector| {
        let cluster = traced().await;
        let clients = [cluster.client("mod").await, cluster.client("alice").await];
        let sessions = group(&clients, SessionConfig::default()).await;
        let id = "0af7651916cd43dd8448eb211c80319c";
        let unsampled = format!("00-{id}-b7ad6b7169203331-00");
        let metadata = [("traceparent".to_owned(), unsampled)].into();
        let message = Outgoing { metadata, ..Outgoing::default() };
        let delivery = sessions[0].publish_with(message).await.unwrap();
        within("the outcome", delivery).await.unwrap();
        let heard = messages(&sessions[1], 1).await.remove(0);
        let context = &heard.metadata["traceparent"];
        assert!(context.starts_with(&format!("00-{id}-")) && context.ends_with("-00"), "{context}");

        let work = begin("work");
        let delivery = sessions[1].publish("heard").with_context(work.clone());
        within("the outcome", delivery.await.unwrap()).await.unwrap();
        trace(collector, &work, 2).await;
        let received = collector.received();
        assert!(!received.spans.iter().any(|span| hex(&span.trace_id) == id));
    });
}

/// Whoever may send makes up the names, and every node records them.
#[test]
fn a_name_that_is_too_long_is_not_recorded() {
    with_collector(async |collector| {
        let cluster = traced().await;
        let tls = ClientTls::default();
        let link = within("a link", dial(&cluster.endpoint(), &tls, None, DEADLINE)).await;
        let (sender, _receiver) = link.unwrap().split();
        let long: Name = format!("org/test/{}", "x".repeat(1 << 20)).parse().unwrap();
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        let publish = Publish {
            header: Header::new(long.clone(), long, BROADCAST),
            session_type: SessionType::Multicast,
            session_id: SessionId(1),
            message_id: 1,
            body: Body::Msg(AppPayload::default()),
            metadata: [("traceparent".to_owned(), format!("00-{id}-00f067aa0ba902b7-01"))].into(),
        };
        sender.send(&Message::Publish(publish)).await.unwrap();
        let span = collector.wait("the span", |received| {
            received.spans.iter().find(|span| hex(&span.trace_id) == id).cloned()
        });
        let span = span.await;
        assert_eq!(span.error.as_deref(), Some("no_subscriber"));
        assert!(format!("{span:?}").len() < 4096, "{span:?}");
    });
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn metrics_of_node_and_clients_arrive() {
    with_collector(async |collector| {
        let cluster = traced().await;
        let clients = [cluster.client("mod").await, cluster.client("alice").await];
        let sessions = group(&clients, SessionConfig::default()).await;
        let delivery = sessions[0].publish("counted").await.unwrap();
        within("the outcome", delivery).await.unwrap();
        messages(&sessions[1], 1).await;
        for (name, unit, labels) in [
            ("slim.links", "", 1),
            ("slim.delivered.bytes", "By", 1),
            ("slim.dropped.messages", "{message}", 2),
            ("process.cpu.seconds", "s", 1),
            ("slim.client.published", "{message}", 1),
            ("slim.client.delivered", "{copy}", 1),
            ("slim.client.received", "{message}", 1),
            ("slim.client.outcome.duration", "s", 1),
        ] {
            let found = collector.wait(name, |received| {
                // The first report may be from before anything happened.
                let is_it = |value: f64| name.starts_with("slim.dropped") || value > 0.0;
                let mut metrics = received.metrics.iter();
                metrics.find(|metric| metric.name == name && is_it(metric.value)).cloned()
            });
            let found = found.await;
            assert_eq!((found.unit.as_str(), found.attributes.len()), (unit, labels), "{found:?}");
        }
    });
}
