//! `slim top`: what a node is doing, from its admin address; on a terminal the whole
//! screen, elsewhere lines.
//!
//! [`Sample`] is what was seen at one moment, [`view`] makes lines of it, [`screen`] is
//! the terminal.

mod screen;
pub(crate) mod view;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde::Serialize;
use time::OffsetDateTime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};

use self::screen::{Key, Screen};
use self::view::{Look, Sort};
use crate::admin::{self, Admin, AskError, Link, Metrics};
use crate::failure::Failure;
use crate::output::{Event, Output};
use crate::signals::Stop;

/// Samples whose rates are drawn.
const HISTORY: usize = 60;

/// What is asked for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settings {
    pub(crate) admin: Admin,
    pub(crate) interval: Duration,
    pub(crate) once: bool,
    pub(crate) sort: Sort,
}

/// A node at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Sample {
    /// Its admin address.
    pub(crate) node: String,
    /// Whether it takes links.
    pub(crate) ready: bool,
    /// Of the program.
    pub(crate) version: String,
    pub(crate) uptime_seconds: f64,
    pub(crate) connections: u64,
    pub(crate) connections_limit: u64,
    pub(crate) names: u64,
    pub(crate) subscriptions: u64,
    pub(crate) slow_links: u64,
    pub(crate) shed_links: u64,
    pub(crate) queued_bytes: u64,
    pub(crate) resident_bytes: u64,
    /// Processors that it keeps busy; none before there is something to compare with.
    pub(crate) cpu: Option<f64>,
    pub(crate) received: Rate,
    pub(crate) delivered: Rate,
    /// Reasons, and how many messages were dropped for each, ever.
    pub(crate) dropped: Vec<(String, u64)>,
    pub(crate) links: Vec<Link>,
    /// Links that are not among these.
    pub(crate) further_links: u64,
    /// In which order they are shown to people.
    #[serde(skip)]
    pub(crate) sort: Sort,
}

/// A direction, of all links together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Rate {
    pub(crate) messages_per_second: f64,
    pub(crate) bytes_per_second: f64,
}

/// What only grows, to be compared with the next time.
#[derive(Clone, Copy, Debug)]
struct Totals {
    at: Instant,
    /// Messages and bytes received, then delivered.
    traffic: [f64; 4],
    cpu: f64,
}

/// Whether there is a screen, and in which colours it is drawn.
pub(crate) struct Place {
    pub(crate) is_screen: bool,
    pub(crate) colours: bool,
}

/// Looks until somebody wants to stop.
///
/// # Errors
/// If there is no answer the first time; later it is tried again.
pub(crate) async fn run(
    settings: &Settings,
    output: &mut Output,
    stop: &Stop,
    place: Place,
) -> Result<(), Failure> {
    let mut totals = None;
    let mut first =
        look(&settings.admin, &mut totals).await.map_err(|error| Failure::NodeUnreachable {
            node: settings.admin.to_string(),
            tried_for: admin::TIMEOUT,
            cause: format!("{error} (is it started with --admin?)"),
        })?;
    first.sort = settings.sort;
    if settings.once {
        output.emit(&Event::Top(Box::new(first)));
        return Ok(());
    }
    if place.is_screen {
        let colours = place.colours;
        return on_screen(settings, first, totals, stop, colours).await;
    }
    let mut ticks = ticks(settings.interval);
    let (stopped, broken) = (stop.requested(), output.broken());
    tokio::pin!(stopped, broken);
    output.emit(&Event::Top(Box::new(first)));
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = &mut stopped => return Ok(()),
            () = &mut broken => return Err(Failure::OutputClosed),
        }
        match look(&settings.admin, &mut totals).await {
            Ok(sample) => {
                output.emit(&Event::Top(Box::new(Sample { sort: settings.sort, ..sample })));
            }
            Err(error) => tracing::warn!(%error, "no answer"),
        }
    }
}

async fn on_screen(
    settings: &Settings,
    first: Sample,
    mut totals: Option<Totals>,
    stop: &Stop,
    colours: bool,
) -> Result<(), Failure> {
    let other =
        |error: std::io::Error| Failure::Other { code: "terminal", message: error.to_string() };
    let mut resized = signal(SignalKind::window_change()).map_err(other)?;
    let mut screen = Screen::enter().map_err(other)?;
    let mut look_of = Look { sort: settings.sort, colours, ..Look::default() };
    let mut history = VecDeque::from([(first.received, first.delivered)]);
    let (mut sample, mut trouble) = (first, None);
    let mut ticks = ticks(settings.interval);
    let stopped = stop.requested();
    tokio::pin!(stopped);
    loop {
        let (width, height) = screen.size();
        look_of.scroll = look_of.scroll.min(sample.links.len().saturating_sub(1));
        let now = OffsetDateTime::now_utc();
        let lines =
            view::screen(&sample, trouble.as_deref(), &history, &look_of, now, width, height);
        screen.draw(&lines).map_err(|_| Failure::OutputClosed)?;
        tokio::select! {
            _ = ticks.tick() => match look(&settings.admin, &mut totals).await {
                Ok(new) => {
                    history.push_back((new.received, new.delivered));
                    if history.len() > HISTORY {
                        history.pop_front();
                    }
                    (sample, trouble) = (new, None);
                }
                // What was seen last stays, and it is said that it is old.
                Err(error) => trouble = Some(error.to_string()),
            },
            _ = resized.recv() => {}
            () = &mut stopped => return Ok(()),
            key = screen.key() => match key {
                Some(Key::Quit) | None => return Ok(()),
                Some(Key::Sort) => look_of.sort = look_of.sort.next(),
                Some(Key::Up(lines)) => look_of.scroll = look_of.scroll.saturating_sub(lines),
                Some(Key::Down(lines)) => look_of.scroll += lines,
            }
        }
    }
}

fn ticks(every: Duration) -> tokio::time::Interval {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first is at once.
    ticks.reset();
    ticks
}

async fn look(admin: &Admin, before: &mut Option<Totals>) -> Result<Sample, AskError> {
    let metrics = admin.text("/metrics").await?;
    let (links, further_links) = admin.links().await?;
    let now = Instant::now();
    Ok(Sample::new(admin, &Metrics::parse(&metrics), links, further_links, now, before))
}

impl Sample {
    fn new(
        admin: &Admin,
        metrics: &Metrics<'_>,
        links: Vec<Link>,
        further_links: u64,
        at: Instant,
        before: &mut Option<Totals>,
    ) -> Self {
        let count = |name: &str| metrics.sum(name) as u64;
        let totals = Totals {
            at,
            traffic: [
                "slim_received_messages_total",
                "slim_received_bytes_total",
                "slim_delivered_messages_total",
                "slim_delivered_bytes_total",
            ]
            .map(|name| metrics.sum(name)),
            cpu: metrics.sum("process_cpu_seconds_total"),
        };
        let per_second = before.map(|before| {
            let seconds = (at - before.at).as_secs_f64().max(0.001);
            let traffic: [f64; 4] = std::array::from_fn(|n| {
                // A node that was started again counts from nothing.
                (totals.traffic[n] - before.traffic[n]).max(0.0) / seconds
            });
            (traffic, (totals.cpu - before.cpu).max(0.0) / seconds)
        });
        *before = Some(totals);
        // The first time, what the node says of each link has to do.
        let [messages_in, bytes_in, messages_out, bytes_out] =
            per_second.map_or_else(|| of_links(&links), |(traffic, _)| traffic);
        let now = OffsetDateTime::now_utc().unix_timestamp() as f64;
        let version = metrics.labelled("slim_build_info").next().map(|(labels, _)| labels);
        Self {
            node: admin.to_string(),
            ready: metrics.sum("slim_ready") > 0.0,
            version: Metrics::label(version.unwrap_or_default(), "version").to_owned(),
            uptime_seconds: (now - metrics.sum("process_start_time_seconds")).max(0.0),
            connections: count("slim_connections"),
            connections_limit: count("slim_connections_limit"),
            names: count("slim_names"),
            subscriptions: count("slim_subscriptions"),
            slow_links: count("slim_slow_links"),
            shed_links: count("slim_links_shed_total"),
            queued_bytes: count("slim_queued_bytes"),
            resident_bytes: count("process_resident_memory_bytes"),
            cpu: per_second.map(|(_, cpu)| cpu),
            received: Rate { messages_per_second: messages_in, bytes_per_second: bytes_in },
            delivered: Rate { messages_per_second: messages_out, bytes_per_second: bytes_out },
            dropped: metrics
                .labelled("slim_dropped_messages_total")
                .filter(|(_, count)| *count > 0.0)
                .map(|(labels, n)| (Metrics::label(labels, "reason").to_owned(), n as u64))
                .collect(),
            links,
            further_links,
            sort: Sort::default(),
        }
    }
}

fn of_links(links: &[Link]) -> [f64; 4] {
    links.iter().fold([0.0; 4], |sum, link| {
        let (received, delivered) = (&link.received, &link.delivered);
        let own = [
            received.messages_per_second,
            received.bytes_per_second,
            delivered.messages_per_second,
            delivered.bytes_per_second,
        ];
        std::array::from_fn(|n| sum[n] + own[n])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRICS: &str = "# HELP slim_ready x\n# TYPE slim_ready gauge\nslim_ready 1\n\
        slim_build_info{version=\"0.1.0\",protocol=\"3.4.6\"} 1\n\
        slim_connections{state=\"negotiated\"} 5\nslim_connections{state=\"new\"} 2\n\
        slim_connections_limit 100\nslim_received_messages_total 1000\n\
        process_cpu_seconds_total 2\nslim_dropped_messages_total{reason=\"shed\"} 3\n\
        slim_dropped_messages_total{reason=\"too_large\"} 0\n";

    #[test]
    fn a_sample_is_what_the_metrics_say_and_what_has_changed() {
        let admin: Admin = "node:1".parse().unwrap();
        let link = Link {
            received: admin::Flow { messages_per_second: 7.0, ..admin::Flow::default() },
            ..Link::default()
        };
        let start = Instant::now();
        let mut before = None;
        let sample = |text: &str, seconds, before: &mut Option<Totals>| {
            let at = start + Duration::from_secs(seconds);
            Sample::new(&admin, &Metrics::parse(text), vec![link.clone()], 0, at, before)
        };
        let first = sample(METRICS, 0, &mut before);
        assert!(first.ready);
        assert_eq!(
            (&*first.version, first.connections, first.connections_limit),
            ("0.1.0", 7, 100)
        );
        assert_eq!(first.dropped, [("shed".to_owned(), 3)]);
        assert_eq!((first.received.messages_per_second, first.cpu), (7.0, None));
        let text = METRICS.replace("total 1000", "total 1100").replace("total 2", "total 3");
        let second = sample(&text, 2, &mut before);
        assert_eq!((second.received.messages_per_second, second.cpu), (50.0, Some(0.5)));
        // It was started again.
        let third = sample(&METRICS.replace("total 1000", "total 4"), 4, &mut before);
        assert_eq!((third.received.messages_per_second, third.cpu), (0.0, Some(0.0)));
    }
}
