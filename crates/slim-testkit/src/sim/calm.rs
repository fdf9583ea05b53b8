//! The faults are over: what was promised has to hold.

use std::collections::BTreeSet;
use std::time::Duration;

use slim_proto::{RouteName, SessionId};
use slim_session::{Role, SessionState};

use super::app::{App, AppId};
use super::world::{Broken, Event, World};

/// Long enough for everything that was under way to end: an invitation takes four
/// times eleven seconds at most, a silent member counts as offline after thirty.
const CALM: Duration = Duration::from_secs(100);

/// Nothing but heartbeats is sent in this time after it.
const QUIET: Duration = Duration::from_secs(25);

/// Everybody hears everybody within this time: a message that goes to members that
/// are gone is tried for eleven seconds.
const PROBE: Duration = Duration::from_secs(15);

/// Everybody who closes a session is done with it after this time.
const CLOSING: Duration = Duration::from_secs(20);

/// Nothing of any session is left after this time: an invitation without a welcome
/// is kept for a minute.
const FORGOTTEN: Duration = Duration::from_secs(90);

impl World {
    /// Ends all faults.
    pub(super) fn heal(&mut self) -> Result<(), Broken> {
        self.note("--- the faults end");
        self.network = self.plan.network.calm();
        self.cuts.clear();
        self.stalls.clear();
        for id in 0..self.apps.len() {
            if !self.apps[id].is_alive {
                continue;
            }
            self.resume(id)?;
            let at_once = Duration::ZERO;
            match self.apps[id].link {
                Some(link) if self.has_link(link) => {}
                Some(_) => self.link_down(id, at_once)?,
                None => self.after(at_once, Event::LinkUp(id)),
            }
            let sessions: Vec<SessionId> =
                self.apps[id].open_sessions().map(|view| view.info.id).collect();
            for session in sessions {
                self.set_busy(id, session, false)?;
                if self.apps[id].sessions[&session].is_away {
                    self.set_presence(id, session, Some(true))?;
                }
            }
        }
        Ok(())
    }

    /// Lets everything come to an end, and looks.
    pub(super) fn calm(&mut self) -> Result<(), Broken> {
        self.run_for(CALM)?;
        self.check_done()?;
        self.traffic.clear();
        self.run_for(QUIET)?;
        for (moderator, session) in self.sessions() {
            let sent = self.traffic.get(&session).copied().unwrap_or_default();
            if sent > 0 {
                let label = &self.apps[moderator].label;
                return Err(format!("{sent} messages in the quiet session {session} of {label}"));
            }
            self.check_agreement(moderator, session)?;
        }
        self.check_reports()?;
        self.probe()?;
        self.check_reports()
    }

    /// Open sessions of living moderators.
    fn sessions(&self) -> Vec<(AppId, SessionId)> {
        let mut sessions = Vec::new();
        for (id, app) in self.apps.iter().enumerate().filter(|(_, app)| app.is_alive) {
            let own = app.open_sessions().filter(|view| view.info.role == Role::Moderator);
            sessions.extend(own.map(|view| (id, view.info.id)));
        }
        sessions
    }

    /// Living processes that have this session.
    fn members(&self, session: SessionId) -> Vec<AppId> {
        (0..self.apps.len())
            .filter(|id| self.apps[*id].is_alive && self.apps[*id].is_open(session))
            .collect()
    }

    fn check_done(&self) -> Result<(), Broken> {
        for app in self.apps.iter().filter(|app| app.is_alive) {
            if let Some((request, asked)) = app.pending.first_key_value() {
                let label = &app.label;
                return Err(format!("{asked:?} ({}) of {label} has no outcome", request.0));
            }
        }
        Ok(())
    }

    fn check_reports(&mut self) -> Result<(), Broken> {
        let (by_name, apps) = (&self.by_name, &self.apps);
        let exists = |name: &RouteName| by_name.get(name).copied().filter(|id| apps[*id].is_alive);
        self.ledger.check_reports(exists, self.plan.is_p2p)
    }

    /// All who are in know of all who are in, and are in the same epoch.
    fn check_agreement(&mut self, moderator: AppId, session: SessionId) -> Result<(), Broken> {
        let members = self.members(session);
        let label = |id: AppId| self.apps[id].label.clone();
        let names: Vec<String> = members.iter().map(|id| label(*id)).collect();
        let mut first: Option<SessionState> = None;
        for id in members.iter().copied() {
            let label = self.apps[id].label.clone();
            let state = self.state(id, session)?;
            let state = state.ok_or_else(|| format!("{label} has no {session}"))?;
            let text = self.describe_done(&slim_session::Done::State(Some(state.clone())));
            self.note(format!("{label}  {text}"));
            let online: BTreeSet<RouteName> = (state.members.iter())
                .filter(|member| member.online)
                .map(|member| member.name.route())
                .collect();
            let present: BTreeSet<RouteName> =
                members.iter().map(|id| self.apps[*id].name.route()).collect();
            if online != present && self.plan.is_ordered() {
                return Err(format!("{label} sees others online than are in: {names:?}"));
            }
            let first = first.get_or_insert_with(|| state.clone());
            if first.mls != state.mls {
                return Err(format!("{label} is in another epoch than {}", names[0]));
            }
            let everybody = |state: &SessionState| -> BTreeSet<RouteName> {
                state.members.iter().map(|member| member.name.route()).collect()
            };
            if everybody(first) != everybody(&state) && self.plan.is_ordered() {
                return Err(format!("{label} sees another roster than {}", names[0]));
            }
        }
        match members.contains(&moderator) {
            true => Ok(()),
            false => Err("the moderator is not in its session".to_owned()),
        }
    }

    /// All publish, and all get it.
    fn probe(&mut self) -> Result<(), Broken> {
        let mut probes = Vec::new();
        for (_, session) in self.sessions() {
            let members = self.members(session);
            for id in members.iter().copied() {
                let others: Vec<AppId> =
                    members.iter().copied().filter(|other| *other != id).collect();
                if !others.is_empty() {
                    let told = |other| (other, self.ledger.told_lost(other, session, id));
                    let others: Vec<(AppId, u64)> = others.into_iter().map(told).collect();
                    probes.push((self.publish(id, session, None)?, others));
                }
            }
        }
        self.run_for(PROBE)?;
        self.check_done()?;
        for (number, others) in probes {
            let outcome = self.ledger.publications[number].outcome.clone();
            let Some(Ok(report)) = outcome else {
                return Err(format!("message {number} after the faults: {outcome:?}"));
            };
            let delivered: BTreeSet<RouteName> =
                report.delivered.iter().map(|name| name.route()).collect();
            let (session, from) = {
                let publication = &self.ledger.publications[number];
                (publication.session, publication.from)
            };
            for (other, told) in others {
                let App { name, label, .. } = &self.apps[other];
                if !self.plan.is_ordered() {
                    continue;
                }
                if self.plan.config.timers.is_some() && !delivered.contains(&name.route()) {
                    return Err(format!("{label} does not confirm message {number}"));
                }
                // Who counts anew may do so before the start of another's stream.
                let is_told = self.ledger.told_lost(other, session, from) > told
                    && self.apps[from].sessions[&session].times > 1;
                if !self.ledger.has(other, number) && !is_told {
                    return Err(format!("{label} does not hear message {number}"));
                }
            }
        }
        Ok(())
    }

    /// Everybody closes everything, and nothing is left.
    pub(super) fn close_all(&mut self) -> Result<(), Broken> {
        self.note("--- all is closed");
        for id in 0..self.apps.len() {
            let app = &self.apps[id];
            let open: Vec<SessionId> = match app.is_alive {
                true => app.open_sessions().map(|view| view.info.id).collect(),
                false => Vec::new(),
            };
            for session in open {
                self.close(id, session)?;
            }
        }
        self.run_for(CLOSING)?;
        self.check_done()?;
        self.check_reports()?;
        self.run_for(FORGOTTEN)?;
        let mut living = 0;
        for app in self.apps.iter().filter(|app| app.is_alive) {
            living += 1;
            let (count, deadline) = (app.endpoint.session_count(), app.endpoint.next_deadline());
            if app.sessions.values().any(|view| view.is_open) {
                return Err(format!("{} has a session open", app.label));
            }
            if count > 0 || deadline.is_some() {
                let label = &app.label;
                return Err(format!("{label} keeps {count} sessions, deadline {deadline:?}"));
            }
        }
        match self.node.subscriptions() {
            count if count == living => Ok(()),
            count => Err(format!("{count} subscriptions of {living} processes are left")),
        }
    }
}
