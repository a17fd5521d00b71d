//! The key: everything that must be equal for two times to be comparable.

use serde::{Deserialize, Serialize};

use crate::hardware::Hardware;
use crate::recipe::Recipe;
use crate::resolution::HalfMegapixels;

/// Why a value of SimpleTuner's has no place in a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum Unmapped {
    /// A precision of SimpleTuner that the policy does not name.
    #[error("the policy names the precisions fp16 and bf16 only")]
    PrecisionOutsidePolicy,
    /// A quantisation of SimpleTuner that the policy does not name.
    #[error("the policy names the quantisations none, int8 and nf4 only")]
    QuantizationOutsidePolicy,
    /// Not a value of SimpleTuner's.
    #[error("not a value that SimpleTuner has")]
    UnknownValue,
}

/// The number is not on the grid of its field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not on the grid of values that a record may hold")]
pub struct OffGrid;

macro_rules! grid {
    ($(#[$doc:meta])* $name:ident($number:ty) = [$($value:literal),+ $(,)?]) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "u32", into = "u32")]
        pub struct $name($number);

        impl $name {
            /// Every value a record may hold, smallest first. A value between them is dropped, never rounded.
            pub const GRID: &'static [$number] = &[$($value),+];

            /// The value, if it is on the grid.
            #[must_use]
            pub fn new(value: impl TryInto<$number>) -> Option<Self> {
                let value = value.try_into().ok()?;
                Self::GRID.contains(&value).then_some(Self(value))
            }

            /// The number.
            #[must_use]
            pub const fn get(self) -> $number {
                self.0
            }

            /// Every value of the grid, smallest first.
            pub fn all() -> impl Iterator<Item = Self> {
                Self::GRID.iter().map(|value| Self(*value))
            }
        }

        impl TryFrom<u32> for $name {
            type Error = OffGrid;

            fn try_from(value: u32) -> Result<Self, OffGrid> {
                Self::new(value).ok_or(OffGrid)
            }
        }

        impl From<$name> for u32 {
            fn from(value: $name) -> Self {
                Self::from(value.0)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

grid! {
    /// Samples in one micro-batch on one GPU.
    BatchSize(u16) = [1, 2, 3, 4, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 96, 128]
}

grid! {
    /// Micro-batches in one optimizer step.
    Accumulation(u16) = [1, 2, 3, 4, 6, 8, 16, 32]
}

grid! {
    /// Denoising steps of one validation image.
    InferenceSteps(u8) = [
        1, 2, 4, 6, 8, 10, 12, 15, 16, 18, 20, 24, 25, 28, 30, 32, 35, 40, 45, 50, 60, 75, 100,
    ]
}

/// The number format of training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Half precision.
    Fp16,
    /// Brain floating point, SimpleTuner's default.
    Bf16,
}

/// How the frozen weights are quantised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Quantization {
    /// Not at all.
    None,
    /// Eight-bit integers.
    Int8,
    /// Four-bit normal floats.
    Nf4,
}

/// Values of SimpleTuner's `base_model_precision` that the policy has no word for.
const QUANTIZATIONS_OUTSIDE_POLICY: [&str; 23] = [
    "int4-quanto",
    "int2-quanto",
    "fp8-quanto",
    "fp8uz-quanto",
    "int4-torchao",
    "int8dq-torchao",
    "int8dq-int4-torchao",
    "fp8-torchao",
    "fp8wo-torchao",
    "fp8-int4-torchao",
    "fp8-native",
    "fp8-transformerengine",
    "uint8-sdnq",
    "int16-sdnq",
    "uint16-sdnq",
    "fp16-sdnq",
    "fp8-sdnq",
    "int6-sdnq",
    "int5-sdnq",
    "uint5-sdnq",
    "uint4-sdnq",
    "uint3-sdnq",
    "uint2-sdnq",
];

impl Precision {
    /// Both, in the order of the policy.
    pub const ALL: [Self; 2] = [Self::Fp16, Self::Bf16];

    /// The precision of a `mixed_precision` value.
    ///
    /// # Errors
    /// When the value is one that the policy does not name, or none of SimpleTuner's.
    pub fn from_simpletuner(mixed_precision: &str) -> Result<Self, Unmapped> {
        match mixed_precision {
            "fp16" => Ok(Self::Fp16),
            "bf16" => Ok(Self::Bf16),
            "no" | "fp8" => Err(Unmapped::PrecisionOutsidePolicy),
            _ => Err(Unmapped::UnknownValue),
        }
    }

    /// The policy's word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fp16 => "fp16",
            Self::Bf16 => "bf16",
        }
    }

    /// The precision with this name, or `None`.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.name() == name)
    }
}

impl Quantization {
    /// All three, in the order of the policy.
    pub const ALL: [Self; 3] = [Self::None, Self::Int8, Self::Nf4];

    /// The quantisation of a `base_model_precision` value.
    ///
    /// # Errors
    /// When the value is one that the policy does not name, or none of SimpleTuner's.
    pub fn from_simpletuner(base_model_precision: &str) -> Result<Self, Unmapped> {
        match base_model_precision {
            "no_change" => Ok(Self::None),
            "int8-quanto" | "int8-torchao" | "int8-sdnq" => Ok(Self::Int8),
            "nf4-bnb" => Ok(Self::Nf4),
            other if QUANTIZATIONS_OUTSIDE_POLICY.contains(&other) => {
                Err(Unmapped::QuantizationOutsidePolicy)
            }
            _ => Err(Unmapped::UnknownValue),
        }
    }

    /// The policy's word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Int8 => "int8",
            Self::Nf4 => "nf4",
        }
    }

    /// The quantisation with this name, or `None`.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.name() == name)
    }
}

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

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

impl std::fmt::Display for Quantization {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}
