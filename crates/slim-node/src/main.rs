//! The `slim-node` program: options, configuration file, log, signals.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use slim_node::{
    BindError, Certificates, Endpoint, KeyPair, ListenConfig, ListenError, Node, NodeConfig,
    NodeLimits, PeersConfig, Pem, Policy, PolicyHandle, ServerTls, Topology,
};
use slim_telemetry::Telemetry;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt as _;

use self::command::{Command, read_policy};
use self::file::peers::PeerOption;
use self::file::{DEFAULT_LOG_LEVEL, DEFAULT_THREAD_NAME, FileConfig, Reference, Server};

mod command;
mod file;

/// Exit status: it cannot listen, or stopped by itself.
const FAILED: u8 = 1;
/// Exit status: wrong options or a bad configuration file.
const USAGE: u8 = 2;

/// Passes messages on between SLIM applications.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Address to listen on; the same after ws:// or wss:// for WebSockets; or
    /// unix:///path; may repeat; port 0 picks one; overrides the file
    /// [default: 127.0.0.1:46357]
    #[arg(long, value_name = "ADDR")]
    listen: Vec<Endpoint>,
    /// Certificate of the node, PEM; with it, links are encrypted with TLS on the
    /// addresses that are not the file's
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its key, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Authorities of the clients, PEM; who shows no certificate of theirs is refused
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_client_ca: Option<PathBuf>,
    /// Address for looking at the node over HTTP: /metrics, /healthz, /readyz,
    /// /connections, /routes; who reaches it sees all names, so take one that only this
    /// machine reaches; overrides the file [default: none]
    #[arg(long, value_name = "ADDR")]
    admin: Option<SocketAddr>,
    /// Id of this node, which its peers know; overrides the file [default: a new one]
    #[arg(long, value_name = "ID")]
    node_id: Option<String>,
    /// Another node, whose applications are to be reached and may reach those here:
    /// ID=ADDR, or ID if it is the one that dials; may repeat; overrides the file. Of two
    /// nodes, the one with the smaller id dials
    #[arg(long, value_name = "ID=ADDR", requires = "node_id")]
    peer: Vec<PeerOption>,
    /// Pass on what peers say and send, for a line or a ring in which not all are each
    /// other's peers; who has an ADDR is dialled
    #[arg(long, requires = "peer")]
    relay: bool,
    /// Authorities of the peers that are dialled, PEM [default: the system's]
    #[arg(long, value_name = "FILE", requires = "peer")]
    peer_ca: Option<PathBuf>,
    /// Policy, YAML: which names are whose; read again at SIGHUP; overrides the file
    /// [default: none, every link may have any name]
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Configuration file, YAML
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Only say whether this file could be used, and end: status 0, or 2 and the reason
    #[arg(long, value_name = "FILE", exclusive = true)]
    check: Option<PathBuf>,
    /// Only ask the node whose --admin address this is whether it is ready, and end:
    /// status 0, or 1 and what it says
    #[arg(long, value_name = "ADDR", exclusive = true)]
    health: Option<SocketAddr>,
    /// Connections at once; more wait until one goes; at least 1; overrides the file
    /// [default: 10000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_connections: Option<u32>,
    /// Messages a second from one link, 0 for no limit; who sends more is slowed
    /// down; overrides the file [default: 0]
    #[arg(long, value_name = "N")]
    max_rate: Option<u32>,
    /// Send traces of messages and metrics to an OpenTelemetry collector, by OTLP over gRPC:
    /// the file's, or the one of OTEL_EXPORTER_OTLP_ENDPOINT [default:
    /// http://localhost:4317]
    #[arg(long)]
    enable_opentelemetry: bool,
    /// Log level: off, error, warn, info, debug or trace; overrides the file
    /// [default: info]
    #[arg(long, value_name = "LEVEL")]
    log: Option<LevelFilter>,
    /// How log lines look
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    /// For people
    Text,
    /// One object a line
    Json,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match start(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.text.is_empty() {
                // Nothing else can be done if stderr is closed.
                writeln!(io::stderr(), "slim-node: {}", failure.text).ok();
            }
            ExitCode::from(failure.status)
        }
    }
}

/// Why the program ends, in one line; in none if that was said.
#[derive(Debug)]
struct Failure {
    status: u8,
    text: String,
}

impl Failure {
    fn new(status: u8, text: impl Into<String>) -> Self {
        Self { status, text: text.into() }
    }
}

fn start(args: Args) -> Result<(), Failure> {
    if let Some(command) = args.command {
        return command::run(command);
    }
    if let Some(path) = &args.check {
        return check(path);
    }
    if let Some(address) = args.health {
        return health(address);
    }
    let file = args.config.as_deref().map(read_file).transpose()?;
    if let (Some(path), Some(FileConfig { servers, .. })) = (&args.config, &file)
        && servers.is_empty()
        && args.listen.is_empty()
    {
        let text = format!("{}: no dataplane.servers to listen for", path.display());
        return Err(Failure::new(USAGE, text));
    }
    let mut file = file.unwrap_or_default();
    file.admin = args.admin.or(file.admin);
    file.peers = peers(&args).or(file.peers);
    file.node_id = args.node_id.clone().or(file.node_id);
    let tls = server_tls(&args);
    if tls.is_some() && args.listen.is_empty() && !file.servers.is_empty() {
        let text = "--tls-cert is for addresses of --listen; the file has its own";
        return Err(Failure::new(USAGE, text));
    }
    if !args.listen.is_empty() && file.servers.iter().any(|server| server.auth.is_some()) {
        let text = "the file says who may come in by auth, and nothing of that is for addresses \
                    of --listen: give them in the file";
        return Err(Failure::new(USAGE, text));
    }
    let options = LimitOptions { connections: args.max_connections, rate: args.max_rate };
    options.override_in(&mut file);
    let level = args.log.unwrap_or_else(|| file.log_level.unwrap_or(DEFAULT_LOG_LEVEL).into());
    let set_level = init_log(level, args.log_format);
    for key in &file.ignored {
        warn!(key, "configuration key has no effect");
    }
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.enable_all().thread_name(file.thread_name.as_deref().unwrap_or(DEFAULT_THREAD_NAME));
    if let Some(threads) = file.worker_threads {
        runtime.worker_threads(threads);
    }
    let runtime = runtime.build().map_err(|error| Failure::new(FAILED, error.to_string()))?;
    let servers = servers(args.listen, tls, &mut file);
    let telemetry = file.telemetry.clone();
    let with_telemetry = args.enable_opentelemetry || telemetry.enabled == Some(true);
    let policy = args.policy.clone().or_else(|| file.policy.clone());
    let policy = policy.as_deref().map(read_policy).transpose()?;
    let mut config = NodeConfig { policy, telemetry: with_telemetry, ..node_config(file) };
    fit_descriptors(&mut config);
    let set_level = args.log.is_none().then_some(set_level);
    let reload = Reload { file: args.config, policy: args.policy, options, set_level };
    let telemetry = match with_telemetry {
        true => Some(start_telemetry(&runtime, &telemetry, &config.node_id)?),
        false => None,
    };
    // There is nothing to send of a node that has not come up.
    runtime.block_on(run(config, servers, reload))?;
    if let Some(Err(error)) = telemetry.map(Telemetry::shutdown) {
        warn!(%error, "the last traces and metrics may not have arrived");
    }
    Ok(())
}

fn start_telemetry(
    runtime: &Runtime,
    telemetry: &file::telemetry::Telemetry,
    node_id: &str,
) -> Result<Telemetry, Failure> {
    let config = telemetry.config(node_id);
    let config = config.map_err(|error| Failure::new(USAGE, format!("telemetry: {error}")))?;
    let _within = runtime.enter();
    let telemetry = Telemetry::start(&config);
    let telemetry = telemetry.map_err(|error| Failure::new(USAGE, error.to_string()))?;
    info!(endpoint = config.endpoint, "traces and metrics go to a collector");
    Ok(telemetry)
}

/// Says at the start whether names belong to anybody.
fn tell_policy(policy: Option<&Policy>, listen: &[ListenConfig]) {
    let is_known = |listen: &ListenConfig| {
        let has_ca = listen.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
        listen.auth.is_some() || has_ca
    };
    match policy {
        None => info!("no policy: every link may subscribe to any name, and publish to any"),
        Some(policy) => {
            info!(rules = policy.rules.len(), "what no rule of the policy allows is denied");
            for ListenConfig { endpoint, .. } in listen.iter().filter(|one| !is_known(one)) {
                warn!(%endpoint, "nobody is known here: of the policy, only rules for anyone count");
            }
        }
    }
}

/// Says whether a file could be used, with the certificates that it names.
fn check(path: &Path) -> Result<(), Failure> {
    let bad = |reason: String| Failure::new(USAGE, format!("{}: {reason}", path.display()));
    let file = read_file(path)?;
    if file.servers.is_empty() {
        return Err(bad("no dataplane.servers to listen for".to_owned()));
    }
    for Server { listen, auth } in &file.servers {
        let endpoint = &listen.endpoint;
        if let Some(tls) = &listen.tls {
            tls.check().map_err(|error| bad(format!("{endpoint}: {error}")))?;
        }
        if let Some(auth) = auth {
            auth.check().map_err(|error| bad(format!("{endpoint}: {error}")))?;
        }
    }
    for peer in file.peers.iter().flat_map(|peers| &peers.peers) {
        if let Some(target) = peer.target.as_ref().filter(|target| target.is_tls()) {
            target.check_tls(&peer.tls).map_err(|error| bad(format!("{target}: {error}")))?;
        }
    }
    if let Some(policy) = &file.policy {
        read_policy(policy)?;
    }
    if file.telemetry.enabled == Some(true) {
        let bad = |reason: String| bad(format!("tracing.opentelemetry: {reason}"));
        let telemetry = file.telemetry.config("").map_err(|error| bad(error.to_string()))?;
        telemetry.check().map_err(|error| bad(error.to_string()))?;
    }
    let mut stdout = io::stdout().lock();
    // If nobody reads it, the status says the same.
    for key in &file.ignored {
        writeln!(stdout, "{}: {key} has no effect", path.display()).ok();
    }
    writeln!(stdout, "{}: good", path.display()).ok();
    Ok(())
}

/// Bytes of an answer about health that are read.
const MAX_ANSWER_LEN: u64 = 4096;

/// How long asking for health may take, each step of it.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);

/// Whether the node with this admin address takes links.
fn health(address: SocketAddr) -> Result<(), Failure> {
    let answer = ask_for_health(address)
        .map_err(|error| Failure::new(FAILED, format!("no answer from {address}: {error}")))?;
    let (head, said) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    if head.split(' ').nth(1) != Some("200") {
        let line = head.lines().next().unwrap_or_default();
        return Err(Failure::new(FAILED, format!("{address} answers {line:?}: {}", said.trim())));
    }
    // If nobody reads it, the status says the same.
    write!(io::stdout(), "{said}").ok();
    Ok(())
}

fn ask_for_health(address: SocketAddr) -> io::Result<String> {
    let mut tcp = TcpStream::connect_timeout(&address, HEALTH_TIMEOUT)?;
    tcp.set_read_timeout(Some(HEALTH_TIMEOUT))?;
    tcp.set_write_timeout(Some(HEALTH_TIMEOUT))?;
    write!(tcp, "GET /readyz HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    tcp.take(MAX_ANSWER_LEN).read_to_string(&mut answer)?;
    Ok(answer)
}

/// Limits that options give, which stay.
#[derive(Clone, Copy)]
struct LimitOptions {
    connections: Option<u32>,
    rate: Option<u32>,
}

impl LimitOptions {
    fn override_in(self, file: &mut FileConfig) {
        let limits = &mut file.limits;
        limits.connections = self.connections.map(|n| n as usize).or(limits.connections);
        limits.messages_per_second_per_link = self.rate.or(limits.messages_per_second_per_link);
    }
}

/// What is done anew at SIGHUP.
struct Reload {
    /// For the log level, the limits, and the place of the policy.
    file: Option<PathBuf>,
    /// Where an option says that the policy is.
    policy: Option<PathBuf>,
    options: LimitOptions,
    /// Unless an option says the level.
    set_level: Option<Box<dyn Fn(LevelFilter) + Send>>,
}

impl Reload {
    /// Reads files, so it blocks for a moment. What cannot be used changes nothing.
    fn now(
        &self,
        certificates: &[Certificates],
        limits: &NodeLimits,
        policy: Option<&PolicyHandle>,
    ) {
        for certificates in certificates {
            let endpoint = certificates.endpoint();
            match certificates.reload() {
                Ok(true) => info!(%endpoint, "certificates loaded anew"),
                Ok(false) => info!(%endpoint, "certificates are the same"),
                Err(error) => warn!(%endpoint, %error, "the old certificates stay"),
            }
        }
        let file = self.file.as_deref().map(read_file);
        let named = file.as_ref().and_then(|file| file.as_ref().ok()?.policy.clone());
        load_policy(policy, self.policy.clone().or(named).as_deref());
        match file {
            None => {}
            Some(Ok(mut file)) => {
                if let Some(set_level) = &self.set_level {
                    let level = file.log_level.unwrap_or(DEFAULT_LOG_LEVEL);
                    set_level(level.into());
                    info!(%level, "log level as in the file");
                }
                self.options.override_in(&mut file);
                let mut config = node_config(file);
                fit_descriptors(&mut config);
                limits.set(&config);
                info!("limits as in the file");
            }
            Some(Err(failure)) => {
                warn!(reason = failure.text, "the log level and the limits stay");
            }
        }
    }
}

/// Has the node take the policy as it is in the file now.
fn load_policy(policy: Option<&PolicyHandle>, path: Option<&Path>) {
    match (policy, path.map(read_policy)) {
        (None, None) => {}
        (None, Some(_)) => warn!("a policy where there was none counts from the next start"),
        (Some(_), None) => warn!("no policy is named any more: the old one stays"),
        (Some(_), Some(Err(failure))) => warn!(reason = failure.text, "the old policy stays"),
        (Some(handle), Some(Ok(policy))) => {
            let rules = policy.rules.len();
            match handle.set(policy) {
                true => info!(rules, "policy loaded anew"),
                false => info!("the policy is the same"),
            }
        }
    }
}

fn read_file(path: &Path) -> Result<FileConfig, Failure> {
    let bad = |reason: String| Failure::new(USAGE, format!("{}: {reason}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| bad(error.to_string()))?;
    file::parse(&text, &resolve).map_err(|error| bad(error.to_string()))
}

/// Looks up what a configuration file refers to.
fn resolve(reference: Reference<'_>) -> Result<String, String> {
    match reference {
        Reference::Env(name) => {
            std::env::var(name).map_err(|error| format!("environment variable {name}: {error}"))
        }
        Reference::File(path) => std::fs::read_to_string(path)
            .map(|text| text.trim_end_matches(['\r', '\n']).to_owned())
            .map_err(|error| format!("{path}: {error}")),
    }
}

/// TLS that the options ask for.
fn server_tls(args: &Args) -> Option<ServerTls> {
    let file = |path: &Option<PathBuf>| path.clone().map(Pem::File);
    let identity = KeyPair { certificate: file(&args.tls_cert)?, key: file(&args.tls_key)? };
    Some(ServerTls { client_ca: file(&args.tls_client_ca), ..ServerTls::new(identity) })
}

/// Peers that the options name.
fn peers(args: &Args) -> Option<PeersConfig> {
    if args.peer.is_empty() {
        return None;
    }
    let file = |path: &Option<PathBuf>| path.clone().map(Pem::File);
    let identity = file(&args.tls_cert).zip(file(&args.tls_key));
    let identity = identity.map(|(certificate, key)| KeyPair { certificate, key });
    let config = |peer: &PeerOption| peer.clone().config(file(&args.peer_ca), identity.clone());
    Some(PeersConfig {
        topology: if args.relay { Topology::Relay } else { Topology::FullMesh },
        peers: args.peer.iter().map(config).collect(),
        ..PeersConfig::default()
    })
}

/// The addresses of the options, of the file, or the default.
fn servers(options: Vec<Endpoint>, tls: Option<ServerTls>, file: &mut FileConfig) -> Vec<Server> {
    if options.is_empty() && !file.servers.is_empty() {
        return std::mem::take(&mut file.servers);
    }
    let mut listen = NodeConfig::default().listen;
    if !options.is_empty() {
        listen = options.into_iter().map(ListenConfig::from).collect();
    }
    let with_tls = |listen| ListenConfig { tls: tls.clone(), ..listen };
    listen.into_iter().map(|listen| Server { listen: with_tls(listen), auth: None }).collect()
}

/// Reads what the addresses take as proof.
async fn authenticated(servers: Vec<Server>) -> Result<Vec<ListenConfig>, Failure> {
    let mut listen = Vec::new();
    for Server { listen: mut address, auth } in servers {
        if let Some(auth) = auth {
            let endpoint = &address.endpoint;
            let is_local = match endpoint {
                Endpoint::Tcp(addr) => addr.ip().is_loopback(),
                _ => true,
            };
            if address.tls.is_none() && !is_local {
                warn!(%endpoint, "passwords and tokens come in clear here, for lack of TLS");
            }
            let loaded = auth.load().await;
            let loaded =
                loaded.map_err(|error| Failure::new(USAGE, format!("{endpoint}: {error}")))?;
            address.auth = Some(Arc::new(loaded));
        }
        listen.push(address);
    }
    Ok(listen)
}

/// What the file says, but for where to listen.
fn node_config(file: FileConfig) -> NodeConfig {
    let default = NodeConfig::default();
    let limits = file.limits;
    let rate = limits.messages_per_second_per_link;
    NodeConfig {
        policy: None,
        max_connections: limits.connections.unwrap_or(default.max_connections),
        max_unnegotiated_connections: (limits.unnegotiated_connections)
            .unwrap_or(default.max_unnegotiated_connections),
        max_subscriptions_per_link: (limits.subscriptions_per_link)
            .unwrap_or(default.max_subscriptions_per_link),
        queue_bytes: limits.queued_bytes_per_link.unwrap_or(default.queue_bytes),
        max_queued_bytes: limits.queued_bytes.unwrap_or(default.max_queued_bytes),
        max_messages_per_second: rate.map_or(default.max_messages_per_second, NonZeroU32::new),
        slow_subscriber_grace: (limits.slow_subscriber_grace)
            .unwrap_or(default.slow_subscriber_grace),
        listen: Vec::new(),
        admin: file.admin,
        node_id: file.node_id.unwrap_or(default.node_id),
        peers: file.peers.map(|peers| PeersConfig {
            max_names_per_peer: limits.names_per_peer.unwrap_or(peers.max_names_per_peer),
            ..peers
        }),
        require_header_mac: file.require_header_mac.unwrap_or(default.require_header_mac),
        negotiation_timeout: file.negotiation_timeout.unwrap_or(default.negotiation_timeout),
        keepalive: file.keepalive,
        drain_timeout: file.drain_timeout.unwrap_or(default.drain_timeout),
        telemetry: false,
    }
}

/// Descriptors that are needed for other things than connections.
const OTHER_DESCRIPTORS: u64 = 64;

/// Takes all the descriptors that the system allows, and no more connections than
/// that: what is beyond waits, instead of failing.
fn fit_descriptors(config: &mut NodeConfig) {
    let limit = getrlimit(Resource::Nofile);
    // If it cannot be raised it stays what it is.
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).is_ok();
    let Some(available) = (if raised { limit.maximum } else { limit.current }) else { return };
    let connections = available.saturating_sub(OTHER_DESCRIPTORS).max(1);
    if connections < config.max_connections as u64 {
        config.max_connections = connections as usize;
        warn!(descriptors = available, connections, "fewer connections, for lack of descriptors");
    }
}

/// Our own crates log at `level`. Others may show what goes over the wire, so they
/// only warn.
fn log_filter(level: LevelFilter) -> Targets {
    Targets::new()
        .with_default(level.min(LevelFilter::WARN))
        .with_targets(
            ["slim_node", "slim_link", "slim_proto", "slim_identity"].map(|target| (target, level)),
        )
        // What it warns of, opentelemetry_sdk says again, with the reason.
        .with_target("opentelemetry-otlp", level.min(LevelFilter::ERROR))
}

/// Starts the log, and returns what sets its level later.
fn init_log(level: LevelFilter, format: LogFormat) -> Box<dyn Fn(LevelFilter) + Send> {
    let (filter, handle) = reload::Layer::new(log_filter(level));
    let layer = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    let log = tracing_subscriber::registry().with(filter);
    match format {
        LogFormat::Text => {
            log.with(layer.with_ansi(io::IsTerminal::is_terminal(&io::stderr()))).init()
        }
        LogFormat::Json => log.with(layer.json()).init(),
    }
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        let text = panic.payload_as_str().unwrap_or_default();
        error!(place, text, "bug: a task has panicked");
    }));
    // It fails only when there is no log any more.
    Box::new(move |level| handle.reload(log_filter(level)).unwrap_or(()))
}

async fn run(mut config: NodeConfig, servers: Vec<Server>, reload: Reload) -> Result<(), Failure> {
    let failed = |error: &dyn std::error::Error| Failure::new(FAILED, error.to_string());
    let mut signals = Signals::new().map_err(|error| failed(&error))?;
    let mut hangup = signal(SignalKind::hangup()).map_err(|error| failed(&error))?;
    config.listen = authenticated(servers).await?;
    let (rules, listen) = (config.policy.clone(), config.listen.clone());
    let node_id = config.node_id.clone();
    let node = Node::bind(config).await.map_err(|error| {
        // Certificates that cannot be used are configuration.
        let is_usage = matches!(error, BindError::Listen { source: ListenError::Tls(_), .. });
        Failure::new(if is_usage { USAGE } else { FAILED }, error.to_string())
    })?;
    for endpoint in node.endpoints() {
        announce(endpoint);
    }
    if let Some(address) = node.admin_addr() {
        writeln!(io::stdout(), "admin on http://{address}").ok();
        if !address.ip().is_loopback() {
            warn!(%address, "--admin is open to other machines: they see all names and addresses");
        }
    }
    info!(node_id, version = env!("CARGO_PKG_VERSION"), "node up");
    tell_policy(rules.as_ref(), &listen);
    let metrics = node.metrics();
    let (certificates, limits, policy) = (node.certificates(), node.limits(), node.policy());
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            tokio::task::block_in_place(|| reload.now(&certificates, &limits, policy.as_ref()));
        }
    });
    let shutdown = async move {
        let name = signals.next().await;
        info!(signal = name, "draining; again to end at once");
        tokio::spawn(async move {
            signals.next().await;
            std::process::exit(FAILED.into());
        });
    };
    node.run(shutdown).await.map_err(|error| failed(&error))?;
    info!(metrics = ?metrics.snapshot(), "node down");
    Ok(())
}

/// Tells whoever started the program. If nobody listens, that is their choice.
fn announce(endpoint: &Endpoint) {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "listening on {endpoint}").ok();
    stdout.flush().ok();
}

/// The signals that end the program.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}
