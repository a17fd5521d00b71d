//! Number formats: what the policy names, and how values of SimpleTuner map to it.

use serde::{Deserialize, Serialize};

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
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Quantization {
    /// Not at all.
    #[default]
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
