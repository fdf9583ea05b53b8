//! Line plots as SVG, readable on a light and on a dark page.

use std::fmt::Write as _;

use super::cases::Case;
use super::samples::{Samples, Spread};
use super::side::Side;

/// What is drawn of a case: a line for each side, x as it was varied.
#[derive(Clone, Debug)]
pub(super) struct Plot {
    pub(super) file: &'static str,
    pub(super) title: &'static str,
    pub(super) metric: &'static str,
    pub(super) x_label: &'static str,
    pub(super) y_label: &'static str,
    /// Whether both axes are logarithmic; else none is, and time goes along.
    pub(super) is_y_log: bool,
}

impl Plot {
    /// Whether time goes along the x axis.
    pub(super) fn is_over_time(&self) -> bool {
        !self.is_y_log
    }
}

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 96.0;
const TOP: f64 = 36.0;
const BOTTOM: f64 = 48.0;

/// From a value to a place.
#[derive(Clone, Copy, Debug)]
struct Axis {
    min: f64,
    max: f64,
    is_log: bool,
    /// Where the ends are.
    from: f64,
    to: f64,
}

impl Axis {
    /// An axis with room for all values: powers of ten, or from 0.
    fn over(values: &[f64], is_log: bool, from: f64, to: f64) -> Self {
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let (min, max) = if is_log {
            let min = least.log10().floor();
            (10_f64.powf(min), 10_f64.powf(most.log10().ceil().max(min + 1.0)))
        } else {
            let step = step(most);
            (0.0, (most / step).ceil() * step)
        };
        Self { min, max, is_log, from, to }
    }

    fn place(self, value: f64) -> f64 {
        let scaled = |value: f64| if self.is_log { value.log10() } else { value };
        let share = (scaled(value) - scaled(self.min)) / (scaled(self.max) - scaled(self.min));
        self.from + share * (self.to - self.from)
    }

    fn ticks(self) -> Vec<f64> {
        if self.is_log {
            let (first, last) = (self.min.log10().round() as i32, self.max.log10().round() as i32);
            return (first..=last).map(|power| 10_f64.powi(power)).collect();
        }
        let step = step(self.max);
        (0..=(self.max / step).round() as u32).map(|n| f64::from(n) * step).collect()
    }
}

/// A round number of which four to ten fit.
fn step(most: f64) -> f64 {
    let power = 10_f64.powf(most.max(1e-9).log10().floor());
    match most / power {
        share if share <= 2.0 => power / 4.0,
        share if share <= 5.0 => power / 2.0,
        _ => power,
    }
}

/// `1,000` is `1k`.
fn label(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{}M", value / 1e6),
        value if value >= 1e3 => format!("{}k", value / 1e3),
        value => format!("{}", (value * 1e6).round() / 1e6),
    }
}

fn colour(side: Side) -> &'static str {
    match side {
        Side::Ours => "#2f81f7",
        Side::Reference => "#d9730d",
        Side::Relay => "#8250df",
        Side::Floor => "#6e7781",
    }
}

/// None if nothing was measured.
pub(super) fn draw(plot: &Plot, case: &Case, samples: &Samples) -> Option<String> {
    let series: Vec<(Side, Vec<(f64, Spread)>)> = case
        .sides
        .iter()
        .map(|&side| {
            let xs = samples.xs(case.name, plot.metric, side).into_iter();
            let points =
                xs.filter_map(|x| Some((x, samples.of(case.name, plot.metric, side, Some(x))?)));
            (side, points.collect())
        })
        .collect();
    let all = || series.iter().flat_map(|(_, points)| points);
    all().next()?;
    let xs: Vec<f64> = all().map(|(x, _)| *x).collect();
    let ys: Vec<f64> = all().flat_map(|(_, spread)| [spread.min, spread.max]).collect();
    let x_axis = Axis::over(&xs, plot.is_y_log, LEFT, WIDTH - RIGHT);
    let y_axis = Axis::over(&ys, plot.is_y_log, HEIGHT - BOTTOM, TOP);
    Some(svg(plot, &series, x_axis, y_axis))
}

fn svg(plot: &Plot, series: &[(Side, Vec<(f64, Spread)>)], x_axis: Axis, y_axis: Axis) -> String {
    let mut svg = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12" fill="#6e7781">
<text x="{LEFT}" y="20" font-size="14" font-weight="bold">{}</text>
"##,
        plot.title
    );
    let mut add = |text: String| {
        svg.push_str(&text);
        svg.push('\n');
    };
    let (left, right, top, bottom) = (LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM);
    for tick in x_axis.ticks() {
        let x = x_axis.place(tick);
        add(format!(
            r##"<path d="M{x:.1} {top}V{bottom}" stroke="#8885"/><text x="{x:.1}" y="{:.1}" text-anchor="middle">{}</text>"##,
            bottom + 16.0,
            label(tick)
        ));
    }
    for tick in y_axis.ticks() {
        let y = y_axis.place(tick);
        add(format!(
            r##"<path d="M{left} {y:.1}H{right}" stroke="#8885"/><text x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"##,
            left - 6.0,
            y + 4.0,
            label(tick)
        ));
    }
    add(format!(
        r##"<text x="{:.1}" y="{:.1}" text-anchor="middle">{}</text>"##,
        f64::midpoint(left, right),
        HEIGHT - 12.0,
        plot.x_label
    ));
    add(format!(r##"<text x="{:.1}" y="{:.1}">{}</text>"##, 8.0, top - 4.0, plot.y_label));
    for (side, points) in series {
        let Some((_, last)) = points.last() else { continue };
        let colour = colour(*side);
        let mut line = String::new();
        for (index, (x, spread)) in points.iter().enumerate() {
            let command = if index == 0 { 'M' } else { 'L' };
            let (x, y) = (x_axis.place(*x), y_axis.place(spread.median));
            write!(line, "{command}{x:.1} {y:.1}").expect("a string takes everything");
            let (low, high) = (y_axis.place(spread.min), y_axis.place(spread.max));
            add(format!(
                r##"<path d="M{x:.1} {low:.1}V{high:.1}" stroke="{colour}" stroke-opacity="0.5" stroke-width="3"/>"##
            ));
        }
        add(format!(r##"<path d="{line}" fill="none" stroke="{colour}" stroke-width="2"/>"##));
        let (x, _) = points[points.len() - 1];
        add(format!(
            r##"<text x="{:.1}" y="{:.1}" fill="{colour}">{side}</text>"##,
            x_axis.place(x) + 6.0,
            y_axis.place(last.median) + 4.0
        ));
    }
    svg.push_str("</svg>\n");
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_numbers() {
        let axis = Axis::over(&[3.0, 1000.0], true, 0.0, 300.0);
        assert_eq!(axis.ticks(), [1.0, 10.0, 100.0, 1000.0]);
        assert!((axis.place(10.0) - 100.0).abs() < 1e-9);
        let axis = Axis::over(&[0.3, 4.9], false, 0.0, 10.0);
        assert_eq!(axis.ticks().last(), Some(&5.0));
        assert!((axis.place(2.5) - 5.0).abs() < 1e-9);
    }

    #[test]
    fn large_numbers_are_short() {
        assert_eq!(label(1e6), "1M");
        assert_eq!(label(250_000.0), "250k");
        assert_eq!(label(0.1), "0.1");
    }
}
