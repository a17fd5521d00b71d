//! Hosts on which nothing can be started do not eat the queue.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use stepcast_records::UsdMicros;
use stepcast_scheduler::ids::{InstanceId, JobId, StagingId, TokenHash, WorkerId};
use stepcast_scheduler::model::{
    FailureReason, Inventory, Job, JobSpec, JobState, Outcome, TrainerKind,
};
use stepcast_scheduler::placement::{Planner, Reason, explain};
use stepcast_scheduler::policy::{Aim, Policy};
use stepcast_scheduler::{Command, Reply, State, codec};

use crate::history::History;
use crate::support::workload;

/// A host: its model, its price, and whether trainers start there.
#[derive(Debug, Clone)]
struct Host {
    gpu: &'static str,
    price: u64,
    is_sound: bool,
}

fn host() -> impl Strategy<Value = Host> {
    let gpu = prop::sample::select(vec!["h100", "l40s"]);
    (gpu, 1..4_u64, any::<bool>()).prop_map(|(gpu, price, is_sound)| Host {
        gpu,
        price,
        is_sound,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However cheap and however idle they are: a job that may be tried once more than there are of them is done, and none is
    /// tried again where it failed while another host could take it. By whatever policy, and in a crowd.
    #[test]
    fn a_job_is_done_if_it_is_tried_once_more_than_hosts_are_broken(
        mut hosts in prop::collection::vec(host(), 2..6),
        sound in any::<prop::sample::Index>(),
        jobs in 1..8_u64,
        aim in prop::sample::select(Aim::ALL.to_vec()),
        is_crowd in any::<bool>(),
    ) {
        let sound = sound.index(hosts.len());
        hosts[sound].is_sound = true;
        let broken = hosts.iter().filter(|host| !host.is_sound).count();
        let (mut history, workers) = cluster(&hosts, aim);
        let jobs: Vec<JobId> = (0..jobs).map(|number| submit(&mut history, number, broken as u8)).collect();
        let one_by_one = if is_crowd { 0 } else { usize::MAX };
        let mut planner = Planner::default().with_crowds_above(one_by_one);
        for round in 0..100 {
            // Longer than anything waits for a retry.
            history.now_ms += 11 * 60_000;
            let plan = planner.plan(&history.state, &history.forecast, history.now_ms, usize::MAX);
            for placement in &plan.placements {
                let job = history.state.open_job(placement.job).expect("it waits");
                let failed = failed(job);
                let others = workers.keys().any(|worker| !failed.contains(worker));
                prop_assert!(!others || !failed.contains(&placement.worker), "{}", placement.job);
            }
            for job in history.state.pending() {
                says_where_it_failed(&history, job.id);
            }
            let placements = plan.placements;
            history.propose(Command::Place { placements }, None);
            // What is sound is busy every second time.
            end(&mut history, &workers, round % 2 == 0);
        }
        for job in jobs {
            let job = history.state.job(job).expect("it is kept");
            prop_assert_eq!(job.state, JobState::Succeeded, "{:?}", job.attempts);
        }
    }
}

/// Where a job could not be started.
fn failed(job: &Job) -> BTreeSet<WorkerId> {
    let failed = job
        .attempts
        .iter()
        .filter(|attempt| attempt.outcome() == Some(Outcome::Failed(FailureReason::LaunchFailed)));
    failed.map(|attempt| attempt.worker).collect()
}

/// Of a job that goes elsewhere each such worker is said to have failed it, and no other.
fn says_where_it_failed(history: &History, job: JobId) {
    let (state, now_ms) = (&history.state, history.now_ms);
    let why = explain(state, &history.forecast, job, now_ms).expect("it is there");
    let failed = failed(state.open_job(job).expect("it waits"));
    let said = why
        .lines
        .iter()
        .find(|line| line.reason == Reason::FailedThere);
    let are_others = state.workers().any(|worker| !failed.contains(&worker.id));
    let expected = if are_others { failed.len() } else { 0 };
    assert_eq!(said.map_or(0, |line| line.count), expected, "{why:?}");
}

/// Ends what runs: where nothing starts it has failed to, and elsewhere it is done if it may be.
fn end(history: &mut History, workers: &BTreeMap<WorkerId, bool>, is_done: bool) {
    let live = history.state.leases();
    let live: Vec<_> = live
        .map(|lease| (lease.job, lease.epoch, lease.worker))
        .collect();
    for (job, epoch, worker) in live {
        let outcome = match workers[&worker] {
            true if !is_done => continue,
            true => Outcome::Succeeded,
            false => Outcome::Failed(FailureReason::LaunchFailed),
        };
        let end = Command::EndAttempt {
            job,
            epoch,
            outcome,
            step: 0,
            detail: String::new(),
        };
        history.propose(end, None).reply.expect("it runs");
    }
}

/// Hosts with a GPU each, and whether each is sound.
fn cluster(hosts: &[Host], aim: Aim) -> (History, BTreeMap<WorkerId, bool>) {
    let mut history = History::new();
    for gpu in ["h100", "l40s"] {
        let hardware = gpu.parse().expect("a hardware");
        history.forecast.0.insert(hardware, 30);
    }
    let version = codec::VERSION;
    history.propose(Command::Barrier { version }, None);
    let policy = Policy {
        aim,
        ..Policy::default()
    };
    history.propose(Command::SetPolicy { policy }, None);
    let mut workers = BTreeMap::new();
    for (number, host) in (1..).zip(hosts) {
        let name = format!("host-{number}").parse().expect("a label");
        let hash = TokenHash([number; 32]);
        history.propose(Command::CreateWorkerToken { name, hash }, None);
        let inventory = Inventory {
            gpus: vec![host.gpu.parse().expect("a GPU")],
            trainers: [TrainerKind::SimpleTuner].into(),
            labels: BTreeMap::new(),
            price_per_gpu_hour: Some(UsdMicros(host.price * 1_000_000)),
            address: None,
            outputs: None,
        };
        let register = Command::RegisterWorker {
            token_hash: hash,
            instance: InstanceId([number; 16]),
            inventory,
        };
        history.propose(register, None);
        workers.insert(newest(&history.state, &workers), host.is_sound);
    }
    (history, workers)
}

/// The worker that is not known yet.
fn newest(state: &State, known: &BTreeMap<WorkerId, bool>) -> WorkerId {
    let mut new = state
        .workers()
        .filter(|worker| !known.contains_key(&worker.id));
    new.next().expect("one has come").id
}

fn submit(history: &mut History, number: u64, retry_limit: u8) -> JobId {
    let mut staging = [0; 16];
    staging[..8].copy_from_slice(&number.to_le_bytes());
    let spec = Box::new(JobSpec {
        retry_limit,
        ..JobSpec::new(workload(), StagingId(staging))
    });
    match history.propose(Command::SubmitJob { spec }, None).reply {
        Ok(Reply::JobSubmitted { job }) => job,
        other => panic!("{other:?}"),
    }
}
