//! What a run will take and cost, before it is submitted.

use std::cmp::Reverse;
use std::sync::Arc;

use stepcast_estimator::estimate::HARDWARE_MAX;
use stepcast_estimator::{Ask, Day, Offer};
use stepcast_proto::v1;
use stepcast_records::simpletuner::{Missing, Plan, Workload};
use stepcast_records::{Estimate, GpuModel, Hardware, UsdMicros};
use stepcast_scheduler::State;
use stepcast_scheduler::ids::UserId;
use stepcast_scheduler::model::{JobSpec, Objective, TrainerKind};
use tonic::Status;

use crate::access::Caller;
use crate::context::Context;
use crate::fit::Offered;
use crate::turns::{Turn, Turns};
use crate::{convert, reading, status};

/// The service.
#[derive(Clone)]
pub(crate) struct Estimates(pub(crate) Context);

impl Estimates {
    /// What a run will take and cost. Nothing is kept of it. One of many data sets on many hardwares keeps a processor for
    /// some tenths of a second, so it has a thread and a turn.
    pub(crate) async fn estimate(
        &self,
        caller: &Caller,
        request: v1::EstimateJobRequest,
    ) -> Result<v1::EstimateJobResponse, Status> {
        let turn = self.0.estimating.enter(caller.user).await?;
        let estimates = self.clone();
        let estimated = turn.aside(move || estimates.reckon(request));
        estimated.await.map_err(|_stopped| unfinished())?
    }

    fn reckon(&self, request: v1::EstimateJobRequest) -> Result<v1::EstimateJobResponse, Status> {
        let hardware = convert::hardware_list("hardware", &request.hardware, HARDWARE_MAX)?;
        let (_, reading, _) = reading::read(request.files, request.sample_counts)?;
        let missing = |error: Missing| missing(&error, &reading.dataset_ids);
        let plan = smallest_plan(&reading.workload, &hardware).map_err(missing)?;
        let day = Day::today();
        let mut estimates =
            ask(&self.0, &reading.workload, &hardware, &offers(&self.0), day).map_err(missing)?;
        estimates.sort_by_key(|estimate| rank(estimate, Objective::Cheapest));
        Ok(v1::EstimateJobResponse {
            title: reading.title.clone(),
            workload: Some(convert::workload(&reading.workload)),
            steps_total: plan.steps_total,
            validation_passes: plan.validation_passes,
            validation_prompts: plan.validation.iter().map(|(_, images)| images.all).sum(),
            notes: reading
                .notes
                .iter()
                .map(convert::note)
                .chain(convert::read_as(&request.hardware))
                .chain(left_out(&reading.workload, &hardware))
                .collect(),
            estimates: convert::estimates(&estimates),
            prices_date: day.to_string(),
        })
    }
}

/// Which of the hardware that was asked for has no estimate, since the run or its data cannot be divided among its GPUs.
fn left_out(workload: &Workload, hardware: &[Hardware]) -> Option<v1::Note> {
    let mut first = None;
    let cannot = hardware.iter().filter(|hardware| {
        let missing = workload.plan(hardware.count).err();
        first = first.or(missing);
        missing.is_some()
    });
    let names: Vec<String> = cannot.map(Hardware::to_string).collect();
    first.map(|why| v1::Note {
        code: "HARDWARE_LEFT_OUT".to_owned(),
        text: format!("{} left out: {why}", names.join(", ")),
    })
}

/// The run on as few GPUs as it can have on what was asked for; where nothing was, that is one, unless a sample is shared
/// among several.
fn smallest_plan(workload: &Workload, hardware: &[Hardware]) -> Result<Plan, Missing> {
    let is_asked_for = |count: &u8| hardware.iter().any(|hardware| hardware.count == *count);
    let counts = Hardware::COUNTS.into_iter();
    let mut counts = counts.filter(|count| hardware.is_empty() || is_asked_for(count));
    let first = counts.next().unwrap_or(1);
    let fewest = workload.plan(first);
    let can = |plan: &Result<Plan, Missing>| !matches!(plan, Err(Missing::Gpus { .. }));
    let mut more = counts.map(|count| workload.plan(count));
    if can(&fewest) {
        return fewest;
    }
    more.find(can).unwrap_or(fewest)
}

/// Data sets times hardware of an estimate that is made at once, in some milliseconds at most: as many as a job of one or two
/// data sets can have, so that submissions wait for nobody. What is larger has a thread and a turn.
const SMALL: usize = 2 * HARDWARE_MAX;

/// What a job is expected to take and to cost.
#[derive(Debug, Default)]
pub(super) struct Expected {
    /// On the hardware that it may run on, best first by what it chooses hardware by.
    pub(super) estimates: Vec<v1::Estimate>,
    /// What nine in ten such runs cost at most on the first of it whose price somebody has said. The list that comes with this
    /// version charges nobody, and what must be approved starts on nothing that has no price.
    pub(super) cost: Option<UsdMicros>,
}

/// Where a job may run, and what is offered there.
#[derive(Debug)]
struct Choice {
    hardware: Vec<Hardware>,
    offered: Arc<[Offer]>,
}

/// What a job would take on the hardware that it may run on. Nothing for a job on several hosts: see [`hosts_note`]. It is for
/// who has a thread and a turn already; for others there are [`expected`] and [`aside`].
pub(super) fn for_job(context: &Context, spec: &JobSpec) -> Expected {
    Choice::of(context, spec).expected(context, spec)
}

/// The same for somebody who calls.
///
/// # Errors
/// It is a large estimate, and too many others are made, or another one of theirs.
pub(super) async fn expected(
    context: &Context,
    who: Option<UserId>,
    spec: &JobSpec,
) -> Result<Expected, Status> {
    let choice = Choice::of(context, spec);
    let size = choice.hardware.len() * spec.workload.datasets.len();
    let Some(turn) = turn(&context.estimating, who, size).await? else {
        return Ok(choice.expected(context, spec));
    };
    let (context, spec) = (context.clone(), spec.clone());
    let expected = turn.aside(move || choice.expected(&context, &spec));
    expected.await.map_err(|_stopped| unfinished())
}

/// Does for somebody who calls what may estimate this work several times, for other wishes each time.
///
/// # Errors
/// What is done says; or those of [`expected`].
pub(super) async fn aside<T: Send + 'static>(
    context: &Context,
    who: Option<UserId>,
    workload: &Workload,
    work: impl FnOnce() -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    let size = HARDWARE_MAX * workload.datasets.len();
    match turn(&context.estimating, who, size).await? {
        None => work(),
        Some(turn) => turn.aside(work).await.map_err(|_stopped| unfinished())?,
    }
}

/// A turn at an estimate of this size, if it needs one.
async fn turn(turns: &Turns, who: Option<UserId>, size: usize) -> Result<Option<Turn>, Status> {
    match size > SMALL {
        true => turns.enter(who).await.map(Some),
        false => Ok(None),
    }
}

fn unfinished() -> Status {
    status::internal("ESTIMATE_FAILED", "the estimate was not finished")
}

impl Choice {
    fn of(context: &Context, spec: &JobSpec) -> Self {
        let read = |state: &State| context.offers.to(state, spec);
        let Offered { all, to_it } = context.handle.read_stale(read);
        let has = |offers: &[Offer], gpu: GpuModel| {
            let wanted =
                |hardware: Hardware| hardware.gpu == gpu && hardware.count == spec.gpu_count;
            offers.iter().any(|offer| wanted(offer.hardware))
        };
        let models: Vec<GpuModel> = match (spec.allow.is_empty(), spec.trainer) {
            _ if spec.hosts() > 1 => Vec::new(),
            (false, _) => {
                // What nobody has may come yet; what is there and not for this job stays so.
                let named = spec.allow.iter().copied();
                let named = named.filter(|gpu| has(&to_it, *gpu) || !has(&all, *gpu));
                named.collect()
            }
            (true, TrainerKind::Replay) => vec![GpuModel::REPLAY],
            (true, TrainerKind::SimpleTuner) => {
                let fitting = to_it
                    .iter()
                    .filter(|offer| offer.hardware.count == spec.gpu_count);
                let mut models: Vec<GpuModel> = fitting
                    .map(|offer| offer.hardware.gpu)
                    .filter(|gpu| gpu.is_gpu())
                    .collect();
                models.dedup();
                models
            }
        };
        let has_memory = |gpu: &GpuModel| !gpu.is_gpu() || gpu.memory_gib() >= spec.min_memory_gib;
        let hardware = models
            .into_iter()
            .filter(has_memory)
            .filter_map(|gpu| Hardware::new(gpu, spec.gpu_count))
            .take(HARDWARE_MAX);
        Self {
            hardware: hardware.collect(),
            offered: to_it,
        }
    }

    fn expected(&self, context: &Context, spec: &JobSpec) -> Expected {
        if self.hardware.is_empty() {
            return Expected::default();
        }
        let day = Day::today();
        // Without the number of samples there is no number of steps, and so no estimate; the notes say what was assumed.
        let estimates = ask(context, &spec.workload, &self.hardware, &self.offered, day);
        let mut estimates = estimates.unwrap_or_default();
        estimates.sort_by_key(|estimate| rank(estimate, spec.objective));
        let book = context.estimator.prices();
        let is_said = |estimate: &&Estimate| {
            let on = |offer: &Offer| offer.hardware == estimate.hardware;
            let mut own = self.offered.iter().filter(|offer| on(offer));
            own.any(|offer| offer.price_per_hour.is_some())
                || book.said(estimate.hardware.gpu, day).is_some()
        };
        let mut said = estimates.iter().filter(is_said);
        let cost = said.find_map(Estimate::whole_cost);
        Expected {
            cost: cost.map(|cost| cost.p90),
            estimates: convert::estimates(&estimates),
        }
    }
}

/// That there is no estimate of a job on several hosts. The records have no place for a number of hosts, and what one host
/// takes says little of several: that depends on the network between them.
pub(super) fn hosts_note(spec: &JobSpec) -> Option<v1::Note> {
    (spec.hosts() > 1).then(|| v1::Note {
        code: "SEVERAL_HOSTS".to_owned(),
        text: format!(
            "no estimate: nothing is recorded of runs on {} hosts, and one host's times do not tell",
            spec.hosts()
        ),
    })
}

/// A fact without which a run cannot be counted, with the person's own name for the data set.
pub(super) fn missing(error: &Missing, dataset_ids: &[String]) -> Status {
    let position = match error {
        Missing::Samples { dataset } | Missing::TooFewSamples { dataset, .. } => *dataset,
        Missing::TooManySteps { .. } | Missing::Gpus { .. } | Missing::Datasets => {
            return status::missing(error, None);
        }
    };
    status::missing(
        error,
        position
            .checked_sub(1)
            .and_then(|index| dataset_ids.get(index))
            .map(String::as_str),
    )
}

fn offers(context: &Context) -> Arc<[Offer]> {
    context.handle.read_stale(|state| context.offers.of(state))
}

fn ask(
    context: &Context,
    workload: &Workload,
    hardware: &[Hardware],
    offers: &[Offer],
    day: Day,
) -> Result<Vec<Estimate>, Missing> {
    context.estimator.estimate(&Ask {
        workload,
        hardware,
        offers,
        day,
    })
}

/// What is better comes first, loading, caching and saving included; what has no number comes last, and what has no price
/// where it is chosen by that.
fn rank(estimate: &Estimate, objective: Objective) -> (Reverse<bool>, bool, Reverse<bool>, u128) {
    let run_ms = estimate.whole_ms().map(|whole| u128::from(whole.p50));
    let cost = estimate.whole_cost().map(|cost| u128::from(cost.p50.0));
    let measure = match (objective, cost, run_ms) {
        (Objective::Fastest, _, run) => run,
        (Objective::Cheapest, Some(cost), _) => Some(cost),
        (Objective::Balanced, Some(cost), Some(run)) => Some(cost * run),
        (Objective::Cheapest | Objective::Balanced, _, run) => run,
    };
    (
        Reverse(run_ms.is_some()),
        estimate.will_not_fit(),
        Reverse(cost.is_some() || objective == Objective::Fastest),
        measure.unwrap_or(u128::MAX),
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use stepcast_records::Quantiles;

    use super::*;
    use crate::turns::Bounds;

    #[test]
    fn what_is_chosen_by_time_alone_needs_no_price() {
        let on = |hardware: &str, hours: u64| {
            let hardware = hardware.parse().expect("hardware");
            let run_ms = Some(Quantiles::constant(hours * 3_600_000));
            Estimate {
                run_ms,
                ..Estimate::unknown(hardware)
            }
        };
        let (unpriced, priced) = (on("h100", 1), on("l4", 2).priced(UsdMicros(500_000)));
        let unknown = Estimate::unknown(priced.hardware).priced(UsdMicros(1));
        for (objective, first) in [
            (Objective::Fastest, &unpriced),
            (Objective::Balanced, &priced),
            (Objective::Cheapest, &priced),
        ] {
            let all = [&unknown, &unpriced, &priced];
            let best = all.into_iter().min_by_key(|one| rank(one, objective));
            assert_eq!(best, Some(first), "{objective:?}");
        }
    }

    #[tokio::test]
    async fn only_a_large_estimate_waits_for_a_turn() {
        let turns = Turns::new(Bounds {
            at_once: 2,
            within: Duration::ZERO,
            others: "others estimate",
            own: "you estimate",
        });
        let who = Some(UserId(1));
        let held = turn(&turns, who, SMALL + 1).await.expect("a turn");
        assert!(held.is_some());
        let refused = turn(&turns, who, SMALL + 1).await.map(|_| ());
        assert_eq!(refused.expect_err("a second").message(), "you estimate");
        assert!(turn(&turns, who, SMALL).await.expect("at once").is_none());
        drop(held);
        assert!(turn(&turns, who, SMALL + 1).await.is_ok());
    }
}
