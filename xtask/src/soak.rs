//! `cargo xtask soak`: nodes and members as processes, for as long as one likes.
//!
//! Two [`world`]s, each a node and a group: in one the node never ends, so that it
//! can be watched, in the other it does. A seed draws what happens ([`plan`]); what
//! is said is judged as it is heard ([`judge`]), and what those use who stay is
//! sampled and has to be flat ([`trend`]).

mod judge;
mod plan;
mod story;
mod trend;
mod world;

use std::collections::BTreeMap;
use std::fs;
use std::io::{IsTerminal, Write, stdout};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail, ensure};
use comfy_table::{CellAlignment, Table, presets};
use rand::{SeedableRng, rngs::StdRng};

use self::judge::MemberId;
use self::story::Story;
use self::trend::{FILES_RISE, Limit, Trend, Usage};
use self::world::World;
use crate::cargo::{self, Programs};
use crate::child::Output;
use crate::stage::tools::Tools;

/// Arguments of `soak`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How long, in minutes. The end takes up to two more.
    #[arg(long, value_name = "M", default_value_t = 5, value_parser = clap::value_parser!(u64).range(2..))]
    minutes: u64,
    /// Draws the same again; when it happens is up to the machine. A fresh one if not
    /// given.
    #[arg(long)]
    seed: Option<u64>,
    /// Take slim-node and slim from this folder, and build nothing.
    #[arg(long, value_name = "FOLDER")]
    programs: Option<PathBuf>,
    /// What all processes log, each into a file of its own.
    #[arg(long, value_name = "LEVEL", default_value = "warn")]
    log: String,
}

/// Before this, and a fifth of the time, nothing has to be flat: caches fill.
const WARM_UP: Duration = Duration::from_secs(60);

/// Between two samples of what processes use.
const SAMPLED_EVERY: Duration = Duration::from_secs(2);

/// Between two looks at how it goes, at a terminal and elsewhere.
const SHOWN_EVERY: Duration = Duration::from_secs(1);
const PRINTED_EVERY: Duration = Duration::from_secs(30);

/// For everything that was begun to be done, and for everybody to end.
const END_TIMEOUT: Duration = Duration::from_secs(240);

/// Outputs of all members that may wait; more wait in the members' pipes.
const OUTPUTS: usize = 1024;

/// Of these, as many are taken in before anything else is looked at.
const AT_ONCE: usize = 256;

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    ensure!(cfg!(target_os = "linux"), "reads what processes use from /proc, so needs Linux");
    let folder = cargo::target_folder()?.join("soak");
    let _alone = cargo::lock(&folder)?;
    let programs = match &args.programs {
        Some(folder) => Programs::in_folder(folder)?,
        None => {
            println!("building slim-node and slim, with optimisation");
            Programs::build(&["--release", "--package", "slim-node", "--package", "slim-cli"])?
        }
    };
    let tools = Tools { programs, reference: None, log: args.log.clone() };
    let logs = folder.join("logs");
    if logs.exists() {
        fs::remove_dir_all(&logs).with_context(|| format!("cannot empty {}", logs.display()))?;
    }
    fs::create_dir_all(&logs).with_context(|| format!("cannot create {}", logs.display()))?;
    let seed = args.seed.unwrap_or_else(fresh);
    let minutes = args.minutes;
    println!("seed {seed}, {minutes} minutes, logs in {}", logs.display());
    let mut soak = Soak::new(&tools, &logs, seed, Duration::from_secs(60 * minutes))?;
    let played = soak.play();
    soak.show();
    if let Err(error) = played {
        println!("the end of {}:", logs.join("story").display());
        for line in soak.story.tail() {
            println!("{line}");
        }
        bail!("{error:#}\nagain: cargo xtask soak --minutes {minutes} --seed {seed}");
    }
    println!("nothing lost, nothing twice, and what stayed is flat");
    Ok(())
}

/// The time in milliseconds: another one each time.
fn fresh() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or_default()
}

/// Everything about one run.
struct Soak<'a> {
    worlds: Vec<World<'a>>,
    rng: StdRng,
    story: Story,
    outputs: Receiver<(usize, MemberId, Output)>,
    began_at: Instant,
    length: Duration,
    trends: BTreeMap<String, Trend>,
    /// What each used when it was last looked at.
    usages: Vec<(String, Usage)>,
    sampled_at: Instant,
    shown_at: Instant,
}

impl<'a> Soak<'a> {
    fn new(tools: &'a Tools, logs: &Path, seed: u64, length: Duration) -> anyhow::Result<Self> {
        let (sender, outputs) = mpsc::sync_channel(OUTPUTS);
        let mut story = Story::new(&logs.join("story"))?;
        let worlds = [false, true]
            .into_iter()
            .enumerate()
            .map(|(number, node_restarts)| {
                World::new(number, tools, logs, node_restarts, sender.clone(), &mut story)
            })
            .collect::<anyhow::Result<_>>()?;
        let now = Instant::now();
        Ok(Self {
            worlds,
            rng: StdRng::seed_from_u64(seed),
            story,
            outputs,
            began_at: now,
            length,
            trends: BTreeMap::new(),
            usages: Vec::new(),
            sampled_at: now,
            shown_at: now,
        })
    }

    fn play(&mut self) -> anyhow::Result<()> {
        let end = self.began_at + self.length;
        self.turn_until(end, "", |_| false)?;
        for world in &mut self.worlds {
            world.wind_down();
        }
        let deadline = end + END_TIMEOUT;
        self.turn_until(deadline, "not all is done", |world| world.is_calm())?;
        for world in &mut self.worlds {
            world.ask(&mut self.story)?;
        }
        self.turn_until(deadline, "not all answered /who", |world| world.have_answered())?;
        for world in &mut self.worlds {
            world.close(Instant::now(), &mut self.story)?;
        }
        self.turn_until(deadline, "not all ended", |world| world.is_over())?;
        self.worlds.iter_mut().try_for_each(World::stop_node)?;
        let limit = Limit::of(self.length);
        let risen: Vec<&str> = self
            .trends
            .iter()
            .filter(|(_, trend)| !trend.is_flat(limit))
            .map(|(label, _)| label.as_str())
            .collect();
        ensure!(risen.is_empty(), "not flat: {}", risen.join(", "));
        Ok(())
    }

    /// Goes on until the deadline, which is as it should be if `late` is empty, or until
    /// this is true of all worlds.
    fn turn_until(
        &mut self,
        deadline: Instant,
        late: &str,
        is_done: impl Fn(&World<'_>) -> bool,
    ) -> anyhow::Result<()> {
        loop {
            let now = Instant::now();
            for world in &mut self.worlds {
                world.tick(now, &mut self.rng, &mut self.story)?;
            }
            self.look(now)?;
            if self.worlds.iter().all(&is_done) {
                return Ok(());
            }
            if now >= deadline {
                ensure!(late.is_empty(), "{late}");
                return Ok(());
            }
            let due = self.worlds.iter().filter_map(World::next_due);
            let due = due.chain([deadline, self.sampled_at, self.shown_at]).min();
            let wait = due.unwrap_or(deadline).saturating_duration_since(now);
            let mut next = self.outputs.recv_timeout(wait).ok();
            for _ in 0..AT_ONCE {
                let Some((world, id, output)) = next.take() else { break };
                self.worlds[world].on_output(id, output, Instant::now(), &mut self.story)?;
                next = self.outputs.try_recv().ok();
            }
            if let Some((world, id, output)) = next {
                self.worlds[world].on_output(id, output, Instant::now(), &mut self.story)?;
            }
        }
    }

    /// Samples and shows, if it is time.
    fn look(&mut self, now: Instant) -> anyhow::Result<()> {
        if self.sampled_at <= now {
            self.sampled_at = now + SAMPLED_EVERY;
            self.sample(now)?;
        }
        if self.shown_at <= now {
            let is_terminal = stdout().is_terminal();
            self.shown_at = now + if is_terminal { SHOWN_EVERY } else { PRINTED_EVERY };
            let line = self.progress(now);
            if is_terminal {
                print!("\r{line}\x1b[K");
                stdout().flush().ok();
            } else {
                println!("{line}");
            }
        }
        Ok(())
    }

    fn sample(&mut self, now: Instant) -> anyhow::Result<()> {
        let after = self.began_at + WARM_UP.max(self.length / 5);
        let is_over = now > self.began_at + self.length;
        // Its files are the pipes to those who happen to be there.
        let own = Usage { files: 0, ..Usage::of(std::process::id())? };
        let mut usages = vec![("judge".to_owned(), own)];
        if !is_over {
            for world in &self.worlds {
                usages.extend(world.usages()?);
            }
        }
        if now >= after && !is_over {
            for (label, usage) in &usages {
                let trend = self.trends.entry(label.clone()).or_default();
                trend.add(now.saturating_duration_since(after), *usage);
            }
        }
        if !is_over {
            self.usages = usages;
        }
        Ok(())
    }

    fn progress(&self, now: Instant) -> String {
        let passed = now.saturating_duration_since(self.began_at).as_secs();
        let total = self.length.as_secs();
        let sum = |of: fn(&World<'_>) -> u64| self.worlds.iter().map(of).sum::<u64>();
        let node = self.usages.iter().find(|(label, _)| label == "0-node");
        let node = node.map_or(String::new(), |(_, usage)| {
            format!("node {} MiB, {} files", mib(usage.memory as f64), usage.files)
        });
        format!(
            "{:02}:{:02} of {:02}:{:02}  {} processes, {} joined, {} killed, {} node restarts  \
             {} said, {} heard, {} open  {node}",
            passed / 60,
            passed % 60,
            total / 60,
            total % 60,
            sum(|world| world.size() as u64),
            sum(|world| world.counts.joined),
            sum(|world| world.counts.killed),
            sum(|world| world.counts.node_restarts),
            sum(|world| world.judge().counts.said),
            sum(|world| world.judge().counts.heard),
            sum(|world| world.judge().open() as u64),
        )
    }

    fn show(&self) {
        println!();
        let mut table = Table::new();
        table.load_preset(presets::UTF8_FULL_CONDENSED);
        table.set_header(["", "node stays", "node restarts"]);
        let mut row = |what: &str, of: fn(&World<'_>) -> u64| {
            let mut cells = vec![what.to_owned()];
            cells.extend(self.worlds.iter().map(|world| of(world).to_string()));
            table.add_row(cells);
        };
        row("lines said", |world| world.judge().counts.said);
        row("messages heard", |world| world.judge().counts.heard);
        row("delivered to all", |world| world.judge().counts.delivered);
        row("lost for who was away or going", |world| world.judge().counts.lost);
        row("before the first that was told", |world| world.judge().counts.before_first);
        row("joined", |world| world.counts.joined);
        row("left", |world| world.counts.left);
        row("removed", |world| world.counts.removed);
        row("killed", |world| world.counts.killed);
        row("stood still, unnoticed", |world| world.counts.still);
        row("stood still, offline", |world| world.counts.away);
        row("calls", |world| world.counts.calls);
        row("node stood still", |world| world.counts.node_still);
        row("node restarted", |world| world.counts.node_restarts);
        for column in [1, 2] {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        println!("{table}");
        self.show_trends();
    }

    fn show_trends(&self) {
        let limit = Limit::of(self.length);
        let mut table = Table::new();
        table.load_preset(presets::UTF8_FULL_CONDENSED);
        let header =
            ["who stayed", "MiB after warm-up", "at the end", "most", "files", "at the end", ""];
        table.set_header(header);
        for (label, trend) in &self.trends {
            let Some((memory, files)) = trend.lines() else { continue };
            table.add_row([
                label.clone(),
                mib(memory.from),
                mib(memory.to),
                mib(trend.most_memory as f64),
                format!("{:.1}", files.from),
                format!("{:.1}", files.to),
                if trend.is_flat(limit) { "flat" } else { "RISES" }.to_owned(),
            ]);
        }
        for column in 1..6 {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        println!("{table}");
        println!(
            "flat: the fitted line rises by at most {} MiB or {} %, and {FILES_RISE} files",
            mib(limit.memory),
            limit.part * 100.0
        );
    }
}

fn mib(kib: f64) -> String {
    format!("{:.1}", kib / 1024.0)
}
