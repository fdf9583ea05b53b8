//! Programs that are started, read line by line, and ended.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{self, ChildStdin, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};

use anyhow::Context;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

/// Lines of stderr that are kept for the case that something goes wrong.
const STDERR_TAIL: usize = 20;

/// What a child does, seen from outside.
#[derive(Debug)]
pub(crate) enum Output {
    /// A line on stdout.
    Line(String),
    /// It has ended; [`Child::end`] returns at once.
    Ended,
}

/// A running program. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Child {
    process: process::Child,
    stdin: Option<ChildStdin>,
    /// The last lines of stderr, once it is closed.
    stderr: Option<JoinHandle<Vec<String>>>,
}

impl Child {
    /// Starts a program and hands what it does to `sink`, from another thread.
    ///
    /// # Errors
    /// If it cannot be started.
    pub(crate) fn start(
        command: &mut Command,
        sink: impl Fn(Output) + Send + 'static,
    ) -> anyhow::Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self::watch(command, sink)
    }

    /// As [`Self::start`], but all of its stderr goes to a file.
    ///
    /// # Errors
    /// If it cannot be started.
    pub(crate) fn start_logged(
        command: &mut Command,
        log: File,
        sink: impl Fn(Output) + Send + 'static,
    ) -> anyhow::Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        Self::watch(command, sink)
    }

    /// Starts a program that has the terminal to itself.
    ///
    /// # Errors
    /// If it cannot be started.
    pub(crate) fn start_on_terminal(
        command: &mut Command,
        sink: impl Fn(Output) + Send + 'static,
    ) -> anyhow::Result<Self> {
        Self::watch(command, sink)
    }

    fn watch(
        command: &mut Command,
        sink: impl Fn(Output) + Send + 'static,
    ) -> anyhow::Result<Self> {
        let mut process = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        let pid = pid(&process);
        let stdout = process.stdout.take();
        let stderr = process.stderr.take();
        let stdin = process.stdin.take();
        thread::spawn(move || {
            if let Some(stdout) = stdout {
                for_each_line(stdout, |line| sink(Output::Line(line)));
            }
            // Without reaping it, so that its id stays its own until `end`. An
            // error means that it was reaped already: then nobody listens.
            let wait = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            waitid(WaitId::Pid(pid), wait).ok();
            sink(Output::Ended);
        });
        let stderr = stderr.map(|stderr| thread::spawn(move || tail(stderr)));
        Ok(Self { process, stdin, stderr })
    }

    /// The number of its process.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Writes a line to its stdin.
    ///
    /// # Errors
    /// If it no longer reads.
    pub(crate) fn write_line(&mut self, line: &str) -> anyhow::Result<()> {
        let stdin = self.stdin.as_mut().context("stdin is closed")?;
        writeln!(stdin, "{line}").and_then(|()| stdin.flush()).context("writing to its stdin")
    }

    /// Closes its stdin: the end of the input.
    pub(crate) fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Its stdin, to be written to by somebody who may be kept waiting.
    pub(crate) fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.stdin.take()
    }

    /// Asks it to end.
    pub(crate) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Has it end at once.
    pub(crate) fn kill(&self) {
        self.signal(Signal::KILL);
    }

    /// Stops it, as a debugger would. Returns when it stands still or has ended: the
    /// kernel sees to one of them.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
        let wait = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        // An error means that it has ended and was reaped.
        waitid(WaitId::Pid(pid(&self.process)), wait).ok();
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        // An error means that it has ended already.
        kill_process(pid(&self.process), signal).ok();
    }

    /// Its status and the last lines of its stderr. Kills it if it still runs:
    /// wait for [`Output::Ended`] first where it should end by itself.
    ///
    /// # Errors
    /// If the system does not tell.
    pub(crate) fn end(&mut self) -> anyhow::Result<(ExitStatus, Vec<String>)> {
        self.stdin = None;
        let status = match self.process.try_wait().context("asking for the exit status")? {
            Some(status) => status,
            None => {
                self.process.kill().context("killing it")?;
                self.process.wait().context("waiting for it")?
            }
        };
        let stderr = self.stderr.take().and_then(|tail| tail.join().ok()).unwrap_or_default();
        Ok((status, stderr))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may have ended and been reaped already, which is all we want.
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

fn pid(process: &process::Child) -> Pid {
    Pid::from_child(process)
}

fn for_each_line(stream: impl Read, mut each: impl FnMut(String)) {
    for line in BufReader::new(stream).split(b'\n') {
        // A pipe that cannot be read any more is as good as closed.
        let Ok(line) = line else { return };
        each(String::from_utf8_lossy(&line).into_owned());
    }
}

fn tail(stream: impl Read) -> Vec<String> {
    let mut lines = VecDeque::new();
    for_each_line(stream, |line| {
        if lines.len() == STDERR_TAIL {
            lines.pop_front();
        }
        lines.push_back(line);
    });
    lines.into()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(30);

    fn shell(script: &str) -> (Child, mpsc::Receiver<Output>) {
        let (sender, outputs) = mpsc::channel();
        let mut command = Command::new("sh");
        let child = Child::start(command.args(["-c", script]), move |output| {
            sender.send(output).ok();
        });
        (child.unwrap(), outputs)
    }

    fn next_line(outputs: &mpsc::Receiver<Output>) -> String {
        match outputs.recv_timeout(TIMEOUT).unwrap() {
            Output::Line(line) => line,
            Output::Ended => panic!("ended"),
        }
    }

    #[test]
    fn lines_go_in_and_come_out_and_the_status_is_told() {
        let (mut child, outputs) = shell("read a; echo \"got $a\"; echo why >&2; exit 3");
        child.write_line("one").unwrap();
        assert_eq!(next_line(&outputs), "got one");
        assert!(matches!(outputs.recv_timeout(TIMEOUT).unwrap(), Output::Ended));
        let (status, stderr) = child.end().unwrap();
        assert_eq!(status.code(), Some(3));
        assert_eq!(stderr, ["why"]);
    }

    #[test]
    fn closing_stdin_is_the_end_of_the_input() {
        let (mut child, outputs) = shell("cat; echo bye");
        child.close_stdin();
        assert_eq!(next_line(&outputs), "bye");
        assert!(child.write_line("late").is_err());
    }

    #[test]
    fn only_the_end_of_a_long_stderr_is_kept() {
        let (mut child, outputs) = shell("for i in $(seq 100); do echo $i >&2; done");
        assert!(matches!(outputs.recv_timeout(TIMEOUT).unwrap(), Output::Ended));
        let (_, stderr) = child.end().unwrap();
        assert_eq!(stderr.len(), STDERR_TAIL);
        assert_eq!(stderr.last().map(String::as_str), Some("100"));
    }

    #[test]
    fn a_frozen_child_says_nothing_until_it_goes_on() {
        let (mut child, outputs) = shell("while read a; do echo $a; done");
        child.freeze();
        child.write_line("one").unwrap();
        assert!(outputs.try_recv().is_err());
        child.thaw();
        assert_eq!(next_line(&outputs), "one");
        child.kill();
        assert!(matches!(outputs.recv_timeout(TIMEOUT).unwrap(), Output::Ended));
        // It has ended: nobody is waited for.
        child.freeze();
    }

    #[test]
    fn a_child_ends_when_asked_when_killed_and_when_dropped() {
        let (mut child, outputs) = shell("echo up; exec cat");
        next_line(&outputs);
        child.terminate();
        assert!(matches!(outputs.recv_timeout(TIMEOUT).unwrap(), Output::Ended));
        assert_eq!(child.end().unwrap().0.code(), None);

        let (mut child, _outputs) = shell("exec cat");
        assert_eq!(child.end().unwrap().0.code(), None);

        let (child, outputs) = shell("exec cat");
        drop(child);
        assert!(matches!(outputs.recv_timeout(TIMEOUT).unwrap(), Output::Ended));
    }
}
