//! Whether any worker could ever hold a job, by the rules that place it.

mod offers;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use stepcast_records::{GpuModel, Hardware, UsdMicros, units};
use stepcast_scheduler::State;
use stepcast_scheduler::ids::{JobId, WorkerId};
use stepcast_scheduler::model::limits::BUDGET_MARGIN_MS;
use stepcast_scheduler::model::{
    Inventory, Job, JobSpec, JobState, Standing, TrainerKind, Worker, WorkerState,
};
use stepcast_scheduler::placement::{Reason, feasible};

pub(crate) use offers::{Offered, Offers};

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

/// The workers of one moment, to find out on them what a job could ask for instead: that takes long where there are many, and
/// neither the log nor anybody else waits for it.
#[derive(Debug)]
pub(crate) struct Fleet {
    workers: Arc<BTreeMap<WorkerId, Worker>>,
    of_budget: bool,
    now_ms: u64,
    #[cfg(test)]
    passes: std::cell::Cell<usize>,
}

impl Fleet {
    /// Those of a state, for a job that waits at `now_ms`.
    pub(crate) fn of(state: &State, spec: &JobSpec, now_ms: u64) -> Self {
        Self {
            workers: state.all_workers(),
            of_budget: is_of_budget(state, spec),
            now_ms,
            #[cfg(test)]
            passes: std::cell::Cell::new(0),
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.workers.len()
    }

    /// What would have to be asked for instead, each alone, for some worker to hold the job once its GPUs are free. The fleet
    /// is gone through once for each kind of hardware and each wish, and not for each price.
    pub(crate) fn remedies(&self, spec: &JobSpec) -> Vec<String> {
        let fits = |change: &dyn Fn(&mut JobSpec)| self.fits(spec, change);
        let models: BTreeSet<GpuModel> = self
            .workers()
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
        let uncapped = |other: &mut JobSpec| other.max_price_per_hour = None;
        let is_capped = spec.max_price_per_hour.is_some();
        let dearer = is_capped.then(|| self.least_price(spec, &uncapped));
        if let Some(price) = dearer.flatten() {
            found.push(format!("allow {} an hour", whole_cents(price)));
        }
        let unending = |other: &mut JobSpec| other.max_cost = None;
        if spec.max_cost.is_some() && fits(&unending) {
            let enough = self.least_price(spec, &unending).map(least_cost);
            found.push(enough.map_or_else(
                || "set no limit on the cost".to_owned(),
                |cost| format!("set a limit of at least {cost} on the cost, or none"),
            ));
        }
        let replayed = |other: &mut JobSpec| {
            other.trainer = TrainerKind::Replay;
            other.allow.clear();
        };
        let trains = |worker: &Worker| worker.inventory.trainers.contains(&spec.trainer);
        if spec.trainer != TrainerKind::Replay && !self.workers().any(trains) && fits(&replayed) {
            found.push("submit it with `--trainer replay`, which plays a made-up run".to_owned());
        }
        let limited = is_capped || spec.max_cost.is_some();
        let unlimited =
            |other: &mut JobSpec| (other.max_price_per_hour, other.max_cost) = (None, None);
        if found.is_empty() && limited && fits(&unlimited) {
            found.push("set no limit on price and cost".to_owned());
        }
        if limited || self.of_budget {
            let mut other = spec.clone();
            unlimited(&mut other);
            let job = waiting(&other, self.now_ms);
            let is_unpriced = |worker: &Worker| {
                let models = fitting(&job, worker, self.now_ms).unwrap_or_default();
                let mut prices = models.iter().map(|gpu| worker.price_per_gpu_hour(*gpu));
                prices.any(|price| price.is_none())
            };
            if self.workers().any(is_unpriced) {
                found.push(
                    "have its workers' GPUs given a price (`stepcast worker --price`, or `stepcast prices import`)"
                        .to_owned(),
                );
            }
        }
        found
    }

    fn workers(&self) -> impl Iterator<Item = &Worker> {
        let all = self.workers.values();
        all.filter(|worker| worker.state != WorkerState::Revoked)
    }

    /// Whether the job could be held if it asked for something else.
    fn fits(&self, spec: &JobSpec, change: &dyn Fn(&mut JobSpec)) -> bool {
        let mut other = spec.clone();
        change(&mut other);
        if !other.can_train() {
            return false;
        }
        let job = waiting(&other, self.now_ms);
        let mut able = BTreeMap::new();
        self.holding(&job)
            .any(|(_, models)| is_enough(&mut able, &models, &other))
    }

    /// The least price an hour of all GPUs that it needs, as if each of its hosts cost as much as the dearest, if it could be
    /// held so. `None` also where what could hold it has no price.
    fn least_price(&self, spec: &JobSpec, change: &dyn Fn(&mut JobSpec)) -> Option<UsdMicros> {
        let mut other = spec.clone();
        change(&mut other);
        if !other.can_train() {
            return None;
        }
        let job = waiting(&other, self.now_ms);
        let mut prices: BTreeMap<GpuModel, Vec<UsdMicros>> = BTreeMap::new();
        for (worker, models) in self.holding(&job) {
            for model in models {
                let price = worker.price_per_hour(model, other.gpus().into());
                prices.entry(model).or_default().extend(price);
            }
        }
        let dearest = usize::from(other.hosts()) - 1;
        let of_each = prices.into_values().filter_map(|mut prices| {
            prices.sort_unstable();
            prices.get(dearest).copied()
        });
        of_each.min()
    }

    /// The workers that could hold a job, or a part of it, and on which models.
    fn holding<'a>(
        &'a self,
        job: &'a Job,
    ) -> impl Iterator<Item = (&'a Worker, Vec<GpuModel>)> + 'a {
        #[cfg(test)]
        self.passes.set(self.passes.get() + 1);
        self.workers().filter_map(|worker| {
            let models = fitting(job, worker, self.now_ms).ok()?;
            Some((worker, paid(worker, models, self.of_budget)))
        })
    }
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

#[cfg(test)]
pub(crate) mod tests {
    use stepcast_records::simpletuner::{Dataset, Length, Preparation, Sharing, Workload};
    use stepcast_records::{FrameClass, HalfMegapixels, Precision, Quantization, Recipe};
    use stepcast_scheduler::Envelope;
    use stepcast_scheduler::ids::StagingId;
    use stepcast_scheduler::model::Label;
    use stepcast_scheduler::what_if::joins;

    use super::*;

    /// A job with one data set and no wishes.
    pub(crate) fn spec() -> JobSpec {
        let workload = Workload {
            recipe: Recipe::parse("flux.dev/lora+ckpt").expect("a recipe"),
            precision: Precision::Bf16,
            quantization: Quantization::Int8,
            accumulation: 1,
            context_parallel: 1,
            datasets: vec![Dataset {
                resolution: HalfMegapixels::new(2).expect("a resolution"),
                frames: FrameClass::Single,
                batch_size: 4,
                samples: Some(120),
                repeats: 0,
                padded: false,
            }],
            length: Length::Steps(3_000),
            checkpoint_every: None,
            validation: None,
            off_record: Vec::new(),
            preparation: Preparation::default(),
            sharing: Sharing::default(),
        };
        JobSpec::new(workload, StagingId([0; 16]))
    }

    /// A state with workers of one GPU each, by what trains there, at a price in micro-dollars, in a zone if it is named.
    pub(crate) fn fleet(workers: &[(&str, TrainerKind, Option<u64>, &str)]) -> State {
        let label = |text: &str| Label::try_from(text.to_owned()).expect("a label");
        let mut state = State::default();
        let mut index = 0;
        for (gpu, trainer, price, zone) in workers {
            let zones = [*zone].into_iter().filter(|zone| !zone.is_empty());
            let inventory = Inventory {
                gpus: vec![gpu.parse().expect("a model")],
                trainers: [*trainer].into(),
                labels: zones.map(|zone| (label("zone"), label(zone))).collect(),
                price_per_gpu_hour: price.map(UsdMicros),
                address: None,
                outputs: None,
            };
            for command in joins(&state, &inventory, 1) {
                index += 1;
                let applied = state.apply(index, &Envelope::new(1, None, command));
                assert!(applied.reply.is_ok(), "{:?}", applied.reply);
            }
        }
        state
    }

    #[test]
    fn prices_are_not_tried_one_by_one() {
        let hosts = 300;
        let workers: Vec<_> = (1..=hosts)
            .map(|cents| {
                (
                    "h100",
                    TrainerKind::SimpleTuner,
                    Some(cents * 10_000 + 1),
                    "eu",
                )
            })
            .chain([("l4", TrainerKind::SimpleTuner, None, "eu")])
            .collect();
        let state = fleet(&workers);
        let asked = |change: &dyn Fn(&mut JobSpec)| {
            let mut spec = spec();
            change(&mut spec);
            assert!(misfits(&state, &spec, 1).is_some());
            let fleet = Fleet::of(&state, &spec, 1);
            let remedies = fleet.remedies(&spec).join("; ");
            assert!(fleet.passes.get() < 10, "{} {remedies}", fleet.passes.get());
            remedies
        };
        let priced = "have its workers' GPUs given a price";
        let cap = |spec: &mut JobSpec| spec.max_price_per_hour = Some(UsdMicros(5_000));
        let said = asked(&cap);
        assert!(said.starts_with("allow $0.02 an hour; have"), "{said}");
        let said = asked(&|spec| spec.max_cost = Some(UsdMicros(1)));
        assert!(
            said.starts_with("set a limit of at least $0.01 on the cost, or none; have"),
            "{said}"
        );
        // What no price would change.
        let elsewhere = |spec: &mut JobSpec| {
            let label = |text: &str| Label::try_from(text.to_owned()).expect("a label");
            spec.labels = BTreeMap::from([(label("zone"), label("us"))]);
        };
        let said = asked(&|spec| {
            cap(spec);
            elsewhere(spec);
        });
        assert_eq!(said, "");
        assert_eq!(asked(&elsewhere), "ask for no labels");
        assert!(
            !asked(&|spec| spec.allow = vec!["h200".parse().expect("a model")]).contains(priced)
        );
    }
}
