//! Which GPUs are kept for a job that was passed for long: those that it would have soonest.

use stepcast_records::GpuModel;

use super::Look;
use super::gang::Seats;
use crate::model::Job;
use crate::placement::feasible::Purse;
use crate::placement::pool::{Gpus, Place};

/// Workers of one kind that are looked at for one job although their GPUs should be free by now or it may not have them:
/// those that are or should be free for longest.
pub(super) const PASSED_LOOKED_AT: usize = 256;

/// GPUs of one worker: when enough are free there, how many are missing now, which worker it is, and which they are. The
/// least is best.
type Found = (u64, u8, usize, Gpus);

impl<'a> Look<'a> {
    /// When enough GPUs of one worker, or of several for a gang, are expected to be free for a job, by stamp; `None` if one
    /// cannot tell.
    pub(in crate::placement) fn free_ms(&mut self, job: &'a Job) -> Option<u64> {
        self.kept_until_ms
            .or_else(|| self.target(job, |_| true).map(|(_, free_ms)| free_ms))
            .filter(|ms| *ms < u64::MAX)
    }

    /// The GPUs a job would have soonest: of those expected at the same time, where the most are free already.
    ///
    /// With nothing else placed there neither number gets worse from one look to the next, so the choice settles.
    pub(super) fn target(
        &mut self,
        job: &'a Job,
        is_wanted: impl Fn(GpuModel) -> bool,
    ) -> Option<(Seats, u64)> {
        if job.spec.hosts() > 1 {
            return self.target_gang(job, is_wanted);
        }
        let purse = Purse::of(job, self.now_ms);
        let places = self.places(job);
        self.pool.file(&places);
        let mut best: Option<Found> = None;
        for place in places.iter() {
            let place = &self.pool.places[*place as usize];
            if !is_wanted(place.model) {
                continue;
            }
            // Where its checkpoint is first: before that come as many as there are, all of them free and of no use to it.
            let at_home = self.soonest_at_home(job, place);
            best = self.soonest_of(job, (place, purse), at_home.into_iter(), best);
            if self.only_near(job, place.model).is_none() {
                let everywhere = place.soonest(job.spec.gpu_count);
                best = self.soonest_of(job, (place, purse), everywhere, best);
            }
        }
        best.map(|(free_ms, _, slot, gpus)| (vec![(slot, gpus)], free_ms))
    }

    /// The best of these workers of a place, which come by when they are free, and of what was found before.
    fn soonest_of(
        &self,
        job: &Job,
        (place, purse): (&Place, Purse),
        workers: impl Iterator<Item = (u64, u8, usize)>,
        mut best: Option<Found>,
    ) -> Option<Found> {
        let count = job.spec.gpu_count;
        let mut passed = 0;
        for (free_ms, missing, position) in workers {
            if passed > PASSED_LOOKED_AT {
                break;
            }
            passed += usize::from(free_ms > 0 && free_ms <= self.now_ms);
            // What is overdue is expected now, whenever that was.
            let free_ms = free_ms.max(self.now_ms);
            let known = best.map(|(free_ms, missing, position, _)| (free_ms, missing, position));
            if known.is_some_and(|known| known < (free_ms, missing, position)) {
                if free_ms > self.now_ms {
                    break;
                }
                continue;
            }
            let slot = &self.pool.slots[position];
            let Some(worker) = self.state.worker(slot.id) else {
                continue;
            };
            let price = worker.price_per_hour(place.model, usize::from(count));
            if purse.pays(price).is_err()
                || self.ledger.allows(job, [worker], price, None).is_err()
                || self.is_kept_off(job, slot)
                || self.waits_for_home(job, slot, place.model)
            {
                passed += 1;
                continue;
            }
            let Some((_, gpus)) = slot.soonest(place.gpus, count, self.now_ms) else {
                continue;
            };
            let found = (free_ms, missing, position, gpus);
            best = Some(best.map_or(found, |best| best.min(found)));
        }
        best
    }

    /// The workers of a place on which a job goes on from its checkpoint, as [`Place::soonest`] says of all.
    fn soonest_at_home(&self, job: &Job, place: &Place) -> Vec<(u64, u8, usize)> {
        let count = job.spec.gpu_count;
        let near = self.near(job).take(PASSED_LOOKED_AT);
        let there = near.filter_map(|position| {
            let slot = &self.pool.slots[position];
            let (free_ms, gpus) = slot
                .soonest(place.gpus, count, 0)
                .filter(|_| place.is_of(slot))?;
            let missing = count - slot.available(gpus).count_ones() as u8;
            Some((free_ms, missing, position))
        });
        let mut there: Vec<_> = there.collect();
        there.sort_unstable();
        there
    }
}
