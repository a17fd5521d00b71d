//! The key: everything that must be equal for two times to be comparable.

mod format;
mod grid;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use crate::hardware::Hardware;
use crate::recipe::Recipe;
use crate::resolution::HalfMegapixels;
pub use format::{Precision, Quantization, Unmapped};
pub use grid::{Accumulation, BatchSize, InferenceSteps, OffGrid};

/// A training key without its hardware: what a configuration alone decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TrainingShape {
    /// Model family, flavour and method.
    pub recipe: Recipe,
    /// Pixels of one sample.
    pub resolution: HalfMegapixels,
    /// Samples in one micro-batch on one GPU.
    pub batch_size: BatchSize,
    /// Micro-batches in one optimizer step.
    pub accumulation: Accumulation,
    /// The number format.
    pub precision: Precision,
    /// How the frozen weights are quantised.
    pub quantization: Quantization,
}

/// A validation key without its hardware.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ValidationShape {
    /// Model family, flavour and method.
    pub recipe: Recipe,
    /// Pixels of one image that validation makes.
    pub resolution: HalfMegapixels,
    /// Denoising steps of one image.
    pub inference_steps: InferenceSteps,
    /// The number format.
    pub precision: Precision,
    /// How the frozen weights are quantised.
    pub quantization: Quantization,
}

/// What must be equal for two training step times to be comparable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TrainingKey {
    /// Model family, flavour and method.
    pub recipe: Recipe,
    /// GPU model and count.
    pub hardware: Hardware,
    /// Pixels of one sample.
    pub resolution: HalfMegapixels,
    /// Samples in one micro-batch on one GPU.
    pub batch_size: BatchSize,
    /// Micro-batches in one optimizer step.
    pub accumulation: Accumulation,
    /// The number format.
    pub precision: Precision,
    /// How the frozen weights are quantised.
    pub quantization: Quantization,
}

/// What must be equal for two validation times to be comparable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ValidationKey {
    /// Model family, flavour and method.
    pub recipe: Recipe,
    /// GPU model and count.
    pub hardware: Hardware,
    /// Pixels of one image that validation makes.
    pub resolution: HalfMegapixels,
    /// Denoising steps of one image.
    pub inference_steps: InferenceSteps,
    /// The number format.
    pub precision: Precision,
    /// How the frozen weights are quantised.
    pub quantization: Quantization,
}

/// The key of either kind of record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Key {
    /// Training steps.
    Training(TrainingKey),
    /// Validation prompts.
    Validation(ValidationKey),
}

impl TrainingShape {
    /// The key of this shape on a hardware.
    #[must_use]
    pub const fn on(self, hardware: Hardware) -> TrainingKey {
        let Self {
            recipe,
            resolution,
            batch_size,
            accumulation,
            precision,
            quantization,
        } = self;
        TrainingKey {
            recipe,
            hardware,
            resolution,
            batch_size,
            accumulation,
            precision,
            quantization,
        }
    }
}

impl ValidationShape {
    /// The key of this shape on a hardware.
    #[must_use]
    pub const fn on(self, hardware: Hardware) -> ValidationKey {
        let Self {
            recipe,
            resolution,
            inference_steps,
            precision,
            quantization,
        } = self;
        ValidationKey {
            recipe,
            hardware,
            resolution,
            inference_steps,
            precision,
            quantization,
        }
    }
}

impl TrainingKey {
    /// The key without its hardware.
    #[must_use]
    pub const fn shape(self) -> TrainingShape {
        TrainingShape {
            recipe: self.recipe,
            resolution: self.resolution,
            batch_size: self.batch_size,
            accumulation: self.accumulation,
            precision: self.precision,
            quantization: self.quantization,
        }
    }
}

impl ValidationKey {
    /// The key without its hardware.
    #[must_use]
    pub const fn shape(self) -> ValidationShape {
        ValidationShape {
            recipe: self.recipe,
            resolution: self.resolution,
            inference_steps: self.inference_steps,
            precision: self.precision,
            quantization: self.quantization,
        }
    }
}

impl Key {
    /// Model family, flavour and method.
    #[must_use]
    pub const fn recipe(&self) -> Recipe {
        match self {
            Self::Training(key) => key.recipe,
            Self::Validation(key) => key.recipe,
        }
    }

    /// GPU model and count.
    #[must_use]
    pub const fn hardware(&self) -> Hardware {
        match self {
            Self::Training(key) => key.hardware,
            Self::Validation(key) => key.hardware,
        }
    }

    /// The resolution bucket.
    #[must_use]
    pub const fn resolution(&self) -> HalfMegapixels {
        match self {
            Self::Training(key) => key.resolution,
            Self::Validation(key) => key.resolution,
        }
    }
}

impl From<TrainingKey> for Key {
    fn from(key: TrainingKey) -> Self {
        Self::Training(key)
    }
}

impl From<ValidationKey> for Key {
    fn from(key: ValidationKey) -> Self {
        Self::Validation(key)
    }
}
