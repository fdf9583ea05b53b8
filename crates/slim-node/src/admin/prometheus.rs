//! Metrics in the text format that Prometheus reads (version 0.0.4).

use std::fmt::Write as _;

use crate::families::{Family, Kind};

/// The text of all these.
pub(super) fn to_text(families: &[Family]) -> String {
    let mut text = String::new();
    for family in families {
        write_family(&mut text, family).expect("a string takes everything");
    }
    text
}

fn write_family(text: &mut String, family: &Family) -> std::fmt::Result {
    let Family { name, help, kind, samples } = family;
    let kind = match kind {
        Kind::Gauge => "gauge",
        Kind::Counter => "counter",
    };
    writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}")?;
    for sample in samples {
        text.push_str(name);
        // Labels are our own words, which need no escaping.
        for (index, (label, value)) in sample.labels.iter().enumerate() {
            write!(text, "{}{label}=\"{value}\"", if index == 0 { "{" } else { "," })?;
        }
        let end = if sample.labels.is_empty() { "" } else { "}" };
        writeln!(text, "{end} {}", sample.value)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::families::{Process, Snapshot};
    use crate::view::Backlog;
    use crate::{Dropped, MetricsSnapshot};

    #[test]
    fn counters_stand_under_their_names() {
        let node = MetricsSnapshot {
            connections: 7,
            unnegotiated_connections: 2,
            delivered_bytes: 1_000_000_000_000,
            dropped: Dropped { bad_mac: 3, ..Dropped::default() },
            ..MetricsSnapshot::default()
        };
        let snapshot = Snapshot {
            node,
            names: 4,
            backlog: Backlog { queued_bytes: 5, slow_links: 1 },
            is_ready: true,
            max_connections: 100,
            began_at: SystemTime::UNIX_EPOCH + Duration::from_millis(1500),
            process: Process { cpu: Duration::from_millis(250), ..Process::default() },
        };
        let text = to_text(&snapshot.families());
        for line in [
            "# TYPE slim_connections gauge",
            "slim_connections{state=\"negotiated\"} 5",
            "slim_connections{state=\"new\"} 2",
            "# TYPE slim_delivered_bytes_total counter",
            "slim_delivered_bytes_total 1000000000000",
            "slim_dropped_messages_total{reason=\"bad_mac\"} 3",
            "slim_ready 1",
            "slim_names 4",
            "slim_slow_links 1",
            "process_cpu_seconds_total 0.25",
            "process_start_time_seconds 1.5",
        ] {
            assert!(text.lines().any(|have| have == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("process_open_fds"), "what is not known is not told");
    }
}
