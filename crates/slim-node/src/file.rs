//! The configuration file: YAML of the shape that SLIM nodes read everywhere.
//!
//! ```yaml
//! tracing:
//!   log_level: info
//! runtime:
//!   drain_timeout: 10s
//! services:
//!   slim/0:
//!     node_id: slim-0
//!     dataplane:
//!       servers:
//!         - endpoint: "127.0.0.1:46357"
//!           tls: { insecure: true }
//!       limits:
//!         connections: 10000
//! ```
//!
//! A key that nobody knows is an error, which names the one that may be meant. Some
//! that others know have no effect here, and we say so. A key that asks for something
//! this node cannot do yet is an error too, and whoever does not say that links are
//! not to be encrypted has to give a certificate.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use slim_node::{Endpoint, Keepalive, ListenConfig, PeersConfig};
use tracing::Level;

use self::auth::{AuthConfig, AuthKeys};
use self::error::ConfigError;
use self::keys::{DataplaneKeys, FileKeys, KeepaliveKeys, LimitKeys, ServerKeys, ServiceKeys};
use self::setting::Setting as _;
use self::telemetry::Telemetry;

pub(crate) mod auth;
mod client_auth;
pub(crate) mod error;
mod keys;
pub(crate) mod manual;
pub(crate) mod peers;
pub(crate) mod policy;
pub(crate) mod schema;
pub(crate) mod setting;
pub(crate) mod telemetry;
#[cfg(test)]
mod tests;
mod tls;
mod value;

/// With a shorter queue every burst would be taken for a slow subscriber.
const MIN_QUEUE_BYTES: u64 = 16 * 1024;

/// Keys of a server entry that count in the first one only.
const OF_THE_FIRST: [&str; 4] =
    ["keepalive", "require_header_mac", "negotiation_timeout_secs", "link_hmac_timeout_secs"];

/// How much is logged if nobody says.
pub(crate) const DEFAULT_LOG_LEVEL: Level = Level::INFO;

/// What threads are called if nobody says.
pub(crate) const DEFAULT_THREAD_NAME: &str = "slim-node";

/// What a file says; `None` where it says nothing.
#[derive(Debug, Default)]
pub(crate) struct FileConfig {
    pub(crate) log_level: Option<Level>,
    pub(crate) telemetry: Telemetry,
    pub(crate) worker_threads: Option<usize>,
    pub(crate) thread_name: Option<String>,
    pub(crate) drain_timeout: Option<Duration>,
    pub(crate) admin: Option<SocketAddr>,
    pub(crate) node_id: Option<String>,
    pub(crate) peers: Option<PeersConfig>,
    pub(crate) servers: Vec<Server>,
    /// Where the policy is.
    pub(crate) policy: Option<PathBuf>,
    pub(crate) require_header_mac: Option<bool>,
    pub(crate) negotiation_timeout: Option<Duration>,
    pub(crate) keepalive: Keepalive,
    pub(crate) limits: Limits,
    /// Paths of keys that have no effect.
    pub(crate) ignored: Vec<String>,
}

/// Where to listen, and for whom.
#[derive(Debug)]
pub(crate) struct Server {
    /// Still for everybody.
    pub(crate) listen: ListenConfig,
    pub(crate) auth: Option<AuthConfig>,
}

/// The section `dataplane.limits`, which only this node knows; see
/// [`NodeConfig`](slim_node::NodeConfig) for what each means.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) connections: Option<usize>,
    pub(crate) unnegotiated_connections: Option<usize>,
    pub(crate) subscriptions_per_link: Option<usize>,
    pub(crate) names_per_peer: Option<usize>,
    pub(crate) queued_bytes_per_link: Option<usize>,
    pub(crate) queued_bytes: Option<usize>,
    /// 0: no limit.
    pub(crate) messages_per_second_per_link: Option<u32>,
    pub(crate) slow_subscriber_grace: Option<Duration>,
}

/// Where the value of `${env:NAME}` or `${file:PATH}` comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reference<'a> {
    Env(&'a str),
    File(&'a str),
}

/// Reads the text of a file. `resolve` gives the values of references.
///
/// # Errors
/// The first thing that is wrong, with the path of its key.
pub(crate) fn parse(
    text: &str,
    resolve: &dyn Fn(Reference<'_>) -> Result<String, String>,
) -> Result<FileConfig, ConfigError> {
    let mut value: Value = serde_saphyr::from_str(text)
        .map_err(|error| ConfigError::new("", error.without_snippet().to_string()))?;
    replace_references("", &mut value, resolve)?;
    let mut ignored = Vec::new();
    let file = FileKeys::read(value, "", &mut ignored)?;
    convert(file, ignored)
}

/// What the keys mean together.
fn convert(file: FileKeys, mut ignored: Vec<String>) -> Result<FileConfig, ConfigError> {
    let FileKeys { tracing, runtime, services, .. } = file;
    let ServiceKeys { place, node_id, domain_name, dataplane, peers, .. } = services.entry;
    let DataplaneKeys { servers, clients, policy, limits, place: data } = dataplane;
    let mut config = FileConfig {
        log_level: tracing.log_level,
        telemetry: tracing.opentelemetry.telemetry(&mut ignored)?,
        worker_threads: runtime.n_cores.filter(|n| n.0 > 0).map(|n| n.0 as usize),
        thread_name: runtime.thread_name,
        drain_timeout: runtime.drain_timeout,
        admin: runtime.admin,
        node_id,
        policy,
        limits: limits.into(),
        ..FileConfig::default()
    };
    if peers.is_some() && config.node_id.is_none() {
        return Err(place.error_at("node_id", "required, for peers know each other by it"));
    }
    let nodes = peers::Nodes { domain_name, peers, clients };
    config.peers = nodes.config(&place, &data, &mut ignored)?;
    for (index, server) in servers.into_iter().enumerate() {
        if index == 0 {
            config.require_header_mac = server.require_header_mac;
            config.negotiation_timeout = negotiation_timeout(&server, &mut ignored);
            config.keepalive = keepalive(&server.keepalive)?;
        } else {
            server.place.ignore(&OF_THE_FIRST, &mut ignored);
        }
        config.servers.push(read_server(server, &mut ignored)?);
    }
    ignored.sort();
    ignored.dedup();
    config.ignored = ignored;
    Ok(config)
}

impl From<LimitKeys> for Limits {
    fn from(keys: LimitKeys) -> Self {
        Self {
            connections: keys.connections.map(|n| n.0),
            unnegotiated_connections: keys.unnegotiated_connections.map(|n| n.0),
            subscriptions_per_link: keys.subscriptions_per_link.map(|n| n.0),
            names_per_peer: keys.names_per_peer.map(|n| n.0),
            queued_bytes_per_link: keys.queued_bytes_per_link.map(|n| n.0),
            queued_bytes: keys.queued_bytes.map(|n| n.0),
            messages_per_second_per_link: keys.messages_per_second_per_link.map(|n| n.0),
            slow_subscriber_grace: keys.slow_subscriber_grace,
        }
    }
}

fn read_server(server: ServerKeys, ignored: &mut Vec<String>) -> Result<Server, ConfigError> {
    let ServerKeys { place, endpoint, tls, auth, .. } = server;
    let tls = match &endpoint {
        // It does not leave the machine, so there is nothing to ask for.
        Endpoint::Unix(_) => tls.none(ignored)?,
        _ => tls.config(ignored)?,
    };
    if let Endpoint::WebSocket { is_tls, .. } = endpoint
        && is_tls != tls.is_some()
    {
        let expected = "wss:// needs a certificate under tls, and ws:// tls: { insecure: true }";
        return Err(place.error_at("endpoint", expected));
    }
    let auth = auth.map(AuthKeys::config).transpose()?;
    Ok(Server { listen: ListenConfig { tls, ..endpoint.into() }, auth })
}

fn keepalive(keys: &KeepaliveKeys) -> Result<Keepalive, ConfigError> {
    let mut keepalive = Keepalive::default();
    for (key, said, value) in [
        ("time", keys.time, &mut keepalive.interval),
        ("timeout", keys.timeout, &mut keepalive.timeout),
        ("max_connection_age", keys.max_connection_age, &mut keepalive.max_connection_age),
    ] {
        match said {
            Some(Duration::ZERO) => return Err(keys.place.error_at(key, "must be more than 0")),
            said => *value = said.unwrap_or(*value),
        }
    }
    Ok(keepalive)
}

fn negotiation_timeout(server: &ServerKeys, ignored: &mut Vec<String>) -> Option<Duration> {
    if server.negotiation_timeout_secs.is_some() {
        server.place.ignore(&["link_hmac_timeout_secs"], ignored);
    }
    let seconds = server.negotiation_timeout_secs.or(server.link_hmac_timeout_secs);
    seconds.map(|seconds| Duration::from_secs(seconds.0))
}

fn replace_references(
    path: &str,
    value: &mut Value,
    resolve: &dyn Fn(Reference<'_>) -> Result<String, String>,
) -> Result<(), ConfigError> {
    match value {
        Value::Object(entries) => entries.iter_mut().try_for_each(|(key, value)| {
            replace_references(&setting::join(path, key), value, resolve)
        }),
        Value::Array(items) => items.iter_mut().enumerate().try_for_each(|(index, value)| {
            replace_references(&format!("{path}[{index}]"), value, resolve)
        }),
        Value::String(text) => {
            let Some(inner) = text.strip_prefix("${").and_then(|text| text.strip_suffix('}'))
            else {
                return Ok(());
            };
            let reference = match inner.split_once(':') {
                Some(("env", name)) => Reference::Env(name),
                Some(("file", name)) => Reference::File(name),
                _ => return Ok(()),
            };
            *text = resolve(reference).map_err(|reason| ConfigError::new(path, reason))?;
            Ok(())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}
