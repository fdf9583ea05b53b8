//! Events for people: short names, whole sentences, colours if wanted.
//!
//! What others send is shown with its control characters escaped, so that nobody
//! can paint on somebody else's terminal.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use owo_colors::{AnsiColors, OwoColorize as _, Style};
use slim_client::Name;
use time::OffsetDateTime;

use super::names::Names;
use super::{
    Change, Event, GroupRole, InviteOutcome, Member, Payload, Place, Reason, SessionStart,
};
use crate::doctor::{Outcome, Step};
use crate::top::view::table;

/// Characters of a line that was lost, to tell which one it was.
const EXCERPT: usize = 30;

/// Colours of senders.
const PALETTE: [AnsiColors; 6] = [
    AnsiColors::Cyan,
    AnsiColors::Green,
    AnsiColors::Yellow,
    AnsiColors::Magenta,
    AnsiColors::BrightBlue,
    AnsiColors::BrightRed,
];

/// What the process is for, where sentences differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `slim group`.
    Group,
    /// `slim p2p`.
    P2p,
}

/// Turns events into lines, remembering what was told already.
#[derive(Debug)]
pub(crate) struct Text {
    kind: Kind,
    colours: bool,
    names: Names,
    /// Our own name as others see it, once it is known.
    own: Option<Name>,
    moderator: bool,
    /// The other sides of the point-to-point sessions that are open.
    peers: BTreeMap<u32, Name>,
    /// Nobody is in, and that was told.
    alone_told: bool,
}

impl Text {
    /// For a process of this kind, with or without colours.
    pub(crate) fn new(kind: Kind, colours: bool) -> Self {
        Self {
            kind,
            colours,
            names: Names::default(),
            own: None,
            moderator: false,
            peers: BTreeMap::new(),
            alone_told: false,
        }
    }

    /// What to show, without a line end; `None` for what people need not be told.
    pub(crate) fn line(&mut self, event: &Event) -> Option<String> {
        match event {
            Event::Message { source, payload, to_me, .. } => {
                Some(self.message(source, payload, *to_me))
            }
            Event::Bench(report) => Some(report.text()),
            Event::Step(step) => Some(self.step(step)),
            Event::Top(sample) => Some(table(sample, OffsetDateTime::now_utc())),
            Event::Error { code, message, .. } => {
                let text = self.error(code, message);
                Some(self.paint(&text, Style::new().red()))
            }
            Event::Lost { members, payload, .. } => {
                let text =
                    format!("{} did not confirm \"{}\"", self.list(members), excerpt(payload));
                Some(self.paint(&text, Style::new().red()))
            }
            _ => {
                let text = self.notice(event)?;
                Some(self.note(&text))
            }
        }
    }

    /// A line about the conversation rather than of it.
    pub(crate) fn note(&self, text: &str) -> String {
        self.paint(text, Style::new().dimmed())
    }

    /// The prompt, plain and coloured.
    pub(crate) fn prompt(&self) -> (String, String) {
        let Some(own) = &self.own else { return Default::default() };
        let name = self.names.short(own);
        (format!("{name}> "), format!("{}> ", self.paint(&name, Style::new().bold())))
    }

    fn message(&mut self, source: &Name, payload: &Payload, to_me: bool) -> String {
        self.names.learn(source);
        let mut name = self.names.short(source);
        // In a call everything is.
        if to_me && self.kind == Kind::Group {
            name += " (to you)";
        }
        let colour = PALETTE[source.components()[2] as usize % PALETTE.len()];
        let name = self.paint(&name, Style::new().color(colour).bold());
        match str::from_utf8(&payload.0) {
            Ok(text) => {
                let lines: Vec<String> = text.lines().map(visible).collect();
                format!("{name}> {}", lines.join("\n  "))
            }
            Err(_) => format!("{name}> ({} bytes that are not text)", payload.0.len()),
        }
    }

    fn error(&mut self, code: &str, message: &str) -> String {
        if code != "alone" {
            return visible(message);
        }
        // Said once until somebody is in; later lines only need to be marked.
        if std::mem::replace(&mut self.alone_told, true) {
            "not sent".to_owned()
        } else {
            format!("not sent: {}", visible(message))
        }
    }

    fn notice(&mut self, event: &Event) -> Option<String> {
        let text = match event {
            Event::Connected { node, name } => {
                self.names.learn(name);
                self.own = Some(name.clone());
                format!("connected to {node} as {}", visible(&name.readable()))
            }
            Event::Disconnected { node, reason } => {
                format!("node {node} is lost, trying again ({})", visible(reason))
            }
            Event::Reconnected { node, .. } => format!("node {node} is back"),
            Event::Waiting => match self.kind {
                Kind::Group => "waiting to be invited, ctrl-c to stop".to_owned(),
                Kind::P2p => "waiting to be called, ctrl-c to stop".to_owned(),
            },
            Event::Session(start) => self.session(start),
            Event::Invite { asked: false, .. } => return None,
            Event::Invite { name, outcome, reason, .. } => {
                let name = self.given(name);
                match outcome {
                    InviteOutcome::Joined => {
                        self.alone_told = false;
                        format!("{name} joined")
                    }
                    InviteOutcome::NoAnswer | InviteOutcome::Refused => {
                        format!("{name} did not join: {}", visible(reason))
                    }
                }
            }
            Event::Participant { name, change, .. } => return self.participant(name, *change),
            Event::Missed { source, count, .. } => {
                let messages = if *count == 1 { "message" } else { "messages" };
                format!("{count} {messages} of {} could not be had", self.names.short(source))
            }
            Event::Who { members, encryption, .. } => {
                let mut text = format!("in it: {}", self.members(members));
                if let (Some(suite), Some(epoch)) = (encryption.mls_suite, encryption.epoch) {
                    let _ = write!(text, "; encrypted with {suite}, epoch {epoch}");
                }
                text
            }
            Event::Presence { online: true, .. } => "you are back".to_owned(),
            Event::Presence { online: false, .. } => "you are away, until /back".to_owned(),
            Event::Closed { session_id, reason } => self.closed(*session_id, *reason),
            Event::Help { commands } => {
                let width = commands.iter().map(|(command, _)| command.len()).max().unwrap_or(0);
                let lines: Vec<String> = commands
                    .iter()
                    .map(|(command, meaning)| format!("{command:width$}  {meaning}"))
                    .collect();
                lines.join("\n")
            }
            Event::Delivered { .. }
            | Event::Message { .. }
            | Event::Lost { .. }
            | Event::Joined { .. }
            | Event::Bench(_)
            | Event::Step(_)
            | Event::Top(_)
            | Event::Error { .. } => return None,
        };
        Some(text)
    }

    fn session(&mut self, start: &SessionStart) -> String {
        for member in &start.members {
            self.names.learn(&member.name);
        }
        let encryption = if start.mls {
            "end-to-end encrypted"
        } else {
            "not encrypted: the nodes on the way can read it"
        };
        match &start.place {
            Place::Group { channel, role: GroupRole::Moderator } => {
                self.moderator = true;
                format!("created group {}, {encryption}", visible(channel))
            }
            Place::Group { channel, role: GroupRole::Participant } => {
                let members = self.members(&start.members);
                format!("joined group {}, {encryption}\nin it: {members}", visible(channel))
            }
            Place::P2p { peer, .. } => {
                self.names.learn(peer);
                self.peers.insert(start.session_id, peer.clone());
                format!("talking to {}, {encryption}", self.names.short(peer))
            }
        }
    }

    fn participant(&mut self, name: &Name, change: Change) -> Option<String> {
        self.names.learn(name);
        let name = self.names.short(name);
        Some(match change {
            Change::Joined => {
                self.alone_told = false;
                // The moderator is told by the outcome of the invitation.
                if self.moderator {
                    return None;
                }
                format!("{name} joined")
            }
            Change::Left => format!("{name} left"),
            Change::Removed => format!("{name} was removed"),
            Change::Online => {
                self.alone_told = false;
                format!("{name} answers again")
            }
            Change::Offline => format!("{name} is not answering"),
        })
    }

    fn closed(&mut self, session_id: u32, reason: Reason) -> String {
        if let Some(peer) = self.peers.remove(&session_id) {
            let peer = self.names.short(&peer);
            return match reason {
                Reason::Left => format!("you ended the conversation with {peer}"),
                Reason::NodeLost => {
                    format!("the conversation with {peer} did not survive the lost node")
                }
                Reason::PeerLeft | Reason::Removed | Reason::ModeratorClosed => {
                    format!("{peer} ended the conversation")
                }
            };
        }
        let text = match reason {
            Reason::Left if self.moderator => "you closed the group",
            Reason::Left => "you left the group",
            Reason::Removed => "the moderator removed you from the group",
            Reason::ModeratorClosed | Reason::PeerLeft => "the moderator closed the group",
            Reason::NodeLost => "the group did not survive the lost node",
        };
        text.to_owned()
    }

    fn members(&self, members: &[Member]) -> String {
        let mut names: Vec<String> = members
            .iter()
            .map(|member| {
                let name = self.names.short(&member.name);
                match member {
                    Member { is_self: true, .. } => format!("{name} (you)"),
                    Member { online: false, .. } => format!("{name} (not answering)"),
                    _ => name,
                }
            })
            .collect();
        names.sort();
        names.join(", ")
    }

    fn list(&self, names: &[Name]) -> String {
        let mut names: Vec<String> = names.iter().map(|name| self.names.short(name)).collect();
        names.sort();
        names.join(", ")
    }

    /// A name as a person gave it.
    fn given(&mut self, name: &str) -> String {
        match name.parse() {
            Ok(name) => {
                self.names.learn(&name);
                self.names.short(&name)
            }
            Err(_) => visible(name),
        }
    }

    fn step(&self, step: &Step) -> String {
        let (word, style) = match step.outcome {
            Outcome::Ok => ("ok", Style::new().green()),
            Outcome::Unclear => ("?", Style::new().yellow()),
            Outcome::Failed => ("FAILED", Style::new().red().bold()),
        };
        let mut line = format!("{}  {}", self.paint(&format!("{word:<6}"), style), step.message);
        if let Some(advice) = &step.advice {
            line.push_str(&format!("\n        {}", self.paint(advice, Style::new().italic())));
        }
        line
    }

    fn paint(&self, text: &str, style: Style) -> String {
        if self.colours { text.style(style).to_string() } else { text.to_owned() }
    }
}

/// The text with everything escaped that would not be shown as a character of its
/// own: control characters, and those that change the direction of writing.
pub(crate) fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        let turns = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if (c.is_control() && c != '\t') || turns {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    shown
}

fn excerpt(payload: &Payload) -> String {
    let text = String::from_utf8_lossy(&payload.0);
    let mut excerpt: String = text.chars().take(EXCERPT).collect();
    if excerpt.len() < text.len() {
        excerpt.push('…');
    }
    visible(&excerpt)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;

    use super::super::{Encryption, P2pRole};
    use super::*;

    const ID: &str = "ee23cd86-c165-f549-3bcd-cd4cde967fbd";

    fn name(app: &str) -> Name {
        format!("a/b/{app}/{ID}").parse().unwrap()
    }

    /// What a process without colours shows for these events in turn.
    fn check(kind: Kind, events: &[(Event, Option<&str>)]) {
        let mut text = Text::new(kind, false);
        for (event, expected) in events {
            assert_eq!(text.line(event).as_deref(), *expected, "{event:?}");
        }
    }

    fn message(source: &str, payload: &'static [u8]) -> Event {
        said(source, payload, false)
    }

    fn said(source: &str, payload: &'static [u8], to_me: bool) -> Event {
        Event::Message {
            session_id: 7,
            source: name(source),
            payload: Payload(Bytes::from_static(payload)),
            payload_type: "msg".to_owned(),
            metadata: BTreeMap::new(),
            to_me,
        }
    }

    fn group(role: GroupRole, mls: bool, members: Vec<Member>) -> Event {
        Event::Session(SessionStart {
            session_id: 7,
            place: Place::Group { channel: "a/b/chat".to_owned(), role },
            mls,
            encryption: Encryption::default(),
            members,
        })
    }

    fn member(app: &str, online: bool, is_self: bool) -> Member {
        Member { name: name(app), online, is_self }
    }

    fn participant(app: &str, change: Change) -> Event {
        Event::Participant { session_id: 7, name: name(app), change }
    }

    fn invite(app: &str, outcome: InviteOutcome, reason: &str) -> Event {
        Event::Invite {
            session_id: 7,
            name: format!("a/b/{app}"),
            outcome,
            reason: reason.to_owned(),
            asked: true,
        }
    }

    fn alone() -> Event {
        Event::Error {
            code: "alone",
            message: "nobody else is in the group yet".to_owned(),
            session_id: Some(7),
        }
    }

    #[test]
    fn a_participant_is_told_who_is_in_and_whether_it_is_encrypted() {
        let members = vec![member("moderator", true, false), member("client-1", true, true)];
        check(
            Kind::Group,
            &[
                (
                    Event::Connected { node: "http://n:1".to_owned(), name: name("client-1") },
                    Some("connected to http://n:1 as a/b/client-1"),
                ),
                (Event::Waiting, Some("waiting to be invited, ctrl-c to stop")),
                (
                    group(GroupRole::Participant, true, members),
                    Some(
                        "joined group a/b/chat, end-to-end encrypted\n\
                         in it: client-1 (you), moderator",
                    ),
                ),
                (participant("client-2", Change::Joined), Some("client-2 joined")),
                (message("moderator", b"hello"), Some("moderator> hello")),
                (participant("client-2", Change::Offline), Some("client-2 is not answering")),
                (participant("client-2", Change::Online), Some("client-2 answers again")),
                (participant("client-2", Change::Left), Some("client-2 left")),
                (
                    Event::Closed { session_id: 7, reason: Reason::ModeratorClosed },
                    Some("the moderator closed the group"),
                ),
            ],
        );
    }

    #[test]
    fn a_moderator_is_told_what_became_of_each_invitation_once() {
        check(
            Kind::Group,
            &[
                (
                    group(GroupRole::Moderator, false, vec![]),
                    Some("created group a/b/chat, not encrypted: the nodes on the way can read it"),
                ),
                (participant("client-1", Change::Joined), None),
                (invite("client-1", InviteOutcome::Joined, "joined"), Some("client-1 joined")),
                (
                    invite("client-2", InviteOutcome::NoAnswer, "no answer after 30 s"),
                    Some("client-2 did not join: no answer after 30 s"),
                ),
                (participant("client-1", Change::Removed), Some("client-1 was removed")),
                (
                    Event::Closed { session_id: 7, reason: Reason::Left },
                    Some("you closed the group"),
                ),
            ],
        );
    }

    #[test]
    fn that_nobody_is_in_is_explained_once_until_somebody_joins() {
        let first = Some("not sent: nobody else is in the group yet");
        check(
            Kind::Group,
            &[
                (alone(), first),
                (alone(), Some("not sent")),
                (participant("client-1", Change::Joined), Some("client-1 joined")),
                (alone(), first),
            ],
        );
    }

    #[test]
    fn point_to_point_names_the_other_side() {
        let start = Event::Session(SessionStart {
            session_id: 7,
            place: Place::P2p { peer: name("bob"), role: P2pRole::Caller },
            mls: true,
            encryption: Encryption::default(),
            members: vec![],
        });
        check(
            Kind::P2p,
            &[
                (Event::Waiting, Some("waiting to be called, ctrl-c to stop")),
                (start, Some("talking to bob, end-to-end encrypted")),
                (
                    Event::Closed { session_id: 7, reason: Reason::PeerLeft },
                    Some("bob ended the conversation"),
                ),
            ],
        );
    }

    #[test]
    fn nobody_paints_on_the_terminal_of_others() {
        check(
            Kind::Group,
            &[
                (message("c", b"\x1b[2J\x07\tx"), Some("c> \\u{1b}[2J\\u{7}\tx")),
                (message("c", "\u{202e}abc".as_bytes()), Some("c> \\u{202e}abc")),
                (message("c", b"one\nd> two\r\n"), Some("c> one\n  d> two")),
                (message("c", b"\xff\xfe"), Some("c> (2 bytes that are not text)")),
            ],
        );
    }

    #[test]
    fn what_is_said_to_us_alone_is_marked_in_a_group() {
        check(Kind::Group, &[(said("c", b"psst", true), Some("c (to you)> psst"))]);
        check(Kind::P2p, &[(said("c", b"hello", true), Some("c> hello"))]);
    }

    #[test]
    fn lost_lines_are_shown_in_part() {
        let lost = |payload| Event::Lost {
            session_id: 7,
            line: 0,
            members: vec![name("d"), name("c")],
            payload: Payload(Bytes::from_static(payload)),
        };
        check(
            Kind::Group,
            &[
                (
                    lost(b"short"),
                    Some(
                        "a/b/c/ee23cd86-c165-f549-3bcd-cd4cde967fbd, \
                          a/b/d/ee23cd86-c165-f549-3bcd-cd4cde967fbd did not confirm \"short\"",
                    ),
                ),
                (participant("c", Change::Online), Some("c answers again")),
                (participant("d", Change::Online), Some("d answers again")),
                (
                    lost(b"0123456789012345678901234567890123456789"),
                    Some("c, d did not confirm \"012345678901234567890123456789…\""),
                ),
            ],
        );
    }

    #[test]
    fn who_lists_everybody_and_the_encryption() {
        let members = vec![member("c", true, true), member("d", false, false)];
        let mut text = Text::new(Kind::Group, false);
        text.line(&group(GroupRole::Participant, true, members.clone()));
        let encryption = Encryption { mls_suite: Some("SUITE"), epoch: Some(2) };
        let who = Event::Who { session_id: 7, members, encryption };
        assert_eq!(
            text.line(&who).unwrap(),
            "in it: c (you), d (not answering); encrypted with SUITE, epoch 2"
        );
    }

    #[test]
    fn colours_appear_only_if_wanted() {
        let mut text = Text::new(Kind::Group, true);
        let line = text.line(&message("c", b"hello")).unwrap();
        assert!(line.contains("\x1b[") && line.ends_with("> hello"), "{line:?}");
        text.line(&Event::Connected { node: "n".to_owned(), name: name("c") });
        let (plain, coloured) = text.prompt();
        assert_eq!(plain, "c> ");
        assert!(coloured.contains("\x1b["), "{coloured:?}");
    }
}
