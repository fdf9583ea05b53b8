//! The counters in the text format that Prometheus reads (version 0.0.4). Names and units
//! follow its conventions, and no label has values that a peer chooses.

use std::fmt::{Display, Write as _};
use std::fs;
use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};
use slim_proto::SLIM_VERSION;

use crate::metrics::MetricsSnapshot;
use crate::view::Backlog;

/// All that is told.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) node: MetricsSnapshot,
    /// Names that somebody has subscribed to.
    pub(super) names: u64,
    pub(super) backlog: Backlog,
    pub(super) is_ready: bool,
    pub(super) max_connections: u64,
    pub(super) began_at: SystemTime,
    pub(super) process: Process,
}

/// What the system knows of this process, where it tells.
#[derive(Debug, Default)]
pub(super) struct Process {
    cpu: Duration,
    resident_bytes: Option<u64>,
    open_descriptors: Option<usize>,
}

impl Process {
    pub(super) fn now() -> Self {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = resident.and_then(|line| line.trim().strip_suffix("kB"));
        Self {
            cpu: Duration::new(cpu.tv_sec as u64, cpu.tv_nsec as u32),
            resident_bytes: kilobytes.and_then(|n| Some(n.trim().parse::<u64>().ok()? * 1024)),
            open_descriptors: fs::read_dir("/proc/self/fd").ok().map(Iterator::count),
        }
    }
}

impl Snapshot {
    pub(super) fn to_text(&self) -> String {
        let mut text = Text::default();
        let Self { node, backlog, process, .. } = self;
        text.gauge("slim_build_info", "Always 1; the versions of the program and of the protocol.");
        let version = env!("CARGO_PKG_VERSION");
        text.sample(&[("version", version), ("protocol", SLIM_VERSION)], 1);
        text.gauge("slim_ready", "1 while links are taken, 0 while the node drains.");
        text.value(u8::from(self.is_ready));

        text.gauge(
            "slim_connections",
            "Connections that are open, by whether a link was up on them.",
        );
        let settled = node.connections.saturating_sub(node.unnegotiated_connections);
        text.sample(&[("state", "negotiated")], settled);
        text.sample(&[("state", "new")], node.unnegotiated_connections);
        text.gauge("slim_connections_limit", "Connections that there may be.");
        text.value(self.max_connections);
        text.counter(
            "slim_connections_cut_total",
            "Connections cut because no link came up in time, or to make room for others.",
        );
        text.value(node.cut_connections);
        text.counter(
            "slim_connections_delayed_total",
            "How often a limit kept connections waiting.",
        );
        text.value(node.times_full);

        text.gauge("slim_links", "Links that are up.");
        text.value(node.links);
        text.counter("slim_links_opened_total", "Links that came up.");
        text.value(node.opened_links);
        text.counter(
            "slim_links_refused_total",
            "Links that did not come up: no negotiation, a bad one, no TLS.",
        );
        text.value(node.refused_links);
        text.counter(
            "slim_links_unauthenticated_total",
            "Links refused because what they showed proves nobody.",
        );
        text.value(node.unauthenticated_links);
        text.counter("slim_links_shed_total", "Links closed because their peer read too slowly.");
        text.value(node.shed_links);
        text.counter(
            "slim_links_throttled_total",
            "How often a link was not read for a while because it had sent more than it may.",
        );
        text.value(node.throttled);
        text.gauge("slim_slow_links", "Links whose queue was full and who have not caught up.");
        text.value(backlog.slow_links);
        text.gauge("slim_queued_bytes", "Data that waits to be sent, on all links.");
        text.value(backlog.queued_bytes);

        text.gauge("slim_names", "Names that somebody has subscribed to.");
        text.value(self.names);
        text.gauge("slim_subscriptions", "Pairs of a link and a name that it has subscribed to.");
        text.value(node.subscriptions);
        text.counter(
            "slim_subscriptions_refused_total",
            "Subscriptions refused, and unsubscriptions of what was not subscribed.",
        );
        text.value(node.refused_subscriptions);
        text.counter(
            "slim_subscriptions_denied_total",
            "Subscriptions that the policy does not allow.",
        );
        text.value(node.denied_subscriptions);
        text.counter(
            "slim_subscriptions_withdrawn_total",
            "Names taken from their links because a new policy does not allow them.",
        );
        text.value(node.withdrawn_subscriptions);

        text.gauge("slim_peers", "Links that lead to other nodes.");
        text.value(node.peers);
        text.gauge("slim_peer_names", "Pairs of a peer and something that it has announced.");
        text.value(node.peer_names);
        text.counter("slim_peer_dials_failed_total", "How often a peer could not be reached.");
        text.value(node.failed_dials);
        text.counter(
            "slim_peer_unacknowledged_total",
            "Announcements that peers did not acknowledge in time.",
        );
        text.value(node.unacknowledged);

        text.counter(
            "slim_received_messages_total",
            "Messages that arrived, dropped ones included.",
        );
        text.value(node.received);
        text.counter(
            "slim_received_bytes_total",
            "Bytes of the received messages that were understood.",
        );
        text.value(node.received_bytes);
        text.counter("slim_delivered_messages_total", "Copies that were queued for a subscriber.");
        text.value(node.delivered);
        text.counter("slim_delivered_bytes_total", "Bytes of these copies.");
        text.value(node.delivered_bytes);
        text.counter(
            "slim_dropped_messages_total",
            "Messages or copies that went nowhere, by reason.",
        );
        let dropped = &node.dropped;
        for (reason, count) in [
            ("malformed", dropped.malformed),
            ("bad_mac", dropped.bad_mac),
            ("unexpected", dropped.unexpected),
            ("ttl_expired", dropped.ttl_expired),
            ("denied", dropped.denied),
            ("too_large", dropped.too_large),
            ("no_subscriber", dropped.no_subscriber),
            ("link_closed", dropped.link_closed),
            ("shed", dropped.shed),
        ] {
            text.sample(&[("reason", reason)], count);
        }

        text.counter("process_cpu_seconds_total", "Processor time of the process.");
        text.value(process.cpu.as_secs_f64());
        let began = self.began_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        text.gauge("process_start_time_seconds", "When it began, since 1970.");
        text.value(began.as_secs_f64());
        if let Some(bytes) = process.resident_bytes {
            text.gauge("process_resident_memory_bytes", "Memory of the process.");
            text.value(bytes);
        }
        if let Some(descriptors) = process.open_descriptors {
            text.gauge("process_open_fds", "File descriptors of the process.");
            text.value(descriptors);
        }
        text.text
    }
}

/// The text as it grows. A family of samples begins with its name.
#[derive(Debug, Default)]
struct Text {
    text: String,
    family: &'static str,
}

impl Text {
    fn gauge(&mut self, name: &'static str, help: &str) {
        self.begin(name, "gauge", help);
    }

    fn counter(&mut self, name: &'static str, help: &str) {
        self.begin(name, "counter", help);
    }

    fn begin(&mut self, name: &'static str, kind: &str, help: &str) {
        self.family = name;
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    fn value(&mut self, value: impl Display) {
        let name = self.family;
        self.line(format_args!("{name} {value}"));
    }

    /// Labels are our own words, which need no escaping.
    fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<_> = labels.iter().map(|(k, v)| format!("{k}=\"{v}\"")).collect();
        let name = self.family;
        self.line(format_args!("{name}{{{}}} {value}", labels.join(",")));
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.text, "{line}").expect("a string takes everything");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Dropped;

    #[test]
    fn counters_stand_under_their_names() {
        let node = MetricsSnapshot {
            connections: 7,
            unnegotiated_connections: 2,
            delivered_bytes: 1_000_000_000_000,
            dropped: Dropped { bad_mac: 3, ..Dropped::default() },
            ..MetricsSnapshot::default()
        };
        let text = Snapshot {
            node,
            names: 4,
            backlog: Backlog { queued_bytes: 5, slow_links: 1 },
            is_ready: true,
            max_connections: 100,
            began_at: SystemTime::UNIX_EPOCH + Duration::from_millis(1500),
            process: Process { cpu: Duration::from_millis(250), ..Process::default() },
        }
        .to_text();
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

    #[test]
    fn what_the_system_tells_is_there() {
        let process = Process::now();
        assert!(process.cpu > Duration::ZERO);
        if cfg!(target_os = "linux") {
            assert!(process.resident_bytes.unwrap() > 1_000_000);
            assert!(process.open_descriptors.unwrap() > 2);
        }
    }
}
