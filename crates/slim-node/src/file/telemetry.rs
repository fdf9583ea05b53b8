//! The key `tracing.opentelemetry`: where traces and metrics go.

use std::fmt;
use std::time::Duration;

use slim_node::{ClientTls, TlsConfigError};
use slim_telemetry::TelemetryConfig;

use super::error::ConfigError;
use super::setting::mapping;
use super::tls::ClientTlsKeys;
use super::value::{AtLeast, Headers};

mapping! {
    /// Traces and metrics, sent to a collector by OTLP over gRPC.
    pub(super) struct TelemetryKeys {
        /// Whether they are sent; `--enable-opentelemetry` does it, too.
        enabled: Option<bool> = false,
        /// The collector. Default what `OTEL_EXPORTER_OTLP_ENDPOINT` says, or
        /// `http://localhost:4317`.
        grpc: Option<CollectorKeys>,
        /// What the node is called. Default what `OTEL_SERVICE_NAME` says, or `slim-node`.
        service_name: Option<String>,
        /// Its version. Default the program's.
        service_version: Option<String>,
        /// Where it is deployed, such as `production`. Default nothing is said.
        environment: Option<String>,
        /// Seconds between two reports of the metrics. Default what
        /// `OTEL_METRIC_EXPORT_INTERVAL` says, or a minute.
        metrics_interval_secs: Option<AtLeast<1>>,
    }
}

mapping! {
    /// A collector.
    pub(super) struct CollectorKeys {
        /// Where it listens, `http://host:port` or `https://host:port`.
        endpoint: String,
        /// TLS to it, with `https://`. Files are read at the start; `tls_version` has no
        /// effect.
        tls: ClientTlsKeys,
        /// The name in its certificate. Default the host of `endpoint`.
        server_name: Option<String>,
        /// What it is shown with each request, such as a token.
        headers: Headers,
    }
    ignored {
        backoff: "the exporter has its own",
        buffer_size: "`OTEL_BSP_MAX_QUEUE_SIZE` is the exporter's",
        compression: "nothing is compressed",
        connect_timeout: "`OTEL_EXPORTER_OTLP_TIMEOUT` is the exporter's",
        connection_type: "it is no node",
        keepalive: "what cannot be sent is tried again",
        metadata: "it is for the control plane",
        rate_limit: "what does not fit into the queue is dropped",
        request_timeout: "as `connect_timeout`",
    }
    refused {
        auth: "give what the collector wants to see under headers",
        proxy: "proxies are not supported",
        origin: "it is always the host of the address",
    }
}

/// What the file says of it; `None` where it says nothing.
#[derive(Clone, Default)]
pub(crate) struct Telemetry {
    pub(crate) enabled: Option<bool>,
    endpoint: Option<String>,
    tls: ClientTls,
    headers: Vec<(String, String)>,
    service_name: Option<String>,
    service_version: Option<String>,
    environment: Option<String>,
    metrics_interval: Option<Duration>,
}

/// Shows no headers, which may be tokens.
impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry")
            .field("enabled", &self.enabled)
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

impl Telemetry {
    /// The same for the exporter, with the files that are named read.
    ///
    /// # Errors
    /// If one of them cannot be read.
    pub(crate) fn config(&self, node_id: &str) -> Result<TelemetryConfig, TlsConfigError> {
        let version = env!("CARGO_PKG_VERSION");
        let mut config = TelemetryConfig::new("slim-node", version, node_id);
        let ClientTls { ca, system_roots, identity, server_name, .. } = &self.tls;
        config.endpoint.clone_from(&self.endpoint);
        config.ca = ca.as_ref().map(|ca| ca.read("CA")).transpose()?;
        config.system_roots = system_roots.unwrap_or(ca.is_none());
        config.identity = match identity {
            None => None,
            Some(pair) => Some((pair.certificate.read("certificate")?, pair.key.read("key")?)),
        };
        config.server_name.clone_from(server_name);
        config.headers.clone_from(&self.headers);
        config.service_name.clone_from(&self.service_name);
        config.service_version.clone_from(&self.service_version);
        config.environment.clone_from(&self.environment);
        config.metrics_interval = self.metrics_interval;
        Ok(config)
    }
}

impl TelemetryKeys {
    pub(super) fn telemetry(self, ignored: &mut Vec<String>) -> Result<Telemetry, ConfigError> {
        let mut telemetry = Telemetry {
            enabled: self.enabled,
            service_name: self.service_name,
            service_version: self.service_version,
            environment: self.environment,
            metrics_interval: self.metrics_interval_secs.map(|n| Duration::from_secs(n.0)),
            ..Telemetry::default()
        };
        if let Some(CollectorKeys { endpoint, tls, server_name, headers, .. }) = self.grpc {
            let is_tls = endpoint.starts_with("https://");
            // Without a word about it there is none: the address says so.
            let tls = tls.config(true, is_tls, ignored)?;
            telemetry.tls = ClientTls { server_name, ..tls };
            telemetry.endpoint = Some(endpoint);
            telemetry.headers = headers.0;
        }
        Ok(telemetry)
    }
}
