//! How much memory of each GPU a run needs, and whether the GPU has it.

use serde::{Deserialize, Serialize};

use crate::estimate::Basis;
use crate::phase::PhaseKind;

/// What is expected of a run's peak on one GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// One in ten such runs needs less, in MiB.
    pub need_mib_p10: u32,
    /// Half need less.
    pub need_mib_p50: u32,
    /// Nine in ten need less.
    pub need_mib_p90: u32,
    /// What one GPU has, in MiB.
    pub gpu_mib: u32,
    /// How far from the run the published peak is that this rests on; rough where the size of the model is all there is.
    pub basis: Basis,
    /// Whether it fits.
    pub fit: Fit,
    /// When it needs that: in its steps ([`PhaseKind::Train`]), or before them, while captions or samples are encoded or
    /// weights quantised.
    pub phase: PhaseKind,
}

/// Whether a run fits the memory of a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fit {
    /// It does.
    Fits,
    /// At least one in four such runs needs more than there is.
    MayNot,
    /// At least nine in ten such runs need more than there is, or one that asks for less was published not to fit.
    WillNot,
}
