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

use self::auth::AuthConfig;
use self::section::{ConfigError, Section};
use self::telemetry::Telemetry;

pub(crate) mod auth;
pub(crate) mod peers;
pub(crate) mod policy;
pub(crate) mod section;
pub(crate) mod telemetry;
#[cfg(test)]
mod tests;
mod tls;

/// With a shorter queue every burst would be taken for a slow subscriber.
const MIN_QUEUE_BYTES: u64 = 16 * 1024;

/// Keys of a server entry that others know. The last four count in the first entry
/// only.
const WITHOUT_EFFECT: [&str; 12] = [
    "http2_only",
    "link_hmac_poll_interval_ms",
    "max_concurrent_streams",
    "max_frame_size",
    "max_header_list_size",
    "metadata",
    "read_buffer_size",
    "write_buffer_size",
    "keepalive",
    "require_header_mac",
    "negotiation_timeout_secs",
    "link_hmac_timeout_secs",
];

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
    let mut root = Section::new(String::new(), value)?;
    let mut config = FileConfig::default();
    read_tracing(root.section("tracing")?, &mut config)?;
    read_runtime(root.section("runtime")?, &mut config)?;
    read_services(root.section("services")?, &mut config)?;
    root.deny_rest()?;
    Ok(config)
}

fn replace_references(
    path: &str,
    value: &mut Value,
    resolve: &dyn Fn(Reference<'_>) -> Result<String, String>,
) -> Result<(), ConfigError> {
    match value {
        Value::Object(entries) => entries.iter_mut().try_for_each(|(key, value)| {
            replace_references(&section::join(path, key), value, resolve)
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

fn read_tracing(mut section: Section, config: &mut FileConfig) -> Result<(), ConfigError> {
    config.log_level = section.parsed("log_level", "one of trace, debug, info, warn, error")?;
    // Our lines have no thread names, and our modules all log at that level.
    section.ignore("display_thread_names", &mut config.ignored);
    section.ignore("display_thread_ids", &mut config.ignored);
    section.ignore("filters", &mut config.ignored);
    config.telemetry = telemetry::read(section.section("opentelemetry")?, &mut config.ignored)?;
    section.deny_rest()
}

fn read_runtime(mut section: Section, config: &mut FileConfig) -> Result<(), ConfigError> {
    config.worker_threads = section.number("n_cores")?.filter(|n| *n > 0).map(|n| n as usize);
    config.thread_name = section.text("thread_name")?;
    config.drain_timeout = section.duration("drain_timeout")?;
    config.admin =
        section.parsed("admin", "a numeric address and a port, such as 127.0.0.1:9464")?;
    section.deny_rest()
}

fn read_services(mut services: Section, config: &mut FileConfig) -> Result<(), ConfigError> {
    let keys = services.keys();
    let [key] = &keys[..] else {
        return Err(match keys.get(1) {
            None => ConfigError::new("services", "required, with one entry such as slim/0"),
            Some(second) => services.unsupported(second, "a second service is not supported"),
        });
    };
    let is_name = |name: &str| {
        !name.is_empty() && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
    };
    if !key.strip_prefix("slim/").is_some_and(is_name) {
        return Err(services.unsupported(key, "expected slim/ and a name of a-z, 0-9 and -"));
    }
    let mut service = services.section(key)?;
    config.node_id = service.text("node_id")?;
    service.refuse("auth", "the control plane is not supported yet")?;
    // Rules where messages of local applications go, and a node has none.
    service.ignore("default_gateway", &mut config.ignored);
    let mut controller = service.section("controller")?;
    controller.refuse("servers", "the control plane is not supported yet")?;
    controller.refuse("clients", "the control plane is not supported yet")?;
    let mut dataplane = service.section("dataplane")?;
    let node_id = config.node_id.as_deref();
    config.peers = peers::read(&mut service, &mut dataplane, node_id, &mut config.ignored)?;
    read_dataplane(dataplane, config)?;
    service.deny_rest()
}

fn read_dataplane(mut section: Section, config: &mut FileConfig) -> Result<(), ConfigError> {
    for (index, mut server) in section.list("servers")?.into_iter().enumerate() {
        read_server(&mut server, config)?;
        if index == 0 {
            config.require_header_mac = server.flag("require_header_mac")?;
            config.negotiation_timeout = negotiation_timeout(&mut server)?;
            config.keepalive = read_keepalive(server.section("keepalive")?, &mut config.ignored)?;
        }
        for key in WITHOUT_EFFECT {
            server.ignore(key, &mut config.ignored);
        }
        server.deny_rest()?;
    }
    config.policy = section.text("policy")?.map(PathBuf::from);
    config.limits = read_limits(section.section("limits")?)?;
    section.refuse("outbound_clients", "only dataplane.clients are supported")?;
    if section.flag("enforce_pqc")? == Some(true) {
        return Err(section.unsupported("enforce_pqc", "enforcing it is not supported yet"));
    }
    section.deny_rest()
}

fn read_limits(mut section: Section) -> Result<Limits, ConfigError> {
    let limits = Limits {
        connections: section.at_least("connections", 1)?,
        unnegotiated_connections: section.at_least("unnegotiated_connections", 1)?,
        subscriptions_per_link: section.at_least("subscriptions_per_link", 1)?,
        names_per_peer: section.at_least("names_per_peer", 1)?,
        queued_bytes_per_link: section.at_least("queued_bytes_per_link", MIN_QUEUE_BYTES)?,
        queued_bytes: section.at_least("queued_bytes", 0)?,
        messages_per_second_per_link: section.at_least("messages_per_second_per_link", 0)?,
        slow_subscriber_grace: section.duration("slow_subscriber_grace")?,
    };
    section.deny_rest()?;
    Ok(limits)
}

fn read_server(server: &mut Section, config: &mut FileConfig) -> Result<(), ConfigError> {
    let endpoint = server.parsed(
        "endpoint",
        "a numeric address and a port, such as 127.0.0.1:46357, the same after ws:// or wss://, \
         or unix:///path",
    )?;
    let endpoint = endpoint.ok_or_else(|| server.unsupported("endpoint", "required"))?;
    let tls = match &endpoint {
        // It does not leave the machine, so there is nothing to ask for.
        Endpoint::Unix(_) => tls::read_none(server.section("tls")?, &mut config.ignored)?,
        _ => tls::read(server.section("tls")?, &mut config.ignored)?,
    };
    if let Endpoint::WebSocket { is_tls, .. } = endpoint
        && is_tls != tls.is_some()
    {
        let expected = "wss:// needs a certificate under tls, and ws:// tls: { insecure: true }";
        return Err(server.unsupported("endpoint", expected));
    }
    let auth = server.optional("auth")?.map(|auth| auth::read(auth, &mut config.ignored));
    let listen = ListenConfig { tls, ..endpoint.into() };
    config.servers.push(Server { listen, auth: auth.transpose()? });
    Ok(())
}

fn read_keepalive(
    mut section: Section,
    ignored: &mut Vec<String>,
) -> Result<Keepalive, ConfigError> {
    let mut keepalive = Keepalive::default();
    for (key, value) in [
        ("time", &mut keepalive.interval),
        ("timeout", &mut keepalive.timeout),
        ("max_connection_age", &mut keepalive.max_connection_age),
    ] {
        match section.duration(key)? {
            Some(Duration::ZERO) => return Err(section.unsupported(key, "must be more than 0")),
            Some(duration) => *value = duration,
            None => {}
        }
    }
    // Links last for hours without a word, and are never cut for their age.
    section.ignore("max_connection_idle", ignored);
    section.ignore("max_connection_age_grace", ignored);
    section.deny_rest()?;
    Ok(keepalive)
}

fn negotiation_timeout(server: &mut Section) -> Result<Option<Duration>, ConfigError> {
    let seconds = match server.number("negotiation_timeout_secs")? {
        Some(seconds) => Some(seconds),
        None => server.number("link_hmac_timeout_secs")?,
    };
    match seconds {
        Some(0) => Err(server.unsupported("negotiation_timeout_secs", "must be at least 1")),
        seconds => Ok(seconds.map(Duration::from_secs)),
    }
}
