//! A node and its members, as processes: started, told what to do, and waited for.
//!
//! Everything that a member tells is kept, and what it heard is compared at the end
//! of the case with what was said to it: nothing missing, nothing twice, nothing
//! else, in order per sender.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::cast::{Cast, Ours};
use super::ports;
use super::process::Process;
use super::record::{self, Acks, Echo, MemberId, Record, Said};
use super::tools::{Part, Tools};
use crate::child::{Child, Output};
use crate::difference::some_of;
use crate::node::Node;

/// Until a step is done. Generous: two processors may have many processes to run.
pub(super) const STEP_TIMEOUT: Duration = Duration::from_secs(90);

/// How many ports are tried: somebody may take one just before the node does.
const ATTEMPTS: usize = 3;

/// Outputs of all members that may wait; more wait in the members' pipes.
const OUTPUTS: usize = 1024;

/// Of each line of output, as many bytes are kept in the trace.
const TRACED: usize = 400;

/// Everything about one run of a case.
#[derive(Debug)]
pub(super) struct Stage<'a> {
    tools: &'a Tools,
    pub(super) cast: &'a Cast,
    /// For logs.
    folder: PathBuf,
    trace: File,
    started_at: Instant,
    node: Option<Node>,
    /// Where the node listens, also while it does not.
    node_address: String,
    node_starts: usize,
    /// What each member told, and its process.
    records: Vec<Record>,
    processes: Vec<Process>,
    sender: SyncSender<(MemberId, Output)>,
    outputs: Receiver<(MemberId, Output)>,
    /// Lines said so far, so that no two are alike.
    lines: usize,
    /// Who acknowledges what is said from now on.
    pub(super) acks: Acks,
    /// Who may hear what is said from now on or not, because it joins or leaves.
    pub(super) passers_by: Vec<MemberId>,
    /// How strictly the reference checks identities: `off`, `warn`, `enforce`.
    pub(super) identity_binding: &'static str,
}

impl<'a> Stage<'a> {
    /// A node, and nobody else. Logs go to `folder`.
    ///
    /// # Errors
    /// If the node does not start.
    pub(super) fn new(tools: &'a Tools, cast: &'a Cast, folder: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {folder:?}"))?;
        let trace = folder.join("trace");
        let trace = File::create(&trace).with_context(|| format!("cannot write {trace:?}"))?;
        let (sender, outputs) = mpsc::sync_channel(OUTPUTS);
        let mut stage = Self {
            tools,
            cast,
            folder: folder.to_owned(),
            trace,
            started_at: Instant::now(),
            node: None,
            node_address: String::new(),
            node_starts: 0,
            records: Vec::new(),
            processes: Vec::new(),
            sender,
            outputs,
            lines: 0,
            acks: Acks::Listeners,
            passers_by: Vec::new(),
            identity_binding: "warn",
        };
        for attempt in 1.. {
            stage.node_address = format!("127.0.0.1:{}", ports::free()?);
            match stage.start_node() {
                Err(_) if attempt < ATTEMPTS => {}
                started => {
                    started?;
                    break;
                }
            }
        }
        Ok(stage)
    }

    /// Starts the node where it was before.
    pub(super) fn start_node(&mut self) -> anyhow::Result<()> {
        self.node_starts += 1;
        let log = self.log(&format!("node-{}", self.node_starts))?;
        let mut command = self.tools.node(self.cast.node, &self.node_address);
        self.node = Some(Node::start(&mut command, Some(log))?);
        self.note("node", "listens")
    }

    /// Asks the node to end, and waits until it has.
    pub(super) fn stop_node(&mut self) -> anyhow::Result<()> {
        let stopped = self.node.take().context("there is no node")?.stop();
        self.note("node", "has ended")?;
        stopped
    }

    /// Ends the node without warning.
    pub(super) fn kill_node(&mut self) -> anyhow::Result<()> {
        drop(self.node.take());
        self.note("node", "was killed")
    }

    /// Starts a member.
    pub(super) fn start(&mut self, part: &Part<'_>) -> anyhow::Result<MemberId> {
        let id = MemberId(self.records.len());
        let log = self.log(part.label)?;
        let mut command = self.tools.member(part, &self.node_address);
        command.env("SLIM_IDENTITY_BINDING", self.identity_binding);
        let sender = self.sender.clone();
        let child = Child::start_logged(&mut command, log, move |output| {
            // Nobody listens any more once the case is over.
            sender.send((id, output)).ok();
        })?;
        self.processes.push(Process::new(child)?);
        self.records.push(Record::new(part.label, part.side, part.address()));
        Ok(id)
    }

    fn log(&self, label: &str) -> anyhow::Result<File> {
        let path = self.folder.join(format!("{label}.log"));
        File::create(&path).with_context(|| format!("cannot write {}", path.display()))
    }

    /// A line in the trace.
    fn note(&mut self, label: &str, text: &str) -> anyhow::Result<()> {
        let at = self.started_at.elapsed().as_secs_f64();
        let shown: String = text.chars().take(TRACED).collect();
        writeln!(self.trace, "{at:8.3} {label:<10} {shown}").context("writing the trace")
    }

    /// A member, and what it told.
    pub(super) fn member(&self, id: MemberId) -> &Record {
        &self.records[id.0]
    }

    /// That this error is no mistake of this member.
    pub(super) fn tolerate(&mut self, id: MemberId, code: &'static str) {
        self.records[id.0].tolerates.insert(code);
    }

    /// Ends its process without warning.
    pub(super) fn kill(&mut self, id: MemberId) -> anyhow::Result<()> {
        self.may_end(&[id]);
        self.processes[id.0].child().kill();
        self.wait(|stage| stage.without(&[id], "is dead", |member| member.status.is_some()))
    }

    /// Has these stand still.
    pub(super) fn freeze(&mut self, ids: &[MemberId]) -> anyhow::Result<()> {
        for &id in ids {
            self.processes[id.0].child().freeze();
            self.note(&self.member(id).label.clone(), "stands still")?;
        }
        Ok(())
    }

    /// Lets them go on.
    pub(super) fn thaw(&mut self, ids: &[MemberId]) -> anyhow::Result<()> {
        for &id in ids {
            self.processes[id.0].child().thaw();
            self.note(&self.member(id).label.clone(), "goes on")?;
        }
        Ok(())
    }

    /// Ours and theirs among these.
    pub(super) fn sides(&self, ids: &[MemberId]) -> (Vec<MemberId>, Vec<MemberId>) {
        ids.iter().partition(|id| self.member(**id).side == Ours)
    }

    /// Gives a member a line that is not published.
    pub(super) fn command(&mut self, id: MemberId, line: &str) -> anyhow::Result<()> {
        self.write(id, line.as_bytes())
    }

    fn write(&mut self, id: MemberId, line: &[u8]) -> anyhow::Result<()> {
        let label = self.member(id).label.clone();
        self.processes[id.0].write(line).with_context(|| label.clone())?;
        let shown = &line[..line.len().min(TRACED)];
        self.note(&label, &format!("< {}", String::from_utf8_lossy(shown)))
    }

    /// Has `speaker` say something of its own to `listeners`.
    pub(super) fn say(&mut self, speaker: MemberId, listeners: &[MemberId]) -> anyhow::Result<()> {
        self.lines += 1;
        let text = format!("{} says {}", self.member(speaker).label, self.lines);
        self.say_as(speaker, listeners, text.as_bytes(), text.clone())
    }

    /// Gives `speaker` a line of input, which `listeners` are to hear as `text`.
    pub(super) fn say_as(
        &mut self,
        speaker: MemberId,
        listeners: &[MemberId],
        line: &[u8],
        text: String,
    ) -> anyhow::Result<()> {
        self.write(speaker, line)?;
        let others = |ids: &[MemberId]| ids.iter().copied().filter(|&id| id != speaker).collect();
        self.records[speaker.0].said.push(Said {
            listeners: others(listeners),
            passers_by: others(&self.passers_by),
            acks: self.acks.clone(),
            text,
            outcome: None,
        });
        Ok(())
    }

    /// Has `caller` say something that `listener` hears and sends back.
    pub(super) fn call_out(&mut self, caller: MemberId, listener: MemberId) -> anyhow::Result<()> {
        self.say(caller, &[listener])?;
        let said = self.member(caller).said.last().context("nothing was said")?;
        let echo = Echo { listener: caller, text: said.text.clone() };
        self.records[listener.0].echoes.push(echo);
        Ok(())
    }

    /// Takes in what the members do until nothing is missing.
    ///
    /// # Errors
    /// At once if something is wrong, else when the time for one step is over.
    pub(super) fn wait(&mut self, missing: impl Fn(&Self) -> Vec<String>) -> anyhow::Result<()> {
        let deadline = Instant::now() + STEP_TIMEOUT;
        while !missing(self).is_empty() {
            if !self.take_in(deadline)? {
                bail!("after {STEP_TIMEOUT:?}: {}", some_of(&missing(self)));
            }
        }
        Ok(())
    }

    /// Takes in what is there, or the next thing that comes; false: the deadline is
    /// over.
    pub(super) fn take_in(&mut self, deadline: Instant) -> anyhow::Result<bool> {
        let left = deadline.saturating_duration_since(Instant::now());
        let Ok((id, output)) = self.outputs.recv_timeout(left) else {
            return Ok(false);
        };
        self.on_output(id, output)?;
        for _ in 0..OUTPUTS {
            let Ok((id, output)) = self.outputs.try_recv() else { break };
            self.on_output(id, output)?;
        }
        Ok(Instant::now() < deadline)
    }

    fn on_output(&mut self, id: MemberId, output: Output) -> anyhow::Result<()> {
        let label = self.member(id).label.clone();
        match output {
            Output::Line(line) => {
                self.note(&label, &line)?;
                self.records[id.0].on_line(&line).context(label)
            }
            Output::Ended => {
                let status = self.processes[id.0].end().with_context(|| label.clone())?;
                self.note(&label, &format!("ended with {status}"))?;
                self.records[id.0].on_end(status).context(label)
            }
        }
    }

    /// Lets time pass. Not to wait for something, but where the time itself is what
    /// is tried.
    pub(super) fn pass(&mut self, time: Duration) -> anyhow::Result<()> {
        let until = Instant::now() + time;
        while self.take_in(until)? {}
        Ok(())
    }

    /// Waits until all that was said so far is heard and has its outcome.
    pub(super) fn all_heard(&mut self) -> anyhow::Result<()> {
        self.wait(|stage| record::not_heard(&stage.records))
    }

    /// Waits until all that these said so far has its outcome.
    pub(super) fn settled(&mut self, ids: &[MemberId]) -> anyhow::Result<()> {
        let knows = |member: &Record| member.said.iter().all(|said| said.outcome.is_some());
        self.wait(|stage| stage.without(ids, "knows what became of its lines", knows))
    }

    /// Waits until each of these members has told an event of this kind.
    pub(super) fn all_have(&mut self, ids: &[MemberId], kind: &str) -> anyhow::Result<()> {
        self.wait(|stage| stage.without(ids, &format!("has told {kind:?}"), |who| who.has(kind)))
    }

    /// Those of whom something is not true, in words.
    pub(super) fn without(
        &self,
        ids: &[MemberId],
        what: &str,
        is_true: impl Fn(&Record) -> bool,
    ) -> Vec<String> {
        let members = ids.iter().map(|&id| self.member(id));
        members
            .filter(|member| !is_true(member))
            .map(|member| format!("not yet: {} {what}", member.label))
            .collect()
    }

    /// That these may end from now on.
    pub(super) fn may_end(&mut self, ids: &[MemberId]) {
        for &id in ids {
            self.records[id.0].may_end = true;
        }
    }

    /// The verdict, once everything was played. The node ends last.
    pub(super) fn finish(mut self) -> anyhow::Result<()> {
        while let Ok((id, output)) = self.outputs.try_recv() {
            self.on_output(id, output)?;
        }
        record::verdict(&self.records)?;
        match self.node {
            Some(_) => self.stop_node(),
            None => Ok(()),
        }
    }
}
