//! The terminal itself: what it can do, and leaving it as it was found.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::termios::{
    LocalModes, OptionalActions, QueueSelector, SpecialCodeIndex, Termios, tcflush, tcgetattr,
    tcsetattr,
};

/// The mode that standard input was in before a prompt changed it.
static MODE: OnceLock<Termios> = OnceLock::new();

/// Ends what a prompt switches on: text that is pasted arrives marked as such.
const PASTE_OFF: &str = "\x1b[?2004l";

/// Another screen than the one with what was written before, and no cursor; and back.
const SCREEN_ON: &str = "\x1b[?1049h\x1b[?25l";
const SCREEN_OFF: &str = "\x1b[?25h\x1b[?1049l";

/// POSIX `_POSIX_VDISABLE`: no character has this function.
const DISABLED: u8 = 0;

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

/// Whether the whole screen is ours.
static SCREEN: AtomicBool = AtomicBool::new(false);

/// Takes the whole screen, behind which the other one stays as it is, without a cursor;
/// keys come one by one and are not shown. [`restore`] gives it back. ctrl-c is a signal,
/// as ever; ctrl-z is not, since nobody would give the screen back for that time.
///
/// # Errors
/// If standard input is no terminal.
pub(crate) fn take_screen() -> io::Result<()> {
    let mut mode = tcgetattr(io::stdin())?;
    MODE.get_or_init(|| mode.clone());
    mode.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
    mode.special_codes[SpecialCodeIndex::VSUSP] = DISABLED;
    mode.special_codes[SpecialCodeIndex::VMIN] = 1;
    mode.special_codes[SpecialCodeIndex::VTIME] = 0;
    tcsetattr(io::stdin(), OptionalActions::Now, &mode)?;
    SCREEN.store(true, Ordering::SeqCst);
    let mut stdout = io::stdout();
    stdout.write_all(SCREEN_ON.as_bytes()).and_then(|()| stdout.flush())
}

/// Puts the terminal into the mode that [`begin`] or [`take_screen`] found, if one of them
/// was called.
pub(crate) fn restore() {
    if SCREEN.swap(false, Ordering::SeqCst) {
        let mut stdout = io::stdout();
        stdout.write_all(SCREEN_OFF.as_bytes()).and_then(|()| stdout.flush()).ok();
    }
    if let Some(mode) = MODE.get() {
        // The process is ending: there is nobody left to tell about an error.
        tcsetattr(io::stdin(), OptionalActions::Now, mode).ok();
        let mut stdout = io::stdout();
        stdout.write_all(PASTE_OFF.as_bytes()).and_then(|()| stdout.flush()).ok();
    }
}
