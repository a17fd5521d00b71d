//! `stepcast backtest`: how far estimates are off, on measured times that nothing is learnt from. Needs no server.

use std::path::{Path, PathBuf};

use clap::builder::PossibleValuesParser;
use clap::{Args, builder::TypedValueParser};
use stepcast_estimator::estimate::backtest::{Format, Report, Score, backtest};

use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::Output;
use crate::output::money::count;
use crate::output::table::{Side, Table};

/// The largest file that is read.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// Says how far estimates are off, on measured times that nothing is learnt from.
///
/// Example: stepcast backtest --format step-times --train yours.csv --test theirs.csv --no-shipped
#[derive(Debug, Args)]
pub(crate) struct Backtest {
    /// Measured times to learn from; may be given several times
    #[arg(long, value_name = "FILE")]
    train: Vec<PathBuf>,
    /// Measured times to estimate
    #[arg(long, value_name = "FILE")]
    test: PathBuf,
    /// What the files' headers are
    #[arg(long, value_parser = formats())]
    format: Format,
    /// Learn from the files alone, without the figures that come with Stepcast
    #[arg(long)]
    no_shipped: bool,
    /// Write what was said of each row to this file, as comma separated values
    #[arg(long, value_name = "FILE")]
    rows: Option<PathBuf>,
}

fn formats() -> impl TypedValueParser<Value = Format> {
    let names = Format::ALL.map(Format::name);
    PossibleValuesParser::new(names).map(|name| {
        let mut all = Format::ALL.into_iter();
        all.find(|format| format.name() == name)
            .unwrap_or(Format::Records)
    })
}

impl Backtest {
    /// Learns, estimates and judges.
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let training = self.train.iter().map(|file| read(file));
        let training = training.collect::<Result<Vec<Vec<u8>>, Failure>>()?;
        self.keeps_what_it_reads()?;
        let test = read(&self.test)?;
        let (format, shipped) = (self.format, !self.no_shipped);
        // It may take a minute, in which Ctrl-C must be heard.
        let work = move || backtest(&training, &test, format, shipped);
        let report = tokio::task::spawn_blocking(work).await;
        let report = report.map_err(|error| Failure::new(Exit::Refused, error.to_string()))?;
        let report = report.map_err(|error| Failure::new(Exit::Refused, error.to_string()))?;
        if let Some(file) = &self.rows {
            write_rows(&report, file)?;
        }
        show(&context.output, &report)
    }
}

impl Backtest {
    /// Refuses to write the answers over a file that is read.
    fn keeps_what_it_reads(&self) -> Result<(), Failure> {
        let place = |file: &Path| std::fs::canonicalize(file).ok();
        let written = self.rows.as_deref().and_then(place);
        let mut read = self.train.iter().chain([&self.test]);
        if written.is_some() && read.any(|file| place(file) == written) {
            let why = "--rows names a file of measured times, which it would replace";
            return Err(Failure::new(Exit::Refused, why).hint("give --rows another file"));
        }
        Ok(())
    }
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    let wrong = |exit, why: String| {
        Failure::new(exit, format!("{} cannot be read", file.display())).detail(why)
    };
    let meta = std::fs::metadata(file).map_err(|error| wrong(Exit::NotFound, error.to_string()))?;
    if meta.len() > FILE_BYTES_MAX {
        let most = format!("at most {} MiB are read", FILE_BYTES_MAX >> 20);
        return Err(wrong(Exit::Refused, most));
    }
    std::fs::read(file).map_err(|error| wrong(Exit::Refused, error.to_string()))
}

fn write_rows(report: &Report, file: &Path) -> Result<(), Failure> {
    let refused = |why: String| {
        Failure::new(
            Exit::Refused,
            format!("{} cannot be written", file.display()),
        )
        .detail(why)
    };
    let rows = report
        .rows_csv()
        .map_err(|error| refused(error.to_string()))?;
    std::fs::write(file, rows).map_err(|error| refused(error.to_string()))
}

fn show(output: &Output, report: &Report) -> Result<(), Failure> {
    if output.json {
        let value = serde_json::to_value(report);
        let value = value.map_err(|error| Failure::new(Exit::Refused, error.to_string()))?;
        return output.json(&value);
    }
    let mut table = Table::new(&[
        ("ESTIMATED BY", Side::Left),
        ("MEDIAN", Side::Right),
        ("P75", Side::Right),
        ("P90", Side::Right),
        ("IN P10-P90", Side::Right),
        ("BELOW P90", Side::Right),
        ("PINBALL", Side::Right),
    ]);
    let baselines = &report.baselines;
    for (name, score) in [
        ("stepcast", &report.score),
        ("nearest group's median", &baselines.group_median),
        ("ratio of rated FLOPs", &baselines.flops_ratio),
    ] {
        table.row(row(name, score));
    }
    output.table(&table)?;
    let part = |number: usize| count(number as u64);
    output.say(format!(
        "{} of {} rows were estimated from {} measurements.",
        part(report.used),
        part(report.rows),
        part(report.trained)
    ));
    for (basis, number) in &report.by_basis {
        output.say(format!("  {} {basis}", part(*number)));
    }
    for (reason, number) in &report.skipped {
        output.say(format!("  {} left out: {reason}", part(*number)));
    }
    for (reason, number) in &report.trained_skipped {
        output.say(format!("  {} not learnt from: {reason}", part(*number)));
    }
    Ok(())
}

fn row(name: &str, score: &Score) -> Vec<crate::output::table::Cell> {
    let percent = |share: Option<f64>| {
        share.map_or("-".to_owned(), |share| format!("{:.1} %", share * 100.0))
    };
    vec![
        name.into(),
        percent(score.median_ape).into(),
        percent(score.p75_ape).into(),
        percent(score.p90_ape).into(),
        percent(score.inside_p10_p90).into(),
        percent(score.below_p90).into(),
        percent(score.pinball).into(),
    ]
}
