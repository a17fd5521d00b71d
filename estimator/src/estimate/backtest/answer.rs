//! The answer to each row of the test file, with what simpler ways say of it.

use std::collections::{BTreeMap, HashMap};

use stepcast_records::Basis;

use super::case::Case;
use super::score::quantile;
use crate::error::Error;
use crate::estimate::model::Model;

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
        let mut wider = case.groups.iter();
        Answer {
            row: case.row,
            ms: answer.ms,
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

/// The narrowest groups as those see them who measured them, each of whom counts once.
fn others(known: &[Case]) -> HashMap<&str, Others> {
    let mut groups: HashMap<&str, BTreeMap<&str, Vec<f64>>> = HashMap::new();
    for case in known {
        let units = groups.entry(case.narrowest()).or_default();
        units.entry(&case.unit).or_default().push(case.ms.recip());
    }
    let each = groups.into_iter().filter_map(|(group, units)| {
        let count = units.len();
        let speed = median(units.into_values().filter_map(median).collect())?;
        Some((group, Others { count, speed }))
    });
    each.collect()
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
