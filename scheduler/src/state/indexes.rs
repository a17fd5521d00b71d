//! What is looked up often: made from the jobs alone, kept beside them, and compared with them by the invariants.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};

use super::counts::JobCounts;
use crate::ids::{Epoch, JobId, StagingId, WorkerId};
use crate::model::{Job, JobState, Lease};

/// Ways to find jobs and leases.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Indexes {
    /// Waiting jobs, in the order of the queue.
    pub(crate) pending: BTreeSet<(i64, JobId)>,
    /// Waiting jobs, by when they came into the queue.
    pub(crate) queued: BTreeSet<(u64, JobId)>,
    /// Jobs that are not over, by their files.
    pub(crate) staged: BTreeMap<StagingId, JobId>,
    /// Jobs that are over, by when they ended.
    pub(crate) ended: BTreeSet<(u64, JobId)>,
    /// Attempts that hold a lease.
    pub(crate) leases: BTreeMap<Epoch, Lease>,
    /// The same by worker.
    pub(crate) on_worker: BTreeSet<(WorkerId, Epoch)>,
    /// GPUs in use.
    pub(crate) busy: BTreeMap<(WorkerId, u8), Epoch>,
    /// Attempts that are to be asked to stop at a time, and were not yet.
    pub(crate) deadlines: BTreeSet<(u64, Epoch)>,
    /// How many jobs stand where.
    pub(crate) counts: JobCounts,
    /// Bytes of what workers said about ends.
    pub(crate) detail_bytes: usize,
}

impl Indexes {
    /// The indexes of these jobs.
    pub(crate) fn of<J: Borrow<Job>>(jobs: impl Iterator<Item = J>) -> Self {
        let mut indexes = Self::default();
        jobs.for_each(|job| indexes.add(job.borrow()));
        indexes
    }

    /// Takes a job in.
    pub(crate) fn add(&mut self, job: &Job) {
        if job.state == JobState::Pending {
            self.pending.insert((job.order(), job.id));
            self.queued.insert((job.queued_ms, job.id));
        }
        match job.ended_ms {
            Some(ended_ms) => _ = self.ended.insert((ended_ms, job.id)),
            None => _ = self.staged.insert(job.spec.staging, job.id),
        }
        if let Some(attempt) = job.live_attempt() {
            let (epoch, worker) = (attempt.epoch, attempt.worker);
            self.leases.insert(
                epoch,
                Lease {
                    epoch,
                    job: job.id,
                    attempt: attempt.number,
                    worker,
                },
            );
            self.on_worker.insert((worker, epoch));
            self.busy
                .extend(attempt.gpus.iter().map(|gpu| ((worker, *gpu), epoch)));
            if let (Some(deadline), None) = (attempt.deadline, attempt.stop) {
                self.deadlines.insert((deadline.at_ms, epoch));
            }
        }
        *self.counts.of_mut(job.state) += 1;
        self.detail_bytes += detail_bytes(job);
    }

    /// Takes a job out, as it is now.
    pub(crate) fn remove(&mut self, job: &Job) {
        if job.state == JobState::Pending {
            self.pending.remove(&(job.order(), job.id));
            self.queued.remove(&(job.queued_ms, job.id));
        }
        match job.ended_ms {
            Some(ended_ms) => _ = self.ended.remove(&(ended_ms, job.id)),
            None => _ = self.staged.remove(&job.spec.staging),
        }
        if let Some(attempt) = job.live_attempt() {
            let (epoch, worker) = (attempt.epoch, attempt.worker);
            self.leases.remove(&epoch);
            self.on_worker.remove(&(worker, epoch));
            for gpu in &attempt.gpus {
                self.busy.remove(&(worker, *gpu));
            }
            if let Some(deadline) = attempt.deadline {
                self.deadlines.remove(&(deadline.at_ms, epoch));
            }
        }
        *self.counts.of_mut(job.state) -= 1;
        self.detail_bytes -= detail_bytes(job);
    }
}

fn detail_bytes(job: &Job) -> usize {
    job.attempts
        .iter()
        .map(|attempt| attempt.detail.len())
        .sum()
}
