//! All numbers that were measured.

use std::fs;
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::side::Side;

/// One number that a run has told.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub(super) metric: &'static str,
    /// What was varied, where something was.
    pub(super) x: Option<f64>,
    pub(super) value: f64,
}

/// One number, and where it comes from.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Sample {
    case: String,
    metric: String,
    side: Side,
    round: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    x: Option<f64>,
    value: f64,
}

/// The numbers of this run, and those of earlier ones for what was not played.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Samples(Vec<Sample>);

/// The middle of some numbers, and their ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    pub(super) min: f64,
    pub(super) median: f64,
    pub(super) max: f64,
}

impl Samples {
    /// What was written last, nothing if nothing was.
    ///
    /// # Errors
    /// If the file is damaged.
    pub(super) fn read(file: &Path) -> anyhow::Result<Self> {
        let Ok(text) = fs::read_to_string(file) else { return Ok(Self::default()) };
        let damaged = || format!("{} is no list of samples; remove it", file.display());
        serde_json::from_str(&text).with_context(damaged)
    }

    /// Keeps them for later.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(super) fn write(&self, file: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(self).context("samples as JSON")?;
        fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
    }

    /// Drops what is known of a case.
    pub(super) fn forget(&mut self, case: &str) {
        self.0.retain(|sample| sample.case != case);
    }

    /// Takes in what one run has told.
    pub(super) fn add(&mut self, case: &str, side: Side, round: u32, told: Vec<Told>) {
        self.0.extend(told.into_iter().map(|Told { metric, x, value }| Sample {
            case: case.to_owned(),
            metric: metric.to_owned(),
            side,
            round,
            x,
            value,
        }));
    }

    fn matching(
        &self,
        case: &str,
        metric: &str,
        side: Side,
        x: Option<f64>,
    ) -> impl Iterator<Item = &Sample> {
        self.0.iter().filter(move |sample| {
            sample.case == case && sample.metric == metric && sample.side == side && sample.x == x
        })
    }

    /// One side's numbers.
    pub(super) fn of(
        &self,
        case: &str,
        metric: &str,
        side: Side,
        x: Option<f64>,
    ) -> Option<Spread> {
        Spread::of(self.matching(case, metric, side, x).map(|sample| sample.value).collect())
    }

    /// One side's numbers divided by another's of the same round, where that is not 0.
    pub(super) fn ratio(
        &self,
        case: &str,
        metric: &str,
        [side, other]: [Side; 2],
        x: Option<f64>,
    ) -> Option<Spread> {
        let ratios = self.matching(case, metric, side, x).filter_map(|sample| {
            let mut others = self.matching(case, metric, other, x);
            let other = others.find(|other| other.round == sample.round)?;
            (other.value > 0.0).then_some(sample.value / other.value)
        });
        Spread::of(ratios.collect())
    }

    /// What was varied, in order.
    pub(super) fn xs(&self, case: &str, metric: &str, side: Side) -> Vec<f64> {
        let of_it = self
            .0
            .iter()
            .filter(|sample| sample.case == case && sample.metric == metric && sample.side == side);
        let mut xs: Vec<f64> = of_it.filter_map(|sample| sample.x).collect();
        xs.sort_by(f64::total_cmp);
        xs.dedup();
        xs
    }
}

impl Spread {
    /// None of nothing.
    pub(super) fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (&min, &max) = (values.first()?, values.last()?);
        let middle = values.len() / 2;
        let median = match values.len() % 2 {
            0 => f64::midpoint(values[middle - 1], values[middle]),
            _ => values[middle],
        };
        Some(Self { min, median, max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(value: f64) -> Vec<Told> {
        vec![Told { metric: "cpu", x: None, value }]
    }

    #[test]
    fn the_middle_is_the_middle() {
        let spread = |values: &[f64]| Spread::of(values.to_vec());
        assert_eq!(spread(&[]), None);
        assert_eq!(spread(&[3.0]), Some(Spread { min: 3.0, median: 3.0, max: 3.0 }));
        assert_eq!(spread(&[9.0, 1.0, 2.0]), Some(Spread { min: 1.0, median: 2.0, max: 9.0 }));
        assert_eq!(spread(&[4.0, 1.0]), Some(Spread { min: 1.0, median: 2.5, max: 4.0 }));
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        let mut samples = Samples::default();
        for (round, ours, theirs) in [(0, 1.0, 2.0), (1, 10.0, 40.0), (2, 3.0, 4.0)] {
            samples.add("case", Side::Ours, round, told(ours));
            samples.add("case", Side::Reference, round, told(theirs));
        }
        samples.add("case", Side::Ours, 3, told(100.0));
        let ratio = samples.ratio("case", "cpu", [Side::Ours, Side::Reference], None);
        assert_eq!(ratio, Some(Spread { min: 0.25, median: 0.5, max: 0.75 }));
        samples.forget("case");
        assert_eq!(samples.of("case", "cpu", Side::Ours, None), None);
    }
}
