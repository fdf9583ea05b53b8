//! The whole stack: a group of our clients on our node, and of the reference's on its
//! node. The members of a group are one process.

use std::process::Command;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;

use super::cases::{Case, Run};
use super::load::number;
use super::plot::Plot;
use super::process::Process;
use super::report::{Better, Goal, Line};
use super::samples::Told;
use super::side::Side;
use crate::cargo;
use crate::child::{Child, Output};
use crate::node::{Node, program};

/// How long a group may take to join, or to get all messages.
const TIMEOUT: Duration = Duration::from_secs(180);

const SIZE: &str = "512";
const IN_FLIGHT: &str = "32";

const JOIN: &str = "join_seconds";
const CPU: &str = "cpu_us";
const RATE: &str = "per_second";
const P50: &str = "p50_ms";
const P99: &str = "p99_ms";

/// Members of the groups whose joining is told.
const JOINING: [f64; 3] = [15.0, 50.0, 100.0];
/// And those of the plots. The reference takes more than a minute for the last.
const GROWING: [f64; 5] = [2.0, 8.0, 24.0, 72.0, 200.0];

/// Deliveries of a run, so that large groups do not take for ever.
const DELIVERIES: f64 = 30_000.0;

pub(super) fn cases() -> Vec<Case> {
    vec![join(), messages("group-16", 16), messages("group-51", 51), grow()]
}

fn join() -> Case {
    let line = |members: f64| Line {
        title: format!("{members} members invited at once: all have joined after"),
        metric: JOIN,
        x: Some(members),
        unit: "s",
        digits: 2,
        better: Better::Less,
        goals: vec![Goal::OfReference(0.33)],
    };
    Case {
        name: "join",
        about: "an MLS group: from the first invitation until all have joined",
        sides: &Side::NODES,
        is_growth: true,
        lines: JOINING.map(line).to_vec(),
        plots: vec![],
        play: Box::new(|run| {
            let mut all = Vec::new();
            for members in JOINING {
                // The moderator is not one of those who join.
                let played = play(run, members + 1.0, 0.0)?;
                all.push(Told { metric: JOIN, x: Some(members), value: played.join_seconds });
            }
            Ok(all)
        }),
    }
}

fn messages(name: &'static str, members: u32) -> Case {
    let line = |what: &str, metric, better, digits, unit, goals| Line {
        title: format!("group of {members}, MLS, 512 B: {what}"),
        metric,
        x: None,
        unit,
        digits,
        better,
        goals,
    };
    let (less, more) = (Better::Less, Better::More);
    Case {
        name,
        about: "acknowledged messages to an MLS group, 32 in flight",
        sides: &Side::NODES,
        is_growth: false,
        lines: vec![
            line("deliveries a second", RATE, more, 0, "", vec![Goal::OfReference(3.0)]),
            line(
                "CPU per delivery, clients and node",
                CPU,
                less,
                1,
                "µs",
                vec![Goal::OfReference(0.33)],
            ),
            line("delivered after, p50", P50, less, 1, "ms", vec![Goal::OfReference(1.0)]),
            line("delivered after, p99", P99, less, 1, "ms", vec![Goal::OfReference(1.0)]),
        ],
        plots: vec![],
        play: Box::new(move |run| {
            let members = f64::from(members);
            let published = (run.amount(DELIVERIES) / (members - 1.0)).ceil();
            let Played { result, cpu, .. } = play(run, members, published)?;
            let delivered = number(&result, "delivered")?;
            let told = |metric, value| Told { metric, x: None, value };
            Ok(vec![
                told(RATE, delivered / number(&result, "seconds")?),
                told(CPU, cpu * 1e6 / delivered),
                told(P50, number(&result["latency_us"], "p50")? / 1e3),
                told(P99, number(&result["latency_us"], "p99")? / 1e3),
            ])
        }),
    }
}

fn grow() -> Case {
    let plot = |file, title, metric, y_label| Plot {
        file,
        title,
        metric,
        x_label: "members",
        y_label,
        is_y_log: true,
    };
    Case {
        name: "grow-group",
        about: "MLS groups of 2 to 200: time to join, CPU per delivery",
        sides: &Side::NODES,
        is_growth: true,
        lines: vec![],
        plots: vec![
            plot("join.svg", "all invited at once have joined", JOIN, "s"),
            plot("group-cpu.svg", "CPU per delivery, clients and node", CPU, "µs"),
        ],
        play: Box::new(|run| {
            let mut all = Vec::new();
            for members in GROWING {
                if run.side == Side::Reference && members > 100.0 {
                    break;
                }
                let published = (run.amount(DELIVERIES / 3.0) / (members - 1.0)).ceil();
                let Played { result, cpu, join_seconds } = play(run, members, published)?;
                let cpu = cpu * 1e6 / number(&result, "delivered")?;
                all.push(Told { metric: JOIN, x: Some(members), value: join_seconds });
                all.push(Told { metric: CPU, x: Some(members), value: cpu });
            }
            Ok(all)
        }),
    }
}

/// What a group has told and cost.
#[derive(Debug)]
struct Played {
    join_seconds: f64,
    /// Of node and members, while messages went; seconds.
    cpu: f64,
    result: Value,
}

/// A node, a group with so many members, the moderator included, and so many messages
/// of the moderator to all.
fn play(run: &Run<'_>, members: f64, messages: f64) -> anyhow::Result<Played> {
    let node = run.tools.start(run.side)?;
    let mut group = Group::start(&mut command(run, &node, members, messages))?;
    let joined = group.told("joined")?;
    let before = Process(node.id()).cpu()?;
    let result = group.told("bench")?;
    let of_node = (Process(node.id()).cpu()? - before).as_secs_f64();
    let lost = number(&result, "lost")?;
    anyhow::ensure!(lost == 0.0, "{lost} deliveries were lost");
    Ok(Played {
        join_seconds: number(&joined, "join_seconds")?,
        cpu: of_node + number(&result, "cpu_seconds")?,
        result,
    })
}

fn command(run: &Run<'_>, node: &Node, members: f64, messages: f64) -> Command {
    let (members, messages) = (members.to_string(), messages.to_string());
    let node = format!("http://{}", node.address());
    if run.side == Side::Reference {
        let mut command = program(&run.tools.python);
        command.arg(cargo::root().join("xtask/src/compare/group.py"));
        command.args([node, members, messages]);
        return command;
    }
    let mut command = program(&run.tools.slim);
    command.args(["bench", "channel", "--enable-mls", "--output", "json", "--slim", &node]);
    command.args(["--members", &members, "--messages", &messages]);
    command.args(["--size", SIZE, "--in-flight", IN_FLIGHT]);
    command
}

/// A process that is a whole group and tells events. Ends when dropped.
struct Group {
    child: Child,
    outputs: Receiver<Output>,
}

impl Group {
    fn start(command: &mut Command) -> anyhow::Result<Self> {
        let (sender, outputs) = mpsc::channel();
        let child = Child::start(command, move |output| {
            // Nobody listens any more once the group is dropped.
            sender.send(output).ok();
        })?;
        Ok(Self { child, outputs })
    }

    /// Waits for this event, which must be the next.
    fn told(&mut self, event: &str) -> anyhow::Result<Value> {
        match self.outputs.recv_timeout(TIMEOUT) {
            Ok(Output::Line(line)) => {
                let told: Value = serde_json::from_str(&line)
                    .with_context(|| format!("the group says {line:?}"))?;
                anyhow::ensure!(told["event"] == event, "not {event:?} but {told}");
                Ok(told)
            }
            other => {
                let (status, stderr) = self.child.end()?;
                bail!("the group: {other:?}, {status}\n{}", stderr.join("\n"))
            }
        }
    }
}
