//! How far it is, for people who watch.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::args::{Format, Limit};

/// How often the bar moves.
const TICK: Duration = Duration::from_millis(100);

/// On standard error if that is a terminal; elsewhere, and for programs that want
/// nothing there, it does nothing.
#[derive(Clone, Debug)]
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// Not begun.
    pub(crate) fn new(output: Format) -> Self {
        let target = match output {
            Format::Json => ProgressDrawTarget::hidden(),
            Format::Text | Format::Csv => ProgressDrawTarget::stderr(),
        };
        Self(ProgressBar::with_draw_target(None, target))
    }

    /// Something begins of which one does not know how long it takes.
    pub(crate) fn wait(&self, what: &str) {
        self.begin("{spinner} {msg} {elapsed}", None, what);
    }

    /// So many messages of a size, or so long.
    pub(crate) fn load(&self, limit: Limit, size: usize) {
        let what = format!("{size} bytes");
        match limit {
            Limit::Messages(messages) => {
                self.begin("{msg} {wide_bar} {pos}/{len} {per_sec} {eta}", Some(messages), &what)
            }
            Limit::Duration(duration) => {
                let what = format!("{what} for {} s", duration.as_secs_f64());
                self.begin("{spinner} {msg} {elapsed} {pos} {per_sec}", None, &what);
            }
        }
    }

    /// Messages arrive, nobody knows how many.
    pub(crate) fn receive(&self) {
        self.begin("{spinner} received {pos} {per_sec} {elapsed}", None, "");
    }

    fn begin(&self, template: &str, len: Option<u64>, what: &str) {
        if self.0.is_hidden() {
            return;
        }
        self.0.reset();
        match len {
            Some(len) => self.0.set_length(len),
            None => self.0.unset_length(),
        }
        self.0.set_style(ProgressStyle::with_template(template).expect("our own templates"));
        self.0.set_message(what.to_owned());
        self.0.enable_steady_tick(TICK);
    }

    /// One more.
    pub(crate) fn step(&self) {
        self.0.inc(1);
    }

    /// Nothing is to be seen any more.
    pub(crate) fn clear(&self) {
        self.0.disable_steady_tick();
        self.0.finish_and_clear();
    }
}
