//! Where a job's checkpoint is: it begins anew on workers whose results are known to be others, so what is left of it there is
//! all of it. Where it goes on from its checkpoint sooner than it would be done again, it waits for that.
//!
//! A worker that is away or drains has nothing for anybody, and where nothing is known of results all is as if they were shared.

use std::collections::BTreeMap;
use std::sync::Arc;

use stepcast_records::GpuModel;

use super::{Look, PASSED_LOOKED_AT};
use crate::drift::AS_EXPECTED;
use crate::ids::OutputsId;
use crate::model::Job;
use crate::placement::feasible::{Needs, Purse};
use crate::placement::left::Left;
use crate::placement::pool::{Slot, of_model};

/// Workers that put their results into one folder, or of whom nobody knows where they do.
#[derive(Default)]
pub(super) struct Folder {
    /// Whether one of them that takes work has GPUs of a model, by position.
    has: Vec<bool>,
    /// Those that take work, as positions in the pool.
    slots: Vec<usize>,
}

/// Where a job goes on from its checkpoint soonest.
#[derive(Debug, Clone, Copy)]
pub(super) struct There {
    /// In how many milliseconds half of such runs are done there, from now on.
    done_ms: f64,
    /// How long they take of that.
    left_ms: f64,
}

impl Look<'_> {
    /// The folder that a job's checkpoint is in: of one that runs, what it will have saved. `None` where that is not known.
    fn home(&self, job: &Job) -> Option<OutputsId> {
        let live = job
            .live_attempt()
            .filter(|attempt| attempt.gang.is_none())
            .map(|attempt| attempt.worker);
        let from = live.or_else(|| job.checkpoint_on())?;
        self.state.worker(from)?.inventory.outputs
    }

    /// Whether a job has a checkpoint, and it is known where.
    pub(super) fn has_home(&self, job: &Job) -> bool {
        self.home(job).is_some()
    }

    /// Whether a job would begin anew on a worker although it has a checkpoint elsewhere.
    pub(super) fn begins_anew(&self, job: &Job, slot: &Slot) -> bool {
        let outputs = || self.worker(slot)?.inventory.outputs;
        let home = self.home(job);
        home.is_some_and(|home| outputs().is_some_and(|outputs| outputs != home))
    }

    /// Whether a job begins anew wherever it starts on a model, given by its position.
    pub(super) fn is_away_from(&self, job: &Job, model: usize) -> bool {
        let Some(home) = self.home(job) else {
            return false;
        };
        let folders = self.folders();
        // Of whom nothing is known it may be there.
        let mut may_have = [Some(home), None].into_iter();
        !may_have.any(|folder| {
            let folder = folders.get(&folder);
            folder.is_some_and(|folder| folder.has.get(model).copied().unwrap_or(false))
        })
    }

    /// What is left of a waiting job on a model, given by its position, where it has its checkpoint if any worker there does.
    pub(super) fn left_at_best(&self, job: &Job, model: usize) -> Option<Left> {
        let gpu = self.models[model];
        if self.is_away_from(job, model) {
            Left::anew(self.forecast, job, gpu, &self.policy)
        } else {
            Left::of_waiting(self.forecast, job, gpu, &self.policy)
        }
    }

    /// The same on each model, of what is left of a job if its checkpoint is everywhere.
    pub(super) fn left_everywhere(
        &self,
        job: &Job,
        left: &Arc<[Option<Left>]>,
    ) -> Arc<[Option<Left>]> {
        if !self.has_home(job) {
            return Arc::clone(left);
        }
        let all = left.iter().enumerate();
        all.map(|(model, left)| {
            left.and_then(|left| match self.is_away_from(job, model) {
                true => Left::anew(self.forecast, job, self.models[model], &self.policy),
                false => Some(left),
            })
        })
        .collect()
    }

    /// What is left of a job on a worker, of what is left of it at best on that model.
    pub(super) fn left_on(&self, job: &Job, slot: &Slot, gpu: GpuModel, at_best: Left) -> Left {
        if !self.begins_anew(job, slot) {
            return at_best;
        }
        Left::anew(self.forecast, job, gpu, &self.policy).unwrap_or(at_best)
    }

    /// Whether a waiting job does not begin anew on a worker, since it is done sooner where its checkpoint is, although it
    /// has to wait for that: but not for longer than what it would do again takes, whatever is expected.
    pub(super) fn waits_for_home(&self, job: &Job, slot: &Slot, gpu: GpuModel) -> bool {
        if job.live_attempt().is_some() || !self.begins_anew(job, slot) {
            return false;
        }
        let anew = Left::anew(self.forecast, job, gpu, &self.policy);
        let Some((anew, there)) = anew.filter(|anew| !anew.is_guess).zip(self.there(job)) else {
            return false;
        };
        let longer = f64::from(self.drift(slot.id)) / f64::from(AS_EXPECTED);
        let anew_ms = anew.p50_ms * longer;
        let since_ms = job.queued_ms.max(job.not_before_ms);
        let waited_ms = self.now_ms.saturating_sub(since_ms) as f64;
        let waits = there.done_ms < anew_ms && waited_ms < anew_ms - there.left_ms;
        if waits {
            self.waits.borrow_mut().insert(job.id);
        }
        waits
    }

    /// Whether a job was kept from a worker in this look since it waits for its checkpoint.
    pub(super) fn has_waited(&self, job: &Job) -> bool {
        self.waits.borrow().contains(&job.id)
    }

    /// Where a job goes on soonest, when that was first asked in this look.
    fn there(&self, job: &Job) -> Option<There> {
        if let Some(known) = self.there.borrow().get(&job.id) {
            return *known;
        }
        let found = self.find_there(job);
        self.there.borrow_mut().insert(job.id, found);
        found
    }

    fn find_there(&self, job: &Job) -> Option<There> {
        let folder = self.folders().get(&Some(self.home(job)?))?;
        let (needs, purse) = (Needs::of(job), Purse::of(job, self.now_ms));
        let slots = folder.slots.iter().take(PASSED_LOOKED_AT);
        let there = slots.flat_map(|position| {
            let slot = &self.pool.slots[*position];
            let worker = self.worker(slot).filter(|_| !self.is_kept_off(job, slot));
            let fits = worker.and_then(|worker| Some((worker, needs.fit(worker).ok()?)));
            let fits = fits
                .into_iter()
                .flat_map(|(worker, models)| models.into_iter().map(move |model| (worker, model)));
            fits.filter_map(|(worker, gpu)| {
                let left = Left::of_waiting(self.forecast, job, gpu, &self.policy)?;
                let price = worker.price_per_hour(gpu, usize::from(job.spec.gpu_count));
                let run_ms_p90 = left.forecast().map(|left| left.run_ms_p90);
                let allowed = self.ledger.allows(job, [worker], price, run_ms_p90);
                if purse.pays(price).is_err() || allowed.is_err() {
                    return None;
                }
                let gpus = of_model(worker, gpu);
                let (free_ms, _) = slot.soonest(gpus, job.spec.gpu_count, self.now_ms)?;
                if free_ms == u64::MAX {
                    return None;
                }
                let longer = f64::from(self.drift(slot.id)) / f64::from(AS_EXPECTED);
                let left_ms = left.p50_ms * longer;
                let wait_ms = free_ms.saturating_sub(self.now_ms) as f64;
                Some(There {
                    done_ms: wait_ms + left_ms,
                    left_ms,
                })
            })
        });
        there.min_by(|a, b| a.done_ms.total_cmp(&b.done_ms))
    }

    /// The folders of all workers that take work, found out once in a look.
    fn folders(&self) -> &BTreeMap<Option<OutputsId>, Folder> {
        self.folders.get_or_init(|| {
            let mut folders: BTreeMap<_, Folder> = BTreeMap::new();
            for (position, slot) in self.pool.slots.iter().enumerate() {
                let Some(worker) = self.worker(slot).filter(|worker| worker.takes_work()) else {
                    continue;
                };
                let folder = folders.entry(worker.inventory.outputs).or_default();
                folder.slots.push(position);
                folder.has.resize(self.models.len(), false);
                for gpu in worker.models() {
                    if let Ok(model) = self.models.binary_search(&gpu) {
                        folder.has[model] = true;
                    }
                }
            }
            folders
        })
    }
}
