//! What the commands tell: events, and the thread that writes them.
//!
//! An [`Event`] is turned into a line by [`json`] for programs or by [`text`] for
//! people; both are pure. [`Output`] owns the thread that writes the lines, to
//! standard output or above the prompt of a terminal.

pub(crate) mod json;
mod names;
pub(crate) mod text;
mod writer;

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::{Serialize, Serializer};
use slim_client::Name;

use crate::bench::Report;
use crate::doctor::Step;
use crate::top::Sample;

pub(crate) use writer::{LastWords, Output};

/// Something to tell. Serializes as the JSON event without its time.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Event {
    /// There is a link, and our name is subscribed.
    Connected {
        /// Of the node.
        node: String,
        /// Own, with id.
        #[serde(serialize_with = "full")]
        name: Name,
    },
    /// The link is lost and tried again.
    Disconnected {
        /// Of the node.
        node: String,
        /// Why.
        reason: String,
    },
    /// The link is back.
    Reconnected {
        /// Of the node.
        node: String,
        /// What happened.
        reason: String,
    },
    /// An invitation or a call sent from now on arrives.
    Waiting,
    /// We are in a session.
    Session(SessionStart),
    /// What became of an invitation.
    Invite {
        /// Of the group.
        session_id: u32,
        /// As it was given.
        name: String,
        /// Whether it joined.
        outcome: InviteOutcome,
        /// In words.
        reason: String,
        /// False if it was refused here, which an error tells.
        #[serde(skip)]
        asked: bool,
    },
    /// What became of another member.
    Participant {
        /// Of the session.
        session_id: u32,
        /// Who.
        #[serde(serialize_with = "full")]
        name: Name,
        /// What.
        change: Change,
    },
    /// Data came.
    Message {
        /// Of the session.
        session_id: u32,
        /// Who sent it.
        #[serde(serialize_with = "full")]
        source: Name,
        /// What it sent.
        #[serde(flatten)]
        payload: Payload,
        /// What that is.
        payload_type: String,
        /// The sender's entries.
        metadata: std::collections::BTreeMap<String, String>,
        /// It was sent to us alone.
        to_me: bool,
    },
    /// Messages of a member could not be had any more.
    Missed {
        /// Of the session.
        session_id: u32,
        /// Whose.
        #[serde(serialize_with = "full")]
        source: Name,
        /// How many.
        count: u32,
    },
    /// Everyone who was to get a line did.
    Delivered {
        /// Of the session.
        session_id: u32,
        /// Its number among the published lines.
        line: u64,
        /// Who acknowledged it.
        #[serde(serialize_with = "full_list")]
        members: Vec<Name>,
    },
    /// Somebody who was to get a line did not acknowledge it.
    Lost {
        /// Of the session.
        session_id: u32,
        /// Its number among the published lines.
        line: u64,
        /// Who did not acknowledge it.
        #[serde(serialize_with = "full_list")]
        members: Vec<Name>,
        /// The line, to tell people which one it was.
        #[serde(skip)]
        payload: Payload,
    },
    /// Who is in, ourselves included.
    Who {
        /// Of the session.
        session_id: u32,
        /// Everybody.
        members: Vec<Member>,
        /// Cipher suite and epoch.
        #[serde(flatten)]
        encryption: Encryption,
    },
    /// We are away from the session, or back.
    Presence {
        /// Of the session.
        session_id: u32,
        /// Whether we are back.
        online: bool,
    },
    /// The session is over.
    Closed {
        /// Of the session.
        session_id: u32,
        /// Why.
        reason: Reason,
    },
    /// Something did not work.
    Error {
        /// Stable, snake_case.
        code: &'static str,
        /// In words.
        message: String,
        /// The session, if it is about one.
        #[serde(skip_serializing_if = "Option::is_none")]
        session_id: Option<u32>,
    },
    /// Everybody whose messages are to be measured is in.
    Joined {
        /// The moderator included.
        clients: usize,
        /// From the first invitation on.
        join_seconds: f64,
    },
    /// Something was measured.
    Bench(Box<Report>),
    /// Something was looked at that may keep one name from reaching another.
    Step(Step),
    /// A node was looked at.
    Top(Box<Sample>),
    /// The commands.
    Help {
        /// What can be typed, and what it does.
        commands: Vec<(&'static str, &'static str)>,
    },
}

/// How a session begins.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct SessionStart {
    /// Its number.
    pub(crate) session_id: u32,
    /// What it is and who we are in it.
    #[serde(flatten)]
    pub(crate) place: Place,
    /// Whether it is encrypted end to end.
    pub(crate) mls: bool,
    /// Cipher suite and epoch.
    #[serde(flatten)]
    pub(crate) encryption: Encryption,
    /// Who is in, for people; programs get `participant` and `who`.
    #[serde(skip)]
    pub(crate) members: Vec<Member>,
}

/// What a session is, and who we are in it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Place {
    /// A group.
    Group {
        /// Without its id.
        channel: String,
        /// Ours.
        role: GroupRole,
    },
    /// Two of us.
    P2p {
        /// The other one.
        #[serde(serialize_with = "full")]
        peer: Name,
        /// Ours.
        role: P2pRole,
    },
}

/// Who we are in a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum GroupRole {
    /// Created it.
    Moderator,
    /// Was invited.
    Participant,
}

/// Who we are in a point-to-point session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum P2pRole {
    /// Opened it.
    Caller,
    /// Was called.
    Listener,
}

/// Where a session's encryption stands, if that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Encryption {
    /// Name of the cipher suite.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mls_suite: Option<&'static str>,
    /// Counts the changes of membership.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) epoch: Option<u64>,
}

/// One member of a session.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Member {
    /// Full name.
    #[serde(serialize_with = "full")]
    pub(crate) name: Name,
    /// Whether it answers.
    pub(crate) online: bool,
    /// Whether it is us.
    #[serde(skip)]
    pub(crate) is_self: bool,
}

/// What became of an invitation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum InviteOutcome {
    /// It is in and gets everything from now on.
    Joined,
    /// Nobody answered.
    NoAnswer,
    /// It cannot or may not join.
    Refused,
}

/// What became of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Change {
    /// It is in.
    Joined,
    /// It is out.
    Left,
    /// The moderator removed it, as only the moderator knows.
    Removed,
    /// It answers again.
    Online,
    /// It does not answer.
    Offline,
}

/// Why a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reason {
    /// By us.
    Left,
    /// The moderator removed us.
    Removed,
    /// The moderator closed the group.
    ModeratorClosed,
    /// The other one of a point-to-point session ended it.
    PeerLeft,
    /// It did not survive a lost link.
    NodeLost,
}

/// The bytes of a message.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Payload(pub(crate) Bytes);

/// Shows the length only.
impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.0.len())
    }
}

/// As `payload`, or as `payload_base64` if it is not UTF-8.
impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap as _;
        let mut map = serializer.serialize_map(Some(1))?;
        match str::from_utf8(&self.0) {
            Ok(text) => map.serialize_entry("payload", text)?,
            Err(_) => map.serialize_entry("payload_base64", &BASE64.encode(&self.0))?,
        }
        map.end()
    }
}

fn full<S: Serializer>(name: &Name, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(name)
}

fn full_list<S: Serializer>(names: &[Name], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(names.iter().map(ToString::to_string))
}
