//! Whether a job may run on a worker at all, and if not, the one reason that comes first.

use std::collections::BTreeMap;

use stepcast_records::{GpuModel, UsdMicros};

use super::pool::{Gpus, Slot};
use super::reason::Reason;
use crate::model::limits::BUDGET_MARGIN_MS;
use crate::model::{Job, Label, TrainerKind, Worker, WorkerState};

/// What a job asks of a worker. Jobs with equal needs fit the same workers, so they are looked at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Needs<'a> {
    /// On each of its hosts.
    pub(crate) gpu_count: u8,
    /// On how many hosts at once.
    pub(crate) hosts: u8,
    trainer: TrainerKind,
    min_memory_gib: u16,
    allow: &'a [GpuModel],
    labels: &'a BTreeMap<Label, Label>,
    avoid: &'a BTreeMap<Label, Label>,
}

/// What a job may pay. Apart from its needs, since every job that has run a while has another sum left.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Purse {
    max_price_per_hour: Option<UsdMicros>,
    budget_left: Option<UsdMicros>,
}

/// Why a job may not run anywhere at `now_ms`, as far as it can be told from the job alone: nobody holds its
/// credentials, it is not its time yet, or its money is spent. The rest of it is in the [`Ledger`](super::Ledger).
#[must_use]
pub(super) fn held(job: &Job, now_ms: u64) -> Option<Reason> {
    if job.standing.awaits_credentials {
        return Some(Reason::AwaitingCredentials);
    }
    if job.budget_left(now_ms) == Some(UsdMicros(0)) {
        return Some(Reason::BudgetSpent);
    }
    let wanted = job.spec.terms.not_before_ms.is_some_and(|ms| ms > now_ms);
    match job.not_before_ms > now_ms {
        true if wanted => Some(Reason::NotBefore),
        true => Some(Reason::WaitsForRetry),
        false => None,
    }
}

/// Whether these GPUs are what the job asks for, of a worker for each of its hosts, and their model. Whether they are free
/// is another question.
///
/// # Errors
/// The first reason against it.
pub fn admits(job: &Job, seats: &[(&Worker, &[u8])], now_ms: u64) -> Result<GpuModel, Reason> {
    let needs = Needs::of(job);
    let alone = |at: usize| {
        seats[..at]
            .iter()
            .all(|(other, _)| other.id != seats[at].0.id)
    };
    if seats.len() != usize::from(job.spec.hosts()) || !(0..seats.len()).all(alone) {
        return Err(Reason::TooFewHosts);
    }
    let mut model = None;
    for (worker, gpus) in seats {
        let found = fits(needs, worker, gpus)?;
        if *model.get_or_insert(found) != found {
            return Err(Reason::OtherGpu);
        }
    }
    let workers = seats.iter().map(|(worker, _)| *worker);
    let model = model.ok_or(Reason::TooFewHosts)?;
    Purse::of(job, now_ms).pays(price_per_hour(workers, model, needs.gpu_count))?;
    Ok(model)
}

/// Whether GPUs of one worker are what a job asks for, or what it asks of each of its hosts if all of them cost as much;
/// and their model.
///
/// # Errors
/// The first reason against it.
pub fn admits_part(
    job: &Job,
    worker: &Worker,
    gpus: &[u8],
    now_ms: u64,
) -> Result<GpuModel, Reason> {
    let model = fits(Needs::of(job), worker, gpus)?;
    let all = gpus.len() * usize::from(job.spec.hosts());
    Purse::of(job, now_ms).pays(worker.price_per_hour(model, all))?;
    Ok(model)
}

/// Whether a worker is what a job asks for, whatever GPUs it has.
///
/// # Errors
/// The first reason against it, which is that of [`admits_part`] for any of its GPUs.
pub fn admits_worker(job: &Job, worker: &Worker) -> Result<(), Reason> {
    Needs::of(job).met_by_worker(worker)
}

/// Whether GPUs of a model at a price for all of them are what a job asks for, whichever worker has them.
///
/// # Errors
/// The first reason against it.
pub fn admits_model(
    job: &Job,
    model: GpuModel,
    price_per_hour: Option<UsdMicros>,
    now_ms: u64,
) -> Result<(), Reason> {
    Needs::of(job).met_by_model(model)?;
    Purse::of(job, now_ms).pays(price_per_hour)
}

/// What so many GPUs of a model of each of these workers cost an hour together; `None` if one of them has no price.
#[must_use]
pub fn price_per_hour<'w>(
    workers: impl IntoIterator<Item = &'w Worker>,
    gpu: GpuModel,
    gpu_count: u8,
) -> Option<UsdMicros> {
    let mut prices = workers
        .into_iter()
        .map(|worker| worker.price_per_hour(gpu, gpu_count.into()));
    let sum = prices.try_fold(0, |sum: u64, price| Some(sum.saturating_add(price?.0)));
    sum.map(UsdMicros)
}

/// What GPUs of a worker that would do for a job cost an hour at least, as if all of its hosts cost as much; `None` if none
/// would do, or they have no price.
pub(super) fn least_price(job: &Job, worker: &Worker) -> Option<UsdMicros> {
    let models = Needs::of(job).fit(worker).ok()?.into_iter();
    let prices = models.filter_map(|gpu| worker.price_per_hour(gpu, job.spec.gpus().into()));
    prices.min()
}

/// The model of a worker's GPUs, if they are what is needed of one host.
fn fits(needs: Needs<'_>, worker: &Worker, gpus: &[u8]) -> Result<GpuModel, Reason> {
    needs.met_by_worker(worker)?;
    if gpus.len() != usize::from(needs.gpu_count) || !gpus.is_sorted_by(|a, b| a < b) {
        return Err(Reason::TooFewGpus);
    }
    let model_at = |gpu: &u8| worker.inventory.gpus.get(usize::from(*gpu)).copied();
    let first = gpus.first().and_then(model_at).ok_or(Reason::TooFewGpus)?;
    if gpus.iter().any(|gpu| model_at(gpu) != Some(first)) {
        return Err(Reason::TooFewGpus);
    }
    needs.met_by_model(first)?;
    Ok(first)
}

/// How long the job's money lasts at a price for all its GPUs, in milliseconds; `None` if it has no end.
#[must_use]
pub fn affordable_ms(job: &Job, price_per_hour: Option<UsdMicros>, now_ms: u64) -> Option<u64> {
    lasts_ms(job.budget_left(now_ms)?, price_per_hour?)
}

/// Why fewer than `count` of a worker's GPUs can be had now; `None` if enough can.
pub(super) fn short_of(slot: &Slot, gpus: Gpus, count: u8) -> Option<Reason> {
    let enough = |gpus: Gpus| gpus.count_ones() >= u32::from(count);
    match () {
        () if enough(slot.available(gpus)) => None,
        () if !enough(gpus & slot.free) => Some(Reason::GpusBusy),
        () if enough(gpus & slot.free & !slot.kept) => Some(Reason::TakenNow),
        () => Some(Reason::Reserved),
    }
}

/// Why a worker takes nothing new, whatever the job.
pub(super) fn away(worker: &Worker) -> Option<Reason> {
    match worker.state {
        WorkerState::Revoked => Some(Reason::Revoked),
        WorkerState::Lost { .. } => Some(Reason::Lost),
        WorkerState::Present if worker.is_draining() => Some(Reason::Draining),
        WorkerState::Present => None,
    }
}

impl<'a> Needs<'a> {
    /// The needs of a job.
    pub(crate) fn of(job: &'a Job) -> Self {
        Self {
            gpu_count: job.spec.gpu_count,
            hosts: job.spec.hosts(),
            trainer: job.spec.trainer,
            min_memory_gib: job.spec.min_memory_gib,
            allow: &job.spec.allow,
            labels: &job.spec.labels,
            avoid: &job.spec.terms.avoid,
        }
    }

    /// The models of which a worker has enough GPUs, by number.
    ///
    /// # Errors
    /// Why there is none: of several models, the reason of the one that comes nearest.
    pub(crate) fn fit(&self, worker: &Worker) -> Result<Vec<GpuModel>, Reason> {
        self.met_by_worker(worker)?;
        let mut counts: BTreeMap<GpuModel, u8> = BTreeMap::new();
        for gpu in &worker.inventory.gpus {
            *counts.entry(*gpu).or_default() += 1;
        }
        let mut nearest = Reason::OtherGpu;
        let mut fitting = Vec::new();
        for (model, count) in counts {
            match self.met_by_model(model) {
                Ok(()) if count >= self.gpu_count => fitting.push(model),
                Ok(()) => nearest = nearest.max(Reason::TooFewGpus),
                Err(reason) => nearest = nearest.max(reason),
            }
        }
        if fitting.is_empty() {
            Err(nearest)
        } else {
            Ok(fitting)
        }
    }

    /// What tells them from other needs.
    pub(crate) fn hash(&self) -> u128 {
        let allow: Vec<u8> = self.allow.iter().map(|gpu| gpu.number()).collect();
        let all = (
            (self.gpu_count, self.hosts),
            self.trainer,
            self.min_memory_gib,
            allow,
            self.labels,
            self.avoid,
        );
        match postcard::to_extend(&all, Vec::with_capacity(64)) {
            Ok(bytes) => xxhash_rust::xxh3::xxh3_128(&bytes),
            // Memory grows as needed and every length is known beforehand, so there is nothing left that could fail.
            Err(error) => unreachable!("needs are always encodable: {error}"),
        }
    }

    fn met_by_worker(&self, worker: &Worker) -> Result<(), Reason> {
        if !worker.inventory.trainers.contains(&self.trainer) {
            return Err(Reason::NoTrainer);
        }
        let carries =
            |(key, value): (&Label, &Label)| worker.inventory.labels.get(key) == Some(value);
        match () {
            () if !self.labels.iter().all(carries) => Err(Reason::MissingLabel),
            () if self.avoid.iter().any(carries) => Err(Reason::Avoided),
            () if self.hosts > 1 && worker.inventory.address.is_none() => Err(Reason::NoGangs),
            () => Ok(()),
        }
    }

    fn met_by_model(&self, model: GpuModel) -> Result<(), Reason> {
        // Pretend hardware is for replays and for nothing else; what has no GPU must be asked for by name.
        let kind = model.is_replay() == (self.trainer == TrainerKind::Replay);
        let named = self.allow.contains(&model)
            || (self.allow.is_empty() && (model.is_gpu() || model.is_replay()));
        if !kind || !named {
            return Err(Reason::OtherGpu);
        }
        if model.is_gpu() && model.memory_gib() < self.min_memory_gib {
            return Err(Reason::TooLittleMemory);
        }
        Ok(())
    }
}

impl Purse {
    /// Pays whatever is asked.
    pub(crate) const ANY: Self = Self {
        max_price_per_hour: None,
        budget_left: None,
    };

    /// What a waiting job may pay at `now_ms`.
    pub(crate) fn of(job: &Job, now_ms: u64) -> Self {
        Self {
            max_price_per_hour: job.spec.max_price_per_hour,
            budget_left: job.budget_left(now_ms),
        }
    }

    /// Whether it pays a price for all its GPUs.
    ///
    /// # Errors
    /// The reason against it.
    pub(crate) fn pays(self, price_per_hour: Option<UsdMicros>) -> Result<(), Reason> {
        let Some(price) = price_per_hour else {
            let capped = self.max_price_per_hour.is_some() || self.budget_left.is_some();
            return if capped { Err(Reason::NoPrice) } else { Ok(()) };
        };
        if self.max_price_per_hour.is_some_and(|max| price > max) {
            return Err(Reason::TooDear);
        }
        // An attempt is asked to stop a while before the money is gone; one that would be at once need not begin.
        match self.budget_left.and_then(|left| lasts_ms(left, price)) {
            Some(ms) if ms <= BUDGET_MARGIN_MS => Err(Reason::BudgetTooSmall),
            _ => Ok(()),
        }
    }
}

/// How long money lasts at a price; `None` where nothing is to be paid.
pub(crate) fn lasts_ms(UsdMicros(left): UsdMicros, UsdMicros(price): UsdMicros) -> Option<u64> {
    const MS_PER_HOUR: u128 = 3_600_000;
    let ms = (u128::from(left) * MS_PER_HOUR).checked_div(u128::from(price))?;
    Some(u64::try_from(ms).unwrap_or(u64::MAX))
}
