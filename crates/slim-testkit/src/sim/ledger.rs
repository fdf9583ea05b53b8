//! What was published, what arrived, and whether that fits.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use slim_proto::{RouteName, SessionId};
use slim_session::{DeliveryReport, PublishError};

use super::app::AppId;

/// Number of a publish in this world; also its payload.
pub(super) type PublicationId = usize;

/// A publish that an application asked for.
#[derive(Debug)]
pub(super) struct Publication {
    pub(super) from: AppId,
    pub(super) session: SessionId,
    /// The one that it is for, if not for all.
    pub(super) to: Option<AppId>,
    pub(super) at: Duration,
    /// Whom the application saw in the session.
    pub(super) expected: BTreeSet<RouteName>,
    pub(super) is_accepted: bool,
    pub(super) outcome: Option<Result<DeliveryReport, PublishError>>,
}

/// In what order, and how often, messages reach an application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Promised {
    /// Once, and those of a sender in order.
    Always,
    /// So since both were together in the session.
    SinceJoined,
    /// Anyhow.
    Nothing,
}

/// What one application got from another in one session.
#[derive(Debug, Default)]
pub(super) struct Received {
    /// Messages to all, in order; a new list when the sender or the receiver
    /// joined (again).
    streams: Vec<Vec<PublicationId>>,
    direct: BTreeSet<PublicationId>,
    /// Those of before the receiver joined again.
    old_direct: BTreeSet<PublicationId>,
    /// When the receiver last saw the sender join.
    seen_at: Duration,
    lost: u64,
}

impl Received {
    fn has(&self, id: PublicationId) -> bool {
        self.direct.contains(&id)
            || self.old_direct.contains(&id)
            || self.streams.iter().any(|stream| stream.contains(&id))
    }

    /// Whether a message lies between the end of a stream and the first arrival
    /// of the next.
    fn is_before_first(&self, id: PublicationId) -> bool {
        let after = self.streams.iter().position(|stream| stream.first().is_some_and(|f| *f > id));
        after.is_some_and(|after| {
            self.streams[..after].iter().all(|stream| stream.last().is_none_or(|l| *l < id))
        })
    }
}

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) publications: Vec<Publication>,
    /// By receiver, session and sender.
    received: BTreeMap<(AppId, SessionId, AppId), Received>,
    /// Who was removed, by whom, and how much had been published then.
    removed: BTreeMap<(AppId, SessionId), (AppId, PublicationId)>,
    /// See [`Received::is_before_first`].
    pub(super) before_first: u64,
}

impl Ledger {
    /// The receiver has the session from now on.
    pub(super) fn joined(&mut self, to: AppId, session: SessionId) {
        self.removed.remove(&(to, session));
        for ((app, id, _), received) in &mut self.received {
            if (*app, *id) == (to, session) {
                received.streams.push(Vec::new());
                received.old_direct.append(&mut received.direct);
            }
        }
    }

    /// The receiver saw the sender come.
    pub(super) fn saw_join(&mut self, to: AppId, session: SessionId, from: AppId, at: Duration) {
        let received = self.received.entry((to, session, from)).or_default();
        received.seen_at = at;
        received.streams.push(Vec::new());
    }

    /// When the receiver last saw the sender join.
    pub(super) fn seen_at(&self, to: AppId, session: SessionId, from: AppId) -> Duration {
        self.received.get(&(to, session, from)).map_or(Duration::ZERO, |it| it.seen_at)
    }

    pub(super) fn removed(&mut self, member: AppId, session: SessionId, by: AppId) {
        self.removed.insert((member, session), (by, self.publications.len()));
    }

    /// A message reached an application.
    pub(super) fn deliver(
        &mut self,
        to: AppId,
        session: SessionId,
        from: AppId,
        id: PublicationId,
        promised: Promised,
    ) -> Result<(), String> {
        let Some(publication) = self.publications.get(id) else {
            return Err(format!("message {id} was never published"));
        };
        if publication.session != session || publication.from != from {
            return Err(format!("message {id} comes from elsewhere"));
        }
        if publication.to.is_some_and(|member| member != to) {
            return Err(format!("message {id} is for somebody else"));
        }
        if let Some((by, count)) = self.removed.get(&(to, session))
            && from == *by
            && id >= *count
        {
            return Err(format!("message {id} was published after its receiver was removed"));
        }
        let received = self.received.entry((to, session, from)).or_default();
        if received.streams.is_empty() {
            received.streams.push(Vec::new());
        }
        let known = match promised {
            Promised::Always => &received.streams[..],
            Promised::SinceJoined => &received.streams[received.streams.len() - 1..],
            Promised::Nothing => &[],
        };
        let is_known_direct = match promised {
            Promised::Always => received.direct.contains(&id) || received.old_direct.contains(&id),
            Promised::SinceJoined => received.direct.contains(&id),
            Promised::Nothing => false,
        };
        if is_known_direct || known.iter().any(|stream| stream.contains(&id)) {
            return Err(format!("message {id} was delivered twice"));
        }
        if publication.to.is_some() {
            received.direct.insert(id);
            return Ok(());
        }
        if let Some(latest) = known.iter().flatten().max().filter(|latest| **latest > id) {
            return Err(format!("message {id} was delivered after {latest}"));
        }
        received.streams.last_mut().expect("not empty").push(id);
        Ok(())
    }

    /// An application was told that messages of a sender are lost.
    pub(super) fn lost(&mut self, to: AppId, session: SessionId, from: AppId, count: u32) {
        self.received.entry((to, session, from)).or_default().lost += u64::from(count);
    }

    /// Messages that were accepted and have no outcome yet.
    pub(super) fn open(&self, from: AppId, session: SessionId) -> usize {
        self.publications
            .iter()
            .filter(|publication| publication.from == from && publication.session == session)
            .filter(|publication| publication.is_accepted && publication.outcome.is_none())
            .count()
    }

    /// How many of a sender's messages an application was told to be lost.
    pub(super) fn told_lost(&self, to: AppId, session: SessionId, from: AppId) -> u64 {
        self.received.get(&(to, session, from)).map_or(0, |received| received.lost)
    }

    pub(super) fn has(&self, to: AppId, id: PublicationId) -> bool {
        let publication = &self.publications[id];
        let key = (to, publication.session, publication.from);
        self.received.get(&key).is_some_and(|received| received.has(id))
    }

    /// Everybody that is reported to have a message has it, or was told that as
    /// many are lost. `exists` gives a living application of a name.
    pub(super) fn check_reports(
        &mut self,
        exists: impl Fn(&RouteName) -> Option<AppId>,
        is_p2p: bool,
    ) -> Result<(), String> {
        let nothing = Received::default();
        let mut missing: BTreeMap<(AppId, SessionId, AppId), Vec<PublicationId>> = BTreeMap::new();
        self.before_first = 0;
        for (id, publication) in self.publications.iter().enumerate() {
            let Some(Ok(report)) = &publication.outcome else { continue };
            for name in &report.delivered {
                let Some(to) = exists(&name.route()) else { continue };
                let key = (to, publication.session, publication.from);
                let received = self.received.get(&key).unwrap_or(&nothing);
                if received.has(id) {
                    continue;
                }
                if publication.to.is_some() && !is_p2p {
                    return Err(format!("message {id} is reported as delivered to {name}"));
                }
                if !is_p2p && received.is_before_first(id) {
                    self.before_first += 1;
                    continue;
                }
                missing.entry(key).or_default().push(id);
            }
        }
        for (key, ids) in missing {
            let told = self.told_lost(key.0, key.1, key.2);
            if (ids.len() as u64) > told {
                return Err(format!(
                    "messages {ids:?} are reported as delivered to application {}, which was told of {told} losses",
                    key.0
                ));
            }
        }
        Ok(())
    }
}
