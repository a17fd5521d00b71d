//! Who gets a turn: a job that waits, or one that runs and may yield, with what is left of it on each GPU model.

use std::rc::Rc;
use std::sync::Arc;

use super::Look;
use crate::ids::JobId;
use crate::model::limits::QUEUE_AGE_MAX_MS;
use crate::model::{Attempt, Job};
use crate::placement::feasible::Purse;
use crate::placement::left::{Left, lost_ms};
use crate::placement::pool::Gpus;
use crate::policy::Preemption;
use crate::policy::balance::Work;

/// Jobs of one line that are looked at: those in front may all be held, and those behind have to wait for their time.
pub(super) const LINE_LOOKED_AT: usize = 4_096;

/// GPUs are kept for a job that was passed for so many times what it takes at least.
const PASSED_FOR: f64 = 2.0;

/// A job that has been there for so long is not passed by what is worth more: half of what any job may wait in all.
const OLD_MS: u64 = QUEUE_AGE_MAX_MS / 2;

/// A job that is wanted by a time has to start so many times what nine in ten such runs take at most before it.
const START_BEFORE: f64 = 1.1;

/// The part of an even share of what it needs that an attempt is left in peace for.
const PEACE: f64 = 0.2;

/// Which of the waiting jobs are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whom {
    /// Those that may start now, or have GPUs kept for them.
    MayStart,
    /// All of them, held or not.
    Everybody,
}

/// A job that gets a turn.
pub(super) struct Entry<'a> {
    pub(super) job: &'a Job,
    pub(super) runs: Option<Runs<'a>>,
    /// Its place in the outlook: those of one line have the same.
    pub(super) work: usize,
    /// What is left of it on each model of the cluster; `None` where it cannot run.
    pub(super) left: Arc<[Option<Left>]>,
    /// What one of its GPUs costs an hour at least on each model, in micro-dollars.
    pub(super) price: Rc<[f64]>,
}

/// What is left of a job on each model, and the least price of a GPU there.
type Everywhere = (Arc<[Option<Left>]>, Rc<[f64]>);

/// Where a job runs.
pub(super) struct Runs<'a> {
    pub(super) attempt: &'a Attempt,
    pub(super) slot: usize,
    pub(super) gpus: Gpus,
    /// Its model, by position.
    pub(super) model: usize,
    /// It yields to nobody, but may go on elsewhere.
    pub(super) is_firm: bool,
    /// It was asked to stop: its GPUs will be free, and it is not asked again.
    pub(super) is_stopping: bool,
    /// What it would lose if it had to yield, in milliseconds.
    pub(super) lost_ms: f64,
}

impl Entry<'_> {
    /// As work to be spread, one of so many equal ones.
    pub(super) fn work(&self, count: usize) -> Work {
        let ms = |left: &Option<Left>| left.map_or(f64::INFINITY, |left| left.p50_ms.max(1.0));
        Work {
            width: self.width(),
            count: count as f64,
            hours: self.left.iter().map(ms).collect(),
        }
    }

    /// Its place in the queue.
    pub(super) fn place(&self) -> (i64, JobId) {
        (self.job.order(), self.job.id)
    }

    /// How many GPUs it takes, on all of its hosts.
    pub(super) fn width(&self) -> f64 {
        f64::from(self.job.spec.gpus())
    }
}

impl<'a> Look<'a> {
    /// The waiting jobs that may get a turn, line by line, and each line as work.
    ///
    /// Of a line as many are looked at as could start at all: those behind them ask for the same and come later.
    pub(super) fn waiting(&mut self, whom: Whom) -> (Vec<Entry<'a>>, Vec<Work>) {
        let state = self.state;
        let room = match whom {
            Whom::MayStart => self.pool.room(),
            Whom::Everybody => u32::MAX,
        };
        let most = match whom {
            Whom::MayStart if room == 0 => 0,
            Whom::MayStart => LINE_LOOKED_AT,
            Whom::Everybody => usize::MAX,
        };
        let mut entries = Vec::new();
        let mut lines = Vec::new();
        for (_, jobs) in state.lines() {
            let mut known: Option<Everywhere> = None;
            let mut seats = room;
            let mut waited = 0;
            let work = lines.len();
            let first = entries.len();
            for (_, id) in jobs.iter().take(most) {
                let Some(job) = state.open_job(*id) else {
                    continue;
                };
                let width = u32::from(job.spec.gpus());
                let has_seat = seats >= width;
                if !has_seat && waited >= super::KEPT_MAX {
                    break;
                }
                let is_out = self.settled.contains(id) || self.ledger.held(job).is_some();
                if whom == Whom::MayStart && is_out {
                    continue;
                }
                let (left, price) = known.get_or_insert_with(|| {
                    self.everywhere(job, |look, model| look.left_at_best(job, model))
                });
                let (left, price) = (Arc::clone(left), Rc::clone(price));
                if !has_seat && !self.is_due(job, &left) {
                    break;
                }
                entries.push(Entry {
                    job,
                    runs: None,
                    work,
                    left,
                    price,
                });
                if has_seat {
                    seats -= width;
                } else {
                    waited += 1;
                }
            }
            if let Some(entry) = entries.get(first) {
                lines.push(entry.work(jobs.len()));
            }
        }
        (entries, lines)
    }

    /// Whether GPUs are kept for a job that finds none. One that has lost its worker had GPUs and gets them again first: it
    /// is not passed at all.
    pub(super) fn is_due(&self, job: &Job, left: &[Option<Left>]) -> bool {
        match due_ms(job, left) {
            LOST_MS => true,
            due_ms if self.policy.preemption != Preemption::Priced => self.now_ms >= due_ms,
            _ => self.is_old(job) || self.must_start(job, left),
        }
    }

    /// Whether a job has been there for so long that it has its turn and keeps what it gets, although running jobs yield to
    /// what is worth more and it is never worth enough.
    fn is_old(&self, job: &Job) -> bool {
        let since_ms = job.submitted_ms.max(job.not_before_ms);
        !self.policy.aim.is_fair() && self.now_ms.saturating_sub(since_ms) >= OLD_MS
    }

    /// Whether a job has to start now to be done when its owner wants it.
    pub(super) fn must_start(&self, job: &Job, left: &[Option<Left>]) -> bool {
        start_ms(job, left).is_some_and(|ms| self.now_ms >= ms)
    }

    /// The running jobs: those that may yield, and then those that may not, for what they still need where they are.
    pub(super) fn running(&mut self) -> (Vec<Entry<'a>>, Vec<Work>) {
        let state = self.state;
        let mut entries = Vec::new();
        let mut fixed = Vec::new();
        let leases = state
            .leases()
            .filter_map(|lease| state.live_attempt(lease.epoch));
        for (job, attempt) in leases.collect::<Vec<_>>() {
            let Some(model) = self.models.iter().position(|model| *model == attempt.gpu) else {
                continue;
            };
            let stays = Left::of_running(self.forecast, job, attempt, &self.policy, self.now_ms);
            // Where nobody yields to what is worth more, its GPUs are free when they are: nobody leaves others free for them.
            let is_stopping = attempt.stop.is_some()
                && attempt.gang.is_none()
                && self.policy.preemption == Preemption::Priced;
            if !is_stopping && !self.may_yield(job, attempt) {
                let mut hours = vec![f64::INFINITY; self.models.len()];
                hours[model] = stays.map_or(f64::INFINITY, |left| left.p50_ms.max(1.0));
                fixed.push(Work {
                    width: f64::from(job.spec.gpus()),
                    count: 1.0,
                    hours,
                });
                continue;
            }
            let is_firm = !is_stopping && !self.yields_to_others(job, attempt, stays.as_ref());
            let Some((slot, gpus)) = self.pool.place_of(attempt) else {
                continue;
            };
            if !is_firm {
                self.pool.yields(slot, gpus, true);
            }
            let (left, price) = self.everywhere(job, |look, other| {
                let (forecast, policy, now_ms) = (look.forecast, &look.policy, look.now_ms);
                let gpu = look.models[other];
                if look.is_away_from(job, other) {
                    return Left::anew(forecast, job, gpu, policy);
                }
                Left::of_moved(forecast, job, attempt, gpu, policy, now_ms)
            });
            let mut left = left.to_vec();
            left[model] = stays;
            entries.push(Entry {
                job,
                runs: Some(Runs {
                    attempt,
                    slot,
                    gpus,
                    model,
                    is_firm,
                    is_stopping,
                    lost_ms: lost_ms(self.forecast, job, attempt, &self.policy, self.now_ms),
                }),
                work: 0,
                left: left.into(),
                price,
            });
        }
        (entries, fixed)
    }

    /// Whether an attempt may be asked to yield now, whatever for.
    fn may_yield(&self, job: &Job, attempt: &Attempt) -> bool {
        // What was placed a moment ago was placed for good reason.
        self.policy.preemption == Preemption::Priced
            && attempt.placed_ms < self.now_ms
            && self.state.may_preempt(job.id, attempt.epoch, self.now_ms)
    }

    /// Whether an attempt yields to other jobs. A job may be asked so often and no more, so each time it is left to run for
    /// its part of what it still needs; and the last few times are for going on where it is better off.
    fn yields_to_others(&self, job: &Job, attempt: &Attempt, left: Option<&Left>) -> bool {
        let most = job.preemptions_max(&self.policy);
        let kept = (most / 4).max(1);
        let times = most
            .saturating_sub(kept)
            .saturating_sub(job.standing.preemptions);
        let left_ms = left.map_or(0.0, |left| left.p50_ms);
        let ran_ms = self.now_ms.saturating_sub(attempt.placed_ms) as f64;
        times > 0 && !self.is_old(job) && ran_ms >= left_ms / f64::from(times) * PEACE
    }

    /// Something about each model that a job can run on, and the least price of its GPUs there.
    pub(super) fn everywhere(
        &mut self,
        job: &'a Job,
        about: impl Fn(&Self, usize) -> Option<Left>,
    ) -> Everywhere {
        let purse = Purse::of(job, self.now_ms);
        let mut price = vec![f64::INFINITY; self.models.len()];
        for place in self.places(job).iter() {
            let model = self.pool.places[*place as usize].model;
            let Ok(model) = self.models.binary_search(&model) else {
                continue;
            };
            if let Some(least) = self.pool.least_price(*place, purse, job.spec.gpus()) {
                price[model] = price[model].min(least);
            }
        }
        self.price_out(job, &mut price);
        let left = (0..self.models.len()).map(|model| {
            price[model]
                .is_finite()
                .then(|| about(self, model))
                .flatten()
        });
        (left.collect(), price.into())
    }
}

/// When it is time for a job that has lost its worker: it always is, and never before for another.
pub(in crate::placement) const LOST_MS: u64 = 0;

/// From when on GPUs are kept for a job that finds none, by stamp.
///
/// A long job is passed for longer: it is longer held up by what it could be first to hold up.
pub(in crate::placement) fn due_ms(job: &Job, left: &[Option<Left>]) -> u64 {
    if job.has_lost_its_worker() {
        return LOST_MS;
    }
    let since_ms = job.queued_ms.max(job.not_before_ms);
    let known = left.iter().flatten().filter(|left| !left.is_guess);
    let own_ms = known.map(|left| left.p50_ms).fold(f64::INFINITY, f64::min);
    let own_ms = if own_ms.is_finite() {
        own_ms * PASSED_FOR
    } else {
        0.0
    };
    let passed_ms = since_ms.saturating_add(super::PASSED_MAX_MS.max(own_ms as u64));
    start_ms(job, left).map_or(passed_ms, |ms| ms.min(passed_ms))
}

/// When a job has to start at the latest, by stamp, to be done in nine of ten cases when its owner wants it, on the fastest
/// of what it could run on; `None` without such a wish, and where nobody can tell.
fn start_ms(job: &Job, left: &[Option<Left>]) -> Option<u64> {
    let by_ms = job.spec.terms.finish_by_ms?;
    let known = left.iter().flatten().filter(|left| !left.is_guess);
    let least_ms = known.map(|left| left.p90_ms).min_by(f64::total_cmp)?;
    // A little before, so that it does not take a miracle.
    let start_ms = by_ms.saturating_sub((least_ms * START_BEFORE) as u64);
    Some(start_ms.max(LOST_MS + 1))
}
