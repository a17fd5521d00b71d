//! Settings that change how long a step takes and that the records have no place for.

use serde::{Deserialize, Serialize};

/// Why a run is estimated from the nearest comparable shape and its own times are not recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OffRecord {
    /// A batch size that is not on the grid of the records.
    BatchSize,
    /// An accumulation that is not on the grid of the records.
    Accumulation,
    /// Denoising steps of validation that are not on the grid of the records.
    InferenceSteps,
    /// A clip longer than the longest class of frames.
    Frames,
    /// A `mixed_precision` that the policy does not name.
    Precision,
    /// A `base_model_precision` that the policy does not name, or quantised weights of the model's own.
    Quantization,
    /// Gradient checkpointing in another way than plainly over all layers.
    CheckpointingMode,
    /// An attention implementation other than the default.
    Attention,
    /// A compiled model (dynamo).
    Compile,
    /// Weights or activations kept outside the GPU between their uses.
    Offload,
    /// Weights divided among GPUs (FSDP, DeepSpeed), or one sample divided among them.
    Sharding,
    /// A moving average of the weights kept beside them.
    Ema,
    /// A loss, teacher or routing of tokens beside the plain objective.
    Objective,
    /// The text encoder trained too.
    TextEncoder,
    /// Images or captions encoded during the steps instead of before.
    OnDemandCache,
    /// Control inputs that widen the model.
    Control,
    /// Validation that runs by another program or method, or an evaluation beside it: what is measured of a step may hold some
    /// of it.
    ValidationMethod,
    /// A setting of the model's own that changes its cost.
    ModelSetting,
    /// Pictures whose pixels depend on their shapes.
    Resolution,
    /// A setting that changes what validation takes, and nothing of a step.
    ValidationSetting,
}

impl OffRecord {
    /// All of them, in the order of declaration.
    pub const ALL: [Self; 20] = [
        Self::BatchSize,
        Self::Accumulation,
        Self::InferenceSteps,
        Self::Frames,
        Self::Precision,
        Self::Quantization,
        Self::CheckpointingMode,
        Self::Attention,
        Self::Compile,
        Self::Offload,
        Self::Sharding,
        Self::Ema,
        Self::Objective,
        Self::TextEncoder,
        Self::OnDemandCache,
        Self::Control,
        Self::ValidationMethod,
        Self::ModelSetting,
        Self::Resolution,
        Self::ValidationSetting,
    ];

    /// Whether it changes the time of training steps, not that of validation alone.
    #[must_use]
    pub const fn touches_training(self) -> bool {
        !matches!(
            self,
            Self::InferenceSteps | Self::ValidationMethod | Self::ValidationSetting
        )
    }

    /// Whether it changes what is measured of training steps, which is more than the steps where an evaluation runs between two.
    #[must_use]
    pub const fn touches_measured_steps(self) -> bool {
        self.touches_training() || matches!(self, Self::ValidationMethod)
    }

    /// The same, or one that there was first: what logs before format 3 can say of it.
    #[must_use]
    pub const fn in_first_words(self) -> Self {
        match self {
            Self::Resolution => Self::ModelSetting,
            Self::ValidationSetting => Self::ValidationMethod,
            first => first,
        }
    }

    /// The words people read after "not comparable with the records:".
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::BatchSize => "a batch size off the records' grid",
            Self::Accumulation => "a gradient accumulation off the records' grid",
            Self::InferenceSteps => "validation steps off the records' grid",
            Self::Frames => "clips of more than 241 frames",
            Self::Precision => "a precision other than fp16 and bf16",
            Self::Quantization => "a quantisation other than int8 and nf4",
            Self::CheckpointingMode => "a special mode of gradient checkpointing",
            Self::Attention => "another attention implementation",
            Self::Compile => "a compiled model",
            Self::Offload => "weights or activations offloaded",
            Self::Sharding => "the model divided among GPUs",
            Self::Ema => "a moving average of the weights",
            Self::Objective => "an additional training objective",
            Self::TextEncoder => "the text encoder trained too",
            Self::OnDemandCache => "encoding during the steps",
            Self::Control => "control inputs",
            Self::ValidationMethod => "validation by another method, or evaluation between steps",
            Self::ModelSetting => "a setting of the model's own that changes its cost",
            Self::ValidationSetting => "a setting that changes what validation takes",
            Self::Resolution => "pixels that depend on the shapes of the pictures",
        }
    }
}

impl std::fmt::Display for OffRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.text())
    }
}
