//! `cargo xtask demo --interactive`: the user moderates, in the terminal that
//! `slim group` shows, and every client answers what the moderator writes.

use std::sync::mpsc::{self, Receiver};
use std::time::Instant;

use anyhow::{Context, bail, ensure};

use super::event::Event;
use super::{MODERATOR, OUTPUTS, Plan, member, start_node};
use crate::cargo::Programs;
use crate::child::{Child, Output};

pub(super) fn run(programs: &Programs, plan: Plan) -> anyhow::Result<()> {
    let node = start_node(programs, None)?;
    let names: Vec<(String, String)> = plan.members().collect();
    let (sender, outputs) = mpsc::sync_channel(OUTPUTS);
    let sink = |id: usize| {
        let sender = sender.clone();
        move |output| {
            // Nobody listens any more once the demo is over.
            sender.send((id, output)).ok();
        }
    };

    let mut clients = Vec::new();
    for (id, (_, address)) in names.iter().take(plan.clients).enumerate() {
        let mut command = member(programs, &node, address);
        clients.push(Child::start(command.args(["--output", "json"]), sink(id))?);
    }
    let deadline = Instant::now() + plan.step_timeout();
    let mut waiting = 0;
    while waiting < clients.len() {
        match next_before(deadline, &outputs)? {
            (_, Output::Line(line)) => waiting += usize::from(read(&line)? == Event::Waiting),
            (id, Output::Ended) => {
                let (status, stderr) = clients[id].end()?;
                bail!("{} ended with {status}\n{}", names[id].0, stderr.join("\n"));
            }
        }
    }
    println!("{} clients wait at {}; you are the moderator", clients.len(), node.address());

    let mut command = member(programs, &node, &names[plan.clients].1);
    command.args(plan.moderator_args());
    let mut moderator = Child::start_on_terminal(&mut command, sink(plan.clients))?;
    let mut running = clients.len();
    // The user's time is not ours to limit.
    loop {
        match outputs.recv().context("the members are gone")? {
            (id, Output::Line(line)) => answer(&mut clients[id], &read(&line)?)?,
            (id, Output::Ended) if id == plan.clients => break,
            // It was removed, or is a little faster than the moderator.
            (_, Output::Ended) => running -= 1,
        }
    }
    let (status, _) = moderator.end()?;
    ensure!(status.success(), "the moderator ended with {status}");

    let deadline = Instant::now() + plan.step_timeout();
    while running > 0 {
        if let (_, Output::Ended) = next_before(deadline, &outputs)? {
            running -= 1;
        }
    }
    node.stop()
}

fn next_before(
    deadline: Instant,
    outputs: &Receiver<(usize, Output)>,
) -> anyhow::Result<(usize, Output)> {
    let left = deadline.saturating_duration_since(Instant::now());
    outputs.recv_timeout(left).context("the clients take too long")
}

fn read(line: &str) -> anyhow::Result<Event> {
    serde_json::from_str(line).with_context(|| format!("not an event: {line:?}"))
}

/// Only the moderator gets answers: clients that answer each other never stop.
fn answer(client: &mut Child, event: &Event) -> anyhow::Result<()> {
    match event {
        Event::Message { source, payload } if source.contains(&format!("/{MODERATOR}/")) => {
            client.write_line(&format!("you said: {payload}"))
        }
        _ => Ok(()),
    }
}
