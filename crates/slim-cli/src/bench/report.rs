//! What was measured, as people, programs and tables want it.

use std::fmt::Write as _;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;
use serde_json::Value;

/// Significant digits of a latency.
const DIGITS: u8 = 3;

/// Latencies, in nanoseconds.
#[derive(Clone, Debug)]
pub(crate) struct Latencies(Histogram<u64>);

impl Latencies {
    /// None yet.
    pub(crate) fn new() -> Self {
        let mut histogram = Histogram::new(DIGITS).expect("that many digits are allowed");
        histogram.auto(true);
        Self(histogram)
    }

    /// One more.
    pub(crate) fn record(&mut self, nanoseconds: u64) {
        // It grows as needed, to whatever 64 bits hold.
        self.0.record(nanoseconds).ok();
    }

    /// All of another.
    pub(crate) fn add(&mut self, other: &Self) {
        // It grows as needed, and both have the same number of digits.
        self.0.add(&other.0).ok();
    }

    /// What stands for them; `None` if there are none.
    pub(crate) fn percentiles(&self) -> Option<Percentiles> {
        let at = |quantile| microseconds(self.0.value_at_quantile(quantile));
        (!self.0.is_empty()).then(|| Percentiles {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            max: microseconds(self.0.max()),
        })
    }
}

fn microseconds(nanoseconds: u64) -> f64 {
    rounded(nanoseconds as f64 / 1e3, 10.0)
}

/// To the microsecond.
pub(crate) fn seconds(time: Duration) -> f64 {
    rounded(time.as_secs_f64(), 1e6)
}

fn rounded(value: f64, by: f64) -> f64 {
    (value * by).round() / by
}

/// In microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Percentiles {
    p50: f64,
    p90: f64,
    p99: f64,
    p99_9: f64,
    max: f64,
}

/// The result of one measurement. What it does not have is left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Report {
    /// As it is typed.
    pub(crate) bench: &'static str,
    /// Bytes of payload; none if nothing came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) size: Option<usize>,
    /// Links of this process; the members of a group, the callers without their peers.
    pub(crate) clients: usize,
    /// How many of them publish.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) publishers: Option<usize>,
    /// Of each publisher.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) in_flight: Option<usize>,
    /// Whether it was encrypted; none without a session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mls: Option<bool>,
    /// From the first invitation until all had joined.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) join_seconds: Option<f64>,
    /// Messages, or requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) published: Option<u64>,
    /// Messages that arrived, counted at each receiver; or replies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) delivered: Option<u64>,
    /// Deliveries that should have been, and were not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) lost: Option<u64>,
    /// From the first message to the last answer.
    pub(crate) seconds: f64,
    /// Deliveries, or where there are none messages.
    pub(crate) per_second: f64,
    /// The same in payload, MiB.
    pub(crate) mib_per_second: f64,
    /// Of this process in this time, all processors together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpu_seconds: Option<f64>,
    /// One way, or a round trip of requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) latency_us: Option<Percentiles>,
    /// From publishing until the last acknowledgement.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) acknowledged_us: Option<Percentiles>,
    /// False: it was stopped before its end.
    pub(crate) complete: bool,
}

/// Columns of a table. Where there is a dot the second part is one of the first.
const COLUMNS: [&str; 25] = [
    "bench",
    "size",
    "clients",
    "publishers",
    "in_flight",
    "mls",
    "join_seconds",
    "published",
    "delivered",
    "lost",
    "seconds",
    "per_second",
    "mib_per_second",
    "cpu_seconds",
    "latency_us.p50",
    "latency_us.p90",
    "latency_us.p99",
    "latency_us.p99_9",
    "latency_us.max",
    "acknowledged_us.p50",
    "acknowledged_us.p90",
    "acknowledged_us.p99",
    "acknowledged_us.p99_9",
    "acknowledged_us.max",
    "complete",
];

impl Report {
    /// Fills in the time and what follows from it.
    pub(crate) fn timed(mut self, took: Duration, cpu: Option<Duration>) -> Self {
        let count = self.delivered.or(self.published).unwrap_or_default() as f64;
        let rate = if took.is_zero() { 0.0 } else { count / took.as_secs_f64() };
        self.seconds = seconds(took);
        self.per_second = rounded(rate, 10.0);
        let bytes = rate * self.size.unwrap_or_default() as f64;
        self.mib_per_second = rounded(bytes / f64::from(1 << 20), 1e3);
        self.cpu_seconds = cpu.map(seconds);
        self
    }

    /// One summary, several lines.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("{}: {}", self.bench, self.clients);
        text += match (self.bench, self.clients) {
            ("channel", _) => " members",
            (_, 1) => " client",
            _ => " clients",
        };
        for (value, unit) in
            [(self.publishers, "publishing"), (self.in_flight, "in flight"), (self.size, "bytes")]
        {
            if let Some(value) = value {
                write!(text, ", {value} {unit}").ok();
            }
        }
        match self.mls {
            Some(true) => text += ", MLS",
            Some(false) => text += ", no MLS",
            None => {}
        }
        if !self.complete {
            text += ", stopped early";
        }
        let mut row = |what: &str, value: String| {
            write!(text, "\n  {what:<13}{value}").ok();
        };
        if let Some(seconds) = self.join_seconds {
            row("joined", format!("in {seconds:.3} s"));
        }
        if let Some(published) = self.published {
            row("published", format!("{published} in {:.3} s", self.seconds));
        }
        if let Some(delivered) = self.delivered {
            let lost = self.lost.unwrap_or_default();
            row("delivered", format!("{delivered} in {:.3} s, {lost} lost", self.seconds));
        }
        row("throughput", format!("{:.0}/s, {:.2} MiB/s", self.per_second, self.mib_per_second));
        for (what, percentiles) in
            [("latency", self.latency_us), ("acknowledged", self.acknowledged_us)]
        {
            if let Some(Percentiles { p50, p90, p99, p99_9, max }) = percentiles {
                let all =
                    [("p50", p50), ("p90", p90), ("p99", p99), ("p99.9", p99_9), ("max", max)];
                row(what, all.map(|(name, value)| format!("{name} {}", human(value))).join("  "));
            }
        }
        if let (Some(cpu), Some(count)) = (self.cpu_seconds, self.delivered.or(self.published))
            && count > 0
        {
            let each = cpu * 1e6 / count as f64;
            row("CPU", format!("{cpu:.3} s in this process, {each:.1} µs each"));
        }
        text
    }

    /// The first row of a table.
    pub(crate) fn csv_header() -> String {
        COLUMNS.map(|column| column.replace('.', "_")).join(",")
    }

    /// One row of a table. Nothing in it needs quoting.
    pub(crate) fn csv(&self) -> String {
        let value = serde_json::to_value(self).expect("all keys are texts");
        COLUMNS.map(|column| cell(&value, column)).join(",")
    }
}

fn cell(report: &Value, column: &str) -> String {
    let value = column.split('.').try_fold(report, |value, key| value.get(key));
    match value {
        None => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
    }
}

/// Microseconds as people write them.
fn human(microseconds: f64) -> String {
    match microseconds {
        us if us < 1e3 => format!("{us:.0} µs"),
        us if us < 1e6 => format!("{:.2} ms", us / 1e3),
        us => format!("{:.2} s", us / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn latencies() -> Latencies {
        let mut latencies = Latencies::new();
        (1..=1000).for_each(|number| latencies.record(number * 1_000));
        latencies
    }

    fn report() -> Report {
        let report = Report {
            bench: "channel",
            size: Some(1 << 20),
            clients: 3,
            mls: Some(true),
            published: Some(5),
            delivered: Some(10),
            lost: Some(0),
            latency_us: latencies().percentiles(),
            complete: true,
            ..Report::default()
        };
        report.timed(Duration::from_secs(2), Some(Duration::from_millis(20)))
    }

    #[test]
    fn percentiles_are_exact_to_three_digits() {
        let Percentiles { p50, p90, p99, p99_9, max } = latencies().percentiles().unwrap();
        for (found, expected) in
            [(p50, 500.0), (p90, 900.0), (p99, 990.0), (p99_9, 999.0), (max, 1000.0)]
        {
            assert!((found - expected).abs() <= expected / 1000.0, "{found} for {expected}");
        }
        assert_eq!(Latencies::new().percentiles(), None);
    }

    #[test]
    fn latencies_of_several_receivers_add_up() {
        let mut all = Latencies::new();
        all.record(5_000_000);
        all.add(&latencies());
        let percentiles = all.percentiles().unwrap();
        assert!((percentiles.max - 5000.0).abs() < 5.0, "{percentiles:?}");
        assert!((percentiles.p50 - 500.0).abs() < 2.0, "{percentiles:?}");
    }

    #[test]
    fn rates_follow_from_the_time() {
        let report = report();
        assert!((report.per_second - 5.0).abs() < 1e-9);
        assert!((report.mib_per_second - 5.0).abs() < 1e-9);
        let nothing = Report::default().timed(Duration::ZERO, None);
        assert!((nothing.per_second, nothing.mib_per_second) == (0.0, 0.0));
    }

    #[test]
    fn a_row_has_a_cell_for_each_column() {
        let header = Report::csv_header();
        assert!(header.contains(",latency_us_p99_9,"), "{header}");
        let row = report().csv();
        assert_eq!(row.split(',').count(), header.split(',').count(), "{row}");
        assert!(row.starts_with("channel,1048576,3,,,true,,5,10,0,2.0,5.0,5.0,0.02,"), "{row}");
        assert!(row.ends_with(",,,,,,true"), "{row}");
    }

    #[test]
    fn people_read_units() {
        let text = report().text();
        assert!(text.starts_with("channel: 3 members, 1048576 bytes, MLS\n"), "{text}");
        assert!(text.contains("delivered    10 in 2.000 s, 0 lost"), "{text}");
        assert!(text.contains("max 1.00 ms"), "{text}");
        assert!(text.contains("2000.0 µs each"), "{text}");
        let stopped = Report { complete: false, ..report() };
        assert!(stopped.text().contains("stopped early"));
    }
}
