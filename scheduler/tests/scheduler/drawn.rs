//! What random histories ask for: wishes of jobs, offers of workers, rules of teams.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use stepcast_records::{GpuModel, UsdMicros};
use stepcast_scheduler::ids::{OutputsId, StagingId};
use stepcast_scheduler::model::{
    Budget, FailureReason, Inventory, JobSpec, Label, Objective, Outcome, Period, Prices, TeamName,
    TeamRules, TrainerKind,
};

use crate::support::workload;

/// What a worker offers.
#[derive(Debug, Clone)]
pub(crate) struct Offer {
    pub(crate) gpus: Vec<&'static str>,
    pub(crate) replay: bool,
    pub(crate) price: Option<u64>,
    pub(crate) label: bool,
    /// Others reach it, so that it takes part in gangs.
    pub(crate) reached: bool,
}

/// What a job asks for.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    pub(crate) gpu_count: u8,
    pub(crate) allow: Vec<&'static str>,
    pub(crate) memory: u16,
    pub(crate) label: bool,
    pub(crate) objective: Objective,
    pub(crate) price: Option<u64>,
    pub(crate) cost: Option<u64>,
    pub(crate) runtime_ms: Option<u64>,
    pub(crate) priority: i8,
    pub(crate) replay: bool,
    pub(crate) terms: Option<TermsWish>,
}

/// What it asks for from format 3 on.
#[derive(Debug, Clone)]
pub(crate) struct TermsWish {
    pub(crate) team: u8,
    pub(crate) wait_ms: Option<u64>,
    pub(crate) finish_ms: Option<u64>,
    pub(crate) avoid: bool,
    pub(crate) spread: Option<u8>,
    pub(crate) min_run_ms: Option<u64>,
    pub(crate) preemptions_max: Option<u8>,
    pub(crate) expected: Option<u64>,
    pub(crate) more_hosts: u8,
}

/// Drawn or made for a history.
pub(crate) fn offer() -> impl Strategy<Value = Offer> {
    let hosts: [&[&str]; 6] = [
        &["h100", "h100"],
        &["rtx4090"; 4],
        &["a100-80", "a100-80", "rtx4090"],
        &["rtx4090"; 8],
        &["cpu"],
        &["replay", "replay"],
    ];
    // Nothing and next to nothing are prices too, and so is more than anybody has.
    let price = prop_oneof![
        12 => prop::option::of(100_000..3_000_000_u64),
        2 => prop::sample::select(vec![0, 1, u64::MAX / 3]).prop_map(Some),
    ];
    let hosts = prop::sample::select(hosts.to_vec());
    let reached = prop::bool::weighted(0.8);
    (hosts, price, any::<bool>(), reached).prop_map(|(gpus, price, label, reached)| Offer {
        gpus: gpus.to_vec(),
        replay: gpus.contains(&"replay"),
        price,
        label,
        reached,
    })
}

/// What the operator's book says of some models.
pub(crate) fn book() -> impl Strategy<Value = Prices> {
    let price = || prop::option::of(prop_oneof![6 => 100_000..3_000_000_u64, 1 => Just(0)]);
    (price(), price(), price()).prop_map(|(h100, a100, rtx4090)| {
        let all = [("h100", h100), ("a100-80", a100), ("rtx4090", rtx4090)];
        let said = all.into_iter().filter_map(|(gpu, price)| {
            let gpu: GpuModel = gpu.parse().expect("a GPU");
            Some((gpu, UsdMicros(price?)))
        });
        said.collect()
    })
}

/// Drawn or made for a history.
pub(crate) fn wish() -> impl Strategy<Value = Wish> {
    let objectives = [Objective::Cheapest, Objective::Fastest, Objective::Balanced];
    let allow: [&[&str]; 5] = [&[], &[], &["h100"], &["a100-80", "rtx4090"], &["cpu"]];
    let hardware = (
        prop::sample::select(vec![1, 1, 1, 2, 2, 4, 8, 3]),
        prop::sample::select(allow.to_vec()),
        prop::sample::select(vec![0, 0, 24, 80]),
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.1),
    );
    let limits = (
        prop::option::weighted(0.2, 0..6_000_000_u64),
        prop::option::weighted(0.2, 10_000..6_000_000_u64),
        prop::option::weighted(0.2, 1..8_000_000_u64),
    );
    (
        hardware,
        limits,
        prop::sample::select(objectives.to_vec()),
        -11..=11_i8,
        prop::option::of(terms()),
    )
        .prop_map(
            |(
                (gpu_count, allow, memory, label, replay),
                (price, cost, runtime_ms),
                objective,
                priority,
                terms,
            )| Wish {
                gpu_count,
                allow: if replay { Vec::new() } else { allow.to_vec() },
                memory,
                label,
                objective,
                price,
                cost,
                runtime_ms,
                priority,
                replay,
                terms,
            },
        )
}

/// Names of teams: whole ones, and parts of them.
pub(crate) const TEAMS: [&str; 5] = ["default", "acme", "acme/vision", "acme/speech", "beta"];

/// Drawn or made for a history.
pub(crate) fn rules() -> impl Strategy<Value = TeamRules> {
    let period = prop::sample::select(vec![Period::Once, Period::Day, Period::Month]);
    let budget = (100_000..20_000_000_u64, period).prop_map(|(amount, period)| Budget {
        amount: UsdMicros(amount),
        period,
    });
    (
        0..5_u32,
        prop::option::weighted(0.4, 0..9_u32),
        prop::option::weighted(0.5, budget),
        prop::option::weighted(0.3, (0..4_000_000_u64).prop_map(UsdMicros)),
        -10..=10_i8,
    )
        .prop_map(
            |(weight, gpu_quota, budget, approve_above, priority_max)| TeamRules {
                weight,
                gpu_quota,
                budget,
                approve_above,
                priority_max: priority_max.max(3),
            },
        )
}

fn terms() -> impl Strategy<Value = TermsWish> {
    (
        0..TEAMS.len() as u8,
        prop::option::weighted(0.1, 0..4_000_000_u64),
        prop::option::weighted(0.2, 0..40_000_000_u64),
        prop::bool::weighted(0.2),
        prop::option::weighted(0.3, 0..2_u8),
        prop::option::weighted(0.3, 0..2_000_000_u64),
        prop::option::weighted(0.3, 0..3_u8),
        prop::option::weighted(0.3, 0..5_000_000_u64),
        prop::sample::select(vec![0, 0, 0, 1, 1, 2, 16]),
    )
        .prop_map(
            |(
                team,
                wait_ms,
                finish_ms,
                avoid,
                spread,
                min_run_ms,
                preemptions_max,
                expected,
                more_hosts,
            )| {
                TermsWish {
                    team,
                    wait_ms,
                    finish_ms,
                    avoid,
                    spread,
                    min_run_ms,
                    preemptions_max,
                    expected,
                    more_hosts,
                }
            },
        )
}

/// Drawn or made for a history.
pub(crate) fn spec(wish: &Wish, number: u64) -> JobSpec {
    let mut spec = JobSpec::new(workload(), staging(number));
    spec.gpu_count = wish.gpu_count;
    spec.allow = wish.allow.iter().map(|gpu| model(gpu)).collect();
    spec.min_memory_gib = wish.memory;
    spec.labels = labels(wish.label);
    spec.objective = wish.objective;
    spec.max_price_per_hour = wish.price.map(UsdMicros);
    spec.max_cost = wish.cost.map(UsdMicros);
    spec.max_runtime_ms = wish.runtime_ms;
    spec.priority = wish.priority;
    spec.trainer = if wish.replay {
        TrainerKind::Replay
    } else {
        TrainerKind::SimpleTuner
    };
    spec
}

/// Drawn or made for a history.
pub(crate) fn staging(number: u64) -> StagingId {
    let mut staging = [0; 16];
    staging[..8].copy_from_slice(&number.to_le_bytes());
    StagingId(staging)
}

/// Drawn or made for a history.
pub(crate) fn team_name(number: u8) -> TeamName {
    TEAMS[usize::from(number)].parse().expect("a team's name")
}

/// Drawn or made for a history, in a log of this format.
pub(crate) fn inventory(offer: &Offer, format: u16) -> Inventory {
    let trainer = if offer.replay {
        TrainerKind::Replay
    } else {
        TrainerKind::SimpleTuner
    };
    Inventory {
        gpus: offer.gpus.iter().map(|gpu| model(gpu)).collect(),
        trainers: [trainer].into(),
        labels: labels(offer.label),
        price_per_gpu_hour: offer.price.map(UsdMicros),
        address: (offer.reached && format >= 3).then(|| label(0)),
        // Some share theirs, and some say nothing.
        outputs: offer
            .price
            .filter(|_| format >= 3)
            .map(|price| OutputsId([(price % 2) as u8; 16])),
    }
}

/// Drawn or made for a history.
pub(crate) fn labels(carried: bool) -> BTreeMap<Label, Label> {
    let zone = || {
        (
            "zone".parse().expect("a label"),
            "eu".parse().expect("a label"),
        )
    };
    carried.then(zone).into_iter().collect()
}

fn model(name: &str) -> GpuModel {
    name.parse().expect("a GPU model")
}

/// Drawn or made for a history.
pub(crate) fn label(number: u8) -> Label {
    format!("host-{number}").parse().expect("a label")
}

/// Positions of GPUs, such as a planner of another version might propose.
pub(crate) fn gpus() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => Just(vec![0]),
        2 => Just(vec![0, 1]),
        1 => vec(0..9_u8, 0..4),
    ]
}

/// How an attempt ends.
pub(crate) fn outcome() -> impl Strategy<Value = Outcome> {
    prop::sample::select(vec![
        Outcome::Succeeded,
        Outcome::Cancelled,
        Outcome::Failed(FailureReason::TrainerError),
        Outcome::Failed(FailureReason::LaunchFailed),
        Outcome::Failed(FailureReason::OutOfMemory),
        Outcome::Failed(FailureReason::WorkerRestarted),
        Outcome::Failed(FailureReason::Preempted),
        Outcome::Failed(FailureReason::LeaseLost),
        Outcome::Failed(FailureReason::CredentialsGone),
    ])
}
