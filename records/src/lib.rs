//! The benchmark records: what may be stored, and nothing else.
//!
//! A record's type has no room for an identity or for free text. Recipe and hardware come from closed
//! registries, the other key fields from closed grids, and what is left are two bounded numbers.

pub mod cell;
pub mod estimate;
pub mod hardware;
pub mod histogram;
pub mod key;
pub mod memory;
pub mod metrics;
pub mod phase;
pub mod recipe;
pub mod resolution;
pub mod sample;
pub mod schema;
pub mod secret;
pub mod simpletuner;
pub mod units;

mod text;

pub use cell::Cell;
pub use estimate::{Basis, CostQuantiles, Estimate, Note, Quantiles};
pub use hardware::{GpuModel, Hardware};
pub use histogram::Histogram;
pub use key::{
    Accumulation, BatchSize, InferenceSteps, Key, Precision, Quantization, TrainingKey,
    TrainingShape, Unmapped, ValidationKey, ValidationShape,
};
pub use memory::{Fit, Memory};
pub use phase::{Phase, PhaseKind};
pub use recipe::{Checkpointing, Family, FrameClass, Method, Modality, Recipe};
pub use resolution::HalfMegapixels;
pub use sample::{Row, Sample, StepReducer, ValidationReducer};
pub use units::UsdMicros;
