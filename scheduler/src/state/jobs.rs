//! Jobs come into the queue, and leave it when a person wants them to.

use std::collections::VecDeque;

use super::State;
use super::apply::Entry;
use crate::effect::Effect;
use crate::ids::JobId;
use crate::model::limits::Bounds;
use crate::model::{EventKind, Job, JobSpec, JobState, PartState, Standing, StopReason};
use crate::rejection::Rejection;
use crate::reply::Reply;

impl State {
    pub(super) fn submit(&mut self, entry: &mut Entry, spec: &JobSpec) -> Result<Reply, Rejection> {
        self.check_submit(entry, spec)?;
        let mut spec = spec.clone();
        // Only a command that brings all of an array makes one.
        spec.terms.array = None;
        let job = self.take_in(entry, spec);
        Ok(Reply::JobSubmitted { job })
    }

    /// Refuses a job that cannot come into the queue.
    pub(super) fn check_submit(&self, entry: &Entry, spec: &JobSpec) -> Result<(), Rejection> {
        self.check_submission(entry, spec)?;
        self.check_room(spec, 1)?;
        match self.needs_staging(&spec.staging) {
            true => Err(Rejection::StagingInUse),
            false => Ok(()),
        }
    }

    /// Refuses so many more jobs where there is no room for them, or none of whom they belong to.
    pub(super) fn check_room(&self, spec: &JobSpec, more: usize) -> Result<(), Rejection> {
        let bounds = Bounds::of(self.format);
        if self.unfinished_count() + more > bounds.unfinished_jobs {
            return Err(Rejection::Full {
                what: "unfinished jobs",
            });
        }
        let Some(owner) = spec.terms.owner else {
            return Ok(());
        };
        let unfinished = self.indexes.people.get(&owner.user).copied().unwrap_or(0);
        if unfinished + more > bounds.of_one_person {
            return Err(Rejection::YoursFull {
                unfinished,
                max: bounds.of_one_person,
            });
        }
        Ok(())
    }

    /// Refuses what is outside its bounds, makes no sense, or is not for its team.
    pub(super) fn check_submission(&self, entry: &Entry, spec: &JobSpec) -> Result<(), Rejection> {
        spec.check().map_err(Rejection::InvalidSpec)?;
        if entry.format >= 3 {
            spec.check_sense(entry.now_ms)
                .map_err(Rejection::InvalidSpec)?;
        }
        self.check_team(spec, None).map(drop)
    }

    /// Puts a job that was looked at into the queue.
    pub(super) fn take_in(&mut self, entry: &mut Entry, spec: JobSpec) -> JobId {
        while self.jobs.len() >= Bounds::of(self.format).jobs {
            // There are more jobs than unfinished ones may be, so there is a finished one to forget.
            let Some(&(_, oldest)) = self.indexes.ended.first() else {
                break;
            };
            self.forget(entry, oldest);
        }
        self.last_job += 1;
        let id = JobId(self.last_job);
        let standing = Standing {
            parent: self.team(spec.terms.team).and_then(|team| team.parent),
            ..Standing::default()
        };
        let mut job = Job {
            id,
            state: JobState::Pending,
            submitted_ms: entry.now_ms,
            queued_ms: entry.now_ms,
            not_before_ms: entry.now_ms.max(spec.terms.not_before_ms.unwrap_or(0)),
            ended_ms: None,
            retries: 0,
            lost_retries: 0,
            attempts: Vec::new(),
            events: VecDeque::new(),
            standing,
            spec,
        };
        entry.event(&mut job, EventKind::Submitted);
        entry.effects.push(Effect::Plan);
        self.indexes.add(&job);
        self.jobs.insert(job);
        id
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
        self.drop_credentials(job);
        job.standing.awaits_credentials = false;
        job.standing.freed = None;
        self.effects.push(Effect::Plan);
    }

    /// Asks the job's attempt to stop, if it runs.
    pub(super) fn stop(&mut self, job: &mut Job, why: StopReason) {
        let id = job.id;
        let Some(attempt) = job.attempts.last_mut().filter(|attempt| attempt.is_live()) else {
            return;
        };
        attempt.stop = Some(why);
        let epoch = attempt.epoch;
        let runs = attempt
            .parts()
            .filter(|part| part.state != PartState::Ended);
        self.effects.extend(runs.map(|part| Effect::Stop {
            worker: part.worker,
            job: id,
            epoch,
            why,
        }));
    }
}
