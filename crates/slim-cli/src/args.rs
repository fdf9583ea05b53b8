//! The command line: what can be asked for, and what is refused before anything
//! is connected.
//!
//! clap knows the options; [`Asked`] is what they mean. Every option has a
//! variable, `SLIM_` and its name; a flag wins over its variable. The secret is
//! shown neither in the help nor in an error.
//!
//! Traces are not offered: asking for them is a usage error rather than a promise
//! that is not kept.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use clap::builder::{BoolishValueParser, NonEmptyStringValueParser};
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use rand::distr::{Alphanumeric, SampleString as _};
use slim_client::{IdentityBinding, Name, NamePrefix, Outgoing, SharedSecret, Timers};

use crate::admin::Admin;
use crate::tls_args::TlsArgs;
use crate::top::view::Sort;
use crate::{bench, doctor, identity, input, node_option, top};

/// Group and point-to-point conversations over SLIM, in a terminal or a script.
#[derive(Debug, Parser)]
#[command(name = "slim", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Talk in a group.
    ///
    /// With --remote and --invites: create the group and moderate it. With
    /// neither: wait to be invited.
    Group(GroupArgs),
    /// Talk to one other application.
    ///
    /// With --remote: call it. Without: listen, and send each message back to
    /// its sender.
    P2p(P2pArgs),
    /// Keys that are identities, and lists of those that are trusted.
    ///
    /// With one key file each and one list, applications know each other without any
    /// server: `slim identity new`, then `slim identity trust`.
    #[command(subcommand, arg_required_else_help = true)]
    Identity(identity::Command),
    /// Measure a node and what is built on it.
    ///
    /// Each measurement is one command against a node that runs already, of whatever
    /// make. Clients are links of this process; nothing is left behind.
    #[command(subcommand, arg_required_else_help = true)]
    Bench(bench::args::Command),
    /// Show what a node is doing: links, names, rates, queues, slow readers.
    ///
    /// From the address of its --admin. On a terminal the whole screen is used, until q
    /// or ctrl-c; elsewhere it is a table, or one JSON event, at each interval.
    Top(TopArgs),
    /// Say why one name cannot reach another, step by step.
    ///
    /// Speaks as an instance of FROM, with FROM's identity: opens a link, subscribes to the
    /// name, and asks TO whether it is there. TO's application notices nothing but that.
    /// With --admin the node is asked what it knows, too. The status is 0 if all is well,
    /// and otherwise says what is not: 3 the node, 4 an identity, 5 no answer.
    Doctor(DoctorArgs),
}

#[derive(Debug, Args)]
struct DoctorArgs {
    /// Who wants to reach somebody.
    #[arg(value_name = "FROM", value_parser = parse_local)]
    from: Name,

    /// Whom.
    #[arg(value_name = "TO", value_parser = parse_name)]
    to: Name,

    #[command(flatten)]
    identity: identity::IdentityArgs,

    /// Where the node can be looked at: the address of its --admin.
    #[arg(long, env = "SLIM_ADMIN", value_name = "ADDR")]
    admin: Option<Admin>,

    /// Seconds that TO may take to answer.
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = parse_timeout)]
    timeout: Duration,

    /// What to write to standard output: lines for people, or one JSON event a line.
    #[arg(long, env = "SLIM_OUTPUT", value_enum, default_value = "text")]
    output: Format,

    #[command(flatten)]
    node: NodeArgs,
}

#[derive(Debug, Args)]
struct TopArgs {
    /// Where the node can be looked at: the address of its --admin.
    #[arg(long, env = "SLIM_ADMIN", value_name = "ADDR", default_value = DEFAULT_ADMIN)]
    admin: Admin,

    /// Look once and end.
    #[arg(long)]
    once: bool,

    /// Seconds from one look to the next.
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = parse_timeout)]
    interval: Duration,

    /// In which order links stand; s changes it on a screen.
    #[arg(long, value_enum, default_value = "traffic")]
    sort: Sort,

    /// What to write to standard output: a screen or tables for people, or one JSON event
    /// a line.
    #[arg(long, env = "SLIM_OUTPUT", value_enum, default_value = "text")]
    output: Format,

    /// Logs to standard error: off, error, warn, info, debug or trace.
    #[arg(long, env = "SLIM_LOG", value_name = "LEVEL", default_value = "warn")]
    log: tracing::level_filters::LevelFilter,
}

/// Where docs/operations.md has a node be looked at.
const DEFAULT_ADMIN: &str = "127.0.0.1:46358";

#[derive(Debug, Args)]
struct GroupArgs {
    #[command(flatten)]
    common: Common,

    /// The channel of the group to create.
    #[arg(long, env = "SLIM_REMOTE", value_name = "ORG/NS/CHANNEL", value_parser = parse_name)]
    remote: Option<Name>,

    /// Whom to invite; may repeat. The variable takes several names separated by blanks.
    #[arg(long, env = "SLIM_INVITES", value_name = "ORG/NS/APP")]
    invites: Vec<String>,
}

#[derive(Debug, Args)]
struct P2pArgs {
    #[command(flatten)]
    common: Common,

    /// Whom to call.
    #[arg(long, env = "SLIM_REMOTE", value_name = "ORG/NS/APP", value_parser = parse_name)]
    remote: Option<Name>,

    /// Send this, wait for the answer, and do so again; standard input is not read.
    #[arg(
        long,
        env = "SLIM_MESSAGE",
        value_name = "TEXT",
        allow_hyphen_values = true,
        value_parser = NonEmptyStringValueParser::new()
    )]
    message: Option<String>,

    /// How many times --message is sent, a second apart [default: 10].
    #[arg(
        long,
        env = "SLIM_ITERATIONS",
        value_name = "N",
        requires = "message",
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    iterations: Option<u32>,

    /// Listening: only show what arrives, do not send it back.
    #[arg(long, env = "SLIM_NO_ECHO", value_parser = BoolishValueParser::new())]
    no_echo: bool,
}

#[derive(Debug, Args)]
struct Common {
    /// Own name.
    #[arg(long, env = "SLIM_LOCAL", value_name = "ORG/NS/APP", value_parser = parse_local)]
    local: Name,

    #[command(flatten)]
    identity: identity::IdentityArgs,

    /// Take invitations only from moderators whose name begins so: org, org/ns,
    /// org/ns/app or org/ns/app/UUID; may repeat. The variable takes several separated
    /// by blanks [default: from everybody].
    #[arg(long, env = "SLIM_ACCEPT_FROM", value_name = "PREFIX")]
    accept_from: Vec<String>,

    #[command(flatten)]
    session: SessionArgs,

    #[command(flatten)]
    message: MessageArgs,

    /// Send a trace of each message, and metrics, to the OpenTelemetry collector that
    /// OTEL_EXPORTER_OTLP_ENDPOINT names [default: http://localhost:4317], by OTLP over gRPC.
    #[arg(long, env = "SLIM_ENABLE_OPENTELEMETRY", value_parser = BoolishValueParser::new())]
    enable_opentelemetry: bool,

    /// What to write to standard output: lines for people, or one JSON event a line.
    #[arg(long, env = "SLIM_OUTPUT", value_enum, default_value = "text")]
    output: Format,

    #[command(flatten)]
    node: NodeArgs,
}

/// How to reach the node, and what to log.
#[derive(Debug, Args)]
pub(crate) struct NodeArgs {
    /// The node: http://host:port, host:port, https://host:port for TLS, ws:// and wss:// for
    /// WebSockets, unix:///path, or a JSON object with the key "endpoint", and "auth" for a node that wants to know who
    /// comes.
    #[arg(
        long,
        env = "SLIM_SLIM",
        hide_env_values = true,
        value_name = "NODE",
        default_value = "http://127.0.0.1:46357",
        value_parser = node_option::parse
    )]
    pub(crate) slim: node_option::NodeOption,

    #[command(flatten)]
    pub(crate) tls: TlsArgs,

    /// Seconds that the node is tried at the start.
    #[arg(
        long,
        env = "SLIM_CONNECT_TIMEOUT",
        value_name = "SECONDS",
        default_value = "10",
        value_parser = parse_timeout
    )]
    pub(crate) connect_timeout: Duration,

    /// Logs to standard error: off, error, warn, info, debug or trace.
    #[arg(long, env = "SLIM_LOG", value_name = "LEVEL", default_value = "warn")]
    pub(crate) log: tracing::level_filters::LevelFilter,
}

/// Who we are, by a secret.
#[derive(Debug, Args)]
pub(crate) struct SecretArgs {
    /// Identity: a secret of at least 32 bytes that all who talk share.
    #[arg(
        long,
        env = "SLIM_SHARED_SECRET",
        value_name = "TEXT",
        hide_env_values = true,
        allow_hyphen_values = true,
        value_parser = parse_secret
    )]
    shared_secret: Option<Secret>,
}

impl SecretArgs {
    /// The secret, if one is given.
    ///
    /// # Errors
    /// If it is too short.
    pub(crate) fn secret(self) -> Result<Option<Secret>, String> {
        self.shared_secret.map(Secret::checked).transpose()
    }

    /// The secret as it was given.
    pub(crate) fn take(&mut self) -> Option<Secret> {
        self.shared_secret.take()
    }
}

/// Settings of a session that we create.
#[derive(Debug, Args)]
pub(crate) struct SessionArgs {
    /// End-to-end encryption. Whoever creates the session decides for all its members.
    #[arg(long, env = "SLIM_ENABLE_MLS", value_parser = BoolishValueParser::new())]
    pub(crate) enable_mls: bool,

    /// Seconds until a message that nobody acknowledged is sent again. Whoever
    /// creates the session decides for all its members.
    #[arg(
        long,
        env = "SLIM_TIMEOUT",
        value_name = "SECONDS",
        default_value = "5",
        value_parser = parse_timeout
    )]
    timeout: Duration,

    /// How many times it is sent again before it counts as lost.
    #[arg(long, env = "SLIM_MAX_RETRIES", value_name = "N", default_value_t = 5)]
    max_retries: u32,
}

impl SessionArgs {
    /// When a message is sent again, and when it has failed.
    pub(crate) fn timers(&self) -> Timers {
        Timers { timeout: self.timeout, max_retries: self.max_retries }
    }
}

/// What goes with each message that we publish.
#[derive(Debug, Args)]
struct MessageArgs {
    /// What the messages are that are published, such as text/plain. The nodes on the
    /// way can read it.
    #[arg(
        long,
        env = "SLIM_PAYLOAD_TYPE",
        value_name = "TYPE",
        value_parser = NonEmptyStringValueParser::new()
    )]
    payload_type: Option<String>,

    /// An entry that goes with all messages that are published; may repeat. The
    /// variable takes several entries separated by blanks. The nodes on the way can
    /// read them.
    #[arg(long, env = "SLIM_METADATA", hide_env_values = true, value_name = "KEY=VALUE")]
    metadata: Vec<String>,
}

impl MessageArgs {
    /// A message that only lacks its payload.
    fn template(self, separated_by_blanks: bool) -> Result<Outgoing, String> {
        let mut metadata = BTreeMap::new();
        for entry in parts(&self.metadata, separated_by_blanks) {
            let Some((key, value)) = entry.split_once('=') else {
                return Err(format!("--metadata: {entry:?} is not KEY=VALUE"));
            };
            if let Some(problem) = input::unusable(key) {
                return Err(format!("--metadata: {problem}"));
            }
            if metadata.insert(key.to_owned(), value.to_owned()).is_some() {
                return Err(format!("--metadata: {key:?} is given twice"));
            }
        }
        let payload_type = self.payload_type.unwrap_or_default();
        Ok(Outgoing { payload_type, metadata, ..Outgoing::default() })
    }
}

/// The values of an option that may repeat; of its variable, those between blanks.
fn parts(values: &[String], separated_by_blanks: bool) -> Vec<&str> {
    let parts = values.iter().map(String::as_str);
    if separated_by_blanks {
        parts.flat_map(str::split_whitespace).collect()
    } else {
        parts.collect()
    }
}

/// How events are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(String);

impl Secret {
    /// One that nobody else has.
    pub(crate) fn random() -> Self {
        Self(Alphanumeric.sample_string(&mut rand::rng(), SharedSecret::MIN_SECRET_LENGTH))
    }

    /// Itself, if it is long enough.
    pub(crate) fn checked(self) -> Result<Self, String> {
        let (length, min) = (self.0.len(), SharedSecret::MIN_SECRET_LENGTH);
        if length < min {
            return Err(format!(
                "--shared-secret: {length} bytes are too short, at least {min} are needed"
            ));
        }
        Ok(self)
    }

    /// The text itself.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

/// Shows the length only.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", self.0.len())
    }
}

/// Somebody to invite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Invitee {
    /// As it was given.
    pub(crate) given: String,
    /// Whom that means.
    pub(crate) name: Name,
}

/// What this process is in the conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Creates a group and invites.
    Moderator {
        /// The channel.
        channel: Name,
        /// At least one.
        invites: Vec<Invitee>,
    },
    /// Waits to be invited into a group.
    Participant,
    /// Opens a point-to-point session.
    Caller {
        /// With whom.
        peer: Name,
        /// What to send, instead of reading standard input.
        script: Option<Script>,
    },
    /// Waits for point-to-point sessions.
    Listener {
        /// Whether each message is sent back.
        echo: bool,
    },
}

/// Messages that a caller sends by itself.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Script {
    /// The text of each.
    pub(crate) message: String,
    /// How many.
    pub(crate) iterations: u32,
}

/// Shows the length of the message, never its content.
impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Script")
            .field("message_len", &self.message.len())
            .field("iterations", &self.iterations)
            .finish()
    }
}

/// What the command line asks for, checked.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Asked {
    /// To talk.
    Conversation(Box<Settings>),
    /// To measure.
    Bench(Box<bench::args::Settings>),
    /// To say why somebody cannot be reached.
    Doctor(Box<DoctorSettings>),
    /// To look at a node.
    Top(Box<TopSettings>),
    /// To make a key, show one, or say who is trusted.
    Identity(identity::Command),
}

/// What finding a reason needs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DoctorSettings {
    pub(crate) doctor: doctor::Settings,
    /// How to reach the node.
    pub(crate) node: node_option::NodeOption,
    /// How long it is tried.
    pub(crate) connect_timeout: Duration,
    /// Who we are, and whom we believe.
    pub(crate) identity: identity::Source,
    /// How it is written.
    pub(crate) output: Format,
    /// What is logged.
    pub(crate) log: tracing::level_filters::LevelFilter,
}

/// What looking at a node needs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TopSettings {
    pub(crate) top: top::Settings,
    /// How it is written.
    pub(crate) output: Format,
    /// What is logged.
    pub(crate) log: tracing::level_filters::LevelFilter,
}

/// What a conversation needs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settings {
    /// What we are.
    pub(crate) role: Role,
    /// Own name, without an id.
    pub(crate) local: Name,
    /// How to reach the node.
    pub(crate) node: node_option::NodeOption,
    /// Who we are, and whom we believe.
    pub(crate) identity: identity::Source,
    /// What becomes of names that do not follow from identities.
    pub(crate) binding: IdentityBinding,
    /// Whose invitations are taken; of everybody, if there is none.
    pub(crate) accept_from: Vec<NamePrefix>,
    /// Whether a session that we create is encrypted.
    pub(crate) mls: bool,
    /// Of a session that we create.
    pub(crate) timers: Timers,
    /// What is published, but for the payload.
    pub(crate) template: Outgoing,
    /// How long the node is tried at the start.
    pub(crate) connect_timeout: Duration,
    /// Whether traces and metrics are sent.
    pub(crate) telemetry: bool,
    /// How events are written.
    pub(crate) output: Format,
    /// What is logged.
    pub(crate) log: tracing::level_filters::LevelFilter,
}

/// Reads the arguments, the first being the program's name, and the variables.
///
/// # Errors
/// What is wrong, with the usage; or the help or version that was asked for.
pub(crate) fn parse<I, T>(arguments: I) -> Result<Asked, clap::Error>
where
    I: IntoIterator<Item = T>,
    T: Into<std::ffi::OsString> + Clone,
{
    let matches = Cli::command().try_get_matches_from(arguments)?;
    let from_variable = |option: &str| {
        matches.subcommand().is_some_and(|(_, matches)| {
            matches.try_contains_id(option).is_ok()
                && matches.value_source(option) == Some(ValueSource::EnvVariable)
        })
    };
    let invites_from_variable = from_variable("invites");
    match Cli::from_arg_matches(&matches)?.command {
        Command::Group(args) => {
            let role = group_role(args.remote, &args.invites, invites_from_variable)
                .map_err(|problem| usage("group", problem))?;
            settings("group", role, args.common, from_variable)
        }
        Command::P2p(args) => {
            let role = p2p_role(&args).map_err(|problem| usage("p2p", problem))?;
            settings("p2p", role, args.common, from_variable)
        }
        Command::Identity(command) => Ok(Asked::Identity(command)),
        Command::Doctor(args) => doctor_settings(args, from_variable),
        Command::Top(TopArgs { admin, once, interval, sort, output, log }) => {
            let top = top::Settings { admin, interval, once, sort };
            Ok(Asked::Top(Box::new(TopSettings { top, output, log })))
        }
        Command::Bench(command) => {
            let subcommand = command.name();
            let settings =
                command.settings().map_err(|problem| usage_of(&["bench", subcommand], problem))?;
            Ok(Asked::Bench(Box::new(settings)))
        }
    }
}

/// A usage error that clap would not have found by itself.
pub(crate) fn usage(subcommand: &str, problem: impl fmt::Display) -> clap::Error {
    usage_of(&[subcommand], problem)
}

/// The same of a subcommand's subcommand.
pub(crate) fn usage_of(path: &[&str], problem: impl fmt::Display) -> clap::Error {
    let mut root = Cli::command();
    root.build();
    let command = path.iter().fold(&mut root, |command, name| {
        command.find_subcommand_mut(name).expect("all subcommands are declared above")
    });
    command.error(ErrorKind::ValueValidation, problem)
}

fn group_role(
    remote: Option<Name>,
    invites: &[String],
    separated_by_blanks: bool,
) -> Result<Role, String> {
    let invitees = parts(invites, separated_by_blanks)
        .into_iter()
        .map(|given| {
            let name = given.parse().map_err(|error| format!("--invites: {error}"))?;
            Ok(Invitee { given: given.to_owned(), name })
        })
        .collect::<Result<Vec<_>, String>>()?;
    match (remote, invitees.is_empty()) {
        (Some(channel), false) => {
            Ok(Role::Moderator { channel: channel.without_id(), invites: invitees })
        }
        (None, true) => Ok(Role::Participant),
        (Some(_), true) => {
            Err("--remote needs --invites to create a group; give neither to be invited".to_owned())
        }
        (None, false) => {
            Err("--invites needs --remote to create a group; give neither to be invited".to_owned())
        }
    }
}

fn p2p_role(args: &P2pArgs) -> Result<Role, &'static str> {
    match (&args.remote, &args.message) {
        (Some(_), _) if args.no_echo => Err("--no-echo is for a listener: it excludes --remote"),
        (Some(peer), message) => Ok(Role::Caller {
            peer: peer.clone(),
            script: message
                .clone()
                .map(|message| Script { message, iterations: args.iterations.unwrap_or(10) }),
        }),
        (None, Some(_)) => Err("--message needs --remote: to whom?"),
        (None, None) => Ok(Role::Listener { echo: !args.no_echo }),
    }
}

fn doctor_settings(
    args: DoctorArgs,
    from_variable: impl Fn(&str) -> bool,
) -> Result<Asked, clap::Error> {
    let wrong = |problem: String| usage("doctor", problem);
    let identity = args.identity.source(from_variable("shared_secret")).map_err(wrong)?;
    let node = args.node.tls.added_to(args.node.slim).map_err(wrong)?;
    let doctor = doctor::Settings {
        from: args.from,
        to: args.to,
        node: node.endpoint.clone(),
        admin: args.admin,
        timeout: args.timeout,
    };
    Ok(Asked::Doctor(Box::new(DoctorSettings {
        doctor,
        node,
        connect_timeout: args.node.connect_timeout,
        identity,
        output: args.output,
        log: args.node.log,
    })))
}

fn settings(
    subcommand: &str,
    role: Role,
    common: Common,
    from_variable: impl Fn(&str) -> bool,
) -> Result<Asked, clap::Error> {
    let template = common.message.template(from_variable("metadata"));
    let template = template.map_err(|problem| usage(subcommand, problem))?;
    let accept_from = accept_from(&common.accept_from, from_variable("accept_from"), &role)
        .map_err(|problem| usage(subcommand, problem))?;
    let binding = common.identity.binding();
    let identity = common
        .identity
        .source(from_variable("shared_secret"))
        .map_err(|problem| usage(subcommand, problem))?;
    let node = common.node.tls.added_to(common.node.slim);
    let node = node.map_err(|problem| usage(subcommand, problem))?;
    Ok(Asked::Conversation(Box::new(Settings {
        role,
        local: common.local,
        node,
        identity,
        binding,
        accept_from,
        mls: common.session.enable_mls,
        timers: common.session.timers(),
        template,
        connect_timeout: common.node.connect_timeout,
        telemetry: common.enable_opentelemetry,
        output: common.output,
        log: common.node.log,
    })))
}

/// Whose invitations are taken by who waits for them.
fn accept_from(
    prefixes: &[String],
    separated_by_blanks: bool,
    role: &Role,
) -> Result<Vec<NamePrefix>, String> {
    let prefixes = parts(prefixes, separated_by_blanks).into_iter();
    let prefixes = prefixes.map(str::parse).collect::<Result<Vec<NamePrefix>, _>>();
    let prefixes = prefixes.map_err(|error| format!("--accept-from: {error}"))?;
    match role {
        Role::Moderator { .. } | Role::Caller { .. } if !prefixes.is_empty() => {
            Err("--accept-from is for those who wait to be invited: it excludes --remote"
                .to_owned())
        }
        _ => Ok(prefixes),
    }
}

pub(crate) fn parse_name(text: &str) -> Result<Name, String> {
    text.parse().map_err(|error| format!("{error}"))
}

pub(crate) fn parse_local(text: &str) -> Result<Name, String> {
    match text.split('/').collect::<Vec<_>>()[..] {
        [org, namespace, app] => Name::new(org, namespace, app).ok(),
        _ => None,
    }
    .ok_or_else(|| "expected three parts like org/ns/app".to_owned())
}

/// Takes everything: what is wrong with a secret must not be told together with
/// the secret, as clap would.
#[expect(clippy::unnecessary_wraps, reason = "clap wants a result")]
fn parse_secret(text: &str) -> Result<Secret, std::convert::Infallible> {
    Ok(Secret(text.to_owned()))
}

/// Between a millisecond and what 32 bits of milliseconds hold, as the wire does.
pub(crate) fn parse_timeout(text: &str) -> Result<Duration, String> {
    let range = Duration::from_millis(1)..=Duration::from_millis(u64::from(u32::MAX));
    text.parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|timeout| range.contains(timeout))
        .ok_or_else(|| "expected seconds, at least 0.001".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "a secret of more than 32 bytes, as it must be";

    /// The settings that `slim LINE --shared-secret SECRET` asks for.
    fn check(line: &str) -> Settings {
        match parse(with_secret(line)).unwrap() {
            Asked::Conversation(settings) => *settings,
            other => panic!("{other:?}"),
        }
    }

    /// The usage error of the same; `expected` is part of it.
    fn refused(line: &str, expected: &str) {
        let error = parse(with_secret(line)).unwrap_err();
        let text = error.to_string();
        assert_eq!(error.exit_code(), 2, "{text}");
        assert!(text.contains(expected), "{text}");
        assert!(!text.contains(SECRET), "{text}");
    }

    fn with_secret(line: &str) -> Vec<&str> {
        ["slim"]
            .into_iter()
            .chain(line.split_whitespace())
            .chain(["--shared-secret", SECRET])
            .collect()
    }

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    #[test]
    fn defaults_are_those_of_the_contract() {
        let settings = check("group --local a/b/c");
        assert_eq!(settings.role, Role::Participant);
        assert_eq!(settings.local, name("a/b/c"));
        assert_eq!(settings.node.endpoint, "http://127.0.0.1:46357");
        assert!(!settings.mls);
        assert_eq!(settings.binding, IdentityBinding::Enforce);
        assert_eq!(settings.accept_from, []);
        assert_eq!(settings.timers, Timers { timeout: Duration::from_secs(5), max_retries: 5 });
        assert_eq!(settings.connect_timeout, Duration::from_secs(10));
        assert_eq!(settings.output, Format::Text);
        assert_eq!(settings.log, tracing::level_filters::LevelFilter::WARN);
    }

    #[test]
    fn remote_and_invites_make_a_moderator() {
        let settings = check(
            "group --local a/b/m --remote a/b/chan --invites a/b/c \
             --invites a/b/d/ee23cd86-c165-f549-3bcd-cd4cde967fbd --enable-mls",
        );
        let Role::Moderator { channel, invites } = settings.role else { panic!("not a moderator") };
        assert_eq!(channel, name("a/b/chan"));
        assert_eq!(invites.len(), 2);
        assert_eq!(invites[1].name.to_string(), "a/b/d/ee23cd86-c165-f549-3bcd-cd4cde967fbd");
        assert!(settings.mls);
    }

    #[test]
    fn invites_of_the_variable_are_separated_by_blanks() {
        let invites = [" a/b/c  a/b/d\t".to_owned()];
        let Role::Moderator { invites, .. } =
            group_role(Some(name("a/b/chan")), &invites, true).unwrap()
        else {
            panic!("not a moderator")
        };
        let given: Vec<_> = invites.iter().map(|invitee| invitee.given.as_str()).collect();
        assert_eq!(given, ["a/b/c", "a/b/d"]);
    }

    #[test]
    fn types_and_metadata_go_with_all_messages() {
        let settings = check("group --local a/b/c");
        assert_eq!(settings.template, Outgoing::default());
        let line = "p2p --local a/b/c --payload-type text/x --metadata k=v --metadata empty= \
                    --metadata url=http://x?a=b";
        let template = check(line).template;
        assert_eq!(template.payload_type, "text/x");
        let entries: Vec<_> = template.metadata.iter().map(|(k, v)| format!("{k}: {v}")).collect();
        assert_eq!(entries, ["empty: ", "k: v", "url: http://x?a=b"]);
        let args =
            |entries: &str| MessageArgs { payload_type: None, metadata: vec![entries.to_owned()] };
        let template = args(" a=1  b=2 ").template(true).unwrap();
        assert_eq!(template.metadata.len(), 2);
        assert_eq!(args("a=1 b=2").template(false).unwrap().metadata["a"], "1 b=2");
    }

    #[test]
    fn remote_makes_a_caller_and_its_absence_a_listener() {
        let role = |line| check(line).role;
        let peer = name("a/b/d");
        assert_eq!(
            role("p2p --local a/b/c --remote a/b/d"),
            Role::Caller { peer: peer.clone(), script: None }
        );
        let script = |iterations| Some(Script { message: "-hey".to_owned(), iterations });
        assert_eq!(
            role("p2p --local a/b/c --remote a/b/d --message -hey"),
            Role::Caller { peer: peer.clone(), script: script(10) }
        );
        assert_eq!(
            role("p2p --local a/b/c --remote a/b/d --message -hey --iterations 3"),
            Role::Caller { peer, script: script(3) }
        );
        assert_eq!(role("p2p --local a/b/c"), Role::Listener { echo: true });
        assert_eq!(role("p2p --local a/b/c --no-echo"), Role::Listener { echo: false });
    }

    #[test]
    fn seconds_may_have_fractions() {
        let settings =
            check("group --local a/b/c --timeout 0.25 --max-retries 0 --connect-timeout 1.5");
        assert_eq!(settings.timers, Timers { timeout: Duration::from_millis(250), max_retries: 0 });
        assert_eq!(settings.connect_timeout, Duration::from_millis(1500));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (line, expected) in [
            ("group", "--local"),
            ("group --local a/b", "expected three parts like org/ns/app"),
            ("group --local a/b/c/d/e", "expected three parts like org/ns/app"),
            (
                "group --local a/b/c/ee23cd86-c165-f549-3bcd-cd4cde967fbd",
                "expected three parts like org/ns/app",
            ),
            ("group --local a/b/c --remote a/b/chan", "--remote needs --invites"),
            ("group --local a/b/c --invites a/b/d", "--invites needs --remote"),
            ("group --local a/b/c --remote chan --invites a/b/d", "is not a name"),
            ("group --local a/b/c --remote a/b/chan --invites d", "--invites: \"d\" is not a name"),
            ("group --local a/b/c --timeout 0", "expected seconds"),
            ("group --local a/b/c --timeout=-1", "expected seconds"),
            ("group --local a/b/c --timeout NaN", "expected seconds"),
            ("group --local a/b/c --connect-timeout soon", "expected seconds"),
            ("group --local a/b/c --max-retries 1.5", "--max-retries"),
            ("group --local a/b/c --output xml", "--output"),
            ("group --local a/b/c --metadata key", "\"key\" is not KEY=VALUE"),
            ("group --local a/b/c --metadata =value", "a key is empty"),
            ("group --local a/b/c --metadata k=1 --metadata k=2", "\"k\" is given twice"),
            ("group --local a/b/c --metadata PUBLISH_TO=x", "the protocol's own"),
            ("p2p --local a/b/c --payload-type=", "--payload-type"),
            ("group --local a/b/c --log loud", "--log"),
            ("group --local a/b/c --jwt token", "more than one identity"),
            ("group --local a/b/c --slim {", "--slim"),
            ("group --local a/b/c --accept-from a//b", "--accept-from: \"a//b\" is not the"),
            ("p2p --local a/b/c --remote a/b/d --accept-from a", "--accept-from is for those"),
            ("group --local a/b/c --identity-binding strict", "--identity-binding"),
            ("p2p --local a/b/c --message hey", "--message needs --remote"),
            ("p2p --local a/b/c --remote a/b/d --iterations 3", "--message"),
            ("p2p --local a/b/c --remote a/b/d --no-echo", "--no-echo is for a listener"),
            ("p2p --local a/b/c --remote a/b/d --message hey --iterations 0", "--iterations"),
        ] {
            refused(line, expected);
        }
    }

    #[test]
    fn an_empty_message_is_refused() {
        let mut line = with_secret("p2p --local a/b/c --remote a/b/d");
        line.extend(["--message", ""]);
        let error = parse(line).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("--message"), "{error}");
    }

    #[test]
    fn secrets_that_are_missing_or_short_are_refused_and_not_shown() {
        let error = parse(["slim", "group", "--local", "a/b/c"]).unwrap_err();
        assert!(error.to_string().contains("no identity"), "{error}");
        let short = "thirty-one bytes are not enough";
        let error =
            parse(["slim", "group", "--local", "a/b/c", "--shared-secret", short]).unwrap_err();
        assert!(error.to_string().contains("31 bytes are too short"), "{error}");
        assert!(!error.to_string().contains(short), "{error}");
        assert_eq!(error.exit_code(), 2);
    }

    #[test]
    fn secret_and_message_are_not_in_debug_output() {
        let text = format!("{:?}", check("p2p --local a/b/c --remote a/b/d --message hello-there"));
        assert!(!text.contains(SECRET) && !text.contains("hello-there"), "{text}");
    }

    #[test]
    fn the_declaration_is_sound() {
        Cli::command().debug_assert();
    }
}
