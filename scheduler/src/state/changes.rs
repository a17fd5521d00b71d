//! What people and the planner change about a job after it was submitted: its wishes, its approval, its place on a GPU.

use stepcast_records::{GpuModel, UsdMicros};

use super::State;
use super::apply::Entry;
use super::money;
use crate::command::Preemption;
use crate::effect::Effect;
use crate::ids::{Epoch, JobId};
use crate::model::limits::{PREEMPTIONS_PER_COMMAND, RETRIES_MAX};
use crate::model::spec::SpecError;
use crate::model::{EventKind, Freed, Job, JobSpec, JobState, StopReason, Terms};
use crate::policy::Preemption as Yielding;
use crate::rejection::{Dropped, Rejection};
use crate::reply::Reply;

impl State {
    pub(super) fn approve(
        &mut self,
        entry: &mut Entry,
        id: JobId,
        seq: Option<u64>,
    ) -> Result<Reply, Rejection> {
        let state = self.jobs.get(id).ok_or(Rejection::NoSuchJob)?.state();
        if state.is_terminal() {
            return Err(Rejection::JobOver { state });
        }
        let job = self.open_job(id).ok_or(Rejection::NoSuchJob)?;
        if job.standing.approved_ms.is_some() {
            return Ok(Reply::Done);
        }
        // It may be dearer than what was looked at.
        if seq.is_some_and(|seq| seq != job.seq()) {
            return Err(Rejection::Changed);
        }
        self.change(id, |job| {
            job.standing.approved_ms = Some(entry.now_ms);
            entry.event(job, EventKind::Approved);
        });
        let renewed = self.open_job(id).and_then(|job| {
            let attempt = job
                .live_attempt()
                .filter(|attempt| attempt.stop.is_none())?;
            let (price, reserved) = (attempt.price_per_hour, job.standing.reserved);
            Some(money::deadline(
                self,
                job,
                price,
                reserved,
                attempt.placed_ms,
            ))
        });
        if let Some(deadline) = renewed {
            self.change(id, |job| {
                if let Some(attempt) = job.attempts.last_mut() {
                    attempt.deadline = deadline;
                }
            });
        }
        entry.effects.push(Effect::Plan);
        Ok(Reply::Done)
    }

    pub(super) fn update(
        &mut self,
        entry: &mut Entry,
        id: JobId,
        spec: &JobSpec,
        seq: Option<u64>,
    ) -> Result<Reply, Rejection> {
        let state = self.jobs.get(id).ok_or(Rejection::NoSuchJob)?.state();
        if state.is_terminal() {
            return Err(Rejection::JobOver { state });
        }
        let job = self.open_job(id).ok_or(Rejection::NoSuchJob)?;
        if job.state != JobState::Pending {
            return Err(Rejection::NotWaiting);
        }
        if seq.is_some_and(|seq| seq != job.seq()) {
            return Err(Rejection::Changed);
        }
        let spec = JobSpec {
            workload: job.spec.workload.clone(),
            staging: job.spec.staging,
            trainer: job.spec.trainer,
            retry_limit: spec.retry_limit.max(job.retries.min(RETRIES_MAX)),
            terms: Terms {
                array: job.spec.terms.array,
                owner: job.spec.terms.owner,
                credentials: job.spec.terms.credentials.clone(),
                ..spec.terms.clone()
            },
            ..spec.clone()
        };
        spec.check().map_err(Rejection::InvalidSpec)?;
        spec.check_change(&job.spec, job.queued_ms, entry.now_ms)
            .map_err(Rejection::InvalidSpec)?;
        // What was given before format 3 stays given.
        if entry.format >= 3 && is_spent(&spec, job) {
            return Err(Rejection::InvalidSpec(SpecError::Spent));
        }
        let parent = self.check_team(&spec, Some(&job.spec))?;
        if spec == job.spec {
            return Ok(Reply::Done);
        }
        self.change(id, |job| {
            // A wait before a retry is not cut short, and an earlier wish not to begin is no longer one.
            let wish_ms = spec.terms.not_before_ms.unwrap_or(0);
            job.not_before_ms = may_retry_ms(job).max(wish_ms);
            job.standing.parent = parent;
            // What was approved was something else, unless it can only have become cheaper.
            if may_be_dearer(&spec, &job.spec) {
                job.standing.approved_ms = None;
            }
            job.spec = spec;
            // What was taken back was for what it asked for before.
            job.standing.freed = None;
            entry.event(job, EventKind::Changed);
        });
        entry.effects.push(Effect::Plan);
        Ok(Reply::Done)
    }

    pub(super) fn preempt(
        &mut self,
        entry: &mut Entry,
        preemptions: &[Preemption],
    ) -> Result<Reply, Rejection> {
        if preemptions.len() > PREEMPTIONS_PER_COMMAND {
            return Err(Rejection::TooMany {
                what: "preemptions",
            });
        }
        let outcomes = preemptions.iter().map(|preemption| {
            if !self.may_preempt(preemption.job, preemption.epoch, entry.now_ms) {
                return Err(Dropped::Settled);
            }
            let taken = self.change(preemption.job, |job| {
                let attempt = job.next_attempt().0 - 1;
                job.standing.preemptions = job.standing.preemptions.saturating_add(1);
                job.standing.yields_to = preemption.for_job;
                entry.event(
                    job,
                    EventKind::PreemptRequested {
                        attempt: crate::ids::AttemptNumber(attempt),
                        for_job: preemption.for_job,
                    },
                );
                entry.stop(job, StopReason::Preempted);
                job.live_attempt().map(Freed::of)
            });
            self.promise(preemption, taken.flatten());
            Ok(())
        });
        Ok(Reply::Preempted {
            outcomes: outcomes.collect(),
        })
    }

    /// Keeps with a waiting job that GPUs were taken back for it. Where jobs yield for another reason than a higher priority
    /// nothing is promised.
    fn promise(&mut self, preemption: &Preemption, taken: Option<Freed>) {
        let for_job = preemption.for_job.filter(|job| *job != preemption.job);
        let is_urgent = self.policy.preemption == Yielding::ForPriority;
        let waits = for_job.filter(|job| {
            let job = self.open_job(*job);
            is_urgent && job.is_some_and(|job| job.state == JobState::Pending)
        });
        let Some((job, taken)) = waits.zip(taken) else {
            return;
        };
        self.change(job, |job| {
            let before = job
                .standing
                .freed
                .filter(|before| before.worker == taken.worker);
            let gpus = taken.gpus | before.map_or(0, |before| before.gpus);
            job.standing.freed = Some(Freed { gpus, ..taken });
        });
    }

    /// Whether the GPUs of an attempt may be taken back at `now_ms`. Not those of a job that could not go on by itself,
    /// since its credentials are gone with the attempt; and not those of a gang, which cannot be asked for a checkpoint: its
    /// hosts would read the wish at different steps.
    #[must_use]
    pub fn may_preempt(&self, job: JobId, epoch: Epoch, now_ms: u64) -> bool {
        let live = self
            .open_job(job)
            .filter(|job| job.state == JobState::Running);
        live.and_then(|job| Some((job, job.live_attempt()?)))
            .is_some_and(|(job, attempt)| {
                attempt.epoch == epoch
                    && attempt.stop.is_none()
                    && now_ms.saturating_sub(attempt.placed_ms) >= job.min_run_ms(&self.policy)
                    && job.standing.preemptions < job.preemptions_max(&self.policy)
                    && job.spec.terms.credentials.is_empty()
                    && attempt.gang.is_none()
            })
    }
}

/// When a waiting job may be tried again, or for the first time, whatever it wishes.
fn may_retry_ms(job: &Job) -> u64 {
    let waits_ms = job.events.iter().rev().find_map(|event| match event.kind {
        EventKind::Requeued { not_before_ms, .. } => Some(not_before_ms),
        _ => None,
    });
    // Of many changes made one after the other the newest alone are known: then what it waits for is not cut short, unless
    // it is its own wish.
    let wish_ms = job.spec.terms.not_before_ms;
    waits_ms.unwrap_or(match wish_ms == Some(job.not_before_ms) {
        true => job.queued_ms,
        false => job.not_before_ms,
    })
}

/// Whether a limit on cost is wished for that the job has reached already.
fn is_spent(wished: &JobSpec, job: &Job) -> bool {
    let UsdMicros(spent) = job.cost(0);
    let is_reached = |UsdMicros(max)| spent > 0 && max <= spent;
    wished.max_cost != job.spec.max_cost && wished.max_cost.is_some_and(is_reached)
}

/// Whether a job may come to cost more than it could when it was something else: where its limit on cost is none or higher,
/// whatever makes it run longer or elsewhere may do so.
fn may_be_dearer(is: &JobSpec, was: &JobSpec) -> bool {
    if is.terms.team != was.terms.team {
        return true;
    }
    if was
        .max_cost
        .is_some_and(|was| is.max_cost.is_some_and(|max| max <= was))
    {
        return false;
    }
    // No limit is the highest one.
    fn is_higher<T: Ord>(is: Option<T>, was: Option<T>) -> bool {
        was.is_some_and(|was| is.is_none_or(|is| is > was))
    }
    let allows = |gpu: &GpuModel| match was.allow.is_empty() {
        // Whoever names no GPU takes any of them, and nothing that is none.
        true => gpu.is_gpu() || gpu.is_replay(),
        false => was.allow.contains(gpu),
    };
    let is_wider = is.allow.is_empty() && !was.allow.is_empty() || !is.allow.iter().all(allows);
    let is_elsewhere = is_wider
        || is.min_memory_gib != was.min_memory_gib
        || is.labels != was.labels
        || is.terms.avoid != was.terms.avoid
        || is.objective != was.objective;
    is_elsewhere
        || is_higher(is.max_cost, was.max_cost)
        || is_higher(is.max_price_per_hour, was.max_price_per_hour)
        || is_higher(is.max_runtime_ms, was.max_runtime_ms)
        || is.gpus() > was.gpus()
        || is.retry_limit > was.retry_limit
}
