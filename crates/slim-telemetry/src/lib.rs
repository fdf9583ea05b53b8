//! Sends the traces and metrics of a program to an OpenTelemetry collector, by OTLP over
//! gRPC.
//!
//! The libraries of this workspace only know the interface of OpenTelemetry, which does
//! nothing until a program sets providers. [`Telemetry::start`] sets those of our
//! programs; a program with its own providers needs nothing of this.
//!
//! The environment variables that OpenTelemetry names count where the configuration says
//! nothing: `OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_EXPORTER_OTLP_HEADERS`,
//! `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_TRACES_SAMPLER`,
//! `OTEL_METRIC_EXPORT_INTERVAL`, and those of batches.

use std::fmt;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use opentelemetry::{KeyValue, global};
use opentelemetry_otlp::tonic_types::metadata::MetadataMap;
use opentelemetry_otlp::tonic_types::transport::{Certificate, ClientTlsConfig, Identity};
use opentelemetry_otlp::{MetricExporter, SpanExporter, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::resource::{EnvResourceDetector, TelemetryResourceDetector};
use opentelemetry_sdk::trace::SdkTracerProvider;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// How long the end of a program waits for the collector.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(4);

/// Variables that say where it goes.
const ENDPOINTS: [&str; 3] = [
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
];

/// Where telemetry goes, and who it is from.
#[derive(Clone)]
pub struct TelemetryConfig {
    /// The collector, `http://host:port` or `https://host:port`. Default: what
    /// `OTEL_EXPORTER_OTLP_ENDPOINT` says, or `http://localhost:4317`.
    pub endpoint: Option<String>,
    /// With `https://`: own authorities, PEM, that its certificate may be from.
    pub ca: Option<Vec<u8>>,
    /// Whether those of the system are trusted. Default true.
    pub system_roots: bool,
    /// With `https://`: a certificate to show, and its key, PEM. Default none.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
    /// With `https://`: the name in its certificate. Default: the endpoint's host.
    pub server_name: Option<String>,
    /// What it is shown with each request, such as a token. Default: what
    /// `OTEL_EXPORTER_OTLP_HEADERS` says; both count.
    pub headers: Vec<(String, String)>,
    /// What the program is called. Default: what `OTEL_SERVICE_NAME` or
    /// `OTEL_RESOURCE_ATTRIBUTES` says, or [`Self::program`].
    pub service_name: Option<String>,
    /// Its version. Default: what `OTEL_RESOURCE_ATTRIBUTES` says, or [`Self::version`].
    pub service_version: Option<String>,
    /// Where it is deployed, such as `production`. Default: nothing is said.
    pub environment: Option<String>,
    /// How often metrics are sent. Default: what `OTEL_METRIC_EXPORT_INTERVAL` says, or a
    /// minute.
    pub metrics_interval: Option<Duration>,
    /// What the program is called where nobody says something else.
    pub program: String,
    /// Its version, likewise.
    pub version: String,
    /// Which of the processes of this name it is, likewise.
    pub instance: String,
}

impl TelemetryConfig {
    /// Of a program; `instance` tells this process from others of it.
    pub fn new(program: &str, version: &str, instance: impl Into<String>) -> Self {
        Self {
            endpoint: None,
            ca: None,
            system_roots: true,
            headers: Vec::new(),
            identity: None,
            server_name: None,
            service_name: None,
            service_version: None,
            environment: None,
            metrics_interval: None,
            program: program.to_owned(),
            version: version.to_owned(),
            instance: instance.into(),
        }
    }

    /// What is known of the program, what the environment says, what the configuration
    /// says: later ones count.
    fn resource(&self) -> Resource {
        let variable = std::env::var("OTEL_SERVICE_NAME").ok().filter(|name| !name.is_empty());
        let said = [
            ("service.name", self.service_name.clone().or(variable)),
            ("service.version", self.service_version.clone()),
            ("deployment.environment.name", self.environment.clone()),
        ];
        let said = said.into_iter().filter_map(|(key, value)| Some(KeyValue::new(key, value?)));
        Resource::builder_empty()
            .with_attributes([
                KeyValue::new("service.name", self.program.clone()),
                KeyValue::new("service.version", self.version.clone()),
                KeyValue::new("service.instance.id", self.instance.clone()),
            ])
            .with_detector(Box::new(TelemetryResourceDetector))
            .with_detector(Box::new(EnvResourceDetector::new()))
            .with_attributes(said)
            .build()
    }

    /// Whether it could be used, as far as can be said without a collector.
    ///
    /// # Errors
    /// If the endpoint is none, or what is given for TLS or as a header cannot be used.
    pub fn check(&self) -> Result<(), TelemetryError> {
        if let Some(endpoint) = &self.endpoint {
            let is_one = |uri: Uri| {
                matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some()
            };
            if !endpoint.parse().is_ok_and(is_one) {
                let expected = "is neither http://host:port nor https://host:port";
                return Err(TelemetryError(format!("{endpoint:?} {expected}")));
            }
        }
        let is_certificate = |pem| CertificateDer::from_pem_slice(pem).is_ok();
        if self.ca.as_deref().is_some_and(|ca| !is_certificate(ca)) {
            return Err(TelemetryError("the CA has no certificate in PEM".to_owned()));
        }
        if let Some((certificate, key)) = &self.identity {
            if !is_certificate(certificate) {
                return Err(TelemetryError("the certificate is none in PEM".to_owned()));
            }
            if PrivateKeyDer::from_pem_slice(key).is_err() {
                return Err(TelemetryError("the key of the certificate is none in PEM".to_owned()));
            }
        }
        self.metadata().map(drop)
    }

    fn exporter<E: WithTonicConfig + WithExportConfig>(
        &self,
        exporter: E,
    ) -> Result<E, TelemetryError> {
        let mut exporter = exporter.with_metadata(self.metadata()?);
        if self.is_tls() {
            exporter = exporter.with_tls_config(self.tls());
        }
        Ok(match &self.endpoint {
            None => exporter,
            Some(endpoint) => exporter.with_endpoint(endpoint),
        })
    }

    /// Whether a collector is spoken to over TLS.
    fn is_tls(&self) -> bool {
        let is_https = |endpoint: String| endpoint.starts_with("https://");
        match &self.endpoint {
            Some(endpoint) => is_https(endpoint.clone()),
            None => ENDPOINTS.iter().any(|name| std::env::var(name).is_ok_and(is_https)),
        }
    }

    fn tls(&self) -> ClientTlsConfig {
        let mut tls = ClientTlsConfig::new();
        if let Some(ca) = &self.ca {
            tls = tls.ca_certificate(Certificate::from_pem(ca));
        }
        if self.system_roots {
            tls = tls.with_enabled_roots();
        }
        if let Some((certificate, key)) = &self.identity {
            tls = tls.identity(Identity::from_pem(certificate, key));
        }
        if let Some(name) = &self.server_name {
            tls = tls.domain_name(name);
        }
        tls
    }

    fn metadata(&self) -> Result<MetadataMap, TelemetryError> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            let bad = |what| TelemetryError(format!("header {name:?}: no {what} of a header"));
            let name = HeaderName::try_from(name).map_err(|_| bad("name"))?;
            let mut value = HeaderValue::try_from(value).map_err(|_| bad("value"))?;
            value.set_sensitive(true);
            headers.append(name, value);
        }
        Ok(MetadataMap::from_headers(headers))
    }
}

/// Shows no key and no header.
impl fmt::Debug for TelemetryConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TelemetryConfig")
            .field("endpoint", &self.endpoint)
            .field("program", &self.program)
            .field("instance", &self.instance)
            .finish_non_exhaustive()
    }
}

/// The telemetry of this process while it runs. At its end, [`Telemetry::shutdown`].
#[derive(Debug)]
pub struct Telemetry {
    traces: SdkTracerProvider,
    metrics: SdkMeterProvider,
}

/// Telemetry cannot be sent as it is configured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("telemetry: {0}")]
pub struct TelemetryError(String);

impl Telemetry {
    /// Sets the process's providers, and how a trace's context is written (W3C). Call it
    /// within the runtime, before clients and nodes are made. Whether the collector is
    /// there is not asked: if it is not, that is logged, nothing waits for it, and what
    /// does not fit into the queue meanwhile is dropped.
    ///
    /// # Errors
    /// See [`TelemetryConfig::check`]; or if a variable holds an endpoint that is none.
    pub fn start(config: &TelemetryConfig) -> Result<Self, TelemetryError> {
        config.check()?;
        let failed =
            |error: opentelemetry_otlp::ExporterBuildError| TelemetryError(error.to_string());
        let spans = config.exporter(SpanExporter::builder().with_tonic())?.build();
        let metrics = config.exporter(MetricExporter::builder().with_tonic())?.build();
        let mut reader = PeriodicReader::builder(metrics.map_err(failed)?);
        if let Some(interval) = config.metrics_interval {
            reader = reader.with_interval(interval);
        }
        let resource = config.resource();
        let telemetry = Self {
            traces: SdkTracerProvider::builder()
                .with_resource(resource.clone())
                .with_batch_exporter(spans.map_err(failed)?)
                .build(),
            metrics: SdkMeterProvider::builder()
                .with_resource(resource)
                .with_reader(reader.build())
                .build(),
        };
        global::set_text_map_propagator(TraceContextPropagator::new());
        global::set_tracer_provider(telemetry.traces.clone());
        global::set_meter_provider(telemetry.metrics.clone());
        Ok(telemetry)
    }

    /// Sends what is left. Takes up to four seconds if the collector does not take it.
    /// Blocks, so call it outside of the runtime, while the runtime is still there.
    ///
    /// # Errors
    /// If the collector does not answer in that time, or does not take it; why not is
    /// logged.
    pub fn shutdown(self) -> Result<(), TelemetryError> {
        let Self { traces, metrics } = self;
        let (done, is_done) = mpsc::channel();
        // The providers have limits of their own, one behind the other. If they take longer
        // than we wait, they end with the process.
        let metrics_done = done.clone();
        // Nobody waits any more if that fails.
        thread::spawn(move || metrics_done.send(metrics.shutdown()).ok());
        thread::spawn(move || done.send(traces.shutdown()).ok());
        let deadline = Instant::now() + SHUTDOWN_LIMIT;
        for _ in 0..2 {
            let left = deadline.saturating_duration_since(Instant::now());
            let late = |_| TelemetryError("the collector does not answer".to_owned());
            let ended = is_done.recv_timeout(left).map_err(late)?;
            // Its text is not for people.
            let refused = |_| TelemetryError("the collector does not take it".to_owned());
            ended.map_err(refused)?;
        }
        Ok(())
    }
}
