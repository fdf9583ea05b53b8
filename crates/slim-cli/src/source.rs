//! Where lines come from: a prompt, or standard input as it is.
//!
//! A thread of its own reads, because reading cannot be interrupted. Lines from a
//! pipe wait in it when the conversation does not take them; lines from a prompt
//! are dropped then, which takes pasting more than [`PROMPT_QUEUE`] of them.

use std::io::{self, BufRead, Read as _};
use std::thread;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::output::Output;
use crate::prompt::Prompt;
use crate::signals::Stop;
use crate::terminal::{self, Terminal};

/// The longest line that is read, in bytes. A message takes 4 MiB at most, and a third
/// more where `/publish` has it in base64.
pub(crate) const MAX_LINE: usize = 6 << 20;

/// Lines of a pipe that are read ahead. Each may be as long as [`MAX_LINE`].
const PIPE_QUEUE: usize = 4;

/// Lines of a prompt that wait.
const PROMPT_QUEUE: usize = 1024;

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// A line, with or without its end.
    Line(Bytes),
    /// A line of this many bytes, which is more than [`MAX_LINE`].
    TooLong(usize),
}

/// A stream of lines.
#[derive(Debug)]
pub(crate) struct Source {
    /// `None`: never anything, not even an end.
    lines: Option<mpsc::Receiver<Input>>,
    prompt: Option<Prompt>,
    /// Whether a person types them.
    is_terminal: bool,
}

impl Source {
    /// Nothing is read.
    pub(crate) fn none() -> Self {
        Self { lines: None, prompt: None, is_terminal: false }
    }

    /// Reads from now on, with a prompt if `interactive`.
    ///
    /// # Errors
    /// If there can be no prompt.
    pub(crate) fn open(
        terminal: Terminal,
        interactive: bool,
        output: &Output,
        stop: &Stop,
    ) -> io::Result<Self> {
        if terminal.input {
            terminal::begin();
        }
        let (sender, lines) = mpsc::channel(if interactive { PROMPT_QUEUE } else { PIPE_QUEUE });
        let prompt = if interactive {
            Some(Prompt::open(sender, output, stop.clone())?)
        } else {
            thread::spawn(move || read_lines(&mut io::stdin().lock(), &sender));
            None
        };
        Ok(Self { lines: Some(lines), prompt, is_terminal: terminal.input })
    }

    /// Whether a person types the lines.
    pub(crate) fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// The next line; `None` at the end of input.
    pub(crate) async fn next(&mut self) -> Option<Input> {
        match &mut self.lines {
            Some(lines) => lines.recv().await,
            None => std::future::pending().await,
        }
    }

    /// Takes the prompt off the screen, if there is one, once all that was told
    /// stands above it.
    pub(crate) fn close(&mut self, output: &Output) {
        if let Some(prompt) = self.prompt.take() {
            prompt.close(output);
        }
    }
}

/// Reads until the end, an error, or until nobody listens.
fn read_lines(input: &mut impl BufRead, lines: &mpsc::Sender<Input>) {
    while let Ok(Some(line)) = read_line(input) {
        if lines.blocking_send(line).is_err() {
            return;
        }
    }
}

/// Reads a line with its end; `None` at the end of input.
fn read_line(input: &mut impl BufRead) -> io::Result<Option<Input>> {
    // With its end, a line of MAX_LINE bytes has up to two bytes more.
    let limit = MAX_LINE + 2;
    let mut line = Vec::new();
    input.take(limit as u64).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.len() < limit || line.ends_with(b"\n") {
        return Ok(Some(Input::Line(line.into())));
    }
    Ok(Some(Input::TooLong(line.len() + skip_line(input)?)))
}

/// Reads to the end of the line and returns how many bytes that were, without it.
fn skip_line(input: &mut impl BufRead) -> io::Result<usize> {
    let mut skipped = 0;
    loop {
        let buffer = input.fill_buf()?;
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let length = end.unwrap_or(buffer.len());
        let is_last = end.is_some() || buffer.is_empty();
        input.consume(length + usize::from(end.is_some()));
        skipped += length;
        if is_last {
            return Ok(skipped);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(mut input: &[u8], expected: &[Input]) {
        let (sender, mut lines) = mpsc::channel(expected.len() + 1);
        read_lines(&mut input, &sender);
        drop(sender);
        let mut read = Vec::new();
        while let Ok(line) = lines.try_recv() {
            read.push(line);
        }
        assert!(read == expected, "{} instead of {} lines", read.len(), expected.len());
    }

    fn line(text: &'static [u8]) -> Input {
        Input::Line(Bytes::from_static(text))
    }

    #[test]
    fn lines_are_read_as_they_are() {
        check(b"", &[]);
        check(
            b"one\n\xff\r\n\nlast",
            &[line(b"one\n"), line(b"\xff\r\n"), line(b"\n"), line(b"last")],
        );
    }

    #[test]
    fn a_line_that_is_too_long_is_counted_and_skipped() {
        let mut input = vec![b'x'; MAX_LINE + 2];
        input.extend(b"y\nnext\n");
        check(&input, &[Input::TooLong(MAX_LINE + 3), line(b"next\n")]);
        check(&input[..MAX_LINE + 2], &[Input::TooLong(MAX_LINE + 2)]);
    }

    #[test]
    fn the_longest_line_is_read() {
        let mut input = vec![b'x'; MAX_LINE];
        input.extend(b"\r\n");
        check(&input, &[Input::Line(input.clone().into())]);
    }
}
