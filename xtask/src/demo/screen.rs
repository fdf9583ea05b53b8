//! What the demo shows: progress, the conversation, the table at the end.

use std::env;
use std::io::{self, IsTerminal};
use std::time::Duration;

use comfy_table::{Cell, CellAlignment, Table, presets};
use owo_colors::{AnsiColors, OwoColorize};

use super::conversation::{Completed, Summary};

/// One for each member, then from the start again. Red is for what went wrong.
const COLOURS: [AnsiColors; 5] = [
    AnsiColors::Cyan,
    AnsiColors::Yellow,
    AnsiColors::Magenta,
    AnsiColors::Blue,
    AnsiColors::BrightGreen,
];

/// Above this, listeners are counted and not named.
const LISTENERS_NAMED: usize = 3;

/// Stdout, with colours if it is a terminal that shows them.
#[derive(Debug)]
pub(super) struct Screen {
    has_colours: bool,
    /// Columns of the names.
    width: usize,
}

impl Screen {
    /// A screen for labels of up to `width` columns. `NO_COLOR` and
    /// `CLICOLOR_FORCE` decide before the terminal does.
    pub(super) fn new(width: usize) -> Self {
        let is_set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
        let has_colours =
            !is_set("NO_COLOR") && (is_set("CLICOLOR_FORCE") || io::stdout().is_terminal());
        Self { has_colours, width }
    }

    /// A line about the demo itself.
    pub(super) fn note(&self, text: &str) {
        println!("{}", self.paint(text, |text| text.dimmed().to_string()));
    }

    /// A line about what a member (or, without a colour of its own, the node) does.
    pub(super) fn progress(&self, who: Option<usize>, label: &str, text: &str) {
        println!(
            "{}  {}",
            self.label(who, label),
            self.paint(text, |text| text.dimmed().to_string())
        );
    }

    /// A line that everybody heard.
    pub(super) fn spoken(&self, line: &Completed<'_>) {
        let listeners = if line.listeners.len() <= LISTENERS_NAMED {
            line.listeners.join(", ")
        } else {
            format!("all {} others", line.listeners.len())
        };
        let heard = format!("heard by {listeners} in {}", milliseconds(line.took));
        let heard = self.paint(&heard, |heard| heard.dimmed().to_string());
        println!("{}  {:<42} {heard}", self.label(Some(line.speaker), line.label), line.text);
    }

    /// The numbers at the end.
    pub(super) fn summary(&self, summary: &Summary, join: Option<Duration>, mls: bool) {
        println!("\n{}", table(summary, join, mls));
    }

    /// The last line of a run that went well.
    pub(super) fn success(&self, text: &str) {
        println!("{}", self.paint(text, |text| text.green().to_string()));
    }

    /// What went wrong.
    pub(super) fn failure(&self, text: &str) {
        println!("{}", self.paint(text, |text| text.red().to_string()));
    }

    fn label(&self, who: Option<usize>, label: &str) -> String {
        let label = format!("{label:<width$}", width = self.width);
        match who {
            None => label,
            Some(id) => self
                .paint(&label, |label| label.color(COLOURS[id % COLOURS.len()]).bold().to_string()),
        }
    }

    fn paint(&self, text: &str, paint: impl Fn(&str) -> String) -> String {
        if self.has_colours { paint(text) } else { text.to_owned() }
    }
}

/// For times between a loopback delivery and a slow start.
pub(super) fn milliseconds(took: Duration) -> String {
    format!("{:.1} ms", took.as_secs_f64() * 1000.0)
}

fn table(summary: &Summary, join: Option<Duration>, mls: bool) -> Table {
    let time = |took: Option<Duration>| took.map_or_else(|| "–".to_owned(), milliseconds);
    let unless_told = |text: Option<String>| text.unwrap_or_else(|| "not told".to_owned());
    let (suite, epoch) = if mls {
        let epoch = summary.epoch.map(|epoch| epoch.to_string());
        (unless_told(summary.suite.clone()), unless_told(epoch))
    } else {
        ("off".to_owned(), "–".to_owned())
    };
    let rows = [
        ("members", summary.members.to_string()),
        ("messages", summary.messages.to_string()),
        ("deliveries", summary.deliveries.to_string()),
        ("lost", summary.lost.to_string()),
        ("time to join", time(join)),
        ("delivery p50", time(summary.delivery_p50)),
        ("delivery p99", time(summary.delivery_p99)),
        ("MLS suite", suite),
        ("MLS epoch", epoch),
    ];
    let mut table = Table::new();
    table.load_preset(presets::UTF8_BORDERS_ONLY);
    for (name, value) in rows {
        table.add_row([Cell::new(name), Cell::new(value).set_alignment(CellAlignment::Right)]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_each_number_once() {
        let summary = Summary {
            members: 3,
            messages: 15,
            deliveries: 29,
            lost: 1,
            delivery_p50: Some(Duration::from_micros(1500)),
            delivery_p99: None,
            suite: Some("P256".to_owned()),
            epoch: Some(2),
        };
        let with = table(&summary, Some(Duration::from_millis(80)), true).to_string();
        for row in ["members", "15", "29", "1.5 ms", "80.0 ms", "–", "P256", "2"] {
            assert!(with.contains(row), "no {row} in\n{with}");
        }
        let without = table(&summary, None, false).to_string();
        assert!(without.contains("off") && !without.contains("P256"), "{without}");
    }
}
