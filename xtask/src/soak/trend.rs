//! Whether what a process uses stays what it is: samples of its memory and its file
//! descriptors, and the straight line that fits them best.

use std::fs;
use std::time::Duration;

use anyhow::Context;

/// What a process uses at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Usage {
    /// Memory that is resident, in KiB.
    pub(super) memory: u64,
    /// Open file descriptors.
    pub(super) files: u64,
}

impl Usage {
    /// Of a process that runs, from `/proc`.
    ///
    /// # Errors
    /// If the system does not tell.
    pub(super) fn of(process: u32) -> anyhow::Result<Self> {
        let path = format!("/proc/{process}/status");
        let status = fs::read_to_string(&path).with_context(|| path.clone())?;
        let memory = resident(&status).with_context(|| format!("no VmRSS in {path}"))?;
        let path = format!("/proc/{process}/fd");
        let files = fs::read_dir(&path).with_context(|| path.clone())?.count();
        Ok(Self { memory, files: u64::try_from(files).unwrap_or(u64::MAX) })
    }
}

/// `VmRSS` of `/proc/…/status`, in KiB.
fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// By how much the fitted line of a process's memory may rise from the end of the
/// warm-up to the end of the run: so many KiB, or the given part of what it used at the
/// end of the warm-up, whichever is more.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    pub(super) memory: f64,
    pub(super) part: f64,
}

/// From this length on the warm-up is long enough for all that is meant to fill: what is
/// remembered of senders and commands, what the allocator keeps.
const LONG: Duration = Duration::from_secs(15 * 60);

impl Limit {
    /// For a run of this length.
    pub(super) fn of(length: Duration) -> Self {
        if length < LONG {
            Self { memory: 8192.0, part: 0.5 }
        } else {
            Self { memory: 2048.0, part: 0.1 }
        }
    }
}

/// By how much its file descriptors may rise.
pub(super) const FILES_RISE: f64 = 4.0;

/// The usage of a process over time, in constant space.
#[derive(Debug, Default)]
pub(super) struct Trend {
    memory: Fit,
    files: Fit,
    pub(super) most_memory: u64,
}

impl Trend {
    /// Takes in a sample, taken so long after the warm-up.
    pub(super) fn add(&mut self, at: Duration, usage: Usage) {
        self.memory.add(at.as_secs_f64(), usage.memory as f64);
        self.files.add(at.as_secs_f64(), usage.files as f64);
        self.most_memory = self.most_memory.max(usage.memory);
    }

    /// Where the fitted lines of memory (KiB) and of files begin and end, if there are
    /// enough samples.
    pub(super) fn lines(&self) -> Option<(Rise, Rise)> {
        Some((self.memory.line()?, self.files.line()?))
    }

    /// Whether it is as flat as it has to be. Without enough samples it is not.
    pub(super) fn is_flat(&self, limit: Limit) -> bool {
        self.lines().is_some_and(|(memory, files)| {
            memory.by() <= f64::max(limit.memory, memory.from * limit.part)
                && files.by() <= FILES_RISE
        })
    }
}

/// Two ends of a straight line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rise {
    pub(super) from: f64,
    pub(super) to: f64,
}

impl Rise {
    /// How far it rises; negative if it falls.
    pub(super) fn by(self) -> f64 {
        self.to - self.from
    }
}

/// Samples that a line needs.
const LEAST: f64 = 10.0;

/// Least squares, from sums.
#[derive(Debug, Default)]
struct Fit {
    count: f64,
    first: f64,
    last: f64,
    x: f64,
    y: f64,
    xx: f64,
    xy: f64,
}

impl Fit {
    fn add(&mut self, x: f64, y: f64) {
        if self.count == 0.0 {
            self.first = x;
        }
        self.last = x;
        self.count += 1.0;
        self.x += x;
        self.y += y;
        self.xx += x * x;
        self.xy += x * y;
    }

    fn line(&self) -> Option<Rise> {
        let spread = self.count * self.xx - self.x * self.x;
        if self.count < LEAST || spread <= 0.0 {
            return None;
        }
        let slope = (self.count * self.xy - self.x * self.y) / spread;
        let start = (self.y - slope * self.x) / self.count;
        let at = |x: f64| start + slope * x;
        Some(Rise { from: at(self.first), to: at(self.last) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a process is flat that uses this much, a sample each second.
    fn check(usage: impl Fn(u64) -> (u64, u64), expected: bool) {
        let mut trend = Trend::default();
        for second in 0..600 {
            let (memory, files) = usage(second);
            trend.add(Duration::from_secs(second), Usage { memory, files });
        }
        assert_eq!(trend.is_flat(Limit::of(LONG)), expected, "{:?}", trend.lines());
    }

    #[test]
    fn what_goes_up_and_down_is_flat_and_what_goes_up_is_not() {
        check(|_| (10_000, 20), true);
        check(|second| (10_000 + 3_000 * (second % 20) / 20, 20 + second % 9), true);
        check(|second| (10_000 + second, 20), true);
        check(|second| (10_000 + 4 * second, 20), false);
        // A part of what was there before is allowed.
        check(|second| (100_000 + 4 * second, 20), true);
        check(|second| (10_000, 20 + second / 100), false);
        check(|second| (10_000 - 4 * second, 20), true);
    }

    #[test]
    fn a_short_run_is_allowed_more() {
        let mut trend = Trend::default();
        for second in 0..100 {
            let memory = 10_000 + 50 * second;
            trend.add(Duration::from_secs(second), Usage { memory, files: 20 });
        }
        assert!(trend.is_flat(Limit::of(Duration::from_secs(300))));
        assert!(!trend.is_flat(Limit::of(LONG)));
    }

    #[test]
    fn a_line_is_found_again() {
        let mut fit = Fit::default();
        for x in 0..9 {
            fit.add(f64::from(x), 0.0);
        }
        assert_eq!(fit.line(), None, "too few");
        let mut fit = Fit::default();
        for x in 10..=20 {
            fit.add(f64::from(x), 3.0 * f64::from(x) + 1.0);
        }
        let line = fit.line().unwrap();
        assert!((line.from - 31.0).abs() < 1e-6 && (line.by() - 30.0).abs() < 1e-6, "{line:?}");
    }

    #[test]
    fn our_own_usage_is_known() {
        let usage = Usage::of(std::process::id()).unwrap();
        assert!(usage.memory > 100 && usage.files >= 3, "{usage:?}");
        assert_eq!(resident("Name:\tx\nVmRSS:\t    1234 kB\nThreads:\t1\n"), Some(1234));
        assert_eq!(resident("Name:\tx\n"), None);
    }
}
