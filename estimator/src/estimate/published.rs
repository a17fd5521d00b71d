//! The calibration set: step times that SimpleTuner's documentation states, for instances that measured nothing yet.

use std::sync::LazyLock;

use serde::Deserialize;
use stepcast_records::{
    Accumulation, BatchSize, HalfMegapixels, Hardware, Key, Precision, Quantization, Recipe, Row,
    TrainingKey, sample,
};

use crate::error::Error;
use crate::index::Index;

/// The figures with their sources and dates.
const SHIPPED: &str = include_str!("../../priors/simpletuner.csv");

/// A line of the set. Its source and date are for people; nothing is computed from them.
#[derive(Deserialize)]
struct Line {
    recipe: Recipe,
    hardware: Hardware,
    megapixels: String,
    batch_size: u32,
    accumulation: u32,
    precision: Precision,
    quantization: Quantization,
    step_ms: u32,
    steps: Option<u32>,
}

/// The set that comes with this version.
pub(super) fn shipped() -> &'static Index {
    static INDEX: LazyLock<Index> = LazyLock::new(|| {
        let mut index = Index::default();
        index.add(&shipped_rows());
        index
    });
    &INDEX
}

/// The figures of that set, one row each.
pub(super) fn shipped_rows() -> Vec<Row> {
    // A test reads the file, so it cannot fail here; without figures an estimate rests on ratings.
    read(SHIPPED).unwrap_or_default()
}

/// Reads a set: `recipe,hardware,megapixels,batch_size,accumulation,precision,quantization,step_ms,steps,source,date`.
pub(super) fn read(text: &str) -> Result<Vec<Row>, Error> {
    let mut reader = csv::ReaderBuilder::new()
        .comment(Some(b'#'))
        .from_reader(text.as_bytes());
    let lines = reader.deserialize::<Line>().enumerate();
    let rows = lines.map(|(index, line)| {
        let wrong = |what: &str| {
            let number = index + 1;
            Error::Config(format!("figure {number} of the calibration set: {what}"))
        };
        let line = line.map_err(|error| wrong(&error.to_string()))?;
        line.row().ok_or_else(|| wrong("off the records' grid"))
    });
    rows.collect()
}

impl Line {
    fn row(&self) -> Option<Row> {
        let key = TrainingKey {
            recipe: self.recipe,
            hardware: self.hardware,
            resolution: HalfMegapixels::from_megapixels_decimal(&self.megapixels)?,
            batch_size: BatchSize::new(self.batch_size)?,
            accumulation: Accumulation::new(self.accumulation)?,
            precision: self.precision,
            quantization: self.quantization,
        };
        // A figure that does not say how many steps it rests on weighs as the fewest a record may have.
        let steps = self.steps.unwrap_or(sample::TRAINING_COUNT_MIN);
        let steps = steps.clamp(sample::TRAINING_COUNT_MIN, sample::TRAINING_COUNT_MAX);
        Row::new(
            Key::Training(key),
            sample::three_digits(self.step_ms),
            steps,
        )
        .ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_figure_is_read() {
        let rows = read(SHIPPED).expect("figures");
        let lines = SHIPPED.lines().filter(|line| !line.starts_with('#'));
        assert_eq!(rows.len(), lines.count() - 1);
        assert!(rows.len() > 100);
        assert_eq!(shipped().rows(crate::Kind::Training), rows.len() as u64);
    }

    #[test]
    fn every_shipped_figure_has_a_source_and_a_date() {
        for line in SHIPPED
            .lines()
            .filter(|line| !line.starts_with('#'))
            .skip(1)
        {
            let mut fields = line.rsplit(',');
            let (date, source) = (fields.next().expect("date"), fields.next().expect("source"));
            assert!(date.starts_with("202"), "{line}");
            assert!(
                source.starts_with("https://github.com/bghira/SimpleTuner/"),
                "{line}"
            );
        }
    }

    #[test]
    fn a_wrong_figure_is_named() {
        let header = "recipe,hardware,megapixels,batch_size,accumulation,precision,quantization,step_ms,steps,source,date\n";
        let read = |line: &str| read(&format!("{header}{line}\n")).map(|rows| rows.len());
        assert_eq!(
            read("flux.dev/lora,h100x1,1.0,4,1,bf16,int8,900,,x,2026").expect("ok"),
            1
        );
        let error =
            read("flux.dev/lora,h100x1,1.0,5,1,bf16,int8,900,,x,2026").expect_err("batch 5");
        assert_eq!(
            error.to_string(),
            "figure 1 of the calibration set: off the records' grid"
        );
    }
}
