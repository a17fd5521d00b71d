//! One look at the queue: each waiting job in its turn gets GPUs, has some kept for it, or is passed.

use std::collections::BTreeMap;

use stepcast_records::{GpuModel, Hardware};

use super::feasible::{self, Needs, Purse};
use super::forecast::{Forecast, ForecastSource};
use super::ledger::Ledger;
use super::pool::{Gpus, Pool, Slot, positions};
use super::rank;
use super::reason::Reason;
use crate::command::{Placement, PlacementNote};
use crate::ids::WorkerId;
use crate::model::Job;
use crate::state::State;

/// How long later jobs may pass one that could run once GPUs are free. After that GPUs are kept for it.
///
/// Long enough that a large job does not leave GPUs idle for every small delay, short against a training.
pub const PASSED_MAX_MS: u64 = 15 * 60_000;

/// Jobs that GPUs are kept for at one time: the first of the queue. Those behind them get their turn later, and a queue of
/// large jobs does not empty the whole cluster.
pub const KEPT_MAX: usize = 32;

/// One look at the queue.
pub(super) struct Round<'a> {
    forecast: &'a dyn ForecastSource,
    now_ms: u64,
    pub(super) pool: Pool<'a>,
    groups: BTreeMap<Needs<'a>, Group>,
    kept: usize,
    pub(super) ledger: Ledger<'a>,
}

/// Where jobs with the same needs may run, busy or not.
struct Group {
    places: Vec<Place>,
    /// GPUs only become fewer during a round: once there is nothing left, there is nothing for the rest of it.
    exhausted: bool,
}

/// Equal GPUs of each worker of one kind.
#[derive(Clone, Copy)]
struct Place {
    kind: usize,
    model: GpuModel,
    gpus: Gpus,
}

/// The best place so far: how it ranks, where it is, what is available there and what is expected of it.
type Best = ((rank::Score, u32, WorkerId), usize, Gpus, Option<Forecast>);

/// What a job would get.
pub(super) struct Choice {
    slot: usize,
    gpus: Gpus,
    pub(super) placement: Placement,
}

impl<'a> Round<'a> {
    pub(super) fn new(state: &'a State, forecast: &'a dyn ForecastSource, now_ms: u64) -> Self {
        Self {
            forecast,
            now_ms,
            pool: Pool::of(state, now_ms),
            groups: BTreeMap::new(),
            kept: 0,
            ledger: Ledger::new(state, now_ms),
        }
    }

    /// Gives a job its turn; what it gets, if anything.
    pub(super) fn visit(&mut self, job: &'a Job) -> Option<Placement> {
        if self.ledger.held(job).is_some() {
            return None;
        }
        let Some(choice) = self.choose(job) else {
            self.keep(job);
            return None;
        };
        let run_ms = choice.placement.note.run_ms_p90.unwrap_or(u64::MAX);
        let free_ms = self.now_ms.saturating_add(run_ms);
        let slot = &mut self.pool.slots[choice.slot];
        slot.take(job.id, choice.gpus, free_ms);
        let price = slot.worker.price_per_hour(choice.placement.gpus.len());
        let (worker, run_ms_p90) = (slot.worker.id, choice.placement.note.run_ms_p90);
        self.ledger.take(job, worker, price, run_ms_p90);
        Some(choice.placement)
    }

    /// The best of what is free for a job, if anything is.
    pub(super) fn choose(&mut self, job: &'a Job) -> Option<Choice> {
        let count = job.spec.gpu_count;
        let purse = Purse::of(job, self.now_ms);
        let group = group(&mut self.groups, &self.pool, Needs::of(job));
        if group.exhausted {
            return None;
        }
        let mut forecasts = Forecasts {
            source: self.forecast,
            job,
            known: Vec::new(),
        };
        let mut exhausted = true;
        let mut best: Option<Best> = None;
        for place in &group.places {
            let Some(hardware) = Hardware::new(place.model, count) else {
                continue;
            };
            for (position, slot) in self.pool.of_kind(place.kind) {
                if feasible::short_of(slot, place.gpus, count).is_some() {
                    continue;
                }
                exhausted = false;
                let available = slot.available(place.gpus);
                let price = slot.worker.price_per_hour(usize::from(count));
                if purse.pays(price).is_err() {
                    continue;
                }
                let forecast = forecasts.on(hardware);
                let run_ms_p90 = forecast.map(|forecast| forecast.run_ms_p90);
                if self
                    .ledger
                    .allows(job, slot.worker, price, run_ms_p90)
                    .is_err()
                {
                    continue;
                }
                let score = rank::score(job.spec.objective, hardware, forecast, price);
                // Of equals the fullest worker, so that large jobs find an empty one.
                let rank = (score, available.count_ones(), slot.worker.id);
                if best.as_ref().is_none_or(|(known, ..)| rank < *known) {
                    best = Some((rank, position, available, forecast));
                }
            }
        }
        group.exhausted = exhausted;
        let (_, position, available, forecast) = best?;
        let gpus = positions(available).take(usize::from(count));
        Some(self.pool.slots[position].choice(job, position, gpus.collect(), forecast))
    }

    /// What is against a job on a worker, as this look at the queue sees it; [`Reason::Free`] for nothing.
    pub(super) fn reason(&self, job: &Job, slot: &Slot<'_>) -> Reason {
        self.against(job, slot).err().unwrap_or(Reason::Free)
    }

    fn against(&self, job: &Job, slot: &Slot<'_>) -> Result<(), Reason> {
        let count = job.spec.gpu_count;
        let price = slot.worker.price_per_hour(usize::from(count));
        let models = Needs::of(job).fit(slot.worker)?;
        Purse::of(job, self.now_ms).pays(price)?;
        let mut refused = None;
        let mut nearest = None;
        for model in models {
            let forecast = Hardware::new(model, count)
                .and_then(|hardware| self.forecast.forecast(&job.spec.workload, hardware));
            let run_ms_p90 = forecast.map(|forecast| forecast.run_ms_p90);
            if let Err(reason) = self.ledger.allows(job, slot.worker, price, run_ms_p90) {
                refused = refused.max(Some(reason));
                continue;
            }
            match feasible::away(slot.worker)
                .or_else(|| feasible::short_of(slot, slot.of_model(model), count))
            {
                None => return Ok(()),
                Some(reason) => nearest = nearest.max(Some(reason)),
            }
        }
        Err(nearest.or(refused).unwrap_or(Reason::OtherGpu))
    }

    /// When enough GPUs of one worker are expected to be free for a job, by stamp; `None` if one cannot tell.
    pub(super) fn free_ms(&mut self, job: &'a Job) -> Option<u64> {
        self.target(job)
            .map(|(_, _, free_ms)| free_ms)
            .filter(|ms| *ms < u64::MAX)
    }

    /// Keeps GPUs for a job that has been passed for long enough.
    fn keep(&mut self, job: &'a Job) {
        let since_ms = job.queued_ms.max(job.not_before_ms);
        if self.kept >= KEPT_MAX || self.now_ms.saturating_sub(since_ms) < PASSED_MAX_MS {
            return;
        }
        if let Some((slot, gpus, _)) = self.target(job) {
            self.pool.slots[slot].keep(job.id, gpus);
            self.kept += 1;
        }
    }

    /// The GPUs a job would have soonest: of those expected at the same time, where the most are free already.
    ///
    /// With nothing else placed there neither number gets worse from one look to the next, so the choice settles.
    fn target(&mut self, job: &'a Job) -> Option<(usize, Gpus, u64)> {
        let count = job.spec.gpu_count;
        let purse = Purse::of(job, self.now_ms);
        let group = group(&mut self.groups, &self.pool, Needs::of(job));
        let pool = &self.pool;
        let slots = group.places.iter().flat_map(|place| {
            let slots = pool.of_kind(place.kind);
            slots.map(|(position, slot)| (position, slot, place.gpus))
        });
        let ledger = &self.ledger;
        let soonest = slots.filter_map(|(position, slot, gpus)| {
            let price = slot.worker.price_per_hour(usize::from(count));
            purse.pays(price).ok()?;
            ledger.allows(job, slot.worker, price, None).ok()?;
            let (free_ms, gpus) = slot.soonest(gpus, count)?;
            let missing = u32::from(count) - slot.available(gpus).count_ones();
            Some((free_ms, missing, position, gpus))
        });
        soonest
            .min()
            .map(|(free_ms, _, slot, gpus)| (slot, gpus, free_ms))
    }
}

/// The group with these needs, looked for among all kinds of worker when it is first asked for.
fn group<'g, 'a>(
    groups: &'g mut BTreeMap<Needs<'a>, Group>,
    pool: &Pool<'a>,
    needs: Needs<'a>,
) -> &'g mut Group {
    groups.entry(needs).or_insert_with(|| {
        let mut places = Vec::new();
        for kind in 0..pool.kinds.len() {
            // Empty kinds do not exist, and the first of one speaks for all.
            let Some((_, slot)) = pool.of_kind(kind).next() else {
                continue;
            };
            let models = needs.fit(slot.worker).unwrap_or_default();
            places.extend(models.into_iter().map(|model| Place {
                kind,
                model,
                gpus: slot.of_model(model),
            }));
        }
        Group {
            places,
            exhausted: false,
        }
    })
}

impl Slot<'_> {
    fn choice(&self, job: &Job, slot: usize, gpus: Vec<u8>, forecast: Option<Forecast>) -> Choice {
        let price = self.worker.price_per_hour(gpus.len());
        let note = forecast.map_or_else(PlacementNote::default, |forecast| forecast.note(price));
        let mask = gpus.iter().fold(0, |mask, gpu| mask | 1 << gpu);
        let placement = Placement {
            job: job.id,
            attempt: job.next_attempt(),
            worker: self.worker.id,
            gpus,
            note,
        };
        Choice {
            slot,
            gpus: mask,
            placement,
        }
    }
}

/// What is expected of one job, asked once for each hardware.
struct Forecasts<'a> {
    source: &'a dyn ForecastSource,
    job: &'a Job,
    known: Vec<(Hardware, Option<Forecast>)>,
}

impl Forecasts<'_> {
    fn on(&mut self, hardware: Hardware) -> Option<Forecast> {
        if let Some((_, forecast)) = self.known.iter().find(|(known, _)| *known == hardware) {
            return *forecast;
        }
        let forecast = self.source.forecast(&self.job.spec.workload, hardware);
        self.known.push((hardware, forecast));
        forecast
    }
}
