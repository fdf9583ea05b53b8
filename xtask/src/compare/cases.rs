//! What is measured.

use std::time::{Duration, Instant};

use super::load::{Load, number};
use super::plot::Plot;
use super::process::Process;
use super::report::{Better, Goal, Line};
use super::roundtrip;
use super::samples::Told;
use super::side::{Side, Tools};
use super::stack;
use crate::node::Node;

/// Something that is measured of each side.
pub(super) struct Case {
    /// What `--only` looks at.
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) sides: &'static [Side],
    /// Whether something is varied: takes longer and is played less often.
    pub(super) is_growth: bool,
    /// Plays one side once.
    pub(super) play: Play,
    /// Its lines in the table.
    pub(super) lines: Vec<Line>,
    pub(super) plots: Vec<Plot>,
}

type Play = Box<dyn Fn(&Run<'_>) -> anyhow::Result<Vec<Told>>>;

/// One run of a case.
#[derive(Debug)]
pub(super) struct Run<'a> {
    pub(super) tools: &'a Tools,
    pub(super) side: Side,
    pub(super) is_quick: bool,
}

impl Run<'_> {
    /// A length of time, or a count, that may be less if nobody looks at the number.
    pub(super) fn amount(&self, amount: f64) -> f64 {
        if self.is_quick { amount / 5.0 } else { amount }
    }

    fn node_and_load(&self, args: &[&str]) -> anyhow::Result<(Node, Load)> {
        let node = self.tools.start(self.side)?;
        let load = self.tools.load(self.side, &node, args)?;
        Ok((node, load))
    }
}

/// All of them, in the order of the tables.
pub(super) fn all() -> Vec<Case> {
    let mut cases = vec![
        fanout("1x64", 1, 64, Tokens::Same, Some([0.30, 3.0])),
        fanout("16x512", 16, 512, Tokens::Same, Some([0.20, 3.0])),
        fanout("16x16K", 16, 16 * 1024, Tokens::Same, Some([0.50, 2.0])),
        fanout("128x512", 128, 512, Tokens::Same, Some([0.12, 5.0])),
        fanout("1x64-new", 1, 64, Tokens::New, None),
        fanout("16x512-new", 16, 512, Tokens::New, None),
        connect(),
        subscribe(),
        idle(),
        stalled(),
        roundtrip::case(),
        grow_fanout(),
        grow_payload(),
        overload(),
    ];
    cases.extend(stack::cases());
    cases
}

const CPU: &str = "cpu_us";
const RATE: &str = "per_second";
const BYTES: &str = "bytes";

/// Seconds of publishing before anything is measured.
const WARM_UP: f64 = 0.3;
/// Seconds of publishing that are measured.
const MEASURED: f64 = 1.5;

fn told(metric: &'static str, value: f64) -> Told {
    Told { metric, x: None, value }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// The tokens of messages, which their header MAC covers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tokens {
    /// One for all, as our clients send them for half a minute.
    Same,
    /// Each has its own, as the reference's clients send them.
    New,
}

/// `goals`: CPU and rate, as shares of the reference's.
fn fanout(
    name: &'static str,
    subscribers: usize,
    payload: usize,
    tokens: Tokens,
    goals: Option<[f64; 2]>,
) -> Case {
    let shown = match payload {
        16384 => "16 KiB".to_owned(),
        bytes => format!("{bytes} B"),
    };
    let shown = match tokens {
        Tokens::Same => shown,
        Tokens::New => format!("{shown}, new tokens"),
    };
    let (cpu_goals, rate_goals) = match goals {
        Some([cpu, rate]) => {
            (vec![Goal::OfReference(cpu), Goal::OfFloor(2.0)], vec![Goal::OfReference(rate)])
        }
        None => (vec![], vec![]),
    };
    let line = |what: &str, metric, better, digits, unit, goals| Line {
        title: format!("{what}, 1 → {subscribers}, {shown}"),
        metric,
        x: None,
        unit,
        digits,
        better,
        goals,
    };
    Case {
        name,
        about: "deliveries: the node's CPU for one, and how many a second",
        sides: &Side::ALL,
        is_growth: false,
        lines: vec![
            line("CPU per delivery", CPU, Better::Less, 2, "µs", cpu_goals),
            line("deliveries a second", RATE, Better::More, 0, "", rate_goals),
        ],
        plots: vec![],
        play: Box::new(move |run| {
            let (cpu, rate) = deliver(run, subscribers, payload, tokens)?;
            Ok(vec![told(CPU, cpu), told(RATE, rate)])
        }),
    }
}

/// CPU per delivery in microseconds, and deliveries a second.
fn deliver(
    run: &Run<'_>,
    subscribers: usize,
    payload: usize,
    tokens: Tokens,
) -> anyhow::Result<(f64, f64)> {
    let (subscribers, payload) = (subscribers.to_string(), payload.to_string());
    let mut args = vec!["fanout", "--subscribers", &subscribers, "--payload", &payload];
    if tokens == Tokens::New {
        args.push("--new-tokens");
    }
    let (_node, mut load) = run.node_and_load(&args)?;
    load.step(WARM_UP)?;
    let step = load.step(run.amount(MEASURED))?;
    let deliveries = step.number("deliveries")?;
    Ok((micros(step.cpu) / deliveries, deliveries / step.number("seconds")?))
}

fn connect() -> Case {
    let line = |title: &str, metric, better, digits, unit, goals| Line {
        title: title.to_owned(),
        metric,
        x: None,
        unit,
        digits,
        better,
        goals,
    };
    Case {
        name: "connect",
        about: "links that connect, negotiate, subscribe and go, one after another",
        sides: &Side::NODES,
        is_growth: false,
        lines: vec![
            line(
                "the reference's clients: connect + subscribe a second",
                "reference_per_second",
                Better::More,
                0,
                "",
                vec![Goal::OfReference(20.0)],
            ),
            line("raw clients: connect + subscribe a second", RATE, Better::More, 0, "", vec![]),
            line("the same, 16 at a time", "16_per_second", Better::More, 0, "", vec![]),
            line("CPU per connect + subscribe", CPU, Better::Less, 0, "µs", vec![]),
        ],
        plots: vec![],
        play: Box::new(|run| {
            let (node, mut load) = run.node_and_load(&["connect"])?;
            load.step(5.0)?;
            let count = 400.0;
            let step = load.step(run.amount(count))?;
            let links = step.number("links")?;
            let mut load = run.tools.load(run.side, &node, &["connect", "--at-once", "16"])?;
            let many = load.step(run.amount(count * 4.0))?;
            // They delay small segments, which raw clients do not.
            let mut theirs = roundtrip::client(run, &node, "connect")?;
            theirs.step(5.0)?;
            let theirs = theirs.step(run.amount(50.0))?;
            Ok(vec![
                told("reference_per_second", theirs.number("links")? / theirs.number("seconds")?),
                told(RATE, links / step.number("seconds")?),
                told(CPU, micros(step.cpu) / links),
                told("16_per_second", many.number("links")? / many.number("seconds")?),
            ])
        }),
    }
}

/// Names that are in the table when a further step is taken.
const NAMES: [f64; 4] = [1e3, 1e4, 1e5, 1e6];

fn subscribe() -> Case {
    let mut lines = Vec::new();
    for names in NAMES {
        let thousands = names / 1e3;
        lines.push(Line {
            title: format!("CPU per subscribe, up to {thousands},000 names")
                .replace("1000,000", "1,000,000"),
            metric: CPU,
            x: Some(names),
            unit: "µs",
            digits: 2,
            better: Better::Less,
            goals: vec![Goal::AtMost(5.0)],
        });
        lines.push(Line {
            title: format!("memory per name, {thousands},000 names")
                .replace("1000,000", "1,000,000"),
            metric: BYTES,
            x: Some(names),
            unit: "B",
            digits: 0,
            better: Better::Less,
            goals: vec![Goal::AtMost(150.0)],
        });
    }
    Case {
        name: "subscribe",
        about: "ever more names that somebody has subscribed to",
        sides: &Side::NODES,
        is_growth: true,
        lines,
        plots: vec![Plot {
            file: "names-cpu.svg",
            title: "CPU per subscribe",
            metric: CPU,
            x_label: "names in the table",
            y_label: "µs",
            is_y_log: true,
        }],
        play: Box::new(|run| {
            let (node, mut load) = run.node_and_load(&["names"])?;
            let node = Process(node.id());
            let before = node.resident()?;
            let mut names = 0.0;
            let mut all = Vec::new();
            for wanted in NAMES {
                // It would take most of an hour.
                if run.side == Side::Reference && wanted > 1e5 {
                    break;
                }
                let step = load.step(wanted - names)?;
                let cpu = micros(step.cpu) / (wanted - names);
                names = wanted;
                all.push(Told { metric: CPU, x: Some(names), value: cpu });
                let grown = node.resident()?.saturating_sub(before) as f64;
                all.push(Told { metric: BYTES, x: Some(names), value: grown / names });
            }
            Ok(all)
        }),
    }
}

/// Idle links that are opened before memory is measured, and then.
const FIRST_IDLE: f64 = 100.0;
const IDLE: f64 = 1000.0;

fn idle() -> Case {
    Case {
        name: "idle",
        about: "memory of a link that has subscribed to one name and is idle",
        sides: &Side::ALL,
        is_growth: false,
        lines: vec![Line {
            title: "memory of an idle link".to_owned(),
            metric: BYTES,
            x: None,
            unit: "KiB",
            digits: 1,
            better: Better::Less,
            goals: vec![Goal::AtMost(24.0)],
        }],
        plots: vec![],
        play: Box::new(|run| {
            let (node, mut load) = run.node_and_load(&["idle"])?;
            load.step(FIRST_IDLE)?;
            let before = Process(node.id()).resident()?;
            load.step(IDLE)?;
            let grown = Process(node.id()).resident()?.saturating_sub(before) as f64;
            Ok(vec![told(BYTES, grown / IDLE / 1024.0)])
        }),
    }
}

/// Messages a second for five subscribers, one of which does not read.
const STALL_RATE: f64 = 500.0;

fn stalled() -> Case {
    let line = |title: &str, metric| Line {
        title: title.to_owned(),
        metric,
        x: None,
        unit: "%",
        digits: 0,
        better: Better::More,
        goals: vec![Goal::AtLeast(99.0)],
    };
    Case {
        name: "stalled",
        about: "what four subscribers get in time while a fifth does not read",
        sides: &Side::NODES,
        is_growth: false,
        lines: vec![
            line("one of five stalls: the others get in time, first 3 s", "share_at_first"),
            line("one of five stalls: the others get in time, next 3 s", "share_later"),
        ],
        plots: vec![],
        play: Box::new(|run| {
            let rate = STALL_RATE.to_string();
            let args = ["fanout", "--subscribers", "4", "--stalled", "1", "--payload", "16384"];
            let args = [&args[..], &["--rate", &rate, "--patience", "3"]].concat();
            let (_node, mut load) = run.node_and_load(&args)?;
            let mut share = || -> anyhow::Result<f64> {
                let seconds = 3.0;
                let deliveries = load.step(seconds)?.number("deliveries")?;
                Ok((100.0 * deliveries / (4.0 * STALL_RATE * seconds)).min(100.0))
            };
            Ok(vec![told("share_at_first", share()?), told("share_later", share()?)])
        }),
    }
}

const GROWTH_SECONDS: f64 = 0.7;

fn grow_fanout() -> Case {
    Case {
        name: "grow-fanout",
        about: "CPU per delivery, 512 B, from 1 to 1,000 subscribers",
        sides: &[Side::Ours, Side::Reference, Side::Floor],
        is_growth: true,
        lines: vec![],
        plots: vec![Plot {
            file: "fanout.svg",
            title: "CPU per delivery, 512 B",
            metric: CPU,
            x_label: "subscribers",
            y_label: "µs",
            is_y_log: true,
        }],
        play: Box::new(|run| {
            let args = ["fanout", "--payload", "512", "--subscribers"];
            growth(run, &args, &[1, 4, 16, 64, 256, 1000])
        }),
    }
}

fn grow_payload() -> Case {
    Case {
        name: "grow-payload",
        about: "CPU per delivery, 16 subscribers, from 64 B to 1 MiB",
        sides: &[Side::Ours, Side::Reference, Side::Floor],
        is_growth: true,
        lines: vec![],
        plots: vec![Plot {
            file: "payload.svg",
            title: "CPU per delivery, 16 subscribers",
            metric: CPU,
            x_label: "bytes of payload",
            y_label: "µs",
            is_y_log: true,
        }],
        play: Box::new(|run| {
            let args = ["fanout", "--subscribers", "16", "--payload"];
            growth(run, &args, &[64, 512, 4096, 16_384, 65_536, 262_144, 1_048_576])
        }),
    }
}

/// One step for each value of the last argument. A step that another node does not
/// get through is told and left out.
fn growth(run: &Run<'_>, args: &[&str], values: &[u32]) -> anyhow::Result<Vec<Told>> {
    let mut all = Vec::new();
    for value in values {
        let shown = value.to_string();
        match grown(run, &[args, &[&*shown]].concat(), f64::from(*value)) {
            Ok(told) => all.push(told),
            Err(error) if run.side != Side::Ours => {
                let error = error.to_string();
                let reason = error.lines().nth(1).unwrap_or(&error);
                println!("       {} does not get through {value}: {reason}", run.side);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

fn grown(run: &Run<'_>, args: &[&str], x: f64) -> anyhow::Result<Told> {
    let (_node, mut load) = run.node_and_load(args)?;
    load.step(WARM_UP)?;
    let step = load.step(run.amount(GROWTH_SECONDS))?;
    let value = micros(step.cpu) / step.number("deliveries")?;
    Ok(Told { metric: CPU, x: Some(x), value })
}

fn overload() -> Case {
    Case {
        name: "overload",
        about: "memory while 32 subscribers do not read and one publishes 16 KiB all the time",
        sides: &Side::NODES,
        is_growth: true,
        lines: vec![Line {
            title: "32 subscribers stall: most memory".to_owned(),
            metric: "most_mib",
            x: None,
            unit: "MiB",
            digits: 0,
            better: Better::Less,
            goals: vec![],
        }],
        plots: vec![Plot {
            file: "overload.svg",
            title: "Memory while 32 subscribers do not read",
            metric: "mib",
            x_label: "seconds",
            y_label: "MiB",
            is_y_log: false,
        }],
        play: Box::new(|run| {
            let args = ["fanout", "--subscribers", "1", "--stalled", "32", "--payload", "16384"];
            let args = [&args[..], &["--patience", "1"]].concat();
            let (node, mut load) = run.node_and_load(&args)?;
            let node = Process(node.id());
            let seconds = run.amount(5.0);
            let started_at = Instant::now();
            let mut all = Vec::new();
            let mut most = 0.0_f64;
            load.begin(seconds)?;
            while started_at.elapsed().as_secs_f64() < seconds {
                let mib = node.resident()? as f64 / f64::from(1 << 20);
                // So that rounds and sides have the same ones.
                let x = (started_at.elapsed().as_secs_f64() * 10.0).round() / 10.0;
                all.push(Told { metric: "mib", x: Some(x), value: mib });
                most = most.max(mib);
                std::thread::sleep(Duration::from_millis(100));
            }
            let result = load.end()?;
            number(&result, "deliveries")?;
            all.push(told("most_mib", most));
            Ok(all)
        }),
    }
}
