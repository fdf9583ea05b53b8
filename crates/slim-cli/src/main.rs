//! The `slim` command: group and point-to-point conversations in a terminal or a
//! script, measurements, and a look at a node.
//!
//! [`args`] says what can be asked for, [`conversation`], [`mod@bench`], [`top`] and
//! [`doctor`] do it,
//! [`output`] tells what happens and [`failure`] how it ends.

mod admin;
mod args;
mod bench;
mod conversation;
mod doctor;
mod failure;
mod group;
mod identity;
mod input;
mod node_option;
mod output;
mod p2p;
mod prompt;
mod signals;
mod source;
mod terminal;
mod tls_args;
mod top;

use std::io;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use slim_client::{Client, ConnectError, Invitations, Name, SharedSecret};
use slim_identity::{Credentials, IssuerError, LoadError};
use slim_telemetry::{Telemetry, TelemetryConfig};
use tokio::runtime::Builder;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::prelude::*;

use crate::args::{Asked, DoctorSettings, Format, Role, Settings, TopSettings};
use crate::conversation::Conversation;
use crate::failure::Failure;
use crate::node_option::NodeOption;
use crate::output::text::{Kind, Text};
use crate::output::{Event, Output};
use crate::signals::Stop;
use crate::source::Source;
use crate::terminal::Terminal;

/// How often the line is updated that says how long the node has been tried.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    match args::parse(std::env::args_os()) {
        Ok(Asked::Conversation(settings)) => end(talk(&settings)),
        Ok(Asked::Bench(settings)) => end(measure(&settings)),
        Ok(Asked::Doctor(settings)) => end(diagnose(&settings)),
        Ok(Asked::Top(settings)) => end(look(&settings)),
        Ok(Asked::Identity(command)) => end(identity::run(&command)),
        Err(error) => end(Err(Failure::Usage(Box::new(error)))),
    }
}

/// A conversation, from the terminal or a script.
fn talk(settings: &Settings) -> Result<(), Failure> {
    let terminal = Terminal::detect();
    let is_text = settings.output == Format::Text;
    let text = is_text.then(|| Text::new(kind(&settings.role), terminal.colours));
    let mut output = Output::new(text, terminal.capable);
    let interactive = is_text && terminal.input && terminal.capable && !is_script(&settings.role);
    start_logs(settings.log, &output, interactive && terminal.logs);
    warn_of_ignored(&settings.node);
    work(&mut output, !is_text, async |output| {
        let telemetry = start_telemetry(settings)?;
        let result = converse(settings, terminal, interactive, output).await;
        end_telemetry(telemetry).await;
        result
    })
}

fn start_telemetry(settings: &Settings) -> Result<Option<Telemetry>, Failure> {
    if !settings.telemetry {
        return Ok(None);
    }
    let instance = format!("{:032x}", rand::random::<u128>());
    let config = TelemetryConfig::new("slim", env!("CARGO_PKG_VERSION"), instance);
    let telemetry = Telemetry::start(&config);
    telemetry.map(Some).map_err(|error| usage(&[subcommand(&settings.role)], &error))
}

/// What has not arrived then is lost, and that is said.
async fn end_telemetry(telemetry: Option<Telemetry>) {
    let Some(telemetry) = telemetry else { return };
    if let Ok(Err(error)) = tokio::task::spawn_blocking(|| telemetry.shutdown()).await {
        tracing::warn!(%error, "the last traces and metrics may not have arrived");
    }
}

/// A measurement.
fn measure(settings: &bench::args::Settings) -> Result<(), Failure> {
    let terminal = Terminal::detect();
    let is_json = settings.output == bench::args::Format::Json;
    let text = (!is_json).then(|| Text::new(Kind::Group, terminal.colours));
    let mut output = Output::new(text, terminal.capable);
    start_logs(settings.log, &output, false);
    warn_of_ignored(&settings.node);
    work(&mut output, is_json, async |output| {
        let stop = listen_to_signals(output)?;
        bench::run(settings, output, &stop).await
    })
}

/// Why somebody cannot be reached.
fn diagnose(settings: &DoctorSettings) -> Result<(), Failure> {
    let terminal = Terminal::detect();
    let is_text = settings.output == Format::Text;
    let text = is_text.then(|| Text::new(Kind::P2p, terminal.colours));
    let mut output = Output::new(text, terminal.capable);
    start_logs(settings.log, &output, false);
    warn_of_ignored(&settings.node);
    work(&mut output, !is_text, async |output| {
        // There is nothing to be left in order.
        let stop = listen_to_signals(output)?;
        tokio::select! {
            result = visit(settings, output) => result,
            () = stop.requested() => Err(Failure::Interrupted),
        }
    })
}

async fn visit(settings: &DoctorSettings, output: &mut Output) -> Result<(), Failure> {
    let path = &["doctor"];
    let credentials = credentials(path, &settings.identity, &settings.doctor.from).await?;
    let NodeOption { endpoint, tls, .. } = &settings.node;
    let shown = settings.node.authorization();
    let dialled = slim_client::dial(endpoint, tls, shown.as_ref(), settings.connect_timeout);
    match dialled.await {
        Ok(link) => doctor::run(&settings.doctor, credentials, link, output).await,
        Err(error) => {
            let failure = connect_failure(path, error);
            doctor::tell_unreachable(&failure, output);
            Err(failure)
        }
    }
}

/// Who we are, under this name, and whom we believe.
async fn credentials(
    path: &[&str],
    source: &identity::Source,
    name: &Name,
) -> Result<doctor::Credentials, Failure> {
    match source {
        identity::Source::Secret(secret) => {
            let name = name.readable();
            let identity = SharedSecret::new(&name, secret.expose(), &mut rand::rng());
            let identity = Arc::new(identity.map_err(|error| usage(path, &error))?);
            Ok((identity.clone(), identity))
        }
        identity::Source::Files(sources) => {
            let credentials = Credentials::load(sources).await.map_err(unloaded(path))?;
            Ok((credentials.clone(), credentials))
        }
        identity::Source::Agent(workload) => {
            let credentials = Credentials::from_agent(workload).await.map_err(unloaded(path))?;
            Ok((credentials.clone(), credentials))
        }
    }
}

/// What a node is doing.
fn look(settings: &TopSettings) -> Result<(), Failure> {
    let terminal = Terminal::detect();
    let is_text = settings.output == Format::Text;
    let text = is_text.then(|| Text::new(Kind::Group, terminal.colours));
    let mut output = Output::new(text, terminal.capable);
    let is_screen = is_text && terminal.input && terminal.capable;
    start_logs(
        if is_screen && terminal.logs { LevelFilter::OFF } else { settings.log },
        &output,
        false,
    );
    work(&mut output, !is_text, async |output| {
        let stop = listen_to_signals(output)?;
        let place = top::Place { is_screen, colours: terminal.colours };
        top::run(&settings.top, output, &stop, place).await
    })
}

/// Runs to the end, and tells programs why it failed.
fn work(
    output: &mut Output,
    is_json: bool,
    work: impl AsyncFnOnce(&mut Output) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|error| other("runtime", &error))?;
    let result = runtime.block_on(work(output));
    if let (true, Some(event)) = (is_json, result.as_ref().err().and_then(Failure::event)) {
        output.emit(&event);
    }
    // Signals still end this, should nobody read what is written.
    output.settle();
    runtime.shutdown_background();
    result
}

/// The one place where a failure becomes a line on standard error and a status.
fn end(result: Result<(), Failure>) -> ExitCode {
    let Err(failure) = result else { return ExitCode::SUCCESS };
    failure.print();
    failure.status().into()
}

/// Connects and talks.
async fn converse(
    settings: &Settings,
    terminal: Terminal,
    interactive: bool,
    output: &mut Output,
) -> Result<(), Failure> {
    let stop = listen_to_signals(output)?;
    let Some(client) = connect(settings, output, &stop).await? else { return Ok(()) };
    let source = if is_script(&settings.role) {
        Source::none()
    } else {
        Source::open(terminal, interactive, output, &stop)
            .map_err(|error| other("terminal", &error))?
    };
    let result = Conversation::new(settings, client.clone(), output, source, stop).run().await;
    client.shutdown().await;
    result
}

fn warn_of_ignored(node: &NodeOption) {
    if !node.ignored.is_empty() {
        tracing::warn!(keys = node.ignored.join(", "), "keys of --slim without effect");
    }
}

fn listen_to_signals(output: &Output) -> Result<Stop, Failure> {
    Stop::listen(output.last_words()).map_err(|error| other("signals", &error))
}

/// Connects, and tells that it did. `None` if somebody wanted to stop before that.
async fn connect(
    settings: &Settings,
    output: &mut Output,
    stop: &Stop,
) -> Result<Option<Client>, Failure> {
    let path = &[subcommand(&settings.role)];
    let mut builder = Client::builder(settings.local.clone())
        .identity_binding(settings.binding)
        .telemetry(settings.telemetry);
    if !settings.accept_from.is_empty() {
        builder = builder.invitations(Invitations::from_prefixes(settings.accept_from.clone()));
    }
    let (identity, verifier) = credentials(path, &settings.identity, &settings.local).await?;
    let mut builder = builder
        .identity(identity, verifier)
        .connect_timeout(settings.connect_timeout)
        .tls(settings.node.tls.clone());
    if let Some(authorization) = settings.node.authorization() {
        builder = builder.authorization(authorization);
    }
    let endpoint = &settings.node.endpoint;
    let since = Instant::now();
    let mut tick = tokio::time::interval(PROGRESS_INTERVAL);
    let connecting = builder.connect(endpoint);
    let stopped = stop.requested();
    tokio::pin!(connecting, stopped);
    let connected = loop {
        tokio::select! {
            connected = &mut connecting => break connected,
            () = &mut stopped => {
                output.note("stopped before there was a connection");
                return Ok(None);
            }
            _ = tick.tick() => output.progress(&format!(
                "connecting to {endpoint} ({} s of {} s)",
                since.elapsed().as_secs(),
                settings.connect_timeout.as_secs_f32(),
            )),
        }
    };
    let client = connected.map_err(|error| connect_failure(path, error))?;
    output.emit(&Event::Connected { node: client.node().to_owned(), name: client.name().clone() });
    Ok(Some(client))
}

/// A file that is no good is a wrong option; an issuer or an agent that does not answer is
/// not.
fn unloaded(path: &[&str]) -> impl Fn(LoadError) -> Failure {
    move |error| match error {
        LoadError::Issuer(IssuerError::Url { .. })
        | LoadError::File(_)
        | LoadError::Content { .. }
        | LoadError::OwnTokens => usage(path, &error),
        LoadError::Workload(error) => {
            Failure::Other { code: "agent_unreachable", message: error.to_string() }
        }
        LoadError::Issuer(error) => {
            Failure::Other { code: "issuer_unreachable", message: error.to_string() }
        }
    }
}

/// Why there is no link. `path` is the subcommand.
fn connect_failure(path: &[&str], error: ConnectError) -> Failure {
    match error {
        ConnectError::Target(error) => {
            usage(path, &format!("--slim: {error}, as in http://127.0.0.1:46357"))
        }
        ConnectError::NoIdentity => usage(path, &error),
        ConnectError::TlsConfig(error) => usage(path, &format!("TLS: {error}")),
        ConnectError::NothingToShow(reason) => usage(path, &format!("--slim: {reason}")),
        ConnectError::Insecure { target, reason } => {
            Failure::NodeInsecure { node: target.to_string(), reason }
        }
        ConnectError::Unreachable { target, tried_for, reason } => {
            Failure::NodeUnreachable { node: target.to_string(), tried_for, cause: reason }
        }
        ConnectError::Refused { target, reason } => {
            Failure::RefusedByNode { node: target.to_string(), reason }
        }
    }
}

/// Only our own logs, and what the exporter of telemetry complains of: those of other
/// libraries could hold what is sent.
fn start_logs(level: LevelFilter, output: &Output, above_prompt: bool) {
    let writer = if above_prompt {
        BoxMakeWriter::new(Mutex::new(output.log_writer()))
    } else {
        BoxMakeWriter::new(io::stderr)
    };
    let lines = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(writer);
    tracing_subscriber::registry()
        .with(lines)
        .with(
            Targets::new()
                .with_target("slim", level)
                .with_target("opentelemetry", level.min(LevelFilter::WARN))
                // What it warns of, the other one says again, with the reason.
                .with_target("opentelemetry-otlp", level.min(LevelFilter::ERROR)),
        )
        .init();
}

/// Whether the messages come from the command line instead of standard input.
fn is_script(role: &Role) -> bool {
    matches!(role, Role::Caller { script: Some(_), .. })
}

fn kind(role: &Role) -> Kind {
    match role {
        Role::Moderator { .. } | Role::Participant => Kind::Group,
        Role::Caller { .. } | Role::Listener { .. } => Kind::P2p,
    }
}

fn subcommand(role: &Role) -> &'static str {
    match kind(role) {
        Kind::Group => "group",
        Kind::P2p => "p2p",
    }
}

fn usage(path: &[&str], problem: &impl std::fmt::Display) -> Failure {
    Failure::Usage(Box::new(args::usage_of(path, problem)))
}

fn other(code: &'static str, error: &io::Error) -> Failure {
    Failure::Other { code, message: error.to_string() }
}
