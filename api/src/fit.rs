//! Whether any worker could ever hold a job, by the rules that place it.

mod offers;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use stepcast_records::{GpuModel, Hardware, UsdMicros, units};
use stepcast_scheduler::State;
use stepcast_scheduler::ids::JobId;
use stepcast_scheduler::model::limits::BUDGET_MARGIN_MS;
use stepcast_scheduler::model::{
    Inventory, Job, JobSpec, JobState, Standing, TrainerKind, Worker, WorkerState,
};
use stepcast_scheduler::placement::{Reason, feasible};

pub(crate) use offers::Offers;

const MICROS_PER_CENT: u64 = 10_000;

/// How many workers have the same reason against them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Misfit {
    pub(crate) reason: Reason,
    pub(crate) workers: usize,
}

/// What is against every worker, if there are workers and none could hold the job even if all were free.
pub(crate) fn misfits(state: &State, spec: &JobSpec, now_ms: u64) -> Option<Vec<Misfit>> {
    let job = waiting(spec, now_ms);
    let of_budget = is_of_budget(state, spec);
    let mut counts: BTreeMap<Reason, usize> = BTreeMap::new();
    let mut able: BTreeMap<GpuModel, u8> = BTreeMap::new();
    for worker in state
        .workers()
        .filter(|worker| worker.state != WorkerState::Revoked)
    {
        let models = fitting(&job, worker, now_ms);
        let reason = match models.map(|models| paid(worker, models, of_budget)) {
            Err(reason) => reason,
            Ok(models) if models.is_empty() => Reason::NoPrice,
            Ok(models) if is_enough(&mut able, &models, spec) => return None,
            Ok(_) => Reason::TooFewHosts,
        };
        *counts.entry(reason).or_default() += 1;
    }
    let misfits: Vec<Misfit> = counts
        .into_iter()
        .map(|(reason, workers)| Misfit { reason, workers })
        .collect();
    (!misfits.is_empty()).then_some(misfits)
}

/// What would have to be asked for instead, each alone, for some worker to hold the job once its GPUs are free.
pub(crate) fn remedies(state: &State, spec: &JobSpec, now_ms: u64) -> Vec<String> {
    let workers: Vec<&Worker> = state
        .workers()
        .filter(|worker| worker.state != WorkerState::Revoked)
        .collect();
    let of_budget = is_of_budget(state, spec);
    let fits = |change: &dyn Fn(&mut JobSpec)| {
        let mut other = spec.clone();
        change(&mut other);
        if !other.can_train() {
            return false;
        }
        let job = waiting(&other, now_ms);
        let mut able = BTreeMap::new();
        let models = workers.iter().filter_map(|worker| {
            let models = fitting(&job, worker, now_ms).ok()?;
            Some(paid(worker, models, of_budget))
        });
        models
            .into_iter()
            .any(|models| is_enough(&mut able, &models, &other))
    };
    let models: BTreeSet<GpuModel> = workers
        .iter()
        .flat_map(|worker| worker.inventory.gpus.iter().copied())
        .collect();
    let others = models.iter().filter(|_| !spec.allow.is_empty());
    let allow = others.filter(|model| fits(&|other| other.allow.push(**model)));
    let mut found: Vec<String> = allow
        .map(|model| format!("allow {model}"))
        .take(MODELS_NAMED)
        .collect();
    let fewer = Hardware::COUNTS.into_iter().rev();
    let mut fewer = fewer.filter(|count| *count < spec.gpu_count);
    if let Some(count) = fewer.find(|count| fits(&|other| other.gpu_count = *count)) {
        let gpus = if count == 1 { "GPU" } else { "GPUs" };
        found.push(format!("ask for {count} {gpus}"));
    }
    if let Some(hosts) = (1..spec.hosts())
        .rev()
        .find(|hosts| fits(&|other| other.terms.more_hosts = hosts - 1))
    {
        found.push(format!(
            "ask for {hosts} {}",
            if hosts == 1 { "host" } else { "hosts" }
        ));
    }
    let memory: BTreeSet<u16> = models.iter().map(|model| model.memory_gib()).collect();
    let mut less = memory
        .into_iter()
        .rev()
        .filter(|gib| *gib < spec.min_memory_gib);
    if let Some(gib) = less.find(|gib| fits(&|other| other.min_memory_gib = *gib)) {
        found.push(format!("ask for {gib} GiB of GPU memory"));
    }
    if !spec.labels.is_empty() && fits(&|other| other.labels.clear()) {
        found.push("ask for no labels".to_owned());
    }
    if !spec.terms.avoid.is_empty() && fits(&|other| other.terms.avoid.clear()) {
        found.push("avoid no label".to_owned());
    }
    let prices: BTreeSet<UsdMicros> = workers
        .iter()
        .flat_map(|worker| {
            let models = worker.models().into_iter();
            models.filter_map(|gpu| worker.price_per_hour(gpu, spec.gpus().into()))
        })
        .collect();
    let mut dearer = prices
        .iter()
        .copied()
        .filter(|price| spec.max_price_per_hour.is_some_and(|max| *price > max));
    if let Some(price) = dearer.find(|price| fits(&|other| other.max_price_per_hour = Some(*price)))
    {
        found.push(format!("allow {} an hour", whole_cents(price)));
    }
    if spec.max_cost.is_some() && fits(&|other| other.max_cost = None) {
        let mut enough = prices.into_iter().map(least_cost);
        let enough = enough.find(|cost| fits(&|other| other.max_cost = Some(*cost)));
        found.push(enough.map_or_else(
            || "set no limit on the cost".to_owned(),
            |cost| format!("set a limit of at least {cost} on the cost, or none"),
        ));
    }
    let replayed = |other: &mut JobSpec| {
        other.trainer = TrainerKind::Replay;
        other.allow.clear();
    };
    let trains = |worker: &&Worker| worker.inventory.trainers.contains(&spec.trainer);
    if spec.trainer != TrainerKind::Replay && !workers.iter().any(trains) && fits(&replayed) {
        found.push("submit it with `--trainer replay`, which plays a made-up run".to_owned());
    }
    let limited = spec.max_price_per_hour.is_some() || spec.max_cost.is_some();
    let unlimited = |other: &mut JobSpec| (other.max_price_per_hour, other.max_cost) = (None, None);
    if found.is_empty() && limited && fits(&unlimited) {
        found.push("set no limit on price and cost".to_owned());
    }
    if limited || of_budget {
        let mut other = spec.clone();
        unlimited(&mut other);
        let job = waiting(&other, now_ms);
        let is_unpriced = |worker: &&Worker| {
            let models = fitting(&job, worker, now_ms).unwrap_or_default();
            let mut prices = models.iter().map(|gpu| worker.price_per_gpu_hour(*gpu));
            prices.any(|price| price.is_none())
        };
        if workers.iter().any(is_unpriced) {
            found.push(
                "have its workers' GPUs given a price (`stepcast worker --price`, or `stepcast prices import`)"
                    .to_owned(),
            );
        }
    }
    found
}

/// Whether a team pays for the job from a budget: nothing without a price can be paid from one.
fn is_of_budget(state: &State, spec: &JobSpec) -> bool {
    let mut teams = state.team_chain(spec.terms.team);
    teams.any(|team| team.rules.budget.is_some())
}

/// Those of some models of a worker that a budget can pay for, if the job is paid for from one.
fn paid(worker: &Worker, mut models: Vec<GpuModel>, of_budget: bool) -> Vec<GpuModel> {
    models.retain(|gpu| !of_budget || worker.price_per_gpu_hour(*gpu).is_some());
    models
}

/// The amount in whole cents, and no less: as it is shown it is enough.
fn whole_cents(UsdMicros(micros): UsdMicros) -> UsdMicros {
    let cents = micros.div_ceil(MICROS_PER_CENT);
    UsdMicros(cents.saturating_mul(MICROS_PER_CENT))
}

/// The least limit on the cost, in whole cents, with which a job begins at a price for all its GPUs.
fn least_cost(price_per_hour: UsdMicros) -> UsdMicros {
    // It must last a moment longer than what is kept for saving a checkpoint.
    let UsdMicros(cost) = units::cost(BUDGET_MARGIN_MS + 1_000, price_per_hour);
    UsdMicros((cost / MICROS_PER_CENT + 1).saturating_mul(MICROS_PER_CENT))
}

/// GPU models that are named of those that would do.
const MODELS_NAMED: usize = 3;

/// Takes in on which models one more worker could hold a job, or a part of it; whether there are enough of one by now.
fn is_enough(able: &mut BTreeMap<GpuModel, u8>, models: &[GpuModel], spec: &JobSpec) -> bool {
    models.iter().any(|model| {
        let workers = able.entry(*model).or_default();
        *workers = workers.saturating_add(1);
        *workers >= spec.hosts()
    })
}

/// The models on which a worker could hold a job, or a part of it.
///
/// # Errors
/// The reason of the model that comes nearest, if there is none.
fn fitting(job: &Job, worker: &Worker, now_ms: u64) -> Result<Vec<GpuModel>, Reason> {
    // Most of a fleet has other labels than a job that asks for some, and its GPUs need not be looked at.
    feasible::admits_worker(job, worker)?;
    let mut nearest = None;
    let mut models = Vec::new();
    for (model, positions) in by_model(&worker.inventory) {
        let first = positions
            .iter()
            .take(job.spec.gpu_count.into())
            .copied()
            .collect::<Vec<_>>();
        match feasible::admits_part(job, worker, &first, now_ms) {
            Ok(model) => models.push(model),
            // Of a model that the job does not allow, no number would be enough.
            Err(Reason::TooFewGpus) if !is_named(&job.spec, model) => {}
            Err(reason) => nearest = nearest.max(Some(reason)),
        }
    }
    if models.is_empty() {
        // Nothing is against it but that the job allows none of its models.
        return Err(nearest.unwrap_or(Reason::OtherGpu));
    }
    Ok(models)
}

fn is_named(spec: &JobSpec, model: GpuModel) -> bool {
    spec.allow.is_empty() || spec.allow.contains(&model)
}

fn by_model(inventory: &Inventory) -> BTreeMap<GpuModel, Vec<u8>> {
    let mut models: BTreeMap<GpuModel, Vec<u8>> = BTreeMap::new();
    for (position, model) in (0..).zip(&inventory.gpus) {
        models.entry(*model).or_default().push(position);
    }
    models
}

/// A job as it would wait in the queue.
fn waiting(spec: &JobSpec, now_ms: u64) -> Job {
    Job {
        id: JobId(0),
        spec: spec.clone(),
        state: JobState::Pending,
        submitted_ms: now_ms,
        queued_ms: now_ms,
        not_before_ms: now_ms,
        ended_ms: None,
        retries: 0,
        lost_retries: 0,
        attempts: Vec::new(),
        events: VecDeque::new(),
        standing: Standing::default(),
    }
}
