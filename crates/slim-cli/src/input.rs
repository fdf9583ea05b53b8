//! What a line of input means. Pure.

use bytes::Bytes;

/// A line that ends the conversation, besides `/leave`.
const FAREWELLS: [&str; 2] = ["exit", "quit"];

/// What the commands do, for `/help`.
pub(crate) const HELP: [(&str, &str); 7] = [
    ("/invite NAME", "invite org/ns/app into the group"),
    ("/remove NAME", "remove a member from the group"),
    ("/who", "list the members"),
    ("/away", "stay in the group, but get no messages for a while"),
    ("/back", "be there again, and get what was said meanwhile"),
    ("/leave", "leave; also exit, quit, ctrl-d"),
    ("//text", "send /text"),
];

/// What to do about a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// An empty line.
    Nothing,
    /// Send these bytes.
    Publish(Bytes),
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
        Some(b'/') if line.get(1) == Some(&b'/') => Action::Publish(line.slice(1..)),
        Some(b'/') => command(&String::from_utf8_lossy(&line)),
        Some(_) if FAREWELLS.iter().any(|word| line.eq_ignore_ascii_case(word.as_bytes())) => {
            Action::Leave
        }
        Some(_) => Action::Publish(line),
    }
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
        Action::Publish(Bytes::from_static(payload))
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
    fn what_is_no_command_is_unknown() {
        for line in ["/", "/whom", "/WHO", "/leave now", "/ who"] {
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
            check(line.as_bytes(), &Action::Publish(Bytes::copy_from_slice(line.as_bytes())));
        }
    }
}
