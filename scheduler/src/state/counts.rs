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
    /// How many jobs stand where. Looks at every job: for a page or a scrape, not for a loop.
    #[must_use]
    pub fn job_counts(&self) -> JobCounts {
        let mut counts = JobCounts::default();
        for job in self.jobs() {
            let count = match job.state {
                JobState::Pending => &mut counts.pending,
                JobState::Running => &mut counts.running,
                JobState::Cancelling => &mut counts.cancelling,
                JobState::Succeeded => &mut counts.succeeded,
                JobState::Failed { .. } => &mut counts.failed,
                JobState::Cancelled => &mut counts.cancelled,
            };
            *count += 1;
        }
        counts
    }
}
