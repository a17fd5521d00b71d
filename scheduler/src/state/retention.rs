//! What must not exist any more: found by asking, ended or forgotten a bounded number at a time.

use std::sync::Arc;

use super::State;
use super::apply::Entry;
use crate::ids::{Epoch, JobId, WorkerId};
use crate::model::limits::{
    JOB_RETENTION_MS, LOST_WORKER_RETENTION_MS, QUEUE_AGE_MAX_MS, SWEEP_MAX,
};
use crate::model::{EventKind, FailureReason, JobState, StopReason, Worker, WorkerState};
use crate::reply::Reply;

impl State {
    /// Whether a sweep at `now_ms` would find something. Cheap enough to be asked every second.
    #[must_use]
    pub fn is_sweep_due(&self, now_ms: u64) -> bool {
        let now_ms = now_ms.max(self.now_ms);
        let reached = |first: Option<u64>, age_ms: u64| {
            first.is_some_and(|ms| now_ms >= ms.saturating_add(age_ms))
        };
        reached(self.indexes.deadlines.first().map(|(ms, _)| *ms), 0)
            || reached(
                self.indexes.queued.first().map(|(ms, _)| *ms),
                QUEUE_AGE_MAX_MS,
            )
            || reached(
                self.indexes.ended.first().map(|(ms, _)| *ms),
                JOB_RETENTION_MS,
            )
            || self.requests.is_due(now_ms)
            || self.workers_to_forget(now_ms).next().is_some()
    }

    /// When the first attempt has to be asked to stop that was not yet, by stamp.
    #[must_use]
    pub fn first_deadline_ms(&self) -> Option<u64> {
        self.indexes.deadlines.first().map(|(ms, _)| *ms)
    }

    /// When the first waiting job has waited as long as any may, by stamp.
    pub(crate) fn first_too_old_ms(&self) -> Option<u64> {
        let first = self.indexes.queued.first();
        first.map(|(ms, _)| ms.saturating_add(QUEUE_AGE_MAX_MS))
    }

    pub(super) fn sweep(&mut self, entry: &mut Entry) -> Reply {
        let mut left = SWEEP_MAX;
        left -= self.stop_overdue(entry, left);
        left -= self.end_queued_too_long(entry, left);
        left -= self.forget_old_jobs(entry, left);
        left -= self.requests.forget(left, entry.now_ms);
        left -= self.forget_lost_workers(left, entry.now_ms);
        Reply::Swept {
            count: u32::try_from(SWEEP_MAX - left).unwrap_or(u32::MAX),
        }
    }

    /// Forgets a job that is over: all that is left is the last event, for who watches.
    pub(super) fn forget(&mut self, entry: &mut Entry, id: JobId) {
        if let Some(mut job) = self.jobs.remove(id) {
            self.indexes.remove(&job);
            entry.event(&mut job, EventKind::Forgotten);
        }
    }

    fn stop_overdue(&mut self, entry: &mut Entry, limit: usize) -> usize {
        let due = self
            .indexes
            .deadlines
            .iter()
            .take_while(|(ms, _)| *ms <= entry.now_ms);
        let epochs: Vec<_> = due.take(limit).map(|(_, epoch)| *epoch).collect();
        for epoch in &epochs {
            if self.lacks_team_money(*epoch) && self.reserve_more(entry, *epoch) {
                continue;
            }
            let Some(job) = self.lease(*epoch).map(|lease| lease.job) else {
                continue;
            };
            self.change(job, |job| {
                if let Some(deadline) = job.live_attempt().and_then(|attempt| attempt.deadline) {
                    entry.stop(job, deadline.why);
                }
            });
        }
        epochs.len()
    }

    /// Whether what ends an attempt is that the money its teams have set aside is used up.
    fn lacks_team_money(&self, epoch: Epoch) -> bool {
        let deadline = self
            .live_attempt(epoch)
            .and_then(|(_, attempt)| attempt.deadline);
        deadline.is_some_and(|deadline| deadline.why == StopReason::TeamBudget)
    }

    fn end_queued_too_long(&mut self, entry: &mut Entry, limit: usize) -> usize {
        let over = |since_ms: &u64| entry.now_ms >= since_ms.saturating_add(QUEUE_AGE_MAX_MS);
        let queued = self.indexes.queued.iter().take_while(|(ms, _)| over(ms));
        let jobs: Vec<_> = queued.take(limit).map(|(_, job)| *job).collect();
        for job in &jobs {
            let reason = FailureReason::QueuedTooLong;
            self.change(*job, |job| entry.finish(job, JobState::Failed { reason }));
        }
        jobs.len()
    }

    fn forget_old_jobs(&mut self, entry: &mut Entry, limit: usize) -> usize {
        let over = |ended_ms: &u64| entry.now_ms >= ended_ms.saturating_add(JOB_RETENTION_MS);
        let ended = self.indexes.ended.iter().take_while(|(ms, _)| over(ms));
        let jobs: Vec<_> = ended.take(limit).map(|(_, job)| *job).collect();
        jobs.iter().for_each(|job| self.forget(entry, *job));
        jobs.len()
    }

    fn forget_lost_workers(&mut self, limit: usize, now_ms: u64) -> usize {
        let workers: Vec<_> = self.workers_to_forget(now_ms).take(limit).collect();
        for id in &workers {
            if let Some(worker) = self.workers_mut(*id).remove(id)
                && let Some(token) = Arc::make_mut(&mut self.tokens).get_mut(&worker.token)
            {
                // The token stays valid: a worker that comes back after all is a new one.
                token.worker = None;
            }
        }
        workers.len()
    }

    fn workers_to_forget(&self, now_ms: u64) -> impl Iterator<Item = WorkerId> {
        let over = move |state| match state {
            WorkerState::Lost { since_ms } => {
                now_ms >= since_ms.saturating_add(LOST_WORKER_RETENTION_MS)
            }
            WorkerState::Present | WorkerState::Revoked => false,
        };
        // One that drains is to take nothing until somebody says so, however long it was away: as long as its token holds, it
        // may come back. Before format 3 it was forgotten with the rest.
        let kept = |worker: &Worker| self.format >= 3 && worker.is_draining();
        let workers = self.workers.values();
        let lost = workers.filter(move |worker| over(worker.state) && !kept(worker));
        lost.map(|worker| worker.id)
            .filter(|id| self.leases_on(*id).next().is_none())
    }
}
