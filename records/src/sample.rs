//! From a run's times to what may leave the worker (a sample) and what may be stored (a row).

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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::key::{
        Accumulation, BatchSize, InferenceSteps, Precision, Quantization, TrainingShape,
        ValidationShape,
    };
    use crate::{HalfMegapixels, Hardware, Recipe};

    fn training_key() -> Key {
        let shape = TrainingShape {
            recipe: Recipe::parse("flux.dev/lora+ckpt").expect("recipe"),
            resolution: HalfMegapixels::new(2).expect("bucket"),
            batch_size: BatchSize::new(4).expect("grid"),
            accumulation: Accumulation::new(1).expect("grid"),
            precision: Precision::Bf16,
            quantization: Quantization::Int8,
        };
        shape.on("rtx4090".parse().expect("hardware")).into()
    }

    fn validation_key() -> Key {
        let shape = ValidationShape {
            recipe: Recipe::parse("flux.dev/lora+ckpt").expect("recipe"),
            resolution: HalfMegapixels::new(2).expect("bucket"),
            inference_steps: InferenceSteps::new(20).expect("grid"),
            precision: Precision::Bf16,
            quantization: Quantization::Int8,
        };
        shape.on("rtx4090".parse().expect("hardware")).into()
    }

    fn sample(key: Key, times_ms: impl IntoIterator<Item = f64>) -> Sample {
        let mut histogram = Histogram::new();
        for time_ms in times_ms {
            histogram.record_ms(time_ms).expect("in range");
        }
        Sample { key, histogram }
    }

    #[test]
    fn only_clean_steps_are_kept() {
        let mut reducer = StepReducer::new();
        for step in 1..=10 {
            reducer.step(step, 60_000.0);
        }
        assert_eq!(reducer.count(), 0, "warm-up");
        reducer.step(11, 1_000.0);
        assert_eq!(reducer.count(), 1);
        reducer.boundary();
        reducer.step(12, 90_000.0);
        assert_eq!(
            reducer.count(),
            1,
            "the step after a boundary holds what came before it"
        );
        reducer.step(13, 1_000.0);
        assert_eq!(reducer.count(), 2);
        reducer.step(13, 1_000.0);
        reducer.step(9, 1_000.0);
        assert_eq!(reducer.count(), 2, "repeats and earlier steps");
        reducer.step(15, 2_000.0);
        assert_eq!(reducer.count(), 2, "two steps in one");
        reducer.step(16, f64::NAN);
        reducer.step(17, -1.0);
        reducer.step(18, 4_000_000.0);
        assert_eq!(reducer.count(), 2, "no times of steps");
        reducer.step(19, 1_000.0);
        assert_eq!(reducer.count(), 3);
        assert_eq!(reducer.finish(), None, "too few for a sample");
    }

    #[test]
    fn a_repeat_does_not_use_up_a_boundary() {
        let mut reducer = StepReducer::new();
        for step in 1..=11 {
            reducer.step(step, 1_000.0);
        }
        reducer.boundary();
        reducer.step(11, 1_000.0);
        reducer.step(12, 90_000.0);
        assert_eq!(reducer.count(), 1);
    }

    #[test]
    fn a_restart_warms_up_again() {
        let mut reducer = StepReducer::new();
        for step in 1..=30 {
            reducer.step(step, 1_000.0);
        }
        assert_eq!(reducer.count(), 20);
        reducer.restart();
        for step in 21..=30 {
            reducer.step(step, 50_000.0);
        }
        assert_eq!(reducer.count(), 20);
        reducer.step(31, 1_000.0);
        assert_eq!(
            reducer.finish().map(|histogram| histogram.count()),
            Some(21)
        );
    }

    #[test]
    fn a_prompt_counts_at_the_time_of_one_image() {
        let mut reducer = ValidationReducer::new();
        reducer.prompt(60_000.0, 1);
        reducer.prompt(40_000.0, 2);
        reducer.prompt(20_000.0, 0);
        assert_eq!(
            reducer.count(),
            1,
            "the first loads the pipeline; none of none is no time"
        );
        reducer.prompt(20_000.0, 1);
        let histogram = reducer.finish().expect("two prompts");
        assert!((histogram.mean_ms() - 20_000.0).abs() < 100.0);
    }

    #[test]
    fn a_row_is_clipped_rounded_and_free_of_stalls() {
        let times = std::iter::repeat_n(1_423.0, 1_500).chain([60_000.0; 5]);
        let row = sample(training_key(), times).to_row().expect("a row");
        assert_eq!((row.avg_ms, row.count), (1_420, 1_000));
        let times = std::iter::repeat_n(20_000.0, 100);
        let row = sample(validation_key(), times).to_row().expect("a row");
        assert_eq!(row.count, 64);
    }

    #[test]
    fn too_few_times_make_no_row() {
        let few = sample(training_key(), std::iter::repeat_n(1_000.0, 19));
        assert_eq!(few.to_row(), None);
        let enough = sample(training_key(), std::iter::repeat_n(1_000.0, 20));
        assert_eq!(enough.to_row().map(|row| row.count), Some(20));
        assert_eq!(sample(validation_key(), [1_000.0]).to_row(), None);
        assert!(sample(validation_key(), [1_000.0; 2]).to_row().is_some());
        assert_eq!(sample(validation_key(), []).to_row(), None);
    }

    #[test]
    fn the_longest_and_shortest_times_still_make_rows() {
        let longest = sample(training_key(), std::iter::repeat_n(3_600_000.0, 20));
        assert_eq!(longest.to_row().map(|row| row.avg_ms), Some(3_600_000));
        let shortest = sample(training_key(), std::iter::repeat_n(1.0, 20));
        assert_eq!(shortest.to_row().map(|row| row.avg_ms), Some(1));
    }

    #[test]
    fn a_row_from_elsewhere_is_checked() {
        let key = training_key();
        assert!(Row::new(key, 1_420, 20).is_ok());
        assert_eq!(Row::new(key, 1_423, 20), Err(Error::Average));
        assert_eq!(Row::new(key, 0, 20), Err(Error::Average));
        assert_eq!(Row::new(key, 3_610_000, 20), Err(Error::Average));
        assert_eq!(Row::new(key, 1_420, 19), Err(Error::Count));
        assert_eq!(Row::new(key, 1_420, 1_001), Err(Error::Count));
        assert_eq!(Row::new(validation_key(), 1_420, 65), Err(Error::Count));
        let Key::Training(mut odd) = key else {
            unreachable!("a training key")
        };
        let gpu = odd.hardware.gpu;
        odd.hardware = Hardware { gpu, count: 3 };
        assert_eq!(Row::new(odd.into(), 1_420, 20), Err(Error::Hardware));
        let row = Row::new(key, 1_420, 20).expect("a row");
        let json = serde_json::to_string(&row).expect("json");
        assert_eq!(serde_json::from_str::<Row>(&json).expect("json"), row);
        let forged = json.replace("1420", "1423");
        assert!(serde_json::from_str::<Row>(&forged).is_err());
    }

    #[test]
    fn a_sample_survives_json() {
        let sample = sample(training_key(), [1_000.0; 30]);
        let json = serde_json::to_string(&sample).expect("json");
        assert_eq!(serde_json::from_str::<Sample>(&json).expect("json"), sample);
    }

    #[test]
    fn three_digits_remain() {
        for (number, rounded) in [
            (1, 1),
            (999, 999),
            (1_004, 1_000),
            (1_005, 1_010),
            (1_423, 1_420),
            (9_995, 10_000),
            (14_049, 14_000),
            (14_050, 14_100),
            (3_600_000, 3_600_000),
            (4_294_967_295, 4_290_000_000),
        ] {
            assert_eq!(three_digits(number), rounded, "{number}");
        }
    }

    proptest! {
        #[test]
        fn rounding_twice_changes_nothing(number in 0u32..4_000_000_000) {
            let once = three_digits(number);
            prop_assert_eq!(three_digits(once), once);
            prop_assert!(once.abs_diff(number) * 200 <= number.max(1) || once == number);
        }

        #[test]
        fn reports_sent_twice_or_late_change_nothing(
            repeats in prop::collection::vec((0usize..100, 1u64..100), 0..30)
        ) {
            let mut plain = StepReducer::new();
            let mut noisy = StepReducer::new();
            for step in 1..=100u64 {
                let time_ms = 1_000.0 + step as f64;
                plain.step(step, time_ms);
                noisy.step(step, time_ms);
                for (position, earlier) in &repeats {
                    if *position as u64 == step {
                        noisy.step((*earlier).min(step), 77_777.0);
                    }
                }
            }
            prop_assert_eq!(plain.finish(), noisy.finish());
        }

        #[test]
        fn steps_after_boundaries_are_never_kept(boundaries in prop::collection::btree_set(11u64..200, 0..40)) {
            let mut reducer = StepReducer::new();
            for step in 1..=200u64 {
                if boundaries.contains(&step) {
                    reducer.boundary();
                }
                let slow = boundaries.contains(&step) || step <= WARMUP_STEPS;
                reducer.step(step, if slow { 99_000.0 } else { 1_000.0 });
            }
            prop_assert_eq!(reducer.count(), 190 - boundaries.len() as u64);
            prop_assert!(reducer.histogram().quantile(1.0) < 1_010.0);
        }

        #[test]
        fn a_row_is_near_the_exact_mean(times in prop::collection::vec(500.0f64..1_500.0, 20..200)) {
            let exact = times.iter().sum::<f64>() / times.len() as f64;
            let row = sample(training_key(), times).to_row().expect("a row");
            prop_assert!((f64::from(row.avg_ms) - exact).abs() / exact < 0.011);
        }
    }
}
