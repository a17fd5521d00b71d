//! How many jobs stand where.

use super::State;
use crate::model::JobState;

/// Jobs by state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JobCounts {
    /// Waiting for GPUs.
    pub pending: usize,
    /// Under a lease.
    pub running: usize,
    /// Under a lease, and asked to end.
    pub cancelling: usize,
    /// Done.
    pub succeeded: usize,
    /// Failed for good.
    pub failed: usize,
    /// Cancelled.
    pub cancelled: usize,
}

impl State {
    /// How many jobs stand where.
    #[must_use]
    pub const fn job_counts(&self) -> JobCounts {
        self.indexes.counts
    }
}

impl JobCounts {
    /// The number of those that stand there.
    pub(crate) const fn of_mut(&mut self, state: JobState) -> &mut usize {
        match state {
            JobState::Pending => &mut self.pending,
            JobState::Running => &mut self.running,
            JobState::Cancelling => &mut self.cancelling,
            JobState::Succeeded => &mut self.succeeded,
            JobState::Failed { .. } => &mut self.failed,
            JobState::Cancelled => &mut self.cancelled,
        }
    }
}
