//! `slim bench`: what a node, and what is built on it, can do on this network.
//!
//! [`args`] says what can be asked for. [`raw`] measures links without sessions,
//! [`channel`] a group and [`request`] calls; each gives a [`report`] for each size
//! of payload. A message carries a [`stamp`], from which its receiver knows how long
//! it took; publishers share a [`pace`]. Ctrl-c is a [`halt`]: what is under way
//! comes to its end, and what was measured until then is told.

pub(crate) mod args;
mod channel;
mod halt;
mod pace;
mod progress;
mod raw;
mod report;
mod request;
mod stamp;

use std::fmt::Display;
use std::time::Duration;

use futures_util::future::try_join_all;
use rustix::time::{ClockId, clock_gettime};
use slim_client::{Client, ConnectError, Name};

use self::args::{Format, Session, Settings, What};
use self::halt::Halt;
use self::progress::Progress;
pub(crate) use self::report::Report;
use crate::failure::Failure;
use crate::output::{Event, Output};
use crate::signals::Stop;

/// Measures and tells.
///
/// # Errors
/// If it cannot be measured, or if something was lost.
pub(crate) async fn run(
    settings: &Settings,
    output: &mut Output,
    stop: &Stop,
) -> Result<(), Failure> {
    let halt = Halt::default();
    let progress = Progress::new(settings.output);
    let mut stage = Stage { settings, output, progress: progress.clone(), halt: halt.clone() };
    let stopped = stop.requested();
    tokio::spawn(async move {
        stopped.await;
        halt.set();
    });
    let measured = stage.measure().await;
    progress.clear();
    measured
}

/// What came of a measurement.
#[derive(Debug, Default)]
struct Measured {
    /// One for each size; none if it was stopped before.
    reports: Vec<Report>,
    /// What ended it too early.
    failure: Option<Failure>,
}

/// What every measurement needs.
struct Stage<'a> {
    settings: &'a Settings,
    output: &'a mut Output,
    progress: Progress,
    halt: Halt,
}

impl Stage<'_> {
    async fn measure(&mut self) -> Result<(), Failure> {
        if self.settings.output == Format::Csv {
            self.output.print(Report::csv_header());
        }
        let (mut lost, mut of, mut told) = (0, 0, false);
        for (number, size) in self.sizes().into_iter().enumerate() {
            if self.halt.is_set() {
                break;
            }
            let is_last = number + 1 == self.sizes().len();
            let Measured { reports, failure } = self.measure_one(size, is_last).await?;
            for report in reports {
                self.print(&report);
                told = true;
                lost += report.lost.unwrap_or_default();
                of += report.delivered.unwrap_or_default() + report.lost.unwrap_or_default();
            }
            if let Some(failure) = failure {
                return Err(failure);
            }
        }
        if !told {
            self.output.note("stopped before anything was measured");
        }
        if lost > 0 { Err(Failure::Lost { lost, of }) } else { Ok(()) }
    }

    /// A subscriber takes what comes.
    fn sizes(&self) -> Vec<usize> {
        match &self.settings.what {
            What::Sub { .. } => vec![0],
            What::Pub { load, .. } | What::Channel { load, .. } | What::Request { load, .. } => {
                load.sizes.clone()
            }
        }
    }

    /// Measures with payloads of this size. No report: it was stopped before.
    async fn measure_one(&mut self, size: usize, is_last: bool) -> Result<Measured, Failure> {
        let settings = self.settings;
        let report = match &settings.what {
            What::Sub { clients, remote, duration } => {
                return raw::subscribe(self, *clients, remote, *duration).await;
            }
            What::Pub { clients, remote, load } => {
                raw::publish(self, *clients, remote, load, size, is_last).await?
            }
            What::Channel { members, publishers, in_flight, load, session } => {
                let (members, publishers, in_flight) = (*members, *publishers, *in_flight);
                let cast = channel::Cast { members, publishers, in_flight, session };
                channel::run(self, cast, load, size).await?
            }
            What::Request { clients, remote, in_flight, load, session } => {
                let (clients, remote, in_flight) = (*clients, remote.as_ref(), *in_flight);
                let cast = request::Cast { clients, remote, in_flight, session };
                request::run(self, cast, load, size).await?
            }
        };
        Ok(Measured { reports: report.into_iter().collect(), failure: None })
    }

    /// Tells programs how far it is; people see the bar.
    fn tell(&mut self, event: &Event) {
        if self.settings.output == Format::Json {
            self.output.emit(event);
        }
    }

    fn print(&mut self, report: &Report) {
        // Otherwise the bar would be written into the line.
        self.progress.clear();
        match self.settings.output {
            Format::Csv => self.output.print(report.csv()),
            Format::Text | Format::Json => {
                self.output.emit(&Event::Bench(Box::new(report.clone())))
            }
        }
    }

    /// Clients with these names, connected.
    async fn clients(&self, names: Vec<Name>, session: &Session) -> Result<Vec<Client>, Failure> {
        try_join_all(names.into_iter().map(|name| async {
            let node = &self.settings.node;
            let mut builder = Client::builder(name)
                .shared_secret(session.secret.expose())
                .map_err(|error| session_failure(&error))?
                .connect_timeout(self.settings.connect_timeout)
                .tls(node.tls.clone());
            if let Some(authorization) = node.authorization() {
                builder = builder.authorization(authorization);
            }
            builder.connect(&node.endpoint).await.map_err(|error| self.unreachable(error))
        }))
        .await
    }

    /// `None` if somebody wants to stop first.
    async fn unless_halted<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<Option<T>, Failure> {
        tokio::select! {
            result = work => result.map(Some),
            () = self.halt.wait() => Ok(None),
        }
    }

    fn unreachable(&self, error: ConnectError) -> Failure {
        crate::connect_failure(&["bench", self.settings.what.name()], error)
    }

    fn refused(&self, reason: &str) -> Failure {
        let node = self.settings.node.endpoint.clone();
        Failure::RefusedByNode { node, reason: reason.to_owned() }
    }

    fn node_lost(&self, reason: &str) -> Failure {
        let node = &self.settings.node.endpoint;
        Failure::Other { code: "node_lost", message: format!("lost node {node}: {reason}") }
    }
}

/// Processor time of this process so far.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}

/// The name with a number at its end, from 1.
fn numbered(name: &Name, number: usize) -> Name {
    let [org, namespace, app] = name.text().cloned().unwrap_or_default();
    Name::new(&org, &namespace, &format!("{app}-{}", number + 1)).expect("a longer name is one too")
}

fn numbers(name: &Name, count: usize) -> Vec<Name> {
    (0..count).map(|number| numbered(name, number)).collect()
}

/// Something about a session that nobody here can help.
fn session_failure(error: &impl Display) -> Failure {
    Failure::Other { code: "session", message: error.to_string() }
}
