//! What tests of several modules share: keys, rows and contributions.

mod faulty;
pub(crate) mod moto;

use proptest::prelude::*;
use proptest::sample::select;
use stepcast_records::{
    Accumulation, BatchSize, HalfMegapixels, Hardware, InferenceSteps, Key, Precision,
    Quantization, Recipe, Row, TrainingKey, ValidationKey,
};

use crate::Contribution;
pub(crate) use faulty::{Fault, Faulty};

/// A key at 1.0 megapixels, batch 4, no accumulation, bf16 and int8.
pub(crate) fn training_key(recipe: &str, hardware: &str) -> TrainingKey {
    TrainingKey {
        recipe: Recipe::parse(recipe).expect("recipe"),
        hardware: hardware.parse().expect("hardware"),
        resolution: HalfMegapixels::new(2).expect("bucket"),
        batch_size: BatchSize::new(4).expect("grid"),
        accumulation: Accumulation::new(1).expect("grid"),
        precision: Precision::Bf16,
        quantization: Quantization::Int8,
    }
}

/// A key at 1.0 megapixels, 20 inference steps, bf16 and int8.
pub(crate) fn validation_key(recipe: &str, hardware: &str) -> ValidationKey {
    ValidationKey {
        recipe: Recipe::parse(recipe).expect("recipe"),
        hardware: hardware.parse().expect("hardware"),
        resolution: HalfMegapixels::new(2).expect("bucket"),
        inference_steps: InferenceSteps::new(20).expect("grid"),
        precision: Precision::Bf16,
        quantization: Quantization::Int8,
    }
}

pub(crate) fn hardware(text: &str) -> Hardware {
    text.parse().expect("hardware")
}

pub(crate) fn row(key: impl Into<Key>, avg_ms: u32, count: u32) -> Row {
    Row::new(key.into(), avg_ms, count).expect("row")
}

/// A contribution whose id is sixteen times the same byte.
pub(crate) fn contribution(id: u8, rows: Vec<Row>) -> Contribution {
    Contribution { id: [id; 16], rows }
}

/// Any valid row of either table.
pub(crate) fn any_row() -> impl Strategy<Value = Row> {
    let recipes: Vec<Recipe> = Recipe::all().collect();
    let hardwares: Vec<Hardware> = Hardware::all().collect();
    let key = (
        select(recipes),
        select(hardwares),
        select(HalfMegapixels::all().collect::<Vec<_>>()),
        select(BatchSize::all().collect::<Vec<_>>()),
        select(Accumulation::all().collect::<Vec<_>>()),
        select(InferenceSteps::all().collect::<Vec<_>>()),
        select(Precision::ALL.to_vec()),
        select(Quantization::ALL.to_vec()),
        any::<bool>(),
    );
    let key = key.prop_map(
        |(
            recipe,
            hardware,
            resolution,
            batch_size,
            accumulation,
            inference_steps,
            precision,
            quantization,
            training,
        )| {
            if training {
                Key::Training(TrainingKey {
                    recipe,
                    hardware,
                    resolution,
                    batch_size,
                    accumulation,
                    precision,
                    quantization,
                })
            } else {
                Key::Validation(ValidationKey {
                    recipe,
                    hardware,
                    resolution,
                    inference_steps,
                    precision,
                    quantization,
                })
            }
        },
    );
    (key, 1u32..1_000, 20u32..=64).prop_map(|(key, avg_ms, count)| row(key, avg_ms, count))
}
