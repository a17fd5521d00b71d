//! Counting people instead of rows. Where a few people measured one machine hundreds of times, the errors of rows are
//! theirs; here each of them counts once for each configuration, by the middle of what was measured and said.

use std::collections::BTreeMap;

use serde::Serialize;

use super::answer::{Answer, median};
use super::score::Score;

/// So many others must have measured a configuration.
const OTHERS_MIN: usize = 2;

/// Errors where each person (or key, or system) and configuration counts once, if two others or more measured the
/// configuration. Of speeds and not of times: steps or images in a while.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Once {
    /// How many of these there are.
    pub used: usize,
    /// The errors of the estimates.
    #[serde(flatten)]
    pub score: Score,
    /// The errors of the median of the others' medians.
    pub group_median: Score,
}

impl Once {
    pub(super) fn of(answers: &[Answer]) -> Self {
        let mut each: BTreeMap<(&str, &str), (f64, Vec<&Answer>)> = BTreeMap::new();
        for answer in answers {
            if let Some(others) = answer.others.filter(|others| others.count >= OTHERS_MIN) {
                let one = each.entry((&answer.unit, &answer.group));
                one.or_insert((others.speed, Vec::new())).1.push(answer);
            }
        }
        let mut ours = Vec::with_capacity(each.len());
        let mut theirs = Vec::with_capacity(each.len());
        for (speed, answers) in each.into_values() {
            let middle = |of: &dyn Fn(&Answer) -> f64| {
                median(answers.iter().map(|answer| of(answer).recip()).collect()).unwrap_or(0.0)
            };
            let truth = middle(&|answer| answer.measured_ms);
            // The slowest of a time is the fastest of a speed.
            ours.push((
                [2, 1, 0].map(|place| middle(&|answer| answer.ms[place])),
                truth,
            ));
            theirs.push((speed, truth));
        }
        Self {
            used: ours.len(),
            score: Score::of(&ours),
            group_median: Score::of_middles(&theirs),
        }
    }
}
