//! The terminal itself: what it can do, and leaving it as it was found.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::OnceLock;

use rustix::termios::{OptionalActions, QueueSelector, Termios, tcflush, tcgetattr, tcsetattr};

/// The mode that standard input was in before a prompt changed it.
static MODE: OnceLock<Termios> = OnceLock::new();

/// Ends what a prompt switches on: text that is pasted arrives marked as such.
const PASTE_OFF: &str = "\x1b[?2004l";

/// Which of the standard streams are terminals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Terminal {
    /// A person types.
    pub(crate) input: bool,
    /// A person reads.
    pub(crate) output: bool,
    /// A person reads the logs.
    pub(crate) logs: bool,
    /// It understands how to move the cursor.
    pub(crate) capable: bool,
    /// It shows colours, and they are wanted.
    pub(crate) colours: bool,
}

impl Terminal {
    /// Looks at the standard streams and at `TERM` and `NO_COLOR`.
    pub(crate) fn detect() -> Self {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let output = io::stdout().is_terminal();
        let capable = variable("TERM").is_some_and(|term| {
            !["dumb", "cons25", "emacs"]
                .iter()
                .any(|incapable| term.eq_ignore_ascii_case(incapable))
        });
        Self {
            input: io::stdin().is_terminal(),
            output,
            logs: io::stderr().is_terminal(),
            capable: capable && output,
            colours: capable && output && variable("NO_COLOR").is_none(),
        }
    }
}

/// Remembers the mode of the terminal and throws away what was typed so far.
pub(crate) fn begin() {
    if let Ok(mode) = tcgetattr(io::stdin()) {
        MODE.get_or_init(|| mode);
        // What was typed before anybody asked is not lost if this does not work.
        tcflush(io::stdin(), QueueSelector::IFlush).ok();
    }
}

/// Puts the terminal into the mode that [`begin`] found, if it was called.
pub(crate) fn restore() {
    if let Some(mode) = MODE.get() {
        // The process is ending: there is nobody left to tell about an error.
        tcsetattr(io::stdin(), OptionalActions::Now, mode).ok();
        let mut stdout = io::stdout();
        stdout.write_all(PASTE_OFF.as_bytes()).and_then(|()| stdout.flush()).ok();
    }
}
