//! From a run's times to what may leave the worker (a sample) and what may be stored (a row).

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use crate::histogram::Histogram;
use crate::key::Key;

/// Steps dropped at the start of a run, while kernels are chosen and compiled.
pub const WARMUP_STEPS: u64 = 10;
/// The fewest clean steps that make a sample.
pub const TRAINING_COUNT_MIN: u32 = 20;
/// The most steps a row admits to, so that the count does not betray the run.
pub const TRAINING_COUNT_MAX: u32 = 1_000;
/// The fewest timed prompts that make a sample.
pub const VALIDATION_COUNT_MIN: u32 = 2;
/// The most prompts a row admits to.
pub const VALIDATION_COUNT_MAX: u32 = 64;
/// The longest mean that is stored: one hour.
pub const AVERAGE_MS_MAX: u32 = 3_600_000;
/// A time this many times the median is a stall of the host, not a step, and stays out of the mean.
const OUTLIER_FACTOR: f64 = 4.0;

/// One run's contribution to one key: what travels from worker to recorder. It names nobody.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// What was measured.
    pub key: Key,
    /// The times, in milliseconds.
    pub histogram: Histogram,
}

/// What is stored of one contribution: exactly the fields of the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct Row {
    /// What was measured.
    pub key: Key,
    /// Mean time of a step or prompt in milliseconds, to three significant digits.
    pub avg_ms: u32,
    /// Steps or prompts observed, clipped.
    pub count: u32,
}

/// A row's numbers are outside the bounds of its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The mean is 0, above an hour, or has more than three significant digits.
    #[error("a mean is 1 to 3600000 milliseconds with three significant digits")]
    Average,
    /// The count is outside the bounds of its kind.
    #[error("a row counts 20 to 1000 steps or 2 to 64 prompts")]
    Count,
    /// The hardware profile is none of the registry.
    #[error("the hardware profile is not in the registry")]
    Hardware,
}

/// Reduces the step times of one training key to a histogram, keeping only clean steps.
///
/// A step is clean when it is past the warm-up, follows the previous step directly, and nothing but training
/// happened since that step ended.
#[derive(Debug, Clone, Default)]
pub struct StepReducer {
    histogram: Histogram,
    last_step: Option<u64>,
    seen: u64,
    after_boundary: bool,
}

/// Reduces the times of validation prompts to a histogram.
#[derive(Debug, Clone, Default)]
pub struct ValidationReducer {
    histogram: Histogram,
    warm: bool,
}

impl StepReducer {
    /// A reducer that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An optimizer step ended, `step_ms` after the one before it.
    ///
    /// A repeated or earlier step number (a report sent twice) changes nothing.
    pub fn step(&mut self, global_step: u64, step_ms: f64) {
        if self.last_step.is_some_and(|last| global_step <= last) {
            return;
        }
        let follows = self.last_step.is_some_and(|last| global_step == last + 1);
        let clean = follows && !self.after_boundary && self.seen >= WARMUP_STEPS;
        self.last_step = Some(global_step);
        self.seen += 1;
        self.after_boundary = false;
        if clean {
            // A time outside the bounds is no step time; it is dropped like any other unclean step.
            let _out_of_range = self.histogram.record_ms(step_ms);
        }
    }

    /// Something other than training happened (validation, a checkpoint, a new epoch): the next step is dropped.
    pub fn boundary(&mut self) {
        self.after_boundary = true;
    }

    /// The run went back to an earlier step (a restart from a checkpoint): counting and warm-up begin anew.
    pub fn restart(&mut self) {
        self.last_step = None;
        self.seen = 0;
    }

    /// How many clean steps there are so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.histogram.count()
    }

    /// The histogram of the clean steps so far.
    #[must_use]
    pub fn histogram(&self) -> &Histogram {
        &self.histogram
    }

    /// The histogram, if there are enough clean steps for a sample.
    #[must_use]
    pub fn finish(self) -> Option<Histogram> {
        (self.count() >= u64::from(TRAINING_COUNT_MIN)).then_some(self.histogram)
    }
}

impl ValidationReducer {
    /// A reducer that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A prompt was rendered: `images` images in `elapsed_ms`. Counts as one prompt at the time of one image.
    ///
    /// The first prompt of a run is dropped: it also loads and compiles the pipeline.
    pub fn prompt(&mut self, elapsed_ms: f64, images: u32) {
        if !self.warm {
            self.warm = true;
            return;
        }
        // No images, or a time outside the bounds, is no prompt time.
        let _out_of_range = self.histogram.record_ms(elapsed_ms / f64::from(images));
    }

    /// How many prompts were timed so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.histogram.count()
    }

    /// The histogram, if enough prompts were timed for a sample.
    #[must_use]
    pub fn finish(self) -> Option<Histogram> {
        (self.count() >= u64::from(VALIDATION_COUNT_MIN)).then_some(self.histogram)
    }
}

impl Sample {
    /// What may be stored of the sample; `None` when it has too few times.
    #[must_use]
    pub fn to_row(&self) -> Option<Row> {
        let median = self.histogram.quantile(0.5);
        let (mean_ms, count) = self.histogram.mean_ms_up_to(median * OUTLIER_FACTOR)?;
        let (_, max) = count_bounds(&self.key);
        let count = u32::try_from(count).unwrap_or(u32::MAX).min(max);
        // The middle of the last bucket is a little above the longest time.
        let avg_ms = three_digits((mean_ms.round() as u32).clamp(1, AVERAGE_MS_MAX));
        Row::new(self.key, avg_ms, count).ok()
    }
}

impl Row {
    /// A row, if its numbers are within the bounds of its kind.
    ///
    /// # Errors
    /// When they are not.
    pub fn new(key: Key, avg_ms: u32, count: u32) -> Result<Self, Error> {
        let (min, max) = count_bounds(&key);
        let hardware = key.hardware();
        if crate::Hardware::new(hardware.gpu, hardware.count).is_none() {
            return Err(Error::Hardware);
        }
        if avg_ms == 0 || avg_ms > AVERAGE_MS_MAX || avg_ms != three_digits(avg_ms) {
            return Err(Error::Average);
        }
        if !(min..=max).contains(&count) {
            return Err(Error::Count);
        }
        Ok(Self { key, avg_ms, count })
    }
}

/// The fewest and the most times that a row of this kind counts.
const fn count_bounds(key: &Key) -> (u32, u32) {
    match key {
        Key::Training(_) => (TRAINING_COUNT_MIN, TRAINING_COUNT_MAX),
        Key::Validation(_) => (VALIDATION_COUNT_MIN, VALIDATION_COUNT_MAX),
    }
}

/// The nearest number with three significant digits; halves go up.
#[must_use]
pub fn three_digits(number: u32) -> u32 {
    let mut unit = 1;
    while number / unit >= 1_000 {
        unit *= 10;
    }
    (number / unit + u32::from(number % unit >= unit.div_ceil(2))) * unit
}

#[derive(Deserialize)]
struct Unchecked {
    key: Key,
    avg_ms: u32,
    count: u32,
}

impl TryFrom<Unchecked> for Row {
    type Error = Error;

    fn try_from(row: Unchecked) -> Result<Self, Error> {
        Self::new(row.key, row.avg_ms, row.count)
    }
}
