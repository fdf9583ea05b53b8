//! Every metric of the node: its name, what it means, and its samples.
//!
//! Names and units follow the conventions of Prometheus, and no label has values that a
//! peer chooses. What is pulled from the admin address and what is pushed to a collector
//! are this one list.

use std::fmt;
use std::fs;
use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};
use slim_proto::SLIM_VERSION;

use crate::metrics::{Counter, MetricsSnapshot};
use crate::view::Backlog;

/// A metric.
#[derive(Debug)]
pub(crate) struct Family {
    /// As Prometheus names it: counters end in `_total`, and in front of that is the unit.
    pub(crate) name: &'static str,
    pub(crate) help: &'static str,
    pub(crate) kind: Kind,
    pub(crate) samples: Vec<Sample>,
}

/// What becomes of a metric's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It goes up and down.
    Gauge,
    /// It only grows.
    Counter,
}

/// One value of a metric. Labels are our own words.
#[derive(Debug)]
pub(crate) struct Sample {
    pub(crate) labels: Vec<(&'static str, &'static str)>,
    pub(crate) value: Value,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value {
    Int(u64),
    Float(f64),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(value) => value.fmt(f),
            Self::Float(value) => value.fmt(f),
        }
    }
}

/// All that is told.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) node: MetricsSnapshot,
    /// Names that somebody has subscribed to.
    pub(crate) names: u64,
    pub(crate) backlog: Backlog,
    pub(crate) is_ready: bool,
    pub(crate) max_connections: u64,
    pub(crate) began_at: SystemTime,
    pub(crate) process: Process,
}

/// What the system knows of this process, where it tells.
#[derive(Debug, Default)]
pub(crate) struct Process {
    pub(crate) cpu: Duration,
    pub(crate) resident_bytes: Option<u64>,
    pub(crate) open_descriptors: Option<u64>,
}

impl Process {
    pub(crate) fn now() -> Self {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = resident.and_then(|line| line.trim().strip_suffix("kB"));
        let descriptors = fs::read_dir("/proc/self/fd").ok().map(Iterator::count);
        Self {
            cpu: Duration::new(cpu.tv_sec as u64, cpu.tv_nsec as u32),
            resident_bytes: kilobytes.and_then(|n| Some(n.trim().parse::<u64>().ok()? * 1024)),
            open_descriptors: descriptors.map(|n| n as u64),
        }
    }
}

impl Snapshot {
    /// Every metric with its samples, in the order in which they are shown.
    pub(crate) fn families(&self) -> Vec<Family> {
        let mut all = Families::default();
        let Self { node, backlog, process, .. } = self;
        all.gauge("slim_build_info", "Always 1; the versions of the program and of the protocol.");
        let version = env!("CARGO_PKG_VERSION");
        all.sample(&[("version", version), ("protocol", SLIM_VERSION)], 1);
        all.gauge("slim_ready", "1 while links are taken, 0 while the node drains.");
        all.value(u64::from(self.is_ready));

        all.gauge(
            "slim_connections",
            "Connections that are open, by whether a link was up on them.",
        );
        let settled = node.connections.saturating_sub(node.unnegotiated_connections);
        all.sample(&[("state", "negotiated")], settled);
        all.sample(&[("state", "new")], node.unnegotiated_connections);
        all.gauge("slim_connections_limit", "Connections that there may be.");
        all.value(self.max_connections);
        all.counter(
            "slim_connections_cut_total",
            "Connections cut because no link came up in time, or to make room for others.",
        );
        all.value(node.cut_connections);
        all.counter(
            "slim_connections_delayed_total",
            "How often a limit kept connections waiting.",
        );
        all.value(node.times_full);

        all.gauge("slim_links", "Links that are up.");
        all.value(node.links);
        all.counter("slim_links_opened_total", "Links that came up.");
        all.value(node.opened_links);
        all.counter(
            "slim_links_refused_total",
            "Links that did not come up: no negotiation, a bad one, no TLS.",
        );
        all.value(node.refused_links);
        all.counter(
            "slim_links_unauthenticated_total",
            "Links refused because what they showed proves nobody.",
        );
        all.value(node.unauthenticated_links);
        all.counter("slim_links_shed_total", "Links closed because their peer read too slowly.");
        all.value(node.shed_links);
        all.counter(
            "slim_links_throttled_total",
            "How often a link was not read for a while because it had sent more than it may.",
        );
        all.value(node.throttled);
        all.gauge("slim_slow_links", "Links whose queue was full and who have not caught up.");
        all.value(backlog.slow_links);
        all.gauge("slim_queued_bytes", "Data that waits to be sent, on all links.");
        all.value(backlog.queued_bytes);

        all.gauge("slim_names", "Names that somebody has subscribed to.");
        all.value(self.names);
        all.gauge("slim_subscriptions", "Pairs of a link and a name that it has subscribed to.");
        all.value(node.subscriptions);
        all.counter(
            "slim_subscriptions_refused_total",
            "Subscriptions refused, and unsubscriptions of what was not subscribed.",
        );
        all.value(node.refused_subscriptions);
        all.counter(
            "slim_subscriptions_denied_total",
            "Subscriptions that the policy does not allow.",
        );
        all.value(node.denied_subscriptions);
        all.counter(
            "slim_subscriptions_withdrawn_total",
            "Names taken from their links because a new policy does not allow them.",
        );
        all.value(node.withdrawn_subscriptions);

        all.gauge("slim_peers", "Links that lead to other nodes.");
        all.value(node.peers);
        all.gauge("slim_peer_names", "Pairs of a peer and something that it has announced.");
        all.value(node.peer_names);
        all.counter("slim_peer_dials_failed_total", "How often a peer could not be reached.");
        all.value(node.failed_dials);
        all.counter(
            "slim_peer_unacknowledged_total",
            "Announcements that peers did not acknowledge in time.",
        );
        all.value(node.unacknowledged);

        all.counter(
            "slim_received_messages_total",
            "Messages that arrived, dropped ones included.",
        );
        all.value(node.received);
        all.counter(
            "slim_received_bytes_total",
            "Bytes of the received messages that were understood.",
        );
        all.value(node.received_bytes);
        all.counter("slim_delivered_messages_total", "Copies that were queued for a subscriber.");
        all.value(node.delivered);
        all.counter("slim_delivered_bytes_total", "Bytes of these copies.");
        all.value(node.delivered_bytes);
        all.counter(
            "slim_dropped_messages_total",
            "Messages or copies that went nowhere, by reason.",
        );
        let dropped = &node.dropped;
        for (reason, count) in [
            (Counter::Malformed, dropped.malformed),
            (Counter::BadMac, dropped.bad_mac),
            (Counter::Unexpected, dropped.unexpected),
            (Counter::TtlExpired, dropped.ttl_expired),
            (Counter::Denied, dropped.denied),
            (Counter::TooLarge, dropped.too_large),
            (Counter::NoSubscriber, dropped.no_subscriber),
            (Counter::LinkClosed, dropped.link_closed),
            (Counter::Shed, dropped.shed),
        ] {
            all.sample(&[("reason", reason.reason())], count);
        }

        all.counter("process_cpu_seconds_total", "Processor time of the process.");
        all.float(process.cpu.as_secs_f64());
        let began = self.began_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        all.gauge("process_start_time_seconds", "When it began, since 1970.");
        all.float(began.as_secs_f64());
        if let Some(bytes) = process.resident_bytes {
            all.gauge("process_resident_memory_bytes", "Memory of the process.");
            all.value(bytes);
        }
        if let Some(descriptors) = process.open_descriptors {
            all.gauge("process_open_fds", "File descriptors of the process.");
            all.value(descriptors);
        }
        all.0
    }
}

/// The list as it grows. A family begins with its name, its samples follow.
#[derive(Default)]
struct Families(Vec<Family>);

impl Families {
    fn gauge(&mut self, name: &'static str, help: &'static str) {
        self.0.push(Family { name, help, kind: Kind::Gauge, samples: Vec::new() });
    }

    fn counter(&mut self, name: &'static str, help: &'static str) {
        self.0.push(Family { name, help, kind: Kind::Counter, samples: Vec::new() });
    }

    fn value(&mut self, value: u64) {
        self.sample(&[], value);
    }

    fn float(&mut self, value: f64) {
        self.push(Sample { labels: Vec::new(), value: Value::Float(value) });
    }

    fn sample(&mut self, labels: &[(&'static str, &'static str)], value: u64) {
        self.push(Sample { labels: labels.to_vec(), value: Value::Int(value) });
    }

    fn push(&mut self, sample: Sample) {
        self.0.last_mut().expect("a family has begun").samples.push(sample);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
