//! The answer to each row of the test file, with what simpler ways say of it.

use std::collections::{BTreeMap, HashMap};

use stepcast_records::Basis;

use super::case::Case;
use super::score::quantile;
use crate::error::Error;
use crate::estimate::model::{Model, Predicted};

/// Those who measured one configuration are thought to differ by this much, as loud as so many of them say it.
const ALIKE: f64 = 0.15;
const ALIKE_WEIGHT: f64 = 4.0;
/// The variance of the median of many, beside that of their mean.
const MEDIAN_VARIANCE: f64 = std::f64::consts::FRAC_PI_2;
/// The narrowest group speaks as loud as so many of those who have exactly the configuration.
const WIDER_WEIGHT: f64 = 2.0;

/// What was said of one row, and what it was. Times are of one step or one image, in milliseconds.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Which row of the file it is; the first below the header is 1, comments do not count.
    pub row: usize,
    /// p10, p50 and p90.
    pub ms: [f64; 3],
    /// The truth.
    pub measured_ms: f64,
    /// What the answer rests on.
    pub basis: Basis,
    /// p10, median and p90 of the nearest group that was measured; `None` where there is none.
    pub group_ms: Option<[f64; 3]>,
    /// The rated time, by p10, the middle and p90 of measured over rated times.
    pub rated_ms: [f64; 3],
    /// Who measured it, or what else is left out together.
    pub(super) unit: String,
    /// The narrowest group that it belongs to.
    pub(super) group: String,
    /// What others measured of that group; `None` if nobody has.
    pub(super) others: Option<Others>,
}

/// How fast a group is to those who measured it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Others {
    /// How many they are.
    pub(super) count: usize,
    /// The middle of the middle of each, in steps or images a millisecond.
    pub(super) speed: f64,
    /// The variance of the logarithm by which they differ.
    variance: f64,
}

/// Estimates cases with a model that has learnt from others, and in the simpler ways.
pub(super) fn answers(model: &Model, known: &[Case], asked: &[Case]) -> Vec<Answer> {
    let mut groups: HashMap<&str, Vec<f64>> = HashMap::new();
    let mut ratios = Vec::new();
    for case in known {
        for group in &case.groups {
            groups.entry(group).or_default().push(case.ms);
        }
        ratios.push(case.ms / case.rated_ms);
    }
    let spreads: HashMap<&str, [f64; 3]> = groups
        .into_iter()
        .filter_map(|(group, times)| Some((group, spread(times)?)))
        .collect();
    let ratios = spread(ratios).unwrap_or([1.0; 3]);
    let others = others(known);
    let each = asked.iter().map(|case| {
        let answer = model.predict(&case.point);
        let drawn = drawn(case, &answer, &others);
        let mut wider = case.groups.iter();
        Answer {
            row: case.row,
            ms: answer.ms.map(|ms| ms * drawn),
            measured_ms: case.ms,
            basis: answer.novelty.basis(),
            group_ms: wider.find_map(|group| spreads.get(group.as_str()).copied()),
            rated_ms: ratios.map(|ratio| case.rated_ms * ratio),
            unit: case.unit.clone(),
            group: case.narrowest().to_owned(),
            others: others.get(case.narrowest()).copied(),
        }
    });
    each.collect()
}

/// The narrowest groups and exact configurations as those see them who measured them, each of whom counts once.
fn others(known: &[Case]) -> HashMap<&str, Others> {
    let mut groups: HashMap<&str, BTreeMap<&str, Vec<f64>>> = HashMap::new();
    for case in known {
        for group in case.exact.as_deref().into_iter().chain([case.narrowest()]) {
            let units = groups.entry(group).or_default();
            units.entry(&case.unit).or_default().push(case.ms.recip());
        }
    }
    let each = groups.into_iter().filter_map(|(group, units)| {
        let speeds: Vec<f64> = units.into_values().filter_map(median).collect();
        let (count, speed) = (speeds.len(), median(speeds.clone())?);
        let squares = speeds.iter().map(|one| (one / speed).ln().powi(2));
        let variance =
            (squares.sum::<f64>() + ALIKE_WEIGHT * ALIKE * ALIKE) / (count as f64 + ALIKE_WEIGHT);
        let others = Others {
            count,
            speed,
            variance,
        };
        Some((group, others))
    });
    each.collect()
}

/// By what an answer is multiplied for what others measured of exactly the configuration, each by what it is worth, as
/// an estimate takes the nearest cell's word beside the model's. Where nobody has measured it the answer stays.
fn drawn(case: &Case, answer: &Predicted, others: &HashMap<&str, Others>) -> f64 {
    let Some(group) = others.get(case.narrowest()) else {
        return 1.0;
    };
    let (mut ln_speed, mut variance) = group.says();
    let exact = case.exact.as_deref();
    if let Some(exact) = exact.and_then(|exact| others.get(exact)) {
        let share = exact.count as f64 / (exact.count as f64 + WIDER_WEIGHT);
        let (exact_speed, exact_variance) = exact.says();
        ln_speed += share * (exact_speed - ln_speed);
        variance += share * (exact_variance - variance);
    }
    let ln_ms = answer.own.ln - ln_speed;
    let share = answer.variance / (answer.variance + variance);
    (share * (ln_ms - answer.ms[1].ln())).exp()
}

impl Others {
    /// The logarithm of the speed, and how uncertain that of one more of them is, as a variance.
    fn says(&self) -> (f64, f64) {
        let middle = MEDIAN_VARIANCE / self.count as f64;
        (self.speed.ln(), self.variance * (1.0 + middle))
    }
}

/// p10, the middle and p90.
fn spread(mut values: Vec<f64>) -> Option<[f64; 3]> {
    values.sort_by(f64::total_cmp);
    let at = |share| quantile(&values, share);
    Some([at(0.1)?, at(0.5)?, at(0.9)?])
}

/// The middle one, between the two middle ones of an even number.
pub(super) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    quantile(&values, 0.5)
}

/// The answers as comma separated values with a header.
///
/// # Errors
/// [`Error::Config`] when they cannot be written, which has not been seen to happen in memory.
pub(super) fn csv(answers: &[Answer]) -> Result<String, Error> {
    let failed = |error: String| Error::Config(format!("the rows cannot be written: {error}"));
    let mut writer = csv::Writer::from_writer(Vec::new());
    let header = [
        "row",
        "p10_ms",
        "p50_ms",
        "p90_ms",
        "measured_ms",
        "basis",
        "group_median_ms",
        "flops_ratio_ms",
    ];
    writer
        .write_record(header)
        .map_err(|error| failed(error.to_string()))?;
    let number = |ms: f64| format!("{ms:.3}");
    for answer in answers {
        let [p10, p50, p90] = answer.ms.map(number);
        let group_median = answer
            .group_ms
            .map_or_else(String::new, |[_, median, _]| number(median));
        let line = [
            answer.row.to_string(),
            p10,
            p50,
            p90,
            number(answer.measured_ms),
            answer.basis.text().to_owned(),
            group_median,
            number(answer.rated_ms[1]),
        ];
        writer
            .write_record(line)
            .map_err(|error| failed(error.to_string()))?;
    }
    let bytes = writer
        .into_inner()
        .map_err(|error| failed(error.to_string()))?;
    String::from_utf8(bytes).map_err(|error| failed(error.to_string()))
}
