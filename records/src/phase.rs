//! The parts of a run in the order in which they happen, each with its own time and what that rests on.

use serde::{Deserialize, Serialize};

use crate::estimate::{Basis, Quantiles};
use crate::resolution::HalfMegapixels;

/// One part of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phase {
    /// What happens.
    pub kind: PhaseKind,
    /// Pixels of the samples or images, where the part is of one resolution.
    pub resolution: Option<HalfMegapixels>,
    /// How often it happens: samples, steps, images or checkpoints; 1 for what happens once, 0 where nobody knows.
    pub count: u64,
    /// All of it together; `None` while it is unknown, and then it is in no sum.
    pub ms: Option<Quantiles>,
    /// How far from the exact key the time was taken. Set-up has no records, so it is never better than rough.
    pub basis: Basis,
    /// How many contributions it rests on.
    pub rows: u32,
    /// How many steps or images these observed.
    pub observed: u64,
}

/// What happens in a part of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PhaseKind {
    /// The trainer, its libraries and the GPU come up, and what the first step takes longer than others.
    Start,
    /// The model is read from a local disk.
    Load,
    /// Its weights are quantised.
    Quantize,
    /// Captions are encoded.
    CacheText,
    /// Samples are encoded.
    CacheLatents,
    /// Optimizer steps of one resolution.
    Train,
    /// Images of one resolution are generated to look at.
    Validate,
    /// Checkpoints are saved on the way.
    Checkpoint,
    /// The trained model is saved at the end.
    Save,
}

impl PhaseKind {
    /// Whether it belongs to what surrounds training and validation, which is shown apart and costs nothing in an
    /// estimate.
    #[must_use]
    pub const fn is_set_up(self) -> bool {
        !matches!(self, Self::Train | Self::Validate)
    }
}
