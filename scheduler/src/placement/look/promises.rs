//! What was taken back from running jobs goes to those for whom they stopped.
//!
//! The state keeps with the waiting job where GPUs were taken back for it. From then on it has the first turn there, and
//! what is free there already is kept for it until the rest is. What becomes free elsewhere meanwhile is taken instead, if
//! that is no worse and is not kept for somebody who is ahead in the queue: else others would have stopped for nothing.

use super::taste::taste;
use super::urgent::{chosen, urgency};
use super::{Choice, Look};
use crate::model::limits::BUDGET_MARGIN_MS;
use crate::model::{Freed, Job, StopReason};
use crate::placement::left::Left;
use crate::placement::pool::{Gpus, positions, used};

/// How long one that is asked to stop may take: the grace that a trainer has to save a checkpoint.
const STOPPING_MS: u64 = BUDGET_MARGIN_MS;

/// GPUs that are kept for a job until others have stopped there.
#[derive(Clone, Copy)]
pub(super) struct Promised<'a> {
    job: &'a Job,
    slot: usize,
    gpus: Gpus,
    /// Their model, by position.
    model: usize,
    /// What is left of the job there.
    left: Left,
}

impl<'a> Look<'a> {
    /// Gives the first turn to those for whom GPUs were taken back, each where they were.
    pub(super) fn keep_promises(&mut self) {
        if !self.yields_to_priority() {
            return;
        }
        let mut jobs: Vec<&'a Job> = self.state.promised().collect();
        jobs.sort_by_key(|job| urgency(job));
        // GPUs of one host are no room for a job on several.
        let freed =
            |job: &'a Job| Some((job, job.standing.freed?)).filter(|_| job.spec.hosts() == 1);
        let jobs: Vec<(&'a Job, Freed)> = jobs.into_iter().filter_map(freed).collect();
        for (job, freed) in &jobs {
            if self.plan.placements.len() >= self.max {
                return;
            }
            if self.ledger.held(job).is_some() {
                continue;
            }
            let others = jobs
                .iter()
                .filter(|(other, theirs)| other.id != job.id && theirs.worker == freed.worker);
            let theirs = others.fold(0, |gpus, (_, theirs)| gpus | theirs.gpus);
            let kept = self.keep_promise(job, *freed, theirs & !freed.gpus);
            self.promised.extend(kept);
        }
    }

    /// Has a job start on what was taken back for it, or keeps what is free of it until all who yield have stopped. If
    /// nobody does any more and it is not enough, the job has a turn like others. What is kept, if it does not start.
    fn keep_promise(&mut self, job: &'a Job, freed: Freed, theirs: Gpus) -> Option<Promised<'a>> {
        let count = usize::from(job.spec.gpu_count);
        let entry = self.urgent(job);
        let places = self.places(job);
        let position = self.pool.position(freed.worker)?;
        let attempts = self.state.live_attempts_on(freed.worker);
        let stopping = attempts.filter(|(other, attempt)| {
            attempt.stop == Some(StopReason::Preempted) && other.standing.yields_to == Some(job.id)
        });
        let stopping = stopping.fold(0, |gpus, (_, attempt)| gpus | used(attempt));
        for place in places.iter() {
            let Some(gpus) = self.pool.gpus_at(*place, position) else {
                continue;
            };
            let model = self.pool.places[*place as usize].model;
            let Ok(model) = self.models.binary_search(&model) else {
                continue;
            };
            let left = entry.left[model];
            let Some(left) = left.filter(|left| self.may_have(job, position, Some(left))) else {
                continue;
            };
            let free = self.pool.slots[position].available(gpus);
            let own = freed.gpus & gpus & (free | stopping);
            // Of what else is free only what is missing beside it: the rest may be kept for somebody who is ahead.
            let missing = count.saturating_sub(own.count_ones() as usize);
            let beside = first(free & !theirs & !own, missing);
            if let Some(gpus) = chosen(own & free, beside, count) {
                let choice = Choice {
                    slot: position,
                    gpus,
                    is_free: true,
                    others: Vec::new(),
                };
                self.take(&entry, choice, left);
                return None;
            }
            let all = chosen(own, beside, count);
            if let Some(gpus) = all.filter(|_| stopping != 0) {
                self.has_room(job, position, gpus, left);
                return Some(Promised {
                    job,
                    slot: position,
                    gpus,
                    model,
                    left,
                });
            }
        }
        None
    }

    /// Has those for whom others are stopping start on what is free elsewhere, if that is no worse for their owners than to
    /// wait. What is kept for them is then for anybody. Once what is ahead of them in the queue has had its turn; only those
    /// for whom that is so now.
    pub(super) fn start_elsewhere(&mut self, have_turn: impl Fn(&Self, &Job) -> bool) {
        for kept in std::mem::take(&mut self.promised) {
            if self.is_over() {
                return;
            }
            if !have_turn(self, kept.job) {
                self.promised.push(kept);
            } else {
                self.start_instead(kept);
            }
        }
    }

    fn start_instead(&mut self, kept: Promised<'a>) {
        let job = kept.job;
        let entry = self.urgent(job);
        let waits = Left {
            p50_ms: kept.left.p50_ms + STOPPING_MS as f64,
            ..kept.left
        };
        let most = taste(job.spec.objective, &waits, entry.price[kept.model]);
        let mut models: Vec<usize> = (0..self.models.len()).collect();
        models.retain(|model| entry.taste(*model) <= most);
        models.sort_by(|a, b| entry.taste(*a).total_cmp(&entry.taste(*b)));
        // It needs it once, there or elsewhere.
        let (worker, price, run_ms_p90) = self.needs(job, kept.slot, kept.left);
        self.ledger.give_back(job, worker, price, run_ms_p90);
        let found = models.into_iter().find_map(|model| {
            let left = entry.left[model]?;
            Some((self.choose(job, self.models[model], &left)?, left))
        });
        match found {
            Some((choice, left)) => {
                self.pool.give_up(kept.slot, kept.gpus);
                self.take(&entry, choice, left);
            }
            None => self.ledger.take(job, [worker], price, run_ms_p90),
        }
    }
}

/// So many of some GPUs, or all if they are fewer.
fn first(gpus: Gpus, count: usize) -> Gpus {
    let some = positions(gpus).take(count);
    some.fold(0, |gpus, at| gpus | 1 << at)
}
