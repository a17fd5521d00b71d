//! What tests of several modules share: keys, rows and contributions.

use stepcast_records::{
    Accumulation, BatchSize, HalfMegapixels, Hardware, InferenceSteps, Key, Precision,
    Quantization, Recipe, Row, TrainingKey, ValidationKey,
};

use crate::Contribution;

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
