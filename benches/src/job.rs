//! A job as a person submits it.

use stepcast_records::simpletuner::{Dataset, Length, Preparation, Sharing, Workload};
use stepcast_records::{FrameClass, HalfMegapixels, Precision, Quantization, Recipe, TrainingKey};
use stepcast_scheduler::ids::StagingId;
use stepcast_scheduler::model::JobSpec;

/// An id made of a number.
pub fn wide(number: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes
}

/// A run of a thousand steps of exactly this key, without validation.
#[must_use]
pub fn workload(key: &TrainingKey) -> Workload {
    Workload {
        recipe: key.recipe,
        precision: key.precision,
        quantization: key.quantization,
        accumulation: key.accumulation.into(),
        context_parallel: 1,
        datasets: vec![Dataset {
            resolution: key.resolution,
            frames: key.recipe.frames(),
            batch_size: key.batch_size.into(),
            samples: Some(1_000),
            repeats: 0,
            padded: false,
        }],
        length: Length::Steps(1_000),
        checkpoint_every: None,
        validation: None,
        off_record: Vec::new(),
        preparation: Preparation::default(),
        sharing: Sharing::default(),
    }
}

/// A job as a person submits it: one data set, no validation.
pub fn spec() -> Option<JobSpec> {
    let workload = Workload {
        recipe: Recipe::parse("flux.dev/lora+ckpt")?,
        precision: Precision::Bf16,
        quantization: Quantization::Int8,
        accumulation: 1,
        context_parallel: 1,
        datasets: vec![Dataset {
            resolution: HalfMegapixels::new(2)?,
            frames: FrameClass::Single,
            batch_size: 4,
            samples: Some(120),
            repeats: 0,
            padded: false,
        }],
        length: Length::Steps(3_000),
        checkpoint_every: Some(500),
        validation: None,
        off_record: Vec::new(),
        preparation: Preparation::default(),
        sharing: Sharing::default(),
    };
    Some(JobSpec::new(workload, StagingId([0; 16])))
}
