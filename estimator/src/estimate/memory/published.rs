//! Peaks of memory that SimpleTuner's documentation states, by family.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde::Deserialize;
use stepcast_records::{
    Accumulation, BatchSize, Family, GpuModel, HalfMegapixels, Precision, Quantization, Recipe,
    TrainingShape,
};

use crate::error::Error;

/// The figures with their sources and dates.
const SHIPPED: &str = include_str!("../../../priors/peaks.csv");

/// What was published of one configuration.
#[derive(Debug, Clone, Copy)]
pub(super) struct Published {
    pub(super) shape: TrainingShape,
    /// Its peak in GiB, where it ran.
    pub(super) peak_gib: Option<f64>,
    /// The largest GPU that it did not fit.
    pub(super) too_small: Option<GpuModel>,
}

/// A line of the table. Its source and date are for people; nothing is computed from them.
#[derive(Deserialize)]
struct Line {
    recipe: Recipe,
    frames: u32,
    megapixels: String,
    batch_size: u16,
    quantization: Quantization,
    peak_gib: Option<f64>,
    too_small: Option<String>,
}

/// Everything published of a family.
pub(super) fn of(family: Family) -> &'static [Published] {
    static BY_FAMILY: LazyLock<HashMap<Family, Vec<Published>>> = LazyLock::new(|| {
        let mut by_family: HashMap<Family, Vec<Published>> = HashMap::new();
        // A test reads the table, so it cannot fail here; without it the formula is all there is.
        for published in read(SHIPPED).unwrap_or_default() {
            let family = published.shape.recipe.family();
            by_family.entry(family).or_default().push(published);
        }
        by_family
    });
    BY_FAMILY.get(&family).map_or(&[], Vec::as_slice)
}

fn read(text: &str) -> Result<Vec<Published>, Error> {
    let mut reader = csv::ReaderBuilder::new()
        .comment(Some(b'#'))
        .from_reader(text.as_bytes());
    let lines = reader.deserialize::<Line>().enumerate();
    let read = lines.map(|(index, line)| {
        let wrong = |what: &str| Error::Config(format!("peak {}: {what}", index + 1));
        let line = line.map_err(|error| wrong(&error.to_string()))?;
        line.read().ok_or_else(|| wrong("off the records' grid"))
    });
    read.collect()
}

impl Line {
    fn read(&self) -> Option<Published> {
        let too_small = self.too_small.as_ref().map(|name| name.parse().ok());
        let shape = TrainingShape {
            recipe: self.recipe.at_frames(self.frames)?,
            resolution: HalfMegapixels::from_megapixels_decimal(&self.megapixels)?,
            batch_size: BatchSize::new(self.batch_size)?,
            accumulation: Accumulation::nearest(1_u32),
            precision: Precision::Bf16,
            quantization: self.quantization,
        };
        Some(Published {
            shape,
            peak_gib: self.peak_gib.filter(|gib| *gib > 0.0),
            too_small: match too_small {
                Some(gpu) => Some(gpu?),
                None => None,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_peak_is_read_and_has_a_source_and_a_date() {
        let read = read(SHIPPED).expect("the shipped table");
        let lines = SHIPPED
            .lines()
            .filter(|line| !line.starts_with('#'))
            .skip(1);
        assert_eq!(read.len(), lines.clone().count());
        for line in lines {
            let mut fields = line.rsplit(',');
            let (date, source) = (fields.next().expect("date"), fields.next().expect("source"));
            assert!(date.starts_with("202"), "{line}");
            assert!(
                source.starts_with("https://github.com/bghira/SimpleTuner/"),
                "{line}"
            );
        }
        for published in read {
            let said = published.peak_gib.is_some() || published.too_small.is_some();
            assert!(said, "{published:?}");
        }
    }
}
