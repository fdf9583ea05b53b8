//! `cargo xtask launch`: becomes another program, which then ends when whoever
//! asked for it does. Used by the demo, so that not even `kill -9` leaves its
//! children behind.
//!
//! On Linux the kernel keeps the promise (`PR_SET_PDEATHSIG`, which outlives
//! `exec`). Elsewhere programs are started directly: there ctrl-c reaches the
//! whole foreground process group and an ordinary end kills what is left, but a
//! `kill -9` of xtask does not.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::Command;

/// Arguments of `launch`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Process that asks. If it is gone already, nothing is started.
    parent: u32,
    /// What to become.
    program: PathBuf,
    /// Its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

/// The command that starts `program` so that it ends with this process. To be
/// spawned from the main thread: the kernel watches the thread.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    if cfg!(target_os = "linux") {
        // Not `current_exe`: the file may have been built anew meanwhile.
        let mut command = Command::new("/proc/self/exe");
        command.arg("launch").arg(std::process::id().to_string()).arg(program);
        command
    } else {
        Command::new(program)
    }
}

#[cfg(target_os = "linux")]
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    use std::os::unix::process::{CommandExt, parent_id};

    use anyhow::{Context, ensure};
    use rustix::process::{Signal, set_parent_process_death_signal};

    set_parent_process_death_signal(Some(Signal::KILL)).context("asking for the end signal")?;
    // Only now: whoever died before the request was heard is seen here.
    ensure!(parent_id() == args.parent, "process {} is gone", args.parent);
    let error = Command::new(&args.program).args(&args.args).exec();
    Err(error).with_context(|| format!("cannot start {}", args.program.display()))
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn run(_: &Args) -> anyhow::Result<()> {
    anyhow::bail!("only for Linux; elsewhere programs are started directly")
}
