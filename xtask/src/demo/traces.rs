//! `cargo xtask demo --traces`: what an OpenTelemetry collector gets of the conversation.
//! Every line has to be one trace: its publish, the node on the way, and everybody who
//! heard it; and the metrics have to count as many.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::Context;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::node::{Node, program};

/// A collector as a child.
#[derive(Debug)]
pub(super) struct Collector(Node);

/// A span as the collector tells it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Span {
    service: String,
    name: String,
    trace: String,
    id: String,
    parent: String,
    attributes: BTreeMap<String, String>,
    error: Option<String>,
    took_ns: u64,
}

/// A value of a metric as the collector tells it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Metric {
    service: String,
    name: String,
    value: f64,
}

/// What the programs have sent.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    spans: Vec<Span>,
    metrics: Vec<Metric>,
}

/// What is wrong with the traces, and what one looks like.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) failures: Vec<String>,
    pub(super) example: Vec<String>,
}

impl Collector {
    pub(super) fn start(path: &Path) -> anyhow::Result<Self> {
        Node::start(&mut program(path), None).map(Self).context("the collector")
    }

    /// Has a program send its telemetry here.
    pub(super) fn has(&self, command: &mut Command) {
        command.arg("--enable-opentelemetry");
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", self.0.address());
    }

    /// All that there is once the programs have ended, who send what they have then.
    pub(super) fn sent(mut self) -> anyhow::Result<Sent> {
        Ok(Sent { spans: self.ask("spans")?, metrics: self.ask("metrics")? })
    }

    fn ask<T: DeserializeOwned>(&mut self, what: &str) -> anyhow::Result<Vec<T>> {
        let line = self.0.ask(what).context("the collector")?;
        serde_json::from_str(&line).context("what the collector says")
    }
}

impl Span {
    fn is(&self, operation: &str) -> bool {
        self.name.split(' ').next() == Some(operation)
    }

    fn attribute(&self, key: &str) -> &str {
        self.attributes.get(key).map_or("", String::as_str)
    }

    /// What it is about, in a line, behind the branch of a tree.
    fn line(&self, branch: &str) -> String {
        // Of a member, its name without the id.
        let local = self.attribute("slim.local").rsplit_once('/').map_or("", |(name, _)| name);
        let what = match (self.is("publish"), self.is("route")) {
            (true, _) => format!("{} have it", self.attribute("slim.delivered")),
            (_, true) => format!("{} copies", self.attribute("slim.copies")),
            _ => String::new(),
        };
        let micros = self.took_ns / 1000;
        let name = format!("{branch}{}", self.name);
        let line = format!("{name:<26} {:<10}{micros:>7} µs  {local:<22}{what}", self.service);
        line.trim_end().to_owned()
    }
}

/// Whether each of so many lines was one trace, to all but one of so many members.
pub(super) fn judge(sent: &Sent, members: usize, lines: usize) -> Verdict {
    let Sent { spans, metrics } = sent;
    let mut verdict = Verdict::default();
    for (service, name, least) in [
        ("slim", "slim.client.published", lines),
        ("slim-node", "slim.delivered.messages", lines * (members - 1)),
    ] {
        let values = metrics.iter().filter(|one| one.service == service && one.name == name);
        // The sum of nothing would be shown as -0.
        let counted = values.fold(0.0, |sum, one| sum + one.value);
        if counted < least as f64 {
            verdict.failures.push(format!("{service} counts {counted} {name}, not {least}"));
        }
    }
    let published: Vec<_> = spans.iter().filter(|span| span.is("publish")).collect();
    if published.len() != lines {
        verdict.failures.push(format!("{lines} lines were said, {} traced", published.len()));
    }
    for publish in &published {
        let parts: Vec<_> = spans.iter().filter(|span| span.trace == publish.trace).collect();
        let children = |operation| {
            let is_it = move |span: &&&Span| span.is(operation) && span.parent == publish.id;
            parts.iter().filter(is_it).count()
        };
        // What is sent again is routed again.
        let (routed, received) = (children("route"), children("receive"));
        if routed == 0 || received != members - 1 || routed + received + 1 != parts.len() {
            let tree = tree(publish, &parts).join("\n");
            verdict.failures.push(format!("a trace that is none of a line:\n{tree}"));
        }
        if let Some(error) = &publish.error {
            verdict.failures.push(format!("a line ended with {error}"));
        }
        verdict.example = tree(publish, &parts);
    }
    verdict
}

/// A span, and below it those of the same trace.
fn tree(root: &Span, parts: &[&Span]) -> Vec<String> {
    let mut lines = vec![root.line("")];
    let mut children: Vec<_> = parts.iter().filter(|span| span.id != root.id).collect();
    children.sort_by_key(|span| (!span.is("route"), span.attribute("slim.local")));
    for (index, child) in children.iter().enumerate() {
        let branch = if index + 1 == children.len() { "└ " } else { "├ " };
        lines.push(child.line(branch));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(name: &str, id: &str, parent: &str) -> Span {
        Span {
            service: "slim".to_owned(),
            name: format!("{name} a/b/c"),
            trace: "t".to_owned(),
            id: id.to_owned(),
            parent: parent.to_owned(),
            attributes: BTreeMap::new(),
            error: None,
            took_ns: 1500,
        }
    }

    fn metric(service: &str, name: &str, value: f64) -> Metric {
        Metric { service: service.to_owned(), name: name.to_owned(), value }
    }

    fn line() -> Sent {
        let spans = vec![
            span("receive", "3", "1"),
            span("publish", "1", ""),
            span("route", "2", "1"),
            span("receive", "4", "1"),
        ];
        let metrics = vec![
            metric("slim", "slim.client.published", 1.0),
            metric("slim-node", "slim.delivered.messages", 9.0),
        ];
        Sent { spans, metrics }
    }

    #[test]
    fn a_line_is_a_publish_a_route_and_all_who_heard_it() {
        let verdict = judge(&line(), 3, 1);
        assert_eq!(verdict.failures, Vec::<String>::new());
        let first: Vec<_> =
            verdict.example.iter().filter_map(|line| line.split(" a/b/c").next()).collect();
        assert_eq!(first, ["publish", "├ route", "├ receive", "└ receive"]);
    }

    #[test]
    fn what_is_missing_or_too_much_is_told() {
        let check = |change: &dyn Fn(&mut Vec<Span>), expected: &str| {
            let mut sent = line();
            change(&mut sent.spans);
            let failures = judge(&sent, 3, 1).failures.join("\n");
            assert!(failures.contains(expected), "no {expected:?} in {failures:?}");
        };
        check(&|spans| spans.truncate(0), "1 lines were said, 0 traced");
        check(&|spans| drop(spans.remove(0)), "a trace that is none of a line");
        check(&|spans| drop(spans.remove(2)), "a trace that is none of a line");
        check(&|spans| spans[0].parent = "4".to_owned(), "a trace that is none of a line");
        check(&|spans| spans.push(span("receive", "5", "1")), "a trace that is none of a line");
        let without = Sent { metrics: Vec::new(), ..line() };
        let failures = judge(&without, 3, 1).failures;
        assert_eq!(failures[0], "slim counts 0 slim.client.published, not 1");
        assert_eq!(failures[1], "slim-node counts 0 slim.delivered.messages, not 2");
        check(&|spans| spans[1].error = Some("lost".to_owned()), "a line ended with lost");
    }
}
