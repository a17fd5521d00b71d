//! Ways to hold a part of one file back, so that one file is enough for a backtest.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZero;

use super::answer::{self, Answer};
use super::case::{self, Case};
use super::{Format, Reading, Report, learnt, trial};
use crate::error::Error;

/// Leaves out one part of the file after the other, each time learning from the rest; what belongs to one key,
/// submitter or system stays together. All answers are judged together. With as many folds as there are units, each
/// is left out alone.
///
/// # Errors
/// As [`backtest`](super::backtest).
pub fn folds(text: &str, format: Format, folds: usize, seed: u64) -> Result<Report, Error> {
    let whole = format.read(text.as_bytes())?;
    let units: BTreeSet<&str> = whole.cases.iter().map(|case| case.unit.as_str()).collect();
    let mut units: Vec<&str> = units.into_iter().collect();
    shuffle(&mut units, seed);
    let folds = folds.clamp(2, units.len().max(2));
    let reports = side_by_side(folds, |fold| {
        let out: BTreeSet<&str> = units.iter().copied().skip(fold).step_by(folds).collect();
        let cases = whole.cases.iter().cloned();
        let (asked, known) = cases.partition(|case| out.contains(case.unit.as_str()));
        trial_of(asked, known)
    });
    let mut answers = Vec::with_capacity(whole.cases.len());
    let mut trained = 0;
    for report in reports {
        let report = report?;
        trained = trained.max(report.trained);
        answers.extend(report.answers);
    }
    answers.sort_by_key(|answer| answer.row);
    Ok(Report::of(answers, whole.rows, whole.skipped, trained))
}

/// What is said of a recipe of which nothing is known: leaves out one recipe after the other, each time learning from the
/// rest. One report for each, by its name.
///
/// # Errors
/// As [`backtest`](super::backtest).
pub fn each_recipe(text: &str, format: Format) -> Result<Vec<(String, Report)>, Error> {
    let whole = format.read(text.as_bytes())?;
    let recipes = whole.cases.iter().map(|case| case.recipe.as_str());
    let recipes: BTreeSet<&str> = recipes.collect();
    let each = recipes.into_iter().map(|recipe| {
        let cases = whole.cases.iter().cloned();
        let (asked, known) = cases.partition(|case| case.recipe == recipe);
        trial_of(asked, known).map(|report| (recipe.to_owned(), report))
    });
    each.collect()
}

/// The results of numbered pieces of work, in no order, on as many threads as there are processors.
fn side_by_side<T: Send>(pieces: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let threads = threads.min(pieces);
    let share = |first| {
        (first..pieces)
            .step_by(threads)
            .map(&work)
            .collect::<Vec<T>>()
    };
    std::thread::scope(|scope| {
        let share = &share;
        let started: Vec<_> = (0..threads)
            .map(|first| scope.spawn(move || share(first)))
            .collect();
        let joined = started.into_iter().flat_map(|thread| {
            let done = thread.join();
            done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        joined.collect()
    })
}

/// Learns from some cases and estimates others.
fn trial_of(asked: Vec<Case>, known: Vec<Case>) -> Result<Report, Error> {
    let reading = Reading {
        rows: asked.len(),
        cases: asked,
        skipped: Default::default(),
    };
    trial(&known, reading)
}

/// Learns from one hardware and, of another, only a few recipes; estimates the rest of the other. Once for each seed.
///
/// # Errors
/// As [`backtest`](super::backtest), and when the file has fewer recipes on both than `anchors`.
pub fn other_hardware(
    text: &str,
    format: Format,
    [from, to]: [&str; 2],
    anchors: usize,
    seeds: std::ops::Range<u64>,
) -> Result<Vec<Report>, Error> {
    let whole = format.read(text.as_bytes())?;
    let recipes_on = |gpu: &str| -> BTreeSet<&str> {
        let there = whole.cases.iter().filter(|case| case.gpu == gpu);
        there.map(|case| case.recipe.as_str()).collect()
    };
    let (here, there) = (recipes_on(from), recipes_on(to));
    let both: Vec<&str> = here.intersection(&there).copied().collect();
    if both.len() <= anchors {
        return Err(Error::Config(format!(
            "{} recipes were measured on both {from} and {to}",
            both.len()
        )));
    }
    let each = seeds.map(|seed| {
        let mut drawn = both.clone();
        shuffle(&mut drawn, seed);
        drawn.truncate(anchors);
        let cases = whole.cases.iter().cloned();
        let (asked, known) =
            cases.partition(|case| case.gpu == to && !drawn.contains(&case.recipe.as_str()));
        trial_of(asked, known)
    });
    each.collect()
}

/// What an installation gains from its own few records: the file's folds as in [`folds`], and of each unit left out (a
/// person, say) so many measurements of its own, drawn by the seed, are taken in one by one; the rest of the unit is
/// estimated. The reports are those without the unit's own measurements, with them as if they were somebody else's, and
/// with them as those of one's own hosts, all of the same rows.
///
/// # Errors
/// As [`backtest`](super::backtest).
pub fn own_hosts(
    text: &str,
    format: Format,
    folds: usize,
    shown: usize,
    seed: u64,
) -> Result<[Report; 3], Error> {
    let whole = format.read(text.as_bytes())?;
    let mut by_unit: BTreeMap<&str, Vec<&Case>> = BTreeMap::new();
    for case in &whole.cases {
        by_unit.entry(&case.unit).or_default().push(case);
    }
    let mut units: Vec<&str> = by_unit.keys().copied().collect();
    shuffle(&mut units, seed);
    let mut answers: [Vec<Answer>; 3] = Default::default();
    for fold in 0..folds.clamp(2, units.len().max(2)) {
        let out: BTreeSet<&str> = units.iter().copied().skip(fold).step_by(folds).collect();
        let known = whole.cases.iter();
        let known: Vec<Case> = known
            .filter(|case| !out.contains(case.unit.as_str()))
            .cloned()
            .collect();
        let model = learnt(&known)?;
        for unit in out {
            let mut places: Vec<usize> = (0..by_unit[unit].len()).collect();
            shuffle(&mut places, seed);
            let cases = places.iter().map(|&place| by_unit[unit][place].clone());
            let mut cases: Vec<Case> = cases.collect();
            let rest = cases.split_off(shown.min(cases.len()));
            let on_own = |cases: &[Case]| -> Vec<Case> {
                let each = cases.iter().cloned().map(|case| Case {
                    point: case.point.on_own_host(),
                    ..case
                });
                each.collect()
            };
            let told = [(Vec::new(), rest.clone()), (cases.clone(), rest.clone())];
            let told = told.into_iter().chain([(on_own(&cases), on_own(&rest))]);
            for ((cases, rest), answers) in told.zip(&mut answers) {
                let mut model = model.clone();
                for seen in case::observations(&cases) {
                    model.observe(&seen);
                }
                answers.extend(answer::answers(&model, &known, &rest));
            }
        }
    }
    let skipped = &whole.skipped;
    Ok(answers.map(|answers| Report::of(answers, whole.rows, skipped.clone(), shown)))
}

/// Fisher and Yates, with the numbers of splitmix64 (Steele, Lea and Flood 2014).
fn shuffle<T>(items: &mut [T], seed: u64) {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    };
    for last in (1..items.len()).rev() {
        let other = next() % (last as u64 + 1);
        items.swap(last, other as usize);
    }
}
