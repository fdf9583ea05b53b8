//! What a line of input means. Pure.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::Deserialize;
use slim_proto::canonical;

/// A line that ends the conversation, besides `/leave`.
const FAREWELLS: [&str; 2] = ["exit", "quit"];

/// What the commands do, for `/help`.
pub(crate) const HELP: [(&str, &str); 9] = [
    ("/invite NAME", "invite org/ns/app into the group"),
    ("/remove NAME", "remove a member from the group"),
    ("/who", "list the members"),
    ("/away", "stay in the group, but get no messages for a while"),
    ("/back", "be there again, and get what was said meanwhile"),
    ("/leave", "leave; also exit, quit, ctrl-d"),
    ("/to NAME TEXT", "send TEXT to one member, and to nobody else"),
    ("/publish {JSON}", "send what \"payload\", \"payload_type\", \"metadata\" and \"to\" say"),
    ("//text", "send /text"),
];

/// What is to be published. What it leaves open is as the options say.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Spoken {
    /// The bytes.
    pub(crate) payload: Bytes,
    /// What they are.
    pub(crate) payload_type: Option<String>,
    /// The entries that go with them.
    pub(crate) metadata: Option<BTreeMap<String, String>>,
    /// For whom alone, which need not be a name.
    pub(crate) to: Option<String>,
}

impl Spoken {
    /// These bytes, for everybody.
    fn plain(payload: Bytes) -> Self {
        Self { payload, payload_type: None, metadata: None, to: None }
    }
}

/// Shows the length of the payload, never its content.
impl std::fmt::Debug for Spoken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spoken")
            .field("payload_len", &self.payload.len())
            .field("payload_type", &self.payload_type)
            .field("to", &self.to)
            .finish_non_exhaustive()
    }
}

/// What to do about a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// An empty line.
    Nothing,
    /// Send this.
    Publish(Spoken),
    /// Something was to be sent, but it is not said what: the reason.
    Unspoken(String),
    /// Invite whom this names, which need not be a name.
    Invite(String),
    /// Remove whom this names, which need not be a name.
    Remove(String),
    /// List the members.
    Who,
    /// Be back in the group (true), or away from it.
    SetPresence(bool),
    /// Leave once what was published has its outcome.
    Leave,
    /// List the commands.
    Help,
    /// No such command.
    Unknown(String),
}

/// Reads a line, with or without its line end.
pub(crate) fn action(line: Bytes) -> Action {
    let text =
        line.strip_suffix(b"\n").map_or(&line[..], |line| line.strip_suffix(b"\r").unwrap_or(line));
    let line = line.slice_ref(text);
    match line.first() {
        None => Action::Nothing,
        Some(b'/') if line.get(1) == Some(&b'/') => Action::Publish(Spoken::plain(line.slice(1..))),
        Some(b'/') => match argument(&line, b"/to") {
            Some(argument) => to(&line, argument),
            None => match argument(&line, b"/publish") {
                Some(argument) => spelled_out(argument),
                None => command(&String::from_utf8_lossy(&line)),
            },
        },
        Some(_) if FAREWELLS.iter().any(|word| line.eq_ignore_ascii_case(word.as_bytes())) => {
            Action::Leave
        }
        Some(_) => Action::Publish(Spoken::plain(line)),
    }
}

/// What follows this command, if it is this one.
fn argument<'a>(line: &'a [u8], command: &[u8]) -> Option<&'a [u8]> {
    let rest = line.strip_prefix(command)?;
    rest.first().is_none_or(u8::is_ascii_whitespace).then(|| rest.trim_ascii_start())
}

/// `/to NAME TEXT`: everything behind the blank after the name is the text.
fn to(line: &Bytes, argument: &[u8]) -> Action {
    let blank = argument.iter().position(u8::is_ascii_whitespace);
    match blank.map(|blank| (&argument[..blank], &argument[blank + 1..])) {
        Some((name, text)) if !text.is_empty() => Action::Publish(Spoken {
            to: Some(String::from_utf8_lossy(name).into_owned()),
            ..Spoken::plain(line.slice_ref(text))
        }),
        _ => Action::Unspoken("/to NAME TEXT: the text is missing".to_owned()),
    }
}

/// What `/publish` takes: the fields of a `message` event, and for whom it is.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SpelledOut {
    payload: Option<String>,
    payload_base64: Option<String>,
    payload_type: Option<String>,
    metadata: Option<BTreeMap<String, String>>,
    to: Option<String>,
}

fn spelled_out(argument: &[u8]) -> Action {
    let read = || -> Result<Spoken, String> {
        let SpelledOut { payload, payload_base64, payload_type, metadata, to } =
            serde_json::from_slice(argument).map_err(|error| expectation(&error.to_string()))?;
        let payload = match (payload, payload_base64) {
            (Some(text), None) => Bytes::from(text),
            (None, Some(text)) => {
                BASE64.decode(text).map_err(|error| format!("payload_base64: {error}"))?.into()
            }
            _ => return Err("expected either payload or payload_base64".to_owned()),
        };
        if let Some(key) = metadata.iter().flat_map(BTreeMap::keys).find_map(|key| unusable(key)) {
            return Err(format!("metadata: {key}"));
        }
        Ok(Spoken { payload, payload_type, metadata, to })
    };
    match read() {
        Ok(spoken) => Action::Publish(spoken),
        Err(reason) => Action::Unspoken(format!("/publish {{\"payload\": …}}: {reason}")),
    }
}

/// What was expected, without what was found, which may be a payload.
fn expectation(error: &str) -> String {
    match error.rsplit_once(", expected ") {
        Some((_, expected)) => format!("expected {expected}"),
        None => error.to_owned(),
    }
}

/// Why this cannot be the key of an entry of metadata, if it cannot.
pub(crate) fn unusable(key: &str) -> Option<String> {
    if key.is_empty() {
        return Some("a key is empty".to_owned());
    }
    canonical::is_reserved(key).then(|| format!("the key {key:?} is the protocol's own"))
}

fn command(line: &str) -> Action {
    let line = line.trim_end();
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let rest = rest.trim_start();
    match (word, rest) {
        ("/invite", name) => Action::Invite(name.to_owned()),
        ("/remove", name) => Action::Remove(name.to_owned()),
        ("/who", "") => Action::Who,
        ("/away", "") => Action::SetPresence(false),
        ("/back", "") => Action::SetPresence(true),
        ("/leave", "") => Action::Leave,
        ("/help", "") => Action::Help,
        _ => Action::Unknown(line.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &[u8], expected: &Action) {
        assert_eq!(&action(Bytes::copy_from_slice(line)), expected, "{}", line.escape_ascii());
    }

    fn publish(payload: &'static [u8]) -> Action {
        Action::Publish(Spoken::plain(Bytes::from_static(payload)))
    }

    fn unspoken(line: &str, expected: &str) {
        match action(Bytes::copy_from_slice(line.as_bytes())) {
            Action::Unspoken(reason) => assert!(reason.contains(expected), "{line}: {reason}"),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn a_line_is_published_as_it_is_without_its_end() {
        check(b"hello", &publish(b"hello"));
        check(b"hello\n", &publish(b"hello"));
        check(b"hello\r\n", &publish(b"hello"));
        check(b" hello \r\r\n", &publish(b" hello \r"));
        check(b"hello\r", &publish(b"hello\r"));
        check(b" \n", &publish(b" "));
        check(b" /who\n", &publish(b" /who"));
        check(b"\xff\xfe\0\n", &publish(b"\xff\xfe\0"));
    }

    #[test]
    fn empty_lines_are_nothing() {
        check(b"", &Action::Nothing);
        check(b"\n", &Action::Nothing);
        check(b"\r\n", &Action::Nothing);
    }

    #[test]
    fn two_slashes_publish_one() {
        check(b"//who\n", &publish(b"/who"));
        check(b"//\n", &publish(b"/"));
        check(b"///\n", &publish(b"//"));
    }

    #[test]
    fn commands_are_understood() {
        check(b"/invite a/b/c\n", &Action::Invite("a/b/c".to_owned()));
        check(b"/invite \t a/b/my bot \r\n", &Action::Invite("a/b/my bot".to_owned()));
        check(b"/invite\n", &Action::Invite(String::new()));
        check(b"/remove a/b/c", &Action::Remove("a/b/c".to_owned()));
        check(b"/who\n", &Action::Who);
        check(b"/who  \n", &Action::Who);
        check(b"/away\n", &Action::SetPresence(false));
        check(b"/back\n", &Action::SetPresence(true));
        check(b"/leave\n", &Action::Leave);
        check(b"/help\n", &Action::Help);
    }

    #[test]
    fn a_line_can_be_for_one_member() {
        let check = |line: &[u8], name: &str, text: &'static [u8]| {
            let spoken = Spoken::plain(Bytes::from_static(text));
            let expected = Action::Publish(Spoken { to: Some(name.to_owned()), ..spoken });
            check(line, &expected);
        };
        check(b"/to a/b/c hello you\r\n", "a/b/c", b"hello you");
        check(b"/to  a/b/c  two blanks", "a/b/c", b" two blanks");
        check(b"/to a/b/c \xff\n", "a/b/c", b"\xff");
        check(b"/to nobody /who", "nobody", b"/who");
        for line in ["/to", "/to ", "/to a/b/c", "/to a/b/c "] {
            unspoken(line, "the text is missing");
        }
    }

    #[test]
    fn a_message_can_be_spelled_out() {
        let spoken = |payload: &'static [u8]| Spoken::plain(Bytes::from_static(payload));
        let metadata = BTreeMap::from([("key".to_owned(), "value".to_owned())]);
        check(br#"/publish {"payload": ""}"#, &publish(b""));
        check(b"/publish {\"payload\": \"two\\nlines\"}\n", &publish(b"two\nlines"));
        check(br#"/publish {"payload_base64": "/wo="}"#, &publish(b"\xff\n"));
        check(
            br#"/publish {"payload": "{}", "payload_type": "application/json",
                "metadata": {"key": "value"}, "to": "a/b/c"}"#,
            &Action::Publish(Spoken {
                payload_type: Some("application/json".to_owned()),
                metadata: Some(metadata),
                to: Some("a/b/c".to_owned()),
                ..spoken(b"{}")
            }),
        );
    }

    #[test]
    fn what_is_not_spelled_out_well_is_told() {
        for (line, expected) in [
            ("/publish", "EOF"),
            ("/publish hello", "expected"),
            ("/publish {}", "either payload or payload_base64"),
            (r#"/publish {"payload": "a", "payload_base64": "YQ=="}"#, "either payload or"),
            (r#"/publish {"payload_base64": "Y"}"#, "payload_base64: "),
            (r#"/publish {"payload": 7}"#, "expected a string"),
            (r#"/publish {"payload": "a", "metadata": {"n": 7}}"#, "expected a string"),
            (r#"/publish {"payload": "a", "metadata": {"": "b"}}"#, "a key is empty"),
            (r#"/publish {"payload": "a", "metadata": {"PUBLISH_TO": "b"}}"#, "the protocol's own"),
            (r#"/publish {"payload": "a", "type": "text"}"#, "expected one of `payload`"),
        ] {
            unspoken(line, expected);
        }
        let line = r#"/publish {"payload": "a", "metadata": "not to be told"}"#;
        match action(Bytes::from(line)) {
            Action::Unspoken(reason) => assert!(!reason.contains("not to be told"), "{reason}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_no_command_is_unknown() {
        for line in ["/", "/whom", "/WHO", "/leave now", "/ who", "/tom", "/publishing {}"] {
            check(line.as_bytes(), &Action::Unknown(line.to_owned()));
        }
        check(b"/\xff", &Action::Unknown("/\u{fffd}".to_owned()));
    }

    #[test]
    fn exit_and_quit_leave_in_any_case() {
        for line in ["exit", "EXIT", "quit", "Quit\r\n"] {
            check(line.as_bytes(), &Action::Leave);
        }
        for line in ["exit ", " quit", "exit now"] {
            let payload = Bytes::copy_from_slice(line.as_bytes());
            check(line.as_bytes(), &Action::Publish(Spoken::plain(payload)));
        }
    }
}
