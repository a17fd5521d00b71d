//! The backtest: how far estimates are off, on measurements that nothing was learnt from.

mod answer;
mod case;
mod mlperf;
mod names;
mod number;
mod once;
mod processor;
mod score;
mod sdnext;
mod splits;
mod step_times;
mod sweeps;
mod tables;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::Serialize;

use super::model::Model;
use crate::error::Error;
use crate::separated::Rows;
pub use answer::Answer;
use case::Case;
pub use once::Once;
pub use score::{Baselines, Score};
pub use splits::{each_recipe, folds, other_hardware, own_hosts};

/// How a file is written, that is which header it has; `docs/backtest.md` lists the columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Training steps, one row a configuration.
    StepTimes,
    /// Whole training runs of MLPerf, one row a run.
    Mlperf,
    /// Images of controlled sweeps, one row a configuration.
    Sweeps,
    /// Images that a community measured, one row a measurement.
    Sdnext,
    /// Rows of the estimator's own tables.
    Records,
}

/// What a backtest found. Shares and errors are fractions: 0.07 is 7 %.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Rows of the test file.
    pub rows: usize,
    /// Rows that were estimated.
    pub used: usize,
    /// Why the others were not, with how many.
    pub skipped: BTreeMap<String, usize>,
    /// Measurements that estimates were learnt from.
    pub trained: usize,
    /// Why other rows of the files to learn from were not, with how many.
    pub trained_skipped: BTreeMap<String, usize>,
    /// The errors of the estimates.
    #[serde(flatten)]
    pub score: Score,
    /// How many estimates rest on what.
    pub by_basis: BTreeMap<String, usize>,
    /// The errors of simpler ways.
    pub baselines: Baselines,
    /// The errors where each person and configuration counts once.
    pub once_each: Once,
    /// The answer to each row that was estimated.
    #[serde(skip)]
    pub answers: Vec<Answer>,
}

/// The rows of one file: those that can be used, and why the others cannot.
#[derive(Debug, Default)]
pub(super) struct Reading {
    rows: usize,
    cases: Vec<Case>,
    skipped: BTreeMap<String, usize>,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 5] = [
        Self::StepTimes,
        Self::Mlperf,
        Self::Sweeps,
        Self::Sdnext,
        Self::Records,
    ];

    /// The word on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::StepTimes => "step-times",
            Self::Mlperf => "mlperf",
            Self::Sweeps => "sweeps",
            Self::Sdnext => "sdnext",
            Self::Records => "records",
        }
    }

    fn read(self, file: &[u8]) -> Result<Reading, Error> {
        match self {
            Self::StepTimes => step_times::read(file),
            Self::Mlperf => mlperf::read(file),
            Self::Sweeps => sweeps::read(file),
            Self::Sdnext => sdnext::read(file),
            Self::Records => tables::read(file),
        }
    }
}

/// Learns from the contents of some files, and from the shipped figures where wanted, then estimates every usable row
/// of another.
///
/// # Errors
/// [`Error::Config`] when a file is not of the format, or there is nothing to learn from.
pub fn backtest(
    training: &[impl AsRef<[u8]>],
    test: impl AsRef<[u8]>,
    format: Format,
    with_shipped: bool,
) -> Result<Report, Error> {
    let named = |file: String| move |error| Error::Config(format!("the {file}: {error}"));
    let mut learnt_from = Reading::default();
    for (place, file) in training.iter().enumerate() {
        let name = match training.len() {
            1 => "file to learn from".to_owned(),
            of => format!("file to learn from, number {} of {of}", place + 1),
        };
        learnt_from.extend(format.read(file.as_ref()).map_err(named(name))?);
    }
    sdnext::weigh(&mut learnt_from.cases);
    if with_shipped {
        learnt_from.cases.extend(tables::shipped());
    }
    let asked = format
        .read(test.as_ref())
        .map_err(named("file to estimate".into()))?;
    let known = &learnt_from.cases;
    if known.is_empty() {
        return Err(Error::Config(learnt_from.nothing()));
    }
    let model = learnt(known)?;
    let mut answers = answer::answers(&model, known, &asked.cases);
    tables::answer_by_own_rows(&mut answers, &asked.cases, known, &model);
    let report = Report::of(answers, asked.rows, asked.skipped, known.len());
    Ok(Report {
        trained_skipped: learnt_from.skipped,
        ..report
    })
}

fn trial(known: &[Case], asked: Reading) -> Result<Report, Error> {
    let model = learnt(known)?;
    let answers = answer::answers(&model, known, &asked.cases);
    Ok(Report::of(answers, asked.rows, asked.skipped, known.len()))
}

fn learnt(known: &[Case]) -> Result<Model, Error> {
    let observations = case::observations(known);
    Model::learn(&observations)
        .ok_or_else(|| Error::Config("nothing can be learnt from these measurements".into()))
}

impl Report {
    fn of(
        answers: Vec<Answer>,
        rows: usize,
        skipped: BTreeMap<String, usize>,
        trained: usize,
    ) -> Self {
        let mut by_basis = BTreeMap::new();
        for answer in &answers {
            *by_basis.entry(answer.basis.text().to_owned()).or_default() += 1;
        }
        let judged: Vec<([f64; 3], f64)> = answers
            .iter()
            .map(|answer| (answer.ms, answer.measured_ms))
            .collect();
        Self {
            rows,
            used: answers.len(),
            skipped,
            trained,
            trained_skipped: BTreeMap::new(),
            score: Score::of(&judged),
            by_basis,
            baselines: Baselines::of(&answers),
            once_each: Once::of(&answers),
            answers,
        }
    }

    /// The answers as comma separated values with a header; `docs/backtest.md` lists the columns.
    ///
    /// # Errors
    /// [`Error::Config`] when they cannot be written.
    pub fn rows_csv(&self) -> Result<String, Error> {
        answer::csv(&self.answers)
    }
}

impl Reading {
    /// Reads every row; `take` uses it or says why it cannot be used.
    fn of<L: serde::de::DeserializeOwned>(
        file: &[u8],
        mut take: impl FnMut(&L, &mut Self) -> Result<(), &'static str>,
    ) -> Result<Self, Error> {
        let mut reading = Self::default();
        let rows = Rows::of(file)?;
        let header = rows.header().clone();
        check_header::<L>(&header)?;
        for row in rows {
            reading.rows += 1;
            let before = reading.cases.len();
            let line = row.cells.and_then(|cells| {
                let line = cells.deserialize(Some(&header));
                line.map_err(|_| "the line cannot be read")
            });
            let taken = line.and_then(|line| take(&line, &mut reading));
            if let Err(reason) = taken {
                *reading.skipped.entry(reason.to_owned()).or_default() += 1;
            }
            for case in &mut reading.cases[before..] {
                case.row = reading.rows;
            }
        }
        Ok(reading)
    }

    /// Adds what another file has.
    fn extend(&mut self, other: Self) {
        self.rows += other.rows;
        self.cases.extend(other.cases);
        for (reason, count) in other.skipped {
            *self.skipped.entry(reason).or_default() += count;
        }
    }

    /// Why nothing can be learnt from it, and what to do.
    fn nothing(&self) -> String {
        let what_to_do = "give --train a file of measured times, or leave out --no-shipped";
        if self.rows == 0 {
            return format!("there is nothing to learn from: {what_to_do}");
        }
        let reasons = self.skipped.iter();
        let reasons: Vec<String> = reasons
            .map(|(why, count)| format!("{count}: {why}"))
            .collect();
        let (rows, reasons) = (self.rows, reasons.join("; "));
        format!("none of {rows} rows to learn from can be used ({reasons}): {what_to_do}")
    }
}

/// Says which column a header does not have; a line without any text has every column that the header has.
fn check_header<L: serde::de::DeserializeOwned>(header: &csv::StringRecord) -> Result<(), Error> {
    let blank: csv::StringRecord = header.iter().map(|_| "").collect();
    let Err(error) = blank.deserialize::<L>(Some(header)) else {
        return Ok(());
    };
    let why = match error.kind() {
        csv::ErrorKind::Deserialize { err, .. } => err.kind().to_string(),
        _ => error.to_string(),
    };
    let Some(column) = why.strip_prefix("missing field ") else {
        return Err(Error::Config(format!("its header cannot be used: {why}")));
    };
    Err(Error::Config(format!(
        "it has no column {column}: a file of another format, or cells that are not separated by commas? \
         docs/backtest.md lists the columns of each format"
    )))
}

/// A positive number.
fn positive(text: &str) -> Option<f64> {
    let number: f64 = text.trim().parse().ok()?;
    (number > 0.0 && number.is_finite()).then_some(number)
}

/// A measured time in milliseconds: a microsecond to eleven days. What is beyond is no time of a step or an image.
fn time(text: &str) -> Option<f64> {
    positive(text).filter(|ms| (1e-3..=1e9).contains(ms))
}

/// Names of groups.
fn grouped(groups: &[Vec<&str>]) -> Vec<String> {
    groups.iter().map(|group| group.join("\u{1f}")).collect()
}
