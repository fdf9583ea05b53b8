//! A sample as lines: what stands where, how wide, in which colours. Pure.

use std::collections::VecDeque;

use clap::ValueEnum;
use owo_colors::{OwoColorize as _, Style};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::{Rate, Sample};
use crate::admin::Link;
use crate::output::text::visible;

/// In which order links stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sort {
    /// Those with most messages first
    #[default]
    Traffic,
    /// Those for whom most waits first
    Queue,
    /// By their first name
    Name,
    /// As they came
    Link,
}

impl Sort {
    pub(super) fn next(self) -> Self {
        match self {
            Self::Traffic => Self::Queue,
            Self::Queue => Self::Name,
            Self::Name => Self::Link,
            Self::Link => Self::Traffic,
        }
    }

    fn in_words(self) -> &'static str {
        match self {
            Self::Traffic => "traffic",
            Self::Queue => "queue",
            Self::Name => "name",
            Self::Link => "link",
        }
    }
}

/// How it is looked at.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Look {
    pub(super) sort: Sort,
    pub(super) colours: bool,
    /// Links above the first that is shown.
    pub(super) scroll: usize,
}

/// Width of a table that is not cut to a screen.
const WIDE: usize = 132;

/// Columns behind the name, each as wide as its widest value, and two between.
const COLUMNS: [(&str, usize); 7] = [
    ("IN MSG/S", 8),
    ("IN/S", 9),
    ("OUT MSG/S", 9),
    ("OUT/S", 9),
    ("QUEUED", 9),
    ("STATE", 7),
    ("AGE", 6),
];
const LINK: usize = 6;
const PEER: usize = 21;
const GAP: usize = 2;

/// The least that is left for a name; columns go from the right to make room.
const MIN_NAME: usize = 20;

/// The whole screen, `height` lines at most.
pub(super) fn screen(
    sample: &Sample,
    trouble: Option<&str>,
    history: &VecDeque<(Rate, Rate)>,
    look: &Look,
    now: OffsetDateTime,
    width: usize,
    height: usize,
) -> Vec<String> {
    let mut lines = head(sample, trouble, Some(history), look, width);
    let rows = height.saturating_sub(lines.len() + 3);
    lines.push(String::new());
    lines.extend(links(sample, look, now, width, rows));
    lines.truncate(height.saturating_sub(1));
    while lines.len() + 1 < height {
        lines.push(String::new());
    }
    let keys = format!("q quit   s sort: {}   \u{2191}\u{2193} scroll", look.sort.in_words());
    lines.push(paint(look, &fit(&keys, width), Style::new().dimmed()));
    lines.truncate(height);
    lines
}

/// The same for a file or a pipe: all links, and no history.
pub(crate) fn table(sample: &Sample, now: OffsetDateTime) -> String {
    let look = Look { sort: sample.sort, ..Look::default() };
    let mut lines = head(sample, None, None, &look, WIDE);
    lines.push(String::new());
    lines.extend(links(sample, &look, now, WIDE, usize::MAX));
    lines.iter().map(|line| line.trim_end()).collect::<Vec<_>>().join("\n")
}

fn head(
    sample: &Sample,
    trouble: Option<&str>,
    history: Option<&VecDeque<(Rate, Rate)>>,
    look: &Look,
    width: usize,
) -> Vec<String> {
    let (state, style) = match (trouble, sample.ready) {
        (Some(trouble), _) => (format!("no answer: {}", visible(trouble)), Style::new().red()),
        (None, true) => ("ready".to_owned(), Style::new().green()),
        (None, false) => ("draining".to_owned(), Style::new().yellow()),
    };
    let node = format!("slim-node {} at {}", visible(&sample.version), sample.node);
    let up = format!("up {}", age(sample.uptime_seconds));
    let cpu = sample.cpu.map(|cpu| format!("   cpu {:.0} %", cpu * 100.0)).unwrap_or_default();
    let links = sample.links.len() as u64 + sample.further_links;
    let counts = format!(
        "links {links}   connections {} of {}   names {}   subscriptions {}   memory {}{cpu}",
        sample.connections,
        sample.connections_limit,
        sample.names,
        sample.subscriptions,
        bytes(sample.resident_bytes as f64),
    );
    let flow = |what: &str, rate: Rate, of: fn(&(Rate, Rate)) -> f64| {
        let line = format!(
            "{what} {:>7} msg/s {:>9}/s",
            count(rate.messages_per_second),
            bytes(rate.bytes_per_second)
        );
        let curve = history.map(|history| curve(&history.iter().map(of).collect::<Vec<_>>()));
        fit(&format!("{line}   {}", curve.unwrap_or_default()), width)
    };
    let dropped: Vec<_> =
        sample.dropped.iter().map(|(reason, n)| format!("{} {n}", visible(reason))).collect();
    let dropped = if dropped.is_empty() { "none".to_owned() } else { dropped.join(", ") };
    let waits = format!(
        "queued {}   slow {}   shed {}   dropped: {dropped}",
        bytes(sample.queued_bytes as f64),
        sample.slow_links,
        sample.shed_links,
    );
    let waits = fit(&waits, width);
    let waits = match sample.slow_links {
        0 => waits,
        _ => paint(look, &waits, Style::new().yellow()),
    };
    let room = width.saturating_sub(node.width() + up.width() + 6);
    let title = match room {
        0 => cut(&node, width),
        _ => format!(
            "{}   {}   {up}",
            paint(look, &node, Style::new().bold()),
            paint(look, &cut(&state, room), style)
        ),
    };
    vec![
        title,
        fit(&counts, width),
        flow("in ", sample.received, |(received, _)| received.messages_per_second),
        flow("out", sample.delivered, |(_, delivered)| delivered.messages_per_second),
        waits,
    ]
}

/// A head line, so many links, and how many there are besides.
fn links(
    sample: &Sample,
    look: &Look,
    now: OffsetDateTime,
    width: usize,
    rows: usize,
) -> Vec<String> {
    let mut links: Vec<_> = sample.links.iter().collect();
    match look.sort {
        Sort::Traffic => links.sort_by(|a, b| traffic(b).total_cmp(&traffic(a))),
        Sort::Queue => links.sort_by_key(|link| std::cmp::Reverse(link.queued_bytes)),
        Sort::Name => links.sort_by(|a, b| a.names.first().cmp(&b.names.first())),
        Sort::Link => {}
    }
    let fixed = LINK + GAP + PEER + GAP;
    let mut columns = COLUMNS.len();
    let taken = |columns: usize| {
        COLUMNS[..columns].iter().map(|(_, width)| width + GAP).sum::<usize>() + fixed
    };
    while columns > 0 && taken(columns) + MIN_NAME > width {
        columns -= 1;
    }
    let name_width = width.saturating_sub(taken(columns));
    let row = |link: &str, peer: &str, name: &str, values: &[String]| {
        let mut row =
            format!("{:>LINK$}  {}  {}", cut(link, LINK), fit(peer, PEER), fit(name, name_width));
        for (value, (_, width)) in values.iter().zip(&COLUMNS[..columns]) {
            row.push_str(&format!("  {:>width$}", cut(value, *width)));
        }
        cut(&row, width)
    };
    let names = COLUMNS.map(|(name, _)| name.to_owned());
    let mut lines = vec![paint(
        look,
        &fit(&row("LINK", "PEER", "NAME", &names), width),
        Style::new().reversed(),
    )];
    let shown = links.iter().skip(look.scroll).take(rows);
    lines.extend(shown.map(|link| {
        let values = [
            count(link.received.messages_per_second),
            bytes(link.received.bytes_per_second),
            count(link.delivered.messages_per_second),
            bytes(link.delivered.bytes_per_second),
            bytes(link.queued_bytes as f64),
            visible(&link.state),
            since(&link.since, now),
        ];
        let line = row(&link.link.to_string(), &visible(&link.peer), &name(link), &values);
        match &*link.state {
            "good" => line,
            "behind" => paint(look, &line, Style::new().yellow()),
            _ => paint(look, &line, Style::new().red()),
        }
    }));
    if sample.further_links > 0 && lines.len() <= rows {
        lines.push(fit(&format!("and {} more", sample.further_links), width));
    }
    lines
}

fn traffic(link: &Link) -> f64 {
    link.received.messages_per_second + link.delivered.messages_per_second
}

/// The first name without its id, which nobody reads, and how many there are besides. A
/// link to another node has what leads there.
fn name(link: &Link) -> String {
    if link.kind == "peer" {
        return visible(&format!("peer {}, names {}", link.node_id, link.names_total));
    }
    let Some(first) = link.names.first() else { return "-".to_owned() };
    let readable = first.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
    match link.names_total {
        0 | 1 => visible(&readable),
        more => format!("{} +{}", visible(&readable), more - 1),
    }
}

fn since(since: &str, now: OffsetDateTime) -> String {
    match OffsetDateTime::parse(since, &Rfc3339) {
        Ok(since) => age((now - since).as_seconds_f64().max(0.0)),
        Err(_) => "?".to_owned(),
    }
}

fn age(seconds: f64) -> String {
    let seconds = seconds as u64;
    let (days, hours, minutes) = (seconds / 86400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{:02}s", seconds % 60),
        (0, ..) => format!("{hours}h{minutes:02}m"),
        _ => format!("{days}d{hours:02}h"),
    }
}

fn count(value: f64) -> String {
    match value {
        v if v >= 999_500.0 => format!("{:.1}M", v / 1e6),
        v if v >= 9999.5 => format!("{:.1}k", v / 1e3),
        v if v >= 10.0 || v == 0.0 => format!("{v:.0}"),
        v => format!("{v:.1}"),
    }
}

fn bytes(value: f64) -> String {
    match value {
        v if v >= 999_950_000.0 => format!("{:.1} GB", v / 1e9),
        v if v >= 999_950.0 => format!("{:.1} MB", v / 1e6),
        v if v >= 999.5 => format!("{:.1} kB", v / 1e3),
        v => format!("{v:.0} B"),
    }
}

/// Values as heights of blocks, the highest as high as a block is.
fn curve(values: &[f64]) -> String {
    const BLOCKS: [char; 8] = [
        '\u{2581}', '\u{2582}', '\u{2583}', '\u{2584}', '\u{2585}', '\u{2586}', '\u{2587}',
        '\u{2588}',
    ];
    let highest = values.iter().copied().fold(0.0, f64::max);
    let block = |value: &f64| match highest > 0.0 {
        true => BLOCKS[((value / highest * 7.0).round() as usize).min(7)],
        false => BLOCKS[0],
    };
    values.iter().map(block).collect()
}

/// Not wider than this.
fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let (mut cut, mut left) = (String::new(), width.saturating_sub(1));
    for c in text.chars() {
        let wide = c.width().unwrap_or(0);
        if wide > left {
            break;
        }
        left -= wide;
        cut.push(c);
    }
    if width > 0 {
        cut.push('\u{2026}');
    }
    cut
}

/// Exactly as wide as this.
fn fit(text: &str, width: usize) -> String {
    let cut = cut(text, width);
    let missing = width - cut.width().min(width);
    cut + &" ".repeat(missing)
}

fn paint(look: &Look, text: &str, style: Style) -> String {
    if look.colours { text.style(style).to_string() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::Flow;

    fn link(number: u64, name: &str, rate: f64, queued_bytes: u64) -> Link {
        Link {
            link: number,
            peer: "10.0.0.1:50000".to_owned(),
            since: "1970-01-01T00:00:00Z".to_owned(),
            names: vec![format!("{name}/ee23cd86-c165-f549-3bcd-cd4cde967fbd")],
            names_total: number,
            delivered: Flow {
                messages_per_second: rate,
                bytes_per_second: 1000.0 * rate,
                ..Flow::default()
            },
            queued_bytes,
            state: if queued_bytes > 0 { "behind" } else { "good" }.to_owned(),
            ..Link::default()
        }
    }

    fn sample() -> Sample {
        Sample {
            node: "node:1".to_owned(),
            ready: true,
            version: "0.1.0".to_owned(),
            uptime_seconds: 4000.0,
            links: vec![
                link(1, "a/b/slow", 1.0, 2_000_000),
                link(2, "a/b/alice", 12345.0, 0),
                link(3, "a/b/\u{1b}[31mevil", 50.0, 0),
            ],
            slow_links: 1,
            dropped: vec![("shed".to_owned(), 7)],
            ..Sample::default()
        }
    }

    fn now() -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(90_000).unwrap()
    }

    fn drawn(sort: Sort, width: usize, height: usize) -> Vec<String> {
        let look = Look { sort, ..Look::default() };
        let history = VecDeque::from([(Rate::default(), Rate::default())]);
        screen(&sample(), None, &history, &look, now(), width, height)
    }

    #[test]
    fn every_line_fits_whatever_the_screen() {
        for width in [1, 5, 20, 40, 80, 100, 200] {
            for height in [1, 2, 5, 8, 10, 24, 60] {
                for colours in [false, true] {
                    let look = Look { colours, ..Look::default() };
                    let history = (0..60).map(|_| (Rate::default(), Rate::default())).collect();
                    let trouble = Some("connection refused");
                    let lines = screen(&sample(), trouble, &history, &look, now(), width, height);
                    assert_eq!(lines.len(), height);
                    if !colours {
                        for line in &lines {
                            assert!(line.width() <= width, "{width}: {line:?}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn links_stand_in_the_order_that_is_wanted() {
        let order = |sort| -> Vec<String> {
            let lines = drawn(sort, 132, 24);
            lines[7..10].iter().map(|line| line.trim_start()[..1].to_owned()).collect()
        };
        assert_eq!(order(Sort::Traffic), ["2", "3", "1"]);
        assert_eq!(order(Sort::Queue)[0], "1");
        assert_eq!(order(Sort::Name), ["3", "2", "1"]);
        assert_eq!(order(Sort::Link), ["1", "2", "3"]);
    }

    #[test]
    fn a_table_says_it_all() {
        let table = table(&sample(), now());
        for expected in [
            "slim-node 0.1.0 at node:1   ready   up 1h06m",
            "queued 0 B   slow 1   shed 0   dropped: shed 7",
            "a/b/alice +1",
            "12.3k",
            "12.3 MB",
            "2.0 MB   behind   1d01h",
        ] {
            assert!(table.contains(expected), "{expected} is not in\n{table}");
        }
        assert!(!table.contains('\u{1b}'), "nobody paints on the terminal: {table}");
    }

    #[test]
    fn a_link_to_a_node_is_known_by_the_node() {
        let peer = Link {
            kind: "peer".to_owned(),
            node_id: "slim-2".to_owned(),
            names_total: 3,
            ..Link::default()
        };
        assert_eq!(name(&peer), "peer slim-2, names 3");
        assert_eq!(name(&Link::default()), "-");
    }

    #[test]
    fn a_curve_is_as_high_as_its_highest() {
        assert_eq!(curve(&[0.0, 5.0, 10.0]), "\u{2581}\u{2585}\u{2588}");
        assert_eq!(curve(&[0.0, 0.0]), "\u{2581}\u{2581}");
    }

    #[test]
    fn wide_characters_take_two_columns() {
        assert_eq!(fit("\u{4e16}\u{754c}", 5).width(), 5);
        assert_eq!(cut("\u{4e16}\u{754c}", 3), "\u{4e16}\u{2026}");
        assert_eq!(cut("abc", 0), "");
    }
}
