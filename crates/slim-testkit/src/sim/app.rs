//! One process: an engine, and what its application knows.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use slim_proto::{Name, SessionId};
use slim_session::{Endpoint, Input, Now, RequestId, SessionInfo};

use super::ledger::PublicationId;
use super::network::LinkId;

/// Position of a process among all that ever ran.
pub(super) type AppId = usize;

/// A process. One that is started again is another.
#[derive(Debug)]
pub(super) struct App {
    /// Full name.
    pub(super) name: Name,
    /// Which readable name it has.
    pub(super) slot: usize,
    /// How the story calls it.
    pub(super) label: String,
    pub(super) endpoint: Endpoint,
    pub(super) is_alive: bool,
    /// What came while it was paused.
    pub(super) held: Option<VecDeque<Held>>,
    /// Its monotonic clock at the world's beginning.
    pub(super) origin: Duration,
    /// Its wall clock at the world's beginning.
    pub(super) unix: u64,
    /// The link as the client sees it.
    pub(super) link: Option<LinkId>,
    /// What its engine asked for, in its own time.
    pub(super) wanted: Option<Duration>,
    /// When it is to be called, in the world's time.
    pub(super) deadline: Option<Duration>,
    pub(super) sessions: BTreeMap<SessionId, View>,
    pub(super) pending: BTreeMap<RequestId, Asked>,
    /// The current second, and deadlines in it.
    pub(super) called: (u64, u32),
}

/// What a paused process finds when it goes on.
#[derive(Debug)]
pub(super) enum Held {
    Bytes(LinkId, Bytes),
    Input(Input),
}

/// A session as the application sees it.
#[derive(Debug)]
pub(super) struct View {
    pub(super) info: SessionInfo,
    pub(super) since: Duration,
    /// How often it joined, this time included.
    pub(super) times: u32,
    pub(super) is_open: bool,
    /// It asked to be away from it.
    pub(super) is_away: bool,
    /// It asked to close it.
    pub(super) is_closing: bool,
}

/// A command whose outcome is awaited.
#[derive(Debug)]
pub(super) enum Asked {
    CreateGroup,
    CreateP2p,
    Invite {
        session: SessionId,
    },
    Remove {
        session: SessionId,
        member: Option<AppId>,
        at: Duration,
    },
    Publish(PublicationId),
    State,
    /// A state that the world itself wants to see.
    Look,
    Flush,
    Presence,
    Close,
}

impl App {
    pub(super) fn now(&self, at: Duration) -> Now {
        Now { at: self.origin + at, unix: self.unix + at.as_secs() }
    }

    /// Whether it takes inputs now.
    pub(super) fn is_running(&self) -> bool {
        self.is_alive && self.held.is_none()
    }

    /// Sessions that the application may use.
    pub(super) fn open_sessions(&self) -> impl Iterator<Item = &View> {
        self.sessions.values().filter(|view| view.is_open && !view.is_closing)
    }

    pub(super) fn is_open(&self, session: SessionId) -> bool {
        self.sessions.get(&session).is_some_and(|view| view.is_open)
    }
}
