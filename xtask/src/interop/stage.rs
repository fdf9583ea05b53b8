//! A node and its members, as processes: started, told what to do, waited for, and
//! judged.
//!
//! Everything that a member tells is kept, and what it heard is compared at the end
//! of the case with what was said to it: nothing missing, nothing twice, nothing
//! else, in order per sender.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::Signal;

use super::cast::{Cast, Ours, Side, Theirs};
use super::member::{Echo, Member, MemberId, Outcome, Said};
use super::ports;
use crate::cargo::Programs;
use crate::child::{Child, Output};
use crate::difference::{difference, some_of};
use crate::node::{Node, program};

/// What everybody shares who is meant to understand each other.
pub(super) const SECRET: &str = "the-secret-of-a-conversation-that-everybody-may-hear";

/// What all groups are called.
pub(super) const CHANNEL: &str = "interop/ns/chat";

/// Until a step is done. Generous: two processors may have many processes to run.
const STEP_TIMEOUT: Duration = Duration::from_secs(90);

/// Between two looks at something that is not told by itself.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Outputs of all members that may wait; more wait in the members' pipes.
const OUTPUTS: usize = 1024;

/// Of each line of output, as many bytes are kept in the trace.
const TRACED: usize = 400;

/// What is needed to start either side.
#[derive(Clone, Debug)]
pub(super) struct Tools {
    pub(super) programs: Programs,
    /// Of the virtual environment.
    pub(super) python: PathBuf,
    pub(super) peer: PathBuf,
    pub(super) log: String,
}

impl Tools {
    fn node(&self, side: Side, address: &str) -> Command {
        let mut command = match side {
            Ours => {
                let mut command = program(&self.programs.node);
                command.args(["--log", &self.log]);
                command
            }
            Theirs => {
                let mut command = self.peer();
                command.arg("node");
                command
            }
        };
        command.args(["--listen", address]);
        command
    }

    fn member(&self, part: &Part<'_>, node: &str) -> Command {
        let mut command = match part.side {
            Ours => program(&self.programs.slim),
            Theirs => self.peer(),
        };
        command.args([part.mode, "--local", &part.address()]);
        command.arg("--slim").arg(format!("http://{node}"));
        if part.side == Ours {
            command.args(["--output", "json", "--log", &self.log]);
        }
        command.arg("--timeout").arg(part.timeout.to_string());
        command.arg("--max-retries").arg(part.max_retries.to_string());
        if let Some(remote) = part.remote {
            command.args(["--remote", remote]);
            if part.mls {
                command.arg("--enable-mls");
            }
        }
        for name in &part.invites {
            command.args(["--invites", name]);
        }
        if part.no_echo {
            command.arg("--no-echo");
        }
        command.env("SLIM_SHARED_SECRET", part.secret);
        command
    }

    fn peer(&self) -> Command {
        let mut command = program(&self.python);
        command.arg(&self.peer).args(["--log", &self.log]);
        command
    }
}

/// A member that is to be started.
#[derive(Clone, Debug)]
pub(super) struct Part<'a> {
    pub(super) side: Side,
    /// Unique on the stage.
    pub(super) label: &'a str,
    /// Third part of its name.
    pub(super) app: &'a str,
    /// `group` or `p2p`.
    pub(super) mode: &'static str,
    /// Channel or peer, for who creates a session.
    pub(super) remote: Option<&'a str>,
    pub(super) invites: Vec<String>,
    pub(super) mls: bool,
    /// Seconds until a message is repeated. Not too short: a moderator of the
    /// reference does not survive an answer that is slower.
    pub(super) timeout: f64,
    pub(super) max_retries: u32,
    pub(super) secret: &'a str,
    /// A listener that does not send back what it gets.
    pub(super) no_echo: bool,
}

impl<'a> Part<'a> {
    /// Somebody who waits to be invited.
    pub(super) fn participant(side: Side, label: &'a str) -> Self {
        Self {
            side,
            label,
            app: label,
            mode: "group",
            remote: None,
            invites: Vec::new(),
            mls: false,
            timeout: 3.0,
            max_retries: 9,
            secret: SECRET,
            no_echo: false,
        }
    }

    /// Somebody who creates the group.
    pub(super) fn moderator(side: Side, mls: bool, invites: Vec<String>) -> Self {
        Self { remote: Some(CHANNEL), invites, mls, ..Self::participant(side, "mod") }
    }

    /// Somebody who waits for calls.
    pub(super) fn listener(side: Side, label: &'a str) -> Self {
        Self { mode: "p2p", ..Self::participant(side, label) }
    }

    /// Somebody who calls.
    pub(super) fn caller(side: Side, label: &'a str, peer: &'a str, mls: bool) -> Self {
        Self { remote: Some(peer), mls, ..Self::listener(side, label) }
    }

    fn address(&self) -> String {
        address(self.app)
    }
}

/// The name of an application.
pub(super) fn address(app: &str) -> String {
    format!("interop/ns/{app}")
}

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
    members: Vec<Member>,
    sender: SyncSender<(MemberId, Output)>,
    outputs: Receiver<(MemberId, Output)>,
    /// Lines said so far, so that no two are alike.
    lines: usize,
    /// Members that everybody knows to be away: a line of ours is lost for them.
    pub(super) absent: Vec<MemberId>,
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
            node_address: format!("127.0.0.1:{}", ports::free()?),
            node_starts: 0,
            members: Vec::new(),
            sender,
            outputs,
            lines: 0,
            absent: Vec::new(),
            identity_binding: "warn",
        };
        stage.start_node()?;
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
        let id = MemberId(self.members.len());
        let log = self.log(part.label)?;
        let mut command = self.tools.member(part, &self.node_address);
        command.env("SLIM_IDENTITY_BINDING", self.identity_binding);
        let sender = self.sender.clone();
        let child = Child::start_logged(&mut command, log, move |output| {
            // Nobody listens any more once the case is over.
            sender.send((id, output)).ok();
        })?;
        self.members.push(Member::new(part.label, part.side, &part.address(), child)?);
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
    pub(super) fn member(&self, id: MemberId) -> &Member {
        &self.members[id.0]
    }

    fn member_mut(&mut self, id: MemberId) -> &mut Member {
        &mut self.members[id.0]
    }

    /// That this kind of event, or error, is no mistake of this member.
    pub(super) fn tolerate(&mut self, id: MemberId, what: &'static str) {
        self.member_mut(id).tolerates.insert(what);
    }

    /// Ends its process without warning.
    pub(super) fn kill(&mut self, id: MemberId) -> anyhow::Result<()> {
        self.may_end(&[id]);
        self.signal(id, Signal::KILL)?;
        self.wait(|stage| stage.without(&[id], "is dead", |member| member.status.is_some()))
    }

    /// Ours and theirs among these.
    pub(super) fn sides(&self, ids: &[MemberId]) -> (Vec<MemberId>, Vec<MemberId>) {
        ids.iter().partition(|id| self.member(**id).side == Ours)
    }

    /// Sends the process a signal.
    pub(super) fn signal(&mut self, id: MemberId, signal: Signal) -> anyhow::Result<()> {
        self.member(id).child().signal(signal);
        let label = self.member(id).label.clone();
        self.note(&label, &format!("gets {signal:?}"))
    }

    /// Gives a member a line that is not published.
    pub(super) fn command(&mut self, id: MemberId, line: &str) -> anyhow::Result<()> {
        self.write(id, line.as_bytes())
    }

    fn write(&mut self, id: MemberId, line: &[u8]) -> anyhow::Result<()> {
        self.member(id).write(line)?;
        let label = self.member(id).label.clone();
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
        let listeners = listeners.iter().copied().filter(|&id| id != speaker).collect();
        let said = Said { listeners, absent: self.absent.clone(), text, outcome: None };
        self.member_mut(speaker).said.push(said);
        Ok(())
    }

    /// Has `caller` say something that `listener` hears and sends back.
    pub(super) fn call_out(&mut self, caller: MemberId, listener: MemberId) -> anyhow::Result<()> {
        self.say(caller, &[listener])?;
        let said = self.member(caller).said.last().context("nothing was said")?;
        let echo = Echo { listener: caller, text: said.text.clone() };
        self.member_mut(listener).echoes.push(echo);
        Ok(())
    }

    /// Takes in what the members do until nothing is missing.
    ///
    /// # Errors
    /// At once if something is wrong, else when the time for one step is over.
    pub(super) fn wait(&mut self, missing: impl Fn(&Self) -> Vec<String>) -> anyhow::Result<()> {
        self.wait_for(STEP_TIMEOUT, missing)
    }

    /// As [`Self::wait`], for something that takes its time.
    pub(super) fn wait_for(
        &mut self,
        timeout: Duration,
        missing: impl Fn(&Self) -> Vec<String>,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + timeout;
        while !missing(self).is_empty() {
            if !self.pump(deadline)? {
                bail!("after {timeout:?}: {}", some_of(&missing(self)));
            }
        }
        Ok(())
    }

    /// Takes in what is there, or the next thing that comes before the deadline;
    /// false: nothing came.
    fn pump(&mut self, deadline: Instant) -> anyhow::Result<bool> {
        let left = deadline.saturating_duration_since(Instant::now());
        let Ok((id, output)) = self.outputs.recv_timeout(left) else {
            return Ok(false);
        };
        self.on_output(id, output)?;
        while let Ok((id, output)) = self.outputs.try_recv() {
            self.on_output(id, output)?;
        }
        Ok(true)
    }

    fn on_output(&mut self, id: MemberId, output: Output) -> anyhow::Result<()> {
        let label = self.member(id).label.clone();
        match output {
            Output::Line(line) => {
                self.note(&label, &line)?;
                self.member_mut(id).on_line(&line).context(label)
            }
            Output::Ended => {
                let status = self.member_mut(id).end()?;
                self.note(&label, &format!("ended with {status}"))?;
                ensure!(self.member(id).may_end, "{label} ended early, with {status}");
                Ok(())
            }
        }
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
        is_true: impl Fn(&Member) -> bool,
    ) -> Vec<String> {
        let members = ids.iter().map(|&id| self.member(id));
        members
            .filter(|member| !is_true(member))
            .map(|member| format!("not yet: {} {what}", member.label))
            .collect()
    }

    /// Starts the participants of the cast, `p1`, `p2`…, and waits until they wait.
    pub(super) fn participants(&mut self) -> anyhow::Result<Vec<MemberId>> {
        let mut ids = Vec::new();
        for (index, &side) in self.cast.others.iter().enumerate() {
            let label = format!("p{}", index + 1);
            ids.push(self.start(&Part::participant(side, &label))?);
        }
        self.all_have(&ids, "waiting")?;
        Ok(ids)
    }

    /// Starts the moderator of the cast, who invites these, and waits until all
    /// have joined.
    pub(super) fn moderator(&mut self, invites: &[MemberId]) -> anyhow::Result<MemberId> {
        let addresses = self.addresses(invites);
        let part = Part::moderator(self.cast.moderator, self.cast.mls, addresses);
        let moderator = self.start(&part)?;
        self.has_joined(moderator, invites)?;
        Ok(moderator)
    }

    /// The names to invite them by.
    pub(super) fn addresses(&self, ids: &[MemberId]) -> Vec<String> {
        ids.iter().map(|&id| self.member(id).address.clone()).collect()
    }

    /// The whole cast in a group. The moderator is told first.
    pub(super) fn group(&mut self) -> anyhow::Result<(MemberId, Vec<MemberId>)> {
        let participants = self.participants()?;
        let moderator = self.moderator(&participants)?;
        Ok((moderator, participants))
    }

    /// Has the moderator invite one more, and waits until it has joined.
    pub(super) fn invite(&mut self, moderator: MemberId, id: MemberId) -> anyhow::Result<()> {
        let address = self.member(id).address.clone();
        let (outcome, reason) = self.outcome_of_invite(moderator, &address)?;
        ensure!(outcome == "joined", "invitation of {address}: {outcome}: {reason}");
        self.has_joined(moderator, &[id])
    }

    /// Has the moderator invite a name, and tells the outcome and its reason.
    pub(super) fn outcome_of_invite(
        &mut self,
        moderator: MemberId,
        address: &str,
    ) -> anyhow::Result<(String, String)> {
        let before = self.member(moderator).invites(address).count();
        self.command(moderator, &format!("/invite {address}"))?;
        self.wait(|stage| {
            let has_it = |member: &Member| member.invites(address).count() > before;
            stage.without(&[moderator], &format!("knows what became of {address}"), has_it)
        })?;
        let invite = self.member(moderator).invites(address).last().context("no outcome")?;
        Ok((invite.text("outcome").to_owned(), invite.text("reason").to_owned()))
    }

    /// Waits until they have joined, as they and the moderator see it.
    pub(super) fn has_joined(
        &mut self,
        moderator: MemberId,
        ids: &[MemberId],
    ) -> anyhow::Result<()> {
        for address in self.addresses(ids) {
            self.invite_ends(moderator, &address, "joined")?;
        }
        let all = [ids, &[moderator]].concat();
        self.all_have(&all, "session")?;
        for id in all {
            let member = self.member(id);
            let session = member.events("session").last().context("no session")?;
            let mls = session.field("mls").as_bool();
            ensure!(mls == Some(self.cast.mls), "{}: mls is {mls:?}", member.label);
        }
        Ok(())
    }

    /// Waits until the latest invitation of this name has an outcome, which must be
    /// the given one.
    pub(super) fn invite_ends(
        &mut self,
        moderator: MemberId,
        address: &str,
        outcome: &str,
    ) -> anyhow::Result<()> {
        self.wait(|stage| {
            let has_it = |member: &Member| member.invites(address).next().is_some();
            stage.without(&[moderator], &format!("knows what became of {address}"), has_it)
        })?;
        let invite = self.member(moderator).invites(address).last().context("no outcome")?;
        let (found, reason) = (invite.text("outcome"), invite.text("reason"));
        ensure!(found == outcome, "invitation of {address}: {found}, not {outcome}: {reason}");
        Ok(())
    }

    /// Each says so many lines to all others, one after another, and everything is
    /// heard and acknowledged.
    pub(super) fn converse(&mut self, ids: &[MemberId], lines: usize) -> anyhow::Result<()> {
        for _ in 0..lines {
            for &id in ids {
                self.say(id, ids)?;
            }
            self.all_heard()?;
        }
        Ok(())
    }

    /// Waits until all that was said so far is heard and has its outcome.
    pub(super) fn all_heard(&mut self) -> anyhow::Result<()> {
        self.wait(Self::not_heard)
    }

    /// Waits until all that these said so far has its outcome.
    pub(super) fn settled(&mut self, ids: &[MemberId]) -> anyhow::Result<()> {
        self.wait(|stage| {
            let is_settled =
                |member: &Member| member.said.iter().all(|said| said.outcome.is_some());
            stage.without(ids, "knows what became of its lines", is_settled)
        })
    }

    /// What was said and not heard yet, or has no outcome.
    pub(super) fn not_heard(&self) -> Vec<String> {
        let mut missing = Vec::new();
        for speaker in &self.members {
            for (index, listener) in self.members.iter().enumerate() {
                let expected = to_hear(speaker, MemberId(index)).count();
                let heard = listener.heard.get(&speaker.name).map_or(0, Vec::len);
                if heard < expected {
                    missing.push(format!(
                        "{} heard {heard} of {expected} lines of {}",
                        listener.label, speaker.label
                    ));
                }
            }
            let open = speaker.said.iter().filter(|said| said.outcome.is_none()).count();
            if open > 0 {
                missing.push(format!("{} has no outcome of {open} lines", speaker.label));
            }
        }
        missing
    }

    /// The members of the group as one of them sees it, by name, and whether they
    /// are online.
    pub(super) fn roster(&mut self, id: MemberId) -> anyhow::Result<Vec<(String, bool)>> {
        let before = self.member(id).events("who").count();
        self.command(id, "/who")?;
        self.wait(|stage| {
            stage.without(&[id], "answers /who", |who| who.events("who").count() > before)
        })?;
        let who = self.member(id).events("who").last().context("no answer")?;
        let members = who.field("members").as_array().context("no members")?;
        let mut roster: Vec<(String, bool)> = members
            .iter()
            .map(|member| {
                let name = member["name"].as_str().unwrap_or_default().to_owned();
                (name, member["online"].as_bool().unwrap_or_default())
            })
            .collect();
        roster.sort();
        Ok(roster)
    }

    /// Waits until `at` sees exactly these members, each online or not.
    pub(super) fn roster_becomes(
        &mut self,
        at: MemberId,
        expected: &[(MemberId, bool)],
        timeout: Duration,
    ) -> anyhow::Result<()> {
        let mut wanted: Vec<(String, bool)> =
            expected.iter().map(|&(id, online)| (self.member(id).name.clone(), online)).collect();
        wanted.sort();
        let deadline = Instant::now() + timeout;
        loop {
            let roster = self.roster(at)?;
            if roster == wanted {
                return Ok(());
            }
            let label = &self.member(at).label;
            ensure!(
                Instant::now() < deadline,
                "after {timeout:?} {label} sees {roster:?}, not {wanted:?}"
            );
            let next = Instant::now() + POLL_INTERVAL;
            while self.pump(next)? {}
        }
    }

    /// Waits until `at` sees exactly these members, all online.
    pub(super) fn sees(&mut self, at: MemberId, members: &[MemberId]) -> anyhow::Result<()> {
        let online: Vec<(MemberId, bool)> = members.iter().map(|&id| (id, true)).collect();
        self.roster_becomes(at, &online, STEP_TIMEOUT)
    }

    /// That these may end from now on.
    pub(super) fn may_end(&mut self, ids: &[MemberId]) {
        for &id in ids {
            self.member_mut(id).may_end = true;
        }
    }

    /// Has the moderator remove a member, which is told so and ends.
    pub(super) fn remove(&mut self, moderator: MemberId, id: MemberId) -> anyhow::Result<()> {
        self.may_end(&[id]);
        let line = format!("/remove {}", self.member(id).address);
        self.command(moderator, &line)?;
        self.have_ended(&[id])?;
        self.ended_because(id, "removed")
    }

    /// Has the moderator close the group, which ends with that for all others.
    pub(super) fn close(
        &mut self,
        moderator: MemberId,
        participants: &[MemberId],
    ) -> anyhow::Result<()> {
        self.leave(moderator, participants)?;
        self.ended_because(moderator, "left")?;
        participants.iter().try_for_each(|&id| self.ended_because(id, "moderator_closed"))
    }

    /// Has a member leave, and waits until its process and those of all others
    /// whose session ends with that have ended well.
    pub(super) fn leave(&mut self, id: MemberId, others: &[MemberId]) -> anyhow::Result<()> {
        let all = [others, &[id]].concat();
        self.may_end(&all);
        self.command(id, "/leave")?;
        self.have_ended(&all)
    }

    /// Waits until their session and their process have ended well.
    pub(super) fn have_ended(&mut self, ids: &[MemberId]) -> anyhow::Result<()> {
        self.wait(|stage| stage.without(ids, "has ended", |member| member.status.is_some()))?;
        for &id in ids {
            let member = self.member(id);
            let status = member.status.context("no status")?;
            ensure!(status.success(), "{} ended with {status}", member.label);
            ensure!(member.has("closed"), "{} did not tell that it is over", member.label);
        }
        Ok(())
    }

    /// Why the session of one of ours ended; the reference does not tell.
    pub(super) fn ended_because(&self, id: MemberId, reason: &str) -> anyhow::Result<()> {
        let member = self.member(id);
        let closed = member.events("closed").last().context("no end")?;
        let found = closed.text("reason");
        ensure!(
            member.side == Theirs || found == reason,
            "{} ended because of {found}, not {reason}",
            member.label
        );
        Ok(())
    }

    /// The verdict, once everything was played: everybody heard exactly what was
    /// said to it. The node ends last.
    pub(super) fn finish(mut self) -> anyhow::Result<()> {
        while let Ok((id, output)) = self.outputs.try_recv() {
            self.on_output(id, output)?;
        }
        for (index, listener) in self.members.iter().enumerate() {
            let id = MemberId(index);
            let known = |name: &str| self.members.iter().any(|member| member.name == name);
            if let Some(stranger) = listener.heard.keys().find(|name| !known(name)) {
                bail!("{} heard a stranger, {stranger}", listener.label);
            }
            for speaker in &self.members {
                let said: Vec<&str> = to_hear(speaker, id).collect();
                let heard = listener.heard.get(&speaker.name);
                let heard: Vec<&str> = heard.into_iter().flatten().map(String::as_str).collect();
                if let Some(difference) = difference(&said, &heard) {
                    bail!("{} heard {}: {difference}", listener.label, speaker.label);
                }
            }
        }
        self.check_outcomes()?;
        if self.node.is_some() {
            self.stop_node()?;
        }
        Ok(())
    }

    /// Ours tell who acknowledged a line: those who were to hear it. If somebody was
    /// away, they tell instead for whom it is lost.
    fn check_outcomes(&self) -> anyhow::Result<()> {
        let names = |ids: &[MemberId]| {
            let mut names: Vec<String> =
                ids.iter().map(|&id| self.member(id).name.clone()).collect();
            names.sort();
            names
        };
        for speaker in self.members.iter().filter(|member| member.side == Ours) {
            for said in &speaker.said {
                let expected = match &said.absent[..] {
                    [] => Outcome::Delivered(names(&said.listeners)),
                    absent => Outcome::Lost(names(absent)),
                };
                ensure!(
                    said.outcome.as_ref() == Some(&expected),
                    "{} said {:?}: {:?}, expected {expected:?}",
                    speaker.label,
                    said.text,
                    said.outcome
                );
            }
        }
        Ok(())
    }
}

/// What `listener` is to hear of `speaker`, who either speaks or sends back.
fn to_hear(speaker: &Member, listener: MemberId) -> impl Iterator<Item = &str> {
    let said = speaker.said.iter().filter(move |said| said.listeners.contains(&listener));
    let echoes = speaker.echoes.iter().filter(move |echo| echo.listener == listener);
    said.map(|said| said.text.as_str()).chain(echoes.map(|echo| echo.text.as_str()))
}
