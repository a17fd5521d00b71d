//! Workers on which a job could not be started: a host without a working trainer fails whatever comes to it, at once, and
//! stands free again. They come behind all others that could take the job, free or not; if there is none, any is tried again.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::Look;
use crate::ids::WorkerId;
use crate::model::Job;
use crate::placement::feasible::{Needs, Purse};
use crate::placement::ledger::Ledger;
use crate::placement::left::Left;
use crate::placement::pool::Slot;
use crate::placement::reason::Reason;

/// Where a job could not be started.
pub(super) struct Failed {
    /// How many of its attempts each worker could not start.
    times: BTreeMap<WorkerId, u8>,
    /// Of which models enough other workers could take it, by position; `None` if of none.
    elsewhere: Option<Vec<bool>>,
}

impl Failed {
    /// How often a worker could not start it.
    pub(super) fn times(&self, worker: WorkerId) -> u8 {
        self.times.get(&worker).copied().unwrap_or(0)
    }

    /// How many workers could not.
    pub(super) fn workers(&self) -> usize {
        self.times.len()
    }

    /// Whether it does not start on a worker, since others could take it.
    pub(super) fn is_kept_off(&self, worker: WorkerId) -> bool {
        self.elsewhere.is_some() && self.times.contains_key(&worker)
    }
}

impl Look<'_> {
    /// Where a job could not be started; `None` for one that could be wherever it was tried, as nearly all are.
    pub(super) fn failed(&self, job: &Job) -> Option<Rc<Failed>> {
        job.failed_to_start().next()?;
        if let Some(known) = self.failed.borrow().get(&job.id) {
            return Some(Rc::clone(known));
        }
        let found = Rc::new(self.find_failed(job));
        self.failed.borrow_mut().insert(job.id, Rc::clone(&found));
        Some(found)
    }

    /// Whether a job does not start on a worker, since it could not there before and others could take it.
    pub(super) fn is_kept_off(&self, job: &Job, slot: &Slot) -> bool {
        self.failed(job)
            .is_some_and(|failed| failed.is_kept_off(slot.id))
    }

    /// Has models cost more than anybody pays for a job that could start there only where it could not before, though it
    /// could elsewhere. Where it runs it may stay.
    pub(super) fn price_out(&self, job: &Job, price: &mut [f64]) {
        let failed = self.failed(job);
        let Some(elsewhere) = failed.as_ref().and_then(|failed| failed.elsewhere.as_ref()) else {
            return;
        };
        let here = job.live_attempt().map(|attempt| attempt.gpu);
        for ((model, price), is_open) in self.models.iter().zip(price).zip(elsewhere) {
            if !is_open && here != Some(*model) {
                *price = f64::INFINITY;
            }
        }
    }

    /// By what the state alone says: whatever a look gives to others, the same workers could take it.
    fn find_failed(&self, job: &Job) -> Failed {
        let mut times: BTreeMap<WorkerId, u8> = BTreeMap::new();
        for worker in job.failed_to_start() {
            *times.entry(worker).or_default() += 1;
        }
        let hosts = usize::from(job.spec.hosts());
        let ledger = Ledger::new(self.state, self.now_ms);
        let purse = Purse::of(job, self.now_ms);
        let needs = Needs::of(job);
        let places = match self.places.get(&needs) {
            Some(places) => Rc::clone(places),
            None => self.pool.places_for(self.state, needs).into(),
        };
        let mut able = vec![0; self.models.len()];
        for place in places.iter() {
            let model = self.pool.places[*place as usize].model;
            let Ok(at) = self.models.binary_search(&model) else {
                continue;
            };
            // Where nothing is cheap enough nobody need be asked.
            let price = self.pool.least_price(*place, purse, job.spec.gpus());
            if price.is_none() {
                continue;
            }
            let left = Left::of_waiting(self.forecast, job, model, &self.policy);
            let run_ms_p90 = left
                .and_then(Left::forecast)
                .map(|forecast| forecast.run_ms_p90);
            let others = self.pool.members_at(*place).filter(|position| {
                let slot = &self.pool.slots[*position];
                let worker = self.worker(slot).filter(|_| !times.contains_key(&slot.id));
                worker.is_some_and(|worker| {
                    let price = worker.price_per_hour(model, job.spec.gpus().into());
                    let allowed = ledger.allows(job, [worker], price, run_ms_p90);
                    // What is like it and runs there ends.
                    purse.pays(price).is_ok() && matches!(allowed, Ok(()) | Err(Reason::KeyTaken))
                })
            });
            able[at] += others.take(hosts).count();
        }
        let is_open: Vec<bool> = able.iter().map(|able| *able >= hosts).collect();
        Failed {
            times,
            elsewhere: is_open.contains(&true).then_some(is_open),
        }
    }
}
