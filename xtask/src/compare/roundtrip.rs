//! Unmodified clients of the reference: two that talk to each other through a node, and
//! many that connect.

use anyhow::Context;

use super::cases::{Case, Run};
use super::load::{Load, number};
use super::process::Process;
use super::report::{Better, Goal, Line};
use super::samples::Told;
use super::side::Side;
use crate::cargo;
use crate::node::{Node, program};

/// Round trips before anything is measured, and those that are.
const WARM_UP: f64 = 5.0;
const MEASURED: f64 = 40.0;

pub(super) fn case() -> Case {
    let line = |title: &str, metric, goals| Line {
        title: title.to_owned(),
        metric,
        x: None,
        unit: "ms",
        digits: 1,
        better: Better::Less,
        goals,
    };
    Case {
        name: "roundtrip",
        about: "two clients of the reference: publish, ack, echo, ack",
        sides: &Side::NODES,
        is_growth: false,
        lines: vec![
            line(
                "round trip of the reference's clients, p50",
                "p50_ms",
                vec![Goal::OfReference(0.125)],
            ),
            line("the same, p90", "p90_ms", vec![]),
        ],
        plots: vec![],
        play: Box::new(play),
    }
}

fn play(run: &Run<'_>) -> anyhow::Result<Vec<Told>> {
    let node = run.tools.start(run.side)?;
    let _echo = client(run, &node, "echo")?;
    let mut caller = client(run, &node, "call")?;
    caller.step(WARM_UP)?;
    caller.begin(run.amount(MEASURED))?;
    let result = caller.end()?;
    ["p50_ms", "p90_ms"]
        .into_iter()
        .map(|metric| Ok(Told { metric, x: None, value: number(&result, metric)? }))
        .collect()
}

/// Starts one; what it does is in `roundtrip.py`.
pub(super) fn client(run: &Run<'_>, node: &Node, role: &str) -> anyhow::Result<Load> {
    let mut command = program(&run.tools.python);
    command.arg(cargo::root().join("xtask/src/compare/roundtrip.py"));
    command.args([role, &format!("http://{}", node.address())]);
    Load::start(&mut command, Process(node.id()))
        .with_context(|| format!("the client that is to {role}"))
}
