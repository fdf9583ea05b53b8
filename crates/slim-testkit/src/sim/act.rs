//! What applications do and what befalls them, at random.

use std::time::Duration;

use rand::RngExt;
use slim_proto::{Name, SessionId};
use slim_session::{Command, Input, Role};

use super::app::{AppId, Asked};
use super::plan::{Action, pick};
use super::world::{Broken, Cut, Event, World};

/// Sessions of one world, ended ones included; a create beyond is left out.
const MAX_SESSIONS: usize = 5;

impl World {
    /// The first session.
    pub(super) fn begin(&mut self) -> Result<(), Broken> {
        self.create(0)?;
        if self.plan.is_p2p {
            return Ok(());
        }
        for slot in 1..self.plan.slots {
            if self.rng.random_bool(0.7)
                && let Some(session) = self.moderated(0).first().copied()
            {
                self.invite(0, session, slot)?;
                let time = self.within(Duration::ZERO, Duration::from_secs(1));
                self.run_for(time)?;
            }
        }
        Ok(())
    }

    pub(super) fn act(&mut self) -> Result<(), Broken> {
        if self.away_rng.random_bool(self.plan.away) {
            self.some_presence()?;
        }
        let sum: u32 = self.plan.weights.iter().sum();
        let mut number = self.rng.random_range(0..sum);
        for (weight, (action, ..)) in self.plan.weights.into_iter().zip(Action::ALL) {
            if number < weight {
                return self.take(action);
            }
            number -= weight;
        }
        Ok(())
    }

    fn take(&mut self, action: Action) -> Result<(), Broken> {
        let second = Duration::from_secs(1);
        match action {
            Action::Publish => self.some_publish(1)?,
            Action::Burst => {
                let count = pick(&mut self.rng, &[5, 20, 50]);
                self.some_publish(count)?;
            }
            Action::PublishTo => {
                if let Some((app, session)) = self.some_session(|_| true)
                    && !self.plan.is_p2p
                {
                    let to = self.some_slot();
                    if to != app {
                        self.publish(app, session, Some(to))?;
                    }
                }
            }
            Action::Invite => {
                if let Some((app, session)) = self.some_session(|role| role == Role::Moderator)
                    && !self.plan.is_p2p
                {
                    let slot = self.rng.random_range(0..self.plan.slots);
                    self.invite(app, session, slot)?;
                }
            }
            Action::Remove => {
                if let Some((app, session)) = self.some_session(|role| role == Role::Moderator)
                    && !self.plan.is_p2p
                {
                    self.remove(app, session)?;
                }
            }
            Action::Leave => {
                let is_p2p = self.plan.is_p2p;
                if let Some((app, session)) =
                    self.some_session(|role| is_p2p || role == Role::Participant)
                {
                    self.close(app, session)?;
                }
            }
            Action::CloseGroup => {
                if let Some((app, session)) = self.some_session(|role| role == Role::Moderator) {
                    self.close(app, session)?;
                }
            }
            Action::Create => {
                if let Some(app) = self.some_app(|_, _| true) {
                    self.create(app)?;
                }
            }
            Action::State => {
                if let Some((app, session)) = self.some_session(|_| true) {
                    self.command(app, Command::State { session }, Asked::State)?;
                }
            }
            Action::Flush => {
                if let Some((app, session)) = self.some_session(|_| true) {
                    self.command(app, Command::Flush { session }, Asked::Flush)?;
                }
            }
            Action::Busy => {
                if let Some((app, session)) = self.some_session(|_| true) {
                    self.set_busy(app, session, true)?;
                    let time = self.within(second / 10, second * 15);
                    self.after(time, Event::NotBusy(app, session));
                }
            }
            Action::Kill => self.some_kill(false),
            Action::KillModerator => self.some_kill(true),
            Action::Restart => {
                let dead = |world: &Self, slot: usize| !world.apps[world.slots[slot]].is_alive;
                let slots: Vec<usize> =
                    (0..self.plan.slots).filter(|slot| dead(self, *slot)).collect();
                if !slots.is_empty() {
                    let slot = pick(&mut self.rng, &slots);
                    self.start(slot)?;
                }
            }
            Action::Pause => {
                if let Some(app) = self.some_app(|_, _| true) {
                    let time = self.within(second / 10, second * 20);
                    self.pause(app, time);
                }
            }
            Action::LinkLoss => {
                if let Some(app) = self.some_app(|_, _| true)
                    && let Some(link) = self.apps[app].link
                {
                    // Either side may notice first.
                    let (here, there) = match self.rng.random_bool(0.5) {
                        true => (Duration::ZERO, self.within(Duration::ZERO, second * 10)),
                        false => (self.within(Duration::ZERO, second * 5), Duration::ZERO),
                    };
                    let pause = self.within(second / 4, second * 20);
                    self.after(here, Event::LinkDown(app, link, pause));
                    self.after(there, Event::Forget(link));
                }
            }
            Action::LinkGone => {
                let moderates = |world: &Self, app: AppId| !world.moderated(app).is_empty();
                if let Some(app) = self.some_app(|world, app| !moderates(world, app)) {
                    self.link_gone(app)?;
                }
            }
            Action::NodeRestart => {
                self.note("the node is started again");
                self.node.restart();
                for app in 0..self.apps.len() {
                    if let Some(link) = self.apps[app].link {
                        let noticed = self.within(Duration::ZERO, second / 2);
                        let pause = self.within(second / 4, second * 5);
                        self.after(noticed, Event::LinkDown(app, link, pause));
                    }
                }
            }
            Action::Cut => self.some_cut(),
            Action::Slow => {
                if let Some(app) = self.some_app(|_, _| true) {
                    let time = self.within(second / 2, second * 15);
                    // Twice in a row, and the node would seem to be dead.
                    let before = self.stalls.get(&app).copied();
                    if before.is_none_or(|until| until + second * 10 < self.at) {
                        let label = &self.apps[app].label;
                        self.note(format!("{label}  is not reached for {time:?}"));
                        self.stalls.insert(app, self.at + time);
                    }
                }
            }
        }
        Ok(())
    }

    // ------------------------------------------------------------ who

    fn some_app(&mut self, which: impl Fn(&Self, AppId) -> bool) -> Option<AppId> {
        let apps: Vec<AppId> = (0..self.apps.len())
            .filter(|app| self.apps[*app].is_running() && which(self, *app))
            .collect();
        (!apps.is_empty()).then(|| pick(&mut self.rng, &apps))
    }

    fn some_session(&mut self, which: impl Fn(Role) -> bool) -> Option<(AppId, SessionId)> {
        let mut sessions = Vec::new();
        for (id, app) in self.apps.iter().enumerate().filter(|(_, app)| app.is_running()) {
            let open = app.open_sessions().filter(|view| which(view.info.role));
            sessions.extend(open.map(|view| (id, view.info.id)));
        }
        (!sessions.is_empty()).then(|| pick(&mut self.rng, &sessions))
    }

    /// Somebody goes away, or comes back.
    fn some_presence(&mut self) -> Result<(), Broken> {
        match self.some_session(|_| true) {
            Some((id, session)) => self.set_presence(id, session, None),
            None => Ok(()),
        }
    }

    /// `None`: the other way round than now.
    pub(super) fn set_presence(
        &mut self,
        id: AppId,
        session: SessionId,
        online: Option<bool>,
    ) -> Result<(), Broken> {
        let Some(view) = self.apps[id].sessions.get_mut(&session) else { return Ok(()) };
        let online = online.unwrap_or(view.is_away);
        view.is_away = !online;
        self.command(id, Command::SetPresence { session, online }, Asked::Presence)
    }

    /// The latest process of some readable name.
    fn some_slot(&mut self) -> AppId {
        let slot = self.rng.random_range(0..self.plan.slots);
        self.slots[slot]
    }

    /// Open sessions that a process moderates.
    fn moderated(&self, id: AppId) -> Vec<SessionId> {
        let own = self.apps[id].open_sessions().filter(|view| view.info.role == Role::Moderator);
        own.map(|view| view.info.id).collect()
    }

    // ------------------------------------------------------------ what

    fn create(&mut self, id: AppId) -> Result<(), Broken> {
        let created = |view: &&super::app::View| view.info.role == Role::Moderator;
        let count: usize =
            self.apps.iter().map(|app| app.sessions.values().filter(created).count()).sum();
        if count >= MAX_SESSIONS {
            return Ok(());
        }
        let config = self.plan.config.clone();
        if self.plan.is_p2p {
            let mut to = self.some_slot();
            if self.apps[to].slot == self.apps[id].slot {
                to = self.slots[(self.apps[id].slot + 1) % self.plan.slots];
            }
            let peer = self.some_name(to);
            return self.command(id, Command::CreateP2p { peer, config }, Asked::CreateP2p);
        }
        let channel: Name = match self.rng.random_bool(0.5) {
            true => "org/sim/channel",
            false => "org/sim/other",
        }
        .parse()
        .map_err(|error| format!("{error}"))?;
        self.command(id, Command::CreateGroup { channel, config }, Asked::CreateGroup)
    }

    /// A process's name, mostly for any instance.
    fn some_name(&mut self, id: AppId) -> Name {
        let name = &self.apps[id].name;
        if self.rng.random_bool(0.8) { name.without_id() } else { name.clone() }
    }

    fn invite(&mut self, id: AppId, session: SessionId, slot: usize) -> Result<(), Broken> {
        let name = self.some_name(self.slots[slot]);
        self.command(id, Command::Invite { session, name }, Asked::Invite { session })
    }

    fn remove(&mut self, id: AppId, session: SessionId) -> Result<(), Broken> {
        let Some(state) = self.state(id, session)? else { return Ok(()) };
        let others: Vec<&Name> =
            state.members.iter().filter(|m| !m.is_self).map(|m| &m.name).collect();
        let (name, member) = if others.is_empty() || self.rng.random_bool(0.1) {
            let app = self.some_slot();
            (self.some_name(app), None)
        } else {
            let full = pick(&mut self.rng, &others).clone();
            let member = self.by_name.get(&full.route()).copied();
            (if self.rng.random_bool(0.5) { full } else { full.without_id() }, member)
        };
        // Of two with one readable name it may be either.
        let alone = others.iter().filter(|other| other.same_app(&name)).count() == 1;
        let member = member.filter(|_| alone);
        let asked = Asked::Remove { session, member, at: self.at };
        self.command(id, Command::Remove { session, name }, asked)
    }

    pub(super) fn close(&mut self, id: AppId, session: SessionId) -> Result<(), Broken> {
        if let Some(view) = self.apps[id].sessions.get_mut(&session) {
            view.is_closing = true;
        }
        self.command(id, Command::Close { session }, Asked::Close)
    }

    fn some_publish(&mut self, count: u32) -> Result<(), Broken> {
        if let Some((app, session)) = self.some_session(|_| true) {
            for _ in 0..count {
                self.publish(app, session, None)?;
            }
        }
        Ok(())
    }

    fn some_kill(&mut self, moderator: bool) {
        let victim = self.some_app(|world, app| world.moderated(app).is_empty() != moderator);
        if let Some(app) = victim {
            let noticed = match self.rng.random_bool(0.5) {
                true => Duration::ZERO,
                false => self.within(Duration::ZERO, Duration::from_secs(20)),
            };
            self.kill(app, noticed);
        }
    }

    /// The process has no link any more and wants none: its sessions end at once.
    fn link_gone(&mut self, id: AppId) -> Result<(), Broken> {
        self.note(format!("{}  gives up its link", self.apps[id].label));
        self.input(id, Input::LinkGone)?;
        let app = &self.apps[id];
        if !app.pending.is_empty() || app.sessions.values().any(|view| view.is_open) {
            return Err(format!("{} has no link, but something goes on", app.label));
        }
        self.kill(id, Duration::ZERO);
        Ok(())
    }

    /// Some do not hear some others, one-way or both ways.
    fn some_cut(&mut self) {
        let (Some(one), Some(other)) = (self.some_app(|_, _| true), self.some_app(|_, _| true))
        else {
            return;
        };
        let cuts = match self.rng.random_range(0..4) {
            0 => vec![Cut { from: Some(one), to: None }],
            1 => vec![Cut { from: None, to: Some(one) }],
            2 => vec![Cut { from: Some(one), to: None }, Cut { from: None, to: Some(one) }],
            _ => vec![
                Cut { from: Some(one), to: Some(other) },
                Cut { from: Some(other), to: Some(one) },
            ],
        };
        let time = self.within(Duration::from_millis(500), Duration::from_secs(40));
        for cut in cuts {
            let who = |app: Option<AppId>| {
                app.map_or_else(|| "anybody".to_owned(), |app| self.apps[app].label.clone())
            };
            let line = format!("{} hears nothing of {}", who(cut.to), who(cut.from));
            self.note(line);
            self.cuts.push(cut);
            self.after(time, Event::Heal(cut));
        }
    }
}
