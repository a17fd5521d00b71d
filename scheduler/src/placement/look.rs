//! One look at the cluster: what waits and what may yield get their turns by the policy, and what comes of it is a plan.

mod against;
mod crowd;
mod due;
mod entry;
mod failed;
mod fair;
mod gang;
mod home;
mod late;
mod order;
mod plain;
mod promises;
mod staged;
mod target;
mod taste;
mod urgent;

#[cfg(test)]
pub(crate) use fair::fair_work;

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use stepcast_records::GpuModel;

use super::feasible::{Needs, Purse};
use super::forecast::ForecastSource;
use super::ledger::Ledger;
use super::left::Left;
use super::plan::Plan;
use super::pool::{Gpus, PlaceId, Pool, Slot, positions};
use super::shares::Shares;
use super::survey::{Crowd, Scene, Survey, ordered};
use crate::command::{Placement, Preemption};
use crate::ids::{JobId, WorkerId};
use crate::model::{Job, Worker};
use crate::policy::{Aim, Policy, Preemption as Yielding};
use crate::state::State;
use entry::{Entry, Runs};
pub(super) use entry::{LOST_MS, due_ms};
use failed::Failed;
use gang::Choice;
pub(super) use gang::Hosts;
use home::Home;
use promises::Promised;
use taste::{price_of, worth};

/// How long later jobs may pass one that could run once GPUs are free. After that GPUs are kept for it.
///
/// Long enough that a large job does not leave GPUs idle for every small delay, short against a training.
pub const PASSED_MAX_MS: u64 = 15 * 60_000;

/// Jobs that GPUs are kept for at one time: the first of the queue. Those behind them get their turn later, and a queue of
/// large jobs does not empty the whole cluster.
pub const KEPT_MAX: usize = 32;

/// Workers of one kind that are looked at for one job behind one that it could have, since they may be as much faster than
/// others of their model as they are dearer.
const DEARER_LOOKED_AT: usize = 32;

/// How good a worker is for a job: how often it could not start it, GPUs that others have to yield, what it is to the job's
/// owner, its price, how much of it is free, and which it is; the least is best.
type Rank = (u8, u32, u64, u64, u32, WorkerId);

/// One look.
pub(super) struct Look<'a> {
    state: &'a State,
    forecast: &'a dyn ForecastSource,
    policy: Policy,
    now_ms: u64,
    pub(super) pool: Pool,
    /// The GPU models of the cluster, each once.
    models: Vec<GpuModel>,
    pub(super) ledger: Ledger<'a>,
    crowd: Option<Crowd>,
    /// What is due to teams.
    shares: Rc<Shares>,
    /// Where jobs with the same needs may run, busy or not.
    places: BTreeMap<Needs<'a>, Rc<[PlaceId]>>,
    /// Where jobs could not be started, of those who were asked for.
    failed: RefCell<BTreeMap<JobId, Rc<Failed>>>,
    /// Where jobs have their checkpoints, of those who were asked for and have one.
    homes: RefCell<BTreeMap<JobId, Option<Rc<Home>>>>,
    /// The least drift of any worker, once somebody has asked.
    least_drift: OnceCell<u32>,
    /// Jobs that wait for that rather than begin anew.
    waits: RefCell<BTreeSet<JobId>>,
    kept: usize,
    /// The GPUs that are kept for jobs that were passed for long.
    kept_for: BTreeMap<JobId, (usize, Gpus)>,
    /// Those for whom others are stopping, with what is kept for them, the most urgent first.
    promised: Vec<Promised<'a>>,
    /// Waiting jobs that have got what they get in this look.
    settled: BTreeSet<JobId>,
    max: usize,
    /// Whose turn is only looked at: the look ends where it would start.
    until: Option<JobId>,
    /// When the GPUs that are kept for it are expected to be free.
    kept_until_ms: Option<u64>,
    plan: Plan,
    /// GPUs that are to be taken from running jobs, each with the job they are for.
    wanted: Vec<(usize, Gpus, JobId)>,
}

impl<'a> Look<'a> {
    /// A look by whoever knows nothing yet.
    pub(super) fn new(state: &'a State, forecast: &'a dyn ForecastSource, now_ms: u64) -> Self {
        let scene = Scene::of(state, forecast, now_ms);
        Self::following(&mut Survey::default(), scene)
    }

    /// A look by whoever has looked before: what is known is taken along until [`Look::end`].
    pub(super) fn following(survey: &mut Survey, scene: Scene<'a>) -> Self {
        survey.follow(scene);
        let Scene {
            state,
            forecast,
            now_ms,
            ..
        } = scene;
        Self {
            state,
            forecast,
            policy: *state.policy(),
            now_ms,
            models: survey.models.clone(),
            pool: std::mem::take(&mut survey.pool),
            crowd: survey.crowd.take(),
            shares: Rc::new(Shares::of(state, state.policy().aim, now_ms)),
            ledger: Ledger::new(state, now_ms),
            places: BTreeMap::new(),
            failed: RefCell::default(),
            homes: RefCell::default(),
            least_drift: OnceCell::new(),
            waits: RefCell::default(),
            kept: 0,
            kept_for: BTreeMap::new(),
            promised: Vec::new(),
            settled: BTreeSet::new(),
            max: usize::MAX,
            until: None,
            kept_until_ms: None,
            plan: Plan::default(),
            wanted: Vec::new(),
        }
    }

    /// Gives back what is known, for the next look.
    pub(super) fn end(mut self, survey: &mut Survey) {
        self.pool.give_back();
        survey.pool = self.pool;
        survey.crowd = self.crowd;
    }

    /// Gives everybody their turn; at most `max` jobs are placed.
    pub(super) fn run(&mut self, max: usize) -> Plan {
        self.max = max;
        self.keep_promises();
        match self.policy.aim {
            Aim::Fifo | Aim::Priority => self.plainly(),
            Aim::Fair | Aim::FairBlind => self.fairly(),
            Aim::Balanced | Aim::Makespan | Aim::ShortestRemaining | Aim::Cost => {
                match self.crowd.take() {
                    Some(mut crowd) => {
                        self.through(&mut crowd);
                        self.crowd = Some(crowd);
                    }
                    None => self.by_stages(),
                }
            }
        }
        self.make_room();
        std::mem::take(&mut self.plan)
    }

    /// Gives everybody their turn up to the one in which a job starts, which it does not take; what it would get.
    pub(super) fn run_until(&mut self, job: JobId) -> Option<Placement> {
        self.until = Some(job);
        let plan = self.run(usize::MAX);
        plan.placements
            .into_iter()
            .find(|placement| placement.job == job)
    }

    /// Whether running jobs have to yield for a job.
    pub(super) fn takes_from_others(&self, job: JobId) -> bool {
        self.wanted.iter().any(|(_, _, wants)| *wants == job)
    }

    /// Whether nothing more can come of this look.
    fn is_over(&mut self) -> bool {
        self.plan.placements.len() >= self.max || !self.pool.has_room()
    }

    /// What a worker is to a job's owner beside others of its model: what it costs, how long it takes, or both; the least
    /// is best.
    fn worth(&self, job: &Job, slot: &Slot, gpu: GpuModel) -> f64 {
        let price = price_of(slot, gpu);
        worth(job.spec.objective, self.drift(slot.id), price)
    }

    /// How long a worker takes for what others with the same GPUs take [`AS_EXPECTED`](crate::drift::AS_EXPECTED) for.
    fn drift(&self, worker: WorkerId) -> u32 {
        self.forecast.drift(worker)
    }

    /// The best place on one model, free or to be freed, if there is any.
    fn choose(&mut self, job: &'a Job, model: GpuModel, left: &Left) -> Option<Choice> {
        if job.spec.hosts() > 1 {
            return self.choose_gang(job, model, left);
        }
        let count = job.spec.gpu_count;
        let purse = Purse::of(job, self.now_ms);
        let places = self.places(job);
        let failed = self.failed(job);
        let home = self.home(job);
        let near = self.only_near(job, model);
        let may_yield = self.policy.preemption == Yielding::Priced;
        let mut best: Option<(Rank, Choice)> = None;
        for place in places.iter() {
            let place = &self.pool.places[*place as usize];
            if place.model != model {
                continue;
            }
            let mut passed = 0;
            let rooms: Box<dyn Iterator<Item = usize>> = match &near {
                Some(near) => Box::new(
                    near.iter()
                        .copied()
                        .filter(|at| place.is_of(&self.pool.slots[*at])),
                ),
                None => Box::new(place.rooms()),
            };
            for position in rooms {
                let slot = &self.pool.slots[position];
                let obtainable = slot.obtainable(place.gpus);
                let is_kept_off = || {
                    let failed = failed.as_ref();
                    failed.is_some_and(|failed| failed.is_kept_off(slot.id))
                };
                let waits = || home.is_some() && self.waits_for_home(job, slot, model);
                if obtainable.count_ones() < u32::from(count) || is_kept_off() || waits() {
                    continue;
                }
                let left = self.left_on(job, slot, model, *left);
                let free = slot.available(place.gpus);
                let missing = u32::from(count).saturating_sub(free.count_ones());
                // Of equals the fullest worker, so that large jobs find an empty one.
                let price = slot.price(model).unwrap_or(u64::MAX);
                let length = if home.is_some() { left.p50_ms } else { 1.0 };
                let worth = ordered(self.worth(job, slot, model) * length);
                let times = failed.as_ref().map_or(0, |failed| failed.times(slot.id));
                let rank = (times, missing, worth, price, free.count_ones(), slot.id);
                if best.as_ref().is_some_and(|(known, _)| *known <= rank) {
                    // They come by price, and the dearer ones are better only if they are as much faster, or if some of
                    // what others have must be yielded first.
                    passed += 1;
                    if may_yield || home.is_some() || passed <= DEARER_LOOKED_AT {
                        continue;
                    }
                    break;
                }
                let Some(worker) = self.state.worker(slot.id) else {
                    continue;
                };
                let price = worker.price_per_hour(model, usize::from(count));
                let run_ms_p90 = left.forecast().map(|left| left.run_ms_p90);
                let allowed = self.ledger.allows(job, [worker], price, run_ms_p90);
                if purse.pays(price).is_err() || allowed.is_err() {
                    continue;
                }
                let taken = positions(free).chain(positions(obtainable & !free));
                let gpus = taken
                    .take(usize::from(count))
                    .fold(0, |gpus, position| gpus | 1 << position);
                let choice = Choice {
                    slot: position,
                    gpus,
                    is_free: missing == 0,
                    others: Vec::new(),
                };
                best = Some((rank, choice));
            }
        }
        best.map(|(_, choice)| choice)
    }

    /// Gives a job GPUs of one model, or leaves it where it runs; whether there were any.
    fn claim(&mut self, entry: &Entry<'a>, model: usize) -> bool {
        let Some(left) = entry.left.get(model).copied().flatten() else {
            return false;
        };
        if let Some(runs) = &entry.runs
            && runs.model == model
            && self.stays(runs)
        {
            return true;
        }
        if entry.runs.is_none() && self.ledger.held(entry.job).is_some() {
            return false;
        }
        let gpu = self.models[model];
        let Some(choice) = self.choose(entry.job, gpu, &left) else {
            return false;
        };
        let left = self.left_on(entry.job, &self.pool.slots[choice.slot], gpu, left);
        self.take(entry, choice, left);
        true
    }

    /// Leaves a job where it runs, unless its GPUs are somebody else's by now.
    fn stays(&mut self, runs: &Runs<'a>) -> bool {
        if runs.is_firm {
            return true;
        }
        let Some(slot) = self.pool.slots.get(runs.slot) else {
            return false;
        };
        let is_there =
            slot.yielding & runs.gpus == runs.gpus && slot.obtainable(runs.gpus) == runs.gpus;
        if is_there {
            self.pool.yields(runs.slot, runs.gpus, false);
        }
        is_there
    }

    fn take(&mut self, entry: &Entry<'a>, choice: Choice, left: Left) {
        let job = entry.job;
        if self.until == Some(job.id) && choice.is_free {
            self.plan
                .placements
                .extend(self.placement(job, &choice, left));
            self.max = 0;
            return;
        }
        let slot = &self.pool.slots[choice.slot];
        let free_ms = (self.now_ms as f64 + left.p90_ms).min(u64::MAX as f64) as u64;
        let free = slot.available(choice.gpus);
        let seats = choice.seats();
        for (slot, gpus) in &seats {
            self.pool.take(*slot, job.id, *gpus, free_ms);
        }
        let workers = self.workers_of(&seats);
        let price = self.price_of(&seats, job.spec.gpu_count);
        if entry.runs.is_none() {
            self.settled.insert(job.id);
            let run_ms_p90 = left.forecast().map(|left| left.run_ms_p90);
            let workers = workers.iter().map(|worker| worker.id);
            self.ledger.take(job, workers, price, run_ms_p90);
        }
        if entry.runs.is_some() || !choice.is_free {
            self.wanted.push((choice.slot, choice.gpus & !free, job.id));
        }
        match &entry.runs {
            // What is to move stops first; its GPUs there are kept by being taken in every look until it starts.
            Some(runs) if runs.is_stopping => {}
            Some(runs) => self.plan.preemptions.push(Preemption {
                job: job.id,
                epoch: runs.attempt.epoch,
                for_job: Some(job.id),
            }),
            None if choice.is_free => {
                self.plan
                    .placements
                    .extend(self.placement(job, &choice, left));
            }
            None => {}
        }
    }

    /// Has running jobs yield whose GPUs went to others.
    fn evict(&mut self, entries: &[Entry<'a>]) {
        let known: Vec<_> = self
            .plan
            .preemptions
            .iter()
            .map(|known| known.epoch)
            .collect();
        for entry in entries {
            let Some(runs) = entry.runs.as_ref().filter(|runs| !runs.is_stopping) else {
                continue;
            };
            let wants = |(slot, gpus, _): &&(usize, Gpus, JobId)| {
                *slot == runs.slot && gpus & runs.gpus != 0
            };
            if known.contains(&runs.attempt.epoch) {
                continue;
            }
            if let Some((_, _, job)) = self.wanted.iter().find(wants) {
                self.plan.preemptions.push(Preemption {
                    job: entry.job.id,
                    epoch: runs.attempt.epoch,
                    for_job: Some(*job),
                });
            }
        }
    }

    /// Keeps GPUs of some models, by their positions, for a job that has been passed for long enough; whether there were any.
    fn keep(&mut self, job: &'a Job, models: &[usize]) -> bool {
        if self.kept >= KEPT_MAX {
            return false;
        }
        let models: Vec<GpuModel> = models.iter().map(|model| self.models[*model]).collect();
        let target = self.target(job, |model| models.contains(&model));
        let is_found = target.is_some();
        if let Some((seats, free_ms)) = target {
            if self.until == Some(job.id) {
                self.kept_until_ms = Some(free_ms);
            }
            if let [(slot, gpus)] = seats[..] {
                self.kept_for.insert(job.id, (slot, gpus));
            }
            for (slot, gpus) in seats {
                self.pool.keep(slot, job.id, gpus);
            }
            self.kept += 1;
        }
        is_found
    }

    /// Where a job may run, busy or not.
    fn places(&mut self, job: &'a Job) -> Rc<[PlaceId]> {
        let (state, pool) = (self.state, &self.pool);
        let needs = Needs::of(job);
        let places = self.places.entry(needs);
        Rc::clone(places.or_insert_with(|| pool.places_for(state, needs).into()))
    }

    /// The worker of a slot.
    pub(super) fn worker(&self, slot: &Slot) -> Option<&'a Worker> {
        self.state.worker(slot.id)
    }
}
