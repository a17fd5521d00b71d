//! Where a job's checkpoint is: it begins anew on workers whose results are known to be others, so what is left of it there is
//! all of it. Where it goes on from its checkpoint sooner than it would be done again, it waits for that.
//!
//! A worker that is away or drains has nothing for anybody, and where nothing is known of results all is as if they were shared.

use std::cell::{OnceCell, RefCell};
use std::rc::Rc;

use stepcast_records::GpuModel;

use super::Look;
use super::target::PASSED_LOOKED_AT;
use crate::drift::AS_EXPECTED;
use crate::ids::OutputsId;
use crate::model::Job;
use crate::placement::feasible::{Needs, Purse};
use crate::placement::left::Left;
use crate::placement::pool::{Slot, of_model};

/// Where a job has its checkpoint, and what was found out about it in one look.
pub(super) struct Home {
    folder: OutputsId,
    /// Where it goes on soonest, when that was first asked.
    there: OnceCell<Option<There>>,
    /// What it is to begin anew on the models that were asked for.
    anew: RefCell<Vec<(GpuModel, Anew)>>,
}

/// Where a job goes on from its checkpoint soonest.
#[derive(Debug, Clone, Copy)]
struct There {
    /// In how many milliseconds half of such runs are done there, from now on.
    done_ms: f64,
    /// How long they take of that.
    left_ms: f64,
}

/// A job begun anew on a model.
#[derive(Debug, Clone, Copy)]
struct Anew {
    /// All of it.
    left: Option<Left>,
    /// It does not begin anew on workers that take longer than so many times what is expected, but waits for its home.
    longest: f64,
}

impl Look<'_> {
    /// The folder that a job's checkpoint is in: of one that runs, what it will have saved. `None` where that is not known.
    pub(super) fn home(&self, job: &Job) -> Option<Rc<Home>> {
        if job.attempts.is_empty() {
            return None;
        }
        if let Some(known) = self.homes.borrow().get(&job.id) {
            return known.clone();
        }
        let live = job
            .live_attempt()
            .filter(|attempt| attempt.gang.is_none())
            .map(|attempt| attempt.worker);
        let from = live.or_else(|| job.checkpoint_on());
        let folder = from.and_then(|from| self.state.worker(from)?.inventory.outputs);
        let home = folder.map(|folder| {
            Rc::new(Home {
                folder,
                there: OnceCell::new(),
                anew: RefCell::default(),
            })
        });
        self.homes.borrow_mut().insert(job.id, home.clone());
        home
    }

    /// Whether a job has a checkpoint, and it is known where.
    pub(super) fn has_home(&self, job: &Job) -> bool {
        self.home(job).is_some()
    }

    /// Whether a job would begin anew on a worker although it has a checkpoint elsewhere.
    pub(super) fn begins_anew(&self, job: &Job, slot: &Slot) -> bool {
        self.home(job).is_some_and(|home| home.is_apart(slot))
    }

    /// Whether a job begins anew wherever it starts on a model, given by its position.
    pub(super) fn is_away_from(&self, job: &Job, model: usize) -> bool {
        let gpu = self.models[model];
        // Of whom nothing is known it may be there.
        self.home(job).is_some_and(|home| {
            let mut may_have = [Some(home.folder), None].into_iter();
            !may_have.any(|folder| self.pool.folders.has(folder, gpu))
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

    /// What is left of a job on a worker, of what is left of it at best on that model.
    pub(super) fn left_on(&self, job: &Job, slot: &Slot, gpu: GpuModel, at_best: Left) -> Left {
        let home = self.home(job).filter(|home| home.is_apart(slot));
        let anew = home.and_then(|home| self.anew(job, &home, gpu).left);
        anew.unwrap_or(at_best)
    }

    /// Whether a waiting job does not begin anew on a worker, since it is done sooner where its checkpoint is, although it
    /// has to wait for that: but not for longer than what it would do again takes, whatever is expected.
    pub(super) fn waits_for_home(&self, job: &Job, slot: &Slot, gpu: GpuModel) -> bool {
        let home = self.home(job).filter(|home| home.is_apart(slot));
        let waits = home.is_some_and(|home| {
            let longer = f64::from(self.drift(slot.id)) / f64::from(AS_EXPECTED);
            longer > self.anew(job, &home, gpu).longest
        });
        if waits {
            self.waits.borrow_mut().insert(job.id);
        }
        waits
    }

    /// Whether a job was kept from a worker in this look since it waits for its checkpoint.
    pub(super) fn has_waited(&self, job: &Job) -> bool {
        self.waits.borrow().contains(&job.id)
    }

    /// The workers that a job may go on from its checkpoint on, as positions in the pool: first those of whom that is known.
    pub(super) fn near(&self, job: &Job) -> impl Iterator<Item = usize> {
        let folders = self.home(job).map(|home| [Some(home.folder), None]);
        let folders = folders.into_iter().flatten();
        folders.flat_map(|folder| self.pool.folders.workers(folder))
    }

    /// The same where a job takes no others on a model, since it waits rather than begin anew on any; `None` where it may, and
    /// where they are too many to be looked at one by one.
    pub(super) fn only_near(&self, job: &Job, gpu: GpuModel) -> Option<Vec<usize>> {
        let home = self.home(job)?;
        let folders = [Some(home.folder), None];
        let near: usize = folders.map(|of| self.pool.folders.count(of)).iter().sum();
        let least = *self.least_drift.get_or_init(|| self.forecast.least_drift());
        let least = f64::from(least) / f64::from(AS_EXPECTED);
        if near > PASSED_LOOKED_AT || least <= self.anew(job, &home, gpu).longest {
            return None;
        }
        self.waits.borrow_mut().insert(job.id);
        Some(self.near(job).collect())
    }

    /// What it is for a job to begin anew on a model.
    fn anew(&self, job: &Job, home: &Home, gpu: GpuModel) -> Anew {
        let is_of = |(known, _): &&(GpuModel, Anew)| *known == gpu;
        let known = home.anew.borrow().iter().find(is_of).copied();
        if let Some((_, anew)) = known {
            return anew;
        }
        let left = Left::anew(self.forecast, job, gpu, &self.policy);
        let anew = Anew {
            left,
            longest: self.longest(job, home, left).unwrap_or(f64::INFINITY),
        };
        home.anew.borrow_mut().push((gpu, anew));
        anew
    }

    /// See [`Anew::longest`]; `None` where it begins anew on any.
    fn longest(&self, job: &Job, home: &Home, anew: Option<Left>) -> Option<f64> {
        let anew = anew.filter(|anew| !anew.is_guess && job.live_attempt().is_none())?;
        let there = home.there.get_or_init(|| self.find_there(job, home));
        let There { done_ms, left_ms } = (*there)?;
        let since_ms = job.queued_ms.max(job.not_before_ms);
        let waited_ms = self.now_ms.saturating_sub(since_ms) as f64;
        Some(done_ms.max(waited_ms + left_ms) / anew.p50_ms)
    }

    fn find_there(&self, job: &Job, home: &Home) -> Option<There> {
        let (needs, purse) = (Needs::of(job), Purse::of(job, self.now_ms));
        let slots = self.pool.folders.workers(Some(home.folder));
        let there = slots.take(PASSED_LOOKED_AT).flat_map(|position| {
            let slot = &self.pool.slots[position];
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
}

impl Home {
    /// Whether a worker's results are known to be others.
    fn is_apart(&self, slot: &Slot) -> bool {
        slot.outputs.is_some_and(|outputs| outputs != self.folder)
    }
}
