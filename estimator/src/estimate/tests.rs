//! The estimate as people see it: the policy's example to the letter, and what must hold of every other one.

use proptest::prelude::*;
use stepcast_records::simpletuner::{Dataset, Interval, Length, Validation, Workload};
use stepcast_records::{
    Basis, FrameClass, HalfMegapixels, Key, Precision, Quantization, Recipe, Row,
};

use super::*;
use crate::testing::{any_row, hardware, row, training_key, validation_key};

fn megapixels(half: u8) -> HalfMegapixels {
    HalfMegapixels::new(half).expect("bucket")
}

/// 150 steps at 1.0 megapixels and batch 4 with int8, and three passes of three images.
fn example() -> Workload {
    Workload {
        recipe: Recipe::parse("flux.dev/lora").expect("recipe"),
        precision: Precision::Bf16,
        quantization: Quantization::Int8,
        accumulation: 1,
        context_parallel: 1,
        datasets: vec![Dataset {
            resolution: megapixels(2),
            frames: FrameClass::Single,
            batch_size: 4,
            samples: Some(100),
            repeats: 0,
            padded: false,
        }],
        length: Length::Steps(150),
        checkpoint_every: None,
        validation: Some(validation()),
        off_record: Vec::new(),
    }
}
