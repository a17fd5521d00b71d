//! What is against a job on a worker, as a look at the queue sees it.

use super::Look;
use crate::model::Job;
use crate::placement::feasible::{self, Needs, Purse};
use crate::placement::left::Left;
use crate::placement::pool::{Slot, of_model};
use crate::placement::reason::Reason;

impl Look<'_> {
    /// What is against a job on a worker, as this look at the queue sees it; [`Reason::Free`] for nothing. Of a gang, what
    /// is against a part of it there, if all of its hosts cost as much.
    pub(in crate::placement) fn reason(&self, job: &Job, slot: &Slot) -> Reason {
        self.against(job, slot).err().unwrap_or(Reason::Free)
    }

    fn against(&self, job: &Job, slot: &Slot) -> Result<(), Reason> {
        let worker = self.worker(slot).ok_or(Reason::Lost)?;
        let count = job.spec.gpu_count;
        let models = Needs::of(job).fit(worker)?;
        let purse = Purse::of(job, self.now_ms);
        let mut refused = None;
        let mut nearest = None;
        for model in models {
            let price = worker.price_per_hour(model, job.spec.gpus().into());
            if let Err(reason) = purse.pays(price) {
                refused = refused.max(Some(reason));
                continue;
            }
            let left = Left::of_waiting(self.forecast, job, model, &self.policy);
            let left = left.map(|left| self.left_on(job, slot, model, left));
            let forecast = left.and_then(Left::forecast);
            let run_ms_p90 = forecast.map(|forecast| forecast.run_ms_p90);
            if let Err(reason) = self.ledger.allows(job, [worker], price, run_ms_p90) {
                refused = refused.max(Some(reason));
                continue;
            }
            match feasible::away(worker)
                .or_else(|| self.is_kept_off(job, slot).then_some(Reason::FailedThere))
                .or_else(|| {
                    let waits = self.waits_for_home(job, slot, model);
                    waits.then_some(Reason::CheckpointElsewhere)
                })
                .or_else(|| feasible::short_of(slot, of_model(worker, model), count))
            {
                None => return Ok(()),
                Some(reason) => nearest = nearest.max(Some(reason)),
            }
        }
        Err(nearest.or(refused).unwrap_or(Reason::OtherGpu))
    }
}
