//! The key `tracing.opentelemetry`: where traces and metrics go.

use std::fmt;
use std::time::Duration;

use slim_node::{ClientTls, TlsConfigError};
use slim_telemetry::TelemetryConfig;

use super::section::{ConfigError, Section};
use super::tls;

/// Keys of a client entry that others know.
const WITHOUT_EFFECT: [&str; 9] = [
    "backoff",
    "buffer_size",
    "compression",
    "connect_timeout",
    "keepalive",
    "metadata",
    "rate_limit",
    "request_timeout",
    "connection_type",
];

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
        let version = self.service_version.as_deref().unwrap_or(env!("CARGO_PKG_VERSION"));
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
        if let Some(name) = &self.service_name {
            config.service_name.clone_from(name);
        }
        config.environment.clone_from(&self.environment);
        config.metrics_interval = self.metrics_interval;
        Ok(config)
    }
}

pub(super) fn read(
    mut section: Section,
    ignored: &mut Vec<String>,
) -> Result<Telemetry, ConfigError> {
    let mut telemetry = Telemetry {
        enabled: section.flag("enabled")?,
        service_name: section.text("service_name")?,
        service_version: section.text("service_version")?,
        environment: section.text("environment")?,
        metrics_interval: section.at_least("metrics_interval_secs", 1)?.map(Duration::from_secs),
        ..Telemetry::default()
    };
    if let Some(grpc) = section.optional("grpc")? {
        read_collector(grpc, &mut telemetry, ignored)?;
    }
    section.deny_rest()?;
    Ok(telemetry)
}

fn read_collector(
    mut grpc: Section,
    telemetry: &mut Telemetry,
    ignored: &mut Vec<String>,
) -> Result<(), ConfigError> {
    telemetry.endpoint = grpc.text("endpoint")?;
    let endpoint = telemetry.endpoint.as_deref().unwrap_or_default();
    let is_tls = endpoint.starts_with("https://");
    if !is_tls && !endpoint.starts_with("http://") {
        let reason = "required: http://host:port, or https://host:port";
        return Err(grpc.unsupported("endpoint", reason));
    }
    // Without a word about it there is none: the address says so, and nothing secret is sent.
    telemetry.tls = tls::read_client(grpc.section("tls")?, true, is_tls, ignored)?;
    telemetry.tls.server_name = grpc.text("server_name")?;
    let mut headers = grpc.section("headers")?;
    for name in headers.keys() {
        let value = headers.secret(&name)?.unwrap_or_default();
        telemetry.headers.push((name, value));
    }
    grpc.refuse("auth", "give what the collector wants to see under headers")?;
    grpc.refuse("proxy", "proxies are not supported")?;
    grpc.refuse("origin", "it is always the host of the address")?;
    for key in WITHOUT_EFFECT {
        grpc.ignore(key, ignored);
    }
    grpc.deny_rest()
}
