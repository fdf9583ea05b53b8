//! An OpenTelemetry collector that keeps what it gets, for tests to look at.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};

use crate::within;

/// A collector on a free port. Dropping it ends it.
#[derive(Debug)]
pub struct Collector {
    endpoint: String,
    kept: Arc<Kept>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Kept {
    received: Mutex<Received>,
    news: Notify,
}

/// What has arrived so far.
#[derive(Debug, Default)]
pub struct Received {
    /// Every span, in the order of their ends, for each process.
    pub spans: Vec<Span>,
    /// The last value of each metric.
    pub metrics: Vec<Metric>,
    /// What a request was shown with as `authorization`, the last one.
    pub authorization: Option<String>,
}

/// One step of something in one process.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// What the process says of itself.
    pub resource: BTreeMap<String, String>,
    /// Who made it.
    pub scope: String,
    /// What it is called.
    pub name: String,
    /// All spans of one message have the same.
    pub trace_id: Vec<u8>,
    /// Its own.
    pub id: Vec<u8>,
    /// That of the span that led to it; empty for the first.
    pub parent_id: Vec<u8>,
    /// What is said about it.
    pub attributes: BTreeMap<String, String>,
    /// What went wrong, if something did.
    pub error: Option<String>,
    /// Nanoseconds from beginning to end.
    pub took: u64,
}

/// One value of one process.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// What the process says of itself.
    pub resource: BTreeMap<String, String>,
    /// What it is called.
    pub name: String,
    /// What it is counted in.
    pub unit: String,
    /// What tells it from others of the name.
    pub attributes: BTreeMap<String, String>,
    /// The value; of a histogram, how many there were.
    pub value: f64,
}

impl Collector {
    /// Starts one.
    ///
    /// # Panics
    /// If it cannot listen.
    pub async fn start() -> Self {
        Self::serve(Server::builder(), "http").await
    }

    /// Starts one that speaks TLS with this certificate and key, PEM, for `localhost`.
    ///
    /// # Panics
    /// If it cannot listen, or the certificate is none.
    pub async fn start_tls(certificate: &str, key: &str) -> Self {
        let tls = ServerTlsConfig::new().identity(Identity::from_pem(certificate, key));
        let server = Server::builder().tls_config(tls).expect("a certificate and its key");
        Self::serve(server, "https").await
    }

    async fn serve(mut server: Server, scheme: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("it listens").port();
        let kept = Arc::new(Kept::default());
        let service = Service(Arc::clone(&kept));
        let server = server
            .add_service(TraceServiceServer::new(service.clone()))
            .add_service(MetricsServiceServer::new(service))
            .serve_with_incoming(TcpListenerStream::new(listener));
        let task =
            tokio::spawn(async move { server.await.expect("it serves until it is dropped") });
        Self { endpoint: format!("{scheme}://localhost:{port}"), kept, task }
    }

    /// Where it is, for `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// What there is.
    pub fn received(&self) -> MutexGuard<'_, Received> {
        self.kept.received.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `find` finds something in what has arrived.
    ///
    /// # Panics
    /// If it does not in time; the message shows what there is.
    pub async fn wait<T>(&self, what: &str, find: impl Fn(&Received) -> Option<T>) -> T {
        let found = async {
            loop {
                let news = self.kept.news.notified();
                if let Some(found) = find(&self.received()) {
                    return found;
                }
                news.await;
            }
        };
        within(what, found).await
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Clone)]
struct Service(Arc<Kept>);

impl Service {
    fn keep<R>(&self, request: &Request<R>, keep: impl FnOnce(&mut Received)) {
        let shown = request.metadata().get("authorization");
        let shown = shown.and_then(|value| value.to_str().ok()).map(str::to_owned);
        let mut received = self.0.received.lock().unwrap_or_else(PoisonError::into_inner);
        received.authorization = shown.or_else(|| received.authorization.take());
        keep(&mut received);
        drop(received);
        self.0.news.notify_waiters();
    }
}

#[tonic::async_trait]
impl TraceService for Service {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut spans = Vec::new();
        for process in &request.get_ref().resource_spans {
            for scope in &process.scope_spans {
                for span in &scope.spans {
                    let status = span.status.clone().unwrap_or_default();
                    let is_error = status.code == StatusCode::Error as i32;
                    spans.push(Span {
                        resource: about(process.resource.as_ref()),
                        scope: scope.scope.clone().unwrap_or_default().name,
                        name: span.name.clone(),
                        trace_id: span.trace_id.clone(),
                        id: span.span_id.clone(),
                        parent_id: span.parent_span_id.clone(),
                        attributes: texts(&span.attributes),
                        error: is_error.then_some(status.message),
                        took: span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano),
                    });
                }
            }
        }
        self.keep(&request, |received| received.spans.extend(spans));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Service {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let mut values = Vec::new();
        for process in &request.get_ref().resource_metrics {
            for scope in &process.scope_metrics {
                for metric in &scope.metrics {
                    for (attributes, value) in points(metric.data.as_ref()) {
                        values.push(Metric {
                            resource: about(process.resource.as_ref()),
                            name: metric.name.clone(),
                            unit: metric.unit.clone(),
                            attributes,
                            value,
                        });
                    }
                }
            }
        }
        self.keep(&request, |received| {
            received.metrics.retain(|old| {
                let is_same = |new: &Metric| {
                    let labels = (&new.resource, &new.attributes);
                    new.name == old.name && labels == (&old.resource, &old.attributes)
                };
                !values.iter().any(is_same)
            });
            received.metrics.extend(values);
        });
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

/// The values of a metric, each with what tells it from the others.
fn points(data: Option<&Data>) -> Vec<(BTreeMap<String, String>, f64)> {
    let numbers = match data {
        Some(Data::Gauge(gauge)) => &gauge.data_points,
        Some(Data::Sum(sum)) => &sum.data_points,
        Some(Data::Histogram(histogram)) => {
            let points = histogram.data_points.iter();
            return points.map(|point| (texts(&point.attributes), point.count as f64)).collect();
        }
        _ => return Vec::new(),
    };
    let value = |value: Option<number_data_point::Value>| match value {
        Some(number_data_point::Value::AsDouble(value)) => value,
        Some(number_data_point::Value::AsInt(value)) => value as f64,
        None => 0.0,
    };
    numbers.iter().map(|point| (texts(&point.attributes), value(point.value))).collect()
}

fn about(resource: Option<&Resource>) -> BTreeMap<String, String> {
    resource.map(|resource| texts(&resource.attributes)).unwrap_or_default()
}

fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &Option<AnyValue>| match value.as_ref().and_then(|any| any.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::BoolValue(value)) => value.to_string(),
        Some(Value::IntValue(value)) => value.to_string(),
        Some(Value::DoubleValue(value)) => value.to_string(),
        other => format!("{other:?}"),
    };
    attributes.iter().map(|entry| (entry.key.clone(), text(&entry.value))).collect()
}
