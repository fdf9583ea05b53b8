//! `cargo xtask demo`: a node, clients and a moderator on this machine, as a user
//! would start them, and a conversation in which everybody speaks.
//!
//! [`conversation`] judges, from what the members report; this file moves the
//! programs and waits, always with a deadline, for what is missing. The programs
//! end when this process does, whatever way that is (see [`crate::launch`]).

mod conversation;
mod event;
mod interactive;
mod screen;
mod traces;

use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use self::conversation::{Conversation, MemberId};
use self::event::Event;
use self::screen::Screen;
use self::traces::Collector;
use crate::cargo::Programs;
use crate::child::{Child, Output};
use crate::difference::some_of;
use crate::node::{Node, program};

/// Arguments of `demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Without end-to-end encryption.
    #[arg(long)]
    no_mls: bool,
    /// How many are invited.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    clients: u16,
    /// How many lines each member says.
    #[arg(long, value_name = "M", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    messages: u32,
    /// Everybody sends traces to a collector, which is asked for them in the end.
    #[arg(long)]
    traces: bool,
    /// You are the moderator and write; the clients answer.
    #[arg(long, conflicts_with_all = ["messages", "traces"])]
    interactive: bool,
    /// Take slim-node, slim and for --traces slim-collector from this folder, and build
    /// nothing.
    #[arg(long, value_name = "FOLDER")]
    programs: Option<PathBuf>,
}

/// What will be played.
#[derive(Clone, Copy, Debug)]
struct Plan {
    clients: usize,
    messages: u32,
    mls: bool,
    traces: bool,
}

const CHANNEL: &str = "agntcy/ns/chat";
const MODERATOR: &str = "moderator";

/// Only ever used on the loopback interface, for as long as the demo runs.
const SECRET: &str = "the-secret-of-a-conversation-that-everybody-may-hear";

/// Until a step is done, and how much longer it may take for each member: on a
/// busy machine they share one processor.
const STEP_TIMEOUT: Duration = Duration::from_secs(60);
const STEP_TIMEOUT_PER_MEMBER: Duration = Duration::from_secs(2);

/// Outputs of all members that may wait; more wait in the members' pipes.
const OUTPUTS: usize = 1024;

/// Said in turn.
const PHRASES: [&str; 6] = [
    "hello, everybody",
    "can all of you read this?",
    "loud and clear",
    "the node only passes it on",
    "nothing lost, nothing twice",
    "that is all from here",
];

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let programs = match &args.programs {
        Some(folder) => Programs::in_folder(folder)?,
        None => {
            println!("building slim-node and slim");
            let mut packages = vec!["--package", "slim-node", "--package", "slim-cli"];
            packages.extend(args.traces.then_some(["--package", "slim-testkit"]).iter().flatten());
            Programs::build(&packages)?
        }
    };
    let Args { clients, messages, no_mls, traces, .. } = *args;
    let plan = Plan { clients: clients.into(), messages, mls: !no_mls, traces };
    if args.interactive { interactive::run(&programs, plan) } else { play(&programs, plan) }
}

/// The demo as it is without options, for `ci`; with MLS, traces are looked at, too.
pub(crate) fn check(programs: &Programs, mls: bool) -> anyhow::Result<()> {
    play(programs, Plan { clients: 2, messages: 5, mls, traces: mls })
}

impl Plan {
    /// Label and name of everybody; the moderator comes last.
    fn members(self) -> impl Iterator<Item = (String, String)> {
        (1..=self.clients)
            .map(|number| format!("client-{number}"))
            .chain([MODERATOR.to_owned()])
            .map(|label| (label.clone(), format!("agntcy/ns/{label}")))
    }

    /// What makes `slim group` the moderator.
    fn moderator_args(self) -> Vec<String> {
        let mut args = vec!["--remote".to_owned(), CHANNEL.to_owned()];
        for (_, address) in self.members().take(self.clients) {
            args.extend(["--invites".to_owned(), address]);
        }
        if self.mls {
            args.push("--enable-mls".to_owned());
        }
        args
    }

    fn screen(self) -> Screen {
        Screen::new(self.members().map(|(label, _)| label.len()).max().unwrap_or(0))
    }

    fn step_timeout(self) -> Duration {
        STEP_TIMEOUT + STEP_TIMEOUT_PER_MEMBER * u32::try_from(self.clients).unwrap_or(u32::MAX)
    }
}

/// A node on a free port.
fn start_node(programs: &Programs, collector: Option<&Collector>) -> anyhow::Result<Node> {
    let mut command = program(&programs.node);
    command.args(["--listen", "127.0.0.1:0"]);
    collector.into_iter().for_each(|collector| collector.has(&mut command));
    Node::start(&mut command, None)
}

/// The command of a member of the group.
fn member(programs: &Programs, node: &Node, local: &str) -> Command {
    let mut command = program(&programs.slim);
    command
        .args(["group", "--local", local, "--slim", node.address()])
        .env("SLIM_SHARED_SECRET", SECRET);
    command
}

/// The scripted conversation: everything from the first program to the verdict.
fn play(programs: &Programs, plan: Plan) -> anyhow::Result<()> {
    let collector = plan.traces.then(|| Collector::start(&programs.helper("slim-collector")));
    let collector = collector.transpose()?;
    let node = start_node(programs, collector.as_ref())?;
    let mut stage = Stage::new(plan, collector);
    stage.screen.progress(None, "node", &format!("listening on {}", node.address()));

    let played = stage.play(programs, &node);
    let tails = stage.end_members(played.is_ok());
    let stopped = node.stop();

    let screen = &stage.screen;
    let summary = stage.conversation.summary();
    if summary.messages > 0 {
        screen.summary(&summary, stage.joined_after, plan.mls);
    }
    let mut failures = match &played {
        Ok(()) => stage.conversation.failures(),
        Err(error) => {
            let mut failures = stage.conversation.problems().to_vec();
            failures.push(format!("{error:#}"));
            failures
        }
    };
    failures.extend(stopped.err().map(|error| format!("{error:#}")));
    if let (Some(collector), true) = (stage.collector.take(), failures.is_empty()) {
        let members = plan.clients + 1;
        let verdict = traces::judge(&collector.sent()?, members, members * plan.messages as usize);
        screen.note("\none of the traces");
        verdict.example.iter().for_each(|line| screen.note(line));
        failures.extend(verdict.failures);
    }
    if failures.is_empty() {
        screen.success("everybody got everything exactly once and in order");
        return Ok(());
    }
    for failure in &failures {
        screen.failure(failure);
    }
    for tail in tails {
        screen.note(&tail);
    }
    bail!("the demo failed")
}

/// The members, and what is known about them.
#[derive(Debug)]
struct Stage {
    plan: Plan,
    collector: Option<Collector>,
    conversation: Conversation,
    screen: Screen,
    children: Vec<Child>,
    sender: SyncSender<(MemberId, Output)>,
    outputs: Receiver<(MemberId, Output)>,
    has_ended: Vec<bool>,
    /// Members may end from now on.
    is_over: bool,
    joined_after: Option<Duration>,
}

impl Stage {
    fn new(plan: Plan, collector: Option<Collector>) -> Self {
        let (sender, outputs) = mpsc::sync_channel(OUTPUTS);
        Self {
            plan,
            collector,
            conversation: Conversation::new(plan.members(), plan.mls),
            screen: plan.screen(),
            children: Vec::new(),
            sender,
            outputs,
            has_ended: Vec::new(),
            is_over: false,
            joined_after: None,
        }
    }

    fn play(&mut self, programs: &Programs, node: &Node) -> anyhow::Result<()> {
        for (_, address) in self.plan.members().take(self.plan.clients) {
            self.start(programs, node, &address, &[])?;
        }
        self.wait(|stage| stage.conversation.not_waiting())?;

        let started_at = Instant::now();
        let args = self.plan.moderator_args();
        self.start(programs, node, &format!("agntcy/ns/{MODERATOR}"), &args)?;
        self.wait(|stage| stage.conversation.not_in())?;
        self.joined_after = Some(started_at.elapsed());

        for round in 1..=self.plan.messages {
            for speaker in 0..self.children.len() {
                let phrase = PHRASES[(round as usize - 1) % PHRASES.len()];
                let text = format!("{phrase} ({round} of {})", self.plan.messages);
                self.conversation.say(speaker, text.clone(), Instant::now());
                self.write(speaker, &text)?;
            }
            self.wait(|stage| stage.conversation.not_heard())?;
        }

        for member in 0..self.children.len() {
            self.write(member, "/who")?;
        }
        self.wait(|stage| stage.conversation.not_listed())?;

        self.is_over = true;
        self.children[self.plan.clients].close_stdin();
        self.wait(Self::still_running)
    }

    fn start(
        &mut self,
        programs: &Programs,
        node: &Node,
        address: &str,
        args: &[String],
    ) -> anyhow::Result<()> {
        let id = self.children.len();
        let sender = self.sender.clone();
        let mut command = member(programs, node, address);
        self.collector.iter().for_each(|collector| collector.has(&mut command));
        let child = Child::start(command.args(["--output", "json"]).args(args), move |output| {
            // Nobody listens any more once the demo is over.
            sender.send((id, output)).ok();
        })?;
        self.children.push(child);
        self.has_ended.push(false);
        Ok(())
    }

    fn write(&mut self, member: MemberId, line: &str) -> anyhow::Result<()> {
        self.children[member]
            .write_line(line)
            .with_context(|| self.conversation.label(member).to_owned())
    }

    /// Takes in what the members do until nothing is missing.
    ///
    /// # Errors
    /// At once if something is wrong, else when the time for one step is over.
    fn wait(&mut self, missing: impl Fn(&Self) -> Vec<String>) -> anyhow::Result<()> {
        let timeout = self.plan.step_timeout();
        let deadline = Instant::now() + timeout;
        while !missing(self).is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok((member, output)) = self.outputs.recv_timeout(left) else {
                bail!("after {timeout:?}: {}", some_of(&missing(self)));
            };
            self.on_output(member, output);
            if !self.conversation.problems().is_empty() {
                bail!("stopped; missing at that time: {}", some_of(&missing(self)));
            }
        }
        Ok(())
    }

    fn on_output(&mut self, member: MemberId, output: Output) {
        match output {
            Output::Line(line) => match serde_json::from_str(&line) {
                Ok(event) => self.on_event(member, event),
                Err(error) => {
                    self.conversation.problem(member, &format!("not an event: {line:?}: {error}"));
                }
            },
            Output::Ended => {
                self.has_ended[member] = true;
                if !self.is_over {
                    self.conversation.problem(member, "ended early");
                }
            }
        }
    }

    fn on_event(&mut self, member: MemberId, event: Event) {
        if let Some(text) = progress(&event) {
            self.screen.progress(Some(member), self.conversation.label(member), &text);
        }
        if let Some(line) = self.conversation.on_event(member, event, Instant::now()) {
            self.screen.spoken(&line);
        }
    }

    fn still_running(&self) -> Vec<String> {
        (0..self.children.len())
            .filter(|&id| !self.has_ended[id])
            .map(|id| format!("{} still runs", self.conversation.label(id)))
            .collect()
    }

    /// Ends whoever still runs. If all went well so far, checks that they ended
    /// well too. Gives what they said on stderr.
    fn end_members(&mut self, went_well: bool) -> Vec<String> {
        let mut tails = Vec::new();
        for (id, mut child) in std::mem::take(&mut self.children).into_iter().enumerate() {
            let label = self.conversation.label(id).to_owned();
            let (status, stderr) = match child.end() {
                Ok(end) => end,
                Err(error) => {
                    self.conversation.problem(id, &format!("{error:#}"));
                    continue;
                }
            };
            if went_well && !status.success() {
                self.conversation.problem(id, &format!("ended with {status}"));
            }
            if went_well && !stderr.is_empty() {
                self.conversation.problem(id, "wrote on stderr");
            }
            tails.extend(stderr.iter().map(|line| format!("{label}: {line}")));
        }
        tails
    }
}

/// What is worth a line before and after the conversation.
fn progress(event: &Event) -> Option<String> {
    match event {
        Event::Waiting => Some("waits to be invited".to_owned()),
        Event::Session { mls: true, .. } => {
            Some("is in the group, end-to-end encrypted".to_owned())
        }
        Event::Session { mls: false, .. } => Some("is in the group, not encrypted".to_owned()),
        Event::Invite { name, outcome, .. } => Some(format!("invited {name}: {outcome}")),
        Event::Closed { reason } => Some(format!("is out: {reason}")),
        _ => None,
    }
}
