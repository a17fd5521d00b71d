//! What was taken back from running jobs goes to those for whom they stopped.
//!
//! The state keeps with the waiting job where GPUs were taken back for it. From then on it has the first turn there, and
//! what is free there already is kept for it until the rest is. What becomes free elsewhere meanwhile is taken instead, if
//! that is no worse and is not kept for somebody who is ahead in the queue: else others would have stopped for nothing.

use super::entry::Entry;
use super::taste::taste;
use super::urgent::{chosen, urgency};
use super::{Choice, Look};
use crate::model::limits::BUDGET_MARGIN_MS;
use crate::model::{Freed, Job, StopReason};
use crate::placement::ledger::SetAside;
use crate::placement::left::Left;
use crate::placement::pool::{Gpus, positions, used};

/// How long one that is asked to stop may take: the grace that a trainer has to save a checkpoint.
const STOPPING_MS: u64 = BUDGET_MARGIN_MS;

/// What was taken back for a job on a worker.
struct Claim<'a> {
    entry: Entry<'a>,
    slot: usize,
    /// All of the worker's that the job may run on.
    gpus: Gpus,
    /// Their model, by position.
    model: usize,
    /// What is left of the job there.
    left: Left,
    /// Those that were taken back.
    own: Gpus,
    /// In use until those have stopped who were asked to.
    stopping: Gpus,
    /// Who they are.
    stop: Vec<&'a Job>,
}

/// GPUs that are kept for a job until others have stopped there.
pub(super) struct Promised<'a> {
    job: &'a Job,
    slot: usize,
    gpus: Gpus,
    /// Their model, by position.
    model: usize,
    /// What is left of the job there.
    left: Left,
    /// Who is stopping for it.
    stop: Vec<&'a Job>,
    aside: SetAside,
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
        let jobs = jobs.into_iter().filter(|job| job.spec.hosts() == 1);
        let claims: Vec<Claim<'a>> = jobs.filter_map(|job| self.claim_of(job)).collect();
        for (at, claim) in claims.iter().enumerate() {
            if self.plan.placements.len() >= self.max {
                return;
            }
            // Those before it have what they get.
            let behind = claims[at + 1..].iter();
            let behind = behind.filter(|other| other.slot == claim.slot);
            let theirs = behind.fold(0, |gpus, other| gpus | other.own);
            let kept = self.keep_promise(claim, theirs & !claim.own);
            self.promised.extend(kept);
        }
    }

    /// What was taken back for a job, if it may have it and it is enough, or somebody is still stopping there. What is not
    /// is for anybody, and the job has a turn like others.
    fn claim_of(&mut self, job: &'a Job) -> Option<Claim<'a>> {
        let Freed { worker, gpus: own } = job.standing.freed?;
        if self.ledger.held(job).is_some() {
            return None;
        }
        let slot = self.pool.position(worker)?;
        let entry = self.urgent(job);
        let attempts = self.state.live_attempts_on(worker);
        let (stop, used): (Vec<&'a Job>, Vec<Gpus>) = attempts
            .filter(|(other, attempt)| {
                attempt.stop == Some(StopReason::Preempted)
                    && other.standing.yields_to == Some(job.id)
            })
            .map(|(other, attempt)| (other, used(attempt)))
            .unzip();
        let stopping = used.into_iter().fold(0, |gpus, used| gpus | used);
        let places = self.places(job);
        let (gpus, model, left) = places.iter().find_map(|place| {
            let gpus = self.pool.gpus_at(*place, slot)?;
            let model = self.pool.places[*place as usize].model;
            let model = self.models.binary_search(&model).ok()?;
            let gpu = self.models[model];
            let left = self.left_on(job, &self.pool.slots[slot], gpu, entry.left[model]?);
            let free = self.pool.slots[slot].available(gpus);
            let is_enough = free.count_ones() >= u32::from(job.spec.gpu_count);
            let is_open = is_enough || stopping & gpus != 0;
            (is_open && self.may_have(job, (slot, self.models[model]), Some(&left)))
                .then_some((gpus, model, left))
        })?;
        Some(Claim {
            entry,
            slot,
            gpus,
            model,
            left,
            own: own & gpus,
            stopping: stopping & gpus,
            stop,
        })
    }

    /// Has a job start on what was taken back for it, or keeps what is free of it until all who yield have stopped. What is
    /// kept, if it does not start.
    fn keep_promise(&mut self, claim: &Claim<'a>, theirs: Gpus) -> Option<Promised<'a>> {
        let Claim {
            ref entry,
            slot,
            model,
            left,
            ..
        } = *claim;
        let job = entry.job;
        // Those before it may need what is left of its team's limits.
        if self.ledger.held(job).is_some()
            || !self.may_have(job, (slot, self.models[model]), Some(&left))
        {
            return None;
        }
        let count = usize::from(job.spec.gpu_count);
        let free = self.pool.slots[slot].available(claim.gpus);
        let own = claim.own & (free | claim.stopping);
        // Of what else is free only what is missing beside it: the rest may be kept for somebody who is ahead.
        let missing = count.saturating_sub(own.count_ones() as usize);
        let beside = first(free & !theirs & !own, missing);
        if let Some(gpus) = chosen(own & free, beside, count) {
            let choice = Choice {
                slot,
                gpus,
                is_free: true,
                others: Vec::new(),
            };
            self.take(entry, choice, left);
            return None;
        }
        let gpus = chosen(own, beside, count).filter(|_| claim.stopping != 0)?;
        let aside = self.has_room(job, (slot, gpus), left, &claim.stop);
        Some(Promised {
            job,
            slot,
            gpus,
            model,
            left,
            stop: claim.stop.clone(),
            aside,
        })
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
        self.ledger.give_back(job, &kept.aside);
        let found = models.into_iter().find_map(|model| {
            let left = entry.left[model]?;
            let gpu = self.models[model];
            let choice = self.choose(job, gpu, &left)?;
            let left = self.left_on(job, &self.pool.slots[choice.slot], gpu, left);
            // Where it would begin anew more is left of it than on that model at best.
            let is_worse = taste(job.spec.objective, &left, entry.price[model]) > most;
            (!is_worse).then_some((choice, left))
        });
        match found {
            Some((choice, left)) => {
                self.pool.give_up(kept.slot, kept.gpus);
                self.take(&entry, choice, left);
            }
            None => {
                self.set_aside(job, (kept.slot, kept.gpus), kept.left, &kept.stop);
            }
        }
    }
}

/// So many of some GPUs, or all if they are fewer.
fn first(gpus: Gpus, count: usize) -> Gpus {
    let some = positions(gpus).take(count);
    some.fold(0, |gpus, at| gpus | 1 << at)
}
