//! The options of `slim bench`.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use slim_client::{Name, Timers};
use tracing::level_filters::LevelFilter;

use super::stamp::Stamp;
use crate::args::{
    NodeArgs, Secret, SecretArgs, SessionArgs, parse_local, parse_name, parse_timeout,
};
use crate::node_option::NodeOption;

/// Payloads are not larger than this, so that everything around them fits, too.
const MAX_SIZE: usize = 3 << 20;

/// Clients of one process: what a machine can open links for without further ado.
const MAX_CLIENTS: u64 = 1000;

/// Messages that a session takes before it makes publishers wait.
const MAX_IN_FLIGHT: u64 = 512;

/// What `slim bench` is asked to measure.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Receive, link layer only: subscribe to a name, count what `slim bench pub` sends.
    ///
    /// Ends when all publishers have, when nothing has come for 10 s, or on ctrl-c.
    /// The latency is one way, by the clocks of both machines: it means as much as
    /// they agree.
    Sub(SubArgs),
    /// Send, link layer only: publish to a name as fast as the node takes it.
    ///
    /// Subscribers that are too slow may lose messages; `slim bench sub` counts them.
    Pub(PubArgs),
    /// A group: how long it takes to join, and what messages to all members cost.
    ///
    /// All members are clients of this process and are invited at once. The latency
    /// is from publishing to having it, for each delivery.
    Channel(ChannelArgs),
    /// Point-to-point: requests and their replies.
    ///
    /// Calls --remote, which has to send back what it gets, as `slim p2p` does; without
    /// it, each caller has a peer in this process. The latency is the round trip.
    Request(RequestArgs),
}

#[derive(Debug, Args)]
pub(crate) struct SubArgs {
    /// Subscribers, each with a link of its own.
    #[arg(long, env = "SLIM_CLIENTS", value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u64).range(1..=MAX_CLIENTS))]
    clients: u64,

    /// The name that is published to.
    #[arg(long, env = "SLIM_REMOTE", value_name = "ORG/NS/NAME",
        default_value = "slim/bench/channel", value_parser = parse_name)]
    remote: Name,

    /// End after so many seconds, whatever came.
    #[arg(long, env = "SLIM_DURATION", value_name = "SECONDS", value_parser = parse_timeout)]
    duration: Option<Duration>,

    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct PubArgs {
    /// Publishers, each with a link of its own.
    #[arg(long, env = "SLIM_CLIENTS", value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u64).range(1..=MAX_CLIENTS))]
    clients: u64,

    /// The name to publish to: every subscriber gets every message.
    #[arg(long, env = "SLIM_REMOTE", value_name = "ORG/NS/NAME",
        default_value = "slim/bench/channel", value_parser = parse_name)]
    remote: Name,

    #[command(flatten)]
    load: LoadArgs,

    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct ChannelArgs {
    /// Members, the moderator included.
    #[arg(long, env = "SLIM_MEMBERS", value_name = "N", default_value_t = 16,
        value_parser = clap::value_parser!(u64).range(2..=MAX_CLIENTS))]
    members: u64,

    /// How many of them publish.
    #[arg(long, env = "SLIM_PUBLISHERS", value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u64).range(1..=MAX_CLIENTS))]
    publishers: u64,

    /// Messages of each publisher that may wait for acknowledgements.
    #[arg(long, env = "SLIM_IN_FLIGHT", value_name = "N", default_value_t = 32,
        value_parser = clap::value_parser!(u64).range(1..=MAX_IN_FLIGHT))]
    in_flight: u64,

    #[command(flatten)]
    load: LoadArgs,

    #[command(flatten)]
    identity: SecretArgs,

    #[command(flatten)]
    session: SessionArgs,

    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct RequestArgs {
    /// Callers, each with a session of its own.
    #[arg(long, env = "SLIM_CLIENTS", value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u64).range(1..=MAX_CLIENTS))]
    clients: u64,

    /// Whom to call, instead of peers in this process. Needs --shared-secret.
    #[arg(long, env = "SLIM_REMOTE", value_name = "ORG/NS/APP", value_parser = parse_name)]
    remote: Option<Name>,

    /// Requests of each caller that may wait for their replies.
    #[arg(long, env = "SLIM_IN_FLIGHT", value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u64).range(1..=MAX_IN_FLIGHT))]
    in_flight: u64,

    #[command(flatten)]
    load: LoadArgs,

    #[command(flatten)]
    identity: SecretArgs,

    #[command(flatten)]
    session: SessionArgs,

    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
struct Common {
    /// Own name; each client gets a number at its end.
    #[arg(long, env = "SLIM_LOCAL", value_name = "ORG/NS/APP",
        default_value = "slim/bench/client", value_parser = parse_local)]
    local: Name,

    /// What to write to standard output: a summary for people, one JSON event for
    /// each size, or a table with commas.
    #[arg(long, env = "SLIM_OUTPUT", value_enum, default_value = "text")]
    output: Format,

    #[command(flatten)]
    node: NodeArgs,
}

#[derive(Debug, Args)]
struct LoadArgs {
    /// Bytes of payload; several, separated by commas, are measured one after another.
    #[arg(long, env = "SLIM_SIZE", value_name = "BYTES", value_delimiter = ',',
        default_value = "512", value_parser = parse_size)]
    size: Vec<usize>,

    /// Messages to publish, by all publishers together [default: 10000]. 0 only
    /// connects and joins.
    #[arg(long, env = "SLIM_MESSAGES", value_name = "N", conflicts_with = "duration")]
    messages: Option<u64>,

    /// Publish for so many seconds instead.
    #[arg(long, env = "SLIM_DURATION", value_name = "SECONDS", value_parser = parse_timeout)]
    duration: Option<Duration>,

    /// Messages a second, of all publishers together [default: as many as go].
    #[arg(long, env = "SLIM_RATE", value_name = "N", value_parser = parse_rate)]
    rate: Option<f64>,
}

/// How the result is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
    /// For tables.
    Csv,
}

/// When it is enough.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Limit {
    /// After so many messages.
    Messages(u64),
    /// After so long.
    Duration(Duration),
}

/// What is published, and how fast.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Load {
    /// Bytes of payload, one after another; at least one.
    pub(crate) sizes: Vec<usize>,
    /// For each size.
    pub(crate) limit: Limit,
    /// Between two messages of all publishers; none: as fast as it goes.
    pub(crate) interval: Option<Duration>,
}

/// What is measured.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum What {
    /// Receive, without sessions.
    Sub {
        /// Subscribers.
        clients: usize,
        /// To what.
        remote: Name,
        /// At most.
        duration: Option<Duration>,
    },
    /// Send, without sessions.
    Pub {
        /// Publishers.
        clients: usize,
        /// To what.
        remote: Name,
        /// What, and how fast.
        load: Load,
    },
    /// A group.
    Channel {
        /// The moderator included.
        members: usize,
        /// The first so many of them publish.
        publishers: usize,
        /// Of each publisher.
        in_flight: usize,
        /// What, and how fast.
        load: Load,
        /// Of the group.
        session: Session,
    },
    /// Calls.
    Request {
        /// Callers.
        clients: usize,
        /// None: peers of our own.
        remote: Option<Name>,
        /// Of each caller.
        in_flight: usize,
        /// What, and how fast.
        load: Load,
        /// Of each call.
        session: Session,
    },
}

/// Settings of the sessions, and who takes part in them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Session {
    /// Of all clients.
    pub(crate) secret: Secret,
    /// Whether it is encrypted.
    pub(crate) mls: bool,
    /// When a message is sent again.
    pub(crate) timers: Timers,
}

/// What the command line asks for, checked.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settings {
    /// What is measured.
    pub(crate) what: What,
    /// The clients' names begin like this.
    pub(crate) local: Name,
    /// How the result is written.
    pub(crate) output: Format,
    /// How to reach the node.
    pub(crate) node: NodeOption,
    /// How long the node is tried.
    pub(crate) connect_timeout: Duration,
    /// What is logged.
    pub(crate) log: LevelFilter,
}

impl Command {
    /// As it is typed.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Sub(_) => "sub",
            Self::Pub(_) => "pub",
            Self::Channel(_) => "channel",
            Self::Request(_) => "request",
        }
    }

    /// What these options mean.
    ///
    /// # Errors
    /// If they do not fit together.
    pub(crate) fn settings(self) -> Result<Settings, String> {
        match self {
            Self::Sub(SubArgs { clients, remote, duration, common }) => {
                let what = What::Sub { clients: count(clients), remote, duration };
                common.settings(what)
            }
            Self::Pub(PubArgs { clients, remote, load, common }) => {
                let what = What::Pub { clients: count(clients), remote, load: load.load() };
                common.settings(what)
            }
            Self::Channel(args) => {
                if args.publishers > args.members {
                    return Err(format!(
                        "--publishers: {} of {} members cannot publish",
                        args.publishers, args.members
                    ));
                }
                let secret = args.identity.secret()?.unwrap_or_else(Secret::random);
                let what = What::Channel {
                    members: count(args.members),
                    publishers: count(args.publishers),
                    in_flight: count(args.in_flight),
                    load: args.load.load(),
                    session: session(secret, &args.session),
                };
                args.common.settings(what)
            }
            Self::Request(args) => {
                let secret = match (args.identity.secret()?, &args.remote) {
                    (Some(secret), _) => secret,
                    (None, None) => Secret::random(),
                    (None, Some(_)) => {
                        return Err("no identity: --remote needs --shared-secret \
                                    or SLIM_SHARED_SECRET"
                            .to_owned());
                    }
                };
                let what = What::Request {
                    clients: count(args.clients),
                    remote: args.remote,
                    in_flight: count(args.in_flight),
                    load: args.load.load(),
                    session: session(secret, &args.session),
                };
                args.common.settings(what)
            }
        }
    }
}

impl What {
    /// As it is typed.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Sub { .. } => "sub",
            Self::Pub { .. } => "pub",
            Self::Channel { .. } => "channel",
            Self::Request { .. } => "request",
        }
    }
}

impl Common {
    fn settings(self, what: What) -> Result<Settings, String> {
        let NodeArgs { slim, tls, connect_timeout, log } = self.node;
        let node = tls.added_to(slim)?;
        Ok(Settings { what, local: self.local, output: self.output, node, connect_timeout, log })
    }
}

impl LoadArgs {
    fn load(self) -> Load {
        const MESSAGES: u64 = 10_000;
        let limit = match self.duration {
            Some(duration) => Limit::Duration(duration),
            None => Limit::Messages(self.messages.unwrap_or(MESSAGES)),
        };
        let interval = self.rate.map(|rate| Duration::from_secs_f64(1.0 / rate));
        Load { sizes: self.size, limit, interval }
    }
}

fn session(secret: Secret, args: &SessionArgs) -> Session {
    Session { secret, mls: args.enable_mls, timers: args.timers() }
}

/// All counts are below thousands.
fn count(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn parse_size(text: &str) -> Result<usize, String> {
    let range = Stamp::LEN..=MAX_SIZE;
    text.trim()
        .parse()
        .ok()
        .filter(|size| range.contains(size))
        .ok_or_else(|| format!("expected bytes, {} to {MAX_SIZE}", Stamp::LEN))
}

fn parse_rate(text: &str) -> Result<f64, String> {
    let range = 0.001..=1e9;
    text.parse()
        .ok()
        .filter(|rate| range.contains(rate))
        .ok_or_else(|| "expected messages a second, 0.001 to 1000000000".to_owned())
}
