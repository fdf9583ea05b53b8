//! Clocks that are wrong, or move: a library in front of the system's, which reads
//! from a file how far a process's clock is ahead. Its timers go on as they do.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use super::Stage;
use super::record::MemberId;

/// Where systems have libfaketime, for processes with threads.
const FOLDERS: [&str; 2] = ["/usr/lib", "/usr/local/lib"];
/// As what the clock of the agent goes.
pub(super) const AGENT: &str = "agent";
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";

impl Stage<'_> {
    /// Has a process that is to be started read its clock's deviation from a file.
    ///
    /// # Errors
    /// If there is no libfaketime.
    pub(super) fn give_clock(
        &self,
        command: &mut Command,
        label: &str,
        ahead: i64,
    ) -> anyhow::Result<()> {
        let file = self.clock_file(label);
        set(&file, ahead)?;
        command
            .env("LD_PRELOAD", library()?)
            .env("FAKETIME_TIMESTAMP_FILE", &file)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        Ok(())
    }

    /// Moves the clocks of these, and that of the agent if it has one, so that they are so
    /// many seconds ahead.
    pub(crate) fn set_clocks(&mut self, ids: &[MemberId], ahead: i64) -> anyhow::Result<()> {
        let of_agent = self.clock_file(AGENT);
        if of_agent.exists() {
            set(&of_agent, ahead)?;
        }
        for &id in ids {
            let label = self.member(id).label.clone();
            set(&self.clock_file(&label), ahead)?;
            self.note(&label, &format!("has a clock that is {ahead} s ahead"))?;
        }
        Ok(())
    }

    fn clock_file(&self, label: &str) -> PathBuf {
        self.folder.join(format!("{label}.clock"))
    }
}

/// Writes a deviation, all at once for whoever reads it.
fn set(file: &Path, ahead: i64) -> anyhow::Result<()> {
    let new = file.with_extension("clock-new");
    fs::write(&new, format!("{ahead:+}s\n"))
        .and_then(|()| fs::rename(&new, file))
        .with_context(|| format!("cannot write {}", file.display()))
}

fn library() -> anyhow::Result<PathBuf> {
    for folder in FOLDERS {
        let Ok(entries) = fs::read_dir(folder) else { continue };
        // Debian has a folder for each architecture.
        let folders = entries.flatten().map(|entry| entry.path());
        if let Some(library) = folders
            .chain([PathBuf::from(folder)])
            .map(|folder| folder.join(LIBRARY))
            .find(|library| library.exists())
        {
            return library.canonicalize().context("libfaketime");
        }
    }
    bail!("this case moves clocks and needs libfaketime (Debian: apt-get install faketime)")
}
