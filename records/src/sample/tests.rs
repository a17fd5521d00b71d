//! Reducers keep clean times only, and rows stay within their bounds.

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
