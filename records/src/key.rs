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

#[cfg(test)]
mod tests {
    use super::*;

    /// Every value that SimpleTuner 4.10.1 accepts as `base_model_precision`.
    const SIMPLETUNER_PRECISIONS: [(&str, Result<Quantization, Unmapped>); 28] = {
        const OUTSIDE: Result<Quantization, Unmapped> = Err(Unmapped::QuantizationOutsidePolicy);
        [
            ("no_change", Ok(Quantization::None)),
            ("int8-quanto", Ok(Quantization::Int8)),
            ("int4-quanto", OUTSIDE),
            ("int2-quanto", OUTSIDE),
            ("int8-torchao", Ok(Quantization::Int8)),
            ("int8dq-torchao", OUTSIDE),
            ("int8dq-int4-torchao", OUTSIDE),
            ("int8-sdnq", Ok(Quantization::Int8)),
            ("uint8-sdnq", OUTSIDE),
            ("int16-sdnq", OUTSIDE),
            ("uint16-sdnq", OUTSIDE),
            ("fp16-sdnq", OUTSIDE),
            ("fp8-sdnq", OUTSIDE),
            ("int6-sdnq", OUTSIDE),
            ("int5-sdnq", OUTSIDE),
            ("uint5-sdnq", OUTSIDE),
            ("uint4-sdnq", OUTSIDE),
            ("uint3-sdnq", OUTSIDE),
            ("uint2-sdnq", OUTSIDE),
            ("nf4-bnb", Ok(Quantization::Nf4)),
            ("int4-torchao", OUTSIDE),
            ("fp8-quanto", OUTSIDE),
            ("fp8uz-quanto", OUTSIDE),
            ("fp8-native", OUTSIDE),
            ("fp8-torchao", OUTSIDE),
            ("fp8wo-torchao", OUTSIDE),
            ("fp8-int4-torchao", OUTSIDE),
            ("fp8-transformerengine", OUTSIDE),
        ]
    };

    #[test]
    fn every_quantisation_of_simpletuner_is_mapped_or_refused_by_the_policy() {
        for (value, quantization) in SIMPLETUNER_PRECISIONS {
            assert_eq!(
                Quantization::from_simpletuner(value),
                quantization,
                "{value}"
            );
        }
        for value in ["", "INT8", "int8", "no", "weights.gguf"] {
            assert_eq!(
                Quantization::from_simpletuner(value),
                Err(Unmapped::UnknownValue),
                "{value}"
            );
        }
    }

    #[test]
    fn every_mixed_precision_of_simpletuner_is_mapped_or_refused_by_the_policy() {
        for (value, precision) in [
            ("fp16", Ok(Precision::Fp16)),
            ("bf16", Ok(Precision::Bf16)),
            ("no", Err(Unmapped::PrecisionOutsidePolicy)),
            ("fp8", Err(Unmapped::PrecisionOutsidePolicy)),
            ("fp32", Err(Unmapped::UnknownValue)),
        ] {
            assert_eq!(Precision::from_simpletuner(value), precision, "{value}");
        }
    }

    #[test]
    fn a_value_between_two_of_a_grid_is_dropped_not_rounded() {
        assert_eq!(BatchSize::new(4).map(BatchSize::get), Some(4));
        for outside in [0, 5, 37, 129, 65_540] {
            assert_eq!(BatchSize::new(outside), None, "{outside}");
        }
        assert_eq!(BatchSize::new(-1), None);
        assert_eq!(Accumulation::new(12), None);
        assert_eq!(InferenceSteps::new(30).map(InferenceSteps::get), Some(30));
        assert_eq!(InferenceSteps::new(256 + 30), None, "must not wrap to 30");
        assert!(serde_json::from_str::<BatchSize>("37").is_err());
        assert_eq!(
            serde_json::to_string(&BatchSize::new(12)).expect("json"),
            "12"
        );
    }

    #[test]
    fn grids_are_sorted_without_repeats() {
        assert!(BatchSize::GRID.is_sorted_by(|a, b| a < b));
        assert!(Accumulation::GRID.is_sorted_by(|a, b| a < b));
        assert!(InferenceSteps::GRID.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn names_are_the_words_of_the_policy() {
        assert_eq!(Precision::ALL.map(Precision::name), ["fp16", "bf16"]);
        assert_eq!(
            Quantization::ALL.map(Quantization::name),
            ["none", "int8", "nf4"]
        );
        for precision in Precision::ALL {
            assert_eq!(Precision::parse(precision.name()), Some(precision));
            let json = serde_json::to_string(&precision).expect("json");
            assert_eq!(json, format!("\"{precision}\""));
        }
        for quantization in Quantization::ALL {
            assert_eq!(Quantization::parse(quantization.name()), Some(quantization));
            let json = serde_json::to_string(&quantization).expect("json");
            assert_eq!(json, format!("\"{quantization}\""));
        }
    }

    #[test]
    fn a_shape_on_a_hardware_gives_the_shape_back() {
        let shape = TrainingShape {
            recipe: Recipe::parse("flux.dev/lora+ckpt").expect("recipe"),
            resolution: HalfMegapixels::new(2).expect("bucket"),
            batch_size: BatchSize::new(4).expect("grid"),
            accumulation: Accumulation::new(1).expect("grid"),
            precision: Precision::Bf16,
            quantization: Quantization::Int8,
        };
        let hardware: Hardware = "rtx4090".parse().expect("hardware");
        let key = shape.on(hardware);
        assert_eq!(key.shape(), shape);
        assert_eq!(key.hardware, hardware);
        let json = serde_json::to_string(&Key::from(key)).expect("json");
        assert_eq!(
            serde_json::from_str::<Key>(&json).expect("json"),
            Key::Training(key)
        );
    }
}
