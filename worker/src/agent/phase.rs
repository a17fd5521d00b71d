//! What a trainer is doing once a stage of it has begun or ended.

use super::Phase;
use crate::event::{Stage, StageStatus};

impl Phase {
    /// The phase after this event; `stepping` is what a trainer does between its other phases by now.
    pub(super) fn after(self, stage: Stage, status: StageStatus, stepping: Self) -> Self {
        match (stage, status) {
            _ if self == Self::Complete => self,
            (Stage::TrainingComplete, StageStatus::Completed) => Self::Complete,
            (Stage::Caching, StageStatus::Running) => Self::Caching,
            (Stage::Loading | Stage::Resume, StageStatus::Running) => Self::Loading,
            (Stage::Validation | Stage::Benchmark, StageStatus::Running) => Self::Validating,
            (Stage::CheckpointSave | Stage::ModelSave, StageStatus::Running) => Self::Saving,
            (Stage::Validation | Stage::CheckpointSave, _) => stepping,
            _ => self,
        }
    }
}
