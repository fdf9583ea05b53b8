//! One node and those who come to it: a group that never ends, with a moderator and
//! two members who stay, others who come and go, and a listener that is called.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rand::{RngExt, rngs::StdRng};

use super::judge::{Judge, MemberId};
use super::plan::{self, Action};
use super::story::Story;
use super::trend::Usage;
use crate::child::{Child, Output};
use crate::node::Node;
use crate::stage::cast::Ours;
use crate::stage::ports;
use crate::stage::process::Process;
use crate::stage::record::Event;
use crate::stage::tools::{Part, Tools, address};

/// Until something is done that was begun. Generous: a node may go meanwhile.
const STEP_TIMEOUT: Duration = Duration::from_secs(90);

/// Who stood still for so long that it counts as offline is expected to get
/// everything again after this: others hear its heartbeat, it hears theirs.
const BACK_WITHIN: Duration = Duration::from_secs(30);

/// Seconds until a line is repeated, and how often that is done. Longer together than
/// any short pause, and than it takes everybody to find a node again.
const TIMEOUT: f64 = 1.0;
const MAX_RETRIES: u32 = 11;

/// Who does what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Moderator,
    /// A participant that stays.
    Resident,
    /// A participant that comes and goes.
    Guest,
    /// Answers calls; stays.
    Listener,
    /// Calls it.
    Caller,
}

/// Where somebody stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Not ready yet.
    Starting,
    /// The moderator was told to invite it.
    Invited {
        /// It told its session.
        is_in: bool,
        /// The moderator told that it joined.
        is_told: bool,
    },
    /// Everything is as usual.
    In,
    /// Stands still until it is due, shorter than anybody minds.
    Still,
    /// Stands still until it is due, for so long that it counts as offline.
    Away,
    /// Goes on, and is its old self when it is due.
    Back,
    /// Has yet to hear this many of what it said.
    Calling(u64),
    /// Is meant to end well and to give this reason.
    Ending(&'static str),
    /// Was killed, and is to be removed.
    Dead,
}

/// A process.
#[derive(Debug)]
struct Member {
    label: String,
    role: Role,
    /// With its id, once it is connected.
    name: String,
    process: Process,
    log: PathBuf,
    phase: Phase,
    /// When the phase ends, or is too long.
    due: Instant,
    speaks_at: Instant,
    /// It has left and could tell nobody.
    is_untold: bool,
}

/// How things happened to end or begin.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) joined: u64,
    pub(super) left: u64,
    pub(super) removed: u64,
    pub(super) killed: u64,
    pub(super) still: u64,
    pub(super) away: u64,
    pub(super) calls: u64,
    pub(super) node_restarts: u64,
    pub(super) node_still: u64,
}

/// What the node does not do now.
#[derive(Clone, Copy, Debug)]
enum NodeTrouble {
    StandsStill { until: Instant },
    IsGone { until: Instant },
}

/// Everything about one node.
#[derive(Debug)]
pub(super) struct World<'a> {
    number: usize,
    tools: &'a Tools,
    folder: PathBuf,
    /// Whether its node ends and begins again.
    node_restarts: bool,
    node: Option<Node>,
    node_address: String,
    node_starts: u64,
    trouble: Option<NodeTrouble>,
    members: BTreeMap<MemberId, Member>,
    next_id: MemberId,
    moderator: MemberId,
    /// Removals of the dead that are not done: they wait for a confirmation in vain.
    unconfirmed: usize,
    /// Killed, gone, and not yet out for the moderator: until when that may be.
    dead: BTreeMap<String, (MemberId, Instant)>,
    judge: Judge,
    pub(super) counts: Counts,
    acts_at: Instant,
    /// Nobody begins anything any more.
    winds_down: bool,
    /// Who has yet to answer `/who`.
    asked: BTreeSet<MemberId>,
    sender: SyncSender<(usize, MemberId, Output)>,
}

impl<'a> World<'a> {
    /// A node and those who stay. Logs go to `folder`.
    pub(super) fn new(
        number: usize,
        tools: &'a Tools,
        folder: &Path,
        node_restarts: bool,
        sender: SyncSender<(usize, MemberId, Output)>,
        story: &mut Story,
    ) -> anyhow::Result<Self> {
        let now = Instant::now();
        let mut world = Self {
            number,
            tools,
            folder: folder.to_owned(),
            node_restarts,
            node: None,
            node_address: format!("127.0.0.1:{}", ports::free()?),
            node_starts: 0,
            trouble: None,
            members: BTreeMap::new(),
            next_id: 0,
            moderator: MemberId::MAX,
            unconfirmed: 0,
            dead: BTreeMap::new(),
            judge: Judge::new(node_restarts),
            counts: Counts::default(),
            acts_at: now,
            winds_down: false,
            asked: BTreeSet::new(),
            sender,
        };
        world.start_node(story)?;
        for app in ["resident-1", "resident-2"] {
            world.start(Role::Resident, app, now, story)?;
        }
        world.start(Role::Listener, "listener", now, story)?;
        Ok(world)
    }

    fn label(&self, app: &str) -> String {
        format!("{}-{app}", self.number)
    }

    fn start_node(&mut self, story: &mut Story) -> anyhow::Result<()> {
        self.node_starts += 1;
        let log = self.folder.join(self.label(&format!("node-{}.log", self.node_starts)));
        let log = File::create(&log).with_context(|| format!("cannot write {log:?}"))?;
        let mut command = self.tools.node(Ours, &self.node_address, None);
        self.node = Some(Node::start(&mut command, Some(log))?);
        story.tell(&self.label("node"), "listens")
    }

    fn start(
        &mut self,
        role: Role,
        app: &str,
        now: Instant,
        story: &mut Story,
    ) -> anyhow::Result<MemberId> {
        let id = self.next_id;
        self.next_id += 1;
        let label = self.label(app);
        let listener = address("listener");
        let invites = || vec![address("resident-1"), address("resident-2")];
        let part = match role {
            Role::Moderator => {
                Part { label: &label, app, ..Part::moderator(Ours, true, invites()) }
            }
            Role::Resident | Role::Guest => Part::participant(Ours, app),
            Role::Listener => Part::listener(Ours, app),
            Role::Caller => Part::caller(Ours, app, &listener, true),
        };
        let part = Part { timeout: TIMEOUT, max_retries: MAX_RETRIES, ..part };
        let path = self.folder.join(format!("{label}.log"));
        let log = File::create(&path).with_context(|| format!("cannot write {path:?}"))?;
        let mut command = self.tools.member(&part, &self.node_address);
        let (sender, number) = (self.sender.clone(), self.number);
        let child = Child::start_logged(&mut command, log, move |output| {
            // Nobody listens any more once the soak is over.
            sender.send((number, id, output)).ok();
        })?;
        let member = Member {
            label: label.clone(),
            role,
            name: String::new(),
            process: Process::new(child)?,
            log: path,
            phase: Phase::Starting,
            due: now + STEP_TIMEOUT,
            speaks_at: now,
            is_untold: false,
        };
        self.members.insert(id, member);
        story.tell(&label, "starts")?;
        Ok(id)
    }

    /// What its node and those who stay use, by label.
    pub(super) fn usages(&self) -> anyhow::Result<Vec<(String, Usage)>> {
        let mut usages = Vec::new();
        if let (Some(node), false) = (&self.node, self.node_restarts) {
            usages.push((self.label("node"), Usage::of(node.id())?));
        }
        for member in self.members.values() {
            if matches!(member.role, Role::Moderator | Role::Resident | Role::Listener) {
                usages.push((member.label.clone(), Usage::of(member.process.child().id())?));
            }
        }
        Ok(usages)
    }

    /// The group's judge, for its counts.
    pub(super) fn judge(&self) -> &Judge {
        &self.judge
    }

    /// Processes that run.
    pub(super) fn size(&self) -> usize {
        self.members.len()
    }

    fn member(&mut self, id: MemberId) -> anyhow::Result<&mut Member> {
        self.members.get_mut(&id).context("nobody")
    }

    fn enter(&mut self, id: MemberId, phase: Phase, due: Instant) -> anyhow::Result<()> {
        let member = self.member(id)?;
        member.phase = phase;
        member.due = due;
        Ok(())
    }

    fn command(&mut self, id: MemberId, line: &str, story: &mut Story) -> anyhow::Result<()> {
        let member = self.member(id)?;
        member.process.write(line.as_bytes()).with_context(|| member.label.clone())?;
        story.tell(&member.label, &format!("< {line}"))
    }
}

/// What members tell.
impl World<'_> {
    /// Takes in what one of them did.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn on_output(
        &mut self,
        id: MemberId,
        output: Output,
        now: Instant,
        story: &mut Story,
    ) -> anyhow::Result<()> {
        let Some(member) = self.members.get_mut(&id) else { return Ok(()) };
        let label = member.label.clone();
        match output {
            Output::Line(line) => self.on_line(id, &line, now, story).context(label),
            Output::Ended => {
                let status = member.process.end().with_context(|| label.clone())?;
                story.tell(&label, &format!("ended with {status}"))?;
                self.on_end(id, status, now).context(label)
            }
        }
    }

    fn on_line(
        &mut self,
        id: MemberId,
        line: &str,
        now: Instant,
        story: &mut Story,
    ) -> anyhow::Result<()> {
        let event = Event::read(line)?;
        let is_moderator = id == self.moderator;
        if event.kind() == "error" && event.text("code") == "unconfirmed" && self.unconfirmed > 0 {
            self.unconfirmed -= 1;
            return story.tell(&self.label("moderator"), line);
        }
        let member = self.member(id)?;
        let is_in_group = !matches!(member.role, Role::Listener | Role::Caller);
        if !matches!(event.kind(), "message" | "delivered" | "lost" | "participant") {
            story.tell(&member.label, line)?;
        }
        match event.kind() {
            "connected" => {
                event.text("name").clone_into(&mut member.name);
                let (label, name) = (member.label.clone(), member.name.clone());
                if is_in_group {
                    self.judge.meet(id, &label, &name);
                }
            }
            "waiting" => self.on_waiting(id, now, story)?,
            "session" => self.on_session(id, now)?,
            "invite" => self.on_invite(&event, now)?,
            "message" if is_in_group => {
                self.judge.heard(id, event.text("source"), event.text("payload"))?;
            }
            "message" => self.on_echo(id, event.text("payload"), now, story)?,
            "delivered" | "lost" if is_in_group => {
                let number = event.field("line").as_u64().context("no line")?;
                let members = event.field("members").as_array().context("no members")?;
                let members: Vec<&str> = members.iter().filter_map(|name| name.as_str()).collect();
                self.judge.outcome(id, number, event.kind() == "delivered", &members)?;
            }
            "lost" => bail!("a line is lost"),
            "participant" if is_moderator => self.on_change(&event, now, story)?,
            "who" => self.on_who(id, &event)?,
            "closed" if is_in_group || member.role == Role::Caller => {
                let (reason, phase) = (event.text("reason"), member.phase);
                let is_expected = matches!(phase, Phase::Ending(expected) if expected == reason);
                ensure!(is_expected, "closed: {reason}, while it is {phase:?}");
            }
            // Its node is being started again.
            "error" if event.text("code") == "not_told" => {
                ensure!(member.phase == Phase::Ending("left"), "not told, in {:?}", member.phase);
                member.is_untold = true;
            }
            "error" => bail!("{}: {}", event.text("code"), event.text("message")),
            _ => {}
        }
        Ok(())
    }

    fn on_waiting(&mut self, id: MemberId, now: Instant, story: &mut Story) -> anyhow::Result<()> {
        let member = self.member(id)?;
        let role = member.role;
        let (_, app) = member.label.split_once('-').context("no number")?;
        let line = format!("/invite {}", address(app));
        if role == Role::Listener {
            return self.enter(id, Phase::In, now);
        }
        let phase = Phase::Invited { is_in: false, is_told: false };
        self.enter(id, phase, now + STEP_TIMEOUT)?;
        if role == Role::Guest {
            let moderator = self.moderator;
            return self.command(moderator, &line, story);
        }
        let residents = self.members.values().filter(|member| member.role == Role::Resident);
        if residents.into_iter().all(|member| member.phase == phase) {
            self.moderator = self.start(Role::Moderator, "moderator", now, story)?;
        }
        Ok(())
    }

    fn on_session(&mut self, id: MemberId, now: Instant) -> anyhow::Result<()> {
        let member = self.member(id)?;
        match (member.role, member.phase) {
            (Role::Moderator, _) => {
                self.judge.firm(id);
                // Speaks once there is somebody.
                self.enter(id, Phase::In, now)?;
                self.member(id)?.speaks_at = now + STEP_TIMEOUT;
                Ok(())
            }
            (_, Phase::Invited { is_told, .. }) => {
                self.joins(id, Phase::Invited { is_in: true, is_told }, now)
            }
            // Comes too early if its process is slower than the moderator's.
            (Role::Caller, Phase::Calling(_)) | (Role::Listener, _) => Ok(()),
            (_, phase) => bail!("a session while it is {phase:?}"),
        }
    }

    fn on_invite(&mut self, event: &Event, now: Instant) -> anyhow::Result<()> {
        let (name, outcome) = (event.text("name"), event.text("outcome"));
        let invited = self.members.iter().find(|(_, member)| {
            matches!(member.phase, Phase::Invited { .. })
                && member.name.rsplit_once('/').is_some_and(|(app, _)| app == name)
        });
        let (&id, member) = invited.with_context(|| format!("nobody invited {name}"))?;
        ensure!(outcome == "joined", "invitation of {name}: {outcome}: {}", event.text("reason"));
        let Phase::Invited { is_in, .. } = member.phase else { bail!("not invited") };
        self.joins(id, Phase::Invited { is_in, is_told: true }, now)
    }

    /// It is in when it and the moderator told so. From the moderator's word on, it
    /// hears everything.
    fn joins(&mut self, id: MemberId, phase: Phase, now: Instant) -> anyhow::Result<()> {
        let Phase::Invited { is_in, is_told } = phase else { bail!("not invited") };
        if is_told {
            self.judge.firm(id);
        }
        let member = self.member(id)?;
        member.phase = phase;
        if is_in && is_told {
            member.phase = Phase::In;
            member.speaks_at = now;
            self.counts.joined += 1;
            let moderator = self.moderator;
            let moderator = self.member(moderator)?;
            moderator.speaks_at = moderator.speaks_at.min(now);
        }
        Ok(())
    }

    /// A caller heard what it had said.
    fn on_echo(
        &mut self,
        id: MemberId,
        text: &str,
        now: Instant,
        story: &mut Story,
    ) -> anyhow::Result<()> {
        let member = self.member(id)?;
        let Phase::Calling(left) = member.phase else { return Ok(()) };
        ensure!(text == plan::call_line(left), "heard {text:?}, not {:?}", plan::call_line(left));
        if left > 1 {
            member.phase = Phase::Calling(left - 1);
            return Ok(());
        }
        self.enter(id, Phase::Ending("left"), now + STEP_TIMEOUT)?;
        self.counts.calls += 1;
        self.command(id, "/leave", story)
    }

    /// The moderator tells that somebody is out.
    fn on_change(&mut self, event: &Event, now: Instant, story: &mut Story) -> anyhow::Result<()> {
        let (name, change) = (event.text("name"), event.text("change"));
        if !matches!(change, "left" | "removed") {
            return Ok(());
        }
        story.tell(&self.label("moderator"), &format!("{name} {change}"))?;
        if let Some((id, _)) = self.dead.remove(name) {
            self.judge.gone(id, now);
            return Ok(());
        }
        let is_expected = |member: &Member| {
            member.name == name && matches!(member.phase, Phase::Ending(_) | Phase::Dead)
        };
        let is_known = self.members.values().any(|member| member.name == name);
        ensure!(
            !is_known || self.members.values().any(is_expected),
            "{name} {change}, which nobody asked for"
        );
        for member in self.members.values_mut().filter(|member| member.name == name) {
            if member.phase == Phase::Dead {
                // Its process has yet to be seen to be gone.
                member.phase = Phase::Ending("");
            }
        }
        Ok(())
    }

    fn on_who(&mut self, id: MemberId, event: &Event) -> anyhow::Result<()> {
        let listed = event.field("members").as_array().context("no members")?;
        let listed: BTreeSet<(&str, bool)> = listed
            .iter()
            .map(|one| {
                let name = one["name"].as_str().unwrap_or_default();
                (name, one["online"].as_bool().unwrap_or_default())
            })
            .collect();
        let group = self.members.values().filter(|member| member.is_in_group());
        let expected: BTreeSet<(&str, bool)> =
            group.map(|member| (member.name.as_str(), true)).collect();
        ensure!(listed == expected, "/who lists {listed:?}, expected {expected:?}");
        self.asked.remove(&id);
        Ok(())
    }

    fn on_end(&mut self, id: MemberId, status: ExitStatus, now: Instant) -> anyhow::Result<()> {
        let member = self.members.remove(&id).context("nobody")?;
        match member.phase {
            Phase::Dead => {
                self.dead.insert(member.name, (id, now + STEP_TIMEOUT));
                return Ok(());
            }
            // Killed, and removed since.
            Phase::Ending("") => {}
            Phase::Ending(reason) => {
                let expected = if member.is_untold { Some(1) } else { Some(0) };
                ensure!(status.code() == expected, "ended with {status}");
                ensure!(
                    reason != "left" || self.judge.has_outcomes(id),
                    "left before its lines had outcomes"
                );
            }
            phase => bail!("ended with {status} while it was {phase:?}"),
        }
        self.judge.gone(id, now);
        // Nothing went wrong that it could tell more about.
        fs::remove_file(&member.log).ok();
        Ok(())
    }
}

impl Member {
    fn is_in_group(&self) -> bool {
        !matches!(self.role, Role::Listener | Role::Caller)
    }

    /// Whether it can speak and things can be done to it.
    fn is_at_ease(&self) -> bool {
        self.is_in_group() && self.phase == Phase::In
    }
}

/// What happens by and by.
impl World<'_> {
    /// When [`Self::tick`] has something to do, if nobody does anything before.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let member = |member: &Member| match member.phase {
            Phase::In if member.role == Role::Listener || self.winds_down => None,
            Phase::In => Some(member.speaks_at),
            _ => Some(member.due),
        };
        let node = self.trouble.map(|trouble| match trouble {
            NodeTrouble::StandsStill { until } | NodeTrouble::IsGone { until } => until,
        });
        let acts_at = (!self.winds_down).then_some(self.acts_at);
        self.members.values().filter_map(member).chain(node).chain(acts_at).min()
    }

    /// Does what is due.
    ///
    /// # Errors
    /// If something takes too long.
    pub(super) fn tick(
        &mut self,
        now: Instant,
        rng: &mut StdRng,
        story: &mut Story,
    ) -> anyhow::Result<()> {
        self.tick_node(now, story)?;
        self.judge.check(now)?;
        if let Some((name, _)) = self.dead.iter().find(|(_, (_, due))| *due <= now) {
            bail!("{name} was killed and is not removed after {STEP_TIMEOUT:?}");
        }
        let ids: Vec<MemberId> = self.members.keys().copied().collect();
        for id in ids {
            self.tick_member(id, now, rng, story)?;
        }
        if !self.winds_down && self.acts_at <= now {
            self.acts_at = now + plan::pace(rng, plan::ACTS);
            self.act(now, rng, story)?;
        }
        Ok(())
    }

    fn tick_node(&mut self, now: Instant, story: &mut Story) -> anyhow::Result<()> {
        match self.trouble {
            Some(NodeTrouble::StandsStill { until }) if until <= now => {
                self.trouble = None;
                self.node.as_ref().context("no node")?.child().thaw();
                story.tell(&self.label("node"), "goes on")
            }
            Some(NodeTrouble::IsGone { until }) if until <= now => {
                self.trouble = None;
                self.start_node(story)
            }
            _ => Ok(()),
        }
    }

    fn tick_member(
        &mut self,
        id: MemberId,
        now: Instant,
        rng: &mut StdRng,
        story: &mut Story,
    ) -> anyhow::Result<()> {
        let winds_down = self.winds_down;
        let member = self.member(id)?;
        if member.is_at_ease() {
            if member.speaks_at <= now && !winds_down {
                member.speaks_at = now + plan::pace(rng, plan::SPEAKS);
                return self.speak(id, 1, now, rng);
            }
            return Ok(());
        }
        if member.due > now {
            return Ok(());
        }
        match member.phase {
            Phase::In => Ok(()),
            Phase::Still => {
                member.process.child().thaw();
                member.phase = Phase::In;
                story.tell(&member.label, "goes on")
            }
            Phase::Away => {
                member.process.child().thaw();
                story.tell(&member.label, "is back")?;
                self.enter(id, Phase::Back, now + BACK_WITHIN)
            }
            Phase::Back => {
                self.judge.firm(id);
                self.enter(id, Phase::In, now)
            }
            phase => bail!("{}: {phase:?} for more than {STEP_TIMEOUT:?}", member.label),
        }
    }

    fn speak(
        &mut self,
        id: MemberId,
        lines: usize,
        now: Instant,
        rng: &mut StdRng,
    ) -> anyhow::Result<()> {
        for _ in 0..lines {
            let text = self.judge.say(id, now)?;
            let line = plan::with_filler(text, rng);
            let member = self.member(id)?;
            member.process.write(line.as_bytes()).with_context(|| member.label.clone())?;
        }
        Ok(())
    }

    /// Somebody at ease with one of these roles.
    fn any(&self, roles: &[Role], rng: &mut StdRng) -> Option<MemberId> {
        let at_ease = |member: &Member| member.is_at_ease() && roles.contains(&member.role);
        let ids: Vec<MemberId> =
            self.members.iter().filter(|(_, one)| at_ease(one)).map(|(id, _)| *id).collect();
        (!ids.is_empty()).then(|| ids[rng.random_range(0..ids.len())])
    }

    fn count(&self, role: Role) -> usize {
        self.members.values().filter(|member| member.role == role).count()
    }

    /// What the moderator was told to do, or soon will be, and has not done.
    fn commands(&self) -> usize {
        let is_pending = |member: &&Member| {
            let phase = member.phase;
            member.role == Role::Guest
                && matches!(
                    phase,
                    Phase::Starting | Phase::Invited { .. } | Phase::Ending("removed")
                )
        };
        self.unconfirmed + self.members.values().filter(is_pending).count()
    }

    fn act(&mut self, now: Instant, rng: &mut StdRng, story: &mut Story) -> anyhow::Result<()> {
        let anybody = [Role::Moderator, Role::Resident, Role::Guest];
        let is_node_well = self.trouble.is_none();
        let action = plan::action(rng);
        let guest = self.any(&[Role::Guest], rng);
        if matches!(action, Action::Join | Action::Remove | Action::Kill)
            && self.commands() >= plan::MOST_COMMANDS
        {
            return Ok(());
        }
        match (action, guest) {
            (Action::Join, _) if is_node_well && self.count(Role::Guest) < plan::MOST_GUESTS => {
                let app = format!("guest-{}", self.next_id);
                self.start(Role::Guest, &app, now, story).map(|_| ())
            }
            (Action::Call, _) if is_node_well && self.count(Role::Caller) < plan::MOST_CALLERS => {
                self.call(now, rng, story)
            }
            (Action::Leave, Some(id)) => {
                self.judge.loosen(id);
                self.counts.left += 1;
                self.enter(id, Phase::Ending("left"), now + STEP_TIMEOUT)?;
                self.command(id, "/leave", story)
            }
            (Action::Remove, Some(id)) => {
                self.judge.dismiss(id);
                self.counts.removed += 1;
                self.enter(id, Phase::Ending("removed"), now + STEP_TIMEOUT)?;
                self.remove(id, story)
            }
            (Action::Kill, Some(id)) => {
                self.judge.dismiss(id);
                self.counts.killed += 1;
                self.unconfirmed += 1;
                self.enter(id, Phase::Dead, now + STEP_TIMEOUT)?;
                let member = self.member(id)?;
                member.process.child().kill();
                story.tell(&member.label, "is killed")?;
                self.remove(id, story)
            }
            (Action::StandStill, _) => match self.any(&anybody, rng) {
                Some(id) => {
                    self.freeze(id, Phase::Still, now + plan::pace(rng, plan::STILL), story)
                }
                None => Ok(()),
            },
            (Action::GoAway, Some(id)) => {
                self.judge.loosen(id);
                self.freeze(id, Phase::Away, now + plan::pace(rng, plan::AWAY), story)
            }
            (Action::Burst, _) => match self.any(&anybody, rng) {
                Some(id) if self.judge.open_of(id) < plan::BURST => {
                    story.tell(&self.members[&id].label, "says much at once")?;
                    self.speak(id, plan::BURST, now, rng)
                }
                _ => Ok(()),
            },
            (Action::NodeStandsStill, _) if is_node_well => {
                let until = now + plan::pace(rng, plan::STILL);
                self.trouble = Some(NodeTrouble::StandsStill { until });
                self.counts.node_still += 1;
                self.node.as_ref().context("no node")?.child().freeze();
                story.tell(&self.label("node"), "stands still")
            }
            (Action::NodeStops | Action::NodeDies, _) if is_node_well && self.node_restarts => {
                self.trouble =
                    Some(NodeTrouble::IsGone { until: now + plan::pace(rng, plan::NODE_GONE) });
                self.counts.node_restarts += 1;
                let node = self.node.take().context("no node")?;
                if action == Action::NodeStops {
                    story.tell(&self.label("node"), "is stopped")?;
                    return node.stop();
                }
                story.tell(&self.label("node"), "is killed")
            }
            _ => Ok(()),
        }
    }

    fn remove(&mut self, id: MemberId, story: &mut Story) -> anyhow::Result<()> {
        let line = format!("/remove {}", self.member(id)?.name);
        self.command(self.moderator, &line, story)
    }

    fn freeze(
        &mut self,
        id: MemberId,
        phase: Phase,
        until: Instant,
        story: &mut Story,
    ) -> anyhow::Result<()> {
        let count = match phase {
            Phase::Away => &mut self.counts.away,
            _ => &mut self.counts.still,
        };
        *count += 1;
        self.enter(id, phase, until)?;
        let member = self.member(id)?;
        member.process.child().freeze();
        story.tell(&member.label, &format!("stands still: {phase:?}"))
    }

    fn call(&mut self, now: Instant, rng: &mut StdRng, story: &mut Story) -> anyhow::Result<()> {
        let app = format!("caller-{}", self.next_id);
        let id = self.start(Role::Caller, &app, now, story)?;
        let lines = rng.random_range(1..=plan::CALL_LINES);
        self.enter(id, Phase::Calling(lines), now + STEP_TIMEOUT)?;
        // They wait until the call is answered.
        for left in (1..=lines).rev() {
            self.command(id, &plan::call_line(left), story)?;
        }
        Ok(())
    }
}

/// The end.
impl World<'_> {
    /// Nobody begins anything any more.
    pub(super) fn wind_down(&mut self) {
        self.winds_down = true;
    }

    /// Whether everything that was begun is done.
    pub(super) fn is_calm(&self) -> bool {
        self.trouble.is_none()
            && self.unconfirmed == 0
            && self.dead.is_empty()
            && self.judge.open() == 0
            && self.members.values().all(|member| member.phase == Phase::In)
    }

    /// Asks everybody who is in the group.
    pub(super) fn ask(&mut self, story: &mut Story) -> anyhow::Result<()> {
        self.asked =
            self.members.iter().filter(|(_, one)| one.is_at_ease()).map(|(&id, _)| id).collect();
        for id in self.asked.clone() {
            self.command(id, "/who", story)?;
        }
        Ok(())
    }

    /// Whether all of them answered, as they should.
    pub(super) fn have_answered(&self) -> bool {
        self.asked.is_empty()
    }

    /// Has the moderator close the group, and the listener leave.
    pub(super) fn close(&mut self, now: Instant, story: &mut Story) -> anyhow::Result<()> {
        let ids: Vec<(MemberId, Role)> =
            self.members.iter().map(|(id, member)| (*id, member.role)).collect();
        for (id, role) in ids {
            let reason = match role {
                Role::Moderator | Role::Listener | Role::Caller => "left",
                Role::Resident | Role::Guest => "moderator_closed",
            };
            self.judge.loosen(id);
            self.enter(id, Phase::Ending(reason), now + STEP_TIMEOUT)?;
            if matches!(role, Role::Moderator | Role::Listener) {
                self.command(id, "/leave", story)?;
            }
        }
        Ok(())
    }

    /// Whether everybody has ended.
    pub(super) fn is_over(&self) -> bool {
        self.members.is_empty()
    }

    /// Ends the node, which is the last.
    pub(super) fn stop_node(&mut self) -> anyhow::Result<()> {
        self.node.take().context("no node")?.stop()
    }
}
