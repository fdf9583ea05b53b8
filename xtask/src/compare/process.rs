//! What a process costs, as Linux accounts for it.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;

/// A process of ours, or of a child.
#[derive(Clone, Copy, Debug)]
pub(super) struct Process(pub(super) u32);

impl Process {
    /// Time on a processor of all its threads, in user and in system mode, to the
    /// nanosecond where a thread does not run at this moment. Threads that have ended
    /// are not in it: take differences over a time in which none does.
    ///
    /// # Errors
    /// If there is no such process, or the kernel does not tell (`CONFIG_SCHED_INFO`).
    pub(super) fn cpu(self) -> anyhow::Result<Duration> {
        let threads = self.file("task");
        let mut nanos = 0;
        let listed = fs::read_dir(&threads).with_context(|| threads.display().to_string())?;
        for thread in listed {
            let path = thread.context("a thread")?.path().join("schedstat");
            // It has ended since the folder was read.
            let Ok(text) = fs::read_to_string(&path) else { continue };
            nanos += on_cpu(&text).with_context(|| path.display().to_string())?;
        }
        Ok(Duration::from_nanos(nanos))
    }

    /// Bytes of its memory that are in RAM.
    ///
    /// # Errors
    /// If there is no such process.
    pub(super) fn resident(self) -> anyhow::Result<u64> {
        let path = self.file("status");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        resident(&text).with_context(|| path.display().to_string())
    }

    fn file(self, name: &str) -> PathBuf {
        ["/proc", &self.0.to_string(), name].iter().collect()
    }
}

/// The first number of `schedstat`: nanoseconds.
fn on_cpu(schedstat: &str) -> Option<u64> {
    schedstat.split_whitespace().next()?.parse().ok()
}

fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_tells_is_read() {
        assert_eq!(on_cpu("90064 1466742 1\n"), Some(90064));
        assert_eq!(on_cpu(""), None);
        assert_eq!(resident("Name:\tnode\nVmRSS:\t    1234 kB\nThreads:\t3\n"), Some(1234 * 1024));
        assert_eq!(resident("Name:\tnode\n"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_uses_time_and_memory() {
        let own = Process(std::process::id());
        let before = own.cpu().unwrap();
        // Until the kernel has accounted for some of it.
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while own.cpu().unwrap() == before {
            assert!(std::time::Instant::now() < deadline, "no CPU time in ten seconds");
        }
        assert!(own.resident().unwrap() > 100_000);
    }
}
