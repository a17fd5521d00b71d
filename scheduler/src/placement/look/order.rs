//! The order of the queue: who would get their turn when, and where a job stands in it as its team has it.

use super::Look;
use crate::ids::JobId;
use crate::model::Job;
use crate::policy::Aim;

impl Look<'_> {
    /// The waiting jobs in the order in which they would get their turn.
    pub(in crate::placement) fn queue(&mut self) -> Vec<JobId> {
        match self.policy.aim {
            Aim::Fifo => {
                let mut jobs: Vec<_> = self.state.pending().map(|job| job.id).collect();
                jobs.sort();
                jobs
            }
            Aim::Priority => {
                let mut jobs: Vec<_> = self.state.pending().map(|job| self.place(job)).collect();
                jobs.sort();
                jobs.into_iter().map(|(_, job)| job).collect()
            }
            Aim::Fair | Aim::FairBlind => self.state.pending().map(|job| job.id).collect(),
            Aim::Balanced | Aim::Makespan | Aim::ShortestRemaining | Aim::Cost => {
                match self.crowd.take() {
                    Some(mut crowd) => {
                        let queue = self.queue_of(&mut crowd);
                        self.crowd = Some(crowd);
                        queue
                    }
                    None => self.staged_queue(),
                }
            }
        }
    }

    /// How much later than it came a job has its turn for what its team has used, in milliseconds.
    pub(in crate::placement) fn late_ms(&self, job: &Job) -> i64 {
        self.shares.late_ms(job.spec.terms.team)
    }

    /// A job's place in the queue as its team has it.
    pub(super) fn place(&self, job: &Job) -> (i64, JobId) {
        (self.shares.order(job), job.id)
    }
}
