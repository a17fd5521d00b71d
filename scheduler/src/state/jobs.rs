//! Jobs come into the queue, and leave it when a person wants them to.

use std::collections::VecDeque;

use super::State;
use super::apply::Entry;
use crate::effect::Effect;
use crate::ids::JobId;
use crate::model::limits::Bounds;
use crate::model::{EventKind, Job, JobSpec, JobState, StopReason};
use crate::rejection::Rejection;
use crate::reply::Reply;

impl State {
    pub(super) fn submit(&mut self, entry: &mut Entry, spec: &JobSpec) -> Result<Reply, Rejection> {
        spec.check().map_err(Rejection::InvalidSpec)?;
        let bounds = Bounds::of(self.format);
        if self.unfinished_count() >= bounds.unfinished_jobs {
            return Err(Rejection::Full {
                what: "unfinished jobs",
            });
        }
        if self.needs_staging(&spec.staging) {
            return Err(Rejection::StagingInUse);
        }
        while self.jobs.len() >= bounds.jobs {
            // There are more jobs than unfinished ones may be, so there is a finished one to forget.
            let Some(&(_, oldest)) = self.indexes.ended.first() else {
                break;
            };
            self.forget(entry, oldest);
        }
        self.last_job += 1;
        let mut job = Job {
            id: JobId(self.last_job),
            spec: spec.clone(),
            state: JobState::Pending,
            submitted_ms: entry.now_ms,
            queued_ms: entry.now_ms,
            not_before_ms: entry.now_ms,
            ended_ms: None,
            retries: 0,
            lost_retries: 0,
            attempts: Vec::new(),
            events: VecDeque::new(),
        };
        entry.event(&mut job, EventKind::Submitted);
        entry.effects.push(Effect::Plan);
        let id = job.id;
        self.indexes.add(&job);
        self.jobs.insert(job);
        Ok(Reply::JobSubmitted { job: id })
    }

    pub(super) fn cancel(&mut self, entry: &mut Entry, id: JobId) -> Result<Reply, Rejection> {
        let state = self.jobs.get(id).ok_or(Rejection::NoSuchJob)?.state();
        let state = match state {
            JobState::Pending => {
                self.change(id, |job| entry.finish(job, JobState::Cancelled));
                JobState::Cancelled
            }
            JobState::Running => {
                self.change(id, |job| {
                    job.state = JobState::Cancelling;
                    entry.event(job, EventKind::CancelRequested);
                    entry.stop(job, StopReason::Cancelled);
                });
                JobState::Cancelling
            }
            JobState::Cancelling | JobState::Cancelled => state,
            JobState::Succeeded | JobState::Failed { .. } => {
                return Err(Rejection::JobOver { state });
            }
        };
        Ok(Reply::JobCancelled { state })
    }
}

impl Entry {
    /// Ends a job for good. Its files can go from here on.
    pub(super) fn finish(&mut self, job: &mut Job, state: JobState) {
        job.state = state;
        job.ended_ms = Some(self.now_ms);
        match state {
            JobState::Succeeded => self.event(job, EventKind::Succeeded),
            JobState::Failed { reason } => self.event(job, EventKind::Failed { reason }),
            JobState::Cancelled => self.event(job, EventKind::Cancelled),
            JobState::Pending | JobState::Running | JobState::Cancelling => {}
        }
        self.effects.push(Effect::DropStaging {
            staging: job.spec.staging,
        });
        self.effects.push(Effect::Plan);
    }

    /// Asks the job's attempt to stop, if it runs.
    pub(super) fn stop(&mut self, job: &mut Job, why: StopReason) {
        let id = job.id;
        let Some(attempt) = job.attempts.last_mut().filter(|attempt| attempt.is_live()) else {
            return;
        };
        attempt.stop = Some(why);
        self.effects.push(Effect::Stop {
            worker: attempt.worker,
            job: id,
            epoch: attempt.epoch,
            why,
        });
    }
}
