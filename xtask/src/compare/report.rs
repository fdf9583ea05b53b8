//! Tables, as text and in docs/performance.md.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context, ensure};

use super::cases::Case;
use super::plot;
use super::samples::{Samples, Spread};
use super::side::Side;
use crate::cargo;

/// The document, and where its plots are.
const DOCUMENT: &str = "docs/performance.md";
const PLOTS: &str = "docs/performance";

/// Everything between these two lines is made by `cargo xtask compare --write`.
const BEGIN: &str = "<!-- begin: cargo xtask compare --write -->";
const END: &str = "<!-- end: cargo xtask compare --write -->";

/// A line of the table.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) title: String,
    pub(super) metric: &'static str,
    pub(super) x: Option<f64>,
    pub(super) unit: &'static str,
    /// After the point.
    pub(super) digits: usize,
    pub(super) better: Better,
    pub(super) goals: Vec<Goal>,
}

/// Which numbers are the good ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Better {
    Less,
    More,
}

/// What our number is meant to be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Goal {
    /// So many times the reference's, or better.
    OfReference(f64),
    /// So many times the floor's, or better.
    OfFloor(f64),
    AtMost(f64),
    AtLeast(f64),
}

/// A table of the cases that have lines, and a list of those that were varied.
pub(super) fn tables(cases: &[&Case], samples: &Samples) -> Vec<String> {
    let mut table = String::from(
        "| | ours | reference | relay | floor | ours : reference | ours : floor | goal | |\n\
         |---|---:|---:|---:|---:|---:|---:|---|---|\n",
    );
    let mut grown = Vec::new();
    for case in cases {
        for line in &case.lines {
            add_line(&mut table, case, line, samples);
        }
        grown.extend(
            case.plots
                .iter()
                .filter(|plot| {
                    !plot.is_over_time()
                        && !samples.xs(case.name, plot.metric, Side::Ours).is_empty()
                })
                .map(|plot| {
                    let mut table =
                        format!("{}, {}\n\n| {} |", plot.title, plot.y_label, plot.x_label);
                    for side in case.sides {
                        write!(table, " {side} |").expect("a string takes everything");
                    }
                    table.push_str("\n|---:|");
                    table.push_str(&"---:|".repeat(case.sides.len()));
                    table.push('\n');
                    for x in samples.xs(case.name, plot.metric, Side::Ours) {
                        write!(table, "| {} |", grouped(x, 0)).expect("a string takes everything");
                        for &side in case.sides {
                            let spread = samples.of(case.name, plot.metric, side, Some(x));
                            let text = spread
                                .map_or_else(|| "–".to_owned(), |spread| grouped(spread.median, 2));
                            write!(table, " {text} |").expect("a string takes everything");
                        }
                        table.push('\n');
                    }
                    table
                }),
        );
    }
    let has_lines = cases.iter().any(|case| !case.lines.is_empty());
    has_lines.then_some(table).into_iter().chain(grown).collect()
}

fn add_line(table: &mut String, case: &Case, line: &Line, samples: &Samples) {
    let of = |side| samples.of(case.name, line.metric, side, line.x);
    let Some(ours) = of(Side::Ours) else { return };
    let ratio = |other| samples.ratio(case.name, line.metric, [Side::Ours, other], line.x);
    let cell = |side| match of(side) {
        Some(spread) => format!("{} {}", grouped(spread.median, line.digits), line.unit),
        None => "–".to_owned(),
    };
    let (of_reference, of_floor) = (ratio(Side::Reference), ratio(Side::Floor));
    let verdicts: Vec<(String, bool)> = line
        .goals
        .iter()
        .filter_map(|&goal| {
            let (number, limit, of) = match goal {
                Goal::OfReference(limit) => (of_reference?.median, limit, " × reference"),
                Goal::OfFloor(limit) => (of_floor?.median, limit, " × floor"),
                Goal::AtMost(limit) | Goal::AtLeast(limit) => (ours.median, limit, ""),
            };
            let is_less = match goal {
                Goal::AtMost(_) => true,
                Goal::AtLeast(_) => false,
                _ => line.better == Better::Less,
            };
            let (sign, is_met) =
                if is_less { ("≤", number <= limit) } else { ("≥", number >= limit) };
            let unit = if of.is_empty() { format!(" {}", line.unit) } else { of.to_owned() };
            Some((format!("{sign} {limit}{unit}"), is_met))
        })
        .collect();
    let goals: Vec<&str> = verdicts.iter().map(|(text, _)| text.as_str()).collect();
    let verdict = match verdicts.as_slice() {
        [] => "",
        all if all.iter().all(|(_, is_met)| *is_met) => "met",
        _ => "**missed**",
    };
    writeln!(
        table,
        "| {} | {} | {} | {} | {} | {} | {} | {} | {verdict} |",
        line.title,
        cell(Side::Ours),
        cell(Side::Reference),
        cell(Side::Relay),
        cell(Side::Floor),
        of_reference.map_or_else(|| "–".to_owned(), shown),
        of_floor.map_or_else(|| "–".to_owned(), shown),
        goals.join(", "),
    )
    .expect("a string takes everything");
}

/// A ratio and how far the rounds lie apart.
fn shown(ratio: Spread) -> String {
    let digits = |value: f64| if value < 10.0 { 2 } else { 0 };
    let number = |value: f64| grouped(value, digits(value));
    format!("{} ({} – {})", number(ratio.median), number(ratio.min), number(ratio.max))
}

/// `12,345.6`
fn grouped(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + rest
}

/// Draws the plots and puts the tables into the document.
///
/// # Errors
/// If a file cannot be read or written, or the document has no place for them.
pub(super) fn write(cases: &[Case], samples: &Samples) -> anyhow::Result<()> {
    let plots = cargo::root().join(PLOTS);
    fs::create_dir_all(&plots).with_context(|| format!("cannot create {}", plots.display()))?;
    let mut made = String::new();
    for table in tables(&cases.iter().collect::<Vec<_>>(), samples) {
        made.push_str(&table);
        made.push('\n');
    }
    for case in cases {
        for plot in &case.plots {
            let Some(svg) = plot::draw(plot, case, samples) else { continue };
            let path = plots.join(plot.file);
            fs::write(&path, svg).with_context(|| format!("cannot write {}", path.display()))?;
            writeln!(made, "![{}](performance/{})", plot.title, plot.file)
                .expect("a string takes everything");
        }
    }
    let path = cargo::root().join(DOCUMENT);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {DOCUMENT}"))?;
    fs::write(&path, replaced(&text, &made)?)
        .with_context(|| format!("cannot write {DOCUMENT}"))?;
    println!("written: {DOCUMENT} and {PLOTS}/");
    Ok(())
}

fn replaced(document: &str, made: &str) -> anyhow::Result<String> {
    let place = document.split_once(BEGIN).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(END)?;
        Some((before, after))
    });
    ensure!(place.is_some(), "{DOCUMENT} has no lines {BEGIN:?} and {END:?}");
    let (before, after) = place.unwrap_or_default();
    Ok(format!("{before}{BEGIN}\n\n{made}\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(grouped(1_234_567.0, 0), "1,234,567");
        assert_eq!(grouped(123.456, 1), "123.5");
        assert_eq!(grouped(999_999.99, 1), "1,000,000.0");
        assert_eq!(grouped(0.25, 2), "0.25");
    }

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let document = format!("before\n{BEGIN}\nold\n{END}\nafter\n");
        let expected = format!("before\n{BEGIN}\n\nnew\n\n{END}\nafter\n");
        assert_eq!(replaced(&document, "new\n").unwrap(), expected);
        assert_eq!(replaced(&expected, "new\n").unwrap(), expected);
        assert!(replaced("no marks", "new").is_err());
    }
}
