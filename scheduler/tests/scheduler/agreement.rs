//! What `why` says is what the engine does next, and nothing waits for ever.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use stepcast_records::GpuModel;
use stepcast_scheduler::ids::{InstanceId, JobId, StagingId, TokenHash};
use stepcast_scheduler::model::{
    Inventory, Job, JobSpec, JobState, Outcome, TrainerKind, Worker, WorkerState,
};
use stepcast_scheduler::placement::plan::PASSED_MAX_MS;
use stepcast_scheduler::placement::{Ledger, Reason, Tier, explain, feasible, plan};
use stepcast_scheduler::policy::{Aim, Policy, Preemption};
use stepcast_scheduler::{Command, Reply, State, codec, invariants};

use crate::history::{History, steps};
use crate::support::workload;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn why_says_what_the_plan_does(steps in steps(120)) {
        let mut history = History::of(&steps);
        let (state, now_ms) = (&history.state, history.now_ms);
        let planned = plan(state, &history.forecast, now_ms, usize::MAX).placements;
        let by_job: BTreeMap<_, _> = planned.iter().map(|placement| (placement.job, placement)).collect();
        for job in state.jobs() {
            let why = explain(state, &history.forecast, job.id, now_ms).expect("the job is there");
            prop_assert_eq!(why.tier.is_some(), job.state == JobState::Pending);
            prop_assert_eq!(why.placement.as_ref(), by_job.get(&job.id).copied());
            prop_assert_eq!(why.tier == Some(Tier::New), why.placement.is_some());
            let free = why.lines.iter().any(|line| line.reason == Reason::Free);
            prop_assert_eq!(free && why.held.is_none(), why.placement.is_some(), "{:?}", why);
            if why.tier == Some(Tier::Never) {
                prop_assert!(!could_ever_run(state, &job, now_ms), "{:?}", why);
            }
        }
        let applied = history.propose(Command::Place { placements: planned }, None);
        let Ok(Reply::Placed { outcomes }) = applied.reply else { panic!("a plan is refused") };
        prop_assert!(outcomes.iter().all(Result::is_ok), "what is planned is placed: {outcomes:?}");
    }

    /// By whatever policy: nothing of a plan is refused, and a job gets all of its GPUs at once, of one model on as many
    /// workers as it asks for, or none.
    #[test]
    fn what_is_planned_is_done_and_gangs_start_whole(
        steps in steps(120),
        aim in prop::sample::select(Aim::ALL.to_vec()),
        preemption in prop::sample::select(vec![Preemption::Never, Preemption::ForPriority, Preemption::Priced]),
    ) {
        let mut history = History::of(&steps);
        let policy = Policy { aim, preemption, min_run_ms: 0, ..Policy::default() };
        // A log of an older format keeps the policy that it has.
        history.propose(Command::SetPolicy { policy }, None);
        history.now_ms += 1;
        let planned = plan(&history.state, &history.forecast, history.now_ms, usize::MAX);
        let mut promised = BTreeSet::new();
        for placement in &planned.placements {
            let job = history.state.open_job(placement.job).expect("the job waits");
            prop_assert_eq!(placement.seats().count(), usize::from(job.spec.hosts()));
            let mut models = BTreeSet::new();
            for (worker, gpus) in placement.seats() {
                let worker = history.state.worker(worker).expect("the worker is there");
                prop_assert_eq!(gpus.len(), usize::from(job.spec.gpu_count));
                models.extend(gpus.iter().map(|gpu| worker.inventory.gpus[usize::from(*gpu)]));
                for gpu in gpus {
                    prop_assert!(history.state.user_of(worker.id, *gpu).is_none());
                    prop_assert!(promised.insert((worker.id, *gpu)), "a GPU is promised once");
                }
            }
            prop_assert_eq!(models.len(), 1);
        }
        let asked = planned.preemptions.len();
        let applied = history.propose(Command::Preempt { preemptions: planned.preemptions }, None);
        if asked > 0 {
            let Ok(Reply::Preempted { outcomes }) = applied.reply else { panic!("a plan is refused") };
            prop_assert!(outcomes.iter().all(Result::is_ok), "{:?}", outcomes);
        }
        let before = history.state.leases().count();
        let count = planned.placements.len();
        let applied = history.propose(Command::Place { placements: planned.placements }, None);
        let Ok(Reply::Placed { outcomes }) = applied.reply else { panic!("a plan is refused") };
        prop_assert!(outcomes.iter().all(Result::is_ok), "{:?}", outcomes);
        prop_assert_eq!(history.state.leases().count(), before + count);
        prop_assert_eq!(invariants::check(&history.state), []);
    }

    #[test]
    fn a_plan_does_not_depend_on_how_much_of_it_is_wanted(steps in steps(100), max in 0..4_usize) {
        let history = History::of(&steps);
        let whole = plan(&history.state, &history.forecast, history.now_ms, usize::MAX).placements;
        let part = plan(&history.state, &history.forecast, history.now_ms, max).placements;
        prop_assert_eq!(&whole[..max.min(whole.len())], &part[..]);
    }

    /// Small jobs come faster than they end, for ever; the large one has its turn nevertheless.
    #[test]
    fn a_large_job_is_not_passed_for_ever(
        run_ms in 60_000..7_200_000_u64,
        hosts in 1..4_u8,
        gpu_count in prop::sample::select(vec![2, GPUS]),
        asked in 1..4_u8,
    ) {
        let asked = asked.min(hosts);
        let mut history = History::new();
        let version = codec::VERSION;
        history.propose(Command::Barrier { version }, None);
        (0..hosts).for_each(|host| join(&mut history, host));
        let mut number = 0;
        fill(&mut history, &mut number, hosts);
        let large = submit(&mut history, &mut number, gpu_count, asked);
        // The host it waits for changes only for one with more free GPUs.
        let bound_ms = history.now_ms + PASSED_MAX_MS + u64::from(gpu_count * asked) * run_ms;
        while history.state.job(large).expect("the job").state == JobState::Pending {
            prop_assert!(history.now_ms <= bound_ms, "it is passed for ever");
            history.now_ms += run_ms / 20;
            end_those_that_are_over(&mut history, run_ms);
            fill(&mut history, &mut number, hosts);
        }
    }
}

/// Whether a job could run if everything were free: on a worker, or on as many of one model as it asks for.
fn could_ever_run(state: &State, job: &Job, now_ms: u64) -> bool {
    let hosts = usize::from(job.spec.hosts());
    let mut on_model: BTreeMap<GpuModel, usize> = BTreeMap::new();
    let staying = state
        .workers()
        .filter(|worker| worker.state != WorkerState::Revoked);
    for worker in staying.filter(|worker| hosts == 1 || worker.inventory.address.is_some()) {
        // At the price of all of them; a team with a budget pays for nothing that has no price.
        let ledger = Ledger::new(state, now_ms);
        let is_paid = |model: &GpuModel| {
            let price = worker.price_per_hour(*model, job.spec.gpus().into());
            ledger.allows(job, [worker], price, None) != Err(Reason::NoPrice)
        };
        let fitting = some_gpus(worker)
            .filter_map(|gpus| feasible::admits_part(job, worker, &gpus, now_ms).ok());
        for model in fitting.filter(is_paid).collect::<BTreeSet<_>>() {
            *on_model.entry(model).or_default() += 1;
        }
    }
    on_model.into_values().any(|workers| workers >= hosts)
}

/// GPUs of each host, and the most that the large job asks for.
const GPUS: u8 = 4;

/// More small jobs than there are GPUs, and a look at the queue.
fn fill(history: &mut History, number: &mut u64, hosts: u8) {
    for _ in 0..GPUS * hosts {
        submit(history, number, 1, 1);
    }
    let placements = plan(&history.state, &history.forecast, history.now_ms, 256).placements;
    history.propose(Command::Place { placements }, None);
}

/// The first GPUs of each model, in every number.
fn some_gpus(worker: &Worker) -> impl Iterator<Item = Vec<u8>> {
    let gpus = &worker.inventory.gpus;
    let of_model = move |model: GpuModel| {
        (0..)
            .zip(gpus)
            .filter(move |(_, gpu)| **gpu == model)
            .map(|(gpu, _)| gpu)
    };
    gpus.iter().flat_map(move |model| {
        (1..=gpus.len()).map(move |count| of_model(*model).take(count).collect())
    })
}

fn join(history: &mut History, host: u8) {
    let name = format!("host-{host}").parse().expect("a label");
    history.propose(
        Command::CreateWorkerToken {
            name,
            hash: TokenHash([host; 32]),
        },
        None,
    );
    let inventory = Inventory {
        gpus: vec!["h100".parse().expect("a GPU"); usize::from(GPUS)],
        trainers: [TrainerKind::SimpleTuner].into(),
        labels: BTreeMap::new(),
        price_per_gpu_hour: None,
        address: Some("10.0.0.1:29500".parse().expect("a label")),
        outputs: None,
    };
    let (token_hash, instance) = (TokenHash([host; 32]), InstanceId([host; 16]));
    history.propose(
        Command::RegisterWorker {
            token_hash,
            instance,
            inventory,
        },
        None,
    );
}

fn submit(history: &mut History, number: &mut u64, gpu_count: u8, hosts: u8) -> JobId {
    *number += 1;
    let mut staging = [0; 16];
    staging[..8].copy_from_slice(&number.to_le_bytes());
    let mut spec = Box::new(JobSpec {
        gpu_count,
        ..JobSpec::new(workload(), StagingId(staging))
    });
    spec.terms.more_hosts = hosts - 1;
    match history.propose(Command::SubmitJob { spec }, None).reply {
        Ok(Reply::JobSubmitted { job }) => job,
        other => panic!("{other:?}"),
    }
}

/// Runs take from half of `run_ms` to all of it, so that hardly ever two end at once.
fn end_those_that_are_over(history: &mut History, run_ms: u64) {
    let leases = history
        .state
        .leases()
        .filter_map(|lease| history.state.live_attempt(lease.epoch));
    let takes_ms = |job: JobId| run_ms / 2 + run_ms * (job.0 * 37 % 50) / 100;
    let over =
        leases.filter(|(job, attempt)| attempt.placed_ms + takes_ms(job.id) <= history.now_ms);
    let over: Vec<_> = over.map(|(job, attempt)| (job.id, attempt.epoch)).collect();
    for (job, epoch) in over {
        let (outcome, detail) = (Outcome::Succeeded, String::new());
        history.propose(
            Command::EndAttempt {
                job,
                epoch,
                outcome,
                step: 1,
                detail,
            },
            None,
        );
    }
}
