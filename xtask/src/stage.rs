//! A node and its members, as processes: started, told what to do, and waited for.
//!
//! Everything that a member tells is kept, and what it heard is compared at the end
//! of the case with what was said to it: nothing missing, nothing twice, nothing
//! else, in order per sender.

pub(crate) mod cast;
mod clock;
mod group;
mod links;
pub(crate) mod mesh;
mod network;
pub(crate) mod ports;
pub(crate) mod process;
pub(crate) mod record;
pub(crate) mod tools;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use self::cast::{Cast, Ours, Theirs};
use self::process::Process;
use self::record::{Acks, Echo, MemberId, Record, Said};
use self::tools::{Part, SIGNERS, Tools};
use crate::child::{Child, Output};
use crate::difference::some_of;
use crate::node::Node;

/// Until a step is done. Generous: two processors may have many processes to run.
pub(crate) const STEP_TIMEOUT: Duration = Duration::from_secs(90);

/// How many ports are tried: somebody may take one just before the node does.
const ATTEMPTS: usize = 3;

/// Outputs of all members that may wait; more wait in the members' pipes.
const OUTPUTS: usize = 1024;

/// Of each line of output, as many bytes are kept in the trace.
const TRACED: usize = 400;

/// Stands for the member's label in how it finds the node.
const MEMBER: &str = "THE-MEMBER";

/// Everything about one run of a case.
#[derive(Debug)]
pub(crate) struct Stage<'a> {
    tools: &'a Tools,
    pub(crate) cast: &'a Cast,
    /// For logs.
    folder: PathBuf,
    trace: File,
    started_at: Instant,
    node: Option<Node>,
    /// Nodes that are joined, in the place of the one.
    mesh: Vec<Node>,
    /// Where the node listens, also while it does not.
    node_address: String,
    /// How members find the node, if its address does not say it all.
    node_option: Option<String>,
    node_starts: usize,
    node_config: Option<PathBuf>,
    /// Between the node and those that start from now on.
    network: Option<Node>,
    /// What each member told, and its process.
    records: Vec<Record>,
    processes: Vec<Process>,
    sender: SyncSender<(MemberId, Output)>,
    outputs: Receiver<(MemberId, Output)>,
    /// Lines said so far, so that no two are alike.
    lines: usize,
    /// Who acknowledges what is said from now on.
    pub(crate) acks: Acks,
    /// Who may hear what is said from now on or not, because it joins or leaves.
    pub(crate) passers_by: Vec<MemberId>,
    /// How strictly the reference checks identities: `off`, `warn`, `enforce`.
    pub(crate) identity_binding: &'static str,
    /// What says who those are that start from now on, and its socket.
    agent: Option<(Node, PathBuf)>,
    /// The keys of those who sign tokens instead of sharing a secret, if they do.
    jwks: Option<PathBuf>,
}

impl<'a> Stage<'a> {
    /// A node, and nobody else. Logs go to `folder`.
    ///
    /// # Errors
    /// If the node does not start.
    pub(crate) fn new(tools: &'a Tools, cast: &'a Cast, folder: &Path) -> anyhow::Result<Self> {
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
            mesh: Vec::new(),
            node_address: String::new(),
            node_option: None,
            node_starts: 0,
            node_config: None,
            network: None,
            records: Vec::new(),
            processes: Vec::new(),
            sender,
            outputs,
            lines: 0,
            acks: Acks::Listeners,
            passers_by: Vec::new(),
            identity_binding: "warn",
            agent: None,
            jwks: None,
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
    pub(crate) fn start_node(&mut self) -> anyhow::Result<()> {
        self.node_starts += 1;
        let log = self.log(&format!("node-{}", self.node_starts))?;
        let config = self.node_config.as_deref();
        let mut command = self.tools.node(self.cast.node, &self.node_address, config);
        self.node = Some(Node::start(&mut command, Some(log))?);
        self.note("node", "listens")
    }

    /// Has the node be as a configuration file says, which takes header MACs from
    /// everybody.
    pub(crate) fn restart_node_from_file(&mut self) -> anyhow::Result<()> {
        self.restart_node_with_tls("{ insecure: true }")
    }

    /// The same, with this as the key `tls`.
    fn restart_node_with_tls(&mut self, tls: &str) -> anyhow::Result<()> {
        self.restart_node_with_file(&node_file(&self.node_address, tls))
    }

    /// Has the node be as this file says.
    fn restart_node_with_file(&mut self, text: &str) -> anyhow::Result<()> {
        self.stop_node()?;
        let path = self.folder.join("node.yaml");
        fs::write(&path, text).context("writing the node's file")?;
        self.node_config = Some(path);
        self.start_node()
    }

    /// Asks the node to end, and waits until it has.
    pub(crate) fn stop_node(&mut self) -> anyhow::Result<()> {
        let stopped = self.node.take().context("there is no node")?.stop();
        self.note("node", "has ended")?;
        stopped
    }

    /// Ends the node without warning.
    pub(crate) fn kill_node(&mut self) -> anyhow::Result<()> {
        drop(self.node.take());
        self.note("node", "was killed")
    }

    /// Has the node stand still, or go on.
    pub(crate) fn freeze_node(&mut self, is_still: bool) -> anyhow::Result<()> {
        let node = self.node.as_ref().context("there is no node")?.child();
        if is_still {
            node.freeze();
            return self.note("node", "stands still");
        }
        node.thaw();
        self.note("node", "goes on")
    }

    /// What programs are started with.
    pub(crate) fn tools(&self) -> &Tools {
        self.tools
    }

    /// Where the node listens.
    pub(crate) fn node_address(&self) -> &str {
        &self.node_address
    }

    /// Has those who start from now on sign tokens instead of sharing a secret.
    pub(crate) fn use_tokens(&mut self) -> anyhow::Result<()> {
        let path = self.folder.join("jwks.json");
        fs::write(&path, tools::jwks()?).context("writing the keys")?;
        self.jwks = Some(path);
        Ok(())
    }

    /// Has those who start from now on ask a SPIFFE agent who they are, instead of sharing
    /// a secret. If it has a clock of its own, that goes with those of the members.
    pub(crate) fn use_agent(&mut self, has_clock: bool) -> anyhow::Result<()> {
        // The path of a socket is short, and that of the logs may be long.
        let name = format!("slim-agent-{}-{}.sock", std::process::id(), ports::free()?);
        let socket = std::env::temp_dir().join(name);
        let log = self.log(clock::AGENT)?;
        let mut command = self.tools.agent(&socket);
        if has_clock {
            self.give_clock(&mut command, clock::AGENT, 0)?;
        }
        self.agent = Some((Node::start(&mut command, Some(log))?, socket));
        Ok(())
    }

    /// Has the agent sign with another key from now on.
    pub(crate) fn rotate_keys(&mut self) -> anyhow::Result<()> {
        let (agent, _) = self.agent.as_mut().context("there is no agent")?;
        let answer = agent.ask("rotate")?;
        ensure!(answer == "ok", "{answer}");
        self.note(clock::AGENT, "has a new key")
    }

    /// Starts a member.
    pub(crate) fn start(&mut self, part: &Part<'_>) -> anyhow::Result<MemberId> {
        if let Some(node) = self.next_of_mesh() {
            return self.start_at(part, &node);
        }
        let address = self.node_option.as_ref().unwrap_or(&self.node_address);
        let node = self.network.as_ref().map_or(address.as_str(), Node::address);
        let node = node.replace(MEMBER, part.label);
        self.start_at(part, &node)
    }

    /// Starts a member that finds the node elsewhere than the others do.
    pub(crate) fn start_at(&mut self, part: &Part<'_>, node: &str) -> anyhow::Result<MemberId> {
        let id = MemberId(self.records.len());
        let log = self.log(part.label)?;
        let mut command = self.tools.member(part, node);
        if part.side == Theirs {
            command.env("SLIM_IDENTITY_BINDING", self.identity_binding);
        }
        if let Some(jwks) = &self.jwks {
            let signer = SIGNERS.iter().find(|signer| signer.subject == part.label);
            let signer = signer.with_context(|| format!("{} has no key", part.label))?;
            Tools::sign_tokens(&mut command, signer, jwks);
        }
        if let Some((_, socket)) = &self.agent {
            Tools::ask_agent(&mut command, part.label, socket);
        }
        if let Some(ahead) = part.clock {
            self.give_clock(&mut command, part.label, ahead)?;
        }
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
    pub(crate) fn member(&self, id: MemberId) -> &Record {
        &self.records[id.0]
    }

    /// All members so far.
    pub(crate) fn everybody(&self) -> Vec<MemberId> {
        (0..self.records.len()).map(MemberId).collect()
    }

    /// That this error is no mistake of this member.
    pub(crate) fn tolerate(&mut self, id: MemberId, code: &'static str) {
        self.records[id.0].tolerates.insert(code);
    }

    /// Ends its process without warning.
    pub(crate) fn kill(&mut self, id: MemberId) -> anyhow::Result<()> {
        self.may_end(&[id]);
        self.records[id.0].was_killed = true;
        self.processes[id.0].child().kill();
        self.wait(|stage| stage.without(&[id], "is dead", |member| member.status.is_some()))
    }

    /// Asks its process to end.
    pub(crate) fn terminate(&mut self, id: MemberId) -> anyhow::Result<()> {
        self.may_end(&[id]);
        self.processes[id.0].child().terminate();
        self.note(&self.member(id).label.clone(), "is asked to end")
    }

    /// Waits until its process has ended, with status 0.
    pub(crate) fn has_ended(&mut self, id: MemberId) -> anyhow::Result<()> {
        self.wait(|stage| stage.without(&[id], "has ended", |who| who.status.is_some()))?;
        let status = self.member(id).status.context("no status")?;
        ensure!(status.success(), "{} ended with {status}", self.member(id).label);
        Ok(())
    }

    /// Waits until its process has ended because the node does not let it have its name.
    pub(crate) fn is_refused(&mut self, id: MemberId) -> anyhow::Result<()> {
        self.may_end(&[id]);
        self.wait(|stage| stage.without(&[id], "has ended", |who| who.status.is_some()))?;
        let who = self.member(id);
        ensure!(!who.has("waiting"), "{} has got its name", who.label);
        ensure!(!who.status.context("no status")?.success(), "{} was not refused", who.label);
        Ok(())
    }

    /// Whether `listener` heard the last line of `speaker`.
    pub(crate) fn has_heard_last(&self, listener: MemberId, speaker: MemberId) -> bool {
        let speaker = self.member(speaker);
        let last = speaker.said.last().map(|said| &said.text);
        last.is_some_and(|text| self.member(listener).heard_of(speaker).contains(text))
    }

    /// Has these stand still.
    pub(crate) fn freeze(&mut self, ids: &[MemberId]) -> anyhow::Result<()> {
        for &id in ids {
            self.processes[id.0].child().freeze();
            self.note(&self.member(id).label.clone(), "stands still")?;
        }
        Ok(())
    }

    /// Lets them go on.
    pub(crate) fn thaw(&mut self, ids: &[MemberId]) -> anyhow::Result<()> {
        for &id in ids {
            self.processes[id.0].child().thaw();
            self.note(&self.member(id).label.clone(), "goes on")?;
        }
        Ok(())
    }

    /// Ours and theirs among these.
    pub(crate) fn sides(&self, ids: &[MemberId]) -> (Vec<MemberId>, Vec<MemberId>) {
        ids.iter().partition(|id| self.member(**id).side == Ours)
    }

    /// Gives a member a line that is not published.
    pub(crate) fn command(&mut self, id: MemberId, line: &str) -> anyhow::Result<()> {
        self.write(id, line.as_bytes())
    }

    fn write(&mut self, id: MemberId, line: &[u8]) -> anyhow::Result<()> {
        let label = self.member(id).label.clone();
        self.processes[id.0].write(line).with_context(|| label.clone())?;
        let shown = &line[..line.len().min(TRACED)];
        self.note(&label, &format!("< {}", String::from_utf8_lossy(shown)))
    }

    /// Has `speaker` say something of its own to `listeners`.
    pub(crate) fn say(&mut self, speaker: MemberId, listeners: &[MemberId]) -> anyhow::Result<()> {
        self.lines += 1;
        let text = format!("{} says {}", self.member(speaker).label, self.lines);
        self.say_as(speaker, listeners, text.as_bytes(), text.clone())
    }

    /// Gives `speaker` a line of input, which `listeners` are to hear as `text`.
    pub(crate) fn say_as(
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
    pub(crate) fn call_out(&mut self, caller: MemberId, listener: MemberId) -> anyhow::Result<()> {
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
    pub(crate) fn wait(&mut self, missing: impl Fn(&Self) -> Vec<String>) -> anyhow::Result<()> {
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
    pub(crate) fn take_in(&mut self, deadline: Instant) -> anyhow::Result<bool> {
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
    pub(crate) fn pass(&mut self, time: Duration) -> anyhow::Result<()> {
        let until = Instant::now() + time;
        while self.take_in(until)? {}
        Ok(())
    }

    /// Waits until all that was said so far is heard and has its outcome.
    pub(crate) fn all_heard(&mut self) -> anyhow::Result<()> {
        self.wait(|stage| record::not_heard(&stage.records))
    }

    /// Waits until all that these said so far has its outcome.
    pub(crate) fn settled(&mut self, ids: &[MemberId]) -> anyhow::Result<()> {
        let knows = |member: &Record| member.said.iter().all(|said| said.outcome.is_some());
        self.wait(|stage| stage.without(ids, "knows what became of its lines", knows))
    }

    /// Waits until each of these members has told an event of this kind.
    pub(crate) fn all_have(&mut self, ids: &[MemberId], kind: &str) -> anyhow::Result<()> {
        self.wait(|stage| stage.without(ids, &format!("has told {kind:?}"), |who| who.has(kind)))
    }

    /// Those of whom something is not true, in words.
    pub(crate) fn without(
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
    pub(crate) fn may_end(&mut self, ids: &[MemberId]) {
        for &id in ids {
            self.records[id.0].may_end = true;
        }
    }

    /// The verdict, once everything was played. The node ends last.
    pub(crate) fn finish(mut self) -> anyhow::Result<()> {
        if let Some((agent, socket)) = self.agent.take() {
            drop(agent);
            fs::remove_file(socket).context("the agent's socket")?;
        }
        while let Ok((id, output)) = self.outputs.try_recv() {
            self.on_output(id, output)?;
        }
        record::verdict(&self.records)?;
        for node in std::mem::take(&mut self.mesh) {
            node.stop()?;
        }
        match self.node {
            Some(_) => self.stop_node(),
            None => Ok(()),
        }
    }
}

/// A configuration file that both sides' nodes understand.
fn node_file(address: &str, tls: &str) -> String {
    format!(
        r#"services:
  slim/0:
    node_id: node-from-a-file
    dataplane:
      servers:
        - endpoint: "{address}"
          tls: {tls}
          require_header_mac: true
"#
    )
}
