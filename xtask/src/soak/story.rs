//! What happened, but for the messages: in a file, and the end of it at hand.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::Instant;

use anyhow::Context;

/// Lines that are shown if something goes wrong.
const TAIL: usize = 40;

/// Of each line, as many characters are kept.
const KEPT: usize = 300;

/// Told line by line.
#[derive(Debug)]
pub(super) struct Story {
    file: BufWriter<File>,
    tail: VecDeque<String>,
    began_at: Instant,
}

impl Story {
    /// Into this file.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn new(path: &Path) -> anyhow::Result<Self> {
        let file = File::create(path).with_context(|| format!("cannot write {path:?}"))?;
        let tail = VecDeque::with_capacity(TAIL);
        Ok(Self { file: BufWriter::new(file), tail, began_at: Instant::now() })
    }

    /// Somebody did something.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn tell(&mut self, who: &str, what: &str) -> anyhow::Result<()> {
        let what: String = what.chars().take(KEPT).collect();
        let at = self.began_at.elapsed().as_secs_f64();
        let line = format!("{at:9.3} {who:<14} {what}");
        writeln!(self.file, "{line}").context("writing the story")?;
        if self.tail.len() == TAIL {
            self.tail.pop_front();
        }
        self.tail.push_back(line);
        Ok(())
    }

    /// The end of it, with all of it in the file.
    pub(super) fn tail(&mut self) -> impl Iterator<Item = &str> {
        // The tail is shown whether or not the file can be written.
        self.file.flush().ok();
        self.tail.iter().map(String::as_str)
    }
}
